//! The use cases: everything that the product can do. HTTP, the command line and (later) MQTT call the same methods on one [`Broker`].
//!
//! | file | does |
//! | --- | --- |
//! | [`registry`] | register, suspend, resume, retire devices; sites |
//! | [`pairing`] | windows, requests, polls, confirmation (design section 3) |
//! | [`device_authorization`] | mint a code (design section 4, steps 1 to 3) |
//! | [`approval`] | open a code, show what is verified, decide (steps 4 and 5) |
//! | [`token`] | polls, redemption, refresh (steps 7 and 8) |
//! | [`access_token`] | what a token says, what becomes of it: issue, introspect, revoke |
//! | [`signing`] | the keys that sign tokens, and their rotation |
//! | [`people`] | operators, sign-in links, sessions |
//! | [`api_tokens`] | programs, and what they may never do |
//! | [`wake`], [`pacing`], [`refusals`] | what may be forgotten: who waits, when a device last polled, how much was refused |

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::device_auth::Authenticator;
use crate::device_auth::mtls::ClientTrust;
use crate::id::OperatorId;
use crate::model::audit::{Actor, Context, Event};
use crate::model::kind::{Kind, OFFLINE_ACCESS};
use crate::model::operator::{Reach, Rights, Role};
use crate::model::resource::Resource;
use crate::oauth::metadata::{Endpoints, Metadata};
use crate::oauth::roots::Roots;
use crate::oauth::signing_key::SigningAlgorithm;
use crate::secret::{MacKey, MasterKey, Random};
use crate::store::{AuditQuery, AuditVerdict, Store, StoreError};

pub mod access_token;
pub mod api_tokens;
pub mod approval;
pub mod device_authorization;
pub mod pacing;
pub mod pairing;
pub mod people;
pub mod refusals;
pub mod registry;
pub mod signing;
pub mod token;
pub mod wake;

/// What a broker is made of.
pub struct Parts {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// The secret that is not in the store.
    pub master: MasterKey,
    /// The issuer.
    pub issuer: url::Url,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// What configuration says.
    pub policy: Policy,
}

/// What configuration says about devices and resources.
pub struct Policy {
    /// Kinds of devices.
    pub kinds: Vec<Kind>,
    /// Resources with settings of their own.
    pub resources: Vec<Resource>,
    /// Base of the endpoints where client certificates are asked for.
    pub mtls_url: Option<url::Url>,
    /// Authorities for client certificates.
    pub client_trust: ClientTrust,
    /// Makers who are believed that a key is kept in hardware.
    pub attestation_roots: Roots,
    /// What tokens are signed with, besides what resources ask for; ES256 in any case.
    pub signing_algorithms: BTreeSet<SigningAlgorithm>,
    /// How old a signing key gets before it is rotated.
    pub signing_key_lifetime: Duration,
    /// The certificate that devices pin, if the server's is by our own authority.
    pub ca_pem: Option<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            kinds: Kind::built_in(),
            resources: Vec::new(),
            mtls_url: None,
            client_trust: ClientTrust::default(),
            attestation_roots: Roots::default(),
            signing_algorithms: BTreeSet::from([SigningAlgorithm::Es256]),
            signing_key_lifetime: Duration::from_secs(90 * 86_400),
            ca_pem: None,
        }
    }
}

/// The product. Cheap to share; nothing authoritative is in its memory.
pub struct Broker {
    store: Arc<dyn Store>,
    clock: Clock,
    random: Random,
    endpoints: Endpoints,
    kinds: Vec<Kind>,
    resources: Vec<Resource>,
    ca_pem: Option<String>,
    attestation_roots: Roots,
    signing: signing::SigningKeys,
    signing_key_lifetime: Duration,
    authenticator: Authenticator,
    user_code_key: MacKey,
    refresh_key: MacKey,
    csrf_key: MacKey,
    shown_key: MacKey,
    pacer: pacing::Pacer,
    refusals: refusals::Refusals,
    wake: wake::Wake,
    /// Held from the look at the guess budgets to the count of the guess: else guesses at the same moment would all find the budget unspent.
    guessing: tokio::sync::Mutex<()>,
}

