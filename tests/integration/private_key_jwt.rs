//! Client assertions over real HTTP (RFC 7523 with rfc7523bis): what gets in, and everything else.

use pairgate::model::operator::Role;
use pairgate::simulator::{PageOperator, RawAnswer, SimulatedDevice, jose};
use serde_json::{Value, json};

use crate::support::probe::{CODE, TOKEN, is_error, jti, poll_of, refresh_of};
use crate::support::{START, TestBroker, post};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A paired device that authenticates by assertion.
struct Bench {
    test: TestBroker,
    device: SimulatedDevice,
    operator: PageOperator,
}

impl Bench {
    async fn new() -> Self {
        let test = TestBroker::start().await;
        let device = test.paired("lobby-printer-01", "printer").await;
        let operator = test.operator("dana", Role::Admin).await;
        Self { test, device, operator }
    }

    /// Header and claims as a library makes them.
    fn parts(&self) -> (Value, Value) {
        let now = self.test.broker.now().seconds();
        let claims = json!({
            "iss": self.device.id, "sub": self.device.id, "aud": self.test.issuer, "iat": now, "nbf": now, "exp": now + 60, "jti": jti(),
        });
        (json!({"alg": "ES256", "typ": "client-authentication+jwt"}), claims)
    }

    fn assertion(&self) -> String {
        let (header, claims) = self.parts();
        self.device.key.sign_raw(&header, &claims).unwrap()
    }

    /// Sends an assertion, with a proof or without.
    async fn send(&self, path: &str, assertion: &str, params: &[(&str, &str)], proof: Option<&str>) -> RawAnswer {
        let mut form = vec![("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion)];
        form.extend_from_slice(params);
        let headers: Vec<(&str, &str)> = proof.map(|proof| ("dpop", proof)).into_iter().collect();
        self.device.post_form(path, &form, &headers).await.unwrap()
    }

    async fn code(&self) -> Value {
        let answer = self.send(CODE, &self.assertion(), &[], None).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json().unwrap()
    }

    /// A code that was approved, ready to be fetched.
    async fn approved(&self) -> String {
        let code = self.code().await;
        let (device_code, uri) =
            (code["device_code"].as_str().unwrap(), code["verification_uri_complete"].as_str().unwrap());
        let path = self.operator.claim(uri).await.unwrap();
        self.test.advance(10);
        let pending = self.poll(device_code).await.json().unwrap();
        self.operator.approve(&path, pending["confirmation_number"].as_str().unwrap()).await.unwrap();
        self.test.advance(10);
        device_code.to_owned()
    }

    async fn poll(&self, device_code: &str) -> RawAnswer {
        let proof = self.test.proof(&self.device, TOKEN).await;
        self.send(TOKEN, &self.assertion(), &poll_of(device_code, &self.device.id), Some(&proof)).await
    }

    /// Refused like this, with these records, and nothing stored.
    async fn refused(&self, what: &str, assertion: &str, events: &[&str]) {
        for path in [CODE, TOKEN] {
            let mark = self.test.mark().await;
            let answer = self.send(path, assertion, &[], None).await;
            is_error(&answer, 401, "invalid_client", what);
            self.test.untouched(&mark, events, what).await;
        }
    }
}

#[tokio::test]
async fn a_device_signs_in_by_assertion_and_its_tokens_are_bound_to_the_pinned_key() {
    let bench = Bench::new().await;
    let device_code = bench.approved().await;
    let answer = bench.poll(&device_code).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let tokens = answer.json().unwrap();
    assert_eq!(tokens["token_type"], "DPoP");
    let claims = jose::peek(tokens["access_token"].as_str().unwrap()).unwrap().claims;
    assert_eq!(claims["cnf"], json!({"jkt": bench.device.key.jkt()}));
    let refresh_token = tokens["refresh_token"].as_str().unwrap();
    let proof = bench.test.proof(&bench.device, TOKEN).await;
    let refresh = refresh_of(refresh_token, &bench.device.id);
    let renewed = bench.send(TOKEN, &bench.assertion(), &refresh, Some(&proof)).await;
    assert_eq!(renewed.status, 200, "{}", renewed.body);
}

/// Design section 11: what common libraries do, and a server must bear.
#[tokio::test]
async fn what_common_libraries_send_is_taken() {
    let bench = Bench::new().await;
    let now = START.seconds();
    for (what, header, claims) in [
        ("typ JWT", json!({"typ": "JWT"}), json!({})),
        ("no typ", json!({"typ": null}), json!({})),
        ("a kid of its own", json!({"kid": "key-1"}), json!({})),
        ("a kid that is the thumbprint", json!({"kid": bench.device.key.jkt()}), json!({})),
        ("aud as array", json!({}), json!({"aud": [bench.test.issuer]})),
        ("an hour of life", json!({}), json!({"exp": now + 3600})),
        ("no nbf", json!({}), json!({"nbf": null})),
        ("claims that nobody reads", json!({}), json!({"azp": "x", "nonce": "y"})),
    ] {
        let (mut full_header, mut full_claims) = bench.parts();
        for (name, value) in header.as_object().unwrap() {
            full_header[name] = value.clone();
        }
        for (name, value) in claims.as_object().unwrap() {
            full_claims[name] = value.clone();
        }
        let assertion = bench.device.key.sign_raw(&full_header, &full_claims).unwrap();
        // With client_id and without it; scope said again at the token endpoint.
        let answer = bench.send(CODE, &assertion, &[("scope", "scan.write")], None).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.body);
        let device_code = answer.json().unwrap()["device_code"].as_str().unwrap().to_owned();
        let proof = bench.test.proof(&bench.device, TOKEN).await;
        full_claims["jti"] = jti().into();
        let assertion = bench.device.key.sign_raw(&full_header, &full_claims).unwrap();
        let grant = ["grant_type", "device_code", "scope"];
        let values = ["urn:ietf:params:oauth:grant-type:device_code", &device_code, "scan.write"];
        let params: Vec<(&str, &str)> = grant.into_iter().zip(values).collect();
        let answer = bench.send(TOKEN, &assertion, &params, Some(&proof)).await;
        is_error(&answer, 400, "authorization_pending", what);
    }
}

/// The audience that some default to is the address posted to: it stays refused, and the answer says what to set (R-7523-01).
#[tokio::test]
async fn an_assertion_for_an_endpoint_or_for_two_is_refused_and_told_what_to_set_a_029() {
    let bench = Bench::new().await;
    let issuer = &bench.test.issuer;
    for aud in [
        json!(format!("{issuer}/token")),
        json!(format!("{issuer}/device_authorization")),
        json!(format!("{issuer}/")),
        json!([issuer, "https://other.example"]),
        json!([format!("{issuer}/token"), issuer]),
        json!("https://other.example"),
        json!([]),
        Value::Null,
    ] {
        let (header, mut claims) = bench.parts();
        claims["aud"] = aud.clone();
        let assertion = bench.device.key.sign_raw(&header, &claims).unwrap();
        bench.refused(&aud.to_string(), &assertion, &["code.refused"]).await;
        if aud.is_string() {
            let answer = bench.send(CODE, &assertion, &[], None).await;
            assert!(answer.body.contains("aud must be the issuer"), "{}", answer.body);
        }
    }
}

/// The address that a hostile header names; nobody may come there.
struct Lure {
    listener: tokio::net::TcpListener,
    address: String,
}

impl Lure {
    async fn new() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/keys", listener.local_addr().unwrap());
        Self { listener, address }
    }

