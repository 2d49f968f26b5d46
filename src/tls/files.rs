//! Certificate and key from PEM files. Whoever renews them writes new files; they are read again by themselves.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use crate::clock::Timestamp;
use crate::oauth::certificate::Certificate;
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

/// What there is to say of a certificate.
#[derive(Clone, Debug)]
pub struct Facts {
    /// SHA-256 of the DER, as hexadecimal digits.
    pub fingerprint: String,
    /// Valid from then on.
    pub not_before: Timestamp,
    /// Valid until then.
    pub not_after: Timestamp,
}

/// What there is to say of the first certificate in a PEM file; none, if it holds none.
pub fn facts_of(path: &Path) -> Option<Facts> {
    let der = CertificateDer::from_pem_file(path).ok()?;
    let certificate = Certificate::from_der(&der).ok()?;
    let instant = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
    Some(Facts {
        fingerprint: hex(&certificate.x5t),
        not_before: instant(certificate.not_before),
        not_after: instant(certificate.not_after),
    })
}

/// Can the two be shown together?
pub(super) fn check_pair(certificate: &Path, key: &Path) -> Result<(), TlsError> {
    read(certificate, key).map(|_| ())
}

/// Is the first certificate in a PEM file for all these host names and addresses?
pub(super) fn is_for(path: &Path, hosts: &[String]) -> bool {
    let Ok(der) = CertificateDer::from_pem_file(path) else { return false };
    let Ok(leaf) = EndEntityCert::try_from(&der) else { return false };
    let is_good = |host: &String| {
        ServerName::try_from(host.as_str()).is_ok_and(|name| leaf.verify_is_valid_for_subject_name(&name).is_ok())
    };
    hosts.iter().all(is_good)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes the folder, for its owner only.
pub(super) fn private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// A file gets its name when it is complete: a server that reads it at that moment must not find half of it.
pub(super) fn write_whole(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    let mut draft = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    draft.write_all(text.as_bytes())?;
    draft.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    draft.as_file().sync_all()?;
    draft.persist(path).map(|_| ()).map_err(|error| error.error)
}
