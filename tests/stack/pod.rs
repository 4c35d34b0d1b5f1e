//! One pod's life on the node: its containers run as processes, its status says how they are, its deletion ends them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::container::{self, Ended, State};
use super::kubelet::{MANAGER, NODE_IP, Shared, Told};

/// What a pod's tasks know of it. Everything here stays the same for the life of the pod.
pub struct PodRun {
    /// What all pods share.
    pub shared: Arc<Shared>,
    /// The pod as it was when it was bound.
    pub pod: Arc<Pod>,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its address.
    pub ip: String,
    /// Its folder, for logs and service account files.
    pub dir: PathBuf,
}

impl PodRun {
    /// Describes a bound pod; nothing runs yet.
    pub fn new(shared: Arc<Shared>, pod: &Arc<Pod>, ip: String) -> Self {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let uid = pod.uid().unwrap_or_default();
        let dir = shared.pod_dir(&namespace, &name, &uid);
        Self { shared, pod: pod.clone(), namespace, name, uid, ip, dir }
    }

    /// The pod's containers. Init containers are not run.
    pub fn containers(&self) -> &[Container] {
        self.pod.spec.as_ref().map_or(&[], |spec| &spec.containers)
    }

    /// `Always` unless the pod says otherwise.
    pub fn restart_policy(&self) -> &str {
        self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.shared.client.clone(), &self.namespace)
    }

    /// Writes the status; keeps trying while the API server is away. What it refuses is dropped: the pod is gone.
    async fn write_status(&self, status: &Value) {
        let patch = Patch::Strategic(json!({"metadata": {"uid": self.uid}, "status": status}));
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        while let Err(error) = self.api().patch_status(&self.name, &params, &patch).await {
            if matches!(error, kube::Error::Api(_)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Tells the API server that the deletion is done.
    async fn confirm_deletion(&self) {
        let preconditions = Preconditions { uid: Some(self.uid.clone()), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default().grace_period(0) };
        while let Err(error) = self.api().delete(&self.name, &params).await {
            if matches!(error, kube::Error::Api(_)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Runs a pod until it is gone. `told` brings its newest version, or `None` once the API server has it no more.
pub async fn run(run: PodRun, mut told: watch::Receiver<Told>) {
    let run = Arc::new(run);
    let (stop, stopped) = watch::channel(None::<Instant>);
    let (sender, mut changes) = mpsc::unbounded_channel();
    let count = run.containers().len();
    for index in 0..count {
        tokio::spawn(container::run(run.clone(), index, stopped.clone(), sender.clone()));
    }
    drop((sender, stopped));

    let mut book = Book::new(count);
    let mut running = true;
    loop {
        let deleting = match told.borrow_and_update().as_ref() {
            // Gone without waiting for us (grace period 0): nobody hears what comes of the processes.
            None => {
                stop.send_replace(Some(Instant::now()));
                return;
            }
            Some(pod) => pod.metadata.deletion_timestamp.as_ref().map(|_| grace(pod)),
        };
        if let Some(grace) = deleting {
            let end = Instant::now() + grace;
            stop.send_if_modified(|known| {
                let earlier = known.is_none_or(|known| end < known);
                if earlier {
                    *known = Some(end);
                }
                earlier
            });
        }
        if let Some(status) = book.news(&run) {
            run.write_status(&status).await;
        }
        if deleting.is_some() && !running {
            run.confirm_deletion().await;
            return;
        }
        tokio::select! {
            change = changes.recv(), if running => match change {
                Some((index, state)) => book.states[index] = state,
                None => running = false, // all containers' tasks have ended
            },
            changed = told.changed() => if changed.is_err() { return },
        }
        while let Ok((index, state)) = changes.try_recv() {
            book.states[index] = state;
        }
    }
}

fn grace(pod: &Pod) -> Duration {
    let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
    Duration::from_secs(seconds.max(0).unsigned_abs())
}

/// The pod's status as last written.
struct Book {
    states: Vec<State>,
    ready: Option<(bool, Timestamp)>,
    started: Timestamp,
    written: Option<Value>,
}

impl Book {
    fn new(count: usize) -> Self {
        Self { states: vec![State::creating(); count], ready: None, started: Timestamp::now(), written: None }
    }

    /// The status to write, if it differs from the last one.
    fn news(&mut self, run: &PodRun) -> Option<Value> {
        let ready = self.states.iter().all(|state| state.ready);
        if self.ready.is_none_or(|(known, _)| known != ready) {
            self.ready = Some((ready, Timestamp::now()));
        }
        let status = self.status(run);
        (self.written.as_ref() != Some(&status)).then(|| {
            self.written = Some(status.clone());
            status
        })
    }

    fn phase(&self, run: &PodRun) -> &'static str {
        let over = |ended: &Ended| match run.restart_policy() {
            "Never" => true,
            "OnFailure" => ended.code == 0,
            _ => false,
        };
        let ends: Vec<Option<&Ended>> = self.states.iter().map(|state| state.ended.as_ref()).collect();
        if ends.iter().all(|end| end.is_some_and(over)) {
            let failed = ends.iter().flatten().any(|ended| ended.code != 0);
            return if failed { "Failed" } else { "Succeeded" };
        }
        let begun = |state: &State| state.since.is_some() || state.ended.is_some() || state.restarts > 0;
        if self.states.iter().all(begun) { "Running" } else { "Pending" }
    }

    fn status(&self, run: &PodRun) -> Value {
        let (ready, since) = self.ready.unwrap_or((false, self.started));
        let phase = self.phase(run);
        let condition = |kind: &str, status: bool, at: Timestamp| {
            let mut condition = json!({
                "type": kind, "status": if status { "True" } else { "False" }, "lastTransitionTime": seconds(at),
            });
            if !status {
                let reason = if phase == "Succeeded" { "PodCompleted" } else { "ContainersNotReady" };
                condition["reason"] = json!(reason);
            }
            condition
        };
        let containers: Vec<Value> = run.containers().iter().zip(&self.states).map(|(container, state)| state.json(container)).collect();
        json!({
            "phase": phase,
            "hostIP": NODE_IP, "hostIPs": [{"ip": NODE_IP}],
            "podIP": run.ip, "podIPs": [{"ip": run.ip}],
            "startTime": seconds(self.started),
            "conditions": [
                condition("Initialized", true, self.started),
                condition("PodReadyToStartContainers", true, self.started),
                condition("ContainersReady", ready, since),
                condition("Ready", ready, since),
            ],
            "containerStatuses": containers,
        })
    }
}

/// A time as Kubernetes writes it, in whole seconds.
pub fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}
