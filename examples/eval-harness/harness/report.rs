//! What the harness says about a run.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::config::Config;
use super::runs::{Ended, Outcome};
use super::suite::{Plan, Report};

/// A run that has ended well.
pub fn result(config: &Config, number: usize, plan: &Plan, report: &Report) -> Value {
    let mut answer = facts(config, number, plan);
    answer["passRate"] = json!(report.totals.pass_rate());
    answer["totals"] = json!(report.totals);
    answer["results"] = json!({"stats": {"successes": report.totals.passed, "failures": report.totals.failed}});
    if !report.scenarios.is_empty() {
        answer["scenarios"] = json!(report.scenarios);
        answer["total"] = json!(report.scenarios.len());
        answer["stableOnly"] = json!(report.scenarios.iter().filter(|s| s.stable.pass && !s.canary.pass).count());
        answer["canaryOnly"] = json!(report.scenarios.iter().filter(|s| s.canary.pass && !s.stable.pass).count());
    }
    answer
}

/// A run, whatever has become of it.
pub fn state(config: &Config, number: usize, plan: &Plan, outcome: &Outcome) -> Value {
    let (status, mut answer) = match outcome {
        None => ("running", facts(config, number, plan)),
        Some(Ended::Done(report)) => ("completed", result(config, number, plan, report)),
        Some(Ended::Failed(error)) => ("failed", json!({"id": number, "error": error})),
        Some(Ended::Cancelled) => ("cancelled", facts(config, number, plan)),
    };
    answer["status"] = json!(status);
    answer["links"] = json!({"self": format!("/api/runs/{number}"), "cancel": format!("/api/runs/{number}/cancel")});
    answer
}

fn facts(config: &Config, number: usize, plan: &Plan) -> Value {
    let dataset = Sha256::digest(format!("{}\n{}\n{}", plan.suite, config.suite_version, plan.cases));
    let dataset: String = dataset.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    json!({
        "id": number,
        "suite": plan.suite,
        "suiteVersion": config.suite_version,
        "version": plan.version,
        "seed": plan.seed,
        "datasetHash": dataset,
    })
}
