//! Whether the calls of the tests in [`crate::comparisons`] are enough: their gates and their traffic, played many times by
//! the shipped simulation. A release of these tests that ended otherwise by chance would be seen here, too.

use voicerollout::core::stats::evidence::Design;
use voicerollout::core::stats::simulate::{Gate, Method, Outcome, simulate};
use voicerollout::core::stats::traffic::{Lognormal, Regression, Signal, Traffic};

use crate::comparisons::{
    EDGES_MS, EDGES_TOOLS, FALSE_ABORT, FALSE_PROMOTE, MARGIN_TOOLS, MARGINS, MEDIAN_MS, MORE_TOOL_CALLS, PER_SECOND, SIGMA, SLOWDOWN,
    TOOL_CALLS,
};

/// Releases that are played; one in so many would be seen to end otherwise.
const RELEASES: u32 = 1000;

/// Times to the first token, against their edges. Units do not matter.
fn first_token() -> Signal {
    let spread = Lognormal { p95: MEDIAN_MS * (1.644_853_6 * SIGMA).exp(), sigma: SIGMA };
    Signal::Latency { spread, edges: EDGES_MS.map(|edge| (edge, edge)).to_vec() }
}

/// Plays a gate at one weight for at most a minute, from no evidence on (releases carry theirs over, which helps).
fn play(signal: Signal, (weight, margin): (u32, f64), false_abort: f64, regression: Regression) -> Outcome {
    let mut traffic = Traffic::steady(60.0 * f64::from(PER_SECOND), f64::from(weight) / 100.0, 1.0, signal);
    (traffic.tick_seconds, traffic.regression) = (1.0, regression);
    let method = Method::Compare { design: Design::new(traffic.edges(), 1.0, &[margin]).unwrap(), pass: Some(margin) };
    let gate = Gate { method, false_abort, false_promote: FALSE_PROMOTE, min_canary: 30, min_minutes: 0.0 };
    let outcome = simulate(&gate, &traffic, RELEASES, 1).unwrap();
    println!("{weight} %, {regression:?}: {outcome:?}");
    outcome
}

/// Medians: 10 s at 5 %, 5 s at 25 %, 9 s at 50 %.
#[test]
fn an_identical_canary_passes_each_weight_within_a_minute() {
    for weight in MARGINS {
        assert_eq!(play(first_token(), weight, FALSE_ABORT, Regression::None).passed, 1.0);
    }
}

/// Median: 8 s, 35 calls of the canary.
#[test]
fn a_late_first_token_is_caught_at_5_percent_within_a_minute() {
    assert_eq!(play(first_token(), MARGINS[0], FALSE_ABORT, Regression::Factor(SLOWDOWN)).aborted, 1.0);
}

/// Share of calls with more tool calls than an edge: the upper tail of a Poisson distribution.
fn more_than(edge: f64, mean: f64) -> f64 {
    let (mut term, mut below) = ((-mean).exp(), 0.0);
    for k in 0..=edge as u32 {
        below += term;
        term *= mean / f64::from(k + 1);
    }
    1.0 - below
}

/// Median: 22 s, 88 calls of the canary. Two gates have half of the chance each. Of the two edges the lower one plays
/// alone: their mean is at least half of its evidence, so that half of the chance makes up for the other.
#[test]
fn more_tool_calls_are_caught_at_5_percent_within_a_minute() {
    let edge = EDGES_TOOLS[0];
    let (stable, canary) = (more_than(edge, TOOL_CALLS), more_than(edge, MORE_TOOL_CALLS));
    let outcome = play(Signal::BadRate(stable), MARGIN_TOOLS, FALSE_ABORT / 4.0, Regression::Factor(canary / stable));
    assert_eq!(outcome.aborted, 1.0);
}
