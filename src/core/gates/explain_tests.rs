//! A run that explains an abort: asked once, charged once, and never a pass.

use jiff::Timestamp;
use serde_json::json;

use super::judged::{budgeted, spent, votes};
use super::world::*;
use super::*;
use crate::api::judge::{Spent, Vote};
use crate::api::run::Verdict;
use crate::api::run::{Explains, RunKind};
use crate::core::judge::Judgement;

fn explaining(gate: serde_json::Value) -> World {
    let mut world = World::one(RunKind::Explanation, gate);
    for gate in &mut world.spec.gates {
        gate.gate = only_explains(&gate.gate);
    }
    (world.spec.step, world.spec.traffic_since) = (None, None);
    world.spec.explains = Some(Explains { gate: "p95".into(), reason: "too slow".into(), gates: vec![] });
    world
}

fn tokens() -> Tokens {
    Tokens { input: 1000, output: 100 }
}

fn ended(world: &World, by: Timestamp) -> bool {
    let later = next(&world.spec, &world.status, window::add(by, Duration::from_secs(24 * 3600)), &mut |_| true);
    world.status.phase == RunPhase::Done && later.measure.is_empty() && later.wake_at.is_none() && later.status == world.status
}

#[test]
fn whatever_a_judge_says_of_an_abort_is_no_verdict() {
    for says in [Verdict::Pass, Verdict::Fail, Verdict::Inconclusive] {
        for outcome in [votes(says, &[Vote::Unsure], tokens(), 0), Outcome::Value(json!(1))] {
            let mut world = explaining(judge(json!({ "votes": 3, "count": 5, "interval": "10s" })));
            world.answer(0, &outcome);
            let gate = world.gate();
            assert!(ended(&world, world.now), "{says:?}: {:?}", world.status);
            assert_eq!((gate.counts.pass, gate.counts.fail, gate.verdict, gate.consequence), (0, 0, None, None));
            assert!(!gate.passing && gate.last_pass_at.is_none());
            assert_eq!(explanation(&world.status.gates).is_ok(), !matches!(outcome, Outcome::Value(_)), "{:?}", gate);
        }
    }
    let mut world = explaining(judge(json!({})));
    world.answer(0, &Outcome::Votes(Box::new(Judgement::of_one(Vote::Pass, "more tool calls", tokens()))));
    assert_eq!(explanation(&world.status.gates), Ok("more tool calls".into()));
}

#[test]
fn it_is_asked_once_and_not_again() {
    let failed = |tokens| Outcome::Failed { message: "HTTP 529".into(), retry_after: Some(Duration::from_secs(7)), tokens };
    for outcome in [failed(None), failed(Some(Tokens::default())), votes(Verdict::Error, &[Vote::Invalid], tokens(), 1)] {
        let mut world = explaining(judge(json!({ "count": 3, "interval": "10s" })));
        world.answer(0, &outcome);
        assert!(ended(&world, world.now), "{:?}", world.status);
        let why = explanation(&world.status.gates).unwrap_err();
        assert!(why == "HTTP 529" || why == "judge: Error", "{why}");
    }
    // No answer at all.
    let mut world = explaining(judge(json!({ "timeout": "30s" })));
    world.plan();
    world.wait(3600);
    assert!(ended(&world, world.now), "{:?}", world.status);
    assert!(explanation(&world.status.gates).unwrap_err().contains("no result within"));
}

#[test]
fn it_is_charged_once_whatever_dies() {
    let prices = json!({ "inputPerMillion": 1, "outputPerMillion": 5 });
    // Three votes a verdict; an explanation takes one.
    let mut world = explaining(budgeted(json!({ "dollars": 1, "prices": prices }), json!({ "votes": 3 })));
    let first = world.plan();
    assert_eq!(spent(&world), (1, 15_000), "taken with the write that comes before the question");
    for _ in 0..3 {
        let again = world.plan();
        assert_eq!((&again.measure[0].key, spent(&world)), (&first.measure[0].key, (1, 15_000)));
    }
    let key = first.measure[0].key.clone();
    world.answer(0, &votes(Verdict::Inconclusive, &[Vote::Unsure], tokens(), 0));
    assert_eq!(spent(&world), (1, 1500));
    let late = finish(&world.spec, &world.status, 0, &key, &votes(Verdict::Pass, &[Vote::Pass], tokens(), 0), world.now, 0.5);
    assert!(late.is_none() && ended(&world, world.now));
    // The gate's own measurements have other keys.
    let step = World::one(RunKind::Step, judge(json!({})));
    assert_ne!(measurement_key(&step.spec, "judge", 1), measurement_key(&world.spec, "judge", 1));
}

#[test]
fn a_spent_budget_asks_nobody() {
    let mut world = explaining(budgeted(json!({ "verdicts": 2 }), json!({})));
    world.status = next(&world.spec, &world.status, world.now, &mut |_| false).status;
    let other = Spent { verdicts: 2, ..Spent::default() };
    crate::core::judge::budget::set_earlier(&mut world.status.gates[0], &[other]);
    let plan = world.plan();
    assert!(plan.measure.is_empty() && ended(&world, world.now), "{:?}", world.status);
    assert!(explanation(&world.status.gates).unwrap_err().contains("budget of 2 verdicts is spent"));
    assert_eq!(spent(&world).0, 0);
}

#[test]
fn a_stopped_question_stays_stopped() {
    let mut world = explaining(judge(json!({})));
    let plan = world.plan();
    world.spec.stop = true;
    let late = votes(Verdict::Pass, &[Vote::Pass], tokens(), 0);
    assert!(finish(&world.spec, &world.status, 0, &plan.measure[0].key, &late, world.now, 0.5).is_none());
    world.plan();
    assert_eq!(world.status.phase, RunPhase::Stopped);
}
