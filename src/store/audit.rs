//! The audit log and the signing keys: what a backend must do.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::DeviceId;
use crate::model::audit::{Context, Event, Record, Severity};
use crate::model::operator::Reach;
use crate::oauth::signing_key::SigningAlgorithm;
use crate::secret::Bytes32;
use crate::store::Result;

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
    /// Only of this severity.
    pub severity: Option<Severity>,
    /// Only this event, by its name.
    pub event: Option<String>,
    /// Only by this person, program or device, by name.
    pub by: Option<String>,
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
