//! Foreign edits, things that are missing, rivals, deletion, and runs that somebody tampered with.

use super::specs::*;
use super::world::{Luck, Say, World, route_seen};
use crate::api::action::Verb;
use crate::api::run::{RunPhase, Verdict};
use crate::api::status::Phase;
use crate::core::intent::Intent;

fn paused_at_25() -> World {
    let mut w = World::releasing(spec(Some(vec![weight(25), pause(None), weight(50), pause(None)]), None));
    w.until_phase(Phase::Paused);
    w
}

fn set(w: &mut World, name: &str, canary: i64) {
    let route = w.seen.routes.iter_mut().find(|r| r.name == name).unwrap();
    *route = route_seen(name, canary);
}

fn in_sync(w: &World) -> bool {
    crate::api::conditions::is_true(&w.status.conditions, "RoutesInSync")
}

#[test]
fn weights_that_somebody_else_changed_are_put_right_and_recorded_once() {
    for found in [90, 3] {
        let mut w = paused_at_25();
        set(&mut w, "agent", found);
        w.pass();
        assert!(!in_sync(&w));
        w.run(300);
        assert_eq!((w.applied(), w.decided("RoutesChangedByOthers"), in_sync(&w)), (25, 1, true), "{}", w.describe());
        assert_eq!(w.told.iter().filter(|t| *t == "RoutesChangedByOthers").count(), 1);
    }
}

#[test]
fn foreign_weight_on_an_aborted_version_is_taken_away_and_its_pods_wait_for_those_calls() {
    let mut w = paused_at_25();
    assert!(w.command(Verb::Abort).0);
    w.run(3000);
    let wanted = |w: &World| w.seen.replica_set(&hash(2)).unwrap().wanted;
    assert_eq!(wanted(&w), 3, "{}", w.describe());
    set(&mut w, "agent", 40);
    w.pass();
    w.run(1200);
    assert_eq!((w.applied(), wanted(&w)), (0, 3), "{}", w.describe());
    w.run(3600);
    assert_eq!(wanted(&w), 0, "{}", w.describe());
}

#[test]
fn one_route_of_a_virtual_service_above_and_one_below_only_the_excess_goes_while_raising_is_not_safe() {
    let mut w = paused_at_25();
    let mut two = route_seen("agent", 10);
    two.weights.as_mut().unwrap().extend(route_seen("agent", 70).weights.unwrap());
    w.seen.routes = vec![two];
    w.edit(|s| s.paused = true);
    w.run(60);
    assert_eq!(w.applied(), 10, "{}", w.describe());
    w.edit(|s| s.paused = false);
    w.until_weight(25);
}

#[test]
fn a_sum_that_is_not_100_is_put_right() {
    let mut w = paused_at_25();
    w.seen.routes[0].weights.as_mut().unwrap()[0].stable = 0;
    w.run(60);
    assert!(w.seen.routes[0].says(25), "{}", w.describe());
}

#[test]
fn several_virtual_services_are_reverted_each_for_itself() {
    let mut w = World::new(spec(Some(vec![weight(25), pause(None)]), None));
    w.seen.routes.push(route_seen("second", 0));
    w.settle();
    w.apply_version(2);
    w.until_phase(Phase::Paused);
    w.seen.routes[0].weights = Err("VirtualService voice/agent has three destinations".into());
    assert!(w.command(Verb::Abort).0);
    w.run(60);
    assert!(w.seen.routes[1].says(0), "{}", w.describe());
    assert!(w.status.message.contains("three destinations"), "it is not known where its calls go: {}", w.status.message);
    w.seen.routes[0] = route_seen("agent", 25);
    w.run(60);
    assert!(w.seen.routes[0].says(0), "{}", w.describe());
    assert_eq!(w.status.phase, Phase::Degraded);
}

#[test]
fn no_step_passes_while_a_route_cannot_be_read() {
    let mut w = World::releasing(spec(Some(vec![weight(25), pause(Some(30)), weight(50), pause(None)]), None));
    w.until_weight(25);
    w.seen.routes[0].weights = Err("VirtualService voice/agent does not exist".into());
    w.run(600);
    assert!(w.status.current_step <= Some(2) && w.status.waiting_for.contains("does not exist"), "{}", w.describe());
    set(&mut w, "agent", 25);
    w.until_weight(50);
}

