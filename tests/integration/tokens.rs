//! What becomes of tokens: introspection, revocation, resources, and two boxes with one key.

use std::time::Duration;

use pairgate::clock::Clock;
use pairgate::model::operator::Role;
use pairgate::model::resource::Resource;
use pairgate::oauth::jwk::PublicKey;
use pairgate::oauth::signing_key::SigningAlgorithm;
use pairgate::simulator::{DeviceKey, PageOperator, RawAnswer, SimulatedDevice, TokenAnswer, Tokens, jose};
use serde_json::{Value, json};

use crate::support::probe::{CODE, TOKEN, is_error, jti, tokens};
use crate::support::{Setup, TestBroker, post};

const SCAN: &str = "https://scan.example";
const PRINT: &str = "https://print.example";
const INTROSPECT: &str = "/introspect";
const REVOKE: &str = "/revoke";

/// A broker with two resources, a printer that is signed in at the first, and the key of each.
struct Bench {
    test: TestBroker,
    device: SimulatedDevice,
    operator: PageOperator,
    scan_key: DeviceKey,
    print_key: DeviceKey,
}

fn resource(id: &str, key: &DeviceKey) -> Resource {
    Resource { keys: vec![PublicKey::from_json(&key.jwk().to_string()).unwrap()], ..Resource::plain(id) }
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let (scan_key, print_key) = (DeviceKey::generate_es256().unwrap(), DeviceKey::generate_ed25519().unwrap());
        let mut setup =
            Setup { resources: vec![resource(SCAN, &scan_key), resource(PRINT, &print_key)], ..Setup::default() };
        setup.kinds[0].resources = vec![SCAN.into(), PRINT.into()];
        change(&mut setup);
        let test = TestBroker::with(setup).await;
        let device = test.paired("lobby-printer-01", "printer").await;
        let operator = test.operator("dana", Role::Admin).await;
        Self { test, device, operator, scan_key, print_key }
    }

    async fn sign_in(&mut self, resource: Option<&str>) -> Tokens {
        let code = self.device.request_code(None, resource).await.unwrap();
        self.test.approve(&self.operator, &mut self.device, &code.verification_uri_complete).await;
        tokens(&self.device.poll_token(None).await.unwrap())
    }

    fn assertion(&self, id: &str, key: &DeviceKey) -> String {
        let now = self.test.broker.now().seconds();
        let claims = json!({"iss": id, "sub": id, "aud": self.test.issuer, "iat": now, "exp": now + 60, "jti": jti()});
        key.sign_raw(&json!({"alg": key.alg(), "typ": "client-authentication+jwt"}), &claims).unwrap()
    }

    async fn ask(&self, id: &str, key: &DeviceKey, token: &str) -> RawAnswer {
        let assertion = self.assertion(id, key);
        let form = [
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.as_str()),
            ("token", token),
        ];
        post(&self.test.wire, &self.test.url(INTROSPECT), &form, &[]).await
    }

    /// What the scan folder is told of a token.
    async fn introspect(&self, token: &str) -> Value {
        let answer = self.ask(SCAN, &self.scan_key, token).await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{}", answer.body);
        answer.json().unwrap()
    }

    async fn revoke(&self, device: &SimulatedDevice, token: &str) -> RawAnswer {
        self.test.ask(device, REVOKE, &[("client_id", &device.id), ("token", token)]).await
    }
}

const INACTIVE: fn() -> Value = || json!({"active": false});

