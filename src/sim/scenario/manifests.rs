//! A scenario for manifests alone: a release with nothing wrong, and for each gate one that it has to stop.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::answers::CallQuality;
use super::invented::{Said, invent};
use super::{CallSettings, Expect, Outcome, Release, Scenario, ScenarioError, Start, Surroundings, documents};
use crate::api::analysis::{Gate, Mode, OnFail};
use crate::api::common::{seconds, std_duration};
use crate::api::rollout::{Analysis, TemplateRef};
use crate::api::template::VoiceAnalysisTemplateSpec;
use crate::core::resolve::{Facts, TemplateContent, resolve};

/// The VoiceRollout that templates are played with when there is none beside them.
const HOST: (&str, &str) = ("minimal.yaml", include_str!("../../../examples/minimal.yaml"));
/// Namespaced and cluster-wide templates.
const TEMPLATES: [&str; 2] = ["VoiceAnalysisTemplate", "ClusterVoiceAnalysisTemplate"];
/// A bake from here on is a long one.
const LONG_BAKE: Duration = Duration::from_secs(6 * 3600);
/// Longest time of a release; a bake may take days.
const WITHIN: u64 = 3 * 24 * 3600;

impl Scenario {
    /// A scenario for the manifests of these files. Gates' answers are invented: of a release with nothing wrong all pass;
    /// then, gate by gate, one is released that this gate has to stop. Templates without a VoiceRollout are played with
    /// that of `examples/minimal.yaml`.
    ///
    /// # Errors
    /// A file that cannot be read, and manifests that cannot be played: why.
    pub fn of_files(paths: &[PathBuf]) -> Result<Self, ScenarioError> {
        let mut all = Vec::new();
        let mut names = Vec::new();
        for path in paths {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|source| ScenarioError::Read { path: name.clone(), source })?;
            all.extend(documents(&name, &text)?);
            names.push(path.file_stem().map_or(name, |stem| stem.to_string_lossy().into_owned()));
        }
        Self::of_manifests(&names.join(" and "), all)
    }

    /// The same for manifests that were read.
    ///
    /// # Errors
    /// As [`Self::of_files`].
    pub fn of_manifests(name: &str, all: Vec<Value>) -> Result<Self, ScenarioError> {
        let content = |problem: String| ScenarioError::Content { name: name.to_owned(), problem };
        let (mut rollouts, mut manifests): (Vec<Value>, Vec<Value>) = all.into_iter().partition(|m| m["kind"] == "VoiceRollout");
        if rollouts.is_empty() {
            let (host, around) = host(&manifests)?.ok_or_else(|| content("there is no VoiceRollout and no template to play".into()))?;
            rollouts.push(host);
            manifests.extend(around);
        }
        let rollout = rollouts.swap_remove(0);
        if !rollouts.is_empty() {
            return Err(content("there is more than one VoiceRollout: play them one by one".into()));
        }
        let gates = gates(&rollout, &manifests).map_err(content)?;
        let scenario = Self {
            name: name.to_owned(),
            description: "A release with nothing wrong reaches every caller; for each gate one is released that it has to stop.".into(),
            releases: releases(&gates).map_err(content)?,
            manifests,
            rollout,
            world: surroundings(&gates),
        };
        match scenario.problem() {
            Some(problem) => Err(content(problem)),
            None => Ok(scenario),
        }
    }
}

/// As many calls as the gates need to decide within about an hour, and few where none counts them or they bake for long.
fn surroundings(gates: &[Gate]) -> Surroundings {
    let bakes = |gate: &Gate| gate.counted().and_then(|c| c.min_bake).is_some_and(|bake| std_duration(bake) >= LONG_BAKE);
    let every = match () {
        () if gates.iter().any(bakes) || gates.iter().all(|gate| gate.counted().is_none()) => Duration::from_secs(10),
        () => Duration::from_millis(250),
    };
    let calls = CallSettings { every: every.into(), shortest: seconds(20), longest: seconds(180) };
    Surroundings { seed: 1, propagation: Some(seconds(2)), calls: Some(calls) }
}

