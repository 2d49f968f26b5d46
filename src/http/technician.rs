//! Technicians without an account: the page where they type their code, what they may do then, and the codes that operators make for them.
//! What a technician holds is in `pass.rs`.

use askama::Template;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use crate::broker::UseCaseError;
use crate::broker::pairing::Confirm;
use crate::broker::technicians::{MadeCode, Pass};
use crate::clock::Timestamp;
use crate::http::Edge;
use crate::http::cookies::set_cookie;
use crate::http::extract::{PageForm, PagePath, PageQuery, Peer, PostedForm, SignedIn};
use crate::http::lang::{filters, t, tf, tn};
use crate::http::pair::{self, Desk, PairDonePage, Scanned};
use crate::http::pass::{PASS_COOKIE, PassForm, Passed};
use crate::http::present::{
    bare_chrome, chrome, message, page, pending_pairing, problems, refused_form, unavailable, when,
};
use crate::http::site_choice::{Choice, SiteChoice};
use crate::http::views::{Chrome, PendingPairing, When};
use crate::model::device::PinnedKey;
use crate::spreadsheet::write;
use crate::store::WindowSubject;

fn pass_chrome(edge: &Edge, pass: &Pass, title: &str) -> Chrome {
    Chrome { csrf: edge.broker().technician_csrf(pass), ..bare_chrome(title) }
}

/// Where a technician types device and code.
#[derive(Debug, Clone, Template)]
#[template(path = "technician.html")]
struct EntryPage {
    chrome: Chrome,
    device: String,
    errors: Vec<String>,
}

/// What a technician may do for the one device.
#[derive(Debug, Clone, Template)]
#[template(path = "technician_pass.html")]
struct PassPage {
    chrome: Chrome,
    id: String,
    name: String,
    place: String,
    state: String,
    ends: When,
    window: Option<When>,
    pairings: Vec<PendingPairing>,
    errors: Vec<String>,
}

/// Query of the entry page: labels and lists may fill in the device.
#[derive(Default, Deserialize)]
pub struct Entry {
    device: Option<String>,
}

/// `GET /technician`.
pub async fn show(
    State(edge): State<Edge>,
    passed: Result<Passed, Response>,
    PageQuery(Entry { device }): PageQuery<Entry>,
) -> Response {
    match passed {
        Ok(passed) => render_pass(&edge, &passed, Vec::new()).await,
        Err(_) => {
            let device = device.filter(|device| device.len() <= 64).unwrap_or_default();
            let chrome = bare_chrome(&t("Pair as a technician"));
            page(StatusCode::OK, &EntryPage { chrome, device, errors: Vec::new() })
        }
    }
}

/// `POST /technician`: spends the code.
pub async fn enter(State(edge): State<Edge>, Peer(peer): Peer, PostedForm(form): PostedForm) -> Response {
    let field = |name: &str| form.get(name).map_or("", |value| value.trim());
    match edge.broker().technician_in(field("device"), field("code"), peer).await {
        Ok(Some(id)) => {
            let mut response = Redirect::to("/technician").into_response();
            set_cookie(&mut response, &format!("{PASS_COOKIE}={id}; Path=/; Secure; HttpOnly; SameSite=Lax"));
            response
        }
        Ok(None) => {
            // One sentence for everything: which of the two was wrong is nobody's business.
            let errors = vec![t(
                "This device and this code don't go together, or the code was used, is too old, or there were too many tries. Check both; if that does not help, ask for a new code.",
            )];
            let device = field("device").chars().take(64).collect();
            page(StatusCode::FORBIDDEN, &EntryPage { chrome: bare_chrome(&t("Pair as a technician")), device, errors })
        }
        Err(error) => problems(error).map_or_else(|response| response, |_| refused_form()),
    }
}

async fn render_pass(edge: &Edge, passed: &Passed, errors: Vec<String>) -> Response {
    let (broker, now) = (edge.broker(), edge.broker().now());
    let device = &passed.pass.device;
    let caller = passed.pass.caller(passed.peer);
    let pairings = match broker.open_pairings(&caller, Some(&device.id)).await {
        Ok(pairings) => pairings,
        Err(error) => return unavailable(&error),
    };
    let window = match broker.window(&WindowSubject::Device(device.id.clone())).await {
        Ok(window) => window,
        Err(error) => return unavailable(&error),
    };
    let facts = &device.facts;
    let place: Vec<&str> =
        [facts.floor.as_str(), facts.room.as_str()].into_iter().filter(|part| !part.is_empty()).collect();
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    let shown = PassPage {
        chrome: pass_chrome(edge, &passed.pass, &tf("Pair {0}", &[&facts.name])),
        id: device.id.to_string(),
        name: facts.name.clone(),
        place: place.join(" · "),
        state: device.state.as_str().into(),
        ends: when(passed.pass.ends_at, now),
        window: window.map(|closes_at| when(closes_at, now)),
        pairings: pairings.iter().map(|found| pending_pairing(found, now)).collect(),
        errors,
    };
    page(status, &shown)
}

