//! Mistakes in gates and their data, in the middle of a release: the resource says what is wrong and what to do, and the
//! weight stays where it was.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use voicerollout::api::conditions::INVALID_SPEC;
use voicerollout::api::run::Verdict;
use voicerollout::api::status::{Phase, VoiceRolloutStatus};
use voicerollout::core::gates::calls::{Bucket, PodSample, Snapshot};
use voicerollout::sim::WorldConfig;
use voicerollout::sources::{Progress, Request, SourceError};

use crate::cluster::script::{self, Answer, Script};
use crate::cluster::{self, Cluster};

/// [`cluster::AGENT`] at 25 %, where it stays until somebody goes on, or until all of these background gates pass.
async fn at_25(script: &Script, gates: &[Value]) -> Cluster {
    let cluster = Cluster::start_with(script, WorldConfig::default()).await;
    cluster.apply(cluster::AGENT).await;
    cluster.wait_phase("agent", Phase::Healthy).await;
    let names: Vec<&Value> = gates.iter().map(|gate| &gate["name"]).collect();
    let spec = match gates {
        [] => json!({"steps": [{"setWeight": 25}, {"pause": {}}]}),
        _ => json!({"analysis": {"gates": gates}, "steps": [{"setWeight": 25}, {"analysis": {"require": names}}, {"setWeight": 50}]}),
    };
    let spec = json!({"spec": spec});
    cluster.rollouts().patch("agent", &PatchParams::default(), &Patch::Merge(spec)).await.expect("gates that are well written");
    cluster.set_image("agent", "agent:v2").await;
    cluster.wait("agent", "at 25 %", |s| s.weights.applied == 25 && s.step.weight_since.is_some()).await;
    cluster
}

fn with(mut gate: Value, pointer: &str, value: Value) -> Value {
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
    gate.pointer_mut(parent).expect("a parent")[last] = value;
    gate
}

fn compare(name: &str) -> Value {
    json!({"name": name, "compare": {"prometheus": {"address": "http://prometheus:9090"}, "bad": "failed_total", "total": "ended_total", "interval": "3m", "warmup": "0s"}})
}

fn histogram(name: &str, metric: &str, edge: f64) -> Value {
    json!({"name": name, "compareHistogram": {"prometheus": {"address": "http://prometheus:9090"}, "metric": metric, "edges": [edge], "interval": "3m", "warmup": "0s"}})
}

