//! What the overview, the alerts and the audit log show, to whom, and that they follow what happens.

use pairgate::broker::Caller;
use pairgate::model::device::DeviceFacts;
use pairgate::model::operator::{EVERYWHERE, Role};
use pairgate::model::site::Site;

use crate::support::TestBroker;
use crate::support::chromium::{Chromium, Look, browse};

/// Two sites, each with a device that signed in and one that was refused; a stranger; something long unheard of.
async fn a_busy_day(test: &TestBroker) {
    let people = test.operator("t.weber", Role::Admin).await;
    test.broker.add_site(&Caller::command_line(), Site::plain("paris", "Paris")).await.unwrap();
    for (id, site) in [("berlin-printer", "default"), ("paris-printer", "paris")] {
        let facts = DeviceFacts { kind: "printer".into(), site: site.into(), ..DeviceFacts::default() };
        test.broker.register_device(&Caller::command_line(), id, facts).await.unwrap();
        let mut device = test.stranger(id);
        test.pair(&mut device).await;
        test.signed_in(&people, &mut device).await;
        let _ = test.stranger(id).request_code(None, None).await;
    }
    let _ = test.stranger("smart-tv").request_code(None, None).await;
}

#[tokio::test]
async fn charts_count_what_happened_at_the_readers_sites_a_080() {
    let test = TestBroker::start().await;
    a_busy_day(&test).await;
    let dana = test.visitor("dana", Role::Viewer).await;
    let pierre = test.visitor("pierre", Role::Viewer).await;
    test.broker.set_role(&Caller::command_line(), "pierre", EVERYWHERE, None).await.unwrap();
    test.broker.set_role(&Caller::command_line(), "pierre", "paris", Some(Role::Viewer)).await.unwrap();
    let page = dana.get("/").await.body;
    for (chart, all) in [("c-sh", "2 in all"), ("c-sd", "2 in all"), ("c-rh", "3 in all"), ("c-rd", "3 in all")] {
        assert!(page.contains(&format!("<desc id=\"{chart}-d\">{all}")), "{chart}: {page}");
    }
    assert_eq!(page.matches("role=\"img\"").count(), 4);
    let page = pierre.get("/").await.body;
    for (chart, all) in [("c-sh", "1 in all"), ("c-rd", "1 in all")] {
        assert!(page.contains(&format!("<desc id=\"{chart}-d\">{all}")), "{chart}: {page}");
    }
    assert!(!page.contains("berlin-printer") && !page.contains("smart-tv"), "{page}");
    let page = pierre.get("/alerts").await.body;
    assert!(page.contains("paris-printer") && !page.contains("berlin-printer") && !page.contains("smart-tv"), "{page}");
}

#[tokio::test]
async fn alerts_come_first_say_what_to_do_and_are_turned_page_by_page() {
    let test = TestBroker::start().await;
    a_busy_day(&test).await;
    let dana = test.visitor("dana", Role::Approver).await;
    for _ in 0..55 {
        test.broker.report_foreign_code(&test.caller_of("dana").await).await.unwrap();
    }
    dana.post("/approve", &[("user_code", "PRN-BBBB-BBBBB")]).await;
    let page = dana.get("/alerts").await.body;
    let (alerts, refusals) = (page.find("id=\"alerts\"").unwrap(), page.find("id=\"refusals\"").unwrap());
    assert!(alerts < refusals, "{page}");
    assert!(page.contains("Somebody is phishing your people."), "{page}");
    assert!(page.contains("a code that is not one of ours was typed"), "{page}");
    let only = dana.get("/alerts?show=refusal").await.body;
    assert!(only.contains("a code that is not one of ours was typed") && !only.contains("id=\"alerts\""), "{only}");
    let first = dana.get("/alerts?show=alert").await.body;
    assert_eq!(first.matches("<li id=\"entry-").count(), 50);
    let older = first
        .split("href=\"/alerts?show=alert&amp;before=")
        .nth(1)
        .or_else(|| first.split("href=\"/alerts?show=alert&#38;before=").nth(1));
    let older = older.expect("older ones").split('"').next().unwrap();
    let rest = dana.get(&format!("/alerts?show=alert&before={older}")).await.body;
    assert!(rest.contains("a device that is not registered asked and got nothing"), "{rest}");
    assert!(rest.contains("/devices/berlin-printer"), "with the device: {rest}");
    assert!(rest.matches("<li id=\"entry-").count() < 50 && !rest.contains("Older alerts"), "{rest}");
}

