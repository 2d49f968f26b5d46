//! What an MQTT broker asks, over real HTTP, in the words of EMQX, VerneMQ and mosquitto-go-auth.

use pairgate::broker::Caller;
use pairgate::config::mqtt::{Mqtt, MqttVersion, OutsideBroker};
use pairgate::simulator::{DeviceKey, RawAnswer, SimulatedDevice};
use serde_json::{Value, json};

use crate::support::{Setup, TestBroker};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const ID: &str = "lobby-printer-01";
const BASE: &str = "pairgate/v1";

/// A broker that answers brokers, and a paired device.
async fn asked() -> (TestBroker, SimulatedDevice, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let outside = OutsideBroker {
        host: "localhost".into(),
        port: 1883,
        is_tls: false,
        ca: None,
        certificate: None,
        user_name: Some("pairgate".into()),
        password_file: Some(file("password", "own password\n")),
        client_id: "pairgate".into(),
        version: MqttVersion::V5,
        emqx: None,
    };
    let hook_secret_file = Some(file("secret", SECRET));
    let mqtt = Mqtt { broker: Some(outside), hook_secret_file, ..Mqtt::default() };
    let test = TestBroker::with(Setup { mqtt: Some(mqtt), ..Setup::default() }).await;
    let device = test.paired(ID, "printer").await;
    (test, device, folder)
}

/// A password that is good for one connection.
fn password(test: &TestBroker, who: &str, key: &DeviceKey, jti: &str) -> String {
    let now = test.clock.now().seconds();
    let claims = json!({"iss": who, "aud": test.issuer, "iat": now, "exp": now + 60, "jti": format!("{jti:0<16}")});
    key.sign_raw(&key.header("mqtt+jwt"), &claims).unwrap()
}

