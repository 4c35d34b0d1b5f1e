//! Workers that pull their jobs, in virtual time: calls are dispatched over those that run, as LiveKit does, and a worker
//! that is told to end goes on with those it has.

use std::time::Duration;

use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use voicerollout::api::status::Phase;
use voicerollout::api::{VoiceRollout, VoiceRolloutStatus};
use voicerollout::sim::world::WorldConfig;

use crate::binomial::likely;
use crate::cluster::Cluster;
use crate::cluster::calls::{callers, cut, deployed, draining, told_cut};

/// Nothing but workers: no Service, no route.
const WORKERS: &str = r#"
apiVersion: voicerollout.dev/v1alpha1
kind: VoiceRollout
metadata: {name: agent, namespace: voice}
spec:
  replicas: 4
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 3660
      containers: [{name: agent, image: "agent:v1"}]
  traffic: {replicas: {}}
  sessions: {activeCalls: {http: {}}, interval: 5s}
  steps:
    - setWeight: 25
    - pause: {duration: 5m}
    - setWeight: 50
    - pause: {duration: 5m}
    - setWeight: 100
"#;

fn started(cluster: &Cluster, revision: &str) -> u64 {
    cluster.world.calls().get(revision).map_or(0, |c| c.started)
}

/// Calls that begin within `time`: of a revision, and all.
async fn shared(cluster: &Cluster, revision: &str, time: Duration) -> (u64, u32) {
    cluster.world.reset_calls();
    tokio::time::sleep(time).await;
    let all: u64 = cluster.world.calls().values().map(|c| c.started).sum();
    (started(cluster, revision), u32::try_from(all).expect("few calls"))
}

