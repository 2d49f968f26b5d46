//! One connection to our own guests: MQTT 5 or 3.1.1, whichever the client speaks first. The protocol is the library's; what a client may do is ours.
//!
//! Rules for the library: acknowledgements are never automatic (they depend on what the client may do), and a packet identifier of 0 ends the connection before
//! an answer is built from it. MQTT 3.1.1 knows no refusal of a message, so there a refused one ends the connection.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mqtt_protocol_core::mqtt::connection::{ConnectionOptions, Event, TimerKind};
use mqtt_protocol_core::mqtt::packet::{self, GenericPacketTrait as _, Packet, Property, Qos, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, ConnectReturnCode, DisconnectReasonCode, MqttError, PubackReasonCode, PubrecReasonCode,
    SubackReasonCode, SubackReturnCode, UnsubackReasonCode,
};
use mqtt_protocol_core::mqtt::{Connection, Version, common::Cursor, role};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::broker::connections::{Connect, ConnectError, Connected};
use crate::mqtt::desk::{Outgoing, Received};
use crate::mqtt::guests::{Ending, Guests, Orders, Place, StrangersPlace, Visitor, ended};

/// The largest packet: a payload, its topic, and properties.
const MAX_PACKET: u32 = 16 * 1024;
/// Whoever has not connected by then is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Whoever takes nothing of what we have for it for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that asks for no keep-alive, or for a long one, is given this one, in seconds (MQTT 5; in 3.1.1 it is merely ended after it).
const MAX_KEEP_ALIVE: u16 = 300;

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The client went, or the network.
    Gone,
    /// It did what it may not, or what is no MQTT.
    Refused,
    /// It was told to.
    Ordered(Ending),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

impl From<MqttError> for End {
    fn from(_: MqttError) -> Self {
        Self::Refused
    }
}

/// A connection.
pub struct Session<S> {
    stream: S,
    protocol: Connection<role::Server>,
    /// What came behind the CONNECT, at once.
    unread: Vec<u8>,
    /// A client that nothing has come from by then is gone.
    silent_at: Option<Instant>,
    /// How much longer after each sign of life, if that is not the library's to say.
    patience: Option<Duration>,
    guests: Arc<Guests>,
    visitor: Visitor,
}

/// Who is connected, and what for.
struct Guest {
    connected: Connected,
    subscribed: BTreeSet<String>,
}

/// A message of the client, of either version.
struct Publish {
    received: Received,
    qos: Qos,
    packet_id: Option<u16>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// A connection of this visitor.
    pub fn new(stream: S, guests: Arc<Guests>, visitor: Visitor) -> Self {
        let options = ConnectionOptions::new().maximum_packet_size_recv(MAX_PACKET).receive_maximum(16);
        let protocol = Connection::<role::Server>::with_options(Version::Undetermined, options);
        Self { stream, protocol, unread: Vec::new(), silent_at: None, patience: None, guests, visitor }
    }

    /// Serves it to its end.
    pub async fn serve(mut self, stranger: StrangersPlace) {
        let Ok(Ok(connect)) = tokio::time::timeout(CONNECT_TIMEOUT, self.first_packet()).await else { return };
        let Some((mut guest, mut orders, place)) = self.admit(connect).await else { return };
        drop(stranger);
        let end = self.converse(&mut guest, &mut orders).await;
        drop(place);
        if let End::Ordered(ending) = end {
            self.say_why(ending).await;
        }
        let _ = self.stream.shutdown().await;
    }

    /// Reads until the first packet is whole; nothing else than a CONNECT can be it.
    async fn first_packet(&mut self) -> Result<Packet, End> {
        let mut buffer = [0; 2048];
        loop {
            let read = self.stream.read(&mut buffer).await?;
            if read == 0 {
                return Err(End::Gone);
            }
            let bytes = buffer.get(..read).unwrap_or_default();
            let mut cursor = Cursor::new(bytes);
            let events = self.protocol.recv(&mut cursor);
            if let Some(packet) = self.apply(events).await?.into_iter().next() {
                // A client need not wait for the answer before it goes on.
                self.unread = bytes.get(read_so_far(&cursor)..).unwrap_or_default().to_vec();
                return Ok(packet);
            }
        }
    }

