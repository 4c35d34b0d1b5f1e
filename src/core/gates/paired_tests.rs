use proptest::prelude::*;
use serde_json::json;

use super::*;

fn gate(fields: serde_json::Value) -> Gate {
    let mut paired = json!({ "web": { "url": "http://h/x" }, "stableOnly": "{$.b}", "canaryOnly": "{$.c}", "total": "{$.n}" });
    paired.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(json!({ "name": "g", "falseAbort": 0.05, "paired": paired })).unwrap()
}

fn pairs(pairs: i64, stable_only: i64, canary_only: i64) -> Pairs {
    Pairs { pairs, stable_only, canary_only }
}

fn seed(seed: &str) -> Suite {
    Suite { seed: Some(seed.into()), ..Suite::default() }
}

fn ask(gate: &Gate, state: &mut GateStatus, table: Pairs, suite: Option<&Suite>) -> (Verdict, String, String) {
    decide(gate, gate.paired.as_ref().unwrap(), state, &table, suite)
}

fn of(pairs: i64, stable_only: i64, canary_only: i64) -> PairedEvidence {
    PairedEvidence { pairs, stable_only, canary_only, draws: vec![] }
}

#[test]
fn reference_numbers() {
    for (b, c, e) in [(5, 0, 10.5), (7, 0, 31.875), (10, 10, 0.270_260_183_573)] {
        let found = log_harm(&of(100, b, c)).exp();
        assert!((found - e).abs() < 1e-8, "{b} {c}: {found}");
    }
    // By hand, margin 0.1: stakes 0.95/0.9, 0.5/0.9, 0.25/0.9; one lost, two won, three the same.
    let by_hand: f64 = [(0.95, 0.5), (0.5, 0.25), (0.25, 0.25)]
        .map(|(share, weight): (f64, f64)| {
            let s = share / 0.9;
            weight * (1.0 - s * 0.9) * (1.0 + s * 1.1).powi(2) * (1.0 + s * 0.1).powi(3)
        })
        .iter()
        .sum();
    assert!((log_harmless(&of(6, 1, 2), 0.1).exp() / by_hand - 1.0).abs() < 1e-12);
}

#[test]
fn seven_losses_and_no_win_fail_at_one_in_twenty() {
    for (b, verdict) in [(6, Verdict::Inconclusive), (7, Verdict::Fail)] {
        let (found, value, message) = ask(&gate(json!({})), &mut GateStatus::default(), pairs(120, b, 0), None);
        assert_eq!((found, value), (verdict, format!("{b} lost, 0 won of 120")), "{message}");
    }
    let (_, _, message) = ask(&gate(json!({})), &mut GateStatus::default(), pairs(120, 7, 0), None);
    assert!(
        message.starts_with("of 120 scenarios 7 pass on stable alone and 0 on the canary alone; evidence of harm 31.9x, abort line 20.0x"),
        "{message}"
    );
}

#[test]
fn a_pass_needs_scenarios_and_evidence() {
    let ask = |fields, table| ask(&gate(fields), &mut GateStatus::default(), table, None);
    assert_eq!(ask(json!({}), pairs(70, 0, 0)).0, Verdict::Inconclusive);
    assert_eq!(ask(json!({}), pairs(75, 0, 0)).0, Verdict::Pass, "all alike");
    assert_eq!(ask(json!({}), pairs(200, 3, 3)).0, Verdict::Pass);
    assert_eq!(ask(json!({}), pairs(200, 4, 0)).0, Verdict::Inconclusive, "4 of 200 lost may be 5 %");
    let (verdict, _, message) = ask(json!({ "minPairs": 300 }), pairs(200, 0, 0));
    assert_eq!(verdict, Verdict::Inconclusive);
    assert!(message.contains("300 scenarios are needed to pass"), "{message}");
    assert_eq!(ask(json!({ "margin": 0.5 }), pairs(3, 0, 0)).0, Verdict::Inconclusive, "minPairs is 50 unless written");
}

