//! A device exchanges its key (docs/api.md section 1.4): the present key vouches for the new one, in place of a window and of a comparison.

use pairgate::broker::Caller;
use pairgate::broker::pairing::Confirm;
use pairgate::config::Config;
use pairgate::id::DeviceId;
use pairgate::model::device::{DeviceState, KeyAssurance};
use pairgate::model::kind::{KeyRotation, Kind};
use pairgate::model::operator::Role;
use pairgate::simulator::{DeviceKey, PairingStatus, SimulatedDevice, TokenAnswer, commitment, jose};
use serde_json::{Value, json};

use crate::pairing::{expected, refused, waiting};
use crate::support::probe::{error_of, jti, pairing_claims, pairing_request, tokens};
use crate::support::{Setup, TestBroker};

const LOBBY: &str = "lobby-printer-01";
const DEVICE_NONCE: [u8; 32] = [1; 32];

fn new_key() -> DeviceKey {
    DeviceKey::generate_es256().unwrap()
}

async fn automatic() -> TestBroker {
    let rotates = |kind: Kind| Kind { key_rotation: KeyRotation::Automatic, ..kind };
    TestBroker::with(Setup { kinds: Config::default().kinds.into_iter().map(rotates).collect(), ..Setup::default() })
        .await
}

/// The claims of a flawless statement by whatever key.
fn statement(device: &SimulatedDevice) -> Value {
    json!({
        "iss": device.id, "aud": device.issuer(), "iat": device.now_s(), "jti": jti(), "jkt": device.key.jkt(),
        "commitment": commitment(&DEVICE_NONCE, device.key.thumbprint()),
    })
}

/// A request of this device with a statement, by hand.
fn request(device: &SimulatedDevice, statement: &str) -> String {
    pairing_request(device, &DEVICE_NONCE, |_, claims| claims["previous"] = statement.into())
}

fn signed(former: &DeviceKey, claims: &Value) -> String {
    former.sign_raw(&former.header("key-rotation+jwt"), claims).unwrap()
}

async fn pinned(test: &TestBroker) -> String {
    jose::b64u(&test.broker.device(&Caller::command_line(), LOBBY).await.unwrap().key.unwrap().jkt)
}

#[tokio::test]
async fn the_present_key_stands_in_for_window_and_comparison_and_an_operator_decides() {
    let test = TestBroker::start().await;
    let ida = test.operator("ida", Role::Admin).await;
    let dana = test.visitor("dana", Role::Technician).await;
    let mut device = test.paired(LOBBY, "printer").await;
    test.signed_in(&ida, &mut device).await;
    let old = test.twin(LOBBY, &device.key);
    device.rotate_key(new_key());
    let mark = test.mark().await;
    let (shown, _) = waiting(&test, &mut device).await;
    let records = test.recorded(&mark).await;
    assert_eq!(records.iter().map(|record| record.event.as_str()).collect::<Vec<_>>(), ["pairing.requested"]);
    assert_eq!(records[0].detail, format!("key {}; key {} vouches for it", device.key.short(), old.key.short()));
    assert_eq!(pinned(&test).await, old.key.jkt(), "until somebody has decided");
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Pending { .. }));
    let page = dana.get(&format!("/pair/{}", shown.pairing_id)).await;
    for words in ["vouches for the new one", "Confirm the new key", &device.key.short(), &old.key.short()] {
        assert!(page.body.contains(words), "{words}");
    }
    assert!(!page.body.contains("pair_by_number"), "there is nothing to compare");
    assert!(dana.get("/pair").await.body.contains("Its present key vouches for this one."));
    let answer = dana.post(&format!("/pair/{}", shown.pairing_id), &[("action", "confirm_new_key")]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
    assert_eq!((pinned(&test).await, device.former_key.is_none()), (device.key.jkt(), true));
    let records = test.records().await;
    let confirmed = records.iter().rfind(|record| record.event == "pairing.confirmed").unwrap();
    assert_eq!(confirmed.actor, "operator:dana");
    assert!(confirmed.detail.contains(&format!("replaces key {}; 1 sign-in(s) ended", old.key.short())));
    // The old key is dead, with all that it held.
    assert_eq!(error_of(&device.refresh().await.unwrap()), "invalid_grant");
    let mut old = old;
    assert_eq!(old.request_code(None, None).await.unwrap_err().oauth_error(), Some("invalid_client"));
    test.open_window(LOBBY).await;
    assert_eq!(old.request_pairing().await.unwrap_err().oauth_error(), Some("pairing_refused"));
    tokens(&TokenAnswer::Tokens(test.signed_in(&ida, &mut device).await));
}

