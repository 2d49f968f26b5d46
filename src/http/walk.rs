//! Walking the floors with a phone in one hand: how far a site is, what is left on each floor, and on to the next device.
//!
//! The phone's camera opens the page of the pairing (`pair.rs`), which knows nothing of a walk; so the walk is remembered in a cookie. It says where somebody
//! walks, and gives no right to anything.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use url::form_urlencoded;

use crate::broker::{Caller, UseCaseError};
use crate::http::Edge;
use crate::http::cookies::{cookie, set_cookie};
use crate::http::extract::{PageQuery, SignedIn};
use crate::http::lang::{filters, t, tf, tn};
use crate::http::present::{announced, chrome, floor_words, page, pending_pairing, problems, refused_form, when};
use crate::http::site_choice::{Choice, SiteChoice};
use crate::http::views::{Chrome, PendingPairing, When};
use crate::model::device::{Device, DeviceState};
use crate::model::operator::Role;
use crate::store::{DeviceQuery, FloorProgress, PairingOfDevice, WindowSubject};

/// The walk that is under way.
const WALK_COOKIE: &str = "__Host-walk";
/// Devices of one floor that are listed.
const DEVICES: u32 = 300;

/// Where somebody walks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Walk {
    /// Site id.
    #[serde(default)]
    pub site: String,
    /// Floor; none while none is chosen, empty for devices of which nobody said.
    pub floor: Option<String>,
}

impl Walk {
    /// The walk of a browser.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = cookie(headers, WALK_COOKIE)?;
        let fields: Vec<(String, String)> = form_urlencoded::parse(value.as_bytes()).into_owned().take(4).collect();
        let field = |name: &str| fields.iter().find_map(|(key, value)| (key == name).then(|| value.clone()));
        Some(Self { site: field("site").filter(|site| !site.is_empty() && site.len() <= 64)?, floor: field("floor") })
    }

    fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("site", &self.site);
        if let Some(floor) = &self.floor {
            query.append_pair("floor", floor);
        }
        query.finish()
    }

    /// The address of its page.
    pub fn path(&self) -> String {
        format!("/pair/walk?{}", self.query())
    }
}

/// One floor.
#[derive(Debug, Clone)]
struct Floor {
    name: String,
    href: String,
    /// "12 to go of 40".
    words: String,
    total: u64,
    paired: u64,
    is_chosen: bool,
}

/// One device that is left.
#[derive(Debug, Clone)]
struct Left {
    id: String,
    name: String,
    /// Its pairing, if it waits.
    pairing: Option<String>,
    ready: bool,
}

/// Walking the floors.
#[derive(Debug, Clone, Template)]
#[template(path = "walk.html")]
pub struct WalkPage {
    chrome: Chrome,
    sites: Vec<SiteChoice>,
    site: String,
    site_name: String,
    /// Value of the field `floor` of its forms.
    floor: String,
    floor_name: Option<String>,
    may_pair: bool,
    window: Option<When>,
    total: u64,
    paired: u64,
    /// "57 of 312 paired".
    progress: String,
    floors: Vec<Floor>,
    /// By room: what is left on the chosen floor.
    rooms: Vec<(String, Vec<Left>)>,
    /// What waits at the whole site.
    pairings: Vec<PendingPairing>,
    /// As on the list of pairings.
    announced: String,
}

/// `GET /pair/walk`.
pub async fn show(State(edge): State<Edge>, signed_in: SignedIn, PageQuery(walk): PageQuery<Walk>) -> Response {
    match walk_page(&edge, &signed_in, walk).await {
        Ok((walk, shown)) => {
            let mut response = page(StatusCode::OK, &shown);
            let value = walk.query();
            let line = format!("{WALK_COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=43200");
            set_cookie(&mut response, &line);
            response
        }
        Err(error) => problems(error).map_or_else(|response| response, |_| refused_form()),
    }
}

