//! The device's side over MQTT (docs/mqtt.md): to be paired, and to be told when to ask for tokens, without any polls in between.
//!
//! What comes over MQTT is believed only as far as it is signed: a pairing answer by the key that the pairing began with, an event by a pinned key, for this
//! device, in time, once.

use std::collections::HashSet;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::device::{SimulatedDevice, TokenAnswer, Tokens};
use super::error::SimulatorError;
use super::host;
use super::jose;
use super::pairing::{PairingStatus, Pins};
use super::routine::DeviceEvent;

/// A device that waits polls all the same, this often while it is paired …
const PAIRING_PATIENCE: Duration = Duration::from_secs(30);
/// … and asks again after this long without any answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(500);

/// Where the broker is.
#[derive(Debug, Clone)]
pub enum MqttDoor {
    /// In clear, on this machine.
    Plain(String, u16),
    /// A socket file behind which somebody else does TLS.
    Socket(String),
}

/// How the device shows who it is.
#[derive(Debug, Clone)]
pub enum MqttLogin {
    /// By a signed password: paired, or to be paired.
    Password {
        /// Has its key been confirmed?
        is_paired: bool,
    },
    /// By its certificate, which whoever does TLS shows.
    Certificate,
    /// By what all devices share that are to be paired.
    Shared(String, String),
}

/// A connection, which opens itself again whenever it is lost.
pub struct MqttRadio {
    client: AsyncClient,
    heard: mpsc::Receiver<Heard>,
    prefix: String,
    id: String,
    seen: HashSet<String>,
    /// Messages that this device has sent.
    pub sent: usize,
    /// Messages that it has got.
    pub got: usize,
    _loop: JoinSet<()>,
}

/// What a connection hears.
#[derive(Debug)]
pub enum Heard {
    /// The broker took it, and the subscriptions.
    Connected,
    /// It was refused, or lost.
    Lost(String),
    /// A message.
    Message {
        /// Where.
        topic: String,
        /// What.
        payload: String,
        /// Was it retained?
        retain: bool,
    },
}

/// An event that is authentic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// `poll_now` and so on.
    pub event: String,
    /// The number to show.
    pub number: Option<String>,
}

impl SimulatedDevice {
    /// The client id of `docs/mqtt.md`.
    pub fn mqtt_client_id(&self, is_paired: bool) -> String {
        if is_paired {
            self.id.clone()
        } else {
            format!("{}.{}", self.id, self.key.jkt().get(..16).unwrap_or_default())
        }
    }

    /// A password for one connection.
    pub fn mqtt_password(&self) -> Result<String, SimulatorError> {
        let now = self.now_s();
        let claims = json!({
            "iss": self.id, "aud": self.issuer(), "iat": now, "exp": now + 120, "jti": host::new_jti()?,
        });
        self.key.sign_raw(&self.key.header("mqtt+jwt"), &claims)
    }
}

