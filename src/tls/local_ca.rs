//! A certificate authority of our own, for networks that no public one reaches. Devices pin its certificate when they are paired; browsers are told once.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use time::OffsetDateTime;

use crate::clock::Timestamp;
use crate::secret::sha256;
use crate::tls::TlsError;
use crate::tls::files::{Facts, check_pair, facts_of, hex, is_for, private_folder, write_whole};

const DAY: Duration = Duration::from_secs(86_400);
/// Devices that pinned it must be told of another.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
const LEAF_LIFETIME: Duration = Duration::from_secs(90 * 86_400);
/// A leaf is renewed when no more than this is left of it.
const RENEWAL: Duration = Duration::from_secs(30 * 86_400);

/// The files of a local authority, in the data directory.
#[derive(Clone, Debug)]
pub struct LocalCa {
    folder: PathBuf,
}

impl LocalCa {
    /// In this data directory.
    pub fn in_data(data: &Path) -> Self {
        Self { folder: data.join("tls") }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The leaf's certificate chain.
    pub fn certificate(&self) -> PathBuf {
        self.file("server.pem")
    }

    /// The leaf's key.
    pub fn key(&self) -> PathBuf {
        self.file("server.key")
    }

    /// Has it been made?
    pub fn exists(&self) -> bool {
        self.file("ca.pem").exists()
    }

    /// The authority's certificate: what devices pin.
    ///
    /// # Errors
    /// If there is none yet.
    pub fn ca_pem(&self) -> Result<String, TlsError> {
        std::fs::read_to_string(self.file("ca.pem")).map_err(|error| {
            TlsError(format!("{}: {error}; make one with: pairgate tls init", self.file("ca.pem").display()))
        })
    }

    /// Makes an authority and its first leaf.
    ///
    /// # Errors
    /// If there is one (devices pin it, so it is not replaced in passing), or the files can't be written.
    pub fn init(&self, hosts: &[String], now: Timestamp, force: bool) -> Result<(), TlsError> {
        if self.exists() && !force {
            return Err(TlsError(format!(
                "there is a certificate authority in {} already, and devices may have pinned it. To make a new one all the same: --force",
                self.folder.display()
            )));
        }
        private_folder(&self.folder).map_err(|error| self.failed(error))?;
        let key = KeyPair::generate().map_err(|error| self.failed(error))?;
        let name = format!("Pairgate local CA {}", &hex(&sha256(&[key.public_key_raw()]))[..8]);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = validity(now, CA_LIFETIME)?;
        let certificate = params.self_signed(&key).map_err(|error| self.failed(error))?;
        self.write("ca.key", &key.serialize_pem(), 0o600)?;
        self.write("ca.pem", &certificate.pem(), 0o644)?;
        self.renew(hosts, now)
    }

    /// Makes a new leaf for these host names and addresses. Its key is new, too.
    ///
    /// # Errors
    /// If the authority's files can't be read, or the leaf's not written.
    pub fn renew(&self, hosts: &[String], now: Timestamp) -> Result<(), TlsError> {
        let ca_key = std::fs::read_to_string(self.file("ca.key")).map_err(|error| self.failed(error))?;
        let ca_key = KeyPair::from_pem(&ca_key).map_err(|error| self.failed(error))?;
        let issuer = Issuer::from_ca_cert_pem(&self.ca_pem()?, ca_key).map_err(|error| self.failed(error))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, hosts.first().map_or("pairgate", String::as_str));
        for host in hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.as_str().try_into().map_err(|error| self.failed(error))?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(now, LEAF_LIFETIME)?;
        let key = KeyPair::generate().map_err(|error| self.failed(error))?;
        let certificate = params.signed_by(&key, &issuer).map_err(|error| self.failed(error))?;
        self.write("server.key", &key.serialize_pem(), 0o600)?;
        self.write("server.pem", &certificate.pem(), 0o644)
    }

