//! Workers that pull their jobs: a weight is a number of them.

use proptest::prelude::*;

use super::drains::{Happens, config, counted, happens, revision, story, wanted};
use super::specs::*;
use super::world::{Say, World};
use crate::api::VoiceRolloutSpec;
use crate::api::action::Verb;
use crate::api::common::seconds;
use crate::api::rollout::{RollbackWindow, Step};
use crate::api::sessions::{Drain, OnMaxDrain};
use crate::api::status::{Phase, Role};
use crate::core::intent::Intent;

fn workers(steps: Vec<Step>) -> VoiceRolloutSpec {
    VoiceRolloutSpec { traffic: pulled(), ..spec(Some(steps), None) }
}

/// Four workers whose calls are counted.
fn talking(steps: Vec<Step>) -> VoiceRolloutSpec {
    VoiceRolloutSpec { traffic: pulled(), ..counted(steps) }
}

fn condition(w: &World, name: &str) -> Option<(String, String)> {
    w.status.conditions.iter().find(|c| c.type_ == name).map(|c| (c.status.clone(), c.message.clone()))
}

#[test]
fn weights_are_numbers_of_workers_and_stable_stays_whole() {
    let steps = [5, 25, 50, 75, 100].into_iter().flat_map(|w| [weight(w), pause(None)]).collect();
    let mut w = World::releasing(workers(steps));
    for (asked, canary, share) in [(5, 1, 9), (25, 3, 23), (50, 10, 50), (75, 10, 50), (100, 10, 50)] {
        w.until(&format!("weight {asked}"), |w| w.status.phase == Phase::Paused && w.status.weights.desired == asked);
        assert_eq!((wanted(&w, 1), wanted(&w, 2), w.status.weights.applied), (10, canary, share), "{}", w.describe());
        assert!(w.status.message.contains(&format!("step weight {asked} %: {canary} canary worker")), "{}", w.status.message);
        assert!(w.command(Verb::Promote).0);
    }
    w.until_phase(Phase::Healthy);
    assert_eq!((wanted(&w, 1), wanted(&w, 2), w.status.stable_revision.clone()), (0, 10, Some(hash(2))), "{}", w.describe());
    assert_eq!((w.status.weights.applied, w.status.weights.desired), (0, 0));
    let (status, beyond) = condition(&w, "WeightsReachable").unwrap();
    assert_eq!(status, "False");
    assert_eq!(beyond, "step weight 75 %: 10 canary workers of 20, 50 % of new calls is the most with stable kept whole");
    assert_eq!((condition(&w, "RoutesInSync"), condition(&w, "ReferencesResolved").map(|c| c.0)), (None, Some("True".into())));
}

#[test]
fn the_default_steps_can_all_be_reached() {
    let mut s = spec(None, Some(gates(vec![gate("live")])));
    s.traffic = pulled();
    let mut w = World::releasing(s);
    w.until("version 2 is stable", |w| w.status.stable_revision == Some(hash(2)));
    assert_eq!(w.decided("WeightApplied"), 4, "{}", w.describe());
    assert_eq!(condition(&w, "WeightsReachable").unwrap().0, "True");
}

#[test]
fn an_abort_ends_the_canary_workers_at_once_and_before_anything_else() {
    let mut w = World::releasing(workers(vec![weight(50), pause(None)]));
    w.until_phase(Phase::Paused);
    w.ask(Verb::Abort);
    let pass = w.pass();
    let name = w.seen.replica_set(&hash(2)).unwrap().name.clone();
    assert_eq!(pass.decision.urgent, [Intent::ScaleReplicaSet { name, replicas: 0 }]);
    assert_eq!(pass.decision.status.phase, Phase::Reverting);
    w.until_phase(Phase::Degraded);
    assert_eq!((wanted(&w, 1), wanted(&w, 2), w.status.abort.as_ref().unwrap().weight), (10, 0, 50));
    w.settle();
    assert!(w.command(Verb::Retry).0);
    w.until_phase(Phase::Paused);
    assert_eq!((wanted(&w, 2), w.status.attempt), (10, 2), "{}", w.describe());
}

#[test]
fn a_failed_gate_ends_them_too() {
    let mut w = World::releasing(workers(vec![weight(25), analysis(&["p95"]), weight(50)]));
    w.script.insert("p95".into(), Say::Fail);
    w.until_phase(Phase::Degraded);
    assert_eq!((wanted(&w, 1), wanted(&w, 2)), (10, 0));
    assert!(w.status.abort.as_ref().unwrap().reason.contains("weight 23"), "{:?}", w.status.abort);
}

