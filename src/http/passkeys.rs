//! The ceremonies of passkeys, asked for by `passkey.js` in JSON: begin, then finish with what the browser made. Refusals are `{"error": …}` with a sentence.

use axum::extract::{FromRequest, FromRequestParts as _, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, RequestExt as _};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::broker::UseCaseError;
use crate::broker::passkeys::Started;
use crate::broker::people::Browser;
use crate::http::Edge;
use crate::http::cookies::{cookie, set_cookie};
use crate::http::extract::{RETURN_COOKIE, SignedIn, SmallBody, is_own_path, is_return_path, session_cookie};
use crate::http::lang::{said, t};
use crate::http::present::capital;

/// Finds the ceremony that this browser began.
const CEREMONY_COOKIE: &str = "__Host-ceremony";

/// What the script sends; each page's form has some of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Sent {
    csrf: String,
    name: String,
    back: String,
    credential: Value,
}

/// A request of our script: JSON, which no form of another site can send.
pub struct Asked {
    sent: Sent,
    headers: HeaderMap,
    browser: Browser,
}

impl FromRequest<Edge> for Asked {
    type Rejection = Response;

    async fn from_request(mut request: Request, edge: &Edge) -> Result<Self, Response> {
        let browser = request.extract_parts_with_state::<Browser, _>(edge).await.unwrap_or_default();
        let (parts, body) = request.into_parts();
        let media = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if media != Some("application/json") {
            return Err(not_ours());
        }
        let SmallBody(body) = SmallBody::from_request(Request::new(body), edge)
            .await
            .map_err(|(status, what)| refused(status, what.to_owned()))?;
        let sent = serde_json::from_slice(&body).map_err(|_| not_ours())?;
        Ok(Self { sent, headers: parts.headers, browser })
    }
}

/// The same by a signed-in person, from a page of the same session.
pub struct AskedBy {
    asked: Asked,
    signed_in: SignedIn,
}

impl FromRequest<Edge> for AskedBy {
    type Rejection = Response;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let no_session =
            |_| refused(StatusCode::UNAUTHORIZED, t("You are not signed in any more. Open the page again."));
        SignedIn::from_request_parts(&mut parts, edge).await.map_err(no_session)?;
        let asked = Asked::from_request(Request::from_parts(parts.clone(), body), edge).await?;
        // Once more: the body may have been held back until the person had lost everything.
        let signed_in = SignedIn::from_request_parts(&mut parts, edge).await.map_err(no_session)?;
        if !edge.broker().is_csrf_token(&signed_in.session, &asked.sent.csrf) {
            return Err(not_ours());
        }
        Ok(Self { asked, signed_in })
    }
}

/// `POST /sign-in/passkey/begin`.
pub async fn begin_sign_in(State(edge): State<Edge>, _: Asked) -> Response {
    started(edge.broker().start_passkey_sign_in().await)
}

/// `POST /sign-in/passkey/finish`.
pub async fn finish_sign_in(State(edge): State<Edge>, asked: Asked) -> Response {
    let Asked { sent, headers, browser } = asked;
    let ceremony = cookie(&headers, CEREMONY_COOKIE).unwrap_or_default();
    match edge.broker().passkey_sign_in(&browser, ceremony, sent.credential).await {
        Ok(id) => {
            let scanned = cookie(&headers, RETURN_COOKIE).filter(|path| is_return_path(path));
            let back = Some(sent.back.as_str()).filter(|path| is_own_path(path));
            let mut response = to(back.or(scanned).unwrap_or("/"));
            set_cookie(&mut response, &session_cookie(&id));
            set_cookie(&mut response, &gone(RETURN_COOKIE));
            response
        }
        Err(error) => not_done(&error),
    }
}

/// `POST /account/passkeys/begin`.
pub async fn begin_adding(State(edge): State<Edge>, AskedBy { asked, signed_in }: AskedBy) -> Response {
    started(edge.broker().start_passkey(&signed_in.session, &asked.sent.name).await)
}

/// `POST /account/passkeys/finish`.
pub async fn finish_adding(State(edge): State<Edge>, AskedBy { asked, signed_in }: AskedBy) -> Response {
    let Asked { sent, headers, .. } = asked;
    let ceremony = cookie(&headers, CEREMONY_COOKIE).unwrap_or_default();
    match edge.broker().add_passkey(&signed_in.session, signed_in.peer, ceremony, sent.credential).await {
        Ok(()) => to("/account"),
        Err(error) => not_done(&error),
    }
}

fn started(begun: Result<Started, UseCaseError>) -> Response {
    match begun {
        Ok(Started { cookie, options }) => {
            let mut response = Json(options).into_response();
            // Strict: no address elsewhere leads here in the middle of a ceremony.
            let cookie = format!("{CEREMONY_COOKIE}={cookie}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=300");
            set_cookie(&mut response, &cookie);
            response
        }
        Err(error) => not_done(&error),
    }
}

fn to(path: &str) -> Response {
    let mut response = Json(json!({ "to": path })).into_response();
    set_cookie(&mut response, &gone(CEREMONY_COOKIE));
    response
}

fn gone(cookie: &str) -> String {
    format!("{cookie}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
}

fn not_done(error: &UseCaseError) -> Response {
    match error {
        UseCaseError::Refused(lines) => {
            let lines: Vec<String> = lines.iter().map(|line| capital(&said(line))).collect();
            refused(StatusCode::FORBIDDEN, lines.join(" "))
        }
        UseCaseError::NotFresh => {
            let body = json!({ "error": capital(&said(&error.to_string())), "to": "/sign-in/again?back=/account" });
            (StatusCode::FORBIDDEN, Json(body)).into_response()
        }
        _ => {
            tracing::error!(%error, "a passkey could not be looked at");
            refused(StatusCode::SERVICE_UNAVAILABLE, t("The database did not answer. Nothing was changed. Try again."))
        }
    }
}

fn not_ours() -> Response {
    refused(StatusCode::FORBIDDEN, t("This did not come from a page of yours, or the page was old. Open it again."))
}

fn refused(status: StatusCode, error: String) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}
