//! Runs and their keys: a key that comes again gets the run that it started.

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::suite::{Plan, Totals};

/// What came of a run; `None` while it is under way.
pub type Outcome = Option<Result<Totals, String>>;

struct Run {
    key: Option<String>,
    asked: u64,
    plan: Plan,
    started_at: Timestamp,
    outcome: watch::Sender<Outcome>,
}

/// All runs of this process, oldest first.
#[derive(Default)]
pub struct Runs(Mutex<Vec<Run>>);

impl Runs {
    /// Finds the run of `key`, or registers a new one. Returns its number, its outcome to wait for, and whether it is new.
    pub fn claim(&self, key: Option<String>, plan: &Plan) -> (usize, watch::Receiver<Outcome>, bool) {
        let mut runs = self.0.lock();
        let known = key.as_ref().and_then(|key| runs.iter().position(|run| run.key.as_ref() == Some(key)));
        if let Some(number) = known {
            runs[number].asked += 1;
            return (number, runs[number].outcome.subscribe(), false);
        }
        let (outcome, wait) = watch::channel(None);
        runs.push(Run { key, asked: 1, plan: plan.clone(), started_at: Timestamp::now(), outcome });
        (runs.len() - 1, wait, true)
    }

    /// Records what came of a run.
    pub fn finish(&self, number: usize, result: Result<Totals, String>) {
        if let Some(run) = self.0.lock().get(number) {
            run.outcome.send_replace(Some(result));
        }
    }

    /// All runs, and how many times each was asked for.
    pub fn list(&self) -> Value {
        self.0.lock().iter().enumerate().map(|(number, run)| entry(number, run)).collect()
    }
}

fn entry(number: usize, run: &Run) -> Value {
    let mut entry = json!({
        "id": number,
        "key": run.key,
        "asked": run.asked,
        "suite": run.plan.suite,
        "version": run.plan.version,
        "target": run.plan.target,
        "startedAt": run.started_at.to_string(),
    });
    match &*run.outcome.borrow() {
        None => entry["state"] = json!("running"),
        Some(Ok(totals)) => {
            entry["state"] = json!("done");
            entry["passRate"] = json!(totals.pass_rate());
        }
        Some(Err(error)) => {
            entry["state"] = json!("error");
            entry["error"] = json!(error);
        }
    }
    entry
}
