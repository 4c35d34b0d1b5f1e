//! The state machine of a release.
//!
//! `decide` looks at the plan, the last status and the world, and says what is true now and what to do. It keeps no
//! memory but the status. Nothing here is done because something was sent: a step is complete when the world says so.

mod actions;
mod advance;
mod draining;
mod explain;
mod gates;
mod left;
mod observed;
mod preflight;
mod present;
mod promotion;
mod revisions;
mod runs;
mod traffic;
mod weigh;
mod workers;

#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::api::VoiceRolloutStatus;
use crate::api::run::Verdict;
use crate::api::status::{AbortRecord, DecisionRecord, GateSummary, MAX_DECISIONS, StepState};
use crate::core::intent::{EventNote, Intent};
use crate::core::observe::Observations;
use crate::core::plan::Plan;
use crate::core::spans::{self, Span};

pub use advance::held_by_forged_run;
pub use gates::{override_key, values_of};
pub use observed::waits_for_split;

/// Decisions that may come again and again at one step.
const REPEATED: [&str; 4] = ["WeightApplied", "RoutesChangedByOthers", "CanaryUnavailable", "CallsCut"];

/// Longest time that numbers of pods alone wait to be written.
pub const PODS_WAIT: Duration = Duration::from_secs(10);

/// Longest time that numbers of live calls alone wait to be written.
pub const CALLS_WAIT: Duration = Duration::from_secs(30);

/// What [`decide`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What is true now; written before any of the intents is carried out.
    pub status: VoiceRolloutStatus,
    /// It differs from the last one in numbers of pods or live calls alone, on which nothing rests: it may be written this
    /// much later.
    pub counts_only: Option<Duration>,
    /// Intents that only take canary traffic away after an abort: carried out first, and even when the status
    /// cannot be written.
    pub urgent: Vec<Intent>,
    /// What to do, in order.
    pub intents: Vec<Intent>,
    /// What to tell, once the status is written.
    pub events: Vec<EventNote>,
    /// What a trace shows that has ended, once the status is written.
    pub ended: Vec<Span>,
    /// When to look again without being woken.
    pub wake_at: Option<Timestamp>,
}

/// Whose rollout it is: the facts of its metadata.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Name of the VoiceRollout.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its generation.
    pub generation: Option<i64>,
    /// Its `spec.selector.matchLabels`, as a selector.
    pub selector: String,
}

/// Decides. Pure: the same arguments give the same decision, and a second call on its own status with nothing new
/// seen changes nothing.
pub fn decide(subject: &Subject, plan: &Plan, status: &VoiceRolloutStatus, seen: &Observations) -> Decision {
    let (first, more) = decide_once(subject, plan, status, seen);
    if !more {
        return first;
    }
    // A change of roles or an abort ended, and another revision waits for its turn: nobody else would wake us for it.
    let (mut second, _) = decide_once(subject, plan, &first.status, seen);
    second.counts_only = None;
    second.events.splice(0..0, first.events);
    second.ended.splice(0..0, first.ended);
    second
}

/// One look; and whether another revision can begin now.
fn decide_once(subject: &Subject, plan: &Plan, status: &VoiceRolloutStatus, seen: &Observations) -> (Decision, bool) {
    let mut m = Machine::new(subject, plan, status, seen);
    m.note_revisions();
    m.note_cut();
    if seen.deleting {
        m.take_leave();
    } else {
        if !seen.finalizer {
            m.intents.push(Intent::AddFinalizer);
        }
        m.follow_target();
        m.note_gates();
        m.heed_gates();
        m.forget_outdated_run();
        m.obey_actions();
        m.heed_room();
        m.advance();
        m.ensure_runs();
        // Of the step that is the current one now.
        m.note_gates();
        m.steer_traffic();
        m.heed_deadline();
        m.keep_routes();
        m.explain_abort();
        m.scale();
    }
    m.tidy_runs();
    m.note_preflight();
    m.present();
    let more = !seen.deleting && m.may_begin();
    (m.finish(), more)
}

