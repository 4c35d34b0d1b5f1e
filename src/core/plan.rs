//! The spec, parsed: defaults applied, every mistake found at once. A plan with mistakes still says where traffic
//! goes, so that it can be put back to stable.

mod checks;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use std::time::Duration;

use crate::api::VoiceRolloutSpec;
use crate::api::analysis::Mode;
use crate::api::common::std_duration;
use crate::api::rollout::{Analysis, CanaryScale, OnDeadline, Preflight, Step};
use crate::api::run::{Consequence, RunGate, Verdict};
use crate::api::sessions::OnMaxDrain;
use crate::core::SpecError;
use crate::core::gates::{consequence, settle_time};
use crate::core::observe::Observations;
use crate::core::preflight::{self, Finding};
use crate::core::proof::{self, ProofPlan};
use crate::core::resolve::{self, Claim, Facts};
use crate::core::revision::steps_hash;
use crate::core::workers;

use checks::{check_drain, check_durations, check_traffic, check_workload, checked};

/// Weights of a release without `spec.steps`.
pub const DEFAULT_WEIGHTS: [i32; 4] = [5, 25, 50, 100];

/// The spec, parsed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Pods of the stable revision.
    pub replicas: i32,
    /// Steps of a release.
    pub steps: Vec<PlanStep>,
    /// Identifies the list of steps.
    pub steps_hash: String,
    /// Background gates.
    pub background: Option<Analysis>,
    /// Names of the background gates that have to pass.
    pub background_required: Vec<String>,
    /// Time after a weight change until a background gate sees data from after it alone, by name.
    pub settle: BTreeMap<String, Duration>,
    /// Background gates that count calls: how long they may stay undecided at a weight, and what then; `None` for nothing.
    pub patience: BTreeMap<String, (Duration, Option<Consequence>)>,
    /// Shares of `falseAbort` of the gates that count calls, by step (`None`: background) and name.
    pub shares: BTreeMap<(Option<i32>, String), f64>,
    /// Judges that explain aborts, by step (`None`: background) and name.
    pub explainers: Vec<(Option<i32>, String)>,
    /// See the spec; `None` when no gate may spend it.
    pub false_abort: Option<f64>,
    /// What is asked of the split; `None` when nobody asks.
    pub proof: Option<ProofPlan>,
    /// Steps stand still.
    pub paused: bool,
    /// See the spec.
    pub progress_deadline: Duration,
    /// See the spec.
    pub on_deadline: OnDeadline,
    /// Revisions that a direct return may go back; 0: none.
    pub rollback_window: i32,
    /// Old ReplicaSets kept.
    pub history_limit: i32,
    /// Time for a change of routes or Services to reach every proxy.
    pub propagation: Duration,
    /// Longest drain.
    pub max_drain: Duration,
    /// What happens at its end.
    pub on_max_drain: OnMaxDrain,
    /// Length of idleness after which a pod may go.
    pub zero_for: Duration,
    /// Live calls are counted.
    pub counted: bool,
    /// Most revisions that have pods at the same time.
    pub max_live: i32,
    /// The least time that the loser of a promotion is kept.
    pub scale_down_delay: Duration,
    /// The least time that an aborted revision is kept.
    pub abort_scale_down_delay: Duration,
    /// Split by subsets of a DestinationRule rather than by Services.
    pub by_subset: bool,
    /// Workers pull their jobs: a weight is a number of them.
    pub by_workers: bool,
    /// What the preflight has found.
    pub findings: Vec<Finding>,
    /// A release does not raise the canary's weight while there is a finding.
    pub enforce_preflight: bool,
    /// What is wrong with the spec. With any, nothing moves but back to stable.
    pub errors: Vec<SpecError>,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanStep {
    /// Canary weight in percent.
    SetWeight(i32),
    /// Wait, for a time or until promoted.
    Pause(Option<Duration>),
    /// Gates to run, and background gates to wait for.
    Analysis {
        /// Gates to run; `None` when the step only waits.
        run: Option<Analysis>,
        /// Background gates to wait for.
        require: Vec<String>,
    },
    /// Canary pods apart from the weight.
    CanaryScale(CanaryPods),
}

/// How many pods the canary gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CanaryPods {
    /// Enough for the traffic weight.
    #[default]
    MatchWeight,
    /// A number.
    Count(i32),
    /// A percentage of `spec.replicas`.
    Percent(i32),
}

