//! Tokens of programs.

use pairgate::model::operator::{EVERYWHERE, Rights, Role};
use pairgate::store::NewApiToken;

use super::{Bench, at, bytes, how_many, when};

fn new(name: &str, secret: &str) -> NewApiToken {
    let mut rights = Rights::at("berlin", Role::Technician);
    rights.add(EVERYWHERE, Role::Viewer);
    NewApiToken { name: name.into(), hash: bytes(secret), rights, expires_at: at(600) }
}

pub async fn a_tokens_name_is_given_once_also_when_many_ask_at_once(bench: Bench) {
    let answers = bench
        .race(|store, index| async move {
            store.add_api_token(&new("inventory", &format!("secret {index}")), &when(0)).await.unwrap()
        })
        .await;
    assert_eq!(how_many(&answers, &true), 1);
    bench.recorded(0, &["api_token.made"]).await;
    let all = bench.store.api_tokens().await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(
        (all[0].name.as_str(), &all[0].rights, all[0].made_by.as_str(), all[0].made_at, all[0].expires_at),
        ("inventory", &new("", "").rights, "command-line", at(0), at(600))
    );
    assert!(bench.store.revoke_api_token("inventory", &when(1)).await.unwrap());
    assert!(!bench.store.add_api_token(&new("inventory", "other"), &when(2)).await.unwrap(), "also a revoked one's");
}

pub async fn tokens_are_found_by_their_hash_until_they_end(bench: Bench) {
    let store = &bench.store;
    assert!(store.add_api_token(&new("b", "b"), &when(0)).await.unwrap());
    assert!(store.add_api_token(&new("a", "a"), &when(0)).await.unwrap());
    let names: Vec<_> = store.api_tokens().await.unwrap().into_iter().map(|token| token.name).collect();
    assert_eq!(names, ["a", "b"]);
    let found = store.api_token(&bytes("a"), at(599)).await.unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.used_at, found.revoked_at), ("a", None, None));
    assert!(store.api_token(&bytes("a"), at(600)).await.unwrap().is_none(), "expired");
    assert!(store.api_token(&bytes("c"), at(1)).await.unwrap().is_none(), "never made");
    let known = bench.records().await.len();
    store.touch_api_token(found.id, at(50)).await.unwrap();
    store.touch_api_token(found.id, at(40)).await.unwrap();
    bench.recorded(known, &[]).await;
    assert_eq!(store.api_token(&bytes("a"), at(60)).await.unwrap().unwrap().used_at, Some(at(50)), "never back");
}

pub async fn of_many_who_revoke_a_token_at_once_one_did(bench: Bench) {
    assert!(bench.store.add_api_token(&new("inventory", "secret"), &when(0)).await.unwrap());
    let answers =
        bench.race(|store, _| async move { store.revoke_api_token("inventory", &when(1)).await.unwrap() }).await;
    assert_eq!(how_many(&answers, &true), 1);
    assert_eq!(bench.count("api_token.revoked").await, 1);
    assert!(bench.store.api_token(&bytes("secret"), at(1)).await.unwrap().is_none(), "at once");
    assert!(!bench.store.revoke_api_token("nobody's", &when(1)).await.unwrap());
}
