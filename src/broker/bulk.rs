//! Many devices at once: find them by what they have in common, change them in one transaction, undo it. And one device's facts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::broker::aside::digest;
use crate::broker::people::Session;
use crate::broker::{Broker, Caller, UseCaseError};
use crate::id::DeviceId;
use crate::model::audit::one_line;
use crate::model::change::{DeviceChange, Move};
use crate::model::device::{Device, DeviceFacts, DeviceState};
use crate::model::operator::Role;
use crate::model::pairing::WINDOW_LIFETIME;
use crate::model::text::clean;
use crate::store::{ChangeOf, Changed, DeviceQuery, FactsChange, StoreError};

/// So many devices are changed at once.
pub const MAX_BULK: u32 = 10_000;
/// What was done can be undone for this long.
const UNDO: Duration = Duration::from_secs(15 * 60);
/// What is between a change and its undoing, in the store.
const PURPOSE: &str = "undo";
/// Refusals that are told one by one.
const TOLD: usize = 20;

/// What is done to many devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkAction {
    /// Stop them, reversibly.
    Suspend,
    /// Let them on again.
    Resume,
    /// Stop them, and raise the alarm.
    Stolen,
    /// Take them out for ever.
    Retire,
    /// Open pairing for 15 minutes.
    OpenPairing,
    /// Close it.
    ClosePairing,
    /// Note another place.
    Move(Move),
}

/// Which devices.
#[derive(Clone, Debug)]
pub enum Selection {
    /// These.
    Ids(Vec<String>),
    /// All that match, if they are as many as the person saw; and, once the question was put, those of this digest ([`Broker::digest_of`]).
    Matching(DeviceQuery, u64, Option<String>),
}

/// What a receipt is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    /// Another place, or what no other word says.
    #[default]
    Changed,
    /// A list was imported.
    Imported,
    /// Stopped, reversibly.
    Suspended,
    /// Let on again.
    Resumed,
    /// Reported stolen.
    Stolen,
    /// Taken out for ever.
    Retired,
    /// Pairing was opened.
    Opened,
    /// Pairing was closed.
    Closed,
    /// The last change was undone.
    Undone,
}

/// What became of a bulk change. Kept for the session that did it, so that the next page can tell and undo it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Receipt {
    /// What was done.
    #[serde(default)]
    pub deed: Deed,
    /// How many were changed.
    pub done: usize,
    /// How many were so before.
    pub same: usize,
    /// How many could not be changed.
    pub refused: usize,
    /// The first of them, each with the reason.
    pub reasons: Vec<(String, String)>,
    /// What was done, and what would undo it.
    pub undo: Vec<(DeviceId, DeviceChange, DeviceChange)>,
}

/// How many devices match each value of each filter, if that filter alone were set otherwise.
#[derive(Clone, Debug, Default)]
pub struct Facets {
    /// By state, in order.
    pub states: Vec<(DeviceState, u64)>,
    /// By kind id.
    pub kinds: BTreeMap<String, u64>,
    /// By site id.
    pub sites: BTreeMap<String, u64>,
    /// By floor; devices without are under the empty text.
    pub floors: BTreeMap<String, u64>,
    /// All that match all filters.
    pub total: u64,
}

/// Who may do it where a device is.
fn needs(change: &DeviceChange) -> fn(Role) -> bool {
    match change {
        // One device anybody may stop who may pair it; all at once they would be a switch to put everybody out.
        DeviceChange::Suspend | DeviceChange::Resume | DeviceChange::Stolen | DeviceChange::Retire => {
            Role::may_administer
        }
        DeviceChange::OpenWindow(_) | DeviceChange::CloseWindow => Role::may_pair,
        // Another site has other approvers.
        DeviceChange::Move(there) if there.site.is_some() => Role::may_administer,
        DeviceChange::Move(_) => Role::may_pair,
    }
}

