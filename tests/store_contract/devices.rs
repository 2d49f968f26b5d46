//! Devices and sites.

use std::collections::BTreeSet;

use pairgate::model::device::{DeviceFacts, DeviceState};
use pairgate::model::grant::GrantState;
use pairgate::model::operator::{Reach, Role};
use pairgate::model::pairing::PairingState;
use pairgate::model::site::Site;
use pairgate::store::{
    AuditQuery, DeviceCounts, DeviceQuery, PairingRefusal, Redemption, Rotation, SiteChange, StateChange, WindowSubject,
};

use super::{ALL, ALONE, Bench, POLICY, at, bytes, code, facts, how_many, id, pairing_request, when};

pub async fn an_id_is_given_once_also_when_many_ask_at_once(bench: Bench) {
    let answers = bench
        .race(|store, index| async move {
            store.register_device(&id("lobby-printer-01"), &facts(&format!("number {index}")), &when(0)).await.unwrap()
        })
        .await;
    assert_eq!(how_many(&answers, &true), 1);
    bench.recorded(0, &["device.registered"]).await;
    let device = bench.device("lobby-printer-01").await;
    assert_eq!(device.state, DeviceState::Registered);
    assert_eq!((device.registered_at, device.key, device.seen_at), (at(0), None, None));
}

pub async fn devices_are_found_by_id_row_text_and_state(bench: Bench) {
    let store = &bench.store;
    for (name, room) in [("lobby-printer-01", "EG-01"), ("lobby-tv-02", "EG-02"), ("attic-printer-03", "DG-07")] {
        let facts = pairgate::model::device::DeviceFacts {
            room: room.into(),
            serial: format!("SN-{name}"),
            asset_tag: format!("IT {name}"),
            maker: "Maker".into(),
            model: "Model".into(),
            note: "Note".into(),
            ..facts(name)
        };
        assert!(store.register_device(&id(name), &facts, &when(0)).await.unwrap());
        let found = bench.device(name).await;
        assert_eq!(found.facts, facts);
        let by_row = store.device_by_row(found.row).await.unwrap().unwrap();
        assert_eq!(by_row.id, found.id);
    }
    assert!(store.device(&id("unknown-device")).await.unwrap().is_none());
    assert!(store.device_by_row(4711).await.unwrap().is_none());
    store.set_device_state(&id("lobby-tv-02"), DeviceState::Suspended, &when(1)).await.unwrap();

    let list = |text: &str, state, limit| {
        let query = DeviceQuery { text: text.into(), state, limit, ..DeviceQuery::default() };
        async move {
            let (devices, total) = store.devices(&query, ALL).await.unwrap();
            (devices.into_iter().map(|device| device.id.to_string()).collect::<Vec<_>>(), total)
        }
    };
    let all = ["attic-printer-03", "lobby-printer-01", "lobby-tv-02"];
    assert_eq!(list("", None, 10).await, (all.map(String::from).to_vec(), 3), "by id");
    assert_eq!(list("", None, 2).await.1, 3, "the total counts what the limit cuts off");
    assert_eq!(list("", None, 2).await.0.len(), 2);
    assert_eq!(list(" DG-07 ", None, 10).await.0, ["attic-printer-03"], "room, whatever case");
    assert_eq!(list("sn-lobby-tv", None, 10).await.0, ["lobby-tv-02"], "serial");
    assert_eq!(list("it attic", None, 10).await.0, ["attic-printer-03"], "asset tag");
    assert_eq!(list("lobby", Some(DeviceState::Registered), 10).await.0, ["lobby-printer-01"]);
    for harmless in ["%", "_", "' OR 1=1 --", "\\"] {
        assert_eq!(list(harmless, None, 10).await.1, 0, "{harmless}");
    }
    assert_eq!(store.device_counts(ALL).await.unwrap(), DeviceCounts { registered: 2, active: 0, suspended: 1 });
}

pub async fn states_change_by_the_table_and_each_change_is_recorded(bench: Bench) {
    use DeviceState::{Active, Registered, Retired, Suspended};
    let store = &bench.store;
    let nobody = store.set_device_state(&id("unknown-device"), Suspended, &when(0)).await.unwrap();
    assert_eq!(nobody, StateChange::NotFound);
    assert!(bench.records().await.is_empty());

    bench.active("lobby-printer-01").await;
    let mut known = bench.records().await.len();
    let steps = [
        (Active, Active, None),
        (Active, Suspended, Some("device.suspended")),
        (Suspended, Suspended, None),
        (Suspended, Active, Some("device.resumed")),
        (Active, Suspended, Some("device.suspended")),
        (Suspended, Retired, Some("device.retired")),
        (Retired, Active, None),
        (Retired, Suspended, None),
        (Retired, Registered, None),
        (Retired, Retired, None),
    ];
    for (from, to, event) in steps {
        assert_eq!(bench.device("lobby-printer-01").await.state, from);
        let outcome = store.set_device_state(&id("lobby-printer-01"), to, &when(10)).await.unwrap();
        let expected = if event.is_some() { StateChange::Changed(from) } else { StateChange::Refused(from) };
        assert_eq!(outcome, expected, "{from:?} → {to:?}");
        known = bench.recorded(known, event.as_slice()).await;
    }
}

