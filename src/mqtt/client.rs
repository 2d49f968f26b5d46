//! The connection to the organisation's broker. Of several nodes, one has it at a time: who holds the lease in the database. All others answer nothing, so a
//! request has one answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::mqtt::{OutsideBroker, read_secret};
use crate::id::DeviceId;
use crate::mqtt::desk::{Desk, Outgoing, Received};
use crate::mqtt::follow::Outlet;
use crate::mqtt::link::{self, Credentials, Event, LastWill, Link, LinkError, Sender};
use crate::mqtt::relay::Relay;
use crate::secret::{Random, SecretError, b64u};

const LEASE: &str = "mqtt";
/// Renewed so often …
const RENEW: Duration = Duration::from_secs(5);
/// … and another node's after this long without.
const LEASE_LIFETIME: Duration = Duration::from_secs(15);
/// Pauses between attempts: doubled each time, within these bounds, each shortened by chance, so that nodes and brokers that start at once don't stay in step.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Messages that wait to be answered; more are dropped unanswered, and devices ask again.
const QUEUE: usize = 512;
/// "Online" is said again so often: a last will of a node that went before may come late.
const STATUS: Duration = Duration::from_secs(60);

/// The client.
pub struct Client {
    broker: OutsideBroker,
    desk: Arc<Desk>,
    random: Random,
    /// This process, in the lease.
    node: String,
    /// While we are connected.
    sender: Mutex<Option<Sender>>,
    is_connected: AtomicBool,
    kicks: mpsc::Sender<DeviceId>,
}

impl Client {
    /// For this broker. The second half takes the devices whose connection there is to be ended.
    ///
    /// # Errors
    /// If the machine's generator fails.
    pub fn new(
        broker: OutsideBroker,
        desk: Arc<Desk>,
        random: Random,
    ) -> Result<(Arc<Self>, mpsc::Receiver<DeviceId>), SecretError> {
        let node = b64u(&random.bytes32()?);
        let (kicks, kicked) = mpsc::channel(QUEUE);
        let (sender, is_connected) = (Mutex::default(), AtomicBool::new(false));
        Ok((Arc::new(Self { broker, desk, random, node, sender, is_connected, kicks }), kicked))
    }

    /// Is this node connected now?
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    /// Speaks to the broker whenever this node holds the lease, until the process stops.
    pub async fn run(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let mut renew = tokio::time::interval(RENEW);
        let mut speaking: Option<Speaking> = None;
        let mut renewed_at = Instant::now();
        loop {
            tokio::select! {
                _ = renew.tick() => {}
                _ = stopping.wait_for(|is_stopping| *is_stopping) => break,
            }
            match self.desk.broker().take_lease(LEASE, &self.node, LEASE_LIFETIME).await {
                Ok(true) => {
                    renewed_at = Instant::now();
                    speaking = speaking.or_else(|| self.speak());
                }
                Ok(false) => self.hush(speaking.take()).await,
                // A database that fails for a moment need not cost the connection; for longer than the lease, another node may have it.
                Err(error) => {
                    tracing::warn!(%error, "the MQTT lease could not be renewed");
                    if renewed_at.elapsed() + RENEW > LEASE_LIFETIME {
                        self.hush(speaking.take()).await;
                    }
                }
            }
        }
        self.hush(speaking).await;
        if let Err(error) = self.desk.broker().drop_lease(LEASE, &self.node).await {
            tracing::debug!(%error, "the lease was left to run out");
        }
    }

