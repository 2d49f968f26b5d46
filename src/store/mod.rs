//! Where everything is kept: the traits, and the contract that each backend fulfils (`tests/store_contract/` holds them to it).
//!
//! The contract, for every mutating method:
//! 1. It is **one transaction**, durable before it returns. What it answered is never lost, also if the process is killed right after.
//! 2. It is guarded by the expected state in the same statement that changes it (`WHERE … AND state = …`). Losing a race is an ordinary answer, not an error.
//! 3. It writes its audit record **in the same transaction**; there is no change without a record. Only `slow_down`, `reveal_pairing` and
//!    `touch_session` write none: they move a protocol on and decide nothing. What was refused has a record where somebody should see it: a second
//!    approver, a spent link, a foreign key (`claim_grant`, `use_link`, `revoke_grant`, `redeem_grant`); every other refusal leaves no trace here.
//! 4. `StoreError` means that nothing was changed. The caller answers 503; it never guesses.
//!
//! Reads see every change that was acknowledged before they began.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{DeviceId, GrantId, OperatorId, PairingId};
use crate::model::audit::{Context, Event, Record};
use crate::model::device::{Device, DeviceFacts, DeviceState, KeyAssurance};
use crate::model::grant::Grant;
use crate::model::kind::RefreshPolicy;
use crate::model::operator::{Operator, Reach, Role};
use crate::model::pairing::{Pairing, Says};
use crate::model::site::Site;
use crate::oauth::scope::Scope;
use crate::oauth::signing_key::SigningAlgorithm;
use crate::secret::Bytes32;

pub mod sqlite;

/// The store could not do it; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Too much is waiting to be written.
    #[error("the database is overloaded")]
    Busy,
    /// The database failed.
    #[error("the database failed: {0}")]
    Failed(String),
}

/// Answer of the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// All that a backend does.
pub trait Store: DeviceStore + PairingStore + GrantStore + OperatorStore + AuditStore {}
impl<S: DeviceStore + PairingStore + GrantStore + OperatorStore + AuditStore> Store for S {}

/// Opens the store in a data directory, and brings its tables up to date.
///
/// # Errors
/// If it can't be opened, or its migrations are not those of this program.
pub fn open(data: &Path) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(sqlite::SqliteStore::open(&data.join("pairgate.db"))?))
}

/// Which devices to list.
#[derive(Clone, Debug, Default)]
pub struct DeviceQuery {
    /// Part of the id, name, room, serial or asset tag; empty for all.
    pub text: String,
    /// Only this state.
    pub state: Option<DeviceState>,
    /// Only this kind.
    pub kind: Option<String>,
    /// Only this site.
    pub site: Option<String>,
    /// Only this floor.
    pub floor: Option<String>,
    /// Skip so many.
    pub offset: u32,
    /// At most so many.
    pub limit: u32,
}

/// Outcome of a change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// Done; it was in this state before.
    Changed(DeviceState),
    /// There is no such device.
    NotFound,
    /// Not from this state.
    Refused(DeviceState),
}

/// How many devices are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// Registered, not paired.
    pub registered: u64,
    /// Active.
    pub active: u64,
    /// Suspended.
    pub suspended: u64,
}

/// Devices and sites.
#[async_trait]
pub trait DeviceStore: Send + Sync {
    /// Adds a device in state *registered*. `false` if the id is taken, also by a retired device.
    async fn register_device(&self, id: &DeviceId, facts: &DeviceFacts, context: &Context) -> Result<bool>;
    /// A device by its id. The hot path: one read by a unique index.
    async fn device(&self, id: &DeviceId) -> Result<Option<Device>>;
    /// A device by its row.
    async fn device_by_row(&self, row: i64) -> Result<Option<Device>>;
    /// The device's pinned key as JWK. A read by its thumbprint.
    async fn pinned_key(&self, device: &Device) -> Result<Option<String>>;
    /// Devices that match, by id, and how many match in all.
    async fn devices(&self, query: &DeviceQuery, reach: &Reach) -> Result<(Vec<Device>, u64)>;
    /// How many are in each state.
    async fn device_counts(&self, reach: &Reach) -> Result<DeviceCounts>;
    /// Changes a state by the table of [`DeviceState::may_become`]; `Active` for a device without key means *registered*.
    /// Suspending and retiring end all its sign-ins and pairings in the same transaction; retiring marks its keys *retired*.
    async fn set_device_state(&self, id: &DeviceId, to: DeviceState, context: &Context) -> Result<StateChange>;
    /// A site.
    async fn site(&self, id: &str) -> Result<Option<Site>>;
    /// All sites, by id.
    async fn sites(&self, reach: &Reach) -> Result<Vec<Site>>;
    /// Adds a site. `false` if the id is taken.
    async fn add_site(&self, site: &Site, context: &Context) -> Result<bool>;
    /// Changes all of a site but its id. `false` if there is none.
    async fn set_site(&self, site: &Site, context: &Context) -> Result<bool>;
}

