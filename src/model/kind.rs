//! A kind of device: the policy lives here, never with the device. Three are built in; configuration may change them and add others.

use std::time::Duration;

use crate::model::policy::{PolicyError, checked_words, is_denied, is_identifier};
use crate::model::resource::Resource;
use serde::{Deserialize, Serialize};

use crate::model::device::KeyAssurance;
use crate::oauth::scope::Scope;

/// Identifier of the resource that devices get tokens for when nothing else is configured (RFC 8707: an absolute URI).
pub const DEFAULT_RESOURCE: &str = "urn:pairgate:resource:default";
/// A code may live this long at the most (M-02).
pub const MAX_CODE_LIFETIME: Duration = Duration::from_secs(600);

/// The scope by which a device asks to stay signed in (OpenID Connect Core section 11): a refresh token.
pub const OFFLINE_ACCESS: &str = "offline_access";

/// What devices of one kind may have, and what an approval needs.
#[derive(Clone, Debug)]
pub struct Kind {
    /// `printer`.
    pub id: String,
    /// In words, for pages: `printer`.
    pub label: String,
    /// Of the user code: `PRN`. Three letters.
    pub prefix: String,
    /// Each allowed scope with what it means to a person.
    pub scopes: Vec<(String, String)>,
    /// Allowed resources; the first is the default.
    pub resources: Vec<String>,
    /// Life of the codes.
    pub code_lifetime: Duration,
    /// Life of an access token.
    pub access_token_lifetime: Duration,
    /// Life of the refresh token; none is given without it.
    pub refresh: Option<RefreshPolicy>,
    /// Is the refresh token given only to a device that asks for [`OFFLINE_ACCESS`]? If not, that scope is refused, like any that is not on the list.
    pub offline_access: bool,
    /// Must its devices have a client certificate by one of the configured authorities? If not, the pinned key alone is enough (RFC 8705 section 2.2).
    pub certified: bool,
    /// Must the approver type the number that the device shows? If not, the device must be on its site's network.
    pub confirmation_number: bool,
    /// Must the device be on its site's network?
    pub site_network: bool,
    /// Codes that a device may ask for in an hour.
    pub codes_per_hour: i64,
    /// A device whose key is kept worse than this is neither paired nor signed in.
    pub key_assurance: KeyAssurance,
    /// Who decides on a new key that the present one vouches for.
    pub key_rotation: KeyRotation,
    /// May who registered or paired a device of this kind not alone approve its first sign-in? A site may ask the same.
    pub two_persons: bool,
    /// What the approval of a person is worth who never approved the device before, when others have.
    pub new_approver: NewApprover,
}

/// What the approval of a person is worth who is new to a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NewApprover {
    /// As much as anybody's.
    #[default]
    Alone,
    /// A second person must approve as well.
    Second,
}

/// Who decides on a new key that the present one vouches for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyRotation {
    /// An operator, by one button: the present key's signature stands in for the comparison.
    #[default]
    Operator,
    /// Nobody: the device exchanges its key by itself, if the new one is kept no worse.
    Automatic,
}

