//! Changes in the middle of a release: of the manifest, and of the route by others.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};
use voicerollout::api::VoiceRollout;
use voicerollout::api::status::Phase;

use crate::agent::{Agent, NAME, PATIENCE, ROUTE, Version};
use crate::people::command;
use crate::stack::{Result, Seen, wait_for};
use crate::{gates, run};

/// The revision that a Service selects.
async fn selected(agent: &Agent, service: &str) -> Result<Option<String>> {
    let service = agent.ns.api::<Service>().get(service).await?;
    let selector = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
    Ok(selector.get("voicerollout.dev/revision").cloned())
}

#[test]
fn a_newer_version_replaces_a_canary_that_is_on_its_way() {
    run("newer", async |mut agent| {
        agent.start(gates::by_hand(&[50])).await?;
        let (log, traffic) = (agent.weight_log().await?, agent.calls(20));
        let second = agent.release(&Version::good("v2")).await?;
        agent.paused_at(50).await?;
        let third = agent.release(&Version::good("v3")).await?;
        let status =
            agent.wait("the newer version at 50 %", |s| s.phase == Phase::Paused && s.canary_revision.as_ref() == Some(&third)).await?;
        assert_eq!(log.so_far(), [0, 50, 0, 50], "the old canary is out of traffic before the newer one gets any");
        assert_eq!((status.attempt, status.step_display.as_str()), (1, "2/2"));
        assert_eq!(selected(&agent, "agent-canary").await?.as_ref(), Some(&third));
        command(&agent, "promote").await?;
        agent.promoted(&third).await?;
        let old_gone = |s: &voicerollout::api::VoiceRolloutStatus| s.revisions.iter().all(|r| r.hash != second || r.replicas == 0);
        agent.wait("the pods of the version between to go", old_gone).await?;
        assert!(traffic.so_far().failed.is_empty(), "{:?}", traffic.so_far());
        Ok(())
    });
}

#[test]
fn going_back_to_the_stable_template_ends_a_release_at_once() {
    run("return", async |mut agent| {
        let first = agent.start(gates::by_hand(&[50])).await?.stable_revision.unwrap();
        let (log, traffic) = (agent.weight_log().await?, agent.calls(20));
        agent.release(&Version::good("v2")).await?;
        agent.paused_at(50).await?;
        assert_eq!(agent.release(&Version::good("v1")).await?, first);
        let status = agent.promoted(&first).await?;
        assert_eq!(log.so_far(), [0, 50, 0]);
        assert_eq!(status.decisions.iter().filter(|d| d.decision == "ReturnedToStable").count(), 1);
        assert!(traffic.so_far().failed.is_empty(), "{:?}", traffic.so_far());
        Ok(())
    });
}

#[test]
fn a_version_that_was_stable_comes_back_without_steps() {
    run("rollback", async |mut agent| {
        agent.manifest["spec"]["rollbackWindow"] = json!({"revisions": 2});
        let first = agent.start(gates::by_hand(&[50])).await?.stable_revision.unwrap();
        let traffic = agent.calls(20);
        let second = agent.release(&Version::good("v2")).await?;
        command(&agent, "promoteFull").await?;
        agent.promoted(&second).await?;
        let log = agent.weight_log().await?;
        assert_eq!(agent.release(&Version::good("v1")).await?, first);
        let status = agent.promoted(&first).await?;
        assert_eq!(log.so_far(), [0, 100, 0]);
        assert_eq!(status.decisions.last().map(|d| d.decision.as_str()), Some("RolledBack"), "{:?}", status.decisions);
        assert!(traffic.so_far().failed.is_empty(), "{:?}", traffic.so_far());
        Ok(())
    });
}

