//! Our own endpoint: accepts connections. It is no broker: nothing goes from client to client, nothing is retained or kept for whoever is away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use crate::mqtt::guests::{Guests, StrangersPlace, Visitor};
use crate::mqtt::session::Session;
use crate::tls::server::TlsDoor;

/// A listener that fails gets a moment's rest.
const REST: Duration = Duration::from_millis(100);

/// Accepts connections until the process stops. Without a door in clear: configuration allows that on this machine alone.
pub async fn serve(
    guests: Arc<Guests>,
    listener: TcpListener,
    door: Option<Arc<TlsDoor>>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|is_stopping| *is_stopping) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "an MQTT connection could not be accepted");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let (stranger, evicted) = guests.receive(peer);
        // Small answers at once: without it, each takes 40 ms.
        let _ = stream.set_nodelay(true);
        let (guests, door) = (Arc::clone(&guests), door.clone());
        // In a task of its own, so that a silent client blocks nobody.
        tokio::spawn(async move {
            tokio::select! {
                () = given_away(evicted) => tracing::debug!(%peer, "an MQTT connection said nothing for too long"),
                () = receive(guests, stream, door, peer, stranger) => {}
            }
        });
    }
    guests.stop();
}

async fn receive(
    guests: Arc<Guests>,
    stream: TcpStream,
    door: Option<Arc<TlsDoor>>,
    peer: SocketAddr,
    stranger: StrangersPlace,
) {
    let Some(door) = door else {
        let visitor = Visitor { peer, certificates: Arc::from([]) };
        return Session::new(stream, guests, visitor).serve(stranger).await;
    };
    match door.accept(stream).await {
        Ok((stream, tls)) => {
            let visitor = Visitor { peer, certificates: tls.certificates };
            Session::new(stream, guests, visitor).serve(stranger).await;
        }
        Err(error) => tracing::debug!(%error, %peer, "a handshake failed"),
    }
}

/// Serves one connection that somebody else has accepted, to its end.
pub async fn attend<S>(guests: Arc<Guests>, stream: S, visitor: Visitor)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (stranger, _) = guests.receive(visitor.peer);
    Session::new(stream, guests, visitor).serve(stranger).await;
}

/// Waits until a stranger's place is given to another; for ever, once it has said who it is.
async fn given_away(evicted: oneshot::Receiver<()>) {
    if evicted.await.is_err() {
        std::future::pending::<()>().await;
    }
}
