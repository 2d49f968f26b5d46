//! Clients that nobody here wrote, each through the complete flow (`docs/clients.md`): over TLS, and without a special case; programs by the machine's clock,
//! the crate that waits by a function of the caller by one that the test moves.
//!
//! Each client is a program that knows nothing of this broker but the issuer, the authority's certificate, and its own id and key. It says what happens
//! to it, one line for each event; the test is the person who looks at it, and who approves or denies.

use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pairgate::clock::Clock;
use pairgate::model::kind::Kind;
use pairgate::model::operator::Role;
use pairgate::secret::sha256;
use pairgate::simulator::{DeviceKey, PageOperator, SimulatedDevice, jose};
use pairgate::tls::local_ca::LocalCa;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{Setup, TestBroker};

mod oauth2_crate;

/// All that a client may take for the complete flow.
const PATIENCE: Duration = Duration::from_secs(90);
const DEVICE: &str = "lobby-printer-01";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

async fn in_time<T>(flow: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, flow).await.expect("the client took too long")
}

/// A broker as it is run without a proxy, a person, and a paired device whose key a client is given.
struct Bench {
    test: TestBroker,
    operator: PageOperator,
    device: SimulatedDevice,
    files: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        Self::with_printers(|_| {}).await
    }

    async fn with_printers(change: impl FnOnce(&mut Kind)) -> Self {
        Self::by_clock(Clock::system(), change).await
    }

    /// With a clock that the test may move: for a client that lives in the test, and waits by a function of the test's.
    async fn by_clock(clock: Clock, change: impl FnOnce(&mut Kind)) -> Self {
        let mut setup = Setup { has_tls: true, ..Setup::default() };
        change(setup.kinds.iter_mut().find(|kind| kind.id == "printer").unwrap());
        let data = Arc::new(tempfile::tempdir().unwrap());
        LocalCa::in_data(data.path()).init(&["127.0.0.1".into()], clock.now(), false).unwrap();
        let test = TestBroker::on(data, SocketAddr::from(([127, 0, 0, 1], 0)), clock, setup).await;

        let pair = KeyPair::generate().unwrap();
        let key = DeviceKey::from_pkcs8_b64u("ES256", &jose::b64u(&pair.serialize_der())).unwrap();
        let certificate = CertificateParams::default().self_signed(&pair).unwrap();
        let files = tempfile::tempdir().unwrap();
        for (name, pem) in
            [("ca.pem", test.ca_pem()), ("device.key", pair.serialize_pem()), ("device.crt", certificate.pem())]
        {
            std::fs::write(files.path().join(name), pem).unwrap();
        }
        test.register(DEVICE, "printer").await;
        let mut device = SimulatedDevice::new(DEVICE, &test.issuer, key, test.wire.clone());
        test.pair(&mut device).await;
        let operator = test.operator("dana", Role::Admin).await;
        Self { test, operator, device, files }
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.files.path().join(name)).unwrap()
    }

    /// What a token must be bound to.
    fn confirmation(&self, is_mtls: bool) -> Value {
        if !is_mtls {
            return json!({"jkt": self.device.key.jkt()});
        }
        let pem = self.file("device.crt");
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        json!({"x5t#S256": jose::b64u(&sha256(&[&der]))})
    }

    /// Starts a client that was given all there is to know.
    fn client(&self, command: &mut Command) -> Client {
        let path = |name: &str| self.files.path().join(name);
        Client::start(
            command
                .current_dir(self.files.path())
                .env("PAIRGATE_TEST_ISSUER", &self.test.issuer)
                .env("PAIRGATE_TEST_CLIENT_ID", DEVICE)
                .env("PAIRGATE_TEST_CA", path("ca.pem"))
                .env("PAIRGATE_TEST_KEY", path("device.key"))
                .env("PAIRGATE_TEST_CERT", path("device.crt")),
        )
    }

    /// One sign-in was approved, refreshed, given back and then refused, one was denied; and nothing else was refused in between.
    async fn is_recorded(&self) {
        let records = self.test.records().await;
        let events: Vec<&str> = records.iter().map(|record| record.event.as_str()).collect();
        let first = events.iter().position(|event| *event == "code.issued").unwrap();
        let given_back = ["token.issued", "token.refreshed", "token.revoked", "token.refused"];
        let expected = [
            &["code.issued", "grant.claimed", "grant.approved"],
            &given_back[..],
            &["code.issued", "grant.claimed", "grant.denied"],
        ];
        assert_eq!(events[first..], expected.concat());
    }

    /// A program goes through it all.
    async fn complete_flow(&self, command: &mut Command, is_mtls: bool) {
        let mut client = self.client(command);
        let page = self.claim(&client.event("code").await).await;
        let (mut is_approved, mut slowed) = (false, 0);
        let tokens = loop {
            let event = client.next().await;
            match event["event"].as_str().unwrap() {
                // Not before it was too fast once: a code that is decided is answered at any pace.
                "pending" if slowed > 0 && !is_approved => {
                    // A poll from before the page was opened has no number.
                    let Some(number) = event["confirmation_number"].as_str() else { continue };
                    self.operator.approve(&page, number).await.unwrap();
                    is_approved = true;
                }
                "pending" => {}
                "slow_down" => slowed += 1,
                "tokens" => break event,
                other => panic!("{other}: {event}"),
            }
        };
        assert_eq!((is_approved, slowed), (true, 1), "slowed down once, and then obeyed");
        let renewed = client.event("refreshed").await;
        for tokens in [&tokens, &renewed] {
            let claims = jose::peek(tokens["access_token"].as_str().unwrap()).unwrap().claims;
            assert_eq!(claims["cnf"], self.confirmation(is_mtls));
            let token_type = if is_mtls { "bearer" } else { "dpop" };
            assert!(tokens["token_type"].as_str().unwrap().eq_ignore_ascii_case(token_type), "{tokens}");
        }
        assert_ne!(tokens["refresh_token"], renewed["refresh_token"], "rotated");
        client.event("revoked").await;
        assert_eq!(client.event("dead").await["error"], "invalid_grant");

        let page = self.claim(&client.event("code").await).await;
        self.operator.deny(&page).await.unwrap();
        assert_eq!(client.event("denied").await["error"], "access_denied");
        assert!(client.ended().success());
        self.is_recorded().await;
    }

    async fn claim(&self, code: &Value) -> String {
        self.operator.claim(code["verification_uri_complete"].as_str().unwrap()).await.unwrap()
    }
}

