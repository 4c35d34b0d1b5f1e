//! Each finding of the preflight has a manifest that gives it alone, and a section in the README.

use std::path::Path;

use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::Value;
use voicerollout::api::VoiceRollout;
use voicerollout::core::plan::Plan;
use voicerollout::core::preflight::{Finding, codes};
use voicerollout::operator::gather::gather;
use voicerollout::operator::kept::{AutoscalerKept, IstioKept, ServiceKept};
use voicerollout::operator::live::LiveCalls;
use voicerollout::operator::stores::Stores;

fn parsed<T: DeserializeOwned>(document: &Value) -> T {
    serde_json::from_value(document.clone()).unwrap_or_else(|e| panic!("{e}: {document}"))
}

/// What the operator finds when the documents are all there is.
fn found(documents: &[Value]) -> Vec<Finding> {
    let mut stores = Stores::default();
    let mut rollout: Option<VoiceRollout> = None;
    for document in documents {
        let mut document = document.clone();
        document["metadata"]["namespace"] = "voice".into();
        match document["kind"].as_str().unwrap() {
            "VirtualService" => {
                stores.virtual_services.part().apply(&Event::Apply(parsed(&document)), IstioKept::virtual_service);
            }
            "DestinationRule" => {
                stores.destination_rules.part().apply(&Event::Apply(parsed(&document)), IstioKept::destination_rule);
            }
            "Service" => {
                stores.services.part().apply(&Event::Apply(parsed(&document)), ServiceKept::keep);
            }
            "HorizontalPodAutoscaler" => {
                stores.autoscalers.part().apply(&Event::Apply(parsed(&document)), AutoscalerKept::keep);
            }
            "VoiceRollout" => rollout = Some(parsed(&document)),
            _ => {}
        }
    }
    let rollout = rollout.expect("a VoiceRollout");
    let seen = gather(&stores, &LiveCalls::default(), &rollout, "2026-01-01T00:00:00Z".parse().unwrap(), true);
    let problems: Vec<_> = seen.routes.iter().filter_map(|r| r.weights.as_ref().err()).collect();
    assert_eq!(problems, Vec::<&String>::new());
    Plan::parse("voice-agent", &rollout.spec, &seen).findings
}

fn documents_of(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_yaml::Deserializer::from_str(&text).map(|d| serde::Deserialize::deserialize(d).unwrap()).collect()
}

/// `RouteTimeout` as the name of a file: `route-timeout`.
fn file_name(code: &str) -> String {
    let dashed = code.chars().flat_map(|c| c.is_uppercase().then_some('-').into_iter().chain(c.to_lowercase()));
    dashed.collect::<String>().trim_start_matches('-').to_owned()
}

#[test]
fn each_manifest_gives_its_finding_alone_and_the_clean_one_gives_none() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/preflight");
    for code in codes::ALL {
        let file = format!("{}.yaml", file_name(code));
        let all = found(&documents_of(&folder.join(&file)));
        assert_eq!(all.iter().map(|f| f.code).collect::<Vec<_>>(), [code], "{file}: {all:?}");
        for text in [&all[0].sentence, &all[0].fix] {
            assert!(text.ends_with('.') && !text.contains('\n') && !text.contains("  "), "{file}: {text}");
        }
    }
    assert_eq!(found(&documents_of(&folder.join("clean.yaml"))), []);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), codes::ALL.len() + 1, "a manifest that no code asks for");
}

/// Whoever starts from an example does not start with something that cuts calls.
#[test]
fn the_other_examples_have_no_finding() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut checked = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "yaml") {
            let documents = documents_of(&path);
            if documents.iter().any(|d| d["kind"] == "VoiceRollout") {
                assert_eq!(found(&documents), [], "{}", path.display());
                checked += 1;
            }
        }
    }
    assert!(checked >= 5, "{checked}");
}

#[test]
fn each_code_has_a_section_in_the_readme() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Preflight\n").expect("a section");
    let section = section.split("\n## ").next().unwrap();
    let headings: Vec<&str> = section.lines().filter_map(|l| l.strip_prefix("#### ")).collect();
    assert_eq!(headings, codes::ALL);
    for part in section.split("\n#### ").skip(1) {
        assert!(part.contains("```yaml\n"), "no manifest for {}", part.lines().next().unwrap());
    }
}
