//! Keys that people sign commands with, and the commands.

use pairgate::id::OperatorId;
use pairgate::model::audit::{Actor, Context};
use pairgate::model::operator::{Rights, Role, SESSION_ABSOLUTE};
use pairgate::store::{MAX_OPERATOR_KEYS, NewOperatorKey, SsoIdentity};

use super::{Bench, at, bytes, how_many, session_of, when};

fn new(operator: OperatorId, key: &str) -> NewOperatorKey {
    NewOperatorKey { jkt: bytes(key), operator, name: format!("the {key} one"), jwk: "{}".into(), session: None }
}

pub async fn a_key_is_one_persons_for_ever_and_found_while_that_person_may(bench: Bench) {
    let store = &bench.store;
    let (dana, emil) = (bench.operator("dana", Role::Approver).await, bench.operator("emil", Role::Viewer).await);
    let known = bench.records().await.len();
    let by_dana = Context { actor: Actor::Operator("dana".into()), ..when(1) };
    assert!(store.add_operator_key(&new(dana, "blue"), &by_dana).await.unwrap());
    assert!(store.add_operator_key(&new(dana, "red"), &when(2)).await.unwrap());
    for owner in [dana, emil, OperatorId(999)] {
        assert!(!store.add_operator_key(&new(owner, "blue"), &when(3)).await.unwrap(), "taken");
    }
    assert!(!store.add_operator_key(&new(OperatorId(999), "green"), &when(3)).await.unwrap(), "of nobody");
    let known = bench.recorded(known, &["operator.key_added"; 2]).await;
    let detail = bench.records().await[known - 1].detail.clone();
    assert!(detail.starts_with("dana: 'the red one', key "), "{detail}");
    let listed = store.operator_keys(dana).await.unwrap();
    let rows: Vec<_> =
        listed.iter().map(|key| (key.name.as_str(), key.added_at, key.added_by.as_str(), key.used_at)).collect();
    let expected = [("the blue one", at(1), "operator:dana", None), ("the red one", at(2), "command-line", None)];
    assert_eq!(rows, expected);
    assert_eq!(store.operator_keys(emil).await.unwrap(), []);
    let (key, owner) = store.operator_key(&bytes("blue")).await.unwrap().unwrap();
    assert_eq!((&key, owner.id, owner.name.as_str()), (&listed[0], dana, "dana"));
    assert_eq!(owner.rights, Rights::everywhere(Role::Approver));
    assert!(store.operator_key(&bytes("green")).await.unwrap().is_none());

    store.touch_operator_key(&bytes("blue"), at(9)).await.unwrap();
    store.touch_operator_key(&bytes("blue"), at(8)).await.unwrap();
    assert_eq!(store.operator_key(&bytes("blue")).await.unwrap().unwrap().0.used_at, Some(at(9)), "only forwards");

    assert!(!store.revoke_operator_key(emil, &bytes("blue"), &when(10)).await.unwrap(), "not his");
    assert!(store.revoke_operator_key(dana, &bytes("blue"), &when(10)).await.unwrap());
    assert!(!store.revoke_operator_key(dana, &bytes("blue"), &when(10)).await.unwrap());
    assert!(store.operator_key(&bytes("blue")).await.unwrap().is_none());
    assert_eq!(store.operator_keys(dana).await.unwrap().len(), 1);
    for owner in [dana, emil] {
        assert!(!store.add_operator_key(&new(owner, "blue"), &when(11)).await.unwrap(), "never again");
    }
    store.disable_operator("dana", &when(12)).await.unwrap();
    assert!(store.operator_key(&bytes("red")).await.unwrap().is_none(), "its owner may nothing any more");
    assert!(!store.add_operator_key(&new(dana, "green"), &when(12)).await.unwrap());
    bench.recorded(known, &["operator.key_revoked", "operator.disabled"]).await;
}

