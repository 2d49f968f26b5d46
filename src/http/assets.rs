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
    }
});

/// `GET /assets/{name}`.
pub async fn serve(Path(name): Path<String>) -> Response {
    let found = [&ASSETS.css, &ASSETS.js, &ASSETS.passkey, &ASSETS.icon]
        .into_iter()
        .find(|asset| asset.href.strip_prefix("/assets/") == Some(&name));
    let Some(asset) = found else { return (StatusCode::NOT_FOUND, "There is no such file.\n").into_response() };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.media_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, asset.content).into_response()
}
