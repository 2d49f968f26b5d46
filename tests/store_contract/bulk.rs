//! Many devices at once: imports, bulk changes, groups, and what is kept between two steps.

use std::collections::BTreeSet;
use std::sync::Arc;

use pairgate::model::change::{DeviceChange, Move};
use pairgate::model::device::{DeviceFacts, DeviceState};
use pairgate::model::grant::GrantState;
use pairgate::model::import::NewDevice;
use pairgate::model::operator::{Reach, Role};
use pairgate::model::site::Site;
use pairgate::store::{ChangeOf, Changed, FactsChange, Store, WindowSubject};

use super::{ALL, Bench, at, bytes, facts, how_many, id, when};

fn new(device: &str, key: Option<&str>) -> NewDevice {
    NewDevice { id: id(device), facts: facts(device), manifest_jkt: key.map(bytes), row: 2, is_minted: false }
}

fn to(device: &str, change: DeviceChange) -> ChangeOf {
    ChangeOf { id: id(device), site: "default".into(), change, after: None }
}

pub async fn a_list_is_registered_whole_or_not_at_all(bench: Bench) {
    let store = &bench.store;
    bench.active("old-tv-01").await;
    let known = bench.records().await.len();
    let taken = [
        (vec![new("tv-02", None), new("old-tv-01", None)], vec![1]),
        (vec![new("tv-02", Some("old-tv-01")), new("tv-03", None)], vec![0]),
    ];
    for (list, expected) in taken {
        assert_eq!(store.register_devices(list, &when(9)).await.unwrap(), expected);
        assert!(store.device(&id("tv-02")).await.unwrap().is_none(), "nothing of it");
    }
    let known = bench.recorded(known, &[]).await;

    let list = vec![new("tv-02", Some("announced")), new("tv-03", None)];
    assert!(store.register_devices(list, &when(9)).await.unwrap().is_empty());
    let known = bench.recorded(known, &["devices.imported", "device.registered", "device.registered"]).await;
    let device = bench.device("tv-02").await;
    assert_eq!((device.state, device.key, device.facts), (DeviceState::Registered, None, facts("tv-02")), "unverified");
    let again = store.register_devices(vec![new("tv-04", Some("announced"))], &when(9)).await.unwrap();
    assert_eq!(again, [0], "a key is announced for one device");
    assert!(store.register_devices(Vec::new(), &when(9)).await.unwrap().is_empty());
    bench.recorded(known, &[]).await;
}

pub async fn of_many_imports_of_one_list_at_once_one_is_done(bench: Bench) {
    let answers = bench
        .race(|store, _| async move {
            store.register_devices(vec![new("tv-01", None), new("tv-02", None)], &when(0)).await.unwrap()
        })
        .await;
    assert_eq!(how_many(&answers, &Vec::new()), 1);
    assert_eq!(how_many(&answers, &vec![0, 1]), answers.len() - 1);
    assert_eq!(bench.count("devices.imported").await, 1);
}

pub async fn what_is_known_is_told_as_far_as_one_may_know_a_080(bench: Bench) {
    let store = &bench.store;
    store.add_site(&Site::plain("berlin", "Berlin"), &when(0)).await.unwrap();
    for (device, site) in [("berlin-tv-01", "berlin"), ("main-tv-01", "default")] {
        // One without: it is paired below, by a device that names none.
        let serial = if site == "berlin" { "SN1" } else { "" };
        let facts = DeviceFacts { site: site.into(), serial: serial.into(), ..facts(device) };
        store.register_device(&id(device), &facts, &when(0)).await.unwrap();
    }
    bench.pair("main-tv-01", "key").await;
    store.register_devices(vec![new("tv-03", Some("announced"))], &when(1)).await.unwrap();
    let only = Reach::Sites(BTreeSet::from(["berlin".to_owned()]));
    let known = store.known_devices(&only).await.unwrap();
    assert_eq!(known.serials.keys().collect::<Vec<_>>(), ["SN1"]);
    assert_eq!((known.ids.len(), known.keys), (3, [bytes("key"), bytes("announced")].into()), "these are nobody's");
    let groups = store.device_groups("", &only).await.unwrap();
    assert_eq!(groups.iter().map(|group| (group.site.as_str(), group.count)).collect::<Vec<_>>(), [("berlin", 1)]);
    let groups = store.device_groups(" MAIN-tv ", ALL).await.unwrap();
    assert_eq!((groups.len(), groups[0].state, groups[0].count), (1, DeviceState::Active, 1));
}

