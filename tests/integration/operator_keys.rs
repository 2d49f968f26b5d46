//! Keys that people sign commands with, and the commands (docs/mqtt.md): by whom they are taken, once, and what they may do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use pairgate::broker::{Caller, UseCaseError};
use pairgate::clock::Clock;
use pairgate::model::audit::Actor;
use pairgate::model::operator::Role;
use pairgate::model::site::Site;
use pairgate::secret::{b64u, sha256};
use pairgate::simulator::{DeviceKey, PairingStatus, jose};
use serde_json::{Value, json};

use crate::pairing::{expected, waiting};
use crate::support::chromium::{Look, browse};
use crate::support::probe::jti;
use crate::support::visitor::{hidden, said};
use crate::support::{Setup, TestBroker, child};

const LOBBY: &str = "lobby-printer-01";
const SHELL: fn() -> Caller = Caller::command_line;
/// What no pairing has.
const NO_PAIRING: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// A person's key, and what is signed with it.
struct Console {
    key: DeviceKey,
    name: &'static str,
}

impl Console {
    fn header(&self) -> Value {
        json!({"typ": "operator-command+jwt", "alg": self.key.alg(), "kid": self.key.jkt()})
    }

    fn claims(&self, test: &TestBroker, command: &str, pairing: &str) -> Value {
        let now = test.clock.now().seconds();
        json!({
            "iss": self.name, "aud": test.issuer, "iat": now, "exp": now + 120, "jti": jti(), "command": command,
            "pairing_id": pairing,
        })
    }

    fn sign(&self, claims: &Value) -> String {
        self.key.sign_raw(&self.header(), claims).unwrap()
    }

    fn confirm(&self, test: &TestBroker, pairing: &str, digits: &str) -> String {
        let mut claims = self.claims(test, "confirm_pairing", pairing);
        claims["digits"] = digits.into();
        self.sign(&claims)
    }

    fn decline(&self, test: &TestBroker, pairing: &str) -> String {
        self.sign(&self.claims(test, "decline_pairing", pairing))
    }
}

impl TestBroker {
    async fn add_key(&self, name: &str, key: &DeviceKey) -> Result<(), String> {
        let jwk = key.jwk().to_string();
        let added = self.broker.add_operator_key(&SHELL(), name, "console", &jwk).await;
        added.map(drop).map_err(|error| error.to_string())
    }

    /// A person with this role everywhere and a P-256 key.
    async fn console(&self, name: &'static str, role: Role) -> Console {
        self.broker.add_operator(&SHELL(), name, role).await.unwrap();
        let key = DeviceKey::generate_es256().unwrap();
        self.add_key(name, &key).await.unwrap();
        Console { key, name }
    }

    /// What a command is answered; `None`: nothing.
    async fn command(&self, text: &str) -> Option<Value> {
        let (_, answer) = self.broker.operator_command(text, Some(PEER)).await?;
        let answer = jose::check(&answer, &self.broker.jwks()["keys"][0]).unwrap();
        assert_eq!(answer.header["typ"], "command-result+jwt");
        assert!(answer.header.get("jwk").is_none() && answer.header["kid"].is_string());
        assert_eq!((&answer.claims["iss"], answer.claims["iat"].is_i64()), (&json!(self.issuer), true));
        Some(answer.claims)
    }

    /// A person at the pages, as a caller of use cases.
    async fn at_pages(&self, name: &str) -> Caller {
        let people = self.broker.operators().await.unwrap();
        let person = people.into_iter().find(|person| person.name == name).unwrap();
        Caller {
            actor: Actor::Operator(person.name),
            rights: person.rights,
            operator: Some(person.id),
            proved_at: Some(self.clock.now()),
            ..Caller::command_line()
        }
    }
}

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

