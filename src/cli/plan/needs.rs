//! What gates need: calls, and money for their judge.

use std::time::Duration;

use crate::api::analysis::Gate;
use crate::api::common::std_duration;
use crate::api::rollout::Analysis;
use crate::api::run::RunGate;
use crate::cli::error::CliError;
use crate::cli::lint::Release;
use crate::core::SpecError;
use crate::core::gates::calls::Needs;
use crate::core::gates::calls::simulate::Simulation;
use crate::core::judge::budget::highest_of_verdict;
use crate::core::plan::{Plan, PlanStep, give_shares};
use crate::core::resolve::{Facts, resolve};
use crate::core::stats::plan::Calls;
use crate::core::stats::traffic::{self, Lognormal, Regression, Signal, Spread, Step};

/// Spread of imagined latencies: standard deviation of the logarithm.
const SIGMA: f64 = 0.5;

/// What is assumed about calls.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Both versions together; `None`: not said.
    pub calls_per_minute: Option<f64>,
    /// Share of stable's calls that are bad.
    pub bad_rate: f64,
    /// How many times worse a canary is whose abort is foretold.
    pub regression: f64,
}

impl Traffic {
    /// Time in which so many calls reach the canary, which gets a share of them in percent.
    pub fn minutes(&self, calls: u64, share: i32) -> Option<Duration> {
        #[allow(clippy::cast_precision_loss)] // calls are far below 2^52
        let minutes = calls as f64 / (self.calls_per_minute? * f64::from(share) / 100.0);
        Duration::try_from_secs_f64(minutes * 60.0).ok()
    }
}

/// Calls at one weight, the least and the most to be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtWeight {
    /// Of the step, in percent.
    pub weight: i32,
    /// What the canary gets of new calls there, in percent.
    pub share: i32,
    /// Of the canary, until a good one passes.
    pub to_pass: Option<(u64, u64)>,
    /// Of the canary, until a worse one is aborted.
    pub to_abort: Option<(u64, u64)>,
}

/// A gate, and what it needs.
#[derive(Clone, Debug)]
pub struct Needed {
    /// Index of its step; `None`: background.
    pub step: Option<usize>,
    /// Its name.
    pub name: String,
    /// The gate with its arguments.
    pub run: RunGate,
    /// For a gate that counts calls: what it takes at each weight that it is asked at, and the time it takes.
    pub calls: Option<Vec<AtWeight>>,
    /// Time until there are enough calls at a weight, where that is known.
    pub traffic: Traffic,
}

impl Needed {
    /// Time that the calls take at a weight, after times with other shares of them in percent, of which the calls count too;
    /// `None` when it is not said how many come.
    pub fn calls_take(&self, weight: i32, before: impl Iterator<Item = (Duration, i32)>) -> Option<Duration> {
        let at = self.calls.iter().flatten().find(|at| at.weight == weight);
        // At this weight nothing is asked.
        let Some(at) = at else { return Some(Duration::ZERO) };
        let calls = self.traffic.calls_per_minute?;
        let had: f64 = before.map(|(time, share)| time.as_secs_f64() / 60.0 * calls * f64::from(share) / 100.0).sum();
        self.traffic.minutes(at.to_pass?.0.saturating_sub(whole(had)), at.share)
    }
}

/// Every gate of the release.
///
/// # Errors
/// Gates that cannot be resolved.
pub fn gates(release: &Release, traffic: Traffic) -> Result<Vec<Needed>, CliError> {
    let spec = &release.rollout.spec;
    let steps = spec.steps.iter().flatten().enumerate().filter_map(|(i, s)| Some((Some(i), s.analysis.as_ref()?)));
    let analyses: Vec<(Option<usize>, &Analysis)> = spec.analysis.iter().map(|a| (None, a)).chain(steps).collect();
    let mut all = Vec::new();
    for (step, analysis) in analyses {
        let index = step.and_then(|i| i32::try_from(i).ok());
        let facts = Facts { step: index.map_or(0, |i| i + 1), attempt: 1, ..Facts::default() };
        let path = step.map_or_else(|| "spec.analysis".to_owned(), |i| format!("spec.steps[{i}].analysis"));
        let resolved = resolve(analysis, &release.seen.rollout, &facts, &|r| release.seen.template(r), &path);
        let told = |errors: Vec<SpecError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let mut resolved = resolved.map_err(|errors| CliError::Differs(told(errors)))?;
        give_shares(&mut resolved, index, &release.plan.shares);
        for run in resolved {
            let weights = weights(release, step, &run.gate.name);
            let calls = run.gate.counted().map(|_| counted(&run.gate, &weights, &release.plan, traffic));
            all.push(Needed { step, name: run.gate.name.clone(), run, calls, traffic });
        }
    }
    Ok(all)
}

