//! Pairing (docs/api.md section 1): one key for one device, confirmed by a person, and one refusal for everything else.

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use axum::Router;
use axum::routing::post;
use pairgate::broker::Caller;
use pairgate::broker::pairing::Confirm;
use pairgate::broker::signing::KeyRotation;
use pairgate::model::device::{DeviceFacts, DeviceState};
use pairgate::model::operator::Role;
use pairgate::model::pairing as model;
use pairgate::oauth::jwk::PublicKey;
use pairgate::simulator::{
    DeviceKey, PairingShown, PairingStatus, RawAnswer, SimulatedDevice, SimulatorError, TokenAnswer, Wire, jose,
};
use pairgate::store::WindowSubject;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::TestBroker;
use crate::support::probe::{CODE, error_of, is_error, jti, pairing_claims, pairing_poll, pairing_request, tokens};

const LOBBY: &str = "lobby-printer-01";
const ATTIC: &str = "attic-printer-02";
const PAIRING: &str = "/pairing";
const POLL: &str = "/pairing/poll";
const REFUSAL: &str = "{\"error\":\"pairing_refused\",\"error_description\":\"This pairing was refused. Ask an administrator to open pairing \
                       for this device, then start again.\"}";

/// A registered device with an open window.
pub async fn expected(test: &TestBroker, id: &str) -> SimulatedDevice {
    test.register(id, "printer").await;
    test.open_window(id).await;
    test.stranger(id)
}

/// A device that waits for a person: its pairing, and the digits on its screen.
pub async fn waiting(test: &TestBroker, device: &mut SimulatedDevice) -> (PairingShown, String) {
    let shown = device.request_pairing().await.unwrap();
    match device.poll_pairing().await.unwrap() {
        PairingStatus::Pending { digits, .. } => (shown, digits),
        PairingStatus::Paired(_) => panic!("paired without a person: {:?}", test.issuer),
    }
}

async fn confirm(test: &TestBroker, shown: &PairingShown, how: Confirm<'_>) -> Result<(), String> {
    let confirmed = test.broker.confirm_pairing(&Caller::command_line(), &shown.pairing_id, &how).await;
    confirmed.map(drop).map_err(|error| error.to_string())
}

/// The one refusal, nothing stored, and one alert; what that says, without the key.
async fn is_refused(test: &TestBroker, answer: &RawAnswer, mark: &crate::support::probe::Mark, what: &str) -> String {
    is_error(answer, 403, "pairing_refused", what);
    assert_eq!(answer.body, REFUSAL, "{what}: byte for byte the same");
    assert_eq!(answer.headers.len(), 4, "{what}: nor do headers tell: {:?}", answer.headers);
    let records = test.untouched(mark, &["pairing.refused"], what).await;
    assert_eq!((records[0].severity.as_str(), records[0].peer.as_deref()), ("alert", Some("127.0.0.1")));
    records[0].detail.split("; key").next().unwrap().to_owned()
}

/// Sends this request, which must be refused.
pub async fn refused(test: &TestBroker, device: &SimulatedDevice, jwt: &str, what: &str) -> String {
    let mark = test.mark().await;
    let answer = device.post_jwt(PAIRING, jwt).await.unwrap();
    is_refused(test, &answer, &mark, what).await
}

/// Sends this poll, which must be refused.
async fn refused_poll(test: &TestBroker, device: &SimulatedDevice, jwt: &str, what: &str) -> String {
    let mark = test.mark().await;
    let answer = device.post_jwt(POLL, jwt).await.unwrap();
    is_refused(test, &answer, &mark, what).await
}

fn honest(device: &SimulatedDevice) -> String {
    pairing_request(device, &[1; 32], |_, _| {})
}

#[tokio::test]
async fn every_reason_to_refuse_gives_one_answer_and_stands_in_the_audit_log_a_007_a_008_a_060() {
    let test = TestBroker::start().await;
    let mut details = Vec::new();
    let nobody = test.stranger("nobody");
    details.push(refused(&test, &nobody, &honest(&nobody), "unknown id").await);
    test.register(LOBBY, "printer").await;
    let early = test.stranger(LOBBY);
    details.push(refused(&test, &early, &honest(&early), "closed window").await);
    test.open_window(LOBBY).await;
    let facts = DeviceFacts { kind: "printer".into(), serial: "SN-1".into(), ..DeviceFacts::default() };
    test.broker.register_device(&Caller::command_line(), "serial-printer", facts).await.unwrap();
    test.open_window("serial-printer").await;
    let mut wrong = test.stranger("serial-printer");
    wrong.serial = "SN-2".into();
    details.push(refused(&test, &wrong, &honest(&wrong), "wrong serial").await);
    let retired = test.paired("retired-printer", "printer").await;
    test.retire("retired-printer").await;
    details.push(refused(&test, &retired, &honest(&retired), "retired key").await);
    let other = test.twin(LOBBY, &retired.key);
    details.push(refused(&test, &other, &honest(&other), "a key of another device, retired at that").await);
    let replaced = test.paired("renewed-printer", "printer").await;
    let mut renewed = test.stranger("renewed-printer");
    test.pair(&mut renewed).await;
    test.open_window("renewed-printer").await;
    details.push(refused(&test, &replaced, &honest(&replaced), "replaced key").await);
    let jwt = honest(&early);
    pairing_claims(&early.post_jwt(PAIRING, &jwt).await.unwrap());
    details.push(refused(&test, &early, &jwt, "replayed request").await);
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    let forged =
        if jose::from_b64u(forged.rsplit_once('.').unwrap().1).is_some() { forged } else { format!("{signed}.AAAA") };
    details.push(refused(&test, &early, &forged, "bad signature").await);
    let foreign = pairing_request(&early, &[1; 32], |_, claims| claims["aud"] = "https://other.example".into());
    details.push(refused(&test, &early, &foreign, "foreign aud").await);
    for _ in 0..2 {
        let rival = test.stranger(LOBBY);
        pairing_claims(&rival.post_jwt(PAIRING, &honest(&rival)).await.unwrap());
    }
    let fourth = test.stranger(LOBBY);
    details.push(refused(&test, &fourth, &honest(&fourth), "a fourth key at once").await);
    let different: BTreeSet<_> = details.iter().collect();
    assert_eq!(different.len(), 10, "each reason has its words: {details:#?}");
    assert_eq!(test.broker.open_pairings(&Caller::command_line(), None).await.unwrap().len(), 3);
}

