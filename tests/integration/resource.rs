//! A service behind `pairgate::resource`, over real sockets: the example, with a broker and its devices; and introspection (RFC 7662) at a broker that
//! is played.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use pairgate::clock::Clock;
use pairgate::model::kind::DEFAULT_RESOURCE;
use pairgate::model::operator::Role;
use pairgate::model::resource::Resource;
use pairgate::oauth::signing_key::{SigningAlgorithm, SigningKey};
use pairgate::resource::{Guard, GuardBuilder};
use pairgate::simulator::{DeviceKey, PageOperator, RawAnswer, SimulatedDevice, TokenAnswer, Tokens, Wire, jose};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::probe::jti;
use crate::support::{START, Setup, TestBroker};

#[allow(dead_code)] // its `main`
#[path = "../../examples/scan_to_folder.rs"]
mod scan_to_folder;

const OTHER_RESOURCE: &str = "https://archive.example/";

/// The example's service, running.
struct Service {
    address: String,
    folder: tempfile::TempDir,
    wire: Wire,
}

impl Service {
    async fn start(issuer: &str, clock: &Clock, change: impl FnOnce(GuardBuilder) -> GuardBuilder) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let builder = Guard::for_resource(DEFAULT_RESOURCE).issuer(issuer).public_url(&address).scope("scan.write");
        let guard = change(builder.clock(clock.clone())).build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let router = scan_to_folder::router(guard, folder.path().to_owned());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, folder, wire: Wire::new().unwrap() }
    }

    fn url(&self, name: &str) -> String {
        format!("{}/scans/{name}", self.address)
    }

    /// Every file below the folder.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for folder in std::fs::read_dir(self.folder.path()).unwrap() {
            files.extend(std::fs::read_dir(folder.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
        }
        files.sort();
        files.iter().map(|file| file.strip_prefix(self.folder.path()).unwrap().to_owned()).collect()
    }

    async fn put(&self, name: &str, scan: &[u8], authorization: &str, proof: Option<&str>) -> RawAnswer {
        let request = self.wire.put(&self.url(name)).header("authorization", authorization).body(scan.to_vec());
        let request = proof.into_iter().fold(request, |request, proof| request.header("dpop", proof));
        self.wire.send(request).await.unwrap()
    }

    /// What an honest device does: with the nonce that the service asks for.
    async fn upload(&self, key: &DeviceKey, token: &str, name: &str, scan: &[u8]) -> RawAnswer {
        let proof = |nonce: Option<&str>| self.proof(key, token, name, nonce);
        let first = self.put(name, scan, &format!("DPoP {token}"), Some(&proof(None))).await;
        match first.header("dpop-nonce") {
            Some(nonce) => {
                assert_eq!(first.status, 401);
                self.put(name, scan, &format!("DPoP {token}"), Some(&proof(Some(nonce)))).await
            }
            None => first,
        }
    }

    fn proof(&self, key: &DeviceKey, token: &str, name: &str, nonce: Option<&str>) -> String {
        let ath = jose::b64u(&jose::sha256(&[token.as_bytes()]));
        let mut claims = json!({"jti": jti(), "htm": "PUT", "htu": self.url(name), "iat": 1, "ath": ath});
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        key.sign_raw(&key.header("dpop+jwt"), &claims).unwrap()
    }
}

/// A broker, a paired printer, and the service that it scans to.
struct Bench {
    test: TestBroker,
    ida: PageOperator,
    printer: SimulatedDevice,
    service: Service,
}

impl Bench {
    async fn new() -> Self {
        let mut setup = Setup::default();
        for kind in &mut setup.kinds {
            kind.resources = vec![DEFAULT_RESOURCE.into(), OTHER_RESOURCE.into()];
        }
        let test = TestBroker::with(setup).await;
        let ida = test.operator("ida", Role::Admin).await;
        let printer = test.paired("lobby-printer-01", "printer").await;
        let service = Service::start(&test.issuer, &test.clock, |builder| builder).await;
        Self { test, ida, printer, service }
    }