#[tokio::test]
async fn without_a_voucher_a_bare_ok_does_not_exist() {
    let test = TestBroker::start().await;
    let dana = test.visitor("dana", Role::Technician).await;
    let mut device = expected(&test, LOBBY).await;
    let (shown, digits) = waiting(&test, &mut device).await;
    let mark = test.mark().await;
    let answer = dana.post(&format!("/pair/{}", shown.pairing_id), &[("action", "confirm_new_key")]).await;
    assert_eq!(answer.status, 422);
    let confirm = test.broker.confirm_pairing(&Caller::command_line(), &shown.pairing_id, &Confirm::Vouched).await;
    assert!(confirm.unwrap_err().to_string().contains("no key of this device vouches"));
    test.untouched(&mark, &[], "nothing was compared").await;
    test.broker.confirm_pairing(&Caller::command_line(), &shown.pairing_id, &Confirm::Number(&digits)).await.unwrap();
    let viewer = test.visitor("vera", Role::Viewer).await;
    device.rotate_key(new_key());
    let (shown, _) = waiting(&test, &mut device).await;
    let answer = viewer.post(&format!("/pair/{}", shown.pairing_id), &[("action", "confirm_new_key")]).await;
    assert_eq!(pinned(&test).await, device.former_key.as_ref().unwrap().jkt(), "{}", answer.body);
}

#[tokio::test]
async fn a_kind_may_leave_it_to_the_device() {
    let test = automatic().await;
    let ida = test.operator("ida", Role::Admin).await;
    let mut device = test.paired(LOBBY, "printer").await;
    let code = device.request_code(None, None).await.unwrap();
    for round in 0..3 {
        device.rotate_key(new_key());
        device.request_pairing().await.unwrap();
        assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)), "round {round}");
        assert_eq!(pinned(&test).await, device.key.jkt());
    }
    let records = test.records().await;
    let confirmed: Vec<_> = records.iter().filter(|record| record.event == "pairing.confirmed").collect();
    assert_eq!(confirmed.len(), 4);
    assert!(confirmed[1..].iter().all(|record| record.actor == "broker" && record.detail.contains("replaces key")));
    device.adopt_device_code(&code.device_code);
    assert_eq!(error_of(&device.poll_token(None).await.unwrap()), "invalid_grant", "its code ended with its key");
    test.signed_in(&ida, &mut device).await;
    // A first pairing is never automatic.
    let mut other = expected(&test, "attic-printer-02").await;
    waiting(&test, &mut other).await;
}

/// Whoever may use a key in hardware for a moment must not be able to exchange it for one that he can carry away.
#[tokio::test]
async fn a_key_that_is_kept_worse_needs_a_person_also_where_rotation_is_automatic() {
    let test = automatic().await;
    let mut device = expected(&test, LOBBY).await;
    device.key_storage = "hardware".into();
    test.pair(&mut device).await;
    device.key_storage.clear();
    device.rotate_key(new_key());
    let (shown, _) = waiting(&test, &mut device).await;
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Pending { .. }));
    test.broker.confirm_pairing(&Caller::command_line(), &shown.pairing_id, &Confirm::Vouched).await.unwrap();
    assert_eq!(
        test.broker.device(&Caller::command_line(), LOBBY).await.unwrap().key.unwrap().assurance,
        KeyAssurance::Software
    );
    device.key_storage = "hardware".into();
    device.rotate_key(new_key());
    device.request_pairing().await.unwrap();
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)), "better is no question");
}