/// How long a sign-in lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshPolicy {
    /// Unused for this long, it ends.
    pub idle: Duration,
    /// It ends after this long in any case.
    pub absolute: Duration,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Kind {
    /// `printer`, `tv` and `console`.
    pub fn built_in() -> Vec<Self> {
        let kind =
            |id: &str, label: &str, prefix: &str, scopes: &[(&str, &str)], idle: Duration, absolute: Duration| Self {
                id: id.into(),
                label: label.into(),
                prefix: prefix.into(),
                scopes: scopes.iter().map(|(scope, words)| ((*scope).into(), (*words).into())).collect(),
                resources: vec![DEFAULT_RESOURCE.into()],
                code_lifetime: Duration::from_secs(300),
                access_token_lifetime: Duration::from_secs(600),
                refresh: Some(RefreshPolicy { idle, absolute }),
                offline_access: false,
                certified: false,
                confirmation_number: true,
                site_network: false,
                codes_per_hour: 60,
                key_assurance: KeyAssurance::default(),
                key_rotation: KeyRotation::default(),
                two_persons: false,
                new_approver: NewApprover::default(),
            };
        vec![
            kind(
                "printer",
                "printer",
                "PRN",
                &[
                    ("scan.write", "put scans into the scan folder"),
                    ("print.read", "fetch print jobs that were sent to it"),
                ],
                2 * HOUR,
                8 * HOUR,
            ),
            kind(
                "tv",
                "TV",
                "TVX",
                &[
                    ("signage.read", "show the organisation's pictures and videos"),
                    ("room-calendar.read", "show when this room is free"),
                ],
                24 * HOUR,
                24 * 30 * HOUR,
            ),
            kind(
                "console",
                "console",
                "CNS",
                &[("session.start", "start sessions of the room's applications")],
                2 * HOUR,
                12 * HOUR,
            ),
        ]
    }

    /// Checks what configuration may have changed.
    ///
    /// # Errors
    /// A scope on the deny-list, a life outside its limits, a prefix that is no three letters, neither number nor network.
    pub fn checked(mut self) -> Result<Self, PolicyError> {
        let subject = format!("kind '{}'", self.id);
        checked_words(&subject, &mut self.label, &mut self.scopes)?;
        let refuse = |problem: String| Err(PolicyError { subject: subject.clone(), problem });
        if self.prefix.len() != 3 || !self.prefix.bytes().all(|letter| letter.is_ascii_uppercase()) {
            return refuse(format!("prefix '{}' must be three letters A-Z", self.prefix));
        }
        if let Some((scope, _)) = self.scopes.iter().find(|(scope, _)| is_denied(scope)) {
            return refuse(format!(
                "scope '{scope}' gives access to people's mail, chats, files or directory; no device may have it"
            ));
        }
        if let Some((scope, _)) =
            self.scopes.iter().find(|(scope, _)| scope.contains(' ') || Scope::parse(scope).is_none())
        {
            return refuse(format!("scope '{scope}' has characters that scopes can't have (RFC 6749 section 3.3)"));
        }
        if self.scopes.iter().any(|(scope, _)| scope == OFFLINE_ACCESS) {
            return refuse(
                "offline_access is no scope of a resource: set offline_access = true, then devices may ask for it"
                    .into(),
            );
        }
        if self.offline_access && self.refresh.is_none() {
            return refuse("offline_access needs refresh = true".into());
        }
        if self.scopes.is_empty() || self.resources.is_empty() {
            return refuse("needs at least one scope and one resource".into());
        }
        if let Some(resource) = self.resources.iter().find(|text| !is_identifier(text)) {
            return refuse(format!("resource '{resource}' must be an absolute URI without fragment (RFC 8707)"));
        }
        if self.code_lifetime < Duration::from_secs(60) || self.code_lifetime > MAX_CODE_LIFETIME {
            return refuse("code_lifetime must be 60 to 600 seconds".into());
        }
        if self.access_token_lifetime < Duration::from_secs(60) || self.access_token_lifetime > HOUR {
            return refuse("access_token_lifetime must be 60 to 3600 seconds".into());
        }
        let is_odd = |refresh: RefreshPolicy| {
            refresh.idle < Duration::from_secs(60)
                || refresh.absolute < refresh.idle
                || refresh.absolute > 400 * 24 * HOUR
        };
        if self.refresh.is_some_and(is_odd) {
            return refuse(
                "refresh_idle must be at least 60 seconds, refresh_absolute at least as long, and at most 400 days"
                    .into(),
            );
        }
        if !(1..=3600).contains(&self.codes_per_hour) {
            return refuse("codes_per_hour must be 1 to 3600".into());
        }
        if !self.confirmation_number && !self.site_network {
            return refuse(
                "without confirmation_number the device must be on its site's network: set site_network = true".into(),
            );
        }
        Ok(self)
    }

    /// Is a key that is kept like this good enough for devices of this kind?
    pub fn accepts(&self, assurance: KeyAssurance) -> bool {
        assurance >= self.key_assurance
    }

    /// All scopes that devices of the kind may have at a resource: what is asked for when a device names none.
    pub fn scope(&self, resource: &Resource) -> Scope {
        self.scopes.iter().map(|(scope, _)| scope.as_str()).filter(|scope| resource.has_scope(scope)).collect()
    }

    /// The same, with what a device may ask for besides.
    pub fn widest_scope(&self, resource: &Resource) -> Scope {
        let offline = self.offline_access.then_some(OFFLINE_ACCESS);
        let scopes = self.scopes.iter().map(|(scope, _)| scope.as_str()).filter(|scope| resource.has_scope(scope));
        scopes.chain(offline).collect()
    }

    /// The refresh policy of a sign-in with this scope.
    pub fn refresh_for(&self, scope: &Scope) -> Option<RefreshPolicy> {
        self.refresh.filter(|_| !self.offline_access || scope.contains(OFFLINE_ACCESS))
    }

    /// What a scope lets the device do at a resource, in words for people: the resource's own, else the kind's.
    pub fn words(&self, scope: &Scope, resource: &Resource) -> Vec<String> {
        let named = self.scopes.iter().filter(|(word, _)| scope.contains(word));
        let mut words: Vec<String> =
            named.map(|(word, words)| resource.words(word).unwrap_or(words).to_owned()).collect();
        if scope.contains(OFFLINE_ACCESS) {
            words.push("stay signed in when nobody is there".into());
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printer() -> Kind {
        Kind::built_in().remove(0)
    }

    #[test]
    fn built_in_kinds_pass_their_own_check() {
        for kind in Kind::built_in() {
            assert!(kind.checked().is_ok());
        }
    }

    #[test]
    fn dangerous_or_senseless_policies_are_refused_at_start_a_040() {
        type Change = fn(&mut Kind);
        let rows: [(&str, Change); 13] = [
            ("mail", |kind| kind.scopes.push(("https://graph.microsoft.com/Mail.Read.Shared".into(), "x".into()))),
            ("offline_access", |kind| kind.scopes.push(("offline_access".into(), "x".into()))),
            ("space", |kind| kind.scopes.push(("a b".into(), "x".into()))),
            ("short prefix", |kind| kind.prefix = "P".into()),
            ("long codes", |kind| kind.code_lifetime = Duration::from_secs(601)),
            ("long tokens", |kind| kind.access_token_lifetime = Duration::from_secs(7200)),
            ("no proximity at all", |kind| kind.confirmation_number = false),
            ("fragment", |kind| kind.resources = vec!["https://x.example/#a".into()]),
            ("no scope", |kind| kind.scopes.clear()),
            ("no label", |kind| kind.label = " ".into()),
            ("words that turn around", |kind| kind.scopes[0].1 = "put \u{202e}scans".into()),
            ("a sign-in for ever", |kind| {
                kind.refresh = Some(RefreshPolicy { idle: HOUR, absolute: Duration::from_secs(u64::MAX) })
            }),
            ("no codes", |kind| kind.codes_per_hour = 0),
        ];
        for (what, change) in rows {
            let mut kind = printer();
            change(&mut kind);
            assert!(kind.checked().is_err(), "{what}");
        }
    }
}