    /// Decides who it is, answers CONNECT, and takes a place.
    async fn admit(&mut self, packet: Packet) -> Option<(Guest, Orders, Place)> {
        let shown = Shown::of(&packet);
        let judged = match &shown {
            Some(shown) if !shown.has_will => self.judge(shown).await,
            // A last will would be a message by somebody who is not there.
            _ => Err(ConnectError::Refused),
        };
        let placed = judged.and_then(|connected| {
            let client_id = shown.as_ref().map(|shown| shown.client_id.clone()).unwrap_or_default();
            let placed = self.guests.enter(&client_id, &connected, self.visitor.peer);
            placed
                .map(|(orders, place)| (Guest { connected, subscribed: BTreeSet::new() }, orders, place))
                .ok_or(ConnectError::Unavailable)
        });
        match placed {
            Ok(admitted) => {
                let keep_alive = shown.map_or(0, |shown| shown.keep_alive);
                self.welcome(&packet, keep_alive).await.ok()?;
                Some(admitted)
            }
            Err(error) => {
                let _ = self.turn_away(&packet, &error).await;
                None
            }
        }
    }

    async fn judge(&self, shown: &Shown) -> Result<Connected, ConnectError> {
        let connect = Connect {
            client_id: &shown.client_id,
            user_name: shown.user_name.as_deref(),
            password: shown.password.as_deref(),
            certificates: &self.visitor.certificates,
            peer: Some(self.visitor.peer.ip()),
        };
        self.guests.desk().broker().connect(&connect).await
    }

    async fn welcome(&mut self, packet: &Packet, keep_alive: u16) -> Result<(), End> {
        if keep_alive == 0 || keep_alive > MAX_KEEP_ALIVE {
            let patience = Duration::from_secs(u64::from(MAX_KEEP_ALIVE) * 3 / 2);
            (self.patience, self.silent_at) = (Some(patience), Some(Instant::now() + patience));
        }
        if matches!(packet, Packet::V3_1_1Connect(_)) {
            let answer =
                v3_1_1::Connack::builder().session_present(false).return_code(ConnectReturnCode::Accepted).build()?;
            return self.send(Packet::V3_1_1Connack(answer)).await;
        }
        let mut says = vec![
            property(packet::MaximumQos::new(1))?,
            property(packet::RetainAvailable::new(0))?,
            property(packet::WildcardSubscriptionAvailable::new(0))?,
            property(packet::SubscriptionIdentifierAvailable::new(0))?,
            property(packet::SharedSubscriptionAvailable::new(0))?,
            property(packet::SessionExpiryInterval::new(0))?,
        ];
        if keep_alive == 0 || keep_alive > MAX_KEEP_ALIVE {
            says.push(property(packet::ServerKeepAlive::new(MAX_KEEP_ALIVE))?);
        }
        let answer = v5_0::Connack::builder()
            .session_present(false)
            .reason_code(ConnectReasonCode::Success)
            .props(says)
            .build()?;
        self.send(Packet::V5_0Connack(answer)).await
    }

    async fn turn_away(&mut self, packet: &Packet, error: &ConnectError) -> Result<(), End> {
        let is_refused = matches!(error, ConnectError::Refused);
        let answer = if matches!(packet, Packet::V3_1_1Connect(_)) {
            let code = if is_refused { ConnectReturnCode::NotAuthorized } else { ConnectReturnCode::ServerUnavailable };
            Packet::V3_1_1Connack(v3_1_1::Connack::builder().session_present(false).return_code(code).build()?)
        } else {
            let code = if is_refused { ConnectReasonCode::NotAuthorized } else { ConnectReasonCode::ServerBusy };
            Packet::V5_0Connack(v5_0::Connack::builder().session_present(false).reason_code(code).build()?)
        };
        self.send(answer).await
    }

