//! Live calls over promotions, aborts, new versions, smaller sizes and restarts, in virtual time: none is cut before
//! `drain.maxDrain`, and those that are cut are counted.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use voicerollout::api::VoiceRolloutStatus;
use voicerollout::api::common::MARK_ANNOTATION;
use voicerollout::api::status::{Phase, Role};
use voicerollout::sim::world::WorldConfig;
use voicerollout::sources::calls::{CallCounter, CallsQuestion, PodAddress};

use crate::cluster::calls::{self, callers, cut, draining, told_cut};
use crate::cluster::{AGENT, Cluster};

/// Reads live calls as a LiveKit worker tells them.
const SESSIONS: &str = "  sessions: {activeCalls: {http: {}}, interval: 5s}\n";

fn agent(drain: &str) -> String {
    let (head, steps) = AGENT.split_once("  steps:").expect("steps");
    format!("{head}{SESSIONS}  drain: {drain}\n  steps:{steps}")
}

async fn deployed(drain: &str, config: WorldConfig) -> Cluster {
    calls::deployed(&agent(drain), config).await
}

async fn promoted(cluster: &Cluster, image: &str) -> VoiceRolloutStatus {
    let before = cluster.status("agent").await.stable_revision;
    cluster.set_image("agent", image).await;
    cluster.wait("agent", "promoted", |s| s.phase == Phase::Healthy && s.stable_revision != before).await
}

#[tokio::test(start_paused = true)]
async fn no_call_is_cut_by_promotions_aborts_new_versions_smaller_sizes_and_restarts() {
    let mut cluster = deployed("{zeroFor: 10s}", callers(6, 20, 240)).await;
    let status = promoted(&cluster, "agent:v2").await;
    assert_eq!(draining(&status), 1, "calls of version 1 go on: {status:#?}");
    cluster.set_image("agent", "agent:v3").await;
    cluster.wait("agent", "at 25 %", |s| s.weights.applied == 25).await;
    cluster.act("agent", "abort").await;
    cluster.wait_phase("agent", Phase::Degraded).await;
    cluster.restart_operator().await;
    cluster.act("agent", "retry").await;
    cluster.wait("agent", "at 50 %", |s| s.weights.applied == 50).await;
    // Another version in the middle of it.
    let status = promoted(&cluster, "agent:v4").await;
    assert!(status.live_calls.contains('v'), "{status:#?}");
    cluster.edit("agent", json!([{"op": "replace", "path": "/spec/replicas", "value": 2}])).await;
    cluster.restart_operator().await;
    let done = cluster.wait("agent", "drained", |s| draining(s) == 0 && s.replicas == 2).await;
    assert_eq!((cut(&cluster), told_cut(&done)), (0, 0), "{:?}", cluster.world.calls());
    assert!(cluster.world.violations().is_empty(), "{:?}", cluster.world.violations());
    // It goes with the last pod.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(cluster.server.peek_all("poddisruptionbudgets", Some("voice")).len(), 0);
}

