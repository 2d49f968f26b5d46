//! Labels: what stands on them, and where on the paper.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pairgate::broker::Caller;
use pairgate::model::device::DeviceFacts;
use pairgate::model::operator::{Rights, Role};
use pairgate::model::site::Site;
use serde_json::json;

use crate::support::TestBroker;
use crate::support::chromium::{Chromium, Look, browse};

async fn house(test: &TestBroker, count: usize) {
    for number in 0..count {
        let facts = DeviceFacts {
            kind: "tv".into(),
            name: format!("Screen {number}"),
            room: "EG-01".into(),
            ..DeviceFacts::default()
        };
        test.broker.register_device(&Caller::command_line(), &format!("screen-{number:03}"), facts).await.unwrap();
    }
}

#[tokio::test]
async fn a_label_says_what_the_device_is_and_nothing_that_lets_anybody_in() {
    let test = TestBroker::start().await;
    house(&test, 3).await;
    let dana = test.visitor("dana", Role::Viewer).await;
    let page = dana.get("/devices/labels?ids=screen-000+screen-002&skip=5").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.body.matches("class=\"label\"").count(), 2);
    assert_eq!(page.body.matches("label blank").count(), 5, "the used places of the sheet");
    assert!(page.body.contains("screen-002") && page.body.contains("Screen 2") && !page.body.contains("Screen 1"));
    for secret in ["key=", "token", "user_code"] {
        let sheets = page.body.split_once("label-sheet").unwrap().1;
        assert!(!sheets.contains(secret), "{secret}");
    }
    assert_eq!(dana.get("/devices/labels?id=screen-001").await.body.matches("class=\"label\"").count(), 1);
    assert_eq!(dana.get("/devices/labels").await.body.matches("class=\"label\"").count(), 3, "all that match");
    assert_eq!(dana.get("/devices/labels?id=nowhere").await.status, 404);
    assert!(dana.get("/devices/labels?q=nowhere").await.body.contains("nothing to print"));
}

#[tokio::test]
async fn devices_of_other_sites_get_no_labels_a_080() {
    let test = TestBroker::start().await;
    house(&test, 1).await;
    let shell = Caller::command_line();
    test.broker.add_site(&shell, Site::plain("berlin", "Berlin")).await.unwrap();
    test.broker.add_person(&shell, "bea", None).await.unwrap();
    test.broker.set_role(&shell, "bea", "berlin", Some(Role::Admin)).await.unwrap();
    assert_eq!(Rights::at("berlin", Role::Admin).role_at("default"), None);
    let bea = test.another_session("bea").await;
    assert_eq!(bea.get("/devices/labels?ids=screen-000").await.status, 404);
    assert_eq!(bea.get("/devices/labels").await.body.matches("class=\"label\"").count(), 0);
}

/// What the code of the first label says, read from a picture of the page.
async fn decoded(browser: &Chromium) -> String {
    let picture = browser.close_up(".label svg").await;
    let mut reader = png::Decoder::new(std::io::Cursor::new(picture)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let (samples, width) = (info.color_type.samples(), usize::try_from(info.width).unwrap());
    let height = usize::try_from(info.height).unwrap();
    let mut image =
        rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| pixels[(y * width + x) * samples + 1]);
    let grids = image.detect_grids();
    grids.first().expect("a code in the picture").decode().unwrap().1
}

/// The number of pages and their size in points, from a PDF as Chromium writes it.
async fn printed(browser: &Chromium) -> (usize, Vec<(f64, f64)>) {
    let answer = browser.devtools("Page.printToPDF", json!({"preferCSSPageSize": true, "printBackground": true})).await;
    let pdf = STANDARD.decode(answer["data"].as_str().unwrap()).unwrap();
    let text = String::from_utf8_lossy(&pdf);
    let boxes: Vec<(f64, f64)> = text
        .split("/MediaBox [")
        .skip(1)
        .map(|rest| {
            let numbers: Vec<f64> =
                rest.split(']').next().unwrap().split_whitespace().map(|number| number.parse().unwrap()).collect();
            (numbers[2], numbers[3])
        })
        .collect();
    (boxes.len(), boxes)
}

