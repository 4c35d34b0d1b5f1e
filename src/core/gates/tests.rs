use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::judged::votes;
use super::world::{World, judge, of, start, threshold, with};
use super::*;
use crate::api::analysis::Mode;
use crate::api::judge::Vote;
use crate::api::run::Verdict;
use crate::api::run::{Consequence, RunKind};
use crate::core::window::add;

const RUNNING: (RunPhase, Option<Verdict>, Option<Consequence>) = (RunPhase::Running, None, None);
const PASSED: (RunPhase, Option<Verdict>, Option<Consequence>) = (RunPhase::Pass, Some(Verdict::Pass), None);
const ABORTED: (RunPhase, Option<Verdict>, Option<Consequence>) = (RunPhase::Fail, Some(Verdict::Fail), Some(Consequence::Abort));

#[test]
fn hold_counting_in_steps() {
    let many = |count: i32, limit: i32| threshold(json!({ "count": count, "interval": "30s", "failureLimit": limit }));
    let row = |n: i32| threshold(json!({ "interval": "30s", "failureLimit": -1, "consecutiveSuccessLimit": n }));
    for (gate, answers, expected) in [
        (threshold(json!({})), "P", PASSED),
        (threshold(json!({ "interval": "30s" })), "P", PASSED),
        (threshold(json!({})), "F", ABORTED),
        (threshold(json!({})), "EIEP", PASSED),
        (many(3, 0), "PP", RUNNING),
        (many(3, 0), "PPP", PASSED),
        (many(3, 0), "PEIPEP", PASSED),
        (many(3, 0), "PF", ABORTED),
        (many(3, 1), "PFP", PASSED),
        (many(3, 1), "FPF", ABORTED),
        (many(2, -1), "FF", RUNNING),
        (many(2, -1), "FFP", PASSED),
        (many(1, 1), "F", RUNNING),
        (many(1, 1), "FP", PASSED),
        (row(2), "PFP", RUNNING),
        (row(2), "PFPP", PASSED),
        (row(2), "PEPP", PASSED),
        (threshold(json!({ "sentinel": true, "failureLimit": 5, "count": 9, "interval": "1s" })), "F", ABORTED),
    ] {
        let mut world = World::one(RunKind::Step, gate.clone());
        assert_eq!(world.answers(answers).state(), expected, "{answers} {gate}");
    }
}

#[test]
fn argo_counting_is_argos() {
    let argo = |fields: serde_json::Value| {
        let mut base = json!({ "counting": "argo", "interval": "30s", "failureCondition": "result > 1000" });
        base.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        with(threshold(base), json!({ "onError": "Abort" }))
    };
    let error = (RunPhase::Running, Some(Verdict::Error), Some(Consequence::Abort));
    let undecided = (RunPhase::Running, Some(Verdict::Inconclusive), Some(Consequence::Pause));
    for (fields, answers, expected) in [
        (json!({ "count": 3 }), "PPP", PASSED),
        (json!({ "count": 3 }), "EEEE", RUNNING),
        (json!({ "count": 3 }), "EEEEE", error),
        (json!({ "count": 3 }), "EEEEPEEEEPEEEEP", PASSED),
        (json!({ "count": 3, "consecutiveErrorLimit": 0 }), "PE", error),
        (json!({ "count": 1, "consecutiveErrorLimit": -1 }), "EEEEEEEEP", PASSED),
        (json!({ "count": 3 }), "PI", undecided),
        (json!({ "count": 3, "inconclusiveLimit": 1 }), "PIP", PASSED),
        (json!({ "count": 3, "inconclusiveLimit": 1 }), "PII", undecided),
        // Argo passes here; without a measurement that passed nothing does.
        (json!({ "count": 2, "inconclusiveLimit": -1 }), "II", undecided),
        (json!({ "count": 4, "consecutiveSuccessLimit": 3, "inconclusiveLimit": 4 }), "PPP", PASSED),
        (json!({ "count": 4, "consecutiveSuccessLimit": 3, "inconclusiveLimit": 4 }), "PPIP", undecided),
    ] {
        let mut world = World::one(RunKind::Step, argo(fields.clone()));
        assert_eq!(world.answers(answers).state(), expected, "{answers} {fields}");
    }
    let fails = |fields: serde_json::Value| {
        let mut base = json!({ "counting": "argo", "interval": "30s" });
        base.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        World::one(RunKind::Step, threshold(base))
    };
    assert_eq!(fails(json!({ "count": 3, "failureLimit": 1 })).answers("PFP").state(), PASSED);
    assert_eq!(fails(json!({ "count": 3, "failureLimit": 1 })).answers("FF").state(), ABORTED);
    assert_eq!(fails(json!({ "count": 2, "failureLimit": -1, "consecutiveSuccessLimit": 2 })).answers("PF").state(), ABORTED);
    assert_eq!(fails(json!({ "count": 2, "failureLimit": -1 })).answers("FF").state(), undecided);
}

