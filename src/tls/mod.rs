//! TLS in process: which certificate is shown, who is asked for one, and how both are kept up to date. No HTTP here.
//!
//! | file | does |
//! | --- | --- |
//! | [`server`] | the handshake: versions, the choice of side by host name, client certificates |
//! | [`files`] | certificate and key from files, read again when they change |
//! | [`local_ca`] | a certificate authority of our own, and the leaf that it renews |
//! | [`acme`] | certificates from an ACME server (RFC 8555) |
//! | [`challenge`] | the listener by which that server makes sure that the host is ours |

pub mod acme;
pub mod challenge;
pub mod files;
pub mod local_ca;
pub mod server;

/// Why TLS can't be served; says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);

/// The one provider of cryptography. Given by hand everywhere: with a second one in the process, the default would be a panic.
pub fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
