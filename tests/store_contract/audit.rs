//! The audit log and the signing keys.

use std::net::IpAddr;

use pairgate::model::audit::{Actor, Context, Event, GENESIS};
use pairgate::model::operator::Role;
use pairgate::store::AuditQuery;

use super::{Bench, RIVALS, at, bytes, how_many, id, when};

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
        store.audit(&query).await.unwrap().into_iter().map(|record| record.id).collect::<Vec<_>>()
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
    assert_eq!(bench.store.audit_counts(at(0)).await.unwrap(), (2, 2));
    assert_eq!(bench.store.audit_counts(at(3)).await.unwrap(), (1, 1));
    assert_eq!(bench.store.audit_counts(at(6)).await.unwrap(), (0, 0));
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

pub async fn of_many_first_signing_keys_at_once_one_is_kept(bench: Bench) {
    assert!(bench.store.signing_keys().await.unwrap().is_empty());
    let answers = bench
        .race(|store, index| async move {
            let kid = format!("key {index}");
            (store.add_first_signing_key(&kid, &bytes(&kid), &when(0)).await.unwrap(), kid)
        })
        .await;
    let kept: Vec<_> = answers.iter().filter(|(is_kept, _)| *is_kept).map(|(_, kid)| kid.clone()).collect();
    assert_eq!(kept.len(), 1);
    let stored = bench.store.signing_keys().await.unwrap();
    assert_eq!(stored, [(kept[0].clone(), bytes(&kept[0]).to_vec())]);
    bench.recorded(0, &["signing_key.minted"]).await;
    let given: Vec<bool> = answers.iter().map(|(is_kept, _)| *is_kept).collect();
    assert_eq!(how_many(&given, &false), RIVALS - 1);
}

pub async fn changes_of_another_node_show_in_the_counter(bench: Bench) {
    let before = bench.store.change_counter().await.unwrap();
    assert_eq!(bench.store.change_counter().await.unwrap(), before, "nothing happened");
    let other = bench.node();
    other.add_operator("dana", Role::Viewer, &when(0)).await.unwrap();
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
