//! `/devices/{id}/approvers`: who may approve this device's sign-ins, if not everybody who may at its site.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::broker::UseCaseError;
use crate::broker::approvers::Approvers;
use crate::http::Edge;
use crate::http::extract::{PageForm, PagePath, SignedIn};
use crate::http::lang::{filters, t, tf};
use crate::http::present::{chrome, page, problems};
use crate::http::views::Chrome;
use crate::model::operator::Role;

/// The page.
#[derive(Debug, Clone, Template)]
#[template(path = "approvers.html")]
pub struct ApproversPage {
    /// What surrounds the page.
    pub chrome: Chrome,
    /// Device id.
    pub id: String,
    /// Name of the device.
    pub name: String,
    /// Who may approve; none: everybody who may at its site.
    pub listed: Vec<String>,
    /// Who could be put on the list.
    pub others: Vec<String>,
    /// Whether who looks may change the list.
    pub may_change: bool,
    /// What was wrong with the last attempt, one sentence each; empty if nothing was.
    pub errors: Vec<String>,
}

/// `GET`.
pub async fn show(State(edge): State<Edge>, signed_in: SignedIn, PagePath(id): PagePath<String>) -> Response {
    render(&edge, &signed_in, &id, Vec::new()).await
}

async fn render(edge: &Edge, signed_in: &SignedIn, id: &str, errors: Vec<String>) -> Response {
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    match edge.broker().approvers(&signed_in.caller(), id).await {
        Ok(Approvers { device, listed, others }) => {
            let name = device.facts.name;
            let title = tf("Who may approve {0}", &[&name]);
            let role = signed_in.session.operator.rights.role_at(&device.facts.site);
            let approvers = ApproversPage {
                chrome: chrome(edge, &signed_in.session, &title, "devices").await,
                id: device.id.to_string(),
                name,
                listed,
                others,
                may_change: role.is_some_and(Role::may_administer),
                errors,
            };
            page(status, &approvers)
        }
        Err(error) => match problems(error) {
            Ok(lines) => crate::http::present::message(StatusCode::FORBIDDEN, &t("Not allowed"), lines, None),
            Err(response) => response,
        },
    }
}

/// `POST`: puts somebody on the list, or takes somebody off.
pub async fn change(State(edge): State<Edge>, PagePath(id): PagePath<String>, form: PageForm) -> Response {
    let (broker, caller, name) = (edge.broker(), form.signed_in.caller(), form.field("name"));
    let outcome = match form.field("action").as_str() {
        "add" => broker.add_approver(&caller, &id, &name).await,
        "remove" => broker.remove_approver(&caller, &id, &name).await,
        _ => Err(UseCaseError::Refused(vec!["there is no such action; nothing was changed".into()])),
    };
    match outcome.map_err(problems) {
        Ok(()) => Redirect::to(&format!("/devices/{id}/approvers")).into_response(),
        Err(Ok(lines)) => render(&edge, &form.signed_in, &id, lines).await,
        Err(Err(response)) => response,
    }
}
