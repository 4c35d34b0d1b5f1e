//! Tests of the statistics. Long seeded forms run with `PROPTEST_CASES`.

mod baselines;
mod closed_forms;
mod evidence;
mod fnch;
mod traffic;

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// Asserts that two numbers differ by no more than this.
#[track_caller]
pub fn close(found: f64, expected: f64, within: f64) {
    assert!((found - expected).abs() <= within, "{found} is not within {within} of {expected}");
}

/// `PROPTEST_CASES`, when a long form is asked for.
pub fn asked() -> Option<u32> {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok())
}

/// The same few cases each time; with `PROPTEST_CASES` that many new ones.
pub fn cases(few: u32) -> ProptestConfig {
    let rng_seed = if asked().is_some() { RngSeed::Random } else { RngSeed::Fixed(1) };
    ProptestConfig { cases: asked().unwrap_or(few), rng_seed, failure_persistence: None, ..ProptestConfig::default() }
}
