//! When one person is not enough, how many codes one person has open, and how a decision is taken back.

use pairgate::broker::Caller;
use pairgate::broker::pairing::Confirm;
use pairgate::model::audit::Actor;
use pairgate::model::device::{DeviceFacts, DeviceState};
use pairgate::model::operator::Role;
use pairgate::model::site::Site;
use pairgate::simulator::{PairingStatus, RawAnswer, SimulatedDevice, TokenAnswer};
use pairgate::store::WindowSubject;

use crate::support::chromium::{Chromium, Look, browse};
use crate::support::visitor::{Visitor, hidden, said};
use crate::support::{START, TestBroker};

const FIRST_LINE: &str = "A second person must approve";

impl TestBroker {
    /// A person who is there, as a caller of use cases.
    async fn caller(&self, name: &str) -> Caller {
        let people = self.broker.operators().await.unwrap();
        let person = people.into_iter().find(|person| person.name == name).unwrap();
        let actor = Actor::Operator(person.name);
        Caller {
            actor,
            rights: person.rights,
            operator: Some(person.id),
            proved_at: Some(self.clock.now()),
            session: None,
            only_device: None,
            peer: None,
        }
    }

    /// A device that this person registered and paired.
    async fn paired_by(&self, name: &str, id: &str) -> SimulatedDevice {
        let caller = self.caller(name).await;
        let facts = DeviceFacts { kind: "printer".into(), ..DeviceFacts::default() };
        let device_id = self.broker.register_device(&caller, id, facts).await.unwrap();
        self.broker.open_window(&caller, &WindowSubject::Device(device_id), None).await.unwrap();
        let mut device = self.stranger(id);
        let shown = device.request_pairing().await.unwrap();
        let PairingStatus::Pending { digits, .. } = device.poll_pairing().await.unwrap() else { panic!("not pending") };
        self.broker.confirm_pairing(&caller, &shown.pairing_id, &Confirm::Number(&digits)).await.unwrap();
        assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
        device
    }

    async fn set_two_persons(&self, two_persons: bool) {
        let site = Site { two_persons, ..Site::plain("default", "Berlin HQ") };
        self.broker.set_site(&Caller::command_line(), None, site).await.unwrap();
    }

    async fn set_quiet_hours(&self, hours: &str) {
        let site = Site { quiet_hours: hours.into(), ..Site::plain("default", "Berlin HQ") };
        self.broker.set_site(&Caller::command_line(), None, site).await.unwrap();
    }

    /// The number that the device shows now, if it shows one.
    async fn number(&self, device: &mut SimulatedDevice) -> Option<String> {
        self.advance(60);
        self.pending(device).await
    }

    /// What the device is told now.
    async fn polled(&self, device: &mut SimulatedDevice) -> TokenAnswer {
        self.advance(60);
        device.poll_token(None).await.unwrap()
    }
}

/// Opens a code; the path of its page.
async fn opened(visitor: &Visitor, code: &str) -> String {
    let answer = visitor.post("/approve", &[("user_code", code)]).await;
    assert_eq!(answer.status, 303, "{}", said(&answer));
    answer.header("location").unwrap().to_owned()
}

async fn press(visitor: &Visitor, path: &str, action: &str, number: &str) -> RawAnswer {
    let shown = hidden(&visitor.get(path).await.body, "shown");
    visitor.post(path, &[("shown", &shown), ("number", number), ("action", action)]).await
}

/// Opens and approves with the number that the device then shows.
pub async fn approve(test: &TestBroker, visitor: &Visitor, device: &mut SimulatedDevice, code: &str) -> RawAnswer {
    let path = opened(visitor, code).await;
    let number = test.number(device).await.expect("a number");
    press(visitor, &path, "approve", &number).await
}

