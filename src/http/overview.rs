//! `GET /`: what waits, what was refused, how many are in which state.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::clock::Timestamp;
use crate::http::Edge;
use crate::http::extract::SignedIn;
use crate::http::present::{chrome, page, pending_pairing, sentence, unavailable, when};
use crate::http::views::{OverviewPage, PendingSignIn, Refusal};
use crate::model::site::DEFAULT_SITE;
use crate::store::{AuditQuery, GrantOfDevice, StoreError, WindowSubject};

/// Rows of each list.
const ROWS: u32 = 50;

/// The page.
pub async fn show(State(edge): State<Edge>, signed_in: SignedIn) -> Response {
    match overview(&edge, &signed_in).await {
        Ok(overview) => page(StatusCode::OK, &overview),
        Err(error) => unavailable(&error),
    }
}

async fn overview(edge: &Edge, signed_in: &SignedIn) -> Result<OverviewPage, StoreError> {
    let (broker, now) = (edge.broker(), edge.broker().now());
    let caller = signed_in.caller();
    let midnight = Timestamp::from_millis(now.millis() - now.millis().rem_euclid(86_400_000));
    let pairings = broker.open_pairings(&caller, None).await?;
    let grants = broker.pending_grants(&caller, ROWS).await?;
    let refusals = broker.audit(&caller, &AuditQuery { refusals: true, limit: 10, ..AuditQuery::default() }).await?;
    let counts = broker.device_counts(&caller).await?;
    let (signed_in_today, refused_today) = broker.audit_counts(&caller, midnight).await?;
    let window_open = broker.window(&WindowSubject::Site(DEFAULT_SITE.into())).await?;
    Ok(OverviewPage {
        chrome: chrome(edge, &signed_in.session, "Overview", "overview").await,
        offers_passkey: broker.lacks_passkey(&signed_in.session).await?,
        pairings: pairings.iter().take(ROWS as usize).map(|found| pending_pairing(found, now)).collect(),
        sign_ins: grants.iter().map(|found| pending_sign_in(found, signed_in, now)).collect(),
        signed_in_today,
        refused_today,
        refusals: refusals
            .iter()
            .map(|record| {
                let text = record
                    .device
                    .as_ref()
                    .map_or_else(|| sentence(record), |device| format!("{device}: {}", sentence(record)));
                Refusal { at: when(record.at, now), text, alert: record.severity == "alert" }
            })
            .collect(),
        unpaired: counts.registered,
        active: counts.active,
        suspended: counts.suspended,
        window_open: window_open.map(|closes_at| when(closes_at, now)),
    })
}

/// The user code is never listed: it is to be read off the device.
fn pending_sign_in(found: &GrantOfDevice, signed_in: &SignedIn, now: Timestamp) -> PendingSignIn {
    PendingSignIn {
        grant_id: found.grant.id.to_string(),
        device_id: found.device.id.to_string(),
        device_name: found.device.facts.name.clone(),
        room: found.device.facts.room.clone(),
        asked: when(found.grant.created_at, now),
        claimed_by: found.claimed_by.clone(),
        mine: found.grant.claim.as_ref().is_some_and(|claim| claim.by == signed_in.session.operator.id),
    }
}
