//! Every command in every phase: carried out, or refused with a reason.

use super::specs::*;
use super::world::{Say, World};
use super::{observed, preflight};
use crate::api::VoiceRolloutSpec;
use crate::api::action::Verb;
use crate::api::rollout::Preflight;
use crate::api::status::Phase;

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

pub const VERBS: [Verb; 7] = [Verb::Promote, Verb::SkipStep, Verb::PromoteFull, Verb::Abort, Verb::Retry, Verb::Pause, Verb::Resume];

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
