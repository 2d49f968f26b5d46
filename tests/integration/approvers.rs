//! Who may approve a device, if not everybody who may at its site.

use pairgate::broker::Caller;
use pairgate::model::kind::NewApprover;
use pairgate::model::operator::{EVERYWHERE, Role};
use pairgate::model::site::Site;
use pairgate::simulator::{SimulatedDevice, TokenAnswer};

use crate::support::TestBroker;
use crate::support::child::run;
use crate::support::chromium::{Look, browse};
use crate::support::visitor::{Visitor, hidden, said};

const LIST: &str = "/devices/lobby-printer-01/approvers";

async fn approve(test: &TestBroker, visitor: &Visitor, device: &mut SimulatedDevice) -> String {
    let code = device.request_code(None, None).await.unwrap().user_code;
    approve_code(test, visitor, device, &code).await
}

async fn approve_code(test: &TestBroker, visitor: &Visitor, device: &mut SimulatedDevice, code: &str) -> String {
    let answer = visitor.post("/approve", &[("user_code", code)]).await;
    let Some(path) = answer.header("location").map(str::to_owned) else { return said(&answer) };
    test.advance(60);
    let number = test.pending(device).await.expect("a number");
    let shown = hidden(&visitor.get(&path).await.body, "shown");
    said(&visitor.post(&path, &[("shown", &shown), ("number", &number), ("action", "approve")]).await)
}

#[tokio::test]
async fn a_passer_by_with_an_account_gets_the_answer_for_unknown_codes_a_101() {
    let test = TestBroker::start().await;
    let admin = test.visitor("adam", Role::Admin).await;
    let owner = test.visitor("olga", Role::Approver).await;
    let passer_by = test.visitor("pete", Role::Approver).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let answer = admin.post(LIST, &[("action", "add"), ("name", "olga")]).await;
    assert_eq!(answer.status, 303, "{}", said(&answer));
    let code = device.request_code(None, None).await.unwrap();
    let unknown = passer_by.post("/approve", &[("user_code", "PRN-BBBB-BBBBB")]).await;
    let his = passer_by.post("/approve", &[("user_code", &code.user_code)]).await;
    assert_eq!((his.status, &his.body), (unknown.status, &unknown.body), "not even that it is a code");
    assert_eq!((test.count("grant.not_listed").await, test.count("user_code.refused").await), (1, 2));
    let hers = admin.post("/approve", &[("user_code", &code.user_code)]).await;
    assert_eq!(hers.status, 404, "an administrator is no exception");
    assert!(admin.get("/alerts").await.body.contains("somebody who may not approve this device opened its sign-in"));
    assert_eq!(test.number_of(&mut device).await, None, "the device shows nothing to him");
    let path = owner.post("/approve", &[("user_code", &code.user_code)]).await;
    let path = path.header("location").unwrap().to_owned();
    let shown = hidden(&owner.get(&path).await.body, "shown");
    let number = test.number_of(&mut device).await.expect("a number");
    // Taken off the list while her page is open.
    admin.post(LIST, &[("action", "add"), ("name", "adam")]).await;
    admin.post(LIST, &[("action", "remove"), ("name", "olga")]).await;
    assert_eq!(owner.get(&path).await.status, 404);
    let late = owner.post(&path, &[("shown", &shown), ("number", &number), ("action", "approve")]).await;
    assert_eq!(late.status, 409);
    assert!(!matches!(test.told(&mut device).await, TokenAnswer::Tokens(_)));
    assert_eq!(approve(&test, &admin, &mut device).await, "Approved", "who is on it now");
    admin.post(LIST, &[("action", "add"), ("name", "olga")]).await;
    admin.post(LIST, &[("action", "remove"), ("name", "adam")]).await;
    assert!(matches!(test.told(&mut device).await, TokenAnswer::Denied), "taken off before the device fetched it");
}

impl TestBroker {
    async fn number_of(&self, device: &mut SimulatedDevice) -> Option<String> {
        self.advance(60);
        self.pending(device).await
    }

    async fn told(&self, device: &mut SimulatedDevice) -> TokenAnswer {
        self.advance(60);
        device.poll_token(None).await.unwrap()
    }
}

#[tokio::test]
async fn who_is_new_to_a_device_needs_a_second_person_where_its_kind_says_so_a_101() {
    let test = TestBroker::with_kind("printer", |kind| kind.new_approver = NewApprover::Second).await;
    let dana = test.visitor("dana", Role::Approver).await;
    let sam = test.visitor("sam", Role::Approver).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    assert_eq!(approve(&test, &dana, &mut device).await, "Approved", "nobody has before");
    assert!(matches!(test.told(&mut device).await, TokenAnswer::Tokens(_)));
    let code = device.request_code(None, None).await.unwrap().user_code;
    assert_eq!(approve_code(&test, &sam, &mut device, &code).await, "A second person must approve");
    assert_eq!(approve_code(&test, &dana, &mut device, &code).await, "Approved");
    let TokenAnswer::Tokens(tokens) = test.told(&mut device).await else { panic!("no tokens") };
    assert_eq!(tokens.approved_by.as_deref(), Some("sam, dana"));
    assert_eq!(approve(&test, &sam, &mut device).await, "Approved", "new no more");
}

