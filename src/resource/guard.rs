//! The checks of one request, in this order:
//! 1. One `Authorization` header with one token (`credentials`).
//! 2. The token is authentic: signed by a key of the broker's (`keys`), or the broker says so (`introspection`).
//! 3. It is from our broker, for us, not expired, a device's, and bound (`claims`).
//! 4. The caller has what it is bound to: a DPoP proof by that key, or that client certificate.
//! 5. It allows enough. Only here, so that a thief of a token does not learn what it would have been good for.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::request::Parts;
use url::Url;

use crate::clock::{Clock, Timestamp};
use crate::device_auth::Proofs;
use crate::device_auth::dpop::{self, ProofError, WithToken};
use crate::oauth::certificate::Certificate;
use crate::oauth::jose::KeylessJwt;
use crate::oauth::scope::Scope;
use crate::oauth::signing_key::SigningKey;
use crate::resource::claims::{Claims, Expected, check_claims};
use crate::resource::credentials::{Credentials, Scheme, parse_authorization};
use crate::resource::device::{Binding, ClientCertificate, Device, KeyAssurance};
use crate::resource::fetch::{Fetch, HttpClient, is_protected};
use crate::resource::introspection::Introspection;
use crate::resource::keys::{BrokerKeys, Jwks, Keys};
use crate::resource::refusal::Refusal;
use crate::secret::{Random, is_equal};

/// Lets only enrolled devices through. A tower `Layer`; clones share their keys and nonces.
#[derive(Clone)]
pub struct Guard {
    shared: Arc<Shared>,
    needs: Needs,
}

struct Shared {
    issuer: String,
    resource: String,
    public_url: String,
    tokens: Tokens,
    proofs: Proofs,
    clock: Clock,
}

enum Tokens {
    Signed(Keys),
    Introspected(Box<Introspection>),
}

/// What a token must allow.
#[derive(Clone)]
struct Needs {
    scope: Scope,
    key_assurance: KeyAssurance,
    max_age: Option<Duration>,
}

/// Why a guard could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GuardError(String);

/// What the guard found.
#[derive(Debug)]
pub struct Verdict {
    /// The device, or why not.
    pub outcome: Result<Device, Refusal>,
    /// How the token was sent.
    pub scheme: Option<Scheme>,
    /// For the answer's `DPoP-Nonce` header, whatever the outcome.
    pub next_nonce: Option<HeaderValue>,
}

impl Guard {
    /// Begins a guard for the resource with this identifier: what devices ask for as `resource`, and tokens carry as `aud`.
    pub fn for_resource(identifier: &str) -> GuardBuilder {
        GuardBuilder {
            resource: identifier.to_owned(),
            issuer: None,
            public_url: None,
            scope: String::new(),
            key_assurance: KeyAssurance::Software,
            max_age: None,
            keys: None,
            introspection: None,
            fetch: None,
            clock: None,
        }
    }

    /// The same guard with another scope, for other routes of the same service.
    ///
    /// # Errors
    /// If that is no scope.
    pub fn requiring(&self, scope: &str) -> Result<Self, GuardError> {
        let mut guard = self.clone();
        guard.needs.scope = parsed_scope(scope)?;
        Ok(guard)
    }

