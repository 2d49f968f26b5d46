//! What people do while they stand before the devices: how far a floor is, many confirmations at once, finding a device, replacing one, theft.
//!
//! Technicians and their codes are in `technicians.rs`; one pairing is in `pairing.rs`; suspending, resuming and retiring are in `registry.rs`.

use std::net::IpAddr;
use std::time::Duration;

use crate::broker::{Broker, Caller, UseCaseError};
use crate::clock::Timestamp;
use crate::id::DeviceId;
use crate::model::audit::{Actor, Context};
use crate::model::device::{Device, DeviceFacts, DeviceState, Successor};
use crate::model::operator::Role;
use crate::model::pairing::{Pairing, WINDOW_LIFETIME};
use crate::secret::{bytes32_from_b64u, is_equal};
use crate::store::{Announced, FloorProgress, PairingOfDevice, StoreError};

use super::pairing::Confirm;

/// How long a device may take to fetch that it shall show itself.
pub const IDENTIFY_LIFETIME: Duration = Duration::from_secs(2 * 60);

/// What became of many pairings.
#[derive(Debug, Default)]
pub struct ManyConfirmed {
    /// Paired.
    pub paired: Vec<DeviceId>,
    /// Not paired, and why.
    pub left: Vec<(DeviceId, String)>,
}

impl Broker {
    /// Floors of a site with what is paired on each, by name.
    ///
    /// # Errors
    /// If the caller may not know of the site.
    pub async fn pairing_progress(&self, caller: &Caller, site: &str) -> Result<Vec<FloorProgress>, UseCaseError> {
        caller.must_at(site, |_| true)?;
        Ok(self.store.pairing_progress(site).await?)
    }

