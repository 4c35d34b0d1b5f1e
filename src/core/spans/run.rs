//! Spans of an analysis run and its gates.

use jiff::Timestamp;
use kube::ResourceExt;

use super::{Attribute, Moment, Place, Span, Value, number, shortened, text};
use crate::api::common::TRACEPARENT_ANNOTATION;
use crate::api::run::{GateStatus, Measurement, RunPhase, Verdict, VoiceAnalysisRun, VoiceAnalysisRunStatus};

/// A run that has ended, and its gates; nothing while it goes on. Its place is what the annotation says that the operator
/// made it with.
pub fn of_run(run: &VoiceAnalysisRun, status: &VoiceAnalysisRunStatus) -> Vec<Span> {
    let parent = run.annotations().get(TRACEPARENT_ANNOTATION).and_then(|text| text.parse::<Place>().ok());
    let (Some(parent), Some(end)) = (parent, status.finished_at.as_ref()) else { return Vec::new() };
    if status.phase == RunPhase::Running {
        return Vec::new();
    }
    let place = parent.child(&["run", &run.name_any()]);
    let common = [
        text("voicerollout.name", &run.spec.rollout),
        text("voicerollout.revision", &run.spec.revision),
        text("voicerollout.run", &run.name_any()),
    ];
    let common: Vec<Attribute> = common.into_iter().flatten().collect();
    let start = status.started_at.as_ref().map_or(end.0, |at| at.0).min(end.0);
    let own = [text("voicerollout.verdict", &format!("{:?}", status.phase)), number("voicerollout.weight", run.spec.weight)];
    let whole = Span {
        place,
        parent: Some(parent.span),
        name: format!("{:?} analysis", run.spec.kind).to_lowercase(),
        start,
        end: end.0,
        attributes: common.iter().cloned().chain(own.into_iter().flatten()).collect(),
        moments: Vec::new(),
        failed: (status.phase == RunPhase::Fail).then(|| shortened(&status.message)),
    };
    let gates = status.gates.iter().map(|gate| of_gate(gate, place, &common, start, end.0));
    std::iter::once(whole).chain(gates).collect()
}

fn of_gate(gate: &GateStatus, run: Place, common: &[Attribute], start: Timestamp, end: Timestamp) -> Span {
    let start = gate.started_at.as_ref().map_or(start, |at| at.0).min(end);
    let last = gate.measurements.last().map_or(end, |m| m.finished_at.0);
    let verdict = gate.verdict.map_or_else(|| "undecided".to_owned(), |v| format!("{v:?}"));
    let own = [
        text("voicerollout.gate", &gate.name),
        text("voicerollout.gate.mode", &format!("{:?}", gate.mode)),
        text("voicerollout.verdict", &verdict),
        text("voicerollout.value", gate.value.as_deref().unwrap_or_default()),
        text("voicerollout.reason", &gate.message),
        number("voicerollout.measurements.pass", gate.counts.pass),
        number("voicerollout.measurements.fail", gate.counts.fail),
        number("voicerollout.measurements.inconclusive", gate.counts.inconclusive),
        number("voicerollout.measurements.error", gate.counts.error),
    ];
    let tokens = gate
        .tokens
        .into_iter()
        .flat_map(|t| [("gen_ai.usage.input_tokens", Value::Number(t.input)), ("gen_ai.usage.output_tokens", Value::Number(t.output))]);
    Span {
        place: run.child(&["gate", &gate.name]),
        parent: Some(run.span),
        name: "gate".into(),
        start,
        end: last.max(start),
        attributes: common.iter().cloned().chain(own.into_iter().flatten()).chain(tokens).collect(),
        moments: gate.measurements.iter().map(moment).collect(),
        failed: matches!(gate.verdict, Some(Verdict::Fail | Verdict::Error)).then(|| shortened(&gate.message)),
    }
}

fn moment(measurement: &Measurement) -> Moment {
    let attributes = [
        text("voicerollout.verdict", &format!("{:?}", measurement.verdict)),
        text("voicerollout.value", measurement.value.as_deref().unwrap_or_default()),
        text("voicerollout.reason", &measurement.message),
    ];
    Moment { name: "measurement".into(), at: measurement.finished_at.0, attributes: attributes.into_iter().flatten().collect() }
}
