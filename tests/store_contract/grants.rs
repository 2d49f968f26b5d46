//! Sign-ins: codes, claims, decisions, redemption, refresh.

use std::time::Duration;

use pairgate::id::GrantId;
use pairgate::model::audit::Event;
use pairgate::model::device::DeviceState;
use pairgate::model::grant::{GrantState, INTERVAL, MAX_INTERVAL, Standing};
use pairgate::model::kind::RefreshPolicy;
use pairgate::model::operator::Role;
use pairgate::store::{ClaimOutcome, Decision, Mint, NewGrant, Redemption, Rotation};

use super::{ALL, ALONE, Bench, POLICY, at, bytes, code, how_many, id, when};

async fn state(bench: &Bench, grant: GrantId) -> GrantState {
    bench.store.grant(grant).await.unwrap().unwrap().state
}

pub async fn a_code_is_stored_and_found_while_it_is_pending(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let known = bench.records().await.len();
    let new = code(&device, "first");
    let Mint::Minted(grant) = store.mint_grant(&new, &when(3)).await.unwrap() else { panic!("not minted") };
    let known = bench.recorded(known, &["code.issued"]).await;
    let stored = store.grant(grant).await.unwrap().unwrap();
    assert_eq!((stored.state, stored.device_row, stored.interval), (GrantState::Pending, device.row, INTERVAL));
    assert_eq!((stored.jkt, stored.device_code_hash), (new.jkt, new.device_code_hash));
    assert_eq!((stored.scope.to_string(), stored.resource), (new.scope.to_string(), new.resource));
    assert_eq!((stored.created_at, stored.expires_at, stored.peer), (at(3), at(300), when(0).peer));
    assert!(stored.claim.is_none() && stored.refresh.is_none() && stored.decided_by.is_none());
    assert!(store.grant(GrantId(grant.0 + 1)).await.unwrap().is_none());
    let device = bench.device("lobby-printer-01").await;
    assert_eq!((device.pending_grant, device.seen_at), (Some(grant), Some(at(3))));

    let found = store.grant_by_user_code(&new.user_code_hash).await.unwrap().unwrap();
    assert_eq!((found.id, found.user_code_hash), (grant, new.user_code_hash));
    assert!(store.grant_by_user_code(&bytes("another")).await.unwrap().is_none());
    store.claim_grant(grant, approver, None, &when(4)).await.unwrap();
    store.decide_grant(grant, approver, Decision::Approve, ALONE, &when(4)).await.unwrap().is_done();
    let spent = store.grant_by_user_code(&new.user_code_hash).await.unwrap();
    assert!(spent.is_none(), "a decided code is as unknown as a wrong one");
    bench.recorded(known, &["grant.claimed", "grant.approved"]).await;
}

pub async fn a_new_code_ends_the_former_one(bench: Bench) {
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let jkt = device.key.as_ref().unwrap().jkt;
    let pending = bench.minted(&device, "first").await;
    let approved = bench.approved(&device, "second", approver).await;
    assert_eq!(state(&bench, pending).await, GrantState::Revoked);
    let redeemed = bench.redeemed(&device, "third", approver).await;
    assert_eq!(state(&bench, approved).await, GrantState::Revoked);
    assert_eq!(bench.store.redeem_grant(approved, &jkt, None, ALONE, &when(9)).await.unwrap(), Redemption::Lost);
    bench.minted(&device, "fourth").await;
    assert_eq!(state(&bench, redeemed).await, GrantState::Redeemed, "what is signed in stays so");
}

