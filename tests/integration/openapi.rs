//! The OpenAPI document is true: it has exactly the device routes, exactly the members of real answers, and a generator finds no answer that it does not
//! name, and no server error.

use std::collections::BTreeSet;
use std::path::Path;

use pairgate::model::operator::Role;
use pairgate::model::resource::Resource;
use pairgate::oauth::jwk::PublicKey;
use pairgate::simulator::DeviceKey;
use serde_json::Value;

use crate::support::probe::{CODE, poll_of};
use crate::support::program::Program;
use crate::support::{Setup, TestBroker};

const RESOURCE: &str = "https://scan.example";

async fn document(test: &TestBroker) -> Value {
    let answer = test.wire.send(test.wire.get(&test.url("/openapi.json"))).await.unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    answer.json().unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn the_document_has_exactly_the_device_routes() {
    let test = TestBroker::start().await;
    let document = document(&test).await;
    assert_eq!(document["servers"][0]["url"], test.issuer);
    let source = std::fs::read_to_string(root().join("src/http/mod.rs")).unwrap();
    let routes: BTreeSet<(String, String)> = source
        .lines()
        .filter(|line| line.contains("(device::"))
        .map(|line| {
            let path = line.split('"').nth(1).unwrap().to_owned();
            let method = if line.contains("post(") { "post" } else { "get" };
            (path, method.to_owned())
        })
        .collect();
    assert!(routes.len() >= 10, "{routes:?}");
    let documented: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(|method| (path.clone(), method.clone())).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(documented, routes);
}

/// Every required member is there, and no member that is not documented.
fn fits(document: &Value, schema: &str, answer: &Value) {
    let schema = &document["components"]["schemas"][schema];
    let has = answer.as_object().unwrap();
    for name in schema["required"].as_array().unwrap() {
        assert!(has.contains_key(name.as_str().unwrap()), "{name} is missing in {answer}");
    }
    for name in has.keys() {
        assert!(!schema["properties"][name].is_null(), "{name} is not documented: {answer}");
    }
}

#[tokio::test]
async fn real_answers_have_the_documented_members_and_no_others() {
    let test = TestBroker::start().await;
    let document = document(&test).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let operator = test.operator("dana", Role::Admin).await;
    let code = test.ask(&device, CODE, &[("client_id", "lobby-printer-01")]).await.json().unwrap();
    fits(&document, "DeviceAuthorizationResponse", &code);
    let device_code = code["device_code"].as_str().unwrap();
    device.adopt_device_code(device_code);
    let path = operator.claim(code["verification_uri_complete"].as_str().unwrap()).await.unwrap();
    test.advance(60);
    let pending = test.poll(&device, device_code).await.json().unwrap();
    fits(&document, "OAuthError", &pending);
    operator.approve(&path, pending["confirmation_number"].as_str().unwrap()).await.unwrap();
    test.advance(60);
    fits(&document, "TokenResponse", &test.poll(&device, device_code).await.json().unwrap());
    let jwks = test.wire.send(test.wire.get(&test.url("/jwks"))).await.unwrap().json().unwrap();
    fits(&document, "JwkSet", &serde_json::json!({"keys": jwks["keys"]}));
    let errors = document["components"]["schemas"]["OAuthError"]["properties"]["error"]["enum"].as_array().unwrap();
    let source = std::fs::read_to_string(root().join("src/oauth/error.rs")).unwrap();
    let made: BTreeSet<&str> = source
        .split("=> \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|word| !word.contains(' '))
        .collect();
    let documented: BTreeSet<&str> = errors.iter().filter_map(Value::as_str).collect();
    let missing: Vec<_> = made.difference(&documented).collect();
    assert!(missing.is_empty(), "not documented: {missing:?}");
    let _ = poll_of(device_code, "x");
}

/// A generator of requests, good and bad, against the document.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generator_finds_no_server_error_and_no_undocumented_answer() {
    let program = root().join("tests/openapi/.venv/bin/schemathesis");
    assert!(program.exists(), "schemathesis is missing; tests/run installs it");
    let resource_key = DeviceKey::generate_es256().unwrap();
    let resource = Resource {
        keys: vec![PublicKey::from_json(&resource_key.jwk().to_string()).unwrap()],
        ..Resource::plain(RESOURCE)
    };
    let mut setup = Setup { resources: vec![resource], ..Setup::default() };
    setup.kinds[0].resources = vec![RESOURCE.into()];
    let test = TestBroker::with(setup).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    let operator = test.operator("dana", Role::Admin).await;
    let tokens = test.signed_in(&operator, &mut device).await;
    let mut command = std::process::Command::new(program);
    command
        .current_dir(root().join("tests/openapi"))
        .args(["run", &test.url("/openapi.json"), "--no-color", "--phases", "examples,coverage,fuzzing"])
        .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"])
        .args(["--checks", "response_headers_conformance,response_schema_conformance,unsupported_method"])
        .args(["--max-examples", "60", "--seed", "8628", "--continue-on-failure", "--warnings", "off"])
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("OPENAPI_ISSUER", &test.issuer)
        .env("OPENAPI_NOW", test.broker.now().seconds().to_string())
        .env("OPENAPI_DEVICE", "lobby-printer-01")
        .env("OPENAPI_DEVICE_KEY", device.key.to_pkcs8_b64u().unwrap())
        .env("OPENAPI_RESOURCE", RESOURCE)
        .env("OPENAPI_RESOURCE_KEY", resource_key.to_pkcs8_b64u().unwrap())
        .env("OPENAPI_TOKEN", &tokens.access_token);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    // It was no empty run: requests that were authenticated came through.
    assert!(test.count("code.issued").await > 1, "{text}");
}

/// The document of the administration API, as a program gets it.
async fn api_document(program: &Program) -> Value {
    program.done("GET", "/openapi.json", None).await
}

#[tokio::test]
async fn the_api_document_has_exactly_the_api_s_routes() {
    let test = TestBroker::with_api().await;
    let document = api_document(&test.administrator().await).await;
    assert_eq!(document["servers"][0]["url"], format!("{}/api/v1", test.issuer));
    let source = std::fs::read_to_string(root().join("src/http/api/mod.rs")).unwrap();
    let source = source.split("let below = ").nth(1).unwrap().split(".method_not_allowed_fallback").next().unwrap();
    let mut routes = BTreeSet::new();
    for route in source.split(".route(").skip(1) {
        let path = route.split('"').nth(1).unwrap().replace("{id}", "{}");
        for method in ["get", "post", "put", "patch", "delete"] {
            if route.split('"').nth(2).unwrap().contains(&format!("{method}(")) {
                routes.insert((path.clone(), method.to_owned()));
            }
        }
    }
    assert!(routes.len() >= 25, "{routes:?}");
    let unnamed = |path: &str| {
        let segments = path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment });
        segments.collect::<Vec<_>>().join("/")
    };
    let documented: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| (unnamed(path), method.clone()))
        })
        .collect();
    assert_eq!(documented, routes);
}