pub async fn many_are_changed_in_one_go_and_changed_back(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("tv-01").await;
    let grant = bench.redeemed(&device, "code", approver).await;
    bench.registered("tv-02").await;
    bench.registered("tv-03").await;
    store.set_device_state(&id("tv-03"), DeviceState::Retired, &when(7)).await.unwrap();
    let known = bench.records().await.len();

    let wanted = ["tv-01", "tv-02", "tv-03", "tv-04"].map(|device| to(device, DeviceChange::Suspend)).to_vec();
    let changed = store.change_devices(wanted.clone(), &when(8)).await.unwrap();
    let done = Changed::Done { undo: Some(DeviceChange::Resume), grant: None };
    assert_eq!(changed, [done.clone(), done, Changed::Refused(DeviceState::Retired), Changed::NotFound]);
    assert_eq!(store.grant(grant).await.unwrap().unwrap().state, GrantState::Revoked, "as if done one by one");
    let known = bench.recorded(known, &["device.suspended", "device.suspended"]).await;
    let again = store.change_devices(wanted[..2].to_vec(), &when(8)).await.unwrap();
    assert_eq!(again, [Changed::Nothing, Changed::Nothing]);

    let back = ["tv-01", "tv-02"].map(|device| to(device, DeviceChange::Resume)).to_vec();
    store.change_devices(back.clone(), &when(9)).await.unwrap();
    assert_eq!(bench.device("tv-01").await.state, DeviceState::Active);
    assert_eq!(bench.device("tv-02").await.state, DeviceState::Registered, "it never had a key");
    assert_eq!(store.change_devices(back, &when(9)).await.unwrap(), [Changed::Nothing, Changed::Nothing]);
    let known = bench.recorded(known, &["device.resumed", "device.resumed"]).await;
    let stolen = vec![to("tv-01", DeviceChange::Stolen)];
    let done = store.change_devices(stolen.clone(), &when(10)).await.unwrap();
    assert_eq!(done, [Changed::Done { undo: None, grant: None }]);
    assert_eq!(store.change_devices(stolen, &when(10)).await.unwrap(), [Changed::Nothing], "reported once");
    let resumed = store.change_devices(vec![to("tv-01", DeviceChange::Resume)], &when(11)).await.unwrap();
    assert_eq!(resumed, [Changed::Refused(DeviceState::Suspended)], "a stolen one is let on one at a time, by its id");
    bench.recorded(known, &["device.stolen"]).await;
    let elsewhere = ChangeOf { site: "berlin".into(), ..to("tv-01", DeviceChange::Retire) };
    assert_eq!(store.change_devices(vec![elsewhere], &when(9)).await.unwrap(), [Changed::NotFound], "moved meanwhile");
    let retired = store.change_devices(vec![to("tv-01", DeviceChange::Retire)], &when(9)).await.unwrap();
    assert_eq!(retired, [Changed::Done { undo: None, grant: None }]);
}

