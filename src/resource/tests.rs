//! The guard in front of a service, request by request: one mutation a row, each beside a control that gets through.

use std::time::Duration;

use axum::body::Body;
use axum::{Extension, Router, routing};
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _};

use crate::clock::{Clock, Timestamp};
use crate::oauth::jose::KeylessJwt;
use crate::oauth::signing_key::{SigningAlgorithm, SigningKey};
use crate::resource::test_support::FakeBroker;
use crate::resource::{Binding, ClientCertificate, Device, Guard, GuardBuilder, Jwks, KeyAssurance};
use crate::secret::{b64u, sha256};

const RESOURCE: &str = "https://scan.example/";
const ADDRESS: &str = "https://scan.example/api/scans/1.pdf";
const START: Timestamp = Timestamp::from_millis(1_795_500_000_000);

fn signing_key(algorithm: SigningAlgorithm) -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate(algorithm).unwrap()).unwrap()
}

fn es256() -> SigningKey {
    signing_key(SigningAlgorithm::Es256)
}

/// Members of `changes` over those of `base`; null takes one away.
fn with(mut base: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        base[name] = value.clone();
    }
    base.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    base
}

struct Bench {
    clock: Clock,
    broker: FakeBroker,
    signing: SigningKey,
    device: SigningKey,
    guard: Guard,
}

/// What a request has besides its path.
#[derive(Default)]
struct Shown {
    authorization: Vec<String>,
    proofs: Vec<String>,
    certificate: Option<Vec<u8>>,
}

struct Outcome {
    status: u16,
    challenge: String,
    nonce: Option<String>,
    device: Option<Device>,
}

impl Bench {
    fn new() -> Self {
        Self::with(|builder| builder)
    }

    fn with(change: impl FnOnce(GuardBuilder) -> GuardBuilder) -> Self {
        let (clock, signing) = (Clock::manual(START), es256());
        let broker = FakeBroker::with_keys(&[&signing]);
        let builder = Guard::for_resource(RESOURCE)
            .issuer(&broker.issuer())
            .public_url("https://scan.example/api/")
            .scope("scan.write")
            .fetch(broker.clone())
            .clock(clock.clone());
        Self { clock, signing, device: es256(), guard: change(builder).build().unwrap(), broker }
    }

    fn claims(&self) -> Value {
        let now = self.clock.now().seconds();
        json!({
            "iss": self.broker.issuer(), "sub": "device:lobby-printer-01", "aud": RESOURCE, "client_id": "lobby-printer-01",
            "scope": "scan.write print.read", "iat": now, "exp": now + 600, "jti": "token-1", "sid": "7",
            "cnf": {"jkt": b64u(&self.device.public().jkt())}, "key_assurance": "software",
        })
    }

    fn token(&self, changes: Value) -> String {
        self.signing.sign("at+jwt", &with(self.claims(), changes), false).unwrap()
    }

