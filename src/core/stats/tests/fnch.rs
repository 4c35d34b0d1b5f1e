//! The likelihood against a plain one, and the evidence against the published and the enumerated.

use proptest::prelude::*;

use super::{cases, close};
use crate::core::stats::evidence::{Design, Evidence};
use crate::core::stats::fnch::{Tick, add_log_likelihood};

/// ln(n!) for each n, as sums of logarithms.
fn ln_factorials(largest: u64) -> Vec<f64> {
    let mut sum = 0.0;
    (0..=largest)
        .map(|n| {
            (n > 0).then(|| (n as f64).ln()).map_or(0.0, |ln| {
                sum += ln;
                sum
            })
        })
        .collect()
}

fn support(t: &Tick) -> std::ops::RangeInclusive<u64> {
    let bad = t.bad_canary + t.bad_stable;
    bad.saturating_sub(t.calls_stable)..=bad.min(t.calls_canary)
}

/// The whole distribution of bad canary calls, by log-sum-exp over every term.
fn log_probabilities(t: &Tick, psi: f64) -> Vec<(u64, f64)> {
    let bad = t.bad_canary + t.bad_stable;
    let ln = ln_factorials(t.calls_canary.max(t.calls_stable));
    let ln_choose = |n: u64, k: u64| ln[n as usize] - ln[k as usize] - ln[(n - k) as usize];
    let terms: Vec<(u64, f64)> =
        support(t).map(|k| (k, ln_choose(t.calls_canary, k) + ln_choose(t.calls_stable, bad - k) + k as f64 * psi.ln())).collect();
    let most = terms.iter().map(|t| t.1).fold(f64::NEG_INFINITY, f64::max);
    let sum = most + terms.iter().map(|t| (t.1 - most).exp()).sum::<f64>().ln();
    terms.into_iter().map(|(k, term)| (k, term - sum)).collect()
}

fn plain(t: &Tick, psi: f64) -> f64 {
    let of = |psi| log_probabilities(t, psi).iter().find(|(k, _)| *k == t.bad_canary).map_or(f64::NAN, |p| p.1);
    of(psi) - of(1.0)
}

fn fast(t: &Tick, psi: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; psi.len()];
    add_log_likelihood(t, psi, &mut sums);
    sums
}

fn evidence(edges: usize, margin: f64, pass: &[f64], ticks: &[Tick]) -> Evidence {
    let mut evidence = Evidence::new(Design::new(edges, margin, pass).unwrap()).unwrap();
    for tick in ticks {
        evidence.add(&vec![*tick; edges]).unwrap();
    }
    evidence
}

#[test]
fn single_bets_as_computed_elsewhere() {
    for (tick, psi, expected) in [
        (Tick::new(3, 10, 8, 190), 2.0, 1.55437834),
        (Tick::new(6, 10, 8, 190), 4.0, 6.49846904),
        (Tick::new(4, 50, 30, 950), 1.5, 0.78860209),
    ] {
        close(fast(&tick, &[psi])[0], expected, 1e-8);
    }
}

#[test]
fn the_mixture_as_computed_elsewhere() {
    let ticks = [(1, 3, 4, 57), (0, 2, 5, 60), (2, 3, 3, 55), (1, 4, 6, 61), (2, 2, 4, 58), (0, 0, 3, 56), (1, 3, 5, 59)];
    let expected = [0.491763741, 0.245942643, 1.785721230, 2.054621350, 4.161397882, 4.161397882, 4.783770072];
    let mut so_far = evidence(1, 1.0, &[], &[]);
    for ((a, b, c, d), expected) in ticks.into_iter().zip(expected) {
        so_far.add(&[Tick::new(a, b, c, d)]).unwrap();
        close(so_far.log_e_abort(), expected, 1e-8);
    }
    let totals: Vec<Tick> = so_far.totals().copied().collect();
    assert_eq!((totals, so_far.ticks()), (vec![Tick::new(7, 17, 30, 406)], 7));
}

#[test]
fn passing_as_computed_elsewhere() {
    let ticks = [Tick::new(0, 10, 9, 110), Tick::new(1, 12, 8, 108), Tick::new(0, 9, 10, 111), Tick::new(1, 11, 9, 109)];
    close(evidence(1, 1.0, &[4.0, 2.0], &ticks).log_e_pass(2.0).unwrap(), 1.675448152, 1e-8);
}

#[test]
fn large_counts_and_far_odds_ratios_agree_with_the_plain_sum() {
    let psi = [1e-3, 0.02, 0.25, 0.999, 1.0, 1.3, 4.0, 60.0, 2000.0];
    for tick in [
        Tick::new(25, 500, 500, 10_000),
        Tick::new(500, 500, 0, 10_000),
        Tick::new(0, 500, 9_999, 10_000),
        Tick::new(499, 500, 10_000, 10_000),
        Tick::new(1, 1, 0, 1),
        Tick::new(3_000, 5_000, 2_000, 5_000),
    ] {
        for (psi, found) in psi.iter().zip(fast(&tick, &psi)) {
            let expected = plain(&tick, *psi);
            close(found, expected, 1e-10 * expected.abs().max(1.0));
        }
    }
}

