//! Approving: enter a code, see what is verified, decide. The page that the product stands on.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use crate::broker::approval::{Decided, Opened, Review};
use crate::http::Edge;
use crate::http::extract::{CODE_COOKIE, PageForm, PagePath, PageQuery, SignedIn, cookie, set_cookie};
use crate::http::present::{assurance_fact, chrome, message, page, problems, refused_form, span, when, who};
use crate::http::views::{ApproveDonePage, ApproveEntryPage, ApprovePage, Chrome, Fact, FactState, NotOursPage};
use crate::id::GrantId;
use crate::model::device::PinnedKey;
use crate::model::grant::MAX_WRONG_NUMBERS;
use crate::model::resource::Resource;
use crate::model::user_code::normal_form;
use crate::store::Decision;

/// What the scanned code carries.
#[derive(Deserialize)]
pub struct Scanned {
    user_code: Option<String>,
}

/// `GET /approve`: changes nothing, whoever opens it.
pub async fn enter(
    State(edge): State<Edge>,
    signed_in: SignedIn,
    PageQuery(Scanned { user_code }): PageQuery<Scanned>,
) -> Response {
    // Only what could be a code is shown again; it is escaped besides.
    let user_code = user_code.filter(|code| code.len() <= 40 && normal_form(code).is_some()).unwrap_or_default();
    let entry =
        ApproveEntryPage { chrome: quiet(&edge, &signed_in, "Approve a sign-in").await, user_code, errors: Vec::new() };
    page(StatusCode::OK, &entry)
}

async fn quiet(edge: &Edge, signed_in: &SignedIn, title: &str) -> Chrome {
    Chrome { live: false, ..chrome(edge, &signed_in.session, title, "approve").await }
}

/// `POST /approve`: claims the sign-in.
pub async fn open(State(edge): State<Edge>, form: PageForm) -> Response {
    let user_code = form.field("user_code");
    match edge.broker().open_code(&form.signed_in.caller(), &user_code).await {
        Ok(Opened::Claimed(id)) => {
            let mut response = Redirect::to(&format!("/approve/{id}")).into_response();
            let code = normal_form(&user_code).unwrap_or_default();
            set_cookie(
                &mut response,
                &format!("{CODE_COOKIE}={code}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600"),
            );
            response
        }
        Ok(Opened::NotOurs) => page(
            StatusCode::NOT_FOUND,
            &NotOursPage { chrome: quiet(&edge, &form.signed_in, "Not one of our codes").await },
        ),
        Ok(Opened::TooManyGuesses) => {
            let lines = vec![
                "Too many wrong codes were typed.".into(),
                "Wait ten minutes, then read the code off the device again.".into(),
            ];
            message(StatusCode::TOO_MANY_REQUESTS, "Wait a little", lines, None)
        }
        Err(error) => not_done(error),
    }
}

fn not_done(error: crate::broker::UseCaseError) -> Response {
    problems(error).map_or_else(
        |response| response,
        |lines| message(StatusCode::FORBIDDEN, "Not allowed", lines, Some(("/", "Overview"))),
    )
}

/// `GET /approve/{id}`: for the person who opened it.
pub async fn show(
    State(edge): State<Edge>,
    signed_in: SignedIn,
    PagePath(id): PagePath<i64>,
    headers: HeaderMap,
) -> Response {
    render(&edge, &signed_in, GrantId(id), cookie(&headers, CODE_COOKIE).unwrap_or_default(), Vec::new()).await
}

async fn render(edge: &Edge, signed_in: &SignedIn, id: GrantId, user_code: &str, errors: Vec<String>) -> Response {
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    let caller = signed_in.caller();
    let review = match edge.broker().review(&caller, id).await {
        Ok(review) => review,
        Err(error) => return not_done(error),
    };
    let now = edge.broker().now();
    let lasts = review
        .kind
        .refresh_for(&review.grant.scope)
        .map_or(review.kind.access_token_lifetime, |policy| policy.absolute);
    let facts = &review.device.facts;
    let approve = ApprovePage {
        chrome: quiet(edge, signed_in, "Let this device sign in?").await,
        grant_id: id.to_string(),
        shown: review.shown.clone(),
        kind_label: review.kind.label.clone(),
        device_name: facts.name.clone(),
        device_id: review.device.id.to_string(),
        asset_tag: facts.asset_tag.clone(),
        model: format!("{} {}", facts.maker, facts.model).trim().to_owned(),
        // Shown only if it is this sign-in's, in the form that the device shows it.
        user_code: edge.broker().code_of(&review, user_code).unwrap_or_default(),
        facts: verified(&review, now),
        abilities: review.kind.words(&review.grant.scope, &review.resource),
        lasts: where_and_how_long(&review.resource, lasts),
        needs_number: review.kind.confirmation_number,
        tries_left: u64::from(MAX_WRONG_NUMBERS.saturating_sub(review.grant.wrong_numbers)),
        expires: when(review.grant.expires_at, now),
        errors,
    };
    page(status, &approve)
}

/// At which service, if configuration has a word for it, and for how long.
fn where_and_how_long(resource: &Resource, lasts: std::time::Duration) -> String {
    let span = span(lasts.as_secs());
    if resource.label == resource.id { format!("for {span}") } else { format!("at {}, for {span}", resource.label) }
}

