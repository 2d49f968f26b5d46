//! Other people: who they are, how they sign in, what they may do where; and what to do when somebody comes, goes, or has lost a passkey.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::broker::{Caller, UseCaseError};
use crate::http::Edge;
use crate::http::account::KeyRow;
use crate::http::extract::{PageForm, PagePath, SignedIn};
use crate::http::lang::{filters, t, tf, tn};
use crate::http::present::{chrome, message, page, problems, unavailable, when};
use crate::http::qr;
use crate::http::views::{Chrome, When};
use crate::model::operator::{EVERYWHERE, Rights, Role};
use crate::model::site::Site;
use crate::store::Person;

/// The list.
#[derive(Debug, Template)]
#[template(path = "operators.html")]
struct OperatorsPage {
    chrome: Chrome,
    rows: Vec<Row>,
    /// Whether the caller administers everything, and so may add people.
    may_add: bool,
    sites: Vec<Choice>,
    roles: Vec<Choice>,
    typed: Typed,
    errors: Vec<String>,
}

#[derive(Debug)]
struct Row {
    name: String,
    ways: String,
    roles: String,
    seen: Option<When>,
    is_disabled: bool,
}

/// Value and label of something to choose.
#[derive(Debug)]
struct Choice {
    value: String,
    label: String,
}

#[derive(Debug, Default)]
struct Typed {
    name: String,
    site: String,
    role: String,
}

/// One person.
#[derive(Debug, Template)]
#[template(path = "operator.html")]
struct OperatorPage {
    chrome: Chrome,
    name: String,
    is_self: bool,
    is_disabled: bool,
    ways: String,
    seen: Option<When>,
    added: When,
    sessions: String,
    passkeys: u64,
    /// Keys for commands, for whoever may remove them.
    keys: Vec<KeyRow>,
    /// The address of this page.
    page: String,
    given: Vec<GivenRole>,
    by_groups: Vec<String>,
    /// What people call the account at the organisation's provider.
    account: String,
    other_sites: Vec<Choice>,
    roles: Vec<Choice>,
    /// Whether the caller administers everything, and so may do what concerns the whole person.
    may_all: bool,
    /// May the viewer have a link for this person?
    may_have_link: bool,
    link: Option<Link>,
    errors: Vec<String>,
}

/// A role that was given by hand.
#[derive(Debug)]
struct GivenRole {
    site: String,
    site_label: String,
    role: &'static str,
    role_label: String,
    may_change: bool,
}

/// A one-time link, shown this once.
#[derive(Debug)]
struct Link {
    url: String,
    qr_svg: String,
}

/// A role in the language of the page.
fn role_word(role: Role) -> String {
    match role {
        Role::Viewer => t("viewer"),
        Role::Technician => t("technician"),
        Role::Approver => t("approver"),
        Role::Admin => t("administrator"),
    }
}

fn role_choices() -> Vec<Choice> {
    let label = |role| match role {
        Role::Viewer => t("viewer: only looks"),
        Role::Technician => t("technician: pairs devices, too"),
        Role::Approver => t("approver: approves sign-ins, too"),
        Role::Admin => t("administrator: everything"),
    };
    Role::ALL.into_iter().map(|role| Choice { value: role.as_str().into(), label: label(role) }).collect()
}

fn site_word(site: &str, sites: &[Site]) -> String {
    if site == EVERYWHERE {
        return t("all sites");
    }
    sites.iter().find(|known| known.id == site).map_or_else(|| site.to_owned(), |known| known.name.clone())
}

fn words(rights: &Rights, sites: &[Site]) -> Vec<String> {
    let word = |(site, role): (&str, Role)| tf("{0} at {1}", &[&role_word(role), &site_word(site, sites)]);
    rights.iter().map(word).collect()
}

/// How a person signs in.
fn ways(person: &Person, account: &str) -> String {
    let mut ways = Vec::new();
    if person.has_sso {
        ways.push(account.to_owned());
    }
    if person.passkeys > 0 {
        ways.push(tn(person.passkeys, "{0} passkey", "{0} passkeys"));
    }
    if ways.is_empty() { t("one-time links only") } else { ways.join(", ") }
}

