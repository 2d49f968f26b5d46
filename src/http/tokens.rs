//! `/settings/tokens`: tokens of programs for the administration API. Made and revoked here by people; what they may do is the broker's affair.

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::broker::UseCaseError;
use crate::http::Edge;
use crate::http::extract::{PageForm, SignedIn};
use crate::http::lang::{filters, t, tf};
use crate::http::present::{chrome, page, problems, refused_form, when, who};
use crate::http::views::{Chrome, When};
use crate::model::api_token::ApiToken;
use crate::model::operator::{EVERYWHERE, Rights, Role};

/// The page.
#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    chrome: Chrome,
    rows: Vec<Row>,
    /// Name and text of the token that was just made: the only time that it is shown.
    made: Option<(String, String)>,
    /// Where a token may be something: id and name.
    sites: Vec<(String, String)>,
    roles: Vec<(&'static str, String)>,
    form: Form,
    errors: Vec<String>,
}

struct Row {
    name: String,
    rights: String,
    /// `live`, `expired` or `revoked`.
    state: &'static str,
    state_words: String,
    made_by: String,
    expires: When,
    used: Option<When>,
}

/// What was typed.
struct Form {
    name: String,
    role: String,
    site: String,
    days: String,
}

impl Default for Form {
    fn default() -> Self {
        Self { name: String::new(), role: Role::Viewer.as_str().into(), site: EVERYWHERE.into(), days: "90".into() }
    }
}

/// `GET /settings/tokens`.
pub async fn show(State(edge): State<Edge>, signed_in: SignedIn) -> Response {
    render(&edge, &signed_in, None, Form::default(), Vec::new()).await
}

/// `POST /settings/tokens`.
pub async fn act(State(edge): State<Edge>, form: PageForm) -> Response {
    match form.field("action").as_str() {
        "add" => add(&edge, &form).await,
        "revoke" => {
            let caller = form.signed_in.caller();
            match edge.broker().revoke_api_token(&caller, &form.field("name")).await.map_err(problems) {
                Ok(()) => Redirect::to("/settings/tokens").into_response(),
                Err(Ok(errors)) => render(&edge, &form.signed_in, None, Form::default(), errors).await,
                Err(Err(response)) => response,
            }
        }
        _ => refused_form(),
    }
}

async fn add(edge: &Edge, form: &PageForm) -> Response {
    let typed =
        Form { name: form.field("name"), role: form.field("role"), site: form.field("site"), days: form.field("days") };
    let rights = Role::parse(&typed.role).map_or_else(Rights::default, |role| Rights::at(&typed.site, role));
    // What is no number is no lifetime; the broker says which there are.
    let lifetime = Duration::from_secs(typed.days.parse().unwrap_or(0_u64).saturating_mul(86_400));
    let caller = form.signed_in.caller();
    match edge.broker().add_api_token(&caller, &typed.name, rights, lifetime).await.map_err(problems) {
        Ok(text) => render(edge, &form.signed_in, Some((typed.name, text)), Form::default(), Vec::new()).await,
        Err(Ok(errors)) => render(edge, &form.signed_in, None, typed, errors).await,
        Err(Err(response)) => response,
    }
}

async fn render(
    edge: &Edge,
    signed_in: &SignedIn,
    made: Option<(String, String)>,
    form: Form,
    errors: Vec<String>,
) -> Response {
    let (broker, caller) = (edge.broker(), signed_in.caller());
    let (tokens, sites) = match (broker.api_tokens(&caller).await, broker.sites(&caller).await) {
        (Ok(tokens), Ok(sites)) => (tokens, sites),
        (Err(error), _) => return not_shown(error),
        (_, Err(error)) => return not_shown(UseCaseError::Store(error)),
    };
    let now = broker.now();
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    let mut chrome = chrome(edge, &signed_in.session, &t("Tokens for programs"), "settings").await;
    // A refresh of the page would take the token away before it is copied.
    chrome.live = false;
    chrome.here = "/settings/tokens".into();
    let tokens = TokensPage {
        chrome,
        rows: tokens.iter().map(|token| row(token, now)).collect(),
        made,
        sites: sites.into_iter().map(|site| (site.id, site.name)).collect(),
        roles: Role::ALL.into_iter().map(|role| (role.as_str(), role_words(role))).collect(),
        form,
        errors,
    };
    page(status, &tokens)
}

fn not_shown(error: UseCaseError) -> Response {
    match problems(error) {
        Ok(lines) => {
            let (heading, back) = (t("Not allowed"), t("Overview"));
            crate::http::present::message(StatusCode::FORBIDDEN, &heading, lines, Some(("/", &back)))
        }
        Err(response) => response,
    }
}

fn row(token: &ApiToken, now: crate::clock::Timestamp) -> Row {
    let state = token.state(now);
    Row {
        name: token.name.clone(),
        rights: rights_words(&token.rights),
        state,
        state_words: match state {
            "live" => t("live"),
            "expired" => t("expired"),
            _ => t("revoked"),
        },
        made_by: who(&token.made_by),
        expires: when(token.expires_at, now),
        used: token.used_at.map(|used_at| when(used_at, now)),
    }
}

fn rights_words(rights: &Rights) -> String {
    let words = rights.iter().map(|(site, role)| match site {
        EVERYWHERE => tf("Everywhere: {0}", &[&role_words(role)]),
        site => tf("At {0}: {1}", &[site, &role_words(role)]),
    });
    words.collect::<Vec<_>>().join("; ")
}

fn role_words(role: Role) -> String {
    match role {
        Role::Viewer => t("look"),
        Role::Technician => t("register devices, open pairing"),
        Role::Approver => t("see what waits"),
        Role::Admin => t("administer devices and sites"),
    }
}
