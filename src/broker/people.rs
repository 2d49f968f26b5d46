//! People: operators, one-time sign-in links, sessions, and the token that ties a form to its session.

use crate::broker::{Broker, Caller, UseCaseError};
use crate::clock::Timestamp;
use crate::id::OperatorId;
use crate::model::audit::{Actor, Context, Event, one_line};
use crate::model::operator::{EVERYWHERE, FRESH, LINK_LIFETIME, Operator, Role, SESSION_ABSOLUTE, SignInMethod};
use crate::secret::{Bytes32, b64u, bytes32_from_b64u, is_equal, sha256};
use crate::store::{LiveSession, NewSession, SessionOfPerson, StoreError};
use std::net::IpAddr;
use std::time::Duration;

/// A session is written as used at most this often.
const TOUCH_EVERY: Duration = Duration::from_secs(60);
/// A ceremony must end after this long.
const CEREMONY: Duration = Duration::from_secs(5 * 60);
/// So much is kept of what a browser says of itself.
const AGENT_LENGTH: usize = 120;

/// Who asks with a session's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsedBy {
    /// Somebody who does something.
    Person,
    /// A page that is open and looks for what is new.
    Page,
}

/// A live session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Hash of its id, as stored.
    pub hash: Bytes32,
    /// Whose it is.
    pub operator: Operator,
    /// When the person last proved who it is.
    pub fresh_at: Timestamp,
    /// How the person proved it.
    pub method: SignInMethod,
}

impl Session {
    /// The person as a caller of use cases.
    pub fn caller(&self, peer: Option<IpAddr>) -> Caller {
        Caller {
            actor: Actor::Operator(self.operator.name.clone()),
            rights: self.operator.rights.clone(),
            operator: Some(self.operator.id),
            proved_at: Some(self.fresh_at),
            session: Some(self.hash),
            peer,
            only_device: None,
        }
    }
}

/// What a page calls a session: not its id, nor anything that opens it.
pub fn session_handle(hash: &Bytes32) -> String {
    b64u(&hash[..12])
}

/// A browser in front of which nobody has proved yet who it is.
#[derive(Clone, Debug, Default)]
pub struct Browser {
    /// Address.
    pub peer: Option<IpAddr>,
    /// What it says it is.
    pub agent: String,
    /// The cookie of the session that it has, if any; alive or not.
    pub session: Option<String>,
}

/// A ceremony is found by the cookie and the session together: what one session began, no other can end.
fn ceremony(id: &Bytes32, session: Option<&Session>) -> Bytes32 {
    match session {
        Some(session) => sha256(&[id, &session.hash]),
        None => sha256(&[id]),
    }
}

/// Without anybody who administers everything, nobody could let anybody in any more.
fn last_administrator(name: &str) -> UseCaseError {
    UseCaseError::refused(format!(
        "{} is the last person who administers everything; give that role to somebody else first",
        one_line(name)
    ))
}

impl Broker {
    /// For what is dangerous: a session that was taken over, or left open, is not enough.
    ///
    /// # Errors
    /// [`UseCaseError::NotFresh`], if the person last proved who it is more than [`FRESH`] ago.
    pub(super) fn must_be_fresh(&self, caller: &Caller) -> Result<(), UseCaseError> {
        match caller.proved_at {
            Some(proved_at) if self.now().since(proved_at) > FRESH => Err(UseCaseError::NotFresh),
            _ => Ok(()),
        }
    }

    /// Adds a person.
    ///
    /// # Errors
    /// If the caller may not, the name is no plain name, or it is taken.
    pub async fn add_operator(&self, caller: &Caller, name: &str, role: Role) -> Result<OperatorId, UseCaseError> {
        self.add_person(caller, name, Some(role)).await
    }

