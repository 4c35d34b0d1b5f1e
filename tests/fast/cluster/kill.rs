//! An operator that is killed after one of its requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;
use voicerollout::sim::{Fault, Verb};

use super::Cluster;

/// Counts the operator's requests, watches left out, and says when it is to be killed.
#[derive(Clone, Default)]
pub struct Kill {
    count: Arc<AtomicU64>,
    struck: Arc<AtomicBool>,
    bell: Arc<Notify>,
}

impl Kill {
    /// Requests until now.
    pub fn requests(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Says that the operator is to be killed now.
    pub fn strike(&self) {
        self.struck.store(true, Ordering::SeqCst);
        self.bell.notify_one();
    }

    /// Waits until the operator is to be killed.
    pub async fn struck(&self) {
        self.bell.notified().await;
    }

    /// Whether it has come to that: a test that kills nobody shows nothing.
    pub fn was_struck(&self) -> bool {
        self.struck.load(Ordering::SeqCst)
    }
}

impl Cluster {
    /// Counts the operator's requests from now on. The `kill`-th is carried out, its answer never comes, and it is struck;
    /// `None` for never.
    pub fn kill_after(&self, kill: Option<u64>) -> Kill {
        let counted = Kill::default();
        let kept = counted.clone();
        self.server.intercept(move |request| {
            if &*request.user != "operator" || request.verb == Verb::Watch {
                return Fault::None;
            }
            let kept = kept.clone();
            let number = kept.count.fetch_add(1, Ordering::SeqCst) + 1;
            if Some(number) == kill { Fault::CrashAfter(Arc::new(move || kept.strike())) } else { Fault::None }
        });
        counted
    }
}