impl TestBroker {
    async fn caller_of(&self, name: &str) -> Caller {
        let people = self.broker.operators().await.unwrap();
        let person = people.into_iter().find(|person| person.name == name).unwrap();
        let actor = pairgate::model::audit::Actor::Operator(person.name);
        Caller {
            actor,
            rights: person.rights,
            operator: Some(person.id),
            proved_at: None,
            session: None,
            peer: None,
            only_device: None,
        }
    }
}

#[tokio::test]
async fn the_audit_log_is_filtered_by_device_event_and_person() {
    let test = TestBroker::start().await;
    a_busy_day(&test).await;
    let dana = test.visitor("dana", Role::Viewer).await;
    let rows = async |query: &str| {
        let page = dana.get(&format!("/audit?{query}")).await;
        assert_eq!(page.status, 200, "{query}");
        page.body.matches("<tr role=\"row\" id=\"entry-").count()
    };
    assert_eq!(rows("event=token.issued").await, 2);
    assert_eq!(rows("event=token.issued&device=paris-printer").await, 1);
    assert_eq!(rows("by=t.weber&event=grant.approved").await, 2);
    assert_eq!(rows("by=nobody").await, 0);
    assert_eq!(rows("device=no%20device%21").await, 0, "what is no id is nobody's, not everybody's");
    assert_eq!(rows("by=%25&event=%27%3B--").await, 0);
    let page = dana.get("/audit?by=t.weber&event=grant.approved").await.body;
    assert!(page.contains("value=\"t.weber\"") && page.contains("value=\"grant.approved\" selected"), "{page}");
    for _ in 0..60 {
        test.broker.report_foreign_code(&test.caller_of("dana").await).await.unwrap();
    }
    let page = dana.get("/audit?by=dana&event=user_code.reported").await.body;
    let older = page.split("href=\"/audit?before=").nth(1).unwrap().split('"').next().unwrap();
    let older = older.replace("&#38;", "&").replace("&amp;", "&");
    assert!(older.ends_with("&event=user_code.reported&by=dana"), "the filter stays: {older}");
    assert_eq!(rows(&format!("before={older}")).await, 10);
}

#[tokio::test]
async fn two_persons_are_offered_where_there_are_two_and_to_who_may_ask_for_them_a_079() {
    let test = TestBroker::start().await;
    let adam = test.visitor("adam", Role::Admin).await;
    const OFFER: &str = "Several people may approve at";
    assert!(!adam.get("/").await.body.contains(OFFER), "one would lock himself out");
    let olga = test.visitor("olga", Role::Approver).await;
    assert!(adam.get("/").await.body.contains(OFFER));
    assert!(!olga.get("/").await.body.contains(OFFER), "she can't");
    let site = Site { two_persons: true, ..Site::plain("default", "Berlin HQ") };
    test.broker.set_site(&Caller::command_line(), None, site).await.unwrap();
    assert!(!adam.get("/").await.body.contains(OFFER), "it is so");
}

#[tokio::test]
async fn devices_that_need_a_hand_are_named_with_the_reason() {
    let test = TestBroker::start().await;
    a_busy_day(&test).await;
    test.register("new-tv", "tv").await;
    test.visitor("dana", Role::Viewer).await;
    test.broker.suspend_device(&Caller::command_line(), "paris-printer").await.unwrap();
    test.advance(31 * 86_400);
    let dana = test.another_session("dana").await;
    let page = dana.get("/").await.body;
    assert!(page.contains("Not paired yet: 1"), "{page}");
    assert!(page.contains("last seen 31 days ago") && page.contains(">suspended<"), "{page}");
}

