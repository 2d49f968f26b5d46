//! `/settings/sites`: list, add, one site with its history.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::broker::{Broker, UseCaseError};
use crate::http::Edge;
use crate::http::extract::{PageForm, PagePath, SignedIn};
use crate::http::lang::{filters, t, tf};
use crate::http::present::{chrome, page, timeline_entry};
use crate::http::settings::{lines_or_page, refusal, status, without_networks};
use crate::http::views::{Chrome, TimelineEntry};
use crate::model::operator::Role;
use crate::model::site::Site;

/// A site in the list.
struct SiteRow {
    id: String,
    name: String,
    networks: String,
    two_persons: bool,
    quiet_hours: String,
    /// May the reader change it?
    editable: bool,
}

/// What is typed of a site.
#[derive(Clone, Default)]
struct SiteForm {
    /// Names the site as it was when the page was made; of a form that is refused, still that.
    seen: String,
    id: String,
    name: String,
    networks: String,
    two_persons: bool,
    quiet_hours: String,
}

#[derive(Template)]
#[template(path = "settings_sites.html")]
struct SitesPage {
    chrome: Chrome,
    rows: Vec<SiteRow>,
    without_networks: Vec<String>,
    may_add: bool,
    fresh: bool,
    form: SiteForm,
    errors: Vec<String>,
}

#[derive(Template)]
#[template(path = "settings_site.html")]
struct SitePage {
    chrome: Chrome,
    form: SiteForm,
    fresh: bool,
    errors: Vec<String>,
    timeline: Vec<TimelineEntry>,
}

impl SiteForm {
    fn of(site: &Site) -> Self {
        Self {
            seen: Broker::site_seen(site),
            id: site.id.clone(),
            name: site.name.clone(),
            networks: site.networks.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            two_persons: site.two_persons,
            quiet_hours: site.quiet_hours.clone(),
        }
    }

    fn typed(form: &PageForm, id: String) -> Self {
        Self {
            seen: form.field("seen"),
            id,
            name: form.field("name"),
            networks: form.field("networks"),
            two_persons: form.field("two_persons") == "yes",
            quiet_hours: form.field("quiet_hours"),
        }
    }

    fn site(&self) -> Result<Site, Vec<String>> {
        let words = self.networks.split([',', ';', ' ', '\t', '\r', '\n']).filter(|word| !word.is_empty());
        let (mut networks, mut problems) = (Vec::new(), Vec::new());
        for word in words {
            match word.parse() {
                Ok(network) => networks.push(network),
                Err(_) => problems.push(tf("{0} is no network; write it like 10.2.0.0/16.", &[word])),
            }
        }
        let site = Site {
            id: self.id.clone(),
            name: self.name.clone(),
            networks,
            two_persons: self.two_persons,
            quiet_hours: self.quiet_hours.clone(),
        };
        if problems.is_empty() { Ok(site) } else { Err(problems) }
    }
}

/// `GET /settings/sites`.
pub async fn list(State(edge): State<Edge>, signed_in: SignedIn) -> Response {
    render_list(&edge, &signed_in, SiteForm::default(), Vec::new()).await
}

async fn render_list(edge: &Edge, signed_in: &SignedIn, form: SiteForm, errors: Vec<String>) -> Response {
    match sites_page(edge, signed_in, form, errors).await {
        Ok(sites) => page(status(&sites.errors), &sites),
        Err(error) => refusal(error),
    }
}

async fn sites_page(
    edge: &Edge,
    signed_in: &SignedIn,
    form: SiteForm,
    errors: Vec<String>,
) -> Result<SitesPage, UseCaseError> {
    let (broker, caller) = (edge.broker(), signed_in.caller());
    broker.must_administer(&caller, false)?;
    let row = |site: &Site| SiteRow {
        id: site.id.clone(),
        name: site.name.clone(),
        networks: site.networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        two_persons: site.two_persons,
        quiet_hours: site.quiet_hours.clone(),
        editable: caller.rights.role_at(&site.id).is_some_and(Role::may_administer),
    };
    Ok(SitesPage {
        chrome: chrome(edge, &signed_in.session, &t("Sites"), "settings").await,
        rows: broker.sites(&caller).await?.iter().map(row).collect(),
        without_networks: without_networks(edge, signed_in).await?,
        may_add: broker.must_administer(&caller, true).is_ok(),
        fresh: broker.is_fresh(&caller),
        form,
        errors,
    })
}

/// `POST /settings/sites`.
pub async fn add(State(edge): State<Edge>, form: PageForm) -> Response {
    let typed = SiteForm::typed(&form, form.field("id"));
    let site = match typed.site() {
        Ok(site) => site,
        Err(problems) => return render_list(&edge, &form.signed_in, typed, problems).await,
    };
    let id = site.id.clone();
    match edge.broker().add_site(&form.signed_in.caller(), site).await {
        Ok(()) => Redirect::to(&format!("/settings/sites/{id}")).into_response(),
        Err(error) => match lines_or_page(error) {
            Ok(response) => response,
            Err(problems) => render_list(&edge, &form.signed_in, typed, problems).await,
        },
    }
}

/// `GET /settings/sites/{id}`.
pub async fn show(State(edge): State<Edge>, signed_in: SignedIn, PagePath(id): PagePath<String>) -> Response {
    render(&edge, &signed_in, &id, None, Vec::new()).await
}

async fn render(edge: &Edge, signed_in: &SignedIn, id: &str, typed: Option<SiteForm>, errors: Vec<String>) -> Response {
    let status = status(&errors);
    match site_page(edge, signed_in, id, typed, errors).await {
        Ok(site) => page(status, &site),
        Err(error) => refusal(error),
    }
}

async fn site_page(
    edge: &Edge,
    signed_in: &SignedIn,
    id: &str,
    typed: Option<SiteForm>,
    errors: Vec<String>,
) -> Result<SitePage, UseCaseError> {
    let (broker, caller, now) = (edge.broker(), signed_in.caller(), edge.broker().now());
    let records = broker.site_history(&caller, id).await?;
    let missing = || UseCaseError::NotFound(t("there is nothing of this name at your sites"));
    let site = broker.site(&caller, id).await?.ok_or_else(missing)?;
    Ok(SitePage {
        chrome: chrome(edge, &signed_in.session, &site.name, "settings").await,
        form: typed.unwrap_or_else(|| SiteForm::of(&site)),
        fresh: broker.is_fresh(&caller),
        errors,
        timeline: records.iter().map(|record| timeline_entry(record, now)).collect(),
    })
}

/// `POST /settings/sites/{id}`.
pub async fn change(State(edge): State<Edge>, PagePath(id): PagePath<String>, form: PageForm) -> Response {
    let typed = SiteForm::typed(&form, id.clone());
    let site = match typed.site() {
        Ok(site) => site,
        Err(problems) => return render(&edge, &form.signed_in, &id, Some(typed), problems).await,
    };
    match edge.broker().set_site(&form.signed_in.caller(), Some(&typed.seen), site).await {
        Ok(()) => Redirect::to(&format!("/settings/sites/{id}")).into_response(),
        Err(error) => match lines_or_page(error) {
            Ok(response) => response,
            Err(problems) => render(&edge, &form.signed_in, &id, Some(typed), problems).await,
        },
    }
}
