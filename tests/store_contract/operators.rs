//! People: operators, links, sessions, guesses.

use pairgate::model::operator::{EVERYWHERE, Rights, Role, SESSION_ABSOLUTE, SESSION_IDLE};
use pairgate::store::GuessBucket;

use super::{Bench, at, bytes, how_many, session_of, when};

pub async fn a_name_is_given_once_also_when_many_ask_at_once(bench: Bench) {
    let answers = bench
        .race(|store, _| async move { store.add_operator("dana", Some(Role::Approver), &when(0)).await.unwrap() })
        .await;
    let given: Vec<_> = answers.iter().flatten().collect();
    assert_eq!(given.len(), 1);
    for look_alike in ["Dana", "DANA", "dana"] {
        assert_eq!(bench.store.add_operator(look_alike, None, &when(1)).await.unwrap(), None, "{look_alike}");
    }
    bench.recorded(0, &["operator.added"]).await;
    let operator = bench.store.operator("dana").await.unwrap().unwrap();
    assert_eq!(
        (&operator.id, operator.rights, operator.added_at),
        (given[0], Rights::everywhere(Role::Approver), at(0))
    );
}

pub async fn people_are_found_and_listed(bench: Bench) {
    for (name, role) in [("zoe", Role::Viewer), ("adam", Role::Admin), ("mia", Role::Technician)] {
        bench.operator(name, role).await;
    }
    assert!(bench.store.operator("nobody").await.unwrap().is_none());
    assert!(bench.store.disable_operator("zoe", &when(9)).await.unwrap());
    let all = bench.store.operators().await.unwrap();
    let rows: Vec<_> =
        all.iter().map(|person| (person.name.as_str(), person.rights.highest(), person.disabled_at)).collect();
    assert_eq!(
        rows,
        [
            ("adam", Some(Role::Admin), None),
            ("mia", Some(Role::Technician), None),
            ("zoe", Some(Role::Viewer), Some(at(9)))
        ]
    );
    let taken = bench.store.add_operator("zoe", Some(Role::Admin), &when(10)).await.unwrap();
    assert_eq!(taken, None, "a disabled person's name stays taken");
}

pub async fn roles_are_given_and_taken_per_site(bench: Bench) {
    let store = &bench.store;
    store.add_operator("dana", None, &when(0)).await.unwrap().unwrap();
    let rights = || async { store.operator("dana").await.unwrap().unwrap().rights };
    assert_eq!(rights().await, Rights::default());
    let known = bench.records().await.len();
    assert!(store.set_role("dana", "default", Some(Role::Viewer), &when(1)).await.unwrap());
    assert!(store.set_role("dana", "default", Some(Role::Approver), &when(1)).await.unwrap());
    assert_eq!(rights().await, Rights::at("default", Role::Approver), "one role at a site");
    assert!(store.set_role("dana", EVERYWHERE, Some(Role::Viewer), &when(1)).await.unwrap());
    assert_eq!(rights().await.role_at("paris"), Some(Role::Viewer));
    assert!(store.set_role("dana", "default", None, &when(1)).await.unwrap());
    assert_eq!(rights().await, Rights::everywhere(Role::Viewer));
    assert!(!store.set_role("nobody", "default", Some(Role::Admin), &when(1)).await.unwrap());
    bench.recorded(known, &["operator.role"; 4]).await;
}

pub async fn of_many_who_use_a_link_at_once_one_gets_in(bench: Bench) {
    let store = &bench.store;
    bench.operator("dana", Role::Approver).await;
    assert!(store.add_link("dana", &bytes("link"), at(600), &when(0)).await.unwrap());
    let known = bench.records().await.len();
    let owner = store.link(&bytes("link"), at(1)).await.unwrap().unwrap();
    assert_eq!(owner.name, "dana");
    bench.recorded(known, &[]).await;
    let answers = bench
        .race(|store, index| async move {
            let session = bytes(&format!("session {index}"));
            let operator = store.use_link(&bytes("link"), &session_of(&session), &when(1)).await.unwrap();
            (session, operator.map(|operator| operator.name))
        })
        .await;
    let mut sessions = Vec::new();
    for (session, name) in &answers {
        let is_alive = store.session(session, at(2)).await.unwrap().is_some();
        assert_eq!(is_alive, name.is_some(), "a session for the one who got in and for nobody else");
        sessions.extend(name.clone());
    }
    assert_eq!(sessions, ["dana"]);
    assert_eq!(bench.count("operator.signed_in").await, 1);
    assert!(store.link(&bytes("link"), at(2)).await.unwrap().is_none(), "spent");
}

pub async fn links_run_out_and_belong_to_people_who_may(bench: Bench) {
    let store = &bench.store;
    bench.operator("dana", Role::Approver).await;
    bench.operator("emil", Role::Approver).await;
    let known = bench.records().await.len();
    assert!(!store.add_link("nobody", &bytes("a"), at(600), &when(0)).await.unwrap());
    let known = bench.recorded(known, &[]).await;
    assert!(store.add_link("dana", &bytes("b"), at(600), &when(0)).await.unwrap());
    assert!(store.link(&bytes("b"), at(599)).await.unwrap().is_some());
    assert!(store.link(&bytes("b"), at(600)).await.unwrap().is_none());
    assert!(store.use_link(&bytes("b"), &session_of(&bytes("s")), &when(600)).await.unwrap().is_none(), "too old");
    assert!(store.use_link(&bytes("x"), &session_of(&bytes("s")), &when(1)).await.unwrap().is_none(), "never made");
    let known = bench.recorded(known, &["operator.link"]).await;
    store.add_link("emil", &bytes("c"), at(600), &when(0)).await.unwrap();
    assert!(store.disable_operator("emil", &when(1)).await.unwrap());
    assert!(store.link(&bytes("c"), at(2)).await.unwrap().is_none());
    assert!(store.use_link(&bytes("c"), &session_of(&bytes("s")), &when(2)).await.unwrap().is_none());
    assert!(!store.add_link("emil", &bytes("d"), at(600), &when(2)).await.unwrap());
    bench.recorded(known, &["operator.link", "operator.disabled"]).await;
    assert!(store.session(&bytes("s"), at(2)).await.unwrap().is_none());
}

