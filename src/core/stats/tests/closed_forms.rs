//! Tests with closed forms, against the numbers of the papers' own packages.

use proptest::prelude::*;

use super::{cases, close};
use crate::core::stats::absolute::{Absolute, BetaBinomial, best_rho, rate_interval};
use crate::core::stats::evidence::{ABORT_BETS, Design, Evidence, PASS_BETS};
use crate::core::stats::fnch::Tick;
use crate::core::stats::plan::{self, Rates};
use crate::core::stats::special::{ln_beta, ln_incomplete_beta};
use crate::core::stats::{paired, srm};

// The packages publish six or seven digits; the rest is from the same formulas with 40 digits.

#[test]
fn mixtures_as_in_confseq() {
    close(best_rho(100.0, 0.05), 12.600_560_979_256, 1e-8);
    let two = BetaBinomial::new(100.0, 0.05, 0.2, 0.8, false);
    let one = BetaBinomial::new(100.0, 0.05, 0.2, 0.8, true);
    close(two.log_e(10.0, 100.0), -0.694_101_173_947, 1e-8);
    close(one.log_e(10.0, 100.0), -0.071_340_188_979, 1e-8);
    // The sums at which they reach 1/alpha.
    close(two.log_e(31.430_797_596_073, 100.0), 20f64.ln(), 1e-8);
    close(one.log_e(28.412_380_052_049, 100.0), 20f64.ln(), 1e-8);
}

#[test]
fn intervals_of_a_rate_as_in_confseq() {
    for (bad, calls, tuned, low, high) in [
        (700, 1000, 100.0, 0.651_629_813_87, 0.745_949_500_785),
        (15, 50, 50.0, 0.129_556_994_975, 0.511_896_402_536),
        (5, 50, 50.0, 0.013_021_760_006, 0.269_264_667_151),
        (1, 50, 50.0, 0.0, 0.134_891_586_682),
        (1, 2, 50.0, 0.0, 1.0),
        (100, 200, 1.0, 0.328_923_354_127, 0.671_076_645_873),
        (0, 1, 50.0, 0.0, 1.0),
    ] {
        let found = rate_interval(bad, calls, 0.05, tuned);
        close(found.0, low, 1e-8);
        close(found.1, high, 1e-8);
    }
    assert_eq!(rate_interval(0, 0, 0.05, 50.0), (0.0, 1.0));
}

#[test]
fn a_limit_in_both_directions() {
    let gate = Absolute { limit: 0.05, tuned_calls: 500.0, tuned_alpha: 0.01 };
    assert!(gate.log_e_abort(60, 500) > 100f64.ln() && gate.log_e_pass(60, 500) < 0.0);
    assert!(gate.log_e_pass(5, 500) > 100f64.ln() && gate.log_e_abort(5, 500) < 0.0);
    assert_eq!((gate.log_e_abort(0, 0), gate.log_e_pass(0, 0)), (0.0, 0.0));
    for (bad, calls) in [(0, 100_000_000), (100_000_000, 100_000_000), (5_000_000, 100_000_000)] {
        assert!(gate.log_e_abort(bad, calls).is_finite() && gate.log_e_pass(bad, calls).is_finite());
    }
}

#[test]
fn pairs_as_computed_elsewhere() {
    for (lost, won, e) in [(5, 0, 10.5), (7, 0, 31.875)] {
        close(paired::log_e_abort(lost, won, 1.0).exp(), e, 1e-8);
    }
    close(paired::log_e_abort(10, 10, 1.0).exp(), 0.270_260_183_573, 1e-8);
    close(paired::log_e_abort(6, 0, 1.0).exp(), 18.142857143, 1e-8);
    // Of 60 digits.
    close(paired::log_e_abort(3000, 2800, 1.0), 0.030039871451425, 1e-8);
    close(paired::log_e_abort(2800, 3000, 1.0), -5.4105590534229, 1e-8);
    assert!(paired::log_e_abort(0, 50_000_000, 1.0) < -10.0 && paired::log_e_abort(50_000_000, 0, 1.0) > 1e7);
    assert!(paired::log_e_pass(10, 12, 3.0) > 0.0 && paired::log_e_pass(40, 12, 3.0) < 0.0);
}

