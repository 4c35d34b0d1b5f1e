//! A small deterministic world around [`decide`]: a spec, the persisted status, a cluster, people and providers.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::super::{Decision, Subject, decide};
use super::pods::{Agent, Gone};
use super::specs::{SET, hash, template};
use crate::api::action::Verb;
use crate::api::analysis::Gate;
use crate::api::status::{ManagedRoute, Phase, Role};
use crate::api::{VoiceRolloutSpec, VoiceRolloutStatus};
use crate::core::intent::Intent;
use crate::core::managed::is_named;
use crate::core::observe::{ActionSeen, ArmSeen, LeftRoute, Observations, RouteSeen};
use crate::core::plan::Plan;
use crate::core::revision::revision_hash;
use crate::core::route::{Buckets, RouteWeights, Split};
use crate::core::spans::Span;

/// What a gate's provider answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    Pass,
    Fail,
    Error,
    Inconclusive,
    Nothing,
}

/// How far a pass gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Luck {
    /// Status written, every intent carried out.
    Good,
    /// The process dies after writing the status and this many intents.
    DiesAfter(usize),
    /// The status cannot be written: a conflict.
    Conflict,
}

/// What was decided and on what, for the checks.
pub struct Pass {
    pub plan: Plan,
    pub before: VoiceRolloutStatus,
    pub seen: Observations,
    pub decision: Decision,
}

/// The world.
#[derive(Clone)]
pub struct World {
    pub subject: Subject,
    pub spec: VoiceRolloutSpec,
    pub status: VoiceRolloutStatus,
    pub seen: Observations,
    /// What gates hear; others hear [`Say::Pass`].
    pub script: BTreeMap<String, Say>,
    /// Seconds from the start of a run to its first measurement, and between measurements in the background.
    pub pace: i64,
    /// Pods of these revisions do not become ready.
    pub broken: Vec<String>,
    /// EndpointSlices stay as they are.
    pub endpoints_stall: bool,
    /// Most pods that a revision gets.
    pub quota: BTreeMap<String, i32>,
    /// What became of actions, by name.
    pub outcomes: BTreeMap<String, (bool, String)>,
    /// Reasons of every event told.
    pub told: Vec<String>,
    /// What a trace shows of it.
    pub spans: Vec<Span>,
    /// The last time that a revision may have been given a call.
    pub last_traffic: BTreeMap<String, Timestamp>,
    /// A status that differs in numbers of pods alone is not written.
    pub lazy: bool,
    /// VirtualServices that the spec does not name any more.
    pub dropped: Vec<RouteSeen>,
    /// Pods, where live calls are counted.
    pub agents: Vec<Agent>,
    /// Pods that are gone.
    pub gone_pods: Vec<Gone>,
    pub(super) pods_made: usize,
    /// The finalizer was taken off.
    pub gone: bool,
    pub(super) next_measurement: BTreeMap<String, Timestamp>,
    pub(super) gates_of: BTreeMap<String, Vec<Gate>>,
    actions_made: usize,
}

fn arm(name: &str) -> ArmSeen {
    ArmSeen { name: format!("Service {name}"), problem: None, selects: None, labelled: false, ready: BTreeMap::new() }
}

pub fn route_seen(name: &str, canary: i64) -> RouteSeen {
    let weights =
        RouteWeights { route: String::new(), index: 0, stable_at: 0, canary_at: 1, stable: 100 - canary, canary, buckets: Buckets::Unused };
    RouteSeen {
        namespace: "voice".into(),
        name: name.into(),
        names: Vec::new(),
        theirs: false,
        weights: Ok(vec![weights]),
        readable: Vec::new(),
        strays: false,
        shadowed: None,
    }
}

