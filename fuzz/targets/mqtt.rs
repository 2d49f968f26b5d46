//! MQTT that arrives: packets, topics and payloads, at the broker's own endpoint, through to the use cases and back; and passwords.
//!
//! An input is one byte of flags. With `IS_RAW`, the rest are the bytes of a connection from its first one on; otherwise a connection is made that has proved a key
//! nobody has paired, and the rest are two lines: a topic, in which `$O` stands for its own request topic, and a payload; or, with `IS_PACKETS`, packets.

#![no_main]

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use mqtt_protocol_core::mqtt::packet::{Qos, v5_0};
use pairgate::broker::connections::Connected;
use pairgate::broker::{Broker, Parts, Policy};
use pairgate::clock::{Clock, Timestamp};
use pairgate::device_auth::connection::Password;
use pairgate::id::DeviceId;
use pairgate::mqtt::desk::Desk;
use pairgate::mqtt::embedded;
use pairgate::mqtt::guests::{Guests, Visitor};
use pairgate::mqtt::topics::Topics;
use pairgate::oauth::jose::glance;
use pairgate::oauth::signing_key::SigningKey;
use pairgate::secret::{MasterKey, Random, b64u};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const IS_RAW: u8 = 1;
const IS_PACKETS: u8 = 2;

const ISSUER: &str = "https://pairgate.example";
/// 2027-01-15T08:00:00Z.
const NOW: i64 = 1_800_000_000;
const OWN: &str = "pairgate/v1/tv-1/pairing/request";

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::set);

struct Stage {
    runtime: tokio::runtime::Runtime,
    guests: Arc<Guests>,
    connect: Vec<u8>,
    password: String,
    _data: tempfile::TempDir,
}

impl Stage {
    fn set() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let data = tempfile::tempdir().expect("a folder");
        let parts = Parts {
            store: pairgate::store::open(data.path()).expect("a store"),
            master: MasterKey::new([7; 32]),
            issuer: ISSUER.parse().expect("an address"),
            clock: Clock::manual(Timestamp::from_millis(NOW * 1000)),
            random: Random::seeded("fuzz"),
            policy: Policy::default(),
        };
        let broker = runtime.block_on(Broker::open(parts, false)).expect("a broker");
        let guests = Guests::new(Arc::new(Desk::new(Arc::new(broker), Topics::new("pairgate"))));
        let key = SigningKey::from_pkcs8(include_bytes!("../fixtures/ec.pkcs8")).expect("the fixed key");
        let claims =
            serde_json::json!({"iss": "tv-1", "aud": ISSUER, "iat": NOW, "exp": NOW + 300, "jti": "0123456789abcdef"});
        let password = key.sign("mqtt+jwt", &claims, true).expect("it can sign");
        let client_id = format!("tv-1.{}", &b64u(&key.public().jkt())[..16]);
        let connect = v5_0::Connect::builder()
            .client_id(client_id)
            .and_then(|connect| connect.user_name("tv-1"))
            .and_then(|connect| connect.password(password.clone().into_bytes()))
            .and_then(|connect| connect.clean_start(true).build())
            .expect("a CONNECT");
        Self { runtime, guests, connect: connect.to_continuous_buffer(), password, _data: data }
    }

    /// What the endpoint sends to whoever sends these bytes and then goes.
    fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        self.runtime.block_on(async {
            let (inside, mut outside) = tokio::io::duplex(1 << 20);
            let visitor = Visitor { peer: SocketAddr::from(([127, 0, 0, 1], 1)), certificates: Arc::from([]) };
            outside.write_all(bytes).await.expect("room");
            outside.shutdown().await.expect("an end");
            embedded::attend(Arc::clone(&self.guests), inside, visitor).await;
            let mut answer = Vec::new();
            outside.read_to_end(&mut answer).await.expect("what was sent");
            answer
        })
    }
}

/// Topics are built of device ids alone, and nobody reaches those of another.
fn topics(text: &str) {
    let topics = Topics::new("pairgate");
    let id = |text: &str| DeviceId::new(text).expect("a device id");
    let connected = [
        Connected::Device { id: id("tv-1"), jkt: [0; 32] },
        Connected::Unpaired { id: id("tv-1"), jkt: [0; 32] },
        Connected::Operator { name: "dana".into(), sees_all: true, keys: vec![[3; 32]] },
    ];
    for one in &connected {
        let reaches = topics.may_publish(one, text) || topics.may_subscribe(one, text);
        assert!(!reaches || !text.contains(['#', '+', '\0', '$']), "a wildcard was taken (A-057): {text:?}");
        let is_operator = matches!(one, Connected::Operator { .. });
        let own = if is_operator { "pairgate/v1/operations/" } else { "pairgate/v1/tv-1/" };
        assert!(!reaches || text.starts_with(own), "the topic of another: {text:?}");
    }
    if topics.incoming(text).is_some() {
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-".contains(&byte)), "{text:?}");
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&flags, rest)) = data.split_first() else { return };
    let stage = &*STAGE;
    if let Ok(text) = std::str::from_utf8(rest) {
        topics(text);
        glance::<serde_json::Value>(text);
        let read = Password::read(text, ISSUER, Timestamp::from_millis(NOW * 1000));
        assert!(read.is_err() || text == stage.password, "a forged password");
    }
    if flags & IS_RAW != 0 {
        let answer = stage.answer(rest);
        // CONNACK with success; only our own CONNECT can earn it.
        let is_welcome = answer.first() == Some(&0x20)
            && answer.contains(&0)
            && rest.windows(stage.password.len()).any(|part| part == stage.password.as_bytes());
        assert!(answer.len() < 64 || is_welcome, "a stranger was told something");
        return;
    }
    let mut bytes = stage.connect.clone();
    if flags & IS_PACKETS != 0 {
        bytes.extend_from_slice(rest);
    } else {
        let mut lines = rest.splitn(2, |&byte| byte == b'\n');
        let Ok(topic) = std::str::from_utf8(lines.next().unwrap_or_default()) else { return };
        let (topic, payload) = (topic.replace("$O", OWN), lines.next().unwrap_or_default());
        let publish = v5_0::Publish::builder()
            .topic_name(topic)
            .and_then(|publish| publish.qos(Qos::AtMostOnce).payload(payload.to_vec()).build());
        let Ok(publish) = publish else { return };
        bytes.extend(publish.to_continuous_buffer());
    }
    let answer = String::from_utf8_lossy(&stage.answer(&bytes)).into_owned();
    // Whatever it sent, nothing comes from a topic that it may not read.
    for topic in ["/event", "/operations/", "tv-2"] {
        assert!(!answer.contains(topic), "it was sent something of {topic}");
    }
});
