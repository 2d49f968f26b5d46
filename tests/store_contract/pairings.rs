//! Windows and pairings.

use pairgate::model::device::{DeviceFacts, DeviceState, KeyAssurance};
use pairgate::model::grant::GrantState;
use pairgate::model::operator::Role;
use pairgate::model::pairing::{MAX_PENDING_PER_DEVICE, PairingState, Says};
use pairgate::store::{NewPairing, PairingRefusal, Voucher, WindowSubject};

use super::{ALL, Bench, at, bytes, facts, how_many, id, pairing_request, when};

async fn state(bench: &Bench, pairing: &pairgate::id::PairingId) -> PairingState {
    bench.store.pairing(pairing).await.unwrap().unwrap().pairing.state
}

pub async fn windows_open_close_and_run_out(bench: Bench) {
    let store = &bench.store;
    bench.registered("lobby-printer-01").await;
    let mut known = bench.records().await.len();
    for subject in [WindowSubject::Device(id("lobby-printer-01")), WindowSubject::Site("default".into())] {
        assert!(!store.close_window(&subject, &when(0)).await.unwrap(), "it is not open");
        known = bench.recorded(known, &[]).await;
        assert!(store.open_window(&subject, at(900), &when(0)).await.unwrap());
        assert_eq!(store.window(&subject, at(899)).await.unwrap(), Some(at(900)));
        assert_eq!(store.window(&subject, at(900)).await.unwrap(), None, "closed to the millisecond");
        assert!(store.open_window(&subject, at(1200), &when(100)).await.unwrap(), "may be prolonged");
        assert_eq!(store.window(&subject, at(1000)).await.unwrap(), Some(at(1200)));
        bench.recorded(known, &["window.opened", "window.opened"]).await;
        assert!(!store.close_window(&subject, &when(1200)).await.unwrap(), "it has run out");
        let (closing, racing) = (subject.clone(), bench.records().await.len());
        let answers = bench
            .race(move |store, _| {
                let subject = closing.clone();
                async move { store.close_window(&subject, &when(200)).await.unwrap() }
            })
            .await;
        assert_eq!(how_many(&answers, &true), 1);
        assert_eq!(store.window(&subject, at(200)).await.unwrap(), None);
        known = bench.recorded(racing, &["window.closed"]).await;
    }
    for nowhere in [WindowSubject::Device(id("unknown-device")), WindowSubject::Site("nowhere".into())] {
        assert!(!store.open_window(&nowhere, at(900), &when(0)).await.unwrap());
    }
    bench.recorded(known, &[]).await;
}

pub async fn each_reason_to_refuse_a_request_has_its_name_and_stores_nothing(bench: Bench) {
    let store = &bench.store;
    let with_serial = DeviceFacts { serial: "SN1".into(), ..facts("serial-printer") };
    store.register_device(&id("serial-printer"), &with_serial, &when(0)).await.unwrap();
    bench.registered("shut-printer").await;
    bench.registered("stopped-printer").await;
    store.set_device_state(&id("stopped-printer"), DeviceState::Suspended, &when(0)).await.unwrap();
    bench.active("other-printer").await;
    bench.active("rekeyed-printer").await;
    bench.pair("rekeyed-printer", "second key").await;
    bench.registered("crowded-printer").await;
    for device in ["serial-printer", "stopped-printer", "rekeyed-printer", "crowded-printer"] {
        bench.open_window(device).await;
    }
    for index in 0..MAX_PENDING_PER_DEVICE {
        bench.revealed("crowded-printer", &format!("crowd {index}")).await;
    }
    let before = store.open_pairings(None, ALL, at(2)).await.unwrap().len();
    let known = bench.records().await.len();

    let replayed =
        NewPairing { says: Says { serial: "SN1".into(), ..Says::default() }, ..pairing_request("serial-printer", "k") };
    store.request_pairing(&replayed, &when(1)).await.unwrap().unwrap();
    let known = bench.recorded(known, &["pairing.requested"]).await;
    let again = NewPairing { id: pairing_request("serial-printer", "k").id, ..replayed };
    let rows = [
        (pairing_request("unknown-device", "k"), PairingRefusal::UnknownDevice),
        (pairing_request("stopped-printer", "k"), PairingRefusal::DeviceNotExpected),
        (pairing_request("serial-printer", "k"), PairingRefusal::WrongSerial),
        (pairing_request("shut-printer", "k"), PairingRefusal::WindowClosed),
        (pairing_request("rekeyed-printer", "rekeyed-printer"), PairingRefusal::DeadKey),
        (pairing_request("crowded-printer", "other-printer"), PairingRefusal::KeyOfAnotherDevice),
        (again, PairingRefusal::Replayed),
        (pairing_request("crowded-printer", "one more"), PairingRefusal::TooMany),
    ];
    for (request, refusal) in rows {
        assert_eq!(store.request_pairing(&request, &when(2)).await.unwrap(), Err(refusal));
        assert!(store.pairing(&request.id).await.unwrap().is_none(), "{refusal:?} stored something");
    }
    assert_eq!(store.open_pairings(None, ALL, at(2)).await.unwrap().len(), before + 1, "and nothing else was touched");
    bench.recorded(known, &[]).await;
}

