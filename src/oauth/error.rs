//! The error table: every answer that is not a success at the client endpoints (RFC 6749 section 5.2, RFC 8628
//! section 3.5, RFC 9449 section 5; RFC 7009 and RFC 7662 use the same).
//!
//! A device stops for good on an `error` that it does not know. So an outage has none (status 503, [`OAuthError::Unavailable`]), and being too fast is
//! `slow_down`, never a bare 429 on a poll.

use std::borrow::Cow;

use serde::Serialize;

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OAuthError {
    /// The request is malformed; says how.
    InvalidRequest(Cow<'static, str>),
    /// No, or wrong, client authentication: one answer for unknown id, wrong key and missing proof.
    InvalidClient,
    /// The assertion fails a check that needs no registry; says which. The same code and status as `InvalidClient`.
    InvalidAssertion(&'static str),
    /// Authenticated, but may not ask now: not confirmed yet, suspended, retired.
    UnauthorizedClient,
    /// Scope outside the kind's list.
    InvalidScope,
    /// Resource unknown or not allowed (RFC 8707 section 2).
    InvalidTarget,
    /// Code or refresh token unknown, spent, revoked, or another device's: one answer for all.
    InvalidGrant,
    /// Grant type that is not served here.
    UnsupportedGrantType,
    /// Nobody has decided yet; with the number to show, once an approver has opened the page.
    AuthorizationPending {
        /// Two digits.
        confirmation_number: Option<String>,
        /// Somebody looks for the device: it shall show itself.
        identify: bool,
    },
    /// Too fast; the interval is now 5 s longer, for good.
    SlowDown,
    /// Denied by the approver or by policy.
    AccessDenied,
    /// The code ran out.
    ExpiredToken,
    /// A fresh proof with the nonce of this answer is wanted (RFC 9449 section 8).
    UseDpopNonce,
    /// The proof fails a check; says which.
    InvalidDpopProof(&'static str),
    /// Too many codes asked for.
    TooManyRequests {
        /// Seconds.
        retry_after: i64,
    },
    /// An outage, or overload. Not the device's fault, and not for ever.
    Unavailable,
}

/// JSON body of an error.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct ErrorBody {
    /// The code, if this is an OAuth error at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    /// For people who write firmware: what to do.
    pub error_description: Cow<'static, str>,
    /// Extension member of `authorization_pending`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmation_number: Option<String>,
    /// Extension member of `authorization_pending`: show yourself, somebody looks for you.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub identify: bool,
}

impl OAuthError {
    /// HTTP status. `authorization_pending` is 400, whatever looks nicer: clients branch on it (RFC 8628 section 3.5 by RFC 6749 section 5.2).
    pub const fn status(&self) -> u16 {
        match self {
            Self::InvalidClient | Self::InvalidAssertion(_) => 401,
            Self::TooManyRequests { .. } => 429,
            Self::Unavailable => 503,
            _ => 400,
        }
    }

    /// The registered error code; none for what is no OAuth error.
    pub const fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidClient | Self::InvalidAssertion(_) => "invalid_client",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidGrant => "invalid_grant",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::AuthorizationPending { .. } => "authorization_pending",
            Self::SlowDown => "slow_down",
            Self::AccessDenied => "access_denied",
            Self::ExpiredToken => "expired_token",
            Self::UseDpopNonce => "use_dpop_nonce",
            Self::InvalidDpopProof(_) => "invalid_dpop_proof",
            Self::TooManyRequests { .. } | Self::Unavailable => return None,
        })
    }

    /// Seconds for the `Retry-After` header, where there is one.
    pub const fn retry_after(&self) -> Option<i64> {
        match self {
            Self::TooManyRequests { retry_after } => Some(*retry_after),
            Self::Unavailable => Some(5),
            _ => None,
        }
    }

    /// The body.
    pub fn body(&self) -> ErrorBody {
        let (confirmation_number, identify) = match self {
            Self::AuthorizationPending { confirmation_number, identify } => (confirmation_number.clone(), *identify),
            _ => (None, false),
        };
        ErrorBody { error: self.code(), error_description: self.description(), confirmation_number, identify }
    }

    fn description(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::InvalidRequest(what) => return what.clone(),
            Self::InvalidDpopProof(what) | Self::InvalidAssertion(what) => what,
            Self::InvalidClient => "This device is not enrolled with this key. Pair it first.",
            Self::UnauthorizedClient => "This device may not sign in now. Ask an administrator.",
            Self::InvalidScope => "This scope is not allowed for devices of this kind.",
            Self::InvalidTarget => {
                "This resource is unknown, not allowed for devices of this kind, or there is more than one."
            }
            Self::InvalidGrant => "This code or token is not valid. Start again.",
            Self::UnsupportedGrantType => "Only the device code and the refresh token grants are served.",
            Self::AuthorizationPending { .. } => "Nobody has decided yet. Poll again after the interval.",
            Self::SlowDown => "Too fast. The interval is now 5 seconds longer, for this and all later polls.",
            Self::AccessDenied => "The request was denied.",
            Self::ExpiredToken => "The code has expired. Start again.",
            Self::UseDpopNonce => "Send a new proof with the nonce of this answer's DPoP-Nonce header.",
            Self::TooManyRequests { .. } => "Too many codes were asked for. Wait, then try again.",
            Self::Unavailable => "Temporarily unavailable. Wait, then try again.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_table_is_the_documented_one() {
        let rows = [
            (OAuthError::InvalidRequest("x".into()), 400, Some("invalid_request")),
            (OAuthError::InvalidClient, 401, Some("invalid_client")),
            (OAuthError::InvalidAssertion("x"), 401, Some("invalid_client")),
            (OAuthError::UnauthorizedClient, 400, Some("unauthorized_client")),
            (OAuthError::InvalidScope, 400, Some("invalid_scope")),
            (OAuthError::InvalidTarget, 400, Some("invalid_target")),
            (OAuthError::InvalidGrant, 400, Some("invalid_grant")),
            (OAuthError::UnsupportedGrantType, 400, Some("unsupported_grant_type")),
            (
                OAuthError::AuthorizationPending { confirmation_number: None, identify: false },
                400,
                Some("authorization_pending"),
            ),
            (OAuthError::SlowDown, 400, Some("slow_down")),
            (OAuthError::AccessDenied, 400, Some("access_denied")),
            (OAuthError::ExpiredToken, 400, Some("expired_token")),
            (OAuthError::UseDpopNonce, 400, Some("use_dpop_nonce")),
            (OAuthError::InvalidDpopProof("x"), 400, Some("invalid_dpop_proof")),
            (OAuthError::TooManyRequests { retry_after: 9 }, 429, None),
            (OAuthError::Unavailable, 503, None),
        ];
        for (error, status, code) in rows {
            assert_eq!((error.status(), error.code()), (status, code), "{error:?}");
            assert_eq!(error.retry_after().is_some(), code.is_none(), "{error:?}: Retry-After goes with no error code");
            assert!(!error.body().error_description.is_empty());
        }
    }

    #[test]
    fn an_outage_has_no_error_member() {
        let body = serde_json::to_value(OAuthError::Unavailable.body()).unwrap();
        assert!(body.get("error").is_none());
    }
}
