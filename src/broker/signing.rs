//! The broker's signing keys, and their rotation. What a key is and how it signs is in `oauth/signing_key.rs`.
//!
//! Of each algorithm one key is *current* and signs; those before it are *retiring*: they only verify, until the last token that they signed has expired and
//! nobody's copy of `/jwks` is without their successor. The store holds them, sealed; what stands here is a copy, renewed within a second of a change.
//!
//! A rotation:
//! 1. mint and seal the successor; nobody else sees it yet
//! 2. one transaction: it becomes current, in place of the very key that we took for current; the former one begins to retire. In an emergency the former
//!    one and all that are retiring are dropped instead
//! 3. look into the store again: whoever was first, his key is ours

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;

use crate::broker::{Broker, Caller, UseCaseError};
use crate::clock::{Clock, Timestamp};
use crate::model::audit::{Actor, Context, Event};
use crate::model::kind::Kind;
use crate::model::operator::Role;
use crate::oauth::jose::JoseError;
use crate::oauth::jwk::PublicKey;
use crate::oauth::signing_key::{SigningAlgorithm, SigningKey};
use crate::secret::{Bytes32, MasterKey, Random, SecretError};
use crate::store::{NewSigningKey, Retirement, Store, StoreError, StoredSigningKey};

/// How long others may keep a copy of `/jwks`, in seconds.
pub const JWKS_MAX_AGE: u64 = 300;
/// Somebody else may rotate at the same moment; in an emergency we try again so often.
const EMERGENCY_TRIES: u32 = 8;

/// Why the signing keys could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key does not open, or none can be made.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// What was sealed is no key, or not of its algorithm.
    #[error(transparent)]
    Jose(#[from] JoseError),
}

/// One key, and where it stands.
#[derive(Clone, Debug)]
pub struct HeldKey {
    /// The key.
    pub key: Arc<SigningKey>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it verifies nothing; `None`: it is current.
    pub retires_at: Option<Timestamp>,
}

impl HeldKey {
    fn is_kept(&self, now: Timestamp) -> bool {
        self.retires_at.is_none_or(|retires_at| now < retires_at)
    }

    fn is(&self, stored: &StoredSigningKey) -> bool {
        self.key.kid() == stored.kid && self.retires_at == stored.retires_at
    }
}

/// All keys of the broker.
pub struct SigningKeys {
    /// Current ones first, then the newest first.
    keys: ArcSwap<Vec<HeldKey>>,
    /// The store's change counter before the last look at it.
    seen: AtomicI64,
    /// Held from the look into the store until its outcome is in force: else the older of two looks could win.
    looking: tokio::sync::Mutex<()>,
    store: Arc<dyn Store>,
    master: MasterKey,
    random: Random,
    clock: Clock,
}

impl SigningKeys {
    /// Reads the keys, and makes the first of each algorithm that has none. Two processes that start at once end with the same.
    ///
    /// # Errors
    /// [`SigningError`].
    pub async fn open(
        store: Arc<dyn Store>,
        master: MasterKey,
        random: Random,
        clock: Clock,
        algorithms: BTreeSet<SigningAlgorithm>,
    ) -> Result<Self, SigningError> {
        let keys = Self {
            keys: ArcSwap::default(),
            seen: AtomicI64::new(i64::MIN),
            looking: tokio::sync::Mutex::default(),
            store,
            master,
            random,
            clock,
        };
        keys.look().await?;
        // Pairing answers are always ES256.
        keys.provide(algorithms.into_iter().chain([SigningAlgorithm::Es256])).await?;
        Ok(keys)
    }

    /// Makes the first key of each of these algorithms that has none.
    ///
    /// # Errors
    /// [`SigningError`].
    pub async fn provide(&self, algorithms: impl IntoIterator<Item = SigningAlgorithm>) -> Result<(), SigningError> {
        for algorithm in algorithms {
            if self.current(algorithm).is_err() {
                let new = self.mint(algorithm).await?;
                let context = Context { now: self.clock.now(), actor: Actor::Broker, peer: None };
                self.store.add_first_signing_key(&new, &context).await?;
                self.look().await?;
            }
        }
        Ok(())
    }

    /// The key that signs.
    ///
    /// # Errors
    /// If this algorithm was not asked for when the broker was opened.
    pub fn current(&self, algorithm: SigningAlgorithm) -> Result<Arc<SigningKey>, JoseError> {
        let keys = self.keys.load();
        let mut current = keys.iter().filter(|held| held.retires_at.is_none());
        let found = current.find(|held| held.key.algorithm() == algorithm);
        found.map(|held| Arc::clone(&held.key)).ok_or(JoseError("There is no signing key of this algorithm."))
    }

