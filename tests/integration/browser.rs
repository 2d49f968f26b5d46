//! The product in a real browser: clicked, typed, looked at, on a phone and at a desk, in light and in dark (`inspect` looks in both).

use fantoccini::key::Key;
use pairgate::broker::Caller;
use pairgate::model::device::DeviceFacts;
use pairgate::model::operator::Role;
use pairgate::model::site::Site;
use pairgate::simulator::{PairingStatus, SimulatedDevice, TokenAnswer};

use crate::support::TestBroker;
use crate::support::chromium::{Chromium, Look, browse};

const FORM: &str = "#register form";

/// Adds an operator; the link to sign in with.
pub async fn link(test: &TestBroker, name: &str) -> String {
    test.broker.add_operator(&Caller::command_line(), name, Role::Admin).await.unwrap();
    test.broker.operator_link(&Caller::command_line(), name).await.unwrap()
}

async fn sign_in(browser: &Chromium, link: &str) {
    browser.open(link).await;
    browser.see_heading("Sign in").await;
    browser.inspect("sign-in", &[]).await;
    browser.click("main button").await;
    browser.see_heading("Overview").await;
}

/// Registers through the form; ends on the device's page, with its pairing open.
async fn register_and_open(browser: &Chromium, id: &str, name: &str) {
    browser.click("nav a[href='/devices']").await;
    browser.see_heading("Devices").await;
    if browser.run("return !document.getElementById('register').open").await == true {
        browser.click("#register summary").await;
    }
    for (field, text) in [("#id", id), ("#name", name), ("#room", "EG-01"), ("#asset_tag", "4711")] {
        browser.type_into(&format!("{FORM} {field}"), text).await;
    }
    browser.inspect("devices-form", &[]).await;
    browser.click(&format!("{FORM} button.primary")).await;
    browser.see_heading(name).await;
    browser.click("button[value=open_window]").await;
    browser.see("button[value=close_window]").await;
}

/// The device asks, and the page that is open shows it without being loaded again.
async fn request_live(browser: &Chromium, device: &mut SimulatedDevice) -> (String, String) {
    browser.run("window.isTheSamePage = true").await;
    let shown = device.request_pairing().await.unwrap();
    let PairingStatus::Pending { digits, .. } = device.poll_pairing().await.unwrap() else { panic!("not pending") };
    browser.see("#pairings .items a.primary").await;
    assert_eq!(browser.run("return window.isTheSamePage === true").await, true, "shown live");
    (shown.uri_complete, digits)
}

async fn pairs_and_approves_by_clicking(look: Look) {
    let test = TestBroker::start().await;
    let link = link(&test, "dana").await;
    browse(look, move |browser| async move {
        sign_in(&browser, &link).await;
        browser.inspect("overview-empty", &[]).await;
        register_and_open(&browser, "lobby-printer-01", "Lobby printer, ground floor").await;

        let mut device = test.stranger("lobby-printer-01");
        let (qr_code, _) = request_live(&browser, &mut device).await;
        browser.open(&qr_code).await;
        browser.see_heading("Pair this device?").await;
        browser.inspect("pair-scanned", &[]).await;
        browser.click("button[value=pair_by_qr]").await;
        browser.see_heading("Paired").await;
        browser.inspect("pair-done", &[]).await;
        assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
        approve(&browser, &test, &mut device).await;

        pair_second_by_number(&browser, &test).await;
        browser.click("header .who button").await;
        browser.see_heading("Sign in").await;
        browser.open(&format!("{}/devices", test.issuer)).await;
        browser.see_heading("Sign in").await;
    })
    .await;
}

async fn approve(browser: &Chromium, test: &TestBroker, device: &mut SimulatedDevice) {
    let code = device.request_code(None, None).await.unwrap();
    browser.open(&code.verification_uri_complete).await;
    browser.see_heading("Which code does the device show?").await;
    assert!(browser.text().await.contains(&code.user_code), "the code to compare");
    browser.inspect("approve-compare", &[]).await;
    assert_eq!(test.count("grant.claimed").await, 0, "opening the link changes nothing (A-043)");
    browser.click("main form button.primary").await;
    browser.see_heading("Let this printer sign in?").await;
    browser.inspect("approve-waiting", &[]).await;

    test.advance(60);
    let number = test.pending(device).await.expect("a number to show");
    let button = browser.see("button[value=approve]").await;
    assert!(!button.is_enabled().await.unwrap(), "without a number");
    browser.type_into("#number", &number[..1]).await;
    assert!(!button.is_enabled().await.unwrap(), "with one digit");
    browser.type_into("#number", &number[1..]).await;
    assert!(button.is_enabled().await.unwrap(), "with two digits");
    // Enter must decide nothing: neither by accident nor by a scanner that types.
    browser.press(Key::Enter).await;
    browser.see_heading("Let this printer sign in?").await;
    assert_eq!(test.count("grant.approved").await + test.count("grant.denied").await, 0, "Enter decides nothing");
    browser.click("button[value=approve]").await;
    browser.see_heading("Approved").await;
    browser.inspect("approve-done", &[]).await;
    test.advance(60);
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Tokens(_)));
}

