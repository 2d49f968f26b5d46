//! The organisation's OpenID provider: where a browser is sent, and who came back (OpenID Connect Core, code flow with PKCE).
//!
//! 1. Everything that ties the answer to the browser (`state`, `nonce`, PKCE verifier) is derived from that browser's cookie: [`Ties`].
//! 2. The browser is sent to the provider ([`Provider::authorization_url`]) and comes back with an [`Answer`].
//! 3. `state` and `iss` are checked before anything of the answer is used (RFC 9700 section 2.1, RFC 9207); then the code is exchanged.
//! 4. The ID token is checked: signature, algorithm, issuer, audience, authorized party, times, nonce, and for a fresh sign-in `auth_time`.
//! 5. Who it is: issuer and subject, or Entra's tenant and object id; never an e-mail address ([`Identity`], A-048).
//!
//! Who may do what is not decided here, but in `broker/sso.rs`.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::{Duration, UNIX_EPOCH};

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreClaimName, CoreClaimType, CoreClientAuthMethod,
    CoreErrorResponseType, CoreGenderClaim, CoreGrantType, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm, CoreJwsSigningAlgorithm, CoreResponseMode, CoreResponseType, CoreRevocableToken,
    CoreRevocationErrorResponse, CoreSubjectIdentifierType, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AsyncHttpClient, AuthType, AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret, CsrfToken,
    EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IdTokenClaims,
    IdTokenFields, IssuerUrl, Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
    SignatureVerificationError, StandardErrorResponse, StandardTokenResponse, TokenResponse as _,
};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::clock::Timestamp;
use crate::config::Sso;
use crate::model::audit::one_line;
use crate::secret::{Bytes32, b64u, is_equal, sha256};
use crate::upstream::{HttpClient, UpstreamError};

/// Metadata and keys are asked for anew after this long.
const KEEP: Duration = Duration::from_secs(600);
/// If the provider does not answer then, what was heard last is good for this long. It signs nobody in by itself: the code is exchanged at the provider.
const KEEP_AT_MOST: Duration = Duration::from_secs(24 * 3600);
/// At the soonest after this long again: for a key that is not known yet, or after a failure.
const PAUSE: Duration = Duration::from_secs(15);
/// How far the provider's clock may be off.
const SKEW: Duration = Duration::from_secs(60);
/// An ID token is younger: it comes straight from the provider.
const TOKEN_AGE: Duration = Duration::from_secs(600);

/// What an ID token may be signed with. No HMAC and no `none`: a shared secret proves nothing to anybody else, and nothing proves nothing.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// Why nobody was signed in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SsoError {
    /// The answer belongs to no sign-in that this browser began, or comes from another provider.
    #[error("{0}")]
    Foreign(&'static str),
    /// The provider said no; its words, one line of at most 200 characters.
    #[error("the provider said no: {0}")]
    Declined(String),
    /// The provider does not answer, or not as it should.
    #[error("the provider can't be asked: {0}")]
    Unreachable(String),
    /// The ID token is not good.
    #[error("the provider's statement is not good: {0}")]
    Untrusted(String),
    /// The ID token of a fresh sign-in has no `auth_time`.
    #[error("the provider's statement is not good: it does not say when the person signed in (auth_time)")]
    NoAuthTime,
    /// Entra leaves the groups out if a person has more than 200.
    #[error("the provider left the groups out, because they are too many")]
    TooManyGroups,
}

impl From<UpstreamError> for SsoError {
    fn from(error: UpstreamError) -> Self {
        Self::Unreachable(error.0)
    }
}

/// What ties one sign-in to one browser. All of it is derived from the browser's cookie, so there is nothing to store, and nobody else can know it.
pub struct Ties {
    state: String,
    nonce: String,
    verifier: String,
}

impl Ties {
    /// Those of a cookie.
    pub fn of(cookie: &Bytes32) -> Self {
        let derive = |what: &str| b64u(&sha256(&[b"pairgate sso ", what.as_bytes(), b" ", cookie]));
        Self { state: derive("state"), nonce: derive("nonce"), verifier: derive("verifier") }
    }
}