    /// The ES256 key that a device was told of, as long as it is kept; after that the present one. What a device and the broker began over one key they end
    /// over it.
    ///
    /// # Errors
    /// As [`SigningKeys::current`].
    pub fn named(&self, jkt: &Bytes32) -> Result<Arc<SigningKey>, JoseError> {
        let named = self.kept().into_iter().find(|held| held.key.public().jkt() == *jkt);
        named.map_or_else(|| self.current(SigningAlgorithm::Es256), |held| Ok(held.key))
    }

    /// Signs claims with the current key; see [`SigningKey::sign`].
    ///
    /// # Errors
    /// As [`SigningKeys::current`], or if the library can't sign.
    pub fn sign<C: Serialize>(
        &self,
        algorithm: SigningAlgorithm,
        typ: &str,
        claims: &C,
        with_jwk: bool,
    ) -> Result<String, JoseError> {
        self.current(algorithm)?.sign(typ, claims, with_jwk)
    }

    /// The JWK Set (RFC 7517 section 5).
    pub fn jwks(&self) -> serde_json::Value {
        let keys: Vec<_> = self.kept().iter().map(|held| held.key.jwk_set_entry()).collect();
        serde_json::json!({"keys": keys})
    }

    /// The public key of this id, if what it signed is still good: for checking our own tokens.
    pub fn public(&self, kid: &str) -> Option<PublicKey> {
        let kept = self.kept();
        kept.iter().find(|held| held.key.kid() == kid).map(|held| held.key.public().clone())
    }

    /// All keys that verify: current ones first, then the newest first. One whose retirement has come is not among them, also before it is dropped.
    pub fn kept(&self) -> Vec<HeldKey> {
        let now = self.clock.now();
        self.keys.load().iter().filter(|held| held.is_kept(now)).cloned().collect()
    }

    /// Looks into the store again if its change counter has moved since the last look.
    async fn look_if_changed(&self, counter: i64) -> Result<(), SigningError> {
        if self.seen.load(Ordering::Relaxed) != counter {
            self.look().await?;
            // Read before the look, so a change during it moves the counter again. Not noted if the look failed: then the next second tries again.
            self.seen.store(counter, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn look(&self) -> Result<(), SigningError> {
        let _looking = self.looking.lock().await;
        let stored = self.store.signing_keys().await?;
        let held = self.keys.load_full();
        if held.len() == stored.len() && held.iter().zip(&stored).all(|(held, stored)| held.is(stored)) {
            return Ok(());
        }
        let opened: Result<Vec<_>, SigningError> = stored.iter().map(|stored| self.opened(stored, &held)).collect();
        self.keys.store(Arc::new(opened?));
        Ok(())
    }

    fn opened(&self, stored: &StoredSigningKey, held: &[HeldKey]) -> Result<HeldKey, SigningError> {
        let known = held.iter().find(|held| held.key.kid() == stored.kid).map(|held| Arc::clone(&held.key));
        let key = match known {
            Some(key) => key,
            None => {
                let pkcs8 = self.master.unseal(&row(&stored.kid), &stored.sealed)?;
                Arc::new(SigningKey::from_pkcs8(&pkcs8)?)
            }
        };
        if key.algorithm() != stored.algorithm {
            return Err(
                JoseError("A signing key in the database is not of the algorithm that stands beside it.").into()
            );
        }
        Ok(HeldKey { key, created_at: stored.created_at, retires_at: stored.retires_at })
    }

    async fn mint(&self, algorithm: SigningAlgorithm) -> Result<NewSigningKey, SigningError> {
        // An RSA key takes a hundred milliseconds and more: not on a thread that others wait for.
        let generated = tokio::task::spawn_blocking(move || SigningKey::generate(algorithm)).await;
        let pkcs8 = generated.map_err(|_| SecretError::Random)??;
        let kid = SigningKey::from_pkcs8(&pkcs8)?.kid().to_owned();
        let sealed = self.master.seal(&row(&kid), &pkcs8, &self.random)?;
        Ok(NewSigningKey { kid, algorithm, sealed })
    }
}

/// What the sealed record is bound to: it opens in no other row.
fn row(kid: &str) -> String {
    format!("signing_keys/{kid}")
}

/// How long a retiring key still verifies: the last token that it signed has expired by then, and so has every copy of `/jwks` that lacks its successor.
pub fn overlap(kinds: &[Arc<Kind>]) -> Duration {
    let longest = kinds.iter().map(|kind| kind.access_token_lifetime).max().unwrap_or_default();
    longest + Duration::from_secs(JWKS_MAX_AGE)
}

/// Why keys are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRotation {
    /// Because it is time: what was signed stays good.
    Planned,
    /// Because one has leaked: nothing that was signed stays good.
    Emergency,
}

/// A key that has got a successor.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// Of both.
    pub algorithm: SigningAlgorithm,
    /// The key that signs from now on.
    pub kid: String,
    /// The key that did before.
    pub former: String,
    /// Until when that one verifies; `None`: it does no longer.
    pub former_retires_at: Option<Timestamp>,
}

impl Broker {
    /// The signing keys.
    pub const fn signing_keys(&self) -> &SigningKeys {
        &self.signing
    }

