//! The MQTT edge (`docs/mqtt.md`, `docs/decisions/0014-mqtt.md`): messages in, one broker call, messages out. What is signed decides; the transport never does.
//!
//! | file | does |
//! | --- | --- |
//! | [`topics`] | the topics, and who may do what with them |
//! | [`desk`] | what becomes of a message that came in, and what is to be sent |
//! | [`follow`] | reads the news off the audit log and hands them on |
//! | [`client`], [`link`], [`relay`] | the connection to the organisation's broker: which node has it, the protocol, TLS |
//! | [`acl`] | rules for Mosquitto |
//! | [`emqx`] | asks EMQX to end a connection |
//! | [`check`], [`trial`], [`peer`] | `pairgate mqtt check`: what is tried at such a broker, the words for it, its connections |
//! | [`embedded`], [`session`], [`guests`] | our own endpoint: accepting, one connection, who is connected |

pub mod acl;
pub mod check;
pub mod client;
pub mod desk;
pub mod embedded;
pub mod emqx;
pub mod follow;
pub mod guests;
pub mod link;
pub mod peer;
pub mod relay;
pub mod session;
pub mod topics;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::config::Mqtt;
use crate::mqtt::client::Client;
use crate::mqtt::desk::Desk;
use crate::mqtt::follow::{Outlet, follow};
use crate::mqtt::guests::{Guestbook, Guests};
use crate::mqtt::topics::Topics;
use crate::secret::{Random, SecretError};
use crate::tls::server::TlsDoor;

/// What runs.
pub struct Edge {
    /// The connection to the organisation's broker.
    pub client: Option<Arc<Client>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Edge {
    /// Starts what is configured. `listener`: of our own endpoint, with its door; without a door, it speaks in clear.
    ///
    /// # Errors
    /// If the machine's generator fails.
    pub fn start(
        config: &Mqtt,
        broker: &Arc<Broker>,
        listener: Option<(TcpListener, Option<Arc<TlsDoor>>)>,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Self, SecretError> {
        let desk = Arc::new(Desk::new(Arc::clone(broker), Topics::new(&config.prefix)));
        let mut edge = Self { client: None, tasks: Vec::new() };
        let mut outlets: Vec<Arc<dyn Outlet>> = Vec::new();
        if let Some((listener, door)) = listener {
            let guests = Guests::new(Arc::clone(&desk));
            edge.tasks.push(tokio::spawn(embedded::serve(Arc::clone(&guests), listener, door, stopping.clone())));
            outlets.push(Arc::new(Guestbook(guests)));
        }
        if let Some(outside) = &config.broker {
            let (client, kicked) = Client::new(outside.clone(), Arc::clone(&desk), Random::system())?;
            if let Some(emqx) = &outside.emqx {
                edge.tasks.push(tokio::spawn(emqx::end_connections(emqx.clone(), kicked, stopping.clone())));
            }
            edge.tasks.push(tokio::spawn(Arc::clone(&client).run(stopping.clone())));
            outlets.push(Arc::clone(&client) as Arc<dyn Outlet>);
            edge.client = Some(client);
        }
        if !outlets.is_empty() {
            edge.tasks.push(tokio::spawn(follow(desk, outlets, stopping.clone())));
        }
        Ok(edge)
    }

    /// Waits until all has ended, after `stopping` turned true.
    pub async fn ended(self) {
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

/// Address of our own endpoint, as devices are told it.
pub fn url(address: SocketAddr, is_tls: bool) -> String {
    format!("{}://{address}", if is_tls { "mqtts" } else { "mqtt" })
}
pub mod trial;
