//! Watches: a stream of changes that match, bookmarks, and the ways a stream ends.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::fail::{self, Answer};
use super::request::Request;
use super::selector::Filter;
use super::server::{Pace, SimServer};
use super::service::metadata_only;
use super::state::State;
use super::store::Change;

/// Length of a watch that asks for none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

/// One watch.
struct Watch {
    server: SimServer,
    kind: usize,
    api_version: String,
    kind_name: String,
    namespace: Option<String>,
    filter: Filter,
    metadata_only: bool,
    cursor: u64,
    queue: VecDeque<Bytes>,
    deadline: Instant,
    bookmark_at: Option<Instant>,
    bookmark_every: Duration,
    changes: watch::Receiver<u64>,
    breaks: watch::Receiver<u64>,
    held: watch::Receiver<bool>,
    ended: bool,
}

/// Starts a watch. Everything that comes of it, errors included, is in the stream.
///
/// # Errors
/// 400 for selectors and parameters.
pub fn start(server: &SimServer, state: &State, request: &Request) -> Answer<impl Stream<Item = io::Result<Bytes>> + use<>> {
    let resource = &request.resource;
    let filter = Filter::parse(resource, request.param("labelSelector"), request.param("fieldSelector"))?;
    let from = request.number("resourceVersion")?.unwrap_or(0);
    let send_initial = request.is_set("sendInitialEvents");
    let bookmarks = request.is_set("allowWatchBookmarks");
    if send_initial && request.param("resourceVersionMatch") != Some("NotOlderThan") {
        return Err(fail::bad_request("sendInitialEvents requires resourceVersionMatch=NotOlderThan"));
    }
    let Pace { bookmarks: bookmark_every, longest } = server.pace();
    let asked = request.number("timeoutSeconds")?.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let timeout = longest.unwrap_or(asked);
    let now = Instant::now();
    let (breaks, held) = server.watch_controls();
    let mut watch = Watch {
        server: server.clone(),
        kind: resource.id,
        api_version: resource.api_version(),
        kind_name: resource.kind.clone(),
        namespace: request.namespace.clone(),
        filter,
        metadata_only: request.metadata_only,
        cursor: from,
        queue: VecDeque::new(),
        deadline: now + timeout,
        bookmark_at: bookmarks.then(|| now + bookmark_every),
        bookmark_every,
        changes: state.store.subscribe(),
        breaks,
        held,
        ended: false,
    };
    if from == 0 || send_initial {
        watch.initial(state, send_initial && bookmarks);
    } else if from < state.store.compacted() {
        watch.fail(&fail::expired(from, state.store.compacted()));
    }
    Ok(stream::unfold(watch, |mut watch| async move {
        let item = watch.next().await?;
        Some((item, watch))
    }))
}

impl Watch {
    /// Everything there is, as if it had just been added.
    fn initial(&mut self, state: &State, mark_end: bool) {
        self.cursor = state.store.version();
        let namespace = self.namespace.clone();
        for (_, object) in state.store.list(self.kind, namespace.as_deref()) {
            if self.filter.matches(object) {
                self.push("ADDED", object);
            }
        }
        if mark_end {
            self.bookmark(json!({"k8s.io/initial-events-end": "true"}));
        }
    }

    fn push(&mut self, what: &str, object: &Value) {
        let line = if self.metadata_only {
            json!({"type": what, "object": metadata_only(object)}).to_string()
        } else {
            format!("{{\"type\":\"{what}\",\"object\":{object}}}")
        };
        self.queue.push_back(Bytes::from(line + "\n"));
    }

    fn bookmark(&mut self, annotations: Value) {
        let mut metadata = json!({"resourceVersion": self.cursor.to_string(), "creationTimestamp": null});
        if !annotations.is_null() {
            metadata["annotations"] = annotations;
        }
        let object = json!({"apiVersion": self.api_version, "kind": self.kind_name, "metadata": metadata});
        self.push("BOOKMARK", &object);
    }

    fn fail(&mut self, status: &kube::core::Status) {
        let mut object = serde_json::to_value(status).unwrap_or_default();
        object["kind"] = json!("Status");
        object["apiVersion"] = json!("v1");
        self.queue.push_back(Bytes::from(json!({"type": "ERROR", "object": object}).to_string() + "\n"));
        self.ended = true;
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(line) = self.queue.pop_front() {
                return Some(Ok(line));
            }
            if self.ended {
                return None;
            }
            self.changes.borrow_and_update();
            let visible_at = if *self.held.borrow_and_update() { None } else { self.pull() };
            if !self.queue.is_empty() {
                continue;
            }
            let bookmark = self.bookmark_at.unwrap_or(self.deadline).min(self.deadline);
            let next_look = visible_at.unwrap_or(self.deadline).min(self.deadline);
            tokio::select! {
                biased;
                _ = self.breaks.changed() => {
                    self.ended = true;
                    return Some(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the watch was broken")));
                }
                _ = self.held.changed() => {}
                _ = self.changes.changed() => {}
                () = tokio::time::sleep_until(next_look), if visible_at.is_some() => {}
                () = tokio::time::sleep_until(bookmark) => self.tick(),
            }
        }
    }

    /// A bookmark is due, or the end; a watch ends without a last bookmark.
    fn tick(&mut self) {
        let now = Instant::now();
        if now >= self.deadline {
            self.ended = true;
        } else if self.bookmark_at.is_some() {
            if !*self.held.borrow() {
                self.bookmark(Value::Null);
            }
            self.bookmark_at = Some(now + self.bookmark_every);
        }
    }

    /// Queues the changes that can be seen by now; returns when the next one can.
    fn pull(&mut self) -> Option<Instant> {
        let server = self.server.clone();
        let delay = server.latency().watch;
        let now = Instant::now();
        server.with_state(|state| {
            if self.cursor < state.store.compacted() && state.store.version() > self.cursor {
                // The stream has kept up with everything up to the compaction unless changes are missing.
                self.fail(&fail::expired(self.cursor, state.store.compacted()));
                return None;
            }
            for change in state.store.changes_after(self.cursor) {
                if change.at + delay > now {
                    return Some(change.at + delay);
                }
                self.cursor = change.version;
                self.see(change);
            }
            None
        })
    }

    fn see(&mut self, change: &Change) {
        let here = change.key.kind == self.kind && self.namespace.as_ref().is_none_or(|ns| *ns == change.key.namespace);
        if !here {
            return;
        }
        let matching = |object: &Option<Arc<Value>>| object.clone().filter(|o| self.filter.matches(o));
        match (matching(&change.old), matching(&change.new)) {
            (None, Some(new)) => self.push("ADDED", &new),
            (Some(_), Some(new)) => self.push("MODIFIED", &new),
            (Some(old), None) => {
                // The last form that matched, under the version of the change.
                let mut last = (*old).clone();
                last["metadata"]["resourceVersion"] = json!(change.version.to_string());
                self.push("DELETED", &last);
            }
            (None, None) => {}
        }
    }
}
