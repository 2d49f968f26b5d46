//! What `pairgate mqtt check` tries at the organisation's broker, and what to say when it is not as it should be: what that means, and what to change.

/// One thing that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Pairgate connects.
    Connect,
    /// It stays connected.
    Stay,
    /// It subscribes to what devices and operators send.
    Subscribe,
    /// It tells devices.
    TellDevices,
    /// It tells consoles.
    TellConsoles,
    /// A device connects.
    DeviceConnect,
    /// What a device sends arrives.
    OwnRequest,
    /// The answer arrives.
    OwnResponse,
    /// An event arrives.
    OwnEvent,
    /// Another's events.
    ReadEvent,
    /// Another's answers.
    ReadResponse,
    /// `#`.
    ReadAll,
    /// `+`.
    ReadLevels,
    /// What consoles read.
    ReadConsoles,
    /// Another's requests.
    SendRequest,
    /// Operators' commands.
    SendCommand,
    /// Events, as if from Pairgate.
    SendEvent,
    /// Answers, as if from Pairgate.
    SendResponse,
    /// Another's client id.
    ClientId,
    /// Neither certificate nor password.
    NoCredentials,
    /// No TLS.
    InClear,
}

/// What is said of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// How it should be.
    pub what: &'static str,
    /// What it means that it is not.
    pub means: &'static str,
    /// What to change in Mosquitto …
    pub mosquitto: &'static str,
    /// … and in EMQX.
    pub emqx: &'static str,
}

/// All of them, in their order.
pub const TRIALS: [Trial; 21] = [
    Trial::Connect,
    Trial::Stay,
    Trial::Subscribe,
    Trial::TellDevices,
    Trial::TellConsoles,
    Trial::DeviceConnect,
    Trial::OwnRequest,
    Trial::OwnResponse,
    Trial::OwnEvent,
    Trial::ReadEvent,
    Trial::ReadResponse,
    Trial::ReadAll,
    Trial::ReadLevels,
    Trial::ReadConsoles,
    Trial::SendRequest,
    Trial::SendCommand,
    Trial::SendEvent,
    Trial::SendResponse,
    Trial::ClientId,
    Trial::NoCredentials,
    Trial::InClear,
];

const ACL: &str =
    "acl_file must be what this prints: pairgate mqtt acl. Each listener needs its rules, and Mosquitto a restart";
const EMQX_NODE: &str = "Pairgate's own user needs a rule that allows it; see docs/mqtt-emqx.md";
const EMQX_DEVICE: &str =
    "the HTTP authorizer must ask Pairgate, and hook_secret_file must be set; see docs/mqtt-emqx.md";
const EMQX_WIDE: &str =
    "ask Pairgate before any other source, remove {allow, all} from acl.conf, and set no_match = deny";

/// The words for what a device could do because the rules are too wide.
const fn too_wide(what: &'static str, means: &'static str) -> Words {
    Words { what, means, mosquitto: ACL, emqx: EMQX_WIDE }
}

impl Trial {
    /// What is said of it.
    pub const fn words(self) -> Words {
        match self {
            Self::Connect | Self::Stay | Self::Subscribe | Self::TellDevices | Self::TellConsoles => self.of_pairgate(),
            Self::DeviceConnect | Self::OwnRequest | Self::OwnResponse | Self::OwnEvent => self.of_the_device(),
            Self::ReadEvent | Self::ReadResponse | Self::ReadAll | Self::ReadLevels | Self::ReadConsoles => {
                self.of_readers()
            }
            Self::SendRequest | Self::SendCommand | Self::SendEvent | Self::SendResponse => self.of_senders(),
            Self::ClientId | Self::NoCredentials | Self::InClear => self.of_strangers(),
        }
    }

    /// May Pairgate do what it needs?
    const fn of_pairgate(self) -> Words {
        match self {
            Self::Connect => Words {
                what: "Pairgate connects",
                means: "No device can be served over this broker.",
                mosquitto: "compare cafile with the authority of mqtt.certificate, and the name in mqtt.url with the server's certificate",
                emqx: "Pairgate's own user must be in an authenticator; compare mqtt.user_name, mqtt.password_file and mqtt.certificate",
            },
            Self::Stay => Words {
                what: "Pairgate stays connected beside the node that serves",
                means: "The broker gives this check and the node that serves one client id; they push each other off. Stop pairgate serve for as long as the check runs.",
                mosquitto: "use_username_as_clientid does this, and has to stay: stop pairgate serve and check again",
                emqx: "clientid_override or peer_cert_as_clientid does this: the client id must stay as the client says it",
            },
            Self::Subscribe => Words {
                what: "Pairgate may subscribe to requests and commands",
                means: "Pairgate would not hear devices or operators.",
                mosquitto: ACL,
                emqx: EMQX_NODE,
            },
            Self::TellDevices => Words {
                what: "Pairgate may publish answers and events",
                means: "Devices would wait for answers that never come.",
                mosquitto: ACL,
                emqx: EMQX_NODE,
            },
            _ => Words {
                what: "Pairgate may publish what consoles read",
                means: "Consoles would show nothing, or what is no longer true.",
                mosquitto: ACL,
                emqx: EMQX_NODE,
            },
        }
    }

