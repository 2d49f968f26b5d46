//! An operator: a person, with a role at each site; how long a session and a sign-in link live.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::OperatorId;

/// One-time sign-in links live this long.
pub const LINK_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// A session without a request for this long ends.
pub const SESSION_IDLE: Duration = Duration::from_secs(60 * 60);
/// A session ends after this long, used or not.
pub const SESSION_ABSOLUTE: Duration = Duration::from_secs(12 * 60 * 60);

/// What is dangerous needs a person who proved who it is at most so long ago.
pub const FRESH: Duration = Duration::from_secs(5 * 60);

/// What a person may do at a site. Each role may also do what stands above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Register and pair.
    Technician,
    /// Approve sign-ins.
    Approver,
    /// Everything, suspend and retire among it.
    Admin,
}

impl Role {
    /// All roles, for tables.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Technician, Self::Approver, Self::Admin];

    /// The word, as in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Technician => "technician",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }

    /// From the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }

    /// May register devices and pair them.
    pub fn may_pair(self) -> bool {
        self >= Self::Technician
    }

    /// May decide on sign-ins.
    pub fn may_approve(self) -> bool {
        self >= Self::Approver
    }

    /// May suspend, resume and retire.
    pub fn may_administer(self) -> bool {
        self >= Self::Admin
    }
}

/// How a person proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SignInMethod {
    /// With a one-time link.
    Link,
    /// With a passkey.
    Passkey,
    /// At the organisation's identity provider.
    Sso,
}

impl SignInMethod {
    /// All methods, for tables.
    pub const ALL: [Self; 3] = [Self::Link, Self::Passkey, Self::Sso];

    /// The word, as in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Passkey => "passkey",
            Self::Sso => "sso",
        }
    }

    /// From the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == word)
    }

    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Link => "by a one-time link",
            Self::Passkey => "with a passkey",
            Self::Sso => "at the organisation's sign-in",
        }
    }
}

/// In place of a site: all of them, also those that are added later.
pub const EVERYWHERE: &str = "*";

/// What somebody may do where: a role at a site, or everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights(BTreeMap<String, Role>);

/// Whose sites somebody may know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All.
    Everywhere,
    /// These; nothing of others may be told, not even that there is something.
    Sites(BTreeSet<String>),
}

impl Rights {
    /// A role everywhere.
    pub fn everywhere(role: Role) -> Self {
        Self::at(EVERYWHERE, role)
    }

    /// A role at one site.
    pub fn at(site: &str, role: Role) -> Self {
        Self(BTreeMap::from([(site.to_owned(), role)]))
    }

    /// Adds a role at a site, or [`EVERYWHERE`]; the higher one counts.
    pub fn add(&mut self, site: &str, role: Role) {
        let held = self.0.entry(site.to_owned()).or_insert(role);
        *held = role.max(*held);
    }

    /// What of these rights is also in others: at each site the lower role of the two.
    #[must_use]
    pub fn within(&self, others: &Self) -> Self {
        let mut both = Self::default();
        for site in self.0.keys().chain(others.0.keys()) {
            if let (Some(own), Some(other)) = (self.role_at(site), others.role_at(site)) {
                both.add(site, own.min(other));
            }
        }
        both
    }

    /// The role at a site; `None`: nothing is to be known of it.
    pub fn role_at(&self, site: &str) -> Option<Role> {
        self.0.get(EVERYWHERE).max(self.0.get(site)).copied()
    }

    /// The role that holds everywhere.
    pub fn role_everywhere(&self) -> Option<Role> {
        self.0.get(EVERYWHERE).copied()
    }

    /// The highest role at any site.
    pub fn highest(&self) -> Option<Role> {
        self.0.values().max().copied()
    }

    /// Which sites are known of.
    pub fn reach(&self) -> Reach {
        match self.role_everywhere() {
            Some(_) => Reach::Everywhere,
            None => Reach::Sites(self.0.keys().cloned().collect()),
        }
    }

    /// Sites, or [`EVERYWHERE`], each with its role.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Role)> {
        self.0.iter().map(|(site, role)| (site.as_str(), *role))
    }

    /// In words: `admin everywhere, approver at berlin`.
    pub fn words(&self) -> String {
        let word = |(site, role): (&str, Role)| match site {
            EVERYWHERE => format!("{} everywhere", role.as_str()),
            site => format!("{} at {site}", role.as_str()),
        };
        let words: Vec<String> = self.iter().map(word).collect();
        if words.is_empty() { "no role".into() } else { words.join(", ") }
    }
}

impl Reach {
    /// Is this site among them?
    pub fn has(&self, site: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Sites(sites) => sites.contains(site),
        }
    }
}

/// A person.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Row.
    pub id: OperatorId,
    /// Unique name, as in the audit log.
    pub name: String,
    /// What the person may do where.
    pub rights: Rights,
    /// Set when the person may no longer do anything.
    pub disabled_at: Option<Timestamp>,
    /// When the person was added.
    pub added_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_may_what_the_table_says() {
        for (role, pair, approve, administer) in [
            (Role::Viewer, false, false, false),
            (Role::Technician, true, false, false),
            (Role::Approver, true, true, false),
            (Role::Admin, true, true, true),
        ] {
            assert_eq!(
                (role.may_pair(), role.may_approve(), role.may_administer()),
                (pair, approve, administer),
                "{role:?}"
            );
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
    }

    #[test]
    fn the_higher_of_two_roles_counts_and_other_sites_are_unknown_a_080() {
        let mut rights = Rights::at("berlin", Role::Approver);
        rights.add("berlin", Role::Viewer);
        rights.add("paris", Role::Viewer);
        assert_eq!(rights.role_at("berlin"), Some(Role::Approver));
        assert_eq!(rights.role_at("rome"), None);
        assert_eq!((rights.role_everywhere(), rights.highest()), (None, Some(Role::Approver)));
        assert!(rights.reach().has("paris") && !rights.reach().has("rome"));
        rights.add(EVERYWHERE, Role::Technician);
        assert_eq!(rights.role_at("rome"), Some(Role::Technician));
        assert_eq!(rights.role_at("berlin"), Some(Role::Approver));
        assert_eq!(rights.reach(), Reach::Everywhere);
        assert_eq!(rights.words(), "technician everywhere, approver at berlin, viewer at paris");
    }
}
