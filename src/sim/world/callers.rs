//! Callers: where each call goes, how long it lasts, and whether it was cut.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::super::store::{Change, Key, uid};
use super::Cluster;
use super::endings::PodEnd;
use super::proxies::{Destination, Endpoint};
use super::requests::Headers;
use super::timers::Task;
use crate::api::common::REVISION_LABEL;
use crate::core::route::may_be_generated;

/// What became of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// Answered by a pod.
    pub started: u64,
    /// Ended by the caller.
    pub ok: u64,
    /// Ended because their pod ended.
    pub cut: u64,
}

/// A call that was sent where nothing could answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When.
    pub at: Timestamp,
    /// Where to, and what was missing there.
    pub what: String,
}

/// A known caller got another revision than at the last call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// When.
    pub at: Timestamp,
    /// Number of the caller.
    pub caller: u64,
    /// The revision before.
    pub from: String,
    /// The revision now.
    pub to: String,
}

/// What the holder of a world can ask for.
#[derive(Default)]
pub(super) struct Book {
    pub by_revision: BTreeMap<String, CallCounts>,
    pub violations: Vec<Violation>,
    pub moves: Vec<Move>,
    pub active: HashMap<(String, String), usize>,
    /// Pods that are gone, and answer nobody.
    pub gone: HashSet<(String, String)>,
    /// Revision, and calls answered so far, of every pod that there is.
    pub by_pod: BTreeMap<(String, String), (String, u64)>,
    pub endings: Vec<PodEnd>,
}

/// A call under way.
struct Call {
    pod: Key,
    revision: String,
}

/// Calls under way, and the dice.
pub(super) struct Calls {
    dice: fastrand::Rng,
    under_way: BTreeMap<u64, Call>,
    count: u64,
    /// Routes, and VoiceRollouts of workers that pull their jobs, that have answered a call; before the first answer there is nothing to break.
    answered: HashSet<(Key, usize)>,
    /// The revision that each known caller got last.
    last: HashMap<u64, String>,
}

impl Calls {
    pub fn new(seed: u64) -> Self {
        Self { dice: fastrand::Rng::with_seed(seed), under_way: BTreeMap::new(), count: 0, answered: HashSet::new(), last: HashMap::new() }
    }
}

impl Cluster {
    /// A route that appears gets callers.
    pub(super) fn callers_see(&mut self, change: &Change) {
        if change.key.kind != self.kinds.virtual_services {
            return;
        }
        let http = change.new.as_ref().and_then(|vs| vs.pointer("/spec/http")).and_then(Value::as_array);
        let routes = http.into_iter().flatten().filter(|r| !may_be_generated(r)).count();
        let propagation = self.shared.config.lock().propagation;
        for index in 0..routes {
            if let Some(wait) = self.time_to_next_call() {
                self.timers.once(Instant::now() + propagation + wait, Task::Call { route: change.key.clone(), index });
            }
        }
    }

    /// Calls come independently of each other: the times between them are exponentially distributed.
    pub(super) fn time_to_next_call(&mut self) -> Option<Duration> {
        let every = self.shared.config.lock().callers.as_ref()?.every;
        let u = self.calls.dice.f64().max(1e-12);
        Some(every.mul_f64(-u.ln()))
    }

    pub(super) fn call(&mut self, route: &Key, index: usize) {
        let caller = self.caller();
        let headers = caller.as_ref().map(|(_, headers)| headers.clone());
        let Some(destinations) = self.proxies.destinations(route, index, headers) else { return };
        if let Some(wait) = self.time_to_next_call() {
            self.timers.once(Instant::now() + wait, Task::Call { route: route.clone(), index });
        }
        let route = (route.clone(), index);
        match self.choose(destinations).and_then(|destination| self.pick(&destination)) {
            Ok((pod, revision)) => {
                self.answered(route);
                if let Some((caller, _)) = caller {
                    self.note_version(caller, &revision);
                }
                self.answer(pod, revision);
            }
            Err(what) => {
                let what = format!("{}/{} http route {}: {what}", route.0.namespace, route.0.name, route.1);
                self.nobody_answers(route, what);
            }
        }
    }

    /// From now on there is something to break.
    pub(super) fn answered(&mut self, route: (Key, usize)) {
        self.calls.answered.insert(route);
    }

    /// A call for which there is nobody, though there was somebody before.
    pub(super) fn nobody_answers(&mut self, route: (Key, usize), what: String) {
        if self.calls.answered.contains(&route) {
            self.shared.book.lock().violations.push(Violation { at: self.clock.now(), what });
        }
    }

