//! Floors, finding, technicians, replacing, theft, and keys that makers announced.

use pairgate::model::device::{DeviceFacts, DeviceState, Successor};
use pairgate::model::grant::GrantState;
use pairgate::model::operator::Role;
use pairgate::model::pairing::PairingState;
use pairgate::store::{Announced, FloorProgress, NewTechnicianCode, PairingRefusal, StateChange, WindowSubject};

use super::{Bench, at, bytes, facts, how_many, id, pairing_request, when};

fn code(device: &str, name: &str) -> NewTechnicianCode {
    NewTechnicianCode { device: id(device), hash: bytes(name) }
}

pub async fn floors_are_counted_without_retired_devices(bench: Bench) {
    let store = &bench.store;
    for (device, floor) in [("tv-01", "2"), ("tv-02", "2"), ("tv-03", "1"), ("tv-04", ""), ("tv-05", "2")] {
        let facts = DeviceFacts { floor: floor.into(), ..facts(device) };
        assert!(store.register_device(&id(device), &facts, &when(0)).await.unwrap());
    }
    bench.pair("tv-01", "tv-01").await;
    bench.pair("tv-03", "tv-03").await;
    store.set_device_state(&id("tv-03"), DeviceState::Suspended, &when(3)).await.unwrap();
    store.set_device_state(&id("tv-05"), DeviceState::Retired, &when(3)).await.unwrap();
    let floor = |floor: &str, total, paired| FloorProgress { floor: floor.into(), total, paired };
    let progress = store.pairing_progress("default").await.unwrap();
    assert_eq!(progress, [floor("", 1, 0), floor("1", 1, 1), floor("2", 2, 1)]);
    assert_eq!(store.pairing_progress("nowhere").await.unwrap(), []);
}

pub async fn a_device_is_asked_to_show_itself_and_told_once(bench: Bench) {
    let store = &bench.store;
    bench.active("tv-01").await;
    bench.registered("tv-02").await;
    store.set_device_state(&id("tv-02"), DeviceState::Suspended, &when(3)).await.unwrap();
    let known = bench.records().await.len();
    for nobody in ["unknown-tv", "tv-02"] {
        assert!(!store.ask_to_identify(&id(nobody), at(130), &when(10)).await.unwrap(), "{nobody}");
    }
    let device = bench.device("tv-01").await;
    assert!(!store.take_identify(&device, &when(10)).await.unwrap(), "nobody asked");
    let known = bench.recorded(known, &[]).await;
    assert!(store.ask_to_identify(&id("tv-01"), at(130), &when(10)).await.unwrap());
    let device = bench.device("tv-01").await;
    assert_eq!(device.identify_until, Some(at(130)));
    assert!(!store.take_identify(&device, &when(130)).await.unwrap(), "over to the millisecond");
    let answers = bench
        .race(move |store, _| {
            let device = device.clone();
            async move { store.take_identify(&device, &when(129)).await.unwrap() }
        })
        .await;
    assert_eq!(how_many(&answers, &true), 1);
    assert_eq!(bench.device("tv-01").await.identify_until, None);
    bench.recorded(known, &["device.identify", "device.identified"]).await;
}

