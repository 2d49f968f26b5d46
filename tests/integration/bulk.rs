//! Many devices at once: chosen, changed, undone; and one device's facts.

use pairgate::broker::bulk::{BulkAction, Selection};
use pairgate::broker::{Caller, UseCaseError};
use pairgate::model::change::Move;
use pairgate::model::device::{DeviceFacts, DeviceState};
use pairgate::model::operator::{Rights, Role};
use pairgate::model::site::Site;
use pairgate::store::DeviceQuery;

use crate::support::TestBroker;
use crate::support::chromium::{Look, browse};
use crate::support::visitor::{hidden, said};

/// A new administrator's link.
pub async fn admin_link(test: &TestBroker, name: &str) -> String {
    test.broker.add_operator(&Caller::command_line(), name, Role::Admin).await.unwrap();
    test.broker.operator_link(&Caller::command_line(), name).await.unwrap()
}

async fn state(test: &TestBroker, id: &str) -> DeviceState {
    test.broker.device(&Caller::command_line(), id).await.unwrap().state
}

fn ids(ids: &[&str]) -> Selection {
    Selection::Ids(ids.iter().map(|id| (*id).to_owned()).collect())
}

async fn house(test: &TestBroker, count: usize) {
    for number in 0..count {
        let facts = DeviceFacts {
            kind: if number % 3 == 0 { "tv" } else { "printer" }.into(),
            name: format!("Device {number}"),
            floor: format!("{}", number % 2),
            ..DeviceFacts::default()
        };
        test.broker.register_device(&Caller::command_line(), &format!("device-{number:03}"), facts).await.unwrap();
    }
}

#[tokio::test]
async fn ticked_devices_are_suspended_after_a_yes_and_let_on_again_by_undo() {
    let test = TestBroker::start().await;
    house(&test, 4).await;
    let dana = test.visitor("dana", Role::Admin).await;
    let ticked = [("which", "ticked"), ("d.device-001", "on"), ("d.device-002", "on"), ("action", "suspend")];
    let asked = dana.post("/devices/bulk", &ticked).await;
    assert_eq!(asked.status, 200, "{}", said(&asked));
    assert!(asked.body.contains("Suspend 2 devices?") && asked.body.contains("device-001"));
    assert_eq!(test.count("device.suspended").await, 0, "only asked");
    let chosen = hidden(&asked.body, "ids");
    let yes = [("confirmed", "yes"), ("which", "ids"), ("ids", chosen.as_str()), ("action", "suspend"), ("total", "2")];
    let done = dana.post("/devices/bulk", &yes).await;
    assert_eq!(done.status, 303, "{}", said(&done));
    let list = dana.get(done.header("location").unwrap()).await;
    assert!(list.body.contains("2 devices suspended.") && list.body.contains("action=\"/devices/undo\""));
    assert_eq!(state(&test, "device-002").await, DeviceState::Suspended);

    let name = hidden(&list.body, "done");
    let eve = test.visitor("eve", Role::Admin).await;
    assert_eq!(eve.post("/devices/undo", &[("done", &name)]).await.status, 422, "not another's");
    let undone = dana.post("/devices/undo", &[("done", &name)]).await;
    assert_eq!(undone.status, 303, "{}", said(&undone));
    assert_eq!(state(&test, "device-002").await, DeviceState::Registered);
    let twice = dana.post("/devices/undo", &[("done", &name)]).await;
    assert_eq!(twice.status, 422, "once");
    assert_eq!((test.count("device.suspended").await, test.count("device.resumed").await), (2, 2));
}

#[tokio::test]
async fn undo_takes_back_only_what_nobody_changed_since_and_an_old_one_harms_no_newer() {
    let test = TestBroker::start().await;
    house(&test, 3).await;
    let dana = test.visitor("dana", Role::Admin).await;
    let change = async |action: &str, chosen: &str| {
        let fields = [("confirmed", "yes"), ("which", "ids"), ("ids", chosen), ("action", action), ("total", "2")];
        let done = dana.post("/devices/bulk", &[&fields[..], &[("to_floor", "2")]].concat()).await;
        let address = done.header("location").unwrap_or_else(|| panic!("{}", said(&done))).to_owned();
        hidden(&dana.get(&address).await.body, "done")
    };
    let floor = async |id: &str| test.broker.device(&Caller::command_line(), id).await.unwrap().facts.floor;
    let moved = change("move", "device-000 device-001").await;
    // A colleague corrects one of the two.
    let device = test.broker.device(&Caller::command_line(), "device-001").await.unwrap();
    let corrected = DeviceFacts { floor: "3".into(), ..device.facts };
    test.broker.change_device_facts(&Caller::command_line(), "device-001", None, corrected).await.unwrap();
    let undone = dana.post("/devices/undo", &[("done", &moved)]).await;
    let told = dana.get(undone.header("location").unwrap()).await.body;
    assert!(told.contains("it was changed again since"), "{told}");
    assert_eq!((floor("device-000").await.as_str(), floor("device-001").await.as_str()), ("0", "3"));

    let older = change("move", "device-000 device-002").await;
    let newer = change("suspend", "device-000 device-002").await;
    assert_eq!(dana.post("/devices/undo", &[("done", &older)]).await.status, 422, "not the last one");
    assert_eq!(dana.post("/devices/undo", &[("done", &newer)]).await.status, 303, "the last one is still there");
    assert_eq!(state(&test, "device-002").await, DeviceState::Registered);
}

