//! What a manifest refers to is missing, wrong or taken: it is said where to look, and put right it goes on.

use kube::api::DeleteParams;
use serde_json::{Value, json};
use voicerollout::api::VoiceRollout;
use voicerollout::api::status::{Phase, VoiceRolloutStatus};

use crate::agent::{Agent, NAME, PATIENCE, Version, rollout, service};
use crate::stack::{Result, Seen, wait_for};
use crate::{gates, run};

fn says(status: &VoiceRolloutStatus, words: &str) -> bool {
    status.message.contains(words) && status.conditions.iter().any(|c| c.type_ == "ReferencesResolved" && c.status == "False")
}

/// Before the first deployment something is wrong; `mend` puts it right.
async fn first_deployment_waits(agent: &mut Agent, words: &str, mend: impl AsyncFnOnce(&mut Agent) -> Result<()>) -> Result<()> {
    agent.set_version(&Version::good("v1"));
    agent.apply().await?;
    agent.wait(words, |status| says(status, words)).await?;
    mend(agent).await?;
    agent.phase(Phase::Healthy).await?;
    Ok(())
}

#[test]
fn a_missing_service_is_named_and_waited_for() {
    run("no-service", async |mut agent| {
        agent.ns.api::<k8s_openapi::api::core::v1::Service>().delete("agent-canary", &DeleteParams::default()).await?;
        first_deployment_waits(&mut agent, "Service agent-canary does not exist", async |agent| {
            agent.ns.apply(&service("agent-canary", json!({"app": NAME})).to_string()).await.map(|_| ())
        })
        .await
    });
}

#[test]
fn a_service_that_selects_nothing_is_named() {
    run("no-pods", async |mut agent| {
        agent.ns.apply(&service("agent-stable", json!({"app": "another"})).to_string()).await?;
        first_deployment_waits(&mut agent, "Service agent-stable selects app=another", async |agent| {
            agent.ns.apply(&service("agent-stable", json!({"app": NAME})).to_string()).await.map(|_| ())
        })
        .await
    });
}

#[test]
fn a_missing_virtual_service_is_named_and_waited_for() {
    run("no-route", async |mut agent| {
        agent.manifest["spec"]["traffic"]["istio"]["virtualServices"] = json!([{"name": "another"}]);
        first_deployment_waits(&mut agent, "another does not exist", async |agent| {
            agent.manifest["spec"]["traffic"]["istio"]["virtualServices"] = json!([{"name": NAME, "routes": ["calls"]}]);
            agent.apply().await.map(|_| ())
        })
        .await
    });
}

#[test]
fn a_route_that_is_named_wrongly_is_told_with_the_names_there_are() {
    run("wrong-route", async |mut agent| {
        agent.manifest["spec"]["traffic"]["istio"]["virtualServices"] = json!([{"name": NAME, "routes": ["cals"]}]);
        let words = "has no http route \"cals\"; write one of those it has in `routes` (\"status-page\", \"calls\")";
        first_deployment_waits(&mut agent, words, async |agent| {
            agent.manifest["spec"]["traffic"]["istio"]["virtualServices"] = json!([{"name": NAME, "routes": ["calls"]}]);
            agent.apply().await.map(|_| ())
        })
        .await
    });
}

/// A route with other than two destinations is refused; in the middle of a release the weight stays where it is.
#[test]
fn a_route_with_one_destination_or_three_is_refused() {
    run("destinations", async |mut agent| {
        agent.start(gates::by_hand(&[25])).await?;
        agent.release(&Version::good("v2")).await?;
        agent.paused_at(25).await?;
        let route = agent.virtual_service().await?["spec"]["http"][1]["route"].clone();
        let third = json!({"destination": {"host": "elsewhere"}, "weight": 0});
        let three: Vec<Value> = route.as_array().unwrap().iter().chain([&third]).cloned().collect();
        for (destinations, words) in [(json!([route[0]]), "has one destination"), (json!(three), "has 3 destinations")] {
            let put = |value: &Value| json!([{"op": "replace", "path": "/spec/http/1/route", "value": value}]);
            agent.edit_route(put(&destinations)).await?;
            let told = |s: &VoiceRolloutStatus| s.conditions.iter().any(|c| c.type_ == "ReferencesResolved" && c.message.contains(words));
            agent.wait(words, told).await?;
            assert_eq!(agent.virtual_service().await?["spec"]["http"][1]["route"], destinations, "nobody wrote to it");
            agent.edit_route(put(&route)).await?;
            let well = |s: &VoiceRolloutStatus| s.conditions.iter().any(|c| c.type_ == "ReferencesResolved" && c.status == "True");
            agent.wait("the route to be usable again", well).await?;
            agent.paused_at(25).await?;
        }
        Ok(())
    });
}

#[test]
fn two_rollouts_on_one_route_are_refused() {
    run("rivals", async |mut agent| {
        agent.start(gates::by_hand(&[25])).await?;
        agent.release(&Version::good("v2")).await?;
        agent.paused_at(25).await?;
        for name in ["rival-stable", "rival-canary"] {
            agent.ns.apply(&service(name, json!({"app": "rival"})).to_string()).await?;
        }
        agent.ns.apply(&rollout("rival", "rival-stable", "rival-canary").to_string()).await?;
        let refused = wait_for("the second rollout to be refused", PATIENCE, || async {
            let status = agent.ns.api::<VoiceRollout>().get("rival").await?.status.unwrap_or_default();
            Ok(if status.phase == Phase::Invalid { Seen::Yes(status) } else { Seen::NotYet(format!("{status:?}")) })
        })
        .await?;
        let words = format!("is managed by VoiceRollout {}/{NAME} already", agent.ns.name);
        assert!(refused.message.contains(&words), "{}", refused.message);
        assert!(refused.conditions.iter().any(|c| c.type_ == "InvalidSpec" && c.reason == "RouteConflict"), "{:?}", refused.conditions);
        assert_eq!(agent.paused_at(25).await?.phase, Phase::Paused, "the first one is not disturbed");
        Ok(())
    });
}

/// A Secret without the label is not read: the gate says which label, and the judge is not asked.
#[test]
fn a_secret_without_the_label_is_not_read() {
    run("secret", async |mut agent| {
        let mut gate = gates::judge(&agent);
        gate["errorBudget"] = json!("1s");
        agent.gates(&[gate]).await?;
        let bare =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "judge"}, "stringData": {"api-key": crate::env::JUDGE_KEY}});
        agent.ns.apply(&bare.to_string()).await?;
        agent.start(gates::gated(&[25])).await?;
        let _traffic = agent.calls(10);
        let second = agent.release(&Version::good("v2")).await?;
        let held = agent.paused_at(25).await?;
        assert!(held.gates[0].message.contains("voicerollout.dev/use"), "{:?}", held.gates);
        assert_eq!(agent.world.judge_requests(&agent.model()).await?, 0);
        let mut labelled = bare;
        labelled["metadata"]["labels"] = json!({"voicerollout.dev/use": "gates"});
        agent.ns.apply(&labelled.to_string()).await?;
        agent.promoted(&second).await?;
        let everything = serde_json::to_string(&(agent.status().await?, agent.runs().await?)).unwrap();
        assert!(!everything.contains(crate::env::JUDGE_KEY), "the key is in a status");
        Ok(())
    });
}
