//! Headers and addresses that decide something: `X-Forwarded-For`, `Prefer`, `Cookie`, `Content-Type`, `Client-Cert`, and the way back after signing in.
//!
//! An input is one byte for the TCP peer, then lines. The first byte of a line names the header.

#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;
use pairgate::http::cookies::cookie;
use pairgate::http::device::preferred_wait;
use pairgate::http::extract::{RETURN_COOKIE, byte_sequence, client_address, is_form, is_return_path};
use pairgate::oauth::certificate::{Certificate, MAX_CERTIFICATE};
use url::Url;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PREFER: HeaderName = HeaderName::from_static("prefer");

static TRUSTED: LazyLock<Vec<IpNet>> =
    LazyLock::new(|| ["10.0.0.0/8", "fd00::/8"].iter().map(|network| network.parse().expect("a network")).collect());
/// The first two are proxies of ours.
static PEERS: LazyLock<Vec<IpAddr>> = LazyLock::new(|| {
    ["10.0.0.1", "fd00::1", "203.0.113.9", "2001:db8::9", "127.0.0.1"]
        .iter()
        .map(|address| address.parse().expect("an address"))
        .collect()
});
static ISSUER: LazyLock<Url> = LazyLock::new(|| Url::parse("https://pairgate.example/").expect("an address"));

fn headers(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|&byte| byte == b'\n').take(32) {
        let Some((kind, value)) = line.split_first() else { continue };
        let name = match kind {
            b'x' => FORWARDED_FOR,
            b'p' => PREFER,
            b'f' => header::FORWARDED,
            b'c' => header::COOKIE,
            b't' => header::CONTENT_TYPE,
            b'r' => HeaderName::from_static("x-real-ip"),
            _ => continue,
        };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    headers
}

fn addresses(tcp: IpAddr, headers: &HeaderMap) {
    let client = client_address(tcp, headers, &TRUSTED);
    assert_eq!(client_address(tcp, headers, &[]), tcp, "no proxy is configured, so nobody's word counts (A-086)");
    let is_trusted = |address: &IpAddr| TRUSTED.iter().any(|network| network.contains(address));
    if !is_trusted(&tcp) {
        assert_eq!(client, tcp, "a stranger chose his address (A-086)");
        return;
    }
    let hops = || headers.get_all(FORWARDED_FOR).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    let is_hop = |hop: &[u8]| {
        let hop = std::str::from_utf8(hop).ok().and_then(|hop| hop.trim().parse::<IpAddr>().ok());
        hop.is_some_and(|hop| hop.to_canonical() == client)
    };
    assert!(client == tcp || hops().any(is_hop), "an address from nowhere");

    let values: Vec<&HeaderValue> = headers.get_all(FORWARDED_FOR).iter().collect();
    let of = |values: &[&HeaderValue]| -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(FORWARDED_FOR, HeaderValue::clone(value));
        }
        map
    };
    let only = of(&values);
    assert_eq!(client_address(tcp, &only, &TRUSTED), client, "another header was believed");

    // What our proxy adds, in a line of its own or at the end of the last one, counts; whatever stood there before it.
    let real: IpAddr = "198.51.100.7".parse().expect("an address");
    let mut added = only;
    added.append(FORWARDED_FOR, HeaderValue::from_static("198.51.100.7"));
    assert_eq!(client_address(tcp, &added, &TRUSTED), real, "the proxy's own line was not believed");
    if let Some((last, others)) = values.split_last() {
        let joined = [last.as_bytes(), b", 198.51.100.7"].concat();
        let mut added = of(others);
        added.append(FORWARDED_FOR, HeaderValue::from_bytes(&joined).expect("a header value"));
        assert_eq!(client_address(tcp, &added, &TRUSTED), real, "the proxy's own hop was not believed");
    }
}

/// `Client-Cert` (RFC 9440): one spelling per value, bounded, and whatever it holds is read without harm.
fn client_cert(text: &str) {
    let Some(der) = byte_sequence(text) else { return };
    assert!(der.len() <= 2 * MAX_CERTIFICATE, "larger than any certificate");
    let again = base64::engine::general_purpose::STANDARD.encode(&der);
    assert_eq!(text.trim_matches(' '), format!(":{again}:"), "two spellings of one value");
    if let Ok(certificate) = Certificate::from_der(&der) {
        assert_eq!(certificate.x5t, pairgate::secret::sha256(&[&der]));
    }
}

fn way_back(path: &str) {
    if !is_return_path(path) {
        return;
    }
    let to = ISSUER.join(path).expect("a path that browsers can follow");
    assert_eq!(to.origin(), ISSUER.origin(), "an open redirect (R-9700-02)");
    assert!(to.path() == "/approve" || to.path().starts_with("/pair/"), "a page that no QR code leads to: {to}");
    let value = HeaderValue::from_str(&format!("{RETURN_COOKIE}={path}")).expect("a header value");
    let headers = HeaderMap::from_iter([(header::COOKIE, value)]);
    assert_eq!(cookie(&headers, RETURN_COOKIE), Some(path), "the cookie says something else");
}

fuzz_target!(|data: &[u8]| {
    let Some((peer, lines)) = data.split_first() else { return };
    let headers = headers(lines);
    addresses(PEERS[usize::from(*peer) % PEERS.len()], &headers);

    if let Some(wait) = preferred_wait(&headers) {
        assert!(wait > 0);
        let digits = wait.to_string();
        let is_there = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains(&digits));
        assert!(headers.get_all(PREFER).iter().any(is_there), "a wait that nobody asked for");
    }
    if let Some(value) = cookie(&headers, RETURN_COOKIE) {
        assert!(!value.contains(';'));
        way_back(value);
    }
    if is_form(&headers) {
        let value = headers[header::CONTENT_TYPE].to_str().expect("it was read").to_ascii_lowercase();
        assert!(value.trim_start().starts_with("application/x-www-form-urlencoded"));
    }
    // The rest of the first line as an address of ours.
    if let Some(path) = lines.split(|&byte| byte == b'\n').next().and_then(|line| std::str::from_utf8(line).ok()) {
        way_back(path);
        client_cert(path);
    }
});
