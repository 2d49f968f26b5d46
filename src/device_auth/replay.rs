//! Used `jti` values (RFC 9449 section 11.1): each proof counts once.
//!
//! Two sets that rotate, and a refusal when they are full: a cache that drops entries under pressure would switch the protection off just when
//! somebody floods it. They need not survive the process, because the nonces don't either.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use crate::clock::Timestamp;
use crate::device_auth::nonce::NONCE_LIFETIME;
use crate::secret::{Bytes32, sha256};

/// Entries per set: at 16 bytes and the set's own overhead about 20 MiB, reached only at thousands of *authentic* requests a second.
const CAPACITY: usize = 500_000;

/// What became of a `jti`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The first time.
    New,
    /// A replay.
    Before,
    /// Can't be told: no more room. Refuse the request.
    Full,
}

/// The two sets.
#[derive(Debug, Default)]
pub struct Replay(Mutex<Sets>);

#[derive(Debug)]
struct Sets {
    turned_at: Timestamp,
    present: HashSet<[u8; 16]>,
    former: HashSet<[u8; 16]>,
}

impl Default for Sets {
    fn default() -> Self {
        Self { turned_at: Timestamp::from_millis(0), present: HashSet::new(), former: HashSet::new() }
    }
}

impl Replay {
    /// Notes the `jti` of an authentic proof. A proof whose nonce is good at `now` is remembered at least until its nonce is not.
    pub fn note(&self, jkt: &Bytes32, jti: &str, now: Timestamp) -> Seen {
        let digest = sha256(&[jkt, jti.as_bytes()]);
        let entry = *digest.first_chunk::<16>().unwrap_or(&[0; 16]);
        let mut sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = now.since(sets.turned_at);
        if age >= NONCE_LIFETIME {
            // `present` may be younger than one life of a nonce, so it stays for one more turn; twice that age, and nothing counts any more.
            sets.former = if age >= 2 * NONCE_LIFETIME { HashSet::new() } else { std::mem::take(&mut sets.present) };
            sets.present = HashSet::new();
            sets.turned_at = now;
        }
        if sets.present.contains(&entry) || sets.former.contains(&entry) {
            return Seen::Before;
        }
        if sets.present.len() >= CAPACITY {
            return Seen::Full;
        }
        sets.present.insert(entry);
        Seen::New
    }
}

/// Used `jti` values of client assertions, until they expire by themselves (RFC 7523 section 3, item 7; R-7523-04).
///
/// By the minute of their `exp`: the same assertion again has the same `exp`, so it is looked for in one place, and a minute that is over is dropped whole.
#[derive(Debug, Default)]
pub struct UsedAssertions(Mutex<BTreeMap<i64, HashSet<[u8; 16]>>>);

impl UsedAssertions {
    /// Notes an assertion by its hash; `exp` in seconds since 1970. To be kept for as long as any assertion with this `exp` is taken.
    pub fn note(&self, hash: &Bytes32, exp: i64, leeway: i64, now: Timestamp) -> Seen {
        let entry = *hash.first_chunk::<16>().unwrap_or(&[0; 16]);
        let mut minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = (now.seconds() - leeway) / 60;
        *minutes = minutes.split_off(&over);
        let minute = exp / 60;
        if minutes.get(&minute).is_some_and(|used| used.contains(&entry)) {
            return Seen::Before;
        }
        if minutes.values().map(HashSet::len).sum::<usize>() >= CAPACITY {
            return Seen::Full;
        }
        minutes.entry(minute).or_default().insert(entry);
        Seen::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_jti_counts_once_for_as_long_as_its_nonce_lives_a_021() {
        let replay = Replay::default();
        let at = |seconds: u64| Timestamp::from_millis(1_000_000_000).plus(Duration::from_secs(seconds));
        assert_eq!(replay.note(&[1; 32], "a", at(0)), Seen::New);
        assert_eq!(replay.note(&[1; 32], "a", at(0)), Seen::Before);
        assert_eq!(replay.note(&[2; 32], "a", at(0)), Seen::New, "of another key");
        assert_eq!(replay.note(&[1; 32], "b", at(119)), Seen::New);
        assert_eq!(replay.note(&[1; 32], "c", at(121)), Seen::New, "turns the sets");
        assert_eq!(replay.note(&[1; 32], "b", at(238)), Seen::Before, "still remembered after a turn");
        assert_eq!(replay.note(&[1; 32], "a", at(900)), Seen::New, "long after its nonce died");
    }

    #[test]
    fn a_flood_is_refused_and_does_not_push_out_what_is_remembered() {
        let replay = Replay::default();
        let now = Timestamp::from_millis(1_000_000_000);
        replay.note(&[1; 32], "first", now);
        for index in 1..CAPACITY {
            replay.note(&[1; 32], &index.to_string(), now);
        }
        assert_eq!(replay.note(&[1; 32], "one more", now), Seen::Full);
        assert_eq!(replay.note(&[1; 32], "first", now), Seen::Before);
    }

    #[test]
    fn an_assertion_counts_once_until_it_expires_a_030() {
        let used = UsedAssertions::default();
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        assert_eq!(used.note(&[1; 32], 1_000_060, 60, at(1_000_000)), Seen::New);
        assert_eq!(used.note(&[1; 32], 1_000_060, 60, at(1_000_000)), Seen::Before);
        assert_eq!(used.note(&[1; 32], 1_000_060, 60, at(1_000_119)), Seen::Before, "within the leeway after its exp");
        assert_eq!(used.note(&[2; 32], 1_000_060, 60, at(1_000_000)), Seen::New);
        assert_eq!(used.note(&[3; 32], 1_003_600, 60, at(1_000_000)), Seen::New, "an hour ahead");
        assert_eq!(used.note(&[3; 32], 1_003_600, 60, at(1_003_600)), Seen::Before);
        assert_eq!(used.note(&[4; 32], 1_009_000, 60, at(1_008_000)), Seen::New);
        assert_eq!(used.0.lock().unwrap().len(), 1, "minutes that are over are gone");
    }
}
