//! `pairgate --server`: the real program against a broker on another address, over TLS, and what it says when that does not go.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use pairgate::broker::Caller;
use pairgate::model::operator::{EVERYWHERE, Rights, Role};
use pairgate::simulator::PairingStatus;
use serde_json::{Value, json};

use crate::support::child::{self, Served, free_port};
use crate::support::program::problem;
use crate::support::{Setup, TestBroker};

/// A machine with the program, a token and the authority's certificate, and without data.
struct Elsewhere {
    folder: tempfile::TempDir,
    server: String,
}

impl Elsewhere {
    fn new(server: &str, token: &str, ca_pem: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), format!("{token}\n")).unwrap();
        if let Some(pem) = ca_pem {
            std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
        }
        Self { folder, server: server.to_owned() }
    }

    async fn of(test: &TestBroker, role: Role) -> Self {
        let token = test.token(&format!("{role:?}").to_lowercase(), EVERYWHERE, role).await;
        Self::new(&test.issuer, &token, Some(&test.ca_pem()))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = program(self.folder.path());
        command.args(["--server", &self.server, "--token-file", "token"]);
        if self.folder.path().join("ca.pem").exists() {
            command.args(["--ca", "ca.pem"]);
        }
        command.args(words);
        command
    }

    async fn run(&self, words: &[&str]) -> Output {
        output(self.command(words)).await
    }

    async fn done(&self, words: &[&str]) -> String {
        done(&self.run(words).await, words)
    }

    async fn json(&self, words: &[&str]) -> Value {
        let mut words = words.to_vec();
        words.push("--json");
        serde_json::from_str(&self.done(&words).await).unwrap()
    }

    /// It ends with this code and says this.
    async fn refused(&self, words: &[&str], advice: &str) {
        refused(&self.run(words).await, advice, words);
        assert!(!self.folder.path().join("data").exists(), "{words:?} made a data directory");
    }
}

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pairgate"));
    command.current_dir(folder).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command
}

