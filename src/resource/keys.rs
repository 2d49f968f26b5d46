//! The broker's public keys (RFC 7517): a JWK Set, and how it is kept up to date.
//!
//! A `kid` that is not in the copy may be a new key of the broker's, or an invention. So it leads to a new look at the broker, but to one in 30
//! seconds at the most, whoever asks how often. When the broker can't be reached the last copy serves on for an hour.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;

use crate::clock::Timestamp;
use crate::oauth::jwk::{Algorithm, Jwk, PublicKey};
use crate::resource::fetch::{Fetch, FetchError, metadata};

/// A copy younger than this is not looked at again for a key that it has.
const FRESH: Duration = Duration::from_secs(300);
/// A copy older than this is worth nothing: a key may have been withdrawn since.
const LONGEST: Duration = Duration::from_secs(3600);
/// Between two looks at the broker.
const PAUSE: Duration = Duration::from_secs(30);
/// The same while there is no copy at all, as when both start together.
const PAUSE_WITHOUT_COPY: Duration = Duration::from_secs(5);

/// A JWK Set: the keys of it that can sign tokens, by `kid`.
#[derive(Clone, Debug, Default)]
pub struct Jwks(HashMap<String, PublicKey>);

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Entry {
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
}

impl Jwks {
    /// Parses a JWK Set. Keys that are of no use here are left out (RFC 7517 section 5).
    ///
    /// # Errors
    /// If it is none, or two usable keys have one name.
    pub fn parse(json: &[u8]) -> Result<Self, FetchError> {
        let set: Set =
            serde_json::from_slice(json).map_err(|error| FetchError(format!("this is no JWK Set: {error}")))?;
        let mut keys = HashMap::new();
        for (kid, key) in set.keys.into_iter().filter_map(usable) {
            if keys.insert(kid.clone(), key).is_some() {
                return Err(FetchError(format!("two keys are named '{kid}'")));
            }
        }
        Ok(Self(keys))
    }

    fn key(&self, kid: &str) -> Option<&PublicKey> {
        self.0.get(kid)
    }
}

fn usable(jwk: Value) -> Option<(String, PublicKey)> {
    let Entry { kid, alg, usage } = Entry::deserialize(&jwk).ok()?;
    let key = PublicKey::from_jwk(&Jwk::deserialize(&jwk).ok()?).ok()?;
    let fits = alg.is_none_or(|alg| Algorithm::parse(&alg) == Some(key.algorithm()));
    (fits && usage.is_none_or(|usage| usage == "sig")).then_some((kid?, key))
}

/// No copy of the keys that could be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unavailable;

/// Where keys come from.
pub(super) enum Keys {
    /// Given once, for resource servers that can't reach the broker.
    Fixed(Jwks),
    /// The broker's metadata and `jwks_uri`.
    Broker(BrokerKeys),
}

impl Keys {
    /// The key of this name. `None`: the broker has no such key.
    pub(super) async fn key(&self, kid: &str, now: Timestamp) -> Result<Option<PublicKey>, Unavailable> {
        match self {
            Self::Fixed(jwks) => Ok(jwks.key(kid).cloned()),
            Self::Broker(keys) => keys.key(kid, now).await,
        }
    }
}

/// A copy of the broker's keys.
#[derive(Clone)]
pub(super) struct BrokerKeys(Arc<Inner>);

struct Inner {
    issuer: String,
    fetch: Arc<dyn Fetch>,
    state: Mutex<State>,
    /// Held by who is looking at the broker.
    turn: Arc<AsyncMutex<()>>,
}

#[derive(Default)]
struct State {
    copy: Option<(Arc<Jwks>, Timestamp)>,
    tried_at: Option<Timestamp>,
}

impl State {
    fn copy(&self, now: Timestamp, at_most: Duration) -> Option<Arc<Jwks>> {
        self.copy.as_ref().filter(|(_, fetched_at)| now.since(*fetched_at) < at_most).map(|(jwks, _)| Arc::clone(jwks))
    }
}

