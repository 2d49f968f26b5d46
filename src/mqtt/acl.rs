//! The rules for Mosquitto, which asks nobody: a file for the broker at which paired devices are, and one for that at which devices are paired. Every line was tried
//! against Mosquitto (`tests/integration/mosquitto_rules.rs`).

use crate::id::DeviceId;
use crate::mqtt::topics::Topics;

/// The user name of Pairgate where configuration says none. Like that of the bridge it is none that a device could have.
pub const PAIRGATE: &str = "pairgate_node";
/// The user name of the bridge between both brokers.
pub const BRIDGE: &str = "pairgate_bridge";
/// The user name that all devices share that are to be paired.
pub const PAIRING: &str = "pairing";

/// Rules for the broker of paired devices, operators and Pairgate, all by certificate. The user name is the certificate's common name, and the client id, too.
pub fn for_paired(topics: &Topics, pairgate: &str) -> String {
    let any = |rest: &str| topics.below(&format!("+/{rest}"));
    let own = |rest: &str| topics.below(&format!("%u/{rest}"));
    let name = if DeviceId::new(pairgate).is_ok() {
        format!(
            "# A device of the id '{pairgate}' would have these rights: never certify one, or give Pairgate a name with '_', which no device id has.\n"
        )
    } else {
        String::new()
    };
    let [all_requests, commands] = topics.subscriptions();
    let lines = [
        "# Mosquitto: who may do what, among those who have a certificate. Made by: pairgate mqtt acl".into(),
        "# Belongs to a listener with:".into(),
        "#   require_certificate true".into(),
        "#   use_identity_as_username true    the user name is the certificate's common name, whatever a client says".into(),
        "#   use_username_as_clientid true    the client id, too: nobody takes another's place".into(),
        "#   allow_anonymous false".into(),
        "# Mosquitto answers every subscription with \"granted\", also one to '#'; these rules act when a message is delivered.".into(),
        String::new(),
        format!("# Pairgate itself.\n{name}user {pairgate}"),
        format!("topic read {all_requests}"),
        format!("topic read {commands}"),
        format!("topic write {}", any("pairing/response")),
        format!("topic write {}", any("event")),
        format!("topic write {}", topics.pending()),
        format!("topic write {}", topics.below("operations/results/+")),
        format!("topic write {}", topics.status()),
        String::new(),
        "# The bridge from the broker at which devices are paired. It reads no events.".into(),
        format!("user {BRIDGE}"),
        format!("topic write {all_requests}"),
        format!("topic read {}", any("pairing/response")),
        String::new(),
        "# Consoles of operators: a block for each, with the common name of its certificate. 'pending' names devices and rooms: only for who sees all sites."
            .into(),
        "# user operator:dana".into(),
        format!("# topic write {commands}"),
        format!("# topic read {}", topics.below("operations/results/THUMBPRINT-OF-ITS-KEY")),
        format!("# topic read {}", topics.status()),
        format!("# topic read {}", topics.pending()),
        String::new(),
        "# Devices: each its own topics; %u is the common name, which is the device id. Patterns hold for every user, also for those above: a console gets the".into(),
        "# topics of the device that is called as it is. No device id has ':' or '_' in it, so there is none.".into(),
        format!("pattern write {}", own("pairing/request")),
        format!("pattern read {}", own("pairing/response")),
        format!("pattern read {}", own("event")),
    ];
    lines.join("\n") + "\n"
}

/// Rules for the broker of devices that have no certificate yet: all under one user name, so they can be told apart by nothing.
pub fn for_pairing(topics: &Topics) -> String {
    let any = |rest: &str| topics.below(&format!("+/{rest}"));
    let lines = [
        "# Mosquitto: what devices may do that are to be paired, and have no certificate. Made by: pairgate mqtt acl --pairing".into(),
        "# Belongs to a Mosquitto of its own (a process, not only a listener). Listeners of one process share client ids: who has the password below could push a".into(),
        "# paired device off and have its queued messages dropped. clientid_prefixes does not help: it holds for the whole process.".into(),
        "# A bridge carries both topics, and nothing else, to the broker of the paired devices.".into(),
        "# All share one user name. So each may read every pairing message: that harms nobody. They are signed by the device and by Pairgate and hold no secret;".into(),
        "# an operator confirms by digits that are computed from both keys.".into(),
        String::new(),
        format!("user {PAIRING}"),
        format!("topic write {}", any("pairing/request")),
        format!("topic read {}", any("pairing/response")),
    ];
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
    }

    #[test]
    fn each_user_has_its_topics_and_no_more_d_14() {
        let text = for_paired(&Topics::new("acme/pg"), PAIRGATE);
        let rules = rules(&text);
        assert_eq!(
            rules,
            [
                "user pairgate_node",
                "topic read acme/pg/v1/+/pairing/request",
                "topic read acme/pg/v1/operations/commands",
                "topic write acme/pg/v1/+/pairing/response",
                "topic write acme/pg/v1/+/event",
                "topic write acme/pg/v1/operations/pending",
                "topic write acme/pg/v1/operations/results/+",
                "topic write acme/pg/v1/operations/status",
                "user pairgate_bridge",
                "topic write acme/pg/v1/+/pairing/request",
                "topic read acme/pg/v1/+/pairing/response",
                "pattern write acme/pg/v1/%u/pairing/request",
                "pattern read acme/pg/v1/%u/pairing/response",
                "pattern read acme/pg/v1/%u/event",
            ]
        );
        let text = for_pairing(&Topics::new("acme/pg"));
        assert_eq!(
            rules_of_pairing(&text),
            ["topic write acme/pg/v1/+/pairing/request", "topic read acme/pg/v1/+/pairing/response"]
        );
    }

    fn rules_of_pairing(text: &str) -> Vec<&str> {
        let mut rules = rules(text);
        assert_eq!(rules.remove(0), "user pairing");
        rules
    }

    #[test]
    fn a_name_that_a_device_could_have_is_pointed_out_a_059() {
        assert!(for_paired(&Topics::new("pairgate"), "pairgate").contains("never certify one"));
        for name in [PAIRGATE, BRIDGE, "operator:dana"] {
            assert!(!for_paired(&Topics::new("pairgate"), name).contains("never certify one"), "{name}");
            assert!(DeviceId::new(name).is_err(), "{name}");
        }
    }
}