#[tokio::test(start_paused = true)]
async fn calls_follow_the_number_of_workers_and_none_is_cut() {
    let mut cluster = deployed(WORKERS, callers(1, 20, 120)).await;
    let first = cluster.status("agent").await.stable_revision.unwrap();
    cluster.set_image("agent", "agent:v2").await;
    for (asked, canary, percent) in [(25, 1, 20), (50, 4, 50)] {
        let there = |s: &VoiceRolloutStatus| s.weights.desired == asked && s.step.weight_since.is_some();
        let status = cluster.wait("agent", &format!("at step weight {asked}"), there).await;
        let second = status.canary_revision.clone().unwrap();
        let sizes = |hash: &str| status.revisions.iter().find(|r| r.hash == hash).map(|r| r.replicas);
        assert_eq!((sizes(&first), sizes(&second), status.weights.applied), (Some(4), Some(canary), percent), "{status:#?}");
        let (of, all) = shared(&cluster, &second, Duration::from_secs(280)).await;
        let expected = likely(all, f64::from(canary) / f64::from(canary + 4), 1e-6);
        assert!(all > 200 && expected.contains(&of), "{of} of {all} at {percent} %: {expected:?}");
    }
    let done = cluster.wait("agent", "promoted", |s| s.phase == Phase::Healthy).await;
    assert_eq!((draining(&done), cluster.status("agent").await.weights.applied), (1, 0), "calls of version 1 go on: {done:#?}");
    let (of, all) = shared(&cluster, &first, Duration::from_secs(30)).await;
    assert!(of == 0 && all > 10, "workers that end take no new calls: {of} of {all}");

    // An abort, a restart, another attempt, and a version that supersedes it in the middle.
    cluster.set_image("agent", "agent:v3").await;
    cluster.wait("agent", "half", |s| s.weights.applied == 50).await;
    cluster.act("agent", "abort").await;
    let status = cluster.wait_phase("agent", Phase::Degraded).await;
    let (of, all) = shared(&cluster, status.canary_revision.as_deref().unwrap(), Duration::from_secs(30)).await;
    assert!(of == 0 && all > 10, "{of} of {all}");
    cluster.restart_operator().await;
    cluster.act("agent", "retry").await;
    cluster.wait("agent", "half again", |s| s.weights.applied == 50).await;
    let before = cluster.status("agent").await.stable_revision;
    cluster.set_image("agent", "agent:v4").await;
    cluster.wait("agent", "at the first step", |s| s.weights.desired == 25 && s.step.weight_since.is_some()).await;
    cluster.restart_operator().await;
    cluster.wait("agent", "promoted", |s| s.phase == Phase::Healthy && s.stable_revision != before).await;
    // Fewer workers of stable: idle ones go.
    cluster.edit("agent", json!([{"op": "replace", "path": "/spec/replicas", "value": 2}])).await;
    let done = cluster.wait("agent", "drained", |s| draining(s) == 0 && s.replicas == 2).await;
    assert_eq!((cut(&cluster), told_cut(&done)), (0, 0), "{:?}\n{done:#?}", cluster.world.calls());
    assert!(cluster.world.violations().is_empty(), "{:?}", cluster.world.violations());
    assert_eq!(cluster.server.peek_all("poddisruptionbudgets", Some("voice")).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn calls_that_outlive_the_grace_period_are_cut_and_counted_exactly() {
    let manifest = WORKERS.replace("terminationGracePeriodSeconds: 3660", "terminationGracePeriodSeconds: 60");
    let cluster = deployed(&manifest, callers(6, 900, 1200)).await;
    let found = cluster.status("agent").await.preflight;
    assert!(found.len() == 1 && found[0].code == "GracePeriodTooShort" && found[0].sentence.contains("drained by ending"), "{found:?}");
    cluster.set_image("agent", "agent:v2").await;
    cluster.wait("agent", "half", |s| s.weights.applied == 50).await;
    cluster.act("agent", "abort").await;
    let done = cluster.wait("agent", "drained", |s| s.phase == Phase::Degraded && draining(s) == 0 && told_cut(s) > 0).await;
    let cut = cut(&cluster);
    assert!(cut > 0);
    assert_eq!(u64::try_from(told_cut(&done)).unwrap(), cut, "{done:#?}");
    let text = cluster.metrics.encode().unwrap();
    assert!(text.contains(&format!("voicerollout_calls_cut_total{{namespace=\"voice\",rollout=\"agent\"}} {cut}\n")), "{text}");
    assert!(done.decisions.iter().any(|d| d.decision == "CallsCut"), "{done:#?}");
}

/// Aborts a release at half of the calls and kills the operator after its `kill`-th request from then on, `None` for never.
/// Gives the pods of both revisions, and the number of the operator's requests.
async fn abort(kill: Option<u64>) -> (Vec<i32>, u64) {
    let mut cluster = deployed(WORKERS, WorldConfig::default()).await;
    cluster.set_image("agent", "agent:v2").await;
    cluster.wait("agent", "half", |s| s.weights.applied == 50).await;
    let killed = cluster.kill_after(kill);
    cluster.act("agent", "abort").await;
    let end = |s: &VoiceRolloutStatus| s.phase == Phase::Degraded && draining(s) == 0;
    let status = tokio::select! {
        status = cluster.wait("agent", "aborted", end) => status,
        () = killed.struck() => {
            cluster.restart_operator().await;
            cluster.wait("agent", "aborted", end).await
        }
    };
    assert_eq!(killed.was_struck(), kill.is_some(), "request {kill:?}");
    (status.revisions.iter().map(|r| r.replicas).collect(), killed.requests())
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_the_workers_whenever_the_operator_is_killed() {
    let (undisturbed, requests) = abort(None).await;
    assert_eq!(undisturbed, [0, 4]);
    assert!(requests > 2, "{requests} requests");
    for kill in 1..=requests {
        assert_eq!(abort(Some(kill)).await.0, undisturbed, "killed after request {kill} of {requests}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_ways_to_split_the_same_calls_are_refused() {
    let cluster = Cluster::start().await;
    let both = "traffic: {replicas: {}, istio: {stableService: a, canaryService: b, virtualServices: [{name: v}]}}";
    let proof = "traffic: {replicas: {}, proof: {prometheus: {address: \"http://p\"}, started: s}}";
    for (traffic, message) in [(both, "exactly one of istio"), ("traffic: {}", "exactly one of istio"), (proof, "leave it out")] {
        let text = WORKERS.replace("traffic: {replicas: {}}", traffic);
        let rollout: VoiceRollout = serde_yaml::from_str(&text).unwrap();
        let api: Api<VoiceRollout> = cluster.rollouts();
        let refused = api.create(&PostParams::default(), &rollout).await.expect_err("refused").to_string();
        assert!(refused.contains("spec.traffic") && refused.contains(message), "{refused}");
    }
    let keep = WORKERS.replace("  steps:", "  drain: {onMaxDrain: Keep}\n  steps:\n    - setCanaryScale: {replicas: 1}");
    cluster.apply(&keep).await;
    let told = cluster.wait_phase("agent", Phase::Invalid).await;
    let condition = told.conditions.iter().find(|c| c.type_ == "InvalidSpec").unwrap();
    for part in ["spec.drain.onMaxDrain: Keep is not possible", "spec.steps[0].setCanaryScale: with traffic.replicas"] {
        assert!(condition.message.contains(part), "{}", condition.message);
    }
}