    async fn signed_in(&mut self, scope: &str, resource: &str) -> Tokens {
        let code = self.printer.request_code(Some(scope), Some(resource)).await.unwrap();
        self.test.approve(&self.ida, &mut self.printer, &code.verification_uri_complete).await;
        match self.printer.poll_token(None).await.unwrap() {
            TokenAnswer::Tokens(tokens) => tokens,
            other => panic!("no tokens: {other:?}"),
        }
    }
}

#[track_caller]
fn is_refused(answer: &RawAnswer, status: u16, error: &str, what: &str) {
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    assert_eq!(answer.status, status, "{what}: {challenge} {}", answer.body);
    assert!(challenge.contains(&format!("error=\"{error}\"")), "{what}: {challenge}");
}

#[tokio::test]
async fn a_scan_of_an_enrolled_device_arrives_and_no_other_does_a_028_a_076() {
    let mut bench = Bench::new().await;
    let token = bench.signed_in("scan.write", DEFAULT_RESOURCE).await.access_token;
    let (service, key) = (&bench.service, bench.printer.key.clone());
    let answer = service.upload(&key, &token, "1.pdf", b"a scan").await;
    assert_eq!((answer.status, answer.body.as_str()), (201, "Kept.\n"));
    let path = service.folder.path().join("lobby-printer-01/1.pdf");
    assert_eq!(std::fs::read(&path).unwrap(), b"a scan");
    let fresh = answer.header("dpop-nonce").unwrap().to_owned();

    let as_dpop = format!("DPoP {token}");
    let bearer = service.put("2.pdf", b"x", &format!("Bearer {token}"), None).await;
    is_refused(&bearer, 401, "invalid_token", "a bearer use");
    let thief = DeviceKey::generate_es256().unwrap();
    let foreign = service.proof(&thief, &token, "2.pdf", Some(&fresh));
    is_refused(
        &service.put("2.pdf", b"x", &as_dpop, Some(&foreign)).await,
        401,
        "invalid_dpop_proof",
        "a foreign proof",
    );
    let elsewhere = service.proof(&key, &token, "3.pdf", Some(&fresh));
    is_refused(
        &service.put("2.pdf", b"x", &as_dpop, Some(&elsewhere)).await,
        401,
        "invalid_dpop_proof",
        "another name",
    );
    let good = service.proof(&key, &token, "2.pdf", Some(&fresh));
    assert_eq!(service.put("2.pdf", b"x", &as_dpop, Some(&good)).await.status, 201, "control");
    is_refused(&service.put("2.pdf", b"x", &as_dpop, Some(&good)).await, 401, "invalid_dpop_proof", "the same again");
    bench.test.advance(120);
    let old = service.proof(&key, &token, "3.pdf", Some(&fresh));
    is_refused(&service.put("3.pdf", b"x", &as_dpop, Some(&old)).await, 401, "use_dpop_nonce", "an old nonce");
    let brokers = bench.printer.dpop_nonce().unwrap().to_owned();
    let old = service.proof(&key, &token, "3.pdf", Some(&brokers));
    is_refused(&service.put("3.pdf", b"x", &as_dpop, Some(&old)).await, 401, "use_dpop_nonce", "the broker's nonce");
    assert_eq!(service.files().len(), 2);

    bench.test.advance(600);
    let late = bench.service.upload(&key, &token, "3.pdf", b"x").await;
    is_refused(&late, 401, "invalid_token", "after expiry");
    let other = bench.signed_in("scan.write", OTHER_RESOURCE).await.access_token;
    let answer = bench.service.upload(&key, &other, "3.pdf", b"x").await;
    is_refused(&answer, 401, "invalid_token", "another resource's token");
    let narrow = bench.signed_in("print.read", DEFAULT_RESOURCE).await.access_token;
    let answer = bench.service.upload(&key, &narrow, "3.pdf", b"x").await;
    is_refused(&answer, 403, "insufficient_scope", "too little scope");
    assert_eq!(bench.service.files(), [PathBuf::from("lobby-printer-01/1.pdf"), "lobby-printer-01/2.pdf".into()]);
}

