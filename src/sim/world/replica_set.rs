//! The ReplicaSet controller: as many pods as wanted, the right ones removed first, a status that says so.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::delete::DeleteOptions;
use super::super::state::{Part, State, Write};
use super::super::store::{Change, Key, owners, uid};
use super::timers::Task;
use super::{Cluster, kubelet};

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

impl Cluster {
    pub(super) fn replica_sets_see_pod(&mut self, change: &Change) {
        for pod in [&change.old, &change.new].into_iter().flatten() {
            for owner in owners(pod) {
                let key = self.server.with_state(|state| state.store.key_of_uid(owner).cloned());
                if let Some(key) = key.filter(|k| k.kind == self.kinds.replica_sets) {
                    self.later(Task::ReplicaSet(key));
                }
            }
        }
    }

    pub(super) fn sync_replica_set(&mut self, key: &Key) {
        let Some(set) = self.object(key) else { return };
        let pods = self.active_pods(uid(&set).unwrap_or_default());
        let wanted = set.pointer("/spec/replicas").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
        if set.pointer("/metadata/deletionTimestamp").is_none() {
            for _ in pods.len()..wanted {
                self.create_pod(key, &set);
            }
            let mut doomed = pods;
            doomed.sort_by_key(|(_, pod)| removal_rank(pod));
            let surplus = doomed.len().saturating_sub(wanted);
            for (pod, object) in doomed.into_iter().take(surplus) {
                self.endings.is_surplus(&object);
                self.attempt(&pod, |state, pod| {
                    let Some(resource) = state.resources.get(pod.kind).cloned() else { return Ok(()) };
                    state.delete(&resource, &pod.namespace, &pod.name, &DeleteOptions::default()).map(drop)
                });
            }
        }
        self.tell_status(key, &set);
    }

    fn active_pods(&self, owner: &str) -> Vec<(Key, Arc<Value>)> {
        self.server.with_state(|state| {
            let keys = state.store.dependents(owner).into_iter().filter(|k| k.kind == self.kinds.pods);
            keys.filter_map(|key| state.store.get(&key).map(|pod| (key.clone(), Arc::clone(pod))))
                .filter(|(_, pod)| {
                    let phase = pod.pointer("/status/phase").and_then(Value::as_str);
                    pod.pointer("/metadata/deletionTimestamp").is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
                })
                .collect()
        })
    }

    fn create_pod(&mut self, key: &Key, set: &Value) {
        let template = &set["spec"]["template"];
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "generateName": format!("{}-", key.name),
                "labels": template["metadata"]["labels"],
                "annotations": template["metadata"]["annotations"],
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": key.name, "uid": set["metadata"]["uid"],
                    "controller": true, "blockOwnerDeletion": true
                }]
            },
            "spec": template["spec"]
        });
        pod["spec"]["nodeName"] = json!(self.next_node());
        self.attempt(key, |state: &mut State, key| {
            let Some(pods) = state.resource("", "pods") else { return Ok(()) };
            state.create(&pods, &key.namespace, pod, &Write::by("replicaset-controller", Part::Main)).map(drop)
        });
    }

    fn tell_status(&mut self, key: &Key, set: &Value) {
        let pods = self.active_pods(uid(set).unwrap_or_default());
        let min_ready = set.pointer("/spec/minReadySeconds").and_then(Value::as_i64).unwrap_or(0);
        let now = self.clock.now();
        let ready: Vec<Timestamp> = pods.iter().filter_map(|(_, pod)| kubelet::ready_since(pod)).collect();
        let waits = |since: &Timestamp| since.as_second() + min_ready - now.as_second();
        let available = ready.iter().filter(|since| waits(since) <= 0).count();
        if let Some(next) = ready.iter().map(waits).filter(|s| *s > 0).min() {
            let wait = Duration::from_secs(next.unsigned_abs());
            self.timers.once(Instant::now() + wait, Task::ReplicaSet(key.clone()));
        }
        let status = json!({
            "replicas": pods.len(), "fullyLabeledReplicas": pods.len(), "readyReplicas": ready.len(),
            "availableReplicas": available, "observedGeneration": set["metadata"]["generation"]
        });
        self.merge(key, Part::Status, &json!({"status": status}));
    }
}

/// The order in which pods are given up: the least useful ones first.
fn removal_rank(pod: &Value) -> (bool, u8, bool, i64, i64, i64, String) {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let assigned = !text("/spec/nodeName").is_empty();
    let phase = match text("/status/phase").as_str() {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let since = kubelet::ready_since(pod);
    let cost = pod["metadata"]["annotations"][COST].as_str().and_then(|c| c.parse().ok()).unwrap_or(0);
    let created: Option<Timestamp> = text("/metadata/creationTimestamp").parse().ok();
    (
        assigned,
        phase,
        since.is_some(),
        cost,
        -since.map_or(0, Timestamp::as_second),
        -created.map_or(0, Timestamp::as_second),
        text("/metadata/name"),
    )
}
