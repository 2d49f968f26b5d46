//! The command line, as a person and as a script see it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use pairgate::simulator::{DeviceKey, PairingStatus, SimulatedDevice, TokenAnswer, Wire};

use crate::support::child::{Served, free_port, json, pairgate, run};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn refused(data: &Path, words: &[&str], code: i32, advice: &str) {
    let output = run(data, words);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
    assert!(said.contains(advice), "{words:?} should say '{advice}': {said}");
    assert!(!said.contains("stack backtrace") && !said.contains("panicked"), "{said}");
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_policy_in_a_file_and_sites_by_commands() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let file = folder.path().join("policy.toml");
    let file = file.to_str().unwrap();
    done(&run(data, &["policy", "export", "--file", file]));
    let exported = std::fs::read_to_string(file).unwrap();
    assert_eq!(done(&run(data, &["policy", "import", file])).trim(), "nothing to change");

    let changed = exported.replace("code_lifetime = 300", "code_lifetime = 120")
        + "\n[sites.paris]\nname = 'Paris'\nnetworks = ['10.9.0.0/16']\n";
    std::fs::write(file, changed).unwrap();
    let difference = done(&run(data, &["policy", "import", file, "--dry-run"]));
    insta::assert_snapshot!(difference, @r"
    kinds.console
      ~ code_lifetime  300 -> 120
    kinds.printer
      ~ code_lifetime  300 -> 120
    kinds.tv
      ~ code_lifetime  300 -> 120
    sites.paris
      + name           Paris
      + networks       10.9.0.0/16
      + two_persons    false
    nothing was changed: this was a dry run
    ");
    refused(data, &["policy", "import", file], 1, "add --yes");
    assert!(done(&run(data, &["policy", "import", file, "--yes"])).contains("applied as version 1"));
    assert_eq!(done(&run(data, &["policy", "import", file])).trim(), "nothing to change");
    let history = json(data, &["policy", "history"]);
    assert_eq!(history[0]["proposed_by"], "command-line");
    assert!(done(&run(data, &["policy", "history"])).contains("kinds.console.code_lifetime: 300 -> 120"));
    refused(data, &["policy", "confirm", "1"], 1, "does not wait");
    refused(data, &["policy", "withdraw", "9"], 1, "does not wait");
    std::fs::write(file, "[kinds.printer]\nscopes = { 'Mail.Read' = 'x' }").unwrap();
    refused(data, &["policy", "import", file, "--yes"], 1, "no device may have it");

    assert_eq!(json(data, &["site", "list"]).as_array().unwrap().len(), 2);
    refused(data, &["site", "show"], 1, "say which");
    assert_eq!(json(data, &["site", "show", "paris"])["networks"][0], "10.9.0.0/16");
    let set = json(data, &["site", "set", "paris", "--two-persons", "true", "--quiet-hours", "22:00-06:00"]);
    assert_eq!((&set["name"], &set["two_persons"]), (&"Paris".into(), &true.into()));
    json(data, &["site", "add", "rome", "--name", "Rome"]);
    refused(data, &["site", "add", "rome"], 1, "already");
    refused(data, &["site", "set", "oslo", "--name", "x"], 1, "there is no site");
}

#[test]
fn the_demo_tells_the_whole_story_and_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let story = done(&run(folder.path(), &["demo", "--auto"]));
    for part in [
        "The broker starts",
        "Facilities registers a printer",
        "The printer asks to be paired",
        "A technician confirms the key",
        "only this key is lobby-printer-01",
        "The printer asks for a code",
        "PRN-",
        "My number:",
        "approves",
        "The printer has its token",
        "Strangers ask for codes",
        "A thief has stolen",
        "not slow_down",
        "The audit log is checked",
        "What was refused",
        "401 invalid_client",
        "All ten steps happened as told.",
    ] {
        assert!(story.contains(part), "the story lacks '{part}':\n{story}");
    }
    assert!(!story.contains("eyJ"), "no token is printed");
}

#[test]
fn the_demo_over_mqtt_needs_nothing_installed_and_tells_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let story = done(&run(folder.path(), &["demo", "--auto", "--mqtt"]));
    for part in
        ["takes devices over MQTT at mqtt://127.0.0.1:", "reads ", "will not poll", "All ten steps happened as told."]
    {
        assert!(story.contains(part), "the story lacks '{part}':\n{story}");
    }
}

