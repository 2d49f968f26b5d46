//! `/settings/policy`: what changed when and by whom, what waits for a second person, and whether one is wanted.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use crate::broker::UseCaseError;
use crate::http::Edge;
use crate::http::extract::{PageForm, PagePath, PageQuery, SignedIn};
use crate::http::lang::{filters, t, tf};
use crate::http::present::{chrome, page, when, who};
use crate::http::settings::{DiffRow, Step, lines_or_page, refusal, take};
use crate::http::views::{Chrome, When};
use crate::store::{PolicyState, PolicyVersion};

/// A version in the history.
struct VersionRow {
    version: i64,
    state: String,
    written: When,
    by: String,
    decided_by: Option<String>,
    changes: Vec<DiffRow>,
    waits: bool,
}

#[derive(Template)]
#[template(path = "settings_policy.html")]
struct PolicyPage {
    chrome: Chrome,
    two_persons: bool,
    waiting: Vec<VersionRow>,
    rows: Vec<VersionRow>,
    fresh: bool,
    base: i64,
}

#[derive(Template)]
#[template(path = "settings_version.html")]
struct VersionPage {
    chrome: Chrome,
    row: VersionRow,
    /// What would change if it held; nothing if it does, or why it can't.
    effect: Vec<DiffRow>,
    problem: Option<String>,
    holds: bool,
    own: bool,
    document: String,
    base: i64,
    fresh: bool,
}

/// What was just done.
#[derive(Deserialize)]
pub struct Done {
    applied: Option<i64>,
    proposed: Option<i64>,
}

/// Does this version wait for a second person?
pub(super) fn waits(version: &PolicyVersion) -> bool {
    version.state == PolicyState::Proposed
}

fn state_words(version: &PolicyVersion, holds: i64) -> String {
    match version.state {
        PolicyState::Applied if version.version == holds => t("holds"),
        PolicyState::Applied => t("replaced"),
        PolicyState::Proposed => t("waits"),
        PolicyState::Withdrawn => t("withdrawn"),
    }
}

/// `GET /settings/policy`.
pub async fn show(State(edge): State<Edge>, signed_in: SignedIn, PageQuery(done): PageQuery<Done>) -> Response {
    match policy_page(&edge, &signed_in, &done).await {
        Ok(policy) => page(StatusCode::OK, &policy),
        Err(error) => refusal(error),
    }
}

fn row(
    version: &PolicyVersion,
    changes: &[crate::config::difference::Change],
    holds: i64,
    now: crate::clock::Timestamp,
) -> VersionRow {
    VersionRow {
        version: version.version,
        state: state_words(version, holds),
        written: when(version.proposed_at, now),
        by: who(&version.proposed_by),
        decided_by: version.decided_by.as_deref().filter(|by| *by != version.proposed_by).map(who),
        changes: DiffRow::all(changes),
        waits: waits(version),
    }
}

async fn policy_page(edge: &Edge, signed_in: &SignedIn, done: &Done) -> Result<PolicyPage, UseCaseError> {
    let (broker, caller, now) = (edge.broker(), signed_in.caller(), edge.broker().now());
    let history = broker.policy_history(&caller).await?;
    let set = broker.policy();
    let rows = history.iter().map(|(version, changes)| row(version, changes, set.version(), now));
    let (waiting, rows) = rows.partition(|row| row.waits);
    let mut chrome = chrome(edge, &signed_in.session, &t("Policy"), "settings").await;
    chrome.notice = match (done.applied, done.proposed) {
        (Some(version), _) => Some(tf("Done: version {0} holds.", &[&version.to_string()])),
        (_, Some(version)) => {
            Some(tf("Version {0} waits. Another administrator must confirm it.", &[&version.to_string()]))
        }
        _ => None,
    };
    Ok(PolicyPage {
        chrome,
        two_persons: set.two_persons(),
        waiting,
        rows,
        fresh: broker.is_fresh(&caller),
        base: set.version(),
    })
}

/// `POST /settings/policy`: is a second person wanted?
pub async fn two_persons(State(edge): State<Edge>, form: PageForm) -> Response {
    let wanted = form.field("two_persons") == "yes";
    let step = Step::of(&form, "/settings/policy", "/settings/policy");
    let outcome = match edge.broker().propose_two_persons(&form.signed_in.caller(), wanted).await {
        Ok(change) => take(&edge, &form.signed_in, &change, step).await,
        Err(error) => lines_or_page(error),
    };
    outcome.unwrap_or_else(|lines| refusal(UseCaseError::Refused(lines)))
}

/// `GET /settings/policy/{version}`.
pub async fn version(State(edge): State<Edge>, signed_in: SignedIn, PagePath(version): PagePath<i64>) -> Response {
    match version_page(&edge, &signed_in, version).await {
        Ok(version) => page(StatusCode::OK, &version),
        Err(error) => refusal(error),
    }
}

async fn version_page(edge: &Edge, signed_in: &SignedIn, number: i64) -> Result<VersionPage, UseCaseError> {
    let (broker, caller, now) = (edge.broker(), signed_in.caller(), edge.broker().now());
    let stored = broker.policy_version(&caller, number).await?;
    let history = broker.policy_history(&caller).await?;
    let changes = history.into_iter().find(|(version, _)| version.version == number).map(|(_, changes)| changes);
    let holds = broker.policy().version();
    let (effect, problem) = match broker.propose_version(&caller, number).await {
        Ok(change) => (DiffRow::all(&change.changes), None),
        Err(UseCaseError::Refused(lines)) => (Vec::new(), Some(lines.join(" "))),
        Err(error) => return Err(error),
    };
    Ok(VersionPage {
        chrome: chrome(edge, &signed_in.session, &tf("Version {0}", &[&number.to_string()]), "settings").await,
        row: row(&stored, &changes.unwrap_or_default(), holds, now),
        effect,
        problem,
        holds: number == holds,
        own: stored.proposed_by == caller.actor.to_string(),
        document: stored.document,
        base: holds,
        fresh: broker.is_fresh(&caller),
    })
}

/// `POST /settings/policy/{version}`: confirm, withdraw, or propose it again.
pub async fn decide(State(edge): State<Edge>, PagePath(version): PagePath<i64>, form: PageForm) -> Response {
    let (broker, caller) = (edge.broker(), form.signed_in.caller());
    let outcome = match form.field("action").as_str() {
        "confirm" => broker.confirm_policy(&caller, version).await.map(|()| format!("?applied={version}")),
        "withdraw" => broker.withdraw_policy(&caller, version).await.map(|()| String::new()),
        _ => {
            let address = format!("/settings/policy/{version}");
            let step = Step::of(&form, &address, &address);
            let outcome = match broker.propose_version(&caller, version).await {
                Ok(change) => take(&edge, &form.signed_in, &change, step).await,
                Err(error) => lines_or_page(error),
            };
            return outcome.unwrap_or_else(|lines| refusal(UseCaseError::Refused(lines)));
        }
    };
    match outcome {
        Ok(query) => Redirect::to(&format!("/settings/policy{query}")).into_response(),
        Err(error) => refusal(error),
    }
}