/// Why a use case did not happen.
#[derive(Debug, thiserror::Error)]
pub enum UseCaseError {
    /// The caller's role does not allow it.
    #[error("your role does not allow this; ask an administrator")]
    NotAllowed,
    /// The caller is a program, and it is for people to decide.
    #[error("only a person can do this, signed in on the pages; a program with a token never can")]
    OnlyPeople,
    /// It is dangerous, and the caller proved too long ago who it is.
    #[error("sign in once more; this needs a sign-in of the last 5 minutes")]
    NotFresh,
    /// There is no such thing, or it is not the caller's.
    #[error("{0}")]
    NotFound(String),
    /// The input is wrong, or the moment; each says what to do.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
    /// The store failed; nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The machine's generator failed.
    #[error(transparent)]
    Secret(#[from] crate::secret::SecretError),
    /// The signing keys could not be read or changed.
    #[error(transparent)]
    Signing(#[from] signing::SigningError),
}

impl UseCaseError {
    fn refused(line: impl Into<String>) -> Self {
        Self::Refused(vec![line.into()])
    }
}

/// Why a broker could not be made.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The machine's generator failed.
    #[error(transparent)]
    Secret(#[from] crate::secret::SecretError),
    /// The signing keys can't be read: the master key is not the one of this database, for example.
    #[error(transparent)]
    Signing(#[from] signing::SigningError),
    /// The clock is far behind what is recorded.
    #[error(
        "the clock of this machine says {now}, but the newest record is from {newest}. Set the clock; if the record is wrong, start once with: pairgate serve --accept-clock"
    )]
    ClockBehind {
        /// Machine.
        now: String,
        /// Record.
        newest: String,
    },
}

/// How far the newest record may be ahead of the clock before a person must look.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

/// Who calls a use case, and from where.
#[derive(Clone, Debug)]
pub struct Caller {
    /// For the record.
    pub actor: Actor,
    /// What the caller may do where.
    pub rights: Rights,
    /// The person, if it is one: only a person approves.
    pub operator: Option<OperatorId>,
    /// When that person last proved who it is.
    pub proved_at: Option<Timestamp>,
    /// Address.
    pub peer: Option<IpAddr>,
}

impl Caller {
    /// Whoever has a shell on this machine.
    pub fn command_line() -> Self {
        let rights = Rights::everywhere(Role::Admin);
        Self { actor: Actor::CommandLine, rights, operator: None, proved_at: None, peer: None }
    }

    /// Which sites the caller may know of.
    pub fn reach(&self) -> Reach {
        self.rights.reach()
    }

    /// Has the caller this right at any site? For what is no site's own; what is of a site is asked with [`Self::must_at`].
    fn must(&self, may: fn(Role) -> bool) -> Result<(), UseCaseError> {
        if self.rights.highest().is_some_and(may) { Ok(()) } else { Err(UseCaseError::NotAllowed) }
    }

    /// Has the caller this right at this site? Of a site where the caller is nothing, there is nothing.
    fn must_at(&self, site: &str, may: fn(Role) -> bool) -> Result<(), UseCaseError> {
        match self.rights.role_at(site) {
            Some(role) if may(role) => Ok(()),
            Some(_) => Err(UseCaseError::NotAllowed),
            None => Err(UseCaseError::NotFound("there is nothing of this name at your sites".into())),
        }
    }

    /// Has the caller this right everywhere? For what holds for all sites.
    fn must_everywhere(&self, may: fn(Role) -> bool) -> Result<(), UseCaseError> {
        if self.rights.role_everywhere().is_some_and(may) { Ok(()) } else { Err(UseCaseError::NotAllowed) }
    }
}

impl Broker {
    /// Makes a broker, and the signing keys that the store lacks. `accept_clock` starts although the newest record is from the future.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(parts: Parts, accept_clock: bool) -> Result<Self, OpenError> {
        let Parts { store, master, issuer, clock, random, policy } = parts;
        let Policy {
            kinds,
            mut resources,
            mtls_url,
            client_trust,
            attestation_roots,
            signing_algorithms,
            signing_key_lifetime,
            ca_pem,
        } = policy;
        if let Some(newest) = store.latest_instant().await? {
            let now = clock.now();
            if newest.since(now) > CLOCK_TOLERANCE && !accept_clock {
                return Err(OpenError::ClockBehind { now: now.rfc3339(), newest: newest.rfc3339() });
            }
            if !accept_clock {
                clock.raise_to(newest);
            }
        }
        // What a kind names and nobody has described has no limits of its own.
        for named in kinds.iter().flat_map(|kind| &kind.resources) {
            if !resources.iter().any(|resource| resource.id == *named) {
                resources.push(Resource::plain(named));
            }
        }
        let mut algorithms = signing_algorithms;
        algorithms.extend(resources.iter().map(|resource| resource.signing_algorithm));
        let endpoints = Endpoints::new(&issuer, mtls_url.as_ref());
        let certified = kinds.iter().filter(|kind| kind.certified).map(|kind| kind.id.clone()).collect();
        Ok(Self {
            authenticator: Authenticator::new(&random, &endpoints.issuer, client_trust, certified)?,
            endpoints,
            user_code_key: master.mac_key("user code"),
            refresh_key: master.mac_key("refresh token"),
            csrf_key: master.mac_key("csrf token"),
            shown_key: master.mac_key("shown on the approve page"),
            pacer: pacing::Pacer::default(),
            refusals: refusals::Refusals::default(),
            wake: wake::Wake::default(),
            guessing: tokio::sync::Mutex::default(),
            signing: signing::SigningKeys::open(Arc::clone(&store), master, random.clone(), clock.clone(), algorithms)
                .await?,
            signing_key_lifetime,
            store,
            clock,
            random,
            kinds,
            resources,
            ca_pem,
            attestation_roots,
        })
    }

