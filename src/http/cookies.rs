//! Cookies as they stand in headers. Each page's own cookie, and what it is good for, is in that page's file.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

/// A cookie's value.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// Adds a cookie to an answer.
pub fn set_cookie(response: &mut Response, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let headers =
            HeaderMap::from_iter([(header::COOKIE, "a=1; __Host-pairgate=abc; x__Host-pairgate=no".parse().unwrap())]);
        assert_eq!(cookie(&headers, "__Host-pairgate"), Some("abc"));
        assert_eq!(cookie(&headers, "Host-pairgate"), None);
    }
}
