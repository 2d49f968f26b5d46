//! `/settings`: sites, kinds, resources, and how they are changed. Here the overview, and what the pages of this folder share: the table of what a change
//! changes, shown before it is made.
//!
//! Each change takes two steps. The first post is looked at and shown; the second repeats its fields, with `sure`, and is made. `base` says which version the
//! first form was filled from.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::broker::UseCaseError;
use crate::broker::policy::{Applied, PolicyChange};
use crate::config::difference::Change;
use crate::http::Edge;
use crate::http::extract::{PageForm, SignedIn};
use crate::http::lang::{filters, t, tf};
use crate::http::present::{capital, chrome, message, page, problems, refused_form};
use crate::http::views::Chrome;

pub mod import;
pub mod kinds;
pub mod policy;
pub mod resources;
pub mod sites;

/// The overview.
#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    chrome: Chrome,
    sites: Vec<String>,
    kinds: Vec<String>,
    resources: usize,
    /// Number of the version that holds, and how many wait; nothing for whoever administers a site only.
    policy: Option<(i64, usize)>,
    /// Sites of which nobody has said the networks, although a kind wants its devices there.
    without_networks: Vec<String>,
}

/// `GET /settings`.
pub async fn show(State(edge): State<Edge>, signed_in: SignedIn) -> Response {
    match overview(&edge, &signed_in).await {
        Ok(settings) => page(StatusCode::OK, &settings),
        Err(error) => refusal(error),
    }
}

async fn overview(edge: &Edge, signed_in: &SignedIn) -> Result<SettingsPage, UseCaseError> {
    let (broker, caller) = (edge.broker(), signed_in.caller());
    broker.must_administer(&caller, false)?;
    let set = broker.policy();
    let waiting = match broker.policy_history(&caller).await {
        Ok(history) => Some(history.iter().filter(|(version, _)| policy::waits(version)).count()),
        Err(UseCaseError::NotAllowed) => None,
        Err(error) => return Err(error),
    };
    let sites = broker.sites(&caller).await?;
    Ok(SettingsPage {
        chrome: chrome(edge, &signed_in.session, &t("Settings"), "settings").await,
        kinds: set.kinds().iter().map(|kind| kind.label.clone()).collect(),
        resources: set.resources().len(),
        policy: waiting.map(|waiting| (set.version(), waiting)),
        without_networks: without_networks(edge, signed_in).await?,
        sites: sites.into_iter().map(|site| site.name).collect(),
    })
}

/// The caller's sites whose networks nobody has said, if there is a kind whose devices must be on them.
async fn without_networks(edge: &Edge, signed_in: &SignedIn) -> Result<Vec<String>, UseCaseError> {
    let broker = edge.broker();
    if !broker.policy().kinds().iter().any(|kind| kind.site_network) {
        return Ok(Vec::new());
    }
    let sites = broker.sites(&signed_in.caller()).await?;
    Ok(sites.into_iter().filter(|site| site.networks.is_empty()).map(|site| site.name).collect())
}

/// A row of what a change changes.
struct DiffRow {
    /// `kinds.printer`; empty for the policy itself.
    of: String,
    /// The setting, in words.
    words: String,
    /// The setting, as in the text.
    setting: String,
    before: String,
    after: String,
    overridden: bool,
}

impl DiffRow {
    fn of(change: &Change) -> Self {
        let value = |value: &Option<String>| match value.as_deref() {
            None => "–".to_owned(),
            Some("true") => t("yes"),
            Some("false") => t("no"),
            Some(text) => text.to_owned(),
        };
        Self {
            words: setting_words(&change.setting),
            of: change.of.clone(),
            setting: change.setting.clone(),
            before: value(&change.before),
            after: value(&change.after),
            overridden: change.overridden,
        }
    }

    fn all(changes: &[Change]) -> Vec<Self> {
        changes.iter().map(Self::of).collect()
    }
}

/// What a setting is called on pages.
fn setting_words(setting: &str) -> String {
    if let Some((whole, scope)) = setting.split_once('.').filter(|(whole, _)| *whole == "scopes") {
        debug_assert_eq!(whole, "scopes");
        return tf("Right {0}", &[scope]);
    }
    match setting {
        "label" | "name" => t("Name"),
        "prefix" => t("Letters before each code"),
        "scopes" => t("Rights"),
        "resources" => t("Services"),
        "code_lifetime" => t("A code is good for (seconds)"),
        "access_token_lifetime" => t("An access token is good for (seconds)"),
        "refresh" => t("Devices stay signed in"),
        "refresh_idle" => t("Unused, a sign-in ends after (seconds)"),
        "refresh_absolute" => t("In any case, a sign-in ends after (seconds)"),
        "offline_access" => t("Only devices that ask for it stay signed in"),
        "confirmation_number" => t("The approver types the number that the device shows"),
        "site_network" => t("The device must be on its site's network"),
        "codes_per_hour" => t("Codes of one device in an hour"),
        "key_assurance" => t("How the key must be kept"),
        "key_rotation" => t("Who decides on a new key"),
        "client_certificate" => t("Client certificate"),
        "signing_algorithm" => t("Tokens are signed with"),
        "jwks" => t("Keys of the service"),
        "networks" => t("Networks"),
        "new_approver" => t("A second person when the approver is new to the device"),
        "two_persons" => t("Two persons"),
        "quiet_hours" => t("Quiet hours (UTC)"),
        other => other.to_owned(),
    }
}

