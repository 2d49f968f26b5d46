//! What waits between two steps of a person's work: a list that was checked and may be imported, a change that may be undone. One of each for a session, under
//! the name that the page of the first step carries. What a browser begins before anybody is signed in is not here but in `people.rs` (`start_ceremony`).

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::broker::Broker;
use crate::broker::people::Session;
use crate::secret::{Bytes32, b64u, sha256};
use crate::store::StoreError;

/// Enough to tell one text from another.
pub(super) fn digest(text: &str) -> String {
    b64u(&sha256(&[text.as_bytes()])[..12])
}

fn key(purpose: &str, session: &Session) -> Bytes32 {
    sha256(&[b"pairgate aside v1", purpose.as_bytes(), &session.hash])
}

impl Broker {
    /// Keeps it in place of the one before; its name.
    pub(super) async fn set_aside(
        &self,
        purpose: &str,
        session: &Session,
        what: &impl Serialize,
        lifetime: Duration,
    ) -> Result<String, StoreError> {
        let text = serde_json::to_string(what).unwrap_or_default();
        let now = self.now();
        self.store.set_aside(&key(purpose, session), purpose, &text, now.plus(lifetime), now).await?;
        Ok(digest(&text))
    }

    /// What is kept, if it has this name.
    pub(super) async fn aside<T: DeserializeOwned>(
        &self,
        purpose: &str,
        session: &Session,
        name: &str,
    ) -> Result<Option<T>, StoreError> {
        let text = self.text_aside(purpose, session, name).await?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Takes it away, once. What has another name stays: a page left open must not throw away what a newer one will ask for.
    pub(super) async fn take_aside<T: DeserializeOwned>(
        &self,
        purpose: &str,
        session: &Session,
        name: &str,
    ) -> Result<Option<T>, StoreError> {
        let Some(text) = self.text_aside(purpose, session, name).await? else { return Ok(None) };
        let is_taken = self.store.take_aside(&key(purpose, session), purpose, &text, self.now()).await?;
        Ok(serde_json::from_str(&text).ok().filter(|_| is_taken))
    }

    async fn text_aside(&self, purpose: &str, session: &Session, name: &str) -> Result<Option<String>, StoreError> {
        let text = self.store.aside(&key(purpose, session), purpose, self.now()).await?;
        Ok(text.filter(|text| digest(text) == name))
    }
}
