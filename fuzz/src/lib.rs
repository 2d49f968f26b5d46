//! JSON as it is written, for the targets: members in their order, also those that stand twice. What the library makes of a message is held against it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Truth(bool),
    /// Any number.
    Number(f64),
    /// A string.
    Text(String),
    /// `[…]`.
    Array(Vec<Self>),
    /// `{…}`.
    Object(Vec<(String, Self)>),
}

impl Json {
    /// Reads a whole text.
    pub fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// The one member of this name that is not `null`. Panics if `self` is no object, or a member of this name stands twice.
    pub fn member(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { panic!("taken for an object: {self:?}") };
        let mut found = members.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
        let first = found.next();
        assert!(found.next().is_none(), "the member {name} stands twice");
        first.filter(|value| **value != Self::Null)
    }

    /// The text of a member.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.member(name)? {
            Self::Text(text) => Some(text),
            other => panic!("taken for a text: {other:?}"),
        }
    }

    /// The number of a member.
    pub fn number(&self, name: &str) -> Option<f64> {
        match self.member(name)? {
            Self::Number(number) => Some(*number),
            other => panic!("taken for a number: {other:?}"),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Truth(value))
    }

    #[allow(clippy::cast_precision_loss)]
    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value as f64))
    }

    #[allow(clippy::cast_precision_loss)]
    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element()? {
            array.push(element);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Json::Object(object))
    }
}
