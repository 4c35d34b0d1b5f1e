//! Both versions did the same scenarios: which one fails where the other passes?
//!
//! Scenarios that both pass or both fail say nothing. Of the others, a share of `1/2` at most is lost by a canary that is
//! no worse, which is McNemar's test (Psychometrika 12, 1947). The evidence averages the binomial likelihood ratio over
//! all larger shares with equal weight (Robbins, Ann. Math. Stat. 41, 1970), which makes it valid at every look.

use super::special::{ln_beta, ln_incomplete_beta};

/// Log evidence that the canary loses more than its share, after `lost` scenarios that stable alone passed and `won`
/// that the canary alone passed.
///
/// The share is that of `margin` lost scenarios to one won; 1 for a canary that is no worse.
pub fn log_e_abort(lost: u64, won: u64, margin: f64) -> f64 {
    log_e(lost, won, margin / (1.0 + margin))
}

/// Log evidence that the canary loses less than its share: of `margin` lost scenarios to one won.
pub fn log_e_pass(lost: u64, won: u64, margin: f64) -> f64 {
    log_e(won, lost, 1.0 / (1.0 + margin))
}

/// Mean over `q` in `share..1` of `(q/share)^hits ((1-q)/(1-share))^misses`.
fn log_e(hits: u64, misses: u64, share: f64) -> f64 {
    let (hits, misses) = (hits as f64, misses as f64);
    let mixed = ln_beta(hits + 1.0, misses + 1.0) + ln_incomplete_beta(misses + 1.0, hits + 1.0, 1.0 - share);
    mixed - hits * share.ln() - (misses + 1.0) * (1.0 - share).ln()
}