#[tokio::test]
async fn the_scan_folder_takes_safe_names_once_and_up_to_its_limit() {
    let mut bench = Bench::new().await;
    let token = bench.signed_in("scan.write", DEFAULT_RESOURCE).await.access_token;
    let (service, key) = (&bench.service, bench.printer.key.clone());
    assert_eq!(service.upload(&key, &token, "1.pdf", b"one").await.status, 201);
    assert_eq!(service.upload(&key, &token, "1.pdf", b"two").await.status, 409);
    assert_eq!(std::fs::read(service.folder.path().join("lobby-printer-01/1.pdf")).unwrap(), b"one");
    for name in ["%2E%2Ehidden", ".hidden", "a%2Fb", "a%5Cb", "a%00b", "a%20b", &"x".repeat(101)] {
        let answer = service.upload(&key, &token, name, b"x").await;
        assert!(matches!(answer.status, 400 | 404), "{name}: {} {}", answer.status, answer.body);
    }
    let longest = vec![0; scan_to_folder::MAX_SCAN];
    assert_eq!(service.upload(&key, &token, "long.pdf", &longest).await.status, 201);
    let nonce = service.upload(&key, &token, "2.pdf", b"x").await.header("dpop-nonce").unwrap().to_owned();
    let proof = service.proof(&key, &token, "longer.pdf", Some(&nonce));
    let longer = vec![0; scan_to_folder::MAX_SCAN + 1];
    // The service may hang up before all of it was sent.
    let request = service.wire.put(&service.url("longer.pdf")).header("authorization", format!("DPoP {token}"));
    if let Ok(answer) = service.wire.send(request.header("dpop", proof).body(longer)).await {
        assert_eq!(answer.status, 413);
    }
    assert_eq!(service.files().len(), 3, "{:?}", service.files());
}

/// What the played broker was asked, and answers.
#[derive(Clone, Default)]
struct Played(Arc<Mutex<(Vec<Fields>, Value)>>);

type Fields = Vec<(String, String)>;

async fn played_broker(played: Played) -> String {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let metadata = json!({"issuer": issuer, "introspection_endpoint": format!("{issuer}/introspect")});
    let introspect = |State(played): State<Played>, Form(form): Form<Fields>| async move {
        let mut state = played.0.lock().unwrap();
        state.0.push(form);
        Json(state.1.clone())
    };
    let router = Router::<Played>::new()
        .route("/.well-known/oauth-authorization-server", get(|| async move { Json(metadata) }))
        .route("/introspect", post(introspect))
        .with_state(played);
    tokio::spawn(async move { axum::serve(listener, router).await });
    issuer
}

/// R-7662-01, R-7662-04, R-7662-05.
#[tokio::test]
async fn with_introspection_a_revoked_token_is_out_within_ten_seconds() {
    let played = Played::default();
    let issuer = played_broker(played.clone()).await;
    let (clock, key) = (Clock::manual(START), DeviceKey::generate_es256().unwrap());
    let own = SigningKey::from_pkcs8(&SigningKey::generate(SigningAlgorithm::Es256).unwrap()).unwrap();
    let own_public = own.public().to_json();
    let service = Service::start(&issuer, &clock, |builder| builder.introspection(own)).await;
    let now = START.seconds();
    let active = json!({
        "active": true, "scope": "scan.write", "client_id": "lobby-printer-01", "sub": "device:lobby-printer-01",
        "aud": DEFAULT_RESOURCE, "iss": issuer, "exp": now + 600, "iat": now, "jti": "one", "sid": "7",
        "token_type": "DPoP", "cnf": {"jkt": key.jkt()}, "key_assurance": "software",
    });
    played.0.lock().unwrap().1 = active;
    assert_eq!(service.upload(&key, "opaque", "1.pdf", b"x").await.status, 201);
    assert_eq!(service.upload(&key, "opaque", "2.pdf", b"x").await.status, 201);
    let asked = played.0.lock().unwrap().0.clone();
    assert_eq!(asked.len(), 1, "kept for ten seconds");
    let field = |name: &str| asked[0].iter().find(|(known, _)| known == name).unwrap().1.clone();
    assert_eq!((field("token"), field("client_id")), ("opaque".into(), DEFAULT_RESOURCE.into()));
    let assertion = jose::check(&field("client_assertion"), &own_public).unwrap();
    assert_eq!(assertion.header["typ"], "client-authentication+jwt");
    assert_eq!(assertion.claims["aud"], json!(issuer), "the issuer alone");
    let thief = DeviceKey::generate_es256().unwrap();
    is_refused(&service.upload(&thief, "opaque", "3.pdf", b"x").await, 401, "invalid_dpop_proof", "another key");
    played.0.lock().unwrap().1 = json!({"active": false});
    clock.advance(std::time::Duration::from_secs(10));
    is_refused(&service.upload(&key, "opaque", "3.pdf", b"x").await, 401, "invalid_token", "revoked");
    assert_eq!(service.files().len(), 2);
}

