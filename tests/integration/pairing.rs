//! Pairing (design section 3): one answer for every refusal, and a key that only a person can bind.

use pairgate::broker::Caller;
use pairgate::broker::pairing::Confirm;
use pairgate::model::operator::Role;
use pairgate::model::pairing::{commitment, comparison_code};
use pairgate::secret::{b64u, bytes32_from_b64u};
use pairgate::simulator::{DeviceKey, PairingStatus, RawAnswer, SimulatedDevice, jose};
use serde_json::{Value, json};

use crate::support::TestBroker;

const REFUSED: &str = r#"{"error":"pairing_refused","error_description":"This pairing was refused. Ask an administrator to open pairing for this device, then start again."}"#;

fn request(test: &TestBroker, id: &str, key: &DeviceKey) -> Value {
    let nonce = [9; 32];
    json!({
        "iss": id, "aud": test.issuer, "iat": 1, "jti": b64u(&pairgate::secret::Random::system().bytes32().unwrap()), "serial": "",
        "commitment": b64u(&commitment(&nonce, key.thumbprint())),
    })
}

fn sign(key: &DeviceKey, typ: &str, claims: &Value) -> String {
    key.sign_raw(&key.header(typ), claims).unwrap()
}

async fn send(test: &TestBroker, path: &str, jwt: &str) -> RawAnswer {
    let request = test
        .wire
        .post(&format!("{}{path}", test.issuer))
        .header("content-type", "application/jwt")
        .body(jwt.to_owned());
    test.wire.send(request).await.unwrap()
}

#[tokio::test]
async fn every_refusal_is_the_same_answer_and_the_audit_log_knows_which() {
    let test = TestBroker::start().await;
    let key = DeviceKey::generate_es256().unwrap();
    let old = test.paired("retired-tv-01", "tv").await;
    let other = test.paired("hall-tv-01", "tv").await;
    test.broker.retire_device(&Caller::command_line(), "retired-tv-01").await.unwrap();
    for id in ["lobby-printer-01", "closed-printer-01"] {
        test.register(id, "printer").await;
    }
    test.broker
        .register_device(
            &Caller::command_line(),
            "serial-printer-01",
            pairgate::model::device::DeviceFacts { kind: "printer".into(), serial: "S1".into(), ..Default::default() },
        )
        .await
        .unwrap();
    for id in ["lobby-printer-01", "serial-printer-01"] {
        test.open_window(id).await;
    }
    let with = |id: &str, key: &DeviceKey, change: fn(&mut Value)| {
        let mut claims = request(&test, id, key);
        change(&mut claims);
        sign(key, "pairing-request+jwt", &claims)
    };
    let none: fn(&mut Value) = |_| {};
    let accepted = with("lobby-printer-01", &key, none);
    assert_eq!(send(&test, "/pairing", &accepted).await.status, 200);
    let broken =
        with("lobby-printer-01", &key, none).rsplit_once('.').map(|(input, _)| format!("{input}.AAAA")).unwrap();
    let rows = [
        ("unknown id", with("nobody-knows-01", &key, none), "no such device"),
        ("no id at all", with("A/B", &key, none), "a claim has a wrong value"),
        ("wrong serial", with("serial-printer-01", &key, |claims| claims["serial"] = "S2".into()), "serial number"),
        ("closed window", with("closed-printer-01", &key, none), "not open"),
        ("retired device", with("retired-tv-01", &old.key, none), "suspended or retired"),
        ("retired key", with("lobby-printer-01", &old.key, none), "belongs to another device"),
        ("key of another device", with("lobby-printer-01", &other.key, none), "belongs to another device"),
        ("replayed", accepted, "sent before"),
        (
            "foreign audience",
            with("lobby-printer-01", &key, |claims| claims["aud"] = "https://evil.example".into()),
            "a claim has a wrong value",
        ),
        ("short jti", with("lobby-printer-01", &key, |claims| claims["jti"] = "x".into()), "a claim has a wrong value"),
        (
            "hostile model",
            with("lobby-printer-01", &key, |claims| claims["model"] = "a\u{202E}b".into()),
            "a claim has a wrong value",
        ),
        ("bad signature", broken, "signature"),
    ];
    for (what, jwt, reason) in rows {
        let answer = send(&test, "/pairing", &jwt).await;
        assert_eq!((answer.status, answer.body.as_str()), (403, REFUSED), "{what}");
        let last = test.records().await.pop().unwrap();
        assert_eq!((last.event.as_str(), last.severity.as_str()), ("pairing.refused", "alert"), "{what}");
        assert!(last.detail.contains(reason), "{what}: {}", last.detail);
    }
    for malformed in ["", "x", "a.b.c", &sign(&key, "JWT", &request(&test, "lobby-printer-01", &key))] {
        assert_eq!(send(&test, "/pairing", malformed).await.status, 400, "{malformed}");
    }
}