#[test]
fn a_newer_version_takes_the_workers_of_the_one_it_supersedes() {
    let mut w = World::releasing(workers(vec![weight(50), pause(None)]));
    w.until_phase(Phase::Paused);
    w.apply_version(3);
    w.pass();
    assert_eq!(wanted(&w, 2), 0, "{}", w.describe());
    w.until_phase(Phase::Paused);
    assert_eq!((wanted(&w, 1), wanted(&w, 2), wanted(&w, 3)), (10, 0, 10), "{}", w.describe());
    w.apply_version(1);
    w.until_phase(Phase::Healthy);
    assert_eq!((wanted(&w, 1), wanted(&w, 2), wanted(&w, 3)), (10, 0, 0), "{}", w.describe());
}

#[test]
fn a_lower_weight_is_fewer_workers() {
    let mut w = World::releasing(workers(vec![weight(50), pause(Some(60)), weight(5), pause(None)]));
    w.until_phase(Phase::Paused);
    assert_eq!((wanted(&w, 1), wanted(&w, 2), w.status.weights.applied), (10, 1, 9), "{}", w.describe());
}

#[test]
fn nothing_is_added_while_stable_is_not_whole() {
    let mut w = World::releasing(workers(vec![weight(5), pause(Some(60)), weight(50), pause(None)]));
    w.until("the first step", |w| w.status.weights.applied == 9);
    w.quota.insert(hash(1), 8);
    w.run(300);
    assert_eq!(wanted(&w, 2), 1, "{}", w.describe());
    assert_eq!(w.status.waiting_for, "stable workers: 8 of 10 available");
    assert!(w.command(Verb::PromoteFull).0, "a person may go on");
    w.until("version 2 is stable", |w| w.status.stable_revision == Some(hash(2)));
}

#[test]
fn without_workers_a_release_waits_for_some() {
    let mut w = World::deployed(VoiceRolloutSpec { replicas: 0, ..workers(vec![weight(50)]) });
    w.apply_version(2);
    w.settle();
    assert_eq!((w.status.phase, wanted(&w, 2)), (Phase::Paused, 0), "{}", w.describe());
    assert!(w.status.waiting_for.starts_with("spec.replicas to be more than 0"), "{}", w.status.waiting_for);
    w.edit(|s| s.replicas = 3);
    w.until("version 2 is stable", |w| w.status.stable_revision == Some(hash(2)));
    assert_eq!((wanted(&w, 1), wanted(&w, 2)), (0, 3), "{}", w.describe());
}

#[test]
fn a_pause_by_a_person_adds_no_workers() {
    let mut w = World::releasing(workers(vec![weight(5), pause(Some(60)), weight(50), pause(None)]));
    w.until("the first step", |w| w.status.weights.applied == 9);
    assert!(w.command(Verb::Pause).0);
    w.run(600);
    assert_eq!((wanted(&w, 2), w.status.phase), (1, Phase::Paused), "{}", w.describe());
    assert!(w.command(Verb::Resume).0);
    w.until("the second step", |w| w.status.weights.applied == 50);
}

#[test]
fn a_wrong_spec_moves_nobody_and_an_abort_works_all_the_same() {
    let mut w = World::releasing(workers(vec![weight(25), pause(None)]));
    w.until_phase(Phase::Paused);
    w.edit(|s| s.steps = Some(vec![weight(50), scale(1)]));
    w.run(100);
    assert_eq!((w.status.phase, wanted(&w, 1), wanted(&w, 2)), (Phase::Invalid, 10, 3), "{}", w.describe());
    assert!(w.status.message.contains("spec.steps[1].setCanaryScale: with traffic.replicas"), "{}", w.status.message);
    assert!(w.command(Verb::Abort).0);
    w.until_phase(Phase::Degraded);
    assert_eq!((wanted(&w, 1), wanted(&w, 2)), (10, 0), "{}", w.describe());
}

#[test]
fn workers_that_end_are_shown_with_their_calls_until_they_are_gone() {
    let mut w = World::releasing(talking(vec![weight(50), pause(None)]));
    w.until_phase(Phase::Paused);
    w.agents.iter_mut().for_each(|a| a.calls = 1);
    assert!(w.command(Verb::Promote).0);
    w.until_phase(Phase::Healthy);
    w.run(30);
    assert_eq!((wanted(&w, 1), revision(&w, 1).role, revision(&w, 1).ending), (0, Role::Draining, 4), "{}", w.describe());
    assert_eq!(w.status.live_calls, "v2 4, v1 4");
    let (status, text) = condition(&w, "Draining").unwrap();
    assert!(status == "True" && text.contains("terminationGracePeriodSeconds"), "{text}");
    assert!(w.seen.budgets.is_empty(), "nothing keeps a pod from ending that was told to");
    w.agents.iter_mut().filter(|a| a.ending.is_some()).take(3).for_each(|a| a.calls = 0);
    w.run(30);
    assert_eq!((revision(&w, 1).ending, w.status.live_calls.as_str()), (1, "v2 4, v1 1"), "{}", w.describe());
    w.agents.iter_mut().for_each(|a| a.calls = 0);
    w.settle();
    assert_eq!((revision(&w, 1).role, revision(&w, 1).calls_cut, w.gone_pods.len()), (Role::Retired, 0, 4), "{}", w.describe());
}

