//! The first run, step by step, and the risk assessment (RFC 10027 section 2) that it ends with.

use askama::Template;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use crate::broker::setup::Setup;
use crate::broker::{Broker, UseCaseError};
use crate::config::setup::{Address, Way};
use crate::http::Edge;
use crate::http::extract::{PageForm, PagePath, PageQuery, SignedIn};
use crate::http::lang::{filters, t, tf, tn};
use crate::http::present::{chrome, no_such_page, page, problems, refused_form, when, who};
use crate::http::views::{Chrome, Fact, FactState, When};
use crate::model::risk::{RiskAssessment, RiskRecord, Standing};
use crate::model::site::{DEFAULT_SITE, Site};

/// Of ACME servers, the one that most use.
const ACME_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// What was typed.
#[derive(Default)]
struct Typed {
    way: String,
    host: String,
    port: String,
    certificate: String,
    key: String,
    directory: String,
    contact: String,
    site_name: String,
    networks: String,
}

#[derive(Template)]
#[template(path = "setup.html")]
struct SetupPage {
    chrome: Chrome,
    setup: Setup,
    /// The step that is next; empty when all are done.
    next: &'static str,
    /// The step that is to be changed.
    change: String,
    can_change_address: bool,
    issuer: String,
    site_name: String,
    draft: RiskAssessment,
    done: usize,
    progress: String,
    registered: String,
    paired: String,
    in_force: String,
    form: Typed,
    errors: Vec<String>,
    /// The link at the new address.
    restart: Option<String>,
    local_ca: bool,
}

/// Which step to change.
#[derive(Deserialize)]
pub struct Change {
    change: Option<String>,
}

/// `GET /setup`.
pub async fn show(State(edge): State<Edge>, signed_in: SignedIn, PageQuery(query): PageQuery<Change>) -> Response {
    let typed = Typed { port: "443".into(), directory: ACME_DIRECTORY.into(), ..Typed::default() };
    render(&edge, &signed_in, typed, query.change.unwrap_or_default(), Vec::new(), None).await
}

async fn render(
    edge: &Edge,
    signed_in: &SignedIn,
    form: Typed,
    change: String,
    errors: Vec<String>,
    restart: Option<String>,
) -> Response {
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    match setup_page(edge, signed_in, form, change, errors, restart).await {
        Ok(setup) => page(status, &setup),
        Err(error) => refusal(error),
    }
}

/// Nobody but who administers everything has anything to see here.
fn refusal(error: UseCaseError) -> Response {
    if matches!(error, UseCaseError::NotAllowed) {
        no_such_page()
    } else {
        problems(error).map_or_else(|response| response, |_| refused_form())
    }
}

async fn setup_page(
    edge: &Edge,
    signed_in: &SignedIn,
    form: Typed,
    change: String,
    errors: Vec<String>,
    restart: Option<String>,
) -> Result<SetupPage, UseCaseError> {
    let (broker, caller) = (edge.broker(), signed_in.caller());
    let setup = broker.setup(&caller).await?;
    let draft = broker.risk_draft(&caller).await?;
    let site = broker.site(&caller, DEFAULT_SITE).await?;
    let done = setup.steps().iter().filter(|(_, is_done)| *is_done).count();
    let on = draft.mitigations.iter().filter(|row| row.standing == Standing::On).count();
    Ok(SetupPage {
        chrome: Chrome { live: false, ..chrome(edge, &signed_in.session, &t("Set up Pairgate"), "settings").await },
        next: setup.next().unwrap_or_default(),
        change,
        can_change_address: broker.address().is_some_and(|file| !file.is_overruled()),
        issuer: broker.endpoints().issuer.clone(),
        site_name: site.map_or_else(String::new, |site| site.name),
        progress: tf("{0} of 7 steps are done.", &[&done.to_string()]),
        done,
        registered: tn(setup.devices, "{0} device is registered.", "{0} devices are registered."),
        paired: tn(setup.paired, "{0} device is paired.", "{0} devices are paired."),
        in_force: tf("{0} of the 17 mitigations of RFC 10027 are in force.", &[&on.to_string()]),
        local_ca: form.way == "local_ca",
        setup,
        draft,
        form,
        errors,
        restart,
    })
}

