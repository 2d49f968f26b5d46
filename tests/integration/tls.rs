//! TLS over real sockets: versions, sides, reload, slow and broken clients.

use std::sync::Arc;
use std::time::Duration;

use pairgate::simulator::Wire;
use pairgate::tls::files::CertificateFiles;
use pairgate::tls::local_ca::LocalCa;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{START, Setup, TestBroker};

/// A client that believes the broker's authority.
struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    fn new(test: &TestBroker, versions: &[&'static SupportedProtocolVersion], identity: Option<(&str, &str)>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(test.ca_pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(pairgate::tls::provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.enable_early_data = true;
        Self { config: Arc::new(config) }
    }

    async fn connect(&self, base: &str, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let address = base.split_once("://").unwrap().1;
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }

    /// One request; status line and body.
    async fn get(&self, base: &str, name: &str, host: &str, path: &str) -> String {
        let mut stream = self.connect(base, name).await.unwrap();
        ask(&mut stream, host, path).await
    }
}

async fn ask(stream: &mut TlsStream<TcpStream>, host: &str, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn host(base: &str) -> &str {
    base.split_once("://").unwrap().1
}

const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

/// A key and a certificate that it signed itself, PEM.
fn self_signed() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    (rcgen::CertificateParams::default().self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[tokio::test]
async fn both_versions_are_served_and_pages_say_so_to_browsers() {
    let test = TestBroker::with_tls(Setup::default()).await;
    for versions in [&[BOTH[0]], &[BOTH[1]]] {
        let client = Client::new(&test, versions, None);
        let stream = client.connect(&test.issuer, "127.0.0.1").await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(versions[0].version));
        let answer = client.get(&test.issuer, "localhost", host(&test.issuer), "/sign-in").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("strict-transport-security: max-age=31536000"), "{answer}");
    }
    let plain = TestBroker::start().await;
    let answer = plain.wire.send(plain.wire.get(&plain.url("/sign-in"))).await.unwrap();
    assert_eq!(answer.header("strict-transport-security"), None, "not where there is no TLS");
}

/// A ClientHello of TLS 1.1, by hand: no library here can speak it any more.
#[tokio::test]
async fn older_versions_are_refused_a_090() {
    let test = TestBroker::with_tls(Setup::default()).await;
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xC0, 0x13, 0xC0, 0x14, 1, 0, 0, 0]);
    let mut message = vec![1, 0, 0, u8::try_from(hello.len()).unwrap()];
    message.extend(hello);
    let mut record = vec![22, 3, 1, 0, u8::try_from(message.len()).unwrap()];
    record.extend(message);
    let mut stream = TcpStream::connect(host(&test.issuer)).await.unwrap();
    stream.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(answer.first(), Some(&21), "an alert, not a ServerHello: {answer:?}");
}

/// Early data could be replayed; the server offers none, so a client has nothing to send it by.
#[tokio::test]
async fn no_early_data_is_offered_and_sessions_are_resumed_on_their_own_side_only_a_090() {
    let test = TestBroker::with_tls(Setup::default()).await;
    let client = Client::new(&test, &BOTH, None);
    client.get(&test.issuer, "localhost", host(&test.issuer), "/jwks").await;
    let address = host(&test.issuer);
    let name = ServerName::try_from("localhost").unwrap();
    let mut next = rustls::ClientConnection::new(Arc::clone(&client.config), name).unwrap();
    assert!(next.early_data().is_none(), "the ticket allows none, although this client would send some");
    let mut stream = client.connect(&test.issuer, "localhost").await.unwrap();
    let answer = ask(&mut stream, address, "/jwks").await;
    assert!(answer.starts_with("HTTP/1.1 200"));
    assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    // The same name on the other side: the ticket of one is nothing to the other.
    let mut other = client.connect(&test.mtls, "localhost").await.unwrap();
    let answer = ask(&mut other, host(&test.mtls), "/jwks").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_ne!(other.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
}

/// The name in the handshake leads to one side, the name in the request to the other: neither way gets anything.
#[tokio::test]
async fn a_host_of_the_other_side_is_misdirected_a_090() {
    let test = TestBroker::with_tls(Setup::default()).await;
    let client = Client::new(&test, &BOTH, None);
    let (main, mtls) = (host(&test.issuer), host(&test.mtls));
    for (what, base, name, asked) in [
        ("main listener, mtls host", &test.issuer, "localhost", mtls),
        ("mtls listener, main host", &test.mtls, "localhost", main),
        ("main listener, foreign host", &test.issuer, "localhost", "evil.example"),
        ("mtls listener, foreign host", &test.mtls, "localhost", "evil.example"),
    ] {
        let answer = client.get(base, name, asked, "/jwks").await;
        assert!(answer.starts_with("HTTP/1.1 421"), "{what}: {answer}");
    }
    let answer = client.get(&test.mtls, "localhost", mtls, "/sign-in").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "no pages where certificates are asked for: {answer}");
    // By its name alone, on the main listener: the certificate does not fit, so this looks at the server's side of it.
    let refused = client.connect(&test.issuer, "mtls.localhost").await;
    assert!(refused.is_err(), "the test's certificate is not for that name");
}

