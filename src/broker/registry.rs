//! Devices and sites: register, list, suspend, resume, retire.

use crate::broker::aside::digest;
use crate::broker::{Broker, Caller, UseCaseError};
use crate::device_auth::is_phishing_client_id;
use crate::id::DeviceId;
use crate::model::audit::{Actor, one_line};
use crate::model::device::{Device, DeviceFacts, DeviceState};
use crate::model::operator::Role;
use crate::model::site::{DEFAULT_SITE, Site, is_hours};
use crate::model::text::clean;
use crate::store::{DeviceCounts, DeviceQuery, SiteChange, StateChange, StoreError};
use std::time::Duration;

impl Broker {
    /// Registers a device: from now on it is expected. It has no key yet.
    ///
    /// # Errors
    /// Every problem of the input at once, or that the id is taken (retired ids for ever).
    pub async fn register_device(
        &self,
        caller: &Caller,
        id: &str,
        mut facts: DeviceFacts,
    ) -> Result<DeviceId, UseCaseError> {
        if facts.site.is_empty() {
            facts.site = DEFAULT_SITE.into();
        }
        caller.must_at(&facts.site, Role::may_pair)?;
        let mut problems = Vec::new();
        if self.kind(&facts.kind).is_none() {
            let known: Vec<_> = self.kinds().iter().map(|kind| kind.id.clone()).collect();
            problems.push(format!("kind '{}' is unknown; it is one of {}", one_line(&facts.kind), known.join(", ")));
        }
        if self.store.site(&facts.site).await?.is_none() {
            problems.push(format!("site '{}' is unknown", one_line(&facts.site)));
        }
        let id = DeviceId::new(id).map_err(|error| problems.push(error.to_string())).ok();
        problems.extend(id.as_ref().and_then(|id| refused_id(id.as_str())).map(str::to_owned));
        let checked = match &id {
            Some(id) => {
                facts.checked(id).map_err(|errors| problems.extend(errors.iter().map(ToString::to_string))).ok()
            }
            None => None,
        };
        let (Some(id), Some(facts), true) = (id, checked, problems.is_empty()) else {
            return Err(UseCaseError::Refused(problems));
        };
        if !self.store.register_device(&id, &facts, &self.context(caller)).await? {
            return Err(UseCaseError::refused(format!(
                "the id {id} is taken, or was once; ids are never reused. Choose another"
            )));
        }
        self.wake.pages();
        Ok(id)
    }

    /// A device.
    ///
    /// # Errors
    /// If there is none, or it is at a site of which the caller may not know: the same answer.
    pub async fn device(&self, caller: &Caller, id: &str) -> Result<Device, UseCaseError> {
        let not_found = || UseCaseError::NotFound(format!("there is no device '{}'", one_line(id)));
        let id = DeviceId::new(id).map_err(|_| not_found())?;
        let device = self.store.device(&id).await?;
        device.filter(|device| caller.may_know(device)).ok_or_else(not_found)
    }

    /// A device for which the caller may do this.
    ///
    /// # Errors
    /// As [`Broker::device`], or if the caller's role at its site does not allow it.
    pub(super) async fn device_for(
        &self,
        caller: &Caller,
        id: &str,
        may: fn(Role) -> bool,
    ) -> Result<Device, UseCaseError> {
        let device = self.device(caller, id).await?;
        caller.must_at(&device.facts.site, may)?;
        Ok(device)
    }