/// `POST /setup`.
pub async fn act(State(edge): State<Edge>, form: PageForm) -> Response {
    let (broker, caller) = (edge.broker(), form.signed_in.caller());
    let outcome = match form.field("action").as_str() {
        "address" => return choose_address(&edge, &form).await,
        "site" => name_site(&edge, &form).await,
        "kinds" => broker.confirm_kinds(&caller).await,
        "finish" => match broker.finish_setup(&caller).await {
            Ok(()) => return Redirect::to("/").into_response(),
            Err(error) => Err(error),
        },
        _ => return refused_form(),
    };
    let errors = match outcome {
        Ok(()) => return Redirect::to("/setup").into_response(),
        Err(UseCaseError::NotAllowed) => return no_such_page(),
        Err(error) => problems(error),
    };
    match errors {
        Ok(errors) => render(&edge, &form.signed_in, typed(&form), String::new(), errors, None).await,
        Err(response) => response,
    }
}

fn typed(form: &PageForm) -> Typed {
    Typed {
        way: form.field("way"),
        host: form.field("host"),
        port: form.field("port"),
        certificate: form.field("certificate"),
        key: form.field("key"),
        directory: form.field("directory"),
        contact: form.field("contact"),
        site_name: form.field("site_name"),
        networks: form.field("networks"),
    }
}

async fn choose_address(edge: &Edge, form: &PageForm) -> Response {
    let (broker, signed_in, typed) = (edge.broker(), &form.signed_in, typed(form));
    let way = match typed.way.as_str() {
        "local" => Way::ThisMachine,
        "local_ca" => Way::LocalCa,
        "files" => Way::Files { certificate: typed.certificate.clone().into(), key: typed.key.clone().into() },
        "acme" => Way::Acme { directory: typed.directory.clone(), contact: typed.contact.clone() },
        "proxy" => Way::Proxy,
        _ => return refused_form(),
    };
    let Ok(port) = typed.port.parse() else {
        let errors = vec![t("The port is a number from 1 to 65535; 443 is usual.")];
        return render(edge, signed_in, typed, "address".into(), errors, None).await;
    };
    let address = Address { host: typed.host.clone(), port, way };
    let caller = signed_in.caller();
    let outcome = match broker.choose_address(&caller, &address).await {
        Ok(Some(url)) => broker.link_at(&caller, &signed_in.session.operator.name, &url).await.map(Some),
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    };
    match outcome.map_err(problems) {
        Ok(Some(link)) => render(edge, signed_in, typed, String::new(), Vec::new(), Some(link)).await,
        Ok(None) => Redirect::to("/setup").into_response(),
        Err(Ok(errors)) => render(edge, signed_in, typed, "address".into(), errors, None).await,
        Err(Err(response)) => response,
    }
}

async fn name_site(edge: &Edge, form: &PageForm) -> Result<(), UseCaseError> {
    let (broker, caller) = (edge.broker(), form.signed_in.caller());
    let mut networks = Vec::new();
    for word in form.field("networks").split([' ', ',', ';']).filter(|word| !word.is_empty()) {
        let network = word
            .parse()
            .map_err(|_| UseCaseError::Refused(vec![tf("'{0}' is no network; one looks like 10.2.0.0/16", &[word])]))?;
        networks.push(network);
    }
    let site = broker.site(&caller, DEFAULT_SITE).await?.unwrap_or_else(|| Site::plain(DEFAULT_SITE, ""));
    let seen = Broker::site_seen(&site);
    broker.set_site(&caller, Some(&seen), Site { name: form.field("site_name"), networks, ..site }).await
}

