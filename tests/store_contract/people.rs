//! People as the identity provider and administrators see them.

use pairgate::model::operator::{EVERYWHERE, Rights, Role, SESSION_IDLE, SignInMethod};
use pairgate::store::{NewPasskey, NewSession, Person, SsoIdentity};

use super::{Bench, at, bytes, how_many, when};

fn identity(subject: &str, name: &str) -> SsoIdentity {
    SsoIdentity { issuer: "https://id.example.org".into(), subject: subject.into(), name: name.into() }
}

fn session(name: &str) -> NewSession {
    NewSession {
        hash: bytes(name),
        method: SignInMethod::Sso,
        fresh_at: at(0),
        agent: String::new(),
        ends_at: at(99_999),
        replaces: None,
    }
}

async fn person(bench: &Bench, name: &str, seconds: u64) -> Person {
    let people = bench.store.people(at(seconds)).await.unwrap();
    people.into_iter().find(|person| person.operator.name == name).unwrap()
}

pub async fn somebody_new_is_added_once_and_takes_nobodys_name_a_048(bench: Bench) {
    bench.operator("Dana", Role::Admin).await;
    let known = bench.records().await.len();
    let none = Rights::default();
    let unknown = bench.store.recognise(&identity("1", "dana"), &none, false, &when(1)).await.unwrap();
    assert!(unknown.is_none());
    assert_eq!(bench.store.sso_owner("https://id.example.org", "1").await.unwrap(), None);
    let known = bench.recorded(known, &[]).await;
    let answers = bench
        .race(|store, _| async move {
            let roles = Rights::at("default", Role::Viewer);
            store.recognise(&identity("1", "dana"), &roles, true, &when(1)).await.unwrap().unwrap()
        })
        .await;
    assert!(answers.iter().all(|person| person.id == answers[0].id && person.name == "dana-2"));
    assert_eq!(answers[0].rights, Rights::at("default", Role::Viewer));
    bench.recorded(known, &["operator.added", "operator.role"]).await;
    let other = bench.store.recognise(&identity("2", "dana"), &none, true, &when(1)).await.unwrap().unwrap();
    assert_eq!((other.name.as_str(), other.rights), ("dana-3", Rights::default()));
    let elsewhere = SsoIdentity { issuer: "https://evil.example".into(), ..identity("1", "dana") };
    let elsewhere = bench.store.recognise(&elsewhere, &none, true, &when(1)).await.unwrap().unwrap();
    assert_eq!(elsewhere.name, "dana-4", "the same subject of another issuer");
    assert_eq!(bench.store.sso_owner("https://id.example.org", "2").await.unwrap(), Some(other.id));
    assert_eq!(person(&bench, "Dana", 2).await.given, Rights::everywhere(Role::Admin));
}

pub async fn roles_by_groups_are_replaced_and_given_ones_stay_a_047(bench: Bench) {
    let store = &bench.store;
    let mut both = Rights::everywhere(Role::Viewer);
    both.add("default", Role::Admin);
    store.recognise(&identity("1", "dana"), &both, true, &when(1)).await.unwrap().unwrap();
    assert!(store.set_role("dana", "default", Some(Role::Technician), &when(2)).await.unwrap());
    let known = bench.records().await.len();
    store.recognise(&identity("1", "another-name"), &both, true, &when(3)).await.unwrap().unwrap();
    let known = bench.recorded(known, &[]).await;
    let dana = person(&bench, "dana", 4).await;
    assert_eq!((&dana.by_groups, &dana.given), (&both, &Rights::at("default", Role::Technician)));
    assert_eq!(dana.operator.rights.role_at("default"), Some(Role::Admin), "the higher one counts");
    assert!(dana.has_sso);
    let left = store.recognise(&identity("1", "dana"), &Rights::default(), false, &when(5)).await.unwrap().unwrap();
    assert_eq!(left.rights, Rights::at("default", Role::Technician), "also where somebody new would not be added");
    bench.recorded(known, &["operator.role"]).await;
    bench.operator("admin", Role::Admin).await;
    assert!(store.disable_operator("dana", &when(6)).await.unwrap());
    let known = bench.records().await.len();
    let disabled = store.recognise(&identity("1", "dana"), &both, true, &when(7)).await.unwrap().unwrap();
    assert!(disabled.disabled_at.is_some() && disabled.rights == Rights::at("default", Role::Technician));
    bench.recorded(known, &[]).await;
}

pub async fn people_are_listed_with_what_they_have(bench: Bench) {
    let id = bench.operator("dana", Role::Approver).await;
    let dana = person(&bench, "dana", 1).await;
    assert_eq!((dana.seen_at, dana.sessions, dana.passkeys, dana.has_sso), (None, 0, 0, false));
    for name in ["one", "two"] {
        bench.store.open_session(id, &session(name), &when(10)).await.unwrap().unwrap();
    }
    bench.store.touch_session(&bytes("two"), at(20)).await.unwrap();
    let dana = person(&bench, "dana", 21).await;
    assert_eq!((dana.seen_at, dana.sessions), (Some(at(20)), 2));
    let idle = SESSION_IDLE.as_secs();
    assert_eq!(person(&bench, "dana", 10 + idle).await.sessions, 1, "idle ones do not count");
    bench.store.end_session(&bytes("two"), &when(30)).await.unwrap();
    bench.store.end_session(&bytes("one"), &when(30)).await.unwrap();
    let dana = person(&bench, "dana", 31).await;
    assert_eq!((dana.seen_at, dana.sessions), (Some(at(10)), 0), "when it signed in last is still known");
}

