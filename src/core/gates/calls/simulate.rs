//! What a gate would do under imagined traffic: the same questions, evidence and lines as in a release.

use std::collections::BTreeMap;

use super::counters::Sums;
use super::outlook::rate;
use super::question::{Needs, Pair, Question, Tested};
use super::replay::rising;
use super::tally::Tally;
use crate::api::analysis::Gate;
use crate::core::stats::fnch::Tick;
use crate::core::stats::plan::{Calls, Rates, needed};
use crate::core::stats::simulate::{self, Outcome, Player, SimulateError};
use crate::core::stats::traffic::{Measured, Traffic};

/// A gate that is played.
#[derive(Debug)]
pub struct Simulation<'a> {
    question: Question<'a>,
    tally: Tally,
    /// Minutes before it may pass.
    waits: f64,
}

/// Canary calls that a verdict is expected to take at one weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planned {
    /// Canary's share of calls.
    pub share: f64,
    /// To abort; `None` when it will not.
    pub to_abort: Option<Calls>,
    /// To pass; `None` when it will not.
    pub to_pass: Option<Calls>,
}

impl<'a> Simulation<'a> {
    /// Begins with a gate.
    ///
    /// # Errors
    /// A gate that does not count calls, or everything that is wrong with it.
    pub fn new(gate: &'a Gate) -> Result<Self, String> {
        let mut question = match Question::of(gate) {
            None => return Err("only compare, compareHistogram and absolute gates count calls and can be simulated".into()),
            Some(Err(errors)) => return Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
            Some(Ok(question)) => question,
        };
        // Nobody looks at estimates here.
        for (tested, _) in &mut question.tests {
            if let Tested::Odds { design, .. } = tested {
                design.display = false;
            }
        }
        let tally = Tally::new(&question).ok_or("the gate's margins cannot be tested")?;
        let waits = question.waits(gate).as_secs_f64() / 60.0;
        Ok(Self { question, tally, waits })
    }

    /// What it asks for, checked and with defaults.
    pub const fn question(&self) -> &Question<'a> {
        &self.question
    }

    /// Plays so many rollouts. The same seed gives the same outcome.
    ///
    /// Warm-up is over when a rollout begins. With a histogram the traffic has all bounds that the gate needs.
    ///
    /// # Errors
    /// Traffic that makes no sense, or that the gate cannot take.
    pub fn run(&self, traffic: &Traffic, rollouts: u32, seed: u64) -> Result<Outcome, SimulateError> {
        let margins: Vec<usize> = traffic.steps.iter().map(|step| self.question.margin_at(percent(step.share))).collect();
        simulate::simulate(&Playing { gate: self, tally: self.tally.clone(), margins: &margins }, traffic, rollouts, seed)
    }

    /// Canary calls that verdicts are expected to take at each weight of the traffic, without evidence from before.
    pub fn plan(&self, traffic: &Traffic) -> Vec<Planned> {
        let at = |share| Planned { share, to_abort: self.to_abort(traffic, share), to_pass: self.to_pass(traffic, share) };
        traffic.steps.iter().map(|step| at(step.share)).collect()
    }

    fn to_abort(&self, traffic: &Traffic, share: f64) -> Option<Calls> {
        let (tested, pairs) = self.question.tests.first()?;
        match tested {
            // One edge is enough, and the others' bets are lost.
            Tested::Odds { design, .. } => {
                let growth = pairs.iter().map(|pair| rates(traffic, pair, share).growth(design.abort.margin)).fold(0.0, f64::max);
                needed(growth, design.abort.bets.len() * pairs.len(), self.question.false_abort, 0.0)
            }
            Tested::Rate { max, .. } => {
                let bad = rates(traffic, pairs.first()?, share).canary;
                rate(bad, max.limit, self.question.false_abort, 0.0).filter(|_| bad > max.limit)
            }
        }
    }

    fn to_pass(&self, traffic: &Traffic, share: f64) -> Option<Calls> {
        let margin = &self.question.margins.get(self.question.margin_at(percent(share)))?;
        let (tested, pairs) = self.question.tests.get(margin.test)?;
        let alpha = self.question.false_promote;
        let (growths, bets): (Vec<f64>, usize) = match tested {
            Tested::Odds { design, turned: false } => {
                let test = design.pass.iter().find(|test| test.margin == margin.odds_ratio)?;
                (pairs.iter().map(|pair| -rates(traffic, pair, share).growth(test.margin)).collect(), test.bets.len())
            }
            // Growth is that of a call of the first arm, which is stable here.
            Tested::Odds { design, turned: true } => {
                let growth = |pair: &Pair| {
                    let Rates { canary, stable, share } = rates(traffic, pair, share);
                    let turned = Rates { canary: stable, stable: canary, share: 1.0 - share };
                    turned.growth(design.abort.margin) * (1.0 - share) / share
                };
                (pairs.iter().map(growth).collect(), design.abort.bets.len())
            }
            Tested::Rate { below, .. } => {
                let bad = rates(traffic, pairs.first()?, share).canary;
                return rate(bad, below.limit, alpha, 0.0).filter(|_| bad < below.limit);
            }
        };
        // Every edge has to be shown.
        needed(growths.into_iter().fold(f64::INFINITY, f64::min), bets, alpha, 0.0)
    }
}