/// Pods, and how many calls each carries.
async fn calls_of_pods(cluster: &Cluster) -> Vec<(String, u64)> {
    let pods = cluster.server.peek_all("pods", Some("voice"));
    let names: Vec<String> = pods.iter().map(|p| p["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect();
    let question = CallsQuestion {
        namespace: "voice".into(),
        rollout: "agent".into(),
        active: serde_json::from_value(json!({"http": {}})).expect("settings"),
        pods: names.into_iter().map(|name| PodAddress { name, ip: None }).collect(),
    };
    let readings = cluster.world.call_book().count(&question).await;
    readings.into_iter().map(|(name, calls)| (name, calls.unwrap_or(0))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_stable_at_rest_that_gets_smaller_gives_up_those_that_do_not_talk() {
    let cluster = deployed("{zeroFor: 10s}", callers(500, 4000, 5000)).await;
    // Long after the deployment: calls are read now and then only.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let talking = loop {
        tokio::time::sleep(Duration::from_secs(17)).await;
        let all = calls_of_pods(&cluster).await;
        let talking: Vec<String> = all.iter().filter(|(_, calls)| *calls > 0).map(|(name, _)| name.clone()).collect();
        if talking.len() == 2 {
            break talking;
        }
    };
    cluster.edit("agent", json!([{"op": "replace", "path": "/spec/replicas", "value": 2}])).await;
    cluster.wait("agent", "smaller", |s| s.replicas == 2).await;
    let left: Vec<String> = calls_of_pods(&cluster).await.into_iter().map(|(name, _)| name).collect();
    assert!(talking.iter().all(|pod| left.contains(pod)), "{talking:?} of {left:?}");
    assert_eq!(cut(&cluster), 0);
}

#[tokio::test(start_paused = true)]
async fn calls_that_outlive_max_drain_are_cut_and_counted_exactly() {
    let cluster = deployed("{maxDrain: 2m, zeroFor: 10s}", callers(6, 600, 900)).await;
    let status = promoted(&cluster, "agent:v2").await;
    assert_eq!(draining(&status), 1);
    let done = cluster.wait("agent", "drained", |s| draining(s) == 0 && told_cut(s) > 0).await;
    let cut = cut(&cluster);
    assert!(cut > 0);
    assert_eq!(u64::try_from(told_cut(&done)).unwrap(), cut, "{done:#?}");
    let text = cluster.metrics.encode().unwrap();
    assert!(text.contains(&format!("voicerollout_calls_cut_total{{namespace=\"voice\",rollout=\"agent\"}} {cut}\n")), "{text}");
    let records: Vec<&str> = done.decisions.iter().map(|d| d.decision.as_str()).collect();
    assert!(records.contains(&"DrainOverdue") && records.contains(&"CallsCut"), "{records:?}");
}

#[tokio::test(start_paused = true)]
async fn pods_whose_gauge_disappears_stay_until_it_is_back() {
    let cluster = deployed("{zeroFor: 10s}", callers(6, 20, 60)).await;
    let status = promoted(&cluster, "agent:v2").await;
    let old = status.revisions.iter().find(|r| r.role == Role::Draining).unwrap().hash.clone();
    cluster.gauges.silence(Some(&old));
    tokio::time::sleep(Duration::from_secs(1800)).await;
    let status = cluster.status("agent").await;
    let revision = status.revisions.iter().find(|r| r.hash == old).unwrap();
    assert_eq!((revision.role, revision.unread_pods > 0), (Role::Draining, true), "{status:#?}");
    let readable = status.conditions.iter().find(|c| c.type_ == "CallsReadable").unwrap();
    assert!(readable.status == "False" && readable.message.contains("no answer"), "{readable:?}");
    cluster.gauges.silence(None);
    cluster.wait("agent", "drained", |s| draining(s) == 0).await;
    assert_eq!(cut(&cluster), 0);
}

#[tokio::test(start_paused = true)]
async fn three_revisions_live_at_once_and_a_fourth_waits() {
    let cluster = deployed("{zeroFor: 10s}", callers(6, 1200, 2400)).await;
    promoted(&cluster, "agent:v2").await;
    promoted(&cluster, "agent:v3").await;
    cluster.set_image("agent", "agent:v4").await;
    let waits = cluster.wait("agent", "full", |s| s.waiting_for.contains("maxLiveRevisions")).await;
    assert_eq!(waits.revisions.iter().filter(|r| r.replicas > 0).count(), 3, "{waits:#?}");
    let done = cluster.wait("agent", "promoted", |s| s.phase == Phase::Healthy).await;
    cluster.wait("agent", "drained", |s| draining(s) == 0).await;
    assert_eq!((cut(&cluster), told_cut(&done)), (0, 0));
}

/// Name of the ReplicaSet of the revision that drains.
async fn draining_set(cluster: &Cluster) -> String {
    let status = cluster.status("agent").await;
    let revision = status.revisions.iter().find(|r| r.role == Role::Draining).expect("one drains");
    format!("agent-{}", revision.hash)
}

/// As somebody who is not the operator.
async fn resize(cluster: &Cluster, set: &str, replicas: usize) {
    let api: Api<ReplicaSet> = Api::namespaced(cluster.client.clone(), "voice");
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    api.patch_scale(set, &PatchParams::default(), &patch).await.expect("scaled");
}

/// Pods of a ReplicaSet that are not asked to end: those marked as busy, and all.
fn pods(cluster: &Cluster, set: &str) -> (usize, usize) {
    let all = cluster.server.peek_all("pods", Some("voice"));
    let here = |p: &&Arc<Value>| p["metadata"]["ownerReferences"][0]["name"] == set && p["metadata"]["deletionTimestamp"].is_null();
    let here: Vec<_> = all.iter().filter(here).collect();
    (here.iter().filter(|p| p["metadata"]["annotations"][MARK_ANNOTATION] == "busy").count(), here.len())
}

#[tokio::test(start_paused = true)]
async fn somebody_else_changes_the_size_of_a_draining_revision() {
    let cluster = deployed("{zeroFor: 5m}", callers(60, 300, 1500)).await;
    promoted(&cluster, "agent:v2").await;
    let set = draining_set(&cluster).await;
    let busy = loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (busy, all) = pods(&cluster, &set);
        if busy > 0 && busy < all {
            break busy;
        }
        assert!(all > 0, "no pod was quiet while another one talked");
    };
    resize(&cluster, &set, busy).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((pods(&cluster, &set).1, cut(&cluster)), (busy, 0), "those that talk stay");
    resize(&cluster, &set, busy + 3).await;
    let done = cluster.wait("agent", "drained", |s| draining(s) == 0).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((cut(&cluster), told_cut(&done), pods(&cluster, &set).1), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn calls_that_end_because_somebody_else_made_a_draining_revision_smaller_are_counted_and_told() {
    let cluster = deployed("{zeroFor: 10s}", callers(6, 600, 900)).await;
    promoted(&cluster, "agent:v2").await;
    resize(&cluster, &draining_set(&cluster).await, 1).await;
    let done = cluster.wait("agent", "drained", |s| draining(s) == 0 && told_cut(s) > 0).await;
    assert!(cut(&cluster) > 0);
    assert_eq!(u64::try_from(told_cut(&done)).unwrap(), cut(&cluster), "{done:#?}");
    assert!(done.decisions.iter().any(|d| d.decision == "CallsCut"), "{:?}", done.decisions);
}

#[tokio::test(start_paused = true)]
async fn somebody_else_makes_stable_smaller() {
    let cluster = deployed("{zeroFor: 10s}", callers(60, 20, 60)).await;
    let stable = cluster.status("agent").await.stable_revision.expect("one");
    resize(&cluster, &format!("agent-{stable}"), 1).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let status = cluster.status("agent").await;
    assert_eq!((pods(&cluster, &format!("agent-{stable}")).1, status.phase), (4, Phase::Healthy), "{status:#?}");
}
