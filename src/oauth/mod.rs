//! The words of the wire: bodies, errors, metadata and JOSE, as the RFCs spell them. No I/O, no clock, no database.

pub mod certificate;
pub mod error;
pub mod form;
pub mod jose;
pub mod jwk;
pub mod metadata;
pub mod roots;
pub mod scope;
pub mod signing_key;

use serde::{Deserialize, Serialize};

/// Grant type of RFC 8628 section 3.4.
pub const DEVICE_CODE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Grant type of RFC 6749 section 6.
pub const REFRESH_TOKEN_GRANT: &str = "refresh_token";

/// Device Authorization Response (RFC 8628 section 3.2).
#[derive(Debug, Serialize)]
pub struct DeviceAuthorizationResponse {
    /// Row and 256-bit secret, base64url; for the device alone, never shown.
    pub device_code: String,
    /// What the device shows, `PRN-WDJB-MJHTX`.
    pub user_code: String,
    /// Page to type the code into.
    pub verification_uri: String,
    /// The same with the code, for the QR.
    pub verification_uri_complete: String,
    /// Seconds the codes live.
    pub expires_in: i64,
    /// Seconds between polls.
    pub interval: i64,
}

/// Access Token Response (RFC 6749 section 5.1, `token_type` of RFC 9449 section 5).
#[derive(Debug, Serialize)]
pub struct TokenResponse {
    /// `at+jwt` (RFC 9068) with `cnf`.
    pub access_token: String,
    /// `DPoP` for a token that is bound to a key (RFC 9449 section 5), `Bearer` for one that is bound to a certificate (RFC 8705 section 3).
    pub token_type: &'static str,
    /// Seconds the access token lives.
    pub expires_in: i64,
    /// Granted scope.
    pub scope: String,
    /// Only if the kind gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// Seconds until the refresh token dies if it is not used (draft-ietf-oauth-refresh-token-expiration).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token_timeout: Option<i64>,
    /// Seconds until the sign-in ends in any case, and a person is needed again (the same draft).
    pub authorization_expires_in: i64,
    /// Who approved, by name, for the device to show before it starts; several by a comma. Only at the first answer, not at a refresh. An extension of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// Extension: somebody looks for the device, it shall show itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub identify: bool,
}

/// Introspection response (RFC 7662 section 2.2). Of a token that is not active nothing is said but that.
#[derive(Debug, Default, Serialize)]
pub struct IntrospectionResponse {
    /// Is it good now, for the resource that asks?
    pub active: bool,
    /// The token's own claims, and its type.
    #[serde(flatten)]
    pub claims: Option<ActiveToken>,
}

/// What is said of an active token: the claims of RFC 9068, with `cnf` so that the resource can check the binding (RFC 9449 section 6.2).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ActiveToken {
    /// Issuer.
    pub iss: String,
    /// `device:<device id>`. Not the bare id: a device must never pass for a person of that name.
    pub sub: String,
    /// The one resource.
    pub aud: String,
    /// Device id.
    pub client_id: String,
    /// Granted scope.
    pub scope: String,
    /// Seconds since 1970.
    pub iat: i64,
    /// Seconds since 1970.
    pub exp: i64,
    /// Of this token.
    pub jti: String,
    /// Of the sign-in.
    pub sid: String,
    /// What the token is bound to.
    pub cnf: ConfirmationClaim,
    /// How sure it is that the key can't be copied.
    pub key_assurance: String,
    /// `DPoP` or `Bearer`; not a claim of the token, but of the answer about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_type: Option<String>,
}

/// `cnf` (RFC 7800): exactly one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfirmationClaim {
    /// RFC 9449 section 6.1.
    #[serde(rename = "jkt")]
    Key(String),
    /// RFC 8705 section 3.1.
    #[serde(rename = "x5t#S256")]
    Certificate(String),
}

impl ConfirmationClaim {
    /// How a token that is bound to this is to be shown.
    pub const fn token_type(&self) -> &'static str {
        match self {
            Self::Key(_) => "DPoP",
            Self::Certificate(_) => "Bearer",
        }
    }
}
