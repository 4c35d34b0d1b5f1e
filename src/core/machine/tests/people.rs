//! What people ask for, in every phase: carried out, or refused with a reason.

use super::specs::*;
use super::world::{Say, World};
use super::{observed, preflight};
use crate::api::VoiceRolloutSpec;
use crate::api::action::Verb;
use crate::api::rollout::Preflight;
use crate::api::run::{Consequence, RunKind, Verdict};
use crate::api::status::{Grounds, Phase};

/// A phase to be in, and how to get there.
pub fn worlds() -> Vec<(&'static str, World)> {
    let steps = || vec![weight(25), pause(None), weight(50), analysis(&["p95"])];
    let base = || spec(Some(steps()), None);
    let at_pause = || {
        let mut w = World::releasing(base());
        w.until_phase(Phase::Paused);
        w
    };
    let mut all = vec![("Pending", World::new(base()))];
    let mut w = World::new(base());
    w.pass();
    all.push(("Initializing", w));
    all.push(("Healthy", World::deployed(base())));
    let mut w = World::releasing(base());
    w.pass();
    all.push(("Progressing", w));
    all.push(("PauseStep", at_pause()));
    let mut w = at_pause();
    assert!(w.command(Verb::Pause).0);
    all.push(("PausedByUser", w));
    let mut w = at_pause();
    w.edit(|s| s.paused = true);
    w.pass();
    all.push(("PausedBySpec", w));
    for (name, say) in [("HeldByError", Say::Error), ("HeldByFail", Say::Fail), ("Measuring", Say::Nothing)] {
        let mut s = base();
        let g = s.steps.as_mut().unwrap()[3].analysis.as_mut().unwrap().gates.first_mut().unwrap();
        g.on_fail = crate::api::analysis::OnFail::Pause;
        let mut w = World::releasing(s);
        w.script.insert("p95".into(), say);
        w.until_phase(Phase::Paused);
        assert!(w.command(Verb::Promote).0);
        w.until_weight(50);
        w.run(120);
        all.push((name, w));
    }
    let mut w = World::releasing(spec(Some(vec![weight(25), pause(None)]), Some(gates(vec![gate("p95")]))));
    w.script.insert("p95".into(), Say::Error);
    w.until("the gate to give up", |w| w.status.gates.iter().any(|g| g.consequence.is_some()));
    all.push(("PauseHeldByError", w));
    all.extend(stuck());
    let mut w = at_pause();
    w.edit(|s| s.steps = Some(vec![]));
    w.pass();
    all.push(("Invalid", w));
    let mut w = at_pause();
    assert!(w.command(Verb::PromoteFull).0);
    all.push(("Promoting", w));
    let mut w = at_pause();
    w.apply_version(1);
    w.pass();
    all.push(("Returning", w));
    let mut w = at_pause();
    assert!(w.command(Verb::Abort).0);
    w.settle();
    all.push(("Degraded", w));
    all
}

/// Where a person's word does not do what it does elsewhere.
fn stuck() -> Vec<(&'static str, World)> {
    let mut over = World::releasing(spec(Some(vec![weight(25)]), Some(gates(vec![gate("p95")]))));
    over.script.insert("p95".into(), Say::Nothing);
    over.until("the end of the steps", |w| w.status.current_step == Some(1) && w.status.waiting_for.starts_with("p95"));
    let mut unseen = observed::proved(serde_json::json!({"requireObserved": true}));
    unseen.until_phase(Phase::Paused);
    let mut forged = World::releasing(spec(Some(vec![weight(25), analysis(&["p95"]), pause(None)]), None));
    forged.script.insert("p95".into(), Say::Nothing);
    forged.until("the gate to be asked", |w| !w.status.gates.is_empty());
    forged.seen.runs.iter_mut().for_each(|r| r.spec_hash = "forged".into());
    forged.pass();
    let mut nobody = World::releasing(VoiceRolloutSpec { traffic: pulled(), ..spec(Some(vec![weight(25), pause(None)]), None) });
    nobody.until_phase(Phase::Paused);
    nobody.edit(|s| s.replicas = 0);
    nobody.pass();
    let mut found = World::releasing(VoiceRolloutSpec { preflight: Preflight::Enforce, ..spec(Some(vec![weight(25), pause(None)]), None) });
    found.until_phase(Phase::Paused);
    preflight::find(&mut found, &["a"]);
    assert!(found.command(Verb::Promote).0);
    found.run(60);
    vec![("StepsOver", over), ("SplitUnseen", unseen), ("Forged", forged), ("NobodyWorks", nobody), ("PreflightAtEnd", found)]
}