    /// Confirms all pairings of a site whose key their device's maker announced, each for itself. What is not so is left as it is.
    ///
    /// # Errors
    /// If the caller may not pair there, or the store fails; what was confirmed until then stands.
    pub async fn confirm_announced(&self, caller: &Caller, site: &str) -> Result<ManyConfirmed, UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_at(site, Role::may_pair)?;
        let mut outcome = ManyConfirmed::default();
        for found in self.open_pairings(caller, None).await? {
            let is_ready = found.pairing.device_nonce.is_some();
            if found.device.facts.site != site || !found.is_announced() || !is_ready {
                continue;
            }
            let id = found.device.id;
            match self.confirm_pairing(caller, found.pairing.id.as_str(), &Confirm::Manifest).await {
                Ok(_) => outcome.paired.push(id),
                Err(UseCaseError::Refused(lines)) => outcome.left.push((id, lines.join(" "))),
                Err(UseCaseError::NotFound(line)) => outcome.left.push((id, line)),
                Err(error) => return Err(error),
            }
        }
        Ok(outcome)
    }

    /// Notes which key a device's maker has announced for it, as base64url thumbprint, or that none is.
    ///
    /// # Errors
    /// If the caller may not administer the device, it is no thumbprint, or the device is retired.
    pub async fn announce_key(&self, caller: &Caller, id: &str, jkt: Option<&str>) -> Result<(), UseCaseError> {
        caller.must_be_no_program()?;
        let device = self.device_for(caller, id, Role::may_administer).await?;
        self.must_be_fresh(caller)?;
        let wrong = || UseCaseError::refused("a key is announced by its thumbprint: 43 letters, digits, '-' and '_'");
        let jkt = jkt.map(|jkt| bytes32_from_b64u(jkt).ok_or_else(wrong)).transpose()?;
        match self.store.announce_key(&device.id, jkt.as_ref(), &self.context(caller)).await? {
            Announced::Noted => {}
            Announced::NotThere => {
                return Err(UseCaseError::refused(format!("{} is {}", device.id, device.state.as_str())));
            }
            Announced::Taken => {
                return Err(UseCaseError::refused("this key is another device's, or announced for one"));
            }
        }
        self.wake.pages();
        Ok(())
    }

    /// Asks a device to show itself, with its next answer within two minutes.
    ///
    /// # Errors
    /// If the caller may not pair it, or it can't be asked: then it is suspended or retired.
    pub async fn identify_device(&self, caller: &Caller, id: &str) -> Result<Timestamp, UseCaseError> {
        let device = self.device(caller, id).await?;
        caller.must_at(&device.facts.site, Role::may_pair)?;
        let context = self.context(caller);
        let until = context.now.plus(IDENTIFY_LIFETIME);
        if !self.store.ask_to_identify(&device.id, until, &context).await? {
            return Err(UseCaseError::refused(format!(
                "{} is {}; it gets no answers that could ask it anything",
                device.id,
                device.state.as_str()
            )));
        }
        if let Some(grant) = device.pending_grant {
            self.wake.grant(grant);
        }
        self.wake.pages();
        Ok(until)
    }

    /// Is this device asked to show itself?
    pub(super) fn is_asked_to_identify(&self, device: &Device) -> bool {
        device.identify_until.is_some_and(|until| self.now() < until)
    }

    /// Is whoever polls for this pairing asked to show itself? Of a device that has a key, only who has that key; and of two that say they are the
    /// device, neither: people would take the one that lights up for the right one.
    pub(super) fn may_identify(&self, pairing: &Pairing, device: &Device) -> bool {
        self.is_asked_to_identify(device) && self.may_ask_to_identify(pairing, device)
    }

    /// Would asking the device to show itself reach whoever polls for this pairing?
    pub fn may_ask_to_identify(&self, pairing: &Pairing, device: &Device) -> bool {
        match &device.key {
            Some(key) => is_equal(&key.jkt, &pairing.jkt) || pairing.vouched_by == Some(key.jkt),
            None => !pairing.conflict && pairing.is_open(self.now()),
        }
    }

    /// Takes the question away, to put it into the answer to this device: once.
    pub(super) async fn take_identify(&self, device: &Device, peer: Option<IpAddr>) -> Result<bool, StoreError> {
        let context = Context { now: self.now(), actor: Actor::Device(device.id.clone()), peer };
        let taken = self.store.take_identify(device, &context).await?;
        if taken {
            self.wake.pages();
        }
        Ok(taken)
    }

    /// Puts another box in a device's place. Its id, place, kind and history stay; the former key is refused for ever from now on, and pairing is open for
    /// the successor until the answer.
    ///
    /// # Errors
    /// If the caller may not administer the device, or last proved too long ago who it is; every problem of the input; or if the device is retired.
    pub async fn replace_device(
        &self,
        caller: &Caller,
        id: &str,
        successor: Successor,
    ) -> Result<Timestamp, UseCaseError> {
        caller.must_be_no_program()?;
        let device = self.device_for(caller, id, Role::may_administer).await?;
        self.must_be_fresh(caller)?;
        let Successor { serial, asset_tag, mut maker, mut model } = successor;
        if maker.is_empty() && model.is_empty() {
            // Mostly it is one more of the same.
            (maker, model) = (device.facts.maker.clone(), device.facts.model.clone());
        }
        let facts = DeviceFacts { serial, asset_tag, maker, model, ..DeviceFacts::default() };
        let facts = facts
            .checked(&device.id)
            .map_err(|errors| UseCaseError::Refused(errors.iter().map(ToString::to_string).collect()))?;
        if !facts.serial.is_empty() && facts.serial == device.facts.serial {
            return Err(UseCaseError::refused(
                "this is the serial number of the present box. For a new key of the same box, open pairing instead",
            ));
        }
        let DeviceFacts { serial, asset_tag, maker, model, .. } = facts;
        let successor = Successor { serial, asset_tag, maker, model };
        let context = self.context(caller);
        let closes_at = context.now.plus(WINDOW_LIFETIME);
        let outcome = self.store.replace_device(&device.id, &successor, closes_at, &context).await?;
        self.state_changed(&device, outcome, "replaced").map(|()| closes_at)
    }

    /// A device is gone with somebody: stops it at once, all that it holds included, and raises an alert. Whoever may pair at its site may, without
    /// signing in once more: a minute counts.
    ///
    /// # Errors
    /// If it is not the caller's to do, unknown, retired, or reported before.
    pub async fn mark_stolen(&self, caller: &Caller, id: &str) -> Result<(), UseCaseError> {
        let device = self.device_for(caller, id, Role::may_pair).await?;
        if device.stolen_at.is_some() && device.state != DeviceState::Retired {
            return Err(UseCaseError::refused(format!("{} was reported stolen before; it is suspended", device.id)));
        }
        let outcome = self.store.mark_stolen(&device.id, &self.context(caller)).await?;
        self.state_changed(&device, outcome, "stolen")
    }

    /// Pairings that wait at a site, oldest first.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn open_pairings_at(&self, caller: &Caller, site: &str) -> Result<Vec<PairingOfDevice>, StoreError> {
        let mut waiting = self.open_pairings(caller, None).await?;
        waiting.retain(|found| found.device.facts.site == site);
        Ok(waiting)
    }
}