#[test]
fn sample_ratios_as_in_ssrm() {
    let shares = [0.4, 0.4, 0.2];
    let flat = |counts: [u64; 3]| srm::log_bayes_factor_with(&counts, &shares, &[1.0, 1.0, 1.0]);
    close(flat([20, 17, 9]), -7.028201432058012 + 4.0776406466061985, 1e-8);
    close(flat([38, 38, 17]), -11.947847738358888 + 8.265946861099877, 1e-8);
    close(flat([42, 44, 21]), -15.471401950257842 + 11.610743519545139, 1e-8);
    close(flat([60, 63, 32]), -19.96484521090386 + 15.781031228536165, 1e-8);
    close(srm::log_bayes_factor(&[20, 95], &[0.05, 0.95], 100.0).exp(), 717.995_309_669_67, 1e-8);
    // The package's regression test: ten draws of numpy's seed 0, the least p-value over all looks.
    let mut counts = [0; 3];
    let p = [2, 2, 2, 2, 0, 2, 2, 0, 1, 2].iter().fold(1.0f64, |p, arm: &usize| {
        counts[*arm] += 1;
        p.min((-srm::log_bayes_factor(&counts, &[0.1, 0.5, 0.4], srm::CONCENTRATION)).exp())
    });
    close(p, 0.9980534145723241, 1e-8);
}

#[test]
fn calls_to_a_verdict_as_in_the_planning_table() {
    for (stable, canary, share, low, high) in [
        (0.08, 0.12, 0.05, 333.0, 512.0),
        (0.08, 0.12, 0.25, 433.0, 666.0),
        (0.08, 0.12, 0.50, 670.0, 1030.0),
        (0.08, 0.15, 0.05, 118.0, 181.0),
        (0.08, 0.20, 0.05, 45.0, 69.0),
        (0.05, 0.10, 0.05, 155.0, 238.0),
        (0.05, 0.15, 0.05, 46.0, 71.0),
        (0.02, 0.04, 0.05, 403.0, 620.0),
        (0.02, 0.06, 0.05, 121.0, 186.0),
    ] {
        let calls = plan::needed(Rates { canary, stable, share }.growth(1.0), ABORT_BETS.len(), 0.05, 0.0).unwrap();
        close(calls.low, low, 0.6);
        close(calls.high, high, 0.6);
    }
    let equal = Rates { canary: 0.08, stable: 0.08, share: 0.05 };
    assert_eq!(plan::needed(equal.growth(1.0), ABORT_BETS.len(), 0.05, 0.0), None);
    // Medians of a simulation at several rates of traffic.
    for (share, margin, least, most) in [
        (0.05, 4.0, 40.0, 40.0),
        (0.05, 3.0, 55.0, 65.0),
        (0.25, 4.0, 65.0, 91.0),
        (0.25, 3.0, 98.0, 114.0),
        (0.25, 2.0, 202.0, 249.0),
        (0.50, 4.0, 118.0, 184.0),
        (0.50, 3.0, 162.0, 206.0),
        (0.50, 2.0, 348.0, 469.0),
    ] {
        let calls = plan::needed(-Rates { share, ..equal }.growth(margin), PASS_BETS.len(), 0.05, 0.0).unwrap();
        assert!(calls.low < most && calls.high > least, "{share} {margin} {calls:?}");
    }
}

#[test]
fn calls_still_needed() {
    let mut evidence = Evidence::new(Design::new(2, 1.0, &[2.0]).unwrap()).unwrap();
    assert_eq!((plan::calls_to_abort(&evidence, 0.01, 0.05), plan::calls_to_pass(&evidence, 2.0, 0.05, 0.05)), (None, None));
    let (bad, good) = (Tick::new(4, 25, 38, 475), Tick::new(1, 25, 19, 475));
    let mut last = f64::INFINITY;
    for _ in 0..6 {
        evidence.add(&[bad, good]).unwrap();
        let calls = plan::calls_to_abort(&evidence, 0.01, 0.05).unwrap();
        assert!(calls.low < last && calls.low < calls.high && calls.low > 0.0, "{calls:?}");
        last = calls.low;
    }
    while evidence.log_e_abort() < 100f64.ln() {
        evidence.add(&[bad, good]).unwrap();
    }
    assert_eq!(plan::calls_to_abort(&evidence, 0.01, 0.05).unwrap().high, 0.0);
    assert!(plan::calls_to_pass(&evidence, 2.0, 0.05, 0.05).unwrap().low > 30.0);
}

/// ln C(n, k).
fn ln_choose(n: u64, k: u64) -> f64 {
    -ln_beta((n - k + 1) as f64, (k + 1) as f64) - ((n + 1) as f64).ln()
}

