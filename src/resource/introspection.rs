//! Asking the broker about each token (RFC 7662), for those who want a suspended device to be out within seconds.
//!
//! The resource authenticates with `private_key_jwt` (RFC 7523 section 3); its client id is its identifier. A good answer is kept ten seconds at the
//! most and never beyond the token's end (R-7662-04); a bad one is not kept. When the broker can't be asked, nobody gets in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{OnceCell, Semaphore};
use url::Url;

use crate::clock::Timestamp;
use crate::oauth::signing_key::SigningKey;
use crate::resource::claims::Claims;
use crate::resource::fetch::{Fetch, FetchError, metadata};
use crate::resource::refusal::Refusal;
use crate::secret::{Bytes32, Random, b64u, sha256};

/// How long a good answer is believed.
const KEPT: Duration = Duration::from_secs(10);
/// Answers that are kept. When there are more, the broker is asked more often.
const CAPACITY: usize = 10_000;
/// Questions under way at once: invented tokens must not become a flood at the broker.
const AT_ONCE: usize = 32;
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const INACTIVE: Refusal = Refusal::InvalidToken("The token is not valid, or no longer. Refresh it, or sign in again.");

/// The answer (RFC 7662 section 2.2).
#[derive(Deserialize)]
struct Answer {
    active: bool,
    token_type: Option<String>,
    #[serde(flatten)]
    claims: Map<String, Value>,
}

/// Asks, and remembers for a moment.
pub(super) struct Introspection {
    issuer: String,
    resource: String,
    key: SigningKey,
    random: Random,
    fetch: Arc<dyn Fetch>,
    endpoint: OnceCell<Url>,
    gate: Semaphore,
    kept: Mutex<HashMap<Bytes32, (Claims, Timestamp)>>,
}

impl Introspection {
    pub(super) fn new(
        issuer: String,
        resource: String,
        key: SigningKey,
        random: Random,
        fetch: Arc<dyn Fetch>,
    ) -> Self {
        let (endpoint, gate, kept) = (OnceCell::new(), Semaphore::new(AT_ONCE), Mutex::default());
        Self { issuer, resource, key, random, fetch, endpoint, gate, kept }
    }

    /// The claims of a token that is active.
    pub(super) async fn claims(&self, token: &str, now: Timestamp) -> Result<Claims, Refusal> {
        let hash = sha256(&[token.as_bytes()]);
        if let Some(claims) = self.kept(&hash, now) {
            return Ok(claims);
        }
        let body = self.ask(token, now).await.map_err(|error| {
            tracing::error!(issuer = self.issuer, %error, "a token could not be checked");
            Refusal::Unavailable
        })?;
        let answer: Answer = serde_json::from_slice(&body).map_err(|error| {
            tracing::error!(issuer = self.issuer, %error, "the answer to an introspection can't be read");
            Refusal::Unavailable
        })?;
        if !answer.active {
            return Err(INACTIVE);
        }
        let claims: Claims = serde_json::from_value(Value::Object(answer.claims))
            .map_err(|_| Refusal::InvalidToken("The token is not a device's access token."))?;
        // A refresh token may be active too, and is no access token.
        if !answer.token_type.is_some_and(|name| name.eq_ignore_ascii_case(claims.token_type())) {
            return Err(Refusal::InvalidToken("The token's type does not fit its binding."));
        }
        self.keep(hash, &claims, now);
        Ok(claims)
    }

    async fn ask(&self, token: &str, now: Timestamp) -> Result<Vec<u8>, FetchError> {
        let endpoint = self.endpoint.get_or_try_init(|| self.discovered()).await?;
        let assertion = self.assertion(now)?;
        let fields = [
            ("token", token),
            ("token_type_hint", "access_token"),
            ("client_id", self.resource.as_str()),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion.as_str()),
        ];
        let _place = self.gate.acquire().await.map_err(|_| FetchError("closed".into()))?;
        self.fetch.post_form(endpoint, &fields).await
    }

    async fn discovered(&self) -> Result<Url, FetchError> {
        let endpoint = metadata(&*self.fetch, &self.issuer).await?.introspection_endpoint;
        endpoint.ok_or_else(|| FetchError("the metadata has no introspection_endpoint".into()))
    }

    /// `aud` is the issuer alone: an assertion for it is worth nothing elsewhere.
    fn assertion(&self, now: Timestamp) -> Result<String, FetchError> {
        let jti = self.random.bytes32().map_err(|error| FetchError(error.to_string()))?;
        let claims = json!({
            "iss": self.resource, "sub": self.resource, "aud": self.issuer,
            "iat": now.seconds(), "exp": now.seconds() + 60, "jti": b64u(&jti[..16]),
        });
        self.key.sign("client-authentication+jwt", &claims, false).map_err(|error| FetchError(error.to_string()))
    }

    fn kept(&self, hash: &Bytes32, now: Timestamp) -> Option<Claims> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(hash).filter(|(_, until)| now < *until).map(|(claims, _)| claims.clone())
    }

    fn keep(&self, hash: Bytes32, claims: &Claims, now: Timestamp) {
        let end = Timestamp::from_millis(claims.exp.saturating_mul(1000));
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= CAPACITY {
            kept.retain(|_, (_, until)| now < *until);
        }
        if kept.len() < CAPACITY {
            kept.insert(hash, (claims.clone(), now.plus(KEPT).min(end)));
        }
    }
}
