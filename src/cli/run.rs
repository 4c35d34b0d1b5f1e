//! `run`: the operator.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tokio::sync::watch;

use super::args::RunArgs;
use super::error::{CliError, chain};
use crate::core::notify::Defaults;
use crate::memory;
use crate::metrics::Metrics;
use crate::notify::Messenger;
use crate::operator::analysis::secrets::KubeSecrets;
use crate::operator::clock::Clock;
use crate::operator::lease::LeaseConfig;
use crate::operator::process::{Operator, stop_on_signal};
use crate::operator::stores::Onlooker;
use crate::server::dashboard::{Board, Cluster, Dashboard, Hosts};
use crate::server::{self, App, ServerError, bind};
use crate::sources::egress::{Allow, Egress};
use crate::sources::judge::logs::KubeLogs;
use crate::sources::post::Poster;
use crate::sources::{Sources, SourcesConfig};
use crate::telemetry::{self, Tracer};

/// Longest time that the last spans may take at the end.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Runs the operator until it is told to stop.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(args: RunArgs) -> Result<(), CliError> {
    let fail = |what: &str, e: &dyn std::error::Error| CliError::Connect { what: what.into(), message: chain(e) };
    let log = telemetry::init(&args.log).map_err(|e| fail("set up logging", &e))?;
    let stop = stop_on_signal().map_err(|e| fail("receive signals", &e))?;
    let metrics = Metrics::new();
    let config = Config::infer().await.map_err(|e| fail("find a cluster (the account of the pod, or a kubeconfig)", &e))?;
    let egress = egress(&args, &config).await?;
    let (dashboard, onlookers) = dashboard(&args, &config, &metrics)?.unzip();
    let client = connect(config, &metrics).map_err(|e| fail("set up the connection", &e))?;
    let identity = args.identity.clone().unwrap_or_else(own_name);
    let lease = LeaseConfig {
        duration: args.lease_duration,
        renew: args.lease_renew_period,
        ..LeaseConfig::new(&args.namespace, &args.lease_name, &identity)
    };
    if let Some(message) = lease.problem() {
        return Err(CliError::Connect { what: "--lease-duration, --lease-renew-period".into(), message });
    }
    let (tracer, sent) = tracer(args.otlp_endpoint.as_deref(), &identity);
    let secrets = Arc::new(KubeSecrets::new(client.clone()));
    let logs = Arc::new(KubeLogs::new(client.clone()));
    let settings = SourcesConfig {
        egress,
        operator_namespace: args.namespace.clone(),
        user_agent: concat!("voicerollout/", env!("CARGO_PKG_VERSION")).into(),
    };
    let post = Arc::new(Poster::new(settings.egress.clone(), settings.user_agent.clone()));
    let messenger = Messenger::new(post, Arc::new(KubeSecrets::of_notifications(client.clone())), &args.namespace);
    let (ready, is_ready) = watch::channel(false);
    let sources = Arc::new(Sources::new(settings, secrets.clone(), logs));
    let operator = Operator {
        calls: sources.clone(),
        sources,
        secrets,
        messenger: Arc::new(messenger),
        notifications: notifications(args.notifications.as_deref()),
        client,
        clock: Clock::system(),
        namespaces: args.watch_namespaces.into_iter().filter(|n| !n.is_empty()).collect(),
        own_namespace: args.namespace,
        identity,
        lease: Some(lease),
        metrics: Arc::new(metrics.clone()),
        tracer,
        actions_verified: args.actions_verified,
        ready,
        onlookers: onlookers.unwrap_or_default(),
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = %args.listen, "starting");
    let app = App { metrics, ready: is_ready, log: Some(log), log_level_writable: !args.fixed_log_level };
    let server = serve(args.listen, app, stop.clone());
    let shown = show(dashboard, args.dashboard_listen, stop.clone());
    let work = operator.run(stop);
    tokio::pin!(server, shown, work);
    // Without health and metrics the process must not go on.
    tokio::select! {
        served = &mut server => match served {
            Ok(()) => work.await,
            Err(e) => return Err(fail("serve health and metrics", &e)),
        },
        shown = &mut shown => match shown {
            Ok(()) => work.await,
            Err(e) => return Err(fail("serve the dashboard", &e)),
        },
        () = &mut work => {}
        () = memory::give_back() => {}
    }
    // What the last passes told; all senders are gone with their controllers.
    if tokio::time::timeout(LAST_SPANS, sent).await.is_err() {
        tracing::warn!("spans dropped: the collector does not answer");
    }
    Ok(())
}

