//! Calls that are held open through everything that a release, and what happens around it, does to an agent. The agents of
//! these tests end at SIGTERM at once, whoever is talking: no pod may be ended while it carries a call.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};
use voicerollout::api::VoiceRolloutStatus;
use voicerollout::api::status::{Phase, Role};

use crate::agent::{Agent, PATIENCE, Version};
use crate::people::command;
use crate::stack::{HttpCaller, Part, Result, Seen, WsCalls, wait_for};
use crate::{gates, run, run_alone};

pub fn hasty(tag: &'static str) -> Version {
    Version::good(tag).with("AGENT_IGNORE_DRAIN", "1")
}

/// The agents' own gauge is read each second.
pub fn sessions() -> Value {
    json!({"activeCalls": {"http": {"port": 8080, "path": "/worker", "jsonPath": "{$.active_jobs}"}}, "interval": "1s"})
}

/// Deploys a version whose live calls are read, as the manifest says or else from the agents; its hash.
pub async fn start(agent: &mut Agent, first: &Version, steps: Value, drain: Value) -> Result<String> {
    if agent.manifest["spec"]["sessions"].is_null() {
        agent.manifest["spec"]["sessions"] = sessions();
    }
    agent.manifest["spec"]["drain"] = drain;
    agent.manifest["spec"]["maxLiveRevisions"] = json!(6);
    agent.manifest["spec"]["steps"] = steps;
    agent.set_version(first);
    agent.apply().await?;
    let first = agent.phase(Phase::Healthy).await?.stable_revision.unwrap_or_default();
    agent.all_calls_go_to(&first).await?;
    Ok(first)
}

fn live(status: &VoiceRolloutStatus) -> i64 {
    status.revisions.iter().filter_map(|r| r.live_calls).sum()
}

pub fn told_cut(status: &VoiceRolloutStatus) -> i64 {
    status.revisions.iter().map(|r| r.calls_cut).sum()
}

pub fn draining(status: &VoiceRolloutStatus) -> usize {
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
        start(&mut agent, &hasty("v1"), gates::by_hand(&[50]), json!({"maxDrain": "1h", "zeroFor": "2s"})).await?;
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
        let first = start(&mut agent, &hasty("v1"), json!([{"setWeight": 50}]), json!({"maxDrain": "4s", "zeroFor": "1s"})).await?;
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
fn a_busy_stable_that_gets_smaller_takes_pods_out_of_traffic_before_they_end() {
    run("smaller", async |mut agent| {
        agent.manifest["spec"]["replicas"] = json!(3);
        let first = start(&mut agent, &hasty("v1"), json!([{"setWeight": 50}]), json!({"maxDrain": "1h", "zeroFor": "2s"})).await?;
        let host = agent.ns.host();
        let old = WsCalls::open(&host, "/ws", 15).await?;
        agent.manifest["spec"]["replicas"] = json!(1);
        agent.apply().await?;
        let out = |pod: &Pod| pod.labels().get("voicerollout.dev/serving").is_some_and(|v| v == "false");
        wait_for("two pods to be out of traffic", PATIENCE, || async {
            let pods = agent.ns.api::<Pod>().list(&ListParams::default()).await?.items;
            let n = pods.iter().filter(|pod| out(pod)).count();
            Ok(if n == 2 && pods.len() == 3 { Seen::Yes(()) } else { Seen::NotYet(format!("{n} of {}", pods.len())) })
        })
        .await?;
        // Envoy follows within the time that the spec gives it; from then on new calls go to the pod that stays.
        let spread = agent.caller();
        wait_for("Envoy to know", PATIENCE, || async { Ok(only_one_pod(&spread).await) }).await?;
        let new = WsCalls::open(&host, "/ws", 10).await?;
        assert_eq!(old.report().cut, Vec::<String>::new());
        let report = old.hang_up().await;
        assert!(report.ended == 15 && report.cut.is_empty(), "{report:?}");
        let done = agent.wait("two pods to go", |s| s.replicas == 1 && s.revisions.iter().all(|r| r.shrinking_since.is_none())).await?;
        assert_eq!((told_cut(&done), new.report().open()), (0, 10), "{done:?}");
        let report = new.hang_up().await;
        assert!(report.ended == 10 && report.started == [(first, 10)].into(), "{report:?}");
        Ok(())
    });
}

/// Whether thirty calls are all answered by the same pod.
async fn only_one_pod(caller: &HttpCaller) -> Seen<()> {
    let mut pods = BTreeSet::new();
    for _ in 0..30 {
        match caller.answer().await {
            Ok((_, said)) => drop(pods.insert(serde_json::from_str::<Value>(&said).unwrap_or_default()["pod"].to_string())),
            Err(error) => return Seen::NotYet(error),
        }
    }
    if pods.len() == 1 { Seen::Yes(()) } else { Seen::NotYet(format!("{pods:?}")) }
}
