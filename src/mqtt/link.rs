//! One connection to an outside broker, in MQTT 5 or 3.1.1. The library has two of everything; this has one.

use rumqttc::mqttbytes::QoS as Qos3;
use rumqttc::v5::mqttbytes::QoS as Qos5;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Filter, PublishProperties};
use rumqttc::{Transport, v5};

use crate::config::mqtt::{MqttVersion, OutsideBroker};
use crate::mqtt::desk::{Outgoing, Received};

/// The largest packet: a payload, its topic, and properties.
const MAX_PACKET: usize = 16 * 1024;
/// Messages that wait to be sent; more are dropped, and asked for again by whom they concern.
const QUEUE: usize = 512;
/// Seconds between signs of life.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(30);

/// What is sent by the broker when we are gone.
#[derive(Clone, Debug)]
pub struct LastWill {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: String,
}

/// What a client shows when it connects.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Client id.
    pub client_id: String,
    /// User name and password.
    pub login: Option<(String, String)>,
}

/// The sending side; cheap to copy.
#[derive(Clone)]
pub struct Sender(Client);

#[derive(Clone)]
enum Client {
    V5(v5::AsyncClient),
    V3(rumqttc::AsyncClient),
}

/// The receiving side. Never to be left unpolled: nothing is sent, either, meanwhile.
pub struct Link(Loop);

enum Loop {
    V5(Box<v5::EventLoop>),
    V3(Box<rumqttc::EventLoop>),
}

/// What came.
#[derive(Debug)]
pub enum Event {
    /// The broker has taken us. Subscriptions are gone; subscribe again.
    Connected,
    /// A message.
    Message(Received),
    /// The broker refused a subscription (which topic is not said).
    SubscriptionRefused,
    /// The broker has the rights to say that a message of ours is not taken.
    PublishRefused,
    /// A message of ours has arrived.
    Acknowledged,
    /// A subscription has been made.
    Subscribed,
    /// Something else.
    Other,
}

/// Opens a connection, by a relay's socket. Nothing happens until it is polled.
pub fn open(
    broker: &OutsideBroker,
    socket: &str,
    credentials: Credentials,
    last_will: Option<LastWill>,
) -> (Sender, Link) {
    let Credentials { client_id, login } = credentials;
    match broker.version {
        MqttVersion::V5 => {
            let mut options = v5::MqttOptions::new(client_id, socket, 0);
            options.set_transport(Transport::unix()).set_keep_alive(KEEP_ALIVE).set_clean_start(true);
            options.set_max_packet_size(u32::try_from(MAX_PACKET).ok()).set_connection_timeout(15);
            if let Some((name, password)) = login {
                options.set_credentials(name, password);
            }
            if let Some(LastWill { topic, payload }) = last_will {
                let will = v5::mqttbytes::v5::LastWill::new(topic, payload, Qos5::AtLeastOnce, true, None);
                options.set_last_will(will);
            }
            let (client, events) = v5::AsyncClient::new(options, QUEUE);
            (Sender(Client::V5(client)), Link(Loop::V5(Box::new(events))))
        }
        MqttVersion::V3 => {
            let mut options = rumqttc::MqttOptions::new(client_id, socket, 0);
            options.set_transport(Transport::unix()).set_keep_alive(KEEP_ALIVE).set_clean_session(true);
            options.set_max_packet_size(MAX_PACKET, MAX_PACKET);
            if let Some((name, password)) = login {
                options.set_credentials(name, password);
            }
            if let Some(LastWill { topic, payload }) = last_will {
                options.set_last_will(rumqttc::LastWill::new(topic, payload, Qos3::AtLeastOnce, true));
            }
            let (client, events) = rumqttc::AsyncClient::new(options, QUEUE);
            (Sender(Client::V3(client)), Link(Loop::V3(Box::new(events))))
        }
    }
}

impl Sender {
    /// Queues a message, QoS 1; `false` if the queue is full, and the message is dropped.
    pub fn publish(&self, outgoing: Outgoing, retain: bool) -> bool {
        let Outgoing { topic, payload, correlation } = outgoing;
        match &self.0 {
            Client::V5(client) => {
                let properties =
                    PublishProperties { correlation_data: correlation.map(Into::into), ..PublishProperties::default() };
                client.try_publish_with_properties(topic, Qos5::AtLeastOnce, retain, payload, properties).is_ok()
            }
            Client::V3(client) => client.try_publish(topic, Qos3::AtLeastOnce, retain, payload).is_ok(),
        }
    }

