//! The HTTP edge: every route on one page, with who may call it. Handlers extract, make one broker call, and render.
//!
//! | routes | who | file |
//! | --- | --- | --- |
//! | `/pairing`, `/pairing/poll`, `/device_authorization`, `/token`, `/revoke` | devices, each authenticated by the broker | [`device`] |
//! | `/introspect` | resources, each authenticated by the broker | [`device`] |
//! | `/.well-known/oauth-authorization-server`, `/.well-known/openid-configuration`, `/jwks`, `/openapi.json`, `/assets/…` | anyone; nothing secret | [`device`], [`assets`] |
//! | `/api/v1/…` | programs with a token; only if `[api]` is configured, and then here or on a listener of its own | [`api`] |
//! | `/mqtt/auth`, `/mqtt/acl`, each also with the secret as last segment | MQTT brokers with the hook secret; only if `[mqtt] hook_secret_file` is set | [`mqtt_hooks`] |
//! | `/sign-in`, `/sign-in/passkey/…`, `/language` | anyone | [`sign_in`], [`passkeys`], [`language`] |
//! | `/account`, `/account/passkeys/…`, `/sign-in/again` | signed-in operators, about themselves | [`account`], [`passkeys`], [`sign_in`] |
//! | `/sign-in/sso`, `/sign-in/sso/callback` | anyone; who it is, the organisation's identity provider says | [`sso`] |
//! | `/operators`, `/operators/{name}` | signed-in operators who administer something | [`operators`] |
//! | `/technician`, `/technician/pair/{id}` | whoever holds a technician's code, for its one device | [`technician`] |
//! | all others | signed-in operators; the broker checks their role | [`overview`], [`device_list`], [`bulk`], [`import`], [`labels`], [`device_edit`], [`device_page`], [`pair`], [`walk`], [`approve`], [`approvers`], [`alerts`], [`audit`], [`events`], [`settings`], [`tokens`], [`setup`] |
//!
//! There are no metrics, health, debug or listing routes, no CORS headers, and no redirects off this host.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use ipnet::IpNet;
use tokio::sync::watch;
use tower_http::csrf::CsrfLayer;

use crate::broker::Broker;
use crate::config::policy::MAX_POLICY;
use crate::http::extract::SignedIn;
use crate::http::mqtt_hooks::Hooks;
use crate::http::places::Places;
use crate::spreadsheet::MAX_FILE;

pub mod account;
pub mod alerts;
pub mod api;
pub mod approve;
pub mod approvers;
pub mod assets;
pub mod audit;
pub mod bulk;
pub mod chart;
pub mod cookies;
pub mod device;
pub mod device_edit;
pub mod device_list;
pub mod device_page;
pub mod events;
pub mod extract;
pub mod filter;
pub mod import;
pub mod labels;
pub mod lang;
pub mod language;
pub mod mqtt_hooks;
pub mod mqtt_questions;
pub mod operators;
pub mod overview;
pub mod pair;
pub mod pass;
pub mod passkeys;
pub mod path;
pub mod places;
pub mod present;
pub mod qr;
pub mod serve;
pub mod settings;
pub mod setup;
pub mod sign_in;
pub mod site_choice;
pub mod sso;
pub mod technician;
pub mod tokens;
pub mod upload;
pub mod views;
pub mod walk;

/// What handlers share.
#[derive(Clone)]
pub struct Edge(Arc<Shared>);

struct Shared {
    broker: Arc<Broker>,
    /// `host` or `host:port` of the issuer, as a `Host` header has it.
    authority: String,
    /// The same of the side for client certificates.
    mtls_authority: Option<String>,
    trusted_proxies: Vec<IpNet>,
    client_cert_header: bool,
    stopping: watch::Receiver<bool>,
}

impl Edge {
    /// For one broker at one issuer. `stopping` turns true when held answers should end; `client_cert_header` says whether trusted proxies are believed
    /// which certificate they were shown (RFC 9440).
    pub fn new(
        broker: Arc<Broker>,
        trusted_proxies: Vec<IpNet>,
        client_cert_header: bool,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let endpoints = broker.endpoints();
        let authority = authority(&endpoints.issuer);
        let mtls_authority = endpoints.mtls.as_ref().map(|mtls| authority_of_endpoint(&mtls.token));
        Self(Arc::new(Shared { broker, authority, mtls_authority, trusted_proxies, client_cert_header, stopping }))
    }

    fn broker(&self) -> &Broker {
        &self.0.broker
    }
}

fn authority(base: &str) -> String {
    base.split_once("://").map_or(base, |(_, authority)| authority).to_ascii_lowercase()
}

fn authority_of_endpoint(address: &str) -> String {
    authority(address).split('/').next().unwrap_or_default().to_owned()
}

/// The routes of both sides.
#[derive(Clone)]
pub struct Sides {
    /// Pages and device endpoints.
    pub main: Router,
    /// Device endpoints alone, where client certificates are asked for.
    pub mtls: Router,
    /// Connections, of both sides together.
    pub places: Places,
}

