//! A device: a row in the registry, its key, and the states it may be in.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{DeviceId, GrantId};
use crate::model::text::{TextError, clean};
use crate::secret::{Bytes32, b64u};

/// registered → active → suspended → retired; what each may become is [`DeviceState::may_become`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceState {
    /// Expected; has no key yet.
    Registered,
    /// Enrolled: an operator confirmed its key.
    Active,
    /// Reversible stop; everything that it holds is dead.
    Suspended,
    /// For ever. The id leaves a tombstone, the key is refused for ever.
    Retired,
}

impl DeviceState {
    /// All states, for tables.
    pub const ALL: [Self; 4] = [Self::Registered, Self::Active, Self::Suspended, Self::Retired];

    /// The word, as in the database and on pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Retired => "retired",
        }
    }

    /// From the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// The legal transitions. `Active → Active` is a new key for a known device: a pairing like the first. A replacement is none of them: there another box
    /// takes the device's place, and begins as *registered* (`DeviceStore::replace_device`).
    pub const fn may_become(self, next: Self) -> bool {
        use DeviceState::{Active, Registered, Retired, Suspended};
        match (self, next) {
            (Registered, Active | Suspended | Retired)
            | (Active, Active | Suspended | Retired)
            | (Suspended, Active | Registered | Retired) => true,
            (Retired, _) | (Registered, Registered) | (Active, Registered) | (Suspended, Suspended) => false,
        }
    }
}

/// How sure it is that a key can't leave its device, lowest first. A pin proves sameness, not hardware; so what is shown is never more than was proved
///
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyAssurance {
    /// Nobody says otherwise: it could be copied by whoever opens the device.
    #[default]
    Software,
    /// The device says that it is kept in hardware. Nobody checked.
    HardwareClaimed,
    /// A certificate of the maker says so (`device_auth/attestation.rs`).
    Attested,
}

impl KeyAssurance {
    /// All, lowest first.
    pub const ALL: [Self; 3] = [Self::Software, Self::HardwareClaimed, Self::Attested];

    /// The word, as in the database, in tokens and in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::HardwareClaimed => "hardware-claimed",
            Self::Attested => "attested",
        }
    }

    /// From the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assurance| assurance.as_str() == word)
    }

    /// For people, beside the key.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Software => "key in software",
            Self::HardwareClaimed => "hardware key, by its own word only",
            Self::Attested => "hardware key, proved by the maker's certificate",
        }
    }
}

/// The key that a device is pinned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedKey {
    /// RFC 7638 thumbprint.
    pub jkt: Bytes32,
    /// How it is kept, as far as was shown when it was paired.
    pub assurance: KeyAssurance,
    /// When an operator confirmed it.
    pub paired_at: Timestamp,
    /// Who.
    pub paired_by: String,
}

impl PinnedKey {
    /// How pages show a key: enough to compare by eye, `3f9c…a1`.
    pub fn short(jkt: &Bytes32) -> String {
        let text = b64u(jkt);
        format!("{}…{}", &text[..4], &text[text.len() - 2..])
    }
}

/// A row of the registry.
#[derive(Clone, Debug)]
pub struct Device {
    /// Row number; for joins inside the store.
    pub row: i64,
    /// Its id, the OAuth `client_id`.
    pub id: DeviceId,
    /// State.
    pub state: DeviceState,
    /// What facilities IT wrote down.
    pub facts: DeviceFacts,
    /// The pinned key, once paired.
    pub key: Option<PinnedKey>,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// When it last got a code or a token.
    pub seen_at: Option<Timestamp>,
    /// Its open sign-in: one at a time.
    pub pending_grant: Option<GrantId>,
    /// The key that its maker announced for it: a pairing by this key arrives verified.
    pub manifest_jkt: Option<Bytes32>,
    /// Until then its next answer asks it to show itself.
    pub identify_until: Option<Timestamp>,
    /// When it was reported stolen, if it is.
    pub stolen_at: Option<Timestamp>,
}

/// The box that takes a device's place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Successor {
    /// Its serial number; empty: not known, then none is compared.
    pub serial: String,
    /// Its asset tag.
    pub asset_tag: String,
    /// Its maker.
    pub maker: String,
    /// Its model.
    pub model: String,
}

/// What facilities IT knows of a device; all of it shown to approvers beside what the device proves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceFacts {
    /// `printer`, `tv`, `console`, or another configured kind.
    pub kind: String,
    /// Site id.
    pub site: String,
    /// What people call it.
    pub name: String,
    /// Serial number; if given, the device must name the same one to be paired.
    pub serial: String,
    /// Number on the organisation's sticker.
    pub asset_tag: String,
    /// Maker.
    pub maker: String,
    /// Model.
    pub model: String,
    /// Floor, as people call it.
    pub floor: String,
    /// Room.
    pub room: String,
    /// Who answers for it.
    pub owner: String,
    /// Anything else.
    pub note: String,
}

impl DeviceFacts {
    /// The facts, checked and normalised. An empty name becomes the id.
    ///
    /// # Errors
    /// One per field that was refused.
    pub fn checked(self, id: &DeviceId) -> Result<Self, Vec<TextError>> {
        let mut errors = Vec::new();
        let mut field = |name: &'static str, value: &str, max: usize| {
            clean(name, value, max).unwrap_or_else(|error| {
                errors.push(error);
                String::new()
            })
        };
        let name = field("name", &self.name, 80);
        let facts = Self {
            name: if name.is_empty() { id.to_string() } else { name },
            serial: field("serial", &self.serial, 64),
            asset_tag: field("asset tag", &self.asset_tag, 64),
            maker: field("maker", &self.maker, 64),
            model: field("model", &self.model, 64),
            floor: field("floor", &self.floor, 40),
            room: field("room", &self.room, 80),
            owner: field("owner", &self.owner, 80),
            note: field("note", &self.note, 500),
            kind: self.kind,
            site: self.site,
        };
        if errors.is_empty() { Ok(facts) } else { Err(errors) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_transitions_are_these_and_no_others() {
        use DeviceState::{Active, Registered, Retired, Suspended};
        let legal = [
            (Registered, Active),
            (Registered, Suspended),
            (Registered, Retired),
            (Active, Active),
            (Active, Suspended),
            (Active, Retired),
            (Suspended, Active),
            (Suspended, Registered),
            (Suspended, Retired),
        ];
        for from in DeviceState::ALL {
            for to in DeviceState::ALL {
                assert_eq!(from.may_become(to), legal.contains(&(from, to)), "{from:?} → {to:?}");
            }
        }
    }

    #[test]
    fn assurance_is_ordered_and_its_words_are_read_back() {
        assert!(KeyAssurance::ALL.is_sorted());
        for assurance in KeyAssurance::ALL {
            assert_eq!(KeyAssurance::parse(assurance.as_str()), Some(assurance));
            assert_eq!(serde_json::to_value(assurance).unwrap(), assurance.as_str());
        }
        assert_eq!(KeyAssurance::parse("hardware"), None);
        assert_eq!(KeyAssurance::default(), KeyAssurance::Software);
    }

    #[test]
    fn every_refused_field_is_named() {
        let id = DeviceId::new("lobby-printer-01").unwrap();
        let facts = DeviceFacts { name: "a\u{202E}b".into(), room: "x\ny".into(), ..DeviceFacts::default() };
        let errors = facts.checked(&id).unwrap_err();
        assert_eq!(errors.iter().map(|error| error.field).collect::<Vec<_>>(), ["name", "room"]);
        assert_eq!(DeviceFacts::default().checked(&id).unwrap().name, "lobby-printer-01");
    }
}
