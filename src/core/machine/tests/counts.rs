//! Gates that count calls: margins by weight, patience by weight, and how often their counts are told.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::specs::{counting, gates, pause, require, spec, weight};
use super::world::World;
use crate::api::action::Verb;
use crate::api::analysis::{Gate, Mode, OnInconclusive};
use crate::api::run::{ArmCalls, Comparison, GateStatus, Memory, PassLine, RunKind, Verdict};
use crate::api::status::Phase;
use crate::core::gates::calls::sentence;

/// A release through 5 and 25 % that waits for the gate at both.
fn releasing(gate: Gate) -> World {
    let steps = vec![weight(5), require(&["calls"]), weight(25), require(&["calls"])];
    let mut w = World::releasing(spec(Some(steps), Some(gates(vec![gate]))));
    w.pace = 1_000_000;
    w.until("measured", |w| w.seen.runs.iter().any(|r| r.kind == RunKind::Background));
    w.until_weight(5);
    w
}

/// A look at `calls` canary calls just now, that passes at these weights.
fn look(w: &mut World, calls: i64, passes: [bool; 2]) {
    let now = w.seen.now;
    let gate = w.seen.runs.iter_mut().find(|r| r.kind == RunKind::Background && !r.stop).unwrap().gates.first_mut().unwrap();
    fill(gate, now, calls, passes);
}

fn fill(gate: &mut GateStatus, now: Timestamp, calls: i64, passes: [bool; 2]) {
    let before = gate.comparison.take().map(|c| c.pass).unwrap_or_default();
    let line = |i: usize, weight, odds: u32| {
        let since = before.get(i).and_then(|l| l.undecided_since.clone()).or(Some(Time(now)));
        let (passes, below) = (passes[i], format!("odds ratio {odds}"));
        let passed_at = if passes { Some(Time(now)) } else { before.get(i).and_then(|l| l.passed_at.clone()) };
        PassLine { weight, below, passes, log_line: 3.0, passed_at, undecided_since: since.filter(|_| !passes), ..PassLine::default() }
    };
    let known = Comparison {
        canary: ArmCalls { calls, bad: 1 },
        stable: Some(ArmCalls { calls: 900, bad: 30 }),
        log_abort_line: 4.6,
        pass: vec![line(0, 5, 4), line(1, 25, 3)],
        data_at: Some(Time(now)),
        ..Comparison::default()
    };
    gate.message = sentence(&known, 0);
    gate.passing = passes.contains(&true);
    gate.comparison = Some(known);
    gate.memory = Some(Memory::default());
    gate.started_at.get_or_insert(Time(now));
    if gate.passing {
        gate.counts.pass += 1;
        gate.last_pass_at = Some(Time(now));
        gate.undecided_since = None;
    } else {
        gate.counts.inconclusive += 1;
        gate.undecided_since.get_or_insert(Time(now));
    }
}

#[test]
fn a_step_passes_by_the_margin_of_its_weight_on_data_that_is_newer() {
    let mut w = releasing(counting("calls"));
    w.run(60);
    look(&mut w, 40, [false, false]);
    w.run(60);
    assert!(w.status.waiting_for.starts_with("calls: 1 of 40 canary calls, 30 of 900 stable"), "{}", w.status.waiting_for);
    assert!(w.status.waiting_for.contains("below odds ratio 4"), "{}", w.status.waiting_for);
    look(&mut w, 41, [true, false]);
    w.until_weight(25);
    w.run(120);
    assert!(w.status.waiting_for.contains("below odds ratio 3"), "it waits with the margin of 25 %: {}", w.status.waiting_for);
    assert_eq!(w.status.gates[0].verdict, None, "it passes at 5 % only");
    look(&mut w, 60, [true, false]);
    w.run(120);
    assert_eq!(w.status.promotion, None, "{}", w.describe());
    look(&mut w, 90, [true, true]);
    w.until("promoted", |w| w.status.phase == Phase::Healthy && w.status.stable_revision == w.status.canary_revision);
}

