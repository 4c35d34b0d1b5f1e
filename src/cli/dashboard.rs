//! `dashboard`: the operator's page on this machine, with the rights of the person who runs it.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures::StreamExt;
use kube::api::{ListParams, WatchParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use super::args::DashboardArgs;
use super::connect;
use super::error::CliError;
use crate::api::{VoiceAnalysisRun, VoiceRollout};
use crate::operator::process::stop_on_signal;
use crate::operator::stores::{Guarded, Onlooker, scoped};
use crate::server::bind;
use crate::server::dashboard::refusal::credentials;
use crate::server::dashboard::{Board, Dashboard, Hosts, Local};

/// Objects in one answer to a list.
const PAGE: u32 = 100;
/// Time between attempts to watch.
const RETRY: Duration = Duration::from_secs(3);
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
    // Kept until the end, and gone with it.
    let _door = (!args.no_open).then(|| Door::new(&url)).and_then(Result::ok).inspect(Door::open);
    let feed = board.feed();
    let tell = |kind, why| told(&board, kind, why, &mut std::io::stderr());
    tokio::select! {
        served = dashboard.serve(listener, stop) => served.map_err(|e| fail("serve the dashboard", &e)),
        () = fill(&client, scope.as_deref(), &feed, &tell) => Ok(()),
    }
}

/// Says at once what would else be an empty page.
async fn may_list(client: &Client, namespace: Option<&str>) -> Result<(), CliError> {
    let api: Api<Guarded<VoiceRollout>> = scoped(client, namespace);
    let what = namespace.map_or_else(|| "list VoiceRollouts in all namespaces".into(), |n| format!("list VoiceRollouts in namespace {n}"));
    super::verbs::request(what, async { api.list(&ListParams::default().limit(1)).await }).await.map(drop)
}

async fn fill(client: &Client, namespace: Option<&str>, feed: &impl Onlooker, tell: &impl Fn(&'static str, Option<String>)) {
    let rollouts =
        follow(scoped::<Guarded<VoiceRollout>>(client, namespace), |event| feed.rollout(event), |why| tell("VoiceRollouts", why));
    let runs =
        follow(scoped::<Guarded<VoiceAnalysisRun>>(client, namespace), |event| feed.run(event), |why| tell("VoiceAnalysisRuns", why));
    tokio::join!(rollouts, runs);
}

/// Follows a kind for ever. Tells why it cannot, and that it can again: what cannot be watched is tried until it can, and
/// then listed anew.
async fn follow<K>(api: Api<K>, take: impl Fn(&watcher::Event<K>), tell: impl Fn(Option<String>))
where
    K: kube::Resource + Clone + std::fmt::Debug + Send + DeserializeOwned + 'static,
{
    loop {
        let mut events = watcher(api.clone(), watcher::Config::default().page_size(PAGE)).boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    take(&event);
                    if matches!(event, watcher::Event::InitDone) {
                        tell(None);
                    }
                }
                Err(error) => {
                    tell(Some(why(error)));
                    break;
                }
            }
        }
        // A list may be allowed where a watch is not: it would look like an end of the trouble.
        loop {
            tokio::time::sleep(RETRY).await;
            match api.watch(&WatchParams::default().timeout(1), "0").await {
                Ok(_) => break,
                Err(error) => tell(Some(why(watcher::Error::WatchStartFailed(error)))),
            }
        }
    }
}

/// Why a kind cannot be followed.
fn why(error: watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            credentials(&error).unwrap_or_else(|| CliError::of_kube("watch", error).to_string())
        }
        watcher::Error::WatchError(status) => CliError::of_kube("watch", kube::Error::Api(status)).to_string(),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

/// Keeps the page and the person up to date about a watch; each trouble is printed once.
fn told(board: &Board, kind: &'static str, why: Option<String>, out: &mut impl Write) {
    let why = why.map(|why| format!("{kind}: {why}"));
    let before = board.set_trouble(kind, why.clone());
    // That nobody reads it is no reason to stop.
    let _ = match (before, why) {
        (None, Some(why)) => writeln!(out, "what the dashboard shows may be old: {why}"),
        (Some(_), None) => writeln!(out, "{kind} are followed again"),
        _ => Ok(()),
    };
}

fn secret() -> Result<String, CliError> {
    let mut bytes = [0; SECRET];
    let mut from = std::fs::File::open("/dev/urandom").map_err(|source| CliError::Io { what: "make a secret".into(), source })?;
    std::io::Read::read_exact(&mut from, &mut bytes).map_err(|source| CliError::Io { what: "make a secret".into(), source })?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// A file that leads the browser to the address. All users of a machine can read the arguments of its programs, but only the
/// person this file. It goes with this value.
struct Door {
    folder: PathBuf,
    file: PathBuf,
}

impl Door {
    fn new(url: &str) -> std::io::Result<Self> {
        let random = secret().map_err(std::io::Error::other)?;
        let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        Self::at(&own.unwrap_or_else(std::env::temp_dir).join(format!("voicerollout-{random}")), url)
    }

    fn at(folder: &Path, url: &str) -> std::io::Result<Self> {
        std::fs::DirBuilder::new().mode(0o700).create(folder)?;
        let door = Self { folder: folder.to_owned(), file: folder.join("dashboard.html") };
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&door.file)?;
        // The address holds nothing that would need quotes.
        let head = r#"<meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>VoiceRollout</title>"#;
        writeln!(file, "<!doctype html>{head}<script>location.replace(\"{url}\")</script><a href=\"{url}\">The dashboard</a>")?;
        Ok(door)
    }

    /// A courtesy: the address is printed anyway.
    fn open(&self) {
        let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
        let mut command = std::process::Command::new(program);
        let _ = command.arg(&self.file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
        let _ = std::fs::remove_dir(&self.folder);
    }
}

#[cfg(test)]
mod tests;
