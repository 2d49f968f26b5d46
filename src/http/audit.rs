//! `GET /audit`: the log, newest first, filtered by device, event and person.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use crate::http::Edge;
use crate::http::extract::{PageQuery, SignedIn};
use crate::http::lang::t;
use crate::http::present::{chrome, page, sentence, unavailable, when, who};
use crate::http::views::{AuditFilter, AuditPage, AuditRow};
use crate::id::DeviceId;
use crate::model::audit::Event;
use crate::store::AuditQuery;

/// Rows of a page.
const ROWS: u32 = 50;

/// Where the page begins, and what it shows.
#[derive(Deserialize)]
pub struct Position {
    before: Option<i64>,
    device: Option<String>,
    event: Option<String>,
    by: Option<String>,
}

impl AuditFilter {
    /// Is anything filtered for?
    pub fn is_set(&self) -> bool {
        [&self.device, &self.event, &self.by].iter().any(|field| !field.is_empty())
    }

    fn of(position: &Position) -> Self {
        let text = |field: &Option<String>| field.as_deref().unwrap_or_default().trim().to_owned();
        let mut events: Vec<_> = Event::ALL.iter().map(|event| (event.as_str(), event.words())).collect();
        events.sort_by_key(|(name, _)| *name);
        Self { device: text(&position.device), event: text(&position.event), by: text(&position.by), events }
    }

    /// As a part of an address, to go on with.
    fn query(&self) -> String {
        let mut query = String::new();
        for (name, value) in [("device", &self.device), ("event", &self.event), ("by", &self.by)] {
            if !value.is_empty() {
                let value: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
                query.push_str(&format!("&{name}={value}"));
            }
        }
        query
    }
}

/// The page.
pub async fn list(State(edge): State<Edge>, signed_in: SignedIn, PageQuery(position): PageQuery<Position>) -> Response {
    let filter = AuditFilter::of(&position);
    let wanted = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let query = AuditQuery {
        before: position.before,
        device: DeviceId::new(&filter.device).ok(),
        event: wanted(&filter.event),
        by: wanted(&filter.by),
        limit: ROWS,
        ..AuditQuery::default()
    };
    // What is no device id is no device's.
    let is_nothing = !filter.device.is_empty() && query.device.is_none();
    let records = match edge.broker().audit(&signed_in.caller(), &query).await {
        Ok(_) if is_nothing => Vec::new(),
        Ok(records) => records,
        Err(error) => return unavailable(&error),
    };
    let now = edge.broker().now();
    let is_full = records.len() == usize::try_from(ROWS).unwrap_or(usize::MAX);
    let number = |id: i64| u64::try_from(id).unwrap_or(0);
    let older =
        records.last().filter(|last| is_full && last.id > 1).map(|last| format!("{}{}", last.id, filter.query()));
    let rows = records
        .iter()
        .map(|record| AuditRow {
            id: number(record.id),
            at: when(record.at, now),
            event: record.event.clone(),
            actor: who(&record.actor),
            device: record.device.clone(),
            text: sentence(record),
            severity: record.severity.clone(),
        })
        .collect();
    let chrome = chrome(&edge, &signed_in.session, &t("Audit"), "audit").await;
    page(StatusCode::OK, &AuditPage { chrome, rows, older, filter, verified: None })
}
