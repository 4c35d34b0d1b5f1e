mod counters;
mod looks;
mod questions;
mod replays;
mod simulations;

use serde_json::{Value, json};

use crate::api::analysis::Gate;

/// A gate of a kind, with these fields.
fn gate(kind: &str, fields: Value) -> Gate {
    let mut base = json!({ "prometheus": { "address": "http://prometheus:9090" }, "warmup": "0s" });
    base.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(json!({ "name": "g", kind: base })).unwrap()
}

fn compare(fields: Value) -> Gate {
    let mut base = json!({ "bad": "failed_total", "total": "ended_total" });
    base.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    gate("compare", base)
}

fn with(mut gate: Gate, false_abort: f64) -> Gate {
    gate.false_abort = Some(false_abort);
    gate
}
