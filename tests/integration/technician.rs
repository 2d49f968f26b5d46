//! A technician without an account pairs exactly one device with one code, and can do nothing else.

use pairgate::broker::pairing::Confirm;
use pairgate::broker::{Caller, UseCaseError};
use pairgate::model::audit::Actor;
use pairgate::model::device::{DeviceFacts, Successor};
use pairgate::model::operator::Role;
use pairgate::model::site::Site;
use pairgate::simulator::{PairingStatus, RawAnswer};
use pairgate::store::{AuditQuery, Decision, DeviceQuery, WindowSubject};

use crate::support::TestBroker;
use crate::support::chromium::{Look, browse};
use crate::support::visitor::{FORM, SAME_ORIGIN, Visitor, encode, hidden, said};

async fn code_for(test: &TestBroker, device: &str) -> String {
    let made = test.broker.make_technician_codes(&Caller::command_line(), &[device.to_owned()]).await.unwrap();
    made.0[0].code.clone()
}

/// Types device and code; with the cookie that this gives, if any.
async fn enter(test: &TestBroker, device: &str, code: &str) -> (Visitor, RawAnswer) {
    let mut visitor = test.passer_by();
    let fields = encode(&[("device", device), ("code", code)]);
    let answer = visitor.send("/technician", &fields, FORM, &[SAME_ORIGIN]).await;
    if let Some(line) = answer.header("set-cookie") {
        visitor.cookie = line.split(';').next().unwrap().to_owned();
    }
    (visitor, answer)
}

async fn post(visitor: &Visitor, path: &str, fields: &[(&str, &str)]) -> RawAnswer {
    let csrf = hidden(&visitor.get("/technician").await.body, "csrf");
    let fields: Vec<_> = [("csrf", csrf.as_str())].into_iter().chain(fields.iter().copied()).collect();
    visitor.send(path, &encode(&fields), FORM, &[SAME_ORIGIN]).await
}

#[tokio::test]
async fn a_technician_opens_pairs_and_is_done() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Technician).await;
    test.register("printer-01", "printer").await;
    test.register("printer-02", "printer").await;
    let page = dana.post("/technician/codes?device=printer-01", &[("action", "page")]).await;
    let code = page.body.split("<span class=\"key\">TECH-").nth(1).unwrap()[..11].to_owned();
    let (tom, answer) = enter(&test, "printer-01", &code.to_lowercase()).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/technician")), "{}", answer.body);
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("Secure") && cookie.starts_with("__Host-technician="));
    assert!(tom.get("/technician").await.body.contains("Device printer-01"));
    // By QR: the code that the device shows leads to the page for it.
    assert_eq!(post(&tom, "/technician/pass", &[("action", "open_window")]).await.status, 303);
    let mut device = test.stranger("printer-01");
    let shown = device.request_pairing().await.unwrap();
    device.poll_pairing().await.unwrap();
    let path = shown.uri_complete.strip_prefix(&test.issuer).unwrap();
    let leads = tom.get(path).await;
    assert_eq!(leads.header("location"), Some(format!("/technician{path}").as_str()));
    let page = tom.get(leads.header("location").unwrap()).await.body;
    assert!(page.contains("pair_by_qr") && !page.contains("value=\"refuse\"") && !page.contains("value=\"identify\""));
    let target = format!("/technician/pair/{}", shown.pairing_id);
    let wrong = test.stranger("x").key.jkt();
    let answer = post(&tom, &target, &[("action", "pair_by_qr"), ("key", &wrong)]).await;
    assert_eq!(answer.status, 422, "the rules are the same");
    let answer = post(&tom, &target, &[("action", "pair_by_number"), ("number", "000000x")]).await;
    assert_eq!(answer.status, 422);
    let answer = post(&tom, &target, &[("action", "pair_by_qr"), ("key", &device.key.jkt())]).await;
    assert_eq!(answer.status, 200, "{}", said(&answer));
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
    let record = test.records().await.into_iter().find(|record| record.event == "pairing.confirmed").unwrap();
    assert_eq!(record.actor, "technician:dana");
    // With that, the pass has ended, and the code is spent.
    assert!(tom.get("/technician").await.body.contains("Your code"), "the pass is over");
    assert_eq!(tom.get(&target).await.header("location"), Some("/technician"));
    assert_eq!(enter(&test, "printer-01", &code).await.1.status, 403);
}

