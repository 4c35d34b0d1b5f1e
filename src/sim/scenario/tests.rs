use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Answers, Expect, Outcome, Says, Scenario, repository_of, tag_of};
use crate::api::analysis::Gate;
use crate::api::common::REVISION_LABEL;
use crate::api::run::Verdict;
use crate::api::status::VoiceRolloutStatus;
use crate::core::args::ArgValue;
use crate::core::gates::Pairs;
use crate::operator::clock::Clock;
use crate::sim::SimServer;
use crate::sim::sources::ScenarioSources;
use crate::sources::{Progress, Request, Source};

fn error(text: &str) -> String {
    Scenario::parse(text, |_| Err(std::io::ErrorKind::NotFound.into())).unwrap_err().to_string()
}

const ROLLOUT: &str = r"
name: broken
manifests:
  - kind: VoiceRollout
    spec: {template: {spec: {containers: [{image: agent}]}}, analysis: {gates: [{name: evals}]}}
releases:
  - {name: a, tag: v1, expect: {outcome: promoted}, answers: ANSWERS}
";

#[test]
fn built_in_scenarios_can_be_played() {
    let scenarios = Scenario::built_in().unwrap();
    let names: Vec<&str> = scenarios.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["three-releases", "undecided", "comparison"]);
    for scenario in &scenarios {
        let first = &scenario.releases[1];
        let image = scenario.rollout_for(first)["spec"]["template"]["spec"]["containers"][0]["image"].clone();
        assert_eq!(image, "ghcr.io/acme/voice-agent:v2");
        assert_eq!(scenario.release_of("ghcr.io/acme/voice-agent:v2").unwrap().name, first.name);
        assert!(scenario.world_config().callers.is_some());
    }
}

#[test]
fn a_scenario_that_cannot_be_says_what_is_wrong() {
    let cases = [
        ("{evals: []}", "the list of answers is empty"),
        ("{evals: [{after: 0s, answer: 1}, 2]}", "either every entry of a list has `after`"),
        ("{evals: [{after: 1m, answer: 1}]}", "the first entry begins at `after: 0s`"),
        ("{evals: [{after: 0s, answer: 1}, {after: 0s, answer: 2}]}", "has to grow"),
        ("{evils: 1}", "there is no gate evils; gates are evals"),
        ("{evals: {error: x, value: 1}}", "did not match any variant"),
    ];
    for (answers, wanted) in cases {
        let found = error(&ROLLOUT.replace("ANSWERS", answers));
        assert!(found.contains(wanted), "{answers}: {found}");
    }
    assert!(error("{name: x, manifests: [], releases: []}").contains("exactly one VoiceRollout"));
    assert!(error("{name: x, manifests: [a.yaml], releases: []}").contains("reading a.yaml"));
}

