//! Seeded random counts: the same seed gives the same traffic on every machine.

use libm::lgamma;

/// A seeded source of counts.
pub struct Dice(fastrand::Rng);

impl Dice {
    /// One for a seed, and for one of many runs under it.
    pub fn new(seed: u64, run: u32) -> Self {
        Self(fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(run)))
    }

    /// How many of `n` happen, each with chance `p`.
    pub fn binomial(&mut self, n: u64, p: f64) -> u64 {
        if n == 0 || p <= 0.0 {
            return 0;
        }
        if p >= 1.0 {
            return n;
        }
        let (size, odds) = (n as f64, p / (1.0 - p));
        let mode = ((size + 1.0) * p).floor().min(size);
        let ln_choose = lgamma(size + 1.0) - lgamma(mode + 1.0) - lgamma(size - mode + 1.0);
        let top = (ln_choose + mode * p.ln() + (size - mode) * (-p).ln_1p()).exp();
        self.outwards(mode, top, |k| odds * (size - k) / (k + 1.0))
    }

    /// Arrivals when `mean` are expected.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean <= 0.0 {
            return 0;
        }
        let mode = mean.floor();
        let top = (mode * mean.ln() - mean - lgamma(mode + 1.0)).exp();
        self.outwards(mode, top, |k| mean / (k + 1.0))
    }

    /// Of `n` calls, how many exceed each edge, when `rates` do: they fall from edge to edge.
    pub fn nested(&mut self, n: u64, rates: impl Iterator<Item = f64>) -> impl Iterator<Item = u64> {
        let (mut left, mut before) = (n, 1.0);
        rates.map(move |rate| {
            left = if before > 0.0 { self.binomial(left, rate / before) } else { 0 };
            before = rate;
            left
        })
    }

    /// Inversion from the mode, one step up and one down in turn; `ratio` is that of a value's successor to the value.
    fn outwards(&mut self, mode: f64, top: f64, ratio: impl Fn(f64) -> f64) -> u64 {
        let mut left = self.0.f64() - top;
        let (mut high, mut low) = ((mode, top), (mode, top));
        while left >= 0.0 && (high.1 > 0.0 || low.1 > 0.0) {
            high = (high.0 + 1.0, high.1 * ratio(high.0));
            left -= high.1;
            if left < 0.0 {
                return high.0 as u64;
            }
            if low.0 > 0.0 {
                low = (low.0 - 1.0, low.1 / ratio(low.0 - 1.0));
                left -= low.1;
                if left < 0.0 {
                    return low.0 as u64;
                }
            } else {
                low.1 = 0.0;
            }
        }
        mode as u64
    }
}

/// The middle value; of an even number, the lower of the two.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}
