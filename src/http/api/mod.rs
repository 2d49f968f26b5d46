//! The administration API, `/api/v1`: JSON for programs. Each handler extracts, makes one use case happen, and renders; roles and sites are the broker's affair.
//!
//! | routes below `/api/v1` | role | file |
//! | --- | --- | --- |
//! | `/whoami`, `/openapi.json` | any token | here |
//! | `/devices`, `/devices/{id}`, `…/suspend`, `…/resume`, `…/end-sign-ins`, `…/history` | as on the pages | [`devices`] |
//! | `/pairings`, `/pairings/{id}`, `…/decline`, `/sign-ins` | as on the pages; nothing here confirms or approves | [`waiting`] |
//! | `/sites`, `/sites/{id}`, `/operators` | as on the pages | [`places`] |
//! | `/devices/{id}/window`, `/sites/{id}/window` | as on the pages | [`windows`] |
//! | `/audit` | as on the pages | [`audit`] |
//!
//! Room is left for `POST /devices:batch` (import). Every request carries a token (`Authorization: Bearer`, RFC 6750); cookies are not looked at, so no other
//! site's page can make a browser call this. Nothing answers before the token is known, not even with 404. Problems are RFC 9457.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::broker::{Caller, UseCaseError};
use crate::http::Edge;
use crate::http::extract::{Peer, SmallBody};
use crate::http::present::capital;

pub mod audit;
pub mod devices;
pub mod places;
pub mod shapes;
pub mod waiting;
pub mod windows;

use shapes::{Problem, WhoamiShape, roles};

/// Where the API is.
pub const BASE: &str = "/api/v1";
/// Rows of a page, if nobody says.
const DEFAULT_LIMIT: u32 = 100;
/// Rows of a page, at most.
const MAX_LIMIT: u32 = 1000;
/// The description (OpenAPI 3.1), written by hand; `tests/integration/api.rs` holds it to the routes.
const OPENAPI: &str = include_str!("openapi.json");

/// Every route. Whoever has no token meets the door and nothing behind it.
pub fn routes(edge: &Edge) -> Router<Edge> {
    let below = Router::new()
        .route("/whoami", get(whoami))
        .route("/openapi.json", get(openapi))
        .route("/devices", get(devices::list).post(devices::register))
        .route("/devices/{id}", get(devices::show))
        .route("/devices/{id}/suspend", post(devices::suspend))
        .route("/devices/{id}/resume", post(devices::resume))
        .route("/devices/{id}/end-sign-ins", post(devices::end_sign_ins))
        .route("/devices/{id}/history", get(devices::history))
        .route(
            "/devices/{id}/window",
            get(windows::show_device).put(windows::open_device).delete(windows::close_device),
        )
        .route("/pairings", get(waiting::pairings))
        .route("/pairings/{id}", get(waiting::pairing))
        .route("/pairings/{id}/decline", post(waiting::decline))
        .route("/sign-ins", get(waiting::sign_ins))
        .route("/sites", get(places::list).post(places::add))
        .route("/sites/{id}", get(places::show).patch(places::change))
        .route("/sites/{id}/window", get(windows::show_site).put(windows::open_site).delete(windows::close_site))
        .route("/operators", get(places::operators))
        .route("/audit", get(audit::list))
        .method_not_allowed_fallback(wrong_method)
        .fallback(nothing_here)
        .layer(middleware::from_fn_with_state(edge.clone(), only_with_token))
        .layer(middleware::from_fn(api_headers));
    Router::new().nest(BASE, below)
}

/// The door: who calls is known before anything else is looked at.
async fn only_with_token(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let Peer(peer) = Peer::from_request_parts(&mut parts, &edge).await.unwrap_or(Peer(None));
    let token = bearer(&parts.headers).unwrap_or_default().to_owned();
    match edge.broker().program(&token, peer).await {
        Ok(Some(caller)) => {
            parts.extensions.insert(Program(caller));
            next.run(Request::from_parts(parts, body)).await
        }
        // One answer for none, a wrong, an expired and a revoked one.
        Ok(None) => {
            let lines = vec!["This needs a token that is good: Authorization: Bearer pgt_…".into()];
            let mut response = problem(StatusCode::UNAUTHORIZED, lines);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
        Err(error) => failed(UseCaseError::Store(error)),
    }
}

/// The token of the one `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else { return None };
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

async fn api_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The program that calls; put into the request by the door.
#[derive(Clone)]
pub struct Program(pub Caller);

impl FromRequestParts<Edge> for Program {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &Edge) -> Result<Self, Response> {
        let program = parts.extensions.get::<Self>().cloned();
        program.ok_or_else(|| problem(StatusCode::UNAUTHORIZED, vec!["This needs a token.".into()]))
    }
}

