//! A person's own page: sessions, signing out everywhere, and passkeys in a real browser.

use pairgate::broker::Caller;
use pairgate::model::operator::Role;
use pairgate::simulator::TokenAnswer;

use crate::support::TestBroker;
use crate::support::chromium::{Chromium, Look, browse};
use crate::support::visitor::{Visitor, hidden, said};

const PHONE: &str =
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36";

#[tokio::test]
async fn sessions_are_listed_with_their_browsers_and_ended_one_by_one() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    test.visitor("emil", Role::Approver).await;
    let link = test.link("dana").await;
    let mut phone = test.passer_by();
    phone.headers = vec![("user-agent".into(), PHONE.into())];
    phone.sign_in(&link).await;
    let page = dana.get("/account").await.body;
    assert_eq!(page.matches("data-label=\"Last used\"").count(), 2, "hers and nobody else's");
    assert!(page.contains("Chrome on Android") && page.contains("127.0.0.1") && page.contains("by a one-time link"));
    assert!(!page.contains(dana.cookie.split_once('=').unwrap().1), "no id of a session is shown");
    assert_eq!(page.matches(">this one<").count(), 1);

    let handle = hidden(&page, "session");
    for wrong in ["", "x", &handle[1..]] {
        let answer = dana.post("/account", &[("action", "end_session"), ("session", wrong)]).await;
        assert!(said(&answer).contains("over already"), "{wrong}");
    }
    let emil = test.another_session("emil").await;
    let answer = emil.post("/account", &[("action", "end_session"), ("session", &handle)]).await;
    assert!(said(&answer).contains("over already"), "another person's session can't be named");
    assert_eq!(phone.get("/account").await.status, 200);
    let answer = dana.post("/account", &[("action", "end_session"), ("session", &handle)]).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/account")));
    assert_eq!(phone.get("/account").await.header("location"), Some("/sign-in"), "out at once");
    assert_eq!(dana.get("/account").await.status, 200);
    for action in ["", "foo", "remove"] {
        assert_eq!(dana.post("/account", &[("action", action)]).await.status, 403, "{action}");
    }
}

#[tokio::test]
async fn what_a_browser_says_of_itself_stays_text() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Viewer).await;
    let link = test.link("dana").await;
    let mut odd = test.passer_by();
    let agent = format!("<script>alert(1)</script>{}", "x".repeat(500));
    odd.headers = vec![("user-agent".into(), agent)];
    odd.sign_in(&link).await;
    let page = dana.get("/account").await.body;
    assert!(!page.contains("<script>alert") && page.contains("&#60;script&#62;alert(1)"), "escaped");
    assert!(!page.contains(&"x".repeat(120)), "and cut");
}

async fn approved(test: &TestBroker, dana: &Visitor) -> pairgate::simulator::SimulatedDevice {
    let mut device = test.paired("tv-01", "tv").await;
    let code = device.request_code(None, None).await.unwrap();
    let (path, number) = claimed(test, dana, &mut device, &code.user_code).await;
    let shown = hidden(&dana.get(&path).await.body, "shown");
    let answer = dana.post(&path, &[("shown", &shown), ("number", &number), ("action", "approve")]).await;
    assert_eq!(answer.status, 200);
    device
}

async fn claimed(
    test: &TestBroker,
    dana: &Visitor,
    device: &mut pairgate::simulator::SimulatedDevice,
    code: &str,
) -> (String, String) {
    let answer = dana.post("/approve", &[("user_code", code)]).await;
    test.advance(60);
    let number = test.pending(device).await.expect("a number");
    (answer.header("location").unwrap().to_owned(), number)
}

