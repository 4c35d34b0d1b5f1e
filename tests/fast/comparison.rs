//! Gates that count calls, on calls of the simulated world: a release that is as good as the last one reaches everybody, a
//! slow one is taken back, and a process that dies counts no call twice.

use std::sync::Arc;

use kube::Api;
use kube::api::ListParams;
use voicerollout::api::run::{RunKind, Verdict};
use voicerollout::api::status::{GateSummary, Phase};
use voicerollout::api::{VoiceAnalysisRun, VoiceRolloutStatus};
use voicerollout::sim::{Scenario, ScenarioSources};

use crate::cluster::Cluster;

/// The built-in scenario, with its first release deployed. `hasty` gates count from a pod's first call on.
async fn deployed(hasty: bool) -> (Cluster, Arc<ScenarioSources>) {
    let scenario = Scenario::built_in().unwrap().into_iter().find(|s| s.name == "comparison").unwrap();
    let scenario = Arc::new(scenario);
    let mut made = None;
    let cluster = Cluster::start_on(scenario.world_config(), |server, world, clock| {
        let sources = ScenarioSources::new(scenario.clone(), server.clone(), clock.clone()).counting(world.call_book());
        made.insert(Arc::new(sources)).clone()
    })
    .await;
    let mut rollout = scenario.rollout_for(&scenario.releases[0]);
    if hasty {
        let gates = rollout["spec"]["analysis"]["gates"].as_array_mut().unwrap();
        for gate in gates.iter_mut().flat_map(|g| g.as_object_mut().unwrap().values_mut()).filter(|v| v.get("prometheus").is_some()) {
            (gate["warmup"], gate["interval"]) = ("0s".into(), "15s".into());
        }
    }
    for mut manifest in scenario.manifests.iter().cloned().chain([rollout]) {
        manifest["metadata"]["namespace"] = "voice".into();
        cluster.apply(&manifest.to_string()).await;
    }
    cluster.wait_phase("voice-agent", Phase::Healthy).await;
    (cluster, made.unwrap())
}

async fn runs(cluster: &Cluster) -> Vec<VoiceAnalysisRun> {
    let api: Api<VoiceAnalysisRun> = Api::namespaced(cluster.client.clone(), "voice");
    api.list(&ListParams::default()).await.unwrap().items
}

fn gate<'a>(status: &'a VoiceRolloutStatus, name: &str) -> &'a GateSummary {
    status.gates.iter().find(|g| g.name == name && g.kind == RunKind::Background).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_release_that_is_as_good_is_promoted_and_a_slow_one_is_taken_back() {
    let (cluster, _) = deployed(false).await;
    let first = cluster.status("voice-agent").await.stable_revision;
    cluster.set_image("voice-agent", "ghcr.io/acme/voice-agent:v2").await;
    let done = cluster.wait("voice-agent", "promoted", |s| s.phase == Phase::Healthy && s.stable_revision != first).await;
    assert_eq!((gate(&done, "first-token").verdict, gate(&done, "slo").verdict), (Some(Verdict::Pass), Some(Verdict::Pass)));

    cluster.set_image("voice-agent", "ghcr.io/acme/voice-agent:v3").await;
    let told = cluster.wait("voice-agent", "aborted", |s| s.abort.is_some()).await;
    let abort = told.abort.unwrap();
    assert_eq!((abort.gate.as_deref(), abort.weight), (Some("first-token"), 5), "{}", abort.reason);
    assert!(abort.reason.contains(" canary calls, ") && abort.reason.contains("; evidence "), "{}", abort.reason);
    let back = cluster.wait_phase("voice-agent", Phase::Degraded).await;
    assert_eq!((back.weights.applied, back.stable_revision), (0, done.stable_revision));
    assert!(cluster.world.violations().is_empty(), "{:?}", cluster.world.violations());
}

/// Plays the slow release and kills the operator after its `kill`-th request. Gives the number of requests.
async fn slow_release(kill: Option<u64>) -> u64 {
    let (mut cluster, sources) = deployed(true).await;
    let killed = cluster.kill_after(kill);
    cluster.set_image("voice-agent", "ghcr.io/acme/voice-agent:v3").await;
    let ended = |s: &VoiceRolloutStatus| s.phase == Phase::Degraded;
    let end = tokio::select! {
        status = cluster.wait("voice-agent", "taken back", ended) => Some(status),
        () = killed.struck() => None,
    };
    let end = match end {
        Some(end) => end,
        None => {
            cluster.restart_operator().await;
            cluster.wait("voice-agent", "taken back", ended).await
        }
    };
    assert_eq!(killed.was_struck(), kill.is_some(), "request {kill:?}");
    let decided = end.abort.as_ref().and_then(|a| a.gate.as_deref());
    assert_eq!((decided, end.weights.applied), (Some("first-token"), 0), "killed after request {kill:?}");
    // Every call of the canary was answered before it could be counted, and was counted once.
    let calls = cluster.world.calls();
    for run in runs(&cluster).await {
        for gate in run.status.iter().flat_map(|s| &s.gates) {
            let counted = gate.comparison.as_ref().map_or(0, |c| c.canary.calls);
            let answered = calls.get(&run.spec.revision).map_or(0, |c| c.started);
            assert!(u64::try_from(counted).unwrap() <= answered, "killed after request {kill:?}: {counted} of {answered}");
            assert!(counted > 0 || gate.name != "first-token", "killed after request {kill:?}: nothing was counted");
        }
    }
    let asked = sources.measured();
    assert!(asked.values().all(|m| m.times <= 2), "killed after request {kill:?}: a key was asked for again and again");
    killed.requests()
}

#[tokio::test(start_paused = true)]
async fn a_slow_release_ends_the_same_whenever_the_operator_is_killed() {
    let requests = slow_release(None).await;
    assert!(requests > 20, "{requests} requests");
    // Every fourth, and with VOICEROLLOUT_EVERY_KILL every single one.
    let stride = if std::env::var_os("VOICEROLLOUT_EVERY_KILL").is_some() { 1 } else { 4 };
    for kill in (1..=requests).step_by(stride) {
        slow_release(Some(kill)).await;
    }
}
