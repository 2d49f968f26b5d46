//! What the public listener gives to whom it does not know: nothing.

use crate::support::TestBroker;

/// Every route with the methods that it has.
const ROUTES: [(&str, &str); 24] = [
    ("GET", "/"),
    ("GET", "/devices"),
    ("POST", "/devices"),
    ("GET", "/devices/lobby-printer-01"),
    ("POST", "/devices/lobby-printer-01"),
    ("GET", "/pair"),
    ("POST", "/pair"),
    ("GET", "/pair/AAAAAAAAAAAAAAAAAAAAAA"),
    ("POST", "/pair/AAAAAAAAAAAAAAAAAAAAAA"),
    ("GET", "/approve"),
    ("POST", "/approve"),
    ("GET", "/approve/1"),
    ("POST", "/approve/1"),
    ("POST", "/report"),
    ("GET", "/audit"),
    ("GET", "/events"),
    ("POST", "/sign-out"),
    ("POST", "/sign-in"),
    ("POST", "/pairing"),
    ("POST", "/pairing/poll"),
    ("POST", "/device_authorization"),
    ("POST", "/token"),
    ("GET", "/approve?user_code=PRN-WDJB-MJHTX"),
    ("GET", "/devices?q=lobby"),
];

async fn ask(test: &TestBroker, method: &str, path: &str, headers: &[(&str, &str)]) -> pairgate::simulator::RawAnswer {
    let address = format!("{}{path}", test.issuer);
    let mut request =
        if method == "GET" { test.wire.get(&address) } else { test.wire.post(&address).form(&[("x", "y")]) };
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    test.wire.send(request).await.unwrap()
}

#[tokio::test]
async fn no_route_gives_anything_to_a_stranger_a_094() {
    let test = TestBroker::start().await;
    test.register("lobby-printer-01", "printer").await;
    for (method, path) in ROUTES {
        let answer = ask(&test, method, path, &[]).await;
        let is_nothing = match answer.status {
            303 => answer.header("location") == Some("/sign-in"),
            400 | 401 | 403 => true,
            _ => false,
        };
        assert!(is_nothing, "{method} {path}: {} {:?}", answer.status, answer.header("location"));
        assert!(
            !answer.body.contains("lobby-printer-01") && !answer.body.contains("Device "),
            "{method} {path} tells of a device"
        );
        for header in ["server", "x-powered-by", "access-control-allow-origin"] {
            assert_eq!(answer.header(header), None, "{method} {path}");
        }
    }
    for path in ["/.well-known/oauth-authorization-server", "/jwks", "/sign-in"] {
        assert_eq!(ask(&test, "GET", path, &[]).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn there_is_no_door_beside_the_doors_a_094() {
    let test = TestBroker::start().await;
    for path in [
        "/metrics",
        "/health",
        "/healthz",
        "/debug",
        "/debug/pprof",
        "/openapi.json",
        "/swagger",
        "/.git/config",
        "/.env",
        "/admin",
        "/api/v1",
        "/assets",
        "/assets/",
        "/assets/style.css",
        "/assets/..%2f..%2fCargo.toml",
        "//devices",
        "/DEVICES",
        "/devices;x",
        "/devices/",
        "/jwks/",
        "/token/",
        "/pairgate.db",
        "/master.key",
        "/favicon.ico",
    ] {
        let answer = ask(&test, "GET", path, &[]).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.body.contains("panicked") && !answer.body.contains("src/"), "{path}: {}", answer.body);
    }
    for (method, path) in [("GET", "/token"), ("GET", "/device_authorization"), ("POST", "/jwks"), ("POST", "/audit")] {
        assert_eq!(ask(&test, method, path, &[]).await.status, 405, "{method} {path}");
    }
}

#[tokio::test]
async fn a_page_of_another_name_gets_nothing_from_this_address_a_087() {
    let test = TestBroker::start().await;
    for host in ["evil.example", "localhost", "127.0.0.1", "127.0.0.1:1", "pairgate.example:80", ""] {
        for (method, path) in ROUTES.iter().chain(&[("GET", "/jwks"), ("GET", "/sign-in"), ("GET", "/nowhere")]) {
            let answer = ask(&test, method, path, &[("host", host)]).await;
            assert_eq!(answer.status, 421, "{host:?} {method} {path}");
            assert!(answer.body.contains(&test.issuer), "it says which address to use");
        }
    }
    let answer = ask(&test, "GET", "/jwks", &[("origin", "https://evil.example")]).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let answer = ask(&test, "POST", "/sign-in", &[("origin", "https://evil.example")]).await;
    assert_eq!(answer.status, 403);
}