async fn pair_second_by_number(browser: &Chromium, test: &TestBroker) {
    register_and_open(browser, "lobby-printer-02", "Lobby printer, first floor").await;
    let mut device = test.stranger("lobby-printer-02");
    let (_, digits) = request_live(browser, &mut device).await;
    browser.click("#pairings .items a.primary").await;
    browser.see_heading("Pair this device?").await;
    let button = browser.see("button[value=pair_by_number]").await;
    browser.type_into("#number", &digits[..3]).await;
    browser.type_into("#number", " ").await;
    browser.type_into("#number", &digits[3..5]).await;
    assert!(!button.is_enabled().await.unwrap(), "with five digits");
    browser.type_into("#number", &digits[5..]).await;
    browser.click("button[value=pair_by_number]").await;
    browser.see_heading("Paired").await;
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
}

#[tokio::test]
async fn pairs_and_approves_by_clicking_on_a_phone() {
    pairs_and_approves_by_clicking(Look::PHONE).await;
}

#[tokio::test]
async fn pairs_and_approves_by_clicking_at_a_desk() {
    pairs_and_approves_by_clicking(Look::DESK).await;
}

/// A house on an ordinary day. Returns the address in the QR code of the printer that waits, and that of the pairing that waits.
pub async fn an_ordinary_day(test: &TestBroker) -> (String, String) {
    test.set_networks(&["127.0.0.0/8"]).await;
    let people = test.operator("t.weber", Role::Admin).await;
    let mut house = Vec::new();
    for (id, kind, name, room, model) in [
        ("lobby-printer-01", "printer", "Lobby printer, ground floor", "EG-01", "LaserJet M480f"),
        ("lobby-tv-01", "tv", "Welcome screen", "EG-01", "Signage 55"),
        ("meeting-tv-03", "tv", "Meeting room Spree", "2.14", "Signage 65"),
        ("lab-console-02", "console", "Measuring bench", "U1-07", ""),
        ("finance-printer-02", "printer", "Printer, finance", "3.02", "LaserJet M480f"),
        ("post-printer-01", "printer", "Post room", "EG-07", "LaserJet M480f"),
    ] {
        let facts = DeviceFacts {
            kind: kind.into(),
            name: name.into(),
            room: room.into(),
            asset_tag: format!("47{}", 11 + house.len()),
            maker: if model.is_empty() { "" } else { "Acme" }.into(),
            model: model.into(),
            ..DeviceFacts::default()
        };
        test.broker.register_device(&Caller::command_line(), id, facts).await.unwrap();
        house.push(test.stranger(id));
    }
    for device in &mut house[..4] {
        test.pair(device).await;
        test.advance(260);
        test.signed_in(&people, device).await;
    }
    test.broker.suspend_device(&Caller::command_line(), "lab-console-02").await.unwrap();
    test.advance(1800);
    let _ = test.stranger("lobby-printer-01").request_code(None, None).await;
    test.advance(240);
    let _ = test.stranger("smart-tv").request_code(None, None).await;
    test.advance(200);
    test.open_window("post-printer-01").await;
    house[5].model = "LaserJet M480f".into();
    house[5].firmware = "5.7.1".into();
    let pairing = house[5].request_pairing().await.unwrap();
    house[5].poll_pairing().await.unwrap();
    test.advance(40);
    let code = house[0].request_code(None, None).await.unwrap();
    test.advance(20);
    (code.verification_uri_complete, pairing.uri_complete)
}

