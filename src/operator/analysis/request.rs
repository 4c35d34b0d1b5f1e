//! From a run's gate to a request for its provider, and from the provider's answer to an outcome.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::api::analysis::{Gate, JudgeApi};
use crate::api::run::{Finding, Measurement, RunArg, Tokens, VoiceAnalysisRunSpec, VoiceAnalysisRunStatus};
use crate::core::gates::Outcome;
use crate::sources::secrets::SecretReader;
use crate::sources::{ArgValue, Eval, OtherGate, Progress, Reading, Request, SourceError};

/// Shortest secret that is looked for in texts; shorter ones occur by chance.
const MIN_SECRET: usize = 4;

/// A measurement as it is planned; the Secrets are read when it begins.
#[derive(Clone)]
pub struct Blueprint {
    /// The run's spec.
    pub spec: Arc<VoiceAnalysisRunSpec>,
    /// The run's namespace.
    pub namespace: String,
    /// The operator's namespace.
    pub operator_namespace: String,
    /// Index of the gate.
    pub gate: usize,
    /// Key of the measurement.
    pub key: String,
    /// When the measurement began.
    pub started_at: Timestamp,
    /// What the other gates have found.
    pub others: Vec<OtherGate>,
    /// The gate's own finished measurements.
    pub earlier: Vec<Measurement>,
}

impl Blueprint {
    /// Reads the arguments' Secrets and fills in the request.
    ///
    /// # Errors
    /// A gate that does not exist, or a Secret that cannot be read.
    pub async fn request(&self, secrets: &dyn SecretReader) -> Result<Request, SourceError> {
        let Some(run_gate) = self.spec.gates.get(self.gate) else { return Err(SourceError::new("the run has no such gate")) };
        let mut args = BTreeMap::new();
        for arg in &run_gate.args {
            args.insert(arg.name.clone(), self.value(arg, secrets).await?);
        }
        Ok(Request {
            key: self.key.clone(),
            namespace: self.namespace.clone(),
            rollout: self.spec.rollout.clone(),
            revision: self.spec.revision.clone(),
            stable_revision: self.spec.stable_revision.clone(),
            started_at: self.started_at,
            gate: run_gate.gate.clone(),
            args,
            from_cluster_template: run_gate.from_cluster_template,
            others: self.spec.explains.as_ref().map_or_else(|| self.others.clone(), |e| e.gates.iter().map(found).collect()),
            earlier: self.earlier.clone(),
            explains: self.spec.explains.clone(),
        })
    }

    async fn value(&self, arg: &RunArg, secrets: &dyn SecretReader) -> Result<ArgValue, SourceError> {
        let Some(secret) = &arg.secret_key_ref else { return Ok(ArgValue::plain(arg.value.clone().unwrap_or_default())) };
        let namespace = if arg.in_operator_namespace { &self.operator_namespace } else { &self.namespace };
        match secrets.read(namespace, secret).await {
            Ok(text) => Ok(ArgValue { text, secret: true }),
            // Nobody was asked, so that nothing was spent.
            Err(error) => Err(SourceError {
                message: format!("argument `{}`: {}", arg.name, error.message),
                tokens: Some(Tokens::default()),
                ..error
            }),
        }
    }
}

/// What a gate had found when the release was aborted.
fn found(gate: &Finding) -> OtherGate {
    let Finding { name, verdict, value, message } = gate.clone();
    OtherGate { name, verdict, value, message, measurements: None }
}

/// What the other gates of a run have found.
pub fn others(status: &VoiceAnalysisRunStatus, gate: usize) -> Vec<OtherGate> {
    let others = status.gates.iter().enumerate().filter(|(i, _)| *i != gate);
    others
        .map(|(_, g)| OtherGate {
            name: g.name.clone(),
            verdict: g.verdict,
            value: g.value.clone(),
            message: g.message.clone(),
            measurements: Some(
                g.counts.pass.saturating_add(g.counts.fail).saturating_add(g.counts.inconclusive).saturating_add(g.counts.error),
            ),
        })
        .collect()
}

