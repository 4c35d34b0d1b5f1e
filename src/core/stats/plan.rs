//! How many canary calls a verdict will take.
//!
//! Evidence grows by about `g` a canary call: the smallest divergence of the true rates from any rates of the null,
//! `KL(p_c | q_c) + r KL(p_s | q_s)`, with `r` stable calls to each canary call (the growth rate of Grünwald, de Heide,
//! Koolen, "Safe testing", JRSS B 86, 2024; for an odds ratio of 1 both `q` are the pooled rate). Mixing over `J` bets
//! costs between nothing and `ln J`.

use super::evidence::Evidence;

/// Halvings for the rates of the null.
const HALVINGS: u32 = 60;

/// Growth a call, in nats, that will never make a verdict.
const NO_GROWTH: f64 = 1e-9;

/// Canary calls, from the least to be expected to the most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calls {
    /// If one of the bets fits well.
    pub low: f64,
    /// If the mixture costs all that it can.
    pub high: f64,
}

/// What is assumed about the calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Bad rate of the canary.
    pub canary: f64,
    /// Bad rate of the stable version.
    pub stable: f64,
    /// Canary's share of all calls, between 0 and 1.
    pub share: f64,
}

impl Rates {
    /// Rates from the stable one and the odds ratio of the canary to it.
    pub fn from_odds_ratio(stable: f64, odds_ratio: f64, share: f64) -> Self {
        Self { canary: shifted(stable, odds_ratio), stable, share }
    }

    /// Evidence that a canary call is worth against an odds ratio, in nats. The sign tells the side: above 0 for a canary
    /// whose odds ratio is larger.
    pub fn growth(&self, odds_ratio: f64) -> f64 {
        let Self { canary, stable, share } = *self;
        let others = (1.0 - share) / share;
        // The nearest rates of the null keep the expected number of bad calls.
        let bad = canary + others * stable;
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..HALVINGS {
            let middle = (low + high) / 2.0;
            if shifted(middle, odds_ratio) + others * middle < bad {
                low = middle;
            } else {
                high = middle;
            }
        }
        let null = (low + high) / 2.0;
        let growth = divergence(canary, shifted(null, odds_ratio)) + others * divergence(stable, null);
        if canary > shifted(null, odds_ratio) { growth } else { -growth }
    }
}

/// Canary calls until the gate aborts, if the edge that stands worst goes on as it has. `None` when none is on the way.
pub fn calls_to_abort(evidence: &Evidence, alpha: f64, share: f64) -> Option<Calls> {
    let test = &evidence.design().abort;
    let bets = test.bets.len() * evidence.design().edges;
    let growth = |(edge, totals): (usize, &super::fnch::Tick)| {
        let stable = rate(totals.bad_stable, totals.calls_stable)?;
        let canary = match evidence.odds_ratio(edge)? {
            odds_ratio if odds_ratio.is_finite() => shifted(stable, odds_ratio),
            _ => rate(totals.bad_canary, totals.calls_canary)?,
        };
        Some(Rates { canary, stable, share }.growth(test.margin))
    };
    let fastest = evidence.totals().enumerate().filter_map(growth).fold(0.0, f64::max);
    needed(fastest, bets, alpha, evidence.log_e_abort())
}

/// Canary calls until the gate passes at a margin, for a canary that is as good as stable: the edge that takes longest.
/// `None` for a margin that the design does not have, and before stable calls were seen.
pub fn calls_to_pass(evidence: &Evidence, margin: f64, alpha: f64, share: f64) -> Option<Calls> {
    let test = evidence.design().pass.iter().find(|test| test.margin == margin)?;
    let growth = |totals: &super::fnch::Tick| {
        let stable = rate(totals.bad_stable, totals.calls_stable)?;
        Some(-Rates::from_odds_ratio(stable, 1.0, share).growth(margin))
    };
    let slowest = evidence.totals().map(growth).collect::<Option<Vec<_>>>()?.into_iter().fold(f64::INFINITY, f64::min);
    needed(slowest, test.bets.len(), alpha, evidence.log_e_pass(margin)?)
}

/// Canary calls until evidence of `log_e` that grows by so much a call, as a mixture of so many bets, reaches
/// `ln(1/alpha)`. `None` when it will not.
pub fn needed(growth: f64, bets: usize, alpha: f64, log_e: f64) -> Option<Calls> {
    let missing = -alpha.ln() - log_e;
    if missing <= 0.0 {
        return Some(Calls { low: 0.0, high: 0.0 });
    }
    (growth > NO_GROWTH).then(|| Calls { low: missing / growth, high: (missing + (bets as f64).ln()) / growth })
}

fn rate(bad: u64, calls: u64) -> Option<f64> {
    (calls > 0).then(|| bad as f64 / calls as f64)
}

/// The rate whose odds are `odds_ratio` times those of `rate`.
pub(super) fn shifted(rate: f64, odds_ratio: f64) -> f64 {
    odds_ratio * rate / (1.0 - rate + odds_ratio * rate)
}

/// Kullback-Leibler divergence of two Bernoulli distributions, in nats.
pub fn divergence(p: f64, q: f64) -> f64 {
    let part = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
    part(p, q) + part(1.0 - p, 1.0 - q)
}
