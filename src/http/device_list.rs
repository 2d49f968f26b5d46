//! The list of devices: filters with counts, pages, the form that registers one, the export.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::broker::bulk::{Deed, Facets, Receipt};
use crate::http::Edge;
use crate::http::extract::{PageForm, PageQuery, SignedIn};
use crate::http::filter::{Filter, NO_FLOOR, ROWS};
use crate::http::lang::{filters, said, t, tf, tn};
use crate::http::present::{chrome, floor_words, page, problems, room_words, unavailable, when};
use crate::http::views::{Chrome, When};
use crate::model::device::{Device, DeviceFacts, DeviceState, PinnedKey};
use crate::model::operator::Role;
use crate::store::StoreError;

/// Devices: search, list, register.
#[derive(Template)]
#[template(path = "devices.html")]
struct DeviceListPage {
    chrome: Chrome,
    filter: Filter,
    rows: Vec<ListRow>,
    total: u64,
    states: Vec<Choice>,
    kinds: Vec<Choice>,
    sites: Vec<Choice>,
    floors: Vec<Choice>,
    has_sites: bool,
    from: u64,
    to: u64,
    earlier: Option<String>,
    later: Option<String>,
    done: Option<Done>,
    form: Form,
    may_register: bool,
    errors: Vec<String>,
}

impl DeviceListPage {
    /// Ids of the devices on this page, in one field.
    fn ids(&self) -> String {
        self.rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>().join(" ")
    }
}

struct ListRow {
    id: String,
    name: String,
    kind: String,
    place: String,
    state: String,
    key: Option<String>,
    seen: Option<When>,
}

/// A value of a filter, with how many it would find.
pub struct Choice {
    value: String,
    label: String,
    count: u64,
    is_chosen: bool,
    href: String,
}

/// What was just done.
struct Done {
    name: String,
    line: String,
    reasons: Vec<(String, String)>,
    has_undo: bool,
    /// Was a list imported? Then labels and the walk are next.
    is_import: bool,
}

/// What was typed into the form that registers a device, and what can be chosen there.
#[derive(Default)]
struct Form {
    id: String,
    facts: DeviceFacts,
    kinds: Vec<(String, String)>,
    sites: Vec<(String, String)>,
}

/// `GET /devices`.
pub async fn list(State(edge): State<Edge>, signed_in: SignedIn, PageQuery(filter): PageQuery<Filter>) -> Response {
    render(&edge, &signed_in, filter, Form::default(), Vec::new()).await
}

/// The list with what went wrong.
pub async fn list_with_errors(edge: &Edge, signed_in: &SignedIn, filter: Filter, errors: Vec<String>) -> Response {
    render(edge, signed_in, filter, Form::default(), errors).await
}

async fn render(edge: &Edge, signed_in: &SignedIn, filter: Filter, form: Form, errors: Vec<String>) -> Response {
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    match list_page(edge, signed_in, filter, form, errors).await {
        Ok(list) => page(status, &list),
        Err(error) => unavailable(&error),
    }
}

