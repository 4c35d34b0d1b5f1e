//! `dashboard`: the operator's page on this machine, with the rights of the person who runs it.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures::StreamExt;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use super::args::DashboardArgs;
use super::connect;
use super::error::CliError;
use crate::api::{VoiceAnalysisRun, VoiceRollout};
use crate::operator::process::stop_on_signal;
use crate::operator::stores::{Guarded, Onlooker, scoped};
use crate::server::bind;
use crate::server::dashboard::{Board, Dashboard, Hosts, Local};

/// Objects in one answer to a list.
const PAGE: u32 = 100;
/// Random bytes of the secret.
const SECRET: usize = 24;

/// Serves the page until the person ends it.
///
/// # Errors
/// No usable kubeconfig, no right to list rollouts, or a port that is taken.
pub async fn dashboard(args: &DashboardArgs, out: &mut impl Write) -> Result<(), CliError> {
    let (client, namespace) = connect::connect(&args.connection).await?;
    let scope = (!args.all_namespaces).then_some(namespace);
    may_list(&client, scope.as_deref()).await?;
    let fail = |what: &str, e: &dyn std::fmt::Display| CliError::Connect { what: what.into(), message: e.to_string() };
    let secret = secret()?;
    let local = Local::new(client.clone(), &secret).await.map_err(|e| fail("open the dashboard", &e))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let listener = bind(address).await.map_err(|e| fail("open the dashboard", &e))?;
    let port = listener.local_addr().map_err(|source| CliError::Io { what: "open the dashboard".into(), source })?.port();
    let board = Arc::new(Board::default());
    let dashboard = Dashboard::new(board.clone(), Arc::new(local), Hosts::LoopbackPort(port), true);
    let stop = stop_on_signal().map_err(|source| CliError::Io { what: "receive signals".into(), source })?;
    // After the #: browsers keep that to themselves. The page sends it as a header.
    let url = format!("http://127.0.0.1:{port}/dashboard#token={secret}");
    let place = scope.as_deref().map_or_else(|| "all namespaces".into(), |n| format!("namespace {n}"));
    super::verbs::say(out, &format!("dashboard of {place}: {url}\nIt works for you alone, until you end it with Ctrl-C.\n"))?;
    if !args.no_open {
        open(&url);
    }
    let feed = board.feed();
    tokio::select! {
        served = dashboard.serve(listener, stop) => served.map_err(|e| fail("serve the dashboard", &e)),
        () = fill(&client, scope.as_deref(), &feed) => Ok(()),
    }
}

/// Says at once what would else be an empty page.
async fn may_list(client: &Client, namespace: Option<&str>) -> Result<(), CliError> {
    let api: Api<Guarded<VoiceRollout>> = scoped(client, namespace);
    let what = namespace.map_or_else(|| "list VoiceRollouts in all namespaces".into(), |n| format!("list VoiceRollouts in namespace {n}"));
    super::verbs::request(what, async { api.list(&ListParams::default().limit(1)).await }).await.map(drop)
}

async fn fill(client: &Client, namespace: Option<&str>, feed: &impl Onlooker) {
    let rollouts = follow(scoped::<Guarded<VoiceRollout>>(client, namespace), |event| feed.rollout(event));
    let runs = follow(scoped::<Guarded<VoiceAnalysisRun>>(client, namespace), |event| feed.run(event));
    tokio::join!(rollouts, runs);
}

/// Follows a kind for ever; what cannot be watched now is tried again.
async fn follow<K>(api: Api<K>, take: impl Fn(&watcher::Event<K>))
where
    K: kube::Resource + Clone + std::fmt::Debug + Send + DeserializeOwned + 'static,
{
    let events = watcher(api, watcher::Config::default().page_size(PAGE)).default_backoff();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => take(&event),
            Err(error) => tracing::debug!(%error, "watch"),
        }
    }
}

fn secret() -> Result<String, CliError> {
    let mut bytes = [0; SECRET];
    let mut from = std::fs::File::open("/dev/urandom").map_err(|source| CliError::Io { what: "make a secret".into(), source })?;
    std::io::Read::read_exact(&mut from, &mut bytes).map_err(|source| CliError::Io { what: "make a secret".into(), source })?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// A courtesy: the address is printed anyway.
fn open(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let _ = std::process::Command::new(program).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}
