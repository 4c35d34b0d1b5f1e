//! How the world moves: what intents do to it, and what time does.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::world::{Say, World, route_seen};
use crate::api::VoiceAnalysisRunSpec;
use crate::api::analysis::{Gate, Mode, OnError, OnFail, OnInconclusive};
use crate::api::run::{Consequence, GateStatus, RunKind, RunPhase, Verdict};
use crate::core::drain::cost;
use crate::core::gates::{gates_hash, spec_hash};
use crate::core::intent::{Arm, Intent};
use crate::core::observe::{ArmSeen, BudgetSeen, Observations, ReplicaSetSeen, RouteSeen, RunSeen};
use crate::core::route::{Buckets, Direction};

impl World {
    /// Carries out an intent that was decided on `seen`.
    pub(super) fn carry_out(&mut self, intent: &Intent, seen: &Observations) {
        match intent {
            Intent::AddFinalizer => self.seen.finalizer = true,
            Intent::RemoveFinalizer => (self.seen.finalizer, self.gone) = (false, true),
            Intent::SetWeights { name, canary, direction, .. } => self.set_weights(name, *canary, *direction, seen),
            Intent::ReturnRoute { route } => {
                for dropped in self.dropped.iter_mut().filter(|d| d.name == route.virtual_service) {
                    *dropped = route_seen(&dropped.name, 0);
                }
            }
            Intent::CreateReplicaSet { hash, number, replicas } => self.create_set(hash, *number, *replicas),
            Intent::ScaleReplicaSet { name, replicas } => {
                if let Some(set) = self.seen.replica_sets.iter_mut().find(|s| &s.name == name) {
                    (set.wanted, set.current) = (*replicas, false);
                }
            }
            Intent::DeleteReplicaSet { name } => self.seen.replica_sets.retain(|s| &s.name != name),
            Intent::MarkPod { name, mark, out } => {
                let now = self.seen.now;
                for agent in self.agents.iter_mut().filter(|a| a.name == *name) {
                    (agent.mark, agent.cost) = (*mark, mark.map_or(0, cost));
                    agent.out = out.then(|| agent.out.unwrap_or(now));
                }
                self.see_pods();
            }
            Intent::CreateBudget { name, hash } => {
                if !self.seen.budgets.iter().any(|b| b.name == *name) {
                    self.seen.budgets.push(BudgetSeen { name: name.clone(), ours: true, covers: vec![hash.clone()] });
                }
            }
            Intent::DeleteBudget { name } => self.seen.budgets.retain(|b| b.name != *name),
            Intent::PointArm { arm, hash, labelled } => {
                let arm = if *arm == Arm::Stable { &mut self.seen.stable_arm } else { &mut self.seen.canary_arm };
                if arm.problem.is_none() {
                    (arm.selects, arm.labelled) = (Some(hash.clone()), *labelled);
                }
            }
            Intent::CreateRun { name, spec } => self.create_run(name, spec),
            Intent::StopRun { name } => {
                if let Some(run) = self.seen.runs.iter_mut().find(|r| &r.name == name) {
                    run.stop = true;
                }
            }
            Intent::DeleteRun { name } => self.seen.runs.retain(|r| &r.name != name),
            Intent::MarkAction { name, applied, message } => {
                self.seen.actions.retain(|a| &a.name != name);
                let outcome = (*applied, message.clone());
                let first = self.outcomes.entry(name.clone()).or_insert_with(|| outcome.clone());
                assert_eq!(*first, outcome, "{name} was answered twice, differently");
            }
        }
    }

    fn set_weights(&mut self, name: &str, canary: i32, direction: Direction, seen: &Observations) {
        let known = seen.routes.iter().find(|r| r.name == name).cloned();
        let Some(route) = self.seen.routes.iter_mut().find(|r| r.name == name) else { return };
        // Raising tests the resourceVersion.
        if direction == Direction::Raise && known.as_ref() != Some(route) {
            return;
        }
        if let Ok(weights) = &mut route.weights {
            for w in weights {
                (w.canary, w.stable) = (i64::from(canary), i64::from(100 - canary));
                w.buckets = match w.buckets {
                    Buckets::Unused => Buckets::Unused,
                    _ if canary == 0 => Buckets::Absent,
                    _ => Buckets::At(canary.into()),
                };
            }
        }
        self.note_callers();
    }

    fn create_set(&mut self, hash: &str, number: i64, replicas: i32) {
        if self.seen.replica_set(hash).is_some() || hash != self.seen.target {
            return;
        }
        let name = format!("{}-{hash}", self.subject.name);
        let set = ReplicaSetSeen { name, hash: hash.into(), number, wanted: replicas, labelled: true, ..ReplicaSetSeen::default() };
        self.seen.replica_sets.push(set);
        self.seen.replica_sets.sort_by(|a, b| a.name.cmp(&b.name));
    }

