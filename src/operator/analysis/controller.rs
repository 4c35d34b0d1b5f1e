//! One reconcile of a VoiceAnalysisRun: what has come in, the fold, the write, then the measurements.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;
use kube::api::PostParams;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource, ResourceExt};
use parking_lot::Mutex;

use super::backoff::Backoff;
use super::gatepool::{GatePool, Job, Limits};
use super::memo::Memo;
use super::request::{self, Blueprint};
use super::{AnalysisContext, Guarded, READ_TIMEOUT, reference, spending};
use crate::api::run::{RunPhase, Verdict, VoiceAnalysisRunStatus};
use crate::api::{VoiceAnalysisRun, VoiceRollout};
use crate::core::gates::{self, Plan, Work};
use crate::core::spans;
use crate::metrics::Metrics;
use crate::operator::stores::RunFeed;
use crate::operator::write::{WRITE_TIMEOUT, WriteError, write};

/// Wait after a conflict; the watch brings the newer object.
const CONFLICT: Duration = Duration::from_millis(200);
/// Time a task outlives its measurement's deadline, for the fold to notice first.
const SLACK: Duration = Duration::from_secs(30);

/// Why a reconcile did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The status could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The VoiceRollout could not be read.
    #[error("reading the VoiceRollout {name}: {reason}")]
    Read {
        /// Namespace and name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The run uses a cluster template's Secrets, and the VoiceRollout does not know it.
    #[error("the VoiceAnalysisRun {name} is not one that its VoiceRollout asked for; it is not measured")]
    NotRecorded {
        /// Namespace and name.
        name: String,
    },
}

/// What lives as long as the controller. Nothing here is needed after a restart.
pub struct State {
    ctx: Arc<AnalysisContext>,
    pool: Arc<GatePool>,
    memo: Memo,
    backoff: Backoff,
    /// Tells the rollout controller.
    feed: RunFeed,
    /// UIDs of runs whose VoiceRollout was seen to have asked for them.
    recorded: Mutex<std::collections::HashSet<String>>,
    /// All runs, for what a release has spent.
    runs: Store<Guarded>,
}

impl State {
    /// A state whose pool wakes the queue through `wake`; `runs` is the controller's cache.
    pub fn new(
        ctx: Arc<AnalysisContext>,
        limits: Limits,
        wake: UnboundedSender<ObjectRef<Guarded>>,
        feed: RunFeed,
        runs: Store<Guarded>,
    ) -> Self {
        let pool = GatePool::new(ctx.sources.clone(), ctx.secrets.clone(), limits, wake);
        Self { ctx, pool, memo: Memo::default(), backoff: Backoff::default(), feed, recorded: Mutex::default(), runs }
    }

    /// The runs but this one, as last written.
    fn other_runs(&self, uid: &str) -> Vec<VoiceAnalysisRun> {
        let mut others = Vec::new();
        for object in self.runs.state() {
            let Ok(run) = &object.0 else { continue };
            let Some(other) = run.uid().filter(|other| other != uid) else { continue };
            others.push(self.memo.newest(&other, run));
        }
        others
    }

    /// Drops everything about a run that is gone.
    pub fn forget(&self, uid: &str) {
        self.pool.forget(uid);
        self.memo.forget(uid);
        self.backoff.reset(uid);
        self.recorded.lock().remove(uid);
    }

    /// Ends all tasks.
    pub fn shut_down(&self) {
        self.pool.clear();
    }
}

/// Brings one run forward.
///
/// # Errors
/// When something could not be read or written; [`on_error`] says when it is tried again.
pub async fn reconcile(object: Arc<Guarded>, state: Arc<State>) -> Result<Action, RunError> {
    let cached = match &object.0 {
        Ok(run) => run,
        Err(invalid) => {
            tracing::warn!(
                run = invalid.metadata.name,
                namespace = invalid.metadata.namespace,
                error = invalid.error,
                "a VoiceAnalysisRun cannot be read"
            );
            return Ok(Action::await_change());
        }
    };
    let Some(uid) = cached.uid() else { return Ok(Action::await_change()) };
    if cached.meta().deletion_timestamp.is_some() || !is_owned(cached) {
        state.forget(&uid);
        return Ok(Action::await_change());
    }
    if !state.ctx.leadership.allows(WRITE_TIMEOUT) {
        if !state.ctx.leadership.claimed() {
            // Another process measures; keys make sure that nothing is started twice.
            state.forget(&uid);
        }
        return Ok(state.ctx.leadership.later());
    }
    let run = state.memo.newest(&uid, cached);
    if let Some(status) = run.status.as_ref().filter(|s| s.phase != RunPhase::Running) {
        state.ctx.metrics.rollouts.observe_run(&run, status);
        state.forget(&uid);
        return Ok(Action::await_change());
    }
    recorded(&run, &uid, &state).await?;
    let action = bring_forward(&run, &uid, &state).await?;
    state.backoff.reset(&uid);
    Ok(action)
}