    async fn is_untouched(&self) {
        let accepted = tokio::select! {
            biased;
            accepted = self.listener.accept() => Some(accepted),
            () = std::future::ready(()) => None,
        };
        assert!(accepted.is_none(), "somebody fetched what an assertion named");
    }
}

#[tokio::test]
async fn hostile_assertions_are_refused_and_nothing_is_fetched_a_030() {
    let bench = Bench::new().await;
    let lure = Lure::new().await;
    let stranger = bench.test.stranger("lobby-printer-01");
    let now = |claims: &Value| claims["iat"].as_i64().unwrap();
    type Change<'a> = Box<dyn Fn(&mut Value, &mut Value) + 'a>;
    let rows: Vec<(&str, Change<'_>)> = vec![
        ("jku", Box::new(|header, _| header["jku"] = json!(lure.address))),
        ("x5u", Box::new(|header, _| header["x5u"] = json!(lure.address))),
        ("embedded jwk of its own", Box::new(|header, _| header["jwk"] = bench.device.key.jwk().clone())),
        ("embedded jwk of a stranger", Box::new(|header, _| header["jwk"] = stranger.key.jwk().clone())),
        ("kid as path", Box::new(|header, _| header["kid"] = json!("../../etc/passwd"))),
        ("kid as address", Box::new(|header, _| header["kid"] = json!(lure.address))),
        ("kid of a kilobyte", Box::new(|header, _| header["kid"] = json!("k".repeat(1024)))),
        ("crit", Box::new(|header, _| header["crit"] = json!(["exp"]))),
        ("alg none", Box::new(|header, _| header["alg"] = json!("none"))),
        ("alg HS256", Box::new(|header, _| header["alg"] = json!("HS256"))),
        ("alg of another key type", Box::new(|header, _| header["alg"] = json!("EdDSA"))),
        ("typ of a proof", Box::new(|header, _| header["typ"] = json!("dpop+jwt"))),
        ("typ of a token", Box::new(|header, _| header["typ"] = json!("at+jwt"))),
        ("exp in a year", Box::new(|_, claims| claims["exp"] = json!(now(claims) + 365 * 86_400))),
        ("exp over", Box::new(|_, claims| claims["exp"] = json!(now(claims) - 61))),
        ("exp absent", Box::new(|_, claims| claims["exp"] = Value::Null)),
        ("from the future", Box::new(|_, claims| claims["iat"] = json!(now(claims) + 600))),
        ("iss is not sub", Box::new(|_, claims| claims["iss"] = json!("attic-printer-02"))),
        ("jti absent", Box::new(|_, claims| claims["jti"] = Value::Null)),
        ("a huge header", Box::new(|header, _| header["pad"] = json!("x".repeat(6_000)))),
    ];
    for (what, change) in rows {
        // Of one address twenty refusals a minute are recorded.
        bench.test.advance(60);
        let (mut header, mut claims) = bench.parts();
        change(&mut header, &mut claims);
        let assertion = bench.device.key.sign_raw(&header, &claims).unwrap();
        let event = if what == "alg of another key type" { "key.mismatch" } else { "code.refused" };
        bench.refused(what, &assertion, &[event]).await;
    }
    // A claim that stands twice: two readers could see two devices.
    let (header, claims) = bench.parts();
    let twice = claims.to_string().replacen('{', "{\"sub\":\"attic-printer-02\",", 1);
    let signed = format!("{}.{}", jose::b64u(header.to_string().as_bytes()), jose::b64u(twice.as_bytes()));
    bench.refused("sub twice", &format!("{signed}.AAAA"), &["code.refused"]).await;
    lure.is_untouched().await;
    let answer = bench.send(CODE, &"x".repeat(17_000), &[], None).await;
    assert_eq!(answer.status, 413, "a megabyte does not even arrive");
}

