//! What the operator asks of the API server when nothing happens.

use std::time::Duration;

use serde_json::json;
use voicerollout::api::status::Phase;
use voicerollout::sim::{Verb, WorldConfig};
use voicerollout::sources::Progress;

use crate::cluster::script::Script;
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

/// A background gate that is measured every 30 s.
const BACKGROUND: &str = "  analysis:\n    gates:\n      - name: p95-first-token\n        threshold:\n          interval: 30s\n          successCondition: result <= 800\n          provider:\n            prometheus: {address: \"http://prometheus.monitoring:9090\", query: up}\n  steps:\n    - setWeight: 25\n    - pause: {}\n";

#[tokio::test(start_paused = true)]
async fn a_pause_with_a_passing_background_gate_writes_nothing_but_its_run() {
    let ticks = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(600));
    let script = Script::new(move |_| {
        let tick = ticks.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(Progress::Value(json!(f64::from(tick % 100) + 600.5)))
    });
    let cluster = Cluster::start_with(&script, WorldConfig::default()).await;
    let (head, _) = AGENT.split_once("  steps:").expect("steps");
    cluster.apply(&format!("{head}{BACKGROUND}")).await;
    cluster.wait_phase("agent", Phase::Healthy).await;
    cluster.set_image("agent", "agent:v2").await;
    cluster.wait_phase("agent", Phase::Paused).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    cluster.server.clear_journal();
    tokio::time::sleep(Duration::from_secs(1800)).await;
    let writes = cluster.server.requests_where(|r| &*r.user == "operator" && r.verb.is_write());
    let others: Vec<String> = writes.iter().filter(|r| r.resource != "voiceanalysisruns").map(|r| r.summary()).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(writes.len() > 30, "the gate is measured: {}", writes.len());
}
