//! The few requests that a resource server makes to its broker. [`Fetch`] is what tests replace; [`HttpClient`] is the real one.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use url::{Host, Url};

/// No honest answer of a broker is longer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why nothing came. For the log of the resource server; devices are told only to come back later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);

/// Requests to the broker. An answer that is not 200, is longer than 64 KiB, takes over 5 seconds, or redirects, is an error.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// The body of a GET.
    async fn get(&self, url: &Url) -> Result<Vec<u8>, FetchError>;
    /// The body of the answer to a form.
    async fn post_form(&self, url: &Url, fields: &[(&str, &str)]) -> Result<Vec<u8>, FetchError>;
}

/// HTTPS, and plain HTTP on loopback.
#[derive(Clone, Debug)]
pub struct HttpClient(reqwest::Client);

impl HttpClient {
    /// Trusts what this machine trusts.
    ///
    /// # Errors
    /// If the client can't be set up.
    pub fn new() -> Result<Self, FetchError> {
        Self::build(|builder| builder)
    }

    /// Trusts only these certificates (PEM): for a broker with its own authority.
    ///
    /// # Errors
    /// If there is no certificate in it.
    pub fn trusting(pem: &[u8]) -> Result<Self, FetchError> {
        let roots = reqwest::Certificate::from_pem_bundle(pem).ok().filter(|roots| !roots.is_empty());
        let roots = roots.ok_or_else(|| FetchError("there is no PEM certificate to trust".into()))?;
        Self::build(|builder| builder.tls_certs_only(roots))
    }

    fn build(change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder) -> Result<Self, FetchError> {
        // Err only says that a provider is there already.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        // Redirects and proxies could take the question elsewhere.
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .user_agent("pairgate-resource");
        change(builder).build().map(Self).map_err(|error| FetchError(error.to_string()))
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, FetchError> {
        let failed = |error: reqwest::Error| FetchError(format!("{error:#}"));
        let request = request.build().map_err(failed)?;
        if !is_protected(request.url()) {
            return Err(FetchError(format!("{} is neither https nor on loopback", request.url())));
        }
        let mut response = self.0.execute(request).await.map_err(failed)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FetchError(format!("{} answered {}", response.url(), response.status())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(FetchError(format!("the answer of {} is too long", response.url())));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

#[async_trait]
impl Fetch for HttpClient {
    async fn get(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        self.answer(self.0.get(url.clone())).await
    }

    async fn post_form(&self, url: &Url, fields: &[(&str, &str)]) -> Result<Vec<u8>, FetchError> {
        self.answer(self.0.post(url.clone()).form(fields)).await
    }
}

/// Can nobody on the way read or change it?
pub(super) fn is_protected(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback)
}

/// What matters of the broker's metadata (RFC 8414 section 2).
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Metadata {
    issuer: String,
    pub(super) jwks_uri: Option<Url>,
    pub(super) introspection_endpoint: Option<Url>,
}

/// Fetches the metadata of an issuer.
pub(super) async fn metadata(fetch: &dyn Fetch, issuer: &str) -> Result<Metadata, FetchError> {
    let mut url: Url = issuer.parse().map_err(|_| FetchError(format!("'{issuer}' is no address")))?;
    let path = format!("/.well-known/oauth-authorization-server{}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    let body = fetch.get(&url).await?;
    let metadata: Metadata = serde_json::from_slice(&body)
        .map_err(|error| FetchError(format!("the metadata at {url} can't be read: {error}")))?;
    // Without this, one broker could speak for another (RFC 8414 section 3.3, R-8414-05).
    if metadata.issuer != issuer {
        return Err(FetchError(format!("the metadata at {url} is of '{}', not of '{issuer}'", metadata.issuer)));
    }
    for address in [&metadata.jwks_uri, &metadata.introspection_endpoint].into_iter().flatten() {
        if !is_protected(address) {
            return Err(FetchError(format!("{address} is neither https nor on loopback")));
        }
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_are_asked() {
        for (url, expected) in [
            ("https://pairgate.example/jwks", true),
            ("http://127.0.0.1:8628/jwks", true),
            ("http://[::1]/jwks", true),
            ("http://localhost/jwks", true),
            ("http://pairgate.example/jwks", false),
            ("http://localhost.example/jwks", false),
            ("http://10.0.0.1/jwks", false),
            ("file:///etc/passwd", false),
            ("ftp://127.0.0.1/", false),
        ] {
            assert_eq!(is_protected(&url.parse().unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        assert!(HttpClient::trusting(b"").is_err());
        assert!(HttpClient::trusting(b"no certificate").is_err());
    }
}
