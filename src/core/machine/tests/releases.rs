//! Whole releases that go well, and the ways a release may begin and end.

use super::specs::*;
use super::world::World;
use crate::api::action::Verb;
use crate::api::common::seconds;
use crate::api::notification::Trigger;
use crate::api::outbox::Cursor;
use crate::api::rollout::{CanaryScale, RollbackWindow, Step};
use crate::api::status::{Phase, Role};
use crate::core::notify;

/// Weights in the order they were read back.
fn weights(w: &World) -> Vec<i32> {
    let applied = w.status.decisions.iter().filter(|d| d.decision == "WeightApplied");
    applied.map(|d| d.reason.split(' ').next().unwrap().parse().unwrap()).collect()
}

fn until_stable(w: &mut World, version: u32) {
    w.until("promoted", |w| w.status.phase == Phase::Healthy && w.status.stable_revision == Some(hash(version)));
}

#[test]
fn default_steps_go_5_25_50_100_each_behind_the_background_gates() {
    let mut w = World::releasing(spec(None, Some(gates(vec![gate("p95")]))));
    until_stable(&mut w, 2);
    assert_eq!(weights(&w), [5, 25, 50, 100], "{}", w.describe());
    assert_eq!(w.applied(), 0);
    assert_eq!(w.seen.stable_arm.selects, Some(hash(2)));
    assert_eq!(w.decided("Promoted"), 1);
}

#[test]
fn the_article_s_release_takes_its_thirty_minutes_and_runs_its_gates_three_times() {
    let mut w = World::releasing(spec(Some(article()), None));
    let start = w.seen.now;
    until_stable(&mut w, 2);
    assert_eq!(weights(&w), [5, 25, 50, 100], "{}", w.describe());
    let took = w.seen.now.duration_since(start).as_secs();
    assert!((1800..2100).contains(&took), "{took} s");
    assert_eq!(w.seen.runs.len(), 3);
}

#[test]
fn the_loser_of_a_promotion_keeps_its_pods_for_max_drain_and_then_goes() {
    let mut w = World::releasing(spec(Some(vec![weight(50)]), None));
    until_stable(&mut w, 2);
    let old =
        |w: &World| (w.seen.replica_set(&hash(1)).map(|s| s.wanted), w.status.revisions.iter().find(|r| r.hash == hash(1)).unwrap().role);
    w.run(3500);
    assert_eq!(old(&w), (Some(10), Role::Draining));
    w.run(200);
    assert_eq!(old(&w), (Some(0), Role::Retired));
    assert_eq!(w.seen.replica_set(&hash(2)).unwrap().wanted, 10);
}

#[test]
fn the_first_deployment_needs_no_analysis_and_takes_the_services_when_it_can_answer() {
    let mut w = World::new(spec(Some(article()), None));
    w.pass();
    assert_eq!((w.status.phase, &w.seen.stable_arm.selects), (Phase::Initializing, &None));
    w.settle();
    assert_eq!(w.status.phase, Phase::Healthy, "{}", w.describe());
    assert!(w.seen.runs.is_empty());
    assert_eq!((w.seen.stable_arm.ready.get(&hash(1)), w.seen.canary_arm.ready.get(&hash(1))), (Some(&10), Some(&10)));
}

#[test]
fn a_first_deployment_that_never_gets_ready_is_replaced_by_the_next_version() {
    let mut w = World::new(spec(Some(article()), None));
    w.broken = vec![hash(1)];
    w.run(900);
    assert_eq!((w.status.phase, w.status.stable_revision.clone()), (Phase::Initializing, None), "{}", w.describe());
    w.apply_version(2);
    until_stable(&mut w, 2);
    assert_eq!(w.decided("FirstDeployed"), 1);
}

#[test]
fn a_first_version_that_the_services_select_keeps_its_pods_while_its_successor_is_broken() {
    let mut w = World::new(spec(Some(article()), None));
    w.until("services taken over", |w| w.seen.stable_arm.selects.is_some());
    w.broken = vec![hash(2)];
    w.apply_version(2);
    w.run(3 * 3600);
    assert_eq!(w.status.stable_revision, None);
    assert_eq!(w.seen.replica_set(&hash(1)).unwrap().wanted, 10, "callers still get version 1\n{}", w.describe());
}

#[test]
fn a_smoke_step_gives_the_canary_pods_and_its_service_before_any_call() {
    let steps = vec![weight(0), scale(2), analysis(&["evals"]), weight(5), analysis(&["p95"])];
    let mut w = World::releasing(spec(Some(steps), None));
    w.until("smoke run", |w| !w.seen.runs.is_empty());
    assert_eq!((w.applied(), w.seen.canary_arm.ready.get(&hash(2))), (0, Some(&2)), "{}", w.describe());
    until_stable(&mut w, 2);
    assert_eq!(weights(&w), [5]);
}

