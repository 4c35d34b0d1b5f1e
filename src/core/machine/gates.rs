//! What the gates say: summaries for people, aborts, and holds.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::Machine;
use crate::api::analysis::Mode;
use crate::api::run::{Consequence, GateStatus, RunKind, RunPhase, Verdict};
use crate::api::status::{GateSummary, Grounds, Promotion, PromotionStage, RunRecord};
use crate::core::gates::calls::told as told_of;
use crate::core::observe::RunSeen;

/// Time after which a measurement that is under way, or due and not begun, is told.
const TOLD_AFTER: std::time::Duration = std::time::Duration::from_secs(2);

/// Gate values as the decision record keeps them, `p95-first-token=812 (Fail)`.
pub fn values_of(gates: &[GateSummary]) -> Vec<String> {
    let line = |g: &GateSummary| {
        let verdict = g.verdict.map_or("undecided".to_string(), |v| format!("{v:?}"));
        format!("{}={} ({verdict})", g.name, g.value.as_deref().unwrap_or("none"))
    };
    gates.iter().map(line).collect()
}

/// Something that holds a release where it is.
pub(super) struct Hold {
    /// How `status.step.overridden` names it: see [`override_key`]; a run by its name.
    pub key: String,
    /// Name of the gate or run.
    pub name: String,
    /// What it says.
    pub message: String,
    /// A person may go on without it.
    pub may_override: bool,
}

impl Hold {
    /// For a record.
    pub fn text(&self) -> String {
        format!("{} ({})", self.name, self.message)
    }
}

/// How an override names a gate. One of the background and one of a step may be called the same, and whoever goes on
/// without the one has said nothing about the other.
pub fn override_key(kind: RunKind, gate: &str) -> String {
    format!("{kind:?}/{gate}")
}