#[tokio::test]
async fn as_many_but_other_devices_are_not_what_was_said_yes_to_a_099() {
    let test = TestBroker::start().await;
    house(&test, 4).await;
    let dana = test.visitor("dana", Role::Admin).await;
    let shell = Caller::command_line();
    test.broker.suspend_device(&shell, "device-000").await.unwrap();
    let chosen = [("which", "all"), ("state", "suspended"), ("total", "1"), ("action", "retire")];
    let asked = dana.post("/devices/bulk", &chosen).await;
    assert!(asked.status == 200 && asked.body.contains("device-000"), "{}", said(&asked));
    let seen = hidden(&asked.body, "asked");
    test.broker.resume_device(&shell, "device-000").await.unwrap();
    test.broker.suspend_device(&shell, "device-001").await.unwrap();
    let yes = [("confirmed", "yes"), ("word", "retire"), ("typed_count", "1"), ("asked", seen.as_str())];
    let answer = dana.post("/devices/bulk", &[&chosen[..], &yes].concat()).await;
    assert!(answer.status == 422 && said(&answer).contains("Other devices match"), "{}", said(&answer));
    assert_eq!(test.count("device.retired").await, 0);
}

#[tokio::test]
async fn a_whole_page_of_ticks_fits_into_the_form() {
    let test = TestBroker::start().await;
    house(&test, 50).await;
    let dana = test.visitor("dana", Role::Admin).await;
    let names: Vec<String> = (0..50).map(|number| format!("d.device-{number:03}")).collect();
    let mut fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "on")).collect();
    fields.extend([("which", "ticked"), ("action", "open")]);
    let asked = dana.post("/devices/bulk", &fields).await;
    assert!(asked.body.contains("Open pairing for 50 devices?"), "{}", said(&asked));
}

#[tokio::test]
async fn all_that_match_are_changed_only_if_they_are_as_many_as_was_seen() {
    let test = TestBroker::start().await;
    house(&test, 60).await;
    let dana = test.visitor("dana", Role::Admin).await;
    let list = dana.get("/devices?kind=tv").await;
    assert!(list.body.contains("1–20 / 20"), "{}", list.body);
    let list = dana.get("/devices?page=2").await;
    assert!(list.body.contains("51–60 / 60") && list.body.contains("All 60 that match"));
    let all = |count: &'static str, typed: &'static str| {
        let fields = [("which", "all"), ("kind", "tv"), ("total", count), ("action", "suspend")];
        [&fields[..], &[("confirmed", "yes"), ("typed_count", typed)]].concat()
    };
    let untyped = dana.post("/devices/bulk", &all("20", "")).await;
    assert_eq!(untyped.status, 422);
    assert!(said(&untyped).contains("how many devices it is: 20"), "{}", said(&untyped));
    test.register("late-tv", "tv").await;
    let changed = dana.post("/devices/bulk", &all("20", "20")).await;
    assert_eq!(changed.status, 422);
    assert!(said(&changed).contains("now it is 21"), "{}", said(&changed));
    assert_eq!(test.count("device.suspended").await, 0);
    assert_eq!(dana.post("/devices/bulk", &all("21", "21")).await.status, 303);
    assert_eq!(test.count("device.suspended").await, 21);
}

