//! What is on record when a person ends a step, and which step it is.

use super::specs::*;
use super::world::{Say, World};
use crate::api::action::Verb;
use crate::api::rollout::Step;
use crate::api::status::Phase;

fn overridden(w: &World) -> Vec<String> {
    w.status.decisions.iter().filter(|d| d.decision == "Overridden").map(|d| d.reason.clone()).collect()
}

#[test]
fn a_pause_that_a_gate_holds_is_no_plain_pause() {
    for verb in [Verb::Promote, Verb::SkipStep] {
        let mut w = World::releasing(spec(Some(vec![weight(25), pause(None), weight(50), pause(None)]), Some(gates(vec![gate("p95")]))));
        w.script.insert("p95".into(), Say::Error);
        w.until("the gate to give up", |w| w.status.gates.iter().any(|g| g.consequence.is_some()));
        assert!(w.command(verb).0);
        let said = overridden(&w);
        assert!(said.len() == 1 && said[0].contains("p95 (") && w.decided("Promoted") == 0, "{verb:?}: {said:?}");
        assert_eq!(w.status.overridden_steps, ["2/4"], "{verb:?}");
    }
}

#[test]
fn whoever_skips_an_analysis_has_every_gate_on_record_that_had_not_passed() {
    let mut steps = vec![weight(25), analysis(&["evals", "judged", "passed"]), weight(50), pause(None)];
    steps[1].analysis.as_mut().unwrap().require = vec!["p95".into()];
    let mut w = World::releasing(spec(Some(steps), Some(gates(vec![gate("p95")]))));
    w.script = [("p95".to_string(), Say::Nothing), ("evals".to_string(), Say::Error), ("judged".to_string(), Say::Nothing)].into();
    w.until("a gate to give up", |w| w.status.gates.iter().any(|g| g.consequence.is_some()));
    assert!(w.command(Verb::SkipStep).0);
    let said = overridden(&w);
    let named = |gate: &str| said[0].matches(&format!("{gate} (")).count();
    assert_eq!((said.len(), named("evals"), named("judged"), named("p95"), named("passed")), (1, 1, 1, 1, 0), "{said:?}");
    w.until_weight(50);
}

#[test]
fn a_release_with_a_skipped_step_does_not_say_that_every_step_passed() {
    let released = |skip: bool| {
        let mut w = World::releasing(spec(Some(vec![weight(25), analysis(&["p95"])]), None));
        if skip {
            w.script.insert("p95".into(), Say::Nothing);
            w.until("the gate to be asked", |w| !w.status.gates.is_empty());
            assert!(w.command(Verb::SkipStep).0);
        }
        w.until("promoted", |w| w.status.stable_revision == Some(hash(2)));
        let said = |decision: &str| w.status.decisions.iter().rfind(|d| d.decision == decision).unwrap().reason.clone();
        (said("StepsPassed"), said("Promoted"))
    };
    let (steps, promoted) = released(false);
    assert!(steps == "all 2 steps passed" && promoted.ends_with("every step passed"), "{steps} {promoted}");
    let but = "passed but 2/2, where a person overrode what was missing";
    let (steps, promoted) = released(true);
    assert!(steps == format!("all 2 steps are over; each {but}") && promoted.ends_with(&format!("every step {but}")), "{steps} {promoted}");
}

#[test]
fn what_was_overridden_in_an_attempt_says_nothing_about_the_next_one() {
    let mut w = World::releasing(spec(Some(vec![weight(10), analysis(&["p95"]), weight(50), analysis(&["evals"])]), None));
    w.script = [("p95".to_string(), Say::Nothing), ("evals".to_string(), Say::Fail)].into();
    w.until("the gate to be asked", |w| !w.status.gates.is_empty());
    assert!(w.command(Verb::SkipStep).0);
    w.until_phase(Phase::Degraded);
    assert_eq!(w.status.overridden_steps, ["2/4"]);
    w.script.clear();
    assert!(w.command(Verb::Retry).0);
    assert!(w.status.overridden_steps.is_empty());
}

#[test]
fn the_gates_after_the_last_step_are_on_record_too() {
    let mut w = World::releasing(spec(Some(vec![weight(25)]), Some(gates(vec![gate("p95"), gate("evals")]))));
    w.script = [("p95".to_string(), Say::Nothing), ("evals".to_string(), Say::Nothing)].into();
    w.until("the end of the steps", |w| w.status.current_step == Some(1) && w.status.waiting_for.starts_with("p95"));
    assert!(w.command(Verb::SkipStep).0);
    let said = overridden(&w);
    assert!(said.len() == 1 && said[0].contains("p95 (") && said[0].contains("evals ("), "{said:?}");
}

#[test]
fn a_command_for_a_step_that_is_over_does_not_end_the_next_one() {
    for verb in [Verb::Promote, Verb::SkipStep] {
        let mut w = World::releasing(spec(Some(vec![weight(25), pause(None), pause(None)]), None));
        w.until_phase(Phase::Paused);
        let answers: Vec<(bool, String)> = ["2/3", "2/3", "3/3"].map(|step| w.command_at(verb, step)).into();
        assert_eq!(answers.iter().map(|(did, _)| *did).collect::<Vec<_>>(), [true, false, true], "{answers:?}");
        assert!(answers[1].1.contains("not at step 2/3 any more, but at step 3/3"), "{answers:?}");
    }
}

#[test]
fn of_two_commands_that_come_together_and_do_not_say_the_step_the_second_has_nothing_to_end() {
    let ends = |verb, second: Step| {
        let mut w = World::releasing(spec(Some(vec![weight(25), second, pause(None)]), None));
        w.script.insert("p95".into(), Say::Nothing);
        w.until("the second step to wait", |w| {
            w.status.current_step == Some(1) && (w.status.phase == Phase::Paused || !w.status.gates.is_empty())
        });
        let names = [w.ask(verb), w.ask(verb)];
        w.pass();
        let answers = names.map(|n| w.outcomes[&n].clone());
        assert!(answers[0].0 && !answers[1].0 && answers[1].1.contains("already"), "{answers:?}");
        assert_eq!((w.status.current_step, w.decided("Promoted") + w.decided("Overridden")), (Some(2), 1), "{}", w.describe());
    };
    ends(Verb::Promote, pause(None));
    ends(Verb::SkipStep, pause(None));
    ends(Verb::SkipStep, analysis(&["p95"]));
}

#[test]
fn whoever_skips_a_run_that_was_stopped_has_its_gates_on_record() {
    let mut w = World::releasing(spec(Some(vec![weight(25), analysis(&["p95", "evals"]), weight(50), pause(None)]), None));
    w.script.insert("evals".into(), Say::Nothing);
    w.until("the gates to be asked", |w| w.status.gates.len() == 2 && w.status.current_step == Some(1));
    w.seen.runs.iter_mut().for_each(|r| r.stop = true);
    w.until_phase(Phase::Paused);
    assert!(w.command(Verb::SkipStep).0);
    let said = overridden(&w);
    assert!(said.len() == 1 && said[0].contains("stopped before a verdict") && said[0].contains("evals ("), "{said:?}");
}
