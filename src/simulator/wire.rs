//! HTTP as a device does it: no redirects, no proxies, no cookies, time limits, the raw answer kept.
//!
//! A `Wire` may be shared by many devices; then it also limits how many requests are under way at once.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::error::SimulatorError;

/// The longest time that the broker may hold a poll, in seconds (`Prefer: wait`).
pub const LONGEST_WAIT_S: u32 = 25;

/// An HTTP client. Cloning shares its connections and its limit.
#[derive(Debug, Clone)]
pub struct Wire {
    client: reqwest::Client,
    gate: Option<Arc<Semaphore>>,
}

impl Wire {
    /// A client of its own.
    pub fn new() -> Result<Self, SimulatorError> {
        Self::build(|builder| builder)
    }

    /// A client that believes only this authority (PEM), as a device does that has pinned it; with a certificate of its own (PEM: certificate and key), if
    /// it has one.
    pub fn with_tls(ca_pem: &str, identity_pem: Option<&str>) -> Result<Self, SimulatorError> {
        const UNUSABLE: SimulatorError = SimulatorError::Crypto("the PEM text is not usable");
        let authority = reqwest::Certificate::from_pem(ca_pem.as_bytes()).map_err(|_| UNUSABLE)?;
        let identity = match identity_pem {
            Some(pem) => Some(reqwest::Identity::from_pem(pem.as_bytes()).map_err(|_| UNUSABLE)?),
            None => None,
        };
        Self::build(|builder| {
            let builder = builder.tls_certs_only([authority]);
            match identity {
                Some(identity) => builder.identity(identity),
                None => builder,
            }
        })
    }

    fn build(tls: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder) -> Result<Self, SimulatorError> {
        // Err only says that a provider is there already.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let client = tls(reqwest::Client::builder())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(u64::from(LONGEST_WAIT_S) + 15))
            .user_agent("pairgate-simulator")
            .build()
            .map_err(|_| SimulatorError::Crypto("the HTTP client cannot be set up"))?;
        Ok(Self { client, gate: None })
    }

    /// The same, with at most `in_flight` requests at once. Held polls don't count: they only wait.
    pub fn limited(in_flight: usize) -> Result<Self, SimulatorError> {
        Ok(Self { gate: Some(Arc::new(Semaphore::new(in_flight))), ..Self::new()? })
    }

    /// A GET request to build upon.
    pub fn get(&self, address: &str) -> reqwest::RequestBuilder {
        self.client.get(address)
    }

    /// A POST request to build upon.
    pub fn post(&self, address: &str) -> reqwest::RequestBuilder {
        self.client.post(address)
    }

    /// A request of any method to build upon.
    pub fn request(&self, method: reqwest::Method, address: &str) -> reqwest::RequestBuilder {
        self.client.request(method, address)
    }

    /// A PUT request to build upon.
    pub fn put(&self, address: &str) -> reqwest::RequestBuilder {
        self.client.put(address)
    }

    /// Sends a request; any status is an answer.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<RawAnswer, SimulatorError> {
        let request = request.build().map_err(|error| unreachable(&error))?;
        let is_held = request.headers().contains_key("prefer");
        let _place = match (&self.gate, is_held) {
            (Some(gate), false) => {
                Some(gate.acquire().await.map_err(|_| SimulatorError::OutOfOrder("the wire is closed"))?)
            }
            _ => None,
        };
        let response = self.client.execute(request).await.map_err(|error| unreachable(&error))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.text().await.map_err(|error| unreachable(&error))?;
        Ok(RawAnswer { status, headers, body })
    }
}

fn unreachable(error: &reqwest::Error) -> SimulatorError {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let address = error.url().map_or_else(|| "that address".to_owned(), |url| url.origin().ascii_serialization());
    SimulatorError::Unreachable { address, reason: innermost.to_string() }
}

/// An HTTP answer as it came.
#[derive(Debug, Clone)]
pub struct RawAnswer {
    /// HTTP status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub body: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl RawAnswer {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value, SimulatorError> {
        serde_json::from_str(&self.body)
            .map_err(|_| SimulatorError::Malformed(format!("status {} and a body that is no JSON", self.status)))
    }

    /// `error` and `error_description`, if the body has them.
    pub fn oauth_error(&self) -> Option<(String, String)> {
        serde_json::from_str::<ErrorBody>(&self.body).ok().map(|body| (body.error, body.error_description))
    }

    /// The answer as an error: `Busy` for "later", `Refused` for "no", `Malformed` for what is neither.
    pub fn into_error(self) -> SimulatorError {
        if let Some((error, description)) = self.oauth_error() {
            return SimulatorError::Refused { status: self.status, error, description };
        }
        if matches!(self.status, 429 | 503) {
            let retry_after_s = self.header("retry-after").and_then(|text| text.trim().parse().ok()).unwrap_or(1);
            return SimulatorError::Busy { status: self.status, retry_after_s };
        }
        SimulatorError::Malformed(format!("status {} without an error member", self.status))
    }
}
