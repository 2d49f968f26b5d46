//! What a refused request is answered: RFC 6750 section 3, RFC 9449 section 7.1, RFC 9470 section 3. Words here go to the device's firmware, and
//! hold nothing secret.

use http::{HeaderValue, Response, StatusCode, header};

use crate::oauth::jwk::Algorithm;
use crate::resource::credentials::Scheme;
use crate::resource::device::KeyAssurance;

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no credentials, or none that could be accepted here.
    NoCredentials,
    /// It can be understood in two ways, or in none.
    InvalidRequest(&'static str),
    /// The token, or its use without what it is bound to.
    InvalidToken(&'static str),
    /// The proof has no nonce of ours that is fresh.
    UseDpopNonce,
    /// The proof fails a check.
    InvalidDpopProof(&'static str),
    /// The token has not all of this scope.
    InsufficientScope(String),
    /// The device's key is not well enough kept.
    InsufficientKeyAssurance(KeyAssurance),
    /// The approver signed in too long ago.
    InsufficientUserAuthentication {
        /// How long ago it may be, in seconds.
        max_age: u64,
    },
    /// It can't be told now.
    Unavailable,
}

impl Refusal {
    /// HTTP status.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::NoCredentials
            | Self::InvalidToken(_)
            | Self::UseDpopNonce
            | Self::InvalidDpopProof(_)
            | Self::InsufficientUserAuthentication { .. } => StatusCode::UNAUTHORIZED,
            Self::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            Self::InsufficientScope(_) | Self::InsufficientKeyAssurance(_) => StatusCode::FORBIDDEN,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The error code. A request without credentials gets none (RFC 6750 section 3.1).
    pub const fn code(&self) -> Option<&'static str> {
        match self {
            Self::NoCredentials | Self::Unavailable => None,
            Self::InvalidRequest(_) => Some("invalid_request"),
            Self::InvalidToken(_) => Some("invalid_token"),
            Self::UseDpopNonce => Some("use_dpop_nonce"),
            Self::InvalidDpopProof(_) => Some("invalid_dpop_proof"),
            // No RFC has a word for the second: it is the token that lacks something, and no other token of this device has it.
            Self::InsufficientScope(_) | Self::InsufficientKeyAssurance(_) => Some("insufficient_scope"),
            Self::InsufficientUserAuthentication { .. } => Some("insufficient_user_authentication"),
        }
    }

    /// What happened and what to do, in one line without quotation marks.
    pub fn words(&self) -> String {
        match self {
            Self::NoCredentials => {
                "Send an access token of the broker: Authorization: DPoP, with a DPoP proof by the key that it is bound to."
            }
            Self::InvalidRequest(what) | Self::InvalidToken(what) | Self::InvalidDpopProof(what) => what,
            Self::UseDpopNonce => "Send a new proof with the nonce of this answer's DPoP-Nonce header.",
            Self::InsufficientScope(_) => "The token lacks scope. Sign in again and ask for it.",
            Self::InsufficientKeyAssurance(needed) => {
                return format!("Only devices whose key is {} may do this.", needed.as_str());
            }
            Self::InsufficientUserAuthentication { .. } => {
                "The approver signed in too long ago. Sign in again, and let it be approved anew."
            }
            Self::Unavailable => "Tokens can't be checked now. Try again after the time in Retry-After.",
        }
        .to_owned()
    }

    /// The challenge, for a request that used `scheme`, if any.
    pub fn challenge(&self, scheme: Option<Scheme>) -> Option<String> {
        let algorithms = format!("algs=\"{}\"", Algorithm::NAMES.join(" "));
        let Some(code) = self.code() else {
            return (*self == Self::NoCredentials).then(|| format!("DPoP {algorithms}"));
        };
        let mut error = format!("error=\"{code}\"");
        // The client has only to act on this one; it is no fault to be read about.
        if *self != Self::UseDpopNonce {
            error.push_str(&format!(", error_description=\"{}\"", self.words()));
        }
        match self {
            Self::InsufficientScope(scope) => error.push_str(&format!(", scope=\"{scope}\"")),
            Self::InsufficientUserAuthentication { max_age } => error.push_str(&format!(", max_age=\"{max_age}\"")),
            _ => {}
        }
        Some(match scheme {
            Some(Scheme::Bearer) => format!("Bearer {error}, DPoP {algorithms}"),
            Some(Scheme::Dpop) | None => format!("DPoP {error}, {algorithms}"),
        })
    }

    /// The whole answer.
    pub fn into_response<B: From<String>>(self, scheme: Option<Scheme>) -> Response<B> {
        let mut response = Response::new(B::from(format!("{}\n", self.words())));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.challenge(scheme).and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self == Self::Unavailable {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_status_and_its_challenge() {
        const ALGS: &str = r#"algs="ES256 EdDSA Ed25519 RS256""#;
        let rows = [
            (Refusal::NoCredentials, None, 401, Some(format!("DPoP {ALGS}"))),
            (
                Refusal::InvalidRequest("Twice."),
                None,
                400,
                Some(format!(r#"DPoP error="invalid_request", error_description="Twice.", {ALGS}"#)),
            ),
            (
                Refusal::InvalidToken("Old."),
                Some(Scheme::Dpop),
                401,
                Some(format!(r#"DPoP error="invalid_token", error_description="Old.", {ALGS}"#)),
            ),
            (
                Refusal::InvalidToken("Old."),
                Some(Scheme::Bearer),
                401,
                Some(format!(r#"Bearer error="invalid_token", error_description="Old.", DPoP {ALGS}"#)),
            ),
            (Refusal::UseDpopNonce, Some(Scheme::Dpop), 401, Some(format!(r#"DPoP error="use_dpop_nonce", {ALGS}"#))),
            (
                Refusal::InvalidDpopProof("No."),
                Some(Scheme::Dpop),
                401,
                Some(format!(r#"DPoP error="invalid_dpop_proof", error_description="No.", {ALGS}"#)),
            ),
            (
                Refusal::InsufficientScope("a b".into()),
                Some(Scheme::Dpop),
                403,
                Some(format!(
                    r#"DPoP error="insufficient_scope", error_description="The token lacks scope. Sign in again and ask for it.", scope="a b", {ALGS}"#
                )),
            ),
            (
                Refusal::InsufficientKeyAssurance(KeyAssurance::Attested),
                Some(Scheme::Dpop),
                403,
                Some(format!(
                    r#"DPoP error="insufficient_scope", error_description="Only devices whose key is attested may do this.", {ALGS}"#
                )),
            ),
            // R-9470-01
            (
                Refusal::InsufficientUserAuthentication { max_age: 300 },
                Some(Scheme::Dpop),
                401,
                Some(format!(
                    r#"DPoP error="insufficient_user_authentication", error_description="The approver signed in too long ago. Sign in again, and let it be approved anew.", max_age="300", {ALGS}"#
                )),
            ),
            (Refusal::Unavailable, None, 503, None),
        ];
        for (refusal, scheme, status, challenge) in rows {
            let response = refusal.clone().into_response::<String>(scheme);
            let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!((response.status().as_u16(), header("www-authenticate")), (status, challenge), "{refusal:?}");
            assert_eq!(header("cache-control").as_deref(), Some("no-store"));
            assert_eq!(header("retry-after").is_some(), status == 503);
            assert!(!response.body().contains(['"', '\\', '{']), "quotable and no JSON: {}", response.body());
        }
    }
}
