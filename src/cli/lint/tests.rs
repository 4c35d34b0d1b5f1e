use std::path::Path;

use super::*;

fn linted(files: &[PathBuf], output: Findings, strict: bool) -> (Exit, String) {
    let mut out = Vec::new();
    let args = LintArgs { files: files.to_vec(), output, strict };
    let exit = lint(&args, Paint::default(), &mut out).unwrap();
    (exit, String::from_utf8(out).unwrap())
}

/// Every manifest of a folder, and of those in it; tests run in the package's own folder.
fn manifests(folder: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(manifests(&path.display().to_string()));
        } else if path.extension().is_some_and(|e| e == "yaml") {
            all.push(path);
        }
    }
    all.sort();
    all
}

#[test]
fn the_examples_are_clean() {
    let files = manifests("examples");
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        let (exit, text) = linted(std::slice::from_ref(&file), Findings::Text, false);
        assert_eq!(exit, Exit::Done, "{text}");
        // Those of the preflight show what it warns of; of one, the ReplicaSet is in the cluster only.
        let seen_in_files = !file.ends_with("clean.yaml") && !file.ends_with("autoscaled-replica-set.yaml");
        let warns = file.starts_with("examples/preflight") && seen_in_files;
        assert_eq!(text.contains(", 0 warnings"), !warns, "{text}");
    }
}

#[test]
fn broken_files_are_told_by_file_and_line() {
    let files = manifests("tests/lint");
    assert!(files.len() > 6, "{files:?}");
    for file in files {
        let (exit, text) = linted(std::slice::from_ref(&file), Findings::Text, false);
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        assert_eq!(exit, if name == "odd" { Exit::Done } else { Exit::Failed }, "{text}");
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn warnings_are_errors_if_that_is_asked_for() {
    let odd = [PathBuf::from("tests/lint/odd.yaml")];
    assert_eq!((linted(&odd, Findings::Text, false).0, linted(&odd, Findings::Text, true).0), (Exit::Done, Exit::Failed));
}

#[test]
fn a_template_may_be_in_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string("tests/lint/plan.yaml").unwrap();
    let rollout = dir.path().join("rollout.yaml");
    std::fs::write(&rollout, text).unwrap();
    let alone = linted(std::slice::from_ref(&rollout), Findings::Text, false).1;
    assert!(alone.contains("there is no VoiceAnalysisTemplate `latency` in these files"), "{alone}");
    let both = linted(&[rollout, "tests/lint/templates.yaml".into()], Findings::Text, false).1;
    assert!(!both.contains("`latency` in these files"), "{both}");
}

#[test]
fn machines_read_the_same_findings() {
    let file = [PathBuf::from("tests/lint/rules.yaml")];
    let found: Vec<Value> = serde_json::from_str(&linted(&file, Findings::Json, false).1).unwrap();
    let text = linted(&file, Findings::Text, false).1;
    assert_eq!(found.len() + 1, text.lines().count());
    for finding in found {
        let line = format!("{}:{}: error: ", finding["file"].as_str().unwrap(), finding["line"]);
        assert!(text.contains(&line) && finding["severity"] == "error", "{finding}");
    }
}

#[test]
fn a_file_that_is_not_there_is_an_error_with_its_name() {
    let args = LintArgs { files: vec![Path::new("no/such.yaml").into()], output: Findings::Text, strict: false };
    let error = lint(&args, Paint::default(), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("read no/such.yaml: ") && error.exit() == Exit::Failed, "{error}");
}
