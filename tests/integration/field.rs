//! Walking the floors: sites, progress, keys that makers announced, devices that show themselves, and codes read off the picture that a device shows.

use std::time::Duration;

use pairgate::broker::pairing::Confirm;
use pairgate::broker::{Caller, UseCaseError};
use pairgate::model::device::DeviceFacts;
use pairgate::model::operator::{Rights, Role};
use pairgate::model::site::Site;
use pairgate::simulator::host::Stopwatch;
use pairgate::simulator::routine::DeviceEvent;
use pairgate::simulator::{PairingShown, PairingStatus, SimulatedDevice, SimulatorError, TokenAnswer, screen};
use pairgate::store::WindowSubject;

use crate::support::TestBroker;
use crate::support::chromium::{Look, browse};
use crate::support::visitor::said;

/// What a phone's camera reads off the picture on a device's screen.
pub fn scanned(png: &[u8]) -> String {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let (width, height) = (info.width as usize, info.height as usize);
    assert_eq!(info.color_type, png::ColorType::Grayscale);
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| pixels[y * width + x]);
    let codes = image.detect_grids();
    assert_eq!(codes.len(), 1, "one code is on the screen");
    codes[0].decode().unwrap().1
}

/// Asks to be paired, with its nonce revealed.
async fn waiting(device: &mut SimulatedDevice) -> PairingShown {
    let shown = device.request_pairing().await.unwrap();
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Pending { .. }));
    shown
}

async fn register_at(test: &TestBroker, id: &str, site: &str, floor: &str, room: &str) {
    let facts = DeviceFacts {
        kind: "printer".into(),
        site: site.into(),
        name: format!("Printer {id}"),
        floor: floor.into(),
        room: room.into(),
        ..DeviceFacts::default()
    };
    test.broker.register_device(&Caller::command_line(), id, facts).await.unwrap();
}

async fn open_site(test: &TestBroker, site: &str) {
    test.broker.open_window(&Caller::command_line(), &WindowSubject::Site(site.into()), None).await.unwrap();
}

fn pair_path(test: &TestBroker, uri: &str) -> String {
    uri.strip_prefix(&test.issuer).unwrap().to_owned()
}