/// A VoiceRollout that goes through these templates, and what it needs around it; `None` without templates. Gates that
/// count calls or have an interval are its background analysis; where one is measured only once, all are measured at each
/// weight. Its own gate stays where no gate of theirs has to pass, since something has to.
fn host(manifests: &[Value]) -> Result<Option<(Value, Vec<Value>)>, ScenarioError> {
    let templates: Vec<&Value> = manifests.iter().filter(|m| TEMPLATES.iter().any(|kind| m["kind"] == *kind)).collect();
    let hosts = documents(HOST.0, HOST.1)?;
    let (mut rollouts, around): (Vec<Value>, Vec<Value>) = hosts.into_iter().partition(|m| m["kind"] == "VoiceRollout");
    let Some(mut rollout) = rollouts.pop().filter(|_| !templates.is_empty()) else { return Ok(None) };
    let gates: Vec<Value> = templates.iter().flat_map(|t| items(&t["spec"]["gates"])).collect();
    let mut analysis = rollout["spec"]["analysis"].take();
    if gates.iter().any(|gate| gate["mode"].is_null() || gate["mode"] == "enforce") {
        analysis["gates"] = json!([]);
    }
    let mut args = Map::new();
    for arg in templates.iter().flat_map(|t| items(&t["spec"]["args"])).filter(|arg| arg["value"].is_null() && arg["valueFrom"].is_null()) {
        let name = arg["name"].as_str().unwrap_or_default().to_owned();
        let value = format!("my-{name}");
        args.insert(name.clone(), json!({"name": name, "value": value}));
    }
    let reference = |t: &&Value| json!({"name": t["metadata"]["name"], "cluster": t["kind"] == TEMPLATES[1]});
    analysis["templates"] = templates.iter().map(reference).collect();
    analysis["args"] = args.into_iter().map(|(_, arg)| arg).collect();
    let once =
        |gate: &Value| ["threshold", "judge", "paired"].iter().any(|kind| gate[kind].is_object() && gate[kind]["interval"].is_null());
    let steps = [5, 50].into_iter().flat_map(|weight| [json!({"setWeight": weight}), json!({"analysis": analysis})]);
    let (field, value) = if gates.iter().any(once) { ("steps", steps.collect()) } else { ("analysis", analysis.clone()) };
    if let Some(spec) = rollout["spec"].as_object_mut() {
        spec.remove("analysis");
        spec.insert(field.into(), value);
    }
    Ok(Some((rollout, around)))
}

fn items(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// Every gate that a release of the VoiceRollout meets, in the order of the steps, those of the background last.
fn gates(rollout: &Value, manifests: &[Value]) -> Result<Vec<Gate>, String> {
    let template = |reference: &TemplateRef| {
        let kind = TEMPLATES[usize::from(reference.cluster)];
        let found = manifests.iter().find(|m| m["kind"] == kind && m["metadata"]["name"] == reference.name.as_str())?;
        let spec: VoiceAnalysisTemplateSpec = serde_json::from_value(found["spec"].clone()).ok()?;
        Some(TemplateContent { args: spec.args, gates: spec.gates })
    };
    let steps = rollout["spec"]["steps"].as_array().into_iter().flatten().enumerate();
    let steps = steps.map(|(i, step)| (format!("spec.steps[{i}].analysis"), &step["analysis"]));
    let mut all: Vec<Gate> = Vec::new();
    for (path, analysis) in steps.chain([("spec.analysis".to_owned(), &rollout["spec"]["analysis"])]).filter(|(_, a)| a.is_object()) {
        let parsed: Analysis = serde_json::from_value(analysis.clone()).map_err(|e| format!("{path}: {e}"))?;
        let found = resolve(&parsed, rollout, &Facts::default(), &template, &path);
        let found = found.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        for gate in found.into_iter().map(|run_gate| run_gate.gate) {
            if all.iter().all(|known| known.name != gate.name) {
                all.push(gate);
            }
        }
    }
    Ok(all)
}

/// The first deployment, a good release, and a bad one for each gate.
fn releases(gates: &[Gate]) -> Result<Vec<Release>, String> {
    let said = gates.iter().map(|gate| invent(gate).map(|said| (gate, said)).map_err(|e| format!("gate {}: {e}", gate.name)));
    let said: Vec<(&Gate, [Said; 2])> = said.collect::<Result<_, String>>()?;
    let promoted = || Expect { outcome: Outcome::Promoted, step: None, gate: None, explained: false };
    let mut all = vec![release("first deployment", 1, promoted(), &said, None), release("nothing wrong", 2, promoted(), &said, None)];
    for (gate, _) in &said {
        let outcome = match (gate.mode, gate.on_fail) {
            (Mode::DryRun, _) => Outcome::Promoted,
            (_, OnFail::Pause) if gate.threshold.as_ref().is_none_or(|t| !t.sentinel) => Outcome::Paused,
            _ => Outcome::Aborted,
        };
        let decided = (outcome != Outcome::Promoted).then(|| gate.name.clone());
        let (verb, expect) = match outcome {
            Outcome::Promoted => ("is only seen by", promoted()),
            _ => ("has to be stopped by", Expect { outcome, step: None, gate: decided, explained: false }),
        };
        all.push(release(&format!("{verb} {}", gate.name), all.len() + 1, expect, &said, Some(&gate.name)));
    }
    Ok(all)
}

/// A release that is bad in the eyes of one gate, or of none.
fn release(name: &str, number: usize, expect: Expect, said: &[(&Gate, [Said; 2])], bad: Option<&str>) -> Release {
    let mut release = Release {
        name: name.to_owned(),
        tag: format!("v{number}"),
        start_delay: seconds(5),
        start: Start::Ready,
        answers: Default::default(),
        explanations: Default::default(),
        quality: CallQuality::default(),
        counted: Default::default(),
        promoted_by_hand: true,
        actions: Vec::new(),
        expect,
        within: seconds(WITHIN),
    };
    for (gate, said) in said {
        if gate.judge.as_ref().is_some_and(|j| j.explain_aborts) {
            release.explanations.insert(gate.name.clone(), "an answer that the scenario was told to give".into());
        }
        match &said[usize::from(bad == Some(gate.name.as_str()))] {
            Said::Answers(answers) => drop(release.answers.insert(gate.name.clone(), answers.clone())),
            Said::Counted(quality) => drop(release.counted.insert(gate.name.clone(), quality.clone())),
        }
    }
    release
}