#[test]
fn a_device_s_life_by_commands() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let added =
        json(data, &["device", "add", "lobby-printer-01", "--kind", "printer", "--room", "EG-01", "--name", "Lobby"]);
    assert_eq!((added["id"].as_str(), added["state"].as_str()), (Some("lobby-printer-01"), Some("registered")));
    refused(data, &["device", "add", "lobby-printer-01", "--kind", "printer"], 1, "ids are never reused");
    refused(data, &["device", "add", "Lobby", "--kind", "fax"], 1, "printer, tv, console");
    refused(data, &["device", "add", "29d9ed98-a469-4536-ade2-f981bc1d605e", "--kind", "tv"], 1, "phishing kits");
    refused(data, &["device", "show", "nobody-01"], 1, "there is no device 'nobody-01'");
    refused(data, &["device", "add"], 2, "--kind");
    assert_eq!(json(data, &["device", "list", "lobby"]).as_array().unwrap().len(), 1);
    assert!(done(&run(data, &["device", "list"])).contains("lobby-printer-01  registered  printer"));
    assert_eq!(json(data, &["device", "suspend", "lobby-printer-01"])["state"], "suspended");
    refused(data, &["pairing", "open", "lobby-printer-01"], 1, "resume it first");
    assert_eq!(json(data, &["device", "resume", "lobby-printer-01"])["state"], "registered");
    refused(data, &["device", "retire", "lobby-printer-01"], 1, "--for-ever");
    assert_eq!(json(data, &["device", "retire", "lobby-printer-01", "--for-ever"])["state"], "retired");
    refused(data, &["device", "resume", "lobby-printer-01"], 1, "is retired");
    refused(data, &["device", "add", "lobby-printer-01", "--kind", "tv"], 1, "ids are never reused");
    let shown = done(&run(data, &["device", "show", "lobby-printer-01"]));
    assert!(shown.contains("device.retired") && shown.contains("command-line"), "{shown}");
}

#[test]
fn people_the_site_and_configuration_by_commands() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    refused(data, &["operator", "link", "dana"], 1, "pairgate operator add dana");
    json(data, &["operator", "add", "dana", "--role", "approver"]);
    refused(data, &["operator", "add", "dana", "--role", "admin"], 1, "is taken");
    refused(data, &["operator", "add", "d\u{430}na", "--role", "admin"], 1, "A-Z, a-z");
    refused(data, &["operator", "add", "emil", "--role", "king"], 2, "possible values");
    assert!(
        json(data, &["operator", "link", "dana"])["url"]
            .as_str()
            .unwrap()
            .starts_with("http://localhost:8628/sign-in?token=")
    );
    json(data, &["operator", "disable", "dana"]);
    refused(data, &["operator", "link", "dana"], 1, "there is no operator 'dana'");
    assert!(json(data, &["operator", "list"])[0]["disabled_at"].is_string());
    let site = json(data, &["site", "set", "--name", "Berlin HQ", "--network", "10.2.0.0/16", "--network", "fd00::/8"]);
    assert_eq!(site["networks"], serde_json::json!(["10.2.0.0/16", "fd00::/8"]));
    assert_eq!(json(data, &["site", "show"])["name"], "Berlin HQ");
    assert!(done(&run(data, &["config", "check"])).contains("the configuration is good"));
    let example = done(&run(data, &["config", "example"]));
    std::fs::write(data.join("pairgate.toml"), example).unwrap();
    assert!(done(&run(data, &["config", "check"])).contains("printer, tv, console"));
    std::fs::write(data.join("pairgate.toml"), "listen = '127.0.0.1:9'\nuser_code_length = 4\n").unwrap();
    refused(data, &["config", "check"], 1, "line 2");
    refused(data, &["device", "list"], 1, "user_code_length");
    std::fs::remove_file(data.join("pairgate.toml")).unwrap();
    refused(data, &["serve", "--listen", "0.0.0.0:8628"], 1, "proxy");
}