/// The one table: phase, verb, whether it is carried out, and a word of the answer.
const TABLE: &[(&str, [(bool, &str); 7])] = &[
    //                 promote            skip step          promote --full        abort                 retry                 pause                 resume
    (
        "Pending",
        [
            (false, "newest"),
            (false, "newest"),
            (false, "newest"),
            (false, "newest"),
            (false, "newest"),
            (false, "newest"),
            (false, "newest"),
        ],
    ),
    (
        "Initializing",
        [
            (false, "first"),
            (false, "first"),
            (false, "first"),
            (false, "first"),
            (false, "aborted"),
            (false, "first"),
            (false, "not paused"),
        ],
    ),
    (
        "Healthy",
        [
            (false, "no release"),
            (false, "no release"),
            (false, "no release"),
            (false, "no release"),
            (false, "aborted"),
            (false, "no release"),
            (false, "not paused"),
        ],
    ),
    (
        "Progressing",
        [
            (false, "not a pause"),
            (false, "moves pods"),
            (true, "100"),
            (true, "stable"),
            (false, "aborted"),
            (true, "resume"),
            (false, "not paused"),
        ],
    ),
    (
        "PauseStep",
        [(true, "ended"), (true, "ended"), (true, "100"), (true, "stable"), (false, "aborted"), (true, "resume"), (false, "not paused")],
    ),
    (
        "PausedByUser",
        [(false, "resume"), (false, "resume"), (true, "100"), (true, "stable"), (false, "aborted"), (false, "already"), (true, "go on")],
    ),
    (
        "PausedBySpec",
        [
            (false, "resume"),
            (false, "resume"),
            (true, "100"),
            (true, "stable"),
            (false, "aborted"),
            (true, "resume"),
            (false, "spec.paused"),
        ],
    ),
    (
        "HeldByError",
        [
            (true, "p95"),
            (true, "was skipped"),
            (true, "100"),
            (true, "stable"),
            (false, "aborted"),
            (true, "resume"),
            (false, "not paused"),
        ],
    ),
    (
        "HeldByFail",
        [
            (false, "does not override"),
            (false, "does not override"),
            (true, "100"),
            (true, "stable"),
            (false, "aborted"),
            (true, "resume"),
            (false, "not paused"),
        ],
    ),
    (
        "Measuring",
        [
            (false, "not a pause"),
            (true, "was skipped"),
            (true, "100"),
            (true, "stable"),
            (false, "aborted"),
            (true, "resume"),
            (false, "not paused"),
        ],
    ),
    (
        "PauseHeldByError",
        [(true, "p95 ("), (true, "p95 ("), (true, "100"), (true, "stable"), (false, "aborted"), (true, "resume"), (false, "not paused")],
    ),
    (
        "StepsOver",
        [
            (false, "not a pause"),
            (true, "without p95 ("),
            (true, "100"),
            (true, "stable"),
            (false, "aborted"),
            (true, "resume"),
            (false, "not paused"),
        ],
    ),
    (
        "SplitUnseen",
        [
            (true, "the split being seen"),
            (false, "moves pods"),
            (true, "100"),
            (true, "stable"),
            (false, "aborted"),
            (true, "resume"),
            (false, "not paused"),
        ],
    ),
    (
        "Forged",
        [
            (false, "delete it"),
            (false, "delete it"),
            (true, "100"),
            (true, "stable"),
            (false, "aborted"),
            (true, "resume"),
            (false, "not paused"),
        ],
    ),
    (
        "NobodyWorks",
        [
            (false, "no worker takes calls"),
            (false, "no worker takes calls"),
            (true, "100"),
            (true, "stable"),
            (false, "aborted"),
            (true, "resume"),
            (false, "not paused"),
        ],
    ),
    (
        "PreflightAtEnd",
        [
            (false, "preflight: "),
            (false, "preflight: "),
            (true, "100"),
            (true, "stable"),
            (false, "aborted"),
            (true, "resume"),
            (false, "not paused"),
        ],
    ),
    (
        "Invalid",
        [
            (false, "invalid spec"),
            (false, "invalid spec"),
            (false, "invalid spec"),
            (true, "stable"),
            (false, "aborted"),
            (true, "resume"),
            (false, "not paused"),
        ],
    ),
    (
        "Promoting",
        [
            (false, "roles"),
            (false, "roles"),
            (false, "roles"),
            (true, "stable"),
            (false, "aborted"),
            (false, "roles"),
            (false, "not paused"),
        ],
    ),
    (
        "Returning",
        [
            (false, "no release"),
            (false, "no release"),
            (false, "no release"),
            (false, "no release"),
            (false, "aborted"),
            (false, "no release"),
            (false, "not paused"),
        ],
    ),
    (
        "Degraded",
        [
            (false, "retry"),
            (false, "retry"),
            (false, "retry"),
            (false, "retry"),
            (true, "attempt 2"),
            (false, "retry"),
            (false, "not paused"),
        ],
    ),
];