pub async fn windows_and_places_of_many_go_back_to_what_they_were(bench: Bench) {
    let store = &bench.store;
    for device in ["tv-01", "tv-02"] {
        bench.registered(device).await;
    }
    let subject = WindowSubject::Device(id("tv-01"));
    store.open_window(&subject, at(600), &when(0)).await.unwrap();
    let open = ["tv-01", "tv-02"].map(|device| to(device, DeviceChange::OpenWindow(at(900)))).to_vec();
    let changed = store.change_devices(open, &when(1)).await.unwrap();
    let undo: Vec<_> = changed
        .into_iter()
        .map(|changed| match changed {
            Changed::Done { undo: Some(undo), .. } => undo,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(undo, [DeviceChange::OpenWindow(at(600)), DeviceChange::CloseWindow]);
    assert_eq!(store.window(&subject, at(2)).await.unwrap(), Some(at(900)));
    let back = vec![to("tv-01", undo[0].clone()), to("tv-02", undo[1].clone())];
    store.change_devices(back, &when(2)).await.unwrap();
    assert_eq!(store.window(&subject, at(2)).await.unwrap(), Some(at(600)));
    let closed = store.change_devices(vec![to("tv-02", DeviceChange::CloseWindow)], &when(3)).await.unwrap();
    assert_eq!(closed, [Changed::Nothing]);
    let suspended = store.change_devices(vec![to("tv-02", DeviceChange::Suspend)], &when(3)).await.unwrap();
    assert!(matches!(suspended[..], [Changed::Done { .. }]));
    let refused = store.change_devices(vec![to("tv-02", DeviceChange::OpenWindow(at(900)))], &when(3)).await.unwrap();
    assert_eq!(refused, [Changed::Refused(DeviceState::Suspended)]);

    let there = Move { floor: Some("2".into()), ..Move::default() };
    let known = bench.records().await.len();
    let moved = store.change_devices(vec![to("tv-01", DeviceChange::Move(there.clone()))], &when(4)).await.unwrap();
    let back = Move { floor: Some(String::new()), ..Move::default() };
    assert_eq!(moved, [Changed::Done { undo: Some(DeviceChange::Move(back)), grant: None }]);
    assert_eq!(bench.device("tv-01").await.facts, DeviceFacts { floor: "2".into(), ..facts("tv-01") });
    let again = store.change_devices(vec![to("tv-01", DeviceChange::Move(there.clone()))], &when(4)).await.unwrap();
    assert_eq!(again, [Changed::Nothing]);
    bench.recorded(known, &["device.changed"]).await;
    // What was done since is not undone: another floor, a window that was opened anew, one that was opened after it was closed.
    let elsewhere = DeviceChange::Move(Move { floor: Some("9".into()), ..Move::default() });
    for (made, back) in [
        (elsewhere, DeviceChange::Move(Move::default())),
        (DeviceChange::OpenWindow(at(599)), DeviceChange::CloseWindow),
        (DeviceChange::CloseWindow, DeviceChange::OpenWindow(at(900))),
    ] {
        let undone = ChangeOf { after: Some(made.clone()), ..to("tv-01", back) };
        assert_eq!(store.change_devices(vec![undone], &when(4)).await.unwrap(), [Changed::Meanwhile], "{made:?}");
    }
    assert_eq!(bench.records().await.len(), known + 1);
    assert_eq!(bench.records().await[known].detail, "floor: '' → '2'");
}

pub async fn of_many_who_change_the_same_devices_at_once_one_did(bench: Bench) {
    bench.active("tv-01").await;
    let answers = bench
        .race(|store, _| async move {
            store.change_devices(vec![to("tv-01", DeviceChange::Suspend)], &when(9)).await.unwrap()
        })
        .await;
    assert_eq!(how_many(&answers, &vec![Changed::Nothing]), answers.len() - 1);
    assert_eq!(bench.count("device.suspended").await, 1);
}

pub async fn facts_are_changed_if_they_are_still_those_that_were_seen(bench: Bench) {
    let store = &bench.store;
    bench.registered("tv-01").await;
    let (before, tv) = (facts("tv-01"), id("tv-01"));
    let after = DeviceFacts { kind: "tv".into(), room: "2.14".into(), ..before.clone() };
    let known = bench.records().await.len();
    let change = |before: DeviceFacts, after: DeviceFacts| {
        let tv = tv.clone();
        async move { store.change_device_facts(&tv, &before, &after, &when(5)).await.unwrap() }
    };
    assert_eq!(change(before.clone(), after.clone()).await, FactsChange::Changed);
    assert_eq!(change(before.clone(), after.clone()).await, FactsChange::Meanwhile);
    assert_eq!(
        change(after.clone(), after.clone()).await,
        FactsChange::Changed,
        "nothing to change, nothing to record"
    );
    let known = bench.recorded(known, &["device.changed"]).await;
    let detail = bench.records().await[known - 1].detail.clone();
    assert_eq!(detail, "kind: 'printer' → 'tv'; room: '' → '2.14'");
    bench.pair("tv-01", "key").await;
    for fixed in
        [DeviceFacts { kind: "printer".into(), ..after.clone() }, DeviceFacts { serial: "SN2".into(), ..after.clone() }]
    {
        assert_eq!(change(after.clone(), fixed).await, FactsChange::Paired);
    }
    assert_eq!(change(after.clone(), DeviceFacts { room: "3".into(), ..after.clone() }).await, FactsChange::Changed);
    let nobody = store.change_device_facts(&id("tv-99"), &before, &after, &when(5)).await.unwrap();
    assert_eq!(nobody, FactsChange::NotFound);
    store.set_device_state(&tv, DeviceState::Retired, &when(6)).await.unwrap();
    let now = bench.device("tv-01").await.facts;
    assert_eq!(change(now.clone(), before).await, FactsChange::NotFound, "a tombstone stays as it is");
}

pub async fn what_is_set_aside_is_taken_once_and_in_time(bench: Bench) {
    let store = &bench.store;
    let key = bytes("session");
    store.set_aside(&key, "import", "first", at(60), at(0)).await.unwrap();
    store.set_aside(&key, "import", "second", at(60), at(0)).await.unwrap();
    assert_eq!(store.aside(&key, "import", at(59)).await.unwrap().as_deref(), Some("second"), "in place of the first");
    assert_eq!(store.aside(&key, "import", at(60)).await.unwrap(), None, "too late");
    assert_eq!(store.aside(&key, "undo", at(1)).await.unwrap(), None, "for another purpose");
    assert!(!store.take_aside(&key, "undo", "second", at(1)).await.unwrap());
    assert!(!store.take_aside(&key, "import", "second", at(60)).await.unwrap(), "too late");
    assert!(!store.take_aside(&key, "import", "first", at(1)).await.unwrap(), "another one was kept since");
    let take = |store: Arc<dyn Store>, _| async move {
        store.take_aside(&bytes("session"), "import", "second", at(5)).await.unwrap()
    };
    assert_eq!(how_many(&bench.race(take).await, &true), 1);
    assert!(bench.records().await.is_empty(), "it decides nothing");
}