#[test]
fn a_lost_or_open_master_key_stops_everything_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    done(&run(data, &["device", "list"]));
    let key = data.join("master.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    refused(data, &["device", "list"], 1, "chmod 600");
    std::fs::remove_file(&key).unwrap();
    refused(data, &["device", "list"], 1, "master.key");
    assert!(!key.exists(), "a database that has keys gets no new master key");
    std::fs::write(&key, pairgate::secret::b64u(&[1; 32])).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    refused(data, &["device", "list"], 1, "master key is not the one");
    for file in ["pairgate.db", "master.key"] {
        assert_eq!(
            std::fs::metadata(data.join(file)).unwrap().permissions().mode() & 0o077,
            0,
            "{file} is for its owner only"
        );
    }
}

#[test]
fn the_audit_log_names_its_first_bad_entry_and_a_cut_off_end_shows_by_its_anchor() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    for id in ["printer-01", "printer-02", "printer-03"] {
        json(data, &["device", "add", id, "--kind", "printer"]);
    }
    let verdict = json(data, &["audit", "verify"]);
    let anchor = format!("{}:{}", verdict["records"], verdict["head"].as_str().unwrap());
    done(&run(data, &["audit", "verify", "--anchor", &anchor]));
    let tail = done(&run(data, &["audit", "tail", "-n", "2"]));
    assert!(tail.contains("printer-03") && !tail.contains("printer-01"), "{tail}");
    let database = rusqlite::Connection::open(data.join("pairgate.db")).unwrap();
    database.execute("UPDATE audit SET detail = 'nothing' WHERE id = 3", []).unwrap();
    refused(data, &["audit", "verify"], 1, "entry 3 is bad");
    database.execute("DELETE FROM audit WHERE id >= 3", []).unwrap();
    done(&run(data, &["audit", "verify"]));
    refused(data, &["audit", "verify", "--anchor", &anchor], 1, "cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_and_commands_beside_it_are_one_product() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let mut served = Served::start(data, free_port());
    assert!(served.line().contains("nobody can sign in yet"));
    let link = served.line().trim().to_owned();
    let dana = pairgate::simulator::PageOperator::new(&served.issuer, Wire::new().unwrap()).unwrap();
    dana.sign_in(&link).await.unwrap();
    assert!(dana.sign_in(&link).await.is_err(), "once");
    json(data, &["operator", "add", "emil", "--role", "viewer"]);
    assert!(
        json(data, &["operator", "link", "emil"])["url"].as_str().unwrap().starts_with(&served.issuer),
        "links lead to where it listens"
    );

    json(data, &["device", "add", "lobby-printer-01", "--kind", "printer"]);
    json(data, &["pairing", "open", "lobby-printer-01"]);
    let mut printer = SimulatedDevice::new(
        "lobby-printer-01",
        &served.issuer,
        DeviceKey::generate_es256().unwrap(),
        Wire::new().unwrap(),
    );
    printer.request_pairing().await.unwrap();
    let PairingStatus::Pending { digits, .. } = printer.poll_pairing().await.unwrap() else { panic!("not pending") };
    assert_eq!(json(data, &["pairing", "list"])[0]["ready"], true);
    refused(data, &["pairing", "confirm", "lobby-printer-01", "--number", "12"], 1, "Tries left: 2");
    json(data, &["pairing", "confirm", "lobby-printer-01", "--number", &digits]);
    assert!(matches!(printer.poll_pairing().await.unwrap(), PairingStatus::Paired(_)));
    refused(data, &["pairing", "confirm", "lobby-printer-01", "--number", &digits], 1, "nothing waits");

    printer.request_code(None, None).await.unwrap();
    let held = tokio::spawn(async move {
        let answer = printer.poll_token(Some(25)).await;
        (printer, answer)
    });
    json(data, &["device", "suspend", "lobby-printer-01"]);
    let (mut printer, answer) = held.await.unwrap();
    assert!(
        matches!(&answer.unwrap(), TokenAnswer::Error { error, .. } if error == "invalid_client"),
        "another process ends a held poll"
    );
    json(data, &["device", "resume", "lobby-printer-01"]);
    printer.request_code(None, None).await.unwrap();
    let held = tokio::spawn(async move { printer.poll_token(Some(25)).await });
    dana.register(&pairgate::simulator::DeviceForm {
        id: "hall-tv-01".into(),
        kind: "tv".into(),
        name: "Hall".into(),
        ..Default::default()
    })
    .await
    .unwrap();
    assert!(served.stopped().success(), "a held poll does not hold the stop");
    assert!(!matches!(held.await.unwrap(), Ok(TokenAnswer::Tokens(_))));
}

