//! Gauges of live calls that are not there, are slow or lie: no pod goes on their word before `drain.maxDrain`.

use serde_json::json;
use voicerollout::api::VoiceRolloutStatus;

use crate::agent::Agent;
use crate::live::{draining, hasty, sessions, start, told_cut};
use crate::run;
use crate::stack::{Result, WsCalls};

/// Why live calls are not known, once the status says so.
async fn unreadable(agent: &Agent) -> Result<String> {
    let named = |s: &VoiceRolloutStatus| s.conditions.iter().find(|c| c.type_ == "CallsReadable" && c.status == "False").cloned();
    let told = agent.wait("the gauge to be named", |s| named(s).is_some()).await?;
    Ok(named(&told).map(|c| c.message).unwrap_or_default())
}

/// The loser keeps its pods until `drain.maxDrain`, and it is told why.
async fn overdue(agent: &Agent, times: usize) -> Result<()> {
    let done = agent.wait("drain.maxDrain", |s| draining(s) == 0).await?;
    let told = done.decisions.iter().filter(|d| d.decision == "DrainOverdue" && d.reason.contains("calls are not known"));
    assert_eq!(told.count(), times, "{done:?}");
    Ok(())
}

#[test]
fn a_gauge_that_nobody_serves_keeps_the_pods_and_says_what_to_do() {
    run("gauge", async |mut agent| {
        agent.manifest["spec"]["maxLiveRevisions"] = json!(6);
        start(&mut agent, &hasty("v1"), json!([{"setWeight": 50}]), json!({"maxDrain": "8s", "zeroFor": "1s"})).await?;
        agent.manifest["spec"]["sessions"]["activeCalls"]["http"]["port"] = json!(9);
        let second = agent.release(&hasty("v2")).await?;
        let status = agent.promoted(&second).await?;
        assert_eq!(draining(&status), 1, "{status:?}");
        let condition = unreadable(&agent).await?;
        assert!(condition.contains("port 9") && condition.contains("does a container listen on that port"), "{condition}");
        overdue(&agent, 1).await
    });
}

#[test]
fn gauges_that_are_slow_or_give_no_number_keep_the_pods_too() {
    run("nonsense", async |mut agent| {
        let drain = json!({"maxDrain": "8s", "zeroFor": "1s"});
        start(&mut agent, &hasty("v1"), json!([{"setWeight": 50}]), drain).await?;
        agent.manifest["spec"]["sessions"]["activeCalls"]["http"]["timeout"] = json!("500ms");
        let second = agent.release(&hasty("v2").with("AGENT_WORKER_SAYS", "\"three\"")).await?;
        agent.promoted(&second).await?;
        let condition = unreadable(&agent).await?;
        assert!(condition.contains("gives a text, not a number of calls"), "{condition}");
        let third = agent.release(&hasty("v3").with("AGENT_WORKER_DELAY_MS", "3000")).await?;
        agent.promoted(&third).await?;
        overdue(&agent, 1).await?;
        let fourth = agent.release(&hasty("v4")).await?;
        agent.promoted(&fourth).await?;
        let condition = unreadable(&agent).await?;
        assert!(condition.contains("no answer within 500ms"), "{condition}");
        overdue(&agent, 2).await
    });
}

#[test]
fn a_gauge_that_always_says_none_is_contradicted_by_a_query() {
    run("lies", async |mut agent| {
        let query = format!("sum by (pod) (voice_calls_active{{namespace=\"{}\"}})", agent.ns.name);
        let prometheus = json!({"address": agent.world.stack.prometheus_url(), "query": query, "scrapeInterval": "1s"});
        let lying = hasty("v1").with("AGENT_WORKER_SAYS", "0");
        agent.manifest["spec"]["sessions"] = sessions();
        agent.manifest["spec"]["sessions"]["activeCalls"]["prometheus"] = prometheus;
        let first = start(&mut agent, &lying, json!([{"setWeight": 50}]), json!({"maxDrain": "1h", "zeroFor": "3s"})).await?;
        let calls = WsCalls::open(&agent.ns.host(), "/ws", 8).await?;
        let second = agent.release(&hasty("v2")).await?;
        agent.promoted(&second).await?;
        let status = agent.wait("the calls to be counted", |s| live(s, &first) == Some(8)).await?;
        assert_eq!(draining(&status), 1, "{status:?}");
        let report = calls.hang_up().await;
        assert!(report.ended == 8 && report.cut.is_empty(), "{report:?}");
        let done = agent.wait("the loser to go", |s| draining(s) == 0).await?;
        assert_eq!(told_cut(&done), 0, "{done:?}");
        Ok(())
    });
}

fn live(status: &VoiceRolloutStatus, hash: &str) -> Option<i64> {
    status.revisions.iter().find(|r| r.hash == hash).and_then(|r| r.live_calls)
}
