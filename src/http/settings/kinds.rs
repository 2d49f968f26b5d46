//! `/settings/kinds`: list, add, one kind with every setting.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::broker::UseCaseError;
use crate::config::policy::{ClientCertificate, KindPatch};
use crate::http::Edge;
use crate::http::extract::{PageForm, PagePath, SignedIn};
use crate::http::lang::{filters, t, tf};
use crate::http::present::{chrome, page, span};
use crate::http::settings::{
    Step, lines_or_page, number, refusal, scopes_of, scopes_text, status, take, text_lines, without_networks,
};
use crate::http::views::Chrome;
use crate::model::device::KeyAssurance;
use crate::model::kind::{KeyRotation, Kind, NewApprover};

/// A kind in the list.
struct KindRow {
    id: String,
    label: String,
    prefix: String,
    scopes: Vec<String>,
    code: String,
    /// Does pairgate.toml set something of it?
    from_file: bool,
}

#[derive(Template)]
#[template(path = "settings_kinds.html")]
struct KindsPage {
    chrome: Chrome,
    rows: Vec<KindRow>,
    may_change: bool,
    without_networks: Vec<String>,
}

/// What is typed of a kind.
#[derive(Clone, Default)]
struct KindForm {
    id: String,
    label: String,
    prefix: String,
    scopes: String,
    resources: String,
    code_lifetime: String,
    access_token_lifetime: String,
    refresh: bool,
    refresh_idle: String,
    refresh_absolute: String,
    offline_access: bool,
    confirmation_number: bool,
    site_network: bool,
    codes_per_hour: String,
    key_assurance: String,
    key_rotation: String,
    two_persons: bool,
    second_when_new: bool,
    client_certificate: String,
}

#[derive(Template)]
#[template(path = "settings_kind.html")]
struct KindPage {
    chrome: Chrome,
    heading: String,
    form: KindForm,
    /// Is it there already?
    exists: bool,
    /// Is it one of those that are built in?
    built_in: bool,
    base: String,
    /// Settings that pairgate.toml makes.
    locked: Vec<String>,
    may_change: bool,
    fresh: bool,
    without_networks: Vec<String>,
    errors: Vec<String>,
}

impl KindPage {
    fn locks(&self, setting: &str) -> bool {
        !self.may_change || self.locked.iter().any(|locked| locked == setting)
    }

    fn is_from_file(&self, setting: &str) -> bool {
        self.locked.iter().any(|locked| locked == setting)
    }

