//! Who may approve what, and whether one person is enough: what a backend must do. The decision itself is in `grants.rs`.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{DeviceId, GrantId, OperatorId};
use crate::model::audit::Context;
use crate::model::grant::WhySecond;
use crate::store::Result;

/// When one person's approval is not enough, by the policy of a kind. A site's own wish for two persons is looked up by the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecondPerson {
    /// Not that of who registered or paired the device, for its first sign-in.
    pub after_pairing: bool,
    /// Not that of who never approved the device before, when others have.
    pub when_new: bool,
}

/// Who may approve what.
#[async_trait]
pub trait ApproverStore: Send + Sync {
    /// Names of who may approve this device's sign-ins; none: everybody who may at its site.
    async fn device_approvers(&self, device: &DeviceId) -> Result<Vec<String>>;
    /// Puts a person on that list, or takes one off. `false` if there is no such person or device, or nothing to change.
    async fn set_device_approver(
        &self,
        device: &DeviceId,
        operator: &str,
        is_on: bool,
        context: &Context,
    ) -> Result<bool>;
    /// May this person approve the device of that row, as far as its list goes?
    async fn is_device_approver(&self, device_row: i64, by: OperatorId) -> Result<bool>;
    /// Why this person's approval of that sign-in would not be enough now; `None` if it would, or somebody else has approved first.
    async fn why_second(
        &self,
        id: GrantId,
        by: OperatorId,
        policy: SecondPerson,
        now: Timestamp,
    ) -> Result<Option<WhySecond>>;
    /// Names of who approved a sign-in: the first, if two had to, then the one who let it in.
    async fn approved_by(&self, id: GrantId) -> Result<Vec<String>>;
    /// Ends a sign-in that this person approved after `since`. `false` if there is nothing (any more) to end.
    async fn undo_approval(&self, id: GrantId, by: OperatorId, since: Timestamp, context: &Context) -> Result<bool>;
}
