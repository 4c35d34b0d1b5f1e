//! Workers that pull their jobs: no route and no proxy, a dispatcher gives each call to one of the workers that run, as
//! LiveKit does. A worker that is told to end takes no more, and goes on with those it has for its grace period.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::selector::labels_of;
use super::super::state::Part;
use super::super::store::{Change, Key, uid};
use super::timers::Task;
use super::{Cluster, kubelet};
use crate::api::common::{REVISION_LABEL, ROLLOUT_LABEL};

impl Cluster {
    /// A VoiceRollout of workers that pull their jobs gets callers.
    pub(super) fn jobs_see(&mut self, change: &Change) {
        if !change.new.as_ref().is_some_and(|rollout| pulls(rollout)) {
            return;
        }
        if let Some(wait) = self.time_to_next_call() {
            self.timers.once(Instant::now() + wait, Task::Dispatch(change.key.clone()));
        }
    }

    /// A call comes, and one of the workers that take some gets it.
    pub(super) fn dispatch(&mut self, rollout: &Key) {
        if !self.object(rollout).is_some_and(|object| pulls(&object)) {
            return;
        }
        if let Some(wait) = self.time_to_next_call() {
            self.timers.once(Instant::now() + wait, Task::Dispatch(rollout.clone()));
        }
        let mut free: Vec<(Key, String)> = self.server.with_state(|state| {
            let pods = state.store.list(self.kinds.pods, Some(&rollout.namespace));
            let takes = |pod: &Value| kubelet::ready_since(pod).is_some() && pod.pointer("/metadata/deletionTimestamp").is_none();
            let ours = pods.filter(|(_, pod)| label(pod, ROLLOUT_LABEL) == rollout.name && takes(pod));
            ours.map(|(key, pod)| (key.clone(), label(pod, REVISION_LABEL))).collect()
        });
        if free.is_empty() {
            self.nobody_answers((rollout.clone(), 0), format!("VoiceRollout {}: no worker takes the call", rollout.name));
            return;
        }
        let (pod, revision) = free.swap_remove(self.dice(free.len()));
        self.answered((rollout.clone(), 0));
        self.answer(pod, revision);
    }

    /// The pod belongs to a VoiceRollout of workers that pull their jobs.
    pub(super) fn pulls_jobs(&self, pod: &Key, object: &Value) -> bool {
        let rollout = Key { kind: self.kinds.rollouts, namespace: pod.namespace.clone(), name: label(object, ROLLOUT_LABEL) };
        self.object(&rollout).is_some_and(|rollout| pulls(&rollout))
    }

    /// A call has ended: a worker that was told to end, and has no other, does so.
    pub(super) fn worker_is_done(&mut self, pod: &Key) {
        let Some(object) = self.object(pod).filter(|object| object.pointer("/metadata/deletionTimestamp").is_some()) else { return };
        let idle = !self.shared.book.lock().active.contains_key(&(pod.namespace.clone(), pod.name.clone()));
        if let Some(uid) = uid(&object).filter(|_| idle && self.pulls_jobs(pod, &object)) {
            let wait = self.shared.config.lock().termination;
            self.timers.once(Instant::now() + wait, Task::Drained { pod: pod.clone(), uid: uid.to_owned() });
        }
    }

    /// Its process ends by itself, with exit code 0.
    pub(super) fn drained(&mut self, pod: &Key, wanted: &str) {
        let Some(object) = self.object(pod).filter(|object| uid(object) == Some(wanted)) else { return };
        let mut statuses = object.pointer("/status/containerStatuses").cloned().unwrap_or_default();
        for status in statuses.as_array_mut().into_iter().flatten() {
            status["ready"] = json!(false);
            status["state"] = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
        }
        self.merge(pod, Part::Status, &json!({"status": {"containerStatuses": statuses}}));
        self.end_pod(pod, wanted);
    }
}

fn label(object: &Value, name: &str) -> String {
    labels_of(object).get(name).cloned().unwrap_or_default()
}

fn pulls(rollout: &Value) -> bool {
    rollout.pointer("/spec/traffic/replicas").is_some_and(Value::is_object)
}
