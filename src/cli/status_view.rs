//! `status`: a VoiceRollout as text.

mod counted;
mod steps;

pub(super) use steps::At;

#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::list_view::phase_ink;
use super::table::{Cell, Ink, Paint, lines};
use crate::api::analysis::Mode;
use crate::api::conditions::{CALLS_READABLE, INVALID_SPEC, REFERENCES_RESOLVED, ROUTES_IN_SYNC, WEIGHTS_REACHABLE};
use crate::api::proof::SplitVerdict;
use crate::api::run::{RunKind, Verdict};
use crate::api::status::{AbortRecord, DecisionRecord, GateSummary, PreflightFinding, RevisionStatus, Role};
use crate::api::{VoiceAnalysisRun, VoiceRollout, VoiceRolloutStatus};
use crate::core::workers;

/// Newest decisions shown.
const DECISIONS: usize = 8;

/// The whole view; ends with a line break. `runs` are the release's analysis runs, as far as they could be read.
pub fn render(rollout: &VoiceRollout, runs: &[VoiceAnalysisRun], now: Timestamp, paint: Paint) -> String {
    let name = rollout.metadata.name.as_deref().unwrap_or_default();
    let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
    let mut out = vec![format!("{}  namespace {namespace}", paint.ink(Ink::Bold, name))];
    let Some(status) = &rollout.status else {
        out.push("The operator has not looked at it yet.".into());
        return finish(&out);
    };
    out.extend(lines(paint, &facts(rollout, status, now)));
    let title = paint;
    let paint = paint.indented(2);
    section(&mut out, title, "PREFLIGHT", preflight(&status.preflight, paint));
    section(&mut out, title, "STEPS", steps::view(&rollout.spec, status, now, paint));
    section(&mut out, title, "GATES", gates(&status.gates, paint));
    section(&mut out, title, "COUNTED CALLS", counted::view(runs, compared_weight(rollout, status), now, paint));
    section(&mut out, title, "REVISIONS", revisions(&status.revisions, now, paint));
    section(&mut out, title, "DECISIONS", decisions(&status.decisions, paint));
    finish(&out)
}

pub(super) fn finish(out: &[String]) -> String {
    let mut text = out.join("\n");
    text.push('\n');
    text
}

pub(super) fn section(out: &mut Vec<String>, paint: Paint, title: &str, body: Vec<String>) {
    if !body.is_empty() {
        out.push(String::new());
        out.push(paint.ink(Ink::Bold, title));
        out.extend(body.into_iter().map(|line| format!("  {line}")));
    }
}

type Fact = [Cell; 2];

fn facts(rollout: &VoiceRollout, status: &VoiceRolloutStatus, now: Timestamp) -> Vec<Fact> {
    let mut all: Vec<Fact> = vec![["Phase".into(), phase(status)]];
    let mut fact = |name: &str, ink, text: String| all.push([name.into(), Cell::new(ink, text)]);
    if status.observed_generation != rollout.metadata.generation {
        fact("", Ink::Yellow, "the operator has not seen the newest change of the spec yet".into());
    }
    if !status.message.is_empty() {
        fact("Message", Ink::Plain, status.message.clone());
    }
    fact("Weight", Ink::Plain, weight(status));
    if let Some(seen) = &status.weights.observed {
        let ink = if seen.verdict == SplitVerdict::Differs { Ink::Red } else { Ink::Plain };
        fact("Split", ink, seen.message.clone());
    }
    if !status.step_display.is_empty() {
        fact("Step", Ink::Plain, step(status, now));
    }
    if !status.waiting_for.is_empty() {
        fact("Gate", Ink::Yellow, status.waiting_for.clone());
    }
    if let Some(next) = &status.next_action {
        let when = next.at.as_ref().map(|at| format!(" {} ({})", relative(at.0, now), clock(at.0))).unwrap_or_default();
        fact("Next", Ink::Plain, format!("{}{when}", next.what));
    }
    if let Some(spent) = status.false_abort_spent {
        let attempts = status.attempt.max(1).saturating_add(status.evidence_restarts);
        let times = if attempts > 1 { format!(": evidence was begun {attempts} times") } else { String::new() };
        let percent = (spent * 1e6).round() / 1e4;
        fact("Risk", Ink::Plain, format!("a revision that is no worse is aborted with a chance of {percent} % at most{times}"));
    }
    if status.user_paused {
        fact("Paused", Ink::Yellow, "by a person; `resume` ends it".into());
    }
    if rollout.spec.paused {
        fact("Paused", Ink::Yellow, "by spec.paused".into());
    }
    if let Some(abort) = &status.abort {
        fact("Aborted", Ink::Red, aborted(abort, now));
        if let Some(explanation) = &abort.explanation {
            fact("Why", Ink::Plain, explanation.clone());
        }
    }
    for (name, line) in problems(&status.conditions) {
        fact(name, Ink::Red, line);
    }
    all
}

