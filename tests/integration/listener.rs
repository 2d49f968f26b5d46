//! What the public listener gives to whom it does not know: nothing.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use pairgate::broker::Caller;
use pairgate::model::device::DeviceFacts;
use pairgate::model::operator::Role;
use pairgate::model::site::Site;
use pairgate::simulator::jose;

use crate::support::TestBroker;

/// Every route with the methods that it has.
const ROUTES: &[(&str, &str)] = &[
    ("GET", "/"),
    ("GET", "/devices"),
    ("POST", "/devices"),
    ("GET", "/devices/lobby-printer-01"),
    ("GET", "/devices/lobby-printer-01/edit"),
    ("POST", "/devices/lobby-printer-01/edit"),
    ("GET", "/devices/export.csv"),
    ("GET", "/devices/import"),
    ("POST", "/devices/import"),
    ("POST", "/devices/import/register"),
    ("GET", "/devices/import/template.csv"),
    ("POST", "/devices/bulk"),
    ("POST", "/devices/undo"),
    ("GET", "/devices/labels"),
    ("POST", "/devices/lobby-printer-01"),
    ("GET", "/pair"),
    ("POST", "/pair"),
    ("GET", "/pair/walk"),
    ("GET", "/technician/codes"),
    ("POST", "/technician/codes"),
    ("POST", "/technician"),
    ("POST", "/technician/pass"),
    ("GET", "/technician/pair/AAAAAAAAAAAAAAAAAAAAAA"),
    ("POST", "/technician/pair/AAAAAAAAAAAAAAAAAAAAAA"),
    ("GET", "/pair/AAAAAAAAAAAAAAAAAAAAAA"),
    ("POST", "/pair/AAAAAAAAAAAAAAAAAAAAAA"),
    ("GET", "/approve"),
    ("POST", "/approve"),
    ("GET", "/approve/1"),
    ("POST", "/approve/1"),
    ("GET", "/approve/1/undo"),
    ("POST", "/approve/1/undo"),
    ("POST", "/report"),
    ("GET", "/devices/lobby-printer-01/approvers"),
    ("POST", "/devices/lobby-printer-01/approvers"),
    ("GET", "/alerts"),
    ("GET", "/audit"),
    ("GET", "/events"),
    ("GET", "/settings/tokens"),
    ("POST", "/settings/tokens"),
    ("GET", "/setup"),
    ("POST", "/setup"),
    ("GET", "/settings/risk"),
    ("POST", "/settings/risk"),
    ("GET", "/settings/risk/1"),
    ("GET", "/settings"),
    ("GET", "/settings/sites"),
    ("POST", "/settings/sites"),
    ("GET", "/settings/sites/default"),
    ("POST", "/settings/sites/default"),
    ("GET", "/settings/kinds"),
    ("GET", "/settings/kinds/printer"),
    ("POST", "/settings/kinds/printer"),
    ("GET", "/settings/kind"),
    ("POST", "/settings/kind"),
    ("GET", "/settings/resources"),
    ("GET", "/settings/resource"),
    ("POST", "/settings/resource"),
    ("GET", "/settings/policy"),
    ("POST", "/settings/policy"),
    ("GET", "/settings/policy/1"),
    ("POST", "/settings/policy/1"),
    ("GET", "/settings/import"),
    ("POST", "/settings/import"),
    ("GET", "/settings/export"),
    ("POST", "/sign-out"),
    ("POST", "/sign-in"),
    ("POST", "/sign-in/sso"),
    ("GET", "/sign-in/sso/callback"),
    ("GET", "/operators"),
    ("POST", "/operators"),
    ("GET", "/operators/dana"),
    ("POST", "/operators/dana"),
    ("POST", "/pairing"),
    ("POST", "/pairing/poll"),
    ("POST", "/device_authorization"),
    ("POST", "/token"),
    ("POST", "/revoke"),
    ("POST", "/introspect"),
    ("GET", "/approve?user_code=PRN-WDJB-MJHTX"),
    ("GET", "/devices?q=lobby"),
    ("GET", "/account"),
    ("POST", "/account"),
    ("GET", "/sign-in/again?back=/account"),
    ("POST", "/sign-in/passkey/begin"),
    ("POST", "/sign-in/passkey/finish"),
    ("POST", "/account/passkeys/begin"),
    ("POST", "/account/passkeys/finish"),
    ("GET", "/audit?device=lobby-printer-01&event=code.issued&by=dana"),
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
            303 => matches!(answer.header("location"), Some("/sign-in" | "/technician")),
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
    for path in [
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/jwks",
        "/openapi.json",
        "/sign-in",
        "/technician",
    ] {
        assert_eq!(ask(&test, "GET", path, &[]).await.status, 200, "{path}");
    }
    // It describes what devices call, and nothing that operators do.
    let document = ask(&test, "GET", "/openapi.json", &[]).await.body;
    assert!(!document.contains("/devices") && !document.contains("/approve/") && !document.contains("/audit"));
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
        "/mqtt",
        "/mqtt/auth",
        "/mqtt/acl",
    ] {
        let answer = ask(&test, "GET", path, &[]).await;
        // 400: the path has more than one reading.
        assert!(matches!(answer.status, 404 | 400), "{path}: {}", answer.status);
        assert!(!answer.body.contains("panicked") && !answer.body.contains("src/"), "{path}: {}", answer.body);
    }
    assert_eq!(ask(&test, "POST", "/mqtt/auth", &[]).await.status, 404, "brokers get no answer without a secret");
    for (method, path) in [("GET", "/token"), ("GET", "/device_authorization"), ("POST", "/jwks"), ("POST", "/audit")] {
        assert_eq!(ask(&test, method, path, &[]).await.status, 405, "{method} {path}");
    }
}

