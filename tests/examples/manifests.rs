//! Every manifest is what it looks like: of known types, without fields that an API server would drop or refuse.

use std::collections::BTreeMap;
use std::path::Path;

use kube::core::cel::validate_cel;
use kube::{CustomResourceExt, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use voicerollout::api::{ClusterVoiceAnalysisTemplate, VoiceAnalysisTemplate, VoiceRollout, VoiceRolloutAction, common, crds};
use voicerollout::core::notify::{Defaults, Notifiers};

/// The documents of every manifest in `examples/`, `examples/recipes/` and `examples/preflight/`, with the name of the file.
pub fn documents() -> Vec<(String, Value)> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut all = Vec::new();
    for entry in [examples.clone(), examples.join("recipes"), examples.join("preflight")]
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
    {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "yaml") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            for document in serde_yaml::Deserializer::from_str(&text) {
                all.push((name.clone(), serde::Deserialize::deserialize(document).unwrap()));
            }
        }
    }
    all
}

fn schemas() -> BTreeMap<String, Value> {
    let schema = |crd: &Value| crd.pointer("/spec/versions/0/schema/openAPIV3Schema").cloned().unwrap();
    let crds = crds::all().into_iter().map(|(_, crd)| serde_json::to_value(crd).unwrap());
    crds.map(|crd| (crd["spec"]["names"]["kind"].as_str().unwrap().to_owned(), schema(&crd))).collect()
}

/// Paths of fields that the schema does not know.
fn unknown_fields(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) if schema["x-kubernetes-preserve-unknown-fields"] != true => {
            for (name, field) in fields {
                let path = format!("{path}.{name}");
                match schema["properties"]
                    .get(name)
                    .or_else(|| schema["additionalProperties"].as_object().map(|_| &schema["additionalProperties"]))
                {
                    Some(schema) => unknown_fields(schema, field, &path, found),
                    None => found.push(path),
                }
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| unknown_fields(&schema["items"], item, &format!("{path}[{i}]"), found));
        }
        _ => {}
    }
}

fn check<T>(file: &str, document: &Value) -> T
where
    T: DeserializeOwned + Serialize + CustomResourceExt + Resource,
{
    let object: T = serde_json::from_value(document.clone()).unwrap_or_else(|e| panic!("{file}: {e}"));
    validate_cel(&object).unwrap_or_else(|e| panic!("{file}: {e}"));
    object
}

#[test]
fn our_kinds_parse_keep_every_field_and_meet_the_rules() {
    let schemas = schemas();
    let mut seen = BTreeMap::<String, usize>::new();
    for (file, document) in documents() {
        if document["apiVersion"] != format!("{}/{}", common::GROUP, common::VERSION) {
            continue;
        }
        let kind = document["kind"].as_str().unwrap();
        let mut unknown = Vec::new();
        unknown_fields(&schemas[kind]["properties"]["spec"], &document["spec"], "spec", &mut unknown);
        assert_eq!(unknown, Vec::<String>::new(), "{file}: {kind} has fields that do not exist");
        match kind {
            "VoiceRollout" => drop(check::<VoiceRollout>(&file, &document)),
            "VoiceAnalysisTemplate" => drop(check::<VoiceAnalysisTemplate>(&file, &document)),
            "ClusterVoiceAnalysisTemplate" => drop(check::<ClusterVoiceAnalysisTemplate>(&file, &document)),
            "VoiceRolloutAction" => drop(check::<VoiceRolloutAction>(&file, &document)),
            other => panic!("{file}: {other} is not for people to write"),
        }
        *seen.entry(kind.to_owned()).or_default() += 1;
    }
    assert!(seen["VoiceRollout"] >= 5 && seen["VoiceAnalysisTemplate"] >= 9 && seen["VoiceRolloutAction"] >= 1, "{seen:?}");
}

#[test]
fn the_check_finds_a_field_that_does_not_exist() {
    let (_, mut document) = documents().into_iter().find(|(_, d)| d["kind"] == "VoiceRollout").unwrap();
    document["spec"]["template"]["spec"]["containers"][0]["imagePulPolicy"] = "Always".into();
    document["spec"]["stepz"] = Value::Array(vec![]);
    let mut unknown = Vec::new();
    unknown_fields(&schemas()["VoiceRollout"]["properties"]["spec"], &document["spec"], "spec", &mut unknown);
    unknown.sort();
    assert_eq!(unknown, ["spec.stepz", "spec.template.spec.containers[0].imagePulPolicy"]);
}

/// The names that a rollout mentions stand in the same file, so that applying one file is enough.
#[test]
fn what_a_rollout_names_is_in_its_file() {
    let all = documents();
    let named =
        |file: &str, kind: &str, name: &Value| all.iter().any(|(f, d)| f == file && d["kind"] == kind && d["metadata"]["name"] == *name);
    for (file, rollout) in all.iter().filter(|(_, d)| d["kind"] == "VoiceRollout") {
        let istio = &rollout["spec"]["traffic"]["istio"];
        for service in [&istio["stableService"], &istio["canaryService"]].into_iter().filter(|s| s.is_string()) {
            assert!(named(file, "Service", service), "{file}: no Service {service}");
        }
        for reference in istio["virtualServices"].as_array().unwrap() {
            assert!(named(file, "VirtualService", &reference["name"]), "{file}: no VirtualService {}", reference["name"]);
        }
        if istio["destinationRule"].is_object() {
            assert!(named(file, "DestinationRule", &istio["destinationRule"]["name"]), "{file}: no DestinationRule");
        }
        for step in rollout["spec"]["steps"].as_array().into_iter().flatten() {
            for template in step["analysis"]["templates"].as_array().into_iter().flatten() {
                assert!(named(file, "VoiceAnalysisTemplate", &template["name"]), "{file}: no template {}", template["name"]);
            }
        }
    }
}

#[test]
fn secrets_carry_the_label_that_lets_the_operator_read_them() {
    let secrets: Vec<_> = documents().into_iter().filter(|(_, d)| d["kind"] == "Secret").collect();
    assert!(!secrets.is_empty());
    for (file, secret) in secrets {
        let wanted = if file == "notifications.yaml" { common::SECRET_USE_NOTIFICATIONS } else { common::SECRET_USE_VALUE };
        assert_eq!(secret["metadata"]["labels"][common::SECRET_USE_LABEL], wanted, "{file}");
    }
}

/// The notifications of every manifest can be carried out: templates are good for their triggers, addresses are some.
#[test]
fn notifications_have_no_mistakes() {
    let mut seen = 0;
    for (file, document) in documents().into_iter().filter(|(_, d)| d["kind"] == "VoiceRollout") {
        let rollout: VoiceRollout = serde_json::from_value(document).unwrap();
        let parsed = Notifiers::parse(&rollout.spec.notifications, &Defaults::default());
        assert_eq!(parsed.mistakes, Vec::<String>::new(), "{file}");
        seen += parsed.all.len();
    }
    assert!(seen >= 3, "{seen}");
}
