//! What people ask for, case by case; every command in every phase is in `commands`.

use super::commands::VERBS;
use super::specs::*;
use super::world::{Say, World};
use crate::api::action::Verb;
use crate::api::run::{Consequence, RunKind, Verdict};
use crate::api::status::{Grounds, Phase};

#[test]
fn a_command_for_another_revision_is_refused() {
    let mut w = World::releasing(spec(Some(vec![weight(25), pause(None)]), None));
    w.until_phase(Phase::Paused);
    for verb in VERBS {
        let name = w.ask_for(verb, &hash(1));
        w.pass();
        let (applied, message) = w.outcomes[&name].clone();
        assert!(!applied && message.contains(&hash(2)), "{verb:?}: {message}");
    }
    assert_eq!((w.status.phase, w.applied()), (Phase::Paused, 25));
}

#[test]
fn a_command_is_carried_out_once_though_the_process_dies_before_it_is_marked() {
    let mut w = World::releasing(spec(Some(vec![weight(25), pause(None), pause(None)]), None));
    w.until_phase(Phase::Paused);
    w.ask(Verb::Promote);
    let (seen, status) = (w.seen.clone(), w.status.clone());
    w.pass_on(seen, status, super::world::Luck::DiesAfter(0));
    w.run(60);
    assert_eq!((w.status.current_step, w.decided("Promoted")), (Some(2), 1), "{}", w.describe());
    assert!(w.outcomes["action-1"].0);
}

#[test]
fn a_command_that_a_lagging_cache_still_shows_unmarked_is_not_carried_out_again() {
    let mut w = World::releasing(spec(Some(vec![weight(25), pause(None), pause(None)]), None));
    w.until_phase(Phase::Paused);
    w.ask(Verb::Promote);
    let lagging = w.seen.actions.clone();
    w.run(60);
    assert_eq!(w.status.current_step, Some(2));
    w.seen.actions = lagging;
    w.run(60);
    assert_eq!((w.status.current_step, w.decided("Promoted")), (Some(2), 1), "{}", w.describe());
}

#[test]
fn retry_starts_a_new_attempt_with_fresh_evidence_and_keeps_pods_that_may_carry_calls() {
    let mut w = World::releasing(spec(Some(vec![weight(10), analysis(&["p95"]), weight(50), analysis(&["evals"])]), None));
    w.script.insert("evals".into(), Say::Fail);
    w.until_phase(Phase::Degraded);
    let runs = w.seen.runs.len();
    w.script.clear();
    assert!(w.command(Verb::Retry).0);
    assert_eq!((w.status.attempt, w.status.current_step), (2, Some(0)), "{}", w.describe());
    w.until_weight(10);
    assert_eq!(w.seen.replica_set(&hash(2)).unwrap().wanted, 5, "pods of the first attempt may carry calls");
    w.until("promoted", |w| w.status.stable_revision == Some(hash(2)));
    assert_eq!(w.seen.runs.len(), runs + 2);
}

#[test]
fn the_same_version_again_after_another_one_gets_fresh_evidence() {
    let mut w = World::releasing(spec(Some(vec![scale(1), analysis(&["evals"]), weight(50)]), None));
    w.script.insert("evals".into(), Say::Fail);
    w.until_phase(Phase::Degraded);
    w.apply_version(1);
    w.until_phase(Phase::Healthy);
    w.script.clear();
    w.apply_version(2);
    w.until("promoted", |w| w.status.stable_revision == Some(hash(2)));
    assert_eq!(w.seen.runs.len(), 2, "{}", w.describe());
}

#[test]
fn promote_full_skips_the_rest_and_says_who() {
    let mut w = World::releasing(spec(Some(article()), None));
    w.until_weight(5);
    assert!(w.command(Verb::PromoteFull).0);
    w.until("promoted", |w| w.status.promotion.as_ref().is_some_and(|p| p.grounds == Grounds::PromotedFull));
    w.script.insert("p95".into(), Say::Fail);
    w.until_phase(Phase::Healthy);
    let record = w.status.decisions.iter().find(|d| d.decision == "PromotedFull").unwrap();
    assert_eq!((record.by.as_deref(), w.status.stable_revision.clone()), (Some("ann"), Some(hash(2))), "{}", w.describe());
}

