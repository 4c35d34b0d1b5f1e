//! Evidence of one gate's tests, and what can be said from it.

use super::counters::Sums;
use super::question::{Pair, Question, TUNED_CALLS, Tested};
use crate::api::run::{ArmCalls, Comparison, Memory, PassLine, TestMemory};
use crate::core::stats::absolute::rate_interval;
use crate::core::stats::evidence::Evidence;
use crate::core::stats::fnch::Tick;

/// Chance that the interval that is shown ever leaves out the true value.
const INTERVAL: f64 = 0.05;

/// Evidence of one gate's tests.
#[derive(Clone, Debug)]
pub struct Tally {
    tests: Vec<Test>,
    ticks: u64,
}

#[derive(Clone, Debug)]
enum Test {
    Odds(Evidence),
    /// Bernoulli trials: the totals are all there is to know.
    Rate(Tick),
}

impl Tally {
    /// No evidence yet. A question that was read without mistakes has a design that evidence can be collected for.
    pub fn new(question: &Question<'_>) -> Option<Self> {
        let test = |tested: &Tested| match tested {
            Tested::Odds { design, .. } => Evidence::new(design.clone()).ok().map(Test::Odds),
            Tested::Rate { .. } => Some(Test::Rate(Tick::default())),
        };
        let tests: Option<Vec<Test>> = question.tests.iter().map(|(tested, _)| test(tested)).collect();
        Some(Self { tests: tests?, ticks: 0 })
    }

    /// Evidence as the memory has it; `None` when it was collected for something else.
    pub fn recall(question: &Question<'_>, memory: &Memory) -> Option<Self> {
        if memory.design != question.fingerprint() || memory.tests.len() != question.tests.len() {
            return None;
        }
        let ticks = u64::try_from(memory.ticks).ok()?;
        let test = |((tested, _), kept): (&(Tested, Vec<Pair>), &TestMemory)| {
            let totals: Option<Vec<Tick>> = kept.totals.iter().map(tick_of).collect();
            match tested {
                Tested::Rate { .. } => totals?.first().map(|t| Test::Rate(*t)),
                Tested::Odds { design, .. } => {
                    let parts = totals?.into_iter().zip(kept.log_likelihood.iter().cloned());
                    Evidence::restore(design.clone(), ticks, parts).ok().map(Test::Odds)
                }
            }
        };
        let tests: Option<Vec<Test>> = question.tests.iter().zip(&memory.tests).map(test).collect();
        Some(Self { tests: tests?, ticks })
    }

    /// Writes the evidence into the memory.
    pub fn keep(&self, question: &Question<'_>, memory: &mut Memory) {
        memory.design = question.fingerprint();
        memory.ticks = i64::try_from(self.ticks).unwrap_or(i64::MAX);
        memory.tests = self.tests.iter().map(kept).collect();
    }

    /// Adds a tick.
    pub fn add(&mut self, question: &Question<'_>, sums: &Sums) {
        for (test, (tested, pairs)) in self.tests.iter_mut().zip(&question.tests) {
            match (test, tested) {
                (Test::Odds(evidence), Tested::Odds { turned, .. }) => {
                    let ticks: Vec<Tick> = pairs.iter().map(|p| question.tick(p, sums, *turned)).collect();
                    // Counts fit: bad ones are never more than all, and there is one for each pair.
                    let _ = evidence.add(&ticks);
                }
                (Test::Rate(totals), Tested::Rate { .. }) => {
                    let more = pairs.first().map(|p| question.tick(p, sums, false)).unwrap_or_default();
                    totals.bad_canary = totals.bad_canary.saturating_add(more.bad_canary);
                    totals.calls_canary = totals.calls_canary.saturating_add(more.calls_canary);
                }
                _ => {}
            }
        }
        self.ticks = self.ticks.saturating_add(1);
    }

    /// Logarithm of the evidence against the canary.
    pub fn log_e_abort(&self, question: &Question<'_>) -> f64 {
        match (self.tests.first(), question.tests.first()) {
            (Some(Test::Odds(evidence)), _) => evidence.log_e_abort(),
            (Some(Test::Rate(totals)), Some((Tested::Rate { max, .. }, _))) => max.log_e_abort(totals.bad_canary, totals.calls_canary),
            _ => 0.0,
        }
    }

    /// Logarithm of the evidence for the canary at a margin of the question.
    pub fn log_e_pass(&self, question: &Question<'_>, margin: usize) -> f64 {
        let Some(margin) = question.margins.get(margin) else { return f64::NEG_INFINITY };
        let found = match (self.tests.get(margin.test), question.tests.get(margin.test)) {
            (Some(Test::Odds(evidence)), Some((Tested::Odds { turned: false, .. }, _))) => evidence.log_e_pass(margin.odds_ratio),
            // Every edge has to be shown, as for an odds ratio.
            (Some(Test::Odds(evidence)), _) => (0..evidence.totals().len()).map(|e| evidence.log_e_abort_of(e)).reduce(f64::min),
            (Some(Test::Rate(totals)), Some((Tested::Rate { below, .. }, _))) => {
                Some(below.log_e_pass(totals.bad_canary, totals.calls_canary))
            }
            _ => None,
        };
        found.unwrap_or(f64::NEG_INFINITY)
    }