pub async fn an_announced_key_is_compared_in_the_transaction_that_pins_it(bench: Bench) {
    let store = &bench.store;
    bench.registered("tv-01").await;
    bench.open_window("tv-01").await;
    assert_eq!(store.announce_key(&id("unknown-tv"), None, &when(0)).await.unwrap(), Announced::NotThere);
    let pairing = bench.revealed("tv-01", "key").await;
    let known = bench.records().await.len();
    assert!(!store.confirm_announced_pairing(&pairing, &when(2)).await.unwrap(), "none was announced");
    assert_eq!(
        store.announce_key(&id("tv-01"), Some(&bytes("another key")), &when(2)).await.unwrap(),
        Announced::Noted
    );
    assert!(!store.pairing(&pairing).await.unwrap().unwrap().is_announced());
    assert!(!store.confirm_announced_pairing(&pairing, &when(2)).await.unwrap(), "another was announced");
    assert_eq!(store.announce_key(&id("tv-01"), Some(&bytes("key")), &when(2)).await.unwrap(), Announced::Noted);
    assert!(store.pairing(&pairing).await.unwrap().unwrap().is_announced());
    assert_eq!(store.announce_key(&id("tv-01"), None, &when(2)).await.unwrap(), Announced::Noted);
    assert!(!store.confirm_announced_pairing(&pairing, &when(2)).await.unwrap(), "it was taken back");
    assert_eq!(store.announce_key(&id("tv-01"), Some(&bytes("key")), &when(2)).await.unwrap(), Announced::Noted);
    let confirming = pairing.clone();
    let answers = bench
        .race(move |store, _| {
            let pairing = confirming.clone();
            async move { store.confirm_announced_pairing(&pairing, &when(3)).await.unwrap() }
        })
        .await;
    assert_eq!(how_many(&answers, &true), 1);
    assert_eq!(store.pairing(&pairing).await.unwrap().unwrap().pairing.state, PairingState::Confirmed);
    assert_eq!(bench.device("tv-01").await.key.unwrap().jkt, bytes("key"));
    let announced = "device.key_announced";
    bench.recorded(known, &[announced, announced, announced, announced, "pairing.confirmed"]).await;
    store.set_device_state(&id("tv-01"), DeviceState::Retired, &when(4)).await.unwrap();
    assert_eq!(store.announce_key(&id("tv-01"), None, &when(5)).await.unwrap(), Announced::NotThere, "retired");
    // One key is one device's, whether it is paired, was, or is only announced.
    bench.registered("tv-02").await;
    bench.registered("tv-03").await;
    let announce =
        async |device: &str, key: &str| store.announce_key(&id(device), Some(&bytes(key)), &when(6)).await.unwrap();
    assert_eq!(announce("tv-02", "key").await, Announced::Taken);
    assert_eq!(announce("tv-02", "its own").await, Announced::Noted);
    assert_eq!(announce("tv-03", "its own").await, Announced::Taken);
    assert_eq!(announce("tv-02", "its own").await, Announced::Noted, "again");
}

pub async fn a_technicians_code_is_good_once_and_for_one_device(bench: Bench) {
    let store = &bench.store;
    bench.registered("tv-01").await;
    bench.active("tv-02").await;
    bench.registered("tv-03").await;
    store.set_device_state(&id("tv-03"), DeviceState::Suspended, &when(3)).await.unwrap();
    let known = bench.records().await.len();
    for stopped in ["tv-03", "unknown-tv"] {
        let codes = [code("tv-01", "a"), code(stopped, "b")];
        assert!(!store.add_technician_codes(&codes, at(86_400), &when(10)).await.unwrap(), "{stopped}");
    }
    assert!(store.technician_code(&bytes("a"), at(11)).await.unwrap().is_none(), "all or nothing");
    let known = bench.recorded(known, &[]).await;
    assert!(store.add_technician_codes(&[code("tv-01", "a"), code("tv-02", "b")], at(1000), &when(10)).await.unwrap());
    let pass = store.technician_code(&bytes("a"), at(999)).await.unwrap().unwrap();
    assert_eq!((pass.device.id.as_str(), pass.made_by.as_str(), pass.ends_at), ("tv-01", "command-line", at(1000)));
    assert!(store.technician_code(&bytes("a"), at(1000)).await.unwrap().is_none(), "over to the millisecond");
    assert!(store.use_technician_code(&bytes("a"), &bytes("late"), &when(1000)).await.unwrap().is_none());
    assert!(store.use_technician_code(&bytes("c"), &bytes("wrong"), &when(20)).await.unwrap().is_none());
    // A new code takes the place of one that nobody used.
    assert!(store.add_technician_codes(&[code("tv-01", "a2")], at(9_000), &when(15)).await.unwrap());
    assert!(store.technician_code(&bytes("a"), at(16)).await.unwrap().is_none());
    let known = bench.recorded(known, &["technician.code", "technician.code", "technician.code"]).await;
    let sessions = bench
        .race(|store, index| async move {
            let session = bytes(&format!("session {index}"));
            store.use_technician_code(&bytes("a2"), &session, &when(20)).await.unwrap().map(|_| session)
        })
        .await;
    let sessions: Vec<_> = sessions.into_iter().flatten().collect();
    bench.recorded(known, &["technician.in"]).await;
    let [session] = sessions.as_slice() else { panic!("{} came in", sessions.len()) };
    let pass = store.technician_session(session, at(7_219)).await.unwrap().unwrap();
    assert_eq!((pass.device.id.as_str(), pass.ends_at), ("tv-01", at(20 + 7_200)));
    assert!(store.technician_session(session, at(7_220)).await.unwrap().is_none(), "two hours");
    assert!(store.technician_session(&bytes("session x"), at(30)).await.unwrap().is_none());
    assert!(store.technician_code(&bytes("b"), at(30)).await.unwrap().is_some(), "the other one is untouched");
}