#[test]
fn pause_stops_steps_and_resume_lets_them_go_on() {
    let mut w = World::releasing(spec(Some(vec![weight(5), pause(Some(60)), weight(25), pause(None)]), None));
    w.until_weight(5);
    assert!(w.command(Verb::Pause).0);
    w.run(3600);
    assert_eq!((w.applied(), w.status.phase), (5, Phase::Paused), "{}", w.describe());
    assert!(w.command(Verb::Resume).0);
    w.until_weight(25);
}

#[test]
fn spec_paused_from_the_start_gives_the_canary_no_call() {
    let mut w = World::deployed(spec(Some(vec![weight(5), pause(None)]), None));
    w.edit(|s| s.paused = true);
    w.apply_version(2);
    w.run(3600);
    assert_eq!((w.applied(), w.status.phase), (0, Phase::Paused), "{}", w.describe());
    w.edit(|s| s.paused = false);
    w.until_weight(5);
}

#[test]
fn going_on_without_a_gate_of_the_step_says_nothing_about_a_background_gate_of_the_same_name() {
    let mut steps = vec![weight(25), analysis(&["p95", "evals"]), weight(50), pause(None)];
    steps[1].analysis.as_mut().unwrap().require = vec!["p95".into()];
    let mut w = World::releasing(spec(Some(steps), Some(gates(vec![gate("p95")]))));
    w.script = [("p95".to_string(), Say::Nothing), ("evals".to_string(), Say::Nothing)].into();
    w.until("both runs", |w| w.seen.runs.len() == 2);
    let error = |w: &mut World, kind: RunKind| {
        let run = w.seen.runs.iter_mut().find(|r| r.kind == kind).unwrap();
        let gate = run.gates.iter_mut().find(|g| g.name == "p95").unwrap();
        (gate.verdict, gate.consequence) = (Some(Verdict::Error), Some(Consequence::Pause));
    };
    error(&mut w, RunKind::Step);
    w.until_phase(Phase::Paused);
    assert!(w.command(Verb::Promote).0);
    assert_eq!(w.status.phase, Phase::Progressing, "evals is waited for\n{}", w.describe());
    assert!(w.status.waiting_for.starts_with("evals"), "{}", w.status.waiting_for);
    error(&mut w, RunKind::Background);
    w.until_phase(Phase::Paused);
    // It recovers; nothing has passed yet.
    let gate = &mut w.seen.runs.iter_mut().find(|r| r.kind == RunKind::Background).unwrap().gates[0];
    (gate.verdict, gate.consequence) = (None, None);
    w.script.remove("evals");
    w.run(600);
    assert_eq!(w.status.current_step, Some(1), "{}", w.describe());
    assert!(w.status.waiting_for.starts_with("p95"), "{}", w.status.waiting_for);
    w.script.clear();
    w.until_weight(50);
}

#[test]
fn commands_that_come_together_are_carried_out_one_after_the_other() {
    let mut w = World::releasing(spec(Some(vec![weight(10), analysis(&["p95"]), weight(50)]), None));
    w.script.insert("p95".into(), Say::Fail);
    w.until_phase(Phase::Degraded);
    let names: Vec<String> = [Verb::Retry, Verb::Abort, Verb::Retry, Verb::Promote].into_iter().map(|v| w.ask(v)).collect();
    w.pass();
    let answers: Vec<_> = names.iter().map(|n| w.outcomes[n].clone()).collect();
    assert_eq!(answers.iter().map(|(did, _)| *did).collect::<Vec<_>>(), [true, true, true, false], "{answers:?}");
    assert_eq!((w.status.attempt, w.status.phase), (3, Phase::Progressing), "{}", w.describe());
    assert!(answers[3].1.contains("its pods and weights"), "{}", answers[3].1);
}
