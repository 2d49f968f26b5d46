//! The audit log and the signing keys.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pairgate::clock::Timestamp;
use pairgate::model::audit::{Actor, Context, Event, GENESIS};
use pairgate::model::operator::Role;
use pairgate::oauth::signing_key::SigningAlgorithm;
use pairgate::store::{AuditQuery, NewSigningKey, Retirement, Store};

use super::{ALL, Bench, RIVALS, at, bytes, how_many, id, when};

pub async fn records_are_listed_both_ways_and_filtered(bench: Bench) {
    let store = &bench.store;
    let context = Context {
        now: at(7),
        actor: Actor::Device(id("lobby-printer-01")),
        peer: Some(IpAddr::from([203, 0, 113, 9])),
    };
    store.record(Event::CodeRefused, Some(&id("lobby-printer-01")), "first", &context).await.unwrap();
    store.record(Event::SignedIn, None, "second", &when(8)).await.unwrap();
    store.record(Event::KeyMismatch, Some(&id("other-printer")), "third", &when(9)).await.unwrap();
    store.record(Event::CodeIssued, Some(&id("lobby-printer-01")), "fourth", &when(10)).await.unwrap();

    let list = |query: AuditQuery| async move {
        store.audit(&query, ALL).await.unwrap().into_iter().map(|record| record.id).collect::<Vec<_>>()
    };
    let all = AuditQuery { limit: 10, ..AuditQuery::default() };
    assert_eq!(list(all.clone()).await, [4, 3, 2, 1], "newest first");
    assert_eq!(list(AuditQuery { limit: 2, ..all.clone() }).await, [4, 3]);
    assert_eq!(list(AuditQuery { before: Some(3), ..all.clone() }).await, [2, 1]);
    assert_eq!(list(AuditQuery { after: Some(2), ..all.clone() }).await, [3, 4], "oldest first");
    assert_eq!(list(AuditQuery { device: Some(id("lobby-printer-01")), ..all.clone() }).await, [4, 1]);
    assert_eq!(list(AuditQuery { refusals: true, ..all.clone() }).await, [3, 1]);
    let both = AuditQuery { refusals: true, device: Some(id("other-printer")), after: Some(0), ..all.clone() };
    assert_eq!(list(both).await, [3]);
    let first = bench.records().await.remove(0);
    assert_eq!((first.at, first.event.as_str(), first.severity.as_str()), (at(7), "code.refused", "refusal"));
    assert_eq!(first.actor, "device:lobby-printer-01");
    assert_eq!((first.device.as_deref(), first.peer.as_deref()), (Some("lobby-printer-01"), Some("203.0.113.9")));
    assert_eq!(first.detail, "first");
}

pub async fn counts_are_since_an_instant(bench: Bench) {
    for (seconds, event) in [
        (1, Event::TokenIssued),
        (2, Event::CodeRefused),
        (3, Event::TokenIssued),
        (4, Event::KeyMismatch),
        (5, Event::SignedIn),
    ] {
        bench.store.record(event, None, "", &when(seconds)).await.unwrap();
    }
    assert_eq!(bench.store.audit_counts(at(0), ALL).await.unwrap(), (2, 2));
    assert_eq!(bench.store.audit_counts(at(3), ALL).await.unwrap(), (1, 1));
    assert_eq!(bench.store.audit_counts(at(6), ALL).await.unwrap(), (0, 0));
}

pub async fn the_chain_holds_and_its_head_is_the_last_hash(bench: Bench) {
    let store = &bench.store;
    let empty = store.verify_audit().await.unwrap();
    assert_eq!((empty.records, empty.head, empty.first_bad), (0, GENESIS, None));
    bench.operator("dana", Role::Approver).await;
    bench.active("lobby-printer-01").await;
    let verdict = store.verify_audit().await.unwrap();
    let records = bench.records().await;
    assert_eq!(verdict.records, i64::try_from(records.len()).unwrap());
    assert_eq!(verdict.first_bad, None);
    assert_eq!(store.audit_hash(verdict.records).await.unwrap(), Some(verdict.head));
    assert_eq!(store.audit_hash(verdict.records + 1).await.unwrap(), None);
    // What an auditor works out from the listed records is what is stored.
    let chained = records.iter().fold(GENESIS, |previous, record| record.hash(&previous));
    assert_eq!(chained, verdict.head);
}

pub async fn records_of_many_at_once_make_one_chain(bench: Bench) {
    bench
        .race(|store, index| async move {
            store.record(Event::CodeRefused, None, &format!("by {index}"), &when(1)).await.unwrap();
        })
        .await;
    let verdict = bench.store.verify_audit().await.unwrap();
    assert_eq!((verdict.records, verdict.first_bad), (i64::try_from(RIVALS).unwrap(), None));
    let ids: Vec<_> = bench.records().await.iter().map(|record| record.id).collect();
    assert_eq!(ids, (1..=verdict.records).collect::<Vec<_>>(), "without gaps");
}