impl BrokerKeys {
    pub(super) fn new(issuer: String, fetch: Arc<dyn Fetch>) -> Self {
        Self(Arc::new(Inner { issuer, fetch, state: Mutex::default(), turn: Arc::default() }))
    }

    async fn key(&self, kid: &str, now: Timestamp) -> Result<Option<PublicKey>, Unavailable> {
        let found = |at_most| self.0.with(|state| state.copy(now, at_most)?.key(kid).cloned());
        if let Some(key) = found(FRESH) {
            return Ok(Some(key));
        }
        let turn = match Arc::clone(&self.0.turn).try_lock_owned() {
            Ok(turn) => turn,
            // Somebody is looking; meanwhile the older copy will do.
            Err(_) => match found(LONGEST) {
                Some(key) => return Ok(Some(key)),
                None => Arc::clone(&self.0.turn).lock_owned().await,
            },
        };
        let may_look = self.0.with(|state| {
            let pause = if state.copy(now, LONGEST).is_some() { PAUSE } else { PAUSE_WITHOUT_COPY };
            let may_look = state.tried_at.is_none_or(|tried_at| now.since(tried_at) >= pause);
            if may_look {
                state.tried_at = Some(now);
            }
            may_look
        });
        if may_look {
            let inner = Arc::clone(&self.0);
            // A task of its own: a caller that hangs up must not end the look, or it could keep every new key from us.
            let look = tokio::spawn(async move {
                let _turn = turn;
                inner.look(now).await;
            });
            look.await.map_err(|_| Unavailable)?;
        }
        let copy = self.0.with(|state| state.copy(now, LONGEST)).ok_or(Unavailable)?;
        Ok(copy.key(kid).cloned())
    }
}

impl Inner {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn look(&self, now: Timestamp) {
        match self.fetched().await {
            Ok(jwks) => self.with(|state| state.copy = Some((Arc::new(jwks), now))),
            Err(error) => tracing::warn!(issuer = self.issuer, %error, "the broker's keys could not be fetched"),
        }
    }

