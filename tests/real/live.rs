//! Calls that are held open through everything that a release, and what happens around it, does to an agent. The agents of
//! these tests end at SIGTERM at once, whoever is talking: no pod may be ended while it carries a call.

use serde_json::{Value, json};
use voicerollout::api::VoiceRolloutStatus;
use voicerollout::api::status::{Phase, Role};

use crate::agent::{Agent, PATIENCE, Version};
use crate::people::command;
use crate::stack::{Part, Result, Seen, WsCalls, wait_for};
use crate::{gates, run, run_alone};

fn hasty(tag: &'static str) -> Version {
    Version::good(tag).with("AGENT_IGNORE_DRAIN", "1")
}

/// The agents' own gauge is read each second.
fn sessions() -> Value {
    json!({"activeCalls": {"http": {"port": 8080, "path": "/worker", "jsonPath": "{$.active_jobs}"}}, "interval": "1s"})
}

async fn start(agent: &mut Agent, steps: Value, drain: Value) -> Result<String> {
    agent.manifest["spec"]["sessions"] = sessions();
    agent.manifest["spec"]["drain"] = drain;
    agent.manifest["spec"]["maxLiveRevisions"] = json!(6);
    agent.manifest["spec"]["steps"] = steps;
    agent.set_version(&hasty("v1"));
    agent.apply().await?;
    let first = agent.phase(Phase::Healthy).await?.stable_revision.unwrap_or_default();
    agent.all_calls_go_to(&first).await?;
    Ok(first)
}

fn live(status: &VoiceRolloutStatus) -> i64 {
    status.revisions.iter().filter_map(|r| r.live_calls).sum()
}

fn told_cut(status: &VoiceRolloutStatus) -> i64 {
    status.revisions.iter().map(|r| r.calls_cut).sum()
}

fn draining(status: &VoiceRolloutStatus) -> usize {
    status.revisions.iter().filter(|r| r.role == Role::Draining).count()
}

/// Opens calls until a revision has some: Envoy follows a change of weights within a second.
async fn some_on(agent: &Agent, calls: &mut WsCalls, revision: &str, count: usize) -> Result<()> {
    let caller = agent.caller();
    wait_for(format!("Envoy to send calls to {revision}"), PATIENCE, || async {
        let answers = caller.calls(20).await;
        Ok(if answers.of(revision) > 4 { Seen::Yes(()) } else { Seen::NotYet(format!("{answers:?}")) })
    })
    .await?;
    calls.open_more(&agent.ns.host(), "/ws", count).await
}

#[test]
fn fifty_calls_outlive_promotion_abort_new_versions_smaller_sizes_and_restarts_of_everything() {
    run_alone("calls", async |mut agent| {
        let host = agent.ns.host();
        start(&mut agent, gates::by_hand(&[50]), json!({"maxDrain": "1h", "zeroFor": "2s"})).await?;
        let mut calls = WsCalls::open(&host, "/ws", 15).await?;
        // Promotion.
        let second = agent.release(&hasty("v2")).await?;
        agent.paused_at(50).await?;
        some_on(&agent, &mut calls, &second, 10).await?;
        command(&agent, "promote").await?;
        agent.promoted(&second).await?;
        agent.all_calls_go_to(&second).await?;
        calls.open_more(&host, "/ws", 5).await?;
        // Abort, with the operators killed in the middle.
        let third = agent.release(&hasty("v3")).await?;
        agent.paused_at(50).await?;
        some_on(&agent, &mut calls, &third, 10).await?;
        agent.world.kill_operators().await?;
        command(&agent, "abort").await?;
        agent.phase(Phase::Degraded).await?;
        // A version that another one supersedes; somebody else edits the route; everything is restarted.
        let fourth = agent.release(&hasty("v4")).await?;
        agent.paused_at(50).await?;
        some_on(&agent, &mut calls, &fourth, 10).await?;
        agent.edit_route(json!([{"op": "replace", "path": "/spec/http/1/route/1/weight", "value": 70}, {"op": "replace", "path": "/spec/http/1/route/0/weight", "value": 30}])).await?;
        agent.world.stack.part(Part::Istiod).kill().await;
        agent.world.stack.part(Part::Istiod).start().await?;
        agent.world.stack.part(Part::ApiServer).kill().await;
        agent.world.stack.part(Part::ApiServer).start().await?;
        agent.manifest["spec"]["replicas"] = json!(1);
        let fifth = agent.release(&hasty("v5")).await?;
        agent.paused_at(50).await?;
        command(&agent, "promote").await?;
        agent.promoted(&fifth).await?;
        let status = agent.wait("all calls to be counted", |s| live(s) == 50 && s.revisions.iter().all(|r| r.unread_pods == 0)).await?;
        let report = calls.report();
        assert!(report.open() == 50 && report.cut.is_empty(), "{report:?}\n{status:?}");
        // At 50 % twice ten calls all miss the canary once in a million times.
        assert!(report.started.len() >= 3, "{report:?}");
        assert_eq!(draining(&status), report.started.keys().filter(|hash| **hash != fifth).count(), "{status:?}");

        let report = calls.hang_up().await;
        assert!(report.ended == 50 && report.cut.is_empty(), "{report:?}");
        let done = agent.wait("the losers to go", |s| draining(s) == 0 && s.replicas == 1).await?;
        assert_eq!(told_cut(&done), 0, "{done:?}");
        Ok(())
    });
}