#[test]
fn errors_hold_then_pause_and_a_pass_clears_them() {
    let mut world = World::one(RunKind::Step, with(threshold(json!({})), json!({ "errorBudget": "60s" })));
    world.answers("EE");
    assert_eq!(world.state(), RUNNING);
    assert_eq!(world.gate().message, "HTTP 503 (error 2 in a row, 1m at most)");
    // Nobody answers any more: the budget runs out all the same.
    world.answers("EEE");
    world.wait(30);
    assert_eq!(world.state(), (RunPhase::Running, Some(Verdict::Error), Some(Consequence::Pause)));
    assert_eq!(world.gate().message, "the provider fails since 10:00:00Z, longer than errorBudget 1m: HTTP 503");
    assert_eq!(world.status.message, format!("p95: {}", world.gate().message));
    world.answers("E");
    assert_eq!(world.gate().verdict, Some(Verdict::Error));
    assert_eq!(world.answers("P").state(), PASSED);

    // An undecided answer ends the outage too, but does not pass.
    let mut world = World::one(RunKind::Step, with(threshold(json!({})), json!({ "errorBudget": "0s" })));
    assert_eq!(world.answers("E").gate().verdict, Some(Verdict::Error));
    assert_eq!(world.answers("I").state(), RUNNING);

    // An abort is not taken back.
    let mut world = World::one(RunKind::Step, with(threshold(json!({})), json!({ "errorBudget": "0s", "onError": "Abort" })));
    assert_eq!(world.answers("E").state(), (RunPhase::Running, Some(Verdict::Error), Some(Consequence::Abort)));
    assert_eq!(world.plan().wake_at, None);
}

#[test]
fn back_off_doubles_and_honours_retry_after() {
    let mut world = World::one(RunKind::Step, threshold(json!({ "interval": "1h" })));
    let mut waits = Vec::new();
    for _ in 0..6 {
        world.answer(0, &of('E'));
        waits.push(world.gate().next_at.as_ref().unwrap().0.duration_since(world.now).as_secs());
    }
    assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
    world.answer(0, &Outcome::Failed { message: "429".into(), retry_after: Some(Duration::from_secs(120)), tokens: None });
    assert_eq!(world.gate().next_at.as_ref().unwrap().0.duration_since(world.now).as_secs(), 120);
    world.answer(0, &Outcome::Failed { message: "429".into(), retry_after: Some(Duration::from_secs(86_400)), tokens: None });
    assert_eq!(world.gate().next_at.as_ref().unwrap().0.duration_since(world.now).as_secs(), 900);
}

#[test]
fn undecided_holds_then_pauses_and_never_passes() {
    let gate = |on: &str| with(threshold(json!({ "interval": "30s" })), json!({ "maxDuration": "2m", "onInconclusive": on }));
    let mut world = World::one(RunKind::Step, gate("Pause"));
    assert_eq!(world.answers("IIEI").state(), RUNNING);
    world.answers("II");
    assert_eq!(world.state(), (RunPhase::Running, Some(Verdict::Inconclusive), Some(Consequence::Pause)));
    assert_eq!(world.gate().message, "undecided since 10:00:00Z, longer than maxDuration 2m: no series");
    assert_eq!(world.answers("P").state(), PASSED);

    let mut world = World::one(RunKind::Step, gate("Extend"));
    assert_eq!(world.answers("IIIIIIIIIIII").state(), RUNNING);
    let mut world = World::one(RunKind::Step, gate("Abort"));
    assert_eq!(world.answers("IIII").wait(30).state(), (RunPhase::Running, Some(Verdict::Inconclusive), Some(Consequence::Abort)));

    // NaN is undecided as well.
    let mut world = World::one(RunKind::Step, gate("Pause"));
    world.answer(0, &Outcome::Value(json!("NaN")));
    assert_eq!((world.state(), world.gate().counts.inconclusive), (RUNNING, 1));

    // All measurements are taken and none passed.
    let mut world = World::one(
        RunKind::Step,
        with(threshold(json!({ "count": 2, "interval": "30s", "failureLimit": -1 })), json!({ "maxDuration": "1m" })),
    );
    assert_eq!(world.answers("FFFF").gate().verdict, Some(Verdict::Inconclusive));
    assert_eq!(world.answers("P").state(), PASSED);
}

