//! A dashboard on 127.0.0.1 before an API server of a few lines, and releases as one would meet them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use kube::runtime::watcher::Event;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use voicerollout::operator::stores::Onlooker;
use voicerollout::server::bind;
use voicerollout::server::dashboard::access::Token;
use voicerollout::server::dashboard::board::Feed;
use voicerollout::server::dashboard::refusal::Refusal;
use voicerollout::server::dashboard::{Access, Board, Caller, Dashboard, Hosts};

use crate::chromium::PATIENCE;

thread_local! {
    /// What the board takes for now while this thread fills it, in seconds of Unix time; 0: the time.
    static NOW: Cell<i64> = const { Cell::new(0) };
}

fn now() -> i64 {
    match NOW.get() {
        0 => Timestamp::now().as_second(),
        at => at,
    }
}

/// Objects by path, and commands that were given.
#[derive(Default)]
pub struct Api {
    objects: Mutex<BTreeMap<String, Value>>,
    pub commands: Mutex<Vec<Value>>,
}

impl Api {
    fn client(self: &Arc<Self>) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "voice")
    }

    async fn answer(&self, request: Request<Body>) -> Response<axum::body::Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().trim_start_matches("/apis/voicerollout.dev/v1alpha1/namespaces/").to_owned();
        let (code, body) = if parts.method == http::Method::POST {
            let mut action: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
            let name = format!("{}x7k2p", action["metadata"]["generateName"].as_str().unwrap());
            action["metadata"]["name"] = json!(name);
            self.commands.lock().push(action["spec"].clone());
            let mut answered = action.clone();
            answered["status"] = json!({"state": "Applied", "message": "new calls go to stable"});
            self.objects.lock().insert(format!("{path}/{name}"), answered);
            (201, action)
        } else {
            let missing = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound", "message": format!("{path} not found")});
            self.objects.lock().get(&path).cloned().map_or((404, missing), |object| (200, object))
        };
        Response::builder().status(code).body(axum::body::Body::from(body.to_string())).unwrap()
    }

    fn put(&self, kind: &str, object: &Value) {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let path = format!("{}/{kind}/{}", text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
        self.objects.lock().insert(path, object.clone());
    }
}

/// Jane may do all, the guest may look.
struct People(Client);

impl Access for People {
    fn caller<'a>(&'a self, token: &'a Token) -> BoxFuture<'a, Result<Caller, Refusal>> {
        let name = token.reveal().strip_prefix("token-of-").filter(|name| ["jane", "guest"].contains(name));
        let caller = name.map(|name| Caller {
            name: name.into(),
            groups: Vec::new(),
            uid: None,
            extra: BTreeMap::new(),
            key: token.hash(),
            client: self.0.clone(),
        });
        std::future::ready(caller.ok_or(Refusal::BadToken)).boxed()
    }

    fn may_list<'a>(&'a self, _: &'a Caller, _: &'a str) -> BoxFuture<'a, Result<bool, Refusal>> {
        std::future::ready(Ok(true)).boxed()
    }

    fn may_act<'a>(&'a self, caller: &'a Caller, _: &'a str) -> BoxFuture<'a, Result<bool, Refusal>> {
        std::future::ready(Ok(caller.name == "jane")).boxed()
    }
}