/// A judge's own finished measurements.
pub fn earlier(spec: &VoiceAnalysisRunSpec, status: &VoiceAnalysisRunStatus, gate: usize) -> Vec<Measurement> {
    let judged = spec.gates.get(gate).is_some_and(|g| g.gate.judge.is_some());
    status.gates.get(gate).filter(|_| judged).map(|g| g.measurements.clone()).unwrap_or_default()
}

/// The provider's answer for the fold, without the arguments' secrets should the provider echo one.
pub fn outcome(answer: Result<Progress, SourceError>, args: &BTreeMap<String, ArgValue>) -> Outcome {
    let clean = |text: String| redact(text, args);
    match answer {
        Ok(Progress::Running { handle, .. }) => Outcome::Running { handle, trouble: None },
        Ok(Progress::Unanswered { message, retry_after }) => Outcome::Failed { message: clean(message), retry_after, tokens: None },
        Ok(Progress::Eval(eval)) => Outcome::Eval(Eval { reading: redact_reading(eval.reading, args), ..eval }),
        Ok(Progress::Value(value)) => Outcome::Value(redact_value(value, args)),
        Ok(Progress::Counted(seen)) => Outcome::Counted(seen),
        Ok(Progress::NoData(message)) => Outcome::NoData(clean(message)),
        Ok(Progress::Votes(mut judgement)) => {
            judgement.message = clean(judgement.message);
            Outcome::Votes(judgement)
        }
        Err(SourceError { message, retry_after, tokens }) => Outcome::Failed { message: clean(message), retry_after, tokens },
    }
}

/// A run that could not be polled just now.
pub fn troubled(handle: &str, message: String, args: &BTreeMap<String, ArgValue>) -> Outcome {
    Outcome::Running { handle: handle.to_owned(), trouble: Some(redact(message, args)) }
}

fn redact_reading(reading: Reading, args: &BTreeMap<String, ArgValue>) -> Reading {
    match reading {
        Reading::Value(value) => Reading::Value(redact_value(value, args)),
        Reading::NoData(why) => Reading::NoData(redact(why, args)),
        Reading::Pairs(pairs) => Reading::Pairs(pairs),
    }
}

fn redact(mut text: String, args: &BTreeMap<String, ArgValue>) -> String {
    for secret in args.values().filter(|a| a.secret && a.text.len() >= MIN_SECRET) {
        if text.contains(&secret.text) {
            text = text.replace(&secret.text, "***");
        }
    }
    text
}

fn redact_value(value: serde_json::Value, args: &BTreeMap<String, ArgValue>) -> serde_json::Value {
    match value {
        serde_json::Value::String(text) => redact(text, args).into(),
        serde_json::Value::Array(items) => items.into_iter().map(|v| redact_value(v, args)).collect(),
        other => other,
    }
}

/// The server that a gate asks; limits on concurrency are kept for each.
pub fn server(gate: &Gate) -> String {
    let authority = |url: &str| match url.split_once("://") {
        Some((_, rest)) => rest.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase(),
        None => url.to_owned(),
    };
    if let Some(t) = &gate.threshold {
        let url = t.provider.prometheus.as_ref().map(|p| &p.address).or(t.provider.web.as_ref().map(|w| &w.url));
        return url.map(|u| authority(u)).unwrap_or_default();
    }
    if let Some(paired) = &gate.paired {
        return authority(&paired.web.url);
    }
    let api = |vendor: &str, api: &JudgeApi| api.base_url.as_deref().map_or_else(|| vendor.to_owned(), authority);
    if let Some(counted) = gate.reads_counters() {
        return authority(&counted.prometheus.address);
    }
    match gate.judge.as_ref().map(|j| (&j.anthropic, &j.openai)) {
        Some((Some(a), _)) => api("anthropic", a),
        Some((None, Some(o))) => api("openai", o),
        _ => String::new(),
    }
}