/// `POST /technician/pass`: the device's window.
pub async fn act(State(edge): State<Edge>, form: PassForm) -> Response {
    let caller = form.passed.pass.caller(form.passed.peer);
    let subject = WindowSubject::Device(form.passed.pass.device.id.clone());
    let outcome = match form.field("action") {
        "open_window" => edge.broker().open_window(&caller, &subject, None).await.map(|_| ()),
        "close_window" => edge.broker().close_window(&caller, &subject).await,
        _ => return refused_form(),
    };
    match outcome.map_err(problems) {
        Ok(()) => Redirect::to("/technician").into_response(),
        Err(Ok(lines)) => render_pass(&edge, &form.passed, lines).await,
        Err(Err(response)) => response,
    }
}

fn desk<'a>(edge: &Edge, passed: &Passed) -> Desk<'a> {
    let chrome = pass_chrome(edge, &passed.pass, &t("Pair"));
    Desk { caller: passed.pass.caller(passed.peer), chrome, base: "/technician/pair" }
}

/// `GET /technician/pair/{id}`: changes nothing.
pub async fn show_pairing(
    State(edge): State<Edge>,
    passed: Passed,
    PagePath(id): PagePath<String>,
    PageQuery(scanned): PageQuery<Scanned>,
) -> Response {
    pair::render(&edge, desk(&edge, &passed), &id, scanned, Vec::new()).await
}

/// `POST /technician/pair/{id}`: confirms, by QR code or by number.
pub async fn decide(State(edge): State<Edge>, PagePath(id): PagePath<String>, form: PassForm) -> Response {
    let (broker, passed) = (edge.broker(), &form.passed);
    let caller = passed.pass.caller(passed.peer);
    let key = form.field("key").to_owned();
    let outcome = match form.field("action") {
        "pair_by_qr" => broker.confirm_pairing(&caller, &id, &Confirm::Qr(&key)).await,
        "pair_by_number" => broker.confirm_pairing(&caller, &id, &Confirm::Number(form.field("number"))).await,
        _ => return refused_form(),
    };
    match outcome.map_err(problems) {
        Ok(device) => {
            // The pass has ended with it; nothing is left to do here.
            let done = PairDonePage {
                chrome: bare_chrome(&t("Paired")),
                device_id: device.id.to_string(),
                device_name: device.facts.name.clone(),
                key: device.key.as_ref().map_or_else(String::new, |key| PinnedKey::short(&key.jkt)),
                paired: true,
                message: pair::outcome(true),
                next: None,
                onward: None,
            };
            let mut response = page(StatusCode::OK, &done);
            let line = format!("{PASS_COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0");
            set_cookie(&mut response, &line);
            response
        }
        Err(Ok(errors)) => {
            let scanned = Scanned::of(Some(key).filter(|key| !key.is_empty()));
            pair::render(&edge, desk(&edge, passed), &id, scanned, errors).await
        }
        Err(Err(response)) => response,
    }
}

/// One code to hand on.
#[derive(Debug, Clone)]
struct CodeRow {
    id: String,
    name: String,
    floor: String,
    room: String,
    code: String,
}

/// Codes: which, or those that were just made.
#[derive(Debug, Clone, Template)]
#[template(path = "technician_codes.html")]
struct CodesPage {
    chrome: Chrome,
    /// For this one device.
    device: Option<(String, String)>,
    sites: Vec<SiteChoice>,
    site: String,
    site_name: String,
    /// Floors with devices that are not paired: value and words.
    floors: Vec<(String, String)>,
    /// Where its form goes.
    target: String,
    made: Vec<CodeRow>,
    expires: Option<When>,
    /// The page where the codes are typed.
    entry: String,
    errors: Vec<String>,
}

/// For which devices.
#[derive(Default, Deserialize)]
pub struct Which {
    device: Option<String>,
    site: Option<String>,
}

/// `GET /technician/codes`.
pub async fn codes(State(edge): State<Edge>, signed_in: SignedIn, PageQuery(which): PageQuery<Which>) -> Response {
    render_codes(&edge, &signed_in, &which, Vec::new()).await
}

