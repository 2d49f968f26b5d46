//! One device: facts, key, history, and what can be done with it. The list is in `devices.rs`; what devices themselves call is in `device.rs`.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use crate::broker::UseCaseError;
use crate::http::Edge;
use crate::http::device_list::label;
use crate::http::extract::{PageForm, PagePath, PageQuery, SignedIn};
use crate::http::lang::{filters, said, t, tf};
use crate::http::present::{
    assurance_fact, chrome, page, pending_pairing, problems, refused_form, span, timeline_entry, when, who,
};
use crate::http::qr;
use crate::http::views::{Chrome, Fact, FactState, PendingPairing, TimelineEntry, When};
use crate::id::DeviceId;
use crate::model::device::{Device, DeviceFacts, DeviceState, KeyAssurance, PinnedKey, Successor};
use crate::model::kind::{KeyRotation, Kind};
use crate::model::operator::Role;
use crate::secret::b64u;
use crate::store::{AuditQuery, WindowSubject};

/// Entries of its history on one page.
const ENTRIES: u32 = 30;

/// One device: facts, actions, history.
#[derive(Debug, Clone, Template)]
#[template(path = "device.html")]
pub struct DevicePage {
    chrome: Chrome,
    id: String,
    state: String,
    /// Label of the kind.
    kind: String,
    /// Name of the site.
    site: String,
    facts: DeviceFacts,
    /// Short form of its key.
    key: Option<String>,
    /// The whole thumbprint of its key.
    key_full: Option<String>,
    assurance: Option<Fact>,
    paired: Option<When>,
    paired_by: Option<String>,
    /// Short form of the key that its maker announced, while that is not its key.
    announced: Option<String>,
    stolen: Option<When>,
    /// It is asked to show itself, and has not been told yet.
    asked: bool,
    /// What its kind lets it do, one sentence each.
    policy: Vec<String>,
    window: Option<When>,
    pairings: Vec<PendingPairing>,
    timeline: Vec<TimelineEntry>,
    /// Number to go on before, if there are older entries.
    older: Option<i64>,
    /// The page shows older entries.
    is_older: bool,
    may_pair: bool,
    may_administer: bool,
    /// It was suspended just now, by a person who may undo that.
    undo: bool,
    errors: Vec<String>,
    /// QR code of this page's address, as SVG; trusted, not escaped.
    qr_svg: String,
}

/// Query of the page.
#[derive(Default, Deserialize)]
pub struct Shown {
    /// What was just done; the page says it.
    done: Option<String>,
    /// History before this entry.
    before: Option<i64>,
}

/// `GET /devices/{id}`.
pub async fn show(
    State(edge): State<Edge>,
    signed_in: SignedIn,
    PagePath(id): PagePath<String>,
    PageQuery(shown): PageQuery<Shown>,
) -> Response {
    render(&edge, &signed_in, &id, &shown, Vec::new()).await
}

async fn render(edge: &Edge, signed_in: &SignedIn, id: &str, shown: &Shown, errors: Vec<String>) -> Response {
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    match device_page(edge, signed_in, id, shown, errors).await {
        Ok(device) => page(status, &device),
        Err(error) => problems(error).map_or_else(|response| response, |_| refused_form()),
    }
}

async fn device_page(
    edge: &Edge,
    signed_in: &SignedIn,
    id: &str,
    shown: &Shown,
    errors: Vec<String>,
) -> Result<DevicePage, UseCaseError> {
    let (broker, now) = (edge.broker(), edge.broker().now());
    let caller = signed_in.caller();
    let device = broker.device(&caller, id).await?;
    let pairings = broker.open_pairings(&caller, Some(&device.id)).await?;
    let query = AuditQuery {
        device: Some(device.id.clone()),
        before: shown.before,
        limit: ENTRIES + 1,
        ..AuditQuery::default()
    };
    let mut records = broker.audit(&caller, &query).await?;
    let has_older = records.len() > ENTRIES as usize;
    records.truncate(ENTRIES as usize);
    let window = broker.window(&WindowSubject::Device(device.id.clone())).await?;
    let site = broker.site(&caller, &device.facts.site).await?;
    let role = caller.rights.role_at(&device.facts.site);
    let may_administer = role.is_some_and(Role::may_administer);
    let mut chrome = chrome(edge, &signed_in.session, &device.facts.name, "devices").await;
    chrome.notice = shown.done.as_deref().and_then(|done| notice(done, &device));
    let key = device.key.as_ref();
    let announced = device.manifest_jkt.filter(|announced| key.is_none_or(|key| key.jkt != *announced));
    Ok(DevicePage {
        chrome,
        state: device.state.as_str().into(),
        kind: label(edge, &device.facts.kind),
        site: site.map_or_else(|| device.facts.site.clone(), |site| site.name),
        key: key.map(|key| PinnedKey::short(&key.jkt)),
        key_full: key.map(|key| b64u(&key.jkt)),
        assurance: key.map(|key| assurance_fact(key.assurance)),
        paired: key.map(|key| when(key.paired_at, now)),
        paired_by: key.map(|key| who(&key.paired_by)),
        announced: announced.map(|jkt| PinnedKey::short(&jkt)),
        stolen: device.stolen_at.map(|stolen_at| when(stolen_at, now)),
        asked: device.identify_until.is_some_and(|until| now < until),
        policy: broker.kind(&device.facts.kind).map(|kind| policy(&kind)).unwrap_or_default(),
        window: window.map(|closes_at| when(closes_at, now)),
        pairings: pairings.iter().map(|found| pending_pairing(found, now)).collect(),
        timeline: records.iter().map(|record| timeline_entry(record, now)).collect(),
        older: records.last().filter(|_| has_older).map(|record| record.id),
        is_older: shown.before.is_some(),
        may_pair: role.is_some_and(Role::may_pair),
        may_administer,
        undo: may_administer
            && device.state == DeviceState::Suspended
            && device.stolen_at.is_none()
            && shown.done.as_deref() == Some("suspended"),
        qr_svg: qr::svg(&format!("{}/devices/{}", broker.endpoints().issuer, device.id)),
        id: device.id.to_string(),
        facts: device.facts,
        errors,
    })
}

