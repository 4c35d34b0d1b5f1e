//! The kubelets: pods start, become ready or crash, and end.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::delete::DeleteOptions;
use super::super::fields;
use super::super::state::Part;
use super::super::store::{Change, Key, uid};
use super::Cluster;
use super::config::Start;
use super::timers::Task;

/// Longest wait of a crash loop.
const MAX_BACKOFF: Duration = Duration::from_secs(300);

impl Cluster {
    pub(super) fn kubelet_sees(&mut self, change: &Change) {
        let key = &change.key;
        let Some(pod) = &change.new else {
            let cut = self.cut_calls(key);
            if let Some(last) = &change.old {
                self.note_end(key, last, cut);
            }
            return;
        };
        if pod.pointer("/metadata/deletionTimestamp").is_some() {
            self.note_asked(key, pod);
        }
        let Some(uid) = uid(pod).map(ToOwned::to_owned) else { return };
        let now = Instant::now();
        if let Some(grace) = pod.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64) {
            let grace = Duration::from_secs(grace);
            let talks = self.shared.book.lock().active.contains_key(&(key.namespace.clone(), key.name.clone()));
            let drains = talks && self.pulls_jobs(key, pod);
            let wait = if drains { grace } else { self.shared.config.lock().termination.min(grace) };
            self.timers.once(now + wait, Task::Gone { pod: key.clone(), uid });
        } else if pod.pointer("/spec/nodeName").is_none() {
            let node = self.next_node();
            self.merge(key, Part::Main, &json!({"spec": {"nodeName": node}}));
        } else if pod.pointer("/status/startTime").is_none() {
            let delay = self.shared.config.lock().image(image(pod)).start_delay;
            self.timers.once(now + delay, Task::Start { pod: key.clone(), uid });
        }
    }

    /// The pod, if it is still the same one and not ending.
    fn living(&self, key: &Key, wanted: &str) -> Option<std::sync::Arc<Value>> {
        self.object(key).filter(|pod| uid(pod) == Some(wanted) && pod.pointer("/metadata/deletionTimestamp").is_none())
    }

    pub(super) fn start_pod(&mut self, key: &Key, wanted: &str) {
        let Some(pod) = self.living(key, wanted) else { return };
        if pod.pointer("/status/startTime").is_some() {
            return;
        }
        let start = self.shared.config.lock().image(image(&pod)).start;
        let ip = format!("10.{}.{}.{}", (self.next_ip >> 16) & 0xff, (self.next_ip >> 8) & 0xff, self.next_ip & 0xff);
        self.next_ip += 1;
        let state = match start {
            Start::Ready | Start::NeverReady => Containers::Run { ready: start == Start::Ready, times: 0 },
            Start::CrashLoop => {
                let restart = Task::Restart { pod: key.clone(), uid: wanted.to_owned(), times: 1 };
                self.timers.once(Instant::now() + Duration::from_secs(10), restart);
                Containers::Crashed { times: 0 }
            }
        };
        let mut status = status(&pod, self.clock.now(), state);
        status["podIP"] = json!(ip);
        status["podIPs"] = json!([{"ip": ip}]);
        status["hostIP"] = json!("10.255.0.1");
        status["startTime"] = json!(fields::seconds(self.clock.now()));
        self.merge(key, Part::Status, &json!({"status": status}));
    }

    pub(super) fn restart_pod(&mut self, key: &Key, wanted: &str, times: u32) {
        let Some(pod) = self.living(key, wanted) else { return };
        let status = status(&pod, self.clock.now(), Containers::Crashed { times });
        self.merge(key, Part::Status, &json!({"status": status}));
        let wait = Duration::from_secs(10).saturating_mul(1 << times.min(5)).min(MAX_BACKOFF);
        let again = Task::Restart { pod: key.clone(), uid: wanted.to_owned(), times: times + 1 };
        self.timers.once(Instant::now() + wait, again);
    }

    /// A pod's container ends, and its calls with it; after a while it runs again.
    pub(super) fn crash_container(&mut self, key: &Key) {
        let Some(pod) = self.object(key).filter(|pod| ready_since(pod).is_some()) else { return };
        let Some(uid) = uid(&pod).map(ToOwned::to_owned) else { return };
        let times = restarts(&pod).saturating_add(1);
        let cut = self.cut_calls(key);
        self.note_crash(key, &pod, cut);
        let delay = self.shared.config.lock().image(image(&pod)).start_delay;
        self.merge(key, Part::Status, &json!({"status": status(&pod, self.clock.now(), Containers::Crashed { times })}));
        self.timers.once(Instant::now() + delay, Task::Recover { pod: key.clone(), uid, times });
    }

    /// A probe fails for a while; the containers run on.
    pub(super) fn unready(&mut self, key: &Key, span: Duration) {
        let Some(pod) = self.object(key).filter(|pod| ready_since(pod).is_some()) else { return };
        let Some(uid) = uid(&pod).map(ToOwned::to_owned) else { return };
        let times = restarts(&pod);
        let status = status(&pod, self.clock.now(), Containers::Run { ready: false, times });
        self.merge(key, Part::Status, &json!({"status": status}));
        self.timers.once(Instant::now() + span, Task::Recover { pod: key.clone(), uid, times });
    }

    pub(super) fn recover_pod(&mut self, key: &Key, wanted: &str, times: u32) {
        // Another end of its container may have come between.
        let Some(pod) = self.living(key, wanted).filter(|pod| restarts(pod) == times) else { return };
        let status = status(&pod, self.clock.now(), Containers::Run { ready: true, times });
        self.merge(key, Part::Status, &json!({"status": status}));
    }

    /// The node that the next pod gets: in turn, and none that takes no pods.
    pub(super) fn next_node(&mut self) -> String {
        let (nodes, closed) = (self.shared.config.lock().nodes.max(1), self.shared.closed_nodes.lock().clone());
        let first = self.next_node;
        self.next_node = self.next_node.wrapping_add(1);
        let mut all = (0..nodes).map(|n| node_name(first.wrapping_add(n) % nodes));
        all.find(|name| !closed.contains(name)).unwrap_or_else(|| node_name(first % nodes))
    }

    pub(super) fn end_pod(&mut self, key: &Key, wanted: &str) {
        if self.object(key).is_none_or(|pod| uid(&pod) != Some(wanted)) {
            return;
        }
        self.attempt(key, |state, key| {
            let Some(resource) = state.resources.get(key.kind).cloned() else { return Ok(()) };
            let now = DeleteOptions { grace: Some(0), ..DeleteOptions::default() };
            state.delete(&resource, &key.namespace, &key.name, &now).map(drop)
        });
    }
}

