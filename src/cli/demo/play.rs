//! Plays a scenario: starts a server, a world and the shipped controllers, makes the releases and watches them.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::printing;
use super::table::Table;
use crate::api::action::Verb;
use crate::api::common::{seconds, std_duration};
use crate::api::status::Phase;
use crate::api::{VoiceRollout, VoiceRolloutAction, VoiceRolloutStatus};
use crate::cli::error::CliError;
use crate::cli::table::Paint;
use crate::core::notify::Defaults;
use crate::metrics::Metrics;
use crate::notify::Messenger;
use crate::operator::clock::Clock;
use crate::operator::process::Operator;
use crate::sim::scenario::{Release, Scenario, UserAction};
use crate::sim::sources::ScenarioSources;
use crate::sim::{Nowhere, SimServer, World};
use crate::sources::SourceError;
use crate::sources::secrets::SecretReader;
use crate::telemetry::Tracer;

/// Time that a demo begins at.
const START: &str = "2026-01-05T09:00:00Z";

/// Scenarios need no Secrets: their providers answer without, and something stands in for each.
struct StandIns;

impl SecretReader for StandIns {
    fn read<'a>(
        &'a self,
        _: &'a str,
        secret: &'a crate::api::common::SecretKeyRef,
    ) -> futures::future::BoxFuture<'a, Result<String, SourceError>> {
        Box::pin(std::future::ready(Ok(format!("https://stand-in.invalid/{}-of-{}", secret.key, secret.name))))
    }
}

/// A stage: everything that runs while a scenario is played.
struct Stage {
    scenario: Arc<Scenario>,
    world: World,
    client: Client,
    clock: Clock,
    speed: Option<f64>,
    shown: parking_lot::Mutex<Timestamp>,
}

/// Plays a scenario.
///
/// # Errors
/// What could not be applied, or the releases that did not end as they should.
pub async fn play(scenario: Scenario, speed: Option<f64>, paint: Paint, out: &mut impl Write) -> Result<(), CliError> {
    let start: Timestamp = START.parse().map_err(|e| CliError::Differs(format!("{START}: {e}")))?;
    let clock = Clock::starting_at(start);
    let server = SimServer::new(clock.clone());
    for namespace in ["voicerollout", scenario.namespace()] {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        let known = server.peek("namespaces", "", namespace).is_some();
        if !known {
            server.seed(object).map_err(|e| CliError::Differs(format!("namespace {namespace}: {e:?}")))?;
        }
    }
    let scenario = Arc::new(scenario);
    let world = World::start(server.clone(), clock.clone(), scenario.world_config()).await;
    let (stop, stopped) = watch::channel(false);
    let (ready, mut is_ready) = watch::channel(false);
    let operator = Operator {
        client: server.client_as("operator"),
        clock: clock.clone(),
        namespaces: Vec::new(),
        own_namespace: "voicerollout".into(),
        identity: "voicerollout-0".into(),
        lease: None,
        sources: Arc::new(ScenarioSources::new(scenario.clone(), server.clone(), clock.clone()).counting(world.call_book())),
        calls: Arc::new(world.call_book()),
        secrets: Arc::new(StandIns),
        // Nobody outside hears of a demo.
        messenger: Arc::new(Messenger::new(Arc::new(Nowhere), Arc::new(StandIns), "voicerollout")),
        notifications: Defaults::default(),
        metrics: Arc::new(Metrics::new()),
        tracer: Tracer::default(),
        actions_verified: true,
        ready,
        onlookers: Vec::new(),
    };
    let operator = tokio::spawn(operator.run(stopped));
    is_ready.wait_for(|r| *r).await.map_err(|_| CliError::Differs("the operator did not start".into()))?;
    let stage =
        Stage { scenario: scenario.clone(), world, client: server.client_as("demo"), clock, speed, shown: parking_lot::Mutex::new(start) };
    let outcome = stage.releases(paint, out).await;
    stop.send_replace(true);
    let _ = operator.await;
    outcome
}

impl Stage {
    async fn releases(&self, paint: Paint, out: &mut impl Write) -> Result<(), CliError> {
        let scenario = self.scenario.clone();
        writeln!(out, "{}: {}", scenario.name, scenario.description).map_err(printing)?;
        for manifest in &scenario.manifests {
            self.apply(manifest, scenario.namespace()).await?;
        }
        let mut wrong = Vec::new();
        for (i, release) in scenario.releases.iter().enumerate() {
            let title = format!("Release {} of {}: {} ({})", i + 1, scenario.releases.len(), release.name, release.tag);
            writeln!(out, "\n{title}").map_err(printing)?;
            let status = self.release(release, Table::new(paint), out).await?;
            let word = match release.expect.check(&status) {
                Ok(()) => format!("as expected: {}", status.message),
                Err(difference) => {
                    wrong.push(format!("{}: {difference}", release.name));
                    format!("NOT as expected: {difference}")
                }
            };
            writeln!(out, "  {word}").map_err(printing)?;
            if let Some(why) = status.abort.as_ref().and_then(|a| a.explanation.as_ref()) {
                writeln!(out, "  why, as a judge sees it: {why}").map_err(printing)?;
            }
        }
        self.sum_up(out)?;
        if wrong.is_empty() { Ok(()) } else { Err(CliError::Differs(wrong.join("; "))) }
    }