pub async fn of_many_who_suspend_at_once_one_did(bench: Bench) {
    bench.active("lobby-printer-01").await;
    let known = bench.records().await.len();
    let answers = bench
        .race(|store, _| async move {
            store.set_device_state(&id("lobby-printer-01"), DeviceState::Suspended, &when(9)).await.unwrap()
        })
        .await;
    assert_eq!(how_many(&answers, &StateChange::Changed(DeviceState::Active)), 1);
    assert_eq!(how_many(&answers, &StateChange::Refused(DeviceState::Suspended)), answers.len() - 1);
    bench.recorded(known, &["device.suspended"]).await;
}

pub async fn resuming_gives_back_what_the_device_was(bench: Bench) {
    bench.registered("without-key").await;
    bench.active("with-key").await;
    for (device, state) in [("without-key", DeviceState::Registered), ("with-key", DeviceState::Active)] {
        for to in [DeviceState::Suspended, DeviceState::Active] {
            let changed = bench.store.set_device_state(&id(device), to, &when(10)).await.unwrap();
            assert!(matches!(changed, StateChange::Changed(_)), "{device} to {to:?}");
        }
        assert_eq!(bench.device(device).await.state, state, "{device}");
    }
}

pub async fn suspending_ends_sign_ins_pairings_and_windows(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let other = bench.active("other-printer-02").await;
    let jkt = device.key.as_ref().unwrap().jkt;
    let redeemed = bench.redeemed(&device, "first", approver).await;
    let approved = bench.approved(&device, "second", approver).await;
    let of_other = bench.approved(&other, "other", approver).await;
    bench.open_window("lobby-printer-01").await;
    let pairing = bench.revealed("lobby-printer-01", "new key").await;

    store.set_device_state(&device.id, DeviceState::Suspended, &when(20)).await.unwrap();
    for grant in [redeemed, approved] {
        assert_eq!(store.grant(grant).await.unwrap().unwrap().state, GrantState::Revoked);
    }
    assert_eq!(bench.device("lobby-printer-01").await.pending_grant, None);
    let pairing_state = store.pairing(&pairing).await.unwrap().unwrap().pairing.state;
    assert_eq!(pairing_state, PairingState::Refused);
    assert!(store.open_pairings(None, ALL, at(20)).await.unwrap().is_empty());
    let window = WindowSubject::Device(device.id.clone());
    assert_eq!(store.window(&window, at(20)).await.unwrap(), None);
    assert_eq!(store.grant(of_other).await.unwrap().unwrap().state, GrantState::Approved, "only its own");

    // And none of it comes back with the device.
    store.set_device_state(&device.id, DeviceState::Active, &when(21)).await.unwrap();
    assert_eq!(store.redeem_grant(approved, &jkt, None, ALONE, &when(22)).await.unwrap(), Redemption::Lost);
    let rotation = store.rotate_refresh(redeemed, &bytes("first"), &bytes("next"), POLICY, &when(22)).await.unwrap();
    assert_eq!(rotation, Rotation::Gone);
    assert!(!store.confirm_pairing(&pairing, &when(22)).await.unwrap());

    let pending = bench.minted(&bench.device("lobby-printer-01").await, "third").await;
    store.set_device_state(&device.id, DeviceState::Suspended, &when(23)).await.unwrap();
    assert_eq!(store.grant(pending).await.unwrap().unwrap().state, GrantState::Revoked);
    assert!(store.grant_by_user_code(&bytes("user code third")).await.unwrap().is_none());
}

pub async fn retiring_ends_everything_and_leaves_tombstones_of_id_and_key(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let redeemed = bench.redeemed(&device, "first", approver).await;
    store.set_device_state(&device.id, DeviceState::Retired, &when(20)).await.unwrap();
    assert_eq!(store.grant(redeemed).await.unwrap().unwrap().state, GrantState::Revoked);

    let again = store.register_device(&device.id, &facts("again"), &when(21)).await.unwrap();
    assert!(!again, "the id is not given again");
    let minted = store.mint_grant(&code(&device, "late"), &when(21)).await.unwrap();
    assert_eq!(minted, pairgate::store::Mint::Lost);
    store.open_window(&WindowSubject::Site("default".into()), at(900), &when(21)).await.unwrap();
    let refused = store.request_pairing(&pairing_request("lobby-printer-01", "fresh"), &when(22)).await.unwrap();
    assert_eq!(refused, Err(PairingRefusal::DeviceNotExpected));
    bench.registered("other-printer-02").await;
    let refused =
        store.request_pairing(&pairing_request("other-printer-02", "lobby-printer-01"), &when(22)).await.unwrap();
    assert_eq!(refused, Err(PairingRefusal::KeyOfAnotherDevice), "the key is not accepted for another device either");
    assert_eq!(store.device_counts(ALL).await.unwrap().active, 0);
}