#[tokio::test]
async fn an_assertion_by_a_foreign_key_or_for_an_unknown_id_gets_the_one_answer_a_001_a_003() {
    let bench = Bench::new().await;
    let stranger = bench.test.stranger("lobby-printer-01");
    let (header, claims) = bench.parts();
    let foreign = stranger.key.sign_raw(&header, &claims).unwrap();
    bench.refused("another key", &foreign, &["key.mismatch"]).await;
    let mut unknown = claims.clone();
    (unknown["iss"], unknown["sub"]) = (json!("no-such-device"), json!("no-such-device"));
    let unknown = stranger.key.sign_raw(&header, &unknown).unwrap();
    bench.refused("unknown id", &unknown, &["code.unenrolled"]).await;
    let mut phishing = claims;
    let id = "29d9ed98-a469-4536-ade2-f981bc1d605e";
    (phishing["iss"], phishing["sub"]) = (json!(id), json!(id));
    bench.refused("phishing id", &stranger.key.sign_raw(&header, &phishing).unwrap(), &["client.phishing"]).await;
    let bodies: Vec<String> =
        [bench.send(CODE, &foreign, &[], None).await, bench.send(CODE, &unknown, &[], None).await]
            .map(|answer| answer.body)
            .to_vec();
    assert_eq!(bodies[0], bodies[1], "the same words for a known and an unknown id");
}

#[tokio::test]
async fn another_client_id_beside_the_assertion_is_refused_a_016() {
    let bench = Bench::new().await;
    bench.test.paired("attic-printer-02", "printer").await;
    for other in ["attic-printer-02", "no-such-device"] {
        let mark = bench.test.mark().await;
        let answer = bench.send(CODE, &bench.assertion(), &[("client_id", other)], None).await;
        is_error(&answer, 401, "invalid_client", other);
        bench.test.untouched(&mark, &["key.mismatch"], other).await;
    }
}

