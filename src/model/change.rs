//! What may be done to many devices at once, what undoes it, and how a change of facts is put into words.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::model::audit::one_line;
use crate::model::device::DeviceFacts;

/// What is done to a device as one of many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChange {
    /// Stop, reversibly.
    Suspend,
    /// Let on again.
    Resume,
    /// Stop, and raise the alarm; let on again only one by one.
    Stolen,
    /// Take out for ever.
    Retire,
    /// Open pairing until then.
    OpenWindow(Timestamp),
    /// Close pairing.
    CloseWindow,
    /// Note another place.
    Move(Move),
}

/// Another place: what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Site id.
    pub site: Option<String>,
    /// Floor.
    pub floor: Option<String>,
    /// Room.
    pub room: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
}

impl Move {
    /// The facts after it.
    pub fn applied(&self, facts: &DeviceFacts) -> DeviceFacts {
        let or = |new: &Option<String>, old: &String| new.as_ref().unwrap_or(old).clone();
        DeviceFacts {
            site: or(&self.site, &facts.site),
            floor: or(&self.floor, &facts.floor),
            room: or(&self.room, &facts.room),
            owner: or(&self.owner, &facts.owner),
            ..facts.clone()
        }
    }

    /// The move back to these facts.
    pub fn back_to(&self, facts: &DeviceFacts) -> Self {
        let old = |new: &Option<String>, old: &String| new.as_ref().map(|_| old.clone());
        Self {
            site: old(&self.site, &facts.site),
            floor: old(&self.floor, &facts.floor),
            room: old(&self.room, &facts.room),
            owner: old(&self.owner, &facts.owner),
        }
    }
}

/// For the record: `room: 'EG-01' → '2.14'; owner: '' → 'Facilities'`. Empty if nothing differs.
pub fn differences(before: &DeviceFacts, after: &DeviceFacts) -> String {
    let fields = [
        ("kind", &before.kind, &after.kind),
        ("site", &before.site, &after.site),
        ("name", &before.name, &after.name),
        ("serial", &before.serial, &after.serial),
        ("asset tag", &before.asset_tag, &after.asset_tag),
        ("maker", &before.maker, &after.maker),
        ("model", &before.model, &after.model),
        ("floor", &before.floor, &after.floor),
        ("room", &before.room, &after.room),
        ("owner", &before.owner, &after.owner),
        ("note", &before.note, &after.note),
    ];
    let changed = fields.iter().filter(|(_, before, after)| before != after);
    changed
        .map(|(name, before, after)| format!("{name}: '{}' → '{}'", one_line(before), one_line(after)))
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_and_its_way_back_touch_only_what_they_name() {
        let facts = DeviceFacts {
            site: "berlin".into(),
            floor: "EG".into(),
            room: "1".into(),
            name: "TV".into(),
            ..DeviceFacts::default()
        };
        let there = Move { floor: Some("2".into()), room: Some(String::new()), ..Move::default() };
        let moved = there.applied(&facts);
        assert_eq!(
            (moved.site.as_str(), moved.floor.as_str(), moved.room.as_str(), moved.name.as_str()),
            ("berlin", "2", "", "TV")
        );
        assert_eq!(there.back_to(&facts).applied(&moved), facts);
        assert_eq!(differences(&facts, &moved), "floor: 'EG' → '2'; room: '1' → ''");
        assert_eq!(differences(&facts, &facts), "");
    }
}
