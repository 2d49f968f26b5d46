//! The example that pairs a device by hand over MQTT (`firmware-examples/mqtt/pair.sh`), as it is: Mosquitto's clients and OpenSSL, against the real program, at
//! its own endpoint and behind a real Mosquitto.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use pairgate::clock::Clock;
use pairgate::mqtt::acl;
use pairgate::simulator::{DeviceKey, Wire, jose};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::support::child::{Served, free_port, json, run};
use crate::support::mosquitto::{Manner, Mosquitto, PAIRING_PASSWORD};
use crate::support::probe;

const DEVICE: &str = "lobby-tv";
/// Where nobody is: these answers are ours.
const ISSUER: &str = "https://pairgate.example.org";
/// The longest wait for a line.
const PATIENCE: Duration = Duration::from_secs(40);

/// A device: a folder with what the script keeps, and what it is told.
struct Hand {
    folder: tempfile::TempDir,
    settings: Vec<(&'static str, String)>,
}

impl Hand {
    fn new(issuer: &str, settings: &[(&'static str, &str)]) -> Self {
        let mut all = vec![("ISSUER", issuer.to_owned()), ("ID", DEVICE.to_owned())];
        all.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Self { folder: tempfile::tempdir().unwrap(), settings: all }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn script(&self, action: &str, more: &[(&str, &str)]) -> Script {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-examples/mqtt/pair.sh");
        let mut child = Command::new("sh")
            .arg(path)
            .arg(action)
            .current_dir(self.folder.path())
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
        });
        Script { child, lines }
    }

    /// What is pinned is what Pairgate serves.
    async fn has_pinned(&self, issuer: &str, wire: &Wire, ca: Option<&str>) {
        assert_eq!(self.file("pinned/issuer").trim(), issuer);
        let jwks = wire.send(wire.get(&format!("{issuer}/jwks"))).await.unwrap().json().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&self.file("pinned/jwks.json")).unwrap(), jwks);
        assert_eq!(std::fs::read_to_string(self.path("pinned/ca.pem")).ok().as_deref(), ca);
    }
}

/// The script at work.
struct Script {
    child: Child,
    lines: Receiver<String>,
}

impl Script {
    fn value(&mut self, label: &str) -> String {
        let Ok(line) = self.lines.recv_timeout(PATIENCE) else { panic!("no '{label}': {:?}", self.ended()) };
        line.strip_prefix(label).unwrap_or_else(|| panic!("no '{label}' in: {line}")).trim().to_owned()
    }

    /// Its exit code, and what it complained of.
    fn ended(&mut self) -> (Option<i32>, String) {
        if self.child.try_wait().unwrap().is_none() && self.lines.recv_timeout(PATIENCE).is_ok() {
            panic!("it goes on");
        }
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }

