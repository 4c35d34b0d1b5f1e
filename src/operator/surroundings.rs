//! What the preflight looks at beside the spec, from the caches.

use kube::ResourceExt;

use super::gather::{own, route_namespace, writable_route};
use super::stores::Stores;
use super::workload::replica_set_name;
use crate::api::VoiceRollout;
use crate::api::rollout::{IstioTraffic, VirtualServiceRef};
use crate::core::observe::{PodSeen, ReplicaSetSeen, unread};
use crate::core::preflight::{AutoscalerSeen, Keeper, KeptObject, Surroundings, VirtualServiceSeen};
use crate::core::revision::revision_hash;

/// Of a rollout in `namespace`, with what is known of its ReplicaSets and pods.
pub fn of(stores: &Stores, rollout: &VoiceRollout, namespace: &str, sets: &[ReplicaSetSeen], pods: &[PodSeen]) -> Surroundings {
    let istio = rollout.spec.traffic.istio.as_ref();
    let seen = |istio: &IstioTraffic, reference: &VirtualServiceRef| {
        let (object, split) = writable_route(stores, namespace, route_namespace(namespace, reference), istio, reference).ok()?;
        Some(VirtualServiceSeen::of(&object, &reference.routes, &split, &own(rollout)))
    };
    Surroundings {
        virtual_services: istio.iter().flat_map(|i| i.virtual_services.iter().filter_map(|v| seen(i, v))).collect(),
        selectors: istio.map(|i| selectors(stores, namespace, i)).unwrap_or_default(),
        sidecars: stores.sidecars_of(namespace, &rollout.name_any()),
        autoscalers: autoscalers(stores, rollout, namespace, sets),
        rollout: rollout.name_any(),
        unread: unread(pods),
    }
}

/// What scales a ReplicaSet of the rollout, also of the revision that the template describes, before it is made.
fn autoscalers(stores: &Stores, rollout: &VoiceRollout, namespace: &str, sets: &[ReplicaSetSeen]) -> Vec<AutoscalerSeen> {
    let next = replica_set_name(&rollout.name_any(), &revision_hash(&rollout.spec.template));
    let mut names: Vec<&String> = sets.iter().map(|s| &s.name).chain([&next]).collect();
    names.sort();
    names.dedup();
    let all = names.into_iter().flat_map(|set| stores.autoscalers_of(namespace, set));
    all.filter_map(|scaler| scaler.seen.clone()).collect()
}

/// Objects whose selectors are written, as far as a GitOps tool keeps them.
fn selectors(stores: &Stores, namespace: &str, istio: &IstioTraffic) -> Vec<KeptObject> {
    let kept = |kind, name: &str, keeper| KeptObject { kind, namespace: namespace.into(), name: name.into(), routes: Vec::new(), keeper };
    if let Some(rule) = &istio.destination_rule {
        let object = stores.destination_rules.get(namespace, &rule.name).map(|o| o.object());
        let keeper = object.and_then(|o| Keeper::of("DestinationRule", &o.metadata));
        return keeper.map(|k| kept("DestinationRule", &rule.name, k)).into_iter().collect();
    }
    let keeper = |name: &String| Some(kept("Service", name, *stores.services.get(namespace, name)?.keeper.clone()?));
    istio.stable_service.iter().chain(&istio.canary_service).filter_map(keeper).collect()
}
