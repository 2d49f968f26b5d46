//! Who is calling? From what a request presents to a device of the registry, or one refusal for all reasons.
//!
//! Three methods, all by the *pinned key*: a DPoP proof ([`dpop`]), a client assertion ([`assertion`]), a client certificate ([`mtls`]).
//!
//! Steps, in this order, because a refusal must not tell which part was wrong, and because nothing costly or lasting may happen for a stranger:
//! 1. Exactly one authentication method. A proof beside an assertion or a certificate only says what the token is bound to.
//! 2. What is presented is well formed, for this endpoint or issuer, and in time. The words of such a refusal are the same for everybody.
//! 3. The proof's nonce is ours, for this key, and fresh ([`nonce`]); otherwise `use_dpop_nonce`. Before anything is used up: some libraries send the
//!    same assertion again with the new proof (R-7523-04).
//! 4. The registry pins this key to this `client_id`, and the signatures fit. Known and unknown devices get the same `invalid_client`.
//! 5. A proof beside another method is by the same pinned key.
//! 6. `jti` values are used up ([`replay`]). Last, so that strangers can't fill the memory of them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;

use crate::clock::Timestamp;
use crate::device_auth::assertion::AssertionUse;
use crate::device_auth::mtls::ClientTrust;
use crate::id::DeviceId;
use crate::model::audit::{Event, one_line};
use crate::model::device::{Device, PinnedKey};
use crate::model::operator::Reach;
use crate::oauth::error::OAuthError;
use crate::oauth::form::Form;
use crate::oauth::jwk::PublicKey;
use crate::secret::{Bytes32, Random, SecretError, is_equal};
use crate::store::{Store, StoreError};

pub mod assertion;
pub mod attestation;
pub mod connection;
pub mod dpop;
pub mod mtls;
pub mod nonce;
pub mod replay;
pub mod rotation;

/// What a request presents. Nothing of it is believed yet.
#[derive(Clone, Debug)]
pub struct Presented<'a> {
    /// All `DPoP` header values.
    pub dpop: Vec<&'a str>,
    /// Is there an `Authorization` header?
    pub has_authorization: bool,
    /// The client's certificates, leaf first: from the TLS handshake, or from a trusted proxy.
    pub certificates: &'a [CertificateDer<'static>],
    /// HTTP method.
    pub method: &'static str,
    /// The endpoint's configured address: never derived from the request.
    pub endpoint: &'a str,
    /// From where.
    pub peer: Option<IpAddr>,
}

/// Who it is: a device of the registry, by its pinned key.
#[derive(Debug)]
pub struct AuthenticatedDevice {
    /// The device, in whatever state.
    pub device: Device,
    /// Thumbprint of its pinned key.
    pub jkt: Bytes32,
    /// What its tokens are bound to. Another type, because an assertion alone says who it is and binds nothing.
    pub confirmation: Option<Confirmation>,
    /// The assertion that was used, to be noted for good where a code is made.
    pub assertion: Option<AssertionUse>,
}

/// What a token is bound to (RFC 7800).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// `jkt`: thumbprint of the pinned key (RFC 9449 section 6.1).
    Key(Bytes32),
    /// `x5t#S256`: hash of the certificate, whose key is the pinned one (RFC 8705 section 3.1).
    Certificate(Bytes32),
}

/// A refusal, and what the audit log should say of it.
#[derive(Debug)]
pub struct Refused {
    /// The answer.
    pub error: OAuthError,
    /// The key of an authentic proof: the answer carries it the next nonce.
    pub proven: Option<Bytes32>,
    /// For the audit log; none for what is no attack (a missing nonce).
    pub tripwire: Option<Box<Tripwire>>,
}

/// What the audit log should say.
#[derive(Debug)]
pub struct Tripwire {
    /// Event.
    pub event: Event,
    /// A device of the registry that it is about.
    pub device: Option<DeviceId>,
    /// One line.
    pub detail: String,
}

impl Refused {
    fn plain(error: OAuthError) -> Self {
        Self { error, proven: None, tripwire: None }
    }

    fn seen(error: OAuthError, event: Event, detail: String) -> Self {
        Self { error, proven: None, tripwire: Some(Box::new(Tripwire { event, device: None, detail })) }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a request could not be served");
        Self::plain(OAuthError::Unavailable)
    }
}