#[tokio::test]
async fn signing_out_everywhere_voids_what_was_approved_and_not_fetched_a_047() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    let other = test.another_session("dana").await;
    let mut device = approved(&test, &dana).await;
    let answer = dana.post("/account", &[("action", "sign_out_everywhere")]).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/sign-in")));
    for session in [&dana, &other] {
        assert_eq!(session.get("/").await.header("location"), Some("/sign-in"));
    }
    test.advance(60);
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Denied));
    assert_eq!(test.count("token.issued").await, 0);
    // What the same person approves afterwards holds.
    let again = test.another_session("dana").await;
    let code = device.request_code(None, None).await.unwrap();
    let (path, number) = claimed(&test, &again, &mut device, &code.user_code).await;
    let shown = hidden(&again.get(&path).await.body, "shown");
    again.post(&path, &[("shown", &shown), ("number", &number), ("action", "approve")]).await;
    test.advance(60);
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Tokens(_)));
}

#[tokio::test]
async fn a_person_who_is_disabled_after_approving_lets_nobody_in_a_047() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    let mut device = approved(&test, &dana).await;
    test.broker.disable_operator(&Caller::command_line(), "dana").await.unwrap();
    assert_eq!(dana.get("/").await.header("location"), Some("/sign-in"), "out at once");
    test.advance(60);
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Denied));
}

#[tokio::test]
async fn what_one_session_was_shown_approves_nothing_in_another_a_055() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Approver).await;
    let relay = test.another_session("dana").await;
    let mut device = test.paired("tv-01", "tv").await;
    let code = device.request_code(None, None).await.unwrap();
    let (path, number) = claimed(&test, &dana, &mut device, &code.user_code).await;
    let shown = hidden(&dana.get(&path).await.body, "shown");
    let form = [("shown", shown.as_str()), ("number", number.as_str()), ("action", "approve")];
    let answer = relay.post(&path, &form).await;
    assert_eq!(answer.status, 422);
    assert_eq!(said(&answer), "Something has changed since you opened this page. Look again.");
    assert_eq!(test.count("grant.approved").await + test.count("grant.wrong_number").await, 0);
    assert_eq!(dana.post(&path, &form).await.status, 200, "where it was shown it holds");
    // Once: the same form again decides nothing.
    assert_ne!(dana.post(&path, &form).await.status, 200);
    assert_eq!(test.count("grant.approved").await, 1);
}

/// Signs in by a one-time link.
async fn by_link(browser: &Chromium, test: &TestBroker) {
    let link = test.link("dana").await;
    browser.open(&format!("{}{link}", test.issuer)).await;
    browser.click("main button").await;
    browser.see_heading("Overview").await;
}

async fn open(browser: &Chromium, test: &TestBroker, path: &str) {
    browser.open(&format!("{}{path}", test.issuer)).await;
}

async fn add(browser: &Chromium, name: &str) {
    browser.type_into("#passkey-name", name).await;
    browser.click("form.add button").await;
}

/// What the script says under a form.
async fn refusal(browser: &Chromium) -> String {
    browser.words("form[data-passkey] [role=alert]:not([hidden])").await
}

/// The browser's own complaint about a status that is meant.
const REFUSED: [&str; 1] = ["status of 403"];

