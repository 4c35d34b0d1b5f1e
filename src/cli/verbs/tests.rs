use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::cli::exit::Exit;

/// What the API server of a test holds and does.
#[derive(Default)]
struct Server {
    rollouts: Vec<Value>,
    /// Status of every action once it is watched; `None`: the operator sleeps.
    answer: Option<Value>,
    /// Message of a refusal to create actions.
    refuses_create: Option<&'static str>,
    refuses_watch: bool,
    hangs: bool,
    /// Watch events of rollouts.
    changes: Vec<Value>,
    replica_sets: Vec<Value>,
    /// Answer to a list of ReplicaSets or Deployments, in place of them.
    refuses_lists: Option<&'static str>,
    /// The cluster does not know our kinds.
    bare: bool,
    created: Mutex<Vec<Value>>,
    /// JSON patches of rollouts.
    patched: Mutex<Vec<Value>>,
}

type Answer = Response<StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

fn answer(code: u16, documents: Vec<Value>, open: bool) -> Answer {
    let lines = stream::iter(documents).map(|d| Ok(Frame::data(Bytes::from(format!("{d}\n")))));
    let body = if open { lines.chain(stream::pending()).boxed() } else { lines.boxed() };
    Response::builder().status(code).body(StreamBody::new(body)).unwrap()
}

fn ok(document: Value) -> Answer {
    answer(200, vec![document], false)
}

fn status(code: u16, reason: &str, message: &str) -> Answer {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message});
    answer(code, vec![body], false)
}

impl Server {
    fn session(self) -> (Session, Arc<Self>) {
        let server = Arc::new(self);
        let shared = server.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = shared.clone();
            async move { Ok::<_, Infallible>(server.handle(request).await) }
        });
        let session = Session {
            client: Client::new(service, "voice"),
            namespace: "voice".into(),
            program: "kubectl voicerollout".into(),
            paint: Paint::default(),
            terminal: false,
            interactive: false,
            asker: Box::new(|question| panic!("nobody is there to be asked: {question}")),
        };
        (session, server)
    }

    async fn handle(&self, request: Request<Body>) -> Answer {
        if self.hangs {
            return std::future::pending().await;
        }
        let (parts, body) = request.into_parts();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let resource = parts.uri.path().trim_start_matches("/apis/voicerollout.dev/v1alpha1/namespaces/voice/");
        if self.bare && parts.uri.path().starts_with("/apis/voicerollout.dev") {
            return status(404, "NotFound", "the server could not find the requested resource");
        }
        match (parts.method, resource) {
            (Method::GET, "/apis/apps/v1/namespaces/voice/replicasets" | "/apis/apps/v1/deployments") => match self.refuses_lists {
                Some(message) => status(403, "Forbidden", message),
                None => ok(json!({"metadata": {"resourceVersion": "1"}, "items": self.replica_sets})),
            },
            (Method::GET, "/apis/voicerollout.dev/v1alpha1/voicerollouts") => {
                ok(json!({"metadata": {"resourceVersion": "1"}, "items": self.rollouts}))
            }
            (Method::PATCH, one) => {
                let body = body.collect().await.unwrap().to_bytes();
                self.patch(one.trim_start_matches("voicerollouts/"), serde_json::from_slice(&body).unwrap())
            }
            (Method::POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews") => {
                ok(json!({"metadata": {}, "status": {"userInfo": {"username": "jane"}}}))
            }
            (Method::POST, "voicerolloutactions") => {
                let body = body.collect().await.unwrap().to_bytes();
                self.create(serde_json::from_slice(&body).unwrap())
            }
            (Method::GET, "voicerolloutactions") if self.refuses_watch => status(403, "Forbidden", "no"),
            (Method::GET, "voicerolloutactions") => self.actions(&query),
            (Method::GET, "voicerollouts") if query.contains("watch=") => answer(200, self.changes.clone(), true),
            (Method::GET, "voicerollouts") => ok(json!({"metadata": {"resourceVersion": "1"}, "items": self.rollouts})),
            (Method::GET, one) => {
                let found = self.rollouts.iter().find(|r| one.strip_prefix("voicerollouts/").is_some_and(|n| r["metadata"]["name"] == n));
                found.map_or_else(|| status(404, "NotFound", "not there"), |rollout| ok(rollout.clone()))
            }
            (method, path) => panic!("{method} {path} was not expected"),
        }
    }

    fn create(&self, mut action: Value) -> Answer {
        if let Some(message) = self.refuses_create {
            return status(403, "Forbidden", message);
        }
        let prefix = action["metadata"]["generateName"].as_str().unwrap().to_owned();
        action["metadata"]["name"] = json!(format!("{prefix}x7k2p"));
        action["metadata"]["resourceVersion"] = json!("5");
        self.created.lock().push(action.clone());
        answer(201, vec![action], false)
    }

    fn patch(&self, name: &str, patch: Value) -> Answer {
        let mut rollout = self.rollouts.iter().find(|r| r["metadata"]["name"] == name).cloned().unwrap();
        let operations: json_patch::Patch = serde_json::from_value(patch.clone()).unwrap();
        self.patched.lock().push(patch);
        match json_patch::patch(&mut rollout, &operations) {
            Ok(()) => ok(rollout),
            Err(_) => status(422, "Invalid", crate::sim::PATCH_FAILED),
        }
    }

    fn actions(&self, query: &str) -> Answer {
        let mut action = self.created.lock().last().cloned().unwrap();
        if !query.contains("watch=") {
            return ok(json!({"metadata": {"resourceVersion": "5"}, "items": [action]}));
        }
        action["metadata"]["resourceVersion"] = json!("6");
        let event = self.answer.as_ref().map(|answer| {
            action["status"] = answer.clone();
            json!({"type": "MODIFIED", "object": action})
        });
        answer(200, event.into_iter().collect(), true)
    }
}

