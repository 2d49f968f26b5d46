//! Approving: enter a code, see what is verified, decide. The page that the product stands on.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use crate::broker::approval::{Decided, Opened, Review};
use crate::http::Edge;
use crate::http::cookies::{cookie, set_cookie};
use crate::http::extract::{CODE_COOKIE, PageForm, PagePath, PageQuery, SignedIn};
use crate::http::lang::{t, tf};
use crate::http::present::{assurance_fact, chrome, message, page, problems, refused_form, span, when, who};
use crate::http::views::{ApproveDonePage, ApproveEntryPage, ApprovePage, Chrome, Fact, FactState, NotOursPage};
use crate::id::GrantId;
use crate::model::device::{Device, PinnedKey};
use crate::model::grant::{GrantState, MAX_WRONG_NUMBERS, WhySecond};
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
    let entry = ApproveEntryPage {
        chrome: quiet(&edge, &signed_in, &t("Approve a sign-in")).await,
        user_code,
        errors: Vec::new(),
    };
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
            &NotOursPage { chrome: quiet(&edge, &form.signed_in, &t("Not one of our codes")).await },
        ),
        Ok(Opened::TooManyGuesses) => {
            let lines = vec![
                t("Too many wrong codes were typed."),
                t("Wait ten minutes, then read the code off the device again."),
            ];
            message(StatusCode::TOO_MANY_REQUESTS, &t("Wait a little"), lines, None)
        }
        Ok(Opened::WaitsForSecond) => {
            let lines = vec![
                t("You approved this sign-in already, and one person is not enough for it."),
                t("Ask somebody else who may approve to type the code that the device shows."),
            ];
            message(StatusCode::CONFLICT, &t("A second person must approve"), lines, Some(("/", &t("Overview"))))
        }
        Ok(Opened::TooManyOpen) => {
            let lines = vec![
                t("You have five sign-ins open already."),
                t("Decide or deny one first; then type this code again. If you did not expect so many, report them."),
            ];
            let next = t("Show what is open");
            message(StatusCode::TOO_MANY_REQUESTS, &t("Decide one first"), lines, Some(("/", &next)))
        }
        Err(error) => not_done(error),
    }
}

