//! Labels to print: sheets of common sizes and a roll, laid out in millimetres by the stylesheets beside this file. Paper carries a device's id and the
//! address of its page, never any authority (design, section 3).

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use crate::broker::UseCaseError;
use crate::broker::bulk::Selection;
use crate::http::Edge;
use crate::http::assets::ASSETS;
use crate::http::extract::{PageQuery, SignedIn};
use crate::http::filter::Filter;
use crate::http::lang::{filters, t};
use crate::http::present::{chrome, page, problems, refused_form};
use crate::http::qr;
use crate::http::views::Chrome;
use crate::model::device::Device;
use crate::model::operator::Reach;
use crate::store::DeviceQuery;

/// Labels on one page of ours: 1,000.
const MAX_LABELS: u32 = 1000;

/// A size of labels. The millimetres are in `labels.css`, under the same name.
struct Format {
    code: &'static str,
    /// As it is printed on the packet.
    name: &'static str,
    per_sheet: usize,
    paper: Paper,
}

/// What it is printed on.
#[derive(Clone, Copy)]
enum Paper {
    A4,
    Letter,
    Roll,
}

const FORMATS: [Format; 5] = [
    Format { code: "l7160", name: "Avery L7160 · A4 · 63.5 × 38.1 mm · 21", per_sheet: 21, paper: Paper::A4 },
    Format { code: "l7163", name: "Avery L7163 · A4 · 99.1 × 38.1 mm · 14", per_sheet: 14, paper: Paper::A4 },
    Format { code: "l7651", name: "Avery L7651 · A4 · 38.1 × 21.2 mm · 65", per_sheet: 65, paper: Paper::A4 },
    Format {
        code: "us5160", name: "Avery 5160 · US Letter · 2⅝ × 1 in · 30", per_sheet: 30, paper: Paper::Letter
    },
    Format { code: "roll62", name: "62 × 29 mm", per_sheet: 1, paper: Paper::Roll },
];

/// What the address says besides the filters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    format: String,
    skip: String,
    /// Ids, separated by spaces or commas.
    ids: String,
    /// One id.
    id: String,
}

/// Sheets of labels.
#[derive(Template)]
#[template(path = "labels.html")]
struct LabelsPage {
    chrome: Chrome,
    css: &'static str,
    page_css: &'static str,
    formats: Vec<(&'static str, String, bool)>,
    code: &'static str,
    per_sheet: usize,
    skip: usize,
    ids: String,
    filter: Filter,
    total: u64,
    sheets: Vec<Vec<Option<Label>>>,
    back: String,
    errors: Vec<String>,
}

impl LabelsPage {
    /// A sheet with no label left is no sheet.
    fn most_skipped(&self) -> usize {
        self.per_sheet.saturating_sub(1)
    }
}

struct Label {
    id: String,
    name: String,
    place: String,
    qr: String,
}

/// `GET /devices/labels`: of one device, of several, or of all that a filter finds.
pub async fn show(
    State(edge): State<Edge>,
    signed_in: SignedIn,
    PageQuery(filter): PageQuery<Filter>,
    PageQuery(wanted): PageQuery<Wanted>,
) -> Response {
    let found = devices(&edge, &signed_in, &filter, &wanted).await;
    match found {
        Ok((devices, total)) => render(&edge, &signed_in, filter, &wanted, &devices, total).await,
        Err(error) => problems(error).map_or_else(|response| response, |_| refused_form()),
    }
}

/// What labels are printed for, and how many devices there would be.
async fn devices(
    edge: &Edge,
    signed_in: &SignedIn,
    filter: &Filter,
    wanted: &Wanted,
) -> Result<(Vec<Device>, u64), UseCaseError> {
    let (broker, caller) = (edge.broker(), signed_in.caller());
    let named = format!("{} {}", wanted.id, wanted.ids);
    let named: Vec<String> = named
        .split([' ', ','])
        .filter(|id| !id.is_empty())
        .take(usize::try_from(MAX_LABELS).unwrap_or(usize::MAX))
        .map(str::to_owned)
        .collect();
    if named.is_empty() {
        let query = DeviceQuery { offset: 0, limit: MAX_LABELS, ..filter.query() };
        return Ok(broker.devices(&caller, &query).await?);
    }
    let (devices, missing) = broker.select_devices(&caller, &Selection::Ids(named)).await?;
    match (devices.is_empty(), missing.first()) {
        (true, Some(id)) => Err(UseCaseError::NotFound(format!("there is no device '{id}'"))),
        _ => {
            let total = u64::try_from(devices.len()).unwrap_or(0);
            Ok((devices, total))
        }
    }
}

async fn render(
    edge: &Edge,
    signed_in: &SignedIn,
    filter: Filter,
    wanted: &Wanted,
    devices: &[Device],
    total: u64,
) -> Response {
    let format = FORMATS.iter().find(|format| format.code == wanted.format).unwrap_or(&FORMATS[0]);
    let skip = wanted.skip.parse::<usize>().unwrap_or(0).min(format.per_sheet - 1);
    // Who knows one site alone needs no reminder of it, but a sheet of several does.
    let sites = edge.broker().sites(&signed_in.caller()).await.unwrap_or_default();
    let is_several = sites.len() > 1 || signed_in.caller().reach() == Reach::Everywhere;
    let site_name = |id: &str| {
        let site = sites.iter().find(|site| site.id == id).filter(|_| is_several);
        site.map(|site| site.name.clone()).unwrap_or_default()
    };
    let labels = devices.iter().map(|device| {
        Some(Label {
            id: device.id.to_string(),
            name: device.facts.name.clone(),
            place: [site_name(&device.facts.site), device.facts.floor.clone(), device.facts.room.clone()]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(" · "),
            qr: qr::svg(&format!("{}/devices/{}", edge.broker().endpoints().issuer, device.id)),
        })
    });
    let mut places: Vec<Option<Label>> = std::iter::repeat_with(|| None).take(skip).chain(labels).collect();
    let mut sheets = Vec::new();
    while !places.is_empty() && !devices.is_empty() {
        let rest = places.split_off(places.len().min(format.per_sheet));
        sheets.push(std::mem::replace(&mut places, rest));
    }
    let mut errors = Vec::new();
    if total > u64::from(MAX_LABELS) {
        errors.push(t("These are the labels of the first 1,000 devices. Filter the list for the others."));
    }
    let labels = LabelsPage {
        // Nothing here changes under the hands of somebody who is about to print.
        chrome: Chrome { live: false, ..chrome(edge, &signed_in.session, &t("Labels"), "devices").await },
        css: &ASSETS.labels.href,
        page_css: match format.paper {
            Paper::A4 => &ASSETS.paper_a4.href,
            Paper::Letter => &ASSETS.paper_letter.href,
            Paper::Roll => &ASSETS.paper_roll.href,
        },
        formats: FORMATS
            .iter()
            .map(|each| {
                let name =
                    if each.per_sheet == 1 { t("Label printer, roll of 62 × 29 mm") } else { each.name.to_owned() };
                (each.code, name, each.code == format.code)
            })
            .collect(),
        code: format.code,
        per_sheet: format.per_sheet,
        skip,
        ids: format!("{} {}", wanted.id, wanted.ids).trim().to_owned(),
        back: filter.address("/devices", &[]),
        filter,
        total,
        sheets,
        errors,
    };
    page(StatusCode::OK, &labels)
}
