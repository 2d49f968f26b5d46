//! A grant: one device code sign-in, from the code to the last refresh.

use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::{GrantId, OperatorId};
use crate::oauth::scope::Scope;
use crate::secret::{Bytes32, b64u, from_b64u};

/// Seconds between polls to begin with (RFC 8628 section 3.2).
pub const INTERVAL: i64 = 5;
/// What each `slow_down` adds, for this and all later polls (RFC 8628 section 3.5).
pub const SLOW_DOWN_STEP: i64 = 5;
/// The interval grows no further: slow, never locked out for ever.
pub const MAX_INTERVAL: i64 = 60;
/// So many sign-ins may one person have open at once; a flood of them is decided one by one.
pub const MAX_OPEN_CLAIMS: i64 = 5;
/// Who registered or paired a device may not alone approve its first sign-in for so long after pairing.
pub const TWO_PERSONS: Duration = Duration::from_secs(24 * 3600);
/// An approval is undone in one step for so long.
pub const UNDO: Duration = Duration::from_secs(24 * 3600);
/// Wrong confirmation numbers before a grant is denied.
pub const MAX_WRONG_NUMBERS: u8 = 3;
/// A retried refresh by the same key within this time gets the same token again (lost answer).
pub const REFRESH_RETRY: Duration = Duration::from_secs(10);

/// pending → approved → redeemed, or denied, or revoked. *Expired* is a matter of time and not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantState {
    /// The code is out; nobody has decided.
    Pending,
    /// Approved; the device has not fetched its tokens.
    Approved,
    /// Tokens are out. The refresh token, if any, lives in this row.
    Redeemed,
    /// Denied by an approver, or by three wrong numbers.
    Denied,
    /// Ended by a suspension, a new key, a new request, or the reuse of a refresh token.
    Revoked,
}

impl GrantState {
    /// All states, for tables.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Approved, Self::Redeemed, Self::Denied, Self::Revoked];

    /// The word, as in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Redeemed => "redeemed",
            Self::Denied => "denied",
            Self::Revoked => "revoked",
        }
    }

    /// From the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// The legal transitions. The first terminal state wins, and nothing leads back.
    pub const fn may_become(self, next: Self) -> bool {
        use GrantState::{Approved, Denied, Pending, Redeemed, Revoked};
        matches!(
            (self, next),
            (Pending, Approved | Denied | Revoked) | (Approved, Redeemed | Denied | Revoked) | (Redeemed, Revoked)
        )
    }
}

/// A grant as stored.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Row; carried in the device code.
    pub id: GrantId,
    /// The device's row.
    pub device_row: i64,
    /// State; a pending or approved one is dead after `expires_at` all the same.
    pub state: GrantState,
    /// The key that asked, and the only one that may poll.
    pub jkt: Bytes32,
    /// SHA-256 of the device code's secret.
    pub device_code_hash: Bytes32,
    /// Keyed hash of the user code.
    pub user_code_hash: Bytes32,
    /// What was asked for.
    pub scope: Scope,
    /// For which resource: the audience.
    pub resource: String,
    /// When.
    pub created_at: Timestamp,
    /// When the codes die.
    pub expires_at: Timestamp,
    /// Seconds between polls now; only grows.
    pub interval: i64,
    /// From where the device asked.
    pub peer: Option<IpAddr>,
    /// Who opened the page, and so alone may decide.
    pub claim: Option<Claim>,
    /// Wrong numbers so far.
    pub wrong_numbers: u8,
    /// Who approved first, where a second person must.
    pub first: Option<Approved>,
    /// Who decided.
    pub decided_by: Option<OperatorId>,
    /// When.
    pub decided_at: Option<Timestamp>,
    /// The refresh side, once redeemed.
    pub refresh: Option<Refresh>,
}

/// An approver's claim: from now on the device shows `confirmation_number` (M-01).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub by: OperatorId,
    /// When.
    pub at: Timestamp,
    /// Two digits, if the kind wants them.
    pub confirmation_number: Option<String>,
}

/// An approval that is not enough by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    /// Who.
    pub by: OperatorId,
    /// When.
    pub at: Timestamp,
}

/// Why one person's approval is not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhySecond {
    /// The person registered or paired the device, and this is its first sign-in.
    PairedIt,
    /// The person never approved this device, and others have.
    NewToIt,
}

impl WhySecond {
    /// For the record.
    pub const fn words(self) -> &'static str {
        match self {
            Self::PairedIt => "who registered or paired it may not alone",
            Self::NewToIt => "who never approved it before may not alone",
        }
    }
}

