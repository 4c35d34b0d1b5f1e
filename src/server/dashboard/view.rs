//! What the page gets to read. Of a spec only what the page shows: pod templates may hold what is not for everybody.

use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Value, json};

use super::steps;
use crate::api::common::std_duration;
use crate::api::status::Phase;
use crate::api::{VoiceAnalysisRun, VoiceRollout};
use crate::operator::stores::Guarded;

/// One line of the list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    namespace: String,
    name: String,
    version: String,
    phase: Phase,
    step: &'a str,
    weight: i32,
    desired: i32,
    stable: &'a str,
    canary: &'a str,
    calls: &'a str,
    waiting_for: &'a str,
    message: &'a str,
}

/// A line of the list as JSON.
pub fn line(rollout: &Guarded<VoiceRollout>) -> String {
    let status = rollout.0.as_ref().ok().and_then(|r| r.status.as_ref());
    let unreadable = rollout.0.as_ref().err().map(ToString::to_string);
    let line = Line {
        namespace: rollout.namespace().unwrap_or_default(),
        name: rollout.name_any(),
        version: rollout.resource_version().unwrap_or_default(),
        phase: if unreadable.is_some() { Phase::Invalid } else { status.map(|s| s.phase).unwrap_or_default() },
        step: status.map(|s| s.step_display.as_str()).unwrap_or_default(),
        weight: status.map_or(0, |s| s.weights.applied),
        desired: status.map_or(0, |s| s.weights.desired),
        stable: status.and_then(|s| s.stable_revision.as_deref()).unwrap_or_default(),
        canary: status.and_then(|s| s.canary_revision.as_deref()).unwrap_or_default(),
        calls: status.map(|s| s.live_calls.as_str()).unwrap_or_default(),
        waiting_for: status.map(|s| s.waiting_for.as_str()).unwrap_or_default(),
        message: unreadable.as_deref().or(status.map(|s| s.message.as_str())).unwrap_or_default(),
    };
    serde_json::to_string(&line).unwrap_or_default()
}

/// A rollout in detail.
pub fn detail(rollout: &VoiceRollout, runs: &[VoiceAnalysisRun], history: &Value) -> Value {
    let spec = &rollout.spec;
    let status = rollout.status.clone().unwrap_or_default();
    json!({
        "namespace": rollout.namespace(),
        "name": rollout.name_any(),
        "version": rollout.resource_version(),
        "observed": status.observed_generation == rollout.metadata.generation,
        "paused": spec.paused,
        "replicas": spec.replicas,
        "maxDrainSeconds": std_duration(spec.drain.max_drain).as_secs(),
        "steps": steps::texts(spec),
        "staircase": steps::staircase(&status),
        "status": status,
        "runs": runs.iter().map(run).collect::<Vec<_>>(),
        "history": history,
    })
}

fn run(run: &VoiceAnalysisRun) -> Value {
    let mut status = run.status.clone().unwrap_or_default();
    for gate in &mut status.gates {
        gate.memory = None;
        gate.in_flight = None;
        gate.split = None;
    }
    let judges: Vec<_> = run.spec.gates.iter().filter(|g| g.gate.judge.is_some()).map(|g| g.gate.name.as_str()).collect();
    json!({
        "name": run.name_any(),
        "kind": run.spec.kind,
        "step": run.spec.step,
        "attempt": run.spec.attempt,
        "judges": judges,
        "status": status,
    })
}
