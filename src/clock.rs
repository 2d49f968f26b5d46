//! Time, and the only place that reads it. Everything else takes `now` as a parameter.
//!
//! The wall clock of a server can be set back, by mistake or by an attacker on its network time. A lifetime must not grow by
//! that, so the clock ticks on with the monotonic one and follows the wall clock forwards only.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// An instant, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since 1970.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970, as the store keeps it.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, as JWT claims carry it (RFC 7519 section 2, NumericDate).
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This instant and a duration; saturates.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This instant less a duration; saturates.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// `2026-11-24T05:40:12Z`.
    pub fn rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp(self.seconds())
            .ok()
            .and_then(|instant| instant.format(&Rfc3339).ok())
            .unwrap_or_else(|| self.0.to_string())
    }
}

/// Where time comes from: the machine, or a test's hand.
#[derive(Clone, Debug)]
enum Source {
    System { started: std::time::Instant },
    Manual(Arc<Mutex<Reading>>),
}

/// What the two clocks of a machine say at one moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    wall: Timestamp,
    monotonic: Duration,
}

/// The broker's clock: never goes back, and never slower than the monotonic clock.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    /// The last agreed pair; `now` is derived from it.
    anchor: Arc<Mutex<Reading>>,
}

impl Clock {
    /// The machine's clock.
    #[allow(clippy::disallowed_methods)] // the one place
    pub fn system() -> Self {
        Self::from_source(Source::System { started: std::time::Instant::now() })
    }

    /// A clock that stands still until it is moved; for tests.
    pub fn manual(wall: Timestamp) -> Self {
        Self::from_source(Source::Manual(Arc::new(Mutex::new(Reading { wall, monotonic: Duration::ZERO }))))
    }

    fn from_source(source: Source) -> Self {
        let anchor = Arc::new(Mutex::new(source.read()));
        Self { source, anchor }
    }

    /// The present.
    ///
    /// Without the monotonic half, setting the wall clock back by an hour would give every pending code another hour.
    pub fn now(&self) -> Timestamp {
        let reading = self.source.read();
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let ticked = anchor.wall.plus(reading.monotonic.saturating_sub(anchor.monotonic));
        let wall = ticked.max(reading.wall);
        *anchor = Reading { wall, monotonic: reading.monotonic };
        wall
    }

    /// Raises the clock to at least `mark`: the newest instant that the store has seen, so that a restart cannot turn time back either.
    pub fn raise_to(&self, mark: Timestamp) {
        let now = self.now();
        if mark > now {
            let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
            anchor.wall = mark;
        }
    }

    /// Moves a manual clock on, wall and monotonic together. Does nothing to the machine's clock.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(reading) = &self.source {
            let mut reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
            reading.wall = reading.wall.plus(by);
            reading.monotonic += by;
        }
    }

    /// Sets only the wall half of a manual clock, as a wrong time server would. Does nothing to the machine's clock.
    pub fn set_wall(&self, wall: Timestamp) {
        if let Source::Manual(reading) = &self.source {
            reading.lock().unwrap_or_else(PoisonError::into_inner).wall = wall;
        }
    }
}

impl Source {
    #[allow(clippy::disallowed_methods)] // the one place
    fn read(&self) -> Reading {
        match self {
            Self::System { started } => {
                let wall = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(Timestamp(0), |elapsed| Timestamp(0).plus(elapsed));
                Reading { wall, monotonic: started.elapsed() }
            }
            Self::Manual(reading) => *reading.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_set_back_neither_turns_time_back_nor_stops_it_a_089() {
        let clock = Clock::manual(Timestamp::from_millis(1_000_000));
        assert_eq!(clock.now().millis(), 1_000_000);
        clock.set_wall(Timestamp::from_millis(0));
        assert_eq!(clock.now().millis(), 1_000_000, "time does not go back");
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now().millis(), 1_005_000, "lifetimes still run out");
    }

    #[test]
    fn a_wall_clock_set_forward_is_followed() {
        let clock = Clock::manual(Timestamp::from_millis(1_000));
        clock.now();
        clock.set_wall(Timestamp::from_millis(9_000));
        assert_eq!(clock.now().millis(), 9_000);
    }

    #[test]
    fn the_store_can_raise_the_clock_but_not_lower_it_a_089() {
        let clock = Clock::manual(Timestamp::from_millis(1_000));
        clock.raise_to(Timestamp::from_millis(5_000));
        assert_eq!(clock.now().millis(), 5_000);
        clock.raise_to(Timestamp::from_millis(2_000));
        clock.advance(Duration::from_millis(1));
        assert_eq!(clock.now().millis(), 5_001);
    }

    #[test]
    fn instants_print_as_rfc_3339() {
        assert_eq!(Timestamp::from_millis(1_795_498_812_345).rfc3339(), "2026-11-24T05:40:12Z");
    }
}
