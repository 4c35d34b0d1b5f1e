//! The promises, on imagined traffic: the error rates hold at every number of looks and under hostile conditions, and
//! regressions are found as soon as they should be.
//!
//! The short form plays the same few rollouts each time; `PROPTEST_CASES` plays many, with a new seed.

use super::{asked, close};
use crate::core::stats::absolute::Absolute;
use crate::core::stats::evidence::{Design, Evidence};
use crate::core::stats::fnch::Tick;
use crate::core::stats::sampling::{Dice, median};
use crate::core::stats::simulate::{Gate, Method, Outcome, SimulateError, simulate};
use crate::core::stats::traffic::{Incident, Lognormal, Regression, Signal, Step, Traffic};

/// Rollouts to play: a few, or more than `PROPTEST_CASES` asks for cases of a costlier kind.
fn many(few: u32) -> u32 {
    asked().map_or(few, |cases| few.max(cases / 10))
}

fn seed() -> u64 {
    if asked().is_some() { fastrand::u64(..) } else { 1 }
}

fn play(gate: &Gate, traffic: &Traffic, few: u32) -> Outcome {
    simulate(gate, traffic, many(few), seed()).unwrap()
}

/// Three standard errors above a promised rate.
fn at_most(promised: f64, rollouts: u32) -> f64 {
    promised + 3.0 * (promised * (1.0 - promised) / f64::from(rollouts)).sqrt()
}

fn compare(edges: usize, alpha: f64, pass: Option<f64>) -> Gate {
    let margins: Vec<f64> = pass.into_iter().collect();
    let method = Method::Compare { design: Design::new(edges, 1.0, &margins).unwrap(), pass };
    Gate { method, false_abort: alpha, false_promote: 0.05, min_canary: 0, min_minutes: 0.0 }
}

fn calls(per_minute: f64, share: f64, minutes: f64, rate: f64) -> Traffic {
    Traffic::steady(per_minute, share, minutes, Signal::BadRate(rate))
}

fn turns(per_minute: f64) -> Traffic {
    let edges = vec![(0.7, 0.7), (0.9, 0.9), (1.2, 1.2)];
    Traffic::steady(per_minute, 0.05, 30.0, Signal::Latency { spread: Lognormal { p95: 0.943, sigma: 0.45 }, edges })
}

#[track_caller]
fn keeps_its_promise(gate: &Gate, traffic: &Traffic, few: u32) {
    let outcome = play(gate, traffic, few);
    assert!(outcome.aborted <= at_most(gate.false_abort, outcome.rollouts), "{outcome:?}");
}

#[test]
fn an_equal_canary_is_kept_at_any_number_of_looks() {
    for (looks, few) in [(10.0, 300), (100.0, 100), (1000.0, 12)] {
        keeps_its_promise(&compare(1, 0.2, None), &calls(40.0, 0.25, looks, 0.1), few);
    }
}

#[test]
fn what_both_arms_suffer_aborts_nothing() {
    let mut traffic = turns(60.0);
    traffic.incident = Some(Incident { from: 10.0, minutes: 10.0, factor: 1.3 });
    keeps_its_promise(&compare(3, 0.1, None), &traffic, 60);
}

#[test]
fn base_rates_that_change_with_the_weight_abort_nothing() {
    let gate = compare(1, 0.1, Some(2.0));
    let mut traffic = calls(200.0, 0.05, 30.0, 0.05);
    let step = |from, share, base| Step { from, share, base };
    traffic.steps = vec![step(0.0, 0.05, 1.0), step(10.0, 0.25, 2.0), step(20.0, 0.5, 4.0)];
    keeps_its_promise(&Gate { min_minutes: 30.0, ..gate }, &traffic, 60);
    // Pooled over the steps the same counts would abort nearly always.
    let mut dice = Dice::new(3, 0);
    let sum = (0..30).fold(Tick::default(), |sum, minute| sum.plus(&traffic.tick(f64::from(minute), &mut dice)[0]));
    let mut pooled = Evidence::new(Design::new(1, 1.0, &[]).unwrap()).unwrap();
    pooled.add(&[sum]).unwrap();
    assert!(pooled.log_e_abort() > 1000f64.ln(), "{sum:?}");
}

