//! Health, readiness and metrics over HTTP.
//!
//! | path | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process can answer |
//! | `GET /readyz` | 200 when the caches have synced, 503 before |
//! | `GET /metrics` | metrics as OpenMetrics text |
//! | `GET /log-level` | what is logged |
//! | `PUT /log-level` | changes it to the body's text; from this machine only, and where it is not switched off |

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{Extensions, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::operator::process::stopped;
use crate::telemetry::LogHandle;

pub mod dashboard;
#[cfg(test)]
mod tests;

/// Time that requests under way have to finish when the process ends.
const GRACE: Duration = Duration::from_secs(5);
/// Limit of a request body, in bytes.
const MAX_BODY: usize = 4096;
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the server shows.
#[derive(Clone, Debug)]
pub struct App {
    /// Metrics of the process.
    pub metrics: Metrics,
    /// Whether the caches have synced.
    pub ready: watch::Receiver<bool>,
    /// Logging, where its level can be changed.
    pub log: Option<LogHandle>,
    /// Whether processes on this machine (in a pod: port-forwards, too) may change the log level.
    pub log_level_writable: bool,
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be used.
    #[error("listen on {address}: {source}; choose another address")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// It stopped by itself.
    #[error("serve health and metrics: {0}")]
    Serve(std::io::Error),
}

/// The server's routes. `PUT /log-level` needs [`ConnectInfo`] of a [`SocketAddr`], as [`serve`] gives it.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/log-level", get(log_level).put(set_log_level))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(app)
}

/// Opens `address`.
///
/// # Errors
/// When it is in use or may not be used.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| ServerError::Bind { address, source })
}

/// Serves until `stop` is true or its sender is gone; requests under way then have five seconds to finish.
///
/// # Errors
/// When the server stops by itself.
pub async fn serve(listener: TcpListener, app: App, stop: watch::Receiver<bool>) -> Result<(), ServerError> {
    let service = router(app).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(stopped(stop.clone()));
    tokio::select! {
        result = server => result.map_err(ServerError::Serve),
        () = late(stop) => Ok(()),
    }
}

/// Resolves when requests under way have had their time to finish.
async fn late(stop: watch::Receiver<bool>) {
    stopped(stop).await;
    tokio::time::sleep(GRACE).await;
}

async fn ready(State(app): State<App>) -> Response {
    if *app.ready.borrow() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the caches have not synced yet\n").into_response()
    }
}

async fn metrics(State(app): State<App>) -> Response {
    match app.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn log_level(State(app): State<App>) -> Response {
    let Some(log) = app.log else { return no_log() };
    match log.level() {
        Ok(level) => format!("{level}\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn set_log_level(State(app): State<App>, extensions: Extensions, level: String) -> Response {
    let from_here = extensions.get::<ConnectInfo<SocketAddr>>().is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    if !app.log_level_writable {
        return (StatusCode::FORBIDDEN, "changing the log level is switched off\n").into_response();
    }
    if !from_here {
        return (StatusCode::FORBIDDEN, "the log level can be changed from this machine only: use kubectl port-forward\n").into_response();
    }
    let Some(log) = app.log else { return no_log() };
    match log.set(level.trim()) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

fn no_log() -> Response {
    (StatusCode::NOT_FOUND, "this process has no log level that can be changed\n").into_response()
}
