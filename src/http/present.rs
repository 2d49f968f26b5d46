//! From the model to what pages show: times, keys, sentences, and the pages for what went wrong.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use tower_http::csrf::ProtectionError;

use crate::broker::UseCaseError;
use crate::broker::people::Session;
use crate::clock::Timestamp;
use crate::http::Edge;
use crate::http::assets::ASSETS;
use crate::http::lang::{self, said, t, tf, tn};
use crate::http::views::{Chrome, DeviceRow, Fact, FactState, MessagePage, PendingPairing, TimelineEntry, When};
use crate::model::audit::{Event, Record};
use crate::model::device::{Device, KeyAssurance, PinnedKey};
use crate::model::operator::Role;
use crate::store::PairingOfDevice;

/// Renders a page.
pub fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, t("This page could not be made. Try again.") + "\n").into_response()
        }
    }
}

/// The frame of a page for a signed-in operator.
pub async fn chrome(edge: &Edge, session: &Session, title: &str, active: &'static str) -> Chrome {
    // Whoever has one site sees its name; with several, each thing says where it is.
    let site = match edge.broker().sites(&session.caller(None)).await.as_deref() {
        Ok([only]) => only.name.clone(),
        _ => String::new(),
    };
    Chrome {
        operator: Some(session.operator.name.clone()),
        administers: session.operator.rights.highest().is_some_and(Role::may_administer),
        csrf: edge.broker().csrf_token(session),
        site,
        active,
        live: true,
        ..bare_chrome(title)
    }
}

/// Notes for the pages that say no who is signed in.
pub fn read_by(edge: &Edge, session: &Session) {
    lang::read_by(lang::Reader {
        name: session.operator.name.clone(),
        administers: session.operator.rights.highest().is_some_and(Role::may_administer),
        csrf: edge.broker().csrf_token(session),
    });
}

/// The frame of a page for nobody in particular.
pub fn bare_chrome(title: &str) -> Chrome {
    Chrome {
        title: title.to_owned(),
        css: ASSETS.css.href.clone(),
        js: ASSETS.js.href.clone(),
        icon: ASSETS.icon.href.clone(),
        language: lang::language().code,
        here: lang::here(),
        ..Chrome::default()
    }
}

/// An instant, as people say it.
pub fn when(at: Timestamp, now: Timestamp) -> When {
    let (past, future) = (now.since(at).as_secs(), at.since(now).as_secs());
    let relative = match (past, future) {
        (0..=4, 0) => t("just now"),
        (past, 0) => match largest(past) {
            (count, Unit::Second) => tn(count, "{0} second ago", "{0} seconds ago"),
            (count, Unit::Minute) => tn(count, "{0} minute ago", "{0} minutes ago"),
            (count, Unit::Hour) => tn(count, "{0} hour ago", "{0} hours ago"),
            (count, Unit::Day) => tn(count, "{0} day ago", "{0} days ago"),
        },
        (_, future) => match largest(future) {
            (count, Unit::Second) => tn(count, "in {0} second", "in {0} seconds"),
            (count, Unit::Minute) => tn(count, "in {0} minute", "in {0} minutes"),
            (count, Unit::Hour) => tn(count, "in {0} hour", "in {0} hours"),
            (count, Unit::Day) => tn(count, "in {0} day", "in {0} days"),
        },
    };
    let exact = at.rfc3339();
    When { relative, exact: exact.replace('T', " ").replace('Z', " UTC"), iso: exact }
}

/// A floor as people say it: `Floor 2`, but `Attic`.
pub fn floor_words(floor: &str) -> String {
    if is_bare(floor) { tf("Floor {0}", &[floor]) } else { floor.to_owned() }
}

/// A room as people say it: `Room 2.14`, but `Kitchen`.
pub fn room_words(room: &str) -> String {
    if is_bare(room) { tf("Room {0}", &[room]) } else { room.to_owned() }
}

/// Is it a number or a short sign, that says nothing without the word for what it counts?
fn is_bare(place: &str) -> bool {
    let is_sign = place.chars().count() <= 2 || place.contains(|letter: char| letter.is_numeric());
    !place.is_empty() && is_sign && !place.contains(char::is_whitespace)
}

