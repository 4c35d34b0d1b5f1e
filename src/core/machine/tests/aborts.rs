//! Releases that go wrong: gates that fail, hold or stay silent, pods that do not come.

use super::specs::*;
use super::world::{Luck, Say, World, route_seen};
use crate::api::action::Verb;
use crate::api::analysis::{Mode, OnError, OnFail};
use crate::api::common::seconds;
use crate::api::notification::Trigger;
use crate::api::outbox::Cursor;
use crate::api::rollout::{OnDeadline, Step};
use crate::api::status::{Phase, PromotionStage};
use crate::core::intent::Intent;
use crate::core::notify;

fn release_with(change: impl FnOnce(&mut crate::api::analysis::Gate)) -> World {
    let mut g = gate("p95");
    change(&mut g);
    let step = Step { analysis: Some(gates(vec![g])), ..Step::default() };
    World::releasing(spec(Some(vec![weight(25), step, weight(50), pause(None)]), None))
}

fn fail(w: &mut World, gate: &str, say: Say) {
    w.script.insert(gate.into(), say);
}

#[test]
fn a_failed_gate_takes_the_canary_out_at_any_step_and_says_which() {
    for (at, step) in [(5, "3/10"), (25, "6/10"), (50, "9/10")] {
        let mut w = World::releasing(spec(Some(article()), None));
        w.until_weight(at);
        fail(&mut w, "p95", Say::Fail);
        w.until("abort", |w| w.status.abort.is_some());
        let abort = w.status.abort.clone().unwrap();
        assert_eq!((abort.gate.as_deref(), abort.step.as_str(), abort.weight), (Some("p95"), step, at), "{}", w.describe());
        assert_eq!(w.applied(), 0, "the pass that reads the verdict puts the weights back");
        w.settle();
        assert_eq!((w.status.phase, w.status.step_display.as_str()), (Phase::Degraded, step));
        assert!(w.status.waiting_for.contains("p95") && w.status.message.contains(&hash(1)), "{}", w.describe());
        assert_eq!(w.status.stable_revision, Some(hash(1)));
    }
}

#[test]
fn the_revert_needs_no_written_status_when_a_verdict_asks_for_it() {
    let mut w = release_with(|_| ());
    fail(&mut w, "p95", Say::Fail);
    w.until("verdict", |w| w.seen.runs.iter().any(|r| r.phase == crate::api::run::RunPhase::Fail));
    let (seen, status) = (w.seen.clone(), w.status.clone());
    w.pass_on(seen, status, Luck::Conflict);
    assert_eq!((w.applied(), w.status.abort.is_some()), (0, false));
    w.until_phase(Phase::Degraded);
    assert_eq!(w.decided("RoutesChangedByOthers"), 0, "it was us\n{}", w.describe());
}

#[test]
fn a_deadline_has_no_verdict_to_rest_on_and_reverts_only_once_it_is_recorded() {
    let mut s = spec(Some(vec![weight(25), weight(50), pause(None)]), None);
    (s.on_progress_deadline, s.progress_deadline) = (OnDeadline::Abort, seconds(120));
    let mut w = World::releasing(s);
    w.quota.insert(hash(2), 3);
    w.until("half way", |w| w.applied() == 25 && w.status.current_step == Some(1));
    while w.decide().status.abort.is_none() {
        w.step(w.later(600));
    }
    let (seen, status) = (w.seen.clone(), w.status.clone());
    let pass = w.pass_on(seen, status, Luck::Conflict);
    assert_eq!((w.applied(), pass.decision.urgent.len()), (25, 0), "{}", w.describe());
    w.until_phase(Phase::Degraded);
    assert!(w.status.message.contains("no progress for 120 s"), "{}", w.status.message);
}

#[test]
fn the_deadline_only_reports_unless_told_to_abort() {
    let mut s = spec(Some(vec![weight(25), pause(None)]), None);
    s.progress_deadline = seconds(120);
    let mut w = World::releasing(s);
    w.broken = vec![hash(2)];
    w.run(600);
    let progressing = w.status.conditions.iter().find(|c| c.type_ == "Progressing").unwrap();
    assert_eq!((w.status.phase, progressing.reason.as_str()), (Phase::Progressing, "ProgressDeadlineExceeded"), "{}", w.describe());
    w.broken.clear();
    w.until_phase(Phase::Paused);
}

