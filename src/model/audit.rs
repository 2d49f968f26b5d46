//! The audit record: what happened, to whom, by whom, from where; and the hash that chains it to the one before.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::DeviceId;
use crate::secret::{Bytes32, sha256};

/// Hash before the first record.
pub const GENESIS: Bytes32 = [0; 32];

/// How much a record wants to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The ordinary course.
    Info,
    /// Somebody got nothing.
    Refusal,
    /// A tripwire: a person should look.
    Alert,
}

impl Severity {
    /// The word, as in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Refusal => "refusal",
            Self::Alert => "alert",
        }
    }
}

macro_rules! events {
    ($($variant:ident $name:literal $severity:ident $words:literal;)*) => {
        /// Everything that is ever recorded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // the words beside each name are its documentation
        pub enum Event { $($variant),* }

        impl Event {
            /// All events, for tables.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name, as in the database: `noun.verb`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// From the name.
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|event| event.as_str() == name)
            }

            /// How much it wants to be seen.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity),* }
            }

            /// In words, for pages.
            pub const fn words(self) -> &'static str {
                match self { $(Self::$variant => $words),* }
            }
        }
    };
}

events! {
    SiteAdded "site.added" Info "site added";
    SiteChanged "site.changed" Info "site changed";
    PolicyApplied "policy.applied" Info "policy changed";
    PolicyProposed "policy.proposed" Info "a change of the policy was proposed; a second person must confirm it";
    PolicyWithdrawn "policy.withdrawn" Info "a proposed change of the policy was withdrawn";
    DeviceRegistered "device.registered" Info "device registered";
    DevicesImported "devices.imported" Info "devices imported";
    DeviceChanged "device.changed" Info "device changed";
    DeviceSuspended "device.suspended" Info "device suspended";
    DeviceResumed "device.resumed" Info "device resumed";
    DeviceRetired "device.retired" Info "device retired for ever";
    DeviceStolen "device.stolen" Alert "reported stolen: everything that it held is dead";
    DeviceReplaced "device.replaced" Info "replaced by another box; the former key is dead";
    DeviceAsked "device.identify" Info "asked to show itself";
    DeviceIdentified "device.identified" Info "was told to show itself";
    KeyAnnounced "device.key_announced" Info "its maker's key was announced";
    TechnicianCodeMade "technician.code" Info "code for a technician made";
    TechnicianIn "technician.in" Info "a technician used a code";
    WindowOpened "window.opened" Info "pairing opened";
    WindowClosed "window.closed" Info "pairing closed";
    PairingRequested "pairing.requested" Info "asked to be paired";
    PairingConflict "pairing.conflict" Alert "a second key asked to be paired as this device";
    PairingRefused "pairing.refused" Alert "pairing refused";
    AttestationRefused "pairing.attestation_refused" Alert "a maker's statement about a key was refused";
    PairingDeclined "pairing.declined" Info "pairing declined by an operator";
    PairingWrongDigits "pairing.wrong_digits" Refusal "wrong digits typed for a pairing";
    PairingConfirmed "pairing.confirmed" Info "paired: from now on only this key";
    CodeIssued "code.issued" Info "asked to sign in";
    CodeRefused "code.refused" Refusal "asked for a code and got none";
    CodeUnenrolled "code.unenrolled" Alert "a device that is not registered asked and got nothing";
    KeyMismatch "key.mismatch" Alert "something with another key posed as this device";
    PhishingClient "client.phishing" Alert "a client id that phishing kits use asked and got nothing";
    ForeignKeyOnCode "code.foreign_key" Alert "a code was presented by a foreign key";
    GrantClaimed "grant.claimed" Info "sign-in opened by an approver";
    GrantSecondApprover "grant.second_approver" Alert "a second person opened a sign-in that another had opened";
    GrantWrongNumber "grant.wrong_number" Refusal "wrong number typed for a sign-in";
    GrantNotListed "grant.not_listed" Alert "somebody who may not approve this device opened its sign-in";
    GrantFirstApproved "grant.first_approved" Info "sign-in approved by a first person; a second must";
    GrantApproved "grant.approved" Info "sign-in approved";
    GrantUndone "grant.undone" Info "sign-in ended by a person who had approved it";
    ApproverAdded "approver.added" Info "a person was put on the list of who may approve this device";
    ApproverRemoved "approver.removed" Info "a person was taken off the list of who may approve this device";
    GrantDenied "grant.denied" Info "sign-in denied";
    GrantReported "grant.reported" Alert "sign-in reported as suspicious";
    CodeGuessed "user_code.refused" Refusal "a code that is not one of ours was typed";
    CodeReported "user_code.reported" Alert "somebody was sent a code that is not ours";
    TokenIssued "token.issued" Info "signed in";
    TokenRefreshed "token.refreshed" Info "token renewed";
    TokenRefused "token.refused" Refusal "token refused";
    TokenRevoked "token.revoked" Info "gave its sign-in back";
    TokenScanned "token.scanned" Alert "tried to end a sign-in that is not its own";
    SessionsForked "key.two_sessions" Alert "one key holds two live sign-ins: was it copied? both were ended";
    IntrospectionRefused "introspection.refused" Alert "somebody asked about tokens and got nothing";
    RefreshReused "refresh.reused" Alert "an old refresh token was used again; the sign-in was ended";
    OperatorAdded "operator.added" Info "operator added";
    RoleChanged "operator.role" Info "an operator's role was changed";
    OperatorDisabled "operator.disabled" Info "operator disabled";
    OperatorEnabled "operator.enabled" Info "operator enabled again";
    PasskeysRemoved "operator.passkeys_removed" Info "all passkeys of an operator were removed";
    LinkMinted "operator.link" Info "sign-in link made";
    LinkRefused "operator.link_refused" Refusal "a spent or wrong sign-in link was used";
    PasskeyAdded "passkey.added" Info "passkey added";
    PasskeyRemoved "passkey.removed" Info "passkey removed";
    PasskeyRefused "passkey.refused" Refusal "a passkey was refused";
    PasskeyCloned "passkey.cloned" Alert "a passkey counted backwards: was it copied? it was refused";
    OperatorKeyAdded "operator.key_added" Info "key for commands added";
    OperatorKeyRevoked "operator.key_revoked" Info "key for commands removed";
    CommandRefused "operator.command_refused" Alert "a signed command was refused";
    SsoRefused "operator.sso_refused" Refusal "a sign-in at the organisation's account let nobody in";
    SignedIn "operator.signed_in" Info "operator signed in";
    SignedOut "operator.signed_out" Info "operator signed out";
    SignedOutEverywhere "operator.signed_out_everywhere" Info "operator signed out everywhere; what was approved before and not fetched is void";
    ApiTokenMade "api_token.made" Info "token made for a program";
    ApiTokenRevoked "api_token.revoked" Info "token of a program revoked";
    ApiTokenRefused "api_token.refused" Refusal "a wrong, expired or revoked token was shown";
    SignInsEnded "device.sign_ins_ended" Info "sign-ins of a device ended";
    ConnectionRefused "mqtt.refused" Refusal "a connection or a message over MQTT was refused";
    ConnectionsFlap "mqtt.flapping" Alert "its connections push each other out: does something else have its key?";
    SigningKeyMinted "signing_key.minted" Info "signing key made";
    SigningKeyRotated "signing_key.rotated" Info "signing key rotated; the former one still verifies for a while";
    SigningKeyReplaced "signing_key.replaced" Alert "signing key replaced in an emergency; what was signed before is void";
    SigningKeyDropped "signing_key.dropped" Info "former signing key dropped";
    AllSignInsEnded "grant.all_revoked" Alert "all sign-ins were ended";
    ClockAccepted "clock.accepted" Alert "the broker was told to start although its newest record is from the future";
    RiskAccepted "risk.accepted" Info "risk assessment signed";
    SettingChanged "setting.changed" Info "setting changed";
    AddressChosen "address.chosen" Info "address chosen; it holds from the next start on";
    Suppressed "audit.suppressed" Refusal "further refusals from there were counted, not recorded";
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A person, by name.
    Operator(String),
    /// Whoever has a shell on the broker's machine.
    CommandLine,
    /// A program with an API token, by the token's name. Never decides what a person must.
    Machine(String),
    /// A technician without an account, with a code that this person made.
    Technician(String),
    /// A device, authenticated.
    Device(DeviceId),
    /// Somebody on the network who proved nothing.
    Anonymous,
    /// The broker itself.
    Broker,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Operator(name) => write!(formatter, "operator:{name}"),
            Self::CommandLine => formatter.write_str("command-line"),
            Self::Machine(name) => write!(formatter, "machine:{name}"),
            Self::Technician(made_by) => write!(formatter, "technician:{made_by}"),
            Self::Device(id) => write!(formatter, "device:{id}"),
            Self::Anonymous => formatter.write_str("anonymous"),
            Self::Broker => formatter.write_str("broker"),
        }
    }
}

