//! Runs that are started, polled and given up, through crashes and outages of the harness.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::SECOND;
use super::api::FakeApi;
use super::world::{FakeSecrets, Process, Scripted, a_run, clock, gate, phase, until, value};
use crate::operator::leadership::Leadership;
use crate::sources::egress::Egress;
use crate::sources::judge::logs::{LogQuery, LogReader};
use crate::sources::{Progress, SourceError, Sources, SourcesConfig};

fn long(name: &str, deadline: &str) -> Value {
    let run = json!({ "done": "result.ok", "deadline": deadline });
    gate(name, json!({ "provider": { "web": { "url": format!("http://{name}/x"), "run": run } } }))
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_not_answered_is_repeated_under_its_key_and_then_is_an_error() {
    let (api, clock) = (FakeApi::default(), clock());
    let source = Scripted::new(&api, |_, n| match n {
        0 => (SECOND, Ok(Progress::Unanswered { message: "HTTP 503".into(), retry_after: Some(SECOND * 20) })),
        _ => (SECOND, value(1)),
    });
    api.put(a_run("run", &[long("evals", "30m")]));
    let process = Process::start(&api, &source, &clock);
    let run = phase(&api, "run", "Pass").await;
    process.stop().await;
    let starts: Vec<String> = source.starts.lock().iter().map(|(_, key)| key.clone()).collect();
    assert_eq!((starts.len(), source.distinct_keys()), (4, 2), "three times the first, then a second measurement");
    assert_eq!((&starts[0], &starts[0]), (&starts[1], &starts[2]));
    let first = &run["status"]["gates"][0]["measurements"][0];
    assert_eq!((first["verdict"].as_str(), first["message"].as_str().unwrap()), (Some("Error"), "HTTP 503"));
}

#[tokio::test(start_paused = true)]
async fn an_outage_while_polling_is_shown_and_survived() {
    let (api, clock) = (FakeApi::default(), clock());
    let source = Scripted::new(&api, |_, _| (SECOND, Ok(Progress::Running { handle: "back-after-9".into(), poll_after: SECOND })));
    api.put(a_run("run", &[long("evals", "30m")]));
    let process = Process::start(&api, &source, &clock);
    until(&api, "run", |run| run["status"]["gates"][0]["inFlight"]["trouble"] == "HTTP 503").await;
    let writes = api.writes().len();
    let run = phase(&api, "run", "Pass").await;
    process.stop().await;
    assert_eq!((source.starts.lock().len(), source.polls.lock().len()), (1, 9));
    assert!(api.writes().len() <= writes + 1, "the same trouble is told once");
    assert_eq!(run["status"]["gates"][0]["counts"]["error"], 0);
    let finished = run["status"]["finishedAt"].as_str().unwrap();
    assert!(finished < "2026-01-01T10:08:00Z", "waits do not grow without end: {finished}");
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_never_ends_is_an_error_at_the_deadline_and_cancelled() {
    for handle in ["h", "back-after-100000"] {
        let (api, clock) = (FakeApi::default(), clock());
        let source = Scripted::new(&api, move |_, n| match n {
            0 => (SECOND, Ok(Progress::Running { handle: handle.into(), poll_after: SECOND })),
            _ => (SECOND, value(1)),
        });
        api.put(a_run("run", &[long("evals", "10m")]));
        let process = Process::start(&api, &source, &clock);
        let run = phase(&api, "run", "Pass").await;
        sleep(SECOND).await;
        let polls = source.polls.lock().len();
        sleep(SECOND * 3600).await;
        process.stop().await;
        let first = &run["status"]["gates"][0]["measurements"][0];
        assert_eq!((&first["verdict"], &first["finishedAt"]), (&json!("Error"), &json!("2026-01-01T10:10:00Z")));
        let outage = if handle == "h" { "" } else { "; the last poll failed: HTTP 503" };
        assert_eq!(first["message"], format!("the run was not done within its deadline of 10m{outage}"));
        assert_eq!((source.cancels.lock().clone(), source.polls.lock().len()), (vec![handle.to_owned()], polls));
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_fails_cancels_the_runs_of_the_others() {
    let (api, clock) = (FakeApi::default(), clock());
    let source = Scripted::new(&api, |request, _| match request.gate.name.as_str() {
        "evals" => (SECOND, Ok(Progress::Running { handle: "h".into(), poll_after: SECOND })),
        _ => (SECOND * 20, value(0)),
    });
    api.put(a_run("run", &[long("evals", "1h"), gate("quick", json!({}))]));
    let process = Process::start(&api, &source, &clock);
    phase(&api, "run", "Fail").await;
    sleep(SECOND).await;
    process.stop().await;
    assert_eq!(*source.cancels.lock(), ["h"]);
}

/// A harness that keeps its runs: what was started by which key, and what was asked.
#[derive(Default)]
struct Harness {
    runs: Mutex<BTreeMap<String, usize>>,
    asked: Mutex<Vec<String>>,
    /// Polls until a run is done.
    slow: usize,
}

impl Harness {
    async fn serve(slow: usize) -> (Arc<Self>, String) {
        let harness = Arc::new(Self { slow, ..Self::default() });
        let router = Router::new()
            .route("/runs", post(Self::start))
            .route("/runs/{id}", get(Self::poll).delete(Self::cancel))
            .with_state(harness.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/runs", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (harness, url)
    }

    async fn start(State(this): State<Arc<Self>>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
        let key = headers["idempotency-key"].to_str().unwrap().to_owned();
        this.asked.lock().push("start".into());
        *this.runs.lock().entry(key.clone()).or_default() += 1;
        (StatusCode::ACCEPTED, Json(json!({ "id": key })))
    }

    async fn poll(State(this): State<Arc<Self>>, Path(id): Path<String>) -> (StatusCode, Json<Value>) {
        if !this.runs.lock().contains_key(&id) {
            return (StatusCode::NOT_FOUND, Json(json!({})));
        }
        let polls = {
            let mut asked = this.asked.lock();
            asked.push("poll".into());
            asked.iter().filter(|a| *a == "poll").count()
        };
        (StatusCode::OK, Json(json!({ "ok": polls > this.slow, "score": 1 })))
    }

    async fn cancel(State(this): State<Arc<Self>>, Path(id): Path<String>) -> StatusCode {
        this.asked.lock().push(format!("cancel {}", this.runs.lock().contains_key(&id)));
        StatusCode::NO_CONTENT
    }
}

struct NoLogs;

impl LogReader for NoLogs {
    fn pod_logs<'a>(&'a self, _: LogQuery<'a>) -> futures::future::BoxFuture<'a, Result<Vec<(String, String)>, SourceError>> {
        Box::pin(std::future::ready(Ok(vec![])))
    }
}

fn sources() -> Arc<Sources> {
    let egress = Egress { allow: vec!["127.0.0.0/8".parse().unwrap()], deny_extra: vec![] };
    let config = SourcesConfig { egress, operator_namespace: "system".into(), user_agent: "test".into() };
    Arc::new(Sources::new(config, Arc::new(FakeSecrets(BTreeMap::new())), Arc::new(NoLogs)))
}

fn real(url: &str) -> Value {
    let run = json!({ "poll": { "url": "/runs/{{run.id}}", "id": "{$.id}", "interval": "1s" }, "done": "result.ok", "deadline": "10m",
        "cancel": { "method": "DELETE", "url": "/runs/{{run.id}}" } });
    gate("evals", json!({ "provider": { "web": { "method": "POST", "url": url, "jsonPath": "{$.score}", "run": run } } }))
}

/// These wait for real sockets.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SECOND * 60, future).await.expect("nothing happened for a minute")
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_run_starts_no_second_one() {
    let (harness, url) = Harness::serve(2).await;
    let (api, clock, sources) = (FakeApi::default(), clock(), sources());
    api.put(a_run("run", &[real(&url)]));
    let process = Process::asking(&api, sources.clone(), &clock, Leadership::always());
    soon(until(&api, "run", |run| run["status"]["gates"][0]["inFlight"]["handle"].is_string())).await;
    process.kill().await;
    let process = Process::asking(&api, sources, &clock, Leadership::always());
    let run = soon(phase(&api, "run", "Pass")).await;
    process.stop().await;
    let runs = harness.runs.lock().clone();
    assert_eq!(runs.values().collect::<Vec<_>>(), [&1], "one run, asked for once");
    assert_eq!(harness.asked.lock().iter().filter(|a| *a == "poll").count(), 3);
    assert_eq!(run["status"]["gates"][0]["value"], "1");
    let status = run["status"].to_string();
    assert!(!status.contains("127.0.0.1"), "nothing of the answer but the value is kept: {status}");
}

#[tokio::test]
async fn an_abort_cancels_the_run_at_the_harness() {
    let (harness, url) = Harness::serve(usize::MAX).await;
    let (api, clock) = (FakeApi::default(), clock());
    api.put(a_run("run", &[real(&url)]));
    let process = Process::asking(&api, sources(), &clock, Leadership::always());
    soon(until(&api, "run", |run| run["status"]["gates"][0]["inFlight"]["handle"].is_string())).await;
    api.edit("run", |run| run["spec"]["stop"] = json!(true));
    soon(phase(&api, "run", "Stopped")).await;
    soon(async {
        while !harness.asked.lock().iter().any(|a| a == "cancel true") {
            tokio::task::yield_now().await
        }
    })
    .await;
    process.stop().await;
}