#[tokio::test]
async fn a_swapped_or_used_or_old_code_pairs_nothing_and_the_right_one_carries_the_whole_key_a_060() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Technician).await;
    for id in ["printer-01", "printer-02"] {
        test.register(id, "printer").await;
        test.open_window(id).await;
    }
    let (mut first, mut second) = (test.stranger("printer-01"), test.stranger("printer-02"));
    let (shown, other) = (waiting(&mut first).await, waiting(&mut second).await);
    // What the device shows is a picture; what counts is what is read off it.
    let read = scanned(&screen::png_qr(&shown.uri_complete).unwrap());
    assert_eq!(read, shown.uri_complete);
    let key = read.split_once("?key=").unwrap().1;
    assert_eq!(key, first.key.jkt(), "all 256 bits of its key");
    let path = pair_path(&test, &read);
    let bare = path.split('?').next().unwrap();

    let other_key = other.uri_complete.split_once("?key=").unwrap().1;
    let half = &key[..20];
    for (what, wrong) in [
        ("the code of another device", other_key),
        ("a part of the key", half),
        ("an empty key", ""),
        ("the key with a tail", &format!("{key}A")),
        ("another spelling", &key.to_lowercase()),
    ] {
        let page = dana.get(&format!("{bare}?key={wrong}")).await;
        assert!(!page.body.contains("value=\"pair_by_qr\""), "{what}: no button");
        let answer = dana.post(bare, &[("action", "pair_by_qr"), ("key", wrong)]).await;
        assert_eq!(answer.status, 422, "{what}: {}", said(&answer));
    }
    assert_eq!(test.count("pairing.confirmed").await, 0);
    // A code that leads to a look-alike host never reaches this one; with our host and an attacker's own pairing there is no device of that id to confirm.
    let attacker = test.stranger("printer-99").request_pairing().await;
    assert!(matches!(attacker, Err(SimulatorError::Refused { status: 403, .. })), "{attacker:?}");
    assert_eq!(dana.get("/pair/AAAAAAAAAAAAAAAAAAAAAA?key=x").await.status, 404);
    // A rival for the same device: his code carries his key; scanning the device's shows that the pairing is another.
    let mut rival = test.stranger("printer-01");
    let stolen = waiting(&mut rival).await;
    let answer = dana
        .post(&format!("/pair/{}", stolen.pairing_id), &[("action", "pair_by_qr"), ("key", first.key.jkt().as_str())])
        .await;
    assert_eq!(answer.status, 422);
    assert!(test.count("pairing.conflict").await >= 1, "an alarm");

    // Standing labels carry an address and nothing else.
    let label = dana.get("/devices/printer-01").await.body;
    assert!(!label.contains(&first.key.jkt()), "no key before it is paired");
    // The right one: once.
    assert!(dana.get(&path).await.body.contains("value=\"pair_by_qr\""));
    assert_eq!(test.count("pairing.confirmed").await, 0, "opening it changes nothing");
    let answer = dana.post(bare, &[("action", "pair_by_qr"), ("key", key)]).await;
    assert_eq!(answer.status, 200, "{}", said(&answer));
    let again = dana.post(bare, &[("action", "pair_by_qr"), ("key", key)]).await;
    assert_eq!(again.status, 404, "used: {}", said(&again));
    assert_eq!(dana.get(&path).await.status, 404, "a photograph of it is worth nothing");
    // And old ones are over.
    test.advance(601);
    let late = pair_path(&test, &other.uri_complete);
    assert_eq!(dana.get(&late).await.status, 404, "ten minutes");
    let late = dana.post(late.split('?').next().unwrap(), &[("action", "pair_by_qr"), ("key", other_key)]).await;
    assert_eq!(late.status, 404);
    assert_eq!(test.count("pairing.confirmed").await, 1);
}

#[tokio::test]
async fn keys_that_the_maker_announced_are_confirmed_many_at_once_and_no_others() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Technician).await;
    open_site(&test, "default").await;
    let mut devices = Vec::new();
    for index in 1..=5 {
        let id = format!("printer-0{index}");
        test.register(&id, "printer").await;
        devices.push(test.stranger(&id));
    }
    for device in &devices[..3] {
        let jkt = device.key.jkt();
        test.broker.announce_key(&Caller::command_line(), &device.id, Some(&jkt)).await.unwrap();
    }
    // The fourth announces itself with a key that is not the announced one; of the fifth none was announced.
    let foreign = test.stranger("x").key.jkt();
    test.broker.announce_key(&Caller::command_line(), "printer-04", Some(&foreign)).await.unwrap();
    let mut shown = Vec::new();
    for device in &mut devices {
        shown.push(waiting(device).await);
    }
    let page = dana.get("/pair").await.body;
    assert!(page.contains("Pair all 3 devices") && page.contains("The key that its maker announced."));
    for other in &shown[3..] {
        let answer = dana.post(&format!("/pair/{}", other.pairing_id), &[("action", "confirm_announced")]).await;
        assert_eq!(answer.status, 422);
        assert!(said(&answer).contains("not the key that the device's maker announced"), "{}", said(&answer));
    }
    // Between the page and the button one announcement is taken back.
    test.broker.announce_key(&Caller::command_line(), "printer-03", None).await.unwrap();
    let answer = dana.post("/pair", &[("action", "confirm_announced"), ("site", "default")]).await;
    assert!(answer.body.contains("2 devices are paired."), "{}", answer.body);
    assert_eq!(test.count("pairing.confirmed").await, 2);
    for device in &mut devices[..2] {
        assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
    }
    let viewer = test.visitor("viewer", Role::Viewer).await;
    assert_eq!(viewer.post("/pair", &[("action", "confirm_announced")]).await.status, 422);
    assert!(test.broker.announce_key(&Caller::command_line(), "printer-05", Some("no key")).await.is_err());
}

