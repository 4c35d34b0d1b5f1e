//! `get`: the list of releases.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{Session, data, request, say};
use crate::api::VoiceRollout;
use crate::cli::args::{GetArgs, GetOutput, Output};
use crate::cli::error::CliError;
use crate::cli::list_view::{self, Columns};

/// How often the table is painted anew while it is followed, at most.
const REPAINT_EVERY: Duration = Duration::from_secs(1);

type Known = BTreeMap<(String, String), VoiceRollout>;

impl Session {
    /// Lists rollouts, once or as they change.
    ///
    /// # Errors
    /// A name that is not there, or no answer.
    pub async fn get(&self, args: &GetArgs, out: &mut impl Write) -> Result<(), CliError> {
        let columns = Columns { namespace: args.all_namespaces, wide: args.output == Some(GetOutput::Wide) };
        let api = if args.all_namespaces { Api::all(self.client.clone()) } else { self.rollouts() };
        let mut all = self.look(&api, args).await?;
        if args.watch {
            return self.follow_list(api, args, columns, out).await;
        }
        all.iter_mut().for_each(|r| r.metadata.managed_fields = None);
        match (args.output, &all[..]) {
            (Some(GetOutput::Json), [one]) if args.names.len() == 1 => data(out, Output::Json, one),
            (Some(GetOutput::Yaml), [one]) if args.names.len() == 1 => data(out, Output::Yaml, one),
            (Some(GetOutput::Json), _) => data(out, Output::Json, &json!({"apiVersion": "v1", "kind": "List", "items": all})),
            (Some(GetOutput::Yaml), _) => data(out, Output::Yaml, &json!({"apiVersion": "v1", "kind": "List", "items": all})),
            (Some(GetOutput::Name), _) => all.iter().try_for_each(|r| say(out, &name_line(r))),
            (_, []) => self.nothing_there(args, out),
            _ => self.table(&all.iter().collect::<Vec<_>>(), columns, out),
        }
    }

    /// What there is now, in time or not at all. A watch would try again without a word.
    async fn look(&self, api: &Api<VoiceRollout>, args: &GetArgs) -> Result<Vec<VoiceRollout>, CliError> {
        let mut all = Vec::new();
        for name in &args.names {
            all.push(self.find(name).await?);
        }
        if !args.names.is_empty() {
            return Ok(all);
        }
        let what = match args.all_namespaces {
            true => "list VoiceRollouts of all namespaces".to_owned(),
            false => format!("list VoiceRollouts in namespace {}", self.namespace),
        };
        // Who goes on to watch gets them all there.
        let limit = args.watch.then_some(1);
        let params = ListParams { label_selector: args.selector.clone(), limit, ..ListParams::default() };
        Ok(request(what, api.list(&params)).await?.items)
    }

    fn nothing_there(&self, args: &GetArgs, out: &mut impl Write) -> Result<(), CliError> {
        let place = if args.all_namespaces { "this cluster".into() } else { format!("namespace {}", self.namespace) };
        let which = args.selector.as_ref().map(|s| format!(" with the labels {s}")).unwrap_or_default();
        say(out, &format!("there is no VoiceRollout{which} in {place}\n"))
    }

    fn table(&self, rollouts: &[&VoiceRollout], columns: Columns, out: &mut impl Write) -> Result<(), CliError> {
        say(out, &(list_view::render(rollouts, columns, Timestamp::now(), self.paint).join("\n") + "\n"))
    }

    /// On a terminal the whole table, painted anew; elsewhere a line for each change.
    async fn follow_list(&self, api: Api<VoiceRollout>, args: &GetArgs, columns: Columns, out: &mut impl Write) -> Result<(), CliError> {
        let config = args.selector.iter().fold(watcher::Config::default(), |config, s| config.labels(s));
        let mut changes = std::pin::pin!(watch(api, config).default_backoff());
        let mut second = tokio::time::interval(REPAINT_EVERY);
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let live = self.terminal && matches!(args.output, None | Some(GetOutput::Wide));
        let (mut known, mut listed, mut first) = (Known::new(), false, true);
        let wanted = |r: &VoiceRollout| args.names.is_empty() || args.names.contains(&r.name_any());
        loop {
            tokio::select! {
                change = changes.next() => {
                    let (mut rollout, gone) = match change {
                        Some(Ok(Event::Init)) => { known.clear(); continue }
                        Some(Ok(Event::InitDone)) => { listed = true; continue }
                        Some(Ok(Event::InitApply(r) | Event::Apply(r))) => (r, false),
                        Some(Ok(Event::Delete(r))) => (r, true),
                        Some(Err(error)) => match CliError::of_watch("watch VoiceRollouts", &error) {
                            Some(error) => return Err(error),
                            None => continue,
                        },
                        None => return Ok(()),
                    };
                    if !wanted(&rollout) {
                        continue;
                    }
                    rollout.metadata.managed_fields = None;
                    if !live {
                        self.changed(&rollout, (args.output, columns), gone, first, out)?;
                        first = false;
                    }
                    let key = (rollout.namespace().unwrap_or_default(), rollout.name_any());
                    if gone { known.remove(&key) } else { known.insert(key, rollout) };
                }
                _ = second.tick(), if live && listed => {
                    say(out, "\x1b[H\x1b[J")?;
                    self.table(&known.values().collect::<Vec<_>>(), columns, out)?;
                }
            }
        }
    }

    fn changed(
        &self,
        rollout: &VoiceRollout,
        (output, columns): (Option<GetOutput>, Columns),
        gone: bool,
        first: bool,
        out: &mut impl Write,
    ) -> Result<(), CliError> {
        match output {
            Some(GetOutput::Json) => data(out, Output::Json, rollout),
            Some(GetOutput::Yaml) => say(out, "---\n").and_then(|()| data(out, Output::Yaml, rollout)),
            Some(GetOutput::Name) => say(out, &name_line(rollout)),
            _ => {
                let mut lines = list_view::render(&[rollout], columns, Timestamp::now(), self.paint);
                if !first {
                    lines.remove(0);
                }
                let gone = if gone { " (deleted)" } else { "" };
                say(out, &format!("{}{gone}\n", lines.join("\n")))
            }
        }
    }
}

fn name_line(rollout: &VoiceRollout) -> String {
    format!("voicerollout.voicerollout.dev/{}\n", rollout.name_any())
}
