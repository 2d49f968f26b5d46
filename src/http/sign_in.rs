//! Signing in by a one-time link, and out.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use crate::broker::people::Browser;
use crate::http::Edge;
use crate::http::extract::{
    PageForm, PageQuery, RETURN_COOKIE, SESSION_COOKIE, SmallBody, cookie, is_form, is_return_path, session_cookie,
    set_cookie,
};
use crate::http::present::{bare_chrome, page, refused_form, unavailable};
use crate::http::views::SignInPage;
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
    render(SignInPage { chrome: bare_chrome("Sign in"), token, name: owner.map(|owner| owner.name), problem, sso: sso(&edge) })
}

fn sso(edge: &Edge) -> Option<String> {
    edge.broker().sso_label().map(str::to_owned)
}

fn spent() -> String {
    "This link was used before, or is older than 10 minutes. Ask for a new one.".into()
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
            let to = cookie(&headers, RETURN_COOKIE).filter(|path| is_return_path(path)).unwrap_or("/");
            let mut response = Redirect::to(to).into_response();
            set_cookie(&mut response, &session_cookie(&id));
            set_cookie(&mut response, &format!("{RETURN_COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"));
            response
        }
        Ok(None) => {
            render(SignInPage { chrome: bare_chrome("Sign in"), token: None, name: None, problem: Some(spent()), sso: sso(&edge) })
        }
        Err(error) => unavailable(&error),
    }
}

/// `POST /sign-out`.
pub async fn sign_out(State(edge): State<Edge>, form: PageForm) -> Response {
    if let Err(error) = edge.broker().sign_out(&form.signed_in.session, form.signed_in.peer).await {
        return unavailable(&error);
    }
    let mut response = Redirect::to("/sign-in").into_response();
    set_cookie(&mut response, &format!("{SESSION_COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"));
    response
}
