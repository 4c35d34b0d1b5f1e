//! The dashboard: one page, a list of rollouts, one in detail, and a stream of what changes.
//!
//! | path | answer |
//! |---|---|
//! | `GET /dashboard` | the page; its scripts and style lie below it |
//! | `GET /dashboard/api/me` | who asks |
//! | `GET /dashboard/api/rollouts` | the list, as far as the caller may see it |
//! | `GET /dashboard/api/rollouts/NS/NAME` | one in detail, with its runs, as the API server shows it to the caller |
//! | `GET /dashboard/api/stream` | the list, then changes, as JSON objects on a line each |
//! | `POST /dashboard/api/rollouts/NS/NAME/actions` | a command in the caller's name |
//! | `GET /dashboard/api/actions/NS/NAME` | what the operator made of a command |
//!
//! The page holds no data and is open to all. Everything below `api` needs `Authorization: Bearer`, and nothing is kept
//! in a URL or a cookie.

pub mod access;
mod api;
pub mod board;
mod cached;
mod cluster;
mod history;
pub mod listener;
mod local;
mod origin;
mod page;
pub mod refusal;
mod seats;
mod steps;
mod stream;
mod view;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use access::{Access, Caller};
pub use board::Board;
pub use cluster::Cluster;
pub use local::Local;
pub use origin::Hosts;

use self::seats::Seats;
use super::{ServerError, late};
use crate::operator::process::stopped;

/// Limit of a request body, in bytes.
const MAX_BODY: usize = 4096;

/// What the dashboard is made of. Clones share it.
#[derive(Clone)]
pub struct Dashboard {
    board: Arc<Board>,
    access: Arc<dyn Access>,
    hosts: Hosts,
    /// Commands may be given.
    actions: bool,
    seats: Arc<Seats>,
    /// True: streams end.
    stop: Option<watch::Receiver<bool>>,
}

impl Dashboard {
    /// A dashboard that shows `board` to those whom `access` lets in; with `actions` its buttons work.
    pub fn new(board: Arc<Board>, access: Arc<dyn Access>, hosts: Hosts, actions: bool) -> Self {
        Self { board, access, hosts, actions, seats: Arc::default(), stop: None }
    }

    /// Its routes.
    pub fn router(self) -> Router {
        let hosts = self.hosts;
        let api = Router::new()
            .route("/me", get(api::me))
            .route("/rollouts", get(api::list))
            .route("/rollouts/{namespace}/{name}", get(api::detail))
            .route("/rollouts/{namespace}/{name}/actions", post(api::act))
            .route("/actions/{namespace}/{name}", get(api::outcome))
            .route("/stream", get(stream::open))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(from_fn_with_state(hosts, origin::own_page))
            .with_state(self);
        page::routes().nest("/dashboard/api", api).layer(from_fn_with_state(hosts, origin::by_name))
    }

    /// Serves until `stop` is true or its sender is gone. Streams end at once, other requests have five seconds to finish.
    ///
    /// # Errors
    /// When the server stops by itself.
    pub async fn serve(mut self, listener: TcpListener, stop: watch::Receiver<bool>) -> Result<(), ServerError> {
        self.stop = Some(stop.clone());
        let server = axum::serve(listener::Patient::new(listener), self.router()).with_graceful_shutdown(stopped(stop.clone()));
        tokio::select! {
            result = server => result.map_err(ServerError::Serve),
            () = late(stop) => Ok(()),
        }
    }
}
