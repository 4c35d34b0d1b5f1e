//! The operator's process ends after every single API request of a release: the end is the same, and no measurement is
//! started under two keys.

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use voicerollout::api::VoiceAnalysisRun;
use voicerollout::api::status::Phase;

use crate::cluster::script::{Script, good, judged};
use crate::cluster::{Cluster, GATES, deployed_from};
use serde_json::json;
use voicerollout::api::judge::Vote;
use voicerollout::sources::Progress;

/// What a release ended as.
#[derive(Debug, PartialEq)]
struct End {
    phase: Phase,
    promoted: bool,
    weight: i32,
    gate: Option<String>,
    measurements: usize,
    explanation: Option<String>,
    /// What each of the release's runs has taken from the judge's budget: verdicts, by name of the run.
    charged: Vec<(String, i32)>,
}

/// Plays one release of `manifests` and kills the operator after its `kill`-th request, `None` for never. Gives the end and
/// the number of the operator's requests.
async fn play(script: &Script, manifests: &str, kill: Option<u64>) -> (End, u64) {
    let mut cluster = deployed_from(script, manifests).await;
    let explained = manifests.contains("explainAborts");
    let first = cluster.status("agent").await.stable_revision;
    let killed = cluster.kill_after(kill);
    cluster.set_image("agent", "agent:v2").await;
    let status = tokio::select! {
        status = end(&cluster, explained) => status,
        () = killed.struck() => {
            cluster.restart_operator().await;
            end(&cluster, explained).await
        }
    };
    assert_eq!(killed.was_struck(), kill.is_some(), "request {kill:?}");
    assert!(cluster.world.violations().is_empty(), "killed after request {kill:?}: {:?}", cluster.world.violations());
    let end = End {
        phase: status.phase,
        promoted: status.stable_revision != first,
        weight: status.weights.applied,
        gate: status.abort.as_ref().and_then(|a| a.gate.clone()),
        measurements: script.starts().len(),
        explanation: status.abort.and_then(|a| a.explanation),
        charged: charged(&cluster).await,
    };
    (end, killed.requests())
}

/// Waits for the end of the release; with `explained` an abort is not the end before a judge has spoken.
async fn end(cluster: &Cluster, explained: bool) -> voicerollout::api::VoiceRolloutStatus {
    let generation = cluster.rollouts().get("agent").await.expect("there").metadata.generation;
    let is_end = move |s: &voicerollout::api::VoiceRolloutStatus| match s.phase {
        Phase::Healthy => true,
        Phase::Degraded => !explained || s.abort.as_ref().is_some_and(|a| a.explanation.is_some()),
        _ => false,
    };
    cluster.wait("agent", "at its end", move |s| s.observed_generation == generation && is_end(s)).await
}

async fn charged(cluster: &Cluster) -> Vec<(String, i32)> {
    let runs: Api<VoiceAnalysisRun> = Api::namespaced(cluster.client.clone(), "voice");
    let runs = runs.list(&ListParams::default()).await.expect("runs");
    let spent = |r: &VoiceAnalysisRun| {
        let gates = r.status.iter().flat_map(|s| &s.gates);
        // The end of a name is a hash that holds times.
        let name = r.name_any().rsplit_once('-').map_or_else(String::new, |(name, _)| name.to_owned());
        (name, gates.filter_map(|g| g.spent).map(|s| s.verdicts).sum())
    };
    runs.iter().map(spent).collect()
}

/// Gives the end of the release, which is the same whenever the operator is killed after one of its `last` requests.
async fn sweep(manifests: &str, last: u64, script: impl Fn() -> Script) -> End {
    let (undisturbed, requests) = play(&script(), manifests, None).await;
    assert!(requests > 20, "{requests} requests");
    for kill in requests.saturating_sub(last) + 1..=requests {
        let (end, _) = play(&script(), manifests, Some(kill)).await;
        assert_eq!(end, undisturbed, "killed after request {kill} of {requests}");
    }
    undisturbed
}

#[tokio::test(start_paused = true)]
async fn a_good_release_ends_the_same_whenever_the_operator_is_killed() {
    sweep(GATES, u64::MAX, Script::good).await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_release_ends_the_same_whenever_the_operator_is_killed() {
    sweep(GATES, u64::MAX, || Script::new(|r| if r.gate.name == "p95-first-token" { Ok(Progress::Value(json!(950.0))) } else { good(r) }))
        .await;
}

/// The gate that aborts answers before the judge is ever asked; then the judge explains, under one key and for one charge.
#[tokio::test(start_paused = true)]
async fn an_abort_is_explained_once_and_charged_once_whenever_the_operator_is_killed() {
    let judge = "anthropic: {model: claude-haiku-5-5}";
    let explaining = format!("{judge}\n        explainAborts: true\n        budget: {{verdicts: 4}}");
    let manifests = GATES.replace(judge, &explaining);
    let script = || {
        Script::new(|r| match &r.explains {
            // Even a judge that says PASS changes nothing any more.
            Some(abort) => Ok(judged(Vote::Pass, &format!("tool calls doubled before {} failed", abort.gate))),
            None if r.gate.name == "p95-first-token" => Ok(Progress::Value(json!(950.0))),
            None => good(r),
        })
    };
    // What comes before the abort is as in the release above.
    let end = sweep(&manifests, 25, script).await;
    assert_eq!((end.phase, end.promoted, end.weight), (Phase::Degraded, false, 0));
    assert_eq!(end.explanation.as_deref(), Some("tool calls doubled before p95-first-token failed"));
    let why: Vec<i32> = end.charged.iter().filter(|(name, _)| name.ends_with("-why")).map(|(_, n)| *n).collect();
    assert_eq!(why, [1], "{:?}", end.charged);
}
