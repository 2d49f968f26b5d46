//! `pairgate mqtt check`: may Pairgate and a device do what they need at the organisation's broker, and a device nothing else?
//!
//! What a broker answers to a subscription proves nothing; so Pairgate publishes probes, and what counts is whether they arrive. Probes are JSON with one member,
//! `probe`, signed by nobody, on topics of devices that do not exist: whoever reads one ignores it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::mqtt::{MqttVersion, OutsideBroker};
use crate::id::DeviceId;
use crate::mqtt::link::Credentials;
use crate::mqtt::peer::{Outcome, Peer};
use crate::mqtt::topics::Topics;
use crate::mqtt::trial::{TRIALS, Trial};
use crate::secret::{Random, SecretError};

/// For a message that should arrive.
const ARRIVES: Duration = Duration::from_secs(5);
/// For one that should not, after one that should.
const STRAYS: Duration = Duration::from_secs(1);
/// A node that was pushed off comes back after half a second, and more slowly each time.
const STAYS: Duration = Duration::from_secs(3);

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Good,
    /// Not.
    Wrong,
    /// Nobody can say.
    NotTried,
}

/// What came out of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub trial: Trial,
    /// How it is.
    pub state: State,
    /// What was seen, or why it was not tried.
    pub detail: String,
}

/// How the throw-away device gets in.
#[derive(Clone, Debug)]
pub struct Device {
    /// What it calls itself.
    pub id: DeviceId,
    /// Its client id.
    pub client_id: String,
    /// Files of its certificate and key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// Has it the rights of a paired device? Otherwise of one that is to be paired: no events.
    pub is_paired: bool,
    /// Does it share its user name with others? Then the broker can't tell their pairing messages apart.
    pub is_shared: bool,
    /// The port to which it connects.
    pub port: u16,
}

/// What is to be checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The broker, as Pairgate's own client reaches it.
    pub broker: OutsideBroker,
    /// Pairgate's user name and password there.
    pub login: Option<(String, String)>,
    /// Under which client ids Pairgate's side of the check may be known to the broker: what it says, and what the broker may make of it.
    pub client_ids: Vec<String>,
    /// The topics.
    pub topics: Topics,
    /// The device.
    pub device: Device,
}

/// A check under way.
struct Check<'a> {
    plan: &'a Plan,
    random: Random,
    /// A device that is not there, and whose topics are nobody else's.
    other: DeviceId,
    node: Option<Peer>,
    findings: Vec<Finding>,
    tell: &'a mut (dyn FnMut(&Finding) + Send),
}

/// Who would see it, if a message arrived that must not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watcher {
    Pairgate,
    Itself,
    Nobody,
}

/// An id of a device that is not there.
///
/// # Errors
/// If the machine's generator fails.
pub fn passing_device(random: &Random) -> Result<DeviceId, SecretError> {
    let mut bytes = [0; 6];
    random.fill(&mut bytes)?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    DeviceId::new(&format!("pairgate-check-{digits}")).map_err(|_| SecretError::Random)
}

/// Tries everything; `tell` hears of each as soon as it is known.
///
/// # Errors
/// If the machine's generator fails.
pub async fn run(
    plan: &Plan,
    random: Random,
    tell: &mut (dyn FnMut(&Finding) + Send),
) -> Result<Vec<Finding>, SecretError> {
    let other = passing_device(&random)?;
    let mut check = Check { plan, random, other, node: None, findings: Vec::new(), tell };
    if check.pairgate().await? && check.device().await? {
        check.read().await?;
        check.send().await?;
        check.places().await;
    }
    check.strangers().await;
    for trial in TRIALS {
        if !check.findings.iter().any(|finding| finding.trial == trial) {
            check.note(trial, State::NotTried, "needs what is wrong above");
        }
    }
    Ok(check.findings)
}