async fn render_codes(edge: &Edge, signed_in: &SignedIn, which: &Which, errors: Vec<String>) -> Response {
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    match codes_page(edge, signed_in, which).await {
        Ok(shown) => page(status, &CodesPage { errors, ..shown }),
        Err(error) => problems(error).map_or_else(
            |response| response,
            |lines| message(StatusCode::FORBIDDEN, &t("Not allowed"), lines, Some(("/", &t("Overview")))),
        ),
    }
}

async fn codes_page(edge: &Edge, signed_in: &SignedIn, which: &Which) -> Result<CodesPage, UseCaseError> {
    let (broker, caller) = (edge.broker(), signed_in.caller());
    let mut shown = CodesPage {
        chrome: chrome(edge, &signed_in.session, &t("Codes for technicians"), "pair").await,
        device: None,
        sites: Vec::new(),
        site: String::new(),
        site_name: String::new(),
        floors: Vec::new(),
        target: "/technician/codes".into(),
        made: Vec::new(),
        expires: None,
        entry: format!("{}/technician", broker.endpoints().issuer),
        errors: Vec::new(),
    };
    if let Some(id) = which.device.as_deref().filter(|id| !id.is_empty()) {
        let device = broker.device(&caller, id).await?;
        shown.target = format!("/technician/codes?device={}", device.id);
        shown.device = Some((device.id.to_string(), device.facts.name));
        return Ok(shown);
    }
    let choice = Choice::of(edge, &caller, which.site.as_deref()).await?;
    shown.sites = choice.choices(&[]);
    let site = choice.chosen;
    let progress = broker.pairing_progress(&caller, &site.id).await?;
    let left = progress.iter().map(|floor| (floor, floor.total - floor.paired)).filter(|(_, left)| *left > 0);
    shown.floors = left
        .map(|(floor, left)| {
            let name = if floor.floor.is_empty() { t("Without a floor") } else { floor.floor.clone() };
            (floor.floor.clone(), format!("{name}: {}", tn(left, "{0} to go", "{0} to go")))
        })
        .collect();
    shown.target = format!("/technician/codes?site={}", site.id);
    shown.site = site.id;
    shown.site_name = site.name;
    Ok(shown)
}

/// `POST /technician/codes`: makes them, and shows them once, as a page to print or as a list.
pub async fn make_codes(State(edge): State<Edge>, PageQuery(which): PageQuery<Which>, form: PageForm) -> Response {
    let (broker, caller) = (edge.broker(), form.signed_in.caller());
    let floor = form.field("floor");
    let outcome = match which.device.as_deref().filter(|id| !id.is_empty()) {
        Some(id) => broker.make_technician_codes(&caller, &[id.to_owned()]).await,
        None => {
            // A floor without a name is a floor, too: all floors are said in so many words.
            let floor = (floor != "*").then_some(floor.as_str());
            broker.make_technician_codes_at(&caller, which.site.as_deref().unwrap_or_default(), floor).await
        }
    };
    match outcome.map_err(problems) {
        Ok((made, expires_at)) if form.field("action") == "list" => csv_answer(&made, expires_at),
        Ok((made, expires_at)) => match codes_page(&edge, &form.signed_in, &which).await {
            Ok(shown) => {
                let expires = Some(when(expires_at, broker.now()));
                page(StatusCode::OK, &CodesPage { made: made.into_iter().map(row).collect(), expires, ..shown })
            }
            Err(error) => problems(error).map_or_else(|response| response, |_| refused_form()),
        },
        Err(Ok(lines)) => render_codes(&edge, &form.signed_in, &which, lines).await,
        Err(Err(response)) => response,
    }
}

fn row(made: MadeCode) -> CodeRow {
    let facts = made.device.facts;
    CodeRow { id: made.device.id.to_string(), name: facts.name, floor: facts.floor, room: facts.room, code: made.code }
}

fn csv_answer(made: &[MadeCode], expires_at: Timestamp) -> Response {
    let name = "attachment; filename=\"technician-codes.csv\"";
    let headers = [(header::CONTENT_TYPE, "text/csv; charset=utf-8"), (header::CONTENT_DISPOSITION, name)];
    (headers, csv_of(made, expires_at)).into_response()
}

/// Codes as a list for spreadsheets.
pub fn csv_of(made: &[MadeCode], expires_at: Timestamp) -> String {
    let until = expires_at.rfc3339();
    let head = vec!["device", "name", "floor", "room", "code", "valid until"];
    let row = |made: &'_ MadeCode| {
        let facts = &made.device.facts;
        [made.device.id.as_str(), &facts.name, &facts.floor, &facts.room, &made.code, &until].map(str::to_owned)
    };
    let rows: Vec<[String; 6]> = made.iter().map(row).collect();
    write(std::iter::once(head).chain(rows.iter().map(|row| row.iter().map(String::as_str).collect())))
}
