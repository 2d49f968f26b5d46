//! `GET /audit`: the log, newest first.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use crate::http::Edge;
use crate::http::extract::{PageQuery, SignedIn};
use crate::http::lang::t;
use crate::http::present::{chrome, page, sentence, unavailable, when, who};
use crate::http::views::{AuditPage, AuditRow};
use crate::store::AuditQuery;

/// Rows of a page.
const ROWS: u32 = 50;

/// Where the page begins.
#[derive(Deserialize)]
pub struct Position {
    before: Option<i64>,
}

/// The page.
pub async fn list(
    State(edge): State<Edge>,
    signed_in: SignedIn,
    PageQuery(Position { before }): PageQuery<Position>,
) -> Response {
    let records = match edge
        .broker()
        .audit(&signed_in.caller(), &AuditQuery { before, limit: ROWS, ..AuditQuery::default() })
        .await
    {
        Ok(records) => records,
        Err(error) => return unavailable(&error),
    };
    let now = edge.broker().now();
    let number = |id: i64| u64::try_from(id).unwrap_or(0);
    let older = records.last().filter(|last| last.id > 1).map(|last| number(last.id));
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
    page(
        StatusCode::OK,
        &AuditPage {
            chrome: chrome(&edge, &signed_in.session, &t("Audit"), "audit").await,
            rows,
            older,
            verified: None,
        },
    )
}
