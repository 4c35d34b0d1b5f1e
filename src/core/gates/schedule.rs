//! When the next measurement is taken and when to look again.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rules::{self, Rules};
use super::{finished_count, record, time_limit};
use crate::api::common::std_duration;
use crate::api::run::{GateStatus, RunPhase, Verdict, VoiceAnalysisRunSpec, VoiceAnalysisRunStatus};
use crate::core::window::add;

/// First wait after an Error; doubles with each.
const BACK_OFF: Duration = Duration::from_secs(5);
/// Longest wait after an Error.
const MAX_BACK_OFF: Duration = Duration::from_secs(60);
/// Longest wait that a provider may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(900);
/// Wait before an undecided measurement is repeated where no interval is set; Argo's for errors too.
const REPEAT: Duration = Duration::from_secs(10);
/// The same for a judge, who costs money.
const REPEAT_JUDGE: Duration = Duration::from_secs(60);

/// A time for the status. Kubernetes keeps whole seconds; rounding here keeps what is written equal to what is read.
pub fn stamp(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// The same for a time before which nothing may happen: rounded up.
pub fn due(at: Timestamp) -> Time {
    let whole = stamp(at);
    if whole.0 < at { Time(add(whole.0, Duration::from_secs(1))) } else { whole }
}

/// Time from the end of a measurement to the start of the next.
pub fn pause(rules: &Rules, verdict: Verdict, errors: i32, retry_after: Option<Duration>, jitter: f64) -> Duration {
    let repeat = if rules.judge { REPEAT_JUDGE } else { REPEAT };
    if verdict != Verdict::Error {
        return rules.interval.unwrap_or(repeat);
    }
    let back_off = if rules.argo.is_some() {
        REPEAT
    } else {
        let doubled = BACK_OFF.saturating_mul(1_u32 << errors.clamp(1, 6).unsigned_abs().saturating_sub(1));
        doubled.min(MAX_BACK_OFF).mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
    };
    back_off.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
}

/// The next moment at which something may change by itself.
pub fn wake_at(spec: &VoiceAnalysisRunSpec, status: &VoiceAnalysisRunStatus, now: Timestamp) -> Option<Timestamp> {
    if status.phase != RunPhase::Running {
        return None;
    }
    let gates = spec.gates.iter().zip(&status.gates);
    gates.filter(|(g, s)| !rules::is_final(&g.gate, s)).flat_map(|(g, s)| moments(spec, &g.gate, s)).filter(|t| *t > now).min()
}

fn moments(spec: &VoiceAnalysisRunSpec, gate: &crate::api::analysis::Gate, state: &GateStatus) -> Vec<Timestamp> {
    let rules = rules::rules(gate, spec.kind);
    let after = |t: &Option<Time>, by| t.as_ref().map(|t| add(t.0, by));
    let undecided = state.verdict.is_none() && rules.argo.is_none();
    let mut all = vec![after(&state.next_at, Duration::ZERO)];
    all.push(state.in_flight.as_ref().map(|f| add(f.started_at.0, time_limit(gate))));
    if undecided || state.verdict == Some(Verdict::Inconclusive) {
        all.push(after(&state.failing_since, std_duration(gate.error_budget)));
    }
    if undecided || state.verdict == Some(Verdict::Error) {
        all.push(after(&state.undecided_since, std_duration(gate.max_duration)));
    }
    if record::is_ripe(&rules, state) {
        all.push(after(&state.started_at, gate.min_duration.map(std_duration).unwrap_or_default()));
    }
    all.into_iter().flatten().collect()
}

/// A judge sees what the other gates measured, so its first question waits for their first answers.
pub fn waits_for_others(spec: &VoiceAnalysisRunSpec, status: &VoiceAnalysisRunStatus, index: usize) -> Option<String> {
    if spec.gates[index].gate.judge.is_none() || finished_count(&status.gates[index]) > 0 {
        return None;
    }
    let others = spec.gates.iter().zip(&status.gates).filter(|(g, s)| g.gate.judge.is_none() && finished_count(s) == 0);
    let names: Vec<&str> = others.map(|(g, _)| g.gate.name.as_str()).collect();
    if names.is_empty() { None } else { Some(format!("waits for the first values of {}", names.join(", "))) }
}
