//! As much of an API server as the controller uses: list, watch, status writes with a resourceVersion, one GET.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

#[derive(Default)]
struct Inner {
    version: u64,
    runs: BTreeMap<String, Value>,
    rollout: Option<Value>,
    watchers: Vec<UnboundedSender<Bytes>>,
    writes: Vec<Value>,
    requests: usize,
}

/// The server; clones share one state.
#[derive(Clone, Default)]
pub struct FakeApi {
    inner: Arc<Mutex<Inner>>,
    /// Told on every change.
    pub changed: Arc<Notify>,
}

impl FakeApi {
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                Ok::<_, kube::Error>(api.handle(&parts.method, &parts.uri, &body))
            }
        });
        Client::new(service, "voice")
    }

    /// Creates or replaces an object as somebody else would.
    pub fn put(&self, mut run: Value) {
        let mut inner = self.inner.lock();
        inner.version += 1;
        run["metadata"]["resourceVersion"] = inner.version.to_string().into();
        let name = run["metadata"]["name"].as_str().unwrap().to_owned();
        let kind = if inner.runs.insert(name, run.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        self.tell(&mut inner, kind, &run);
    }

    /// Changes an object as somebody else would.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut run = self.get(name);
        change(&mut run);
        self.put(run);
    }

    pub fn delete(&self, name: &str) {
        let mut inner = self.inner.lock();
        inner.version += 1;
        let run = inner.runs.remove(name).unwrap();
        self.tell(&mut inner, "DELETED", &run);
    }

    pub fn set_rollout(&self, rollout: Value) {
        self.inner.lock().rollout = Some(rollout);
    }

    pub fn get(&self, name: &str) -> Value {
        self.inner.lock().runs[name].clone()
    }

    /// Bodies of the status writes that were accepted.
    pub fn writes(&self) -> Vec<Value> {
        self.inner.lock().writes.clone()
    }

    /// Requests that are not watches.
    pub fn requests(&self) -> usize {
        self.inner.lock().requests
    }

    fn tell(&self, inner: &mut Inner, kind: &str, run: &Value) {
        let line = Bytes::from(format!("{}\n", json!({ "type": kind, "object": run })));
        inner.watchers.retain(|w| w.unbounded_send(line.clone()).is_ok());
        self.changed.notify_waiters();
    }

    fn handle(&self, method: &Method, uri: &http::Uri, body: &[u8]) -> Answer {
        let mut inner = self.inner.lock();
        inner.requests += usize::from(uri.query().is_none_or(|q| !q.contains("watch=true")));
        let parts: Vec<&str> = uri.path().split('/').collect();
        match (method, parts.as_slice()) {
            (&Method::GET, [.., "voiceanalysisruns"]) if uri.query().is_some_and(|q| q.contains("watch=true")) => {
                let (sender, receiver) = unbounded();
                inner.watchers.push(sender);
                let frames = receiver.map(|line| Ok(http_body::Frame::data(line)));
                Response::new(UnsyncBoxBody::new(StreamBody::new(frames)))
            }
            (&Method::GET, [.., "voiceanalysisruns"]) => {
                let items: Vec<&Value> = inner.runs.values().collect();
                let meta = json!({ "resourceVersion": inner.version.to_string() });
                answer(StatusCode::OK, &json!({ "kind": "List", "apiVersion": "v1", "metadata": meta, "items": items }))
            }
            (&Method::PUT, [.., "voiceanalysisruns", name, "status"]) => self.write_status(&mut inner, name, body),
            (&Method::GET, [.., "voicerollouts", _]) => match &inner.rollout {
                Some(rollout) => answer(StatusCode::OK, rollout),
                None => status(StatusCode::NOT_FOUND, "NotFound"),
            },
            _ => panic!("{method} {uri} is not expected"),
        }
    }

    fn write_status(&self, inner: &mut Inner, name: &str, body: &[u8]) -> Answer {
        let sent: Value = serde_json::from_slice(body).unwrap();
        let Some(mut run) = inner.runs.get(name).cloned() else { return status(StatusCode::NOT_FOUND, "NotFound") };
        if run["metadata"]["resourceVersion"] != sent["metadata"]["resourceVersion"] {
            return status(StatusCode::CONFLICT, "Conflict");
        }
        inner.version += 1;
        run["metadata"]["resourceVersion"] = inner.version.to_string().into();
        run["status"] = sent["status"].clone();
        inner.runs.insert(name.to_owned(), run.clone());
        inner.writes.push(sent);
        self.tell(inner, "MODIFIED", &run);
        answer(StatusCode::OK, &run)
    }
}

fn answer(code: StatusCode, body: &Value) -> Answer {
    let body = http_body_util::Full::new(Bytes::from(body.to_string()));
    let mut response = Response::new(UnsyncBoxBody::new(body));
    *response.status_mut() = code;
    response
}

fn status(code: StatusCode, reason: &str) -> Answer {
    answer(
        code,
        &json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason, "code": code.as_u16() }),
    )
}