#[tokio::test]
async fn a_signed_command_confirms_a_pairing_as_the_person_whose_key_it_is() {
    let test = TestBroker::start().await;
    test.broker.add_operator(&SHELL(), "dana", Role::Technician).await.unwrap();
    let keys = [DeviceKey::generate_es256, DeviceKey::generate_ed25519, DeviceKey::generate_rs256];
    for (index, key) in keys.map(|generate| generate().unwrap()).into_iter().enumerate() {
        test.add_key("dana", &key).await.unwrap();
        let dana = Console { key, name: "dana" };
        let mut device = expected(&test, &format!("printer-{index}")).await;
        let (shown, digits) = waiting(&test, &mut device).await;
        let mut claims = dana.claims(&test, "confirm_pairing", &shown.pairing_id);
        claims["digits"] = format!("{} {}", &digits[..3], &digits[3..]).into();
        let result = test.command(&dana.sign(&claims)).await.expect("a result");
        assert_eq!(
            (&result["aud"], &result["jti"], &result["result"]),
            (&json!("dana"), &claims["jti"], &json!("done"))
        );
        assert_eq!(result["device"], device.id);
        let message = format!("paired. From now on only key {} is {}", device.key.short(), device.id);
        assert_eq!(result["message"], message);
        assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
        let records = test.records().await;
        let confirmed = records.iter().rfind(|record| record.event == "pairing.confirmed").unwrap();
        assert_eq!((confirmed.actor.as_str(), confirmed.peer.as_deref()), ("operator:dana", Some("192.0.2.7")));
        assert_eq!(confirmed.device.as_deref(), Some(device.id.as_str()));
    }
    let used = test.broker.operator_keys(&SHELL(), "dana").await.unwrap();
    assert!(used.iter().all(|key| key.used_at == Some(test.clock.now())));
    assert_eq!(test.count("operator.command_refused").await, 0);

    let dana = test.console("sam", Role::Technician).await;
    let mut device = expected(&test, LOBBY).await;
    let (shown, _) = waiting(&test, &mut device).await;
    let result = test.command(&dana.decline(&test, &shown.pairing_id)).await.unwrap();
    assert_eq!((&result["result"], &result["device"]), (&json!("done"), &json!(LOBBY)));
    assert_eq!(test.count("pairing.declined").await, 1);
    assert!(device.poll_pairing().await.is_err());
}

/// One mutation a row: of the header, of the claims.
type Spoil = fn(&mut Value, &mut Value);

const SPOILED: [(&str, Spoil); 29] = [
    ("typ of a connection", |header, _| header["typ"] = "mqtt+jwt".into()),
    ("typ of a result", |header, _| header["typ"] = "command-result+jwt".into()),
    ("no typ", |header, _| header["typ"] = Value::Null),
    ("alg none", |header, _| header["alg"] = "none".into()),
    ("alg of another key", |header, _| header["alg"] = "EdDSA".into()),
    ("alg HS256", |header, _| header["alg"] = "HS256".into()),
    ("no kid", |header, _| header["kid"] = Value::Null),
    ("kid that is no thumbprint", |header, _| header["kid"] = "dana".into()),
    ("kid of nobody", |header, _| header["kid"] = b64u(&sha256(&[b"nobody"])).into()),
    ("a key in the header", |header, _| header["jwk"] = json!({"kty": "EC"})),
    ("an address of a key", |header, _| header["jku"] = "https://attacker.example/".into()),
    ("critical extensions", |header, _| header["crit"] = json!(["exp"])),
    ("another person's name", |_, claims| claims["iss"] = "emil".into()),
    ("the name in capitals", |_, claims| claims["iss"] = "Dana".into()),
    ("aud of another issuer", |_, claims| claims["aud"] = "https://other.example".into()),
    ("aud with a slash", |_, claims| claims["aud"] = format!("{}/", claims["aud"].as_str().unwrap()).into()),
    ("two audiences", |_, claims| claims["aud"] = json!([claims["aud"], "https://other.example"])),
    ("short jti", |_, claims| claims["jti"] = "x".repeat(15).into()),
    ("long jti", |_, claims| claims["jti"] = "x".repeat(65).into()),
    ("no jti", |_, claims| claims["jti"] = Value::Null),
    ("no exp", |_, claims| claims["exp"] = Value::Null),
    ("no iat", |_, claims| claims["iat"] = Value::Null),
    ("lives too long", |_, claims| claims["exp"] = (claims["iat"].as_i64().unwrap() + 121).into()),
    ("ends before it begins", |_, claims| claims["exp"] = claims["iat"].clone()),
    ("times that are none", |_, claims| claims["exp"] = json!(1e300)),
    ("expired", |_, claims| moved(claims, -180)),
    ("from the future", |_, claims| moved(claims, 61)),
    ("no command", |_, claims| claims["command"] = Value::Null),
    ("no pairing", |_, claims| claims["pairing_id"] = Value::Null),
];

