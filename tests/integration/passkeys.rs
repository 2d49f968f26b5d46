//! Passkeys, request by request, with an authenticator that does as it is told.

use pairgate::broker::Caller;
use pairgate::model::operator::Role;
use pairgate::secret::b64u;
use pairgate::simulator::RawAnswer;
use serde_json::{Value, json};

use crate::support::TestBroker;
use crate::support::authenticator::{Authenticator, PRESENT, Says, VERIFIED, turned};
use crate::support::visitor::{FORM, SAME_ORIGIN, Visitor, said};

async fn ask(visitor: &Visitor, path: &str, body: &Value) -> RawAnswer {
    visitor.send(path, &body.to_string(), "application/json", &[SAME_ORIGIN]).await
}

fn set_cookie(answer: &RawAnswer, name: &str) -> Option<String> {
    let set = answer.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
    set.filter_map(|line| line.split(';').next()).find(|pair| pair.starts_with(&format!("{name}="))).map(str::to_owned)
}

fn told(answer: &RawAnswer) -> String {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("no JSON: {}", answer.body));
    body["error"].as_str().unwrap_or_else(|| panic!("no error: {body}")).to_owned()
}

/// The same visitor in the middle of a ceremony, and the options of it.
async fn begin(visitor: &Visitor, path: &str, body: &Value) -> (Visitor, Value) {
    let answer = ask(visitor, &format!("{path}/begin"), body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let ceremony = set_cookie(&answer, "__Host-ceremony").unwrap();
    let cookie = if visitor.cookie.is_empty() { ceremony } else { format!("{}; {ceremony}", visitor.cookie) };
    (Visitor { cookie, ..visitor.clone() }, serde_json::from_str(&answer.body).unwrap())
}

const ACCOUNT: &str = "/account/passkeys";
const SIGN_IN: &str = "/sign-in/passkey";

async fn add_as(visitor: &Visitor, key: &mut Authenticator, change: impl FnOnce(&mut Says)) -> RawAnswer {
    let csrf = visitor.csrf().await;
    let (within, options) = begin(visitor, ACCOUNT, &json!({"csrf": csrf, "name": "blue Pixel"})).await;
    let mut says = key.honest(&visitor.issuer, &options);
    change(&mut says);
    let credential = key.create(&says);
    ask(&within, &format!("{ACCOUNT}/finish"), &json!({"csrf": csrf, "credential": credential})).await
}

/// A person with a passkey.
async fn with_passkey(test: &TestBroker, name: &str) -> (Visitor, Authenticator) {
    let visitor = test.visitor(name, Role::Admin).await;
    let mut key = Authenticator::new();
    let answer = add_as(&visitor, &mut key, |_| {}).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"to":"/account"}"#));
    (visitor, key)
}

/// Signs in by passkey; what came back.
async fn use_as(visitor: &Visitor, key: &Authenticator, change: impl FnOnce(&mut Says)) -> RawAnswer {
    let (within, options) = begin(visitor, SIGN_IN, &json!({})).await;
    let mut says = key.honest(&visitor.issuer, &options);
    change(&mut says);
    ask(&within, &format!("{SIGN_IN}/finish"), &json!({"credential": key.get(&says)})).await
}

/// The visitor with the session that this answer opened.
fn signed_in(visitor: &Visitor, answer: &RawAnswer) -> Visitor {
    assert_eq!(answer.status, 200, "{}", answer.body);
    Visitor { cookie: set_cookie(answer, "__Host-pairgate").expect("a session"), ..visitor.clone() }
}

/// What a row of a table changes of an honest answer.
type Twist = Box<dyn Fn(&mut Says)>;
/// The same, where it needs nothing from around it.
type PlainTwist = fn(&mut Says);