/// What was just done, in a line; only if the device is as it says: whoever makes up an address must not make the page say what is not so.
fn notice(done: &str, device: &Device) -> Option<String> {
    let id = device.id.as_str();
    Some(match (done, device.state) {
        ("suspended", DeviceState::Suspended) => tf("{0} is suspended. Its access has ended.", &[id]),
        ("stolen", DeviceState::Suspended) if device.stolen_at.is_some() => {
            tf("{0} is stopped and reported stolen. Its access has ended.", &[id])
        }
        ("resumed", DeviceState::Active | DeviceState::Registered) => {
            tf("{0} may go on. It has to sign in again.", &[id])
        }
        ("replaced", DeviceState::Registered) => {
            tf("The old box is out for ever. Start pairing on the new {0} now; it is open for 15 minutes.", &[id])
        }
        ("asked", _) => t("It is asked to show itself. It does so with its next answer, within two minutes."),
        _ => return None,
    })
}

/// What devices of a kind may do, as sentences.
fn policy(kind: &Kind) -> Vec<String> {
    let mut sentences: Vec<String> = kind.scopes.iter().map(|(_, words)| tf("May {0}.", &[&said(words)])).collect();
    sentences.push(match kind.refresh {
        Some(policy) => tf(
            "A sign-in lasts up to {0}, and ends after {1} without use.",
            &[&span(policy.absolute.as_secs()), &span(policy.idle.as_secs())],
        ),
        None => tf("A sign-in lasts {0}.", &[&span(kind.access_token_lifetime.as_secs())]),
    });
    if kind.confirmation_number {
        sentences.push(t("The approver types a number that only this device shows."));
    }
    if kind.key_assurance > KeyAssurance::Software {
        sentences.push(tf("It needs a {0}.", &[&t(kind.key_assurance.words())]));
    }
    if kind.key_rotation == KeyRotation::Automatic {
        sentences.push(t("It may exchange its key by itself, if the present one signs for the new one."));
    }
    if kind.site_network {
        sentences.push(t("It must be on its site's network."));
    }
    sentences
}

/// `POST /devices/{id}`.
pub async fn act(State(edge): State<Edge>, PagePath(id): PagePath<String>, form: PageForm) -> Response {
    let (broker, caller) = (edge.broker(), form.signed_in.caller());
    let done = |word: &'static str| move |()| word;
    let outcome = match (form.field("action").as_str(), DeviceId::new(&id)) {
        ("open_window", Ok(id)) => broker.open_window(&caller, &WindowSubject::Device(id), None).await.map(|_| ""),
        ("close_window", Ok(id)) => broker.close_window(&caller, &WindowSubject::Device(id)).await.map(done("")),
        ("identify", _) => broker.identify_device(&caller, &id).await.map(|_| "asked"),
        ("suspend", _) => broker.suspend_device(&caller, &id).await.map(done("suspended")),
        ("stolen", _) => broker.mark_stolen(&caller, &id).await.map(done("stolen")),
        ("resume", _) => broker.resume_device(&caller, &id).await.map(done("resumed")),
        ("resume_stolen", _) => broker.resume_stolen(&caller, &id, &form.field("confirm")).await.map(done("resumed")),
        ("replace", _) => broker.replace_device(&caller, &id, successor(&form)).await.map(|_| "replaced"),
        // The one thing that can't be undone wants a typed word.
        ("retire", _) if form.field("confirm") == id => broker.retire_device(&caller, &id).await.map(done("")),
        ("retire", _) => Err(UseCaseError::Refused(vec![format!("to retire this device for ever, type its id: {id}")])),
        _ => Err(UseCaseError::Refused(vec!["there is no such action; nothing was changed".into()])),
    };
    match outcome.map_err(problems) {
        Ok("") => Redirect::to(&format!("/devices/{id}")).into_response(),
        Ok(done) => Redirect::to(&format!("/devices/{id}?done={done}")).into_response(),
        Err(Ok(errors)) => render(&edge, &form.signed_in, &id, &Shown::default(), errors).await,
        Err(Err(response)) => response,
    }
}

fn successor(form: &PageForm) -> Successor {
    Successor {
        serial: form.field("serial"),
        asset_tag: form.field("asset_tag"),
        maker: form.field("maker"),
        model: form.field("model"),
    }
}
