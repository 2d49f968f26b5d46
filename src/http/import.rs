//! Importing a list: choose a file, see what it comes to, say yes.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::broker::bulk::{Deed, Receipt};
use crate::http::Edge;
use crate::http::device_list::{download, label};
use crate::http::extract::{PageForm, SignedIn};
use crate::http::lang::{filters, said, t, tf};
use crate::http::present::{chrome, floor_words, page, problems, room_words, unavailable};
use crate::http::upload::Upload;
use crate::http::views::Chrome;
use crate::model::columns::Column;
use crate::model::import::{Checked, Defaults};
use crate::model::operator::Role;
use crate::model::site::DEFAULT_SITE;
use crate::spreadsheet::MAX_FILE;

/// Mistakes that are shown; a file with more is mended in steps.
const SHOWN: usize = 200;
/// Devices that are shown of a file without mistakes.
const PREVIEW: usize = 20;

/// The form, and what the last file came to.
#[derive(Template)]
#[template(path = "import.html")]
struct ImportPage {
    chrome: Chrome,
    kinds: Vec<(String, String)>,
    sites: Vec<(String, String)>,
    chosen: Defaults,
    text: String,
    errors: Vec<String>,
    result: Option<Outcome>,
}

/// What a file came to.
struct Outcome {
    rows: usize,
    format: String,
    columns: Vec<(String, String)>,
    ignored: Vec<String>,
    minted: usize,
    wrong: usize,
    mistakes: Vec<Mistake>,
    preview: Vec<Preview>,
    more: usize,
    token: Option<String>,
}

struct Mistake {
    row: u32,
    column: String,
    value: String,
    problem: String,
}

struct Preview {
    row: u32,
    id: String,
    is_minted: bool,
    name: String,
    kind: String,
    place: String,
    has_key: bool,
}

/// `GET /devices/import`.
pub async fn show(State(edge): State<Edge>, signed_in: SignedIn) -> Response {
    let chosen = Defaults { kind: String::new(), site: DEFAULT_SITE.into() };
    render(&edge, &signed_in, chosen, String::new(), Vec::new(), None).await
}

async fn render(
    edge: &Edge,
    signed_in: &SignedIn,
    chosen: Defaults,
    text: String,
    errors: Vec<String>,
    result: Option<Outcome>,
) -> Response {
    let caller = signed_in.caller();
    let may_register = |site: &str| caller.rights.role_at(site).is_some_and(Role::may_pair);
    let sites = match edge.broker().sites(&caller).await {
        Ok(sites) => sites.into_iter().filter(|site| may_register(&site.id)).map(|site| (site.id, site.name)).collect(),
        Err(error) => return unavailable(&error),
    };
    let is_good = errors.is_empty() && result.as_ref().is_none_or(|result| result.wrong == 0);
    let import = ImportPage {
        chrome: chrome(edge, &signed_in.session, &t("Import a list"), "devices").await,
        kinds: edge.broker().kinds().iter().map(|kind| (kind.id.clone(), said(&kind.label))).collect(),
        sites,
        chosen,
        text,
        errors,
        result,
    };
    page(if is_good { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY }, &import)
}

/// `POST /devices/import`: the dry run.
pub async fn check(State(edge): State<Edge>, upload: Upload<MAX_FILE>) -> Response {
    let broker = edge.broker();
    let chosen = Defaults { kind: upload.field("kind").to_owned(), site: upload.field("site").to_owned() };
    let is_pasted = upload.file.is_empty();
    let file = if is_pasted { upload.field("text").as_bytes().to_vec() } else { upload.file.clone() };
    let checked = broker.check_import(&upload.signed_in.caller(), file.clone(), &chosen).await;
    // What was pasted stays in its field; a browser keeps no file.
    let text = if is_pasted { upload.field("text").to_owned() } else { String::new() };
    let checked = match checked.map_err(problems) {
        Ok(checked) => checked,
        Err(Err(response)) => return response,
        Err(Ok(errors)) => return render(&edge, &upload.signed_in, chosen, text, errors, None).await,
    };
    let token = if checked.errors.is_empty() {
        match broker.keep_import(&upload.signed_in.session, &file, &chosen).await {
            Ok(token) => Some(token),
            Err(error) => return unavailable(&error),
        }
    } else {
        None
    };
    let outcome = outcome(&edge, checked, token);
    render(&edge, &upload.signed_in, chosen, text, Vec::new(), Some(outcome)).await
}