/// The circumstances of a change: the same for every record that it writes.
#[derive(Clone, Debug)]
pub struct Context {
    /// When.
    pub now: Timestamp,
    /// By whom.
    pub actor: Actor,
    /// From where, if over the network.
    pub peer: Option<IpAddr>,
}

/// A record as stored. All strings are plain text; control characters can't get in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Rises by one without gaps.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Event name.
    pub event: String,
    /// `info`, `refusal` or `alert`.
    pub severity: String,
    /// By whom.
    pub actor: String,
    /// About which device.
    pub device: Option<String>,
    /// From where.
    pub peer: Option<String>,
    /// What else, one line.
    pub detail: String,
}

impl Record {
    /// Hash of this record, chained to the one before.
    ///
    /// Without the chain, whoever can write to the database can take out one line unseen.
    pub fn hash(&self, previous: &Bytes32) -> Bytes32 {
        // A JSON array of all fields is unambiguous: no field can bleed into the next.
        let fields = serde_json::json!([
            self.id,
            self.at,
            self.event,
            self.severity,
            self.actor,
            self.device,
            self.peer,
            self.detail
        ]);
        sha256(&[b"pairgate audit v1", previous, fields.to_string().as_bytes()])
    }
}

/// Makes text from outside fit for one line of a log: control characters become `\u{…}`, and it is cut at 200 characters.
pub fn one_line(text: &str) -> String {
    let is_risky = |character: char| {
        character.is_control() || matches!(u32::from(character), 0x202A..=0x202E | 0x2066..=0x2069 | 0x200B..=0x200F)
    };
    text.chars()
        .take(200)
        .map(
            |character| {
                if is_risky(character) { format!("\\u{{{:x}}}", u32::from(character)) } else { character.to_string() }
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_names_are_unique() {
        let mut names: Vec<_> = Event::ALL.iter().map(|event| event.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Event::ALL.len());
    }

    #[test]
    fn every_field_and_the_predecessor_count_in_the_hash() {
        let record = Record {
            id: 1,
            at: Timestamp::from_millis(5),
            event: "a".into(),
            severity: "info".into(),
            actor: "b".into(),
            device: None,
            peer: None,
            detail: "c".into(),
        };
        let base = record.hash(&GENESIS);
        let changed = [
            Record { id: 2, ..record.clone() },
            Record { at: Timestamp::from_millis(6), ..record.clone() },
            Record { event: "x".into(), ..record.clone() },
            Record { severity: "alert".into(), ..record.clone() },
            Record { actor: "x".into(), ..record.clone() },
            Record { device: Some(String::new()), ..record.clone() },
            Record { peer: Some("x".into()), ..record.clone() },
            Record { detail: "d".into(), ..record.clone() },
        ];
        for other in changed {
            assert_ne!(other.hash(&GENESIS), base, "{other:?}");
        }
        assert_ne!(record.hash(&[1; 32]), base);
    }

    #[test]
    fn log_injection_becomes_visible_text() {
        assert_eq!(one_line("a\r\nb\u{1b}[31m"), "a\\u{d}\\u{a}b\\u{1b}[31m");
        assert_eq!(one_line(&"x".repeat(500)).len(), 200);
    }
}