pub async fn a_device_that_begins_again_makes_room_and_a_second_key_is_a_conflict(bench: Bench) {
    bench.registered("lobby-printer-01").await;
    bench.open_window("lobby-printer-01").await;
    let first = bench.revealed("lobby-printer-01", "its key").await;
    let again = bench.revealed("lobby-printer-01", "its key").await;
    assert_eq!(state(&bench, &first).await, PairingState::Refused);
    assert_eq!(bench.count("pairing.conflict").await, 0, "one device that began again is no conflict");

    let rival = bench.revealed("lobby-printer-01", "a thief's key").await;
    for pairing in [&again, &rival] {
        let found = bench.store.pairing(pairing).await.unwrap().unwrap();
        assert!(found.pairing.conflict, "people must see it at both");
        assert_eq!(found.device.id, id("lobby-printer-01"));
    }
    assert_eq!(bench.count("pairing.conflict").await, 1);

    // Many keys at once: no more than may wait do wait.
    let answers = bench
        .race(|store, index| async move {
            let request = pairing_request("lobby-printer-01", &format!("key {index}"));
            store.request_pairing(&request, &when(5)).await.unwrap().is_ok()
        })
        .await;
    assert_eq!(how_many(&answers, &true), 1);
    let waiting = bench.store.open_pairings(Some(&id("lobby-printer-01")), ALL, at(5)).await.unwrap();
    assert_eq!(i64::try_from(waiting.len()).unwrap(), MAX_PENDING_PER_DEVICE);
}

pub async fn a_nonce_is_revealed_once_and_may_be_repeated(bench: Bench) {
    let store = &bench.store;
    bench.registered("lobby-printer-01").await;
    bench.open_window("lobby-printer-01").await;
    let new = pairing_request("lobby-printer-01", "k");
    store.request_pairing(&new, &when(1)).await.unwrap().unwrap();
    let unknown = pairing_request("lobby-printer-01", "k").id;
    assert!(!store.reveal_pairing(&unknown, &bytes("nonce"), KeyAssurance::Software, &when(1)).await.unwrap());
    assert!(
        !store.reveal_pairing(&new.id, &bytes("nonce"), KeyAssurance::Software, &when(600)).await.unwrap(),
        "too late"
    );
    assert!(store.reveal_pairing(&new.id, &bytes("nonce"), KeyAssurance::Software, &when(2)).await.unwrap());
    assert!(
        store.reveal_pairing(&new.id, &bytes("nonce"), KeyAssurance::Software, &when(3)).await.unwrap(),
        "repeated"
    );
    assert!(
        !store.reveal_pairing(&new.id, &bytes("another"), KeyAssurance::Software, &when(3)).await.unwrap(),
        "another nonce"
    );
    let stored = store.pairing(&new.id).await.unwrap().unwrap().pairing;
    assert_eq!((stored.state, stored.device_nonce), (PairingState::Revealed, Some(bytes("nonce"))));
}

