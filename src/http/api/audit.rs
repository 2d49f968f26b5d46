//! `/api/v1/audit`, and what devices' histories have of it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use crate::broker::{Caller, UseCaseError};
use crate::http::Edge;
use crate::http::api::shapes::Listed;
use crate::http::api::{ApiQuery, Program, answer, problem, rows};
use crate::id::DeviceId;
use crate::store::AuditQuery;

/// Which records.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Records {
    before: Option<i64>,
    after: Option<i64>,
    device: Option<String>,
    #[serde(default)]
    refusals: bool,
    limit: Option<u32>,
}

/// `GET /audit`: newest first, or with `after` oldest first from there on.
pub async fn list(State(edge): State<Edge>, Program(caller): Program, ApiQuery(wanted): ApiQuery<Records>) -> Response {
    let limit = match rows(wanted.limit) {
        Ok(limit) => limit,
        Err(response) => return response,
    };
    let device = match wanted.device.as_deref().map(DeviceId::new).transpose() {
        Ok(device) => device,
        Err(error) => return problem(StatusCode::BAD_REQUEST, vec![format!("device: {error}.")]),
    };
    let Records { before, after, refusals, .. } = wanted;
    records(&edge, &caller, &AuditQuery { before, after, device, refusals, limit, ..AuditQuery::default() }).await
}

/// Records. `next` is the number from which to go on in the same direction, if the page is full.
pub async fn records(edge: &Edge, caller: &Caller, query: &AuditQuery) -> Response {
    let found = edge.broker().audit(caller, query).await.map_err(UseCaseError::Store);
    answer(found, |items| {
        let is_full = items.len() >= usize::try_from(query.limit).unwrap_or(usize::MAX);
        let next = items.last().filter(|_| is_full).map(|last| last.id.to_string());
        Listed { items, next, total: None }
    })
}
