//! The harness's HTTP side.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::config::Config;
use super::report;
use super::runs::{Ended, Outcome, Runs};
use super::suite::{self, Plan, Stable};

struct Harness {
    config: Config,
    client: reqwest::Client,
    runs: Runs,
}

/// Serves until the process ends.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, config: Config) -> std::io::Result<()> {
    let harness = Arc::new(Harness { config, client: reqwest::Client::new(), runs: Runs::default() });
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/api/run", get(run).post(run))
        .route("/api/runs", get(list).post(start))
        .route("/api/paired", post(start_paired))
        .route("/api/runs/{id}", get(show).delete(cancel))
        .route("/api/runs/{id}/cancel", post(cancel))
        .with_state(harness);
    axum::serve(listener, router).await
}

/// What a caller asks for, in the query or as a JSON body.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ask {
    suite: String,
    #[serde(default)]
    version: String,
    target: Option<String>,
    #[serde(default)]
    stable_version: String,
    stable_target: Option<String>,
    cases: Option<u64>,
    duration_ms: Option<u64>,
    seed: Option<u32>,
}

impl Harness {
    /// A frozen suite unless a seed is asked for; a paired run that names none draws its questions by its key.
    fn plan(&self, ask: Ask, paired: Option<&HeaderMap>) -> Plan {
        let config = &self.config;
        let drawn = || paired.and_then(key).map_or(0, |key| suite::draw(&key));
        let seed = ask.seed.unwrap_or_else(drawn);
        let stable = || Stable { version: ask.stable_version, target: ask.stable_target.unwrap_or_else(|| config.stable_target.clone()) };
        Plan {
            suite: ask.suite,
            version: ask.version,
            target: ask.target.unwrap_or_else(|| config.target.clone()),
            stable: paired.map(|_| stable()),
            cases: ask.cases.unwrap_or(config.cases),
            duration: ask.duration_ms.map_or(config.duration, Duration::from_millis),
            seed,
        }
    }

    /// Begins a run, unless its key has begun one.
    fn begin(self: &Arc<Self>, headers: &HeaderMap, plan: &Plan) -> (usize, watch::Receiver<Outcome>) {
        let (number, outcome, new) = self.runs.claim(key(headers), plan);
        if new {
            // A task of its own: the run goes on when the caller hangs up, and is there when it asks again.
            let (harness, plan, mut given_up) = (self.clone(), plan.clone(), outcome.clone());
            tokio::spawn(async move {
                let ended = tokio::select! {
                    result = suite::run(&harness.client, &plan) => result.map_or_else(Ended::Failed, Ended::Done),
                    _ = given_up.wait_for(Option::is_some) => return,
                };
                harness.runs.end(number, ended);
            });
        }
        (number, outcome)
    }

    fn accepted(self: &Arc<Self>, headers: &HeaderMap, plan: &Plan) -> Response {
        let (number, outcome) = self.begin(headers, plan);
        let outcome = outcome.borrow().clone();
        (StatusCode::ACCEPTED, Json(report::state(&self.config, number, plan, &outcome))).into_response()
    }
}

fn key(headers: &HeaderMap) -> Option<String> {
    headers.get("idempotency-key").and_then(|v| v.to_str().ok()).map(str::to_owned)
}

/// Runs a suite and answers when it has ended.
async fn run(State(harness): State<Arc<Harness>>, headers: HeaderMap, Query(ask): Query<Ask>) -> Response {
    let plan = harness.plan(ask, None);
    let (number, mut outcome) = harness.begin(&headers, &plan);
    match outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
        Ok(Some(Ended::Done(result))) => Json(report::result(&harness.config, number, &plan, &result)).into_response(),
        Ok(Some(Ended::Failed(error))) => (StatusCode::BAD_GATEWAY, Json(json!({"id": number, "error": error}))).into_response(),
        Ok(Some(Ended::Cancelled)) => (StatusCode::CONFLICT, Json(json!({"id": number, "error": "cancelled"}))).into_response(),
        Ok(None) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn start(State(harness): State<Arc<Harness>>, headers: HeaderMap, Json(ask): Json<Ask>) -> Response {
    let plan = harness.plan(ask, None);
    harness.accepted(&headers, &plan)
}

async fn start_paired(State(harness): State<Arc<Harness>>, headers: HeaderMap, Json(ask): Json<Ask>) -> Response {
    let plan = harness.plan(ask, Some(&headers));
    harness.accepted(&headers, &plan)
}

async fn show(State(harness): State<Arc<Harness>>, Path(id): Path<usize>) -> Response {
    match harness.runs.get(id) {
        Some((plan, outcome)) => Json(report::state(&harness.config, id, &plan, &outcome)).into_response(),
        None => unknown(id),
    }
}

async fn cancel(State(harness): State<Arc<Harness>>, Path(id): Path<usize>) -> Response {
    harness.runs.end(id, Ended::Cancelled);
    match harness.runs.get(id) {
        Some((plan, outcome)) => Json(report::state(&harness.config, id, &plan, &outcome)).into_response(),
        None => unknown(id),
    }
}

fn unknown(id: usize) -> Response {
    (StatusCode::NOT_FOUND, Json(json!({"error": format!("there is no run {id}")}))).into_response()
}

async fn list(State(harness): State<Arc<Harness>>) -> Json<Value> {
    Json(harness.runs.list())
}