#[test]
fn a_thousand_devices_sign_in_at_once_and_the_broker_stays_small() {
    let folder = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pairgate"))
        .args(["simulate", "--fleet", "1000", "--json"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let printed = done(&output);
    let summary: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(summary["signed_in"], 1000, "{summary}");
    let peak = summary["broker_peak_memory_kib"].as_u64().unwrap_or(u64::MAX);
    assert!(peak < 100 * 1024, "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_scripts_read_is_json_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let served = Served::start(data, free_port());
    assert_eq!(json(data, &["config", "check"])["attestation_roots"], 0);
    assert!(json(data, &["config", "check"])["kinds"].as_array().unwrap().contains(&"printer".into()));
    json(data, &["device", "add", "lobby-printer-01", "--kind", "printer", "--serial", "SN1"]);
    assert_eq!(json(data, &["device", "show", "lobby-printer-01"])["facts"]["serial"], "SN1");
    assert!(json(data, &["pairing", "open", "lobby-printer-01", "--minutes", "5"])["closes_at"].is_string());
    assert!(json(data, &["pairing", "close", "lobby-printer-01"])["closes_at"].is_null());
    refused(data, &["pairing", "close", "lobby-printer-01"], 1, "was not open");
    refused(data, &["pairing", "open", "lobby-printer-01", "--minutes", "0"], 1, "1 minute to 24 hours");
    refused(data, &["pairing", "open", "nobody-01"], 1, "there is no device 'nobody-01'");
    refused(data, &["pairing", "open"], 2, "<DEVICE>");
    refused(data, &["device", "list", "--state", "broken"], 1, "registered, active, suspended, retired");
    json(data, &["pairing", "open", "--site"]);
    let mut printer = served.stranger("lobby-printer-01");
    printer.serial = "SN1".into();
    printer.request_pairing().await.unwrap();
    assert_eq!(json(data, &["pairing", "list"])[0]["ready"], false);
    assert_eq!(json(data, &["pairing", "refuse", "lobby-printer-01"])["refused"], 1);
    assert!(printer.poll_pairing().await.is_err(), "the device hears of it");
    printer.key_storage = "hardware".into();
    printer.request_pairing().await.unwrap();
    let PairingStatus::Pending { digits, .. } = printer.poll_pairing().await.unwrap() else { panic!("not pending") };
    let waiting = json(data, &["pairing", "list"]);
    assert_eq!((&waiting[0]["key_assurance"], &waiting[0]["verified"]), (&"hardware-claimed".into(), &false.into()));
    refused(data, &["pairing", "confirm", "lobby-printer-01"], 2, "--number");
    refused(data, &["pairing", "confirm", "lobby-printer-01", "--vouched"], 1, "no key of this device vouches");
    json(data, &["pairing", "confirm", "lobby-printer-01", "--number", &digits]);
    json(data, &["pairing", "close", "--site"]);
    printer.poll_pairing().await.unwrap();
    assert_eq!(json(data, &["device", "show", "lobby-printer-01"])["key"]["assurance"], "hardware-claimed");
    printer.rotate_key(DeviceKey::generate_es256().unwrap());
    printer.key_storage.clear();
    printer.request_pairing().await.unwrap();
    printer.poll_pairing().await.unwrap();
    assert_eq!(json(data, &["pairing", "list"])[0]["verified"], true);
    json(data, &["pairing", "confirm", "lobby-printer-01", "--vouched"]);
    assert_eq!(json(data, &["device", "list"])[0]["key"]["jkt"], printer.key.jkt().as_str());
    assert_eq!(json(data, &["device", "list"])[0]["key"]["assurance"], "software");
    for line in done(&pairgate(data, &["audit", "tail", "--json"]).output().unwrap()).lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].is_string(), "one record a line");
    }
    let refusals = done(&pairgate(data, &["audit", "tail", "--refusals", "--json"]).output().unwrap());
    assert!(refusals.lines().all(|line| !line.contains("\"severity\":\"info\"")), "{refusals}");
}

