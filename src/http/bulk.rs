//! Something done to several devices: what it would be, a yes, what became of it, and the way back.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::broker::bulk::{BulkAction, Receipt, Selection};
use crate::broker::{Broker, UseCaseError};
use crate::http::Edge;
use crate::http::device_list::{label, list_with_errors};
use crate::http::extract::PageForm;
use crate::http::filter::Filter;
use crate::http::lang::{filters, t, tf, tn};
use crate::http::present::{chrome, page, problems, unavailable};
use crate::http::views::Chrome;
use crate::model::change::Move;

/// Devices that the question names; of the others it says how many there are.
const NAMED: usize = 60;

/// What would be done, to which devices.
#[derive(Template)]
#[template(path = "bulk.html")]
struct BulkPage {
    chrome: Chrome,
    action: String,
    heading: String,
    /// What the button does, in words.
    act: String,
    meaning: String,
    is_danger: bool,
    count: usize,
    devices: Vec<(String, String, String)>,
    more: usize,
    ids: Option<String>,
    /// Which devices are asked about.
    asked: String,
    filter: Filter,
    word: Option<String>,
    wants_count: bool,
    sites: Vec<(String, String)>,
    back: String,
    errors: Vec<String>,
}

/// Which devices the form means.
fn selection(form: &PageForm) -> Selection {
    let named = |names: String| Selection::Ids(names.split_whitespace().map(str::to_owned).collect());
    match form.field("which").as_str() {
        "all" => {
            let asked = Some(form.field("asked")).filter(|asked| !asked.is_empty());
            Selection::Matching(Filter::of_form(form).query(), form.field("total").parse().unwrap_or(0), asked)
        }
        "page" => named(form.field("page_ids")),
        // The second step has them in one field.
        "ids" => named(form.field("ids")),
        _ => Selection::Ids(form.ticked("d.")),
    }
}

/// A word for what to do, and what that is. A field of a move that is empty leaves things as they are; `-` clears them.
fn action(form: &PageForm) -> Option<BulkAction> {
    let field = |name: &str| match form.field(name).as_str() {
        "" => None,
        "-" => Some(String::new()),
        text => Some(text.to_owned()),
    };
    Some(match form.field("action").as_str() {
        "suspend" => BulkAction::Suspend,
        "resume" => BulkAction::Resume,
        "stolen" => BulkAction::Stolen,
        "retire" => BulkAction::Retire,
        "open" => BulkAction::OpenPairing,
        "close" => BulkAction::ClosePairing,
        "move" => BulkAction::Move(Move {
            site: field("to_site"),
            floor: field("to_floor"),
            room: field("to_room"),
            owner: field("to_owner"),
        }),
        _ => return None,
    })
}

/// The question, what a yes means, and whether it is dangerous.
fn question(action: &BulkAction, count: u64) -> (String, String, bool) {
    match action {
        BulkAction::Suspend => (
            tn(count, "Suspend {0} device?", "Suspend {0} devices?"),
            t("Their access ends at once, and they can't sign in. You can undo it."),
            true,
        ),
        BulkAction::Resume => (
            tn(count, "Let {0} device on again?", "Let {0} devices on again?"),
            t("They can sign in again; what they held before stays dead."),
            false,
        ),
        BulkAction::Stolen => (
            tn(count, "Report {0} device as stolen?", "Report {0} devices as stolen?"),
            t("Their access ends at once, and an alert is raised. Each is let on again only by its own id."),
            true,
        ),
        BulkAction::Retire => (
            tn(count, "Retire {0} device for ever?", "Retire {0} devices for ever?"),
            t("Neither their ids nor their keys are ever accepted again. This can't be undone."),
            true,
        ),
        BulkAction::OpenPairing => (
            tn(count, "Open pairing for {0} device?", "Open pairing for {0} devices?"),
            t("For 15 minutes each of them may ask to be paired. You still confirm each key."),
            false,
        ),
        BulkAction::ClosePairing => (
            tn(count, "Close pairing for {0} device?", "Close pairing for {0} devices?"),
            t("What has been asked already stays on the list of what waits."),
            false,
        ),
        BulkAction::Move(_) => (
            tn(count, "Change the place of {0} device?", "Change the place of {0} devices?"),
            t("Fields that you leave empty stay as they are; a single dash empties them."),
            false,
        ),
    }
}

/// `GET /devices/bulk`: nothing is chosen; a person who signed in anew in the middle comes back here.
pub async fn begin_again() -> Response {
    Redirect::to("/devices").into_response()
}

