//! An API server of a few lines.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::runtime::watcher::Event;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::super::board::Feed;
use super::super::{Board, Cluster, Dashboard, Hosts};
use crate::operator::stores::{Guarded, Onlooker};

/// A request that it was sent.
#[derive(Clone, Debug)]
pub struct Asked {
    pub what: String,
    pub authorization: Option<String>,
    pub body: Value,
}

/// Jane may look and command in namespace voice, root may do all, and nobody may do nothing.
#[derive(Default)]
pub struct Api {
    requests: Mutex<Vec<Asked>>,
    revoked: Mutex<BTreeSet<String>>,
    denied: Mutex<BTreeSet<String>>,
    /// Answers by a part of the path; 0: none.
    broken: Mutex<BTreeMap<&'static str, u16>>,
}

impl Api {
    pub fn client(self: &Arc<Self>) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// Requests whose method or path holds `what`.
    pub fn asked(&self, what: &str) -> Vec<Asked> {
        self.requests.lock().iter().filter(|r| r.what.contains(what)).cloned().collect()
    }

    /// A token is no good any more.
    pub fn revoke(&self, token: &str) {
        self.revoked.lock().insert(token.into());
    }

    /// Jane may not do something any more: a verb, such as `create`.
    pub fn deny(&self, verb: &str) {
        self.denied.lock().insert(verb.into());
    }

    /// From now on a request whose path holds `what` gets this status code, with 200 something that is no object; with 0
    /// it gets nothing.
    pub fn break_off(&self, what: &'static str, code: u16) {
        self.broken.lock().insert(what, code);
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let authorization = parts.headers.get("authorization").map(|v| v.to_str().unwrap().to_owned());
        let path = parts.uri.path().to_owned();
        let what = format!("{} {path}", parts.method);
        self.requests.lock().push(Asked { what, authorization: authorization.clone(), body: body.clone() });
        let broken = self.broken.lock().iter().find(|(what, _)| path.contains(**what)).map(|(_, code)| *code);
        match broken {
            Some(0) => return std::future::pending().await,
            Some(200) => return json_answer(200, json!({"spec": 1})),
            Some(code) => return failure(code, "system:serviceaccount:voice-system:operator cannot do this"),
            None => {}
        }
        let caller = authorization.as_deref().and_then(|a| a.strip_prefix("Bearer of-")).unwrap_or_default();
        let last = path.rsplit('/').next().unwrap_or_default();
        match last {
            "tokenreviews" => self.token(&body),
            "subjectaccessreviews" => json_answer(201, json!({"spec": {}, "status": {"allowed": self.allowed(&body["spec"])}})),
            "selfsubjectreviews" => json_answer(201, json!({"status": {"userInfo": {"username": "jane"}}})),
            "selfsubjectaccessreviews" => json_answer(201, json!({"spec": {}, "status": {"allowed": true}})),
            _ if caller == "nobody" => failure(403, "nobody cannot do this"),
            "voicerolloutactions" => self.create(caller, body),
            _ if path.contains("/voicerolloutactions/") => json_answer(200, action(last, json!({"state": "Applied", "message": "done"}))),
            _ if path.contains("/voiceanalysisruns/") => json_answer(200, run(last)),
            "agent" => json_answer(200, rollout("voice", "agent")),
            _ => failure(404, &format!("{last} not found")),
        }
    }

    fn token(&self, review: &Value) -> Response<Body> {
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        let known = ["of-jane", "of-root", "of-nobody"].contains(&token) && !self.revoked.lock().contains(token);
        let user = json!({"username": token.trim_start_matches("of-"), "groups": ["people"]});
        let status = if known { json!({"authenticated": true, "user": user}) } else { json!({"authenticated": false}) };
        json_answer(201, json!({"spec": {"token": ""}, "status": status}))
    }

    fn allowed(&self, spec: &Value) -> bool {
        assert_eq!(spec["resourceAttributes"]["group"], "voicerollout.dev");
        let verb = spec["resourceAttributes"]["verb"].as_str().unwrap_or_default();
        match spec["user"].as_str() {
            Some("root") => true,
            Some("jane") => spec["resourceAttributes"]["namespace"] == "voice" && !self.denied.lock().contains(verb),
            _ => false,
        }
    }

