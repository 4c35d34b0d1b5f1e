//! The controller of VoiceAnalysisRun: persists what a run is about to do, measures on a bounded pool, persists what came
//! of it. The rules are in [`crate::core::gates`].

mod backoff;
mod controller;
mod gatepool;
mod memo;
mod request;
pub mod secrets;
mod spending;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::{FutureExt, Stream, StreamExt};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, WatchStreamExt, controller as kube_controller, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::cache::events;
use super::clock::Clock;
use super::kept::without_record;
use super::leadership::Leadership;
use super::stores::{RunFeed, scoped};
use super::write::WRITE_TIMEOUT;
use crate::api::VoiceAnalysisRun;
use crate::metrics::Metrics;
use crate::sources::Source;
use crate::sources::secrets::SecretReader;
use crate::telemetry::Tracer;

pub use gatepool::Limits;

/// An object that may fail to parse without stopping the others.
type Guarded = DeserializeGuard<VoiceAnalysisRun>;

/// Runs that are reconciled at the same time. Measurements are not part of a reconcile.
const CONCURRENCY: u16 = 16;

/// Time that reconciles under way get when the controller is stopped.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// What the controller needs.
pub struct AnalysisContext {
    /// Client for the API server.
    pub client: Client,
    /// The time.
    pub clock: Clock,
    /// Whether this process may write and measure.
    pub leadership: Leadership,
    /// The providers.
    pub sources: Arc<dyn Source>,
    /// Reads the Secrets of arguments.
    pub secrets: Arc<dyn SecretReader>,
    /// Namespace of the operator: Secrets of cluster templates live here.
    pub operator_namespace: String,
    /// Figures for Prometheus.
    pub metrics: Arc<Metrics>,
    /// Takes what traces show.
    pub tracer: Tracer,
}

/// Runs the controller until `stop`, for one namespace or all. Its watch fills `feed`. A process that does not lead keeps
/// its cache and does nothing else; when it begins to lead, every run is looked at.
pub async fn run(
    ctx: Arc<AnalysisContext>,
    namespace: Option<String>,
    feed: RunFeed,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let api: Api<Guarded> = scoped(&ctx.client, namespace.as_deref());
    let (wake, finished) = mpsc::unbounded();
    let leads = leadership_changes(ctx.leadership.changes());
    let (store, writer) = reflector::store();
    let state = Arc::new(controller::State::new(ctx, Limits::default(), wake, feed.clone(), store.clone()));
    // Also when this future is dropped: its measurements must not outlive it.
    let _tasks = EndTasks(state.clone());
    let changes = events(api, watcher::Config::default())
        .inspect(move |event| {
            if let Ok(event) = event {
                feed.take(event);
            }
        })
        .modify(without_record)
        .reflect(writer)
        .touched_objects();
    let stop = stop.shared();
    let controller = Controller::for_stream(changes, store)
        .with_config(kube_controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(finished)
        .reconcile_all_on(leads)
        .graceful_shutdown_on(stop.clone())
        .run(controller::reconcile, controller::on_error, state.clone())
        .for_each(|outcome| {
            if let Err(error) = outcome {
                settle_error(&state, &error);
            }
            std::future::ready(())
        });
    // A controller that is stopped before its first list has come would wait for it without end.
    let patience = stop.then(|()| tokio::time::sleep(SHUTDOWN));
    futures::future::select(pin!(controller), pin!(patience)).await;
}

/// Ends all measurements when it goes out of scope.
struct EndTasks(Arc<controller::State>);

impl Drop for EndTasks {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}

/// A run that is gone takes its measurements with it; other errors have been told by the error policy.
fn settle_error(state: &controller::State, error: &kube_controller::Error<controller::RunError, watcher::Error>) {
    match error {
        kube_controller::Error::ObjectNotFound(gone) => {
            if let Some(uid) = &gone.extra.uid {
                state.forget(uid);
            }
        }
        kube_controller::Error::QueueError(error) => tracing::warn!(%error, "watching VoiceAnalysisRuns"),
        _ => {}
    }
}

/// One item whenever this process begins or ceases to lead. Renewals of an unbroken claim say nothing.
fn leadership_changes(claim: watch::Receiver<Option<Instant>>) -> impl Stream<Item = ()> + Send {
    let until = *claim.borrow();
    futures::stream::unfold((claim, until), |(mut claim, mut until)| async move {
        loop {
            if claim.changed().await.is_err() {
                // The claim never changes again; neither does what follows from it.
                std::future::pending::<()>().await;
            }
            let (before, soon) = (until, Instant::now() + WRITE_TIMEOUT);
            until = *claim.borrow_and_update();
            let led = before.is_some_and(|t| t > soon);
            let leads = until.is_some_and(|t| t > soon);
            if led != leads {
                return Some(((), (claim, until)));
            }
        }
    })
}

/// Reference for the work queue.
fn reference(run: &VoiceAnalysisRun) -> ObjectRef<Guarded> {
    let mut reference = ObjectRef::<Guarded>::new(&run.name_any());
    reference.namespace = run.namespace();
    reference.extra.uid = run.uid();
    reference
}

/// Limit of one read; kube's client has none.
const READ_TIMEOUT: Duration = WRITE_TIMEOUT;

#[cfg(test)]
mod tests;
