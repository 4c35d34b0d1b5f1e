//! The invariants of a decision, checked against the spec and what was seen, not against the machine's own helpers.

use jiff::SignedDuration;

use super::super::{Decision, decide};
use super::pods_invariants::{pods_with_calls_stay, stable_keeps_its_pods, traffic_keeps_its_pods};
use super::workers_invariants::{fewest_workers, promoted_at_once, workers_follow_the_weight};
use super::world::{Pass, World, short, stored};
use crate::api::VoiceRolloutStatus;
use crate::api::action::Verb;
use crate::api::analysis::Mode;
use crate::api::run::{GateStatus, RunKind, RunPhase, Verdict};
use crate::api::status::{Grounds, MAX_DECISIONS, Phase, PromotionStage};
use crate::core::intent::Intent;
use crate::core::plan::PlanStep;
use crate::core::route::Direction;

pub(super) type Check = Result<(), String>;

/// Everything that has to hold after every pass.
pub fn check(w: &World, pass: &Pass) -> Check {
    let all = [
        weights_in_range_and_allowed,
        raised_only_to_ready_pods,
        lowered_only_to_ready_pods,
        an_empty_canary_gets_no_calls,
        nothing_rises_after_an_abort,
        explained_after_the_revert_and_once,
        steps_pass_on_evidence,
        promotions_have_grounds,
        new_stable_has_grounds,
        stable_moves_completely,
        stable_keeps_its_pods,
        pods_with_calls_stay,
        traffic_keeps_its_pods,
        routes_are_let_go_without_canary_traffic,
        phases_are_true,
        workers_follow_the_weight,
        enforced_findings_hold_raises,
        looks_ahead,
        says_it_again,
        stays_the_same_until_woken,
    ];
    for one in all {
        one(w, pass)
            .map_err(|e| format!("{e}\nintents {:?}\nurgent {:?}", intents(pass).map(short).collect::<Vec<_>>(), pass.decision.urgent))?;
    }
    Ok(())
}

pub(super) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

pub(super) fn intents(pass: &Pass) -> impl Iterator<Item = &Intent> {
    pass.decision.urgent.iter().chain(&pass.decision.intents)
}

pub(super) fn after(pass: &Pass) -> &VoiceRolloutStatus {
    &pass.decision.status
}

pub(super) fn in_release(s: &VoiceRolloutStatus) -> bool {
    s.canary_revision.is_some() && s.stable_revision.is_some() && s.canary_revision != s.stable_revision
}

pub(super) fn blocked(pass: &Pass) -> bool {
    pass.seen.rival.is_some() || !pass.plan.errors.is_empty()
}

/// The person's command is there, for the revision that is being released.
fn asked(pass: &Pass, verb: Verb) -> bool {
    pass.seen.actions.iter().any(|a| a.verb == verb && after(pass).canary_revision.as_ref() == Some(&a.revision))
}

/// The most that the canary may get, from the spec's own words.
pub(super) fn allowed(pass: &Pass) -> i32 {
    let s = after(pass);
    if pass.seen.deleting || s.abort.is_some() {
        return 0;
    }
    match &s.promotion {
        Some(p) if p.grounds == Grounds::First => 0,
        Some(_) => 100,
        None if !in_release(s) => 0,
        None if blocked(pass) => pass.before.weights.desired,
        None => {
            let reached = pass.plan.steps.iter().take(s.current_step.unwrap_or(0) as usize + 1);
            reached.filter_map(|s| if let PlanStep::SetWeight(w) = s { Some(*w) } else { None }).next_back().unwrap_or(0)
        }
    }
}

/// I1, I2.
fn weights_in_range_and_allowed(_: &World, pass: &Pass) -> Check {
    let most = allowed(pass);
    let s = after(pass);
    ensure((0..=100).contains(&s.weights.desired) && s.weights.desired <= most.max(0), || {
        format!("I2: desired {} where the step allows {most}", s.weights.desired)
    })?;
    for intent in intents(pass) {
        if let Intent::SetWeights { canary, direction, name, .. } = intent {
            ensure((0..=100).contains(canary), || format!("I1: {canary}"))?;
            ensure(*canary <= most, || format!("I2: {name} to {canary} where the step allows {most}"))?;
            let still = s.promotion.is_none() && (s.user_paused || pass.plan.paused) || blocked(pass);
            ensure(*direction == Direction::Lower || !still, || format!("I2: {name} raised to {canary} while steps stand still"))?;
            let route = pass.seen.routes.iter().find(|r| &r.name == name).and_then(|r| r.weights.as_ref().ok());
            let rises = route.is_some_and(|all| all.iter().any(|w| w.canary < i64::from(*canary)));
            ensure(*direction == Direction::Raise || !rises, || format!("I2: a Lower raises {name} to {canary}"))?;
        }
    }
    Ok(())
}