impl Plan {
    /// Parses the spec. Never fails: what is wrong is in [`Plan::errors`].
    pub fn parse(name: &str, spec: &VoiceRolloutSpec, seen: &Observations) -> Self {
        let mut errors = Vec::new();
        let background = check_background(spec, seen, &mut errors);
        let gates = background.as_ref().map(|(_, gates)| gates.as_slice()).unwrap_or_default();
        let mut claims = Claims::default();
        claims.add(None, "spec.analysis", gates);
        let required: Vec<String> = gates.iter().filter(|g| g.gate.mode == Mode::Enforce).map(|g| g.gate.name.clone()).collect();
        let known: BTreeSet<&str> = gates.iter().map(|g| g.gate.name.as_str()).collect();
        if spec.steps.as_ref().is_some_and(Vec::is_empty) {
            let message = "has no step: write at least one, or leave it out for 5, 25, 50, 100 with spec.analysis passing after each";
            errors.push(SpecError::new("spec.steps", message));
        }
        let steps = match &spec.steps {
            Some(steps) => steps.iter().enumerate().filter_map(|(i, s)| parse_step(i, s, &known, seen, &mut claims, &mut errors)).collect(),
            None => default_steps(&required, &mut errors),
        };
        let explainers = std::mem::take(&mut claims.explainers);
        let shares = claims.shares(spec.false_abort, &mut errors);
        check_workload(name, spec, &mut errors);
        check_durations(spec, &mut errors);
        check_drain(spec, &mut errors);
        if let Some(proof) = &spec.traffic.proof {
            errors.extend(resolve::proof_problems(proof, "spec.traffic.proof"));
            if let Some(i) = gates.iter().position(|g| g.gate.name == proof::GATE) {
                errors
                    .push(SpecError::new(format!("spec.analysis gate {i}"), format!("the name {} is that of traffic.proof", proof::GATE)));
            }
        }
        let istio = check_traffic(spec, &mut errors);
        errors.sort();
        errors.dedup();
        let patience = gates.iter().filter(|g| g.gate.counted().is_some()).map(|g| {
            let gate = &g.gate;
            (gate.name.clone(), (std_duration(gate.max_duration), consequence(gate, Verdict::Inconclusive)))
        });
        Self {
            patience: patience.collect(),
            proof: ProofPlan::of(&spec.traffic),
            false_abort: (!shares.is_empty()).then_some(spec.false_abort),
            shares,
            explainers,
            replicas: spec.replicas,
            steps_hash: steps_hash(&spec.steps),
            steps,
            settle: gates.iter().map(|g| (g.gate.name.clone(), settle_time(g))).collect(),
            background: background.map(|(analysis, _)| analysis),
            background_required: required,
            paused: spec.paused,
            progress_deadline: std_duration(spec.progress_deadline),
            on_deadline: spec.on_progress_deadline,
            rollback_window: spec.rollback_window.as_ref().map_or(0, |w| w.revisions),
            history_limit: spec.revision_history_limit,
            propagation: istio.map_or(Duration::ZERO, |i| std_duration(i.propagation_delay)),
            max_drain: std_duration(spec.drain.max_drain),
            on_max_drain: spec.drain.on_max_drain,
            zero_for: std_duration(spec.drain.zero_for),
            counted: spec.sessions.is_some(),
            max_live: spec.max_live_revisions.max(2),
            scale_down_delay: std_duration(spec.scale_down_delay),
            abort_scale_down_delay: std_duration(spec.abort_scale_down_delay),
            by_subset: istio.is_some_and(|i| i.destination_rule.is_some()),
            by_workers: workers::share_calls(&spec.traffic),
            findings: preflight::findings(spec, &seen.surroundings),
            enforce_preflight: spec.preflight == Preflight::Enforce,
            errors,
        }
    }

    /// Canary weight in percent while step `index` is the current one.
    pub fn weight_at(&self, index: usize) -> i32 {
        let reached = self.steps.iter().take(index + 1);
        reached.filter_map(|s| if let PlanStep::SetWeight(w) = s { Some(*w) } else { None }).next_back().unwrap_or(0)
    }

    /// Percentage of new calls that the canary gets at a weight.
    pub fn reached(&self, weight: i32) -> i32 {
        if self.by_workers { workers::reached(weight, self.replicas) } else { weight }
    }

    /// The weight at which gates compare.
    pub fn compared(&self, weight: i32) -> i32 {
        if self.by_workers { workers::compared(weight, self.replicas) } else { weight }
    }

    /// Canary pods while step `index` is the current one, at canary weight `weight` percent.
    ///
    /// Any traffic at all gets at least one pod: 1 % of ten replicas is one pod.
    pub fn canary_pods_at(&self, index: usize, weight: i32) -> i32 {
        if self.by_workers {
            return workers::count(weight, self.replicas);
        }
        let reached = self.steps.iter().take(index + 1);
        let scale = reached.filter_map(|s| if let PlanStep::CanaryScale(c) = s { Some(*c) } else { None }).next_back();
        let share = |percent: i32| ((i64::from(self.replicas) * i64::from(percent) + 99) / 100) as i32;
        let floor = i32::from(weight > 0);
        match scale.unwrap_or_default() {
            CanaryPods::MatchWeight => share(weight).max(floor),
            CanaryPods::Count(n) => n.max(floor),
            CanaryPods::Percent(p) => share(p).max(floor),
        }
    }
}

