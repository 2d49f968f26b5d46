//! What the administration API says, as JSON. The command line prints the same members, so `--server` and `--json` know one form only. What pages show is
//! in `views.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::model::device::{Device, DeviceFacts, DeviceState, KeyAssurance, PinnedKey};
use crate::model::operator::{Rights, Role};
use crate::model::site::Site;
use crate::secret::b64u;
use crate::store::{GrantOfDevice, PairingOfDevice, Person};

/// A page of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// The `after` of the next page; `null` on the last one.
    pub next: Option<String>,
    /// How many there are in all, where that is counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

impl<T> Listed<T> {
    /// A list that is never cut.
    pub fn whole(items: impl IntoIterator<Item = T>) -> Self {
        Self { items: items.into_iter().collect(), next: None, total: None }
    }
}

/// A device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceShape {
    /// Device id.
    pub id: String,
    /// State.
    pub state: DeviceState,
    /// What people wrote down.
    pub facts: DeviceFacts,
    /// RFC 3339, as all instants here.
    pub registered_at: String,
    /// The pinned key.
    pub key: Option<KeyShape>,
    /// The key that its maker announced.
    pub announced_jkt: Option<String>,
    /// When it was reported stolen.
    pub stolen_at: Option<String>,
    /// When it last got a code or a token.
    pub seen_at: Option<String>,
}

/// A pinned key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyShape {
    /// RFC 7638 thumbprint.
    pub jkt: String,
    /// How it is kept.
    pub assurance: KeyAssurance,
    /// When an operator confirmed it.
    pub paired_at: String,
    /// Who.
    pub paired_by: String,
}

impl From<&Device> for DeviceShape {
    fn from(device: &Device) -> Self {
        Self {
            id: device.id.to_string(),
            state: device.state,
            facts: device.facts.clone(),
            registered_at: device.registered_at.rfc3339(),
            key: device.key.as_ref().map(|key| KeyShape {
                jkt: b64u(&key.jkt),
                assurance: key.assurance,
                paired_at: key.paired_at.rfc3339(),
                paired_by: key.paired_by.clone(),
            }),
            announced_jkt: device.manifest_jkt.map(|jkt| b64u(&jkt)),
            stolen_at: device.stolen_at.map(Timestamp::rfc3339),
            seen_at: device.seen_at.map(Timestamp::rfc3339),
        }
    }
}

/// Until when pairing is open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WindowShape {
    /// `null`: it is closed.
    pub closes_at: Option<String>,
}

impl From<Option<Timestamp>> for WindowShape {
    fn from(closes_at: Option<Timestamp>) -> Self {
        Self { closes_at: closes_at.map(Timestamp::rfc3339) }
    }
}

/// A pairing that waits for a person.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairingShape {
    /// Its id; `/pair/{id}` is the page where a person compares and confirms.
    pub pairing: String,
    /// For which device.
    pub device: String,
    /// The key that asks, short.
    pub key: String,
    /// How the key is kept, as far as was shown.
    pub key_assurance: KeyAssurance,
    /// Nothing needs to be compared: the device's present key or its maker vouches for it.
    pub verified: bool,
    /// It is the key that the device's maker announced.
    pub announced: bool,
    /// The device has answered: there is something to compare.
    pub ready: bool,
    /// Another key asked for the same device.
    pub conflict: bool,
    /// When it asked.
    pub requested_at: String,
    /// When it ends by itself.
    pub expires_at: String,
    /// Where the device stands.
    pub room: String,
}

impl From<&PairingOfDevice> for PairingShape {
    fn from(found: &PairingOfDevice) -> Self {
        let pairing = &found.pairing;
        Self {
            pairing: pairing.id.to_string(),
            device: pairing.device.to_string(),
            key: PinnedKey::short(&pairing.jkt),
            key_assurance: pairing.key_assurance,
            verified: pairing.vouched_by.is_some() || found.is_announced(),
            announced: found.is_announced(),
            ready: pairing.device_nonce.is_some(),
            conflict: pairing.conflict,
            requested_at: pairing.requested_at.rfc3339(),
            expires_at: pairing.expires_at.rfc3339(),
            room: found.device.facts.room.clone(),
        }
    }
}