/// Fails closed: without the broker nobody gets in, and is told when to come back.
#[tokio::test]
async fn without_the_broker_the_answer_is_503_not_yes() {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let dead = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let redirecting = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let lured = format!("http://{}", redirecting.local_addr().unwrap());
    let elsewhere = axum::response::Redirect::temporary("https://evil.example/");
    tokio::spawn(async move { axum::serve(redirecting, Router::new().fallback(async move || elsewhere)).await });
    let flooding = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let flood = format!("http://{}", flooding.local_addr().unwrap());
    tokio::spawn(async move {
        axum::serve(flooding, Router::new().fallback(async || Body::from(vec![b' '; 1 << 20]))).await
    });
    for issuer in [dead, lured, flood] {
        let own = SigningKey::from_pkcs8(&SigningKey::generate(SigningAlgorithm::Es256).unwrap()).unwrap();
        let clock = Clock::manual(START);
        let asking = Service::start(&issuer, &clock, |builder| builder.introspection(own)).await;
        let answer = asking.put("1.pdf", b"x", "DPoP opaque", None).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{issuer}");
        let checking = Service::start(&issuer, &clock, |builder| builder).await;
        let somebody = SigningKey::from_pkcs8(&SigningKey::generate(SigningAlgorithm::Es256).unwrap()).unwrap();
        let claims = json!({
            "iss": issuer, "sub": "device:a-b", "client_id": "a-b", "aud": DEFAULT_RESOURCE, "iat": 1, "exp": 2, "jti": "x",
        });
        let token = somebody.sign("at+jwt", &claims, false).unwrap();
        let answer = checking.put("1.pdf", b"x", &format!("DPoP {token}"), None).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{issuer}");
        assert!(asking.files().is_empty() && checking.files().is_empty());
    }
}

/// Broker and service together: a device that is suspended is out at the service within ten seconds, and a token for another service never was in.
#[tokio::test]
async fn a_suspended_device_is_out_at_the_service_that_asks_the_broker_a_096() {
    let own = SigningKey::from_pkcs8(&SigningKey::generate(SigningAlgorithm::Es256).unwrap()).unwrap();
    let resource = Resource { keys: vec![own.public().clone()], ..Resource::plain(DEFAULT_RESOURCE) };
    let mut setup = Setup { resources: vec![resource], ..Setup::default() };
    setup.kinds[0].resources = vec![DEFAULT_RESOURCE.into(), OTHER_RESOURCE.into()];
    let test = TestBroker::with(setup).await;
    let ida = test.operator("ida", Role::Admin).await;
    let printer = test.paired("lobby-printer-01", "printer").await;
    let service = Service::start(&test.issuer, &test.clock, |builder| builder.introspection(own)).await;
    let mut bench = Bench { test, ida, printer, service };
    let here = bench.signed_in("scan.write", DEFAULT_RESOURCE).await;
    let elsewhere = bench.signed_in("scan.write", OTHER_RESOURCE).await;
    let key = bench.printer.key.clone();
    assert_eq!(bench.service.upload(&key, &here.access_token, "1.pdf", b"x").await.status, 201);
    let answer = bench.service.upload(&key, &elsewhere.access_token, "2.pdf", b"x").await;
    is_refused(&answer, 401, "invalid_token", "for another service");
    bench.test.suspend("lobby-printer-01").await;
    bench.test.advance(10);
    let answer = bench.service.upload(&key, &here.access_token, "3.pdf", b"x").await;
    is_refused(&answer, 401, "invalid_token", "suspended");
    assert_eq!(bench.service.files().len(), 1);
}
