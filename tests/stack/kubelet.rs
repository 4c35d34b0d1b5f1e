//! The stack's one node: binds pods to it, keeps it Ready, and runs each pod's containers as local processes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use parking_lot::RwLock;
use serde_json::json;
use tokio::sync::{broadcast, watch};

use super::cluster::wait_namespace;
use super::pod::{self, PodRun};
use super::{Result, kubelet_http};

/// The name of the node.
pub const NODE: &str = "stack-node";
/// The node's address, apart from all pods'.
pub const NODE_IP: &str = "10.244.255.254";
/// The field manager of what the node writes.
pub const MANAGER: &str = "stack-kubelet";

/// What an image name stands for: a local program, with arguments that come before those of the pod.
#[derive(Debug, Clone)]
pub struct Image {
    /// The program, unless the container says `command`.
    pub program: PathBuf,
    /// Its leading arguments.
    pub args: Vec<String>,
    /// Environment that the image brings; the pod's own wins.
    pub env: Vec<(String, String)>,
}

/// What all pods' runners share.
pub struct Shared {
    /// A client of the user that may do everything.
    pub client: Client,
    /// Image name -> program.
    pub images: RwLock<BTreeMap<String, Image>>,
    /// Where logs and service account files go: `<dir>/<namespace>_<pod>_<uid>/`.
    pub dir: PathBuf,
    /// Makes a kubeconfig for a token file.
    pub kubeconfig: Box<dyn Fn(&str) -> String + Send + Sync>,
    /// The API server's certificates.
    pub ca: PathBuf,
    /// Signals that tests send to the processes of pods.
    pub signals: broadcast::Sender<PodSignal>,
    next_ip: AtomicU32,
}

/// A signal for all processes of one pod.
#[derive(Debug, Clone)]
pub struct PodSignal {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The signal's name: `KILL`, `STOP`, `CONT` ...
    pub signal: String,
}

impl Shared {
    /// A pod address that no pod had before.
    fn next_ip(&self) -> String {
        let n = self.next_ip.fetch_add(1, Ordering::Relaxed);
        let host = n % 250 + 1;
        format!("10.244.{}.{host}", n / 250 % 250 + 1)
    }

    /// The folder of a pod.
    pub fn pod_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.dir.join(format!("{namespace}_{name}_{uid}"))
    }
}

/// The kubelet of the stack's one node. Its tasks run until the process ends.
#[derive(Clone)]
pub struct Kubelet {
    shared: Arc<Shared>,
}

impl Kubelet {
    /// Registers the node, and starts to run the pods.
    pub async fn start(
        client: Client,
        dir: PathBuf,
        ca: PathBuf,
        kubeconfig: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            client: client.clone(),
            images: RwLock::default(),
            dir,
            kubeconfig: Box::new(kubeconfig),
            ca,
            signals: broadcast::channel(64).0,
            next_ip: AtomicU32::new(0),
        });
        let port = kubelet_http::serve(shared.clone()).await?;
        register_node(&client, port).await?;
        renew(&client).await?;
        tokio::spawn(heartbeat(client.clone(), port));
        tokio::spawn(run_pods(shared.clone()));
        Ok(Self { shared })
    }

    /// Sends a signal to the processes of a pod; nobody hears it if it has none.
    pub fn signal(&self, signal: PodSignal) {
        let _ = self.shared.signals.send(signal);
    }

    /// Says which program an image name stands for. Pods that wait for the image start within half a second.
    pub fn image(&self, name: &str, image: Image) {
        self.shared.images.write().insert(name.to_owned(), image);
    }
}

async fn register_node(client: &Client, port: u16) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"}},
    });
    nodes.patch(NODE, &PatchParams::apply(MANAGER).force(), &Patch::Apply(node)).await?;
    node_status(client, port).await
}

