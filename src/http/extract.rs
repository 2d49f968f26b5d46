//! What handlers take from a request: who is at the other end, a small body, a signed-in operator, a form that belongs to the session.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use serde::de::DeserializeOwned;

use crate::broker::Caller;
use crate::broker::people::{Browser, Session, UsedBy};
use crate::http::cookies::cookie;
use crate::http::{Edge, present};
use crate::oauth::certificate::MAX_CERTIFICATE;
use crate::oauth::form::Form;

/// No request of ours has a larger body.
pub const MAX_BODY: usize = 16 * 1024;
/// Fields of a form of ours: a page of ticked rows among them.
const MAX_FIELDS: usize = 128;
/// A body must have arrived after this long.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// `__Host-`: only over TLS (or loopback), only this host, whole site.
pub const SESSION_COOKIE: &str = "__Host-pairgate";

/// The TCP peer; put into each request by the accept loop.
#[derive(Clone, Copy, Debug)]
pub struct TcpPeer(pub SocketAddr);

/// The caller's address: the TCP peer, or what a trusted proxy says of it.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub Option<IpAddr>);

impl FromRequestParts<Edge> for Peer {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Self::Rejection> {
        let tcp = parts.extensions.get::<TcpPeer>().map(|peer| peer.0.ip().to_canonical());
        Ok(Self(tcp.map(|tcp| client_address(tcp, &parts.headers, &edge.0.trusted_proxies))))
    }
}

/// The rightmost hop of `X-Forwarded-For` that is no proxy of ours, if the TCP peer is one.
///
/// Without the first condition anybody could choose his address, look local, and dodge or misdirect every limit.
pub fn client_address(tcp: IpAddr, headers: &HeaderMap, trusted: &[ipnet::IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(&tcp) {
        return tcp;
    }
    // As bytes: one that is no ASCII, sent by the client, must not take the proxy's own hop behind it away.
    let hops: Vec<&[u8]> = headers
        .get_all("x-forwarded-for")
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .collect();
    let mut client = tcp;
    for hop in hops.into_iter().rev() {
        // A hop that is no address was invented by somebody; what stands left of it even more so.
        let Some(address) = std::str::from_utf8(hop).ok().and_then(|hop| hop.trim().parse::<IpAddr>().ok()) else {
            break;
        };
        client = address.to_canonical();
        if !is_trusted(&client) {
            break;
        }
    }
    client
}

/// The certificate that a trusted proxy was shown, from `Client-Cert` (RFC 9440 section 2.2); no other header is ever read, and from nobody else.
pub fn client_certificate(parts: &Parts, edge: &Edge) -> Option<CertificateDer<'static>> {
    let tcp = parts.extensions.get::<TcpPeer>().map(|peer| peer.0.ip().to_canonical())?;
    let is_trusted = edge.0.trusted_proxies.iter().any(|network| network.contains(&tcp));
    let mut values = parts.headers.get_all("client-cert").iter();
    match (edge.0.client_cert_header && is_trusted, values.next(), values.next()) {
        (true, Some(value), None) => byte_sequence(value.to_str().ok()?).map(CertificateDer::from),
        _ => None,
    }
}

/// A structured field's byte sequence, `:base64:` (RFC 8941 section 3.3.5).
pub fn byte_sequence(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_matches(' ').strip_prefix(':')?.strip_suffix(':')?;
    (!text.is_empty() && text.len() <= 2 * MAX_CERTIFICATE).then(|| STANDARD.decode(text).ok()).flatten()
}

/// A body of at most 16 KiB that arrives in time.
pub struct SmallBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for SmallBody {
    type Rejection = (StatusCode, &'static str);

    async fn from_request(request: Request, _: &S) -> Result<Self, Self::Rejection> {
        read_body(request.into_body()).await.map(Self)
    }
}

async fn read_body(body: Body) -> Result<Bytes, (StatusCode, &'static str)> {
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err((StatusCode::PAYLOAD_TOO_LARGE, "The body is larger than 16384 bytes, or broke off.")),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "The body did not arrive within 10 seconds.")),
    }
}

impl FromRequestParts<Edge> for Browser {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Self::Rejection> {
        let Peer(peer) = Peer::from_request_parts(parts, edge).await?;
        let agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let session = cookie(&parts.headers, SESSION_COOKIE).map(str::to_owned);
        Ok(Self { peer, agent: agent.to_owned(), session })
    }
}

