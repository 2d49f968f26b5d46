//! A technician's code: for one device, good once, for a day. `TECH-WDJBM-JHTXK`: ten random letters of the alphabet of user codes, 43 bits.
//!
//! It is typed together with the device's id, and what the database holds is a keyed hash of both. So one guess is a guess at one device.

use std::time::Duration;

use crate::id::DeviceId;
use crate::model::user_code::{ALPHABET, normal_form};
use crate::secret::{Bytes32, MacKey, Random, SecretError};

/// A code that nobody used ends after this long.
pub const CODE_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// What it opened ends after this long, or with the code, whichever is first.
pub const PASS_LIFETIME: Duration = Duration::from_secs(2 * 3600);

const PREFIX: &str = "TECH";
const LETTERS: usize = 10;

/// A code in its one normal form: the letters without prefix.
#[derive(Clone, PartialEq, Eq)]
pub struct TechnicianCode([u8; LETTERS]);

impl std::fmt::Debug for TechnicianCode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TechnicianCode(…)")
    }
}

impl TechnicianCode {
    /// A new code.
    ///
    /// # Errors
    /// If the generator fails.
    pub fn mint(random: &Random) -> Result<Self, SecretError> {
        let mut letters = [0; LETTERS];
        for letter in &mut letters {
            *letter = ALPHABET[usize::from(random.below(20)?)];
        }
        Ok(Self(letters))
    }

    /// Reads what somebody typed: any case, with or without dashes, spaces and prefix. `None` if it can't be one of ours.
    pub fn parse(input: &str) -> Option<Self> {
        let letters = normal_form(input)?;
        let letters = letters.strip_prefix(PREFIX).filter(|rest| rest.len() == LETTERS).unwrap_or(&letters);
        let letters: [u8; LETTERS] = letters.as_bytes().try_into().ok()?;
        letters.iter().all(|letter| ALPHABET.contains(letter)).then_some(Self(letters))
    }

    /// `TECH-WDJBM-JHTXK`.
    pub fn display(&self) -> String {
        let letters = String::from_utf8_lossy(&self.0);
        format!("{PREFIX}-{}-{}", &letters[..5], &letters[5..])
    }

    /// What the store keeps: a keyed hash of device and code.
    pub fn hash(&self, device: &DeviceId, key: &MacKey) -> Bytes32 {
        key.tag(&[device.as_str().as_bytes(), b"\n", &self.0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_code_is_that_code_and_others_are_none() {
        let code = TechnicianCode::mint(&Random::seeded("technician")).unwrap();
        let shown = code.display();
        assert!(shown.starts_with("TECH-") && shown.len() == 16, "{shown}");
        for spelling in [
            shown.clone(),
            shown.to_lowercase(),
            shown.replace('-', " "),
            shown.replace('-', ""),
            shown[5..].to_owned(),
            format!(" {}\n", &shown[5..].to_lowercase()),
        ] {
            assert_eq!(TechnicianCode::parse(&spelling).as_ref(), Some(&code), "{spelling}");
        }
        let long = "B".repeat(300);
        for foreign in ["", "TECH", "TECH-", &shown[..15], "TECH-AAAAA-AAAAA", "PRN-WDJB-MJHTX", "12345 67890", &long] {
            assert_eq!(TechnicianCode::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn the_hash_is_keyed_and_of_one_device() {
        let code = TechnicianCode::mint(&Random::seeded("hash")).unwrap();
        let hash = |device: &str, key: &[u8]| code.hash(&DeviceId::new(device).unwrap(), &MacKey::new(key));
        assert_ne!(hash("tv-01", b"one"), hash("tv-02", b"one"));
        assert_ne!(hash("tv-01", b"one"), hash("tv-01", b"two"));
        assert_eq!(format!("{code:?}"), "TechnicianCode(…)");
    }
}