/// A signed version, for the list.
struct Version {
    number: i64,
    title: String,
    at: When,
    by: String,
    accepted_by: String,
    residual: String,
    check: Fact,
}

#[derive(Template)]
#[template(path = "risk.html")]
struct RiskPage {
    chrome: Chrome,
    draft: RiskAssessment,
    sign_heading: String,
    versions: Vec<Version>,
    residual: String,
    accepted_by: String,
    errors: Vec<String>,
}

/// `GET /settings/risk`.
pub async fn risk(State(edge): State<Edge>, signed_in: SignedIn) -> Response {
    render_risk(&edge, &signed_in, [String::new(), String::new()], Vec::new()).await
}

async fn render_risk(edge: &Edge, signed_in: &SignedIn, typed: [String; 2], errors: Vec<String>) -> Response {
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    match risk_page(edge, signed_in, typed, errors).await {
        Ok(risk) => page(status, &risk),
        Err(error) => refusal(error),
    }
}

async fn risk_page(
    edge: &Edge,
    signed_in: &SignedIn,
    [residual, accepted_by]: [String; 2],
    errors: Vec<String>,
) -> Result<RiskPage, UseCaseError> {
    let (broker, caller) = (edge.broker(), signed_in.caller());
    let draft = broker.risk_draft(&caller).await?;
    let mut versions = Vec::new();
    for record in broker.risk_records(&caller).await? {
        versions.push(version(edge, &record).await?);
    }
    Ok(RiskPage {
        chrome: chrome(edge, &signed_in.session, &t("Risk assessment"), "settings").await,
        sign_heading: tf("Sign version {0}", &[&draft.version.to_string()]),
        draft,
        versions,
        residual,
        accepted_by,
        errors,
    })
}

async fn version(edge: &Edge, record: &RiskRecord) -> Result<Version, UseCaseError> {
    let is_good = edge.broker().is_risk_record_good(record).await?;
    let document: serde_json::Value = serde_json::from_str(&record.document).unwrap_or_default();
    let text = |name: &str| document.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let (state, words) = if is_good {
        (FactState::Verified, t("Its signature holds, and the audit log has it"))
    } else {
        (FactState::Failed, t("This is not what was signed"))
    };
    Ok(Version {
        number: record.version,
        title: tf("Version {0}", &[&record.version.to_string()]),
        at: when(record.at, edge.broker().now()),
        by: who(&record.by),
        accepted_by: text("accepted_by"),
        residual: text("residual"),
        check: Fact { state, text: words, detail: None },
    })
}

/// `POST /settings/risk`.
pub async fn sign_risk(State(edge): State<Edge>, form: PageForm) -> Response {
    let (residual, accepted_by) = (form.field("residual"), form.field("accepted_by"));
    match edge.broker().accept_risk(&form.signed_in.caller(), &residual, &accepted_by).await {
        Ok(_) => Redirect::to("/settings/risk").into_response(),
        Err(UseCaseError::NotAllowed) => no_such_page(),
        Err(error) => match problems(error) {
            Ok(errors) => render_risk(&edge, &form.signed_in, [residual, accepted_by], errors).await,
            Err(response) => response,
        },
    }
}

/// `GET /settings/risk/{version}`: the signed record, as a JWS that anybody can check.
pub async fn download_risk(
    State(edge): State<Edge>,
    signed_in: SignedIn,
    PagePath(version): PagePath<i64>,
) -> Response {
    let records = match edge.broker().risk_records(&signed_in.caller()).await {
        Ok(records) => records,
        Err(error) => return refusal(error),
    };
    let Some(record) = records.into_iter().find(|record| record.version == version) else { return no_such_page() };
    let name = format!("attachment; filename=\"risk-assessment-{version}.jws\"");
    let headers = [(header::CONTENT_TYPE, "application/jose".to_owned()), (header::CONTENT_DISPOSITION, name)];
    (headers, record.signature).into_response()
}
