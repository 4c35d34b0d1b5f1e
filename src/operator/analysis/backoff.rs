//! Waits between failed reconciles of one object.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

/// First wait; doubles with each failure.
const FIRST: Duration = Duration::from_secs(1);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(300);

/// Failures in a row, by UID.
#[derive(Default)]
pub struct Backoff(Mutex<HashMap<String, u32>>);

impl Backoff {
    /// One more failure: how long to wait.
    pub fn failed(&self, uid: &str) -> Duration {
        let mut failures = self.0.lock();
        let n = failures.entry(uid.to_owned()).or_default();
        *n = n.saturating_add(1);
        FIRST.saturating_mul(1 << (*n - 1).min(16)).min(LONGEST)
    }

    /// It went well, or the object is gone.
    pub fn reset(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_start_again() {
        let backoff = Backoff::default();
        let waits: Vec<u64> = (0..11).map(|_| backoff.failed("a").as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        backoff.reset("a");
        assert_eq!((backoff.failed("a"), backoff.failed("b")), (FIRST, FIRST));
    }
}
