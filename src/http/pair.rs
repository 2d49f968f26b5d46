//! Pairing pages: the list with the site's window, and one pairing with its two ways to confirm.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use crate::broker::UseCaseError;
use crate::broker::pairing::Confirm;
use crate::http::Edge;
use crate::http::extract::{PageForm, PagePath, PageQuery, SignedIn};
use crate::http::present::{
    assurance_fact, capital, chrome, device_row, page, pending_pairing, problems, refused_form, unavailable, when,
};
use crate::http::views::{Fact, FactState, PairDonePage, PairListPage, PairPage};
use crate::model::device::{Device, DeviceState, PinnedKey};
use crate::model::pairing::{MAX_WRONG_DIGITS, Pairing};
use crate::model::site::DEFAULT_SITE;
use crate::secret::b64u;
use crate::store::{DeviceQuery, PairingOfDevice, StoreError, WindowSubject};

/// `GET /pair`.
pub async fn list(State(edge): State<Edge>, signed_in: SignedIn) -> Response {
    match list_page(&edge, &signed_in).await {
        Ok(list) => page(StatusCode::OK, &list),
        Err(error) => unavailable(&error),
    }
}

async fn list_page(edge: &Edge, signed_in: &SignedIn) -> Result<PairListPage, StoreError> {
    let (broker, now) = (edge.broker(), edge.broker().now());
    let caller = signed_in.caller();
    let pairings = broker.open_pairings(&caller, None).await?;
    let (waiting, unpaired) = broker
        .devices(&caller, &DeviceQuery { state: Some(DeviceState::Registered), limit: 100, ..DeviceQuery::default() })
        .await?;
    let label =
        |device: &Device| broker.kind(&device.facts.kind).map_or(device.facts.kind.clone(), |kind| kind.label.clone());
    Ok(PairListPage {
        chrome: chrome(edge, &signed_in.session, "Pair", "pair").await,
        pairings: pairings.iter().map(|found| pending_pairing(found, now)).collect(),
        window: broker.window(&site()).await?.map(|closes_at| when(closes_at, now)),
        waiting: waiting.iter().map(|device| device_row(device, &label(device), now)).collect(),
        unpaired,
    })
}

fn site() -> WindowSubject {
    WindowSubject::Site(DEFAULT_SITE.into())
}

/// `POST /pair`: the site's window.
pub async fn window(State(edge): State<Edge>, form: PageForm) -> Response {
    let caller = form.signed_in.caller();
    let outcome = match form.field("action").as_str() {
        "open_window" => edge.broker().open_window(&caller, &site(), None).await.map(|_| ()),
        "close_window" => edge.broker().close_window(&caller, &site()).await,
        _ => return refused_form(),
    };
    match outcome.map_err(problems) {
        Ok(()) => Redirect::to("/pair").into_response(),
        Err(Ok(lines)) => {
            crate::http::present::message(StatusCode::UNPROCESSABLE_ENTITY, "Not done", lines, Some(("/pair", "Back")))
        }
        Err(Err(response)) => response,
    }
}

/// What the scanned code carries.
#[derive(Deserialize)]
pub struct Scanned {
    key: Option<String>,
}

/// `GET /pair/{id}`: changes nothing.
pub async fn show(
    State(edge): State<Edge>,
    signed_in: SignedIn,
    PagePath(id): PagePath<String>,
    PageQuery(Scanned { key }): PageQuery<Scanned>,
) -> Response {
    render(&edge, &signed_in, &id, key, Vec::new()).await
}

async fn render(edge: &Edge, signed_in: &SignedIn, id: &str, scanned: Option<String>, errors: Vec<String>) -> Response {
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    match edge.broker().pairing(&signed_in.caller(), id).await {
        Ok(found) => {
            let missing = edge.broker().missing_assurance(&found).map(|line| capital(&line));
            let PairingOfDevice { pairing, device } = found;
            let chrome = chrome(edge, &signed_in.session, &format!("Pair {}", device.facts.name), "pair").await;
            let key_full = b64u(&pairing.jkt);
            let scanned_matches = scanned.map(|scanned| scanned == key_full);
            let ready = pairing.device_nonce.is_some();
            let pair = PairPage {
                chrome,
                pairing_id: pairing.id.to_string(),
                device_id: device.id.to_string(),
                device_name: device.facts.name.clone(),
                room: device.facts.room.clone(),
                asset_tag: device.facts.asset_tag.clone(),
                says: says(&pairing),
                facts: facts(&pairing, &device),
                key: PinnedKey::short(&pairing.jkt),
                // The button of the scanned way appears when the device has answered, so that it can't fail for coming too early.
                scanned_key: (scanned_matches == Some(true) && ready).then(|| key_full.clone()),
                key_full,
                scanned_matches,
                ready,
                tries_left: u64::from(MAX_WRONG_DIGITS.saturating_sub(pairing.wrong_digits)),
                conflict: pairing.conflict,
                replaces_key: device
                    .key
                    .as_ref()
                    .filter(|key| key.jkt != pairing.jkt)
                    .map(|key| PinnedKey::short(&key.jkt)),
                vouched: pairing.vouched_by.is_some(),
                // Before the device has answered, its maker's statement may still come.
                missing: missing.filter(|_| ready),
                errors,
            };
            page(status, &pair)
        }
        Err(UseCaseError::NotFound(_)) if !errors.is_empty() => crate::http::present::message(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Not paired",
            errors,
            Some(("/pair", "Pairings")),
        ),
        Err(error) => problems(error).map_or_else(
            |response| response,
            |lines| crate::http::present::message(StatusCode::FORBIDDEN, "Not allowed", lines, Some(("/", "Overview"))),
        ),
    }
}

