//! All CustomResourceDefinitions, with schemas that an API server accepts and `kubectl` can diff.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::{ClusterVoiceAnalysisTemplate, VoiceAnalysisRun, VoiceAnalysisTemplate, VoiceRollout, VoiceRolloutAction, VoiceRolloutOutbox};

/// Every CRD of the project, by plural name.
///
/// The schema of the pod template loses its descriptions (it would be half a megabyte) and gets the list-map keys
/// of the Kubernetes API, so that server-side apply merges containers, ports and variables by name.
pub fn all() -> Vec<(&'static str, CustomResourceDefinition)> {
    [
        ("voicerollouts", VoiceRollout::crd()),
        ("voiceanalysistemplates", VoiceAnalysisTemplate::crd()),
        ("clustervoiceanalysistemplates", ClusterVoiceAnalysisTemplate::crd()),
        ("voiceanalysisruns", VoiceAnalysisRun::crd()),
        ("voicerolloutactions", VoiceRolloutAction::crd()),
        ("voicerolloutoutboxes", VoiceRolloutOutbox::crd()),
    ]
    .into_iter()
    .map(|(name, crd)| (name, tidy(crd)))
    .collect()
}

/// One CRD as YAML.
pub fn to_yaml(crd: &CustomResourceDefinition) -> String {
    serde_yaml::to_string(crd).expect("a CRD is plain data")
}

fn tidy(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(crd).expect("a CRD is plain data");
    if let Some(template) = value.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/template") {
        strip_descriptions(template);
        add_list_maps(template);
        // A pod template may carry fields newer than these types; the API server has to keep them.
        template["properties"]["metadata"] = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    }
    drop_formats(&mut value);
    serde_json::from_value(value).expect("only annotations and descriptions were edited")
}

fn strip_descriptions(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("description").is_some_and(Value::is_string) {
                map.remove("description");
            }
            map.values_mut().for_each(strip_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_descriptions),
        _ => {}
    }
}

/// API servers warn about the unsigned formats that the schema generator writes.
fn drop_formats(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("format").and_then(Value::as_str).is_some_and(|f| f.starts_with("uint")) {
                map.remove("format");
            }
            map.values_mut().for_each(drop_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_formats),
        _ => {}
    }
}

/// Merge keys of lists in a pod template, as in the Kubernetes OpenAPI document.
const LIST_MAPS: &[(&str, &[&str])] = &[
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("env", &["name"]),
    ("ports", &["containerPort", "protocol"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
    ("volumes", &["name"]),
    ("hostAliases", &["ip"]),
    ("imagePullSecrets", &["name"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("resourceClaims", &["name"]),
    ("schedulingGates", &["name"]),
];

fn add_list_maps(value: &mut Value) {
    if let Some(properties) = value.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, keys) in LIST_MAPS {
            if let Some(list) = properties.get_mut(*name) {
                mark_list_map(list, keys);
            }
        }
        properties.values_mut().for_each(add_list_maps);
    }
    if let Some(items) = value.get_mut("items") {
        add_list_maps(items);
    }
}

fn mark_list_map(list: &mut Value, keys: &[&str]) {
    let Some(item) = list.get_mut("items").and_then(Value::as_object_mut) else { return };
    let has_all = item.get("properties").and_then(Value::as_object).is_some_and(|p| keys.iter().all(|k| p.contains_key(*k)));
    if !has_all {
        return;
    }
    require_or_default(item, keys);
    list["x-kubernetes-list-type"] = json!("map");
    list["x-kubernetes-list-map-keys"] = json!(keys);
}

/// A merge key has to be required or have a default; only `protocol` has one in the Kubernetes API.
fn require_or_default(item: &mut Map<String, Value>, keys: &[&str]) {
    let required: Vec<String> = item
        .get("required")
        .and_then(Value::as_array)
        .map(|r| r.iter().filter_map(|v| v.as_str().map(Into::into)).collect())
        .unwrap_or_default();
    for key in keys {
        if required.iter().any(|r| r == key) {
            continue;
        }
        let default = if *key == "protocol" { "TCP" } else { "" };
        item["properties"][*key]["default"] = json!(default);
    }
}