#[tokio::test]
async fn who_paired_a_device_may_not_let_it_in_alone_a_079() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let sam = test.visitor("sam", Role::Approver).await;
    test.set_two_persons(true).await;
    let mut device = test.paired_by("dana", "lobby-printer-01").await;
    let code = device.request_code(None, None).await.unwrap();

    let path = opened(&dana, &code.user_code).await;
    let page = dana.get(&path).await.body;
    assert!(page.contains("who registered or paired it may not alone"), "she is told before: {page}");
    let number = test.number(&mut device).await.expect("a number");
    let answer = press(&dana, &path, "approve", &number).await;
    assert_eq!((answer.status, said(&answer).as_str()), (200, FIRST_LINE));
    assert_eq!((test.count("grant.first_approved").await, test.count("grant.approved").await), (1, 0));
    assert_eq!(test.number(&mut device).await, None, "nobody has it open now, and it is not in");
    assert_eq!(dana.get(&path).await.status, 404);
    let again = dana.post("/approve", &[("user_code", &code.user_code)]).await;
    assert_eq!((again.status, said(&again).as_str()), (409, FIRST_LINE), "the same person is no second one");
    assert_eq!(test.count("user_code.refused").await, 0, "and that is no guess");

    assert!(sam.get("/").await.body.contains("A first person approved it. A second must."));
    let path = opened(&sam, &code.user_code).await;
    let page = sam.get(&path).await.body;
    assert!(page.contains("First approved by dana"), "{page}");
    let number = test.number(&mut device).await.expect("a number of his own");
    let wrong = if number == "00" { "01" } else { "00" };
    assert_eq!(press(&sam, &path, "approve", wrong).await.status, 422, "he must stand there, too");
    assert_eq!(press(&sam, &path, "approve", &number).await.status, 200);
    let TokenAnswer::Tokens(tokens) = test.polled(&mut device).await else { panic!("no tokens") };
    assert_eq!(tokens.approved_by.as_deref(), Some("dana, sam"), "the device shows who (A-101)");

    let code = device.request_code(None, None).await.unwrap();
    let answer = approve(&test, &dana, &mut device, &code.user_code).await;
    assert_eq!(said(&answer), "Approved", "the next one is not its first");
    let TokenAnswer::Tokens(tokens) = test.polled(&mut device).await else { panic!("no tokens") };
    assert_eq!(tokens.approved_by.as_deref(), Some("dana"));
    let TokenAnswer::Tokens(refreshed) = device.refresh().await.unwrap() else { panic!("no refresh") };
    assert_eq!(refreshed.approved_by, None, "nobody decided anew");
}

#[tokio::test]
async fn the_rule_is_off_by_default_and_ends_after_a_day_a_079() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let mut device = test.paired_by("dana", "lobby-printer-01").await;
    let code = device.request_code(None, None).await.unwrap();
    assert_eq!(said(&approve(&test, &dana, &mut device, &code.user_code).await), "Approved");

    let test = TestBroker::with_kind("printer", |kind| kind.two_persons = true).await;
    let dana = test.visitor("dana", Role::Admin).await;
    let mut device = test.paired_by("dana", "lobby-printer-01").await;
    let code = device.request_code(None, None).await.unwrap();
    assert_eq!(said(&approve(&test, &dana, &mut device, &code.user_code).await), FIRST_LINE, "the kind wants it");
    test.advance(86_400);
    let dana = test.another_session("dana").await;
    let code = device.request_code(None, None).await.unwrap();
    assert_eq!(said(&approve(&test, &dana, &mut device, &code.user_code).await), "Approved", "others had a day");
    assert!(matches!(test.polled(&mut device).await, TokenAnswer::Tokens(_)));
}