/// What a pairing window is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowSubject {
    /// One device.
    Device(DeviceId),
    /// All registered devices of a site.
    Site(String),
}

/// A pairing request that passed the checks of its message.
#[derive(Clone, Debug)]
pub struct NewPairing {
    /// Minted by the broker.
    pub id: PairingId,
    /// For which device.
    pub device: DeviceId,
    /// The key that signed the request.
    pub jkt: Bytes32,
    /// The same, as canonical JSON.
    pub jwk: String,
    /// How the key is kept, as the device says.
    pub key_assurance: KeyAssurance,
    /// The key that vouches for it, of a rotation.
    pub voucher: Option<Voucher>,
    /// What the device says.
    pub says: Says,
    /// Its commitment.
    pub commitment: Bytes32,
    /// The broker's nonce.
    pub broker_nonce: Bytes32,
    /// The broker's key that the answer names.
    pub broker_jkt: Bytes32,
    /// Hash of key and `jti`.
    pub request_hash: Bytes32,
    /// When it ends by itself.
    pub expires_at: Timestamp,
}

/// A key that vouches for the one that shall replace it.
#[derive(Clone, Copy, Debug)]
pub struct Voucher {
    /// Its thumbprint; it must be the device's present key.
    pub jkt: Bytes32,
    /// Hash of key and `jti` of its statement.
    pub statement_hash: Bytes32,
}

/// Why a pairing request was refused. For the audit log only: the device gets one answer for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairingRefusal {
    /// No such device id.
    UnknownDevice,
    /// Suspended or retired.
    DeviceNotExpected,
    /// The serial number is not the registered one.
    WrongSerial,
    /// No window is open for it, and no key vouches for it.
    WindowClosed,
    /// The key that vouches is not the device's present one.
    NotVouched,
    /// The key was retired or replaced.
    DeadKey,
    /// The key belongs to another device.
    KeyOfAnotherDevice,
    /// The same request came before.
    Replayed,
    /// Too many wait for this device already.
    TooMany,
}

impl PairingRefusal {
    /// In words, for the audit log.
    pub const fn words(self) -> &'static str {
        match self {
            Self::UnknownDevice => "no such device",
            Self::DeviceNotExpected => "the device is suspended or retired",
            Self::WrongSerial => "the serial number is not the registered one",
            Self::WindowClosed => "pairing is not open for it",
            Self::NotVouched => "the key that vouches for it is not the device's present one",
            Self::DeadKey => "the key was retired or replaced",
            Self::KeyOfAnotherDevice => "the key belongs to another device",
            Self::Replayed => "the request was sent before",
            Self::TooMany => "too many pairings wait for this device",
        }
    }
}

/// A pairing with the device that it is for.
#[derive(Clone, Debug)]
pub struct PairingOfDevice {
    /// The pairing.
    pub pairing: Pairing,
    /// The device.
    pub device: Device,
}

