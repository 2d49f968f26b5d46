//! The administration API over real sockets: who gets in, who may what where, and what no program ever may (A-080, A-085).

use std::time::Duration;

use pairgate::broker::pairing::Confirm;
use pairgate::broker::policy::PolicyChange;
use pairgate::broker::signing::KeyRotation;
use pairgate::broker::{Broker, Caller, UseCaseError};
use pairgate::config::setup::{Address, Way};
use pairgate::id::GrantId;
use pairgate::model::audit::Actor;
use pairgate::model::device::{DeviceFacts, Successor};
use pairgate::model::operator::{EVERYWHERE, Rights, Role};
use pairgate::model::site::Site;
use pairgate::simulator::{PairingStatus, RawAnswer};
use pairgate::store::Decision;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::TestBroker;
use crate::support::chromium::{Look, browse};
use crate::support::program::{Program, problem};
use crate::support::visitor::said;

const ACROSS: [(&str, &str); 2] = [("berlin", "berlin-tv"), ("paris", "paris-tv")];

/// With a device at each of two sites.
async fn with_two_sites() -> TestBroker {
    let test = TestBroker::with_api().await;
    for (site, id) in ACROSS {
        let facts = DeviceFacts { kind: "tv".into(), site: site.into(), ..DeviceFacts::default() };
        test.broker.register_device(&Caller::command_line(), id, facts).await.unwrap();
    }
    test
}

/// What a program at `site` asks, in an order in which each can succeed, with the role that it takes.
fn asked(site: &str, id: &str) -> Vec<(&'static str, String, Option<Value>, Role)> {
    use Role::{Admin, Technician, Viewer};
    let new = json!({"id": format!("{site}-new"), "facts": {"kind": "tv", "site": site}});
    vec![
        ("GET", format!("/devices/{id}"), None, Viewer),
        ("GET", format!("/devices/{id}/history"), None, Viewer),
        ("GET", format!("/devices/{id}/window"), None, Viewer),
        ("GET", format!("/sites/{site}"), None, Viewer),
        ("GET", format!("/sites/{site}/window"), None, Viewer),
        ("POST", "/devices".into(), Some(new), Technician),
        ("PUT", format!("/devices/{id}/window"), Some(json!({"minutes": 5})), Technician),
        ("DELETE", format!("/devices/{id}/window"), None, Technician),
        ("PUT", format!("/sites/{site}/window"), Some(json!({})), Technician),
        ("DELETE", format!("/sites/{site}/window"), None, Technician),
        ("POST", format!("/devices/{id}/end-sign-ins"), None, Admin),
        ("POST", format!("/devices/{id}/suspend"), None, Technician),
        ("POST", format!("/devices/{id}/resume"), None, Admin),
        ("PATCH", format!("/sites/{site}"), Some(json!({"name": "HQ"})), Admin),
    ]
}

