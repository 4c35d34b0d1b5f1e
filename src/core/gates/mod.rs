//! The life of an analysis run, as a pure fold over measurements and time.
//!
//! [`advance`] is the whole of it: what has come in goes in, the new status and what to do now come out. The status is
//! written before anything is done, so that a crash at any point repeats a measurement under the same key and never
//! counts one twice. Nothing here passes without a measurement that passed.

pub mod calls;
mod explain;
mod key;
mod paired;
mod phase;
mod record;
mod rules;
mod schedule;
mod split;
mod suite;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::api::run::{GateStatus, InFlight, RunPhase, Tokens, VoiceAnalysisRunSpec, VoiceAnalysisRunStatus};
use crate::core::judge::{Judgement, budget};
use crate::core::window;
use schedule::stamp;

pub use explain::{explanation, only_explains};
pub use key::{gates_hash, measurement_key, spec_hash};
pub use rules::{consequence, first_at, settle_time, time_limit};
pub use schedule::due as rounded_up;
pub use suite::{Eval, Pairs, Reading};

/// Newest measurements kept in a gate's status.
pub const MAX_MEASUREMENTS: usize = 10;
/// Wait before a start is tried again that had no room.
const NO_ROOM: Duration = Duration::from_secs(2);

/// What came of a measurement.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The provider works on it and is polled with this handle.
    Running {
        /// What to poll with.
        handle: String,
        /// Why it could not be polled just now.
        trouble: Option<String>,
    },
    /// A value for the gate's conditions.
    Value(Value),
    /// Counters of both arms, for a gate that counts calls.
    Counted(calls::Snapshot),
    /// The provider answered that there is nothing.
    NoData(String),
    /// What an eval harness measured.
    Eval(Eval),
    /// The judge's votes.
    Votes(Box<Judgement>),
    /// The provider failed.
    Failed {
        /// What went wrong.
        message: String,
        /// The provider asked to wait this long.
        retry_after: Option<Duration>,
        /// Tokens used all the same.
        tokens: Option<Tokens>,
    },
}

/// An outcome, and which measurement it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Index of the gate.
    pub gate: usize,
    /// Key of the measurement.
    pub key: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// A measurement to take, to poll, or to give up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Index of the gate.
    pub gate: usize,
    /// Key of the measurement.
    pub key: String,
    /// Handle to poll with; without one the measurement is started, again after a crash.
    pub handle: Option<String>,
    /// When it began; the same again after a crash.
    pub started_at: Timestamp,
    /// Time after which it counts as an Error.
    pub deadline: Timestamp,
}

/// The new status, and what to do once it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The new status.
    pub status: VoiceAnalysisRunStatus,
    /// Every measurement under way; whoever runs them knows which are new.
    pub measure: Vec<Work>,
    /// Measurements to give up.
    pub cancel: Vec<Work>,
    /// When to look again if nothing happens before.
    pub wake_at: Option<Timestamp>,
}

/// Takes in what has finished, then plans. `room` says whether one more measurement of a gate may start now.
pub fn advance(
    spec: &VoiceAnalysisRunSpec,
    status: &VoiceAnalysisRunStatus,
    finished: &[Finished],
    now: Timestamp,
    room: &mut dyn FnMut(usize) -> bool,
) -> Plan {
    let mut folded = status.clone();
    for f in finished {
        if let Some(next) = finish(spec, &folded, f.gate, &f.key, &f.outcome, now, key::fraction(&f.key)) {
            folded = next;
        }
    }
    let mut plan = next(spec, &folded, now, room);
    plan.cancel = given_up(spec, status, &plan.status, finished);
    plan
}

/// Plans from a status: what time has decided, what is due, when to look again. Planning twice changes nothing.
pub fn next(spec: &VoiceAnalysisRunSpec, status: &VoiceAnalysisRunStatus, now: Timestamp, room: &mut dyn FnMut(usize) -> bool) -> Plan {
    let mut status = status.clone();
    if status.phase != RunPhase::Running {
        return Plan { status, measure: Vec::new(), cancel: Vec::new(), wake_at: None };
    }
    if status.gates.len() != spec.gates.len() {
        status.gates = spec.gates.iter().map(|g| rules::fresh(spec, g, now)).collect();
    }
    if spec.stop {
        phase::stop(&mut status, now);
        return Plan { cancel: Vec::new(), status, measure: Vec::new(), wake_at: None };
    }
    for (gate, state) in spec.gates.iter().zip(&mut status.gates) {
        record::expire(spec, &gate.gate, state, now);
        record::refuse(spec, &gate.gate, state, now);
        record::settle(spec, &gate.gate, state, now);
    }
    phase::conclude(spec, &mut status, now);
    let held_back = status.phase == RunPhase::Running && start_due(spec, &mut status, now, room);
    status.message = phase::message(spec, &status);
    let wake_at = schedule::wake_at(spec, &status, now).into_iter().chain(held_back.then(|| window::add(now, NO_ROOM))).min();
    Plan { measure: under_way(spec, &status), cancel: Vec::new(), status, wake_at }
}