    /// The same, with a role everywhere or with none yet.
    ///
    /// # Errors
    /// As [`Broker::add_operator`].
    pub async fn add_person(
        &self,
        caller: &Caller,
        name: &str,
        role: Option<Role>,
    ) -> Result<OperatorId, UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        // Plain letters only: the name stands in the audit log and must be nobody else's look-alike.
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_@".contains(&byte));
        if !is_plain || !(2..=64).contains(&name.len()) {
            return Err(UseCaseError::refused("a name has 2 to 64 characters out of A-Z, a-z, 0-9 and . - _ @"));
        }
        self.must_be_fresh(caller)?;
        let added = self.store.add_operator(name, role, &self.context(caller)).await?;
        added.ok_or_else(|| UseCaseError::refused(format!("the name {name} is taken")))
    }

    /// Gives a person a role at a site, or everywhere ([`EVERYWHERE`]), or takes it away. It holds from the person's next request on.
    ///
    /// # Errors
    /// If the caller may not (a site's administrator may for that site), or there is no such person or site.
    pub async fn set_role(
        &self,
        caller: &Caller,
        name: &str,
        site: &str,
        role: Option<Role>,
    ) -> Result<(), UseCaseError> {
        caller.must_be_no_program()?;
        if site == EVERYWHERE {
            caller.must_everywhere(Role::may_administer)?;
        } else {
            caller.must_at(site, Role::may_administer)?;
            if self.store.site(site).await?.is_none() {
                return Err(UseCaseError::NotFound(format!("there is no site '{}'", one_line(site))));
            }
        }
        self.must_be_fresh(caller)?;
        self.person(caller, name).await?;
        if !self.store.set_role(name, site, role, &self.context(caller)).await? {
            return Err(last_administrator(name));
        }
        self.wake.everybody();
        Ok(())
    }

    /// All people.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn operators(&self) -> Result<Vec<Operator>, StoreError> {
        self.store.operators().await
    }

    /// Takes all rights from a person, at once.
    ///
    /// # Errors
    /// If the caller may not, or there is no such person.
    pub async fn disable_operator(&self, caller: &Caller, name: &str) -> Result<(), UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        self.must_be_fresh(caller)?;
        if self.store.disable_operator(name, &self.context(caller)).await? {
            self.wake.everybody();
            return Ok(());
        }
        match self.store.operator(name).await? {
            Some(operator) if operator.disabled_at.is_none() => Err(last_administrator(name)),
            _ => Err(UseCaseError::NotFound(format!(
                "there is no operator '{}', or it is disabled already",
                one_line(name)
            ))),
        }
    }

    /// A one-time sign-in link: good once, for ten minutes.
    ///
    /// # Errors
    /// If the caller may not, there is no such person, or two persons must agree somewhere and the link is for another.
    pub async fn operator_link(&self, caller: &Caller, name: &str) -> Result<String, UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        self.must_be_fresh(caller)?;
        self.must_be_own_where_two_must_agree(caller, name).await?;
        let token = self.random.bytes32()?;
        let context = self.context(caller);
        let expires_at = context.now.plus(LINK_LIFETIME);
        if self.store.add_link(name, &sha256(&[&token]), expires_at, &context).await? {
            Ok(format!("{}/sign-in?token={}", self.endpoints.issuer, b64u(&token)))
        } else {
            let name = one_line(name);
            Err(UseCaseError::NotFound(format!(
                "there is no operator '{name}'; add one: pairgate operator add {name} --role admin"
            )))
        }
    }

    /// Whose link this is, if it is good. Changes nothing: link previews and scanners open links.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn link_owner(&self, token: &str) -> Result<Option<Operator>, StoreError> {
        match bytes32_from_b64u(token) {
            Some(token) => self.store.link(&sha256(&[&token]), self.now()).await,
            None => Ok(None),
        }
    }

    /// Spends a link and opens a session; its id for the cookie.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn sign_in(&self, token: &str, browser: &Browser) -> Result<Option<String>, UseCaseError> {
        let Some(token) = bytes32_from_b64u(token) else { return Ok(None) };
        let (id, session) = self.new_session(SignInMethod::Link, self.now(), browser)?;
        let operator = self.store.use_link(&sha256(&[&token]), &session, &self.context_of(browser)).await?;
        if operator.is_none() {
            self.note_refusal(Event::LinkRefused, None, "", browser.peer).await;
        }
        Ok(operator.map(|_| id))
    }

    /// Opens a session for a person who proved by `method` and at `fresh_at` who it is, for the first time or once more; its id for the cookie. `None` if
    /// the person is disabled.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn open_session(
        &self,
        operator: OperatorId,
        method: SignInMethod,
        fresh_at: Timestamp,
        browser: &Browser,
    ) -> Result<Option<String>, UseCaseError> {
        let (id, session) = self.new_session(method, fresh_at, browser)?;
        Ok(self.store.open_session(operator, &session, &self.context_of(browser)).await?.map(|_| id))
    }

    /// A session always gets an id that nobody has seen before, also where a person signs in once more: an id that was planted or copied is worth nothing then.
    pub(super) fn new_session(
        &self,
        method: SignInMethod,
        fresh_at: Timestamp,
        browser: &Browser,
    ) -> Result<(String, NewSession), UseCaseError> {
        let id = self.random.bytes32()?;
        let new = NewSession {
            hash: sha256(&[&id]),
            method,
            fresh_at,
            agent: one_line(&browser.agent).chars().take(AGENT_LENGTH).collect(),
            ends_at: self.now().plus(SESSION_ABSOLUTE),
            replaces: browser.session.as_deref().and_then(bytes32_from_b64u).map(|id| sha256(&[&id])),
        };
        Ok((b64u(&id), new))
    }

    pub(super) fn context_of(&self, browser: &Browser) -> Context {
        Context { now: self.now(), actor: Actor::Anonymous, peer: browser.peer }
    }

    /// Begins what a browser ends with its next request: the value of a cookie that only this browser gets. With a session, only that session can end it.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn start_ceremony(
        &self,
        purpose: &str,
        session: Option<&Session>,
        state: &str,
    ) -> Result<String, UseCaseError> {
        let id = self.random.bytes32()?;
        let now = self.now();
        self.store.start_ceremony(&ceremony(&id, session), purpose, state, now.plus(CEREMONY), now).await?;
        Ok(b64u(&id))
    }

    /// The state of a ceremony, once.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn take_ceremony(
        &self,
        purpose: &str,
        session: Option<&Session>,
        cookie: &str,
    ) -> Result<Option<String>, StoreError> {
        match bytes32_from_b64u(cookie) {
            Some(id) => self.store.take_ceremony(&ceremony(&id, session), purpose, self.now()).await,
            None => Ok(None),
        }
    }

    /// The session of a cookie, if it lives. `by`: a person keeps it alive by this, a page that looks by itself does not: an hour without use ends a session
    /// also where a page was left open.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn session(&self, cookie: &str, by: UsedBy) -> Result<Option<Session>, StoreError> {
        let Some(id) = bytes32_from_b64u(cookie) else { return Ok(None) };
        let (hash, now) = (sha256(&[&id]), self.now());
        let Some(LiveSession { operator, seen_at, fresh_at, method }) = self.store.session(&hash, now).await? else {
            return Ok(None);
        };
        if by == UsedBy::Person && now.since(seen_at) >= TOUCH_EVERY {
            self.store.touch_session(&hash, now).await?;
        }
        Ok(Some(Session { hash, operator, fresh_at, method }))
    }

    /// Signs out.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn sign_out(&self, session: &Session, peer: Option<IpAddr>) -> Result<(), StoreError> {
        self.store.end_session(&session.hash, &self.context(&session.caller(peer))).await
    }

    /// The living sessions of the person whose session this is, the last used first.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn sessions(&self, session: &Session) -> Result<Vec<SessionOfPerson>, StoreError> {
        self.store.sessions_of(session.operator.id, self.now()).await
    }

    /// Ends a session of the same person, by its [`session_handle`].
    ///
    /// # Errors
    /// If there is none.
    pub async fn end_session(&self, session: &Session, handle: &str, peer: Option<IpAddr>) -> Result<(), UseCaseError> {
        let sessions = self.sessions(session).await?;
        let Some(found) = sessions.iter().find(|found| session_handle(&found.hash) == handle) else {
            return Err(UseCaseError::refused("that session is over already"));
        };
        Ok(self.store.end_session(&found.hash, &self.context(&session.caller(peer))).await?)
    }

    /// Ends all sessions of the person, this one too; what the person approved before and no device has fetched is void.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn sign_out_everywhere(&self, session: &Session, peer: Option<IpAddr>) -> Result<(), StoreError> {
        self.store.sign_out_everywhere(session.operator.id, &self.context(&session.caller(peer))).await?;
        self.wake.everybody();
        Ok(())
    }

    /// The token that forms of this session carry. Derived, so there is nothing to store.
    pub fn csrf_token(&self, session: &Session) -> String {
        b64u(&self.csrf_key.tag(&[&session.hash]))
    }

    /// Does a form belong to this session?
    pub fn is_csrf_token(&self, session: &Session, presented: &str) -> bool {
        is_equal(self.csrf_token(session).as_bytes(), presented.as_bytes())
    }
}