#[tokio::test]
async fn claims_of_the_wrong_value_are_refused_like_everything_else() {
    let test = TestBroker::start().await;
    let device = expected(&test, LOBBY).await;
    type Spoil = fn(&mut Value);
    let rows: [(&str, Spoil); 12] = [
        ("issuer of another shape", |claims| claims["iss"] = "../x".into()),
        ("issuer in upper case", |claims| claims["iss"] = "LOBBY-PRINTER-01".into()),
        ("aud with a slash", |claims| claims["aud"] = format!("{}/", claims["aud"].as_str().unwrap()).into()),
        ("short jti", |claims| claims["jti"] = "short".into()),
        ("long jti", |claims| claims["jti"] = "x".repeat(65).into()),
        ("short commitment", |claims| claims["commitment"] = "AAAA".into()),
        ("padded commitment", |claims| {
            claims["commitment"] = format!("{}=", claims["commitment"].as_str().unwrap()).into()
        }),
        ("escape in the serial", |claims| claims["serial"] = "\u{1b}[31m".into()),
        ("bidi in the model", |claims| claims["model"] = "a\u{202E}b".into()),
        ("long firmware", |claims| claims["firmware"] = "x".repeat(65).into()),
        ("line end in the firmware", |claims| claims["firmware"] = "1\r\n2".into()),
        ("two lines as issuer", |claims| claims["iss"] = "lobby\r\nprinter".into()),
    ];
    for (what, spoil) in rows {
        let jwt = pairing_request(&device, &[1; 32], |_, claims| spoil(claims));
        let detail = refused(&test, &device, &jwt, what).await;
        assert!(!detail.chars().any(char::is_control), "{detail:?}");
    }
    pairing_claims(&device.post_jwt(PAIRING, &honest(&device)).await.unwrap());
}

#[tokio::test]
async fn bodies_that_are_no_message_of_this_use_are_malformed_and_store_nothing() {
    let test = TestBroker::start().await;
    let device = expected(&test, LOBBY).await;
    type Spoil = fn(&mut Value, &mut Value);
    let spoils: [Spoil; 12] = [
        |header, _| header["typ"] = "dpop+jwt".into(),
        |header, _| header["typ"] = "pairing-poll+jwt".into(),
        |header, _| header["typ"] = Value::Null,
        |header, _| header["alg"] = "none".into(),
        |header, _| header["alg"] = "HS256".into(),
        |header, _| header["jwk"] = Value::Null,
        |header, _| header["jwk"]["d"] = "AAAA".into(),
        |header, _| header["crit"] = json!(["x"]),
        |_, claims| claims["iat"] = Value::Null,
        |_, claims| claims["aud"] = json!([claims["aud"], "https://other.example"]),
        |_, claims| claims["commitment"] = Value::Null,
        |_, claims| claims["padding"] = "x".repeat(4096).into(),
    ];
    let mut bodies: Vec<String> = spoils.iter().map(|spoil| pairing_request(&device, &[1; 32], spoil)).collect();
    bodies.extend([String::new(), "x".into(), "a.b.c".into(), "{}".into(), "x".repeat(20_000)]);
    for body in &bodies {
        for path in [PAIRING, POLL] {
            let mark = test.mark().await;
            let answer = device.post_jwt(path, body).await.unwrap();
            let what = format!("{path} {}", body.chars().take(80).collect::<String>());
            is_error(&answer, 400, "invalid_request", &what);
            test.untouched(&mark, &[], &what).await;
        }
    }
}

