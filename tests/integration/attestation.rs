//! How a key is kept (docs/api.md section 1.3): what a device claims, what its maker proves, and what a kind asks for.

use std::time::Duration;

use pairgate::broker::Caller;
use pairgate::broker::pairing::Confirm;
use pairgate::clock::Timestamp;
use pairgate::config::Config;
use pairgate::device_auth::attestation::{Expected, check};
use pairgate::id::DeviceId;
use pairgate::model::device::{DeviceFacts, KeyAssurance};
use pairgate::model::kind::Kind;
use pairgate::model::operator::Role;
use pairgate::oauth::roots::Roots;
use pairgate::simulator::{DeviceKey, Idevid, PairingStatus, SimulatedDevice, TokenAnswer, jose};
use rcgen::{CustomExtension, ExtendedKeyUsagePurpose, date_time_ymd};
use serde_json::{Value, json};

use crate::pairing::{expected, waiting};
use crate::support::maker::{Maker, self_signed};
use crate::support::probe::{CODE, is_error, pairing_claims, pairing_poll, pairing_request};
use crate::support::{START, Setup, TestBroker};

const LOBBY: &str = "lobby-printer-01";
const SERIAL: &str = "VNB3K12345";
const ISSUER: &str = "https://pairgate.example";
const NONCE: [u8; 32] = [4; 32];
const JKT: [u8; 32] = [1; 32];

/// A flawless statement, and what it is held against.
struct Case {
    idevid: Idevid,
    header: Value,
    claims: Value,
    serial: &'static str,
    roots: Roots,
    now: Timestamp,
}

impl Case {
    fn of(maker: &Maker, idevid: Idevid) -> Self {
        let claims =
            json!({"iss": LOBBY, "aud": ISSUER, "iat": 1, "jkt": jose::b64u(&JKT), "broker_nonce": jose::b64u(&NONCE)});
        Self { header: idevid.header(), idevid, claims, serial: SERIAL, roots: maker.roots(), now: START }
    }

    /// Shows these certificates, whoever signs.
    fn shows(&mut self, chain: Vec<Vec<u8>>) {
        self.header = Idevid { chain, key: self.idevid.key.clone() }.header();
    }

    fn outcome(&self) -> Result<(), String> {
        let statement = self.idevid.key.sign_raw(&self.header, &self.claims).unwrap();
        let device = DeviceId::new(LOBBY).unwrap();
        let about = Expected { device: &device, serial: self.serial, issuer: ISSUER, jkt: &JKT, broker_nonce: &NONCE };
        check(&statement, &about, &self.roots, self.now).map_err(|error| error.to_string())
    }
}

