//! The EndpointSlice controller: one slice a Service.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::selector::{labels_of, string_map};
use super::super::state::{Part, State, Write};
use super::super::store::{Change, Key};
use super::timers::Task;
use super::{Cluster, kubelet};

impl Cluster {
    pub(super) fn slices_see_pod(&mut self, change: &Change) {
        let services: Vec<(Key, Arc<Value>)> = self.server.with_state(|state| {
            let list = state.store.list(self.kinds.services, Some(&change.key.namespace));
            list.map(|(k, s)| (k.clone(), Arc::clone(s))).collect()
        });
        for (key, service) in services {
            if [&change.old, &change.new].into_iter().flatten().any(|pod| selects(&service, pod)) {
                self.later(Task::Slice(key));
            }
        }
    }

    pub(super) fn sync_slice(&mut self, key: &Key) {
        let Some(service) = self.object(key) else { return };
        if service.pointer("/spec/selector").is_none() {
            return; // its owner keeps its endpoints
        }
        let pods: Vec<Arc<Value>> = self.server.with_state(|state| {
            let list = state.store.list(self.kinds.pods, Some(&key.namespace));
            list.map(|(_, pod)| pod).filter(|pod| selects(&service, pod)).cloned().collect()
        });
        let endpoints: Vec<Value> = pods.iter().filter_map(|pod| endpoint(pod)).collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-slice", key.name),
                "labels": {
                    "kubernetes.io/service-name": key.name,
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"
                },
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Service", "name": key.name, "uid": service["metadata"]["uid"],
                    "controller": true, "blockOwnerDeletion": true
                }]
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": ports(&service, pods.first().map(|pod| &**pod))
        });
        self.attempt(key, |state, key| store_slice(state, key, slice));
    }
}

fn store_slice(state: &mut State, service: &Key, slice: Value) -> super::super::fail::Answer<()> {
    let Some(slices) = state.resource("discovery.k8s.io", "endpointslices") else { return Ok(()) };
    let name = format!("{}-slice", service.name);
    let write = Write::by("endpointslice-controller", Part::Main);
    match state.get(&slices, &service.namespace, &name) {
        Err(_) => state.create(&slices, &service.namespace, slice, &write).map(drop),
        Ok(_) => state.replace(&slices, &service.namespace, &name, slice, &write).map(drop),
    }
}

fn selects(service: &Value, pod: &Value) -> bool {
    let selector = string_map(service.pointer("/spec/selector"));
    let labels = labels_of(pod);
    !selector.is_empty() && selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

fn endpoint(pod: &Value) -> Option<Value> {
    let ip = pod.pointer("/status/podIP")?.as_str()?;
    let ready = kubelet::ready_since(pod).is_some();
    let terminating = pod.pointer("/metadata/deletionTimestamp").is_some();
    let metadata = &pod["metadata"];
    Some(json!({
        "addresses": [ip],
        "conditions": {"ready": ready && !terminating, "serving": ready, "terminating": terminating},
        "nodeName": pod["spec"]["nodeName"],
        "targetRef": {
            "kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]
        }
    }))
}

/// The Service's ports as the pods have them.
fn ports(service: &Value, pod: Option<&Value>) -> Vec<Value> {
    let list = service.pointer("/spec/ports").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .map(|port| {
            let target = match &port["targetPort"] {
                Value::String(name) => pod.and_then(|pod| named_port(pod, name)).unwrap_or_else(|| port["port"].clone()),
                Value::Null => port["port"].clone(),
                number => number.clone(),
            };
            json!({"name": port["name"].as_str().unwrap_or_default(), "protocol": port["protocol"], "port": target})
        })
        .collect()
}

fn named_port(pod: &Value, name: &str) -> Option<Value> {
    let containers = pod.pointer("/spec/containers")?.as_array()?;
    let mut ports = containers.iter().filter_map(|c| c["ports"].as_array()).flatten();
    ports.find(|p| p["name"] == name).map(|p| p["containerPort"].clone())
}
