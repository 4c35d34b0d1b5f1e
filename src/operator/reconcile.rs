//! One pass over one rollout: gather, decide, persist, act, tell.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Patch, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::act::{ActError, CONFLICT_WAIT, Hands, params};
use super::backoff::Backoff;
use super::clock::Clock;
use super::gather;
use super::leadership::Leadership;
use super::live::LiveCalls;
use super::memory::{ECHO, Memory, is_remembered};
use super::notify::Notices;
use super::stores::{Guarded, Stores};
use super::urgency::{Urgency, Waiting};
use super::write::{WriteError, write};
use crate::api::{VoiceRollout, VoiceRolloutStatus};
use crate::core::intent::{EventNote, Intent};
use crate::core::machine::{Decision, decide};
use crate::core::plan::Plan;
use crate::metrics::Metrics;
use crate::telemetry::Tracer;

/// Longest note that the events API takes, in bytes.
const MAX_NOTE: usize = 1024;

/// Passes that persist and act at the same time. Lowering a canary's weight is not counted.
pub const TURNS: usize = 8;

/// Wait for a cache that has not seen our own last write.
const BEHIND: Duration = Duration::from_millis(20);

/// What the rollout controller works with.
pub struct Context {
    /// The client.
    pub client: Client,
    /// The caches.
    pub stores: Arc<Stores>,
    /// Live calls of pods.
    pub live: LiveCalls,
    /// Whether this process may write.
    pub leadership: Leadership,
    /// The time.
    pub clock: Clock,
    /// Publishes events.
    pub recorder: Recorder,
    /// Figures for Prometheus.
    pub metrics: Arc<Metrics>,
    /// Takes what traces show.
    pub tracer: Tracer,
    /// The chart's admission policy vouches for `requestedBy`.
    pub actions_verified: bool,
    /// Leave to persist and act: [`TURNS`] of them.
    pub turns: Semaphore,
    /// Reverts under way.
    pub urgency: Urgency,
    /// Passes that wait for their turn.
    pub waiting: Waiting,
    /// Waits after failures.
    pub backoff: Backoff,
    /// What was just sent.
    pub memory: Memory,
    /// What is known of rollouts' notifications.
    pub notices: Arc<Notices>,
    /// Versions of rollouts that a status write of ours has replaced: a cache that still has one is behind.
    pub replaced: Mutex<HashMap<String, String>>,
}

/// A line about a rollout: which, its newest revision, its step.
macro_rules! log {
    ($level:ident, $rollout:expr, $($more:tt)+) => {
        tracing::$level!(
            rollout = $rollout.metadata.name,
            namespace = $rollout.metadata.namespace,
            revision = $rollout.status.as_ref().and_then(|s| s.canary_revision.as_deref()),
            step = $rollout.status.as_ref().map(|s| s.step_display.as_str()).filter(|s| !s.is_empty()),
            $($more)+
        )
    };
}

/// Why a pass has to be repeated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The status could not be written.
    #[error("{0}")]
    Persist(#[from] WriteError),
    /// An intent could not be carried out.
    #[error("{source}")]
    Act {
        /// Why.
        source: ActError,
        /// When the decision asked to be woken; a wait after a failure is no longer than that.
        wake: Option<Duration>,
    },
}

impl Error {
    /// The next pass sees newer objects: nothing to worry about.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Persist(e) => e.is_conflict() || e.is_not_found(),
            Self::Act { source, .. } => source.is_conflict(),
        }
    }
}