/// A span of time in its largest unit.
pub fn span(seconds: u64) -> String {
    match largest(seconds) {
        (count, Unit::Second) => tn(count, "{0} second", "{0} seconds"),
        (count, Unit::Minute) => tn(count, "{0} minute", "{0} minutes"),
        (count, Unit::Hour) => tn(count, "{0} hour", "{0} hours"),
        (count, Unit::Day) => tn(count, "{0} day", "{0} days"),
    }
}

/// Of time.
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
}

/// A span in the largest unit that it fills more than once.
fn largest(seconds: u64) -> (u64, Unit) {
    match seconds {
        0..=89 => (seconds, Unit::Second),
        90..=5399 => ((seconds + 30) / 60, Unit::Minute),
        5400..=172_799 => ((seconds + 1800) / 3600, Unit::Hour),
        _ => ((seconds + 43_200) / 86_400, Unit::Day),
    }
}

/// `operator:dana` becomes `dana`.
pub fn who(actor: &str) -> String {
    match actor.split_once(':') {
        Some(("operator" | "device" | "machine", name)) => name.to_owned(),
        Some(("technician", name)) => tf("a technician for {0}", &[name]),
        _ => match actor {
            "command-line" => t("the command line"),
            "anonymous" => t("somebody"),
            "broker" => "Pairgate".to_owned(),
            other => other.to_owned(),
        },
    }
}

/// A record in words.
pub fn sentence(record: &Record) -> String {
    let words = Event::ALL
        .iter()
        .find(|event| event.as_str() == record.event)
        .map_or(record.event.clone(), |event| said(event.words()));
    let place = record.peer.as_deref().map(|peer| tf(" from {0}", &[peer])).unwrap_or_default();
    if record.detail.is_empty() {
        format!("{words}{place}")
    } else {
        format!("{words}{place}: {}", said(&record.detail))
    }
}

/// A record as an entry of a timeline.
pub fn timeline_entry(record: &Record, now: Timestamp) -> TimelineEntry {
    TimelineEntry {
        at: when(record.at, now),
        text: sentence(record),
        actor: who(&record.actor),
        alert: record.severity == "alert",
    }
}

/// How a key is kept: proved, claimed, or neither.
pub fn assurance_fact(assurance: KeyAssurance) -> Fact {
    let state = match assurance {
        KeyAssurance::Software => FactState::Neutral,
        KeyAssurance::HardwareClaimed => FactState::Claimed,
        KeyAssurance::Attested => FactState::Verified,
    };
    Fact { state, text: with_capital(&said(assurance.words())), detail: None }
}

/// A row of a device table.
pub fn device_row(device: &Device, label: &str, now: Timestamp) -> DeviceRow {
    DeviceRow {
        id: device.id.to_string(),
        name: device.facts.name.clone(),
        kind: t(label),
        room: device.facts.room.clone(),
        state: device.state.as_str().to_owned(),
        key: device.key.as_ref().map(|key| PinnedKey::short(&key.jkt)),
        seen: device.seen_at.map(|seen_at| when(seen_at, now)),
    }
}

/// A pairing that waits.
pub fn pending_pairing(found: &PairingOfDevice, now: Timestamp) -> PendingPairing {
    PendingPairing {
        id: found.pairing.id.to_string(),
        device_id: found.device.id.to_string(),
        device_name: found.device.facts.name.clone(),
        room: found.device.facts.room.clone(),
        key: PinnedKey::short(&found.pairing.jkt),
        assurance: said(found.pairing.key_assurance.words()),
        verified: found.pairing.vouched_by.is_some(),
        announced: found.is_announced(),
        asked: when(found.pairing.requested_at, now),
        ready: found.pairing.device_nonce.is_some(),
        conflict: found.pairing.conflict,
    }
}

