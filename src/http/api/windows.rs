//! `/api/v1/devices/{id}/window` and `/api/v1/sites/{id}/window`: when pairing is open.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use crate::broker::Caller;
use crate::http::Edge;
use crate::http::api::shapes::WindowShape;
use crate::http::api::{ApiBody, ApiPath, Program, answer, failed, not_found};
use crate::id::DeviceId;
use crate::store::WindowSubject;

/// How long a window is open.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Minutes {
    minutes: Option<u64>,
}

impl Minutes {
    /// `None`: as long as windows are, if nobody says.
    fn lifetime(&self) -> Option<Duration> {
        self.minutes.map(|minutes| Duration::from_secs(minutes.saturating_mul(60)))
    }
}

/// `GET /devices/{id}/window`: until when pairing is open.
pub async fn show_device(State(edge): State<Edge>, Program(caller): Program, ApiPath(id): ApiPath) -> Response {
    match DeviceId::new(&id) {
        Ok(id) => window_of(&edge, &caller, &WindowSubject::Device(id)).await,
        Err(_) => not_found(),
    }
}

/// `PUT /devices/{id}/window`: opens pairing.
pub async fn open_device(
    State(edge): State<Edge>,
    Program(caller): Program,
    ApiPath(id): ApiPath,
    ApiBody(minutes): ApiBody<Minutes>,
) -> Response {
    match DeviceId::new(&id) {
        Ok(id) => open_window_of(&edge, &caller, &WindowSubject::Device(id), &minutes).await,
        Err(_) => not_found(),
    }
}

/// `DELETE /devices/{id}/window`: closes it before its time.
pub async fn close_device(State(edge): State<Edge>, Program(caller): Program, ApiPath(id): ApiPath) -> Response {
    match DeviceId::new(&id) {
        Ok(id) => close_window_of(&edge, &caller, &WindowSubject::Device(id)).await,
        Err(_) => not_found(),
    }
}

/// `GET /sites/{id}/window`.
pub async fn show_site(State(edge): State<Edge>, Program(caller): Program, ApiPath(id): ApiPath) -> Response {
    window_of(&edge, &caller, &WindowSubject::Site(id)).await
}

/// `PUT /sites/{id}/window`: opens pairing for all registered devices of the site.
pub async fn open_site(
    State(edge): State<Edge>,
    Program(caller): Program,
    ApiPath(id): ApiPath,
    ApiBody(minutes): ApiBody<Minutes>,
) -> Response {
    open_window_of(&edge, &caller, &WindowSubject::Site(id), &minutes).await
}

/// `DELETE /sites/{id}/window`.
pub async fn close_site(State(edge): State<Edge>, Program(caller): Program, ApiPath(id): ApiPath) -> Response {
    close_window_of(&edge, &caller, &WindowSubject::Site(id)).await
}

/// The window of a device or a site.
async fn window_of(edge: &Edge, caller: &Caller, subject: &WindowSubject) -> Response {
    answer(edge.broker().window_for(caller, subject).await, WindowShape::from)
}

/// Opens it.
async fn open_window_of(edge: &Edge, caller: &Caller, subject: &WindowSubject, minutes: &Minutes) -> Response {
    let opened = edge.broker().open_window(caller, subject, minutes.lifetime()).await;
    answer(opened, |closes_at| WindowShape::from(Some(closes_at)))
}

/// Closes it.
async fn close_window_of(edge: &Edge, caller: &Caller, subject: &WindowSubject) -> Response {
    match edge.broker().close_window(caller, subject).await {
        Ok(()) => Json(WindowShape { closes_at: None }).into_response(),
        Err(error) => failed(error),
    }
}
