//! Pairing pages: what waits at a site, and one pairing with its ways to confirm. Walking the floors is in `walk.rs`; technicians have pages of their own.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use crate::broker::field::ManyConfirmed;
use crate::broker::pairing::Confirm;
use crate::broker::{Caller, UseCaseError};
use crate::http::Edge;
use crate::http::extract::{PageForm, PagePath, PageQuery, SignedIn};
use crate::http::lang::{filters, said, t, tf, tn};
use crate::http::pass::has_pass;
use crate::http::present::{
    announced, assurance_fact, capital, chrome, device_row, message, page, pending_pairing, problems, refused_form,
    when,
};
use crate::http::site_choice::{Choice, SiteChoice};
use crate::http::views::{Chrome, DeviceRow, Fact, FactState, PendingPairing, When};
use crate::http::walk::{self, Walk};
use crate::model::device::{Device, DeviceState, PinnedKey};
use crate::model::operator::Role;
use crate::model::pairing::{MAX_WRONG_DIGITS, Pairing};
use crate::secret::b64u;
use crate::store::{DeviceQuery, PairingOfDevice, WindowSubject};

/// Pair: what waits and what could.
#[derive(Debug, Clone, Template)]
#[template(path = "pair_list.html")]
pub struct PairListPage {
    chrome: Chrome,
    /// If there are several.
    sites: Vec<SiteChoice>,
    site: String,
    site_name: String,
    may_pair: bool,
    pairings: Vec<PendingPairing>,
    /// How many of them can be confirmed at once, in words; empty for none.
    announced: String,
    /// When pairing for the whole site closes, if it is open.
    window: Option<When>,
    /// Registered devices without a key.
    waiting: Vec<DeviceRow>,
    unpaired: u64,
    errors: Vec<String>,
}

/// Query of the list.
#[derive(Default, Deserialize)]
pub struct Listed {
    site: Option<String>,
}

/// `GET /pair`.
pub async fn list(
    State(edge): State<Edge>,
    signed_in: SignedIn,
    headers: HeaderMap,
    PageQuery(Listed { site }): PageQuery<Listed>,
) -> Response {
    // A walk through another site than the person's must not close the page.
    let walked = Walk::of(&headers).map(|walk| walk.site);
    let site = match (site, walked) {
        (None, Some(walked))
            if edge.broker().site(&signed_in.caller(), &walked).await.is_ok_and(|site| site.is_some()) =>
        {
            Some(walked)
        }
        (site, _) => site,
    };
    render_list(&edge, &signed_in, site.as_deref(), None, Vec::new()).await
}

async fn render_list(
    edge: &Edge,
    signed_in: &SignedIn,
    site: Option<&str>,
    notice: Option<String>,
    errors: Vec<String>,
) -> Response {
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    match list_page(edge, signed_in, site, notice, errors).await {
        Ok(list) => page(status, &list),
        Err(error) => problems(error).map_or_else(|response| response, |_| refused_form()),
    }
}

async fn list_page(
    edge: &Edge,
    signed_in: &SignedIn,
    site: Option<&str>,
    notice: Option<String>,
    errors: Vec<String>,
) -> Result<PairListPage, UseCaseError> {
    let (broker, now) = (edge.broker(), edge.broker().now());
    let caller = signed_in.caller();
    let choice = Choice::of(edge, &caller, site).await?;
    let pairings = broker.open_pairings(&caller, None).await?;
    let sites = choice.choices(&pairings);
    let site = choice.chosen;
    let query = DeviceQuery {
        state: Some(DeviceState::Registered),
        site: Some(site.id.clone()),
        limit: 100,
        ..DeviceQuery::default()
    };
    let (waiting, unpaired) = broker.devices(&caller, &query).await?;
    let label =
        |device: &Device| broker.kind(&device.facts.kind).map_or(device.facts.kind.clone(), |kind| kind.label.clone());
    let pairings: Vec<PendingPairing> = pairings
        .iter()
        .filter(|found| found.device.facts.site == site.id)
        .map(|found| pending_pairing(found, now))
        .collect();
    Ok(PairListPage {
        chrome: Chrome { notice, ..chrome(edge, &signed_in.session, &t("Pair"), "pair").await },
        sites,
        may_pair: caller.rights.role_at(&site.id).is_some_and(Role::may_pair),
        announced: announced(&pairings),
        pairings,
        window: broker.window(&WindowSubject::Site(site.id.clone())).await?.map(|closes_at| when(closes_at, now)),
        waiting: waiting.iter().map(|device| device_row(device, &label(device), now)).collect(),
        unpaired,
        site: site.id,
        site_name: site.name,
        errors,
    })
}

