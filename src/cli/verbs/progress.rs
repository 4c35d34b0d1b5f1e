//! A line that says that something is waited for. Only a terminal gets it, on standard error.

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use super::Session;

/// Waits shorter than this are not told.
const TOLD_AFTER: Duration = Duration::from_secs(2);

impl Session {
    /// Waits, and tells for how long as soon as it takes a while.
    pub(super) async fn waited<T>(&self, what: &str, wait: impl Future<Output = T>) -> T {
        if !self.interactive {
            return wait.await;
        }
        let mut wait = std::pin::pin!(wait);
        let started = tokio::time::Instant::now();
        let mut ticks = tokio::time::interval_at(started + TOLD_AFTER, Duration::from_secs(1));
        let mut told = false;
        loop {
            tokio::select! {
                done = &mut wait => {
                    if told {
                        // The line makes room (ECMA-48, EL).
                        let _ = write!(std::io::stderr(), "\r\x1b[K");
                    }
                    return done;
                }
                _ = ticks.tick() => {
                    told = true;
                    let _ = write!(std::io::stderr(), "\r\x1b[K{what}, {} s", started.elapsed().as_secs());
                    let _ = std::io::stderr().flush();
                }
            }
        }
    }
}
