//! The risk assessment that RFC 10027 section 2 asks for before devices may sign in across devices: what is at stake, which of its 17 mitigations
//! (section 6.1) are in force, what remains, and who accepts that. What is in force is looked up, not asked.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::model::kind::Kind;
use crate::model::site::Site;

/// Whether a mitigation is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// For all kinds and sites.
    On,
    /// For some.
    Partly,
    /// For none.
    Off,
    /// Not the broker's to do: the organisation's.
    Yours,
}

impl Standing {
    /// In words, for pages.
    pub const fn words(self) -> &'static str {
        match self {
            Self::On => "in force",
            Self::Partly => "in force for some",
            Self::Off => "not in force",
            Self::Yours => "yours to do",
        }
    }

    fn of(hits: usize, all: usize) -> Self {
        match hits {
            0 => Self::Off,
            hits if hits == all => Self::On,
            _ => Self::Partly,
        }
    }
}

/// One of the 17.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mitigation {
    /// Section of RFC 10027: `6.1.7`.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// Whether it is in force here.
    pub standing: Standing,
    /// By what.
    pub how: &'static str,
}

/// What a kind's devices may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stake {
    /// The kind.
    pub kind: String,
    /// What its devices may do, in words.
    pub may: Vec<String>,
    /// Where.
    pub resources: Vec<String>,
}

/// The whole record. Its signature covers this, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RiskAssessment {
    /// From 1.
    pub version: i64,
    /// The installation.
    pub issuer: String,
    /// RFC 3339.
    pub at: String,
    /// What is at stake.
    pub stakes: Vec<Stake>,
    /// What is done about it.
    pub mitigations: Vec<Mitigation>,
    /// What remains, in the words of whoever accepts it.
    pub residual: String,
    /// Who accepts it: a person's name and function.
    pub accepted_by: String,
}

/// A signed record as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RiskRecord {
    /// From 1.
    pub version: i64,
    /// When it was signed.
    pub at: Timestamp,
    /// Who pressed the button.
    pub by: String,
    /// [`RiskAssessment`] as JSON.
    pub document: String,
    /// The same, signed by the broker (compact JWS with its key in the header).
    pub signature: String,
}

/// What is at stake.
pub fn stakes<K: AsRef<Kind>>(kinds: &[K]) -> Vec<Stake> {
    let stake = |kind: &Kind| Stake {
        kind: kind.label.clone(),
        may: kind.scopes.iter().map(|(_, words)| words.clone()).collect(),
        resources: kind.resources.clone(),
    };
    kinds.iter().map(AsRef::as_ref).map(stake).collect()
}

/// The 17 mitigations, in the order of the RFC.
pub fn mitigations<K: AsRef<Kind>>(kinds: &[K], sites: &[Site]) -> Vec<Mitigation> {
    let of_kinds =
        |has: fn(&Kind) -> bool| Standing::of(kinds.iter().filter(|kind| has(kind.as_ref())).count(), kinds.len());
    let networks = Standing::of(sites.iter().filter(|site| !site.networks.is_empty()).count(), sites.len());
    let row = |section, name, standing, how| Mitigation { section, name, standing, how };
    vec![
        row(
            "6.1.1",
            "Establish proximity",
            of_kinds(|kind| kind.confirmation_number),
            "the approver types a number that only this device shows",
        ),
        row("6.1.2", "Short-lived codes", Standing::On, "a code dies after at most ten minutes"),
        row(
            "6.1.3",
            "One-time codes",
            Standing::On,
            "a code belongs to the first approver who opens it, and is redeemed once",
        ),
        row("6.1.4", "Unique codes and a deny list", Standing::On, "a code that a second person opens raises an alert"),
        row(
            "6.1.5",
            "Content filtering",
            Standing::Yours,
            "filter mail and chat for codes; ours have a prefix and a check letter",
        ),
        row(
            "6.1.6",
            "Detect and remediate",
            Standing::On,
            "suspending a device ends all that it holds, at once; resources ask by introspection",
        ),
        row(
            "6.1.7",
            "Trusted devices",
            Standing::On,
            "only registered devices, paired to their own key, can ask for a code at all",
        ),
        row("6.1.8", "Trusted networks", networks, "each site names its networks; a kind may require them"),
        row(
            "6.1.9",
            "Limited scopes",
            Standing::On,
            "each kind has a list; mail, chat, files of others and the directory are never on it",
        ),
        row("6.1.10", "Short-lived tokens", Standing::On, "access tokens live minutes; a sign-in ends by itself"),
        row("6.1.11", "Rate limits", Standing::On, "budgets per device, approver, address and in all"),
        row("6.1.12", "Sender-constrained tokens", Standing::On, "every token is bound to the device's key"),
        row("6.1.13", "User education", Standing::Yours, "tell people: codes are read off a device, nobody sends them"),
        row(
            "6.1.14",
            "User experience",
            Standing::On,
            "the approve page says which device, where, for what, and how to say no",
        ),
        row(
            "6.1.15",
            "Authenticate, then initiate",
            Standing::Off,
            "needs a device with a badge reader or keypad of its own",
        ),
        row("6.1.16", "Request initiation verification", Standing::Off, "needs a keypad on the device"),
        row(
            "6.1.17",
            "Request binding with out-of-band data",
            Standing::of(sites.iter().filter(|site| site.two_persons).count(), sites.len()),
            "a second person must approve what the first one paired",
        ),
    ]
}

/// Is anything in force that prevents, not only limits? Without it, the RFC says, the flow should not be used (section 2).
pub fn is_prevented(mitigations: &[Mitigation]) -> bool {
    let preventing = ["6.1.1", "6.1.7", "6.1.8"];
    mitigations.iter().any(|row| preventing.contains(&row.section) && row.standing == Standing::On)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_force_follows_kinds_and_sites() {
        let standing = |kinds: &[std::sync::Arc<Kind>], sites: &[Site], section: &str| {
            mitigations(kinds, sites).into_iter().find(|row| row.section == section).unwrap().standing
        };
        let mut kinds: Vec<std::sync::Arc<Kind>> = Kind::built_in().into_iter().map(Into::into).collect();
        let plain = [Site::plain("berlin", "Berlin"), Site::plain("paris", "Paris")];
        assert_eq!(mitigations(&kinds, &plain).len(), 17);
        assert_eq!(standing(&kinds, &plain, "6.1.1"), Standing::On);
        assert_eq!(standing(&kinds, &plain, "6.1.8"), Standing::Off);
        let networks = vec!["10.0.0.0/8".parse().unwrap()];
        let one = [Site { networks, ..plain[0].clone() }, plain[1].clone()];
        assert_eq!(standing(&kinds, &one, "6.1.8"), Standing::Partly);
        std::sync::Arc::make_mut(&mut kinds[0]).confirmation_number = false;
        assert_eq!(standing(&kinds, &one, "6.1.1"), Standing::Partly);
        assert!(is_prevented(&mitigations(&kinds, &plain)), "only paired devices can ask");
        assert!(!is_prevented(&[]));
    }
}
