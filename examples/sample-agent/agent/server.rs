//! The agent's HTTP side, and how it ends.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::calls::Calls;
use super::config::Config;
use super::{log, websocket, worker};

/// Every answer says which revision gave it.
const REVISION_HEADER: HeaderName = HeaderName::from_static("x-voice-revision");
/// After the last call: time for answers that are being written.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Serves calls until `shutdown`, and then those that are open until they end or the drain timeout.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, config: Config, shutdown: impl Future<Output = ()>) -> std::io::Result<()> {
    log::line(&config, "info", "listening", json!({"address": listener.local_addr()?.to_string()}));
    if let Some(text) = &config.log_line {
        log::line(&config, "warn", text, json!({}));
    }
    let calls = Arc::new(Calls::new(config));
    let (close, closed) = oneshot::channel::<()>();
    let server = axum::serve(listener, router(calls.clone())).with_graceful_shutdown(async {
        let _ = closed.await;
    });
    let mut server = tokio::spawn(server.into_future());
    let pulling = calls.config.dispatcher.clone().map(|address| tokio::spawn(worker::pull(calls.clone(), address)));
    tokio::select! {
        ended = &mut server => return ended.map_err(std::io::Error::other)?,
        () = shutdown => {}
    }
    if !calls.config.ignore_drain {
        drain(&calls).await;
        drop(close);
        let _ = tokio::time::timeout(LAST_ANSWERS, &mut server).await;
    }
    server.abort();
    pulling.inspect(tokio::task::JoinHandle::abort);
    Ok(())
}

async fn drain(calls: &Calls) {
    calls.leave();
    tokio::time::sleep(calls.config.lame_duck).await;
    calls.refuse();
    log::line(&calls.config, "info", "draining", json!({"calls": calls.open()}));
    let ended = tokio::time::timeout(calls.config.drain_timeout, calls.all_ended()).await;
    let message = if ended.is_ok() { "drained" } else { "drain timeout: open calls are cut" };
    log::line(&calls.config, if ended.is_ok() { "info" } else { "error" }, message, json!({"calls": calls.open()}));
}

fn router(calls: Arc<Calls>) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/call", get(call).post(call))
        .route("/ws", any(long_call))
        .route("/eval", get(eval).post(eval))
        .route("/metrics", get(metrics))
        .route("/worker", get(jobs))
        .layer(middleware::from_fn_with_state(calls.clone(), say_revision))
        .with_state(calls)
}

async fn say_revision(State(calls): State<Arc<Calls>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&calls.config.revision) {
        response.headers_mut().insert(REVISION_HEADER, value);
    }
    response
}

async fn health(State(calls): State<Arc<Calls>>) -> Response {
    if calls.is_leaving() { draining() } else { "ok\n".into_response() }
}

fn draining() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
}

/// Who answers.
fn identity(config: &Config) -> Value {
    json!({"version": config.version, "revision": config.revision, "pod": config.pod})
}

/// One short call: a single turn.
async fn call(State(calls): State<Arc<Calls>>) -> Response {
    let Some(mut call) = calls.begin() else { return draining() };
    let ms = call.turn();
    if calls.config.real_latency {
        tokio::time::sleep(Duration::from_secs_f64(ms / 1000.0)).await;
    }
    let good = call.end();
    let mut answer = identity(&calls.config);
    answer["firstTokenMs"] = json!(ms);
    answer["result"] = json!(if good { "ok" } else { "failed" });
    (if good { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }, Json(answer)).into_response()
}

/// A call that lasts until one side closes its WebSocket.
async fn long_call(State(calls): State<Arc<Calls>>, request: Request) -> Response {
    let Some(key) = websocket::accept_key(request.headers()) else {
        return (StatusCode::UPGRADE_REQUIRED, "open a WebSocket here\n").into_response();
    };
    let Some(call) = calls.begin() else { return draining() };
    let identity = identity(&calls.config);
    websocket::upgrade(request, key, |socket| websocket::talk(socket, call, identity))
}

#[derive(serde::Deserialize)]
struct Case {
    case: u64,
}

/// Answers "at what time is appointment N?". The right answer is 8 + N mod 10 o'clock; a wrong one is an hour late.
async fn eval(State(calls): State<Arc<Calls>>, Query(Case { case }): Query<Case>) -> Json<Value> {
    let right = knows(case, calls.config.eval_pass_rate);
    let mut answer = identity(&calls.config);
    answer["answer"] = json!(format!("{:02}:00", 8 + case % 10 + u64::from(!right)));
    Json(answer)
}

/// Whether a case is answered right. Steps of the golden ratio spread evenly, so that N cases in a row pass at the
/// rate to within a case or two: a rate of 0.95 does not look like 0.91 by chance.
fn knows(case: u64, pass_rate: f64) -> bool {
    #[allow(clippy::cast_precision_loss)] // case numbers are small
    let position = ((case + 1) as f64 * 0.618_033_988_749_894_9).fract();
    position < pass_rate
}

/// What a LiveKit worker says of itself, as far as a drain needs it.
async fn jobs(State(calls): State<Arc<Calls>>) -> Json<Value> {
    tokio::time::sleep(calls.config.worker_delay).await;
    let jobs = calls.config.worker_says.clone().unwrap_or_else(|| json!(calls.open()));
    Json(json!({"agent_name": "sample-agent", "active_jobs": jobs}))
}

async fn metrics(State(calls): State<Arc<Calls>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], calls.metrics.text())
}
