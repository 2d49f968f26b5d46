//! Sign-ins: what a backend must do.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{DeviceId, GrantId, OperatorId};
use crate::model::audit::{Context, Event};
use crate::model::device::Device;
use crate::model::grant::{Grant, WhySecond};
use crate::model::kind::RefreshPolicy;
use crate::model::operator::Reach;
use crate::oauth::scope::Scope;
use crate::secret::Bytes32;
use crate::store::{Result, SecondPerson};

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
    /// The device has a list of approvers, and this one is not on it.
    NotListed,
    /// This person approved it already; now it is a second one's turn.
    ApprovedFirst,
    /// The person has [`MAX_OPEN_CLAIMS`](crate::model::grant::MAX_OPEN_CLAIMS) others open.
    TooMany,
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
    /// The same, and suspend the device.
    Block,
}

/// Outcome of [`GrantStore::decide_grant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionOutcome {
    /// It stands.
    Done,
    /// The approval is noted; for this reason a second person must approve, too. Anybody else may open the code now.
    First(WhySecond),
    /// Who had approved first may not approve any more; the grant is now denied.
    FirstLost,
    /// It is not pending, or not this approver's (any more).
    Over,
}

impl DecisionOutcome {
    /// Did the decision stand?
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Done)
    }
}

/// Outcome of [`GrantStore::redeem_grant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redemption {
    /// This caller, and no other, may issue the tokens.
    Redeemed,
    /// One of the approvers may not approve any more, or one is no longer enough; the grant is now denied.
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
    /// Decides a pending grant that is this approver's. An approval may need a second person's; a report may suspend the device.
    async fn decide_grant(
        &self,
        id: GrantId,
        by: OperatorId,
        decision: Decision,
        policy: SecondPerson,
        context: &Context,
    ) -> Result<DecisionOutcome>;
    /// Counts a wrong number of this approver's, and denies the grant at the limit. Tries left; `None` if it is not pending any more.
    async fn record_wrong_number(&self, id: GrantId, by: OperatorId, context: &Context) -> Result<Option<u8>>;
    /// approved → redeemed, once, for this key, if the device is active with this key, the codes live, and who approved may still approve,
    /// and is still enough.
    async fn redeem_grant(
        &self,
        id: GrantId,
        jkt: &Bytes32,
        refresh: Option<(Bytes32, RefreshPolicy)>,
        policy: SecondPerson,
        context: &Context,
    ) -> Result<Redemption>;
    /// Ends a sign-in whose tokens are out, for a reason that is an event. `false` if there was nothing to end.
    async fn revoke_grant(&self, id: GrantId, event: Event, detail: &str, context: &Context) -> Result<bool>;
    /// Ends every sign-in of a device: open ones, and those whose tokens are out. How many; without any, nothing is recorded.
    async fn end_sign_ins_of(&self, device: &DeviceId, context: &Context) -> Result<usize>;
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
