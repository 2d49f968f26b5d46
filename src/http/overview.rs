//! `GET /`: what waits for whoever looks, how the day and the fortnight went, what needs a hand.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::broker::Caller;
use crate::clock::Timestamp;
use crate::http::Edge;
use crate::http::chart::{Chart, Per, Span};
use crate::http::extract::SignedIn;
use crate::http::lang::{filters, t, tf};
use crate::http::present::{chrome, page, pending_pairing, sentence, unavailable, when};
use crate::http::views::{Chrome, PendingPairing, When};
use crate::model::device::{Device, DeviceState};
use crate::store::{AuditBucket, AuditQuery, GrantOfDevice, StoreError, WindowSubject};

/// Rows of each list that waits.
const ROWS: u32 = 50;
/// Rows of the list of devices that need a hand.
const NEED: u32 = 8;
/// An active device that was not heard of for so many days needs a look.
const UNSEEN_DAYS: u64 = 30;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// The page.
#[derive(Debug, Clone, Template)]
#[template(path = "overview.html")]
pub struct OverviewPage {
    /// What surrounds the page.
    pub chrome: Chrome,
    /// Should the person have a passkey, and has none?
    pub offers_passkey: bool,
    /// Pairings that wait.
    pub pairings: Vec<PendingPairing>,
    /// Where pairing is open for the whole site, and when it closes.
    pub windows: Vec<(String, When)>,
    /// Sign-ins that wait.
    pub sign_ins: Vec<PendingSignIn>,
    /// One sentence for each site that is quiet now.
    pub quiet: Vec<String>,
    /// Names of sites where two persons could be asked for, if the reader may; empty if there are none.
    pub offer_two_persons: String,
    /// Sign-ins today.
    pub signed_in_today: u64,
    /// Refusals today.
    pub refused_today: u64,
    /// The last 24 hours and the last 14 days, of sign-ins and of refusals; none where nothing happened.
    pub charts: Vec<Chart>,
    /// The last refusals, newest first.
    pub refusals: Vec<Refusal>,
    /// Devices that need a hand.
    pub need: Vec<Needy>,
    /// How many there are, shown or not.
    pub in_need: u64,
    /// Devices that are registered but not paired.
    pub unpaired: u64,
    /// Active devices.
    pub active: u64,
    /// Suspended devices.
    pub suspended: u64,
}

/// A sign-in that waits for an operator; its code is never listed.
#[derive(Debug, Clone)]
pub struct PendingSignIn {
    /// Id of the sign-in, for the link.
    pub grant_id: String,
    /// Device id.
    pub device_id: String,
    /// Name of the device.
    pub device_name: String,
    /// Room; may be empty.
    pub room: String,
    /// When it asked.
    pub asked: When,
    /// Name of the operator who has it open.
    pub claimed_by: Option<String>,
    /// Whether that is the operator who is looking.
    pub mine: bool,
    /// Whether a first person approved it, and a second must.
    pub second: bool,
}

/// Something that was refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// When.
    pub at: When,
    /// What was refused and why, as a sentence.
    pub text: String,
    /// Whether it also raised an alert.
    pub alert: bool,
}

/// A device that needs a hand.
#[derive(Debug, Clone)]
pub struct Needy {
    /// Device id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Room; may be empty.
    pub room: String,
    /// Why, in words.
    pub why: String,
}

/// `GET /`.
pub async fn show(State(edge): State<Edge>, signed_in: SignedIn) -> Response {
    match overview(&edge, &signed_in).await {
        Ok(overview) => page(StatusCode::OK, &overview),
        Err(error) => unavailable(&error),
    }
}

