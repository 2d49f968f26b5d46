//! The use cases: everything that the product can do. HTTP, MQTT and the command line call the same methods on one [`Broker`].
//!
//! | file | does |
//! | --- | --- |
//! | [`registry`] | register, suspend, resume, retire devices; sites |
//! | [`import`], [`bulk`] | many devices at once: lists of them, changes and their undoing |
//! | [`pairing`] | windows, requests, polls, confirmation (design section 3) |
//! | [`field`], [`technicians`] | what people do before the devices: walk the floors, find one, let a technician in, replace it, report it stolen |
//! | [`device_authorization`] | mint a code (design section 4, steps 1 to 3) |
//! | [`approval`] | open a code, show what is verified, decide (steps 4 and 5) |
//! | [`approvers`] | who may approve a device, if not everybody who may at its site |
//! | [`token`] | polls, redemption, refresh (steps 7 and 8) |
//! | [`access_token`] | what a token says, what becomes of it: issue, introspect, revoke |
//! | [`signing`] | the keys that sign tokens, and their rotation |
//! | [`policy_set`], [`policy`] | what holds of kinds and resources, and how that is changed |
//! | [`people`] | operators, sign-in links, sessions |
//! | [`passkeys`] | add, use and remove passkeys |
//! | [`operator_keys`] | keys that people sign commands with, and the commands |
//! | [`setup`] | the first run, and the risk assessment that it writes |
//! | [`administration`] | what administrators see of other people, and do to them |
//! | [`sso`] | signing in at the organisation's identity provider |
//! | [`api_tokens`] | programs, and what they may never do |
//! | [`connections`] | who may hold a connection over MQTT |
//! | [`events`] | what devices are told without asking, read off the audit log |
//! | [`wake`], [`pacing`], [`refusals`] | what may be forgotten: who waits, when a device last polled, how much was refused |

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::config::AddressFile;
use crate::config::Sso;
use crate::config::policy::{Described, PolicyTables, Trusts};
use crate::device_auth::Authenticator;
use crate::device_auth::mtls::ClientTrust;
use crate::id::{DeviceId, OperatorId};
use crate::model::audit::{Actor, Context, Event};
use crate::model::device::Device;
use crate::model::kind::Kind;
use crate::model::operator::{Reach, Rights, Role};
use crate::model::resource::Resource;
use crate::oauth::metadata::{Endpoints, Metadata};
use crate::oauth::roots::Roots;
use crate::oauth::signing_key::SigningAlgorithm;
use crate::secret::{Bytes32, MacKey, MasterKey, Random};
use crate::store::{AuditBucket, AuditQuery, AuditVerdict, Store, StoreError};
use crate::upstream::UpstreamError;
use crate::upstream::oidc::Provider;

pub mod access_token;
pub mod administration;
pub mod api_tokens;
pub mod approval;
pub mod approvers;
mod aside;
pub mod bulk;
pub mod connections;
pub mod device_authorization;
pub mod events;
pub mod field;
pub mod import;
pub mod operator_keys;
pub mod pacing;
pub mod pairing;
pub mod passkeys;
pub mod people;
pub mod policy;
pub mod policy_set;
pub mod refusals;
pub mod registry;
pub mod setup;
pub mod signing;
pub mod sso;
pub mod technicians;
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
    /// Kinds of devices, as they are where neither the database nor the file says anything.
    pub kinds: Vec<Kind>,
    /// The same of resources.
    pub resources: Vec<Resource>,
    /// What pairgate.toml says of them: it holds, whatever the database says.
    pub file: PolicyTables,
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
    /// Where the first run may write an address; `None`: nowhere.
    pub address_file: Option<AddressFile>,
    /// The certificate that devices pin, if the server's is by our own authority.
    pub ca_pem: Option<String>,
    /// The organisation's OpenID provider, with its files read.
    pub sso: Option<Sso>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            kinds: Kind::built_in(),
            resources: Vec::new(),
            file: PolicyTables::default(),
            mtls_url: None,
            client_trust: ClientTrust::default(),
            attestation_roots: Roots::default(),
            signing_algorithms: BTreeSet::from([SigningAlgorithm::Es256]),
            signing_key_lifetime: Duration::from_secs(90 * 86_400),
            address_file: None,
            ca_pem: None,
            sso: None,
        }
    }
}

