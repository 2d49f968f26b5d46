//! People: what a backend must do.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::OperatorId;
use crate::model::audit::Context;
use crate::model::operator::{Operator, Role};
use crate::secret::Bytes32;
use crate::store::{NewSession, Result};

/// Where wrong codes are counted: bucket and limit.
pub type GuessBucket = (String, i64);

/// People: operators, links, and how often they may guess.
#[async_trait]
pub trait OperatorStore: Send + Sync {
    /// Adds a person with a role everywhere, or with none yet. `None` if the name is taken.
    async fn add_operator(&self, name: &str, role: Option<Role>, context: &Context) -> Result<Option<OperatorId>>;
    /// Gives a person a role at a site or everywhere, or takes it away. `false` if there is no such person, or it is the last one
    /// who administers everything, and would not any more.
    async fn set_role(&self, name: &str, site: &str, role: Option<Role>, context: &Context) -> Result<bool>;
    /// A person by name.
    async fn operator(&self, name: &str) -> Result<Option<Operator>>;
    /// All people.
    async fn operators(&self) -> Result<Vec<Operator>>;
    /// Ends all that the person may do: sessions and links in the same transaction. `false` if unknown, disabled before, or
    /// the last one who administers everything.
    async fn disable_operator(&self, name: &str, context: &Context) -> Result<bool>;
    /// Stores a one-time link by its hash. `false` if the person is unknown or disabled.
    async fn add_link(&self, operator: &str, hash: &Bytes32, expires_at: Timestamp, context: &Context) -> Result<bool>;
    /// Whose unused link this is.
    async fn link(&self, hash: &Bytes32, now: Timestamp) -> Result<Option<Operator>>;
    /// Spends a link, once, and opens a session. `None` if it is spent, too old or wrong; that record is the caller's, who bounds how many there are.
    async fn use_link(&self, link: &Bytes32, session: &NewSession, context: &Context) -> Result<Option<Operator>>;
    /// Is any bucket full at `now`? Each counts for ten minutes from its first guess.
    async fn is_guess_budget_spent(&self, buckets: &[GuessBucket], now: Timestamp) -> Result<bool>;
    /// Counts a wrong code in all buckets, with its audit record. A right code resets nothing.
    async fn record_guess(&self, buckets: &[GuessBucket], context: &Context) -> Result<()>;
}
