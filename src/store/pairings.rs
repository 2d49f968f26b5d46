//! Windows and pairings: what a backend must do.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{DeviceId, PairingId};
use crate::model::audit::Context;
use crate::model::device::{Device, KeyAssurance};
use crate::model::operator::Reach;
use crate::model::pairing::{Pairing, Says};
use crate::secret::{Bytes32, is_equal};
use crate::store::Result;

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
    /// All of them, for tables.
    pub const ALL: [Self; 9] = [
        Self::UnknownDevice,
        Self::DeviceNotExpected,
        Self::WrongSerial,
        Self::WindowClosed,
        Self::NotVouched,
        Self::DeadKey,
        Self::KeyOfAnotherDevice,
        Self::Replayed,
        Self::TooMany,
    ];

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

impl PairingOfDevice {
    /// Is the key that asks the one that the device's maker announced?
    pub fn is_announced(&self) -> bool {
        self.device.manifest_jkt.is_some_and(|announced| is_equal(&announced, &self.pairing.jkt))
    }
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
    /// The same, where nothing was compared at the device: in the same transaction, the key must be the one that the device's maker announced.
    async fn confirm_announced_pairing(&self, id: &PairingId, context: &Context) -> Result<bool>;
    /// An operator says no. `false` if it does not wait any more.
    async fn decline_pairing(&self, id: &PairingId, context: &Context) -> Result<bool>;
}
