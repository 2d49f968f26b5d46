//! Certificates that are believed to have signed others: read from PEM files (RFC 7468) at the start, and held against chains (RFC 5280 section 6).

use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, RevocationOptions, anchor_from_trusted_cert};

/// Why a file holds no roots.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// It is no PEM.
    #[error("is no PEM file with certificates")]
    NotPem,
    /// There is nothing in it.
    #[error("holds no certificate (-----BEGIN CERTIFICATE-----)")]
    Empty,
    /// A certificate of it can't be used.
    #[error("certificate {0} of it can't be a root: {1}")]
    Unusable(usize, webpki::Error),
}

/// Roots. None trusts nobody.
#[derive(Clone, Debug, Default)]
pub struct Roots(Vec<TrustAnchor<'static>>);

impl Roots {
    /// Adds all certificates of a PEM file.
    ///
    /// # Errors
    /// If one of them can't be a root, or there is none.
    pub fn add_pem(&mut self, pem: &[u8]) -> Result<(), RootsError> {
        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| RootsError::NotPem)?;
        if certificates.is_empty() {
            return Err(RootsError::Empty);
        }
        for (index, certificate) in certificates.iter().enumerate() {
            let anchor =
                anchor_from_trusted_cert(certificate).map_err(|error| RootsError::Unusable(index + 1, error))?;
            self.0.push(anchor.to_owned());
        }
        Ok(())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Does this chain, leaf first, lead to one of the roots at `now` (seconds since 1970)? The leaf may lack an extended key usage, as those of makers
    /// do; if it has one, it must be for clients.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: i64) -> Result<(), webpki::Error> {
        self.verify_unless(chain, now, None)
    }

    /// The same, and nothing in the chain is revoked.
    ///
    /// # Errors
    /// As [`Roots::verify`]; `CertRevoked`.
    pub fn verify_unless(
        &self,
        chain: &[CertificateDer<'_>],
        now: i64,
        revoked: Option<RevocationOptions<'_>>,
    ) -> Result<(), webpki::Error> {
        let (leaf, intermediates) = chain.split_first().ok_or(webpki::Error::UnknownIssuer)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
        EndEntityCert::try_from(leaf)?
            .verify_for_usage(
                ALL_VERIFICATION_ALGS,
                &self.0,
                intermediates,
                now,
                KeyUsage::client_auth(),
                revoked,
                None,
            )
            .map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    fn ca() -> String {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn a_file_may_hold_several_roots_and_words_between_them() {
        let mut roots = Roots::default();
        roots.add_pem(format!("Maker A\n{}Maker B\n{}", ca(), ca()).as_bytes()).unwrap();
        roots.add_pem(ca().as_bytes()).unwrap();
        assert_eq!(roots.len(), 3);
    }

    #[test]
    fn what_holds_no_root_says_why() {
        let key = KeyPair::generate().unwrap().serialize_pem();
        const GARBAGE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (pem, why) in [
            (String::new(), "holds no certificate"),
            ("maker-ca.pem".into(), "holds no certificate"),
            (key, "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n".into(), "no PEM"),
            (GARBAGE.into(), "certificate 1"),
            (format!("{}{GARBAGE}", ca()), "certificate 2"),
        ] {
            let error = Roots::default().add_pem(pem.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{pem}: {error}");
        }
    }
}