async fn sign_in(browser: &Chromium, test: &TestBroker, name: &str) {
    browser.open(&format!("{}{}", test.issuer, test.link(name).await)).await;
    browser.see_heading("Sign in").await;
    browser.click("main button").await;
    browser.see_heading("Overview").await;
}

async fn overview_looks_right_and_follows(look: Look) {
    let test = TestBroker::start().await;
    a_busy_day(&test).await;
    test.visitor("dana", Role::Admin).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    browse(look, move |browser| async move {
        sign_in(&browser, &test, "dana").await;
        browser.see(".chart svg").await;
        browser.inspect("overview-charts", &[]).await;
        browser.assert_keyboard_reaches_everything("overview").await;
        // The page hears of it and shows it, without being loaded again.
        browser.run("window.isTheSamePage = true").await;
        device.request_code(None, None).await.unwrap();
        browser.see("#sign-ins .items a[href='/devices/lobby-printer-01']").await;
        let _ = test.stranger("lobby-printer-01").request_code(None, None).await;
        browser.see("#refusals .log li.alert").await;
        assert_eq!(browser.run("return window.isTheSamePage === true").await, true, "shown live");
        browser.open(&format!("{}/alerts", test.issuer)).await;
        browser.see_heading("Alerts").await;
        browser.inspect("alerts", &[]).await;
        browser.assert_keyboard_reaches_everything("alerts").await;
        browser.run("window.isTheSamePage = true").await;
        let before = browser.run("return document.querySelectorAll('#alerts li').length").await.as_u64().unwrap();
        test.broker.report_foreign_code(&test.caller_of("dana").await).await.unwrap();
        browser.see(&format!("#alerts li:nth-child({})", before + 1)).await;
        assert_eq!(browser.run("return window.isTheSamePage === true").await, true, "shown live");
        browser.open(&format!("{}/audit?event=token.issued", test.issuer)).await;
        browser.see_heading("Audit").await;
        browser.inspect("audit-filtered", &[]).await;
    })
    .await;
}

#[tokio::test]
async fn overview_and_alerts_look_right_and_follow_on_a_phone() {
    overview_looks_right_and_follows(Look::PHONE).await;
}

#[tokio::test]
async fn overview_and_alerts_look_right_and_follow_at_a_desk() {
    overview_looks_right_and_follows(Look::DESK).await;
}

#[tokio::test]
async fn overview_and_alerts_look_right_and_follow_on_a_phone_in_the_dark() {
    overview_looks_right_and_follows(Look::PHONE.dark()).await;
}

#[tokio::test]
async fn pages_of_this_part_speak_german() {
    let test = TestBroker::start().await;
    a_busy_day(&test).await;
    let dana = test.visitor("dana", Role::Admin).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let code = device.request_code(None, None).await.unwrap().user_code;
    let path = dana.post("/approve", &[("user_code", &code)]).await.header("location").unwrap().to_owned();
    for (page, words) in [
        ("/", ["Anmeldungen, letzte 24 Stunden", "Warten auf Anmeldung", "2 insgesamt"]),
        ("/alerts", ["Alarme: jemand sollte hinsehen", "tragen Sie es ein und koppeln Sie es", "Nur Abweisungen"]),
        (
            "/devices/lobby-printer-01/approvers",
            ["Wer es freigeben darf", "Jeder, der an seinem Standort", "Auf die Liste setzen"],
        ),
        (path.as_str(), ["Anmeldung zulassen: Drucker?", "Melden und Gerät sperren", "Scans in den Scan-Ordner legen"]),
    ] {
        let answer = dana.get_with(page, &[("accept-language", "de")]).await;
        for said in words {
            assert!(answer.body.contains(said), "{page}: no '{said}' in {}", answer.body);
        }
    }
}
