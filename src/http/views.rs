//! View structs: what each server-rendered page shows, as plain data, and nothing else.
//!
//! No decisions are made here; the page modules beside this file hold the handlers, look things up and fill these
//! structs. The templates are in `templates/`, the stylesheet and the script in `assets/`. Every text is escaped by
//! the templates, so handlers pass it as it is.

use askama::Template;

use crate::http::lang::{LANGUAGES, filters};

/// What surrounds every page: title, header, navigation and the addresses of the assets.
#[derive(Debug, Clone, Default)]
pub struct Chrome {
    /// What the page is, without the product name (the template adds " · Pairgate").
    pub title: String,
    /// Name of the signed-in operator; without one there is no navigation.
    pub operator: Option<String>,
    /// Value of the hidden field `csrf` of every form.
    pub csrf: String,
    /// Name of the site, shown in the header.
    pub site: String,
    /// Navigation entry that is current: the first part of its address (`overview` for the root), or empty.
    pub active: &'static str,
    /// Code of the page's language, and the address that a change of language comes back to.
    pub language: &'static str,
    /// See `language`.
    pub here: String,
    /// Whether the operator administers anything: then there are more entries in the navigation.
    pub administers: bool,
    /// Address of the stylesheet.
    pub css: String,
    /// Address of the script.
    pub js: String,
    /// Address of the icon.
    pub icon: String,
    /// Whether the page listens to `/events` and refreshes its live regions.
    pub live: bool,
    /// One calm line about what was just done.
    pub notice: Option<String>,
}

impl Chrome {
    /// Languages to choose from: code and name.
    pub fn languages(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        LANGUAGES.iter().map(|language| (language.code, language.name))
    }
}

/// A moment, ready to print.
#[derive(Debug, Clone, Default)]
pub struct When {
    /// How far away, in words: "20 seconds ago".
    pub relative: String,
    /// The exact time: "2026-11-24 05:40:12 UTC".
    pub exact: String,
    /// The same as RFC 3339, for machines.
    pub iso: String,
}

/// How much a fact is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactState {
    /// Pairgate checked it.
    Verified,
    /// Pairgate checked it and it is not so.
    Failed,
    /// Only the device says so; nobody checked.
    Claimed,
    /// Neither good nor bad.
    Neutral,
    /// A time.
    Time,
}

/// One thing known about a device or a request.
#[derive(Debug, Clone)]
pub struct Fact {
    /// How much it is worth.
    pub state: FactState,
    /// The fact as a phrase: "Its own key, paired 3 Mar by T. Weber"; for claims "says it is an HP M480f".
    pub text: String,
    /// Short evidence beside it: a key, an address.
    pub detail: Option<String>,
}

/// One device in a list.
#[derive(Debug, Clone)]
pub struct DeviceRow {
    /// Device id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Label of the kind.
    pub kind: String,
    /// Room; may be empty.
    pub room: String,
    /// `registered`, `active`, `suspended` or `retired`.
    pub state: String,
    /// Short form of its key, "3f9c…a1", if it has one.
    pub key: Option<String>,
    /// When it was last heard of.
    pub seen: Option<When>,
}

/// A pairing that waits for an operator.
#[derive(Debug, Clone)]
pub struct PendingPairing {
    /// Pairing id.
    pub id: String,
    /// Device id.
    pub device_id: String,
    /// Name of the device.
    pub device_name: String,
    /// Room; may be empty.
    pub room: String,
    /// Short form of the key that asks.
    pub key: String,
    /// How that key is kept, in words: "key in software".
    pub assurance: String,
    /// Whether the device's present key vouches for it, so that nothing has to be compared.
    pub verified: bool,
    /// Whether it is the key that the device's maker announced; then neither.
    pub announced: bool,
    /// When it asked.
    pub asked: When,
    /// Whether the device has answered, so that it can be compared.
    pub ready: bool,
    /// Whether two different keys claim this device.
    pub conflict: bool,
}

/// One entry in the history of a device.
#[derive(Debug, Clone)]
pub struct TimelineEntry {
    /// When.
    pub at: When,
    /// What happened.
    pub text: String,
    /// Who did it; may be empty.
    pub actor: String,
    /// Whether it also raised an alert.
    pub alert: bool,
}

/// Which code does the device show?
#[derive(Debug, Clone, Template)]
#[template(path = "approve_entry.html")]
pub struct ApproveEntryPage {
    /// What surrounds the page.
    pub chrome: Chrome,
    /// The code from the link or the last attempt; empty if none.
    pub user_code: String,
    /// What was wrong with the last attempt, one sentence each; empty if nothing was.
    pub errors: Vec<String>,
}