#[tokio::test]
async fn a_nonce_that_was_not_committed_to_is_refused_and_the_first_reveal_stands() {
    let test = TestBroker::start().await;
    let device = expected(&test, LOBBY).await;
    let nonce = [1; 32];
    let claims = pairing_claims(&device.post_jwt(PAIRING, &honest(&device)).await.unwrap());
    let id = claims["pairing_id"].as_str().unwrap();
    let other = pairing_poll(&device, id, &[2; 32], |_| {});
    let detail = refused_poll(&test, &device, &other, "before the reveal").await;
    assert_eq!(detail, "a nonce that was not committed to");
    pairing_claims(&device.post_jwt(POLL, &pairing_poll(&device, id, &nonce, |_| {})).await.unwrap());
    let other = pairing_poll(&device, id, &[2; 32], |_| {});
    refused_poll(&test, &device, &other, "after the reveal").await;
    for broken in ["", "AAAA", "***"] {
        let jwt = pairing_poll(&device, id, &nonce, |claims| claims["device_nonce"] = broken.into());
        refused_poll(&test, &device, &jwt, broken).await;
    }
    let again = pairing_claims(&device.post_jwt(POLL, &pairing_poll(&device, id, &nonce, |_| {})).await.unwrap());
    assert_eq!(again["status"], "pending");
}

#[tokio::test]
async fn polls_of_others_are_refused_and_tell_nothing() {
    let test = TestBroker::start().await;
    let device = expected(&test, LOBBY).await;
    let nonce = [1; 32];
    let claims = pairing_claims(&device.post_jwt(PAIRING, &honest(&device)).await.unwrap());
    let id = claims["pairing_id"].as_str().unwrap();
    let thief = test.stranger(LOBBY);
    let mark = test.mark().await;
    let answer = thief.post_jwt(POLL, &pairing_poll(&thief, id, &nonce, |_| {})).await.unwrap();
    let detail = is_refused(&test, &answer, &mark, "foreign key").await;
    assert!(detail.contains(&format!("foreign key {}", thief.key.short())), "{detail}");
    assert_eq!(test.records().await.last().unwrap().device.as_deref(), Some(LOBBY));
    type Spoil = fn(&mut Value);
    let rows: [(&str, Spoil); 6] = [
        ("other id", |claims| claims["iss"] = ATTIC.into()),
        ("other aud", |claims| claims["aud"] = "https://other.example".into()),
        ("short jti", |claims| claims["jti"] = "x".into()),
        ("unknown pairing", |claims| claims["pairing_id"] = jose::b64u(&[0; 16]).into()),
        ("no pairing id", |claims| claims["pairing_id"] = "' OR 1=1".into()),
        ("empty pairing id", |claims| claims["pairing_id"] = "".into()),
    ];
    for (what, spoil) in rows {
        refused_poll(&test, &device, &pairing_poll(&device, id, &nonce, spoil), what).await;
    }
    let good = pairing_poll(&device, id, &nonce, |_| {});
    let (signed, _) = good.rsplit_once('.').unwrap();
    let unsigned = format!("{signed}.{}", jose::b64u(&[0; 64]));
    refused_poll(&test, &device, &unsigned, "bad signature").await;
    pairing_claims(&device.post_jwt(POLL, &good).await.unwrap());
}

#[tokio::test]
async fn nothing_is_confirmed_before_the_device_has_revealed_its_nonce() {
    let test = TestBroker::start().await;
    let mut device = expected(&test, LOBBY).await;
    let shown = device.request_pairing().await.unwrap();
    let mark = test.mark().await;
    let jkt = device.key.jkt();
    for how in [Confirm::Qr(&jkt), Confirm::Number("000000"), Confirm::Number("")] {
        let error = confirm(&test, &shown, how).await.unwrap_err();
        assert!(error.contains("has not answered yet"), "{error}");
    }
    test.untouched(&mark, &[], "too early").await;
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Pending { .. }));
}