#[tokio::test]
async fn a_resource_is_told_everything_that_it_needs_to_check_a_token() {
    let mut bench = Bench::new().await;
    let tokens = bench.sign_in(None).await;
    let mut told = bench.introspect(&tokens.access_token).await;
    let claims = jose::peek(&tokens.access_token).unwrap().claims;
    for (name, value) in claims.as_object().unwrap() {
        assert_eq!(told[name], *value, "{name} is what the token says");
    }
    told["iss"] = "[issuer]".into();
    for random in ["jti", "sid", "iat", "exp"] {
        told[random] = format!("[{random}]").into();
    }
    told["cnf"] =
        json!({"jkt": if told["cnf"]["jkt"] == json!(bench.device.key.jkt()) { "[the device's key]" } else { "?" }});
    insta::assert_json_snapshot!(told, @r#"
    {
      "active": true,
      "aud": "https://scan.example",
      "client_id": "lobby-printer-01",
      "cnf": {
        "jkt": "[the device's key]"
      },
      "exp": "[exp]",
      "iat": "[iat]",
      "iss": "[issuer]",
      "jti": "[jti]",
      "key_assurance": "software",
      "scope": "print.read scan.write",
      "sid": "[sid]",
      "sub": "device:lobby-printer-01",
      "token_type": "DPoP"
    }
    "#);
}

/// R-7662-02: what is not good now, or not for the one who asks, is inactive, and nothing more is said (A-076, A-078).
#[tokio::test]
async fn what_is_not_for_the_asking_resource_is_inactive_and_no_more_a_076_a_078() {
    let mut bench = Bench::new().await;
    let tokens = bench.sign_in(None).await;
    let (header, body) = tokens.access_token.split_once('.').unwrap();
    let (claims, signature) = body.split_once('.').unwrap();
    let answer = bench.ask(PRINT, &bench.print_key, &tokens.access_token).await;
    assert_eq!(answer.json().unwrap(), INACTIVE(), "a token for another resource");
    let mut other = jose::peek(&tokens.access_token).unwrap().claims;
    other["sub"] = json!("device:attic-printer-02");
    let forged = format!("{header}.{}.{signature}", jose::b64u(other.to_string().as_bytes()));
    let by_device = bench.device.key.sign_raw(&json!({"typ": "at+jwt", "alg": "ES256"}), &other).unwrap();
    let retyped = format!("{}.{claims}.{signature}", jose::b64u(br#"{"typ":"JWT","alg":"ES256"}"#));
    let refresh_token = tokens.refresh_token.clone().unwrap();
    for (what, token) in [
        ("nonsense", "x"),
        ("forged claims", forged.as_str()),
        ("signed by the device", by_device.as_str()),
        ("another typ", retyped.as_str()),
        ("a refresh token", refresh_token.as_str()),
        ("cut off", &tokens.access_token[..tokens.access_token.len() - 2]),
    ] {
        assert_eq!(bench.introspect(token).await, INACTIVE(), "{what}");
    }
    assert_eq!(bench.introspect(&tokens.access_token).await["active"], true);
    bench.test.advance(600);
    assert_eq!(bench.introspect(&tokens.access_token).await, INACTIVE(), "expired to the second");
}

/// Everybody else would scan for tokens (RFC 7662 section 4).
#[tokio::test]
async fn only_configured_resources_may_ask_about_tokens_a_078() {
    let mut bench = Bench::new().await;
    let tokens = bench.sign_in(None).await;
    let token = tokens.access_token.as_str();
    let stranger = DeviceKey::generate_es256().unwrap();
    let id = bench.device.id.clone();
    let refused = [
        ("a foreign key", bench.ask(SCAN, &stranger, token).await),
        ("another resource's key", bench.ask(SCAN, &bench.print_key, token).await),
        ("an unknown resource", bench.ask("https://unknown.example", &stranger, token).await),
        ("a resource that has no keys", bench.ask("urn:pairgate:resource:default", &stranger, token).await),
        ("a device, by assertion", bench.ask(&id, &bench.device.key, token).await),
        (
            "a device, by proof",
            bench.test.ask(&bench.device, INTROSPECT, &[("client_id", &id), ("token", token)]).await,
        ),
        (
            "nobody",
            post(&bench.test.wire, &bench.test.url(INTROSPECT), &[("token", token), ("client_id", SCAN)], &[]).await,
        ),
    ];
    let first = &refused[0].1.body;
    for (what, answer) in &refused {
        is_error(answer, 401, "invalid_client", what);
        assert_eq!(&answer.body, first, "{what}");
    }
    assert_eq!(bench.test.count("introspection.refused").await, refused.len());
    let assertion = bench.assertion(SCAN, &bench.scan_key);
    let other = [
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.as_str()),
        ("client_id", PRINT),
        ("token", token),
    ];
    let answer = post(&bench.test.wire, &bench.test.url(INTROSPECT), &other, &[]).await;
    is_error(&answer, 401, "invalid_client", "another resource's id beside the assertion");
    let form = |token: &'static str| {
        vec![
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned()),
            ("client_assertion", assertion.clone()),
            ("token", token.to_owned()),
        ]
    };
    let send = |form: Vec<(&'static str, String)>| {
        let form: Vec<(String, String)> = form.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let (wire, url) = (bench.test.wire.clone(), bench.test.url(INTROSPECT));
        async move {
            let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            post(&wire, &url, &form, &[]).await
        }
    };
    assert_eq!(send(form("x")).await.status, 200);
    is_error(&send(form("x")).await, 401, "invalid_client", "the same assertion again");
    assert_eq!(bench.test.wire.send(bench.test.wire.get(&bench.test.url(INTROSPECT))).await.unwrap().status, 405);
}