#[tokio::test]
async fn every_route_takes_its_role_and_knows_nothing_of_other_sites_a_080() {
    for role in Role::ALL {
        let test = with_two_sites().await;
        for (name, site) in [("mia", "berlin"), ("noor", "paris")] {
            test.broker.add_person_at(&Caller::command_line(), name, site, Role::Viewer).await.unwrap();
        }
        let program = test.program("inventory", "berlin", role).await;
        for (method, path, body, needed) in asked("berlin", "berlin-tv") {
            let mark = test.mark().await;
            let answer = program.ask(method, &path, body).await;
            let what = format!("{role:?} {method} {path}: {}", answer.body);
            if role >= needed {
                assert!(matches!(answer.status, 200 | 201), "{what}");
            } else {
                assert_eq!(problem(&answer, 403, &what), "Your role does not allow this; ask an administrator.");
                test.untouched(&mark, &[], &what).await;
            }
        }
        let mark = test.mark().await;
        for (method, path, body, _) in asked("paris", "paris-tv") {
            let answer = program.ask(method, &path, body.clone()).await;
            let what = format!("{role:?} {method} {path}");
            let there = problem(&answer, 404, &what);
            // What there is elsewhere looks as what there is nowhere.
            let nowhere = |text: &str| text.replace("paris", "no-such");
            let answer = program
                .ask(method, &nowhere(&path), body.map(|body| nowhere(&body.to_string()).parse().unwrap()))
                .await;
            assert_eq!(problem(&answer, 404, &what), nowhere(&there), "{what}");
        }
        // Adding a site takes an administrator of all.
        problem(&program.ask("POST", "/sites", Some(json!({"id": "rome", "name": "Rome"}))).await, 403, "a site");
        test.untouched(&mark, &[], "another site's").await;
        let listed = |list: Value, member: &str| -> Vec<String> {
            list["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item[member].as_str().unwrap_or_default().into())
                .collect()
        };
        // Whoever administers a site sees the people of that site.
        if role == Role::Admin {
            assert_eq!(listed(program.done("GET", "/operators", None).await, "name"), ["mia"]);
        } else {
            problem(&program.get("/operators").await, 403, "people");
        }
        assert_eq!(listed(program.done("GET", "/sites", None).await, "id"), ["berlin"]);
        let devices = listed(program.done("GET", "/devices?state=registered", None).await, "id");
        assert!(devices.iter().all(|id| id.starts_with("berlin")), "{devices:?}");
        assert_eq!(program.done("GET", "/devices?site=paris", None).await["total"], 0);
        assert_eq!(listed(program.done("GET", "/audit?device=paris-tv", None).await, "id"), Vec::<String>::new());
        let records = listed(program.done("GET", "/audit", None).await, "device");
        assert!(!records.is_empty() && records.iter().all(|device| device.starts_with("berlin")), "{records:?}");
    }
}

#[tokio::test]
async fn pairings_and_sign_ins_of_other_sites_are_not_told_and_none_can_be_decided_a_080_a_085() {
    let test = with_two_sites().await;
    let here = test.program("here", "berlin", Role::Admin).await;
    let elsewhere = test.program("elsewhere", "paris", Role::Admin).await;
    test.open_window("berlin-tv").await;
    let mut device = test.stranger("berlin-tv");
    let shown = device.request_pairing().await.unwrap();
    let PairingStatus::Pending { digits, .. } = device.poll_pairing().await.unwrap() else { panic!("not pending") };
    let waiting = here.done("GET", "/pairings", None).await;
    assert_eq!((&waiting["items"][0]["device"], &waiting["items"][0]["ready"]), (&json!("berlin-tv"), &json!(true)));
    assert!(!waiting.to_string().contains(&digits), "the digits are on the device alone");
    assert_eq!(elsewhere.done("GET", "/pairings", None).await["items"], json!([]));
    let path = format!("/pairings/{}", shown.pairing_id);
    assert_eq!(here.done("GET", &path, None).await["pairing"], shown.pairing_id);
    problem(&elsewhere.get(&path).await, 404, "of another site");
    problem(&elsewhere.ask("POST", &format!("{path}/decline"), None).await, 404, "of another site");
    let mark = test.mark().await;
    for (route, body) in [
        (format!("{path}/confirm"), json!({"number": digits})),
        (format!("{path}/approve"), json!({})),
        ("/sign-ins/1/approve".into(), json!({})),
        ("/devices/berlin-tv/technician-code".into(), json!({})),
        ("/operators/dana/link".into(), json!({})),
        ("/tokens".into(), json!({"name": "more"})),
        ("/policy".into(), json!({})),
    ] {
        problem(&here.ask("POST", &route, Some(body)).await, 404, &route);
    }
    for route in ["/operators", "/sign-ins", "/pairings", "/audit", &path] {
        let answer = here.ask("POST", route, Some(json!({"name": "mallory", "role": "admin"}))).await;
        problem(&answer, 405, route);
        assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{route}");
    }
    test.untouched(&mark, &[], "there is no such route").await;
    here.done("POST", &format!("{path}/decline"), None).await;
    assert_eq!(test.count("pairing.declined").await, 1);
    // A sign-in that waits: seen with what it asks for, without its code and number.
    test.pair(&mut device).await;
    let code = device.request_code(None, None).await.unwrap();
    let waiting = here.done("GET", "/sign-ins", None).await;
    assert_eq!(waiting["items"][0]["device"], "berlin-tv");
    assert!(!waiting.to_string().contains(&code.user_code), "the code is on the device alone");
    assert_eq!(elsewhere.done("GET", "/sign-ins", None).await["items"], json!([]));
    assert_eq!(here.done("POST", "/devices/berlin-tv/end-sign-ins", None).await, json!({"ended": 1}));
    assert_eq!(here.done("GET", "/sign-ins", None).await["items"], json!([]));
}

fn is_for_people<T: std::fmt::Debug>(outcome: Result<T, UseCaseError>, what: &str) {
    assert!(matches!(outcome, Err(UseCaseError::OnlyPeople)), "{what}: {outcome:?}");
}

async fn no_policy_a_085(broker: &Broker, caller: &Caller, change: &PolicyChange) {
    is_for_people(broker.propose_policy(caller, "").await, "proposing a text");
    is_for_people(broker.propose_kind(caller, "printer", None).await, "proposing a kind");
    is_for_people(broker.propose_resource(caller, "https://files.example", None).await, "proposing a resource");
    is_for_people(broker.propose_two_persons(caller, false).await, "the switch for two persons");
    is_for_people(broker.propose_version(caller, 1).await, "proposing a version");
    is_for_people(broker.apply_policy(caller, change, 0).await, "applying a policy");
    is_for_people(broker.confirm_policy(caller, 1).await, "confirming a policy");
    is_for_people(broker.withdraw_policy(caller, 1).await, "withdrawing a policy");
}

async fn no_administration_a_085(broker: &Broker, caller: &Caller) {
    let (free, paired) = ("lobby-tv-02", "lobby-tv-01");
    is_for_people(broker.make_technician_codes(caller, &[free.into()]).await, "codes for technicians");
    is_for_people(broker.make_technician_codes_at(caller, "default", None).await, "codes for a site");
    is_for_people(broker.add_person_at(caller, "mallory", "default", Role::Approver).await, "a person at a site");
    is_for_people(broker.enable_operator(caller, "dana").await, "enabling");
    is_for_people(broker.remove_passkeys(caller, "dana").await, "passkeys of others");
    is_for_people(broker.end_sessions(caller, "dana").await, "sessions of others");
    is_for_people(broker.add_approver(caller, paired, "dana").await, "who may approve");
    is_for_people(broker.remove_approver(caller, paired, "dana").await, "who may not approve any more");
    is_for_people(broker.accept_risk(caller, "nothing that would matter", "Dana Novak, IT").await, "accepting a risk");
    let address = Address { host: String::new(), port: 8628, way: Way::ThisMachine };
    is_for_people(broker.choose_address(caller, &address).await, "the address");
    is_for_people(broker.finish_setup(caller).await, "ending the first run");
    is_for_people(broker.confirm_kinds(caller).await, "having looked at the kinds");
    is_for_people(broker.resume_stolen(caller, paired, paired).await, "letting a stolen device on");
    is_for_people(broker.replace_device(caller, paired, Successor::default()).await, "another box");
    is_for_people(broker.announce_key(caller, free, None).await, "which key a maker announced");
}

/// Not by a route only: the broker itself refuses, whatever an edge would pass on.
#[tokio::test]
async fn no_program_decides_what_a_person_must_whatever_its_role_a_085() {
    let test = TestBroker::with_api().await;
    let mut device = test.paired("lobby-tv-01", "tv").await;
    let operator = test.operator("dana", Role::Admin).await;
    let code = device.request_code(None, None).await.unwrap();
    let path = operator.claim(&code.verification_uri_complete).await.unwrap();
    let grant = GrantId(path.rsplit('/').next().unwrap().parse().unwrap());
    test.register("lobby-tv-02", "tv").await;
    test.open_window("lobby-tv-02").await;
    let mut other = test.stranger("lobby-tv-02");
    let shown = other.request_pairing().await.unwrap();
    let PairingStatus::Pending { digits, .. } = other.poll_pairing().await.unwrap() else { panic!("not pending") };
    let token = test.token("helpdesk", EVERYWHERE, Role::Admin).await;
    let real = test.broker.program(&token, None).await.unwrap().unwrap();
    // Also with what a program never has: a person's number, and a fresh sign-in.
    let forged = Caller {
        operator: test.broker.operators().await.unwrap().first().map(|person| person.id),
        proved_at: Some(test.broker.now()),
        ..real.clone()
    };
    let broker = &test.broker;
    let change = broker.propose_two_persons(&Caller::command_line(), true).await.unwrap();
    for caller in [&real, &forged] {
        assert_eq!(caller.actor, Actor::Machine("helpdesk".into()));
        let mark = test.mark().await;
        let pairing = shown.pairing_id.as_str();
        let key = shown.uri_complete.split_once("key=").unwrap().1;
        is_for_people(broker.confirm_pairing(caller, pairing, &Confirm::Number(&digits)).await, "digits");
        is_for_people(broker.confirm_pairing(caller, pairing, &Confirm::Qr(key)).await, "QR");
        is_for_people(broker.confirm_pairing(caller, pairing, &Confirm::Vouched).await, "vouched");
        is_for_people(broker.open_code(caller, &code.user_code).await, "opening a code");
        is_for_people(broker.review(caller, grant).await, "looking at a sign-in");
        for decision in [Decision::Approve, Decision::Deny, Decision::Report] {
            is_for_people(broker.decide(caller, grant, decision, "", "47").await, "deciding");
        }
        is_for_people(broker.report_foreign_code(caller).await, "reporting");
        is_for_people(broker.add_operator(caller, "mallory", Role::Admin).await, "adding a person");
        is_for_people(broker.set_role(caller, "dana", EVERYWHERE, None).await, "a role");
        is_for_people(broker.set_role(caller, "dana", "berlin", Some(Role::Admin)).await, "a role at a site");
        is_for_people(broker.disable_operator(caller, "dana").await, "disabling");
        is_for_people(broker.operator_link(caller, "dana").await, "a link");
        let (rights, day) = (Rights::everywhere(Role::Viewer), Duration::from_secs(86_400));
        is_for_people(broker.add_api_token(caller, "more", rights, day).await, "a token");
        is_for_people(broker.revoke_api_token(caller, "helpdesk").await, "revoking");
        is_for_people(broker.api_tokens(caller).await, "listing tokens");
        is_for_people(broker.rotate_signing_keys(caller, KeyRotation::Emergency).await, "signing keys");
        is_for_people(broker.end_all_sign_ins(caller).await, "ending all sign-ins");
        let relaxed = Site { two_persons: true, ..Site::plain("berlin", "berlin") };
        is_for_people(broker.set_site(caller, None, relaxed).await, "whether two persons must approve");
        let wider = Site { networks: vec!["0.0.0.0/0".parse().unwrap()], ..Site::plain("berlin", "berlin") };
        is_for_people(broker.set_site(caller, None, wider).await, "where devices may be");
        is_for_people(broker.retire_device(caller, "lobby-tv-01").await, "retiring");
        no_policy_a_085(broker, caller, &change).await;
        no_administration_a_085(broker, caller).await;
        is_for_people(broker.confirm_announced(caller, "default").await, "all that makers announced");
        is_for_people(broker.confirm_pairing(caller, pairing, &Confirm::Manifest).await, "announced");
        is_for_people(broker.undo_approval(caller, grant).await, "undoing an approval");
        is_for_people(broker.own_approval(caller, grant).await, "looking at what can be undone");
        test.untouched(&mark, &[], "nothing happened").await;
    }
    // It waits as before, and a person can still do it.
    test.advance(60);
    let number = test.pending(&mut device).await.unwrap();
    operator.approve(&path, &number).await.unwrap();
}

#[tokio::test]
async fn absent_wrong_expired_and_revoked_tokens_get_one_answer_and_bounded_records_a_091() {
    let test = with_two_sites().await;
    let admin = test.administrator().await;
    let expired = test.program("expired", EVERYWHERE, Role::Admin).await;
    let revoked = test.program("revoked", EVERYWHERE, Role::Admin).await;
    assert_eq!(revoked.get("/devices").await.status, 200);
    test.broker.revoke_api_token(&Caller::command_line(), "revoked").await.unwrap();
    let with = |token: &str| Program { token: token.into(), ..admin.clone() };
    let unknown = with(&format!("pgt_{}", "A".repeat(43)));
    let is_the_answer = |answer: &RawAnswer, what: &str| {
        let said = problem(answer, 401, what);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{what}");
        said
    };
    let same = is_the_answer(&revoked.get("/devices").await, "revoked");
    for (program, what) in [
        (&unknown, "unknown"),
        (&with(""), "none"),
        (&with("x"), "no token at all"),
        (&with(&admin.token[4..]), "without its prefix"),
        (&with(&format!("{}A", admin.token)), "too long"),
    ] {
        for (method, path) in [
            ("GET", "/devices"),
            ("GET", "/nowhere"),
            ("DELETE", "/devices"),
            ("POST", "/devices/berlin-tv/suspend"),
            ("GET", "/openapi.json"),
        ] {
            assert_eq!(is_the_answer(&program.ask(method, path, None).await, what), same, "{what} {method} {path}");
        }
    }
    assert_eq!(expired.get("/devices").await.status, 200);
    test.advance(86_400);
    assert_eq!(is_the_answer(&expired.get("/devices").await, "expired"), same);
    for _ in 0..60 {
        unknown.get("/devices").await;
    }
    let refused = test.count("api_token.refused").await;
    assert!((21..=60).contains(&refused), "recorded, and not all of a flood: {refused}");
    for record in test.records().await.iter().filter(|record| record.event == "api_token.refused") {
        assert!(!record.detail.contains("pgt_") && record.device.is_none(), "{record:?}");
    }
}

#[tokio::test]
async fn other_headers_than_one_bearer_token_open_nothing_a_041() {
    let test = with_two_sites().await;
    let admin = test.administrator().await;
    let person = test.visitor("dana", Role::Admin).await;
    // A person's session is for pages, a program's token for the API: neither opens the other's doors.
    let answer = person.get("/api/v1/devices").await;
    problem(&answer, 401, "a session");
    let bearer = format!("Bearer {}", admin.token);
    for path in ["/", "/devices", "/devices/berlin-tv", "/audit", "/settings/tokens"] {
        let answer = test.passer_by().get_with(path, &[("authorization", &bearer)]).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/sign-in")), "{path}");
    }
    let cases: [(&str, &[(&str, &str)]); 5] = [
        ("another scheme", &[("authorization", &format!("Basic {}", admin.token))]),
        ("no scheme", &[("authorization", &admin.token)]),
        ("two tokens", &[("authorization", &bearer), ("authorization", &bearer)]),
        ("in a cookie", &[("cookie", &format!("__Host-pairgate={}", admin.token))]),
        ("in another header", &[("x-api-key", &admin.token)]),
    ];
    for (what, headers) in cases {
        problem(&test.passer_by().get_with("/api/v1/devices", headers).await, 401, what);
    }
    problem(
        &test.passer_by().get(&format!("/api/v1/devices?access_token={}", admin.token)).await,
        401,
        "in the address",
    );
    let answer =
        test.passer_by().get_with("/api/v1/devices", &[("authorization", &bearer.replace("Bearer", "bearer"))]).await;
    assert_eq!(answer.status, 200, "a scheme's case is free (RFC 9110 section 11.1)");
    let answer = test
        .passer_by()
        .get_with("/api/v1/devices", &[("authorization", &bearer), ("origin", "https://evil.example")])
        .await;
    assert_eq!(answer.header("access-control-allow-origin"), None, "no other site's page reads it");
}

#[tokio::test]
async fn without_configuration_there_is_no_api_a_094() {
    let test = TestBroker::start().await;
    let program = Program {
        token: test.token("inventory", EVERYWHERE, Role::Admin).await,
        wire: test.wire.clone(),
        issuer: test.issuer.clone(),
    };
    for path in ["", "/", "/devices", "/whoami", "/openapi.json"] {
        let answer = program.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (404, Some("text/html; charset=utf-8")), "{path}");
    }
}