impl Check<'_> {
    fn note(&mut self, trial: Trial, state: State, detail: impl Into<String>) {
        let finding = Finding { trial, state, detail: detail.into() };
        (self.tell)(&finding);
        self.findings.push(finding);
    }

    /// Good if nothing was found to be wrong.
    fn conclude(&mut self, trial: Trial, wrong: Option<String>) -> bool {
        let is_good = wrong.is_none();
        self.note(trial, if is_good { State::Good } else { State::Wrong }, wrong.unwrap_or_default());
        is_good
    }

    fn probe(&self) -> Result<String, SecretError> {
        Ok(format!("{{\"probe\":\"{}\"}}", crate::secret::b64u(&self.random.bytes32()?)))
    }

    /// Pairgate's own rights; `false` if nothing more can be tried.
    async fn pairgate(&mut self) -> Result<bool, SecretError> {
        match self.as_pairgate().await {
            Ok(node) => self.node = Some(node),
            Err(why) => return Ok(self.conclude(Trial::Connect, Some(why))),
        }
        self.conclude(Trial::Connect, None);
        let Some(mut node) = self.node.take() else { return Ok(false) };
        let ended = node.ends_within(STAYS).await;
        if !self.conclude(Trial::Stay, ended) {
            return Ok(false);
        }
        let topics = self.plan.topics.clone();
        let mut refused = Vec::new();
        for filter in topics.subscriptions() {
            if node.subscribe(filter.clone()).await != Outcome::Granted {
                refused.push(filter);
            }
        }
        self.conclude(Trial::Subscribe, listed(&refused));
        let device = &self.plan.device.id;
        let devices = vec![topics.pairing_response(device), topics.event(device)];
        let consoles = vec![topics.pending(), topics.results(&[0; 32]), topics.status()];
        for (trial, topics) in [(Trial::TellDevices, devices), (Trial::TellConsoles, consoles)] {
            let mut refused = Vec::new();
            for topic in topics {
                if node.publish(topic.clone(), &self.probe()?).await != Outcome::Granted {
                    refused.push(topic);
                }
            }
            self.conclude(trial, listed(&refused));
        }
        self.node = Some(node);
        Ok(true)
    }

    async fn as_pairgate(&self) -> Result<Peer, String> {
        let client_id = self.plan.client_ids.first().cloned().unwrap_or_default();
        Peer::connect(&self.plan.broker, Credentials { client_id, login: self.plan.login.clone() }).await
    }

    async fn as_device(&self, client_id: &str) -> Result<Peer, String> {
        let device = &self.plan.device;
        let (certificate, port) = (device.certificate.clone(), device.port);
        let broker = OutsideBroker { certificate, port, ..self.plan.broker.clone() };
        Peer::connect(&broker, Credentials { client_id: client_id.to_owned(), login: device.login.clone() }).await
    }

    /// What a device needs; `false` if it does not even get in.
    async fn device(&mut self) -> Result<bool, SecretError> {
        let (plan, topics) = (self.plan, &self.plan.topics);
        let id = &plan.device.id;
        let mut device = match self.as_device(&plan.device.client_id).await {
            Ok(device) => device,
            Err(why) => return Ok(self.conclude(Trial::DeviceConnect, Some(why))),
        };
        self.conclude(Trial::DeviceConnect, None);
        let probe = self.probe()?;
        let sent = device.publish(topics.pairing_request(id), &probe).await;
        let arrives = match self.node.as_mut() {
            Some(node) => sent != Outcome::Refused && node.hears(&probe, ARRIVES).await,
            None => false,
        };
        self.conclude(Trial::OwnRequest, (!arrives).then(|| seen(sent).to_owned()));
        let mut wanted = vec![(Trial::OwnResponse, topics.pairing_response(id))];
        if plan.device.is_paired {
            wanted.push((Trial::OwnEvent, topics.event(id)));
        }
        for (trial, topic) in wanted {
            let subscribed = device.subscribe(topic.clone()).await;
            let probe = self.probe()?;
            if let Some(node) = self.node.as_mut() {
                node.publish(topic, &probe).await;
            }
            let arrives = subscribed != Outcome::Refused && device.hears(&probe, ARRIVES).await;
            self.conclude(trial, (!arrives).then(|| seen(subscribed).to_owned()));
        }
        if !plan.device.is_paired {
            self.note(Trial::OwnEvent, State::NotTried, "this device is not paired: it gets none");
        }
        Ok(true)
    }

    /// What a device must not get.
    async fn read(&mut self) -> Result<(), SecretError> {
        let topics = &self.plan.topics;
        let (event, response) = (topics.event(&self.other), topics.pairing_response(&self.other));
        let levels = topics.below("+/event");
        let mut events = vec![event.clone()];
        if !self.plan.device.is_paired {
            events.push(topics.event(&self.plan.device.id));
        }
        for (trial, filter, published) in [
            (Trial::ReadEvent, None, events),
            (Trial::ReadResponse, None, vec![response]),
            (Trial::ReadAll, Some("#".to_owned()), vec![event.clone()]),
            (Trial::ReadLevels, Some(levels), vec![event]),
            (Trial::ReadConsoles, None, vec![topics.pending(), topics.results(&[0; 32])]),
        ] {
            if trial == Trial::ReadResponse && self.plan.device.is_shared {
                self.note(trial, State::NotTried, SHARED);
                continue;
            }
            let found = self.strays(filter, &published).await?;
            self.note_stray(trial, found);
        }
        Ok(())
    }

    fn note_stray(&mut self, trial: Trial, found: Result<Option<String>, String>) {
        match found {
            Ok(wrong) => {
                self.conclude(trial, wrong);
            }
            Err(why) => self.note(trial, State::NotTried, why),
        }
    }

    /// Does a device get what is published there, by this filter or by the topics themselves? `Err`: nobody can say.
    async fn strays(
        &mut self,
        filter: Option<String>,
        published: &[String],
    ) -> Result<Result<Option<String>, String>, SecretError> {
        let plan = self.plan;
        let mut device = match self.as_device(&plan.device.client_id).await {
            Ok(device) => device,
            Err(why) => return Ok(Err(why)),
        };
        let own = plan.topics.pairing_response(&plan.device.id);
        device.subscribe(own.clone()).await;
        let mut is_refused = false;
        for filter in filter.map_or_else(|| published.to_vec(), |filter| vec![filter]) {
            is_refused |= device.subscribe(filter).await == Outcome::Refused;
        }
        let last = self.probe()?;
        let mut probes = Vec::new();
        for topic in published {
            probes.push((self.probe()?, topic.clone()));
        }
        let Some(node) = self.node.as_mut() else { return Ok(Err(GONE.into())) };
        for (probe, topic) in &probes {
            if node.publish(topic.clone(), probe).await == Outcome::Refused {
                return Ok(Err(format!("Pairgate itself may not publish to {topic}")));
            }
        }
        node.publish(own, &last).await;
        // A broker hands on in order, mostly: what comes after the last one is waited for only shortly. Where a refused subscription ends the connection, nothing
        // comes at all; in any other case silence proves nothing.
        let has_last = device.hears(&last, ARRIVES).await;
        device.ends_within(STRAYS).await;
        let stray = probes.iter().find(|(probe, _)| device.has_heard(probe));
        Ok(match stray {
            Some((_, topic)) => Ok(Some(format!("it got what was published to {topic}"))),
            None if has_last || is_refused => Ok(None),
            None => Err("the device gets nothing at all, not even its own".into()),
        })
    }

    /// What a device must not send.
    async fn send(&mut self) -> Result<(), SecretError> {
        let (plan, topics) = (self.plan, &self.plan.topics);
        let own_event = if plan.device.is_paired { Watcher::Itself } else { Watcher::Nobody };
        for (trial, topic, watcher) in [
            (Trial::SendRequest, topics.pairing_request(&self.other), Watcher::Pairgate),
            (Trial::SendCommand, topics.commands(), Watcher::Pairgate),
            (Trial::SendEvent, topics.event(&plan.device.id), own_event),
            (Trial::SendResponse, topics.pairing_response(&plan.device.id), Watcher::Itself),
        ] {
            if trial == Trial::SendRequest && plan.device.is_shared {
                self.note(trial, State::NotTried, SHARED);
                continue;
            }
            let found = self.forge(topic, watcher).await?;
            self.note_stray(trial, found);
        }
        Ok(())
    }

    /// Does what a device publishes there arrive? `Err`: nobody can say.
    async fn forge(&mut self, topic: String, watcher: Watcher) -> Result<Result<Option<String>, String>, SecretError> {
        let mut device = match self.as_device(&self.plan.device.client_id).await {
            Ok(device) => device,
            Err(why) => return Ok(Err(why)),
        };
        if watcher == Watcher::Itself {
            device.subscribe(topic.clone()).await;
        }
        let probe = self.probe()?;
        let sent = device.publish(topic.clone(), &probe).await;
        let arrives = match (watcher, self.node.as_mut()) {
            _ if sent == Outcome::Refused => false,
            (Watcher::Pairgate, Some(node)) => node.hears(&probe, STRAYS).await,
            (Watcher::Itself, _) => device.hears(&probe, STRAYS).await,
            _ => false,
        };
        Ok(match (arrives, watcher, sent) {
            (true, ..) => Ok(Some(format!("its message to {topic} arrived"))),
            (false, Watcher::Nobody, Outcome::Granted) if self.plan.broker.version == MqttVersion::V5 => {
                Ok(Some(format!("the broker took its message to {topic}")))
            }
            (false, Watcher::Nobody, Outcome::Granted) => {
                Err("with MQTT 3.1.1 a broker does not say whether it took the message".into())
            }
            (false, ..) => Ok(None),
        })
    }

    /// Does a device under Pairgate's client id push Pairgate off? Whether it is let in under it says nothing: a broker may give it another.
    async fn places(&mut self) {
        let plan = self.plan;
        for client_id in &plan.client_ids {
            let Some(node) = self.node.as_mut() else { break };
            if let Some(why) = node.ends_within(Duration::from_millis(100)).await {
                return self.note(Trial::ClientId, State::NotTried, format!("{GONE}: {why}"));
            }
            let Ok(_intruder) = self.as_device(client_id).await else { continue };
            let Some(node) = self.node.as_mut() else { break };
            if node.ends_within(STRAYS).await.is_some() {
                let seen = format!("a device that called itself {client_id} pushed Pairgate off");
                return self.note(Trial::ClientId, State::Wrong, seen);
            }
        }
        self.note(Trial::ClientId, State::Good, "");
    }

    /// Who shows nothing, and who does not encrypt.
    async fn strangers(&mut self) {
        let plan = self.plan;
        let mut wrong = None;
        let mut is_reachable = self.findings.iter().any(|finding| finding.trial == Trial::Stay);
        for port in BTreeSet::from([plan.broker.port, plan.device.port]) {
            let broker = OutsideBroker { certificate: None, port, ..plan.broker.clone() };
            match Peer::connect(&broker, nobody(&self.other)).await {
                Ok(_) => {
                    is_reachable = true;
                    wrong = Some(format!("the broker let it in on port {port}"));
                }
                Err(why) => tracing::debug!(why, port, "a stranger was not let in"),
            }
        }
        if is_reachable {
            self.conclude(Trial::NoCredentials, wrong);
        }
        if is_loopback(&plan.broker.host) {
            self.note(Trial::InClear, State::NotTried, "the broker is on this machine, and nobody else hears");
            return;
        }
        let broker = OutsideBroker { certificate: None, is_tls: false, port: 1883, ..plan.broker.clone() };
        let wrong = match Peer::connect(&broker, nobody(&self.other)).await {
            Ok(_) => Some("the broker let it in".to_owned()),
            // It speaks, and would hear a password.
            Err(why) if why.starts_with(REFUSED) => Some("it asks for a password there".to_owned()),
            Err(_) => None,
        };
        self.conclude(Trial::InClear, wrong);
    }
}

/// How a refusal by the protocol's own word begins.
const REFUSED: &str = "the broker refused";
const GONE: &str = "Pairgate's side of the check is gone";
const SHARED: &str =
    "all devices that are to be paired share this user name; their messages are signed, and hold no secret";

fn nobody(device: &DeviceId) -> Credentials {
    Credentials { client_id: format!("{device}.0123456789abcdef"), login: None }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn listed(topics: &[String]) -> Option<String> {
    (!topics.is_empty()).then(|| format!("not {}", topics.join(", ")))
}

const fn seen(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Granted => "the broker said yes, and nothing arrived",
        Outcome::Refused => "the broker refused it",
        Outcome::Silent => "the broker said nothing",
    }
}
