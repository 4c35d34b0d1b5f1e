//! Gates that are judges.

use serde_json::json;

use super::world::{World, judge, of, threshold};
use super::*;
use crate::api::judge::{JudgeRecord, Spent, Vote};
use crate::api::run::Verdict;
use crate::api::run::{Consequence, RunKind, Tokens};
use crate::core::judge::Judgement;

pub fn votes(verdict: Verdict, votes: &[Vote], tokens: Tokens, unknown: i32) -> Outcome {
    let record = JudgeRecord { votes: votes.to_vec(), tokens, ..JudgeRecord::default() };
    Outcome::Votes(Box::new(Judgement { verdict, message: format!("judge: {verdict:?}"), record, unknown, retry_after: None }))
}

fn pass() -> Outcome {
    votes(Verdict::Pass, &[Vote::Pass], Tokens { input: 1000, output: 100 }, 0)
}

/// $0.015 a verdict at most: 10,000 tokens in and 1,000 out.
pub fn budgeted(budget: serde_json::Value, fields: serde_json::Value) -> serde_json::Value {
    let mut all = json!({ "anthropic": { "model": "m", "maxTokens": 1000 }, "maxInputTokens": 10_000, "interval": "1m", "budget": budget });
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    judge(all)
}

pub fn spent(world: &World) -> (i32, i64) {
    world.gate().spent.map(|s: Spent| (s.verdicts, s.micro_dollars)).unwrap()
}

/// Whatever a judge says, and however often it says PASS, a gate beside it that has failed, is undecided or has no
/// data keeps the run from passing.
#[test]
fn a_judge_can_only_veto() {
    for other in ["F", "FI", "I", "E", "IE", ""] {
        for says in [Verdict::Pass, Verdict::Fail, Verdict::Inconclusive] {
            let mut world =
                World::new(RunKind::Step, vec![judge(json!({})), threshold(json!({ "failureLimit": 3, "count": 5, "interval": "1s" }))]);
            other.chars().for_each(|c| {
                world.answer(1, &of(c));
            });
            if !other.is_empty() {
                let vote = if says == Verdict::Pass { Vote::Pass } else { Vote::Fail };
                world.answer(0, &votes(says, &[vote], Tokens::default(), 0));
            }
            world.wait(7200);
            assert_ne!(world.status.phase, RunPhase::Pass, "{other} {says:?}");
            if says == Verdict::Fail && !other.is_empty() {
                assert_eq!(world.status.phase, RunPhase::Fail);
            }
        }
    }
    // And with the other gate's pass it passes, so that the above shows something.
    let mut world = World::new(RunKind::Step, vec![judge(json!({})), threshold(json!({}))]);
    world.answer(1, &of('P')).answer(0, &pass());
    assert_eq!(world.status.phase, RunPhase::Pass);
}

#[test]
fn the_record_is_kept_with_the_measurement() {
    let mut world = World::one(RunKind::Step, judge(json!({})));
    world.answer(0, &votes(Verdict::Error, &[Vote::Pass, Vote::Invalid], Tokens { input: 7, output: 1 }, 0));
    let measurement = &world.gate().measurements[0];
    assert_eq!((measurement.verdict, measurement.value.as_deref()), (Verdict::Error, None));
    assert_eq!(measurement.judge.as_ref().unwrap().votes, [Vote::Pass, Vote::Invalid]);
    assert_eq!(world.gate().tokens, Some(Tokens { input: 7, output: 1 }));
    world.answer(0, &pass());
    assert_eq!((world.gate().value.as_deref(), world.gate().message.as_str()), (Some("PASS"), "judge: Pass"));
}

#[test]
fn money_is_taken_before_and_a_crash_takes_it_once() {
    let prices = json!({ "inputPerMillion": 1, "outputPerMillion": 5 });
    let mut world = World::one(RunKind::Step, budgeted(json!({ "dollars": 1, "prices": prices }), json!({ "count": 3 })));
    let plan = world.plan();
    assert_eq!((plan.measure.len(), spent(&world)), (1, (1, 15_000)), "taken with the write that comes before the question");
    // The process dies; the next one asks under the same key and takes nothing more.
    for _ in 0..3 {
        let again = world.plan();
        assert_eq!((&again.measure[0].key, spent(&world)), (&plan.measure[0].key, (1, 15_000)));
    }
    world.answer(0, &pass());
    assert_eq!(spent(&world), (1, 1500), "what was not used comes back");
    world.plan();
    let late = finish(&world.spec, &world.status, 0, &plan.measure[0].key, &pass(), world.now, 0.5);
    assert!(late.is_none(), "a late answer of the first process settles nothing twice");
    // Nothing is known about a question that was never answered: it counts in full.
    world.wait(61);
    world.wait(3600);
    assert_eq!(spent(&world).1 % 15_000, 1500);
    assert!(spent(&world).1 >= 16_500 && world.gate().counts.error >= 1, "{:?}", world.gate());
    // Evidence that is missing costs nothing.
    let before = spent(&world);
    let free = Outcome::Failed { message: "no pod".into(), retry_after: None, tokens: Some(Tokens::default()) };
    let open = world.gate().in_flight.is_some();
    world.answer(0, &free);
    let after = spent(&world);
    let given_back = if open { 15_000 } else { 0 };
    assert_eq!(after, (before.0 - i32::from(open), before.1 - given_back));
}

#[test]
fn a_spent_budget_holds_with_a_sentence() {
    let mut world = World::one(RunKind::Step, budgeted(json!({ "verdicts": 2 }), json!({ "count": 3 })));
    world.answer(0, &pass()).answer(0, &pass());
    world.wait(120);
    assert_eq!((world.gate().counts.pass, world.gate().spent.unwrap().verdicts), (2, 2));
    assert!(world.gate().counts.inconclusive >= 1 && world.gate().in_flight.is_none(), "{:?}", world.gate());
    assert!(world.gate().message.contains("the judge's budget of 2 verdicts is spent"), "{}", world.gate().message);
    for _ in 0..80 {
        world.wait(60);
    }
    assert_eq!(world.state(), (RunPhase::Running, Some(Verdict::Inconclusive), Some(Consequence::Pause)));
    assert_eq!(world.gate().spent.unwrap().verdicts, 2, "not being asked costs nothing");

    // What the release spent in other runs counts too.
    let mut world = World::one(RunKind::Step, budgeted(json!({ "verdicts": 2 }), json!({})));
    world.status = next(&world.spec, &world.status, world.now, &mut |_| false).status;
    let other = Spent { verdicts: 2, ..Spent::default() };
    crate::core::judge::budget::set_earlier(&mut world.status.gates[0], &[other]);
    world.wait(1);
    assert_eq!((world.gate().counts.inconclusive, world.plan().measure.len()), (1, 0));
}