#[test]
fn time_spent_paused_or_invalid_does_not_count_against_the_deadline() {
    let mut s = spec(Some(vec![weight(25), pause(None), weight(50), pause(None)]), None);
    (s.on_progress_deadline, s.progress_deadline) = (OnDeadline::Abort, seconds(300));
    let mut w = World::releasing(s);
    w.until_weight(25);
    w.until_phase(Phase::Paused);
    w.edit(|s| s.paused = true);
    w.run(30);
    w.edit(|s| s.steps = Some(vec![weight(30), pause(None)]));
    w.run(3000);
    w.edit(|s| s.paused = false);
    w.until_weight(30);
    w.until_phase(Phase::Paused);
    assert_eq!(w.decided("Aborted"), 0, "{}", w.describe());
    w.edit(|s| s.steps = Some(vec![weight(40), pause(None)]));
    w.seen.rival = Some("somebody else was first".into());
    w.run(3000);
    w.seen.rival = None;
    w.until_weight(40);
    assert_eq!(w.decided("Aborted"), 0, "{}", w.describe());
    w.edit(|s| s.steps = Some(vec![weight(60), pause(None)]));
    w.ask(Verb::Pause);
    w.run(3000);
    w.ask(Verb::Resume);
    w.until_weight(60);
    assert_eq!(w.decided("Aborted"), 0, "{}", w.describe());
}

#[test]
fn a_fail_that_only_pauses_holds_the_weight_and_cannot_be_promoted() {
    let mut w = release_with(|g| g.on_fail = OnFail::Pause);
    fail(&mut w, "p95", Say::Fail);
    w.until_phase(Phase::Paused);
    let (applied, message) = w.command(Verb::Promote);
    assert!(!applied && message.contains("p95") && message.contains("retry"), "{message}");
    w.run(3600);
    assert_eq!((w.status.phase, w.applied()), (Phase::Paused, 25), "{}", w.describe());
    assert!(w.command(Verb::Abort).0);
    w.until_phase(Phase::Degraded);
}

#[test]
fn an_outage_or_indecision_holds_until_it_ends_or_a_person_takes_it_on_himself() {
    for say in [Say::Error, Say::Inconclusive] {
        let mut w = release_with(|_| ());
        fail(&mut w, "p95", say);
        w.until_phase(Phase::Paused);
        w.run(7200);
        assert_eq!((w.applied(), w.status.current_step), (25, Some(1)), "{}", w.describe());
        let mut healed = w.clone();
        fail(&mut healed, "p95", Say::Pass);
        healed.until_weight(50);
        assert_eq!(healed.decided("Overridden"), 0);
        let (applied, message) = w.command(Verb::Promote);
        assert!(applied && message.contains("p95"), "{message}");
        let record = w.status.decisions.iter().find(|d| d.decision == "Overridden").unwrap();
        assert_eq!((record.by.as_deref(), record.step.as_str()), (Some("ann"), "2/4"));
        w.until_weight(50);
    }
}

#[test]
fn an_override_skips_the_held_gate_alone_the_others_still_have_to_pass() {
    let steps = vec![weight(25), analysis(&["p95", "evals"]), weight(50), pause(None)];
    let mut w = World::releasing(spec(Some(steps), None));
    fail(&mut w, "p95", Say::Error);
    fail(&mut w, "evals", Say::Nothing);
    w.until_phase(Phase::Paused);
    assert!(w.command(Verb::Promote).0);
    w.run(600);
    assert_eq!((w.status.current_step, w.applied()), (Some(1), 25), "{}", w.describe());
    let mut bad = w.clone();
    fail(&mut bad, "evals", Say::Fail);
    bad.until_phase(Phase::Degraded);
    fail(&mut w, "evals", Say::Pass);
    w.until_weight(50);
}

#[test]
fn a_person_skips_an_analysis_that_is_undecided_and_the_record_says_so() {
    let mut w = release_with(|_| ());
    fail(&mut w, "p95", Say::Nothing);
    w.until("measuring", |w| w.status.current_step == Some(1) && w.applied() == 25 && !w.status.gates.is_empty());
    assert!(!w.command(Verb::Promote).0, "that is no pause, and nothing holds it");
    let cursor = notify::news(&Cursor::default(), ("voice", "agent", "uid"), &w.status, w.seen.now).1;
    let (applied, message) = w.command(Verb::SkipStep);
    assert!(applied && message.contains("step 2/4 was skipped") && message.contains("p95"), "{message}");
    let record = w.status.decisions.iter().find(|d| d.decision == "Overridden").unwrap();
    assert_eq!((record.by.as_deref(), record.step.as_str()), (Some("ann"), "2/4"));
    w.until_weight(50);
    w.until("after it", |w| w.status.current_step == Some(3));
    let (told, _) = notify::news(&cursor, ("voice", "agent", "uid"), &w.status, w.seen.now);
    let passed: Vec<_> = told.iter().filter(|n| n.facts.trigger == Trigger::StepPassed).map(|n| n.facts.step.as_str()).collect();
    assert_eq!(passed, ["3/4"], "it was skipped, and did not pass");
    w.settle();
    assert!(w.seen.runs.iter().all(|r| r.stop || r.phase != crate::api::run::RunPhase::Running), "its run is stopped: {:?}", w.seen.runs);
    assert_eq!(w.status.abort, None);
}

