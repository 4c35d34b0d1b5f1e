//! The stream: the list in parts, then changes, each a JSON object on a line of its own.
//!
//! | `type` | what |
//! |---|---|
//! | `snapshot` | `rollouts`: a part of the list |
//! | `synced` | the list is complete; `at`: the server's time |
//! | `changed` | `rollout`: as it is now |
//! | `deleted` | `namespace`, `name` |
//! | `run` | a run of the rollout `namespace`, `name` has changed |
//! | `heartbeat` | nothing, every 15 s; `at`: the server's time |
//! | `end` | the stream ends; `reason`: `behind` (begin anew), or why the caller is not let in any more |

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Interval;

use super::Dashboard;
use super::access::{Caller, Token};
use super::board::{Change, array, text};
use super::refusal::Refusal;

/// Time between heartbeats; at each the caller's token and rights are looked at again.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Rollouts in one line of the snapshot.
const PART: usize = 100;
const SNAPSHOT: &str = r#"{"type":"snapshot","rollouts":"#;

/// `GET /dashboard/api/stream`
pub async fn open(State(dashboard): State<Dashboard>, headers: HeaderMap) -> Result<Response, Refusal> {
    let token = Token::of(&headers)?;
    let caller = dashboard.access.caller(&token).await?;
    let permit = dashboard.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Refusal::Unavailable("too many dashboards are open; close one".into()))?;
    dashboard.filled()?;
    // Rights first, or changes would pile up meanwhile.
    let mut view = Viewer { dashboard, token, caller, namespaces: HashMap::new() };
    let (lines, _) = view.dashboard.board.look();
    for ((namespace, _), _) in lines {
        view.sees(&namespace).await?;
    }
    let (lines, changes) = view.dashboard.board.look();
    let mut seen = Vec::new();
    for ((namespace, _), line) in lines {
        if view.sees(&namespace).await? {
            seen.push(line);
        }
    }
    let mut first: VecDeque<Bytes> = seen.chunks(PART).map(|part| array(SNAPSHOT, part, "}\n")).collect();
    first.push_back(text(&json!({"type": "synced", "at": now()})));
    let mut beats = tokio::time::interval(HEARTBEAT);
    beats.reset();
    let open = Open { view, first, changes, beats, _permit: permit };
    let lines = stream::unfold(Some(open), |open| async {
        let mut open = open?;
        let line = open.next().await;
        Some(match line {
            Ok(line) => (Ok::<_, Infallible>(line), Some(open)),
            Err(line) => (Ok(line), None),
        })
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
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
        let before = std::mem::take(&mut self.namespaces);
        for (namespace, saw) in before {
            if saw != self.sees(&namespace).await? {
                return Err(Refusal::Forbidden("your rights have changed".into()));
            }
        }
        Ok(())
    }
}

struct Open {
    view: Viewer,
    first: VecDeque<Bytes>,
    changes: broadcast::Receiver<Arc<Change>>,
    beats: Interval,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    /// The next line; `Err`: the last one.
    async fn next(&mut self) -> Result<Bytes, Bytes> {
        if let Some(line) = self.first.pop_front() {
            return Ok(line);
        }
        loop {
            tokio::select! {
                biased;
                _ = self.beats.tick() => {
                    self.view.again().await.map_err(|refusal| end(&refusal.to_string()))?;
                    return Ok(text(&json!({"type": "heartbeat", "at": now()})));
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

fn now() -> Value {
    json!(Timestamp::now())
}
