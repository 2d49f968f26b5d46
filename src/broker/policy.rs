//! The policy: which kinds and resources there are and what they may have, as it holds now; and how that is changed.
//!
//! Three layers, each over the one before: what is built in, the newest applied version in the database, pairgate.toml. What the file says an attacker with
//! a session of an administrator can't change. Whoever asks gets a snapshot; a change makes another one, so that one request never sees half of two.
//!
//! A change:
//! 1. the text is read, and checked alone and under the file: both must be good
//! 2. what it needs is there before it holds: a key for each algorithm that a resource asks for. What can't be had while we run is refused
//! 3. one transaction: if the version that it was written against still holds, it is applied, or proposed where a second person is wanted
//! 4. the snapshot is renewed, here at once, in other processes within a second

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use crate::broker::policy_set::{Policies, PolicySet, UnusablePolicy};
use crate::broker::registry::checked_site;
use crate::broker::{Broker, Caller, UseCaseError, signing};
use crate::config::ConfigError;
use crate::config::difference::{Change, differences, in_a_line};
use crate::config::policy::{Described, KindPatch, PolicyTables, ResourcePatch, SitePatch};
use crate::model::audit::Actor;
use crate::model::device::DeviceState;
use crate::model::operator::{Reach, Role};
use crate::model::site::Site;
use crate::oauth::signing_key::SigningAlgorithm;
use crate::store::{
    DeviceQuery, NewPolicy, PolicyConfirmed, PolicyEffects, PolicyState, PolicyVersion, PolicyWritten, StoreError,
};

/// The audit log has at most so many characters of what a change changes.
const SUMMARY: usize = 1500;
/// Versions that are listed.
const VERSIONS: u32 = 200;