    /// May a device do what it needs?
    const fn of_the_device(self) -> Words {
        match self {
            Self::DeviceConnect => Words {
                what: "a device connects",
                means: "Devices could not connect as this one tried to.",
                mosquitto: "its certificate must be by the authority in cafile, or its user name in password_file; Mosquitto asks no hooks: give --device-certificate or --user-name",
                emqx: "the HTTP authenticator must ask Pairgate, and hook_secret_file must be set; see docs/mqtt-emqx.md",
            },
            Self::OwnRequest => Words {
                what: "what a device sends reaches Pairgate",
                means: "Pairing over this broker does not work.",
                mosquitto: "compare the prefix in acl_file with mqtt.prefix; at the Mosquitto for pairing, look whether the bridge is connected",
                emqx: EMQX_DEVICE,
            },
            Self::OwnResponse => Words {
                what: "Pairgate's answer reaches the device",
                means: "Pairing over this broker does not work.",
                mosquitto: "compare the prefix in acl_file with mqtt.prefix; at the Mosquitto for pairing, look whether the bridge is connected",
                emqx: EMQX_DEVICE,
            },
            _ => Words {
                what: "Pairgate's events reach the device",
                means: "Devices would be told nothing, and have to poll.",
                mosquitto: "the certificate's common name must be the device id: the rules go by it",
                emqx: EMQX_DEVICE,
            },
        }
    }

    /// What it must not read.
    const fn of_readers(self) -> Words {
        match self {
            Self::ReadEvent => too_wide(
                "a device does not get another's events",
                "Whoever can connect reads the confirmation numbers of all devices. He can phone a victim and say the right one.",
            ),
            Self::ReadResponse => too_wide(
                "a device does not get another's answers",
                "It learns which devices are being paired. The answers are signed and hold no secret.",
            ),
            Self::ReadAll => {
                too_wide("'#' brings a device nothing of others", "Whoever can connect reads along with everything.")
            }
            Self::ReadLevels => {
                too_wide("'+' brings a device nothing of others", "Whoever can connect reads along with everything.")
            }
            _ => too_wide(
                "a device does not get what consoles read",
                "Whoever can connect sees which devices wait, and where they are.",
            ),
        }
    }

    /// What it must not send.
    const fn of_senders(self) -> Words {
        match self {
            Self::SendRequest => too_wide(
                "a device can't send under another's name",
                "Requests are signed, so nothing is paired by it; but anybody can use up another's budget of requests.",
            ),
            Self::SendCommand => too_wide(
                "a device can't send commands",
                "Commands are signed, so none is obeyed; but anybody can keep Pairgate busy with false ones, and play old ones again.",
            ),
            Self::SendEvent => too_wide(
                "a device can't send events",
                "Events are signed; a device whose firmware does not check them shows and does what a stranger says.",
            ),
            _ => too_wide(
                "a device can't send answers",
                "Answers are signed, refusals are not: anybody could keep devices waiting.",
            ),
        }
    }

    /// Who gets in, and how.
    const fn of_strangers(self) -> Words {
        match self {
            Self::ClientId => Words {
                what: "nobody takes the place of another client id",
                means: "Whoever can connect can push any device, and Pairgate itself, off the broker, again and again.",
                mosquitto: "use_username_as_clientid true where certificates are asked for; a Mosquitto process of its own for pairing",
                emqx: "the HTTP authenticator must ask Pairgate, with ${clientid} among what it sends; see docs/mqtt-emqx.md",
            },
            Self::NoCredentials => Words {
                what: "nobody connects without a certificate or a password",
                means: "Anybody who reaches the broker may connect.",
                mosquitto: "allow_anonymous false on every listener, and require_certificate true or a password_file",
                emqx: "without an authenticator, EMQX takes anybody: add the HTTP authenticator; see docs/mqtt-emqx.md",
            },
            _ => Words {
                what: "nobody connects in clear, on port 1883",
                means: "Passwords and confirmation numbers would be readable on the network.",
                mosquitto: "remove the listener without certfile, or bind it to 127.0.0.1",
                emqx: "listeners.tcp.default.enable = false",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_trial_is_there_once_and_says_what_it_means_and_what_to_change() {
        let words: Vec<Words> = TRIALS.iter().map(|trial| trial.words()).collect();
        let different: BTreeSet<&str> = words.iter().map(|words| words.what).collect();
        assert_eq!(different.len(), TRIALS.len());
        for words in words {
            assert!(words.means.ends_with('.'), "{}", words.means);
            for text in [words.what, words.mosquitto, words.emqx] {
                assert!(!text.is_empty() && !text.ends_with('.'), "{text}");
            }
        }
    }

    #[test]
    fn the_words_name_the_setting_a_057_a_059_d_14() {
        for (trial, mosquitto, emqx) in [
            (Trial::Stay, "use_username_as_clientid", "clientid_override"),
            (Trial::Subscribe, "pairgate mqtt acl", "allows"),
            (Trial::DeviceConnect, "--device-certificate", "hook_secret_file"),
            (Trial::ReadEvent, "acl_file", "no_match = deny"),
            (Trial::ReadAll, "acl_file", "no_match = deny"),
            (Trial::SendCommand, "acl_file", "no_match = deny"),
            (Trial::ClientId, "use_username_as_clientid true", "${clientid}"),
            (Trial::NoCredentials, "allow_anonymous false", "authenticator"),
            (Trial::InClear, "certfile", "listeners.tcp.default.enable"),
        ] {
            let words = trial.words();
            assert!(words.mosquitto.contains(mosquitto) && words.emqx.contains(emqx), "{trial:?}: {words:?}");
        }
    }
}
