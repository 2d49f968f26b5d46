//! Who may approve a device's sign-ins, if not everybody who may at its site; and how many may.
//!
//! The list itself is held to where a code is opened, decided and redeemed (`store/sqlite/approvers.rs`).

use std::sync::Arc;

use crate::broker::{Broker, Caller, UseCaseError};
use crate::id::OperatorId;
use crate::model::audit::{Actor, one_line};
use crate::model::device::Device;
use crate::model::kind::{Kind, NewApprover};
use crate::model::operator::{Operator, Reach, Role};
use crate::store::StoreError;

/// A device's list of approvers.
#[derive(Debug)]
pub struct Approvers {
    /// The device.
    pub device: Device,
    /// Names of who may approve; none: everybody who may at its site.
    pub listed: Vec<String>,
    /// Names of who could be put on the list.
    pub others: Vec<String>,
}

impl Broker {
    /// Who may approve a device's sign-ins.
    ///
    /// # Errors
    /// If there is no such device, or it is not the caller's to know.
    pub async fn approvers(&self, caller: &Caller, id: &str) -> Result<Approvers, UseCaseError> {
        let device = self.device(caller, id).await?;
        let listed = self.store.device_approvers(&device.id).await?;
        let mut others = may_approve_at(&self.store.operators().await?, &device.facts.site);
        others.retain(|name| !listed.contains(name));
        Ok(Approvers { device, listed, others })
    }

    /// Puts somebody on the list of who may approve a device. From then on nobody else may.
    ///
    /// # Errors
    /// If the caller may not, there is no such device or person, or the person may not approve at the device's site.
    pub async fn add_approver(&self, caller: &Caller, id: &str, name: &str) -> Result<(), UseCaseError> {
        self.set_approver(caller, id, name, true).await
    }

    /// Takes somebody off the list. When the last one is off, everybody who may approve at the site may again.
    ///
    /// # Errors
    /// If the caller may not, there is no such device, or that person is not on its list.
    pub async fn remove_approver(&self, caller: &Caller, id: &str, name: &str) -> Result<(), UseCaseError> {
        self.set_approver(caller, id, name, false).await
    }

    async fn set_approver(&self, caller: &Caller, id: &str, name: &str, is_on: bool) -> Result<(), UseCaseError> {
        caller.must_be_no_program()?;
        let device = self.device_for(caller, id, Role::may_administer).await?;
        self.must_be_fresh(caller)?;
        let site = &device.facts.site;
        if is_on && !may_approve_at(&self.store.operators().await?, site).iter().any(|may| may == name) {
            return Err(UseCaseError::refused(format!("{} may not approve at this device's site", one_line(name))));
        }
        if self.store.set_device_approver(&device.id, name, is_on, &self.context(caller)).await? {
            self.wake.pages();
            return Ok(());
        }
        let name = one_line(name);
        Err(UseCaseError::refused(match is_on {
            true => format!("{name} is on the list already"),
            false => format!("{name} is not on the list"),
        }))
    }

    /// May the caller have a sign-in link for this person? Whoever has a link *is* that person: where two must agree, a link for another, or for a person
    /// just added, would make one administrator both of them. Only who stands at the machine may then make it; a link is on record there too.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn may_have_link(&self, caller: &Caller, person: OperatorId) -> Result<bool, StoreError> {
        Ok(caller.actor == Actor::CommandLine
            || caller.operator == Some(person)
            || !self.two_must_agree_somewhere().await?)
    }

    pub(super) async fn must_be_own_where_two_must_agree(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<(), UseCaseError> {
        match self.store.operator(name).await? {
            Some(person) if !self.may_have_link(caller, person.id).await? => Err(UseCaseError::refused(format!(
                "where two persons must agree, nobody makes a link for another here: run 'pairgate operator link {}' on the machine",
                one_line(name)
            ))),
            _ => Ok(()),
        }
    }

    async fn two_must_agree_somewhere(&self) -> Result<bool, StoreError> {
        let policy = self.policy();
        let by_kind = |kind: &Arc<Kind>| kind.two_persons || kind.new_approver == NewApprover::Second;
        if policy.two_persons() || policy.kinds().iter().any(by_kind) {
            return Ok(true);
        }
        Ok(self.store.sites(&Reach::Everywhere).await?.iter().any(|site| site.two_persons))
    }

    /// The sites, by name, where the caller could ask for two persons and does not: where several people may approve.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn sites_without_two_persons(&self, caller: &Caller) -> Result<Vec<String>, StoreError> {
        let mut sites = self.store.sites(&caller.reach()).await?;
        sites.retain(|site| !site.two_persons && caller.rights.role_at(&site.id).is_some_and(Role::may_administer));
        if sites.is_empty() {
            return Ok(Vec::new());
        }
        let people = self.store.operators().await?;
        sites.retain(|site| may_approve_at(&people, &site.id).len() > 1);
        Ok(sites.into_iter().map(|site| site.name).collect())
    }
}

/// Names of who may approve at a site.
fn may_approve_at(people: &[Operator], site: &str) -> Vec<String> {
    let may = people
        .iter()
        .filter(|person| person.disabled_at.is_none() && person.rights.role_at(site).is_some_and(Role::may_approve));
    may.map(|person| person.name.clone()).collect()
}