/// Whoever administers one site, and asks every page by the addresses of another site's things: they look as if there were none.
#[tokio::test]
async fn no_page_tells_of_another_site_a_080() {
    let test = TestBroker::start().await;
    let shell = Caller::command_line();
    let facts = DeviceFacts {
        kind: "printer".into(),
        name: "Zebra of the board".into(),
        floor: "Zeppelin".into(),
        ..DeviceFacts::default()
    };
    test.broker.register_device(&shell, "lobby-printer-01", facts).await.unwrap();
    let mut device = test.stranger("lobby-printer-01");
    test.pair(&mut device).await;
    device.request_code(None, None).await.unwrap();
    test.set_networks(&["10.77.0.0/16"]).await;
    test.broker.add_site(&shell, Site::plain("berlin", "Berlin")).await.unwrap();
    test.broker.add_person(&shell, "bea", None).await.unwrap();
    test.broker.set_role(&shell, "bea", "berlin", Some(Role::Admin)).await.unwrap();
    test.broker.add_operator(&shell, "zoe-elsewhere", Role::Viewer).await.unwrap();
    let bea = test.another_session("bea").await;
    let known = test.records().await.iter().filter(|record| record.device.is_some()).count();
    // The stream never ends, signing out ends the test, and devices show no session.
    let others = ["/events", "/sign-out", "/pairing", "/pairing/poll", "/device_authorization", "/token", "/revoke"];
    for (method, path) in ROUTES.iter().filter(|(_, path)| !others.contains(path) && *path != "/introspect") {
        let answer =
            if *method == "GET" { bea.get(path).await } else { bea.post(path, &[("action", "suspend")]).await };
        assert!(answer.status < 500 && answer.status != 401, "{method} {path}: {}", answer.status);
        for secret in ["Zebra", "Zeppelin", "10.77.0.0", &device.key.jkt()] {
            assert!(!answer.body.contains(secret), "{method} {path} tells {secret}:\n{}", answer.body);
        }
        if path.contains("lobby-printer-01") && !path.starts_with("/audit") {
            let other = path.replace("lobby-printer-01", "no-such-printer");
            let nothing = if *method == "GET" { bea.get(&other).await } else { bea.post(&other, &[]).await };
            let is_answer = (answer.status, answer.body.replace("lobby-printer-01", "no-such-printer"));
            assert_eq!(is_answer, (nothing.status, nothing.body), "{method} {path}");
        }
    }
    let now = test.records().await.iter().filter(|record| record.device.is_some()).count();
    assert_eq!(now, known, "nothing was done to its device");
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

/// Sends exactly these bytes; everything that comes back until the other side closes.
async fn raw(test: &TestBroker, request: &str) -> String {
    let authority = test.issuer.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(authority).await.unwrap();
    stream.write_all(request.replace("{us}", authority).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server that refuses a request may cut the connection while it is still being sent.
    stream.read_to_end(&mut answer).await.ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn no_spelling_of_a_path_or_of_a_host_leads_around_the_routes_a_087_a_094() {
    let test = TestBroker::start().await;
    for path in [
        "/%2e%2e/devices",
        "/./devices",
        "/x/../devices",
        "/assets/../devices",
        "/assets/%2e%2e/devices",
        "/assets/%2e%2e%2fdevices",
        "/assets/..;/devices",
        "/%64evices;jsessionid=1",
        "/devices%00",
        "/devices%2f",
        "/jwks/../audit",
        "///",
        "/\\devices",
    ] {
        let answer = raw(&test, &format!("GET {path} HTTP/1.1\r\nHost: {{us}}\r\nConnection: close\r\n\r\n")).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(matches!(status, "404" | "400"), "{path}: {answer}");
    }
    let rows = [
        ("no Host at all", "GET /jwks HTTP/1.0\r\n\r\n"),
        ("no Host, HTTP/1.1", "GET /jwks HTTP/1.1\r\nConnection: close\r\n\r\n"),
        ("two Hosts", "GET /jwks HTTP/1.1\r\nHost: {us}\r\nHost: evil.example\r\nConnection: close\r\n\r\n"),
        ("the same Host twice", "GET /jwks HTTP/1.1\r\nHost: {us}\r\nHost: {us}\r\nConnection: close\r\n\r\n"),
        (
            "a proxy's request for another host",
            "GET http://evil.example/jwks HTTP/1.1\r\nHost: {us}\r\nConnection: close\r\n\r\n",
        ),
        ("our name as user", "GET /jwks HTTP/1.1\r\nHost: {us}@evil.example\r\nConnection: close\r\n\r\n"),
        ("our name as part of another", "GET /jwks HTTP/1.1\r\nHost: {us}.evil.example\r\nConnection: close\r\n\r\n"),
    ];
    for (what, request) in rows {
        let answer = raw(&test, request).await;
        assert!(answer.contains(" 421 ") || answer.contains(" 400 "), "{what}: {answer}");
        assert!(!answer.contains("\"keys\""), "{what}: {answer}");
    }
    let answer = raw(&test, "GET /jwks HTTP/1.1\r\nHost: {us}\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"keys\""), "and the right one: {answer}");
}

#[tokio::test]
async fn unfinished_and_oversized_requests_leave_the_others_alone_a_091() {
    let test = TestBroker::start().await;
    let mut half_sent = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(test.issuer.strip_prefix("http://").unwrap()).await.unwrap();
        stream.write_all(b"POST /token HTTP/1.1\r\nHost: ").await.unwrap();
        half_sent.push(stream);
    }
    assert_eq!(ask(&test, "GET", "/jwks", &[]).await.status, 200);
    let long = "x".repeat(200_000);
    let answer = raw(&test, &format!("GET /jwks HTTP/1.1\r\nHost: {{us}}\r\nX-Long: {long}\r\n\r\n")).await;
    assert!(!answer.contains("\"keys\""), "a header of 200 kB is not served: {}", &answer[..answer.len().min(200)]);
    let body = format!("x={long}");
    for path in ["/token", "/device_authorization", "/pairing", "/sign-in"] {
        let length = body.len();
        let answer = raw(
            &test,
            &format!(
                "POST {path} HTTP/1.1\r\nHost: {{us}}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n{body}"
            ),
        )
        .await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        // Cut off before the answer could be read is a refusal, too.
        assert!(matches!(status, "413" | "400" | ""), "{path}: {answer}");
    }
    assert_eq!(ask(&test, "GET", "/jwks", &[]).await.status, 200);
    drop(half_sent);
}

/// What grows when it is read: JSON in JSON, and bytes that say that they are packed.
#[tokio::test]
async fn deep_json_and_packed_bodies_are_refused_and_cost_nothing_a_091() {
    let test = TestBroker::start().await;
    let device = test.paired("lobby-printer-01", "printer").await;
    let deep = format!("{}1{}", "[".repeat(2_000), "]".repeat(2_000));
    let jwt = |header: String, claims: String| {
        format!("{}.{}.AAAA", jose::b64u(header.as_bytes()), jose::b64u(claims.as_bytes()))
    };
    let header = device.key.header("dpop+jwt").to_string();
    for (what, proof) in [
        ("in the header", jwt(header.replacen('{', &format!("{{\"x\":{},", &deep[..0]), 1), deep.clone())),
        ("in the claims", jwt(header.clone(), format!("{{\"x\":{deep}}}"))),
        ("as the claims", jwt(header.clone(), deep.clone())),
    ] {
        let answer = device.post_form("/token", &[("client_id", &device.id)], &[("dpop", &proof)]).await.unwrap();
        assert_eq!((answer.status, answer.oauth_error().unwrap().0.as_str()), (400, "invalid_dpop_proof"), "{what}");
    }
    // Ten kilobytes that would unpack to ten megabytes: nobody here unpacks anything.
    let packed: Vec<u8> = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0].into_iter().chain(std::iter::repeat_n(0xAA, 10_000)).collect();
    let request = test
        .wire
        .post(&test.url("/token"))
        .header("content-encoding", "gzip")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(packed);
    let answer = test.wire.send(request).await.unwrap();
    assert_eq!(answer.oauth_error().unwrap().0, "invalid_request", "it is read as it stands: {}", answer.body);
}
