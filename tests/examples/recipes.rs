//! Every recipe against a server that answers as its harness is known to, with the recipe's own paths and bodies.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request as HttpRequest;
use axum::response::IntoResponse;
use axum::routing::any;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use voicerollout::api::VoiceAnalysisTemplate;
use voicerollout::api::common::SecretKeyRef;
use voicerollout::api::run::Verdict;
use voicerollout::core::condition;
use voicerollout::sources::egress::Egress;
use voicerollout::sources::judge::logs::{LogQuery, LogReader};
use voicerollout::sources::secrets::SecretReader;
use voicerollout::sources::{ArgValue, Progress, Reading, Request, Source, SourceError, Sources, SourcesConfig};

struct Fixed;

impl SecretReader for Fixed {
    fn read<'a>(&'a self, _: &'a str, secret: &'a SecretKeyRef) -> BoxFuture<'a, Result<String, SourceError>> {
        Box::pin(std::future::ready(Ok(format!("value-of-{}", secret.key))))
    }
}

impl LogReader for Fixed {
    fn pod_logs<'a>(&'a self, _: LogQuery<'a>) -> BoxFuture<'a, Result<Vec<(String, String)>, SourceError>> {
        Box::pin(std::future::ready(Ok(vec![])))
    }
}

fn template(name: &str) -> VoiceAnalysisTemplate {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/recipes").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let first = serde_yaml::Deserializer::from_str(&text).next().unwrap();
    serde::Deserialize::deserialize(first).unwrap()
}

/// The recipe's first gate as a request whose server is at `base`.
fn request(name: &str, base: &str) -> Request {
    let template = template(name);
    let mut gate = template.spec.gates[0].clone();
    let web = match &mut gate.threshold {
        Some(threshold) => threshold.provider.web.as_mut().unwrap(),
        None => &mut gate.paired.as_mut().unwrap().web,
    };
    let path = web.url.splitn(4, '/').nth(3).unwrap();
    web.url = format!("{base}/{path}");
    let built_in = [("canary-hash", "c1"), ("stable-hash", "s1"), ("step", "2"), ("weight", "5"), ("attempt", "1")];
    let own = template.spec.args.iter().map(|a| (a.name.clone(), a.value.clone().unwrap_or_else(|| format!("my-{}", a.name))));
    let args = built_in.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().chain(own);
    Request {
        key: "k1".into(),
        started_at: "2026-01-01T10:00:00Z".parse().unwrap(),
        namespace: "voice".into(),
        rollout: "agent".into(),
        revision: "c1".into(),
        stable_revision: "s1".into(),
        gate,
        args: args.map(|(name, text)| (name, ArgValue { text, secret: false })).collect::<BTreeMap<_, _>>(),
        from_cluster_template: false,
        others: vec![],
        earlier: vec![],
        explains: None,
    }
}

type Seen = Arc<Mutex<Vec<(String, BTreeMap<String, String>, Value)>>>;

/// A server that gives these answers, one after the other, and notes what it was asked.
async fn serve(answers: Vec<Value>) -> (String, Seen) {
    let seen = Seen::default();
    let (noted, answers) = (seen.clone(), Arc::new(answers));
    let answer = move |request: HttpRequest| {
        let (noted, answers) = (noted.clone(), answers.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let headers = parts.headers.iter().map(|(k, v)| (k.to_string(), v.to_str().unwrap().to_owned())).collect();
            let n = noted.lock().len();
            let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("the body is JSON") };
            noted.lock().push((format!("{} {}", parts.method, parts.uri), headers, body));
            axum::Json(answers[n].clone()).into_response()
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(answer))).await.unwrap() });
    (base, seen)
}

fn sources() -> Sources {
    let egress = Egress { allow: vec!["127.0.0.0/8".parse().unwrap()], deny_extra: vec![] };
    let config = SourcesConfig { egress, operator_namespace: "operators".into(), user_agent: "test".into() };
    Sources::new(config, Arc::new(Fixed), Arc::new(Fixed))
}

struct Taken {
    progress: Progress,
    asked: Vec<String>,
    seen: Seen,
    request: Request,
}