    fn speak(self: &Arc<Self>) -> Option<Speaking> {
        let (relay, sender, link) = match self.open() {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!(%error, "the MQTT broker can't be spoken to as configured");
                return None;
            }
        };
        let (questions, asked) = mpsc::channel(QUEUE);
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender.clone());
        let answering = tokio::spawn(Arc::clone(self).answer(asked, sender.clone()));
        let listening = tokio::spawn(Arc::clone(self).listen(link, relay, sender.clone(), questions));
        Some(Speaking { sender, listening, answering })
    }

    fn open(&self) -> anyhow::Result<(Relay, Sender, Link)> {
        let relay = Relay::start(&self.broker)?;
        let login = match (&self.broker.user_name, &self.broker.password_file) {
            (Some(name), Some(path)) => Some((name.clone(), read_secret("mqtt.password_file", path)?.0)),
            _ => None,
        };
        let credentials = Credentials { client_id: self.broker.client_id.clone(), login };
        let will = LastWill { topic: self.desk.topics().status(), payload: status("offline") };
        let (sender, link) = link::open(&self.broker, &relay.socket(), credentials, Some(will));
        Ok((relay, sender, link))
    }

    /// Polls the connection, for ever.
    async fn listen(self: Arc<Self>, mut link: Link, relay: Relay, sender: Sender, questions: mpsc::Sender<Received>) {
        let mut pause = BACK_OFF.0;
        let mut say_online = tokio::time::interval(STATUS);
        loop {
            let event = tokio::select! {
                event = link.next() => event,
                _ = say_online.tick(), if self.is_connected() => {
                    self.say(&sender, "online");
                    continue;
                }
            };
            match event {
                Ok(Event::Connected) => {
                    tracing::info!(host = self.broker.host, port = self.broker.port, "connected to the MQTT broker");
                    pause = BACK_OFF.0;
                    // A new session each time: subscriptions are gone, without an error.
                    sender.subscribe(self.desk.topics().subscriptions());
                    self.is_connected.store(true, Ordering::Relaxed);
                    self.say(&sender, "online");
                }
                Ok(Event::Message(received)) => {
                    if questions.try_send(received).is_err() {
                        tracing::warn!("too many MQTT messages at once; one was left unanswered");
                    }
                }
                Ok(Event::SubscriptionRefused) => {
                    tracing::error!("the MQTT broker refused a subscription; see: pairgate mqtt check");
                }
                Ok(Event::PublishRefused) => {
                    tracing::error!("the MQTT broker refused a message; see: pairgate mqtt check");
                }
                Ok(_) => {}
                Err(error) => {
                    let is_news = self.is_connected.swap(false, Ordering::Relaxed) || pause == BACK_OFF.0;
                    self.report(&error, relay.trouble(), is_news);
                    tokio::time::sleep(self.shortened(pause)).await;
                    pause = (pause * 2).min(BACK_OFF.1);
                }
            }
        }
    }

    fn report(&self, error: &LinkError, trouble: Option<String>, is_news: bool) {
        let (host, port) = (&self.broker.host, self.broker.port);
        let why = trouble.unwrap_or_else(|| error.to_string());
        if is_news {
            tracing::warn!(
                host,
                port,
                why,
                "no connection to the MQTT broker; devices go on over HTTP, and we go on trying"
            );
        } else {
            tracing::debug!(host, port, why, "still no connection to the MQTT broker");
        }
    }

    /// Between half of it and all of it.
    fn shortened(&self, pause: Duration) -> Duration {
        let chance = self.random.below(100).unwrap_or(50);
        pause.mul_f64(0.5 + f64::from(chance) / 200.0)
    }

    async fn answer(self: Arc<Self>, mut asked: mpsc::Receiver<Received>, sender: Sender) {
        while let Some(received) = asked.recv().await {
            if let Some(outgoing) = self.desk.answer(received).await
                && !sender.publish(outgoing, false)
            {
                tracing::warn!("too many MQTT messages wait; an answer was dropped");
            }
        }
    }

    fn say(&self, sender: &Sender, word: &str) {
        let payload = status(word).into_bytes();
        sender.publish(Outgoing { topic: self.desk.topics().status(), payload, correlation: None }, true);
    }

    /// Ends the connection in good order.
    async fn hush(&self, speaking: Option<Speaking>) {
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let Some(Speaking { sender, listening, answering }) = speaking else { return };
        answering.abort();
        if self.is_connected.swap(false, Ordering::Relaxed) {
            self.say(&sender, "offline");
            sender.disconnect();
            // The farewell ends the library's loop with an error; if it takes too long, the last will says the same.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        listening.abort();
    }
}

struct Speaking {
    sender: Sender,
    listening: tokio::task::JoinHandle<()>,
    answering: tokio::task::JoinHandle<()>,
}

fn status(word: &str) -> String {
    serde_json::json!({ "status": word }).to_string()
}

impl Outlet for Client {
    fn is_open(&self) -> bool {
        self.is_connected()
    }

    fn send(&self, outgoing: Outgoing) {
        // What waited for a broker that is gone would come too late: an event lives a minute, and the next poll tells the same.
        if !self.is_connected() {
            return;
        }
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(sender) = sender
            && !sender.publish(outgoing, false)
        {
            tracing::warn!("too many MQTT messages wait; one was dropped");
        }
    }

    /// Which people are connected there, is that broker's business.
    fn people_changed(&self) {}

    fn end(&self, device: &DeviceId) {
        // Of the brokers that have a call for it, EMQX is the one that is known here; elsewhere the rules refuse what comes next.
        if self.is_connected() && self.broker.emqx.is_some() && self.kicks.try_send(device.clone()).is_err() {
            tracing::warn!(%device, "too many MQTT connections are to be ended at once; this one stays until it ends by itself");
        }
    }
}
