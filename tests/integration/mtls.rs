//! Client certificates (RFC 8705) over real TLS: the pinned key gets in, whatever the certificate says; nothing else does.

use pairgate::model::operator::Role;
use pairgate::simulator::{DeviceKey, PageOperator, RawAnswer, SimulatedDevice, Wire, jose};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::support::probe::{is_error, jti, poll_of, refresh_of};
use crate::support::{START, Setup, TestBroker};

/// A device with a certificate, and a broker over TLS.
struct Bench {
    test: TestBroker,
    device: SimulatedDevice,
    key: KeyPair,
    operator: PageOperator,
}

/// An authority for client certificates.
struct Authority {
    key: KeyPair,
    params: CertificateParams,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        Self { key: KeyPair::generate().unwrap(), params }
    }

    fn pem(&self) -> Vec<u8> {
        self.params.self_signed(&self.key).unwrap().pem().into_bytes()
    }

    fn issue(&self, params: &CertificateParams, key: &KeyPair) -> String {
        params.signed_by(key, &Issuer::from_params(&self.params, &self.key)).unwrap().pem()
    }

    fn revoke(&self, serial: u64) -> Vec<u8> {
        let at = |seconds: i64| OffsetDateTime::from_unix_timestamp(START.seconds() + seconds).unwrap();
        let params = rcgen::CertificateRevocationListParams {
            this_update: at(-3600),
            next_update: at(86_400),
            crl_number: rcgen::SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![rcgen::RevokedCertParams {
                serial_number: rcgen::SerialNumber::from(serial),
                revocation_time: at(-3600),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap().pem().unwrap().into_bytes()
    }
}

/// A certificate's contents: a name, a serial number, valid for a year.
fn contents(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(serial.into());
    (params.not_before, params.not_after) = (at(-86_400), at(365 * 86_400));
    params
}

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(START.seconds() + seconds).unwrap()
}

impl Bench {
    async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    async fn with(setup: Setup) -> Self {
        let test = TestBroker::with_tls(setup).await;
        let key = KeyPair::generate().unwrap();
        let device_key = DeviceKey::from_pkcs8_b64u("ES256", &jose::b64u(&key.serialize_der())).unwrap();
        test.register("lobby-printer-01", "printer").await;
        let mut device = test.twin("lobby-printer-01", &device_key);
        test.pair(&mut device).await;
        let operator = test.operator("dana", Role::Admin).await;
        Self { test, device, key, operator }
    }

    fn self_signed(&self) -> String {
        contents("lobby-printer-01", 1).self_signed(&self.key).unwrap().pem()
    }

    /// A client with this certificate and the device's key.
    fn wire(&self, certificate: &str) -> Wire {
        self.wire_by(certificate, &self.key)
    }

    fn wire_by(&self, certificate: &str, key: &KeyPair) -> Wire {
        Wire::with_tls(&self.test.ca_pem(), Some(&format!("{certificate}{}", key.serialize_pem()))).unwrap()
    }

    async fn ask(&self, wire: &Wire, path: &str, params: &[(&str, &str)]) -> RawAnswer {
        wire.send(wire.post(&format!("{}{path}", self.test.mtls)).form(params)).await.unwrap()
    }

    async fn code(&self, wire: &Wire) -> RawAnswer {
        self.ask(wire, "/device_authorization", &[("client_id", "lobby-printer-01")]).await
    }

    /// Refused like a stranger, with this reason in the record, and nothing stored.
    async fn refused(&self, what: &str, wire: &Wire, event: &str, reason: &str) {
        let mark = self.test.mark().await;
        is_error(&self.code(wire).await, 401, "invalid_client", what);
        let records = self.test.untouched(&mark, &[event], what).await;
        assert!(records[0].detail.contains(reason), "{what}: {}", records[0].detail);
    }

    /// The whole way by certificate; the tokens.
    async fn sign_in(&self, wire: &Wire) -> Value {
        let code = self.code(wire).await;
        assert_eq!(code.status, 200, "{}", code.body);
        let code = code.json().unwrap();
        let (device_code, uri) =
            (code["device_code"].as_str().unwrap(), code["verification_uri_complete"].as_str().unwrap());
        let path = self.operator.claim(uri).await.unwrap();
        self.test.advance(10);
        let pending = self.ask(wire, "/token", &poll_of(device_code, "lobby-printer-01")).await.json().unwrap();
        self.operator.approve(&path, pending["confirmation_number"].as_str().unwrap()).await.unwrap();
        self.test.advance(10);
        let answer = self.ask(wire, "/token", &poll_of(device_code, "lobby-printer-01")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json().unwrap()
    }
}

fn x5t(certificate: &str) -> String {
    use rustls::pki_types::pem::PemObject as _;
    let der = rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    jose::b64u(&pairgate::secret::sha256(&[&der]))
}

#[tokio::test]
async fn a_device_signs_in_by_certificate_and_a_renewed_one_with_the_same_key_goes_on() {
    let bench = Bench::new().await;
    let first = bench.self_signed();
    let wire = bench.wire(&first);
    let tokens = bench.sign_in(&wire).await;
    assert_eq!(tokens["token_type"], "Bearer");
    let claims = jose::peek(tokens["access_token"].as_str().unwrap()).unwrap().claims;
    assert_eq!(claims["cnf"], json!({"x5t#S256": x5t(&first)}));
    // R-8705-07: the new certificate gets new tokens; the old ones are bound to the old one.
    let renewed = contents("another name", 2).self_signed(&bench.key).unwrap().pem();
    let wire = bench.wire(&renewed);
    let refresh = refresh_of(tokens["refresh_token"].as_str().unwrap(), "lobby-printer-01");
    let answer = bench.ask(&wire, "/token", &refresh).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let claims = jose::peek(answer.json().unwrap()["access_token"].as_str().unwrap()).unwrap().claims;
    assert_eq!(claims["cnf"], json!({"x5t#S256": x5t(&renewed)}));
}

/// Names and issuers count for nothing; the key does.
#[tokio::test]
async fn a_certificate_of_the_same_name_with_another_key_is_refused_a_011() {
    let trusted = Authority::new("Organisation CA");
    let setup = Setup { client_ca: vec![trusted.pem()], ..Setup::default() };
    let bench = Bench::with(setup).await;
    let other = KeyPair::generate().unwrap();
    let names = contents("lobby-printer-01", 7);
    for (what, certificate) in [
        ("self-signed look-alike", names.self_signed(&other).unwrap().pem()),
        ("by the trusted authority", trusted.issue(&names, &other)),
        ("by another authority", Authority::new("Organisation CA").issue(&names, &other)),
    ] {
        bench.refused(what, &bench.wire_by(&certificate, &other), "key.mismatch", "key ").await;
    }
    assert_eq!(bench.code(&bench.wire(&bench.self_signed())).await.status, 200, "the device is not disturbed");
}

/// Keycloak CVE-2023-2422: another certificate of the message was read than the one that was proved (A-012, D-03).
#[tokio::test]
async fn only_the_certificate_that_was_proved_counts_a_012_d_03() {
    let bench = Bench::new().await;
    let thief = KeyPair::generate().unwrap();
    let own = contents("thief", 9).self_signed(&thief).unwrap().pem();
    let victims = bench.self_signed();
    let wire = Wire::with_tls(&bench.test.ca_pem(), Some(&format!("{own}{victims}{}", thief.serialize_pem()))).unwrap();
    bench.refused("the victim's certificate behind its own", &wire, "key.mismatch", "key ").await;
    let params = [("client_id", "lobby-printer-01")];
    let swapped = Wire::with_tls(&bench.test.ca_pem(), Some(&format!("{victims}{own}{}", thief.serialize_pem())));
    if let Ok(wire) = swapped {
        let answer = wire.send(wire.post(&format!("{}/device_authorization", bench.test.mtls)).form(&params)).await;
        assert!(
            answer.is_err(),
            "the victim's certificate with the thief's key does not even get through the handshake"
        );
    }
}

#[tokio::test]
async fn expired_early_and_revoked_certificates_are_refused_and_only_the_record_says_why_a_013() {
    let authority = Authority::new("Organisation CA");
    let setup = Setup { client_ca: vec![authority.pem()], client_crl: vec![authority.revoke(66)], ..Setup::default() };
    let bench = Bench::with(setup).await;
    let mut expired = contents("lobby-printer-01", 3);
    (expired.not_before, expired.not_after) = (at(-86_400), at(-1));
    let mut early = contents("lobby-printer-01", 4);
    (early.not_before, early.not_after) = (at(60), at(86_400));
    let revoked = contents("lobby-printer-01", 66);
    for (what, certificate, reason) in [
        ("expired", expired.self_signed(&bench.key).unwrap().pem(), "expired"),
        ("expired, by the authority", authority.issue(&expired, &bench.key), "expired"),
        ("not yet valid", early.self_signed(&bench.key).unwrap().pem(), "not valid yet"),
        ("revoked", authority.issue(&revoked, &bench.key), "revoked"),
    ] {
        bench.refused(what, &bench.wire(&certificate), "key.mismatch", reason).await;
    }
    let good = authority.issue(&contents("lobby-printer-01", 67), &bench.key);
    assert_eq!(bench.code(&bench.wire(&good)).await.status, 200);
}

/// A kind may want the organisation's authority besides the key (RFC 8705 section 2.1).
#[tokio::test]
async fn a_kind_may_want_the_organisations_authority_besides_the_key() {
    let authority = Authority::new("Organisation CA");
    let mut setup = Setup { client_ca: vec![authority.pem()], ..Setup::default() };
    setup.kinds[0].certified = true;
    let bench = Bench::with(setup).await;
    bench.refused("self-signed", &bench.wire(&bench.self_signed()), "key.mismatch", "no authority of ours").await;
    let foreign = Authority::new("Organisation CA").issue(&contents("x", 5), &bench.key);
    bench.refused("by another of the same name", &bench.wire(&foreign), "key.mismatch", "no authority of ours").await;
    let good = authority.issue(&contents("x", 6), &bench.key);
    assert_eq!(bench.sign_in(&bench.wire(&good)).await["token_type"], "Bearer");
}

/// Otherwise the key of a revoked certificate would only have to be used in another way.
#[tokio::test]
async fn where_the_kind_wants_the_authority_the_key_alone_is_not_enough_a_013() {
    let authority = Authority::new("Organisation CA");
    let mut setup = Setup { client_ca: vec![authority.pem()], ..Setup::default() };
    setup.kinds[0].certified = true;
    let bench = Bench::with(setup).await;
    let test = &bench.test;
    let nonce = test.nonce(&bench.device).await;
    let proof = bench.device.proof("POST", &test.url("/device_authorization"), Some(&nonce), &jti()).unwrap();
    let now = test.broker.now().seconds();
    let claims =
        json!({"iss": bench.device.id, "sub": bench.device.id, "aud": test.issuer, "exp": now + 60, "jti": jti()});
    let assertion = bench.device.key.sign_raw(&json!({"alg": "ES256", "typ": "JWT"}), &claims).unwrap();
    let by_assertion = [
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.as_str()),
    ];
    let by_proof = [("client_id", "lobby-printer-01")];
    for (what, form, headers) in
        [("a proof", &by_proof[..], vec![("dpop", proof.as_str())]), ("an assertion", &by_assertion[..], vec![])]
    {
        let mark = test.mark().await;
        let answer = crate::support::post(&test.wire, &test.url("/device_authorization"), form, &headers).await;
        is_error(&answer, 401, "invalid_client", what);
        let records = test.untouched(&mark, &["key.mismatch"], what).await;
        assert!(records[0].detail.contains("without the certificate"), "{what}: {}", records[0].detail);
    }
}

/// The certificate of one device and the assertion or proof of another.
#[tokio::test]
async fn a_certificate_and_another_way_of_authentication_are_refused_a_015() {
    let bench = Bench::new().await;
    let neighbour = bench.test.paired("attic-printer-02", "printer").await;
    let wire = bench.wire(&bench.self_signed());
    let now = bench.test.broker.now().seconds();
    let claims =
        json!({"iss": neighbour.id, "sub": neighbour.id, "aud": bench.test.issuer, "exp": now + 60, "jti": jti()});
    let assertion = neighbour.key.sign_raw(&json!({"alg": "ES256", "typ": "JWT"}), &claims).unwrap();
    let params = [
        ("client_id", "lobby-printer-01"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.as_str()),
    ];
    let mark = bench.test.mark().await;
    let answer = bench.ask(&wire, "/device_authorization", &params).await;
    is_error(&answer, 400, "invalid_request", "certificate of one, assertion of another");
    let answer = bench.ask(&wire, "/device_authorization", &[("client_id", "attic-printer-02")]).await;
    is_error(&answer, 401, "invalid_client", "certificate of one, client_id of another (R-8705-01)");
    let answer = bench.ask(&wire, "/device_authorization", &[]).await;
    is_error(&answer, 400, "invalid_request", "no client_id (R-8705-01)");
    bench.test.untouched(&mark, &["key.mismatch"], "two ways").await;
    // A proof by the same key beside the certificate: the token is bound to the key.
    let address = format!("{}/device_authorization", bench.test.mtls);
    for (device, expected) in [(&neighbour, 400), (&bench.device, 200)] {
        let first = device.proof("POST", &address, None, &jti()).unwrap();
        let send = |proof: String| {
            let request = wire.post(&address).form(&[("client_id", "lobby-printer-01")]).header("dpop", proof);
            wire.send(request)
        };
        let nonce = send(first).await.unwrap().header("dpop-nonce").unwrap().to_owned();
        let answer = send(device.proof("POST", &address, Some(&nonce), &jti()).unwrap()).await.unwrap();
        assert_eq!(answer.status, expected, "{}", answer.body);
    }
}

/// A suspension counts at once, also in a session that is resumed: the registry is asked for each request, not for each handshake.
#[tokio::test]
async fn a_resumed_session_is_no_way_around_the_registry() {
    let bench = Bench::new().await;
    let wire = bench.wire(&bench.self_signed());
    assert_eq!(bench.code(&wire).await.status, 200);
    bench.test.suspend("lobby-printer-01").await;
    is_error(&bench.code(&wire).await, 400, "unauthorized_client", "suspended");
    bench.test.resume("lobby-printer-01").await;
    assert_eq!(bench.code(&wire).await.status, 200);
    bench.test.retire("lobby-printer-01").await;
    is_error(&bench.code(&wire).await, 400, "unauthorized_client", "retired");
}

/// What a proxy is told by its clients about certificates is a lie until the proxy says it, in the one header, and is trusted (A-014, RFC 9440).
#[tokio::test]
async fn certificate_headers_count_only_from_a_trusted_proxy_a_014() {
    let key = KeyPair::generate().unwrap();
    let certificate = contents("lobby-printer-01", 1).self_signed(&key).unwrap();
    let base64 = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(certificate.der())
    };
    let header = format!(":{base64}:");
    let escaped: String = certificate
        .pem()
        .chars()
        .map(|letter| if letter == '\n' { "%0A".into() } else { letter.to_string() })
        .collect();
    let proxy = vec!["127.0.0.1/32".parse().unwrap()];
    let elsewhere = vec!["192.0.2.1/32".parse().unwrap()];
    for (is_on, proxies, headers, expected) in [
        (true, &proxy, vec![("client-cert", header.as_str())], 200),
        (false, &proxy, vec![("client-cert", header.as_str())], 401),
        (true, &elsewhere, vec![("client-cert", header.as_str())], 401),
        (true, &proxy, vec![("client-cert", header.as_str()), ("client-cert", header.as_str())], 401),
        (true, &proxy, vec![("client-cert", base64.as_str())], 401),
        (true, &proxy, vec![("client-cert", "::")], 401),
        (true, &proxy, vec![("x-ssl-client-cert", escaped.as_str())], 401),
        (true, &proxy, vec![("x-forwarded-client-cert", escaped.as_str())], 401),
        (true, &proxy, vec![("x-client-cert", header.as_str())], 401),
        (true, &proxy, vec![], 401),
    ] {
        let setup = Setup { client_cert_header: is_on, trusted_proxies: proxies.clone(), ..Setup::default() };
        let test = TestBroker::with(setup).await;
        test.register("lobby-printer-01", "printer").await;
        let device_key = DeviceKey::from_pkcs8_b64u("ES256", &jose::b64u(&key.serialize_der())).unwrap();
        let mut device = test.twin("lobby-printer-01", &device_key);
        test.pair(&mut device).await;
        let answer = crate::support::post(
            &test.wire,
            &test.url("/device_authorization"),
            &[("client_id", "lobby-printer-01")],
            &headers,
        )
        .await;
        assert_eq!(answer.status, expected, "{is_on} {proxies:?} {:?}: {}", headers.first(), answer.body);
    }
}

