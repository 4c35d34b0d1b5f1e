//! What the cache keeps of HorizontalPodAutoscalers: those that scale a ReplicaSet.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::ResourceExt;

use super::SET;
use crate::core::preflight::AutoscalerSeen;
use crate::operator::cache::{Kept, group};

/// A HorizontalPodAutoscaler; `None` where its target is no ReplicaSet.
pub struct AutoscalerKept {
    /// The rollout that the target, or one of whose revisions it, may be, by its name: it is looked at, also when the
    /// target was another one before.
    pub rollout: Option<String>,
    /// What the preflight tells of it.
    pub seen: Option<AutoscalerSeen>,
}

impl AutoscalerKept {
    /// Of a HorizontalPodAutoscaler.
    pub fn keep(scaler: &HorizontalPodAutoscaler) -> Self {
        let target = &scaler.spec.scale_target_ref;
        let is_set = |api: &str| api.split('/').next() == Some("apps");
        let scales_set = target.kind == "ReplicaSet" && target.api_version.as_deref().is_none_or(is_set);
        let rollout = if scales_set { target.name.rsplit_once('-').map(|(rollout, _)| rollout) } else { Some(&*target.name) };
        let set = scales_set.then(|| target.name.clone());
        let maker = scaler.owner_references().iter().find(|o| o.controller == Some(true)).map(|o| (o.kind.clone(), o.name.clone()));
        Self { rollout: rollout.map(ToOwned::to_owned), seen: set.map(|set| AutoscalerSeen { name: scaler.name_any(), maker, set }) }
    }
}

impl Kept for AutoscalerKept {
    fn groups(&self, namespace: &str) -> Vec<String> {
        self.seen.iter().map(|s| group(SET, namespace, &s.set)).collect()
    }

    fn counts(&self) -> bool {
        self.seen.is_some()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn kept(target: Value, owners: Value) -> AutoscalerKept {
        let object = json!({"metadata": {"name": "h", "ownerReferences": owners}, "spec": {"maxReplicas": 9, "scaleTargetRef": target}});
        AutoscalerKept::keep(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn only_those_that_scale_a_replica_set_are_kept_with_who_made_them() {
        let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "voice-agent-5d8c7b9f6a"});
        let plain = kept(set.clone(), json!([]));
        assert_eq!((plain.counts(), plain.rollout.as_deref()), (true, Some("voice-agent")));
        assert_eq!(plain.groups("voice"), [group(SET, "voice", "voice-agent-5d8c7b9f6a")]);
        let keda = json!([{"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "calls", "uid": "u", "controller": true}]);
        assert_eq!(kept(set, keda).seen.unwrap().maker, Some(("ScaledObject".to_owned(), "calls".to_owned())));
        let others = [
            json!({"apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout", "name": "voice-agent"}),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "voice-agent-5d8c7b9f6a"}),
            json!({"apiVersion": "example.com/v1", "kind": "ReplicaSet", "name": "voice-agent-5d8c7b9f6a"}),
        ];
        assert!(others.into_iter().all(|target| !kept(target, json!([])).counts()));
    }
}