pub async fn sessions_end_idle_of_age_signed_out_and_disabled(bench: Bench) {
    let store = &bench.store;
    let (idle, absolute) = (SESSION_IDLE.as_secs(), SESSION_ABSOLUTE.as_secs());
    for name in ["dana", "emil"] {
        bench.operator(name, Role::Approver).await;
    }
    let sign_in = |name: &'static str, session: &'static str| async move {
        store.add_link(name, &bytes(session), at(600), &when(0)).await.unwrap();
        store.use_link(&bytes(session), &session_of(&bytes(session)), &when(0)).await.unwrap().unwrap();
    };
    let seen = |session: &'static str, seconds| async move {
        store
            .session(&bytes(session), at(seconds))
            .await
            .unwrap()
            .map(|session| (session.operator.name, session.seen_at))
    };
    sign_in("dana", "d1").await;
    assert_eq!(seen("d1", idle - 1).await, Some(("dana".into(), at(0))));
    assert_eq!(seen("d1", idle).await, None, "idle to the millisecond");
    assert_eq!(seen("never", 1).await, None);
    store.touch_session(&bytes("d1"), at(100)).await.unwrap();
    store.touch_session(&bytes("d1"), at(50)).await.unwrap();
    assert_eq!(seen("d1", idle).await, Some(("dana".into(), at(100))), "an older touch does not take it back");
    let mut touched_at = 100;
    while touched_at + idle < absolute {
        touched_at += idle - 1;
        store.touch_session(&bytes("d1"), at(touched_at)).await.unwrap();
    }
    store.touch_session(&bytes("d1"), at(absolute - 1)).await.unwrap();
    assert!(seen("d1", absolute - 1).await.is_some());
    assert_eq!(seen("d1", absolute).await, None, "of age, however much it was used");

    sign_in("dana", "d2").await;
    sign_in("dana", "d3").await;
    let known = bench.records().await.len();
    store.end_session(&bytes("d2"), &when(5)).await.unwrap();
    store.end_session(&bytes("d2"), &when(5)).await.unwrap();
    bench.recorded(known, &["operator.signed_out"]).await;
    assert_eq!(seen("d2", 6).await, None);
    assert!(seen("d3", 6).await.is_some(), "only this one");

    sign_in("emil", "e1").await;
    store.disable_operator("emil", &when(7)).await.unwrap();
    assert_eq!(seen("e1", 8).await, None);
    assert!(seen("d3", 8).await.is_some());
}

pub async fn of_many_who_disable_at_once_one_did(bench: Bench) {
    bench.operator("dana", Role::Approver).await;
    let known = bench.records().await.len();
    let answers = bench.race(|store, _| async move { store.disable_operator("dana", &when(1)).await.unwrap() }).await;
    assert_eq!(how_many(&answers, &true), 1);
    assert!(!bench.store.disable_operator("nobody", &when(1)).await.unwrap());
    bench.recorded(known, &["operator.disabled"]).await;
}

pub async fn guesses_count_for_ten_minutes_and_nothing_resets_them_a_039(bench: Bench) {
    let store = &bench.store;
    let bucket = |name: &str, limit| -> Vec<GuessBucket> { vec![(name.to_owned(), limit)] };
    let both: Vec<GuessBucket> = vec![("operator:1".into(), 3), ("address:127.0.0.1".into(), 100)];
    for seconds in [100, 200, 300] {
        assert!(!store.is_guess_budget_spent(&both, at(seconds)).await.unwrap());
        store.record_guess(&both, &when(seconds)).await.unwrap();
    }
    bench.recorded(0, &["user_code.refused"; 3]).await;
    assert!(store.is_guess_budget_spent(&both, at(301)).await.unwrap(), "one full bucket is enough");
    assert!(!store.is_guess_budget_spent(&bucket("operator:2", 3), at(301)).await.unwrap(), "another's");
    assert!(store.is_guess_budget_spent(&bucket("address:127.0.0.1", 3), at(301)).await.unwrap());
    assert!(store.is_guess_budget_spent(&both, at(699)).await.unwrap(), "ten minutes from the first");
    assert!(!store.is_guess_budget_spent(&both, at(700)).await.unwrap());
    store.record_guess(&both, &when(700)).await.unwrap();
    assert!(!store.is_guess_budget_spent(&both, at(701)).await.unwrap(), "counted anew");
    assert!(store.is_guess_budget_spent(&bucket("operator:1", 1), at(1299)).await.unwrap());
    assert!(!store.is_guess_budget_spent(&[], at(701)).await.unwrap());
}

pub async fn guesses_at_once_are_all_counted(bench: Bench) {
    let rivals = bench
        .race(|store, _| async move { store.record_guess(&[("all".into(), 1)], &when(1)).await.unwrap() })
        .await
        .len();
    let rivals = i64::try_from(rivals).unwrap();
    assert!(bench.store.is_guess_budget_spent(&[("all".into(), rivals)], at(2)).await.unwrap());
    assert!(!bench.store.is_guess_budget_spent(&[("all".into(), rivals + 1)], at(2)).await.unwrap());
}
