//! Percentiles and their print.

/// Times in milliseconds, sorted.
pub struct Times(Vec<f64>);

impl Times {
    /// Sorts them.
    pub fn new(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    /// The smallest value that `percent` % of all do not exceed (nearest rank).
    pub fn percentile(&self, percent: f64) -> f64 {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.clamp(1, self.0.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
    }

    /// One row: count and percentiles.
    pub fn print(&self, title: &str) {
        let [p50, p90, p99, max] = [50.0, 90.0, 99.0, 100.0].map(|p| self.percentile(p));
        println!("  {title:<44} n {:>4}   p50 {p50:>7.1}   p90 {p90:>7.1}   p99 {p99:>7.1}   max {max:>7.1} ms", self.0.len());
    }
}
