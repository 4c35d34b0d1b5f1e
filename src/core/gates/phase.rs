//! The run as a whole: its phase and its one sentence.

use jiff::Timestamp;

use super::calls::told;
use super::schedule::stamp;
use super::{finished_count, rules};
use crate::api::analysis::Mode;
use crate::api::run::{GateStatus, RunKind, RunPhase, Verdict, VoiceAnalysisRunSpec, VoiceAnalysisRunStatus};

/// Ends the run when its gates have decided: Fail with the first gate that counts and failed, Pass when every enforcing
/// gate passed and there is one. In the background signals keep the run alive, as their Fail still matters.
pub fn conclude(spec: &VoiceAnalysisRunSpec, status: &mut VoiceAnalysisRunStatus, now: Timestamp) {
    if status.phase != RunPhase::Running {
        return;
    }
    if spec.kind == RunKind::Explanation {
        // Asked once, whatever came of it.
        if status.gates.iter().all(|g| finished_count(g) > 0) {
            end(status, RunPhase::Done, now);
        }
        return;
    }
    let passed = |g: &GateStatus| g.verdict == Some(Verdict::Pass);
    let counting = || status.gates.iter().filter(|g| g.mode != Mode::DryRun);
    let mut enforcing = counting().filter(|g| g.mode == Mode::Enforce).peekable();
    if counting().any(|g| g.verdict == Some(Verdict::Fail)) {
        end(status, RunPhase::Fail, now);
    } else if enforcing.peek().is_some() && enforcing.all(passed) && (spec.kind == RunKind::Step || counting().all(passed)) {
        end(status, RunPhase::Pass, now);
    }
}

/// Ends the run from outside. What is undecided stays undecided.
pub fn stop(status: &mut VoiceAnalysisRunStatus, now: Timestamp) {
    end(status, RunPhase::Stopped, now);
    status.message = "stopped before a verdict".into();
}

fn end(status: &mut VoiceAnalysisRunStatus, phase: RunPhase, now: Timestamp) {
    status.phase = phase;
    status.finished_at = Some(stamp(now));
    for gate in &mut status.gates {
        (gate.in_flight, gate.next_at) = (None, None);
    }
}

/// The run in one sentence: what failed, what holds it, or what it waits for.
pub fn message(spec: &VoiceAnalysisRunSpec, status: &VoiceAnalysisRunStatus) -> String {
    let gates = || status.gates.iter().filter(|g| g.mode != Mode::DryRun);
    let say = |g: &GateStatus| told(&g.name, &g.message);
    match status.phase {
        RunPhase::Fail => gates().find(|g| g.verdict == Some(Verdict::Fail)).map_or_else(String::new, say),
        RunPhase::Pass => {
            let values: Vec<String> = gates().map(|g| format!("{}={}", g.name, g.value.as_deref().unwrap_or("-"))).collect();
            format!("every gate passed: {}", values.join(", "))
        }
        RunPhase::Stopped => status.message.clone(),
        RunPhase::Running | RunPhase::Done if spec.kind == RunKind::Explanation => status.gates.first().map_or_else(String::new, say),
        RunPhase::Done => String::new(),
        RunPhase::Running => {
            let holding = gates().find(|g| g.consequence.is_some());
            let open = || spec.gates.iter().zip(&status.gates).find(|(g, s)| g.gate.mode == Mode::Enforce && !rules::is_final(&g.gate, s));
            match holding.or_else(|| open().map(|(_, s)| s)) {
                Some(gate) => say(gate),
                None if gates().any(|g| g.mode == Mode::Enforce) => "every enforcing gate has passed so far".into(),
                None => "no gate is enforcing, so that this run can never pass".into(),
            }
        }
    }
}