#[test]
fn a_failed_gate_is_not_skipped_and_one_that_fails_later_still_aborts() {
    let mut failed = release_with(|g| g.on_fail = OnFail::Pause);
    fail(&mut failed, "p95", Say::Fail);
    failed.until_phase(Phase::Paused);
    let (applied, message) = failed.command(Verb::SkipStep);
    assert!(!applied && message.contains("does not override a failed gate"), "{message}");
    failed.run(600);
    assert_eq!((failed.applied(), failed.status.current_step), (25, Some(1)));

    let background = Some(gates(vec![gate("errors")]));
    let mut w = World::releasing(spec(Some(vec![weight(25), analysis(&["p95"]), weight(50), pause(None)]), background));
    fail(&mut w, "p95", Say::Nothing);
    w.until("measuring", |w| w.status.current_step == Some(1) && !w.status.gates.is_empty());
    assert!(w.command(Verb::SkipStep).0);
    w.until_weight(50);
    fail(&mut w, "errors", Say::Fail);
    w.until_phase(Phase::Degraded);
    assert_eq!(w.status.abort.as_ref().unwrap().gate.as_deref(), Some("errors"));
}

#[test]
fn what_moves_pods_and_weights_is_not_skipped() {
    let mut w = World::releasing(spec(Some(vec![weight(25), weight(50), pause(None)]), None));
    w.quota.insert(hash(2), 0);
    w.run(60);
    let (applied, message) = w.command(Verb::SkipStep);
    assert!(!applied && message.contains("step 1/3 moves pods and weights"), "{message}");
}

#[test]
fn on_error_abort_aborts() {
    let mut w = release_with(|g| g.on_error = OnError::Abort);
    fail(&mut w, "p95", Say::Error);
    w.until_phase(Phase::Degraded);
    assert_eq!(w.status.abort.as_ref().unwrap().gate.as_deref(), Some("p95"));
}

#[test]
fn a_dry_run_gate_changes_nothing_and_a_signal_only_fails() {
    let both = |first: Mode| {
        let mut g = gate("extra");
        (g.mode, g.on_fail) = (first, OnFail::Abort);
        let step = Step { analysis: Some(gates(vec![g, gate("p95")])), ..Step::default() };
        World::releasing(spec(Some(vec![weight(25), step, weight(50), pause(None)]), None))
    };
    let mut w = both(Mode::DryRun);
    fail(&mut w, "extra", Say::Fail);
    w.until_weight(50);
    let mut w = both(Mode::Signal);
    fail(&mut w, "extra", Say::Nothing);
    w.until_weight(50);
    let mut w = both(Mode::Signal);
    fail(&mut w, "extra", Say::Fail);
    w.until_phase(Phase::Degraded);
}

#[test]
fn a_background_gate_aborts_in_the_middle_of_a_pause_and_while_paused_by_a_person() {
    let steps = || vec![weight(25), pause(None), weight(50)];
    for user in [false, true] {
        let mut w = World::releasing(spec(Some(steps()), Some(gates(vec![gate("live")]))));
        w.until_phase(Phase::Paused);
        if user {
            assert!(w.command(Verb::Pause).0);
        }
        w.run(600);
        fail(&mut w, "live", Say::Fail);
        w.until_phase(Phase::Degraded);
        assert!(!w.seen.runs.is_empty());
    }
}

#[test]
fn require_waits_for_a_pass_on_data_from_after_the_weight_change() {
    let mut w = World::releasing(spec(Some(vec![weight(25), require(&["live"]), pause(None)]), Some(gates(vec![gate("live")]))));
    fail(&mut w, "live", Say::Nothing);
    w.until("waits", |w| w.status.current_step == Some(1));
    w.run(3600);
    assert_eq!((w.status.current_step, w.applied()), (Some(1), 25), "{}", w.describe());
    assert!(w.status.waiting_for.contains("live"), "{}", w.status.waiting_for);
    fail(&mut w, "live", Say::Pass);
    w.until_phase(Phase::Paused);
}

