//! How far a count of random choices may be from its mean.

use std::ops::RangeInclusive;

/// The counts out of `n` choices with chance `p` each that are not surprising: outside lie at most `tail / 2` of all
/// outcomes on either side. From the binomial distribution itself, not from an approximation.
pub fn likely(n: u32, p: f64, tail: f64) -> RangeInclusive<u64> {
    let mut below = 0.0;
    let mut range = (None, u64::from(n));
    // Terms by their logarithms: the first ones are far below the smallest float.
    let mut term = f64::from(n) * (1.0 - p).ln();
    for k in 0..=n {
        below += term.exp();
        if range.0.is_none() && below > tail / 2.0 {
            range.0 = Some(u64::from(k));
        }
        if below >= 1.0 - tail / 2.0 {
            range.1 = u64::from(k);
            break;
        }
        term += (f64::from(n - k) / f64::from(k + 1)).ln() + (p / (1.0 - p)).ln();
    }
    range.0.unwrap_or(0)..=range.1
}

#[test]
fn likely_counts_are_those_of_the_binomial_distribution() {
    // Ten coins: no heads and no tails have 1/1024 each.
    assert_eq!(likely(10, 0.5, 0.0018), 0..=10);
    assert_eq!(likely(10, 0.5, 0.0022), 1..=9);
    // Five and more standard deviations of 15 on both sides.
    let range = likely(1000, 0.5, 1e-6);
    assert!((420..=426).contains(range.start()) && (574..=580).contains(range.end()), "{range:?}");
}