    /// Checks one request.
    pub async fn check(&self, request: &Parts) -> Verdict {
        let now = self.shared.clock.now();
        let values = request.headers.get_all(http::header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        // 1.
        let credentials = match parse_authorization(values) {
            Ok(credentials) => credentials,
            Err(refusal) => return Verdict { outcome: Err(refusal), scheme: None, next_nonce: None },
        };
        let scheme = Some(credentials.scheme);
        // 2. and 3.
        let device = match self.device(credentials.token, now).await {
            Ok(device) => device,
            Err(refusal) => return Verdict { outcome: Err(refusal), scheme, next_nonce: None },
        };
        let next_nonce = match (device.bound_to, credentials.scheme) {
            (Binding::Key(jkt), Scheme::Dpop) => HeaderValue::try_from(self.shared.proofs.nonces.issue(&jkt, now)).ok(),
            _ => None,
        };
        // 4. and 5.
        let outcome = self
            .prove(&device, credentials, request, now)
            .and_then(|()| self.needs.check(&device, now))
            .map(|()| device);
        Verdict { outcome, scheme, next_nonce }
    }

    async fn device(&self, token: &str, now: Timestamp) -> Result<Device, Refusal> {
        let claims = match &self.shared.tokens {
            Tokens::Signed(keys) => self.signed(keys, token, now).await?,
            Tokens::Introspected(introspection) => introspection.claims(token, now).await?,
        };
        let expected = Expected { issuer: &self.shared.issuer, resource: &self.shared.resource };
        check_claims(&claims, expected, now).map_err(Refusal::InvalidToken)
    }

    /// RFC 9068 section 4.
    async fn signed(&self, keys: &Keys, token: &str, now: Timestamp) -> Result<Claims, Refusal> {
        let refused = Refusal::InvalidToken;
        let jwt = KeylessJwt::<Claims>::parse(token).map_err(|error| refused(error.0))?;
        // Without this, anything that the broker signs for other uses would be a token.
        let is_access_token =
            |typ: &str| ["at+jwt", "application/at+jwt"].iter().any(|known| typ.eq_ignore_ascii_case(known));
        if !jwt.typ().is_some_and(is_access_token) || jwt.x5c().is_some() {
            return Err(refused("This is no access token (RFC 9068: typ must be at+jwt)."));
        }
        // Others' tokens don't make us look for keys.
        if jwt.peek().iss != self.shared.issuer {
            return Err(refused("The token is from another broker."));
        }
        let kid = jwt.kid().ok_or(refused("The token does not name its key."))?;
        let key = keys.key(kid, now).await.map_err(|_| Refusal::Unavailable)?;
        let key = key.ok_or(refused("The token's key is not one of the broker's."))?;
        Ok(jwt.verify_with(&key).map_err(|error| refused(error.0))?.claims)
    }

    /// A token is worth nothing without the key or certificate that it is bound to.
    fn prove(
        &self,
        device: &Device,
        credentials: Credentials<'_>,
        request: &Parts,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        match (device.bound_to, credentials.scheme) {
            (Binding::Key(jkt), Scheme::Dpop) => {
                self.prove_key(WithToken { token: credentials.token, jkt }, request, now)
            }
            // RFC 9449 section 7.2, R-9449-06.
            (Binding::Key(_), Scheme::Bearer) => {
                Err(Refusal::InvalidToken("The token is bound to a key. Send it as DPoP, with a proof."))
            }
            (Binding::Certificate(x5t), Scheme::Bearer) => prove_certificate(&x5t, request, now),
            (Binding::Certificate(_), Scheme::Dpop) => Err(Refusal::InvalidToken(
                "The token is bound to a certificate. Send it as Bearer, over a connection with that certificate.",
            )),
        }
    }

    fn prove_key(&self, with: WithToken<'_>, request: &Parts, now: Timestamp) -> Result<(), Refusal> {
        let mut proofs = request.headers.get_all("dpop").iter();
        let proof = match (proofs.next(), proofs.next()) {
            (None, _) => return Err(Refusal::InvalidDpopProof("There is no DPoP header. Send one proof.")),
            (Some(proof), None) => proof,
            (Some(_), Some(_)) => return Err(Refusal::InvalidDpopProof("More than one DPoP header.")),
        };
        let proof = proof.to_str().map_err(|_| Refusal::InvalidDpopProof("The proof is no JWT."))?;
        // Never the Host header: whoever can forge it could use a proof for another server here (A-023, R-9449-02).
        let endpoint = format!("{}{}", self.shared.public_url, request.uri.path());
        dpop::check_with_token(&self.shared.proofs, proof, request.method.as_str(), &endpoint, with, now).map_err(
            |error| match error {
                ProofError::Nonce { .. } => Refusal::UseDpopNonce,
                ProofError::Invalid(what) => Refusal::InvalidDpopProof(what),
                ProofError::Overloaded => Refusal::Unavailable,
            },
        )
    }
}

/// RFC 8705 section 3 (R-8705-04). That the client has the certificate's key was proved in the TLS handshake.
fn prove_certificate(x5t: &[u8; 32], request: &Parts, now: Timestamp) -> Result<(), Refusal> {
    let refused = Refusal::InvalidToken;
    let shown = request
        .extensions
        .get::<ClientCertificate>()
        .ok_or(refused("The token is bound to a certificate. Connect with that certificate."))?;
    let certificate = Certificate::from_der(&shown.0).map_err(|error| refused(error.0))?;
    if !is_equal(&certificate.x5t, x5t) {
        return Err(refused("The token is bound to another certificate."));
    }
    //
    if !(certificate.not_before..=certificate.not_after).contains(&now.seconds()) {
        return Err(refused("The certificate has expired, or is not valid yet."));
    }
    Ok(())
}

impl Needs {
    fn check(&self, device: &Device, now: Timestamp) -> Result<(), Refusal> {
        if !self.scope.is_within(&device.scope) {
            return Err(Refusal::InsufficientScope(self.scope.to_string()));
        }
        if device.key_assurance < self.key_assurance {
            return Err(Refusal::InsufficientKeyAssurance(self.key_assurance));
        }
        // RFC 9470 (R-9470-01). Only if the claim is there: without it nothing can be said.
        match (self.max_age, device.approver_signed_in_at) {
            (Some(max_age), Some(at)) if now.since(at) > max_age => {
                Err(Refusal::InsufficientUserAuthentication { max_age: max_age.as_secs() })
            }
            _ => Ok(()),
        }
    }
}

fn parsed_scope(text: &str) -> Result<Scope, GuardError> {
    Scope::parse(text).ok_or_else(|| GuardError(format!("'{text}' is no scope (RFC 6749 section 3.3)")))
}

/// What a guard is made of. Issuer and public address must be given.
pub struct GuardBuilder {
    resource: String,
    issuer: Option<String>,
    public_url: Option<String>,
    scope: String,
    key_assurance: KeyAssurance,
    max_age: Option<Duration>,
    keys: Option<Jwks>,
    introspection: Option<SigningKey>,
    fetch: Option<Arc<dyn Fetch>>,
    clock: Option<Clock>,
}

impl GuardBuilder {
    /// The broker, exactly as its metadata spells it.
    #[must_use]
    pub fn issuer(mut self, issuer: &str) -> Self {
        self.issuer = Some(issuer.to_owned());
        self
    }

