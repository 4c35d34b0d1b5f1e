use std::path::{Path, PathBuf};

use super::*;

fn planned(file: &str, calls_per_minute: Option<f64>, width: Option<usize>) -> Result<String, CliError> {
    let mut out = Vec::new();
    let args = PlanArgs { files: vec![PathBuf::from(file)], calls_per_minute, bad_rate: 0.05, regression: 1.5 };
    plan(&args, Paint { colour: false, width }, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn every_example_with_a_release_has_a_plan() {
    let mut seen = 0;
    for folder in ["examples", "examples/recipes", "examples/preflight"] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "yaml") {
                continue;
            }
            let file = path.display().to_string();
            match planned(&file, Some(30.0), None) {
                Ok(text) => {
                    assert!(text.contains("STEPS") && text.contains("promotion:"), "{file}: {text}");
                    seen += 1;
                }
                Err(error) => assert_eq!(error.to_string(), "there is no VoiceRollout in these files", "{file}"),
            }
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn steps_pods_and_the_judges_money() {
    insta::assert_snapshot!("wide", planned("examples/voice-agent.yaml", None, Some(140)).unwrap());
    insta::assert_snapshot!("narrow", planned("examples/voice-agent.yaml", None, Some(60)).unwrap());
}

#[test]
fn gates_that_count_calls_say_how_many_and_how_long() {
    insta::assert_snapshot!("calls", planned("examples/comparison.yaml", Some(60.0), Some(140)).unwrap());
}

#[test]
fn more_traffic_takes_less_time_and_none_is_said_to_be_unknown() {
    let first = |calls| planned("examples/comparison.yaml", calls, None).unwrap().lines().next().unwrap().to_owned();
    assert!(first(None).contains("as long as its gates count calls"), "{}", first(None));
    let total = |calls: f64| {
        let releases = lint::releases(&["examples/comparison.yaml".into()], Paint::default(), &mut Vec::new()).unwrap();
        let traffic = Traffic { calls_per_minute: Some(calls), bad_rate: 0.05, regression: 1.5 };
        Timeline::of(&releases[0], &needs::gates(&releases[0], traffic).unwrap()).total
    };
    assert!(total(10.0) > total(100.0) && total(100.0) > total(1e6), "{:?}", [10.0, 100.0, 1e6].map(total));
}

#[test]
fn a_broken_manifest_has_findings_in_place_of_a_plan() {
    let mut out = Vec::new();
    let args = PlanArgs { files: vec![Path::new("tests/lint/plan.yaml").into()], calls_per_minute: None, bad_rate: 0.05, regression: 1.5 };
    let error = plan(&args, Paint::default(), &mut out).unwrap_err();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("tests/lint/plan.yaml:") && error.exit() == Exit::Failed, "{text}");
}

#[test]
fn gates_that_are_not_in_the_files_are_not_left_out_silently() {
    let text = std::fs::read_to_string("examples/voice-agent.yaml").unwrap();
    let alone = text.split("\n---").find(|d| d.contains("kind: VoiceRollout\n")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rollout.yaml");
    std::fs::write(&file, alone).unwrap();
    let mut out = Vec::new();
    let args = PlanArgs { files: vec![file], calls_per_minute: None, bad_rate: 0.05, regression: 1.5 };
    let error = plan(&args, Paint::default(), &mut out).unwrap_err();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(error.to_string(), "there are errors in the manifests");
    assert!(text.contains(": error: ") && text.contains("so its gates are not checked: name its file too"), "{text}");
}

#[test]
fn workers_take_the_time_of_the_calls_that_they_reach() {
    let text = std::fs::read_to_string("examples/comparison.yaml").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let of = |text: &str| {
        let file = dir.path().join("rollout.yaml");
        std::fs::write(&file, text).unwrap();
        let releases = lint::releases(&[file], Paint::default(), &mut Vec::new()).unwrap();
        let traffic = Traffic { calls_per_minute: Some(60.0), bad_rate: 0.05, regression: 1.5 };
        needs::gates(&releases[0], traffic).unwrap()
    };
    let routes = of(&text);
    let (before, rest) = text.split_once("  traffic:\n").unwrap();
    let after = rest.lines().skip_while(|l| l.starts_with("   ")).collect::<Vec<_>>().join("\n");
    let workers = of(&format!("{before}  traffic:\n    replicas: {{}}\n{after}"));
    let at = |all: &[Needed]| all.iter().flat_map(|g| g.calls.iter().flatten()).map(|at| (at.weight, at.share)).collect::<Vec<_>>();
    assert!(at(&routes).iter().all(|(weight, share)| weight == share) && !at(&routes).is_empty());
    assert!(at(&workers).iter().any(|(weight, share)| weight != share), "{:?}", at(&workers));
}