fn raised_only_to_ready_pods(_: &World, pass: &Pass) -> Check {
    let arm = &pass.seen.canary_arm;
    let canary = after(pass).canary_revision.clone().unwrap_or_default();
    let serves = arm.problem.is_none()
        && arm.selects.as_ref() == Some(&canary)
        && arm.ready.get(&canary).is_some_and(|n| *n > 0)
        && arm.ready.iter().all(|(h, n)| *h == canary || *n == 0);
    let raises = intents(pass).any(|i| matches!(i, Intent::SetWeights { direction: Direction::Raise, .. }));
    ensure(!raises || serves || pass.plan.replicas == 0, || format!("raised towards {arm:?}"))
}

fn lowered_only_to_ready_pods(_: &World, pass: &Pass) -> Check {
    let lowers = intents(pass).any(|i| matches!(i, Intent::SetWeights { direction: Direction::Lower, .. }));
    let fine =
        pass.seen.stable_arm.has_endpoints() || !pass.seen.canary_arm.has_endpoints() || pass.seen.deleting || pass.plan.replicas == 0;
    ensure(!lowers || fine, || format!("lowered towards {:?}", pass.seen.stable_arm))
}

/// No call for a canary without a ready pod while stable has some.
fn an_empty_canary_gets_no_calls(_: &World, pass: &Pass) -> Check {
    let s = after(pass);
    let (stable, canary) = (&pass.seen.stable_arm, &pass.seen.canary_arm);
    let old = s.stable_revision.clone().unwrap_or_default();
    let could = stable.selects.as_ref() == Some(&old) && stable.ready.get(&old).is_some_and(|n| *n > 0) && stable.problem.is_none();
    let done = s.abort.is_none() && s.promotion.as_ref().is_some_and(|p| p.stage != PromotionStage::FullWeight);
    if canary.has_endpoints() || !could || done || pass.plan.replicas == 0 || pass.seen.rival.is_some() || !in_release(s) {
        return Ok(());
    }
    for route in &pass.seen.routes {
        let gets = route.weights.as_ref().is_ok_and(|all| all.iter().any(|w| w.canary > 0));
        let lowered = intents(pass).any(|i| matches!(i, Intent::SetWeights { name, canary: 0, .. } if *name == route.name));
        ensure(!gets || lowered, || format!("{} sends calls to an empty canary", route.name))?;
    }
    Ok(())
}

/// I3.
fn nothing_rises_after_an_abort(_: &World, pass: &Pass) -> Check {
    let (before, now) = (&pass.before, after(pass));
    if now.abort.is_some() {
        let raised = intents(pass).any(|i| matches!(i, Intent::SetWeights { canary, .. } if *canary > 0));
        ensure(!raised && now.weights.desired == 0, || "I3: weight after an abort".into())?;
    }
    let ended = before.abort.is_some() && now.abort.is_none();
    let retries = pass.seen.actions.iter().filter(|a| a.verb == Verb::Retry).count() as i32;
    let may = before.canary_revision != now.canary_revision
        || (asked(pass, Verb::Retry) && (1..=retries).contains(&(now.attempt - before.attempt)));
    ensure(!ended || may, || "I3: an abort ended without a retry or a new revision".into())
}

