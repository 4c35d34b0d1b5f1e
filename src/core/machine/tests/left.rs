//! Routes that are taken out of the spec, or put into it, in mid-release.

use super::specs::*;
use super::world::{Luck, World, route_seen};
use crate::api::action::Verb;
use crate::api::status::Phase;
use crate::core::intent::Intent;
use crate::core::route::Split;

/// Two VirtualServices, 25 % of the calls of both go to the canary.
fn two_at_25() -> World {
    let mut w = World::new(spec(Some(vec![weight(25), pause(None), weight(50), pause(None)]), None));
    w.seen.routes.push(route_seen("second", 0));
    w.settle();
    assert!(w.status.managed_routes.is_empty());
    w.apply_version(2);
    w.until_phase(Phase::Paused);
    assert_eq!(w.status.managed_routes.len(), 2, "{}", w.describe());
    w
}

fn returns(w: &World) -> usize {
    let decision = w.decide();
    decision.urgent.iter().chain(&decision.intents).filter(|i| matches!(i, Intent::ReturnRoute { .. })).count()
}

#[test]
fn a_virtual_service_that_is_not_named_any_more_is_given_back_and_then_let_go() {
    let mut w = two_at_25();
    w.drop_route("second");
    let told = w.decide().status.message;
    assert!(told.contains("voice/second is not in the spec any more") && told.contains("25 %"), "{told}");
    w.settle();
    assert_eq!((w.dropped_weight("second"), w.applied(), w.status.phase), (0, 25, Phase::Paused), "{}", w.describe());
    assert_eq!((w.decided("RouteReturned"), w.status.managed_routes.len()), (1, 1), "{}", w.describe());
    // Let go: whatever happens to it from here is nobody's business here.
    w.dropped[0] = route_seen("second", 70);
    w.run(600);
    assert_eq!((w.dropped_weight("second"), returns(&w)), (70, 0));
}

#[test]
fn giving_back_is_asked_for_until_it_is_seen_also_after_a_crash() {
    let mut w = two_at_25();
    w.drop_route("second");
    for _ in 0..5 {
        let (seen, status) = (w.seen.clone(), w.status.clone());
        let pass = w.pass_on(seen, status, Luck::DiesAfter(0));
        assert!(pass.decision.wake_at.is_some() && returns(&w) == 1, "{}", w.describe());
        w.advance_to(w.later(10));
    }
    assert_eq!((w.dropped_weight("second"), w.decided("RouteReturned")), (25, 0));
    w.settle();
    assert_eq!((w.dropped_weight("second"), w.decided("RouteReturned")), (0, 1));
}

#[test]
fn a_virtual_service_that_is_gone_or_is_anothers_now_is_let_go() {
    for why in ["VirtualService voice/second does not exist any more", "managed by VoiceRollout voice/other now"] {
        let mut w = two_at_25();
        w.drop_route("second");
        w.dropped[0].weights = Err(why.into());
        w.pass();
        assert_eq!((w.decided("RouteLeft"), w.status.managed_routes.len(), returns(&w)), (1, 1, 0), "{}", w.describe());
        assert!(w.status.decisions.iter().any(|d| d.reason.contains(why)));
        w.settle();
    }
}

#[test]
fn other_destinations_in_the_spec_let_the_old_ones_go_after_they_are_given_back() {
    let mut w = two_at_25();
    // The VirtualServices still have the old two.
    w.seen.split = Some(Split::Hosts { namespace: "voice".into(), stable: "new-stable".into(), canary: "new-canary".into() });
    w.dropped = w.seen.routes.clone();
    for route in &mut w.seen.routes {
        route.weights = Err("VirtualService has other destinations".into());
    }
    w.run(60);
    assert_eq!((w.dropped_weight("agent"), w.dropped_weight("second")), (0, 0), "{}", w.describe());
    assert!(w.status.managed_routes.is_empty(), "{}", w.describe());
}