    fn assurances(&self) -> [(&'static str, String); 3] {
        [
            ("software", t("In software: any key will do")),
            ("hardware-claimed", t("In hardware, as the device says")),
            ("attested", t("In hardware, proved by its maker")),
        ]
    }

    fn rotations(&self) -> [(&'static str, String); 2] {
        [("operator", t("An operator, by one button")), ("automatic", t("Nobody, if the new key is kept no worse"))]
    }

    fn certificates(&self) -> [(&'static str, String); 2] {
        [
            ("pinned", t("Any, with the key that was paired")),
            ("pki", t("By the organisation's own authority, and no other way to sign in")),
        ]
    }
}

impl KindForm {
    fn of(id: &str, patch: &KindPatch) -> Self {
        let text = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
        let is_pki = patch.client_certificate == Some(ClientCertificate::Pki);
        Self {
            id: id.to_owned(),
            label: patch.label.clone().unwrap_or_default(),
            prefix: patch.prefix.clone().unwrap_or_default(),
            scopes: scopes_text(patch.scopes.as_ref()),
            resources: patch.resources.clone().unwrap_or_default().join("\n"),
            code_lifetime: text(patch.code_lifetime),
            access_token_lifetime: text(patch.access_token_lifetime),
            refresh: patch.refresh.unwrap_or_default(),
            refresh_idle: text(patch.refresh_idle.or(Some(7200))),
            refresh_absolute: text(patch.refresh_absolute.or(Some(28_800))),
            offline_access: patch.offline_access.unwrap_or_default(),
            confirmation_number: patch.confirmation_number.unwrap_or_default(),
            site_network: patch.site_network.unwrap_or_default(),
            codes_per_hour: patch.codes_per_hour.map_or_else(String::new, |number| number.to_string()),
            key_assurance: patch.key_assurance.unwrap_or_default().as_str().to_owned(),
            key_rotation: if patch.key_rotation == Some(KeyRotation::Automatic) { "automatic" } else { "operator" }
                .into(),
            two_persons: patch.two_persons.unwrap_or_default(),
            second_when_new: patch.new_approver == Some(NewApprover::Second),
            client_certificate: if is_pki { "pki" } else { "pinned" }.into(),
        }
    }

    /// As typed; what pairgate.toml sets is not among it, and stays as it was.
    fn typed(form: &PageForm, id: &str, shown: &KindPatch, locked: &[String]) -> Self {
        let was = Self::of(id, shown);
        let is_locked = |name: &str| locked.iter().any(|locked| locked == name);
        let text = |name: &str, was: String| if is_locked(name) { was } else { form.field(name) };
        let yes = |name: &str, was: bool| if is_locked(name) { was } else { form.field(name) == "yes" };
        Self {
            id: id.to_owned(),
            label: text("label", was.label),
            prefix: text("prefix", was.prefix),
            scopes: text("scopes", was.scopes),
            resources: text("resources", was.resources),
            code_lifetime: text("code_lifetime", was.code_lifetime),
            access_token_lifetime: text("access_token_lifetime", was.access_token_lifetime),
            refresh: yes("refresh", was.refresh),
            refresh_idle: text("refresh_idle", was.refresh_idle),
            refresh_absolute: text("refresh_absolute", was.refresh_absolute),
            offline_access: yes("offline_access", was.offline_access),
            confirmation_number: yes("confirmation_number", was.confirmation_number),
            site_network: yes("site_network", was.site_network),
            codes_per_hour: text("codes_per_hour", was.codes_per_hour),
            key_assurance: text("key_assurance", was.key_assurance),
            key_rotation: text("key_rotation", was.key_rotation),
            two_persons: yes("two_persons", was.two_persons),
            second_when_new: yes("new_approver", was.second_when_new),
            client_certificate: text("client_certificate", was.client_certificate),
        }
    }
}

/// The patch that a form means, over what is edited.
fn patch(form: &PageForm, edited: KindPatch, locked: &[String]) -> Result<KindPatch, Vec<String>> {
    let is_locked = |name: &str| locked.iter().any(|locked| locked == name);
    let mut problems = Vec::new();
    let mut patch = edited;
    let text = |name: &str, value: &mut Option<String>| {
        if !is_locked(name) {
            *value = Some(form.field(name));
        }
    };
    text("label", &mut patch.label);
    text("prefix", &mut patch.prefix);
    let yes = |name: &str, value: &mut Option<bool>| {
        if !is_locked(name) {
            *value = Some(form.field(name) == "yes");
        }
    };
    yes("refresh", &mut patch.refresh);
    yes("offline_access", &mut patch.offline_access);
    yes("confirmation_number", &mut patch.confirmation_number);
    yes("site_network", &mut patch.site_network);
    yes("two_persons", &mut patch.two_persons);
    if !is_locked("new_approver") {
        let is_second = form.field("new_approver") == "yes";
        patch.new_approver = Some(if is_second { NewApprover::Second } else { NewApprover::Alone });
    }
    let mut seconds = |name: &str, value: &mut Option<u64>| {
        if !is_locked(name) {
            *value = number(form, name, &mut problems);
        }
    };
    seconds("code_lifetime", &mut patch.code_lifetime);
    seconds("access_token_lifetime", &mut patch.access_token_lifetime);
    if patch.refresh == Some(true) {
        seconds("refresh_idle", &mut patch.refresh_idle);
        seconds("refresh_absolute", &mut patch.refresh_absolute);
    } else {
        (patch.refresh_idle, patch.refresh_absolute) = (None, None);
    }
    if !is_locked("codes_per_hour") {
        patch.codes_per_hour = number(form, "codes_per_hour", &mut problems);
    }
    if !is_locked("scopes") {
        patch.scopes = Some(scopes_of(&form.field("scopes"), &mut problems));
    }
    if !is_locked("resources") {
        patch.resources = Some(text_lines(&form.field("resources")));
    }
    if !is_locked("key_assurance") {
        patch.key_assurance = KeyAssurance::parse(&form.field("key_assurance"));
    }
    if !is_locked("key_rotation") {
        let is_automatic = form.field("key_rotation") == "automatic";
        patch.key_rotation = Some(if is_automatic { KeyRotation::Automatic } else { KeyRotation::Operator });
    }
    if !is_locked("client_certificate") {
        let is_pki = form.field("client_certificate") == "pki";
        patch.client_certificate = Some(if is_pki { ClientCertificate::Pki } else { ClientCertificate::Pinned });
    }
    if problems.is_empty() { Ok(patch) } else { Err(problems) }
}

/// `GET /settings/kinds`.
pub async fn list(State(edge): State<Edge>, signed_in: SignedIn) -> Response {
    match kinds_page(&edge, &signed_in).await {
        Ok(kinds) => page(StatusCode::OK, &kinds),
        Err(error) => refusal(error),
    }
}

async fn kinds_page(edge: &Edge, signed_in: &SignedIn) -> Result<KindsPage, UseCaseError> {
    let (broker, caller) = (edge.broker(), signed_in.caller());
    broker.must_administer(&caller, false)?;
    let row = |kind: &Kind| KindRow {
        id: kind.id.clone(),
        label: kind.label.clone(),
        prefix: kind.prefix.clone(),
        scopes: kind.scopes.iter().map(|(_, words)| words.clone()).collect(),
        code: span(kind.code_lifetime.as_secs()),
        from_file: broker.file_policy().kinds.contains_key(&kind.id),
    };
    Ok(KindsPage {
        chrome: chrome(edge, &signed_in.session, &t("Kinds of devices"), "settings").await,
        rows: broker.policy().kinds().iter().map(|kind| row(kind)).collect(),
        may_change: broker.must_administer(&caller, true).is_ok(),
        without_networks: without_networks(edge, signed_in).await?,
    })
}

/// `GET /settings/kinds/{id}`.
pub async fn show(State(edge): State<Edge>, signed_in: SignedIn, PagePath(id): PagePath<String>) -> Response {
    render(&edge, &signed_in, Some(&id), None, String::new(), Vec::new()).await
}

/// `GET /settings/kind`: a new one.
pub async fn new(State(edge): State<Edge>, signed_in: SignedIn) -> Response {
    render(&edge, &signed_in, None, None, String::new(), Vec::new()).await
}

/// What a new kind begins with: what `printer` has, without its name, letters and rights.
fn blank() -> KindPatch {
    let template = Kind::built_in().into_iter().next();
    let patch = template.map(|kind| KindPatch::of(&kind)).unwrap_or_default();
    KindPatch { label: None, prefix: None, scopes: None, ..patch }
}

async fn render(
    edge: &Edge,
    signed_in: &SignedIn,
    id: Option<&str>,
    typed: Option<KindForm>,
    base: String,
    errors: Vec<String>,
) -> Response {
    let status = status(&errors);
    match kind_page(edge, signed_in, id, typed, base, errors).await {
        Ok(kind) => page(status, &kind),
        Err(error) => refusal(error),
    }
}

async fn kind_page(
    edge: &Edge,
    signed_in: &SignedIn,
    id: Option<&str>,
    typed: Option<KindForm>,
    base: String,
    errors: Vec<String>,
) -> Result<KindPage, UseCaseError> {
    let (broker, caller) = (edge.broker(), signed_in.caller());
    broker.must_administer(&caller, id.is_none())?;
    let set = broker.policy();
    let (heading, shown) = match id {
        None => (t("Add a kind"), KindForm::of("", &blank())),
        Some(id) => {
            let missing = || UseCaseError::NotFound(tf("there is no kind '{0}'", &[id]));
            let kind = set.kind(id).ok_or_else(missing)?;
            (kind.label.clone(), KindForm::of(id, &KindPatch::of(kind)))
        }
    };
    Ok(KindPage {
        chrome: chrome(edge, &signed_in.session, &heading, "settings").await,
        heading,
        form: typed.unwrap_or(shown),
        exists: id.is_some(),
        built_in: Kind::built_in().iter().any(|kind| Some(kind.id.as_str()) == id),
        base: if base.is_empty() { set.version().to_string() } else { base },
        locked: id.map(|id| broker.file_policy().fields("kinds", id)).unwrap_or_default(),
        may_change: broker.must_administer(&caller, true).is_ok(),
        fresh: broker.is_fresh(&caller),
        without_networks: without_networks(edge, signed_in).await?,
        errors,
    })
}

/// `POST /settings/kinds/{id}`.
pub async fn change(State(edge): State<Edge>, PagePath(id): PagePath<String>, form: PageForm) -> Response {
    let set = edge.broker().policy();
    let Some(kind) = set.kind(&id) else {
        return refusal(UseCaseError::NotFound(tf("there is no kind '{0}'", &[&id])));
    };
    let shown = KindPatch::of(kind);
    let address = format!("/settings/kinds/{id}");
    store(&edge, &form, &id, &shown, (Some(&id), &address)).await
}

/// `POST /settings/kind`.
pub async fn add(State(edge): State<Edge>, form: PageForm) -> Response {
    let id = form.field("id");
    if edge.broker().kind(&id).is_some() {
        let problems = vec![tf("There is a kind '{0}' already.", &[&id])];
        let typed = KindForm::typed(&form, &id, &blank(), &[]);
        return render(&edge, &form.signed_in, None, Some(typed), form.field("base"), problems).await;
    }
    store(&edge, &form, &id, &blank(), (None, "/settings/kind")).await
}

async fn store(
    edge: &Edge,
    form: &PageForm,
    id: &str,
    shown: &KindPatch,
    (page_of, address): (Option<&str>, &str),
) -> Response {
    let (broker, caller) = (edge.broker(), form.signed_in.caller());
    let locked = broker.file_policy().fields("kinds", id);
    let is_removed = page_of.is_some() && form.field("action") == "remove";
    let edited = broker.policy().editable().kinds.remove(id).unwrap_or_else(|| shown.clone());
    let patched = if is_removed { Ok(None) } else { patch(form, edited, &locked).map(Some) };
    let problems = match patched {
        Err(problems) => problems,
        Ok(patch) => {
            let step = Step::of(form, address, page_of.map_or("/settings/kinds", |_| address));
            let outcome = match broker.propose_kind(&caller, id, patch).await {
                Ok(change) => take(edge, &form.signed_in, &change, step).await,
                Err(error) => lines_or_page(error),
            };
            match outcome {
                Ok(response) => return response,
                Err(problems) => problems,
            }
        }
    };
    let typed = KindForm::typed(form, id, shown, &locked);
    render(edge, &form.signed_in, page_of, Some(typed), form.field("base"), problems).await
}
