//! Runs and their keys: a key that comes again gets the run that it started. Nothing survives the process.

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::suite::{Plan, Report};

/// What came of a run.
#[derive(Clone, Debug)]
pub enum Ended {
    /// It has a result.
    Done(Report),
    /// It has none, for this reason.
    Failed(String),
    /// Somebody gave it up.
    Cancelled,
}

/// What came of a run; `None` while it is under way.
pub type Outcome = Option<Ended>;

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

    /// Records what came of a run, unless that is known.
    pub fn end(&self, number: usize, ended: Ended) {
        if let Some(run) = self.0.lock().get(number) {
            run.outcome.send_if_modified(|outcome| {
                let open = outcome.is_none();
                outcome.get_or_insert(ended);
                open
            });
        }
    }

    /// A run's plan and what came of it.
    pub fn get(&self, number: usize) -> Option<(Plan, Outcome)> {
        self.0.lock().get(number).map(|run| (run.plan.clone(), run.outcome.borrow().clone()))
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
        Some(Ended::Done(report)) => {
            entry["state"] = json!("done");
            entry["passRate"] = json!(report.totals.pass_rate());
        }
        Some(Ended::Failed(error)) => {
            entry["state"] = json!("error");
            entry["error"] = json!(error);
        }
        Some(Ended::Cancelled) => entry["state"] = json!("cancelled"),
    }
    entry
}