pub async fn all_passkeys_of_a_person_are_removed(bench: Bench) {
    let store = &bench.store;
    for name in ["dana", "emil"] {
        let operator = bench.operator(name, Role::Approver).await;
        for key in ["blue", "red"] {
            let credential = format!("{name} {key}").into_bytes();
            let by = session(&format!("{name} {key}"));
            store.open_session(operator, &by, &when(0)).await.unwrap().unwrap();
            let new = NewPasskey { credential, operator, name: key.into(), data: "{}".into(), session: by.hash };
            assert!(store.add_passkey(&new, &when(1)).await.unwrap());
        }
    }
    let known = bench.records().await.len();
    assert_eq!(store.remove_passkeys("dana", &when(2)).await.unwrap(), 2);
    assert_eq!(store.remove_passkeys("dana", &when(2)).await.unwrap(), 0);
    assert_eq!(store.remove_passkeys("nobody", &when(2)).await.unwrap(), 0);
    let out = "operator.signed_out_everywhere";
    bench.recorded(known, &["operator.passkeys_removed", out, out]).await;
    let (dana, emil) = (person(&bench, "dana", 3).await, person(&bench, "emil", 3).await);
    assert_eq!((dana.passkeys, dana.sessions), (0, 0), "and whoever has them now is out");
    assert_eq!((emil.passkeys, emil.sessions), (2, 2));
}

pub async fn of_many_who_enable_at_once_one_did(bench: Bench) {
    bench.operator("dana", Role::Approver).await;
    assert!(!bench.store.enable_operator("dana", &when(1)).await.unwrap(), "not disabled");
    assert!(bench.store.disable_operator("dana", &when(1)).await.unwrap());
    let known = bench.records().await.len();
    let answers = bench.race(|store, _| async move { store.enable_operator("dana", &when(2)).await.unwrap() }).await;
    assert_eq!(how_many(&answers, &true), 1);
    assert!(!bench.store.enable_operator("nobody", &when(2)).await.unwrap());
    bench.recorded(known, &["operator.enabled"]).await;
    let dana = bench.store.operator("dana").await.unwrap().unwrap();
    assert_eq!((dana.disabled_at, dana.rights), (None, Rights::everywhere(Role::Approver)));
}

pub async fn an_administrator_by_groups_does_not_count_as_the_last(bench: Bench) {
    let store = &bench.store;
    bench.operator("dana", Role::Admin).await;
    for (subject, name) in [("1", "by-groups"), ("2", "as-well")] {
        let admin = Rights::everywhere(Role::Admin);
        store.recognise(&identity(subject, name), &admin, true, &when(1)).await.unwrap().unwrap();
    }
    assert!(!store.disable_operator("dana", &when(2)).await.unwrap(), "the provider may not answer tomorrow");
    assert!(!store.set_role("dana", EVERYWHERE, None, &when(2)).await.unwrap());
    assert!(store.set_role("as-well", EVERYWHERE, Some(Role::Admin), &when(3)).await.unwrap());
    assert!(store.disable_operator("dana", &when(3)).await.unwrap());
    assert!(!store.set_role("as-well", EVERYWHERE, None, &when(4)).await.unwrap(), "groups alone are not enough");
    assert!(!store.disable_operator("as-well", &when(4)).await.unwrap());
    assert!(store.disable_operator("by-groups", &when(4)).await.unwrap(), "who has it by groups can always be stopped");
}

pub async fn the_last_who_administers_everything_stays(bench: Bench) {
    let store = &bench.store;
    bench.operator("dana", Role::Admin).await;
    bench.operator("emil", Role::Approver).await;
    let known = bench.records().await.len();
    assert!(!store.disable_operator("dana", &when(1)).await.unwrap());
    assert!(!store.set_role("dana", EVERYWHERE, None, &when(1)).await.unwrap());
    assert!(!store.set_role("dana", EVERYWHERE, Some(Role::Approver), &when(1)).await.unwrap());
    bench.recorded(known, &[]).await;
    assert!(store.set_role("dana", EVERYWHERE, Some(Role::Admin), &when(1)).await.unwrap(), "what it is already");
    assert!(store.set_role("dana", "default", Some(Role::Viewer), &when(1)).await.unwrap(), "at one site");
    assert!(store.set_role("emil", "default", Some(Role::Admin), &when(1)).await.unwrap());
    assert!(!store.disable_operator("dana", &when(1)).await.unwrap(), "one site is not everything");
    assert!(store.set_role("emil", EVERYWHERE, Some(Role::Admin), &when(1)).await.unwrap());
    // Two who disable each other at once: one stays.
    let answers = bench
        .race(|store, index| async move {
            let whom = if index % 2 == 0 { "dana" } else { "emil" };
            store.disable_operator(whom, &when(2)).await.unwrap()
        })
        .await;
    assert_eq!(how_many(&answers, &true), 1);
    let left: Vec<_> = store.operators().await.unwrap().into_iter().filter(|one| one.disabled_at.is_none()).collect();
    assert_eq!(left.len(), 1);
    assert!(!store.disable_operator(&left[0].name, &when(3)).await.unwrap());
}