fn rollout(name: &str, status: Value) -> Value {
    json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout",
        "metadata": {"name": name, "namespace": "voice", "resourceVersion": "1"},
        "spec": {"selector": {}, "template": {}, "traffic": {}, "steps": [{"setWeight": 5}]},
        "status": status,
    })
}

fn agent() -> Value {
    rollout("voice-agent", json!({"phase": "Paused", "canaryRevision": "6d5f8c", "stableRevision": "5b7c9d"}))
}

async fn order(server: Server, name: &str, verb: Action) -> (Result<String, CliError>, Vec<Value>) {
    let (session, server) = server.session();
    let mut out = Vec::new();
    let given = Given { timeout: Duration::from_secs(30), yes: false };
    let result = session.order(name, verb, Some("why".into()), given, &mut out).await;
    let created = server.created.lock().clone();
    (result.map(|()| String::from_utf8(out).unwrap()), created)
}

#[tokio::test(start_paused = true)]
async fn a_command_is_bound_to_the_revision_and_the_person() {
    let applied = json!({"state": "Applied", "message": "skips 4 steps"});
    let server = Server { rollouts: vec![agent()], answer: Some(applied), ..Default::default() };
    let (result, created) = order(server, "voice-agent", Action::PromoteFull).await;
    let said = "promote --full voice-agent: applied to revision 6d5f8c: skips 4 steps\n\
                watch it: kubectl voicerollout status voice-agent -n voice --watch\n";
    assert_eq!(result.unwrap(), said);
    assert_eq!(created.len(), 1);
    assert_eq!(created[0]["metadata"]["generateName"], "voice-agent-promote-full-");
    let spec = json!({"rollout": "voice-agent", "revision": "6d5f8c", "verb": "promoteFull", "reason": "why", "requestedBy": "jane"});
    assert_eq!(created[0]["spec"], spec);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_error_with_the_operators_reason() {
    let refused = json!({"state": "Refused", "message": "a gate failed"});
    let server = Server { rollouts: vec![agent()], answer: Some(refused), ..Default::default() };
    let error = order(server, "voice-agent", Action::Promote).await.0.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.exit()), ("promote voice-agent: refused: a gate failed", Exit::Failed));
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_the_outcome_is_unknown() {
    let asleep = Server { rollouts: vec![agent()], ..Default::default() };
    let blind = Server { rollouts: vec![agent()], refuses_watch: true, ..Default::default() };
    for (server, why) in [(asleep, "the operator has not answered within 30s (is it running?)"), (blind, "you may not watch it")] {
        let (result, created) = order(server, "voice-agent", Action::Abort).await;
        let error = result.unwrap_err();
        let name = "voice-agent-abort-x7k2p";
        let text = format!("VoiceRolloutAction {name} is created, but {why}; see kubectl get voicerolloutaction {name} -n voice");
        assert_eq!((error.to_string(), error.exit(), created.len()), (text, Exit::Unfinished, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_name_is_answered_with_similar_ones() {
    let others = ["billing", "voice-agent", "voice-agents-eu"].map(|n| rollout(n, json!({})));
    let server = || Server { rollouts: others.to_vec(), ..Default::default() };
    let (result, created) = order(server(), "voice-agnet", Action::Abort).await;
    let error = result.unwrap_err();
    let text = "there is no VoiceRollout voice-agnet in namespace voice; did you mean voice-agent or voice-agents-eu?";
    assert_eq!((error.to_string().as_str(), error.exit(), created.len()), (text, Exit::Failed, 0));
    let error = order(server(), "qqq", Action::Abort).await.0.unwrap_err();
    assert_eq!(error.to_string(), "there is no VoiceRollout qqq in namespace voice");
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_the_operator_has_not_seen_takes_no_commands() {
    let server = Server { rollouts: vec![rollout("voice-agent", json!({}))], ..Default::default() };
    let (result, created) = order(server, "voice-agent", Action::Pause).await;
    assert!(matches!(result, Err(CliError::NotObserved { .. })) && created.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_refuses_is_said_in_its_words() {
    let server = Server { rollouts: vec![agent()], refuses_create: Some("jane may not"), ..Default::default() };
    let error = order(server, "voice-agent", Action::Retry).await.0.unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.exit()),
        ("retry voice-agent: create the VoiceRolloutAction: jane may not", Exit::Failed)
    );
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_is_given_up() {
    let server = Server { hangs: true, ..Default::default() };
    let error = order(server, "voice-agent", Action::Abort).await.0.unwrap_err();
    let text = "read VoiceRollout voice-agent in namespace voice: no answer within 10 s";
    assert_eq!((error.to_string().as_str(), error.exit()), (text, Exit::Failed));
}

/// Runs something against a server; what it printed, and what it made of it.
async fn said<T>(
    server: Server,
    run: impl AsyncFnOnce(&Session, &mut Vec<u8>) -> Result<T, CliError>,
) -> (Result<T, CliError>, String, Arc<Server>) {
    let (session, server) = server.session();
    let mut out = Vec::new();
    let result = run(&session, &mut out).await;
    (result, String::from_utf8(out).unwrap(), server)
}

mod edits;
mod looks;