#[tokio::test]
async fn whatever_is_wrong_with_a_code_has_one_answer_and_guesses_are_counted_a_039() {
    let test = TestBroker::start().await;
    test.register("printer-01", "printer").await;
    test.register("printer-02", "printer").await;
    let code = code_for(&test, "printer-01").await;
    let spent = code_for(&test, "printer-02").await;
    enter(&test, "printer-02", &spent).await;
    let shape = |body: &str| body.replace("printer-01", "").replace("printer-02", "").replace("unknown-01", "");
    let mut bodies = Vec::new();
    for (what, device, code) in [
        ("wrong code", "printer-01", "TECH-BBBBB-BBBBB"),
        ("the code of another device", "printer-02", code.as_str()),
        ("unknown device", "unknown-01", code.as_str()),
        ("spent", "printer-02", spent.as_str()),
        ("no code at all", "printer-01", ""),
        ("somebody's user code", "printer-01", "PRN-WDJB-MJHTX"),
    ] {
        let (visitor, answer) = enter(&test, device, code).await;
        assert_eq!((answer.status, visitor.cookie.as_str()), (403, ""), "{what}");
        bodies.push((what, shape(&answer.body)));
    }
    for (what, body) in &bodies {
        assert_eq!(*body, bodies[0].1, "{what}");
    }
    // Ten in ten minutes of one address; then even the right one waits.
    for _ in bodies.len()..10 {
        enter(&test, "printer-01", "TECH-CCCCC-CCCCC").await;
    }
    let (_, answer) = enter(&test, "printer-01", &code).await;
    assert_eq!(
        (answer.status, shape(&answer.body)),
        (403, bodies[0].1.clone()),
        "the budget is spent, with the same words"
    );
    assert_eq!(test.count("user_code.refused").await, 10);
    test.advance(601);
    assert_eq!(enter(&test, "printer-01", &code).await.1.status, 303);
    // A day, and not more.
    let late = code_for(&test, "printer-02").await;
    test.advance(86_400);
    assert_eq!(enter(&test, "printer-02", &late).await.1.status, 403);
}

/// A caller with a pass for this device, as the cookie makes it.
async fn pass_for(test: &TestBroker, device: &str) -> Caller {
    let code = code_for(test, device).await;
    let id = test.broker.technician_in(device, &code, None).await.unwrap().unwrap();
    test.broker.technician_pass(&id).await.unwrap().unwrap().caller(None)
}

