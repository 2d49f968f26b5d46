//! The policy at one moment, and the three layers that it is made of. How it is changed is in `policy.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use arc_swap::ArcSwap;

use crate::config::ConfigError;
use crate::config::policy::{Described, PolicyTables, Trusts};
use crate::model::kind::{Kind, OFFLINE_ACCESS};
use crate::model::resource::Resource;
use crate::oauth::signing_key::SigningAlgorithm;
use crate::store::PolicyVersion;

/// The policy in the database can't hold here.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "version {version} of the policy in the database can't hold here: {why}. It was written by a newer program, or it contradicts pairgate.toml: use that program, or mend the file"
)]
pub struct UnusablePolicy {
    /// Which version.
    pub version: i64,
    /// Why not.
    pub why: String,
}

/// The policy at one moment.
#[derive(Debug)]
pub struct PolicySet {
    pub(super) version: i64,
    pub(super) two_persons: bool,
    pub(super) kinds: Vec<Arc<Kind>>,
    resources: Vec<Arc<Resource>>,
    /// Without the file: what is edited.
    below_file: Described,
    /// How many of `resources` have rules of their own; the others only stand in a kind.
    described: BTreeSet<String>,
}

impl PolicySet {
    pub(super) fn new(below_file: Described, whole: Described, version: i64, two_persons: bool) -> Self {
        let described = whole.resources.iter().map(|resource| resource.id.clone()).collect();
        let Described { kinds, mut resources } = whole;
        // What a kind names and nobody has described has no limits of its own.
        for named in kinds.iter().flat_map(|kind| &kind.resources) {
            if !resources.iter().any(|resource| resource.id == *named) {
                resources.push(Resource::plain(named));
            }
        }
        let kinds = kinds.into_iter().map(Arc::new).collect();
        let resources = resources.into_iter().map(Arc::new).collect();
        Self { version, two_persons, kinds, resources, below_file, described }
    }

    /// Number of the version in the database that holds; 0 if nothing was ever changed.
    pub const fn version(&self) -> i64 {
        self.version
    }

    /// Must a second person confirm changes?
    pub const fn two_persons(&self) -> bool {
        self.two_persons
    }

    /// All kinds.
    pub fn kinds(&self) -> &[Arc<Kind>] {
        &self.kinds
    }

    /// A kind by its id.
    pub fn kind(&self, id: &str) -> Option<&Arc<Kind>> {
        self.kinds.iter().find(|kind| kind.id == id)
    }

    /// All resources, those among them that only stand in a kind.
    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// A resource by its identifier.
    pub fn resource(&self, id: &str) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|resource| resource.id == id)
    }

    /// What is edited: kinds and resources without what pairgate.toml sets.
    pub fn editable(&self) -> PolicyTables {
        self.below_file.tables()
    }

    /// Has this resource rules of its own?
    pub fn is_described(&self, resource: &str) -> bool {
        self.described.contains(resource)
    }

    /// What tokens are signed with.
    pub fn algorithms(&self) -> BTreeSet<SigningAlgorithm> {
        self.resources.iter().map(|resource| resource.signing_algorithm).collect()
    }

    /// The kinds whose devices must have a certificate.
    pub fn certified(&self) -> BTreeSet<String> {
        self.kinds.iter().filter(|kind| kind.certified).map(|kind| kind.id.clone()).collect()
    }

    /// All scopes, for the metadata.
    pub fn scopes(&self) -> Vec<String> {
        let scopes = self.kinds.iter().flat_map(|kind| kind.scopes.iter().map(|(scope, _)| scope.clone()));
        let offline = self.kinds.iter().any(|kind| kind.offline_access).then(|| OFFLINE_ACCESS.to_owned());
        scopes.chain(offline).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// The snapshot that holds, and what it is made of.
pub struct Policies {
    pub(super) now: ArcSwap<PolicySet>,
    pub(super) base: Described,
    pub(super) file: PolicyTables,
    trusts: Trusts,
    /// The store's change counter before the last look at it.
    pub(super) seen: AtomicI64,
    /// Held from the look into the store until its outcome is in force.
    pub(super) looking: tokio::sync::Mutex<()>,
}

impl Policies {
    /// From what is built in, the file, and the version that holds in the database.
    ///
    /// # Errors
    /// [`UnusablePolicy`].
    pub fn open(
        base: Described,
        file: PolicyTables,
        trusts: Trusts,
        stored: Option<PolicyVersion>,
    ) -> Result<Self, UnusablePolicy> {
        let nothing = PolicySet::new(base.clone(), base.clone(), 0, false);
        let (now, seen) = (ArcSwap::from_pointee(nothing), AtomicI64::new(i64::MIN));
        let policies = Self { now, base, file, trusts, seen, looking: tokio::sync::Mutex::default() };
        policies.now.store(Arc::new(policies.of(stored.as_ref())?));
        Ok(policies)
    }

    /// The snapshot.
    pub fn now(&self) -> Arc<PolicySet> {
        self.now.load_full()
    }

    pub(super) fn of(&self, stored: Option<&PolicyVersion>) -> Result<PolicySet, UnusablePolicy> {
        let Some(stored) = stored else {
            let failed = |error: ConfigError| UnusablePolicy { version: 0, why: error.0 };
            let whole = self.base.clone().with(&self.file).map_err(failed)?;
            return Ok(PolicySet::new(self.base.clone(), whole, 0, false));
        };
        let failed = |error: ConfigError| UnusablePolicy { version: stored.version, why: error.0 };
        let tables = PolicyTables::parse(&stored.document).map_err(failed)?;
        let (below_file, whole) = self.layers(&tables).map_err(failed)?;
        Ok(PolicySet::new(below_file, whole, stored.version, tables.two_persons.unwrap_or(false)))
    }

    /// Without the file, and with it; both checked.
    pub(super) fn layers(&self, tables: &PolicyTables) -> Result<(Described, Described), ConfigError> {
        let below_file = self.base.clone().with(tables)?.checked(self.trusts)?;
        let whole = below_file.clone().with(&self.file)?.checked(self.trusts);
        let whole = whole.map_err(|error| ConfigError(format!("together with pairgate.toml: {error}")))?;
        Ok((below_file, whole))
    }
}