/// Where the caller may give roles: the sites that it administers, all of them first if it administers everything.
fn administered(caller: &Caller, sites: &[Site]) -> Vec<Choice> {
    let may = |site: &str| caller.rights.role_at(site).is_some_and(Role::may_administer);
    let everywhere = may_all(caller).then(|| Choice { value: EVERYWHERE.into(), label: t("All sites") });
    let each = sites
        .iter()
        .filter(|site| may(&site.id))
        .map(|site| Choice { value: site.id.clone(), label: site.name.clone() });
    everywhere.into_iter().chain(each).collect()
}

fn may_all(caller: &Caller) -> bool {
    caller.rights.role_everywhere().is_some_and(Role::may_administer)
}

fn account(edge: &Edge) -> String {
    edge.broker().sso_label().map_or_else(|| t("the organisation's account"), str::to_owned)
}

/// `GET /operators`.
pub async fn list(State(edge): State<Edge>, signed_in: SignedIn) -> Response {
    render_list(&edge, &signed_in, Typed::default(), Vec::new()).await
}

async fn render_list(edge: &Edge, signed_in: &SignedIn, typed: Typed, errors: Vec<String>) -> Response {
    let (broker, caller, now) = (edge.broker(), signed_in.caller(), edge.broker().now());
    let people = match broker.people(&caller).await {
        Ok(people) => people,
        Err(error) => return not_for(error),
    };
    let sites = match broker.sites(&caller).await {
        Ok(sites) => sites,
        Err(error) => return unavailable(&error),
    };
    let account = account(edge);
    let row = |person: &Person| Row {
        name: person.operator.name.clone(),
        ways: ways(person, &account),
        roles: words(&person.operator.rights, &sites).join(", "),
        seen: person.seen_at.map(|at| when(at, now)),
        is_disabled: person.operator.disabled_at.is_some(),
    };
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    let list = OperatorsPage {
        chrome: chrome(edge, &signed_in.session, &t("Operators"), "operators").await,
        rows: people.iter().map(row).collect(),
        may_add: may_all(&caller),
        sites: administered(&caller, &sites),
        roles: role_choices(),
        typed,
        errors,
    };
    page(status, &list)
}

/// `POST /operators`: adds a person, and shows the link for the first sign-in.
pub async fn add(State(edge): State<Edge>, form: PageForm) -> Response {
    let (broker, caller) = (edge.broker(), form.signed_in.caller());
    let typed = Typed { name: form.field("name"), site: form.field("site"), role: form.field("role") };
    let added = match Role::parse(&typed.role) {
        Some(role) => broker.add_person_at(&caller, &typed.name, &typed.site, role).await,
        None => Err(no_such_role()),
    };
    match added.map_err(problems) {
        Ok(()) => show_link(&edge, &form.signed_in, &typed.name).await,
        Err(Ok(_)) if !may_all(&caller) => not_for(UseCaseError::NotAllowed),
        Err(Ok(errors)) => render_list(&edge, &form.signed_in, typed, errors).await,
        Err(Err(response)) => response,
    }
}

/// `GET /operators/{name}`.
pub async fn show(State(edge): State<Edge>, signed_in: SignedIn, PagePath(name): PagePath<String>) -> Response {
    render(&edge, &signed_in, &name, None, Vec::new()).await
}

async fn render(edge: &Edge, signed_in: &SignedIn, name: &str, link: Option<Link>, errors: Vec<String>) -> Response {
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    match operator_page(edge, signed_in, name, link, errors).await {
        Ok(operator) => page(status, &operator),
        Err(error) => not_for(error),
    }
}

