//! Long calls that are open while a release ends, and what becomes of them.

use std::time::{Duration, Instant};

use voicerollout::api::status::{Role, VoiceRolloutStatus};

use crate::agent::Agent;
use crate::stack::{Result, WsCalls};

/// Most calls that are opened at each look until the new version has some.
const AT_ONCE: usize = 40;
/// How long the callers talk on after the release has ended.
const TALK_ON: Duration = Duration::from_secs(6);

/// WebSocket calls through Envoy, opened while the new version gets a share of them.
pub struct Held {
    calls: WsCalls,
    revision: String,
}

impl Held {
    /// No call yet.
    pub async fn new(agent: &Agent, revision: &str) -> Result<Self> {
        Ok(Self { calls: WsCalls::open(&agent.ns.host(), "/ws", 0).await?, revision: revision.into() })
    }

    /// Opens some more while the new version has none.
    pub async fn open(&mut self, agent: &Agent, status: &VoiceRolloutStatus) -> Result<()> {
        let on_new = |held: &Self| held.calls.report().started.get(&held.revision).copied().unwrap_or(0);
        for _ in 0..AT_ONCE {
            if status.weights.applied > 0 && on_new(self) == 0 {
                self.calls.open_more(&agent.ns.host(), "/ws", 1).await?;
            }
        }
        Ok(())
    }

    /// The release is over: the callers talk on, hang up, and the pods that had no other reason to stay go. Whether no
    /// call was cut, by the callers' count and by the operator's.
    pub async fn outlast(self, agent: &Agent) -> Result<bool> {
        let over = Instant::now();
        let open = self.calls.report();
        let on_new = open.started.get(&self.revision).copied().unwrap_or(0);
        println!("  {} calls were open when it ended, {on_new} of them on the new version: they talk on", open.open());
        tokio::time::sleep_until((over + TALK_ON).into()).await;
        let status = agent.status().await?;
        println!("  {:5.1}s  live calls by the operator: {}; pods: {}", over.elapsed().as_secs_f64(), status.live_calls, pods(&status));
        let report = self.calls.hang_up().await;
        println!(
            "  {:5.1}s  their callers hang up: {} ended normally, {} cut",
            over.elapsed().as_secs_f64(),
            report.ended,
            report.cut.len()
        );
        let drained = |s: &VoiceRolloutStatus| s.revisions.iter().all(|r| r.role != Role::Draining);
        let status = agent.wait("the losing version to drain", drained).await?;
        println!("  {:5.1}s  drained; pods: {}", over.elapsed().as_secs_f64(), pods(&status));
        let told: i64 = status.revisions.iter().map(|r| r.calls_cut).sum();
        Ok(report.cut.is_empty() && report.ended == open.open() && on_new > 0 && told == 0)
    }
}

/// `v3 2 draining, v2 2 stable`.
fn pods(status: &VoiceRolloutStatus) -> String {
    let with = status.revisions.iter().filter(|r| r.replicas > 0);
    let texts: Vec<String> = with.map(|r| format!("v{} {} {}", r.number, r.replicas, format!("{:?}", r.role).to_lowercase())).collect();
    texts.join(", ")
}