    /// Records that a person had the broker start although its newest record is from the future. From then on this is the newest record.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn record_accepted_clock(&self, caller: &Caller) -> Result<(), StoreError> {
        self.store.record(Event::ClockAccepted, None, "", &self.context(caller)).await
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Addresses.
    pub const fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// All kinds.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// A kind by its id.
    pub fn kind(&self, id: &str) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.id == id)
    }

    /// A resource by its identifier.
    pub fn resource(&self, id: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.id == id)
    }

    /// Who waits for what.
    pub const fn wake(&self) -> &wake::Wake {
        &self.wake
    }

    /// Authorization server metadata (RFC 8414).
    pub fn metadata(&self) -> Metadata<'_> {
        let mut scopes: Vec<&str> =
            self.kinds.iter().flat_map(|kind| kind.scopes.iter().map(|(scope, _)| scope.as_str())).collect();
        scopes.extend(self.kinds.iter().any(|kind| kind.offline_access).then_some(OFFLINE_ACCESS));
        scopes.sort_unstable();
        scopes.dedup();
        Metadata::new(&self.endpoints, scopes, self.authenticator.has_authorities())
    }

    /// The JWK Set (RFC 7517 section 5).
    pub fn jwks(&self) -> serde_json::Value {
        self.signing.jwks()
    }

    /// Records of the audit log.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn audit(
        &self,
        caller: &Caller,
        query: &AuditQuery,
    ) -> Result<Vec<crate::model::audit::Record>, StoreError> {
        self.store.audit(query, &caller.reach()).await
    }

    /// Walks the audit chain.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn audit_verify(&self) -> Result<AuditVerdict, StoreError> {
        self.store.verify_audit().await
    }

    /// Is this the hash of that record, as an earlier check printed it?
    ///
    /// # Errors
    /// If the store fails.
    pub async fn is_audit_anchor(&self, id: i64, hash: &str) -> Result<bool, StoreError> {
        let stored = self.store.audit_hash(id).await?;
        Ok(stored.is_some_and(|stored| crate::secret::b64u(&stored) == hash))
    }

    /// Sign-ins and refusals since.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn audit_counts(&self, caller: &Caller, since: Timestamp) -> Result<(u64, u64), StoreError> {
        self.store.audit_counts(since, &caller.reach()).await
    }

    /// Renews the signing keys and wakes all that wait, if another process, such as the command line, has changed the database. To be called once a second.
    ///
    /// # Errors
    /// If the store fails, or holds a signing key that can't be read; the former keys then stay in use.
    pub async fn look_for_changes_of_others(&self) -> Result<(), signing::SigningError> {
        let counter = self.store.change_counter().await?;
        if self.wake.is_anybody_waiting() && self.wake.is_new_counter(counter) {
            self.wake.everybody();
        }
        // Also if nobody waits: until then, a key that has leaked would go on signing.
        self.look_for_rotations(counter).await
    }

    /// Notes a refusal of somebody who proved nothing: at most so many records per address and minute, the rest as a number.
    async fn note_refusal(
        &self,
        event: Event,
        device: Option<&crate::id::DeviceId>,
        detail: &str,
        peer: Option<IpAddr>,
    ) {
        let context = Context { now: self.now(), actor: Actor::Anonymous, peer };
        self.note_bounded(event, device, detail, &context).await;
    }

    /// The same for whoever is known, and may repeat himself all the same.
    async fn note_bounded(&self, event: Event, device: Option<&crate::id::DeviceId>, detail: &str, context: &Context) {
        let (is_recorded, suppressed) = self.refusals.admit(context.peer, context.now);
        if let Some((address, count)) = suppressed {
            let detail = format!("{count} more from {address}");
            self.note(Event::Suppressed, None, &detail, context).await;
        }
        if is_recorded {
            self.note(event, device, detail, context).await;
            self.wake.pages();
        }
    }

    async fn note(&self, event: Event, device: Option<&crate::id::DeviceId>, detail: &str, context: &Context) {
        if let Err(error) = self.store.record(event, device, detail, context).await {
            // The refusal itself stands; only its record is lost, and that is said where it can be.
            tracing::error!(%error, event = event.as_str(), "a refusal was not recorded");
        }
    }

    fn context(&self, caller: &Caller) -> Context {
        Context { now: self.now(), actor: caller.actor.clone(), peer: caller.peer }
    }
}