/// When a failed reconcile is tried again.
#[allow(clippy::needless_pass_by_value)] // the signature is kube's
pub fn on_error(object: Arc<Guarded>, error: &RunError, state: Arc<State>) -> Action {
    let uid = object.uid().unwrap_or_default();
    match error {
        RunError::Write(e) if e.is_conflict() => Action::requeue(CONFLICT),
        RunError::Write(e) if e.is_not_found() => {
            state.forget(&uid);
            Action::await_change()
        }
        // Beginning to lead looks at every run.
        RunError::Write(WriteError::NotLeader { .. }) => state.ctx.leadership.later(),
        _ => {
            let wait = state.backoff.failed(&uid);
            let spec = object.0.as_ref().ok().map(|run| &run.spec);
            tracing::warn!(
                run = object.name_any(),
                namespace = object.namespace(),
                rollout = spec.map(|s| s.rollout.as_str()),
                revision = spec.map(|s| s.revision.as_str()),
                %error,
                ?wait,
                "a VoiceAnalysisRun is tried again"
            );
            Action::requeue(wait)
        }
    }
}

async fn bring_forward(run: &VoiceAnalysisRun, uid: &str, state: &State) -> Result<Action, RunError> {
    let before = run.status.clone().unwrap_or_default();
    let answers = state.pool.answers(uid);
    let mut permits = HashMap::new();
    let now = state.ctx.clock.now();
    let informed = spending::with_earlier(run, before.clone(), now, || state.other_runs(uid));
    let plan = gates::advance(&run.spec, &informed, &answers, now, &mut |gate| {
        let permit = state.pool.reserve(&run.spec.gates[gate].gate);
        permit.map(|p| permits.insert(gate, p)).is_some()
    });
    // A first status is written even if it is the default one, to show that the run is seen.
    if run.status.as_ref() != Some(&plan.status) {
        persist(run, uid, plan.status.clone(), state).await?;
        count(run, &before, &plan.status, &state.ctx.metrics);
        state.ctx.metrics.rollouts.observe_run(run, &plan.status);
        state.ctx.tracer.tell(&run.namespace().unwrap_or_default(), spans::of_run(run, &plan.status));
    }
    state.pool.persisted(uid, &answers);
    act(run, uid, &plan, permits, state);
    Ok(plan.wake_at.map_or_else(Action::await_change, |at| Action::requeue(state.ctx.clock.until(at))))
}

/// Counts the measurements that a written status has more than the one before.
fn count(run: &VoiceAnalysisRun, before: &VoiceAnalysisRunStatus, after: &VoiceAnalysisRunStatus, metrics: &Metrics) {
    for (index, (gate, new)) in run.spec.gates.iter().zip(&after.gates).enumerate() {
        let provider = match &gate.gate.threshold {
            Some(threshold) if threshold.provider.prometheus.is_some() => "prometheus",
            Some(_) => "web",
            None if gate.gate.reads_counters().is_some() => "counters",
            None if gate.gate.paired.is_some() => "web",
            None => "judge",
        };
        let old = before.gates.get(index).map(|g| g.counts).unwrap_or_default();
        // Another suite has been counted from 0.
        let old = if old.set_aside == new.counts.set_aside { old } else { Default::default() };
        let more = [
            (Verdict::Pass, new.counts.pass - old.pass),
            (Verdict::Fail, new.counts.fail - old.fail),
            (Verdict::Inconclusive, new.counts.inconclusive - old.inconclusive),
            (Verdict::Error, new.counts.error - old.error),
        ];
        for (verdict, times) in more {
            (0..times).for_each(|_| metrics.measurement(provider, verdict));
        }
        let finished = more.iter().map(|(_, times)| usize::try_from(*times).unwrap_or(0)).sum::<usize>();
        let newest = new.measurements.iter().rev().take(finished);
        newest.filter_map(|m| m.judge.as_ref()).filter(|r| !r.cached).for_each(|r| metrics.judged(r));
    }
}

