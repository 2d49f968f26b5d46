//! `/api/v1/devices…`: list, register, suspend, resume, history, and the window of one device.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::Response;
use serde::Deserialize;

use crate::broker::{Caller, UseCaseError};
use crate::http::Edge;
use crate::http::api::shapes::{DeviceShape, Listed};
use crate::http::api::{ApiBody, ApiPath, ApiQuery, Program, answer, failed, rows};
use crate::model::device::{DeviceFacts, DeviceState};
use crate::store::{AuditQuery, DeviceQuery};

/// Which devices.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    #[serde(default)]
    q: String,
    state: Option<DeviceState>,
    kind: Option<String>,
    site: Option<String>,
    floor: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

/// `GET /devices`: by id.
pub async fn list(State(edge): State<Edge>, Program(caller): Program, ApiQuery(filter): ApiQuery<Filter>) -> Response {
    let limit = match rows(filter.limit) {
        Ok(limit) => limit,
        Err(response) => return response,
    };
    let Filter { q: text, state, kind, site, floor, after, .. } = filter;
    // One more than is shown: so it is known whether there is a next page.
    let query = DeviceQuery { text, state, kind, site, floor, after, limit: limit + 1, ..DeviceQuery::default() };
    let found = edge.broker().devices(&caller, &query).await.map_err(UseCaseError::Store);
    answer(found, |(devices, total)| {
        let shown = usize::try_from(limit).unwrap_or(usize::MAX);
        let items: Vec<_> = devices.iter().take(shown).map(DeviceShape::from).collect();
        let next = items.last().filter(|_| devices.len() > shown).map(|last| last.id.clone());
        Listed { items, next, total: Some(total) }
    })
}

/// A device to register.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDevice {
    id: String,
    facts: Facts,
}

/// Its facts; the site is the default one if none is named.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Facts {
    kind: String,
    site: String,
    name: String,
    serial: String,
    asset_tag: String,
    maker: String,
    model: String,
    floor: String,
    room: String,
    owner: String,
    note: String,
}

impl From<Facts> for DeviceFacts {
    fn from(facts: Facts) -> Self {
        let Facts { kind, site, name, serial, asset_tag, maker, model, floor, room, owner, note } = facts;
        Self { kind, site, name, serial, asset_tag, maker, model, floor, room, owner, note }
    }
}

/// `POST /devices`: from now on it is expected.
pub async fn register(
    State(edge): State<Edge>,
    Program(caller): Program,
    ApiBody(new): ApiBody<NewDevice>,
) -> Response {
    match edge.broker().register_device(&caller, &new.id, new.facts.into()).await {
        Ok(id) => {
            let mut response = device(&edge, &caller, id.as_str()).await;
            if response.status() == StatusCode::OK {
                *response.status_mut() = StatusCode::CREATED;
                let location = format!("{}/devices/{id}", crate::http::api::BASE);
                response.headers_mut().extend(location.parse().ok().map(|value| (header::LOCATION, value)));
            }
            response
        }
        Err(error) => failed(error),
    }
}

/// `GET /devices/{id}`.
pub async fn show(State(edge): State<Edge>, Program(caller): Program, ApiPath(id): ApiPath) -> Response {
    device(&edge, &caller, &id).await
}

async fn device(edge: &Edge, caller: &Caller, id: &str) -> Response {
    answer(edge.broker().device(caller, id).await, |device| DeviceShape::from(&device))
}

/// The device as it is after a change, or why it did not happen.
async fn changed(edge: &Edge, caller: &Caller, id: &str, outcome: Result<(), UseCaseError>) -> Response {
    match outcome {
        Ok(()) => device(edge, caller, id).await,
        Err(error) => failed(error),
    }
}

/// `POST /devices/{id}/suspend`.
pub async fn suspend(State(edge): State<Edge>, Program(caller): Program, ApiPath(id): ApiPath) -> Response {
    let outcome = edge.broker().suspend_device(&caller, &id).await;
    changed(&edge, &caller, &id, outcome).await
}

/// `POST /devices/{id}/resume`.
pub async fn resume(State(edge): State<Edge>, Program(caller): Program, ApiPath(id): ApiPath) -> Response {
    let outcome = edge.broker().resume_device(&caller, &id).await;
    changed(&edge, &caller, &id, outcome).await
}

/// `POST /devices/{id}/end-sign-ins`: it stays paired, and may ask anew.
pub async fn end_sign_ins(State(edge): State<Edge>, Program(caller): Program, ApiPath(id): ApiPath) -> Response {
    answer(edge.broker().end_sign_ins_of(&caller, &id).await, |ended| serde_json::json!({ "ended": ended }))
}

/// Which records of a device.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    after: Option<i64>,
    limit: Option<u32>,
}

/// `GET /devices/{id}/history`: its audit records, oldest first.
pub async fn history(
    State(edge): State<Edge>,
    Program(caller): Program,
    ApiPath(id): ApiPath,
    ApiQuery(Since { after, limit }): ApiQuery<Since>,
) -> Response {
    let limit = match rows(limit) {
        Ok(limit) => limit,
        Err(response) => return response,
    };
    let device = match edge.broker().device(&caller, &id).await {
        Ok(device) => device,
        Err(error) => return failed(error),
    };
    let query = AuditQuery { after: Some(after.unwrap_or(0)), device: Some(device.id), limit, ..AuditQuery::default() };
    super::audit::records(&edge, &caller, &query).await
}
