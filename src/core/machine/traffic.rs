//! Weights and arms: what the routes should say, and when it is safe to say so.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{Machine, after};
use crate::api::status::{Grounds, PromotionStage};
use crate::core::intent::{Arm, Intent};
use crate::core::observe::{ArmSeen, RouteSeen};
use crate::core::route::{Buckets, Direction};

impl Machine<'_> {
    /// Canary weight that the routes should say, in percent.
    pub(super) fn target_weight(&self) -> i32 {
        if let Some(promotion) = &self.s.promotion {
            return match (promotion.grounds, promotion.stage) {
                (Grounds::First, _) | (_, PromotionStage::ReturnWeights) => 0,
                (_, PromotionStage::SwitchStable) => 100,
                (_, PromotionStage::FullWeight) => self.reachable(100),
            };
        }
        if !self.in_steps() {
            return 0;
        }
        // The steps of a wrong spec say nothing about the index: weights stay where they are.
        let weight = if self.blocked().is_some() { self.s.weights.desired } else { self.plan.weight_at(self.step_index()) };
        self.reachable(weight)
    }

    /// No traffic for the canary arm while it still selects another revision, or while no pod would answer.
    fn reachable(&self, weight: i32) -> i32 {
        if self.plan.by_workers || (self.canary_arm_set() && !self.canary_is_empty()) { weight } else { 0 }
    }

    /// New calls go to the canary arm and no pod answers, while stable has some.
    fn canary_is_empty(&self) -> bool {
        self.s.weights.applied > 0 && !self.seen.canary_arm.has_endpoints() && self.stable_serves() && self.plan.replicas > 0
    }

    /// The stable arm selects the right revision and has ready pods of it.
    fn stable_serves(&self) -> bool {
        let arm = &self.seen.stable_arm;
        match arm.selects.as_deref() {
            None => arm.has_endpoints(),
            // Endpoints of another revision are on their way out.
            Some(hash) => arm.problem.is_none() && hash == self.stable_target() && arm.ready.get(hash).is_some_and(|n| *n > 0),
        }
    }

    /// The canary arm selects the newest revision; workers that pull their jobs have no arms.
    pub(super) fn canary_arm_set(&self) -> bool {
        self.plan.by_workers || self.seen.canary_arm.selects.as_deref() == Some(self.canary())
    }

    pub(super) fn canary_serves(&self, count: i32) -> bool {
        self.seen.canary_arm.serves(self.canary(), count)
    }

    /// Notes since when the routes have said what they should, and the canary arm has had its pods.
    pub(super) fn note_traffic(&mut self) {
        if self.plan.by_workers {
            return self.note_workers();
        }
        let now = MicroTime(self.now());
        // Proxies have to know all the pods that a weight needs, not the first of them.
        let need = if self.in_release() { self.canary_need() } else { 1 };
        let serves = self.canary_serves(need);
        if serves != self.s.step.endpoints_since.is_some() {
            self.s.step.endpoints_since = serves.then(|| now.clone());
        }
        self.s.weights.applied = self.seen.applied_weight();
        let desired = self.target_weight();
        if desired != self.s.weights.desired {
            self.s.weights.desired = desired;
            self.s.step.weight_since = None;
            self.s.step.progress_at = Some(now.clone());
            if self.canary_arm_set() && self.canary_is_empty() {
                let reason = format!("{} has no ready pod: new calls go to stable until it has", self.seen.canary_arm.name);
                self.record("CanaryUnavailable", reason, None, true);
            }
        }
        if self.s.canary_revision.is_some() && !self.foreign() {
            self.note_drift();
        }
        let said = !self.seen.routes.is_empty() && self.seen.routes.iter().all(|r| r.says(desired));
        if said && self.s.step.weight_since.is_none() {
            self.s.step.weight_since = Some(now.clone());
            self.s.step.progress_at = Some(now.clone());
            if desired > 0 && self.in_steps() {
                self.record("WeightApplied", format!("{desired} % of new calls go to revision {}", self.canary()), None, false);
            }
        }
        if self.in_release() && self.s.weights.applied > 0 && self.s.step.traffic_since.is_none() {
            self.s.step.traffic_since = Some(now);
        }
    }

    /// Another rollout owns the routes: they are not written, but to end an abort that had begun.
    pub(super) fn foreign(&self) -> bool {
        self.seen.rival.is_some() && (self.s.abort.is_none() || self.s.step.weight_since.is_some())
    }

    /// Asks for what brings arms and routes to where they should be.
    pub(super) fn steer_traffic(&mut self) {
        self.note_traffic();
        self.note_observed();
        if self.plan.by_workers {
            return self.wait_for_workers();
        }
        if self.s.canary_revision.is_none() || self.foreign() {
            return;
        }
        self.point_arms();
        let desired = self.s.weights.desired;
        let seen = self.seen;
        let raise = seen.routes.iter().any(|r| below(r, desired)) && self.may_raise(desired);
        for route in seen.routes.iter().filter(|r| !r.says(desired)) {
            let Ok(weights) = &route.weights else { continue };
            let percent = |weight: i64| i32::try_from(weight).unwrap_or(100);
            let least = weights.iter().map(|w| percent(w.canary)).min().unwrap_or(0);
            let most = weights.iter().map(|w| percent(w.given())).max().unwrap_or(0);
            let (canary, direction) = match (below(route, desired), raise) {
                (true, true) => (desired, Direction::Raise),
                // One of its routes says too little and another too much: the excess goes. So does what is not written as
                // it should be, without more for the canary.
                (true, false) if most > desired || (self.blocked().is_none() && is_wrong(route)) => (least.min(desired), Direction::Lower),
                (true, false) => continue,
                (false, _) => (desired, Direction::Lower),
            };
            if direction == Direction::Lower && !self.may_lower() {
                continue;
            }
            let intent = Intent::SetWeights { namespace: route.namespace.clone(), name: route.name.clone(), canary, direction };
            if direction == Direction::Lower && most > 0 && desired == 0 && self.abort_is_recorded() {
                self.urgent.push(intent);
            } else {
                self.intents.push(intent);
            }
        }
        self.take_back_readable();
        if let Some(problem) = self.seen.routes.iter().find_map(|r| r.weights.as_ref().err()) {
            self.wait(problem.clone(), true);
        }
    }

    /// A route that cannot be read does not keep the others of its VirtualService on an aborted canary.
    fn take_back_readable(&mut self) {
        let seen = self.seen;
        let loaded = |r: &&RouteSeen| r.weights.is_err() && r.gives();
        for route in seen.routes.iter().filter(loaded) {
            if self.s.weights.desired == 0 && self.abort_is_recorded() && self.may_lower() {
                let (namespace, name) = (route.namespace.clone(), route.name.clone());
                self.urgent.push(Intent::SetWeights { namespace, name, canary: 0, direction: Direction::Lower });
            }
        }
    }

    /// There is an abort, and more than this status knows of it: a verdict, an action, or an earlier status.
    pub(super) fn abort_is_recorded(&self) -> bool {
        self.s.abort.as_ref().is_some_and(|a| a.gate.is_some() || a.by.is_some() || self.old.abort.is_some())
    }

    /// New calls may go to the stable arm: it selects the right revision. An arm without ready endpoints gets calls
    /// only if the canary arm has none either.
    fn may_lower(&mut self) -> bool {
        let arm = &self.seen.stable_arm;
        // With no replicas wanted there is no pod to wait for.
        let fine = self.stable_serves() || !self.seen.canary_arm.has_endpoints() || self.plan.replicas == 0;
        if !fine {
            let what = arm.problem.clone().unwrap_or_else(|| format!("{} has no ready pod: the weights stay", arm.name));
            self.wait(what, true);
        }
        fine
    }

    /// New calls may go to the canary arm: it has the pods for `weight`, and every proxy knows them.
    fn may_raise(&mut self, weight: i32) -> bool {
        if weight == 0 || self.waiting.frozen || self.blocked().is_some() || self.s.abort.is_some() {
            return false;
        }
        if self.in_steps() && self.held_by_preflight() {
            return false;
        }
        let need = self.canary_need();
        let canary = self.canary().to_string();
        if !self.available(&canary, need) {
            let have = self.seen.replica_set(&canary).map_or(0, |r| r.available);
            self.wait(format!("canary pods: {have} of {need} available"), true);
            return false;
        }
        if need > 0 && !self.canary_serves(need) {
            let what = self.seen.canary_arm.problem.clone();
            self.wait(what.unwrap_or_else(|| format!("{} to have the ready pods of {canary} ({need})", self.seen.canary_arm.name)), true);
            return false;
        }
        let Some(since) = self.s.step.endpoints_since.clone() else { return self.plan.replicas == 0 };
        let at = after(&since, self.plan.propagation);
        let spread = self.due(at);
        if spread {
            self.wait(format!("routes to say {weight}"), true);
        } else {
            self.wait(format!("{} to reach every proxy", self.seen.canary_arm.name), true);
        }
        spread
    }

    fn stable_target(&self) -> &str {
        match &self.s.promotion {
            Some(p) if p.grounds == Grounds::First || p.stage != PromotionStage::FullWeight => &p.revision,
            _ => self.s.stable_revision.as_deref().unwrap_or_default(),
        }
    }

    fn point_arms(&mut self) {
        if self.seen.rival.is_some() || (self.blocked().is_some() && self.s.abort.is_none()) {
            return;
        }
        let first = self.s.promotion.as_ref().is_some_and(|p| p.grounds == Grounds::First);
        let canary = self.canary().to_string();
        // The first revision takes the Services over only when it can answer.
        if first && !self.available(&canary, self.plan.replicas) {
            return;
        }
        let stable = self.stable_target().to_string();
        if !stable.is_empty() && self.seen.stable_arm.problem.is_none() && !self.points_at(&self.seen.stable_arm, &stable) {
            let labelled = self.labelled(&stable);
            self.intents.push(Intent::PointArm { arm: Arm::Stable, hash: stable, labelled });
        }
        if self.s.abort.is_some() || self.points_at(&self.seen.canary_arm, &canary) {
            return;
        }
        let labelled = self.labelled(&canary);
        match self.seen.canary_arm.problem.clone() {
            Some(problem) => self.wait(problem, true),
            None if self.canary_arm_set() || self.canary_arm_free(first) => {
                self.intents.push(Intent::PointArm { arm: Arm::Canary, hash: canary, labelled });
            }
            None => {}
        }
    }

    fn points_at(&self, arm: &ArmSeen, hash: &str) -> bool {
        // One that waits for its ReplicaSet is not changed before.
        arm.selects.as_deref() == Some(hash) && (self.seen.replica_set(hash).is_none() || arm.labelled == self.labelled(hash))
    }

    /// The pods of a revision say whether they get new calls.
    fn labelled(&self, hash: &str) -> bool {
        self.seen.replica_set(hash).is_some_and(|s| s.labelled)
    }

    /// The canary arm may select another revision once no route has sent it calls for as long as a change takes.
    fn canary_arm_free(&mut self, first: bool) -> bool {
        let zero = self.seen.routes.iter().all(|r| r.says(0)) && self.left_behind().is_empty();
        if first || (zero && self.seen.canary_arm.selects.is_none()) {
            return true;
        }
        let said = self.s.weights.desired == 0 && zero;
        let Some(since) = self.s.step.weight_since.clone().filter(|_| said) else {
            self.wait("the previous canary to be out of traffic", true);
            return false;
        };
        let at = after(&since, self.plan.propagation);
        let free = self.due(at);
        if !free {
            self.wait("the previous canary to be out of traffic", true);
        }
        free
    }

    /// Somebody else changed weights that had been read back. A route that the spec names only since then is no such
    /// thing: its weight is waited for.
    fn note_drift(&mut self) {
        let settled = self.s.step.weight_since.is_some() && self.old.weights.desired == self.s.weights.desired;
        let desired = self.s.weights.desired;
        let seen = self.seen;
        let changed = seen.routes.iter().filter(|r| settled && r.weights.is_ok() && !r.says(desired));
        let Some(route) = changed.min_by_key(|r| desired != 0 && !self.is_managed(r)) else { return };
        if desired == 0 || self.is_managed(route) {
            let title = format!("VirtualService {}/{}", route.namespace, route.name);
            let other = route.weights.iter().flatten().find(|w| (w.canary, w.stable) != (desired.into(), (100 - desired).into()));
            let reason = match other {
                Some(found) => format!("{title} says {} in place of {desired}: it is put right", found.canary),
                None => format!("{title}: the http routes of headerBuckets are not what they should be: they are put right"),
            };
            self.record("RoutesChangedByOthers", reason, None, true);
        }
        self.s.step.weight_since = None;
        self.s.step.progress_at = Some(MicroTime(self.now()));
    }

    fn is_managed(&self, route: &RouteSeen) -> bool {
        self.s.managed_routes.iter().any(|r| (&r.namespace, &r.virtual_service) == (&route.namespace, &route.name))
    }

    /// The VoiceRollout goes: routes to stable, then let it go.
    pub(super) fn take_leave(&mut self) {
        self.s.weights.desired = 0;
        self.s.weights.applied = self.applied_weight();
        if !self.seen.finalizer {
            return;
        }
        let open = |r: &&RouteSeen| !r.theirs && if r.weights.is_ok() { !r.says(0) } else { r.gives() };
        let mut writes: Vec<Intent> = self
            .seen
            .routes
            .iter()
            .filter(open)
            .map(|r| Intent::SetWeights { namespace: r.namespace.clone(), name: r.name.clone(), canary: 0, direction: Direction::Lower })
            .collect();
        writes.extend(self.left_behind().into_iter().map(|l| Intent::ReturnRoute { route: l.route }));
        if writes.is_empty() {
            self.intents.push(Intent::RemoveFinalizer);
        } else {
            self.urgent.extend(writes);
            self.look_again();
            self.wait("routes to say 0", false);
        }
    }
}

/// One of its routes gives the canary less than `weight`, of calls or of buckets.
fn below(route: &RouteSeen, weight: i32) -> bool {
    route.weights.as_ref().is_ok_and(|all| all.iter().any(|w| w.is_below(i64::from(weight))))
}

/// Generated routes are not what they should be at any weight.
fn is_wrong(route: &RouteSeen) -> bool {
    route.strays || route.weights.iter().flatten().any(|w| matches!(w.buckets, Buckets::Wrong(_)))
}
