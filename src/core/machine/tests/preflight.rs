//! What the preflight finds: told once, and with `Enforce` in the way of more traffic for the canary, of nothing else.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::specs::*;
use super::world::World;
use crate::api::action::Verb;
use crate::api::conditions::PREFLIGHT;
use crate::api::rollout::{Preflight, RollbackWindow};
use crate::api::status::{MAX_FINDINGS, Phase};
use crate::core::preflight::{Keeper, KeptObject, Tool};

/// Something is found, or nothing any more.
pub fn find(w: &mut World, names: &[&str]) {
    let keeper = || Keeper { tool: Tool::FluxHelm, name: "agent".into(), said: None };
    let kept =
        |name: &&str| KeptObject { kind: "Service", namespace: "voice".into(), name: (*name).into(), routes: vec![], keeper: keeper() };
    w.seen.surroundings.selectors = names.iter().map(kept).collect();
}

fn enforced() -> World {
    let mut s = spec(Some(vec![weight(5), pause(Some(60)), weight(50), pause(Some(60))]), None);
    s.preflight = Preflight::Enforce;
    World::deployed(s)
}

fn condition(w: &World) -> Condition {
    w.status.conditions.iter().find(|c| c.type_ == PREFLIGHT).cloned().expect("a condition")
}

#[test]
fn a_change_of_what_is_found_is_told_once() {
    let mut w = World::deployed(spec(Some(vec![weight(5)]), None));
    assert_eq!((condition(&w).status.as_str(), w.status.preflight.len()), ("True", 0));
    find(&mut w, &["a"]);
    w.settle();
    assert_eq!((condition(&w).status.as_str(), condition(&w).reason.as_str()), ("False", "GitOpsOverwrites"));
    assert!(condition(&w).message.starts_with("GitOpsOverwrites: Service voice/a is kept by "), "{:?}", condition(&w));
    assert!(condition(&w).message.contains(" Fix: annotate it in the chart"), "{:?}", condition(&w));
    find(&mut w, &["a", "b"]);
    w.edit(|s| s.template.spec.as_mut().unwrap().termination_grace_period_seconds = None);
    w.settle();
    assert_eq!((condition(&w).reason.as_str(), condition(&w).message.lines().count()), ("Findings", 3));
    find(&mut w, &[]);
    w.apply_version(1);
    w.settle();
    assert_eq!((condition(&w).status.as_str(), w.status.preflight.len()), ("True", 0));
    let told: Vec<&str> = w.told.iter().map(String::as_str).filter(|t| t.starts_with("Preflight")).collect();
    assert_eq!(told, ["PreflightFindings", "PreflightFindings", "PreflightPassed"]);
}

#[test]
fn many_findings_do_not_fill_the_status() {
    let mut w = World::deployed(spec(Some(vec![weight(5)]), None));
    let names: Vec<String> = (0..30).map(|i| format!("s{i}")).collect();
    find(&mut w, &names.iter().map(String::as_str).collect::<Vec<_>>());
    w.settle();
    assert_eq!(w.status.preflight.len(), MAX_FINDINGS);
    assert!(condition(&w).message.ends_with("\nand 10 more"));
}

#[test]
fn a_warning_changes_nothing_else() {
    let mut w = World::deployed(spec(Some(vec![weight(5)]), None));
    find(&mut w, &["a"]);
    w.apply_version(2);
    w.until("promoted", |w| w.status.stable_revision == Some(hash(2)));
}

#[test]
fn enforced_findings_keep_a_new_release_out_of_traffic_until_they_are_fixed() {
    let mut w = enforced();
    find(&mut w, &["a", "b"]);
    w.apply_version(2);
    w.until_phase(Phase::Paused);
    w.run(7200);
    assert_eq!((w.applied(), w.status.phase), (0, Phase::Paused), "{}", w.describe());
    let waits = &w.status.waiting_for;
    assert!(waits.starts_with("preflight: GitOpsOverwrites: Service voice/a ") && waits.contains(" Fix: "), "{waits}");
    assert!(waits.ends_with("(1 more: see the condition Preflight)"), "{waits}");
    // Its pods are there already.
    assert_eq!(w.seen.replica_set(&hash(2)).map(|r| r.available), Some(1));
    let (done, said) = w.command(Verb::Promote);
    assert!(!done && said.contains("preflight: GitOpsOverwrites"), "{said}");
    find(&mut w, &[]);
    w.until("promoted", |w| w.status.stable_revision == Some(hash(2)));
}

#[test]
fn a_finding_that_appears_holds_the_next_raise_and_not_the_weight_or_an_abort() {
    let mut w = enforced();
    w.apply_version(2);
    w.until_weight(5);
    find(&mut w, &["a"]);
    w.run(3600);
    assert_eq!((w.applied(), w.status.phase, w.status.step_display.as_str()), (5, Phase::Paused, "3/4"), "{}", w.describe());
    assert!(w.command(Verb::Abort).0);
    w.until_phase(Phase::Degraded);
    assert_eq!(w.applied(), 0);
    assert!(w.command(Verb::Retry).0);
    w.run(600);
    assert_eq!(w.applied(), 0, "a new attempt starts with weight 0");
}

#[test]
fn the_raise_of_the_promotion_is_held_before_it_begins() {
    let mut w = enforced();
    w.apply_version(2);
    w.until_weight(50);
    find(&mut w, &["a"]);
    w.run(3600);
    assert_eq!((w.applied(), w.status.phase), (50, Phase::Paused), "{}", w.describe());
    assert!(w.status.promotion.is_none() && w.status.waiting_for.starts_with("preflight"), "{}", w.describe());
    find(&mut w, &[]);
    w.until("promoted", |w| w.status.stable_revision == Some(hash(2)));
}

#[test]
fn the_way_back_and_a_persons_word_go_past_what_is_found() {
    let mut w = enforced();
    w.edit(|s| s.rollback_window = Some(RollbackWindow { revisions: 3 }));
    w.apply_version(2);
    w.until("promoted", |w| w.status.stable_revision == Some(hash(2)));
    find(&mut w, &["a"]);
    w.apply_version(1);
    w.until("rolled back", |w| w.status.stable_revision == Some(hash(1)));
    w.apply_version(3);
    w.until_phase(Phase::Paused);
    assert_eq!(w.applied(), 0);
    assert!(w.command(Verb::PromoteFull).0);
    w.until("promoted in full", |w| w.status.stable_revision == Some(hash(3)));
}

#[test]
fn a_first_deployment_needs_no_fix() {
    let mut s = spec(Some(vec![weight(5)]), None);
    s.preflight = Preflight::Enforce;
    let mut w = World::new(s);
    find(&mut w, &["a"]);
    w.until_phase(Phase::Healthy);
}