#[tokio::test]
async fn a_rule_that_came_while_the_page_was_open_is_shown_first_a_044_a_079() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    let mut device = test.paired_by("dana", "lobby-printer-01").await;
    let code = device.request_code(None, None).await.unwrap();
    let path = opened(&dana, &code.user_code).await;
    let shown = hidden(&dana.get(&path).await.body, "shown");
    let number = test.number(&mut device).await.expect("a number");
    test.set_two_persons(true).await;
    let answer = dana.post(&path, &[("shown", &shown), ("number", &number), ("action", "approve")]).await;
    assert_eq!(answer.status, 422, "{}", said(&answer));
    assert!(said(&answer).contains("Something has changed"), "{}", said(&answer));
    // And one that came after the approval, before the device fetched it.
    test.set_two_persons(false).await;
    assert_eq!(said(&press(&dana, &path, "approve", &number).await), "Approved");
    test.set_two_persons(true).await;
    assert!(matches!(test.polled(&mut device).await, TokenAnswer::Denied), "it is looked at again");
}

#[tokio::test]
async fn a_first_approver_who_left_counts_for_nothing_a_047_a_079() {
    let test = TestBroker::start().await;
    test.set_two_persons(true).await;
    let sam = test.visitor("sam", Role::Approver).await;
    test.broker.add_operator(&Caller::command_line(), "root", Role::Admin).await.unwrap();
    for (person, is_before) in [("dana", true), ("emil", false)] {
        let visitor = test.visitor(person, Role::Admin).await;
        let mut device = test.paired_by(person, &format!("printer-of-{person}")).await;
        let code = device.request_code(None, None).await.unwrap();
        approve(&test, &visitor, &mut device, &code.user_code).await;
        if is_before {
            test.broker.disable_operator(&Caller::command_line(), person).await.unwrap();
        }
        let answer = approve(&test, &sam, &mut device, &code.user_code).await;
        if is_before {
            assert_eq!((answer.status, said(&answer).as_str()), (409, "Not approved"));
        } else {
            assert_eq!(said(&answer), "Approved");
            test.broker.disable_operator(&Caller::command_line(), person).await.unwrap();
        }
        assert!(matches!(test.polled(&mut device).await, TokenAnswer::Denied), "{person}");
    }
    assert_eq!(test.count("token.issued").await, 0);
}

#[tokio::test]
async fn a_person_decides_one_before_a_sixth_is_opened_a_092() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    let mut codes = Vec::new();
    for number in 1..=6 {
        let mut device = test.paired(&format!("printer-{number:02}"), "printer").await;
        codes.push(device.request_code(None, None).await.unwrap().user_code);
    }
    let mut paths = Vec::new();
    for code in &codes[..5] {
        paths.push(opened(&dana, code).await);
    }
    let answer = dana.post("/approve", &[("user_code", &codes[5])]).await;
    assert_eq!((answer.status, said(&answer).as_str()), (429, "Decide one first"));
    assert!(answer.body.contains("Decide or deny one first"), "{}", answer.body);
    assert_eq!(test.count("user_code.refused").await, 0, "it is no guess");
    press(&dana, &paths[0], "deny", "").await;
    opened(&dana, &codes[5]).await;
}

#[tokio::test]
async fn nobody_is_called_in_quiet_hours_and_who_stands_there_is_served_a_092() {
    let test = TestBroker::start().await;
    // The test begins at 06:00 UTC.
    assert_eq!(START.rfc3339(), "2026-11-24T06:00:00Z");
    let dana = test.visitor("dana", Role::Approver).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    test.set_quiet_hours("05:30-07:15").await;
    let mut pings = test.broker.wake().subscribe();
    let code = device.request_code(None, None).await.unwrap();
    assert!(pings.try_recv().is_err(), "no page is woken");
    let page = dana.get("/").await.body;
    assert!(page.contains("is quiet until 07:15 UTC"), "{page}");
    assert!(!page.contains("/devices/lobby-printer-01"), "it is not announced: {page}");
    let path = opened(&dana, &code.user_code).await;
    assert!(dana.get("/").await.body.contains(&format!("href=\"{path}\"")), "what she has open is hers");
    let number = test.number(&mut device).await.expect("a number");
    assert_eq!(said(&press(&dana, &path, "approve", &number).await), "Approved");
    test.set_quiet_hours("22:00-06:00").await;
    let mut pings = test.broker.wake().subscribe();
    device.request_code(None, None).await.unwrap();
    assert!(pings.try_recv().is_ok(), "by day it rings");
    let page = dana.get("/").await.body;
    assert!(page.contains("/devices/lobby-printer-01") && !page.contains("is quiet until"), "{page}");
}

