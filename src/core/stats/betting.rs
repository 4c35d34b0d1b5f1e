//! Pairwise scores of a judge: 1 when the canary loses, 0 when it wins, 1/2 for a tie.
//!
//! When both versions answer alike and the order is drawn anew each time, the mean score is 1/2 by symmetry, however
//! poor the judge is. The evidence is the capital of a bettor who stakes a fixed share on each score: the product of
//! `1 + l (x - m)`, averaged over a grid of shares (Waudby-Smith and Ramdas, "Estimating means of bounded random
//! variables by betting", JRSS B 86, 2024, section 5: grid betting). The order of the scores does not matter.
//!
//! A canary that answers differently and equally well can lose all the same to a judge with a taste; the promise does
//! not cover that. A margin does.

use super::log_mean_exp;

/// Stakes on the grid, as shares of the largest that cannot ruin.
const STAKES: [f64; 5] = [0.1, 0.25, 0.45, 0.7, 0.9];

/// Scores so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scores {
    /// Comparisons that the canary lost.
    pub lost: u64,
    /// Comparisons without a winner.
    pub tied: u64,
    /// Comparisons that the canary won.
    pub won: u64,
}

impl Scores {
    /// Log evidence that the canary's mean score exceeds `mean`, in 0.5..1.
    pub fn log_e_abort(&self, mean: f64) -> f64 {
        log_e(self.lost, self.tied, self.won, mean)
    }

    /// Log evidence that the canary's mean score lies below `mean`, in 0.5..1.
    pub fn log_e_pass(&self, mean: f64) -> f64 {
        log_e(self.won, self.tied, self.lost, 1.0 - mean)
    }
}

fn log_e(ones: u64, halves: u64, zeros: u64, mean: f64) -> f64 {
    let capital = |share: &f64| {
        let stake = share / mean;
        let gain = |score: f64, count: u64| count as f64 * (stake * (score - mean)).ln_1p();
        gain(1.0, ones) + gain(0.5, halves) + gain(0.0, zeros)
    };
    log_mean_exp(STAKES.iter().map(capital))
}