#[tokio::test]
async fn three_wrong_tries_end_the_pairing_even_for_the_right_digits() {
    let test = TestBroker::start().await;
    let mut device = expected(&test, LOBBY).await;
    let (shown, digits) = waiting(&test, &mut device).await;
    let number: u32 = digits.parse().unwrap();
    let wrong = format!("{:06}", (number + 1) % 1_000_000);
    for (typed, left) in [(wrong.as_str(), "Tries left: 2"), ("", "Tries left: 1"), (&digits[..5], "has ended")] {
        let mark = test.mark().await;
        let error = confirm(&test, &shown, Confirm::Number(typed)).await.unwrap_err();
        assert!(error.contains(left), "{error}");
        let records = test.recorded(&mark).await;
        assert_eq!(records.iter().map(|record| record.event.as_str()).collect::<Vec<_>>(), ["pairing.wrong_digits"]);
        assert_eq!(records[0].device.as_deref(), Some(LOBBY));
    }
    let mark = test.mark().await;
    assert!(confirm(&test, &shown, Confirm::Number(&digits)).await.is_err());
    assert!(confirm(&test, &shown, Confirm::Qr(&device.key.jkt())).await.is_err());
    test.untouched(&mark, &[], "it is over").await;
    let mark = test.mark().await;
    assert_eq!(device.poll_pairing().await.unwrap_err().oauth_error(), Some("pairing_refused"));
    test.untouched(&mark, &["pairing.refused"], "and the device is told").await;
    assert_eq!(test.broker.device(&Caller::command_line(), LOBBY).await.unwrap().state, DeviceState::Registered);
    // Two slips, then right; spaces between the digits don't matter.
    let (shown, digits) = waiting(&test, &mut device).await;
    for _ in 0..2 {
        confirm(&test, &shown, Confirm::Number("x")).await.unwrap_err();
    }
    confirm(&test, &shown, Confirm::Number(&format!(" {} {}", &digits[..3], &digits[3..]))).await.unwrap();
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tries_at_one_instant_are_not_more_tries() {
    let test = TestBroker::start().await;
    let mut device = expected(&test, LOBBY).await;
    let (shown, digits) = waiting(&test, &mut device).await;
    let number: u32 = digits.parse().unwrap();
    let mut tries = tokio::task::JoinSet::new();
    for offset in 1..=50_u32 {
        let (broker, id) = (Arc::clone(&test.broker), shown.pairing_id.clone());
        let typed = format!("{:06}", (number + offset) % 1_000_000);
        tries.spawn(async move {
            broker.confirm_pairing(&Caller::command_line(), &id, &Confirm::Number(&typed)).await.is_ok()
        });
    }
    assert!(tries.join_all().await.iter().all(|is_confirmed| !is_confirmed));
    assert_eq!(test.count("pairing.wrong_digits").await, 3, "the others came too late");
    assert!(confirm(&test, &shown, Confirm::Number(&digits)).await.is_err());
}

#[tokio::test]
async fn a_scanned_code_with_another_key_is_refused_with_an_alarm_and_the_right_one_pairs_a_060() {
    let test = TestBroker::start().await;
    let mut device = expected(&test, LOBBY).await;
    let (shown, _) = waiting(&test, &mut device).await;
    let jkt = device.key.jkt();
    assert_eq!(shown.uri_complete, format!("{}/pair/{}?key={jkt}", test.issuer, shown.pairing_id), "the whole key");
    let sticker = DeviceKey::generate_es256().unwrap().jkt();
    for scanned in [sticker.as_str(), "", &jkt[..42], &format!("{jkt}="), &jkt.to_uppercase(), "../x"] {
        let mark = test.mark().await;
        let error = confirm(&test, &shown, Confirm::Qr(scanned)).await.unwrap_err();
        assert!(error.contains("another key"), "{error}");
        let records = test.untouched(&mark, &["pairing.conflict"], scanned).await;
        assert_eq!((records[0].severity.as_str(), records[0].device.as_deref()), ("alert", Some(LOBBY)));
        assert!(records[0].detail.contains(&device.key.short()), "{}", records[0].detail);
    }
    confirm(&test, &shown, Confirm::Qr(&jkt)).await.unwrap();
    assert_eq!(test.count("pairing.confirmed").await, 1);
    let mark = test.mark().await;
    assert!(confirm(&test, &shown, Confirm::Qr(&jkt)).await.is_err(), "a photographed code is used up");
    test.untouched(&mark, &[], "used up").await;
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
}

#[tokio::test]
async fn a_pairing_ends_after_ten_minutes_and_a_window_after_a_quarter_of_an_hour() {
    let test = TestBroker::start().await;
    let mut device = expected(&test, LOBBY).await;
    let (shown, digits) = waiting(&test, &mut device).await;
    assert_eq!((shown.expires_in, shown.interval), (600, 2));
    test.advance(599);
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Pending { expires_in: 1, .. }));
    test.advance(2);
    let mark = test.mark().await;
    assert_eq!(device.poll_pairing().await.unwrap_err().oauth_error(), Some("pairing_refused"));
    let records = test.untouched(&mark, &["pairing.refused"], "too late").await;
    assert_eq!(
        (records[0].device.as_deref(), records[0].detail.starts_with("the pairing is over")),
        (Some(LOBBY), true)
    );
    let mark = test.mark().await;
    assert!(confirm(&test, &shown, Confirm::Number(&digits)).await.is_err());
    test.untouched(&mark, &[], "too late for the operator").await;
    test.advance(298);
    pairing_claims(&device.post_jwt(PAIRING, &honest(&device)).await.unwrap());
    test.advance(1);
    let detail = refused(&test, &device, &honest(&device), "after 15 minutes").await;
    assert_eq!(detail, "pairing is not open for it");
    let subject = WindowSubject::Device(pairgate::id::DeviceId::new(LOBBY).unwrap());
    assert_eq!(test.broker.window(&subject).await.unwrap(), None);
    for seconds in [0, 59, 24 * 3600 + 1] {
        let lifetime = Some(std::time::Duration::from_secs(seconds));
        assert!(test.broker.open_window(&Caller::command_line(), &subject, lifetime).await.is_err(), "{seconds}");
    }
}

#[tokio::test]
async fn a_window_that_is_closed_or_used_lets_nobody_in() {
    let test = TestBroker::start().await;
    let mut device = expected(&test, LOBBY).await;
    let subject = WindowSubject::Device(pairgate::id::DeviceId::new(LOBBY).unwrap());
    test.broker.close_window(&Caller::command_line(), &subject).await.unwrap();
    refused(&test, &device, &honest(&device), "closed by hand").await;
    test.pair(&mut device).await;
    let rival = test.stranger(LOBBY);
    assert_eq!(refused(&test, &rival, &honest(&rival), "used").await, "pairing is not open for it");
    refused(&test, &device, &honest(&device), "used, also for its own key").await;
    // The site's window is for registered devices of that site only.
    test.open_site_window().await;
    let unregistered = test.stranger(ATTIC);
    refused(&test, &unregistered, &honest(&unregistered), "not registered").await;
}

