//! The split that is seen, against the weight.

use serde_json::json;

use super::specs::*;
use super::world::World;
use crate::api::VoiceRolloutSpec;
use crate::api::action::Verb;
use crate::api::proof::{Observed, SplitVerdict};
use crate::api::status::Phase;
use crate::core::proof::GATE;

fn asks(more: serde_json::Value) -> VoiceRolloutSpec {
    let mut spec = spec(Some(vec![weight(25), pause(Some(120)), weight(50), pause(None)]), None);
    spec.traffic.proof = Some(proof(more));
    spec
}

/// A release at 25 %, with a proof; the weight has stood long enough for its calls to be told from those before.
pub fn proved(more: serde_json::Value) -> World {
    let mut w = World::releasing(asks(more));
    w.until_weight(25);
    w.run(30);
    w
}

/// The background run has counted so many calls up to now.
fn count(w: &mut World, canary: i64, stable: i64) {
    for gate in w.seen.runs.iter_mut().flat_map(|r| &mut r.gates) {
        gate.split = None;
    }
    w.count_more(canary, stable);
    w.pass();
}

fn seen(w: &World) -> Observed {
    w.status.weights.observed.clone().unwrap_or_else(|| panic!("nothing observed\n{}", w.describe()))
}

fn condition(w: &World) -> (String, String) {
    let found = w.status.conditions.iter().find(|c| c.type_ == "SplitObserved").unwrap();
    (found.status.clone(), found.reason.clone())
}

#[test]
fn calls_since_the_change_are_compared_with_the_weight() {
    let mut w = proved(json!({}));
    assert_eq!((seen(&w).verdict, condition(&w).0.as_str()), (SplitVerdict::NoData, "Unknown"));
    assert_eq!(w.seen.runs.len(), 1, "a run that counts, though there is no gate\n{}", w.describe());
    // What came before does not count.
    count(&mut w, 900, 100);
    count(&mut w, 905, 114);
    assert_eq!((seen(&w).verdict, seen(&w).total), (SplitVerdict::TooFew, 19));
    count(&mut w, 930, 170);
    assert_eq!((seen(&w).verdict, seen(&w).share, condition(&w)), (SplitVerdict::Agrees, Some(30.0), ("True".into(), "Agrees".into())));
    w.until_weight(50);
    w.run(60);
    assert_eq!((seen(&w).weight, seen(&w).number, seen(&w).verdict), (50, 2, SplitVerdict::NoData), "{}", w.describe());
}

#[test]
fn counts_from_before_every_proxy_knows_are_not_taken() {
    let mut w = World::releasing(asks(json!({})));
    w.until_weight(25);
    count(&mut w, 0, 500);
    count(&mut w, 0, 900);
    assert_eq!((seen(&w).verdict, seen(&w).before), (SplitVerdict::NoData, None), "{}", w.describe());
}

#[test]
fn a_mismatch_holds_the_step_and_nothing_more_until_it_is_gone() {
    let mut w = proved(json!({}));
    count(&mut w, 0, 0);
    count(&mut w, 0, 200);
    w.run(600);
    assert_eq!((w.status.phase, w.applied(), condition(&w)), (Phase::Paused, 25, ("False".into(), "Differs".into())), "{}", w.describe());
    assert!(
        w.status.waiting_for.contains("0 of 200 calls since") && w.status.waiting_for.contains("the weight is 25 %"),
        "{}",
        w.status.waiting_for
    );
    assert_eq!((w.decided("SplitDiffers"), w.status.abort.is_some()), (1, false));
    // The same again is not told again, and asks for nothing.
    let before = w.status.clone();
    count(&mut w, 0, 400);
    assert_eq!(w.status, before);
    count(&mut w, 300, 900);
    w.until_weight(50);
    assert_eq!(w.decided("SplitAgrees"), 1, "{}", w.describe());
}

#[test]
fn a_person_may_go_on_at_this_weight_and_the_next_one_is_looked_at_again() {
    let mut w = proved(json!({}));
    count(&mut w, 0, 0);
    count(&mut w, 0, 200);
    assert_eq!(w.status.phase, Phase::Paused);
    assert!(w.command(Verb::Promote).0);
    w.until_weight(50);
    assert!(w.status.decisions.iter().any(|d| d.decision == "Overridden" && d.reason.contains("observed-split")), "{}", w.describe());
    w.run(60);
    count(&mut w, 0, 300);
    count(&mut w, 0, 500);
    assert_eq!((seen(&w).verdict, w.status.weights.applied), (SplitVerdict::Differs, 50));
    assert!(w.status.waiting_for.contains("0 of 200 calls"), "{}", w.status.waiting_for);
}

#[test]
fn without_data_only_a_split_that_has_to_be_seen_is_waited_for() {
    let mut w = proved(json!({}));
    w.until_weight(50);

    let mut w = proved(json!({"requireObserved": true}));
    w.run(3600);
    assert_eq!((w.applied(), w.status.phase), (25, Phase::Paused), "for longer than progressDeadline: {}", w.describe());
    assert!(w.status.waiting_for.starts_with("the split to be seen: no call is counted yet"), "{}", w.status.waiting_for);
    let mut patient = w.clone();
    count(&mut w, 0, 0);
    count(&mut w, 30, 70);
    w.until_weight(50);
    assert!(patient.command(Verb::Promote).0);
    // The pause of two minutes is still to come.
    patient.until_weight(50);
    assert!(
        patient.status.decisions.iter().any(|d| d.decision == "Overridden" && d.reason.contains("without the split being seen (no call")),
        "{}",
        patient.describe()
    );
}

#[test]
fn an_abort_or_an_edit_of_the_routes_ends_what_was_seen() {
    let mut w = proved(json!({}));
    count(&mut w, 0, 0);
    count(&mut w, 0, 200);
    assert_eq!(w.status.phase, Phase::Paused);
    w.seen.routes[0] = super::world::route_seen("agent", 3);
    w.run(30);
    let now = seen(&w);
    assert_eq!((w.applied(), now.number, now.verdict), (25, 2, SplitVerdict::NoData), "{}", w.describe());
    assert!(w.command(Verb::Abort).0);
    w.run(60);
    assert_eq!((w.status.phase, w.applied()), (Phase::Degraded, 0), "{}", w.describe());
    w.apply_version(1);
    w.run(60);
    assert!(w.status.weights.observed.is_none() && w.status.conditions.iter().all(|c| c.type_ != "SplitObserved"), "{}", w.describe());
}

#[test]
fn bad_settings_are_told_with_their_paths() {
    let w = World::new(asks(json!({
        "prometheus": {"address": "ftp://x", "scrapeInterval": "60s"}, "started": "rate(x[5m])", "withoutBucket": "y{revision=\"a\"}",
        "interval": "30s", "podLabel": "revision", "falseAlarm": 0.5, "tolerance": 60.0, "minCalls": 0,
    })));
    let told: Vec<String> = w.plan().errors.iter().map(ToString::to_string).collect();
    for path in ["prometheus.address", "started", "withoutBucket", "interval", "podLabel", "falseAlarm", "tolerance", "minCalls"] {
        assert!(told.iter().any(|e| e.starts_with(&format!("spec.traffic.proof.{path}: "))), "{path}: {told:#?}");
    }
    let mut taken = asks(json!({}));
    taken.analysis = Some(gates(vec![gate(GATE)]));
    assert!(World::new(taken).plan().errors.iter().any(|e| e.message.contains("is that of traffic.proof")));
}