#[test]
fn identities_as_makers_make_them_are_believed() {
    let maker = Maker::new("Maker");
    let factory = maker.factory("Factory").factory("Line 7");
    let with_root = |mut idevid: Idevid| {
        idevid.chain.push(maker.root());
        idevid
    };
    let ten_years = |params: &mut rcgen::CertificateParams| params.not_after = date_time_ymd(2030, 1, 1);
    for (what, idevid) in [
        ("never expires, no usage", maker.idevid(SERIAL)),
        ("ten years", maker.idevid_with(SERIAL, ten_years)),
        ("two below", factory.idevid(SERIAL)),
        ("with its root", with_root(maker.idevid(SERIAL))),
        ("four certificates", with_root(factory.idevid(SERIAL))),
        (
            "for clients",
            maker.idevid_with(SERIAL, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        ),
    ] {
        assert_eq!(Case::of(&maker, idevid).outcome(), Ok(()), "{what}");
    }
}

/// One mutation a row.
#[test]
fn a_statement_that_is_not_wholly_right_proves_nothing_a_010_a_011() {
    let maker = Maker::new("Maker");
    type Spoil = fn(&mut Case, &Maker);
    let rows: [(&str, Spoil, &str); 25] = [
        (
            "of another pairing",
            |case, _| case.claims["broker_nonce"] = jose::b64u(&[5; 32]).into(),
            "claim broker_nonce",
        ),
        ("about another key", |case, _| case.claims["jkt"] = jose::b64u(&[2; 32]).into(), "claim jkt"),
        ("about another device", |case, _| case.claims["iss"] = "attic-printer-02".into(), "claim iss"),
        ("for another broker", |case, _| case.claims["aud"] = "https://other.example".into(), "claim aud"),
        ("no nonce", |case, _| case.claims["broker_nonce"] = Value::Null, "claim is missing"),
        ("typ of a poll", |case, _| case.header["typ"] = "pairing-poll+jwt".into(), "typ"),
        ("no typ", |case, _| case.header["typ"] = Value::Null, "typ"),
        ("a key in its header", |case, _| case.header["jwk"] = case.idevid.key.jwk().clone(), "must not carry"),
        ("a link in its header", |case, _| case.header["x5u"] = "https://evil.example".into(), "must not carry"),
        ("not signed", |case, _| case.header["alg"] = "none".into(), "alg"),
        ("another box shows it", |case, maker| case.shows(maker.idevid(SERIAL).chain), "signature"),
        ("no certificate", |case, _| case.shows(Vec::new()), "1 to 4 certificates"),
        ("x5c missing", |case, _| case.header["x5c"] = Value::Null, "1 to 4 certificates"),
        (
            "x5c in base64url",
            |case, _| case.header["x5c"] = json!([jose::b64u(&case.idevid.chain[0])]),
            "base64 of DER",
        ),
        ("no certificate at all", |case, _| case.header["x5c"] = json!(["AAAA"]), "no X.509"),
        (
            "five certificates",
            |case, maker| case.shows([case.idevid.chain.clone(), vec![maker.root(); 4]].concat()),
            "1 to 4 certificates",
        ),
        ("root first", |case, maker| case.shows(vec![maker.root(), case.idevid.chain[0].clone()]), "signature"),
        ("no maker is believed", |case, _| case.roots = Roots::default(), "no attestation_roots"),
        ("another serial is registered", |case, _| case.serial = "VNB3K12346", "not the registered one"),
        ("part of the serial is registered", |case, _| case.serial = "VNB3K1234", "not the registered one"),
        ("no serial is registered", |case, _| case.serial = "", "no serial number is registered"),
        ("in the year 10000", |case, _| case.now = Timestamp::from_millis(253_402_300_800_000), "root"),
        ("before it was made", |case, _| case.now = Timestamp::from_millis(1), "root"),
        ("claims changed", |case, _| case.claims["iat"] = "soon".into(), "wrong type"),
        ("foreign root", |case, _| case.roots = Maker::new("Maker").roots(), "root"),
    ];
    for (what, spoil, why) in rows {
        let mut case = Case::of(&maker, maker.idevid(SERIAL));
        spoil(&mut case, &maker);
        let error = case.outcome().unwrap_err();
        assert!(error.contains(why), "{what}: {error}");
    }
    for garbage in ["", "x", "a.b.c", &"x".repeat(10_000)] {
        let device = DeviceId::new(LOBBY).unwrap();
        let about = Expected { device: &device, serial: SERIAL, issuer: ISSUER, jkt: &JKT, broker_nonce: &NONCE };
        assert!(check(garbage, &about, &maker.roots(), START).is_err());
    }
}

/// One identity a row; the statement is right.
#[test]
fn an_identity_that_no_believed_maker_gave_this_box_proves_nothing_a_010_a_011() {
    let (maker, foreign) = (Maker::new("Maker"), Maker::new("Maker"));
    let factory = maker.factory("Factory");
    let unknown = |params: &mut rcgen::CertificateParams| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 7], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    };
    let twice = |params: &mut rcgen::CertificateParams| {
        params.distinguished_name.push(rcgen::DnType::CustomDnType(vec![2, 5, 4, 5]), "VNB3K99999");
    };
    let without_factory = |mut idevid: Idevid| {
        idevid.chain.truncate(1);
        idevid
    };
    for (what, idevid, why) in [
        // The same name, the same serial: it is the key that counts.
        ("of a maker who is not believed", foreign.idevid(SERIAL), "no configured root"),
        ("that vouches for itself", self_signed(SERIAL), "no configured root"),
        ("of another box", maker.idevid("VNB3K99999"), "not the registered one"),
        ("without a serial", maker.idevid(""), "not the registered one"),
        ("replaced serial", maker.idevid_with(SERIAL, twice), "not the registered one"),
        ("expired", maker.idevid_with(SERIAL, |params| params.not_after = date_time_ymd(2026, 1, 1)), "root"),
        ("not valid yet", maker.idevid_with(SERIAL, |params| params.not_before = date_time_ymd(2027, 1, 1)), "root"),
        ("the factory missing", without_factory(factory.idevid(SERIAL)), "no configured root"),
        ("with an unknown critical extension", maker.idevid_with(SERIAL, unknown), "1.3.6.1.4.1.99999.7"),
        (
            "for servers",
            maker.idevid_with(SERIAL, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            "root",
        ),
    ] {
        let error = Case::of(&maker, idevid).outcome().unwrap_err();
        assert!(error.contains(why), "an identity {what}: {error}");
    }
}