    fn create_run(&mut self, name: &str, spec: &VoiceAnalysisRunSpec) {
        if self.seen.runs.iter().any(|r| r.name == name) {
            return;
        }
        let fresh = |g: &Gate| GateStatus { name: g.name.clone(), mode: g.mode, ..GateStatus::default() };
        self.seen.runs.push(RunSeen {
            name: name.into(),
            spec_hash: spec_hash(spec),
            counting: gates_hash(&spec.gates),
            revision: spec.revision.clone(),
            attempt: spec.attempt,
            kind: spec.kind,
            stop: false,
            phase: RunPhase::Running,
            gates: spec.gates.iter().map(|g| fresh(&g.gate)).collect(),
            created: Some(self.seen.now),
        });
        self.gates_of.insert(name.into(), spec.gates.iter().map(|g| g.gate.clone()).collect());
        self.next_measurement.insert(name.into(), self.later(self.pace));
    }

    /// Pods or endpoints are not yet what they were asked to be.
    pub(super) fn moving(&self) -> bool {
        let (sets, stable, canary) = self.moved();
        sets != self.seen.replica_sets
            || stable != self.seen.stable_arm
            || canary != self.seen.canary_arm
            || self.seen.runs.iter().any(|r| r.stop && r.phase == RunPhase::Running)
            || self.agents.iter().any(|a| a.ending.is_some() && a.calls == 0)
    }

    /// The background run's own gate counts more calls, up to now.
    pub fn count_more(&mut self, canary: i64, stable: i64) {
        let at = Some(Time(self.seen.now));
        for gate in self.seen.runs.iter_mut().flat_map(|r| &mut r.gates).filter(|g| g.name == crate::core::proof::GATE) {
            let counts = gate.split.get_or_insert_default();
            (counts.calls.canary, counts.calls.stable) = (counts.calls.canary + canary, counts.calls.stable + stable);
            counts.at.clone_from(&at);
        }
    }

    /// When the next measurement ends.
    pub(super) fn next_news(&self) -> Option<Timestamp> {
        let running = self.seen.runs.iter().filter(|r| r.phase == RunPhase::Running);
        running.filter_map(|r| self.next_measurement.get(&r.name)).min().copied()
    }

    /// Time goes on to `at`; the cluster moves one notch.
    pub fn advance_to(&mut self, at: Timestamp) {
        self.note_callers();
        self.seen.now = self.seen.now.max(at);
        self.move_cluster();
        self.follow_sets();
        self.read_pods();
        self.measure();
        self.note_callers();
    }

    fn move_cluster(&mut self) {
        (self.seen.replica_sets, self.seen.stable_arm, self.seen.canary_arm) = self.moved();
    }

    /// Pods and endpoints one notch later: pods exist, are ready, are available; endpoints follow at once.
    fn moved(&self) -> (Vec<ReplicaSetSeen>, ArmSeen, ArmSeen) {
        let mut sets = self.seen.replica_sets.clone();
        for set in &mut sets {
            set.current = true;
            set.available = set.ready.min(set.wanted);
            set.ready = if self.broken.contains(&set.hash) { 0 } else { set.exist.min(set.wanted) };
            set.exist = self.quota.get(&set.hash).map_or(set.wanted, |most| set.wanted.min(*most));
            set.available = set.available.min(set.ready);
            set.out = self.out_of(&set.hash);
        }
        if self.endpoints_stall {
            return (sets, self.seen.stable_arm.clone(), self.seen.canary_arm.clone());
        }
        let follow = |arm: &ArmSeen| ArmSeen { ready: endpoints(arm, &sets), ..arm.clone() };
        let (stable, canary) = (follow(&self.seen.stable_arm), follow(&self.seen.canary_arm));
        (sets, stable, canary)
    }

    /// Somebody changes a VirtualService that is named.
    pub fn edit_route(&mut self, index: usize, edit: impl FnOnce(&mut RouteSeen)) {
        if let Some(route) = self.seen.routes.get_mut(index) {
            edit(route);
        }
    }

    /// The spec does not name the VirtualService any more.
    pub fn drop_route(&mut self, name: &str) {
        let (gone, kept) = std::mem::take(&mut self.seen.routes).into_iter().partition(|r| r.name == name);
        self.seen.routes = kept;
        self.dropped.extend::<Vec<_>>(gone);
    }

    /// The spec names it again.
    pub fn name_again(&mut self, name: &str) {
        let (again, still) = std::mem::take(&mut self.dropped).into_iter().partition(|r| r.name == name);
        self.dropped = still;
        self.seen.routes.extend::<Vec<_>>(again);
    }

    /// A route that is not named any more still gives the canary calls.
    pub fn owes(&self) -> bool {
        let mine = |r: &&RouteSeen| self.status.managed_routes.iter().any(|m| m.virtual_service == r.name);
        self.dropped.iter().filter(mine).any(|r| self.dropped_weight(&r.name) > 0)
    }

    /// Canary weight of a VirtualService that is not named any more.
    pub fn dropped_weight(&self, name: &str) -> i64 {
        self.dropped.iter().find(|r| r.name == name).map_or(0, |r| r.weights.as_ref().map_or(0, |w| w[0].given()))
    }

    /// Remembers who may get calls now.
    fn note_callers(&mut self) {
        let now = self.seen.now;
        for hash in self.open_revisions() {
            self.last_traffic.insert(hash, now);
        }
    }