/// A dashboard that is served.
pub struct World {
    pub api: Arc<Api>,
    pub board: Arc<Board>,
    pub address: std::net::SocketAddr,
    feed: Feed,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl World {
    /// One that shows these rollouts.
    pub async fn new(rollouts: &[Value]) -> Self {
        let api = Arc::new(Api::default());
        let board = Arc::new(Board::with_clock(now));
        let feed = board.feed();
        feed.rollout(&Event::Init);
        for rollout in rollouts {
            api.put("voicerollouts", rollout);
            feed.rollout(&Event::InitApply(serde_json::from_value(rollout.clone()).unwrap()));
        }
        feed.rollout(&Event::InitDone);
        let (address, stop, server) = serve(&api, &board, "127.0.0.1:0".parse().unwrap()).await;
        Self { api, board, address, feed, stop, server }
    }

    /// Ends the server, as a restart does, and starts it at the same address.
    pub async fn restart(&mut self) {
        self.stop.send_replace(true);
        (&mut self.server).await.unwrap();
        self.listeners(0).await;
        let (_, stop, server) = serve(&self.api, &self.board, self.address).await;
        (self.stop, self.server) = (stop, server);
    }

    /// Waits until so many streams are open.
    pub async fn listeners(&self, wanted: usize) {
        let begun = Instant::now();
        while self.board.listeners() != wanted {
            assert!(begun.elapsed() < PATIENCE, "{} streams are open in place of {wanted}", self.board.listeners());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The address of the page, with a person's token.
    pub fn url(&self, person: &str) -> String {
        format!("http://{}/dashboard#token=token-of-{person}", self.address)
    }

    /// A rollout changes.
    pub fn change(&self, rollout: &Value) {
        self.api.put("voicerollouts", rollout);
        self.feed.rollout(&Event::Apply(serde_json::from_value(rollout.clone()).unwrap()));
    }

    /// A rollout goes.
    pub fn delete(&self, rollout: &Value) {
        self.feed.rollout(&Event::Delete(serde_json::from_value(rollout.clone()).unwrap()));
    }

    /// A run is measured.
    pub fn run(&self, run: &Value) {
        self.api.put("voiceanalysisruns", run);
        self.feed.run(&Event::Apply(serde_json::from_value(run.clone()).unwrap()));
    }
}

async fn serve(
    api: &Arc<Api>,
    board: &Arc<Board>,
    at: std::net::SocketAddr,
) -> (std::net::SocketAddr, watch::Sender<bool>, JoinHandle<()>) {
    let listener = bind(at).await.unwrap();
    let address = listener.local_addr().unwrap();
    let dashboard = Dashboard::new(board.clone(), Arc::new(People(api.client())), Hosts::LoopbackPort(address.port()), true);
    let (stop, stopped) = watch::channel(false);
    (address, stop, tokio::spawn(async move { dashboard.serve(listener, stopped).await.unwrap() }))
}

/// A rollout without a release.
pub fn healthy(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout",
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": "1", "generation": 1},
        "spec": {"replicas": 4, "selector": {}, "template": {}, "traffic": {}, "steps": [{"setWeight": 5}, {"analysis": {"require": ["first-token", "failed-calls"]}},
            {"setWeight": 25}, {"pause": {"duration": "10m"}}, {"setWeight": 50}, {"pause": {}}, {"setWeight": 100}]},
        "status": {
            "observedGeneration": 1, "phase": "Healthy", "stableRevision": "5b7c9d84f", "canaryRevision": "5b7c9d84f", "attempt": 1,
            "weights": {"desired": 0, "applied": 0}, "message": "all calls go to revision 5b7c9d84f",
        },
    })
}

/// The same in the middle of a release, at a weight.
pub fn releasing(namespace: &str, name: &str, weight: i32) -> Value {
    let begun = Timestamp::now().as_second() - 1500;
    let at = |after: i64| format!("{}", Timestamp::from_second(begun + after).unwrap().strftime("%Y-%m-%dT%H:%M:%S.000000Z"));
    let mut rollout = healthy(namespace, name);
    rollout["metadata"]["resourceVersion"] = json!(format!("2{weight}"));
    let decision = |after: i64, step: &str, what: &str, why: &str| json!({"at": at(after), "revision": "6d5f8c7b2", "step": step, "decision": what, "reason": why});
    rollout["status"] = json!({
        "observedGeneration": 1, "phase": "Progressing", "stableRevision": "5b7c9d84f", "canaryRevision": "6d5f8c7b2", "attempt": 1,
        "currentStep": 3, "stepDisplay": "4/7", "step": {"startedAt": at(1300)}, "falseAbortSpent": 0.01,
        "weights": {"desired": weight, "applied": weight}, "message": "step 4/7: a pause of 10 minutes",
        "waitingFor": "the end of the pause", "nextAction": {"what": "the next step begins", "at": at(2100)},
        "liveCalls": "v8: 212, v9: 71",
        "revisions": [
            {"hash": "6d5f8c7b2", "number": 9, "role": "Canary", "replicas": 2, "ready": 2, "liveCalls": 71},
            {"hash": "5b7c9d84f", "number": 8, "role": "Stable", "replicas": 4, "ready": 4, "wasStable": true, "liveCalls": 212},
            {"hash": "7f4e1a903", "number": 7, "role": "Draining", "replicas": 1, "ready": 1, "wasStable": true, "liveCalls": 3, "retiredAt": at(-900)},
        ],
        "runs": [{"name": format!("{name}-run"), "kind": "Background", "specHash": "x"}],
        "gates": [
            {"name": "first-token", "kind": "Background", "mode": "enforce", "verdict": "Pass", "value": "odds 1.1", "toldAt": at(1200)},
            {"name": "failed-calls", "kind": "Background", "mode": "enforce", "value": "odds 1.6", "toldAt": at(1200)},
            {"name": "judge", "kind": "Background", "mode": "signal", "verdict": "Pass", "value": "PASS"},
        ],
        "decisions": [
            decision(0, "1/7", "ReleaseStarted", "revision 6d5f8c7b2 is released, step by step"),
            decision(15, "1/7", "WeightApplied", "5 % of new calls go to revision 6d5f8c7b2"),
            decision(640, "3/7", "WeightApplied", &format!("{weight} % of new calls go to revision 6d5f8c7b2")),
        ],
    });
    rollout
}

/// The background gates of [`releasing`], as they were at a moment between 0 and 1.
pub fn run(namespace: &str, name: &str, part: f64) -> Value {
    let begun = Timestamp::now().as_second() - 1500;
    let at = |after: f64| Timestamp::from_second(begun + after as i64).unwrap().to_string();
    let calls = |n: f64| (n * part) as i64;
    let comparison = |edge: Value, canary: [f64; 2], stable: [f64; 2], evidence: f64| {
        json!({
            "edge": edge, "canary": {"calls": calls(canary[0]), "bad": calls(canary[1])}, "stable": {"calls": calls(stable[0]), "bad": calls(stable[1])},
            "estimate": 1.2, "low": 0.7, "high": 2.1, "logEvidence": evidence, "logAbortLine": 5.3, "dataAt": at(60.0 + 1400.0 * part), "ticks": calls(90.0),
            "pass": [{"weight": 5, "below": "odds ratio 4", "logEvidence": 4.0 * part, "logLine": 3.0, "passes": part > 0.75}],
        })
    };
    let judged = |after: f64, verdict: &str, vote: &str, words: &str, micro: i64| {
        let judge = json!({"model": "judge-large-2", "promptHash": "p", "evidenceHash": "e", "votes": [vote, vote, vote], "tokens": {"input": 17_200, "output": 410}, "microDollars": micro});
        json!({"startedAt": at(after), "finishedAt": at(after + 9.0), "verdict": verdict, "value": vote, "message": words, "judge": judge})
    };
    let first_token = comparison(json!(900), [640.0, 52.0], [3900.0, 300.0], 0.9 * part);
    let failed = comparison(Value::Null, [640.0, 14.0], [3900.0, 49.0], 3.1 * part * part);
    json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceAnalysisRun",
        "metadata": {"name": format!("{name}-run"), "namespace": namespace, "resourceVersion": "5"},
        "spec": {"rollout": name, "rolloutUid": "u", "kind": "Background", "revision": "6d5f8c7b2", "attempt": 1, "gates": [{"gate": {
            "name": "judge", "judge": {"anthropic": {"model": "m", "apiKey": {"name": "s", "key": "k"}}, "prompt": "Compare."},
        }}]},
        "status": {"phase": "Running", "startedAt": at(20.0), "gates": [
            {"name": "first-token", "mode": "enforce", "verdict": "Pass", "startedAt": at(60.0), "value": "odds 1.1", "comparison": first_token,
             "message": "first-token > 900: 52 of 640 canary calls, 300 of 3900 stable; evidence 2x, abort line 200x"},
            {"name": "failed-calls", "mode": "enforce", "startedAt": at(60.0), "value": "odds 1.6", "comparison": failed,
             "message": "14 of 640 canary calls failed, 49 of 3900 stable; evidence 22x, abort line 200x"},
            {"name": "judge", "mode": "signal", "verdict": "Pass", "startedAt": at(300.0), "value": "PASS",
             "spent": {"verdicts": 2, "microDollars": 116_400}, "measurements": [
                judged(300.0, "Inconclusive", "UNSURE", "The canary has 31 calls: too few to tell its longer silences from chance.", 57_900),
                judged(1200.0, "Pass", "PASS", "Both versions answer alike; the canary hands over to people slightly less often. <b>Not markup</b>", 58_500),
             ]},
        ]},
    })
}

/// Fills the recent past of [`releasing`]: calls of the three revisions over 25 minutes, and the counts of its gates.
pub fn play(world: &World, namespace: &str, name: &str) -> Value {
    let last = releasing(namespace, name, 25);
    let begun = Timestamp::now().as_second() - 1500;
    for tick in 0..=50_i64 {
        NOW.set(begun + tick * 29);
        let weight = if tick < 21 { 5 } else { 25 };
        let mut then = releasing(namespace, name, weight);
        then["metadata"]["resourceVersion"] = json!(format!("3{tick}"));
        let wave = (tick * 7) % 13;
        then["status"]["revisions"][0]["liveCalls"] =
            json!(if tick < 21 { tick.min(14) + wave / 4 } else { 15 + (tick - 21).min(18) * 3 + wave });
        then["status"]["revisions"][1]["liveCalls"] = json!(if tick < 21 { 270 + wave } else { 265 - (tick - 21).min(18) * 3 + wave });
        then["status"]["revisions"][2]["liveCalls"] = json!((60 - tick * 2).max(3));
        world.change(&then);
        world.run(&run(namespace, name, tick as f64 / 50.0));
    }
    NOW.set(0);
    world.change(&last);
    last
}