/// A histogram's cumulative counts by bound, as `gate replay` takes them, with all calls as `+Inf`.
///
/// # Errors
/// Bounds or counts that cannot be, or too few to tell how the values are spread.
pub fn measured(buckets: &BTreeMap<String, u64>) -> Result<(Measured, Vec<f64>), String> {
    let all = buckets.get("+Inf").or_else(|| buckets.get("Inf")).copied();
    let all = all.ok_or("`+Inf`, the number of all calls, is missing")?;
    let counts = rising(buckets, all)?;
    let spread = Measured::new(&counts, all);
    let bounds = counts.iter().map(|(bound, _)| *bound).collect();
    spread.map(|spread| (spread, bounds)).ok_or_else(|| "fewer than two bounds have calls on both sides: name more buckets".into())
}

fn rates(traffic: &Traffic, pair: &Pair, share: f64) -> Rates {
    Rates { canary: traffic.rate(pair.canary - 1, true), stable: traffic.rate(pair.stable - 1, false), share }
}

/// A share as a whole percentage; one in between takes that below it.
fn percent(share: f64) -> i32 {
    (share * 100.0 + 1e-9).floor() as i32
}

#[derive(Clone)]
struct Playing<'p> {
    gate: &'p Simulation<'p>,
    tally: Tally,
    /// Place of the margin that counts at each step.
    margins: &'p [usize],
}

impl Player for Playing<'_> {
    fn edges(&self) -> usize {
        self.gate.question.columns() - 1
    }

    fn add(&mut self, counts: &[Tick]) {
        let counts_bad = matches!(self.gate.question.needs, Needs::Counters { good: false, .. });
        // As counters of pods would have grown: all calls, then the bad ones, or those up to each bound.
        let column = |bad: u64, calls: u64| if counts_bad { bad } else { calls - bad };
        let arm = |of: fn(&Tick) -> (u64, u64)| -> Vec<u64> {
            let all = counts.first().map_or(0, |tick| of(tick).1);
            std::iter::once(all).chain(counts.iter().map(of).map(|(bad, calls)| column(bad, calls))).collect()
        };
        let sums = Sums { canary: arm(|t| (t.bad_canary, t.calls_canary)), stable: arm(|t| (t.bad_stable, t.calls_stable)) };
        // Traffic has no more calls than evidence takes in.
        let added = self.tally.add(&self.gate.question, &sums);
        debug_assert_eq!(added, Ok(()));
    }

    fn canary_calls(&self) -> u64 {
        self.tally.canary_calls().unsigned_abs()
    }

    fn aborts(&self) -> bool {
        let question = &self.gate.question;
        self.tally.log_e_abort(question) >= (1.0 / question.false_abort).ln()
    }

    fn passes(&self, step: usize, minutes: f64) -> bool {
        let question = &self.gate.question;
        minutes >= self.gate.waits
            && self.tally.canary_calls() >= i64::from(question.counted.min_canary)
            && self.tally.log_e_pass(question, self.margins[step]) >= (1.0 / question.false_promote).ln()
    }
}