#[tokio::test]
async fn a_new_key_ends_the_old_one_and_all_that_it_held_for_ever() {
    let test = TestBroker::start().await;
    let ida = test.operator("ida", Role::Admin).await;
    let mut old = test.paired(LOBBY, "printer").await;
    test.signed_in(&ida, &mut old).await;
    let code = old.request_code(None, None).await.unwrap();
    let mut new = test.stranger(LOBBY);
    let mark = test.mark().await;
    test.pair(&mut new).await;
    let records = test.recorded(&mark).await;
    let confirmed = records.iter().find(|record| record.event == "pairing.confirmed").unwrap();
    assert!(
        confirmed.detail.contains(&format!("replaces key {}; 2 sign-in(s) ended", old.key.short())),
        "{}",
        confirmed.detail
    );
    let mark = test.mark().await;
    assert_eq!(error_of(&old.refresh().await.unwrap()), "invalid_client");
    is_error(&test.poll(&old, &code.device_code).await, 401, "invalid_client", "its code");
    is_error(&test.ask(&old, CODE, &[("client_id", LOBBY)]).await, 401, "invalid_client", "a new code");
    test.untouched(&mark, &["key.mismatch", "key.mismatch", "key.mismatch"], "the old key").await;
    is_error(&test.poll(&new, &code.device_code).await, 400, "invalid_grant", "nor does the new key inherit the code");
    test.open_window(LOBBY).await;
    assert_eq!(refused(&test, &old, &honest(&old), "again").await, "the key was retired or replaced");
    test.register(ATTIC, "printer").await;
    test.open_window(ATTIC).await;
    let elsewhere = test.twin(ATTIC, &old.key);
    assert_eq!(refused(&test, &elsewhere, &honest(&elsewhere), "elsewhere").await, "the key belongs to another device");
    test.retire(LOBBY).await;
    for key in [&old.key, &new.key] {
        let sold = test.twin(ATTIC, key);
        refused(&test, &sold, &honest(&sold), "after retirement").await;
    }
}

#[tokio::test]
async fn the_same_key_again_keeps_its_sign_ins() {
    let test = TestBroker::start().await;
    let ida = test.operator("ida", Role::Admin).await;
    let mut device = test.paired(LOBBY, "printer").await;
    test.signed_in(&ida, &mut device).await;
    device.request_code(None, None).await.unwrap();
    let mark = test.mark().await;
    test.pair(&mut device).await;
    let records = test.recorded(&mark).await;
    assert!(records.iter().any(|record| record.event == "pairing.confirmed" && !record.detail.contains("replaces")));
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Pending { .. }));
    tokens(&device.refresh().await.unwrap());
}

#[tokio::test]
async fn a_suspended_or_retired_device_cannot_be_paired() {
    let test = TestBroker::start().await;
    let mut device = test.paired(LOBBY, "printer").await;
    test.open_window(LOBBY).await;
    let (shown, digits) = waiting(&test, &mut device).await;
    test.suspend(LOBBY).await;
    assert!(confirm(&test, &shown, Confirm::Number(&digits)).await.is_err(), "what waited is over");
    let subject = WindowSubject::Device(pairgate::id::DeviceId::new(LOBBY).unwrap());
    assert_eq!(test.broker.window(&subject).await.unwrap(), None);
    test.open_site_window().await;
    let rival = test.stranger(LOBBY);
    for (state, caller) in [("suspended", &device), ("suspended", &rival), ("retired", &device), ("retired", &rival)] {
        if state == "retired"
            && test.broker.device(&Caller::command_line(), LOBBY).await.unwrap().state != DeviceState::Retired
        {
            test.retire(LOBBY).await;
        }
        let mark = test.mark().await;
        assert!(test.broker.open_window(&Caller::command_line(), &subject, None).await.is_err(), "{state}");
        test.untouched(&mark, &[], state).await;
        assert_eq!(refused(&test, caller, &honest(caller), state).await, "the device is suspended or retired");
    }
}

#[tokio::test]
async fn a_device_that_was_sold_keeps_a_key_that_is_worth_nothing_for_ever_a_097() {
    let test = TestBroker::start().await;
    let mut sold = test.paired(LOBBY, "printer").await;
    test.retire(LOBBY).await;
    let test = test.restart().await;
    test.register(ATTIC, "printer").await;
    for id in [LOBBY, ATTIC] {
        test.open_site_window().await;
        let again = test.twin(id, &sold.key);
        refused(&test, &again, &honest(&again), id).await;
    }
    assert_eq!(sold.request_code(None, None).await.unwrap_err().oauth_error(), Some("unauthorized_client"));
    // Nor does it vouch for another one, and its id is never given again.
    sold.rotate_key(DeviceKey::generate_es256().unwrap());
    assert_eq!(sold.request_pairing().await.unwrap_err().oauth_error(), Some("pairing_refused"));
    let facts = DeviceFacts { kind: "printer".into(), ..DeviceFacts::default() };
    assert!(test.broker.register_device(&Caller::command_line(), LOBBY, facts).await.is_err());
    // The box itself is welcome: under a new id, with a new key.
    test.pair(&mut test.stranger(ATTIC)).await;
}