#[test]
fn ticks_that_say_nothing_add_nothing() {
    for tick in [Tick::new(0, 0, 3, 9), Tick::new(2, 5, 0, 0), Tick::new(0, 5, 0, 9), Tick::new(5, 5, 9, 9), Tick::default()] {
        assert_eq!(fast(&tick, &[0.5, 1.0, 3.0]), vec![0.0; 3]);
    }
}

#[test]
fn the_mean_of_a_bet_is_one_at_the_margin_and_less_within_it() {
    for calls in 1..=10 {
        for (bad, stable) in [(1, 1), (2, 7), (5, 9), (12, 20), (3, 190)] {
            if bad >= calls + stable {
                continue;
            }
            let any = Tick::new(bad.min(calls), calls, bad - bad.min(calls), stable);
            for (margin, bets) in [
                (1.0, [1.25, 1.5, 2.0, 3.0, 5.0]),
                (1.25, [1.25, 1.5, 2.0, 3.0, 5.0]),
                (2.0, [0.25, 0.375, 0.5, 0.625, 0.75]),
                // To show that a canary is less than so many times slower, with the arms swapped.
                (1.0, [4.0, 8.0 / 3.0, 2.0, 1.6, 4.0 / 3.0]),
            ] {
                let towards = if bets[0] > 1.0 { 0.7 } else { 1.4 };
                for bet in bets {
                    let mean = |truth: f64| -> f64 {
                        let e = |k: u64| {
                            let seen = Tick::new(k, calls, bad - k, stable);
                            let at = fast(&seen, &[margin * bet, margin]);
                            at[0] - at[1]
                        };
                        log_probabilities(&any, truth).into_iter().map(|(k, p)| (p + e(k)).exp()).sum()
                    };
                    close(mean(margin), 1.0, 1e-11);
                    assert!(mean(margin * towards) <= 1.0 + 1e-11);
                }
            }
        }
    }
}

/// Every course of three ticks, with its probability: whenever one stops, the mixture is 1 on average at the margin, and
/// at most 1 within it.
#[test]
fn a_mixture_that_is_stopped_is_one_on_average() {
    let ticks = [(3, 5, 9), (2, 4, 11), (6, 7, 8)];
    for (margin, truth) in [(1.0, [1.0; 3]), (1.0, [0.6, 1.0, 0.3]), (1.5, [1.5; 3]), (1.5, [1.2, 0.5, 1.5])] {
        for stop in [0.2, 0.7, 1.5, f64::INFINITY] {
            // Probability and evidence of the courses that go on.
            let mut going = vec![(0.0f64, evidence(1, margin, &[], &[]))];
            let mut mean = 0.0;
            for ((bad, calls, stable), truth) in ticks.into_iter().zip(truth) {
                let any = Tick::new(bad.min(calls), calls, bad - bad.min(calls), stable);
                let mut next = Vec::new();
                for (course, so_far) in going {
                    for (k, p) in log_probabilities(&any, truth) {
                        let mut more = so_far.clone();
                        more.add(&[Tick::new(k, calls, bad - k, stable)]).unwrap();
                        if more.log_e_abort() >= stop {
                            mean += (course + p + more.log_e_abort()).exp();
                        } else {
                            next.push((course + p, more));
                        }
                    }
                }
                going = next;
            }
            mean += going.iter().map(|(course, e)| (course + e.log_e_abort()).exp()).sum::<f64>();
            assert!(mean <= 1.0 + 1e-11, "{margin} {truth:?} {stop}: {mean}");
            if truth == [margin; 3] {
                close(mean, 1.0, 1e-11);
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn any_counts_agree_with_the_plain_sum(
        (calls_canary, calls_stable) in (1u64..60, 1u64..400),
        (canary, stable) in (0.0f64..=1.0, 0.0f64..=1.0),
        psi in prop::collection::vec(-5.0f64..5.0, 1..6),
    ) {
        let tick = Tick::new((canary * calls_canary as f64) as u64, calls_canary, (stable * calls_stable as f64) as u64, calls_stable);
        let psi: Vec<f64> = psi.into_iter().map(f64::exp).collect();
        for (psi, found) in psi.iter().zip(fast(&tick, &psi)) {
            let expected = if tick.is_informative() { plain(&tick, *psi) } else { 0.0 };
            prop_assert!((found - expected).abs() < 1e-10 * expected.abs().max(1.0), "{tick:?} {psi}: {found}, not {expected}");
        }
    }

    #[test]
    fn more_bad_canary_calls_are_more_evidence(calls in 1u64..30, stable in 1u64..200, bad_stable in 0.0f64..=1.0, margin in 1.0f64..3.0) {
        let bad_stable = (bad_stable * stable as f64) as u64;
        let at = |bad| evidence(2, margin, &[margin + 0.5], &[Tick::new(bad, calls, bad_stable, stable)]);
        for bad in 0..calls {
            let (less, more) = (at(bad), at(bad + 1));
            prop_assert!(more.log_e_abort() >= less.log_e_abort() - 1e-12);
            prop_assert!(more.log_e_pass(margin + 0.5) <= less.log_e_pass(margin + 0.5).map(|e| e + 1e-12));
            if bad + 1 < calls + stable - bad_stable {
                prop_assert!(more.odds_ratio(0).unwrap_or(f64::INFINITY) >= less.odds_ratio(0).unwrap_or(0.0));
            }
        }
    }
}