pub async fn the_hourly_budget_is_charged_and_renewed(bench: Bench) {
    let store = &bench.store;
    let device = bench.active("lobby-printer-01").await;
    let mint = |name: &'static str, seconds: u64| {
        let new = NewGrant { codes_per_hour: 2, expires_at: at(seconds + 300), ..code(&device, name) };
        async move { store.mint_grant(&new, &when(seconds)).await.unwrap() }
    };
    assert!(matches!(mint("1", 10).await, Mint::Minted(_)));
    assert!(matches!(mint("2", 20).await, Mint::Minted(_)));
    let known = bench.records().await.len();
    let pending = bench.device("lobby-printer-01").await.pending_grant;
    assert_eq!(mint("3", 30).await, Mint::OverBudget { retry_after: 3580 });
    assert_eq!(mint("3", 3609).await, Mint::OverBudget { retry_after: 1 });
    bench.recorded(known, &[]).await;
    assert_eq!(bench.device("lobby-printer-01").await.pending_grant, pending, "a refusal ends nothing");
    assert!(matches!(mint("4", 3610).await, Mint::Minted(_)), "a new hour");

    let other = bench.active("other-printer-02").await;
    let answers = bench
        .race(|store, index| {
            let new = NewGrant { codes_per_hour: 5, ..code(&other, &format!("race {index}")) };
            async move { matches!(store.mint_grant(&new, &when(10)).await.unwrap(), Mint::Minted(_)) }
        })
        .await;
    assert_eq!(how_many(&answers, &true), 5, "the budget holds when many ask at once");
}

pub async fn no_code_for_a_key_or_a_state_that_changed_meanwhile(bench: Bench) {
    let store = &bench.store;
    let device = bench.active("lobby-printer-01").await;
    let registered = bench.registered("new-printer").await;
    let known = bench.records().await.len();
    let foreign = NewGrant { jkt: bytes("another key"), ..code(&device, "1") };
    assert_eq!(store.mint_grant(&foreign, &when(3)).await.unwrap(), Mint::Lost);
    assert_eq!(store.mint_grant(&code(&registered, "2"), &when(3)).await.unwrap(), Mint::Lost);
    bench.recorded(known, &[]).await;
    store.set_device_state(&device.id, DeviceState::Suspended, &when(4)).await.unwrap();
    assert_eq!(store.mint_grant(&code(&device, "3"), &when(5)).await.unwrap(), Mint::Lost);
    assert!(store.pending_grants(ALL, at(5), 10).await.unwrap().is_empty());
}

pub async fn many_codes_at_once_leave_one_pending(bench: Bench) {
    let device = bench.active("lobby-printer-01").await;
    let minted = bench
        .race(|store, index| {
            let new = code(&device, &index.to_string());
            async move { store.mint_grant(&new, &when(3)).await.unwrap() }
        })
        .await;
    let mut pending = Vec::new();
    for answer in minted {
        let Mint::Minted(grant) = answer else { panic!("{answer:?}") };
        if state(&bench, grant).await == GrantState::Pending {
            pending.push(grant);
        }
    }
    assert_eq!(pending.len(), 1);
    assert_eq!(bench.device("lobby-printer-01").await.pending_grant, pending.first().copied());
}

pub async fn a_user_code_in_use_is_a_failure_that_changes_nothing(bench: Bench) {
    let device = bench.active("lobby-printer-01").await;
    let other = bench.active("other-printer-02").await;
    let first = bench.minted(&device, "same").await;
    let of_other = bench.minted(&other, "other").await;
    let known = bench.records().await.len();
    assert!(bench.store.mint_grant(&code(&other, "same"), &when(4)).await.is_err());
    bench.recorded(known, &[]).await;
    for grant in [first, of_other] {
        assert_eq!(state(&bench, grant).await, GrantState::Pending);
    }
    assert_eq!(bench.device("other-printer-02").await.pending_grant, Some(of_other));
}

pub async fn the_interval_grows_to_its_cap_and_only_while_open(bench: Bench) {
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let grant = bench.approved(&device, "first", approver).await;
    let interval = || async { bench.store.grant(grant).await.unwrap().unwrap().interval };
    bench.store.slow_down(grant).await.unwrap();
    assert_eq!(interval().await, 2 * INTERVAL);
    bench.race(|store, _| async move { store.slow_down(grant).await.unwrap() }).await;
    assert_eq!(interval().await, MAX_INTERVAL);
    let redeemed = bench.redeemed(&device, "second", approver).await;
    bench.store.slow_down(redeemed).await.unwrap();
    assert_eq!(bench.store.grant(redeemed).await.unwrap().unwrap().interval, INTERVAL);
    bench.store.slow_down(GrantId(4711)).await.unwrap();
}

