//! Randomness, hashing, sealing and comparing: the only caller of the generator, and the only holder of the master key.
//!
//! Keys for single purposes are derived from the master key by HKDF (RFC 5869), so that no two uses share one. What the database holds of codes
//! and tokens is a hash; of private keys, a sealed record. A stolen database alone is worth nothing.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::{constant_time, hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// A SHA-256 digest or a 256-bit random value.
pub type Bytes32 = [u8; 32];

/// What went wrong with a secret. Never says what the secret was.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The random generator of the machine failed.
    #[error("the random generator of this machine failed")]
    Random,
    /// The sealed record was changed, or the master key is another one.
    #[error("a sealed record does not open: it was changed, or the master key is not the one that sealed it")]
    Unseal,
    /// The master key file is absent, unreadable, or readable by others.
    #[error("{0}")]
    MasterKey(String),
}

/// base64url without padding (RFC 7515 section 2).
pub fn b64u(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Strict inverse of [`b64u`]: padding, foreign characters and non-zero trailing bits are refused.
pub fn from_b64u(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// A [`Bytes32`] from its base64url text.
pub fn bytes32_from_b64u(text: &str) -> Option<Bytes32> {
    let mut out = [0_u8; 33];
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut out).ok()?;
    (length == 32).then(|| out[..32].try_into().ok()).flatten()
}

/// SHA-256 over the parts, one after another.
pub fn sha256(parts: &[&[u8]]) -> Bytes32 {
    let mut context = digest::Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// Equality in constant time: the answer to a wrong guess must not tell how much of it was right.
pub fn is_equal(left: &[u8], right: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(left, right).is_ok()
}

/// The generator: the machine's, or a seeded one in tests.
#[derive(Clone, Debug)]
pub struct Random(Generator);

#[derive(Clone)]
enum Generator {
    System,
    Seeded(Arc<Mutex<(Bytes32, u64)>>),
}

impl fmt::Debug for Generator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::System => "System",
            Self::Seeded(_) => "Seeded",
        })
    }
}

impl Random {
    /// The machine's generator.
    pub const fn system() -> Self {
        Self(Generator::System)
    }

    /// A generator that repeats itself for the same seed; for tests only.
    pub fn seeded(seed: &str) -> Self {
        Self(Generator::Seeded(Arc::new(Mutex::new((sha256(&[seed.as_bytes()]), 0)))))
    }

    /// Fills `out` with random bytes.
    ///
    /// # Errors
    /// [`SecretError::Random`] if the machine's generator fails; nothing may be minted then.
    #[allow(clippy::disallowed_methods)] // the one place
    pub fn fill(&self, out: &mut [u8]) -> Result<(), SecretError> {
        match &self.0 {
            Generator::System => aws_lc_rs::rand::fill(out).map_err(|_| SecretError::Random),
            Generator::Seeded(state) => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                for chunk in out.chunks_mut(32) {
                    state.1 += 1;
                    let block = sha256(&[&state.0, &state.1.to_be_bytes()]);
                    chunk.copy_from_slice(&block[..chunk.len()]);
                }
                Ok(())
            }
        }
    }

    /// 256 random bits.
    ///
    /// # Errors
    /// As [`Random::fill`].
    pub fn bytes32(&self) -> Result<Bytes32, SecretError> {
        let mut out = [0; 32];
        self.fill(&mut out)?;
        Ok(out)
    }

    /// A number in `0..bound`, without bias (values over the largest multiple of `bound` are drawn again).
    ///
    /// # Errors
    /// As [`Random::fill`].
    pub fn below(&self, bound: u8) -> Result<u8, SecretError> {
        let limit = u8::MAX - (u8::MAX % bound);
        loop {
            let mut byte = [0];
            self.fill(&mut byte)?;
            if byte[0] < limit {
                return Ok(byte[0] % bound);
            }
        }
    }
}

/// The one secret that is not in the database: 256 bits from a file of mode 0600, or from the environment.
pub struct MasterKey(Zeroizing<Bytes32>);

impl fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MasterKey(…)")
    }
}

impl MasterKey {
    /// From 32 raw bytes.
    pub fn new(bytes: Bytes32) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// From base64url text of 32 bytes, as `PAIRGATE_MASTER_KEY` carries it.
    ///
    /// # Errors
    /// [`SecretError::MasterKey`] if it is anything else.
    pub fn from_text(text: &str) -> Result<Self, SecretError> {
        bytes32_from_b64u(text.trim()).map(Self::new).ok_or_else(|| {
            SecretError::MasterKey("the master key must be 43 characters of base64url (32 bytes, no padding)".into())
        })
    }

