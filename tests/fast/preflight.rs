//! What would cut live calls: told, and with `Enforce` in the way of a release until it is fixed.

use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};
use serde_json::json;
use voicerollout::api::conditions::PREFLIGHT;
use voicerollout::api::status::Phase;
use voicerollout::api::{VoiceRollout, VoiceRolloutStatus};

use crate::cluster::{AGENT, Cluster};

/// [`AGENT`] with a grace period that is long enough, and more in its spec.
fn agent(more: &str) -> String {
    let pods = AGENT.replace("      containers: [", "      terminationGracePeriodSeconds: 3660\n      containers: [");
    pods.replace("  replicas: 4\n", &format!("  replicas: 4\n{more}"))
}

/// Status, reason and message of the condition.
fn condition(status: &VoiceRolloutStatus) -> (String, String, String) {
    let found = status.conditions.iter().find(|c| c.type_ == PREFLIGHT).expect("the condition");
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

/// Notes of the events with a reason.
fn events(cluster: &Cluster, reason: &str) -> Vec<String> {
    let posted = cluster.server.requests_where(|r| r.resource == "events" && r.verb.is_write() && r.json()["reason"] == reason);
    posted.iter().map(|r| r.json()["note"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_warning_is_told_once_and_holds_nothing() {
    let cluster = Cluster::start().await;
    // As if the mesh injected its proxy: that is on the pods alone, and here by the template.
    let injected = r#"{"containers":["istio-proxy"],"initContainers":["istio-init"]}"#;
    let annotated = format!("metadata: {{labels: {{app: agent}}, annotations: {{sidecar.istio.io/status: '{injected}'}}}}");
    let manifests = AGENT.replace("metadata: {labels: {app: agent}}", &annotated);
    cluster.apply(&manifests).await;
    let first = cluster.wait_phase("agent", Phase::Healthy).await;
    let (status, reason, message) = condition(&first);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Findings"), "{message}");
    let lines: Vec<&str> = message.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("GracePeriodTooShort: ") && lines[1].starts_with("SidecarStopsEarly: "), "{message}");
    assert!(lines.iter().all(|l| l.contains(" Fix: ")), "{message}");
    let told = events(&cluster, "PreflightFindings").len();
    cluster.set_image("agent", "agent:v2").await;
    let done = cluster.wait("agent", "promoted", |s| s.phase == Phase::Healthy && s.stable_revision != first.stable_revision).await;
    assert_eq!((condition(&done).2, done.preflight.len()), (message, 2));
    assert_eq!(events(&cluster, "PreflightFindings").len(), told, "nothing new was found");
    assert!(cluster.world.violations().is_empty(), "{:?}", cluster.world.violations());
}

#[tokio::test(start_paused = true)]
async fn an_enforced_finding_keeps_a_release_at_0_and_one_that_appears_holds_the_next_raise() {
    let cluster = Cluster::start().await;
    cluster.apply(&agent("  preflight: Enforce\n").replace("timeout: 0s", "timeout: 10s")).await;
    let first = cluster.wait_phase("agent", Phase::Healthy).await;
    assert_eq!(condition(&first).1, "RouteTimeout");
    cluster.set_image("agent", "agent:v2").await;
    let held = cluster.wait_phase("agent", Phase::Paused).await;
    assert_eq!((held.weights.applied, held.step_display.as_str()), (0, "1/4"));
    assert!(held.waiting_for.starts_with("preflight: RouteTimeout: VirtualService voice/agent: http route primary (10s)"), "{held:?}");
    assert!(held.waiting_for.contains(" Fix: take `timeout` out of http route primary"), "{}", held.waiting_for);
    // No deadline runs against somebody who has to fix it.
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    assert_eq!(cluster.status("agent").await.phase, Phase::Paused);

    cluster.patch_route("agent", json!([{"op": "remove", "path": "/spec/http/0/timeout"}])).await;
    let going = cluster.wait("agent", "at 25 %", |s| s.weights.applied == 25).await;
    assert_eq!(condition(&going).0, "True");
    assert_eq!(events(&cluster, "PreflightPassed").len(), 1);

    let mark = |value: serde_json::Value| json!([{"op": "add", "path": "/metadata/annotations", "value": value}]);
    let tracked = json!({"argocd.argoproj.io/tracking-id": "voice:networking.istio.io/VirtualService:voice/agent"});
    cluster.patch_route("agent", mark(tracked.clone())).await;
    let held = cluster.wait_phase("agent", Phase::Paused).await;
    assert_eq!((held.weights.applied, held.step_display.as_str()), (25, "3/4"));
    assert!(held.waiting_for.contains("is kept by the Argo CD Application voice"), "{}", held.waiting_for);
    let mut said = tracked.clone();
    said["voicerollout.dev/gitops-ignored"] = "true".into();
    cluster.patch_route("agent", mark(said)).await;
    cluster.wait("agent", "at 50 %", |s| s.weights.applied == 50).await;

    cluster.patch_route("agent", mark(tracked)).await;
    cluster.wait("agent", "found again", |s| !s.preflight.is_empty()).await;
    cluster.act("agent", "abort").await;
    let done = cluster.wait_phase("agent", Phase::Degraded).await;
    assert_eq!((done.weights.applied, done.stable_revision), (0, first.stable_revision));
    assert!(cluster.world.violations().is_empty(), "{:?}", cluster.world.violations());
}

#[tokio::test(start_paused = true)]
async fn nothing_found_is_no_event() {
    let cluster = Cluster::start().await;
    cluster.apply(&agent("")).await;
    let first = cluster.wait_phase("agent", Phase::Healthy).await;
    assert_eq!(condition(&first).0, "True");
    assert_eq!(events(&cluster, "PreflightFindings").len() + events(&cluster, "PreflightPassed").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_word_that_preflight_does_not_know_is_refused_with_those_that_it_knows() {
    let cluster = Cluster::start().await;
    let manifest = agent("  preflight: Strict\n");
    let rollout: DynamicObject = serde_yaml::from_str(manifest.split("---\n").last().expect("a rollout")).expect("a manifest");
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), "voice", &ApiResource::erase::<VoiceRollout>(&()));
    let refused = api.create(&PostParams::default(), &rollout).await.expect_err("refused").to_string();
    for part in ["spec.preflight", "Strict", "Warn", "Enforce"] {
        assert!(refused.contains(part), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_of_a_single_revision_is_found_and_one_of_the_rollout_is_not() {
    let cluster = Cluster::start().await;
    cluster.apply(&agent("")).await;
    let first = cluster.wait_phase("agent", Phase::Healthy).await;
    let autoscaler = |target: String| {
        format!(
            "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: calls, namespace: voice}}\nspec:\n  maxReplicas: 9\n  scaleTargetRef: {target}\n"
        )
    };
    let set = format!("agent-{}", first.stable_revision.expect("one"));
    cluster.apply(&autoscaler(format!("{{apiVersion: apps/v1, kind: ReplicaSet, name: {set}}}"))).await;
    let found = cluster.wait("agent", "told of it", |s| !s.preflight.is_empty()).await;
    assert_eq!(condition(&found).1, "AutoscaledReplicaSet");
    assert!(condition(&found).2.contains(&format!("HorizontalPodAutoscaler calls scales ReplicaSet {set}")), "{}", condition(&found).2);
    cluster.apply(&autoscaler("{apiVersion: voicerollout.dev/v1alpha1, kind: VoiceRollout, name: agent}".into())).await;
    cluster.wait("agent", "clean again", |s| s.preflight.is_empty()).await;
}
