//! When a device last polled. Kept in memory: a restart forgives one early poll, a second node one more; the interval itself, which `slow_down`
//! lengthens, is in the store (docs/decisions/0003-pacing-in-memory.md).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::GrantId;

/// The network may bring a punctual poll in early by this much.
const TOLERANCE: Duration = Duration::from_millis(500);
/// Longer than any code lives with any interval; older entries are swept.
const FORGET_AFTER: Duration = Duration::from_secs(900);

/// Last polls.
#[derive(Debug, Default)]
pub struct Pacer(Mutex<Polls>);

#[derive(Debug, Default)]
struct Polls {
    by_grant: HashMap<GrantId, Poll>,
    sweep_at: usize,
}

#[derive(Debug, Clone)]
struct Poll {
    at: Option<Timestamp>,
    /// The confirmation number that the device has been told.
    told: Option<String>,
    seen_at: Timestamp,
}

impl Pacer {
    /// Notes a poll; `true` if it came too early. The first one never does.
    pub fn is_too_fast(&self, id: GrantId, interval: i64, now: Timestamp) -> bool {
        let mut polls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        polls.sweep(now);
        let poll = polls.by_grant.entry(id).or_insert(Poll { at: None, told: None, seen_at: now });
        let wanted = Duration::from_secs(u64::try_from(interval).unwrap_or(0)).saturating_sub(TOLERANCE);
        let is_early = poll.at.is_some_and(|last| now.since(last) < wanted);
        poll.at = Some(now);
        poll.seen_at = now;
        is_early
    }

    /// The device heard news after being held: it may poll again at once.
    pub fn forgive(&self, id: GrantId) {
        if let Some(poll) = self.0.lock().unwrap_or_else(PoisonError::into_inner).by_grant.get_mut(&id) {
            poll.at = None;
        }
    }

    /// Notes what the device is told; `true` if that is news to it.
    pub fn is_news(&self, id: GrantId, confirmation_number: Option<&String>) -> bool {
        let mut polls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(poll) = polls.by_grant.get_mut(&id) else { return confirmation_number.is_some() };
        let is_news = poll.told.as_ref() != confirmation_number;
        poll.told = confirmation_number.cloned();
        is_news
    }
}

impl Polls {
    /// Drops what is long over, each time the map has doubled since the last sweep.
    fn sweep(&mut self, now: Timestamp) {
        if self.by_grant.len() > self.sweep_at {
            self.by_grant.retain(|_, poll| now.since(poll.seen_at) < FORGET_AFTER);
            self.sweep_at = (self.by_grant.len() * 2).max(1024);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_runs_from_poll_to_poll() {
        let (pacer, id) = (Pacer::default(), GrantId(1));
        let at = |millis: i64| Timestamp::from_millis(1_000_000 + millis);
        assert!(!pacer.is_too_fast(id, 5, at(0)), "some poll at once the first time");
        assert!(pacer.is_too_fast(id, 5, at(4_000)));
        assert!(pacer.is_too_fast(id, 10, at(9_000)), "a poll that was too fast counts as one");
        assert!(!pacer.is_too_fast(id, 10, at(18_600)), "half a second is forgiven");
        pacer.forgive(id);
        assert!(!pacer.is_too_fast(id, 10, at(18_700)));
    }

    #[test]
    fn a_number_is_news_once() {
        let (pacer, id) = (Pacer::default(), GrantId(1));
        pacer.is_too_fast(id, 5, Timestamp::from_millis(1));
        assert!(!pacer.is_news(id, None));
        assert!(pacer.is_news(id, Some(&"47".into())));
        assert!(!pacer.is_news(id, Some(&"47".into())));
        assert!(pacer.is_news(id, Some(&"48".into())));
    }

    #[test]
    fn memory_is_swept() {
        let pacer = Pacer::default();
        for id in 0..5_000 {
            pacer.is_too_fast(GrantId(id), 5, Timestamp::from_millis(0));
        }
        for id in 5_000..12_000 {
            pacer.is_too_fast(GrantId(id), 5, Timestamp::from_millis(3_600_000));
        }
        assert!(pacer.0.lock().unwrap().by_grant.len() <= 7_001);
    }
}
