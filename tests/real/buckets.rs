//! Header buckets through the real Envoy: callers keep their version while the weight grows.

use futures::StreamExt;
use serde_json::json;
use voicerollout::api::proof::SplitVerdict;
use voicerollout::api::status::Phase;

use crate::agent::{Agent, PATIENCE, Version};
use crate::binomial::likely;
use crate::stack::{Result, Seen, wait_for};
use crate::{gates, people, run};

const HEADER: &str = "x-voice-bucket";
const TENANT: &str = "x-tenant-id";
/// Calls without the header at each weight.
const CALLS: u32 = 1500;

/// Who answers each of the 100 buckets.
async fn answers(agent: &Agent, tenant: Option<&str>) -> Result<Vec<String>> {
    let caller = agent.caller();
    let caller = tenant.map_or(caller.clone(), |tenant| caller.with_header(TENANT, tenant));
    let calls = (0..100).map(|bucket| {
        let caller = caller.with_header(HEADER, &format!("{bucket:02}"));
        async move { caller.call().await }
    });
    let all: Vec<_> = futures::stream::iter(calls).buffered(16).collect().await;
    all.into_iter().map(|answer| answer.map_err(crate::stack::Error::other)).collect()
}

/// Waits until Envoy sends the buckets below `weight` to the canary and no others, and says who answers.
async fn until_split(agent: &Agent, weight: usize, canary: &str) -> Result<Vec<String>> {
    wait_for(format!("the buckets below {weight} on {canary}"), PATIENCE, || async {
        let answers = answers(agent, None).await?;
        let right = answers.iter().enumerate().all(|(bucket, revision)| (revision == canary) == (bucket < weight));
        Ok(if right { Seen::Yes(answers) } else { Seen::NotYet(format!("{answers:?}")) })
    })
    .await
}

#[test]
fn a_caller_keeps_its_version_while_the_weight_grows_and_an_abort_puts_everyone_on_stable() {
    run("buckets", async |mut agent| {
        let before = agent.virtual_service().await?["spec"].clone();
        let pinned = json!([{"header": TENANT, "values": ["acme", "general hospital"]}]);
        agent.manifest["spec"]["traffic"]["istio"]["stickiness"] = json!({"headerBuckets": {"header": HEADER, "alwaysStable": pinned}});
        let first = agent.start(gates::by_hand(&[5, 25, 50, 100])).await?.stable_revision.unwrap();

        // Somebody who calls all the time, with the bucket that moves at the second weight.
        let traffic = agent.caller().with_header(HEADER, "07").traffic(20);
        let second = agent.release(&Version::good("v2")).await?;
        let mut known = vec![first.clone(); 100];
        for weight in [5, 25, 50, 100] {
            agent.paused_at(weight).await?;
            let now = until_split(&agent, weight as usize, &second).await?;
            let back = (0..100).filter(|b| known[*b] == second && now[*b] != second).count();
            assert_eq!(back, 0, "callers that moved back at {weight} %");
            known = now;
            let pinned = answers(&agent, Some("general hospital")).await?;
            assert!(pinned.iter().all(|revision| *revision == first), "always stable at {weight} %: {pinned:?}");
            // Calls without the header are shared by the weight.
            let answers = agent.caller().calls(CALLS as usize).await;
            let expected = if weight == 100 { u64::from(CALLS)..=u64::from(CALLS) } else { likely(CALLS, f64::from(weight) / 100.0, 1e-6) };
            println!("at {weight} %: {} of {CALLS} without a bucket, expected {expected:?}", answers.of(&second));
            assert!(
                answers.failed.is_empty() && expected.contains(&answers.of(&second)),
                "at {weight} %: {answers:?}, expected {expected:?}"
            );
            people::command(&agent, "promote").await?;
        }
        agent.promoted(&second).await?;
        agent.all_calls_go_to(&second).await?;
        let answers = traffic.take();
        assert!(answers.failed.is_empty() && answers.of(&first) > 0 && answers.of(&second) > 0, "{answers:?}");
        assert_eq!(agent.virtual_service().await?["spec"], before, "what the operator leaves behind");

        // The next version is taken back.
        let third = agent.release(&Version::good("v3")).await?;
        agent.paused_at(5).await?;
        people::command(&agent, "promote").await?;
        agent.paused_at(25).await?;
        until_split(&agent, 25, &third).await?;
        // Somebody takes a generated route away: it comes back.
        agent.edit_route(json!([{"op": "remove", "path": "/spec/http/2"}])).await?;
        agent.wait("the missed route to be told", |s| s.decisions.iter().any(|d| d.decision == "RoutesChangedByOthers")).await?;
        until_split(&agent, 25, &third).await?;
        people::command(&agent, "abort").await?;
        agent.phase(Phase::Degraded).await?;
        assert_eq!(agent.virtual_service().await?["spec"], before, "what an abort leaves behind");
        until_split(&agent, 0, &third).await?;
        let answers = traffic.so_far();
        assert!(answers.failed.is_empty(), "{answers:?}");
        Ok(())
    });
}

#[test]
fn the_calls_that_began_prove_the_split() {
    run("proof", async |mut agent| {
        let server = json!({"address": agent.world.stack.prometheus_url(), "scrapeInterval": "1s", "timeout": "5s"});
        let started = format!("voice_calls_started_total{{namespace=\"{}\"}}", agent.ns.name);
        agent.manifest["spec"]["traffic"]["proof"] =
            json!({"prometheus": server, "started": started, "interval": "1s", "minCalls": 100, "requireObserved": true});
        agent.start(gates::by_hand(&[25, 50])).await?;
        let traffic = agent.calls(40);
        let second = agent.release(&Version::good("v2")).await?;
        for weight in [25, 50] {
            let seen = agent
                .wait(&format!("{weight} % to be seen"), |s| {
                    s.weights.observed.as_ref().is_some_and(|o| (o.weight, o.verdict) == (weight, SplitVerdict::Agrees))
                })
                .await?;
            let observed = seen.weights.observed.unwrap();
            println!("{}", observed.message);
            let expected = likely(u32::try_from(observed.total).unwrap(), f64::from(weight) / 100.0, 1e-6);
            assert!(
                observed.total >= 100 && expected.contains(&u64::try_from(observed.canary).unwrap()),
                "{observed:?}, expected {expected:?}"
            );
            agent.paused_at(weight).await?;
            people::command(&agent, "promote").await?;
        }
        agent.promoted(&second).await?;
        assert!(traffic.so_far().failed.is_empty(), "{:?}", traffic.so_far());
        Ok(())
    });
}