/// What a use case said no to, one line each.
#[allow(clippy::result_large_err)] // a response is what both ways end in
pub fn problems(error: UseCaseError) -> Result<Vec<String>, Response> {
    match error {
        UseCaseError::Refused(lines) => Ok(lines.into_iter().map(|line| capital(&said(&line))).collect()),
        error @ (UseCaseError::NotAllowed | UseCaseError::OnlyPeople) => Ok(vec![capital(&said(&error.to_string()))]),
        UseCaseError::NotFresh => {
            let back: String = url::form_urlencoded::byte_serialize(lang::here().as_bytes()).collect();
            Err(Redirect::to(&format!("/sign-in/again?back={back}")).into_response())
        }
        UseCaseError::NotFound(what) => {
            let lines = vec![capital(&said(&what))];
            Err(message(StatusCode::NOT_FOUND, &t("Not here"), lines, Some(("/", &t("Overview")))))
        }
        UseCaseError::Store(error) => Err(unavailable(&error)),
        UseCaseError::Secret(error) => Err(unavailable(&error)),
        UseCaseError::Signing(error) => Err(unavailable(&error)),
    }
}

/// A line as a sentence: a capital at its beginning, a full stop at its end.
pub fn capital(line: &str) -> String {
    let end = if line.ends_with(['.', '!', '?']) { "" } else { "." };
    with_capital(line) + end
}

fn with_capital(line: &str) -> String {
    let mut letters = line.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    first + letters.as_str()
}

/// A page that says what happened, what it means and what to do.
pub fn message(status: StatusCode, heading: &str, lines: Vec<String>, action: Option<(&str, &str)>) -> Response {
    let action = action.map(|(href, label)| (href.to_owned(), label.to_owned()));
    // Nothing of the address comes back: two of them that nobody may tell apart must look the same.
    let chrome = Chrome { here: "/".into(), ..bare_chrome(heading) };
    let chrome = match lang::reader() {
        Some(reader) => {
            Chrome { operator: Some(reader.name), administers: reader.administers, csrf: reader.csrf, ..chrome }
        }
        None => chrome,
    };
    page(status, &MessagePage { chrome, heading: heading.to_owned(), lines, action })
}

/// The database did not answer.
pub fn unavailable(error: &dyn std::error::Error) -> Response {
    tracing::error!(%error, "a page could not be served");
    let lines = vec![t("The database did not answer."), t("Nothing was changed. Wait a moment, then try again.")];
    let mut response = message(StatusCode::SERVICE_UNAVAILABLE, &t("Not available just now"), lines, None);
    response.headers_mut().insert(axum::http::header::RETRY_AFTER, axum::http::HeaderValue::from_static("5"));
    response
}

/// A form that no page of this session sent.
pub fn refused_form() -> Response {
    let lines = vec![
        t("This form did not come from a page of yours, or the page was old."),
        t("Nothing was changed. Open the page again."),
    ];
    message(StatusCode::FORBIDDEN, &t("Not accepted"), lines, Some(("/", &t("Overview"))))
}

/// The button that confirms all whose key was announced; empty if there are none.
pub fn announced(pairings: &[PendingPairing]) -> String {
    let count = pairings.iter().filter(|pairing| pairing.announced && pairing.ready).count();
    match u64::try_from(count) {
        Ok(count) if count > 0 => tn(count, "Pair {0} device", "Pair all {0} devices"),
        _ => String::new(),
    }
}

/// A request that another site's page made.
pub fn cross_site(_: ProtectionError) -> axum::http::Response<axum::body::Body> {
    refused_form()
}

/// No such page.
pub fn no_such_page() -> Response {
    let lines = vec![t("There is no page at this address.")];
    message(StatusCode::NOT_FOUND, &t("Not here"), lines, Some(("/", &t("Overview"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_said_as_people_say_them() {
        let now = Timestamp::from_millis(1_795_498_812_345);
        for (back, said) in [
            (0, "just now"),
            (20, "20 seconds ago"),
            (90, "2 minutes ago"),
            (3600, "60 minutes ago"),
            (7200, "2 hours ago"),
            (86_400 * 3, "3 days ago"),
        ] {
            assert_eq!(when(now.minus(Duration::from_secs(back)), now).relative, said);
        }
        assert_eq!(when(now.plus(Duration::from_secs(240)), now).relative, "in 4 minutes");
        assert_eq!(when(now, now).exact, "2026-11-24 05:40:12 UTC");
    }
}
