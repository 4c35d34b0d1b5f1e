//! Several operators, one of which leads.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use voicerollout::metrics::Metrics;
use voicerollout::operator::lease::LeaseConfig;

use super::Cluster;

/// One of several operators.
pub struct Replica {
    /// Tells it to stop, as SIGTERM does.
    pub stop: watch::Sender<bool>,
    /// Ends when it has stopped.
    pub task: JoinHandle<()>,
}

impl Cluster {
    /// Starts an operator that has to hold the Lease before it writes. Its requests are those of user `name`.
    pub async fn replica(&self, name: &str) -> Replica {
        let (replica, mut is_ready) = self.new_replica(name);
        is_ready.wait_for(|r| *r).await.expect("the operator starts");
        replica
    }

    /// [`Self::replica`], before its caches are filled.
    pub fn new_replica(&self, name: &str) -> (Replica, watch::Receiver<bool>) {
        let lease = LeaseConfig::new("voicerollout", "voicerollout", name);
        let who = (name, Some(lease));
        let (metrics, told) = (Arc::new(Metrics::new()), (self.mail.clone(), self.notifications.clone(), self.tracer.clone()));
        let (stop, task, ready) = Self::spawn(&self.server, &self.clock, who, self.sources.clone(), self.gauges.clone(), metrics, told);
        (Replica { stop, task }, ready)
    }
}