/// Takes spans, and resolves when the last ones are sent. An address that is wrong stops no release: others may have set it,
/// for all programs of the cluster.
fn tracer(endpoint: Option<&str>, identity: &str) -> (Tracer, BoxFuture<'static, ()>) {
    let nowhere = || (Tracer::default(), std::future::ready(()).boxed());
    let Some(endpoint) = endpoint.filter(|e| !e.is_empty()) else { return nowhere() };
    match Tracer::to_collector(endpoint, identity) {
        Ok((tracer, sending)) => {
            let sending = tokio::spawn(sending);
            // A panic has been logged, and keeps nobody from ending.
            (tracer, async move { drop(sending.await) }.boxed())
        }
        Err(error) => {
            tracing::error!(%error, "traces are not sent");
            nowhere()
        }
    }
}

async fn serve(address: SocketAddr, app: App, stop: watch::Receiver<bool>) -> Result<(), ServerError> {
    server::serve(bind(address).await?, app, stop).await
}

/// A dashboard, and what fills it.
type Shown = (Dashboard, Vec<Arc<dyn Onlooker>>);

/// The dashboard, if it is wanted.
fn dashboard(args: &RunArgs, config: &Config, metrics: &Metrics) -> Result<Option<Shown>, CliError> {
    if !args.dashboard {
        return Ok(None);
    }
    let fail = |e: kube::Error| CliError::Connect { what: "set up the connection of the dashboard".into(), message: chain(&e) };
    let reviewer = connect(config.clone(), metrics).map_err(fail)?;
    let bare = connect(Cluster::bare(config), metrics).map_err(fail)?;
    let board = Arc::new(Board::default());
    let watches = args.watch_namespaces.iter().filter(|n| !n.is_empty()).count().max(1);
    let onlookers = (0..watches).map(|_| Arc::new(board.feed()) as Arc<dyn Onlooker>).collect();
    let access = Arc::new(Cluster::new(reviewer, bare));
    Ok(Some((Dashboard::new(board, access, Hosts::of(args.dashboard_listen), args.dashboard_actions), onlookers)))
}

async fn show(dashboard: Option<Dashboard>, address: SocketAddr, stop: watch::Receiver<bool>) -> Result<(), ServerError> {
    let Some(dashboard) = dashboard else { return std::future::pending().await };
    let listener = bind(address).await?;
    tracing::info!(listen = %address, "dashboard");
    dashboard.serve(listener, stop).await
}

/// A file that is wrong stops no release: rollouts tell of it in a condition.
fn notifications(file: Option<&Path>) -> Defaults {
    let Some(file) = file else { return Defaults::default() };
    let defaults = match std::fs::read_to_string(file) {
        Ok(text) => Defaults::parse(&text),
        Err(error) => {
            Defaults { mistakes: vec![format!("the operator's notifications: read {}: {error}", file.display())], ..Defaults::default() }
        }
    };
    defaults.mistakes.iter().for_each(|mistake| tracing::error!("{mistake}"));
    defaults
}

fn connect(config: Config, metrics: &Metrics) -> Result<Client, kube::Error> {
    Ok(ClientBuilder::try_from(config)?.with_layer(&metrics.api_layer()).build())
}

/// Gates may not reach the API server, whatever its addresses.
async fn egress(args: &RunArgs, config: &Config) -> Result<Egress, CliError> {
    let parse = |entry: &String| {
        let wrong = |message: String| CliError::Connect { what: format!("--egress-allow {entry:?}"), message };
        entry.parse::<Allow>().map_err(wrong)
    };
    let allow = args.egress_allow.iter().filter(|e| !e.is_empty()).map(parse).collect::<Result<Vec<_>, _>>()?;
    let host = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = config.cluster_url.port_u16().unwrap_or(443);
    let mut deny_extra: Vec<IpAddr> = match tokio::net::lookup_host((host.as_str(), port)).await {
        Ok(found) => found.map(|a| a.ip()).collect(),
        Err(source) => return Err(CliError::Io { what: format!("look up the API server {host}"), source }),
    };
    deny_extra.extend(std::env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|h| h.parse::<IpAddr>().ok()));
    Ok(Egress { allow, deny_extra })
}

fn own_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}-{}", if host.is_empty() { "voicerollout" } else { host }, std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_collector_s_address_that_is_wrong_keeps_no_operator_from_running() {
        for endpoint in [None, Some(""), Some("collector:4317")] {
            let (tracer, sent) = tracer(endpoint, "pod-1");
            assert!(!tracer.is_heard(), "{endpoint:?}");
            sent.await;
        }
    }
}