async fn pages_look_right(look: Look) {
    let test = TestBroker::start().await;
    let (to_approve, to_pair) = an_ordinary_day(&test).await;
    let link = link(&test, "dana").await;
    browse(look, move |browser| async move {
        sign_in(&browser, &link).await;
        browser.inspect("overview", &[]).await;
        for (page, path, heading) in [
            ("devices", "/devices", "Devices"),
            ("devices-none-found", "/devices?q=nowhere", "Devices"),
            ("device", "/devices/lobby-printer-01", "Lobby printer, ground floor"),
            ("device-unpaired", "/devices/post-printer-01", "Post room"),
            ("device-suspended", "/devices/lab-console-02", "Measuring bench"),
            ("pair-list", "/pair", "Pair"),
            ("approve-entry", "/approve", "Which code does the device show?"),
            ("audit", "/audit", "Audit"),
        ] {
            browser.open(&format!("{}{path}", test.issuer)).await;
            browser.see_heading(heading).await;
            browser.inspect(page, &[]).await;
        }
        browser.open(to_pair.split('?').next().unwrap()).await;
        browser.see_heading("Pair this device?").await;
        browser.inspect("pair", &[]).await;
        browser.open(&to_approve).await;
        browser.click("main form button.primary").await;
        browser.see_heading("Let this printer sign in?").await;
        browser.inspect("approve", &[]).await;
        refusals_look_right(&browser, &test).await;
        a_new_key_is_confirmed(&browser, &test).await;
    })
    .await;
}

/// A device's present key vouches for its next one: one button, no digits.
async fn a_new_key_is_confirmed(browser: &Chromium, test: &TestBroker) {
    let mut device = test.paired("copy-printer-05", "printer").await;
    device.key_storage = "hardware".into();
    device.rotate_key(pairgate::simulator::DeviceKey::generate_es256().unwrap());
    let shown = device.request_pairing().await.unwrap();
    device.poll_pairing().await.unwrap();
    browser.open(shown.uri_complete.split('?').next().unwrap()).await;
    browser.see_heading("Pair this device?").await;
    browser.inspect("pair-new-key", &[]).await;
    browser.click("button[value=confirm_new_key]").await;
    browser.see_heading("Paired").await;
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
}

/// Pages that say no.
async fn refusals_look_right(browser: &Chromium, test: &TestBroker) {
    browser.open(&format!("{}/approve", test.issuer)).await;
    browser.type_into("#user_code", "ABCD-1234").await;
    browser.click("main form button.primary").await;
    browser.see_heading("That code did not come from one of our devices.").await;
    browser.inspect("not-ours", &["status of 404"]).await;
    browser.click("main form button").await;
    browser.see_heading("Reported").await;
    browser.inspect("reported", &[]).await;
    browser.see("nav a[href='/devices']").await;
    browser.open(&format!("{}/nowhere", test.issuer)).await;
    browser.see_heading("Not here").await;
    browser.inspect("not-here", &["status of 404"]).await;
    browser.see("nav a[href='/devices']").await;
    browser.open(&format!("{}/pair/nowhere", test.issuer)).await;
    browser.see_heading("Not here").await;
    browser.assert_calm("no pairing", &["status of 404"]).await;
}

#[tokio::test]
async fn pages_look_right_on_a_phone() {
    pages_look_right(Look::PHONE).await;
}

#[tokio::test]
async fn pages_look_right_at_a_desk() {
    pages_look_right(Look::DESK).await;
}

#[tokio::test]
async fn everything_can_be_done_by_keyboard() {
    let test = TestBroker::start().await;
    let (to_approve, to_pair) = an_ordinary_day(&test).await;
    let link = link(&test, "dana").await;
    browse(Look::PHONE, move |browser| async move {
        browser.open(&link).await;
        browser.see_heading("Sign in").await;
        browser.run("document.querySelector('main button').focus()").await;
        browser.press(Key::Enter).await;
        browser.see_heading("Overview").await;
        for path in ["/", "/devices#register", "/devices/lobby-printer-01", "/pair", "/audit", "/approve"] {
            browser.open(&format!("{}{path}", test.issuer)).await;
            browser.see("h1").await;
            browser.assert_keyboard_reaches_everything(path).await;
        }
        browser.open(&to_pair).await;
        browser.see_heading("Pair this device?").await;
        browser.assert_keyboard_reaches_everything("pair").await;
        browser.open(&to_approve).await;
        browser.run("document.querySelector('main form button.primary').focus()").await;
        browser.press(Key::Enter).await;
        browser.see_heading("Let this printer sign in?").await;
        browser.assert_keyboard_reaches_everything("approve").await;
        browser.type_into("#number", "123").await;
        assert_eq!(browser.run("return document.getElementById('number').value").await, "12", "two digits, no more");
        // From the number: Tab to Deny, Tab to Approve. A person who presses Space there means it.
        browser.press(Key::Tab).await;
        assert_eq!(browser.run("return document.activeElement.value").await, "deny");
        browser.press(Key::Tab).await;
        assert_eq!(browser.run("return document.activeElement.value").await, "approve");
        browser.run("document.querySelector('button[value=deny]').focus()").await;
        browser.press(Key::Enter).await;
        browser.see_heading("Denied").await;
        assert_eq!(test.count("grant.denied").await, 1);
    })
    .await;
}

