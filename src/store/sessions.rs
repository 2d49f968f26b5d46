//! Sessions of people, and what a browser is in the middle of: what a backend must do.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::OperatorId;
use crate::model::audit::Context;
use crate::model::operator::{Operator, SignInMethod};
use crate::secret::Bytes32;
use crate::store::Result;

/// At most so many ceremonies are kept; the oldest make room. Whoever has not signed in may begin one.
pub const MAX_CEREMONIES: u32 = 4096;

/// A session that is to be opened.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Hash of its id.
    pub hash: Bytes32,
    /// How the person proved who it is.
    pub method: SignInMethod,
    /// When the person proved it: not always now, the provider may have known the browser still.
    pub fresh_at: Timestamp,
    /// The browser by its own word, one short line.
    pub agent: String,
    /// It ends then, used or not.
    pub ends_at: Timestamp,
    /// Hash of the id of the session that the same browser has had until now: that one ends if it is the same person's.
    pub replaces: Option<Bytes32>,
}

/// A session that lives.
#[derive(Clone, Debug)]
pub struct LiveSession {
    /// Whose.
    pub operator: Operator,
    /// When it was last written as seen.
    pub seen_at: Timestamp,
    /// When the person proved who it is.
    pub fresh_at: Timestamp,
    /// How.
    pub method: SignInMethod,
}

/// A session as its owner sees it in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOfPerson {
    /// Hash of its id.
    pub hash: Bytes32,
    /// Since when.
    pub started_at: Timestamp,
    /// When it was last written as seen.
    pub seen_at: Timestamp,
    /// How the person last proved who it is.
    pub method: SignInMethod,
    /// From where it was opened.
    pub peer: Option<String>,
    /// The browser by its own word.
    pub agent: String,
}

/// Sessions, and ceremonies: what is between two steps of a browser.
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// Opens a session for a person who proved who it is; it takes the place of the one that the browser has had. `None` if the person is unknown or disabled.
    async fn open_session(
        &self,
        operator: OperatorId,
        session: &NewSession,
        context: &Context,
    ) -> Result<Option<Operator>>;
    /// Whose session this is, if it lives: not ended, neither idle nor too old, the person not disabled. Roles by groups count only in a session that the
    /// organisation's sign-in opened.
    async fn session(&self, hash: &Bytes32, now: Timestamp) -> Result<Option<LiveSession>>;
    /// All sessions of a person that live, the last used first.
    async fn sessions_of(&self, operator: OperatorId, now: Timestamp) -> Result<Vec<SessionOfPerson>>;
    /// Marks it as used.
    async fn touch_session(&self, hash: &Bytes32, now: Timestamp) -> Result<()>;
    /// Signs out.
    async fn end_session(&self, hash: &Bytes32, context: &Context) -> Result<()>;
    /// Ends all sessions of a person, and its links that nobody has used; what the person approved before and nobody has fetched yet is void. How many there were.
    async fn sign_out_everywhere(&self, operator: OperatorId, context: &Context) -> Result<u64>;
    /// Keeps what a browser needs for its next step, by the hash of what only that browser has. At most [`MAX_CEREMONIES`].
    async fn start_ceremony(
        &self,
        hash: &Bytes32,
        purpose: &str,
        state: &str,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<()>;
    /// The state of a ceremony for this purpose that is not over, once: it is gone afterwards. With another purpose it is gone as well.
    async fn take_ceremony(&self, hash: &Bytes32, purpose: &str, now: Timestamp) -> Result<Option<String>>;
}
