//! Passkeys.

use pairgate::id::OperatorId;
use pairgate::model::operator::{Role, SESSION_ABSOLUTE, SignInMethod};
use pairgate::store::{MAX_PASSKEYS, NewPasskey, NewSession};

use super::{Bench, at, bytes, how_many, session_of, when};

fn new(operator: OperatorId, credential: &str) -> NewPasskey {
    let name = format!("the {credential} one");
    let session = bytes(&format!("session of {}", operator.0));
    NewPasskey { credential: credential.into(), operator, name, data: "{\"counter\":0}".into(), session }
}

/// A person with the session by which [`new`] adds passkeys.
async fn signed_in(bench: &Bench, name: &str) -> OperatorId {
    let operator = bench.operator(name, Role::Approver).await;
    let session = session_of(&new(operator, "").session);
    bench.store.open_session(operator, &session, &when(0)).await.unwrap().unwrap();
    operator
}

pub async fn a_session_that_has_ended_leaves_no_passkey_behind_a_047(bench: Bench) {
    let store = &bench.store;
    let (dana, emil) = (signed_in(&bench, "dana").await, signed_in(&bench, "emil").await);
    let by_emil = NewPasskey { session: new(emil, "").session, ..new(dana, "blue") };
    assert!(!store.add_passkey(&by_emil, &when(1)).await.unwrap(), "another person's session");
    store.end_session(&new(dana, "").session, &when(2)).await.unwrap();
    assert!(!store.add_passkey(&new(dana, "blue"), &when(3)).await.unwrap(), "signed out");
    let too_late = SESSION_ABSOLUTE.as_secs();
    assert!(!store.add_passkey(&new(emil, "red"), &when(too_late)).await.unwrap(), "of age");
    assert!(store.add_passkey(&new(emil, "red"), &when(too_late - 1)).await.unwrap());
    assert_eq!(store.passkeys_of(dana).await.unwrap(), []);
}

pub async fn a_passkey_is_one_persons_and_found_while_that_person_may(bench: Bench) {
    let store = &bench.store;
    let dana = signed_in(&bench, "dana").await;
    let emil = signed_in(&bench, "emil").await;
    let known = bench.records().await.len();
    assert!(store.add_passkey(&new(dana, "blue"), &when(1)).await.unwrap());
    assert!(store.add_passkey(&new(dana, "red"), &when(2)).await.unwrap());
    assert!(!store.add_passkey(&new(emil, "blue"), &when(3)).await.unwrap(), "taken");
    assert!(!store.add_passkey(&new(OperatorId(999), "green"), &when(3)).await.unwrap(), "of nobody");
    let known = bench.recorded(known, &["passkey.added"; 2]).await;
    let listed = store.passkeys_of(dana).await.unwrap();
    let rows: Vec<_> =
        listed.iter().map(|passkey| (passkey.name.as_str(), passkey.added_at, passkey.used_at)).collect();
    assert_eq!(rows, [("the blue one", at(1), None), ("the red one", at(2), None)]);
    assert_eq!(store.passkeys_of(emil).await.unwrap(), []);
    assert_eq!(store.passkey(b"blue").await.unwrap().as_ref(), Some(&listed[0]));
    assert_eq!(store.passkey(b"green").await.unwrap(), None);

    assert!(!store.remove_passkey(emil, b"blue", &when(4)).await.unwrap(), "not his");
    assert!(store.remove_passkey(dana, b"blue", &when(4)).await.unwrap());
    assert!(!store.remove_passkey(dana, b"blue", &when(4)).await.unwrap());
    assert_eq!(store.passkey(b"blue").await.unwrap(), None);
    store.disable_operator("dana", &when(5)).await.unwrap();
    assert_eq!(store.passkey(b"red").await.unwrap(), None, "its owner may nothing any more");
    assert!(!store.add_passkey(&new(dana, "blue"), &when(6)).await.unwrap());
    bench.recorded(known, &["passkey.removed", "operator.disabled"]).await;
}

pub async fn a_person_has_so_many_passkeys_and_no_more(bench: Bench) {
    let dana = signed_in(&bench, "dana").await;
    for index in 0..MAX_PASSKEYS {
        assert!(bench.store.add_passkey(&new(dana, &index.to_string()), &when(1)).await.unwrap());
    }
    assert!(!bench.store.add_passkey(&new(dana, "one more"), &when(1)).await.unwrap());
}

pub async fn of_many_uses_of_one_proof_at_once_one_opens_a_session(bench: Bench) {
    let store = &bench.store;
    let dana = signed_in(&bench, "dana").await;
    assert!(store.add_passkey(&new(dana, "blue"), &when(1)).await.unwrap());
    let read = store.passkey(b"blue").await.unwrap().unwrap();
    let answers = bench
        .race(|store, index| {
            let read = read.clone();
            async move {
                let hash = bytes(&format!("session {index}"));
                let session = NewSession { method: SignInMethod::Passkey, ..session_of(&hash) };
                store.use_passkey(&read, "{\"counter\":1}", &session, &when(2)).await.unwrap()
            }
        })
        .await;
    assert_eq!(how_many(&answers, &true), 1);
    assert_eq!(store.sessions_of(dana, at(3)).await.unwrap().len(), 2, "and the one that added it");
    assert_eq!(bench.count("operator.signed_in").await, 2);
    let now = store.passkey(b"blue").await.unwrap().unwrap();
    assert_eq!((now.data.as_str(), now.used_at), ("{\"counter\":1}", Some(at(2))));

    let session = session_of(&bytes("late"));
    store.remove_passkey(dana, b"blue", &when(3)).await.unwrap();
    assert!(!store.use_passkey(&now, "{}", &session, &when(3)).await.unwrap(), "removed meanwhile");
    assert!(store.add_passkey(&new(dana, "red"), &when(3)).await.unwrap());
    let red = store.passkey(b"red").await.unwrap().unwrap();
    store.disable_operator("dana", &when(4)).await.unwrap();
    assert!(!store.use_passkey(&red, "{}", &session, &when(4)).await.unwrap(), "disabled meanwhile");
    assert!(store.session(&bytes("late"), at(5)).await.unwrap().is_none());
}