pub async fn pairing_stopping_and_replacing_end_a_technicians_pass(bench: Bench) {
    let store = &bench.store;
    for (index, end) in ["paired", "suspended", "stolen", "retired", "replaced"].into_iter().enumerate() {
        let device = format!("tv-{index:02}");
        bench.registered(&device).await;
        assert!(store.add_technician_codes(&[code(&device, end)], at(9_000), &when(0)).await.unwrap());
        let session = bytes(&device);
        store.use_technician_code(&bytes(end), &session, &when(1)).await.unwrap().unwrap();
        assert!(store.add_technician_codes(&[code(&device, &device)], at(9_000), &when(1)).await.unwrap());
        assert!(store.technician_session(&session, at(2)).await.unwrap().is_some(), "a second code ends no pass");
        match end {
            "paired" => drop(bench.pair(&device, &device).await),
            "suspended" => drop(store.set_device_state(&id(&device), DeviceState::Suspended, &when(2)).await.unwrap()),
            "stolen" => drop(store.mark_stolen(&id(&device), &when(2)).await.unwrap()),
            "retired" => drop(store.set_device_state(&id(&device), DeviceState::Retired, &when(2)).await.unwrap()),
            _ => drop(store.replace_device(&id(&device), &Successor::default(), at(900), &when(2)).await.unwrap()),
        }
        assert!(store.technician_session(&session, at(3)).await.unwrap().is_none(), "{end}: the pass");
        assert!(store.technician_code(&bytes(&device), at(3)).await.unwrap().is_none(), "{end}: the unused code");
    }
}

pub async fn replacing_ends_the_old_box_and_opens_for_the_new_one_in_one_step(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    bench.registered("tv-01").await;
    store.announce_key(&id("tv-01"), Some(&bytes("old key")), &when(0)).await.unwrap();
    let device = bench.pair("tv-01", "old key").await;
    let redeemed = bench.redeemed(&device, "first", approver).await;
    bench.open_window("tv-01").await;
    let waiting = bench.revealed("tv-01", "rival key").await;
    let known = bench.records().await.len();
    let new = Successor { serial: "SN-2".into(), asset_tag: "4712".into(), maker: "Acme".into(), model: "B".into() };
    let replace = |device: &str| {
        let (device, new) = (id(device), new.clone());
        async move { store.replace_device(&device, &new, at(920), &when(20)).await.unwrap() }
    };
    assert_eq!(replace("unknown-tv").await, StateChange::NotFound);
    assert_eq!(replace("tv-01").await, StateChange::Changed(DeviceState::Active));
    bench.recorded(known, &["device.replaced"]).await;
    let present = bench.device("tv-01").await;
    assert_eq!(
        (present.row, present.state, present.key, present.manifest_jkt),
        (device.row, DeviceState::Registered, None, None)
    );
    let kept = DeviceFacts {
        serial: "SN-2".into(),
        asset_tag: "4712".into(),
        maker: "Acme".into(),
        model: "B".into(),
        ..device.facts
    };
    assert_eq!(present.facts, kept, "id, kind and place stay");
    assert_eq!(store.grant(redeemed).await.unwrap().unwrap().state, GrantState::Revoked);
    assert!(!store.confirm_pairing(&waiting, &when(21)).await.unwrap(), "what waited for the old box");
    assert_eq!(store.window(&WindowSubject::Device(id("tv-01")), at(919)).await.unwrap(), Some(at(920)));
    let mut old = pairing_request("tv-01", "old key");
    old.says.serial = "SN-2".into();
    assert_eq!(store.request_pairing(&old, &when(22)).await.unwrap(), Err(PairingRefusal::DeadKey));
    let mut successor = pairing_request("tv-01", "new key");
    successor.says.serial = "SN-2".into();
    assert_eq!(store.request_pairing(&successor, &when(22)).await.unwrap(), Ok(()));
    // From every state but retired; a stolen device that is replaced is stolen no more.
    store.mark_stolen(&id("tv-01"), &when(23)).await.unwrap();
    assert_eq!(replace("tv-01").await, StateChange::Changed(DeviceState::Suspended));
    assert_eq!(bench.device("tv-01").await.stolen_at, None);
    assert_eq!(replace("tv-01").await, StateChange::Changed(DeviceState::Registered));
    store.set_device_state(&id("tv-01"), DeviceState::Retired, &when(24)).await.unwrap();
    assert_eq!(replace("tv-01").await, StateChange::Refused(DeviceState::Retired));
}