    fn create(&self, caller: &str, mut action: Value) -> Response<Body> {
        if action["spec"]["requestedBy"] != caller {
            return failure(403, "spec.requestedBy must be your own user name");
        }
        if action["spec"]["verb"] == "retry" {
            return failure(422, "spec.verb: not now");
        }
        action["metadata"]["name"] = json!(format!("{}x7k2p", action["metadata"]["generateName"].as_str().unwrap()));
        json_answer(201, action)
    }
}

fn json_answer(code: u16, body: Value) -> Response<Body> {
    Response::builder().status(code).body(Body::from(body.to_string())).unwrap()
}

fn failure(code: u16, message: &str) -> Response<Body> {
    let reason = if code == 404 { "NotFound" } else { "x" };
    json_answer(
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}),
    )
}

pub fn rollout(namespace: &str, name: &str) -> Value {
    let container = json!({"name": "agent", "image": "agent:2", "env": [{"name": "KEY", "value": "hunter2"}]});
    json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout",
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": "1", "generation": 1},
        "spec": {"selector": {}, "template": {"spec": {"containers": [container]}}, "traffic": {}, "steps": [{"setWeight": 5}, {"pause": {}}]},
        "status": {
            "observedGeneration": 1, "phase": "Paused", "canaryRevision": "6d5f8c", "stableRevision": "5b7c9d", "attempt": 1,
            "weights": {"desired": 5, "applied": 5}, "currentStep": 1, "stepDisplay": "2/2",
            "runs": [{"name": "run-1", "kind": "Background", "specHash": "x"}],
        },
    })
}

pub fn run(name: &str) -> Value {
    let at = "2026-01-01T00:00:00Z";
    let judge = json!({"model": "m", "promptHash": "p", "evidenceHash": "e", "votes": ["PASS"], "tokens": {"input": 5, "output": 2}, "microDollars": 1200});
    let pod = json!({"pod": "pod-memory-of-the-gate", "first": 1, "last": 2, "counts": [1]});
    json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceAnalysisRun",
        "metadata": {"name": name, "namespace": "voice"},
        "spec": {"rollout": "agent", "rolloutUid": "u", "kind": "Background", "revision": "6d5f8c", "attempt": 1, "gates": [{"gate": {
            "name": "judge", "judge": {"anthropic": {"model": "m", "apiKey": {"name": "s", "key": "k"}}, "prompt": "Compare."},
        }}]},
        "status": {"phase": "Running", "gates": [{
            "name": "judge", "memory": {"pods": [pod]}, "inFlight": {"key": "idempotency-key", "startedAt": at},
            "measurements": [{"startedAt": at, "finishedAt": at, "verdict": "Pass", "value": "0.25", "judge": judge}],
        }]},
    })
}

fn action(name: &str, status: Value) -> Value {
    json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRolloutAction", "metadata": {"name": name, "namespace": "voice"},
        "spec": {"rollout": "agent", "revision": "6d5f8c", "verb": "abort"}, "status": status,
    })
}

/// The API server, a board and who may look at it.
pub struct World {
    pub api: Arc<Api>,
    pub board: Arc<Board>,
    pub access: Arc<Cluster>,
}

impl World {
    pub fn new() -> Self {
        let api = Arc::new(Api::default());
        let access = Arc::new(Cluster::new(api.client(), api.client()));
        Self { api, board: Arc::new(Board::default()), access }
    }

    pub fn dashboard(&self, actions: bool) -> Dashboard {
        Dashboard::new(self.board.clone(), self.access.clone(), Hosts::Any, actions)
    }

    /// Fills the board by a first list.
    pub fn fill(&self, rollouts: &[Value]) -> Feed {
        let feed = self.board.feed();
        list(&feed, rollouts);
        feed
    }
}

/// A whole list, as after a watch has broken.
pub fn list(feed: &Feed, rollouts: &[Value]) {
    feed.rollout(&Event::Init);
    rollouts.iter().for_each(|rollout| feed.rollout(&Event::InitApply(guarded(rollout))));
    feed.rollout(&Event::InitDone);
}

pub fn guarded<K: DeserializeOwned + kube::Resource>(object: &Value) -> Guarded<K> {
    serde_json::from_value(object.clone()).unwrap()
}

pub fn get_as(token: &str, path: &str) -> Request<Body> {
    let request = Request::get(format!("/dashboard/api/{path}")).header("authorization", format!("Bearer {token}"));
    request.body(Body::empty()).unwrap()
}

pub async fn ask(dashboard: &Dashboard, request: Request<Body>) -> (u16, String) {
    let response = dashboard.clone().router().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