#[tokio::test]
async fn a_device_s_life_by_a_program() {
    let test = with_two_sites().await;
    let program = test.administrator().await;
    let new = json!({"id": "lobby-tv-01", "facts": {"kind": "tv", "site": "berlin", "name": "Lobby", "room": "EG-01", "owner": "Facilities"}});
    let answer = program.ask("POST", "/devices", Some(new)).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (201, Some("/api/v1/devices/lobby-tv-01")),
        "{}",
        answer.body
    );
    let device = answer.json().unwrap();
    assert_eq!(
        (&device["state"], &device["facts"]["owner"], &device["key"]),
        (&json!("registered"), &json!("Facilities"), &Value::Null)
    );
    let window = program.done("PUT", "/devices/lobby-tv-01/window", Some(json!({"minutes": 5}))).await;
    assert_eq!(program.done("GET", "/devices/lobby-tv-01/window", None).await, window);
    let mut simulated = test.stranger("lobby-tv-01");
    test.pair(&mut simulated).await;
    let device = program.done("GET", "/devices/lobby-tv-01", None).await;
    assert_eq!((&device["state"], &device["key"]["assurance"]), (&json!("active"), &json!("software")));
    assert_eq!(program.done("POST", "/devices/lobby-tv-01/suspend", None).await["state"], "suspended");
    assert_eq!(program.done("POST", "/devices/lobby-tv-01/resume", None).await["state"], "active");
    test.broker.retire_device(&Caller::command_line(), "lobby-tv-01").await.unwrap();
    assert_eq!(program.done("GET", "/devices/lobby-tv-01", None).await["state"], "retired");
    let history = program.done("GET", "/devices/lobby-tv-01/history?limit=3", None).await;
    let events = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|item| item["event"].as_str().unwrap().into()).collect()
    };
    assert_eq!(events(&history)[..2], ["device.registered", "window.opened"]);
    assert_eq!(history["items"][0]["actor"], "machine:administrator", "the log says which program it was");
    let next = history["next"].as_str().unwrap();
    let rest = program.done("GET", &format!("/devices/lobby-tv-01/history?after={next}"), None).await;
    assert_eq!(events(&rest).last().unwrap(), "device.retired");
    assert_eq!(rest["next"], Value::Null);
    let who = program.done("GET", "/whoami", None).await;
    assert_eq!(
        (&who["actor"], &who["roles"]["*"], &who["issuer"]),
        (&json!("machine:administrator"), &json!("admin"), &json!(test.issuer))
    );
    let people = program.done("GET", "/operators", None).await;
    assert_eq!(people["items"], json!([]));
}