impl Broker {
    /// What the filters of the device list would find.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn device_facets(&self, caller: &Caller, query: &DeviceQuery) -> Result<Facets, StoreError> {
        let groups = self.store.device_groups(&query.text, &caller.reach()).await?;
        let mut facets = Facets { states: DeviceState::ALL.map(|state| (state, 0)).to_vec(), ..Facets::default() };
        for group in groups {
            let fits = [
                query.state.is_none_or(|state| state == group.state),
                query.kind.as_ref().is_none_or(|kind| *kind == group.kind),
                query.site.as_ref().is_none_or(|site| *site == group.site),
                query.floor.as_ref().is_none_or(|floor| *floor == group.floor),
            ];
            let others_fit = |own: usize| fits.iter().enumerate().all(|(place, fits)| place == own || *fits);
            if let Some((_, count)) = facets.states.iter_mut().find(|(state, _)| others_fit(0) && *state == group.state)
            {
                *count += group.count;
            }
            for (own, counts, value) in [
                (1, &mut facets.kinds, group.kind),
                (2, &mut facets.sites, group.site),
                (3, &mut facets.floors, group.floor),
            ] {
                if others_fit(own) {
                    *counts.entry(value).or_default() += group.count;
                }
            }
            if fits.iter().all(|fits| *fits) {
                facets.total += group.count;
            }
        }
        Ok(facets)
    }

    /// The devices that are meant, and how many of those named there are not (or not for this caller: A-080).
    ///
    /// # Errors
    /// If they are not as many as the person saw, or too many.
    pub async fn select_devices(
        &self,
        caller: &Caller,
        selection: &Selection,
    ) -> Result<(Vec<Device>, Vec<String>), UseCaseError> {
        let (query, seen, asked) = match selection {
            Selection::Matching(query, seen, asked) => (query, *seen, asked),
            Selection::Ids(ids) => {
                let (mut devices, mut missing) = (Vec::new(), Vec::new());
                for id in ids {
                    match self.device(caller, id).await {
                        Ok(device) => devices.push(device),
                        Err(UseCaseError::NotFound(_)) => missing.push(one_line(id)),
                        Err(error) => return Err(error),
                    }
                }
                return Ok((devices, missing));
            }
        };
        let query = DeviceQuery { offset: 0, limit: MAX_BULK, ..query.clone() };
        let (devices, total) = self.devices(caller, &query).await?;
        if total > u64::from(MAX_BULK) {
            return Err(UseCaseError::refused("more than 10,000 devices match; filter for fewer"));
        }
        if total != seen {
            return Err(UseCaseError::refused(format!(
                "{seen} devices matched when you looked, now it is {total}; look again, then repeat"
            )));
        }
        // As many, but others: what a person said yes to is not what would be done.
        if asked.as_ref().is_some_and(|asked| *asked != Self::digest_of(&devices)) {
            return Err(UseCaseError::refused("other devices match than when you looked; look again, then repeat"));
        }
        Ok((devices, Vec::new()))
    }

    /// Which devices these are, for the second step.
    pub fn digest_of(devices: &[Device]) -> String {
        let ids: Vec<&str> = devices.iter().map(|device| device.id.as_str()).collect();
        digest(&ids.join(" "))
    }

    /// May the caller begin with this? Asked before a person types a confirmation.
    ///
    /// # Errors
    /// If it needs a fresh sign-in.
    pub fn may_begin(&self, caller: &Caller, action: &BulkAction) -> Result<(), UseCaseError> {
        if *action == BulkAction::Retire { self.must_be_fresh(caller) } else { Ok(()) }
    }

    /// Changes many devices in one transaction. What can't be changed is told, and keeps nothing else from it.
    ///
    /// # Errors
    /// If nothing was tried: the selection has changed, the place to move to is refused, or retiring needs a fresh sign-in.
    pub async fn change_devices(
        &self,
        caller: &Caller,
        selection: &Selection,
        action: &BulkAction,
    ) -> Result<Receipt, UseCaseError> {
        self.may_begin(caller, action)?;
        let (deed, change) = match action {
            BulkAction::Suspend => (Deed::Suspended, DeviceChange::Suspend),
            BulkAction::Resume => (Deed::Resumed, DeviceChange::Resume),
            BulkAction::Stolen => (Deed::Stolen, DeviceChange::Stolen),
            BulkAction::Retire => (Deed::Retired, DeviceChange::Retire),
            BulkAction::OpenPairing => (Deed::Opened, DeviceChange::OpenWindow(self.now().plus(WINDOW_LIFETIME))),
            BulkAction::ClosePairing => (Deed::Closed, DeviceChange::CloseWindow),
            BulkAction::Move(there) => (Deed::Changed, DeviceChange::Move(self.checked_move(caller, there).await?)),
        };
        let (devices, missing) = self.select_devices(caller, selection).await?;
        if devices.is_empty() && missing.is_empty() {
            return Err(UseCaseError::refused("no device is chosen; tick some in the list"));
        }
        let wanted = devices.into_iter().map(|device| (device, change.clone(), None)).collect();
        self.apply(caller, deed, wanted, missing).await
    }

    async fn apply(
        &self,
        caller: &Caller,
        deed: Deed,
        wanted: Vec<(Device, DeviceChange, Option<DeviceChange>)>,
        missing: Vec<String>,
    ) -> Result<Receipt, UseCaseError> {
        let mut receipt = Receipt { deed, ..Receipt::default() };
        let mut refuse = |id: String, why: String| {
            receipt.refused += 1;
            if receipt.reasons.len() < TOLD {
                receipt.reasons.push((id, why));
            }
        };
        missing.into_iter().for_each(|id| refuse(id, "there is no such device".into()));
        let mut changes = Vec::new();
        for (device, change, after) in wanted {
            // Undoing a move needs the right at the site to which it goes back, as moving there would.
            let there = match &change {
                DeviceChange::Move(there) => there.site.as_deref(),
                _ => None,
            };
            let may_there = there.is_none_or(|site| caller.must_at(site, Role::may_administer).is_ok());
            if !may_there || caller.must_at(&device.facts.site, needs(&change)).is_err() {
                refuse(device.id.to_string(), "your role at its site does not allow it".into());
            } else {
                changes.push(ChangeOf { id: device.id, site: device.facts.site, change, after });
            }
        }
        let outcomes = self.store.change_devices(changes.clone(), &self.context(caller)).await?;
        for (wanted, outcome) in changes.into_iter().zip(outcomes) {
            match outcome {
                Changed::Done { undo, grant } => {
                    receipt.done += 1;
                    receipt.undo.extend(undo.map(|undo| (wanted.id, wanted.change, undo)));
                    if let Some(grant) = grant {
                        self.wake.grant(grant);
                    }
                }
                Changed::Nothing => receipt.same += 1,
                Changed::Meanwhile => {
                    refuse(wanted.id.to_string(), "it was changed again since; what is there now stays".into());
                }
                Changed::NotFound => refuse(wanted.id.to_string(), "it was moved a moment ago; look again".into()),
                Changed::Refused(state) => {
                    refuse(wanted.id.to_string(), format!("it is {}; that can't be done from there", state.as_str()));
                }
            }
        }
        self.wake.pages();
        Ok(receipt)
    }

    async fn checked_move(&self, caller: &Caller, there: &Move) -> Result<Move, UseCaseError> {
        if *there == Move::default() {
            return Err(UseCaseError::refused("fill in at least one of site, floor, room and owner"));
        }
        if let Some(site) = &there.site {
            self.must_be_site_for(caller, site, Role::may_administer).await?;
        }
        let mut problems = Vec::new();
        let mut field = |name: &'static str, text: &Option<String>, max: usize| {
            let cleaned = text.as_ref().map(|text| clean(name, text, max)).transpose();
            cleaned.unwrap_or_else(|error| {
                problems.push(error.to_string());
                None
            })
        };
        let checked = Move {
            site: there.site.clone(),
            floor: field("floor", &there.floor, 40),
            room: field("room", &there.room, 80),
            owner: field("owner", &there.owner, 80),
        };
        if problems.is_empty() { Ok(checked) } else { Err(UseCaseError::Refused(problems)) }
    }

    /// There is this site, and the caller may do this there.
    async fn must_be_site_for(&self, caller: &Caller, site: &str, may: fn(Role) -> bool) -> Result<(), UseCaseError> {
        if self.site(caller, site).await?.is_none() {
            return Err(UseCaseError::refused(format!("there is no site '{}'", one_line(site))));
        }
        caller.must_at(site, may)
    }

    /// Keeps a receipt for the next page of this session; the name by which that page asks for it.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn keep_receipt(&self, session: &Session, receipt: &Receipt) -> Result<String, StoreError> {
        self.set_aside(PURPOSE, session, receipt, UNDO).await
    }

    /// The last receipt of this session, if it is the one of this name.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn receipt(&self, session: &Session, name: &str) -> Result<Option<Receipt>, StoreError> {
        self.aside(PURPOSE, session, name).await
    }

    /// Undoes the last bulk change of this session, once.
    ///
    /// # Errors
    /// If it is not the one of this name, or more than 15 minutes ago.
    pub async fn undo_change(&self, caller: &Caller, session: &Session, name: &str) -> Result<Receipt, UseCaseError> {
        // Of two who undo at once, one does.
        let kept = self.take_aside::<Receipt>(PURPOSE, session, name).await?;
        let Some(kept) = kept.filter(|kept| !kept.undo.is_empty()) else {
            return Err(UseCaseError::refused(
                "that can't be undone any more: it was more than 15 minutes ago, or not your last change",
            ));
        };
        let (mut wanted, mut missing) = (Vec::new(), Vec::new());
        for (id, made, back) in kept.undo {
            match self.device(caller, id.as_str()).await {
                Ok(device) => wanted.push((device, back, Some(made))),
                Err(UseCaseError::NotFound(_)) => missing.push(id.to_string()),
                Err(error) => return Err(error),
            }
        }
        self.apply(caller, Deed::Undone, wanted, missing).await
    }

    /// Changes what is known of one device. `seen` is [`Broker::facts_seen`] of what the person looked at.
    ///
    /// # Errors
    /// If the caller may not, a text is refused, somebody changed it meanwhile, or kind or serial number of a paired device would change.
    pub async fn change_device_facts(
        &self,
        caller: &Caller,
        id: &str,
        seen: Option<&str>,
        facts: DeviceFacts,
    ) -> Result<(), UseCaseError> {
        let meanwhile =
            || UseCaseError::refused("somebody changed this device meanwhile; open the page again, then repeat");
        let device = self.device_for(caller, id, Role::may_pair).await?;
        if seen.is_some_and(|seen| seen != Self::facts_seen(&device.facts)) {
            return Err(meanwhile());
        }
        if facts.site != device.facts.site {
            caller.must_at(&device.facts.site, Role::may_administer)?;
            self.must_be_site_for(caller, &facts.site, Role::may_administer).await?;
        }
        if facts.kind != device.facts.kind && self.kind(&facts.kind).is_none() {
            return Err(UseCaseError::refused(format!("kind '{}' is unknown", one_line(&facts.kind))));
        }
        let facts = facts
            .checked(&device.id)
            .map_err(|errors| UseCaseError::Refused(errors.iter().map(ToString::to_string).collect()))?;
        match self.store.change_device_facts(&device.id, &device.facts, &facts, &self.context(caller)).await? {
            FactsChange::Changed => {
                self.wake.pages();
                Ok(())
            }
            FactsChange::NotFound => {
                Err(UseCaseError::refused(format!("{} is retired; what is known of it stays", device.id)))
            }
            FactsChange::Meanwhile => Err(meanwhile()),
            FactsChange::Paired => Err(UseCaseError::refused(
                "kind and serial number of a paired device stay: its key was confirmed for them. Replace the device instead",
            )),
        }
    }

    /// What a form carries, so that two people who edit at once notice.
    pub fn facts_seen(facts: &DeviceFacts) -> String {
        digest(&serde_json::to_string(facts).unwrap_or_default())
    }
}