pub async fn the_latest_instant_is_the_newest_records(bench: Bench) {
    assert_eq!(bench.store.latest_instant().await.unwrap(), None);
    bench.store.record(Event::SignedIn, None, "", &when(100)).await.unwrap();
    assert_eq!(bench.store.latest_instant().await.unwrap(), Some(at(100)));
    bench.operator("dana", Role::Viewer).await;
    // When a person has accepted an earlier clock, the newest record says so.
    assert_eq!(bench.store.latest_instant().await.unwrap(), Some(at(0)));
}

fn key(algorithm: SigningAlgorithm, kid: &str) -> NewSigningKey {
    NewSigningKey { kid: kid.into(), algorithm, sealed: bytes(kid).to_vec() }
}

fn es256(kid: &str) -> NewSigningKey {
    key(SigningAlgorithm::Es256, kid)
}

/// Id and retirement, in seconds, of the keys that are kept.
async fn kept(store: &Arc<dyn Store>) -> Vec<(String, Option<i64>)> {
    let keys = store.signing_keys().await.unwrap();
    assert!(keys.iter().all(|key| key.sealed == bytes(&key.kid)), "each with what was sealed for it");
    let seconds = |retires_at: Timestamp| (retires_at.millis() - at(0).millis()) / 1000;
    keys.into_iter().map(|key| (key.kid, key.retires_at.map(seconds))).collect()
}

fn current(kid: &str) -> (String, Option<i64>) {
    (kid.into(), None)
}

fn retiring(kid: &str, seconds: i64) -> (String, Option<i64>) {
    (kid.into(), Some(seconds))
}

pub async fn of_many_first_signing_keys_at_once_one_is_kept(bench: Bench) {
    assert!(bench.store.signing_keys().await.unwrap().is_empty());
    let answers = bench
        .race(|store, index| async move {
            let new = es256(&format!("key {index}"));
            (store.add_first_signing_key(&new, &when(0)).await.unwrap(), new.kid)
        })
        .await;
    let first: Vec<_> = answers.iter().filter(|(is_first, _)| *is_first).map(|(_, kid)| kid.clone()).collect();
    assert_eq!(first.len(), 1);
    assert_eq!(kept(&bench.store).await, [current(&first[0])]);
    let known = bench.recorded(0, &["signing_key.minted"]).await;
    // Each algorithm has a first one.
    let rsa = key(SigningAlgorithm::Rs256, "rsa");
    assert!(bench.store.add_first_signing_key(&rsa, &when(1)).await.unwrap());
    assert!(!bench.store.add_first_signing_key(&key(SigningAlgorithm::Rs256, "rsa 2"), &when(1)).await.unwrap());
    let stored = bench.store.signing_keys().await.unwrap();
    let rsa = stored.iter().find(|key| key.kid == "rsa").unwrap();
    assert_eq!((rsa.algorithm, rsa.created_at, rsa.retires_at), (SigningAlgorithm::Rs256, at(1), None));
    assert_eq!(stored.len(), 2);
    bench.recorded(known, &["signing_key.minted"]).await;
}

pub async fn of_many_rotations_at_once_one_is_done(bench: Bench) {
    for (retirement, event, left) in
        [(Retirement::At(at(100)), "signing_key.rotated", 2), (Retirement::AtOnce, "signing_key.replaced", 1)]
    {
        let bench = Bench::new(bench.open);
        bench.store.add_first_signing_key(&es256("first"), &when(0)).await.unwrap();
        let answers = bench
            .race(|store, index| async move {
                let new = es256(&format!("key {index}"));
                (store.rotate_signing_key("first", &new, retirement, &when(1)).await.unwrap(), new.kid)
            })
            .await;
        let done: Vec<_> = answers.iter().filter(|(is_done, _)| *is_done).map(|(_, kid)| kid.clone()).collect();
        assert_eq!(done.len(), 1, "{retirement:?}");
        let kept = kept(&bench.store).await;
        assert_eq!((&kept[0], kept.len()), (&current(&done[0]), left), "{retirement:?}");
        bench.recorded(1, &[event]).await;
    }
}

pub async fn a_rotation_is_of_the_current_key_of_its_algorithm_or_nothing(bench: Bench) {
    let store = &bench.store;
    store.add_first_signing_key(&es256("first"), &when(0)).await.unwrap();
    store.add_first_signing_key(&key(SigningAlgorithm::Rs256, "rsa"), &when(0)).await.unwrap();
    assert!(store.rotate_signing_key("first", &es256("second"), Retirement::At(at(100)), &when(1)).await.unwrap());
    assert!(store.rotate_signing_key("second", &es256("third"), Retirement::At(at(200)), &when(2)).await.unwrap());
    let before = store.signing_keys().await.unwrap();
    let ids: Vec<_> = before.iter().map(|key| key.kid.as_str()).collect();
    assert_eq!(ids, ["third", "rsa", "second", "first"], "current ones, then the newest");
    let known = bench.records().await.len();
    for (former, new) in [
        ("first", es256("fourth")),                        // retiring
        ("nobody", es256("fourth")),                       // never was
        ("third", key(SigningAlgorithm::Rs256, "fourth")), // of the other algorithm
        ("third", es256("first")),                         // would come back
        ("third", es256("third")),                         // would stay
        ("third", es256("rsa")),                           // taken
    ] {
        for retirement in [Retirement::At(at(300)), Retirement::AtOnce] {
            assert!(!store.rotate_signing_key(former, &new, retirement, &when(3)).await.unwrap(), "{former}, {new:?}");
        }
    }
    assert_eq!(store.signing_keys().await.unwrap(), before);
    bench.recorded(known, &[]).await;
}