fn phase(status: &VoiceRolloutStatus) -> Cell {
    let attempt = if status.attempt > 1 { format!(", attempt {}", status.attempt) } else { String::new() };
    Cell::new(phase_ink(status.phase), format!("{:?}{attempt}", status.phase))
}

fn weight(status: &VoiceRolloutStatus) -> String {
    let name = |hash: &Option<String>| hash.clone().unwrap_or_else(|| "none".into());
    let (stable, canary) = (name(&status.stable_revision), name(&status.canary_revision));
    let applied = status.weights.applied;
    let mut text = if stable == canary && applied == 0 {
        format!("100 % stable {stable}")
    } else {
        format!("{applied} % canary {canary}, {} % stable {stable}", 100 - applied)
    };
    let desired = status.weights.desired;
    if desired != applied {
        // Workers that pull their jobs reach what whole numbers of them can.
        let there = status.step.weight_since.is_some();
        text.push_str(&if there { format!(" (the step asks for {desired} %)") } else { format!(" (on the way to {desired} %)") });
    }
    text
}

/// The weight at which gates compare: with workers that pull their jobs, what those reach.
pub(super) fn compared_weight(rollout: &VoiceRollout, status: &VoiceRolloutStatus) -> i32 {
    let (asked, spec) = (status.weights.desired, &rollout.spec);
    if workers::share_calls(&spec.traffic) { workers::compared(asked, spec.replicas) } else { asked }
}

fn step(status: &VoiceRolloutStatus, now: Timestamp) -> String {
    let since = status.step.started_at.as_ref().filter(|_| status.abort.is_none());
    let since = since.map(|at| format!(", for {}", span(now.duration_since(at.0)))).unwrap_or_default();
    format!("{}{since}", status.step_display)
}

fn aborted(abort: &AbortRecord, now: Timestamp) -> String {
    let step = if abort.step.is_empty() { String::new() } else { format!(" at step {}", abort.step) };
    let by = abort.by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
    format!("{} {}{step}, {} % of calls{by}: {}", abort.revision, relative(abort.at.0, now), abort.weight, abort.reason)
}

/// A condition that asks for somebody's attention.
pub(super) fn is_problem(c: &&Condition) -> bool {
    match c.type_.as_str() {
        INVALID_SPEC => c.status == "True",
        ROUTES_IN_SYNC | REFERENCES_RESOLVED | CALLS_READABLE | WEIGHTS_REACHABLE => c.status == "False",
        _ => false,
    }
}

