//! Reverts go first: while canary weights are being taken back, other writes wait, though not for long.
//!
//! When many gates fail at once the API server is busy; what callers feel should not stand in line behind bookkeeping.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::cache::Id;

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

/// Rollouts whose pass waits for its turn.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<HashMap<Id, Arc<Notify>>>);

impl Waiting {
    /// A place in the line, until it is dropped. A rollout has one pass at a time.
    pub fn place(&self, namespace: &str, name: &str) -> Place<'_> {
        let (id, touched) = (Id::new(namespace, name), Arc::new(Notify::new()));
        self.0.lock().insert(id.clone(), touched.clone());
        Place { waiting: self, id, touched }
    }

    /// Something of a rollout has changed, such as a verdict about it.
    pub fn touch(&self, namespace: &str, name: &str) {
        if let Some(touched) = self.0.lock().get(&Id::new(namespace, name)) {
            touched.notify_one();
        }
    }
}

/// See [`Waiting::place`].
pub struct Place<'a> {
    waiting: &'a Waiting,
    id: Id,
    touched: Arc<Notify>,
}

impl Place<'_> {
    /// Waits until something of the rollout has changed since the last time.
    pub async fn touched(&self) {
        self.touched.notified().await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.0.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
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

    #[test]
    fn a_place_in_the_line_is_told_what_touches_its_rollout_also_before_it_asks() {
        let waiting = Waiting::default();
        waiting.touch("n", "a");
        let (a, b) = (waiting.place("n", "a"), waiting.place("n", "b"));
        assert!(a.touched().now_or_never().is_none());
        waiting.touch("n", "a");
        waiting.touch("n", "a");
        assert!(a.touched().now_or_never().is_some() && a.touched().now_or_never().is_none());
        assert!(b.touched().now_or_never().is_none());
        drop((a, b));
        assert!(waiting.0.lock().is_empty());
    }
}