async fn overview(edge: &Edge, signed_in: &SignedIn) -> Result<OverviewPage, StoreError> {
    let (broker, now) = (edge.broker(), edge.broker().now());
    let caller = signed_in.caller();
    let midnight = Timestamp::from_millis(now.millis() - now.millis().rem_euclid(DAY));
    let pairings = broker.open_pairings(&caller, None).await?;
    let grants = broker.pending_grants(&caller, ROWS).await?;
    let refusals = broker.audit(&caller, &AuditQuery { refusals: true, limit: 6, ..AuditQuery::default() }).await?;
    let counts = broker.device_counts(&caller).await?;
    let (signed_in_today, refused_today) = broker.audit_counts(&caller, midnight).await?;
    let (need, in_need) = broker.devices_in_need(&caller, UNSEEN_DAYS, NEED).await?;
    let (mut windows, mut quiet) = (Vec::new(), Vec::new());
    for site in broker.sites(&caller).await? {
        if let Some(until) = site.quiet_until(now) {
            let until = &until.rfc3339()[11..16];
            quiet.push(tf(
                "{0} is quiet until {1} UTC: what asks there is not shown. Who stands at the device types its code.",
                &[&site.name, until],
            ));
        }
        if let Some(closes_at) = broker.window(&WindowSubject::Site(site.id)).await? {
            windows.push((site.name, when(closes_at, now)));
        }
    }
    Ok(OverviewPage {
        offers_passkey: broker.lacks_passkey(&signed_in.session).await?,
        chrome: chrome(edge, &signed_in.session, &t("Overview"), "overview").await,
        pairings: pairings.iter().take(ROWS as usize).map(|found| pending_pairing(found, now)).collect(),
        windows,
        sign_ins: grants.iter().map(|found| pending_sign_in(found, signed_in, now)).collect(),
        quiet,
        offer_two_persons: broker.sites_without_two_persons(&caller).await?.join(", "),
        signed_in_today,
        refused_today,
        charts: charts(edge, &caller, now).await?,
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
        need: need.iter().map(|device| needy(device, now)).collect(),
        in_need,
        unpaired: counts.registered,
        active: counts.active,
        suspended: counts.suspended,
    })
}

async fn charts(edge: &Edge, caller: &Caller, now: Timestamp) -> Result<Vec<Chart>, StoreError> {
    let (hours, days) = (Span::until(now, HOUR, 24), Span::until(now, DAY, 14));
    let by_hour = edge.broker().audit_series(caller, hours.since, HOUR).await?;
    let by_day = edge.broker().audit_series(caller, days.since, DAY).await?;
    let pair =
        |(good, bad): (&'static str, &'static str), titles: [String; 2], per, span: &Span, found: &[AuditBucket]| {
            // One scale for both: three refusals must not look like three hundred sign-ins.
            let top = found.iter().map(|bucket| bucket.signed_in.max(bucket.refused)).max().unwrap_or(0);
            let [signed_in, refused] = titles;
            let charts = [
                Chart::new((good, "chart-good"), signed_in, per, top, span.values(found, |bucket| bucket.signed_in)),
                Chart::new((bad, "chart-bad"), refused, per, top, span.values(found, |bucket| bucket.refused)),
            ];
            if top == 0 { Vec::new() } else { Vec::from(charts) }
        };
    let of_hours = [t("Sign-ins, last 24 hours"), t("Refusals, last 24 hours")];
    let of_days = [t("Sign-ins, last 14 days"), t("Refusals, last 14 days")];
    let mut charts = pair(("c-sh", "c-rh"), of_hours, Per::Hour, &hours, &by_hour);
    charts.extend(pair(("c-sd", "c-rd"), of_days, Per::Day, &days, &by_day));
    Ok(charts)
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
        second: found.grant.first.is_some(),
    }
}

fn needy(device: &Device, now: Timestamp) -> Needy {
    let why = match (device.state, device.seen_at) {
        (DeviceState::Suspended, _) => t("suspended"),
        (_, Some(seen_at)) => tf("last seen {0}", &[&when(seen_at, now).relative]),
        (_, None) => t("paired, and never seen since"),
    };
    Needy { id: device.id.to_string(), name: device.facts.name.clone(), room: device.facts.room.clone(), why }
}