pub async fn a_site_is_changed_and_recorded(bench: Bench) {
    let store = &bench.store;
    let networks = vec!["10.2.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()];
    let site = Site { networks: networks.clone(), ..Site::plain("default", "Berlin HQ") };
    let was = store.site("default").await.unwrap().unwrap();
    assert_eq!(store.set_site(&was, &site, &when(0)).await.unwrap(), SiteChange::Changed);
    // Who looked before that takes nothing of it back.
    let late = Site { two_persons: true, ..was.clone() };
    assert_eq!(store.set_site(&was, &late, &when(0)).await.unwrap(), SiteChange::Meanwhile);
    let stored = store.site("default").await.unwrap().unwrap();
    assert_eq!((stored.name.as_str(), stored.networks), ("Berlin HQ", networks));
    let known = bench.recorded(0, &["site.changed"]).await;
    let nowhere = Site { id: "nowhere".into(), ..site };
    assert_eq!(store.set_site(&nowhere, &nowhere, &when(0)).await.unwrap(), SiteChange::NotFound);
    assert!(store.site("nowhere").await.unwrap().is_none());
    bench.recorded(known, &[]).await;
}

pub async fn sites_are_many_and_reach_limits_what_is_told_a_080(bench: Bench) {
    let store = &bench.store;
    let berlin = Site { two_persons: true, quiet_hours: "22:00-06:00".into(), ..Site::plain("berlin", "Berlin") };
    assert!(store.add_site(&berlin, &when(0)).await.unwrap());
    assert!(!store.add_site(&Site::plain("berlin", "Other"), &when(0)).await.unwrap(), "taken");
    let known = bench.recorded(0, &["site.added"]).await;
    assert_eq!(store.site("berlin").await.unwrap().unwrap(), berlin);
    let ids = |sites: Vec<Site>| sites.into_iter().map(|site| site.id).collect::<Vec<_>>();
    assert_eq!(ids(store.sites(ALL).await.unwrap()), ["berlin", "default"]);
    let only = Reach::Sites(BTreeSet::from(["berlin".to_owned()]));
    assert_eq!(ids(store.sites(&only).await.unwrap()), ["berlin"]);

    let other = bench.active("main-tv-01").await;
    let facts = DeviceFacts { site: "berlin".into(), ..facts("Printer") };
    store.register_device(&id("berlin-printer-01"), &facts, &when(1)).await.unwrap();
    bench.minted(&other, "code").await;
    let (devices, total) = store.devices(&DeviceQuery { limit: 10, ..DeviceQuery::default() }, &only).await.unwrap();
    assert_eq!((devices[0].id.as_str(), devices.len(), total), ("berlin-printer-01", 1, 1));
    assert_eq!(store.device_counts(&only).await.unwrap(), DeviceCounts { registered: 1, active: 0, suspended: 0 });
    assert!(store.pending_grants(&only, at(5), 10).await.unwrap().is_empty());
    assert!(store.open_pairings(None, &only, at(5)).await.unwrap().is_empty());
    let told = store.audit(&AuditQuery { limit: 100, ..AuditQuery::default() }, &only).await.unwrap();
    let told: Vec<_> = told.iter().map(|record| record.device.as_deref()).collect();
    assert_eq!(told, [Some("berlin-printer-01")], "after {known} records, one is about its sites");
    assert_eq!(store.audit_counts(at(0), &only).await.unwrap(), (0, 0));
}

pub async fn the_pinned_key_is_the_current_one(bench: Bench) {
    let store = &bench.store;
    let device = bench.active("lobby-printer-01").await;
    let jwk = store.pinned_key(&device).await.unwrap().unwrap();
    assert!(jwk.contains("lobby-printer-01"), "{jwk}");
    store.register_device(&id("tv-01"), &facts("TV"), &when(1)).await.unwrap();
    let unpaired = store.device(&id("tv-01")).await.unwrap().unwrap();
    assert_eq!(store.pinned_key(&unpaired).await.unwrap(), None);
    store.set_device_state(&id("lobby-printer-01"), DeviceState::Retired, &when(2)).await.unwrap();
    assert_eq!(store.pinned_key(&device).await.unwrap(), None, "a retired key is no key");
}

pub async fn a_list_of_devices_goes_on_after_an_id(bench: Bench) {
    for name in ["tv-03", "tv-01", "tv-02", "printer-01"] {
        bench.registered(name).await;
    }
    let mut seen = Vec::new();
    let mut query = DeviceQuery { text: "tv".into(), limit: 2, ..DeviceQuery::default() };
    loop {
        let (devices, total) = bench.store.devices(&query, ALL).await.unwrap();
        assert_eq!(total, 3, "all that match, wherever the page begins");
        let Some(last) = devices.last() else { break };
        query.after = Some(last.id.to_string());
        seen.extend(devices.iter().map(|device| device.id.to_string()));
    }
    assert_eq!(seen, ["tv-01", "tv-02", "tv-03"]);
}