impl Machine<'_> {
    /// The run that a record asked for; one with another spec does not count.
    pub(super) fn run_of(&self, record: &RunRecord) -> Option<&RunSeen> {
        self.seen.runs.iter().find(|r| r.name == record.name && r.spec_hash == record.spec_hash)
    }

    /// Records of the runs that count now: the background, and the current step's.
    pub(super) fn active_records(&self) -> Vec<RunRecord> {
        let step = self.s.current_step;
        let counts = |r: &&RunRecord| r.kind == RunKind::Background || r.kind == RunKind::Step && r.step == step;
        self.s.runs.iter().filter(counts).cloned().collect()
    }

    fn active_gates(&self) -> Vec<(RunKind, GateStatus)> {
        let mut all = Vec::new();
        for record in self.active_records() {
            if let Some(run) = self.run_of(&record) {
                all.extend(run.gates.iter().map(|g| (record.kind, self.at_weight(record.kind, g.clone()))));
            }
        }
        all
    }

    /// Copies the latest values of the active runs into the status. After an abort they stay as they were then.
    pub(super) fn note_gates(&mut self) {
        if self.s.abort.is_some() {
            return;
        }
        let active = self.active_gates();
        self.watch_patience(&active);
        let gates: Vec<GateSummary> = active.into_iter().map(|(kind, g)| self.summary(kind, g)).collect();
        if !gates.is_empty() || self.s.runs.is_empty() {
            self.s.gates = gates;
        }
    }

    fn summary(&mut self, kind: RunKind, gate: GateStatus) -> GateSummary {
        let verdict = gate.verdict.or(gate.passing.then_some(Verdict::Pass));
        let counts = gate.memory.is_some();
        if counts && let Some(told) = self.told_before(kind, &gate, verdict) {
            return told;
        }
        let told_at = counts.then(|| MicroTime(self.now()));
        let mut message = gate.message;
        // Most measurements take an instant: that one is under way, or waits for the first values of others, is told, and
        // written, only if it lasts.
        let measured = gate.counts.pass + gate.counts.fail + gate.counts.inconclusive + gate.counts.error > 0;
        let waits = gate.next_at.as_ref().filter(|at| !measured && at.0 <= self.now());
        if !counts
            && let Some(since) = gate.in_flight.as_ref().map(|f| &f.started_at).or(waits)
            && !self.due(super::after(&MicroTime(since.0), TOLD_AFTER))
            && let Some(known) = self.s.gates.iter().find(|s| s.name == gate.name && s.kind == kind)
            && (known.verdict, &known.value) == (verdict, &gate.value)
        {
            message.clone_from(&known.message);
        }
        let GateStatus { name, mode, consequence, value, warnings, .. } = gate;
        GateSummary { name, kind, mode, verdict, consequence, value, message, warnings, told_at }
    }

    /// A failed gate takes the canary out of traffic.
    pub(super) fn heed_gates(&mut self) {
        // Overruled by a person, or too late: callers of the stable arm get the new revision already.
        let past = |p: &Promotion| p.grounds == Grounds::PromotedFull || p.stage == PromotionStage::ReturnWeights;
        if !self.in_release() || self.s.abort.is_some() || self.s.promotion.as_ref().is_some_and(past) {
            return;
        }
        let failed = self.active_gates().into_iter().find(|(_, g)| g.mode != Mode::DryRun && g.consequence == Some(Consequence::Abort));
        if let Some((_, gate)) = failed {
            let weight = self.applied_weight();
            let step = self.step_text();
            let place = if step.is_empty() { String::new() } else { format!(" at step {step}, weight {weight}") };
            let reason = format!("gate {} failed{place}: {}", gate.name, gate.message);
            self.abort(Some(gate.name), reason, None);
        }
    }

    /// Gates and stopped runs that hold the release where it is.
    pub(super) fn holds(&self) -> Vec<Hold> {
        let holds =
            |g: &GateStatus| g.mode != Mode::DryRun && (g.consequence == Some(Consequence::Pause) || g.verdict == Some(Verdict::Fail));
        let open = |(kind, g): (RunKind, GateStatus)| {
            let may_override = g.verdict != Some(Verdict::Fail);
            let message = self.told_message(kind, &g);
            let hold = Hold { key: override_key(kind, &g.name), name: g.name, message, may_override };
            (!may_override || !self.s.step.overridden.contains(&hold.key)).then_some(hold)
        };
        let stopped = self.stopped_runs().into_iter().filter(|n| !self.s.step.overridden.contains(n));
        let stopped =
            stopped.map(|name| Hold { key: name.clone(), name, message: "stopped before a verdict".to_string(), may_override: true });
        self.active_gates().into_iter().filter(|(_, g)| holds(g)).filter_map(open).chain(stopped).chain(self.split_hold()).collect()
    }

    /// A person overrode the gate in this step.
    fn overrides(&self, kind: RunKind, gate: &str) -> bool {
        self.s.step.overridden.contains(&override_key(kind, gate))
    }

    /// Names of runs that count now and that somebody stopped: they will never say more.
    fn stopped_runs(&self) -> Vec<String> {
        let records = self.active_records();
        let runs = records.iter().filter_map(|r| self.run_of(r));
        runs.filter(|r| r.phase == RunPhase::Stopped).map(|r| r.name.clone()).collect()
    }

    /// Name of a run that counts now, but is not what was asked for: somebody else made or changed it.
    pub(super) fn forged_run(&self) -> Option<String> {
        let mine = self.active_records();
        let forged = |r: &&RunRecord| self.run_of(r).is_none() && self.seen.runs.iter().any(|run| run.name == r.name);
        mine.iter().find(forged).map(|r| r.name.clone())
    }

    /// The step's own run has passed: the run says so, and every enforcing gate has a measurement that passed. A gate
    /// that a person overrode does not have to; the others do.
    pub(super) fn step_run_passed(&self) -> bool {
        let Some(run) = self.step_run() else { return false };
        if run.phase == RunPhase::Stopped {
            return self.s.step.overridden.contains(&run.name);
        }
        let overridden = |name: &str| self.overrides(RunKind::Step, name);
        let passed = |g: &&GateStatus| g.verdict == Some(Verdict::Pass) && g.counts.pass > 0;
        let gates: Vec<&GateStatus> = run.gates.iter().filter(|g| g.mode == Mode::Enforce).collect();
        let by_person = gates.iter().any(|g| overridden(&g.name));
        (run.phase == RunPhase::Pass || by_person) && !gates.is_empty() && gates.iter().all(|g| overridden(&g.name) || passed(g))
    }

    fn step_run(&self) -> Option<&RunSeen> {
        let step = self.s.current_step;
        self.s.runs.iter().find(|r| r.kind == RunKind::Step && r.step == step).and_then(|r| self.run_of(r))
    }

    /// The enforcing gate of the step's own run that is waited for, in words.
    pub(super) fn undecided(&self) -> String {
        self.all_undecided().first().map_or_else(|| "analysis starts".into(), |(gate, message)| told_of(gate, message))
    }

    /// Enforcing gates of the step's own run that have not passed, each with what it says.
    pub(super) fn all_undecided(&self) -> Vec<(String, String)> {
        let gates = self.step_run().map(|r| r.gates.as_slice()).unwrap_or_default();
        let open = |g: &&GateStatus| g.mode == Mode::Enforce && g.verdict != Some(Verdict::Pass) && !self.overrides(RunKind::Step, &g.name);
        let told = |g: &GateStatus| {
            // As it is told in `status.gates`.
            let told = self.s.gates.iter().find(|s| s.kind == RunKind::Step && s.name == g.name).map_or(&g.message, |s| &s.message);
            (g.name.clone(), if told.is_empty() { "no measurement yet".into() } else { told.clone() })
        };
        gates.iter().filter(open).map(told).collect()
    }

    /// The first of `names` that has not passed on data newer than the last weight change, and what it says.
    pub(super) fn unmet(&self, names: &[String]) -> Option<(String, String)> {
        self.all_unmet(names).into_iter().next()
    }

    /// Those of `names` that have not passed on data newer than the last weight change, and what they say.
    pub(super) fn all_unmet(&self, names: &[String]) -> Vec<(String, String)> {
        let record = self.s.runs.iter().find(|r| r.kind == RunKind::Background);
        let run = record.and_then(|r| self.run_of(r));
        if run.is_some_and(|r| r.phase == RunPhase::Stopped && self.s.step.overridden.contains(&r.name)) {
            return Vec::new();
        }
        let since = self.s.step.weight_since.as_ref().map(|t| t.0);
        let missing = |name: &&String| {
            let Some(gate) = run.and_then(|r| r.gates.iter().find(|g| &g.name == *name)) else {
                return Some("no measurement yet".to_string());
            };
            let gate = self.at_weight(RunKind::Background, gate.clone());
            let settle = self.plan.settle.get(*name).copied().unwrap_or_default();
            let fresh = match (gate.last_pass_at.as_ref(), since) {
                (Some(pass), Some(since)) => pass.0 >= super::after(&MicroTime(since), settle),
                _ => false,
            };
            let passed = gate.counts.pass > 0 && (gate.passing || gate.verdict == Some(Verdict::Pass));
            let message = match passed {
                true if fresh => return None,
                true => "passed, on data from before the last weight change".to_string(),
                false => self.told_message(RunKind::Background, &gate),
            };
            Some(if message.is_empty() { "no measurement yet".into() } else { message })
        };
        let open = names.iter().filter(|n| !self.overrides(RunKind::Background, n));
        open.filter_map(|n| Some((n.clone(), missing(&n)?))).collect()
    }
}
