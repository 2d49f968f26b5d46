//! The stylesheet, the scripts and the icon: built in, named by their content, kept by browsers for a year.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use crate::secret::{b64u, sha256};

/// One file.
pub struct Asset {
    /// Address below this host, with a hash of the content in it.
    pub href: String,
    media_type: &'static str,
    content: &'static str,
}

/// All files.
pub struct Assets {
    /// `style.css`.
    pub css: Asset,
    /// `live.js`.
    pub js: Asset,
    /// `passkey.js`.
    pub passkey: Asset,
    /// `icon.svg`.
    pub icon: Asset,
    /// `labels.css`.
    pub labels: Asset,
    /// The size of a page of labels: `paper-a4.css`. In files of their own, since `@page` knows no classes in all browsers.
    pub paper_a4: Asset,
    /// `paper-letter.css`.
    pub paper_letter: Asset,
    /// `paper-roll.css`.
    pub paper_roll: Asset,
}

/// The files of this build.
pub static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    let asset = |stem: &str, ending: &str, media_type, content: &'static str| Asset {
        href: format!("/assets/{stem}.{}.{ending}", &b64u(&sha256(&[content.as_bytes()]))[..10]),
        media_type,
        content,
    };
    Assets {
        css: asset("style", "css", "text/css; charset=utf-8", include_str!("assets/style.css")),
        js: asset("live", "js", "text/javascript; charset=utf-8", include_str!("assets/live.js")),
        passkey: asset("passkey", "js", "text/javascript; charset=utf-8", include_str!("assets/passkey.js")),
        icon: asset("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg")),
        labels: asset("labels", "css", "text/css; charset=utf-8", include_str!("assets/labels.css")),
        paper_a4: asset("paper-a4", "css", "text/css; charset=utf-8", include_str!("assets/paper-a4.css")),
        paper_letter: asset("paper-letter", "css", "text/css; charset=utf-8", include_str!("assets/paper-letter.css")),
        paper_roll: asset("paper-roll", "css", "text/css; charset=utf-8", include_str!("assets/paper-roll.css")),
    }
});

/// `GET /assets/{name}`.
pub async fn serve(Path(name): Path<String>) -> Response {
    let all = [
        &ASSETS.css,
        &ASSETS.js,
        &ASSETS.passkey,
        &ASSETS.icon,
        &ASSETS.labels,
        &ASSETS.paper_a4,
        &ASSETS.paper_letter,
        &ASSETS.paper_roll,
    ];
    let found = all.into_iter().find(|asset| asset.href.strip_prefix("/assets/") == Some(&name));
    let Some(asset) = found else { return (StatusCode::NOT_FOUND, "There is no such file.\n").into_response() };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.media_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, asset.content).into_response()
}
