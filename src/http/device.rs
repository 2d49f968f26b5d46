//! What devices call (`docs/api.md`, sections 1 and 2). Bodies in, one broker call, answers as the RFCs spell them.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts as _, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::broker::device_authorization::Answer;
use crate::broker::pairing::PairingError;
use crate::broker::signing::JWKS_MAX_AGE;
use crate::broker::token::Patience;
use crate::device_auth::Presented;
use crate::http::Edge;
use crate::http::extract::{Peer, SmallBody, client_certificate, is_form};
use crate::oauth::error::OAuthError;
use crate::oauth::metadata::ClientEndpoints;
use crate::tls::server::{Channel, PeerTls};

const NO_STORE: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

type Body = Result<SmallBody, (StatusCode, &'static str)>;

/// A request to a client endpoint: a form of our size, nothing in the query, and what the client presents.
pub struct ClientRequest {
    headers: HeaderMap,
    body: Bytes,
    peer: Option<IpAddr>,
    tls: PeerTls,
}

impl FromRequest<Edge> for ClientRequest {
    type Rejection = Response;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let Peer(peer) = Peer::from_request_parts(&mut parts, edge).await.unwrap_or(Peer(None));
        let mut tls = parts.extensions.remove::<PeerTls>().unwrap_or_default();
        if let Some(certificate) = client_certificate(&parts, edge) {
            tls = PeerTls { channel: Channel::Mtls, certificates: Arc::from([certificate]) };
        }
        if parts.uri.query().is_some() {
            return Err(invalid("Parameters belong into the body, not into the query."));
        }
        if !is_form(&parts.headers) {
            return Err(invalid("The body must be application/x-www-form-urlencoded."));
        }
        let SmallBody(body) = SmallBody::from_request(Request::new(body), edge).await.map_err(|(status, what)| {
            let mut body = OAuthError::InvalidRequest(what.into()).body();
            if status == StatusCode::REQUEST_TIMEOUT {
                // A slow network is no verdict, and a device stops for good on an error.
                body.error = None;
            }
            (status, [NO_STORE], Json(body)).into_response()
        })?;
        Ok(Self { headers: parts.headers, body, peer, tls })
    }
}

impl ClientRequest {
    /// What is presented to the endpoint at this address, as configured.
    fn presented<'a>(&'a self, endpoint: &'a str) -> Presented<'a> {
        Presented {
            // A header that is no text can't be a proof, but it is there.
            dpop: self.headers.get_all("dpop").iter().map(|value| value.to_str().unwrap_or_default()).collect(),
            has_authorization: self.headers.contains_key(header::AUTHORIZATION),
            certificates: &self.tls.certificates,
            method: "POST",
            endpoint,
            peer: self.peer,
        }
    }

    /// The addresses of the side that it came in by.
    fn endpoints<'a>(&self, edge: &'a Edge) -> &'a ClientEndpoints {
        edge.broker().endpoints().client(self.tls.channel == Channel::Mtls)
    }
}

/// `POST /device_authorization` (RFC 8628 section 3.1).
pub async fn device_authorization(State(edge): State<Edge>, request: ClientRequest) -> Response {
    let presented = request.presented(&request.endpoints(&edge).device_authorization);
    answer(edge.broker().device_authorization(&presented, &request.body).await)
}

/// `POST /token` (RFC 6749 section 3.2).
pub async fn token(State(edge): State<Edge>, request: ClientRequest) -> Response {
    let presented = request.presented(&request.endpoints(&edge).token);
    let patience = Patience { wait: preferred_wait(&request.headers), stopping: &edge.0.stopping };
    answer(edge.broker().token(&presented, &request.body, &patience).await)
}

