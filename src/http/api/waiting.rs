//! `/api/v1/pairings…` and `/api/v1/sign-ins`: what waits for a person. A program may look and decline; there is no route that confirms or approves.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use crate::broker::UseCaseError;
use crate::http::Edge;
use crate::http::api::shapes::{DeviceShape, Listed, PairingShape, SignInShape};
use crate::http::api::{ApiPath, ApiQuery, Program, answer, problem, rows};
use crate::id::DeviceId;

/// Which pairings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfDevice {
    device: Option<String>,
}

/// `GET /pairings`: all that wait, oldest first.
pub async fn pairings(
    State(edge): State<Edge>,
    Program(caller): Program,
    ApiQuery(OfDevice { device }): ApiQuery<OfDevice>,
) -> Response {
    let device = match device.as_deref().map(DeviceId::new).transpose() {
        Ok(device) => device,
        Err(error) => return problem(StatusCode::BAD_REQUEST, vec![format!("device: {error}.")]),
    };
    let found = edge.broker().open_pairings(&caller, device.as_ref()).await.map_err(UseCaseError::Store);
    answer(found, |found| Listed::whole(found.iter().map(PairingShape::from)))
}

/// `GET /pairings/{id}`.
pub async fn pairing(State(edge): State<Edge>, Program(caller): Program, ApiPath(id): ApiPath) -> Response {
    answer(edge.broker().pairing(&caller, &id).await, |found| PairingShape::from(&found))
}

/// `POST /pairings/{id}/decline`: the device for which it was.
pub async fn decline(State(edge): State<Edge>, Program(caller): Program, ApiPath(id): ApiPath) -> Response {
    answer(edge.broker().decline_pairing(&caller, &id).await, |device| DeviceShape::from(&device))
}

/// How many.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtMost {
    limit: Option<u32>,
}

/// `GET /sign-ins`: those that wait, oldest first.
pub async fn sign_ins(
    State(edge): State<Edge>,
    Program(caller): Program,
    ApiQuery(AtMost { limit }): ApiQuery<AtMost>,
) -> Response {
    let limit = match rows(limit) {
        Ok(limit) => limit,
        Err(response) => return response,
    };
    let found = edge.broker().pending_grants(&caller, limit).await.map_err(UseCaseError::Store);
    answer(found, |found| Listed::whole(found.iter().map(SignInShape::from)))
}