#[test]
fn a_stable_service_without_endpoints_holds_the_revert_and_says_so() {
    let mut w = paused_at_25();
    w.broken = vec![hash(1)];
    w.step(w.later(60));
    w.step(w.later(60));
    assert!(w.command(Verb::Abort).0);
    w.run(60);
    assert_eq!((w.applied(), w.status.phase), (25, Phase::Reverting), "{}", w.describe());
    assert!(w.status.message.contains("no ready pod"), "{}", w.status.message);
    w.broken.clear();
    w.until_phase(Phase::Degraded);
}

#[test]
fn with_both_arms_empty_weights_still_go_to_stable() {
    let mut w = paused_at_25();
    w.broken = vec![hash(1), hash(2)];
    w.run(10);
    assert!(w.command(Verb::Abort).0);
    w.run(10);
    assert_eq!(w.applied(), 0, "{}", w.describe());
}

#[test]
fn a_canary_service_that_is_missing_is_named_and_counts_as_waiting() {
    let mut w = World::deployed(spec(Some(vec![weight(25), pause(None)]), None));
    w.seen.canary_arm.problem = Some("Service agent-canary does not exist".into());
    w.apply_version(2);
    w.run(700);
    let reason = w.status.conditions.iter().find(|c| c.type_ == "Progressing").unwrap().reason.clone();
    assert!(w.status.waiting_for.contains("agent-canary"), "{}", w.describe());
    assert_eq!((w.applied(), reason.as_str()), (0, "ProgressDeadlineExceeded"), "{}", w.describe());
    w.seen.canary_arm.problem = None;
    w.until_weight(25);
}

#[test]
fn a_missing_virtual_service_of_a_healthy_rollout_is_said_in_the_message() {
    let mut w = World::deployed(spec(Some(vec![weight(25), pause(None)]), None));
    w.seen.routes[0].weights = Err("VirtualService voice/agent does not exist".into());
    w.settle();
    assert!(w.status.waiting_for.contains("does not exist") && w.status.message.contains("does not exist"), "{}", w.describe());
    assert!(!crate::api::conditions::is_true(&w.status.conditions, "ReferencesResolved"));
}

#[test]
fn a_rollout_whose_route_belongs_to_another_writes_neither_route_nor_service() {
    let mut w = World::deployed(spec(Some(vec![weight(25), pause(None)]), None));
    w.seen.rival = Some("VirtualService voice/agent is managed by VoiceRollout voice/first already".into());
    set(&mut w, "agent", 40);
    w.seen.stable_arm.selects = Some("theirs".into());
    for _ in 0..3 {
        let pass = w.pass();
        let writes = pass.decision.intents.iter().chain(&pass.decision.urgent);
        assert_eq!(writes.filter(|i| matches!(i, Intent::SetWeights { .. } | Intent::PointArm { .. })).count(), 0, "{}", w.describe());
    }
    assert_eq!((w.status.phase, w.decided("RoutesChangedByOthers")), (Phase::Invalid, 0));
    assert!(w.status.message.contains("voice/first"));
}

#[test]
fn deletion_leaves_stable_at_100_from_every_phase() {
    let starts: Vec<World> = {
        let base = || spec(Some(vec![weight(25), pause(None), weight(50)]), None);
        let mut reverting = paused_at_25();
        reverting.ask(Verb::Abort);
        let mut promoting = paused_at_25();
        promoting.command(Verb::PromoteFull);
        promoting.until_weight(100);
        let mut invalid = paused_at_25();
        invalid.edit(|s| s.steps = Some(vec![]));
        invalid.pass();
        let mut first = World::new(base());
        first.pass();
        vec![first, World::deployed(base()), paused_at_25(), reverting, promoting, invalid]
    };
    for mut w in starts {
        w.seen.deleting = true;
        for _ in 0..20 {
            assert!(!w.gone || w.applied() == 0);
            w.step(w.later(30));
        }
        assert!(w.gone && w.seen.routes[0].says(0), "{}", w.describe());
        assert_eq!(w.decide().intents.iter().filter(|i| matches!(i, Intent::SetWeights { .. })).count(), 0);
    }
}

