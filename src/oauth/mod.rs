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

use serde::Serialize;

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
    /// `at+jwt` (RFC 9068) with `cnf.jkt`.
    pub access_token: String,
    /// Always `DPoP`.
    pub token_type: &'static str,
    /// Seconds the access token lives.
    pub expires_in: i64,
    /// Granted scope.
    pub scope: String,
    /// Only if the kind gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
}