    async fn fetched(&self) -> Result<Jwks, FetchError> {
        let metadata = metadata(&*self.fetch, &self.issuer).await?;
        let jwks_uri = metadata.jwks_uri.ok_or_else(|| FetchError("the metadata has no jwks_uri".into()))?;
        Jwks::parse(&self.fetch.get(&jwks_uri).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::signing_key::{SigningAlgorithm, SigningKey};
    use crate::resource::test_support::FakeBroker;
    use serde_json::json;

    fn signing_key() -> SigningKey {
        SigningKey::from_pkcs8(&SigningKey::generate(SigningAlgorithm::Es256).unwrap()).unwrap()
    }

    #[test]
    fn a_set_keeps_only_keys_that_can_sign_tokens() {
        let key = signing_key();
        let with = |change: Value| {
            let mut jwk = key.jwk_set_entry();
            for (name, value) in change.as_object().unwrap() {
                jwk[name] = value.clone();
            }
            jwk
        };
        let set = json!({"keys": [
            with(json!({})),
            with(json!({"kid": "for encryption", "use": "enc"})),
            with(json!({"kid": "for another algorithm", "alg": "RS256"})),
            with(json!({"kid": "for HMAC", "alg": "HS256"})),
            with(json!({"kid": "private", "d": "AAAA"})),
            with(json!({"kid": null})),
            {"kty": "oct", "k": "AAAA", "kid": "symmetric"},
            {"kty": "unheard of", "kid": "new"},
            7,
        ]});
        let jwks = Jwks::parse(set.to_string().as_bytes()).unwrap();
        assert_eq!(jwks.0.keys().collect::<Vec<_>>(), [key.kid()]);
        let twice = json!({"keys": [key.jwk_set_entry(), key.jwk_set_entry()]});
        for wrong in [twice.to_string(), "{}".into(), "[]".into(), "no JSON".into()] {
            assert!(Jwks::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_flood_of_unknown_kids_is_one_look_in_thirty_seconds_a_068() {
        let (old, new) = (signing_key(), signing_key());
        let fake = FakeBroker::with_keys(&[&old]);
        let keys = BrokerKeys::new(fake.issuer(), std::sync::Arc::new(fake.clone()));
        let at = |seconds: u64| Timestamp::from_millis(1_000_000_000).plus(Duration::from_secs(seconds));
        assert!(keys.key(old.kid(), at(0)).await.unwrap().is_some());
        assert_eq!(fake.looks(), 1);
        for index in 0..100 {
            assert!(keys.key(&format!("invented-{index}"), at(0)).await.unwrap().is_none());
        }
        assert_eq!(fake.looks(), 1);
        fake.set_keys(&[&old, &new]);
        assert!(keys.key(new.kid(), at(29)).await.unwrap().is_none());
        assert!(keys.key(new.kid(), at(30)).await.unwrap().is_some(), "a new key is found");
        assert_eq!(fake.looks(), 2);
        // A withdrawn key is gone with the next look.
        fake.set_keys(&[&new]);
        assert!(keys.key(old.kid(), at(329)).await.unwrap().is_some());
        assert!(keys.key(old.kid(), at(330)).await.unwrap().is_none());
        assert_eq!(fake.looks(), 3);
    }

    #[tokio::test]
    async fn the_last_copy_serves_for_an_hour_without_the_broker_and_no_longer() {
        let key = signing_key();
        let fake = FakeBroker::with_keys(&[&key]);
        let keys = BrokerKeys::new(fake.issuer(), std::sync::Arc::new(fake.clone()));
        let at = |seconds: u64| Timestamp::from_millis(1_000_000_000).plus(Duration::from_secs(seconds));
        fake.cut();
        assert!(matches!(keys.key(key.kid(), at(0)).await, Err(Unavailable)));
        assert!(matches!(keys.key(key.kid(), at(4)).await, Err(Unavailable)));
        assert_eq!(fake.looks(), 1, "not even while there is none");
        fake.mend();
        assert!(keys.key(key.kid(), at(5)).await.unwrap().is_some());
        fake.cut();
        assert!(keys.key(key.kid(), at(1800)).await.unwrap().is_some());
        assert!(keys.key("invented", at(3604)).await.unwrap().is_none());
        assert!(matches!(keys.key(key.kid(), at(3605)).await, Err(Unavailable)));
        fake.mend();
        assert!(keys.key(key.kid(), at(3640)).await.unwrap().is_some());
    }

    /// R-8414-05.
    #[tokio::test]
    async fn metadata_of_another_issuer_or_an_unprotected_address_is_not_used() {
        let key = signing_key();
        let good = json!({"issuer": "https://pairgate.example", "jwks_uri": "https://pairgate.example/jwks"});
        for (changes, is_good) in [
            (json!({}), true),
            (json!({"issuer": "https://pairgate.example/"}), false),
            (json!({"issuer": "https://evil.example"}), false),
            (json!({"issuer": null}), false),
            (json!({"jwks_uri": null}), false),
            (json!({"jwks_uri": "http://pairgate.example/jwks"}), false),
            (json!({"jwks_uri": "file:///etc/passwd"}), false),
        ] {
            let fake = FakeBroker::with_keys(&[&key]);
            let mut metadata = good.clone();
            for (name, value) in changes.as_object().unwrap() {
                metadata[name] = value.clone();
            }
            fake.set_metadata(metadata);
            let keys = BrokerKeys::new(fake.issuer(), std::sync::Arc::new(fake.clone()));
            assert_eq!(keys.key(key.kid(), Timestamp::from_millis(0)).await.is_ok(), is_good, "{changes}");
        }
    }
}