/// What a change changes, before it is made.
#[derive(Template)]
#[template(path = "settings_diff.html")]
struct DiffPage {
    chrome: Chrome,
    heading: String,
    /// Where the second step is posted.
    action: String,
    /// Where the form was.
    back: String,
    /// Is it posted as a form with a file?
    multipart: bool,
    fields: Vec<(String, String)>,
    rows: Vec<DiffRow>,
    wants_second: bool,
}

/// A change as it came: what it would do, and the fields that repeat it.
struct Step {
    action: String,
    back: String,
    fields: Vec<(String, String)>,
    base: String,
    is_sure: bool,
    multipart: bool,
}

impl Step {
    fn of(form: &PageForm, action: &str, back: &str) -> Self {
        let fields = form.all().into_iter().filter(|(name, _)| name != "sure" && name != "base").collect();
        let (base, is_sure) = (form.field("base"), form.field("sure") == "yes");
        Self { action: action.to_owned(), back: back.to_owned(), fields, base, is_sure, multipart: false }
    }
}

/// Shows a change, or makes it if the person is sure. Of a refusal, the lines for the form.
async fn take(edge: &Edge, signed_in: &SignedIn, change: &PolicyChange, step: Step) -> Result<Response, Vec<String>> {
    let base: i64 = step.base.parse().unwrap_or(change.base);
    if !step.is_sure {
        let mut fields = step.fields;
        fields.push(("base".into(), base.to_string()));
        let diff = DiffPage {
            chrome: chrome(edge, &signed_in.session, &t("Look at the change"), "settings").await,
            heading: if change.changes.is_empty() { t("Nothing would change") } else { t("Look at the change") },
            action: step.action,
            back: step.back,
            multipart: step.multipart,
            fields,
            rows: DiffRow::all(&change.changes),
            wants_second: change.wants_second,
        };
        return Ok(page(StatusCode::OK, &diff));
    }
    let done = match edge.broker().apply_policy(&signed_in.caller(), change, base).await {
        Ok(Applied::Applied(version)) => format!("/settings/policy?applied={version}"),
        Ok(Applied::Proposed(version)) => format!("/settings/policy?proposed={version}"),
        Ok(Applied::Unchanged) => "/settings/policy".into(),
        Err(error) => return lines_or_page(error),
    };
    Ok(Redirect::to(&done).into_response())
}

/// A refusal as lines for the form that was refused; what no form can mend is a page.
fn lines_or_page(error: UseCaseError) -> Result<Response, Vec<String>> {
    match error {
        UseCaseError::Refused(lines) => Err(lines.iter().map(|line| said_line(line)).collect()),
        error => Ok(refusal(error)),
    }
}

/// A line of the broker's in the page's language, as a sentence.
fn said_line(line: &str) -> String {
    // Of what a reader of text says, the lines between are a picture of the place.
    let line = match (line.split_once('\n'), line.rsplit_once('\n')) {
        (Some((place, _)), Some((_, what))) => format!("{place}: {what}"),
        _ => line.to_owned(),
    };
    capital(&crate::http::lang::said(&line))
}

/// A refusal as a page.
fn refusal(error: UseCaseError) -> Response {
    match error {
        UseCaseError::NotAllowed => {
            let lines = vec![said_line(&UseCaseError::NotAllowed.to_string())];
            message(StatusCode::FORBIDDEN, &t("Not allowed"), lines, Some(("/", &t("Overview"))))
        }
        UseCaseError::Refused(lines) => {
            let lines = lines.iter().map(|line| said_line(line)).collect();
            message(StatusCode::UNPROCESSABLE_ENTITY, &t("Not done"), lines, Some(("/settings/policy", &t("Back"))))
        }
        error => problems(error).map_or_else(|response| response, |_| refused_form()),
    }
}

/// 200 for a form, 422 for one that was refused.
fn status(errors: &[String]) -> StatusCode {
    if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY }
}

/// Lines of a text field that say something.
fn text_lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Scopes as a text field has them: a line each, `scan.write = put scans into the scan folder`.
fn scopes_of(text: &str, problems: &mut Vec<String>) -> std::collections::BTreeMap<String, String> {
    let mut scopes = std::collections::BTreeMap::new();
    for line in text_lines(text) {
        let (scope, words) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        let words = words.trim().trim_start_matches(['=', ':']).trim();
        if scopes.insert(scope.trim_end_matches(':').to_owned(), words.to_owned()).is_some() {
            problems.push(tf("The right {0} stands there twice.", &[scope]));
        }
    }
    scopes
}

fn scopes_text(scopes: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let lines = scopes.into_iter().flatten().map(|(scope, words)| format!("{scope} = {words}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A whole number out of a field.
fn number<N: std::str::FromStr>(form: &PageForm, field: &str, problems: &mut Vec<String>) -> Option<N> {
    let number = form.field(field).parse().ok();
    if number.is_none() {
        problems.push(tf("{0}: type a whole number.", &[&setting_words(field)]));
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_typed_a_line_each() {
        let mut problems = Vec::new();
        let typed = "scan.write = put scans\r\n\r\n  print.read: fetch jobs\nmenu.read show the menu\nbare\n";
        let scopes = scopes_of(typed, &mut problems);
        let found: Vec<_> = scopes.iter().map(|(scope, words)| (scope.as_str(), words.as_str())).collect();
        let expected =
            [("bare", ""), ("menu.read", "show the menu"), ("print.read", "fetch jobs"), ("scan.write", "put scans")];
        assert_eq!(found, expected);
        assert_eq!(scopes_of(&scopes_text(Some(&scopes)), &mut problems), scopes);
        assert!(problems.is_empty());
        scopes_of("a = b\na = c", &mut problems);
        assert_eq!(problems.len(), 1);
    }
}