/// `POST /pair`: a site's window, and all pairings whose key was announced.
pub async fn window(State(edge): State<Edge>, form: PageForm) -> Response {
    let (broker, caller) = (edge.broker(), form.signed_in.caller());
    let named = form.field("site");
    let site = match Choice::of(&edge, &caller, Some(&named)).await {
        Ok(choice) => choice.chosen.id,
        Err(error) => return problems(error).map_or_else(|response| response, |_| refused_form()),
    };
    let subject = WindowSubject::Site(site.clone());
    let outcome = match form.field("action").as_str() {
        "open_window" => broker.open_window(&caller, &subject, None).await.map(|_| ManyConfirmed::default()),
        "close_window" => broker.close_window(&caller, &subject).await.map(|()| ManyConfirmed::default()),
        "confirm_announced" => {
            return match broker.confirm_announced(&caller, &site).await.map_err(problems) {
                Ok(outcome) => confirmed(&edge, &form.signed_in, &site, &outcome).await,
                Err(Ok(lines)) => render_list(&edge, &form.signed_in, Some(&site), None, lines).await,
                Err(Err(response)) => response,
            };
        }
        _ => return refused_form(),
    };
    // Back to where the button was.
    let back = match form.field("floor") {
        floor if form.field("walk").is_empty() && floor.is_empty() && named.is_empty() => "/pair".to_owned(),
        _ if form.field("walk").is_empty() => format!("/pair?site={site}"),
        floor => Walk { site: site.clone(), floor: Some(floor).filter(|floor| !floor.is_empty()) }.path(),
    };
    match outcome.map_err(problems) {
        Ok(_) => Redirect::to(&back).into_response(),
        Err(Ok(lines)) => message(StatusCode::UNPROCESSABLE_ENTITY, &t("Not done"), lines, Some((&back, &t("Back")))),
        Err(Err(response)) => response,
    }
}

async fn confirmed(edge: &Edge, signed_in: &SignedIn, site: &str, outcome: &ManyConfirmed) -> Response {
    let paired = u64::try_from(outcome.paired.len()).unwrap_or(0);
    let notice = match paired {
        0 => t("Nothing was paired."),
        count => tn(count, "{0} device is paired.", "{0} devices are paired."),
    };
    let errors = outcome.left.iter().map(|(id, why)| format!("{id}: {}", capital(&said(why)))).collect();
    render_list(edge, signed_in, Some(site), Some(notice), errors).await
}

/// One pairing to confirm, by scan or by number.
#[derive(Debug, Clone, Template)]
#[template(path = "pair.html")]
pub struct PairPage {
    chrome: Chrome,
    /// Where its forms go.
    target: String,
    /// Of a technician, who may do less.
    is_technician: bool,
    device_id: String,
    device_name: String,
    floor: String,
    room: String,
    asset_tag: String,
    /// What the device says of itself.
    says: Vec<Fact>,
    /// What was checked.
    facts: Vec<Fact>,
    /// Short form of the key that asks.
    key: String,
    key_full: String,
    /// The whole thumbprint from the scanned code, if it is the same.
    scanned_key: Option<String>,
    /// Whether the scanned code carried the same key; none if nothing was scanned.
    scanned_matches: Option<bool>,
    /// The device has answered, so that it can be compared.
    ready: bool,
    tries_left: u64,
    conflict: bool,
    /// Short form of the key that would be replaced.
    replaces_key: Option<String>,
    /// That key vouches for the one that asks.
    vouched: bool,
    /// It is the key that the device's maker announced.
    announced: bool,
    /// Asking it to show itself would reach what asks here.
    may_identify: bool,
    /// Why it can't be paired whatever is compared: its kind wants the key kept better.
    missing: Option<String>,
    errors: Vec<String>,
}

/// What the scanned code carries.
#[derive(Default, Deserialize)]
pub struct Scanned {
    key: Option<String>,
    /// It was asked to show itself just now.
    asked: Option<String>,
}

impl Scanned {
    /// A code with this key.
    pub(super) fn of(key: Option<String>) -> Self {
        Self { key, asked: None }
    }
}

/// What differs between an operator and a technician in front of a pairing.
pub(super) struct Desk<'a> {
    pub caller: Caller,
    pub chrome: Chrome,
    /// Address of the pages, before the pairing's id: `/pair`, or `/technician/pair`.
    pub base: &'a str,
}

impl<'a> Desk<'a> {
    async fn of(edge: &Edge, signed_in: &SignedIn) -> Desk<'a> {
        let chrome = chrome(edge, &signed_in.session, &t("Pair"), "pair").await;
        Desk { caller: signed_in.caller(), chrome, base: "/pair" }
    }
}

