//! Writes that protect pods with calls: marks on pods, and a PodDisruptionBudget of a revision that drains.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{DeleteParams, Patch, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Map, Value, json};

use super::act::{ActError, Hands, gone_is_fine, params};
use super::write::write;
use crate::api::common::{
    COST_ANNOTATION, FIELD_MANAGER, KEEP_ANNOTATIONS, MARK_ANNOTATION, OUT_ANNOTATION, REVISION_LABEL, ROLLOUT_LABEL, SERVING_LABEL,
};
use crate::core::drain::{cost, mark_word};
use crate::core::observe::Mark;

/// Marks a pod, or takes the mark off: what the template says of the same annotations holds again. Takes it out of
/// traffic with `out`, and puts it back without.
///
/// # Errors
/// See [`ActError`]; a pod that is gone is fine.
pub async fn mark_pod(hands: &Hands<'_>, name: &str, mark: Option<Mark>, out: bool) -> Result<(), ActError> {
    let namespace = hands.namespace();
    let template = hands.rollout.spec.template.metadata.as_ref().and_then(|m| m.annotations.clone()).unwrap_or_default();
    let mut annotations = annotations(mark, &template);
    let since = hands.stores.pods.get(&namespace, name).filter(|p| out && !p.serving).and_then(|p| p.out_since);
    annotations.insert(OUT_ANNOTATION.into(), json!(out.then(|| since.unwrap_or_else(|| hands.clock.now()))));
    let serving = if out { "false" } else { "true" };
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations, "labels": {SERVING_LABEL: serving}}}));
    let what = format!("mark Pod {namespace}/{name}");
    let api: Api<Pod> = Api::namespaced(hands.client.clone(), &namespace);
    gone_is_fine(write(hands.leadership, what, api.patch_metadata(name, &params(), &patch)).await)
}

fn annotations(mark: Option<Mark>, template: &BTreeMap<String, String>) -> Map<String, Value> {
    let own = |key: &str| template.get(key).map_or(Value::Null, |v| json!(v));
    let mut all = Map::new();
    let (word, price) = match mark {
        Some(mark) => (json!(mark_word(mark)), json!(cost(mark).to_string())),
        None => (Value::Null, own(COST_ANNOTATION)),
    };
    all.insert(MARK_ANNOTATION.into(), word);
    all.insert(COST_ANNOTATION.into(), price);
    for (key, value) in KEEP_ANNOTATIONS {
        all.insert(key.into(), if matches!(mark, Some(Mark::Busy | Mark::Quiet)) { json!(value) } else { own(key) });
    }
    all
}

/// Keeps the pods of a revision from being evicted.
///
/// # Errors
/// See [`ActError`]; one that is there already is fine.
pub async fn create_budget(hands: &Hands<'_>, name: &str, hash: &str) -> Result<(), ActError> {
    let namespace = hands.namespace();
    let labels = BTreeMap::from([(ROLLOUT_LABEL.to_string(), hands.rollout.name_any()), (REVISION_LABEL.to_string(), hash.to_string())]);
    let budget = PodDisruptionBudget {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some(namespace.clone()),
            labels: Some(labels.clone()),
            owner_references: hands.rollout.controller_owner_ref(&()).map(|o| vec![o]),
            ..ObjectMeta::default()
        },
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(0)),
            selector: Some(LabelSelector { match_labels: Some(labels), match_expressions: None }),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    };
    let api: Api<PodDisruptionBudget> = Api::namespaced(hands.client.clone(), &namespace);
    let what = format!("create PodDisruptionBudget {namespace}/{name}");
    let by = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    match write(hands.leadership, what, api.create(&by, &budget)).await {
        Err(error) if error.is_conflict() => Ok(()),
        other => other.map(|_| ()).map_err(ActError::from),
    }
}

/// Lets them be evicted again.
///
/// # Errors
/// See [`ActError`]; one that is gone is fine.
pub async fn delete_budget(hands: &Hands<'_>, name: &str) -> Result<(), ActError> {
    let namespace = hands.namespace();
    let api: Api<PodDisruptionBudget> = Api::namespaced(hands.client.clone(), &namespace);
    let what = format!("delete PodDisruptionBudget {namespace}/{name}");
    gone_is_fine(write(hands.leadership, what, api.delete(name, &DeleteParams::default())).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_goes_without_a_trace_of_it() {
        let template =
            BTreeMap::from([(COST_ANNOTATION.to_string(), "5".to_string()), (KEEP_ANNOTATIONS[0].0.to_string(), "true".to_string())]);
        let busy = annotations(Some(Mark::Busy), &template);
        assert_eq!(
            (&busy[COST_ANNOTATION], &busy[KEEP_ANNOTATIONS[0].0], &busy[KEEP_ANNOTATIONS[1].0]),
            (&json!("1000"), &json!("false"), &json!("true"))
        );
        let none = annotations(None, &template);
        assert_eq!((&none[MARK_ANNOTATION], &none[COST_ANNOTATION]), (&Value::Null, &json!("5")));
        assert_eq!(
            (&none[KEEP_ANNOTATIONS[0].0], &none[KEEP_ANNOTATIONS[1].0]),
            (&json!("true"), &Value::Null),
            "what the template says holds again"
        );
        let idle = annotations(Some(Mark::Idle), &BTreeMap::new());
        assert_eq!((&idle[COST_ANNOTATION], &idle[KEEP_ANNOTATIONS[0].0]), (&json!("0"), &Value::Null));
    }
}