    /// Devices that match, and how many match in all.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn devices(&self, caller: &Caller, query: &DeviceQuery) -> Result<(Vec<Device>, u64), StoreError> {
        self.store.devices(query, &caller.reach()).await
    }

    /// How many devices are in each state.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn device_counts(&self, caller: &Caller) -> Result<DeviceCounts, StoreError> {
        self.store.device_counts(&caller.reach()).await
    }

    /// Suspended devices, and active ones that were not heard of for so many days: at most `limit`, and how many there are.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn devices_in_need(
        &self,
        caller: &Caller,
        days: u64,
        limit: u32,
    ) -> Result<(Vec<Device>, u64), StoreError> {
        let since = self.now().minus(Duration::from_secs(days * 86_400));
        self.store.devices_in_need(since, limit, &caller.reach()).await
    }

    /// Stops a device, reversibly: all that it holds is dead when this returns. Whoever may pair at its site may: stopping must be quick, and does no harm
    /// that an administrator could not undo.
    ///
    /// # Errors
    /// If it is not the caller's to do, unknown, or in no state for it.
    pub async fn suspend_device(&self, caller: &Caller, id: &str) -> Result<(), UseCaseError> {
        let device = self.device_for(caller, id, Role::may_pair).await?;
        self.change_state(caller, &device, DeviceState::Suspended).await
    }

    /// Lets a suspended device on again; what it held stays dead, it signs in anew.
    ///
    /// # Errors
    /// As [`Broker::suspend_device`]; or if it was reported stolen, which wants more ([`Broker::resume_stolen`]).
    pub async fn resume_device(&self, caller: &Caller, id: &str) -> Result<(), UseCaseError> {
        let device = self.device_for(caller, id, Role::may_administer).await?;
        if device.stolen_at.is_some() {
            return Err(is_stolen(&device));
        }
        let outcome = self.store.set_device_state(&device.id, DeviceState::Active, &self.context(caller)).await?;
        // Only a report that came meanwhile keeps a suspended one from going on.
        if outcome == StateChange::Refused(DeviceState::Suspended) {
            return Err(is_stolen(&device));
        }
        self.state_changed(&device, outcome, DeviceState::Active.as_str())
    }

    /// The same for a device that was reported stolen, by who types its id: one tap too many must not let a thief on.
    ///
    /// # Errors
    /// As [`Broker::resume_device`], or if another id was typed.
    pub async fn resume_stolen(&self, caller: &Caller, id: &str, typed: &str) -> Result<(), UseCaseError> {
        caller.must_be_no_program()?;
        let device = self.device_for(caller, id, Role::may_administer).await?;
        if typed != device.id.as_str() {
            return Err(UseCaseError::refused(format!("to let a stolen device on again, type its id: {}", device.id)));
        }
        let outcome = self.store.resume_stolen(&device.id, &self.context(caller)).await?;
        self.state_changed(&device, outcome, DeviceState::Active.as_str())
    }

    /// Takes a device out for ever: neither its id nor its key will ever be accepted again.
    ///
    /// # Errors
    /// As [`Broker::suspend_device`], or if the caller last proved too long ago who it is.
    pub async fn retire_device(&self, caller: &Caller, id: &str) -> Result<(), UseCaseError> {
        // A token in wrong hands must not do what can't be undone.
        caller.must_be_no_program()?;
        let device = self.device_for(caller, id, Role::may_administer).await?;
        self.must_be_fresh(caller)?;
        self.change_state(caller, &device, DeviceState::Retired).await
    }

    /// Ends all sign-ins of a device; it stays what it is and may ask anew. How many were ended.
    ///
    /// # Errors
    /// If it is not the caller's to do, or unknown.
    pub async fn end_sign_ins_of(&self, caller: &Caller, id: &str) -> Result<usize, UseCaseError> {
        let device = self.device_for(caller, id, Role::may_administer).await?;
        let ended = self.store.end_sign_ins_of(&device.id, &self.context(caller)).await?;
        if let Some(grant) = device.pending_grant {
            self.wake.grant(grant);
        }
        self.wake.pages();
        Ok(ended)
    }

    async fn change_state(&self, caller: &Caller, device: &Device, to: DeviceState) -> Result<(), UseCaseError> {
        let outcome = self.store.set_device_state(&device.id, to, &self.context(caller)).await?;
        self.state_changed(device, outcome, to.as_str())
    }

    /// What became of a change of state; whoever waits is told.
    pub(super) fn state_changed(&self, device: &Device, outcome: StateChange, to: &str) -> Result<(), UseCaseError> {
        match outcome {
            StateChange::Changed(_) => {
                if let Some(grant) = device.pending_grant {
                    self.wake.grant(grant);
                }
                self.wake.pages();
                Ok(())
            }
            StateChange::NotFound => Err(UseCaseError::NotFound(format!("there is no device '{}'", device.id))),
            StateChange::Refused(state) => Err(UseCaseError::refused(format!(
                "{} is {}; it can't become {} from there",
                device.id,
                state.as_str(),
                to
            ))),
        }
    }

    /// A site, if the caller may know of it.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn site(&self, caller: &Caller, id: &str) -> Result<Option<Site>, StoreError> {
        Ok(self.store.site(id).await?.filter(|site| caller.reach().has(&site.id)))
    }

    /// The same.
    ///
    /// # Errors
    /// If there is none, or it is not the caller's: the same answer.
    pub async fn site_for(&self, caller: &Caller, id: &str) -> Result<Site, UseCaseError> {
        let site = self.site(caller, id).await?;
        site.ok_or_else(|| UseCaseError::NotFound(format!("there is no site '{}'", one_line(id))))
    }

    /// The caller's sites, by id.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn sites(&self, caller: &Caller) -> Result<Vec<Site>, StoreError> {
        self.store.sites(&caller.reach()).await
    }

    /// Adds a site.
    ///
    /// # Errors
    /// If the caller may not, the id or the name is refused, or the id is taken.
    pub async fn add_site(&self, caller: &Caller, site: Site) -> Result<(), UseCaseError> {
        caller.must_everywhere(Role::may_administer)?;
        self.must_be_fresh(caller)?;
        let site = checked_site(site)?;
        if !self.store.add_site(&site, &self.context(caller)).await? {
            return Err(UseCaseError::refused(format!("there is a site '{}' already", site.id)));
        }
        self.wake.pages();
        Ok(())
    }

    /// Changes all of a site but its id. `seen` is [`Broker::site_seen`] of what the caller looked at.
    ///
    /// # Errors
    /// If the caller may not, the name is refused, there is no such site, somebody changed it meanwhile, or a second person must confirm it.
    pub async fn set_site(&self, caller: &Caller, seen: Option<&str>, site: Site) -> Result<(), UseCaseError> {
        caller.must_at(&site.id, Role::may_administer)?;
        self.must_be_fresh(caller)?;
        let site = checked_site(site)?;
        let not_found = || UseCaseError::NotFound(format!("there is no site '{}'", one_line(&site.id)));
        let meanwhile =
            || UseCaseError::refused("somebody changed this site meanwhile; open the page again, then repeat");
        let was = self.store.site(&site.id).await?.ok_or_else(not_found)?;
        if seen.is_some_and(|seen| seen != Self::site_seen(&was)) {
            return Err(meanwhile());
        }
        if was.two_persons != site.two_persons || was.networks != site.networks {
            // A stolen token must not let in who is elsewhere, nor do without the second person.
            caller.must_be_no_program()?;
        }
        let is_laxer = (was.two_persons && !site.two_persons) || was.networks != site.networks;
        if is_laxer && self.policy().two_persons() && caller.actor != Actor::CommandLine {
            return Err(UseCaseError::refused(
                "a second person must confirm changes of networks, and doing without two persons; propose it under Settings → Import",
            ));
        }
        match self.store.set_site(&was, &site, &self.context(caller)).await? {
            SiteChange::Changed => {
                self.wake.pages();
                Ok(())
            }
            SiteChange::NotFound => Err(not_found()),
            SiteChange::Meanwhile => Err(meanwhile()),
        }
    }

    /// What a form carries, so that two people who edit a site at once notice.
    pub fn site_seen(site: &Site) -> String {
        digest(&site.words())
    }
}