/// `GET /pair/{id}`: changes nothing.
pub async fn show(
    State(edge): State<Edge>,
    signed_in: Result<SignedIn, Response>,
    PagePath(id): PagePath<String>,
    PageQuery(scanned): PageQuery<Scanned>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let signed_in = match signed_in {
        Ok(signed_in) => signed_in,
        // The device's code leads here; who has a technician's pass goes on to the page for it.
        Err(_) if has_pass(&edge, &headers).await => {
            let asked = uri.path_and_query().map_or("/", |path| path.as_str());
            return Redirect::to(&format!("/technician{asked}")).into_response();
        }
        Err(rejection) => return rejection,
    };
    render(&edge, Desk::of(&edge, &signed_in).await, &id, scanned, Vec::new()).await
}

/// One pairing, with what was wrong with the last attempt.
pub(super) async fn render(
    edge: &Edge,
    desk: Desk<'_>,
    id: &str,
    Scanned { key, asked }: Scanned,
    errors: Vec<String>,
) -> Response {
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    let back = if desk.base == "/pair" { ("/pair", t("Pairings")) } else { ("/technician", t("Back")) };
    match edge.broker().pairing(&desk.caller, id).await {
        Ok(found) => {
            let mut desk = desk;
            if asked.is_some() {
                desk.chrome.notice =
                    Some(t("It is asked to show itself. It does so with its next answer, within two minutes."));
            }
            page(status, &pair_page(edge, desk, found, key, errors))
        }
        Err(UseCaseError::NotFound(_)) if !errors.is_empty() => {
            message(status, &t("Not paired"), errors, Some((back.0, &back.1)))
        }
        Err(error) => problems(error).map_or_else(
            |response| response,
            |lines| message(StatusCode::FORBIDDEN, &t("Not allowed"), lines, Some(("/", &t("Overview")))),
        ),
    }
}

fn pair_page(
    edge: &Edge,
    mut desk: Desk<'_>,
    found: PairingOfDevice,
    scanned: Option<String>,
    errors: Vec<String>,
) -> PairPage {
    let missing = edge.broker().missing_assurance(&found).map(|line| capital(&said(&line)));
    let announced = found.is_announced();
    let PairingOfDevice { pairing, device } = found;
    desk.chrome.title = tf("Pair {0}", &[&device.facts.name]);
    let key_full = b64u(&pairing.jkt);
    let scanned_matches = scanned.map(|scanned| scanned == key_full);
    let ready = pairing.device_nonce.is_some();
    let is_technician = desk.caller.only_device.is_some();
    PairPage {
        chrome: desk.chrome,
        target: format!("{}/{}", desk.base, pairing.id),
        is_technician,
        device_id: device.id.to_string(),
        device_name: device.facts.name.clone(),
        floor: device.facts.floor.clone(),
        room: device.facts.room.clone(),
        asset_tag: device.facts.asset_tag.clone(),
        says: says(&pairing),
        facts: facts(&pairing, &device, announced),
        key: PinnedKey::short(&pairing.jkt),
        // The button of the scanned way appears when the device has answered, so that it can't fail for coming too early.
        scanned_key: (scanned_matches == Some(true) && ready).then(|| key_full.clone()),
        key_full,
        scanned_matches,
        ready,
        tries_left: u64::from(MAX_WRONG_DIGITS.saturating_sub(pairing.wrong_digits)),
        conflict: pairing.conflict,
        replaces_key: device.key.as_ref().filter(|key| key.jkt != pairing.jkt).map(|key| PinnedKey::short(&key.jkt)),
        vouched: pairing.vouched_by.is_some() && !is_technician,
        announced: announced && !is_technician,
        may_identify: !is_technician && edge.broker().may_ask_to_identify(&pairing, &device),
        // Before the device has answered, its maker's statement may still come.
        missing: missing.filter(|_| ready),
        errors,
    }
}

/// What the device says of itself: claims, and shown as such.
fn says(pairing: &Pairing) -> Vec<Fact> {
    let says = &pairing.says;
    let claims = [
        (&says.serial, tf("says its serial number is {0}", &[&says.serial])),
        (&says.model, tf("says it is {0}", &[&says.model])),
        (&says.firmware, tf("says its firmware is {0}", &[&says.firmware])),
    ];
    claims
        .into_iter()
        .filter(|(value, _)| !value.is_empty())
        .map(|(_, text)| Fact { state: FactState::Claimed, text, detail: None })
        .collect()
}

