//! The handshake. TLS 1.2 and 1.3, no early data (a replayed first flight could poll or refresh again, A-090), HTTP/1.1 only.
//!
//! There are two sides. On the main one nobody is ever asked for a certificate, so browsers show no dialogue. On the other one, with a listener or a host name
//! of its own, any certificate is taken, if the client proves to have its key; what it is worth is decided later, per request (`device_auth/mtls.rs`):
//! a resumed session brings the same certificates, and the registry may have changed since.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{Acceptor, ResolvesServerCert};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme, version,
};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls::{TlsError, provider};

/// A handshake is over after this long, or given up; in a task of its own, so that a silent client blocks nobody.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Certificates that a client may send, and their size in all.
const MAX_CHAIN: (usize, usize) = (8, 16 * 1024);

/// By which side a connection came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channel {
    /// Where pages and devices are served, and nobody is asked for a certificate.
    #[default]
    Main,
    /// Where client certificates are asked for (RFC 8705); only the device endpoints.
    Mtls,
}

/// What TLS, or a trusted proxy, says of the client.
#[derive(Clone, Debug)]
pub struct PeerTls {
    /// Which side.
    pub channel: Channel,
    /// Its certificates, leaf first; possession of the leaf's key was proved.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

impl Default for PeerTls {
    fn default() -> Self {
        Self { channel: Channel::Main, certificates: Arc::from([]) }
    }
}

/// Makes a TLS connection of a TCP one.
pub struct TlsDoor {
    main: Arc<ServerConfig>,
    mtls: Arc<ServerConfig>,
    /// The host name that leads to the other side on this listener.
    mtls_host: Option<String>,
    is_mtls_only: bool,
    timeout: Duration,
}

impl TlsDoor {
    /// The main listener; `mtls_host` also leads to the other side, if that has no listener of its own.
    ///
    /// # Errors
    /// If the provider lacks something, which its own tests would show.
    pub fn main(certificates: Arc<dyn ResolvesServerCert>, mtls_host: Option<String>) -> Result<Self, TlsError> {
        let (main, mtls) = (config(Arc::clone(&certificates), false)?, config(certificates, true)?);
        Ok(Self { main, mtls, mtls_host, is_mtls_only: false, timeout: HANDSHAKE_TIMEOUT })
    }

    /// The listener for client certificates.
    ///
    /// # Errors
    /// As [`TlsDoor::main`].
    pub fn mtls(certificates: Arc<dyn ResolvesServerCert>) -> Result<Self, TlsError> {
        Ok(Self { is_mtls_only: true, ..Self::main(certificates, None)? })
    }

    /// The listener for MQTT: clients may show a certificate. No protocol is negotiated; few of their libraries can.
    ///
    /// # Errors
    /// As [`TlsDoor::main`].
    pub fn mqtt(certificates: Arc<dyn ResolvesServerCert>) -> Result<Self, TlsError> {
        let mut config = config(certificates, true)?;
        Arc::make_mut(&mut config).alpn_protocols.clear();
        Ok(Self {
            main: Arc::clone(&config),
            mtls: config,
            mtls_host: None,
            is_mtls_only: true,
            timeout: HANDSHAKE_TIMEOUT,
        })
    }

    /// The same with less patience, for tests.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// Why not; the connection is gone.
    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<(TlsStream<TcpStream>, PeerTls)> {
        tokio::time::timeout(self.timeout, self.handshake(stream))
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut)))
    }

    async fn handshake(&self, stream: TcpStream) -> std::io::Result<(TlsStream<TcpStream>, PeerTls)> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let asks_mtls_host = match (&self.mtls_host, start.client_hello().server_name()) {
            (Some(host), Some(asked)) => asked.eq_ignore_ascii_case(host),
            _ => false,
        };
        let (channel, config) = if self.is_mtls_only || asks_mtls_host {
            (Channel::Mtls, Arc::clone(&self.mtls))
        } else {
            (Channel::Main, Arc::clone(&self.main))
        };
        let stream = start.into_stream(config).await?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        Ok((stream, PeerTls { channel, certificates: Arc::from(certificates) }))
    }
}

fn config(certificates: Arc<dyn ResolvesServerCert>, asks_client: bool) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let failed = |error: Error| TlsError(format!("TLS can't be set up: {error}"));
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(failed)?;
    let builder = if asks_client {
        builder.with_client_cert_verifier(Arc::new(AnyCertificate { provider }))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.max_early_data_size = 0;
    // Each side has its own: a session of one is not resumed on the other.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(failed)?;
    Ok(Arc::new(config))
}

/// Takes any certificate, or none, of clients that prove to have its key.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// Empty, or clients would hold back a self-signed one.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let bytes = leaf.len() + others.iter().map(|certificate| certificate.len()).sum::<usize>();
        if others.len() >= MAX_CHAIN.0 || bytes > MAX_CHAIN.1 {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
