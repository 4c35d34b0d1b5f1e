//! The share of new calls that was seen since the weight was last changed: told, and held against the weight.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::gates::Hold;
use super::{Machine, after};
use crate::api::VoiceRolloutStatus;
use crate::api::proof::{Observed, SplitCalls, SplitVerdict};
use crate::api::run::RunKind;
use crate::api::status::Phase;
use crate::core::plan::PlanStep;
use crate::core::proof::{GATE, Since, between, share};

/// How `status.step.overridden` names the split.
pub(super) const KEY: &str = "Split/observed-split";
/// Start of what is waited for.
const WAITS: &str = "the split to be seen";
/// How often new counts are told that change nothing.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Nothing but the split keeps the current step from being over: a person may go on without having seen it.
pub fn waits_for_split(status: &VoiceRolloutStatus) -> bool {
    status.waiting_for.starts_with(WAITS)
}

impl Machine<'_> {
    /// Takes in what was counted since the current weight was read back.
    pub(super) fn note_observed(&mut self) {
        let plan = self.plan;
        let Some(proof) = plan.proof.as_ref().filter(|_| self.in_release()) else {
            self.s.weights.observed = None;
            return;
        };
        let weight = self.s.weights.desired;
        let Some(since) = self.s.step.weight_since.clone().filter(|_| self.in_steps() && proof.looks_at(weight)) else { return };
        let known = self.s.weights.observed.clone();
        let mut now = match known.as_ref().filter(|o| (o.weight, &o.since) == (weight, &since)) {
            Some(known) => known.clone(),
            None => Observed {
                weight,
                number: known.as_ref().map_or(0, |o| o.number).saturating_add(1),
                since: since.clone(),
                before: None,
                canary: 0,
                total: 0,
                share: None,
                verdict: SplitVerdict::NoData,
                message: format!("no call is counted yet since the weight is {weight} %"),
                told_at: None,
                overridden: false,
            },
        };
        if let Some(calls) = self.counted_since(after(&since, proof.settle)) {
            let begun = now.before.filter(|b| b.canary <= calls.canary && b.stable <= calls.stable);
            if let Some(before) = begun {
                let calls = between(&before, &calls);
                let differed = now.verdict == SplitVerdict::Differs;
                let at = Since { weight, number: now.number, since: after(&since, plan.propagation), calls: &calls, differed };
                let (verdict, message) = proof.judge(&at);
                self.tell_observed(&mut now, calls, verdict, message);
            } else {
                // From here on: the first counts with all calls from before the change, or those of another run.
                now.before = Some(calls);
            }
        }
        self.s.weights.observed = Some(now);
    }

    /// Counts of the background run, if they are of this time or later.
    fn counted_since(&self, from: jiff::Timestamp) -> Option<SplitCalls> {
        let record = self.s.runs.iter().find(|r| r.kind == RunKind::Background)?;
        let counts = self.run_of(record)?.gates.iter().find(|g| g.name == GATE)?.split.as_ref()?;
        counts.at.as_ref().filter(|at| at.0 >= from).map(|_| counts.calls)
    }

    /// Counts change with every look; the rollout is not written for each.
    fn tell_observed(&mut self, known: &mut Observed, calls: SplitCalls, verdict: SplitVerdict, message: String) {
        let same = known.verdict == verdict;
        let total = calls.canary.saturating_add(calls.stable);
        let early = known.told_at.as_ref().is_some_and(|at| self.now() < after(at, TOLD_EVERY));
        let unchanged = (known.canary, known.total) == (calls.canary, total);
        if same && (unchanged || early || (self.old.phase == Phase::Paused && known.told_at.is_some())) {
            return;
        }
        let differed = known.verdict == SplitVerdict::Differs;
        (known.canary, known.total, known.share) = (calls.canary, total, share(&calls));
        (known.verdict, known.message, known.told_at) = (verdict, message.clone(), Some(MicroTime(self.now())));
        if verdict == SplitVerdict::Differs && !differed {
            self.record("SplitDiffers", message, None, true);
        } else if differed && verdict != SplitVerdict::Differs {
            self.record("SplitAgrees", message, None, false);
        }
    }

    /// What was seen at the weight of now, unless a person goes on without it.
    fn observed(&self) -> Option<&Observed> {
        let seen = self.s.weights.observed.as_ref().filter(|o| !o.overridden && self.plan.proof.is_some())?;
        (self.s.step.weight_since.as_ref() == Some(&seen.since) && self.in_steps()).then_some(seen)
    }

    /// The share differs from the weight: the release stands where it is.
    pub(super) fn split_hold(&self) -> Option<Hold> {
        let seen = self.observed().filter(|o| o.verdict == SplitVerdict::Differs)?;
        Some(Hold { key: KEY.into(), name: GATE.into(), message: seen.message.clone(), may_override: true })
    }

    /// The weight of step `index` has to be seen before the step is over, and is not.
    pub(super) fn unseen(&self, index: usize) -> Option<String> {
        let proof = self.plan.proof.as_ref().filter(|p| p.proof.require_observed)?;
        let moves = !matches!(self.plan.steps.get(index), Some(PlanStep::CanaryScale(_)));
        if self.s.step.promoted || !moves || !proof.looks_at(self.plan.weight_at(index)) {
            return None;
        }
        if self.s.weights.observed.as_ref().is_some_and(|o| o.overridden && o.weight == self.plan.weight_at(index)) {
            return None;
        }
        match self.observed() {
            Some(seen) if seen.verdict == SplitVerdict::Agrees => None,
            Some(seen) => Some(seen.message.clone()),
            None => Some("no call is counted yet".into()),
        }
    }

    /// Waits for calls; when none have shown the split within `progressDeadline`, for evidence or a person.
    pub(super) fn wait_for_split(&mut self, missing: &str) {
        let what = format!("{WAITS}: {missing}");
        let since = self.s.step.weight_since.clone();
        let late = since.is_some_and(|since| self.due(after(&since, self.plan.progress_deadline)));
        if late { self.hold(what) } else { self.wait(what, false) }
    }

    /// Nothing but the split keeps the step from being over.
    pub(super) fn waits_for_split(&self) -> bool {
        waits_for_split(self.old)
    }

    /// A person goes on at this weight, whatever is seen of the split.
    pub(super) fn override_split(&mut self) {
        if let Some(seen) = &mut self.s.weights.observed {
            seen.overridden = true;
        }
    }
}