#[test]
fn answers_follow_their_order_or_the_time() {
    let number = |text: &str, index: usize, seconds: u64| {
        let answers: Answers = serde_yaml::from_str(text).unwrap();
        match &answers.at(index, Duration::from_secs(seconds)).unwrap().says {
            Says::Value(value) => value.as_f64().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([0, 1, 2, 9].map(|i| number("[1, 2, 3]", i, 0)), [1.0, 2.0, 3.0, 3.0]);
    let timed = "[{after: 0s, answer: 1}, {after: 1m, answer: 2}]";
    assert_eq!([0, 59, 60, 999].map(|s| number(timed, 5, s)), [1.0, 1.0, 2.0, 2.0]);
    assert_eq!(number("0.5", 7, 7), 0.5);
}

#[test]
fn images_are_taken_apart_at_their_tag() {
    let cases = [("a:v1", "a", "v1"), ("host:5000/a", "host:5000/a", "latest"), ("host:5000/a:v1", "host:5000/a", "v1")];
    for (image, repository, tag) in cases {
        assert_eq!((repository_of(image), tag_of(image)), (repository, tag));
    }
}

#[test]
fn an_expectation_names_what_is_different() {
    let status = |value: Value| -> VoiceRolloutStatus { serde_json::from_value(value).unwrap() };
    let aborted = status(json!({"phase": "Degraded", "abort": {
        "revision": "b", "at": "2026-01-01T00:00:00Z", "step": "3/10", "gate": "evals", "reason": "0.8"
    }}));
    let expect =
        |step: &str, gate: &str| Expect { outcome: Outcome::Aborted, step: Some(step.into()), gate: Some(gate.into()), explained: false };
    assert_eq!(expect("3/10", "evals").check(&aborted), Ok(()));
    assert!(expect("6/10", "evals").check(&aborted).unwrap_err().contains("ended at step 3/10"));
    assert!(expect("3/10", "judge").check(&aborted).unwrap_err().contains("gate judge should have decided"));
    let promoted = Expect { outcome: Outcome::Promoted, step: None, gate: None, explained: false };
    assert!(promoted.check(&aborted).unwrap_err().contains("Degraded"));
    assert!(promoted.is_end(&aborted), "an end, if not the right one");
    let going = status(json!({"phase": "Healthy", "stableRevision": "a", "canaryRevision": "b"}));
    assert!(!promoted.is_end(&going));
}

fn request(key: &str, gate: Value) -> Request {
    let gate: Gate = serde_json::from_value(gate).unwrap();
    Request {
        key: key.into(),
        namespace: "default".into(),
        rollout: "voice-agent".into(),
        revision: "two".into(),
        stable_revision: "one".into(),
        started_at: "2026-01-01T10:00:00Z".parse().unwrap(),
        gate,
        args: [("canary-hash".to_owned(), ArgValue::plain("two"))].into(),
        from_cluster_template: false,
        others: Vec::new(),
        earlier: Vec::new(),
        explains: None,
    }
}

fn gate(scenario: &Scenario, name: &str) -> Value {
    let template = scenario.manifests.iter().find(|m| m["kind"] == "VoiceAnalysisTemplate").unwrap();
    template["spec"]["gates"].as_array().unwrap().iter().find(|g| g["name"] == name).unwrap().clone()
}

fn playing() -> (Arc<Scenario>, ScenarioSources) {
    let server = SimServer::new(Clock::starting_at(Timestamp::UNIX_EPOCH));
    let scenario = Arc::new(Scenario::built_in().unwrap().remove(0));
    let labels = json!({REVISION_LABEL: "two"});
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "two", "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "agent", "image": "ghcr.io/acme/voice-agent:v2"}]}
        }}
    });
    server.seed(set).unwrap();
    let sources = ScenarioSources::new(Arc::clone(&scenario), server.clone(), server.clock().clone());
    (scenario, sources)
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_comes_after_its_time_and_only_once_for_a_key() {
    let (scenario, sources) = playing();
    let first = request("k1", gate(&scenario, "eval-pass-rate"));
    let started = sources.start(&first).await.unwrap();
    assert_eq!(started, Progress::Running { handle: "k1".into(), poll_after: Duration::from_secs(40) });
    tokio::time::sleep(Duration::from_secs(30)).await;
    let again = sources.start(&first).await.unwrap();
    assert_eq!(again, Progress::Running { handle: "k1".into(), poll_after: Duration::from_secs(10) });
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(sources.poll(&first, "k1").await.unwrap(), Progress::Value(json!([0.97])));
    let second = request("k2", gate(&scenario, "eval-pass-rate"));
    sources.start(&second).await.unwrap();
    tokio::time::sleep(Duration::from_secs(45)).await;
    assert_eq!(sources.poll(&second, "k2").await.unwrap(), Progress::Value(json!([0.96])));
    let measured = sources.measured();
    assert_eq!((measured["k1"].times, measured["k2"].times), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_judge_answers_with_its_verdict() {
    let (scenario, sources) = playing();
    let judge = request("k1", gate(&scenario, "ai-judge"));
    sources.start(&judge).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let answer = sources.poll(&judge, "k1").await.unwrap();
    assert!(matches!(&answer, Progress::Votes(j) if j.verdict == Verdict::Pass), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_query_that_does_not_parse_and_an_unknown_revision_are_errors() {
    let (scenario, sources) = playing();
    let mut bad = gate(&scenario, "p95-first-token");
    bad["threshold"]["provider"]["prometheus"]["query"] = json!("sum(rate(x[5m])");
    let error = sources.start(&request("k1", bad)).await.unwrap_err();
    assert!(error.message.starts_with("prometheus: query:"), "{error}");
    let mut unknown = request("k2", gate(&scenario, "p95-first-token"));
    unknown.revision = "nine".into();
    let error = sources.start(&unknown).await.unwrap_err();
    assert!(error.message.contains("no ReplicaSet of revision nine"), "{error}");
    assert!(sources.measured().is_empty());
}

#[test]
fn a_paired_gate_is_answered_with_scenarios() {
    let says = |text: &str| serde_yaml::from_str::<Answers>(text).map(|answers| answers.at(0, Duration::ZERO).unwrap().says.clone());
    let pairs = Pairs { pairs: 200, stable_only: 9, canary_only: 2 };
    assert_eq!(says("{pairs: 200, lost: 9, won: 2}").unwrap(), Says::Pairs(pairs));
    for wrong in ["{pairs: 5, lost: 4, won: 2}", "{lost: 4}", "{pairs: 5, value: 1}", "{pairs: 5, lost: -1}"] {
        assert!(says(wrong).is_err(), "{wrong}");
    }
}

fn of(text: &str) -> Result<Scenario, String> {
    let all = serde_yaml::Deserializer::from_str(text).map(|d| serde::Deserialize::deserialize(d).unwrap()).collect();
    Scenario::of_manifests("mine", all).map_err(|error| error.to_string())
}

fn template(gates: &str) -> String {
    format!("{{kind: VoiceAnalysisTemplate, metadata: {{name: t}}, spec: {{args: [{{name: a}}], gates: [{gates}]}}}}")
}

#[test]
fn for_each_gate_of_a_manifest_one_release_is_made_that_it_has_to_stop() {
    let server = "prometheus: {address: 'http://p'}";
    let gates = [
        format!(
            "{{name: limit, threshold: {{interval: 1m, successCondition: 'result >= 0.9', provider: {{{}}}}}}}",
            "prometheus: {address: 'http://p', query: 'x{a=\"{{args.a}}\"}'}"
        ),
        format!("{{name: calls, compare: {{{server}, bad: b, total: t}}}}"),
        format!("{{name: seen, mode: dryRun, compareHistogram: {{{server}, metric: m_bucket, edges: [1, 2]}}}}"),
        format!("{{name: alone, onFail: Pause, absolute: {{{server}, bad: b, total: t, maxRate: 0.1}}}}"),
    ];
    let scenario = of(&template(&gates.join(", "))).unwrap();
    let ends: Vec<_> = scenario.releases.iter().map(|r| (r.expect.outcome, r.expect.gate.as_deref())).collect();
    let (good, aborted) = ((Outcome::Promoted, None), |gate| (Outcome::Aborted, Some(gate)));
    assert_eq!(ends, [good, good, aborted("limit"), aborted("calls"), good, (Outcome::Paused, Some("alone"))]);
    let said = |release: usize| match &scenario.releases[release].answers["limit"].at(0, Duration::ZERO).unwrap().says {
        Says::Value(value) => value.as_f64().unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(said(1) >= 0.9 && said(2) < 0.9 && said(3) >= 0.9, "{:?}", scenario.releases);
    let bad = |release: usize, gate: &str| scenario.releases[release].counted[gate].bad;
    assert!(bad(3, "calls") > bad(1, "calls") && bad(3, "alone") == 0.0 && bad(5, "alone") > 0.1);
    let above = &scenario.releases[4].counted["seen"].above;
    assert!(above["1"] > scenario.releases[1].counted["seen"].above["1"]);
    assert_eq!(scenario.rollout["spec"]["analysis"]["args"], json!([{"name": "a", "value": "my-a"}]));
    assert_eq!(scenario.rollout["spec"]["analysis"]["gates"], json!([]), "the template's own gates have to pass");
}

#[test]
fn manifests_that_cannot_be_played_say_why() {
    assert!(of("{kind: Secret}").unwrap_err().contains("no VoiceRollout and no template to play"));
    assert!(of("{kind: VoiceRollout}\n---\n{kind: VoiceRollout}").unwrap_err().contains("play them one by one"));
    let never = template("{name: x, threshold: {successCondition: 'result > 2 && result < 1', provider: {web: {url: 'http://x'}}}}");
    let found = of(&never).unwrap_err();
    assert!(found.contains("gate x") && found.contains("no value was found") && found.contains("write a scenario"), "{found}");
    let missing = "{kind: VoiceRollout, spec: {analysis: {templates: [{name: t}]}}}";
    assert!(of(missing).unwrap_err().contains("there is no VoiceAnalysisTemplate `t`"));
}
