//! `explain`: a release in plain words.

mod words;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use kube::ResourceExt;

use super::status_view::{clock, compared_weight, relative, section, span};
use super::table::{Cell, Ink, Paint, clean, lines};
use crate::api::analysis::Mode;
use crate::api::run::{Consequence, GateStatus, RunKind, Verdict};
use crate::api::sessions::OnMaxDrain;
use crate::api::status::{DecisionRecord, GateSummary, Role, RunRecord};
use crate::api::{VoiceAnalysisRun, VoiceRollout, VoiceRolloutStatus};
use crate::core::gates::calls::{line_at, times};

/// Decisions that are told: the newest of the revision in question.
const DECISIONS: usize = 12;

/// How commands are typed.
#[derive(Clone, Copy, Debug)]
pub struct Typed<'a> {
    /// The program: `kubectl voicerollout`.
    pub program: &'a str,
    /// The namespace.
    pub namespace: &'a str,
}

/// The whole text; ends with a line break. `runs` are the release's analysis runs, as far as they could be read.
pub fn render(rollout: &VoiceRollout, runs: &[VoiceAnalysisRun], now: Timestamp, paint: Paint, typed: Typed<'_>) -> String {
    let name = rollout.name_any();
    let mut out = vec![paint.ink(Ink::Bold, &name)];
    let inner = paint.indented(2);
    match &rollout.status {
        None => {
            out.extend(paint.wrapped("The operator has not looked at this VoiceRollout. Nothing happens until it does: is it running?"))
        }
        Some(status) => {
            for sentence in words::state(rollout, status, now) {
                out.extend(paint.wrapped(&sentence));
            }
            section(&mut out, paint, "WHAT HAPPENED", happened(status, inner));
            section(&mut out, paint, "WHAT IT WAITS FOR", waits(status, inner));
            section(&mut out, paint, "GATES", gates(status, runs, compared_weight(rollout, status), now, inner));
            section(&mut out, paint, "WHAT HAPPENS NEXT", next(rollout, status, now, inner));
        }
    }
    section(&mut out, paint, "WHAT YOU CAN DO", choices(rollout, inner, typed));
    out.join("\n") + "\n"
}

/// The decision record of the revision that is being released, or was last.
fn happened(status: &VoiceRolloutStatus, paint: Paint) -> Vec<String> {
    let about = |d: &&DecisionRecord| d.revision.is_empty() || Some(&d.revision) == status.canary_revision.as_ref();
    let all: Vec<&DecisionRecord> = status.decisions.iter().filter(about).collect();
    let row = |d: &&DecisionRecord| [Cell::new(Ink::Dim, clock(d.at.0)), words::decision(d).into()];
    lines(paint, &all[all.len().saturating_sub(DECISIONS)..].iter().map(row).collect::<Vec<[Cell; 2]>>())
}

fn waits(status: &VoiceRolloutStatus, paint: Paint) -> Vec<String> {
    if status.waiting_for.is_empty() || status.abort.is_some() { Vec::new() } else { paint.wrapped(&status.waiting_for) }
}

/// Every gate with what it has found of both arms at a canary weight in percent, those that stop something first.
fn gates(status: &VoiceRolloutStatus, runs: &[VoiceAnalysisRun], weight: i32, now: Timestamp, paint: Paint) -> Vec<String> {
    let newest = |gate: &GateSummary| {
        let of_kind = runs.iter().filter(|r| r.spec.kind == gate.kind);
        of_kind.filter_map(|r| r.status.as_ref()).flat_map(|s| &s.gates).find(|g| g.name == gate.name)
    };
    let mut all: Vec<&GateSummary> = status.gates.iter().collect();
    all.sort_by_key(|g| match (g.verdict, g.consequence) {
        (Some(Verdict::Fail), _) => 0,
        (_, Some(_)) => 1,
        (None | Some(Verdict::Inconclusive | Verdict::Error), None) => 2,
        (Some(Verdict::Pass), None) => 3,
    });
    let mut out = Vec::new();
    for gate in all {
        let (ink, verdict) = verdict(gate);
        out.extend(lines(paint, &[[Cell::new(Ink::Bold, &gate.name), Cell::new(ink, verdict)]]));
        let inner = paint.indented(2);
        let counted = newest(gate).and_then(|g| counted(g, weight, now));
        let said = if gate.message.is_empty() { "No measurement yet.".to_owned() } else { gate.message.clone() };
        let told = counted.unwrap_or_else(|| vec![said]);
        let warnings = gate.warnings.iter().map(|w| format!("Warning: {w}"));
        out.extend(told.into_iter().chain(warnings).flat_map(|line| inner.wrapped(&line)).map(|line| format!("  {line}")));
    }
    out
}

