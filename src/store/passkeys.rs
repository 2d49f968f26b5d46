//! Passkeys of people: what a backend must do.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::OperatorId;
use crate::model::audit::Context;
use crate::secret::Bytes32;
use crate::store::{NewSession, Result};

/// At most so many passkeys of one person.
pub const MAX_PASSKEYS: u32 = 20;

/// A passkey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passkey {
    /// Credential id, as WebAuthn has it: unique.
    pub credential: Vec<u8>,
    /// Whose.
    pub operator: OperatorId,
    /// That person's name.
    pub owner: String,
    /// What its owner calls it.
    pub name: String,
    /// Public key, counter and flags: JSON, as the library writes them.
    pub data: String,
    /// When it was added.
    pub added_at: Timestamp,
    /// When it last opened a session.
    pub used_at: Option<Timestamp>,
}

/// A passkey that is to be added.
#[derive(Clone, Debug)]
pub struct NewPasskey {
    /// See [`Passkey`].
    pub credential: Vec<u8>,
    /// See [`Passkey`].
    pub operator: OperatorId,
    /// See [`Passkey`].
    pub name: String,
    /// See [`Passkey`].
    pub data: String,
    /// Hash of the id of the session that adds it.
    pub session: Bytes32,
}

/// Passkeys.
#[async_trait]
pub trait PasskeyStore: Send + Sync {
    /// Adds a passkey. `false` if the credential is somebody's already, the person is unknown or disabled, or has [`MAX_PASSKEYS`], or
    /// the session is not the person's or has ended: a session that was ended must leave no passkey behind.
    async fn add_passkey(&self, new: &NewPasskey, context: &Context) -> Result<bool>;
    /// The passkeys of a person, oldest first.
    async fn passkeys_of(&self, operator: OperatorId) -> Result<Vec<Passkey>>;
    /// A passkey by its credential, if its owner is not disabled.
    async fn passkey(&self, credential: &[u8]) -> Result<Option<Passkey>>;
    /// A proof by this passkey, as it was read, was found good: its data becomes `data` and a session is opened, both or neither. `false` if it was used,
    /// removed, or its owner disabled since it was read.
    async fn use_passkey(&self, read: &Passkey, data: &str, session: &NewSession, context: &Context) -> Result<bool>;
    /// Removes a passkey of this person. `false` if it is none.
    async fn remove_passkey(&self, operator: OperatorId, credential: &[u8], context: &Context) -> Result<bool>;
}