/// A sign-in that waits for a person. Neither its code nor its number: they are to be read off the device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignInShape {
    /// Its number.
    pub id: i64,
    /// Which device asks.
    pub device: String,
    /// The device's site.
    pub site: String,
    /// What it asks for.
    pub scope: String,
    /// For which resource.
    pub resource: String,
    /// When it asked.
    pub asked_at: String,
    /// When its code dies.
    pub expires_at: String,
    /// From which address.
    pub peer: Option<String>,
    /// Who has opened it.
    pub claimed_by: Option<String>,
}

impl From<&GrantOfDevice> for SignInShape {
    fn from(found: &GrantOfDevice) -> Self {
        let GrantOfDevice { grant, device, claimed_by } = found;
        Self {
            id: grant.id.0,
            device: device.id.to_string(),
            site: device.facts.site.clone(),
            scope: grant.scope.to_string(),
            resource: grant.resource.clone(),
            asked_at: grant.created_at.rfc3339(),
            expires_at: grant.expires_at.rfc3339(),
            peer: grant.peer.map(|peer| peer.to_string()),
            claimed_by: claimed_by.clone(),
        }
    }
}

/// A site.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SiteShape {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its networks.
    pub networks: Vec<ipnet::IpNet>,
    /// May who registered or paired a device not alone approve its first sign-in?
    pub two_persons: bool,
    /// When nobody is called, UTC.
    pub quiet_hours: String,
}

impl From<&Site> for SiteShape {
    fn from(site: &Site) -> Self {
        Self {
            id: site.id.clone(),
            name: site.name.clone(),
            networks: site.networks.clone(),
            two_persons: site.two_persons,
            quiet_hours: site.quiet_hours.clone(),
        }
    }
}

/// A person.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperatorShape {
    /// Name, as in the audit log.
    pub name: String,
    /// Site, or `*` for everywhere, to role.
    pub roles: BTreeMap<String, Role>,
    /// Of these, what comes from groups of the organisation's account.
    pub roles_by_groups: BTreeMap<String, Role>,
    /// Signs in by the organisation's account.
    pub sso: bool,
    /// How many passkeys.
    pub passkeys: u64,
    /// How many sessions are open.
    pub sessions: u64,
    /// When the person was last here.
    pub seen_at: Option<String>,
    /// When the person was added.
    pub added_at: String,
    /// When the person was disabled.
    pub disabled_at: Option<String>,
}

impl From<&Person> for OperatorShape {
    fn from(person: &Person) -> Self {
        let operator = &person.operator;
        Self {
            name: operator.name.clone(),
            roles: roles(&operator.rights),
            roles_by_groups: roles(&person.by_groups),
            sso: person.has_sso,
            passkeys: person.passkeys,
            sessions: person.sessions,
            seen_at: person.seen_at.map(Timestamp::rfc3339),
            added_at: operator.added_at.rfc3339(),
            disabled_at: operator.disabled_at.map(Timestamp::rfc3339),
        }
    }
}

/// Who calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WhoamiShape {
    /// As in the audit log: `machine:inventory`, `command-line`.
    pub actor: String,
    /// Site, or `*` for everywhere, to role.
    pub roles: BTreeMap<String, Role>,
    /// The broker's public address.
    pub issuer: String,
    /// The broker's version.
    pub version: String,
}

/// Rights as a map.
pub fn roles(rights: &Rights) -> BTreeMap<String, Role> {
    rights.iter().map(|(site, role)| (site.to_owned(), role)).collect()
}

/// A map as rights.
pub fn rights(roles: &BTreeMap<String, Role>) -> Rights {
    let mut rights = Rights::default();
    roles.iter().for_each(|(site, role)| rights.add(site, *role));
    rights
}

/// What went wrong (RFC 9457).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status, in words.
    pub title: String,
    /// The status.
    pub status: u16,
    /// What happened, and what to do.
    pub detail: String,
    /// The same, a line per thing that is wrong.
    pub errors: Vec<String>,
}