fn moved(claims: &mut Value, seconds: i64) {
    for name in ["iat", "exp"] {
        claims[name] = (claims[name].as_i64().unwrap() + seconds).into();
    }
}

#[tokio::test]
async fn commands_that_nobody_signed_for_us_and_now_get_nothing_but_a_record_a_021() {
    let test = TestBroker::start().await;
    let (dana, emil) = (test.console("dana", Role::Admin).await, test.console("emil", Role::Admin).await);
    let mut device = expected(&test, LOBBY).await;
    let (shown, digits) = waiting(&test, &mut device).await;
    let mut rows: Vec<(String, String)> = Vec::new();
    let honest = |console: &Console| {
        let mut claims = console.claims(&test, "confirm_pairing", &shown.pairing_id);
        claims["digits"] = digits.clone().into();
        (console.header(), claims)
    };
    for (what, spoil) in SPOILED {
        let (mut header, mut claims) = honest(&dana);
        spoil(&mut header, &mut claims);
        rows.push((what.into(), dana.key.sign_raw(&header, &claims).unwrap()));
    }
    let (header, claims) = honest(&dana);
    rows.push(("another's signature".into(), emil.key.sign_raw(&header, &claims).unwrap()));
    rows.push(("another's name, by his own key".into(), emil.key.sign_raw(&emil.header(), &claims).unwrap()));
    let jwt = dana.key.sign_raw(&header, &claims).unwrap();
    let parts: Vec<&str> = jwt.split('.').collect();
    let mut other = claims.clone();
    other["digits"] = "000000".into();
    rows.push(("other claims".into(), format!("{}.{}.{}", parts[0], b64u(other.to_string().as_bytes()), parts[2])));
    for (what, text) in [
        ("nothing", String::new()),
        ("words", "confirm it please".into()),
        ("cut off", jwt[..jwt.len() - 4].into()),
        ("without a signature", format!("{}.{}.", parts[0], parts[1])),
        ("too long", format!("{jwt}{}", "A".repeat(4096))),
        ("claims as an array", format!("{}.{}.{}", parts[0], b64u(b"[\"dana\"]"), parts[2])),
    ] {
        rows.push((what.into(), text));
    }
    let mut details = Vec::new();
    for (index, (what, text)) in rows.iter().enumerate() {
        let peer = Some(IpAddr::V4(Ipv4Addr::new(198, 51, 100, u8::try_from(index).unwrap())));
        let mark = test.mark().await;
        assert!(test.broker.operator_command(text, peer).await.is_none(), "{what}");
        let records = test.untouched(&mark, &["operator.command_refused"], what).await;
        assert_eq!((records[0].severity.as_str(), records[0].actor.as_str()), ("alert", "anonymous"), "{what}");
        assert_eq!(records[0].peer.as_deref(), peer.map(|peer| peer.to_string()).as_deref(), "{what}");
        assert!(!records[0].detail.contains(&digits), "{what}");
        details.push(records[0].detail.clone());
    }
    let short = dana.key.short();
    for expected in [
        format!("its iss is not the person whose key signed it; dana's key {short}"),
        format!("its signature does not fit; dana's key {short}"),
        format!("its exp is not 1 to 120 seconds after its iat; dana's key {short}"),
        format!("it has expired; dana's key {short}"),
        "its typ is that of something else".into(),
    ] {
        assert!(details.contains(&expected), "{expected}: {details:#?}");
    }
    assert_eq!(test.command(&jwt).await.unwrap()["result"], "done", "and the honest one is done");
}

#[tokio::test]
async fn a_flood_of_commands_is_counted_not_recorded_a_091() {
    let test = TestBroker::start().await;
    for _ in 0..100 {
        assert!(test.command("x").await.is_none());
    }
    assert_eq!(test.count("operator.command_refused").await, 20);
}

#[tokio::test]
async fn clocks_may_be_a_minute_apart_and_times_may_have_fractions() {
    let test = TestBroker::start().await;
    let dana = test.console("dana", Role::Admin).await;
    for seconds in [-179, -120, 0, 60] {
        let mut claims = dana.claims(&test, "decline_pairing", NO_PAIRING);
        moved(&mut claims, seconds);
        let result = test.command(&dana.sign(&claims)).await;
        assert_eq!(result.expect("a result")["result"], "refused", "{seconds}: there is no such pairing");
    }
    let mut claims = dana.claims(&test, "decline_pairing", NO_PAIRING);
    claims["iat"] = json!(claims["iat"].as_i64().unwrap() as f64 + 0.5);
    assert!(test.command(&dana.sign(&claims)).await.is_some());
}