/// Browsers would show a dialogue.
#[tokio::test]
async fn nobody_is_asked_for_a_certificate_on_the_main_side() {
    let test = TestBroker::with_tls(Setup::default()).await;
    let (certificate, key) = self_signed();
    for versions in [&[BOTH[0]], &[BOTH[1]]] {
        // A client that was asked would have sent it; without a request it stays at home.
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut client = Client::new(&test, versions, Some((&certificate, &key)));
        let resolver =
            Curious { inner: Arc::clone(&client.config.client_auth_cert_resolver), asked: Arc::clone(&asked) };
        let mut config = (*client.config).clone();
        config.client_auth_cert_resolver = Arc::new(resolver);
        client.config = Arc::new(config);
        client.get(&test.issuer, "localhost", host(&test.issuer), "/jwks").await;
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 0);
        client.get(&test.mtls, "localhost", host(&test.mtls), "/jwks").await;
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}

#[derive(Debug)]
struct Curious {
    inner: Arc<dyn rustls::client::ResolvesClientCert>,
    asked: Arc<std::sync::atomic::AtomicUsize>,
}

impl rustls::client::ResolvesClientCert for Curious {
    fn resolve(&self, hints: &[&[u8]], schemes: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert!(hints.is_empty(), "a hint would keep clients from sending a self-signed certificate");
        self.inner.resolve(hints, schemes)
    }

    fn has_certs(&self) -> bool {
        self.inner.has_certs()
    }
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_a_restart_and_a_broken_one_is_not() {
    let data = tempfile::tempdir().unwrap();
    let ca = LocalCa::in_data(data.path());
    ca.init(&["localhost".into()], START, false).unwrap();
    let files = CertificateFiles::open(&ca.certificate(), &ca.key()).unwrap();
    assert!(!files.reload_if_changed().unwrap());
    std::fs::write(ca.certificate(), "half a fi").unwrap();
    assert!(files.reload_if_changed().is_err());
    assert!(files.reload_if_changed().is_err(), "it is looked at again until it is whole");
    ca.renew(&["localhost".into()], START).unwrap();
    assert!(files.reload_if_changed().unwrap());
    assert!(!files.reload_if_changed().unwrap());
    // A certificate with the key of another.
    let key = std::fs::read(ca.key()).unwrap();
    ca.renew(&["localhost".into()], START).unwrap();
    std::fs::write(ca.key(), key).unwrap();
    assert!(files.reload_if_changed().unwrap_err().to_string().contains("can't be used with"));
}

/// Whoever says nothing, or nonsense, or half of it, blocks nobody and is gone after a while.
#[tokio::test]
async fn silent_and_senseless_clients_block_nobody_and_are_cut_off_a_091() {
    let setup = Setup { handshake_timeout: Duration::from_millis(300), ..Setup::default() };
    let test = TestBroker::with_tls(setup).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(host(&test.issuer)).await.unwrap());
    }
    let mut half = TcpStream::connect(host(&test.issuer)).await.unwrap();
    half.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.unwrap();
    let mut plain = TcpStream::connect(host(&test.issuer)).await.unwrap();
    plain.write_all(b"GET /jwks HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answer = test.wire.send(test.wire.get(&test.url("/jwks"))).await.unwrap();
    assert_eq!(answer.status, 200, "enrolled devices are served meanwhile");
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP"), "plain HTTP gets nothing: {:?}", String::from_utf8_lossy(&rest));
    rest.clear();
    let _ = half.read_to_end(&mut rest).await;
    for mut stream in silent {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
    }
}

#[tokio::test]
async fn a_client_that_does_not_believe_the_authority_is_not_talked_into_it() {
    let test = TestBroker::with_tls(Setup::default()).await;
    let wire = Wire::new().unwrap();
    assert!(wire.send(wire.get(&test.url("/jwks"))).await.is_err());
    let other = tempfile::tempdir().unwrap();
    LocalCa::in_data(other.path()).init(&["127.0.0.1".into()], START, false).unwrap();
    let wire = Wire::with_tls(&LocalCa::in_data(other.path()).ca_pem().unwrap(), None).unwrap();
    assert!(wire.send(wire.get(&test.url("/jwks"))).await.is_err());
}