#[tokio::test]
async fn the_list_is_an_administrators_of_the_site_and_freshly_signed_in_a_080_a_101() {
    let test = TestBroker::start().await;
    let admin = test.visitor("adam", Role::Admin).await;
    let approver = test.visitor("olga", Role::Approver).await;
    test.broker.add_site(&Caller::command_line(), Site::plain("paris", "Paris")).await.unwrap();
    let stranger = test.visitor("pierre", Role::Admin).await;
    test.broker.set_role(&Caller::command_line(), "pierre", EVERYWHERE, None).await.unwrap();
    test.broker.set_role(&Caller::command_line(), "pierre", "paris", Some(Role::Admin)).await.unwrap();
    test.register("lobby-printer-01", "printer").await;
    let add = |name: &'static str| [("action", "add"), ("name", name)];
    assert_eq!(stranger.get(LIST).await.status, 404);
    assert_eq!(stranger.post(LIST, &add("olga")).await.status, 404);
    let page = approver.get(LIST).await;
    assert_eq!(page.status, 200);
    assert!(!page.body.contains("value=\"add\""), "{}", page.body);
    assert_eq!(approver.post(LIST, &add("olga")).await.status, 422, "she may look");
    for (name, what) in [("pierre", "may not approve at this device's site"), ("nobody", "may not approve")] {
        let answer = admin.post(LIST, &add(name)).await;
        assert!(answer.status == 422 && said(&answer).contains(what), "{name}: {}", said(&answer));
    }
    assert_eq!(admin.post(LIST, &add("olga")).await.status, 303);
    assert!(said(&admin.post(LIST, &add("olga")).await).contains("is on the list already"));
    let off = admin.post(LIST, &[("action", "remove"), ("name", "adam")]).await;
    assert!(said(&off).contains("is not on the list"), "{}", said(&off));
    assert_eq!(admin.post(LIST, &[("action", "empty"), ("name", "olga")]).await.status, 422);
    test.advance(301);
    let stale = admin.post(LIST, &add("adam")).await;
    let to = stale.header("location").unwrap_or_default();
    assert!(stale.status == 303 && to.starts_with("/sign-in/again"), "{} {to}", stale.status);
    assert_eq!((test.count("approver.added").await, test.count("approver.removed").await), (1, 0));
    let history = admin.get("/devices/lobby-printer-01").await.body;
    assert!(history.contains("a person was put on the list") && history.contains(LIST), "{history}");
}

#[test]
fn the_list_is_changed_by_command() {
    let data = tempfile::tempdir().unwrap();
    let command = |words: &[&str]| {
        let output = run(data.path(), words);
        let (out, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code(), out, error)
    };
    for words in [
        &["operator", "add", "olga", "--role", "approver"][..],
        &["operator", "add", "sam", "--role", "admin"],
        &["operator", "add", "vera", "--role", "viewer"],
        &["device", "add", "lobby-printer-01", "--kind", "printer"],
    ] {
        assert_eq!(command(words).0, Some(0), "{words:?}");
    }
    let list = |options: &[&str]| command(&[&["device", "approvers", "lobby-printer-01"], options].concat());
    let (code, out, error) = list(&[]);
    let everybody = "everybody who may approve at default may approve lobby-printer-01: olga, sam\n";
    assert_eq!((code, out.as_str()), (Some(0), everybody), "{error}");
    let (_, out, _) = list(&["--add", "olga", "--add", "sam"]);
    assert_eq!(out, "only these may approve lobby-printer-01: olga, sam\n");
    let (_, out, _) = list(&["--remove", "sam", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told, serde_json::json!({"device": "lobby-printer-01", "approvers": ["olga"], "restricted": true}));
    let (code, _, error) = list(&["--add", "vera"]);
    assert!(code == Some(1) && error.contains("may not approve at this device's site"), "{code:?} {error}");
}

#[tokio::test]
async fn the_list_looks_right() {
    for look in [Look::PHONE, Look::DESK.dark()] {
        let test = TestBroker::start().await;
        test.visitor("dana", Role::Admin).await;
        test.visitor("olga", Role::Approver).await;
        test.register("lobby-printer-01", "printer").await;
        browse(look, move |browser| async move {
            browser.open(&format!("{}{}", test.issuer, test.link("dana").await)).await;
            browser.click("main button").await;
            browser.see_heading("Overview").await;
            browser.open(&format!("{}/devices/lobby-printer-01", test.issuer)).await;
            browser.click(&format!("a[href='{LIST}']")).await;
            browser.see_heading("Who may approve it").await;
            browser.inspect("approvers-empty", &[]).await;
            browser.run("document.getElementById('name').value = 'olga'").await;
            browser.click("button[value=add]").await;
            browser.see("button[value=remove]").await;
            browser.inspect("approvers", &[]).await;
            browser.assert_keyboard_reaches_everything("approvers").await;
        })
        .await;
    }
}