/// What Pairgate checked.
fn facts(pairing: &Pairing, device: &Device, announced: bool) -> Vec<Fact> {
    let fact = |state, text: String, detail: String| Fact { state, text, detail: Some(detail) };
    let mut facts = vec![fact(FactState::Verified, t("It has the key that asks"), PinnedKey::short(&pairing.jkt))];
    facts.push(assurance_fact(pairing.key_assurance));
    if announced {
        let key = PinnedKey::short(&pairing.jkt);
        facts.push(fact(FactState::Verified, t("It is the key that its maker announced"), key));
    }
    if let Some(voucher) = &pairing.vouched_by {
        let words = t("The key that this device has now vouches for the new one");
        facts.push(fact(FactState::Verified, words, PinnedKey::short(voucher)));
    }
    if !device.facts.serial.is_empty() {
        let serial = device.facts.serial.clone();
        facts.push(fact(FactState::Verified, t("Its serial number is the registered one"), serial));
    }
    if let Some(peer) = pairing.peer {
        facts.push(fact(FactState::Neutral, t("Seen from"), peer.to_string()));
    }
    facts
}

/// `POST /pair/{id}`.
pub async fn decide(
    State(edge): State<Edge>,
    PagePath(id): PagePath<String>,
    headers: HeaderMap,
    form: PageForm,
) -> Response {
    let (broker, caller) = (edge.broker(), form.signed_in.caller());
    let (key, number) = (form.field("key"), form.field("number"));
    let paired = |device| (device, true);
    let outcome = match form.field("action").as_str() {
        "pair_by_qr" => broker.confirm_pairing(&caller, &id, &Confirm::Qr(&key)).await.map(paired),
        "pair_by_number" => broker.confirm_pairing(&caller, &id, &Confirm::Number(&number)).await.map(paired),
        "confirm_new_key" => broker.confirm_pairing(&caller, &id, &Confirm::Vouched).await.map(paired),
        "confirm_announced" => broker.confirm_pairing(&caller, &id, &Confirm::Manifest).await.map(paired),
        "refuse" => broker.decline_pairing(&caller, &id).await.map(|device| (device, false)),
        "identify" => match broker.identify_device(&caller, &form.field("device")).await {
            // What was scanned comes along, or it would have to be scanned again.
            Ok(_) => {
                let key: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect();
                let key = if key.is_empty() { String::new() } else { format!("&key={key}") };
                return Redirect::to(&format!("/pair/{id}?asked=1{key}")).into_response();
            }
            Err(error) => Err(error),
        },
        _ => return refused_form(),
    };
    match outcome.map_err(problems) {
        Ok((device, is_paired)) => done(&edge, &form.signed_in, Walk::of(&headers), &device, is_paired).await,
        Err(Ok(errors)) => {
            let scanned = Scanned::of(Some(key).filter(|key| !key.is_empty()));
            render(&edge, Desk::of(&edge, &form.signed_in).await, &id, scanned, errors).await
        }
        Err(Err(response)) => response,
    }
}

/// What became of a pairing.
#[derive(Debug, Clone, Template)]
#[template(path = "pair_done.html")]
pub struct PairDonePage {
    pub(super) chrome: Chrome,
    pub(super) device_id: String,
    pub(super) device_name: String,
    /// Short form of the key.
    pub(super) key: String,
    /// Otherwise it was refused.
    pub(super) paired: bool,
    /// What happened and what the device shows now.
    pub(super) message: String,
    /// What is next: "254 to go, 12 on this floor".
    pub(super) next: Option<String>,
    /// Where that is; none for a technician, who is done.
    pub(super) onward: Option<String>,
}

/// What happened, and what the device shows now.
pub(super) fn outcome(is_paired: bool) -> String {
    if is_paired {
        t("The device has been told.")
    } else {
        t("The device has been told no. It can ask again while pairing is open.")
    }
}

async fn done(edge: &Edge, signed_in: &SignedIn, walk: Option<Walk>, device: &Device, is_paired: bool) -> Response {
    let (next, onward) = match walk {
        Some(walk) => (walk::to_go(edge, &signed_in.caller(), &walk).await, walk.path()),
        None => {
            let left = edge.broker().device_counts(&signed_in.caller()).await.map_or(0, |counts| counts.registered);
            let words = || tn(left, "{0} device is still to be paired.", "{0} devices are still to be paired.");
            ((left > 0).then(words), "/pair".to_owned())
        }
    };
    let title = if is_paired { t("Paired") } else { t("Not paired") };
    let done = PairDonePage {
        chrome: Chrome { live: false, ..chrome(edge, &signed_in.session, &title, "pair").await },
        device_id: device.id.to_string(),
        device_name: device.facts.name.clone(),
        key: device.key.as_ref().map_or_else(String::new, |key| PinnedKey::short(&key.jkt)),
        paired: is_paired,
        message: outcome(is_paired),
        next,
        onward: Some(onward),
    };
    page(StatusCode::OK, &done)
}
