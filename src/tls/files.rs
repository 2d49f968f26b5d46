//! Certificate and key from PEM files. Whoever renews them writes new files; they are read again by themselves.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::tls::{TlsError, provider};

/// When each file was last written.
type Written = [Option<SystemTime>; 2];

/// A certificate with its key, as last read.
#[derive(Debug)]
pub struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
    written: Mutex<Written>,
}

impl CertificateFiles {
    /// Reads both.
    ///
    /// # Errors
    /// If a file can't be read, or the two don't belong together.
    pub fn open(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let written = written(certificate, key);
        let current = ArcSwap::from(read(certificate, key)?);
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Arc::new(Self { certificate, key, current, written: Mutex::new(written) }))
    }

    /// Reads both again if one has changed; whether it did. New connections get the new certificate, others go on.
    ///
    /// # Errors
    /// If the new files are no good; then the old certificate stays.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let now = written(&self.certificate, &self.key);
        let mut last = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == now {
            return Ok(false);
        }
        let renewed = read(&self.certificate, &self.key)?;
        // Only what was read counts as seen: half a renewal is looked at again.
        *last = now;
        self.current.store(renewed);
        Ok(true)
    }
}

impl ResolvesServerCert for CertificateFiles {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn written(certificate: &Path, key: &Path) -> Written {
    [certificate, key].map(|path| std::fs::metadata(path).and_then(|facts| facts.modified()).ok())
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let wrong = |path: &Path, what: String| TlsError(format!("{}: {what}", path.display()));
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "holds no PEM certificate".into()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    CertifiedKey::from_der(chain, secret, &provider())
        .map(Arc::new)
        .map_err(|error| wrong(key, format!("can't be used with {}: {error}", certificate.display())))
}
