//! Client certificates (RFC 8705 section 2). Possession of the key was proved in the TLS handshake, or to a trusted proxy; here it is decided what the
//! certificate is worth. What identifies a device is always the *pinned key*, never a name: a renewed certificate keeps working, and the same name from
//! another authority does not.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use webpki::{BorrowedCertRevocationList, CertRevocationList, RevocationOptionsBuilder, UnknownStatusPolicy};

use crate::clock::Timestamp;
use crate::oauth::certificate::Certificate;
use crate::oauth::roots::{Roots, RootsError};

/// The organisation's own authorities for client certificates, and what they have revoked.
#[derive(Debug, Default)]
pub struct ClientTrust {
    authorities: Roots,
    lists: Vec<CertRevocationList<'static>>,
}

/// Why a revocation list can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// There is no list in it.
    #[error("holds no revocation list (-----BEGIN X509 CRL-----)")]
    Empty,
    /// One of them is broken.
    #[error("can't be used: {0}")]
    Unusable(String),
}

impl ClientTrust {
    /// Adds the authorities of a PEM file.
    ///
    /// # Errors
    /// As [`Roots::add_pem`].
    pub fn add_authorities(&mut self, pem: &[u8]) -> Result<(), RootsError> {
        self.authorities.add_pem(pem)
    }

    /// Adds the revocation lists of a PEM file.
    ///
    /// # Errors
    /// If there is none, or one that can't be used: what it revoked would go on.
    pub fn add_revoked(&mut self, pem: &[u8]) -> Result<(), ListError> {
        let before = self.lists.len();
        for list in CertificateRevocationListDer::pem_slice_iter(pem) {
            let list = list.map_err(|error| ListError::Unusable(error.to_string()))?;
            let list = BorrowedCertRevocationList::from_der(&list).and_then(|list| list.to_owned());
            self.lists.push(list.map_err(|error| ListError::Unusable(error.to_string()))?.into());
        }
        if self.lists.len() == before { Err(ListError::Empty) } else { Ok(()) }
    }

    /// Are there authorities at all?
    pub fn is_empty(&self) -> bool {
        self.authorities.is_empty()
    }

    /// Does the chain lead to one of the authorities, and is nothing in it revoked (RFC 8705 section 2.1)? The leaf is the first, whatever else was sent.
    ///
    /// # Errors
    /// Why not, for the record.
    pub fn vouches_for(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), webpki::Error> {
        let lists: Vec<&CertRevocationList<'_>> = self.lists.iter().collect();
        // A list of another authority says nothing about this one; that is why an unknown status is allowed.
        let revoked = RevocationOptionsBuilder::new(&lists)
            .ok()
            .map(|options| options.with_status_policy(UnknownStatusPolicy::Allow).build());
        self.authorities.verify_unless(chain, now.seconds(), revoked)
    }

    /// Has one of the authorities revoked it? Then it is refused also where the pinned key alone would do.
    pub fn has_revoked(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> bool {
        !self.lists.is_empty() && matches!(self.vouches_for(chain, now), Err(webpki::Error::CertRevoked))
    }
}

/// Reads the leaf, and holds it against the calendar.
///
/// # Errors
/// Why it is worth nothing, for the record.
pub fn leaf(chain: &[CertificateDer<'_>], now: Timestamp) -> Result<Certificate, &'static str> {
    let first = chain.first().ok_or("no certificate")?;
    let certificate = Certificate::from_der(first).map_err(|error| error.0)?;
    if now.seconds() < certificate.not_before {
        return Err("The certificate is not valid yet.");
    }
    if now.seconds() > certificate.not_after {
        return Err("The certificate has expired.");
    }
    Ok(certificate)
}