#[tokio::test]
async fn a_pass_is_for_one_device_and_every_other_use_case_refuses_a_080() {
    let test = TestBroker::start().await;
    let broker = &test.broker;
    test.register("printer-01", "printer").await;
    let mut other = test.paired("printer-02", "printer").await;
    let waiting_code = other.request_code(None, None).await.unwrap();
    test.open_window("printer-02").await;
    let mut rival = test.stranger("printer-02");
    let foreign = rival.request_pairing().await.unwrap();
    rival.poll_pairing().await.unwrap();
    let tom = pass_for(&test, "printer-01").await;
    assert_eq!(tom.actor, Actor::Technician("command-line".into()));
    test.open_window("printer-01").await;
    let mut device = test.stranger("printer-01");
    let own = device.request_pairing().await.unwrap();
    device.poll_pairing().await.unwrap();
    let records = test.records().await.len();
    let facts = DeviceFacts { kind: "printer".into(), ..DeviceFacts::default() };
    let (one, two) = ("printer-01", "printer-02");
    let window = |id: &str| WindowSubject::Device(pairgate::id::DeviceId::new(id).unwrap());
    let site = WindowSubject::Site("default".into());
    let refused: Vec<(&str, Result<(), UseCaseError>)> = vec![
        ("register", broker.register_device(&tom, "new-01", facts).await.map(drop)),
        ("another device", broker.device(&tom, two).await.map(drop)),
        ("suspend", broker.suspend_device(&tom, one).await),
        ("resume", broker.resume_device(&tom, one).await),
        ("resume stolen", broker.resume_stolen(&tom, one, one).await),
        ("retire", broker.retire_device(&tom, one).await),
        ("stolen", broker.mark_stolen(&tom, one).await),
        ("replace", broker.replace_device(&tom, one, Successor::default()).await.map(drop)),
        ("identify", broker.identify_device(&tom, one).await.map(drop)),
        ("announce", broker.announce_key(&tom, one, None).await),
        ("codes", broker.make_technician_codes(&tom, &[one.to_owned()]).await.map(drop)),
        ("codes of a site", broker.make_technician_codes_at(&tom, "default", None).await.map(drop)),
        ("progress", broker.pairing_progress(&tom, "default").await.map(drop)),
        ("many", broker.confirm_announced(&tom, "default").await.map(drop)),
        ("window of another", broker.open_window(&tom, &window(two), None).await.map(drop)),
        ("window of the site", broker.open_window(&tom, &site, None).await.map(drop)),
        ("close another's", broker.close_window(&tom, &window(two)).await),
        ("another's pairing", broker.pairing(&tom, &foreign.pairing_id).await.map(drop)),
        (
            "confirm another's",
            broker.confirm_pairing(&tom, &foreign.pairing_id, &Confirm::Qr(&rival.key.jkt())).await.map(drop),
        ),
        ("refuse another's", broker.decline_pairing(&tom, &foreign.pairing_id).await.map(drop)),
        ("refuse its own", broker.decline_pairing(&tom, &own.pairing_id).await.map(drop)),
        ("without comparing", broker.confirm_pairing(&tom, &own.pairing_id, &Confirm::Vouched).await.map(drop)),
        ("by the list", broker.confirm_pairing(&tom, &own.pairing_id, &Confirm::Manifest).await.map(drop)),
        ("a code", broker.open_code(&tom, &waiting_code.user_code).await.map(drop)),
        ("approve", broker.decide(&tom, pairgate::id::GrantId(1), Decision::Approve, "", "").await.map(drop)),
        ("add a site", broker.add_site(&tom, Site::plain("paris", "Paris")).await),
        ("change a site", broker.set_site(&tom, None, Site::plain("default", "Mine")).await),
        ("add a person", broker.add_operator(&tom, "mallory", Role::Admin).await.map(drop)),
        ("give a role", broker.set_role(&tom, "mallory", "*", Some(Role::Admin)).await),
        ("a link", broker.operator_link(&tom, "mallory").await.map(drop)),
        ("disable", broker.disable_operator(&tom, "mallory").await),
    ];
    for (what, outcome) in refused {
        assert!(matches!(outcome, Err(UseCaseError::NotAllowed | UseCaseError::NotFound(_))), "{what}: {outcome:?}");
    }
    assert!(broker.devices(&tom, &DeviceQuery { limit: 10, ..DeviceQuery::default() }).await.unwrap().0.is_empty());
    assert_eq!(broker.device_counts(&tom).await.unwrap().active, 0);
    assert!(broker.audit(&tom, &AuditQuery { limit: 10, ..AuditQuery::default() }).await.unwrap().is_empty());
    assert!(broker.sites(&tom).await.unwrap().is_empty() && broker.pending_grants(&tom, 10).await.unwrap().is_empty());
    assert_eq!(broker.open_pairings(&tom, None).await.unwrap().len(), 1, "its own");
    assert!(broker.open_pairings(&tom, Some(&window_id(two))).await.unwrap().is_empty());
    assert_eq!(test.records().await.len(), records, "nothing was changed");
    // And what it is for.
    broker.device(&tom, one).await.unwrap();
    broker.open_window(&tom, &window(one), None).await.unwrap();
    broker.confirm_pairing(&tom, &own.pairing_id, &Confirm::Qr(&device.key.jkt())).await.unwrap();
}

fn window_id(id: &str) -> pairgate::id::DeviceId {
    pairgate::id::DeviceId::new(id).unwrap()
}

#[tokio::test]
async fn a_technicians_cookie_opens_no_page_of_an_operator() {
    let test = TestBroker::start().await;
    test.register("printer-01", "printer").await;
    let code = code_for(&test, "printer-01").await;
    let (tom, _) = enter(&test, "printer-01", &code).await;
    for path in [
        "/",
        "/devices",
        "/devices/printer-01",
        "/pair",
        "/pair/walk",
        "/approve",
        "/audit",
        "/events",
        "/technician/codes",
    ] {
        let answer = tom.get(path).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/sign-in")), "{path}");
    }
    let value = tom.cookie.split_once('=').unwrap().1;
    let renamed = Visitor { cookie: format!("__Host-pairgate={value}"), ..tom.clone() };
    assert_eq!(renamed.get("/devices").await.header("location"), Some("/sign-in"), "nor under another name");
    let forged =
        tom.send("/technician/pass", &encode(&[("action", "open_window"), ("csrf", "x")]), FORM, &[SAME_ORIGIN]).await;
    assert_eq!(forged.status, 403, "A-041");
    test.advance(7_200);
    assert!(tom.get("/technician").await.body.contains("Your code"), "two hours");
}