pub async fn the_assurance_of_a_waiting_key_only_rises_and_goes_to_the_device(bench: Bench) {
    use KeyAssurance::{Attested, HardwareClaimed, Software};
    let store = &bench.store;
    for (index, (said, polls, kept)) in [
        (Software, [Software, Software], Software),
        (HardwareClaimed, [Software, Software], HardwareClaimed),
        (Software, [Attested, Software], Attested),
        (HardwareClaimed, [HardwareClaimed, Attested], Attested),
    ]
    .into_iter()
    .enumerate()
    {
        let device = format!("printer-{index}");
        bench.registered(&device).await;
        bench.open_window(&device).await;
        let new = NewPairing { key_assurance: said, ..pairing_request(&device, &device) };
        store.request_pairing(&new, &when(1)).await.unwrap().unwrap();
        let stored = async || store.pairing(&new.id).await.unwrap().unwrap().pairing;
        assert_eq!((stored().await.key_assurance, stored().await.broker_jkt), (said, Some(new.broker_jkt)));
        for assurance in polls {
            assert!(store.reveal_pairing(&new.id, &bytes("nonce"), assurance, &when(2)).await.unwrap());
        }
        assert!(!store.reveal_pairing(&new.id, &bytes("another"), Attested, &when(2)).await.unwrap());
        assert!(!store.reveal_pairing(&new.id, &bytes("nonce"), Attested, &when(600)).await.unwrap(), "too late");
        assert_eq!(stored().await.key_assurance, kept);
        assert!(store.confirm_pairing(&new.id, &when(3)).await.unwrap());
        assert!(!store.reveal_pairing(&new.id, &bytes("nonce"), Attested, &when(4)).await.unwrap(), "decided");
        assert_eq!((stored().await.key_assurance, bench.device(&device).await.key.unwrap().assurance), (kept, kept));
    }
    // The same key again: what counts is what was shown this time.
    let again = bench.pair("printer-2", "printer-2").await;
    assert_eq!(again.key.unwrap().assurance, Software);
}

fn vouched(device: &str, key: &str, by: &str, statement: &str) -> NewPairing {
    let voucher = Voucher { jkt: bytes(by), statement_hash: bytes(statement) };
    NewPairing { voucher: Some(voucher), ..pairing_request(device, key) }
}