pub async fn a_session_that_has_ended_leaves_no_key_behind_a_047(bench: Bench) {
    let store = &bench.store;
    let (dana, emil) = (bench.operator("dana", Role::Viewer).await, bench.operator("emil", Role::Viewer).await);
    for (owner, session) in [(dana, "dana's"), (emil, "emil's")] {
        store.open_session(owner, &session_of(&bytes(session)), &when(0)).await.unwrap().unwrap();
    }
    let by = |session: &str| NewOperatorKey { session: Some(bytes(session)), ..new(dana, "blue") };
    let too_late = SESSION_ABSOLUTE.as_secs();
    assert!(!store.add_operator_key(&by("emil's"), &when(1)).await.unwrap(), "another person's session");
    assert!(!store.add_operator_key(&by("nobody's"), &when(1)).await.unwrap());
    assert!(!store.add_operator_key(&by("dana's"), &when(too_late)).await.unwrap(), "of age");
    store.end_session(&bytes("emil's"), &when(2)).await.unwrap();
    let ended = NewOperatorKey { session: Some(bytes("emil's")), ..new(emil, "red") };
    assert!(!store.add_operator_key(&ended, &when(3)).await.unwrap(), "signed out");
    assert!(store.add_operator_key(&by("dana's"), &when(3)).await.unwrap());
}

pub async fn a_person_has_so_many_living_keys_and_no_more(bench: Bench) {
    let store = &bench.store;
    let dana = bench.operator("dana", Role::Viewer).await;
    let answers =
        bench
            .race(|store, index| async move {
                store.add_operator_key(&new(dana, &index.to_string()), &when(1)).await.unwrap()
            })
            .await;
    assert_eq!(how_many(&answers, &true), usize::try_from(MAX_OPERATOR_KEYS).unwrap());
    let one = store.operator_keys(dana).await.unwrap().remove(0);
    assert!(!store.add_operator_key(&new(dana, "one more"), &when(2)).await.unwrap());
    assert!(store.revoke_operator_key(dana, &one.jkt, &when(2)).await.unwrap());
    assert!(store.add_operator_key(&new(dana, "one more"), &when(3)).await.unwrap(), "removed ones don't count");
}

pub async fn keys_have_no_rights_of_groups_and_go_with_the_passkeys_a_047(bench: Bench) {
    let store = &bench.store;
    let identity = SsoIdentity { issuer: "https://id.example".into(), subject: "1".into(), name: "dana".into() };
    let by_groups = Rights::at("default", Role::Approver);
    let dana = store.recognise(&identity, &by_groups, true, &when(0)).await.unwrap().unwrap();
    assert_eq!(dana.rights, by_groups);
    for key in ["blue", "red"] {
        assert!(store.add_operator_key(&new(dana.id, key), &when(1)).await.unwrap());
    }
    let rights = async || store.operator_key(&bytes("blue")).await.unwrap().unwrap().1.rights;
    assert_eq!(rights().await, Rights::default(), "a key hears nothing of the groups");
    assert!(store.set_role("dana", "default", Some(Role::Technician), &when(2)).await.unwrap());
    assert_eq!(rights().await, Rights::at("default", Role::Technician));

    let known = bench.records().await.len();
    store.remove_passkeys("dana", &when(3)).await.unwrap();
    assert!(store.operator_key(&bytes("blue")).await.unwrap().is_none());
    assert_eq!(store.operator_keys(dana.id).await.unwrap(), []);
    bench.recorded(known, &["operator.key_revoked", "operator.key_revoked", "operator.signed_out_everywhere"]).await;
}

pub async fn of_many_who_use_one_command_at_once_one_did_a_021(bench: Bench) {
    let store = &bench.store;
    let answers =
        bench.race(|store, _| async move { store.use_command(&bytes("command"), at(60), at(0)).await.unwrap() }).await;
    assert_eq!(how_many(&answers, &true), 1);
    assert!(store.use_command(&bytes("another"), at(60), at(0)).await.unwrap());
    assert!(!store.use_command(&bytes("command"), at(90), at(59)).await.unwrap(), "also later, and until it ends");
    let bench = bench.restarted();
    assert!(!bench.store.use_command(&bytes("command"), at(60), at(59)).await.unwrap(), "and after a restart");
    assert!(
        bench.store.use_command(&bytes("command"), at(120), at(60)).await.unwrap(),
        "what has expired is forgotten"
    );
    assert_eq!(bench.records().await.len(), 0, "it decides nothing");
}