fn not_done(error: crate::broker::UseCaseError) -> Response {
    problems(error).map_or_else(
        |response| response,
        |lines| message(StatusCode::FORBIDDEN, &t("Not allowed"), lines, Some(("/", &t("Overview")))),
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
        chrome: quiet(edge, signed_in, &t("Let this device sign in?")).await,
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
        abilities: review.kind.words(&review.grant.scope, &review.resource).iter().map(|words| t(words)).collect(),
        lasts: where_and_how_long(&review.resource, lasts),
        second: review.why_second.map(|why| match why {
            WhySecond::PairedIt => t("A second person must approve, too: who registered or paired it may not alone."),
            WhySecond::NewToIt => {
                t("A second person must approve, too: you have not approved this device before, and others have.")
            }
        }),
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
    if resource.label == resource.id {
        tf("for {0}", &[&span])
    } else {
        tf("at {0}, for {1}", &[&resource.label, &span])
    }
}

/// The facts, each with how it is known. What could not be verified is said, too.
fn verified(review: &Review, now: crate::clock::Timestamp) -> Vec<Fact> {
    let fact = |state: FactState, text: String, detail: Option<String>| Fact { state, text, detail };
    let mut facts = Vec::new();
    if let Some(key) = &review.device.key {
        let (paired, by) = (when(key.paired_at, now), who(&key.paired_by));
        facts.push(fact(
            FactState::Verified,
            tf("Its own key, paired {0} by {1}", &[&paired.relative, &by]),
            Some(PinnedKey::short(&key.jkt)),
        ));
    }
    facts.extend(review.device.key.as_ref().map(|key| assurance_fact(key.assurance)));
    let peer = review.grant.peer.map(|peer| peer.to_string());
    facts.push(match review.on_site {
        Some(true) => fact(FactState::Verified, tf("On the network of {0}", &[&review.site]), peer),
        Some(false) => fact(FactState::Failed, tf("Not on the network of {0}", &[&review.site]), peer),
        None => fact(
            FactState::Neutral,
            tf("Seen from this address; nobody has said which networks {0} has", &[&review.site]),
            peer,
        ),
    });
    if !review.device.facts.room.is_empty() {
        facts.push(fact(FactState::Neutral, tf("Registered for room {0}", &[&review.device.facts.room]), None));
    }
    if let (Some(first), Some(name)) = (&review.grant.first, &review.first_by) {
        let at = when(first.at, now).relative;
        facts.push(fact(FactState::Verified, tf("First approved by {0}, {1}; you are the second", &[name, &at]), None));
    }
    facts.push(fact(FactState::Time, tf("Asked {0}", &[&when(review.grant.created_at, now).relative]), None));
    facts
}

/// `POST /approve/{id}`. Only the word `approve` approves.
pub async fn decide(State(edge): State<Edge>, PagePath(id): PagePath<i64>, form: PageForm) -> Response {
    let id = GrantId(id);
    let decision = match form.field("action").as_str() {
        "approve" => Decision::Approve,
        "deny" => Decision::Deny,
        "report" => Decision::Report,
        "block" => Decision::Block,
        _ => return refused_form(),
    };
    let (caller, user_code) = (form.signed_in.caller(), form.field("user_code"));
    let review = edge.broker().review(&caller, id).await.ok();
    let needs_number = review.as_ref().is_none_or(|review| review.kind.confirmation_number);
    let device = review.map(|review| review.device);
    let outcome = edge.broker().decide(&caller, id, decision, &form.field("shown"), &form.field("number")).await;
    let again = match outcome {
        Ok(Decided::Done) => return done(&edge, &form.signed_in, device, (id, Done::of(decision))).await,
        Ok(Decided::First(_)) => return done(&edge, &form.signed_in, device, (id, Done::First)).await,
        Ok(Decided::FirstLost) => {
            return over(&t("Who approved it first may not approve any more. The sign-in was denied."));
        }
        Ok(Decided::WrongNumber(0)) if needs_number => {
            return over(&t("That was the third wrong number. The sign-in was denied."));
        }
        Ok(Decided::WrongNumber(0)) => {
            return over(&t("The device was not on its site's network. The sign-in was denied."));
        }
        Ok(Decided::Over) => return over(&t("This sign-in is over, or was opened by somebody else.")),
        Err(error) => return not_done(error),
        Ok(Decided::WrongNumber(left)) if needs_number => {
            tf("That is not the number that the device shows. Tries left: {0}.", &[&left.to_string()])
        }
        Ok(Decided::WrongNumber(_)) => t(
            "This device is not known to be on its site's network, and it shows no number; so it can't be approved. Deny it.",
        ),
        Ok(Decided::Outdated) => t("Something has changed since you opened this page. Look again."),
    };
    render(&edge, &form.signed_in, id, &user_code, vec![again]).await
}

fn over(line: &str) -> Response {
    let lines =
        vec![line.to_owned(), t("Nobody was signed in by this. If the device still wants to, start again on it.")];
    message(StatusCode::CONFLICT, &t("Not approved"), lines, Some(("/", &t("Overview"))))
}

/// What the page after a decision is about.
#[derive(Clone, Copy)]
enum Done {
    Approved,
    First,
    Denied,
    Reported,
    Blocked,
}

impl Done {
    const fn of(decision: Decision) -> Self {
        match decision {
            Decision::Approve => Self::Approved,
            Decision::Deny => Self::Denied,
            Decision::Report => Self::Reported,
            Decision::Block => Self::Blocked,
        }
    }

    /// Its word, its title, and what happened, what the device shows now, who was told.
    fn said(self) -> (&'static str, String, Vec<String>) {
        match self {
            Self::Approved => (
                "approved",
                t("Approved"),
                vec![
                    t("The device signs in within a few seconds, and shows your name."),
                    t("If it was not you who stands in front of it: end the sign-in now, or suspend the device."),
                ],
            ),
            Self::First => (
                "first",
                t("A second person must approve"),
                vec![
                    t("Your approval is noted. The device can't sign in by it alone."),
                    t(
                        "Somebody else who may approve types the code that the device shows, and then its number. The code on the device stays good until it runs out.",
                    ),
                ],
            ),
            Self::Denied => (
                "denied",
                t("Denied"),
                vec![
                    t("The device was told no and shows it."),
                    t("Nothing is lost: to sign in after all, start again on the device."),
                ],
            ),
            Self::Reported => (
                "reported",
                t("Reported"),
                vec![
                    t(
                        "The sign-in was denied. Everybody who looks after this site sees your report under Alerts, and it stays in the audit log.",
                    ),
                    t("Whoever sent you here may try again. Don't type codes from messages or calls."),
                ],
            ),
            Self::Blocked => (
                "blocked",
                t("Reported and blocked"),
                vec![
                    t(
                        "The sign-in was denied and the device is suspended: all that it held is dead, and it can't ask again.",
                    ),
                    t(
                        "Everybody who looks after this site sees your report under Alerts. An administrator can resume the device.",
                    ),
                ],
            ),
        }
    }
}

async fn done(edge: &Edge, signed_in: &SignedIn, device: Option<Device>, (id, done): (GrantId, Done)) -> Response {
    let (outcome, title, lines) = done.said();
    let done = ApproveDonePage {
        chrome: quiet(edge, signed_in, &title).await,
        outcome,
        grant_id: id.to_string(),
        may_undo: matches!(done, Done::Approved | Done::First),
        device_name: device.as_ref().map_or_else(String::new, |device| device.facts.name.clone()),
        device_id: device.as_ref().map_or_else(String::new, |device| device.id.to_string()),
        message: lines,
        by: signed_in.session.operator.name.clone(),
    };
    page(StatusCode::OK, &done)
}

/// `GET /approve/{id}/undo`: what this person approved within the last day.
pub async fn approved(State(edge): State<Edge>, signed_in: SignedIn, PagePath(id): PagePath<i64>) -> Response {
    match edge.broker().own_approval(&signed_in.caller(), GrantId(id)).await {
        Ok((grant, device)) => {
            let is_first = grant.state == GrantState::Pending;
            done(&edge, &signed_in, Some(device), (grant.id, if is_first { Done::First } else { Done::Approved })).await
        }
        Err(error) => not_done(error),
    }
}

/// `POST /approve/{id}/undo`: ends what this person approved.
pub async fn undo(State(edge): State<Edge>, PagePath(id): PagePath<i64>, form: PageForm) -> Response {
    let device = match edge.broker().undo_approval(&form.signed_in.caller(), GrantId(id)).await {
        Ok(device) => device,
        Err(error) => return not_done(error),
    };
    let lines = vec![
        t("The sign-in has ended, and the device's access with it."),
        t("To sign in after all, start again on the device. It need not be paired again."),
    ];
    let done = ApproveDonePage {
        chrome: quiet(&edge, &form.signed_in, &t("This sign-in has ended")).await,
        outcome: "ended",
        grant_id: id.to_string(),
        may_undo: false,
        device_name: device.facts.name,
        device_id: device.id.to_string(),
        message: lines,
        by: form.signed_in.session.operator.name.clone(),
    };
    page(StatusCode::OK, &done)
}

/// `POST /report`: a code that is not ours was sent to somebody.
pub async fn report(State(edge): State<Edge>, form: PageForm) -> Response {
    match edge.broker().report_foreign_code(&form.signed_in.caller()).await {
        Ok(()) => {
            let lines = vec![
                t(
                    "Thank you. Everybody who looks after all sites of this installation sees your report under Alerts, with your name and the time; it stays in the audit log.",
                ),
                t("The code itself is not kept, and nobody outside is told."),
                t(
                    "If you have typed that code anywhere else, tell your security team at once: they can sign the attacker out.",
                ),
            ];
            message(StatusCode::OK, &t("Reported"), lines, Some(("/", &t("Overview"))))
        }
        Err(error) => not_done(error),
    }
}
