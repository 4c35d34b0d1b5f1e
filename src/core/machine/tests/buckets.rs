//! Generated routes beside weights: read back, put right, taken away.

use super::specs::*;
use super::world::{World, route_seen};
use crate::api::action::Verb;
use crate::api::status::Phase;
use crate::core::intent::Intent;
use crate::core::route::{Buckets, Direction};

fn set(w: &mut World, buckets: Buckets) {
    w.seen.routes[0].weights.as_mut().unwrap()[0].buckets = buckets;
}

fn now(w: &World) -> Buckets {
    w.seen.routes[0].weights.as_ref().unwrap()[0].buckets
}

fn sticky_at_25() -> World {
    let mut w = World::new(spec(Some(vec![weight(25), pause(None), weight(50), pause(None)]), None));
    set(&mut w, Buckets::Absent);
    w.settle();
    w.apply_version(2);
    w.until_phase(Phase::Paused);
    assert_eq!(now(&w), Buckets::At(25), "{}", w.describe());
    w
}

#[test]
fn a_weight_stands_only_when_the_generated_routes_say_it_too() {
    for found in [Buckets::Absent, Buckets::At(10), Buckets::At(70), Buckets::Wrong(0), Buckets::Wrong(25), Buckets::Wrong(100)] {
        let mut w = sticky_at_25();
        set(&mut w, found);
        let told = w.decide();
        assert!(
            told.status.step.weight_since.is_none() && told.intents.iter().any(|i| matches!(i, Intent::SetWeights { .. })),
            "{found:?}"
        );
        let reason = &told.status.decisions.last().unwrap().reason;
        assert!(reason.contains("voice/agent: the http routes of headerBuckets are not what they should be"), "{reason}");
        w.run(60);
        assert_eq!((now(&w), w.applied()), (Buckets::At(25), 25), "{found:?}: {}", w.describe());
    }
}

#[test]
fn while_steps_stand_still_too_many_buckets_are_taken_back_and_missing_ones_wait() {
    for (found, then) in [(Buckets::At(70), Buckets::At(25)), (Buckets::Wrong(100), Buckets::At(25)), (Buckets::Absent, Buckets::Absent)] {
        let mut w = sticky_at_25();
        w.edit(|s| s.paused = true);
        w.settle();
        set(&mut w, found);
        w.run(60);
        assert_eq!((now(&w), w.seen.routes[0].weights.as_ref().unwrap()[0].canary), (then, 25), "{found:?}: {}", w.describe());
    }
}

#[test]
fn an_abort_is_over_only_when_no_generated_route_is_left() {
    let mut w = sticky_at_25();
    assert!(w.command(Verb::Abort).0);
    w.run(60);
    assert_eq!((now(&w), w.status.phase), (Buckets::Absent, Phase::Degraded), "{}", w.describe());
    // Somebody applies an old copy.
    set(&mut w, Buckets::Wrong(25));
    let decision = w.decide();
    assert_eq!((decision.status.phase, decision.status.weights.applied), (Phase::Reverting, 25));
    let back = |i: &Intent| matches!(i, Intent::SetWeights { canary: 0, direction: Direction::Lower, .. });
    assert!(decision.urgent.iter().any(back), "{decision:?}");
    w.run(60);
    assert_eq!((now(&w), w.status.phase), (Buckets::Absent, Phase::Degraded), "{}", w.describe());
}

#[test]
fn what_was_made_for_a_route_that_cannot_be_read_is_taken_back_by_an_abort_too() {
    let mut w = sticky_at_25();
    let route = &mut w.seen.routes[0];
    (route.weights, route.strays) = (Err("VirtualService voice/agent has no http route \"calls\"".into()), true);
    assert!(w.command(Verb::Abort).0);
    let decision = w.decide();
    assert!(decision.urgent.iter().any(|i| matches!(i, Intent::SetWeights { canary: 0, .. })), "{decision:?}");
    // And a deletion waits for it.
    w.seen.deleting = true;
    let decision = w.decide();
    assert!(!decision.intents.contains(&Intent::RemoveFinalizer) && !decision.urgent.is_empty(), "{decision:?}");
}

#[test]
fn promotion_ends_without_generated_routes() {
    let mut w = World::new(spec(Some(vec![weight(25)]), None));
    set(&mut w, Buckets::Absent);
    w.settle();
    w.apply_version(2);
    w.until("all weight", |w| now(w) == Buckets::At(100));
    w.until_phase(Phase::Healthy);
    assert_eq!((now(&w), w.status.stable_revision.clone()), (Buckets::Absent, Some(hash(2))), "{}", w.describe());
}

#[test]
fn a_route_that_is_not_named_any_more_is_let_go_when_nothing_of_ours_is_left_there() {
    let mut w = World::new(spec(Some(vec![weight(25), pause(None)]), None));
    w.seen.routes.push(route_seen("second", 0));
    set(&mut w, Buckets::Absent);
    w.settle();
    w.apply_version(2);
    w.until_phase(Phase::Paused);
    w.drop_route("second");
    let dropped = w.dropped[0].weights.as_mut().unwrap();
    (dropped[0].canary, dropped[0].stable, dropped[0].buckets) = (0, 100, Buckets::Wrong(25));
    assert!(w.decide().intents.iter().any(|i| matches!(i, Intent::ReturnRoute { .. })), "{}", w.describe());
    w.settle();
    assert_eq!((w.status.managed_routes.len(), w.decided("RouteReturned")), (1, 1), "{}", w.describe());
}

#[test]
fn a_route_above_that_takes_every_call_is_a_condition_and_nothing_more() {
    let mut w = sticky_at_25();
    w.seen.routes[0].shadowed = Some("http route \"all\" stands above \"calls\" and takes every call".into());
    w.pass();
    let condition = w.status.conditions.iter().find(|c| c.type_ == "RoutesInSync").unwrap();
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "Shadowed"));
    assert_eq!((now(&w), w.status.phase), (Buckets::At(25), Phase::Paused));
}