/// A client at work.
struct Client {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Client {
    fn start(command: &mut Command) -> Self {
        let program = command.get_program().to_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} ({error}): tests/run installs it", program.display()));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // Err: the test is over.
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        self.lines
            .recv()
            .await
            .expect("the client ended; why stands in what it wrote (tests/run installs what is missing)")
    }

    async fn next(&mut self) -> Value {
        let line = self.line().await;
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("not an event: {line}"))
    }

    async fn event(&mut self, name: &str) -> Value {
        let event = self.next().await;
        assert_eq!(event["event"], name, "{event}");
        event
    }

    /// How it ended, after its last line.
    fn ended(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// By a program of `tests/clients`, once for each method, all at once: most of the time is waiting for the interval.
async fn by_program(program: impl Fn() -> Command, methods: &[&str]) {
    let mut running = tokio::task::JoinSet::new();
    for method in methods {
        let (mut command, is_mtls) = (program(), *method == "mtls");
        command.arg(method);
        running.spawn(async move { Bench::new().await.complete_flow(&mut command, is_mtls).await });
    }
    in_time(running.join_all()).await;
}

fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(root().join("tests/clients").join(script));
    command
}

fn python() -> Command {
    let folder = root().join("tests/clients");
    let mut command = Command::new(folder.join(".venv/bin/python"));
    command.arg(folder.join("python_client.py"));
    command
}