#[test]
fn min_duration_is_waited_out() {
    let mut world = World::one(RunKind::Step, with(threshold(json!({ "count": 2, "interval": "30s" })), json!({ "minDuration": "5m" })));
    assert_eq!(world.answers("PPPP").state(), RUNNING);
    assert_eq!(world.answers("PPPPPP").state(), RUNNING);
    assert_eq!(world.passed(), 270);
    assert_eq!(world.wait(30).state(), PASSED);

    let mut world = World::one(RunKind::Step, with(threshold(json!({ "count": 2, "interval": "30s" })), json!({ "minDuration": "5m" })));
    assert_eq!(world.answers("PPPF").state(), ABORTED);

    // Without an interval nothing more is measured; the gate passes when the time has come.
    let mut world = World::one(RunKind::Step, with(threshold(json!({})), json!({ "minDuration": "5m" })));
    assert_eq!(world.answers("P").state(), RUNNING);
    assert_eq!(world.plan().wake_at, Some(add(start(), Duration::from_secs(300))));
    assert_eq!(world.wait(300).state(), PASSED);
}

#[test]
fn background_gates_go_on() {
    let mut world = World::one(RunKind::Background, threshold(json!({ "interval": "30s" })));
    assert_eq!(world.answers("PPPPP").state(), RUNNING);
    assert!(world.gate().passing);
    assert_eq!(world.gate().last_pass_at, Some(Time(add(start(), Duration::from_secs(120)))));
    world.answers("I");
    assert!(!world.gate().passing);
    assert_eq!(world.answers("F").state(), ABORTED);
    assert_eq!(World::one(RunKind::Background, threshold(json!({}))).answers("P").state(), PASSED);
    assert_eq!(World::one(RunKind::Background, threshold(json!({ "interval": "30s", "count": 2 }))).answers("PP").state(), PASSED);
}

#[test]
fn modes_decide_what_counts() {
    let named = |name: &str, mode: &str| with(threshold(json!({})), json!({ "name": name, "mode": mode }));
    let mut world = World::new(RunKind::Step, vec![named("a", "enforce"), named("b", "dryRun"), named("c", "signal")]);
    world.answer(1, &of('F'));
    assert_eq!(
        (world.status.phase, world.status.gates[1].verdict, world.status.gates[1].consequence),
        (RunPhase::Running, Some(Verdict::Fail), None)
    );
    world.answer(0, &of('P'));
    assert_eq!(world.status.phase, RunPhase::Pass);
    assert_eq!(world.status.message, "every gate passed: a=700, c=-");

    let mut world = World::new(RunKind::Step, vec![named("a", "enforce"), named("c", "signal")]);
    world.answer(1, &of('F'));
    assert_eq!(world.status.phase, RunPhase::Fail);
    assert_eq!(world.status.message, "c: value 812.4 does not meet result <= 800");

    // A signal's outage holds nothing, and a run without an enforcing gate never passes.
    let mut world = World::one(RunKind::Step, with(threshold(json!({})), json!({ "mode": "signal", "errorBudget": "0s" })));
    assert_eq!(world.answers("E").state(), (RunPhase::Running, Some(Verdict::Error), None));
    assert_eq!(world.answers("P").status.phase, RunPhase::Running);

    // In the background a signal still matters after everything that is enforced has passed.
    let endless = with(threshold(json!({ "interval": "30s" })), json!({ "name": "c", "mode": "signal" }));
    let mut world = World::new(RunKind::Background, vec![named("a", "enforce"), endless]);
    world.answer(0, &of('P')).answer(1, &of('P'));
    assert_eq!(world.status.phase, RunPhase::Running);
    world.answer(1, &of('F'));
    assert_eq!(world.status.phase, RunPhase::Fail);

    let mut world = World::one(RunKind::Step, with(threshold(json!({})), json!({ "onFail": "Pause" })));
    assert_eq!(world.answers("F").state(), (RunPhase::Fail, Some(Verdict::Fail), Some(Consequence::Pause)));
    let mut world = World::one(RunKind::Step, with(threshold(json!({ "sentinel": true })), json!({ "onFail": "Pause" })));
    assert_eq!(world.answers("F").state(), ABORTED);
}