impl Taken {
    /// Takes a recipe's measurement, through all of these answers.
    async fn with(name: &str, answers: Vec<Value>) -> Self {
        let polls = answers.len();
        let (base, seen) = serve(answers).await;
        let (sources, request) = (sources(), request(name, &base));
        let mut progress = sources.start(&request).await.unwrap();
        for _ in 1..polls {
            let Progress::Running { handle, .. } = progress else { panic!("{name}: done too early: {progress:?}") };
            progress = sources.poll(&request, &handle).await.unwrap();
        }
        let asked = seen.lock().iter().map(|(asked, _, _)| asked.clone()).collect();
        Self { progress, asked, seen, request }
    }

    fn value(&self) -> f64 {
        match &self.progress {
            Progress::Value(value) => value.as_f64().unwrap(),
            Progress::Eval(eval) => match &eval.reading {
                Reading::Value(value) => value.as_f64().unwrap(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn verdict(&self) -> Verdict {
        let threshold = self.request.gate.threshold.as_ref().unwrap();
        condition::evaluate(threshold.success_condition.as_deref(), None, &json!(self.value())).0
    }

    fn body(&self) -> Value {
        self.seen.lock()[0].2.clone()
    }

    fn header(&self, request: usize, name: &str) -> Option<String> {
        self.seen.lock()[request].1.get(name).cloned()
    }
}

#[tokio::test]
async fn promptfoo() {
    let running = json!({"status": "in-progress", "progress": 3, "total": 100, "logs": []});
    let done = |pass, fail, error| {
        json!({"status": "complete", "evalId": "eval-1", "logs": [],
            "result": {"version": 3, "stats": {"successes": pass, "failures": fail, "errors": error, "tokenUsage": {}}}})
    };
    let taken = Taken::with("promptfoo.yaml", vec![json!({"id": "3f-2a"}), running, done(95, 4, 1)]).await;
    assert_eq!((taken.value(), taken.verdict()), (0.95, Verdict::Pass));
    assert_eq!(taken.asked, ["POST /api/eval/job", "GET /api/eval/job/3f-2a", "GET /api/eval/job/3f-2a"]);
    assert_eq!((&taken.body()["description"], &taken.body()["prompts"][0]), (&json!("voice c1"), &json!("{{question}}")));
    let nothing = Taken::with("promptfoo.yaml", vec![json!({"id": "1"}), done(0, 0, 0)]).await;
    assert!(matches!(nothing.progress, Progress::NoData(_)), "{:?}", nothing.progress);
}

#[tokio::test]
async fn coval() {
    let run = |status: &str| json!({"run": {"run_id": "r-22", "status": status, "progress": {"completed_test_cases": 1}}});
    let mut done = run("COMPLETED");
    done["run"]["results"] = json!({"metrics": {"resolution": {"mean": 0.91, "min": 0.0, "max": 1.0}}});
    let taken = Taken::with("coval.yaml", vec![run("PENDING"), run("IN QUEUE"), run("IN PROGRESS"), done]).await;
    assert_eq!((taken.value(), taken.verdict()), (0.91, Verdict::Pass));
    assert_eq!(taken.asked[3], "GET /v1/runs/r-22");
    assert_eq!(taken.header(3, "x-api-key").as_deref(), Some("value-of-api-key"));
    assert_eq!(taken.body()["metadata"], json!({"revision": "c1", "measurement": "k1"}));
}

#[tokio::test]
async fn hamming() {
    let call = |id: &str, status: &str, passed: bool| json!({"id": id, "status": status, "score": {"passed": passed}});
    let going = json!([call("a", "SCORED", true), {"id": "b", "status": "RINGING"}]);
    let done = json!([call("a", "SCORED", true), call("b", "SCORED", false), call("c", "SCORED", true), call("d", "FAILED", false)]);
    let taken = Taken::with("hamming.yaml", vec![json!({"voiceExperimentId": "x9"}), json!([]), going, done]).await;
    assert_eq!((taken.value(), taken.verdict()), (0.5, Verdict::Fail));
    assert_eq!(
        (taken.asked[0].as_str(), taken.asked[1].as_str()),
        ("POST /api/rest/voice-agent/my-agent/run", "GET /api/rest/voice-experiment/x9/calls")
    );
    assert_eq!(taken.header(0, "authorization").as_deref(), Some("Bearer value-of-api-key"));
}

#[tokio::test]
async fn cekura() {
    let result = |status: &str, rate: Value| json!({"id": 77, "status": status, "success_rate": rate, "runs": {}});
    let taken = Taken::with("cekura.yaml", vec![json!({"id": 77}), result("running", json!(null)), result("completed", json!(93.5))]).await;
    assert_eq!((taken.value(), taken.verdict()), (0.935, Verdict::Pass));
    assert_eq!(taken.asked[2], "GET /test_framework/v2/results/77/");
    assert_eq!(taken.header(2, "x-cekura-api-key").as_deref(), Some("value-of-api-key"));
}

#[tokio::test]
async fn langsmith() {
    let session = |end: Value| {
        json!([{"id": "s", "name": "voice-c1", "run_count": 100, "end_time": end, "reference_dataset_id": "d-1",
            "feedback_stats": {"correctness": {"n": 100, "avg": 0.94}}}])
    };
    let taken = Taken::with("langsmith.yaml", vec![json!([]), session(json!(null)), session(json!("2026-01-01T00:00:00Z"))]).await;
    assert_eq!((taken.value(), taken.verdict()), (0.94, Verdict::Pass));
    let path = "GET /api/v1/sessions?name=voice-c1&include_stats=true&limit=1";
    assert_eq!(taken.asked, [path, path, path]);
    let Progress::Eval(eval) = &taken.progress else { panic!("{:?}", taken.progress) };
    assert_eq!(eval.suite.as_ref().unwrap().dataset.as_deref(), Some("d-1"));
}

#[tokio::test]
async fn braintrust() {
    let scores = json!({"Factuality": {"name": "Factuality", "score": 0.7, "diff": -0.1, "improvements": 1, "regressions": 9}});
    let taken = Taken::with("braintrust.yaml", vec![json!({"project_name": "p", "experiment_name": "e", "scores": scores})]).await;
    assert_eq!((taken.value(), taken.verdict()), (0.7, Verdict::Fail));
    assert_eq!(taken.body()["experiment_name"], "voice-c1-k1");
}

#[tokio::test]
async fn langfuse() {
    let with = |scores: Value| json!({"data": [{"id": "e", "name": "voice-c1", "scores": scores}], "meta": {}});
    let done = with(json!([{"name": "cost", "value": 3}, {"name": "pass-rate", "value": 0.97}]));
    let taken = Taken::with("langfuse.yaml", vec![json!({"data": []}), with(json!([])), done]).await;
    assert_eq!((taken.value(), taken.verdict()), (0.97, Verdict::Pass));
    assert_eq!(taken.asked[2], "GET /api/public/experiments?fromStartTime=2026-01-01T00%3A00%3A00Z&name=voice-c1");
    assert!(taken.header(1, "authorization").unwrap().starts_with("Basic "));
}

#[test]
fn recipes_have_no_problem_that_a_rollout_would_be_refused_for() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/recipes");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let template = template(&name);
        let known = voicerollout::core::resolve::known_args(&template.spec.args);
        for gate in &template.spec.gates {
            let problems = voicerollout::core::resolve::validate_gate(gate, &name, &known);
            assert!(problems.is_empty(), "{problems:?}");
        }
        seen += 1;
    }
    assert!(seen >= 8, "{seen} recipes");
}

/// The paired recipe against the sample harness itself.
#[tokio::test]
async fn paired() {
    let (canary, stable) = (crate::programs::agent_that_passes("0.9").await, crate::programs::agent_that_passes("1").await);
    let base = crate::programs::harness_between(&canary, &stable).await;
    let (sources, request) = (sources(), request("paired.yaml", &base));
    let mut progress = sources.start(&request).await.unwrap();
    for _ in 0..10_000 {
        let Progress::Running { handle, .. } = progress else { break };
        tokio::task::yield_now().await;
        progress = sources.poll(&request, &handle).await.unwrap();
    }
    let Progress::Eval(eval) = progress else { panic!("{progress:?}") };
    let Reading::Pairs(pairs) = eval.reading else { panic!("{eval:?}") };
    assert_eq!((pairs.pairs, pairs.canary_only), (200, 0));
    assert!((18..=22).contains(&pairs.stable_only), "{pairs:?}");
    let suite = eval.suite.unwrap();
    assert_eq!((suite.name.as_deref(), suite.version.as_deref(), suite.seed.is_some()), (Some("voice"), Some("7"), true));
}