    /// Queues subscriptions, QoS 1, each in a packet of its own; with MQTT 5, a message that was planted as retained arrives marked as that.
    pub fn subscribe(&self, filters: impl IntoIterator<Item = String>) -> bool {
        filters.into_iter().all(|filter| match &self.0 {
            Client::V5(client) => {
                let mut filter = Filter::new(filter, Qos5::AtLeastOnce);
                filter.preserve_retain = true;
                client.try_subscribe_many([filter]).is_ok()
            }
            Client::V3(client) => client.try_subscribe(filter, Qos3::AtLeastOnce).is_ok(),
        })
    }

    /// Queues the farewell: the broker then sends no last will.
    pub fn disconnect(&self) {
        let _ = match &self.0 {
            Client::V5(client) => client.try_disconnect().is_ok(),
            Client::V3(client) => client.try_disconnect().is_ok(),
        };
    }
}

/// Why a connection ended or did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The broker said no; in words.
    #[error("the broker refused the connection: {0}")]
    Refused(String),
    /// It is gone, or never was.
    #[error("{0}")]
    Lost(String),
}

impl Link {
    /// The next thing; connects, if need be.
    ///
    /// # Errors
    /// [`LinkError`]; polled again, it connects again.
    pub async fn next(&mut self) -> Result<Event, LinkError> {
        match &mut self.0 {
            Loop::V5(events) => events.poll().await.map(of_v5).map_err(refused_v5),
            Loop::V3(events) => events.poll().await.map(of_v3).map_err(refused_v3),
        }
    }
}

fn of_v5(event: v5::Event) -> Event {
    use v5::mqttbytes::v5::{Packet, PubAckReason, SubscribeReasonCode};
    let v5::Event::Incoming(packet) = event else { return Event::Other };
    match packet {
        Packet::ConnAck(_) => Event::Connected,
        Packet::Publish(publish) => {
            let properties = publish.properties.unwrap_or_default();
            Event::Message(Received {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload.to_vec(),
                retain: publish.retain,
                response_topic: properties.response_topic,
                correlation: properties.correlation_data.map(|data| data.to_vec()),
                peer: None,
            })
        }
        Packet::SubAck(ack) => {
            let is_granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
            if ack.return_codes.iter().all(is_granted) { Event::Subscribed } else { Event::SubscriptionRefused }
        }
        Packet::PubAck(ack) => match ack.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Event::Acknowledged,
            _ => Event::PublishRefused,
        },
        _ => Event::Other,
    }
}

fn of_v3(event: rumqttc::Event) -> Event {
    use rumqttc::{Packet, SubscribeReasonCode};
    let rumqttc::Event::Incoming(packet) = event else { return Event::Other };
    match packet {
        Packet::ConnAck(_) => Event::Connected,
        Packet::Publish(publish) => Event::Message(Received {
            topic: publish.topic,
            payload: publish.payload.to_vec(),
            retain: publish.retain,
            response_topic: None,
            correlation: None,
            peer: None,
        }),
        Packet::SubAck(ack) => {
            let is_granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
            if ack.return_codes.iter().all(is_granted) { Event::Subscribed } else { Event::SubscriptionRefused }
        }
        Packet::PubAck(_) => Event::Acknowledged,
        _ => Event::Other,
    }
}

fn refused_v5(error: v5::ConnectionError) -> LinkError {
    match error {
        v5::ConnectionError::ConnectionRefused(code) => LinkError::Refused(match code {
            ConnectReturnCode::BadUserNamePassword => "wrong user name or password".into(),
            ConnectReturnCode::NotAuthorized => "not authorised".into(),
            ConnectReturnCode::ClientIdentifierNotValid => "it does not take this client id".into(),
            ConnectReturnCode::UnsupportedProtocolVersion => "it does not speak MQTT 5".into(),
            other => format!("{other:?}"),
        }),
        other => LinkError::Lost(other.to_string()),
    }
}

fn refused_v3(error: rumqttc::ConnectionError) -> LinkError {
    match error {
        rumqttc::ConnectionError::ConnectionRefused(code) => LinkError::Refused(format!("{code:?}")),
        other => LinkError::Lost(other.to_string()),
    }
}
