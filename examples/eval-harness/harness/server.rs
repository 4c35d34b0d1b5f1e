//! The harness's HTTP side.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::config::Config;
use super::runs::Runs;
use super::suite::{self, Plan, Totals};

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
        .route("/api/runs", get(list))
        .with_state(harness);
    axum::serve(listener, router).await
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ask {
    suite: String,
    #[serde(default)]
    version: String,
    target: Option<String>,
    cases: Option<u64>,
    duration_ms: Option<u64>,
}

async fn run(State(harness): State<Arc<Harness>>, headers: HeaderMap, Query(ask): Query<Ask>) -> Response {
    let config = &harness.config;
    let plan = Plan {
        suite: ask.suite,
        version: ask.version,
        target: ask.target.unwrap_or_else(|| config.target.clone()),
        cases: ask.cases.unwrap_or(config.cases),
        duration: ask.duration_ms.map_or(config.duration, Duration::from_millis),
    };
    let key = headers.get("idempotency-key").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let (number, mut outcome, new) = harness.runs.claim(key, &plan);
    if new {
        // A task of its own: the run goes on when the caller hangs up, and is there when it asks again.
        let (harness, plan) = (harness.clone(), plan.clone());
        tokio::spawn(async move {
            let result = suite::run(&harness.client, &plan).await;
            harness.runs.finish(number, result);
        });
    }
    match outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
        Ok(Some(Ok(totals))) => Json(report(config, number, &plan, totals)).into_response(),
        Ok(Some(Err(error))) => (StatusCode::BAD_GATEWAY, Json(json!({"id": number, "error": error}))).into_response(),
        Ok(None) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn report(config: &Config, number: usize, plan: &Plan, totals: Totals) -> Value {
    json!({
        "id": number,
        "suite": plan.suite,
        "suiteVersion": config.suite_version,
        "version": plan.version,
        "passRate": totals.pass_rate(),
        "totals": totals,
    })
}

async fn list(State(harness): State<Arc<Harness>>) -> Json<Value> {
    Json(harness.runs.list())
}