fn kinds(key_assurance: KeyAssurance) -> Vec<Kind> {
    Config::default().kinds.into_iter().map(|kind| Kind { key_assurance, ..kind }).collect()
}

async fn broker(maker: &Maker, key_assurance: KeyAssurance) -> TestBroker {
    let setup = Setup { attestation_roots: maker.roots(), kinds: kinds(key_assurance), ..Setup::default() };
    TestBroker::with(setup).await
}

/// A registered device with a serial number and an open window.
async fn with_serial(test: &TestBroker) -> SimulatedDevice {
    let facts = DeviceFacts { kind: "printer".into(), serial: SERIAL.into(), ..DeviceFacts::default() };
    test.broker.register_device(&Caller::command_line(), LOBBY, facts).await.unwrap();
    test.open_window(LOBBY).await;
    let mut device = test.stranger(LOBBY);
    device.serial = SERIAL.into();
    device
}

async fn assurance(test: &TestBroker) -> KeyAssurance {
    test.broker.device(&Caller::command_line(), LOBBY).await.unwrap().key.unwrap().assurance
}

#[tokio::test]
async fn what_the_maker_proves_is_shown_and_stands_in_the_token() {
    let maker = Maker::new("Maker");
    let test = broker(&maker, KeyAssurance::Attested).await;
    let ida = test.operator("ida", Role::Admin).await;
    let dana = test.visitor("dana", Role::Technician).await;
    let mut device = with_serial(&test).await;
    device.idevid = Some(maker.factory("Factory").idevid(SERIAL));
    let (shown, digits) = waiting(&test, &mut device).await;
    assert_eq!(device.key_assurance, "attested");
    const WORDS: &str = "ardware key, proved by the maker&#39;s certificate";
    for path in ["/pair", &format!("/pair/{}", shown.pairing_id)] {
        assert!(dana.get(path).await.body.contains(WORDS), "{path}");
    }
    ida.pair_by_number(&shown.pairing_id, &digits).await.unwrap();
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
    assert_eq!((assurance(&test).await, device.key_assurance.as_str()), (KeyAssurance::Attested, "attested"));
    assert!(dana.get(&format!("/devices/{LOBBY}")).await.body.contains(WORDS));
    let tokens = test.signed_in(&ida, &mut device).await;
    assert_eq!(device.claims_of(&tokens).unwrap()["key_assurance"], "attested");
    let code = device.request_code(None, None).await.unwrap();
    let path = ida.claim(&code.verification_uri_complete).await.unwrap();
    let approver = test.another_session("ida").await;
    assert!(approver.get(&path).await.body.contains(WORDS));
    assert_eq!(test.count("pairing.attestation_refused").await, 0);
    let records = test.records().await;
    let confirmed = records.iter().find(|record| record.event == "pairing.confirmed").unwrap();
    assert!(confirmed.detail.contains("(attested)"), "{}", confirmed.detail);
}