#[tokio::test]
async fn a_command_counts_once_also_at_once_and_after_a_restart_a_021() {
    let test = TestBroker::start().await;
    let dana = test.console("dana", Role::Technician).await;
    let mut device = expected(&test, LOBBY).await;
    let (shown, _) = waiting(&test, &mut device).await;
    let wrong = dana.confirm(&test, &shown.pairing_id, "000000");
    let answers = futures_of(&test, &wrong).await;
    assert_eq!(answers.iter().flatten().count(), 1, "of many at once one is answered: {answers:?}");
    assert_eq!(test.count("pairing.wrong_digits").await, 1, "and one is done");
    let test = test.restart().await;
    assert!(test.command(&wrong).await.is_none(), "also after a restart");
    test.advance(179);
    assert!(test.command(&wrong).await.is_none(), "and until it has expired for every clock");
    test.advance(3600);
    assert!(test.command(&wrong).await.is_none());
    assert_eq!(test.count("pairing.wrong_digits").await, 1);
    let details: Vec<String> = test
        .records()
        .await
        .into_iter()
        .filter(|record| record.event == "operator.command_refused")
        .map(|record| record.detail)
        .collect();
    assert_eq!(details[0], format!("it was used before; dana's key {}", dana.key.short()));
    // The same jti by another key is another command.
    let sam = test.console("sam", Role::Technician).await;
    let claims = dana.claims(&test, "decline_pairing", NO_PAIRING);
    let mut same = claims.clone();
    same["iss"] = "sam".into();
    assert!(test.command(&dana.sign(&claims)).await.is_some());
    assert!(test.command(&sam.sign(&same)).await.is_some());
}

async fn futures_of(test: &TestBroker, text: &str) -> Vec<Option<String>> {
    let mut rivals = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (broker, text) = (Arc::clone(&test.broker), text.to_owned());
        rivals.spawn(async move { broker.operator_command(&text, None).await.map(|(_, result)| result) });
    }
    rivals.join_all().await
}

#[tokio::test]
async fn keys_are_worth_nothing_without_their_person_a_047() {
    let test = TestBroker::start().await;
    test.broker.add_operator(&SHELL(), "root", Role::Admin).await.unwrap();
    let dana = test.console("dana", Role::Admin).await;
    let jkt = *dana.key.thumbprint();
    let is_taken = async || test.command(&dana.decline(&test, NO_PAIRING)).await.is_some();
    assert!(is_taken().await);
    assert_eq!(test.broker.operator_by_key(&jkt).await.unwrap().map(|dana| dana.name).as_deref(), Some("dana"));
    test.broker.disable_operator(&SHELL(), "dana").await.unwrap();
    assert!(!is_taken().await, "disabled");
    assert!(test.broker.operator_by_key(&jkt).await.unwrap().is_none());
    assert_eq!(test.add_key("dana", &DeviceKey::generate_es256().unwrap()).await.unwrap_err(), "dana is disabled");
    test.broker.enable_operator(&SHELL(), "dana").await.unwrap();
    assert!(is_taken().await);
    let rows = [("root", dana.key.jkt()), ("dana", "x".into()), ("dana", String::new())];
    for (name, key) in rows {
        let refused = test.broker.revoke_operator_key(&SHELL(), name, &key).await.unwrap_err();
        assert!(refused.to_string().contains("none of this person's"), "{refused}");
    }
    test.broker.revoke_operator_key(&SHELL(), "dana", &dana.key.jkt()).await.unwrap();
    assert!(!is_taken().await, "revoked");
    assert!(test.add_key("dana", &dana.key).await.unwrap_err().contains("is or was registered"), "for ever");
    assert!(test.add_key("root", &dana.key).await.unwrap_err().contains("is or was registered"));

    let again = DeviceKey::generate_es256().unwrap();
    test.add_key("dana", &again).await.unwrap();
    let dana = Console { key: again, ..dana };
    assert!(test.command(&dana.decline(&test, NO_PAIRING)).await.is_some());
    test.broker.remove_passkeys(&SHELL(), "dana").await.unwrap();
    assert!(test.command(&dana.decline(&test, NO_PAIRING)).await.is_none(), "gone with the passkeys");
    assert_eq!(test.count("operator.key_revoked").await, 2);
}