/// What the browser came back with.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Answer {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// When and for what a sign-in began.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    /// When.
    pub at: Timestamp,
    /// Whether the person must prove anew who it is.
    pub again: bool,
}

/// Who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Issuer.
    pub issuer: String,
    /// Subject; Entra: the object id.
    pub subject: String,
    /// What the person is called there. Not unique, may change, proves nothing.
    pub name: String,
    /// Groups, as the provider names them.
    pub groups: Vec<String>,
    /// When the person signed in there, if the provider says it: it may have been long ago, in a browser that was left since.
    pub proved_at: Option<Timestamp>,
}

/// Claims besides the standard ones.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Extra {
    #[serde(flatten)]
    all: BTreeMap<String, serde_json::Value>,
}

impl openidconnect::AdditionalClaims for Extra {}

/// Metadata besides the standard fields (RFC 9207 section 3).
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct ExtraMetadata {
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl openidconnect::AdditionalProviderMetadata for ExtraMetadata {}

type Metadata = openidconnect::ProviderMetadata<
    ExtraMetadata,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

type Fields = IdTokenFields<
    Extra,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;

type Client = openidconnect::Client<
    Extra,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<Fields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

type Claims = IdTokenClaims<Extra, CoreGenderClaim>;

impl<'c> AsyncHttpClient<'c> for HttpClient {
    type Error = UpstreamError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, UpstreamError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// One provider, asked when somebody signs in.
pub struct Provider {
    settings: Sso,
    redirect_uri: RedirectUrl,
    http: HttpClient,
    known: tokio::sync::Mutex<Known>,
}

/// What was heard of the provider last.
#[derive(Default)]
struct Known {
    metadata: Option<(Metadata, Timestamp)>,
    failed: Option<(SsoError, Timestamp)>,
}

impl Provider {
    /// For one provider; `redirect_uri` is the one fixed address that browsers come back to (R-9700-01).
    ///
    /// # Errors
    /// If the authority in `ca` is no certificate.
    pub fn new(settings: Sso, redirect_uri: String) -> Result<Self, UpstreamError> {
        let http = HttpClient::new(settings.ca_pem.as_deref(), settings.allow_private_network)?;
        let redirect_uri = RedirectUrl::new(redirect_uri).map_err(|error| UpstreamError(error.to_string()))?;
        Ok(Self { settings, redirect_uri, http, known: tokio::sync::Mutex::default() })
    }

    /// What configuration says of it.
    pub const fn settings(&self) -> &Sso {
        &self.settings
    }

    /// Where to send the browser. `again`: the provider must ask the person anew.
    ///
    /// # Errors
    /// If the provider does not answer.
    pub async fn authorization_url(&self, ties: &Ties, again: bool, now: Timestamp) -> Result<Url, SsoError> {
        let client = self.client(self.metadata(KEEP, now).await?);
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(ties.verifier.clone()));
        let (state, nonce) = (ties.state.clone(), ties.nonce.clone());
        let mut request = client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                move || CsrfToken::new(state),
                move || Nonce::new(nonce),
            )
            .add_scopes(self.settings.scopes.iter().cloned().map(Scope::new))
            .set_pkce_challenge(challenge);
        if again {
            request = request.add_prompt(CoreAuthPrompt::Login).set_max_age(Duration::ZERO);
        }
        Ok(request.url().0)
    }

    /// Who came back with this answer: steps 3 to 5.
    ///
    /// # Errors
    /// [`SsoError`].
    pub async fn identity(
        &self,
        answer: &Answer,
        ties: &Ties,
        begun: Begun,
        now: Timestamp,
    ) -> Result<Identity, SsoError> {
        let state = answer.state.as_deref().unwrap_or_default();
        // Without this, a link could put a person into the session of whoever sent it (A-048's neighbour, login CSRF).
        if !is_equal(state.as_bytes(), ties.state.as_bytes()) {
            return Err(SsoError::Foreign("the state is not this browser's"));
        }
        let metadata = self.metadata(KEEP, now).await?;
        let promises_iss = metadata.additional_metadata().authorization_response_iss_parameter_supported;
        // Without this, the code of another provider could be sent here (mix-up, RFC 9207 section 2.4).
        match &answer.iss {
            Some(iss) if *iss != self.settings.issuer => {
                return Err(SsoError::Foreign("the answer is of another issuer"));
            }
            None if promises_iss => return Err(SsoError::Foreign("the answer does not say of which issuer it is")),
            _ => {}
        }
        if let Some(error) = &answer.error {
            return Err(SsoError::Declined(one_line(answer.error_description.as_ref().unwrap_or(error))));
        }
        let code = answer.code.clone().ok_or(SsoError::Foreign("the answer has no code"))?;
        let client = self.client(metadata);
        let tokens = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|error| SsoError::Unreachable(error.to_string()))?
            .set_pkce_verifier(PkceCodeVerifier::new(ties.verifier.clone()))
            .request_async(&self.http)
            .await
            .map_err(refused_code)?;
        let token = tokens.id_token().ok_or_else(|| SsoError::Untrusted("there is no ID token".into()))?;
        let nonce = Nonce::new(ties.nonce.clone());
        let verified = match token.claims(&verifier(&client, now), &nonce) {
            // The provider may have a new key since.
            Err(ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey)) => {
                let client = self.client(self.metadata(PAUSE, now).await?);
                token.claims(&verifier(&client, now), &nonce).cloned()
            }
            verified => verified.cloned(),
        };
        let claims = verified.map_err(|error| SsoError::Untrusted(one_line(&chain(&error))))?;
        check(&claims, &self.settings.client_id, begun, now)?;
        identity(&claims, &self.settings)
    }

    fn client(&self, metadata: Metadata) -> Client {
        // Basic is what holds where nothing is said (OpenID Connect Discovery section 3).
        let is_post_only = metadata.token_endpoint_auth_methods_supported().is_some_and(|methods| {
            methods.contains(&CoreClientAuthMethod::ClientSecretPost)
                && !methods.contains(&CoreClientAuthMethod::ClientSecretBasic)
        });
        let secret = self.settings.client_secret.as_ref().map(|secret| ClientSecret::new(secret.0.clone()));
        let is_public = secret.is_none();
        let id = ClientId::new(self.settings.client_id.clone());
        let client = Client::from_provider_metadata(metadata, id, secret).set_redirect_uri(self.redirect_uri.clone());
        client.set_auth_type(if is_post_only || is_public { AuthType::RequestBody } else { AuthType::BasicAuth })
    }

    /// Metadata and keys, at most so old; if the provider does not answer, at most [`KEEP_AT_MOST`]: a short failure of it locks nobody out.
    async fn metadata(&self, age: Duration, now: Timestamp) -> Result<Metadata, SsoError> {
        let mut known = self.known.lock().await;
        if let Some((metadata, at)) = &known.metadata
            && now.since(*at) < age
        {
            return Ok(metadata.clone());
        }
        let old = known.metadata.as_ref().filter(|(_, at)| now.since(*at) < KEEP_AT_MOST).map(|(old, _)| old.clone());
        // A provider that does not answer is not asked by everybody who would like to sign in.
        if let Some((error, at)) = &known.failed
            && now.since(*at) < PAUSE
        {
            return old.ok_or_else(|| error.clone());
        }
        match self.discover().await {
            Ok(metadata) => {
                *known = Known { metadata: Some((metadata.clone(), now)), failed: None };
                Ok(metadata)
            }
            Err(error) => {
                tracing::warn!(%error, "the provider's metadata could not be read anew");
                known.failed = Some((error.clone(), now));
                old.ok_or(error)
            }
        }
    }

    async fn discover(&self) -> Result<Metadata, SsoError> {
        let unreachable = |error: &dyn std::error::Error| SsoError::Unreachable(chain(error));
        let issuer = IssuerUrl::new(self.settings.issuer.clone()).map_err(|error| unreachable(&error))?;
        // Checks that the metadata is of this very issuer, and fetches the keys.
        let metadata = Metadata::discover_async(issuer, &self.http).await.map_err(|error| unreachable(&error))?;
        let token_endpoint = metadata.token_endpoint().map(|endpoint| endpoint.url());
        for url in [Some(metadata.authorization_endpoint().url()), token_endpoint].into_iter().flatten() {
            self.http.check(url).map_err(|why| SsoError::Unreachable(format!("{url} {why}")))?;
        }
        Ok(metadata)
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

type ExchangeError = openidconnect::RequestTokenError<UpstreamError, StandardErrorResponse<CoreErrorResponseType>>;

fn refused_code(error: ExchangeError) -> SsoError {
    match error {
        openidconnect::RequestTokenError::ServerResponse(answer) => SsoError::Declined(one_line(&answer.to_string())),
        openidconnect::RequestTokenError::Request(error) => error.into(),
        error => SsoError::Untrusted(one_line(&chain(&error))),
    }
}

fn verifier(client: &Client, now: Timestamp) -> openidconnect::core::CoreIdTokenVerifier<'_> {
    let now = UNIX_EPOCH + Duration::from_millis(u64::try_from(now.millis()).unwrap_or(0));
    client.id_token_verifier().set_allowed_algs(ALGORITHMS).set_time_fn(move || now.into())
}