/// The weights go back first; the judge that is asked then has no say, and is asked one thing.
fn explained_after_the_revert_and_once(_: &World, pass: &Pass) -> Check {
    let s = after(pass);
    let records = s.runs.iter().filter(|r| r.kind == RunKind::Explanation).count();
    ensure(records <= usize::from(s.abort.is_some()), || format!("{records} explanations, abort {:?}", s.abort))?;
    for intent in intents(pass) {
        let Intent::CreateRun { spec, .. } = intent else { continue };
        ensure(spec.explains.is_some() == (spec.kind == RunKind::Explanation), || format!("{:?} explains {:?}", spec.kind, spec.explains))?;
        let Some(explains) = &spec.explains else { continue };
        let clear = pass.seen.routes.iter().all(|r| r.says(0) || r.weights.is_err());
        ensure(clear && s.phase == Phase::Degraded, || "asked before the calls were back".into())?;
        let fine = |g: &crate::api::run::RunGate| g.gate.mode == Mode::DryRun && g.gate.judge.is_some() && g.gate.name != explains.gate;
        ensure(spec.gates.len() == 1 && spec.gates.iter().all(fine), || format!("asked: {:?}", spec.gates))?;
    }
    Ok(())
}

/// The same release, attempt and steps.
fn goes_on(pass: &Pass) -> bool {
    let (b, a) = (&pass.before, after(pass));
    (&b.canary_revision, b.attempt, &b.steps_hash) == (&a.canary_revision, a.attempt, &a.steps_hash)
}

/// I4, and the other steps.
fn steps_pass_on_evidence(_: &World, pass: &Pass) -> Check {
    let (b, a) = (&pass.before, after(pass));
    if promoted_at_once(pass).is_some_and(|why| why.contains("every step passed")) {
        let from = if goes_on(pass) { b.current_step.unwrap_or(0) } else { 0 };
        let mut steps = from..pass.plan.steps.len() as i32;
        return steps.try_for_each(|index| step_passed(pass, index).map_err(|e| format!("step {index} passed: {e}")));
    }
    let from = if goes_on(pass) { b.current_step.unwrap_or(0) } else { 0 };
    let all = |n: &&crate::api::status::Promotion| n.grounds == Grounds::StepsPassed && b.promotion.is_none();
    let to = if a.promotion.as_ref().filter(all).is_some() { pass.plan.steps.len() as i32 } else { a.current_step.unwrap_or(0) };
    if a.promotion.as_ref().is_some_and(|p| p.grounds != Grounds::StepsPassed) || b.promotion.is_some() || !in_release(a) {
        return Ok(());
    }
    ensure(!goes_on(pass) || to >= from, || format!("from step {from} back to {to}"))?;
    for index in from..to {
        step_passed(pass, index).map_err(|e| format!("step {index} passed: {e}"))?;
    }
    Ok(())
}

fn step_passed(pass: &Pass, index: i32) -> Check {
    let old = &pass.before.step;
    let here = goes_on(pass) && pass.before.current_step == Some(index);
    let skipped = asked(pass, Verb::SkipStep) || (here && old.promoted);
    let promoted = asked(pass, Verb::Promote) || skipped;
    match &pass.plan.steps[index as usize] {
        PlanStep::SetWeight(w) if pass.plan.by_workers => {
            let canary = after(pass).canary_revision.clone().unwrap_or_default();
            let have = pass.seen.replica_set(&canary).map_or(0, |s| s.available);
            ensure(have >= fewest_workers(*w, pass.plan.replicas), || format!("{have} workers at {w} %"))
        }
        PlanStep::SetWeight(w) => {
            ensure(pass.seen.routes.iter().all(|r| r.says(*w) || r.weights.is_err()), || format!("routes do not say {w}"))
        }
        PlanStep::CanaryScale(_) => Ok(()),
        PlanStep::Pause(None) => ensure(promoted, || "nobody ended the pause".into()),
        PlanStep::Pause(Some(d)) => {
            let began = if here { old.started_at.as_ref().map_or(pass.seen.now, |t| t.0) } else { pass.seen.now };
            let waited = pass.seen.now.duration_since(began);
            ensure(promoted || waited >= SignedDuration::try_from(*d).unwrap(), || format!("after {waited:?} of {d:?}"))
        }
        PlanStep::Analysis { run, require } if skipped => {
            nothing_failed(pass, index)?;
            // Skipped by an earlier command: that pass was looked at.
            let earlier = here && old.promoted;
            if earlier { Ok(()) } else { the_record_names_what_was_skipped(pass, index, run.is_some(), require) }
        }
        PlanStep::Analysis { run, require } => {
            let overridden = |key: &str| (here && old.overridden.iter().any(|o| o == key)) || asked(pass, Verb::Promote);
            let own = run.as_ref().map_or(Ok(()), |_| run_passed(pass, RunKind::Step, Some(index), None, &overridden));
            own.and_then(
                |()| if require.is_empty() { Ok(()) } else { run_passed(pass, RunKind::Background, None, Some(require), &overridden) },
            )
        }
    }
}

