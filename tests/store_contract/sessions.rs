//! Sessions, and ceremonies.

use pairgate::id::OperatorId;
use pairgate::model::operator::{Rights, Role, SESSION_ABSOLUTE, SESSION_IDLE, SignInMethod};
use pairgate::store::{MAX_CEREMONIES, NewSession, Redemption, SsoIdentity};

use super::{ALONE, Bench, at, bytes, how_many, session_of, when};

fn by(method: SignInMethod, name: &str) -> NewSession {
    NewSession { method, ..session_of(&bytes(name)) }
}

pub async fn a_session_is_opened_for_whoever_may_and_listed(bench: Bench) {
    let store = &bench.store;
    let dana = bench.operator("dana", Role::Approver).await;
    let emil = bench.operator("emil", Role::Approver).await;
    let known = bench.records().await.len();
    let open = async |who, method, name, seconds| {
        let session = NewSession { fresh_at: at(seconds - 7), ..by(method, name) };
        store.open_session(who, &session, &when(seconds)).await.unwrap().map(|operator| operator.name)
    };
    assert_eq!(open(dana, SignInMethod::Sso, "a", 10).await, Some("dana".into()));
    assert_eq!(open(dana, SignInMethod::Passkey, "b", 20).await, Some("dana".into()));
    assert_eq!(open(emil, SignInMethod::Link, "c", 20).await, Some("emil".into()));
    assert_eq!(open(OperatorId(999), SignInMethod::Sso, "d", 20).await, None, "unknown");
    let known = bench.recorded(known, &["operator.signed_in"; 3]).await;
    assert_eq!(store.session(&bytes("a"), at(30)).await.unwrap().unwrap().fresh_at, at(3), "as it was proved");
    let listed = store.sessions_of(dana, at(30)).await.unwrap();
    let rows: Vec<_> = listed.iter().map(|session| (session.hash, session.method, session.started_at)).collect();
    assert_eq!(
        rows,
        [(bytes("b"), SignInMethod::Passkey, at(20)), (bytes("a"), SignInMethod::Sso, at(10))],
        "the last used first, and only this person's"
    );
    assert_eq!((listed[0].peer.as_deref(), listed[0].agent.as_str()), (Some("127.0.0.1"), "a browser"));
    assert_eq!(store.sessions_of(dana, at(10 + SESSION_IDLE.as_secs())).await.unwrap().len(), 1, "idle ones are over");
    assert_eq!(store.sessions_of(dana, at(SESSION_ABSOLUTE.as_secs())).await.unwrap(), []);

    assert!(store.disable_operator("dana", &when(40)).await.unwrap());
    assert_eq!(store.sessions_of(dana, at(41)).await.unwrap(), []);
    assert_eq!(open(dana, SignInMethod::Passkey, "e", 41).await, None, "disabled");
    bench.recorded(known, &["operator.disabled"]).await;
}

pub async fn a_session_takes_the_place_of_the_one_that_the_browser_had(bench: Bench) {
    let store = &bench.store;
    let dana = bench.operator("dana", Role::Approver).await;
    let emil = bench.operator("emil", Role::Approver).await;
    let open = async |who, name: &str, replaces: &str| {
        let session =
            NewSession { replaces: Some(bytes(replaces)), fresh_at: at(100), ..by(SignInMethod::Passkey, name) };
        store.open_session(who, &session, &when(100)).await.unwrap().unwrap();
    };
    store.open_session(dana, &session_of(&bytes("old")), &when(0)).await.unwrap().unwrap();
    open(emil, "emil's", "old").await;
    assert!(store.session(&bytes("old"), at(101)).await.unwrap().is_some(), "another person ends nothing of hers");
    let known = bench.records().await.len();
    open(dana, "new", "old").await;
    bench.recorded(known, &["operator.signed_in"]).await;
    assert!(store.session(&bytes("old"), at(101)).await.unwrap().is_none());
    assert_eq!(store.session(&bytes("new"), at(101)).await.unwrap().unwrap().fresh_at, at(100));
    assert_eq!(store.sessions_of(dana, at(101)).await.unwrap().len(), 1);
}

pub async fn signing_out_everywhere_ends_all_sessions_and_voids_approvals_a_047(bench: Bench) {
    let store = &bench.store;
    let dana = bench.operator("dana", Role::Approver).await;
    let emil = bench.operator("emil", Role::Approver).await;
    for (who, name) in [(dana, "a"), (dana, "b"), (emil, "c")] {
        store.open_session(who, &session_of(&bytes(name)), &when(0)).await.unwrap().unwrap();
    }
    let (first, second) = (bench.active("tv-01").await, bench.active("tv-02").await);
    let before = bench.approved(&first, "before", dana).await;
    let others = bench.approved(&second, "others", emil).await;
    for name in ["dana", "emil"] {
        assert!(store.add_link(name, &bytes(&format!("link of {name}")), at(600), &when(5)).await.unwrap());
    }
    let known = bench.records().await.len();
    assert_eq!(store.sign_out_everywhere(dana, &when(6)).await.unwrap(), 2);
    assert_eq!(store.sign_out_everywhere(OperatorId(999), &when(6)).await.unwrap(), 0);
    let known = bench.recorded(known, &["operator.signed_out_everywhere"]).await;
    assert_eq!(store.sessions_of(dana, at(6)).await.unwrap(), []);
    assert_eq!(store.sessions_of(emil, at(6)).await.unwrap().len(), 1, "nobody else's");
    assert!(store.link(&bytes("link of dana"), at(6)).await.unwrap().is_none(), "nobody comes back by a link");
    assert!(store.link(&bytes("link of emil"), at(6)).await.unwrap().is_some());

    let redeem = async |device: &pairgate::model::device::Device, grant| {
        store.redeem_grant(grant, &device.key.as_ref().unwrap().jkt, None, ALONE, &when(7)).await.unwrap()
    };
    assert_eq!(redeem(&first, before).await, Redemption::ApproverLost);
    assert_eq!(redeem(&first, before).await, Redemption::Lost, "denied for good");
    assert_eq!(redeem(&second, others).await, Redemption::Redeemed);
    bench.recorded(known, &["token.refused", "token.issued"]).await;
}

