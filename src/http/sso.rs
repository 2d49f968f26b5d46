//! Signing in at the organisation's identity provider: out by a form of ours, back at one fixed address (R-9700-01).

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::broker::UseCaseError;
use crate::broker::people::{Browser, UsedBy};
use crate::http::Edge;
use crate::http::cookies::{cookie, set_cookie};
use crate::http::extract::{PageQuery, PostedForm, RETURN_COOKIE, is_own_path, is_return_path, session_cookie};
use crate::http::lang::{filters, said, t, tf};
use crate::http::present::{bare_chrome, capital, message, page, problems, unavailable};
use crate::http::views::Chrome;
use crate::upstream::oidc::Answer;

/// What ties the sign-in to this browser. Lax: it must come along when the provider sends the browser back.
const SSO_COOKIE: &str = "__Host-sso";

/// A page that sends on by itself. Not a redirect: browsers hold every stop of a posted form's redirects to `form-action`, and a provider has stops of its own.
#[derive(Debug, Template)]
#[template(path = "sso_leave.html")]
struct LeavePage {
    chrome: Chrome,
    heading: String,
    to: String,
}

/// `POST /sign-in/sso`: nothing starts by opening a link. With `back`, a person who is signed in proves anew who it is, and goes to that path then.
pub async fn begin(State(edge): State<Edge>, browser: Browser, PostedForm(form): PostedForm) -> Response {
    let broker = edge.broker();
    let session = match &browser.session {
        Some(id) => match broker.session(id, UsedBy::Person).await {
            Ok(session) => session,
            Err(error) => return unavailable(&error),
        },
        None => None,
    };
    let back = form.get("back").map(|back| if is_own_path(back) { back.as_str() } else { "/" });
    let begun = match broker.begin_sso(session.as_ref().zip(back)).await {
        Ok(begun) => begun,
        Err(error) => return refused(error),
    };
    let heading = tf("Going to your {0}", &[broker.sso_label().unwrap_or_default()]);
    let leave = LeavePage { chrome: bare_chrome(&heading), heading, to: begun.to.to_string() };
    let mut response = page(StatusCode::OK, &leave);
    if let Ok(refresh) = HeaderValue::from_str(&format!("0; url={}", begun.to)) {
        response.headers_mut().insert("refresh", refresh);
    }
    let cookie = format!("{SSO_COOKIE}={}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600", begun.cookie);
    set_cookie(&mut response, &cookie);
    response
}

/// `GET /sign-in/sso/callback`: the provider sends the browser here.
pub async fn callback(
    State(edge): State<Edge>,
    browser: Browser,
    headers: HeaderMap,
    PageQuery(answer): PageQuery<Answer>,
) -> Response {
    let broker = edge.broker();
    let session = match &browser.session {
        Some(id) => match broker.session(id, UsedBy::Person).await {
            Ok(session) => session,
            Err(error) => return unavailable(&error),
        },
        None => None,
    };
    let tie = cookie(&headers, SSO_COOKIE).unwrap_or_default();
    let mut response = match broker.finish_sso(tie, session.as_ref(), &answer, &browser).await {
        Ok(ended) => {
            let remembered = cookie(&headers, RETURN_COOKIE).filter(|path| is_return_path(path));
            let to = ended.back.as_deref().or(remembered).unwrap_or("/");
            let mut response = Redirect::to(to).into_response();
            set_cookie(&mut response, &session_cookie(&ended.session));
            set_cookie(&mut response, &format!("{RETURN_COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"));
            response
        }
        Err(error) => refused(error),
    };
    set_cookie(&mut response, &format!("{SSO_COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"));
    response
}

fn refused(error: UseCaseError) -> Response {
    match error {
        UseCaseError::Refused(lines) => {
            let lines = lines.iter().map(|line| capital(&said(line))).collect();
            message(StatusCode::FORBIDDEN, &t("Not signed in"), lines, Some(("/sign-in", &t("Sign in"))))
        }
        error => problems(error).map_or_else(
            |response| response,
            |lines| message(StatusCode::FORBIDDEN, &t("Not signed in"), lines, Some(("/sign-in", &t("Sign in")))),
        ),
    }
}