/// `POST /devices/import/register`.
pub async fn register(State(edge): State<Edge>, form: PageForm) -> Response {
    let (broker, caller, session) = (edge.broker(), form.signed_in.caller(), &form.signed_in.session);
    let done = async {
        let (file, defaults) = broker.take_import(session, &form.field("checked")).await?;
        let checked = broker.import_devices(&caller, file, &defaults).await?;
        Ok((checked, defaults))
    };
    match done.await.map_err(problems) {
        Ok((checked, _)) if checked.errors.is_empty() => {
            let receipt = Receipt { deed: Deed::Imported, done: checked.devices.len(), ..Receipt::default() };
            match broker.keep_receipt(session, &receipt).await {
                Ok(name) => Redirect::to(&format!("/devices?state=registered&done={name}")).into_response(),
                Err(error) => unavailable(&error),
            }
        }
        Ok((checked, defaults)) => {
            let outcome = outcome(&edge, checked, None);
            render(&edge, &form.signed_in, defaults, String::new(), Vec::new(), Some(outcome)).await
        }
        Err(Ok(errors)) => render(&edge, &form.signed_in, Defaults::default(), String::new(), errors, None).await,
        Err(Err(response)) => response,
    }
}

/// `GET /devices/import/template.csv`.
pub async fn template(State(edge): State<Edge>, _: SignedIn) -> Response {
    download("pairgate-devices.csv", edge.broker().import_template())
}

fn outcome(edge: &Edge, checked: Checked, token: Option<String>) -> Outcome {
    let mistakes = checked.errors.iter().take(SHOWN).map(|error| Mistake {
        row: error.row,
        column: error.column.clone(),
        value: error.value.clone(),
        problem: said(&error.problem),
    });
    let preview = checked.devices.iter().take(PREVIEW).map(|device| Preview {
        row: device.row,
        id: device.id.to_string(),
        is_minted: device.is_minted,
        name: device.facts.name.clone(),
        kind: label(edge, &device.facts.kind),
        place: [floor_words(&device.facts.floor), room_words(&device.facts.room)]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" · "),
        has_key: device.manifest_jkt.is_some(),
    });
    Outcome {
        rows: checked.rows,
        format: checked.format.clone(),
        columns: checked.columns.iter().map(|(head, column)| (head.clone(), column_words(*column))).collect(),
        ignored: checked.ignored.clone(),
        minted: checked.devices.iter().filter(|device| device.is_minted).count(),
        wrong: checked.errors.len(),
        mistakes: mistakes.collect(),
        preview: if token.is_some() { preview.collect() } else { Vec::new() },
        more: checked.devices.len().saturating_sub(PREVIEW),
        token,
    }
}

/// A column as pages call it.
fn column_words(column: Column) -> String {
    match column {
        Column::Id => t("Device id"),
        Column::Name => t("Name"),
        Column::Kind => t("Kind"),
        Column::Serial => t("Serial number"),
        Column::AssetTag => t("Asset tag"),
        Column::Maker => t("Maker"),
        Column::Model => t("Model"),
        Column::Site => t("Site"),
        Column::Floor => t("Floor"),
        Column::Room => t("Room"),
        Column::Owner => t("Owner"),
        Column::Note => t("Note"),
        Column::Jkt => t("Key"),
    }
}

impl Outcome {
    /// `Import 312 devices`.
    fn button(&self) -> String {
        crate::http::lang::tn(u64::try_from(self.rows).unwrap_or(0), "Import {0} device", "Import {0} devices")
    }

    /// `312 rows, 3 mistakes`.
    fn heading(&self) -> String {
        let rows = crate::http::lang::tn(u64::try_from(self.rows).unwrap_or(0), "{0} row", "{0} rows");
        let wrong = crate::http::lang::tn(u64::try_from(self.wrong).unwrap_or(0), "{0} mistake", "{0} mistakes");
        if self.wrong == 0 { tf("{0}, no mistake", &[&rows]) } else { format!("{rows}, {wrong}") }
    }
}
