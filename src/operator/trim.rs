//! What the caches do not keep. No decision rests on it, and with many rollouts it would be most of the memory.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use kube::Resource;
use kube::core::{DeserializeGuard, PartialObjectMeta};

use crate::api::VoiceAnalysisRun;
use crate::api::common::{REVISION_LABEL, ROLLOUT_LABEL};
use crate::api::run::Memory;

/// A copy of the whole manifest that kubectl leaves behind.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Any object: who owns which field, and kubectl's copy of the manifest.
pub fn metadata<K: Resource>(object: &mut K) {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

/// An analysis run without what its gates that count calls remember; that they remember something is kept.
pub fn run(run: &mut DeserializeGuard<VoiceAnalysisRun>) {
    metadata(run);
    let gates = run.0.as_mut().ok().and_then(|run| run.status.as_mut()).map(|status| &mut status.gates);
    for memory in gates.into_iter().flatten().filter_map(|gate| gate.memory.as_mut()) {
        *memory = Memory::default();
    }
}

/// A ReplicaSet without its pods' template.
pub fn replica_set(set: &mut ReplicaSet) {
    metadata(set);
    set.spec.template = None;
    if let Some(status) = &mut set.status {
        status.conditions = None;
    }
}

/// A pod's names and the labels of its rollout.
pub fn pod(pod: &mut PartialObjectMeta<Pod>) {
    metadata(pod);
    let meta = pod.meta_mut();
    meta.annotations = None;
    meta.owner_references = None;
    if let Some(labels) = &mut meta.labels {
        labels.retain(|key, _| key == ROLLOUT_LABEL || key == REVISION_LABEL);
    }
}

/// A Service's selector.
pub fn service(service: &mut Service) {
    metadata(service);
    let selector = service.spec.take().and_then(|spec| spec.selector);
    service.spec = Some(ServiceSpec { selector, ..ServiceSpec::default() });
    service.status = None;
}

/// An EndpointSlice's pods, and whether they are ready.
pub fn slice(slice: &mut EndpointSlice) {
    metadata(slice);
    slice.ports = None;
    for endpoint in slice.endpoints.iter_mut().flatten() {
        let conditions = endpoint.conditions.as_ref().map(|c| EndpointConditions { ready: c.ready, ..EndpointConditions::default() });
        let target_ref = endpoint.target_ref.take();
        *endpoint = Endpoint { conditions, target_ref, ..Endpoint::default() };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_decisions_rest_on_is_kept_and_the_rest_is_not() {
        let meta = json!({
            "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": {ROLLOUT_LABEL: "r", REVISION_LABEL: "h", "x": "y"},
            "annotations": {LAST_APPLIED: "{}", "other": "kept"}, "managedFields": [{"manager": "kubectl"}],
        });
        let mut set: ReplicaSet = serde_json::from_value(json!({
            "metadata": meta, "spec": {"replicas": 3, "selector": {}, "template": {"spec": {"containers": [{"name": "c"}]}}},
            "status": {"replicas": 3, "readyReplicas": 2, "conditions": [{"type": "ReplicaFailure", "status": "True"}]},
        }))
        .unwrap();
        replica_set(&mut set);
        let kept = json!({
            "metadata": {
                "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7",
                "labels": {ROLLOUT_LABEL: "r", REVISION_LABEL: "h", "x": "y"}, "annotations": {"other": "kept"},
            },
            "spec": {"replicas": 3, "selector": {}}, "status": {"replicas": 3, "readyReplicas": 2},
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
        });
        assert_eq!(serde_json::to_value(&set).unwrap(), kept);

        let mut pods: PartialObjectMeta<Pod> = serde_json::from_value(json!({"metadata": meta})).unwrap();
        pod(&mut pods);
        assert_eq!(serde_json::to_value(&pods.metadata.labels).unwrap(), json!({ROLLOUT_LABEL: "r", REVISION_LABEL: "h"}));
        assert_eq!((pods.metadata.name.as_deref(), pods.metadata.annotations), (Some("a"), None));

        let spec = json!({"selector": {"app": "a"}, "clusterIP": "10.0.0.7", "ports": [{"port": 80}]});
        let mut one: Service = serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap();
        service(&mut one);
        assert_eq!(serde_json::to_value(&one.spec).unwrap(), json!({"selector": {"app": "a"}}));

        let spec = json!({"rollout": "a", "rolloutUid": "u", "kind": "Background", "revision": "r", "attempt": 1, "gates": []});
        let status = json!({"gates": [{"name": "g", "memory": {"ticks": 3, "pods": [{"pod": "p", "first": 1, "last": 2, "counts": [1]}]}}, {"name": "h"}]});
        let mut one: DeserializeGuard<VoiceAnalysisRun> = serde_json::from_value(json!({"apiVersion": "voicerollout.dev/v1alpha1",
            "kind": "VoiceAnalysisRun", "metadata": meta, "spec": spec, "status": status}))
        .unwrap();
        run(&mut one);
        let gates = one.0.unwrap().status.unwrap().gates;
        assert_eq!((&gates[0].memory, &gates[1].memory), (&Some(Memory::default()), &None));

        let endpoint = json!({"addresses": ["10.0.0.9"], "conditions": {"ready": false, "serving": true}, "nodeName": "m", "targetRef": {"name": "p"}});
        let mut some: EndpointSlice =
            serde_json::from_value(json!({"metadata": meta, "addressType": "IPv4", "endpoints": [endpoint], "ports": [{"port": 80}]}))
                .unwrap();
        slice(&mut some);
        let kept = json!([{"addresses": [], "conditions": {"ready": false}, "targetRef": {"name": "p"}}]);
        assert_eq!((serde_json::to_value(&some.endpoints).unwrap(), some.ports), (kept, None));
    }
}
