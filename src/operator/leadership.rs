//! Whether this process may write. Checked at each write, so that every replica keeps its caches warm.

use std::time::Duration;

use kube::runtime::controller::Action;
use tokio::sync::watch;
use tokio::time::Instant;

/// Time after which a leader whose renewal is late looks again.
const LATE_RENEWAL: Duration = Duration::from_millis(200);

/// A claim on the Lease, as the writers see it.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// End of the claim; `None` when another process leads.
    until: watch::Receiver<Option<Instant>>,
}

impl Leadership {
    /// Follows a claim that the lease loop keeps up to date.
    pub fn following(until: watch::Receiver<Option<Instant>>) -> Self {
        Self { until }
    }

    /// A claim without end, for a process that is the only one.
    pub fn always() -> Self {
        let far = Instant::now() + Duration::from_secs(60 * 60 * 24 * 365 * 20);
        Self { until: watch::channel(Some(far)).1 }
    }

    /// Whether the claim outlives a write that may take `timeout`.
    pub fn allows(&self, timeout: Duration) -> bool {
        self.until.borrow().is_some_and(|until| until > Instant::now() + timeout)
    }

    /// Whether this process leads, though its renewal may be late.
    pub fn claimed(&self) -> bool {
        self.until.borrow().is_some()
    }

    /// What a pass that may not write has to ask for. A standby waits: becoming the leader wakes every object. A leader
    /// whose renewal is late looks again soon, or what it saw would be lost.
    pub fn later(&self) -> Action {
        if self.claimed() { Action::requeue(LATE_RENEWAL) } else { Action::await_change() }
    }

    /// The claim, for a task that waits for its changes.
    pub fn changes(&self) -> watch::Receiver<Option<Instant>> {
        self.until.clone()
    }
}
