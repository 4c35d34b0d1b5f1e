//! Releases that go well.

use serde_json::json;
use voicerollout::api::status::Phase;

use crate::agent::{Agent, NAME, PATIENCE, Version};
use crate::binomial::likely;
use crate::stack::{Result, Seen, WsCalls, wait_for};
use crate::{audit, gates, people, run};

/// Calls that the agents of a test hold, as they count them themselves.
async fn wait_active(agent: &Agent, count: &str) -> Result<()> {
    let query = format!("sum(voice_calls_active{{namespace=\"{}\"}})", agent.ns.name);
    wait_for(format!("{count} calls at the agents"), PATIENCE, || async {
        let result = agent.world.stack.query(&query).await?;
        let value = result.first().and_then(|one| one["value"][1].as_str().map(str::to_owned)).unwrap_or_default();
        Ok(if value == count { Seen::Yes(()) } else { Seen::NotYet(value) })
    })
    .await
}

#[test]
fn a_good_release_is_promoted_and_no_open_call_is_disturbed() {
    run("good", async |mut agent| {
        let mut steps = gates::gated(&[5, 25, 50]);
        steps.as_array_mut().unwrap().push(json!({"setWeight": 100}));
        // Callers talk on; their pods stay until they have finished.
        agent.manifest["spec"]["drain"] = json!({"maxDrain": "1h"});
        let first = agent.start(steps).await?.stable_revision.unwrap();
        let mut calls = WsCalls::open(&agent.ns.host(), "/ws", 20).await?;
        assert_eq!(calls.report().started[&first], 20);
        let (log, traffic) = (agent.weight_log().await?, agent.calls(20));

        let second = agent.release(&Version::good("v2")).await?;
        agent.wait("half of the traffic", |status| status.weights.applied == 50).await?;
        calls.open_more(&agent.ns.host(), "/ws", 10).await?;
        let status = agent.promoted(&second).await?;

        assert_eq!(log.so_far(), [0, 5, 25, 50, 100, 0], "weights of the route, one after the other");
        assert!(status.decisions.iter().any(|d| d.decision == "Promoted" && d.reason.contains("every step passed")), "{status:?}");
        agent.all_calls_go_to(&second).await?;
        let answers = traffic.so_far();
        drop(traffic);
        assert!(answers.failed.is_empty() && answers.of(&first) > 0 && answers.of(&second) > 0, "{answers:?}");

        wait_active(&agent, "30").await?;
        let report = calls.hang_up().await;
        assert!(report.ended == 30 && report.cut.is_empty(), "{report:?}");
        wait_active(&agent, "0").await?;
        let failed =
            agent.world.stack.query(&format!("sum(voice_calls_total{{namespace=\"{}\",result=\"failed\"}})", agent.ns.name)).await?;
        assert_eq!(failed[0]["value"][1], "0", "calls that the agents saw cut");
        Ok(())
    });
}

#[test]
fn a_release_with_three_gates_takes_at_most_80_writes() {
    run("writes", async |mut agent| {
        let mut steps = gates::gated(&[5, 25, 50]);
        steps.as_array_mut().unwrap().push(json!({"setWeight": 100}));
        agent.start(steps).await?;
        let _traffic = agent.calls(20);
        let before = audit::writes(agent.world, &agent.ns.name)?;
        let second = agent.release(&Version::good("v2")).await?;
        agent.promoted(&second).await?;
        // The old pods go: that belongs to the release, too.
        let gone = |status: &voicerollout::api::VoiceRolloutStatus| status.revisions.iter().all(|r| r.hash == second || r.replicas == 0);
        agent.wait("the old pods to go", gone).await?;
        let mut writes = audit::writes(agent.world, &agent.ns.name)?;
        writes.iter_mut().for_each(|(what, count)| *count -= before.get(what).copied().unwrap_or(0));
        let total: u32 = writes.values().sum();
        println!("{total} writes: {writes:?}");
        assert!(total > 10 && total <= 80, "{total} writes: {writes:?}");
        Ok(())
    });
}

#[test]
fn new_calls_are_shared_as_the_weight_says() {
    run("shares", async |mut agent| {
        const CALLS: u32 = 2000;
        agent.start(gates::by_hand(&[5, 25, 50])).await?;
        let second = agent.release(&Version::good("v2")).await?;
        for (before, weight) in [(0, 5), (5, 25), (25, 50)] {
            agent.paused_at(weight).await?;
            // Envoy follows within a second; calls from before would blur the count.
            let caller = agent.caller();
            wait_for(format!("Envoy to have {weight} %"), PATIENCE, || async {
                let answers = caller.calls(200).await;
                // In percent, of 200 calls: more than halfway from the weight before.
                let halfway = before + weight;
                Ok(if answers.of(&second) >= halfway as u64 { Seen::Yes(()) } else { Seen::NotYet(format!("{answers:?}")) })
            })
            .await?;
            let answers = caller.calls(CALLS as usize).await;
            let expected = likely(CALLS, f64::from(weight) / 100.0, 1e-6);
            println!("at {weight} %: {} of {CALLS}, expected {expected:?}", answers.of(&second));
            assert!(
                answers.failed.is_empty() && expected.contains(&answers.of(&second)),
                "at {weight} %: {answers:?}, expected {expected:?}"
            );
            people::command(&agent, "promote").await?;
        }
        agent.promoted(&second).await?;
        Ok(())
    });
}