#[test]
fn a_draw_counts_once() {
    let (gate, mut state) = (gate(json!({})), GateStatus::default());
    assert_eq!(ask(&gate, &mut state, pairs(50, 4, 0), Some(&seed("1"))).0, Verdict::Inconclusive);
    let (verdict, value, message) = ask(&gate, &mut state, pairs(50, 50, 0), Some(&seed("1")));
    assert_eq!((verdict, value.as_str()), (Verdict::Inconclusive, "4 lost, 0 won of 50"));
    assert!(message.contains("seed 1 is counted already"), "{message}");
    let (verdict, value, _) = ask(&gate, &mut state, pairs(50, 3, 0), Some(&seed("2")));
    assert_eq!((verdict, value.as_str()), (Verdict::Fail, "7 lost, 0 won of 100"));

    let mut unnamed = GateStatus::default();
    ask(&gate, &mut unnamed, pairs(50, 4, 0), None);
    let (verdict, value, message) = ask(&gate, &mut unnamed, pairs(50, 4, 0), None);
    assert_eq!((verdict, value.as_str()), (Verdict::Inconclusive, "4 lost, 0 won of 50"));
    assert!(message.contains("names no seed"), "{message}");

    let mut many = GateStatus::default();
    for n in 0..400 {
        ask(&gate, &mut many, pairs(1, 0, 0), Some(&seed(&n.to_string())));
    }
    assert_eq!((many.paired.as_ref().unwrap().pairs, many.paired.unwrap().draws.len()), (256, 256), "the status stays small");
}

/// Chance of every table of `n` scenarios of which each is lost with chance `b` and won with chance `c`.
fn expectation(n: i32, b: f64, c: f64, e: impl Fn(&PairedEvidence) -> f64) -> f64 {
    let factorial = |k: i32| (1..=k).map(f64::from).product::<f64>();
    let mut sum = 0.0;
    for lost in 0..=n {
        for won in 0..=n - lost {
            let same = n - lost - won;
            let ways = factorial(n) / factorial(lost) / factorial(won) / factorial(same);
            let chance = ways * b.powi(lost) * c.powi(won) * (1.0 - b - c).powi(same);
            sum += chance * e(&of(n.into(), lost.into(), won.into())).exp();
        }
    }
    sum
}

#[test]
fn on_average_there_is_no_evidence_where_there_is_none_to_find() {
    for n in [1, 2, 5, 12] {
        for (b, c) in [(0.1, 0.1), (0.3, 0.3), (0.05, 0.4), (0.5, 0.5), (0.0, 0.2)] {
            let mean = expectation(n, b, c, log_harm);
            assert!(mean <= 1.0 + 1e-9, "harm, {n} scenarios, {b} {c}: {mean}");
        }
        for margin in [0.02, 0.05, 0.2, 0.5] {
            for c in [0.0, 0.1, 0.25] {
                for worse in [0.0, 0.2] {
                    let mean = expectation(n, c + margin + worse, c, |t| log_harmless(t, margin));
                    assert!(mean <= 1.0 + 1e-9, "harmless, {n} scenarios, margin {margin}, {c}, {worse}: {mean}");
                }
            }
        }
    }
    assert!(expectation(12, 0.4, 0.1, log_harm) > 1.0 && expectation(12, 0.0, 0.0, |t| log_harmless(t, 0.05)) > 1.0);
}

/// Draws of 20 scenarios, looked at after each, up to 20 of them: how often a verdict is reached, ever.
fn reached(runs: u32, b: f64, c: f64, wanted: Verdict) -> u32 {
    let mut random = fastrand::Rng::with_seed(7);
    let gate = gate(json!({ "margin": 0.1 }));
    (0..runs)
        .map(|_| {
            let mut state = GateStatus::default();
            let hit = (0..20).any(|draw| {
                let mut table = pairs(20, 0, 0);
                for _ in 0..20 {
                    let u = random.f64();
                    table.stable_only += i64::from(u < b);
                    table.canary_only += i64::from((b..b + c).contains(&u));
                }
                ask(&gate, &mut state, table, Some(&seed(&draw.to_string()))).0 == wanted
            });
            u32::from(hit)
        })
        .sum()
}

#[test]
fn promises_hold_at_every_look() {
    // 600 releases, a promise of 5 %, three standard errors.
    let most = 600.0_f64.mul_add(0.05, 3.0 * (600.0_f64 * 0.05 * 0.95).sqrt());
    assert!(f64::from(reached(600, 0.1, 0.1, Verdict::Fail)) <= most);
    assert!(f64::from(reached(600, 0.15, 0.05, Verdict::Pass)) <= most);
    assert!(reached(100, 0.2, 0.05, Verdict::Fail) >= 95, "a canary that loses 15 % is caught");
    assert!(reached(100, 0.02, 0.02, Verdict::Pass) >= 95, "one that is alike passes");
}

proptest! {
    #[test]
    fn more_losses_never_help_the_canary(n in 1..300_i64, b in 0..100_i64, c in 0..100_i64, margin in 0.01..0.5_f64) {
        prop_assume!(b + c < n);
        let (less, more) = (of(n, b, c), of(n, b + 1, c));
        prop_assert!(log_harm(&more) >= log_harm(&less) - 1e-9);
        prop_assert!(log_harmless(&more, margin) <= log_harmless(&less, margin));
        prop_assert!(log_harmless(&less, margin).is_finite() && log_harm(&less).is_finite());
    }
}