#[test]
fn weights_that_somebody_else_edits_are_noticed_and_put_right() {
    run("drift", async |mut agent| {
        agent.start(gates::by_hand(&[25])).await?;
        let second = agent.release(&Version::good("v2")).await?;
        agent.paused_at(25).await?;
        let log = agent.weight_log().await?;
        let weight = |at: u8, value: u8| json!({"op": "replace", "path": format!("/spec/http/1/route/{at}/weight"), "value": value});
        for theirs in [60, 10] {
            agent.edit_route(json!([weight(0, 100 - theirs), weight(1, theirs)])).await?;
            let noticed = format!("says {theirs} in place of 25");
            let told = |s: &voicerollout::api::VoiceRolloutStatus| s.decisions.iter().any(|d| d.reason.contains(&noticed));
            agent.wait("the edit to be noticed", told).await?;
            agent.paused_at(25).await?;
            assert_eq!(agent.weight().await?, 25);
        }
        wait_for("the watch to have seen it all", PATIENCE, || async {
            let seen = log.so_far();
            Ok(if seen.len() == 5 { Seen::Yes(()) } else { Seen::NotYet(format!("{seen:?}")) })
        })
        .await?;
        assert_eq!(log.so_far(), [25, 60, 25, 10, 25]);
        let events = agent.ns.api::<Event>().list(&ListParams::default()).await?;
        assert!(events.iter().any(|e| e.reason.as_deref() == Some("RoutesChangedByOthers")), "{:?}", events.items);
        command(&agent, "promote").await?;
        agent.promoted(&second).await?;
        Ok(())
    });
}

/// The VirtualService without what the operator and the API server write.
fn without_weights(mut object: Value) -> Value {
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.retain(|field, _| ["name", "namespace", "annotations", "labels"].contains(&field.as_str()));
    let managed = object["spec"]["http"].as_array_mut().unwrap().iter_mut().filter(|route| route["name"] == ROUTE);
    for route in managed {
        route["route"].as_array_mut().unwrap().iter_mut().for_each(|to| drop(to.as_object_mut().unwrap().remove("weight")));
    }
    object
}

#[test]
fn everything_else_in_a_virtual_service_stays_as_it_was() {
    run("unknown", async |mut agent| {
        agent.start(gates::by_hand(&[25])).await?;
        let before = agent.virtual_service().await?;
        let second = agent.release(&Version::good("v2")).await?;
        agent.paused_at(25).await?;
        assert_eq!(without_weights(agent.virtual_service().await?), without_weights(before));
        let retries = json!({"attempts": 2, "retryOn": "connect-failure"});
        agent
            .edit_route(json!([
                {"op": "add", "path": "/spec/http/1/retries", "value": retries},
                {"op": "add", "path": "/metadata/annotations/example.test~1changed", "value": "by hand"},
            ]))
            .await?;
        let edited = without_weights(agent.virtual_service().await?);
        command(&agent, "promote").await?;
        agent.promoted(&second).await?;
        let after = agent.virtual_service().await?;
        assert_eq!(after["spec"]["http"][1]["retries"], retries);
        assert_eq!(without_weights(after), edited);
        Ok(())
    });
}

#[test]
fn deleting_a_rollout_in_the_middle_leaves_all_calls_with_stable() {
    run("delete", async |mut agent| {
        let first = agent.start(gates::by_hand(&[50])).await?.stable_revision.unwrap();
        agent.release(&Version::good("v2")).await?;
        agent.paused_at(50).await?;
        // Pods outlive the object, as with any owner that is deleted this way: calls go on.
        let orphan = DeleteParams { propagation_policy: Some(kube::api::PropagationPolicy::Orphan), ..DeleteParams::default() };
        agent.ns.api::<VoiceRollout>().delete(NAME, &orphan).await?;
        wait_for("the VoiceRollout to be gone", PATIENCE, || async {
            let left = agent.ns.api::<VoiceRollout>().get_opt(NAME).await?;
            Ok(left.map_or(Seen::Yes(()), |object| Seen::NotYet(format!("{:?}", object.metadata.finalizers))))
        })
        .await?;
        assert_eq!(agent.weight().await?, 0);
        assert_eq!(selected(&agent, "agent-stable").await?.as_ref(), Some(&first));
        agent.all_calls_go_to(&first).await
    });
}