#[test]
fn traffic_can_be_split_by_subsets() {
    run("subsets", async |mut agent| {
        let subset = |name: &str| json!({"name": name, "labels": {"app": NAME}});
        let rule = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": NAME},
            "spec": {"host": "agent-all", "subsets": [subset("old"), subset("new")]},
        });
        let to = |subset: &str, weight: u8| json!({"destination": {"host": "agent-all", "subset": subset, "port": {"number": 80}}, "weight": weight});
        let mut route = agent.route();
        route["spec"]["http"][1]["route"] = json!([to("old", 100), to("new", 0)]);
        agent.ns.apply(&crate::agent::service("agent-all", json!({"app": NAME})).to_string()).await?;
        agent.ns.apply(&rule.to_string()).await?;
        agent.ns.apply(&route.to_string()).await?;
        let istio = agent.manifest["spec"]["traffic"]["istio"].as_object_mut().unwrap();
        istio.remove("stableService");
        istio.remove("canaryService");
        istio.insert("destinationRule".into(), json!({"name": NAME, "stableSubset": "old", "canarySubset": "new"}));
        agent.gates(&[gates::first_token(&agent)]).await?;

        let first = agent.start(gates::gated(&[50])).await?.stable_revision.unwrap();
        let (log, traffic) = (agent.weight_log().await?, agent.calls(20));
        let second = agent.release(&Version::good("v2")).await?;
        agent.promoted(&second).await?;
        assert_eq!(log.so_far(), [0, 50, 100, 0]);
        let answers = traffic.so_far();
        assert!(answers.failed.is_empty() && answers.of(&first) > 0, "{answers:?}");
        agent.all_calls_go_to(&second).await
    });
}

#[test]
fn kubectl_get_shows_where_a_release_stands() {
    run("columns", async |mut agent| {
        agent.start(gates::by_hand(&[25])).await?;
        agent.release(&Version::good("v2")).await?;
        let status = agent.paused_at(25).await?;
        let shown = agent.world.stack.kubectl(&["get", "voicerollouts", "-n", &agent.ns.name]).await?;
        let lines: Vec<Vec<&str>> =
            shown.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
        let (stable, canary) = (status.stable_revision.unwrap(), status.canary_revision.unwrap());
        assert_eq!(lines[0], ["NAME", "PHASE", "STEP", "WEIGHT", "GATE", "STABLE", "CANARY", "AGE"], "{shown}");
        assert_eq!(lines[1][..7], [NAME, "Paused", "2/2", "25", "step 2/2: paused until promote", &stable, &canary], "{shown}");
        let wide = agent.world.stack.kubectl(&["get", "vr", "-n", &agent.ns.name, "-o", "wide"]).await?;
        assert!(wide.contains("MESSAGE") && wide.contains("25 % of new calls go to revision"), "{wide}");
        Ok(())
    });
}

#[test]
fn the_scale_subresource_is_about_the_stable_version() {
    run("scale", async |mut agent| {
        agent.start(gates::by_hand(&[50])).await?;
        agent.release(&Version::good("v2")).await?;
        let status = agent.paused_at(50).await?;
        let stack = agent.world.stack;
        stack.kubectl(&["scale", "voicerollout", NAME, "-n", &agent.ns.name, "--replicas=4"]).await?;
        let pods = |hash: &Option<String>, status: &voicerollout::api::VoiceRolloutStatus| {
            status.revisions.iter().find(|r| Some(&r.hash) == hash.as_ref()).map_or(0, |r| r.ready)
        };
        let (stable, canary) = (status.stable_revision, status.canary_revision);
        let scaled =
            agent.wait("4 stable pods and 2 of the canary", |s| pods(&stable, s) == 4 && pods(&canary, s) == 2 && s.replicas == 4).await?;
        assert_eq!(scaled.selector, format!("app={NAME},voicerollout.dev/revision={}", stable.unwrap()));
        let raw = format!("/apis/voicerollout.dev/v1alpha1/namespaces/{}/voicerollouts/{NAME}/scale", agent.ns.name);
        let scale: serde_json::Value = serde_json::from_str(&stack.kubectl(&["get", "--raw", &raw]).await?).unwrap();
        assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(4), &json!(4)), "{scale}");
        assert_eq!(scaled.phase, Phase::Paused);
        Ok(())
    });
}