async fn walk_page(edge: &Edge, signed_in: &SignedIn, mut walk: Walk) -> Result<(Walk, WalkPage), UseCaseError> {
    let (broker, now) = (edge.broker(), edge.broker().now());
    let caller = signed_in.caller();
    let choice = Choice::of(edge, &caller, Some(&walk.site)).await?;
    let waiting = broker.open_pairings(&caller, None).await?;
    let sites = choice.choices(&waiting);
    let site = choice.chosen;
    walk.site.clone_from(&site.id);
    let progress = broker.pairing_progress(&caller, &site.id).await?;
    if walk.floor.is_none()
        && let [only] = progress.as_slice()
    {
        walk.floor = Some(only.floor.clone());
    }
    let (total, paired) = sum(&progress);
    let rooms = match &walk.floor {
        Some(floor) => {
            let query = DeviceQuery {
                state: Some(DeviceState::Registered),
                site: Some(site.id.clone()),
                floor: Some(floor.clone()),
                limit: DEVICES,
                ..DeviceQuery::default()
            };
            by_room(broker.devices(&caller, &query).await?.0, &waiting)
        }
        None => Vec::new(),
    };
    let pairings: Vec<PendingPairing> = waiting
        .iter()
        .filter(|found| found.device.facts.site == site.id)
        .map(|found| pending_pairing(found, now))
        .collect();
    let shown = WalkPage {
        chrome: chrome(edge, &signed_in.session, &t("Walk the floors"), "pair").await,
        sites,
        floors: progress.iter().map(|progress| floor(progress, &walk)).collect(),
        floor: walk.floor.clone().unwrap_or_default(),
        floor_name: walk.floor.as_deref().map(floor_name),
        may_pair: caller.rights.role_at(&site.id).is_some_and(Role::may_pair),
        window: broker.window(&WindowSubject::Site(site.id.clone())).await?.map(|closes_at| when(closes_at, now)),
        total,
        paired,
        progress: tf("{0} of {1} paired", &[&paired.to_string(), &total.to_string()]),
        rooms,
        announced: announced(&pairings),
        pairings,
        site: site.id,
        site_name: site.name,
    };
    Ok((walk, shown))
}

fn sum(progress: &[FloorProgress]) -> (u64, u64) {
    progress.iter().fold((0, 0), |(total, paired), floor| (total + floor.total, paired + floor.paired))
}

fn floor_name(floor: &str) -> String {
    if floor.is_empty() { t("Without a floor") } else { floor_words(floor) }
}

fn floor(progress: &FloorProgress, walk: &Walk) -> Floor {
    let left = progress.total - progress.paired;
    Floor {
        name: floor_name(&progress.floor),
        href: Walk { site: walk.site.clone(), floor: Some(progress.floor.clone()) }.path(),
        words: match left {
            0 => t("all paired"),
            left => tf("{0} to go of {1}", &[&left.to_string(), &progress.total.to_string()]),
        },
        total: progress.total,
        paired: progress.paired,
        is_chosen: walk.floor.as_deref() == Some(progress.floor.as_str()),
    }
}

/// As one walks: room after room.
fn by_room(mut devices: Vec<Device>, waiting: &[PairingOfDevice]) -> Vec<(String, Vec<Left>)> {
    devices.sort_by(|left, right| (&left.facts.room, &left.facts.name).cmp(&(&right.facts.room, &right.facts.name)));
    let mut rooms: Vec<(String, Vec<Left>)> = Vec::new();
    for device in devices {
        let found = waiting.iter().find(|found| found.device.row == device.row);
        let left = Left {
            id: device.id.to_string(),
            name: device.facts.name,
            pairing: found.map(|found| found.pairing.id.to_string()),
            ready: found.is_some_and(|found| found.pairing.device_nonce.is_some()),
        };
        match rooms.last_mut() {
            Some((room, lefts)) if *room == device.facts.room => lefts.push(left),
            _ => rooms.push((device.facts.room, vec![left])),
        }
    }
    rooms
}

/// What is left of a walk: "254 to go, 12 on this floor".
pub(super) async fn to_go(edge: &Edge, caller: &Caller, walk: &Walk) -> Option<String> {
    let progress = edge.broker().pairing_progress(caller, &walk.site).await.ok()?;
    let (total, paired) = sum(&progress);
    let left = total - paired;
    if left == 0 {
        return Some(t("Everything at this site is paired."));
    }
    let here = progress.iter().find(|floor| walk.floor.as_deref() == Some(floor.floor.as_str()));
    Some(match here {
        Some(floor) => {
            tf("{0} to go, {1} on this floor", &[&left.to_string(), &(floor.total - floor.paired).to_string()])
        }
        None => tn(left, "{0} to go", "{0} to go"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, header};

    #[test]
    fn a_walk_is_remembered_with_any_floor() {
        for floor in [None, Some(""), Some("2"), Some("1. OG & Dach; a=b"), Some("שלום")] {
            let walk = Walk { site: "berlin".into(), floor: floor.map(str::to_owned) };
            let line = format!("a=b; {WALK_COOKIE}={}", walk.query());
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(&line).unwrap())]);
            assert_eq!(Walk::of(&headers), Some(walk), "{line}");
        }
        for nothing in ["", "floor=2", "site=", "%%%"] {
            let line = format!("{WALK_COOKIE}={nothing}");
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(&line).unwrap())]);
            assert_eq!(Walk::of(&headers), None, "{nothing}");
        }
    }
}