#[tokio::test]
async fn one_button_reports_and_blocks_the_device_a_092() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    let operator = test.operator("emil", Role::Admin).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    test.signed_in(&operator, &mut device).await;
    let code = device.request_code(None, None).await.unwrap();
    let path = opened(&dana, &code.user_code).await;
    let answer = press(&dana, &path, "block", "").await;
    assert_eq!((answer.status, said(&answer).as_str()), (200, "Reported and blocked"));
    let stopped = test.broker.device(&Caller::command_line(), "lobby-printer-01").await.unwrap();
    assert_eq!(stopped.state, DeviceState::Suspended);
    assert_eq!((test.count("grant.reported").await, test.count("device.suspended").await), (1, 1));
    assert!(device.request_code(None, None).await.is_err(), "it can't ask again");
    assert!(!matches!(device.refresh().await, Ok(TokenAnswer::Tokens(_))), "what it held is dead");
    assert!(dana.get("/alerts").await.body.contains("sign-in reported as suspicious"));
    let resume = dana.post("/devices/lobby-printer-01", &[("action", "resume")]).await;
    assert_ne!(resume.status, 303, "an approver can stop it, and not start it again");
}

#[tokio::test]
async fn an_approval_is_taken_back_in_one_step_by_who_gave_it_a_101() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    let sam = test.visitor("sam", Role::Admin).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let code = device.request_code(None, None).await.unwrap();
    let answer = approve(&test, &dana, &mut device, &code.user_code).await;
    let undo = answer.body.split("action=\"/approve/").nth(1).unwrap().split('"').next().unwrap();
    let undo = format!("/approve/{undo}");
    assert!(matches!(test.polled(&mut device).await, TokenAnswer::Tokens(_)));
    for other in [sam.get(&undo).await, sam.post(&undo, &[]).await] {
        assert_eq!(other.status, 404, "another's");
    }
    assert_eq!(said(&dana.get(&undo).await), "Approved", "it has an address to come back to");
    let done = dana.post(&undo, &[]).await;
    assert_eq!((done.status, said(&done).as_str()), (200, "This sign-in has ended"));
    assert!(!matches!(device.refresh().await, Ok(TokenAnswer::Tokens(_))));
    assert_eq!(test.count("grant.undone").await, 1);
    for again in [dana.get(&undo).await, dana.post(&undo, &[]).await] {
        assert_eq!(again.status, 404, "once");
    }

    // Before the device has fetched it, and a day later.
    let code = device.request_code(None, None).await.unwrap();
    let answer = approve(&test, &dana, &mut device, &code.user_code).await;
    let undo =
        format!("/approve/{}", answer.body.split("action=\"/approve/").nth(1).unwrap().split('"').next().unwrap());
    dana.post(&undo, &[]).await;
    assert!(!matches!(test.polled(&mut device).await, TokenAnswer::Tokens(_)));
    let code = device.request_code(None, None).await.unwrap();
    let answer = approve(&test, &dana, &mut device, &code.user_code).await;
    let undo =
        format!("/approve/{}", answer.body.split("action=\"/approve/").nth(1).unwrap().split('"').next().unwrap());
    assert!(matches!(test.polled(&mut device).await, TokenAnswer::Tokens(_)));
    test.advance(86_400);
    let dana = test.another_session("dana").await;
    assert_eq!(dana.post(&undo, &[]).await.status, 404, "a day is over");
}