/// The product. Cheap to share; nothing authoritative is in its memory.
pub struct Broker {
    store: Arc<dyn Store>,
    clock: Clock,
    random: Random,
    endpoints: Endpoints,
    policies: policy::Policies,
    ca_pem: Option<String>,
    address_file: Option<AddressFile>,
    sso: Option<Provider>,
    attestation_roots: Roots,
    signing: signing::SigningKeys,
    signing_key_lifetime: Duration,
    authenticator: Authenticator,
    user_code_key: MacKey,
    refresh_key: MacKey,
    technician_key: MacKey,
    csrf_key: MacKey,
    passkey_key: MacKey,
    /// Without it, passkeys can't work at this address.
    webauthn: Option<webauthn_rs::Webauthn>,
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
    /// The organisation's OpenID provider can't be asked as configured.
    #[error("[sso]: {0}")]
    Sso(#[from] UpstreamError),
    /// The policy in the database can't hold here.
    #[error(transparent)]
    Policy(#[from] policy::UnusablePolicy),
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

/// Why what another process changed could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The signing keys.
    #[error(transparent)]
    Signing(#[from] signing::SigningError),
    /// The policy.
    #[error(transparent)]
    Policy(#[from] policy::RenewalError),
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
    /// Hash of that person's session.
    pub session: Option<Bytes32>,
    /// Address.
    pub peer: Option<IpAddr>,
    /// A technician's pass: nothing but to pair this one device. Such a caller has no rights besides.
    pub only_device: Option<DeviceId>,
}

impl Caller {
    /// Whoever has a shell on this machine.
    pub fn command_line() -> Self {
        let rights = Rights::everywhere(Role::Admin);
        Self {
            actor: Actor::CommandLine,
            rights,
            operator: None,
            proved_at: None,
            session: None,
            peer: None,
            only_device: None,
        }
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

    /// May the caller know of this device? Of its site's all, or of this one alone.
    fn may_know(&self, device: &Device) -> bool {
        match &self.only_device {
            Some(only) => *only == device.id,
            None => self.reach().has(&device.facts.site),
        }
    }

    /// May the caller pair this device? The one thing that a technician's pass is for.
    fn must_pair(&self, device: &Device) -> Result<(), UseCaseError> {
        match &self.only_device {
            Some(only) if *only == device.id => Ok(()),
            _ => self.must_at(&device.facts.site, Role::may_pair),
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
            resources,
            file,
            mtls_url,
            client_trust,
            attestation_roots,
            signing_algorithms,
            signing_key_lifetime,
            address_file,
            ca_pem,
            sso,
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
        let trusts = Trusts { makers: !attestation_roots.is_empty(), authorities: !client_trust.is_empty() };
        let policies = policy::Policies::open(Described { kinds, resources }, file, trusts, store.policy().await?)?;
        let mut algorithms = signing_algorithms;
        algorithms.extend(policies.now().algorithms());
        let endpoints = Endpoints::new(&issuer, mtls_url.as_ref());
        let callback = format!("{}{}", endpoints.issuer, sso::CALLBACK);
        let sso = sso.map(|settings| Provider::new(settings, callback)).transpose()?;
        let authenticator = Authenticator::new(&random, &endpoints.issuer, client_trust)?;
        authenticator.certify(policies.now().certified());
        Ok(Self {
            authenticator,
            endpoints,
            user_code_key: master.mac_key("user code"),
            refresh_key: master.mac_key("refresh token"),
            technician_key: master.mac_key("technician code"),
            csrf_key: master.mac_key("csrf token"),
            passkey_key: master.mac_key("passkey user handle"),
            webauthn: passkeys::webauthn(&issuer),
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
            policies,
            ca_pem,
            address_file,
            sso,
            attestation_roots,
        })
    }

    /// Sign-ins and refusals from `since` on, in spans of so many milliseconds; without those in which nothing happened.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn audit_series(
        &self,
        caller: &Caller,
        since: Timestamp,
        bucket_ms: i64,
    ) -> Result<Vec<AuditBucket>, StoreError> {
        self.store.audit_series(since, bucket_ms, &caller.reach()).await
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

    /// All kinds, as they are now.
    pub fn kinds(&self) -> Vec<Arc<Kind>> {
        self.policy().kinds().to_vec()
    }

    /// A kind by its id, as it is now.
    pub fn kind(&self, id: &str) -> Option<Arc<Kind>> {
        self.policy().kind(id).cloned()
    }

    /// A resource by its identifier, as it is now.
    pub fn resource(&self, id: &str) -> Option<Arc<Resource>> {
        self.policy().resource(id).cloned()
    }

    /// Who waits for what.
    pub const fn wake(&self) -> &wake::Wake {
        &self.wake
    }

    /// Authorization server metadata (RFC 8414).
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata::new(&self.endpoints, self.policy().scopes(), self.authenticator.has_authorities())
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

    /// Renews the policy and the signing keys, and wakes all that wait, if another process, such as the command line, has changed the database. To be called once a second.
    ///
    /// # Errors
    /// If the store fails, or holds a policy or a signing key that can't be read; the former ones then stay in use.
    pub async fn look_for_changes_of_others(&self) -> Result<(), ChangeError> {
        let counter = self.store.change_counter().await?;
        if self.wake.is_anybody_waiting() && self.wake.is_new_counter(counter) {
            self.wake.everybody();
        }
        // Also if nobody waits: until then, a key that has leaked would go on signing.
        self.look_for_rotations(counter).await?;
        Ok(self.look_for_policy(counter).await?)
    }

    /// Notes a refusal of somebody who proved nothing: at most so many records per address and minute, the rest as a number.
    async fn note_refusal(&self, event: Event, device: Option<&DeviceId>, detail: &str, peer: Option<IpAddr>) {
        let context = Context { now: self.now(), actor: Actor::Anonymous, peer };
        self.note_bounded(event, device, detail, &context).await;
    }

    /// The same for whoever is known, and may repeat himself all the same.
    async fn note_bounded(&self, event: Event, device: Option<&DeviceId>, detail: &str, context: &Context) {
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

    async fn note(&self, event: Event, device: Option<&DeviceId>, detail: &str, context: &Context) {
        if let Err(error) = self.store.record(event, device, detail, context).await {
            // The refusal itself stands; only its record is lost, and that is said where it can be.
            tracing::error!(%error, event = event.as_str(), "a refusal was not recorded");
        }
    }

    fn context(&self, caller: &Caller) -> Context {
        Context { now: self.now(), actor: caller.actor.clone(), peer: caller.peer }
    }
}