/// Windows and pairings.
#[async_trait]
pub trait PairingStore: Send + Sync {
    /// Opens a window until `closes_at`. `false` if there is no such device or site.
    async fn open_window(&self, subject: &WindowSubject, closes_at: Timestamp, context: &Context) -> Result<bool>;
    /// Closes it. `false` if it was not open.
    async fn close_window(&self, subject: &WindowSubject, context: &Context) -> Result<bool>;
    /// When an open window closes.
    async fn window(&self, subject: &WindowSubject, now: Timestamp) -> Result<Option<Timestamp>>;
    /// Stores a pairing, or says why not. A refusal stores nothing; its record is the caller's, who bounds how many there are.
    async fn request_pairing(
        &self,
        new: &NewPairing,
        context: &Context,
    ) -> Result<std::result::Result<(), PairingRefusal>>;
    /// A pairing with its device.
    async fn pairing(&self, id: &PairingId) -> Result<Option<PairingOfDevice>>;
    /// All that wait at `now`, oldest first; of one device, if given.
    async fn open_pairings(
        &self,
        device: Option<&DeviceId>,
        reach: &Reach,
        now: Timestamp,
    ) -> Result<Vec<PairingOfDevice>>;
    /// Takes the revealed nonce; requested → revealed. `true` if the pairing waits and now holds exactly this nonce (so it may be repeated).
    /// In the same statement the key's assurance is raised to `assurance`, if that is higher; it never falls.
    async fn reveal_pairing(
        &self,
        id: &PairingId,
        device_nonce: &Bytes32,
        assurance: KeyAssurance,
        context: &Context,
    ) -> Result<bool>;
    /// Counts wrong digits, and ends the pairing at the limit. Tries left; `None` if it does not wait any more.
    async fn record_wrong_digits(&self, id: &PairingId, context: &Context) -> Result<Option<u8>>;
    /// Pins the key: revealed → confirmed. In the same transaction: the device becomes active, its former key *replaced*, all its sign-ins end, rival
    /// pairings are refused, and a window of the device closes. `false` if the pairing does not wait any more, its key has been taken since, or the key
    /// that vouched for it is not the device's any more.
    async fn confirm_pairing(&self, id: &PairingId, context: &Context) -> Result<bool>;
    /// An operator says no. `false` if it does not wait any more.
    async fn decline_pairing(&self, id: &PairingId, context: &Context) -> Result<bool>;
}

/// A code to be stored.
#[derive(Clone, Debug)]
pub struct NewGrant {
    /// The device's row.
    pub device_row: i64,
    /// Its id, for the record.
    pub device: DeviceId,
    /// The key that asked.
    pub jkt: Bytes32,
    /// SHA-256 of the device code's secret.
    pub device_code_hash: Bytes32,
    /// Keyed hash of the user code.
    pub user_code_hash: Bytes32,
    /// Granted scope.
    pub scope: Scope,
    /// Audience.
    pub resource: String,
    /// When the codes die.
    pub expires_at: Timestamp,
    /// Budget of the device's kind.
    pub codes_per_hour: i64,
    /// The assertion that was shown, with the instant from which on nobody takes it any more: it counts once, also after a restart.
    pub assertion: Option<(Bytes32, Timestamp)>,
}

/// Outcome of [`GrantStore::mint_grant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mint {
    /// Stored.
    Minted(GrantId),
    /// The hour's budget is spent; so many seconds until it is new.
    OverBudget {
        /// Seconds.
        retry_after: i64,
    },
    /// The device is not active with this key any more.
    Lost,
    /// The assertion was used before.
    Replayed,
}

/// Outcome of [`GrantStore::claim_grant`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// It is this approver's.
    Claimed,
    /// Another approver was first.
    AnothersClaim,
    /// It is not pending any more.
    Gone,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Let it sign in.
    Approve,
    /// Don't.
    Deny,
    /// Don't, and raise the alarm.
    Report,
}

/// Outcome of [`GrantStore::redeem_grant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redemption {
    /// This caller, and no other, may issue the tokens.
    Redeemed,
    /// The approver may not approve any more; the grant is now denied.
    ApproverLost,
    /// Another poll was first, or it is not approved, or the device or its key changed.
    Lost,
}

/// Outcome of [`GrantStore::rotate_refresh`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The successor is in force.
    Rotated,
    /// The predecessor came again within seconds: its successor, the same as before, stays in force.
    Retried,
    /// An old token came again later: the sign-in is revoked.
    Reused,
    /// The device holds a newer sign-in for the same resource, and that one lives: two boxes have its key. Both sign-ins are revoked.
    Forked,
    /// Unknown, ended, or not this device's.
    Gone,
}

/// A pending sign-in with its device.
#[derive(Clone, Debug)]
pub struct GrantOfDevice {
    /// The grant.
    pub grant: Grant,
    /// The device.
    pub device: Device,
    /// Name of the approver who opened it.
    pub claimed_by: Option<String>,
}