/// `POST /revoke` (RFC 7009).
pub async fn revoke(State(edge): State<Edge>, request: ClientRequest) -> Response {
    let presented = request.presented(&request.endpoints(&edge).revocation);
    let answered = edge.broker().revoke(&presented, &request.body).await;
    let is_done = answered.outcome.is_ok();
    let mut response = answer(answered);
    if is_done {
        // "The content of the response body is ignored by the client" (section 2.2).
        *response.body_mut() = axum::body::Body::empty();
        response.headers_mut().remove(header::CONTENT_TYPE);
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// `POST /introspect` (RFC 7662): for resources, not for devices.
pub async fn introspect(State(edge): State<Edge>, request: ClientRequest) -> Response {
    let presented = request.presented(&request.endpoints(&edge).introspection);
    answer(edge.broker().introspect(&presented, &request.body).await)
}

/// `POST /pairing`.
pub async fn pairing(State(edge): State<Edge>, Peer(peer): Peer, body: Body) -> Response {
    match text(&body) {
        Ok(jwt) => pairing_answer(edge.broker().request_pairing(jwt, peer).await),
        Err(error) => pairing_answer(Err(error)),
    }
}

/// `POST /pairing/poll`.
pub async fn pairing_poll(State(edge): State<Edge>, Peer(peer): Peer, body: Body) -> Response {
    match text(&body) {
        Ok(jwt) => pairing_answer(edge.broker().poll_pairing(jwt, peer).await),
        Err(error) => pairing_answer(Err(error)),
    }
}

/// `GET /jwks` (RFC 7517 section 5).
pub async fn jwks(State(edge): State<Edge>) -> Response {
    ([(header::CACHE_CONTROL, format!("max-age={JWKS_MAX_AGE}"))], Json(edge.broker().jwks())).into_response()
}

/// The description of all device endpoints (OpenAPI 3.1), written by hand (`docs/decisions/0008`); `tests/integration/openapi.rs` holds it to the routes.
const OPENAPI: &str = include_str!("openapi.json");

/// `GET /openapi.json`.
pub async fn openapi(State(edge): State<Edge>) -> Response {
    let document = OPENAPI.replace("{issuer}", &edge.broker().endpoints().issuer);
    let headers = [(header::CACHE_CONTROL, "max-age=300"), (header::CONTENT_TYPE, "application/json")];
    (headers, document).into_response()
}

/// `GET /.well-known/oauth-authorization-server` (RFC 8414 section 3).
pub async fn metadata(State(edge): State<Edge>) -> Response {
    ([(header::CACHE_CONTROL, "max-age=300")], Json(edge.broker().metadata())).into_response()
}

fn invalid(what: &'static str) -> Response {
    answer::<()>(Answer { outcome: Err(OAuthError::InvalidRequest(what.into())), nonce: None, waited: None })
}

/// Seconds of `Prefer: wait=N` (RFC 7240 section 4.3); other preferences and nonsense are ignored, as the RFC wants.
pub fn preferred_wait(headers: &HeaderMap) -> Option<u32> {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .filter_map(|preference| preference.trim().split_once('='))
        .find_map(|(name, value)| {
            (name.trim().eq_ignore_ascii_case("wait")).then(|| value.trim().trim_matches('"').parse().ok()).flatten()
        })
        .filter(|wait| *wait > 0)
}

fn answer<T: Serialize>(answer: Answer<T>) -> Response {
    let mut response = match answer.outcome {
        Ok(body) => Json(body).into_response(),
        Err(error) => {
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
            let mut response = (status, Json(error.body())).into_response();
            if let Some(seconds) = error.retry_after() {
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(NO_STORE.0, NO_STORE.1);
    if let Some(nonce) = answer.nonce.and_then(|nonce| nonce.parse().ok()) {
        headers.insert(DPOP_NONCE, nonce);
    }
    if let Some(applied) = answer.waited.and_then(|seconds| format!("wait={seconds}").parse().ok()) {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    response
}

fn text(body: &Body) -> Result<&str, PairingError> {
    match body {
        Ok(SmallBody(bytes)) => {
            std::str::from_utf8(bytes).map(str::trim).map_err(|_| PairingError::Malformed("The body is no JWT."))
        }
        Err((_, what)) => Err(PairingError::Malformed(what)),
    }
}

fn pairing_answer(outcome: Result<String, PairingError>) -> Response {
    let error = match outcome {
        Ok(jwt) => {
            let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/jwt"));
            return ([content_type, NO_STORE], jwt).into_response();
        }
        Err(error) => error,
    };
    let status = match error {
        PairingError::Malformed(_) => StatusCode::BAD_REQUEST,
        PairingError::Refused => StatusCode::FORBIDDEN,
        PairingError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = (status, [NO_STORE], Json(error.body())).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_preference_is_read_as_rfc_7240_says() {
        let wait =
            |value: &str| preferred_wait(&HeaderMap::from_iter([("prefer".parse().unwrap(), value.parse().unwrap())]));
        assert_eq!(wait("wait=25"), Some(25));
        assert_eq!(wait("respond-async, Wait = 10; x=y"), Some(10));
        assert_eq!(wait("wait=\"7\""), Some(7));
        for ignored in ["wait", "wait=", "wait=-1", "wait=0", "wait=99999999999", "await=5", ""] {
            assert_eq!(wait(ignored), None, "{ignored}");
        }
    }
}