/// The state that checking proofs needs: this process's nonce key, and the `jti` values seen.
#[derive(Debug)]
pub struct Proofs {
    /// Nonces.
    pub nonces: nonce::Nonces,
    /// Used `jti` values.
    pub replay: replay::Replay,
}

/// Whom to believe, and what was seen.
#[derive(Debug)]
pub struct Authenticator {
    /// For proofs.
    pub proofs: Proofs,
    assertions: replay::UsedAssertions,
    issuer: String,
    trust: ClientTrust,
    /// Kinds whose devices need a certificate by one of the authorities.
    certified_kinds: ArcSwap<BTreeSet<String>>,
}

/// How a request authenticates.
enum Credential<'a> {
    Proof,
    Assertion(&'a str),
    Certificate,
}

impl Proofs {
    /// A new nonce key: nonces of a former process are refused, so its `jti` values need not be remembered.
    ///
    /// # Errors
    /// If the generator fails.
    pub fn new(random: &Random) -> Result<Self, SecretError> {
        Ok(Self { nonces: nonce::Nonces::new(&random.bytes32()?), replay: replay::Replay::default() })
    }
}

/// Client ids of Microsoft's own applications that the phishing kits use. No device of ours can have one; who asks with one is testing us.
const PHISHING_CLIENT_IDS: [&str; 8] = [
    "29d9ed98-a469-4536-ade2-f981bc1d605e", // Authentication Broker
    "04b07795-8ddb-461a-bbee-02f9e1bf7b46", // Azure CLI
    "1950a258-227b-4e31-a9cf-717495945fc2", // Azure PowerShell
    "d3590ed6-52b3-4102-aeff-aad2292ab01c", // Office
    "1fec8e78-bce4-4aaf-ab1b-5451cc387264", // Teams
    "27922004-5251-4030-b22d-91ecd9a37ea4", // Outlook Mobile
    "ab9b8c07-8f02-4f72-87fa-80105867a763", // OneDrive
    "aebc6443-996d-45c2-90f0-388ff96faa56", // Visual Studio Code
];

/// Is this the client id of an application that phishing kits use? In any case: the provider does not mind it either.
pub fn is_phishing_client_id(id: &str) -> bool {
    PHISHING_CLIENT_IDS.iter().any(|known| known.eq_ignore_ascii_case(id))
}

impl Authenticator {
    /// For one issuer and these authorities.
    ///
    /// # Errors
    /// If the generator fails.
    pub fn new(random: &Random, issuer: &str, trust: ClientTrust) -> Result<Self, SecretError> {
        let (proofs, assertions) = (Proofs::new(random)?, replay::UsedAssertions::default());
        Ok(Self { proofs, assertions, issuer: issuer.to_owned(), trust, certified_kinds: ArcSwap::default() })
    }

    /// Says of which kinds devices must have a certificate by one of the authorities. None, at first.
    pub fn certify(&self, kinds: BTreeSet<String>) {
        self.certified_kinds.store(Arc::new(kinds));
    }

    /// Are there authorities for client certificates?
    pub fn has_authorities(&self) -> bool {
        !self.trust.is_empty()
    }

    /// Runs the steps for a device.
    ///
    /// # Errors
    /// [`Refused`]: the answer, and what to record.
    pub async fn device(
        &self,
        store: &dyn Store,
        presented: &Presented<'_>,
        form: &Form<'_>,
        now: Timestamp,
    ) -> Result<AuthenticatedDevice, Refused> {
        let credential = credential(presented, form)?;
        let said = Said { client_id: form.get("client_id") };
        // R-8705-01: proof and certificate say which key, the parameter says which client. An assertion says both.
        let client_id = match credential {
            Credential::Assertion(_) => "",
            Credential::Proof | Credential::Certificate => form.require("client_id").map_err(Refused::plain)?,
        };
        let fresh = self.fresh_proof(presented, &said, now)?;
        match credential {
            Credential::Proof => {
                let proof = fresh.ok_or_else(|| said.stranger("without a proof"))?;
                let proof = proof.verify().map_err(|error| said.proof_refused(error))?;
                let jkt = proof.jkt;
                let device = device(store, client_id).await?;
                let device = pinned(store, device, &jkt, &said, now).await?;
                self.needs_no_certificate(&device, &said)?;
                proof.use_up(&self.proofs, now).map_err(|error| said.proof_refused(error))?;
                Ok(AuthenticatedDevice { device, jkt, confirmation: Some(Confirmation::Key(jkt)), assertion: None })
            }
            Credential::Assertion(text) => self.by_assertion(store, text, fresh, &said, now).await,
            Credential::Certificate => {
                self.by_certificate(store, presented.certificates, client_id, fresh, &said, now).await
            }
        }
    }

