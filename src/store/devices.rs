//! Devices and sites: what a backend must do.

use async_trait::async_trait;

use crate::id::DeviceId;
use crate::model::audit::Context;
use crate::model::device::{Device, DeviceFacts, DeviceState};
use crate::model::operator::Reach;
use crate::model::site::Site;
use crate::store::Result;

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
    /// Only those whose id comes after this one.
    pub after: Option<String>,
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

/// Outcome of a change of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteChange {
    /// Done.
    Changed,
    /// There is no such site.
    NotFound,
    /// Somebody else changed it meanwhile.
    Meanwhile,
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
    /// One that was reported stolen is not let on ([`super::FieldStore::resume_stolen`]). Suspending and retiring end all its sign-ins and pairings in the same transaction; retiring marks its keys *retired*.
    async fn set_device_state(&self, id: &DeviceId, to: DeviceState, context: &Context) -> Result<StateChange>;
    /// A site.
    async fn site(&self, id: &str) -> Result<Option<Site>>;
    /// All sites, by id.
    async fn sites(&self, reach: &Reach) -> Result<Vec<Site>>;
    /// Adds a site. `false` if the id is taken.
    async fn add_site(&self, site: &Site, context: &Context) -> Result<bool>;
    /// Changes all of a site but its id, if it is still what it `was`.
    async fn set_site(&self, was: &Site, site: &Site, context: &Context) -> Result<SiteChange>;
}
