//! Signing in at the organisation's identity provider.
//!
//! 1. A browser asks to be sent there. It gets a cookie; the store keeps the cookie's hash for ten minutes ([`Broker::begin_sso`]).
//! 2. It comes back. The hash is taken, once; `upstream/oidc.rs` checks the answer and says who it is ([`Broker::finish_sso`]).
//! 3. The person is found by issuer and subject, or added; the groups become roles, anew at each sign-in. Whose groups say nothing here gets nothing.
//! 4. A session is opened; for a fresh sign-in it takes the place of the one that asked, if it is the same person's.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::broker::people::{Browser, Session};
use crate::broker::{Broker, UseCaseError};
use crate::clock::Timestamp;
use crate::config::GroupRole;
use crate::model::audit::{Actor, Context, Event, one_line};
use crate::model::operator::{Rights, SignInMethod};
use crate::secret::{Bytes32, b64u, bytes32_from_b64u, sha256};
use crate::store::{SsoIdentity, StoreError};
use crate::upstream::oidc::{Answer, Begun, Identity, SsoError, Ties};

/// Path that browsers come back to, after the issuer. The one fixed address that the provider knows (R-9700-01).
pub const CALLBACK: &str = "/sign-in/sso/callback";
/// So long may a person take at the provider.
pub const SSO_LIFETIME: Duration = Duration::from_secs(10 * 60);
const PURPOSE: &str = "sso";
/// Longest name of a new person; a number may follow.
const NAME_LENGTH: usize = 56;

/// A browser that is to be sent to the provider.
pub struct SsoBegun {
    /// Value of the cookie that only this browser gets.
    pub cookie: String,
    /// Where to.
    pub to: Url,
}

/// A person who came back and is signed in.
pub struct SsoEnded {
    /// Id of the session, for the cookie.
    pub session: String,
    /// Where the person wanted to go, if it was asked to sign in once more.
    pub back: Option<String>,
}

/// What is kept of a sign-in that has begun.
#[derive(Serialize, Deserialize)]
struct Kept {
    at: i64,
    /// The session that shall become fresh, by its hash, and where to go then.
    again: Option<(String, String)>,
}

/// A ceremony of ours is found by another hash than any other ceremony with the same cookie would be.
fn ceremony(cookie: &Bytes32) -> Bytes32 {
    sha256(&[b"sso ", cookie])
}

impl Broker {
    /// What people call the account at the organisation's provider; `None` if there is none.
    pub fn sso_label(&self) -> Option<&str> {
        self.sso.as_ref().map(|provider| provider.settings().label.as_str())
    }

