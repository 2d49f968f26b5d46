//! The organisation's broker: a real Mosquitto, with TLS and the rules that the program prints.

use std::time::Duration;

use pairgate::broker::Caller;
use pairgate::broker::pairing::Confirm;
use pairgate::config::Mqtt;
use pairgate::config::mqtt::{MqttVersion, OutsideBroker};
use pairgate::model::operator::Role;
use pairgate::mqtt::link::{self, Credentials, LinkError};
use pairgate::mqtt::relay::Relay;
use pairgate::secret::b64u;
use pairgate::simulator::mqtt::Heard;
use pairgate::simulator::routine::DeviceEvent;
use pairgate::simulator::{
    DeviceKey, MqttDoor, MqttLogin, MqttRadio, PairingStatus, SimulatedDevice, TokenAnswer, Wire, jose,
};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::support::child::{self, Served, free_port};
use crate::support::mosquitto::{Manner, Mosquitto, PAIRING_PASSWORD};
use crate::support::mqtt::{PREFIX, TestMqtt, in_step};
use crate::support::{TestBroker, probe};

/// Two processes and a bridge are in between.
const SOON: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(2);

/// A key that both a certificate and a device can be made of.
fn key() -> (KeyPair, DeviceKey) {
    let pair = KeyPair::generate().unwrap();
    let device = DeviceKey::from_pkcs8_b64u("ES256", &b64u(&pair.serialize_der())).unwrap();
    (pair, device)
}

/// A device's connection, and what carries it.
struct Line {
    radio: MqttRadio,
    _relay: Relay,
}

impl Mosquitto {
    /// Where devices are that have been paired, by a certificate of this one's key.
    async fn line(&self, device: &SimulatedDevice, key: &KeyPair) -> Line {
        let at = OutsideBroker::at("127.0.0.1".into(), self.port(), true);
        let certificate = Some(self.certify(&device.id, key));
        let relay = Relay::start(&OutsideBroker { ca: Some(self.ca.clone()), certificate, ..at }).unwrap();
        let door = MqttDoor::Socket(relay.socket());
        Line { radio: MqttRadio::open(device, &door, PREFIX, &MqttLogin::Certificate).await.unwrap(), _relay: relay }
    }

    /// Where devices are that are to be paired.
    async fn pairing_line(&self, device: &SimulatedDevice) -> Line {
        let at = OutsideBroker::at("127.0.0.1".into(), self.pairing_port(), true);
        let relay = Relay::start(&OutsideBroker { ca: Some(self.ca.clone()), ..at }).unwrap();
        let (door, login) =
            (MqttDoor::Socket(relay.socket()), MqttLogin::Shared("pairing".into(), PAIRING_PASSWORD.into()));
        Line { radio: MqttRadio::open(device, &door, PREFIX, &login).await.unwrap(), _relay: relay }
    }

    async fn serve(&self, test: &TestBroker, version: MqttVersion) -> TestMqtt {
        let config = Mqtt { broker: Some(self.outside_broker(version)), ..Mqtt::default() };
        let mqtt = TestMqtt::outside(test, config).await;
        connected(&mqtt, true).await;
        mqtt
    }
}

/// Waits until Pairgate is connected, or is not.
async fn connected(mqtt: &TestMqtt, is_wanted: bool) {
    let client = mqtt.edge.client.as_ref().unwrap();
    let mut moments = tokio::time::interval(Duration::from_millis(20));
    let seen = async {
        while client.is_connected() != is_wanted {
            moments.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), seen).await.expect("in time");
}

fn by_key(test: &TestBroker, id: &str, key: DeviceKey) -> SimulatedDevice {
    in_step(SimulatedDevice::new(id, &test.issuer, key, test.wire.clone()), test)
}

/// A request and a poll over MQTT; the pairing, its digits, and the poll's `jti`.
async fn asked(radio: &mut MqttRadio, device: &mut SimulatedDevice) -> (String, String, String) {
    let (request, nonce) = device.pairing_request().unwrap();
    radio.send("pairing/request", request).await.unwrap();
    let shown = device.requested(&nonce, &radio.message("pairing/response", SOON).await.unwrap()).unwrap();
    let (digits, jti) = polled(radio, device).await;
    (shown.pairing_id, digits, jti)
}

async fn polled(radio: &mut MqttRadio, device: &mut SimulatedDevice) -> (String, String) {
    let (poll, jti) = device.pairing_poll().unwrap();
    radio.send("pairing/request", poll).await.unwrap();
    match device.polled(&jti, &radio.message("pairing/response", SOON).await.unwrap()).unwrap() {
        PairingStatus::Pending { digits, .. } => (digits, jti),
        PairingStatus::Paired(_) => panic!("paired before anybody confirmed it"),
    }
}