impl Sides {
    /// All routes.
    pub fn new(edge: &Edge) -> Self {
        let places = Places::new(&edge.0.trusted_proxies);
        Self { main: router(edge.clone()), mtls: mtls_router(edge.clone()), places }
    }

    /// The same, with the administration API beside the pages.
    pub fn with_api(edge: &Edge) -> Self {
        Self { main: main_router(edge.clone(), api::routes(edge)), ..Self::new(edge) }
    }

    /// The same, with answers to the questions of MQTT brokers.
    pub fn with_hooks(self, edge: &Edge, hooks: Hooks) -> Self {
        let routes = mqtt_hooks::routes(hooks)
            .layer(middleware::from_fn_with_state(edge.clone(), only_main_host_with_port))
            .layer(middleware::from_fn(path::only_one_reading));
        Self { main: self.main.merge(routes.with_state(edge.clone())), ..self }
    }

    /// The administration API alone, for a listener of its own that answers to these hosts (`host:port`). Connections count with those of `beside`.
    pub fn api_alone(edge: &Edge, hosts: Vec<String>, beside: &Self) -> Self {
        let hosts: Arc<[String]> = hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect();
        let only_these = middleware::from_fn(move |request: Request, next: Next| {
            let hosts = Arc::clone(&hosts);
            async move {
                if hosts.iter().any(|host| is_for(&request, Some(host))) {
                    return next.run(request).await;
                }
                let advice =
                    format!("The administration API answers only at {}. Use that address.\n", hosts.join(", "));
                (StatusCode::MISDIRECTED_REQUEST, [(header::CACHE_CONTROL, "no-store")], advice).into_response()
            }
        });
        let routes = api::routes(edge).layer(only_these).layer(middleware::from_fn(path::only_one_reading));
        let router = routes.with_state(edge.clone());
        Self { main: router.clone(), mtls: router, places: beside.places.clone() }
    }
}

/// What devices and resources call.
fn devices() -> Router<Edge> {
    Router::new()
        .route("/pairing", post(device::pairing))
        .route("/pairing/poll", post(device::pairing_poll))
        .route("/device_authorization", post(device::device_authorization))
        .route("/token", post(device::token))
        .route("/revoke", post(device::revoke))
        .route("/introspect", post(device::introspect))
        .route("/jwks", get(device::jwks))
        .route("/openapi.json", get(device::openapi))
        .route("/.well-known/oauth-authorization-server", get(device::metadata))
        .route("/.well-known/openid-configuration", get(device::metadata))
}

/// Every route of the side where client certificates are asked for: no pages, no sessions, nothing for browsers.
fn mtls_router(edge: Edge) -> Router {
    devices()
        .layer(middleware::from_fn_with_state(edge.clone(), only_mtls_host))
        .layer(middleware::from_fn(path::only_one_reading))
        .with_state(edge)
}

/// Every route of the main side.
pub fn router(edge: Edge) -> Router {
    main_router(edge, Router::new())
}