#[test]
fn a_smoke_test_that_fails_aborts_without_a_single_call_to_the_canary() {
    let mut w = World::releasing(spec(Some(vec![scale(1), analysis(&["evals"]), weight(50)]), None));
    w.script.insert("evals".into(), super::world::Say::Fail);
    w.until_phase(Phase::Degraded);
    assert!(!w.last_traffic.contains_key(&hash(2)));
}

#[test]
fn numbers_of_pods_alone_are_told_apart_from_what_decisions_rest_on() {
    let mut w = World::deployed(spec(Some(vec![weight(10), pause(None)]), None));
    assert!(w.pass().decision.counts_only.is_none(), "nothing differs");
    w.seen.replica_sets[0].ready = 7;
    let told = w.decide();
    assert_eq!((told.counts_only.is_some(), told.status.revisions[0].ready), (true, 7), "{}", w.describe());
    w.seen.replica_sets[0].available = 7;
    assert!(w.decide().counts_only.is_none(), "the condition Available says so");
    w.seen.replica_sets[0].ready = 10;
    w.seen.replica_sets[0].available = 10;
    w.apply_version(2);
    w.until("a canary", |w| w.seen.replica_set(&hash(2)).is_some());
    w.seen.replica_sets.iter_mut().for_each(|s| s.ready = s.wanted);
    assert!(w.decide().counts_only.is_none(), "a pod of the canary is progress");
}

#[test]
fn one_percent_of_ten_replicas_is_one_pod() {
    let mut w = World::releasing(spec(Some(vec![weight(1), pause(None)]), None));
    w.until_phase(Phase::Paused);
    assert_eq!((w.applied(), w.seen.replica_set(&hash(2)).unwrap().wanted), (1, 1), "{}", w.describe());
    assert_eq!(w.seen.replica_set(&hash(1)).unwrap().wanted, 10);
}

#[test]
fn canary_pods_grow_before_the_weight_does() {
    let mut w = World::releasing(spec(Some(vec![weight(5), weight(50), pause(None)]), None));
    w.until("25 pods", |w| w.seen.replica_set(&hash(2)).is_some_and(|s| s.wanted == 5));
    while w.seen.canary_arm.ready.get(&hash(2)) != Some(&5) {
        assert!(w.applied() <= 5, "{}", w.describe());
        w.step(w.later(60));
    }
    let known = w.seen.now;
    w.until_weight(50);
    assert!(w.seen.now.duration_since(known).as_secs() >= 9, "every proxy has to know the new pods first");
}

#[test]
fn pods_of_a_larger_scale_stay_when_the_scale_follows_the_weight_again() {
    let back =
        Step { set_canary_scale: Some(CanaryScale { match_traffic_weight: Some(true), ..CanaryScale::default() }), ..Step::default() };
    let mut w = World::releasing(spec(Some(vec![weight(5), scale(6), back, pause(None)]), None));
    w.until_phase(Phase::Paused);
    assert_eq!(w.seen.replica_set(&hash(2)).unwrap().wanted, 6, "they may carry calls");
}

#[test]
fn back_to_the_stable_template_takes_the_canary_out_at_once() {
    let mut w = World::releasing(spec(Some(article()), None));
    w.until_weight(25);
    w.apply_version(1);
    w.until_phase(Phase::Healthy);
    assert_eq!((w.applied(), w.status.stable_revision.clone()), (0, Some(hash(1))), "{}", w.describe());
    assert_eq!(w.seen.canary_arm.selects, Some(hash(1)));
    assert_eq!(w.decided("ReturnedToStable"), 1);
    let (told, _) = notify::news(&Cursor::default(), ("voice", "agent", "uid"), &w.status, w.seen.now);
    let last = &told.last().unwrap().facts;
    assert_eq!((last.trigger, last.revision.clone(), last.stable_revision.clone()), (Trigger::Aborted, hash(2), hash(1)));
}

#[test]
fn a_newer_revision_replaces_the_canary_and_the_service_moves_only_at_weight_0() {
    let mut w = World::releasing(spec(Some(article()), None));
    w.until_weight(25);
    w.apply_version(3);
    w.until("service moved", |w| {
        let moved = w.seen.canary_arm.selects == Some(hash(3));
        assert!(!moved || w.applied() == 0, "moved at {}", w.applied());
        moved
    });
    let zero = w.status.step.weight_since.clone();
    assert!(zero.is_none() || w.seen.now.duration_since(zero.unwrap().0).as_secs() >= 10, "before every proxy knew");
    until_stable(&mut w, 3);
    assert_eq!(w.status.revisions.iter().find(|r| r.hash == hash(2)).map(|r| r.was_stable), Some(false));
}

#[test]
fn a_version_inside_the_rollback_window_comes_back_without_steps() {
    let mut s = spec(Some(article()), None);
    s.rollback_window = Some(RollbackWindow { revisions: 1 });
    let mut w = World::releasing(s);
    until_stable(&mut w, 2);
    let runs = w.seen.runs.len();
    w.apply_version(1);
    until_stable(&mut w, 1);
    assert_eq!((w.decided("RolledBack"), w.seen.runs.len()), (1, runs), "{}", w.describe());
}