/// The broker's signing key may be exchanged while a pairing waits; what the device shows is over the one that its answer named.
#[tokio::test]
async fn the_digits_are_over_the_key_that_the_answer_named_whatever_the_broker_signs_with_now() {
    let test = TestBroker::start().await;
    let mut device = expected(&test, LOBBY).await;
    let (shown, digits) = waiting(&test, &mut device).await;
    let connection = rusqlite::Connection::open(test.data.path().join("pairgate.db")).unwrap();
    let (named, broker_nonce, device_nonce): ([u8; 32], [u8; 32], [u8; 32]) = connection
        .query_row("SELECT broker_jkt, broker_nonce, device_nonce FROM pairings", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    let code = |broker_jkt| model::comparison_code(device.key.thumbprint(), broker_jkt, &device_nonce, &broker_nonce);
    assert_eq!(code(&named), digits);
    // A key that the broker never had, or has dropped: its digits prove nothing.
    connection.execute("UPDATE pairings SET broker_jkt = ?", [[9_u8; 32]]).unwrap();
    confirm(&test, &shown, Confirm::Number(&code(&[9; 32]))).await.unwrap_err();
    // Asked before the key was kept: no digits, and nothing that could fit; the QR code remains.
    connection.execute("UPDATE pairings SET broker_jkt = NULL", []).unwrap();
    confirm(&test, &shown, Confirm::Number("")).await.unwrap_err();
    // Rotated since, and kept: the digits are still over the key that the answer named.
    test.advance(1);
    test.broker.rotate_signing_keys(&Caller::command_line(), KeyRotation::Planned).await.unwrap();
    connection.execute("UPDATE pairings SET broker_jkt = ?", [named]).unwrap();
    confirm(&test, &shown, Confirm::Number(&digits)).await.unwrap();
}

#[tokio::test]
async fn a_late_poll_of_a_device_that_was_suspended_or_replaced_since_is_told_nothing() {
    let test = TestBroker::start().await;
    let mut device = expected(&test, LOBBY).await;
    let (shown, digits) = waiting(&test, &mut device).await;
    confirm(&test, &shown, Confirm::Number(&digits)).await.unwrap();
    test.suspend(LOBBY).await;
    let mark = test.mark().await;
    assert_eq!(device.poll_pairing().await.unwrap_err().oauth_error(), Some("pairing_refused"));
    let records = test.untouched(&mark, &["pairing.refused"], "suspended").await;
    assert!(records[0].detail.starts_with("it was paired, but"), "{}", records[0].detail);
    test.resume(LOBBY).await;
    test.pair(&mut test.stranger(LOBBY)).await;
    let mark = test.mark().await;
    assert_eq!(device.poll_pairing().await.unwrap_err().oauth_error(), Some("pairing_refused"));
    test.untouched(&mark, &["pairing.refused"], "replaced").await;
    assert!(device.pins.is_none());
}

#[tokio::test]
async fn answers_are_signed_by_the_broker_and_no_changed_one_passes_the_devices_checks() {
    let test = TestBroker::start().await;
    let device = expected(&test, LOBBY).await;
    let answer = device.post_jwt(PAIRING, &honest(&device)).await.unwrap();
    let header = jose::peek(&answer.body).unwrap().header;
    let published = test.wire.send(test.wire.get(&test.url("/jwks"))).await.unwrap().json().unwrap();
    let key = &published["keys"][0];
    assert_eq!((&header["typ"], &header["kid"]), (&json!("pairing-response+jwt"), &key["kid"]));
    let claims = jose::check(&answer.body, key).unwrap().claims;
    assert_eq!(claims["broker_jkt"], key["kid"]);
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(test.issuer), &json!(LOBBY)));
    jose::check(&answer.body, &header["jwk"]).unwrap();
    let (signed, signature) = answer.body.rsplit_once('.').unwrap();
    let (head, _) = signed.split_once('.').unwrap();
    let mut lies = vec![format!("{signed}."), format!("{signed}.{}", jose::b64u(&[0; 64])), signed.to_owned()];
    for (name, lie) in [("aud", ATTIC), ("pairing_uri_complete", "https://evil.example"), ("broker_jkt", "AAAA")] {
        let mut changed = claims.clone();
        changed[name] = lie.into();
        lies.push(format!("{head}.{}.{signature}", jose::b64u(changed.to_string().as_bytes())));
    }
    for alg in ["none", "HS256", "EdDSA"] {
        let mut changed = header.clone();
        changed["alg"] = alg.into();
        let body = jose::b64u(claims.to_string().as_bytes());
        lies.push(format!("{}.{body}.{signature}", jose::b64u(changed.to_string().as_bytes())));
    }
    let other = DeviceKey::generate_es256().unwrap();
    for lie in &lies {
        assert!(jose::check(lie, key).is_err(), "{lie}");
    }
    assert!(jose::check(&answer.body, other.jwk()).is_err());
}

/// What a false broker changes.
type Lie = fn(&mut Value, &mut Value);

