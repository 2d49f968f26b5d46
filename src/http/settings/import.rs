//! `/settings/import` and `/settings/export`: the policy as a file. A form with a file is larger than all others, and comes as `multipart/form-data`.

use askama::Template;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use crate::config::policy::MAX_POLICY;
use crate::http::Edge;
use crate::http::extract::SignedIn;
use crate::http::lang::{filters, t};
use crate::http::present::{chrome, page};
use crate::http::settings::{Step, lines_or_page, refusal, status, take};
use crate::http::upload::Upload;
use crate::http::views::Chrome;

#[derive(Template)]
#[template(path = "settings_import.html")]
struct ImportPage {
    chrome: Chrome,
    text: String,
    base: String,
    fresh: bool,
    errors: Vec<String>,
}

/// The file, or else what was pasted.
fn policy(form: &Upload<MAX_POLICY>) -> String {
    // Not UTF-8: the reader of the text says so.
    let file = String::from_utf8_lossy(&form.file);
    let text = if file.trim().is_empty() { form.field("text") } else { &file };
    text.trim_start_matches('\u{feff}').replace("\r\n", "\n")
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
pub async fn import(State(edge): State<Edge>, form: Upload<MAX_POLICY>) -> Response {
    let text = policy(&form);
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