fn verdict(gate: &GateSummary) -> (Ink, String) {
    let (ink, said) = match gate.verdict {
        None => (Ink::Plain, "undecided"),
        Some(Verdict::Pass) => (Ink::Green, "passes"),
        Some(Verdict::Fail) => (Ink::Red, "failed"),
        Some(Verdict::Inconclusive) => (Ink::Yellow, "has too little evidence"),
        Some(Verdict::Error) => (Ink::Yellow, "cannot be measured"),
    };
    let leads = match gate.consequence {
        Some(Consequence::Abort) => ": the release is aborted",
        Some(Consequence::Pause) => ": the release stands still",
        None => "",
    };
    let mode = match gate.mode {
        Mode::Enforce => "",
        Mode::DryRun => " (dry run: it changes nothing)",
        Mode::Signal => " (signal: it does not have to pass)",
    };
    (ink, format!("{said}{leads}{mode}"))
}

/// Both arms' calls and the evidence, of a gate that counts calls.
fn counted(gate: &GateStatus, weight: i32, now: Timestamp) -> Option<Vec<String>> {
    let c = gate.comparison.as_ref()?;
    let edge = c.edge.map(|e| format!(" above {e}")).unwrap_or_default();
    let share = |bad: i64, calls: i64| {
        #[allow(clippy::cast_precision_loss)] // for people
        let rate = if calls > 0 { crate::core::gates::calls::percent(bad as f64 / calls as f64) } else { "no call yet".into() };
        format!("{bad} of {calls} calls are bad{edge} ({rate})")
    };
    let mut all = vec![format!("canary: {}", share(c.canary.bad, c.canary.calls))];
    if let Some(stable) = &c.stable {
        all.push(format!("stable: {}", share(stable.bad, stable.calls)));
    }
    all.push(format!("evidence against the canary: {}; it is aborted at {}", times(c.log_evidence), times(c.log_abort_line)));
    if let Some(line) = line_at(c, weight) {
        let still = line.to_pass.filter(|_| !line.passes).map(|o| {
            let time = o.seconds.map(|s| format!(", about {}", span(jiff::SignedDuration::from_secs(s)))).unwrap_or_default();
            format!("; {} more canary calls are expected to be enough{time}", o.calls)
        });
        let (evidence, enough) = (times(line.log_evidence), times(line.log_line));
        all.push(format!("evidence that it stays below {}: {evidence}; {enough} is enough{}", line.below, still.unwrap_or_default()));
    }
    if c.canary.calls < c.min_canary {
        all.push(format!("{} canary calls are needed before it may pass", c.min_canary));
    }
    all.extend(c.data_at.as_ref().map(|at| format!("counted {}", relative(at.0, now))));
    Some(all)
}

fn next(rollout: &VoiceRollout, status: &VoiceRolloutStatus, now: Timestamp, paint: Paint) -> Vec<String> {
    let mut all = Vec::new();
    match &status.next_action {
        Some(next) => {
            let when = next.at.as_ref().map(|at| format!(", {} ({})", relative(at.0, now), clock(at.0))).unwrap_or_default();
            all.push(words::capital(&format!("{}{when}", next.what)));
        }
        None => all.push(words::nothing_by_itself(rollout, status)),
    }
    for revision in status.revisions.iter().filter(|r| r.role == Role::Draining) {
        let calls = match revision.live_calls {
            Some(1) => "1 live call".to_owned(),
            Some(calls) => format!("{calls} live calls"),
            None => "live calls that nobody counts".into(),
        };
        let drain = &rollout.spec.drain;
        let latest = match drain.on_max_drain {
            OnMaxDrain::Keep => String::new(),
            _ => format!(", at the latest after {}", crate::core::window::span(crate::api::common::std_duration(drain.max_drain))),
        };
        all.push(format!("Revision {} ({}) has {calls}; its pods go as they become idle{latest}.", revision.number, revision.hash));
    }
    all.iter().flat_map(|line| paint.wrapped(line)).collect()
}

/// What a person can do now, each with the command.
fn choices(rollout: &VoiceRollout, paint: Paint, typed: Typed<'_>) -> Vec<String> {
    let name = rollout.name_any();
    let command = |verb: &str, rest: &str| format!("{} {verb} {name} -n {}{rest}", typed.program, typed.namespace);
    let mut out = Vec::new();
    let mut offer = |what: &str, command: String| {
        out.extend(paint.wrapped(what));
        // A command is copied: it is not broken.
        out.push(format!("  {}", paint.ink(Ink::Cyan, &clean(&command))));
    };
    if let Some((gate, run)) = failed(rollout) {
        offer(&format!("Read what {gate} measured:"), format!("kubectl get voiceanalysisrun {run} -n {} -o yaml", typed.namespace));
    }
    for choice in words::choices(rollout) {
        offer(choice.what, command(choice.verb, choice.rest));
    }
    out
}

/// The gate that stopped the release, and the run with its measurements.
fn failed(rollout: &VoiceRollout) -> Option<(&str, &str)> {
    let status = rollout.status.as_ref()?;
    let gate = status.abort.as_ref()?.gate.as_deref()?;
    let kind = status.gates.iter().find(|g| g.name == gate && g.verdict == Some(Verdict::Fail))?.kind;
    let of_it = |run: &&RunRecord| run.kind == kind && (kind != RunKind::Step || run.step == status.current_step);
    Some((gate, &status.runs.iter().rev().find(of_it)?.name))
}