/// The mean of an e-value under a binomial number of hits.
fn mean(n: u64, p: f64, log_e: impl Fn(u64) -> f64) -> f64 {
    (0..=n).map(|k| (ln_choose(n, k) + k as f64 * p.ln() + (n - k) as f64 * (1.0 - p).ln() + log_e(k)).exp()).sum()
}

#[test]
fn the_means_of_all_evidence_are_one_at_the_null_and_less_within_it() {
    for n in [1, 2, 5, 10, 60] {
        for limit in [0.02, 0.05, 0.3, 0.5] {
            let gate = Absolute { limit, tuned_calls: 200.0, tuned_alpha: 0.05 };
            close(mean(n, limit, |k| gate.log_e_abort(k, n)), 1.0, 1e-10);
            close(mean(n, limit, |k| gate.log_e_pass(k, n)), 1.0, 1e-10);
            assert!(mean(n, limit * 0.7, |k| gate.log_e_abort(k, n)) < 1.0);
            assert!(mean(n, limit * 1.3, |k| gate.log_e_pass(k, n)) < 1.0);
        }
        for margin in [1.0, 1.5, 3.0] {
            let share = margin / (1.0 + margin);
            close(mean(n, share, |k| paired::log_e_abort(k, n - k, margin)), 1.0, 1e-10);
            close(mean(n, share, |k| paired::log_e_pass(k, n - k, margin)), 1.0, 1e-10);
            assert!(mean(n, share * 0.8, |k| paired::log_e_abort(k, n - k, margin)) < 1.0);
        }
        close(mean(n, 0.05, |k| srm::log_bayes_factor(&[k, n - k], &[0.05, 0.95], 100.0)), 1.0, 1e-9);
        let outside = |k| srm::log_evidence_outside(k, n - k, 0.05, (0.03, 0.07), 100.0);
        assert!([0.03, 0.05, 0.07].iter().all(|p| mean(n, *p, outside) <= 1.0 + 1e-9));
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn incomplete_beta_sums_binomial_tails(n in 1u64..300, k in 1u64..300, x in 0.001f64..0.999) {
        let k = k.min(n);
        let tail: f64 = (k..=n).map(|j| (ln_choose(n, j) + j as f64 * x.ln() + (n - j) as f64 * (1.0 - x).ln()).exp()).sum();
        let found = ln_incomplete_beta(k as f64, (n - k + 1) as f64, x);
        prop_assert!((found.exp() - tail).abs() < 1e-11, "{} {tail}", found.exp());
        prop_assert!(tail < 1e-280 || (found - tail.ln()).abs() < 1e-9 * found.abs().max(1.0), "{found} {}", tail.ln());
    }

    #[test]
    fn more_bad_calls_are_more_evidence_against(calls in 1u64..500, bad in 0u64..500, limit in 0.01f64..0.6) {
        let bad = bad.min(calls - 1);
        let gate = Absolute { limit, tuned_calls: 100.0, tuned_alpha: 0.05 };
        prop_assert!(gate.log_e_abort(bad + 1, calls) > gate.log_e_abort(bad, calls));
        prop_assert!(gate.log_e_pass(bad + 1, calls) < gate.log_e_pass(bad, calls));
        prop_assert!(paired::log_e_abort(bad + 1, calls, 1.0) > paired::log_e_abort(bad, calls, 1.0));
    }
}

#[test]
fn a_share_within_a_range() {
    // A range of one share is that share.
    for (canary, stable, share) in [(20, 95, 0.05), (0, 300, 0.25), (7, 0, 0.5), (0, 0, 0.05)] {
        let point = srm::log_bayes_factor(&[canary, stable], &[share, 1.0 - share], 100.0);
        close(srm::log_evidence_outside(canary, stable, share, (share, share), 100.0), point, 1e-9);
    }
    // More room is never more evidence; what lies inside is none, however much of it there is.
    let evidence = |canary, stable, range| srm::log_evidence_outside(canary, stable, 0.25, range, 100.0);
    assert!(evidence(100, 900, (0.2, 0.3)) < evidence(100, 900, (0.25, 0.25)));
    assert!(evidence(21_000, 79_000, (0.2, 0.3)) < 0.0 && evidence(10_000, 90_000, (0.2, 0.3)) > 100.0);
    // Shares at the ends of the range.
    assert!(evidence(0, 1000, (0.0, 0.3)) < 0.0 && evidence(0, 1000, (0.2, 0.3)) > 100.0);
    assert!(evidence(1000, 0, (0.2, 1.0)) < 0.0);
}