#[test]
fn with_all_calls_on_the_canary_what_has_passed_goes_on_passing() {
    let at_100 = |passes_before: bool| {
        let mut w = World::releasing(spec(Some(vec![weight(5), pause(Some(60)), weight(100)]), Some(gates(vec![counting("calls")]))));
        w.pace = 1_000_000;
        w.until_weight(5);
        w.until("measured", |w| w.seen.runs.iter().any(|r| r.kind == RunKind::Background));
        look(&mut w, 90, [true, passes_before]);
        w.until_weight(100);
        w.run(60);
        assert_eq!(w.status.promotion, None, "data from before the weight change is not enough: {}", w.describe());
        look(&mut w, 91, [true, false]);
        w.run(120);
        w
    };
    let mut w = at_100(true);
    w.until("promoted", |w| w.status.stable_revision == w.status.canary_revision);
    let w = at_100(false);
    assert!(w.status.promotion.is_none() && w.applied() == 100, "{}", w.describe());
}

#[test]
fn patience_counts_from_the_weight_change() {
    for (policy, phase) in
        [(OnInconclusive::Pause, Phase::Paused), (OnInconclusive::Abort, Phase::Degraded), (OnInconclusive::Extend, Phase::Progressing)]
    {
        let mut gate = counting("calls");
        gate.on_inconclusive = policy;
        let mut w = releasing(gate);
        look(&mut w, 1, [false, false]);
        w.run(3500);
        assert_eq!(w.status.phase, Phase::Progressing, "{policy:?}");
        look(&mut w, 40, [true, false]);
        w.until_weight(25);
        w.run(3400);
        assert_eq!((w.status.phase, w.applied()), (Phase::Progressing, 25), "{policy:?}: an hour from here on");
        w.run(300);
        assert_eq!(w.status.phase, phase, "{policy:?}\n{}", w.describe());
        if policy == OnInconclusive::Pause {
            assert_eq!(w.status.gates[0].verdict, Some(Verdict::Inconclusive));
            assert!(w.status.waiting_for.contains("longer than maxDuration 1h"), "{}", w.status.waiting_for);
            look(&mut w, 90, [true, true]);
            w.until_weight(0);
        }
    }
    // A missed scrape after hours of passing is no reason for anything.
    let mut gate = counting("calls");
    gate.on_inconclusive = OnInconclusive::Abort;
    let mut w = releasing(gate);
    assert!(w.command(Verb::Pause).0);
    look(&mut w, 90, [true, true]);
    w.run(9000);
    let (now, gate) = (w.seen.now, &mut w.seen.runs[0].gates[0]);
    (gate.passing, gate.undecided_since) = (false, Some(Time(now)));
    w.run(1800);
    assert_eq!((w.status.phase, w.applied()), (Phase::Paused, 5), "{}", w.describe());
    w.run(1900);
    assert_eq!(w.status.phase, Phase::Degraded, "no counts for an hour are one");
    let mut signal = counting("calls");
    signal.mode = Mode::Signal;
    let mut w = World::releasing(spec(Some(vec![weight(5), pause(None)]), Some(gates(vec![signal, super::specs::gate("live")]))));
    w.until_phase(Phase::Paused);
    w.run(5000);
    assert!(w.status.gates.iter().all(|g| g.consequence.is_none()), "a signal that is undecided holds nothing");
}

#[test]
fn counts_are_told_once_a_minute_while_they_are_waited_for_and_not_at_rest() {
    let mut w = releasing(counting("calls"));
    let writes = |w: &mut World, secs: usize| {
        let mut changes = 0;
        for i in 0..secs / 10 {
            look(w, i64::try_from(i).unwrap(), [false, false]);
            let before = w.status.clone();
            w.run(10);
            changes += usize::from(w.status != before);
        }
        changes
    };
    let waiting = writes(&mut w, 1200);
    assert!((15..=22).contains(&waiting), "{waiting} in 20 minutes");
    w.run(120);
    let told = w.status.clone();
    w.run(600);
    assert_eq!(w.status, told, "ten minutes without a look: there is nothing new to tell");
    assert!(w.command(Verb::Pause).0);
    w.run(60);
    assert_eq!(writes(&mut w, 1200), 0, "{}", w.describe());
    // A verdict is told at once.
    look(&mut w, 99, [true, false]);
    w.pass();
    assert_eq!(w.status.gates[0].verdict, Some(Verdict::Pass));
}