pub async fn an_emergency_drops_all_former_keys_for_ever_a_098(bench: Bench) {
    let store = &bench.store;
    store.add_first_signing_key(&es256("first"), &when(0)).await.unwrap();
    store.add_first_signing_key(&key(SigningAlgorithm::Rs256, "rsa"), &when(0)).await.unwrap();
    assert!(store.rotate_signing_key("first", &es256("second"), Retirement::At(at(100)), &when(1)).await.unwrap());
    let known = bench.records().await.len();
    assert!(store.rotate_signing_key("second", &es256("third"), Retirement::AtOnce, &when(2)).await.unwrap());
    let left = [current("third"), current("rsa")];
    assert_eq!(kept(store).await, left, "the other algorithm is not touched");
    let known = bench.recorded(known, &["signing_key.replaced"]).await;
    let record = bench.records().await.pop().unwrap();
    assert_eq!(
        (record.severity.as_str(), record.detail.as_str()),
        ("alert", "ES256 key third; dropped: first, second")
    );
    // Nothing brings them back, also not after a restart.
    let bench = bench.restarted();
    for dropped in ["first", "second"] {
        assert!(!bench.store.add_first_signing_key(&es256(dropped), &when(3)).await.unwrap());
        for retirement in [Retirement::At(at(300)), Retirement::AtOnce] {
            assert!(!bench.store.rotate_signing_key("third", &es256(dropped), retirement, &when(3)).await.unwrap());
            assert!(!bench.store.rotate_signing_key(dropped, &es256("fourth"), retirement, &when(3)).await.unwrap());
        }
    }
    assert_eq!(bench.store.drop_retired_signing_keys(&when(1000)).await.unwrap(), 0, "they are dropped already");
    assert_eq!(kept(&bench.store).await, left);
    bench.recorded(known, &[]).await;
}

pub async fn retired_keys_are_dropped_at_the_right_millisecond(bench: Bench) {
    let store = &bench.store;
    store.add_first_signing_key(&es256("first"), &when(0)).await.unwrap();
    assert!(store.rotate_signing_key("first", &es256("second"), Retirement::At(at(100)), &when(1)).await.unwrap());
    assert!(store.rotate_signing_key("second", &es256("third"), Retirement::At(at(200)), &when(2)).await.unwrap());
    let early = Context { now: at(100).minus(Duration::from_millis(1)), ..when(0) };
    let known = bench.records().await.len();
    assert_eq!(store.drop_retired_signing_keys(&early).await.unwrap(), 0);
    let left = [current("third"), retiring("second", 200), retiring("first", 100)];
    assert_eq!(kept(store).await, left);
    let dropped =
        bench.race(|store, _| async move { store.drop_retired_signing_keys(&when(100)).await.unwrap() }).await;
    assert_eq!((how_many(&dropped, &1), how_many(&dropped, &0)), (1, RIVALS - 1), "by one of many");
    assert_eq!(kept(store).await, [current("third"), retiring("second", 200)]);
    assert_eq!(store.drop_retired_signing_keys(&when(9_999_999)).await.unwrap(), 1);
    assert_eq!(kept(store).await, [current("third")], "the current one stays, however old");
    bench.recorded(known, &["signing_key.dropped", "signing_key.dropped"]).await;
    assert!(!store.rotate_signing_key("third", &es256("first"), Retirement::AtOnce, &when(300)).await.unwrap());
}

pub async fn changes_of_another_node_show_in_the_counter(bench: Bench) {
    let before = bench.store.change_counter().await.unwrap();
    assert_eq!(bench.store.change_counter().await.unwrap(), before, "nothing happened");
    let other = bench.node();
    other.add_operator("dana", Some(Role::Viewer), &when(0)).await.unwrap();
    let after = bench.store.change_counter().await.unwrap();
    assert_ne!(after, before);
    assert!(bench.store.operator("dana").await.unwrap().is_some(), "and can be read at once");
}

pub async fn what_was_acknowledged_is_there_after_a_restart(bench: Bench) {
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let redeemed = bench.redeemed(&device, "first", approver).await;
    let approved = bench.approved(&device, "second", approver).await;
    let (records, head) = (bench.records().await, bench.store.verify_audit().await.unwrap().head);
    let bench = bench.restarted();
    assert_eq!(bench.records().await, records);
    assert_eq!(bench.store.verify_audit().await.unwrap().head, head);
    use pairgate::model::grant::GrantState::{Approved, Redeemed};
    for (grant, state) in [(redeemed, Redeemed), (approved, Approved)] {
        assert_eq!(bench.store.grant(grant).await.unwrap().unwrap().state, state);
    }
    assert_eq!(bench.device("lobby-printer-01").await.key, device.key);
}
