//! A token of a program that calls the administration API: a name, rights per site, and an end. What it may never do stands in the broker.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::model::operator::Rights;
use crate::secret::{Bytes32, b64u, bytes32_from_b64u, sha256};

/// What every token begins with, so that people and scanners of source code know what they have found.
pub const PREFIX: &str = "pgt_";
/// How long a token lives if nobody says.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(90 * 86_400);
/// How long it may live.
pub const MAX_LIFETIME: Duration = Duration::from_secs(365 * 86_400);

/// A token as stored: without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// Row.
    pub id: i64,
    /// Unique name, as in the audit log: `machine:inventory`. Never given again.
    pub name: String,
    /// What it may do where.
    pub rights: Rights,
    /// Who made it.
    pub made_by: String,
    /// When.
    pub made_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// When it was last used, to the minute.
    pub used_at: Option<Timestamp>,
    /// When somebody ended it.
    pub revoked_at: Option<Timestamp>,
}

impl ApiToken {
    /// Is it good at `now`?
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }

    /// `live`, `expired` or `revoked`.
    pub fn state(&self, now: Timestamp) -> &'static str {
        match (self.revoked_at, self.is_live(now)) {
            (Some(_), _) => "revoked",
            (None, true) => "live",
            (None, false) => "expired",
        }
    }
}

/// The text of a token, from its 32 random bytes.
pub fn text(secret: &Bytes32) -> String {
    format!("{PREFIX}{}", b64u(secret))
}

/// The hash by which a token is found; `None` if the text is none.
pub fn hash(text: &str) -> Option<Bytes32> {
    let secret = bytes32_from_b64u(text.strip_prefix(PREFIX)?)?;
    Some(sha256(&[&secret]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::operator::Role;

    #[test]
    fn a_tokens_text_is_found_again_and_nothing_else_is() {
        let secret = [7; 32];
        assert_eq!(hash(&text(&secret)), Some(sha256(&[&secret])));
        for bad in
            ["", "pgt_", "pgt_AAAA", &text(&secret)[4..], &text(&secret).to_uppercase(), &format!("{}A", text(&secret))]
        {
            assert_eq!(hash(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_token_lives_until_it_expires_or_is_revoked() {
        let token = ApiToken {
            id: 1,
            name: "inventory".into(),
            rights: Rights::everywhere(Role::Viewer),
            made_by: "operator:dana".into(),
            made_at: Timestamp::from_millis(0),
            expires_at: Timestamp::from_millis(100),
            used_at: None,
            revoked_at: None,
        };
        let states = |token: &ApiToken| [99, 100].map(|now| token.state(Timestamp::from_millis(now)));
        assert_eq!(states(&token), ["live", "expired"]);
        assert_eq!(states(&ApiToken { revoked_at: Some(Timestamp::from_millis(5)), ..token }), ["revoked", "revoked"]);
    }
}