#[test]
fn missed_and_repeated_ticks_abort_nothing() {
    let mut traffic = calls(100.0, 0.1, 60.0, 0.1);
    (traffic.missed, traffic.repeated) = (0.2, 0.3);
    keeps_its_promise(&compare(1, 0.1, None), &traffic, 60);
    let mut evidence = Evidence::new(Design::new(1, 1.0, &[]).unwrap()).unwrap();
    assert!(evidence.add_once(60, &[Tick::new(3, 10, 8, 190)]).unwrap());
    let once = evidence.clone();
    for at in [60, 30] {
        assert!(!evidence.add_once(at, &[Tick::new(9, 10, 8, 190)]).unwrap());
    }
    assert_eq!((&evidence, evidence.last()), (&once, Some(60)));
}

#[test]
fn a_better_canary_never_aborts() {
    let mut traffic = calls(200.0, 0.25, 60.0, 0.1);
    traffic.regression = Regression::Factor(0.5);
    assert_eq!(play(&compare(1, 0.05, None), &traffic, 40).aborted, 0.0);
    let mut traffic = turns(300.0);
    traffic.regression = Regression::Factor(0.8);
    assert_eq!(play(&compare(3, 0.05, None), &traffic, 20).aborted, 0.0);
}

#[test]
fn a_canary_at_the_margin_does_not_pass() {
    let mut traffic = calls(200.0, 0.25, 30.0, 0.08);
    traffic.regression = Regression::OddsRatio(2.0);
    let gate = Gate { false_abort: 1e-9, ..compare(1, 0.05, Some(2.0)) };
    let outcome = play(&gate, &traffic, 60);
    assert!(outcome.passed <= at_most(gate.false_promote, outcome.rollouts), "{outcome:?}");
    assert_eq!(outcome.passed + outcome.inconclusive + outcome.aborted, 1.0);
}

#[test]
fn a_limit_keeps_its_promises() {
    let method = Method::Absolute(Absolute { limit: 0.05, tuned_calls: 300.0, tuned_alpha: 0.1 });
    let gate = Gate { method, false_abort: 0.1, false_promote: 0.1, min_canary: 0, min_minutes: 0.0 };
    let outcome = play(&gate, &calls(100.0, 0.2, 60.0, 0.05), 100);
    assert!(outcome.aborted.max(outcome.passed) <= at_most(0.1, outcome.rollouts), "{outcome:?}");
    assert!(play(&gate, &calls(100.0, 0.2, 60.0, 0.15), 40).aborted > 0.9);
    assert!(play(&gate, &calls(100.0, 0.2, 60.0, 0.01), 40).passed > 0.9);
}

/// Bad calls at 8 % on stable and 5 % of the traffic, as tabled in the literature's style: share and median minute.
#[test]
fn verdicts_come_when_they_should() {
    let gate = compare(1, 0.05, Some(2.0));
    for (per_minute, canary, aborted, passed, minute) in
        [(200.0, 0.08, 0.025, 0.97, 15.0), (200.0, 0.15, 0.97, 0.03, 14.0), (200.0, 0.20, 1.0, 0.0, 6.0), (50.0, 0.20, 0.94, 0.002, 19.0)]
    {
        let mut traffic = calls(per_minute, 0.05, 60.0, 0.08);
        traffic.regression = Regression::Factor(canary / 0.08);
        let outcome = play(&gate, &traffic, 60);
        let error = |share: f64| 0.03 + 3.0 * (share * (1.0 - share) / f64::from(outcome.rollouts)).sqrt();
        close(outcome.aborted, aborted, error(aborted));
        close(outcome.passed, passed, error(passed));
        let typical = if aborted > passed { outcome.abort } else { outcome.pass }.unwrap();
        close(typical.minutes, minute, 0.3 * minute);
        close(typical.canary_calls, per_minute * 0.05 * typical.minutes, 0.3 * per_minute * 0.05 * typical.minutes);
    }
}

#[test]
fn with_too_few_calls_there_is_no_verdict() {
    let outcome = play(&compare(1, 0.05, Some(2.0)), &calls(10.0, 0.05, 60.0, 0.08), 60);
    assert!(outcome.inconclusive > 0.9, "{outcome:?}");
    let patient = Gate { min_canary: 1_000_000, ..compare(1, 0.05, Some(2.0)) };
    assert_eq!(play(&patient, &calls(200.0, 0.05, 30.0, 0.08), 20).passed, 0.0);
}