#[tokio::test]
async fn a_command_may_what_its_person_may_where_it_may_a_080() {
    let test = TestBroker::start().await;
    test.broker.add_site(&SHELL(), Site::plain("paris", "Paris")).await.unwrap();
    let emil = test.console("emil", Role::Viewer).await;
    let mut device = expected(&test, LOBBY).await;
    let (shown, digits) = waiting(&test, &mut device).await;
    let none = test.command(&emil.confirm(&test, NO_PAIRING, &digits)).await.unwrap();
    let viewer = test.command(&emil.confirm(&test, &shown.pairing_id, &digits)).await.unwrap();
    assert_eq!(viewer["message"], "your role does not allow this; ask an administrator");
    test.broker.set_role(&SHELL(), "emil", "*", None).await.unwrap();
    test.broker.set_role(&SHELL(), "emil", "paris", Some(Role::Technician)).await.unwrap();
    for text in [emil.confirm(&test, &shown.pairing_id, &digits), emil.decline(&test, &shown.pairing_id)] {
        let result = test.command(&text).await.unwrap();
        assert_eq!(result["result"], "refused");
        assert_eq!(result["message"], "this pairing is over, or never was. Start it again on the device");
        assert!(result.get("device").is_none(), "nothing of another site: {result}");
    }
    assert_eq!(none["message"], viewer["message"], "nor did a viewer learn whether there is one");
    let wrongs = test.count("pairing.wrong_digits").await + test.count("pairing.declined").await;
    assert_eq!(wrongs, 0, "and nothing was done");
    test.broker.set_role(&SHELL(), "emil", "default", Some(Role::Technician)).await.unwrap();
    let result = test.command(&emil.confirm(&test, &shown.pairing_id, &digits)).await.unwrap();
    assert_eq!(result["result"], "done", "{result}");
}

#[tokio::test]
async fn wrong_digits_are_counted_as_on_the_page_and_the_third_ends_the_pairing() {
    let test = TestBroker::start().await;
    let dana = test.console("dana", Role::Technician).await;
    let mut device = expected(&test, LOBBY).await;
    let (shown, digits) = waiting(&test, &mut device).await;
    let wrong = if digits == "000000" { "000001" } else { "000000" };
    let none = dana.sign(&dana.claims(&test, "confirm_pairing", &shown.pairing_id));
    let unknown = dana.sign(&dana.claims(&test, "approve_sign_in", &shown.pairing_id));
    for (text, message) in [
        (none, "confirm_pairing needs digits: the six that the device shows"),
        (unknown, "there is no such command; there are confirm_pairing and decline_pairing"),
        (
            dana.confirm(&test, &shown.pairing_id, wrong),
            "these are not the digits that the device shows. Tries left: 2",
        ),
        (dana.confirm(&test, &shown.pairing_id, ""), "these are not the digits that the device shows. Tries left: 1"),
        (
            dana.confirm(&test, &shown.pairing_id, wrong),
            "these are not the digits that the device shows. The pairing has ended; start it again on the device",
        ),
    ] {
        let result = test.command(&text).await.expect("a result");
        let expected = (&json!("refused"), &json!(message), &json!(LOBBY));
        assert_eq!((&result["result"], &result["message"], &result["device"]), expected);
    }
    let result = test.command(&dana.confirm(&test, &shown.pairing_id, &digits)).await.unwrap();
    assert_eq!((&result["result"], result.get("device")), (&json!("refused"), None), "too late: {result}");
    let records = test.records().await;
    let wrongs: Vec<_> = records.iter().filter(|record| record.event == "pairing.wrong_digits").collect();
    assert_eq!(wrongs.len(), 3);
    assert!(wrongs.iter().all(|record| record.actor == "operator:dana"));
    assert_eq!(test.count("operator.command_refused").await, 0, "these are ordinary answers");
}

