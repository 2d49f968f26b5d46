//! People as the organisation knows them, and as administrators see them: what a backend must do. What a person does for itself is in `sessions.rs`.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::OperatorId;
use crate::model::audit::Context;
use crate::model::operator::{Operator, Rights};
use crate::store::Result;

/// Who somebody is at the organisation's identity provider.
#[derive(Clone, Debug)]
pub struct SsoIdentity {
    /// Issuer.
    pub issuer: String,
    /// Subject there.
    pub subject: String,
    /// The name that is wanted for a new person: plain, at most 60 characters. If it is taken, `-2` follows, or the next number.
    pub name: String,
}

/// A person, as administrators see it.
#[derive(Clone, Debug)]
pub struct Person {
    /// Name, and all rights together.
    pub operator: Operator,
    /// Rights given by hand.
    pub given: Rights,
    /// Rights by groups of the identity provider.
    pub by_groups: Rights,
    /// How many passkeys there are.
    pub passkeys: u64,
    /// Whether the identity provider vouches for this person.
    pub has_sso: bool,
    /// Sessions that live.
    pub sessions: u64,
    /// When the person last signed in or was seen.
    pub seen_at: Option<Timestamp>,
}

/// People: recognised by the identity provider's word, listed, and let in again.
#[async_trait]
pub trait PeopleStore: Send + Sync {
    /// The person of this issuer and subject, with these roles by groups from now on; roles given by hand stay. Somebody new is added if `may_add`, and
    /// never takes over a person of the same name. Of a disabled person nothing is changed. `None`: somebody new, and not to be added.
    async fn recognise(
        &self,
        identity: &SsoIdentity,
        roles: &Rights,
        may_add: bool,
        context: &Context,
    ) -> Result<Option<Operator>>;
    /// Who is the person of this issuer and subject?
    async fn sso_owner(&self, issuer: &str, subject: &str) -> Result<Option<OperatorId>>;
    /// All people, by name.
    async fn people(&self, now: Timestamp) -> Result<Vec<Person>>;
    /// Undoes that a person was disabled. `false` if unknown or not disabled.
    async fn enable_operator(&self, name: &str, context: &Context) -> Result<bool>;
    /// Removes all passkeys of a person, who has lost them or never had them, and ends the keys for commands, which are mostly kept where the passkeys were.
    /// How many passkeys there were.
    async fn remove_passkeys(&self, name: &str, context: &Context) -> Result<u64>;
}
