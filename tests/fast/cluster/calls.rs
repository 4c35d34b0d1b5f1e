//! Callers of the simulated world, and what became of their calls by its count and by the operator's.

use std::time::Duration;

use voicerollout::api::VoiceRolloutStatus;
use voicerollout::api::status::{Phase, Role};
use voicerollout::sim::world::{Callers, WorldConfig};

use super::Cluster;
use super::script::Script;

/// A call every so many seconds on average, of so many seconds.
pub fn callers(every: u64, shortest: u64, longest: u64) -> WorldConfig {
    let seconds = Duration::from_secs;
    let callers = Callers { every: seconds(every), shortest: seconds(shortest), longest: seconds(longest), ..Callers::default() };
    WorldConfig { callers: Some(callers), ..WorldConfig::default() }
}

/// The first version of the rollout `agent` is deployed.
pub async fn deployed(manifests: &str, config: WorldConfig) -> Cluster {
    let cluster = Cluster::start_with(&Script::good(), config).await;
    cluster.apply(manifests).await;
    cluster.wait_phase("agent", Phase::Healthy).await;
    cluster
}

/// Calls that were cut.
pub fn cut(cluster: &Cluster) -> u64 {
    cluster.world.calls().values().map(|c| c.cut).sum()
}

/// Calls that the operator tells as cut.
pub fn told_cut(status: &VoiceRolloutStatus) -> i64 {
    status.revisions.iter().map(|r| r.calls_cut).sum()
}

/// Revisions that drain.
pub fn draining(status: &VoiceRolloutStatus) -> usize {
    status.revisions.iter().filter(|r| r.role == Role::Draining).count()
}
