//! A connection of `pairgate mqtt check`: one thing after the other, each with its own end of patience, and never connected again by itself.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::config::mqtt::OutsideBroker;
use crate::mqtt::desk::Outgoing;
use crate::mqtt::link::{self, Credentials, Event, LinkError, Sender};
use crate::mqtt::relay::Relay;

/// For a connection.
const CONNECT: Duration = Duration::from_secs(12);
/// For the broker's answer to anything else.
const ANSWER: Duration = Duration::from_secs(4);

/// What became of a message or a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The broker said yes.
    Granted,
    /// It said no, or ended the connection.
    Refused,
    /// It said nothing.
    Silent,
}

/// A connected client; the connection ends when it is dropped.
pub struct Peer {
    sender: Sender,
    heard: mpsc::UnboundedReceiver<Result<Event, String>>,
    /// Messages that came while something else was waited for.
    payloads: Vec<Vec<u8>>,
    ended: Option<String>,
    pumping: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.pumping.abort();
    }
}

impl Peer {
    /// Connects.
    ///
    /// # Errors
    /// Why not, in words.
    pub async fn connect(broker: &OutsideBroker, credentials: Credentials) -> Result<Self, String> {
        let relay = Relay::start(broker).map_err(|error| error.to_string())?;
        let (sender, mut link) = link::open(broker, &relay.socket(), credentials, None);
        let (tell, heard) = mpsc::unbounded_channel();
        let pumping = tokio::spawn(async move {
            loop {
                let event = link.next().await.map_err(|error| match (error, relay.trouble()) {
                    (error @ LinkError::Refused(_), _) | (error, None) => error.to_string(),
                    (LinkError::Lost(_), Some(trouble)) => trouble,
                });
                let is_over = event.is_err();
                if tell.send(event).is_err() || is_over {
                    break;
                }
            }
        });
        let mut peer = Self { sender, heard, payloads: Vec::new(), ended: None, pumping };
        match peer.wait(CONNECT, |event| matches!(event, Event::Connected).then_some(())).await {
            Some(()) => Ok(peer),
            None => Err(peer.ended.clone().unwrap_or_else(|| "the broker did not answer".into())),
        }
    }

    /// Waits for an event, and keeps the messages that come meanwhile.
    async fn wait<T>(&mut self, patience: Duration, wanted: impl Fn(&Event) -> Option<T>) -> Option<T> {
        let end = Instant::now() + patience;
        while self.ended.is_none() {
            match timeout_at(end, self.heard.recv()).await {
                Ok(Some(Ok(event))) => {
                    if let Some(found) = wanted(&event) {
                        return Some(found);
                    }
                    if let Event::Message(received) = event {
                        self.payloads.push(received.payload);
                    }
                }
                Ok(Some(Err(why))) => self.ended = Some(why),
                Ok(None) => self.ended = Some("the connection ended".into()),
                Err(_) => break,
            }
        }
        None
    }

    /// Subscribes, QoS 1. `Granted` says little: Mosquitto grants everything, and delivers what the rules allow.
    pub async fn subscribe(&mut self, filter: String) -> Outcome {
        self.sender.subscribe([filter]);
        let answer = self.wait(ANSWER, |event| match event {
            Event::Subscribed => Some(Outcome::Granted),
            Event::SubscriptionRefused => Some(Outcome::Refused),
            _ => None,
        });
        answer.await.unwrap_or_else(|| self.silence())
    }

    /// Publishes, QoS 1.
    pub async fn publish(&mut self, topic: String, payload: &str) -> Outcome {
        self.sender.publish(Outgoing { topic, payload: payload.into(), correlation: None }, false);
        let answer = self.wait(ANSWER, |event| match event {
            Event::Acknowledged => Some(Outcome::Granted),
            Event::PublishRefused => Some(Outcome::Refused),
            _ => None,
        });
        answer.await.unwrap_or_else(|| self.silence())
    }

    fn silence(&self) -> Outcome {
        if self.ended.is_some() { Outcome::Refused } else { Outcome::Silent }
    }

    /// Does this message arrive within that time?
    pub async fn hears(&mut self, payload: &str, patience: Duration) -> bool {
        if self.has_heard(payload) {
            return true;
        }
        let is_it = |event: &Event| match event {
            Event::Message(received) if received.payload == payload.as_bytes() => Some(()),
            _ => None,
        };
        let found = self.wait(patience, is_it).await.is_some();
        if found {
            self.payloads.push(payload.into());
        }
        found
    }

    /// Has it arrived?
    pub fn has_heard(&self, payload: &str) -> bool {
        self.payloads.iter().any(|heard| heard == payload.as_bytes())
    }

    /// Why the connection ends, if it does within that time.
    pub async fn ends_within(&mut self, patience: Duration) -> Option<String> {
        let _: Option<()> = self.wait(patience, |_| None).await;
        self.ended.clone()
    }
}