    /// Reads and writes until one side has enough.
    async fn converse(&mut self, guest: &mut Guest, orders: &mut Orders) -> End {
        let Orders { messages, ending } = orders;
        let unread = std::mem::take(&mut self.unread);
        if let Err(end) = self.read(&unread, guest).await {
            return end;
        }
        let mut buffer = [0; 2048];
        loop {
            let silent_at = self.silent_at;
            let silence = async move {
                match silent_at {
                    Some(silent_at) => tokio::time::sleep_until(silent_at).await,
                    None => std::future::pending().await,
                }
            };
            let outcome = tokio::select! {
                // In this order: what a device is told before its connection ends, it shall hear.
                biased;
                Some(outgoing) = messages.recv() => self.deliver(outgoing, guest).await,
                ending = ended(ending) => Err(End::Ordered(ending)),
                read = self.stream.read(&mut buffer) => match read {
                    Ok(read) if read > 0 => self.read(buffer.get(..read).unwrap_or_default(), guest).await,
                    _ => Err(End::Gone),
                },
                () = silence => Err(End::Gone),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    async fn read(&mut self, bytes: &[u8], guest: &mut Guest) -> Result<(), End> {
        if let Some(patience) = self.patience {
            self.silent_at = Some(Instant::now() + patience);
        }
        let mut cursor = Cursor::new(bytes);
        while read_so_far(&cursor) < bytes.len() {
            let events = self.protocol.recv(&mut cursor);
            for packet in self.apply(events).await? {
                self.take(packet, guest).await?;
            }
        }
        Ok(())
    }

    /// Does what the library wants; the packets that it has read.
    async fn apply(&mut self, events: Vec<Event>) -> Result<Vec<Packet>, End> {
        let mut packets = Vec::new();
        let mut must_close = false;
        for event in events {
            match event {
                Event::NotifyPacketReceived(packet) => packets.push(packet),
                Event::RequestSendPacket { packet, .. } => self.write(&packet.to_continuous_buffer()).await?,
                Event::RequestTimerReset { kind: TimerKind::PingreqRecv, duration_ms } if self.patience.is_none() => {
                    self.silent_at = Some(Instant::now() + Duration::from_millis(duration_ms));
                }
                Event::RequestClose => must_close = true,
                Event::NotifyError(error) => {
                    tracing::debug!(?error, peer = %self.visitor.peer, "not MQTT as it should be")
                }
                Event::RequestTimerReset { .. } | Event::RequestTimerCancel(_) | Event::NotifyPacketIdReleased(_) => {}
            }
        }
        if must_close { Err(End::Refused) } else { Ok(packets) }
    }

    async fn send(&mut self, packet: Packet) -> Result<(), End> {
        let events = self.protocol.send(packet);
        self.apply(events).await.map(drop)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        match tokio::time::timeout(WRITE_TIMEOUT, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(self.stream.flush().await?),
            _ => Err(End::Gone),
        }
    }

    async fn take(&mut self, packet: Packet, guest: &mut Guest) -> Result<(), End> {
        match packet {
            Packet::V5_0Publish(publish) => {
                let mut received = received(publish.topic_name(), publish.payload().as_slice(), publish.retain());
                for property in publish.props() {
                    match property {
                        Property::ResponseTopic(topic) => received.response_topic = Some(topic.val().to_owned()),
                        Property::CorrelationData(data) => received.correlation = Some(data.val().to_vec()),
                        _ => {}
                    }
                }
                let publish = Publish { received, qos: publish.qos(), packet_id: publish.packet_id() };
                self.published(publish, guest, Version::V5_0).await
            }
            Packet::V3_1_1Publish(publish) => {
                let received = received(publish.topic_name(), publish.payload().as_slice(), publish.retain());
                let publish = Publish { received, qos: publish.qos(), packet_id: publish.packet_id() };
                self.published(publish, guest, Version::V3_1_1).await
            }
            Packet::V5_0Subscribe(subscribe) => {
                let codes = subscribe.entries().iter().map(|entry| {
                    if self.may_subscribe(guest, entry.topic_filter()) {
                        SubackReasonCode::GrantedQos0
                    } else {
                        SubackReasonCode::NotAuthorized
                    }
                });
                let answer = v5_0::Suback::builder()
                    .packet_id(nonzero(subscribe.packet_id())?)
                    .reason_codes(codes.collect())
                    .build()?;
                self.send(Packet::V5_0Suback(answer)).await
            }
            Packet::V3_1_1Subscribe(subscribe) => {
                let codes = subscribe.entries().iter().map(|entry| {
                    if self.may_subscribe(guest, entry.topic_filter()) {
                        SubackReturnCode::SuccessMaximumQos0
                    } else {
                        SubackReturnCode::Failure
                    }
                });
                let answer = v3_1_1::Suback::builder()
                    .packet_id(nonzero(subscribe.packet_id())?)
                    .return_codes(codes.collect())
                    .build()?;
                self.send(Packet::V3_1_1Suback(answer)).await
            }
            Packet::V5_0Unsubscribe(unsubscribe) => {
                let left: Vec<bool> =
                    unsubscribe.entries().iter().map(|topic| guest.subscribed.remove(topic.as_str())).collect();
                let code = |was_there: &bool| {
                    if *was_there { UnsubackReasonCode::Success } else { UnsubackReasonCode::NoSubscriptionExisted }
                };
                let answer = v5_0::Unsuback::builder()
                    .packet_id(nonzero(unsubscribe.packet_id())?)
                    .reason_codes(left.iter().map(code).collect())
                    .build()?;
                self.send(Packet::V5_0Unsuback(answer)).await
            }
            Packet::V3_1_1Unsubscribe(unsubscribe) => {
                guest.subscribed.retain(|topic| unsubscribe.entries().iter().all(|left| left.as_str() != topic));
                let answer = v3_1_1::Unsuback::builder().packet_id(nonzero(unsubscribe.packet_id())?).build()?;
                self.send(Packet::V3_1_1Unsuback(answer)).await
            }
            Packet::V5_0Pingreq(_) => self.send(Packet::V5_0Pingresp(v5_0::Pingresp::builder().build()?)).await,
            Packet::V3_1_1Pingreq(_) => self.send(Packet::V3_1_1Pingresp(v3_1_1::Pingresp::builder().build()?)).await,
            Packet::V5_0Disconnect(_) | Packet::V3_1_1Disconnect(_) => Err(End::Gone),
            // Our messages are QoS 0, and QoS 2 is not offered: no other acknowledgement can be meant for us.
            _ => Err(End::Refused),
        }
    }

    fn may_subscribe(&self, guest: &mut Guest, filter: &str) -> bool {
        let may = self.guests.desk().topics().may_subscribe(&guest.connected, filter);
        if may {
            guest.subscribed.insert(filter.to_owned());
        }
        may
    }

    /// A message of the client: answered to it alone.
    async fn published(&mut self, publish: Publish, guest: &Guest, version: Version) -> Result<(), End> {
        let Publish { mut received, qos, packet_id } = publish;
        let desk = Arc::clone(self.guests.desk());
        let may = desk.topics().may_publish(&guest.connected, &received.topic) && !received.retain;
        if !may {
            let device = match &guest.connected {
                Connected::Device { id, .. } => Some(id),
                Connected::Unpaired { .. } | Connected::Operator { .. } => None,
            };
            let why = if received.retain { "a retained message" } else { "a message to a topic that is not its own" };
            desk.broker().note_message_refused(device, why, Some(self.visitor.peer.ip())).await;
            if version == Version::V3_1_1 {
                return Err(End::Refused);
            }
        }
        match (qos, version) {
            (Qos::AtMostOnce, _) => {}
            (Qos::AtLeastOnce, Version::V5_0) => {
                let code = if may { PubackReasonCode::Success } else { PubackReasonCode::NotAuthorized };
                let answer =
                    v5_0::Puback::builder().packet_id(nonzero(packet_id.unwrap_or(0))?).reason_code(code).build()?;
                self.send(Packet::V5_0Puback(answer)).await?;
            }
            (Qos::AtLeastOnce, _) => {
                let answer = v3_1_1::Puback::builder().packet_id(nonzero(packet_id.unwrap_or(0))?).build()?;
                self.send(Packet::V3_1_1Puback(answer)).await?;
            }
            (Qos::ExactlyOnce, Version::V5_0) => {
                let code = PubrecReasonCode::ImplementationSpecificError;
                let answer =
                    v5_0::Pubrec::builder().packet_id(nonzero(packet_id.unwrap_or(0))?).reason_code(code).build()?;
                self.send(Packet::V5_0Pubrec(answer)).await?;
                return Err(End::Refused);
            }
            (Qos::ExactlyOnce, _) => return Err(End::Refused),
        }
        if !may {
            return Ok(());
        }
        received.peer = Some(self.visitor.peer.ip());
        if let Some(outgoing) = desk.answer(received).await {
            // Not only by this connection: whoever publishes and subscribes with two programs listens on the other one.
            self.guests.send(&outgoing);
        }
        Ok(())
    }

    /// Sends a message, QoS 0, if the client has subscribed to its topic.
    async fn deliver(&mut self, outgoing: Outgoing, guest: &Guest) -> Result<(), End> {
        let Outgoing { topic, payload, correlation } = outgoing;
        if !guest.subscribed.contains(&topic) {
            return Ok(());
        }
        let packet = if self.protocol.get_protocol_version() == Version::V5_0 {
            let mut publish = v5_0::Publish::builder().topic_name(topic)?.qos(Qos::AtMostOnce).payload(payload);
            if let Some(correlation) = correlation {
                publish = publish.props(vec![property(packet::CorrelationData::new(correlation))?]);
            }
            Packet::V5_0Publish(publish.build()?)
        } else {
            let publish = v3_1_1::Publish::builder().topic_name(topic)?.qos(Qos::AtMostOnce).payload(payload);
            Packet::V3_1_1Publish(publish.build()?)
        };
        self.send(packet).await
    }

    /// MQTT 5 can say why.
    async fn say_why(&mut self, ending: Ending) {
        if self.protocol.get_protocol_version() != Version::V5_0 {
            return;
        }
        let code = match ending {
            Ending::TakenOver => DisconnectReasonCode::SessionTakenOver,
            Ending::Stopping => DisconnectReasonCode::ServerShuttingDown,
            Ending::NotAllowed => DisconnectReasonCode::AdministrativeAction,
        };
        if let Ok(farewell) = v5_0::Disconnect::builder().reason_code(code).build() {
            let _ = self.send(Packet::V5_0Disconnect(farewell)).await;
        }
    }
}

/// What a CONNECT shows, of either version.
struct Shown {
    client_id: String,
    user_name: Option<String>,
    password: Option<String>,
    keep_alive: u16,
    has_will: bool,
}

impl Shown {
    /// `None` if it is no CONNECT, or its password is no text.
    fn of(connect: &Packet) -> Option<Self> {
        let text = |bytes: Option<&[u8]>| match bytes {
            Some(bytes) => std::str::from_utf8(bytes).ok().map(|text| Some(text.to_owned())),
            None => Some(None),
        };
        Some(match connect {
            Packet::V5_0Connect(connect) => Self {
                client_id: connect.client_id().to_owned(),
                user_name: connect.user_name().map(str::to_owned),
                password: text(connect.password())?,
                keep_alive: connect.keep_alive(),
                has_will: connect.will_flag(),
            },
            Packet::V3_1_1Connect(connect) => Self {
                client_id: connect.client_id().to_owned(),
                user_name: connect.user_name().map(str::to_owned),
                password: text(connect.password())?,
                keep_alive: connect.keep_alive(),
                has_will: connect.will_flag(),
            },
            _ => return None,
        })
    }
}

fn received(topic: &str, payload: &[u8], retain: bool) -> Received {
    let (topic, payload) = (topic.to_owned(), payload.to_vec());
    Received { topic, payload, retain, response_topic: None, correlation: None, peer: None }
}

fn read_so_far(cursor: &Cursor<&[u8]>) -> usize {
    usize::try_from(cursor.position()).unwrap_or(usize::MAX)
}

/// Without this, the library would build an answer that nobody may send.
fn nonzero(packet_id: u16) -> Result<u16, End> {
    if packet_id == 0 { Err(End::Refused) } else { Ok(packet_id) }
}

fn property<P: Into<Property>>(made: Result<P, MqttError>) -> Result<Property, End> {
    Ok(made?.into())
}
