//! Gates that count calls, as they stand at the weight of now: a run does not know the weight, the release does.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{Machine, after};
use crate::api::run::{GateStatus, RunKind, Verdict};
use crate::api::status::{GateSummary, Phase};
use crate::core::gates::calls::{passes_at, sentence};

/// How often new counts of an undecided gate are told while the release waits for them.
const TOLD_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

impl Machine<'_> {
    /// The gate as it stands at the current weight: whether it passes there, and whether it has been undecided for too
    /// long since the weight was reached.
    pub(super) fn at_weight(&self, kind: RunKind, mut gate: GateStatus) -> GateStatus {
        let weight = self.s.weights.desired;
        let Some(known) = gate.comparison.as_ref().filter(|_| kind == RunKind::Background) else { return gate };
        gate.passing = gate.passing && passes_at(known, weight);
        // A run tells of the lowest margin.
        if let Some(rest) = gate.message.strip_prefix(&sentence(known, 0)) {
            gate.message = format!("{}{rest}", sentence(known, weight));
        }
        let overdue = self.patience_ends(&gate).is_some_and(|end| end <= self.now());
        if overdue && let Some((_, consequence)) = self.plan.patience.get(&gate.name) {
            gate.verdict = Some(Verdict::Inconclusive);
            gate.consequence = *consequence;
        }
        gate
    }

    /// When an undecided gate has been so for too long at this weight; `None` for one that is decided or may take its time.
    fn patience_ends(&self, gate: &GateStatus) -> Option<jiff::Timestamp> {
        let (patience, consequence) = self.plan.patience.get(&gate.name)?;
        if gate.verdict.is_some() || gate.passing || consequence.is_none() {
            return None;
        }
        let weight_since = self.s.step.weight_since.as_ref()?.0;
        let first = gate.started_at.as_ref()?.0;
        let due = gate.comparison.as_ref().and_then(|c| c.not_before.as_ref()).map_or(first, |t| t.0);
        Some(after(&MicroTime(weight_since.max(first).max(due)), *patience))
    }

    /// Looks again when a gate's time is up.
    pub(super) fn watch_patience(&mut self, gates: &[(RunKind, GateStatus)]) {
        let background = gates.iter().filter(|(kind, _)| *kind == RunKind::Background);
        let ends: Vec<_> = background.filter_map(|(_, gate)| self.patience_ends(gate)).collect();
        self.wakes.extend(ends);
    }

    /// What was last told of a gate that counts calls, where that is enough: its counts change with every look, and the
    /// rollout is not written for each.
    pub(super) fn told_before(&mut self, kind: RunKind, gate: &GateStatus, verdict: Option<Verdict>) -> Option<GateSummary> {
        let known = self.s.gates.iter().find(|s| s.name == gate.name && s.kind == kind)?.clone();
        let at = known.told_at.clone()?;
        let same = (known.verdict, known.consequence, known.mode) == (verdict, gate.consequence, gate.mode);
        // A release at rest is written for changes alone.
        let rests = self.old.phase == Phase::Paused;
        (same && (rests || !self.due(after(&at, TOLD_EVERY)))).then_some(known)
    }

    /// The message of a gate as `status.gates` has it.
    pub(super) fn told_message(&self, kind: RunKind, gate: &GateStatus) -> String {
        let told = self.s.gates.iter().find(|s| s.name == gate.name && s.kind == kind && s.told_at.is_some());
        told.map_or_else(|| gate.message.clone(), |s| s.message.clone())
    }

    /// Chance of a false abort that all attempts at the revision have spent together.
    pub(super) fn spent(&self) -> Option<f64> {
        let spends = self.s.attempt.max(1).saturating_add(self.s.evidence_restarts);
        let spent = self.plan.false_abort.filter(|_| self.in_release())? * f64::from(spends);
        Some((spent * 1e9).round() / 1e9)
    }
}
