//! Releases on the real stack: a real API server, Istio, Envoy and Prometheus, the operator installed from its chart and
//! running with its ServiceAccount's rights, the sample agent taking calls. See `tests/stack` for what it runs on:
//!
//! `tests/stack/components.sh && cargo build --bins --examples && tests/stack/in-netns.sh cargo test --offline --test real`

#[path = "stack/mod.rs"]
mod stack;

#[path = "real/accepted.rs"]
mod accepted;
#[path = "real/agent.rs"]
mod agent;
#[path = "real/audit.rs"]
mod audit;
#[path = "real/bad_input.rs"]
mod bad_input;
#[path = "real/binomial.rs"]
mod binomial;
#[path = "real/buckets.rs"]
mod buckets;
#[path = "real/changes.rs"]
mod changes;
#[allow(dead_code)]
#[path = "dashboard/chromium.rs"]
mod chromium;
#[path = "real/commands.rs"]
mod commands;
#[path = "real/comparisons.rs"]
mod comparisons;
#[path = "real/dashboard.rs"]
mod dashboard;
#[path = "real/dispatch.rs"]
mod dispatch;
#[path = "real/env.rs"]
mod env;
#[path = "real/faults.rs"]
mod faults;
#[path = "real/gates.rs"]
mod gates;
#[path = "real/gauges.rs"]
mod gauges;
#[path = "real/gitops.rs"]
mod gitops;
#[path = "real/jobs.rs"]
mod jobs;
#[path = "real/live.rs"]
mod live;
#[path = "real/long_evals.rs"]
mod long_evals;
#[path = "real/notifications.rs"]
mod notifications;
#[path = "real/people.rs"]
mod people;
#[path = "real/power.rs"]
mod power;
#[path = "real/references.rs"]
mod references;
#[path = "real/refusals.rs"]
mod refusals;
#[path = "real/releases.rs"]
mod releases;
#[path = "real/telemetry.rs"]
mod telemetry;
#[path = "real/verbs.rs"]
mod verbs;
#[path = "real/verdicts.rs"]
mod verdicts;

use std::time::Instant;

use agent::Agent;
use env::World;
use stack::Result;

/// Runs a test beside others, with an agent in a namespace of its own whose name begins with `prefix`.
fn run(prefix: &str, test: impl AsyncFnOnce(Agent) -> Result<()>) {
    stack::run(async |stack| timed(prefix, test(Agent::new(World::get(stack).await?, prefix).await?)).await);
}

/// Like [`run`], for tests that stop what the others need.
fn run_alone(prefix: &str, test: impl AsyncFnOnce(Agent) -> Result<()>) {
    stack::run_alone(async |stack| timed(prefix, test(Agent::new(World::get(stack).await?, prefix).await?)).await);
}

async fn timed(prefix: &str, test: impl Future<Output = Result<()>>) -> Result<()> {
    let start = Instant::now();
    let outcome = test.await;
    println!("{prefix} took {:.1?}", start.elapsed());
    outcome
}