/// Why another process's policy could not be taken over; the former one holds.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It needs a signing key that could not be made.
    #[error(transparent)]
    Signing(#[from] signing::SigningError),
    /// It can't hold here.
    #[error(transparent)]
    Unusable(#[from] UnusablePolicy),
}

/// A change that was looked at, and not made.
#[derive(Clone, Debug)]
pub struct PolicyChange {
    /// The version that it was compared with.
    pub base: i64,
    /// What differs; empty if nothing does.
    pub changes: Vec<Change>,
    /// Will it wait for a second person?
    pub wants_second: bool,
    /// The text that would be stored.
    document: String,
    effects: PolicyEffects,
    algorithms: BTreeSet<SigningAlgorithm>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is what holds already.
    Unchanged,
    /// It holds, as this version.
    Applied(i64),
    /// It waits for a second person, as this version.
    Proposed(i64),
}

impl Broker {
    /// The policy, as it is now.
    pub fn policy(&self) -> Arc<PolicySet> {
        self.policies.now()
    }

    /// What pairgate.toml sets.
    pub const fn file_policy(&self) -> &PolicyTables {
        &self.policies.file
    }

    /// Did the caller prove who it is lately enough for what is dangerous?
    pub fn is_fresh(&self, caller: &Caller) -> bool {
        self.must_be_fresh(caller).is_ok()
    }

    /// May the caller see settings at all, or those of the whole installation?
    ///
    /// # Errors
    /// If not.
    pub fn must_administer(&self, caller: &Caller, everywhere: bool) -> Result<(), UseCaseError> {
        let may = Role::may_administer;
        if everywhere { caller.must_everywhere(may) } else { caller.must(may) }
    }

    /// The policy as text: kinds and resources without what pairgate.toml sets, all settings spelled out, and the sites.
    ///
    /// # Errors
    /// If the caller may not, or the store fails.
    pub async fn export_policy(&self, caller: &Caller) -> Result<String, UseCaseError> {
        caller.must_everywhere(Role::may_administer)?;
        let now = self.policy();
        let mut tables = now.editable();
        tables.two_persons = Some(now.two_persons);
        tables.sites = site_tables(self.store.sites(&Reach::Everywhere).await?);
        tables.to_text().map_err(|error| UseCaseError::refused(error.0))
    }

    /// What a text would change. Changes nothing.
    ///
    /// # Errors
    /// If the caller may not, or why the text can't hold.
    pub async fn propose_policy(&self, caller: &Caller, text: &str) -> Result<PolicyChange, UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        let tables = PolicyTables::parse(text).map_err(|error| UseCaseError::refused(error.0))?;
        self.look_at(caller, tables).await
    }

    /// What another kind, or another form of one, would change; without one, what it would be to do without it.
    ///
    /// # Errors
    /// As [`Broker::propose_policy`].
    pub async fn propose_kind(
        &self,
        caller: &Caller,
        id: &str,
        patch: Option<KindPatch>,
    ) -> Result<PolicyChange, UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        let mut tables = self.policy().editable();
        match patch {
            Some(patch) => tables.kinds.insert(id.to_owned(), patch),
            None => tables.kinds.remove(id),
        };
        self.look_at(caller, tables).await
    }

    /// The same of a resource.
    ///
    /// # Errors
    /// As [`Broker::propose_policy`].
    pub async fn propose_resource(
        &self,
        caller: &Caller,
        id: &str,
        patch: Option<ResourcePatch>,
    ) -> Result<PolicyChange, UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        let mut tables = self.policy().editable();
        match patch {
            Some(patch) => tables.resources.insert(id.to_owned(), patch),
            None => tables.resources.remove(id),
        };
        self.look_at(caller, tables).await
    }

    /// The same of the question whether a second person must confirm changes.
    ///
    /// # Errors
    /// As [`Broker::propose_policy`].
    pub async fn propose_two_persons(&self, caller: &Caller, wanted: bool) -> Result<PolicyChange, UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        let mut tables = self.policy().editable();
        tables.two_persons = Some(wanted);
        self.look_at(caller, tables).await
    }

    /// What a version would change, if it came to hold: one that waits, or one that held before. Of that one, its kinds and resources alone.
    ///
    /// # Errors
    /// As [`Broker::propose_policy`], or if there is no such version.
    pub async fn propose_version(&self, caller: &Caller, version: i64) -> Result<PolicyChange, UseCaseError> {
        caller.must_be_no_program()?;
        let stored = self.policy_version(caller, version).await?;
        let mut tables = PolicyTables::parse(&stored.document).map_err(|error| UseCaseError::refused(error.0))?;
        if stored.state != PolicyState::Proposed {
            (tables.sites, tables.two_persons) = (BTreeMap::new(), None);
        }
        self.look_at(caller, tables).await
    }

    /// Makes a change that was looked at, if `base` still holds.
    ///
    /// # Errors
    /// If the caller may not, proved too long ago who it is, or another version has come to hold meanwhile.
    pub async fn apply_policy(
        &self,
        caller: &Caller,
        change: &PolicyChange,
        base: i64,
    ) -> Result<Applied, UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        self.must_be_fresh(caller)?;
        if change.changes.is_empty() {
            return Ok(Applied::Unchanged);
        }
        if change.base != base {
            return Err(stale());
        }
        self.signing.provide(change.algorithms.iter().copied()).await?;
        let new = NewPolicy {
            base,
            document: change.document.clone(),
            effects: change.effects.clone(),
            may_alone: caller.actor == Actor::CommandLine,
        };
        let written = self.store.write_policy(&new, &self.context(caller)).await?;
        self.renew_policy().await?;
        match written {
            PolicyWritten::Applied(version) => Ok(Applied::Applied(version)),
            PolicyWritten::Proposed(version) => Ok(Applied::Proposed(version)),
            PolicyWritten::Stale => Err(stale()),
        }
    }

    /// Confirms a version that waits. Who wrote it can't; a program can't.
    ///
    /// # Errors
    /// If the caller may not, proved too long ago who it is, wrote it, or it does not wait any more.
    pub async fn confirm_policy(&self, caller: &Caller, version: i64) -> Result<(), UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        let is_shell = caller.actor == Actor::CommandLine;
        if caller.operator.is_none() && !is_shell {
            return Err(UseCaseError::NotAllowed);
        }
        self.must_be_fresh(caller)?;
        let change = self.propose_version(caller, version).await?;
        let proposed_at = self.policy_version(caller, version).await?.proposed_at;
        for (_, site) in &change.effects.sites {
            // Who proposed it saw another site than the one that it would change.
            let last = self.store.site_records(&site.id, 1).await?;
            if last.first().is_some_and(|record| record.at > proposed_at) {
                return Err(stale());
            }
        }
        self.signing.provide(change.algorithms.iter().copied()).await?;
        let confirmed = self.store.confirm_policy(version, &change.effects, is_shell, &self.context(caller)).await?;
        self.renew_policy().await?;
        match confirmed {
            PolicyConfirmed::Applied => Ok(()),
            PolicyConfirmed::Own => Err(UseCaseError::refused(
                "you proposed this change yourself; another administrator must confirm it. You can withdraw it",
            )),
            PolicyConfirmed::Stale => Err(stale()),
            PolicyConfirmed::Gone => Err(gone(version)),
        }
    }

    /// Takes back a version that waits.
    ///
    /// # Errors
    /// If the caller may not, or it does not wait any more.
    pub async fn withdraw_policy(&self, caller: &Caller, version: i64) -> Result<(), UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        let withdrawn = self.store.withdraw_policy(version, &self.context(caller)).await?;
        self.wake.pages();
        if withdrawn { Ok(()) } else { Err(gone(version)) }
    }

    /// A version.
    ///
    /// # Errors
    /// If the caller may not, or there is none.
    pub async fn policy_version(&self, caller: &Caller, version: i64) -> Result<PolicyVersion, UseCaseError> {
        caller.must_everywhere(Role::may_administer)?;
        let found = self.store.policy_version(version).await?;
        found.ok_or_else(|| UseCaseError::NotFound(format!("there is no version {version} of the policy")))
    }

    /// All versions, newest first, each with what it changed of the one that it was written against.
    ///
    /// # Errors
    /// If the caller may not, or the store fails.
    pub async fn policy_history(&self, caller: &Caller) -> Result<Vec<(PolicyVersion, Vec<Change>)>, UseCaseError> {
        caller.must_everywhere(Role::may_administer)?;
        let versions = self.store.policy_versions(VERSIONS).await?;
        let tables: BTreeMap<i64, PolicyTables> =
            versions.iter().map(|version| (version.version, self.spelled_out(&version.document))).collect();
        let nothing = PolicyTables { two_persons: Some(false), ..self.policies.base.tables() };
        let changes = |version: &PolicyVersion| {
            let before = tables.get(&version.base).or((version.base == 0).then_some(&nothing));
            before.zip(tables.get(&version.version)).map_or_else(Vec::new, |(before, after)| {
                let mut before = before.clone();
                // Of sites a version has only what it changed.
                before.sites = BTreeMap::new();
                differences(&before, after, &PolicyTables::default())
            })
        };
        Ok(versions.iter().map(|version| (version.clone(), changes(version))).collect())
    }

    /// What was recorded about a site, newest first.
    ///
    /// # Errors
    /// If the caller does not administer it, or may not know of it.
    pub async fn site_history(
        &self,
        caller: &Caller,
        site: &str,
    ) -> Result<Vec<crate::model::audit::Record>, UseCaseError> {
        caller.must_at(site, Role::may_administer)?;
        Ok(self.store.site_records(site, VERSIONS).await?)
    }

    /// A version's text with all settings, for comparing; of one that can't be read, nothing.
    fn spelled_out(&self, document: &str) -> PolicyTables {
        let Ok(tables) = PolicyTables::parse(document) else { return PolicyTables::default() };
        let described = self.policies.base.clone().with(&tables).unwrap_or_default();
        PolicyTables {
            two_persons: Some(tables.two_persons.unwrap_or(false)),
            sites: tables.sites,
            ..described.tables()
        }
    }

    /// Step 1, and what the outcome would be.
    async fn look_at(&self, caller: &Caller, tables: PolicyTables) -> Result<PolicyChange, UseCaseError> {
        let now = self.policy();
        let refused = |error: ConfigError| UseCaseError::refused(error.0);
        let (below_file, whole) = self.policies.layers(&tables).map_err(refused)?;
        self.must_not_orphan(&now, &whole).await?;
        let sites = self.changed_sites(&tables.sites).await?;
        let two_persons = tables.two_persons.unwrap_or(now.two_persons);

        let mut before = now.editable();
        let mut after = below_file.tables();
        // Only what is built in may change by a new program; the rest is stored as it was decided.
        let mut stored = after.beyond(&self.policies.base.tables()).map_err(refused)?;
        (before.two_persons, after.two_persons) = (Some(now.two_persons), Some(two_persons));
        for (was, site) in &sites {
            before.sites.extend(was.iter().map(|was| (was.id.clone(), SitePatch::of(was))));
            after.sites.insert(site.id.clone(), SitePatch::of(site));
            // Only what it changes: the rest is what the site is when the version comes to hold.
            stored.sites.insert(site.id.clone(), SitePatch::beyond(was.as_ref(), site));
        }
        stored.two_persons = Some(two_persons);
        let changes = differences(&before, &after, &self.policies.file);
        let set = PolicySet::new(below_file, whole, 0, two_persons);
        Ok(PolicyChange {
            base: now.version,
            wants_second: now.two_persons && caller.actor != Actor::CommandLine,
            document: stored.to_text().map_err(refused)?,
            effects: PolicyEffects { two_persons, sites, summary: in_a_line(&changes, SUMMARY) },
            algorithms: set.algorithms(),
            changes,
        })
    }

    /// A kind that goes while it still has devices would leave them without any policy.
    async fn must_not_orphan(&self, now: &PolicySet, whole: &Described) -> Result<(), UseCaseError> {
        let gone = now.kinds.iter().filter(|kind| !whole.kinds.iter().any(|kept| kept.id == kind.id));
        for kind in gone {
            let mut devices = 0;
            for state in [DeviceState::Registered, DeviceState::Active, DeviceState::Suspended] {
                let query =
                    DeviceQuery { state: Some(state), kind: Some(kind.id.clone()), limit: 1, ..DeviceQuery::default() };
                devices += self.store.devices(&query, &Reach::Everywhere).await?.1;
            }
            if devices > 0 {
                return Err(UseCaseError::refused(format!(
                    "kind '{}' would go, but {devices} of its devices are not retired; they could do nothing any more",
                    kind.id
                )));
            }
        }
        Ok(())
    }

    /// The sites that a text adds or changes, each with what it was.
    async fn changed_sites(
        &self,
        tables: &BTreeMap<String, SitePatch>,
    ) -> Result<Vec<(Option<Site>, Site)>, UseCaseError> {
        let mut changed = Vec::new();
        for (id, patch) in tables {
            let was = self.store.site(id).await?;
            let below = was.clone().unwrap_or_else(|| Site::plain(id, id));
            let site = checked_site(patch.clone().over(below)).map_err(|error| match error {
                UseCaseError::Refused(lines) => {
                    UseCaseError::Refused(lines.iter().map(|line| format!("sites.{id}: {line}")).collect())
                }
                other => other,
            })?;
            if was.as_ref() != Some(&site) {
                changed.push((was, site));
            }
        }
        Ok(changed)
    }

    /// Renews the snapshot if the store has changed.
    pub(super) async fn look_for_policy(&self, counter: i64) -> Result<(), RenewalError> {
        if self.policies.seen.load(Ordering::Relaxed) != counter {
            self.renew_policy().await?;
            // As with the signing keys: not noted if the look failed.
            self.policies.seen.store(counter, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Step 4.
    async fn renew_policy(&self) -> Result<(), RenewalError> {
        let _looking = self.policies.looking.lock().await;
        let stored = self.store.policy().await?;
        if stored.as_ref().map_or(0, |stored| stored.version) == self.policy().version {
            return Ok(());
        }
        let set = self.policies.of(stored.as_ref())?;
        self.signing.provide(set.algorithms()).await?;
        // The stricter one first: for a moment a certificate may be wanted in vain, but never be missing.
        let certified: BTreeSet<String> = self.policy().certified().union(&set.certified()).cloned().collect();
        self.authenticator.certify(certified);
        let kept = set.certified();
        self.policies.now.store(Arc::new(set));
        self.authenticator.certify(kept);
        self.wake.pages();
        Ok(())
    }
}

fn site_tables(sites: Vec<Site>) -> BTreeMap<String, SitePatch> {
    sites.into_iter().map(|site| (site.id.clone(), SitePatch::of(&site))).collect()
}

fn stale() -> UseCaseError {
    UseCaseError::refused("the policy was changed by somebody else meanwhile. Look at it again, then repeat the change")
}

fn gone(version: i64) -> UseCaseError {
    UseCaseError::refused(format!("version {version} of the policy does not wait for anybody"))
}

impl From<RenewalError> for UseCaseError {
    fn from(error: RenewalError) -> Self {
        match error {
            RenewalError::Store(error) => Self::Store(error),
            RenewalError::Signing(error) => Self::Signing(error),
            RenewalError::Unusable(error) => Self::refused(error.to_string()),
        }
    }
}
