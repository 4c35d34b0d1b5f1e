//! A log-likelihood known on an even grid of log odds ratios: where it is largest, and what it excludes.
//!
//! The exact conditional log-likelihood is smooth and concave in the log odds ratio, so cubic interpolation between grid
//! points loses nothing that anybody could see. It is used for display only; verdicts rest on exact values.

use super::log_mean_exp;

/// Ratio of neighbouring odds ratios on the grid.
const STEP: f64 = 1.25;
/// Grid points on each side of 1: from 1/55 to 55.
const SIDE: i32 = 18;
/// Odds ratios that a bet lies beyond the one it speaks against.
const BETS: [f64; 6] = [1.1, 1.25, 1.5, 2.0, 3.0, 5.0];
/// Halvings of a grid of 8 log units: well below what is printed.
const HALVINGS: u32 = 40;

/// What is not excluded: from `low` to `high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end; 0 when nothing below is excluded.
    pub low: f64,
    /// Upper end; infinite when nothing above is excluded.
    pub high: f64,
}

/// The odds ratios of the grid, rising.
pub fn odds_ratios() -> impl Iterator<Item = f64> {
    (-SIDE..=SIDE).map(|i| STEP.powi(i))
}

/// Number of grid points.
pub const POINTS: usize = 2 * SIDE as usize + 1;

/// A log-likelihood on the grid; only differences matter.
#[derive(Clone, Copy)]
pub struct Curve<'a>(&'a [f64]);

impl<'a> Curve<'a> {
    /// `None` for a curve that says nothing, or that is not of the grid's length.
    pub fn new(values: &'a [f64]) -> Option<Self> {
        let flat = values.iter().all(|v| *v == values[0]);
        (values.len() == POINTS && !flat).then_some(Self(values))
    }

    /// The odds ratio under which the counts are likeliest; 0 or infinite beyond the grid.
    pub fn maximum(self) -> f64 {
        let best = self.best();
        if best == 0 {
            return 0.0;
        }
        if best == POINTS - 1 {
            return f64::INFINITY;
        }
        let (mut low, mut high) = (best as f64 - 1.0, best as f64 + 1.0);
        for _ in 0..2 * HALVINGS {
            let third = (high - low) / 3.0;
            if self.at(low + third) < self.at(high - third) {
                low += third;
            } else {
                high -= third;
            }
        }
        odds_ratio((low + high) / 2.0)
    }

    /// Anytime-valid confidence interval: an odds ratio is outside when a mixture of bets on one side of it reaches
    /// `2 / alpha`.
    ///
    /// Each side is an e-process against "not beyond this odds ratio", so all values of the interval over a whole
    /// release contain the true odds ratio with probability `1 - alpha`.
    pub fn interval(self, alpha: f64) -> Interval {
        let line = (2.0 / alpha).ln();
        let (best, end) = (self.best() as f64, (POINTS - 1) as f64);
        let low = self.excluded(0.0, best, 1.0, line).map_or(0.0, odds_ratio);
        let high = self.excluded(end, best, -1.0, line).map_or(f64::INFINITY, odds_ratio);
        Interval { low, high }
    }

    /// The place between `outer` and `inner` where bets towards `inner` stop to exclude; `None` when nothing is excluded.
    fn excluded(self, outer: f64, inner: f64, direction: f64, line: f64) -> Option<f64> {
        let evidence = |x: f64| {
            let here = self.at(x);
            let bets = BETS.iter().map(|bet| self.at(x + direction * bet.ln() / STEP.ln()) - here);
            log_mean_exp(bets)
        };
        if evidence(outer) < line {
            return None;
        }
        let (mut out, mut inside) = (outer, inner);
        for _ in 0..HALVINGS {
            let middle = (out + inside) / 2.0;
            if evidence(middle) < line {
                inside = middle;
            } else {
                out = middle;
            }
        }
        Some(out)
    }

    fn best(self) -> usize {
        (0..POINTS).max_by(|a, b| self.0[*a].total_cmp(&self.0[*b])).unwrap_or(0)
    }

    /// The value at a place counted in grid points; beyond the grid, that of its end.
    fn at(self, x: f64) -> f64 {
        let x = x.clamp(0.0, (POINTS - 1) as f64);
        let first = (x.floor() as usize).saturating_sub(1).min(POINTS - 4);
        let t = x - first as f64;
        let v = &self.0[first..first + 4];
        let (a, b, c, d) = (t, t - 1.0, t - 2.0, t - 3.0);
        -v[0] * b * c * d / 6.0 + v[1] * a * c * d / 2.0 - v[2] * a * b * d / 2.0 + v[3] * a * b * c / 6.0
    }
}

fn odds_ratio(place: f64) -> f64 {
    ((place - f64::from(SIDE)) * STEP.ln()).exp()
}
