//! Used `jti` values (RFC 9449 section 11.1): each proof counts once.
//!
//! Two sets that rotate, and a refusal when they are full: a cache that drops entries under pressure would switch the protection off just when
//! somebody floods it. They need not survive the process, because the nonces don't either. Nobody gets more than a tenth of the room: one device in bad
//! hands must not shut out the others.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use crate::clock::Timestamp;
use crate::device_auth::assertion::AssertionUse;
use crate::device_auth::nonce::NONCE_LIFETIME;
use crate::secret::{Bytes32, sha256};

/// Entries per set: at 16 bytes and the set's own overhead about 20 MiB, reached only at thousands of *authentic* requests a second.
const CAPACITY: usize = 500_000;
/// Entries of one key or client.
const SHARE: usize = CAPACITY / 10;

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
    /// How much of `present` is by which key.
    by_key: HashMap<Bytes32, usize>,
}

impl Default for Sets {
    fn default() -> Self {
        let (present, former, by_key) = (HashSet::new(), HashSet::new(), HashMap::new());
        Self { turned_at: Timestamp::from_millis(0), present, former, by_key }
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
            (sets.present, sets.by_key) = (HashSet::new(), HashMap::new());
            sets.turned_at = now;
        }
        if sets.present.contains(&entry) || sets.former.contains(&entry) {
            return Seen::Before;
        }
        if sets.present.len() >= CAPACITY || sets.by_key.get(jkt).is_some_and(|used| *used >= SHARE) {
            return Seen::Full;
        }
        sets.present.insert(entry);
        *sets.by_key.entry(*jkt).or_default() += 1;
        Seen::New
    }
}

/// Used `jti` values of client assertions, until they expire by themselves (RFC 7523 section 3, item 7; R-7523-04).
///
/// By the minute of their `exp`: the same assertion again has the same `exp`, so it is looked for in one place, and a minute that is over is dropped whole.
#[derive(Debug, Default)]
pub struct UsedAssertions(Mutex<BTreeMap<i64, UsedInMinute>>);

#[derive(Debug, Default)]
struct UsedInMinute {
    entries: HashSet<[u8; 16]>,
    by_client: HashMap<Bytes32, usize>,
}

impl UsedAssertions {
    /// Notes an assertion. To be kept for as long as any assertion with this `exp` is taken.
    pub fn note(&self, used: &AssertionUse, leeway: i64, now: Timestamp) -> Seen {
        let AssertionUse { client, hash, exp } = used;
        let entry = *hash.first_chunk::<16>().unwrap_or(&[0; 16]);
        let mut minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = (now.seconds() - leeway) / 60;
        *minutes = minutes.split_off(&over);
        let minute = exp / 60;
        if minutes.get(&minute).is_some_and(|used| used.entries.contains(&entry)) {
            return Seen::Before;
        }
        let in_all: usize = minutes.values().map(|used| used.entries.len()).sum();
        let by_client: usize = minutes.values().filter_map(|used| used.by_client.get(client)).sum();
        if in_all >= CAPACITY || by_client >= SHARE {
            return Seen::Full;
        }
        let used = minutes.entry(minute).or_default();
        used.entries.insert(entry);
        *used.by_client.entry(*client).or_default() += 1;
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
        replay.note(&[0; 32], "0", now);
        for index in 1..CAPACITY {
            let key = u8::try_from(index / SHARE).unwrap();
            replay.note(&[key; 32], &index.to_string(), now);
        }
        assert_eq!(replay.note(&[100; 32], "one more", now), Seen::Full);
        assert_eq!(replay.note(&[0; 32], "0", now), Seen::Before);
    }

    #[test]
    fn one_device_fills_only_its_own_share_a_019_a_091() {
        let (replay, assertions) = (Replay::default(), UsedAssertions::default());
        let now = Timestamp::from_millis(1_000_000_000);
        let by = |client: u8, index: usize| AssertionUse {
            client: [client; 32],
            hash: sha256(&[&[client], &index.to_be_bytes()]),
            exp: 1_000_060 + i64::try_from(index % 3600).unwrap(),
        };
        for index in 0..SHARE {
            assert_eq!(replay.note(&[1; 32], &index.to_string(), now), Seen::New);
            assert_eq!(assertions.note(&by(1, index), 60, now), Seen::New);
        }
        assert_eq!(replay.note(&[1; 32], "one more", now), Seen::Full);
        assert_eq!(assertions.note(&by(1, SHARE), 60, now), Seen::Full);
        assert_eq!(replay.note(&[2; 32], "another's", now), Seen::New);
        assert_eq!(assertions.note(&by(2, 0), 60, now), Seen::New);
        assert_eq!(assertions.note(&by(1, 0), 60, now), Seen::Before);
    }

    #[test]
    fn an_assertion_counts_once_until_it_expires_a_030() {
        let used = UsedAssertions::default();
        let of = |hash: u8, exp: i64| AssertionUse { client: [9; 32], hash: [hash; 32], exp };
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        assert_eq!(used.note(&of(1, 1_000_060), 60, at(1_000_000)), Seen::New);
        assert_eq!(used.note(&of(1, 1_000_060), 60, at(1_000_000)), Seen::Before);
        assert_eq!(used.note(&of(1, 1_000_060), 60, at(1_000_119)), Seen::Before, "within the leeway after its exp");
        assert_eq!(used.note(&of(2, 1_000_060), 60, at(1_000_000)), Seen::New);
        assert_eq!(used.note(&of(3, 1_003_600), 60, at(1_000_000)), Seen::New, "an hour ahead");
        assert_eq!(used.note(&of(3, 1_003_600), 60, at(1_003_600)), Seen::Before);
        assert_eq!(used.note(&of(4, 1_009_000), 60, at(1_008_000)), Seen::New);
        assert_eq!(used.0.lock().unwrap().len(), 1, "minutes that are over are gone");
    }
}