pub async fn of_many_approvers_at_once_one_has_the_claim(bench: Bench) {
    let device = bench.active("lobby-printer-01").await;
    let mut approvers = Vec::new();
    for name in ["dana", "emil", "fred", "gina"] {
        approvers.push(bench.operator(name, Role::Approver).await);
    }
    let grant = bench.minted(&device, "first").await;
    let answers = bench
        .race(|store, index| {
            let by = approvers[index % 4];
            async move { (by, store.claim_grant(grant, by, Some("12"), &when(4)).await.unwrap()) }
        })
        .await;
    let owner = bench.store.grant(grant).await.unwrap().unwrap().claim.unwrap().by;
    for (by, outcome) in &answers {
        let expected = if *by == owner { ClaimOutcome::Claimed } else { ClaimOutcome::AnothersClaim };
        assert_eq!(*outcome, expected);
    }
    assert_eq!(bench.count("grant.claimed").await, answers.len() / 4);
    assert_eq!(bench.count("grant.second_approver").await, answers.len() / 4 * 3, "the others raise an alarm (A-045)");
}

pub async fn a_claim_may_be_repeated_by_the_same_person_and_ends_with_the_code(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let grant = bench.claimed(&device, "first", approver).await;
    assert_eq!(store.claim_grant(grant, approver, Some("48"), &when(9)).await.unwrap(), ClaimOutcome::Claimed);
    let claim = store.grant(grant).await.unwrap().unwrap().claim.unwrap();
    assert_eq!((claim.by, claim.at, claim.confirmation_number.as_deref()), (approver, at(9), Some("48")));
    let known = bench.records().await.len();
    assert_eq!(store.claim_grant(grant, approver, None, &when(300)).await.unwrap(), ClaimOutcome::Gone, "expired");
    store.decide_grant(grant, approver, Decision::Deny, ALONE, &when(10)).await.unwrap().is_done();
    assert_eq!(store.claim_grant(grant, approver, None, &when(11)).await.unwrap(), ClaimOutcome::Gone);
    assert_eq!(store.claim_grant(GrantId(4711), approver, None, &when(11)).await.unwrap(), ClaimOutcome::Gone);
    bench.recorded(known, &["grant.denied"]).await;
}

pub async fn only_the_claimant_decides_and_the_first_decision_stands(bench: Bench) {
    let store = &bench.store;
    let (dana, emil) = (bench.operator("dana", Role::Approver).await, bench.operator("emil", Role::Approver).await);
    let device = bench.active("lobby-printer-01").await;
    let unclaimed = bench.minted(&device, "unclaimed").await;
    assert!(
        !store.decide_grant(unclaimed, dana, Decision::Approve, ALONE, &when(5)).await.unwrap().is_done(),
        "not even opened"
    );
    let outcomes = [
        (Decision::Approve, GrantState::Approved, "grant.approved"),
        (Decision::Deny, GrantState::Denied, "grant.denied"),
        (Decision::Report, GrantState::Denied, "grant.reported"),
    ];
    for (decision, expected, event) in outcomes {
        let grant = bench.claimed(&device, &format!("{decision:?}"), dana).await;
        let known = bench.records().await.len();
        assert!(!store.decide_grant(grant, emil, decision, ALONE, &when(5)).await.unwrap().is_done(), "another's");
        assert!(!store.decide_grant(grant, dana, decision, ALONE, &when(300)).await.unwrap().is_done(), "expired");
        bench.recorded(known, &[]).await;
        assert!(store.decide_grant(grant, dana, decision, ALONE, &when(6)).await.unwrap().is_done());
        for (other, _, _) in outcomes {
            assert!(
                !store.decide_grant(grant, dana, other, ALONE, &when(7)).await.unwrap().is_done(),
                "{decision:?}, then {other:?}"
            );
        }
        bench.recorded(known, &[event]).await;
        let stored = store.grant(grant).await.unwrap().unwrap();
        assert_eq!((stored.state, stored.decided_by), (expected, Some(dana)));
    }
}

pub async fn of_many_decisions_at_once_one_stands(bench: Bench) {
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let grant = bench.claimed(&device, "first", approver).await;
    let known = bench.records().await.len();
    let answers = bench
        .race(|store, index| async move {
            let decision = [Decision::Approve, Decision::Deny, Decision::Report][index % 3];
            (decision, store.decide_grant(grant, approver, decision, ALONE, &when(6)).await.unwrap().is_done())
        })
        .await;
    let stood: Vec<_> = answers.iter().filter(|(_, is_done)| *is_done).map(|(decision, _)| *decision).collect();
    let (expected, event) = match stood.as_slice() {
        [Decision::Approve] => (GrantState::Approved, "grant.approved"),
        [Decision::Deny] => (GrantState::Denied, "grant.denied"),
        [Decision::Report] => (GrantState::Denied, "grant.reported"),
        _ => panic!("{} decisions stand", stood.len()),
    };
    assert_eq!(state(&bench, grant).await, expected);
    bench.recorded(known, &[event]).await;
}