impl MqttRadio {
    /// Connects; returns when the broker has taken it, and subscribed.
    pub async fn open(
        device: &SimulatedDevice,
        door: &MqttDoor,
        prefix: &str,
        login: &MqttLogin,
    ) -> Result<Self, SimulatorError> {
        let is_paired = matches!(login, MqttLogin::Certificate | MqttLogin::Password { is_paired: true });
        let client_id = device.mqtt_client_id(is_paired);
        let mut options = match door {
            MqttDoor::Plain(host, port) => MqttOptions::new(client_id, host, *port),
            MqttDoor::Socket(path) => {
                let mut options = MqttOptions::new(client_id, path, 0);
                options.set_transport(rumqttc::Transport::unix());
                options
            }
        };
        options.set_clean_start(true).set_keep_alive(Duration::from_secs(30)).set_max_packet_size(Some(16 * 1024));
        match login {
            MqttLogin::Password { .. } => drop(options.set_credentials(&device.id, device.mqtt_password()?)),
            MqttLogin::Shared(name, password) => drop(options.set_credentials(name, password)),
            MqttLogin::Certificate => {}
        }
        let own = |rest: &str| format!("{prefix}/v1/{}/{rest}", device.id);
        let mut topics = vec![own("pairing/response")];
        topics.extend(is_paired.then(|| own("event")));
        let (client, mut events) = AsyncClient::new(options, 64);
        let (hear, heard) = mpsc::channel(256);
        let mut task = JoinSet::new();
        // A password is good for one connection: for the next one there must be a new one, by the same key.
        let signer = matches!(login, MqttLogin::Password { .. }).then(|| PasswordMaker::of(device)).transpose()?;
        let subscriber = client.clone();
        task.spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        let filters = topics.iter().map(|topic| Filter::new(topic, QoS::AtLeastOnce));
                        let _ = subscriber.try_subscribe_many(filters);
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        if hear.send(Heard::Connected).await.is_err() {
                            return;
                        }
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                        let payload = String::from_utf8_lossy(&publish.payload).into_owned();
                        let message = Heard::Message { topic, payload, retain: publish.retain };
                        if hear.send(message).await.is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        if hear.send(Heard::Lost(error.to_string())).await.is_err() {
                            return;
                        }
                        host::pause(RECONNECT).await;
                        if let Some(Ok((name, password))) = signer.as_ref().map(PasswordMaker::make) {
                            events.options.set_credentials(name, password);
                        }
                    }
                }
            }
        });
        let (prefix, id) = (prefix.to_owned(), device.id.clone());
        let mut radio = Self { client, heard, prefix, id, seen: HashSet::new(), sent: 0, got: 0, _loop: task };
        match radio.hear(ANSWER_PATIENCE).await {
            Some(Heard::Connected) => Ok(radio),
            Some(Heard::Lost(reason)) => {
                Err(SimulatorError::Unreachable { address: "the MQTT broker".to_owned(), reason })
            }
            Some(Heard::Message { .. }) | None => Err(SimulatorError::Late("the MQTT broker's answer")),
        }
    }

    /// The next thing that is heard, if it comes in time.
    pub async fn hear(&mut self, within: Duration) -> Option<Heard> {
        let heard = tokio::time::timeout(within, self.heard.recv()).await.ok().flatten()?;
        if matches!(heard, Heard::Message { .. }) {
            self.got += 1;
        }
        Some(heard)
    }

    /// Waits until it is connected once more, after it was lost; `false` if that takes too long. Messages in between are dropped.
    pub async fn connected_again(&mut self, within: Duration) -> bool {
        let until = tokio::time::timeout(within, async {
            loop {
                match self.hear(within).await {
                    Some(Heard::Connected) => return true,
                    Some(_) => {}
                    None => return false,
                }
            }
        });
        until.await.unwrap_or(false)
    }

    /// The next message of a topic, by its end; others are dropped.
    pub async fn message(&mut self, ending: &str, within: Duration) -> Option<String> {
        let wanted = format!("{}/v1/{}/{ending}", self.prefix, self.id);
        let until = tokio::time::timeout(within, async {
            loop {
                match self.hear(within).await {
                    // A pairing answer or an event is never retained: such a one was planted.
                    Some(Heard::Message { topic, payload, retain: false }) if topic == wanted => return Some(payload),
                    Some(_) => {}
                    None => return None,
                }
            }
        });
        until.await.ok().flatten()
    }

    /// Sends to one of its own topics, by its end.
    pub async fn send(&mut self, ending: &str, payload: String) -> Result<(), SimulatorError> {
        self.send_to(&format!("{}/v1/{}/{ending}", self.prefix, self.id), payload, false).await
    }

    /// Sends to any topic.
    pub async fn send_to(&mut self, topic: &str, payload: String, retain: bool) -> Result<(), SimulatorError> {
        self.sent += 1;
        let sent = self.client.publish(topic, QoS::AtLeastOnce, retain, payload).await;
        sent.map_err(|_| SimulatorError::OutOfOrder("The MQTT connection is closed."))
    }

    /// Subscribes to any filter.
    pub async fn subscribe(&self, filter: &str) -> Result<(), SimulatorError> {
        let asked = self.client.subscribe(filter, QoS::AtLeastOnce).await;
        asked.map_err(|_| SimulatorError::OutOfOrder("The MQTT connection is closed."))
    }

    /// Checks an event: signed by a pinned key, for this device, in time, and new to it. `None` for anything else.
    pub fn authentic(&mut self, device: &SimulatedDevice, payload: &str) -> Option<Told> {
        let keys = device.pins.as_ref()?.jwks.get("keys")?.as_array()?;
        let jwt = keys.iter().find_map(|key| jose::check(payload, key).ok())?;
        let is_event = jwt.header.get("typ").and_then(Value::as_str) == Some("device-event+jwt");
        let is_for_us = jwt.text("iss").ok()? == device.issuer() && jwt.text("aud").ok()? == device.id;
        let is_in_time = i64::try_from(jwt.seconds("exp").ok()?).ok()? > device.now_s();
        let is_new = self.seen.insert(jwt.text("jti").ok()?.to_owned());
        let number = jwt.claims.get("confirmation_number").and_then(Value::as_str).map(str::to_owned);
        (is_event && is_for_us && is_in_time && is_new)
            .then(|| jwt.text("event").ok().map(str::to_owned))?
            .map(|event| Told { event, number })
    }

    /// The next authentic event, if it comes in time; what is not authentic is dropped.
    pub async fn told(&mut self, device: &SimulatedDevice, within: Duration) -> Option<Told> {
        let until = tokio::time::timeout(within, async {
            loop {
                let payload = self.message("event", within).await?;
                if let Some(told) = self.authentic(device, &payload) {
                    return Some(told);
                }
            }
        });
        until.await.ok().flatten()
    }

    /// Requests a pairing, polls once, and waits to be told that an operator has confirmed it.
    pub async fn pair(
        &mut self,
        device: &mut SimulatedDevice,
        mut tell: impl FnMut(DeviceEvent),
    ) -> Result<Pins, SimulatorError> {
        let shown = 'asking: loop {
            let (request, asked) = device.pairing_request()?;
            self.send("pairing/request", request).await?;
            while let Some(answer) = self.message("pairing/response", ANSWER_PATIENCE).await {
                if is_hint(&answer) {
                    return Err(refusal(&answer));
                }
                match device.requested(&asked, &answer) {
                    Ok(shown) => break 'asking shown,
                    // Somebody else's, or an old one: as if nothing had come.
                    Err(SimulatorError::NotAuthentic(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        };
        let mut to_show = Some(shown);
        loop {
            let (poll, jti) = device.pairing_poll()?;
            self.send("pairing/request", poll).await?;
            let mut patience = ANSWER_PATIENCE;
            // The same poll is answered again when something has changed.
            while let Some(answer) = self.message("pairing/response", patience).await {
                if is_hint(&answer) {
                    return Err(refusal(&answer));
                }
                patience = PAIRING_PATIENCE;
                match device.polled(&jti, &answer) {
                    Ok(PairingStatus::Paired(pins)) => {
                        tell(DeviceEvent::Paired(pins.clone()));
                        return Ok(pins);
                    }
                    Ok(PairingStatus::Pending { digits, .. }) => {
                        if let Some(shown) = to_show.take() {
                            tell(DeviceEvent::PairingShown(shown, digits));
                        }
                        if std::mem::take(&mut device.identify) {
                            tell(DeviceEvent::Identify);
                        }
                    }
                    // An answer to an earlier poll, or nobody's: as if nothing had come.
                    Err(SimulatorError::NotAuthentic(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Asks for a code, waits to be told that it is decided, and makes one token request.
    pub async fn sign_in(
        &mut self,
        device: &mut SimulatedDevice,
        scope: Option<&str>,
        mut tell: impl FnMut(DeviceEvent),
    ) -> Result<Tokens, SimulatorError> {
        let shown = device.request_code(scope, None).await?;
        let patience = Duration::from_secs(shown.expires_in.saturating_sub(10).max(1));
        tell(DeviceEvent::CodeShown(shown));
        loop {
            match self.told(device, patience).await {
                Some(Told { event, number: Some(number) }) if event == "confirmation_number" => {
                    tell(DeviceEvent::NumberShown(number));
                }
                Some(told) if told.event == "identify" => tell(DeviceEvent::Identify),
                Some(told) if told.event == "suspended" => {
                    return Err(SimulatorError::SignInEnded("the device was suspended"));
                }
                // Told, or not told for so long that something may have been lost: the answer is the truth.
                _ => match device.poll_token(None).await? {
                    TokenAnswer::Tokens(tokens) => {
                        tell(DeviceEvent::SignedIn(tokens.clone()));
                        return Ok(tokens);
                    }
                    TokenAnswer::Denied => return Err(SimulatorError::SignInEnded("the approver said no")),
                    TokenAnswer::Expired => return Err(SimulatorError::SignInEnded("the code ran out")),
                    TokenAnswer::Pending { .. } | TokenAnswer::SlowDown => {}
                    TokenAnswer::Error { status, error, description } => {
                        return Err(SimulatorError::Refused { status, error, description });
                    }
                },
            }
        }
    }
}

/// A refusal is not signed: a device shows it to people and tries again later; here, to whoever watches.
fn is_hint(answer: &str) -> bool {
    answer.starts_with('{')
}

fn refusal(answer: &str) -> SimulatorError {
    let members: Value = serde_json::from_str(answer).unwrap_or_default();
    let member = |name: &str| members[name].as_str().unwrap_or_default().to_owned();
    SimulatorError::Refused { status: 0, error: member("error"), description: member("error_description") }
}

/// Makes passwords after the device itself has gone on: by a copy of its key.
struct PasswordMaker(SimulatedDevice);

impl PasswordMaker {
    fn of(device: &SimulatedDevice) -> Result<Self, SimulatorError> {
        let key = super::key::DeviceKey::from_pkcs8_b64u(device.key.alg(), &device.key.to_pkcs8_b64u()?)?;
        let mut copy = SimulatedDevice::new(&device.id, device.issuer(), key, super::wire::Wire::new()?);
        copy.clock_offset_s = device.clock_offset_s;
        Ok(Self(copy))
    }

    fn make(&self) -> Result<(String, String), SimulatorError> {
        Ok((self.0.id.clone(), self.0.mqtt_password()?))
    }
}