/// One pass.
///
/// # Errors
/// See [`Error`]. The status was written before an [`Error::Act`]; the next pass asks for the same again.
pub async fn reconcile(object: Arc<Guarded<VoiceRollout>>, context: Arc<Context>) -> Result<Action, Error> {
    if !context.leadership.allows(super::write::WRITE_TIMEOUT) {
        return Ok(context.leadership.later());
    }
    let rollout = match &object.0 {
        Ok(rollout) => rollout,
        Err(broken) => return report_broken(&context, broken).await,
    };
    // A revert waits for no other rollout's pass, also when a hundred verdicts come at once.
    let Some(decision) = context.decide(rollout) else { return Ok(Action::requeue(BEHIND)) };
    let urgent = context.revert(rollout, &decision.urgent).await;
    if context.urgency.is_calm()
        && let Ok(_turn) = context.turns.try_acquire()
    {
        return context.carry_on(rollout, decision, urgent).await;
    }
    if !decision.urgent.is_empty() {
        let _turn = context.turn().await;
        return context.carry_on(rollout, decision, urgent).await;
    }
    drop(decision);
    let _turn = context.turn_of(rollout).await;
    // The world went on while this pass waited for its turn.
    let newest = context.newest(rollout);
    let Some(Ok(rollout)) = newest.as_deref().map(|guarded| &guarded.0) else { return Ok(Action::await_change()) };
    let Some(decision) = context.decide(rollout) else { return Ok(Action::requeue(BEHIND)) };
    let urgent = context.revert(rollout, &decision.urgent).await;
    context.carry_on(rollout, decision, urgent).await
}

/// What to do after a failed pass.
pub fn on_error(object: Arc<Guarded<VoiceRollout>>, error: &Error, context: Arc<Context>) -> Action {
    if error.is_conflict() {
        return Action::requeue(CONFLICT_WAIT);
    }
    let wait = context.backoff.failed(&object.uid().unwrap_or_default());
    let wait = if let Error::Act { wake: Some(wake), .. } = error { wait.min(*wake) } else { wait };
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    match &object.0 {
        Ok(rollout) => log!(warn, rollout, %error, wait_ms, "pass failed; it is repeated"),
        Err(broken) => {
            tracing::warn!(rollout = broken.metadata.name, namespace = broken.metadata.namespace, %error, wait_ms, "pass failed; it is repeated")
        }
    }
    Action::requeue(wait)
}

impl Context {
    /// What to do, by the caches; `None` when the rollout in the cache is older than our own last write.
    fn decide(&self, rollout: &VoiceRollout) -> Option<Decision> {
        if self.is_behind(rollout) {
            return None;
        }
        let mut seen = gather::gather(&self.stores, &self.live, rollout, self.clock.now(), self.actions_verified);
        seen.notifications = self.notices.seen(rollout);
        let plan = Plan::parse(&rollout.name_any(), &rollout.spec, &seen);
        let old = rollout.status.clone().unwrap_or_default();
        Some(decide(&gather::subject(rollout), &plan, &old, &seen))
    }