#[tokio::test]
async fn rotation_does_not_lead_around_what_the_kind_asks_for_a_010() {
    let mut test = automatic().await;
    let mut device = test.paired(LOBBY, "printer").await;
    for kind in &mut test.setup.kinds {
        kind.key_assurance = KeyAssurance::HardwareClaimed;
    }
    let test = test.restart().await;
    device.rotate_key(new_key());
    let (shown, _) = waiting(&test, &mut device).await;
    let confirm = test.broker.confirm_pairing(&Caller::command_line(), &shown.pairing_id, &Confirm::Vouched).await;
    assert!(confirm.unwrap_err().to_string().contains("own word"));
    // The new key begins again, and says how it is kept.
    device.key_storage = "hardware".into();
    device.request_pairing().await.unwrap();
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
}

/// One mutation a row.
#[tokio::test]
async fn a_statement_for_anything_else_is_refused_like_everything_else() {
    let test = TestBroker::start().await;
    let mut device = test.paired(LOBBY, "printer").await;
    device.rotate_key(new_key());
    let former = device.former_key.clone().unwrap();
    type Spoil = fn(&mut Value);
    let rows: [(&str, Spoil); 12] = [
        ("another device", |claims| claims["iss"] = "attic-printer-02".into()),
        ("another broker", |claims| claims["aud"] = "https://other.example".into()),
        ("another key", |claims| claims["jkt"] = jose::b64u(&[7; 32]).into()),
        ("another request", |claims| claims["commitment"] = jose::b64u(&[7; 32]).into()),
        ("short jti", |claims| claims["jti"] = "short".into()),
        ("long jti", |claims| claims["jti"] = "x".repeat(65).into()),
        ("no iss", |claims| claims["iss"] = Value::Null),
        ("no aud", |claims| claims["aud"] = Value::Null),
        ("no iat", |claims| claims["iat"] = Value::Null),
        ("no jti", |claims| claims["jti"] = Value::Null),
        ("no jkt", |claims| claims["jkt"] = Value::Null),
        ("no commitment", |claims| claims["commitment"] = Value::Null),
    ];
    for (what, spoil) in rows {
        let mut claims = statement(&device);
        spoil(&mut claims);
        let detail = refused(&test, &device, &request(&device, &signed(&former, &claims)), what).await;
        assert!(detail.starts_with("'lobby-printer-01': a former key's statement: "), "{what}: {detail}");
    }
    let good = statement(&device);
    let header = |typ: &str| former.header(typ);
    let (body, signature) = {
        let whole = signed(&former, &good);
        let (body, signature) = whole.rsplit_once('.').unwrap();
        (body.to_owned(), signature.to_owned())
    };
    for (what, previous) in [
        ("of another use", former.sign_raw(&header("pairing-request+jwt"), &good).unwrap()),
        ("not signed", format!("{body}.{}", jose::b64u(&[0; 64]))),
        ("without signature", format!("{body}.")),
        ("cut", signature),
        ("empty", String::new()),
        ("its key named, signed by another", device.key.sign_raw(&header("key-rotation+jwt"), &good).unwrap()),
    ] {
        refused(&test, &device, &request(&device, &previous), what).await;
    }
    let itself = test.twin(LOBBY, &former);
    let vouches_for_itself = signed(&former, &statement(&itself));
    refused(&test, &itself, &request(&itself, &vouches_for_itself), "its own").await;
    pairing_claims(&device.post_jwt("/pairing", &request(&device, &signed(&former, &good))).await.unwrap());
}

