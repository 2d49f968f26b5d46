//! TLS for the client library: it speaks to a socket file in a folder of our own, and this carries the bytes to the broker. So certificates, authorities and
//! the provider of cryptography are those of the rest of the program (`docs/decisions/0006-tls.md`).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::config::mqtt::{OutsideBroker, read_secret};
use crate::tls::{TlsError, provider};

/// A connection and its handshake take at most so long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Carries connections to one broker; ends when it is dropped.
pub struct Relay {
    socket: PathBuf,
    carrying: JoinHandle<()>,
    trouble: Arc<Mutex<Option<String>>>,
    /// Of mode 0700: nobody else on this machine may speak to the broker as us.
    _folder: tempfile::TempDir,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

impl Relay {
    /// For this broker.
    ///
    /// # Errors
    /// If a certificate file is no good, or there can be no socket.
    pub fn start(broker: &OutsideBroker) -> anyhow::Result<Self> {
        let tls = if broker.is_tls { Some(TlsConnector::from(Arc::new(client_config(broker)?))) } else { None };
        let folder = tempfile::Builder::new().prefix("pairgate-mqtt-").tempdir()?;
        let socket = folder.path().join("broker");
        let listener = UnixListener::bind(&socket)?;
        let trouble = Arc::new(Mutex::new(None));
        let route = Route { host: broker.host.clone(), port: broker.port, tls, trouble: Arc::clone(&trouble) };
        Ok(Self { socket, carrying: tokio::spawn(carry(listener, Arc::new(route))), trouble, _folder: folder })
    }

    /// Where the library connects.
    pub fn socket(&self) -> String {
        self.socket.display().to_string()
    }

    /// Why the last connection did not come to be: the library only sees that it ended.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Route {
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    trouble: Arc<Mutex<Option<String>>>,
}

async fn carry(listener: UnixListener, route: Arc<Route>) {
    // A JoinSet, so that the connections end with the relay.
    let mut carried = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((inside, _)) => {
                    let route = Arc::clone(&route);
                    carried.spawn(async move { route.one(inside).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "the relay could not accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = carried.join_next() => {}
        }
    }
}

impl Route {
    async fn one(&self, mut inside: UnixStream) {
        let note = |trouble: Option<String>| *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        match tokio::time::timeout(TIMEOUT, self.connect()).await {
            Ok(Ok(Outside::Plain(mut outside))) => {
                note(None);
                let _ = copy_bidirectional(&mut inside, &mut outside).await;
            }
            Ok(Ok(Outside::Tls(mut outside))) => {
                note(None);
                // In TLS 1.3 a broker says only after the handshake that it does not take our certificate.
                if let Err(error) = copy_bidirectional(&mut inside, &mut outside).await {
                    note(Some(error.to_string()));
                }
            }
            Ok(Err(error)) => note(Some(error.to_string())),
            Err(_) => note(Some("no connection within 10 seconds".into())),
        }
    }

    async fn connect(&self) -> std::io::Result<Outside> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Outside::Plain(stream)) };
        let name = ServerName::try_from(self.host.clone()).map_err(std::io::Error::other)?;
        Ok(Outside::Tls(Box::new(tls.connect(name, stream).await?)))
    }
}

enum Outside {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// Are the files good that a connection needs?
///
/// # Errors
/// Which is not, and why.
pub fn readable(broker: &OutsideBroker) -> anyhow::Result<()> {
    if let Some(path) = &broker.password_file {
        read_secret("mqtt.password_file", path)?;
    }
    if broker.is_tls {
        client_config(broker)?;
    }
    Ok(())
}

fn client_config(broker: &OutsideBroker) -> anyhow::Result<ClientConfig> {
    let failed = |error: rustls::Error| TlsError(format!("TLS can't be set up: {error}"));
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(failed)?;
    let builder = match &broker.ca {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("mqtt.ca", path)? {
                roots.add(certificate).map_err(failed)?;
            }
            builder.with_root_certificates(roots)
        }
        None => {
            let verifier = rustls_platform_verifier::Verifier::new(provider()).map_err(failed)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let Some((certificate, key)) = &broker.certificate else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates("mqtt.certificate", certificate)?;
    let key =
        PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError(format!("mqtt.key: {}: {error}", key.display())))?;
    Ok(builder.with_client_auth_cert(chain, key).map_err(failed)?)
}

fn certificates(name: &str, path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |why: String| TlsError(format!("{name}: {}: {why}", path.display()));
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| wrong(error.to_string()))?;
    if read.is_empty() { Err(wrong("there is no certificate in it".into())) } else { Ok(read) }
}
