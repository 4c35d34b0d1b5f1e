//! The stream: the list in parts, then changes, each a JSON object on a line of its own.
//!
//! | `type` | what |
//! |---|---|
//! | `snapshot` | `rollouts`: a part of the list |
//! | `synced` | the list is complete; `at`: the server's time; `trouble`: why the list may be old, where it may |
//! | `changed` | `rollout`: as it is now |
//! | `deleted` | `namespace`, `name` |
//! | `run` | a run of the rollout `namespace`, `name` has changed |
//! | `heartbeat` | nothing, every 15 s; `at` and `trouble` as above |
//! | `end` | the stream ends; `reason`: `behind` (begin anew), `stopping`, or why the caller is not let in any more |

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio::time::Interval;

use super::Dashboard;
use super::access::{Caller, Token};
use super::board::{Change, array, text};
use super::refusal::Refusal;
use super::seats::Seat;

/// Time between heartbeats; at each the caller's token and rights are looked at again.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Rollouts in one line of the snapshot.
const PART: usize = 100;
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");
const SNAPSHOT: &str = r#"{"type":"snapshot","rollouts":"#;

/// `GET /dashboard/api/stream`
pub async fn open(State(dashboard): State<Dashboard>, headers: HeaderMap) -> Result<Response, Refusal> {
    let token = Token::of(&headers)?;
    let caller = dashboard.access.caller(&token).await?;
    let seat = dashboard.seats.take(&caller.name)?;
    dashboard.filled()?;
    // Rights first, or changes would pile up meanwhile.
    let mut view = Viewer { dashboard, token, caller, namespaces: HashMap::new() };
    for namespace in view.dashboard.board.namespaces() {
        view.sees(&namespace).await?;
    }
    let (lines, changes) = view.dashboard.board.look();
    let mut list = VecDeque::new();
    for ((namespace, _), line) in lines {
        if view.sees(&namespace).await? {
            list.push_back(line);
        }
    }
    let mut beats = tokio::time::interval(HEARTBEAT);
    beats.reset();
    let stop = view.dashboard.stop.clone();
    let open = Open { view, list: Some(list), changes, beats, stop, _seat: seat };
    let lines = stream::unfold(Some(open), |open| async {
        let mut open = open?;
        let line = open.next().await;
        Some(match line {
            Ok(line) => (Ok::<_, Infallible>(line), Some(open)),
            Err(line) => (Ok(line), None),
        })
    });
    // Proxies pass lines on as they come.
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (UNBUFFERED, "no")];
    Ok((headers, Body::from_stream(lines)).into_response())
}

/// Who looks, and at which namespaces.
struct Viewer {
    dashboard: Dashboard,
    token: Token,
    caller: Caller,
    /// What is known of rights, since the last heartbeat.
    namespaces: HashMap<String, bool>,
}

impl Viewer {
    async fn sees(&mut self, namespace: &str) -> Result<bool, Refusal> {
        if let Some(known) = self.namespaces.get(namespace) {
            return Ok(*known);
        }
        let sees = self.dashboard.sees(&self.caller, namespace).await?;
        self.namespaces.insert(namespace.to_owned(), sees);
        Ok(sees)
    }

    /// The token and the rights may be gone by now.
    async fn again(&mut self) -> Result<(), Refusal> {
        self.caller = self.dashboard.access.caller(&self.token).await?;
        let mut before = std::mem::take(&mut self.namespaces);
        let there = self.dashboard.board.namespaces();
        before.retain(|namespace, _| there.contains(namespace));
        for (namespace, saw) in before {
            if saw != self.sees(&namespace).await? {
                return Err(Refusal::Forbidden("your rights have changed".into()));
            }
        }
        Ok(())
    }

    /// A line that tells how the board stands.
    fn stand(&self, kind: &str) -> Bytes {
        text(&json!({"type": kind, "at": Timestamp::now(), "trouble": self.dashboard.board.trouble()}))
    }
}

struct Open {
    view: Viewer,
    /// What has not been told of the list; shared with the board, and made into text when somebody reads it.
    list: Option<VecDeque<Bytes>>,
    changes: broadcast::Receiver<Arc<Change>>,
    beats: Interval,
    stop: Option<watch::Receiver<bool>>,
    _seat: Seat,
}

impl Open {
    /// The next line; `Err`: the last one.
    async fn next(&mut self) -> Result<Bytes, Bytes> {
        match &mut self.list {
            Some(list) if !list.is_empty() => {
                let part: Vec<_> = list.drain(..list.len().min(PART)).collect();
                return Ok(array(SNAPSHOT, &part, "}\n"));
            }
            Some(_) => {
                self.list = None;
                return Ok(self.view.stand("synced"));
            }
            None => {}
        }
        loop {
            tokio::select! {
                biased;
                () = stopping(&mut self.stop) => return Err(end("stopping")),
                _ = self.beats.tick() => {
                    self.view.again().await.map_err(|refusal| end(&refusal.to_string()))?;
                    return Ok(self.view.stand("heartbeat"));
                }
                change = self.changes.recv() => match change {
                    Ok(change) => {
                        if self.view.sees(&change.namespace).await.map_err(|refusal| end(&refusal.to_string()))? {
                            return Ok(change.line.clone());
                        }
                    }
                    Err(RecvError::Lagged(_) | RecvError::Closed) => return Err(end("behind")),
                },
            }
        }
    }
}

fn end(reason: &str) -> Bytes {
    text(&json!({"type": "end", "reason": reason}))
}

/// Resolves when the server stops; never, where nobody would say so.
async fn stopping(stop: &mut Option<watch::Receiver<bool>>) {
    match stop {
        Some(stop) => drop(stop.wait_for(|stop| *stop).await),
        None => std::future::pending().await,
    }
}
