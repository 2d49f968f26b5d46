//! A broken device's successor takes its place: id, room and history stay, and the old key is dead from that moment.

use pairgate::broker::{Caller, UseCaseError};
use pairgate::model::device::{DeviceFacts, DeviceState, Successor};
use pairgate::model::operator::Role;
use pairgate::simulator::{PairingStatus, SimulatorError, TokenAnswer};
use pairgate::store::AuditQuery;

use crate::support::TestBroker;
use crate::support::chromium::{Look, browse};

fn new_box(serial: &str) -> Successor {
    Successor { serial: serial.into(), ..Successor::default() }
}

#[tokio::test]
async fn the_successor_takes_over_and_the_old_key_dies_in_the_same_moment() {
    let test = TestBroker::start().await;
    let boss = test.operator("boss", Role::Admin).await;
    let dana = test.visitor("dana", Role::Admin).await;
    let facts = DeviceFacts {
        kind: "printer".into(),
        name: "Lobby printer".into(),
        serial: "SN-1".into(),
        maker: "Acme".into(),
        model: "M480f".into(),
        floor: "EG".into(),
        room: "EG-01".into(),
        ..DeviceFacts::default()
    };
    test.broker.register_device(&Caller::command_line(), "lobby-printer-01", facts).await.unwrap();
    let mut old = test.stranger("lobby-printer-01");
    old.serial = "SN-1".into();
    test.pair(&mut old).await;
    test.signed_in(&boss, &mut old).await;
    let waiting_code = old.request_code(None, None).await.unwrap();

    let fields = [("action", "replace"), ("serial", "SN-2"), ("asset_tag", "4712"), ("maker", ""), ("model", "")];
    let dana = {
        drop(dana);
        test.another_session("dana").await
    };
    let answer = dana.post("/devices/lobby-printer-01", &fields).await;
    assert_eq!(answer.header("location"), Some("/devices/lobby-printer-01?done=replaced"), "{}", answer.body);
    let device = test.broker.device(&Caller::command_line(), "lobby-printer-01").await.unwrap();
    assert_eq!((device.state, device.key.is_none()), (DeviceState::Registered, true));
    assert_eq!(
        (device.facts.serial.as_str(), device.facts.model.as_str(), device.facts.room.as_str()),
        ("SN-2", "M480f", "EG-01"),
        "one more of the same, at the same place"
    );
    // The old box: nothing of it works any more, and it can't come back.
    assert_eq!(test.poll(&old, &waiting_code.device_code).await.status, 401);
    assert!(matches!(old.refresh().await, Ok(TokenAnswer::Error { status: 401, .. })));
    assert!(old.request_code(None, None).await.is_err());
    for serial in ["SN-1", "SN-2"] {
        old.serial = serial.into();
        let refused = old.request_pairing().await;
        assert!(matches!(refused, Err(SimulatorError::Refused { status: 403, .. })), "{serial}: {refused:?}");
    }
    // The new box: the window is open, and only its serial number is expected.
    let mut impostor = test.stranger("lobby-printer-01");
    impostor.serial = "SN-1".into();
    assert!(impostor.request_pairing().await.is_err(), "another serial number");
    let mut new = test.stranger("lobby-printer-01");
    new.serial = "SN-2".into();
    let shown = new.request_pairing().await.unwrap();
    let PairingStatus::Pending { digits, .. } = new.poll_pairing().await.unwrap() else { panic!("not pending") };
    let number = pairgate::broker::pairing::Confirm::Number(&digits);
    test.broker.confirm_pairing(&Caller::command_line(), &shown.pairing_id, &number).await.unwrap();
    assert!(matches!(new.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
    test.signed_in(&boss, &mut new).await;
    let query = AuditQuery { device: Some(device.id.clone()), limit: 100, ..AuditQuery::default() };
    let history = test.broker.audit(&Caller::command_line(), &query).await.unwrap();
    let events: Vec<&str> = history.iter().map(|record| record.event.as_str()).collect();
    assert!(events.contains(&"device.registered") && events.contains(&"device.replaced"), "one history: {events:?}");
}

#[tokio::test]
async fn replacing_is_an_administrators_with_a_fresh_sign_in_a_081() {
    let test = TestBroker::start().await;
    test.paired("printer-01", "printer").await;
    let admin = test.visitor("dana", Role::Admin).await;
    test.advance(301);
    for (action, confirm) in [("replace", ""), ("retire", "printer-01")] {
        let answer =
            admin.post("/devices/printer-01", &[("action", action), ("confirm", confirm), ("serial", "X")]).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some("/sign-in/again?back=%2Fdevices%2Fprinter-01")),
            "{action}"
        );
    }
    for role in [Role::Viewer, Role::Technician, Role::Approver] {
        let person = test.visitor(role.as_str(), role).await;
        assert_eq!(person.post("/devices/printer-01", &[("action", "replace")]).await.status, 422, "{role:?}");
    }
    assert_eq!(test.count("device.replaced").await + test.count("device.retired").await, 0);
}

#[tokio::test]
async fn what_can_not_be_replaced_says_why() {
    let test = TestBroker::start().await;
    let root = Caller::command_line();
    let facts = DeviceFacts { kind: "printer".into(), serial: "SN-1".into(), ..DeviceFacts::default() };
    test.broker.register_device(&root, "printer-01", facts).await.unwrap();
    let replace = async |id: &str, new: Successor| match test.broker.replace_device(&root, id, new).await {
        Err(UseCaseError::Refused(lines)) => lines.join(" "),
        Err(error) => error.to_string(),
        Ok(_) => "replaced".into(),
    };
    assert!(replace("printer-01", new_box("SN-1")).await.contains("the serial number of the present box"));
    assert!(replace("printer-01", new_box("a\nb")).await.contains("serial"));
    assert!(replace("nobody-01", new_box("SN-2")).await.contains("there is no device 'nobody-01'"));
    assert_eq!(replace("printer-01", new_box("")).await, "replaced");
    test.retire("printer-01").await;
    assert!(replace("printer-01", new_box("SN-2")).await.contains("is retired"));
    assert_eq!(test.count("device.replaced").await, 1);
}

#[tokio::test]
async fn the_page_of_a_device_is_complete_and_replaces_it() {
    let test = TestBroker::start().await;
    test.paired("printer-01", "printer").await;
    test.broker.add_operator(&Caller::command_line(), "dana", Role::Admin).await.unwrap();
    let link = test.broker.operator_link(&Caller::command_line(), "dana").await.unwrap();
    browse(Look::PHONE, move |browser| async move {
        browser.open(&link).await;
        browser.click("main button").await;
        browser.see_heading("Overview").await;
        browser.open(&format!("{}/devices/printer-01", test.issuer)).await;
        browser.see_heading("Device printer-01").await;
        browser.inspect("device", &[]).await;
        browser.run("window.dispatchEvent(new Event('pagehide'))").await;
        browser.assert_keyboard_reaches_everything("device").await;
        browser.click("button[value=suspend]").await;
        browser.see(".undo button").await;
        browser.inspect("device-suspended", &[]).await;
        browser.click(".undo button").await;
        browser.see("button[value=suspend]").await;
        browser.run("for (const fold of document.querySelectorAll('details')) fold.open = true").await;
        browser.inspect("device-open", &[]).await;
        browser.type_into("#new-serial", "SN-2").await;
        browser.click("button[value=replace]").await;
        browser.see("button[value=close_window]").await;
        browser.inspect("device-replaced", &[]).await;
        browser.click("button[value=stolen]").await;
        browser.see(".box.problems").await;
        browser.inspect("device-stolen", &[]).await;
    })
    .await;
}
