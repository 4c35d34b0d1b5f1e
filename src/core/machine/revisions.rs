//! Revisions: which exist, which is wanted, how many pods each has, and when they go.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::Machine;
use crate::api::status::{Grounds, Promotion, PromotionStage, RevisionStatus, Role};
use crate::core::intent::Intent;
use crate::core::observe::ArmSeen;
use crate::core::rollback::may_return;

impl Machine<'_> {
    /// Takes the ReplicaSets that exist into `status.revisions`.
    pub(super) fn note_revisions(&mut self) {
        let seen = self.seen;
        for set in &seen.replica_sets {
            if !self.s.revisions.iter().any(|r| r.hash == set.hash) {
                self.s.revisions.push(RevisionStatus { hash: set.hash.clone(), number: set.number, ..RevisionStatus::default() });
            }
        }
        let mut progress = false;
        // Pods of a release; those of a rollout at rest come and go.
        let canary = self.s.canary_revision.clone().filter(|c| self.s.stable_revision.as_ref() != Some(c));
        for revision in &mut self.s.revisions {
            let (wanted, ready, ending) = seen.replica_set(&revision.hash).map_or((0, 0, 0), |r| (r.wanted, r.ready, r.ending));
            progress |= canary.as_ref() == Some(&revision.hash) && ready > revision.ready;
            revision.replicas = wanted;
            revision.ready = ready;
            revision.ending = ending;
        }
        if progress {
            self.s.step.progress_at = Some(MicroTime(seen.now));
        }
        self.sort_revisions();
    }

    fn sort_revisions(&mut self) {
        self.s.revisions.sort_by(|a, b| b.number.cmp(&a.number).then_with(|| a.hash.cmp(&b.hash)));
    }

    pub(super) fn revision(&self, hash: &str) -> Option<&RevisionStatus> {
        self.s.revisions.iter().find(|r| r.hash == hash)
    }

    /// Starts a release when `spec.template` names another revision, or starts its steps again when they changed.
    pub(super) fn follow_target(&mut self) {
        if self.may_begin() {
            self.begin(self.seen.target.clone());
            return;
        }
        if self.blocked().is_some() {
            return;
        }
        if self.in_steps() && self.s.steps_hash.as_deref() != Some(&self.plan.steps_hash) {
            // A verdict that came with the change is not lost with the old steps.
            self.note_gates();
            self.heed_gates();
            if self.s.abort.is_some() {
                return;
            }
            self.record("StepsChanged", "the step list changed: starting again from the first step", None, false);
            let kept = self.s.step.clone();
            self.reset_steps();
            // The attempt goes on. Its weight counts from now, so that no run of the old list stands for one of the new.
            self.s.step.weight_since = None;
            self.s.step.traffic_since = kept.traffic_since;
            self.s.step.endpoints_since = kept.endpoints_since;
            self.forget_step_runs();
        }
    }

    /// `spec.template` names another revision than the newest one, and nothing has to be finished first.
    pub(super) fn may_begin(&self) -> bool {
        // A change of roles that has begun is finished; it takes seconds.
        let committed = |p: &Promotion| p.stage != PromotionStage::FullWeight && p.grounds != Grounds::First;
        let other = self.s.canary_revision.as_ref() != Some(&self.seen.target);
        other && self.blocked().is_none() && !self.s.promotion.as_ref().is_some_and(committed)
    }

    fn begin(&mut self, target: String) {
        let newest = self.s.revisions.iter().map(|r| r.number).max().unwrap_or(0);
        let returns = may_return(&self.s.revisions, self.s.stable_revision.as_deref(), &target, self.plan.rollback_window).is_ok();
        match self.s.revisions.iter_mut().find(|r| r.hash == target) {
            Some(revision) => {
                if revision.number < newest {
                    revision.number = newest + 1;
                }
                revision.retired_at = None;
                revision.overdue = false;
            }
            None => self.s.revisions.push(RevisionStatus { hash: target.clone(), number: newest + 1, ..RevisionStatus::default() }),
        }
        self.sort_revisions();
        self.s.canary_revision = Some(target.clone());
        // A revision that comes back needs fresh evidence: no run of its earlier release may stand for a new one.
        self.s.evidence_restarts = 0;
        self.s.attempt = 1 + self.seen.runs.iter().filter(|r| r.revision == target).map(|r| r.attempt).max().unwrap_or(0);
        self.s.abort = None;
        self.s.promotion = None;
        self.s.user_paused = false;
        self.s.runs.clear();
        self.s.gates.clear();
        self.reset_steps();
        let now = MicroTime(self.now());
        let promotion =
            |grounds| Promotion { revision: target.clone(), grounds, stage: PromotionStage::FullWeight, since: now, ready_since: None };
        match &self.s.stable_revision {
            None => {
                self.s.promotion = Some(promotion(Grounds::First));
                self.record("FirstDeployment", format!("revision {target} is the first one: no steps, no analysis"), None, false);
            }
            Some(stable) if *stable == target => {
                self.record("ReturnedToStable", format!("the template is that of the stable revision {target} again"), None, false);
            }
            Some(_) if returns => {
                self.s.promotion = Some(promotion(Grounds::RollbackWindow));
                let reason = format!("revision {target} was stable before and lies within rollbackWindow: steps are skipped");
                self.record("RollbackStarted", reason, None, false);
            }
            Some(stable) => {
                let reason = format!("releasing revision {target} beside stable {stable}");
                self.record("ReleaseStarted", reason, None, false);
            }
        }
    }

    /// Pods that the canary needs now.
    pub(super) fn canary_need(&self) -> i32 {
        if !self.in_release() || self.s.promotion.is_some() {
            return self.plan.replicas;
        }
        let index = self.step_index();
        self.plan.canary_pods_at(index, self.plan.weight_at(index))
    }

    /// The ReplicaSet of `hash` has `count` available pods in traffic, and its controller has seen the newest size.
    pub(super) fn available(&self, hash: &str, count: i32) -> bool {
        self.seen.replica_set(hash).is_some_and(|r| r.current && r.available - r.out >= count && r.wanted >= count)
    }

    pub(super) fn scale(&mut self) {
        self.retire_losers();
        let stable = self.s.stable_revision.clone();
        let canary = self.canary().to_string();
        let live = self.s.abort.is_none();
        let sets = self.seen.replica_sets.clone();
        for set in &sets {
            if self.plan.by_workers {
                self.scale_workers(set);
                continue;
            }
            // Pods it should have, and whether it gets new calls.
            let size = if Some(&set.hash) == stable.as_ref() {
                (self.plan.replicas, true)
            } else if set.hash == canary && live && self.blocked().is_none() {
                // Pods that may carry calls stay until the release is over; they may be of an earlier attempt.
                (self.canary_need().max(set.wanted), true)
            } else {
                (0, false)
            };
            let replicas = if size.0 >= set.wanted && size.1 {
                // Its controller picks pods by their marks: they stay until it has.
                if set.current && set.exist <= set.wanted {
                    self.unmark(&set.hash);
                }
                let one_more = set.wanted == 0 && size.0 > 0 && self.in_release() && set.hash == canary;
                if one_more && self.full(&canary).is_some() { 0 } else { size.0 }
            } else {
                self.shrunk(set, size.0, size.1)
            };
            if replicas != set.wanted {
                self.intents.push(Intent::ScaleReplicaSet { name: set.name.clone(), replicas });
            }
        }
        self.keep_budgets();
        let wanted = !canary.is_empty() && live && self.blocked().is_none() && canary == self.seen.target;
        if wanted && self.seen.replica_set(&canary).is_none() && self.full(&canary).is_none() {
            let number = self.revision(&canary).map_or(1, |r| r.number);
            // Workers take calls as soon as they run.
            let replicas = if self.plan.by_workers && !self.may_add_workers() { 0 } else { self.canary_need() };
            self.intents.push(Intent::CreateReplicaSet { hash: canary, number, replicas });
        }
        self.forget_history();
    }

    /// Marks revisions that get no new calls any more.
    fn retire_losers(&mut self) {
        let now = MicroTime(self.now());
        let clear = self.s.weights.applied == 0 && self.seen.routes.iter().all(|r| r.weights.is_ok());
        let in_use: Vec<String> = if self.s.abort.is_some() { vec![] } else { vec![self.canary().to_string()] };
        // Whom a route that is not named any more still sends calls to is not known.
        let left = !self.left_behind().is_empty();
        let stable = self.s.stable_revision.clone();
        let arm = self.seen.canary_arm.selects.clone();
        let applied = self.s.weights.applied;
        let has = |arm: &ArmSeen, hash: &String| arm.selects.as_ref() == Some(hash) || arm.ready.get(hash).is_some_and(|n| *n > 0);
        let called = |hash: &String| has(&self.seen.stable_arm, hash) || (applied > 0 && has(&self.seen.canary_arm, hash));
        let seconds = |d: std::time::Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        let (beaten, failed) = (seconds(self.plan.scale_down_delay), seconds(self.plan.abort_scale_down_delay));
        let seen = self.seen;
        for revision in &mut self.s.revisions {
            let current = Some(&revision.hash) == stable.as_ref() || in_use.contains(&revision.hash);
            if current || called(&revision.hash) {
                // One that gets calls again has another drain before it.
                revision.overdue &= revision.retired_at.take().is_none();
            } else if revision.retired_at.is_none()
                && !left
                && (clear || arm.as_ref() != Some(&revision.hash))
                && seen.replica_set(&revision.hash).is_some_and(|r| r.wanted > 0 || r.exist > 0 || r.ending > 0)
            {
                revision.retired_at = Some(now.clone());
                revision.shrinking_since = None;
                revision.keep_seconds = if revision.was_stable && !revision.aborted { beaten } else { failed };
            }
        }
    }

    fn forget_history(&mut self) {
        let limit = usize::try_from(self.plan.history_limit).unwrap_or(0);
        let spared = [self.s.stable_revision.clone(), self.s.canary_revision.clone()];
        let gone: Vec<String> = self
            .s
            .revisions
            .iter()
            .filter(|r| !spared.contains(&Some(r.hash.clone())))
            .filter_map(|r| self.seen.replica_set(&r.hash))
            .filter(|set| set.wanted == 0 && set.exist == 0 && set.ending == 0)
            .skip(limit)
            .map(|set| set.name.clone())
            .collect();
        self.intents.extend(gone.into_iter().map(|name| Intent::DeleteReplicaSet { name }));
    }

    /// Fills in the roles, for people, and forgets revisions that are gone.
    pub(super) fn assign_roles(&mut self) {
        let (stable, canary) = (self.s.stable_revision.clone(), self.s.canary_revision.clone());
        let seen = self.seen;
        self.s.revisions.retain(|r| {
            let kept = [stable.as_ref(), canary.as_ref()].contains(&Some(&r.hash));
            kept || seen.replica_set(&r.hash).is_some()
        });
        for revision in &mut self.s.revisions {
            revision.role = if Some(&revision.hash) == stable.as_ref() {
                Role::Stable
            } else if Some(&revision.hash) == canary.as_ref() && revision.retired_at.is_none() {
                Role::Canary
            } else if revision.replicas > 0 || revision.ending > 0 {
                Role::Draining
            } else {
                Role::Retired
            };
        }
    }
}
