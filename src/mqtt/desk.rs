//! What becomes of a message that came in, and what is to be sent because of it. Both edges, our own endpoint and an outside broker, bring messages here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use crate::broker::Broker;
use crate::broker::events::News;
use crate::broker::pairing::PairingError;
use crate::clock::Timestamp;
use crate::id::DeviceId;
use crate::mqtt::topics::{Incoming, Topics};
use crate::oauth::jose::glance;

/// The longest payload that is read, in bytes: that of a poll.
pub const MAX_PAYLOAD: usize = 12 * 1024;
/// The longest correlation data that is given back, in bytes.
const MAX_CORRELATION: usize = 256;
/// Messages that are answered for one device in a minute. Whoever floods a topic costs a signature check each, and no more than these.
const PER_MINUTE: u32 = 60;
/// Devices that are counted apart, and whose last poll is kept; the rest share one place, and poll again.
const PLACES: usize = 4096;
/// Pairings of one device whose last polls are kept.
const PAIRINGS: usize = 3;
/// A pairing's last poll is of no use after the pairing.
const KEEP_POLL: Duration = Duration::from_secs(15 * 60);

/// A message that came in.
#[derive(Clone, Debug)]
pub struct Received {
    /// Where it was published.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Was it retained, or to be?
    pub retain: bool,
    /// MQTT 5: where the answer is wanted.
    pub response_topic: Option<String>,
    /// MQTT 5: what comes back with the answer.
    pub correlation: Option<Vec<u8>>,
    /// From where, if that is known.
    pub peer: Option<IpAddr>,
}

/// A message that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// MQTT 5: what came with the question.
    pub correlation: Option<Vec<u8>>,
}

/// What is looked at of a pairing message before the broker judges it.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    #[serde(default)]
    pairing_id: String,
}

/// The desk. Nothing authoritative is in its memory: what is lost with it, devices ask again.
pub struct Desk {
    broker: Arc<Broker>,
    topics: Topics,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    minute: i64,
    answered: HashMap<Option<DeviceId>, u32>,
    polls: HashMap<DeviceId, Vec<LastPoll>>,
}

/// What was last asked about a pairing. A poll is idempotent: asked again, it tells how things are now.
#[derive(Clone)]
struct LastPoll {
    pairing: String,
    body: String,
    at: Timestamp,
    peer: Option<IpAddr>,
}

impl Desk {
    /// For a broker and its topics.
    pub fn new(broker: Arc<Broker>, topics: Topics) -> Self {
        Self { broker, topics, memory: Mutex::default() }
    }

    /// The broker.
    pub const fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The topics.
    pub const fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Answers a message; nothing, if it is none that deserves an answer.
    pub async fn answer(&self, received: Received) -> Option<Outgoing> {
        let Received { topic, payload, retain, response_topic, correlation, peer } = received;
        let incoming = self.topics.incoming(&topic);
        let device = match &incoming {
            Some(Incoming::PairingRequest(device)) => Some(device),
            Some(Incoming::Command) | None => None,
        };
        let why = match (&incoming, std::str::from_utf8(&payload)) {
            (None, _) => "a topic that nobody publishes to",
            // A retained message would be played to whoever comes later, for as long as the broker lives.
            _ if retain => "a retained message",
            (_, Ok(_)) if payload.len() > MAX_PAYLOAD => "a message that is too long",
            (_, Err(_)) => "a message that is no text",
            (Some(incoming), Ok(text)) => {
                if !self.may_answer(device) {
                    return None;
                }
                let correlation = correlation.filter(|data| data.len() <= MAX_CORRELATION);
                return match incoming {
                    Incoming::PairingRequest(device) => {
                        let own = self.topics.pairing_response(device);
                        if response_topic.is_some_and(|wanted| wanted != own) {
                            // An answer that goes where somebody else likes would make Pairgate publish for him.
                            self.refuse("a response topic that is not the device's own", peer).await;
                            return None;
                        }
                        let payload = self.pairing(device, text.trim(), peer).await.into_bytes();
                        Some(Outgoing { topic: own, payload, correlation })
                    }
                    Incoming::Command => {
                        let (key, result) = self.broker.operator_command(text.trim(), peer).await?;
                        Some(Outgoing { topic: self.topics.results(&key), payload: result.into_bytes(), correlation })
                    }
                };
            }
        };
        self.refuse(why, peer).await;
        None
    }