fn main_router(edge: Edge, api: Router<Edge>) -> Router {
    let pages = Router::new()
        .route("/", get(overview::show))
        .route("/sign-in", get(sign_in::show).post(sign_in::sign_in))
        .route("/sign-in/again", get(sign_in::again))
        .route("/sign-in/passkey/begin", post(passkeys::begin_sign_in))
        .route("/sign-in/passkey/finish", post(passkeys::finish_sign_in))
        .route("/sign-in/sso", post(sso::begin))
        .route("/sign-in/sso/callback", get(sso::callback))
        .route("/operators", get(operators::list).post(operators::add))
        .route("/operators/{name}", get(operators::show).post(operators::act))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/account", get(account::show).post(account::act))
        .route("/account/passkeys/begin", post(passkeys::begin_adding))
        .route("/account/passkeys/finish", post(passkeys::finish_adding))
        .route("/devices/{id}/approvers", get(approvers::show).post(approvers::change))
        .route("/devices/{id}", get(device_page::show).post(device_page::act))
        .route("/devices", get(device_list::list).post(device_list::register))
        .route("/devices/export.csv", get(device_list::export))
        .route("/devices/bulk", get(bulk::begin_again).post(bulk::act))
        .route("/devices/undo", post(bulk::undo))
        .route("/devices/import", get(import::show).post(import::check).layer(upload::body_limit::<MAX_FILE>()))
        .route("/devices/import/register", post(import::register))
        .route("/devices/import/template.csv", get(import::template))
        .route("/devices/labels", get(labels::show))
        .route("/devices/{id}/edit", get(device_edit::show).post(device_edit::change))
        .route("/pair", get(pair::list).post(pair::window))
        .route("/pair/walk", get(walk::show))
        .route("/pair/{id}", get(pair::show).post(pair::decide))
        .route("/technician", get(technician::show).post(technician::enter))
        .route("/technician/pass", post(technician::act))
        .route("/technician/codes", get(technician::codes).post(technician::make_codes))
        .route("/technician/pair/{id}", get(technician::show_pairing).post(technician::decide))
        .route("/approve", get(approve::enter).post(approve::open))
        .route("/approve/{id}", get(approve::show).post(approve::decide))
        .route("/approve/{id}/undo", get(approve::approved).post(approve::undo))
        .route("/report", post(approve::report))
        .route("/alerts", get(alerts::list))
        .route("/audit", get(audit::list))
        .route("/events", get(events::stream))
        .route("/settings/tokens", get(tokens::show).post(tokens::act))
        .route("/settings", get(settings::show))
        .route("/settings/sites", get(settings::sites::list).post(settings::sites::add))
        .route("/settings/sites/{id}", get(settings::sites::show).post(settings::sites::change))
        .route("/settings/kinds", get(settings::kinds::list))
        .route("/settings/kinds/{id}", get(settings::kinds::show).post(settings::kinds::change))
        .route("/settings/kind", get(settings::kinds::new).post(settings::kinds::add))
        .route("/settings/resources", get(settings::resources::list))
        .route("/settings/resource", get(settings::resources::show).post(settings::resources::change))
        .route("/settings/policy", get(settings::policy::show).post(settings::policy::two_persons))
        .route("/settings/policy/{version}", get(settings::policy::version).post(settings::policy::decide))
        .route(
            "/settings/import",
            get(settings::import::show).post(settings::import::import).layer(upload::body_limit::<MAX_POLICY>()),
        )
        .route("/settings/export", get(settings::import::export))
        .route("/language", post(language::choose))
        .route("/setup", get(setup::show).post(setup::act))
        .route("/settings/risk", get(setup::risk).post(setup::sign_risk))
        .route("/settings/risk/{version}", get(setup::download_risk))
        .fallback(not_found)
        .layer(middleware::from_fn(lang::speak))
        .layer(CsrfLayer::new().with_rejection_response(present::cross_site))
        .layer(middleware::from_fn(page_headers))
        .route("/assets/{name}", get(assets::serve))
        .layer(middleware::from_fn_with_state(edge.clone(), only_main_host));
    devices()
        .merge(pages)
        .merge(api.layer(middleware::from_fn_with_state(edge.clone(), only_main_host)))
        .layer(middleware::from_fn_with_state(edge.clone(), only_our_host))
        .layer(middleware::from_fn(path::only_one_reading))
        .with_state(edge)
}

/// Every address that is not a route. Who is signed in keeps the navigation.
async fn not_found(_: Result<SignedIn, Response>) -> Response {
    present::no_such_page()
}

/// Refuses requests for another host: a page of an attacker whose name was re-pointed to this address must get nothing.
async fn only_our_host(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    // A trusted proxy may serve both sides by one listener of ours.
    let is_ours = is_for(&request, Some(&edge.0.authority))
        || (edge.0.client_cert_header && is_for(&request, edge.0.mtls_authority.as_deref()));
    if !is_ours {
        return misdirected(&edge);
    }
    let mut response = next.run(request).await;
    if edge.broker().endpoints().issuer.starts_with("https:") {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    response
}

/// Pages are for the main host alone, also where one listener serves both.
async fn only_main_host(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    if is_for(&request, Some(&edge.0.authority)) { next.run(request).await } else { misdirected(&edge) }
}

/// The same for brokers: some write the port even if it is the usual one, which is the same address (RFC 9110 section 4.2.3).
async fn only_main_host_with_port(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let usual = if edge.broker().endpoints().issuer.starts_with("https:") { 443 } else { 80 };
    let with_port = format!("{}:{usual}", edge.0.authority);
    let is_ours = is_for(&request, Some(&edge.0.authority)) || is_for(&request, Some(&with_port));
    if is_ours { next.run(request).await } else { misdirected(&edge) }
}

/// The same for the side of client certificates. Without it, whoever names one host in the handshake and another in the request would cross over.
async fn only_mtls_host(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    if is_for(&request, edge.0.mtls_authority.as_deref()) { next.run(request).await } else { misdirected(&edge) }
}

fn is_for(request: &Request, authority: Option<&str>) -> bool {
    let host = request
        .uri()
        .authority()
        .map(|authority| authority.as_str())
        .or_else(|| request.headers().get(header::HOST).and_then(|host| host.to_str().ok()));
    let is_named = host.zip(authority).is_some_and(|(host, authority)| host.eq_ignore_ascii_case(authority));
    is_named && request.headers().get_all(header::HOST).iter().count() <= 1
}

fn misdirected(edge: &Edge) -> Response {
    let advice = format!("This server answers only at {}. Use that address.\n", edge.broker().endpoints().issuer);
    (StatusCode::MISDIRECTED_REQUEST, [(header::CACHE_CONTROL, "no-store")], advice).into_response()
}

/// What a browser may do with our pages: nothing but what we wrote, in no frame, and no address of ours told to others.
const PAGE_HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
];

async fn page_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in &PAGE_HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