/// The facts, each with how it is known. What could not be verified is said, too.
fn verified(review: &Review, now: crate::clock::Timestamp) -> Vec<Fact> {
    let fact = |state: FactState, text: String, detail: Option<String>| Fact { state, text, detail };
    let mut facts = Vec::new();
    if let Some(key) = &review.device.key {
        let (paired, by) = (when(key.paired_at, now), who(&key.paired_by));
        facts.push(fact(
            FactState::Verified,
            format!("Its own key, paired {} by {by}", paired.relative),
            Some(PinnedKey::short(&key.jkt)),
        ));
    }
    facts.extend(review.device.key.as_ref().map(|key| assurance_fact(key.assurance)));
    let peer = review.grant.peer.map(|peer| peer.to_string());
    facts.push(match review.on_site {
        Some(true) => fact(FactState::Verified, format!("On the network of {}", review.site), peer),
        Some(false) => fact(FactState::Failed, format!("Not on the network of {}", review.site), peer),
        None => fact(
            FactState::Neutral,
            format!("Seen from this address; nobody has said which networks {} has", review.site),
            peer,
        ),
    });
    if !review.device.facts.room.is_empty() {
        facts.push(fact(FactState::Neutral, format!("Registered for room {}", review.device.facts.room), None));
    }
    facts.push(fact(FactState::Time, format!("Asked {}", when(review.grant.created_at, now).relative), None));
    facts
}

/// `POST /approve/{id}`. Only the word `approve` approves.
pub async fn decide(State(edge): State<Edge>, PagePath(id): PagePath<i64>, form: PageForm) -> Response {
    let id = GrantId(id);
    let decision = match form.field("action").as_str() {
        "approve" => Decision::Approve,
        "deny" => Decision::Deny,
        "report" => Decision::Report,
        _ => return refused_form(),
    };
    let (caller, user_code) = (form.signed_in.caller(), form.field("user_code"));
    let review = edge.broker().review(&caller, id).await.ok();
    let needs_number = review.as_ref().is_none_or(|review| review.kind.confirmation_number);
    let device = review.map(|review| review.device);
    let outcome = edge.broker().decide(&caller, id, decision, &form.field("shown"), &form.field("number")).await;
    let retry = |line: &str| vec![line.to_owned()];
    match outcome {
        Ok(Decided::Done) => done(&edge, &form.signed_in, device, decision).await,
        Ok(Decided::WrongNumber(0)) if needs_number => over("That was the third wrong number. The sign-in was denied."),
        Ok(Decided::WrongNumber(0)) => over("The device was not on its site's network. The sign-in was denied."),
        Ok(Decided::WrongNumber(left)) => {
            let line = if needs_number {
                format!("That is not the number that the device shows. Tries left: {left}.")
            } else {
                "This device is not known to be on its site's network, and it shows no number; so it can't be approved. Deny it.".into()
            };
            render(&edge, &form.signed_in, id, &user_code, retry(&line)).await
        }
        Ok(Decided::Outdated) => {
            render(
                &edge,
                &form.signed_in,
                id,
                &user_code,
                retry("Something has changed since you opened this page. Look again."),
            )
            .await
        }
        Ok(Decided::Over) => over("This sign-in is over, or was opened by somebody else."),
        Err(error) => not_done(error),
    }
}

fn over(line: &str) -> Response {
    let lines =
        vec![line.to_owned(), "Nobody was signed in by this. If the device still wants to, start again on it.".into()];
    message(StatusCode::CONFLICT, "Not approved", lines, Some(("/", "Overview")))
}

async fn done(
    edge: &Edge,
    signed_in: &SignedIn,
    device: Option<crate::model::device::Device>,
    decision: Decision,
) -> Response {
    let (outcome, title, lines) = match decision {
        Decision::Approve => (
            "approved",
            "Approved",
            vec![
                "The device signs in within a few seconds.",
                "If it was not you who stands in front of it: suspend it now.",
            ],
        ),
        Decision::Deny => (
            "denied",
            "Denied",
            vec![
                "The device was told no and shows it.",
                "Nothing is lost: to sign in after all, start again on the device.",
            ],
        ),
        Decision::Report => (
            "reported",
            "Reported",
            vec![
                "The sign-in was denied, and your report is in the audit log for the security team.",
                "Whoever sent you here may try again. Don't type codes from messages or calls.",
            ],
        ),
    };
    let done = ApproveDonePage {
        chrome: quiet(edge, signed_in, title).await,
        outcome: outcome.into(),
        device_name: device.as_ref().map_or_else(String::new, |device| device.facts.name.clone()),
        device_id: device.as_ref().map_or_else(String::new, |device| device.id.to_string()),
        message: lines.into_iter().map(str::to_owned).collect(),
        by: signed_in.session.operator.name.clone(),
    };
    page(StatusCode::OK, &done)
}

/// `POST /report`: a code that is not ours was sent to somebody.
pub async fn report(State(edge): State<Edge>, form: PageForm) -> Response {
    match edge.broker().report_foreign_code(&form.signed_in.caller()).await {
        Ok(()) => {
            let lines = vec![
                "Thank you. Your report is in the audit log for the security team.".into(),
                "If you have typed that code anywhere, tell them at once: they can sign the attacker out.".into(),
            ];
            message(StatusCode::OK, "Reported", lines, Some(("/", "Overview")))
        }
        Err(error) => not_done(error),
    }
}