async fn list_page(
    edge: &Edge,
    signed_in: &SignedIn,
    filter: Filter,
    mut form: Form,
    errors: Vec<String>,
) -> Result<DeviceListPage, StoreError> {
    let (broker, now, caller) = (edge.broker(), edge.broker().now(), signed_in.caller());
    let facets = broker.device_facets(&caller, &filter.query()).await?;
    let (devices, _) = broker.devices(&caller, &filter.query()).await?;
    let sites = broker.sites(&caller).await?;
    let site_name = |id: &str| sites.iter().find(|site| site.id == id).map_or(id, |site| site.name.as_str()).to_owned();
    let receipt = if filter.done.is_empty() { None } else { broker.receipt(&signed_in.session, &filter.done).await? };
    form.kinds = broker.kinds().iter().map(|kind| (kind.id.clone(), said(&kind.label))).collect();
    let may_register = |site: &str| caller.rights.role_at(site).is_some_and(Role::may_pair);
    form.sites =
        sites.iter().filter(|site| may_register(&site.id)).map(|site| (site.id.clone(), site.name.clone())).collect();
    let has_sites = sites.len() > 1;
    let rows: Vec<ListRow> = devices
        .iter()
        .map(|device| ListRow {
            id: device.id.to_string(),
            name: device.facts.name.clone(),
            kind: label(edge, &device.facts.kind),
            place: place(device, has_sites.then(|| site_name(&device.facts.site))),
            state: device.state.as_str().to_owned(),
            key: device.key.as_ref().map(|key| PinnedKey::short(&key.jkt)),
            seen: device.seen_at.map(|seen_at| when(seen_at, now)),
        })
        .collect();
    let (page, rows_before) = (filter.page(), u64::from(filter.query().offset));
    let shown = u64::try_from(rows.len()).unwrap_or(0);
    let of_page = |page: u32| filter.address("/devices", &[("page", &page.to_string())]);
    Ok(DeviceListPage {
        chrome: chrome(edge, &signed_in.session, &t("Devices"), "devices").await,
        states: states(&filter, &facets),
        kinds: choices(&facets.kinds, &filter.kind, |id| label(edge, id)),
        sites: choices(&facets.sites, &filter.site, site_name),
        floors: floors(&facets, &filter),
        has_sites,
        total: facets.total,
        from: if shown == 0 { 0 } else { rows_before + 1 },
        to: rows_before + shown,
        earlier: (page > 1).then(|| of_page(page - 1)),
        later: (rows_before + u64::from(ROWS) < facets.total).then(|| of_page(page + 1)),
        done: receipt.map(|receipt| done(filter.done.clone(), receipt)),
        may_register: !form.sites.is_empty(),
        filter,
        rows,
        form,
        errors,
    })
}

/// A kind as people call it.
pub fn label(edge: &Edge, kind: &str) -> String {
    said(&edge.broker().kind(kind).map_or_else(|| kind.to_owned(), |found| found.label.clone()))
}

/// Where a device is, in one line: `Berlin · 2nd floor · Room 2.14`.
fn place(device: &Device, site: Option<String>) -> String {
    let facts = &device.facts;
    let parts = [site.unwrap_or_default(), floor_words(&facts.floor), room_words(&facts.room)];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · ")
}

/// A state as people call it.
pub fn state_words(state: DeviceState) -> String {
    match state {
        DeviceState::Registered => t("not paired"),
        DeviceState::Active => t("active"),
        DeviceState::Suspended => t("suspended"),
        DeviceState::Retired => t("retired"),
    }
}

fn states(filter: &Filter, facets: &Facets) -> Vec<Choice> {
    let all = facets.states.iter().map(|(_, count)| count).sum();
    let choice = |value: &str, label: String, count| Choice {
        value: value.to_owned(),
        label,
        count,
        is_chosen: filter.state == value,
        href: filter.with_state(value),
    };
    let each = facets.states.iter().map(|(state, count)| choice(state.as_str(), state_words(*state), *count));
    std::iter::once(choice("", t("All"), all)).chain(each).collect()
}

fn choices(
    counts: &std::collections::BTreeMap<String, u64>,
    chosen: &str,
    label: impl Fn(&str) -> String,
) -> Vec<Choice> {
    let choice = |value: &str, count: u64| Choice {
        value: value.to_owned(),
        label: label(value),
        count,
        is_chosen: value == chosen,
        href: String::new(),
    };
    let mut choices: Vec<Choice> = counts.iter().map(|(value, count)| choice(value, *count)).collect();
    // What is chosen stays to be seen, also if nothing is left of it.
    if !chosen.is_empty() && !counts.contains_key(chosen) {
        choices.push(choice(chosen, 0));
    }
    choices
}