#[tokio::test]
async fn retiring_many_wants_a_word_and_a_fresh_sign_in_and_has_no_undo_a_081() {
    let test = TestBroker::start().await;
    house(&test, 2).await;
    let dana = test.visitor("dana", Role::Admin).await;
    let fields = |word: &'static str| {
        [
            ("confirmed", "yes"),
            ("which", "ids"),
            ("ids", "device-000"),
            ("action", "retire"),
            ("total", "1"),
            ("word", word),
        ]
    };
    let untyped = dana.post("/devices/bulk", &fields("yes")).await;
    assert!(untyped.status == 422 && said(&untyped).contains("type the word: retire"), "{}", said(&untyped));
    test.advance(301);
    let stale = dana.post("/devices/bulk", &fields("retire")).await;
    assert_eq!(stale.status, 303);
    assert!(stale.header("location").unwrap().starts_with("/sign-in/again"), "{:?}", stale.header("location"));
    assert_eq!(state(&test, "device-000").await, DeviceState::Registered);
    let dana = test.another_session("dana").await;
    let done = dana.post("/devices/bulk", &fields("retire")).await;
    let list = dana.get(done.header("location").unwrap()).await;
    assert!(list.body.contains("1 device retired for ever.") && !list.body.contains("/devices/undo"), "{}", list.body);
    assert_eq!(state(&test, "device-000").await, DeviceState::Retired);
    let again = dana
        .post("/devices/bulk", &[("confirmed", "yes"), ("which", "ids"), ("ids", "device-000"), ("action", "resume")])
        .await;
    let list = dana.get(again.header("location").unwrap()).await;
    assert!(list.body.contains("it is retired"), "each that could not be changed is named: {}", list.body);
}

#[tokio::test]
async fn the_place_of_many_is_changed_and_changed_back() {
    let test = TestBroker::start().await;
    house(&test, 3).await;
    let dana = test.visitor("dana", Role::Technician).await;
    let fields = [
        ("confirmed", "yes"),
        ("which", "ids"),
        ("ids", "device-000 device-001"),
        ("action", "move"),
        ("to_floor", "5"),
        ("to_room", "-"),
    ];
    let done = dana.post("/devices/bulk", &fields).await;
    let list = dana.get(done.header("location").unwrap()).await;
    let floor = async |id: &str| test.broker.device(&Caller::command_line(), id).await.unwrap().facts.floor;
    assert_eq!((floor("device-000").await, floor("device-001").await), ("5".to_owned(), "5".to_owned()));
    dana.post("/devices/undo", &[("done", &hidden(&list.body, "done"))]).await;
    assert_eq!((floor("device-000").await, floor("device-001").await), ("0".to_owned(), "1".to_owned()));
    let tricked =
        [("confirmed", "yes"), ("which", "ids"), ("ids", "device-000"), ("action", "move"), ("to_floor", "a\u{202E}b")];
    let refused = dana.post("/devices/bulk", &tricked).await;
    assert!(refused.status == 422 && said(&refused).contains("U+202E"), "A-049: {}", said(&refused));
}

#[tokio::test]
async fn devices_of_other_sites_are_not_there_to_be_changed_a_080() {
    let test = TestBroker::start().await;
    let shell = Caller::command_line();
    test.broker.add_site(&shell, Site::plain("berlin", "Berlin")).await.unwrap();
    house(&test, 2).await;
    let facts = DeviceFacts { kind: "tv".into(), site: "berlin".into(), ..DeviceFacts::default() };
    test.broker.register_device(&shell, "berlin-tv-01", facts.clone()).await.unwrap();
    let caller = Caller { rights: Rights::at("berlin", Role::Admin), ..Caller::command_line() };
    let chosen = ids(&["device-000", "berlin-tv-01", "no-such-device"]);
    let receipt = test.broker.change_devices(&caller, &chosen, &BulkAction::Suspend).await.unwrap();
    assert_eq!((receipt.done, receipt.refused), (1, 2));
    let why: Vec<_> = receipt.reasons.iter().map(|(_, why)| why.as_str()).collect();
    assert_eq!(why, ["there is no such device"; 2], "of another site, or of none: the same");
    assert_eq!(state(&test, "device-000").await, DeviceState::Registered);
    let all = Selection::Matching(DeviceQuery::default(), 1, None);
    let receipt = test.broker.change_devices(&caller, &all, &BulkAction::Resume).await.unwrap();
    assert_eq!(receipt.done, 1);
    let there = BulkAction::Move(Move { site: Some("default".into()), ..Move::default() });
    let refused = test.broker.change_devices(&caller, &ids(&["berlin-tv-01"]), &there).await;
    assert!(matches!(refused, Err(UseCaseError::Refused(_))), "no way out to a site that is not one's own");
    let edited = test.broker.change_device_facts(&caller, "device-000", None, facts.clone()).await;
    assert!(matches!(edited, Err(UseCaseError::NotFound(_))));
    let moved = DeviceFacts { site: "default".into(), ..facts };
    assert!(test.broker.change_device_facts(&caller, "berlin-tv-01", None, moved).await.is_err());

    for (role, action, is_done) in [
        (Role::Viewer, BulkAction::OpenPairing, false),
        (Role::Technician, BulkAction::OpenPairing, true),
        (Role::Technician, BulkAction::ClosePairing, true),
        (Role::Technician, BulkAction::Suspend, false),
        (Role::Technician, BulkAction::Stolen, false),
        (Role::Technician, BulkAction::Retire, false),
        (Role::Approver, BulkAction::Suspend, false),
        (Role::Admin, BulkAction::Suspend, true),
        (Role::Approver, BulkAction::Resume, false),
        (Role::Admin, BulkAction::Resume, true),
        (Role::Admin, BulkAction::Stolen, true),
        (Role::Admin, BulkAction::Resume, false),
    ] {
        let caller = Caller { rights: Rights::at("berlin", role), ..Caller::command_line() };
        let receipt = test.broker.change_devices(&caller, &ids(&["berlin-tv-01"]), &action).await.unwrap();
        assert_eq!(receipt.done == 1, is_done, "{role:?} {action:?}: {receipt:?}");
    }
}