#[tokio::test]
async fn real_answers_of_the_api_have_the_documented_members_and_no_others() {
    let test = TestBroker::with_api().await;
    let program = test.administrator().await;
    let document = api_document(&program).await;
    let mut device = test.paired("lobby-printer-01", "printer").await;
    test.visitor("dana", Role::Admin).await;
    device.request_code(None, None).await.unwrap();
    test.register("lobby-printer-02", "printer").await;
    test.open_window("lobby-printer-02").await;
    test.stranger("lobby-printer-02").request_pairing().await.unwrap();
    for (path, schema) in [
        ("/devices", "Device"),
        ("/pairings", "Pairing"),
        ("/sign-ins", "SignIn"),
        ("/sites", "Site"),
        ("/operators", "Operator"),
        ("/audit", "Record"),
    ] {
        let list = program.done("GET", path, None).await;
        fits(&document, schema, &list["items"][0]);
    }
    let paired = program.done("GET", "/devices/lobby-printer-01", None).await;
    fits(&document, "Device", &paired);
    fits(&document, "Facts", &paired["facts"]);
    fits(&document, "Key", &paired["key"]);
    fits(&document, "Whoami", &program.done("GET", "/whoami", None).await);
    fits(&document, "Window", &program.done("GET", "/devices/lobby-printer-02/window", None).await);
    fits(&document, "Problem", &program.get("/nowhere").await.json().unwrap());
}

/// The generator with a token that may everything, and with one that may only look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generator_finds_no_server_error_and_no_undocumented_answer_of_the_api() {
    let schemathesis = root().join("tests/openapi/.venv/bin/schemathesis");
    assert!(schemathesis.exists(), "schemathesis is missing; tests/run installs it");
    let test = TestBroker::with_api().await;
    test.paired("lobby-printer-01", "printer").await;
    for (program, phases, examples) in [
        (test.administrator().await, "examples,coverage,fuzzing", "8"),
        (test.program("inventory", "berlin", Role::Viewer).await, "examples,fuzzing", "3"),
    ] {
        let mut command = std::process::Command::new(&schemathesis);
        let folder = tempfile::tempdir().unwrap();
        command
            .current_dir(folder.path())
            .args(["run", &test.url("/api/v1/openapi.json"), "--no-color", "--phases", phases])
            .args(["--header", &format!("Authorization: Bearer {}", program.token)])
            .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"])
            .args(["--checks", "response_headers_conformance,response_schema_conformance,unsupported_method"])
            .args(["--max-examples", examples, "--seed", "8628", "--continue-on-failure", "--warnings", "off"]);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        println!("{text}");
    }
    // It was no empty run.
    assert!(test.count("device.registered").await > 1);
}