#[test]
fn the_interval_keeps_the_true_odds_ratio() {
    let rollouts = many(30);
    let mut traffic = calls(100.0, 0.2, 30.0, 0.1);
    traffic.regression = Regression::OddsRatio(1.7);
    let seed = seed();
    let left_out = |run: &u32| {
        let mut dice = Dice::new(seed, *run);
        let mut evidence = Evidence::new(Design::new(1, 1.0, &[]).unwrap()).unwrap();
        (0..30).any(|minute| {
            evidence.add(&traffic.tick(f64::from(minute), &mut dice)).unwrap();
            let interval = evidence.interval(0, 0.1);
            interval.low > 1.7 || interval.high < 1.7
        })
    };
    let share = (0..rollouts).filter(left_out).count() as f64 / f64::from(rollouts);
    assert!(share <= at_most(0.1, rollouts), "{share}, seed {seed}");
}

#[test]
fn counts_are_drawn_as_they_should_be() {
    let mut dice = Dice::new(5, 0);
    for (n, p) in [(1, 0.3), (12, 0.5), (300, 0.02), (5000, 0.95)] {
        let draws: Vec<f64> = (0..4000).map(|_| dice.binomial(n, p) as f64).collect();
        moments(&draws, n as f64 * p, n as f64 * p * (1.0 - p));
    }
    for mean in [0.2, 3.0, 900.0] {
        let draws: Vec<f64> = (0..4000).map(|_| dice.poisson(mean) as f64).collect();
        moments(&draws, mean, mean);
    }
    assert_eq!((dice.binomial(9, 0.0), dice.binomial(9, 1.0), dice.binomial(0, 0.5), dice.poisson(0.0)), (0, 9, 0, 0));
    let again = |run| (0..20).map(|_| 7).scan(Dice::new(9, run), |dice, n| Some(dice.binomial(n, 0.5))).collect::<Vec<_>>();
    assert!(again(4) == again(4) && again(4) != again(5));
    assert_eq!((median(vec![]), median(vec![3.0, 1.0, 2.0]), median(vec![2.0, 1.0])), (None, Some(2.0), Some(1.0)));
}

/// Mean within five standard errors, variance within a tenth and a little.
#[track_caller]
fn moments(draws: &[f64], mean: f64, variance: f64) {
    let n = draws.len() as f64;
    let found = draws.iter().sum::<f64>() / n;
    close(found, mean, 5.0 * (variance / n).sqrt());
    close(draws.iter().map(|x| (x - found).powi(2)).sum::<f64>() / n, variance, 0.12 * variance);
}

#[test]
fn traffic_that_cannot_be_is_refused() {
    let says = |change: fn(&mut Traffic)| {
        let mut traffic = turns(60.0);
        change(&mut traffic);
        simulate(&compare(3, 0.05, None), &traffic, 1, 1).unwrap_err().to_string()
    };
    assert_eq!(says(|t| t.calls_per_minute = 0.0), "calls a minute is 0: use a number above 0");
    assert_eq!(says(|t| t.steps[0].share = 1.0), "share of the canary is 1: use a number between 0 and 1");
    assert_eq!(says(|t| t.regression = Regression::Factor(f64::NAN)), "size of the regression is NaN: use a number above 0");
    assert_eq!(says(|t| t.steps.clear()), "number of steps is 0: name at least one weight");
    assert_eq!(says(|t| t.missed = 1.0), "chance of a missed tick is 1: use a number from 0 to less than 1");
    let falling =
        |t: &mut Traffic| t.signal = Signal::Latency { spread: Lognormal { p95: 1.0, sigma: 0.4 }, edges: vec![(1.0, 1.0), (0.9, 2.0)] };
    assert_eq!(says(falling), "edge is 0.9: edges must rise");
    let edges = simulate(&compare(2, 0.05, None), &turns(60.0), 1, 1).unwrap_err();
    assert_eq!(edges, SimulateError::Edges { gate: 2, traffic: 3 });
}
