//! `make demo`: three releases of the sample agent on the real stack, installed from the chart, with real callers.
//!
//! Exit code 0 only if the good release is promoted, both bad ones are aborted by the right gate, and of the long calls that
//! are open when a release ends every one goes on until its caller hangs up.

#[allow(dead_code)]
#[path = "../../tests/real/agent.rs"]
mod agent;
#[allow(dead_code)]
#[path = "../../tests/real/env.rs"]
mod env;
#[allow(dead_code)]
#[path = "../../tests/real/gates.rs"]
mod gates;
mod held;
#[path = "../../tests/stack/mod.rs"]
mod stack;
mod table;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use agent::{Agent, Version};
use env::World;
use held::Held;
use serde_json::json;
use stack::{Result, Stack, Traffic};
use table::Table;
use voicerollout::api::status::{Phase, VoiceRolloutStatus};

/// Calls a second, through Envoy.
const CALLS: u32 = 40;
/// Time between two looks at the release.
const LOOK: Duration = Duration::from_millis(250);
/// Longest time that a release may take here.
const PATIENCE: Duration = Duration::from_secs(180);

/// A release to show, and how it has to end.
struct Show {
    title: &'static str,
    version: Version,
    /// The gate that stops it; `None` for a release that is promoted.
    stopped_by: Option<&'static str>,
}

fn shows() -> [Show; 3] {
    [
        Show { title: "v2, a good version", version: Version::good("v2"), stopped_by: None },
        Show { title: "v3, slow to its first token", version: Version::slow("v3"), stopped_by: Some("p95-first-token") },
        Show { title: "v4, which fails half of its evals", version: Version::failing_evals("v4"), stopped_by: Some("eval-pass-rate") },
    ]
    .map(|show| Show { version: hasty(show.version), ..show })
}

/// It ends at SIGTERM at once, whoever is talking: that no call is cut is not the agent's doing.
fn hasty(version: Version) -> Version {
    version.with("AGENT_IGNORE_DRAIN", "1")
}

fn main() -> ExitCode {
    match stack::runtime().block_on(demo()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<bool> {
    println!("starting etcd, kube-apiserver, istiod, Envoy and Prometheus; installing the operator with helm");
    let stack = Stack::start().await?;
    let world = World::get(stack).await?;
    let mut agent = Agent::new(world, "demo").await?;
    let mut steps = gates::gated(&[5, 25, 50]);
    if let Some(steps) = steps.as_array_mut() {
        steps.push(json!({"setWeight": 100}));
    }
    agent.manifest["spec"]["sessions"] =
        json!({"activeCalls": {"http": {"port": 8080, "path": "/worker", "jsonPath": "{$.active_jobs}"}}, "interval": "1s"});
    agent.manifest["spec"]["drain"] = json!({"maxDrain": "10m", "zeroFor": "2s"});
    let first = agent.start_as(&hasty(Version::good("v1")), steps).await?;
    println!("v1 is deployed: {}; {CALLS} calls a second go through Envoy from now on", first.message);
    let traffic = agent.calls(CALLS);
    let mut right = true;
    for show in shows() {
        right &= play(&mut agent, &show, &traffic).await?;
    }
    let answers = traffic.so_far();
    println!("\ncalls that failed since the last row: {}", answers.failed.values().sum::<u64>());
    println!(
        "{}",
        if right {
            "all three releases ended as they should, and no call was cut"
        } else {
            "NOT all releases or calls ended as they should"
        }
    );
    if std::env::var_os("KEEP").is_some_and(|keep| !keep.is_empty()) {
        keep(stack, &agent).await?;
    }
    Ok(right)
}

/// Plays one release; whether it ended as it should.
async fn play(agent: &mut Agent, show: &Show, traffic: &Traffic) -> Result<bool> {
    println!("\n{}", show.title);
    let start = Instant::now();
    traffic.take();
    let revision = agent.release(&show.version).await?;
    let mut table = Table::new(start, &revision);
    let mut held = Held::new(agent, &revision).await?;
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        ticks.tick().await;
        let status = agent.status().await?;
        table.row(&status, traffic);
        held.open(agent, &status).await?;
        if is_over(&status, &revision) || start.elapsed() > PATIENCE {
            let right = is_right(&status, &revision, show.stopped_by);
            println!("  {} after {:.1?}: {}", if right { "as expected" } else { "UNEXPECTED" }, start.elapsed(), status.message);
            return Ok(right & held.outlast(agent).await?);
        }
    }
}

fn is_over(status: &VoiceRolloutStatus, revision: &str) -> bool {
    match status.phase {
        Phase::Healthy => status.stable_revision.as_deref() == Some(revision),
        Phase::Degraded => status.abort.as_ref().is_some_and(|abort| abort.revision == revision),
        Phase::Invalid => true,
        _ => false,
    }
}

fn is_right(status: &VoiceRolloutStatus, revision: &str, stopped_by: Option<&str>) -> bool {
    match stopped_by {
        None => status.phase == Phase::Healthy && status.stable_revision.as_deref() == Some(revision),
        Some(gate) => status.phase == Phase::Degraded && status.abort.as_ref().is_some_and(|abort| abort.gate.as_deref() == Some(gate)),
    }
}

async fn keep(stack: &Stack, agent: &Agent) -> Result<()> {
    let enter = stack.enter().map(|enter| format!("{enter} ")).unwrap_or_default();
    println!("\nEverything runs on until Ctrl-C. From another terminal:");
    println!("  export KUBECONFIG={}", stack.kubeconfig().display());
    println!("  {enter}{} get voicerollouts -n {} -w", stack.kubectl_path().display(), agent.ns.name);
    tokio::signal::ctrl_c().await?;
    Ok(())
}