#[test]
fn judges_wait_for_values_and_give_verdicts() {
    let tokens = Tokens { input: 100, output: 5 };
    let say = |verdict| votes(verdict, &[Vote::Pass], tokens, 0);
    let mut world = World::new(RunKind::Step, vec![threshold(json!({})), judge(json!({ "count": 2, "interval": "10s" }))]);
    assert_eq!(world.plan().measure.iter().map(|w| w.gate).collect::<Vec<_>>(), [0]);
    assert_eq!(world.status.gates[1].message, "waits for the first values of p95");
    world.answer(0, &of('P')).answer(1, &say(Verdict::Pass)).answer(1, &say(Verdict::Inconclusive));
    assert_eq!(world.status.gates[1].message, "judge: Inconclusive (1 of 2 measurements)");
    assert_eq!(world.status.phase, RunPhase::Running);
    world.answer(1, &say(Verdict::Pass));
    assert_eq!((world.status.phase, world.status.gates[1].tokens), (RunPhase::Pass, Some(Tokens { input: 300, output: 15 })));

    let mut world = World::one(RunKind::Step, judge(json!({})));
    world.answer(0, &say(Verdict::Fail));
    assert_eq!(world.state(), ABORTED);
    // What is not a verdict is an Error.
    for outcome in [say(Verdict::Error), Outcome::Value(json!(true))] {
        let mut world = World::one(RunKind::Step, judge(json!({})));
        world.answer(0, &outcome);
        assert_eq!((world.state(), world.gate().counts.error), (RUNNING, 1));
    }
    let mut world = World::one(RunKind::Background, judge(json!({ "interval": "10m" })));
    world.answer(0, &say(Verdict::Pass)).answer(0, &say(Verdict::Pass));
    assert_eq!(world.status.phase, RunPhase::Running);
}

#[test]
fn first_measurement_waits_for_the_window() {
    let gate = json!({ "name": "p95", "threshold": { "successCondition": "result <= 800",
        "provider": { "prometheus": { "address": "http://p", "query": "rate(a{v=\"{{args.canary-hash}}\"}[{{args.window}}])" } } } });
    let mut world = World::one(RunKind::Step, gate);
    for (name, value) in [("canary-hash", "r2"), ("window", "5m")] {
        let arg =
            crate::api::run::RunArg { name: name.into(), value: Some(value.into()), secret_key_ref: None, in_operator_namespace: false };
        world.spec.gates[0].args.push(arg);
    }
    let plan = world.plan();
    assert_eq!((plan.measure.len(), plan.wake_at), (0, Some(add(start(), Duration::from_secs(315)))));
    assert_eq!(world.gate().message, "waits until 10:05:15Z: the query looks back 5m, and the weight changed at 10:00:00Z");
    assert_eq!(world.status.message, format!("p95: {}", world.gate().message));
    world.answers("P");
    assert_eq!((world.passed(), world.status.phase), (315, RunPhase::Pass));
}

#[test]
fn a_measurement_is_started_once_and_foreign_results_change_nothing() {
    let mut world = World::one(RunKind::Step, threshold(json!({ "count": 2, "interval": "30s" })));
    let key = world.plan().measure[0].key.clone();
    // After a crash the same key is measured again.
    let again = next(&world.spec, &world.status, add(world.now, Duration::from_secs(5)), &mut |_| true);
    assert_eq!((again.measure[0].key.as_str(), again.measure[0].handle.as_deref(), &again.status), (key.as_str(), None, &world.status));
    assert_eq!(finish(&world.spec, &world.status, 0, "another", &of('P'), world.now, 0.5), None);
    assert_eq!(finish(&world.spec, &world.status, 7, &key, &of('P'), world.now, 0.5), None);
    let running = Outcome::Running { handle: "h".into(), trouble: None };
    world.status = finish(&world.spec, &world.status, 0, &key, &running, world.now, 0.5).unwrap();
    assert_eq!(world.plan().measure[0].handle.as_deref(), Some("h"));
    let done = finish(&world.spec, &world.status, 0, &key, &of('P'), world.now, 0.5).unwrap();
    assert_eq!(finish(&world.spec, &done, 0, &key, &of('P'), world.now, 0.5), None, "a repeated result");
    world.status = done;
    world.answer(0, &of('P'));
    assert_ne!(world.keys[0], key, "each measurement has its own key");
}