/// Weights at which a gate has to pass, lowest first. At 100 % there is nothing to compare with, and what was found holds.
fn weights(release: &Release, step: Option<usize>, name: &str) -> Vec<i32> {
    let plan = &release.plan;
    let asks = |(i, s): (usize, &PlanStep)| match (s, step) {
        (PlanStep::Analysis { require, .. }, None) => require.iter().any(|r| r == name).then(|| plan.weight_at(i)),
        _ => (step == Some(i)).then(|| plan.weight_at(i)),
    };
    let mut all: Vec<i32> = plan.steps.iter().enumerate().filter_map(asks).collect();
    // After the last step every enforcing background gate has to pass.
    if step.is_none() && all.is_empty() {
        all.extend(plan.steps.len().checked_sub(1).map(|last| plan.weight_at(last)));
    }
    all.retain(|w| (1..100).contains(w));
    all.sort_unstable();
    all.dedup();
    all
}

fn counted(gate: &Gate, weights: &[i32], plan: &Plan, traffic: Traffic) -> Vec<AtWeight> {
    let Ok(simulation) = Simulation::new(gate) else { return Vec::new() };
    let question = simulation.question();
    let signal = match &question.needs {
        Needs::Counters { .. } => Signal::BadRate(traffic.bad_rate),
        Needs::Histogram { bounds, .. } => {
            let lowest = bounds.first().copied().unwrap_or(1.0);
            let spread = Lognormal::of_share_above(lowest, traffic.bad_rate, SIGMA);
            Signal::Latency { spread: Spread::Lognormal(spread), bounds: bounds.clone() }
        }
    };
    let mut imagined = traffic::Traffic::steady(traffic.calls_per_minute.unwrap_or(1.0), 0.5, 60.0, signal);
    imagined.steps = weights.iter().map(|w| Step { from: 0.0, share: f64::from(plan.compared(*w)) / 100.0, base: 1.0 }).collect();
    let same = simulation.plan(&imagined);
    imagined.regression = Regression::Factor(traffic.regression);
    let worse = simulation.plan(&imagined);
    let least = u64::try_from(question.counted.min_canary).unwrap_or(0);
    let range = |calls: Calls, least: u64| (whole(calls.low).max(least), whole(calls.high).max(least));
    let at = |((weight, same), worse): ((&i32, _), _)| {
        let (same, worse): (&crate::core::gates::calls::simulate::Planned, &crate::core::gates::calls::simulate::Planned) = (same, worse);
        let (to_pass, to_abort) = (same.to_pass.map(|c| range(c, least)), worse.to_abort.map(|c| range(c, 0)));
        AtWeight { weight: *weight, share: plan.reached(*weight), to_pass, to_abort }
    };
    weights.iter().zip(&same).zip(&worse).map(at).collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
fn whole(calls: f64) -> u64 {
    calls.ceil() as u64
}

/// What a judge may cost.
pub struct Cost {
    /// Name of its gate.
    pub gate: String,
    /// In words.
    pub text: String,
}

/// What the judges among the gates of a release cost at the most, if it takes this long.
pub fn costs(gates: &[Needed], total: Duration) -> Vec<Cost> {
    let mut all = Vec::new();
    for needed in gates {
        let Some(judge) = &needed.run.gate.judge else { continue };
        let place = needed.step.map_or_else(|| "background".to_owned(), |i| format!("step {}", i + 1));
        let wanted = match (needed.step, judge.interval) {
            (None, Some(interval)) => {
                let rounds = total.as_secs() / std_duration(interval).as_secs().max(1);
                rounds + 1
            }
            _ => u64::try_from(judge.count).unwrap_or(1),
        };
        let limit = judge.budget.as_ref().and_then(|b| b.verdicts).and_then(|v| u64::try_from(v).ok());
        let verdicts = limit.map_or(wanted, |limit| wanted.min(limit));
        let several = if verdicts == 1 { "1 verdict".to_owned() } else { format!("{verdicts} verdicts") };
        let votes = if judge.votes == 1 { "1 vote".to_owned() } else { format!("up to {} votes", judge.votes) };
        #[allow(clippy::cast_precision_loss)] // for people
        let dollars = highest_of_verdict(judge).map(|micro| micro as f64 / 1e6);
        let most = judge.budget.as_ref().and_then(|b| b.dollars);
        let money = match (dollars, most) {
            #[allow(clippy::cast_precision_loss)] // for people
            (Some(each), Some(most)) => {
                format!("up to ${each:.4} each, ${:.2} at the most; the budget stops it at ${most}", (each * verdicts as f64).min(most))
            }
            #[allow(clippy::cast_precision_loss)] // for people
            (Some(each), None) => format!("up to ${each:.4} each, ${:.2} at the most", each * verdicts as f64),
            (None, _) => "at a price that the manifest does not say (budget.prices)".into(),
        };
        all.push(Cost { gate: format!("{} ({place})", needed.name), text: format!("{several} of {votes}, {money}") });
    }
    all
}
