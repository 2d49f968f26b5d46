//! Keys that people sign commands with: what a backend must do.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::OperatorId;
use crate::model::audit::Context;
use crate::model::operator::Operator;
use crate::secret::Bytes32;
use crate::store::Result;

/// At most so many living keys of one person.
pub const MAX_OPERATOR_KEYS: u32 = 10;

/// A key that a person signs commands with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorKey {
    /// Its thumbprint (RFC 7638): unique.
    pub jkt: Bytes32,
    /// Whose.
    pub operator: OperatorId,
    /// What its owner calls it.
    pub name: String,
    /// The public key, a JWK.
    pub jwk: String,
    /// When it was added.
    pub added_at: Timestamp,
    /// By whom, as in the audit log.
    pub added_by: String,
    /// When it last signed something that was taken.
    pub used_at: Option<Timestamp>,
}

/// A key that is to be added.
#[derive(Clone, Debug)]
pub struct NewOperatorKey {
    /// See [`OperatorKey`].
    pub jkt: Bytes32,
    /// See [`OperatorKey`].
    pub operator: OperatorId,
    /// See [`OperatorKey`].
    pub name: String,
    /// See [`OperatorKey`].
    pub jwk: String,
    /// Hash of the id of the session that adds it; `None`: the command line does.
    pub session: Option<Bytes32>,
}

/// Keys of people, and the commands that they signed.
#[async_trait]
pub trait OperatorKeyStore: Send + Sync {
    /// Adds a key. `false` if it is or ever was anybody's, the person is unknown or disabled, or has [`MAX_OPERATOR_KEYS`], or the session is not the
    /// person's or has ended: a session that was ended must leave no key behind.
    async fn add_operator_key(&self, new: &NewOperatorKey, context: &Context) -> Result<bool>;
    /// The living keys of a person, oldest first.
    async fn operator_keys(&self, operator: OperatorId) -> Result<Vec<OperatorKey>>;
    /// A living key and whose it is, if its owner is not disabled. The owner has the rights that were given by hand: a key hears nothing of the
    /// organisation's groups, and would keep what they gave once.
    async fn operator_key(&self, jkt: &Bytes32) -> Result<Option<(OperatorKey, Operator)>>;
    /// Marks it as used. Without a record: it decides nothing.
    async fn touch_operator_key(&self, jkt: &Bytes32, now: Timestamp) -> Result<()>;
    /// Ends a key of this person, for ever. `false` if it is none, or was ended before.
    async fn revoke_operator_key(&self, operator: OperatorId, jkt: &Bytes32, context: &Context) -> Result<bool>;
    /// Notes a command as used until `expires_at`, once: `false` if it was before. What has expired is forgotten. Without a record: what the
    /// command does has its own.
    async fn use_command(&self, hash: &Bytes32, expires_at: Timestamp, now: Timestamp) -> Result<bool>;
}