impl World {
    /// Nothing has happened yet.
    pub fn new(spec: VoiceRolloutSpec) -> Self {
        let pulls = spec.traffic.replicas.is_some();
        let unset = || ArmSeen { problem: Some("traffic is not set".into()), ..arm("nothing") };
        let subject = Subject { name: SET.into(), uid: "uid-1".into(), generation: Some(1), selector: format!("app={SET}") };
        let seen = Observations {
            // Not a whole second: the API server keeps whole ones.
            now: "2026-01-01T00:00:00.4Z".parse().unwrap(),
            deleting: false,
            finalizer: false,
            target: revision_hash(&spec.template),
            rollout: Value::Null,
            replica_sets: vec![],
            pods: vec![],
            cut: vec![],
            budgets: vec![],
            stable_arm: if pulls { unset() } else { arm("agent-stable") },
            canary_arm: if pulls { unset() } else { arm("agent-canary") },
            routes: if pulls { vec![] } else { vec![route_seen("agent", 0)] },
            split: (!pulls).then(|| Split::Hosts {
                namespace: "voice".into(),
                stable: "agent-stable".into(),
                canary: "agent-canary".into(),
            }),
            left: vec![],
            runs: vec![],
            actions: vec![],
            templates: BTreeMap::new(),
            rival: None,
            surroundings: Default::default(),
            notifications: Default::default(),
        };
        Self {
            subject,
            spec,
            status: VoiceRolloutStatus::default(),
            seen,
            script: BTreeMap::new(),
            pace: 5,
            broken: vec![],
            endpoints_stall: false,
            quota: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            told: vec![],
            spans: vec![],
            last_traffic: BTreeMap::new(),
            lazy: false,
            dropped: vec![],
            agents: vec![],
            gone_pods: vec![],
            pods_made: 0,
            gone: false,
            next_measurement: BTreeMap::new(),
            gates_of: BTreeMap::new(),
            actions_made: 0,
        }
    }

    /// Version 1 is deployed and stable.
    pub fn deployed(spec: VoiceRolloutSpec) -> Self {
        let mut world = Self::new(spec);
        world.settle();
        assert_eq!(world.status.phase, Phase::Healthy, "{}", world.describe());
        assert_eq!(world.status.stable_revision, Some(hash(1)));
        world.told.clear();
        world
    }

    /// Version 1 is stable, version 2 was applied.
    pub fn releasing(spec: VoiceRolloutSpec) -> Self {
        let mut world = Self::deployed(spec);
        world.apply_version(2);
        world
    }

    pub fn edit(&mut self, change: impl FnOnce(&mut VoiceRolloutSpec)) {
        change(&mut self.spec);
        self.seen.target = revision_hash(&self.spec.template);
        self.subject.generation = self.subject.generation.map(|g| g + 1);
    }

    pub fn apply_version(&mut self, version: u32) {
        self.edit(|s| s.template = template(version));
    }

    /// A person's command for the newest revision; gives its name.
    pub fn ask(&mut self, verb: Verb) -> String {
        let revision = self.status.canary_revision.clone().unwrap_or_default();
        self.ask_for(verb, &revision)
    }

    pub fn ask_for(&mut self, verb: Verb, revision: &str) -> String {
        self.actions_made += 1;
        let name = format!("action-{}", self.actions_made);
        let uid = format!("uid-{name}");
        let by = Some("ann".to_string());
        self.seen.actions.push(ActionSeen { name: name.clone(), uid, revision: revision.into(), step: None, verb, reason: None, by });
        name
    }

    /// Says a command and lets it be carried out; gives whether it was, and the message.
    pub fn command(&mut self, verb: Verb) -> (bool, String) {
        let name = self.ask(verb);
        self.pass();
        self.outcomes.get(&name).cloned().unwrap_or_else(|| panic!("{verb:?} was not answered\n{}", self.describe()))
    }

    /// The same for a step that the person saw.
    pub fn command_at(&mut self, verb: Verb, step: &str) -> (bool, String) {
        let name = self.ask(verb);
        self.seen.actions.iter_mut().filter(|a| a.name == name).for_each(|a| a.step = Some(step.into()));
        self.pass();
        self.outcomes[&name].clone()
    }

    pub fn decide(&self) -> Decision {
        decide(&self.subject, &self.plan(), &self.status, &self.see(&self.seen, &self.status))
    }