pub async fn the_present_key_vouches_once_and_while_it_is_the_present_one(bench: Bench) {
    let store = &bench.store;
    bench.active("lobby-printer-01").await;
    bench.active("other-printer").await;
    bench.registered("new-printer").await;
    bench.active("stopped-printer").await;
    store.set_device_state(&id("stopped-printer"), DeviceState::Suspended, &when(3)).await.unwrap();
    let first = vouched("lobby-printer-01", "second key", "lobby-printer-01", "statement");
    store.request_pairing(&first, &when(3)).await.unwrap().unwrap();
    let known = bench.records().await.len();
    for (new, refusal) in [
        (vouched("lobby-printer-01", "third key", "lobby-printer-01", "statement"), PairingRefusal::Replayed),
        (vouched("lobby-printer-01", "third key", "other-printer", "s1"), PairingRefusal::NotVouched),
        (vouched("lobby-printer-01", "lobby-printer-01", "lobby-printer-01", "s2"), PairingRefusal::NotVouched),
        (vouched("new-printer", "third key", "lobby-printer-01", "s3"), PairingRefusal::NotVouched),
        (vouched("stopped-printer", "third key", "stopped-printer", "s4"), PairingRefusal::DeviceNotExpected),
        (vouched("other-printer", "lobby-printer-01", "other-printer", "s5"), PairingRefusal::KeyOfAnotherDevice),
    ] {
        assert_eq!(store.request_pairing(&new, &when(4)).await.unwrap(), Err(refusal), "{new:?}");
    }
    bench.recorded(known, &[]).await;
    assert_eq!(store.pairing(&first.id).await.unwrap().unwrap().pairing.vouched_by, Some(bytes("lobby-printer-01")));
    // Many statements of one key at once, each counts once.
    let answers = bench
        .race(|store, index| async move {
            let new = vouched("other-printer", &format!("key {index}"), "other-printer", "one statement");
            store.request_pairing(&new, &when(5)).await.unwrap().is_ok()
        })
        .await;
    assert_eq!(how_many(&answers, &true), 1);

    assert!(store.reveal_pairing(&first.id, &bytes("n"), KeyAssurance::Software, &when(6)).await.unwrap());
    assert!(store.confirm_pairing(&first.id, &when(7)).await.unwrap());
    let device = bench.device("lobby-printer-01").await;
    assert_eq!(device.key.unwrap().jkt, bytes("second key"));
    let late = vouched("lobby-printer-01", "third key", "lobby-printer-01", "s6");
    assert_eq!(store.request_pairing(&late, &when(8)).await.unwrap(), Err(PairingRefusal::NotVouched), "replaced");
}

pub async fn of_many_nonces_at_once_one_is_taken(bench: Bench) {
    bench.registered("lobby-printer-01").await;
    bench.open_window("lobby-printer-01").await;
    let new = pairing_request("lobby-printer-01", "k");
    bench.store.request_pairing(&new, &when(1)).await.unwrap().unwrap();
    let answers = bench
        .race(|store, index| {
            let pairing = new.id.clone();
            async move {
                store
                    .reveal_pairing(&pairing, &bytes(&format!("nonce {index}")), KeyAssurance::Software, &when(2))
                    .await
                    .unwrap()
            }
        })
        .await;
    assert_eq!(how_many(&answers, &true), 1);
}

pub async fn wrong_digits_are_counted_also_when_they_come_at_once(bench: Bench) {
    bench.registered("lobby-printer-01").await;
    bench.open_window("lobby-printer-01").await;
    let pairing = bench.revealed("lobby-printer-01", "k").await;
    let mut known = bench.records().await.len();
    let answers = bench
        .race(|store, _| {
            let pairing = pairing.clone();
            async move { store.record_wrong_digits(&pairing, &when(3)).await.unwrap() }
        })
        .await;
    for left in [Some(2), Some(1), Some(0)] {
        assert_eq!(how_many(&answers, &left), 1, "{left:?}");
    }
    assert_eq!(how_many(&answers, &None), answers.len() - 3);
    known = bench.recorded(known, &["pairing.wrong_digits"; 3]).await;
    assert_eq!(state(&bench, &pairing).await, PairingState::Refused);
    assert!(!bench.store.confirm_pairing(&pairing, &when(4)).await.unwrap());
    let expired = bench.revealed("lobby-printer-01", "k").await;
    assert_eq!(bench.store.record_wrong_digits(&expired, &when(600)).await.unwrap(), None);
    bench.recorded(known, &["pairing.requested"]).await;
}

