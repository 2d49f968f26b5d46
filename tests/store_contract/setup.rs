//! Risk records and settings.

use pairgate::model::risk::RiskRecord;

use super::{Bench, at, how_many, when};

fn record(version: i64, text: &str) -> RiskRecord {
    let (document, signature) = (format!("{{\"residual\":\"{text}\"}}"), format!("signed {text}"));
    RiskRecord { version, at: at(1), by: "operator:dana".into(), document, signature }
}

pub async fn of_many_who_sign_a_version_at_once_one_did(bench: Bench) {
    let answers = bench
        .race(|store, index| async move {
            store.add_risk_record(&record(1, &format!("by {index}")), &when(1)).await.unwrap()
        })
        .await;
    assert_eq!(how_many(&answers, &true), 1);
    bench.recorded(0, &["risk.accepted"]).await;
    assert!(bench.store.add_risk_record(&record(2, "second"), &when(2)).await.unwrap());
    let stored = bench.store.risk_records().await.unwrap();
    assert_eq!(stored.iter().map(|record| record.version).collect::<Vec<_>>(), [2, 1], "newest first");
    assert_eq!(stored[0], record(2, "second"));
}

pub async fn a_setting_is_set_and_recorded(bench: Bench) {
    let store = &bench.store;
    assert_eq!(store.setting("setup.kinds").await.unwrap(), None);
    for value in ["a", "b"] {
        store.set_setting("setup.kinds", value, &when(1)).await.unwrap();
        assert_eq!(store.setting("setup.kinds").await.unwrap().as_deref(), Some(value));
    }
    bench.recorded(0, &["setting.changed"; 2]).await;
}
