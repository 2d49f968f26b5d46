//! `/api/v1/sites…`, `/api/v1/operators` and `/api/v1/audit`. People are only listed: a program neither adds nor changes them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use ipnet::IpNet;
use serde::Deserialize;

use crate::broker::{Broker, UseCaseError};
use crate::http::Edge;
use crate::http::api::shapes::{Listed, OperatorShape, SiteShape};
use crate::http::api::{ApiBody, ApiPath, Program, answer, failed};
use crate::model::site::Site;

/// `GET /sites`: those that the token knows of, by id.
pub async fn list(State(edge): State<Edge>, Program(caller): Program) -> Response {
    let found = edge.broker().sites(&caller).await.map_err(UseCaseError::Store);
    answer(found, |sites| Listed::whole(sites.iter().map(SiteShape::from)))
}

/// `GET /sites/{id}`.
pub async fn show(State(edge): State<Edge>, Program(caller): Program, ApiPath(id): ApiPath) -> Response {
    answer(edge.broker().site_for(&caller, &id).await, |site| SiteShape::from(&site))
}

/// A site to add.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSite {
    id: String,
    name: String,
    #[serde(default)]
    networks: Vec<IpNet>,
    #[serde(default)]
    two_persons: bool,
    #[serde(default)]
    quiet_hours: String,
}

/// `POST /sites`.
pub async fn add(State(edge): State<Edge>, Program(caller): Program, ApiBody(new): ApiBody<NewSite>) -> Response {
    let NewSite { id, name, networks, two_persons, quiet_hours } = new;
    let site = Site { id, name, networks, two_persons, quiet_hours };
    match edge.broker().add_site(&caller, site.clone()).await {
        Ok(()) => (StatusCode::CREATED, Json(SiteShape::from(&site))).into_response(),
        Err(error) => failed(error),
    }
}

/// What changes of a site; what is left out stays. Networks, and whether two persons must approve, are no program's to change.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteChange {
    name: Option<String>,
    networks: Option<Vec<IpNet>>,
    two_persons: Option<bool>,
    quiet_hours: Option<String>,
}

/// `PATCH /sites/{id}`.
pub async fn change(
    State(edge): State<Edge>,
    Program(caller): Program,
    ApiPath(id): ApiPath,
    ApiBody(change): ApiBody<SiteChange>,
) -> Response {
    let former = match edge.broker().site_for(&caller, &id).await {
        Ok(site) => site,
        Err(error) => return failed(error),
    };
    let seen = Broker::site_seen(&former);
    let site = Site {
        name: change.name.unwrap_or(former.name),
        networks: change.networks.unwrap_or(former.networks),
        two_persons: change.two_persons.unwrap_or(former.two_persons),
        quiet_hours: change.quiet_hours.unwrap_or(former.quiet_hours),
        id: former.id,
    };
    match edge.broker().set_site(&caller, Some(&seen), site).await {
        Ok(()) => show(State(edge), Program(caller), ApiPath(id)).await,
        Err(error) => failed(error),
    }
}

/// `GET /operators`.
pub async fn operators(State(edge): State<Edge>, Program(caller): Program) -> Response {
    answer(edge.broker().people(&caller).await, |people| Listed::whole(people.iter().map(OperatorShape::from)))
}