/// Texts as long as they may be, in one word: nothing is cut off, nothing scrolls sideways.
#[tokio::test]
async fn long_words_fit_on_a_phone() {
    let test = TestBroker::start().await;
    let id = "a".repeat(64);
    let facts = DeviceFacts {
        kind: "printer".into(),
        name: "W".repeat(80),
        room: "M".repeat(80),
        serial: "8".repeat(64),
        asset_tag: "Q".repeat(64),
        maker: "W".repeat(64),
        model: "W".repeat(64),
        note: "W".repeat(500),
        ..DeviceFacts::default()
    };
    test.broker.register_device(&Caller::command_line(), &id, facts).await.unwrap();
    let site = pairgate::model::site::Site::plain("default", &"S".repeat(80));
    test.broker.set_site(&Caller::command_line(), None, site).await.unwrap();
    let link = link(&test, &"o".repeat(64)).await;
    let mut device = test.stranger(&id);
    (device.serial, device.model, device.firmware) = ("8".repeat(64), "W".repeat(64), "W".repeat(64));
    browse(Look::PHONE, move |browser| async move {
        sign_in(&browser, &link).await;
        test.pair(&mut device).await;
        test.open_window(&id).await;
        let shown = device.request_pairing().await.unwrap();
        device.poll_pairing().await.unwrap();
        let _ = test.stranger(&id).request_code(None, None).await;
        let code = device.request_code(None, None).await.unwrap();
        let pages =
            ["/", "/devices", &format!("/devices/{id}"), "/pair", "/audit", &format!("/devices?q={}", "W".repeat(300))];
        for page in pages.map(|path| format!("{}{path}", test.issuer)).iter().chain([&shown.uri_complete]) {
            browser.open(page).await;
            browser.see("h1").await;
            browser.inspect(&format!("long{}", page.len()), &[]).await;
        }
        browser.open(&code.verification_uri_complete).await;
        browser.click("main form button.primary").await;
        browser.see_heading("Let this printer sign in?").await;
        browser.inspect("long", &[]).await;
        browser.click("button[value=deny]").await;
        browser.see_heading("Denied").await;
        browser.inspect("long", &[]).await;
    })
    .await;
}

#[tokio::test]
async fn injected_script_and_style_do_nothing_a_050() {
    let test = TestBroker::start().await;
    let link = link(&test, "dana").await;
    browse(Look::PHONE, move |browser| async move {
        browser.open(&link).await;
        browser.see_heading("Sign in").await;
        let before = browser.run("return document.title").await;
        // As if an escape had been forgotten: the policy is the second wall. It also shows that `assert_calm` would see a violation.
        browser
            .run(
                "document.body.insertAdjacentHTML('beforeend', '<p style=\"position:fixed\" onclick=\"document.title = 1\">x</p>');
                 const s = document.createElement('script'); s.textContent = 'document.title = 2'; document.body.append(s);
                 document.querySelector('body > p').click();",
            )
            .await;
        assert_eq!(browser.run("return document.title").await, before);
        let console: Vec<String> = browser.console().await.iter().map(ToString::to_string).collect();
        assert!(console.iter().filter(|entry| entry.contains("Content Security Policy")).count() >= 3, "{console:#?}");
    })
    .await;
}

