//! Whether the calls of the tests in [`crate::comparisons`] are enough: their gates and their traffic, played many times by
//! the shipped simulation. A release of these tests that ended otherwise by chance would be seen here, too.

use serde_json::{Value, json};
use voicerollout::api::analysis::Gate;
use voicerollout::core::gates::calls::Needs;
use voicerollout::core::gates::calls::simulate::Simulation;
use voicerollout::core::stats::simulate::Outcome;
use voicerollout::core::stats::traffic::{Lognormal, Regression, Signal, Spread, Traffic};

use crate::comparisons::{
    EDGES_MS, EDGES_TOOLS, FALSE_ABORT, MARGIN_TOOLS, MARGINS, MEDIAN_MS, MORE_TOOL_CALLS, PER_SECOND, SIGMA, SLOWDOWN, TOOL_CALLS, gate,
};

/// Releases that are played; one in so many would be seen to end otherwise.
const RELEASES: u32 = 1000;

/// Plays a gate at one weight for at most a minute, from no evidence on (releases carry theirs over, which helps).
fn play(gate: &Value, weight: u32, regression: Regression, signal: impl FnOnce(&Simulation<'_>) -> Signal) -> Outcome {
    let gate: Gate = serde_json::from_value(gate.clone()).unwrap();
    let simulation = Simulation::new(&gate).unwrap();
    let mut traffic = Traffic::steady(60.0 * f64::from(PER_SECOND), f64::from(weight) / 100.0, 1.0, signal(&simulation));
    (traffic.tick_seconds, traffic.regression) = (1.0, regression);
    let outcome = simulation.run(&traffic, RELEASES, 1).unwrap();
    println!("{weight} %: {outcome:?}");
    outcome
}

fn first_token(weight: u32, regression: Regression) -> Outcome {
    let mut gate = gate("first-token", "http://prometheus", "voice_first_token_ms_bucket", &EDGES_MS);
    gate["falseAbort"] = json!(FALSE_ABORT);
    play(&gate, weight, regression, |simulation| {
        let spread = Lognormal { p95: MEDIAN_MS * (1.644_853_6 * SIGMA).exp(), sigma: SIGMA };
        let Needs::Histogram { bounds, .. } = &simulation.question().needs else { panic!("a histogram") };
        Signal::Latency { spread: Spread::Lognormal(spread), bounds: bounds.clone() }
    })
}

/// Medians: 10 s at 5 %, 5 s at 25 %, 9 s at 50 %.
#[test]
fn an_identical_canary_passes_each_weight_within_a_minute() {
    for weight in MARGINS {
        assert_eq!(first_token(weight.0, Regression::None).passed, 1.0);
    }
}

/// Median: 8 s, 35 calls of the canary.
#[test]
fn a_late_first_token_is_caught_at_5_percent_within_a_minute() {
    assert_eq!(first_token(MARGINS[0].0, Regression::Factor(SLOWDOWN)).aborted, 1.0);
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
    let (weight, margin) = MARGIN_TOOLS;
    let gate = json!({"name": "tool-calls", "falseAbort": FALSE_ABORT / 4.0, "compare": {
        "prometheus": {"address": "http://prometheus", "scrapeInterval": "1s"}, "interval": "1s", "warmup": "0s",
        "bad": "calls_with_many", "total": "calls", "passIf": {"oddsRatioBelow": {weight.to_string(): margin}},
    }});
    let outcome = play(&gate, weight, Regression::Factor(canary / stable), |_| Signal::BadRate(stable));
    assert_eq!(outcome.aborted, 1.0);
}