/// The decision in the making.
struct Machine<'a> {
    subject: &'a Subject,
    plan: &'a Plan,
    seen: &'a Observations,
    old: &'a VoiceRolloutStatus,
    s: VoiceRolloutStatus,
    urgent: Vec<Intent>,
    intents: Vec<Intent>,
    events: Vec<EventNote>,
    wakes: Vec<Timestamp>,
    waiting: Waiting,
}

/// What a release waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Waiting {
    /// In words; empty for nothing.
    what: String,
    /// It counts against `progressDeadline`.
    timed: bool,
    /// It ends only by a person or by evidence.
    held: bool,
    /// Not even the current step's weight may be raised.
    frozen: bool,
    /// When it ends by itself, and what happens then.
    next: Option<(Timestamp, String)>,
}

impl<'a> Machine<'a> {
    fn new(subject: &'a Subject, plan: &'a Plan, status: &'a VoiceRolloutStatus, seen: &'a Observations) -> Self {
        Self {
            subject,
            plan,
            seen,
            old: status,
            s: status.clone(),
            urgent: Vec::new(),
            intents: Vec::new(),
            events: Vec::new(),
            wakes: Vec::new(),
            waiting: Waiting::default(),
        }
    }

    fn finish(mut self) -> Decision {
        if self.s.decisions.len() > MAX_DECISIONS {
            let surplus = self.s.decisions.len() - MAX_DECISIONS;
            self.s.decisions.drain(..surplus);
        }
        self.leave_ticks_unwritten();
        let now = self.seen.now;
        let counts_only = may_wait(self.old, &self.s);
        let wake_at = self.wakes.into_iter().filter(|t| *t > now).min();
        let subject = spans::Subject { name: &self.subject.name, uid: &self.subject.uid, steps: &self.plan.steps };
        let ended = spans::ended(subject, self.old, &self.s, now);
        Decision { status: self.s, counts_only, urgent: self.urgent, intents: self.intents, events: self.events, ended, wake_at }
    }

