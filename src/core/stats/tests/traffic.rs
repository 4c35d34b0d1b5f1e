//! Imagined traffic: what is drawn, how values are spread, what is refused.

use super::{asked, close};
use crate::core::stats::evidence::{Design, Evidence};
use crate::core::stats::sampling::{Dice, median};
use crate::core::stats::special::{normal_quantile, normal_tail};
use crate::core::stats::traffic::{Lognormal, Measured, Regression, Signal, Spread, Step, Traffic};

const FIRST_TOKEN: Lognormal = Lognormal { p95: 0.943, sigma: 0.45 };

#[test]
fn the_interval_keeps_the_true_odds_ratio() {
    let rollouts = asked().map_or(30, |cases| 30.max(cases / 10));
    let seed = if asked().is_some() { fastrand::u64(..) } else { 1 };
    let mut traffic = Traffic::steady(100.0, 0.2, 30.0, Signal::BadRate(0.1));
    traffic.regression = Regression::OddsRatio(1.7);
    let left_out = |run: &u32| {
        let mut dice = Dice::new(seed, *run);
        let mut evidence = Evidence::new(Design::new(1, 1.0, &[]).unwrap()).unwrap();
        (0..30).any(|minute| {
            evidence.add(&traffic.tick(0, f64::from(minute), &mut dice)).unwrap();
            let interval = evidence.interval(0, 0.1);
            interval.low > 1.7 || interval.high < 1.7
        })
    };
    let share = (0..rollouts).filter(left_out).count() as f64 / f64::from(rollouts);
    let error = (0.1 * 0.9 / f64::from(rollouts)).sqrt();
    assert!(share <= 0.1 + 3.0 * error, "{share}, seed {seed}");
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
fn quantiles_of_the_normal_distribution() {
    for (p, z) in [(0.5, 0.0), (0.95, 1.644_853_626_951_472_2), (0.975, 1.959_963_984_540_054), (1e-9, -5.997_807_015_008_182)] {
        close(normal_quantile(p), z, 1e-9);
        close(normal_tail(-z), p, 1e-12);
    }
    for spread in [Lognormal::of_median(0.5, 0.4), Lognormal::of_quantiles(0.5, 0.5 * (0.4 * 1.644_853_626_951_472_2f64).exp())] {
        close(spread.slower_than(0.5, 1.0), 0.5, 1e-12);
        close(spread.slower_than(0.5 * 0.4f64.exp(), 1.0), normal_tail(1.0), 1e-12);
        close(spread.slower_than(1.0, 2.0), 0.5, 1e-12);
    }
}

#[test]
fn measured_buckets_are_met_and_filled_in_as_lognormal() {
    let counts: Vec<(f64, u64)> =
        [0.3, 0.5, 0.7, 0.9, 1.2].iter().map(|bound| (*bound, ((1.0 - FIRST_TOKEN.slower_than(*bound, 1.0)) * 1e12) as u64)).collect();
    let spread = Spread::Measured(Measured::new(&counts, 1_000_000_000_000).unwrap());
    // Of lognormal counts it makes the lognormal again: at the bounds, between, beyond, and when all are slower.
    for (bound, factor) in [(0.7, 1.0), (0.8, 1.0), (0.2, 1.0), (2.0, 1.0), (0.9, 1.3), (1.2, 0.5)] {
        close(spread.above(bound, factor), FIRST_TOKEN.slower_than(bound, factor), 1e-9);
    }
    let odd = Spread::Measured(Measured::new(&[(0.0, 5), (1.0, 0), (2.0, 50), (3.0, 50), (4.0, 90), (9.0, 100)], 100).unwrap());
    close(odd.above(2.0, 1.0), 0.5, 1e-12);
    close(odd.above(2.5, 1.0), 0.5, 1e-12);
    close(odd.above(4.0, 1.0), 0.1, 1e-12);
    assert_eq!(Measured::new(&[(1.0, 50), (2.0, 100)], 100), None);
}

#[test]
fn traffic_that_cannot_be_is_refused() {
    let latency = |spread, bounds: &[f64]| Signal::Latency { spread: Spread::Lognormal(spread), bounds: bounds.to_vec() };
    let says = |change: &dyn Fn(&mut Traffic)| {
        let mut traffic = Traffic::steady(60.0, 0.05, 30.0, latency(FIRST_TOKEN, &[0.7, 0.9]));
        traffic.check().unwrap();
        change(&mut traffic);
        traffic.check().unwrap_err().to_string()
    };
    assert_eq!(says(&|t| t.calls_per_minute = 0.0), "calls a minute is 0: use a number above 0");
    assert_eq!(says(&|t| t.minutes = 0.4), "ticks is 0.4: use more minutes, or shorter ticks");
    assert_eq!(says(&|t| t.calls_per_minute = 1e6), "calls in a tick is 1000000: no gate takes more than 100000");
    assert_eq!(says(&|t| t.steps[0].share = 1.0), "share of the canary is 1: use a number between 0 and 1");
    assert_eq!(says(&|t| t.regression = Regression::Factor(f64::NAN)), "size of the regression is NaN: use a number above 0");
    assert_eq!(says(&|t| t.steps.clear()), "number of steps is 0: name at least one weight");
    assert_eq!(says(&|t| t.signal = Signal::BadRate(1.0)), "bad rate is 1: use a number between 0 and 1");
    assert_eq!(says(&|t| t.signal = latency(FIRST_TOKEN, &[1.0, 0.9])), "bound is 0.9: bounds must rise");
    assert_eq!(says(&|t| t.signal = latency(Lognormal { p95: 1.0, sigma: 0.0 }, &[1.0])), "sigma is 0: use a number above 0");
}

#[test]
fn steps_by_the_clock_begin_at_their_minutes() {
    let mut traffic = Traffic::steady(60.0, 0.05, 30.0, Signal::BadRate(0.1));
    let step = |from, share| Step { from, share, base: 1.0 };
    traffic.steps = vec![step(0.0, 0.05), step(10.0, 0.25), step(20.0, 0.5)];
    assert_eq!([0.0, 9.9, 10.0, 25.0].map(|minute| traffic.step_at(minute)), [0, 0, 1, 2]);
    assert_eq!((traffic.ticks(), traffic.calls_in_a_tick()), (30, 60.0));
}
