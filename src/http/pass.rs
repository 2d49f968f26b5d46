//! Who holds a technician's pass, as an extractor.
//!
//! Its cookie is no session of an operator: no other page of ours knows it (`extract.rs`), and the broker lets it do nothing but pair its one device.

use std::collections::HashMap;
use std::net::IpAddr;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Redirect, Response};

use crate::broker::technicians::Pass;
use crate::http::Edge;
use crate::http::cookies::cookie;
use crate::http::extract::{Peer, PostedForm};
use crate::http::present::{refused_form, unavailable};
use crate::secret::is_equal;

/// The pass of a technician.
pub const PASS_COOKIE: &str = "__Host-technician";

/// Somebody with a technician's pass. Everybody else is sent to the page where codes are typed.
pub struct Passed {
    /// What it is good for.
    pub pass: Pass,
    /// From where it is used.
    pub peer: Option<IpAddr>,
}

impl FromRequestParts<Edge> for Passed {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Response> {
        let Peer(peer) = Peer::from_request_parts(parts, edge).await.unwrap_or(Peer(None));
        let pass = match cookie(&parts.headers, PASS_COOKIE) {
            Some(id) => edge.broker().technician_pass(id).await.map_err(|error| unavailable(&error))?,
            None => None,
        };
        pass.map(|pass| Self { pass, peer }).ok_or_else(|| Redirect::to("/technician").into_response())
    }
}

/// A form posted by a page of this pass.
pub struct PassForm {
    /// Whose it is.
    pub passed: Passed,
    fields: HashMap<String, String>,
}

impl PassForm {
    /// What was typed, trimmed; empty if there is nothing.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.trim())
    }
}

impl FromRequest<Edge> for PassForm {
    type Rejection = Response;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        Passed::from_request_parts(&mut parts, edge).await?;
        let PostedForm(fields) = PostedForm::from_request(Request::from_parts(parts.clone(), body), edge).await?;
        // Once more: the body may have been held back until the pass was over.
        let passed = Passed::from_request_parts(&mut parts, edge).await?;
        let csrf = edge.broker().technician_csrf(&passed.pass);
        let is_ours = fields.get("csrf").is_some_and(|token| is_equal(csrf.as_bytes(), token.as_bytes()));
        if is_ours { Ok(Self { passed, fields }) } else { Err(refused_form()) }
    }
}

/// Has this browser a pass that is good?
pub async fn has_pass(edge: &Edge, headers: &HeaderMap) -> bool {
    match cookie(headers, PASS_COOKIE) {
        Some(id) => edge.broker().technician_pass(id).await.is_ok_and(|pass| pass.is_some()),
        None => false,
    }
}
