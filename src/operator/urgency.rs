//! Reverts go first: while canary weights are being taken back, other writes wait, though not for long.
//!
//! When many gates fail at once the API server is busy; what callers feel should not stand in line behind bookkeeping.

use std::time::Duration;

use tokio::sync::watch;

/// Longest time that other writes wait.
const PATIENCE: Duration = Duration::from_millis(500);

/// Reverts under way.
#[derive(Debug, Default)]
pub struct Urgency(watch::Sender<usize>);

impl Urgency {
    /// Counts a revert as under way until the guard is dropped.
    pub fn begin(&self) -> UrgencyGuard<'_> {
        self.0.send_modify(|n| *n += 1);
        UrgencyGuard(self)
    }

    /// No revert is under way.
    pub fn is_calm(&self) -> bool {
        *self.0.borrow() == 0
    }

    /// Waits until no revert is under way, for half a second at most.
    pub async fn calm(&self) {
        let mut under_way = self.0.subscribe();
        // The sender is borrowed: it cannot be gone.
        let _ = tokio::time::timeout(PATIENCE, under_way.wait_for(|n| *n == 0)).await;
    }
}

/// See [`Urgency::begin`].
pub struct UrgencyGuard<'a>(&'a Urgency);

impl Drop for UrgencyGuard<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|n| *n -= 1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn others_wait_for_all_reverts_and_not_for_ever() {
        let urgency = Urgency::default();
        let begun = Instant::now();
        urgency.calm().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);

        let (first, second) = (urgency.begin(), urgency.begin());
        let ends = async {
            for (guard, after) in [(first, 10), (second, 20)] {
                tokio::time::sleep(Duration::from_millis(after)).await;
                drop(guard);
            }
        };
        let ((), waited) = tokio::join!(ends, async {
            urgency.calm().await;
            begun.elapsed()
        });
        assert!((30..40).contains(&waited.as_millis()), "{waited:?}");

        let _stuck = urgency.begin();
        let begun = Instant::now();
        urgency.calm().await;
        assert!((PATIENCE..2 * PATIENCE).contains(&begun.elapsed()));
    }
}