#[test]
fn the_tail_of_the_audit_log_is_as_long_as_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    done(&run(data, &["device", "list"]));
    let store = pairgate::store::open(data).unwrap();
    let context = pairgate::model::audit::Context {
        now: pairgate::clock::Clock::system().now(),
        actor: pairgate::model::audit::Actor::CommandLine,
        peer: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for _ in 0..1300 {
            store.record(pairgate::model::audit::Event::SignedIn, None, "", &context).await.unwrap();
        }
    });
    let tail = |lines: &str| {
        done(&pairgate(data, &["audit", "tail", "-n", lines, "--json"]).output().unwrap()).lines().count()
    };
    assert_eq!((tail("1250"), tail("5000"), tail("0")), (1250, 1301, 0));
}

#[test]
fn whoever_has_read_the_first_line_may_stop_it_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        assert!(Served::start(folder.path(), free_port()).stopped().success());
    }
}

/// From nothing to TLS with a side for client certificates, and a certificate that is renewed while it serves.
#[tokio::test]
async fn tls_by_commands_and_what_the_doctor_says() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let said = done(&run(data, &["doctor"]));
    assert!(said.contains("warn  database"), "{said}");
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(done(&run(data, &["doctor"])).contains("chmod go="));
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700)).unwrap();
    refused(data, &["tls", "ca"], 1, "pairgate tls init");
    let config = "[tls]\nlocal_ca = true\nmtls_listen = '127.0.0.1:0'\n";
    std::fs::write(data.join("pairgate.toml"), config).unwrap();
    refused(data, &["serve", "--listen", "127.0.0.1:0"], 1, "pairgate tls init");
    refused(data, &["doctor"], 1, "pairgate tls init");
    refused(data, &["serve", "--listen", "0.0.0.0:0"], 1, "public_url");
    let made = json(data, &["tls", "init", "--host", "localhost", "--host", "127.0.0.1"]);
    assert_eq!(made["certificate"]["days_left"], 89);
    refused(data, &["tls", "init"], 1, "--force");
    let ca = json(data, &["tls", "ca"]);
    let pem = done(&run(data, &["tls", "ca"]));
    assert_eq!(ca["ca"].as_str().unwrap().trim_end(), pem.trim_end());
    assert_eq!(ca["sha256"], made["authority"]["sha256"]);

    let mut served = Served::start(data, free_port());
    assert!(served.issuer.starts_with("https://127.0.0.1:"), "{}", served.issuer);
    assert!(served.line().starts_with("client certificates at https://127.0.0.1:"));
    let wire = Wire::with_tls(&pem, None).unwrap();
    let metadata = format!("{}/.well-known/oauth-authorization-server", served.issuer);
    let document = wire.send(wire.get(&metadata)).await.unwrap().json().unwrap();
    assert_eq!(document["issuer"], served.issuer);
    let report = json(data, &["doctor"]);
    let states: Vec<_> =
        report["checks"].as_array().unwrap().iter().map(|check| check["state"].as_str().unwrap()).collect();
    assert!(states.iter().all(|state| *state == "ok"), "{report}");
    // A device that has not been told of the authority does not talk to this server; one that has been told is only not expected yet.
    std::fs::write(data.join("ca.pem"), &pem).unwrap();
    let play = ["simulate", "--issuer", &served.issuer, "--id", "lobby-printer-01"];
    refused(data, &play, 1, "ertificate");
    refused(data, &[&play[..], &["--ca", "ca.pem"]].concat(), 1, "(--serial)");
    // Renewed by command, taken up on SIGHUP, and those who pinned the authority notice nothing.
    let renewed = json(data, &["tls", "renew", "--host", "127.0.0.1"]);
    assert_ne!(renewed["certificate"]["sha256"], made["certificate"]["sha256"]);
    assert_eq!(renewed["authority"], made["authority"]);
    served.signal("HUP");
    let wire = Wire::with_tls(&pem, None).unwrap();
    assert_eq!(wire.send(wire.get(&metadata)).await.unwrap().status, 200);
    std::fs::write(data.join("tls/server.key"), "broken").unwrap();
    served.signal("HUP");
    let wire = Wire::with_tls(&pem, None).unwrap();
    assert_eq!(wire.send(wire.get(&metadata)).await.unwrap().status, 200, "a broken key is not taken up");
    refused(data, &["doctor"], 1, "server.key");
    assert!(served.stopped().success());
}