/// The refresh token of a redeemed grant: hashes of the present one and of the one before it, so that reuse is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// SHA-256 of the present token's secret.
    pub hash: Bytes32,
    /// SHA-256 of the one before.
    pub previous_hash: Option<Bytes32>,
    /// When it was last rotated.
    pub rotated_at: Timestamp,
    /// Unused until then, it dies.
    pub idle_until: Timestamp,
    /// The whole sign-in ends then.
    pub ends_at: Timestamp,
}

/// A device code or refresh token: the grant's row, for finding it, and 256 secret bits, for proving it.
pub fn reference(id: GrantId, secret: &Bytes32) -> String {
    let mut bytes = [0; 40];
    bytes[..8].copy_from_slice(&id.0.to_be_bytes());
    bytes[8..].copy_from_slice(secret);
    b64u(&bytes)
}

/// Reads one back; `None` if it can't be one.
pub fn parse_reference(text: &str) -> Option<(GrantId, Bytes32)> {
    let bytes = from_b64u(text).filter(|bytes| bytes.len() == 40)?;
    let (id, secret) = bytes.split_at(8);
    Some((GrantId(i64::from_be_bytes(id.try_into().ok()?)), secret.try_into().ok()?))
}

/// What a poll with the right key sees. One match decides; a store error is never among it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has decided.
    Pending {
        /// To be shown by the device.
        confirmation_number: Option<String>,
    },
    /// May be redeemed.
    Approved,
    /// Denied.
    Denied,
    /// Too late.
    Expired,
    /// Spent or revoked: as good as unknown.
    Gone,
}

impl Grant {
    /// Where the grant stands at `now`. A code is dead from `expires_at` on, also if it was approved before.
    pub fn standing(&self, now: Timestamp) -> Standing {
        match self.state {
            GrantState::Denied => Standing::Denied,
            GrantState::Redeemed | GrantState::Revoked => Standing::Gone,
            GrantState::Pending | GrantState::Approved if now >= self.expires_at => Standing::Expired,
            GrantState::Approved => Standing::Approved,
            GrantState::Pending => Standing::Pending {
                confirmation_number: self.claim.as_ref().and_then(|claim| claim.confirmation_number.clone()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(state: GrantState) -> Grant {
        Grant {
            id: GrantId(1),
            device_row: 1,
            state,
            jkt: [0; 32],
            device_code_hash: [0; 32],
            user_code_hash: [0; 32],
            scope: Scope::default(),
            resource: String::new(),
            created_at: Timestamp::from_millis(0),
            expires_at: Timestamp::from_millis(300_000),
            interval: INTERVAL,
            peer: None,
            claim: None,
            wrong_numbers: 0,
            first: None,
            decided_by: None,
            decided_at: None,
            refresh: None,
        }
    }

    #[test]
    fn grant_transitions_are_these_and_no_others() {
        use GrantState::{Approved, Denied, Pending, Redeemed, Revoked};
        let legal = [
            (Pending, Approved),
            (Pending, Denied),
            (Pending, Revoked),
            (Approved, Redeemed),
            (Approved, Denied),
            (Approved, Revoked),
            (Redeemed, Revoked),
        ];
        for from in GrantState::ALL {
            assert_eq!(GrantState::parse(from.as_str()), Some(from));
            for to in GrantState::ALL {
                assert_eq!(from.may_become(to), legal.contains(&(from, to)), "{from:?} → {to:?}");
            }
        }
    }

    #[test]
    fn expiry_holds_to_the_millisecond_and_for_approved_codes_too_a_038() {
        let pending = Standing::Pending { confirmation_number: None };
        for (state, at, expected) in [
            (GrantState::Pending, 299_999, pending),
            (GrantState::Pending, 300_000, Standing::Expired),
            (GrantState::Pending, 300_001, Standing::Expired),
            (GrantState::Approved, 299_999, Standing::Approved),
            (GrantState::Approved, 300_000, Standing::Expired),
            (GrantState::Denied, 300_000, Standing::Denied),
            (GrantState::Redeemed, 1, Standing::Gone),
            (GrantState::Revoked, 1, Standing::Gone),
        ] {
            assert_eq!(grant(state).standing(Timestamp::from_millis(at)), expected, "{state:?} at {at}");
        }
    }

    #[test]
    fn references_read_back_and_nothing_else_does() {
        let text = reference(GrantId(4711), &[7; 32]);
        assert_eq!(parse_reference(&text), Some((GrantId(4711), [7; 32])));
        for broken in ["", "AAAA", &text[1..], &format!("{text}A"), &format!("{text}="), "x y"] {
            assert_eq!(parse_reference(broken), None, "{broken}");
        }
    }
}
