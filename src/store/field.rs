//! What people do while they stand before the devices: walk the floors, find one, let a technician in, replace it, report it stolen. What a backend must do.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::DeviceId;
use crate::model::audit::Context;
use crate::model::device::{Device, Successor};
use crate::secret::Bytes32;
use crate::store::{Result, StateChange};

/// How far a floor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloorProgress {
    /// The floor, as people call it; empty where nobody said.
    pub floor: String,
    /// Devices on it, without retired ones.
    pub total: u64,
    /// Those with a key.
    pub paired: u64,
}

/// A technician's code to be stored.
#[derive(Clone, Debug)]
pub struct NewTechnicianCode {
    /// For this device and no other.
    pub device: DeviceId,
    /// Keyed hash of device and code.
    pub hash: Bytes32,
}

/// What a technician may be let in for.
#[derive(Clone, Debug)]
pub struct TechnicianPass {
    /// The one device.
    pub device: Device,
    /// Who made the code, as in the audit log.
    pub made_by: String,
    /// When it ends, whatever happens.
    pub ends_at: Timestamp,
}

/// What became of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// It is noted.
    Noted,
    /// There is no such device, or it is retired.
    NotThere,
    /// The key is another device's, or is announced for it.
    Taken,
}

/// Floors, finding, technicians, replacing, theft.
#[async_trait]
pub trait FieldStore: Send + Sync {
    /// Floors of a site with what is paired on each, by name. One pass over the site's devices.
    async fn pairing_progress(&self, site: &str) -> Result<Vec<FloorProgress>>;
    /// Has the device's next answer ask it to show itself, until `until`. `false` if there is no such device, or it is suspended or retired.
    async fn ask_to_identify(&self, id: &DeviceId, until: Timestamp, context: &Context) -> Result<bool>;
    /// Takes that away, to be delivered to the device: `true` for one caller.
    async fn take_identify(&self, device: &Device, context: &Context) -> Result<bool>;
    /// Notes which key a device's maker has announced for it, or that none is.
    async fn announce_key(&self, id: &DeviceId, jkt: Option<&Bytes32>, context: &Context) -> Result<Announced>;
    /// Stores a code per device, in place of those that were not used yet. `false`, and nothing is stored, if any device is neither registered nor active.
    async fn add_technician_codes(
        &self,
        codes: &[NewTechnicianCode],
        expires_at: Timestamp,
        context: &Context,
    ) -> Result<bool>;
    /// Who made a code that could be used now. Changes nothing.
    async fn technician_code(&self, hash: &Bytes32, now: Timestamp) -> Result<Option<TechnicianPass>>;
    /// Spends a code, once, and opens a session of it. `None` if it is spent, too old or wrong.
    async fn use_technician_code(
        &self,
        code: &Bytes32,
        session: &Bytes32,
        context: &Context,
    ) -> Result<Option<TechnicianPass>>;
    /// What a session is for, if it lives: the code's time is not over, nor two hours since it was used; and the device was not paired, stopped or replaced.
    async fn technician_session(&self, session: &Bytes32, now: Timestamp) -> Result<Option<TechnicianPass>>;
    /// Puts another box in the device's place: registered, without key, with these facts, its window open until `closes_at`. In the same transaction the
    /// former keys are *retired*, and all that the former box had under way ends. Id, place, kind and history stay. Not from *retired*.
    async fn replace_device(
        &self,
        id: &DeviceId,
        successor: &Successor,
        closes_at: Timestamp,
        context: &Context,
    ) -> Result<StateChange>;
    /// Marks a device as stolen, and suspends it as [`super::DeviceStore::set_device_state`] does, if it is not. Not from *retired*, and not twice.
    async fn mark_stolen(&self, id: &DeviceId, context: &Context) -> Result<StateChange>;
    /// Lets a suspended device on again also if it was reported stolen, and takes the mark away.
    async fn resume_stolen(&self, id: &DeviceId, context: &Context) -> Result<StateChange>;
}