    /// Reads the key file, or makes it (mode 0600) if `create` and it is not there.
    ///
    /// # Errors
    /// [`SecretError::MasterKey`] if it can't be read, holds something else, or others may read it.
    pub fn from_file(path: &Path, create: bool, random: &Random) -> Result<Self, SecretError> {
        use std::os::unix::fs::PermissionsExt as _;
        let wrong = |what: String| SecretError::MasterKey(format!("master key file {}: {what}", path.display()));
        if create && !path.exists() {
            let key = Zeroizing::new(random.bytes32()?);
            Self::write_new(path, b64u(&*key).as_bytes()).map_err(|error| wrong(error.to_string()))?;
        }
        let mode = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(wrong(format!(
                "others may read it (mode {:o}); run: chmod 600 {}",
                mode & 0o777,
                path.display()
            )));
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?);
        Self::from_text(&text)
    }

    /// The file gets its name when it is complete: a kill in between must not leave half a key. If another process was first, its file stays.
    fn write_new(path: &Path, text: &[u8]) -> std::io::Result<()> {
        use std::io::Write as _;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut draft = tempfile::NamedTempFile::new_in(folder)?; // mode 0600 from its first moment
        draft.write_all(text)?;
        draft.as_file().sync_all()?;
        match draft.persist_noclobber(path) {
            Err(error) if error.error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error.error),
            _ => {}
        }
        std::fs::File::open(folder)?.sync_all()
    }

    /// 32 bytes for one purpose (HKDF-SHA-256, `purpose` as info).
    pub fn derive(&self, purpose: &str) -> Zeroizing<Bytes32> {
        let mut out = Zeroizing::new([0; 32]);
        let info = [purpose.as_bytes()];
        let filled = hkdf::Salt::new(hkdf::HKDF_SHA256, b"pairgate v1")
            .extract(&*self.0)
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut *out));
        debug_assert!(filled.is_ok(), "32 bytes are always within the limit of RFC 5869");
        out
    }

    /// A key for HMAC-SHA-256 for one purpose.
    pub fn mac_key(&self, purpose: &str) -> MacKey {
        MacKey::new(&*self.derive(purpose))
    }

    /// Seals `plain` (AES-256-GCM-SIV, RFC 8452) for one row; `row` is authenticated, so a record moved to another row does not open.
    ///
    /// # Errors
    /// [`SecretError::Random`].
    pub fn seal(&self, row: &str, plain: &[u8], random: &Random) -> Result<Vec<u8>, SecretError> {
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce)?;
        let mut sealed = plain.to_vec();
        self.sealing_key(row)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(row.as_bytes()), &mut sealed)
            .map_err(|_| SecretError::Unseal)?;
        let mut record = nonce.to_vec();
        record.append(&mut sealed);
        Ok(record)
    }

    /// Opens what [`MasterKey::seal`] made for the same row.
    ///
    /// # Errors
    /// [`SecretError::Unseal`].
    pub fn unseal(&self, row: &str, record: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let (nonce, sealed) = record.split_at_checked(NONCE_LEN).ok_or(SecretError::Unseal)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SecretError::Unseal)?;
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let length = self
            .sealing_key(row)?
            .open_in_place(nonce, Aad::from(row.as_bytes()), &mut buffer)
            .map_err(|_| SecretError::Unseal)?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }

    fn sealing_key(&self, row: &str) -> Result<LessSafeKey, SecretError> {
        let key = self.derive(&format!("seal {row}"));
        UnboundKey::new(&AES_256_GCM_SIV, &*key).map(LessSafeKey::new).map_err(|_| SecretError::Unseal)
    }
}

/// An HMAC-SHA-256 key for one purpose.
#[derive(Clone)]
pub struct MacKey(hmac::Key);

impl fmt::Debug for MacKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MacKey(…)")
    }
}

impl MacKey {
    /// From key bytes.
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The tag over the parts. Parts of variable length need a length or a separator of the caller's.
    pub fn tag(&self, parts: &[&[u8]]) -> Bytes32 {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.sign().as_ref());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_records_open_only_in_their_row_under_their_key() {
        let random = Random::seeded("seal");
        let key = MasterKey::new([7; 32]);
        let record = key.seal("signing_keys/1", b"private", &random).unwrap();
        assert_eq!(&**key.unseal("signing_keys/1", &record).unwrap(), b"private");
        assert!(key.unseal("signing_keys/2", &record).is_err(), "moved to another row");
        assert!(MasterKey::new([8; 32]).unseal("signing_keys/1", &record).is_err(), "another master key");
        for index in 0..record.len() {
            let mut changed = record.clone();
            changed[index] ^= 1;
            assert!(key.unseal("signing_keys/1", &changed).is_err(), "byte {index} changed");
        }
        assert!(key.unseal("signing_keys/1", &record[..5]).is_err(), "cut short");
    }

    #[test]
    fn a_master_key_file_is_made_private_and_refused_when_others_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let random = Random::seeded("file");
        assert!(MasterKey::from_file(&path, false, &random).is_err(), "absent and not to be made");
        let made = MasterKey::from_file(&path, true, &random).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = MasterKey::from_file(&path, true, &random).unwrap();
        assert_eq!(*made.derive("x"), *read.derive("x"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refused = MasterKey::from_file(&path, true, &random).unwrap_err().to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
    }

    #[test]
    fn base64url_is_strict() {
        for refused in ["AA==", "A", "AB", "A+", "A/", " AA", "AA\n"] {
            assert!(from_b64u(refused).is_none(), "{refused:?}");
        }
        assert_eq!(from_b64u("AA"), Some(vec![0]));
        assert!(bytes32_from_b64u(&b64u(&[1; 31])).is_none());
        assert!(bytes32_from_b64u(&b64u(&[1; 33])).is_none());
        assert_eq!(bytes32_from_b64u(&b64u(&[1; 32])), Some([1; 32]));
    }

    #[test]
    fn numbers_below_a_bound_are_below_it_and_reach_all_values() {
        let random = Random::seeded("below");
        let mut seen = [false; 20];
        for _ in 0..1000 {
            seen[usize::from(random.below(20).unwrap())] = true;
        }
        assert!(seen.iter().all(|hit| *hit));
    }

    #[test]
    fn purposes_do_not_share_keys() {
        let key = MasterKey::new([1; 32]);
        assert_ne!(*key.derive("user code"), *key.derive("csrf"));
    }
}