/// Takes in the outcome of one measurement. `None` when it is not the one under way: a late, repeated or foreign result
/// changes nothing. `jitter` in 0..1 spreads retries.
pub fn finish(
    spec: &VoiceAnalysisRunSpec,
    status: &VoiceAnalysisRunStatus,
    gate: usize,
    key: &str,
    outcome: &Outcome,
    now: Timestamp,
    jitter: f64,
) -> Option<VoiceAnalysisRunStatus> {
    if spec.stop || status.phase != RunPhase::Running {
        return None;
    }
    let (run_gate, state) = (spec.gates.get(gate)?, status.gates.get(gate)?);
    state.in_flight.as_ref().filter(|f| f.key == key)?;
    let mut status = status.clone();
    let others = status.gates.iter().enumerate().filter(|(i, _)| *i != gate).map(|(_, g)| g);
    let others = others.flat_map(|g| g.memory.iter().chain(g.split.as_ref().map(|s| &s.memory)));
    let others = others.map(calls::size).sum();
    let state = &mut status.gates[gate];
    if let Outcome::Running { handle, trouble } = outcome {
        let flight = state.in_flight.as_mut()?;
        (flight.handle, flight.trouble) = (Some(handle.clone()), trouble.clone().map(record::shorten));
        return Some(status);
    }
    record::record(spec, &run_gate.gate, state, outcome, &record::When { now, jitter, others });
    record::settle(spec, &run_gate.gate, state, now);
    phase::conclude(spec, &mut status, now);
    status.message = phase::message(spec, &status);
    Some(status)
}

/// Starts what is due and has room; says whether something had none.
fn start_due(
    spec: &VoiceAnalysisRunSpec,
    status: &mut VoiceAnalysisRunStatus,
    now: Timestamp,
    room: &mut dyn FnMut(usize) -> bool,
) -> bool {
    let mut held_back = false;
    for i in 0..spec.gates.len() {
        let gate = &spec.gates[i].gate;
        let state = &status.gates[i];
        if rules::is_final(gate, state) || state.in_flight.is_some() || state.next_at.as_ref().is_none_or(|t| t.0 > now) {
            continue;
        }
        if let Some(message) = schedule::waits_for_others(spec, status, i) {
            status.gates[i].message = message;
            continue;
        }
        if !room(i) {
            held_back = true;
            continue;
        }
        let state = &mut status.gates[i];
        let number = finished_count(state) + 1;
        state.in_flight =
            Some(InFlight { key: measurement_key(spec, &gate.name, number), started_at: stamp(now), handle: None, trouble: None });
        budget::reserve(gate, state);
        state.next_at = None;
        state.started_at.get_or_insert(stamp(now));
        if number == 1 {
            state.message = "the first measurement is under way".into();
        }
        status.started_at.get_or_insert(stamp(now));
    }
    held_back
}

fn under_way(spec: &VoiceAnalysisRunSpec, status: &VoiceAnalysisRunStatus) -> Vec<Work> {
    let gates = spec.gates.iter().zip(&status.gates).enumerate();
    gates.filter_map(|(i, (gate, state))| state.in_flight.as_ref().map(|f| work(i, &gate.gate, f))).collect()
}

fn work(index: usize, gate: &crate::api::analysis::Gate, flight: &InFlight) -> Work {
    let deadline = window::add(flight.started_at.0, time_limit(gate));
    Work { gate: index, key: flight.key.clone(), handle: flight.handle.clone(), started_at: flight.started_at.0, deadline }
}

/// What was under way before, is no more, and did not finish.
fn given_up(
    spec: &VoiceAnalysisRunSpec,
    before: &VoiceAnalysisRunStatus,
    after: &VoiceAnalysisRunStatus,
    finished: &[Finished],
) -> Vec<Work> {
    let still = |key: &str| after.gates.iter().any(|g| g.in_flight.as_ref().is_some_and(|f| f.key == key));
    let done = |key: &str| finished.iter().any(|f| f.key == key && !matches!(f.outcome, Outcome::Running { .. }));
    under_way(spec, before).into_iter().filter(|w| !still(&w.key) && !done(&w.key)).collect()
}

/// Finished measurements of a gate, of every verdict and every suite.
fn finished_count(state: &GateStatus) -> i32 {
    let c = &state.counts;
    c.set_aside.saturating_add(c.pass).saturating_add(c.fail).saturating_add(c.inconclusive).saturating_add(c.error)
}

#[cfg(test)]
mod counting;
#[cfg(test)]
mod eval_tests;
#[cfg(test)]
mod explain_tests;
#[cfg(test)]
mod judged;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