#[test]
fn deletion_does_not_wait_for_a_virtual_service_that_is_gone() {
    let mut w = paused_at_25();
    w.seen.deleting = true;
    w.seen.routes[0].weights = Err("VirtualService voice/agent does not exist".into());
    w.run(30);
    assert!(w.gone, "{}", w.describe());
}

fn measuring() -> World {
    let mut w = World::releasing(spec(Some(vec![weight(25), analysis(&["p95"]), weight(50), pause(None)]), None));
    w.script.insert("p95".into(), Say::Nothing);
    w.until("a run", |w| w.seen.runs.len() == 1);
    w
}

#[test]
fn a_run_that_somebody_deleted_is_made_again() {
    let mut w = measuring();
    w.seen.runs.clear();
    w.script.clear();
    w.until_weight(50);
}

#[test]
fn a_run_that_somebody_else_made_or_changed_does_not_count_and_is_named() {
    let mut w = measuring();
    w.script.clear();
    let run = &mut w.seen.runs[0];
    run.spec_hash = "forged".into();
    run.phase = RunPhase::Pass;
    run.gates[0].verdict = Some(Verdict::Pass);
    run.gates[0].counts.pass = 99;
    let name = run.name.clone();
    w.run(3600);
    assert_eq!((w.status.current_step, w.applied()), (Some(1), 25), "{}", w.describe());
    assert!(w.status.waiting_for.contains(&name), "{}", w.status.waiting_for);
}

#[test]
fn a_passing_run_without_a_passed_measurement_is_no_pass() {
    for (verdict, pass) in [(None, 0), (Some(Verdict::Pass), 0), (Some(Verdict::Inconclusive), 3)] {
        let mut w = measuring();
        let run = &mut w.seen.runs[0];
        run.phase = RunPhase::Pass;
        run.gates[0].verdict = verdict;
        run.gates[0].counts.pass = pass;
        w.run(600);
        assert_eq!((w.status.current_step, w.applied()), (Some(1), 25), "{verdict:?} {pass}\n{}", w.describe());
        let mut empty = measuring();
        empty.seen.runs[0].phase = RunPhase::Pass;
        empty.seen.runs[0].gates.clear();
        empty.run(600);
        assert_eq!(empty.status.current_step, Some(1), "{}", empty.describe());
    }
}

#[test]
fn a_run_that_somebody_stopped_holds_until_a_person_says_what_now() {
    let mut w = measuring();
    w.seen.runs[0].stop = true;
    w.until_phase(Phase::Paused);
    assert!(w.status.waiting_for.contains("stopped"), "{}", w.status.waiting_for);
    let mut again = w.clone();
    assert!(again.command(Verb::Abort).0);
    again.script.clear();
    assert!(again.command(Verb::Retry).0);
    again.until_weight(50);
    assert!(w.command(Verb::Promote).0);
    assert_eq!(w.decided("Overridden"), 1);
    w.until_weight(50);
}

#[test]
fn a_background_gate_that_is_added_in_mid_release_is_measured() {
    let steps = vec![weight(25), pause(None), weight(50), require(&["live"])];
    let mut w = World::releasing(spec(Some(steps), Some(gates(vec![gate("live")]))));
    w.until_phase(Phase::Paused);
    w.edit(|s| s.analysis = Some(gates(vec![gate("live"), gate("tools")])));
    assert!(w.command(Verb::Promote).0);
    w.until("promoted", |w| w.status.stable_revision == Some(hash(2)));
    assert_eq!(w.seen.runs.iter().filter(|r| r.phase == RunPhase::Stopped).count(), 2, "{}", w.describe());
}

#[test]
fn a_background_gate_that_ends_by_itself_is_a_mistake_in_the_spec() {
    let mut g = gate("live");
    g.threshold.as_mut().unwrap().count = Some(3);
    let mut w = World::new(spec(None, Some(gates(vec![g]))));
    w.settle();
    assert_eq!(w.status.phase, Phase::Invalid, "{}", w.describe());
    assert!(w.status.message.contains("count"), "{}", w.status.message);
}