/// The new forms are no easier to forge than the others.
#[tokio::test]
async fn forged_undo_and_block_do_nothing_a_041_a_046() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let code = device.request_code(None, None).await.unwrap();
    let path = opened(&dana, &code.user_code).await;
    let form = crate::support::visitor::FORM;
    for body in ["action=block", "action=block&csrf=x", "action=block&action=deny"] {
        assert_eq!(dana.send(&path, body, form, &[]).await.status, 403, "{body}");
        assert_eq!(dana.send(&format!("{path}/undo"), body, form, &[]).await.status, 403, "{body}");
    }
    assert_eq!(press(&dana, &path, "Block", "").await.status, 403, "only the word");
    assert_eq!(dana.get(&format!("{path}/undo")).await.status, 404, "nothing is approved");
    assert_eq!(test.count("grant.reported").await + test.count("grant.undone").await, 0);
}

async fn sign_in(browser: &Chromium, test: &TestBroker, name: &str) {
    browser.open(&format!("{}{}", test.issuer, test.link(name).await)).await;
    browser.see_heading("Sign in").await;
    browser.click("main button").await;
    browser.see_heading("Overview").await;
}

/// Types the code and the number, and presses the button.
async fn decide(browser: &Chromium, test: &TestBroker, device: &mut SimulatedDevice, code: &str, button: &str) {
    browser.open(&format!("{}/approve", test.issuer)).await;
    browser.type_into("#user_code", code).await;
    browser.click("main form button.primary").await;
    browser.see_heading("Let this printer sign in?").await;
    let number = test.number(device).await.expect("a number");
    browser.type_into("#number", &number).await;
    browser.click(button).await;
}

async fn two_people_decide_by_clicking(look: Look) {
    let test = TestBroker::start().await;
    test.broker.add_operator(&Caller::command_line(), "dana", Role::Admin).await.unwrap();
    test.broker.add_operator(&Caller::command_line(), "sam", Role::Approver).await.unwrap();
    browse(look, move |browser| async move {
        sign_in(&browser, &test, "dana").await;
        browser.see("a[href='/settings']").await;
        browser.inspect("overview-two-persons-offered", &[]).await;
        test.set_two_persons(true).await;
        let mut device = test.paired_by("dana", "lobby-printer-01").await;
        let code = device.request_code(None, None).await.unwrap().user_code;
        decide(&browser, &test, &mut device, &code, "button[value=approve]").await;
        browser.see_heading(FIRST_LINE).await;
        browser.inspect("approve-first", &[]).await;
        browser.click("header .who button").await;
        browser.see_heading("Sign in").await;
        sign_in(&browser, &test, "sam").await;
        browser.open(&format!("{}/approve", test.issuer)).await;
        browser.type_into("#user_code", &code).await;
        browser.click("main form button.primary").await;
        browser.see_heading("Let this printer sign in?").await;
        assert!(browser.text().await.contains("First approved by dana"));
        browser.inspect("approve-second", &[]).await;
        let number = test.number(&mut device).await.expect("a number");
        browser.type_into("#number", &number).await;
        browser.click("button[value=approve]").await;
        browser.see_heading("Approved").await;
        browser.inspect("approve-undo", &[]).await;
        assert!(matches!(test.polled(&mut device).await, TokenAnswer::Tokens(_)));
        browser.click("form[action$='/undo'] button").await;
        browser.see_heading("This sign-in has ended").await;
        browser.inspect("approve-undone", &[]).await;
        assert!(!matches!(device.refresh().await, Ok(TokenAnswer::Tokens(_))));
        let code = device.request_code(None, None).await.unwrap().user_code;
        decide(&browser, &test, &mut device, &code, "button[value=block]").await;
        browser.see_heading("Reported and blocked").await;
        browser.inspect("approve-blocked", &[]).await;
        let stopped = test.broker.device(&Caller::command_line(), "lobby-printer-01").await.unwrap();
        assert_eq!(stopped.state, DeviceState::Suspended);
    })
    .await;
}

#[tokio::test]
async fn two_people_decide_by_clicking_on_a_phone_a_079() {
    two_people_decide_by_clicking(Look::PHONE).await;
}

#[tokio::test]
async fn two_people_decide_by_clicking_at_a_desk_in_the_dark_a_079() {
    two_people_decide_by_clicking(Look::DESK.dark()).await;
}