    fn proof_claims(&self, token: &str, nonce: &str) -> Value {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let jti = format!("jti-{:016}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let ath = b64u(&sha256(&[token.as_bytes()]));
        json!({"jti": jti, "htm": "PUT", "htu": ADDRESS, "iat": 1, "ath": ath, "nonce": nonce})
    }

    fn proof(&self, token: &str, nonce: &str, changes: Value) -> String {
        self.device.sign("dpop+jwt", &with(self.proof_claims(token, nonce), changes), true).unwrap()
    }

    /// A nonce, got as a device gets it.
    async fn nonce(&self) -> String {
        let token = self.token(json!({}));
        let proof = self.proof(&token, "", json!({"nonce": null}));
        self.send(&format!("DPoP {token}"), &[&proof]).await.nonce.unwrap()
    }

    async fn send(&self, authorization: &str, proofs: &[&str]) -> Outcome {
        let proofs = proofs.iter().map(|proof| (*proof).to_owned()).collect();
        self.show(Shown { authorization: vec![authorization.into()], proofs, certificate: None }).await
    }

    async fn show(&self, shown: Shown) -> Outcome {
        let mut request = Request::put("/scans/1.pdf").header("host", "evil.example");
        for value in shown.authorization {
            request = request.header("authorization", value);
        }
        for value in shown.proofs {
            request = request.header("dpop", value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().extend(
            shown
                .certificate
                .map(|der| {
                    let mut extensions = http::Extensions::new();
                    extensions.insert(ClientCertificate(der));
                    extensions
                })
                .unwrap_or_default(),
        );
        self.answer(request).await
    }

    async fn answer(&self, request: Request<Body>) -> Outcome {
        async fn inner(request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
            let mut response = Response::new(Body::empty());
            response.extensions_mut().insert(request.extensions().get::<Device>().unwrap().clone());
            Ok(response)
        }
        let response = self.guard.layer(tower::service_fn(inner)).oneshot(request).await.unwrap();
        let header = |headers: &HeaderMap, name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        Outcome {
            status: response.status().as_u16(),
            challenge: header(response.headers(), "www-authenticate").unwrap_or_default(),
            nonce: header(response.headers(), "dpop-nonce"),
            device: response.extensions().get::<Device>().cloned(),
        }
    }
}

#[track_caller]
fn is_refused(outcome: &Outcome, status: u16, error: &str, what: &str) {
    assert_eq!(outcome.status, status, "{what}: {}", outcome.challenge);
    assert!(outcome.challenge.contains(&format!("error=\"{error}\"")), "{what}: {}", outcome.challenge);
    assert!(outcome.device.is_none(), "{what}");
}

#[tokio::test]
async fn a_device_with_its_token_and_its_key_gets_through() {
    for algorithm in SigningAlgorithm::ALL {
        let mut bench = Bench::new();
        bench.signing = signing_key(algorithm);
        bench.broker.set_keys(&[&bench.signing]);
        let token = bench.token(json!({}));
        let mut nonce = bench.nonce().await;
        for scheme in ["DPoP", "dpop"] {
            let outcome = bench.send(&format!("{scheme} {token}"), &[&bench.proof(&token, &nonce, json!({}))]).await;
            assert_eq!(outcome.status, 200, "{}", outcome.challenge);
            let device = outcome.device.unwrap();
            assert_eq!((device.id.as_str(), device.sign_in.as_deref()), ("lobby-printer-01", Some("7")));
            assert_eq!(device.bound_to, Binding::Key(bench.device.public().jkt()));
            assert_eq!(device.expires_at, START.plus(Duration::from_secs(600)));
            nonce = outcome.nonce.expect("the next nonce");
        }
    }
}

#[tokio::test]
async fn a_request_without_credentials_gets_the_bare_challenge() {
    let bench = Bench::new();
    for authorization in [vec![], vec!["Basic abc".to_owned()]] {
        let outcome = bench.show(Shown { authorization, ..Shown::default() }).await;
        assert_eq!(outcome.status, 401);
        assert_eq!(outcome.challenge, r#"DPoP algs="ES256 EdDSA Ed25519 RS256""#);
    }
    let token = bench.token(json!({}));
    let twice = vec![format!("DPoP {token}"), format!("Bearer {token}")];
    let outcome = bench.show(Shown { authorization: twice, ..Shown::default() }).await;
    is_refused(&outcome, 400, "invalid_request", "twice");
    assert_eq!(bench.broker.looks(), 0, "nobody was asked");
}

/// A-028, R-9449-01, R-9449-06: a token is worth nothing to who has not the key. One mutation a row.
#[tokio::test]
async fn a_token_bound_to_a_key_needs_a_proof_by_that_key_for_this_request_a_028() {
    let bench = Bench::new();
    let token = bench.token(json!({}));
    let nonce = bench.nonce().await;
    let proof = |changes: Value| bench.proof(&token, &nonce, changes);
    let other_token = bench.token(json!({"jti": "token-2"}));
    let thief = es256();
    let by_thief = thief.sign("dpop+jwt", &bench.proof_claims(&token, &nonce), true).unwrap();
    let typ = bench.device.sign("JWT", &bench.proof_claims(&token, &nonce), true).unwrap();
    let keyless = bench.device.sign("dpop+jwt", &bench.proof_claims(&token, &nonce), false).unwrap();
    let spliced = |of: &str| {
        let (input, _) = of.rsplit_once('.').unwrap();
        format!("{input}.{}", by_thief.rsplit_once('.').unwrap().1)
    };
    let rows = [
        ("no proof", vec![]),
        ("two proofs", vec![proof(json!({})), proof(json!({}))]),
        ("by another key", vec![by_thief.clone()]),
        ("signed by another key", vec![spliced(&proof(json!({})))]),
        ("of another typ", vec![typ]),
        ("without its key", vec![keyless]),
        ("the token itself", vec![token.clone()]),
        ("garbage", vec!["x".into()]),
        ("ath of another token", vec![proof(json!({"ath": b64u(&sha256(&[other_token.as_bytes()]))}))]),
        ("no ath", vec![proof(json!({"ath": null}))]),
        ("ath of another type", vec![proof(json!({"ath": 1}))]),
        ("ath in another spelling", vec![proof(json!({"ath": format!("{}=", b64u(&sha256(&[token.as_bytes()])))}))]),
        ("another method", vec![proof(json!({"htm": "GET"}))]),
        ("another path", vec![proof(json!({"htu": "https://scan.example/api/scans/2.pdf"}))]),
        ("the path without the prefix", vec![proof(json!({"htu": "https://scan.example/scans/1.pdf"}))]),
        ("the host of the Host header", vec![proof(json!({"htu": "https://evil.example/api/scans/1.pdf"}))]),
        ("another scheme", vec![proof(json!({"htu": "http://scan.example/api/scans/1.pdf"}))]),
        ("jti short", vec![proof(json!({"jti": "short"}))]),
        ("no jti", vec![proof(json!({"jti": null}))]),
        ("no iat", vec![proof(json!({"iat": null}))]),
    ];
    for (what, proofs) in rows {
        let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
        let outcome = bench.send(&format!("DPoP {token}"), &proofs).await;
        is_refused(&outcome, 401, "invalid_dpop_proof", what);
        assert!(outcome.challenge.starts_with("DPoP ") && outcome.nonce.is_some(), "{what}");
    }
    for (what, proofs) in [("alone", vec![]), ("with a good proof", vec![proof(json!({}))])] {
        let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
        let outcome = bench.send(&format!("Bearer {token}"), &proofs).await;
        is_refused(&outcome, 401, "invalid_token", &format!("as Bearer, {what}"));
        assert!(outcome.challenge.starts_with("Bearer ") && outcome.nonce.is_none(), "{what}");
    }
    let control = proof(json!({}));
    assert_eq!(bench.send(&format!("DPoP {token}"), &[&control]).await.status, 200);
    let again = bench.send(&format!("DPoP {token}"), &[&control]).await;
    is_refused(&again, 401, "invalid_dpop_proof", "the same proof again (R-9449-08)");
}

/// R-9449-07: proofs that were signed ahead are worth nothing.
#[tokio::test]
async fn a_proof_needs_a_nonce_of_ours_that_is_fresh_and_for_this_key_a_024_a_025() {
    let bench = Bench::new();
    let token = bench.token(json!({}));
    let nonce = bench.nonce().await;
    let others = bench.guard.requiring("scan.write").unwrap();
    let foreign = Bench::new().nonce().await;
    for (what, nonce) in [("none", Value::Null), ("invented", json!("AAAA")), ("of another process", json!(foreign))] {
        let proof = bench.proof(&token, "", json!({"nonce": nonce}));
        let outcome = bench.send(&format!("DPoP {token}"), &[&proof]).await;
        is_refused(&outcome, 401, "use_dpop_nonce", what);
        assert_eq!(outcome.challenge, r#"DPoP error="use_dpop_nonce", algs="ES256 EdDSA Ed25519 RS256""#);
        assert!(outcome.nonce.is_some(), "{what}");
    }
    bench.clock.advance(Duration::from_secs(119));
    let proof = bench.proof(&token, &nonce, json!({}));
    assert_eq!(bench.send(&format!("DPoP {token}"), &[&proof]).await.status, 200, "119 s old");
    bench.clock.advance(Duration::from_secs(1));
    let proof = bench.proof(&token, &nonce, json!({}));
    is_refused(&bench.send(&format!("DPoP {token}"), &[&proof]).await, 401, "use_dpop_nonce", "120 s old");
    // Guards that are made from one share nonces and what they have seen.
    let nonce = bench.nonce().await;
    let proof = bench.proof(&token, &nonce, json!({}));
    assert_eq!(bench.send(&format!("DPoP {token}"), &[&proof]).await.status, 200);
    let elsewhere = Bench { guard: others, ..bench };
    is_refused(&elsewhere.send(&format!("DPoP {token}"), &[&proof]).await, 401, "invalid_dpop_proof", "replayed");
}

fn certificate(key: &rcgen::KeyPair, from: i64, until: i64) -> Vec<u8> {
    let mut params = rcgen::CertificateParams::default();
    params.not_before = time::OffsetDateTime::from_unix_timestamp(from).unwrap();
    params.not_after = time::OffsetDateTime::from_unix_timestamp(until).unwrap();
    params.self_signed(key).unwrap().der().to_vec()
}

/// R-8705-04, R-8705-07.
#[tokio::test]
async fn a_token_bound_to_a_certificate_needs_that_certificate_in_its_time_a_013_a_028() {
    let bench = Bench::new();
    let (key, other_key) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let now = START.seconds();
    let valid = certificate(&key, now - 60, now + 60);
    let expired = certificate(&key, now - 60, now - 1);
    let early = certificate(&key, now + 1, now + 60);
    let bound_to = |der: &[u8]| json!({"cnf": {"x5t#S256": b64u(&sha256(&[der]))}});
    let mut longer = valid.clone();
    longer.push(0);
    let rows = [
        ("that certificate", "Bearer", &valid, Some(&valid), 200),
        ("none", "Bearer", &valid, None, 401),
        ("as DPoP", "DPoP", &valid, Some(&valid), 401),
        ("another key's", "Bearer", &valid, Some(&certificate(&other_key, now - 60, now + 60)), 401),
        ("another one of the same key", "Bearer", &valid, Some(&certificate(&key, now - 61, now + 60)), 401),
        ("with a byte more", "Bearer", &valid, Some(&longer), 401),
        ("expired", "Bearer", &expired, Some(&expired), 401),
        ("not valid yet", "Bearer", &early, Some(&early), 401),
        ("no certificate", "Bearer", &b"x".to_vec(), Some(&b"x".to_vec()), 401),
    ];
    for (what, scheme, bound, shown, status) in rows {
        let authorization = vec![format!("{scheme} {}", bench.token(bound_to(bound)))];
        let outcome = bench.show(Shown { authorization, certificate: shown.cloned(), proofs: Vec::new() }).await;
        if status == 200 {
            assert_eq!(outcome.status, 200, "{what}: {}", outcome.challenge);
            assert_eq!(outcome.device.unwrap().bound_to, Binding::Certificate(sha256(&[&valid])));
        } else {
            is_refused(&outcome, status, "invalid_token", what);
        }
    }
}

/// R-9068-01, R-9068-04. The claims have their own table in `claims.rs`.
#[tokio::test]
async fn what_is_no_access_token_of_the_broker_for_us_is_refused_a_076() {
    let bench = Bench::new();
    let nonce = bench.nonce().await;
    let claims = bench.claims();
    let sign = |typ: &str, claims: &Value| bench.signing.sign(typ, claims, false).unwrap();
    let forger = es256();
    let header = |value: Value| b64u(value.to_string().as_bytes());
    let kid = bench.signing.kid();
    let unsigned = |value: Value| format!("{}.{}.", header(value), b64u(claims.to_string().as_bytes()));
    let resigned = |value: Value| {
        let good = sign("at+jwt", &claims);
        format!("{}.{}", header(value), good.split_once('.').unwrap().1)
    };
    let rows = [
        ("an access token", sign("at+jwt", &claims), true),
        ("an access token, long typ", sign("application/at+jwt", &claims), true),
        ("an access token, typ in capitals", sign("AT+JWT", &claims), true),
        ("an ID token", sign("JWT", &claims), false),
        ("a pairing answer", sign("pairing-response+jwt", &claims), false),
        ("a token for another resource", bench.token(json!({"aud": "https://other.example/"})), false),
        ("a token for two", bench.token(json!({"aud": [RESOURCE, "https://other.example/"]})), false),
        ("a person's token", bench.token(json!({"sub": "ida", "client_id": "web"})), false),
        ("another device's name", bench.token(json!({"sub": "device:attic-printer-02"})), false),
        ("without a binding", bench.token(json!({"cnf": null})), false),
        ("expired", bench.token(json!({"exp": START.seconds()})), false),
        ("of another broker", bench.token(json!({"iss": "https://other.example"})), false),
        ("signed by somebody else", forger.sign("at+jwt", &claims, false).unwrap(), false),
        ("with its own key", bench.signing.sign("at+jwt", &claims, true).unwrap(), false),
        ("alg none", unsigned(json!({"typ": "at+jwt", "alg": "none", "kid": kid})), false),
        ("alg HS256", resigned(json!({"typ": "at+jwt", "alg": "HS256", "kid": kid})), false),
        ("alg of another key", resigned(json!({"typ": "at+jwt", "alg": "RS256", "kid": kid})), false),
        ("no kid", resigned(json!({"typ": "at+jwt", "alg": "ES256"})), false),
        ("jku", resigned(json!({"typ": "at+jwt", "alg": "ES256", "kid": kid, "jku": "https://evil.example"})), false),
        ("x5c", resigned(json!({"typ": "at+jwt", "alg": "ES256", "kid": kid, "x5c": ["AAAA"]})), false),
        (
            "a changed claim",
            {
                let (token, other) = (bench.token(json!({})), bench.token(json!({"scope": "everything"})));
                let parts: Vec<&str> = token.split('.').collect();
                format!("{}.{}.{}", parts[0], other.split('.').nth(1).unwrap(), parts[2])
            },
            false,
        ),
        ("opaque", "2YotnFZFEjr1zCsicMWpAA".into(), false),
    ];
    for (what, token, is_good) in rows {
        let outcome = bench.send(&format!("DPoP {token}"), &[&bench.proof(&token, &nonce, json!({}))]).await;
        if is_good {
            assert_eq!(outcome.status, 200, "{what}: {}", outcome.challenge);
        } else {
            is_refused(&outcome, 401, "invalid_token", what);
            assert!(outcome.nonce.is_none(), "{what}: a stranger gets no nonce");
        }
    }
    assert_eq!(bench.broker.looks(), 1, "tokens of others don't make us ask");
}

/// R-9470-01 besides.
#[tokio::test]
async fn a_token_that_allows_too_little_is_forbidden_only_to_its_device() {
    let change = |builder: GuardBuilder| {
        builder
            .scope("scan.write print.read")
            .key_assurance(KeyAssurance::HardwareClaimed)
            .max_age(Duration::from_secs(300))
    };
    let bench = Bench::with(change);
    let now = START.seconds();
    let good = json!({"key_assurance": "hardware-claimed", "auth_time": now - 300});
    let rows = [
        (json!({}), 200, ""),
        (json!({"key_assurance": "attested"}), 200, ""),
        (json!({"key_assurance": "software"}), 403, "insufficient_scope"),
        (json!({"key_assurance": null}), 403, "insufficient_scope"),
        (json!({"key_assurance": "by my own word"}), 403, "insufficient_scope"),
        (json!({"scope": "scan.write"}), 403, "insufficient_scope"),
        (json!({"scope": ""}), 403, "insufficient_scope"),
        (json!({"scope": "scan.write print.read more"}), 200, ""),
        (json!({"auth_time": now - 301}), 401, "insufficient_user_authentication"),
        (json!({"auth_time": null}), 200, ""),
    ];
    let nonce = bench.nonce().await;
    for (changes, status, error) in rows {
        let token = bench.token(with(good.clone(), changes.clone()));
        let good_proof = bench.proof(&token, &nonce, json!({}));
        let outcome = bench.send(&format!("DPoP {token}"), &[&good_proof]).await;
        match status {
            200 => assert_eq!(outcome.status, 200, "{changes}: {}", outcome.challenge),
            _ => is_refused(&outcome, status, error, &changes.to_string()),
        }
        // Whoever only has the token does not learn that.
        let outcome = bench.send(&format!("DPoP {token}"), &[]).await;
        is_refused(&outcome, 401, "invalid_dpop_proof", &changes.to_string());
    }
}

#[tokio::test]
async fn without_the_brokers_keys_nobody_gets_in_and_is_told_to_come_back() {
    let bench = Bench::new();
    bench.broker.cut();
    let outcome = bench.send(&format!("DPoP {}", bench.token(json!({}))), &[]).await;
    assert_eq!((outcome.status, outcome.challenge.as_str()), (503, ""));
}

#[tokio::test]
async fn fixed_keys_need_no_broker_and_it_works_in_a_router() {
    let bench = Bench::new();
    let keys = json!({"keys": [bench.signing.jwk_set_entry()]}).to_string();
    let guard = Guard::for_resource(RESOURCE)
        .issuer(&bench.broker.issuer())
        .public_url("https://scan.example/api")
        .keys(Jwks::parse(keys.as_bytes()).unwrap())
        .clock(bench.clock.clone())
        .build()
        .unwrap();
    let greet = |Extension(device): Extension<Device>| async move { device.id.to_string() };
    let inner = Router::new().route("/scans/{name}", routing::put(greet)).layer(guard);
    let router = Router::new().nest("/api", inner);
    let token = bench.token(json!({}));
    let mut proof = bench.proof(&token, "", json!({"nonce": null}));
    for status in [401, 200] {
        let request = Request::put("/api/scans/1.pdf")
            .header("authorization", format!("DPoP {token}"))
            .header("dpop", &proof)
            .body(Body::empty())
            .unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status);
        proof = bench.proof(&token, response.headers()["dpop-nonce"].to_str().unwrap(), json!({}));
    }
    assert_eq!(bench.broker.looks(), 0);
}

#[test]
fn a_guard_that_would_guard_nothing_is_not_made() {
    let keys = || Jwks::parse(br#"{"keys":[]}"#).unwrap();
    let good = || {
        let builder = Guard::for_resource(RESOURCE).issuer("https://pairgate.example");
        builder.public_url("https://scan.example").keys(keys())
    };
    assert!(good().build().is_ok());
    for (what, builder) in [
        (
            "no identifier",
            Guard::for_resource("").issuer("https://a.example").public_url("https://b.example").keys(keys()),
        ),
        ("no issuer", Guard::for_resource(RESOURCE).public_url("https://scan.example").keys(keys())),
        ("no address", Guard::for_resource(RESOURCE).issuer("https://pairgate.example").keys(keys())),
        ("an issuer without TLS", good().issuer("http://pairgate.example")),
        ("an address without TLS", good().public_url("http://scan.example")),
        ("an address with a query", good().public_url("https://scan.example/?a=b")),
        ("no address at all", good().public_url("scan.example")),
        ("no scope", good().scope("a\"b")),
        ("keys and introspection", good().introspection(es256())),
    ] {
        assert!(builder.build().is_err(), "{what}");
    }
}

/// Introspection (RFC 7662): R-7662-04, R-7662-05.
#[tokio::test]
async fn introspection_is_asked_again_after_ten_seconds_and_never_believed_beyond_the_end() {
    let key = es256();
    let public = key.public().clone();
    let bench = Bench::with(|builder| builder.introspection(key));
    let active = |changes: Value| with(bench.claims(), with(json!({"active": true, "token_type": "DPoP"}), changes));
    let asked = || bench.broker.forms().len();
    let present = async |token: &str| {
        let bare = bench.proof(token, "", json!({"nonce": null}));
        let Some(nonce) = bench.send(&format!("DPoP {token}"), &[&bare]).await.nonce else {
            return bench.send(&format!("DPoP {token}"), &[]).await;
        };
        bench.send(&format!("DPoP {token}"), &[&bench.proof(token, &nonce, json!({}))]).await
    };
    is_refused(&present("opaque-token").await, 401, "invalid_token", "inactive");
    assert_eq!(asked(), 2, "a bad answer is not kept");
    bench.broker.set_introspection(active(json!({"exp": START.seconds() + 15})));
    assert_eq!(present("opaque-token").await.status, 200);
    assert_eq!(asked(), 3, "a good one is");
    let form = bench.broker.forms().pop().unwrap();
    let field = |name: &str| form.iter().find(|(known, _)| known == name).unwrap().1.clone();
    assert_eq!((field("token"), field("client_id")), ("opaque-token".into(), RESOURCE.into()));
    assert_eq!(field("client_assertion_type"), "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    let assertion = field("client_assertion");
    let jwt = KeylessJwt::<Value>::parse(&assertion).unwrap();
    assert_eq!(jwt.typ(), Some("client-authentication+jwt"));
    let said = jwt.verify_with(&public).unwrap().claims;
    assert_eq!(
        (&said["iss"], &said["sub"], &said["aud"]),
        (&json!(RESOURCE), &json!(RESOURCE), &json!(bench.broker.issuer()))
    );
    assert_eq!((said["iat"].as_i64(), said["exp"].as_i64()), (Some(START.seconds()), Some(START.seconds() + 60)));
    assert_eq!(said["jti"].as_str().unwrap().len(), 22);

    bench.broker.set_introspection(json!({"active": false}));
    bench.clock.advance(Duration::from_secs(9));
    assert_eq!(present("opaque-token").await.status, 200, "kept for ten seconds");
    bench.clock.advance(Duration::from_secs(1));
    is_refused(&present("opaque-token").await, 401, "invalid_token", "revoked ten seconds ago");
    bench.broker.set_introspection(active(json!({"exp": START.seconds() + 15})));
    assert_eq!(present("opaque-token").await.status, 200);
    let before = asked();
    bench.clock.advance(Duration::from_secs(5));
    is_refused(&present("opaque-token").await, 401, "invalid_token", "at its end");
    assert!(asked() > before, "not kept beyond it");
    bench.broker.cut();
    assert_eq!(present("another-token").await.status, 503, "fails closed");
}

/// What the broker says of a token is held against the same table as what a token says of itself.
#[tokio::test]
async fn an_active_token_must_still_be_ours_a_devices_and_bound_a_028_a_076() {
    for (what, changes, is_good) in [
        ("control", json!({}), true),
        ("active in words", json!({"active": "true"}), false),
        ("no type", json!({"token_type": null}), false),
        ("a bearer token", json!({"token_type": "Bearer"}), false),
        ("a refresh token", json!({"token_type": "refresh_token"}), false),
        ("another key's", json!({"cnf": {"jkt": b64u(&[7; 32])}}), false),
        ("bound to nothing", json!({"cnf": null}), false),
        ("bound to nothing, of type Bearer", json!({"cnf": null, "token_type": "Bearer"}), false),
        ("for another resource", json!({"aud": "https://other.example/"}), false),
        ("of another broker", json!({"iss": "https://other.example"}), false),
        ("a person's", json!({"sub": "ida"}), false),
        ("expired", json!({"exp": START.seconds()}), false),
        ("without an end", json!({"exp": null}), false),
    ] {
        let bench = Bench::with(|builder| builder.introspection(es256()));
        let nonce = {
            bench.broker.set_introspection(with(bench.claims(), json!({"active": true, "token_type": "DPoP"})));
            bench.nonce().await
        };
        let base = with(bench.claims(), json!({"active": true, "token_type": "DPoP"}));
        bench.broker.set_introspection(with(base, changes));
        let outcome = bench.send("DPoP opaque", &[&bench.proof("opaque", &nonce, json!({}))]).await;
        assert_eq!(outcome.status == 200, is_good, "{what}: {} {}", outcome.status, outcome.challenge);
    }
}
