//! Lists of devices, in and out: as facilities have them, as attackers would write them, and nothing of other sites.

use std::time::Duration;

use pairgate::broker::{Caller, UseCaseError};
use pairgate::clock::{Clock, Timestamp};
use pairgate::model::device::{DeviceFacts, DeviceState};
use pairgate::model::import::Defaults;
use pairgate::model::operator::{Rights, Role};
use pairgate::model::site::Site;
use pairgate::simulator::RawAnswer;
use pairgate::spreadsheet;
use pairgate::store::DeviceQuery;
use proptest::prelude::*;

use crate::support::TestBroker;
use crate::support::chromium::{Look, browse};
use crate::support::visitor::{SAME_ORIGIN, Visitor, hidden, said};

/// A form with a file, as a browser sends it. `csrf` first, unless the order is given otherwise.
pub async fn upload(visitor: &Visitor, csrf: &str, fields: &[(&str, &str)], file: &str) -> RawAnswer {
    let part = |name: &str, text: &str, more: &str| {
        format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"{more}\r\n\r\n{text}\r\n")
    };
    let mut body = part("csrf", csrf, "");
    fields.iter().for_each(|(name, text)| body.push_str(&part(name, text, "")));
    body.push_str(&part("file", file, "; filename=\"../../list.csv\"\r\ncontent-type: text/csv"));
    body.push_str("--edge--\r\n");
    visitor.send("/devices/import", &body, "multipart/form-data; boundary=edge", &[SAME_ORIGIN]).await
}

async fn checked(visitor: &Visitor, file: &str) -> RawAnswer {
    upload(visitor, &visitor.csrf().await, &[("kind", ""), ("site", "default")], file).await
}

/// Since then, by the machine's clock.
fn elapsed(started: &Timestamp) -> Duration {
    Clock::system().now().since(*started)
}

fn everything() -> DeviceQuery {
    DeviceQuery { limit: 100_000, ..DeviceQuery::default() }
}

#[tokio::test]
async fn a_list_is_checked_first_then_imported_whole() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Technician).await;
    let page = dana.get("/devices/import").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("8 MiB") && page.body.contains("10,000 rows"), "the limits are named");

    let bad = "Kennung;Art;Raum;Preis\nlobby-tv-01;Fernseher;1;9\nLobby TV;Ferseher;2;9\n";
    let answer = checked(&dana, bad).await;
    assert_eq!(answer.status, 422);
    for text in ["2 rows, 2 mistakes", "lobby-tv would do", "did you mean fernseher?", "Preis", "Nothing was imported"]
    {
        assert!(answer.body.contains(text), "{text}: {}", answer.body);
    }
    assert!(!answer.body.contains("/devices/import/register"), "no yes to a list with mistakes");
    assert_eq!(test.count("devices.imported").await, 0);

    let good = "Kennung;Art;Raum;Seriennummer\nlobby-tv-01;Fernseher;1;\n;Drucker;2;X 77\n";
    let answer = checked(&dana, good).await;
    assert_eq!(answer.status, 200, "{}", said(&answer));
    assert!(answer.body.contains("2 rows, no mistake") && answer.body.contains("Import 2 devices"));
    assert!(answer.body.contains("printer-x-77"), "ids that were made are shown");
    assert_eq!(test.count("devices.imported").await, 0, "a dry run");
    let token = hidden(&answer.body, "checked");
    let done = dana.post("/devices/import/register", &[("checked", &token)]).await;
    assert_eq!(done.status, 303, "{}", said(&done));
    let list = dana.get(done.header("location").unwrap()).await;
    assert!(
        list.body.contains("2 devices imported.")
            && list.body.contains("Walk the floors")
            && list.body.contains("printer-x-77"),
        "{}",
        list.body
    );
    assert_eq!((test.count("devices.imported").await, test.count("device.registered").await), (1, 2));
    let (devices, _) = test.broker.devices(&Caller::command_line(), &everything()).await.unwrap();
    assert!(devices.iter().all(|device| device.state == DeviceState::Registered && device.key.is_none()), "unverified");

    let again = dana.post("/devices/import/register", &[("checked", &token)]).await;
    assert_eq!(again.status, 422, "good once");
    assert!(said(&again).contains("choose it again"), "{}", said(&again));
}