#[test]
fn an_invalid_spec_in_mid_release_stands_still_and_still_aborts() {
    let mut w = World::releasing(spec(
        Some(vec![weight(5), pause(Some(60)), weight(25), pause(Some(60)), weight(50)]),
        Some(gates(vec![gate("live")])),
    ));
    w.until_weight(25);
    w.edit(|s| s.steps = Some(vec![Step::default(), weight(60), weight(80)]));
    w.run(1800);
    assert_eq!((w.status.phase, w.applied(), w.status.weights.desired), (Phase::Invalid, 25, 25), "{}", w.describe());
    fail(&mut w, "live", Say::Fail);
    w.until("reverted", |w| w.applied() == 0 && w.status.abort.is_some());
    w.settle();
    assert_eq!(w.status.phase, Phase::Degraded, "{}", w.describe());
}

#[test]
fn an_invalid_spec_is_corrected_and_the_release_goes_on() {
    let mut w = World::releasing(spec(Some(article()), None));
    w.until_weight(25);
    let good = w.spec.steps.clone();
    w.edit(|s| s.steps = Some(vec![Step::default()]));
    w.run(600);
    assert_eq!(w.status.phase, Phase::Invalid);
    w.edit(|s| s.steps = good);
    w.until("promoted", |w| w.status.stable_revision == Some(hash(2)));
    assert_eq!(w.decided("StepsChanged"), 0, "{}", w.describe());
}

#[test]
fn no_steps_at_all_is_a_mistake_and_not_a_promotion() {
    let mut w = World::releasing(spec(Some(vec![weight(5), pause(None)]), None));
    w.until_phase(Phase::Paused);
    w.edit(|s| s.steps = Some(vec![]));
    w.run(600);
    assert_eq!((w.status.phase, w.applied()), (Phase::Invalid, 5), "{}", w.describe());
}

#[test]
fn a_late_verdict_in_the_change_of_roles_is_too_late_once_stable_has_moved() {
    let mut w = World::releasing(spec(Some(vec![weight(50), require(&["live"])]), Some(gates(vec![gate("live")]))));
    w.until("weights return", |w| w.status.promotion.as_ref().is_some_and(|p| p.stage == PromotionStage::ReturnWeights));
    for run in &mut w.seen.runs {
        run.gates[0].verdict = Some(crate::api::run::Verdict::Fail);
        run.gates[0].consequence = Some(crate::api::run::Consequence::Abort);
    }
    w.until_phase(Phase::Healthy);
    assert_eq!((w.status.stable_revision.clone(), w.decided("Aborted")), (Some(hash(2)), 0), "{}", w.describe());
}

#[test]
fn an_abort_while_the_stable_service_moves_moves_it_back() {
    let mut w = World::releasing(spec(Some(vec![weight(50)]), None));
    w.until("stable service moves", |w| w.seen.stable_arm.selects == Some(hash(2)));
    assert!(w.command(Verb::Abort).0);
    w.settle();
    assert_eq!((w.status.phase, w.applied()), (Phase::Degraded, 0), "{}", w.describe());
    assert_eq!(w.seen.stable_arm.selects, Some(hash(1)));
    assert_eq!(w.seen.replica_set(&hash(1)).unwrap().wanted, 10);
}

#[test]
fn every_pass_until_the_routes_say_so_asks_for_the_revert() {
    let mut w = World::releasing(spec(Some(vec![weight(25), pause(None)]), None));
    w.until_phase(Phase::Paused);
    w.ask(Verb::Abort);
    w.pass();
    w.seen.routes = vec![route_seen("agent", 25)];
    for _ in 0..3 {
        let decision = w.decide();
        let lowers = decision.urgent.iter().filter(|i| matches!(i, Intent::SetWeights { canary: 0, .. })).count();
        assert_eq!(lowers, 1, "{}", w.describe());
    }
}

#[test]
fn the_abort_verb_works_at_every_step_and_in_the_change_of_roles_until_stable_has_moved() {
    let mut w = World::releasing(spec(Some(article()), None));
    let mut seen = std::collections::BTreeSet::new();
    while w.status.promotion.as_ref().is_none_or(|p| p.stage != PromotionStage::ReturnWeights) {
        let mut other = w.clone();
        let at = w.status.current_step;
        if other.status.canary_revision == Some(hash(2)) && seen.insert((at, w.status.promotion.is_some())) {
            let (applied, message) = other.command(Verb::Abort);
            other.settle();
            let end = (applied, other.status.phase, other.applied(), other.seen.stable_arm.selects.clone());
            assert_eq!(end, (true, Phase::Degraded, 0, Some(hash(1))), "at {at:?}: {message}\n{}", other.describe());
        }
        w.step(w.later(60));
    }
    assert!(seen.len() >= 11, "{seen:?}");
    let (applied, message) = w.command(Verb::Abort);
    assert!(!applied && message.contains("stable already"), "{message}");
}