    /// Authenticates a resource server by one of the keys that were configured for it: by assertion or certificate, nothing less.
    ///
    /// `keys` finds the keys of a client id; none for a stranger.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn resource<'k>(
        &self,
        presented: &Presented<'_>,
        form: &Form<'_>,
        keys: impl FnOnce(&str) -> &'k [PublicKey],
        now: Timestamp,
    ) -> Result<String, Refused> {
        let said = Said { client_id: form.get("client_id") };
        let refused = |client_id: &str, why: &str| {
            let detail = format!("'{}': {why}", one_line(client_id));
            Refused::seen(OAuthError::InvalidClient, Event::IntrospectionRefused, detail)
        };
        match credential(presented, form)? {
            Credential::Assertion(text) => {
                let client_id = self.timely(text, &said, now)?.client_id().to_owned();
                // RFC 7521 section 4.2; as for devices.
                if said.client_id.is_some_and(|named| named != client_id) {
                    return Err(refused(&client_id, "another client_id beside the assertion"));
                }
                let mut used = None;
                for key in keys(&client_id) {
                    used = used.or(self.timely(text, &said, now)?.verify(key).ok());
                }
                let used = used.ok_or_else(|| refused(&client_id, "an assertion by no key of a resource"))?;
                self.use_up(&used, now).map_err(|why| match why {
                    Some(why) => refused(&client_id, why),
                    None => Refused::plain(OAuthError::Unavailable),
                })?;
                Ok(client_id)
            }
            Credential::Certificate => {
                let client_id = form.require("client_id").map_err(Refused::plain)?;
                let leaf = mtls::leaf(presented.certificates, now).map_err(|why| refused(client_id, why))?;
                let is_known = keys(client_id).iter().any(|key| is_equal(&key.jkt(), &leaf.key.jkt()));
                if !is_known || self.trust.has_revoked(presented.certificates, now) {
                    return Err(refused(client_id, "a certificate with no key of a resource"));
                }
                Ok(client_id.to_owned())
            }
            Credential::Proof => {
                Err(refused(said.client_id.unwrap_or_default(), "without an assertion or a certificate"))
            }
        }
    }

    /// Steps 2 and 3 of a proof, if there is one.
    fn fresh_proof<'a>(
        &self,
        presented: &Presented<'a>,
        said: &Said<'_>,
        now: Timestamp,
    ) -> Result<Option<dpop::FreshProof<'a>>, Refused> {
        match presented.dpop.as_slice() {
            [] => Ok(None),
            [proof] => dpop::inspect(&self.proofs, proof, presented.method, presented.endpoint, now)
                .map(Some)
                .map_err(|error| said.proof_refused(error)),
            _ => Err(Refused::plain(OAuthError::InvalidDpopProof("More than one DPoP header."))),
        }
    }

    fn timely<'a>(
        &self,
        text: &'a str,
        said: &Said<'_>,
        now: Timestamp,
    ) -> Result<assertion::TimelyAssertion<'a>, Refused> {
        assertion::inspect(text, &self.issuer, now).map_err(|what| {
            let detail = format!("'{}': {what}", said.name());
            Refused::seen(OAuthError::InvalidAssertion(what), Event::CodeRefused, detail)
        })
    }

    async fn by_assertion(
        &self,
        store: &dyn Store,
        text: &str,
        fresh: Option<dpop::FreshProof<'_>>,
        said: &Said<'_>,
        now: Timestamp,
    ) -> Result<AuthenticatedDevice, Refused> {
        let assertion = self.timely(text, said, now)?;
        // Some libraries leave client_id out: sub says it. If it is there, it is the same.
        let client_id = assertion.client_id().to_owned();
        let is_same = said.client_id.is_none_or(|named| named == client_id);
        let said = &Said { client_id: Some(&client_id) };
        let device = device(store, &client_id).await?;
        let key = match &device {
            Some(device) => store.pinned_key(device).await?,
            None => None,
        };
        let algorithm = assertion.algorithm();
        let key = key.as_deref().and_then(|json| PublicKey::from_json(json).ok());
        let key = key.filter(|key| key.algorithm() == algorithm);
        let is_known = key.is_some();
        let Some(key) = key.or_else(|| PublicKey::from_json(assertion::decoy(algorithm)).ok()) else {
            return Err(Refused::plain(OAuthError::Unavailable));
        };
        let used = match assertion.verify(&key) {
            Ok(used) if is_known && is_same => used,
            _ => return Err(said.not_its_key(device.as_ref(), "an assertion that its pinned key did not sign")),
        };
        let Some(device) = device else { return Err(said.stranger("with an assertion")) };
        self.needs_no_certificate(&device, said)?;
        let jkt = key.jkt();
        let confirmation = self.beside(fresh, &jkt, &device, said, now)?;
        self.use_up(&used, now).map_err(|why| match why {
            Some(why) => said.not_its_key(Some(&device), why),
            None => Refused::plain(OAuthError::Unavailable),
        })?;
        Ok(AuthenticatedDevice { device, jkt, confirmation, assertion: Some(used) })
    }

    /// 6. `Err(None)` if there is no more room to remember.
    fn use_up(&self, used: &AssertionUse, now: Timestamp) -> Result<(), Option<&'static str>> {
        match self.assertions.note(used, assertion::LEEWAY, now) {
            replay::Seen::New => Ok(()),
            replay::Seen::Before => Err(Some("an assertion that was used before")),
            replay::Seen::Full => Err(None),
        }
    }

    async fn by_certificate(
        &self,
        store: &dyn Store,
        chain: &[CertificateDer<'static>],
        client_id: &str,
        fresh: Option<dpop::FreshProof<'_>>,
        said: &Said<'_>,
        now: Timestamp,
    ) -> Result<AuthenticatedDevice, Refused> {
        let leaf = mtls::leaf(chain, now);
        let device = device(store, client_id).await?;
        let leaf = match leaf {
            Ok(leaf) => leaf,
            Err(why) => return Err(said.not_its_key(device.as_ref(), why)),
        };
        let jkt = leaf.key.jkt();
        let device = pinned(store, device, &jkt, said, now).await?;
        if self.trust.has_revoked(chain, now) {
            return Err(said.not_its_key(Some(&device), "a revoked certificate"));
        }
        if self.certified_kinds.load().contains(&device.facts.kind)
            && let Err(why) = self.trust.vouches_for(chain, now)
        {
            return Err(said.not_its_key(Some(&device), &format!("a certificate by no authority of ours: {why}")));
        }
        let by_proof = self.beside(fresh, &jkt, &device, said, now)?;
        let confirmation = Some(by_proof.unwrap_or(Confirmation::Certificate(leaf.x5t)));
        Ok(AuthenticatedDevice { device, jkt, confirmation, assertion: None })
    }

    /// Without this, the key of a certificate that was revoked, or never issued, would get in by another method.
    fn needs_no_certificate(&self, device: &Device, said: &Said<'_>) -> Result<(), Refused> {
        if self.certified_kinds.load().contains(&device.facts.kind) {
            return Err(said.not_its_key(Some(device), "its key, without the certificate that its kind wants"));
        }
        Ok(())
    }

    /// 5. A proof beside another method: by the pinned key, or the request is refused.
    fn beside(
        &self,
        fresh: Option<dpop::FreshProof<'_>>,
        jkt: &Bytes32,
        device: &Device,
        said: &Said<'_>,
        now: Timestamp,
    ) -> Result<Option<Confirmation>, Refused> {
        let Some(proof) = fresh else { return Ok(None) };
        let proof = proof.verify().map_err(|error| said.proof_refused(error))?;
        let by = proof.jkt;
        if is_equal(&by, jkt) {
            proof.use_up(&self.proofs, now).map_err(|error| said.proof_refused(error))?;
            return Ok(Some(Confirmation::Key(by)));
        }
        let error = OAuthError::InvalidDpopProof("The proof is not by the device's pinned key.");
        let detail = format!("a proof by key {}", PinnedKey::short(&by));
        Err(Refused {
            error,
            proven: None,
            tripwire: Some(Box::new(Tripwire { event: Event::KeyMismatch, device: Some(device.id.clone()), detail })),
        })
    }
}

