//! An operator: a person, with a role; how long a session and a sign-in link live.

use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::id::OperatorId;

/// One-time sign-in links live this long.
pub const LINK_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// A session without a request for this long ends.
pub const SESSION_IDLE: Duration = Duration::from_secs(60 * 60);
/// A session ends after this long, used or not.
pub const SESSION_ABSOLUTE: Duration = Duration::from_secs(12 * 60 * 60);

/// What a person may do at a site. Each role may also do what stands above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
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

/// A person.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Row.
    pub id: OperatorId,
    /// Unique name, as in the audit log.
    pub name: String,
    /// Role at the default site.
    pub role: Role,
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
}
