//! Workers that pull their jobs, in place of weights and arms: how many there should be, and what share of new calls
//! those that there are take. A worker takes new calls until it is told to end; then it goes on with those it has.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::Machine;
use crate::core::intent::Intent;
use crate::core::observe::ReplicaSetSeen;
use crate::core::plan::PlanStep;
use crate::core::workers::{is_beyond, share, told};

impl Machine<'_> {
    /// The canary weight as it is, in percent: of the routes, or of the workers.
    pub(super) fn applied_weight(&self) -> i32 {
        if !self.plan.by_workers {
            return self.seen.applied_weight();
        }
        let available = |hash: &str| self.seen.replica_set(hash).map_or(0, |s| s.available);
        let stable = self.s.stable_revision.as_deref().filter(|_| self.in_release());
        stable.map_or(0, |stable| share(available(self.canary()), available(stable)))
    }

    /// The weight at which gates compare: what can be reached of it, since stable gets the rest.
    pub(super) fn compared_weight(&self) -> i32 {
        self.plan.compared(self.s.weights.desired)
    }

    /// Notes since when there have been the workers that the step asks for.
    pub(super) fn note_workers(&mut self) {
        let now = MicroTime(self.now());
        self.s.step.endpoints_since = None;
        self.s.weights.applied = self.applied_weight();
        let desired = self.target_weight();
        if desired != self.s.weights.desired {
            self.s.weights.desired = desired;
            self.s.step.weight_since = None;
            self.s.step.progress_at = Some(now.clone());
        }
        if self.s.step.weight_since.is_none() && self.workers_are_there(desired) {
            self.s.step.weight_since = Some(now.clone());
            self.s.step.progress_at = Some(now.clone());
            if desired > 0 && self.in_steps() {
                let text = told(desired, self.plan.replicas);
                self.record("WeightApplied", format!("revision {} takes its part of new calls: {text}", self.canary()), None, false);
            }
        }
        if self.in_release() && self.s.weights.applied > 0 && self.s.step.traffic_since.is_none() {
            self.s.step.traffic_since = Some(now);
        }
    }

    /// Stable is whole, the canary has the workers of weight `desired`, and nobody else has any.
    fn workers_are_there(&self, desired: i32) -> bool {
        if desired == 0 || !self.in_release() {
            return self.only_stable_works();
        }
        let need = self.canary_need();
        let canary = self.seen.replica_set(self.canary());
        let sized = need > 0 && canary.is_some_and(|s| s.current && s.wanted == need && s.exist <= need && s.available >= need);
        let others = self.seen.replica_sets.iter().filter(|s| s.hash != self.canary());
        sized && self.stable_is_whole() && others.filter(|s| !self.is_stable(s)).all(idle)
    }

    /// No worker takes new calls but those of stable, or of the first revision.
    pub(super) fn only_stable_works(&self) -> bool {
        let own = |s: &&ReplicaSetSeen| self.is_stable(s) || (s.hash == self.canary() && !self.in_release());
        self.seen.replica_sets.iter().filter(|s| !own(s)).all(idle)
    }

    fn is_stable(&self, set: &ReplicaSetSeen) -> bool {
        Some(&set.hash) == self.s.stable_revision.as_ref()
    }

    /// Stable has all its workers: with fewer the canary would get more calls than the step allows.
    fn stable_is_whole(&self) -> bool {
        self.s.stable_revision.as_deref().is_some_and(|stable| self.available(stable, self.plan.replicas))
    }

    /// The canary may get more workers, and with them more of the new calls.
    pub(super) fn may_add_workers(&self) -> bool {
        let held = self.plan.enforce_preflight && !self.plan.findings.is_empty();
        let free = !self.waiting.frozen && self.blocked().is_none() && self.s.abort.is_none();
        free && (!self.in_steps() || (!held && self.stable_is_whole()))
    }

    /// Without workers there is nothing to share, and nothing that a gate could see.
    pub(super) fn nobody_works(&self) -> Option<String> {
        let shares = self.plan.by_workers && self.plan.replicas == 0 && self.plan.weight_at(self.step_index()) > 0;
        shares.then(|| "spec.replicas to be more than 0: no worker takes calls, so none can be shared".into())
    }

    /// Says what is missing before the step has its workers.
    pub(super) fn wait_for_workers(&mut self) {
        if self.s.canary_revision.is_none() || self.blocked().is_some() {
            return;
        }
        let (desired, need, canary) = (self.s.weights.desired, self.canary_need(), self.canary().to_string());
        if desired == 0 || !self.in_release() {
            if !self.only_stable_works() {
                self.wait("the workers of other versions to be told to end", false);
            }
            return;
        }
        if self.s.step.weight_since.is_some() && self.available(&canary, need) {
            return;
        }
        let (have, wanted) = self.seen.replica_set(&canary).map_or((0, 0), |s| (s.available, s.wanted));
        if need > wanted && self.in_steps() && self.held_by_preflight() {
            return;
        }
        if self.in_steps() && !self.stable_is_whole() {
            let stable = self.s.stable_revision.clone().unwrap_or_default();
            let of = self.seen.replica_set(&stable).map_or(0, |s| s.available);
            self.wait(format!("stable workers: {of} of {} available", self.plan.replicas), true);
        }
        self.wait(format!("canary workers: {have} of {need} available"), true);
    }

    /// Brings a revision to the workers that it should have. Those that lose the calls go at once: as long as they run,
    /// they take new ones.
    pub(super) fn scale_workers(&mut self, set: &ReplicaSetSeen) {
        let replicas = self.workers_of(set);
        if replicas == set.wanted {
            return;
        }
        let takes_away = replicas < set.wanted && !self.is_stable(set) && self.abort_is_recorded();
        let by = if takes_away { &mut self.urgent } else { &mut self.intents };
        by.push(Intent::ScaleReplicaSet { name: set.name.clone(), replicas });
    }

    fn workers_of(&mut self, set: &ReplicaSetSeen) -> i32 {
        let (all, newest) = (self.plan.replicas, set.hash == self.canary());
        if self.is_stable(set) {
            if all < set.wanted {
                return self.shrunk(set, all, true);
            }
            self.unmark(&set.hash);
            return all;
        }
        if !newest || self.s.abort.is_some() {
            return 0;
        }
        if self.blocked().is_some() {
            return set.wanted;
        }
        let need = self.canary_need();
        let more = need > set.wanted;
        if more && !self.may_add_workers() {
            return set.wanted;
        }
        let one_more = more && set.wanted == 0 && self.in_release();
        if one_more && self.full(&set.hash).is_some() { 0 } else { need }
    }

    /// What the weight of now comes to, while a release goes through its steps.
    pub(super) fn workers_text(&self) -> Option<String> {
        let asked = self.s.weights.desired;
        (self.plan.by_workers && self.in_steps() && asked > 0).then(|| told(asked, self.plan.replicas))
    }

    /// Whether the weights of all steps can be reached, in words. The last of all calls come with the promotion, and are
    /// nothing that is missing.
    pub(super) fn reach(&self) -> Option<Result<String, String>> {
        if !self.plan.by_workers {
            return None;
        }
        let n = self.plan.replicas;
        let weights = self.plan.steps.iter().filter_map(|s| if let PlanStep::SetWeight(w) = s { Some(*w) } else { None });
        let mut beyond: Vec<i32> = weights.filter(|w| *w < 100 && is_beyond(*w, n)).collect();
        beyond.dedup();
        let text: Vec<String> = beyond.into_iter().map(|w| told(w, n)).collect();
        Some(if text.is_empty() { Ok("no step asks for more than half of new calls before all".into()) } else { Err(text.join("; ")) })
    }
}

/// It has no pod that takes new calls.
fn idle(set: &ReplicaSetSeen) -> bool {
    set.wanted == 0 && set.exist == 0
}