/// What concerns the gates of the whole release.
#[derive(Default)]
struct Claims {
    /// Gates that may abort it though the canary is no worse.
    chances: Vec<((Option<i32>, String), Claim)>,
    /// Judges that explain aborts.
    explainers: Vec<(Option<i32>, String)>,
}

impl Claims {
    fn add(&mut self, step: Option<i32>, path: &str, gates: &[RunGate]) {
        for (i, gate) in gates.iter().map(|g| &g.gate).enumerate().filter(|(_, g)| g.shares_false_abort()) {
            let path = format!("{path} gate {i} ({}) falseAbort", gate.name);
            self.chances.push(((step, gate.name.clone()), Claim { path, own: gate.false_abort, mode: gate.mode }));
        }
        let explains = |g: &&RunGate| g.gate.judge.as_ref().is_some_and(|j| j.explain_aborts);
        self.explainers.extend(gates.iter().filter(explains).map(|g| (step, g.gate.name.clone())));
    }

    fn shares(self, budget: f64, errors: &mut Vec<SpecError>) -> BTreeMap<(Option<i32>, String), f64> {
        let (names, claims): (Vec<_>, Vec<_>) = self.chances.into_iter().unzip();
        match resolve::shares(budget, &claims) {
            Ok(shares) => names.into_iter().zip(shares).collect(),
            Err(more) => {
                errors.extend(more);
                BTreeMap::new()
            }
        }
    }
}

/// Writes the shares into the gates of a run.
pub fn give_shares(gates: &mut [RunGate], step: Option<i32>, shares: &BTreeMap<(Option<i32>, String), f64>) {
    for gate in gates.iter_mut().map(|g| &mut g.gate).filter(|g| g.shares_false_abort()) {
        gate.false_abort = shares.get(&(step, gate.name.clone())).copied().or(gate.false_abort);
    }
}

fn default_steps(required: &[String], errors: &mut Vec<SpecError>) -> Vec<PlanStep> {
    // A mistake in the background gates is told already.
    if required.is_empty() && !errors.iter().any(|e| e.path.starts_with("spec.analysis")) {
        errors.push(SpecError::new(
            "spec.analysis",
            "without spec.steps the weights go 5, 25, 50, 100 and spec.analysis has to pass after each: give it a gate with mode enforce, or write spec.steps",
        ));
    }
    let step = |w| [PlanStep::SetWeight(w), PlanStep::Analysis { run: None, require: required.to_vec() }];
    DEFAULT_WEIGHTS.into_iter().flat_map(step).collect()
}

/// Facts to check gates with before a release is under way.
fn sample_facts(step: i32) -> Facts {
    Facts { stable_revision: "0000000000".into(), canary_revision: "0000000000".into(), weight: 0, step, attempt: 1 }
}

fn check_background(spec: &VoiceRolloutSpec, seen: &Observations, errors: &mut Vec<SpecError>) -> Option<(Analysis, Vec<RunGate>)> {
    let analysis = spec.analysis.as_ref()?;
    if !analysis.require.is_empty() {
        errors.push(SpecError::new("spec.analysis.require", "background gates cannot wait for others: use require in a step"));
    }
    if analysis.templates.is_empty() && analysis.gates.is_empty() {
        errors.push(SpecError::new("spec.analysis", "has no gate: set templates or gates"));
    }
    let gates = resolved(analysis, 0, "spec.analysis", seen, errors);
    for (i, gate) in gates.iter().enumerate() {
        let (threshold, judge, paired) = (gate.gate.threshold.as_ref(), gate.gate.judge.as_ref(), gate.gate.paired.as_ref());
        let path = format!("spec.analysis gate {i} ({})", gate.gate.name);
        let once = threshold.is_some_and(|t| t.interval.is_none()) || judge.is_some_and(|j| j.interval.is_none());
        if once || paired.is_some_and(|p| p.interval.is_none()) {
            let message = "a background gate needs an interval: it is measured again and again until the promotion";
            errors.push(SpecError::new(path.clone(), message));
        }
        // One that ends has no evidence about the weights after its end.
        let ends = threshold.is_some_and(|t| t.count.is_some() || t.consecutive_success_limit > 0) || judge.is_some_and(|j| j.count > 1);
        let ends = ends || paired.is_some_and(|p| p.count > 1);
        if ends && gate.gate.mode == Mode::Enforce {
            let message =
                "a background gate is measured until the promotion: leave out count and consecutiveSuccessLimit, or put it into a step";
            errors.push(SpecError::new(path, message));
        }
    }
    Some((analysis.clone(), gates))
}

