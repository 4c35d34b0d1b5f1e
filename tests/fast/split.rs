//! Proof of the split, on calls of the simulated world.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::json;
use voicerollout::api::proof::SplitVerdict;
use voicerollout::api::status::Phase;
use voicerollout::core::gates::calls::{PodSample, Snapshot};
use voicerollout::operator::clock::Clock;
use voicerollout::sim::WorldConfig;
use voicerollout::sim::world::{CallBook, Callers, KnownCallers};
use voicerollout::sources::{Progress, Request, Source, SourceError};

use crate::cluster::{self, Cluster};

/// A Prometheus that has the calls of the world, scraped just now.
struct Counting {
    calls: CallBook,
    clock: Clock,
}

impl Source for Counting {
    fn start<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Progress, SourceError>> {
        let now = self.clock.now();
        let mut seen = Snapshot { at: now.as_second(), ..Snapshot::default() };
        for (pod, revision, calls) in self.calls.by_pod(&request.namespace) {
            let canary = revision == request.revision;
            if canary || revision == request.stable_revision {
                seen.pods.push(PodSample { pod, canary, scraped: now.as_second() as f64, counts: vec![Some(calls)] });
            }
        }
        Box::pin(std::future::ready(if request.gate.split.is_some() {
            Ok(Progress::Counted(seen))
        } else {
            Err(SourceError::new("only started calls are counted here"))
        }))
    }

    fn poll<'a>(&'a self, _: &'a Request, _: &'a str) -> BoxFuture<'a, Result<Progress, SourceError>> {
        Box::pin(std::future::ready(Err(SourceError::new("nothing runs for long"))))
    }

    fn cancel<'a>(&'a self, _: &'a Request, _: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// [`cluster::AGENT`] with a proof, and `more` http routes that only stable answers.
fn manifests(stickiness: &str, more: &str) -> String {
    let proof = "    proof:\n      prometheus: {address: \"http://prometheus.monitoring:9090\", scrapeInterval: 15s}\n      started: voice_calls_started_total\n      interval: 15s\n";
    let steps = "  steps:\n    - setWeight: 25\n    - pause: {duration: 6m}\n    - setWeight: 50\n    - pause: {duration: 6m}\n";
    let head = cluster::AGENT.split("  steps:").next().expect("a manifest");
    let head = head.replacen("          weight: 0\n", &format!("          weight: 0\n{more}"), 1);
    format!("{head}{stickiness}{proof}{steps}")
}

async fn releasing(manifests: &str, known: Option<KnownCallers>) -> (Cluster, Option<String>) {
    let callers = Callers { every: Duration::from_millis(500), known, ..Callers::default() };
    let config = WorldConfig { callers: Some(callers), ..WorldConfig::default() };
    let cluster = Cluster::start_on(config, |_, world, clock| Arc::new(Counting { calls: world.call_book(), clock: clock.clone() })).await;
    cluster.apply(manifests).await;
    let first = cluster.wait_phase("agent", Phase::Healthy).await.stable_revision;
    cluster.set_image("agent", "agent:v2").await;
    (cluster, first)
}

#[tokio::test(start_paused = true)]
async fn a_weight_that_is_kept_is_seen_and_said_and_the_release_goes_on() {
    let (mut cluster, first) = releasing(&manifests("", ""), None).await;
    let seen =
        cluster.wait("agent", "seen at 25 %", |s| s.weights.observed.as_ref().is_some_and(|o| o.verdict == SplitVerdict::Agrees)).await;
    let observed = seen.weights.observed.expect("seen");
    assert!(observed.weight == 25 && observed.total >= 30 && observed.message.contains("the weight is 25 %"), "{observed:?}");
    assert!(voicerollout::api::conditions::is_true(&seen.conditions, "SplitObserved"), "{:?}", seen.conditions);
    // Another process goes on from what is written.
    cluster.restart_operator().await;
    let later = cluster
        .wait("agent", "more calls", |s| s.weights.observed.as_ref().is_some_and(|o| o.weight == 25 && o.total > observed.total))
        .await;
    assert_eq!(later.weights.observed.as_ref().map(|o| (o.number, o.before)), Some((1, observed.before)));
    cluster
        .wait("agent", "seen at 50 %", |s| {
            s.weights.observed.as_ref().is_some_and(|o| (o.weight, o.number, o.verdict) == (50, 2, SplitVerdict::Agrees))
        })
        .await;
    let done = cluster.wait("agent", "promoted", |s| s.phase == Phase::Healthy && s.stable_revision != first).await;
    assert!(done.decisions.iter().all(|d| d.decision != "SplitDiffers"), "{:?}", done.decisions);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_nobody_manages_is_found_by_its_calls_and_holds_the_step() {
    let forgotten = "    - name: forgotten\n      route:\n        - {destination: {host: agent-stable}, weight: 100}\n        - {destination: {host: agent-canary}, weight: 0}\n";
    let (cluster, first) = releasing(&manifests("", forgotten), None).await;
    let held = cluster.wait("agent", "held", |s| s.phase == Phase::Paused).await;
    assert_eq!((held.weights.applied, held.abort), (25, None));
    assert!(held.waiting_for.contains("observed-split") && held.waiting_for.contains("began on the canary"), "{}", held.waiting_for);
    assert!(
        held.conditions.iter().any(|c| c.type_ == "SplitObserved" && c.status == "False" && c.reason == "Differs"),
        "{:?}",
        held.conditions
    );
    tokio::time::sleep(Duration::from_secs(1800)).await;
    assert_eq!((cluster.status("agent").await.weights.applied, cluster.status("agent").await.phase), (25, Phase::Paused));
    // Somebody manages it: the weight stands anew, and so does what is counted.
    let patch = json!([{"op": "replace", "path": "/spec/traffic/istio/virtualServices/0/routes", "value": ["primary", "forgotten"]}]);
    let patch: json_patch::Patch = serde_json::from_value(patch).expect("a patch");
    cluster.rollouts().patch("agent", &Default::default(), &kube::api::Patch::Json::<()>(patch)).await.expect("patched");
    let done = cluster.wait("agent", "promoted", |s| s.phase == Phase::Healthy && s.stable_revision != first).await;
    assert_eq!(done.decisions.iter().filter(|d| d.decision == "SplitDiffers").count(), 1, "{:?}", done.decisions);
}

#[tokio::test(start_paused = true)]
async fn buckets_share_as_the_weight_says_within_what_is_tolerated() {
    let known = KnownCallers { count: 400, buckets: 100, header: "x-voice-bucket".into() };
    let stickiness = "      stickiness: {headerBuckets: {header: x-voice-bucket}}\n";
    let (cluster, first) = releasing(&manifests(stickiness, ""), Some(known)).await;
    let done = cluster.wait("agent", "promoted", |s| s.phase == Phase::Healthy && s.stable_revision != first).await;
    assert!(done.decisions.iter().all(|d| d.decision != "SplitDiffers"), "{:?}", done.decisions);
    assert!(cluster.world.violations().is_empty(), "{:?}", cluster.world.violations());
}