    /// How old a current key gets.
    pub const fn signing_key_lifetime(&self) -> Duration {
        self.signing_key_lifetime
    }

    /// Gives every current key a successor.
    ///
    /// # Errors
    /// If the caller may not, or, of a planned rotation, if somebody else rotated at the same moment.
    pub async fn rotate_signing_keys(
        &self,
        caller: &Caller,
        rotation: KeyRotation,
    ) -> Result<Vec<Rotated>, UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        self.signing.look().await?;
        let mut done = Vec::new();
        for algorithm in SigningAlgorithm::ALL {
            let mut tries = if rotation == KeyRotation::Emergency { EMERGENCY_TRIES } else { 1 };
            while let Ok(former) = self.signing.current(algorithm) {
                if let Some(rotated) = self.rotate(&former, rotation, &self.context(caller)).await? {
                    done.push(rotated);
                    break;
                }
                // Of an emergency that must not be the end: the other rotation may have left the leaked key to retire in peace.
                tries -= 1;
                if tries == 0 {
                    return Err(UseCaseError::refused(
                        "somebody else rotated the signing keys at the same moment. See: pairgate keys list",
                    ));
                }
            }
        }
        Ok(done)
    }

    /// Ends every sign-in: each device has to sign in again. How many could still have been renewed.
    ///
    /// # Errors
    /// If the caller may not.
    pub async fn end_all_sign_ins(&self, caller: &Caller) -> Result<u64, UseCaseError> {
        caller.must_be_no_program()?;
        caller.must_everywhere(Role::may_administer)?;
        let ended = self.store.revoke_all_grants(Event::AllSignInsEnded, &self.context(caller)).await?;
        self.wake.pages();
        Ok(ended)
    }

    /// Rotates the keys that are of age, and drops those whose retirement has come. To be called at the start and once an hour.
    ///
    /// An algorithm that nothing asks for any more keeps its key: what it signed may be out, and another process may be asked for it.
    ///
    /// # Errors
    /// [`SigningError`].
    pub async fn rotate_signing_keys_if_due(&self) -> Result<(), SigningError> {
        self.signing.look().await?;
        let context = Context { now: self.now(), actor: Actor::Broker, peer: None };
        for held in self.signing.kept().iter().filter(|held| held.retires_at.is_none()) {
            if context.now.since(held.created_at) >= self.signing_key_lifetime {
                // If another process was first, that is as good.
                self.rotate(&held.key, KeyRotation::Planned, &context).await?;
            }
        }
        self.store.drop_retired_signing_keys(&context).await?;
        self.signing.look().await
    }

    /// Steps 1 to 3. `None` if `former` was not current any more.
    async fn rotate(
        &self,
        former: &SigningKey,
        rotation: KeyRotation,
        context: &Context,
    ) -> Result<Option<Rotated>, SigningError> {
        // 1.
        let new = self.signing.mint(former.algorithm()).await?;
        // 2.
        let former_retires_at = match rotation {
            KeyRotation::Planned => Some(context.now.plus(overlap(self.policy().kinds()))),
            KeyRotation::Emergency => None,
        };
        let retirement = former_retires_at.map_or(Retirement::AtOnce, Retirement::At);
        let is_rotated = self.store.rotate_signing_key(former.kid(), &new, retirement, context).await?;
        // 3.
        self.signing.look().await?;
        let NewSigningKey { kid, algorithm, .. } = new;
        Ok(is_rotated.then(|| Rotated { algorithm, kid, former: former.kid().to_owned(), former_retires_at }))
    }

    /// Renews the copy of the keys if the store has changed.
    pub(super) async fn look_for_rotations(&self, counter: i64) -> Result<(), SigningError> {
        self.signing.look_if_changed(counter).await
    }
}