#[tokio::test]
async fn nobody_walks_or_acts_at_a_site_that_is_not_his_a_080() {
    let test = TestBroker::start().await;
    let root = Caller::command_line();
    test.broker.add_site(&root, Site::plain("paris", "Paris")).await.unwrap();
    register_at(&test, "paris-tv-01", "paris", "3", "3.01").await;
    test.register("main-tv-01", "tv").await;
    test.broker.add_person(&root, "dana", None).await.unwrap();
    test.broker.set_role(&root, "dana", "default", Some(Role::Admin)).await.unwrap();
    let dana = test.another_session("dana").await;
    for path in [
        "/pair?site=paris",
        "/pair/walk?site=paris",
        "/technician/codes?site=paris",
        "/technician/codes?device=paris-tv-01",
    ] {
        let foreign = dana.get(path).await;
        let unknown = dana.get(&path.replace("paris", "nowhere")).await;
        assert_eq!((foreign.status, unknown.status), (404, 404), "{path}");
        assert_eq!(
            foreign.body.replace("paris", ""),
            unknown.body.replace("nowhere", ""),
            "{path}: not even that there is something"
        );
    }
    for (path, fields) in [
        ("/pair", vec![("action", "open_window"), ("site", "paris")]),
        ("/pair", vec![("action", "confirm_announced"), ("site", "paris")]),
        ("/devices/paris-tv-01", vec![("action", "identify")]),
        ("/devices/paris-tv-01", vec![("action", "stolen")]),
        ("/devices/paris-tv-01", vec![("action", "suspend")]),
        ("/devices/paris-tv-01", vec![("action", "replace"), ("serial", "X")]),
        ("/devices/paris-tv-01", vec![("action", "resume_stolen"), ("confirm", "paris-tv-01")]),
        ("/technician/codes?device=paris-tv-01", vec![("action", "page")]),
        ("/technician/codes?site=paris", vec![("action", "page"), ("floor", "*")]),
    ] {
        assert_eq!(dana.post(path, &fields).await.status, 404, "{path} {fields:?}");
    }
    for event in
        ["window.opened", "device.identify", "device.stolen", "device.suspended", "device.replaced", "technician.code"]
    {
        assert_eq!(test.count(event).await, 0, "{event}");
    }
    // A cookie that says otherwise is no key either.
    let answer = dana.get_with("/pair", &[("cookie", "__Host-walk=site=paris")]).await;
    assert!(!answer.body.contains("paris-tv-01"));
}

#[tokio::test]
async fn a_device_shows_itself_once_when_somebody_looks_for_it_and_no_other_does() {
    let test = TestBroker::start().await;
    let operator = test.operator("boss", Role::Admin).await;
    let dana = test.visitor("dana", Role::Technician).await;
    let mut device = test.paired("printer-01", "printer").await;
    let mut other = test.paired("printer-02", "printer").await;
    let code = device.request_code(None, None).await.unwrap();
    other.request_code(None, None).await.unwrap();
    let asked = dana.post("/devices/printer-01", &[("action", "identify")]).await;
    assert_eq!((asked.status, asked.header("location")), (303, Some("/devices/printer-01?done=asked")));
    test.advance(10);
    test.pending(&mut other).await;
    assert!(!other.identify, "nobody looks for this one");
    // A thief of the code learns nothing.
    let stranger = test.stranger("printer-01");
    let answer = test.poll(&stranger, &code.device_code).await;
    assert!(answer.status == 401 && !answer.body.contains("identify"), "{}", answer.body);
    test.pending(&mut device).await;
    assert!(device.identify, "the device is told");
    test.advance(10);
    test.pending(&mut device).await;
    assert!(!device.identify, "once");
    // With tokens, and with a refresh.
    test.approve(&operator, &mut device, &code.verification_uri_complete).await;
    dana.post("/devices/printer-01", &[("action", "identify")]).await;
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Tokens(_)));
    assert!(device.identify, "with the tokens");
    if device.may_refresh() {
        dana.post("/devices/printer-01", &[("action", "identify")]).await;
        assert!(matches!(device.refresh().await.unwrap(), TokenAnswer::Tokens(_)));
        assert!(device.identify, "with a refresh");
    }
    // Two minutes, not more.
    dana.post("/devices/printer-01", &[("action", "identify")]).await;
    test.advance(121);
    device.request_code(None, None).await.unwrap();
    test.pending(&mut device).await;
    assert!(!device.identify, "too late");
    let drawn = screen::screen_after(&DeviceEvent::Identify, "printer", screen::Paint::Plain).unwrap();
    assert!(drawn.contains("IDENTIFY: ████"), "{drawn}");
    let viewer = test.visitor("viewer", Role::Viewer).await;
    assert_eq!(viewer.post("/devices/printer-01", &[("action", "identify")]).await.status, 422);
}

