//! A judge says why a canary was taken back: afterwards, once, and without a say.

use super::specs::*;
use super::world::{Luck, Say, World, short};
use crate::api::VoiceAnalysisRunSpec;
use crate::api::action::Verb;
use crate::api::run::{RunKind, RunPhase};
use crate::api::status::Phase;
use crate::core::intent::Intent;

/// A release of the article that is aborted at 25 % by `p95`.
fn aborted() -> World {
    let mut w = World::releasing(spec(Some(article()), None));
    w.until_weight(25);
    w.script.insert("p95".into(), Say::Fail);
    w.until("abort", |w| w.status.abort.is_some());
    w
}

fn asked(w: &World) -> Vec<&crate::core::observe::RunSeen> {
    w.seen.runs.iter().filter(|r| r.kind == RunKind::Explanation).collect()
}

fn explanation(w: &World) -> Option<&str> {
    w.status.abort.as_ref().and_then(|a| a.explanation.as_deref())
}

/// The spec of the explaining run that a pass asks for.
fn wanted(intents: &[Intent]) -> Option<(String, VoiceAnalysisRunSpec)> {
    intents.iter().find_map(|i| match i {
        Intent::CreateRun { name, spec } if spec.kind == RunKind::Explanation => Some((name.clone(), (**spec).clone())),
        _ => None,
    })
}

#[test]
fn the_weights_go_back_before_a_judge_is_asked() {
    let mut w = aborted();
    assert_eq!((w.applied(), asked(&w).len()), (0, 0), "{}", w.describe());
    let found = std::cell::RefCell::new(None);
    while found.borrow().is_none() {
        let pass = w.step(w.later(60));
        *found.borrow_mut() = wanted(&pass.decision.intents);
    }
    let (name, spec) = found.take().unwrap();
    assert_eq!((w.status.phase, spec.weight, spec.step, spec.traffic_since), (Phase::Degraded, 25, None, None));
    assert!(name.contains("-why-"), "{name}");
    let explains = spec.explains.unwrap();
    let abort = w.status.abort.clone().unwrap();
    assert_eq!((explains.gate.as_str(), &explains.reason), ("p95", &abort.reason));
    let names: Vec<&str> = explains.gates.iter().map(|g| g.name.as_str()).collect();
    assert_eq!(names, ["evals", "p95", "judge"], "what the gates had found is told");

    w.until("explanation", |w| explanation(w).is_some());
    w.settle();
    assert_eq!((asked(&w).len(), w.decided("AbortExplained") + w.decided("AbortNotExplained")), (1, 1), "{}", w.describe());
    assert_eq!((w.status.phase, w.status.abort.clone().unwrap().reason), (Phase::Degraded, abort.reason));
    let before = w.status.clone();
    w.run(24 * 3600);
    assert_eq!((w.status, asked_twice(&w.told)), (before, false));
}

fn asked_twice(told: &[String]) -> bool {
    told.iter().filter(|t| t.starts_with("Abort") && t.ends_with("Explained")).count() > 1
}

#[test]
fn a_judge_that_cannot_be_asked_is_noted_and_left_alone() {
    let mut w = aborted();
    w.script.insert("judge".into(), Say::Nothing);
    w.until("answer", |w| explanation(w).is_some());
    assert!(explanation(&w).unwrap().starts_with("no explanation: "), "{:?}", explanation(&w));
    assert_eq!(w.decided("AbortNotExplained"), 1);
    w.run(3600);
    assert_eq!(asked(&w).len(), 1);
}

#[test]
fn only_an_abort_by_another_gate_is_explained() {
    let end = |w: &mut World| {
        w.until_phase(Phase::Degraded);
        w.run(3600);
        (asked(w).len(), explanation(w).is_some())
    };
    let mut by_hand = World::releasing(spec(Some(article()), None));
    by_hand.until_weight(25);
    by_hand.command(Verb::Abort);
    assert_eq!(end(&mut by_hand), (0, false));

    let mut by_itself = World::releasing(spec(Some(article()), None));
    by_itself.until_weight(25);
    by_itself.script.insert("judge".into(), Say::Fail);
    assert_eq!(end(&mut by_itself), (0, false), "it has said why");

    let plain = Some(vec![weight(25), analysis(&["p95"]), weight(50)]);
    let mut none = World::releasing(spec(plain, None));
    none.script.insert("p95".into(), Say::Fail);
    assert_eq!(end(&mut none), (0, false), "nobody is asked to");

    // The judge stands in a step that was never reached.
    let mut later = World::releasing(spec(Some(vec![weight(5), analysis(&["p95"]), weight(50), analysis(&["p95", "judge"])]), None));
    later.script.insert("p95".into(), Say::Fail);
    assert_eq!(end(&mut later), (1, true));
    let mut behind = World::releasing(spec(Some(vec![weight(5), pause(Some(600))]), Some(gates(vec![gate("p95"), judge("judge")]))));
    behind.until_weight(5);
    behind.script.insert("p95".into(), Say::Fail);
    assert_eq!(end(&mut behind), (1, true));
}

#[test]
fn a_retry_or_a_new_revision_ends_the_question() {
    for retry in [true, false] {
        let mut w = aborted();
        w.until("question", |w| asked(w).len() == 1);
        let name = asked(&w)[0].name.clone();
        w.script.clear();
        if retry {
            assert!(w.command(Verb::Retry).0);
        } else {
            w.apply_version(3);
        }
        w.until("stopped", |w| w.seen.runs.iter().any(|r| r.name == name && r.phase == RunPhase::Stopped));
        w.until_phase(Phase::Healthy);
        assert_eq!(w.decided("AbortExplained") + w.decided("AbortNotExplained"), 0, "{}", w.describe());
    }
}

#[test]
fn gates_that_are_edited_between_record_and_question_do_not_make_two() {
    let mut w = aborted();
    // The process dies after the question was recorded, before it was put.
    loop {
        let (seen, status) = (w.seen.clone(), w.status.clone());
        let first = wanted(&w.decide().intents).is_some();
        let pass = w.pass_on(seen, status, if first { Luck::DiesAfter(0) } else { Luck::Good });
        if first {
            break;
        }
        w.wait_after(&pass, w.later(60));
    }
    assert_eq!((asked(&w).len(), w.status.runs.iter().filter(|r| r.kind == RunKind::Explanation).count()), (0, 1));
    let mut same = w.clone();
    let again = same.pass();
    assert!(wanted(&again.decision.intents).is_some(), "{:?}", again.decision.intents.iter().map(short).collect::<Vec<_>>());

    w.edit(|s| {
        for gate in s.steps.iter_mut().flatten().filter_map(|s| s.analysis.as_mut()).flat_map(|a| &mut a.gates) {
            if let Some(judge) = &mut gate.judge {
                judge.prompt = "Another question.".into();
            }
        }
    });
    w.run(3600);
    assert_eq!((asked(&w).len(), explanation(&w)), (0, Some("no explanation: the gates were edited before the judge was asked")));
}

#[test]
fn a_deleted_rollout_asks_nobody() {
    let mut w = aborted();
    w.until("question", |w| asked(w).len() == 1);
    w.seen.deleting = true;
    w.pass();
    assert!(asked(&w)[0].stop, "{}", w.describe());
}
