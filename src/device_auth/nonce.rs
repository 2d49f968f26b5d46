//! DPoP nonces (RFC 9449 section 8): made from the time and a key of this process, so that none has to be stored.
//!
//! The nonce is what says when a proof was made. A device's own clock may be years off after a power cut; it does not matter.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::secret::{Bytes32, MacKey, b64u, from_b64u, is_equal};

/// A nonce is good for this long. Short, because who has a device in his hands for five minutes could sign proofs ahead.
pub const NONCE_LIFETIME: Duration = Duration::from_secs(120);

/// Makes and checks nonces.
#[derive(Debug)]
pub struct Nonces {
    key: MacKey,
}

impl Nonces {
    /// With a key that no other process has.
    pub fn new(key: &Bytes32) -> Self {
        Self { key: MacKey::new(key) }
    }

    /// A nonce for one key, from now on.
    pub fn issue(&self, jkt: &Bytes32, now: Timestamp) -> String {
        let mut bytes = [0; 24];
        let made_at = now.millis().to_be_bytes();
        bytes[..8].copy_from_slice(&made_at);
        bytes[8..].copy_from_slice(&self.key.tag(&[jkt, &made_at])[..16]);
        b64u(&bytes)
    }

    /// Is this a nonce of this process, for this key, and young enough?
    pub fn is_good(&self, nonce: &str, jkt: &Bytes32, now: Timestamp) -> bool {
        let Some(bytes) = from_b64u(nonce).filter(|bytes| bytes.len() == 24) else { return false };
        let (made_at, tag) = bytes.split_at(8);
        let is_ours = is_equal(&self.key.tag(&[jkt, made_at])[..16], tag);
        let made_at = Timestamp::from_millis(made_at.try_into().map_or(0, i64::from_be_bytes));
        is_ours && made_at <= now && now.since(made_at) < NONCE_LIFETIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_are_for_one_key_one_process_and_two_minutes_a_024_a_025() {
        let (nonces, start) = (Nonces::new(&[1; 32]), Timestamp::from_millis(1_000_000));
        let nonce = nonces.issue(&[7; 32], start);
        let at = |seconds: u64| start.plus(Duration::from_secs(seconds));
        assert!(nonces.is_good(&nonce, &[7; 32], start));
        assert!(nonces.is_good(&nonce, &[7; 32], at(119)));
        assert!(!nonces.is_good(&nonce, &[7; 32], at(120)), "too old");
        assert!(!nonces.is_good(&nonce, &[7; 32], Timestamp::from_millis(999_999)), "from the future");
        assert!(!nonces.is_good(&nonce, &[8; 32], start), "of another device");
        assert!(!Nonces::new(&[2; 32]).is_good(&nonce, &[7; 32], start), "of a former process");
        for broken in ["", "AAAA", "not base64!", &nonce[1..], &format!("{nonce}A"), &nonce.replace(&nonce[31..], "A")]
        {
            assert!(broken == nonce || !nonces.is_good(broken, &[7; 32], start), "{broken}");
        }
    }
}
