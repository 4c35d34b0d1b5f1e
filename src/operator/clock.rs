//! The time. Follows tokio's clock, so that it runs in virtual time wherever tokio does.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Wall-clock time that advances with tokio's clock.
#[derive(Clone, Debug)]
pub struct Clock {
    base: Timestamp,
    start: Instant,
}

impl Clock {
    /// A clock that shows `base` now.
    pub fn starting_at(base: Timestamp) -> Self {
        Self { base, start: Instant::now() }
    }

    /// The system's time. Corrections of the system clock after the start are not followed.
    pub fn system() -> Self {
        Self::starting_at(Timestamp::now())
    }

    /// The time now, in whole milliseconds.
    pub fn now(&self) -> Timestamp {
        let ms = self.base.as_millisecond() + i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX / 2);
        Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
    }

    /// The time from now until `at`; zero when it has passed.
    pub fn until(&self, at: Timestamp) -> std::time::Duration {
        let left = at.duration_since(self.now());
        if left <= SignedDuration::ZERO { std::time::Duration::ZERO } else { left.unsigned_abs() }
    }
}
