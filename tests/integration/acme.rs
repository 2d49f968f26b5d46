//! Certificates by ACME (RFC 8555), against Pebble, the ACME server that the people of a public authority made for testing clients. It is in Debian (`pebble`,
//! with `pebble-challtestsrv` as name server); neither npm, PyPI nor the crates have it. It checks every signature, refuses nonces on purpose and validates for real.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pairgate::clock::{Clock, Timestamp};
use pairgate::config::{Config, Tls};
use pairgate::tls::acme::AcmeCertificate;
use pairgate::tls::challenge::Challenges;
use pairgate::tls::files::{CertificateFiles, facts_of};
use pairgate::tls::server::TlsDoor;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::child::{Served, free_port, pairgate};
use crate::support::pebble::{LIFE, Manner, Pebble};

const HOST: &str = "pairgate.test";
const MTLS_HOST: &str = "mtls.pairgate.test";
const MINUTE: Duration = Duration::from_secs(60);

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// As a device would: connects, believes only this authority, and asks for this name.
async fn shake_hands(address: SocketAddr, name: &str, authority: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(pairgate::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
}

/// What is answered to these bytes, until the other end closes.
async fn answer_to(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// One installation that gets its certificate by a library call, by a clock in the test's hand.
struct Installation {
    data: tempfile::TempDir,
    acme: Arc<AcmeCertificate>,
    _stop: watch::Sender<bool>,
}

impl Installation {
    /// With `[tls.acme]` as written, and these hosts.
    async fn open(section: &str, hosts: &[&str]) -> Result<Self, String> {
        let data = tempfile::tempdir().unwrap();
        let text = format!("public_url = 'https://{HOST}'\n{section}");
        let Some(Tls::Acme(settings)) = Config::from_parts(&text, []).unwrap().tls else { panic!("no tls.acme") };
        let (stop, stopping) = watch::channel(false);
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        let acme = AcmeCertificate::open(data.path(), settings, hosts, stopping).await;
        acme.map(|acme| Self { data, acme, _stop: stop }).map_err(|error| error.to_string())
    }

    async fn by(pebble: &Pebble) -> Self {
        Self::open(&pebble.section(loopback(pebble.http_port)), &[HOST, MTLS_HOST]).await.unwrap()
    }

    fn chain(&self) -> String {
        std::fs::read_to_string(self.acme.certificate()).unwrap()
    }

    fn account(&self) -> String {
        std::fs::read_to_string(self.acme.account_file()).unwrap()
    }

    fn modes(&self) -> [u32; 4] {
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let acme = &self.acme;
        [mode(&acme.account_file()), mode(&acme.key()), mode(&acme.certificate()), mode(&self.data.path().join("tls"))]
    }
}

#[tokio::test]
async fn serve_gets_a_certificate_before_it_listens_and_keeps_it() {
    let mut pebble = Pebble::start(Manner::default()).await;
    let data = tempfile::tempdir().unwrap();
    let section = pebble.section(loopback(pebble.http_port));
    let text = format!("public_url = 'https://{HOST}'\n[tls]\nmtls_url = 'https://{MTLS_HOST}'\n{section}");
    let file = data.path().join("pairgate.toml");
    std::fs::write(&file, &text).unwrap();
    let port = free_port();
    let mut served = Served::start(data.path(), port);
    assert_eq!(served.issuer, format!("https://{HOST}"));
    assert_eq!(served.line(), format!("client certificates at https://{MTLS_HOST}"));
    let authority = pebble.authority().await;
    for name in [HOST, MTLS_HOST] {
        let mut stream = shake_hands(loopback(port), name, &authority).await.unwrap();
        let request = format!("GET /jwks HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{name}: {answer}");
    }
    assert!(shake_hands(loopback(port), "evil.test", &authority).await.is_err());
    assert!(served.stopped().success());
    // A restart asks nobody.
    pebble.stop();
    let served = Served::start(data.path(), port);
    shake_hands(loopback(port), HOST, &authority).await.unwrap();
    assert!(served.stopped().success());
    // With one more host it would like another, but what it has is better than nothing.
    std::fs::write(&file, text.replace(MTLS_HOST, "new.pairgate.test")).unwrap();
    let served = Served::start(data.path(), port);
    shake_hands(loopback(port), HOST, &authority).await.unwrap();
    drop(served);
}

#[tokio::test]
async fn without_a_first_certificate_serve_ends_and_says_what_to_check() {
    let pebble = Pebble::start(Manner::default()).await;
    let data = tempfile::tempdir().unwrap();
    // The server asks at the port that is 80 elsewhere; the answer is given at another one.
    let text = format!("public_url = 'https://{HOST}'\n{}", pebble.section(loopback(free_port())));
    std::fs::write(data.path().join("pairgate.toml"), text).unwrap();
    let listen = loopback(free_port()).to_string();
    let output = pairgate(data.path(), &["serve", "--listen", &listen]).output().unwrap();
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "it did not listen: {}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8_lossy(&output.stderr);
    for part in ["asking https://127.0.0.1", HOST, "port 80", "http_listen", "http://pairgate.test/.well-known/"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_when_a_third_of_its_life_is_left_and_shown_without_a_restart() {
    let pebble = Pebble::start(Manner { authorizations_kept: 100, ..Manner::default() }).await;
    let authority = pebble.authority().await;
    let server = Installation::by(&pebble).await;
    let now = Clock::system().now();
    assert!(!server.acme.is_usable(now) && server.acme.is_due(now));
    assert!(server.acme.renew_if_due(now).await.unwrap());
    assert_eq!(server.modes(), [0o600, 0o600, 0o644, 0o700]);
    let (first, account) = (server.chain(), server.account());
    assert!(first.matches("BEGIN CERTIFICATE").count() > 1, "with the authority in between");
    let files = CertificateFiles::open(&server.acme.certificate(), &server.acme.key()).unwrap();
    let door = TlsDoor::main(files.clone(), None).unwrap();
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shown = async || {
        let accept = async { door.accept(listener.accept().await.unwrap().0).await };
        let (served, client) = tokio::join!(accept, shake_hands(address, MTLS_HOST, &authority));
        served.unwrap();
        client.unwrap().get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let before = shown().await;

    let facts = facts_of(&server.acme.certificate()).unwrap();
    let due = facts.not_after.minus(facts.not_after.since(facts.not_before) / 3);
    assert!(due.since(now) > LIFE / 2);
    assert!(!server.acme.renew_if_due(due.minus(MINUTE)).await.unwrap());
    assert_eq!(server.chain(), first);
    assert!(server.acme.renew_if_due(due).await.unwrap());
    assert_ne!(server.chain(), first);
    assert_eq!(server.account(), account, "the account is made once");
    assert_eq!(server.modes(), [0o600, 0o600, 0o644, 0o700]);
    assert!(files.reload_if_changed().unwrap());
    assert_ne!(shown().await, before);
    let left = std::fs::read_dir(server.data.path().join("tls")).unwrap().count();
    assert_eq!(left, 3, "nothing is left over beside account, key and certificate");
}

#[tokio::test]
async fn a_failing_server_leaves_the_former_certificate_and_is_asked_ever_less() {
    let mut pebble = Pebble::start(Manner::default()).await;
    let server = Installation::by(&pebble).await;
    server.acme.renew_if_due(Clock::system().now()).await.unwrap();
    let (chain, account) = (server.chain(), server.account());
    let mut now = facts_of(&server.acme.certificate()).unwrap().not_after.minus(LIFE / 4);
    pebble.stop();
    let mut pauses = Vec::new();
    for _ in 0..11 {
        let error = server.acme.renew_if_due(now).await.unwrap_err().to_string();
        assert!(error.contains("tls.acme.directory") && error.contains("refused"), "{error}");
        let next = server.acme.next_try().unwrap();
        assert!(!server.acme.renew_if_due(next.minus(Duration::from_millis(1))).await.unwrap(), "it is left alone");
        pauses.push(next.since(now).as_secs() / 60);
        now = next;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360]);
    assert_eq!(server.chain(), chain);
    assert!(server.acme.is_usable(now));

    // It is back, but has forgotten everybody: a new account, one minute later at the most in vain.
    pebble.start_again().await;
    let error = server.acme.renew_if_due(now).await.unwrap_err().to_string();
    assert!(error.contains("gave no certificate"), "{error}");
    assert!(server.acme.renew_if_due(server.acme.next_try().unwrap()).await.unwrap());
    assert_ne!((server.chain(), server.account()), (chain, account));
    assert_eq!(server.acme.next_try(), None);
}

#[tokio::test]
async fn refused_nonces_cost_a_try_at_the_most() {
    let pebble = Pebble::start(Manner { nonces_refused: 30, authorizations_kept: 100 }).await;
    let server = Installation::by(&pebble).await;
    let mut now = Clock::system().now();
    for _ in 0..20 {
        match server.acme.renew_if_due(now).await {
            Ok(is_new) => return assert!(is_new),
            Err(error) => assert!(error.to_string().contains("nonce"), "{error}"),
        }
        now = server.acme.next_try().unwrap();
    }
    panic!("no certificate in twenty tries");
}

#[tokio::test]
async fn a_certificate_for_other_hosts_or_without_its_key_is_replaced_before_its_time() {
    let pebble = Pebble::start(Manner::default()).await;
    let server = Installation::by(&pebble).await;
    let now = Clock::system().now();
    server.acme.renew_if_due(now).await.unwrap();
    assert!(server.acme.is_usable(now) && !server.acme.is_due(now));
    // Between the two renames the power went off.
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(server.acme.key(), other).unwrap();
    assert!(!server.acme.is_usable(now));
    assert!(server.acme.renew_if_due(now).await.unwrap());
    assert!(server.acme.is_usable(now));
    // `public_url` was changed.
    let other = Installation::open(&pebble.section(loopback(0)), &["new.pairgate.test"]).await.unwrap();
    for name in ["acme.pem", "acme.key"] {
        std::fs::copy(server.data.path().join("tls").join(name), other.data.path().join("tls").join(name)).unwrap();
    }
    assert!(!other.acme.is_usable(now) && other.acme.is_due(now));
}

#[tokio::test]
async fn the_listener_for_challenges_serves_nothing_but_the_order_under_way() {
    let (_stop, stopping) = watch::channel(false);
    let challenges = Challenges::listen(loopback(0), stopping).await.unwrap();
    let address = challenges.address();
    let get = async |line: &str| answer_to(address, format!("{line}\r\nhost: {HOST}\r\n\r\n").as_bytes()).await;
    let asked = "GET /.well-known/acme-challenge/token-1 HTTP/1.1";
    assert!(get(asked).await.starts_with("HTTP/1.1 404"), "no order yet");
    let answers = challenges.answers();
    answers.add("token-1", "token-1.thumbprint");
    let answer = get(asked).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\ntoken-1.thumbprint"), "{answer}");
    for (what, line) in [
        ("another token", "GET /.well-known/acme-challenge/token-2 HTTP/1.1"),
        ("no token", "GET /.well-known/acme-challenge/ HTTP/1.1"),
        ("a path behind it", "GET /.well-known/acme-challenge/token-1/ HTTP/1.1"),
        ("a way out", "GET /.well-known/acme-challenge/../token-1 HTTP/1.1"),
        ("another method", "POST /.well-known/acme-challenge/token-1 HTTP/1.1"),
        ("pages", "GET / HTTP/1.1"),
        ("the API", "GET /jwks HTTP/1.1"),
        ("sign-in", "GET /sign-in HTTP/1.1"),
    ] {
        let answer = get(line).await;
        assert!(answer.starts_with("HTTP/1.1 404") && answer.ends_with("\r\n\r\n"), "{what}: {answer}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    let answer = answer_to(address, long.as_bytes()).await;
    assert!(!answer.contains(" 200 ") && !answer.contains(" 404 "), "it is not read to its end: {answer}");
    // Who says nothing keeps nobody out.
    let silent = silent_connections(address).await;
    assert!(get(asked).await.starts_with("HTTP/1.1 200"));
    drop(silent);
    drop(answers);
    assert!(get(asked).await.starts_with("HTTP/1.1 404"), "the order is over");
}

/// A hundred connections that say nothing.
async fn silent_connections(address: SocketAddr) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    silent
}

#[tokio::test]
async fn what_can_not_work_says_so_before_anybody_is_asked() {
    let section = |http_listen: SocketAddr| {
        format!(
            "[tls.acme]\ndirectory = 'https://127.0.0.1:1/dir'\nterms_agreed = true\nhttp_listen = '{http_listen}'\n"
        )
    };
    let error = Installation::open(&section(loopback(0)), &["10.1.2.3"]).await.err().unwrap();
    assert!(error.contains("10.1.2.3 is an address") && error.contains("local_ca"), "{error}");
    let taken = TcpListener::bind(loopback(0)).await.unwrap();
    let error = Installation::open(&section(taken.local_addr().unwrap()), &[HOST]).await.err().unwrap();
    assert!(error.contains("tls.acme.http_listen") && error.contains("CAP_NET_BIND_SERVICE"), "{error}");

    // A server by an authority that nobody knows.
    let pebble = Pebble::start(Manner::default()).await;
    let directory = format!("directory = '{}'", pebble.directory());
    let server = section(loopback(0)).replace("directory = 'https://127.0.0.1:1/dir'", &directory);
    let server = Installation::open(&server, &[HOST]).await.unwrap();
    let error = server.acme.renew_if_due(Timestamp::from_millis(0)).await.unwrap_err().to_string();
    assert!(error.contains("tls.acme.root"), "{error}");
    assert!(!server.acme.account_file().exists());
}
