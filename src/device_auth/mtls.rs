//! Client certificates (RFC 8705 section 2). Possession of the key was proved in the TLS handshake, or to a trusted proxy; here it is decided what the
//! certificate is worth. What identifies a device is always the *pinned key*, never a name: a renewed certificate keeps working, and the same name from
//! another authority does not.

use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, KeyUsage, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};

use crate::clock::Timestamp;
use crate::oauth::certificate::Certificate;

/// The organisation's own authorities for client certificates, and what they have revoked.
#[derive(Debug, Default)]
pub struct ClientTrust {
    anchors: Vec<TrustAnchor<'static>>,
    lists: Vec<CertRevocationList<'static>>,
}

/// Why authorities could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TrustError(String);

impl ClientTrust {
    /// From PEM texts: certificates of authorities, and revocation lists.
    ///
    /// # Errors
    /// If a text holds none, or something broken.
    pub fn from_pem(authorities: &[Vec<u8>], revoked: &[Vec<u8>]) -> Result<Self, TrustError> {
        let mut trust = Self::default();
        for text in authorities {
            let before = trust.anchors.len();
            for certificate in CertificateDer::pem_slice_iter(text) {
                let certificate = certificate.map_err(|error| TrustError(format!("a certificate: {error}")))?;
                let anchor = webpki::anchor_from_trusted_cert(&certificate)
                    .map_err(|error| TrustError(format!("a certificate authority: {error}")))?;
                trust.anchors.push(anchor.to_owned());
            }
            if trust.anchors.len() == before {
                return Err(TrustError("a file of certificate authorities holds no PEM certificate".into()));
            }
        }
        for text in revoked {
            let before = trust.lists.len();
            for list in CertificateRevocationListDer::pem_slice_iter(text) {
                let list = list.map_err(|error| TrustError(format!("a revocation list: {error}")))?;
                let list = BorrowedCertRevocationList::from_der(&list)
                    .and_then(|list| list.to_owned())
                    .map_err(|error| TrustError(format!("a revocation list: {error}")))?;
                trust.lists.push(list.into());
            }
            if trust.lists.len() == before {
                return Err(TrustError("a file of revocation lists holds no PEM list".into()));
            }
        }
        Ok(trust)
    }

    /// Are there authorities at all?
    pub const fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Does the chain lead to one of the authorities, and is nothing in it revoked (RFC 8705 section 2.1)? The leaf is the first, whatever else was sent.
    ///
    /// # Errors
    /// Why not, for the record.
    pub fn vouches_for(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), webpki::Error> {
        let (leaf, intermediates) = chain.split_first().ok_or(webpki::Error::UnknownIssuer)?;
        let leaf = EndEntityCert::try_from(leaf)?;
        let lists: Vec<&CertRevocationList<'_>> = self.lists.iter().collect();
        let revocation = match lists.as_slice() {
            [] => None,
            // A list of another authority says nothing about this one; that is why an unknown status is allowed.
            lists => RevocationOptionsBuilder::new(lists)
                .ok()
                .map(|options| options.with_status_policy(UnknownStatusPolicy::Allow).build()),
        };
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.seconds()).unwrap_or(0)));
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &self.anchors,
            intermediates,
            time,
            KeyUsage::client_auth(),
            revocation,
            None,
        )
        .map(|_| ())
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