/// A signed-in operator. Everybody else is sent to sign in.
pub struct SignedIn {
    /// The session.
    pub session: Session,
    /// From where.
    pub peer: Option<IpAddr>,
}

impl SignedIn {
    /// As a caller of use cases.
    pub fn caller(&self) -> Caller {
        self.session.caller(self.peer)
    }
}

impl FromRequestParts<Edge> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Response> {
        let Peer(peer) = Peer::from_request_parts(parts, edge).await.unwrap_or(Peer(None));
        let session = match cookie(&parts.headers, SESSION_COOKIE) {
            Some(id) => {
                edge.broker().session(id, used_by(parts)).await.map_err(|error| present::unavailable(&error))?
            }
            None => None,
        };
        let asked = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        session
            .map(|session| {
                present::read_by(edge, &session);
                Self { session, peer }
            })
            .ok_or_else(|| to_sign_in(asked, parts.method == axum::http::Method::GET))
    }
}

/// A page that looks by itself says so: an event stream by what it accepts, its script by a header of ours. Only reading is believed to be nobody's.
fn used_by(parts: &Parts) -> UsedBy {
    let is_stream = parts.headers.get(header::ACCEPT).is_some_and(|accept| accept == "text/event-stream");
    let is_page = is_stream || parts.headers.contains_key("pairgate-live");
    if is_page && parts.method == axum::http::Method::GET { UsedBy::Page } else { UsedBy::Person }
}

/// Sends to the sign-in page; a scanned code or pairing is remembered for after it, nothing else is (no open redirect, R-9700-02).
fn to_sign_in(asked: &str, is_get: bool) -> Response {
    let mut response = Redirect::to("/sign-in").into_response();
    if is_get && is_return_path(asked) {
        let cookie = format!("{RETURN_COOKIE}={asked}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600");
        if let Ok(cookie) = cookie.parse() {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    response
}

/// The code that was typed last, for the page that shows it beside the device's; in the address it would stay in the browser's history.
pub const CODE_COOKIE: &str = "__Host-code";

/// Where to go after signing in.
pub const RETURN_COOKIE: &str = "__Host-return";

/// Only the two pages that QR codes lead to, and only plain characters.
pub fn is_return_path(path: &str) -> bool {
    // No dots: a browser would resolve dot segments, and arrive somewhere else.
    let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/?=&-_".contains(&byte));
    is_plain && path.len() <= 256 && (path.starts_with("/approve?user_code=") || path.starts_with("/pair/"))
}

/// A path on this host and nothing else (R-9700-02).
pub fn is_own_path(path: &str) -> bool {
    let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/?=&-_.~%+".contains(&byte));
    is_plain && path.len() <= 512 && path.starts_with('/') && !path.contains("//") && !path.contains("..")
}

/// A session's cookie, as `set_cookie` takes it.
pub fn session_cookie(id: &str) -> String {
    format!("{SESSION_COOKIE}={id}; Path=/; Secure; HttpOnly; SameSite=Lax")
}

/// The variable part of a page's address. An address that no page of ours leads to gets the page that says so, and nothing of itself back.
pub struct PagePath<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PagePath<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let path = Path::from_request_parts(parts, state).await.ok();
        path.map(|Path(path)| Self(path)).ok_or_else(present::no_such_page)
    }
}

/// The query of a page's address; as [`PagePath`].
pub struct PageQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for PageQuery<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let query = Query::from_request_parts(parts, state).await.ok();
        query.map(|Query(query)| Self(query)).ok_or_else(present::no_such_page)
    }
}

/// A form posted by somebody who need not be signed in. It must not change anything of anybody's.
pub struct PostedForm(pub HashMap<String, String>);

impl FromRequest<Edge> for PostedForm {
    type Rejection = Response;

    async fn from_request(request: Request, _: &Edge) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let body = read_body(body).await.map_err(|(status, what)| (status, what).into_response())?;
        match Form::parse(&body) {
            Ok(form) if is_form(&parts.headers) => Ok(Self(form.into_fields())),
            _ => Err(present::refused_form()),
        }
    }
}

