//! Releases on the simulated API server, in virtual time.

mod cluster;

use cluster::Cluster;
use voicerollout::api::status::Phase;

#[tokio::test(start_paused = true)]
async fn a_release_without_gates_reaches_every_caller() {
    let cluster = Cluster::start().await;
    cluster.apply(cluster::AGENT).await;
    let first = cluster.wait_phase("agent", Phase::Healthy).await;
    assert_eq!(first.stable_revision, first.canary_revision);
    cluster.set_image("agent", "agent:v2").await;
    let done = cluster.wait("agent", "promoted", |s| s.phase == Phase::Healthy && s.stable_revision != first.stable_revision).await;
    assert_eq!(done.stable_revision, done.canary_revision);
    assert!(cluster.world.violations().is_empty(), "{:?}", cluster.world.violations());
    let decisions: Vec<&str> = done.decisions.iter().map(|d| d.decision.as_str()).collect();
    assert_eq!(decisions, ["FirstDeployment", "FirstDeployed", "ReleaseStarted", "WeightApplied", "WeightApplied", "StepsPassed", "Promoted"]);
}