/// A false broker: follows the protocol with a key of its own, but for one lie. Its issuer.
async fn false_broker(key: DeviceKey, request: Lie, poll: Lie, poll_key: DeviceKey) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let us = issuer.clone();
    let (first_key, first_us) = (key.clone(), us.clone());
    let begin = async move |body: String| {
        let asked = jose::peek(&body).unwrap().claims;
        let mut header = first_key.header("pairing-response+jwt");
        let mut claims = json!({
            "iss": first_us, "aud": asked["iss"], "iat": 1, "jti": asked["jti"], "status": "requested", "pairing_id": "p",
            "broker_nonce": jose::b64u(&[9; 32]), "broker_jkt": first_key.jkt(), "pairing_uri": format!("{first_us}/pair"),
            "pairing_uri_complete": format!("{first_us}/pair/p"), "expires_in": 600, "interval": 2,
        });
        request(&mut header, &mut claims);
        first_key.sign_raw(&header, &claims).unwrap()
    };
    let end = async move |body: String| {
        let asked = jose::peek(&body).unwrap().claims;
        let mut header = poll_key.header("pairing-response+jwt");
        let mut claims = json!({
            "iss": us, "aud": asked["iss"], "iat": 1, "status": "paired", "pairing_id": "p", "jti": asked["jti"],
            "issuer": us, "jwks": {"keys": [key.jwk()]}, "ca": null,
        });
        poll(&mut header, &mut claims);
        poll_key.sign_raw(&header, &claims).unwrap()
    };
    let router = Router::new().route(PAIRING, post(begin)).route(POLL, post(end));
    tokio::spawn(async move { axum::serve(listener, router).await });
    issuer
}

#[tokio::test]
async fn a_device_takes_no_answer_that_was_signed_for_somebody_or_something_else() {
    const HONEST: Lie = |_, _| {};
    let rows: [(&str, Lie, Lie, bool); 15] = [
        ("no lie", HONEST, HONEST, true),
        ("for another device", |_, claims| claims["aud"] = ATTIC.into(), HONEST, false),
        ("from another issuer", |_, claims| claims["iss"] = "https://evil.example".into(), HONEST, false),
        ("for another purpose", |header, _| header["typ"] = "at+jwt".into(), HONEST, false),
        ("without a key", |header, _| header["jwk"] = Value::Null, HONEST, false),
        ("not signed", |header, _| header["alg"] = "none".into(), HONEST, false),
        ("to another request", |_, claims| claims["jti"] = "jti-of-another-request".into(), HONEST, false),
        ("another key named", |_, claims| claims["broker_jkt"] = jose::b64u(&[1; 32]).into(), HONEST, false),
        ("poll: for another device", HONEST, |_, claims| claims["aud"] = ATTIC.into(), false),
        ("poll: an old answer", HONEST, |_, claims| claims["jti"] = "jti-of-another-poll".into(), false),
        ("poll: of another pairing", HONEST, |_, claims| claims["pairing_id"] = "q".into(), false),
        ("poll: for another purpose", HONEST, |header, _| header["typ"] = "at+jwt".into(), false),
        ("poll: keys without the one that signed", HONEST, |_, claims| claims["jwks"] = json!({"keys": []}), false),
        ("poll: another issuer to pin", HONEST, |_, claims| claims["issuer"] = "https://evil.example".into(), false),
        ("poll: not signed", HONEST, |header, _| header["alg"] = "none".into(), false),
    ];
    for (what, request, poll, is_fine) in rows {
        let key = DeviceKey::generate_es256().unwrap();
        let issuer = false_broker(key.clone(), request, poll, key).await;
        assert_eq!(pairs(&issuer, what).await, is_fine, "{what}");
    }
    let (first, second) = (DeviceKey::generate_es256().unwrap(), DeviceKey::generate_es256().unwrap());
    let issuer = false_broker(first, HONEST, HONEST, second).await;
    assert!(!pairs(&issuer, "the key changes in between").await);
}