#[tokio::test]
async fn openid_client_signs_in_by_private_key_jwt_with_dpop_and_by_certificate() {
    by_program(|| node("openid_client.mjs"), &["dpop", "mtls"]).await;
}

#[tokio::test]
async fn oauth4webapi_signs_in_by_private_key_jwt_with_dpop_by_dpop_alone_and_by_certificate() {
    by_program(|| node("oauth4webapi.mjs"), &["dpop", "dpop-alone", "mtls"]).await;
}

#[tokio::test]
async fn requests_oauth2client_signs_in_by_private_key_jwt_with_dpop_and_by_certificate() {
    by_program(python, &["dpop", "mtls"]).await;
}

/// `curl` under another name: as a network that sends one poll twice, so that the second is too fast.
fn hasty_curl(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let script = r#"#!/bin/sh
real=$(PATH=${PATH#*:} command -v curl)
case "$*" in *device_code@-*) if mkdir "$0.was-hasty" 2>/dev/null; then
    secret=$(cat)
    printf %s "$secret" | "$real" "$@" >/dev/null
    printf %s "$secret" | exec "$real" "$@"
    exit
fi ;; esac
exec "$real" "$@"
"#;
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("curl"), script).unwrap();
    std::fs::set_permissions(folder.join("curl"), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The example for firmware, as it is: it makes its certificate itself, and reads no JSON.
#[tokio::test]
async fn a_shell_script_with_curl_signs_in_by_certificate() {
    let bench = Bench::new().await;
    let tools = bench.files.path().join("tools");
    hasty_curl(&tools);
    std::fs::remove_file(bench.files.path().join("device.crt")).unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var_os("PATH").unwrap().display());
    let script = |action: &str| {
        let mut command = Command::new("sh");
        command.arg(root().join("firmware-examples/curl/sign-in.sh")).arg(action).current_dir(bench.files.path());
        command.env("PATH", &path).env("ISSUER", &bench.test.issuer).env("ID", DEVICE);
        command
    };
    let value = |line: &str, label: &str| {
        line.strip_prefix(label).unwrap_or_else(|| panic!("no '{label}' in: {line}")).trim().to_owned()
    };
    in_time(async {
        let mut client = Client::start(&mut script("sign-in"));
        let page = bench.operator.claim(&value(&client.line().await, "Open:")).await.unwrap();
        assert!(value(&client.line().await, "Code:").starts_with("PRN-"));
        assert_eq!(client.line().await, "Slower: every 10 s");
        bench.operator.approve(&page, &value(&client.line().await, "Number:")).await.unwrap();
        assert_eq!(client.line().await, "Signed in for 600 s");
        assert!(client.ended().success());
        let signed_in = bench.file("refresh_token");
        assert!(run(script("refresh")).await.status.success());
        assert_ne!(bench.file("refresh_token"), signed_in, "rotated");
        let claims = jose::peek(&bench.file("access_token")).unwrap().claims;
        assert_eq!(claims["cnf"], bench.confirmation(true));

        let dead = bench.file("refresh_token");
        assert!(run(script("revoke")).await.status.success());
        std::fs::write(bench.files.path().join("refresh_token"), dead).unwrap();
        let refused = run(script("refresh")).await;
        assert!(String::from_utf8_lossy(&refused.stderr).starts_with("invalid_grant: "), "{refused:?}");

        let mut command = script("sign-in");
        let mut client = Client::start(command.stderr(Stdio::piped()));
        let page = bench.operator.claim(&value(&client.line().await, "Open:")).await.unwrap();
        bench.operator.deny(&page).await.unwrap();
        client.line().await;
        let mut said = String::new();
        let mut errors = client.child.stderr.take().unwrap();
        let said = tokio::task::spawn_blocking(move || {
            std::io::Read::read_to_string(&mut errors, &mut said).unwrap();
            said
        });
        assert!(said.await.unwrap().starts_with("access_denied: "));
        assert!(!client.ended().success());
        bench.is_recorded().await;
    })
    .await;
}

async fn run(mut command: Command) -> std::process::Output {
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}
