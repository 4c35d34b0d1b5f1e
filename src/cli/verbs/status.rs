//! `status`: one look, or until the release is over.

use std::io::Write;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::time::Instant;

use super::{Session, data, say};
use crate::api::{VoiceAnalysisRun, VoiceRollout};
use crate::cli::args::Output;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::status_view;

/// How often counts are read anew while a status is followed.
const COUNTS_EVERY: Duration = Duration::from_secs(10);

/// How a status is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Follow {
    /// Until the release is over.
    pub watch: bool,
    /// Not longer than this.
    pub timeout: Option<Duration>,
    /// The exit code says where it stands, for one look too.
    pub exit_code: bool,
    /// The object, in place of the view.
    pub output: Option<Output>,
}

impl Session {
    /// Shows a rollout, once or as it changes until the release is over.
    ///
    /// # Errors
    /// No such rollout, or no answer.
    pub async fn status(&self, name: &str, how: Follow, out: &mut impl Write) -> Result<Exit, CliError> {
        let rollout = self.find(name).await?;
        let over = Exit::of(&rollout);
        if how.watch && over == Exit::Unfinished {
            return self.follow(name, rollout, how, out).await;
        }
        self.show(&rollout, &self.runs(&rollout).await, how, false, out)?;
        Ok(if how.watch || how.exit_code { over } else { Exit::Done })
    }

    async fn follow(&self, name: &str, mut shown: VoiceRollout, how: Follow, out: &mut impl Write) -> Result<Exit, CliError> {
        let mut runs = self.runs(&shown).await;
        self.show(&shown, &runs, how, true, out)?;
        let end = how.timeout.map(|timeout| Instant::now() + timeout);
        let mut changes = std::pin::pin!(watcher::watch_object(self.rollouts(), name).default_backoff());
        // Times such as "for 2m10s" go on between changes.
        let mut second = tokio::time::interval(Duration::from_secs(1));
        let mut counts = tokio::time::interval(COUNTS_EVERY);
        let live = self.terminal && how.output.is_none();
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(Ok(Some(rollout))) => {
                        if rollout.resource_version() != shown.resource_version() {
                            shown = rollout;
                            runs = self.runs(&shown).await;
                            self.show(&shown, &runs, how, true, out)?;
                        }
                        let over = Exit::of(&shown);
                        if over != Exit::Unfinished {
                            return Ok(over);
                        }
                    }
                    Some(Ok(None)) => return Err(CliError::UnknownRollout { name: name.into(), namespace: self.namespace.clone(), similar: Vec::new() }),
                    Some(Err(error)) => if let Some(error) = CliError::of_watch(&format!("watch VoiceRollout {name} in namespace {}", self.namespace), &error) {
                        return Err(error);
                    },
                    None => return Ok(Exit::Unfinished),
                },
                _ = second.tick(), if live => self.show(&shown, &runs, how, true, out)?,
                _ = counts.tick(), if live => runs = self.runs(&shown).await,
                () = until(end), if end.is_some() => return Err(self.unfinished(&shown, how.timeout.unwrap_or_default())),
            }
        }
    }

    /// The time is over and the release is not.
    fn unfinished(&self, rollout: &VoiceRollout, timeout: Duration) -> CliError {
        let name = rollout.name_any();
        let status = rollout.status.clone().unwrap_or_default();
        let stands = match (status.waiting_for.as_str(), status.message.as_str()) {
            ("", "") => format!("{:?}", status.phase),
            ("", message) => format!("{:?}, {message}", status.phase),
            (waits, _) => format!("{:?}, waits for {waits}", status.phase),
        };
        CliError::Unknown {
            what: format!("VoiceRollout {name} is still under way after {}: {stands}", crate::core::window::span(timeout)),
            hint: format!("see {}", self.typed("explain", &name, "")),
        }
    }

    fn show(
        &self,
        rollout: &VoiceRollout,
        runs: &[VoiceAnalysisRun],
        how: Follow,
        repaint: bool,
        out: &mut impl Write,
    ) -> Result<(), CliError> {
        if let Some(output) = how.output {
            if repaint && output == Output::Yaml {
                say(out, "---\n")?;
            }
            let mut object = rollout.clone();
            object.metadata.managed_fields = None;
            return data(out, output, &object);
        }
        // Home, and clear to the end (ECMA-48).
        let (before, after) = match (repaint, self.terminal) {
            (true, true) => ("\x1b[H\x1b[J", ""),
            (true, false) => ("", "\n"),
            _ => ("", ""),
        };
        say(out, &format!("{before}{}{after}", status_view::render(rollout, runs, Timestamp::now(), self.paint)))
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