fn is_stolen(device: &Device) -> UseCaseError {
    UseCaseError::refused(format!(
        "{} was reported stolen. If it is back and in nobody else's hands, type its id to let it on again",
        device.id
    ))
}

/// Pages that stand where a device's page would.
const RESERVED_IDS: [&str; 4] = ["import", "labels", "bulk", "undo"];

/// Why an id is not given although it is well formed.
pub(super) fn refused_id(id: &str) -> Option<&'static str> {
    if is_phishing_client_id(id) {
        Some("this id belongs to an application that phishing kits use; choose another")
    } else if RESERVED_IDS.contains(&id) {
        Some("this id is the name of a page; choose another")
    } else {
        None
    }
}

/// Checks what a site is called and when it is quiet.
pub(super) fn checked_site(site: Site) -> Result<Site, UseCaseError> {
    let is_plain = site.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !is_plain || !(2..=32).contains(&site.id.len()) {
        return Err(UseCaseError::refused("a site's id has 2 to 32 characters out of a-z, 0-9 and '-'"));
    }
    let name = clean("name", &site.name, 80).map_err(|error| UseCaseError::refused(error.to_string()))?;
    if !is_hours(&site.quiet_hours) {
        return Err(UseCaseError::refused("quiet hours look like 22:00-06:00, or are left empty"));
    }
    Ok(Site { name, ..site })
}