#[tokio::test]
async fn people_add_their_own_keys_and_programs_none_a_085() {
    let test = TestBroker::with_api().await;
    let token = test.token("robot", "*", Role::Admin).await;
    let robot = test.broker.program(&token, None).await.unwrap().unwrap();
    for name in ["root", "emil"] {
        test.broker.add_operator(&SHELL(), name, Role::Admin).await.unwrap();
    }
    test.broker.add_person_at(&SHELL(), "bea", "berlin", Role::Admin).await.unwrap();
    let (root, emil, bea) = (test.at_pages("root").await, test.at_pages("emil").await, test.at_pages("bea").await);
    let key = DeviceKey::generate_es256().unwrap();
    let (jwk, jkt) = (key.jwk().to_string(), key.jkt());
    let add = async |caller: &Caller, name: &str| test.broker.add_operator_key(caller, name, "console", &jwk).await;
    for name in ["root", "nobody"] {
        assert!(matches!(add(&robot, name).await, Err(UseCaseError::OnlyPeople)));
        let others = add(&emil, name).await.unwrap_err().to_string();
        assert!(others.starts_with("people add their own keys"), "not even an administrator: {others}");
    }
    assert!(matches!(add(&SHELL(), "nobody").await, Err(UseCaseError::NotFound(_))));
    let stale = Caller { proved_at: Some(test.clock.now().minus(std::time::Duration::from_secs(301))), ..root.clone() };
    assert!(matches!(add(&stale, "root").await, Err(UseCaseError::NotFresh)), "a session left open (A-081)");
    assert_eq!(test.count("operator.key_added").await, 0);
    add(&root, "root").await.unwrap();

    let robots = test.broker.operator_keys(&robot, "root").await;
    assert!(matches!(robots, Err(UseCaseError::OnlyPeople)));
    assert!(matches!(test.broker.operator_keys(&bea, "root").await, Err(UseCaseError::NotAllowed)), "of one site");
    assert!(matches!(test.broker.operator_keys(&bea, "nobody").await, Err(UseCaseError::NotAllowed)));
    assert_eq!(test.broker.operator_keys(&bea, "bea").await.unwrap(), []);
    assert_eq!(test.broker.operator_keys(&emil, "root").await.unwrap().len(), 1);
    let remove = async |caller: &Caller| test.broker.revoke_operator_key(caller, "root", &jkt).await;
    assert!(matches!(remove(&robot).await, Err(UseCaseError::OnlyPeople)));
    assert!(matches!(remove(&bea).await, Err(UseCaseError::NotAllowed)));
    assert!(matches!(remove(&stale).await, Err(UseCaseError::NotFresh)));
    remove(&emil).await.unwrap();

    for (name, text, why) in [
        ("", jwk.as_str(), "give the key a name"),
        (&"x".repeat(41), &jwk, "longer than 40"),
        ("console", "", "this is no public key"),
        ("console", r#"{"kty":"EC","crv":"P-384"}"#, "this is no public key"),
        ("console", r#"{"kty":"OKP","crv":"Ed25519","d":"AAAA"}"#, "this is a private key"),
        ("console", "-----BEGIN PRIVATE KEY-----", "this is a private key"),
    ] {
        let refused = test.broker.add_operator_key(&emil, "emil", name, text).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

/// The real program beside this broker, on its database.
fn pairgate(test: &TestBroker, words: &[&str]) -> std::process::Output {
    let mut command = child::pairgate(test.data.path(), words);
    command.env("PAIRGATE_MASTER_KEY", b64u(&[7; 32])).output().unwrap()
}

fn done(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

async fn of_today() -> TestBroker {
    let data = Arc::new(tempfile::tempdir().unwrap());
    TestBroker::on(data, SocketAddr::from(([127, 0, 0, 1], 0)), Clock::system(), Setup::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_commands_by_the_command_line() {
    use std::os::unix::fs::PermissionsExt as _;
    let test = of_today().await;
    test.broker.add_operator(&SHELL(), "dana", Role::Technician).await.unwrap();
    let path = |name: &str| test.data.path().join(name).to_str().unwrap().to_owned();
    let (key, public) = (path("console.pem"), path("console.jwk"));
    let made = done(&pairgate(&test, &["operator", "key", "new", &key]));
    let jwk = made.lines().next().unwrap();
    assert!(jwk.starts_with('{') && made.contains("pairgate operator key add NAME"), "{made}");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&key).unwrap();
    assert!(!pairgate(&test, &["operator", "key", "new", &key]).status.success(), "never over another");
    assert_eq!(std::fs::read(&key).unwrap(), before);
    std::fs::write(&public, jwk).unwrap();

    let refused = pairgate(&test, &["operator", "key", "add", "dana", "--file", &key]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("this is a private key"));
    assert!(done(&pairgate(&test, &["operator", "key", "list", "dana"])).contains("no keys"));
    let added = done(&pairgate(&test, &["operator", "key", "add", "dana", "--file", &public, "--name", "laptop"]));
    assert!(added.starts_with("dana can sign commands"), "{added}");
    let listed = done(&pairgate(&test, &["operator", "key", "list", "dana", "--json"]));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&listed[0]["name"], &listed[0]["added_by"]), (&json!("laptop"), &json!("command-line")));
    assert_eq!(listed[0]["jwk"], serde_json::from_str::<Value>(jwk).unwrap());
    let kid = listed[0]["key"].as_str().unwrap();

    let mut device = expected(&test, LOBBY).await;
    let (shown, digits) = waiting(&test, &mut device).await;
    let by = ["--key", &key, "--operator", "dana", "--pairing", &shown.pairing_id];
    let confirm = ["operator", "sign", "confirm", "--digits", &digits];
    let lost = pairgate(&test, &[&confirm[..], &by].concat());
    assert!(String::from_utf8_lossy(&lost.stderr).contains("--issuer"), "which Pairgate is not guessed");
    let signed = done(&pairgate(&test, &[&confirm[..], &by, &["--issuer", &format!("{}/", test.issuer)]].concat()));
    assert_eq!(signed.lines().count(), 1, "nothing else: {signed}");
    let result = test.command(signed.trim_end()).await.expect("a result");
    assert_eq!(result["result"], "done", "{result}");
    let declined = [&["operator", "sign", "decline", "--json"], &by[..], &["--issuer", &test.issuer]].concat();
    // A command of this machine, also where another machine's broker is the one that is administered.
    let declined = done(&pairgate(&test, &[&declined[..], &["--server", "https://127.0.0.1:1"]].concat()));
    let declined: Value = serde_json::from_str(&declined).unwrap();
    assert_eq!(test.command(declined["command"].as_str().unwrap()).await.unwrap()["result"], "refused");

    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = pairgate(&test, &[&confirm[..], &by, &["--issuer", &test.issuer]].concat());
    assert!(String::from_utf8_lossy(&open.stderr).contains("chmod 600"));
    done(&pairgate(&test, &["operator", "key", "remove", "dana", kid]));
    assert!(!pairgate(&test, &["operator", "key", "remove", "dana", kid]).status.success());
    assert_eq!(test.count("operator.key_revoked").await, 1);
}

/// The recipe of docs/operating.md, as it stands there.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_signed_by_shell_as_the_document_says() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let document = std::fs::read_to_string(document).unwrap();
    let mut blocks = document.split("```").filter(|block| block.starts_with("sh\n") && block.contains("openssl"));
    let (make, sign) = (blocks.next().unwrap(), blocks.next().unwrap());
    let test = of_today().await;
    test.broker.add_operator(&SHELL(), "dana", Role::Technician).await.unwrap();
    let shell = |script: &str, pairing: &str, digits: &str| {
        let mut command = Command::new("sh");
        let script = format!("set -eu\n{}", script.strip_prefix("sh\n").unwrap());
        command.arg("-c").arg(script).current_dir(test.data.path());
        command.env("ISSUER", &test.issuer).env("OPERATOR", "dana").env("PAIRING", pairing).env("DIGITS", digits);
        done(&command.output().unwrap())
    };
    shell(make, "", "");
    let pem = std::fs::read_to_string(test.data.path().join("operator.pub")).unwrap();
    test.broker.add_operator_key(&SHELL(), "dana", "by hand", &pem).await.unwrap();
    let mut device = expected(&test, LOBBY).await;
    let (shown, digits) = waiting(&test, &mut device).await;
    // r and s are short once in 128 times: as often as that takes.
    for _ in 0..20 {
        let signed = shell(sign, NO_PAIRING, &digits);
        assert_eq!(test.command(signed.trim_end()).await.expect("a good signature")["result"], "refused");
    }
    let signed = shell(sign, &shown.pairing_id, &digits);
    assert_eq!(test.command(signed.trim_end()).await.expect("a result")["result"], "done");
}

#[tokio::test]
async fn keys_on_ones_own_page_and_on_that_of_administrators() {
    let test = TestBroker::start().await;
    let (dana, emil) = (test.visitor("dana", Role::Admin).await, test.visitor("emil", Role::Viewer).await);
    let key = DeviceKey::generate_es256().unwrap();
    let jwk = key.jwk().to_string();
    let add = [("action", "add_key"), ("key_name", "console"), ("public_key", jwk.as_str())];
    assert_eq!(emil.post("/account", &add).await.header("location"), Some("/account"));
    let page = emil.get("/account").await.body;
    assert!(page.contains("console") && page.contains(&key.short()) && !page.contains("\"crv\""), "{page}");
    let again = emil.post("/account", &add).await;
    assert_eq!(again.status, 422);
    assert!(said(&again).contains("is or was registered already"), "{}", said(&again));
    assert!(
        again.body.contains("value=\"console\"") && !again.body.contains("crv"),
        "the name stays, no key comes back"
    );
    let private = [("action", "add_key"), ("key_name", "x"), ("public_key", "-----BEGIN PRIVATE KEY-----")];
    assert!(said(&emil.post("/account", &private).await).contains("This is a private key"));

    let page = dana.get("/operators/emil").await.body;
    assert!(page.contains("console") && page.contains(&key.short()), "{page}");
    assert_eq!(hidden(&page, "key"), key.jkt());
    assert_eq!(dana.post("/operators/emil", &add).await.status, 422, "an administrator adds none");
    let remove = [("action", "remove_key"), ("key", &key.jkt())];
    assert!(said(&dana.post("/account", &remove).await).contains("none of this person's"), "not from one's own page");
    test.advance(301);
    assert!(emil.post("/account", &remove).await.header("location").unwrap().starts_with("/sign-in/again"));
    let dana = test.another_session("dana").await;
    assert_eq!(dana.post("/operators/emil", &remove).await.header("location"), Some("/operators/emil"));
    assert!(!dana.get("/operators/emil").await.body.contains(&key.short()));
    let records = test.records().await;
    let events: Vec<_> = records.iter().filter(|record| record.event.starts_with("operator.key_")).collect();
    assert_eq!(
        events.iter().map(|record| record.actor.as_str()).collect::<Vec<_>>(),
        ["operator:emil", "operator:dana"]
    );
}

async fn keys_by_clicking(look: Look) {
    let test = TestBroker::start().await;
    test.broker.add_operator(&SHELL(), "dana", Role::Admin).await.unwrap();
    let key = DeviceKey::generate_es256().unwrap();
    browse(look, move |browser| async move {
        browser.open(&format!("{}{}", test.issuer, test.link("dana").await)).await;
        browser.click("main button").await;
        browser.see_heading("Overview").await;
        browser.open(&format!("{}/account", test.issuer)).await;
        browser.see_heading("Your account").await;
        browser.click("#keys summary").await;
        browser.type_into("#key-name", "control room").await;
        browser.type_into("#public-key", "-----BEGIN PRIVATE KEY-----").await;
        browser.inspect("account-key-add", &[]).await;
        browser.click("button[value=add_key]").await;
        browser.see("[role=alert]").await;
        browser.inspect("account-key-refused", &["status of 422"]).await;
        browser.type_into("#public-key", &key.jwk().to_string()).await;
        browser.click("button[value=add_key]").await;
        browser.see("button[value=remove_key]").await;
        browser.inspect("account-keys", &[]).await;
        browser.assert_keyboard_reaches_everything("account-keys").await;
        browser.open(&format!("{}/operators/dana", test.issuer)).await;
        browser.see_heading("dana").await;
        browser.inspect("operator-keys", &[]).await;
        browser.click("button[value=remove_key]").await;
        browser.see("body:not(:has(#keys))").await;
        assert_eq!(test.count("operator.key_revoked").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_key_is_added_and_removed_on_a_phone() {
    keys_by_clicking(Look::PHONE).await;
}

#[tokio::test]
async fn a_key_is_added_and_removed_at_a_desk_in_the_dark() {
    keys_by_clicking(Look::DESK.dark()).await;
}