/// What the device says of itself: claims, and shown as such.
fn says(pairing: &Pairing) -> Vec<Fact> {
    let claims = [
        (&pairing.says.serial, "says its serial number is"),
        (&pairing.says.model, "says it is"),
        (&pairing.says.firmware, "says its firmware is"),
    ];
    claims
        .into_iter()
        .filter(|(value, _)| !value.is_empty())
        .map(|(value, words)| Fact { state: FactState::Claimed, text: format!("{words} {value}"), detail: None })
        .collect()
}

/// What Pairgate checked.
fn facts(pairing: &Pairing, device: &Device) -> Vec<Fact> {
    let mut facts = vec![Fact {
        state: FactState::Verified,
        text: "It has the key that asks".into(),
        detail: Some(PinnedKey::short(&pairing.jkt)),
    }];
    facts.push(assurance_fact(pairing.key_assurance));
    if let Some(voucher) = &pairing.vouched_by {
        facts.push(Fact {
            state: FactState::Verified,
            text: "The key that this device has now vouches for the new one".into(),
            detail: Some(PinnedKey::short(voucher)),
        });
    }
    if !device.facts.serial.is_empty() {
        facts.push(Fact {
            state: FactState::Verified,
            text: "Its serial number is the registered one".into(),
            detail: Some(device.facts.serial.clone()),
        });
    }
    if let Some(peer) = pairing.peer {
        facts.push(Fact { state: FactState::Neutral, text: "Seen from".into(), detail: Some(peer.to_string()) });
    }
    facts
}

/// `POST /pair/{id}`.
pub async fn decide(State(edge): State<Edge>, PagePath(id): PagePath<String>, form: PageForm) -> Response {
    let (broker, caller) = (edge.broker(), form.signed_in.caller());
    let key = form.field("key");
    let outcome = match form.field("action").as_str() {
        "pair_by_qr" => broker.confirm_pairing(&caller, &id, &Confirm::Qr(&key)).await.map(|device| (device, true)),
        "pair_by_number" => broker
            .confirm_pairing(&caller, &id, &Confirm::Number(&form.field("number")))
            .await
            .map(|device| (device, true)),
        "confirm_new_key" => broker.confirm_pairing(&caller, &id, &Confirm::Vouched).await.map(|device| (device, true)),
        "refuse" => broker.decline_pairing(&caller, &id).await.map(|device| (device, false)),
        _ => return refused_form(),
    };
    match outcome.map_err(problems) {
        Ok((device, paired)) => done(&edge, &form.signed_in, &device, paired).await,
        Err(Ok(errors)) => render(&edge, &form.signed_in, &id, Some(key).filter(|key| !key.is_empty()), errors).await,
        Err(Err(response)) => response,
    }
}

async fn done(edge: &Edge, signed_in: &SignedIn, device: &Device, paired: bool) -> Response {
    let left = edge.broker().device_counts(&signed_in.caller()).await.map_or(0, |counts| counts.registered);
    let next = (left > 0).then(|| {
        if left == 1 {
            "1 device is still to be paired.".into()
        } else {
            format!("{left} devices are still to be paired.")
        }
    });
    let message = if paired {
        format!("From now on only this key is {}. The device has been told.", device.id)
    } else {
        "The device has been told no. It can ask again while pairing is open.".into()
    };
    let title = if paired { "Paired" } else { "Not paired" };
    let done = PairDonePage {
        chrome: crate::http::views::Chrome { live: false, ..chrome(edge, &signed_in.session, title, "pair").await },
        device_id: device.id.to_string(),
        device_name: device.facts.name.clone(),
        key: device.key.as_ref().map_or_else(String::new, |key| PinnedKey::short(&key.jkt)),
        paired,
        message,
        next,
    };
    page(StatusCode::OK, &done)
}
