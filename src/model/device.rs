//! A device: a row in the registry, its key, and the states it may be in.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::id::{DeviceId, GrantId};
use crate::model::text::{TextError, clean};
use crate::secret::{Bytes32, b64u};

/// registered → active → suspended → retired; what each may become is [`DeviceState::may_become`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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

    /// The legal transitions. `Active → Active` is a new key for a known device: a pairing like the first.
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

/// The key that a device is pinned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedKey {
    /// RFC 7638 thumbprint.
    pub jkt: Bytes32,
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
}

/// What facilities IT knows of a device; all of it shown to approvers beside what the device proves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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
    /// Room.
    pub room: String,
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
            room: field("room", &self.room, 80),
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
    fn every_refused_field_is_named() {
        let id = DeviceId::new("lobby-printer-01").unwrap();
        let facts = DeviceFacts { name: "a\u{202E}b".into(), room: "x\ny".into(), ..DeviceFacts::default() };
        let errors = facts.checked(&id).unwrap_err();
        assert_eq!(errors.iter().map(|error| error.field).collect::<Vec<_>>(), ["name", "room"]);
        assert_eq!(DeviceFacts::default().checked(&id).unwrap().name, "lobby-printer-01");
    }
}
