//! Things that happen to a release, for the property tests.

use proptest::prelude::*;
use serde_json::json;

use super::specs::*;
use super::world::{Luck, Pass, Say, World, route_seen};
use crate::api::action::Verb;
use crate::api::common::seconds;
use crate::api::rollout::{Analysis, OnDeadline, Preflight, RollbackWindow, Step};
use crate::api::status::Phase;
use crate::core::plan::PlanStep;
use crate::core::route::Buckets;

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Event {
    Time(i64),
    Says(&'static str, Say),
    Apply(u32),
    Ask(Verb),
    /// What somebody who looks at the release would ask for.
    AskFitting,
    /// To go on without what an analysis still needs.
    AskToSkip,
    AskForVersion(Verb, u32),
    Steps(usize),
    Background(usize),
    Replicas(i32),
    Paused(bool),
    Window(i32),
    OnDeadline(OnDeadline),
    Breaks(u32),
    EndpointsStall(bool),
    /// Whatever is wrong is put right, but for what providers say.
    Calm,
    PodsDie(u32),
    Weights(usize, i64),
    Buckets(usize, Buckets),
    Proof(bool, bool),
    Counts(i64, i64),
    Unreadable(usize, bool),
    Named(bool),
    ArmTrouble(bool, bool),
    ArmPointed(bool, u32),
    Rival(bool),
    Found(bool),
    Preflight(Preflight),
    RunDeleted(usize),
    RunForged(usize),
    RunStopped(usize),
    Dies(usize),
    Stale(usize),
    Lags(Lag, usize),
}

/// A cache that lags behind the others.
#[derive(Clone, Copy, Debug)]
pub enum Lag {
    Runs,
    Actions,
    ReplicaSets,
}

fn step_lists() -> Vec<Option<Vec<Step>>> {
    let with = |g: crate::api::analysis::Gate| Step { analysis: Some(gates(vec![g])), ..Step::default() };
    let mut pausing = gate("evals");
    pausing.on_fail = crate::api::analysis::OnFail::Pause;
    let mut aborting = gate("judge");
    aborting.on_error = crate::api::analysis::OnError::Abort;
    vec![
        Some(vec![weight(5), pause(Some(60)), analysis(&["p95"]), weight(50), analysis(&["evals", "p95"]), weight(100)]),
        Some(vec![scale(2), analysis(&["evals"]), weight(10), pause(None), weight(60)]),
        Some(vec![weight(20), with(pausing), weight(80), with(aborting)]),
        Some(vec![weight(1), weight(30), pause(None)]),
        Some(vec![weight(40), weight(10), weight(0), weight(0), pause(Some(20)), weight(70)]),
        Some(vec![weight(25)]),
        None,
        Some(vec![]),
        Some(vec![weight(50), Step::default(), weight(90)]),
    ]
}

fn backgrounds() -> Vec<Option<Analysis>> {
    // A gate may be called as one of a step.
    let lists = [vec!["live"], vec!["live", "tools"], vec!["live", "p95"]];
    let analysis = |names: Vec<&str>| gates(names.into_iter().map(gate).collect());
    std::iter::once(None).chain(lists.into_iter().map(|l| Some(analysis(l)))).collect()
}

pub fn event() -> impl Strategy<Value = Event> {
    let verb = || {
        prop::sample::select(vec![
            Verb::Promote,
            Verb::Promote,
            Verb::SkipStep,
            Verb::PromoteFull,
            Verb::Abort,
            Verb::Retry,
            Verb::Pause,
            Verb::Resume,
        ])
    };
    let says = prop::sample::select(vec![Say::Pass, Say::Pass, Say::Fail, Say::Error, Say::Inconclusive, Say::Nothing]);
    let gate = prop::sample::select(vec!["p95", "evals", "judge", "live", "tools"]);
    let lag = prop::sample::select(vec![Lag::Runs, Lag::Actions, Lag::ReplicaSets]);
    prop_oneof![
        16 => (1i64..200).prop_map(Event::Time),
        2 => (1000i64..5000).prop_map(Event::Time),
        6 => (gate, says).prop_map(|(g, s)| Event::Says(g, s)),
        6 => (1u32..5).prop_map(Event::Apply),
        4 => verb().prop_map(Event::Ask),
        8 => Just(Event::AskFitting),
        4 => Just(Event::AskToSkip),
        1 => (verb(), 1u32..5).prop_map(|(v, n)| Event::AskForVersion(v, n)),
        3 => (0usize..7).prop_map(Event::Steps),
        1 => (7usize..step_lists().len()).prop_map(Event::Steps),
        1 => (0usize..4).prop_map(Event::Background),
        1 => prop::sample::select(vec![0, 1, 3, 10, 10]).prop_map(Event::Replicas),
        1 => any::<bool>().prop_map(Event::Paused),
        1 => (0i32..3).prop_map(Event::Window),
        1 => prop::sample::select(vec![OnDeadline::Abort, OnDeadline::Report]).prop_map(Event::OnDeadline),
        1 => (1u32..5).prop_map(Event::Breaks),
        2 => any::<bool>().prop_map(Event::EndpointsStall),
        6 => Just(Event::Calm),
        1 => (1u32..5).prop_map(Event::PodsDie),
        2 => (0usize..2, 0i64..101).prop_map(|(i, w)| Event::Weights(i, w)),
        3 => (0usize..2, buckets()).prop_map(|(i, b)| Event::Buckets(i, b)),
        1 => any::<(bool, bool)>().prop_map(|(on, required)| Event::Proof(on, required)),
        4 => (0i64..100, 0i64..100).prop_map(|(canary, stable)| Event::Counts(canary, stable)),
        1 => (0usize..2, any::<bool>()).prop_map(|(i, bad)| Event::Unreadable(i, bad)),
        2 => any::<bool>().prop_map(Event::Named),
        1 => any::<(bool, bool)>().prop_map(|(a, bad)| Event::ArmTrouble(a, bad)),
        1 => (any::<bool>(), 1u32..5).prop_map(|(a, v)| Event::ArmPointed(a, v)),
        1 => any::<bool>().prop_map(Event::Rival),
        2 => any::<bool>().prop_map(Event::Found),
        1 => prop::sample::select(vec![Preflight::Warn, Preflight::Enforce]).prop_map(Event::Preflight),
        1 => (0usize..4).prop_map(Event::RunDeleted),
        1 => (0usize..4).prop_map(Event::RunForged),
        1 => (0usize..4).prop_map(Event::RunStopped),
        3 => (0usize..4).prop_map(Event::Dies),
        2 => (1usize..12).prop_map(Event::Stale),
        2 => (lag, 1usize..6).prop_map(|(l, n)| Event::Lags(l, n)),
    ]
}

/// What generated routes say, or that there should be some from now on.
fn buckets() -> impl Strategy<Value = Buckets> {
    let weight = || 0i64..101;
    prop_oneof![3 => Just(Buckets::Absent), 1 => weight().prop_map(Buckets::At), 2 => weight().prop_map(Buckets::Wrong)]
}

/// A world with its past, and a check after every pass.
pub struct Story {
    pub world: World,
    past: Vec<World>,
    pub check: fn(&World, &Pass) -> Result<(), String>,
}

type Outcome = Result<(), String>;

impl Story {
    pub fn new(check: fn(&World, &Pass) -> Result<(), String>) -> Self {
        let mut world = World::new(spec(step_lists()[0].clone(), None));
        world.seen.routes.push(route_seen("second", 0));
        Self::of(world, check)
    }

    /// Of workers that pull their jobs.
    pub fn of_workers(check: fn(&World, &Pass) -> Result<(), String>) -> Self {
        let mut spec = spec(step_lists()[0].clone(), None);
        spec.traffic = pulled();
        Self::of(World::new(spec), check)
    }

    fn of(mut world: World, check: fn(&World, &Pass) -> Result<(), String>) -> Self {
        world.pace = 20;
        world.lazy = true;
        world.edit(|s| s.progress_deadline = seconds(300));
        Self { world, past: vec![], check }
    }

    fn judge(&mut self, pass: &Pass) -> Outcome {
        (self.check)(&self.world, pass)
            .map_err(|e| format!("{e}\n--- before\n{}", self.past.last().map(World::describe).unwrap_or_default()))
    }

    fn keep(&mut self) {
        self.past.push(self.world.clone());
        if self.past.len() > 12 {
            self.past.remove(0);
        }
    }

    fn pass(&mut self) -> Result<Pass, String> {
        self.keep();
        let pass = self.world.pass();
        self.judge(&pass)?;
        Ok(pass)
    }

    /// Reconciles for a while, as the cluster moves.
    pub fn run(&mut self, secs: i64) -> Outcome {
        let end = self.world.later(secs);
        while self.world.seen.now < end {
            let pass = self.pass()?;
            self.world.wait_after(&pass, end);
        }
        self.pass().map(|_| ())
    }

    fn pass_with(&mut self, seen: crate::core::observe::Observations, luck: Luck) -> Outcome {
        self.keep();
        let status = self.world.status.clone();
        let pass = self.world.pass_on(seen, status, luck);
        self.judge(&pass)
    }

    fn past(&self, n: usize) -> Option<&World> {
        self.past.len().checked_sub(n).and_then(|i| self.past.get(i))
    }

    /// Somebody deletes what was tampered with, everything is there again, providers answer.
    pub fn faults_stop(&mut self) {
        let w = &mut self.world;
        w.broken.clear();
        w.endpoints_stall = false;
        w.script.clear();
        w.seen.rival = None;
        w.seen.runs.retain(|r| r.spec_hash != "forged");
        (w.seen.stable_arm.problem, w.seen.canary_arm.problem) = (None, None);
        for route in w.seen.routes.iter_mut().chain(&mut w.dropped).filter(|r| r.weights.is_err()) {
            *route = route_seen(&route.name, 30);
        }
        if w.pulls() && w.spec.traffic.proof.is_some() {
            w.edit(|s| s.traffic.proof = None);
        }
        if w.plan().errors.is_empty() {
            return;
        }
        w.edit(|s| (s.steps, s.analysis) = (step_lists()[0].clone(), None));
    }

    pub fn happen(&mut self, event: &Event) -> Outcome {
        let lists = step_lists();
        let w = &mut self.world;
        match event.clone() {
            Event::Time(secs) => return self.run(secs),
            Event::Says(gate, say) => drop(w.script.insert(gate.into(), say)),
            Event::Apply(version) => w.apply_version(version),
            Event::Ask(verb) => drop(w.ask(verb)),
            Event::AskFitting => match (w.status.phase, w.status.user_paused) {
                (_, true) => drop(w.ask(Verb::Resume)),
                (Phase::Paused, _) => drop(w.ask(Verb::Promote)),
                (Phase::Degraded, _) => drop(w.ask(Verb::Retry)),
                _ => {}
            },
            Event::AskToSkip => {
                let index = w.status.current_step.and_then(|i| usize::try_from(i).ok());
                if matches!(index.and_then(|i| w.plan().steps.get(i).cloned()), Some(PlanStep::Analysis { .. })) {
                    w.ask(Verb::SkipStep);
                }
            }
            Event::AskForVersion(verb, version) => drop(w.ask_for(verb, &hash(version))),
            Event::Steps(i) => w.edit(|s| s.steps = lists[i].clone()),
            Event::Background(i) => w.edit(|s| s.analysis = backgrounds()[i].clone()),
            Event::Replicas(n) => w.edit(|s| s.replicas = n),
            Event::Paused(paused) => w.edit(|s| s.paused = paused),
            Event::Window(n) => w.edit(|s| s.rollback_window = (n > 0).then_some(RollbackWindow { revisions: n })),
            Event::OnDeadline(what) => w.edit(|s| s.on_progress_deadline = what),
            Event::EndpointsStall(stall) => w.endpoints_stall = stall,
            Event::Breaks(version) => w.broken.push(hash(version)),
            Event::Calm => {
                let script = self.world.script.clone();
                self.faults_stop();
                self.world.edit(|s| s.paused = false);
                self.world.script = script;
            }
            Event::PodsDie(version) => {
                if let Some(set) = w.seen.replica_sets.iter_mut().find(|s| s.hash == hash(version)) {
                    (set.exist, set.ready, set.available) = (0, 0, 0);
                }
            }
            Event::Weights(i, canary) => w.edit_route(i, |r| *r = route_seen(&r.name, canary)),
            Event::Buckets(i, buckets) => w.edit_route(i, |r| r.weights.iter_mut().flatten().for_each(|w| w.buckets = buckets)),
            Event::Proof(on, required) => w.edit(|s| s.traffic.proof = on.then(|| proof(json!({"requireObserved": required})))),
            Event::Counts(canary, stable) => w.count_more(canary, stable),
            Event::Unreadable(i, true) => w.edit_route(i, |r| r.weights = Err("VirtualService voice/x does not exist".into())),
            Event::Unreadable(i, false) => w.edit_route(i, |r| {
                if r.weights.is_err() {
                    *r = route_seen(&r.name, 0);
                }
            }),
            Event::Named(true) => w.name_again("second"),
            Event::Named(false) => w.drop_route("second"),
            Event::ArmTrouble(stable, bad) => {
                let arm = if stable { &mut w.seen.stable_arm } else { &mut w.seen.canary_arm };
                arm.problem = bad.then(|| format!("{} does not exist", arm.name));
            }
            Event::ArmPointed(stable, version) => {
                let arm = if stable { &mut w.seen.stable_arm } else { &mut w.seen.canary_arm };
                arm.selects = Some(hash(version));
            }
            Event::Rival(there) => w.seen.rival = there.then(|| "the route belongs to another rollout".to_string()),
            Event::Found(something) => super::preflight::find(w, if something { &["agent-stable"] } else { &[] }),
            Event::Preflight(what) => w.edit(|s| s.preflight = what),
            Event::RunDeleted(i) if i < w.seen.runs.len() => drop(w.seen.runs.remove(i)),
            Event::RunForged(i) if i < w.seen.runs.len() => {
                let run = &mut w.seen.runs[i];
                (run.spec_hash, run.phase) = ("forged".into(), crate::api::run::RunPhase::Pass);
            }
            Event::RunStopped(i) if i < w.seen.runs.len() => w.seen.runs[i].stop = true,
            Event::RunDeleted(_) | Event::RunForged(_) | Event::RunStopped(_) => {}
            Event::Dies(n) => return self.pass_with(self.world.seen.clone(), Luck::DiesAfter(n)),
            Event::Stale(n) => return self.stale(n),
            Event::Lags(lag, n) => return self.lagging(lag, n),
        }
        Ok(())
    }

    /// Everything that is read is old, the status too: it cannot be written.
    fn stale(&mut self, n: usize) -> Outcome {
        let Some(old) = self.past(n).cloned() else { return Ok(()) };
        let (spec, subject) = (self.world.spec.clone(), self.world.subject.clone());
        (self.world.spec, self.world.subject) = (old.spec.clone(), old.subject.clone());
        let pass = self.world.pass_on(old.seen.clone(), old.status.clone(), Luck::Conflict);
        (self.world.spec, self.world.subject) = (spec, subject);
        (self.check)(&old, &pass).map_err(|e| format!("stale: {e}\n{}", old.describe()))
    }

    /// One cache is behind the others.
    fn lagging(&mut self, lag: Lag, n: usize) -> Outcome {
        let Some(old) = self.past(n).map(|w| w.seen.clone()) else { return Ok(()) };
        let mut seen = self.world.seen.clone();
        match lag {
            Lag::Runs => seen.runs = old.runs,
            Lag::Actions => seen.actions = old.actions,
            Lag::ReplicaSets => seen.replica_sets = old.replica_sets,
        }
        self.pass_with(seen, Luck::Good)
    }
}