    /// Revisions that may get calls now.
    pub(super) fn open_revisions(&self) -> Vec<String> {
        if self.pulls() {
            return self.seen.replica_sets.iter().filter(|s| s.ready > 0).map(|s| s.hash.clone()).collect();
        }
        let canary = self.seen.applied_weight().max(i32::from(self.owes()));
        let weights = self.seen.routes.iter().filter_map(|r| r.weights.as_ref().ok()).flatten();
        let to_stable = weights.map(|w| w.stable).max().unwrap_or(0) > 0;
        let arms = [(&self.seen.stable_arm, to_stable), (&self.seen.canary_arm, canary > 0)];
        let ready = |(arm, open): (&'_ ArmSeen, bool)| {
            let ready: Vec<String> = arm.ready.iter().filter(|(_, n)| open && **n > 0).map(|(h, _)| h.clone()).collect();
            ready
        };
        arms.into_iter().flat_map(ready).collect()
    }

    fn measure(&mut self) {
        let now = self.seen.now;
        let Self { seen, next_measurement, script, gates_of, pace, .. } = self;
        for run in seen.runs.iter_mut().filter(|r| r.phase == RunPhase::Running) {
            if run.stop {
                run.phase = RunPhase::Stopped;
                continue;
            }
            if next_measurement.get(&run.name).is_none_or(|at| *at > now) {
                continue;
            }
            next_measurement.insert(run.name.clone(), now.checked_add(SignedDuration::from_secs(*pace * 6)).unwrap());
            let specs = gates_of.get(&run.name).cloned().unwrap_or_default();
            if run.kind == RunKind::Explanation {
                let says = script.get(&run.gates[0].name).copied().unwrap_or(Say::Pass);
                explain(&mut run.gates[0], says);
                run.phase = RunPhase::Done;
                continue;
            }
            for (gate, spec) in run.gates.iter_mut().zip(&specs) {
                answer(gate, spec, run.kind, script.get(&gate.name).copied().unwrap_or(Say::Pass), now);
            }
            run.phase = conclude(run);
        }
    }
}

/// What a judge says of an abort.
fn explain(gate: &mut GateStatus, says: Say) {
    let given = matches!(says, Say::Pass | Say::Fail | Say::Inconclusive);
    gate.value = given.then(|| "explained".into());
    gate.message = if given { "tools are called more often".into() } else { "no answer".into() };
}

fn endpoints(arm: &ArmSeen, sets: &[ReplicaSetSeen]) -> BTreeMap<String, i32> {
    if arm.problem.is_some() {
        return BTreeMap::new();
    }
    let selected = sets.iter().filter(|s| arm.selects.as_ref().is_none_or(|h| *h == s.hash) && s.ready > 0);
    selected.map(|s| (s.hash.clone(), if arm.labelled { s.serving() } else { s.ready })).collect()
}

/// One measurement. Pass and Fail are final in a step, Fail in the background.
fn answer(gate: &mut GateStatus, spec: &Gate, kind: RunKind, say: Say, now: Timestamp) {
    if matches!(gate.verdict, Some(Verdict::Pass | Verdict::Fail)) || gate.consequence == Some(Consequence::Abort) {
        return;
    }
    let counts = |mode: Mode, c: Consequence| (mode != Mode::DryRun).then_some(c);
    gate.passing = say == Say::Pass;
    gate.message = format!("{}: {say:?}", gate.name);
    (gate.verdict, gate.consequence) = match say {
        Say::Nothing => return,
        Say::Pass => {
            gate.counts.pass += 1;
            gate.last_pass_at = Some(Time(now));
            ((kind == RunKind::Step).then_some(Verdict::Pass), None)
        }
        Say::Fail => {
            gate.counts.fail += 1;
            let wanted = if spec.on_fail == OnFail::Abort { Consequence::Abort } else { Consequence::Pause };
            (Some(Verdict::Fail), counts(gate.mode, wanted))
        }
        Say::Error => {
            gate.counts.error += 1;
            let wanted = if spec.on_error == OnError::Abort { Consequence::Abort } else { Consequence::Pause };
            (Some(Verdict::Error), counts(gate.mode, wanted))
        }
        Say::Inconclusive => {
            gate.counts.inconclusive += 1;
            let wanted = match spec.on_inconclusive {
                OnInconclusive::Abort => Some(Consequence::Abort),
                OnInconclusive::Pause => Some(Consequence::Pause),
                OnInconclusive::Extend => None,
            };
            (Some(Verdict::Inconclusive), wanted.and_then(|w| counts(gate.mode, w)))
        }
    };
    gate.value = Some(format!("{say:?}"));
}

fn conclude(run: &RunSeen) -> RunPhase {
    let counting = || run.gates.iter().filter(|g| g.mode != Mode::DryRun);
    let mut enforcing = counting().filter(|g| g.mode == Mode::Enforce).peekable();
    if counting().any(|g| g.verdict == Some(Verdict::Fail)) {
        RunPhase::Fail
    } else if enforcing.peek().is_some() && enforcing.all(|g| g.verdict == Some(Verdict::Pass)) {
        RunPhase::Pass
    } else {
        RunPhase::Running
    }
}
