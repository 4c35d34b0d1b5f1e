//! Traces of whole releases, as the two controllers tell them.

use std::collections::BTreeSet;

use serde_json::json;
use voicerollout::api::status::Phase;
use voicerollout::core::spans::Span;
use voicerollout::sources::Progress;

use crate::cluster::script::{Script, good};
use crate::cluster::{Cluster, deployed};

fn told(cluster: &Cluster) -> Vec<Span> {
    let mut batches = cluster.spans.lock();
    std::iter::from_fn(|| batches.try_recv().ok())
        .flat_map(|batch| {
            assert_eq!(batch.namespace, "voice");
            batch.spans
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_is_one_trace_from_the_root_to_the_measurement_that_failed() {
    let script = Script::good();
    let cluster = deployed(&script).await;
    let deployment = told(&cluster);
    assert_eq!(deployment.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["release"]);
    script.say(|r| if r.gate.name == "p95-first-token" { Ok(Progress::Value(json!(1234.5))) } else { good(r) });
    cluster.set_image("agent", "agent:v2").await;
    let status = cluster.wait_phase("agent", Phase::Degraded).await;
    let spans = told(&cluster);
    let traces: BTreeSet<_> = spans.iter().map(|s| s.place.trace).collect();
    let ids: BTreeSet<_> = spans.iter().map(|s| s.place.span).collect();
    assert_eq!((traces.len(), ids.len()), (1, spans.len()), "{spans:#?}");
    let parent = |span: &Span| spans.iter().find(|s| Some(s.place.span) == span.parent);
    let gate = spans.iter().find(|s| s.text("voicerollout.gate") == "p95-first-token" && s.name == "gate").expect("the gate");
    assert!(gate.failed.as_ref().expect("it failed").contains("1234.5"), "{gate:#?}");
    let run = parent(gate).expect("its run");
    let step = parent(run).expect("the step of the run");
    let root = parent(step).expect("the release");
    assert_eq!((run.name.as_str(), step.name.as_str(), root.name.as_str()), ("step analysis", "analysis", "release"));
    assert_eq!(root.parent, None);
    assert_eq!(root.failed, status.abort.map(|a| a.reason));
    assert!(spans.iter().all(|s| s.parent.is_none() || parent(s).is_some()), "{spans:#?}");
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_is_killed_in_mid_release_goes_on_with_the_same_trace() {
    let mut cluster = deployed(&Script::good()).await;
    let first = cluster.status("agent").await.stable_revision;
    cluster.set_image("agent", "agent:v2").await;
    cluster.wait("agent", "half way", |s| s.weights.applied == 25).await;
    cluster.restart_operator().await;
    cluster.wait("agent", "promoted", |s| s.phase == Phase::Healthy && s.stable_revision != first).await;
    let spans = told(&cluster);
    let root = spans.iter().rfind(|s| s.parent.is_none()).expect("a root");
    assert_eq!(root.text("voicerollout.outcome"), "promoted");
    let of_it: Vec<&Span> = spans.iter().filter(|s| s.place.trace == root.place.trace).collect();
    assert_eq!(of_it.iter().filter(|s| s.parent == Some(root.place.span)).count(), 10, "a span for each step: {of_it:#?}");
    assert_eq!(of_it.iter().filter(|s| s.name == "gate").count(), 9, "three gates at three steps");
}