#[test]
fn a_spec_without_virtual_services_in_mid_release_stops_steps_and_not_the_abort() {
    let mut w = paused_at_25();
    w.seen.rival = None;
    w.edit(|s| s.traffic.istio.as_mut().unwrap().virtual_services.clear());
    w.run(60);
    assert_eq!((w.status.phase, w.applied()), (Phase::Invalid, 25), "{}", w.describe());
    assert!(w.command(Verb::Abort).0);
    w.settle();
    assert_eq!((w.status.phase, w.applied()), (Phase::Degraded, 0), "{}", w.describe());
}

#[test]
fn a_process_that_dies_after_any_intent_of_any_pass_loses_nothing() {
    let steps = vec![weight(10), analysis(&["p95"]), weight(60)];
    for n in 0..3 {
        let mut w = World::new(spec(Some(steps.clone()), Some(gates(vec![gate("live")]))));
        let until = |w: &mut World, version: u32| {
            for i in 0..4000 {
                if w.status.phase == Phase::Healthy && w.status.stable_revision == Some(hash(version)) {
                    return;
                }
                let luck = if i % 2 == 0 { Luck::DiesAfter(n) } else { Luck::Good };
                let (seen, status) = (w.seen.clone(), w.status.clone());
                let pass = w.pass_on(seen, status, luck);
                let end = w.later(if luck == Luck::Good { 600 } else { 1 });
                w.wait_after(&pass, end);
            }
            panic!("{}", w.describe());
        };
        until(&mut w, 1);
        w.apply_version(2);
        until(&mut w, 2);
        assert_eq!(w.seen.runs.len(), 2, "no run twice\n{}", w.describe());
        assert_eq!(w.decided("Promoted"), 1);
    }
}

#[test]
fn a_canary_whose_pods_all_die_gets_no_call_until_they_are_back() {
    let mut w = paused_at_25();
    w.broken = vec![hash(2)];
    w.run(120);
    assert_eq!((w.applied(), w.decided("CanaryUnavailable"), w.status.abort.is_some()), (0, 1, false), "{}", w.describe());
    assert!(w.status.waiting_for.contains("canary pods: 0 of 3"), "{}", w.status.waiting_for);
    w.broken.clear();
    w.until_weight(25);
    w.until_phase(Phase::Paused);
    assert_eq!(w.status.current_step, Some(1));
}

#[test]
fn no_pause_ends_and_no_analysis_passes_while_the_canary_is_out_of_traffic() {
    let mut w = World::releasing(spec(Some(vec![weight(25), pause(Some(60)), analysis(&["p95"]), weight(50), pause(None)]), None));
    w.until_weight(25);
    w.broken = vec![hash(2)];
    w.run(900);
    assert_eq!((w.applied(), w.status.current_step), (0, Some(1)), "{}", w.describe());
    w.broken.clear();
    w.until_weight(50);
}

#[test]
fn a_new_revision_that_dies_while_stable_moves_to_it_gives_the_service_back() {
    let mut w = World::releasing(spec(Some(vec![weight(50)]), None));
    w.until("stable service moves", |w| w.seen.stable_arm.selects == Some(hash(2)));
    w.broken = vec![hash(2)];
    w.run(60);
    assert_eq!((w.applied(), w.seen.stable_arm.selects.clone()), (0, Some(hash(1))), "{}", w.describe());
    assert_eq!(w.decided("PromotionHeld"), 1);
    w.broken.clear();
    w.until("promoted", |w| w.status.stable_revision == Some(hash(2)));
}

#[test]
fn a_tool_that_keeps_changing_weights_does_not_push_decisions_out_of_the_record() {
    let mut w = paused_at_25();
    for i in 0..100 {
        set(&mut w, "agent", i % 20);
        w.run(20);
    }
    assert_eq!(
        (w.decided("ReleaseStarted"), w.decided("RoutesChangedByOthers"), w.decided("WeightApplied")),
        (1, 1, 2),
        "{}",
        w.describe()
    );
}
