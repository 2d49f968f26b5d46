//! One spelling per address. A proxy in front and the routes here must never read one request as two different addresses.
//!
//! Whatever has a second reading somewhere (`//`, dot segments, `;x`, `\`, encoded letters, slashes and control characters) is refused before any route is
//! looked for. Nothing is repaired: a client that means well never sends these.

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

/// Refuses every path that can be read in two ways. In front of everything.
pub async fn only_one_reading(request: Request, next: Next) -> Response {
    if is_plain(request.uri().path()) {
        return next.run(request).await;
    }
    let advice = "This address is written in a way that servers read differently. Write it plainly.\n";
    (StatusCode::BAD_REQUEST, [(header::CACHE_CONTROL, "no-store")], advice).into_response()
}

/// Has this path one reading only?
///
/// An empty last segment (`/devices/`) is allowed: it is another address than without the slash, and no route has it.
pub fn is_plain(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    let last = rest.split('/').count() - 1;
    rest.split('/').enumerate().all(|(index, segment)| match segment {
        "" => index == last,
        segment => is_plain_segment(segment),
    })
}

fn is_plain_segment(segment: &str) -> bool {
    // Some file systems and proxies drop dots and spaces at the end of a name.
    let Some(bytes) = decoded(segment) else { return false };
    !bytes.ends_with(b".") && !bytes.ends_with(b" ") && !bytes.starts_with(b" ")
}

/// The segment's bytes; `None` if it has more than one spelling, or characters that somebody might take for a separator.
fn decoded(segment: &str) -> Option<Vec<u8>> {
    let mut bytes = segment.bytes();
    let mut decoded = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (high, low) = (bytes.next().and_then(hexadecimal)?, bytes.next().and_then(hexadecimal)?);
                let byte = high << 4 | low;
                // Unreserved characters (RFC 3986 section 2.3) stand as they are; separators and controls never stand in a name of ours.
                let is_unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
                if is_unreserved || byte.is_ascii_control() || b"/\\;%?#".contains(&byte) {
                    return None;
                }
                decoded.push(byte);
            }
            b';' | b'\\' | b' ' => return None,
            byte if !byte.is_ascii_graphic() => return None,
            byte => decoded.push(byte),
        }
    }
    Some(decoded)
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_two_readings_is_refused_a_093() {
        for good in [
            "/",
            "/devices",
            "/devices/",
            "/.well-known/oauth-authorization-server",
            "/assets/style-3f9c.css",
            "/operators/dana@example.org",
            "/operators/dana%40example.org",
            "/devices/%C3%A9",
            "/api/v1/sites/berlin",
        ] {
            assert!(is_plain(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "devices",
            "//",
            "//devices",
            "/api//v1",
            "/devices//",
            "/.",
            "/..",
            "/./devices",
            "/x/../devices",
            "/%2e/devices",
            "/%2E%2e/devices",
            "/.%2e/devices",
            "/devices;x",
            "/;/devices",
            "/devices%3bx",
            "/devices\\x",
            "/devices%5cx",
            "/devices%2fx",
            "/devices%2F",
            "/devices%00",
            "/devices%0a",
            "/devices%7f",
            "/%64evices",
            "/devices%2D1",
            "/devices%252e",
            "/devices%",
            "/devices%2",
            "/devices%zz",
            "/devices.",
            "/devices./x",
            "/devices%20",
            "/%20devices",
            "/devices%3fx",
            "/devices%23x",
        ] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
