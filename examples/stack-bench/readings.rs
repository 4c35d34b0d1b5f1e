//! How long a round of readings of live calls takes, and whether a rollout whose pods do not answer delays another.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use voicerollout::sources::Sources;
use voicerollout::sources::calls::{CallCounter, CallsQuestion, PodAddress};

use crate::evidence::{Logs, sources};
use crate::figures::Times;
use crate::stack::{Error, Result};

/// Pods of the large rollout.
const PODS: usize = 1000;
/// Rounds of readings.
const ROUNDS: usize = 20;
/// A pod answers after so long.
const ANSWER: Duration = Duration::from_millis(20);

/// Prints the figures.
pub async fn run() -> Result<()> {
    println!("\nreading live calls over HTTP: {PODS} pods, each at an address of its own, that answer after {} ms", ANSWER.as_millis());
    println!("  a round is one reading of all of them; the pods are one server in this process");
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    let port = listener.local_addr()?.port();
    let worker = || async {
        tokio::time::sleep(ANSWER).await;
        Json(json!({"active_jobs": 1}))
    };
    let router = Router::new().route("/worker", get(worker)).route("/silent", get(std::future::pending::<()>));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let sources = sources(Logs(PathBuf::new()))?;
    let all = question("large", port, "/worker", PODS)?;
    let small = question("small", port, "/worker", 4)?;
    let silent = question("silent", port, "/silent", PODS)?;
    rounds(&sources, &all).await?.print("a round of 1,000 pods");
    rounds(&sources, &small).await?.print("a round of 4 pods, nothing beside it");
    tokio::select! {
        times = rounds(&sources, &small) => times?.print("the same beside 1,000 pods that never answer"),
        () = async { loop { sources.count(&silent).await; } } => {}
    }
    Ok(())
}

async fn rounds(sources: &Sources, question: &CallsQuestion) -> Result<Times> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let readings = sources.count(question).await;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        if let Some((pod, Err(why))) = readings.iter().find(|(_, r)| r.is_err()) {
            return Err(Error::other(format!("pod {pod}: {why}")));
        }
    }
    Ok(Times::new(times))
}

/// Pods at addresses of this machine.
fn question(rollout: &str, port: u16, path: &str, pods: usize) -> Result<CallsQuestion> {
    let active = json!({"http": {"port": port, "path": path}});
    let ip = |i: usize| IpAddr::V4(Ipv4Addr::from(0x7f01_0001 + u32::try_from(i).unwrap_or(0)));
    Ok(CallsQuestion {
        namespace: "voice".into(),
        rollout: rollout.into(),
        active: serde_json::from_value(active).map_err(|e| Error::other(e.to_string()))?,
        pods: (0..pods).map(|i| PodAddress { name: format!("pod-{i}"), ip: Some(ip(i)) }).collect(),
    })
}
