//! Is a key kept in hardware? The maker says so by the device's initial identity (IEEE 802.1AR, IDevID): a certificate with its serial number, made in
//! the factory. Its key signs a statement about the key that is being paired (`docs/api.md` section 1.3). Pure: roots and time are parameters.
//!
//! 1. The statement is one of this use, about this device, this key and this very pairing: `broker_nonce` makes it fresh.
//! 2. It is signed by the key of the first certificate.
//! 3. That certificate leads to a configured root.
//! 4. Its subject's serial number is the one that people registered: that of another box of the same maker is as foreign as any.
//!
//! What is proved is that the maker's key for this box vouches for the key; that the box keeps both in hardware is the maker's word.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;

use crate::clock::Timestamp;
use crate::id::DeviceId;
use crate::oauth::certificate::{Certificate, unknown_critical_extension};
use crate::oauth::jose::{JoseError, KeylessJwt};
use crate::oauth::roots::Roots;
use crate::secret::{Bytes32, b64u};

/// `typ` of the statement.
const STATEMENT: &str = "pairing-attestation+jwt";
/// Certificates of a chain.
const MAX_CHAIN: usize = 4;
/// The longest statement, in bytes: its certificates are in it.
pub const MAX_ATTESTATION: usize = 8192;

/// What the statement must be about.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// The device.
    pub device: &'a DeviceId,
    /// Its registered serial number.
    pub serial: &'a str,
    /// Our issuer.
    pub issuer: &'a str,
    /// The key that is being paired.
    pub jkt: &'a Bytes32,
    /// Our nonce of this pairing.
    pub broker_nonce: &'a Bytes32,
}

#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    #[serde(rename = "iat")]
    _iat: f64,
    jkt: String,
    broker_nonce: String,
}

/// Why nothing is proved. For the audit log only.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum AttestationError {
    /// No statement of this use, a certificate that is none, or a signature that does not fit.
    #[error("{0}")]
    Jose(#[from] JoseError),
    /// The `typ` is another use's.
    #[error("its typ is not {STATEMENT}")]
    Typ,
    /// It is about something else.
    #[error("its claim {0} is not the one of this pairing")]
    Claim(&'static str),
    /// No `x5c`, or too much of it.
    #[error("its x5c must hold 1 to {MAX_CHAIN} certificates, base64 of DER")]
    Chain,
    /// No root is configured.
    #[error("no attestation_roots are configured")]
    NoRoots,
    /// A critical extension that nobody here understands (RFC 5280 section 4.2).
    #[error("certificate {0} has the critical extension {1}, which is not understood")]
    CriticalExtension(usize, String),
    /// The chain leads to no configured root.
    #[error("its certificates lead to no configured root: {0}")]
    Untrusted(webpki::Error),
    /// Nobody wrote down a serial number to compare with.
    #[error("no serial number is registered for the device")]
    NoRegisteredSerial,
    /// The certificate is another box's.
    #[error("the certificate's serial number is not the registered one")]
    Serial,
}

/// Checks the statement; no error means that the key is attested.
///
/// # Errors
/// [`AttestationError`]; the key is then whatever it would be without the statement.
pub fn check(jwt: &str, expected: &Expected<'_>, roots: &Roots, now: Timestamp) -> Result<(), AttestationError> {
    if roots.is_empty() {
        return Err(AttestationError::NoRoots);
    }
    // 1.
    let unverified = KeylessJwt::<Claims>::parse_up_to(jwt, MAX_ATTESTATION)?;
    if unverified.typ() != Some(STATEMENT) {
        return Err(AttestationError::Typ);
    }
    let claims = unverified.peek();
    let checks = [
        ("iss", claims.iss == expected.device.as_str()),
        ("aud", claims.aud == expected.issuer),
        ("jkt", claims.jkt == b64u(expected.jkt)),
        ("broker_nonce", claims.broker_nonce == b64u(expected.broker_nonce)),
    ];
    if let Some((name, _)) = checks.iter().find(|(_, fits)| !fits) {
        return Err(AttestationError::Claim(name));
    }
    // 2.
    let chain = chain(unverified.x5c().unwrap_or_default())?;
    let leaf = Certificate::from_der(chain.first().ok_or(AttestationError::Chain)?)?;
    unverified.verify_with(&leaf.key)?;
    // 3. The library refuses such an extension, too, but does not say which it is.
    for (index, certificate) in chain.iter().enumerate() {
        if let Some(oid) = unknown_critical_extension(certificate) {
            return Err(AttestationError::CriticalExtension(index + 1, oid));
        }
    }
    roots.verify(&chain, now.seconds()).map_err(AttestationError::Untrusted)?;
    // 4. An empty one must not equal a certificate's that has none.
    if expected.serial.is_empty() {
        return Err(AttestationError::NoRegisteredSerial);
    }
    if leaf.device_serial.as_deref() != Some(expected.serial) {
        return Err(AttestationError::Serial);
    }
    Ok(())
}

fn chain(x5c: &[String]) -> Result<Vec<CertificateDer<'static>>, AttestationError> {
    if !(1..=MAX_CHAIN).contains(&x5c.len()) {
        return Err(AttestationError::Chain);
    }
    let der = |text: &String| STANDARD.decode(text).map(CertificateDer::from).map_err(|_| AttestationError::Chain);
    x5c.iter().map(der).collect()
}