#[tokio::test]
async fn what_was_checked_waits_for_its_session_for_half_an_hour() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Technician).await;
    let eve = test.visitor("eve", Role::Technician).await;
    let token = hidden(&checked(&dana, "id,kind\ntv-01,tv").await.body, "checked");
    assert_eq!(eve.post("/devices/import/register", &[("checked", &token)]).await.status, 422, "not another's");
    let other = hidden(&checked(&dana, "id,kind\ntv-02,tv").await.body, "checked");
    assert_ne!(token, other);
    test.advance(30 * 60);
    assert_eq!(dana.post("/devices/import/register", &[("checked", &other)]).await.status, 422, "too old");
    let token = hidden(&checked(&dana, "id,kind\ntv-01,tv").await.body, "checked");
    test.register("tv-01", "tv").await;
    let answer = dana.post("/devices/import/register", &[("checked", &token)]).await;
    assert_eq!(answer.status, 422);
    assert!(answer.body.contains("ids are never reused"), "checked anew when it is done: {}", answer.body);
    assert_eq!(test.count("devices.imported").await, 0);
}

#[tokio::test]
async fn a_form_that_is_not_ours_uploads_nothing() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Technician).await;
    let eve = test.visitor("eve", Role::Technician).await;
    for token in ["", "x", &eve.csrf().await] {
        assert_eq!(upload(&dana, token, &[("site", "default")], "id,kind\ntv-01,tv").await.status, 403, "{token}");
    }
    let csrf = dana.csrf().await;
    let twice = upload(&dana, &csrf, &[("site", "default"), ("site", "berlin")], "id,kind\ntv-01,tv").await;
    assert_eq!(twice.status, 403, "a field twice");
    let viewer = test.visitor("vic", Role::Viewer).await;
    let refused = checked(&viewer, "id,kind\ntv-01,tv").await;
    assert_eq!(refused.status, 422);
    assert!(said(&refused).contains("role does not allow"), "{}", said(&refused));
}

#[tokio::test]
async fn hostile_lists_do_nothing_but_be_refused_a_082() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Technician).await;
    let million = format!("id,kind\n{}", "x,t\n".repeat(1_000_000));
    let huge = "x".repeat(9 * 1024 * 1024);
    for (file, status, says) in [
        (million.as_str(), 422, "more than 10,000 rows"),
        (huge.as_str(), 413, "larger than 8 MiB"),
        ("id,kind\n../../../etc/passwd,tv", 422, "etc-passwd would do"),
        ("id,kind,serial\ntv-01,tv,A\ntv-02,tv,A", 422, "row 2 already"),
        ("id,kind,jkt\ntv-01,tv,not-a-key", 422, "43 letters"),
        ("id,kind,name\ntv-01,tv,\"<script>alert(1)</script>\u{202E}\"", 422, "U+202E"),
        ("id,kind\n\"tv-01,tv", 422, "3 to 64 characters"),
        ("", 422, "empty"),
        ("\u{0}\u{1}\u{2}", 422, "neither a CSV file"),
    ] {
        let started = Clock::system().now();
        let answer = checked(&dana, file).await;
        assert_eq!(answer.status, status, "{says}");
        assert!(answer.body.contains(says), "{says}: {}", answer.body);
        assert!(!answer.body.contains("<script>alert"), "escaped");
        assert!(elapsed(&started) < Duration::from_secs(20), "{says}: {:?}", elapsed(&started));
    }
    assert_eq!(test.count("device.registered").await, 0);

    let formulas = "id,kind,name,note\ntv-01,tv,=HYPERLINK(1),@SUM(A1)\ntv-02,tv,a;=1+1,-2\n";
    let token = hidden(&checked(&dana, formulas).await.body, "checked");
    assert_eq!(dana.post("/devices/import/register", &[("checked", &token)]).await.status, 303);
    let tv = test.broker.device(&Caller::command_line(), "tv-01").await.unwrap();
    assert_eq!((tv.facts.name.as_str(), tv.facts.note.as_str()), ("=HYPERLINK(1)", "@SUM(A1)"), "kept as text");
    let export = dana.get("/devices/export.csv").await;
    assert_eq!(export.header("content-type"), Some("text/csv; charset=utf-8"));
    assert!(export.header("content-disposition").unwrap().starts_with("attachment"));
    for neutral in ["\"'=HYPERLINK(1)\"", "\"'@SUM(A1)\"", "\"a;'=1+1\"", "\"'-2\""] {
        assert!(export.body.contains(neutral), "{neutral}: {}", export.body);
    }
}