async fn node_status(client: &Client, port: u16) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let now = Timestamp::now().to_string();
    let room = json!({"cpu": "64", "memory": "256Gi", "pods": "10000"});
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": reason,
               "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": NODE_IP}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "capacity": room, "allocatable": room,
        "conditions": [
            condition("Ready", "True", "KubeletReady"),
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID"),
        ],
        "nodeInfo": {
            "architecture": "amd64", "operatingSystem": "linux", "osImage": "test stack", "kernelVersion": "-",
            "containerRuntimeVersion": "process://1", "kubeletVersion": "v1.36.2", "kubeProxyVersion": "",
            "bootID": "-", "machineID": "-", "systemUUID": "-",
        },
    }});
    nodes.patch_status(NODE, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// Renews the node's Lease; without it the node is NotReady after 50 s.
async fn renew(client: &Client) -> Result<()> {
    const NAMESPACE: &str = "kube-node-lease";
    wait_namespace(client, NAMESPACE).await?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let lease = Lease {
        metadata: ObjectMeta { name: Some(NODE.into()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(NODE.into()),
            lease_duration_seconds: Some(40),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }),
    };
    leases.patch(NODE, &PatchParams::apply(MANAGER).force(), &Patch::Apply(lease)).await?;
    Ok(())
}

async fn heartbeat(client: Client, port: u16) {
    let mut ticks = tokio::time::interval(Duration::from_secs(10));
    loop {
        ticks.tick().await;
        // While the API server is away both fail; the next tick tries again.
        if renew(&client).await.is_ok() {
            let _ = node_status(&client, port).await;
        }
    }
}

/// What a pod's runner is told: the newest version of the pod, or that it is gone.
pub type Told = Option<Arc<Pod>>;

/// Watches all pods; each one of the node has a task of its own, which hears of every change.
async fn run_pods(shared: Arc<Shared>) {
    let pods: Api<Pod> = Api::all(shared.client.clone());
    let mut runners: HashMap<String, watch::Sender<Told>> = HashMap::new();
    let mut listed: HashSet<String> = HashSet::new();
    let mut events = watcher::watcher(pods, watcher::Config::default()).boxed();
    loop {
        match events.try_next().await {
            Ok(Some(Event::Apply(pod))) => take(&shared, &mut runners, pod),
            Ok(Some(Event::InitApply(pod))) => {
                listed.extend(pod.uid());
                take(&shared, &mut runners, pod);
            }
            Ok(Some(Event::Delete(pod))) => {
                if let Some(runner) = pod.uid().and_then(|uid| runners.remove(&uid)) {
                    runner.send_replace(None);
                }
            }
            Ok(Some(Event::Init)) => listed.clear(),
            Ok(Some(Event::InitDone)) => runners.retain(|uid, runner| {
                let there = listed.contains(uid);
                if !there {
                    runner.send_replace(None);
                }
                there
            }),
            Ok(None) => return,
            // The watcher begins anew with the next poll; the API server may be restarting.
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

fn take(shared: &Arc<Shared>, runners: &mut HashMap<String, watch::Sender<Told>>, pod: Pod) {
    let Some(uid) = pod.uid() else { return };
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    if node.is_none() {
        if pod.metadata.deletion_timestamp.is_none() {
            tokio::spawn(bind(shared.client.clone(), pod));
        }
        return;
    }
    if node.as_deref() != Some(NODE) {
        return;
    }
    let pod = Arc::new(pod);
    if let Some(runner) = runners.get(&uid) {
        runner.send_replace(Some(pod));
        return;
    }
    let (sender, changes) = watch::channel(Some(pod.clone()));
    runners.insert(uid, sender);
    let run = PodRun::new(shared.clone(), &pod, shared.next_ip());
    tokio::spawn(pod::run(run, changes));
}

/// Binds a pod to the node, as the scheduler does.
async fn bind(client: Client, pod: Pod) {
    let (Some(namespace), name) = (pod.namespace(), pod.name_any()) else { return };
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace},
        "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
    });
    loop {
        let bound: kube::Result<serde_json::Value> = api.create_subresource("binding", &name, &PostParams::default(), &binding).await;
        match bound {
            // Refused: the pod is bound or gone already.
            Ok(_) | Err(kube::Error::Api(_)) => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
