//! Typed identifiers: what names a row, and what may be said of it in public. None of them is a secret.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::secret::{Random, SecretError, b64u, from_b64u};

/// A device id: the row's name in the registry *and* the OAuth `client_id`. `[a-z0-9-]{3,64}`, immutable, never reused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(String);

/// Why a text is no device id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a device id has 3 to 64 characters out of a-z, 0-9 and '-', and begins and ends with a letter or a digit; 'operations' is none"
)]
pub struct DeviceIdError;

impl DeviceId {
    /// Checks and takes a device id.
    ///
    /// # Errors
    /// [`DeviceIdError`]; nothing is corrected in silence, so that two spellings can't name one device.
    pub fn new(text: &str) -> Result<Self, DeviceIdError> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let is_framed = !text.starts_with('-') && !text.ends_with('-');
        // On MQTT, what stands under that name is for operators.
        if (3..=64).contains(&text.len()) && is_plain && is_framed && text != "operations" {
            Ok(Self(text.to_owned()))
        } else {
            Err(DeviceIdError)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DeviceId {
    type Error = DeviceIdError;
    fn try_from(text: String) -> Result<Self, DeviceIdError> {
        Self::new(&text)
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A grant's row: rises by one for each code ever minted. Carried inside the device code, so that finding a grant is a read by row id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GrantId(pub i64);

impl fmt::Display for GrantId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A pairing: 128 random bits, since it is part of an address that a device shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PairingId(String);

impl PairingId {
    /// A new one.
    ///
    /// # Errors
    /// If the machine's generator fails.
    pub fn mint(random: &Random) -> Result<Self, SecretError> {
        let mut bytes = [0; 16];
        random.fill(&mut bytes)?;
        Ok(Self(b64u(&bytes)))
    }

    /// From text of the right shape.
    pub fn parse(text: &str) -> Option<Self> {
        (from_b64u(text)?.len() == 16).then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PairingId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An operator's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct OperatorId(pub i64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_ids_are_plain_and_nothing_is_corrected_a_020() {
        for good in ["lobby-printer-01", "abc", "0-0", &"a".repeat(64)] {
            assert!(DeviceId::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "ab",
            "Lobby-printer",
            "lobby printer",
            "lobby_printer",
            "-abc",
            "abc-",
            "a/b",
            "#",
            "+",
            "..a",
            "dévice",
            "device:x",
            "a\n-b",
            &"a".repeat(65),
        ] {
            assert!(DeviceId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn pairing_ids_have_one_shape() {
        let id = PairingId::mint(&Random::seeded("id")).unwrap();
        assert_eq!(PairingId::parse(id.as_str()), Some(id));
        assert_eq!(PairingId::parse("../../x"), None);
        assert_eq!(PairingId::parse("AAAA"), None);
    }
}