pub async fn wrong_numbers_are_counted_and_the_last_one_denies(bench: Bench) {
    let store = &bench.store;
    let (dana, emil) = (bench.operator("dana", Role::Approver).await, bench.operator("emil", Role::Approver).await);
    let device = bench.active("lobby-printer-01").await;
    let grant = bench.claimed(&device, "first", dana).await;
    let known = bench.records().await.len();
    assert_eq!(store.record_wrong_number(grant, emil, &when(5)).await.unwrap(), None, "another's");
    assert_eq!(store.record_wrong_number(grant, dana, &when(300)).await.unwrap(), None, "expired");
    for left in [2, 1, 0] {
        assert_eq!(state(&bench, grant).await, GrantState::Pending);
        assert_eq!(store.record_wrong_number(grant, dana, &when(6)).await.unwrap(), Some(left));
    }
    assert_eq!(state(&bench, grant).await, GrantState::Denied);
    assert_eq!(store.record_wrong_number(grant, dana, &when(7)).await.unwrap(), None);
    assert!(!store.decide_grant(grant, dana, Decision::Approve, ALONE, &when(8)).await.unwrap().is_done());
    let counted = "grant.wrong_number";
    bench.recorded(known, &[counted, counted, counted, "grant.denied"]).await;
}

pub async fn wrong_numbers_at_once_are_all_counted(bench: Bench) {
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let grant = bench.claimed(&device, "first", approver).await;
    let answers =
        bench.race(|store, _| async move { store.record_wrong_number(grant, approver, &when(6)).await.unwrap() }).await;
    for left in [Some(2), Some(1), Some(0)] {
        assert_eq!(how_many(&answers, &left), 1, "{left:?}");
    }
    assert_eq!(how_many(&answers, &None), answers.len() - 3);
    assert_eq!(bench.count("grant.denied").await, 1);
}

pub async fn of_many_polls_at_once_one_redeems_a_035(bench: Bench) {
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let jkt = device.key.as_ref().unwrap().jkt;
    let grant = bench.approved(&device, "first", approver).await;
    let known = bench.records().await.len();
    let answers = bench
        .race(|store, index| async move {
            let refresh = bytes(&format!("refresh {index}"));
            let outcome = store.redeem_grant(grant, &jkt, Some((refresh, POLICY)), ALONE, &when(8)).await.unwrap();
            (outcome, refresh)
        })
        .await;
    let winners: Vec<_> = answers.iter().filter(|(outcome, _)| *outcome == Redemption::Redeemed).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(answers.iter().filter(|(outcome, _)| *outcome == Redemption::Lost).count(), answers.len() - 1);
    bench.recorded(known, &["token.issued"]).await;
    let stored = bench.store.grant(grant).await.unwrap().unwrap();
    let refresh = stored.refresh.unwrap();
    assert_eq!(
        (stored.state, refresh.hash),
        (GrantState::Redeemed, winners[0].1),
        "the token in force is the winner's"
    );
    assert_eq!((refresh.idle_until, refresh.ends_at), (at(8).plus(POLICY.idle), at(8).plus(POLICY.absolute)));
    let device = bench.device("lobby-printer-01").await;
    assert_eq!((device.pending_grant, device.seen_at), (None, Some(at(8))));
}