const VERBS: [Verb; 7] = [Verb::Promote, Verb::SkipStep, Verb::PromoteFull, Verb::Abort, Verb::Retry, Verb::Pause, Verb::Resume];

#[test]
fn every_command_in_every_phase_is_carried_out_or_refused_with_a_reason() {
    let worlds = worlds();
    assert_eq!(worlds.iter().map(|(n, _)| *n).collect::<Vec<_>>(), TABLE.iter().map(|(n, _)| *n).collect::<Vec<_>>());
    let mut wrong = vec![];
    for ((name, world), (_, row)) in worlds.into_iter().zip(TABLE) {
        for (verb, (applied, word)) in VERBS.into_iter().zip(row) {
            let mut w = world.clone();
            let (did, message) = w.command(verb);
            if (did, message.contains(word)) != (*applied, true) {
                wrong.push(format!("{name} {verb:?}: {did} {message:?}, expected {applied} {word:?}"));
            }
            if !did && !matches!(name, "Pending") {
                let quiet = stripped(&w)
                    == stripped(&{
                        let mut without = world.clone();
                        without.pass();
                        without
                    });
                assert!(quiet, "{name} {verb:?} was refused and changed the status");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn stripped(w: &World) -> crate::api::VoiceRolloutStatus {
    let mut status = w.status.clone();
    status.handled_actions.clear();
    status
}

#[test]
fn a_command_for_another_revision_is_refused() {
    let mut w = World::releasing(spec(Some(vec![weight(25), pause(None)]), None));
    w.until_phase(Phase::Paused);
    for verb in VERBS {
        let name = w.ask_for(verb, &hash(1));
        w.pass();
        let (applied, message) = w.outcomes[&name].clone();
        assert!(!applied && message.contains(&hash(2)), "{verb:?}: {message}");
    }
    assert_eq!((w.status.phase, w.applied()), (Phase::Paused, 25));
}

#[test]
fn a_command_is_carried_out_once_though_the_process_dies_before_it_is_marked() {
    let mut w = World::releasing(spec(Some(vec![weight(25), pause(None), pause(None)]), None));
    w.until_phase(Phase::Paused);
    w.ask(Verb::Promote);
    let (seen, status) = (w.seen.clone(), w.status.clone());
    w.pass_on(seen, status, super::world::Luck::DiesAfter(0));
    w.run(60);
    assert_eq!((w.status.current_step, w.decided("Promoted")), (Some(2), 1), "{}", w.describe());
    assert!(w.outcomes["action-1"].0);
}

#[test]
fn a_command_that_a_lagging_cache_still_shows_unmarked_is_not_carried_out_again() {
    let mut w = World::releasing(spec(Some(vec![weight(25), pause(None), pause(None)]), None));
    w.until_phase(Phase::Paused);
    w.ask(Verb::Promote);
    let lagging = w.seen.actions.clone();
    w.run(60);
    assert_eq!(w.status.current_step, Some(2));
    w.seen.actions = lagging;
    w.run(60);
    assert_eq!((w.status.current_step, w.decided("Promoted")), (Some(2), 1), "{}", w.describe());
}

#[test]
fn retry_starts_a_new_attempt_with_fresh_evidence_and_keeps_pods_that_may_carry_calls() {
    let mut w = World::releasing(spec(Some(vec![weight(10), analysis(&["p95"]), weight(50), analysis(&["evals"])]), None));
    w.script.insert("evals".into(), Say::Fail);
    w.until_phase(Phase::Degraded);
    let runs = w.seen.runs.len();
    w.script.clear();
    assert!(w.command(Verb::Retry).0);
    assert_eq!((w.status.attempt, w.status.current_step), (2, Some(0)), "{}", w.describe());
    w.until_weight(10);
    assert_eq!(w.seen.replica_set(&hash(2)).unwrap().wanted, 5, "pods of the first attempt may carry calls");
    w.until("promoted", |w| w.status.stable_revision == Some(hash(2)));
    assert_eq!(w.seen.runs.len(), runs + 2);
}

#[test]
fn the_same_version_again_after_another_one_gets_fresh_evidence() {
    let mut w = World::releasing(spec(Some(vec![scale(1), analysis(&["evals"]), weight(50)]), None));
    w.script.insert("evals".into(), Say::Fail);
    w.until_phase(Phase::Degraded);
    w.apply_version(1);
    w.until_phase(Phase::Healthy);
    w.script.clear();
    w.apply_version(2);
    w.until("promoted", |w| w.status.stable_revision == Some(hash(2)));
    assert_eq!(w.seen.runs.len(), 2, "{}", w.describe());
}

#[test]
fn promote_full_skips_the_rest_and_says_who() {
    let mut w = World::releasing(spec(Some(article()), None));
    w.until_weight(5);
    assert!(w.command(Verb::PromoteFull).0);
    w.until("promoted", |w| w.status.promotion.as_ref().is_some_and(|p| p.grounds == Grounds::PromotedFull));
    w.script.insert("p95".into(), Say::Fail);
    w.until_phase(Phase::Healthy);
    let record = w.status.decisions.iter().find(|d| d.decision == "PromotedFull").unwrap();
    assert_eq!((record.by.as_deref(), w.status.stable_revision.clone()), (Some("ann"), Some(hash(2))), "{}", w.describe());
}

#[test]
fn pause_stops_steps_and_resume_lets_them_go_on() {
    let mut w = World::releasing(spec(Some(vec![weight(5), pause(Some(60)), weight(25), pause(None)]), None));
    w.until_weight(5);
    assert!(w.command(Verb::Pause).0);
    w.run(3600);
    assert_eq!((w.applied(), w.status.phase), (5, Phase::Paused), "{}", w.describe());
    assert!(w.command(Verb::Resume).0);
    w.until_weight(25);
}

#[test]
fn spec_paused_from_the_start_gives_the_canary_no_call() {
    let mut w = World::deployed(spec(Some(vec![weight(5), pause(None)]), None));
    w.edit(|s| s.paused = true);
    w.apply_version(2);
    w.run(3600);
    assert_eq!((w.applied(), w.status.phase), (0, Phase::Paused), "{}", w.describe());
    w.edit(|s| s.paused = false);
    w.until_weight(5);
}

#[test]
fn going_on_without_a_gate_of_the_step_says_nothing_about_a_background_gate_of_the_same_name() {
    let mut steps = vec![weight(25), analysis(&["p95", "evals"]), weight(50), pause(None)];
    steps[1].analysis.as_mut().unwrap().require = vec!["p95".into()];
    let mut w = World::releasing(spec(Some(steps), Some(gates(vec![gate("p95")]))));
    w.script = [("p95".to_string(), Say::Nothing), ("evals".to_string(), Say::Nothing)].into();
    w.until("both runs", |w| w.seen.runs.len() == 2);
    let error = |w: &mut World, kind: RunKind| {
        let run = w.seen.runs.iter_mut().find(|r| r.kind == kind).unwrap();
        let gate = run.gates.iter_mut().find(|g| g.name == "p95").unwrap();
        (gate.verdict, gate.consequence) = (Some(Verdict::Error), Some(Consequence::Pause));
    };
    error(&mut w, RunKind::Step);
    w.until_phase(Phase::Paused);
    assert!(w.command(Verb::Promote).0);
    assert_eq!(w.status.phase, Phase::Progressing, "evals is waited for\n{}", w.describe());
    assert!(w.status.waiting_for.starts_with("evals"), "{}", w.status.waiting_for);
    error(&mut w, RunKind::Background);
    w.until_phase(Phase::Paused);
    // It recovers; nothing has passed yet.
    let gate = &mut w.seen.runs.iter_mut().find(|r| r.kind == RunKind::Background).unwrap().gates[0];
    (gate.verdict, gate.consequence) = (None, None);
    w.script.remove("evals");
    w.run(600);
    assert_eq!(w.status.current_step, Some(1), "{}", w.describe());
    assert!(w.status.waiting_for.starts_with("p95"), "{}", w.status.waiting_for);
    w.script.clear();
    w.until_weight(50);
}

#[test]
fn commands_that_come_together_are_carried_out_one_after_the_other() {
    let mut w = World::releasing(spec(Some(vec![weight(10), analysis(&["p95"]), weight(50)]), None));
    w.script.insert("p95".into(), Say::Fail);
    w.until_phase(Phase::Degraded);
    let names: Vec<String> = [Verb::Retry, Verb::Abort, Verb::Retry, Verb::Promote].into_iter().map(|v| w.ask(v)).collect();
    w.pass();
    let answers: Vec<_> = names.iter().map(|n| w.outcomes[n].clone()).collect();
    assert_eq!(answers.iter().map(|(did, _)| *did).collect::<Vec<_>>(), [true, true, true, false], "{answers:?}");
    assert_eq!((w.status.attempt, w.status.phase), (3, Phase::Progressing), "{}", w.describe());
    assert!(answers[3].1.contains("its pods and weights"), "{}", answers[3].1);
}