    /// What it prints once the device is asked to show itself; asked again until somebody listens.
    fn identified(&mut self, data: &Path) -> String {
        for _ in 0..20 {
            json(data, &["device", "identify", DEVICE]);
            if let Ok(line) = self.lines.recv_timeout(Duration::from_secs(2)) {
                return line;
            }
        }
        panic!("no event was printed")
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Not SIGKILL: it ends the client that it has started, and removes its files.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// The program, with this configuration.
fn serve(data: &Path, scheme: &str, config: &str) -> (Served, String) {
    let port = free_port();
    let issuer = format!("{scheme}://127.0.0.1:{port}");
    std::fs::write(data.join("pairgate.toml"), format!("public_url = '{issuer}'\n{config}")).unwrap();
    if scheme == "https" {
        json(data, &["tls", "init", "--host", "127.0.0.1"]);
    }
    let served = Served::start(data, port);
    json(data, &["device", "add", DEVICE, "--kind", "tv", "--serial", "SN 1"]);
    (served, issuer)
}

/// A person reads the digits off the script.
fn is_paired(data: &Path, hand: &Hand, issuer: &str) {
    json(data, &["pairing", "open", DEVICE]);
    let mut script = hand.script("pair", &[]);
    assert!(script.value("Link:").starts_with(&format!("{issuer}/pair/")));
    let digits = script.value("Digits:");
    json(data, &["pairing", "confirm", DEVICE, "--number", &digits]);
    assert_eq!(script.value("Paired with"), issuer);
    assert_eq!(script.ended(), (Some(0), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_script_is_paired_and_listens_at_pairgates_own_endpoint() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path();
    let port = free_port().to_string();
    let config = format!("[tls]\nlocal_ca = true\n[mqtt]\nlisten = '127.0.0.1:{port}'\nprefix = 'acme/pg'\n");
    let (_served, issuer) = serve(data, "https", &config);
    let pem = String::from_utf8(run(data, &["tls", "ca"]).stdout).unwrap();
    std::fs::write(data.join("authority.pem"), &pem).unwrap();
    let ca = data.join("authority.pem").display().to_string();
    let settings =
        [("SERIAL", "SN 1"), ("MQTT_HOST", "127.0.0.1"), ("MQTT_PORT", &port), ("PREFIX", "acme/pg"), ("CA", &ca)];
    let hand = Hand::new(&issuer, &settings);
    // Nobody has opened pairing: one sentence, and the key is kept.
    let (code, said) = hand.script("pair", &[]).ended();
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(
        said,
        "refused: This pairing was refused. Ask an administrator to open pairing for this device, then start again.\n"
    );
    let key = hand.file("device.key");
    is_paired(data, &hand, &issuer);
    assert_eq!(hand.file("device.key"), key);
    hand.has_pinned(&issuer, &Wire::with_tls(&pem, None).unwrap(), Some(&pem)).await;
    assert_eq!(hand.script("listen", &[]).identified(data), "identify");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_paired_in_clear_on_this_machine_and_by_mqtt_3_1_1() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path();
    let port = free_port().to_string();
    let (_served, issuer) = serve(data, "http", &format!("[mqtt]\nlisten = '127.0.0.1:{port}'\n"));
    let hand = Hand::new(
        &issuer,
        &[("SERIAL", "SN 1"), ("MQTT_PORT", &port), ("MQTT_HOST", "127.0.0.1"), ("MQTT_VERSION", "311")],
    );
    is_paired(data, &hand, &issuer);
    hand.has_pinned(&issuer, &Wire::new().unwrap(), None).await;
    let (code, said) = hand.script("pair", &[("MQTT_HOST", "mqtt.example.org")]).ended();
    assert_eq!((code, said.as_str()), (Some(1), "without TLS only to this machine: CA is missing\n"));
}

/// `mosquitto_pub` beside `mosquitto_sub`, as docs/mqtt.md shows it: two clients of one device.
#[tokio::test(flavor = "multi_thread")]
async fn single_steps_are_done_with_mosquitto_pub_and_mosquitto_sub() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path();
    let port = free_port().to_string();
    let (_served, issuer) = serve(data, "http", &format!("[mqtt]\nlisten = '127.0.0.1:{port}'\n"));
    json(data, &["pairing", "open", DEVICE]);
    let hand = Hand::new(&issuer, &[("SERIAL", "SN 1"), ("MQTT_PORT", &port), ("MQTT_HOST", "127.0.0.1")]);
    let said = |action: &[&str]| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-examples/mqtt/pair.sh");
        let mut command = Command::new("sh");
        command.arg(path).args(action).current_dir(hand.folder.path());
        let output = command.envs(hand.settings.iter().map(|(name, value)| (name, value))).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let client = |program: &str, name: &str, more: &[&str]| {
        let login = said(&["password", name]);
        let mut command = Command::new("stdbuf");
        command.args([
            "-oL",
            program,
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-q",
            "1",
            "-i",
            &login[0],
            "-u",
            DEVICE,
            "-P",
            &login[1],
        ]);
        command.args(more).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    };
    let topic = |rest: &str| format!("pairgate/v1/{DEVICE}/pairing/{rest}");
    let mut sub =
        client("mosquitto_sub", "sub", &["-d", "-C", "1", "-W", "40", "-t", &topic("response")]).spawn().unwrap();
    let mut lines = BufReader::new(sub.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("Subscribed")), "mosquitto_sub ended");
    let message = said(&["message"]);
    let published = client("mosquitto_pub", "pub", &["-t", &topic("request"), "-m", &message[0]]).status().unwrap();
    assert!(published.success());
    let answer = lines.find(|line| line.starts_with("eyJ")).expect("an answer");
    let answer = jose::peek(&answer).unwrap();
    assert_eq!(
        (&answer.claims["status"], &answer.header["typ"]),
        (&json!("requested"), &json!("pairing-response+jwt"))
    );
    assert_eq!(answer.claims["jti"], jose::peek(&message[0]).unwrap().claims["jti"]);
    sub.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_paired_and_listens_behind_mosquitto_and_prints_no_forged_event_a_057_a_058() {
    let mosquitto = Mosquitto::start().await;
    let data = tempfile::tempdir().unwrap();
    let data = data.path();
    let (served, issuer) = serve(data, "http", &mosquitto.section());
    let (port, pairing_port) = (mosquitto.port().to_string(), mosquitto.pairing_port().to_string());
    std::fs::write(data.join("shared"), PAIRING_PASSWORD).unwrap();
    let (ca, shared) = (mosquitto.ca.display().to_string(), data.join("shared").display().to_string());
    let settings = [("SERIAL", "SN 1"), ("MQTT_HOST", "127.0.0.1"), ("MQTT_PORT", &pairing_port), ("CA", &ca)];
    let mut hand = Hand::new(&issuer, &settings);
    hand.settings.extend([("MQTT_USER", acl::PAIRING.into()), ("MQTT_PASSWORD_FILE", shared)]);
    is_paired(data, &hand, &issuer);
    hand.has_pinned(&issuer, &Wire::new().unwrap(), None).await;

    // A key of ours among the pinned ones: so everything but one thing is right in each of these.
    let ours = DeviceKey::generate_es256().unwrap();
    let mut jwks: Value = serde_json::from_str(&hand.file("pinned/jwks.json")).unwrap();
    let pairgates = jwks["keys"][0]["kid"].clone();
    let mut entry = ours.jwk().clone();
    entry["kid"] = json!(ours.jkt());
    jwks["keys"].as_array_mut().unwrap().push(entry);
    std::fs::write(hand.path("pinned/jwks.json"), jwks.to_string()).unwrap();

    let pair = KeyPair::from_pem(&hand.file("device.key")).unwrap();
    let certificate = mosquitto.certify(DEVICE, &pair).0.display().to_string();
    let mut script = hand.script("listen", &[("MQTT_PORT", &port), ("CERT", &certificate)]);
    assert_eq!(script.identified(data), "identify");
    // By Pairgate's own name at the broker, which whoever runs the broker can use; Pairgate itself would take its place back.
    drop(served);
    let forger = mosquitto.certified(acl::PAIRGATE);
    let topic = format!("pairgate/v1/{DEVICE}/event");
    for message in events(&issuer, &ours, &pairgates) {
        assert!(forger.publish("x", &topic, &message), "{message}");
    }
    let mut printed = Vec::new();
    while printed.last().is_none_or(|line| line != "confirmation_number 43") {
        printed.push(script.lines.recv_timeout(PATIENCE).unwrap());
    }
    printed.retain(|line| line != "identify");
    assert_eq!(printed, ["confirmation_number 42", "confirmation_number 43"]);
}

/// Events by a pinned key, two of them good: with the numbers 42, which is played again, and 43, which is the last.
fn events(issuer: &str, key: &DeviceKey, anothers: &Value) -> Vec<String> {
    let now = Clock::system().now().seconds();
    let event = |number: &str| {
        json!({
            "iss": issuer, "aud": DEVICE, "iat": now, "exp": now + 60, "jti": probe::jti(), "event": "confirmation_number",
            "confirmation_number": number,
        })
    };
    let signed = |kid: &Value, typ: &str, claims: &Value| {
        key.sign_raw(&json!({"typ": typ, "alg": "ES256", "kid": kid}), claims).unwrap()
    };
    let own = json!(key.jkt());
    let with = |name: &str, value: Value| {
        let mut claims = event("66");
        claims[name] = value;
        signed(&own, "device-event+jwt", &claims)
    };
    let good = signed(&own, "device-event+jwt", &event("42"));
    let (input, signature) = good.rsplit_once('.').unwrap();
    vec![
        "nothing".to_owned(),
        "..".to_owned(),
        signed(anothers, "device-event+jwt", &event("66")),
        signed(&json!("unknown"), "device-event+jwt", &event("66")),
        signed(&own, "pairing-response+jwt", &event("66")),
        with("aud", json!("cellar-tv")),
        with("iss", json!("https://evil.example")),
        with("exp", json!(now - 1)),
        with("exp", json!("soon")),
        format!("{input}.{}", signature.chars().rev().collect::<String>()),
        format!("{input}."),
        good.clone(),
        good,
        signed(&own, "device-event+jwt", &event("43")),
    ]
}

/// Pairgate's answer to this request, signed by this key; changed.
fn requested(key: &DeviceKey, request: &str, change: &dyn Fn(&mut Value)) -> String {
    let mut claims = json!({
        "iss": ISSUER, "aud": DEVICE, "iat": 1, "jti": jose::peek(request).unwrap().claims["jti"], "status": "requested", "pairing_id": "x",
        "broker_nonce": "A".repeat(43), "broker_jkt": key.jkt(), "pairing_uri": ISSUER,
        "pairing_uri_complete": format!("{ISSUER}/pair/x"), "expires_in": 600, "interval": 2,
    });
    change(&mut claims);
    key.sign_raw(&key.header("pairing-response+jwt"), &claims).unwrap()
}

/// A broker where anybody may answer. Each of these comes in Pairgate's place.
#[tokio::test(flavor = "multi_thread")]
async fn no_pairing_answer_is_believed_that_is_not_signed_as_it_should_be_a_057() {
    type Forge = fn(&DeviceKey, &str) -> String;
    let mosquitto = Mosquitto::with(Manner::Open).await;
    let port = mosquitto.port().to_string();
    let ca = mosquitto.ca.display().to_string();
    let forged: [(&str, Forge); 5] = [
        ("aud", |key, asked| requested(key, asked, &|claims| claims["aud"] = json!("cellar-tv"))),
        ("issuer", |key, asked| requested(key, asked, &|claims| claims["iss"] = json!("https://evil.example"))),
        ("broker-jkt", |key, asked| requested(key, asked, &|claims| claims["broker_jkt"] = json!("A".repeat(43)))),
        ("another request", |key, asked| requested(key, asked, &|claims| claims["jti"] = json!("A".repeat(32)))),
        ("signature", |key, asked| {
            let good = requested(key, asked, &|_| {});
            let (input, signature) = good.rsplit_once('.').unwrap();
            format!("{input}.{}", signature.chars().rev().collect::<String>())
        }),
    ];
    std::thread::scope(|scope| {
        for (number, (what, forge)) in forged.into_iter().enumerate() {
            let (mosquitto, port, ca) = (&mosquitto, &port, &ca);
            scope.spawn(move || {
                let prefix = format!("p{number}");
                let settings = [("MQTT_HOST", "127.0.0.1"), ("MQTT_PORT", port), ("CA", ca), ("PREFIX", &prefix)];
                let hand = Hand::new(ISSUER, &settings);
                let whoever = mosquitto.stranger(mosquitto.port());
                let topic = |rest: &str| format!("{prefix}/v1/{DEVICE}/pairing/{rest}");
                let asked = whoever.subscribe(&format!("reader-{number}"), &[&topic("request")]);
                let mut script = hand.script("pair", &[]);
                let answer = forge(&DeviceKey::generate_es256().unwrap(), &asked.next());
                assert!(whoever.publish(&format!("forger-{number}"), &topic("response"), &answer), "{what}");
                let expected = "no answer from Pairgate, or none that is signed as it should be\n";
                assert_eq!(script.ended(), (Some(1), expected.to_owned()), "{what}");
                assert!(!hand.path("pinned").exists(), "{what}");
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_pinned_but_by_the_key_that_the_digits_are_over_and_for_the_last_poll_a_057() {
    let mosquitto = Mosquitto::with(Manner::Open).await;
    let (port, ca) = (mosquitto.port().to_string(), mosquitto.ca.display().to_string());
    let hand = Hand::new(ISSUER, &[("MQTT_HOST", "127.0.0.1"), ("MQTT_PORT", &port), ("CA", &ca)]);
    let (key, anothers) = (DeviceKey::generate_es256().unwrap(), DeviceKey::generate_es256().unwrap());
    let topic = |rest: &str| format!("pairgate/v1/{DEVICE}/pairing/{rest}");
    let whoever = mosquitto.stranger(mosquitto.port());
    let asked = whoever.subscribe("reader", &[&topic("request")]);
    let answer = |message: &str| assert!(whoever.publish("writer", &topic("response"), message));
    let paired = |by: &DeviceKey, jti: &Value, pinned: &DeviceKey| {
        let mut entry = pinned.jwk().clone();
        entry["kid"] = json!(by.jkt());
        let claims = json!({
            "iss": ISSUER, "aud": DEVICE, "iat": 1, "status": "paired", "pairing_id": "x", "jti": jti, "issuer": ISSUER,
            "jwks": {"keys": [entry]}, "ca": null,
        });
        by.sign_raw(&by.header("pairing-response+jwt"), &claims).unwrap()
    };
    let jti = |poll: &str| jose::peek(poll).unwrap().claims["jti"].clone();
    let mut script = hand.script("pair", &[]);
    let request = asked.next();
    answer(&requested(&key, &request, &|_| {}));
    let first = jti(&asked.next());
    answer(&paired(&anothers, &first, &anothers));
    asked.next();
    answer(&paired(&key, &first, &key));
    let last = jti(&asked.next());
    assert!(!hand.path("pinned").exists(), "neither was believed");
    // By the right key, for the right poll, but with another key to pin under its name.
    answer(&paired(&key, &last, &anothers));
    let expected = "the keys to pin do not contain the key that signed\n";
    assert_eq!(script.ended(), (Some(1), expected.to_owned()));
    assert!(!hand.path("pinned").exists());
}