#[tokio::test]
async fn a_captured_statement_is_worth_nothing() {
    let test = TestBroker::start().await;
    let mut device = test.paired(LOBBY, "printer").await;
    device.rotate_key(new_key());
    let former = device.former_key.clone().unwrap();
    let captured = signed(&former, &statement(&device));
    let first = request(&device, &captured);
    pairing_claims(&device.post_jwt("/pairing", &first).await.unwrap());
    let detail = refused(&test, &device, &first, "the same request").await;
    assert_eq!(detail, "the request was sent before");
    let detail = refused(&test, &device, &request(&device, &captured), "another request of the same key").await;
    assert_eq!(detail, "the request was sent before");
    let thief = test.stranger(LOBBY);
    let detail = refused(&test, &thief, &request(&thief, &captured), "a request of another key").await;
    assert!(detail.ends_with("its claim jkt is not the one of this request"), "{detail}");
    let copied = pairing_request(&thief, &DEVICE_NONCE, |_, claims| {
        claims["previous"] = captured.clone().into();
        claims["commitment"] = commitment(&DEVICE_NONCE, device.key.thumbprint()).into();
    });
    refused(&test, &thief, &copied, "with the commitment copied").await;
    // Not even while a window is open: a bad statement is not overlooked.
    test.open_window(LOBBY).await;
    refused(&test, &thief, &request(&thief, &captured), "in a window").await;
    let test = test.restart().await;
    refused(&test, &device, &request(&device, &captured), "after a restart").await;
}

#[tokio::test]
async fn only_the_present_key_of_an_active_device_vouches() {
    let test = automatic().await;
    const FOREIGN: &str = "the key that vouches for it is not the device's present one";
    let mut device = test.paired(LOBBY, "printer").await;
    let other = test.paired("attic-printer-02", "printer").await;
    let first = device.key.clone();
    device.rotate_key(new_key());
    device.request_pairing().await.unwrap();
    device.poll_pairing().await.unwrap();
    let stranger = test.stranger(LOBBY);
    let by = |key: &DeviceKey| request(&stranger, &signed(key, &statement(&stranger)));
    assert_eq!(refused(&test, &stranger, &by(&new_key()), "nobody's key").await, FOREIGN);
    assert_eq!(refused(&test, &stranger, &by(&other.key), "another device's key").await, FOREIGN);
    assert_eq!(refused(&test, &stranger, &by(&first), "a replaced key").await, FOREIGN);
    test.register("new-printer-03", "printer").await;
    let unpaired = test.stranger("new-printer-03");
    let own = request(&unpaired, &signed(&device.key, &statement(&unpaired)));
    assert_eq!(refused(&test, &unpaired, &own, "for a device without a key").await, FOREIGN);
    // What waited when the device was suspended is over; and nothing new begins.
    let mut waits = test.twin(LOBBY, &new_key());
    waits.former_key = Some(device.key.clone());
    waits.request_pairing().await.unwrap();
    test.suspend(LOBBY).await;
    assert_eq!(waits.poll_pairing().await.unwrap_err().oauth_error(), Some("pairing_refused"));
    for state in [DeviceState::Suspended, DeviceState::Retired] {
        if state == DeviceState::Retired {
            test.retire(LOBBY).await;
        }
        let detail = refused(&test, &stranger, &by(&device.key), state.as_str()).await;
        assert_eq!(detail, "the device is suspended or retired");
    }
    assert_eq!(pinned(&test).await, device.key.jkt());
}

/// Two rotations at once, and a person who pairs by hand meanwhile: one key is left, and what vouched for the other is not the device's any more.
#[tokio::test]
async fn of_two_new_keys_one_is_left() {
    let test = TestBroker::start().await;
    let mut device = test.paired(LOBBY, "printer").await;
    let former = device.key.clone();
    device.rotate_key(new_key());
    let (shown, _) = waiting(&test, &mut device).await;
    let mut rival = test.twin(LOBBY, &new_key());
    rival.former_key = Some(former);
    let (other, _) = waiting(&test, &mut rival).await;
    assert_eq!(test.count("pairing.conflict").await, 1, "people see that there are two");
    test.broker.confirm_pairing(&Caller::command_line(), &shown.pairing_id, &Confirm::Vouched).await.unwrap();
    let late = test.broker.confirm_pairing(&Caller::command_line(), &other.pairing_id, &Confirm::Vouched).await;
    assert!(late.is_err());
    assert_eq!(rival.poll_pairing().await.unwrap_err().oauth_error(), Some("pairing_refused"));
    assert_eq!(pinned(&test).await, device.key.jkt());
    assert!(
        test.broker
            .open_pairings(&Caller::command_line(), Some(&DeviceId::new(LOBBY).unwrap()))
            .await
            .unwrap()
            .is_empty()
    );
}
