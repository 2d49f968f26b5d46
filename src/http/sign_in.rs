//! Signing in by a one-time link, once more, and out. Passkeys are in [`super::passkeys`].

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use crate::broker::people::{Browser, UsedBy};
use crate::http::Edge;
use crate::http::assets::ASSETS;
use crate::http::cookies::{cookie, set_cookie};
use crate::http::extract::{
    PageForm, PageQuery, RETURN_COOKIE, SESSION_COOKIE, SignedIn, SmallBody, is_form, is_own_path, is_return_path,
    session_cookie,
};
use crate::http::lang::{filters, t};
use crate::http::present::{bare_chrome, chrome, page, refused_form, unavailable};
use crate::http::views::{Chrome, SignInPage};
use crate::model::operator::SignInMethod;
use crate::oauth::form::Form;

/// What the link carries.
#[derive(Deserialize)]
pub struct Link {
    token: Option<String>,
}

/// `GET /sign-in`: changes nothing, so that whoever previews the link does not spend it.
pub async fn show(State(edge): State<Edge>, PageQuery(Link { token }): PageQuery<Link>) -> Response {
    let owner = match &token {
        Some(token) => match edge.broker().link_owner(token).await {
            Ok(owner) => owner,
            Err(error) => return unavailable(&error),
        },
        None => None,
    };
    let problem = (token.is_some() && owner.is_none()).then(spent);
    let token = token.filter(|_| owner.is_some());
    render(SignInPage { token, name: owner.map(|owner| owner.name), problem, ..blank(&edge) })
}

fn spent() -> String {
    t("This link was used before, or is older than 10 minutes. Ask for a new one.")
}

fn blank(edge: &Edge) -> SignInPage {
    SignInPage {
        chrome: bare_chrome(&t("Sign in")),
        passkeys: edge.broker().has_passkeys(),
        script: &ASSETS.passkey.href,
        sso: edge.broker().sso_label().map(str::to_owned),
        token: None,
        name: None,
        problem: None,
    }
}

fn render(sign_in: SignInPage) -> Response {
    let status = if sign_in.problem.is_some() { StatusCode::FORBIDDEN } else { StatusCode::OK };
    page(status, &sign_in)
}

/// `POST /sign-in`: spends the link.
pub async fn sign_in(
    State(edge): State<Edge>,
    browser: Browser,
    headers: HeaderMap,
    body: Result<SmallBody, (StatusCode, &'static str)>,
) -> Response {
    let SmallBody(body) = match body {
        Ok(body) => body,
        Err(refused) => return refused.into_response(),
    };
    let form = Form::parse(&body);
    let (Ok(form), true) = (form, is_form(&headers)) else { return refused_form() };
    match edge.broker().sign_in(form.get("token").unwrap_or_default(), &browser).await {
        Ok(Some(id)) => {
            let back = cookie(&headers, RETURN_COOKIE).filter(|path| is_return_path(path));
            let to = if is_first_run(&edge, &id).await { "/setup" } else { "/" };
            let mut response = Redirect::to(back.unwrap_or(to)).into_response();
            set_cookie(&mut response, &session_cookie(&id));
            set_cookie(&mut response, &format!("{RETURN_COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"));
            response
        }
        Ok(None) => render(SignInPage { problem: Some(spent()), ..blank(&edge) }),
        Err(error) => unavailable(&error),
    }
}

/// Nobody has set anything up yet, and this person may. If that can't be found out, the overview will do.
async fn is_first_run(edge: &Edge, id: &str) -> bool {
    match edge.broker().session(id, UsedBy::Person).await {
        Ok(Some(session)) => edge.broker().is_first_run(&session.caller(None)).await.unwrap_or(false),
        _ => false,
    }
}

/// Where to go on afterwards.
#[derive(Deserialize)]
pub struct Again {
    back: Option<String>,
}

#[derive(Template)]
#[template(path = "sign_in_again.html")]
struct AgainPage {
    chrome: Chrome,
    /// Has the person a passkey that works here?
    passkeys: bool,
    script: &'static str,
    /// What people call the account at the organisation's identity provider, if the person has one.
    sso: Option<String>,
    name: String,
    back: String,
}

/// `GET /sign-in/again`: for what is dangerous. Whoever has just signed in goes on at once.
pub async fn again(
    State(edge): State<Edge>,
    signed_in: SignedIn,
    PageQuery(Again { back }): PageQuery<Again>,
) -> Response {
    let (broker, session) = (edge.broker(), &signed_in.session);
    let back = back.filter(|path| is_own_path(path)).unwrap_or_else(|| "/".into());
    if broker.is_fresh(&signed_in.caller()) {
        return Redirect::to(&back).into_response();
    }
    let has_passkey = match broker.passkeys(session).await {
        Ok(passkeys) => broker.has_passkeys() && !passkeys.is_empty(),
        Err(error) => return unavailable(&error),
    };
    let sso: Option<String> = match broker.sso_of(session).await {
        Ok(label) => label.map(str::to_owned),
        Err(error) => return unavailable(&error),
    };
    // A session by passkey has no role by groups: who came by the provider would go on with less than before.
    let passkeys = has_passkey && (sso.is_none() || session.method != SignInMethod::Sso);
    let chrome = Chrome { live: false, ..chrome(&edge, session, &t("Sign in once more"), "account").await };
    let name = session.operator.name.clone();
    page(StatusCode::OK, &AgainPage { chrome, passkeys, script: &ASSETS.passkey.href, sso, name, back })
}

/// `POST /sign-out`.
pub async fn sign_out(State(edge): State<Edge>, form: PageForm) -> Response {
    if let Err(error) = edge.broker().sign_out(&form.signed_in.session, form.signed_in.peer).await {
        return unavailable(&error);
    }
    signed_out()
}

/// To the sign-in page, without the session's cookie.
pub fn signed_out() -> Response {
    let mut response = Redirect::to("/sign-in").into_response();
    set_cookie(&mut response, &format!("{SESSION_COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"));
    response
}
