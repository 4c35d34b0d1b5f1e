//! What the world does when: by time, then in the order it was planned.

use std::collections::{BTreeMap, HashSet};

use tokio::time::Instant;

use super::super::store::Key;

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Bring a ReplicaSet's pods and status up to date.
    ReplicaSet(Key),
    /// Bring a Service's EndpointSlice up to date.
    Slice(Key),
    /// A pod's containers start.
    Start {
        /// The pod.
        pod: Key,
        /// Its UID.
        uid: String,
    },
    /// A pod's container ended and starts again.
    Restart {
        /// The pod.
        pod: Key,
        /// Its UID.
        uid: String,
        /// Restarts before this one.
        times: u32,
    },
    /// A pod's containers run again after an end.
    Recover {
        /// The pod.
        pod: Key,
        /// Its UID.
        uid: String,
        /// Restarts so far.
        times: u32,
    },
    /// A pod's containers have ended.
    Gone {
        /// The pod.
        pod: Key,
        /// Its UID.
        uid: String,
    },
    /// Changes reach the proxies.
    Propagate,
    /// Someone calls.
    Call {
        /// The VirtualService.
        route: Key,
        /// Index of its http route.
        index: usize,
    },
    /// Someone calls who is answered by workers that pull their jobs: the VoiceRollout.
    Dispatch(Key),
    /// A worker that was told to end has no call any more.
    Drained {
        /// The pod.
        pod: Key,
        /// Its UID.
        uid: String,
    },
    /// A call ends.
    HangUp(u64),
}

/// Planned tasks.
#[derive(Default)]
pub struct Timers {
    planned: BTreeMap<(Instant, u64), Task>,
    waiting: HashSet<Task>,
    count: u64,
}

impl Timers {
    /// Plans a task unless it is planned already.
    pub fn once(&mut self, at: Instant, task: Task) {
        if self.waiting.insert(task.clone()) {
            self.count += 1;
            self.planned.insert((at, self.count), task);
        }
    }

    /// Takes the first task whose time has come.
    pub fn due(&mut self, now: Instant) -> Option<Task> {
        let entry = self.planned.first_entry().filter(|e| e.key().0 <= now)?;
        let task = entry.remove();
        self.waiting.remove(&task);
        Some(task)
    }

    /// When the next task is due.
    pub fn next(&self) -> Option<Instant> {
        self.planned.first_key_value().map(|((at, _), _)| *at)
    }
}