#[test]
fn a_version_outside_the_rollback_window_goes_through_the_steps() {
    let mut s = spec(Some(vec![weight(50), analysis(&["p95"])]), None);
    s.rollback_window = Some(RollbackWindow { revisions: 1 });
    let mut w = World::releasing(s);
    until_stable(&mut w, 2);
    w.apply_version(3);
    until_stable(&mut w, 3);
    w.apply_version(1);
    until_stable(&mut w, 1);
    assert_eq!((w.decided("RolledBack"), w.decided("RollbackStarted")), (0, 0), "{}", w.describe());
}

#[test]
fn an_aborted_version_does_not_come_back_without_steps() {
    let mut s = spec(Some(vec![weight(50), pause(None)]), None);
    s.rollback_window = Some(RollbackWindow { revisions: 5 });
    let mut w = World::releasing(s);
    w.until_phase(Phase::Paused);
    w.command(Verb::Promote);
    until_stable(&mut w, 2);
    w.apply_version(1);
    w.pass();
    assert!(w.command(Verb::Abort).0, "{}", w.describe());
    w.until_phase(Phase::Degraded);
    w.apply_version(2);
    w.until_phase(Phase::Healthy);
    w.apply_version(1);
    w.until_phase(Phase::Paused);
    assert_eq!(w.decided("RolledBack"), 0, "{}", w.describe());
}

#[test]
fn steps_that_change_start_again_and_keep_the_attempt() {
    let mut w = World::releasing(spec(Some(article()), Some(gates(vec![gate("live")]))));
    w.until_weight(25);
    let traffic = w.status.step.traffic_since.clone();
    w.edit(|s| s.steps = Some(vec![weight(10), pause(Some(60)), weight(60)]));
    w.pass();
    assert_eq!((w.status.current_step, w.decided("StepsChanged"), w.status.attempt), (Some(0), 1, 1), "{}", w.describe());
    assert_eq!(w.status.step.traffic_since, traffic, "the canary has had traffic all along");
    w.until_weight(10);
    until_stable(&mut w, 2);
}

#[test]
fn subsets_in_place_of_services_go_the_same_way() {
    let mut s = spec(Some(article()), None);
    let istio = s.traffic.istio.as_mut().unwrap();
    (istio.stable_service, istio.canary_service) = (None, None);
    let (stable_subset, canary_subset) = ("stable".into(), "canary".into());
    istio.destination_rule = Some(crate::api::rollout::DestinationRuleRef { name: "agent".into(), stable_subset, canary_subset });
    let mut w = World::new(s);
    (w.seen.stable_arm.name, w.seen.canary_arm.name) = ("subset stable".into(), "subset canary".into());
    w.settle();
    w.apply_version(2);
    until_stable(&mut w, 2);
    assert!(w.plan().by_subset);
    assert_eq!(weights(&w), [5, 25, 50, 100]);
}

#[test]
fn a_return_during_the_change_of_roles_waits_for_its_end_and_then_goes_back() {
    let mut s = spec(Some(vec![weight(50)]), None);
    s.rollback_window = Some(RollbackWindow { revisions: 3 });
    let mut w = World::releasing(s);
    w.until("stable service moves", |w| w.seen.stable_arm.selects == Some(hash(2)));
    w.apply_version(1);
    w.until("back", |w| w.status.phase == Phase::Healthy && w.status.stable_revision == Some(hash(1)));
    assert_eq!((w.decided("Promoted"), w.decided("RolledBack")), (1, 1), "{}", w.describe());
}

#[test]
fn replicas_that_are_scaled_in_mid_release_are_followed_by_stable_and_canary() {
    let mut w = World::releasing(spec(Some(vec![weight(50), pause(None)]), None));
    w.until_phase(Phase::Paused);
    w.edit(|s| s.replicas = 20);
    w.run(60);
    let size = |w: &World, v| w.seen.replica_set(&hash(v)).unwrap().wanted;
    assert_eq!((size(&w, 1), size(&w, 2)), (20, 10), "{}", w.describe());
}

#[test]
fn a_release_with_no_replicas_ends_and_never_waits_for_pods_that_cannot_come() {
    let mut s = spec(Some(vec![weight(50)]), None);
    s.replicas = 0;
    s.progress_deadline = seconds(60);
    let mut w = World::releasing(s);
    until_stable(&mut w, 2);
    assert_eq!(w.decided("Aborted"), 0);
}

#[test]
fn weights_stay_at_the_canary_arm_until_stable_holds_exactly_the_new_pods() {
    let mut w = World::releasing(spec(Some(vec![weight(50)]), None));
    w.until_weight(100);
    w.endpoints_stall = true;
    w.run(400);
    assert_eq!((w.applied(), w.seen.stable_arm.selects.clone()), (100, Some(hash(2))), "{}", w.describe());
    assert!(w.status.waiting_for.contains("agent-stable"), "{}", w.status.waiting_for);
    w.endpoints_stall = false;
    until_stable(&mut w, 2);
}