async fn a_passkey_lives_and_ends(look: Look) {
    let test = TestBroker::at_localhost().await;
    test.broker.add_operator(&Caller::command_line(), "dana", Role::Admin).await.unwrap();
    browse(look, move |browser| async move {
        browser.plug_authenticator_in(true).await;
        by_link(&browser, &test).await;
        browser.inspect("overview-offers-passkey", &[]).await;
        browser.click("main a[href='/account#passkeys']").await;
        browser.see_heading("Your account").await;
        browser.see("form.add:not([hidden])").await;
        browser.inspect("account-empty", &[]).await;
        add(&browser, "blue Pixel").await;
        browser.see("button[value=remove_passkey]").await;
        browser.inspect("account", &[]).await;
        browser.assert_keyboard_reaches_everything("account").await;
        // The same authenticator has one already.
        add(&browser, "once more").await;
        assert_eq!(refusal(&browser).await, "This device has a passkey for you already. Use that one.");

        browser.click("header .who button").await;
        browser.see_heading("Sign in").await;
        browser.see("form[data-passkey]:not([hidden])").await;
        browser.inspect("sign-in-passkey", &[]).await;
        browser.click("form[data-passkey] button").await;
        browser.see_heading("Overview").await;
        assert!(!browser.text().await.contains("one-time link"), "nothing more to offer");

        // What is dangerous wants her once more; then it goes on where she was.
        test.advance(301);
        open(&browser, &test, "/account").await;
        browser.click("button[value=remove_passkey]").await;
        browser.see_heading("Sign in once more").await;
        browser.see("form[data-passkey]:not([hidden])").await;
        browser.inspect("sign-in-again", &[]).await;
        browser.click("form[data-passkey] button").await;
        browser.see_heading("Your account").await;
        browser.click("button[value=remove_passkey]").await;
        browser.see("form.add button.primary").await;
        assert!(!browser.text().await.contains("blue Pixel"));

        browser.click("button[value=sign_out_everywhere]").await;
        browser.see_heading("Sign in").await;
        browser.click("form[data-passkey] button").await;
        let said = refusal(&browser).await;
        assert_eq!(said, "This passkey opens nothing here. Use another one, or ask for a one-time link.");
        browser.inspect("sign-in-passkey-refused", &REFUSED).await;
    })
    .await;
}

#[tokio::test]
async fn a_passkey_is_added_used_and_removed_on_a_phone() {
    a_passkey_lives_and_ends(Look::PHONE).await;
}

#[tokio::test]
async fn a_passkey_is_added_used_and_removed_at_a_desk_in_the_dark() {
    a_passkey_lives_and_ends(Look::DESK.dark()).await;
}

#[tokio::test]
async fn a_passkey_that_does_not_check_who_is_there_opens_nothing_a_055() {
    let test = TestBroker::at_localhost().await;
    test.broker.add_operator(&Caller::command_line(), "dana", Role::Admin).await.unwrap();
    browse(Look::PHONE, move |browser| async move {
        let authenticator = browser.plug_authenticator_in(false).await;
        by_link(&browser, &test).await;
        open(&browser, &test, "/account").await;
        let cancelled = "Your browser got no passkey. Try again, or choose another way.";
        add(&browser, "nobody's").await;
        assert_eq!(refusal(&browser).await, cancelled);
        assert_eq!(test.count("passkey.added").await, 0);
        browser.set_verified(&authenticator, true).await;
        open(&browser, &test, "/account").await;
        add(&browser, "blue Pixel").await;
        browser.see("button[value=remove_passkey]").await;

        browser.click("header .who button").await;
        // The page before this one has such a button, too.
        browser.see_heading("Sign in").await;
        browser.set_verified(&authenticator, false).await;
        browser.click("form[data-passkey] button").await;
        assert_eq!(refusal(&browser).await, cancelled);
        open(&browser, &test, "/devices").await;
        browser.see_heading("Sign in").await;
    })
    .await;
}

#[tokio::test]
async fn a_page_of_another_address_can_not_use_a_passkey_a_055() {
    let (test, elsewhere) = (TestBroker::at_localhost().await, TestBroker::start().await);
    test.broker.add_operator(&Caller::command_line(), "dana", Role::Admin).await.unwrap();
    browse(Look::DESK, move |browser| async move {
        browser.plug_authenticator_in(true).await;
        by_link(&browser, &test).await;
        open(&browser, &test, "/account").await;
        add(&browser, "blue Pixel").await;
        browser.see("button[value=remove_passkey]").await;
        // A page of another origin asks with our address, as a relay would.
        open(&browser, &elsewhere, "/sign-in").await;
        let script = "const done = arguments[0]; navigator.credentials.get({publicKey: {challenge: new Uint8Array(32), rpId: 'localhost'}})
            .then(() => done('given'), (error) => done(error.name))";
        let answer = browser.client.execute_async(script, Vec::new()).await.unwrap();
        assert_eq!(answer, "SecurityError");
    })
    .await;
}
