//! The operator as a process: starts everything in order, and stops it in order.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::analysis::{self, AnalysisContext};
use super::cache::Cache;
use super::clock::Clock;
use super::controller::{self, Settings};
use super::leadership::Leadership;
use super::lease::{self, LeaseConfig};
use super::stores::{Onlooker, RunFeed};
use crate::core::notify::Defaults;
use crate::metrics::Metrics;
use crate::notify::Messenger;
use crate::sources::Source;
use crate::sources::calls::CallCounter;
use crate::sources::secrets::SecretReader;
use crate::telemetry::Tracer;

/// Longest time that passes under way get to finish at shutdown.
const SHUTDOWN: Duration = Duration::from_secs(20);

/// What the operator is started with.
pub struct Operator {
    /// The client.
    pub client: Client,
    /// The time.
    pub clock: Clock,
    /// Namespaces to watch; empty: all.
    pub namespaces: Vec<String>,
    /// Namespace of the operator itself: its Lease, and Secrets of cluster templates.
    pub own_namespace: String,
    /// Name of this process.
    pub identity: String,
    /// The Lease to hold; `None` for a process that is the only one.
    pub lease: Option<LeaseConfig>,
    /// Analysis providers.
    pub sources: Arc<dyn Source>,
    /// Counts live calls.
    pub calls: Arc<dyn CallCounter>,
    /// Reads the Secrets of gates.
    pub secrets: Arc<dyn SecretReader>,
    /// Sends messages.
    pub messenger: Arc<Messenger>,
    /// Notifications of every rollout.
    pub notifications: Defaults,
    /// Figures for Prometheus.
    pub metrics: Arc<Metrics>,
    /// Takes what traces show.
    pub tracer: Tracer,
    /// The chart's admission policy vouches for `requestedBy`.
    pub actions_verified: bool,
    /// Becomes true when every cache is filled.
    pub ready: watch::Sender<bool>,
    /// Who hears what the watches bring: one for each watched namespace, one when all are watched, or nobody.
    pub onlookers: Vec<Arc<dyn Onlooker>>,
}

impl Operator {
    /// Runs both controllers until `stop` is true, then lets passes under way finish and gives the Lease up. One that does
    /// not finish in time is ended in the middle of a request, which may still be carried out: then the Lease runs out by
    /// itself, as after a crash, and whoever takes it writes after that request.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let (give_up, given_up) = watch::channel(false);
        let (leadership, lease) = match self.lease {
            Some(config) => {
                let (leadership, task) = lease::start(self.client.clone(), config, self.clock.clone(), given_up);
                (leadership, Some(task))
            }
            None => (Leadership::always(), None),
        };
        self.metrics.follow_leader(leadership.changes());
        let scopes: Vec<_> = if self.namespaces.is_empty() { vec![None] } else { self.namespaces.into_iter().map(Some).collect() };
        let mut runs = Cache::default();
        let (feeds, run_changes): (Vec<_>, Vec<_>) = scopes.iter().map(|_| RunFeed::new(&mut runs)).unzip();
        let onlooker = |at: usize| self.onlookers.get(at).cloned();
        let feeds: Vec<_> = feeds.into_iter().enumerate().map(|(at, feed)| feed.heard_by(onlooker(at))).collect();
        let settings = Settings {
            client: self.client.clone(),
            onlookers: self.onlookers,
            scopes: scopes.clone(),
            runs,
            run_changes,
            leadership: leadership.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            tracer: self.tracer.clone(),
            identity: self.identity,
            actions_verified: self.actions_verified,
            calls: self.calls,
            messenger: self.messenger,
            notifications: self.notifications,
            ready: self.ready,
        };
        let context = Arc::new(AnalysisContext {
            client: self.client,
            clock: self.clock,
            leadership,
            sources: self.sources,
            secrets: self.secrets,
            operator_namespace: self.own_namespace,
            metrics: self.metrics,
            tracer: self.tracer,
        });
        // Tasks of their own, so that neither waits for the other's work. They end when this future does.
        let mut controllers = JoinSet::new();
        controllers.spawn(controller::run(settings, stopped(stop.clone())));
        for (namespace, feed) in scopes.into_iter().zip(feeds) {
            controllers.spawn(analysis::run(context.clone(), namespace, feed, stopped(stop.clone())));
        }
        let work = async {
            while let Some(ended) = controllers.join_next().await {
                // Nobody would act in the place of one that panicked: then the process ends.
                if let Err(Ok(panic)) = ended.map_err(JoinError::try_into_panic) {
                    std::panic::resume_unwind(panic);
                }
            }
        };
        let late = async {
            stopped(stop.clone()).await;
            tokio::time::sleep(SHUTDOWN).await;
        };
        let finished = tokio::select! {
            () = work => true,
            () = late => false,
        };
        controllers.shutdown().await;
        match lease {
            Some(task) if finished => {
                tracing::info!("controllers stopped");
                give_up.send_replace(true);
                let _ = task.await;
            }
            Some(task) => {
                tracing::warn!("controllers did not stop in time: the next leader waits for the end of the lease");
                task.abort();
            }
            None => {}
        }
    }
}

/// Resolves when `stop` is true or its sender is gone.
pub async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// True on SIGTERM or SIGINT.
///
/// # Errors
/// When signals cannot be received.
pub fn stop_on_signal() -> std::io::Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = watch::channel(false);
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("stopping");
        sender.send_replace(true);
        // The sender lives on, or the receivers would see an end without the value.
        std::future::pending::<()>().await;
    });
    Ok(receiver)
}
