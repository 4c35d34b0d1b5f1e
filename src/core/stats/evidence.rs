//! The evidence of a comparison gate: is the canary's odds of a bad call more than a margin times the stable version's?
//!
//! For a null "the odds ratio is at most `psi0`" and a bet `psi1 > psi0`, a tick multiplies the evidence by
//!
//! ```text
//! e = psi1^y_c / Z(psi1)  *  Z(psi0) / psi0^y_c
//! ```
//!
//! with the likelihood of [`super::fnch`]. Its mean under an odds ratio `psi` is `Z(psi0)/Z(psi1) * Z(psi psi1/psi0)/Z(psi)`:
//! 1 at `psi = psi0`, and rising in `psi` since `ln Z(e^x)` is convex, so at most 1 under the whole null. Base rates,
//! weights and the sizes of ticks may change in any way that does not look ahead. For "at least `psi0`" the bets lie
//! below. The products of the bets are averaged over a fixed grid: the method of mixtures (Robbins, Ann. Math. Stat. 41,
//! 1970; the conditional likelihood as e-process: Turner, Ly, Grünwald, "Generic E-variables for exact sequential
//! k-sample tests", JSPI 230, 2024, and the authors' package safestats).
//!
//! A latency histogram gives several edges ("slower than 0.9 s"), each a pair of bad counts. Against the canary the
//! edges are averaged: one of them is enough. For the canary the least of them counts, because passing claims that no
//! edge is worse than the margin (the intersection-union test: Berger, Technometrics 24, 1982; no correction is needed).
//!
//! Evidence is carried over steps and weights, and is started anew only with another [`Design`].

use serde::{Deserialize, Serialize};

pub use super::curve::Interval;
use super::curve::{self, Curve};
use super::fnch::{Tick, add_log_likelihood};
use super::log_mean_exp;

/// Bets against the canary, as multiples of the abort margin.
pub const ABORT_BETS: [f64; 5] = [1.25, 1.5, 2.0, 3.0, 5.0];
/// Bets for the canary, as multiples of the margin that it must stay below.
pub const PASS_BETS: [f64; 5] = [0.25, 0.375, 0.5, 0.625, 0.75];
/// Calls of an arm in one tick beyond which the counts are not those of calls; it bounds memory.
const MOST_CALLS: u64 = 1_000_000;
/// Odds ratios outside of this and its inverse are refused.
const WIDEST: f64 = 1e6;

/// A margin and the bets beyond it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Test {
    /// Odds ratio of the null.
    pub margin: f64,
    /// Bets, as multiples of the margin; each has the same share of the mixture.
    pub bets: Vec<f64>,
}

impl Test {
    /// Against the canary: is the odds ratio above the margin?
    pub fn abort(margin: f64) -> Self {
        Self { margin, bets: ABORT_BETS.to_vec() }
    }

    /// For the canary: is the odds ratio below the margin?
    pub fn pass(margin: f64) -> Self {
        Self { margin, bets: PASS_BETS.to_vec() }
    }

    fn odds_ratios(&self) -> impl Iterator<Item = f64> {
        std::iter::once(self.margin).chain(self.bets.iter().map(|bet| bet * self.margin))
    }

    /// How many odds ratios the test needs.
    const fn len(&self) -> usize {
        self.bets.len() + 1
    }

    /// The mixture, from log-likelihoods in the order of `odds_ratios`.
    fn log_e(&self, values: &[f64]) -> f64 {
        log_mean_exp(values[1..].iter().map(|value| value - values[0]))
    }
}

/// What evidence is collected for. Another design means other evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Design {
    /// Pairs of bad counts in each tick: 1, or the edges of a histogram.
    pub edges: usize,
    /// Test against the canary.
    pub abort: Test,
    /// Tests for the canary, one a margin.
    #[serde(default)]
    pub pass: Vec<Test>,
    /// Whether the odds ratio and its interval are wanted too.
    pub display: bool,
}

/// Why a design is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DesignError {
    /// No edge.
    #[error("no pair of counts to compare: name at least one")]
    NoEdges,
    /// A margin below 1.
    #[error("a margin of {0} would call an equal canary worse: use 1 or more")]
    AbortMargin(f64),
    /// A margin that an equal canary cannot pass.
    #[error("an equal canary cannot be shown to stay below {0}: use a margin above 1")]
    PassMargin(f64),
    /// The same margin twice.
    #[error("the margin {0} stands twice")]
    Twice(f64),
    /// A bet on the wrong side.
    #[error("a bet of {0} times the margin does not speak {1} the canary: use multiples {2} 1")]
    Bet(f64, &'static str, &'static str),
    /// A margin without bets.
    #[error("the margin {0} has no bets: name at least one multiple")]
    NoBets(f64),
    /// Beyond all reason.
    #[error("an odds ratio of {0} is out of range: stay between 0.000001 and 1000000")]
    Range(f64),
}