/// What the library leaves to its caller: authorized party, age, and when the person signed in there.
fn check(claims: &Claims, client_id: &str, begun: Begun, now: Timestamp) -> Result<(), SsoError> {
    let untrusted = |why: &str| Err(SsoError::Untrusted(why.into()));
    // OpenID Connect Core section 3.1.3.7, items 4 and 5. Other audiences are refused before.
    if claims.authorized_party().is_some_and(|party| party.as_str() != client_id) {
        return untrusted("it was made for another client");
    }
    let issued_at = Timestamp::from_millis(claims.issue_time().timestamp_millis());
    if issued_at.since(now) > SKEW {
        return untrusted("it is from the future");
    }
    if now.since(issued_at) > TOKEN_AGE {
        return untrusted("it is too old");
    }
    if begun.again {
        // Without this, a provider that ignores prompt and max_age would let a session that was left open count as fresh.
        match proved_at(claims) {
            Some(at) if begun.at.since(at) <= SKEW => {}
            Some(_) => return untrusted("the person was not asked anew"),
            None => return Err(SsoError::NoAuthTime),
        }
    }
    Ok(())
}

fn proved_at(claims: &Claims) -> Option<Timestamp> {
    claims.auth_time().map(|at| Timestamp::from_millis(at.timestamp_millis()))
}