pub async fn nothing_is_redeemed_without_approval_key_state_and_time(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let jkt = device.key.as_ref().unwrap().jkt;
    let pending = bench.claimed(&device, "first", approver).await;
    let known = bench.records().await.len();
    let redeem = |grant, key, seconds| async move {
        store.redeem_grant(grant, &key, Some((bytes("r"), POLICY)), ALONE, &when(seconds)).await.unwrap()
    };
    assert_eq!(redeem(pending, jkt, 6).await, Redemption::Lost, "not approved");
    assert_eq!(redeem(GrantId(4711), jkt, 6).await, Redemption::Lost, "unknown");
    store.decide_grant(pending, approver, Decision::Approve, ALONE, &when(6)).await.unwrap().is_done();
    assert_eq!(redeem(pending, bytes("another key"), 7).await, Redemption::Lost, "another key");
    assert_eq!(redeem(pending, jkt, 300).await, Redemption::Lost, "expired, although approved (A-038)");
    assert_eq!(store.grant(pending).await.unwrap().unwrap().standing(at(299)), Standing::Approved);
    store.set_device_state(&id("lobby-printer-01"), DeviceState::Suspended, &when(8)).await.unwrap();
    assert_eq!(redeem(pending, jkt, 9).await, Redemption::Lost, "suspended");
    store.set_device_state(&id("lobby-printer-01"), DeviceState::Active, &when(9)).await.unwrap();
    let denied = bench.claimed(&device, "second", approver).await;
    store.decide_grant(denied, approver, Decision::Deny, ALONE, &when(10)).await.unwrap().is_done();
    assert_eq!(redeem(denied, jkt, 11).await, Redemption::Lost, "denied");
    assert_eq!(bench.count("token.issued").await, 0);
    assert_eq!(bench.count("token.refused").await, 0);
    assert!(bench.records().await.len() > known);
}

pub async fn an_approver_who_lost_the_right_lets_nobody_in_a_047(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    let technician = bench.operator("emil", Role::Technician).await;
    let device = bench.active("lobby-printer-01").await;
    let jkt = device.key.as_ref().unwrap().jkt;
    // A role that may not approve: the broker asks before, the store again.
    let by_technician = bench.approved(&device, "first", technician).await;
    let redeemed = store.redeem_grant(by_technician, &jkt, None, ALONE, &when(7)).await.unwrap();
    assert_eq!(redeemed, Redemption::ApproverLost);
    let grant = bench.approved(&device, "second", approver).await;
    assert!(store.disable_operator("dana", &when(7)).await.unwrap());
    let known = bench.records().await.len();
    let answers = bench
        .race(|store, _| async move { store.redeem_grant(grant, &jkt, None, ALONE, &when(8)).await.unwrap() })
        .await;
    assert_eq!(how_many(&answers, &Redemption::Redeemed), 0);
    assert_eq!(how_many(&answers, &Redemption::ApproverLost), 1);
    assert_eq!(state(&bench, grant).await, GrantState::Denied);
    bench.recorded(known, &["token.refused"]).await;
}

pub async fn a_redeemed_sign_in_is_revoked_once(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let redeemed = bench.redeemed(&device, "first", approver).await;
    let approved = bench.approved(&device, "second", approver).await;
    let answers = bench
        .race(|store, _| async move {
            store.revoke_grant(redeemed, Event::ForeignKeyOnCode, "by somebody", &when(9)).await.unwrap()
        })
        .await;
    assert_eq!(how_many(&answers, &true), 1);
    assert_eq!(bench.count("code.foreign_key").await, answers.len(), "each attempt is recorded, the useless ones too");
    assert_eq!(state(&bench, redeemed).await, GrantState::Revoked);
    let rotation = store.rotate_refresh(redeemed, &bytes("first"), &bytes("next"), POLICY, &when(9)).await.unwrap();
    assert_eq!(rotation, Rotation::Gone);
    assert!(!store.revoke_grant(approved, Event::ForeignKeyOnCode, "", &when(9)).await.unwrap());
    assert_eq!(state(&bench, approved).await, GrantState::Approved, "what has no tokens out is not disturbed");
}