/// Registers, pairs by the number and approves where no script runs: buttons are never inert, and nothing waits for an update.
#[tokio::test]
async fn pairs_and_approves_without_any_script() {
    let test = TestBroker::start().await;
    let link = link(&test, "dana").await;
    browse(Look::PHONE, move |browser| async move {
        browser.stop_scripts().await;
        browser.open(&link).await;
        browser.click("main button").await;
        browser.see_heading("Overview").await;
        browser.click("nav a[href='/devices']").await;
        if browser.run("return !document.getElementById('register').open").await == true {
            browser.click("#register summary").await;
        }
        browser.type_into(&format!("{FORM} #id"), "lobby-printer-01").await;
        browser.type_into(&format!("{FORM} #name"), "Lobby printer").await;
        browser.click(&format!("{FORM} button.primary")).await;
        browser.see_heading("Lobby printer").await;
        browser.click("button[value=open_window]").await;
        browser.see("button[value=close_window]").await;

        let mut device = test.stranger("lobby-printer-01");
        device.request_pairing().await.unwrap();
        let PairingStatus::Pending { digits, .. } = device.poll_pairing().await.unwrap() else { panic!("not pending") };
        browser.click("nav a[href='/pair']").await;
        browser.click(".items a.primary").await;
        browser.see_heading("Pair this device?").await;
        let button = browser.see("button[value=pair_by_number]").await;
        assert!(button.is_enabled().await.unwrap(), "no script runs that would make it inert");
        browser.type_into("#number", if digits == "000000" { "111111" } else { "000000" }).await;
        browser.click("button[value=pair_by_number]").await;
        browser.see(".problems").await;
        browser.type_into("#number", &digits).await;
        browser.click("button[value=pair_by_number]").await;
        browser.see_heading("Paired").await;
        assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));

        let code = device.request_code(None, None).await.unwrap();
        browser.click("nav a[href='/approve']").await;
        browser.type_into("#user_code", &code.user_code).await;
        browser.click("main form button.primary").await;
        browser.see_heading("Let this printer sign in?").await;
        test.advance(60);
        let number = test.pending(&mut device).await.expect("a number to show");
        browser.type_into("#number", &number).await;
        browser.click("button[value=approve]").await;
        browser.see_heading("Approved").await;
        test.advance(60);
        assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Tokens(_)));
        browser.click("header .who button").await;
        browser.see_heading("Sign in").await;
    })
    .await;
}

/// Somebody with a role at one site, in front of the pages: what is elsewhere is not there, and what the role does not allow is not offered, nor done.
async fn one_site_is_all_that_is_seen(look: Look) {
    let test = TestBroker::start().await;
    let shell = Caller::command_line();
    test.register("lobby-printer-01", "printer").await;
    test.broker.add_site(&shell, Site::plain("berlin", "Berlin HQ")).await.unwrap();
    let facts =
        DeviceFacts { kind: "tv".into(), site: "berlin".into(), name: "Hall TV".into(), ..DeviceFacts::default() };
    test.broker.register_device(&shell, "hall-tv-01", facts).await.unwrap();
    test.broker.add_person(&shell, "vera", None).await.unwrap();
    test.broker.set_role(&shell, "vera", "berlin", Some(Role::Viewer)).await.unwrap();
    let link = test.broker.operator_link(&shell, "vera").await.unwrap();
    browse(look, move |browser| async move {
        sign_in(&browser, &link).await;
        let navigation = browser.words("nav").await;
        assert!(!navigation.contains("Settings") && !navigation.contains("Operators"), "{navigation}");
        browser.open(&format!("{}/devices", test.issuer)).await;
        let text = browser.text().await;
        assert!(text.contains("Hall TV") && !text.contains("lobby-printer-01"), "{text}");
        let offered =
            browser.run("return [...document.querySelectorAll('#bulk-action option')].map((o) => o.value).join()");
        assert_eq!(offered.await, "labels", "a viewer may print labels, and change nothing");
        assert_eq!(
            browser.run("return document.querySelectorAll('#register, .list-tools [href$=import]').length").await,
            0
        );
        browser.inspect("devices-one-site", &[]).await;
        browser.open(&format!("{}/devices/lobby-printer-01", test.issuer)).await;
        browser.see_heading("Not here").await;
        browser.open(&format!("{}/devices/hall-tv-01", test.issuer)).await;
        browser.see_heading("Hall TV").await;
        browser.inspect("device-only-looked-at", &["status of 404"]).await;
        let offered = browser.run("return document.querySelectorAll('main form button').length").await;
        assert_eq!(offered, 0, "a viewer is offered nothing to do");
        let text = browser.text().await;
        assert!(text.contains("It has no key yet") && !text.contains("Open pairing"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn one_site_is_all_that_is_seen_on_a_phone_a_080() {
    one_site_is_all_that_is_seen(Look::PHONE).await;
}

#[tokio::test]
async fn one_site_is_all_that_is_seen_at_a_desk_a_080() {
    one_site_is_all_that_is_seen(Look::DESK).await;
}
