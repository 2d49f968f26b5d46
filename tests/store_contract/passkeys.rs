//! Passkeys.

use pairgate::id::OperatorId;
use pairgate::model::operator::{Role, SignInMethod};
use pairgate::store::{MAX_PASSKEYS, NewPasskey, NewSession};

use super::{Bench, at, bytes, how_many, session_of, when};

fn new(operator: OperatorId, credential: &str) -> NewPasskey {
    let name = format!("the {credential} one");
    NewPasskey { credential: credential.into(), operator, name, data: "{\"counter\":0}".into() }
}

pub async fn a_passkey_is_one_persons_and_found_while_that_person_may(bench: Bench) {
    let store = &bench.store;
    let dana = bench.operator("dana", Role::Approver).await;
    let emil = bench.operator("emil", Role::Approver).await;
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
    let dana = bench.operator("dana", Role::Approver).await;
    for index in 0..MAX_PASSKEYS {
        assert!(bench.store.add_passkey(&new(dana, &index.to_string()), &when(1)).await.unwrap());
    }
    assert!(!bench.store.add_passkey(&new(dana, "one more"), &when(1)).await.unwrap());
}

pub async fn of_many_uses_of_one_proof_at_once_one_opens_a_session(bench: Bench) {
    let store = &bench.store;
    let dana = bench.operator("dana", Role::Approver).await;
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
    assert_eq!(store.sessions_of(dana, at(3)).await.unwrap().len(), 1);
    assert_eq!(bench.count("operator.signed_in").await, 1);
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
