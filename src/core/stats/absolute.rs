//! The bad rate of one arm against a limit, and its confidence sequence.
//!
//! A comparison cannot see what both versions suffer together; a limit can. Evidence against "the rate is at most `p`" is
//! the beta-binomial mixture for bounded observations of Howard, Ramdas, McAuliffe and Sekhon ("Time-uniform,
//! nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49, 2021, section 3 and proposition 7, as in
//! the authors' package confseq). For 0/1 observations it is a likelihood ratio, averaged over the rates on the far side
//! of the limit with a beta density. It needs the totals alone, and asks of the calls only that each is bad with a
//! chance of at most `p`, whatever came before.

use super::special::{ln_beta, ln_incomplete_beta};

/// Halvings that bring an end of an interval below what a float tells apart.
const HALVINGS: u32 = 60;

/// A limit on the bad rate, and the evidence for either side of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Absolute {
    /// The limit, between 0 and 1.
    pub limit: f64,
    /// Calls at which the evidence is to be sharpest. It is valid at every number.
    pub tuned_calls: f64,
    /// The error rate for which it is sharpest, between 0 and 0.5.
    pub tuned_alpha: f64,
}

impl Absolute {
    /// Log evidence that the rate exceeds the limit, after `bad` of `calls`.
    pub fn log_e_abort(&self, bad: u64, calls: u64) -> f64 {
        self.log_e(self.limit, bad, calls)
    }

    /// Log evidence that the rate lies below the limit, after `bad` of `calls`.
    pub fn log_e_pass(&self, bad: u64, calls: u64) -> f64 {
        self.log_e(1.0 - self.limit, calls.saturating_sub(bad), calls)
    }

    fn log_e(&self, limit: f64, hits: u64, calls: u64) -> f64 {
        let (hits, calls, variance) = (hits as f64, calls as f64, limit * (1.0 - limit));
        let mixture = BetaBinomial::new(variance * self.tuned_calls, self.tuned_alpha, limit, 1.0 - limit, true);
        mixture.log_e(hits - calls * limit, variance * calls)
    }
}

/// Anytime-valid confidence interval of a rate after `bad` of `calls`, sharpest at `tuned_calls`: over all looks it leaves
/// out the true rate with probability `alpha` at most.
pub fn rate_interval(bad: u64, calls: u64, alpha: f64, tuned_calls: f64) -> (f64, f64) {
    if calls == 0 {
        return (0.0, 1.0);
    }
    let rate = bad as f64 / calls as f64;
    let calls = calls as f64;
    let excluded = |p: f64| {
        let variance = p * (1.0 - p);
        let mixture = BetaBinomial::new(variance * tuned_calls, alpha, p, 1.0 - p, false);
        mixture.log_e((rate - p) * calls, variance * calls) >= -alpha.ln()
    };
    let end = |outer: f64| {
        let (mut out, mut inside) = (outer, rate);
        for _ in 0..HALVINGS {
            let middle = (out + inside) / 2.0;
            if middle > 0.0 && middle < 1.0 && !excluded(middle) {
                inside = middle;
            } else {
                out = middle;
            }
        }
        (out + inside) / 2.0
    };
    (if rate > 0.0 { end(0.0) } else { 0.0 }, if rate < 1.0 { end(1.0) } else { 1.0 })
}

/// The mixture in the authors' terms: for a sum of deviations with increments between `-g` and `h`.
#[derive(Clone, Copy, Debug)]
pub(super) struct BetaBinomial {
    g: f64,
    h: f64,
    r: f64,
    one_sided: bool,
}

impl BetaBinomial {
    /// Sharpest at intrinsic time `v_opt` and error rate `alpha_opt`.
    pub(super) fn new(v_opt: f64, alpha_opt: f64, g: f64, h: f64, one_sided: bool) -> Self {
        let rho = best_rho(v_opt, if one_sided { 2.0 * alpha_opt } else { alpha_opt });
        Self { g, h, r: (rho - g * h).max(1e-3 * g * h), one_sided }
    }

    /// Log e-value of a sum `s` at intrinsic time `v`.
    pub(super) fn log_e(&self, s: f64, v: f64) -> f64 {
        let Self { g, h, .. } = *self;
        let width = g + h;
        let (hits, misses) = ((v + h * s) / (h * width), (v - g * s) / (g * width));
        v / (g * h) * width.ln() - hits * g.ln() - misses * h.ln() + self.ln_prior(misses, hits) - self.ln_prior(0.0, 0.0)
    }

    /// Logarithm of the beta integral over the mixed rates, after hits and misses.
    fn ln_prior(&self, misses: f64, hits: f64) -> f64 {
        let Self { g, h, r, one_sided } = *self;
        let (a, b) = (r / (g * (g + h)) + misses, r / (h * (g + h)) + hits);
        ln_beta(a, b) + if one_sided { ln_incomplete_beta(a, b, h / (g + h)) } else { 0.0 }
    }
}

/// The parameter of a mixture that is sharpest at intrinsic time `v_opt` (there equation 3.14).
pub(super) fn best_rho(v_opt: f64, alpha: f64) -> f64 {
    let line = -2.0 * alpha.ln();
    v_opt / (line + line.ln_1p())
}
