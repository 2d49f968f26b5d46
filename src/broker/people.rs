//! People: operators, one-time sign-in links, sessions, and the token that ties a form to its session.

use crate::broker::{Broker, Caller, UseCaseError};
use crate::clock::Timestamp;
use crate::id::OperatorId;
use crate::model::audit::{Actor, Context, Event, one_line};
use crate::model::operator::{EVERYWHERE, FRESH, LINK_LIFETIME, Operator, Role, SESSION_ABSOLUTE};
use crate::secret::{Bytes32, b64u, bytes32_from_b64u, is_equal, sha256};
use crate::store::{LiveSession, StoreError};
use std::net::IpAddr;
use std::time::Duration;

/// A session is written as used at most this often.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// A live session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Hash of its id, as stored.
    pub hash: Bytes32,
    /// Whose it is.
    pub operator: Operator,
    /// When the person last proved who it is.
    pub fresh_at: Timestamp,
}

impl Session {
    /// The person as a caller of use cases.
    pub fn caller(&self, peer: Option<IpAddr>) -> Caller {
        Caller {
            actor: Actor::Operator(self.operator.name.clone()),
            rights: self.operator.rights.clone(),
            operator: Some(self.operator.id),
            proved_at: Some(self.fresh_at),
            peer,
        }
    }
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
        if !self.store.set_role(name, site, role, &self.context(caller)).await? {
            return Err(UseCaseError::NotFound(format!("there is no operator '{}'", one_line(name))));
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

    /// All people, for a caller who administers everything.
    ///
    /// # Errors
    /// If the caller does not.
    pub async fn operators_for(&self, caller: &Caller) -> Result<Vec<Operator>, UseCaseError> {
        caller.must_everywhere(Role::may_administer)?;
        Ok(self.store.operators().await?)
    }

    /// Takes all rights from a person, at once.
    ///
    /// # Errors
    /// If the caller may not, or there is no such person.
    pub async fn disable_operator(&self, caller: &Caller, name: &str) -> Result<(), UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        if self.store.disable_operator(name, &self.context(caller)).await? {
            self.wake.everybody();
            Ok(())
        } else {
            Err(UseCaseError::NotFound(format!("there is no operator '{}', or it is disabled already", one_line(name))))
        }
    }

    /// A one-time sign-in link: good once, for ten minutes.
    ///
    /// # Errors
    /// If the caller may not, or there is no such person.
    pub async fn operator_link(&self, caller: &Caller, name: &str) -> Result<String, UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
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
    pub async fn sign_in(&self, token: &str, peer: Option<IpAddr>) -> Result<Option<String>, UseCaseError> {
        let Some(token) = bytes32_from_b64u(token) else { return Ok(None) };
        let id = self.random.bytes32()?;
        let context = Context { now: self.now(), actor: Actor::Anonymous, peer };
        let ends_at = context.now.plus(SESSION_ABSOLUTE);
        let operator = self.store.use_link(&sha256(&[&token]), &sha256(&[&id]), ends_at, &context).await?;
        if operator.is_none() {
            self.note_refusal(Event::LinkRefused, None, "", peer).await;
        }
        Ok(operator.map(|_| b64u(&id)))
    }

    /// The session of a cookie, if it lives.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn session(&self, cookie: &str) -> Result<Option<Session>, StoreError> {
        let Some(id) = bytes32_from_b64u(cookie) else { return Ok(None) };
        let (hash, now) = (sha256(&[&id]), self.now());
        let Some(LiveSession { operator, seen_at, fresh_at }) = self.store.session(&hash, now).await? else {
            return Ok(None);
        };
        if now.since(seen_at) >= TOUCH_EVERY {
            self.store.touch_session(&hash, now).await?;
        }
        Ok(Some(Session { hash, operator, fresh_at }))
    }

    /// Signs out.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn sign_out(&self, session: &Session, peer: Option<IpAddr>) -> Result<(), StoreError> {
        self.store.end_session(&session.hash, &self.context(&session.caller(peer))).await
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
