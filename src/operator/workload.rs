//! The ReplicaSet of a revision.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::{Resource, ResourceExt};

use crate::api::VoiceRollout;
use crate::api::common::{MAX_TEMPLATE, REVISION_LABEL, REVISION_NUMBER_ANNOTATION, ROLLOUT_LABEL, SERVING_LABEL, TEMPLATE_ANNOTATION};

/// Name of a revision's ReplicaSet.
pub fn replica_set_name(rollout: &str, hash: &str) -> String {
    format!("{rollout}-{hash}")
}

/// The ReplicaSet of the revision that `spec.template` describes.
pub fn build(rollout: &VoiceRollout, hash: &str, number: i64, replicas: i32) -> ReplicaSet {
    let name = rollout.name_any();
    let own = BTreeMap::from([(REVISION_LABEL.to_string(), hash.to_string()), (ROLLOUT_LABEL.to_string(), name.clone())]);
    let mut template = rollout.spec.template.clone();
    // The API server fills the template below with defaults: the revision that it hashes to would be another one.
    let written = serde_json::to_string(&template).ok().filter(|text| text.len() <= MAX_TEMPLATE);
    let mut annotations = BTreeMap::from([(REVISION_NUMBER_ANNOTATION.to_string(), number.to_string())]);
    annotations.extend(written.map(|text| (TEMPLATE_ANNOTATION.to_string(), text)));
    let meta = template.metadata.get_or_insert_default();
    let labels = meta.labels.get_or_insert_default();
    labels.extend(own);
    let mut selector = rollout.spec.selector.match_labels.clone().unwrap_or_default();
    selector.insert(REVISION_LABEL.into(), hash.into());
    // Not in the selector: a pod that is taken out of traffic stays the ReplicaSet's.
    let set_labels = labels.clone();
    labels.insert(SERVING_LABEL.into(), "true".into());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(replica_set_name(&name, hash)),
            namespace: rollout.namespace(),
            labels: Some(set_labels),
            annotations: Some(annotations),
            owner_references: rollout.controller_owner_ref(&()).map(|o| vec![o]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: Some(rollout.spec.min_ready_seconds),
            selector: LabelSelector { match_labels: Some(selector), match_expressions: None },
            template: Some(template),
        },
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodTemplateSpec;
    use serde_json::json;

    use super::*;
    use crate::core::revision::revision_hash;

    fn rollout(image: &str) -> VoiceRollout {
        serde_json::from_value(json!({
            "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRollout", "metadata": {"name": "a", "namespace": "n", "uid": "u"},
            "spec": {"selector": {"matchLabels": {"app": "a"}}, "traffic": {},
                "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
        }))
        .unwrap()
    }

    #[test]
    fn a_replica_set_keeps_the_template_that_its_revision_hashes_to() {
        let rollout = rollout("x:1");
        let hash = revision_hash(&rollout.spec.template);
        let set = build(&rollout, &hash, 1, 1);
        let kept: PodTemplateSpec = serde_json::from_str(&set.annotations()[TEMPLATE_ANNOTATION]).unwrap();
        assert_eq!((revision_hash(&kept), &kept), (hash, &rollout.spec.template));
        let pods = set.spec.template.unwrap().metadata.unwrap();
        assert!(pods.annotations.is_none() && pods.labels.unwrap().len() == 4, "pods do not carry it");
    }

    #[test]
    fn one_that_is_too_long_for_an_annotation_is_left_out() {
        let rollout = rollout(&"x".repeat(MAX_TEMPLATE));
        assert!(!build(&rollout, "h", 1, 1).annotations().contains_key(TEMPLATE_ANNOTATION));
    }
}