#[tokio::test]
async fn a_device_gives_its_sign_in_back_by_either_token_r_7009() {
    for by_access_token in [true, false] {
        let mut bench = Bench::new().await;
        let signed_in = bench.sign_in(None).await;
        let token =
            if by_access_token { signed_in.access_token.clone() } else { signed_in.refresh_token.clone().unwrap() };
        let answer = bench.revoke(&bench.device, &token).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{by_access_token}");
        assert_eq!(bench.introspect(&signed_in.access_token).await, INACTIVE());
        assert!(
            matches!(bench.device.refresh().await.unwrap(), TokenAnswer::Error { error, .. } if error == "invalid_grant")
        );
        assert_eq!(bench.test.count("token.revoked").await, 1);
        assert_eq!(bench.revoke(&bench.device, &token).await.status, 200, "again: the same answer, no effect");
        assert_eq!(bench.test.count("token.revoked").await, 1);
    }
}

/// R-7009-02, R-7009-03: 200 without effect for what is another's or nobody's, whatever the hint says (A-078).
#[tokio::test]
async fn revoking_what_is_anothers_or_nobodys_is_answered_200_and_does_nothing_a_078() {
    let mut bench = Bench::new().await;
    let signed_in = bench.sign_in(None).await;
    let thief = bench.test.paired("attic-printer-02", "printer").await;
    for token in [signed_in.access_token.as_str(), signed_in.refresh_token.as_deref().unwrap()] {
        assert_eq!(bench.revoke(&thief, token).await.status, 200);
        assert_eq!(bench.introspect(&signed_in.access_token).await["active"], true);
    }
    assert_eq!(bench.test.count("token.scanned").await, 2);
    for token in ["x", "AAAA", &jose::b64u(&[0; 40])] {
        let params = [("client_id", bench.device.id.as_str()), ("token", token), ("token_type_hint", "refresh_token")];
        assert_eq!(bench.test.ask(&bench.device, REVOKE, &params).await.status, 200);
    }
    let params = [("client_id", bench.device.id.as_str())];
    is_error(&bench.test.ask(&bench.device, REVOKE, &params).await, 400, "invalid_request", "no token");
    let answer = post(&bench.test.wire, &bench.test.url(REVOKE), &[("client_id", "x"), ("token", "y")], &[]).await;
    is_error(&answer, 401, "invalid_client", "unauthenticated");
    // A wrong hint changes nothing about the right token.
    let token = signed_in.refresh_token.as_deref().unwrap();
    let params = [("client_id", bench.device.id.as_str()), ("token", token), ("token_type_hint", "access_token")];
    assert_eq!(bench.test.ask(&bench.device, REVOKE, &params).await.status, 200);
    assert_eq!(bench.introspect(&signed_in.access_token).await, INACTIVE());
}

/// The button for a stolen device. Measured by the broker's own clock, which stands still: dead before a second has passed, and before any other request.
#[tokio::test]
async fn a_stolen_device_is_dead_everywhere_at_once_a_096() {
    let mut bench = Bench::new().await;
    let signed_in = bench.sign_in(None).await;
    assert_eq!(bench.introspect(&signed_in.access_token).await["active"], true);
    let (clock, before) = (Clock::system(), Clock::system().now());
    bench.test.suspend("lobby-printer-01").await;
    assert_eq!(bench.introspect(&signed_in.access_token).await, INACTIVE());
    println!("from the button to inactive: {:?}", clock.now().since(before));
    let answer = bench.device.refresh().await.unwrap();
    assert!(matches!(answer, TokenAnswer::Error { ref error, .. } if error == "invalid_client"), "{answer:?}");
    let params = [("client_id", bench.device.id.as_str())];
    is_error(&bench.test.ask(&bench.device, CODE, &params).await, 400, "unauthorized_client", "no new code");
    bench.test.resume("lobby-printer-01").await;
    assert_eq!(bench.introspect(&signed_in.access_token).await, INACTIVE(), "what was dead stays dead");
    let answer = bench.device.refresh().await.unwrap();
    assert!(matches!(answer, TokenAnswer::Error { ref error, .. } if error == "invalid_grant"), "{answer:?}");
}