    /// The same, if the person of this session is known there.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn sso_of(&self, session: &Session) -> Result<Option<&str>, StoreError> {
        let Some(label) = self.sso_label() else { return Ok(None) };
        let people = self.store.people(self.now()).await?;
        let is_known = people.iter().any(|person| person.operator.id == session.operator.id && person.has_sso);
        Ok(is_known.then_some(label))
    }

    /// Step 1. With `again`, this session's person must prove anew who it is, and goes to that path then.
    ///
    /// # Errors
    /// If there is no provider, it does not answer, or the store fails.
    pub async fn begin_sso(&self, again: Option<(&Session, &str)>) -> Result<SsoBegun, UseCaseError> {
        let provider = self.sso.as_ref().ok_or_else(no_provider)?;
        let (cookie, now) = (self.random.bytes32()?, self.now());
        let to = match provider.authorization_url(&Ties::of(&cookie), again.is_some(), now).await {
            Ok(to) => to,
            Err(error) => {
                tracing::warn!(%error, "nobody can sign in by [sso]");
                return Err(UseCaseError::Refused(unreachable_lines()));
            }
        };
        let again = again.map(|(session, back)| (b64u(&session.hash), back.to_owned()));
        let kept = serde_json::json!(Kept { at: now.millis(), again }).to_string();
        self.store.start_ceremony(&ceremony(&cookie), PURPOSE, &kept, now.plus(SSO_LIFETIME), now).await?;
        Ok(SsoBegun { cookie: b64u(&cookie), to })
    }

    /// Steps 2 to 4. `session` is that of the browser, if it has one that lives.
    ///
    /// # Errors
    /// What was not right, for the person; the same for everything that an attacker could have sent.
    pub async fn finish_sso(
        &self,
        cookie: &str,
        session: Option<&Session>,
        answer: &Answer,
        browser: &Browser,
    ) -> Result<SsoEnded, UseCaseError> {
        let provider = self.sso.as_ref().ok_or_else(no_provider)?;
        let now = self.now();
        let cookie = bytes32_from_b64u(cookie);
        let kept = match &cookie {
            Some(cookie) => self.store.take_ceremony(&ceremony(cookie), PURPOSE, now).await?,
            None => None,
        };
        let kept = kept.and_then(|text| serde_json::from_str::<Kept>(&text).ok());
        let (Some(cookie), Some(kept)) = (cookie, kept) else {
            return self.refuse_sso("this browser began no sign-in, or too long ago", foreign_lines(), browser).await;
        };
        let begun = Begun { at: Timestamp::from_millis(kept.at), again: kept.again.is_some() };
        let identity = match provider.identity(answer, &Ties::of(&cookie), begun, now).await {
            Ok(identity) => identity,
            Err(error) => return self.refuse_sso(&error.to_string(), lines(error), browser).await,
        };
        // A provider that still knows the browser lets anybody who sits there through, so its sign-in is as old as it says, and never fresh if it says
        // nothing. Where the person had to be asked anew, `identity` has made sure of it.
        let fresh_at = match identity.proved_at {
            _ if begun.again => now,
            Some(proved_at) => proved_at.min(now),
            None => Timestamp::from_millis(0),
        };
        let back = match kept.again {
            None => None,
            Some((asked_by, back)) => {
                let owner = self.store.sso_owner(&identity.issuer, &identity.subject).await?;
                let asked = session.filter(|session| b64u(&session.hash) == asked_by);
                // Without this, somebody else at that desk could go on in the first one's place.
                if asked.is_none_or(|session| Some(session.operator.id) != owner) {
                    return self.refuse_sso("another person came back", another_lines(), browser).await;
                }
                Some(back)
            }
        };
        let session = self.sign_in_by_sso(&identity, fresh_at, browser).await?;
        Ok(SsoEnded { session, back })
    }

    /// Steps 3 and 4; the session's id.
    async fn sign_in_by_sso(
        &self,
        identity: &Identity,
        fresh_at: Timestamp,
        browser: &Browser,
    ) -> Result<String, UseCaseError> {
        let (roles, admits_everybody) = self.roles_by_groups(identity);
        let is_admitted = admits_everybody || roles != Rights::default();
        let wanted = SsoIdentity {
            issuer: identity.issuer.clone(),
            subject: identity.subject.clone(),
            name: plain_name(&identity.name),
        };
        let context = Context { now: self.now(), actor: Actor::Broker, peer: browser.peer };
        let person = self.store.recognise(&wanted, &roles, is_admitted, &context).await?;
        self.wake.everybody();
        let lines = |line: &str| vec![line.to_owned(), "ask whoever administers Pairgate".to_owned()];
        let Some(person) = person.filter(|_| is_admitted) else {
            let why = format!("{}: none of the groups has a role here", one_line(&identity.name));
            let lines = lines("your account is good, but none of its groups has a role here");
            return self.refuse_sso(&why, lines, browser).await;
        };
        match self.open_session(person.id, SignInMethod::Sso, fresh_at, browser).await? {
            Some(session) => Ok(session),
            None => {
                let lines = lines("your account is good, but you were disabled here");
                self.refuse_sso(&format!("{} is disabled", person.name), lines, browser).await
            }
        }
    }

    async fn refuse_sso<T>(&self, why: &str, lines: Vec<String>, browser: &Browser) -> Result<T, UseCaseError> {
        self.note_refusal(Event::SsoRefused, None, why, browser.peer).await;
        Err(UseCaseError::Refused(lines))
    }

    /// What the groups may do here, and whether nobody needs one.
    fn roles_by_groups(&self, identity: &Identity) -> (Rights, bool) {
        let Some(provider) = &self.sso else { return (Rights::default(), false) };
        let settings = provider.settings();
        (rights_of(&settings.groups, &identity.groups), settings.admits_everybody)
    }
}

