//! One gate: a measurement's outcome becomes counts, and counts and time become a verdict.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::calls::{self, Moment, Question, Snapshot};
use super::rules::{self, Rules};
use super::schedule::{self, stamp};
use super::suite::{self, Eval, Reading};
use super::{MAX_MEASUREMENTS, Outcome, explain, finished_count, paired, split, time_limit};
use crate::api::analysis::{Gate, OnInconclusive};
use crate::api::common::std_duration;
use crate::api::judge::JudgeRecord;
use crate::api::run::{Consequence, GateStatus, InFlight, Measurement, RunKind, Suite, Tokens, Verdict, VoiceAnalysisRunSpec};
use crate::core::condition;
use crate::core::judge::budget::{self, Bill};
use crate::core::window::{add, clock, span};

/// Longest message, in characters.
const MAX_MESSAGE: usize = 400;

/// A measurement that has been decided.
struct Decided {
    verdict: Verdict,
    value: Option<String>,
    message: String,
    tokens: Option<Tokens>,
    retry_after: Option<std::time::Duration>,
    suite: Option<Suite>,
    judge: Option<JudgeRecord>,
}

/// When an outcome came, and beside what.
pub struct When {
    /// The time.
    pub now: Timestamp,
    /// In 0..1; spreads retries.
    pub jitter: f64,
    /// Bytes that the run's other gates remember.
    pub others: usize,
}

/// Takes in a measurement's outcome and sets the time of the next one.
pub fn record(spec: &VoiceAnalysisRunSpec, gate: &Gate, state: &mut GateStatus, outcome: &Outcome, when: &When) {
    let Some(flight) = state.in_flight.take() else { return };
    let When { now, jitter, others } = *when;
    let rules = rules::rules(gate, spec.kind);
    let suite = if let Outcome::Eval(eval) = outcome { eval.suite.as_ref() } else { None };
    let restarted = suite::enter(gate, state, suite, &flight.started_at);
    let mut decided = match outcome {
        Outcome::Counted(seen) => look(spec, gate, state, seen, flight.started_at.0, others),
        _ => decide(gate, state, outcome),
    };
    if spec.kind == RunKind::Explanation {
        explain::harmless(&mut decided.verdict, &mut decided.value);
    }
    if let Some(why) = restarted {
        decided.message = format!("{} ({why})", decided.message);
    }
    count(state, decided.verdict);
    mark(&rules, state, decided.verdict, flight.started_at.clone(), now);
    budget::settle(gate, state, bill(outcome));
    if let Some(used) = decided.tokens.filter(|t| *t != Tokens::default()) {
        let total = state.tokens.get_or_insert_default();
        total.input = total.input.saturating_add(used.input);
        total.output = total.output.saturating_add(used.output);
    }
    if decided.value.is_some() {
        state.value.clone_from(&decided.value);
    }
    let wait = schedule::pause(&rules, decided.verdict, state.counts.consecutive_error, decided.retry_after, jitter);
    let idle = is_ripe(&rules, state) && rules.interval.is_none();
    state.next_at = if idle { None } else { Some(schedule::due(add(now, wait))) };
    let progress = if spec.kind == RunKind::Explanation { String::new() } else { progress(gate, &rules, state, decided.verdict) };
    state.message = shorten(format!("{}{progress}", decided.message));
    state.measurements.push(Measurement {
        started_at: flight.started_at,
        finished_at: stamp(now),
        verdict: decided.verdict,
        value: decided.value,
        message: shorten(decided.message),
        suite: decided.suite,
        judge: decided.judge,
    });
    let surplus = state.measurements.len().saturating_sub(MAX_MEASUREMENTS);
    state.measurements.drain(..surplus);
}

fn plain(verdict: Verdict, message: String) -> Decided {
    Decided { verdict, value: None, message, tokens: None, retry_after: None, suite: None, judge: None }
}