/// Sign-ins.
#[async_trait]
pub trait GrantStore: Send + Sync {
    /// Stores a code: *pending*. The device's former open sign-in is revoked in the same transaction (one per device), and its hourly budget is charged.
    async fn mint_grant(&self, new: &NewGrant, context: &Context) -> Result<Mint>;
    /// A grant. The hot path: one read by row id.
    async fn grant(&self, id: GrantId) -> Result<Option<Grant>>;
    /// A pending grant by its user code.
    async fn grant_by_user_code(&self, hash: &Bytes32) -> Result<Option<Grant>>;
    /// All that are pending at `now`, oldest first, at most `limit`.
    async fn pending_grants(&self, reach: &Reach, now: Timestamp, limit: u32) -> Result<Vec<GrantOfDevice>>;
    /// Adds 5 s to the interval, up to 60 s, for good.
    async fn slow_down(&self, id: GrantId) -> Result<()>;
    /// Gives the pending grant to this approver. Repeating it by the same approver sets the new number.
    async fn claim_grant(
        &self,
        id: GrantId,
        by: OperatorId,
        confirmation_number: Option<&str>,
        context: &Context,
    ) -> Result<ClaimOutcome>;
    /// Decides a pending grant that is this approver's. `false` if it is not (any more).
    async fn decide_grant(&self, id: GrantId, by: OperatorId, decision: Decision, context: &Context) -> Result<bool>;
    /// Counts a wrong number of this approver's, and denies the grant at the limit. Tries left; `None` if it is not pending any more.
    async fn record_wrong_number(&self, id: GrantId, by: OperatorId, context: &Context) -> Result<Option<u8>>;
    /// approved → redeemed, once, for this key, if the device is active with this key, the codes live, and the approver may still approve.
    async fn redeem_grant(
        &self,
        id: GrantId,
        jkt: &Bytes32,
        refresh: Option<(Bytes32, RefreshPolicy)>,
        context: &Context,
    ) -> Result<Redemption>;
    /// Ends a sign-in whose tokens are out, for a reason that is an event. `false` if there was nothing to end.
    async fn revoke_grant(&self, id: GrantId, event: Event, detail: &str, context: &Context) -> Result<bool>;
    /// Ends every sign-in whose tokens are out, for a reason that is an event: one record. How many of them could still have been renewed.
    async fn revoke_all_grants(&self, event: Event, context: &Context) -> Result<u64>;
    /// Exchanges the present refresh token for its successor, for this key. `policy` is the kind's as of now.
    async fn rotate_refresh(
        &self,
        id: GrantId,
        presented: &Bytes32,
        successor: &Bytes32,
        policy: RefreshPolicy,
        context: &Context,
    ) -> Result<Rotation>;
}

/// Where wrong codes are counted: bucket and limit.
pub type GuessBucket = (String, i64);

/// A session that lives.
#[derive(Clone, Debug)]
pub struct LiveSession {
    /// Whose.
    pub operator: Operator,
    /// When it was last written as seen.
    pub seen_at: Timestamp,
    /// When the person last proved who it is.
    pub fresh_at: Timestamp,
}

/// People: operators, links, sessions, and how often they may guess.
#[async_trait]
pub trait OperatorStore: Send + Sync {
    /// Adds a person with a role everywhere, or with none yet. `None` if the name is taken.
    async fn add_operator(&self, name: &str, role: Option<Role>, context: &Context) -> Result<Option<OperatorId>>;
    /// Gives a person a role at a site or everywhere, or takes it away. `false` if there is no such person.
    async fn set_role(&self, name: &str, site: &str, role: Option<Role>, context: &Context) -> Result<bool>;
    /// A person by name.
    async fn operator(&self, name: &str) -> Result<Option<Operator>>;
    /// All people.
    async fn operators(&self) -> Result<Vec<Operator>>;
    /// Ends all that the person may do: sessions and links in the same transaction. `false` if unknown or disabled before.
    async fn disable_operator(&self, name: &str, context: &Context) -> Result<bool>;
    /// Stores a one-time link by its hash. `false` if the person is unknown or disabled.
    async fn add_link(&self, operator: &str, hash: &Bytes32, expires_at: Timestamp, context: &Context) -> Result<bool>;
    /// Whose unused link this is.
    async fn link(&self, hash: &Bytes32, now: Timestamp) -> Result<Option<Operator>>;
    /// Spends a link, once, and opens a session. `None` if it is spent, too old or wrong; that record is the caller's, who bounds how many there are.
    async fn use_link(
        &self,
        link: &Bytes32,
        session: &Bytes32,
        ends_at: Timestamp,
        context: &Context,
    ) -> Result<Option<Operator>>;
    /// Whose session this is, if it lives: not ended, neither idle nor too old, the person not disabled.
    async fn session(&self, hash: &Bytes32, now: Timestamp) -> Result<Option<LiveSession>>;
    /// Marks it as used.
    async fn touch_session(&self, hash: &Bytes32, now: Timestamp) -> Result<()>;
    /// Signs out.
    async fn end_session(&self, hash: &Bytes32, context: &Context) -> Result<()>;
    /// Is any bucket full at `now`? Each counts for ten minutes from its first guess.
    async fn is_guess_budget_spent(&self, buckets: &[GuessBucket], now: Timestamp) -> Result<bool>;
    /// Counts a wrong code in all buckets, with its audit record. A right code resets nothing.
    async fn record_guess(&self, buckets: &[GuessBucket], context: &Context) -> Result<()>;
}