#[tokio::test]
async fn the_identity_may_be_the_key_that_is_paired() {
    let maker = Maker::new("Maker");
    let test = broker(&maker, KeyAssurance::Software).await;
    let mut device = with_serial(&test).await;
    let idevid = maker.idevid(SERIAL);
    device.key = idevid.key.clone();
    device.idevid = Some(idevid);
    waiting(&test, &mut device).await;
    assert_eq!(device.key_assurance, "attested");
}

#[tokio::test]
async fn a_foreign_or_old_statement_leaves_the_key_what_it_was_and_raises_an_alarm_a_010_a_011() {
    let (maker, foreign) = (Maker::new("Maker"), Maker::new("Maker"));
    let test = broker(&maker, KeyAssurance::Attested).await;
    let dana = test.visitor("dana", Role::Technician).await;
    let mut device = with_serial(&test).await;
    device.key_storage = "hardware".into();
    for (what, idevid, claims) in [
        ("a foreign maker", foreign.idevid(SERIAL), "hardware-claimed"),
        ("another box", maker.idevid("VNB3K99999"), "hardware-claimed"),
        ("itself", self_signed(SERIAL), "hardware-claimed"),
    ] {
        device.idevid = Some(idevid);
        let mark = test.mark().await;
        let (shown, digits) = waiting(&test, &mut device).await;
        assert_eq!(device.key_assurance, claims, "{what}");
        let records = test.recorded(&mark).await;
        let alarm = records.iter().find(|record| record.event == "pairing.attestation_refused").unwrap();
        assert_eq!((alarm.severity.as_str(), alarm.device.as_deref()), ("alert", Some(LOBBY)), "{what}");
        assert!(alarm.detail.contains(&device.key.short()), "{what}: {}", alarm.detail);
        // The kind wants more: nothing that people compare makes up for it, and no try is lost.
        let mark = test.mark().await;
        let jkt = device.key.jkt();
        for how in [Confirm::Number(&digits), Confirm::Number("x"), Confirm::Qr(&jkt), Confirm::Vouched] {
            let refusal = test.broker.confirm_pairing(&Caller::command_line(), &shown.pairing_id, &how).await;
            let error = refusal.unwrap_err().to_string();
            assert!(error.contains("proved by the maker's certificate") && error.contains("own word"), "{error}");
        }
        let answer = dana.get(&format!("/pair/{}?key={jkt}", shown.pairing_id)).await;
        assert!(answer.body.contains("It cannot be paired."), "{what}");
        let german = dana.get_with(&format!("/pair/{}", shown.pairing_id), &[("accept-language", "de")]).await;
        assert!(german.body.contains("brauchen: Hardware-Schlüssel, durch das Zertifikat"), "{}", german.body);
        assert!(!answer.body.contains("pair_by_qr") && !answer.body.contains("pair_by_number"), "{what}");
        test.untouched(&mark, &[], what).await;
        test.broker.decline_pairing(&Caller::command_line(), &shown.pairing_id).await.unwrap();
    }
}