    pub(super) fn dice(&mut self, sides: usize) -> usize {
        self.calls.dice.usize(0..sides)
    }

    /// One of the known callers, and the headers of the call.
    fn caller(&mut self) -> Option<(u64, Headers)> {
        let known = self.shared.config.lock().callers.as_ref()?.known.clone()?;
        let caller = self.calls.dice.u64(0..known.count.max(1));
        let places = if known.buckets >= 1000 { 3 } else { 2 };
        let bucket = format!("{:0places$}", caller % known.buckets.max(1));
        Some((caller, Headers::from([(known.header, bucket)])))
    }

    fn note_version(&mut self, caller: u64, revision: &str) {
        let before = self.calls.last.insert(caller, revision.to_owned());
        if let Some(from) = before.filter(|from| from != revision) {
            let moved = Move { at: self.clock.now(), caller, from, to: revision.to_owned() };
            self.shared.book.lock().moves.push(moved);
        }
    }

    /// A destination, by weight.
    fn choose(&mut self, destinations: Vec<Destination>) -> Result<Destination, String> {
        let total: u64 = destinations.iter().map(|d| d.weight).sum();
        let mut ball = if total == 0 { 0 } else { self.calls.dice.u64(0..total) };
        let mut hit = |d: &Destination| {
            let hit = ball < d.weight;
            ball = ball.saturating_sub(d.weight);
            hit
        };
        destinations.into_iter().find(|d| hit(d)).ok_or_else(|| "all weights are 0".to_owned())
    }

    /// One of a destination's ready pods, and its revision.
    fn pick(&mut self, destination: &Destination) -> Result<(Key, String), String> {
        let pods = self.kinds.pods;
        let pod_key = |e: &Endpoint| Key { kind: pods, namespace: e.namespace.clone(), name: e.pod.clone() };
        let endpoints = self.proxies.endpoints(destination, |e| self.object(&pod_key(e)));
        if endpoints.is_empty() {
            return Err(format!("{destination} has no ready endpoints"));
        }
        let endpoint = &endpoints[self.calls.dice.usize(0..endpoints.len())];
        let pod = pod_key(endpoint);
        let object = self.object(&pod).filter(|p| uid(p) == Some(&endpoint.uid));
        let object = object.ok_or_else(|| format!("{destination} still names pod {}, which is gone", endpoint.pod))?;
        let revision = object["metadata"]["labels"][REVISION_LABEL].as_str().unwrap_or_default().to_owned();
        Ok((pod, revision))
    }

    pub(super) fn answer(&mut self, pod: Key, revision: String) {
        let Some(callers) = self.shared.config.lock().callers.clone() else { return };
        let spread = callers.longest.saturating_sub(callers.shortest);
        let length = callers.shortest + spread.mul_f64(self.calls.dice.f64());
        self.calls.count += 1;
        let number = self.calls.count;
        let mut book = self.shared.book.lock();
        book.by_revision.entry(revision.clone()).or_default().started += 1;
        *book.active.entry((pod.namespace.clone(), pod.name.clone())).or_default() += 1;
        book.by_pod.entry((pod.namespace.clone(), pod.name.clone())).or_insert_with(|| (revision.clone(), 0)).1 += 1;
        self.calls.under_way.insert(number, Call { pod, revision });
        self.timers.once(Instant::now() + length, Task::HangUp(number));
    }

    pub(super) fn hang_up(&mut self, number: u64) {
        let Some(call) = self.calls.under_way.remove(&number) else { return };
        let mut book = self.shared.book.lock();
        book.by_revision.entry(call.revision).or_default().ok += 1;
        let pod = (call.pod.namespace.clone(), call.pod.name.clone());
        if let Some(active) = book.active.get_mut(&pod) {
            *active -= 1;
            if *active == 0 {
                book.active.remove(&pod);
            }
        }
        drop(book);
        self.worker_is_done(&call.pod);
    }

    /// A pod's containers have ended, and its calls with them; gives how many.
    pub(super) fn cut_calls(&mut self, pod: &Key) -> u64 {
        let before = self.calls.under_way.len();
        let mut book = self.shared.book.lock();
        self.calls.under_way.retain(|_, call| {
            let cut = call.pod == *pod;
            if cut {
                book.by_revision.entry(call.revision.clone()).or_default().cut += 1;
            }
            !cut
        });
        book.gone.insert((pod.namespace.clone(), pod.name.clone()));
        book.active.remove(&(pod.namespace.clone(), pod.name.clone()));
        book.by_pod.remove(&(pod.namespace.clone(), pod.name.clone()));
        (before - self.calls.under_way.len()) as u64
    }
}