    /// What is seen, with the routes that are remembered and not named any more.
    fn see(&self, seen: &Observations, status: &VoiceRolloutStatus) -> Observations {
        let named = || seen.routes.iter().map(|r| (r.namespace.as_str(), r.name.as_str(), r.names.as_slice()));
        let left = status.managed_routes.iter().filter(|r| !is_named(r, seen.split.as_ref(), named()));
        let weights = |r: &ManagedRoute| {
            let found = self.dropped.iter().find(|d| d.name == r.virtual_service).ok_or("VirtualService does not exist any more")?;
            Ok(found.weights.clone()?[0].clone())
        };
        let stable_answers = seen.stable_arm.has_endpoints() || !seen.canary_arm.has_endpoints();
        let left = left.map(|r| LeftRoute { route: r.clone(), weights: weights(r), stable_answers }).collect();
        Observations { left, ..seen.clone() }
    }

    pub fn plan(&self) -> Plan {
        Plan::parse(&self.subject.name, &self.spec, &self.seen)
    }

    /// One reconcile of what is true now.
    pub fn pass(&mut self) -> Pass {
        let seen = self.seen.clone();
        let status = self.status.clone();
        self.pass_on(seen, status, Luck::Good)
    }

    /// One reconcile of what was seen, with a status that was read.
    pub fn pass_on(&mut self, seen: Observations, status: VoiceRolloutStatus, luck: Luck) -> Pass {
        let seen = self.see(&seen, &status);
        let plan = Plan::parse(&self.subject.name, &self.spec, &seen);
        let decision = decide(&self.subject, &plan, &status, &seen);
        for intent in &decision.urgent {
            self.carry_out(intent, &seen);
        }
        if luck != Luck::Conflict {
            if !(self.lazy && decision.counts_only.is_some()) {
                self.spans.extend(decision.ended.iter().cloned());
                self.status = stored(&decision.status);
            }
            let n = if let Luck::DiesAfter(n) = luck { n } else { usize::MAX };
            for intent in decision.intents.iter().take(n) {
                self.carry_out(intent, &seen);
            }
            if luck == Luck::Good {
                self.told.extend(decision.events.iter().map(|e| e.reason.clone()));
            }
        }
        Pass { plan, before: status, seen, decision }
    }

    /// A reconcile, and then time: until the cluster moves, or the decision asked to look again, at most until `end`.
    pub fn step(&mut self, end: Timestamp) -> Pass {
        let pass = self.pass();
        self.wait_after(&pass, end);
        pass
    }

    /// Lets the cluster and time go on after a pass: at once when the pass changed what can be seen.
    pub fn wait_after(&mut self, pass: &Pass, end: Timestamp) {
        let soon = self.later(1).min(end);
        if self.differs_from(&pass.seen) { self.advance_to(soon) } else { self.wait_for_news(pass.decision.wake_at, end) }
    }

    fn differs_from(&self, seen: &Observations) -> bool {
        self.seen.routes != seen.routes
            || self.see(&self.seen, &self.status).left != seen.left
            || self.seen.actions != seen.actions
            || self.seen.runs != seen.runs
            || self.seen.finalizer != seen.finalizer
            || self.seen.replica_sets != seen.replica_sets
            || self.seen.pods != seen.pods
            || self.seen.budgets != seen.budgets
            || self.seen.stable_arm != seen.stable_arm
            || self.seen.canary_arm != seen.canary_arm
            || self.seen.surroundings != seen.surroundings
    }

    /// Lets the cluster and time go on after a reconcile that asked to be woken at `wake_at`.
    pub fn wait_for_news(&mut self, wake_at: Option<Timestamp>, end: Timestamp) {
        let second = self.seen.now.checked_add(SignedDuration::from_secs(1)).unwrap();
        let next = if self.moving() { Some(second) } else { self.next_news() };
        // Gauges are read every five seconds.
        let gauge = self.spec.sessions.is_some().then(|| self.later(5));
        let at = [next, wake_at, gauge.filter(|_| self.drains())].into_iter().flatten().min().unwrap_or(end).min(end);
        self.advance_to(at);
    }

    /// Workers pull their jobs.
    pub fn pulls(&self) -> bool {
        self.spec.traffic.replicas.is_some()
    }

    fn drains(&self) -> bool {
        self.status.revisions.iter().any(|r| r.role == Role::Draining || r.shrinking_since.is_some())
    }