/// Conditions that ask for somebody's attention, a line for each line of their message.
fn problems(conditions: &[Condition]) -> Vec<(&str, String)> {
    let split = |c: &Condition| c.message.lines().map(str::to_owned).collect::<Vec<_>>();
    let named = |c: &Condition| match c.type_.as_str() {
        INVALID_SPEC => "Invalid",
        ROUTES_IN_SYNC => "Routes",
        CALLS_READABLE => "Calls",
        WEIGHTS_REACHABLE => "Reach",
        _ => "Missing",
    };
    let label = |(at, (name, line)): (usize, (&'static str, String))| (if at == 0 { name } else { "" }, line);
    let of = |c| split(c).into_iter().map(move |line| (named(c), line)).enumerate().map(label);
    conditions.iter().filter(is_problem).flat_map(of).collect()
}

/// What would cut live calls, each with its fix below.
fn preflight(found: &[PreflightFinding], paint: Paint) -> Vec<String> {
    let rows =
        |f: &PreflightFinding| [[Cell::new(Ink::Yellow, &f.code), (&f.sentence).into()], ["".into(), format!("Fix: {}", f.fix).into()]];
    lines(paint, &found.iter().flat_map(rows).collect::<Vec<Fact>>())
}

fn gates(gates: &[GateSummary], paint: Paint) -> Vec<String> {
    let row = |gate: &GateSummary| {
        let (ink, verdict) = match gate.verdict {
            None => (Ink::Dim, "-"),
            Some(Verdict::Pass) => (Ink::Green, "Pass"),
            Some(Verdict::Fail) => (Ink::Red, "Fail"),
            Some(Verdict::Inconclusive) => (Ink::Yellow, "Inconclusive"),
            Some(Verdict::Error) => (Ink::Yellow, "Error"),
        };
        let place = match gate.kind {
            RunKind::Background => "background",
            RunKind::Step => "step",
            RunKind::Explanation => "explanation",
        };
        let place = match gate.mode {
            Mode::Enforce => place.to_owned(),
            Mode::DryRun => format!("{place}, dry run"),
            Mode::Signal => format!("{place}, signal"),
        };
        let value = gate.value.as_deref().unwrap_or("-");
        [(&gate.name).into(), place.into(), Cell::new(ink, verdict), value.into(), (&gate.message).into()]
    };
    lines(paint, &gates.iter().map(row).collect::<Vec<[Cell; 5]>>())
}

fn revisions(revisions: &[RevisionStatus], now: Timestamp, paint: Paint) -> Vec<String> {
    let row = |revision: &RevisionStatus| {
        let ink = match revision.role {
            Role::Stable => Ink::Green,
            Role::Canary => Ink::Cyan,
            Role::Draining => Ink::Yellow,
            Role::Retired => Ink::Dim,
        };
        let mut notes = Vec::new();
        if revision.aborted {
            notes.push("aborted".to_owned());
        }
        if revision.ending > 0 {
            notes.push(format!("{} ending", pods(revision.ending)));
        }
        if let Some(calls) = revision.live_calls {
            notes.push(format!("{calls} live calls"));
        }
        if revision.unread_pods > 0 {
            notes.push(format!("{} unread", pods(revision.unread_pods)));
        }
        if revision.calls_cut > 0 {
            notes.push(format!("{} calls cut", revision.calls_cut));
        }
        if let Some(at) = &revision.retired_at {
            notes.push(format!("no new calls for {}", span(now.duration_since(at.0))));
        }
        [
            format!("{}", revision.number).into(),
            (&revision.hash).into(),
            Cell::new(ink, format!("{:?}", revision.role)),
            format!("{}/{} ready", revision.ready, revision.replicas).into(),
            notes.join(", ").into(),
        ]
    };
    lines(paint, &revisions.iter().map(row).collect::<Vec<[Cell; 5]>>())
}

pub(super) fn pods(n: i32) -> String {
    if n == 1 { "1 pod".into() } else { format!("{n} pods") }
}

fn decisions(decisions: &[DecisionRecord], paint: Paint) -> Vec<String> {
    let row = |record: &DecisionRecord| {
        [Cell::new(Ink::Dim, clock(record.at.0)), (&record.step).into(), (&record.decision).into(), grounds(record).into()]
    };
    let newest = &decisions[decisions.len().saturating_sub(DECISIONS)..];
    lines(paint, &newest.iter().map(row).collect::<Vec<[Cell; 4]>>())
}

/// Why something was decided, on what values and by whom.
pub(super) fn grounds(record: &DecisionRecord) -> String {
    let values = (!record.values.is_empty()).then(|| format!("[{}]", record.values.join(", ")));
    let by = record.by.as_ref().map(|by| format!("(by {by})"));
    let reason = Some(record.reason.clone()).filter(|reason| !reason.is_empty());
    [reason, values, by].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// A time of day in UTC with its date, as it stands in the resource.
pub(super) fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

pub(super) fn relative(at: Timestamp, now: Timestamp) -> String {
    let left = at.duration_since(now);
    if left > SignedDuration::ZERO { format!("in {}", span(left)) } else { format!("{} ago", span(-left)) }
}

/// A length of time in its two largest units: `1h30m`, `2m5s`, `4s`. Negative ones are clocks that differ: `0s`.
pub(super) fn span(length: SignedDuration) -> String {
    let s = length.as_secs().max(0);
    let pair = |large: i64, a: &str, small: i64, b: &str| if small == 0 { format!("{large}{a}") } else { format!("{large}{a}{small}{b}") };
    match s {
        0..60 => format!("{s}s"),
        60..3600 => pair(s / 60, "m", s % 60, "s"),
        3600..86_400 => pair(s / 3600, "h", s % 3600 / 60, "m"),
        _ => pair(s / 86_400, "d", s % 86_400 / 3600, "h"),
    }
}