#[tokio::test]
async fn what_is_known_of_a_device_is_changed_by_a_form_that_notices_others() {
    let test = TestBroker::start().await;
    test.paired("lobby-tv-01", "tv").await;
    let dana = test.visitor("dana", Role::Technician).await;
    let form = dana.get("/devices/lobby-tv-01/edit").await;
    let seen = hidden(&form.body, "seen");
    assert!(!form.body.contains("id=\"serial\""), "kind and serial number stay once it is paired");
    let fields = |kind: &'static str, room: &'static str| {
        [
            ("kind", kind),
            ("site", "default"),
            ("name", "Lobby TV"),
            ("room", room),
            ("note", "left of the lift"),
            ("seen", seen.as_str()),
        ]
    };
    let refused = dana.post("/devices/lobby-tv-01/edit", &fields("printer", "1")).await;
    assert!(refused.status == 422 && said(&refused).contains("key was confirmed"), "{}", said(&refused));
    assert_eq!(dana.post("/devices/lobby-tv-01/edit", &fields("tv", "1")).await.status, 303);
    let stale = dana.post("/devices/lobby-tv-01/edit", &fields("tv", "2")).await;
    assert!(stale.status == 422 && said(&stale).contains("meanwhile"), "{}", said(&stale));
    assert_eq!(hidden(&stale.body, "seen"), seen, "pressed once more, it is refused once more");
    let records = test.records().await;
    let record = records.iter().find(|record| record.event == "device.changed").unwrap();
    assert!(
        record.detail.contains("room: 'EG-01' → '1'")
            && record.detail.contains("name: 'Device lobby-tv-01' → 'Lobby TV'"),
        "{record:?}"
    );
    let vic = test.visitor("vic", Role::Viewer).await;
    assert_eq!(vic.post("/devices/lobby-tv-01/edit", &fields("tv", "3")).await.status, 422);
    assert_eq!(dana.get("/devices/no-such-tv/edit").await.status, 404);
}

async fn changes_by_clicking(look: Look) {
    let test = TestBroker::start().await;
    house(&test, 60).await;
    let link = admin_link(&test, "dana").await;
    browse(look, move |browser| async move {
        browser.open(&link).await;
        browser.click("main button").await;
        browser.see_heading("Overview").await;
        browser.open(&format!("{}/devices", test.issuer)).await;
        browser.see_heading("Devices").await;
        browser.inspect("devices-many", &[]).await;
        browser.click(".more-filters summary").await;
        browser.click("#f-kind option[value=tv]").await;
        browser.inspect("devices-filter", &[]).await;
        browser.click(".filter-fields button").await;
        browser.see("#f-kind option[value=tv][selected]").await;
        assert!(browser.text().await.contains("1–20 / 20"));
        browser.click(".tick label").await;
        browser.click("#bulk-action option[value=suspend]").await;
        browser.click(".bulk-bar button").await;
        browser.see_heading("Suspend 1 device?").await;
        browser.inspect("bulk", &[]).await;
        browser.click("main form button.red").await;
        browser.see_heading("Devices").await;
        browser.see(".receipt button").await;
        browser.inspect("devices-undo", &[]).await;
        assert_eq!(test.count("device.suspended").await, 1);
        browser.click(".receipt button").await;
        browser.see(".receipt").await;
        while test.count("device.resumed").await == 0 {
            tokio::task::yield_now().await;
        }
        browser.open(&format!("{}/devices/device-001/edit", test.issuer)).await;
        browser.see_heading("Change what is known").await;
        browser.inspect("device-edit", &[]).await;
    })
    .await;
}

#[tokio::test]
async fn browser_filters_suspends_and_undoes_on_a_phone() {
    changes_by_clicking(Look::PHONE).await;
}

#[tokio::test]
async fn browser_filters_suspends_and_undoes_at_a_desk() {
    changes_by_clicking(Look::DESK).await;
}
