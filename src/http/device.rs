//! What devices call (`docs/api.md`, sections 1 and 2). Bodies in, one broker call, answers as the RFCs spell them.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::broker::device_authorization::Answer;
use crate::broker::pairing::PairingError;
use crate::broker::signing::JWKS_MAX_AGE;
use crate::broker::token::Patience;
use crate::device_auth::Presented;
use crate::http::Edge;
use crate::http::extract::{Peer, SmallBody, is_form};
use crate::oauth::error::OAuthError;

const NO_STORE: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

type Body = Result<SmallBody, (StatusCode, &'static str)>;

/// `POST /device_authorization` (RFC 8628 section 3.1).
pub async fn device_authorization(
    State(edge): State<Edge>,
    Peer(peer): Peer,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = match checked(&uri, &headers, body) {
        Ok(body) => body,
        Err(response) => return response,
    };
    let presented = presented(&headers, &edge.broker().endpoints().device_authorization, peer);
    answer(edge.broker().device_authorization(&presented, &body.0).await)
}

/// `POST /token` (RFC 6749 section 3.2).
pub async fn token(
    State(edge): State<Edge>,
    Peer(peer): Peer,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = match checked(&uri, &headers, body) {
        Ok(body) => body,
        Err(response) => return response,
    };
    let presented = presented(&headers, &edge.broker().endpoints().token, peer);
    let patience = Patience { wait: preferred_wait(&headers), stopping: &edge.0.stopping };
    answer(edge.broker().token(&presented, &body.0, &patience).await)
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

/// `GET /.well-known/oauth-authorization-server` (RFC 8414 section 3).
pub async fn metadata(State(edge): State<Edge>) -> Response {
    ([(header::CACHE_CONTROL, "max-age=300")], Json(edge.broker().metadata())).into_response()
}

/// The checks of a request that need no broker: a form, of our size, and nothing in the query.
#[allow(clippy::result_large_err)] // a response is what both ways end in
fn checked(uri: &axum::http::Uri, headers: &HeaderMap, body: Body) -> Result<SmallBody, Response> {
    let invalid = |what: &'static str| {
        answer::<()>(Answer { outcome: Err(OAuthError::InvalidRequest(what.into())), nonce: None, waited: None })
    };
    if uri.query().is_some() {
        return Err(invalid("Parameters belong into the body, not into the query."));
    }
    if !is_form(headers) {
        return Err(invalid("The body must be application/x-www-form-urlencoded."));
    }
    body.map_err(|(status, what)| {
        (status, [NO_STORE], Json(OAuthError::InvalidRequest(what.into()).body())).into_response()
    })
}

fn presented<'a>(headers: &'a HeaderMap, endpoint: &'a str, peer: Option<std::net::IpAddr>) -> Presented<'a> {
    Presented {
        // A header that is no text can't be a proof, but it is there.
        dpop: headers.get_all("dpop").iter().map(|value| value.to_str().unwrap_or_default()).collect(),
        has_authorization: headers.contains_key(header::AUTHORIZATION),
        method: "POST",
        endpoint,
        peer,
    }
}

/// Seconds of `Prefer: wait=N` (RFC 7240 section 4.3); other preferences and nonsense are ignored, as the RFC wants.
fn preferred_wait(headers: &HeaderMap) -> Option<u32> {
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
    let refused = |status: StatusCode, error: Option<&str>, description: &str| {
        let mut body = serde_json::json!({"error_description": description});
        if let Some(error) = error {
            body["error"] = error.into();
        }
        (status, [NO_STORE], Json(body)).into_response()
    };
    match outcome {
        Ok(jwt) => {
            ([(header::CONTENT_TYPE, HeaderValue::from_static("application/jwt")), NO_STORE], jwt).into_response()
        }
        Err(PairingError::Malformed(what)) => refused(StatusCode::BAD_REQUEST, Some("invalid_request"), what),
        Err(PairingError::Refused) => refused(
            StatusCode::FORBIDDEN,
            Some("pairing_refused"),
            "This pairing was refused. Ask an administrator to open pairing for this device, then start again.",
        ),
        Err(PairingError::Unavailable) => {
            let mut response =
                refused(StatusCode::SERVICE_UNAVAILABLE, None, "Temporarily unavailable. Wait, then try again.");
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            response
        }
    }
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
