//! `pairgate mqtt check` against a real Mosquitto: set up as the documentation says, and set up as it must not be.

use std::path::Path;

use pairgate::mqtt::acl;
use rcgen::KeyPair;
use serde_json::Value;

use crate::support::child::pairgate;
use crate::support::mosquitto::{Manner, Mosquitto, PAIRING_PASSWORD};

/// Check, state and detail of each line, and whether the program ended with 0.
fn check(data: &Path, words: &[&str]) -> (Vec<[String; 3]>, bool, Value) {
    let output = pairgate(data, &[&["mqtt", "check", "--json"], words].concat()).output().unwrap();
    let value: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let line = |check: &Value| ["check", "state", "detail"].map(|name| check[name].as_str().unwrap().to_owned());
    (value["checks"].as_array().unwrap().iter().map(line).collect(), output.status.success(), value)
}

fn having<'c>(checks: &'c [[String; 3]], state: &str) -> Vec<&'c str> {
    checks.iter().filter(|check| check[1] == state).map(|check| check[0].as_str()).collect()
}

fn installation(mosquitto: &Mosquitto) -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("pairgate.toml"), mosquitto.section()).unwrap();
    std::fs::write(data.path().join("password"), PAIRING_PASSWORD).unwrap();
    data
}

const IN_CLEAR: &str = "nobody connects in clear, on port 1883";

#[tokio::test]
async fn good_rules_are_found_good_for_paired_devices_and_for_others_a_057_d_14() {
    let mosquitto = Mosquitto::start().await;
    let data = installation(&mosquitto);
    let (certificate, key) = mosquitto.certify("pairgate-check-tv", &KeyPair::generate().unwrap());
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let (checks, is_good, _) = check(data.path(), &["--device-certificate", certificate, "--device-key", key]);
    assert!(is_good && having(&checks, "WRONG").is_empty(), "{checks:#?}");
    assert_eq!(having(&checks, "not tried"), [IN_CLEAR], "{checks:#?}");
    assert_eq!(checks.len(), 21);
    let port = mosquitto.pairing_port().to_string();
    let words = ["--user-name", acl::PAIRING, "--password-file", "password", "--port", &port];
    let (checks, is_good, _) = check(data.path(), &words);
    assert!(is_good && having(&checks, "WRONG").is_empty(), "{checks:#?}");
    let shared = ["a device does not get another's answers", "a device can't send under another's name"];
    for check in shared {
        assert!(having(&checks, "not tried").contains(&check), "{checks:#?}");
    }
}

#[tokio::test]
async fn a_broker_without_rules_is_found_out_in_words_a_057_a_059_d_14() {
    let mosquitto = Mosquitto::with(Manner::Open).await;
    let data = installation(&mosquitto);
    let (checks, is_good, value) = check(data.path(), &[]);
    assert!(!is_good, "{checks:#?}");
    assert_eq!(
        having(&checks, "WRONG"),
        [
            "a device does not get another's events",
            "a device does not get another's answers",
            "'#' brings a device nothing of others",
            "'+' brings a device nothing of others",
            "a device does not get what consoles read",
            "a device can't send under another's name",
            "a device can't send commands",
            "a device can't send events",
            "a device can't send answers",
            "nobody takes the place of another client id",
            "nobody connects without a certificate or a password",
        ],
        "{checks:#?}"
    );
    let first = value["checks"].as_array().unwrap().iter().find(|check| check["state"] == "WRONG").unwrap();
    assert!(first["means"].as_str().unwrap().contains("confirmation numbers"), "{first}");
    assert!(first["change"]["mosquitto"].as_str().unwrap().contains("pairgate mqtt acl"), "{first}");
}

/// Mosquitto makes the client id out of the certificate: the check and the node that serves are one client to it.
#[tokio::test]
async fn beside_a_node_that_serves_it_says_that_it_cannot_look() {
    let mosquitto = Mosquitto::start().await;
    let data = installation(&mosquitto);
    let _serving = mosquitto.certified(acl::PAIRGATE).subscribe("pairgate", &["pairgate/v1/+/pairing/request"]);
    // The certificate of the section was made again with it; that of the node is as good.
    let (checks, is_good, value) = check(data.path(), &["--user-name", acl::PAIRING, "--password-file", "password"]);
    assert!(
        !is_good && having(&checks, "WRONG") == ["Pairgate stays connected beside the node that serves"],
        "{checks:#?}"
    );
    assert!(value.to_string().contains("Stop pairgate serve"), "{value}");
}

#[tokio::test]
async fn a_broker_that_is_not_there_and_one_that_is_not_set_are_said() {
    let mut mosquitto = Mosquitto::start().await;
    let data = installation(&mosquitto);
    let (certificate, key) = mosquitto.certify("pairgate-check-tv", &KeyPair::generate().unwrap());
    let (certificate, key) = (certificate.to_str().unwrap().to_owned(), key.to_str().unwrap().to_owned());
    mosquitto.stop();
    let (checks, is_good, _) = check(data.path(), &["--device-certificate", &certificate, "--device-key", &key]);
    assert!(!is_good && having(&checks, "WRONG") == ["Pairgate connects"], "{checks:#?}");
    let empty = tempfile::tempdir().unwrap();
    let output = pairgate(empty.path(), &["mqtt", "check"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("mqtt.url is not set"), "{said}");
}