/// What [`AuditStore::verify_audit`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditVerdict {
    /// Records that were checked.
    pub records: i64,
    /// Hash of the last good one: note it elsewhere, and a cut-off end will show.
    pub head: Bytes32,
    /// The first bad record, if any.
    pub first_bad: Option<i64>,
}

/// Which records to list.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// Only older than this one.
    pub before: Option<i64>,
    /// Only newer than this one, oldest first.
    pub after: Option<i64>,
    /// Only about this device.
    pub device: Option<DeviceId>,
    /// Only refusals and alerts.
    pub refusals: bool,
    /// At most so many.
    pub limit: u32,
}

/// A new signing key, sealed by the caller for the row of its id.
#[derive(Clone, Debug)]
pub struct NewSigningKey {
    /// Key id: the thumbprint.
    pub kid: String,
    /// What it signs with.
    pub algorithm: SigningAlgorithm,
    /// The private half, sealed.
    pub sealed: Vec<u8>,
}

/// A signing key as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSigningKey {
    /// Key id.
    pub kid: String,
    /// What it signs with.
    pub algorithm: SigningAlgorithm,
    /// The private half, sealed.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it verifies nothing any more; `None`: it is the current one.
    pub retires_at: Option<Timestamp>,
}

/// What becomes of a signing key that gets a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retirement {
    /// It verifies until then.
    At(Timestamp),
    /// It leaked: it is dropped at once, and with it those of its algorithm that still verify.
    AtOnce,
}

/// The audit log, and the sealed signing keys.
#[async_trait]
pub trait AuditStore: Send + Sync {
    /// A record of its own, for what changes nothing else.
    async fn record(&self, event: Event, device: Option<&DeviceId>, detail: &str, context: &Context) -> Result<()>;
    /// Records, newest first (oldest first with `after`).
    /// Of some sites only: what is about their devices.
    async fn audit(&self, query: &AuditQuery, reach: &Reach) -> Result<Vec<Record>>;
    /// Sign-ins and refusals since.
    async fn audit_counts(&self, since: Timestamp, reach: &Reach) -> Result<(u64, u64)>;
    /// Walks the whole chain.
    async fn verify_audit(&self) -> Result<AuditVerdict>;
    /// Hash of one record.
    async fn audit_hash(&self, id: i64) -> Result<Option<Bytes32>>;
    /// The newest instant in the log: time may not be before it.
    async fn latest_instant(&self) -> Result<Option<Timestamp>>;
    /// The signing keys that are not dropped: current ones first, then the newest first.
    async fn signing_keys(&self) -> Result<Vec<StoredSigningKey>>;
    /// Adds the current key of an algorithm, if there is none yet. `false` if there is.
    async fn add_first_signing_key(&self, new: &NewSigningKey, context: &Context) -> Result<bool>;
    /// Makes `new` the current key of its algorithm in place of `former`. `false` if `former` is not the current one (any more), or the id of `new` was
    /// in use before, also by a key that is dropped.
    async fn rotate_signing_key(
        &self,
        former: &str,
        new: &NewSigningKey,
        retirement: Retirement,
        context: &Context,
    ) -> Result<bool>;
    /// Drops the keys whose retirement has come. How many.
    async fn drop_retired_signing_keys(&self, context: &Context) -> Result<usize>;
    /// Changes when another process has written, so that waiting pages can look again.
    async fn change_counter(&self) -> Result<i64>;
}