/// The broker answers on this test's own threads.
async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[track_caller]
fn done(output: &Output, words: &[&str]) -> String {
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn refused(output: &Output, advice: &str, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
    assert!(said.starts_with("error: ") && said.contains(advice), "{words:?} should say '{advice}': {said}");
    assert!(!said.contains("pgt_") || said.contains("pgt_…"), "{said}");
}

async fn over_tls() -> TestBroker {
    TestBroker::with_tls(Setup { has_api: true, ..Setup::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_s_life_from_another_machine() {
    let test = over_tls().await;
    let there = Elsewhere::of(&test, Role::Admin).await;
    let added = there.done(&["device", "add", "lobby-tv-01", "--kind", "tv", "--room", "EG-01"]).await;
    assert_eq!(added, "lobby-tv-01 is registered\nnext: pairgate pairing open lobby-tv-01\n");
    assert!(there.done(&["pairing", "open", "lobby-tv-01"]).await.starts_with("pairing is open until "));
    let mut device = test.stranger("lobby-tv-01");
    device.request_pairing().await.unwrap();
    assert!(matches!(device.poll_pairing().await.unwrap(), PairingStatus::Pending { .. }));
    let waiting = there.done(&["pairing", "list"]).await;
    assert!(
        waiting.contains("lobby-tv-01") && waiting.contains("compare the digits") && waiting.contains("EG-01"),
        "{waiting}"
    );
    there
        .refused(
            &["pairing", "confirm", "lobby-tv-01", "--number", "123456"],
            &format!("this needs a person: open {}/pair", test.issuer),
        )
        .await;
    assert_eq!(there.done(&["pairing", "refuse", "lobby-tv-01"]).await, "refused: 1\n");
    assert_eq!(there.done(&["pairing", "close", "lobby-tv-01"]).await, "pairing is closed\n");
    there.refused(&["pairing", "close", "lobby-tv-01"], "Pairing was not open.").await;
    test.pair(&mut device).await;
    assert_eq!(there.done(&["device", "suspend", "lobby-tv-01"]).await, "lobby-tv-01 is suspended\n");
    assert_eq!(there.done(&["device", "resume", "lobby-tv-01"]).await, "lobby-tv-01 is active\n");
    let shown = there.done(&["device", "show", "lobby-tv-01"]).await;
    assert!(shown.contains("key assurance  software") && shown.contains("machine:admin"), "{shown}");
    there.refused(&["device", "retire", "lobby-tv-01"], "add --for-ever").await;
    let for_people = format!("this needs a person: open {}/devices", test.issuer);
    there.refused(&["device", "retire", "lobby-tv-01", "--for-ever"], &for_people).await;
    let site = there.json(&["site", "set", "--name", "HQ", "--quiet-hours", "22:00-06:00"]).await;
    assert_eq!((&site["name"], &site["quiet_hours"]), (&json!("HQ"), &json!("22:00-06:00")));
    assert!(there.done(&["site", "show"]).await.contains("22:00-06:00"));
    let who = there.done(&["whoami"]).await;
    assert!(who.contains("machine:admin") && who.contains("admin everywhere") && who.contains(&test.issuer), "{who}");
}

/// Byte for byte what the same command prints on the broker's machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ways_print_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    std::fs::write(data.join("pairgate.toml"), "[api]\non_main = true\n").unwrap();
    let served = Served::start(data, free_port());
    for number in 0..5 {
        here(data, &["device", "add", &format!("tv-{number:02}"), "--kind", "tv"]);
    }
    served.paired(data, "lobby-printer-01").await;
    here(data, &["pairing", "open", "tv-01"]);
    served.stranger("tv-01").request_pairing().await.unwrap();
    here(data, &["operator", "add", "dana", "--role", "approver"]);
    let token = child::json(data, &["token", "add", "inventory", "--role", "admin"])["token"].clone();
    let there = Elsewhere::new(&served.issuer, token.as_str().unwrap(), None);
    let commands: [&[&str]; 9] = [
        &["device", "list"],
        &["device", "list", "tv-0", "--state", "registered", "--limit", "4"],
        &["device", "show", "lobby-printer-01"],
        &["pairing", "list"],
        &["site", "show"],
        &["operator", "list"],
        &["audit", "tail", "-n", "12"],
        &["audit", "tail", "--refusals"],
        &["whoami"],
    ];
    for words in commands {
        for format in [None, Some("--json")] {
            let words: Vec<&str> = words.iter().copied().chain(format).collect();
            let there = there.done(&words).await.replace("machine:inventory", "command-line");
            assert_eq!(there, here(data, &words), "{words:?}");
        }
    }
}

fn here(data: &Path, words: &[&str]) -> String {
    done(&child::run(data, words), words)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_token_may_not_and_what_a_machine_keeps_is_said_with_the_way_that_there_is_a_085() {
    let test = over_tls().await;
    let there = Elsewhere::of(&test, Role::Admin).await;
    let looks = Elsewhere::of(&test, Role::Viewer).await;
    test.register("lobby-tv-01", "tv").await;
    let mark = test.mark().await;
    for words in [
        &["pairing", "confirm", "lobby-tv-01", "--vouched"][..],
        &["operator", "add", "mallory", "--role", "admin"],
        &["operator", "link", "dana"],
        &["operator", "disable", "dana"],
        &["token", "add", "more", "--role", "admin"],
        &["token", "list"],
        &["token", "revoke", "admin"],
    ] {
        there.refused(words, &test.issuer).await;
    }
    for words in [
        &["keys", "rotate", "--emergency"][..],
        &["keys", "list"],
        &["tls", "ca"],
        &["config", "check"],
        &["doctor"],
        &["audit", "verify"],
        &["serve"],
    ] {
        there.refused(words, "run it on the broker's machine").await;
    }
    looks.refused(&["device", "suspend", "lobby-tv-01"], "Your role does not allow this").await;
    there.refused(&["device", "show", "../sites"], "400").await;
    there.refused(&["device", "add", "x", "--kind", "fridge"], "Kind 'fridge' is unknown").await;
    // Only that the tokens were used.
    assert_eq!(test.recorded(&mark).await.len(), 0);
    assert!(looks.done(&["device", "list"]).await.contains("lobby-tv-01"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_a_command_from_the_broker_is_said_with_what_to_do() {
    let test = over_tls().await;
    let token = test.token("inventory", EVERYWHERE, Role::Viewer).await;
    let ca = test.ca_pem();
    let list = &["device", "list"][..];
    let at = |server: &str, token: &str, ca: Option<&str>| Elsewhere::new(server, token, ca);
    at(&test.issuer, &token, None).refused(list, "--ca FILE").await;
    at(&test.issuer, &token, Some("no certificate")).refused(list, "--ca").await;
    at(&test.issuer, "pgt_wrong", Some(&ca)).refused(list, "does not take this token").await;
    at(&test.issuer.replace("127.0.0.1", "localhost"), &token, Some(&ca)).refused(list, &test.issuer).await;
    at(&format!("https://127.0.0.1:{}", free_port()), &token, Some(&ca)).refused(list, "can't be reached").await;
    at(&test.issuer.replace("https", "ftp"), &token, None).refused(list, "must be https").await;
    at("http://pairgate.example.org", &token, None).refused(list, "in clear").await;
    at(&format!("{}/api/v1", test.issuer), &token, None).refused(list, "host and port only").await;
    let plain = TestBroker::start().await;
    at(&plain.issuer, &token, None).refused(list, "no administration API").await;
    let folder = tempfile::tempdir().unwrap();
    let mut command = program(folder.path());
    command.args(["--server", &test.issuer, "device", "list"]);
    refused(&output(command).await, "PAIRGATE_TOKEN", list);
    let mut command = program(folder.path());
    command.args(["--token-file", "token", "device", "list"]);
    refused(&output(command).await, "--server", list);
    // From the environment.
    std::fs::write(folder.path().join("ca.pem"), &ca).unwrap();
    let mut command = program(folder.path());
    command
        .args(["whoami", "--ca", "ca.pem", "--json"])
        .env("PAIRGATE_SERVER", &test.issuer)
        .env("PAIRGATE_TOKEN", &token);
    let who: Value = serde_json::from_str(&done(&output(command).await, &["whoami"])).unwrap();
    assert_eq!(who["actor"], "machine:inventory");
    // A token that has ended.
    let day = Duration::from_secs(86_400);
    test.broker.add_api_token(&Caller::command_line(), "short", Rights::everywhere(Role::Viewer), day).await.unwrap();
    test.broker.revoke_api_token(&Caller::command_line(), "inventory").await.unwrap();
    at(&test.issuer, &token, Some(&ca)).refused(list, "pairgate token add").await;
}

/// The whole of it as an installation has it: `serve` with a listener for the API alone, a token by command, and the two listeners apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_s_own_listener_has_the_api_and_the_other_has_not_a_093() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let api = format!("127.0.0.1:{}", free_port());
    std::fs::write(data.join("pairgate.toml"), format!("[api]\nlisten = '{api}'\n")).unwrap();
    let mut served = Served::start(data, free_port());
    assert_eq!(served.line(), format!("administration API at http://{api}/api/v1"));
    let token =
        child::json(data, &["token", "add", "inventory", "--role", "viewer"])["token"].as_str().unwrap().to_owned();
    let there = Elsewhere::new(&format!("http://{api}"), &token, None);
    assert_eq!(there.json(&["whoami"]).await["issuer"], served.issuer);
    there.refused(&["device", "add", "tv-01", "--kind", "tv"], "Your role does not allow this").await;
    Elsewhere::new(&served.issuer, &token, None).refused(&["whoami"], "no administration API").await;
    let wire = pairgate::simulator::Wire::new().unwrap();
    for path in [
        "/",
        "/sign-in",
        "/devices",
        "/token",
        "/jwks",
        "/openapi.json",
        "/.well-known/openid-configuration",
        "/assets/style.css",
        "/api",
        "/api/v2/devices",
        "/API/v1/devices",
    ] {
        let request = wire.get(&format!("http://{api}{path}")).bearer_auth(&token);
        assert_eq!(wire.send(request).await.unwrap().status, 404, "{path} is not there");
    }
    for host in ["evil.example", &served.issuer["http://".len()..], "127.0.0.1"] {
        let request = wire.get(&format!("http://{api}/api/v1/whoami")).bearer_auth(&token).header("host", host);
        assert_eq!(wire.send(request).await.unwrap().status, 421, "{host}");
    }
    let answer = wire.send(wire.get(&format!("http://{api}/api/v1/whoami"))).await.unwrap();
    problem(&answer, 401, "and there, too, only with a token");
    let listed = child::json(data, &["token", "list"]);
    assert_eq!((&listed[0]["state"], &listed[0]["roles"]["*"]), (&json!("live"), &json!("viewer")));
    child::json(data, &["token", "revoke", "inventory"]);
    there.refused(&["whoami"], "does not take this token").await;
}