#[test]
fn an_abort_waits_for_a_route_that_is_not_named_any_more_and_its_canary_keeps_its_pods() {
    let mut w = two_at_25();
    w.drop_route("second");
    // It cannot be written.
    let stuck = w.dropped[0].clone();
    assert!(w.command(Verb::Abort).0);
    for _ in 0..200 {
        w.dropped[0] = stuck.clone();
        w.step(w.later(60));
    }
    w.dropped[0] = stuck;
    w.pass();
    assert_eq!((w.status.phase, w.seen.replica_set(&hash(2)).unwrap().wanted), (Phase::Reverting, 3), "{}", w.describe());
    assert!(w.status.message.contains("voice/second"), "{}", w.status.message);
    w.until_phase(Phase::Degraded);
    assert_eq!(w.dropped_weight("second"), 0);
    w.until("its pods go", |w| w.seen.replica_set(&hash(2)).unwrap().wanted == 0);
}

#[test]
fn the_next_canary_gets_no_calls_from_a_route_that_is_not_named_any_more() {
    let mut w = two_at_25();
    w.drop_route("second");
    let stuck = w.dropped[0].clone();
    w.apply_version(3);
    for _ in 0..50 {
        w.dropped[0] = stuck.clone();
        w.step(w.later(60));
    }
    assert_eq!(w.seen.canary_arm.selects, Some(hash(2)), "{}", w.describe());
    w.until_weight(25);
    assert_eq!((w.dropped_weight("second"), w.seen.canary_arm.selects.clone()), (0, Some(hash(3))));
}

#[test]
fn a_route_is_not_given_back_to_a_service_without_ready_pods() {
    let mut w = two_at_25();
    w.broken = vec![hash(1)];
    w.run(10);
    w.drop_route("second");
    w.run(60);
    assert_eq!((w.dropped_weight("second"), returns(&w)), (25, 0), "{}", w.describe());
    assert!(w.status.message.contains("when agent-stable has a ready pod"), "{}", w.status.message);
    w.broken.clear();
    w.settle();
    assert_eq!(w.dropped_weight("second"), 0);
}

#[test]
fn deletion_gives_back_routes_that_are_not_named_any_more_and_those_that_can_be_read_beside_others() {
    let mut w = two_at_25();
    w.drop_route("second");
    w.seen.deleting = true;
    w.pass();
    assert!(!w.gone);
    w.run(30);
    assert!(w.gone && w.applied() == 0 && w.dropped_weight("second") == 0, "{}", w.describe());

    let mut w = two_at_25();
    let route = &mut w.seen.routes[1];
    route.readable = std::mem::replace(&mut route.weights, Err("VirtualService voice/second: has no http route".into())).unwrap();
    w.seen.deleting = true;
    let urgent = w.pass().decision.urgent;
    assert!(urgent.iter().any(|i| matches!(i, Intent::SetWeights { name, canary: 0, .. } if name == "second")), "{urgent:?}");
    assert!(!w.gone);
    w.seen.routes[1].readable.clear();
    w.run(30);
    assert!(w.gone, "{}", w.describe());
}

#[test]
fn deletion_leaves_the_routes_of_an_older_rollout_and_gives_back_the_others() {
    let mut w = two_at_25();
    w.seen.rival = Some("VirtualService voice/second is managed by VoiceRollout voice/first already".into());
    w.seen.routes[1].theirs = true;
    w.seen.deleting = true;
    w.run(30);
    assert!(w.gone && w.seen.routes[0].says(0) && w.seen.routes[1].says(25), "{}", w.describe());
}

#[test]
fn a_virtual_service_that_is_named_in_mid_release_gets_the_weight_and_nobody_is_blamed() {
    let mut w = World::releasing(spec(Some(vec![weight(25), pause(None)]), None));
    w.until_phase(Phase::Paused);
    w.seen.routes.push(route_seen("second", 0));
    w.settle();
    assert!(w.seen.routes[1].says(25), "{}", w.describe());
    assert_eq!((w.decided("RoutesChangedByOthers"), w.status.managed_routes.len()), (0, 2), "{}", w.describe());
}
