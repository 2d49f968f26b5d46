//! Tokens of programs: make, list, revoke, and who calls with one.
//!
//! A program may do what its rights say, except what only a person may: confirm a pairing, approve a sign-in, manage people, roles, tokens and policy.
//! That is refused where it would be done, by [`Caller::must_be_no_program`], whatever the token's role is.

use std::net::IpAddr;
use std::time::Duration;

use crate::broker::{Broker, Caller, UseCaseError};
use crate::model::api_token::{self, ApiToken, MAX_LIFETIME};
use crate::model::audit::{Actor, Event, one_line};
use crate::model::operator::{EVERYWHERE, Rights, Role};
use crate::secret::sha256;
use crate::store::{NewApiToken, StoreError};

/// A token is written as used at most this often.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

impl Caller {
    /// What a person must decide, no program does, whatever its role is. Without this, whoever gets hold of one token of a help desk could pair a key of
    /// his own and approve its sign-in.
    ///
    /// # Errors
    /// [`UseCaseError::OnlyPeople`].
    pub(super) fn must_be_no_program(&self) -> Result<(), UseCaseError> {
        match self.actor {
            Actor::Machine(_) => Err(UseCaseError::OnlyPeople),
            _ => Ok(()),
        }
    }
}

impl Broker {
    /// Makes a token; its text, which is shown once and is nowhere stored.
    ///
    /// # Errors
    /// If the caller may not, the name is no plain name or is taken, there is no such site, or the lifetime is none of 1 to 365 days.
    pub async fn add_api_token(
        &self,
        caller: &Caller,
        name: &str,
        rights: Rights,
        lifetime: Duration,
    ) -> Result<String, UseCaseError> {
        self.must_manage_tokens(caller)?;
        let mut problems = Vec::new();
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        if !is_plain || !(2..=64).contains(&name.len()) {
            problems.push("a token's name has 2 to 64 characters out of A-Z, a-z, 0-9 and . - _".into());
        }
        if lifetime < Duration::from_secs(86_400) || lifetime > MAX_LIFETIME {
            problems.push("a token lives 1 to 365 days".into());
        }
        if rights.highest().is_none() {
            problems.push("a token needs a role, at a site or everywhere".into());
        }
        for (site, _) in rights.iter().filter(|(site, _)| *site != EVERYWHERE) {
            if self.store.site(site).await?.is_none() {
                problems.push(format!("site '{}' is unknown", one_line(site)));
            }
        }
        if !problems.is_empty() {
            return Err(UseCaseError::Refused(problems));
        }
        let (secret, context) = (self.random.bytes32()?, self.context(caller));
        let hash = sha256(&[&secret]);
        let new = NewApiToken { name: name.into(), hash, rights, expires_at: context.now.plus(lifetime) };
        if self.store.add_api_token(&new, &context).await? {
            Ok(api_token::text(&secret))
        } else {
            Err(UseCaseError::refused(format!("the name {name} is taken, or was once; choose another")))
        }
    }

    /// All tokens, also those that are over.
    ///
    /// # Errors
    /// If the caller may not.
    pub async fn api_tokens(&self, caller: &Caller) -> Result<Vec<ApiToken>, UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        Ok(self.store.api_tokens().await?)
    }

    /// Ends a token: its next request is refused.
    ///
    /// # Errors
    /// If the caller may not, or there is no such token that lives.
    pub async fn revoke_api_token(&self, caller: &Caller, name: &str) -> Result<(), UseCaseError> {
        self.must_manage_tokens(caller)?;
        if self.store.revoke_api_token(name, &self.context(caller)).await? {
            return Ok(());
        }
        let name = one_line(name);
        Err(UseCaseError::NotFound(format!("there is no token '{name}', or it is revoked already")))
    }

    fn must_manage_tokens(&self, caller: &Caller) -> Result<(), UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        self.must_be_fresh(caller)
    }

    /// Who calls with this token; nobody if it is wrong, expired or revoked, or its maker has no right left, which is one answer. The record of it is bounded.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn program(&self, token: &str, peer: Option<IpAddr>) -> Result<Option<Caller>, StoreError> {
        let now = self.now();
        let found = match api_token::hash(token) {
            Some(hash) => self.store.api_token(&hash, now).await?,
            None => None,
        };
        let found = match found {
            Some(token) => self.rights_left(&token).await?.map(|rights| (token, rights)),
            None => None,
        };
        let Some((token, rights)) = found else {
            self.note_refusal(Event::ApiTokenRefused, None, "", peer).await;
            return Ok(None);
        };
        if token.used_at.is_none_or(|used_at| now.since(used_at) >= TOUCH_EVERY) {
            self.store.touch_api_token(token.id, now).await?;
        }
        Ok(Some(Caller {
            actor: Actor::Machine(token.name),
            rights,
            operator: None,
            proved_at: None,
            session: None,
            only_device: None,
            peer,
        }))
    }

    /// What a token may still do: nothing that its maker may not do himself any more. Else whoever is let go would keep his rights in a token.
    async fn rights_left(&self, token: &ApiToken) -> Result<Option<Rights>, StoreError> {
        let Some(name) = token.made_by.strip_prefix("operator:") else { return Ok(Some(token.rights.clone())) };
        let maker = self.store.operator(name).await?.filter(|maker| maker.disabled_at.is_none());
        let left = maker.map(|maker| token.rights.within(&maker.rights));
        Ok(left.filter(|rights| rights.highest().is_some()))
    }
}