    /// A gate that goes on passing tells its new values in its run; they alone are no reason to write the rollout.
    fn leave_ticks_unwritten(&mut self) {
        let same = |a: &GateSummary, b: &GateSummary| {
            let passes = a.verdict == Some(Verdict::Pass) && (a.verdict, a.consequence, a.mode) == (b.verdict, b.consequence, b.mode);
            a == b || (passes && (&a.name, a.kind) == (&b.name, b.kind))
        };
        let (new, old) = (&self.s.gates, &self.old.gates);
        if new != old && new.len() == old.len() && new.iter().zip(old).all(|(a, b)| same(a, b)) {
            let fresh = std::mem::replace(&mut self.s.gates, old.clone());
            if self.s != *self.old {
                self.s.gates = fresh;
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.seen.now
    }

    /// Looks again at `at`; true when that is past.
    fn due(&mut self, at: Timestamp) -> bool {
        self.wakes.push(at);
        self.seen.now >= at
    }

    /// Waits for `what`, unless something else is named already.
    fn wait(&mut self, what: impl Into<String>, timed: bool) {
        if self.waiting.what.is_empty() {
            self.waiting = Waiting { what: what.into(), timed, ..Waiting::default() };
        }
    }

    /// Records a decision and the event that tells of it.
    fn record(&mut self, decision: &str, reason: impl Into<String>, by: Option<String>, warning: bool) {
        let reason = reason.into();
        let note = match &by {
            Some(by) => format!("{reason} (by {by})"),
            None => reason.clone(),
        };
        let step = self.step_text();
        self.forget_repeated(decision, &step);
        self.s.decisions.push(DecisionRecord {
            at: MicroTime(self.now()),
            revision: self.s.canary_revision.clone().unwrap_or_default(),
            step,
            decision: decision.into(),
            reason,
            values: values_of(&self.s.gates),
            by,
        });
        self.events.push(EventNote { warning, reason: decision.into(), note });
    }

    /// Somebody who edits weights again and again, or pods that come and go, must not push everything else out of the
    /// record: of those, only the newest at a step is kept.
    fn forget_repeated(&mut self, decision: &str, step: &str) {
        let noise = |d: &DecisionRecord| REPEATED.contains(&d.decision.as_str());
        let start = self.s.decisions.iter().rposition(|d| !noise(d)).map_or(0, |i| i + 1);
        let tail = self.s.decisions.split_off(start);
        let again = |d: &DecisionRecord| noise(d) && d.decision == decision && d.step == step;
        self.s.decisions.extend(tail.into_iter().filter(|d| !again(d)));
    }

    fn step_index(&self) -> usize {
        usize::try_from(self.s.current_step.unwrap_or(0)).unwrap_or(0)
    }

    /// The current step as people count; empty when no release goes through steps.
    fn step_text(&self) -> String {
        match self.s.current_step {
            Some(i) if self.in_release() && !self.plan.steps.is_empty() => {
                let n = self.plan.steps.len();
                format!("{}/{n}", (usize::try_from(i).unwrap_or(0) + 1).min(n))
            }
            _ => String::new(),
        }
    }

    fn canary(&self) -> &str {
        self.s.canary_revision.as_deref().unwrap_or_default()
    }

    /// The newest revision is another than the stable one.
    fn in_release(&self) -> bool {
        self.s.canary_revision.is_some() && self.s.stable_revision.is_some() && self.s.canary_revision != self.s.stable_revision
    }

    /// A release goes through its steps: not aborted, not yet in promotion.
    fn in_steps(&self) -> bool {
        self.in_release() && self.s.abort.is_none() && self.s.promotion.is_none()
    }

    /// The spec or what it refers to is wrong: nothing moves but back to stable.
    fn blocked(&self) -> Option<String> {
        if let Some(rival) = &self.seen.rival {
            return Some(rival.clone());
        }
        self.plan.errors.first().map(|first| match self.plan.errors.len() {
            1 => format!("invalid spec: {first}"),
            n => format!("invalid spec, {n} mistakes: {first}"),
        })
    }

    /// Weights to stable, and remember why.
    fn abort(&mut self, gate: Option<String>, reason: String, by: Option<String>) {
        if !self.in_release() || self.s.abort.is_some() {
            return;
        }
        let step = self.step_text();
        self.record("Aborted", reason.clone(), by.clone(), true);
        self.s.abort = Some(AbortRecord {
            revision: self.canary().into(),
            at: MicroTime(self.now()),
            step,
            weight: self.applied_weight(),
            gate,
            reason,
            by,
            explanation: None,
        });
        self.s.promotion = None;
        let canary = self.canary().to_string();
        if let Some(revision) = self.s.revisions.iter_mut().find(|r| r.hash == canary) {
            revision.aborted = true;
        }
    }

    /// A new step list or attempt: from the first step, with what is known about the weight kept.
    fn reset_steps(&mut self) {
        let weight_since = self.s.step.weight_since.clone().filter(|_| self.s.weights.desired == 0);
        let now = MicroTime(self.now());
        self.s.current_step = Some(0);
        self.s.overridden_steps.clear();
        self.s.steps_hash = Some(self.plan.steps_hash.clone());
        self.s.step = StepState { started_at: Some(now.clone()), progress_at: Some(now), weight_since, ..StepState::default() };
    }
}

/// How long a status may stay unwritten that differs in numbers alone.
fn may_wait(old: &VoiceRolloutStatus, new: &VoiceRolloutStatus) -> Option<Duration> {
    if old == new {
        return None;
    }
    let (old, new) = (without_calls(old), without_calls(new));
    if old == new {
        return Some(CALLS_WAIT);
    }
    (without_pods(old) == without_pods(new)).then_some(PODS_WAIT)
}

fn without_calls(status: &VoiceRolloutStatus) -> VoiceRolloutStatus {
    let mut status = status.clone();
    status.live_calls = String::new();
    for revision in &mut status.revisions {
        (revision.live_calls, revision.unread_pods) = (None, 0);
    }
    status
}

fn without_pods(mut status: VoiceRolloutStatus) -> VoiceRolloutStatus {
    for revision in &mut status.revisions {
        (revision.replicas, revision.ready, revision.ending) = (0, 0, 0);
    }
    status
}

/// `since` plus a delay; never overflows.
fn after(since: &MicroTime, delay: std::time::Duration) -> Timestamp {
    since.0.checked_add(SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
}