pub async fn a_stolen_device_is_stopped_once_and_stays_marked_until_it_is_let_on(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("tv-01").await;
    let redeemed = bench.redeemed(&device, "first", approver).await;
    let known = bench.records().await.len();
    assert_eq!(store.mark_stolen(&id("unknown-tv"), &when(9)).await.unwrap(), StateChange::NotFound);
    let answers = bench.race(|store, _| async move { store.mark_stolen(&id("tv-01"), &when(10)).await.unwrap() }).await;
    assert_eq!(how_many(&answers, &StateChange::Changed(DeviceState::Active)), 1);
    assert_eq!(how_many(&answers, &StateChange::Refused(DeviceState::Suspended)), answers.len() - 1);
    let known = bench.recorded(known, &["device.stolen"]).await;
    assert_eq!(bench.records().await.last().unwrap().severity, "alert");
    assert_eq!(store.grant(redeemed).await.unwrap().unwrap().state, GrantState::Revoked);
    let stolen = bench.device("tv-01").await;
    assert_eq!((stolen.state, stolen.stolen_at), (DeviceState::Suspended, Some(at(10))));
    // A plain resume, begun before the report came, lets no thief on.
    for to in [DeviceState::Active, DeviceState::Registered] {
        let resumed = store.set_device_state(&id("tv-01"), to, &when(11)).await.unwrap();
        assert_eq!(resumed, StateChange::Refused(DeviceState::Suspended), "{to:?}");
    }
    assert_eq!(bench.device("tv-01").await.stolen_at, Some(at(10)));
    assert_eq!(store.resume_stolen(&id("unknown-tv"), &when(11)).await.unwrap(), StateChange::NotFound);
    let resumed = store.resume_stolen(&id("tv-01"), &when(11)).await.unwrap();
    assert_eq!(resumed, StateChange::Changed(DeviceState::Suspended));
    let back = bench.device("tv-01").await;
    assert_eq!((back.state, back.stolen_at), (DeviceState::Active, None));
    // One that was suspended before is marked all the same.
    store.set_device_state(&id("tv-01"), DeviceState::Suspended, &when(12)).await.unwrap();
    let marked = store.mark_stolen(&id("tv-01"), &when(13)).await.unwrap();
    assert_eq!(marked, StateChange::Changed(DeviceState::Suspended));
    store.set_device_state(&id("tv-01"), DeviceState::Retired, &when(14)).await.unwrap();
    let retired = store.mark_stolen(&id("tv-01"), &when(15)).await.unwrap();
    assert_eq!(retired, StateChange::Refused(DeviceState::Retired));
    bench.recorded(known, &["device.resumed", "device.suspended", "device.stolen", "device.retired"]).await;
}