/// Behind a proxy both sides come in by one listener. The host of client certificates is for devices alone all the same: no pages, no sessions.
#[tokio::test]
async fn the_host_for_certificates_has_no_pages_also_behind_a_proxy_a_090() {
    let proxy = vec!["127.0.0.1/32".parse().unwrap()];
    let test = TestBroker::with(Setup { client_cert_header: true, trusted_proxies: proxy, ..Setup::default() }).await;
    let host = test.mtls.strip_prefix("https://").unwrap();
    for (path, expected) in [
        ("/", 421),
        ("/sign-in", 421),
        ("/devices", 421),
        ("/approve", 421),
        ("/assets/logo.svg", 421),
        ("/nowhere", 421),
        ("/jwks", 200),
        ("/.well-known/oauth-authorization-server", 200),
    ] {
        let answer = test.wire.send(test.wire.get(&test.url(path)).header("host", host)).await.unwrap();
        assert_eq!(answer.status, expected, "{path}");
    }
    let form = [("client_id", "lobby-printer-01")];
    let answer = crate::support::post(&test.wire, &test.url("/device_authorization"), &form, &[("host", host)]).await;
    is_error(&answer, 401, "invalid_client", "a device of that host");
}

/// A device with a key of this algorithm signs a proof and an assertion, and both are taken.
async fn signs_by(test: &TestBroker, algorithm: &str) {
    let key = match algorithm {
        "ES256" => DeviceKey::generate_es256(),
        "EdDSA" | "Ed25519" => DeviceKey::generate_ed25519(),
        "RS256" => DeviceKey::generate_rs256(),
        other => panic!("metadata names {other}, and no test has a key for it"),
    }
    .unwrap();
    let id = format!("device-{}", algorithm.to_lowercase());
    test.register(&id, "printer").await;
    let mut device = test.twin(&id, &key);
    test.pair(&mut device).await;
    device.request_code(None, None).await.unwrap();
    let now = test.broker.now().seconds();
    let claims = json!({"iss": id, "sub": id, "aud": test.issuer, "exp": now + 60, "jti": jti()});
    let assertion = key.sign_raw(&json!({"alg": algorithm, "typ": "JWT"}), &claims).unwrap();
    let form = [
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.as_str()),
    ];
    let answer = crate::support::post(&test.wire, &test.url("/device_authorization"), &form, &[]).await;
    assert_eq!(answer.status, 200, "{algorithm}: {}", answer.body);
}