    /// Leave to persist and act, when no revert is under way.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.urgency.calm().await;
        // It is never closed.
        self.turns.acquire().await.ok()
    }

    /// [`Context::turn`], for a pass that had nothing urgent to do. There is one pass of a rollout at a time: a verdict that
    /// comes while this one waits must not wait with it.
    async fn turn_of(&self, rollout: &VoiceRollout) -> Option<SemaphorePermit<'_>> {
        let place = self.waiting.place(&rollout.namespace().unwrap_or_default(), &rollout.name_any());
        let mut turn = pin!(self.turn());
        loop {
            tokio::select! {
                turn = &mut turn => return turn,
                () = place.touched() => {}
            }
            let newest = self.newest(rollout);
            let Some(Ok(rollout)) = newest.as_deref().map(|guarded| &guarded.0) else { continue };
            if let Some(decision) = self.decide(rollout)
                && let Err(error) = self.revert(rollout, &decision.urgent).await
            {
                // Its turn brings another attempt.
                log!(debug, rollout, %error, "not reverted");
            }
        }
    }

    fn newest(&self, rollout: &VoiceRollout) -> Option<Arc<Guarded<VoiceRollout>>> {
        self.stores.rollouts.get(&rollout.namespace().unwrap_or_default(), &rollout.name_any())
    }

    /// Carries out the urgent intents.
    async fn revert(&self, rollout: &VoiceRollout, urgent: &[Intent]) -> Result<(), ActError> {
        if urgent.is_empty() {
            return Ok(());
        }
        let _first = self.urgency.begin();
        self.act(rollout, urgent).await
    }

    /// Persists, acts and tells, after the urgent intents.
    async fn carry_on(&self, rollout: &VoiceRollout, mut decision: Decision, urgent: Result<(), ActError>) -> Result<Action, Error> {
        let old = rollout.status.clone().unwrap_or_default();
        let unwritten = self.may_wait(rollout, &decision);
        let rollout = &match unwritten {
            Some(_) => with_status(rollout, &decision.status),
            None => self.persist(rollout, &old, &decision.status).await?,
        };
        let acted = self.act(rollout, &decision.intents).await;
        self.tell(rollout, &decision.events).await;
        if unwritten.is_none() {
            self.tracer.tell(&rollout.namespace().unwrap_or_default(), std::mem::take(&mut decision.ended));
        }
        if decision.intents.contains(&Intent::RemoveFinalizer) && acted.is_ok() {
            self.forget(rollout);
        } else {
            self.metrics.rollouts.observe(rollout);
            self.metrics.calls.observe_cut(&rollout.namespace().unwrap_or_default(), &rollout.name_any(), &decision.status);
        }
        if rollout.spec.sessions.is_some() {
            self.live.poke();
        }
        let wake = self.wake(&decision, unwritten);
        urgent.and(acted).map_err(|source| Error::Act { source, wake })?;
        self.backoff.reset(&rollout.uid().unwrap_or_default());
        Ok(wake.map_or_else(Action::await_change, Action::requeue))
    }

    /// Until when the status may stay unwritten: numbers of pods alone are written with what comes next, or after a
    /// while.
    fn may_wait(&self, rollout: &VoiceRollout, decision: &Decision) -> Option<Timestamp> {
        let (uid, now) = (rollout.uid().unwrap_or_default(), self.clock.now());
        if let Some(wait) = decision.counts_only {
            let until = self.memory.counts_until(&uid, now, wait);
            return (now < until).then_some(until);
        }
        self.memory.counts_written(&uid);
        None
    }

    /// The cache has a version that our own last write replaced.
    fn is_behind(&self, rollout: &VoiceRollout) -> bool {
        let replaced = self.replaced.lock();
        let own = rollout.uid().and_then(|uid| replaced.get(&uid).cloned());
        own.is_some() && own == rollout.resource_version()
    }

    /// Writes the status if it says something new; on a conflict nothing is done.
    async fn persist(
        &self,
        rollout: &VoiceRollout,
        old: &VoiceRolloutStatus,
        new: &VoiceRolloutStatus,
    ) -> Result<VoiceRollout, WriteError> {
        let next = with_status(rollout, new);
        if old == new && rollout.status.is_some() {
            return Ok(next);
        }
        let (namespace, name) = (rollout.namespace().unwrap_or_default(), rollout.name_any());
        let api: Api<VoiceRollout> = Api::namespaced(self.client.clone(), &namespace);
        let what = format!("write the status of VoiceRollout {namespace}/{name}");
        let written = write(&self.leadership, what, api.replace_status(&name, &PostParams::default(), &next)).await?;
        self.memory.counts_written(&rollout.uid().unwrap_or_default());
        if let (Some(uid), Some(version)) = (rollout.uid(), rollout.resource_version())
            && written.resource_version().as_ref() != Some(&version)
        {
            self.replaced.lock().insert(uid, version);
        }
        Ok(written)
    }

    /// Carries out every intent but those that a cache only does not show yet; the first failure is returned at the end.
    async fn act(&self, rollout: &VoiceRollout, intents: &[Intent]) -> Result<(), ActError> {
        let hands = Hands { client: &self.client, stores: &self.stores, leadership: &self.leadership, clock: &self.clock, rollout };
        let mut first = None;
        let (uid, now) = (rollout.uid().unwrap_or_default(), self.clock.now());
        for intent in intents.iter().filter(|i| !self.memory.is_sent(&uid, i, now)) {
            if let Err(error) = hands.carry_out(intent).await {
                log!(debug, rollout, reason = error.reason(), %error, "intent not carried out");
                first.get_or_insert(error);
            } else {
                self.memory.note(&uid, intent, now);
            }
        }
        first.map_or(Ok(()), Err)
    }

    async fn tell(&self, rollout: &VoiceRollout, events: &[EventNote]) {
        for event in events {
            log!(info, rollout, reason = event.reason, "{}", event.note);
            let note = Event {
                type_: if event.warning { EventType::Warning } else { EventType::Normal },
                reason: event.reason.clone(),
                note: Some(shortened(&event.note)),
                action: event.reason.clone(),
                secondary: None,
            };
            let about = rollout.object_ref(&());
            let published = self.recorder.publish(&note, &about);
            match tokio::time::timeout(super::write::WRITE_TIMEOUT, published).await {
                Ok(Ok(())) => {}
                // The decision itself is in the status; the event is a courtesy.
                Ok(Err(error)) => log!(warn, rollout, %error, "event not published"),
                Err(_) => log!(warn, rollout, "event not published: no answer in time"),
            }
        }
    }

    fn forget(&self, rollout: &VoiceRollout) {
        let uid = rollout.uid().unwrap_or_default();
        self.replaced.lock().remove(&uid);
        self.backoff.reset(&uid);
        self.memory.forget(&uid);
        let (namespace, name) = (rollout.namespace().unwrap_or_default(), rollout.name_any());
        self.metrics.rollouts.forget(&namespace, &name);
        self.metrics.calls.forget(&namespace, &name);
    }

    /// Time until the decision asks to be looked at again. A little late rather than a little early: an early pass would
    /// decide nothing.
    fn wake(&self, decision: &Decision, unwritten: Option<Timestamp>) -> Option<Duration> {
        let at = decision.wake_at.into_iter().chain(unwritten).min();
        let at = at.map(|at| self.clock.until(at) + Duration::from_millis(5));
        // What no cache shows by then is asked for again.
        let unseen = decision.intents.iter().any(is_remembered).then_some(ECHO);
        at.into_iter().chain(unseen).min()
    }
}

