//! The users' verbs against a cluster.

mod ask;
mod edit;
mod explain;
mod get;
mod history;
mod order;
mod progress;
mod status;
#[cfg(test)]
mod tests;
mod undo;
mod version;

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

pub use crate::api::action::Verb as Action;

use super::args::Output;
use super::error::CliError;
use super::table::Paint;
use crate::api::{VoiceAnalysisRun, VoiceRollout};

pub use ask::{Asker, terminal};
pub use order::Given;
pub use status::Follow;
pub use version::client as client_version;

/// Limit of one request; kube's client has none and retries for minutes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Similar names to suggest.
const SUGGESTIONS: usize = 3;

/// A cluster, a namespace, and how to talk to the person.
pub struct Session {
    /// The cluster.
    pub client: Client,
    /// Namespace of the rollouts.
    pub namespace: String,
    /// How the program was called, for hints.
    pub program: String,
    /// Colours and width.
    pub paint: Paint,
    /// Standard output is a terminal: `--watch` repaints it.
    pub terminal: bool,
    /// Somebody can be asked: standard input and standard error are terminals.
    pub interactive: bool,
    /// Asks who can be asked.
    pub asker: Asker,
}

impl Session {
    fn rollouts(&self) -> Api<VoiceRollout> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The runs whose gates count calls: their counts are newer there than in the rollout. A courtesy: none when they
    /// cannot be read.
    async fn runs(&self, rollout: &VoiceRollout) -> Vec<VoiceAnalysisRun> {
        let Some(status) = rollout.status.as_ref().filter(|s| s.gates.iter().any(|g| g.told_at.is_some())) else { return Vec::new() };
        let api: Api<VoiceAnalysisRun> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut runs = Vec::new();
        for record in &status.runs {
            if let Ok(Some(run)) = request("read a VoiceAnalysisRun", api.get_opt(&record.name)).await {
                runs.push(run);
            }
        }
        runs
    }

    /// The rollout, or an error that names similar ones.
    async fn find(&self, name: &str) -> Result<VoiceRollout, CliError> {
        let what = format!("read VoiceRollout {name} in namespace {}", self.namespace);
        let found = request(what, self.rollouts().get_opt(name)).await?;
        match found {
            Some(rollout) => Ok(rollout),
            None => Err(self.not_found(name).await),
        }
    }

    /// Why there is no such rollout: the name is wrong, or the cluster knows none.
    async fn not_found(&self, name: &str) -> CliError {
        let what = format!("list VoiceRollouts in namespace {}", self.namespace);
        let list = request(what, async { self.rollouts().list_metadata(&ListParams::default()).await }).await;
        let similar = match list {
            Ok(list) => near(name, list.iter().map(ResourceExt::name_any)),
            Err(error @ CliError::NotInstalled { .. }) => return error,
            // Names to suggest are a courtesy.
            Err(_) => Vec::new(),
        };
        CliError::UnknownRollout { name: name.into(), namespace: self.namespace.clone(), similar }
    }

    /// How to watch what was begun.
    fn watch_hint(&self, name: &str) -> String {
        format!("watch it: {}\n", self.typed("status", name, " --watch"))
    }

    /// A command as the person would type it.
    fn typed(&self, verb: &str, name: &str, rest: &str) -> String {
        format!("{} {verb} {name} -n {}{rest}", self.program, self.namespace)
    }
}

/// Those of the names that look like `name`, nearest first.
fn near(name: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let mut near: Vec<_> = names.map(|n| (strsim::jaro_winkler(name, &n), n)).collect();
    near.retain(|(likeness, _)| *likeness > 0.75);
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    near.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect()
}

/// Sends a request that is answered in time or is an error.
pub(super) async fn request<T>(what: impl Into<String>, request: impl Future<Output = kube::Result<T>>) -> Result<T, CliError> {
    let what = what.into();
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| CliError::of_kube(what, error)),
        Err(_) => Err(CliError::Connect { what, message: format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()) }),
    }
}

pub(super) fn say(out: &mut impl Write, text: &str) -> Result<(), CliError> {
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|source| CliError::Io { what: "print".into(), source })
}

/// Data as JSON or YAML.
fn data(out: &mut impl Write, output: Output, value: &impl Serialize) -> Result<(), CliError> {
    let failed = |e: String| CliError::Differs(format!("write the object: {e}"));
    let text = match output {
        Output::Json => serde_json::to_string_pretty(value).map_err(|e| failed(e.to_string()))? + "\n",
        Output::Yaml => serde_yaml::to_string(value).map_err(|e| failed(e.to_string()))?,
    };
    say(out, &text)
}