/// Replaces the status, on the condition that nobody wrote the object in between.
async fn persist(run: &VoiceAnalysisRun, uid: &str, status: VoiceAnalysisRunStatus, state: &State) -> Result<(), RunError> {
    let namespace = run.namespace().unwrap_or_default();
    let name = run.name_any();
    let api: Api<VoiceAnalysisRun> = Api::namespaced(state.ctx.client.clone(), &namespace);
    let mut next = run.clone();
    next.metadata.managed_fields = None;
    next.status = Some(status);
    let what = format!("writing the status of the VoiceAnalysisRun {namespace}/{name}");
    let params = PostParams { field_manager: Some(crate::api::common::FIELD_MANAGER.into()), ..PostParams::default() };
    let mut written = write(&state.ctx.leadership, what, api.replace_status(&name, &params, &next)).await?;
    written.metadata.managed_fields = None;
    if written.status.as_ref().is_some_and(|s| s.phase == RunPhase::Fail) {
        state.feed.recorded(&written);
    }
    state.memo.wrote(uid, run.resource_version(), written);
    Ok(())
}

/// Cancels and runs what the persisted status says.
fn act(run: &VoiceAnalysisRun, uid: &str, plan: &Plan, mut permits: HashMap<usize, super::gatepool::Permit>, state: &State) {
    if plan.cancel.is_empty() && plan.measure.is_empty() {
        return;
    }
    let spec = Arc::new(run.spec.clone());
    let blueprint = |work: &Work| Blueprint {
        spec: spec.clone(),
        namespace: run.namespace().unwrap_or_default(),
        operator_namespace: state.ctx.operator_namespace.clone(),
        gate: work.gate,
        key: work.key.clone(),
        started_at: work.started_at,
        others: request::others(&plan.status, work.gate),
        earlier: request::earlier(&run.spec, &plan.status, work.gate),
    };
    for work in &plan.cancel {
        state.pool.cancel(uid, blueprint(work), work.handle.clone());
    }
    for work in &plan.measure {
        state.pool.ensure(Job {
            run: reference(run),
            uid: uid.to_owned(),
            blueprint: blueprint(work),
            handle: work.handle.clone(),
            permit: permits.remove(&work.gate),
            limit: state.ctx.clock.until(work.deadline) + SLACK,
        });
    }
}

/// Whether a VoiceRollout with the UID in the spec owns the run.
fn is_owned(run: &VoiceAnalysisRun) -> bool {
    run.owner_references().iter().any(|o| {
        o.kind == VoiceRollout::kind(&())
            && o.api_version == VoiceRollout::api_version(&())
            && o.uid == run.spec.rollout_uid
            && o.name == run.spec.rollout
    })
}

/// A run may name Secrets in the operator's namespace, which its author may not be allowed to read. Such a run is only
/// measured if the VoiceRollout's status, which nobody but the operator writes, has asked for exactly this spec.
async fn recorded(run: &VoiceAnalysisRun, uid: &str, state: &State) -> Result<(), RunError> {
    let privileged = run.spec.gates.iter().any(|g| g.from_cluster_template || g.args.iter().any(|a| a.in_operator_namespace));
    if !privileged || state.recorded.lock().contains(uid) {
        return Ok(());
    }
    let namespace = run.namespace().unwrap_or_default();
    let name = format!("{namespace}/{}", run.spec.rollout);
    let api: Api<VoiceRollout> = Api::namespaced(state.ctx.client.clone(), &namespace);
    let read = tokio::time::timeout(READ_TIMEOUT, api.get(&run.spec.rollout)).await;
    let rollout = match read {
        Ok(Ok(rollout)) => rollout,
        Ok(Err(error)) => return Err(RunError::Read { name, reason: error.to_string() }),
        Err(_) => return Err(RunError::Read { name, reason: format!("no answer within {} s", READ_TIMEOUT.as_secs()) }),
    };
    let hash = gates::spec_hash(&run.spec);
    let asked = rollout.status.as_ref().is_some_and(|s| s.runs.iter().any(|r| r.name == run.name_any() && r.spec_hash == hash));
    if asked && rollout.uid().as_deref() == Some(&run.spec.rollout_uid) {
        state.recorded.lock().insert(uid.to_owned());
        Ok(())
    } else {
        Err(RunError::NotRecorded { name: format!("{namespace}/{}", run.name_any()) })
    }
}