fn resolved(analysis: &Analysis, step: i32, path: &str, seen: &Observations, errors: &mut Vec<SpecError>) -> Vec<RunGate> {
    match resolve::resolve(analysis, &seen.rollout, &sample_facts(step), &|r| seen.template(r), path) {
        Ok(gates) => gates,
        Err(more) => {
            errors.extend(more);
            Vec::new()
        }
    }
}

fn parse_step(
    i: usize,
    step: &Step,
    known: &BTreeSet<&str>,
    seen: &Observations,
    claims: &mut Claims,
    errors: &mut Vec<SpecError>,
) -> Option<PlanStep> {
    let path = format!("spec.steps[{i}]");
    let set = [step.set_weight.is_some(), step.pause.is_some(), step.analysis.is_some(), step.set_canary_scale.is_some()];
    if set.iter().filter(|s| **s).count() != 1 {
        errors.push(SpecError::new(path, "a step is exactly one of setWeight, pause, analysis, setCanaryScale"));
        return None;
    }
    if let Some(weight) = step.set_weight {
        if !(0..=100).contains(&weight) {
            errors.push(SpecError::new(format!("{path}.setWeight"), format!("{weight} is not a percentage from 0 to 100")));
        }
        return Some(PlanStep::SetWeight(weight.clamp(0, 100)));
    }
    if let Some(pause) = &step.pause {
        return Some(PlanStep::Pause(pause.duration.map(|d| checked(d, &format!("{path}.pause.duration"), errors))));
    }
    if let Some(scale) = &step.set_canary_scale {
        return parse_scale(scale, &path, errors);
    }
    let analysis = step.analysis.as_ref()?;
    parse_analysis((i, &format!("{path}.analysis")), analysis, known, seen, claims, errors)
}

fn parse_scale(scale: &CanaryScale, path: &str, errors: &mut Vec<SpecError>) -> Option<PlanStep> {
    let pods = match (scale.replicas, scale.weight, scale.match_traffic_weight) {
        (Some(n), None, None) => CanaryPods::Count(n.max(0)),
        (None, Some(p), None) => CanaryPods::Percent(p.clamp(0, 100)),
        (None, None, Some(true)) => CanaryPods::MatchWeight,
        _ => {
            let message = "is exactly one of replicas, weight, matchTrafficWeight: true";
            errors.push(SpecError::new(format!("{path}.setCanaryScale"), message));
            return None;
        }
    };
    Some(PlanStep::CanaryScale(pods))
}

fn parse_analysis(
    (i, path): (usize, &str),
    analysis: &Analysis,
    known: &BTreeSet<&str>,
    seen: &Observations,
    claims: &mut Claims,
    errors: &mut Vec<SpecError>,
) -> Option<PlanStep> {
    for (k, name) in analysis.require.iter().enumerate() {
        if !known.contains(name.as_str()) {
            let names = known.iter().copied().collect::<Vec<_>>().join(", ");
            let there = if names.is_empty() { "spec.analysis has none".to_string() } else { format!("spec.analysis has {names}") };
            errors.push(SpecError::new(format!("{path}.require[{k}]"), format!("no background gate is called {name}: {there}")));
        }
    }
    let runs = !analysis.templates.is_empty() || !analysis.gates.is_empty();
    if !runs && analysis.require.is_empty() {
        errors.push(SpecError::new(path, "has no gate: set templates, gates or require"));
        return None;
    }
    if runs {
        let index = i32::try_from(i).unwrap_or(0);
        let gates = resolved(analysis, index + 1, path, seen, errors);
        for (k, gate) in gates.iter().map(|g| &g.gate).enumerate().filter(|(_, g)| g.compare.is_some() || g.compare_histogram.is_some()) {
            let message = format!("its evidence carries over weights: put it into spec.analysis, and here write require: [{}]", gate.name);
            errors.push(SpecError::new(format!("{path} gate {k} ({})", gate.name), message));
        }
        claims.add(Some(index), path, &gates);
    }
    Some(PlanStep::Analysis { run: runs.then(|| analysis.clone()), require: analysis.require.clone() })
}

/// The rollout as JSON, for arguments that name its fields; status is left out.
pub fn as_json(rollout: &crate::api::VoiceRollout) -> Value {
    let mut value = serde_json::to_value(rollout).unwrap_or(Value::Null);
    if let Some(map) = value.as_object_mut() {
        map.remove("status");
    }
    value
}