#[tokio::test]
async fn codes_end_with_the_rights_of_who_made_them_a_047() {
    let test = TestBroker::start().await;
    let root = Caller::command_line();
    for id in ["printer-01", "printer-02", "printer-03"] {
        test.register(id, "printer").await;
    }
    let dana = test.visitor("dana", Role::Technician).await;
    let list = dana.post("/technician/codes?site=default", &[("action", "list"), ("floor", "*")]).await;
    assert_eq!(list.header("content-type"), Some("text/csv; charset=utf-8"));
    assert!(list.body.starts_with('\u{FEFF}'), "umlauts, also in Excel");
    let codes: Vec<(String, String)> = list
        .body
        .lines()
        .skip(1)
        .map(|line| line.split(',').map(|cell| cell.trim_matches('"').to_owned()).collect::<Vec<_>>())
        .map(|cells| (cells[0].clone(), cells[4].clone()))
        .collect();
    assert_eq!(codes.len(), 3, "{}", list.body);
    let (tom, answer) = enter(&test, &codes[0].0, &codes[0].1).await;
    assert_eq!(answer.status, 303);
    test.broker.set_role(&root, "dana", "*", Some(Role::Viewer)).await.unwrap();
    assert!(tom.get("/technician").await.body.contains("Your code"), "the pass is over");
    assert_eq!(enter(&test, &codes[1].0, &codes[1].1).await.1.status, 403, "and the code");
    test.broker.set_role(&root, "dana", "*", Some(Role::Technician)).await.unwrap();
    assert!(!tom.get("/technician").await.body.contains("Your code"), "as the right comes and goes");
    test.broker.disable_operator(&root, "dana").await.unwrap();
    assert!(tom.get("/technician").await.body.contains("Your code"));
    assert_eq!(enter(&test, &codes[2].0, &codes[2].1).await.1.status, 403);
}

#[tokio::test]
async fn no_machine_hands_on_what_it_may_not_do_and_nobody_does_without_a_fresh_sign_in_a_085() {
    let test = TestBroker::start().await;
    test.register("printer-01", "printer").await;
    let machine = Caller { actor: Actor::Machine("deploy".into()), ..Caller::command_line() };
    let ids = ["printer-01".to_owned()];
    let outcome = test.broker.make_technician_codes(&machine, &ids).await;
    assert!(matches!(outcome, Err(UseCaseError::OnlyPeople)));
    let dana = test.visitor("dana", Role::Technician).await;
    test.advance(301);
    let answer = dana.post("/technician/codes?device=printer-01", &[("action", "page")]).await;
    let back = "/sign-in/again?back=%2Ftechnician%2Fcodes%3Fdevice%3Dprinter-01";
    assert_eq!(answer.header("location"), Some(back));
    test.suspend("printer-01").await;
    let outcome = test.broker.make_technician_codes(&Caller::command_line(), &ids).await;
    assert!(matches!(outcome, Err(UseCaseError::Refused(_))));
    assert_eq!(test.count("technician.code").await, 0);
}

#[tokio::test]
async fn a_technician_pairs_with_a_phone() {
    let test = TestBroker::start().await;
    test.register("printer-01", "printer").await;
    let dana = test.visitor("dana", Role::Technician).await;
    test.broker.operator_link(&Caller::command_line(), "dana").await.unwrap();
    drop(dana);
    let link = test.broker.operator_link(&Caller::command_line(), "dana").await.unwrap();
    browse(Look::PHONE, move |browser| async move {
        browser.open(&link).await;
        browser.click("main button").await;
        browser.see_heading("Overview").await;
        browser.open(&format!("{}/technician/codes", test.issuer)).await;
        browser.see_heading("Codes for technicians").await;
        browser.inspect("technician-codes", &[]).await;
        browser.click("button[value=page]").await;
        let code = browser.words(".codes .key").await;
        browser.inspect("technician-codes-made", &[]).await;
        browser.client.delete_all_cookies().await.unwrap();
        browser.open(&format!("{}/technician", test.issuer)).await;
        browser.see_heading("Pair as a technician").await;
        browser.inspect("technician", &[]).await;
        browser.type_into("#device", "printer-01").await;
        browser.type_into("#code", &code).await;
        browser.click("main form button.primary").await;
        browser.see_heading("Device printer-01").await;
        browser.inspect("technician-pass", &[]).await;
        browser.click("button[value=open_window]").await;
        browser.see("a.wide-button").await;
        let mut device = test.stranger("printer-01");
        device.request_pairing().await.unwrap();
        let PairingStatus::Pending { digits, .. } = device.poll_pairing().await.unwrap() else { panic!("not pending") };
        browser.click("a.wide-button").await;
        browser.see(".items a.primary").await;
        browser.inspect("technician-waiting", &[]).await;
        browser.click(".items a.primary").await;
        browser.see_heading("Pair this device?").await;
        browser.inspect("technician-pair", &[]).await;
        browser.type_into("#number", &digits).await;
        browser.click("button[value=pair_by_number]").await;
        browser.see_heading("Paired").await;
        browser.inspect("technician-done", &[]).await;
        assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
    })
    .await;
}
