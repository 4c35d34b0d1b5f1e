//! The change of roles at the end of a release. Re-rolls nothing: the new revision's pods stay, the Services move.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{Machine, after};
use crate::api::status::{Grounds, PromotionStage};

impl Machine<'_> {
    pub(super) fn advance_promotion(&mut self) {
        self.fall_back();
        while let Some(promotion) = self.s.promotion.clone() {
            let done = match (promotion.grounds, promotion.stage) {
                (Grounds::First, _) => self.first_done(&promotion.revision),
                _ if self.plan.by_workers => self.full_weight_done(&promotion.revision),
                (_, PromotionStage::FullWeight) => self.full_weight_done(&promotion.revision),
                (_, PromotionStage::SwitchStable) => self.switch_done(&promotion.revision),
                (_, PromotionStage::ReturnWeights) => self.return_done(),
            };
            if !done {
                return;
            }
            match (promotion.grounds, promotion.stage) {
                (Grounds::First, _) | (_, PromotionStage::ReturnWeights) => self.complete(promotion.grounds),
                _ if self.plan.by_workers => self.complete(promotion.grounds),
                (_, PromotionStage::FullWeight) => self.enter(PromotionStage::SwitchStable),
                (_, PromotionStage::SwitchStable) => self.enter(PromotionStage::ReturnWeights),
            }
        }
    }

    /// Not one pod of the new revision answers while stable moves to it, and the old one still can: it gets its Service
    /// back.
    fn fall_back(&mut self) {
        let switching = self.s.promotion.as_ref().filter(|p| p.stage == PromotionStage::SwitchStable && !self.plan.by_workers);
        let switching = switching.map(|p| p.revision.clone());
        let ready = |hash: &str| self.seen.replica_set(hash).map_or(0, |r| r.ready);
        let Some(new) = switching.filter(|new| ready(new) == 0 && self.plan.replicas > 0) else { return };
        if self.s.stable_revision.as_deref().is_some_and(|old| ready(old) > 0) {
            self.record("PromotionHeld", format!("no pod of revision {new} is ready: stable stays as it was"), None, true);
            self.enter(PromotionStage::FullWeight);
        }
    }

    fn enter(&mut self, stage: PromotionStage) {
        let now = MicroTime(self.now());
        if let Some(promotion) = &mut self.s.promotion {
            promotion.stage = stage;
            promotion.since = now.clone();
            promotion.ready_since = None;
        }
        self.s.step.progress_at = Some(now);
    }

    /// The first revision has all its pods, and both arms and the routes point at it.
    fn first_done(&mut self, hash: &str) -> bool {
        let n = self.plan.replicas;
        if !self.available(hash, n) {
            let have = self.seen.replica_set(hash).map_or(0, |r| r.available);
            self.wait(format!("pods: {have} of {n} available"), true);
            return false;
        }
        if self.plan.by_workers {
            return true;
        }
        let served = n == 0 || (self.seen.stable_arm.serves(hash, n) && self.seen.canary_arm.serves(hash, n));
        if !served {
            let arm = if self.seen.stable_arm.serves(hash, n) { &self.seen.canary_arm } else { &self.seen.stable_arm };
            let what = arm.problem.clone().unwrap_or_else(|| format!("{} to have the ready pods of {hash}", arm.name));
            self.wait(what, true);
            return false;
        }
        self.weight_read_back(0)
    }

    fn full_weight_done(&mut self, hash: &str) -> bool {
        let n = self.plan.replicas;
        if !self.available(hash, n) {
            let have = self.seen.replica_set(hash).map_or(0, |r| r.available);
            self.wait(format!("canary pods: {have} of {n} available"), true);
            return false;
        }
        // Where workers pull their jobs, nothing is left to switch.
        self.plan.by_workers || self.weight_read_back(100)
    }

    /// The stable arm has exactly the ready pods of the new revision, for as long as a change takes to spread.
    fn switch_done(&mut self, hash: &str) -> bool {
        let ready = self.seen.replica_set(hash).map_or(0, |r| if self.seen.stable_arm.labelled { r.serving() } else { r.ready });
        let exact = self.seen.stable_arm.serves(hash, 1) && self.seen.stable_arm.ready.get(hash) == Some(&ready);
        let exact = exact || (self.plan.replicas == 0 && self.seen.stable_arm.selects.as_deref() == Some(hash));
        let now = MicroTime(self.now());
        let Some(promotion) = &mut self.s.promotion else { return false };
        if !exact {
            promotion.ready_since = None;
            let what = self.seen.stable_arm.problem.clone();
            self.wait(what.unwrap_or_else(|| format!("{} to have the ready pods of {hash}", self.seen.stable_arm.name)), true);
            return false;
        }
        let since = promotion.ready_since.get_or_insert(now).clone();
        let at = after(&since, self.plan.propagation);
        let over = self.due(at);
        if !over {
            self.wait(format!("{} to reach every proxy", self.seen.stable_arm.name), true);
        }
        over
    }

    fn return_done(&mut self) -> bool {
        self.weight_read_back(0)
    }

    fn weight_read_back(&mut self, weight: i32) -> bool {
        let done = self.s.weights.desired == weight && self.seen.routes.iter().all(|r| r.says(weight));
        if !done {
            self.wait(format!("routes to say {weight}"), true);
        }
        done
    }

    fn complete(&mut self, grounds: Grounds) {
        let now = MicroTime(self.now());
        let Some(promotion) = self.s.promotion.take() else { return };
        let old = self.s.stable_revision.replace(promotion.revision.clone());
        let keep = i64::try_from(self.plan.scale_down_delay.as_secs()).unwrap_or(i64::MAX);
        for revision in &mut self.s.revisions {
            if revision.hash == promotion.revision {
                revision.was_stable = true;
                revision.aborted = false;
                revision.retired_at = None;
            } else if Some(&revision.hash) == old.as_ref() {
                revision.retired_at = Some(now.clone());
                revision.shrinking_since = None;
                revision.keep_seconds = keep;
            }
        }
        self.s.current_step = i32::try_from(self.plan.steps.len()).ok();
        let but = self.but_overridden().unwrap_or_default();
        let (what, reason) = match grounds {
            Grounds::First => ("FirstDeployed", format!("revision {} is stable", promotion.revision)),
            Grounds::StepsPassed => ("Promoted", format!("revision {} is stable: every step passed{but}", promotion.revision)),
            Grounds::RollbackWindow => ("RolledBack", format!("revision {} is stable again", promotion.revision)),
            Grounds::PromotedFull => ("Promoted", format!("revision {} is stable: promoted in full by a person", promotion.revision)),
        };
        self.record(what, reason, None, false);
        self.s.step.weight_since = Some(now);
        self.s.step.traffic_since = None;
    }
}
