//! The policy's versions: what holds, what waits, and who may decide.

use pairgate::model::audit::{Actor, Context};
use pairgate::model::site::Site;
use pairgate::store::{NewPolicy, PolicyConfirmed, PolicyEffects, PolicyState, PolicyWritten};

use super::{ALL, Bench, how_many, when};

fn by(name: &str, seconds: u64) -> Context {
    Context { actor: Actor::Operator(name.into()), ..when(seconds) }
}

fn new(base: i64, document: &str) -> NewPolicy {
    let effects = PolicyEffects { summary: format!("summary of {document}"), ..PolicyEffects::default() };
    NewPolicy { base, document: document.into(), effects, may_alone: false }
}

fn effects(two_persons: bool) -> PolicyEffects {
    PolicyEffects { two_persons, ..PolicyEffects::default() }
}

pub async fn versions_hold_one_after_the_other_and_are_listed(bench: Bench) {
    let store = &bench.store;
    assert_eq!(store.policy().await.unwrap(), None);
    let known = bench.records().await.len();
    assert_eq!(store.write_policy(&new(0, "a"), &by("dana", 1)).await.unwrap(), PolicyWritten::Applied(1));
    assert_eq!(store.write_policy(&new(0, "b"), &by("dana", 2)).await.unwrap(), PolicyWritten::Stale);
    assert_eq!(store.write_policy(&new(1, "c"), &by("dana", 3)).await.unwrap(), PolicyWritten::Applied(2));
    let holds = store.policy().await.unwrap().unwrap();
    assert_eq!((holds.version, holds.base, holds.document.as_str(), holds.state), (2, 1, "c", PolicyState::Applied));
    assert_eq!((holds.proposed_by.as_str(), holds.decided_by.as_deref()), ("operator:dana", Some("operator:dana")));
    let versions = store.policy_versions(10).await.unwrap();
    assert_eq!(versions.iter().map(|version| version.version).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(store.policy_versions(1).await.unwrap().len(), 1);
    assert_eq!(store.policy_version(1).await.unwrap().unwrap().document, "a");
    assert_eq!(store.policy_version(9).await.unwrap(), None);
    bench.recorded(known, &["policy.applied"; 2]).await;
    assert_eq!(bench.records().await[known].detail, "version 1: summary of a");
}

pub async fn of_many_who_write_on_the_same_version_one_did_a_081(bench: Bench) {
    let answers = bench
        .race(|store, index| async move {
            store.write_policy(&new(0, &format!("by {index}")), &by("dana", 1)).await.unwrap()
        })
        .await;
    assert_eq!(how_many(&answers, &PolicyWritten::Applied(1)), 1);
    assert_eq!(how_many(&answers, &PolicyWritten::Stale), answers.len() - 1);
}

pub async fn a_version_brings_its_sites_in_the_same_transaction(bench: Bench) {
    let store = &bench.store;
    let was = store.site("default").await.unwrap();
    let sites = vec![(was, Site::plain("default", "Berlin HQ")), (None, Site::plain("paris", "Paris"))];
    let written = NewPolicy { effects: PolicyEffects { sites, ..PolicyEffects::default() }, ..new(0, "a") };
    let known = bench.records().await.len();
    let stale = NewPolicy { base: 7, ..written.clone() };
    assert_eq!(store.write_policy(&stale, &when(1)).await.unwrap(), PolicyWritten::Stale);
    assert!(store.site("paris").await.unwrap().is_none());
    bench.recorded(known, &[]).await;
    store.write_policy(&written, &when(1)).await.unwrap();
    assert_eq!(store.site("paris").await.unwrap(), Some(Site::plain("paris", "Paris")));
    assert_eq!(store.sites(ALL).await.unwrap().len(), 2);
    bench.recorded(known, &["site.changed", "site.added", "policy.applied"]).await;
    // A site that is not any more what it was when the change was looked at takes the whole version with it.
    let late = NewPolicy { base: 1, ..written.clone() };
    assert_eq!(store.write_policy(&late, &when(2)).await.unwrap(), PolicyWritten::Stale);
    let records = store.site_records("paris", 10).await.unwrap();
    assert_eq!(records.iter().map(|record| record.event.as_str()).collect::<Vec<_>>(), ["site.added"]);
    assert!(store.site_records("pari", 10).await.unwrap().is_empty());
}

pub async fn a_second_person_confirms_and_never_the_first_a_081(bench: Bench) {
    let store = &bench.store;
    assert!(!store.wants_two_persons().await.unwrap());
    let on = NewPolicy { effects: effects(true), ..new(0, "on") };
    store.write_policy(&on, &by("dana", 1)).await.unwrap();
    assert!(store.wants_two_persons().await.unwrap());

    let known = bench.records().await.len();
    let off = NewPolicy { effects: effects(false), ..new(1, "off") };
    assert_eq!(store.write_policy(&off, &by("dana", 2)).await.unwrap(), PolicyWritten::Proposed(2));
    assert_eq!(store.policy().await.unwrap().unwrap().version, 1);
    assert!(store.wants_two_persons().await.unwrap(), "one person does not switch the second one off");
    let confirm = |name: &'static str, may_own| {
        let store = store.clone();
        async move { store.confirm_policy(2, &effects(false), may_own, &by(name, 3)).await.unwrap() }
    };
    assert_eq!(confirm("dana", false).await, PolicyConfirmed::Own);
    bench.recorded(known, &["policy.proposed"]).await;
    let answers = bench
        .race(|store, _| async move { store.confirm_policy(2, &effects(false), false, &by("mia", 3)).await.unwrap() })
        .await;
    assert_eq!(how_many(&answers, &PolicyConfirmed::Applied), 1);
    assert_eq!(how_many(&answers, &PolicyConfirmed::Gone), answers.len() - 1);
    let holds = store.policy().await.unwrap().unwrap();
    assert_eq!((holds.version, holds.decided_by.as_deref()), (2, Some("operator:mia")));
    assert!(!store.wants_two_persons().await.unwrap());
    assert_eq!(confirm("mia", true).await, PolicyConfirmed::Gone);
    bench.recorded(known, &["policy.proposed", "policy.applied"]).await;
}

pub async fn what_waits_is_withdrawn_once_or_overtaken(bench: Bench) {
    let store = &bench.store;
    store.write_policy(&NewPolicy { effects: effects(true), ..new(0, "on") }, &by("dana", 1)).await.unwrap();
    for document in ["b", "c", "d"] {
        store.write_policy(&new(1, document), &by("dana", 2)).await.unwrap();
    }
    let known = bench.records().await.len();
    assert!(store.withdraw_policy(2, &by("dana", 3)).await.unwrap());
    assert!(!store.withdraw_policy(2, &by("dana", 3)).await.unwrap());
    assert!(!store.withdraw_policy(1, &by("dana", 3)).await.unwrap(), "what holds can't be withdrawn");
    let (alone, mia) = (effects(true), by("mia", 3));
    let confirm = |version| store.confirm_policy(version, &alone, false, &mia);
    assert_eq!(confirm(2).await.unwrap(), PolicyConfirmed::Gone);
    assert_eq!(confirm(3).await.unwrap(), PolicyConfirmed::Applied);
    assert_eq!(confirm(4).await.unwrap(), PolicyConfirmed::Stale, "it was written without knowing of version 3");
    bench.recorded(known, &["policy.withdrawn", "policy.applied"]).await;
    let from_shell = NewPolicy { may_alone: true, effects: effects(true), ..new(3, "e") };
    assert_eq!(store.write_policy(&from_shell, &when(4)).await.unwrap(), PolicyWritten::Applied(5));
}
