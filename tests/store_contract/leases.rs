//! What one node at a time does.

use super::{Bench, at, how_many};

pub async fn of_many_who_take_a_free_lease_one_has_it(bench: Bench) {
    let answers =
        bench
            .race(|store, index| async move {
                store.take_lease("mqtt", &format!("node {index}"), at(15), at(0)).await.unwrap()
            })
            .await;
    assert_eq!(how_many(&answers, &true), 1);
    bench.recorded(0, &[]).await;
}

pub async fn a_lease_is_renewed_by_its_holder_and_free_after_its_end(bench: Bench) {
    let store = &bench.store;
    assert!(store.take_lease("mqtt", "one", at(15), at(0)).await.unwrap());
    assert!(!store.take_lease("mqtt", "two", at(16), at(1)).await.unwrap(), "another's");
    assert!(store.take_lease("other", "two", at(16), at(1)).await.unwrap(), "another lease");
    assert!(store.take_lease("mqtt", "one", at(20), at(5)).await.unwrap(), "renewed");
    assert!(!store.take_lease("mqtt", "two", at(30), at(19)).await.unwrap());
    assert!(store.take_lease("mqtt", "two", at(35), at(20)).await.unwrap(), "over");
    assert!(!store.take_lease("mqtt", "one", at(36), at(21)).await.unwrap());
    store.drop_lease("mqtt", "one").await.unwrap();
    assert!(!store.take_lease("mqtt", "one", at(36), at(22)).await.unwrap(), "only its holder gives it up");
    store.drop_lease("mqtt", "two").await.unwrap();
    assert!(store.take_lease("mqtt", "one", at(36), at(22)).await.unwrap());
}