/// Whoever skips a step says nothing about a gate that has failed.
fn nothing_failed(pass: &Pass, index: i32) -> Check {
    let counts = |r: &&crate::api::status::RunRecord| r.kind == RunKind::Background || r.step == Some(index);
    let records: Vec<_> = pass.before.runs.iter().filter(counts).collect();
    let runs = pass.seen.runs.iter().filter(|run| records.iter().any(|r| r.name == run.name && r.spec_hash == run.spec_hash));
    let failed = runs.flat_map(|r| &r.gates).find(|g| g.mode != Mode::DryRun && g.verdict == Some(Verdict::Fail));
    ensure(failed.is_none(), || format!("skipped though a gate failed: {failed:?}"))
}

/// I8: whoever skips an analysis has every gate on record that had not passed, by name.
fn the_record_names_what_was_skipped(pass: &Pass, index: i32, own: bool, require: &[String]) -> Check {
    let a = after(pass);
    let gates = |kind: RunKind, step: Option<i32>| {
        let record = pass.before.runs.iter().find(|r| r.kind == kind && r.step == step);
        let run = record.and_then(|record| pass.seen.runs.iter().find(|r| r.name == record.name && r.spec_hash == record.spec_hash));
        run.map(|r| r.gates.as_slice()).unwrap_or_default()
    };
    let open = |g: &&GateStatus| !(g.counts.pass > 0 && (g.verdict == Some(Verdict::Pass) || g.passing));
    let of_step = gates(RunKind::Step, Some(index)).iter().filter(|g| own && g.mode == Mode::Enforce).filter(open);
    let of_background = gates(RunKind::Background, None).iter().filter(|g| require.contains(&g.name)).filter(open);
    let step = format!("{}/{}", index + 1, pass.plan.steps.len());
    let here = |d: &&crate::api::status::DecisionRecord| d.decision == "Overridden" && d.step == step && d.by.is_some();
    let said: Vec<&str> = a.decisions.iter().filter(here).map(|d| d.reason.as_str()).collect();
    let missing = of_step.chain(of_background).find(|g| !said.iter().any(|reason| reason.contains(g.name.as_str())));
    ensure(missing.is_none(), || format!("I8: skipped without {missing:?}, the records say {said:?}"))?;
    ensure(said.is_empty() || !goes_on(pass) || a.overridden_steps.contains(&step), || format!("I8: {step} is not remembered"))
}

/// I4: a run that was asked for says that every enforcing gate (or each of `names`) passed on a measurement.
fn run_passed(pass: &Pass, kind: RunKind, step: Option<i32>, names: Option<&Vec<String>>, overridden: &dyn Fn(&str) -> bool) -> Check {
    let record = after(pass).runs.iter().find(|r| r.kind == kind && r.step == step).ok_or("I4: no run was asked for")?;
    let run = pass.seen.runs.iter().find(|r| r.name == record.name && r.spec_hash == record.spec_hash).ok_or("I4: there is no such run")?;
    if run.phase == RunPhase::Stopped && overridden(&run.name) {
        return Ok(());
    }
    let counts = |g: &&GateStatus| names.map_or(g.mode == Mode::Enforce, |n| n.contains(&g.name));
    let gates: Vec<&GateStatus> = run.gates.iter().filter(counts).collect();
    let passed = |g: &GateStatus| g.counts.pass > 0 && (g.verdict == Some(Verdict::Pass) || (kind == RunKind::Background && g.passing));
    let open = gates.iter().find(|g| !passed(g) && (g.verdict == Some(Verdict::Fail) || !overridden(&format!("{kind:?}/{}", g.name))));
    ensure(!gates.is_empty() && open.is_none(), || format!("I4: {:?}", open))
}