#[tokio::test]
async fn a_held_poll_is_answered_at_once_when_somebody_looks_for_the_device() {
    let test = TestBroker::start().await;
    let mut device = test.paired("printer-01", "printer").await;
    device.request_code(None, None).await.unwrap();
    let poll = tokio::spawn(async move {
        let answer = device.poll_token(Some(25)).await.unwrap();
        assert!(matches!(answer, TokenAnswer::Pending { .. }));
        let identify = device.identify;
        // It may poll again at once.
        assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Pending { .. }));
        identify
    });
    test.until_held().await;
    let started = Stopwatch::start();
    test.broker.identify_device(&Caller::command_line(), "printer-01").await.unwrap();
    assert!(poll.await.unwrap(), "told");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn what_asks_to_be_paired_shows_itself_unless_two_say_that_they_are_the_device() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Technician).await;
    test.register("printer-01", "printer").await;
    test.open_window("printer-01").await;
    let mut device = test.stranger("printer-01");
    let shown = waiting(&mut device).await;
    let path = format!("/pair/{}", shown.pairing_id);
    let answer = dana.post(&path, &[("action", "identify"), ("device", "printer-01"), ("key", "abc")]).await;
    assert_eq!(answer.header("location"), Some(format!("{path}?asked=1&key=abc").as_str()));
    device.poll_pairing().await.unwrap();
    assert!(device.identify);
    device.poll_pairing().await.unwrap();
    assert!(!device.identify, "once");
    // A rival: whoever lights up would be taken for the right one.
    let mut rival = test.stranger("printer-01");
    waiting(&mut rival).await;
    assert!(!dana.get(&path).await.body.contains("value=\"identify\""));
    test.broker.identify_device(&Caller::command_line(), "printer-01").await.unwrap();
    for asker in [&mut rival, &mut device] {
        asker.poll_pairing().await.unwrap();
        assert!(!asker.identify, "neither");
    }
    // A paired device: only who has its key.
    let mut paired = test.paired("printer-02", "printer").await;
    test.open_window("printer-02").await;
    let mut new_key = test.stranger("printer-02");
    waiting(&mut new_key).await;
    test.broker.identify_device(&Caller::command_line(), "printer-02").await.unwrap();
    new_key.poll_pairing().await.unwrap();
    assert!(!new_key.identify, "a key that nobody confirmed");
    paired.request_code(None, None).await.unwrap();
    test.pending(&mut paired).await;
    assert!(paired.identify);
}