pub async fn of_many_who_confirm_at_once_one_did_and_everything_follows(bench: Bench) {
    let store = &bench.store;
    bench.registered("lobby-printer-01").await;
    bench.open_window("lobby-printer-01").await;
    let pairing = bench.revealed("lobby-printer-01", "its key").await;
    let rival = bench.revealed("lobby-printer-01", "a thief's key").await;
    let known = bench.records().await.len();
    let answers = bench
        .race(|store, _| {
            let pairing = pairing.clone();
            async move { store.confirm_pairing(&pairing, &when(7)).await.unwrap() }
        })
        .await;
    assert_eq!(how_many(&answers, &true), 1);
    bench.recorded(known, &["pairing.confirmed"]).await;
    let device = bench.device("lobby-printer-01").await;
    let key = device.key.unwrap();
    assert_eq!((device.state, key.jkt, key.paired_at), (DeviceState::Active, bytes("its key"), at(7)));
    assert_eq!(key.paired_by, "command-line");
    assert_eq!(state(&bench, &rival).await, PairingState::Refused);
    assert!(!store.confirm_pairing(&rival, &when(8)).await.unwrap());
    assert_eq!(store.window(&WindowSubject::Device(device.id), at(8)).await.unwrap(), None, "the window closed");
}

pub async fn confirming_and_declining_at_once_has_one_outcome(bench: Bench) {
    bench.registered("lobby-printer-01").await;
    bench.open_window("lobby-printer-01").await;
    let pairing = bench.revealed("lobby-printer-01", "its key").await;
    let answers = bench
        .race(|store, index| {
            let pairing = pairing.clone();
            async move {
                if index % 3 == 0 {
                    store.confirm_pairing(&pairing, &when(7)).await.unwrap()
                } else {
                    store.decline_pairing(&pairing, &when(7)).await.unwrap()
                }
            }
        })
        .await;
    assert_eq!(how_many(&answers, &true), 1);
    let is_confirmed = state(&bench, &pairing).await == PairingState::Confirmed;
    assert_eq!(bench.device("lobby-printer-01").await.key.is_some(), is_confirmed);
    let (confirmed, declined) = (bench.count("pairing.confirmed").await, bench.count("pairing.declined").await);
    assert_eq!((confirmed, declined), if is_confirmed { (1, 0) } else { (0, 1) });
}

pub async fn one_key_for_two_devices_is_confirmed_for_one(bench: Bench) {
    let mut pairings = Vec::new();
    for device in ["first-printer", "second-printer"] {
        bench.registered(device).await;
        bench.open_window(device).await;
        pairings.push(bench.revealed(device, "cloned key").await);
    }
    let known = bench.records().await.len();
    let answers = bench
        .race(|store, index| {
            let pairing = pairings[index % 2].clone();
            async move { store.confirm_pairing(&pairing, &when(7)).await.unwrap() }
        })
        .await;
    assert_eq!(how_many(&answers, &true), 1);
    bench.recorded(known, &["pairing.confirmed"]).await;
    assert_eq!(bench.store.device_counts(ALL).await.unwrap().active, 1);
    // The other one still waits, and may only be declined.
    assert_eq!(bench.store.open_pairings(None, ALL, at(8)).await.unwrap().len(), 1);
}

pub async fn what_is_not_revealed_over_or_suspended_is_not_confirmed(bench: Bench) {
    let store = &bench.store;
    bench.registered("lobby-printer-01").await;
    bench.open_window("lobby-printer-01").await;
    let known = bench.records().await.len();
    let unknown = pairing_request("lobby-printer-01", "k").id;
    assert!(store.pairing(&unknown).await.unwrap().is_none());
    assert!(!store.confirm_pairing(&unknown, &when(2)).await.unwrap());
    assert!(!store.decline_pairing(&unknown, &when(2)).await.unwrap());
    assert_eq!(store.record_wrong_digits(&unknown, &when(2)).await.unwrap(), None);
    let requested = pairing_request("lobby-printer-01", "k");
    store.request_pairing(&requested, &when(1)).await.unwrap().unwrap();
    assert!(!store.confirm_pairing(&requested.id, &when(2)).await.unwrap(), "nobody has compared anything yet");
    let revealed = bench.revealed("lobby-printer-01", "k").await;
    assert!(!store.confirm_pairing(&revealed, &when(600)).await.unwrap(), "over");
    assert!(!store.decline_pairing(&revealed, &when(600)).await.unwrap(), "over");
    let known = bench.recorded(known, &["pairing.requested", "pairing.requested"]).await;
    store.set_device_state(&id("lobby-printer-01"), DeviceState::Suspended, &when(3)).await.unwrap();
    assert!(!store.confirm_pairing(&revealed, &when(4)).await.unwrap());
    bench.recorded(known, &["device.suspended"]).await;
    assert!(bench.device("lobby-printer-01").await.key.is_none());
}

