//! Authorization Server Metadata (RFC 8414): what this broker says of itself. Nothing stands here that an endpoint does not do.

use serde::Serialize;
use url::Url;

use crate::oauth::jwk::Algorithm;
use crate::oauth::{DEVICE_CODE_GRANT, REFRESH_TOKEN_GRANT};

/// The endpoints at which a client authenticates.
#[derive(Clone, Debug, Serialize)]
pub struct ClientEndpoints {
    /// RFC 8628 section 3.1.
    #[serde(rename = "device_authorization_endpoint")]
    pub device_authorization: String,
    /// RFC 6749 section 3.2.
    #[serde(rename = "token_endpoint")]
    pub token: String,
    /// RFC 7009.
    #[serde(rename = "revocation_endpoint")]
    pub revocation: String,
    /// RFC 7662.
    #[serde(rename = "introspection_endpoint")]
    pub introspection: String,
}

impl ClientEndpoints {
    fn below(base: &str) -> Self {
        Self {
            device_authorization: format!("{base}/device_authorization"),
            token: format!("{base}/token"),
            revocation: format!("{base}/revoke"),
            introspection: format!("{base}/introspect"),
        }
    }
}

/// The addresses of everything, all derived from the configured issuer and from nothing else.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// The issuer without a trailing slash.
    pub issuer: String,
    /// For clients.
    pub client: ClientEndpoints,
    /// The same where client certificates are asked for (RFC 8705 section 5); browsers never come there.
    pub mtls: Option<ClientEndpoints>,
    /// Page to type a code into (RFC 8628 section 3.2).
    pub verification: String,
    /// Page of pairings.
    pub pairing: String,
}

impl Endpoints {
    /// All addresses below the issuer, and below the address for client certificates.
    pub fn new(issuer: &Url, mtls: Option<&Url>) -> Self {
        let base = |url: &Url| url.as_str().trim_end_matches('/').to_owned();
        let issuer = base(issuer);
        Self {
            client: ClientEndpoints::below(&issuer),
            mtls: mtls.map(|url| ClientEndpoints::below(&base(url))),
            verification: format!("{issuer}/approve"),
            pairing: format!("{issuer}/pair"),
            issuer,
        }
    }

    /// The client endpoints of the side that a request came in by.
    pub fn client(&self, is_mtls: bool) -> &ClientEndpoints {
        self.mtls.as_ref().filter(|_| is_mtls).unwrap_or(&self.client)
    }
}

/// Name of our profile: the proof by the pinned key is the client authentication (`docs/decisions/0002`).
pub const DPOP_AUTHENTICATION: &str = "dpop";

/// The document (RFC 8414 section 2). `response_types_supported` is required and empty would be omitted (section 3.2), so it lists `none`:
/// there is no authorization endpoint for clients.
#[derive(Debug, Serialize)]
pub struct Metadata<'a> {
    issuer: &'a str,
    #[serde(flatten)]
    endpoints: &'a ClientEndpoints,
    jwks_uri: String,
    response_types_supported: [&'static str; 1],
    grant_types_supported: [&'static str; 2],
    token_endpoint_auth_methods_supported: Vec<&'static str>,
    token_endpoint_auth_signing_alg_values_supported: [&'static str; 4],
    revocation_endpoint_auth_methods_supported: Vec<&'static str>,
    revocation_endpoint_auth_signing_alg_values_supported: [&'static str; 4],
    introspection_endpoint_auth_methods_supported: Vec<&'static str>,
    introspection_endpoint_auth_signing_alg_values_supported: [&'static str; 4],
    dpop_signing_alg_values_supported: [&'static str; 4],
    tls_client_certificate_bound_access_tokens: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtls_endpoint_aliases: Option<&'a ClientEndpoints>,
    /// RFC 9207 section 3. No authorization response leaves here without `iss`, since none leaves here.
    authorization_response_iss_parameter_supported: bool,
    scopes_supported: Vec<String>,
    pairing_endpoint: String,
    service_documentation: String,
}

impl<'a> Metadata<'a> {
    /// The document of a broker at these addresses with these scopes; with authorities for client certificates, or without.
    pub fn new(endpoints: &'a Endpoints, scopes_supported: Vec<String>, has_authorities: bool) -> Self {
        let by_certificate: &[&'static str] = match (&endpoints.mtls, has_authorities) {
            (None, _) => &[],
            (Some(_), false) => &["self_signed_tls_client_auth"],
            (Some(_), true) => &["tls_client_auth", "self_signed_tls_client_auth"],
        };
        let resource: Vec<&'static str> = [&["private_key_jwt"], by_certificate].concat();
        let device: Vec<&'static str> = [&[DPOP_AUTHENTICATION], resource.as_slice()].concat();
        Self {
            issuer: &endpoints.issuer,
            endpoints: &endpoints.client,
            jwks_uri: format!("{}/jwks", endpoints.issuer),
            response_types_supported: ["none"],
            grant_types_supported: [DEVICE_CODE_GRANT, REFRESH_TOKEN_GRANT],
            token_endpoint_auth_methods_supported: device.clone(),
            token_endpoint_auth_signing_alg_values_supported: Algorithm::NAMES,
            revocation_endpoint_auth_methods_supported: device,
            revocation_endpoint_auth_signing_alg_values_supported: Algorithm::NAMES,
            introspection_endpoint_auth_methods_supported: resource,
            introspection_endpoint_auth_signing_alg_values_supported: Algorithm::NAMES,
            dpop_signing_alg_values_supported: Algorithm::NAMES,
            tls_client_certificate_bound_access_tokens: endpoints.mtls.is_some(),
            mtls_endpoint_aliases: endpoints.mtls.as_ref(),
            authorization_response_iss_parameter_supported: true,
            scopes_supported,
            pairing_endpoint: format!("{}/pairing", endpoints.issuer),
            service_documentation: format!("{}/openapi.json", endpoints.issuer),
        }
    }
}