/// 1. Two methods could speak for two devices.
fn credential<'a>(presented: &Presented<'_>, form: &'a Form<'_>) -> Result<Credential<'a>, Refused> {
    let invalid = |what: &'static str| Refused::plain(OAuthError::InvalidRequest(what.into()));
    let assertion = assertion::of_form(form).map_err(invalid)?;
    let methods = [
        assertion.is_some(),
        !presented.certificates.is_empty(),
        presented.has_authorization,
        form.get("client_secret").is_some(),
    ];
    let has_secret = methods[2] || methods[3];
    if methods.into_iter().filter(|is_there| *is_there).count() > 1 || (has_secret && !presented.dpop.is_empty()) {
        return Err(invalid("More than one way of authentication in one request."));
    }
    Ok(match assertion {
        Some(text) => Credential::Assertion(text),
        None if !presented.certificates.is_empty() => Credential::Certificate,
        None => Credential::Proof,
    })
}

async fn device(store: &dyn Store, client_id: &str) -> Result<Option<Device>, StoreError> {
    match DeviceId::new(client_id) {
        Ok(id) => store.device(&id).await,
        Err(_) => Ok(None),
    }
}

/// 4. The same work for a known and an unknown id.
async fn pinned(
    store: &dyn Store,
    device: Option<Device>,
    jkt: &Bytes32,
    said: &Said<'_>,
    now: Timestamp,
) -> Result<Device, Refused> {
    let pinned = device.as_ref().and_then(|device| device.key.as_ref()).map_or([0; 32], |key| key.jkt);
    let is_pinned = is_equal(&pinned, jkt);
    match device {
        Some(device) if is_pinned => Ok(device),
        Some(device) => Err(unpinned(store, device, jkt, now).await?),
        None => Err(Refused { proven: Some(*jkt), ..said.stranger(&format!("with key {}", PinnedKey::short(jkt))) }),
    }
}

