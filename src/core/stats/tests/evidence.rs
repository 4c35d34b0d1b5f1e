//! What a gate keeps, shows and refuses.

use super::close;
use crate::core::stats::evidence::{Design, DesignError, Evidence, Test, TickError};
use crate::core::stats::fnch::Tick;

fn after(ticks: &[Tick]) -> Evidence {
    let mut evidence = Evidence::new(Design::new(1, 1.0, &[2.0]).unwrap()).unwrap();
    for tick in ticks {
        evidence.add(std::slice::from_ref(tick)).unwrap();
    }
    evidence
}

#[test]
fn the_estimate_is_the_conditional_one() {
    // Derivative of the conditional likelihood is zero where the expected count equals the seen one.
    let tick = Tick::new(9, 60, 40, 900);
    let found = after(&[tick]).odds_ratio(0).unwrap();
    let mean = |psi: f64| {
        let term = |k: u64| (1..=k).map(|i| ((61 - i) * (50 - i)) as f64 / (i * (851 + i)) as f64 * psi).product::<f64>();
        (0..=49).map(|k| k as f64 * term(k)).sum::<f64>() / (0..=49).map(term).sum::<f64>()
    };
    close(mean(found), 9.0, 0.01);
    assert_eq!(after(&[]).odds_ratio(0), None);
    assert_eq!(after(&[Tick::new(0, 60, 40, 900)]).odds_ratio(0), Some(0.0));
    assert_eq!(after(&[Tick::new(60, 60, 40, 900)]).odds_ratio(0), Some(f64::INFINITY));
}

#[test]
fn the_interval_narrows_around_the_estimate() {
    let everything = after(&[]).interval(0, 0.05);
    assert_eq!((everything.low, everything.high), (0.0, f64::INFINITY));
    let few = after(&[Tick::new(4, 50, 40, 950)]).interval(0, 0.05);
    let many = after(&[Tick::new(4, 50, 40, 950); 60]).interval(0, 0.05);
    assert!(few.low < 0.3 && few.high > 5.0 && few.high.is_finite(), "{few:?}");
    let estimate = after(&[Tick::new(4, 50, 40, 950)]).odds_ratio(0).unwrap();
    assert!(0.75 < many.low && many.low < estimate && estimate < many.high && many.high < 2.5, "{many:?}");
    let surer = after(&[Tick::new(4, 50, 40, 950); 60]).interval(0, 0.001);
    assert!(surer.low < many.low && surer.high > many.high);
    // What it excludes is what an e-process of the same bets excludes.
    let bets = vec![1.1, 1.25, 1.5, 2.0, 3.0, 5.0];
    let bad = [Tick::new(9, 50, 40, 950); 12];
    let low = after(&bad).interval(0, 0.05).low;
    assert!(low > 1.0);
    let design = Design { edges: 1, abort: Test { margin: low, bets }, pass: vec![], display: false };
    let mut exact = Evidence::new(design).unwrap();
    bad.iter().for_each(|tick| exact.add(&[*tick]).unwrap());
    close(exact.log_e_abort(), 40f64.ln(), 0.01);
}

#[test]
fn one_bad_edge_aborts_and_one_open_edge_does_not_pass() {
    let mut evidence = Evidence::new(Design::new(3, 1.0, &[2.0]).unwrap()).unwrap();
    let (same, worse) = (Tick::new(50, 1000, 1000, 20_000), Tick::new(40, 1000, 400, 20_000));
    evidence.add(&[same, same, worse]).unwrap();
    close(evidence.log_e_abort(), evidence.log_e_abort_of(2) - 3f64.ln(), 0.01);
    assert!(evidence.log_e_abort_of(2) > 6.0 && evidence.log_e_abort_of(0) < 0.0);
    assert!(evidence.log_e_pass(2.0).unwrap() < 1.0);
    assert_eq!(evidence.log_e_pass(3.0), None);
    let mut all_same = Evidence::new(Design::new(3, 1.0, &[2.0]).unwrap()).unwrap();
    all_same.add(&[same; 3]).unwrap();
    assert!(all_same.log_e_pass(2.0).unwrap() > 3.0);
}

#[test]
fn it_is_stored_whole_and_read_back_only_whole() {
    let mut evidence = Evidence::new(Design::new(3, 1.25, &[4.0, 3.0, 2.0]).unwrap()).unwrap();
    evidence.add(&[Tick::new(4, 50, 40, 950), Tick::new(2, 50, 20, 950), Tick::new(1, 50, 5, 950)]).unwrap();
    let text = serde_json::to_string(&evidence).unwrap();
    let mut back: Evidence = serde_json::from_str(&text).unwrap();
    assert!(text.len() < 8_000, "{} bytes", text.len());
    assert!(back.matches(evidence.design()));
    assert!(!back.matches(&Design::new(3, 1.25, &[4.0, 3.0]).unwrap()));
    assert!(!back.matches(&Design::new(3, 1.3, &[4.0, 3.0, 2.0]).unwrap()));
    for both in [&mut evidence, &mut back] {
        both.add(&[Tick::new(7, 50, 40, 950); 3]).unwrap();
    }
    close(back.log_e_abort(), evidence.log_e_abort(), 1e-12);
    let cut = text.replacen("\"logLikelihood\":[", "\"logLikelihood\":[0.5,", 1);
    assert!(serde_json::from_str::<Evidence>(&cut).unwrap_err().to_string().contains("does not fit its own design"));
}

#[test]
fn what_cannot_be_is_refused() {
    let of = |abort: f64, pass: &[f64]| Design::new(1, abort, pass).unwrap_err();
    assert_eq!(Design::new(0, 1.0, &[]).unwrap_err(), DesignError::NoEdges);
    assert_eq!(of(0.9, &[]), DesignError::AbortMargin(0.9));
    assert!(matches!(of(f64::NAN, &[]), DesignError::AbortMargin(_)));
    assert_eq!(of(1.0, &[1.0]), DesignError::PassMargin(1.0));
    assert_eq!(of(1.0, &[2.0, 2.0]), DesignError::Twice(2.0));
    assert_eq!(of(1e7, &[]), DesignError::Range(1e7));
    let design = |abort: &[f64]| Design { edges: 1, abort: Test { margin: 1.0, bets: abort.to_vec() }, pass: vec![], display: true };
    assert_eq!(design(&[2.0, 1.0]).check().unwrap_err(), DesignError::Bet(1.0, "against", "above"));
    assert_eq!(design(&[]).check().unwrap_err(), DesignError::NoBets(1.0));
    let mut evidence = after(&[Tick::new(1, 5, 2, 20)]);
    let before = evidence.clone();
    assert_eq!(evidence.add(&[]).unwrap_err(), TickError::Edges { expected: 1, found: 0 });
    let impossible = Tick::new(6, 5, 2, 20);
    assert_eq!(evidence.add(&[impossible]).unwrap_err(), TickError::Impossible(impossible));
    let refused = evidence.add(&[Tick::new(1, 5, u64::MAX, u64::MAX)]).unwrap_err();
    assert_eq!(refused.to_string(), "18446744073709551615 calls in one tick are more than can be (1000000): does the metric count calls?");
    assert_eq!(evidence, before);
}