/// I8, first half.
fn promotions_have_grounds(_: &World, pass: &Pass) -> Check {
    let (b, a) = (&pass.before, after(pass));
    let Some(p) = a.promotion.as_ref().filter(|_| b.promotion.is_none()) else { return Ok(()) };
    let known = b.revisions.iter().find(|r| r.hash == p.revision);
    let fine = match p.grounds {
        Grounds::First => b.stable_revision.is_none(),
        Grounds::StepsPassed => true,
        Grounds::RollbackWindow => pass.plan.rollback_window > 0 && known.is_some_and(|r| r.was_stable && !r.aborted),
        Grounds::PromotedFull => {
            asked(pass, Verb::PromoteFull) && a.decisions.iter().any(|d| d.decision == "PromotedFull" && d.by.is_some())
        }
    };
    // An aborted one only after a retry.
    let open = b.abort.is_none() || b.canary_revision != a.canary_revision || asked(pass, Verb::Retry);
    ensure(fine && open, || format!("I8: {p:?}"))
}

/// I8, second half.
fn new_stable_has_grounds(_: &World, pass: &Pass) -> Check {
    let (b, a) = (&pass.before, after(pass));
    if b.stable_revision == a.stable_revision {
        return Ok(());
    }
    let new = a.stable_revision.clone().unwrap_or_default();
    let first = b.stable_revision.is_none();
    let at_once = promoted_at_once(pass).is_some_and(|why| {
        let known = b.revisions.iter().find(|r| r.hash == new);
        why.contains("every step passed")
            || (why.ends_with("by a person") && asked(pass, Verb::PromoteFull))
            || (why.ends_with("stable again") && pass.plan.rollback_window > 0 && known.is_some_and(|r| r.was_stable && !r.aborted))
    });
    let granted = b.promotion.as_ref().is_some_and(|p| p.revision == new) || first || at_once;
    let said = a.decisions.iter().any(|d| d.revision == new && matches!(d.decision.as_str(), "Promoted" | "RolledBack" | "FirstDeployed"));
    ensure(granted && said && b.abort.is_none(), || format!("I8: {new} became stable, promotion was {:?}", b.promotion))
}

/// Weights go back to the stable arm when it holds exactly the ready pods of the new revision.
fn stable_moves_completely(_: &World, pass: &Pass) -> Check {
    let stage = |s: &VoiceRolloutStatus| s.promotion.as_ref().map(|p| (p.stage, p.revision.clone()));
    let Some((PromotionStage::ReturnWeights, new)) = stage(after(pass)) else { return Ok(()) };
    if matches!(stage(&pass.before), Some((PromotionStage::ReturnWeights, _))) || pass.plan.replicas == 0 {
        return Ok(());
    }
    let ready = pass.seen.replica_set(&new).map_or(0, |r| r.ready);
    let arm = &pass.seen.stable_arm;
    let exact = arm.ready == std::collections::BTreeMap::from([(new.clone(), ready)]) && arm.selects == Some(new);
    ensure(exact && ready > 0, || format!("weights return to {arm:?}, {ready} new pods are ready"))
}

/// A route that was given canary traffic is forgotten when it is seen without, or is not ours any more.
fn routes_are_let_go_without_canary_traffic(_: &World, pass: &Pass) -> Check {
    for route in pass.before.managed_routes.iter().filter(|r| !after(pass).managed_routes.contains(r)) {
        let clear = |r: &crate::core::observe::RouteSeen| r.name == route.virtual_service && r.says(0);
        let left = pass.seen.left.iter().find(|l| l.route == *route);
        let gone = left.is_some_and(|l| l.weights.as_ref().is_ok_and(|w| w.canary == 0) || l.weights.is_err());
        ensure(gone || pass.seen.routes.iter().any(clear), || format!("forgot {route:?}"))?;
    }
    let s = after(pass);
    for route in pass.seen.routes.iter().filter(|r| r.weights.as_ref().is_ok_and(|all| all.iter().any(|w| w.canary > 0))) {
        let known = s.managed_routes.iter().any(|m| m.virtual_service == route.name);
        ensure(known || s.weights.desired == 0 || pass.seen.rival.is_some() || pass.seen.deleting, || {
            format!("{} is not remembered", route.name)
        })?;
    }
    Ok(())
}

