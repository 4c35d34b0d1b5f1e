//! Gates that count calls, as they stand at the weight of now: a run does not know the weight, the release does.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use super::{Machine, after};
use crate::api::run::{Comparison, GateStatus, RunKind, Verdict};
use crate::api::status::{GateSummary, Phase};
use crate::core::gates::calls::{line_at, passes_at, sentence};
use crate::core::window::{clock, span};

/// How often new counts of an undecided gate are told while the release waits for them.
const TOLD_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

/// With all calls on the canary nothing is compared any more: a gate that has passed at this margin goes on passing, as
/// long as its data goes on coming. Gives the time of the newest data.
fn passed_before(known: &Comparison) -> Option<Timestamp> {
    known.stable.as_ref()?;
    line_at(known, 100)?.passed_at.as_ref()?;
    known.data_at.as_ref().map(|t| t.0)
}

impl Machine<'_> {
    /// The gate as it stands at the current weight: whether it passes there, and whether it has been undecided there for too
    /// long.
    pub(super) fn at_weight(&self, kind: RunKind, mut gate: GateStatus) -> GateStatus {
        let Some((patience, consequence)) = self.plan.patience.get(&gate.name).filter(|_| kind == RunKind::Background) else {
            return gate;
        };
        let weight = self.compared_weight();
        if let Some(known) = &gate.comparison {
            gate.passing = gate.passing && passes_at(known, weight);
            if weight >= 100
                && let Some(at) = passed_before(known)
            {
                gate.passing = gate.verdict.is_none();
                let settle = self.plan.settle.get(&gate.name).copied().unwrap_or_default();
                gate.last_pass_at = Some(Time(after(&MicroTime(at), settle)));
            }
            // A run tells of the lowest margin.
            if let Some(rest) = gate.message.strip_prefix(&sentence(known, 0)) {
                gate.message = format!("{}{rest}", sentence(known, weight));
            }
        }
        if let Some(since) = self.undecided_at_weight(&gate)
            && after(&MicroTime(since), *patience) <= self.now()
        {
            gate.verdict = Some(Verdict::Inconclusive);
            gate.consequence = *consequence;
            gate.message.push_str(&format!("; undecided since {}, longer than maxDuration {}", clock(since), span(*patience)));
        }
        gate
    }

    /// Since when a gate without a verdict has not passed at this weight; `None` for one that passes, or may take its time.
    fn undecided_at_weight(&self, gate: &GateStatus) -> Option<Timestamp> {
        let (_, consequence) = self.plan.patience.get(&gate.name)?;
        if gate.verdict.is_some() || gate.passing || consequence.is_none() {
            return None;
        }
        let known = gate.comparison.as_ref();
        let line = known.and_then(|c| line_at(c, self.compared_weight())).filter(|line| !line.passes);
        // Where the newest counts pass, what came after them does not say anything.
        let since = line.map_or(gate.undecided_since.as_ref(), |line| line.undecided_since.as_ref())?.0;
        let due = known.and_then(|c| c.not_before.as_ref()).map_or(since, |t| t.0);
        Some(since.max(due).max(self.s.step.weight_since.as_ref()?.0))
    }

    /// Looks again when a gate's time is up.
    pub(super) fn watch_patience(&mut self, gates: &[(RunKind, GateStatus)]) {
        let background = gates.iter().filter(|(kind, _)| *kind == RunKind::Background);
        let ends = background.filter_map(|(_, gate)| {
            let since = self.undecided_at_weight(gate)?;
            Some(after(&MicroTime(since), self.plan.patience.get(&gate.name)?.0))
        });
        let ends: Vec<Timestamp> = ends.collect();
        self.wakes.extend(ends);
    }

    /// What was last told of a gate that counts calls, where that is enough: its counts change with every look, and the
    /// rollout is not written for each, nor while nothing new was counted.
    pub(super) fn told_before(&mut self, kind: RunKind, gate: &GateStatus, verdict: Option<Verdict>) -> Option<GateSummary> {
        let known = self.s.gates.iter().find(|s| s.name == gate.name && s.kind == kind)?.clone();
        let at = known.told_at.clone()?;
        let same = (known.verdict, known.consequence, known.mode) == (verdict, gate.consequence, gate.mode);
        // A release at rest is written for changes alone.
        let rests = self.old.phase == Phase::Paused;
        let no_news = (&known.message, &known.value, &known.warnings) == (&gate.message, &gate.value, &gate.warnings);
        (same && (rests || no_news || !self.due(after(&at, TOLD_EVERY)))).then_some(known)
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
