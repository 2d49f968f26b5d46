//! `/settings/resources`: the services that take tokens; list, add, one with its settings. Their identifiers are URIs, so they stand in the query.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use crate::broker::UseCaseError;
use crate::config::policy::ResourcePatch;
use crate::http::Edge;
use crate::http::extract::{PageForm, PageQuery, SignedIn};
use crate::http::lang::{filters, t, tf};
use crate::http::present::{chrome, page};
use crate::http::settings::{Step, lines_or_page, number, refusal, scopes_of, scopes_text, status, take};
use crate::http::views::Chrome;
use crate::model::resource::Resource;

/// A resource in the list.
struct ResourceRow {
    id: String,
    label: String,
    /// The identifier for a query.
    query: String,
    kinds: Vec<String>,
    keys: usize,
    described: bool,
    from_file: bool,
}

#[derive(Template)]
#[template(path = "settings_resources.html")]
struct ResourcesPage {
    chrome: Chrome,
    rows: Vec<ResourceRow>,
    may_change: bool,
}

/// What is typed of a resource.
#[derive(Clone, Default)]
struct ResourceForm {
    id: String,
    label: String,
    scopes: String,
    access_token_lifetime: String,
    signing_algorithm: String,
    jwks: String,
}

#[derive(Template)]
#[template(path = "settings_resource.html")]
struct ResourcePage {
    chrome: Chrome,
    heading: String,
    form: ResourceForm,
    exists: bool,
    /// Has it rules of its own? Else it only stands in a kind.
    described: bool,
    base: String,
    locked: Vec<String>,
    may_change: bool,
    fresh: bool,
    errors: Vec<String>,
}

impl ResourcePage {
    fn locks(&self, setting: &str) -> bool {
        !self.may_change || self.is_from_file(setting)
    }

    fn is_from_file(&self, setting: &str) -> bool {
        self.locked.iter().any(|locked| locked == setting)
    }
}

impl ResourceForm {
    fn of(resource: &Resource) -> Self {
        let patch = ResourcePatch::of(resource);
        Self {
            id: resource.id.clone(),
            label: resource.label.clone(),
            scopes: scopes_text(patch.scopes.as_ref()),
            access_token_lifetime: patch.access_token_lifetime.map_or_else(String::new, |life| life.to_string()),
            signing_algorithm: patch.signing_algorithm.unwrap_or_default(),
            jwks: patch.jwks.unwrap_or_default(),
        }
    }

    fn typed(form: &PageForm, id: &str, shown: &Resource, locked: &[String]) -> Self {
        let was = Self::of(shown);
        let text =
            |name: &str, was: String| if locked.iter().any(|locked| locked == name) { was } else { form.field(name) };
        Self {
            id: id.to_owned(),
            label: text("label", was.label),
            scopes: text("scopes", was.scopes),
            access_token_lifetime: text("access_token_lifetime", was.access_token_lifetime),
            signing_algorithm: text("signing_algorithm", was.signing_algorithm),
            jwks: text("jwks", was.jwks),
        }
    }
}

/// Which resource.
#[derive(Deserialize)]
pub struct Which {
    id: Option<String>,
}

/// `GET /settings/resources`.
pub async fn list(State(edge): State<Edge>, signed_in: SignedIn) -> Response {
    let (broker, caller) = (edge.broker(), signed_in.caller());
    if let Err(error) = broker.must_administer(&caller, false) {
        return refusal(error);
    }
    let set = broker.policy();
    let row = |resource: &Resource| ResourceRow {
        query: url::form_urlencoded::byte_serialize(resource.id.as_bytes()).collect(),
        kinds: set
            .kinds()
            .iter()
            .filter(|kind| kind.resources.contains(&resource.id))
            .map(|kind| kind.label.clone())
            .collect(),
        keys: resource.keys.len(),
        described: set.is_described(&resource.id),
        from_file: broker.file_policy().resources.contains_key(&resource.id),
        id: resource.id.clone(),
        label: resource.label.clone(),
    };
    let resources = ResourcesPage {
        chrome: chrome(&edge, &signed_in.session, &t("Services"), "settings").await,
        rows: set.resources().iter().map(|resource| row(resource)).collect(),
        may_change: broker.must_administer(&caller, true).is_ok(),
    };
    page(StatusCode::OK, &resources)
}