async fn operator_page(
    edge: &Edge,
    signed_in: &SignedIn,
    name: &str,
    link: Option<Link>,
    errors: Vec<String>,
) -> Result<OperatorPage, UseCaseError> {
    let (broker, caller, now) = (edge.broker(), signed_in.caller(), edge.broker().now());
    let person = broker.person(&caller, name).await?;
    let sites = broker.sites(&caller).await?;
    let administered = administered(&caller, &sites);
    let is_administered = |site: &str| administered.iter().any(|choice| choice.value == site);
    let given = person.given.iter().map(|(site, role)| GivenRole {
        site: site.to_owned(),
        site_label: if site == EVERYWHERE { t("All sites") } else { site_word(site, &sites) },
        role: role.as_str(),
        role_label: role_word(role),
        may_change: is_administered(site),
    });
    let given: Vec<GivenRole> = given.collect();
    let account = account(edge);
    let other_sites =
        administered.into_iter().filter(|choice| given.iter().all(|role| role.site != choice.value)).collect();
    let keys = if may_all(&caller) { broker.operator_keys(&caller, name).await? } else { Vec::new() };
    Ok(OperatorPage {
        chrome: chrome(edge, &signed_in.session, &person.operator.name, "operators").await,
        is_self: caller.operator == Some(person.operator.id),
        is_disabled: person.operator.disabled_at.is_some(),
        ways: ways(&person, &account),
        seen: person.seen_at.map(|at| when(at, now)),
        added: when(person.operator.added_at, now),
        sessions: tn(person.sessions, "{0} session", "{0} sessions"),
        passkeys: person.passkeys,
        keys: keys.into_iter().map(|key| KeyRow::new(key, now)).collect(),
        page: format!("/operators/{}", person.operator.name),
        given,
        by_groups: words(&person.by_groups, &sites),
        account,
        other_sites,
        roles: role_choices(),
        may_all: may_all(&caller),
        may_have_link: broker.may_have_link(&caller, person.operator.id).await?,
        name: person.operator.name,
        link,
        errors,
    })
}

/// `POST /operators/{name}`.
pub async fn act(State(edge): State<Edge>, PagePath(name): PagePath<String>, form: PageForm) -> Response {
    let (broker, caller) = (edge.broker(), form.signed_in.caller());
    let outcome = match form.field("action").as_str() {
        "link" => return show_link(&edge, &form.signed_in, &name).await,
        "role" => match (form.field("role").as_str(), Role::parse(&form.field("role"))) {
            ("none", _) => broker.set_role(&caller, &name, &form.field("site"), None).await,
            (_, Some(role)) => broker.set_role(&caller, &name, &form.field("site"), Some(role)).await,
            _ => Err(no_such_role()),
        },
        "disable" => broker.disable_operator(&caller, &name).await,
        "enable" => broker.enable_operator(&caller, &name).await,
        "remove_passkeys" => broker.remove_passkeys(&caller, &name).await.map(|_| ()),
        "remove_key" => broker.revoke_operator_key(&caller, &name, &form.field("key")).await,
        "end_sessions" => broker.end_sessions(&caller, &name).await.map(|_| ()),
        _ => Err(UseCaseError::Refused(vec!["there is no such action; nothing was changed".into()])),
    };
    match outcome.map_err(problems) {
        // Without the last role at the caller's sites, there is nobody to be shown any more.
        Ok(()) => match broker.person(&caller, &name).await {
            Ok(_) => Redirect::to(&format!("/operators/{name}")).into_response(),
            Err(_) => Redirect::to("/operators").into_response(),
        },
        Err(Ok(errors)) => render(&edge, &form.signed_in, &name, None, errors).await,
        Err(Err(response)) => response,
    }
}

/// A new link, on the person's page, this once.
async fn show_link(edge: &Edge, signed_in: &SignedIn, name: &str) -> Response {
    match edge.broker().operator_link(&signed_in.caller(), name).await.map_err(problems) {
        Ok(url) => {
            let link = Link { qr_svg: qr::svg(&url), url };
            render(edge, signed_in, name, Some(link), Vec::new()).await
        }
        Err(Ok(errors)) => render(edge, signed_in, name, None, errors).await,
        Err(Err(response)) => response,
    }
}

fn no_such_role() -> UseCaseError {
    UseCaseError::Refused(vec!["choose what the person may do".into()])
}

/// A page that the caller may not have.
fn not_for(error: UseCaseError) -> Response {
    match problems(error) {
        Ok(lines) => message(StatusCode::FORBIDDEN, &t("Not for you"), lines, Some(("/", &t("Overview")))),
        Err(response) => response,
    }
}
