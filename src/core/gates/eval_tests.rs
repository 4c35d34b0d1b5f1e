//! Measurements of eval harnesses: suites that change, pairs, deadlines.

use serde_json::json;

use super::world::{World, threshold};
use super::*;
use crate::api::run::Verdict;
use crate::api::run::{Consequence, RunKind, Suite};
use crate::core::window::add;

fn suite(version: &str, seed: &str) -> Suite {
    Suite { name: Some("voice".into()), version: Some(version.into()), seed: Some(seed.into()), dataset: None }
}

fn measured(value: f64, suite: Suite) -> Outcome {
    Outcome::Eval(Eval { reading: Reading::Value(json!(value)), suite: Some(suite) })
}

fn pairs(table: (i64, i64, i64), suite: Suite) -> Outcome {
    let (pairs, stable_only, canary_only) = table;
    Outcome::Eval(Eval { reading: Reading::Pairs(Pairs { pairs, stable_only, canary_only }), suite: Some(suite) })
}

fn paired(fields: serde_json::Value) -> serde_json::Value {
    let mut paired = json!({ "web": { "url": "http://h/x" }, "stableOnly": "{$.b}", "canaryOnly": "{$.c}", "total": "{$.n}" });
    paired.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({ "name": "pairs", "falseAbort": 0.05, "paired": paired })
}

#[test]
fn another_suite_starts_the_count_anew_and_says_so() {
    let mut world = World::one(RunKind::Step, threshold(json!({ "count": 3, "interval": "1m", "failureLimit": 1 })));
    world.answer(0, &measured(812.0, suite("1", "7"))).answer(0, &measured(700.0, suite("1", "7")));
    assert_eq!((world.gate().counts.pass, world.gate().counts.fail), (1, 1));
    world.answer(0, &measured(700.0, suite("2", "7")));
    let gate = world.gate();
    assert_eq!((gate.counts.pass, gate.counts.fail, gate.counts.set_aside), (1, 0, 2));
    let message = "value 700.0 meets result <= 800 [suite voice, version 2, seed 7] (the suite was voice, version 1, seed 7 before: \
                   counting starts anew) (1 of 3 measurements)";
    assert_eq!(gate.message, message);
    assert_eq!(gate.measurements.iter().map(|m| m.suite.clone().unwrap().version.unwrap()).collect::<Vec<_>>(), ["1", "1", "2"]);
    assert_eq!(gate.started_at, Some(gate.measurements[2].started_at.clone()), "minDuration counts from the new suite");
    world.answer(0, &measured(700.0, suite("2", "7"))).answer(0, &measured(700.0, suite("2", "7")));
    assert_eq!(world.status.phase, RunPhase::Pass);
    let distinct: std::collections::BTreeSet<_> = world.keys.iter().collect();
    assert_eq!(distinct.len(), 5, "a key that was used never comes again");
}

#[test]
fn another_seed_is_another_suite_for_a_threshold_and_a_fresh_draw_for_a_paired_gate() {
    let mut world = World::one(RunKind::Step, threshold(json!({ "count": 2, "interval": "1m" })));
    world.answer(0, &measured(700.0, suite("1", "7"))).answer(0, &measured(700.0, suite("1", "8")));
    assert_eq!((world.status.phase, world.gate().counts.pass), (RunPhase::Running, 1));

    let mut world = World::one(RunKind::Step, paired(json!({ "interval": "1m" })));
    world.answer(0, &pairs((50, 4, 0), suite("1", "7"))).answer(0, &pairs((50, 4, 0), suite("1", "7")));
    assert_eq!((world.gate().counts.inconclusive, world.gate().value.as_deref()), (2, Some("4 lost, 0 won of 50")));
    assert_eq!(world.gate().measurements[1].suite.as_ref().unwrap().seed.as_deref(), Some("7"));
    world.answer(0, &pairs((50, 3, 0), suite("1", "8")));
    assert_eq!(world.state(), (RunPhase::Fail, Some(Verdict::Fail), Some(Consequence::Abort)));
    assert!(world.gate().message.contains("evidence of harm 31.9x, abort line 20.0x"), "{}", world.gate().message);
}

#[test]
fn a_paired_gate_passes_on_evidence_and_forgets_another_suite() {
    let mut world = World::one(RunKind::Step, paired(json!({})));
    world.answer(0, &pairs((100, 0, 0), suite("1", "7")));
    assert_eq!((world.status.phase, world.gate().verdict), (RunPhase::Pass, Some(Verdict::Pass)));

    let mut world = World::one(RunKind::Step, paired(json!({})));
    world.answer(0, &pairs((60, 6, 0), suite("1", "7"))).answer(0, &pairs((60, 1, 0), suite("2", "8")));
    assert_eq!((world.status.phase, world.gate().value.as_deref()), (RunPhase::Running, Some("1 lost, 0 won of 60")));
    assert!(world.gate().message.contains("the suite was voice, version 1 before: counting starts anew"), "{}", world.gate().message);

    let mut world = World::one(RunKind::Background, paired(json!({ "interval": "10m" })));
    world.answer(0, &pairs((100, 0, 0), suite("1", "7"))).answer(0, &pairs((100, 0, 0), suite("1", "8")));
    assert_eq!((world.status.phase, world.gate().passing), (RunPhase::Running, true));
}

#[test]
fn what_does_not_belong_to_a_gate_is_an_error() {
    let nothing = Outcome::Eval(Eval { reading: Reading::NoData("no scenario ran".into()), suite: None });
    let mut world = World::one(RunKind::Step, paired(json!({})));
    world.answer(0, &Outcome::Value(json!(1))).answer(0, &nothing).answer(0, &measured(1.0, suite("1", "7")));
    assert_eq!((world.gate().counts.error, world.gate().counts.inconclusive, world.status.phase), (2, 1, RunPhase::Running));
    let mut world = World::one(RunKind::Step, threshold(json!({})));
    world.answer(0, &pairs((100, 0, 0), suite("1", "7")));
    assert_eq!((world.gate().counts.error, world.status.phase), (1, RunPhase::Running));
}

#[test]
fn a_run_is_given_up_at_its_deadline() {
    let run = json!({ "done": "result.ok", "deadline": "20m" });
    let web = json!({ "url": "http://h/x", "run": run });
    for gate in [threshold(json!({ "provider": { "web": web } })), paired(json!({ "web": web }))] {
        let mut world = World::one(RunKind::Step, gate);
        let plan = world.plan();
        let key = plan.measure[0].key.clone();
        assert_eq!(plan.measure[0].deadline, add(world.now, Duration::from_secs(1200)));
        let told = Outcome::Running { handle: "h".into(), trouble: Some("HTTP 503".into()) };
        world.status = finish(&world.spec, &world.status, 0, &key, &told, world.now, 0.5).unwrap();
        assert_eq!(world.gate().in_flight.as_ref().unwrap().trouble.as_deref(), Some("HTTP 503"));
        let over = advance(&world.spec, &world.status, &[], add(world.now, Duration::from_secs(1200)), &mut |_| true);
        let message = &over.status.gates[0].measurements[0].message;
        assert_eq!(message, "the run was not done within its deadline of 20m; the last poll failed: HTTP 503");
        assert_eq!((over.cancel[0].key.as_str(), over.cancel[0].handle.as_deref()), (key.as_str(), Some("h")));
        let back = Outcome::Running { handle: "h".into(), trouble: None };
        world.status = finish(&world.spec, &world.status, 0, &key, &back, world.now, 0.5).unwrap();
        assert_eq!(world.gate().in_flight.as_ref().unwrap().trouble, None);
    }
}