/// With `Enforce`, steps give the canary no more traffic while there is a finding; and it takes none away.
fn enforced_findings_hold_raises(_: &World, pass: &Pass) -> Check {
    let s = after(pass);
    let found = !pass.plan.findings.is_empty();
    ensure(pass.seen.deleting || found != s.preflight.is_empty(), || "findings are not in the status".into())?;
    let steps = in_release(s) && s.promotion.is_none() && s.abort.is_none() && !blocked(pass);
    let raised = intents(pass).any(|i| matches!(i, Intent::SetWeights { direction: Direction::Raise, .. }));
    let held = pass.plan.enforce_preflight && found && steps;
    ensure(!held || !raised, || "raised while the preflight finds something".into())?;
    let began = s.promotion.as_ref().is_some_and(|p| p.grounds == Grounds::StepsPassed) && pass.before.promotion.is_none();
    let full = pass.seen.applied_weight() == 100;
    ensure(!began || full || !found || !pass.plan.enforce_preflight, || "all steps passed while the preflight finds something".into())
}

fn phases_are_true(_: &World, pass: &Pass) -> Check {
    let s = after(pass);
    let at_zero = pass.seen.routes.iter().all(|r| r.says(0) || r.weights.is_err());
    ensure(!matches!(s.phase, Phase::Healthy | Phase::Degraded) || at_zero, || format!("{:?} while {:?}", s.phase, pass.seen.routes))?;
    ensure(s.decisions.len() <= MAX_DECISIONS, || "too many decisions kept".into())?;
    let gives = |l: &&crate::core::observe::LeftRoute| l.weights.as_ref().is_ok_and(|w| w.canary > 0);
    let left = pass.seen.left.iter().filter(gives).any(|l| s.managed_routes.contains(&l.route));
    ensure(s.phase != Phase::Degraded || !left, || format!("Degraded while {:?}", pass.seen.left))?;
    ensure(s.phase != Phase::Healthy || s.canary_revision == s.stable_revision, || "Healthy in a release".into())?;
    ensure(!s.message.is_empty(), || "no message".into())
}

fn looks_ahead(_: &World, pass: &Pass) -> Check {
    ensure(pass.decision.wake_at.is_none_or(|t| t > pass.seen.now), || format!("wakes in the past: {:?}", pass.decision.wake_at))
}

fn sorted(d: &Decision) -> Vec<String> {
    let mut all: Vec<String> = d.urgent.iter().chain(&d.intents).map(short).collect();
    all.sort();
    all
}

/// Nothing new is seen: nothing new is said, and what was asked for is asked for again.
fn says_it_again(w: &World, pass: &Pass) -> Check {
    let once = stored(after(pass));
    let again = decide(&w.subject, &pass.plan, &once, &pass.seen);
    let twice = stored(&again.status);
    ensure(once == twice, || format!("not the same again:\n{}", difference(&once, &twice)))?;
    ensure(again.events.is_empty(), || format!("told again: {:?}", again.events))?;
    let (a, b) = (sorted(&pass.decision), sorted(&again));
    ensure(a == b, || format!("intents differ:\n{a:?}\n{b:?}"))
}

/// Time alone changes nothing before the time to look again.
fn stays_the_same_until_woken(w: &World, pass: &Pass) -> Check {
    let mut later = pass.seen.clone();
    let end = pass.decision.wake_at.unwrap_or_else(|| later.now + SignedDuration::from_hours(100));
    later.now = end - SignedDuration::from_secs(1);
    if later.now <= pass.seen.now {
        return Ok(());
    }
    let once = stored(after(pass));
    let again = decide(&w.subject, &pass.plan, &once, &later);
    let twice = stored(&again.status);
    ensure(once == twice, || format!("time alone changed the status:\n{}", difference(&once, &twice)))?;
    ensure(sorted(&pass.decision) == sorted(&again), || format!("time alone changed intents: {:?}", sorted(&again)))
}

fn difference(a: &VoiceRolloutStatus, b: &VoiceRolloutStatus) -> String {
    let (a, b) = (serde_json::to_value(a).unwrap(), serde_json::to_value(b).unwrap());
    json_patch::diff(&a, &b).to_string()
}