fn floors(facets: &Facets, filter: &Filter) -> Vec<Choice> {
    let named = facets.floors.iter().map(|(floor, count)| {
        let value = if floor.is_empty() { NO_FLOOR.to_owned() } else { floor.clone() };
        (value, *count)
    });
    let label = |value: &str| if value == NO_FLOOR { t("no floor noted") } else { value.to_owned() };
    choices(&named.collect(), &filter.floor, label)
}

fn done(name: String, receipt: Receipt) -> Done {
    let count = |number: usize| u64::try_from(number).unwrap_or(0);
    let mut lines = vec![deed_words(receipt.deed, count(receipt.done))];
    if receipt.same > 0 {
        lines.push(tn(count(receipt.same), "{0} was so before.", "{0} were so before."));
    }
    if receipt.refused > 0 {
        lines.push(tn(count(receipt.refused), "{0} could not be changed:", "{0} could not be changed:"));
    }
    let mut reasons = receipt.reasons;
    let untold = receipt.refused.saturating_sub(reasons.len());
    if untold > 0 {
        reasons.push((String::new(), tf("and {0} more", &[&untold.to_string()])));
    }
    Done {
        name,
        line: lines.join(" "),
        reasons,
        has_undo: !receipt.undo.is_empty(),
        is_import: receipt.deed == Deed::Imported,
    }
}

/// What was done to so many devices.
fn deed_words(deed: Deed, count: u64) -> String {
    match deed {
        Deed::Changed => tn(count, "{0} device changed.", "{0} devices changed."),
        Deed::Imported => tn(count, "{0} device imported.", "{0} devices imported."),
        Deed::Suspended => tn(count, "{0} device suspended.", "{0} devices suspended."),
        Deed::Resumed => tn(count, "{0} device let on again.", "{0} devices let on again."),
        Deed::Stolen => tn(count, "{0} device reported stolen.", "{0} devices reported stolen."),
        Deed::Retired => tn(count, "{0} device retired for ever.", "{0} devices retired for ever."),
        Deed::Opened => tn(count, "Pairing opened for {0} device.", "Pairing opened for {0} devices."),
        Deed::Closed => tn(count, "Pairing closed for {0} device.", "Pairing closed for {0} devices."),
        Deed::Undone => tn(count, "Undone for {0} device.", "Undone for {0} devices."),
    }
}

/// The facts in a form.
pub fn facts_of(form: &PageForm) -> DeviceFacts {
    DeviceFacts {
        kind: form.field("kind"),
        site: form.field("site"),
        name: form.field("name"),
        serial: form.field("serial"),
        asset_tag: form.field("asset_tag"),
        maker: form.field("maker"),
        model: form.field("model"),
        floor: form.field("floor"),
        room: form.field("room"),
        owner: form.field("owner"),
        note: form.field("note"),
    }
}

/// `POST /devices`.
pub async fn register(State(edge): State<Edge>, form: PageForm) -> Response {
    let (id, facts) = (form.field("id"), facts_of(&form));
    match edge.broker().register_device(&form.signed_in.caller(), &id, facts.clone()).await {
        Ok(id) => Redirect::to(&format!("/devices/{id}")).into_response(),
        Err(error) => match problems(error) {
            Ok(errors) => {
                let typed = Form { id, facts, ..Form::default() };
                render(&edge, &form.signed_in, Filter::default(), typed, errors).await
            }
            Err(response) => response,
        },
    }
}

/// `GET /devices/export.csv`: what the list shows, all pages of it.
pub async fn export(State(edge): State<Edge>, signed_in: SignedIn, PageQuery(filter): PageQuery<Filter>) -> Response {
    match edge.broker().export_devices(&signed_in.caller(), &filter.query()).await {
        Ok(text) => download("devices.csv", text),
        Err(error) => unavailable(&error),
    }
}

/// A CSV file to save.
pub fn download(name: &str, text: String) -> Response {
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8")),
        (header::CONTENT_DISPOSITION, disposition.unwrap_or(HeaderValue::from_static("attachment"))),
    ];
    (headers, text).into_response()
}
