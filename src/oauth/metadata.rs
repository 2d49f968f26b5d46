//! Authorization Server Metadata (RFC 8414): what this broker says of itself. Nothing stands here that an endpoint does not do.

use serde::Serialize;
use url::Url;

use crate::oauth::{DEVICE_CODE_GRANT, REFRESH_TOKEN_GRANT};

/// The addresses of the device endpoints, all derived from the configured issuer and from nothing else.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// The issuer without a trailing slash.
    pub issuer: String,
    /// RFC 8628 section 3.1.
    pub device_authorization: String,
    /// RFC 6749 section 3.2.
    pub token: String,
    /// Page to type a code into (RFC 8628 section 3.2).
    pub verification: String,
    /// Page of pairings.
    pub pairing: String,
}

impl Endpoints {
    /// All addresses below the issuer.
    pub fn new(issuer: &Url) -> Self {
        let issuer = issuer.as_str().trim_end_matches('/').to_owned();
        Self {
            device_authorization: format!("{issuer}/device_authorization"),
            token: format!("{issuer}/token"),
            verification: format!("{issuer}/approve"),
            pairing: format!("{issuer}/pair"),
            issuer,
        }
    }
}

/// The document (RFC 8414 section 2). `response_types_supported` is required and empty would be omitted (section 3.2), so it lists `none`:
/// there is no authorization endpoint for clients.
#[derive(Debug, Serialize)]
pub struct Metadata<'a> {
    issuer: &'a str,
    token_endpoint: &'a str,
    device_authorization_endpoint: &'a str,
    jwks_uri: String,
    response_types_supported: [&'static str; 1],
    grant_types_supported: [&'static str; 2],
    token_endpoint_auth_methods_supported: [&'static str; 1],
    dpop_signing_alg_values_supported: [&'static str; 3],
    scopes_supported: Vec<&'a str>,
    pairing_endpoint: String,
    service_documentation: &'static str,
}

impl<'a> Metadata<'a> {
    /// The document of a broker at these addresses with these scopes.
    pub fn new(endpoints: &'a Endpoints, scopes_supported: Vec<&'a str>) -> Self {
        Self {
            issuer: &endpoints.issuer,
            token_endpoint: &endpoints.token,
            device_authorization_endpoint: &endpoints.device_authorization,
            jwks_uri: format!("{}/jwks", endpoints.issuer),
            response_types_supported: ["none"],
            grant_types_supported: [DEVICE_CODE_GRANT, REFRESH_TOKEN_GRANT],
            // Our profile: the proof by the pinned key is the client authentication (docs/decisions/0002).
            token_endpoint_auth_methods_supported: ["dpop"],
            dpop_signing_alg_values_supported: ["ES256", "EdDSA", "Ed25519"],
            scopes_supported,
            pairing_endpoint: format!("{}/pairing", endpoints.issuer),
            service_documentation: "https://www.rfc-editor.org/rfc/rfc8628",
        }
    }
}
