//! The likelihood of an odds ratio in the counts of one tick.
//!
//! Given how many calls each arm had and how many calls were bad in all, the number of bad calls on the canary follows
//! Fisher's noncentral hypergeometric distribution, and its only parameter is the odds ratio of canary to stable:
//!
//! ```text
//! P(Y = k) = C(n_c, k) C(n_s, y - k) psi^k / Z(psi),   k from max(0, y - n_s) to min(n_c, y)
//! ```
//!
//! (Fisher, "The logic of inductive inference", JRSS 98, 1935; Fog, "Calculation methods for Wallenius' noncentral
//! hypergeometric distribution", Comm. Stat. Simul. Comput. 37, 2008.) The base rate has dropped out, so it may change
//! from tick to tick, and so may the weights. Ticks are therefore never pooled: their log-likelihoods are added.

use serde::{Deserialize, Serialize};

/// A term is left out when it is smaller than this against the largest one.
const NEGLIGIBLE: f64 = 1e-19;
/// Running products are kept between this and its inverse.
const TINY: f64 = 1e-150;

/// Counts of both arms in one tick, or their totals over many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tick {
    /// Bad calls of the canary.
    pub bad_canary: u64,
    /// All calls of the canary, the bad ones among them.
    pub calls_canary: u64,
    /// Bad calls of the stable version.
    pub bad_stable: u64,
    /// All calls of the stable version, the bad ones among them.
    pub calls_stable: u64,
}

impl Tick {
    /// Makes one from bad calls and all calls of the canary, then of the stable version.
    pub const fn new(bad_canary: u64, calls_canary: u64, bad_stable: u64, calls_stable: u64) -> Self {
        Self { bad_canary, calls_canary, bad_stable, calls_stable }
    }

    /// Whether no arm has more bad calls than calls.
    pub const fn is_possible(&self) -> bool {
        self.bad_canary <= self.calls_canary && self.bad_stable <= self.calls_stable
    }

    /// Whether the tick says anything about the odds ratio: both arms had calls, and calls were neither all bad nor all
    /// good.
    pub const fn is_informative(&self) -> bool {
        let bad = self.bad_canary + self.bad_stable;
        self.calls_canary > 0 && self.calls_stable > 0 && bad > 0 && bad < self.calls_canary + self.calls_stable
    }

    pub(super) const fn plus(&self, other: &Self) -> Self {
        Self {
            bad_canary: self.bad_canary.saturating_add(other.bad_canary),
            calls_canary: self.calls_canary.saturating_add(other.calls_canary),
            bad_stable: self.bad_stable.saturating_add(other.bad_stable),
            calls_stable: self.calls_stable.saturating_add(other.calls_stable),
        }
    }
}

/// Adds to each sum the tick's log-likelihood of the odds ratio at the same place, less that of an odds ratio of 1.
///
/// A tick that says nothing adds 0 everywhere. The counts must be possible ([`Tick::is_possible`]), the odds ratios
/// finite and above 0; both slices are of one length.
pub fn add_log_likelihood(tick: &Tick, odds_ratios: &[f64], sums: &mut [f64]) {
    debug_assert_eq!(odds_ratios.len(), sums.len());
    if !tick.is_informative() {
        return;
    }
    let (low, high) = odds_ratios.iter().fold((1.0f64, 1.0f64), |(low, high), psi| (low.min(*psi), high.max(*psi)));
    let terms = Terms::between(tick, low, high);
    let at_one = terms.log_likelihood(1.0);
    for (psi, sum) in odds_ratios.iter().zip(sums) {
        *sum += terms.log_likelihood(*psi) - at_one;
    }
}

/// The terms of Z that matter for some odds ratio of a range, up to a common factor.
struct Terms {
    /// Bad canary calls seen, counted from the first term.
    seen: f64,
    /// Each term's successor, divided by it.
    up: Vec<f64>,
    /// The inverse of `up`.
    down: Vec<f64>,
    /// Each term divided by the first one: a logarithm, and a factor within the range of a float.
    size: Vec<(f64, f64)>,
}

impl Terms {
    fn between(tick: &Tick, low: f64, high: f64) -> Self {
        let bad = tick.bad_canary + tick.bad_stable;
        let least = bad.saturating_sub(tick.calls_stable);
        let most = bad.min(tick.calls_canary);
        let ratio = |k: u64| {
            let over = (tick.calls_canary - k) as f64 * (bad - k) as f64;
            over / ((k + 1) as f64 * (tick.calls_stable + k + 1 - bad) as f64)
        };
        let mut first = mode(least, most, |k| low * ratio(k));
        let mut term = 1.0;
        while first > least && term > NEGLIGIBLE {
            first -= 1;
            term /= low * ratio(first);
        }
        let mut last = mode(least, most, |k| high * ratio(k));
        term = 1.0;
        while last < most && term > NEGLIGIBLE {
            term *= high * ratio(last);
            last += 1;
        }
        let up: Vec<f64> = (first..last).map(ratio).collect();
        let down = up.iter().map(|r| 1.0 / r).collect();
        Self { seen: tick.bad_canary as f64 - first as f64, size: sizes(&up), up, down }
    }

    /// Logarithm of the likelihood, up to a constant.
    ///
    /// Added up outwards from the largest term, so that nothing overflows and the sum can stop where terms no longer
    /// count: they fall off faster and faster on both sides.
    fn log_likelihood(&self, psi: f64) -> f64 {
        let mode = self.up.partition_point(|r| psi * r > 1.0);
        let (ahead, last) = self.up[mode..].as_chunks();
        let (first, behind) = self.down[..mode].as_rchunks();
        let above = tail(ahead.iter().copied(), last.iter().copied(), psi);
        let below = tail(behind.iter().rev().map(|[a, b, c, d]| [*d, *c, *b, *a]), first.iter().rev().copied(), 1.0 / psi);
        let sum = 1.0 + above + below;
        let (log, factor) = self.size[mode];
        (self.seen - mode as f64) * psi.ln() - log - (factor * sum).ln()
    }
}

/// Sum of the terms on one side of the largest one, which is taken as 1, by the ratios from term to term.
///
/// Four at a time, so that the products of the next four need not wait for these.
fn tail(fours: impl Iterator<Item = [f64; 4]>, rest: impl Iterator<Item = f64>, by: f64) -> f64 {
    let (mut sum, mut term) = (0.0, 1.0);
    for ratios in fours {
        let [a, b, c, d] = ratios.map(|ratio| ratio * by);
        let (two, next) = (a * b, c * d);
        sum += term * ((a + two) + two * (c + next));
        term *= two * next;
        if term < NEGLIGIBLE {
            return sum;
        }
    }
    for ratio in rest {
        term *= ratio * by;
        sum += term;
    }
    sum
}

/// The first number of bad calls whose successor is not more likely; `ratio` falls.
fn mode(least: u64, most: u64, ratio: impl Fn(u64) -> f64) -> u64 {
    let (mut low, mut high) = (least, most);
    while low < high {
        let middle = low + (high - low) / 2;
        if ratio(middle) > 1.0 {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

fn sizes(ratios: &[f64]) -> Vec<(f64, f64)> {
    let mut sizes = Vec::with_capacity(ratios.len() + 1);
    let (mut log, mut factor) = (0.0, 1.0f64);
    sizes.push((log, factor));
    for r in ratios {
        factor *= r;
        if !(TINY..=1.0 / TINY).contains(&factor) {
            log += factor.ln();
            factor = 1.0;
        }
        sizes.push((log, factor));
    }
    sizes
}