#[tokio::test]
async fn lists_are_read_page_by_page_and_stay_stable_while_they_grow() {
    let test = TestBroker::with_api().await;
    for number in (0..25).step_by(2) {
        test.register(&format!("tv-{number:02}"), "tv").await;
    }
    let program = test.administrator().await;
    let (mut seen, mut after) = (Vec::<String>::new(), String::new());
    loop {
        let page = program.done("GET", &format!("/devices?limit=5{after}"), None).await;
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        // What comes before the place of reading doesn't move it.
        test.register(&format!("aa-{:02}", seen.len()), "tv").await;
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    let expected: Vec<String> = (0..25).step_by(2).map(|number| format!("tv-{number:02}")).collect();
    assert_eq!(seen.iter().filter(|id| expected.contains(id)).count(), expected.len(), "{seen:?}");
    assert!(seen.is_sorted() && seen.windows(2).all(|pair| pair[0] != pair[1]), "{seen:?}");
    for (query, status) in [
        ("limit=1", 200),
        ("limit=1000", 200),
        ("limit=0", 400),
        ("limit=1001", 400),
        ("limit=-1", 400),
        ("limit=x", 400),
        ("limt=5", 400),
        ("state=lost", 400),
    ] {
        assert_eq!(program.get(&format!("/devices?{query}")).await.status, status, "{query}");
    }
    assert_eq!(program.done("GET", "/devices?q=tv-02&state=registered&kind=tv&site=default", None).await["total"], 1);
}

#[tokio::test]
async fn what_is_wrong_is_said_line_by_line_in_the_words_of_the_pages() {
    let test = TestBroker::with_api().await;
    let program = test.administrator().await;
    let new = json!({"id": "x", "facts": {"kind": "fridge", "site": "default", "name": "a\u{202E}b"}});
    let answer = program.ask("POST", "/devices", Some(new)).await;
    let said = problem(&answer, 422, "three things");
    assert!(said.lines().count() >= 2 && said.contains("Kind 'fridge' is unknown; it is one of"), "{said}");
    for (body, media, status, why) in [
        ("{", "application/json", 400, "not understood"),
        ("[]", "application/json", 400, "not understood"),
        (r#"{"id": "tv-01", "facts": {"kind": "tv", "sereal": "x"}}"#, "application/json", 400, "sereal"),
        (r#"{"id": "tv-01", "id": "tv-02", "facts": {"kind": "tv"}}"#, "application/json", 400, "duplicate"),
        (r#"{"id": "tv-01", "facts": {"kind": "tv"}}"#, "text/plain", 415, "Content-Type"),
        (r#"{"id": "tv-01", "facts": {"kind": "tv"}}"#, "", 415, "Content-Type"),
        ("id=tv-01", "application/x-www-form-urlencoded", 415, "Content-Type"),
    ] {
        let mut request = program.wire.post(&test.url("/api/v1/devices")).bearer_auth(&program.token).body(body);
        if !media.is_empty() {
            request = request.header("content-type", media);
        }
        let said = problem(&program.wire.send(request).await.unwrap(), status, body);
        assert!(said.contains(why), "{body}: {said}");
    }
    let long = json!({"id": "tv-01", "facts": {"kind": "tv", "note": "x".repeat(20_000)}});
    problem(&program.ask("POST", "/devices", Some(long)).await, 413, "a body of 20 kB");
    let rows = [
        ("GET", "/devices/nobody-01", 404, "no device 'nobody-01'"),
        ("GET", "/sites/rome", 404, "no site 'rome'"),
        ("GET", "/nowhere", 404, "nothing at this address"),
        ("DELETE", "/sites/berlin/window", 422, "not open"),
    ];
    for (method, path, status, why) in rows {
        let said = problem(&program.ask(method, path, None).await, status, path);
        assert!(said.contains(why), "{path}: {said}");
    }
}

#[tokio::test]
async fn sites_are_added_and_changed_by_a_program() {
    let test = TestBroker::with_api().await;
    let program = test.administrator().await;
    let rome = json!({"id": "rome", "name": "Rome", "networks": ["10.9.0.0/16"], "quiet_hours": "22:00-06:00"});
    let answer = program.ask("POST", "/sites", Some(rome.clone())).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    problem(&program.ask("POST", "/sites", Some(rome)).await, 422, "taken");
    let changed = program.done("PATCH", "/sites/rome", Some(json!({"quiet_hours": "23:00-06:00"}))).await;
    assert_eq!(
        (&changed["name"], &changed["networks"][0], &changed["quiet_hours"]),
        (&json!("Rome"), &json!("10.9.0.0/16"), &json!("23:00-06:00"))
    );
    // The same value as before is no change of policy.
    let same = json!({"two_persons": false, "networks": ["10.9.0.0/16"], "name": "Roma"});
    program.done("PATCH", "/sites/rome", Some(same)).await;
    let wider = json!({"networks": ["0.0.0.0/0"]});
    problem(&program.ask("PATCH", "/sites/rome", Some(wider)).await, 403, "networks");
    let said = problem(&program.ask("PATCH", "/sites/rome", Some(json!({"two_persons": true}))).await, 403, "policy");
    assert!(said.contains("Only a person"), "{said}");
}

#[tokio::test]
async fn a_token_is_written_as_used_once_a_minute() {
    let test = TestBroker::with_api().await;
    let program = test.administrator().await;
    let used = async || test.broker.api_tokens(&Caller::command_line()).await.unwrap()[0].used_at;
    assert_eq!(used().await, None);
    program.get("/whoami").await;
    let first = used().await.unwrap();
    test.advance(59);
    program.get("/whoami").await;
    assert_eq!(used().await, Some(first));
    test.advance(1);
    program.get("/whoami").await;
    assert_eq!(used().await, Some(test.broker.now()));
}

/// Sends exactly this path with a good token; the status.
async fn raw(test: &TestBroker, token: &str, path: &str) -> u16 {
    let authority = test.issuer.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(authority).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(!answer.contains("lobby-tv-01") && !answer.contains("machine:"), "{path}: {answer}");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(400)
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_to_a_handler_past_a_rule_of_a_proxy_a_093() {
    let test = TestBroker::with_api().await;
    let token = test.administrator().await.token;
    test.register("lobby-tv-01", "tv").await;
    for path in [
        "//api/v1/devices",
        "/api//v1/devices",
        "/api/v1//devices",
        "/./api/v1/devices",
        "/x/../api/v1/devices",
        "/api/v1/whoami/../devices",
        "/%2e/api/v1/devices",
        "/x/%2e%2e/api/v1/devices",
        "/x/%2E%2e/api/v1/devices",
        "/x/..%2fapi/v1/devices",
        "/api%2fv1/devices",
        "/api%2Fv1%2Fdevices",
        "/api;x/v1/devices",
        "/;/api/v1/devices",
        "/x;/../api/v1/devices",
        "/api/v1/devices;jsessionid=1",
        "/api/v1/devices%3bx",
        "/api\\v1\\devices",
        "/x\\..\\api/v1/devices",
        "/api/v1/devices%5c",
        "/%61pi/v1/devices",
        "/api/v1/%64evices",
        "/api/v1/devices%00",
        "/api/v1/devices%0d%0a",
        "/api/v1/devices%20",
        "/api/v1/devices.",
        "/api./v1/devices",
        "/api%20/v1/devices",
        "/api/v1/devices%252f",
        "/api/v1/devices/lobby-tv-01%2f..",
        "/api/v1/devices/lobby%2Dtv-01",
        "/api/v1/devices%",
        "/API/v1/devices",
        "/Api/V1/devices",
        "/api/v1/DEVICES",
        "/api/v1/devices/",
        "/api/v1/",
        "/api/v1",
        "/api",
        "/api/v1.0/devices",
        "api/v1/devices",
        "*",
    ] {
        let status = raw(&test, &token, path).await;
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
    // The whole address, as proxies get it, is the same address.
    let plain = format!("{}/api/v1/sites", test.issuer);
    for path in ["/api/v1/sites", "/api/v1/sites?", &plain] {
        assert_eq!(raw(&test, &token, path).await, 200, "{path}");
    }
}

#[tokio::test]
async fn tokens_are_made_shown_once_and_revoked_on_their_page() {
    let test = TestBroker::with_api().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let empty = dana.get("/settings/tokens").await;
    assert!(empty.status == 200 && empty.body.contains("No tokens yet."), "{}", empty.body);
    let fields = [("action", "add"), ("name", "inventory"), ("role", "technician"), ("site", "berlin"), ("days", "30")];
    let made = dana.post("/settings/tokens", &fields).await;
    assert_eq!(made.status, 200, "{}", said(&made));
    let text = made.body.split("<code class=\"id\">").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let program = Program { wire: test.wire.clone(), issuer: test.issuer.clone(), token: text.clone() };
    let who = program.done("GET", "/whoami", None).await;
    assert_eq!((&who["actor"], &who["roles"]), (&json!("machine:inventory"), &json!({"berlin": "technician"})));
    let list = dana.get("/settings/tokens").await;
    assert!(
        !list.body.contains(&text) && list.body.contains("At berlin: register devices, open pairing"),
        "{}",
        list.body
    );
    assert!(!test.rows().contains(&text), "nowhere stored");
    for (name, role, site, days, why) in [
        ("inventory", "viewer", "*", "30", "is taken"),
        ("a b", "viewer", "*", "30", "2 to 64 characters"),
        ("other", "viewer", "*", "366", "1 to 365 days"),
        ("other", "viewer", "*", "x", "1 to 365 days"),
        ("other", "king", "*", "30", "needs a role"),
        ("other", "viewer", "rome", "30", "site 'rome' is unknown"),
    ] {
        let fields = [("action", "add"), ("name", name), ("role", role), ("site", site), ("days", days)];
        let answer = dana.post("/settings/tokens", &fields).await;
        assert!(answer.status == 422 && said(&answer).contains(&why[1..]), "{why}: {}", said(&answer));
    }
    let revoke = [("action", "revoke"), ("name", "inventory")];
    assert_eq!(dana.post("/settings/tokens", &revoke).await.status, 303);
    problem(&program.get("/whoami").await, 401, "revoked");
    assert_eq!(dana.post("/settings/tokens", &revoke).await.status, 404, "once");
    // In German, whole.
    let german = dana.get_with("/settings/tokens", &[("accept-language", "de")]).await;
    assert!(
        german.body.contains("<h1>Token für Programme</h1>") && german.body.contains("widerrufen"),
        "{}",
        german.body
    );
    // Only those who administer everything, and only while it is fresh.
    let local = test.visitor("local", Role::Viewer).await;
    test.broker.set_role(&Caller::command_line(), "local", EVERYWHERE, None).await.unwrap();
    test.broker.set_role(&Caller::command_line(), "local", "berlin", Some(Role::Admin)).await.unwrap();
    assert_eq!(local.get("/settings/tokens").await.status, 403);
    let living = test.program("living", "berlin", Role::Viewer).await;
    let mark = test.mark().await;
    let fresh = [("action", "add"), ("name", "mine"), ("role", "viewer"), ("site", "berlin"), ("days", "30")];
    assert_eq!(local.post("/settings/tokens", &fresh).await.status, 403, "a new name, at his own site");
    let revoke_living = [("action", "revoke"), ("name", "living")];
    assert_eq!(local.post("/settings/tokens", &revoke_living).await.status, 403);
    assert_eq!(living.get("/whoami").await.status, 200, "it lives on");
    test.advance(301);
    for fields in [&fields[..], &revoke[..]] {
        let answer = dana.post("/settings/tokens", fields).await;
        let back = answer.header("location").unwrap_or_default();
        assert_eq!((answer.status, back), (303, "/sign-in/again?back=%2Fsettings%2Ftokens"));
    }
    assert_eq!(test.recorded(&mark).await.len(), 0);
}

#[tokio::test]
async fn a_token_may_no_more_than_its_maker_may_now_a_047() {
    let test = with_two_sites().await;
    let root = Caller::command_line();
    test.broker.add_operator(&root, "dana", Role::Admin).await.unwrap();
    let dana = Caller { actor: Actor::Operator("dana".into()), ..Caller::command_line() };
    let text =
        test.broker.add_api_token(&dana, "helpdesk", Rights::everywhere(Role::Admin), Duration::from_secs(86_400));
    let program = Program { wire: test.wire.clone(), issuer: test.issuer.clone(), token: text.await.unwrap() };
    let roles = async || program.done("GET", "/whoami", None).await["roles"].clone();
    assert_eq!(roles().await, json!({"*": "admin"}));
    let set = async |site: &str, role| test.broker.set_role(&root, "dana", site, role).await.unwrap();
    test.broker.add_operator(&root, "noor", Role::Admin).await.unwrap();
    set(EVERYWHERE, Some(Role::Viewer)).await;
    assert_eq!(roles().await, json!({"*": "viewer"}), "lowered");
    problem(&program.ask("POST", "/devices/berlin-tv/suspend", None).await, 403, "as its maker");
    set("berlin", Some(Role::Technician)).await;
    set(EVERYWHERE, None).await;
    assert_eq!(roles().await, json!({"berlin": "technician"}), "at one site only");
    problem(&program.get("/devices/paris-tv").await, 404, "another site");
    set(EVERYWHERE, Some(Role::Admin)).await;
    assert_eq!(roles().await["*"], "admin", "as the right comes and goes");
    test.broker.disable_operator(&root, "dana").await.unwrap();
    let unknown = Program { token: format!("pgt_{}", "A".repeat(43)), ..program.clone() };
    let one_answer = problem(&unknown.get("/whoami").await, 401, "unknown");
    assert_eq!(problem(&program.get("/whoami").await, 401, "its maker is gone"), one_answer);
    let of_the_shell = test.program("shell", "berlin", Role::Viewer).await;
    assert_eq!(of_the_shell.get("/whoami").await.status, 200, "nobody made it who could go");
}

async fn makes_and_revokes_a_token(look: Look) {
    let test = TestBroker::with_api().await;
    test.broker.add_operator(&Caller::command_line(), "dana", Role::Admin).await.unwrap();
    let link = test.broker.operator_link(&Caller::command_line(), "dana").await.unwrap();
    let page = test.url("/settings/tokens");
    browse(look, move |browser| async move {
        browser.open(&link).await;
        browser.click("main button").await;
        browser.see_heading("Overview").await;
        browser.open(&page).await;
        browser.see_heading("Tokens for programs").await;
        browser.inspect("tokens-empty", &[]).await;
        browser.type_into("#name", "inventory").await;
        browser.click("button[value=add]").await;
        browser.see(".token-made").await;
        browser.inspect("tokens-made", &[]).await;
        browser.click("button[value=revoke]").await;
        browser.see_heading("Tokens for programs").await;
        browser.inspect("tokens", &[]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_made_and_revoked_on_a_phone() {
    makes_and_revokes_a_token(Look::PHONE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_made_and_revoked_at_a_desk_in_the_dark() {
    makes_and_revokes_a_token(Look::DESK.dark()).await;
}
