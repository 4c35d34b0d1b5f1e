//! Evictions: a delete that PodDisruptionBudgets have a say in.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::delete::DeleteOptions;
use super::fail::{self, Answer};
use super::selector::{labels_of, structured_matches};
use super::state::State;
use super::store::{Key, owners};

impl State {
    /// Evicts a pod, and says on it that it was.
    ///
    /// # Errors
    /// 404; 429 where a PodDisruptionBudget forbids it; 500 where two are about the pod.
    pub fn evict(&mut self, namespace: &str, name: &str, options: &DeleteOptions) -> Answer<()> {
        let (Some(pods), Some(budgets)) = (self.resource("", "pods"), self.resource("policy", "poddisruptionbudgets")) else {
            return Err(fail::no_such_path());
        };
        let pod = self.get(&pods, namespace, name)?;
        let ran = pod.pointer("/status/phase").and_then(Value::as_str) == Some("Running");
        let ends = pod.pointer("/metadata/deletionTimestamp").is_some();
        if ran && !ends {
            let about = self.store.list(budgets.id, Some(namespace)).map(|(_, b)| b).filter(|b| covers(b, &pod));
            let about: Vec<Arc<Value>> = about.cloned().collect();
            match about.as_slice() {
                [] => {}
                [budget] => self.within(budget, &pod)?,
                _ => return Err(fail::two_budgets()),
            }
        }
        if !ends {
            let mut told = (*pod).clone();
            if let Some(conditions) = told.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
                conditions.push(json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}));
            }
            self.store.put(Key { kind: pods.id, namespace: namespace.into(), name: name.into() }, told);
        }
        self.delete(&pods, namespace, name, options).map(drop)
    }

    /// Whether the budget lets one more pod go, as the disruption controller and the API server count.
    fn within(&self, budget: &Value, pod: &Value) -> Answer<()> {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        let Some(pods) = self.resource("", "pods") else { return Ok(()) };
        let covered: Vec<&Arc<Value>> = self.store.list(pods.id, Some(namespace)).map(|(_, p)| p).filter(|p| covers(budget, p)).collect();
        let healthy = covered.iter().filter(|p| is_healthy(p)).count() as i64;
        let sets: BTreeSet<&str> = covered.iter().flat_map(|p| owners(p)).collect();
        let wanted = |uid: &&str| self.store.key_of_uid(uid).and_then(|k| self.store.get(k)).and_then(|s| s["spec"]["replicas"].as_i64());
        let expected: i64 = sets.iter().filter_map(wanted).sum();
        let desired = match (&budget["spec"]["maxUnavailable"], &budget["spec"]["minAvailable"]) {
            (Value::Null, least) => count(least, expected),
            (most, _) => (expected - count(most, expected)).max(0),
        };
        // A pod that is not ready may go while enough others are (`IfHealthyBudget`).
        let allowed = if is_healthy(pod) { healthy > desired } else { healthy >= desired && desired > 0 };
        let name = budget["metadata"]["name"].as_str().unwrap_or_default();
        if allowed { Ok(()) } else { Err(fail::over_budget(name, desired, healthy)) }
    }
}

fn covers(budget: &Value, pod: &Value) -> bool {
    budget.pointer("/spec/selector").is_some_and(|selector| structured_matches(Some(selector), &labels_of(pod)))
}

/// Whether an eviction was what ended a pod.
pub fn was_evicted(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "DisruptionTarget" && c["status"] == "True")
}

fn is_healthy(pod: &Value) -> bool {
    pod.pointer("/metadata/deletionTimestamp").is_none() && super::world::is_ready(pod)
}

/// A number of pods, or a share of them in percent, rounded up.
fn count(value: &Value, of: i64) -> i64 {
    let percent = || value.as_str().and_then(|t| t.strip_suffix('%')).and_then(|t| t.parse::<i64>().ok());
    value.as_i64().or_else(|| percent().map(|p| (p * of + 99) / 100)).unwrap_or(0)
}