#[test]
fn signing_keys_by_commands() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let first = json(data, &["keys", "list"])[0].clone();
    assert_eq!((first["algorithm"].as_str(), first["state"].as_str()), (Some("ES256"), Some("current")));
    assert!(
        first["rotates_at"].is_string() && first["retires_at"].is_null() && first["age_seconds"].is_u64(),
        "{first}"
    );
    // Without somebody to ask, an emergency needs a word more, and says what it would do.
    for words in
        [&["keys", "rotate", "--emergency"][..], &["keys", "rotate", "--emergency", "--end-sign-ins", "--json"]]
    {
        refused(data, words, 1, "Every access token that is out is void");
        refused(data, words, 1, "Nothing was changed. If that is what you want, add --yes");
    }
    refused(data, &["keys", "rotate", "--end-sign-ins"], 2, "--emergency");
    refused(data, &["keys", "rotate", "--yes"], 2, "--emergency");
    assert_eq!(json(data, &["keys", "list"])[0]["kid"], first["kid"]);

    let rotated = json(data, &["keys", "rotate"]);
    assert_eq!((rotated["emergency"].as_bool(), &rotated["rotated"][0]["former"]), (Some(false), &first["kid"]));
    let listed = json(data, &["keys", "list"]);
    let both = listed.as_array().unwrap();
    assert_eq!((both.len(), &both[0]["kid"]), (2, &rotated["rotated"][0]["kid"]));
    assert_eq!((both[1]["state"].as_str(), &both[1]["kid"]), (Some("retiring"), &first["kid"]));
    assert_eq!(both[1]["retires_at"], rotated["rotated"][0]["former_retires_at"]);
    let table = done(&run(data, &["keys", "list"]));
    assert!(table.contains("current, rotates ") && table.contains("retiring until "), "{table}");
    let said = done(&run(data, &["keys", "rotate"]));
    assert!(said.contains("Nobody has to do anything") && said.contains("for 900 seconds"), "{said}");

    let replaced = json(data, &["keys", "rotate", "--emergency", "--yes"]);
    assert!(
        replaced["rotated"][0]["former_retires_at"].is_null() && replaced["ended_sign_ins"].is_null(),
        "{replaced}"
    );
    assert_eq!(json(data, &["keys", "list"]).as_array().unwrap().len(), 1);
    let said = done(&run(data, &["keys", "rotate", "--emergency", "--end-sign-ins", "--yes"]));
    assert!(said.contains("0 devices have to sign in again") && said.contains("signing-key-leak.md"), "{said}");
}

#[test]
fn help_begins_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let help = done(&pairgate(folder.path(), &["--help"]).env("COLUMNS", "100").output().unwrap());
    insta::assert_snapshot!(help, @"
    A self-hosted device-code broker: the one place where an organisation's printers, TVs and consoles
    sign in.

    Usage: pairgate [OPTIONS] <COMMAND>

    Commands:
      demo      See a device get paired and sign in, and an attacker get nothing
      serve     Run the broker
      device    Register, list, import, export, suspend, resume and retire devices
      pairing   Open and close pairing, confirm what waits
      site      Sites: their names, networks and rules
      policy    Kinds, resources and sites as a file: export, import, history
      operator  Add people, make sign-in links, add their keys, sign commands
      token     Make, list and revoke tokens of programs that call the administration API
      whoami    Who these commands act as
      audit     Read and check the audit log
      tls       The local certificate authority: make it, show it, renew
      keys      List and rotate the keys that sign tokens
      mqtt      The organisation's MQTT broker: rules for it, and whether it keeps them
      risk      The risk assessment: what is in force, signed versions
      config    Show and check configuration
      doctor    Look whether this installation is as it should be
      simulate  Play a device, or a fleet of them, against a broker
      help      Print this message or the help of the given subcommand(s)

    Options:
          --config <FILE>  Configuration file [default: pairgate.toml, if it is there]
          --data <DIR>     Data directory [default: data]
          --json           Print JSON
      -h, --help           Print help
      -V, --version        Print version

    Another machine's broker:
          --server <URL>       A broker on another machine, by its administration API [env:
                               PAIRGATE_SERVER]
          --token-file <FILE>  File with the token to show there [env: PAIRGATE_TOKEN, the token itself]
          --ca <FILE>          PEM file with the authority of its certificate, if that is a private one:
                               what `pairgate tls ca` prints

    Begin with: pairgate demo
    ");
}
