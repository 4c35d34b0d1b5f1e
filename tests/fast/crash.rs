//! The operator's process ends after every single API request of a release: the end is the same, and no measurement is
//! started under two keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use voicerollout::api::status::Phase;
use voicerollout::sim::{Fault, Verb};

use crate::cluster::script::{Script, good};
use crate::cluster::{Cluster, deployed};
use serde_json::json;
use voicerollout::sources::Progress;

/// What a release ended as.
#[derive(Debug, PartialEq)]
struct End {
    phase: Phase,
    promoted: bool,
    weight: i32,
    gate: Option<String>,
    measurements: usize,
}

/// Plays one release and kills the operator after its `kill`-th request, `None` for never. Gives the end and the number
/// of the operator's requests.
async fn play(script: &Script, kill: Option<u64>) -> (End, u64) {
    let mut cluster = deployed(script).await;
    let first = cluster.status("agent").await.stable_revision;
    let (count, crashed) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let (counter, bell) = (count.clone(), crashed.clone());
    cluster.server.intercept(move |request| {
        if &*request.user != "operator" || request.verb == Verb::Watch {
            return Fault::None;
        }
        let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
        let bell = bell.clone();
        if Some(number) == kill { Fault::CrashAfter(Arc::new(move || bell.notify_one())) } else { Fault::None }
    });
    cluster.set_image("agent", "agent:v2").await;
    let status = tokio::select! {
        status = end(&cluster) => status,
        () = crashed.notified() => {
            cluster.restart_operator().await;
            end(&cluster).await
        }
    };
    assert!(cluster.world.violations().is_empty(), "killed after request {kill:?}: {:?}", cluster.world.violations());
    let end = End {
        phase: status.phase,
        promoted: status.stable_revision != first,
        weight: status.weights.applied,
        gate: status.abort.as_ref().and_then(|a| a.gate.clone()),
        measurements: script.starts().len(),
    };
    (end, count.load(Ordering::SeqCst))
}

async fn end(cluster: &Cluster) -> voicerollout::api::VoiceRolloutStatus {
    let generation = cluster.rollouts().get("agent").await.expect("there").metadata.generation;
    cluster
        .wait("agent", "at its end", move |s| s.observed_generation == generation && matches!(s.phase, Phase::Healthy | Phase::Degraded))
        .await
}

async fn sweep(script: impl Fn() -> Script) {
    let (undisturbed, requests) = play(&script(), None).await;
    assert!(requests > 20, "{requests} requests");
    for kill in 1..=requests {
        let (end, _) = play(&script(), Some(kill)).await;
        assert_eq!(end, undisturbed, "killed after request {kill} of {requests}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_release_ends_the_same_whenever_the_operator_is_killed() {
    sweep(Script::good).await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_release_ends_the_same_whenever_the_operator_is_killed() {
    sweep(|| Script::new(|r| if r.gate.name == "p95-first-token" { Ok(Progress::Value(json!(950.0))) } else { good(r) })).await;
}
