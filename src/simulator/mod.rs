//! The simulator: the device side of Pairgate, an operator for its pages, and a fleet of both.
//!
//! It speaks HTTP and MQTT and imports nothing from the rest of the crate, so it is a second, independent implementation of
//! `docs/api.md` and `docs/mqtt.md`: what the two disagree on is a bug in one of them. It is not a client library for firmware.
//!
//! Reading order: `key` (what a device is) → `pairing` → `device` (signing in) → `routine` (both, from start to end) →
//! `mqtt` (the same over MQTT) → `operator` (the person in front of the pages) → `fleet` (many of all). Beside them: `flash` (what a device keeps), `idevid` (what its maker gave it),
//! `screen` (what it shows), `story` (how the demo tells it), `jose`, `form` and `wire` (the three formats), `host` (clock
//! and randomness), `error`.

pub mod device;
pub mod error;
pub mod flash;
pub mod fleet;
pub mod form;
pub mod host;
pub mod idevid;
pub mod jose;
pub mod key;
pub mod mqtt;
pub mod operator;
pub mod pairing;
pub mod routine;
pub mod screen;
pub mod story;
pub mod wire;

pub use device::{CodeShown, SimulatedDevice, TokenAnswer, Tokens};
pub use error::SimulatorError;
pub use idevid::Idevid;
pub use key::DeviceKey;
pub use mqtt::{MqttDoor, MqttLogin, MqttRadio};
pub use operator::{DeviceForm, PageOperator};
pub use pairing::{PairingShown, PairingStatus, Pins, commitment, comparison_code};
pub use wire::{RawAnswer, Wire};