/// The key was copied out of the firmware; box and copy take turns.
#[tokio::test]
async fn two_live_sessions_of_one_key_are_seen_and_both_ended_a_009() {
    let mut bench = Bench::new().await;
    let honest = bench.sign_in(None).await;
    let mut copy = bench.test.twin("lobby-printer-01", &bench.device.key);
    let code = copy.request_code(None, None).await.unwrap();
    bench.test.approve(&bench.operator, &mut copy, &code.verification_uri_complete).await;
    let copied = tokens(&copy.poll_token(None).await.unwrap());
    assert_eq!(bench.introspect(&copied.access_token).await["active"], true);
    let answer = bench.device.refresh().await.unwrap();
    assert!(matches!(answer, TokenAnswer::Error { ref error, .. } if error == "invalid_grant"), "{answer:?}");
    assert_eq!(bench.introspect(&copied.access_token).await, INACTIVE());
    assert_eq!(bench.introspect(&honest.access_token).await, INACTIVE());
    let answer = copy.refresh().await.unwrap();
    assert!(matches!(answer, TokenAnswer::Error { ref error, .. } if error == "invalid_grant"), "{answer:?}");
    let records = bench.test.records().await;
    let alarm = records.iter().find(|record| record.event == "key.two_sessions").expect("an alert");
    assert_eq!((alarm.severity.as_str(), alarm.device.as_deref()), ("alert", Some("lobby-printer-01")));
}

#[tokio::test]
async fn a_resource_limits_scopes_and_lives_and_says_them_in_words_r_8707() {
    let mut bench = Bench::with(|setup| {
        setup.resources[0].scopes = vec![("scan.write".into(), "lay scans into the archive".into())];
        setup.resources[0].access_token_lifetime = Some(Duration::from_secs(120));
        setup.resources[0].label = "the scan archive".into();
    })
    .await;
    let code = bench.device.request_code(None, Some(SCAN)).await.unwrap();
    let path = bench.operator.claim(&code.verification_uri_complete).await.unwrap();
    let page = bench.operator.get(&path).await.unwrap();
    assert!(page.body.contains("lay scans into the archive"), "{}", page.body);
    assert!(!page.body.contains("fetch print jobs"), "a scope that this resource has not");
    assert!(page.body.contains("at the scan archive, for 8 hours"), "where, in words: {}", page.body);
    bench.test.advance(60);
    let number = bench.test.pending(&mut bench.device).await.unwrap();
    bench.operator.approve(&path, &number).await.unwrap();
    bench.test.advance(60);
    let signed_in = tokens(&bench.device.poll_token(None).await.unwrap());
    assert_eq!((signed_in.scope.as_str(), signed_in.expires_in), ("scan.write", 120));
    for (what, params, error) in [
        ("a scope of the other resource", vec![("scope", "print.read"), ("resource", SCAN)], "invalid_scope"),
        ("an unknown resource", vec![("resource", "https://unknown.example")], "invalid_target"),
        ("a resource in another spelling", vec![("resource", "https://scan.example/")], "invalid_target"),
        ("two resources", vec![("resource", SCAN), ("resource", PRINT)], "invalid_target"),
    ] {
        let mut params = params;
        params.push(("client_id", "lobby-printer-01"));
        is_error(&bench.test.ask(&bench.device, CODE, &params).await, 400, error, what);
    }
    let elsewhere = bench.sign_in(Some(PRINT)).await;
    assert_eq!((elsewhere.scope.as_str(), elsewhere.expires_in), ("print.read scan.write", 600));
    let claims = jose::peek(&elsewhere.access_token).unwrap().claims;
    assert_eq!(claims["aud"], PRINT, "one audience, as text");
}