/// Every value of the document, held to what the endpoints accept: each method and each algorithm that it names signs in, and those that it does not are
/// refused.
#[tokio::test]
async fn metadata_lists_exactly_what_the_endpoints_accept_r_8414() {
    let authority = Authority::new("Organisation CA");
    let bench = Bench::with(Setup { client_ca: vec![authority.pem()], ..Setup::default() }).await;
    let test = &bench.test;
    let metadata = test.wire.send(test.wire.get(&test.url("/.well-known/oauth-authorization-server"))).await.unwrap();
    let metadata = metadata.json().unwrap();
    let again = test.wire.send(test.wire.get(&test.url("/.well-known/openid-configuration"))).await.unwrap();
    assert_eq!(again.json().unwrap(), metadata, "the same at both places");
    let words = |name: &str| -> Vec<String> {
        metadata[name].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    for algorithm in words("dpop_signing_alg_values_supported") {
        signs_by(test, &algorithm).await;
    }
    for list in ["token", "revocation", "introspection"] {
        let name = format!("{list}_endpoint_auth_signing_alg_values_supported");
        assert_eq!(words(&name), words("dpop_signing_alg_values_supported"));
    }
    // Methods: each is tried at the endpoints that list it.
    let endpoints = |base: &Value| -> Vec<(String, String)> {
        ["token", "revocation", "introspection"]
            .iter()
            .map(|name| ((*name).to_owned(), base[format!("{name}_endpoint")].as_str().unwrap().to_owned()))
            .collect()
    };
    let aliases = &metadata["mtls_endpoint_aliases"];
    assert!(aliases["device_authorization_endpoint"].as_str().unwrap().starts_with(&test.mtls));
    let signed = authority.issue(&contents("x", 8), &bench.key);
    for (name, address) in endpoints(&metadata) {
        for method in words(&format!("{name}_endpoint_auth_methods_supported")) {
            assert!(
                ["dpop", "private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth"]
                    .contains(&method.as_str()),
                "{method} is listed, and no test tries it"
            );
        }
        let wire = Wire::with_tls(&test.ca_pem(), None).unwrap();
        let basic = wire.post(&address).form(&[("token", "x")]).header("authorization", "Basic eDp5");
        assert!(matches!(wire.send(basic).await.unwrap().status, 400 | 401), "{name}: a secret is no method");
    }
    for (name, address) in endpoints(aliases) {
        for certificate in [bench.self_signed(), signed.clone()] {
            let wire = bench.wire(&certificate);
            let answer = wire
                .send(wire.post(&address).form(&[
                    ("client_id", "lobby-printer-01"),
                    ("token", "x"),
                    ("grant_type", "refresh_token"),
                    ("refresh_token", "x"),
                ]))
                .await
                .unwrap();
            // A device is authenticated at two of them; the third is for resources.
            let expected: &[u16] = if name == "introspection" { &[401] } else { &[200, 400] };
            assert!(expected.contains(&answer.status), "{name}: {} {}", answer.status, answer.body);
            assert!(name == "introspection" || !answer.body.contains("invalid_client"), "{name}: {}", answer.body);
        }
    }
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true);
    assert_eq!(words("grant_types_supported").len(), 2);
    // Without the other side, nothing of it is said.
    let plain = TestBroker::start().await;
    let metadata =
        plain.wire.send(plain.wire.get(&plain.url("/.well-known/oauth-authorization-server"))).await.unwrap();
    let metadata = metadata.json().unwrap();
    assert!(metadata.get("mtls_endpoint_aliases").is_none());
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], false);
    assert_eq!(metadata["token_endpoint_auth_methods_supported"], json!(["dpop", "private_key_jwt"]));
}
