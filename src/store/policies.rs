//! The policy's versions: what a backend must do.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::model::audit::{Context, Record};
use crate::model::site::Site;
use crate::store::Result;

/// Where a version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyState {
    /// It waits for a second person.
    Proposed,
    /// It holds, or held until a newer one did.
    Applied,
    /// It was taken back.
    Withdrawn,
}

impl PolicyState {
    /// The word, as in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Applied => "applied",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// From the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Proposed, Self::Applied, Self::Withdrawn].into_iter().find(|state| state.as_str() == word)
    }
}

/// A version of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyVersion {
    /// Its number; the applied one with the highest number holds.
    pub version: i64,
    /// The version that held when it was written; 0 for none.
    pub base: i64,
    /// The text, whole.
    pub document: String,
    /// Where it stands.
    pub state: PolicyState,
    /// When it was written.
    pub proposed_at: Timestamp,
    /// By whom, as in the audit log.
    pub proposed_by: String,
    /// When it was applied or withdrawn.
    pub decided_at: Option<Timestamp>,
    /// By whom.
    pub decided_by: Option<String>,
}

/// A version to be written.
#[derive(Clone, Debug)]
pub struct NewPolicy {
    /// The version that it was written against; 0 if there was none.
    pub base: i64,
    /// The text, whole.
    pub document: String,
    /// What becomes of it if it is applied.
    pub effects: PolicyEffects,
    /// May it be applied although a second person is wanted? Only for whoever has a shell on this machine.
    pub may_alone: bool,
}

/// What a version changes besides itself, in the transaction that applies it.
#[derive(Clone, Debug, Default)]
pub struct PolicyEffects {
    /// Is a second person wanted from then on?
    pub two_persons: bool,
    /// Sites to add or to change, whole, each with what it was; if one is not that any more, the version is stale.
    pub sites: Vec<(Option<Site>, Site)>,
    /// What differs, on one line, for the record.
    pub summary: String,
}

/// Outcome of a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyWritten {
    /// It holds.
    Applied(i64),
    /// It waits for a second person.
    Proposed(i64),
    /// Another version has come to hold since the one that it was written against.
    Stale,
}

/// Outcome of a confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyConfirmed {
    /// It holds.
    Applied,
    /// The caller wrote it himself.
    Own,
    /// Another version has come to hold since it was written.
    Stale,
    /// It does not wait (any more).
    Gone,
}

/// The policy.
#[async_trait]
pub trait PolicyStore: Send + Sync {
    /// The version that holds.
    async fn policy(&self) -> Result<Option<PolicyVersion>>;
    /// One version.
    async fn policy_version(&self, version: i64) -> Result<Option<PolicyVersion>>;
    /// All versions but the oldest, newest first.
    async fn policy_versions(&self, limit: u32) -> Result<Vec<PolicyVersion>>;
    /// Must a second person confirm changes?
    async fn wants_two_persons(&self) -> Result<bool>;
    /// Writes a version, applied or, if a second person is wanted, proposed.
    async fn write_policy(&self, new: &NewPolicy, context: &Context) -> Result<PolicyWritten>;
    /// Applies a version that waits. `may_own`: also if the caller wrote it.
    async fn confirm_policy(
        &self,
        version: i64,
        effects: &PolicyEffects,
        may_own: bool,
        context: &Context,
    ) -> Result<PolicyConfirmed>;
    /// Takes a version that waits back. `false` if it does not wait (any more).
    async fn withdraw_policy(&self, version: i64, context: &Context) -> Result<bool>;
    /// What was recorded about a site, newest first.
    async fn site_records(&self, site: &str, limit: u32) -> Result<Vec<Record>>;
}