#[test]
fn keys_differ_where_measurements_differ() {
    let spec = World::one(RunKind::Step, threshold(json!({}))).spec;
    let key = measurement_key(&spec, "p95", 1);
    assert_eq!((key.len(), &key), (32, &measurement_key(&spec, "p95", 1)));
    let change = |f: fn(&mut VoiceAnalysisRunSpec)| {
        let mut other = spec.clone();
        f(&mut other);
        measurement_key(&other, "p95", 1)
    };
    let others = [
        measurement_key(&spec, "p99", 1),
        measurement_key(&spec, "p95", 2),
        change(|s| s.attempt = 2),
        change(|s| s.revision = "r3".into()),
        change(|s| s.rollout_uid = "v".into()),
        change(|s| s.kind = RunKind::Background),
        change(|s| s.step = Some(2)),
        change(|s| s.weight = 25),
        change(|s| s.traffic_since = None),
    ];
    let distinct: std::collections::BTreeSet<_> = others.iter().chain([&key]).collect();
    assert_eq!(distinct.len(), others.len() + 1);
    assert_eq!(change(|s| s.stop = true), key);
    let hash = spec_hash(&spec);
    assert_eq!(spec_hash(&VoiceAnalysisRunSpec { stop: true, ..spec.clone() }), hash);
    assert_ne!(spec_hash(&VoiceAnalysisRunSpec { weight: 25, ..spec }), hash);
}

#[test]
fn a_lost_measurement_counts_as_an_error() {
    let mut world = World::one(RunKind::Step, threshold(json!({})));
    let key = world.plan().measure[0].key.clone();
    assert_eq!(world.plan().wake_at, Some(add(start(), Duration::from_secs(40))));
    world.wait(39);
    assert!(world.gate().in_flight.is_some());
    let before = world.status.clone();
    world.now = add(world.now, Duration::from_secs(1));
    let plan = advance(&world.spec, &before, &[], world.now, &mut |_| true);
    assert_eq!(plan.cancel.iter().map(|w| &w.key).collect::<Vec<_>>(), [&key]);
    assert_eq!(plan.status.gates[0].message, "no result within 40s (error 1 in a row, 5m at most)");
    let late = Finished { gate: 0, key, outcome: of('P') };
    assert_eq!(advance(&world.spec, &plan.status, &[late], world.now, &mut |_| true).status, plan.status);
}

#[test]
fn stop_ends_the_run_without_a_pass() {
    let mut world = World::new(RunKind::Step, vec![threshold(json!({})), judge(json!({}))]);
    world.answer(0, &of('P'));
    let key = world.plan().measure[0].key.clone();
    world.spec.stop = true;
    let verdict = votes(Verdict::Pass, &[Vote::Pass], Tokens::default(), 0);
    let finished = [Finished { gate: 1, key: key.clone(), outcome: verdict }];
    let plan = advance(&world.spec, &world.status, &finished, world.now, &mut |_| true);
    assert_eq!((plan.status.phase, plan.measure.len(), plan.wake_at), (RunPhase::Stopped, 0, None));
    assert_eq!(plan.status.gates[1].verdict, None);
    assert_eq!(plan.status.message, "stopped before a verdict");
    let plan = advance(&world.spec, &world.status, &[], world.now, &mut |_| true);
    assert_eq!(plan.cancel[0].key, key);
    let stopped = plan.status.clone();
    assert_eq!(next(&world.spec, &stopped, add(world.now, Duration::from_secs(9999)), &mut |_| true).status, stopped);
    // A run that has its verdict keeps it.
    let mut world = World::one(RunKind::Step, threshold(json!({})));
    world.answers("P");
    world.spec.stop = true;
    assert_eq!(world.plan().status.phase, RunPhase::Pass);
}

#[test]
fn a_start_without_room_changes_nothing_and_is_tried_again() {
    let mut world = World::one(RunKind::Step, threshold(json!({})));
    let plan = next(&world.spec, &world.status, world.now, &mut |_| false);
    assert_eq!((plan.measure.len(), plan.wake_at), (0, Some(add(start(), NO_ROOM))));
    world.status = plan.status.clone();
    assert_eq!(next(&world.spec, &world.status, add(start(), NO_ROOM), &mut |_| false).status, plan.status);
    assert_eq!(world.plan().measure.len(), 1);
}

#[test]
fn only_the_newest_measurements_are_kept() {
    let mut world = World::one(RunKind::Background, threshold(json!({ "interval": "30s" })));
    for _ in 0..25 {
        world.answer(0, &of('P'));
    }
    assert_eq!((world.gate().measurements.len(), world.gate().counts.pass), (MAX_MEASUREMENTS, 25));
    assert_eq!(world.gate().mode, Mode::Enforce);
    let (first, last) = (&world.gate().measurements[0], &world.gate().measurements[9]);
    assert!(first.finished_at.0 < last.finished_at.0);
    assert_eq!(last.message, "value 700 meets result <= 800");
}
