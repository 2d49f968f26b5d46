//! What the overview counts: every case for every backend.

use std::collections::BTreeSet;

use pairgate::model::audit::Event;
use pairgate::model::device::{DeviceFacts, DeviceState};
use pairgate::model::operator::{Reach, Role};
use pairgate::model::site::Site;
use pairgate::store::AuditBucket;

use super::{ALL, Bench, at, facts, id, when};

const HOUR: i64 = 3_600_000;

fn only(site: &str) -> Reach {
    Reach::Sites(BTreeSet::from([site.to_owned()]))
}

pub async fn a_series_counts_by_span_and_site(bench: Bench) {
    let store = &bench.store;
    assert!(store.add_site(&Site::plain("paris", "Paris"), &when(0)).await.unwrap());
    bench.registered("printer-1").await;
    let elsewhere = DeviceFacts { site: "paris".into(), ..facts("tv-1") };
    assert!(store.register_device(&id("tv-1"), &elsewhere, &when(0)).await.unwrap());
    let note = async |event, device: Option<&str>, seconds| {
        store.record(event, device.map(id).as_ref(), "", &when(seconds)).await.unwrap();
    };
    note(Event::TokenIssued, Some("printer-1"), 1).await;
    note(Event::TokenIssued, Some("tv-1"), 3599).await;
    note(Event::TokenRefused, Some("tv-1"), 3600).await;
    note(Event::CodeUnenrolled, None, 3601).await;
    note(Event::TokenIssued, Some("printer-1"), 3 * 3600).await;
    let bucket = |hour: u64, signed_in, refused| AuditBucket { from: at(hour * 3600), signed_in, refused };
    let all = store.audit_series(at(0), HOUR, ALL).await.unwrap();
    assert_eq!(all, [bucket(0, 2, 0), bucket(1, 0, 2), bucket(3, 1, 0)], "without the empty hour");
    let paris = store.audit_series(at(0), HOUR, &only("paris")).await.unwrap();
    assert_eq!(paris, [bucket(0, 1, 0), bucket(1, 0, 1)], "nothing of others, nothing of nobody's (A-080)");
    assert_eq!(store.audit_series(at(2 * 3600), HOUR, ALL).await.unwrap(), [bucket(3, 1, 0)]);
    assert_eq!(store.audit_series(at(0), HOUR, &only("rome")).await.unwrap(), []);
}

pub async fn devices_in_need_are_suspended_or_long_unheard_of(bench: Bench) {
    let store = &bench.store;
    let dana = bench.operator("dana", Role::Approver).await;
    bench.registered("never-paired").await;
    let seen = bench.active("seen").await;
    bench.redeemed(&seen, "code", dana).await;
    bench.active("unseen").await;
    bench.active("stopped").await;
    store.set_device_state(&id("stopped"), DeviceState::Suspended, &when(3)).await.unwrap();
    let in_need = async |seconds: u64, limit, reach: &Reach| {
        let (devices, total) = store.devices_in_need(at(seconds), limit, reach).await.unwrap();
        (devices.iter().map(|device| device.id.to_string()).collect::<Vec<_>>(), total)
    };
    assert_eq!(in_need(2, 10, ALL).await, (vec!["stopped".into()], 1));
    assert_eq!(in_need(5, 10, ALL).await, (vec!["stopped".into(), "unseen".into()], 2), "paired, then silent");
    assert_eq!(in_need(7, 1, ALL).await, (vec!["seen".into()], 3));
    assert_eq!(in_need(7, 10, &only("paris")).await, (vec![], 0));
}
