//! Many devices at once: what a backend must do.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{DeviceId, GrantId};
use crate::model::audit::Context;
use crate::model::change::DeviceChange;
use crate::model::device::{DeviceFacts, DeviceState};
use crate::model::import::{Known, NewDevice};
use crate::model::operator::Reach;
use crate::secret::Bytes32;
use crate::store::Result;

/// A change of one device out of many.
#[derive(Clone, Debug)]
pub struct ChangeOf {
    /// Which.
    pub id: DeviceId,
    /// Where it was when the right to change it was looked up. Elsewhere, it is not changed.
    pub site: String,
    /// What is done.
    pub change: DeviceChange,
    /// Only if it is still as this change left it: what others did since is not undone.
    pub after: Option<DeviceChange>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Done.
    Done {
        /// What would undo it, if anything would.
        undo: Option<DeviceChange>,
        /// The sign-in that was open before.
        grant: Option<GrantId>,
    },
    /// It was so before.
    Nothing,
    /// It was changed since.
    Meanwhile,
    /// There is no such device at that site.
    NotFound,
    /// Not from this state.
    Refused(DeviceState),
}

/// What became of a change of facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactsChange {
    /// Done.
    Changed,
    /// There is no such device.
    NotFound,
    /// Somebody else changed them meanwhile.
    Meanwhile,
    /// Kind and serial number stay once a device is paired.
    Paired,
}

/// How many devices have all this in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceGroup {
    /// State.
    pub state: DeviceState,
    /// Kind.
    pub kind: String,
    /// Site.
    pub site: String,
    /// Floor.
    pub floor: String,
    /// How many.
    pub count: u64,
}

/// Imports, bulk changes, and what is kept between two steps of a person's work.
#[async_trait]
pub trait BulkStore: Send + Sync {
    /// What an import must not register again. Serial numbers are told of devices in reach, ids and keys of all.
    async fn known_devices(&self, reach: &Reach) -> Result<Known>;
    /// Adds all devices in state *registered*, each with its record and one for all of them; or none, if an id or a key is taken: the places of those
    /// that are.
    async fn register_devices(&self, devices: Vec<NewDevice>, context: &Context) -> Result<Vec<usize>>;
    /// How many devices there are of each state, kind, site and floor that contain this text.
    async fn device_groups(&self, text: &str, reach: &Reach) -> Result<Vec<DeviceGroup>>;
    /// Changes many devices: what became of each, in order. Of those that can't be changed, the others know nothing.
    async fn change_devices(&self, changes: Vec<ChangeOf>, context: &Context) -> Result<Vec<Changed>>;
    /// Changes what is known of a device, if it is still what the caller saw.
    async fn change_device_facts(
        &self,
        id: &DeviceId,
        before: &DeviceFacts,
        after: &DeviceFacts,
        context: &Context,
    ) -> Result<FactsChange>;
    /// Keeps a text under a key until `expires_at`, in place of what was kept there. Decides nothing, so there is no record.
    async fn set_aside(
        &self,
        key: &Bytes32,
        purpose: &str,
        text: &str,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<()>;
    /// What is kept there.
    async fn aside(&self, key: &Bytes32, purpose: &str, now: Timestamp) -> Result<Option<String>>;
    /// Takes this text away, if it is still what is kept there: of many who take it at once, one does. What was kept since stays.
    async fn take_aside(&self, key: &Bytes32, purpose: &str, text: &str, now: Timestamp) -> Result<bool>;
}
