//! Edits of the spec in mid-release.

use super::specs::*;
use super::world::{Luck, Say, World};
use crate::api::run::RunPhase;
use crate::api::status::Phase;

#[test]
fn with_no_replicas_wanted_a_new_step_list_takes_the_weight_away_and_its_analysis_starts() {
    let mut w = World::releasing(spec(Some(vec![weight(5), pause(None)]), None));
    w.until_phase(Phase::Paused);
    w.edit(|s| s.replicas = 0);
    w.settle();
    assert_eq!((w.seen.replica_set(&hash(1)).unwrap().wanted, w.applied()), (0, 5), "{}", w.describe());
    w.edit(|s| s.steps = Some(vec![scale(2), analysis(&["evals"]), weight(10), pause(None)]));
    w.until("no canary traffic", |w| w.applied() == 0);
    w.until_weight(10);
    w.until_phase(Phase::Paused);
}

#[test]
fn a_failing_verdict_that_comes_with_a_new_step_list_aborts() {
    let mut w = World::releasing(spec(Some(vec![weight(5), analysis(&["p95"]), weight(50)]), None));
    w.script.insert("p95".into(), Say::Fail);
    w.until("a verdict", |w| w.seen.runs.iter().any(|r| r.phase == RunPhase::Fail));
    assert!(w.status.abort.is_none(), "nobody has looked at it yet");
    w.edit(|s| s.steps = Some(vec![weight(10), pause(None)]));
    w.pass();
    assert_eq!((w.decided("Aborted"), w.decided("StepsChanged")), (1, 0), "{}", w.describe());
    w.until_phase(Phase::Degraded);
    assert_eq!(w.status.abort.as_ref().unwrap().gate.as_deref(), Some("p95"));
}

#[test]
fn steps_that_change_and_change_back_within_a_second_are_judged_by_a_new_run() {
    let steps = || Some(vec![scale(1), analysis(&["evals"]), weight(10), pause(None)]);
    let mut w = World::releasing(spec(steps(), None));
    w.pace = 600;
    w.until("a run", |w| w.seen.runs.len() == 1);
    // The weight counts from this moment, each time.
    w.seen.runs.clear();
    w.edit(|s| s.steps = Some(vec![scale(1), analysis(&["p95"]), weight(10), pause(None)]));
    w.pass();
    w.edit(|s| s.steps = steps());
    w.pass();
    let first = w.status.runs[0].name.clone();
    w.edit(|s| s.steps = Some(vec![scale(1), pause(None)]));
    w.pass();
    assert!(w.seen.runs.iter().any(|r| r.name == first && r.stop), "{}", w.describe());
    w.edit(|s| s.steps = steps());
    // Its record is written, and the process dies before the run is made.
    let (seen, status) = (w.seen.clone(), w.status.clone());
    w.pass_on(seen, status, Luck::DiesAfter(0));
    let second = w.status.runs[0].name.clone();
    assert_ne!(first, second);
    w.pass();
    assert_eq!((w.status.runs[0].name.as_str(), w.status.phase), (second.as_str(), Phase::Progressing), "{}", w.describe());
    w.until_weight(10);
    assert_eq!(w.seen.runs.iter().filter(|r| r.phase == RunPhase::Pass).map(|r| r.name.clone()).collect::<Vec<_>>(), [second]);
}
