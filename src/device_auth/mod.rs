//! Who is calling? From what a request presents to a device of the registry, or one refusal for all reasons.
//!
//! Steps, in this order, because a refusal must not tell which part was wrong, and because nothing costly or lasting may happen for a stranger:
//! 1. Exactly one authentication method.
//! 2. The proof is well formed and for this endpoint ([`dpop`]).
//! 3. Its nonce is ours, for this key, and fresh ([`nonce`]); otherwise `use_dpop_nonce`, the same for everybody.
//! 4. Its signature fits.
//! 5. Its `jti` is new ([`replay`]).
//! 6. The registry pins this key to this `client_id`. Only here do known and unknown devices part, and both get `invalid_client`.

use std::net::IpAddr;

use crate::clock::Timestamp;
use crate::id::DeviceId;
use crate::model::audit::{Event, one_line};
use crate::model::device::{Device, PinnedKey};
use crate::oauth::error::OAuthError;
use crate::oauth::form::Form;
use crate::secret::{Bytes32, Random, SecretError, is_equal};
use crate::store::{Store, StoreError};

pub mod attestation;
pub mod dpop;
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
    /// What its tokens are bound to. Another type, because with other methods it is another key.
    pub confirmation: Confirmation,
}

/// What a token is bound to (RFC 7800, RFC 9449 section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// Thumbprint of the proof's key.
    pub jkt: Bytes32,
}

/// A refusal, and what the audit log should say of it.
#[derive(Debug)]
pub struct Refused {
    /// The answer.
    pub error: OAuthError,
    /// The key of an authentic proof: the answer carries it the next nonce.
    pub proven: Option<Bytes32>,
    /// For the audit log; none for what is no attack (a missing nonce).
    pub tripwire: Option<Tripwire>,
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
        Self { error, proven: None, tripwire: Some(Tripwire { event, device: None, detail }) }
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

/// Runs the steps.
///
/// # Errors
/// [`Refused`]: the answer, and what to record.
pub async fn authenticate(
    store: &dyn Store,
    proofs: &Proofs,
    presented: &Presented<'_>,
    form: &Form<'_>,
    now: Timestamp,
) -> Result<AuthenticatedDevice, Refused> {
    // 1. Two methods could speak for two devices.
    let others =
        [presented.has_authorization, form.get("client_assertion").is_some(), form.get("client_secret").is_some()];
    let others = others.into_iter().filter(|is_there| *is_there).count();
    if others > 1 || (others == 1 && !presented.dpop.is_empty()) {
        return Err(Refused::plain(OAuthError::InvalidRequest(
            "More than one way of authentication in one request.".into(),
        )));
    }
    let client_id = form.require("client_id").map_err(Refused::plain)?;
    // Made only for a refusal: the ordinary request needs neither.
    let said = || one_line(client_id);
    let event = if is_phishing_client_id(client_id) { Event::PhishingClient } else { Event::CodeUnenrolled };
    let proof = match presented.dpop.as_slice() {
        [] => return Err(Refused::seen(OAuthError::InvalidClient, event, format!("'{}' without a proof", said()))),
        [proof] => *proof,
        _ => return Err(Refused::plain(OAuthError::InvalidDpopProof("More than one DPoP header."))),
    };
    // 2 to 5.
    let jkt = dpop::check(proofs, proof, presented.method, presented.endpoint, now).map_err(|error| match error {
        dpop::ProofError::Nonce { claimed } => {
            Refused { error: OAuthError::UseDpopNonce, proven: Some(claimed), tripwire: None }
        }
        dpop::ProofError::Invalid(what) => {
            Refused::seen(OAuthError::InvalidDpopProof(what), Event::CodeRefused, format!("'{}': {what}", said()))
        }
        dpop::ProofError::Overloaded => Refused::plain(OAuthError::Unavailable),
    })?;
    // 6. The same work for a known and an unknown id.
    let device = match DeviceId::new(client_id) {
        Ok(id) => store.device(&id).await?,
        Err(_) => None,
    };
    let pinned = device.as_ref().and_then(|device| device.key.as_ref()).map_or([0; 32], |key| key.jkt);
    let is_pinned = is_equal(&pinned, &jkt);
    match device {
        Some(device) if is_pinned => Ok(AuthenticatedDevice { device, confirmation: Confirmation { jkt } }),
        Some(device) => Err(unpinned(store, device, &jkt, now).await?),
        None => Err(Refused {
            proven: Some(jkt),
            ..Refused::seen(
                OAuthError::InvalidClient,
                event,
                format!("'{}' with key {}", said(), PinnedKey::short(&jkt)),
            )
        }),
    }
}

/// A registered id with a key that is not (yet) its own.
async fn unpinned(store: &dyn Store, device: Device, jkt: &Bytes32, now: Timestamp) -> Result<Refused, Refused> {
    // Its own pairing waits to be confirmed: the key is known, so it may be told. Anybody else learns nothing.
    let waiting = store.open_pairings(Some(&device.id), now).await?;
    let is_waiting = waiting.iter().any(|found| is_equal(&found.pairing.jkt, jkt));
    let detail = format!("key {}", PinnedKey::short(jkt));
    let (error, event) = match (is_waiting, device.key.is_some()) {
        (true, _) => (OAuthError::UnauthorizedClient, Event::CodeRefused),
        (false, true) => (OAuthError::InvalidClient, Event::KeyMismatch),
        (false, false) => (OAuthError::InvalidClient, Event::CodeUnenrolled),
    };
    Ok(Refused { error, proven: Some(*jkt), tripwire: Some(Tripwire { event, device: Some(device.id), detail }) })
}
