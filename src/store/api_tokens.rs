//! Tokens of programs: what a backend must do.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::model::api_token::ApiToken;
use crate::model::audit::Context;
use crate::model::operator::Rights;
use crate::secret::Bytes32;
use crate::store::Result;

/// A token to be stored.
#[derive(Clone, Debug)]
pub struct NewApiToken {
    /// Its name.
    pub name: String,
    /// SHA-256 of its secret.
    pub hash: Bytes32,
    /// What it may do where.
    pub rights: Rights,
    /// When it ends by itself.
    pub expires_at: Timestamp,
}

/// Tokens of programs.
#[async_trait]
pub trait ApiTokenStore: Send + Sync {
    /// Adds a token. `false` if the name is taken, or was once.
    async fn add_api_token(&self, new: &NewApiToken, context: &Context) -> Result<bool>;
    /// The token of this hash, if it is good at `now`. A read by a unique index.
    async fn api_token(&self, hash: &Bytes32, now: Timestamp) -> Result<Option<ApiToken>>;
    /// All tokens, also those that are over, by name.
    async fn api_tokens(&self) -> Result<Vec<ApiToken>>;
    /// Marks it as used. Without a record: it decides nothing.
    async fn touch_api_token(&self, id: i64, now: Timestamp) -> Result<()>;
    /// Ends a token. `false` if there is none of this name, or it was ended before.
    async fn revoke_api_token(&self, name: &str, context: &Context) -> Result<bool>;
}