fn with_status(rollout: &VoiceRollout, status: &VoiceRolloutStatus) -> VoiceRollout {
    VoiceRollout { status: Some(status.clone()), ..rollout.clone() }
}

/// An object that does not parse gets a condition and waits for an edit.
async fn report_broken(context: &Context, broken: &kube::core::error_boundary::InvalidObject) -> Result<Action, Error> {
    let (namespace, name) = (broken.metadata.namespace.clone().unwrap_or_default(), broken.metadata.name.clone().unwrap_or_default());
    let message = format!("invalid spec: the object does not parse: {}", broken.error);
    tracing::warn!(rollout = name, namespace, error = broken.error, "object does not parse");
    let api: Api<kube::api::DynamicObject> =
        Api::namespaced_with(context.client.clone(), &namespace, &kube::api::ApiResource::erase::<VoiceRollout>(&()));
    let patch = json!({"status": {"phase": "Invalid", "message": message, "waitingFor": message}});
    let what = format!("write the status of VoiceRollout {namespace}/{name}");
    write(&context.leadership, what, api.patch_status(&name, &params(), &Patch::Merge(patch))).await?;
    Ok(Action::await_change())
}

fn shortened(note: &str) -> String {
    if note.len() <= MAX_NOTE {
        return note.to_string();
    }
    let end = (0..=MAX_NOTE - 3).rev().find(|i| note.is_char_boundary(*i)).unwrap_or(0);
    format!("{}...", &note[..end])
}
