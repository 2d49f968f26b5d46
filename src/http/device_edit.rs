//! What is known of one device, changed by a person.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::broker::{Broker, UseCaseError};
use crate::http::Edge;
use crate::http::device_list::facts_of;
use crate::http::extract::{PageForm, PagePath, SignedIn};
use crate::http::lang::{filters, said, tf};
use crate::http::present::{chrome, page, problems, refused_form};
use crate::http::views::Chrome;
use crate::model::device::DeviceFacts;
use crate::model::operator::Role;

/// The form.
#[derive(Template)]
#[template(path = "device_edit.html")]
struct DeviceEditPage {
    chrome: Chrome,
    id: String,
    facts: DeviceFacts,
    seen: String,
    is_paired: bool,
    kinds: Vec<(String, String)>,
    sites: Vec<(String, String)>,
    errors: Vec<String>,
}

/// `GET /devices/{id}/edit`.
pub async fn show(State(edge): State<Edge>, signed_in: SignedIn, PagePath(id): PagePath<String>) -> Response {
    let page = render(&edge, &signed_in, &id, None, Vec::new()).await;
    page.unwrap_or_else(|error| problems(error).map_or_else(|response| response, |_| refused_form()))
}

async fn render(
    edge: &Edge,
    signed_in: &SignedIn,
    id: &str,
    typed: Option<(DeviceFacts, String)>,
    errors: Vec<String>,
) -> Result<Response, UseCaseError> {
    let (broker, caller) = (edge.broker(), signed_in.caller());
    let device = broker.device(&caller, id).await?;
    let administers = |site: &str| caller.rights.role_at(site).is_some_and(Role::may_administer);
    // Only who administers both sites moves a device from one to the other.
    let can_leave = administers(&device.facts.site);
    let sites = broker.sites(&caller).await?.into_iter();
    let sites = sites.filter(|site| site.id == device.facts.site || (can_leave && administers(&site.id)));
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    // What was seen when the form was opened stays so: a second Save must not write over what somebody else wrote meanwhile.
    let (facts, seen) = typed.unwrap_or_else(|| (device.facts.clone(), Broker::facts_seen(&device.facts)));
    let title = tf("Change {0}", &[&device.facts.name]);
    let form = DeviceEditPage {
        chrome: chrome(edge, &signed_in.session, &title, "devices").await,
        id: device.id.to_string(),
        seen,
        is_paired: device.key.is_some(),
        facts,
        kinds: broker.kinds().iter().map(|kind| (kind.id.clone(), said(&kind.label))).collect(),
        sites: sites.map(|site| (site.id, site.name)).collect(),
        errors,
    };
    Ok(page(status, &form))
}

/// `POST /devices/{id}/edit`.
pub async fn change(State(edge): State<Edge>, PagePath(id): PagePath<String>, form: PageForm) -> Response {
    let facts = facts_of(&form);
    let seen = form.field("seen");
    let outcome = edge.broker().change_device_facts(&form.signed_in.caller(), &id, Some(&seen), facts.clone()).await;
    let errors = match outcome.map_err(problems) {
        Ok(()) => return Redirect::to(&format!("/devices/{id}")).into_response(),
        Err(Err(response)) => return response,
        Err(Ok(errors)) => errors,
    };
    match render(&edge, &form.signed_in, &id, Some((facts, seen)), errors).await {
        Ok(page) => page,
        Err(error) => problems(error).map_or_else(|response| response, |_| refused_form()),
    }
}