/// The variable part of an address.
pub struct ApiPath(pub String);

impl FromRequestParts<Edge> for ApiPath {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Response> {
        let path = Path::from_request_parts(parts, edge).await;
        path.map(|Path(path)| Self(path)).map_err(|_| not_found())
    }
}

/// The query; an unknown or wrong parameter is an error, since a filter that is silently ignored lists too much.
pub struct ApiQuery<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Edge> for ApiQuery<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Response> {
        let query = Query::from_request_parts(parts, edge).await;
        query.map(|Query(query)| Self(query)).map_err(|error| {
            let why = error.body_text();
            let why = why.rsplit(": ").next().unwrap_or_default();
            problem(StatusCode::BAD_REQUEST, vec![format!("The query is not understood: {why}.")])
        })
    }
}

/// A JSON body of at most 16 KiB; an unknown member is an error.
pub struct ApiBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Edge> for ApiBody<T> {
    type Rejection = Response;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Response> {
        if !is_json(request.headers()) {
            let lines = vec!["The body must be JSON: Content-Type: application/json".into()];
            return Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, lines));
        }
        let body = SmallBody::from_request(request, edge).await;
        let SmallBody(body) = body.map_err(|(status, what)| problem(status, vec![what.into()]))?;
        parse(&body).map(Self)
    }
}

#[allow(clippy::result_large_err)] // a response is what both ways end in
fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Response> {
    serde_json::from_slice(body).map_err(|error| {
        let line = format!("The body is not understood: {error}.");
        problem(StatusCode::BAD_REQUEST, vec![crate::model::audit::one_line(&line)])
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

/// Rows of a page, as asked for.
#[allow(clippy::result_large_err)] // a response is what both ways end in
fn rows(limit: Option<u32>) -> Result<u32, Response> {
    match limit.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        _ => Err(problem(StatusCode::BAD_REQUEST, vec![format!("limit is 1 to {MAX_LIMIT}.")])),
    }
}

/// What a use case came to, as an answer.
fn answer<T, S: Serialize>(outcome: Result<T, UseCaseError>, shape: impl FnOnce(T) -> S) -> Response {
    match outcome {
        Ok(value) => Json(shape(value)).into_response(),
        Err(error) => failed(error),
    }
}

/// Why a use case did not happen: the same sentences as on the pages.
fn failed(error: UseCaseError) -> Response {
    let status = match &error {
        UseCaseError::NotAllowed | UseCaseError::OnlyPeople | UseCaseError::NotFresh => StatusCode::FORBIDDEN,
        UseCaseError::NotFound(_) => StatusCode::NOT_FOUND,
        UseCaseError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
        UseCaseError::Store(_) | UseCaseError::Secret(_) | UseCaseError::Signing(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let lines = match error {
        UseCaseError::Refused(lines) => lines,
        UseCaseError::Store(_) | UseCaseError::Secret(_) | UseCaseError::Signing(_) => {
            tracing::error!(%error, "a program could not be served");
            vec!["the database did not answer; nothing was changed. Wait a moment, then try again".into()]
        }
        error => vec![error.to_string()],
    };
    let mut response = problem(status, lines.iter().map(|line| capital(line)).collect());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

/// A problem (RFC 9457).
pub fn problem(status: StatusCode, errors: Vec<String>) -> Response {
    let problem = Problem {
        kind: "about:blank".into(),
        title: status.canonical_reason().unwrap_or_default().into(),
        status: status.as_u16(),
        detail: errors.join(" "),
        errors,
    };
    let mut response = (status, Json(problem)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

fn not_found() -> Response {
    problem(StatusCode::NOT_FOUND, vec!["There is nothing at this address.".into()])
}

async fn nothing_here() -> Response {
    not_found()
}

async fn wrong_method() -> Response {
    let lines = vec!["This address has other methods; the header Allow names them.".into()];
    problem(StatusCode::METHOD_NOT_ALLOWED, lines)
}

/// `GET /api/v1/whoami`.
async fn whoami(State(edge): State<Edge>, Program(caller): Program) -> Response {
    let shape = WhoamiShape {
        actor: caller.actor.to_string(),
        roles: roles(&caller.rights),
        issuer: edge.broker().endpoints().issuer.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    Json(shape).into_response()
}

/// `GET /api/v1/openapi.json`.
async fn openapi(State(edge): State<Edge>) -> Response {
    let document = OPENAPI.replace("{issuer}", &edge.broker().endpoints().issuer);
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}
