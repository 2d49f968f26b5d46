//! `/settings/import` and `/settings/export`: the policy as a file. A form with a file is larger than all others, and comes as `multipart/form-data`.

use std::collections::HashMap;
use std::time::Duration;

use askama::Template;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts as _, Multipart, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use crate::config::policy::MAX_POLICY;
use crate::http::Edge;
use crate::http::extract::SignedIn;
use crate::http::lang::{filters, t};
use crate::http::present::{chrome, page, refused_form};
use crate::http::settings::{Step, lines_or_page, refusal, status, take};
use crate::http::views::Chrome;

/// The largest form: text and file, and what is around them.
const MAX_FORM: usize = 2 * MAX_POLICY + 16 * 1024;
/// It must have arrived after this long.
const TIMEOUT: Duration = Duration::from_secs(30);
/// No form of this page has more fields.
const MAX_FIELDS: usize = 8;

#[derive(Template)]
#[template(path = "settings_import.html")]
struct ImportPage {
    chrome: Chrome,
    text: String,
    base: String,
    fresh: bool,
    errors: Vec<String>,
}

/// A form with a file, of a page of this session.
pub struct FileForm {
    signed_in: SignedIn,
    fields: HashMap<String, String>,
}

impl FromRequest<Edge> for FileForm {
    type Rejection = Response;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let signed_in = SignedIn::from_request_parts(&mut parts, edge).await?;
        let body = match tokio::time::timeout(TIMEOUT, axum::body::to_bytes(body, MAX_FORM)).await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) => {
                let what = t("The form is larger than 540672 bytes, or broke off. A policy has at most 262144.");
                return Err((StatusCode::PAYLOAD_TOO_LARGE, what).into_response());
            }
            Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, t("The form did not arrive in time.")).into_response()),
        };
        let request = Request::from_parts(parts, Body::from(body));
        let mut form = Multipart::from_request(request, edge).await.map_err(|_| refused_form())?;
        let mut fields = HashMap::new();
        while let Some(field) = form.next_field().await.map_err(|_| refused_form())? {
            let name = field.name().unwrap_or_default().to_owned();
            let bytes = field.bytes().await.map_err(|_| refused_form())?;
            // Not UTF-8: the reader of the text says so.
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if fields.len() >= MAX_FIELDS || fields.insert(name, text).is_some() {
                return Err(refused_form());
            }
        }
        let is_ours = fields.get("csrf").is_some_and(|token| edge.broker().is_csrf_token(&signed_in.session, token));
        if is_ours { Ok(Self { signed_in, fields }) } else { Err(refused_form()) }
    }
}

impl FileForm {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The file, or else what was pasted.
    fn policy(&self) -> String {
        let file = self.field("file");
        let text = if file.trim().is_empty() { self.field("text") } else { file };
        text.trim_start_matches('\u{feff}').replace("\r\n", "\n")
    }
}

/// `GET /settings/import`.
pub async fn show(State(edge): State<Edge>, signed_in: SignedIn) -> Response {
    render(&edge, &signed_in, String::new(), String::new(), Vec::new()).await
}

async fn render(edge: &Edge, signed_in: &SignedIn, text: String, base: String, errors: Vec<String>) -> Response {
    let (broker, caller) = (edge.broker(), signed_in.caller());
    if let Err(error) = broker.must_administer(&caller, true) {
        return refusal(error);
    }
    let import = ImportPage {
        chrome: chrome(edge, &signed_in.session, &t("Import a policy"), "settings").await,
        text,
        base: if base.is_empty() { broker.policy().version().to_string() } else { base },
        fresh: broker.is_fresh(&caller),
        errors,
    };
    page(status(&import.errors), &import)
}

/// `POST /settings/import`.
pub async fn import(State(edge): State<Edge>, form: FileForm) -> Response {
    let text = form.policy();
    let base = form.field("base").to_owned();
    let step = Step {
        action: "/settings/import".into(),
        back: "/settings/import".into(),
        fields: vec![("text".into(), text.clone())],
        base: base.clone(),
        is_sure: form.field("sure") == "yes",
        multipart: true,
    };
    let outcome = match edge.broker().propose_policy(&form.signed_in.caller(), &text).await {
        Ok(change) => take(&edge, &form.signed_in, &change, step).await,
        Err(error) => lines_or_page(error),
    };
    match outcome {
        Ok(response) => response,
        Err(problems) => render(&edge, &form.signed_in, text, base, problems).await,
    }
}

/// `GET /settings/export`: the file.
pub async fn export(State(edge): State<Edge>, signed_in: SignedIn) -> Response {
    match edge.broker().export_policy(&signed_in.caller()).await {
        Ok(text) => {
            let headers = [
                (header::CONTENT_TYPE, "application/toml"),
                (header::CONTENT_DISPOSITION, "attachment; filename=\"policy.toml\""),
            ];
            (headers, text).into_response()
        }
        Err(error) => refusal(error),
    }
}