#[tokio::test]
async fn stolen_is_one_tap_and_coming_back_is_not() {
    let test = TestBroker::start().await;
    let (technician, admin) = (test.visitor("tess", Role::Technician).await, test.visitor("dana", Role::Admin).await);
    let boss = test.operator("boss", Role::Admin).await;
    let mut device = test.paired("printer-01", "printer").await;
    test.signed_in(&boss, &mut device).await;
    // Long after the person last proved who it is: a minute counts.
    test.advance(1_000);
    let answer = technician.post("/devices/printer-01", &[("action", "stolen")]).await;
    assert_eq!(answer.header("location"), Some("/devices/printer-01?done=stolen"));
    let page = technician.get("/devices/printer-01?done=stolen").await.body;
    assert!(page.contains("reported stolen") && !page.contains("value=\"resume\""), "{page}");
    if device.may_refresh() {
        assert!(matches!(device.refresh().await.unwrap(), TokenAnswer::Error { .. }), "everything is dead");
    }
    let record = test.records().await.into_iter().find(|record| record.event == "device.stolen").unwrap();
    assert_eq!((record.severity.as_str(), record.actor.as_str()), ("alert", "operator:tess"));
    assert_eq!(technician.post("/devices/printer-01", &[("action", "stolen")]).await.status, 422, "once");
    for (action, confirm) in [("resume", "printer-01"), ("resume_stolen", ""), ("resume_stolen", "printer-02")] {
        let answer = admin.post("/devices/printer-01", &[("action", action), ("confirm", confirm)]).await;
        assert_eq!(answer.status, 422, "{action} {confirm}");
    }
    let answer =
        technician.post("/devices/printer-01", &[("action", "resume_stolen"), ("confirm", "printer-01")]).await;
    assert_eq!(answer.status, 422, "not a technician's");
    assert_eq!(test.count("device.resumed").await, 0);
    let answer = admin.post("/devices/printer-01", &[("action", "resume_stolen"), ("confirm", "printer-01")]).await;
    assert_eq!(answer.header("location"), Some("/devices/printer-01?done=resumed"));
    // Suspending says how to undo it, to who may.
    admin.post("/devices/printer-01", &[("action", "suspend")]).await;
    assert!(admin.get("/devices/printer-01?done=suspended").await.body.contains("Undo"));
    assert!(!technician.get("/devices/printer-01?done=suspended").await.body.contains("Undo"));
    assert_eq!(admin.post("/devices/printer-01", &[("action", "resume")]).await.status, 303);
    assert!(
        !admin.get("/devices/printer-01?done=suspended").await.body.contains("Undo"),
        "an address says nothing false"
    );
}

#[tokio::test]
async fn progress_of_ten_thousand_devices_is_counted_in_a_moment() {
    let test = TestBroker::start().await;
    // Many at once, or each would wait for the disk.
    for hundreds in 0..20 {
        let mut many = tokio::task::JoinSet::new();
        for index in hundreds * 500..(hundreds + 1) * 500 {
            let broker = std::sync::Arc::clone(&test.broker);
            let facts =
                DeviceFacts { kind: "printer".into(), floor: format!("{}", index % 12), ..DeviceFacts::default() };
            many.spawn(async move {
                broker.register_device(&Caller::command_line(), &format!("printer-{index:05}"), facts).await.unwrap()
            });
        }
        many.join_all().await;
    }
    let caller = Caller { rights: Rights::at("default", Role::Viewer), ..Caller::command_line() };
    let started = Stopwatch::start();
    let progress = test.broker.pairing_progress(&caller, "default").await.unwrap();
    let took = started.elapsed();
    assert_eq!((progress.len(), progress.iter().map(|floor| floor.total).sum::<u64>()), (12, 10_000));
    assert!(took < Duration::from_millis(50), "{took:?}");
    let elsewhere = test.broker.pairing_progress(&caller, "nowhere").await;
    assert!(matches!(elsewhere, Err(UseCaseError::NotFound(_))));
}

#[tokio::test]
async fn the_history_of_a_device_has_pages() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    test.register("printer-01", "printer").await;
    for _ in 0..40 {
        test.open_window("printer-01").await;
    }
    let page = dana.get("/devices/printer-01").await.body;
    assert!(!page.contains("device registered"));
    let older = page.split("?before=").nth(1).unwrap().split('#').next().unwrap();
    let page = dana.get(&format!("/devices/printer-01?before={older}")).await.body;
    assert!(page.contains("device registered") && page.contains("Newest") && !page.contains(">Older<"));
}

