//! Do the arms get the calls that the weights promise? A sample-ratio test.
//!
//! Counts per arm under expected shares against all other shares, mixed with a Dirichlet density around the expected ones:
//! Lindon and Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022, as in the package ssrm.

use libm::lgamma;

/// How closely the alternatives lie around the expected shares, as in ssrm.
pub const CONCENTRATION: f64 = 10_000.0;

/// Log Bayes factor against the expected shares, an e-process in the counts: a mismatch is found when it reaches
/// `ln(1/alpha)`, at any look.
///
/// Both slices are of one length; shares are above 0 and sum to 1. When weights change, the counts of each weight are
/// taken alone and the logarithms added.
pub fn log_bayes_factor(counts: &[u64], shares: &[f64], concentration: f64) -> f64 {
    let prior: Vec<f64> = shares.iter().map(|share| share * concentration).collect();
    log_bayes_factor_with(counts, shares, &prior)
}

/// The same with the Dirichlet density's parameters given.
pub fn log_bayes_factor_with(counts: &[u64], shares: &[f64], prior: &[f64]) -> f64 {
    let total: f64 = counts.iter().map(|count| *count as f64).sum();
    let weight: f64 = prior.iter().sum();
    let arms = counts.iter().zip(shares.iter().zip(prior));
    let sum: f64 = arms.map(|(count, (share, a))| lgamma(a + *count as f64) - lgamma(*a) - *count as f64 * share.ln()).sum();
    lgamma(weight) - lgamma(weight + total) + sum
}

/// The same for two arms when the canary's share may be anything from `low` to `high`: evidence that it is none of these.
/// The most likely of them is what the alternatives have to beat, so that it is an e-process whichever holds. The
/// alternatives lie around `share`, between 0 and 1.
pub fn log_evidence_outside(canary: u64, stable: u64, share: f64, (low, high): (f64, f64), concentration: f64) -> f64 {
    let (x, y) = (canary as f64, stable as f64);
    let (a, b) = (share * concentration, (1.0 - share) * concentration);
    let log_beta = |a: f64, b: f64| lgamma(a) + lgamma(b) - lgamma(a + b);
    let best = if x + y > 0.0 { (x / (x + y)).clamp(low, high) } else { low };
    let part = |n: f64, p: f64| if n > 0.0 { n * p.ln() } else { 0.0 };
    log_beta(a + x, b + y) - log_beta(a, b) - part(x, best) - part(y, 1.0 - best)
}