/// A form posted by a page of this session.
///
/// Without the token, another site's page could post in the operator's name wherever a browser sends neither `Origin` nor `Sec-Fetch-Site`.
pub struct PageForm {
    /// Who posted it.
    pub signed_in: SignedIn,
    fields: HashMap<String, String>,
}

impl PageForm {
    /// A field's value, trimmed; empty if absent.
    pub fn field(&self, name: &str) -> String {
        self.fields.get(name).map(|value| value.trim().to_owned()).unwrap_or_default()
    }

    /// All fields but the token, by name, as they were typed.
    pub fn all(&self) -> Vec<(String, String)> {
        let typed = self.fields.iter().filter(|(name, _)| name.as_str() != "csrf");
        let mut all: Vec<_> = typed.map(|(name, value)| (name.clone(), value.clone())).collect();
        all.sort_unstable();
        all
    }

    /// What was ticked: the rest of the names of all fields that begin so. A field of one name could stand only once.
    pub fn ticked(&self, beginning: &str) -> Vec<String> {
        let mut ticked: Vec<String> =
            self.fields.keys().filter_map(|name| name.strip_prefix(beginning)).map(str::to_owned).collect();
        ticked.sort_unstable();
        ticked
    }
}

impl FromRequest<Edge> for PageForm {
    type Rejection = Response;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        // Nobody reads what a stranger sends.
        SignedIn::from_request_parts(&mut parts, edge).await?;
        // A cross-site form can send text/plain; ours never does.
        if !is_form(&parts.headers) {
            return Err(present::refused_form());
        }
        let body = read_body(body).await.map_err(|(status, what)| (status, what).into_response())?;
        // Only now: a body that is held back would act later, with rights that are gone by then.
        let signed_in = SignedIn::from_request_parts(&mut parts, edge).await?;
        // A field that stands twice makes two readings possible; no page of ours sends one.
        let Ok(form) = Form::parse_at_most(&body, MAX_FIELDS) else { return Err(present::refused_form()) };
        let is_ours = form.get("csrf").is_some_and(|token| edge.broker().is_csrf_token(&signed_in.session, token));
        if is_ours { Ok(Self { signed_in, fields: form.into_fields() }) } else { Err(present::refused_form()) }
    }
}

/// Is the body said to be a form?
pub fn is_form(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn forwarded(value: &str) -> HeaderMap {
        HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())])
    }

    #[test]
    fn forwarded_addresses_are_believed_only_from_a_configured_proxy_a_086() {
        let trusted: Vec<ipnet::IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for (tcp, header, expected) in [
            ("203.0.113.9", "127.0.0.1", "203.0.113.9"),
            ("10.0.0.1", "127.0.0.1, 198.51.100.7", "198.51.100.7"),
            ("10.0.0.1", "198.51.100.7, 10.0.0.2", "198.51.100.7"),
            ("10.0.0.1", "1.2.3.4, nonsense", "10.0.0.1"),
            ("10.0.0.1", "é, 198.51.100.7", "198.51.100.7"),
            ("10.0.0.1", "198.51.100.7, é", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
        ] {
            assert_eq!(client_address(address(tcp), &forwarded(header), &trusted), address(expected), "{tcp} {header}");
            assert_eq!(client_address(address(tcp), &forwarded(header), &[]), address(tcp), "no proxy configured");
        }
    }

    #[test]
    fn only_scanned_pages_are_returned_to() {
        for good in ["/approve?user_code=PRN-WDJB-MJHTX", "/pair/AAAA?key=b-_C"] {
            assert!(is_return_path(good), "{good}");
        }
        for bad in [
            "//evil.example",
            "/devices",
            "https://evil.example/pair/",
            "/pair/x\r\nSet-Cookie: a=b",
            "/pair/;x",
            "/pair/..",
            "/pair/../devices",
            "/approve?user_code=<script>",
        ] {
            assert!(!is_return_path(bad), "{bad}");
        }
    }

    #[test]
    fn only_own_paths_are_returned_to() {
        for good in ["/", "/devices?q=lobby+printer&page=2", "/pair/AAAA?key=b-_C", "/devices?q=%C3%A9"] {
            assert!(is_own_path(good), "{good}");
        }
        for bad in
            ["//evil.example", "https://evil.example", "/\\evil.example", "/a//b", "/../x", "", "/x\r\nSet-Cookie:a"]
        {
            assert!(!is_own_path(bad), "{bad}");
        }
    }
}