/// Left and top of some labels of the first sheet, and their size, in tenths of a millimetre.
async fn places(browser: &Chromium) -> serde_json::Value {
    browser.devtools("Emulation.setEmulatedMedia", json!({"media": "print"})).await;
    let script = "const sheet = document.querySelector('.label-sheet').getBoundingClientRect(), mm = (px) => Math.round(px * 254 / 96);
        return [...document.querySelectorAll('.label-sheet:first-of-type .label')].map((e) => { const r = e.getBoundingClientRect();
        return [mm(r.left - sheet.left), mm(r.top - sheet.top), mm(r.width), mm(r.height)]; })";
    let places = browser.run(script).await;
    browser.devtools("Emulation.setEmulatedMedia", json!({"media": ""})).await;
    places
}

#[tokio::test]
async fn browser_labels_stand_where_the_sheet_has_them_and_their_codes_are_read() {
    let test = TestBroker::start().await;
    house(&test, 70).await;
    let link = crate::bulk::admin_link(&test, "dana").await;
    browse(Look::DESK, move |browser| async move {
        browser.open(&link).await;
        browser.click("main button").await;
        browser.see_heading("Overview").await;
        let a4 = (595.0, 842.0);
        for (format, pages, paper, second, last_of_sheet) in [
            ("l7160", 4, a4, [732, 152, 635, 381], Some((20, [1392, 2438, 635, 381]))),
            ("l7163", 5, a4, [1063, 152, 991, 381], Some((13, [1063, 2438, 991, 381]))),
            ("l7651", 2, a4, [454, 107, 381, 212], Some((64, [1671, 2651, 381, 212]))),
            ("us5160", 3, (612.0, 792.0), [746, 127, 667, 254], Some((29, [1445, 2413, 667, 254]))),
            ("roll62", 70, (176.0, 82.0), [0, 0, 0, 0], None),
        ] {
            browser.open(&format!("{}/devices/labels?format={format}", test.issuer)).await;
            browser.see(".label").await;
            let (count, boxes) = printed(&browser).await;
            assert_eq!(count, pages, "{format}");
            for (width, height) in boxes {
                assert!(
                    (width - paper.0).abs() < 1.5 && (height - paper.1).abs() < 1.5,
                    "{format}: {width} × {height}"
                );
            }
            let places = places(&browser).await;
            let is_at = |place: usize, wanted: [i64; 4]| {
                let found: Vec<i64> = (0..4).map(|part| places[place][part].as_i64().unwrap()).collect();
                let is_near = found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() <= 1);
                assert!(is_near, "{format}: label {place} is at {found:?}, not {wanted:?}");
            };
            if let Some((place, wanted)) = last_of_sheet {
                is_at(1, second);
                is_at(place, wanted);
            }
        }
        browser.open(&format!("{}/devices/labels?ids=screen-007", test.issuer)).await;
        browser.see(".label").await;
        browser.inspect("labels", &[]).await;
        assert_eq!(decoded(&browser).await, format!("{}/devices/screen-007", test.issuer));
    })
    .await;
}

#[tokio::test]
async fn browser_labels_look_right_on_a_phone_in_the_dark() {
    let test = TestBroker::start().await;
    house(&test, 3).await;
    let link = crate::bulk::admin_link(&test, "dana").await;
    browse(Look::PHONE.dark(), move |browser| async move {
        browser.open(&link).await;
        browser.click("main button").await;
        browser.see_heading("Overview").await;
        browser.open(&format!("{}/devices/labels?skip=2", test.issuer)).await;
        browser.see(".label").await;
        browser.inspect("labels", &[]).await;
    })
    .await;
}