#[tokio::test]
async fn other_sites_are_neither_written_to_nor_told_of_a_080() {
    let test = TestBroker::start().await;
    let shell = Caller::command_line();
    for site in ["berlin", "paris"] {
        test.broker.add_site(&shell, Site::plain(site, &format!("House {site}"))).await.unwrap();
    }
    let facts =
        DeviceFacts { kind: "tv".into(), site: "paris".into(), serial: "SECRET1".into(), ..DeviceFacts::default() };
    test.broker.register_device(&shell, "paris-tv-01", facts).await.unwrap();
    let mut rights = Rights::at("berlin", Role::Technician);
    rights.add("default", Role::Viewer);
    let caller = Caller { rights, ..Caller::command_line() };
    let check = async |file: &str| {
        let defaults = Defaults { kind: "tv".into(), site: "berlin".into() };
        test.broker.check_import(&caller, file.as_bytes().to_vec(), &defaults).await.unwrap()
    };
    for (file, says) in [
        ("id,site\ntv-01,paris", "there is no such site; use"),
        ("id,site\ntv-01,House paris", "there is no such site; use"),
        ("id,site\ntv-01,nowhere", "there is no such site; use"),
        ("id,site\ntv-01,default", "you may not register"),
    ] {
        let found = check(file).await;
        assert!(found.errors[0].problem.contains(says), "{file}: {:?}", found.errors);
        assert!(!found.errors[0].problem.contains("aris"), "{file}");
    }
    assert_eq!(check("id,serial\ntv-01,SECRET1").await.errors, [], "another site's serial number is not told");
    let export = test.broker.export_devices(&caller, &everything()).await.unwrap();
    assert!(!export.contains("paris"), "{export}");
    let nobody = Caller { rights: Rights::default(), ..Caller::command_line() };
    let refused = test.broker.check_import(&nobody, b"id,kind\ntv-01,tv".to_vec(), &Defaults::default()).await;
    assert!(matches!(refused, Err(UseCaseError::NotAllowed)));
}

#[tokio::test]
async fn ten_thousand_rows_take_seconds_and_stay_fast_to_find() {
    let test = TestBroker::start().await;
    let (shell, defaults) = (Caller::command_line(), Defaults { kind: "printer".into(), site: "default".into() });
    let mut file = String::from("Seriennummer;Bezeichnung;Stockwerk;Raum;Inventarnummer\n");
    for row in 0..10_000 {
        file.push_str(&format!("SN{row:05};Drucker {row} im Büro;{};{}.{row};A-{row}\n", row % 12, row % 12));
    }
    let started = Clock::system().now();
    let checked = test.broker.import_devices(&shell, file.into_bytes(), &defaults).await.unwrap();
    assert_eq!((checked.errors.len(), checked.devices.len()), (0, 10_000));
    assert!(elapsed(&started) < Duration::from_secs(60), "{:?} without optimisation", elapsed(&started));
    let query = DeviceQuery { text: "büro".into(), floor: Some("3".into()), limit: 50, ..DeviceQuery::default() };
    let facets = test.broker.device_facets(&shell, &query).await.unwrap();
    assert_eq!((facets.total, facets.floors.len(), facets.floors["4"]), (834, 12, 833));
    let (rows, total) = test.broker.devices(&shell, &query).await.unwrap();
    assert_eq!((rows.len(), total), (50, 834));
    let dana = test.visitor("dana", Role::Viewer).await;
    let started = Clock::system().now();
    let last = dana.get("/devices?page=200").await;
    eprintln!("the last page of 10,000 took {:?} without optimisation", elapsed(&started));
    assert!(last.body.contains("9951–10000 / 10000"), "{}", last.body);
    assert!(test.broker.audit_verify().await.unwrap().first_bad.is_none());
}

