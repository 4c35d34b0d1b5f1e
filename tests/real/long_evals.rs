//! Evals that go on after their start was answered.

use serde_json::{Value, json};
use voicerollout::api::run::InFlight;

use crate::agent::{Agent, PATIENCE, Version};
use crate::stack::{Result, Seen, wait_for};
use crate::{gates, run_alone};

/// A suite that takes 20 seconds: started, polled, and read from counts.
fn long_evals(agent: &Agent) -> Value {
    let ask = json!({
        "suite": "voice", "version": "{{args.canary-hash}}", "target": agent.eval_target(), "cases": 25, "durationMs": 20_000,
    });
    json!({
        "name": "eval-pass-rate", "errorBudget": "60s",
        "threshold": {"successCondition": "result >= 0.92", "provider": {"web": {
            "method": "POST", "url": format!("{}/api/runs", agent.world.evals), "body": ask.to_string(), "timeout": "5s",
            "run": {
                "poll": {"url": "{$.links.self}", "interval": "1s"},
                "done": "result.status == 'completed'", "failed": "result.status in ['failed', 'cancelled']",
                "deadline": "2m", "cancel": {"method": "POST", "url": "{$.links.cancel}"},
            },
            "values": {"pass": "{$.results.stats.successes}", "fail": "{$.results.stats.failures}"},
            "result": "double(pass) / double(pass + fail)",
        }}},
    })
}

/// What the harness knows of the runs against this test's agent: versions of other tests have the same hash.
async fn runs_at_the_harness(agent: &Agent) -> Result<Vec<Value>> {
    let all: Value = reqwest::get(format!("{}/api/runs", agent.world.evals)).await?.json().await?;
    Ok(all.as_array().into_iter().flatten().filter(|run| run["target"] == agent.eval_target()).cloned().collect())
}

/// The measurement that is under way.
async fn in_flight(agent: &Agent) -> Result<Option<InFlight>> {
    let gates = agent.runs().await?.into_iter().filter_map(|run| run.status).flat_map(|status| status.gates);
    Ok(gates.filter_map(|gate| gate.in_flight).next())
}

/// How often the operators' containers have been started again.
async fn restarts(agent: &Agent) -> Result<i32> {
    let pods = agent.world.operators().await?;
    let containers = pods.into_iter().filter_map(|pod| pod.status).flat_map(|status| status.container_statuses.unwrap_or_default());
    Ok(containers.map(|container| container.restart_count).sum())
}

#[test]
fn a_20_second_eval_is_polled_on_after_the_operators_were_killed() {
    run_alone("long-evals", async |mut agent| {
        agent.gates(&[long_evals(&agent)]).await?;
        agent.start(gates::gated(&[25])).await?;
        let (log, traffic, before) = (agent.weight_log().await?, agent.calls(20), restarts(&agent).await?);
        let second = agent.release(&Version::good("v2")).await?;
        let started = wait_for("the eval to be under way", PATIENCE, || async {
            let flight = in_flight(&agent).await?.filter(|flight| flight.handle.is_some());
            Ok(flight.map_or(Seen::NotYet("no handle yet".into()), Seen::Yes))
        })
        .await?;
        agent.world.kill_operators().await?;
        assert_eq!(runs_at_the_harness(&agent).await?[0]["state"], "running", "killed in the middle");
        wait_for("the operators to be there again", PATIENCE, || async {
            let now = restarts(&agent).await?;
            Ok(if now >= before + 2 { Seen::Yes(()) } else { Seen::NotYet(format!("{now} restarts, {before} before")) })
        })
        .await?;
        agent.promoted(&second).await?;
        let runs = runs_at_the_harness(&agent).await?;
        assert_eq!(runs.len(), 1, "one run was started: {runs:?}");
        let run = &runs[0];
        assert_eq!((&run["key"], &run["asked"], &run["state"]), (&json!(started.key), &json!(1), &json!("done")), "{run}");
        assert_eq!(log.so_far(), [0, 25, 100, 0]);
        assert!(traffic.so_far().failed.is_empty(), "{:?}", traffic.so_far());
        Ok(())
    });
}