    /// Reconciles until `done`; panics after an hour of the world's time, or without end.
    pub fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.later(4 * 3600);
        for _ in 0..3000 {
            if done(self) {
                return;
            }
            assert!(self.seen.now < end, "never: {what}\n{}", self.describe());
            let pass = self.pass();
            if done(self) {
                return;
            }
            self.wait_after(&pass, end);
        }
        panic!("not within 3000 passes: {what}\n{}", self.describe());
    }

    pub fn until_weight(&mut self, weight: i32) {
        self.until(&format!("weight {weight}"), |w| w.status.weights.applied == weight && w.status.weights.desired == weight);
    }

    pub fn until_phase(&mut self, phase: Phase) {
        self.until(&format!("phase {phase:?}"), |w| w.status.phase == phase);
    }

    /// Reconciles for a while.
    pub fn run(&mut self, secs: i64) {
        let end = self.later(secs);
        while self.seen.now < end {
            self.step(end);
        }
        self.pass();
    }

    /// Reconciles until nothing moves and nothing is to come but measurements; then checks that a further pass
    /// changes nothing.
    pub fn settle(&mut self) {
        for _ in 0..5000 {
            let before = self.status.clone();
            let pass = self.pass();
            let quiet = pass.decision.intents.is_empty() && pass.decision.urgent.is_empty() && self.status == before && !self.moving();
            match (quiet, pass.decision.wake_at) {
                (true, None) if self.next_news().is_none() || self.at_rest() => return,
                _ => self.wait_after(&pass, self.later(24 * 3600)),
            }
        }
        panic!("never settles\n{}", self.describe());
    }

    /// Measurements go on, but nothing that they could say is news.
    fn at_rest(&self) -> bool {
        matches!(self.status.phase, Phase::Paused | Phase::Healthy | Phase::Degraded | Phase::Invalid)
    }

    pub fn later(&self, secs: i64) -> Timestamp {
        self.seen.now.checked_add(SignedDuration::from_secs(secs)).unwrap()
    }

    pub fn applied(&self) -> i32 {
        self.seen.applied_weight()
    }

    pub fn decided(&self, decision: &str) -> usize {
        self.status.decisions.iter().filter(|d| d.decision == decision).count()
    }

    pub fn describe(&self) -> String {
        let s = &self.status;
        let decisions: Vec<String> =
            s.decisions.iter().rev().take(12).map(|d| format!("  {} {} {}: {}", d.at.0, d.step, d.decision, d.reason)).collect();
        let next = self.decide();
        format!(
            "now {}\nphase {:?} step {:?} {} weights {:?} {:?}\nmessage {}\nabort {:?}\npromotion {:?}\nsets {:?}\narms {:?}\n     {:?}\nroutes {:?}\ndropped {:?}, remembered {:?}\nruns {:?}\nnext intents {:?} {:?} wake {:?}\ndecisions, newest first:\n{}",
            self.seen.now,
            s.phase,
            s.current_step,
            s.step_display,
            s.weights,
            s.step,
            s.message,
            s.abort,
            s.promotion,
            self.seen.replica_sets,
            self.seen.stable_arm,
            self.seen.canary_arm,
            self.seen.routes.iter().map(|r| (&r.name, &r.weights)).collect::<Vec<_>>(),
            self.dropped.iter().map(|r| (&r.name, &r.weights)).collect::<Vec<_>>(),
            s.managed_routes.iter().map(|r| &r.virtual_service).collect::<Vec<_>>(),
            self.seen.runs.iter().map(|r| (&r.name, r.phase, r.stop)).collect::<Vec<_>>(),
            next.urgent,
            next.intents.iter().map(short).collect::<Vec<_>>(),
            next.wake_at,
            decisions.join("\n"),
        )
    }
}

/// An intent without the whole run spec.
pub fn short(intent: &Intent) -> String {
    match intent {
        Intent::CreateRun { name, .. } => format!("CreateRun {name}"),
        other => format!("{other:?}"),
    }
}

/// The status as the API server gives it back.
pub fn stored(status: &VoiceRolloutStatus) -> VoiceRolloutStatus {
    serde_json::from_value(serde_json::to_value(status).unwrap()).unwrap()
}