/// `offline_access` by kind: refused where the kind does not say so (S-10), and otherwise what decides about the refresh token.
#[tokio::test]
async fn staying_signed_in_is_asked_for_where_the_kind_allows_it_a_018() {
    let bench = Bench::new().await;
    let params = [("client_id", "lobby-printer-01"), ("scope", "scan.write offline_access")];
    is_error(&bench.test.ask(&bench.device, CODE, &params).await, 400, "invalid_scope", "off by default");
    let mut bench = Bench::with(|setup| setup.kinds[0].offline_access = true).await;
    let params = [("client_id", "lobby-printer-01"), ("scope", "offline_access")];
    is_error(&bench.test.ask(&bench.device, CODE, &params).await, 400, "invalid_scope", "nothing but to stay");
    let without = bench.sign_in(None).await;
    assert!(without.refresh_token.is_none());
    let code = bench.device.request_code(Some("scan.write offline_access"), None).await.unwrap();
    let path = bench.operator.claim(&code.verification_uri_complete).await.unwrap();
    assert!(bench.operator.get(&path).await.unwrap().body.contains("stay signed in when nobody is there"));
    bench.test.advance(60);
    let number = bench.test.pending(&mut bench.device).await.unwrap();
    bench.operator.approve(&path, &number).await.unwrap();
    bench.test.advance(60);
    let with = tokens(&bench.device.poll_token(None).await.unwrap());
    assert!(with.refresh_token.is_some());
    assert_eq!(with.scope, "offline_access scan.write");
    let claims = jose::peek(&with.access_token).unwrap().claims;
    assert_eq!(claims["scope"], "scan.write", "a wish to the broker is nothing that a resource gives");
}

/// draft-ietf-oauth-refresh-token-expiration: a printer can say when a person will be needed again.
#[tokio::test]
async fn answers_say_when_the_refresh_token_and_the_sign_in_end() {
    let mut bench = Bench::new().await;
    let code = bench.device.request_code(None, None).await.unwrap();
    bench.test.approve(&bench.operator, &mut bench.device, &code.verification_uri_complete).await;
    let first = bench.test.poll(&bench.device, &code.device_code).await.json().unwrap();
    assert_eq!((&first["refresh_token_timeout"], &first["authorization_expires_in"]), (&json!(7200), &json!(28_800)));
    bench.test.advance(7000);
    let second = bench.test.renew(&bench.device, first["refresh_token"].as_str().unwrap()).await.json().unwrap();
    assert_eq!((&second["refresh_token_timeout"], &second["authorization_expires_in"]), (&json!(7200), &json!(21_800)));
    bench.test.advance(7000);
    let third = bench.test.renew(&bench.device, second["refresh_token"].as_str().unwrap()).await.json().unwrap();
    bench.test.advance(7000);
    let fourth = bench.test.renew(&bench.device, third["refresh_token"].as_str().unwrap()).await.json().unwrap();
    let last = (&fourth["refresh_token_timeout"], &fourth["authorization_expires_in"]);
    assert_eq!(last, (&json!(7200), &json!(7800)));
}

/// A token lives no longer than the sign-in that it belongs to.
#[tokio::test]
async fn no_access_token_outlives_its_sign_in() {
    let mut bench = Bench::with(|setup| {
        let policy = setup.kinds[0].refresh.as_mut().unwrap();
        (policy.idle, policy.absolute) = (Duration::from_secs(700), Duration::from_secs(700));
    })
    .await;
    bench.sign_in(None).await;
    bench.test.advance(400);
    let TokenAnswer::Tokens(renewed) = bench.device.refresh().await.unwrap() else { panic!("no tokens") };
    assert_eq!(renewed.expires_in, 300);
}