#[test]
fn calls_that_outlive_max_drain_are_cut_and_counted_exactly() {
    run("overdue", async |mut agent| {
        let first = start(&mut agent, json!([{"setWeight": 50}]), json!({"maxDrain": "4s", "zeroFor": "1s"})).await?;
        let mut calls = WsCalls::open(&agent.ns.host(), "/ws", 12).await?;
        let second = agent.release(&hasty("v2")).await?;
        agent.promoted(&second).await?;
        agent.all_calls_go_to(&second).await?;
        calls.open_more(&agent.ns.host(), "/ws", 3).await?;
        let of_first = calls.report().started[&first];
        let all = |s: &VoiceRolloutStatus| u64::try_from(told_cut(s)).is_ok_and(|n| n >= of_first);
        agent.wait("the calls to be counted", |s| all(s) && draining(s) == 0).await?;
        wait_for("the callers to notice", PATIENCE, || async {
            let report = calls.report();
            Ok(if report.cut.len() as u64 == of_first { Seen::Yes(()) } else { Seen::NotYet(format!("{report:?}")) })
        })
        .await?;
        let done = agent.status().await?;
        assert_eq!(u64::try_from(told_cut(&done)).unwrap_or(0), of_first, "{done:?}");
        for decision in ["DrainOverdue", "CallsCut"] {
            assert!(done.decisions.iter().any(|d| d.decision == decision), "{decision}: {done:?}");
        }
        let report = calls.hang_up().await;
        assert!(report.ended == 3 && report.cut.iter().all(|c| c.contains(&first)), "{report:?}");
        Ok(())
    });
}

#[test]
fn a_gauge_that_nobody_serves_keeps_the_pods_and_says_what_to_do() {
    run("gauge", async |mut agent| {
        agent.manifest["spec"]["maxLiveRevisions"] = json!(6);
        start(&mut agent, json!([{"setWeight": 50}]), json!({"maxDrain": "8s", "zeroFor": "1s"})).await?;
        agent.manifest["spec"]["sessions"]["activeCalls"]["http"]["port"] = json!(9);
        let second = agent.release(&hasty("v2")).await?;
        let status = agent.promoted(&second).await?;
        assert_eq!(draining(&status), 1, "{status:?}");
        let told =
            agent.wait("the gauge to be named", |s| s.conditions.iter().any(|c| c.type_ == "CallsReadable" && c.status == "False")).await?;
        let condition = told.conditions.iter().find(|c| c.type_ == "CallsReadable").map(|c| c.message.clone()).unwrap_or_default();
        assert!(condition.contains("port 9") && condition.contains("does a container listen on that port"), "{condition}");
        let done = agent.wait("drain.maxDrain", |s| draining(s) == 0).await?;
        assert!(done.decisions.iter().any(|d| d.decision == "DrainOverdue" && d.reason.contains("calls are not known")), "{done:?}");
        Ok(())
    });
}
