//! The sample agent and the sample eval harness, in this process, on real sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::{agent, harness};

pub struct Agent {
    address: SocketAddr,
    terminate: Option<oneshot::Sender<()>>,
    process: JoinHandle<std::io::Result<()>>,
}

impl Agent {
    async fn start(vars: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let get = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let config = agent::Config::read(get).unwrap();
        let (terminate, terminated) = oneshot::channel();
        let shutdown = async { drop(terminated.await) };
        Self { address, terminate: Some(terminate), process: tokio::spawn(agent::serve(listener, config, shutdown)) }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = reqwest::get(self.url(path)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn dial(&self) -> WebSocketStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (socket, response) = tokio_tungstenite::client_async(format!("ws://{}/ws", self.address), stream).await.unwrap();
        assert_eq!(response.headers()["x-voice-revision"], "abc");
        socket
    }

    fn terminate(&mut self) {
        drop(self.terminate.take());
    }

    async fn exit(self) {
        within(self.process).await.unwrap().unwrap();
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("nothing happened for 20 s")
}

async fn heard(socket: &mut WebSocketStream<TcpStream>) -> String {
    within(socket.next()).await.unwrap().unwrap().into_text().unwrap().to_string()
}

#[tokio::test]
async fn calls_repeat_with_their_seed_and_are_counted() {
    let vars = [("AGENT_SEED", "7"), ("AGENT_FAIL_RATE", "0.5"), ("AGENT_FIRST_TOKEN_MS", "700"), ("AGENT_VERSION", "v3")];
    let (one, two) = (Agent::start(&vars).await, Agent::start(&vars).await);
    let mut failed = 0;
    for _ in 0..20 {
        let ((status, first), (_, second)) = (one.get("/call").await, two.get("/call").await);
        assert_eq!(first, second);
        let answer: Value = serde_json::from_str(&first).unwrap();
        assert_eq!(answer["version"], "v3");
        assert_eq!(answer["result"], if status == 200 { "ok" } else { "failed" });
        assert!((600.0..=800.0).contains(&answer["firstTokenMs"].as_f64().unwrap()));
        failed += u32::from(status == 500);
    }
    assert!((1..20).contains(&failed), "{failed} of 20 failed at a rate of one half");
    let (_, metrics) = one.get("/metrics").await;
    for line in [
        "voice_calls_started_total 20".to_owned(),
        format!("voice_calls_total{{result=\"failed\"}} {failed}"),
        format!("voice_calls_total{{result=\"ok\"}} {}", 20 - failed),
        "voice_calls_active 0".to_owned(),
        "voice_first_token_ms_bucket{le=\"500.0\"} 0".to_owned(),
        "voice_first_token_ms_bucket{le=\"800.0\"} 20".to_owned(),
        "voice_tool_calls_per_call_count 20".to_owned(),
        "voice_cost_usd_per_call_count 20".to_owned(),
    ] {
        assert!(metrics.lines().any(|l| l == line), "no line {line} in\n{metrics}");
    }
}

#[tokio::test]
async fn an_agent_told_to_stop_finishes_its_calls_and_takes_no_new_ones() {
    let mut agent = Agent::start(&[("AGENT_REVISION", "abc")]).await;
    assert_eq!(agent.get("/healthz").await.0, 200);
    let mut call = agent.dial().await;
    assert_eq!(serde_json::from_str::<Value>(&heard(&mut call).await).unwrap()["revision"], "abc");
    agent.terminate();
    within(async { while agent.get("/healthz").await.0 != 503 {} }).await;
    within(async { while agent.get("/call").await.0 != 503 {} }).await;
    assert!(agent.get("/metrics").await.1.contains("voice_calls_active 1"));
    call.send(Message::text("still there?")).await.unwrap();
    assert_eq!(heard(&mut call).await, "still there?");
    assert!(!agent.process.is_finished());
    call.close(None).await.unwrap();
    agent.exit().await;
}

#[tokio::test]
async fn an_agent_that_ignores_its_calls_or_runs_out_of_time_stops_with_calls_open() {
    for var in [("AGENT_IGNORE_DRAIN", "1"), ("AGENT_DRAIN_TIMEOUT_S", "0")] {
        let mut agent = Agent::start(&[("AGENT_REVISION", "abc"), var]).await;
        let mut call = agent.dial().await;
        heard(&mut call).await;
        agent.terminate();
        agent.exit().await;
    }
}

#[tokio::test]
async fn a_call_whose_caller_vanishes_is_a_failed_one() {
    let agent = Agent::start(&[("AGENT_REVISION", "abc")]).await;
    let mut call = agent.dial().await;
    heard(&mut call).await;
    drop(call);
    within(async { while !agent.get("/metrics").await.1.contains("voice_calls_total{result=\"failed\"} 1") {} }).await;
}

#[test]
fn a_variable_out_of_range_is_named() {
    let error = agent::Config::read(|name| (name == "AGENT_FAIL_RATE").then(|| "1.5".into())).unwrap_err();
    assert_eq!(error, "AGENT_FAIL_RATE=1.5: want 0 to 1");
}

struct Harness(String);

impl Harness {
    async fn start(agent: &Agent) -> Self {
        Self::comparing(agent, agent).await
    }

    async fn comparing(canary: &Agent, stable: &Agent) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let (target, stable_target) = (canary.url(""), stable.url(""));
        let config = harness::Config { listen, target, stable_target, cases: 100, duration: Duration::ZERO, suite_version: "7".into() };
        tokio::spawn(harness::serve(listener, config));
        Self(format!("http://{listen}"))
    }

    async fn get(&self, path: &str, key: Option<&str>) -> (u16, Value) {
        let mut request = reqwest::Client::new().get(format!("{}{path}", self.0));
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }
}

#[tokio::test]
async fn the_harness_finds_the_rate_that_the_agent_was_given() {
    for (given, low, high) in [("1", 1.0, 1.0), ("0.95", 0.94, 0.96), ("0.6", 0.58, 0.62), ("0", 0.0, 0.0)] {
        let agent = Agent::start(&[("AGENT_EVAL_PASS_RATE", given), ("AGENT_REVISION", "abc")]).await;
        let (status, answer) = Harness::start(&agent).await.get("/api/run?suite=voice&version=abc", None).await;
        assert_eq!(status, 200);
        assert!((low..=high).contains(&answer["passRate"].as_f64().unwrap()), "{given}: {answer}");
        assert_eq!((&answer["totals"]["cases"], &answer["suiteVersion"]), (&100.into(), &"7".into()));
    }
}

#[tokio::test]
async fn a_key_that_comes_again_starts_nothing() {
    let agent = Agent::start(&[]).await;
    let harness = Harness::start(&agent).await;
    let path = "/api/run?suite=voice&version=abc&durationMs=50";
    let (one, two) = tokio::join!(harness.get(path, Some("k1")), harness.get(path, Some("k1")));
    let three = harness.get(path, Some("k1")).await;
    let other = harness.get(path, Some("k2")).await;
    assert_eq!((&one, &one), (&two, &three));
    assert_ne!(one.1["id"], other.1["id"]);
    let (_, runs) = harness.get("/api/runs", None).await;
    let asked: Vec<_> = runs.as_array().unwrap().iter().map(|r| (r["key"].as_str().unwrap(), r["asked"].as_u64().unwrap())).collect();
    assert_eq!(asked, [("k1", 3), ("k2", 1)]);
}

#[tokio::test]
async fn a_run_against_another_revision_or_nobody_has_no_rate() {
    let mut agent = Agent::start(&[("AGENT_REVISION", "abc")]).await;
    let harness = Harness::start(&agent).await;
    let (status, answer) = harness.get("/api/run?suite=voice&version=def", None).await;
    assert_eq!(status, 502);
    assert!(answer["error"].as_str().unwrap().contains("asked for version def and revision abc answered"), "{answer}");
    agent.terminate();
    agent.exit().await;
    let (status, answer) = harness.get("/api/run?suite=voice&version=abc", None).await;
    assert_eq!((status, answer.get("passRate")), (502, None));
}

/// An agent that answers this share of the cases right.
pub async fn agent_that_passes(rate: &str) -> Agent {
    Agent::start(&[("AGENT_EVAL_PASS_RATE", rate)]).await
}

/// Base URL of a harness that compares these two.
pub async fn harness_between(canary: &Agent, stable: &Agent) -> String {
    Harness::comparing(canary, stable).await.0
}

impl Harness {
    async fn send(&self, method: reqwest::Method, path: &str, key: &str, body: Value) -> (u16, Value) {
        let request = reqwest::Client::new().request(method, format!("{}{path}", self.0)).header("Idempotency-Key", key);
        let response = request.json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Starts a run and waits until it is no longer running.
    async fn ended(&self, path: &str, key: &str, body: Value) -> Value {
        let (status, started) = self.send(reqwest::Method::POST, path, key, body).await;
        assert_eq!((status, started["status"].as_str()), (202, Some("running")));
        let link = started["links"]["self"].as_str().unwrap();
        within(async {
            loop {
                let (_, run) = self.get(link, None).await;
                if run["status"] != "running" {
                    return run;
                }
            }
        })
        .await
    }
}

#[tokio::test]
async fn a_run_is_started_asked_for_and_given_up() {
    let agent = Agent::start(&[("AGENT_EVAL_PASS_RATE", "0.95"), ("AGENT_REVISION", "abc")]).await;
    let harness = Harness::start(&agent).await;
    let ask = json!({"suite": "voice", "version": "abc", "seed": 3, "durationMs": 50});
    let run = harness.ended("/api/runs", "k1", ask.clone()).await;
    assert_eq!((&run["status"], &run["results"]["stats"]["failures"]), (&json!("completed"), &json!(5)));
    assert_eq!((&run["suite"], &run["suiteVersion"], &run["seed"]), (&json!("voice"), &json!("7"), &json!(3)));
    assert_eq!(run["datasetHash"].as_str().unwrap().len(), 12);
    let (status, again) = harness.send(reqwest::Method::POST, "/api/runs", "k1", ask).await;
    assert_eq!((status, again), (202, run), "a key that comes again starts nothing");

    let slow = json!({"suite": "voice", "durationMs": 3_600_000});
    let (_, started) = harness.send(reqwest::Method::POST, "/api/runs", "k2", slow).await;
    let (status, cancelled) = harness.send(reqwest::Method::DELETE, started["links"]["self"].as_str().unwrap(), "", json!({})).await;
    assert_eq!((status, &cancelled["status"]), (200, &json!("cancelled")));
    let (status, done) = harness.send(reqwest::Method::POST, "/api/runs/0/cancel", "", json!({})).await;
    assert_eq!((status, &done["status"]), (200, &json!("completed")), "what has ended stays as it ended");
    assert_eq!(harness.get("/api/runs/99", None).await.0, 404);
    assert_eq!(harness.ended("/api/runs", "k3", json!({"suite": "voice", "version": "def"})).await["status"], "failed");
}

#[tokio::test]
async fn a_paired_run_asks_both_the_same() {
    let canary = Agent::start(&[("AGENT_EVAL_PASS_RATE", "0.9")]).await;
    let stable = Agent::start(&[("AGENT_EVAL_PASS_RATE", "1")]).await;
    let harness = Harness::start(&canary).await;
    let ask = json!({"suite": "voice", "stableTarget": stable.url(""), "durationMs": 20, "seed": 0});
    let run = harness.ended("/api/paired", "k1", ask).await;
    assert_eq!((&run["total"], &run["stableOnly"], &run["canaryOnly"]), (&json!(100), &json!(10), &json!(0)));
    let lost = run["scenarios"].as_array().unwrap().iter().filter(|s| s["stable"]["pass"] == true && s["canary"]["pass"] == false);
    assert_eq!(lost.count(), 10);

    let drawn = json!({"suite": "voice", "stableTarget": stable.url(""), "durationMs": 20});
    let (two, three) = (harness.ended("/api/paired", "k2", drawn.clone()).await, harness.ended("/api/paired", "k3", drawn).await);
    assert!(two["seed"] != three["seed"] && two["datasetHash"] == three["datasetHash"], "each key draws other questions");
}