async fn ask(test: &TestBroker, path: &str, headers: &[(&str, &str)], body: &Value) -> RawAnswer {
    let mut request = test.wire.post(&test.url(path)).header("content-type", "application/json").body(body.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    test.wire.send(request).await.unwrap()
}

/// EMQX shows the secret in a header, and reads the body.
async fn emqx(test: &TestBroker, path: &str, body: &Value) -> String {
    let bearer = format!("Bearer {SECRET}");
    let answer = ask(test, path, &[("authorization", &bearer)], body).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{body}");
    let answer = answer.json().unwrap();
    assert!(answer.get("is_superuser").is_none_or(|is_superuser| is_superuser == false), "nobody is above the rules");
    answer["result"].as_str().unwrap().to_owned()
}

async fn emqx_connects(test: &TestBroker, client_id: &str, user_name: &str, password: &str) -> String {
    let body = json!({"clientid": client_id, "username": user_name, "password": password, "peerhost": "192.0.2.7"});
    emqx(test, "/mqtt/auth", &body).await
}

async fn emqx_may(test: &TestBroker, who: (&str, &str), action: &str, topic: &str, retain: &str) -> String {
    let (client_id, user_name) = who;
    let body = json!({
        "clientid": client_id, "username": user_name, "peerhost": "192.0.2.7", "action": action, "topic": topic, "retain": retain,
    });
    emqx(test, "/mqtt/acl", &body).await
}

/// VerneMQ shows the secret as password of the address.
async fn vernemq(test: &TestBroker, hook: &str, body: &Value) -> Value {
    let path = if hook.starts_with("auth_on_register") { "/mqtt/auth" } else { "/mqtt/acl" };
    let basic = format!("Basic {}", base64_of(&format!("pairgate:{SECRET}")));
    let answer = ask(test, path, &[("vernemq-hook", hook), ("authorization", &basic)], body).await;
    assert_eq!(answer.status, 200, "VerneMQ takes everything else for an outage: {}", answer.body);
    answer.json().unwrap()
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test]
async fn emqx_lets_a_device_in_by_its_key_and_under_its_own_name_alone_a_058_a_059() {
    let (test, device, _folder) = asked().await;
    let fresh = |jti: &str| password(&test, ID, &device.key, jti);
    let once = fresh("once");
    assert_eq!(emqx_connects(&test, ID, ID, &once).await, "allow");
    assert_eq!(emqx_connects(&test, ID, ID, &once).await, "deny", "played again");
    let other = DeviceKey::generate_es256().unwrap();
    for (what, client_id, user_name, password) in [
        ("another key", ID, ID, password(&test, ID, &other, "a")),
        ("no JWT", ID, ID, "letmein".into()),
        ("no password", ID, ID, String::new()),
        ("another's client id", "lobby-printer-02", ID, fresh("b")),
        ("another's name", ID, "lobby-printer-02", fresh("c")),
        ("a stranger's name, its place", ID, "gateway", "letmein".into()),
        ("no name, its place", ID, "", "letmein".into()),
        ("a stranger's name, its place to be paired", "lobby-printer-01.AAAAAAAAAAAAAAAA", "gateway", "x".into()),
        ("a stranger's name, an operator's place", "operator.dana.console", "gateway", "x".into()),
        ("an operator that there is not", "operator.dana.1", "operator:dana", password(&test, "dana", &other, "d")),
        ("our own name", "pairgate", "pairgate", "letmein".into()),
        ("a stranger's name, our place", "pairgate", "gateway", "letmein".into()),
    ] {
        assert_eq!(emqx_connects(&test, client_id, user_name, &password).await, "deny", "{what}");
    }
    assert_eq!(emqx_connects(&test, "pairgate", "pairgate", "own password").await, "allow", "Pairgate itself");
    assert_eq!(emqx_connects(&test, "gateway/1", "gateway", "letmein").await, "ignore", "the next rule's business");
    let unpaired = format!("lobby-printer-09.{}", &other.jkt()[..16]);
    let name = "lobby-printer-09";
    let joining = password(&test, name, &other, "e");
    assert_eq!(emqx_connects(&test, &unpaired, name, &joining).await, "allow", "whoever is to be paired");
    assert_eq!(emqx_connects(&test, name, name, &joining).await, "deny", "but not as if it were");
    test.broker.suspend_device(&Caller::command_line(), ID).await.unwrap();
    assert_eq!(emqx_connects(&test, ID, ID, &fresh("f")).await, "deny", "suspended");
    let records = test.records().await;
    let refused = records.iter().find(|record| record.event == "mqtt.refused").unwrap();
    assert_eq!(refused.peer.as_deref(), Some("192.0.2.7"), "where the client is, not the broker");
}

#[tokio::test]
async fn client_ids_that_could_become_wildcards_are_refused_a_056() {
    let (test, device, _folder) = asked().await;
    let long = "x".repeat(97);
    for (number, client_id) in
        ["#", "+", "a/b", "", "lobby-printer-01/", "lobby\u{0}printer", "+.x", &long].iter().enumerate()
    {
        let password = password(&test, ID, &device.key, &format!("jti{number}"));
        assert_eq!(emqx_connects(&test, client_id, ID, &password).await, "deny", "{client_id:?}");
        let topic = format!("{BASE}/{ID}/event");
        assert_eq!(emqx_may(&test, (client_id, ID), "subscribe", &topic, "").await, "deny", "{client_id:?}");
        let hook = json!({"client_id": client_id, "username": ID, "password": password, "mountpoint": ""});
        let refused = json!({"result": {"error": "not_allowed"}});
        assert_eq!(vernemq(&test, "auth_on_register", &hook).await, refused, "{client_id:?}");
    }
    for client_id in ["#", "+", "a\u{0}b"] {
        assert_eq!(emqx_connects(&test, client_id, "gateway", "letmein").await, "deny", "{client_id:?}");
    }
}

#[tokio::test]
async fn emqx_gives_each_its_own_topics_and_nothing_kept_a_057_a_058() {
    let (test, _device, _folder) = asked().await;
    let own = |rest: &str| format!("{BASE}/{ID}/{rest}");
    let (device, unpaired) = ((ID, ID), ("lobby-printer-09.AAAAAAAAAAAAAAAA", "lobby-printer-09"));
    for (who, action, topic, retain, result) in [
        (device, "publish", own("pairing/request"), "false", "allow"),
        (device, "publish", own("pairing/request"), "true", "deny"),
        (device, "publish", own("event"), "false", "deny"),
        (device, "publish", format!("{BASE}/lobby-printer-02/pairing/request"), "false", "deny"),
        (device, "publish", format!("{BASE}/operations/commands"), "false", "deny"),
        (device, "publish", "sensors/paper".into(), "true", "ignore"),
        (device, "subscribe", own("event"), "", "allow"),
        ((ID, ""), "subscribe", own("event"), "", "allow"),
        (device, "subscribe", own("#"), "", "deny"),
        (device, "subscribe", format!("{BASE}/+/event"), "", "deny"),
        (device, "subscribe", "#".into(), "", "deny"),
        (device, "subscribe", format!("$share/all/{}", own("event")), "", "deny"),
        (device, "subscribe", "sensors/#".into(), "", "ignore"),
        (unpaired, "publish", format!("{BASE}/lobby-printer-09/pairing/request"), "false", "allow"),
        (unpaired, "subscribe", format!("{BASE}/lobby-printer-09/event"), "", "deny"),
        (("gateway", "gateway"), "subscribe", "#".into(), "", "ignore"),
        (("x", "operator:dana"), "subscribe", format!("{BASE}/operations/pending"), "", "deny"),
        (("pairgate", "pairgate"), "subscribe", format!("{BASE}/+/pairing/request"), "", "allow"),
        (("pairgate", "pairgate"), "publish", format!("{BASE}/operations/status"), "true", "allow"),
        (("pairgate", "pairgate"), "subscribe", "#".into(), "", "ignore"),
    ] {
        assert_eq!(emqx_may(&test, who, action, &topic, retain).await, result, "{who:?} {action} {topic} {retain}");
    }
    test.broker.suspend_device(&Caller::command_line(), ID).await.unwrap();
    assert_eq!(emqx_may(&test, device, "subscribe", &own("event"), "").await, "deny", "at once");
    // A device that is called like our own client does not get our rights.
    test.register("pairgate", "printer").await;
    let all = format!("{BASE}/+/pairing/request");
    assert_eq!(emqx_may(&test, ("pairgate", "pairgate"), "subscribe", &all, "").await, "deny");
}

#[tokio::test]
async fn vernemqs_hooks_are_answered_in_its_words_a_057_a_058_a_059() {
    let (test, device, _folder) = asked().await;
    let (ok, next, refused) =
        (json!({"result": "ok"}), json!({"result": "next"}), json!({"result": {"error": "not_allowed"}}));
    for (is_v5, suffix) in [(false, ""), (true, "_m5")] {
        let register = |client_id: &str, user_name: Value, password: Value| {
            json!({
                "peer_addr": "192.0.2.7", "peer_port": 8888, "mountpoint": "", "client_id": client_id, "username": user_name,
                "password": password, "clean_start": true, "properties": {},
            })
        };
        let hook = format!("auth_on_register{suffix}");
        let good = password(&test, ID, &device.key, &format!("vernemq{suffix}"));
        assert_eq!(vernemq(&test, &hook, &register(ID, json!(ID), json!(good))).await, ok);
        assert_eq!(vernemq(&test, &hook, &register(ID, json!(ID), json!(good))).await, refused, "played again");
        assert_eq!(vernemq(&test, &hook, &register(ID, json!("gateway"), json!("x"))).await, refused, "its place");
        assert_eq!(vernemq(&test, &hook, &register(ID, Value::Null, Value::Null)).await, refused, "no password");
        assert_eq!(vernemq(&test, &hook, &register("gw", json!("gateway"), json!("x"))).await, next);

        let publish = |topic: &str, retain: bool| {
            json!({
                "client_id": ID, "username": ID, "mountpoint": "", "qos": 1, "topic": topic, "payload": "aGVsbG8=", "retain": retain,
            })
        };
        let hook = format!("auth_on_publish{suffix}");
        let request = format!("{BASE}/{ID}/pairing/request");
        assert_eq!(vernemq(&test, &hook, &publish(&request, false)).await, ok);
        assert_eq!(vernemq(&test, &hook, &publish(&request, true)).await, refused, "retained");
        assert_eq!(vernemq(&test, &hook, &publish("sensors/paper", true)).await, next);

        let subscribe = |topics: &[(&str, u8)]| {
            let topics: Vec<Value> =
                topics.iter().map(|(topic, qos)| json!({"topic": format!("{BASE}/{topic}"), "qos": qos})).collect();
            json!({"client_id": ID, "username": ID, "mountpoint": "", "topics": topics})
        };
        let hook = format!("auth_on_subscribe{suffix}");
        let (event, other) = ("lobby-printer-01/event", "lobby-printer-02/event");
        assert_eq!(vernemq(&test, &hook, &subscribe(&[(event, 1)])).await, ok);
        assert_eq!(vernemq(&test, &hook, &subscribe(&[(other, 1)])).await, refused);
        let mixed = vernemq(&test, &hook, &subscribe(&[(event, 1), (other, 0)])).await;
        let topics = if is_v5 { &mixed["modifiers"]["topics"] } else { &mixed["topics"] };
        let refusal = if is_v5 { 135 } else { 128 };
        let expected = json!([
            {"topic": format!("{BASE}/{event}"), "qos": 1},
            {"topic": format!("{BASE}/{other}"), "qos": refusal},
        ]);
        assert_eq!((&mixed["result"], topics), (&json!("ok"), &expected));
    }
}

#[tokio::test]
async fn mosquitto_go_auth_reads_the_status_in_json_and_in_forms_a_057_a_059() {
    let (test, device, _folder) = asked().await;
    let own = format!("{BASE}/{ID}/event");
    let good = [password(&test, ID, &device.key, "json"), password(&test, ID, &device.key, "form")];
    for is_form in [false, true] {
        let good = &good[usize::from(is_form)];
        for (what, path, body, status) in [
            ("connects", "/mqtt/auth", json!({"username": ID, "password": good, "clientid": ID}), 200),
            ("played again", "/mqtt/auth", json!({"username": ID, "password": good, "clientid": ID}), 403),
            ("a stranger", "/mqtt/auth", json!({"username": "gateway", "password": "x", "clientid": "gw"}), 403),
            (
                "Pairgate",
                "/mqtt/auth",
                json!({"username": "pairgate", "password": "own password", "clientid": "p"}),
                200,
            ),
            ("superuser", "/mqtt/auth", json!({"username": "pairgate"}), 403),
            ("subscribes", "/mqtt/acl", json!({"username": ID, "clientid": ID, "topic": own, "acc": 4}), 200),
            ("gets", "/mqtt/acl", json!({"username": ID, "clientid": ID, "topic": own, "acc": 1}), 200),
            ("writes", "/mqtt/acl", json!({"username": ID, "clientid": ID, "topic": own, "acc": 2}), 403),
            ("both", "/mqtt/acl", json!({"username": ID, "clientid": ID, "topic": own, "acc": 3}), 403),
            ("all", "/mqtt/acl", json!({"username": ID, "clientid": ID, "topic": "#", "acc": 4}), 403),
            ("elsewhere", "/mqtt/acl", json!({"username": ID, "clientid": ID, "topic": "x", "acc": 2}), 403),
        ] {
            // It can show the secret in the address alone.
            let path = format!("{path}/{SECRET}");
            let answer = if is_form {
                let fields: Vec<(String, String)> = body
                    .as_object()
                    .unwrap()
                    .iter()
                    .map(|(name, value)| {
                        (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                    })
                    .collect();
                test.wire.send(test.wire.post(&test.url(&path)).form(&fields)).await.unwrap()
            } else {
                ask(&test, &path, &[], &body).await
            };
            assert_eq!(answer.status, status, "{what}, form: {is_form}");
            assert_eq!(answer.json().unwrap()["ok"], status == 200, "{what}, form: {is_form}");
        }
    }
}

#[tokio::test]
async fn without_the_secret_nobody_learns_anything_a_059_a_091() {
    let (test, device, _folder) = asked().await;
    let good = password(&test, ID, &device.key, "unused");
    let body = json!({"username": ID, "password": good, "clientid": ID, "peerhost": "192.0.2.7"});
    let mut bodies = Vec::new();
    for (path, headers) in [
        ("/mqtt/auth", vec![]),
        ("/mqtt/acl", vec![]),
        ("/mqtt/auth/0123456789abcdef0123456789abcdeX", vec![]),
        ("/mqtt/auth", vec![("authorization", "Bearer wrong")]),
        ("/mqtt/auth", vec![("authorization", "Basic d3Jvbmc6d3Jvbmc=")]),
        ("/mqtt/acl/x", vec![("vernemq-hook", "auth_on_publish")]),
    ] {
        let answer = ask(&test, path, &headers, &body).await;
        assert_eq!(answer.status, 401, "{path} {headers:?}");
        bodies.push(answer.body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "one answer for all: {bodies:?}");
    assert!(!bodies[0].contains(ID));
    for _ in 0..40 {
        ask(&test, "/mqtt/auth", &[], &json!({})).await;
    }
    assert_eq!(test.count("mqtt.refused").await, 20, "a flood is counted, not recorded");
    let path = format!("/mqtt/auth/{SECRET}");
    assert_eq!(ask(&test, &path, &[], &body).await.status, 200, "the password was not used up meanwhile");
    // Each question has its address, and a question of nobody gets none.
    let acl = json!({"username": ID, "clientid": ID, "topic": "t", "action": "publish"});
    for (path, body) in
        [("/mqtt/auth", &acl), ("/mqtt/acl", &body), ("/mqtt/acl", &json!([])), ("/mqtt/acl", &json!({"acc": 9}))]
    {
        assert_eq!(ask(&test, &format!("{path}/{SECRET}"), &[], body).await.status, 400, "{path} {body}");
    }
    let long = json!({"username": ID, "clientid": ID, "topic": "t".repeat(20_000), "acc": 2});
    assert_eq!(ask(&test, &format!("/mqtt/acl/{SECRET}"), &[], &long).await.status, 413);
    let elsewhere = ask(&test, &path, &[("host", "evil.example")], &body).await;
    assert_eq!(elsewhere.status, 421);
}