    /// Renews the leaf if it is due, does not carry these hosts any more, or has lost its key; whether it did.
    ///
    /// # Errors
    /// As [`LocalCa::renew`].
    pub fn renew_if_due(&self, hosts: &[String], now: Timestamp) -> Result<bool, TlsError> {
        let (certificate, key) = (self.certificate(), self.key());
        let is_due = facts_of(&certificate).is_none_or(|facts| facts.not_after.since(now) < RENEWAL)
            || !is_for(&certificate, hosts)
            || check_pair(&certificate, &key).is_err();
        if is_due {
            self.renew(hosts, now)?;
        }
        Ok(is_due)
    }

    /// What there is to say of the authority and the leaf.
    pub fn facts(&self) -> [Option<Facts>; 2] {
        [facts_of(&self.file("ca.pem")), facts_of(&self.certificate())]
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), TlsError> {
        write_whole(&self.file(name), text, mode).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: impl std::fmt::Display) -> TlsError {
        TlsError(format!("the certificate authority in {}: {error}", self.folder.display()))
    }
}

/// From a day ago, so that a device whose clock is a little late believes it, too.
fn validity(now: Timestamp, lifetime: Duration) -> Result<(OffsetDateTime, OffsetDateTime), TlsError> {
    let at = |instant: Timestamp| OffsetDateTime::from_unix_timestamp(instant.seconds());
    match (at(now.minus(DAY)), at(now.plus(lifetime))) {
        (Ok(from), Ok(until)) => Ok((from, until)),
        _ => Err(TlsError("the clock of this machine is far off".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_500_000_000);

    fn hosts() -> Vec<String> {
        vec!["localhost".into(), "127.0.0.1".into()]
    }

    #[test]
    fn keys_are_private_and_an_authority_is_not_replaced_in_passing() {
        use std::os::unix::fs::PermissionsExt as _;
        let data = tempfile::tempdir().unwrap();
        let ca = LocalCa::in_data(data.path());
        assert!(ca.ca_pem().unwrap_err().to_string().contains("pairgate tls init"));
        ca.init(&hosts(), NOW, false).unwrap();
        for (name, mode) in [("ca.key", 0o600), ("server.key", 0o600), ("ca.pem", 0o644), ("server.pem", 0o644)] {
            let found = std::fs::metadata(ca.file(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{name}");
        }
        let before = ca.ca_pem().unwrap();
        assert!(ca.init(&hosts(), NOW, false).unwrap_err().to_string().contains("--force"));
        assert_eq!(ca.ca_pem().unwrap(), before);
        ca.init(&hosts(), NOW, true).unwrap();
        assert_ne!(ca.ca_pem().unwrap(), before);
    }

    #[test]
    fn a_leaf_is_renewed_thirty_days_before_its_end_and_not_before() {
        let data = tempfile::tempdir().unwrap();
        let ca = LocalCa::in_data(data.path());
        ca.init(&hosts(), NOW, false).unwrap();
        let leaf = || std::fs::read_to_string(ca.certificate()).unwrap();
        let first = leaf();
        assert!(!ca.renew_if_due(&hosts(), NOW.plus(60 * DAY)).unwrap());
        assert_eq!(leaf(), first);
        assert!(ca.renew_if_due(&hosts(), NOW.plus(60 * DAY + Duration::from_secs(1))).unwrap());
        assert_ne!(leaf(), first);
        assert!(!ca.renew_if_due(&hosts(), NOW.plus(61 * DAY)).unwrap());
        std::fs::write(ca.certificate(), "broken").unwrap();
        assert!(ca.renew_if_due(&hosts(), NOW.plus(61 * DAY)).unwrap(), "a broken one is mended");
        std::fs::write(ca.key(), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(ca.renew_if_due(&hosts(), NOW.plus(61 * DAY)).unwrap(), "and one whose key is another's");
        let moved = ["pairgate.example.org".to_owned()];
        assert!(ca.renew_if_due(&moved, NOW.plus(61 * DAY)).unwrap(), "and one for another host");
        for odd in ["pairgate.example.org", "pairgate.example.org.", "pair_gate.local", "xn--bro-hoa.example", "::1"] {
            ca.renew_if_due(&[odd.to_owned()], NOW.plus(61 * DAY)).unwrap();
            assert!(!ca.renew_if_due(&[odd.to_owned()], NOW.plus(61 * DAY)).unwrap(), "{odd} once, not every minute");
        }
    }
}
