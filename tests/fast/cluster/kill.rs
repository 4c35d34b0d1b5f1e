//! An operator that is killed after one of its requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use voicerollout::sim::{Fault, Verb};

use super::Cluster;

/// Counts the operator's requests, watches left out, and says when it is to be killed.
#[derive(Default)]
pub struct Kill {
    count: Arc<AtomicU64>,
    /// Rings when the operator is to be killed.
    pub bell: Arc<Notify>,
}

impl Kill {
    /// Requests until now.
    pub fn requests(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// The operator is to be killed.
    pub async fn struck(&self) {
        self.bell.notified().await;
    }
}

impl Cluster {
    /// Counts the operator's requests from now on. The `kill`-th is carried out, its answer never comes, and the bell rings;
    /// `None` for never.
    pub fn kill_after(&self, kill: Option<u64>) -> Kill {
        let counted = Kill::default();
        let (counter, bell) = (counted.count.clone(), counted.bell.clone());
        self.server.intercept(move |request| {
            if &*request.user != "operator" || request.verb == Verb::Watch {
                return Fault::None;
            }
            let bell = bell.clone();
            let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
            if Some(number) == kill { Fault::CrashAfter(Arc::new(move || bell.notify_one())) } else { Fault::None }
        });
        counted
    }
}