fn decide(gate: &Gate, state: &mut GateStatus, outcome: &Outcome) -> Decided {
    match outcome {
        Outcome::Value(value) => compare(gate, value),
        Outcome::Eval(eval) => evaluate(gate, state, eval),
        Outcome::Counted(_) => plain(Verdict::Error, "the provider counted calls, which nobody had asked for".into()),
        Outcome::NoData(message) => plain(Verdict::Inconclusive, message.clone()),
        Outcome::Votes(j) => {
            let said = match j.verdict {
                Verdict::Pass => Some("PASS"),
                Verdict::Fail => Some("FAIL"),
                Verdict::Inconclusive => Some("UNSURE"),
                Verdict::Error => None,
            };
            Decided {
                value: said.map(Into::into),
                tokens: Some(j.record.tokens),
                retry_after: j.retry_after,
                judge: Some(j.record.clone()),
                ..plain(j.verdict, j.message.clone())
            }
        }
        Outcome::Failed { message, retry_after, tokens } => {
            Decided { tokens: *tokens, retry_after: *retry_after, ..plain(Verdict::Error, message.clone()) }
        }
        Outcome::Running { .. } => plain(Verdict::Error, "the provider is still running".into()),
    }
}

/// Takes counters in: evidence and memory go into the status, and the verdict follows.
fn look(
    spec: &VoiceAnalysisRunSpec,
    gate: &Gate,
    state: &mut GateStatus,
    seen: &Snapshot,
    started_at: Timestamp,
    others: usize,
) -> Decided {
    if let Some(counting) = &gate.split {
        let (verdict, message) = split::look(counting, &mut state.split, seen, others);
        return plain(verdict, message);
    }
    let question = match Question::of(gate) {
        Some(Ok(question)) => question,
        // Refused before a run is made.
        Some(Err(errors)) => return plain(Verdict::Error, errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        None => return plain(Verdict::Error, "the provider counted calls, which nobody had asked for".into()),
    };
    let moment = Moment {
        started_at,
        first_at: state.started_at.as_ref().map_or(started_at, |t| t.0),
        traffic_since: spec.traffic_since.as_ref().map(|t| t.0),
        min_duration: gate.min_duration.map(std_duration).unwrap_or_default(),
        others,
    };
    let before = state.memory.take().unwrap_or_default();
    let look = calls::look(&question, &before, state.comparison.as_ref(), seen, &moment);
    state.memory = Some(look.memory);
    state.comparison = look.comparison;
    state.warnings = look.warnings;
    let value = state.comparison.as_ref().and_then(|c| c.estimate).map(|e| e.to_string());
    Decided { value, ..plain(look.verdict, look.message) }
}

fn compare(gate: &Gate, value: &serde_json::Value) -> Decided {
    let Some(t) = &gate.threshold else { return plain(Verdict::Error, "the provider gave a value, which this gate cannot use".into()) };
    let (verdict, message) = condition::evaluate(t.success_condition.as_deref(), t.failure_condition.as_deref(), value);
    Decided { value: Some(condition::value_text(value)), ..plain(verdict, message) }
}

/// An eval harness's measurement; the message names the suite.
fn evaluate(gate: &Gate, state: &mut GateStatus, eval: &Eval) -> Decided {
    let mut decided = match (&eval.reading, &gate.paired) {
        (Reading::Value(value), _) => compare(gate, value),
        (Reading::NoData(message), _) => plain(Verdict::Inconclusive, message.clone()),
        (Reading::Pairs(pairs), Some(p)) => {
            let (verdict, value, message) = paired::decide(gate, p, state, pairs, eval.suite.as_ref());
            Decided { value: Some(value), ..plain(verdict, message) }
        }
        (Reading::Pairs(_), None) => plain(Verdict::Error, "the provider gave scenarios, which this gate cannot use".into()),
    };
    if let Some(suite) = &eval.suite {
        decided.message = format!("{} [suite {}]", decided.message, suite::text(suite));
        decided.suite = Some(suite.clone());
    }
    decided
}

/// What a judge's verdict cost, as far as it is known.
fn bill(outcome: &Outcome) -> Bill {
    let asked = |tokens: Tokens| Bill::Asked { tokens, unknown: 0 };
    match outcome {
        Outcome::Votes(j) if j.record.cached || j.record.votes.is_empty() => Bill::Nothing,
        Outcome::Votes(j) => Bill::Asked { tokens: j.record.tokens, unknown: j.unknown },
        Outcome::Failed { tokens: Some(tokens), .. } if *tokens == Tokens::default() => Bill::Nothing,
        Outcome::Failed { tokens: Some(tokens), .. } => asked(*tokens),
        Outcome::NoData(_) => Bill::Nothing,
        Outcome::Failed { tokens: None, .. } | Outcome::Value(_) | Outcome::Eval(_) | Outcome::Counted(_) | Outcome::Running { .. } => {
            Bill::Unknown
        }
    }
}

fn count(state: &mut GateStatus, verdict: Verdict) {
    let c = &mut state.counts;
    let total = match verdict {
        Verdict::Pass => &mut c.pass,
        Verdict::Fail => &mut c.fail,
        Verdict::Inconclusive => &mut c.inconclusive,
        Verdict::Error => &mut c.error,
    };
    *total = total.saturating_add(1);
    c.consecutive_pass = if verdict == Verdict::Pass { c.consecutive_pass.saturating_add(1) } else { 0 };
    c.consecutive_error = if verdict == Verdict::Error { c.consecutive_error.saturating_add(1) } else { 0 };
}

/// Keeps the clocks of failing and undecided time, and takes back verdicts that evidence has overtaken. An answer ends
/// failing; only a Pass or a Fail ends being undecided, and an Error does not interrupt it.
fn mark(rules: &Rules, state: &mut GateStatus, verdict: Verdict, started_at: Time, now: Timestamp) {
    state.passing = verdict == Verdict::Pass;
    if state.passing {
        state.last_pass_at = Some(started_at);
    }
    if verdict == Verdict::Error {
        state.failing_since.get_or_insert(stamp(now));
        return;
    }
    state.failing_since = None;
    if state.verdict == Some(Verdict::Error) {
        (state.verdict, state.consequence) = (None, None);
    }
    if verdict == Verdict::Inconclusive {
        state.undecided_since.get_or_insert(stamp(now));
        return;
    }
    let since = state.undecided_since.take();
    if is_overdue(rules, state) {
        state.undecided_since = since.or(Some(stamp(now)));
    } else if state.verdict == Some(Verdict::Inconclusive) {
        (state.verdict, state.consequence) = (None, None);
    }
}

/// A measurement that has been under way too long counts as an Error.
pub fn expire(spec: &VoiceAnalysisRunSpec, gate: &Gate, state: &mut GateStatus, now: Timestamp) {
    let limit = time_limit(gate);
    let Some(flight) = state.in_flight.as_ref().filter(|f| add(f.started_at.0, limit) <= now) else { return };
    let mut message = match rules::long_run(gate) {
        Some(_) => format!("the run was not done within its deadline of {}", span(limit)),
        None => format!("no result within {}", span(limit)),
    };
    if let Some(trouble) = &flight.trouble {
        message.push_str(&format!("; the last poll failed: {trouble}"));
    }
    let key = flight.key.clone();
    let lost = Outcome::Failed { message, retry_after: None, tokens: None };
    record(spec, gate, state, &lost, &When { now, jitter: super::key::fraction(&key), others: 0 });
}

/// A judge whose budget is spent is not asked; that it was not counts as an undecided measurement.
pub fn refuse(spec: &VoiceAnalysisRunSpec, gate: &Gate, state: &mut GateStatus, now: Timestamp) {
    let due = state.in_flight.is_none() && state.next_at.as_ref().is_some_and(|t| t.0 <= now);
    if !due || rules::is_final(gate, state) {
        return;
    }
    let Some(why) = budget::exhausted(gate, state) else { return };
    let key = super::measurement_key(spec, &gate.name, finished_count(state) + 1);
    state.started_at.get_or_insert(stamp(now));
    state.in_flight = Some(InFlight { key: key.clone(), started_at: stamp(now), handle: None, trouble: None });
    budget::reserve(gate, state);
    record(spec, gate, state, &Outcome::NoData(why), &When { now, jitter: super::key::fraction(&key), others: 0 });
}

/// Gives the verdict that counts and time have reached. Says the same again when nothing has changed.
pub fn settle(spec: &VoiceAnalysisRunSpec, gate: &Gate, state: &mut GateStatus, now: Timestamp) {
    if rules::is_final(gate, state) {
        return;
    }
    let rules = rules::rules(gate, spec.kind);
    let reached = match rules.argo {
        _ if rules.sentinel && state.counts.fail > 0 => Some(Verdict::Fail),
        Some(limits) => argo_verdict(gate, &rules, limits, state, now),
        None => hold_verdict(gate, &rules, state, now),
    };
    let Some(verdict) = reached else { return };
    state.verdict = Some(verdict);
    state.consequence = rules::consequence(gate, verdict);
    if let Some(reason) = ran_out(gate, &rules, state, verdict) {
        let last = state.measurements.last().map_or("", |m| m.message.as_str());
        state.message = shorten(format!("{reason}: {last}"));
    }
    if rules::is_final(gate, state) {
        state.next_at = None;
        state.in_flight = None;
    }
}

/// `counting: hold`. Limits count Fail only; errors and undecided measurements hold, for a time.
fn hold_verdict(gate: &Gate, rules: &Rules, state: &GateStatus, now: Timestamp) -> Option<Verdict> {
    if rules.failure_limit >= 0 && state.counts.fail > rules.failure_limit {
        return Some(Verdict::Fail);
    }
    if is_ripe(rules, state) && state.in_flight.is_none() && is_over(state.started_at.as_ref(), gate.min_duration, now) {
        return Some(Verdict::Pass);
    }
    let failing = state.failing_since.is_some() && is_over(state.failing_since.as_ref(), Some(gate.error_budget), now);
    // Where margins depend on the weight, which a run does not know, the release itself looks at the clock.
    let undecided = !rules.by_weight
        && gate.on_inconclusive != OnInconclusive::Extend
        && state.undecided_since.is_some()
        && is_over(state.comparison.as_ref().and_then(|c| c.not_before.as_ref()), Some(gate.max_duration), now)
        && is_over(state.undecided_since.as_ref(), Some(gate.max_duration), now);
    match (failing, undecided) {
        (true, true) if rules::consequence(gate, Verdict::Inconclusive) == Some(Consequence::Abort) => Some(Verdict::Inconclusive),
        (true, _) => Some(Verdict::Error),
        (false, true) => Some(Verdict::Inconclusive),
        (false, false) => None,
    }
}

/// `counting: argo`: Argo Rollouts' assessment of a metric. Errors in a row override undecided ones, which override
/// failures; errors do not count towards `count`. Differences: nothing passes without a Pass, and `Extend` ignores the
/// limit of undecided measurements.
fn argo_verdict(gate: &Gate, rules: &Rules, (inconclusive, errors): (i32, i32), state: &GateStatus, now: Timestamp) -> Option<Verdict> {
    let c = &state.counts;
    let exceeds = |n: i32, limit: i32| limit >= 0 && n > limit;
    let undecided = Some(Verdict::Inconclusive).filter(|_| gate.on_inconclusive != OnInconclusive::Extend);
    if exceeds(c.consecutive_error, errors) {
        return Some(Verdict::Error);
    }
    if exceeds(c.inconclusive, inconclusive) && undecided.is_some() {
        return undecided;
    }
    if exceeds(c.fail, rules.failure_limit) {
        return Some(Verdict::Fail);
    }
    let row = rules.consecutive_success > 0;
    let complete = rules.count.is_some_and(|n| c.pass.saturating_add(c.fail).saturating_add(c.inconclusive) >= n);
    if row && c.consecutive_pass >= rules.consecutive_success || !row && complete && c.pass > 0 {
        return Some(Verdict::Pass).filter(|_| state.in_flight.is_none() && is_over(state.started_at.as_ref(), gate.min_duration, now));
    }
    match complete {
        true if row && rules.failure_limit < 0 => Some(Verdict::Fail),
        true => undecided,
        false => None,
    }
}

/// Enough has passed for the gate to pass, once `minDuration` is over, and the newest measurement is no Error and not
/// undecided. `count` needs a Pass among its measurements; with `consecutiveSuccessLimit` only the row counts.
pub fn is_ripe(rules: &Rules, state: &GateStatus) -> bool {
    let c = &state.counts;
    let held = rules.argo.is_none() && (state.failing_since.is_some() || state.undecided_since.is_some());
    !held
        && c.pass > 0
        && if rules.consecutive_success > 0 { c.consecutive_pass >= rules.consecutive_success } else { is_counted(rules, state) }
}

fn is_counted(rules: &Rules, state: &GateStatus) -> bool {
    rules.count.is_some_and(|n| state.counts.pass.saturating_add(state.counts.fail) >= n)
}

/// The measurements that were asked for are taken and do not decide.
fn is_overdue(rules: &Rules, state: &GateStatus) -> bool {
    let endless_row = rules.count.is_none() && rules.consecutive_success > 0;
    !is_ripe(rules, state) && (is_counted(rules, state) || endless_row)
}

fn is_over(since: Option<&Time>, by: Option<crate::api::common::Duration>, now: Timestamp) -> bool {
    since.is_none_or(|t| add(t.0, by.map(std_duration).unwrap_or_default()) <= now)
}

/// Why time or a limit gave the verdict, where the last measurement alone does not say.
fn ran_out(gate: &Gate, rules: &Rules, state: &GateStatus, verdict: Verdict) -> Option<String> {
    let since = |t: &Option<Time>| t.as_ref().map_or_else(String::new, |t| clock(t.0));
    match (verdict, rules.argo) {
        (Verdict::Error, Some((_, limit))) => Some(format!("{} errors in a row, tolerated are {limit}", state.counts.consecutive_error)),
        (Verdict::Inconclusive, Some(_)) => Some(format!("undecided after {} measurements", finished_count(state))),
        (Verdict::Error, None) => Some(format!(
            "the provider fails since {}, longer than errorBudget {}",
            since(&state.failing_since),
            span(std_duration(gate.error_budget))
        )),
        (Verdict::Inconclusive, None) => Some(format!(
            "undecided since {}, longer than maxDuration {}",
            since(&state.undecided_since),
            span(std_duration(gate.max_duration))
        )),
        (Verdict::Pass | Verdict::Fail, _) => None,
    }
}

/// How far the gate has come, in brackets.
fn progress(gate: &Gate, rules: &Rules, state: &GateStatus, verdict: Verdict) -> String {
    let c = &state.counts;
    let mut parts = Vec::new();
    if rules.consecutive_success > 0 && verdict != Verdict::Error {
        parts.push(format!("{} of {} passes in a row", c.consecutive_pass, rules.consecutive_success));
    } else if let Some(count) = rules.count.filter(|n| *n > 1) {
        parts.push(format!("{} of {count} measurements", c.pass.saturating_add(c.fail)));
    }
    if c.fail > 0 && rules.failure_limit > 0 && !rules.sentinel {
        parts.push(format!("{} failed, tolerated are {}", c.fail, rules.failure_limit));
    }
    if verdict == Verdict::Error && rules.argo.is_none() && state.verdict.is_none() {
        parts.push(format!("error {} in a row, {} at most", c.consecutive_error, span(std_duration(gate.error_budget))));
    }
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join("; ")) }
}

pub fn shorten(text: String) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}
