//! What the API server does to built-in kinds beyond their types: defaults, first status, and a few rules.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::fail::Cause;
use super::selector::{string_map, structured_matches};

fn set(object: &mut Map<String, Value>, name: &str, default: Value) {
    object.entry(name.to_owned()).or_insert(default);
}

/// Fills in what the API server fills in.
pub fn default(kind: &str, object: &mut Value) {
    match kind {
        "Pod" => default_pod(&mut object["spec"], true),
        "ReplicaSet" => {
            if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
                set(spec, "replicas", json!(1));
            }
            if let Some(template) = object.pointer_mut("/spec/template/spec") {
                default_pod(template, false);
            }
        }
        "Service" => default_service(&mut object["spec"]),
        "Secret" => default_secret(object),
        "Namespace" => {
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = object["metadata"]["name"].clone();
            object["spec"] = json!({"finalizers": ["kubernetes"]});
        }
        "EndpointSlice" => {
            for port in object.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(port) = port.as_object_mut() {
                    set(port, "name", json!(""));
                    set(port, "protocol", json!("TCP"));
                }
            }
        }
        _ => {}
    }
}

/// Text given as `stringData` is stored encoded, in `data`.
fn default_secret(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    set(map, "type", json!("Opaque"));
    if let Some(Value::Object(texts)) = map.remove("stringData") {
        set(map, "data", json!({}));
        for (key, text) in texts {
            map["data"][key] = json!(STANDARD.encode(text.as_str().unwrap_or_default()));
        }
    }
}

/// Defaults of a pod, or of a pod template (`live` false), which lists no service account.
fn default_pod(spec: &mut Value, live: bool) {
    let Some(spec) = spec.as_object_mut() else { return };
    set(spec, "restartPolicy", json!("Always"));
    set(spec, "terminationGracePeriodSeconds", json!(30));
    set(spec, "dnsPolicy", json!("ClusterFirst"));
    set(spec, "securityContext", json!({}));
    set(spec, "schedulerName", json!("default-scheduler"));
    if live {
        set(spec, "enableServiceLinks", json!(true));
        set(spec, "serviceAccountName", json!("default"));
    }
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            default_container(container);
        }
    }
}

fn default_container(container: &mut Value) {
    let Some(container) = container.as_object_mut() else { return };
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let tag = image.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    let policy = if tag.is_none_or(|t| t == "latest") { "Always" } else { "IfNotPresent" };
    set(container, "imagePullPolicy", json!(policy));
    set(container, "terminationMessagePath", json!("/dev/termination-log"));
    set(container, "terminationMessagePolicy", json!("File"));
    set(container, "resources", json!({}));
    for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            set(port, "protocol", json!("TCP"));
        }
    }
    for variable in container.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(reference) = variable.pointer_mut("/valueFrom/fieldRef").and_then(Value::as_object_mut) {
            set(reference, "apiVersion", json!("v1"));
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) {
            for (name, value) in [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)] {
                set(probe, name, json!(value));
            }
            if let Some(get) = probe.get_mut("httpGet").and_then(Value::as_object_mut) {
                set(get, "scheme", json!("HTTP"));
                set(get, "path", json!("/"));
            }
        }
    }
}

fn default_service(spec: &mut Value) {
    let Some(spec) = spec.as_object_mut() else { return };
    set(spec, "type", json!("ClusterIP"));
    set(spec, "sessionAffinity", json!("None"));
    set(spec, "internalTrafficPolicy", json!("Cluster"));
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            set(port, "protocol", json!("TCP"));
            let number = port.get("port").cloned().unwrap_or_default();
            set(port, "targetPort", number);
        }
    }
}

/// The status a new object starts with, whatever was sent.
pub fn first_status(kind: &str) -> Option<Value> {
    match kind {
        "Pod" => Some(json!({"phase": "Pending", "qosClass": "BestEffort"})),
        "ReplicaSet" => Some(json!({"replicas": 0})),
        "Namespace" => Some(json!({"phase": "Active"})),
        "Service" => Some(json!({"loadBalancer": {}})),
        _ => None,
    }
}

/// What is wrong with an object of a built-in kind.
pub fn validate(kind: &str, old: Option<&Value>, new: &Value) -> Vec<Cause> {
    match kind {
        "ReplicaSet" => validate_replica_set(old, new),
        "Pod" => validate_pod(old, new),
        "Service" if new.pointer("/spec/ports/0").is_none() && new.pointer("/spec/clusterIP") != Some(&json!("None")) => {
            vec![Cause::required("spec.ports")]
        }
        _ => Vec::new(),
    }
}

fn validate_replica_set(old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let selector = new.pointer("/spec/selector");
    let empty = selector.and_then(Value::as_object).is_none_or(Map::is_empty);
    let labels = string_map(new.pointer("/spec/template/metadata/labels"));
    if empty {
        causes.push(Cause::invalid("spec.selector", "Invalid value: empty selector is invalid for deployment"));
    } else if !structured_matches(selector, &labels) {
        let message = "Invalid value: `selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", message));
    }
    if old.is_some_and(|old| old.pointer("/spec/selector") != selector) {
        causes.push(Cause::invalid("spec.selector", "Invalid value: field is immutable"));
    }
    if let Some(replicas) = new.pointer("/spec/replicas").and_then(Value::as_i64).filter(|n| *n < 0) {
        causes.push(Cause::invalid("spec.replicas", format!("Invalid value: {replicas}: must be greater than or equal to 0")));
    }
    causes.extend(validate_containers(new.pointer("/spec/template/spec/containers"), "spec.template.spec.containers"));
    causes
}

fn validate_pod(old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = validate_containers(new.pointer("/spec/containers"), "spec.containers");
    let fixed = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for name in ["activeDeadlineSeconds", "tolerations", "nodeName", "terminationGracePeriodSeconds"] {
            spec.as_object_mut().map(|s| s.remove(name));
        }
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                container.as_object_mut().map(|c| c.remove("image"));
            }
        }
        spec
    };
    if old.is_some_and(|old| fixed(old) != fixed(new)) {
        causes.push(Cause::forbidden("spec", "pod updates may not change fields other than images, tolerations and deadlines"));
    }
    causes
}

fn validate_containers(list: Option<&Value>, at: &str) -> Vec<Cause> {
    let containers = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if containers.is_empty() {
        return vec![Cause::required(at)];
    }
    let mut causes = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        for field in ["name", "image"] {
            if container.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
                causes.push(Cause::required(format!("{at}[{i}].{field}")));
            }
        }
    }
    causes
}
