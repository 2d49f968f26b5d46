//! The rules that `pairgate mqtt acl` prints, in a real Mosquitto, with its own clients. Mosquitto answers every subscription with "granted"; what counts is what
//! arrives.

use pairgate::mqtt::acl;

use crate::support::child::{json, pairgate};
use crate::support::mosquitto::Mosquitto;

#[tokio::test]
async fn a_device_reads_its_own_topics_and_wildcards_bring_no_more_a_057_d_14() {
    let mosquitto = Mosquitto::start().await;
    let node = mosquitto.certified(acl::PAIRGATE);
    let (lobby, cellar) = (mosquitto.certified("lobby-tv"), mosquitto.certified("cellar-tv"));
    let console = mosquitto.certified("operator:dana");
    // Before anybody reads: one certificate, one connection.
    for (topic, who) in [
        ("cellar-tv/event", &lobby),
        ("lobby-tv/event", &lobby),
        ("lobby-tv/event", &cellar),
        ("cellar-tv/pairing/request", &lobby),
        ("lobby-tv/pairing/response", &lobby),
        ("operations/commands", &lobby),
        ("operations/pending", &lobby),
        ("operations/commands", &console),
        ("lobby-tv/event", &console),
    ] {
        assert!(!who.publish("x", &format!("pairgate/v1/{topic}"), "forged"), "{topic}");
    }
    for filters in [&["#"][..], &["+/+/+/+", "+/+/+"], &["pairgate/v1/cellar-tv/event", "pairgate/v1/lobby-tv/event"]] {
        let reader = lobby.subscribe("lobby-tv", filters);
        let nobody = console.subscribe("x", &["#"]);
        for (who, topic) in [
            (&node, "cellar-tv/event"),
            (&node, "cellar-tv/pairing/response"),
            (&node, "operations/pending"),
            (&node, "operations/results/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
            (&node, "operations/status"),
            (&cellar, "cellar-tv/pairing/request"),
        ] {
            assert!(who.publish("x", &format!("pairgate/v1/{topic}"), "not for the lobby"), "{topic}");
        }
        assert!(node.publish("x", "pairgate/v1/lobby-tv/event", "last"));
        assert_eq!(reader.until("last"), ["pairgate/v1/lobby-tv/event last"], "{filters:?}");
        // Patterns hold for consoles, too: it gets what no device could be called.
        assert!(node.publish("x", "pairgate/v1/operator:dana/event", "last"));
        assert_eq!(nobody.until("last"), ["pairgate/v1/operator:dana/event last"], "a console without a block");
    }
}

#[tokio::test]
async fn pairgate_reads_requests_and_devices_that_are_to_be_paired_reach_nothing_else_d_14() {
    let mosquitto = Mosquitto::start().await;
    let node = mosquitto.certified(acl::PAIRGATE);
    let unpaired = mosquitto.unpaired();
    let requests = node.subscribe("x", &["pairgate/v1/+/pairing/request", "pairgate/v1/operations/commands"]);
    let reader = unpaired.subscribe("new-tv.0123456789abcdef", &["#", "pairgate/v1/lobby-tv/event"]);
    for topic in ["lobby-tv/event", "lobby-tv/pairing/response", "operations/commands", "operations/status"] {
        assert!(!unpaired.publish("other", &format!("pairgate/v1/{topic}"), "forged"), "{topic}");
    }
    assert!(unpaired.publish("other", "pairgate/v1/new-tv/pairing/request", "please"));
    assert_eq!(requests.until("please"), ["pairgate/v1/new-tv/pairing/request please"]);
    drop(requests);
    for topic in [
        "lobby-tv/event",
        "new-tv/event",
        "operations/pending",
        "operations/results/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        assert!(node.publish("y", &format!("pairgate/v1/{topic}"), "not for it"), "{topic}");
    }
    assert!(node.publish("y", "pairgate/v1/new-tv/pairing/response", "welcome"));
    let heard = reader.until("welcome");
    // Its own request does not come back: nobody reads what goes in.
    assert_eq!(heard, ["pairgate/v1/new-tv/pairing/response welcome"]);
}

#[tokio::test]
async fn nobody_takes_another_clients_place_a_059() {
    let mosquitto = Mosquitto::start().await;
    let node = mosquitto.certified(acl::PAIRGATE);
    let (lobby, cellar) = (mosquitto.certified("lobby-tv"), mosquitto.certified("cellar-tv"));
    let reader = lobby.subscribe("lobby-tv", &["pairgate/v1/lobby-tv/event"]);
    assert!(cellar.publish("lobby-tv", "pairgate/v1/cellar-tv/pairing/request", "as myself"));
    assert!(mosquitto.unpaired().publish("lobby-tv", "pairgate/v1/lobby-tv/pairing/request", "please"));
    for port in [mosquitto.port(), mosquitto.pairing_port()] {
        assert!(!mosquitto.stranger(port).publish("lobby-tv", "pairgate/v1/lobby-tv/pairing/request", "please"));
    }
    assert!(
        !mosquitto.certified("+").publish("x", "pairgate/v1/+/pairing/request", "please"),
        "a name that is a wildcard"
    );
    assert!(node.publish("x", "pairgate/v1/lobby-tv/event", "still here"));
    assert_eq!(reader.until("still here"), ["pairgate/v1/lobby-tv/event still here"]);
}

#[tokio::test]
async fn it_is_printed_for_the_name_in_pairgates_certificate() {
    let mosquitto = Mosquitto::start().await;
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("pairgate.toml"), mosquitto.section() + "prefix = 'acme'\n").unwrap();
    let printed = json(data.path(), &["mqtt", "acl"])["acl"].as_str().unwrap().to_owned();
    assert!(printed.contains("\nuser pairgate_node\ntopic read acme/v1/+/pairing/request\n"), "{printed}");
    let output = pairgate(data.path(), &["mqtt", "acl", "--pairing"]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && printed.contains("\nuser pairing\n"), "{printed}");
}