#[test]
fn an_edited_gate_begins_anew_and_the_risk_is_counted() {
    let mut w = releasing(counting("calls"));
    assert_eq!(w.status.false_abort_spent, Some(0.01));
    look(&mut w, 40, [false, false]);
    w.run(30);
    let runs = |w: &World| w.seen.runs.iter().filter(|r| r.kind == RunKind::Background).count();
    assert_eq!(runs(&w), 1, "what has not changed goes on");
    w.edit(|s| s.analysis.as_mut().unwrap().gates[0].compare.as_mut().unwrap().certainty.grid = vec![2.0]);
    w.run(30);
    assert_eq!((runs(&w), w.decided("EvidenceRestarted")), (2, 1), "{}", w.describe());
    assert_eq!(w.status.false_abort_spent, Some(0.02));
    assert!(w.status.gates.iter().all(|g| g.told_at.is_none()), "the new run has counted nothing yet");
    assert!(w.command(Verb::Abort).0);
    w.settle();
    assert!(w.command(Verb::Retry).0);
    w.until_weight(5);
    assert_eq!((w.status.attempt, w.status.false_abort_spent), (2, Some(0.03)));
    w.apply_version(3);
    w.until_weight(5);
    w.run(30);
    assert_eq!(w.status.false_abort_spent, Some(0.01), "another revision has spent nothing");
}

#[test]
fn shares_go_into_the_run() {
    let mut first = counting("a");
    first.false_abort = Some(0.004);
    let w = World::releasing(spec(None, Some(gates(vec![first, counting("b"), counting("c")]))));
    let plan = w.plan();
    assert_eq!(plan.errors, []);
    let shares: Vec<(&str, f64)> = plan.shares.iter().map(|((_, name), share)| (name.as_str(), *share)).collect();
    assert_eq!(shares, [("a", 0.004), ("b", 0.003), ("c", 0.003)]);
    let mut w = w;
    w.until("a run", |w| !w.seen.runs.is_empty());
    let given: Vec<Option<f64>> = w.gates_of.values().flatten().map(|g| g.false_abort).collect();
    assert_eq!(given, [Some(0.004), Some(0.003), Some(0.003)]);
}

#[test]
fn gates_that_compare_belong_into_the_background() {
    let own = |gate: Gate| crate::api::rollout::Step { analysis: Some(gates(vec![gate])), ..Default::default() };
    let errors = |steps, background: Vec<Gate>| World::new(spec(Some(steps), Some(gates(background)))).plan().errors;
    let found = errors(vec![weight(5), own(counting("calls"))], vec![counting("live")]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].path, "spec.steps[1].analysis gate 0 (calls)");
    assert!(found[0].message.contains("put it into spec.analysis, and here write require: [calls]"), "{}", found[0].message);
    let limit: Gate = serde_json::from_value(serde_json::json!({ "name": "slo", "absolute": { "prometheus": { "address": "http://p" },
        "bad": "b", "total": "t", "maxRate": 0.1 } }))
    .unwrap();
    let w = World::new(spec(Some(vec![weight(5), own(limit.clone()), weight(50), own(limit)]), Some(gates(vec![counting("live")]))));
    let plan = w.plan();
    assert_eq!(plan.errors, []);
    let total: f64 = plan.shares.values().sum();
    assert!(plan.shares.len() == 3 && (total - 0.01).abs() < 1e-12, "each step's gate is one more test: {:?}", plan.shares);
    let mut greedy = counting("live");
    greedy.false_abort = Some(0.02);
    let found = errors(vec![weight(5)], vec![greedy]);
    assert!(
        found.iter().any(|e| e.path == "spec.analysis gate 0 (live) falseAbort" && e.message.contains("more than spec.falseAbort 0.01")),
        "{found:?}"
    );
}