    fn sum_up(&self, out: &mut impl Write) -> Result<(), CliError> {
        let calls = self.world.calls();
        let started: u64 = calls.values().map(|c| c.started).sum();
        let cut: u64 = calls.values().map(|c| c.cut).sum();
        let astray = self.world.violations().len();
        writeln!(out, "\n{started} calls, {cut} cut, {astray} sent where nobody answered").map_err(printing)?;
        if astray > 0 {
            return Err(CliError::Differs(format!("{astray} calls were sent where nobody answered")));
        }
        Ok(())
    }

    /// Makes a release and follows it to its end.
    async fn release(&self, release: &Release, mut table: Table, out: &mut impl Write) -> Result<VoiceRolloutStatus, CliError> {
        let rollout = self.scenario.rollout_for(release);
        let began = self.clock.now();
        let generation = self.apply(&rollout, self.scenario.namespace()).await?.metadata.generation;
        let people = release.actions.iter().map(|a| self.act(a.clone()));
        let people = futures::future::join_all(people);
        let api: Api<VoiceRollout> = Api::namespaced(self.client.clone(), self.scenario.namespace());
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.scenario.rollout_name()));
        let mut changes = watcher(api, config).default_backoff().applied_objects().boxed();
        let mut last = VoiceRolloutStatus::default();
        let limit = tokio::time::sleep(std_duration(release.within));
        tokio::pin!(people, limit);
        let mut all_done = release.actions.is_empty();
        let mut promoted = None;
        loop {
            let change = tokio::select! {
                change = changes.next() => change,
                done = &mut people, if !all_done => {
                    all_done = true;
                    done.into_iter().collect::<Result<Vec<()>, _>>()?;
                    continue;
                }
                () = &mut limit => return Ok(last),
            };
            let Some(Ok(changed)) = change else { continue };
            let Some(status) = changed.status.filter(|s| s.observed_generation >= generation) else { continue };
            self.keep_pace();
            if let Some(row) = table.row(self.clock.now().duration_since(began), &status) {
                writeln!(out, "{row}").map_err(printing)?;
            }
            last = status;
            if release.promoted_by_hand && promoted != last.current_step && self.waits_for_promote(&last) {
                promoted = last.current_step;
                self.act(UserAction { at: seconds(0), verb: Verb::Promote, reason: None }).await?;
            }
            if release.expect.is_end(&last) && all_done {
                return Ok(last);
            }
        }
    }

    /// Whether the release stands at a pause without an end.
    fn waits_for_promote(&self, status: &VoiceRolloutStatus) -> bool {
        let step = status.current_step.map(|step| format!("/spec/steps/{step}/pause"));
        let pause = step.and_then(|pause| self.scenario.rollout.pointer(&pause));
        status.phase == Phase::Paused && pause.is_some_and(|pause| pause["duration"].is_null())
    }

    /// Sleeps in real time for what has passed in virtual time.
    fn keep_pace(&self) {
        let now = self.clock.now();
        let shown = std::mem::replace(&mut *self.shown.lock(), now);
        if let Some(speed) = self.speed {
            let passed = now.duration_since(shown).unsigned_abs();
            std::thread::sleep(passed.div_f64(speed));
        }
    }

    async fn act(&self, action: UserAction) -> Result<(), CliError> {
        tokio::time::sleep(std_duration(action.at)).await;
        let rollout = self.scenario.rollout_name();
        let rollouts: Api<VoiceRollout> = Api::namespaced(self.client.clone(), self.scenario.namespace());
        let seen = rollouts.get(rollout).await.map_err(|e| refused("an action", &e))?;
        let revision = seen.status.and_then(|s| s.canary_revision);
        let object = json!({
            "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRolloutAction",
            "metadata": {"generateName": format!("{rollout}-")},
            "spec": {"rollout": rollout, "revision": revision, "verb": action.verb, "reason": action.reason, "requestedBy": "demo"},
        });
        let object: VoiceRolloutAction = serde_json::from_value(object).map_err(|e| CliError::Differs(e.to_string()))?;
        let api: Api<VoiceRolloutAction> = Api::namespaced(self.client.clone(), self.scenario.namespace());
        api.create(&PostParams::default(), &object).await.map_err(|e| refused("an action", &e))?;
        Ok(())
    }

    async fn apply(&self, manifest: &Value, namespace: &str) -> Result<DynamicObject, CliError> {
        let mut object: DynamicObject =
            serde_json::from_value(manifest.clone()).map_err(|e| CliError::Differs(format!("a manifest: {e}")))?;
        let types = object.types.clone().unwrap_or_default();
        let what = format!("{} {}", types.kind, object.name_any());
        let gvk = GroupVersionKind::try_from(&types).map_err(|e| CliError::Differs(format!("{what}: {e}")))?;
        object.metadata.namespace.get_or_insert_with(|| namespace.into());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &ApiResource::from_gvk(&gvk));
        let params = PatchParams::apply("demo").force();
        api.patch(&object.name_any(), &params, &Patch::Apply(&object)).await.map_err(|e| refused(&what, &e))
    }
}

fn refused(what: &str, error: &kube::Error) -> CliError {
    CliError::Api { what: format!("apply {what}"), message: error.to_string() }
}

/// Virtual time as people read it: `12m05s`.
pub(super) fn elapsed(time: Duration) -> String {
    let all = time.as_secs();
    let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
    if hours > 0 { format!("{hours}h{minutes:02}m{seconds:02}s") } else { format!("{minutes}m{seconds:02}s") }
}