#[tokio::test]
async fn the_template_imports_as_it_is() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Technician).await;
    let template = dana.get("/devices/import/template.csv").await;
    let answer = checked(&dana, &template.body).await;
    assert!(answer.body.contains("1 row, no mistake"), "{}", answer.body);
}

fn text() -> impl Strategy<Value = String> {
    "[-=+@a-zA-Z0-9äöü;,\"'|. ]{0,20}"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_exported_is_imported_as_it_was(name in text(), serial in text(), room in text(), owner in text(), note in text()) {
        let id = pairgate::id::DeviceId::new("tv-01").unwrap();
        let facts = DeviceFacts { kind: "tv".into(), site: "default".into(), name, serial, room, owner, note, ..DeviceFacts::default() };
        let facts = facts.checked(&id).unwrap();
        let heads = vec!["id", "kind", "site", "name", "serial", "room", "owner", "note"];
        let cells = vec!["tv-01", "tv", "default", &facts.name, &facts.serial, &facts.room, &facts.owner, &facts.note];
        let file = spreadsheet::write([heads, cells]);
        let places = [pairgate::model::import::Place { site: Site::plain("default", "HQ"), may_register: true }];
        let against = pairgate::model::import::Against {
            kinds: &pairgate::model::kind::Kind::built_in(),
            places: &places,
            known: &pairgate::model::import::Known::default(),
            defaults: &Defaults::default(),
            refused: |_| None,
        };
        let found = pairgate::model::import::check(&spreadsheet::read(file.as_bytes()).unwrap(), &against);
        prop_assert_eq!(found.errors, vec![]);
        prop_assert_eq!(&found.devices[0].facts, &facts);
    }
}

async fn imports_by_clicking(look: Look) {
    let test = TestBroker::start().await;
    let link = crate::bulk::admin_link(&test, "dana").await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let bad = file("bad.csv", "Name;Art;Raum\nFoyer;Fernseher;1\nWest;Ferseher;2\n");
    let good = file("good.csv", "Name;Art;Raum\nFoyer;Fernseher;1\nWest;Fernseher;2\n");
    browse(look, move |browser| async move {
        browser.open(&link).await;
        browser.click("main button").await;
        browser.see_heading("Overview").await;
        browser.open(&format!("{}/devices/import", test.issuer)).await;
        browser.see_heading("Import a list").await;
        browser.inspect("import", &[]).await;
        browser.type_into("#file", &bad).await;
        browser.click("form[enctype] button.primary").await;
        browser.see("#result .problems").await;
        browser.inspect("import-mistakes", &["status of 422"]).await;
        browser.type_into("#file", &good).await;
        browser.click("form[enctype] button.primary").await;
        browser.see("#result .wide-button").await;
        browser.inspect("import-checked", &[]).await;
        browser.click("#result .wide-button").await;
        browser.see(".receipt").await;
        browser.see_heading("Devices").await;
        browser.inspect("devices-imported", &[]).await;
        assert!(browser.text().await.contains("Foyer"));
        drop(folder);
    })
    .await;
}

#[tokio::test]
async fn browser_a_list_with_mistakes_then_without_on_a_phone() {
    imports_by_clicking(Look::PHONE).await;
}

#[tokio::test]
async fn browser_a_list_with_mistakes_then_without_at_a_desk_in_the_dark() {
    imports_by_clicking(Look::DESK.dark()).await;
}
