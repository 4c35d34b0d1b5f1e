//! What a gate's fields mean: defaults by kind of run, limits, consequences.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::schedule;
use crate::api::analysis::{Counting, EvidenceMetric, Gate, Mode, OnError, OnFail, OnInconclusive, PrometheusProvider, WebRun};
use crate::api::common::std_duration;
use crate::api::run::{Consequence, GateStatus, RunGate, RunKind, Verdict, VoiceAnalysisRunSpec};
use crate::core::args::{self, ArgValue, Place};
use crate::core::judge::metrics::metrics;
use crate::core::window;

/// Time beyond the provider's own limit before a measurement counts as lost.
const GRACE: Duration = Duration::from_secs(30);
/// Most queries of one look at counters.
const COUNTING_QUERIES: u32 = 4;
/// Shortest interval that is kept to, whatever a spec says.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// How many measurements a gate takes and what it tolerates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Time between measurements.
    pub interval: Option<Duration>,
    /// Measurements to take; `None`: no end.
    pub count: Option<i32>,
    /// Fails that are tolerated; negative: any number.
    pub failure_limit: i32,
    /// Passes in a row that pass the gate; 0: off.
    pub consecutive_success: i32,
    /// The first Fail aborts.
    pub sentinel: bool,
    /// Argo's counting: tolerated undecided measurements and errors in a row; negative: any number.
    pub argo: Option<(i32, i32)>,
    /// A language model is asked.
    pub judge: bool,
    /// What passing asks for depends on the weight.
    pub by_weight: bool,
}

/// Reads a gate's fields for one kind of run.
pub fn rules(gate: &Gate, kind: RunKind) -> Rules {
    let interval = |d: Option<_>| d.map(|d| std_duration(d).max(MIN_INTERVAL));
    if let Some(t) = &gate.threshold {
        let interval = interval(t.interval);
        let endless = t.consecutive_success_limit > 0 || (kind == RunKind::Background && interval.is_some());
        return Rules {
            interval,
            count: t.count.or(if endless { None } else { Some(1) }),
            failure_limit: t.failure_limit,
            consecutive_success: t.consecutive_success_limit,
            sentinel: t.sentinel,
            argo: (t.counting == Counting::Argo).then_some((t.inconclusive_limit, t.consecutive_error_limit)),
            judge: false,
            by_weight: false,
        };
    }
    if let Some(counted) = gate.reads_counters() {
        return Rules {
            interval: interval(Some(counted.interval)),
            count: (kind == RunKind::Step).then_some(1),
            failure_limit: 0,
            consecutive_success: 0,
            sentinel: false,
            argo: None,
            judge: false,
            by_weight: kind == RunKind::Background && gate.counted().is_some(),
        };
    }
    let judge = gate.judge.as_ref().map(|j| (interval(j.interval), j.count, j.failure_limit));
    let paired = gate.paired.as_ref().map(|p| (interval(p.interval), p.count, 0));
    let (interval, count, failure_limit) = judge.or(paired).unwrap_or((None, 1, 0));
    // A judge's count is 1 unless written; with an interval in the background it asks again and again.
    let endless = kind == RunKind::Background && interval.is_some() && count <= 1;
    Rules {
        interval,
        count: if endless { None } else { Some(count) },
        failure_limit,
        consecutive_success: 0,
        sentinel: false,
        argo: None,
        judge: gate.judge.is_some(),
        by_weight: false,
    }
}

/// What a verdict asks the release to do. A signal's outage or indecision holds nothing, as its Pass is not required.
pub fn consequence(gate: &Gate, verdict: Verdict) -> Option<Consequence> {
    let sentinel = gate.threshold.as_ref().is_some_and(|t| t.sentinel);
    let wanted = match verdict {
        Verdict::Pass => return None,
        Verdict::Fail if sentinel || gate.on_fail == OnFail::Abort => Consequence::Abort,
        Verdict::Error if gate.on_error == OnError::Abort => Consequence::Abort,
        Verdict::Inconclusive => match gate.on_inconclusive {
            OnInconclusive::Abort => Consequence::Abort,
            OnInconclusive::Pause => Consequence::Pause,
            OnInconclusive::Extend => return None,
        },
        Verdict::Fail | Verdict::Error => Consequence::Pause,
    };
    match gate.mode {
        Mode::DryRun => None,
        Mode::Signal if verdict != Verdict::Fail && wanted == Consequence::Pause => None,
        Mode::Enforce | Mode::Signal => Some(wanted),
    }
}

/// Whether a gate takes no more measurements. An asked-for abort is final too: were it given up when the provider
/// answers again, weights that are on their way down could rise. So is every verdict of Argo's counting.
pub fn is_final(gate: &Gate, state: &GateStatus) -> bool {
    let argo = gate.threshold.as_ref().is_some_and(|t| t.counting == Counting::Argo);
    match state.verdict {
        Some(Verdict::Pass | Verdict::Fail) => true,
        Some(_) => argo || state.consequence == Some(Consequence::Abort),
        None => false,
    }
}

