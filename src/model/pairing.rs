//! A pairing: binding one key to one registered device (design section 3). States, the commitment, and the comparison code.

use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::{DeviceId, PairingId};
use crate::model::device::KeyAssurance;
use crate::secret::{Bytes32, sha256};

/// A pairing that nobody confirms ends after this long.
pub const PAIRING_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// `error` of an answer to what is no message of this use.
pub const ERROR_MALFORMED: &str = "invalid_request";
/// `error` of the one refusal, whatever its reason.
pub const ERROR_REFUSED: &str = "pairing_refused";
/// Seconds between a device's polls.
pub const PAIRING_INTERVAL: i64 = 2;
/// A window closes by itself after this long.
pub const WINDOW_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Wrong digits before a pairing ends.
pub const MAX_WRONG_DIGITS: u8 = 3;
/// Pairings that may wait for one device; more than one is a conflict that people look at.
pub const MAX_PENDING_PER_DEVICE: i64 = 3;

/// requested → revealed → confirmed, or refused, or expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairingState {
    /// The device has committed to its nonce.
    Requested,
    /// It has revealed the nonce; both sides know the comparison code.
    Revealed,
    /// An operator confirmed: the key is pinned.
    Confirmed,
    /// An operator, three wrong tries, or a confirmed rival ended it.
    Refused,
}

impl PairingState {
    /// All states, for tables.
    pub const ALL: [Self; 4] = [Self::Requested, Self::Revealed, Self::Confirmed, Self::Refused];

    /// The word, as in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Revealed => "revealed",
            Self::Confirmed => "confirmed",
            Self::Refused => "refused",
        }
    }

    /// From the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// The legal transitions. Confirming needs the revealed nonce: before that nobody has compared anything.
    pub const fn may_become(self, next: Self) -> bool {
        use PairingState::{Confirmed, Refused, Requested, Revealed};
        matches!((self, next), (Requested, Revealed | Refused) | (Revealed, Confirmed | Refused))
    }

    /// Does it still wait for somebody?
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Requested | Self::Revealed)
    }
}

/// A pairing as stored.
#[derive(Clone, Debug)]
pub struct Pairing {
    /// Its id.
    pub id: PairingId,
    /// For which device.
    pub device: DeviceId,
    /// State; an open one is dead after `expires_at` all the same.
    pub state: PairingState,
    /// The key that asks.
    pub jkt: Bytes32,
    /// How the key is kept, as far as was shown yet; only ever raised.
    pub key_assurance: KeyAssurance,
    /// The device's present key, if it vouches for the new one: a rotation, which needs no window and no comparison.
    pub vouched_by: Option<Bytes32>,
    /// What the device says of itself: serial, model, firmware.
    pub says: Says,
    /// `SHA-256("pairgate pairing v1" ‖ device_nonce ‖ jkt)`.
    pub commitment: Bytes32,
    /// The broker's half.
    pub broker_nonce: Bytes32,
    /// The broker's key that the answer named; the digits are over it, also when the broker has a new one. `None`: asked before it was kept.
    pub broker_jkt: Option<Bytes32>,
    /// The device's half, once revealed.
    pub device_nonce: Option<Bytes32>,
    /// Wrong digits so far.
    pub wrong_digits: u8,
    /// When it asked.
    pub requested_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// From where.
    pub peer: Option<IpAddr>,
    /// Another key asked for the same device while this one waited.
    pub conflict: bool,
}

/// What a device says of itself at pairing; shown as claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Says {
    /// Serial number.
    pub serial: String,
    /// Model.
    pub model: String,
    /// Firmware version.
    pub firmware: String,
}

impl Pairing {
    /// Does it still wait at `now`?
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.state.is_open() && now < self.expires_at
    }

    /// The six digits that the device shows, once the nonce is revealed.
    pub fn comparison_code(&self) -> Option<String> {
        let (broker_jkt, nonce) = self.broker_jkt.zip(self.device_nonce)?;
        Some(comparison_code(&self.jkt, &broker_jkt, &nonce, &self.broker_nonce))
    }
}

/// The commitment of a device to its nonce.
///
/// Without it, a man in the middle who has seen both nonces could grind keys until his six digits equal the device's (a million tries, seconds);
/// committed first, he gets one try in a million.
pub fn commitment(device_nonce: &Bytes32, jkt: &Bytes32) -> Bytes32 {
    sha256(&[b"pairgate pairing v1", device_nonce, jkt])
}

/// The comparison code: six digits from `jkt ‖ broker jkt ‖ device_nonce ‖ broker_nonce`.
pub fn comparison_code(jkt: &Bytes32, broker_jkt: &Bytes32, device_nonce: &Bytes32, broker_nonce: &Bytes32) -> String {
    let digest = sha256(&[b"pairgate comparison v1", jkt, broker_jkt, device_nonce, broker_nonce]);
    let head = digest.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    format!("{:06}", head % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairing_transitions_are_these_and_no_others() {
        use PairingState::{Confirmed, Refused, Requested, Revealed};
        let legal = [(Requested, Revealed), (Requested, Refused), (Revealed, Confirmed), (Revealed, Refused)];
        for from in PairingState::ALL {
            assert_eq!(PairingState::parse(from.as_str()), Some(from));
            for to in PairingState::ALL {
                assert_eq!(from.may_become(to), legal.contains(&(from, to)), "{from:?} → {to:?}");
            }
        }
    }

    #[test]
    fn every_input_of_the_comparison_code_counts() {
        let base = comparison_code(&[1; 32], &[2; 32], &[3; 32], &[4; 32]);
        assert_eq!(base.len(), 6);
        let others = [
            comparison_code(&[9; 32], &[2; 32], &[3; 32], &[4; 32]),
            comparison_code(&[1; 32], &[9; 32], &[3; 32], &[4; 32]),
            comparison_code(&[1; 32], &[2; 32], &[9; 32], &[4; 32]),
            comparison_code(&[1; 32], &[2; 32], &[3; 32], &[9; 32]),
        ];
        assert!(others.iter().all(|other| *other != base));
        assert_ne!(commitment(&[1; 32], &[2; 32]), commitment(&[1; 32], &[3; 32]));
    }
}
