//! When each step begins at the earliest.

use std::time::Duration;

use super::needs::Needed;
use crate::api::analysis::Mode;
use crate::api::common::{Duration as ApiDuration, std_duration};
use crate::api::sessions::OnMaxDrain;
use crate::cli::lint::Release;
use crate::core::gates::settle_time;
use crate::core::plan::PlanStep;
use crate::core::window::span;

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Time from the start of the release.
    pub after: Duration,
    /// Canary weight in percent.
    pub weight: i32,
    /// Canary pods.
    pub canary_pods: i32,
    /// What it does.
    pub what: String,
    /// What it takes its time for; empty for nothing.
    pub why: String,
}

/// The steps of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// Its steps.
    pub rows: Vec<Row>,
    /// When the promotion is done.
    pub total: Duration,
    /// Pauses that only a person ends.
    pub people: usize,
    /// A gate takes a time that is not known.
    pub unknown: bool,
    /// Pods of the stable revision.
    pub stable_pods: i32,
    /// Longest drain; `None` where pods are kept until they are idle.
    pub max_drain: Option<Duration>,
}

/// The clock of a release that is imagined.
struct Walk<'a> {
    gates: &'a [Needed],
    now: Duration,
    /// Since when the weight is what it is.
    weight_since: Duration,
    /// Since when the canary has traffic: background gates run.
    traffic_since: Option<Duration>,
    unknown: bool,
    /// From when on which share of new calls is the canary's, in percent.
    shares: Vec<(Duration, i32)>,
}

impl Timeline {
    /// Goes through the plan.
    pub fn of(release: &Release, gates: &[Needed]) -> Self {
        let plan = &release.plan;
        let mut walk =
            Walk { gates, now: Duration::ZERO, weight_since: Duration::ZERO, traffic_since: None, unknown: false, shares: Vec::new() };
        let mut rows = Vec::new();
        for (i, step) in plan.steps.iter().enumerate() {
            let weight = plan.weight_at(i);
            let after = walk.now;
            let (what, why) = match step {
                PlanStep::SetWeight(to) => {
                    if i == 0 || plan.weight_at(i - 1) != *to {
                        walk.weight_since = walk.now;
                        walk.shares.push((walk.now, plan.reached(*to)));
                    }
                    if *to > 0 {
                        walk.traffic_since.get_or_insert(walk.now);
                    }
                    (format!("setWeight {to}"), String::new())
                }
                PlanStep::CanaryScale(_) => ("setCanaryScale".into(), String::new()),
                PlanStep::Pause(Some(length)) => {
                    walk.now += *length;
                    (format!("pause {}", span(*length)), String::new())
                }
                PlanStep::Pause(None) => ("pause until a person promotes".into(), String::new()),
                PlanStep::Analysis { run, require } => walk.analysis(i, weight, run.is_some(), require),
            };
            rows.push(Row { after, weight, canary_pods: plan.canary_pods_at(i, weight), what, why });
        }
        let weight = rows.last().map_or(0, |r| r.weight);
        walk.wait_for(None, weight, &|g| plan.background_required.contains(&g.name));
        Self {
            people: plan.steps.iter().filter(|s| **s == PlanStep::Pause(None)).count(),
            // The stable arm is pointed at the new pods, and then the weights go back.
            total: walk.now + plan.propagation,
            unknown: walk.unknown,
            rows,
            stable_pods: plan.replicas,
            max_drain: (plan.on_max_drain != OnMaxDrain::Keep).then_some(plan.max_drain),
        }
    }
}

impl Walk<'_> {
    fn analysis(&mut self, index: usize, weight: i32, runs: bool, require: &[String]) -> (String, String) {
        let begun = self.now;
        let mut names: Vec<String> = Vec::new();
        let mut slowest: Option<(Duration, String)> = None;
        if runs {
            names.extend(self.gates.iter().filter(|g| g.step == Some(index)).map(|g| g.name.clone()));
            slowest = self.wait_for(Some(index), weight, &|g| g.run.gate.mode == Mode::Enforce);
        }
        if !require.is_empty() {
            names.push(format!("background {}", require.join(", ")));
            let other = self.wait_for(None, weight, &|g| require.contains(&g.name));
            slowest = slowest.into_iter().chain(other).max_by_key(|(end, _)| *end);
        }
        let took = self.now.saturating_sub(begun);
        let why = slowest.filter(|_| took > Duration::ZERO).map(|(_, why)| format!("{} for {why}", span(took))).unwrap_or_default();
        (format!("analysis {}", names.join(", ")), why)
    }

    /// Moves the clock to the moment at which the gates of a step (`None`: background) that count have passed; the last one
    /// of them, and what it took its time for.
    fn wait_for(&mut self, step: Option<usize>, weight: i32, counts: &dyn Fn(&Needed) -> bool) -> Option<(Duration, String)> {
        let gates: Vec<&Needed> = self.gates.iter().filter(|g| g.step == step && counts(g)).collect();
        let mut last = None;
        for gate in gates {
            let (end, why) = self.passes_at(gate, weight);
            if last.as_ref().is_none_or(|(latest, _)| end > *latest) {
                last = Some((end, why));
            }
        }
        if let Some((end, _)) = &last {
            self.now = self.now.max(*end);
        }
        last
    }

    fn passes_at(&mut self, needed: &Needed, weight: i32) -> (Duration, String) {
        let gate = &needed.run.gate;
        let background = needed.step.is_none();
        let started = if background { self.traffic_since.unwrap_or(self.now) } else { self.now };
        let settled = self.weight_since + settle_time(&needed.run);
        let length = |d: Option<ApiDuration>| d.map(std_duration).unwrap_or_default();
        let at_least = started + length(gate.min_duration);
        if let Some(counted) = gate.counted() {
            let before = self.shares.iter().zip(self.shares.iter().skip(1)).map(|((from, w), (to, _))| (*to - *from, *w));
            let calls = needed.calls_take(weight, before);
            self.unknown |= calls.is_none();
            let warm = started + std_duration(counted.warmup);
            let enough = self.weight_since.max(warm) + calls.unwrap_or_default();
            let baked = started + length(counted.min_bake);
            let why = if calls.is_some_and(|c| c > Duration::ZERO) { "enough calls" } else { "its pods to warm up, and calls" };
            return (enough.max(baked).max(at_least).max(settled), format!("{why} ({})", needed.name));
        }
        let (delay, interval, count) = match (&gate.threshold, &gate.judge, &gate.paired) {
            (Some(t), _, _) => {
                let count = if t.consecutive_success_limit > 0 { t.consecutive_success_limit } else { t.count.unwrap_or(1) };
                (t.initial_delay, t.interval, count)
            }
            (_, Some(j), _) => (j.initial_delay, j.interval, j.count),
            (_, _, Some(p)) => (p.initial_delay, p.interval, p.count),
            _ => (None, None, 1),
        };
        let first = started.max(settled) + if background { Duration::ZERO } else { length(delay) };
        let first = if background { first.max(started + length(delay)) } else { first };
        // In the background one measurement at this weight is enough.
        let repeats = if background { 0 } else { u32::try_from(count.max(1) - 1).unwrap_or(0) };
        let end = (first + length(interval) * repeats).max(at_least);
        let why = match (repeats, settled > started) {
            (0, true) => format!("data of this weight alone ({})", needed.name),
            (0, false) => needed.name.clone(),
            (n, _) => format!("{} measurements ({})", n + 1, needed.name),
        };
        (end, why)
    }
}
