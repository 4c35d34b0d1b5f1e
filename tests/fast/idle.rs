//! What the operator asks of the API server when nothing happens.

use std::time::Duration;

use voicerollout::api::status::Phase;
use voicerollout::sim::Verb;

use crate::cluster::{AGENT, Cluster};

#[tokio::test(start_paused = true)]
async fn ten_idle_minutes_with_many_rollouts_cost_no_requests() {
    let count: usize = std::env::var("VOICEROLLOUT_IDLE_ROLLOUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    let cluster = Cluster::start().await;
    for i in 0..count {
        // A digit after the name keeps the label `app` of each rollout its own.
        let manifests = AGENT.replace("agent", &format!("agent{i}")).replace("replicas: 4", "replicas: 1");
        cluster.apply(&manifests).await;
    }
    for i in 0..count {
        cluster.wait_phase(&format!("agent{i}"), Phase::Healthy).await;
    }
    // What follows the last status write: events, reads of its own writes.
    tokio::time::sleep(Duration::from_secs(60)).await;
    cluster.server.clear_journal();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let busy = cluster.server.requests_where(|r| &*r.user == "operator" && r.verb != Verb::Watch);
    let list: Vec<String> = busy.iter().map(|r| r.summary()).collect();
    assert!(busy.is_empty(), "{count} rollouts: {list:?}");
}