/// Three devices one after the other, by scanned codes, with a page that follows by itself.
async fn walks_a_floor(look: Look) {
    let test = TestBroker::start().await;
    for (id, floor, room) in [
        ("printer-01", "2", "2.01"),
        ("printer-02", "2", "2.01"),
        ("printer-03", "2", "2.14"),
        ("attic-printer-04", "Attic", ""),
    ] {
        register_at(&test, id, "default", floor, room).await;
    }
    test.broker.add_operator(&Caller::command_line(), "dana", Role::Technician).await.unwrap();
    let link = test.broker.operator_link(&Caller::command_line(), "dana").await.unwrap();
    browse(look, move |browser| async move {
        browser.open(&link).await;
        browser.click("main button").await;
        browser.see_heading("Overview").await;
        browser.click("nav a[href='/pair']").await;
        browser.see_heading("Pair").await;
        browser.inspect("pair-list", &[]).await;
        browser.click("main a[href^='/pair/walk']").await;
        browser.see_heading("Walk the floors").await;
        assert!(browser.text().await.contains("0 of 4 paired"));
        browser.inspect("walk-floors", &[]).await;
        browser.click(".floors a[href*='floor=2']").await;
        browser.see("button[value=open_window]").await;
        browser.click("button[value=open_window]").await;
        browser.see("button[value=close_window]").await;
        browser.inspect("walk", &[]).await;
        // No live update may take away what was just counted.
        browser.run("window.dispatchEvent(new Event('pagehide'))").await;
        browser.assert_keyboard_reaches_everything("walk").await;
        browser.client.refresh().await.unwrap();
        browser.see("button[value=close_window]").await;
        for (index, id) in ["printer-01", "printer-02", "printer-03"].into_iter().enumerate() {
            browser.run("window.isTheSamePage = true").await;
            let mut device = test.stranger(id);
            let shown = waiting(&mut device).await;
            browser.see(&format!("#left a[href='/pair/{}']", shown.pairing_id)).await;
            assert_eq!(browser.run("return window.isTheSamePage === true").await, true, "shown live");
            browser.open(&scanned(&screen::png_qr(&shown.uri_complete).unwrap())).await;
            browser.see_heading("Pair this device?").await;
            browser.click("button[value=pair_by_qr]").await;
            browser.see_heading("Paired").await;
            let left = ["3 to go, 2 on this floor", "2 to go, 1 on this floor", "1 to go, 0 on this floor"][index];
            assert!(browser.text().await.contains(left), "{}", browser.text().await);
            browser.inspect("walk-done", &[]).await;
            assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
            browser.click("a.primary").await;
            browser.see_heading("Walk the floors").await;
            assert!(browser.text().await.contains(&format!("{} of 4 paired", index + 1)));
        }
        assert!(browser.text().await.contains("Nothing is left here."));
        browser.inspect("walk-floor-done", &[]).await;
        browser.run("window.isTheSamePage = true").await;
        let mut device = test.stranger("attic-printer-04");
        let shown = waiting(&mut device).await;
        let PairingStatus::Pending { digits, .. } = device.poll_pairing().await.unwrap() else { panic!("not pending") };
        let number = Confirm::Number(&digits);
        test.broker.confirm_pairing(&Caller::command_line(), &shown.pairing_id, &number).await.unwrap();
        browser.see("#progress progress[value='4']").await;
        assert_eq!(browser.run("return window.isTheSamePage === true").await, true, "progress is live");
    })
    .await;
}

#[tokio::test]
async fn walks_a_floor_on_a_phone() {
    walks_a_floor(Look::PHONE).await;
}

#[tokio::test]
async fn walks_a_floor_at_a_desk_in_the_dark() {
    walks_a_floor(Look::DESK.dark()).await;
}

#[tokio::test]
async fn the_pages_of_the_floors_speak_german() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Admin).await;
    test.register("printer-01", "printer").await;
    let german = ("accept-language", "de-AT, en;q=0.5");
    for (path, said) in [
        ("/pair", "Warten auf Kopplung"),
        ("/pair/walk", "0 von 1 gekoppelt"),
        ("/devices/printer-01", "Dieses Gerät ersetzen"),
        ("/technician/codes", "Codes zum Drucken erstellen"),
        ("/technician", "Als Techniker koppeln"),
    ] {
        let page = dana.get_with(path, &[german]).await.body;
        assert!(page.contains(said) && page.contains("<html lang=\"de\">"), "{path}: {page}");
    }
}