pub async fn all_sign_ins_are_ended_by_one_call(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    let mut redeemed = Vec::new();
    for name in ["lobby-printer-01", "attic-printer-02"] {
        let device = bench.active(name).await;
        redeemed.push(bench.redeemed(&device, name, approver).await);
    }
    let device = bench.device("lobby-printer-01").await;
    let once = bench.approved(&device, "once", approver).await;
    let jkt = device.key.as_ref().unwrap().jkt;
    assert_eq!(store.redeem_grant(once, &jkt, None, ALONE, &when(6)).await.unwrap(), Redemption::Redeemed);
    let approved = bench.approved(&device, "approved", approver).await;
    let known = bench.records().await.len();
    // At the end of the first two's idle time, less a second; the third has no refresh token, but its access token may be out.
    let end = 6 + POLICY.idle.as_secs();
    assert_eq!(store.revoke_all_grants(Event::AllSignInsEnded, &when(end - 1)).await.unwrap(), 2);
    for grant in redeemed.iter().chain([&once]) {
        assert_eq!(state(&bench, *grant).await, GrantState::Revoked);
    }
    assert_eq!(state(&bench, approved).await, GrantState::Approved, "what has no tokens out is not disturbed");
    let known = bench.recorded(known, &["grant.all_revoked"]).await;
    let rotation =
        store.rotate_refresh(redeemed[0], &bytes("lobby-printer-01"), &bytes("next"), POLICY, &when(7)).await;
    assert_eq!(rotation.unwrap(), Rotation::Gone);
    assert_eq!(store.revoke_all_grants(Event::AllSignInsEnded, &when(end)).await.unwrap(), 0, "there is none left");
    bench.recorded(known, &["grant.all_revoked"]).await;
}

pub async fn a_refresh_token_is_exchanged_once_and_its_retry_within_seconds(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let grant = bench.redeemed(&device, "r0", approver).await;
    let known = bench.records().await.len();
    let rotate = |presented: &'static str, successor: &'static str, seconds| async move {
        store.rotate_refresh(grant, &bytes(presented), &bytes(successor), POLICY, &when(seconds)).await.unwrap()
    };
    assert_eq!(rotate("r0", "r1", 20).await, Rotation::Rotated);
    assert_eq!(rotate("r0", "r1", 30).await, Rotation::Retried, "ten seconds later");
    let known = bench.recorded(known, &["token.refreshed"]).await;
    assert_eq!(rotate("r1", "r2", 31).await, Rotation::Rotated, "the successor is in force after a retry");
    bench.recorded(known, &["token.refreshed"]).await;
    let stored = store.grant(grant).await.unwrap().unwrap().refresh.unwrap();
    assert_eq!((stored.hash, stored.previous_hash, stored.rotated_at), (bytes("r2"), Some(bytes("r1")), at(31)));
    assert_eq!(stored.idle_until, at(31).plus(POLICY.idle));
    assert_eq!(bench.device("lobby-printer-01").await.seen_at, Some(at(31)));
}

pub async fn of_many_refreshes_at_once_one_rotates(bench: Bench) {
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let grant = bench.redeemed(&device, "r0", approver).await;
    let known = bench.records().await.len();
    let answers = bench
        .race(|store, _| async move {
            store.rotate_refresh(grant, &bytes("r0"), &bytes("r1"), POLICY, &when(20)).await.unwrap()
        })
        .await;
    assert_eq!(how_many(&answers, &Rotation::Rotated), 1);
    assert_eq!(how_many(&answers, &Rotation::Retried), answers.len() - 1);
    bench.recorded(known, &["token.refreshed"]).await;
    assert_eq!(bench.store.grant(grant).await.unwrap().unwrap().refresh.unwrap().hash, bytes("r1"));
}

pub async fn an_old_refresh_token_ends_the_sign_in(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    for (name, presented, seconds) in
        [("late predecessor", "r0", 31), ("before the predecessor", "r-1", 21), ("never ours", "x", 21)]
    {
        let first = if presented == "r-1" { "r-1" } else { "r0" };
        let grant = bench.redeemed(&device, first, approver).await;
        if first == "r-1" {
            store.rotate_refresh(grant, &bytes("r-1"), &bytes("r0"), POLICY, &when(15)).await.unwrap();
        }
        store.rotate_refresh(grant, &bytes("r0"), &bytes("r1"), POLICY, &when(20)).await.unwrap();
        let known = bench.records().await.len();
        let rotate = |presented: &'static str| async move {
            store.rotate_refresh(grant, &bytes(presented), &bytes("n"), POLICY, &when(seconds)).await.unwrap()
        };
        assert_eq!(rotate(presented).await, Rotation::Reused, "{name}");
        assert_eq!(state(&bench, grant).await, GrantState::Revoked, "{name}");
        assert_eq!(rotate("r1").await, Rotation::Gone, "the honest holder must sign in anew, too");
        bench.recorded(known, &["refresh.reused"]).await;
    }
}

