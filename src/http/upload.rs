//! A form with a file in it: the session's token first, then what was chosen, in bounds and in time.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::multipart::{Multipart, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts as _, Request};
use axum::http::StatusCode;
use axum::response::Response;

use crate::http::Edge;
use crate::http::extract::SignedIn;
use crate::http::lang::{here, t, tf};
use crate::http::present::{message, refused_form};

/// So much is allowed for what stands around the file.
const AROUND: usize = 64 * 1024;
const MIB: usize = 1024 * 1024;
/// Fields besides the file.
const MAX_FIELDS: usize = 16;
/// It must have arrived after this long; a slow line has its time.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// For a route that takes files of at most `MAX` bytes.
pub fn body_limit<const MAX: usize>() -> DefaultBodyLimit {
    DefaultBodyLimit::max(MAX + AROUND)
}

/// A form with a file of at most `MAX` bytes, sent by a page of this session. Its route needs [`body_limit`].
pub struct Upload<const MAX: usize> {
    /// Who sent it.
    pub signed_in: SignedIn,
    /// The file; empty if none was chosen.
    pub file: Vec<u8>,
    fields: HashMap<String, String>,
}

impl<const MAX: usize> Upload<MAX> {
    /// A field's value; empty if absent.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// Why a form was not read.
enum Unread {
    /// It is none of ours.
    Foreign,
    /// It is too large, or broke off.
    TooLarge,
    /// It took too long.
    TooSlow,
}

impl From<MultipartError> for Unread {
    fn from(error: MultipartError) -> Self {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE { Self::TooLarge } else { Self::Foreign }
    }
}

impl<const MAX: usize> FromRequest<Edge> for Upload<MAX> {
    type Rejection = Response;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let signed_in = SignedIn::from_request_parts(&mut parts, edge).await?;
        let form = Multipart::from_request(Request::from_parts(parts.clone(), body), edge).await;
        let form = form.map_err(|_| refused_form())?;
        let read = tokio::time::timeout(UPLOAD_TIMEOUT, read(form, edge, &signed_in)).await;
        match read.unwrap_or(Err(Unread::TooSlow)) {
            Ok((file, fields)) => {
                // Once more: two minutes are enough to lose every right.
                let signed_in = SignedIn::from_request_parts(&mut parts, edge).await?;
                Ok(Self { signed_in, file, fields })
            }
            Err(Unread::Foreign) => Err(refused_form()),
            Err(Unread::TooLarge) => {
                let most = if MAX < MIB { format!("{} KiB", MAX / 1024) } else { format!("{} MiB", MAX / MIB) };
                let lines = vec![
                    tf("The file is larger than {0}.", &[&most]),
                    t("Nothing was changed. Split it into several files."),
                ];
                let back = here();
                Err(message(StatusCode::PAYLOAD_TOO_LARGE, &t("Too large"), lines, Some((&back, &t("Import")))))
            }
            Err(Unread::TooSlow) => {
                let lines =
                    vec![t("The file did not arrive within two minutes."), t("Nothing was changed. Try again.")];
                let back = here();
                Err(message(StatusCode::REQUEST_TIMEOUT, &t("Too slow"), lines, Some((&back, &t("Import")))))
            }
        }
    }
}

async fn read(
    mut form: Multipart,
    edge: &Edge,
    signed_in: &SignedIn,
) -> Result<(Vec<u8>, HashMap<String, String>), Unread> {
    let (mut file, mut fields) = (Vec::new(), HashMap::new());
    let mut is_ours = false;
    while let Some(field) = form.next_field().await? {
        let name = field.name().unwrap_or_default().to_owned();
        // Before anything large is read it must be known that a page of ours sent it.
        if !is_ours {
            let token = field.text().await?;
            is_ours = name == "csrf" && edge.broker().is_csrf_token(&signed_in.session, token.trim());
            if !is_ours {
                return Err(Unread::Foreign);
            }
        } else if name == "file" && file.is_empty() {
            file = field.bytes().await?.to_vec();
        } else {
            let text = field.text().await?;
            // One that stands twice makes two readings possible.
            if fields.insert(name, text).is_some() || fields.len() > MAX_FIELDS {
                return Err(Unread::Foreign);
            }
        }
    }
    if is_ours { Ok((file, fields)) } else { Err(Unread::Foreign) }
}
