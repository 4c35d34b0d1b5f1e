//! The figures of README: what the operator costs and how fast it reverts, on a real API server. `make bench`.
//!
//! Prints, and never judges by wall time. `STACK_BENCH=rules,looks,evidence,readings,dashboard,verdicts,callers,release,size,
//! idle` picks parts, of which rules, looks, evidence, readings, dashboard (it takes a Chromium) and idle need no control plane, and callers needs Istio and Envoy too; `STACK_BENCH_RELEASING` (100) and `STACK_BENCH_ROLLOUTS`
//! (1000) are the numbers of rollouts.

#[allow(dead_code)]
#[path = "../../tests/real/agent.rs"]
mod agent;
#[allow(dead_code)]
#[path = "../../tests/dashboard/chromium.rs"]
mod chromium;
#[allow(dead_code)]
#[path = "../../tests/fast/cluster/mod.rs"]
mod cluster;
#[allow(dead_code)]
#[path = "../../tests/real/env.rs"]
mod env;
#[allow(dead_code)]
#[path = "../../tests/real/gates.rs"]
mod gates;
#[allow(dead_code)]
#[path = "../judge-stub/router.rs"]
mod judge;
#[allow(dead_code)]
#[path = "../../tests/dashboard/world.rs"]
mod shown;
#[path = "../../tests/stack/mod.rs"]
mod stack;

mod answers;
mod audit;
mod callers;
mod dashboard;
mod evidence;
mod figures;
mod fleet;
mod idle;
mod looks;
mod machine;
mod node;
mod plane;
mod readings;
mod release;
mod size;
mod verdicts;

use stack::Result;
use voicerollout::core::stats::baselines;

/// Seed of the simulated releases.
const SEED: u64 = 1;

fn main() {
    let parts = std::env::var("STACK_BENCH")
        .unwrap_or_else(|_| "rules,looks,evidence,readings,dashboard,verdicts,callers,release,size,idle".into());
    let wanted = |part: &str| parts.split(',').any(|p| p.trim() == part);
    machine::print();
    if wanted("rules") {
        rules(number("STACK_BENCH_SIMULATED", 600) as u32);
    }
    if wanted("looks") {
        ended(looks::run());
    }
    ended(stack::runtime().block_on(async {
        if wanted("evidence") {
            evidence::run().await?;
        }
        if wanted("readings") {
            readings::run().await?;
        }
        if wanted("dashboard") {
            dashboard::run().await?;
        }
        real(wanted).await
    }));
    if wanted("idle") {
        idle::run(number("STACK_BENCH_ROLLOUTS", 1000));
    }
}

fn ended(part: Result<()>) {
    if let Err(error) = part {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

/// What the rules of other tools and ours make of the same simulated releases.
fn rules(rollouts: u32) {
    println!("\nRules on the same simulated latencies, 30 minutes at 5 %, {rollouts} releases each: share aborted [median minute]\n");
    println!("{}", baselines::head_to_head(rollouts, SEED));
}

/// The parts that need the real API server.
async fn real(wanted: impl Fn(&str) -> bool) -> Result<()> {
    if !["verdicts", "callers", "release", "size"].into_iter().any(&wanted) {
        return Ok(());
    }
    machine::print_versions()?;
    // Each part has a control plane of its own: no part's objects weigh on another's figures.
    if wanted("release") {
        release::run(&plane::Plane::start().await?).await?;
    }
    if wanted("verdicts") {
        verdicts::run(&plane::Plane::start().await?, number("STACK_BENCH_RELEASING", 100)).await?;
    }
    if wanted("callers") {
        callers::run().await?;
    }
    if wanted("size") {
        size::run(&plane::Plane::start().await?, number("STACK_BENCH_ROLLOUTS", 1000)).await?;
    }
    Ok(())
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