/// Property (A-075, D-06): whatever way a token is issued, it is bound.
#[tokio::test]
async fn every_way_to_a_token_binds_it_a_075_d_06() {
    let mut bench = Bench::with(|setup| setup.kinds[0].offline_access = true).await;
    let mut issued = Vec::new();
    for (scope, resource) in
        [(None, None), (Some("scan.write"), Some(PRINT)), (Some("scan.write offline_access"), None)]
    {
        let code = bench.device.request_code(scope, resource).await.unwrap();
        bench.test.approve(&bench.operator, &mut bench.device, &code.verification_uri_complete).await;
        let signed_in = tokens(&bench.device.poll_token(None).await.unwrap());
        issued.push(signed_in.clone());
        if signed_in.refresh_token.is_some() {
            for narrower in [None, Some(("scope", "scan.write"))] {
                let refresh_token = bench.device_refresh_token(&issued);
                let mut params = vec![
                    ("grant_type", "refresh_token"),
                    ("refresh_token", &refresh_token),
                    ("client_id", "lobby-printer-01"),
                ];
                params.extend(narrower);
                let answer = bench.test.ask(&bench.device, TOKEN, &params).await;
                assert_eq!(answer.status, 200, "{}", answer.body);
                issued.push(serde_json::from_str(&answer.body).unwrap());
            }
        }
    }
    assert_eq!(issued.len(), 5);
    for tokens in &issued {
        assert_eq!(tokens.token_type, "DPoP");
        assert_eq!(jose::peek(&tokens.access_token).unwrap().claims["cnf"], json!({"jkt": bench.device.key.jkt()}));
    }
}

impl Bench {
    fn device_refresh_token(&self, issued: &[Tokens]) -> String {
        issued.last().and_then(|tokens| tokens.refresh_token.clone()).expect("a refresh token")
    }
}

/// What lies on the disk of the broker is worth nothing to who steals it.
#[tokio::test]
async fn a_stolen_database_holds_no_token_no_code_and_no_key_a_077() {
    let mut bench = Bench::new().await;
    let signed_in = bench.sign_in(None).await;
    let code = bench.device.request_code(None, None).await.unwrap();
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(bench.test.data.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending != "key") {
            bytes.extend(std::fs::read(path).unwrap());
        }
    }
    let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(has(b"lobby-printer-01"), "it is the database");
    let secret = |text: &str| jose::from_b64u(text).unwrap().split_off(8);
    for (what, needle) in [
        ("refresh token", signed_in.refresh_token.as_deref().unwrap().as_bytes().to_vec()),
        ("its secret", secret(signed_in.refresh_token.as_deref().unwrap())),
        ("device code", code.device_code.as_bytes().to_vec()),
        ("its secret", secret(&code.device_code)),
        ("user code", code.user_code.as_bytes().to_vec()),
        ("user code without prefix", code.user_code[4..].replace('-', "").into_bytes()),
        ("access token", signed_in.access_token.as_bytes().to_vec()),
        ("a private key in PKCS#8", vec![0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07]),
    ] {
        assert!(!has(&needle), "{what}");
    }
}

/// RS256 is on offer, as RFC 9068 section 2.1 wants it: for a resource that asks for it, and for no other.
#[tokio::test]
async fn a_resource_may_have_its_tokens_signed_with_rs256_r_9068() {
    let mut bench = Bench::with(|setup| setup.resources[0].signing_algorithm = SigningAlgorithm::Rs256).await;
    let there = bench.sign_in(Some(SCAN)).await;
    let header = jose::peek(&there.access_token).unwrap().header;
    assert_eq!((&header["alg"], &header["typ"]), (&json!("RS256"), &json!("at+jwt")));
    assert_eq!(bench.introspect(&there.access_token).await["active"], true);
    let jwks = bench.test.wire.send(bench.test.wire.get(&bench.test.url("/jwks"))).await.unwrap().json().unwrap();
    let key = jwks["keys"].as_array().unwrap().iter().find(|key| key["kid"] == header["kid"]).expect("its key");
    assert_eq!((&key["kty"], &key["alg"], &key["use"]), (&json!("RSA"), &json!("RS256"), &json!("sig")));
    // Verified by a library, from what anybody can fetch.
    let decoding =
        jsonwebtoken::DecodingKey::from_rsa_components(key["n"].as_str().unwrap(), key["e"].as_str().unwrap()).unwrap();
    let (signed, signature) = there.access_token.rsplit_once('.').unwrap();
    let verified =
        jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &decoding, jsonwebtoken::Algorithm::RS256);
    assert!(verified.unwrap());
    let elsewhere = bench.sign_in(Some(PRINT)).await;
    assert_eq!(jose::peek(&elsewhere.access_token).unwrap().header["alg"], "ES256");
}
