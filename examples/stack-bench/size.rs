//! What many rollouts cost the operator: memory, the start, and requests when nothing happens.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::figures::Times;
use crate::fleet::Fleet;
use crate::plane::Plane;
use crate::stack::Result;

/// Real time over which an idle operator is watched; ten virtual minutes are counted on the simulated server.
const IDLE: Duration = Duration::from_secs(20);

/// Times that each verb is run.
const LOOKS: usize = 20;

/// Prints memory and start with `count` rollouts, each with one pod, two Services and a route.
pub async fn run(plane: &Plane, count: usize) -> Result<()> {
    println!("\n{count} rollouts, each with a ReplicaSet, a pod, two Services, their EndpointSlices and a VirtualService");
    let operator = plane.operator().await?;
    println!("  operator without rollouts: {}", operator.memory().await?);
    let begin = Instant::now();
    let steps = json!({"steps": [{"setWeight": 5}, {"pause": {"duration": "5m"}}, {"setWeight": 50}, {"pause": {"duration": "5m"}}]});
    let fleet = Fleet::create(plane, "size", count, |_| steps.clone()).await?;
    fleet.wait_healthy().await?;
    eprintln!("{count} first deployments after {:.1?}", begin.elapsed());
    println!("  operator that has deployed them all: {}", operator.memory().await?);
    operator.stop().await;

    let operator = plane.operator().await?;
    println!("  start of `voicerollout run` to ready: {:.2} s", operator.ready_after.as_secs_f64());
    let before = operator.requests().await?;
    tokio::time::sleep(IDLE).await;
    let after = operator.requests().await?;
    println!("  operator started with all of them there: {}", operator.memory().await?);
    let new: Vec<String> = after
        .iter()
        .filter(|(name, n)| before.iter().all(|(other, m)| other != name || m < n))
        .map(|(name, n)| format!("{name} {n}"))
        .collect();
    println!(
        "  requests in its first {} s after that, watches and the Lease left out: {}",
        IDLE.as_secs(),
        if new.is_empty() { "none".into() } else { new.join(", ") }
    );
    operator.stop().await;
    looks(plane, &fleet).await
}

/// What a person waits for: the plugin from its start to its end, with that many rollouts in the cluster.
async fn looks(plane: &Plane, fleet: &Fleet) -> Result<()> {
    let place = ["-n", &fleet.namespace];
    for (title, words) in [("status NAME", vec!["status"]), ("explain NAME", vec!["explain"]), ("get (all of them)", vec!["get"])] {
        let mut times = Vec::new();
        for name in fleet.names.iter().take(LOOKS) {
            let name = if words[0] == "get" { None } else { Some(name.as_str()) };
            let words = [words.as_slice(), name.as_slice(), &place].concat();
            times.push(plane.verb(&words).await?.as_secs_f64() * 1e3);
        }
        Times::new(times).print(title);
    }
    Ok(())
}
