//! A node without programs: every pod is Running and Ready as soon as it is seen, under an address of its own.

use std::sync::atomic::{AtomicU32, Ordering};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

/// Pods that are answered for at the same time.
const CONCURRENCY: usize = 8;

/// Plays kubelet until it is dropped.
pub async fn run(client: Client) {
    let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff().applied_objects();
    let new = pods.filter(|pod| {
        let waits = pod.as_ref().is_ok_and(|p| p.status.as_ref().is_none_or(|s| s.pod_ip.is_none()));
        std::future::ready(waits)
    });
    new.try_for_each_concurrent(CONCURRENCY, |pod| {
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        async move {
            // It fails for a pod that is gone already.
            let _ = api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(ready(&pod))).await;
            Ok(())
        }
    })
    .await
    .unwrap_or_else(|error| eprintln!("node: {error}"));
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
