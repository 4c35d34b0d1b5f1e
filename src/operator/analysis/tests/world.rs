//! A controller on the fake API server, with providers that follow a script.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::api::FakeApi;
use crate::api::common::SecretKeyRef;
use crate::operator::analysis::{AnalysisContext, run};
use crate::operator::cache::Cache;
use crate::operator::clock::Clock;
use crate::operator::leadership::Leadership;
use crate::operator::stores::RunFeed;
use crate::sources::secrets::SecretReader;
use crate::sources::{Progress, Request, Source, SourceError};
use crate::telemetry::Tracer;

type Answer = Result<Progress, SourceError>;
type Script = Box<dyn Fn(&Request, usize) -> (Duration, Answer) + Send + Sync>;

/// A provider that does what the script says for a gate's `n`th start (from 0), and remembers what it was asked.
pub struct Scripted {
    api: FakeApi,
    script: Script,
    pub starts: Mutex<Vec<(String, String)>>,
    pub polls: Mutex<Vec<String>>,
    pub cancels: Mutex<Vec<String>>,
    pub requests: Mutex<Vec<Request>>,
    at_once: Mutex<(usize, usize)>,
}

impl Scripted {
    pub fn new(api: &FakeApi, script: impl Fn(&Request, usize) -> (Duration, Answer) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            api: api.clone(),
            script: Box::new(script),
            starts: Mutex::default(),
            polls: Mutex::default(),
            cancels: Mutex::default(),
            requests: Mutex::default(),
            at_once: Mutex::default(),
        })
    }

    /// Most requests that ran at the same time.
    pub fn most_at_once(&self) -> usize {
        self.at_once.lock().1
    }

    pub fn distinct_keys(&self) -> usize {
        self.starts.lock().iter().map(|(_, key)| key.clone()).collect::<std::collections::BTreeSet<_>>().len()
    }
}

impl Source for Scripted {
    fn start<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Answer> {
        async move {
            let run = request.args.get("run").map_or("run", |a| &a.text);
            let text = self.api.get(run)["status"]["gates"].to_string();
            assert!(text.contains(&request.key), "the key is persisted before the provider is asked");
            let n = {
                let mut starts = self.starts.lock();
                starts.push((request.gate.name.clone(), request.key.clone()));
                self.requests.lock().push(request.clone());
                let keys: std::collections::BTreeSet<_> = starts.iter().filter(|(g, _)| *g == request.gate.name).map(|(_, k)| k).collect();
                keys.len() - 1
            };
            let (delay, answer) = (self.script)(request, n);
            {
                let mut at_once = self.at_once.lock();
                at_once.0 += 1;
                at_once.1 = at_once.1.max(at_once.0);
            }
            tokio::time::sleep(delay).await;
            self.at_once.lock().0 -= 1;
            answer
        }
        .boxed()
    }

    fn poll<'a>(&'a self, _: &'a Request, handle: &'a str) -> BoxFuture<'a, Answer> {
        async move {
            self.polls.lock().push(handle.to_owned());
            let unanswered = || Progress::Unanswered { message: "HTTP 503".into(), retry_after: None };
            if let Some(n) = handle.strip_prefix("back-after-").and_then(|n| n.parse().ok()) {
                return Ok(if self.polls.lock().len() >= n { Progress::Value(json!(1)) } else { unanswered() });
            }
            match handle.strip_prefix("done-after-").and_then(|n| n.parse().ok()) {
                Some(n) if self.polls.lock().len() >= n => Ok(Progress::Value(json!(1))),
                _ => Ok(Progress::Running { handle: handle.into(), poll_after: Duration::from_secs(5) }),
            }
        }
        .boxed()
    }

    fn cancel<'a>(&'a self, _: &'a Request, handle: &'a str) -> BoxFuture<'a, ()> {
        async move { self.cancels.lock().push(handle.to_owned()) }.boxed()
    }
}

/// Secrets by `namespace/name/key`.
pub struct FakeSecrets(pub BTreeMap<String, String>);