pub async fn refresh_tokens_die_unused_and_of_age(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let grant = bench.redeemed(&device, "r0", approver).await;
    // Redeemed at 6, so idle until 7206 and over at 21606.
    let rotate = |presented: &'static str, successor: &'static str, seconds| async move {
        store.rotate_refresh(grant, &bytes(presented), &bytes(successor), POLICY, &when(seconds)).await.unwrap()
    };
    assert_eq!(rotate("r0", "r1", 7206).await, Rotation::Gone, "idle to the millisecond");
    assert_eq!(rotate("r0", "r1", 7205).await, Rotation::Rotated);
    assert_eq!(rotate("r1", "r2", 14_404).await, Rotation::Rotated);
    assert_eq!(rotate("r2", "r3", 21_603).await, Rotation::Rotated);
    let ends_at = store.grant(grant).await.unwrap().unwrap().refresh.unwrap().idle_until;
    assert_eq!(ends_at, at(21_606), "no rotation prolongs the whole");
    assert_eq!(rotate("r3", "r4", 21_606).await, Rotation::Gone, "of age");
    assert_eq!(rotate("r2", "r3", 21_606).await, Rotation::Gone, "nor does a retry");

    let without = bench.approved(&device, "none", approver).await;
    let jkt = device.key.unwrap().jkt;
    assert_eq!(store.redeem_grant(without, &jkt, None, ALONE, &when(7)).await.unwrap(), Redemption::Redeemed);
    let rotation = store.rotate_refresh(without, &bytes("r"), &bytes("s"), POLICY, &when(8)).await.unwrap();
    assert_eq!(rotation, Rotation::Gone, "none was given");
    assert_eq!(state(&bench, without).await, GrantState::Redeemed);

    let short = RefreshPolicy { idle: Duration::from_secs(7200), absolute: Duration::from_secs(60) };
    let brief = bench.approved(&bench.device("lobby-printer-01").await, "brief", approver).await;
    store.redeem_grant(brief, &jkt, Some((bytes("b0"), short)), ALONE, &when(10)).await.unwrap();
    assert_eq!(store.grant(brief).await.unwrap().unwrap().refresh.unwrap().idle_until, at(70));
}

pub async fn pending_grants_are_listed_oldest_first(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    for name in ["c-printer", "a-printer", "b-printer"] {
        let device = bench.active(name).await;
        bench.minted(&device, name).await;
    }
    let grant = bench.device("a-printer").await.pending_grant.unwrap();
    store.claim_grant(grant, approver, Some("47"), &when(4)).await.unwrap();
    let list = |now, limit| async move {
        let found = store.pending_grants(ALL, now, limit).await.unwrap();
        found.into_iter().map(|found| (found.device.id.to_string(), found.claimed_by)).collect::<Vec<_>>()
    };
    let row = |device: &str, claimed_by: Option<&str>| (device.to_owned(), claimed_by.map(str::to_owned));
    let all = [row("c-printer", None), row("a-printer", Some("dana")), row("b-printer", None)];
    assert_eq!(list(at(10), 10).await, all);
    assert_eq!(list(at(10), 2).await, all[..2]);
    assert!(list(at(300), 10).await.is_empty(), "expired");
    store.decide_grant(grant, approver, Decision::Approve, ALONE, &when(5)).await.unwrap().is_done();
    assert_eq!(list(at(10), 10).await.len(), 2, "decided");
}

pub async fn an_assertion_makes_one_code_also_after_a_restart_a_030(bench: Bench) {
    let device = bench.active("lobby-printer-01").await;
    let with = |name: &str, hash: &str| NewGrant { assertion: Some((bytes(hash), at(120))), ..code(&device, name) };
    let (first, again, other) = (with("1", "a"), with("2", "a"), with("3", "b"));
    assert!(matches!(bench.store.mint_grant(&first, &when(1)).await.unwrap(), Mint::Minted(_)));
    let known = bench.records().await.len();
    let answers = bench
        .race(|store, _| {
            let again = again.clone();
            async move { store.mint_grant(&again, &when(2)).await.unwrap() }
        })
        .await;
    assert_eq!(how_many(&answers, &Mint::Replayed), answers.len());
    bench.recorded(known, &[]).await;
    assert!(matches!(bench.store.mint_grant(&other, &when(2)).await.unwrap(), Mint::Minted(_)));
    let bench = bench.restarted();
    assert_eq!(bench.store.mint_grant(&again, &when(119)).await.unwrap(), Mint::Replayed);
    // From then on nobody takes it any more, so it need not be remembered.
    assert!(matches!(bench.store.mint_grant(&again, &when(120)).await.unwrap(), Mint::Minted(_)));
}

