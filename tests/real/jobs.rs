//! Workers that pull their jobs from a dispatcher, a stub of LiveKit's: no route knows of them, and their share of the
//! calls follows their number.

use serde_json::{Value, json};
use voicerollout::api::VoiceRolloutStatus;
use voicerollout::api::status::{Phase, Role};

use crate::agent::{Agent, Version};
use crate::binomial::likely;
use crate::dispatch::Dispatcher;
use crate::people::command;
use crate::stack::Result;
use crate::{gates, run};

/// Workers of stable.
const STABLE: u32 = 6;

fn version(tag: &'static str, dispatcher: &Dispatcher) -> Version {
    Version::good(tag).with("AGENT_DISPATCHER", &dispatcher.address.to_string()).with("AGENT_DRAIN_TIMEOUT_S", "600")
}

async fn start(agent: &mut Agent, dispatcher: &Dispatcher, steps: Value, grace: u32) -> Result<String> {
    let spec = &mut agent.manifest["spec"];
    spec["traffic"] = json!({"replicas": {}});
    spec["replicas"] = json!(STABLE);
    spec["sessions"] = json!({"activeCalls": {"http": {"port": 8080, "path": "/worker", "jsonPath": "{$.active_jobs}"}}, "interval": "1s"});
    spec["drain"] = json!({"maxDrain": "500s", "zeroFor": "1s"});
    spec["steps"] = steps;
    spec["template"]["spec"]["terminationGracePeriodSeconds"] = json!(grace);
    agent.set_version(&version("v1", dispatcher));
    agent.apply().await?;
    let first = agent.phase(Phase::Healthy).await?.stable_revision.unwrap_or_default();
    dispatcher.workers(&first, STABLE as usize).await?;
    Ok(first)
}

/// Waits until the step has its workers and waits for a person.
async fn paused_at(agent: &Agent, asked: i32) -> Result<VoiceRolloutStatus> {
    let there = |s: &VoiceRolloutStatus| s.phase == Phase::Paused && s.weights.desired == asked && s.step.weight_since.is_some();
    agent.wait(&format!("a pause at step weight {asked}"), there).await
}

/// Calls that begin and end, and how many of them are a revision's: what its part of the workers makes likely.
async fn assert_share(dispatcher: &Dispatcher, revision: &str, workers: u32) -> Result<()> {
    let calls = 600;
    let by = dispatcher.short_calls(calls).await?;
    let of = by.get(revision).copied().unwrap_or(0);
    let expected = likely(calls, f64::from(workers) / f64::from(workers + STABLE), 1e-6);
    println!("{of} of {calls} calls went to {workers} canary workers beside {STABLE}: {expected:?}");
    assert!(expected.contains(&of), "{by:?}, expected {expected:?} with {workers} workers");
    Ok(())
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

#[test]
fn jobs_follow_the_number_of_workers_and_none_is_cut_by_a_promotion_and_an_abort() {
    run("workers", async |mut agent| {
        let dispatcher = Dispatcher::start().await?;
        let first = start(&mut agent, &dispatcher, gates::by_hand(&[5, 25, 50, 100]), 600).await?;
        dispatcher.open_more(12).await?;
        let second = agent.release(&version("v2", &dispatcher)).await?;
        for (asked, canary, percent) in [(5, 1, 14), (25, 2, 25), (50, 6, 50), (100, 6, 50)] {
            let status = paused_at(&agent, asked).await?;
            assert_eq!(status.weights.applied, percent, "{status:?}");
            dispatcher.workers(&second, canary as usize).await?;
            assert_eq!(dispatcher.free(&first), STABLE as usize, "stable stays whole");
            assert_share(&dispatcher, &second, canary).await?;
            dispatcher.open_more(4).await?;
            command(&agent, "promote").await?;
        }
        agent.promoted(&second).await?;
        dispatcher.workers(&first, 0).await?;
        let by = dispatcher.short_calls(100).await?;
        assert_eq!(by.get(&second), Some(&100), "{by:?}");

        let third = agent.release(&version("v3", &dispatcher)).await?;
        for asked in [5, 25] {
            paused_at(&agent, asked).await?;
            command(&agent, "promote").await?;
        }
        paused_at(&agent, 50).await?;
        dispatcher.workers(&third, 6).await?;
        let held = dispatcher.open_more(22).await?;
        // All 22 miss half of the workers once in four million times.
        assert!(held.contains_key(&third), "{held:?}");
        command(&agent, "abort").await?;
        agent.phase(Phase::Degraded).await?;
        dispatcher.workers(&third, 0).await?;
        let by = dispatcher.short_calls(100).await?;
        assert_eq!(by.get(&second), Some(&100), "{by:?}");

        // Counted at both ends: by the callers, and by the operator at the workers.
        let counted = |s: &VoiceRolloutStatus| live(s) == 50 && s.revisions.iter().all(|r| r.unread_pods == 0);
        let status = agent.wait("50 calls to be counted", counted).await?;
        let report = dispatcher.report();
        assert!(report.open() == 50 && report.cut.is_empty(), "{report:?}");
        assert_eq!(draining(&status), 2, "both losers go on with their calls: {status:?}");
        // A worker that ends with many calls read a second before has cut them, as far as the operator can tell.
        let last = dispatcher.hang_up_but_one_each().await?;
        agent.wait("the last calls to be counted", |s| u64::try_from(live(s)) == Ok(last)).await?;
        let report = dispatcher.hang_up_all().await?;
        assert!(report.cut.is_empty() && report.ended == report.started.values().sum::<u64>(), "{report:?}");
        let done = agent.wait("the losers to go", |s| draining(s) == 0).await?;
        assert_eq!(told_cut(&done), 0, "{done:?}");
        println!("{report:?}");
        Ok(())
    });
}

#[test]
fn jobs_that_outlive_the_grace_period_of_their_worker_are_cut_and_counted_exactly() {
    run("grace", async |mut agent| {
        let dispatcher = Dispatcher::start().await?;
        let first = start(&mut agent, &dispatcher, json!([{"setWeight": 50}]), 4).await?;
        let found = agent.status().await?.preflight;
        assert!(found.iter().any(|f| f.code == "GracePeriodTooShort" && f.sentence.contains("drained by ending")), "{found:?}");
        dispatcher.open_more(15).await?;
        let second = agent.release(&version("v2", &dispatcher)).await?;
        agent.promoted(&second).await?;
        let of_first = dispatcher.report().started[&first];
        let all = |s: &VoiceRolloutStatus| told_cut(s) > 0 && draining(s) == 0;
        let done = agent.wait("the workers to be killed", all).await?;
        let report = dispatcher.report();
        assert_eq!((report.cut.len() as u64, told_cut(&done).unsigned_abs()), (of_first, of_first), "{report:?}\n{done:?}");
        assert!(report.cut.iter().all(|c| c.contains(&first)), "{report:?}");
        Ok(())
    });
}
