//! Evidence as one vote sees it: arms have letters, and nothing tells which of them is new.

use serde_json::{Map, Value};

use super::prompt::revisions;
use crate::core::judge::blind::Arms;
use crate::sources::{Request, prometheus};

/// The evidence with letters in place of the versions' names and hashes.
pub(super) fn blinded(evidence: &Value, request: &Request, arms: Arms) -> Value {
    walk(evidence, request, arms, false)
}

/// `ours`: the text is the operator's own, where `stable` is always a version's name.
fn walk(value: &Value, request: &Request, arms: Arms, ours: bool) -> Value {
    match value {
        Value::String(text) => {
            let text = revisions(text, request, arms);
            Value::String(if ours { arms.blind(&text) } else { arms.blind_foreign(&text) })
        }
        Value::Array(items) => items.iter().map(|v| walk(v, request, arms, ours)).collect(),
        Value::Object(fields) => {
            let letter = |name: &str| match name {
                "stable" => Some(arms.stable().to_string()),
                "canary" => Some(arms.canary().to_string()),
                _ => None,
            };
            let ours_below = |name: &str| ours || matches!(name, "gates" | "abort");
            let mut named: Vec<(String, Value)> = fields
                .iter()
                .filter(|(name, _)| *name != "revisions")
                .map(|(name, v)| (letter(name).unwrap_or_else(|| name.clone()), walk(v, request, arms, ours_below(name))))
                .collect();
            named.sort_by(|a, b| a.0.cmp(&b.0));
            let mut out: Map<String, Value> = named.into_iter().collect();
            difference(&mut out);
            Value::Object(out)
        }
        other => other.clone(),
    }
}

/// What lies between the two values of a metric, always seen from A.
fn difference(metric: &mut Map<String, Value>) {
    let value = |arm: &str| metric.get(arm).and_then(|a| a.get("value")).and_then(Value::as_f64);
    let (Some(a), Some(b)) = (value("A"), value("B")) else { return };
    let change = b - a;
    if change.is_finite() {
        metric.insert("BminusA".into(), prometheus::number(change));
        let percent = (1000.0 * change / a.abs()).round() / 10.0;
        if percent.is_finite() {
            metric.insert("BminusAPercentOfA".into(), prometheus::number(percent));
        }
    }
}
