//! Asking for a code (RFC 8628 section 3.1): who gets one, and who gets nothing.

use pairgate::broker::Caller;
use pairgate::broker::pairing::Confirm;
use pairgate::model::device::DeviceFacts;
use pairgate::model::operator::Role;
use pairgate::simulator::{DeviceKey, PairingStatus, SimulatorError, TokenAnswer};
use serde_json::{Value, json};

use crate::support::TestBroker;
use crate::support::probe::{CODE, TOKEN, error_of, is_error, poll_of, tokens};

/// Client ids that the phishing kits use.
const PHISHING: [&str; 4] = [
    "29d9ed98-a469-4536-ade2-f981bc1d605e",
    "04b07795-8ddb-461a-bbee-02f9e1bf7b46",
    "d3590ed6-52b3-4102-aeff-aad2292ab01c",
    "29D9ED98-A469-4536-ADE2-F981BC1D605E",
];

#[tokio::test]
async fn an_unenrolled_client_gets_no_code_and_nothing_is_stored_a_001() {
    let test = TestBroker::start().await;
    test.register("registered-only", "printer").await;
    let long = "a".repeat(500);
    let ids = ["lobby-printer-01", "registered-only", "admin", "device:x", "../x", "Ünïcode", "a\r\nb", "'; --", &long];
    let mut bodies = Vec::new();
    for id in ids {
        let stranger = test.stranger(id);
        let mark = test.mark().await;
        let answer = test.ask(&stranger, CODE, &[("client_id", id)]).await;
        is_error(&answer, 401, "invalid_client", id);
        assert!(answer.header("dpop-nonce").is_some(), "{id}: an authentic proof gets the next nonce");
        let records = test.untouched(&mark, &["code.unenrolled"], id).await;
        let record = &records[0];
        assert_eq!((record.severity.as_str(), record.actor.as_str()), ("alert", "anonymous"));
        assert_eq!(record.peer.as_deref(), Some("127.0.0.1"));
        assert!(record.detail.contains(&stranger.key.short()), "{}", record.detail);
        assert!(!record.detail.contains(['\r', '\n']), "{}", record.detail);
        bodies.push(answer.body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "one refusal for all: {bodies:?}");
    assert!(test.broker.pending_grants(&Caller::command_line(), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_enrolled_id_without_a_proof_is_refused_like_a_stranger_a_002() {
    let test = TestBroker::start().await;
    let device = test.paired("lobby-printer-01", "printer").await;
    let stranger = test.ask(&test.stranger("nobody"), CODE, &[("client_id", "nobody")]).await;
    for path in [CODE, TOKEN] {
        let mark = test.mark().await;
        let answer = device.post_form(path, &[("client_id", &device.id)], &[]).await.unwrap();
        is_error(&answer, 401, "invalid_client", path);
        assert_eq!(answer.body, stranger.body, "byte for byte");
        let records = test.untouched(&mark, &["code.unenrolled"], path).await;
        assert!(records[0].detail.contains("'lobby-printer-01' without a proof"), "{}", records[0].detail);
    }
}

#[tokio::test]
async fn a_foreign_key_for_an_enrolled_id_is_refused_and_its_owner_is_not_disturbed_a_003() {
    let test = TestBroker::start().await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let code = device.request_code(None, None).await.unwrap();
    let thief = test.stranger("lobby-printer-01");
    let stranger = test.ask(&test.stranger("nobody"), CODE, &[("client_id", "nobody")]).await;
    for _ in 0..5 {
        let mark = test.mark().await;
        let answer = test.ask(&thief, CODE, &[("client_id", &thief.id)]).await;
        is_error(&answer, 401, "invalid_client", "thief");
        assert_eq!(answer.body, stranger.body);
        let records = test.untouched(&mark, &["key.mismatch"], "thief").await;
        assert_eq!(records[0].device.as_deref(), Some("lobby-printer-01"));
        assert_eq!(records[0].severity, "alert");
        assert!(records[0].detail.contains(&thief.key.short()));
    }
    assert_eq!(test.pending(&mut device).await, None, "the pending sign-in lives");
    let next = device.request_code(None, None).await.unwrap();
    assert_ne!(next.device_code, code.device_code, "and the device may ask again");
}

#[tokio::test]
async fn while_its_pairing_waits_a_device_is_told_that_it_may_not_yet_and_others_nothing_a_004() {
    let test = TestBroker::start().await;
    test.register("lobby-printer-01", "printer").await;
    test.open_window("lobby-printer-01").await;
    let mut device = test.stranger("lobby-printer-01");
    let other = test.stranger("lobby-printer-01");
    let before = test.ask(&device, CODE, &[("client_id", &device.id)]).await;
    is_error(&before, 401, "invalid_client", "before it asked");
    device.request_pairing().await.unwrap();
    for revealed in [false, true] {
        if revealed {
            device.poll_pairing().await.unwrap();
        }
        for (path, params) in
            [(CODE, vec![("client_id", device.id.as_str())]), (TOKEN, poll_of("x", &device.id).to_vec())]
        {
            let mark = test.mark().await;
            let answer = test.ask(&device, path, &params).await;
            is_error(&answer, 400, "unauthorized_client", path);
            let records = test.untouched(&mark, &["code.refused"], path).await;
            assert_eq!(records[0].device.as_deref(), Some("lobby-printer-01"));
            let mark = test.mark().await;
            let answer = test.ask(&other, path, &params).await;
            is_error(&answer, 401, "invalid_client", path);
            assert_eq!(answer.body, before.body, "any other key learns nothing");
            test.untouched(&mark, &["code.unenrolled"], path).await;
        }
    }
    test.advance(600);
    let after = test.ask(&device, CODE, &[("client_id", &device.id)]).await;
    assert_eq!((after.status, after.body), (401, before.body), "the pairing has ended");
}

#[tokio::test]
async fn a_suspended_or_retired_device_gets_no_code_and_its_pending_code_dies_at_once_a_005() {
    for retired in [false, true] {
        let test = TestBroker::start().await;
        let ida = test.operator("ida", Role::Admin).await;
        let mut device = test.paired("lobby-printer-01", "printer").await;
        let code = device.request_code(None, None).await.unwrap();
        if retired {
            test.retire(&device.id).await
        } else {
            test.suspend(&device.id).await
        }
        assert!(test.broker.pending_grants(&Caller::command_line(), 10).await.unwrap().is_empty());
        assert!(matches!(ida.claim(&code.verification_uri_complete).await, Err(SimulatorError::Page { .. })));
        let mark = test.mark().await;
        is_error(&test.poll(&device, &code.device_code).await, 401, "invalid_client", "its code is dead");
        let records = test.untouched(&mark, &["token.refused"], "poll").await;
        assert_eq!(records[0].device.as_deref(), Some("lobby-printer-01"));
        let mark = test.mark().await;
        let answer = test.ask(&device, CODE, &[("client_id", &device.id)]).await;
        is_error(&answer, 400, "unauthorized_client", "a new code");
        let records = test.untouched(&mark, &["code.refused"], "a new code").await;
        assert_eq!(records[0].device.as_deref(), Some("lobby-printer-01"));
        if retired {
            assert!(test.broker.resume_device(&Caller::command_line(), &device.id).await.is_err());
            continue;
        }
        test.resume(&device.id).await;
        assert_eq!(error_of(&device.poll_token(None).await.unwrap()), "invalid_grant", "what was stopped stays dead");
        device.request_code(None, None).await.unwrap();
    }
}

#[tokio::test]
async fn client_ids_of_phishing_kits_raise_their_own_alarm_and_cannot_be_registered_a_006() {
    let test = TestBroker::start().await;
    for id in PHISHING {
        let kit = test.stranger(id);
        let proof = test.proof(&kit, CODE).await;
        for headers in [vec![], vec![("dpop", proof.as_str())]] {
            let mark = test.mark().await;
            let answer = kit.post_form(CODE, &[("client_id", id), ("scope", "openid")], &headers).await.unwrap();
            is_error(&answer, 401, "invalid_client", id);
            let records = test.untouched(&mark, &["client.phishing"], id).await;
            assert_eq!((records[0].severity.as_str(), records[0].device.as_deref()), ("alert", None));
            assert!(records[0].detail.contains(id));
        }
        let facts = DeviceFacts { kind: "printer".into(), ..DeviceFacts::default() };
        let mark = test.mark().await;
        assert!(test.broker.register_device(&Caller::command_line(), id, facts).await.is_err());
        test.untouched(&mark, &[], id).await;
    }
}

#[tokio::test]
async fn a_second_key_for_a_waiting_device_is_a_conflict_and_one_confirmation_ends_the_other_a_007() {
    let test = TestBroker::start().await;
    test.register("lobby-printer-01", "printer").await;
    test.open_window("lobby-printer-01").await;
    let mut attacker = test.stranger("lobby-printer-01");
    let mut device = test.stranger("lobby-printer-01");
    attacker.request_pairing().await.unwrap();
    let mark = test.mark().await;
    let shown = device.request_pairing().await.unwrap();
    let records = test.recorded(&mark).await;
    assert_eq!(
        records.iter().map(|record| record.event.as_str()).collect::<Vec<_>>(),
        ["pairing.requested", "pairing.conflict"]
    );
    assert_eq!((records[1].severity.as_str(), records[1].device.as_deref()), ("alert", Some("lobby-printer-01")));
    let waiting = test.broker.open_pairings(&Caller::command_line(), None).await.unwrap();
    assert_eq!(waiting.iter().map(|found| found.pairing.conflict).collect::<Vec<_>>(), [true, true], "flagged on both");
    for early in [&mut attacker, &mut device] {
        let error = early.request_code(None, None).await.unwrap_err();
        assert_eq!(error.oauth_error(), Some("unauthorized_client"), "no code before a person has confirmed");
        early.poll_pairing().await.unwrap();
    }
    let PairingStatus::Pending { digits, .. } = device.poll_pairing().await.unwrap() else { panic!("not pending") };
    test.broker.confirm_pairing(&Caller::command_line(), &shown.pairing_id, &Confirm::Number(&digits)).await.unwrap();
    assert!(test.broker.open_pairings(&Caller::command_line(), None).await.unwrap().is_empty());
    let mark = test.mark().await;
    assert_eq!(attacker.poll_pairing().await.unwrap_err().oauth_error(), Some("pairing_refused"));
    test.untouched(&mark, &["pairing.refused"], "the rival's poll").await;
    assert_eq!(attacker.request_code(None, None).await.unwrap_err().oauth_error(), Some("invalid_client"));
    assert_eq!(test.count("key.mismatch").await, 1);
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
    device.request_code(None, None).await.unwrap();
}

#[tokio::test]
async fn a_key_belongs_to_one_device_also_when_it_is_offered_for_a_second_a_008() {
    let test = TestBroker::start().await;
    let device = test.paired("lobby-printer-01", "printer").await;
    test.register("attic-printer-02", "printer").await;
    test.open_window("attic-printer-02").await;
    let mut second = test.twin("attic-printer-02", &device.key);
    let mark = test.mark().await;
    assert_eq!(second.request_pairing().await.unwrap_err().oauth_error(), Some("pairing_refused"));
    let records = test.untouched(&mark, &["pairing.refused"], "second device").await;
    assert_eq!((records[0].device.as_deref(), records[0].severity.as_str()), (Some("attic-printer-02"), "alert"));
    assert!(records[0].detail.starts_with("the key belongs to another device"), "{}", records[0].detail);
    let mark = test.mark().await;
    is_error(&test.ask(&second, CODE, &[("client_id", &second.id)]).await, 401, "invalid_client", "and no code");
    test.untouched(&mark, &["code.unenrolled"], "no code").await;
}

#[tokio::test]
async fn a_key_that_waits_for_two_devices_is_confirmed_for_one_only_a_008() {
    let test = TestBroker::start().await;
    let key = DeviceKey::generate_es256().unwrap();
    let mut waiting = Vec::new();
    for id in ["lobby-printer-01", "attic-printer-02"] {
        test.register(id, "printer").await;
        test.open_window(id).await;
        let mut device = test.twin(id, &key);
        let shown = device.request_pairing().await.unwrap();
        device.poll_pairing().await.unwrap();
        waiting.push((device, shown.pairing_id));
    }
    let caller = Caller::command_line();
    let qr = Confirm::Qr(&key.jkt());
    test.broker.confirm_pairing(&caller, &waiting[0].1, &qr).await.unwrap();
    let mark = test.mark().await;
    assert!(test.broker.confirm_pairing(&caller, &waiting[1].1, &qr).await.is_err());
    test.untouched(&mark, &[], "second confirmation").await;
    assert_eq!(waiting[1].0.request_code(None, None).await.unwrap_err().oauth_error(), Some("unauthorized_client"));
    waiting[0].0.request_code(None, None).await.unwrap();
}

#[tokio::test]
async fn two_ways_of_authentication_in_one_request_are_refused_a_015() {
    let test = TestBroker::start().await;
    let device = test.paired("lobby-printer-01", "printer").await;
    test.paired("attic-printer-02", "printer").await;
    let assertion = [("client_assertion", "e30.e30.AA"), ("client_id", device.id.as_str())];
    let secret = [("client_secret", "hunter2"), ("client_id", device.id.as_str())];
    let plain = [("client_id", device.id.as_str())];
    let basic = ("authorization", "Basic YXR0aWMtcHJpbnRlci0wMjp4");
    for path in [CODE, TOKEN] {
        let proof = test.proof(&device, path).await;
        let dpop = ("dpop", proof.as_str());
        let rows = [
            ("proof and assertion", &assertion[..], vec![dpop]),
            ("proof and secret", &secret[..], vec![dpop]),
            ("proof and Authorization", &plain[..], vec![dpop, basic]),
            ("assertion and Authorization", &assertion[..], vec![basic]),
            ("secret and Authorization", &secret[..], vec![basic]),
        ];
        for (what, params, headers) in rows {
            let mark = test.mark().await;
            let answer = device.post_form(path, params, &headers).await.unwrap();
            is_error(&answer, 400, "invalid_request", what);
            test.untouched(&mark, &[], what).await;
        }
    }
}

#[tokio::test]
async fn a_client_id_other_than_the_one_of_the_key_is_refused_a_016() {
    let test = TestBroker::start().await;
    let device = test.paired("lobby-printer-01", "printer").await;
    test.paired("attic-printer-02", "printer").await;
    for path in [CODE, TOKEN] {
        let mark = test.mark().await;
        let answer =
            test.ask(&device, path, &[("client_id", "attic-printer-02"), ("grant_type", "refresh_token")]).await;
        is_error(&answer, 401, "invalid_client", path);
        let records = test.untouched(&mark, &["key.mismatch"], path).await;
        assert_eq!(records[0].device.as_deref(), Some("attic-printer-02"));
        assert!(records[0].detail.contains(&device.key.short()));
        let mark = test.mark().await;
        let answer = test.ask(&device, path, &[("scope", "scan.write")]).await;
        is_error(&answer, 400, "invalid_request", "no client_id at all");
        test.untouched(&mark, &[], path).await;
    }
}

#[tokio::test]
async fn a_parameter_that_stands_twice_is_refused_whichever_it_is_a_017() {
    let test = TestBroker::start().await;
    let device = test.paired("lobby-printer-01", "printer").await;
    let names = ["client_id", "scope", "grant_type", "device_code", "refresh_token", "foo", "resource"];
    for path in [CODE, TOKEN] {
        for name in names {
            for (one, two) in [("a", "a"), ("a", "b"), ("", "")] {
                let what = format!("{path} {name}={one} {name}={two}");
                let mark = test.mark().await;
                let answer = test.ask(&device, path, &[("client_id", &device.id), (name, one), (name, two)]).await;
                let error = if name == "resource" { "invalid_target" } else { "invalid_request" };
                is_error(&answer, 400, error, &what);
                test.untouched(&mark, &[], &what).await;
            }
        }
    }
}

#[tokio::test]
async fn parameters_in_the_query_and_bodies_that_are_no_form_are_refused_a_017() {
    let test = TestBroker::start().await;
    let device = test.paired("lobby-printer-01", "printer").await;
    let body = format!("client_id={}", device.id);
    for path in [CODE, TOKEN] {
        for query in ["?client_id=lobby-printer-01", "?", "?x=1"] {
            let what = format!("{path}{query}");
            let proof = test.proof(&device, path).await;
            let mark = test.mark().await;
            let answer = device.post_form(&what, &[("client_id", &device.id)], &[("dpop", &proof)]).await.unwrap();
            is_error(&answer, 400, "invalid_request", &what);
            test.untouched(&mark, &[], &what).await;
        }
        let media = ["text/plain", "application/json", "multipart/form-data; boundary=x", "", "x-www-form-urlencoded"];
        for media in media {
            let proof = test.proof(&device, path).await;
            let mark = test.mark().await;
            let request = test.wire.post(&test.url(path)).header("dpop", &proof).body(body.clone());
            let request = if media.is_empty() { request } else { request.header("content-type", media) };
            is_error(&test.wire.send(request).await.unwrap(), 400, "invalid_request", media);
            test.untouched(&mark, &[], media).await;
        }
        let get = test.wire.send(test.wire.get(&format!("{}?{body}", test.url(path)))).await.unwrap();
        assert_eq!(get.status, 405, "{path}");
    }
    let huge = "x".repeat(16 * 1024 + 1);
    let mark = test.mark().await;
    let answer = test.ask(&device, CODE, &[("client_id", &device.id), ("scope", &huge)]).await;
    is_error(&answer, 413, "invalid_request", "a body over the limit");
    test.untouched(&mark, &[], "a body over the limit").await;
}

#[tokio::test]
async fn scopes_and_resources_outside_the_kinds_list_are_refused_and_no_code_is_minted_a_018() {
    let test = TestBroker::start().await;
    let device = test.paired("lobby-printer-01", "printer").await;
    let rows = [
        ("scope", "Mail.Read", "invalid_scope"),
        ("scope", "offline_access", "invalid_scope"),
        ("scope", "scan.write Mail.Read", "invalid_scope"),
        ("scope", "scan.write offline_access", "invalid_scope"),
        ("scope", "SCAN.WRITE", "invalid_scope"),
        ("scope", "signage.read", "invalid_scope"),
        ("scope", " ", "invalid_scope"),
        ("scope", "scan.write\tprint.read", "invalid_scope"),
        ("scope", "\"", "invalid_scope"),
        ("resource", "https://graph.microsoft.com", "invalid_target"),
        ("resource", "urn:pairgate:resource:default/", "invalid_target"),
        ("resource", "URN:pairgate:resource:default", "invalid_target"),
        ("resource", "urn:pairgate:resource:default urn:x", "invalid_target"),
    ];
    for (name, value, error) in rows {
        test.advance(60);
        let mark = test.mark().await;
        let answer = test.ask(&device, CODE, &[("client_id", &device.id), (name, value)]).await;
        is_error(&answer, 400, error, value);
        assert!(answer.header("dpop-nonce").is_some());
        let records = test.untouched(&mark, &["code.refused"], value).await;
        assert_eq!(records[0].device.as_deref(), Some("lobby-printer-01"));
    }
    let mut device = device;
    let fine = device.request_code(Some("print.read"), Some("urn:pairgate:resource:default")).await;
    assert!(fine.is_ok(), "a part of the list is fine");
}

#[tokio::test]
async fn a_device_has_one_pending_code_and_a_new_one_ends_the_old_a_019() {
    let test = TestBroker::start().await;
    let ida = test.operator("ida", Role::Admin).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let old = device.request_code(None, None).await.unwrap();
    let new = device.request_code(None, None).await.unwrap();
    assert_eq!(test.broker.pending_grants(&Caller::command_line(), 10).await.unwrap().len(), 1);
    assert!(ida.claim(&old.verification_uri_complete).await.is_err(), "the old user code is as unknown as a wrong one");
    let mark = test.mark().await;
    is_error(&test.poll(&device, &old.device_code).await, 400, "invalid_grant", "the old device code");
    test.untouched(&mark, &["token.refused"], "the old device code").await;
    test.approve(&ida, &mut device, &new.verification_uri_complete).await;
    tokens(&device.poll_token(None).await.unwrap());
    // Also an approved code, not fetched yet, ends with a new request.
    let approved = device.request_code(None, None).await.unwrap();
    test.approve(&ida, &mut device, &approved.verification_uri_complete).await;
    device.request_code(None, None).await.unwrap();
    is_error(&test.poll(&device, &approved.device_code).await, 400, "invalid_grant", "approved, then replaced");
    assert_eq!(test.count("token.issued").await, 1);
}

#[tokio::test]
async fn a_device_that_asks_in_a_loop_runs_out_of_budget_for_an_hour_a_019() {
    let test = TestBroker::with_kind("printer", |kind| kind.codes_per_hour = 3).await;
    let ida = test.operator("ida", Role::Admin).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let mut neighbour = test.paired("attic-printer-02", "printer").await;
    for _ in 0..3 {
        device.request_code(None, None).await.unwrap();
    }
    let last = test.broker.pending_grants(&Caller::command_line(), 10).await.unwrap()[0].grant.id;
    test.advance(100);
    let mark = test.mark().await;
    let answer = test.ask(&device, CODE, &[("client_id", &device.id)]).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("3500")), "{}", answer.body);
    assert_eq!(answer.oauth_error(), None, "a device would stop for good");
    assert_eq!(answer.json().unwrap().get("error"), None);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("dpop-nonce").is_some());
    let records = test.untouched(&mark, &["code.refused"], "over budget").await;
    assert_eq!(records[0].device.as_deref(), Some("lobby-printer-01"));
    assert!(records[0].detail.contains("Too many codes"), "{}", records[0].detail);
    assert_eq!(
        test.broker.pending_grants(&Caller::command_line(), 10).await.unwrap()[0].grant.id,
        last,
        "the last code still counts"
    );
    let code = neighbour.request_code(None, None).await.unwrap();
    test.approve(&ida, &mut neighbour, &code.verification_uri_complete).await;
    test.advance(3_379);
    assert!(matches!(
        device.request_code(None, None).await,
        Err(SimulatorError::Busy { status: 429, retry_after_s: 1 })
    ));
    test.advance(1);
    for _ in 0..3 {
        device.request_code(None, None).await.unwrap();
    }
    assert!(matches!(device.request_code(None, None).await, Err(SimulatorError::Busy { status: 429, .. })));
}

#[tokio::test]
async fn a_device_cannot_choose_its_id_and_never_passes_for_a_person_a_020() {
    let test = TestBroker::start().await;
    let ida = test.operator("ida", Role::Admin).await;
    let mut impostor = test.stranger("ida");
    test.open_site_window().await;
    let mark = test.mark().await;
    assert_eq!(impostor.request_pairing().await.unwrap_err().oauth_error(), Some("pairing_refused"));
    let records = test.untouched(&mark, &["pairing.refused"], "pairing as a person").await;
    assert!(records[0].detail.starts_with("'ida': no such device"), "{}", records[0].detail);
    let mark = test.mark().await;
    is_error(&test.ask(&impostor, CODE, &[("client_id", "ida")]).await, 401, "invalid_client", "a code as a person");
    test.untouched(&mark, &["code.unenrolled"], "a code as a person").await;
    for id in ["device:ida", "operator:ida", "IDA", "ida@example.org", "id\u{430}"] {
        let facts = DeviceFacts { kind: "printer".into(), ..DeviceFacts::default() };
        let mark = test.mark().await;
        assert!(test.broker.register_device(&Caller::command_line(), id, facts).await.is_err(), "{id}");
        test.untouched(&mark, &[], id).await;
    }
    // Even a device that is registered under a person's name has a subject of its own.
    let mut device = test.paired("ida", "printer").await;
    let tokens = test.signed_in(&ida, &mut device).await;
    assert_eq!(device.claims_of(&tokens).unwrap()["sub"], "device:ida");
}

#[tokio::test]
async fn the_answer_is_that_of_rfc_8628_and_is_not_to_be_kept() {
    let test = TestBroker::start().await;
    let device = test.paired("lobby-printer-01", "printer").await;
    let mark = test.mark().await;
    let answer = test.ask(&device, CODE, &[("client_id", &device.id), ("foo", "bar"), ("scope", "")]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("dpop-nonce").is_some());
    let records = test.recorded(&mark).await;
    assert_eq!(records.iter().map(|record| record.event.as_str()).collect::<Vec<_>>(), ["code.issued"]);
    assert_eq!(
        (records[0].actor.as_str(), records[0].device.as_deref()),
        ("device:lobby-printer-01", Some("lobby-printer-01"))
    );
    let mut body = answer.json().unwrap();
    let user_code = body["user_code"].as_str().unwrap().to_owned();
    let device_code = body["device_code"].as_str().unwrap().to_owned();
    let shape: String = user_code.chars().map(|c| if "BCDFGHJKLMNPQRSTVWXZ".contains(c) { 'L' } else { c }).collect();
    assert!(shape == "LLL-LLLL-LLLLL" && user_code.starts_with("PRN-"), "{user_code}");
    assert_eq!(
        body["verification_uri_complete"].as_str().unwrap(),
        format!("{}?user_code={user_code}", body["verification_uri"].as_str().unwrap())
    );
    let rows = test.rows();
    let secrets = [device_code.as_str(), user_code.as_str(), &user_code[4..], &user_code.replace('-', "")[3..]];
    assert!(secrets.iter().all(|secret| !rows.contains(secret)), "only hashes are stored");
    body["device_code"] = "[device_code]".into();
    body["user_code"] = "[user_code]".into();
    body["verification_uri_complete"] = "[verification_uri]?user_code=[user_code]".into();
    redact(&mut body, &test.issuer);
    insta::assert_json_snapshot!(body, @r#"
    {
      "device_code": "[device_code]",
      "expires_in": 300,
      "interval": 5,
      "user_code": "[user_code]",
      "verification_uri": "[issuer]/approve",
      "verification_uri_complete": "[verification_uri]?user_code=[user_code]"
    }
    "#);
}

#[tokio::test]
async fn metadata_says_what_the_endpoints_do_r_8414() {
    let test = TestBroker::start().await;
    let answer = test.wire.send(test.wire.get(&test.url("/.well-known/oauth-authorization-server"))).await.unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let mut metadata = answer.json().unwrap();
    assert_eq!(metadata["issuer"], json!(test.issuer), "exactly the issuer, or clients must refuse it");
    redact(&mut metadata, &test.issuer);
    insta::assert_json_snapshot!(metadata, @r#"
    {
      "authorization_response_iss_parameter_supported": true,
      "device_authorization_endpoint": "[issuer]/device_authorization",
      "dpop_signing_alg_values_supported": [
        "ES256",
        "EdDSA",
        "Ed25519",
        "RS256"
      ],
      "grant_types_supported": [
        "urn:ietf:params:oauth:grant-type:device_code",
        "refresh_token"
      ],
      "introspection_endpoint": "[issuer]/introspect",
      "introspection_endpoint_auth_methods_supported": [
        "private_key_jwt"
      ],
      "introspection_endpoint_auth_signing_alg_values_supported": [
        "ES256",
        "EdDSA",
        "Ed25519",
        "RS256"
      ],
      "issuer": "[issuer]",
      "jwks_uri": "[issuer]/jwks",
      "pairing_endpoint": "[issuer]/pairing",
      "response_types_supported": [
        "none"
      ],
      "revocation_endpoint": "[issuer]/revoke",
      "revocation_endpoint_auth_methods_supported": [
        "dpop",
        "private_key_jwt"
      ],
      "revocation_endpoint_auth_signing_alg_values_supported": [
        "ES256",
        "EdDSA",
        "Ed25519",
        "RS256"
      ],
      "scopes_supported": [
        "print.read",
        "room-calendar.read",
        "scan.write",
        "session.start",
        "signage.read"
      ],
      "service_documentation": "[issuer]/openapi.json",
      "tls_client_certificate_bound_access_tokens": false,
      "token_endpoint": "[issuer]/token",
      "token_endpoint_auth_methods_supported": [
        "dpop",
        "private_key_jwt"
      ],
      "token_endpoint_auth_signing_alg_values_supported": [
        "ES256",
        "EdDSA",
        "Ed25519",
        "RS256"
      ]
    }
    "#);
}

#[tokio::test]
async fn the_key_set_holds_public_members_only() {
    let test = TestBroker::start().await;
    let answer = test.wire.send(test.wire.get(&test.url("/jwks"))).await.unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let mut set = answer.json().unwrap();
    for key in set["keys"].as_array_mut().unwrap() {
        for private in ["d", "p", "q", "dp", "dq", "qi", "k", "oth"] {
            assert!(key.get(private).is_none(), "{private}");
        }
        for random in ["kid", "x", "y"] {
            assert_eq!(key[random].as_str().unwrap().len(), 43);
            key[random] = format!("[{random}]").into();
        }
    }
    insta::assert_json_snapshot!(set, @r#"
    {
      "keys": [
        {
          "alg": "ES256",
          "crv": "P-256",
          "kid": "[kid]",
          "kty": "EC",
          "use": "sig",
          "x": "[x]",
          "y": "[y]"
        }
      ]
    }
    "#);
}

#[tokio::test]
async fn a_kind_that_must_be_on_its_site_gets_no_code_elsewhere() {
    let test = TestBroker::with_kind("printer", |kind| kind.site_network = true).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    for networks in [&[][..], &["10.0.0.0/8"], &["10.0.0.0/8", "::1/128"]] {
        test.set_networks(networks).await;
        let mark = test.mark().await;
        let answer = test.ask(&device, CODE, &[("client_id", &device.id)]).await;
        is_error(&answer, 400, "unauthorized_client", "off site");
        test.untouched(&mark, &["code.refused"], "off site").await;
        // A header of the device's own does not move it.
        let proof = test.proof(&device, CODE).await;
        let headers = [("dpop", proof.as_str()), ("x-forwarded-for", "10.1.2.3"), ("forwarded", "for=10.1.2.3")];
        let answer = device.post_form(CODE, &[("client_id", &device.id)], &headers).await.unwrap();
        is_error(&answer, 400, "unauthorized_client", "forged address");
    }
    test.set_networks(&["10.0.0.0/8", "127.0.0.0/8"]).await;
    device.request_code(None, None).await.unwrap();
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Pending { .. }));
}

/// Takes out what differs from run to run.
fn redact(value: &mut Value, issuer: &str) {
    match value {
        Value::String(text) => *text = text.replace(issuer, "[issuer]"),
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, issuer)),
        Value::Object(members) => members.values_mut().for_each(|member| redact(member, issuer)),
        _ => {}
    }
}
