//! The filters of the device list: from an address, to the query, and into addresses again.

use serde::Deserialize;
use url::form_urlencoded::Serializer;

use crate::http::extract::PageForm;
use crate::model::device::DeviceState;
use crate::store::DeviceQuery;

/// Devices on one page of the list.
pub const ROWS: u32 = 50;
/// In place of a floor: devices of which no floor is known.
pub const NO_FLOOR: &str = "-";

/// What the list is filtered by; empty texts filter nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Part of id, name, room, serial or asset tag.
    pub q: String,
    /// Word of a state.
    pub state: String,
    /// Kind id.
    pub kind: String,
    /// Site id.
    pub site: String,
    /// Floor, or [`NO_FLOOR`].
    pub floor: String,
    /// Page of the list, from 1.
    pub page: String,
    /// Name of the receipt of what was just done.
    pub done: String,
}

impl Filter {
    /// The filters in a form that a page of ours sent.
    pub fn of_form(form: &PageForm) -> Self {
        Self {
            q: form.field("q"),
            state: form.field("state"),
            kind: form.field("kind"),
            site: form.field("site"),
            floor: form.field("floor"),
            ..Self::default()
        }
    }

    /// Number of the page, from 1.
    pub fn page(&self) -> u32 {
        self.page.parse().unwrap_or(1).clamp(1, 10_000)
    }

    /// Is anything filtered?
    pub fn is_any(&self) -> bool {
        [&self.q, &self.state, &self.kind, &self.site, &self.floor].iter().any(|text| !text.is_empty())
    }

    /// Is anything filtered besides text and state, which are always in sight?
    pub fn is_more(&self) -> bool {
        [&self.kind, &self.site, &self.floor].iter().any(|text| !text.is_empty())
    }

    /// What it asks of the registry, for its page.
    pub fn query(&self) -> DeviceQuery {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        DeviceQuery {
            text: self.q.clone(),
            state: DeviceState::parse(&self.state),
            kind: some(&self.kind),
            site: some(&self.site),
            floor: some(&self.floor).map(|floor| if floor == NO_FLOOR { String::new() } else { floor }),
            after: None,
            offset: (self.page() - 1) * ROWS,
            limit: ROWS,
        }
    }

    /// The fields that are set, for hidden fields and addresses.
    pub fn fields(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("q", &self.q),
            ("state", &self.state),
            ("kind", &self.kind),
            ("site", &self.site),
            ("floor", &self.floor),
        ];
        all.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value.as_str())).collect()
    }

    /// An address with these filters and more.
    pub fn address(&self, path: &str, more: &[(&str, &str)]) -> String {
        let query = Serializer::new(String::new()).extend_pairs(self.fields()).extend_pairs(more).finish();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }

    /// The list, with another state.
    pub fn with_state(&self, state: &str) -> String {
        Self { state: state.to_owned(), ..self.clone() }.address("/devices", &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_come_back_out_of_the_address_they_make() {
        let filter = Filter {
            q: "a&b ü".into(),
            state: "active".into(),
            floor: NO_FLOOR.into(),
            page: "3".into(),
            ..Filter::default()
        };
        assert_eq!(filter.address("/devices", &[("page", "2")]), "/devices?q=a%26b+%C3%BC&state=active&floor=-&page=2");
        let query = filter.query();
        assert_eq!(
            (query.text.as_str(), query.state, query.floor),
            ("a&b ü", Some(DeviceState::Active), Some(String::new()))
        );
        assert_eq!((query.offset, query.limit), (100, 50));
        assert_eq!(Filter::default().address("/devices", &[]), "/devices");
        let odd = Filter { page: "-7".into(), state: "flying".into(), ..Filter::default() };
        assert_eq!((odd.page(), odd.query().state), (1, None));
    }
}