pub async fn two_live_sign_ins_of_one_key_are_both_ended_a_009(bench: Bench) {
    let store = &bench.store;
    let approver = bench.operator("dana", Role::Approver).await;
    let device = bench.active("lobby-printer-01").await;
    let old = bench.redeemed(&device, "a0", approver).await;
    let new = bench.redeemed(&device, "b0", approver).await;
    let rotate = |grant, presented: &'static str, successor: &'static str, seconds| async move {
        store.rotate_refresh(grant, &bytes(presented), &bytes(successor), POLICY, &when(seconds)).await.unwrap()
    };
    // The honest device has forgotten the old one.
    assert_eq!(rotate(new, "b0", "b1", 20).await, Rotation::Rotated);
    let known = bench.records().await.len();
    assert_eq!(rotate(old, "a0", "a1", 21).await, Rotation::Forked);
    assert_eq!((state(&bench, old).await, state(&bench, new).await), (GrantState::Revoked, GrantState::Revoked));
    assert_eq!(rotate(new, "b1", "b2", 22).await, Rotation::Gone);
    let known = bench.recorded(known, &["key.two_sessions"]).await;
    // Two resources are two sign-ins, and one that has ended is none.
    let old = bench.redeemed(&device, "c0", approver).await;
    let elsewhere = NewGrant { resource: "https://scan.example".into(), ..code(&device, "d") };
    let Mint::Minted(elsewhere) = store.mint_grant(&elsewhere, &when(30)).await.unwrap() else { panic!("not minted") };
    store.claim_grant(elsewhere, approver, None, &when(31)).await.unwrap();
    store.decide_grant(elsewhere, approver, Decision::Approve, ALONE, &when(31)).await.unwrap().is_done();
    let jkt = device.key.as_ref().unwrap().jkt;
    let redeemed = store.redeem_grant(elsewhere, &jkt, Some((bytes("d0"), POLICY)), ALONE, &when(32)).await.unwrap();
    assert_eq!(redeemed, Redemption::Redeemed);
    assert_eq!(rotate(old, "c0", "c1", 33).await, Rotation::Rotated);
    assert_eq!(rotate(elsewhere, "d0", "d1", 33).await, Rotation::Rotated);
    let newer = bench.redeemed(&device, "e0", approver).await;
    store.revoke_grant(newer, Event::TokenRevoked, "by the device", &when(35)).await.unwrap();
    assert_eq!(rotate(old, "c1", "c2", 36).await, Rotation::Rotated);
    assert!(known < bench.records().await.len());
}

pub async fn the_sign_ins_of_one_device_are_ended_and_no_others(bench: Bench) {
    let dana = bench.operator("dana", Role::Approver).await;
    let (one, other) = (bench.active("lobby-printer-01").await, bench.active("lobby-printer-02").await);
    let ended = bench.redeemed(&one, "one", dana).await;
    let kept = bench.redeemed(&other, "other", dana).await;
    let open = bench.minted(&one, "open").await;
    let known = bench.records().await.len();
    assert_eq!(bench.store.end_sign_ins_of(&id("lobby-printer-01"), &when(7)).await.unwrap(), 2);
    let known = bench.recorded(known, &["device.sign_ins_ended"]).await;
    for (grant, state) in [(ended, GrantState::Revoked), (open, GrantState::Revoked), (kept, GrantState::Redeemed)] {
        assert_eq!(bench.store.grant(grant).await.unwrap().unwrap().state, state);
    }
    let device = bench.device("lobby-printer-01").await;
    assert_eq!((device.state, device.pending_grant), (DeviceState::Active, None), "it may ask anew");
    assert_eq!(bench.store.end_sign_ins_of(&id("lobby-printer-01"), &when(8)).await.unwrap(), 0);
    assert_eq!(bench.store.end_sign_ins_of(&id("no-such-device"), &when(8)).await.unwrap(), 0);
    bench.recorded(known, &[]).await;
}
