//! OpenID providers: a real one (the npm package `oidc-provider`), and [`Rogue`], which says whatever a test wants.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use pairgate::clock::Clock;
use pairgate::config::{GroupRole, Hidden, Sso};
use pairgate::model::operator::Role;
use pairgate::secret::{b64u, sha256};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Setup, TestBroker};

const INSTALL: &str = "Install it: npm ci --prefix tests/sso (or run tests/run, which does)";

/// `[sso]` for a provider on loopback: group `it` administers everything, `berlin` approves at the site of that name.
pub fn settings(issuer: &str) -> Sso {
    let row = |group: &str, site: &str, role| GroupRole { group: group.into(), site: site.into(), role };
    Sso {
        issuer: issuer.into(),
        tenant: None,
        client_id: "pairgate".into(),
        client_secret: Some(Hidden("a secret & more".into())),
        client_secret_file: None,
        label: "Contoso account".into(),
        scopes: vec!["profile".into(), "email".into(), "groups".into()],
        groups_claim: "groups".into(),
        groups: vec![row("it", "*", Role::Admin), row("berlin", "berlin", Role::Approver)],
        admits_everybody: false,
        allow_private_network: true,
        ca: None,
        ca_pem: None,
    }
}

/// The real provider; its process ends when this is dropped.
pub struct OpenIdProvider {
    child: Child,
    output: BufReader<ChildStdout>,
    pub issuer: String,
}

impl OpenIdProvider {
    pub fn start() -> Self {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sso");
        assert!(folder.join("node_modules/oidc-provider").exists(), "oidc-provider is missing. {INSTALL}");
        let mut child = Command::new("node")
            .arg("provider.mjs")
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node 20 or newer: apt-get install nodejs");
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        output.read_line(&mut port).unwrap();
        let port: u16 = port.trim().parse().unwrap_or_else(|_| panic!("the provider did not start. {INSTALL}"));
        Self { child, output, issuer: format!("http://127.0.0.1:{port}") }
    }

    fn tell(&mut self, what: &Value) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready");
    }

    /// Who is in which groups from now on.
    pub fn set_groups(&mut self, groups: &[(&str, &[&str])]) {
        self.tell(&json!({"groups": groups.iter().copied().collect::<BTreeMap<_, _>>()}));
    }

    /// A broker that signs people in by it, at the real time.
    pub async fn broker(&mut self) -> TestBroker {
        let setup = Setup { sso: Some(settings(&self.issuer)), ..Setup::default() };
        let data = Arc::new(tempfile::tempdir().unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let test = TestBroker::on(data, address, Clock::system(), setup).await;
        self.tell(&json!({"redirect_uri": format!("{}/sign-in/sso/callback", test.issuer)}));
        test
    }
}

impl Drop for OpenIdProvider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A provider that says whatever a test wants.
pub struct Rogue {
    pub issuer: String,
    shared: Arc<Shared>,
}

struct Shared {
    key: EcdsaKeyPair,
    says: Mutex<Says>,
}

/// What it says next.
#[derive(Clone)]
pub struct Says {
    pub metadata: Value,
    /// Claims of the ID token.
    pub claims: Value,
    pub header: Value,
    pub signed_by: SignedBy,
    /// The form of the last request to the token endpoint, and how many there were.
    pub asked: Vec<BTreeMap<String, String>>,
    /// Status and body of the token endpoint, in place of tokens.
    pub token_error: Option<Value>,
}

/// How the token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedBy {
    Provider,
    /// A key that is not the provider's.
    Another,
    /// HMAC with the client secret.
    Secret,
    /// HMAC with the provider's public key.
    PublicKey,
    Nobody,
}

impl Rogue {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let metadata = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/jwks"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
            "authorization_response_iss_parameter_supported": true,
        });
        let says = Says {
            metadata,
            claims: json!({}),
            header: json!({"alg": "ES256", "kid": "one"}),
            signed_by: SignedBy::Provider,
            asked: Vec::new(),
            token_error: None,
        };
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let shared = Arc::new(Shared { key, says: Mutex::new(says) });
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(metadata_of))
            .route("/jwks", get(keys))
            .route("/token", post(token))
            .with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { issuer, shared }
    }

    /// Changes what it says.
    pub fn change(&self, change: impl FnOnce(&mut Says)) {
        change(&mut self.shared.says.lock().unwrap());
    }

    pub fn asked(&self) -> Vec<BTreeMap<String, String>> {
        self.shared.says.lock().unwrap().asked.clone()
    }
}

async fn metadata_of(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(shared.says.lock().unwrap().metadata.clone())
}

fn jwk(key: &EcdsaKeyPair) -> Value {
    let point = key.public_key().as_ref();
    json!({"kty": "EC", "crv": "P-256", "kid": "one", "use": "sig", "x": b64u(&point[1..33]), "y": b64u(&point[33..65])})
}

async fn keys(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({"keys": [jwk(&shared.key)]}))
}

async fn token(
    State(shared): State<Arc<Shared>>,
    Form(form): Form<BTreeMap<String, String>>,
) -> (axum::http::StatusCode, Json<Value>) {
    let says = {
        let mut says = shared.says.lock().unwrap();
        says.asked.push(form);
        says.clone()
    };
    if let Some(error) = says.token_error {
        return (axum::http::StatusCode::BAD_REQUEST, Json(error));
    }
    let id_token = signed(&shared.key, &says);
    (axum::http::StatusCode::OK, Json(json!({"access_token": "x", "token_type": "Bearer", "id_token": id_token})))
}

fn signed(key: &EcdsaKeyPair, says: &Says) -> String {
    let part = |value: &Value| b64u(value.to_string().as_bytes());
    let input = format!("{}.{}", part(&says.header), part(&says.claims));
    let by = |key: &EcdsaKeyPair| key.sign(&SystemRandom::new(), input.as_bytes()).unwrap().as_ref().to_vec();
    let mac = |key: &[u8]| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
        aws_lc_rs::hmac::sign(&key, input.as_bytes()).as_ref().to_vec()
    };
    let signature = match says.signed_by {
        SignedBy::Provider => by(key),
        SignedBy::Another => by(&EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
        SignedBy::Secret => mac(b"a secret & more"),
        SignedBy::PublicKey => mac(jwk(key).to_string().as_bytes()),
        SignedBy::Nobody => Vec::new(),
    };
    format!("{input}.{}", b64u(&signature))
}

/// The PKCE challenge of a verifier (RFC 7636 section 4.2).
pub fn challenge(verifier: &str) -> String {
    b64u(&sha256(&[verifier.as_bytes()]))
}