/// Name of a node, by its number.
pub(super) fn node_name(number: u32) -> String {
    if number == 0 { "sim-node".into() } else { format!("sim-node-{number}") }
}

/// Restarts of a pod's container.
fn restarts(pod: &Value) -> u32 {
    let count = pod.pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_u64).unwrap_or(0);
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Image of a pod's first container.
fn image(pod: &Value) -> &str {
    pod.pointer("/spec/containers/0/image").and_then(Value::as_str).unwrap_or_default()
}

/// Since when a pod is Ready; `None` when it is not.
pub(super) fn ready_since(pod: &Value) -> Option<Timestamp> {
    let conditions = pod.pointer("/status/conditions")?.as_array()?;
    let ready = conditions.iter().find(|c| c["type"] == "Ready" && c["status"] == "True")?;
    ready["lastTransitionTime"].as_str()?.parse().ok()
}

/// What a pod's containers do.
#[derive(Clone, Copy)]
enum Containers {
    Run { ready: bool, times: u32 },
    Crashed { times: u32 },
}

fn status(pod: &Value, now: Timestamp, containers: Containers) -> Value {
    let now = fields::seconds(now);
    let (ready, restarts, state) = match containers {
        Containers::Run { ready, times } => (ready, times, json!({"running": {"startedAt": now}})),
        Containers::Crashed { times } => {
            let message = "back-off restarting failed container";
            (false, times, json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}}))
        }
    };
    let list = pod.pointer("/spec/containers").and_then(Value::as_array);
    let statuses: Vec<Value> = list
        .into_iter()
        .flatten()
        .map(|c| {
            json!({
                "name": c["name"], "image": c["image"], "imageID": c["image"], "ready": ready, "started": ready,
                "restartCount": restarts, "state": state
            })
        })
        .collect();
    let condition = |name: &str, holds: bool| {
        let mut condition = json!({"type": name, "status": if holds { "True" } else { "False" }, "lastTransitionTime": now});
        if !holds {
            condition["reason"] = json!("ContainersNotReady");
        }
        condition
    };
    json!({
        "phase": "Running",
        "conditions": [
            condition("PodScheduled", true),
            condition("Initialized", true),
            condition("ContainersReady", ready),
            condition("Ready", ready)
        ],
        "containerStatuses": statuses
    })
}