/// Whom a request says that it is from; for the record of a refusal. Nothing is made of it in the ordinary case.
#[derive(Clone, Copy)]
struct Said<'a> {
    client_id: Option<&'a str>,
}

impl Said<'_> {
    fn name(&self) -> String {
        one_line(self.client_id.unwrap_or_default())
    }

    fn stranger(&self, how: &str) -> Refused {
        let is_phishing = self.client_id.is_some_and(is_phishing_client_id);
        let event = if is_phishing { Event::PhishingClient } else { Event::CodeUnenrolled };
        Refused::seen(OAuthError::InvalidClient, event, format!("'{}' {how}", self.name()))
    }

    /// A credential that is not the device's, or is worth nothing; why stands only in the record.
    fn not_its_key(&self, device: Option<&Device>, why: &str) -> Refused {
        match device {
            Some(device) if device.key.is_some() => Refused {
                error: OAuthError::InvalidClient,
                proven: None,
                tripwire: Some(Box::new(Tripwire {
                    event: Event::KeyMismatch,
                    device: Some(device.id.clone()),
                    detail: one_line(why),
                })),
            },
            _ => self.stranger(&format!("with {}", one_line(why))),
        }
    }

    fn proof_refused(&self, error: dpop::ProofError) -> Refused {
        match error {
            dpop::ProofError::Nonce { claimed } => {
                Refused { error: OAuthError::UseDpopNonce, proven: Some(claimed), tripwire: None }
            }
            dpop::ProofError::Invalid(what) => {
                let detail = format!("'{}': {what}", self.name());
                Refused::seen(OAuthError::InvalidDpopProof(what), Event::CodeRefused, detail)
            }
            dpop::ProofError::Overloaded => Refused::plain(OAuthError::Unavailable),
        }
    }
}

/// A registered id with a key that is not (yet) its own.
async fn unpinned(store: &dyn Store, device: Device, jkt: &Bytes32, now: Timestamp) -> Result<Refused, Refused> {
    // Its own pairing waits to be confirmed: the key is known, so it may be told. Anybody else learns nothing.
    let waiting = store.open_pairings(Some(&device.id), &Reach::Everywhere, now).await?;
    let is_waiting = waiting.iter().any(|found| is_equal(&found.pairing.jkt, jkt));
    let detail = format!("key {}", PinnedKey::short(jkt));
    let (error, event) = match (is_waiting, device.key.is_some()) {
        (true, _) => (OAuthError::UnauthorizedClient, Event::CodeRefused),
        (false, true) => (OAuthError::InvalidClient, Event::KeyMismatch),
        (false, false) => (OAuthError::InvalidClient, Event::CodeUnenrolled),
    };
    Ok(Refused {
        error,
        proven: Some(*jkt),
        tripwire: Some(Box::new(Tripwire { event, device: Some(device.id), detail })),
    })
}
