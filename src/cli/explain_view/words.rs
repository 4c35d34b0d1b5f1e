//! What a release's state, decisions and choices are in plain words.

use jiff::Timestamp;

use super::super::status_view::{At, clock, grounds, is_problem, relative};
use crate::api::analysis::Mode;
use crate::api::conditions::INVALID_SPEC;
use crate::api::proof::SplitVerdict;
use crate::api::rollout::Preflight;
use crate::api::run::{Consequence, Verdict};
use crate::api::status::{DecisionRecord, GateSummary, Grounds, Phase, PromotionStage, RevisionStatus};
use crate::api::{VoiceRollout, VoiceRolloutStatus};
use crate::core::machine::{held_by_forged_run, override_key, waits_for_split};
use crate::core::workers;

/// Where the release stands and why, a paragraph each.
pub fn state(rollout: &VoiceRollout, status: &VoiceRolloutStatus, now: Timestamp) -> Vec<String> {
    let mut all = Vec::new();
    if status.observed_generation != rollout.metadata.generation {
        all.push("The operator has not seen the newest change of the spec; what follows is about the one before.".into());
    }
    let (stable, canary) = (named(status, status.stable_revision.as_deref()), named(status, status.canary_revision.as_deref()));
    let weight = status.weights.applied;
    let step = if status.step_display.is_empty() { String::new() } else { format!(" at step {}", status.step_display) };
    let share = format!("{weight} % of new calls go to it, the others to {stable}.");
    all.push(match status.phase {
        Phase::Pending => "Nothing has happened yet.".into(),
        Phase::Initializing => capital(&format!("{canary} is the first one: it goes to 100 % without steps or analysis.")),
        Phase::Invalid => {
            format!("The spec cannot be carried out, so nothing moves. {weight} % of new calls go to {canary}, the others to {stable}.")
        }
        Phase::Healthy => format!("All new calls go to {stable}, which is the newest. No release is under way."),
        Phase::Progressing => capital(&format!("{canary} is being released and stands{step}. {share}")),
        Phase::Paused => format!("The release of {canary} stands still{step}. {share}"),
        Phase::Promoting => capital(&promoting(status, &canary)),
        Phase::Reverting => format!("New calls are on their way back to {stable}; {weight} % still go to {canary}."),
        Phase::Degraded => format!("The release of {canary} was aborted. All new calls go to {stable}."),
    });
    if rollout.spec.paused {
        all.push("It is paused by spec.paused.".into());
    }
    if status.user_paused {
        all.push("A person paused it.".into());
    }
    if let Some(abort) = &status.abort {
        let step = if abort.step.is_empty() { String::new() } else { format!(" at step {}", abort.step) };
        let by = abort.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let (when, at) = (relative(abort.at.0, now), clock(abort.at.0));
        all.push(format!("Aborted{by} {when} ({at}){step}, with {} % of new calls on it: {}.", abort.weight, full(&abort.reason)));
        all.extend(abort.explanation.as_ref().map(|why| format!("What the judge makes of it: {why}")));
    }
    let bad = status.conditions.iter().filter(is_problem);
    all.extend(bad.flat_map(|c| c.message.lines().map(|line| format!("Wrong: {line}"))));
    all.extend(status.preflight.iter().map(|f| format!("Calls may be cut: {} Fix: {}", f.sentence, f.fix)));
    all
}

/// A sentence with a capital letter.
pub fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A reason without the full stop that may end it.
fn full(reason: &str) -> &str {
    reason.trim_end_matches('.')
}

fn named(status: &VoiceRolloutStatus, hash: Option<&str>) -> String {
    let Some(hash) = hash else { return "no revision".into() };
    match status.revisions.iter().find(|r| r.hash == hash) {
        Some(revision) => format!("revision {} ({hash})", revision.number),
        None => format!("revision {hash}"),
    }
}

fn promoting(status: &VoiceRolloutStatus, canary: &str) -> String {
    let Some(promotion) = &status.promotion else { return format!("{canary} becomes stable.") };
    let why = match promotion.grounds {
        Grounds::First => "it is the first one",
        Grounds::StepsPassed if status.overridden_steps.is_empty() => "every step passed",
        Grounds::StepsPassed => {
            &format!("every step passed but {}, where a person overrode what was missing", status.overridden_steps.join(", "))
        }
        Grounds::RollbackWindow => "it was stable before and lies within rollbackWindow",
        Grounds::PromotedFull => "a person said promote --full",
    };
    let stage = match promotion.stage {
        PromotionStage::FullWeight => "all new calls go to its pods",
        PromotionStage::SwitchStable => "the stable Service moves to it",
        PromotionStage::ReturnWeights => "the weights go back to the stable route, which is the new revision now",
    };
    format!("{canary} becomes stable, because {why}; now {stage}.")
}

/// A decision as a sentence.
pub fn decision(d: &DecisionRecord) -> String {
    let what = match d.decision.as_str() {
        "FirstDeployment" => "First deployment",
        "ReleaseStarted" => "The release began",
        "ReturnedToStable" => "The stable version was asked for again",
        "RollbackStarted" => "The way back began",
        "StepsChanged" => "The steps were edited",
        "StepsPassed" => "The steps are over",
        "WeightApplied" => "The weight changed",
        "Aborted" => "Aborted",
        "AbortExplained" => "The judge explained the abort",
        "AbortNotExplained" => "The judge did not explain the abort",
        "Promoted" => "Promoted",
        "PromotedFull" => "Promoted in full",
        "Overridden" => "Overridden by a person",
        "PausedByUser" => "Paused",
        "Resumed" => "Resumed",
        "Retried" => "Retried",
        "EvidenceRestarted" => "Evidence began anew",
        "DrainOverdue" => "A drain takes too long",
        "CallsCut" => "Calls were cut",
        // Words of later versions are sentences enough.
        other => other,
    };
    let step = if d.step.is_empty() { String::new() } else { format!(" (step {})", d.step) };
    let grounds = Some(grounds(d)).filter(|text| !text.is_empty()).map(|text| format!(": {text}")).unwrap_or_default();
    format!("{what}{step}{grounds}")
}