#[tokio::test]
async fn two_ways_of_authentication_in_one_request_are_refused_a_015() {
    let bench = Bench::new().await;
    let assertion = bench.assertion();
    let form = [("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion.as_str())];
    for (what, extra, header) in
        [("a secret", vec![("client_secret", "x")], None), ("basic", vec![], Some(("authorization", "Basic eDp5")))]
    {
        let params: Vec<_> = form.iter().copied().chain(extra).collect();
        let headers: Vec<_> = header.into_iter().collect();
        let mark = bench.test.mark().await;
        let answer = post(&bench.test.wire, &bench.test.url(CODE), &params, &headers).await;
        is_error(&answer, 400, "invalid_request", what);
        bench.test.untouched(&mark, &[], what).await;
    }
    for half in [vec![("client_assertion", assertion.as_str())], vec![("client_assertion_type", ASSERTION_TYPE)]] {
        let answer = post(&bench.test.wire, &bench.test.url(CODE), &half, &[]).await;
        is_error(&answer, 400, "invalid_request", "half an assertion");
    }
    assert_eq!(bench.send(CODE, &assertion, &[], None).await.status, 200, "none of it used the assertion up");
}

#[tokio::test]
async fn an_assertion_counts_once_also_after_a_restart_a_030() {
    let mut bench = Bench::new().await;
    let assertion = bench.assertion();
    assert_eq!(bench.send(CODE, &assertion, &[], None).await.status, 200);
    let mark = bench.test.mark().await;
    is_error(&bench.send(CODE, &assertion, &[], None).await, 401, "invalid_client", "again");
    let proof = bench.test.proof(&bench.device, TOKEN).await;
    let poll = poll_of("x", &bench.device.id);
    is_error(&bench.send(TOKEN, &assertion, &poll, Some(&proof)).await, 401, "invalid_client", "elsewhere");
    bench.test.untouched(&mark, &["key.mismatch", "key.mismatch"], "again").await;
    bench.test = bench.test.restart().await;
    let mark = bench.test.mark().await;
    is_error(&bench.send(CODE, &assertion, &[], None).await, 401, "invalid_client", "after a restart");
    bench.test.untouched(&mark, &["key.mismatch"], "after a restart").await;
}

/// Some libraries send the same assertion again with the proof that has the nonce (R-7523-04).
#[tokio::test]
async fn a_missing_nonce_does_not_use_the_assertion_up() {
    let bench = Bench::new().await;
    let code = bench.code().await;
    let poll = poll_of(code["device_code"].as_str().unwrap(), &bench.device.id);
    let assertion = bench.assertion();
    let without = bench.device.proof("POST", &bench.test.url(TOKEN), None, &jti()).unwrap();
    let answer = bench.send(TOKEN, &assertion, &poll, Some(&without)).await;
    is_error(&answer, 400, "use_dpop_nonce", "no nonce");
    let nonce = answer.header("dpop-nonce").unwrap();
    let with = bench.device.proof("POST", &bench.test.url(TOKEN), Some(nonce), &jti()).unwrap();
    is_error(
        &bench.send(TOKEN, &assertion, &poll, Some(&with)).await,
        400,
        "authorization_pending",
        "the same assertion",
    );
}

#[tokio::test]
async fn a_proof_by_another_key_beside_the_assertion_is_refused_a_027() {
    let bench = Bench::new().await;
    let neighbour = bench.test.paired("attic-printer-02", "printer").await;
    for path in [CODE, TOKEN] {
        let proof = bench.test.proof(&neighbour, path).await;
        let mark = bench.test.mark().await;
        let answer = bench.send(path, &bench.assertion(), &[], Some(&proof)).await;
        is_error(&answer, 400, "invalid_dpop_proof", path);
        let records = bench.test.untouched(&mark, &["key.mismatch"], path).await;
        assert!(records[0].detail.contains(&neighbour.key.short()));
    }
    let proof = bench.test.proof(&bench.device, CODE).await;
    assert_eq!(
        bench.send(CODE, &bench.assertion(), &[], Some(&proof)).await.status,
        200,
        "by its own key it is welcome"
    );
}

/// Keycloak issue 36475: a sign-in that was bound at first could be refreshed without a proof (D-05).
#[tokio::test]
async fn no_token_without_something_to_bind_it_to_a_072_a_075_d_05() {
    let bench = Bench::new().await;
    let device_code = bench.approved().await;
    let poll = poll_of(&device_code, &bench.device.id);
    let answer = bench.send(TOKEN, &bench.assertion(), &poll, None).await;
    is_error(&answer, 400, "invalid_dpop_proof", "a poll without a proof");
    let tokens = bench.poll(&device_code).await.json().unwrap();
    let refresh_token = tokens["refresh_token"].as_str().expect("the poll without a proof has spent nothing");
    let refresh = refresh_of(refresh_token, &bench.device.id);
    let answer = bench.send(TOKEN, &bench.assertion(), &refresh, None).await;
    is_error(&answer, 400, "invalid_grant", "a refresh without a proof");
    let proof = bench.test.proof(&bench.device, TOKEN).await;
    let answer = bench.send(TOKEN, &bench.assertion(), &refresh, Some(&proof)).await;
    assert_eq!(answer.status, 200, "the owner is not disturbed: {}", answer.body);
}

/// Keycloak CVE-2026-16089: a code of one session was used for another. Here: the id of one sign-in with the secret of another (D-04).
#[tokio::test]
async fn the_code_of_one_sign_in_does_not_fetch_another_d_04() {
    let bench = Bench::new().await;
    let first = jose::from_b64u(bench.code().await["device_code"].as_str().unwrap()).unwrap();
    let second = bench.approved().await;
    let second_bytes = jose::from_b64u(&second).unwrap();
    let mixed = jose::b64u(&[&second_bytes[..8], &first[8..]].concat());
    is_error(&bench.poll(&mixed).await, 400, "invalid_grant", "mixed");
    assert_eq!(bench.poll(&second).await.status, 200);
}
