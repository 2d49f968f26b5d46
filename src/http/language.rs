//! The choice of a language (`lang` speaks it).

use axum::response::{IntoResponse as _, Redirect, Response};

use crate::http::cookies::set_cookie;
use crate::http::extract::{PostedForm, is_own_path};
use crate::http::lang::{LANGUAGE_COOKIE, LANGUAGES, by_code};

/// `POST /language`: remembers the choice and goes back. Nobody need be signed in.
pub async fn choose(PostedForm(form): PostedForm) -> Response {
    let chosen = form.get("language").and_then(|code| by_code(code)).unwrap_or(&LANGUAGES[0]);
    let mut response =
        Redirect::to(form.get("back").filter(|path| is_own_path(path)).map_or("/", String::as_str)).into_response();
    let cookie = format!("{LANGUAGE_COOKIE}={}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=31536000", chosen.code);
    set_cookie(&mut response, &cookie);
    response
}
