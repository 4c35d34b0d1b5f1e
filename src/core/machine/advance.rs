//! Steps: when one is done, and what it waits for otherwise.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{Machine, Waiting, after};
use crate::api::VoiceRolloutStatus;
use crate::api::rollout::OnDeadline;
use crate::api::status::{Grounds, Phase, Promotion, PromotionStage, StepState};
use crate::core::gates::calls::told;
use crate::core::intent::Intent;
use crate::core::plan::PlanStep;

impl Machine<'_> {
    /// Goes through every step that is done.
    pub(super) fn advance(&mut self) {
        if self.blocked().is_some() {
            return;
        }
        self.note_traffic();
        self.note_observed();
        if self.s.promotion.is_some() {
            self.advance_promotion();
            return;
        }
        while self.in_steps() && self.advance_once() {
            // The next weight may need no other workers than there are.
            if self.plan.by_workers {
                self.note_workers();
            }
        }
    }

    fn advance_once(&mut self) -> bool {
        if self.held() {
            return false;
        }
        let index = self.step_index();
        let Some(step) = self.plan.steps.get(index).cloned() else {
            return self.finish_steps();
        };
        if !self.step_done(index, &step) {
            return false;
        }
        if let Some(missing) = self.unseen(index) {
            self.wait_for_split(&missing);
            return false;
        }
        self.next_step(index);
        true
    }

    fn next_step(&mut self, index: usize) {
        let now = MicroTime(self.now());
        let kept = self.s.step.clone();
        let same_weight = self.plan.weight_at(index) == self.plan.weight_at(index + 1);
        self.s.current_step = i32::try_from(index + 1).ok();
        self.s.step = StepState {
            started_at: Some(now.clone()),
            progress_at: Some(now),
            weight_since: kept.weight_since.filter(|_| same_weight),
            traffic_since: kept.traffic_since,
            endpoints_since: kept.endpoints_since,
            overridden: Vec::new(),
            promoted: false,
        };
    }

    /// The release stands still whatever the step says.
    fn held(&mut self) -> bool {
        if self.plan.paused || self.s.user_paused {
            let by = if self.plan.paused { "spec.paused" } else { "a person" };
            self.hold(format!("paused by {by}: resume to go on"));
            self.waiting.frozen = true;
            return true;
        }
        if let Some(hold) = self.holds().into_iter().next() {
            let way = if hold.may_override { "waits for it to recover, or promote, or abort" } else { "abort or retry" };
            self.hold(format!("{} ({way})", told(&hold.name, &hold.message)));
            self.waiting.frozen = true;
            return true;
        }
        if let Some(nobody) = self.nobody_works() {
            self.hold(nobody);
            return true;
        }
        if let Some(run) = self.forged_run() {
            self.hold(forged(&run));
            self.waiting.frozen = true;
            return true;
        }
        false
    }

    pub(super) fn hold(&mut self, what: String) {
        if self.waiting.what.is_empty() {
            self.waiting = Waiting { what, held: true, ..Waiting::default() };
        }
    }

    fn step_done(&mut self, index: usize, step: &PlanStep) -> bool {
        match step {
            PlanStep::SetWeight(weight) => self.weight_done(*weight, index),
            PlanStep::CanaryScale(_) => self.scale_done(index),
            // What is missing is said where the weight is steered.
            PlanStep::Pause(_) | PlanStep::Analysis { .. } if !self.s.step.promoted && !self.weight_stands(index) => false,
            PlanStep::Pause(duration) => self.pause_done(*duration),
            PlanStep::Analysis { run, require } => self.analysis_done(run.is_some(), require),
        }
    }

    /// The weight of step `index` has been read back.
    fn weight_stands(&self, index: usize) -> bool {
        self.s.weights.desired == self.plan.weight_at(index) && self.s.step.weight_since.is_some()
    }

    fn weight_done(&mut self, weight: i32, index: usize) -> bool {
        let need = self.plan.canary_pods_at(index, weight);
        let enough = weight == 0 || self.available(self.canary(), need);
        let observed = self.weight_stands(index);
        // Of workers that pull their jobs it is said where they are waited for.
        if observed && !enough && !self.plan.by_workers {
            let have = self.seen.replica_set(self.canary()).map_or(0, |r| r.available);
            self.wait(format!("canary pods: {have} of {need} available"), true);
        }
        // What else is missing is said where the weight is steered.
        observed && enough && self.canary_arm_set()
    }

    fn scale_done(&mut self, index: usize) -> bool {
        let need = self.plan.canary_pods_at(index, self.plan.weight_at(index));
        let canary = self.canary().to_string();
        if !self.available(&canary, need) {
            let have = self.seen.replica_set(&canary).map_or(0, |r| r.available);
            self.wait(format!("canary pods: {have} of {need} available"), true);
            return false;
        }
        let ready = need == 0 || self.canary_serves(need);
        if !ready && self.canary_arm_set() {
            self.wait(format!("{} to have the ready pods of {canary} ({need})", self.seen.canary_arm.name), true);
        }
        // Why the arm does not select them yet is said where it is pointed.
        ready
    }

    fn pause_done(&mut self, duration: Option<std::time::Duration>) -> bool {
        if self.s.step.promoted {
            return true;
        }
        let Some(duration) = duration else {
            self.hold(format!("step {}: paused until promote", self.step_text()));
            return false;
        };
        let Some(started) = self.s.step.started_at.clone() else { return false };
        let end = after(&started, duration);
        if self.due(end) {
            return true;
        }
        if self.waiting.what.is_empty() {
            let what = format!("pause until {}", clock_text(end));
            self.waiting = Waiting { what, next: Some((end, "the pause ends".into())), ..Waiting::default() };
        }
        false
    }

    fn analysis_done(&mut self, runs: bool, require: &[String]) -> bool {
        if self.s.step.promoted {
            return true;
        }
        if runs && !self.step_run_passed() {
            self.wait(self.undecided(), false);
            return false;
        }
        if let Some((gate, message)) = self.unmet(require) {
            self.wait(told(&gate, &message), false);
            return false;
        }
        true
    }

    /// After the last step: no background gate may be without evidence.
    fn finish_steps(&mut self) -> bool {
        let required = self.plan.background_required.clone();
        if !self.s.step.promoted
            && let Some((gate, message)) = self.unmet(&required)
        {
            self.wait(told(&gate, &message), false);
            return false;
        }
        if self.s.weights.applied < 100 && self.held_by_preflight() {
            return false;
        }
        let all = self.plan.steps.len();
        let reason = match self.but_overridden() {
            None => format!("all {all} steps passed"),
            Some(but) => format!("all {all} steps are over; each passed{but}"),
        };
        self.record("StepsPassed", reason, None, false);
        self.s.promotion = Some(Promotion {
            revision: self.canary().into(),
            grounds: Grounds::StepsPassed,
            stage: PromotionStage::FullWeight,
            since: MicroTime(self.now()),
            ready_since: None,
        });
        self.advance_promotion();
        false
    }

    /// Of a release with steps that a person overrode: which they are, as the end of a sentence.
    pub(super) fn but_overridden(&self) -> Option<String> {
        let steps = &self.s.overridden_steps;
        (!steps.is_empty()).then(|| format!(" but {}, where a person overrode what was missing", steps.join(", ")))
    }

    /// Pods, weights or Services that do not come within `progressDeadline`.
    pub(super) fn heed_deadline(&mut self) {
        let stood = matches!(self.old.phase, Phase::Paused | Phase::Invalid);
        if stood && !self.waiting.held && self.blocked().is_none() {
            self.s.step.progress_at = Some(MicroTime(self.now()));
        }
        let Some(progress) = self.s.step.progress_at.clone() else { return };
        let stuck = self.waiting.timed && self.in_release() && self.s.abort.is_none() && self.blocked().is_none();
        let switching = self.s.promotion.as_ref().is_some_and(|p| p.stage == PromotionStage::ReturnWeights);
        if !stuck || switching || self.plan.on_deadline != OnDeadline::Abort {
            return;
        }
        if self.now() >= after(&progress, self.plan.progress_deadline) {
            let reason = format!("no progress for {} s, waiting for {}", self.plan.progress_deadline.as_secs(), self.waiting.what);
            self.intents.retain(|i| !matches!(i, Intent::SetWeights { .. } | Intent::PointArm { .. } | Intent::CreateRun { .. }));
            self.abort(None, reason, None);
            self.waiting = Waiting::default();
            self.steer_traffic();
        }
    }
}

/// What is said of a run that counts and is not what was asked for.
const FORGED: &str = "is not what was asked for, somebody made or changed it: delete it";

/// A run that counts and is not what was asked for.
pub(super) fn forged(run: &str) -> String {
    format!("VoiceAnalysisRun {run} {FORGED}")
}

/// A run that is not what was asked for holds the release: no person's word ends the step.
pub fn held_by_forged_run(status: &VoiceRolloutStatus) -> bool {
    status.waiting_for.ends_with(FORGED)
}

/// Start of `nextAction.what` while the deadline runs.
pub(super) const DEADLINE_PREFIX: &str = "progressDeadline";

/// A time as people read it, to the second.
pub(super) fn clock_text(at: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}