/// Does a new device pin what this issuer says? If not, for want of authenticity and nothing else.
async fn pairs(issuer: &str, what: &str) -> bool {
    let mut device = SimulatedDevice::new(LOBBY, issuer, DeviceKey::generate_es256().unwrap(), Wire::new().unwrap());
    let outcome = match device.request_pairing().await {
        Ok(_) => device.poll_pairing().await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = &outcome {
        assert!(matches!(error, SimulatorError::NotAuthentic(_)), "{what}: {error}");
        assert!(device.pins.is_none(), "{what}: nothing is pinned");
    }
    outcome.is_ok()
}

#[tokio::test]
async fn a_man_in_the_middle_shows_other_digits_than_the_operator_needs() {
    let test = TestBroker::start().await;
    let mut middle = expected(&test, LOBBY).await;
    let (shown, his) = waiting(&test, &mut middle).await;
    let key = DeviceKey::generate_es256().unwrap();
    let issuer = false_broker(
        key.clone(),
        |_, _| {},
        |_, claims| {
            claims["status"] = "pending".into();
            claims["expires_in"] = 600.into();
            claims["interval"] = 2.into();
        },
        key,
    )
    .await;
    let mut device = SimulatedDevice::new(LOBBY, &issuer, DeviceKey::generate_es256().unwrap(), test.wire.clone());
    let (_, on_screen) = waiting(&test, &mut device).await;
    assert_ne!(on_screen, his, "one in a million");
    assert!(confirm(&test, &shown, Confirm::Number(&on_screen)).await.is_err());
    assert!(confirm(&test, &shown, Confirm::Qr(&device.key.jkt())).await.is_err());
    assert_eq!((test.count("pairing.wrong_digits").await, test.count("pairing.conflict").await), (1, 1));
    assert_eq!(test.broker.device(&Caller::command_line(), LOBBY).await.unwrap().state, DeviceState::Registered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_at_the_instant_of_the_confirmation_is_never_refused() {
    let test = TestBroker::start().await;
    test.register(LOBBY, "printer").await;
    let device = test.stranger(LOBBY);
    for round in 0..8 {
        test.open_window(LOBBY).await;
        let claims = pairing_claims(&device.post_jwt(PAIRING, &honest(&device)).await.unwrap());
        let id = claims["pairing_id"].as_str().unwrap().to_owned();
        pairing_claims(&device.post_jwt(POLL, &pairing_poll(&device, &id, &[1; 32], |_| {})).await.unwrap());
        let mut polls = tokio::task::JoinSet::new();
        for _ in 0..24 {
            let (twin, poll) = (test.twin(LOBBY, &device.key), pairing_poll(&device, &id, &[1; 32], |_| {}));
            polls.spawn(async move { twin.post_jwt(POLL, &poll).await.unwrap() });
        }
        let (broker, jkt) = (Arc::clone(&test.broker), device.key.jkt());
        let confirmed = tokio::spawn(async move {
            broker.confirm_pairing(&Caller::command_line(), &id, &Confirm::Qr(&jkt)).await.is_ok()
        });
        for answer in polls.join_all().await {
            let status = pairing_claims(&answer)["status"].clone();
            assert!(status == "pending" || status == "paired", "round {round}: {status}");
        }
        assert!(confirmed.await.unwrap());
    }
    assert_eq!(test.count("pairing.refused").await, 0);
}

#[tokio::test]
async fn a_captured_request_is_worth_nothing_later_even_while_the_window_is_open() {
    let test = TestBroker::start().await;
    let mut device = expected(&test, LOBBY).await;
    let captured = pairing_request(&device, &[1; 32], |_, claims| claims["jti"] = jti().into());
    pairing_claims(&device.post_jwt(PAIRING, &captured).await.unwrap());
    test.pair(&mut device).await;
    test.open_window(LOBBY).await;
    assert_eq!(refused(&test, &device, &captured, "after pairing").await, "the request was sent before");
    let test = test.restart().await;
    assert_eq!(refused(&test, &device, &captured, "after a restart").await, "the request was sent before");
}

/// The vectors that firmware is tested with: this file, the broker and the simulator must agree.
#[test]
fn the_published_vectors_are_those_of_the_broker_and_of_the_simulator() {
    let file: Value = serde_json::from_str(include_str!("../../firmware-examples/vectors/pairing.json")).unwrap();
    let bytes = |vector: &Value, name: &str| jose::from_b64u_32(vector[name].as_str().unwrap()).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 3);
    for vector in vectors {
        let mut public = vector["device_jwk"].clone();
        let secret = public.as_object_mut().unwrap().remove("d").unwrap();
        assert!(PublicKey::from_json(&vector["device_jwk"].to_string()).is_err(), "a private key is never sent");
        is_pair(&public, secret.as_str().unwrap());
        for (jwk, jkt) in [(&public, "jkt"), (&vector["broker_jwk"], "broker_jkt")] {
            assert_eq!(PublicKey::from_json(&jwk.to_string()).unwrap().jkt(), bytes(vector, jkt), "{}", vector["name"]);
            assert_eq!(jose::thumbprint(jwk).unwrap(), bytes(vector, jkt), "{}", vector["name"]);
        }
        let (jkt, broker_jkt) = (bytes(vector, "jkt"), bytes(vector, "broker_jkt"));
        let (device_nonce, broker_nonce) = (bytes(vector, "device_nonce"), bytes(vector, "broker_nonce"));
        assert_eq!(model::commitment(&device_nonce, &jkt), bytes(vector, "commitment"));
        assert_eq!(pairgate::simulator::commitment(&device_nonce, &jkt), vector["commitment"].as_str().unwrap());
        let code = vector["comparison_code"].as_str().unwrap();
        assert_eq!(model::comparison_code(&jkt, &broker_jkt, &device_nonce, &broker_nonce), code);
        assert_eq!(pairgate::simulator::comparison_code(&jkt, &broker_jkt, &device_nonce, &broker_nonce), code);
    }
    assert!(vectors.iter().any(|vector| vector["comparison_code"].as_str().unwrap().starts_with("00")));
}

/// Does the private part belong to the public one?
fn is_pair(public: &Value, secret: &str) {
    let part = |name: &str| jose::from_b64u_32(public[name].as_str().unwrap()).unwrap();
    let secret = jose::from_b64u_32(secret).unwrap();
    match public["kty"].as_str().unwrap() {
        "EC" => {
            let point = [&[4_u8][..], &part("x"), &part("y")].concat();
            EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &secret, &point).unwrap();
        }
        _ => drop(Ed25519KeyPair::from_seed_and_public_key(&secret, &part("x")).unwrap()),
    }
}