/// By hand: a statement may also come with a later poll, it only raises, and one of another pairing is worth nothing.
#[tokio::test]
async fn a_statement_may_come_later_and_counts_for_its_own_pairing_only_a_010() {
    let maker = Maker::new("Maker");
    let test = broker(&maker, KeyAssurance::Software).await;
    let device = with_serial(&test).await;
    let idevid = maker.idevid(SERIAL);
    let begin = async || {
        let claims =
            pairing_claims(&device.post_jwt("/pairing", &pairing_request(&device, &[1; 32], |_, _| {})).await.unwrap());
        let about = json!({
            "iss": LOBBY, "aud": test.issuer, "iat": 1, "jkt": device.key.jkt(), "broker_nonce": claims["broker_nonce"],
        });
        (claims["pairing_id"].as_str().unwrap().to_owned(), idevid.attest(&about).unwrap())
    };
    let poll = async |id: &str, statement: Value| {
        let jwt = pairing_poll(&device, id, &[1; 32], |claims| claims["attestation"] = statement);
        device.post_jwt("/pairing/poll", &jwt).await.unwrap()
    };
    let (_, old) = begin().await;
    let (id, fresh) = begin().await;
    for (what, statement, accepted) in [
        ("none", Value::Null, "software"),
        ("of the former pairing", old.clone().into(), "software"),
        ("garbage", "x".into(), "software"),
        ("its own", fresh.into(), "attested"),
        ("none again", Value::Null, "attested"),
        ("a bad one after a good one", old.into(), "attested"),
    ] {
        assert_eq!(pairing_claims(&poll(&id, statement).await)["key_assurance"], accepted, "{what}");
    }
    assert_eq!(test.count("pairing.attestation_refused").await, 2);
    is_error(&poll(&id, json!(7)).await, 400, "invalid_request", "no text");
    let padded = pairing_poll(&device, &id, &[1; 32], |claims| claims["padding"] = "x".repeat(12_000).into());
    is_error(&device.post_jwt("/pairing/poll", &padded).await.unwrap(), 400, "invalid_request", "too long");
}

#[tokio::test]
async fn hardware_is_claimed_by_one_word_and_nothing_else_is_an_error() {
    let test = TestBroker::start().await;
    let device = expected(&test, LOBBY).await;
    for (said, accepted) in [
        (json!("hardware"), "hardware-claimed"),
        (Value::Null, "software"),
        (json!("software"), "software"),
        (json!("Hardware"), "software"),
        (json!("attested"), "software"),
        (json!(["hardware"]), "software"),
        (json!(1), "software"),
        (json!({}), "software"),
    ] {
        let request = pairing_request(&device, &[1; 32], |_, claims| claims["key_storage"] = said.clone());
        let claims = pairing_claims(&device.post_jwt("/pairing", &request).await.unwrap());
        let poll = pairing_poll(&device, claims["pairing_id"].as_str().unwrap(), &[1; 32], |_| {});
        let answer = pairing_claims(&device.post_jwt("/pairing/poll", &poll).await.unwrap());
        assert_eq!(answer["key_assurance"], accepted, "{said}");
    }
}

#[tokio::test]
async fn a_kind_that_wants_more_than_before_gives_nothing_to_what_it_has_a_010() {
    let maker = Maker::new("Maker");
    let test = broker(&maker, KeyAssurance::Software).await;
    let ida = test.operator("ida", Role::Admin).await;
    let mut device = test.paired(LOBBY, "printer").await;
    let tokens = test.signed_in(&ida, &mut device).await;
    let code = device.request_code(None, None).await.unwrap();
    test.approve(&ida, &mut device, &code.verification_uri_complete).await;
    let mut test = test;
    test.setup.kinds = kinds(KeyAssurance::HardwareClaimed);
    let test = test.restart().await;
    let refused = test.ask(&device, CODE, &[("client_id", LOBBY)]).await;
    is_error(&refused, 400, "unauthorized_client", "no code");
    assert!(matches!(device.poll_token(None).await.unwrap(), TokenAnswer::Denied), "no tokens");
    let renewed = test.renew(&device, tokens.refresh_token.as_deref().unwrap()).await;
    is_error(&renewed, 400, "invalid_grant", "no renewal");
    // A new key that is kept better is a new pairing.
    let mut better = SimulatedDevice::new(LOBBY, &test.issuer, DeviceKey::generate_es256().unwrap(), test.wire.clone());
    better.key_storage = "hardware".into();
    test.pair(&mut better).await;
    assert_eq!(assurance(&test).await, KeyAssurance::HardwareClaimed);
    test.advance(Duration::from_secs(60).as_secs());
    better.request_code(None, None).await.unwrap();
}