/// Time from the start of a measurement until it counts as lost: the limits of every request it may make, one after the
/// other, and some grace.
pub fn time_limit(gate: &Gate) -> Duration {
    if let Some(run) = long_run(gate) {
        return std_duration(run.deadline);
    }
    let provider = gate.threshold.as_ref().map(|t| match (&t.provider.web, &t.provider.prometheus) {
        (Some(web), _) => std_duration(web.timeout),
        (None, Some(prometheus)) => std_duration(prometheus.timeout),
        (None, None) => Duration::ZERO,
    });
    let paired = gate.paired.as_ref().map(|p| std_duration(p.web.timeout));
    let judge = gate.judge.as_ref().map(|j| {
        // Both arms, value and count.
        let metrics: Duration = metrics(&j.evidence).iter().map(|m| std_duration(m.prometheus.timeout).saturating_mul(4)).sum();
        let logs = match &j.evidence.logs {
            None => Duration::ZERO,
            Some(l) if l.templates.is_none() && l.transcripts.is_none() => GRACE,
            Some(_) => GRACE.saturating_mul(6),
        };
        let traces = j.evidence.traces.as_ref().map_or(Duration::ZERO, |t| std_duration(t.timeout));
        // Votes are asked for in at most two rounds.
        let rounds = if j.votes > 1 { 2 } else { 1 };
        std_duration(j.timeout).saturating_mul(rounds).saturating_add(metrics).saturating_add(logs).saturating_add(traces)
    });
    let counted = gate.reads_counters().map(|c| std_duration(c.prometheus.timeout).saturating_mul(COUNTING_QUERIES));
    provider.or(paired).or(judge).or(counted).unwrap_or_default().saturating_add(GRACE)
}

/// The run that a gate's measurement starts and polls, where it is one.
pub fn long_run(gate: &Gate) -> Option<&WebRun> {
    let threshold = gate.threshold.as_ref().and_then(|t| t.provider.web.as_ref());
    threshold.or(gate.paired.as_ref().map(|p| &p.web)).and_then(|web| web.run.as_ref())
}

/// Status of a gate that has not been measured.
pub fn fresh(spec: &VoiceAnalysisRunSpec, run_gate: &RunGate, now: Timestamp) -> GateStatus {
    let first = schedule::due(first_at(spec, run_gate, now));
    let since = spec.traffic_since.as_ref().map(|t| t.0);
    GateStatus {
        name: run_gate.gate.name.clone(),
        mode: run_gate.gate.mode,
        message: window::waiting(first.0, since, looks_back(run_gate).map(|(w, _)| w), now),
        next_at: Some(first),
        ..GateStatus::default()
    }
}

/// When a gate's first measurement may be taken, in a run that begins now.
pub fn first_at(spec: &VoiceAnalysisRunSpec, run_gate: &RunGate, now: Timestamp) -> Timestamp {
    let gate = &run_gate.gate;
    let of_judge = || gate.judge.as_ref().and_then(|j| j.initial_delay);
    let delay = gate.threshold.as_ref().and_then(|t| t.initial_delay).or_else(of_judge);
    let delay = delay.or(gate.paired.as_ref().and_then(|p| p.initial_delay));
    let since = spec.traffic_since.as_ref().map(|t| t.0);
    let (window, scrape) = looks_back(run_gate).map_or((None, Duration::ZERO), |(window, scrape)| (Some(window), scrape));
    window::first_measurement_at(now, since, window, scrape, delay.map(std_duration).unwrap_or_default())
}

/// Time after a weight change until the gate's queries see nothing from before it.
pub fn settle_time(run_gate: &RunGate) -> Duration {
    looks_back(run_gate).map_or(Duration::ZERO, |(window, scrape)| window.saturating_add(scrape))
}

/// Longest window and scrape interval of the gate's queries; of all evidence for a judge.
fn looks_back(run_gate: &RunGate) -> Option<(Duration, Duration)> {
    let gate = &run_gate.gate;
    let own = gate.threshold.iter().filter_map(|t| t.provider.prometheus.as_ref()).map(|p| (p, None));
    let asked: Vec<EvidenceMetric> = gate.judge.iter().flat_map(|j| metrics(&j.evidence)).collect();
    let evidence = asked.iter().map(|EvidenceMetric { prometheus, count_query, .. }| (prometheus, count_query.as_deref()));
    let args = stand_ins(run_gate);
    let of = |(p, count): (&PrometheusProvider, Option<&str>)| {
        let window = [Some(p.query.as_str()), count].into_iter().flatten().filter_map(|q| query_window(q, &args)).max();
        (window.unwrap_or_default(), std_duration(p.scrape_interval))
    };
    // Counters have no window, but the baseline has to be of the new weight.
    let counted = gate.reads_counters().map(|c| (Duration::ZERO, std_duration(c.prometheus.scrape_interval)));
    let traces = gate.judge.iter().filter_map(|j| j.evidence.traces.as_ref()).map(|t| (std_duration(t.window), Duration::ZERO));
    own.chain(evidence).map(of).chain(counted).chain(traces).max_by_key(|(window, scrape)| window.saturating_add(*scrape))
}

/// `None` where the query cannot be read; then the provider refuses it and says so.
fn query_window(query: &str, args: &BTreeMap<String, ArgValue>) -> Option<Duration> {
    let filled = args::fill(query, Place::PromQl, args).ok()?;
    window::longest(&filled.text, "").ok()
}

/// The gate's arguments, with a stand-in where the value is a Secret's.
fn stand_ins(run_gate: &RunGate) -> BTreeMap<String, ArgValue> {
    let given = run_gate.args.iter().map(|a| (a.name.clone(), ArgValue::plain(a.value.as_deref().unwrap_or("x"))));
    given.chain([("revision".to_owned(), ArgValue::plain("x"))]).collect()
}
