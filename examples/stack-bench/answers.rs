//! The server that all gates ask: eval suites that answer when they are told to, a value that always passes, a
//! Prometheus with one value, and the judge's stub.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::judge::{Behaviour, Stub, router};
use crate::stack::Result;

/// Requests that wait for an answer, by rollout.
type Held = Arc<Mutex<HashMap<String, oneshot::Sender<f64>>>>;

/// The server.
pub struct Gates {
    held: Held,
    port: u16,
}

impl Gates {
    /// Starts it on every loopback address.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("0.0.0.0:0").await?;
        let port = listener.local_addr()?.port();
        let held = Held::default();
        let app = Router::new()
            .route("/hold/{rollout}", get(hold))
            .with_state(held.clone())
            .route("/pass", get(async || Json(json!({"value": 1.0}))))
            .route("/prometheus/api/v1/query", get(prometheus).post(prometheus))
            .merge(router(Stub::new(Behaviour::Pass, None)));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { held, port })
    }

    /// Its address under a host of the rollout's own, so that each is a server of its own to the operator.
    pub fn url(&self, rollout: usize) -> String {
        format!("http://127.1.{}.{}:{}", rollout / 250, rollout % 250 + 1, self.port)
    }

    /// Requests that wait for an answer.
    pub fn waiting(&self) -> usize {
        self.held.lock().values().filter(|sender| !sender.is_closed()).count()
    }

    /// Answers the request of one rollout.
    pub fn answer(&self, rollout: &str, value: f64) {
        if let Some(sender) = self.held.lock().remove(rollout) {
            let _ = sender.send(value);
        }
    }
}

async fn hold(State(held): State<Held>, Path(rollout): Path<String>) -> std::result::Result<Json<Value>, StatusCode> {
    let (sender, receiver) = oneshot::channel();
    held.lock().insert(rollout, sender);
    let value = receiver.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(json!({"value": value})))
}

async fn prometheus() -> Json<Value> {
    let now = jiff::Timestamp::now().as_second();
    Json(json!({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [now, "512.5"]}]}}))
}