    async fn refuse(&self, why: &str, peer: Option<IpAddr>) {
        self.broker.note_message_refused(None, why, peer).await;
    }

    async fn pairing(&self, device: &DeviceId, body: &str, peer: Option<IpAddr>) -> String {
        let outcome = match glance::<Claims>(body) {
            // Another device's message on this device's topic: its answer would go to the wrong one.
            Some((_, claims)) if claims.iss != device.as_str() => {
                self.refuse("a pairing message on another device's topic", peer).await;
                Err(PairingError::Refused)
            }
            Some((typ, claims)) if typ == "pairing-poll+jwt" => {
                let outcome = self.broker.poll_pairing(body, peer).await;
                if outcome.is_ok() {
                    self.keep_poll(device, claims.pairing_id, body, peer);
                }
                outcome
            }
            // The broker says what is wrong with it, if it is no request.
            _ => self.broker.request_pairing(body, peer).await,
        };
        outcome.unwrap_or_else(|error| error.body().to_string())
    }

    /// What is to be sent because of some news; nothing, if nobody waits for it.
    pub async fn push(&self, news: &News) -> Vec<Outgoing> {
        match news {
            News::Tell(device, event) => {
                let payload = event.clone().into_bytes();
                vec![Outgoing { topic: self.topics.event(device), payload, correlation: None }]
            }
            News::PairingChanged(device) | News::PairingConfirmed(device) => {
                let mut answers = Vec::new();
                // Of several that say that they are the device, each hears how its own pairing stands. Once confirmed, all are over, and none is asked again
                // by us: that would be one more refusal in the record.
                for poll in self.last_polls(device, matches!(news, News::PairingConfirmed(_))) {
                    if let Ok(answer) = self.broker.poll_pairing(&poll.body, poll.peer).await {
                        let topic = self.topics.pairing_response(device);
                        answers.push(Outgoing { topic, payload: answer.into_bytes(), correlation: None });
                    }
                }
                answers
            }
            News::Ended(_) | News::PeopleChanged => Vec::new(),
        }
    }

    /// What waits, for consoles.
    pub async fn feed(&self) -> Option<Outgoing> {
        match self.broker.waiting_feed().await {
            Ok(feed) => {
                let payload = feed.to_string().into_bytes();
                Some(Outgoing { topic: self.topics.pending(), payload, correlation: None })
            }
            Err(error) => {
                tracing::warn!(%error, "what waits could not be read");
                None
            }
        }
    }

    /// Counts a message of a device, or of operators; `false` if there were too many in this minute.
    fn may_answer(&self, device: Option<&DeviceId>) -> bool {
        let minute = self.broker.now().seconds() / 60;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.minute != minute {
            memory.minute = minute;
            memory.answered = HashMap::new();
        }
        let place = device
            .cloned()
            .filter(|id| memory.answered.len() < PLACES || memory.answered.contains_key(&Some(id.clone())));
        let count = memory.answered.entry(place).or_default();
        *count += 1;
        *count <= PER_MINUTE
    }

    fn keep_poll(&self, device: &DeviceId, pairing: String, body: &str, peer: Option<IpAddr>) {
        let now = self.broker.now();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.polls.len() >= PLACES {
            memory.polls.retain(|_, polls| polls.iter().any(|poll| now.since(poll.at) < KEEP_POLL));
        }
        if memory.polls.len() >= PLACES && !memory.polls.contains_key(device) {
            return;
        }
        let polls = memory.polls.entry(device.clone()).or_default();
        polls.retain(|poll| poll.pairing != pairing && now.since(poll.at) < KEEP_POLL);
        // No more pairings than that wait for one device; the broker has just said that this is one of them.
        if polls.len() >= PAIRINGS {
            polls.remove(0);
        }
        polls.push(LastPoll { pairing, body: body.to_owned(), at: now, peer });
    }

    fn last_polls(&self, device: &DeviceId, is_last_time: bool) -> Vec<LastPoll> {
        let now = self.broker.now();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let polls = if is_last_time { memory.polls.remove(device) } else { memory.polls.get(device).cloned() };
        polls.unwrap_or_default().into_iter().filter(|poll| now.since(poll.at) < KEEP_POLL).collect()
    }
}