pub async fn a_new_key_replaces_the_old_one_and_ends_its_sign_ins(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let redeemed = bench.redeemed(&device, "first", approver).await;
    let approved = bench.approved(&device, "second", approver).await;
    let rekeyed = bench.pair("lobby-printer-01", "second key").await;
    assert_eq!(rekeyed.key.unwrap().jkt, bytes("second key"));
    assert_eq!(rekeyed.pending_grant, None);
    for grant in [redeemed, approved] {
        assert_eq!(store.grant(grant).await.unwrap().unwrap().state, GrantState::Revoked);
    }
    bench.open_window("lobby-printer-01").await;
    let old = store.request_pairing(&pairing_request("lobby-printer-01", "lobby-printer-01"), &when(9)).await.unwrap();
    assert_eq!(old, Err(PairingRefusal::DeadKey), "the replaced key never comes back");
}

pub async fn the_same_key_again_keeps_the_sign_ins(bench: Bench) {
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let redeemed = bench.redeemed(&device, "first", approver).await;
    let again = bench.pair("lobby-printer-01", "lobby-printer-01").await;
    assert_eq!(again.key.unwrap().jkt, device.key.unwrap().jkt);
    assert_eq!(bench.store.grant(redeemed).await.unwrap().unwrap().state, GrantState::Redeemed);
}

pub async fn of_many_who_decline_at_once_one_did(bench: Bench) {
    bench.registered("lobby-printer-01").await;
    bench.open_window("lobby-printer-01").await;
    let pairing = bench.revealed("lobby-printer-01", "k").await;
    let known = bench.records().await.len();
    let answers = bench
        .race(|store, _| {
            let pairing = pairing.clone();
            async move { store.decline_pairing(&pairing, &when(3)).await.unwrap() }
        })
        .await;
    assert_eq!(how_many(&answers, &true), 1);
    bench.recorded(known, &["pairing.declined"]).await;
    assert_eq!(state(&bench, &pairing).await, PairingState::Refused);
}

pub async fn open_pairings_are_listed_oldest_first(bench: Bench) {
    let store = &bench.store;
    let mut expected = Vec::new();
    for (seconds, device) in [(30, "c-printer"), (20, "a-printer"), (10, "b-printer")] {
        bench.registered(device).await;
        bench.open_window(device).await;
        let says = Says { serial: "SN".into(), model: "M".into(), firmware: "1.2".into() };
        let new = NewPairing { says: says.clone(), expires_at: at(600 + seconds), ..pairing_request(device, device) };
        store.request_pairing(&new, &when(seconds)).await.unwrap().unwrap();
        expected.insert(0, device.to_owned());
        let stored = store.pairing(&new.id).await.unwrap().unwrap().pairing;
        assert_eq!((stored.says, stored.jkt, stored.state), (says, new.jkt, PairingState::Requested));
        assert_eq!((stored.requested_at, stored.expires_at), (at(seconds), new.expires_at));
        assert_eq!((stored.commitment, stored.broker_nonce), (new.commitment, new.broker_nonce));
        assert_eq!(stored.peer, when(0).peer);
    }
    let list = |device: Option<&'static str>, now| async move {
        let found = store.open_pairings(device.map(id).as_ref(), ALL, now).await.unwrap();
        found.into_iter().map(|found| found.device.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list(None, at(40)).await, expected);
    assert_eq!(list(Some("a-printer"), at(40)).await, ["a-printer"]);
    assert_eq!(list(None, at(610)).await, ["a-printer", "c-printer"], "the first has run out");
}