#[test]
fn calls_that_outlive_the_grace_period_are_counted() {
    let mut s = talking(vec![weight(50)]);
    s.template.spec.as_mut().unwrap().termination_grace_period_seconds = Some(60);
    let mut w = World::new(s.clone());
    w.settle();
    assert_eq!(w.status.preflight.iter().map(|f| f.code.as_str()).collect::<Vec<_>>(), ["GracePeriodTooShort"]);
    assert!(w.status.preflight[0].sentence.contains("are drained by ending them"), "{:?}", w.status.preflight);
    w.agents.iter_mut().for_each(|a| a.calls = 2);
    s.template.spec.as_mut().unwrap().containers[0].image = Some("agent:v2".into());
    let first = w.status.stable_revision.clone().unwrap();
    w.edit(|spec| spec.template = s.template);
    w.until("version 2 is stable", |w| w.status.stable_revision.as_ref() != Some(&first));
    w.run(50);
    let old = |w: &World| w.status.revisions.iter().find(|r| r.hash == first).unwrap().clone();
    assert_eq!((old(&w).ending, old(&w).calls_cut), (4, 0), "{}", w.describe());
    w.run(60);
    assert_eq!((old(&w).ending, old(&w).calls_cut, w.decided("CallsCut")), (0, 8, 1), "{}", w.describe());
}

#[test]
fn a_rollback_starts_fresh_workers_beside_those_that_end() {
    let mut s = talking(vec![weight(50)]);
    s.rollback_window = Some(RollbackWindow { revisions: 2 });
    let mut w = World::releasing(s);
    w.agents.iter_mut().for_each(|a| a.calls = 1);
    w.until("version 2 is stable", |w| w.status.stable_revision == Some(hash(2)));
    w.run(30);
    w.apply_version(1);
    w.until("version 1 is stable again", |w| w.status.stable_revision == Some(hash(1)));
    w.run(5);
    let of = |w: &World, ending: bool| w.agents.iter().filter(|a| a.hash == hash(1) && a.ending.is_some() == ending).count();
    assert_eq!((of(&w, false), of(&w, true), w.decided("RolledBack")), (4, 4, 1), "{}", w.describe());
    assert_eq!(wanted(&w, 2), 0);
}

#[test]
fn revisions_whose_workers_end_count_as_live_ones() {
    let mut w = World::deployed(talking(vec![weight(50)]));
    for version in 2..=3 {
        w.agents.iter_mut().for_each(|a| a.calls = 1);
        w.apply_version(version);
        w.until("it is stable", |w| w.status.stable_revision == Some(hash(version)));
        w.run(10);
    }
    w.apply_version(4);
    w.run(300);
    assert_eq!(wanted(&w, 4), 0, "{}", w.describe());
    assert!(w.status.waiting_for.contains("maxLiveRevisions"), "{}", w.status.waiting_for);
    w.agents.iter_mut().filter(|a| a.hash == hash(1)).for_each(|a| a.calls = 0);
    w.until("version 4 is stable", |w| w.status.stable_revision == Some(hash(4)));
}

#[test]
fn what_means_nothing_here_is_named() {
    let errors = |change: fn(&mut VoiceRolloutSpec)| {
        let mut s = talking(vec![weight(50)]);
        change(&mut s);
        World::new(s).plan().errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(errors(|_| ()), "");
    let both = errors(|s| s.traffic.istio = spec(None, None).traffic.istio);
    assert!(both.starts_with("spec.traffic: istio and replicas are two ways"), "{both}");
    let none = errors(|s| s.traffic.replicas = None);
    assert!(none.starts_with("spec.traffic: set istio (routes"), "{none}");
    let split = errors(|s| s.traffic.proof = Some(proof(serde_json::json!({}))));
    assert!(split.starts_with("spec.traffic.proof: holds calls against"), "{split}");
    let keep = errors(|s| s.drain = Drain { on_max_drain: OnMaxDrain::Keep, max_drain: seconds(900), ..Drain::default() });
    assert!(keep.starts_with("spec.drain.onMaxDrain: Keep is not possible with traffic.replicas"), "{keep}");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn cut_calls_are_told_in_every_story_of_workers(events in prop::collection::vec(happens(), 1..25)) {
        let events: Vec<Happens> = events;
        let end = story(&events, Some(pulled()));
        prop_assert!(end.is_ok(), "{}", end.unwrap_err());
    }
}