pub async fn what_a_disabled_person_approved_stays_void_when_it_is_enabled_a_047(bench: Bench) {
    let store = &bench.store;
    let dana = bench.operator("dana", Role::Approver).await;
    let device = bench.active("tv-01").await;
    let grant = bench.approved(&device, "before", dana).await;
    assert!(store.disable_operator("dana", &when(6)).await.unwrap());
    assert!(store.enable_operator("dana", &when(7)).await.unwrap());
    let jkt = device.key.as_ref().unwrap().jkt;
    assert_eq!(store.redeem_grant(grant, &jkt, None, ALONE, &when(8)).await.unwrap(), Redemption::ApproverLost);
}

pub async fn roles_by_groups_count_in_sessions_of_the_organisations_sign_in_a_047(bench: Bench) {
    let store = &bench.store;
    let identity = SsoIdentity { issuer: "https://id.example.org".into(), subject: "1".into(), name: "dana".into() };
    let by_groups = Rights::everywhere(Role::Admin);
    let dana = store.recognise(&identity, &by_groups, true, &when(0)).await.unwrap().unwrap();
    assert!(store.set_role("dana", "default", Some(Role::Viewer), &when(0)).await.unwrap());
    let given = Rights::at("default", Role::Viewer);
    let mut all = by_groups;
    all.add("default", Role::Viewer);
    for (method, expected) in [(SignInMethod::Sso, &all), (SignInMethod::Passkey, &given), (SignInMethod::Link, &given)]
    {
        let session = by(method, method.as_str());
        store.open_session(dana.id, &session, &when(1)).await.unwrap().unwrap();
        let live = store.session(&session.hash, at(2)).await.unwrap().unwrap();
        assert_eq!(&live.operator.rights, expected, "{method:?}");
    }
}

pub async fn a_ceremony_is_taken_once_by_its_browser_for_its_purpose_in_time(bench: Bench) {
    let store = &bench.store;
    let start = async |name: &str| store.start_ceremony(&bytes(name), "add", name, at(300), at(0)).await.unwrap();
    let take = async |name: &str, purpose: &str, seconds| {
        store.take_ceremony(&bytes(name), purpose, at(seconds)).await.unwrap()
    };
    start("a").await;
    assert_eq!(take("x", "add", 1).await, None, "another browser");
    assert_eq!(take("a", "add", 1).await, Some("a".into()));
    assert_eq!(take("a", "add", 1).await, None, "once");
    start("b").await;
    assert_eq!(take("b", "sign in", 1).await, None, "for something else");
    assert_eq!(take("b", "add", 1).await, None, "and spent by that");
    start("c").await;
    assert_eq!(take("c", "add", 300).await, None, "too late");
    bench.recorded(0, &[]).await;
}

pub async fn of_many_who_take_a_ceremony_at_once_one_did(bench: Bench) {
    bench.store.start_ceremony(&bytes("a"), "add", "state", at(300), at(0)).await.unwrap();
    let answers = bench
        .race(|store, _| async move { store.take_ceremony(&bytes("a"), "add", at(1)).await.unwrap().is_some() })
        .await;
    assert_eq!(how_many(&answers, &true), 1);
}

pub async fn ceremonies_are_bounded_a_091(bench: Bench) {
    let store = &bench.store;
    let start = |index: u32| {
        let store = std::sync::Arc::clone(store);
        async move {
            let expires_at = at(300).plus(std::time::Duration::from_millis(index.into()));
            store.start_ceremony(&bytes(&index.to_string()), "add", "state", expires_at, at(0)).await.unwrap();
        }
    };
    // Many at once, so that they share transactions.
    for first in (0..MAX_CEREMONIES).step_by(256) {
        (first..first + 256).map(start).collect::<tokio::task::JoinSet<()>>().join_all().await;
    }
    // What has another purpose expires first of all, and stays.
    let other = bytes("another purpose");
    store.start_ceremony(&other, "sign_in", "state", at(200), at(0)).await.unwrap();
    start(MAX_CEREMONIES).await;
    assert!(store.take_ceremony(&other, "sign_in", at(1)).await.unwrap().is_some());
    let take =
        async |index: u32| store.take_ceremony(&bytes(&index.to_string()), "add", at(1)).await.unwrap().is_some();
    assert!(!take(0).await, "the oldest made room");
    assert!(take(1).await);
    assert!(take(MAX_CEREMONIES).await);
}
