//! The users' verbs against a cluster.

mod order;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};

pub use crate::api::action::Verb as Action;

use super::error::CliError;
use super::status_view;
use super::table::Paint;
use crate::api::{VoiceAnalysisRun, VoiceRollout};

/// Limit of one request; kube's client has none and retries for minutes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often counts are read anew while a status is followed.
const COUNTS_EVERY: Duration = Duration::from_secs(10);
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
    /// Colours.
    pub paint: Paint,
    /// Standard output is a terminal: `--watch` repaints it.
    pub terminal: bool,
}

impl Session {
    fn rollouts(&self) -> Api<VoiceRollout> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Shows a rollout, once or as it changes.
    ///
    /// # Errors
    /// No such rollout, or no answer.
    pub async fn status(&self, name: &str, watch: bool, out: &mut impl Write) -> Result<(), CliError> {
        let rollout = self.find(name).await?;
        let runs = self.runs(&rollout).await;
        self.show(&rollout, &runs, watch, out)?;
        if watch { self.follow(name, rollout, runs, out).await } else { Ok(()) }
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

    async fn follow(
        &self,
        name: &str,
        mut shown: VoiceRollout,
        mut runs: Vec<VoiceAnalysisRun>,
        out: &mut impl Write,
    ) -> Result<(), CliError> {
        let mut changes = std::pin::pin!(watcher::watch_object(self.rollouts(), name).default_backoff());
        // Times such as "for 2m10s" go on between changes.
        let mut second = tokio::time::interval(Duration::from_secs(1));
        let mut counts = tokio::time::interval(COUNTS_EVERY);
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(Ok(Some(rollout))) => {
                        if rollout.resource_version() != shown.resource_version() {
                            shown = rollout;
                            runs = self.runs(&shown).await;
                            self.show(&shown, &runs, true, out)?;
                        }
                    }
                    Some(Ok(None)) => return Err(self.unknown(name, Vec::new())),
                    // The watch is started again by itself.
                    Some(Err(_)) => {}
                    None => return Ok(()),
                },
                _ = second.tick(), if self.terminal => self.show(&shown, &runs, true, out)?,
                _ = counts.tick(), if self.terminal => runs = self.runs(&shown).await,
            }
        }
    }

    fn show(&self, rollout: &VoiceRollout, runs: &[VoiceAnalysisRun], repaint: bool, out: &mut impl Write) -> Result<(), CliError> {
        // Home, and clear to the end (ECMA-48).
        let (before, after) = match (repaint, self.terminal) {
            (true, true) => ("\x1b[H\x1b[J", ""),
            (true, false) => ("", "\n"),
            _ => ("", ""),
        };
        say(out, &format!("{before}{}{after}", status_view::render(rollout, runs, Timestamp::now(), self.paint)))
    }

    /// The rollout, or an error that names similar ones.
    async fn find(&self, name: &str) -> Result<VoiceRollout, CliError> {
        let what = format!("read VoiceRollout {name} in namespace {}", self.namespace);
        let found = request(what, self.rollouts().get_opt(name)).await?;
        match found {
            Some(rollout) => Ok(rollout),
            None => Err(self.unknown(name, self.similar(name).await)),
        }
    }

    fn unknown(&self, name: &str, similar: Vec<String>) -> CliError {
        CliError::UnknownRollout { name: name.into(), namespace: self.namespace.clone(), similar }
    }

    /// Names in the namespace that look like `name`, nearest first. A courtesy: none when they cannot be listed.
    async fn similar(&self, name: &str) -> Vec<String> {
        let list = request("list VoiceRollouts", async { self.rollouts().list_metadata(&ListParams::default()).await }).await;
        let Ok(list) = list else { return Vec::new() };
        let mut near: Vec<_> = list.iter().map(|o| (strsim::jaro_winkler(name, &o.name_any()), o.name_any())).collect();
        near.retain(|(likeness, _)| *likeness > 0.75);
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        near.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect()
    }
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