impl SecretReader for FakeSecrets {
    fn read<'a>(&'a self, namespace: &'a str, secret: &'a SecretKeyRef) -> BoxFuture<'a, Result<String, SourceError>> {
        let found = self.0.get(&format!("{namespace}/{}/{}", secret.name, secret.key)).cloned();
        async move { found.ok_or_else(|| SourceError::new("the Secret does not carry the label")) }.boxed()
    }
}

/// A controller process.
pub struct Process {
    task: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

impl Process {
    pub fn start(api: &FakeApi, source: &Arc<Scripted>, clock: &Clock) -> Self {
        Self::start_with(api, source, clock, Leadership::always())
    }

    pub fn start_with(api: &FakeApi, source: &Arc<Scripted>, clock: &Clock, leadership: Leadership) -> Self {
        Self::asking(api, source.clone(), clock, leadership)
    }

    pub fn asking(api: &FakeApi, sources: Arc<dyn Source>, clock: &Clock, leadership: Leadership) -> Self {
        let secrets = [("voice/s/k".to_owned(), "s3cr3t-token".to_owned()), ("system/s/k".to_owned(), "system-token".to_owned())];
        let ctx = AnalysisContext {
            client: api.client(),
            clock: clock.clone(),
            leadership,
            sources,
            secrets: Arc::new(FakeSecrets(secrets.into())),
            operator_namespace: "system".into(),
            metrics: Arc::default(),
            tracer: Tracer::default(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let (feed, _) = RunFeed::new(&mut Cache::default());
        let task = tokio::spawn(run(Arc::new(ctx), None, feed, stopped.map(|_| ())));
        Self { task, stop: Some(stop) }
    }

    /// Ends it as SIGKILL would: nothing of it runs on.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Ends it in order.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap();
    }
}

/// A claim on the Lease that tests change.
pub fn claim(seconds: Option<u64>) -> (watch::Sender<Option<Instant>>, Leadership) {
    let (sender, receiver) = watch::channel(seconds.map(|s| Instant::now() + Duration::from_secs(s)));
    (sender, Leadership::following(receiver))
}

pub fn clock() -> Clock {
    Clock::starting_at("2026-01-01T10:00:00Z".parse().unwrap())
}

/// A run of these gates, owned by a VoiceRollout.
pub fn a_run(name: &str, gates: &[Value]) -> Value {
    let gates: Vec<Value> = gates.iter().map(|g| json!({ "gate": g, "args": [{ "name": "run", "value": name }] })).collect();
    json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceAnalysisRun",
        "metadata": { "name": name, "namespace": "voice", "uid": format!("uid-{name}"), "ownerReferences": [
            { "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout", "name": "agent", "uid": "u", "controller": true }] },
        "spec": { "rollout": "agent", "rolloutUid": "u", "kind": "Step", "revision": "r2", "stableRevision": "r1", "attempt": 1, "step": 1,
            "weight": 5, "trafficSince": "2026-01-01T10:00:00Z", "gates": gates },
    })
}

pub fn gate(name: &str, fields: Value) -> Value {
    let mut threshold = json!({ "successCondition": "result >= 1", "provider": { "web": { "url": format!("http://{name}/x") } } });
    threshold.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({ "name": name, "threshold": threshold })
}

pub fn judge() -> Value {
    json!({ "name": "judge", "judge": { "anthropic": { "model": "m" }, "prompt": "p" } })
}

pub fn value(n: i32) -> Answer {
    Ok(Progress::Value(json!(n)))
}

/// Waits, in virtual time, until the run is as wanted.
pub async fn until(api: &FakeApi, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let seen = async {
        loop {
            let changed = api.changed.notified();
            let run = api.get(name);
            if wanted(&run) {
                return run;
            }
            changed.await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(86_400), seen).await {
        Ok(run) => run,
        Err(_) => panic!("never: {}", api.get(name)["status"]),
    }
}

pub async fn phase(api: &FakeApi, name: &str, phase: &str) -> Value {
    until(api, name, |run| run["status"]["phase"] == phase).await
}
