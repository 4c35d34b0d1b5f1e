//! A node without programs: every pod that is made is bound to it, Running and Ready at once, under an address of its
//! own, and gone as soon as it is deleted.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::stack::Result;
use crate::stack::cluster::wait_namespace;

/// Name of the node.
const NODE: &str = "bench";
/// Namespace of the nodes' Leases.
const LEASES: &str = "kube-node-lease";
/// Time between two signs of life.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Pods that are answered for at the same time.
const CONCURRENCY: usize = 8;

/// Registers the node and plays its kubelet until `tasks` is dropped.
pub async fn start(client: Client, tasks: &mut JoinSet<()>) -> Result<()> {
    wait_namespace(&client, LEASES).await?;
    let nodes: Api<Node> = Api::all(client.clone());
    let params = PatchParams::apply("bench").force();
    nodes.patch(NODE, &params, &Patch::Apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}))).await?;
    let beat = async move |client: &Client| -> Result<()> {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S").to_string();
        let ready = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": format!("{now}Z"), "reason": "Bench", "message": ""});
        let status = Patch::Merge(json!({"status": {"conditions": [ready]}}));
        Api::<Node>::all(client.clone()).patch_status(NODE, &PatchParams::default(), &status).await?;
        let spec = json!({"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": format!("{now}.000000Z")});
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NODE}, "spec": spec});
        let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
        leases.patch(NODE, &PatchParams::apply("bench").force(), &Patch::Apply(lease)).await?;
        Ok(())
    };
    beat(&client).await?;
    tasks.spawn(run(client.clone()));
    tasks.spawn(async move {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            // The next one may succeed; a node that stays silent shows as pods that are not ready.
            let _ = beat(&client).await;
        }
    });
    Ok(())
}

async fn run(client: Client) {
    let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff().applied_objects();
    let pods = pods.try_for_each_concurrent(CONCURRENCY, |pod| {
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        async move {
            // These fail for a pod that is gone already.
            let name = pod.name_any();
            if pod.metadata.deletion_timestamp.is_some() {
                let _ = api.delete(&name, &DeleteParams::default().grace_period(0)).await;
            } else if pod.status.as_ref().is_none_or(|s| s.pod_ip.is_none()) {
                let target = json!({"apiVersion": "v1", "kind": "Node", "name": NODE});
                let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target});
                let _: kube::Result<Value> = api.create_subresource("binding", &name, &PostParams::default(), &binding).await;
                let _ = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(ready(&pod))).await;
            }
            Ok(())
        }
    });
    if let Err(error) = pods.await {
        eprintln!("node: {error}");
    }
}

fn ready(pod: &Pod) -> Value {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let ip = format!("10.244.{}.{}", n / 250 % 250, n % 250 + 1);
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let kinds = ["Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let conditions: Vec<Value> = kinds.iter().map(|t| json!({"type": t, "status": "True", "lastTransitionTime": now})).collect();
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let containers: Vec<Value> = containers
        .map(|c| {
            json!({
                "name": c.name, "image": c.image, "imageID": "none", "ready": true, "restartCount": 0, "started": true,
                "state": {"running": {"startedAt": now}},
            })
        })
        .collect();
    json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": now,
        "conditions": conditions, "containerStatuses": containers,
    }})
}