    /// Calls of the canary so far.
    pub fn canary_calls(&self) -> i64 {
        let calls = match self.tests.first() {
            Some(Test::Odds(evidence)) => evidence.totals().next().map_or(0, |t| t.calls_canary),
            Some(Test::Rate(totals)) => totals.calls_canary,
            None => 0,
        };
        number(calls)
    }

    /// Evidence of the test of odds ratios, if it is one.
    pub fn odds(&self) -> Option<&Evidence> {
        match self.tests.first() {
            Some(Test::Odds(evidence)) => Some(evidence),
            _ => None,
        }
    }

    /// Totals and place of the edge that speaks most against the canary.
    pub fn worst(&self, question: &Question<'_>) -> (usize, Tick) {
        match self.tests.first() {
            Some(Test::Odds(evidence)) => {
                let against = |e: &usize| evidence.log_e_abort_of(*e);
                // The first of equals: `max_by` takes the last.
                let edges = (0..question.tests[0].1.len()).rev();
                let worst = edges.max_by(|a, b| against(a).total_cmp(&against(b))).unwrap_or(0);
                (worst, evidence.totals().nth(worst).copied().unwrap_or_default())
            }
            Some(Test::Rate(totals)) => (0, *totals),
            None => (0, Tick::default()),
        }
    }

    /// What there is to show. `may_pass` says that calls and times are enough.
    pub fn comparison(&self, question: &Question<'_>, may_pass: bool) -> Comparison {
        let (edge, totals) = self.worst(question);
        let (estimate, low, high) = self.estimate(edge, &totals);
        let shown = |x: f64| Some(round(x, 1e4)).filter(|x| x.is_finite());
        let line = (1.0 / question.false_promote).ln();
        let pass = question.margins.iter().enumerate().map(|(i, margin)| {
            let log = self.log_e_pass(question, i);
            PassLine {
                weight: margin.weight,
                below: margin.below.clone(),
                log_evidence: round(log, 1e6),
                log_line: round(line, 1e6),
                passes: may_pass && log >= line,
                to_pass: None,
            }
        });
        Comparison {
            edge: question.tests[0].1.get(edge).and_then(|p| p.edge),
            canary: ArmCalls { calls: number(totals.calls_canary), bad: number(totals.bad_canary) },
            stable: (!question.one_arm()).then(|| ArmCalls { calls: number(totals.calls_stable), bad: number(totals.bad_stable) }),
            estimate: estimate.and_then(shown),
            low: shown(low).filter(|l| *l > 0.0),
            high: shown(high),
            log_evidence: round(self.log_e_abort(question), 1e6),
            log_abort_line: round((1.0 / question.false_abort).ln(), 1e6),
            pass: pass.collect(),
            min_canary: i64::from(question.counted.min_canary),
            ticks: number(self.ticks),
            ..Comparison::default()
        }
    }

    fn estimate(&self, edge: usize, totals: &Tick) -> (Option<f64>, f64, f64) {
        match self.tests.first() {
            Some(Test::Odds(evidence)) => {
                let interval = evidence.interval(edge, INTERVAL);
                (evidence.odds_ratio(edge), interval.low, interval.high)
            }
            Some(Test::Rate(totals)) if totals.calls_canary > 0 => {
                let (low, high) = rate_interval(totals.bad_canary, totals.calls_canary, INTERVAL, TUNED_CALLS);
                (Some(totals.bad_canary as f64 / totals.calls_canary as f64), low, high)
            }
            _ => (None, 0.0, if totals.calls_canary > 0 { f64::INFINITY } else { 1.0 }),
        }
    }
}

fn kept(test: &Test) -> TestMemory {
    match test {
        // Nine places lose nothing that counts, and keep numbers short and the same after being read back.
        Test::Odds(evidence) => TestMemory {
            totals: evidence.parts().map(|(totals, _)| four(totals)).collect(),
            log_likelihood: evidence.parts().map(|(_, values)| values.iter().map(|v| round(*v, 1e9)).collect()).collect(),
        },
        Test::Rate(totals) => TestMemory { totals: vec![four(totals)], log_likelihood: Vec::new() },
    }
}

fn four(t: &Tick) -> [i64; 4] {
    [number(t.bad_canary), number(t.calls_canary), number(t.bad_stable), number(t.calls_stable)]
}

fn tick_of(four: &[i64; 4]) -> Option<Tick> {
    let [a, b, c, d] = four.map(u64::try_from);
    Some(Tick::new(a.ok()?, b.ok()?, c.ok()?, d.ok()?))
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Rounded to a share of 1; what is not finite stays.
fn round(x: f64, places: f64) -> f64 {
    let rounded = (x * places).round() / places;
    // No negative zero, which reads odd.
    if rounded == 0.0 { 0.0 } else { rounded }
}
