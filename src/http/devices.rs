//! One device's page, and what can be done with it. The list is in `device_list.rs`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::broker::UseCaseError;
use crate::http::Edge;
use crate::http::extract::{PageForm, PagePath, SignedIn};
use crate::http::present::{
    assurance_fact, chrome, page, pending_pairing, problems, refused_form, span, timeline_entry, when, who,
};
use crate::http::qr;
use crate::http::views::DevicePage;
use crate::model::device::{Device, KeyAssurance, PinnedKey};
use crate::model::kind::{KeyRotation, Kind};
use crate::secret::b64u;
use crate::store::{AuditQuery, WindowSubject};

fn label<'a>(edge: &'a Edge, device: &'a Device) -> &'a str {
    edge.broker().kind(&device.facts.kind).map_or(&device.facts.kind, |kind| &kind.label)
}

/// `GET /devices/{id}`.
pub async fn show(State(edge): State<Edge>, signed_in: SignedIn, PagePath(id): PagePath<String>) -> Response {
    render(&edge, &signed_in, &id, Vec::new()).await
}

async fn render(edge: &Edge, signed_in: &SignedIn, id: &str, errors: Vec<String>) -> Response {
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    match device_page(edge, signed_in, id, errors).await {
        Ok(device) => page(status, &device),
        Err(error) => problems(error).map_or_else(|response| response, |_| refused_form()),
    }
}

async fn device_page(
    edge: &Edge,
    signed_in: &SignedIn,
    id: &str,
    errors: Vec<String>,
) -> Result<DevicePage, UseCaseError> {
    let (broker, now) = (edge.broker(), edge.broker().now());
    let caller = signed_in.caller();
    let device = broker.device(&caller, id).await?;
    let pairings = broker.open_pairings(&caller, Some(&device.id)).await?;
    let records = broker
        .audit(&caller, &AuditQuery { device: Some(device.id.clone()), limit: 50, ..AuditQuery::default() })
        .await?;
    let window = broker.window(&WindowSubject::Device(device.id.clone())).await?;
    let site = broker.site(&caller, &device.facts.site).await?;
    let facts = device.facts.clone();
    Ok(DevicePage {
        chrome: chrome(edge, &signed_in.session, &facts.name, "devices").await,
        id: device.id.to_string(),
        state: device.state.as_str().into(),
        kind: label(edge, &device).to_owned(),
        site: site.map_or(facts.site, |site| site.name),
        name: facts.name,
        room: facts.room,
        asset_tag: facts.asset_tag,
        serial: facts.serial,
        maker: facts.maker,
        model: facts.model,
        note: facts.note,
        key: device.key.as_ref().map(|key| PinnedKey::short(&key.jkt)),
        key_full: device.key.as_ref().map(|key| b64u(&key.jkt)),
        assurance: device.key.as_ref().map(|key| assurance_fact(key.assurance)),
        paired: device.key.as_ref().map(|key| when(key.paired_at, now)),
        paired_by: device.key.as_ref().map(|key| who(&key.paired_by)),
        policy: broker.kind(&device.facts.kind).map(policy).unwrap_or_default(),
        window: window.map(|closes_at| when(closes_at, now)),
        pairings: pairings.iter().map(|found| pending_pairing(found, now)).collect(),
        timeline: records.iter().map(|record| timeline_entry(record, now)).collect(),
        qr_svg: qr::svg(&format!("{}/devices/{}", broker.endpoints().issuer, device.id)),
        errors,
    })
}

/// What devices of a kind may do, as sentences.
fn policy(kind: &Kind) -> Vec<String> {
    let mut sentences: Vec<String> = kind.scopes.iter().map(|(_, words)| format!("May {words}.")).collect();
    sentences.push(match kind.refresh {
        Some(policy) => format!(
            "A sign-in lasts up to {}, and ends after {} without use.",
            span(policy.absolute.as_secs()),
            span(policy.idle.as_secs())
        ),
        None => format!("A sign-in lasts {}.", span(kind.access_token_lifetime.as_secs())),
    });
    if kind.confirmation_number {
        sentences.push("The approver types a number that only this device shows.".into());
    }
    if kind.key_assurance > KeyAssurance::Software {
        sentences.push(format!("It needs a {}.", kind.key_assurance.words()));
    }
    if kind.key_rotation == KeyRotation::Automatic {
        sentences.push("It may exchange its key by itself, if the present one signs for the new one.".into());
    }
    if kind.site_network {
        sentences.push("It must be on its site's network.".into());
    }
    sentences
}

/// `POST /devices/{id}`.
pub async fn act(State(edge): State<Edge>, PagePath(id): PagePath<String>, form: PageForm) -> Response {
    let (broker, caller) = (edge.broker(), form.signed_in.caller());
    let outcome = match (form.field("action").as_str(), crate::id::DeviceId::new(&id)) {
        ("open_window", Ok(id)) => broker.open_window(&caller, &WindowSubject::Device(id), None).await.map(|_| ()),
        ("close_window", Ok(id)) => broker.close_window(&caller, &WindowSubject::Device(id)).await,
        ("suspend", _) => broker.suspend_device(&caller, &id).await,
        ("resume", _) => broker.resume_device(&caller, &id).await,
        // The one thing that can't be undone wants a typed word.
        ("retire", _) if form.field("confirm") == id => broker.retire_device(&caller, &id).await,
        ("retire", _) => Err(UseCaseError::Refused(vec![format!("to retire this device for ever, type its id: {id}")])),
        _ => Err(UseCaseError::Refused(vec!["there is no such action; nothing was changed".into()])),
    };
    match outcome.map_err(problems) {
        Ok(()) => Redirect::to(&format!("/devices/{id}")).into_response(),
        Err(Ok(errors)) => render(&edge, &form.signed_in, &id, errors).await,
        Err(Err(response)) => response,
    }
}
