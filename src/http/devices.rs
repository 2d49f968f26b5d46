//! The registry's list: search and register. One device and what can be done with it is in `device_page.rs`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use crate::http::Edge;
use crate::http::extract::{PageForm, PageQuery, SignedIn};
use crate::http::present::{chrome, device_row, page, problems, unavailable};
use crate::http::views::{DeviceForm, DevicesPage};
use crate::model::device::{Device, DeviceFacts};
use crate::model::site::DEFAULT_SITE;
use crate::store::DeviceQuery;

/// Rows of a list; a search finds the rest.
const ROWS: u32 = 200;

/// Query of the list.
#[derive(Deserialize)]
pub struct Search {
    q: Option<String>,
}

/// `GET /devices`.
pub async fn list(
    State(edge): State<Edge>,
    signed_in: SignedIn,
    PageQuery(Search { q }): PageQuery<Search>,
) -> Response {
    render_list(&edge, &signed_in, q.unwrap_or_default(), DeviceForm::default(), Vec::new()).await
}

async fn render_list(
    edge: &Edge,
    signed_in: &SignedIn,
    query: String,
    form: DeviceForm,
    errors: Vec<String>,
) -> Response {
    let (broker, now) = (edge.broker(), edge.broker().now());
    let wanted = DeviceQuery { text: query.clone(), limit: ROWS, ..DeviceQuery::default() };
    let found = broker.devices(&signed_in.caller(), &wanted).await;
    let (devices, total) = match found {
        Ok(found) => found,
        Err(error) => return unavailable(&error),
    };
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    let list = DevicesPage {
        chrome: chrome(edge, &signed_in.session, "Devices", "devices").await,
        query,
        rows: devices.iter().map(|device| device_row(device, &label(edge, device), now)).collect(),
        total,
        kinds: broker.kinds().iter().map(|kind| (kind.id.clone(), kind.label.clone())).collect(),
        form,
        errors,
    };
    page(status, &list)
}

fn label(edge: &Edge, device: &Device) -> String {
    edge.broker().kind(&device.facts.kind).map_or_else(|| device.facts.kind.clone(), |kind| kind.label.clone())
}

/// `POST /devices`.
pub async fn register(State(edge): State<Edge>, form: PageForm) -> Response {
    let facts = DeviceFacts {
        kind: form.field("kind"),
        site: DEFAULT_SITE.into(),
        name: form.field("name"),
        serial: form.field("serial"),
        asset_tag: form.field("asset_tag"),
        maker: form.field("maker"),
        model: form.field("model"),
        floor: form.field("floor"),
        room: form.field("room"),
        owner: form.field("owner"),
        note: form.field("note"),
    };
    let typed = DeviceForm {
        id: form.field("id"),
        kind: facts.kind.clone(),
        name: facts.name.clone(),
        serial: facts.serial.clone(),
        asset_tag: facts.asset_tag.clone(),
        maker: facts.maker.clone(),
        model: facts.model.clone(),
        room: facts.room.clone(),
        note: facts.note.clone(),
    };
    match edge.broker().register_device(&form.signed_in.caller(), &typed.id, facts).await {
        Ok(id) => Redirect::to(&format!("/devices/{id}")).into_response(),
        Err(error) => match problems(error) {
            Ok(errors) => render_list(&edge, &form.signed_in, String::new(), typed, errors).await,
            Err(response) => response,
        },
    }
}
