//! `docs/asyncapi.json` is true: its addresses are the topics that the program uses, and real messages are as it describes them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use pairgate::broker::Caller;
use pairgate::broker::connections::Connected;
use pairgate::broker::pairing::Confirm;
use pairgate::id::DeviceId;
use pairgate::model::operator::Role;
use pairgate::mqtt::topics::Topics;
use pairgate::simulator::{PairingStatus, jose};
use serde_json::Value;

use crate::support::TestBroker;
use crate::support::mqtt::{TestMqtt, in_step};

const SOON: Duration = Duration::from_secs(5);

fn document() -> Value {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/asyncapi.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn its_addresses_are_the_topics_and_who_may_do_what_with_them() {
    let document = document();
    let topics = Topics::new("pairgate");
    let device = DeviceId::new("tv-1").unwrap();
    let used = BTreeSet::from([
        topics.pairing_request(&device),
        topics.pairing_response(&device),
        topics.event(&device),
        topics.pending(),
        topics.commands(),
        topics.results(&[3; 32]),
        topics.status(),
    ]);
    let address = |channel: &Value| {
        channel["address"]
            .as_str()
            .unwrap()
            .replace("{deviceId}", "tv-1")
            .replace("{key}", &pairgate::secret::b64u(&[3; 32]))
    };
    let channels = document["channels"].as_object().unwrap();
    assert_eq!(channels.values().map(address).collect::<BTreeSet<_>>(), used);
    let connected = [
        Connected::Device { id: device, jkt: [0; 32] },
        Connected::Operator { name: "dana".into(), sees_all: true, keys: vec![[3; 32]] },
    ];
    for (name, operation) in document["operations"].as_object().unwrap() {
        let channel = operation["channel"]["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let topic = address(&channels[channel]);
        // What Pairgate receives, somebody may publish; what it sends, somebody may subscribe to; never both.
        let is_received = operation["action"] == "receive";
        let may_publish = connected.iter().any(|connected| topics.may_publish(connected, &topic));
        let may_subscribe = connected.iter().any(|connected| topics.may_subscribe(connected, &topic));
        assert_eq!((may_publish, may_subscribe), (is_received, !is_received), "{name}");
        assert_eq!(operation["bindings"]["mqtt"]["retain"], name == "sayStatus", "{name}");
    }
}

/// Holds members against a description: none that is missing, none that is not described, and constants as they are.
fn fits(what: &str, members: &Value, described: &Value) {
    let properties = described["properties"].as_object().unwrap();
    for name in described["required"].as_array().unwrap() {
        assert!(members.get(name.as_str().unwrap()).is_some(), "{what} lacks {name}: {members}");
    }
    for (name, value) in members.as_object().unwrap() {
        let property = properties.get(name).unwrap_or_else(|| panic!("{what} has {name}, which nobody described"));
        if let Some(constant) = property.get("const") {
            assert_eq!(value, constant, "{what}: {name}");
        }
        if let Some(values) = property.get("enum").and_then(Value::as_array) {
            assert!(values.contains(value), "{what}: {name} is {value}");
        }
        if let (Some(items), Some(described)) = (value.as_array(), property.get("items")) {
            items.iter().for_each(|item| fits(&format!("{what}.{name}"), item, described));
        }
    }
}

/// The same of a JWT: its `typ`, and its claims.
fn jwt_fits(what: &str, jwt: &str) {
    let described = &document()["components"]["messages"][what];
    let jwt = jose::peek(jwt).unwrap();
    assert_eq!(jwt.header["typ"], described["x-typ"], "{what}");
    fits(what, &jwt.claims, &described["x-claims"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn real_messages_are_as_it_says() {
    let test = TestBroker::start().await;
    let mqtt = TestMqtt::embedded(&test).await;
    test.register("tv-1", "tv").await;
    let mut device = in_step(test.stranger("tv-1"), &test);
    device.model = "M480f".into();
    let mut radio = mqtt.radio(&device, false).await;
    let (request, _) = device.pairing_request().unwrap();
    jwt_fits("PairingRequest", &request);
    radio.send("pairing/request", request).await.unwrap();
    let refused = radio.message("pairing/response", SOON).await.unwrap();
    fits(
        "PairingRefused",
        &serde_json::from_str(&refused).unwrap(),
        &document()["components"]["messages"]["PairingRefused"]["payload"],
    );
    test.open_window("tv-1").await;
    let (request, nonce) = device.pairing_request().unwrap();
    radio.send("pairing/request", request).await.unwrap();
    let answer = radio.message("pairing/response", SOON).await.unwrap();
    jwt_fits("PairingRequested", &answer);
    let shown = device.requested(&nonce, &answer).unwrap();
    let (poll, jti) = device.pairing_poll().unwrap();
    jwt_fits("PairingPoll", &poll);
    radio.send("pairing/request", poll).await.unwrap();
    let answer = radio.message("pairing/response", SOON).await.unwrap();
    jwt_fits("PairingPending", &answer);
    let PairingStatus::Pending { digits, .. } = device.polled(&jti, &answer).unwrap() else { panic!() };
    let feed = test.broker.waiting_feed().await.unwrap();
    assert_eq!(feed["pairings"].as_array().unwrap().len(), 1);
    fits("Pending", &feed, &document()["components"]["messages"]["Pending"]["payload"]);
    assert!(!feed.to_string().contains(&digits), "no digits in it");
    let confirm = Confirm::Number(&digits);
    test.broker.confirm_pairing(&Caller::command_line(), &shown.pairing_id, &confirm).await.unwrap();
    let answer = radio.message("pairing/response", SOON).await.unwrap();
    jwt_fits("PairingPaired", &answer);
    device.polled(&jti, &answer).unwrap();

    let mut radio = mqtt.radio(&device, true).await;
    let approver = test.operator("dana", Role::Approver).await;
    let code = device.request_code(None, None).await.unwrap();
    let feed = test.broker.waiting_feed().await.unwrap();
    assert_eq!(feed["sign_ins"].as_array().unwrap().len(), 1);
    fits("Pending", &feed, &document()["components"]["messages"]["Pending"]["payload"]);
    assert!(!feed.to_string().contains(&code.user_code), "no code in it");
    let page = approver.claim(&code.verification_uri_complete).await.unwrap();
    let event = radio.message("event", SOON).await.unwrap();
    jwt_fits("DeviceEvent", &event);
    approver.deny(&page).await.unwrap();
    jwt_fits("DeviceEvent", &radio.message("event", SOON).await.unwrap());
}