/// Refused by the API server, or by the operator with its place; in both cases the weight stays.
#[tokio::test(start_paused = true)]
async fn numbers_that_no_test_can_keep_are_named_and_hold_the_weight() {
    let cluster = at_25(&Script::good(), &[]).await;
    let of_compare = |pointer: &str, value: Value| with(compare("g"), pointer, value);
    let of_histogram = |pointer: &str, value: Value| with(histogram("g", "x_bucket", 1.0), pointer, value);
    let limit = json!({"name": "g", "absolute": {"prometheus": {"address": "http://p"}, "bad": "b", "total": "t", "maxRate": 0.2, "passIf": {"rateBelow": 0.1}}});
    let cases = [
        (of_compare("/compare/abortIf", json!({"oddsRatioAbove": 0.9})), ["compare.abortIf.oddsRatioAbove", "1"]),
        (of_compare("/compare/passIf", json!({"oddsRatioBelow": {"25": 0.8}})), ["compare.passIf.oddsRatioBelow.25", "write more than 1"]),
        (of_histogram("/compareHistogram/tolerance", json!(0.9)), ["compareHistogram.tolerance", "1"]),
        (of_histogram("/compareHistogram/passIf", json!({"slowdownBelow": {"0": 1}})), ["slowdownBelow.0", "write more than 1"]),
        (of_compare("/falseAbort", json!(0)), ["falseAbort", "0"]),
        (of_compare("/falseAbort", json!(0.5)), ["falseAbort", "0.5"]),
        (of_compare("/falseAbort", json!(0.7)), ["falseAbort", "0.5"]),
        (of_compare("/compare/falsePromote", json!(0.5)), ["compare.falsePromote", "write 0.01"]),
        (of_compare("/falseAbort", json!(0.02)), ["falseAbort", "more than spec.falseAbort 0.01"]),
        (of_compare("/compare/grid", json!([0.5])), ["compare.grid[0]", "write more than 1"]),
        (limit, ["absolute.passIf.rateBelow", "between maxRate 0.2 and 1"]),
    ];
    let mut wrong = Vec::new();
    for (gate, words) in cases {
        let change = json!({"spec": {"analysis": {"gates": [gate]}}});
        let told = match cluster.rollouts().patch("agent", &PatchParams::default(), &Patch::Merge(&change)).await {
            Err(refused) => refused.to_string(),
            Ok(applied) => {
                let seen = |s: &VoiceRolloutStatus| s.observed_generation == applied.metadata.generation;
                let status = cluster.wait("agent", "looked at", seen).await;
                assert_eq!(status.phase, Phase::Invalid, "{change}: {status:?}");
                status
                    .conditions
                    .iter()
                    .find(|c| c.type_ == INVALID_SPEC && c.status == "True")
                    .map(|c| c.message.clone())
                    .unwrap_or_default()
            }
        };
        if !words.iter().all(|word| told.contains(word)) {
            wrong.push(format!("{change}: expected {words:?} in {told:?}"));
        }
        assert_eq!(cluster.status("agent").await.weights.applied, 25);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Counters of one pod an arm, or of many; `scraped` is when the canary's were read.
fn counted(at: i64, scraped: i64, pods: usize, columns: usize, buckets: &[(f64, f64)]) -> Answer {
    let sample = |canary: bool, n: usize| PodSample {
        pod: format!("voice-agent-5d8c7b9f6-{canary}-{n:05}"),
        canary,
        scraped: if canary { scraped as f64 } else { at as f64 },
        counts: vec![Some(1_000_000 + u64::try_from(at).unwrap_or(0) % 1000); columns],
    };
    let pods = (0..pods).flat_map(|n| [true, false].map(|canary| sample(canary, n))).collect();
    let buckets = buckets.iter().map(|(bound, count)| Bucket { bound: *bound, count: *count }).collect();
    Ok(Progress::Counted(Snapshot { at, pods, buckets }))
}

/// What the providers find, in the words that they have for it.
fn found(request: &Request, first: &AtomicI64) -> Answer {
    let at = request.started_at.as_second();
    let _ = first.compare_exchange(0, at, Ordering::SeqCst, Ordering::SeqCst);
    let failed = |message: &str| Err(SourceError::new(message));
    let fine = [(300.0, 400.0), (600.0, 700.0), (900.0, 950.0), (f64::INFINITY, 1000.0)];
    match request.gate.name.as_str() {
        "no-bound" => failed("800 is not the bound of a bucket of ft_bucket: there are 700, 900.0, +Inf"),
        "no-arms" => {
            failed("the arms cannot be told apart: the series of ended_total have no label revision with the revision hash (revisionLabel)")
        }
        "no-le" => failed("ft: its series have no label le, so it is not the buckets of a histogram: name the series that ends in _bucket"),
        "no-common-scrape" => counted(at, first.load(Ordering::SeqCst), 1, 2, &[]),
        "too-many-pods" => counted(at, at, 1500, 2, &[]),
        "odd-unit" => counted(at, at, 1, 2, &fine),
        "wide-bucket" => counted(at, at, 1, 2, &[(100.0, 100.0), (900.0, 900.0), (f64::INFINITY, 1000.0)]),
        "one-bucket" => counted(at, at, 1, 2, &[(100.0, 1.0), (900.0, 998.0), (f64::INFINITY, 1000.0)]),
        "result-is-text" => Ok(Progress::Value(json!("ninety"))),
        "no-key" => failed("judge apiKey: Secret voice/model: there is no key anthropic in it; keys: openai"),
        "never-done" => Ok(Progress::Running { handle: script::NEVER_DONE.into(), poll_after: Duration::from_secs(10) }),
        other => failed(&format!("nobody asked {other}")),
    }
}

#[tokio::test(start_paused = true)]
async fn mistakes_that_only_data_show_are_told_on_the_resource_and_hold_the_weight() {
    let web = |name: &str, run: Value| {
        let web = json!({"url": "https://evals.internal/runs", "jsonPath": "{$.rate}", "run": run});
        json!({"name": name, "threshold": {"interval": "3m", "successCondition": "result >= 0.92", "provider": {"web": web}}})
    };
    let cases: Vec<(Value, &str)> = vec![
        (histogram("no-bound", "ft_bucket", 800.0), "800 is not the bound of a bucket of ft_bucket: there are 700, 900.0, +Inf"),
        (compare("no-arms"), "the arms cannot be told apart"),
        (histogram("no-le", "ft", 900.0), "name the series that ends in _bucket"),
        (compare("no-common-scrape"), "the canary was not scraped since the last look"),
        (compare("too-many-pods"), "200 kB is the most: use fewer edges or gates, or a podLabel with fewer values"),
        (histogram("odd-unit", "first_token_ms_bucket", 0.9), "look like seconds, and first_token_ms_bucket counts milliseconds"),
        (histogram("wide-bucket", "x_bucket", 900.0), "beside the edge 900: with so wide a bucket much can change unseen"),
        (histogram("one-bucket", "x_bucket", 900.0), "its bounds cannot tell them apart"),
        (web("result-is-text", Value::Null), "ninety"),
        (web("never-done", json!({"done": "result.ok", "deadline": "2m"})), "the run was not done within its deadline of 2m"),
        (
            json!({"name": "no-key", "judge": {"anthropic": {"model": "m", "apiKey": {"name": "model", "key": "anthropic"}}, "prompt": "p", "interval": "3m"}}),
            "judge apiKey: Secret voice/model: there is no key anthropic in it",
        ),
    ];
    let gates: Vec<Value> = cases.iter().map(|(gate, _)| gate.clone()).collect();
    let first = AtomicI64::new(0);
    let cluster = at_25(&Script::new(move |request| found(request, &first)), &gates).await;
    let says = |s: &VoiceRolloutStatus, name: &str, part: &str| {
        s.gates.iter().any(|g| g.name == name && (g.message.contains(part) || g.warnings.iter().any(|w| w.contains(part))))
    };
    let all = |s: &VoiceRolloutStatus| cases.iter().all(|(gate, part)| says(s, gate["name"].as_str().expect("a name"), part));
    let status = cluster.wait("agent", "explained by every gate", all).await;
    assert!(status.gates.iter().all(|g| !matches!(g.verdict, Some(Verdict::Pass | Verdict::Fail))), "{:?}", status.gates);
    // Later nothing has moved.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let later = cluster.status("agent").await;
    assert_eq!((later.weights.applied, later.abort.is_none()), (25, true), "{later:?}");
    assert!(all(&later), "and is still explained: {:?}", later.gates);
}