#[tokio::test]
async fn whoever_claims_a_device_first_gets_nothing_until_a_person_confirms_and_a_rival_is_seen_a_007() {
    let test = TestBroker::start().await;
    test.register("lobby-printer-01", "printer").await;
    test.open_window("lobby-printer-01").await;
    let (mut thief, mut real) = (test.stranger("lobby-printer-01"), test.stranger("lobby-printer-01"));
    thief.request_pairing().await.unwrap();
    thief.poll_pairing().await.unwrap();
    assert_eq!(
        thief.request_code(None, None).await.unwrap_err().oauth_error(),
        Some("unauthorized_client"),
        "no codes before"
    );
    let shown = real.request_pairing().await.unwrap();
    let PairingStatus::Pending { digits, .. } = real.poll_pairing().await.unwrap() else { panic!("not pending") };
    assert_eq!(test.count("pairing.conflict").await, 1);
    assert!(
        test.broker.open_pairings(None).await.unwrap().iter().all(|found| found.pairing.conflict),
        "flagged on both"
    );
    test.broker.confirm_pairing(&Caller::command_line(), &shown.pairing_id, &Confirm::Number(&digits)).await.unwrap();
    assert!(matches!(real.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
    assert!(thief.poll_pairing().await.is_err(), "the rival is refused");
    assert_eq!(thief.request_code(None, None).await.unwrap_err().oauth_error(), Some("invalid_client"));
}

#[tokio::test]
async fn one_key_is_one_device_for_ever_a_008() {
    let test = TestBroker::start().await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let first = device.key.clone();
    test.register("hall-tv-01", "tv").await;
    test.open_window("hall-tv-01").await;
    let mut second = SimulatedDevice::new("hall-tv-01", &test.issuer, first.clone(), test.wire.clone());
    assert!(second.request_pairing().await.is_err());
    // Replaced by a new key, the first is refused for ever, here and elsewhere.
    device = test.stranger("lobby-printer-01");
    test.pair(&mut device).await;
    test.open_window("lobby-printer-01").await;
    for id in ["lobby-printer-01", "hall-tv-01"] {
        let mut again = SimulatedDevice::new(id, &test.issuer, first.clone(), test.wire.clone());
        assert!(again.request_pairing().await.is_err(), "{id}");
        assert!(again.request_code(None, None).await.is_err(), "{id}");
    }
    let reasons: Vec<_> = test
        .records()
        .await
        .into_iter()
        .filter(|record| record.event == "pairing.refused")
        .map(|record| record.detail)
        .collect();
    assert!(reasons[0].contains("another device") && reasons[1].contains("replaced"), "{reasons:?}");
}

#[tokio::test]
async fn a_nonce_that_was_not_committed_to_a_foreign_key_and_a_late_poll_are_refused() {
    let test = TestBroker::start().await;
    test.register("lobby-printer-01", "printer").await;
    test.open_window("lobby-printer-01").await;
    let key = DeviceKey::generate_es256().unwrap();
    let answer =
        send(&test, "/pairing", &sign(&key, "pairing-request+jwt", &request(&test, "lobby-printer-01", &key))).await;
    let pairing_id = jose::peek(&answer.body).unwrap().claims["pairing_id"].as_str().unwrap().to_owned();
    let poll = |nonce: [u8; 32]| json!({"iss": "lobby-printer-01", "aud": test.issuer, "iat": 1, "jti": b64u(&[nonce[0]; 16]), "pairing_id": pairing_id, "device_nonce": b64u(&nonce)});
    let foreign = DeviceKey::generate_es256().unwrap();
    for (what, jwt) in [
        ("ground until the digits fit", sign(&key, "pairing-poll+jwt", &poll([8; 32]))),
        ("a foreign key", sign(&foreign, "pairing-poll+jwt", &poll([9; 32]))),
    ] {
        let answer = send(&test, "/pairing/poll", &jwt).await;
        assert_eq!((answer.status, answer.body.as_str()), (403, REFUSED), "{what}");
    }
    assert_eq!(send(&test, "/pairing/poll", &sign(&key, "pairing-poll+jwt", &poll([9; 32]))).await.status, 200);
    test.advance(600);
    assert_eq!(
        send(&test, "/pairing/poll", &sign(&key, "pairing-poll+jwt", &poll([9; 32]))).await.status,
        403,
        "after ten minutes"
    );
    test.advance(300);
    assert_eq!(
        send(&test, "/pairing", &sign(&key, "pairing-request+jwt", &request(&test, "lobby-printer-01", &key)))
            .await
            .status,
        403,
        "the window closed by itself"
    );
}

#[tokio::test]
async fn three_wrong_tries_end_a_pairing_and_another_key_in_the_qr_code_is_an_alarm() {
    let test = TestBroker::start().await;
    let dana = test.operator("dana", Role::Technician).await;
    test.register("lobby-printer-01", "printer").await;
    test.open_window("lobby-printer-01").await;
    let mut device = test.stranger("lobby-printer-01");
    let shown = device.request_pairing().await.unwrap();
    let PairingStatus::Pending { digits, .. } = device.poll_pairing().await.unwrap() else { panic!("not pending") };
    let wrong = if digits == "000000" { "000001" } else { "000000" };
    let swapped = shown.uri_complete.replace(&device.key.jkt(), &DeviceKey::generate_es256().unwrap().jkt());
    assert!(dana.pair_by_qr(&swapped).await.is_err(), "the page offers no button for another key");
    let confirm = test
        .broker
        .confirm_pairing(
            &Caller::command_line(),
            &shown.pairing_id,
            &Confirm::Qr(&DeviceKey::generate_es256().unwrap().jkt()),
        )
        .await;
    assert!(confirm.is_err());
    assert_eq!(test.count("pairing.conflict").await, 1);
    for _ in 0..3 {
        assert!(dana.pair_by_number(&shown.pairing_id, wrong).await.is_err());
    }
    assert!(dana.pair_by_number(&shown.pairing_id, &digits).await.is_err(), "the right digits come too late");
    assert!(device.poll_pairing().await.is_err());
    assert_eq!((test.count("pairing.wrong_digits").await, test.count("pairing.confirmed").await), (3, 0));
}

#[tokio::test]
async fn the_scanned_key_pairs_and_the_same_key_may_pair_again_after_a_lost_answer() {
    let test = TestBroker::start().await;
    let dana = test.operator("dana", Role::Admin).await;
    test.register("lobby-printer-01", "printer").await;
    test.open_window("lobby-printer-01").await;
    let mut device = test.stranger("lobby-printer-01");
    let shown = device.request_pairing().await.unwrap();
    device.poll_pairing().await.unwrap();
    dana.pair_by_qr(&shown.uri_complete).await.unwrap();
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
    test.signed_in(&dana, &mut device).await;
    // It forgets that it was paired, but not its key: its sign-in lives on.
    test.pair(&mut device).await;
    assert!(device.refresh().await.is_ok_and(|answer| matches!(answer, pairgate::simulator::TokenAnswer::Tokens(_))));
    // A new key is another matter: what the old one holds is dead.
    let mut successor = test.stranger("lobby-printer-01");
    test.pair(&mut successor).await;
    assert!(!matches!(device.refresh().await, Ok(pairgate::simulator::TokenAnswer::Tokens(_))));
    let device = test.broker.device("lobby-printer-01").await.unwrap();
    assert_eq!(b64u(&device.key.unwrap().jkt), successor.key.jkt());
}

#[tokio::test]
async fn a_changed_answer_of_the_broker_is_seen_by_the_device() {
    let test = TestBroker::start().await;
    test.register("lobby-printer-01", "printer").await;
    test.open_window("lobby-printer-01").await;
    let key = DeviceKey::generate_es256().unwrap();
    let answer =
        send(&test, "/pairing", &sign(&key, "pairing-request+jwt", &request(&test, "lobby-printer-01", &key))).await;
    let jwk = jose::peek(&answer.body).unwrap().header["jwk"].clone();
    assert!(jose::check(&answer.body, &jwk).is_ok());
    let (input, signature) = answer.body.rsplit_once('.').unwrap();
    let (head, claims) = input.split_once('.').unwrap();
    let changed =
        String::from_utf8(pairgate::secret::from_b64u(claims).unwrap()).unwrap().replace("requested", "paired_xx");
    assert!(jose::check(&format!("{head}.{}.{signature}", b64u(changed.as_bytes())), &jwk).is_err());
}

/// The same vectors for firmware, the broker and the simulator.
#[test]
fn the_published_vectors_hold_on_both_sides() {
    let vectors: Value = serde_json::from_str(include_str!("../../firmware-examples/vectors/pairing.json")).unwrap();
    for vector in vectors["vectors"].as_array().unwrap() {
        let bytes = |name: &str| bytes32_from_b64u(vector[name].as_str().unwrap()).unwrap();
        let jkt = jose::thumbprint(&vector["device_jwk"]).unwrap();
        let key = pairgate::oauth::jose::PublicKey::from_json(&vector["device_jwk"].to_string()).unwrap();
        assert_eq!((jkt, key.jkt()), (bytes("jkt"), bytes("jkt")));
        let (device_nonce, broker_nonce, broker_jkt) =
            (bytes("device_nonce"), bytes("broker_nonce"), bytes("broker_jkt"));
        assert_eq!(commitment(&device_nonce, &jkt), bytes("commitment"));
        assert_eq!(pairgate::simulator::commitment(&device_nonce, &jkt), vector["commitment"].as_str().unwrap());
        let digits = vector["comparison_code"].as_str().unwrap();
        assert_eq!(comparison_code(&jkt, &broker_jkt, &device_nonce, &broker_nonce), digits);
        assert_eq!(pairgate::simulator::comparison_code(&jkt, &broker_jkt, &device_nonce, &broker_nonce), digits);
    }
}
