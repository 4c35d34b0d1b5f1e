//! Every manifest can be played: a release with nothing wrong is promoted, and each gate stops the one that it has to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde_json::Value;
use voicerollout::cli::args::DemoArgs;
use voicerollout::cli::demo::show;

/// Files without a VoiceRollout and without gates.
const NOT_PLAYED: [&str; 2] = ["action.yaml", "podmonitor.yaml"];

fn files() -> Vec<PathBuf> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let folders = [examples.join("recipes"), examples];
    let all = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    let manifest = |path: &PathBuf| path.extension().is_some_and(|e| e == "yaml");
    let mut all: Vec<PathBuf> =
        all.filter(manifest).filter(|path| !NOT_PLAYED.iter().any(|name| path.file_name().is_some_and(|file| file == *name))).collect();
    all.sort();
    all
}

/// Plays a file; what was shown, and what went otherwise than it should.
fn play(path: &Path) -> (String, Result<(), String>) {
    let mut shown = Vec::new();
    let args = DemoArgs { speed: None, scenario: None, manifest: vec![path.to_owned()], list: false };
    let outcome = show(&args, false, &mut shown).map_err(|error| error.to_string());
    (String::from_utf8(shown).unwrap(), outcome)
}

#[test]
fn every_example_can_be_played() {
    let files = Mutex::new(files().into_iter());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(path) = { files.lock().next() } {
                    let name = path.file_name().unwrap().to_string_lossy().into_owned();
                    let begin = std::time::Instant::now();
                    let (shown, outcome) = play(&path);
                    println!("{name} took {:.1?}", begin.elapsed());
                    if let Err(why) = outcome {
                        println!("{shown}");
                        wrong.lock().push(format!("{name}: {why}"));
                    } else if !shown.contains("has to be stopped by") && !shown.contains("is only seen by") {
                        wrong.lock().push(format!("{name}: no gate had anything to stop"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Kinds of gates in a document, and what else users look for an example of.
fn kinds(document: &Value, found: &mut BTreeSet<String>) {
    match document {
        Value::Object(fields) => {
            for name in ["threshold", "judge", "compare", "compareHistogram", "absolute", "paired", "web", "run", "suite"] {
                if fields.get(name).is_some_and(Value::is_object) {
                    found.insert(name.to_owned());
                }
            }
            if fields.get("sentinel") == Some(&Value::Bool(true)) {
                found.insert("sentinel".to_owned());
            }
            fields.values().for_each(|value| kinds(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| kinds(item, found)),
        _ => {}
    }
}

#[test]
fn there_is_an_example_of_every_kind_of_gate() {
    let mut found = BTreeSet::new();
    for path in files() {
        let text = std::fs::read_to_string(path).unwrap();
        serde_yaml::Deserializer::from_str(&text).for_each(|d| kinds(&serde::Deserialize::deserialize(d).unwrap(), &mut found));
    }
    let all = ["absolute", "compare", "compareHistogram", "judge", "paired", "run", "sentinel", "suite", "threshold", "web"];
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), all);
}