impl Design {
    /// The default grids: an abort margin, and the margins that passing is asked for.
    ///
    /// # Errors
    /// As [`Design::check`].
    pub fn new(edges: usize, abort_margin: f64, pass_margins: &[f64]) -> Result<Self, DesignError> {
        let design = Self {
            edges,
            abort: Test::abort(abort_margin),
            pass: pass_margins.iter().map(|margin| Test::pass(*margin)).collect(),
            display: true,
        };
        design.check()?;
        Ok(design)
    }

    /// Whether evidence can be collected for this.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), DesignError> {
        if self.edges == 0 {
            return Err(DesignError::NoEdges);
        }
        if self.abort.margin.is_nan() || self.abort.margin < 1.0 {
            return Err(DesignError::AbortMargin(self.abort.margin));
        }
        if let Some(test) = self.pass.iter().find(|test| test.margin.is_nan() || test.margin <= 1.0) {
            return Err(DesignError::PassMargin(test.margin));
        }
        if let Some(bet) = self.abort.bets.iter().find(|bet| bet.is_nan() || **bet <= 1.0) {
            return Err(DesignError::Bet(*bet, "against", "above"));
        }
        if let Some(bet) = self.pass.iter().flat_map(|test| &test.bets).find(|bet| bet.is_nan() || **bet >= 1.0) {
            return Err(DesignError::Bet(*bet, "for", "below"));
        }
        if let Some(test) = self.tests().find(|test| test.bets.is_empty()) {
            return Err(DesignError::NoBets(test.margin));
        }
        if let Some(psi) = self.tests().flat_map(Test::odds_ratios).find(|psi| !(1.0 / WIDEST..=WIDEST).contains(psi)) {
            return Err(DesignError::Range(psi));
        }
        match self.pass.iter().enumerate().find(|(i, test)| self.pass[..*i].iter().any(|other| other.margin == test.margin)) {
            Some((_, test)) => Err(DesignError::Twice(test.margin)),
            None => Ok(()),
        }
    }

    fn tests(&self) -> impl Iterator<Item = &Test> {
        std::iter::once(&self.abort).chain(&self.pass)
    }

    /// All odds ratios whose likelihood is kept: abort, each pass margin, display.
    fn odds_ratios(&self) -> Vec<f64> {
        let shown = self.display.then(curve::odds_ratios).into_iter().flatten();
        self.tests().flat_map(Test::odds_ratios).chain(shown).collect()
    }

    fn len(&self) -> usize {
        self.tests().map(Test::len).sum::<usize>() + if self.display { curve::POINTS } else { 0 }
    }
}

/// Evidence of one gate, from the first tick on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Stored")]
pub struct Evidence {
    design: Design,
    ticks: u64,
    edges: Vec<Edge>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Edge {
    totals: Tick,
    /// Log-likelihood of each odds ratio of the design less that of 1, summed over ticks.
    log_likelihood: Vec<f64>,
}

/// What is read back, before it is known to hang together.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    design: Design,
    ticks: u64,
    edges: Vec<Edge>,
}

impl TryFrom<Stored> for Evidence {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        let Stored { design, ticks, edges } = stored;
        design.check().map_err(|e| e.to_string())?;
        if edges.len() != design.edges || edges.iter().any(|edge| edge.log_likelihood.len() != design.len()) {
            return Err("the evidence does not fit its own design: it was edited, or cut short".to_owned());
        }
        Ok(Self { design, ticks, edges })
    }
}

/// Why a tick is refused. Nothing of it has been added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TickError {
    /// Another number of edges.
    #[error("the tick has {found} pairs of counts, the gate compares {expected}")]
    Edges {
        /// Edges of the design.
        expected: usize,
        /// Edges of the tick.
        found: usize,
    },
    /// More bad calls than calls.
    #[error("more bad calls than calls: canary {} of {}, stable {} of {}", .0.bad_canary, .0.calls_canary, .0.bad_stable, .0.calls_stable)]
    Impossible(Tick),
    /// More calls than there can be between two scrapes.
    #[error("{0} calls in one tick are more than can be ({MOST_CALLS}): does the metric count calls?")]
    TooMany(u64),
}

impl Evidence {
    /// No evidence yet.
    ///
    /// # Errors
    /// As [`Design::check`].
    pub fn new(design: Design) -> Result<Self, DesignError> {
        design.check()?;
        let edge = Edge { totals: Tick::default(), log_likelihood: vec![0.0; design.len()] };
        Ok(Self { edges: vec![edge; design.edges], ticks: 0, design })
    }