#[tokio::test]
async fn a_passkey_is_added_and_signs_in_without_a_name() {
    let test = TestBroker::at_localhost().await;
    let (dana, key) = with_passkey(&test, "dana").await;
    assert!(dana.get("/account").await.body.contains("blue Pixel"));
    let stranger = test.passer_by();
    let (_, options) = begin(&stranger, SIGN_IN, &json!({})).await;
    assert_eq!(options["publicKey"]["userVerification"], "required");
    assert_eq!(options["publicKey"]["allowCredentials"], json!([]), "no name, no list");
    assert_eq!(options["publicKey"]["rpId"], "localhost");
    assert_eq!(options.get("mediation"), None);
    let answer = use_as(&stranger, &key, |_| {}).await;
    let again = signed_in(&stranger, &answer);
    assert_eq!(answer.body, r#"{"to":"/"}"#);
    assert!(again.get("/account").await.body.contains("with a passkey"));
    let emil = test.visitor("emil", Role::Viewer).await;
    assert!(!emil.get("/account").await.body.contains("blue Pixel"), "nobody else's");
    assert_eq!((test.count("passkey.added").await, test.count("operator.signed_in").await), (1, 3));
}

#[tokio::test]
async fn the_options_ask_for_what_signing_in_without_a_name_needs() {
    let test = TestBroker::at_localhost().await;
    let (dana, key) = with_passkey(&test, "dana").await;
    let csrf = dana.csrf().await;
    let (_, options) = begin(&dana, ACCOUNT, &json!({"csrf": csrf, "name": "another"})).await;
    let options = &options["publicKey"];
    assert_eq!(options["authenticatorSelection"]["residentKey"], "required");
    assert_eq!(options["authenticatorSelection"]["requireResidentKey"], true);
    assert_eq!(options["authenticatorSelection"]["userVerification"], "required");
    assert_eq!(options["excludeCredentials"][0]["id"], b64u(&key.credential), "the same authenticator not twice");
    assert_eq!(options["user"]["id"], key.handle, "one person, one handle");
    assert_eq!(options["rp"]["id"], "localhost");
}

#[tokio::test]
async fn an_answer_that_does_not_fit_signs_nobody_in_a_055() {
    let test = TestBroker::at_localhost().await;
    let (dana, key) = with_passkey(&test, "dana").await;
    let (_, other) = with_passkey(&test, "emil").await;
    let stranger = test.passer_by();
    let port = test.issuer.rsplit_once(':').unwrap().1.to_owned();
    let handle = other.handle.clone();
    let rows: Vec<(&str, Twist)> = vec![
        ("a page elsewhere", Box::new(|says| says.origin = "https://localhost.evil.example".into())),
        ("another port of this machine", Box::new(|says| says.origin = "http://localhost:1".into())),
        ("another scheme", Box::new(move |says| says.origin = format!("https://localhost:{port}"))),
        ("a frame in a page elsewhere", Box::new(|says| says.cross_origin = true)),
        ("made for another address", Box::new(|says| says.rp_id = "evil.example".into())),
        ("nobody checked who it is", Box::new(|says| says.flags = PRESENT)),
        ("nobody was there", Box::new(|says| says.flags = VERIFIED)),
        ("another challenge", Box::new(|says| says.challenge = b64u(&[7; 32]))),
        ("a challenge with a bit turned", Box::new(|says| says.challenge = turned(&says.challenge))),
        ("the answer to another question", Box::new(|says| says.kind = "webauthn.create")),
        ("another person's handle", Box::new(move |says| says.handle = Some(handle.clone()))),
        ("no handle", Box::new(|says| says.handle = None)),
    ];
    for (what, change) in rows {
        let answer = use_as(&stranger, &key, change).await;
        assert_eq!(answer.status, 403, "{what}");
        assert_eq!(
            told(&answer),
            "This passkey opens nothing here. Use another one, or ask for a one-time link.",
            "{what}: the same words for each"
        );
        assert_eq!(set_cookie(&answer, "__Host-pairgate"), None, "{what}");
    }
    type Change = Box<dyn Fn(&mut Value)>;
    let turn = |value: &mut Value| *value = json!(turned(value.as_str().unwrap()));
    let rows: Vec<(&str, Change)> = vec![
        ("the signature", Box::new(move |answer| turn(&mut answer["response"]["signature"]))),
        ("what is signed", Box::new(move |answer| turn(&mut answer["response"]["authenticatorData"]))),
        ("the credential", Box::new(move |answer| turn(&mut answer["rawId"]))),
        ("no signature", Box::new(|answer| answer["response"]["signature"] = json!(""))),
        ("no response", Box::new(|answer| answer["response"] = Value::Null)),
        ("nothing", Box::new(|answer| *answer = Value::Null)),
    ];
    for (what, change) in rows {
        let (within, options) = begin(&stranger, SIGN_IN, &json!({})).await;
        let mut credential = key.get(&key.honest(&test.issuer, &options));
        change(&mut credential);
        let answer = ask(&within, &format!("{SIGN_IN}/finish"), &json!({"credential": credential})).await;
        assert_eq!(answer.status, 403, "{what}");
    }
    assert_eq!(dana.get("/account").await.status, 200, "and nothing happened to her");
    signed_in(&stranger, &use_as(&stranger, &key, |_| {}).await);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_not_added_a_055() {
    let test = TestBroker::at_localhost().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let rows: Vec<(&str, PlainTwist)> = vec![
        ("a page elsewhere", |says| says.origin = "https://evil.example".into()),
        ("for another address", |says| says.rp_id = "evil.example".into()),
        ("nobody checked who it is", |says| says.flags = PRESENT),
        ("another challenge", |says| says.challenge = b64u(&[7; 32])),
        ("the answer to another question", |says| says.kind = "webauthn.get"),
        ("not kept on the device", |says| says.resident = false),
    ];
    for (what, change) in rows {
        let answer = add_as(&dana, &mut Authenticator::new(), change).await;
        assert_eq!(answer.status, 403, "{what}");
        assert!(told(&answer).starts_with("This passkey can't be used here"), "{what}: {}", answer.body);
    }
    assert_eq!(test.count("passkey.added").await, 0);
    let csrf = dana.csrf().await;
    for name in ["", "   ", "x\u{202e}y", &"x".repeat(41)] {
        let answer = ask(&dana, &format!("{ACCOUNT}/begin"), &json!({"csrf": csrf, "name": name})).await;
        assert_eq!(answer.status, 403, "{name:?}");
    }
}

#[tokio::test]
async fn a_counter_that_goes_backwards_is_refused_and_raises_an_alert() {
    let test = TestBroker::at_localhost().await;
    let (_, key) = with_passkey(&test, "dana").await;
    let stranger = test.passer_by();
    signed_in(&stranger, &use_as(&stranger, &key, |says| says.counter = 5).await);
    for counter in [5, 4, 0] {
        let answer = use_as(&stranger, &key, |says| says.counter = counter).await;
        assert_eq!(answer.status, 403, "{counter}");
        assert!(!told(&answer).contains("count"), "it does not say what was wrong");
    }
    assert_eq!(test.count("passkey.cloned").await, 3);
    let records = test.records().await;
    let alert = records.iter().find(|record| record.event == "passkey.cloned").unwrap();
    assert_eq!((alert.severity.as_str(), alert.detail.as_str()), ("alert", "passkey 'blue Pixel' of dana"));
    signed_in(&stranger, &use_as(&stranger, &key, |says| says.counter = 6).await);
}

#[tokio::test]
async fn a_ceremony_is_good_once_in_its_browser_its_session_and_its_time() {
    let test = TestBroker::at_localhost().await;
    let (dana, key) = with_passkey(&test, "dana").await;
    let finish = format!("{SIGN_IN}/finish");
    let stranger = test.passer_by();
    // Once.
    let (within, options) = begin(&stranger, SIGN_IN, &json!({})).await;
    let body = json!({"credential": key.get(&key.honest(&test.issuer, &options))});
    assert_eq!(ask(&stranger, &finish, &body).await.status, 403, "a browser that began nothing");
    assert_eq!(ask(&within, &finish, &body).await.status, 200);
    let again = ask(&within, &finish, &body).await;
    assert!(told(&again).starts_with("This took longer than five minutes"), "{}", again.body);
    // A wrong answer spends it as well.
    let (within, options) = begin(&stranger, SIGN_IN, &json!({})).await;
    assert_eq!(ask(&within, &finish, &json!({"credential": {}})).await.status, 403);
    let body = json!({"credential": key.get(&key.honest(&test.issuer, &options))});
    assert_eq!(ask(&within, &finish, &body).await.status, 403);
    // In time.
    let (within, options) = begin(&stranger, SIGN_IN, &json!({})).await;
    test.advance(300);
    let body = json!({"credential": key.get(&key.honest(&test.issuer, &options))});
    assert_eq!(ask(&within, &finish, &body).await.status, 403);
    // By the session that began it, and for what it was begun.
    let (dana, emil) = (test.another_session("dana").await, (dana, test.another_session("dana").await).1);
    let csrf = dana.csrf().await;
    let mut second = Authenticator::new();
    let (within, options) = begin(&dana, ACCOUNT, &json!({"csrf": csrf, "name": "second"})).await;
    let ceremony = within.cookie.split_once("; ").unwrap().1;
    let credential = second.create(&second.honest(&test.issuer, &options));
    let other = Visitor { cookie: format!("{}; {ceremony}", emil.cookie), ..emil.clone() };
    let body = json!({"csrf": emil.csrf().await, "credential": credential});
    let is_over = |answer: &RawAnswer| told(answer).starts_with("This took longer than five minutes");
    assert!(is_over(&ask(&other, &format!("{ACCOUNT}/finish"), &body).await), "another session of hers");
    let (signing_in, _) = begin(&dana, SIGN_IN, &json!({})).await;
    let body = json!({"csrf": csrf, "credential": credential});
    assert!(is_over(&ask(&signing_in, &format!("{ACCOUNT}/finish"), &body).await), "another purpose");
    assert!(is_over(&ask(&within, &finish, &body).await), "the other way round");
    assert_eq!(test.count("passkey.added").await, 1);
    assert_eq!(ask(&within, &format!("{ACCOUNT}/finish"), &body).await.status, 200, "and its own");
}

#[tokio::test]
async fn other_sites_can_not_ask_for_a_ceremony_a_041() {
    let test = TestBroker::at_localhost().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let csrf = dana.csrf().await;
    let good = json!({"csrf": csrf, "name": "blue Pixel"}).to_string();
    let begin = format!("{ACCOUNT}/begin");
    let json = "application/json";
    for (what, body, media, headers) in [
        ("no token", json!({"name": "x"}).to_string(), json, vec![SAME_ORIGIN]),
        ("a wrong token", json!({"csrf": turned(&csrf), "name": "x"}).to_string(), json, vec![SAME_ORIGIN]),
        ("as text", good.clone(), "text/plain", vec![SAME_ORIGIN]),
        ("as a form", good.clone(), FORM, vec![SAME_ORIGIN]),
        ("as nothing", good.clone(), "", vec![SAME_ORIGIN]),
        ("from another site", good.clone(), json, vec![("sec-fetch-site", "cross-site")]),
        ("from another port", good.clone(), json, vec![("sec-fetch-site", "same-site")]),
        ("from another origin", good.clone(), json, vec![("origin", "https://evil.example")]),
        ("from no origin", good.clone(), json, vec![("origin", "null")]),
        ("no JSON", "{".to_owned(), json, vec![SAME_ORIGIN]),
        ("other JSON", "[1]".to_owned(), json, vec![SAME_ORIGIN]),
    ] {
        let answer = dana.send(&begin, &body, media, &headers).await;
        assert_eq!(answer.status, 403, "{what}: {}", answer.body);
        assert_eq!(set_cookie(&answer, "__Host-ceremony"), None, "{what}");
    }
    assert_eq!(dana.send(&begin, &good, json, &[SAME_ORIGIN]).await.status, 200);
    // Of another session of the same person.
    let other = test.another_session("dana").await;
    assert_eq!(other.send(&begin, &good, json, &[SAME_ORIGIN]).await.status, 403);
    assert_eq!(test.passer_by().send(&begin, &good, json, &[SAME_ORIGIN]).await.status, 401);
    // The token of nobody is not needed to sign in, but another site can't make a browser ask.
    for (media, headers) in [("text/plain", SAME_ORIGIN), (json, ("sec-fetch-site", "cross-site"))] {
        for step in ["begin", "finish"] {
            let answer = test.passer_by().send(&format!("{SIGN_IN}/{step}"), "{}", media, &[headers]).await;
            assert_eq!(answer.status, 403);
        }
    }
}

#[tokio::test]
async fn adding_and_removing_needs_a_fresh_sign_in_a_081() {
    let test = TestBroker::at_localhost().await;
    let (dana, key) = with_passkey(&test, "dana").await;
    let row = [("action", "remove_passkey"), ("passkey", &b64u(&key.credential))];
    test.advance(301);
    let body = json!({"csrf": dana.csrf().await, "name": "second"});
    let answer = ask(&dana, &format!("{ACCOUNT}/begin"), &body).await;
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("/sign-in/again?back=/account"), "{}", answer.body);
    let answer = dana.post("/account", &row).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/sign-in/again?back=%2Faccount")));
    let page = dana.get("/sign-in/again?back=%2Faccount").await;
    assert_eq!(said(&page), "Sign in once more");
    assert!(page.body.contains("pairgate operator link dana"));

    // With the passkey: another session id, and the old one is worth nothing.
    let (within, options) = begin(&dana, SIGN_IN, &json!({})).await;
    let credential = key.get(&key.honest(&test.issuer, &options));
    let body = json!({"credential": credential, "back": "/account?x=1"});
    let answer = ask(&within, &format!("{SIGN_IN}/finish"), &body).await;
    assert_eq!(answer.body, r#"{"to":"/account?x=1"}"#);
    let fresh = signed_in(&dana, &answer);
    assert_ne!(fresh.cookie, dana.cookie);
    assert_eq!(dana.get("/account").await.status, 303, "the former id is over");
    assert_eq!(fresh.get("/account").await.body.matches("value=\"end_session\"").count(), 0, "one session");
    let answer = fresh.get("/sign-in/again?back=/devices").await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/devices")), "fresh already");

    assert_eq!(fresh.post("/account", &row).await.header("location"), Some("/account"));
    assert!(said(&fresh.post("/account", &row).await).contains("gone already"));
    assert_eq!(use_as(&test.passer_by(), &key, |_| {}).await.status, 403, "what was removed opens nothing");
    assert_eq!(test.count("passkey.removed").await, 1);
}

#[tokio::test]
async fn signing_in_once_more_leads_nowhere_else() {
    let test = TestBroker::at_localhost().await;
    let (mut dana, key) = with_passkey(&test, "dana").await;
    for bad in ["https://evil.example/", "//evil.example", "/\\evil.example", "/a/../b", "javascript:alert(1)"] {
        let query: String = url::form_urlencoded::byte_serialize(bad.as_bytes()).collect();
        let answer = dana.get(&format!("/sign-in/again?back={query}")).await;
        assert_eq!(answer.header("location"), Some("/"), "{bad}");
        let (within, options) = begin(&dana, SIGN_IN, &json!({})).await;
        let body = json!({"credential": key.get(&key.honest(&test.issuer, &options)), "back": bad});
        let answer = ask(&within, &format!("{SIGN_IN}/finish"), &body).await;
        assert_eq!(answer.body, r#"{"to":"/"}"#, "{bad}");
        dana = signed_in(&dana, &answer);
    }
}

#[tokio::test]
async fn a_one_time_link_refreshes_and_nobody_removes_what_is_anothers() {
    let test = TestBroker::at_localhost().await;
    let (dana, key) = with_passkey(&test, "dana").await;
    let emil = test.visitor("emil", Role::Admin).await;
    let row = [("action", "remove_passkey"), ("passkey", &b64u(&key.credential))];
    assert!(said(&emil.post("/account", &row).await).contains("gone already"));
    test.advance(400);
    let mut again = dana.clone();
    assert_eq!(again.sign_in(&test.link("dana").await).await.status, 303);
    assert_eq!(dana.get("/account").await.status, 303, "the link's session took the place of the former one");
    assert_eq!(again.post("/account", &row).await.header("location"), Some("/account"));
}

#[tokio::test]
async fn a_disabled_person_is_out_at_once_and_stays_out() {
    let test = TestBroker::at_localhost().await;
    let (dana, key) = with_passkey(&test, "dana").await;
    let link = test.link("dana").await;
    let (within, options) = begin(&test.passer_by(), SIGN_IN, &json!({})).await;
    let credential = key.get(&key.honest(&test.issuer, &options));
    assert_eq!(dana.get("/account").await.status, 200);
    test.broker.add_operator(&Caller::command_line(), "root", Role::Admin).await.unwrap();
    test.broker.disable_operator(&Caller::command_line(), "dana").await.unwrap();
    for path in ["/", "/account", "/devices", "/sign-in/again"] {
        assert_eq!(dana.get(path).await.header("location"), Some("/sign-in"), "{path}");
    }
    let answer = ask(&within, &format!("{SIGN_IN}/finish"), &json!({"credential": credential})).await;
    assert_eq!(answer.status, 403, "also in the middle of a sign-in");
    assert_eq!(use_as(&test.passer_by(), &key, |_| {}).await.status, 403);
    assert_eq!(test.passer_by().sign_in(&link).await.status, 403);
}

#[tokio::test]
async fn where_passkeys_can_not_work_pages_say_so_and_what_to_do() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let page = dana.get("/account").await.body;
    assert!(page.contains("Passkeys don&#39;t work at this address") && page.contains("public_url"), "{page}");
    assert!(!page.contains("data-passkey") && !test.passer_by().get("/sign-in").await.body.contains("data-passkey"));
    assert!(!dana.get("/").await.body.contains("Add a passkey"), "nothing is offered that can't be had");
    let answer = ask(&test.passer_by(), &format!("{SIGN_IN}/begin"), &json!({})).await;
    assert_eq!(answer.status, 403);
    assert!(told(&answer).contains("public_url"));
}

#[tokio::test]
async fn whoever_came_by_a_link_is_offered_a_passkey_until_there_is_one() {
    let test = TestBroker::at_localhost().await;
    let dana = test.visitor("dana", Role::Admin).await;
    assert!(dana.get("/").await.body.contains("/account#passkeys"));
    let mut key = Authenticator::new();
    assert_eq!(add_as(&dana, &mut key, |_| {}).await.status, 200);
    assert!(!dana.get("/").await.body.contains("/account#passkeys"));
}

#[tokio::test]
async fn the_number_of_an_address_with_a_name_gets_the_advice_and_nothing_else_a_087() {
    let test = TestBroker::at_localhost().await;
    let number = test.issuer.replace("localhost", "127.0.0.1");
    for path in ["/", "/sign-in", "/account"] {
        let answer = test.wire.send(test.wire.get(&format!("{number}{path}"))).await.unwrap();
        assert_eq!(answer.status, 421, "{path}");
        assert!(answer.body.contains(&test.issuer), "{}", answer.body);
    }
}

#[tokio::test]
async fn the_account_page_and_its_refusals_speak_german() {
    let test = TestBroker::at_localhost().await;
    let mut dana = test.visitor("dana", Role::Admin).await;
    dana.headers = vec![("accept-language".into(), "de".into())];
    let page = dana.get("/account").await.body;
    assert!(page.contains("Ihr Konto") && page.contains("Administrator, an allen Standorten"), "{page}");
    assert!(dana.get("/sign-in").await.body.contains("Mit Passkey anmelden"));
    let answer = use_as(&dana, &Authenticator::new(), |_| {}).await;
    assert!(told(&answer).starts_with("Dieser Passkey öffnet hier nichts"), "{}", answer.body);
}
