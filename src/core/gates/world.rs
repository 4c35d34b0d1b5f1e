//! A run with providers that answer at once, for the tests.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::*;
use crate::api::analysis::Gate;
use crate::api::run::Verdict;
use crate::api::run::{Consequence, RunGate, RunKind};
use crate::core::window::add;

/// A run in a world that answers at once: time jumps from one moment of interest to the next.
pub struct World {
    pub spec: VoiceAnalysisRunSpec,
    pub status: VoiceAnalysisRunStatus,
    pub now: Timestamp,
    pub keys: Vec<String>,
}

pub fn start() -> Timestamp {
    "2026-01-01T10:00:00Z".parse().unwrap()
}

pub fn threshold(fields: serde_json::Value) -> serde_json::Value {
    let mut threshold = json!({ "successCondition": "result <= 800", "provider": { "web": { "url": "http://h/x" } } });
    threshold.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({ "name": "p95", "threshold": threshold })
}

pub fn with(mut gate: serde_json::Value, fields: serde_json::Value) -> serde_json::Value {
    gate.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    gate
}

pub fn judge(fields: serde_json::Value) -> serde_json::Value {
    let mut judge = json!({ "anthropic": { "model": "m" }, "prompt": "p" });
    judge.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({ "name": "judge", "judge": judge })
}

impl World {
    pub fn new(kind: RunKind, gates: Vec<serde_json::Value>) -> Self {
        let gates = gates.into_iter().map(|g| {
            let gate: Gate = serde_json::from_value(g).unwrap();
            RunGate { gate, args: Vec::new(), from_cluster_template: false }
        });
        let spec = VoiceAnalysisRunSpec {
            rollout: "agent".into(),
            rollout_uid: "u".into(),
            kind,
            revision: "r2".into(),
            stable_revision: "r1".into(),
            attempt: 1,
            step: Some(1),
            weight: 5,
            traffic_since: Some(Time(start())),
            gates: gates.collect(),
            stop: false,
            explains: None,
        };
        Self { spec, status: VoiceAnalysisRunStatus::default(), now: start(), keys: Vec::new() }
    }

    pub fn one(kind: RunKind, gate: serde_json::Value) -> Self {
        Self::new(kind, vec![gate])
    }

    pub fn plan(&mut self) -> Plan {
        let plan = next(&self.spec, &self.status, self.now, &mut |_| true);
        self.status = plan.status.clone();
        plan
    }

    /// Waits for the next measurement of a gate and answers it. Panics where none is ever taken.
    pub fn answer(&mut self, gate: usize, outcome: &Outcome) -> &mut Self {
        for _ in 0..1000 {
            let plan = self.plan();
            if let Some(work) = plan.measure.iter().find(|w| w.gate == gate) {
                self.keys.push(work.key.clone());
                self.status = finish(&self.spec, &self.status, gate, &work.key, outcome, self.now, 0.5).unwrap();
                return self;
            }
            self.now = plan.wake_at.unwrap_or_else(|| panic!("nothing more happens: {:?}", self.status));
        }
        panic!("too long");
    }

    /// Answers with one character each: a Pass, Fail, Inconclusive or Error.
    pub fn answers(&mut self, verdicts: &str) -> &mut Self {
        for c in verdicts.chars() {
            self.answer(0, &of(c));
        }
        self.plan();
        self
    }

    pub fn wait(&mut self, seconds: u64) -> &mut Self {
        self.now = add(self.now, Duration::from_secs(seconds));
        self.plan();
        self
    }

    pub fn gate(&self) -> &GateStatus {
        &self.status.gates[0]
    }

    pub fn state(&self) -> (RunPhase, Option<Verdict>, Option<Consequence>) {
        (self.status.phase, self.gate().verdict, self.gate().consequence)
    }

    pub fn passed(&self) -> i64 {
        self.now.duration_since(start()).as_secs()
    }
}

pub fn of(c: char) -> Outcome {
    match c {
        'P' => Outcome::Value(json!(700)),
        'F' => Outcome::Value(json!(812.4)),
        'I' => Outcome::NoData("no series".into()),
        'E' => Outcome::Failed { message: "HTTP 503".into(), retry_after: None, tokens: None },
        _ => unreachable!(),
    }
}