    /// Evidence as it was kept elsewhere ([`Evidence::parts`]): for each edge its totals and log-likelihoods.
    ///
    /// # Errors
    /// Parts that do not fit the design.
    pub fn restore(design: Design, ticks: u64, parts: impl IntoIterator<Item = (Tick, Vec<f64>)>) -> Result<Self, String> {
        let edges = parts.into_iter().map(|(totals, log_likelihood)| Edge { totals, log_likelihood }).collect();
        Stored { design, ticks, edges }.try_into()
    }

    /// What has to be kept beside the design and the number of ticks: for each edge its totals and log-likelihoods.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = (&Tick, &[f64])> {
        self.edges.iter().map(|edge| (&edge.totals, edge.log_likelihood.as_slice()))
    }

    /// What it is collected for.
    pub const fn design(&self) -> &Design {
        &self.design
    }

    /// Whether it was collected for this design. If not, it must be started anew, and the user be told.
    pub fn matches(&self, design: &Design) -> bool {
        self.design == *design
    }

    /// Adds a tick: one pair of counts an edge. The caller sees to it that no tick is added twice.
    ///
    /// # Errors
    /// Counts that do not fit; then nothing is added.
    pub fn add(&mut self, tick: &[Tick]) -> Result<(), TickError> {
        if tick.len() != self.edges.len() {
            return Err(TickError::Edges { expected: self.edges.len(), found: tick.len() });
        }
        if let Some(bad) = tick.iter().find(|counts| !counts.is_possible()) {
            return Err(TickError::Impossible(*bad));
        }
        if let Some(many) = tick.iter().map(|counts| counts.calls_canary.max(counts.calls_stable)).find(|calls| *calls > MOST_CALLS) {
            return Err(TickError::TooMany(many));
        }
        let odds_ratios = self.design.odds_ratios();
        for (edge, counts) in self.edges.iter_mut().zip(tick) {
            add_log_likelihood(counts, &odds_ratios, &mut edge.log_likelihood);
            edge.totals = edge.totals.plus(counts);
        }
        self.ticks += 1;
        Ok(())
    }

    /// Ticks added so far.
    pub const fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Calls of both arms so far, one entry an edge. For the eye only: no test may be made on pooled counts.
    pub fn totals(&self) -> impl ExactSizeIterator<Item = &Tick> {
        self.edges.iter().map(|edge| &edge.totals)
    }

    /// Log evidence that the odds ratio exceeds the abort margin at some edge: the mean over edges and bets.
    pub fn log_e_abort(&self) -> f64 {
        log_mean_exp((0..self.edges.len()).map(|edge| self.log_e_abort_of(edge)))
    }

    /// Log evidence that one edge's odds ratio exceeds the abort margin, to tell which edge it was.
    pub fn log_e_abort_of(&self, edge: usize) -> f64 {
        self.design.abort.log_e(&self.edges[edge].log_likelihood[..self.design.abort.len()])
    }

    /// Log evidence that the odds ratio lies below the margin at every edge: the least over edges. `None` for a margin
    /// that the design does not have.
    pub fn log_e_pass(&self, margin: f64) -> Option<f64> {
        let position = self.design.pass.iter().position(|test| test.margin == margin)?;
        let test = &self.design.pass[position];
        let start = self.design.tests().take(position + 1).map(Test::len).sum::<usize>();
        let of = |edge: &Edge| test.log_e(&edge.log_likelihood[start..start + test.len()]);
        self.edges.iter().map(of).reduce(f64::min)
    }

    /// The odds ratio under which an edge's counts are likeliest (the conditional maximum-likelihood estimate,
    /// stratified by tick). `None` before the counts say anything, or without `display`; 0 or infinite beyond 1/55 and 55.
    pub fn odds_ratio(&self, edge: usize) -> Option<f64> {
        self.curve(edge).map(Curve::maximum)
    }

    /// Anytime-valid confidence interval of an edge's odds ratio: over the whole release it leaves out the true value
    /// with probability `alpha` at most. Everything, before the counts say anything or without `display`.
    ///
    /// Over several edges at once the promise is `alpha` times their number.
    pub fn interval(&self, edge: usize, alpha: f64) -> Interval {
        self.curve(edge).map_or(Interval { low: 0.0, high: f64::INFINITY }, |curve| curve.interval(alpha))
    }

    fn curve(&self, edge: usize) -> Option<Curve<'_>> {
        let values = &self.edges[edge].log_likelihood;
        let shown = if self.design.display { curve::POINTS } else { 0 };
        Curve::new(&values[values.len() - shown..])
    }
}