/// Let this device sign in?
#[derive(Debug, Clone, Template)]
#[template(path = "approve.html")]
pub struct ApprovePage {
    /// What surrounds the page.
    pub chrome: Chrome,
    /// Id of the sign-in.
    pub grant_id: String,
    /// Digest of what the page shows, sent back with the decision.
    pub shown: String,
    /// The kind in a sentence: "printer".
    pub kind_label: String,
    /// Name of the device.
    pub device_name: String,
    /// Device id.
    pub device_id: String,
    /// Asset tag; may be empty.
    pub asset_tag: String,
    /// Model; may be empty.
    pub model: String,
    /// The code that the device shows.
    pub user_code: String,
    /// What is known about the request.
    pub facts: Vec<Fact>,
    /// What it will be able to do, in words.
    pub abilities: Vec<String>,
    /// For how long: "for 8 hours".
    pub lasts: String,
    /// Why one person is not enough here, as a sentence.
    pub second: Option<String>,
    /// Whether the two-digit number has to be typed.
    pub needs_number: bool,
    /// Tries left for the number.
    pub tries_left: u64,
    /// When the request ends by itself.
    pub expires: When,
    /// What was wrong with the last attempt, one sentence each; empty if nothing was.
    pub errors: Vec<String>,
}

/// What became of a sign-in.
#[derive(Debug, Clone, Template)]
#[template(path = "approve_done.html")]
pub struct ApproveDonePage {
    /// What surrounds the page.
    pub chrome: Chrome,
    /// `approved`, `first`, `denied`, `reported`, `blocked` or `ended`.
    pub outcome: &'static str,
    /// Id of the sign-in.
    pub grant_id: String,
    /// Whether who looks may end the sign-in now.
    pub may_undo: bool,
    /// Name of the device.
    pub device_name: String,
    /// Device id.
    pub device_id: String,
    /// What happened, what the device shows now, who was told; one sentence each.
    pub message: Vec<String>,
    /// Who decided; may be empty.
    pub by: String,
}

/// A code that is not ours.
#[derive(Debug, Clone, Template)]
#[template(path = "not_ours.html")]
pub struct NotOursPage {
    /// What surrounds the page.
    pub chrome: Chrome,
}

/// One entry of the audit log.
#[derive(Debug, Clone)]
pub struct AuditRow {
    /// Number of the entry.
    pub id: u64,
    /// When.
    pub at: When,
    /// Name of the event.
    pub event: String,
    /// Who did it; may be empty.
    pub actor: String,
    /// Device id, if it is about one.
    pub device: Option<String>,
    /// What happened, as a sentence.
    pub text: String,
    /// `info`, `refusal` or `alert`.
    pub severity: String,
}

/// What the audit log is filtered for; empty for all.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Device id.
    pub device: String,
    /// Name of an event.
    pub event: String,
    /// Name of a person.
    pub by: String,
    /// Events to choose from: name and words.
    pub events: Vec<(&'static str, &'static str)>,
}

/// Audit log, newest first.
#[derive(Debug, Clone, Template)]
#[template(path = "audit.html")]
pub struct AuditPage {
    /// What surrounds the page.
    pub chrome: Chrome,
    /// Entries.
    pub rows: Vec<AuditRow>,
    /// Number to go on before, if there are older entries, with what is filtered for.
    pub older: Option<String>,
    /// What is filtered for.
    pub filter: AuditFilter,
    /// How far the chain was checked: "Chain checked up to entry 4711".
    pub verified: Option<String>,
}

/// Sign in: with a passkey, or by a link from the terminal.
#[derive(Debug, Clone, Template)]
#[template(path = "sign_in.html")]
pub struct SignInPage {
    /// What surrounds the page.
    pub chrome: Chrome,
    /// Can passkeys work at this address?
    pub passkeys: bool,
    /// Address of the script for them.
    pub script: &'static str,
    /// Token from the link.
    pub token: Option<String>,
    /// Name of the operator whom the link is for.
    pub name: Option<String>,
    /// What was wrong with the link.
    pub problem: Option<String>,
    /// What people call the account at the organisation's identity provider, if there is one.
    pub sso: Option<String>,
}

/// A page that only says something, such as an error.
#[derive(Debug, Clone, Template)]
#[template(path = "message.html")]
pub struct MessagePage {
    /// What surrounds the page.
    pub chrome: Chrome,
    /// What happened, in a few words.
    pub heading: String,
    /// What happened, what it means, what to do; one line each.
    pub lines: Vec<String>,
    /// The next step: address and label.
    pub action: Option<(String, String)>,
}

impl ApprovePage {
    /// Whether a checked fact is not so, which the page then says in a sentence of its own.
    #[must_use]
    pub fn something_failed(&self) -> bool {
        self.facts.iter().any(|fact| fact.state == FactState::Failed)
    }
}
