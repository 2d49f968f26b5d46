//! `GET /alerts`: what was refused and what wants to be looked at, each in words, and what to do next. The log itself is in `audit.rs`.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use crate::clock::Timestamp;
use crate::http::Edge;
use crate::http::extract::{PageQuery, SignedIn};
use crate::http::lang::{filters, t};
use crate::http::present::{chrome, page, sentence, unavailable, when, who};
use crate::http::views::{Chrome, When};
use crate::model::audit::{Event, Record, Severity};
use crate::store::{AuditQuery, StoreError};

/// Rows of a list that is alone on its page.
const ROWS: u32 = 50;
/// Rows of each of two.
const FEW: u32 = 20;

/// What is shown of it.
#[derive(Deserialize)]
pub struct Position {
    show: Option<String>,
    before: Option<i64>,
}

/// The page.
#[derive(Debug, Clone, Template)]
#[template(path = "alerts.html")]
pub struct AlertsPage {
    /// What surrounds the page.
    pub chrome: Chrome,
    /// `alert`, `refusal`, or empty for both.
    pub show: &'static str,
    /// The lists: alerts before refusals.
    pub lists: Vec<AlertList>,
}

/// A list of one severity.
#[derive(Debug, Clone)]
pub struct AlertList {
    /// `alert` or `refusal`.
    pub severity: &'static str,
    /// Newest first.
    pub rows: Vec<AlertRow>,
    /// Number to go on before, if there are older ones.
    pub older: Option<i64>,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct AlertRow {
    /// Number of the entry in the audit log.
    pub id: i64,
    /// When.
    pub at: When,
    /// What happened, as a sentence.
    pub text: String,
    /// Who did it.
    pub actor: String,
    /// Device id, if it is about one.
    pub device: Option<String>,
    /// What to do.
    pub advice: String,
}

/// `GET /alerts`.
pub async fn list(
    State(edge): State<Edge>,
    signed_in: SignedIn,
    PageQuery(Position { show, before }): PageQuery<Position>,
) -> Response {
    let (show, severities, limit): (_, &[Severity], _) = match show.as_deref() {
        Some("alert") => ("alert", &[Severity::Alert], ROWS),
        Some("refusal") => ("refusal", &[Severity::Refusal], ROWS),
        _ => ("", &[Severity::Alert, Severity::Refusal], FEW),
    };
    let mut lists = Vec::new();
    for severity in severities {
        match list_of(&edge, &signed_in, *severity, before, limit).await {
            Ok(list) => lists.push(list),
            Err(error) => return unavailable(&error),
        }
    }
    let chrome = chrome(&edge, &signed_in.session, &t("Alerts"), "alerts").await;
    page(StatusCode::OK, &AlertsPage { chrome, show, lists })
}

async fn list_of(
    edge: &Edge,
    signed_in: &SignedIn,
    severity: Severity,
    before: Option<i64>,
    limit: u32,
) -> Result<AlertList, StoreError> {
    let query = AuditQuery { before, severity: Some(severity), limit, ..AuditQuery::default() };
    let records = edge.broker().audit(&signed_in.caller(), &query).await?;
    let is_full = records.len() == usize::try_from(limit).unwrap_or(usize::MAX);
    let now = edge.broker().now();
    Ok(AlertList {
        severity: severity.as_str(),
        older: records.last().filter(|_| is_full).map(|last| last.id),
        rows: records.iter().map(|record| row(record, now)).collect(),
    })
}

fn row(record: &Record, now: Timestamp) -> AlertRow {
    AlertRow {
        id: record.id,
        at: when(record.at, now),
        text: sentence(record),
        actor: who(&record.actor),
        device: record.device.clone(),
        advice: Event::parse(&record.event).map(advice).unwrap_or_default(),
    }
}

/// What to do about it; empty for what is the ordinary course.
fn advice(event: Event) -> String {
    match event {
        Event::PairingConflict => {
            t("Go to the device. Confirm the key that it shows itself, decline the other, and find out who sent that.")
        }
        Event::PairingRefused => {
            t("If nobody of yours was pairing just now: keep pairing closed, and look where the address is.")
        }
        Event::AttestationRefused => t("Don't pair it before its maker or your supplier has explained it."),
        Event::PairingWrongDigits => {
            t("Read the digits off the device again. If they never fit, somebody is in between: decline the pairing.")
        }
        Event::CodeRefused => {
            t("Look at the reason. If the device should be let in: resume it, or change what its kind may do.")
        }
        Event::CodeUnenrolled => {
            t("If the device is yours, register and pair it. If not, it got nothing; look where the address is.")
        }
        Event::KeyMismatch => t(
            "If its key was exchanged, pair the device again. If not, somebody poses as it: go and look, and suspend it if in doubt.",
        ),
        Event::PhishingClient => {
            t("Somebody tries a known phishing kit on you. It got nothing; tell your security team the address.")
        }
        Event::ForeignKeyOnCode => {
            t("A code was stolen on its way. It was worth nothing; look at the network between the device and here.")
        }
        Event::GrantSecondApprover => t("Two people opened one code. Ask the second where the code came from."),
        Event::GrantNotListed => {
            t("Ask this person where the code came from. If it is right, put the person on the device's list.")
        }
        Event::GrantWrongNumber => {
            t("Somebody typed a number without seeing the device. Ask the person who sent the code.")
        }
        Event::GrantReported => t(
            "Talk to the person who reported it, and look at the device's history. Suspend the device if you can't explain it.",
        ),
        Event::CodeGuessed => {
            t("One is a slip. Many of one person: ask where the codes come from, somebody may be phishing.")
        }
        Event::CodeReported => t(
            "Somebody is phishing your people. Warn them, and look in the sign-in log of your identity provider for device codes.",
        ),
        Event::TokenRefused => {
            t("Mostly a device that starts again by itself. If it comes again and again, look at the device.")
        }
        Event::TokenScanned => t("A device tried tokens that are not its own. Suspend it and look at it."),
        Event::SessionsForked => {
            t("Its key may have been copied. Suspend the device, give it a new key, and pair it again.")
        }
        Event::RefreshReused => t(
            "Its token may have been copied, or the device was restored from a backup. If nobody restored it, pair it anew.",
        ),
        Event::IntrospectionRefused => {
            t("If a service of yours asks: add its key to the resource. If not, look where the address is.")
        }
        Event::LinkRefused => {
            t("An old link was used. If the person did not do it, make no new one before you have asked.")
        }
        Event::CommandRefused => t(
            "If it is a person's console: its clock, its key, or a command that came twice. If nobody of yours sent it, see who may publish at your MQTT broker.",
        ),
        Event::ConnectionRefused => t(
            "Look at the reason. Now and then: a device that was set up wrongly. Many: see who may connect at your MQTT broker, and what its rules are.",
        ),
        Event::ConnectionsFlap => t(
            "Its key may have been copied, or its firmware connects twice. If you can't tell which, suspend the device, give it a new key, and pair it again.",
        ),
        Event::SigningKeyReplaced => {
            t("If nobody of yours did it, your server is in other hands: follow the runbook for a leaked key.")
        }
        Event::AllSignInsEnded => t("If nobody of yours did it, find out who has a shell on the server."),
        Event::ClockAccepted => t("Check the clock of the server; what was recorded before may bear wrong times."),
        Event::Suppressed => {
            t("Many refusals within a minute. Look where they come from; block the address at your network.")
        }
        event if event.severity() == Severity::Info => String::new(),
        _ => t(
            "Look at the history of the device, or of the person. If you can't explain it, suspend or disable, then ask.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alert_and_refusal_says_what_to_do() {
        for event in Event::ALL {
            let is_loud = event.severity() != Severity::Info;
            assert_eq!(!advice(*event).is_empty(), is_loud, "{}", event.as_str());
        }
    }
}