fn identity(claims: &Claims, settings: &Sso) -> Result<Identity, SsoError> {
    let extra = &claims.additional_claims().all;
    let text = |name: &str| extra.get(name).and_then(serde_json::Value::as_str);
    let subject = match &settings.tenant {
        None => claims.subject().as_str(),
        // `sub` of Entra is another one for each application; `oid` is the person. Without the tenant, a guest tenant's person would do.
        Some(tenant) if text("tid") == Some(tenant) => {
            text("oid").ok_or_else(|| SsoError::Untrusted("there is no oid claim".into()))?
        }
        Some(_) => return Err(SsoError::Untrusted("it is of another tenant".into())),
    };
    if subject.is_empty() {
        return Err(SsoError::Untrusted("it names nobody".into()));
    }
    let groups = match extra.get(&settings.groups_claim) {
        Some(serde_json::Value::Array(groups)) => {
            groups.iter().filter_map(|group| group.as_str().map(str::to_owned)).collect()
        }
        Some(serde_json::Value::String(group)) => vec![group.clone()],
        // OpenID Connect Core section 5.6.2: they stand elsewhere.
        None if extra.get("_claim_names").is_some_and(|names| names.get(&settings.groups_claim).is_some()) => {
            return Err(SsoError::TooManyGroups);
        }
        _ => Vec::new(),
    };
    let name =
        claims.preferred_username().map(|name| name.as_str()).or_else(|| claims.email().map(|mail| mail.as_str()));
    Ok(Identity {
        issuer: settings.issuer.clone(),
        subject: subject.to_owned(),
        name: name.unwrap_or(subject).to_owned(),
        groups,
        proved_at: proved_at(claims),
    })
}