    /// The address under which devices reach the guarded service: the path of a request is put behind it and compared with the proof's `htu`. In a
    /// nested router, whose inner part sees shorter paths, give the part that is cut off too.
    #[must_use]
    pub fn public_url(mut self, url: &str) -> Self {
        self.public_url = Some(url.to_owned());
        self
    }

    /// Scope that a token must have: all of these words.
    #[must_use]
    pub fn scope(mut self, scope: &str) -> Self {
        self.scope = scope.to_owned();
        self
    }

    /// How well a device's key must be kept; `Software` if not given.
    #[must_use]
    pub const fn key_assurance(mut self, at_least: KeyAssurance) -> Self {
        self.key_assurance = at_least;
        self
    }

    /// How long ago the approver may have signed in, for tokens that say it (RFC 9470).
    #[must_use]
    pub const fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// Fixed keys, for a service that can't reach the broker. Otherwise they are fetched, and kept up to date.
    #[must_use]
    pub fn keys(mut self, keys: Jwks) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Asks the broker about each token (RFC 7662) with this key, which is registered there for this resource: revocation within seconds, for a
    /// request to the broker per device and ten seconds.
    #[must_use]
    pub fn introspection(mut self, key: SigningKey) -> Self {
        self.introspection = Some(key);
        self
    }

    /// How the broker is asked; an [`HttpClient`] if not given.
    #[must_use]
    pub fn fetch(mut self, fetch: impl Fetch + 'static) -> Self {
        self.fetch = Some(Arc::new(fetch));
        self
    }

    /// For tests.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Makes the guard. Nothing is fetched yet.
    ///
    /// # Errors
    /// If something is missing, malformed, or not protected (https, or http on loopback).
    pub fn build(self) -> Result<Guard, GuardError> {
        let missing = |what: &str| GuardError(format!("give the guard {what}"));
        let issuer = self.issuer.ok_or_else(|| missing("an issuer"))?;
        protected(&issuer)?;
        let public_url = protected(&self.public_url.ok_or_else(|| missing("a public address"))?)?;
        if self.resource.is_empty() {
            return Err(missing("the identifier of the resource"));
        }
        let fetch = match (self.fetch, &self.keys) {
            (Some(fetch), _) => Some(fetch),
            (None, Some(_)) if self.introspection.is_none() => None,
            (None, _) => Some(Arc::new(HttpClient::new().map_err(|error| GuardError(error.0))?) as Arc<dyn Fetch>),
        };
        let random = Random::system();
        let proofs = Proofs::new(&random).map_err(|error| GuardError(error.to_string()))?;
        let tokens = match (self.introspection, self.keys, fetch) {
            (Some(_), Some(_), _) => return Err(GuardError("keys and introspection exclude each other".into())),
            (Some(key), None, Some(fetch)) => {
                let resource = self.resource.clone();
                Tokens::Introspected(Box::new(Introspection::new(issuer.clone(), resource, key, random, fetch)))
            }
            (None, Some(jwks), _) => Tokens::Signed(Keys::Fixed(jwks)),
            (None, None, Some(fetch)) => Tokens::Signed(Keys::Broker(BrokerKeys::new(issuer.clone(), fetch))),
            (_, None, None) => return Err(missing("keys, or a way to fetch them")),
        };
        let needs =
            Needs { scope: parsed_scope(&self.scope)?, key_assurance: self.key_assurance, max_age: self.max_age };
        let clock = self.clock.unwrap_or_else(Clock::system);
        let shared = Shared { issuer, resource: self.resource, public_url, tokens, proofs, clock };
        Ok(Guard { shared: Arc::new(shared), needs })
    }
}

/// An address without query and fragment, without a slash at its end.
fn protected(address: &str) -> Result<String, GuardError> {
    let url = Url::parse(address).ok().filter(|url| {
        is_protected(url) && url.query().is_none() && url.fragment().is_none() && url.username().is_empty()
    });
    let url = url.ok_or_else(|| GuardError(format!("'{address}' is not an https address (http only on loopback)")))?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}
