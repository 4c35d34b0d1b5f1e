//! Waits between failed reconciles of one object.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use parking_lot::Mutex;

/// Wait after the first failure, at least.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// Longest wait.
pub const LONGEST: Duration = Duration::from_secs(5 * 60);
/// Up to this part of a wait is added to it, another one for each object, so that objects that failed together do not
/// come back together.
const JITTER: f64 = 0.25;

/// Counts failures in a row by UID, and gives the wait before the next attempt.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// Nothing has failed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a failure of the object `uid`. The wait doubles with each, from [`SHORTEST`] to [`LONGEST`].
    pub fn failed(&self, uid: &str) -> Duration {
        let mut failures = self.failures.lock();
        let count = failures.entry(uid.to_owned()).or_default();
        let doublings = *count;
        *count = count.saturating_add(1);
        wait(uid, doublings)
    }

    /// The object `uid` succeeded, or is gone: its next failure counts as the first.
    pub fn reset(&self, uid: &str) {
        self.failures.lock().remove(uid);
    }

    /// Failures in a row of the object `uid`.
    pub fn failures(&self, uid: &str) -> u32 {
        self.failures.lock().get(uid).copied().unwrap_or_default()
    }
}

/// The same for the same arguments.
fn wait(uid: &str, doublings: u32) -> Duration {
    let base = LONGEST.div_f64(1.0 + JITTER).min(SHORTEST * 2u32.saturating_pow(doublings.min(16)));
    let mut hash = DefaultHasher::new();
    (uid, doublings).hash(&mut hash);
    let share = f64::from((hash.finish() >> 32) as u32) / f64::from(u32::MAX);
    base.mul_f64(1.0 + JITTER * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_their_limits_and_start_anew_after_a_success() {
        let backoff = Backoff::new();
        let waits: Vec<Duration> = (0..40).map(|_| backoff.failed("a")).collect();
        assert!(waits.iter().all(|w| (SHORTEST..=LONGEST).contains(w)), "{waits:?}");
        assert!(waits[0] < SHORTEST * 2 && waits[39] >= LONGEST.mul_f64(0.8));
        // Doubling minus jitter: 2 / 1.25.
        assert!(waits[..8].windows(2).all(|w| w[1] > w[0].mul_f64(1.5)), "{waits:?}");
        assert_eq!(backoff.failures("a"), 40);

        assert_eq!(backoff.failed("b"), wait("b", 0), "one object's failures count for another");
        backoff.reset("a");
        assert_eq!(backoff.failed("a"), waits[0]);
    }

    #[test]
    fn objects_that_fail_together_do_not_come_back_together() {
        let waits: std::collections::BTreeSet<Duration> = (0..100).map(|i| wait(&format!("uid-{i}"), 20)).collect();
        assert!(waits.len() > 90, "{}", waits.len());
    }
}