/// The rights of whoever is in these groups; the higher role counts at each site.
fn rights_of(mapped: &[GroupRole], groups: &[String]) -> Rights {
    let mut rights = Rights::default();
    for row in mapped.iter().filter(|row| groups.contains(&row.group)) {
        rights.add(&row.site, row.role);
    }
    rights
}

/// The name of a new person: plain letters, as of people who were added by hand. It is a name and nothing else; who it is, is issuer and subject.
fn plain_name(name: &str) -> String {
    let mut plain = String::new();
    for letter in name.chars() {
        let spelled = match letter {
            'ä' | 'Ä' => "ae",
            'ö' | 'Ö' => "oe",
            'ü' | 'Ü' => "ue",
            'ß' => "ss",
            _ => "",
        };
        if letter.is_ascii_alphanumeric() || "._@".contains(letter) {
            plain.push(letter.to_ascii_lowercase());
        } else if !spelled.is_empty() {
            plain.push_str(spelled);
        } else if !plain.is_empty() && !plain.ends_with('-') {
            plain.push('-');
        }
    }
    let plain: String = plain.chars().take(NAME_LENGTH).collect();
    let plain = plain.trim_matches(['-', '.']);
    if plain.len() < 2 { "person".into() } else { plain.to_owned() }
}

fn no_provider() -> UseCaseError {
    UseCaseError::refused("no account of an organisation is set up here; sign in in another way")
}

fn unreachable_lines() -> Vec<String> {
    vec![
        "your organisation's sign-in did not answer".into(),
        "nothing was changed; try again in a minute, or sign in in another way".into(),
    ]
}

fn foreign_lines() -> Vec<String> {
    vec![
        "this browser did not begin this sign-in, or it began more than 10 minutes ago".into(),
        "nobody was signed in; begin once more on this computer".into(),
    ]
}

fn another_lines() -> Vec<String> {
    vec![
        "this was not the person who is signed in here".into(),
        "nothing was changed; sign in again as yourself, or sign out first".into(),
    ]
}

/// For the person. What exactly was wrong stands in the audit log: an attacker learns nothing from it, and a person can do nothing with it.
fn lines(error: SsoError) -> Vec<String> {
    match error {
        SsoError::Foreign(_) => foreign_lines(),
        SsoError::Unreachable(_) => unreachable_lines(),
        SsoError::Declined(why) => {
            vec!["your organisation's sign-in let nobody through".into(), format!("it said: {why}")]
        }
        SsoError::Untrusted(_) => vec![
            "what your organisation's sign-in said of you can't be relied on".into(),
            "nobody was signed in; the audit log says what was wrong".into(),
        ],
        SsoError::NoAuthTime => vec![
            "your organisation's sign-in does not say when you signed in there, so this does not count as anew".into(),
            "whoever administers it can have it send the claim auth_time; until then, sign in again in another way"
                .into(),
        ],
        SsoError::TooManyGroups => vec![
            "you are in so many groups that your organisation's sign-in does not name them".into(),
            "whoever administers it can have it name only the groups that concern Pairgate".into(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::operator::{EVERYWHERE, Role};

    #[test]
    fn names_become_plain() {
        for (name, plain) in [
            ("dana@contoso.example", "dana@contoso.example"),
            ("Dana Müller-Groß", "dana-mueller-gross"),
            ("José", "jos"),
            ("\u{202E}anad", "anad"),
            ("<script>alert(1)</script>", "script-alert-1-script"),
            ("д", "person"),
            ("a", "person"),
            ("", "person"),
            ("--..x y..", "x-y"),
        ] {
            assert_eq!(plain_name(name), plain, "{name}");
        }
        assert_eq!(plain_name(&"x".repeat(300)).len(), NAME_LENGTH);
    }

    #[test]
    fn the_higher_role_of_several_groups_counts_at_each_site() {
        let row = |group: &str, site: &str, role| GroupRole { group: group.into(), site: site.into(), role };
        let mapped = [
            row("it", EVERYWHERE, Role::Viewer),
            row("berlin", "berlin", Role::Technician),
            row("lead", "berlin", Role::Approver),
        ];
        let rights = rights_of(&mapped, &["lead".into(), "berlin".into(), "sales".into()]);
        assert_eq!(rights, Rights::at("berlin", Role::Approver));
        assert_eq!(rights_of(&mapped, &["IT".into(), "i".into()]), Rights::default(), "whole names, as written");
    }
}