async fn pairs_and_signs_in(version: MqttVersion) {
    let mosquitto = Mosquitto::start().await;
    let test = TestBroker::start().await;
    let _mqtt = mosquitto.serve(&test, version).await;
    test.register("tv-1", "printer").await;
    test.open_window("tv-1").await;
    let (pair, device_key) = key();
    let mut device = by_key(&test, "tv-1", device_key);
    let mut line = mosquitto.pairing_line(&device).await;
    let (show, mut shown) = tokio::sync::mpsc::unbounded_channel();
    let pairing = tokio::spawn(async move {
        let pins = line.radio.pair(&mut device, |event| drop(show.send(event))).await;
        (pins, device)
    });
    let Some(DeviceEvent::PairingShown(pairing_shown, digits)) = shown.recv().await else { panic!("nothing shown") };
    let confirm = Confirm::Number(&digits);
    test.broker.confirm_pairing(&Caller::command_line(), &pairing_shown.pairing_id, &confirm).await.unwrap();
    let (pins, mut device) = tokio::time::timeout(SOON, pairing).await.unwrap().unwrap();
    pins.unwrap();

    let mut line = mosquitto.line(&device, &pair).await;
    let approver = test.operator("dana", Role::Approver).await;
    let code = device.request_code(None, None).await.unwrap();
    let page = approver.claim(&code.verification_uri_complete).await.unwrap();
    let told = line.radio.told(&device, SOON).await.unwrap();
    approver.approve(&page, &told.number.unwrap()).await.unwrap();
    assert_eq!(line.radio.told(&device, SOON).await.unwrap().event, "poll_now");
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Tokens(_)), "its only poll");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_paired_by_number_and_signs_in_without_a_pending_poll() {
    pairs_and_signs_in(MqttVersion::V5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_where_pairgate_speaks_mqtt_3_1_1() {
    pairs_and_signs_in(MqttVersion::V3).await;
}

/// A person's console: a key for commands, and a certificate for the broker.
struct Console {
    key: DeviceKey,
    line: Line,
}

impl Console {
    async fn of(mosquitto: &Mosquitto, test: &TestBroker, name: &str) -> Self {
        let key = DeviceKey::generate_es256().unwrap();
        let jwk = key.jwk().to_string();
        test.broker.add_operator(&Caller::command_line(), name, Role::Technician).await.unwrap();
        test.broker.add_operator_key(&Caller::command_line(), name, "console", &jwk).await.unwrap();
        // To the broker it is only a name and a certificate.
        let (pair, own) = self::key();
        let program = SimulatedDevice::new(&format!("operator:{name}"), &test.issuer, own, test.wire.clone());
        Self { key, line: mosquitto.line(&program, &pair).await }
    }

    fn confirm(&self, test: &TestBroker, name: &str, pairing: &str, digits: &str) -> String {
        let now = test.clock.now().seconds();
        let claims = json!({
            "iss": name, "aud": test.issuer, "iat": now, "exp": now + 120, "jti": probe::jti(), "command": "confirm_pairing",
            "pairing_id": pairing, "digits": digits,
        });
        let header = json!({"typ": "operator-command+jwt", "alg": self.key.alg(), "kid": self.key.jkt()});
        self.key.sign_raw(&header, &claims).unwrap()
    }

    /// The next message of an `operations` topic.
    async fn heard(&mut self, topic: &str) -> String {
        let wanted = format!("{PREFIX}/v1/operations/{topic}");
        let heard = async {
            loop {
                match self.line.radio.hear(SOON).await {
                    Some(Heard::Message { topic, payload, .. }) if topic == wanted => return payload,
                    Some(_) => {}
                    None => panic!("nothing of {wanted}"),
                }
            }
        };
        tokio::time::timeout(SOON, heard).await.unwrap_or_else(|_| panic!("nothing of {wanted}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_sees_what_waits_and_confirms_it_by_a_signed_command() {
    let mosquitto = Mosquitto::start().await;
    let test = TestBroker::start().await;
    let _mqtt = mosquitto.serve(&test, MqttVersion::V5).await;
    let mut kim = Console::of(&mosquitto, &test, "kim").await;
    let results = format!("results/{}", kim.key.jkt());
    for topic in ["pending", results.as_str(), "status"] {
        kim.line.radio.subscribe(&format!("{PREFIX}/v1/operations/{topic}")).await.unwrap();
    }
    assert!(kim.heard("status").await.contains("online"));
    test.register("tv-1", "tv").await;
    test.open_window("tv-1").await;
    let mut device = in_step(test.stranger("tv-1"), &test);
    let mut line = mosquitto.pairing_line(&device).await;
    let (_, digits, jti) = asked(&mut line.radio, &mut device).await;
    let pairing = loop {
        let feed: Value = serde_json::from_str(&kim.heard("pending").await).unwrap();
        if let Some(pairing) = feed["pairings"][0]["pairing_id"].as_str() {
            assert_eq!(feed["pairings"][0]["device"], "tv-1");
            break pairing.to_owned();
        }
    };
    // Wrong digits are refused in words, and cost a try, as on the page.
    let wrong = if digits == "000000" { "000001" } else { "000000" };
    let commands = format!("{PREFIX}/v1/operations/commands");
    let command = kim.confirm(&test, "kim", &pairing, wrong);
    kim.line.radio.send_to(&commands, command, false).await.unwrap();
    let result = jose::check(&kim.heard(&results).await, &test.broker.jwks()["keys"][0]).unwrap().claims;
    assert_eq!((&result["aud"], &result["result"]), (&json!("kim"), &json!("refused")));
    let command = kim.confirm(&test, "kim", &pairing, &digits);
    kim.line.radio.send_to(&commands, command.clone(), false).await.unwrap();
    let result = jose::check(&kim.heard(&results).await, &test.broker.jwks()["keys"][0]).unwrap().claims;
    assert_eq!((&result["result"], &result["device"]), (&json!("done"), &json!("tv-1")));
    // The device is told at once, and the record names the person.
    let answer = line.radio.message("pairing/response", SOON).await.unwrap();
    assert!(matches!(device.polled(&jti, &answer).unwrap(), PairingStatus::Paired(_)));
    let records = test.records().await;
    let confirmed = records.iter().find(|record| record.event == "pairing.confirmed").unwrap();
    assert_eq!(confirmed.actor, "operator:kim");
    // Played again, it is nothing.
    kim.line.radio.send_to(&commands, command, false).await.unwrap();
    let refused = async {
        while test.count("operator.command_refused").await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, refused).await.expect("a record");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pairing_goes_on_when_the_broker_starts_again_in_its_middle() {
    let mut mosquitto = Mosquitto::start().await;
    let test = TestBroker::start().await;
    let mqtt = mosquitto.serve(&test, MqttVersion::V5).await;
    test.register("tv-1", "tv").await;
    test.open_window("tv-1").await;
    let mut device = in_step(test.stranger("tv-1"), &test);
    let mut line = mosquitto.pairing_line(&device).await;
    let (pairing, digits, _) = asked(&mut line.radio, &mut device).await;
    mosquitto.stop();
    connected(&mqtt, false).await;
    mosquitto.start_again().await;
    connected(&mqtt, true).await;
    // The confirmation comes while the device is still away, for all that it knows: its next poll tells.
    let confirm = Confirm::Number(&digits);
    test.broker.confirm_pairing(&Caller::command_line(), &pairing, &confirm).await.unwrap();
    assert!(line.radio.connected_again(SOON).await);
    let (poll, jti) = device.pairing_poll().unwrap();
    line.radio.send("pairing/request", poll).await.unwrap();
    let answer = line.radio.message("pairing/response", SOON).await.unwrap();
    assert!(matches!(device.polled(&jti, &answer).unwrap(), PairingStatus::Paired(_)));
}

/// A whole minute: long enough for every pause between attempts to have grown to its longest.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_absent_for_a_minute_costs_nothing_over_http_and_nothing_is_lost() {
    let mut mosquitto = Mosquitto::start().await;
    let test = TestBroker::start().await;
    let mqtt = mosquitto.serve(&test, MqttVersion::V5).await;
    test.register("tv-1", "printer").await;
    let (pair, device_key) = key();
    let mut device = by_key(&test, "tv-1", device_key);
    test.pair(&mut device).await;
    let approver = test.operator("dana", Role::Approver).await;
    mosquitto.stop();
    connected(&mqtt, false).await;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.tick().await;
    for passed in 0..60 {
        // Meanwhile devices sign in over HTTP, as if nothing were.
        if passed % 20 == 0 {
            test.signed_in(&approver, &mut device).await;
            test.advance(120);
        }
        second.tick().await;
    }
    assert!(!mqtt.edge.client.as_ref().unwrap().is_connected());
    mosquitto.start_again().await;
    connected(&mqtt, true).await;
    // What is asked from now on is answered and told, and what happened meanwhile stands.
    let mut device = in_step(device, &test);
    let mut line = mosquitto.line(&device, &pair).await;
    let code = device.request_code(None, None).await.unwrap();
    let page = approver.claim(&code.verification_uri_complete).await.unwrap();
    let told = line.radio.told(&device, SOON).await.unwrap();
    approver.approve(&page, &told.number.unwrap()).await.unwrap();
    assert_eq!(line.radio.told(&device, SOON).await.unwrap().event, "poll_now");
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Tokens(_)));
    assert_eq!(test.count("token.issued").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_on_one_broker_one_answers_and_the_other_takes_over() {
    let mosquitto = Mosquitto::start().await;
    let (data, port) = (tempfile::tempdir().unwrap(), free_port());
    let public = format!("http://127.0.0.1:{port}");
    let config = format!("public_url = '{public}'\n{}", mosquitto.section());
    std::fs::write(data.path().join("pairgate.toml"), config).unwrap();
    let mut first = Served::start(data.path(), port);
    let second = Served::start(data.path(), free_port());
    child::json(data.path(), &["device", "add", "tv-1", "--kind", "tv"]);
    child::json(data.path(), &["pairing", "open", "tv-1"]);
    let (pair, device_key) = key();
    let mut device = SimulatedDevice::new("tv-1", &public, device_key, Wire::new().unwrap());
    let mut line = mosquitto.pairing_line(&device).await;
    let (_, digits, jti) = asked(&mut line.radio, &mut device).await;
    assert!(line.radio.message("pairing/response", SILENCE).await.is_none(), "a second answer");
    // The command line is a third process: the device is told all the same.
    child::json(data.path(), &["pairing", "confirm", "tv-1", "--number", &digits]);
    let answer = line.radio.message("pairing/response", SOON).await.unwrap();
    assert!(matches!(device.polled(&jti, &answer).unwrap(), PairingStatus::Paired(_)));
    assert!(line.radio.message("pairing/response", SILENCE).await.is_none(), "told twice");
    // The one that has the connection is killed, whichever it is: the lease runs out, and the other has it. `identify` is told then.
    let mut line = mosquitto.line(&device, &pair).await;
    first.kill();
    let told = async {
        loop {
            child::json(data.path(), &["device", "identify", "tv-1"]);
            if let Some(told) = line.radio.told(&device, Duration::from_secs(5)).await {
                return told;
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(60), told).await.expect("the other node speaks");
    assert_eq!(told.event, "identify");
    drop(second);
}

/// Where no certificate is asked for, a password will do; and a wrong one is no way in.
#[tokio::test(flavor = "multi_thread")]
async fn pairgate_connects_by_password_and_not_by_a_wrong_one() {
    let mosquitto = Mosquitto::start().await;
    let test = TestBroker::start().await;
    let folder = tempfile::tempdir().unwrap();
    let with = |password: &str| {
        let file = folder.path().join(password);
        std::fs::write(&file, format!("{password}\n")).unwrap();
        let at = OutsideBroker::at("127.0.0.1".into(), mosquitto.pairing_port(), true);
        let (ca, user_name) = (Some(mosquitto.ca.clone()), Some("pairing".into()));
        Mqtt { broker: Some(OutsideBroker { ca, user_name, password_file: Some(file), ..at }), ..Mqtt::default() }
    };
    for version in [MqttVersion::V5, MqttVersion::V3] {
        let mut good = with(PAIRING_PASSWORD);
        good.broker.as_mut().unwrap().version = version;
        let mqtt = TestMqtt::outside(&test, good).await;
        connected(&mqtt, true).await;
        mqtt.stop().await;
    }
    let wrong = with("guessed").broker.unwrap();
    let relay = Relay::start(&wrong).unwrap();
    let credentials = Credentials { client_id: "pairgate".into(), login: Some(("pairing".into(), "guessed".into())) };
    let (_sender, mut link) = link::open(&wrong, &relay.socket(), credentials, None);
    let answer = tokio::time::timeout(SOON, link.next()).await.expect("an answer in time");
    assert!(matches!(answer, Err(LinkError::Refused(_))), "{answer:?}");
}

/// The last will: consoles see at once that a node was killed; one that stops in good order says so itself.
#[tokio::test(flavor = "multi_thread")]
async fn consoles_see_whether_pairgate_is_there() {
    let mosquitto = Mosquitto::start().await;
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("pairgate.toml"), mosquitto.section()).unwrap();
    let console = mosquitto.certified("operator:kim");
    let status = console.subscribe("operator:kim", &["pairgate/v1/operations/status"]);
    let (online, offline) = (r#"{"status":"online"}"#, r#"{"status":"offline"}"#);
    let next_other = |than: &str| loop {
        let said = status.next();
        if said != than {
            return said;
        }
    };
    let mut served = Served::start(data.path(), free_port());
    assert_eq!(next_other(offline), online);
    served.kill();
    assert_eq!(next_other(online), offline, "the last will");
    let served = Served::start(data.path(), free_port());
    assert_eq!(next_other(offline), online);
    assert!(served.stopped().success());
    assert_eq!(next_other(online), offline, "the farewell");
}

/// A broker that lets anybody do anything. What is signed still decides.
#[tokio::test(flavor = "multi_thread")]
async fn without_any_rules_nothing_that_is_planted_is_believed_a_057_a_058() {
    let mosquitto = Mosquitto::with(Manner::Open).await;
    let test = TestBroker::start().await;
    let _mqtt = mosquitto.serve(&test, MqttVersion::V5).await;
    test.register("tv-1", "printer").await;
    test.open_window("tv-1").await;
    let (pair, device_key) = key();
    let mut device = by_key(&test, "tv-1", device_key);
    let thief = by_key(&test, "thief-1", DeviceKey::generate_es256().unwrap());
    let mut thieves = mosquitto.line(&thief, &KeyPair::generate().unwrap()).await;
    let topic = |rest: &str| format!("{PREFIX}/v1/tv-1/{rest}");
    // Planted before the device connects: a retained answer, signed with the thief's key, and a retained request of its own.
    let forged = |typ: &str, claims: Value| thief.key.sign_raw(&thief.key.header(typ), &claims).unwrap();
    let now = device.now_s();
    let paired = json!({"iss": test.issuer, "aud": "tv-1", "iat": now, "jti": "x", "status": "paired", "pairing_id": "x", "issuer": "https://evil.example"});
    thieves.radio.send_to(&topic("pairing/response"), forged("pairing-response+jwt", paired), true).await.unwrap();
    let (planted, _) = by_key(&test, "tv-1", DeviceKey::generate_es256().unwrap()).pairing_request().unwrap();
    thieves.radio.send_to(&topic("pairing/request"), planted, true).await.unwrap();
    let refused = async {
        while !test.records().await.iter().any(|record| record.detail.contains("a retained message")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, refused).await.expect("the planted request was refused");
    thieves.radio.subscribe(&format!("{PREFIX}/#")).await.unwrap();
    let mut line = mosquitto.line(&device, &pair).await;
    let (pairing, digits, jti) = asked(&mut line.radio, &mut device).await;
    let confirm = Confirm::Number(&digits);
    test.broker.confirm_pairing(&Caller::command_line(), &pairing, &confirm).await.unwrap();
    let answer = line.radio.message("pairing/response", SOON).await.unwrap();
    assert!(matches!(device.polled(&jti, &answer).unwrap(), PairingStatus::Paired(_)));
    assert_eq!(test.count("pairing.confirmed").await, 1);
    // He reads an event, and plays it again, to its device and to another; and makes one himself.
    let approver = test.operator("dana", Role::Approver).await;
    let code = device.request_code(None, None).await.unwrap();
    approver.claim(&code.verification_uri_complete).await.unwrap();
    let event = line.radio.message("event", SOON).await.unwrap();
    assert!(line.radio.authentic(&device, &event).is_some());
    thieves.radio.send_to(&topic("event"), event.clone(), false).await.unwrap();
    let again = line.radio.message("event", SOON).await.unwrap();
    assert_eq!((again == event, line.radio.authentic(&device, &again)), (true, None));
    let claims = json!({"iss": test.issuer, "aud": "tv-1", "iat": now, "exp": now + 60, "jti": "0123456789abcdef", "event": "confirmation_number", "confirmation_number": "42"});
    thieves.radio.send_to(&topic("event"), forged("device-event+jwt", claims), false).await.unwrap();
    let made_up = line.radio.message("event", SOON).await.unwrap();
    assert_eq!(line.radio.authentic(&device, &made_up), None);
    // A message of the device on another's topic gets no answer that is worth anything, and not there.
    let (request, _) = by_key(&test, "tv-1", DeviceKey::generate_es256().unwrap()).pairing_request().unwrap();
    thieves.radio.send_to(&format!("{PREFIX}/v1/tv-9/pairing/request"), request, false).await.unwrap();
    assert!(line.radio.message("pairing/response", SILENCE).await.is_none());
}