/// What there is to say when nothing happens by itself.
pub fn nothing_by_itself(rollout: &VoiceRollout, status: &VoiceRolloutStatus) -> String {
    match status.phase {
        Phase::Healthy => "Nothing, until spec.template changes.".into(),
        Phase::Degraded => "Nothing by itself: retry it, or change spec.template.".into(),
        Phase::Invalid => "Nothing, until the spec is edited.".into(),
        Phase::Paused if rollout.spec.paused => "Nothing, until spec.paused is taken out.".into(),
        Phase::Paused => "Nothing by itself: it waits for a person. Gates go on and may still abort it.".into(),
        _ => "It goes on as soon as what it waits for is there.".into(),
    }
}

/// Something a person can do.
pub struct Choice {
    /// What it does.
    pub what: &'static str,
    /// The verb.
    pub verb: &'static str,
    /// What comes after the name and the namespace.
    pub rest: &'static str,
}

/// What a person can do now: nothing that would be refused.
pub fn choices(rollout: &VoiceRollout) -> Vec<Choice> {
    let choice = |verb, rest, what| Choice { what, verb, rest };
    let status = rollout.status.clone().unwrap_or_default();
    let watch = choice("status", " --watch", "Watch it until it is over:");
    let see = || choice("status", "", "See everything that is wrong, and edit the manifest (lint checks it before you apply it):");
    let abort = choice("abort", " --reason TEXT", "Send all new calls back to stable at once:");
    let before = |r: &RevisionStatus| r.was_stable && !r.aborted && Some(&r.hash) != status.stable_revision.as_ref();
    match status.phase {
        Phase::Healthy if status.revisions.iter().any(before) => vec![
            choice("set image", " CONTAINER=IMAGE", "Release another image:"),
            choice("undo", "", "Go back to the version that was stable before:"),
        ],
        Phase::Healthy => vec![choice("set image", " CONTAINER=IMAGE", "Release another image:")],
        Phase::Degraded => {
            let invalid = status.conditions.iter().any(|c| c.type_ == INVALID_SPEC && c.status == "True");
            let retry = choice("retry", "", "Start it again from the first step, with fresh evidence:");
            vec![if invalid { see() } else { retry }, choice("undo", "", "Take the template of the stable version back:")]
        }
        Phase::Invalid => vec![see()],
        Phase::Pending | Phase::Initializing | Phase::Reverting => vec![watch],
        // Stable is the new revision then.
        Phase::Promoting if status.promotion.as_ref().is_none_or(|p| p.stage == PromotionStage::ReturnWeights) => vec![watch],
        Phase::Promoting => vec![watch, abort],
        Phase::Paused if status.user_paused => vec![choice("resume", "", "Let the steps go on:"), abort],
        Phase::Paused if rollout.spec.paused => vec![abort],
        Phase::Paused => ends_step(rollout, &status).into_iter().chain([abort]).chain(after_failure(&status)).collect(),
        Phase::Progressing => {
            let pause = choice("pause", "", "Keep it at this step:");
            [watch, pause].into_iter().chain(ends_step(rollout, &status)).chain([abort]).collect()
        }
    }
}

fn failed(status: &VoiceRolloutStatus) -> bool {
    status.gates.iter().any(|g| g.verdict == Some(Verdict::Fail) && g.mode != Mode::DryRun)
}

fn after_failure(status: &VoiceRolloutStatus) -> Option<Choice> {
    failed(status).then_some(Choice { what: "After the abort, start again with fresh evidence:", verb: "retry", rest: "" })
}

/// How a person ends the current step, if one can.
fn ends_step(rollout: &VoiceRollout, status: &VoiceRolloutStatus) -> Option<Choice> {
    let (at, spec) = (At::of(&rollout.spec, status), &rollout.spec);
    let enforced = spec.preflight == Preflight::Enforce && !status.preflight.is_empty();
    let nobody = workers::share_calls(&spec.traffic) && spec.replicas == 0;
    // A failed gate is overridden by nobody; nor is what would cut calls, or would not move.
    if failed(status) || (enforced && at == At::End) || nobody || held_by_forged_run(status) {
        return None;
    }
    let overridden = |g: &GateSummary| status.step.overridden.contains(&override_key(g.kind, &g.name));
    let holds = |g: &GateSummary| g.consequence == Some(Consequence::Pause) && g.mode != Mode::DryRun && !overridden(g);
    let gate = status.gates.iter().any(holds);
    let split = status.weights.observed.as_ref().is_some_and(|o| o.verdict == SplitVerdict::Differs && !o.overridden);
    let (rest, what) = match at {
        _ if gate => (" --reason TEXT", "Go on without the gate that holds it; the record says who did:"),
        _ if split => (" --reason TEXT", "Go on though calls are split in another way; the record says who did:"),
        _ if waits_for_split(status) => (" --reason TEXT", "Go on though the split was not seen; the record says who did:"),
        _ if status.step.promoted => return None,
        At::Pause => ("", "End the pause:"),
        At::Analysis => (" --skip-step --reason TEXT", "End this analysis without its evidence; the record says who did:"),
        At::End => (" --skip-step --reason TEXT", "Go on without the gates that are waited for; the record says who did:"),
        At::Moves => return None,
    };
    Some(Choice { what, verb: "promote", rest })
}