/// `GET /settings/resource`: one, or a new one.
pub async fn show(
    State(edge): State<Edge>,
    signed_in: SignedIn,
    PageQuery(Which { id }): PageQuery<Which>,
) -> Response {
    render(&edge, &signed_in, id.as_deref(), None, String::new(), Vec::new()).await
}

async fn render(
    edge: &Edge,
    signed_in: &SignedIn,
    id: Option<&str>,
    typed: Option<ResourceForm>,
    base: String,
    errors: Vec<String>,
) -> Response {
    let status = status(&errors);
    match resource_page(edge, signed_in, id, typed, base, errors).await {
        Ok(resource) => page(status, &resource),
        Err(error) => refusal(error),
    }
}

async fn resource_page(
    edge: &Edge,
    signed_in: &SignedIn,
    id: Option<&str>,
    typed: Option<ResourceForm>,
    base: String,
    errors: Vec<String>,
) -> Result<ResourcePage, UseCaseError> {
    let (broker, caller) = (edge.broker(), signed_in.caller());
    broker.must_administer(&caller, id.is_none())?;
    let set = broker.policy();
    let (heading, shown) = match id {
        None => (t("Add a service"), ResourceForm { signing_algorithm: "ES256".into(), ..ResourceForm::default() }),
        Some(id) => {
            let missing = || UseCaseError::NotFound(tf("there is no service '{0}'", &[id]));
            let resource = set.resource(id).ok_or_else(missing)?;
            (resource.label.clone(), ResourceForm::of(resource))
        }
    };
    Ok(ResourcePage {
        chrome: chrome(edge, &signed_in.session, &heading, "settings").await,
        heading,
        form: typed.unwrap_or(shown),
        exists: id.is_some(),
        described: id.is_some_and(|id| set.is_described(id)),
        base: if base.is_empty() { set.version().to_string() } else { base },
        locked: id.map(|id| broker.file_policy().fields("resources", id)).unwrap_or_default(),
        may_change: broker.must_administer(&caller, true).is_ok(),
        fresh: broker.is_fresh(&caller),
        errors,
    })
}

/// The patch that a form means, over what is edited.
fn patch(form: &PageForm, edited: ResourcePatch, locked: &[String]) -> Result<ResourcePatch, Vec<String>> {
    let is_locked = |name: &str| locked.iter().any(|locked| locked == name);
    let (mut patch, mut problems) = (edited, Vec::new());
    for (name, value) in
        [("label", &mut patch.label), ("signing_algorithm", &mut patch.signing_algorithm), ("jwks", &mut patch.jwks)]
    {
        if !is_locked(name) {
            *value = Some(form.field(name)).filter(|text| !text.is_empty());
        }
    }
    if !is_locked("scopes") {
        patch.scopes = Some(scopes_of(&form.field("scopes"), &mut problems));
    }
    if !is_locked("access_token_lifetime") {
        let is_empty = form.field("access_token_lifetime").is_empty();
        patch.access_token_lifetime =
            if is_empty { None } else { number(form, "access_token_lifetime", &mut problems) };
    }
    if problems.is_empty() { Ok(patch) } else { Err(problems) }
}

/// `POST /settings/resource`.
pub async fn change(State(edge): State<Edge>, form: PageForm) -> Response {
    let (broker, caller) = (edge.broker(), form.signed_in.caller());
    let id = form.field("id");
    let set = broker.policy();
    let known = set.resource(&id);
    let shown = known.map_or_else(|| Resource::plain(&id), |resource| Resource::clone(resource));
    let locked = broker.file_policy().fields("resources", &id);
    let edited = set.editable().resources.remove(&id).unwrap_or_else(|| ResourcePatch::of(&shown));
    let patched = if form.field("action") == "remove" { Ok(None) } else { patch(&form, edited, &locked).map(Some) };
    let problems = match patched {
        Err(problems) => problems,
        Ok(patch) => {
            let step = Step::of(&form, "/settings/resource", "/settings/resources");
            let outcome = match broker.propose_resource(&caller, &id, patch).await {
                Ok(change) => take(&edge, &form.signed_in, &change, step).await,
                Err(error) => lines_or_page(error),
            };
            match outcome {
                Ok(response) => return response,
                Err(problems) => problems,
            }
        }
    };
    let typed = ResourceForm::typed(&form, &id, &shown, &locked);
    let page_of = known.map(|known| known.id.clone());
    render(&edge, &form.signed_in, page_of.as_deref(), Some(typed), form.field("base"), problems).await
}