/// `POST /devices/bulk`.
pub async fn act(State(edge): State<Edge>, form: PageForm) -> Response {
    let chosen = selection(&form);
    if form.field("action") == "labels" {
        return to_labels(&form, &chosen);
    }
    let outcome = match action(&form) {
        None => Err(UseCaseError::Refused(vec!["there is no such action; nothing was changed".into()])),
        Some(action) if form.field("confirmed").is_empty() => {
            return match ask(&edge, &form, &chosen, &action, Vec::new()).await {
                Ok(response) => response,
                Err(error) => refused(&edge, &form, error).await,
            };
        }
        Some(action) => match unconfirmed(&form, &chosen, &action) {
            Some(problem) => {
                return match ask(&edge, &form, &chosen, &action, vec![problem]).await {
                    Ok(response) => response,
                    Err(error) => refused(&edge, &form, error).await,
                };
            }
            None => edge.broker().change_devices(&form.signed_in.caller(), &chosen, &action).await,
        },
    };
    match outcome {
        Ok(receipt) => to_list(&edge, &form, &receipt).await,
        Err(error) => refused(&edge, &form, error).await,
    }
}

async fn refused(edge: &Edge, form: &PageForm, error: UseCaseError) -> Response {
    match problems(error) {
        Ok(errors) => list_with_errors(edge, &form.signed_in, Filter::of_form(form), errors).await,
        Err(response) => response,
    }
}

async fn to_list(edge: &Edge, form: &PageForm, receipt: &Receipt) -> Response {
    match edge.broker().keep_receipt(&form.signed_in.session, receipt).await {
        Ok(name) => Redirect::to(&Filter::of_form(form).address("/devices", &[("done", &name)])).into_response(),
        Err(error) => unavailable(&error),
    }
}

fn to_labels(form: &PageForm, chosen: &Selection) -> Response {
    let address = match chosen {
        Selection::Ids(ids) => Filter::default().address("/devices/labels", &[("ids", &ids.join(" "))]),
        Selection::Matching(..) => Filter::of_form(form).address("/devices/labels", &[]),
    };
    Redirect::to(&address).into_response()
}

/// The word to type before anything is retired.
fn retire_word() -> String {
    t("retire")
}

fn wants_count(chosen: &Selection, is_danger: bool) -> bool {
    is_danger && matches!(chosen, Selection::Matching(..))
}

/// What is missing for a yes.
fn unconfirmed(form: &PageForm, chosen: &Selection, action: &BulkAction) -> Option<String> {
    let (_, _, is_danger) = question(action, 0);
    let total = form.field("total");
    if *action == BulkAction::Retire && !form.field("word").eq_ignore_ascii_case(&retire_word()) {
        return Some(tf("To go on, type the word: {0}", &[&retire_word()]));
    }
    if wants_count(chosen, is_danger) && form.field("typed_count") != total {
        return Some(tf("To go on, type how many devices it is: {0}", &[&total]));
    }
    None
}

async fn ask(
    edge: &Edge,
    form: &PageForm,
    chosen: &Selection,
    action: &BulkAction,
    errors: Vec<String>,
) -> Result<Response, UseCaseError> {
    let (broker, caller) = (edge.broker(), form.signed_in.caller());
    broker.may_begin(&caller, action)?;
    let (devices, _) = broker.select_devices(&caller, chosen).await?;
    if devices.is_empty() {
        return Err(UseCaseError::Refused(vec!["no device is chosen; tick some in the list".into()]));
    }
    let (heading, meaning, is_danger) = question(action, u64::try_from(devices.len()).unwrap_or(0));
    let administered = broker
        .sites(&caller)
        .await?
        .into_iter()
        .filter(|site| caller.rights.role_at(&site.id).is_some_and(crate::model::operator::Role::may_administer));
    let ids: Vec<&str> = devices.iter().map(|device| device.id.as_str()).collect();
    let filter = Filter::of_form(form);
    let asked = BulkPage {
        chrome: chrome(edge, &form.signed_in.session, &heading, "devices").await,
        action: form.field("action"),
        act: heading.trim_end_matches('?').trim_end().to_owned(),
        heading,
        meaning,
        is_danger,
        count: devices.len(),
        ids: matches!(chosen, Selection::Ids(_)).then(|| ids.join(" ")),
        asked: Broker::digest_of(&devices),
        devices: devices
            .iter()
            .take(NAMED)
            .map(|device| (device.id.to_string(), device.facts.name.clone(), label(edge, &device.facts.kind)))
            .collect(),
        more: devices.len().saturating_sub(NAMED),
        word: (*action == BulkAction::Retire).then(retire_word),
        wants_count: wants_count(chosen, is_danger),
        sites: administered.map(|site| (site.id, site.name)).collect(),
        back: filter.address("/devices", &[]),
        filter,
        errors: errors.clone(),
    };
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    Ok(page(status, &asked))
}

/// `POST /devices/undo`.
pub async fn undo(State(edge): State<Edge>, form: PageForm) -> Response {
    let signed_in = &form.signed_in;
    match edge.broker().undo_change(&signed_in.caller(), &signed_in.session, &form.field("done")).await {
        Ok(receipt) => to_list(&edge, &form, &receipt).await,
        Err(error) => refused(&edge, &form, error).await,
    }
}
