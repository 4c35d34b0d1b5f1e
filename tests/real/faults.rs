//! The operator dies, or hands over, in the middle of a release.

use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use voicerollout::api::run::RunPhase;
use voicerollout::api::status::Phase;

use crate::agent::{Agent, PATIENCE, Version};
use crate::env::OPERATOR;
use crate::people::command;
use crate::stack::{Result, Seen, WsCalls, wait_for};
use crate::{gates, run_alone};

/// Waits for a leader that is not `old`.
async fn next_leader(agent: &Agent, old: &str) -> Result<String> {
    wait_for("another leader", PATIENCE, || async {
        let leader = agent.world.leader().await?;
        Ok(if leader == old { Seen::NotYet(leader) } else { Seen::Yes(leader) })
    })
    .await
}

#[test]
fn operators_killed_in_the_middle_of_a_step_go_on_where_they_were() {
    run_alone("killed", async |mut agent| {
        agent.gates(&[gates::evals(&agent)]).await?;
        agent.start(gates::gated(&[25, 50])).await?;
        let (log, traffic) = (agent.weight_log().await?, agent.calls(20));
        let second = agent.release(&Version::good("v2")).await?;
        agent.wait("the first weight", |status| status.weights.applied == 25).await?;
        agent.world.kill_operators().await?;
        let status = agent.promoted(&second).await?;
        assert_eq!(log.so_far(), [0, 25, 50, 100, 0]);
        for decision in ["ReleaseStarted", "StepsPassed", "Promoted"] {
            assert_eq!(status.decisions.iter().filter(|d| d.decision == decision && d.revision == second).count(), 1, "{decision}");
        }
        assert!(traffic.so_far().failed.is_empty(), "{:?}", traffic.so_far());
        Ok(())
    });
}

#[test]
fn operators_killed_right_after_a_failing_verdict_still_take_the_canary_out() {
    run_alone("killed-verdict", async |mut agent| {
        agent.gates(&[gates::evals(&agent)]).await?;
        agent.start(gates::gated(&[25, 50])).await?;
        let (log, traffic) = (agent.weight_log().await?, agent.calls(20));
        agent.release(&Version::failing_evals("v2")).await?;
        wait_for("the failing verdict", PATIENCE, || async {
            let runs = agent.runs().await?;
            let failed = runs.iter().any(|run| run.status.as_ref().is_some_and(|status| status.phase == RunPhase::Fail));
            Ok(if failed { Seen::Yes(()) } else { Seen::NotYet(format!("{} runs", runs.len())) })
        })
        .await?;
        agent.world.kill_operators().await?;
        let status = agent.phase(Phase::Degraded).await?;
        assert_eq!(agent.weight().await?, 0);
        assert_eq!(status.abort.and_then(|abort| abort.gate).as_deref(), Some("eval-pass-rate"));
        assert_eq!(status.decisions.iter().filter(|d| d.decision == "Aborted").count(), 1);
        assert_eq!(log.so_far(), [0, 25, 0]);
        assert!(traffic.so_far().failed.is_empty(), "{:?}", traffic.so_far());
        Ok(())
    });
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over_in_the_middle_of_a_release() {
    run_alone("hand-over", async |mut agent| {
        agent.start(gates::by_hand(&[25, 50])).await?;
        let (log, traffic) = (agent.weight_log().await?, agent.calls(20));
        let mut held = WsCalls::open(&agent.ns.host(), "/ws", 10).await?;
        let second = agent.release(&Version::good("v2")).await?;
        agent.paused_at(25).await?;
        held.open_more(&agent.ns.host(), "/ws", 10).await?;
        let old = agent.world.leader().await?;
        let api: Api<Pod> = Api::namespaced(agent.world.stack.client(), OPERATOR);
        let start = Instant::now();
        api.delete(&old, &DeleteParams::default()).await?;
        // The kubelet has sent the first one by now, or sends a second one after this.
        agent.world.stack.signal_pod(OPERATOR, &old, "TERM");
        let new = next_leader(&agent, &old).await?;
        println!("{old} handed over to {new} within {:?}", start.elapsed());
        command(&agent, "promote").await?;
        agent.paused_at(50).await?;
        command(&agent, "promote").await?;
        agent.promoted(&second).await?;
        assert_eq!(log.so_far(), [0, 25, 50, 100, 0]);
        assert!(traffic.so_far().failed.is_empty(), "{:?}", traffic.so_far());
        let report = held.hang_up().await;
        assert!(report.ended == 20 && report.cut.is_empty(), "{report:?}");
        Ok(())
    });
}

#[test]
fn a_leader_that_hangs_is_replaced_and_does_no_harm_when_it_wakes() {
    run_alone("hung", async |mut agent| {
        agent.start(gates::by_hand(&[25, 50])).await?;
        let log = agent.weight_log().await?;
        let second = agent.release(&Version::good("v2")).await?;
        agent.paused_at(25).await?;
        let old = agent.world.leader().await?;
        agent.world.stack.signal_pod(OPERATOR, &old, "STOP");
        let moved = next_leader(&agent, &old).await;
        let promoted = async {
            moved?;
            command(&agent, "promote").await?;
            agent.paused_at(50).await
        };
        let promoted = promoted.await;
        agent.world.stack.signal_pod(OPERATOR, &old, "CONT");
        promoted?;
        command(&agent, "promote").await?;
        agent.promoted(&second).await?;
        assert_eq!(log.so_far(), [0, 25, 50, 100, 0]);
        Ok(())
    });
}
