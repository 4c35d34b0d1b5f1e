//! Routes that are taken out of the spec in mid-release.

use serde_json::{Value, json};
use voicerollout::api::VoiceRollout;
use voicerollout::sim::{Fault, Verb};

use crate::cluster::script::Script;
use crate::cluster::{self, Cluster};

/// [`cluster::GATES`] with two more routes: `backup` beside `primary`, and another VirtualService.
fn manifests() -> String {
    let split = "route: [{destination: {host: agent-stable}, weight: 100}, {destination: {host: agent-canary}, weight: 0}]";
    let second = format!(
        "    - name: backup\n      {split}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: second, namespace: voice}}\nspec:\n  hosts: [second.example.com]\n  http:\n    - {split}\n---\napiVersion: voicerollout.dev/v1alpha1\nkind: VoiceRollout"
    );
    let all = cluster::GATES.replace("---\napiVersion: voicerollout.dev/v1alpha1\nkind: VoiceRollout", &second);
    all.replace("[{name: agent, routes: [primary]}]", "[{name: agent, routes: [primary, backup]}, {name: second}]")
}

async fn at_25(script: &Script) -> Cluster {
    let cluster = Cluster::start_with(script, voicerollout::sim::WorldConfig::default()).await;
    cluster.apply(&manifests()).await;
    cluster.wait_phase("agent", voicerollout::api::status::Phase::Healthy).await;
    cluster.set_image("agent", "agent:v2").await;
    let status = cluster.wait("agent", "at 25 %", |s| s.weights.applied == 25 && s.step.weight_since.is_some()).await;
    assert_eq!(status.managed_routes.len(), 3, "{:?}", status.managed_routes);
    cluster
}

async fn name(cluster: &Cluster, virtual_services: Value) {
    let patch = json!([{"op": "replace", "path": "/spec/traffic/istio/virtualServices", "value": virtual_services}]);
    let patch: json_patch::Patch = serde_json::from_value(patch).expect("a patch");
    let api: kube::Api<VoiceRollout> = cluster.rollouts();
    api.patch("agent", &Default::default(), &kube::api::Patch::Json::<()>(patch)).await.expect("patched");
}

fn canary(cluster: &Cluster, name: &str, route: usize) -> Value {
    let object = cluster.server.peek("virtualservices", "voice", name).expect("there");
    object["spec"]["http"][route]["route"][1]["weight"].clone()
}

#[tokio::test(start_paused = true)]
async fn routes_that_the_spec_does_not_name_any_more_are_given_back_though_the_server_fails_and_the_operator_dies() {
    let mut cluster = at_25(&Script::good()).await;
    cluster.server.intercept(|request| match (&*request.user, request.verb, &*request.resource) {
        ("operator", Verb::Patch, "virtualservices") => Fault::Status(500),
        _ => Fault::None,
    });
    name(&cluster, json!([{"name": "agent", "routes": ["primary"]}])).await;
    let told = cluster.wait("agent", "told of it", |s| s.message.contains("not in the spec any more")).await;
    assert!(told.message.contains("voice/second") && told.message.contains("route backup"), "{}", told.message);
    cluster.restart_operator().await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!((canary(&cluster, "agent", 1), canary(&cluster, "second", 0)), (json!(25), json!(25)));
    cluster.server.clear_interceptors();
    let done = cluster.wait("agent", "given back", |s| s.managed_routes.len() == 1).await;
    assert_eq!((canary(&cluster, "agent", 1), canary(&cluster, "second", 0)), (json!(0), json!(0)));
    assert_eq!((canary(&cluster, "agent", 0), done.weights.applied), (json!(25), 25));
    assert_eq!(done.decisions.iter().filter(|d| d.decision == "RouteReturned").count(), 1, "{:?}", done.decisions);
    cluster.wait("agent", "promoted", |s| s.phase == voicerollout::api::status::Phase::Healthy).await;
    assert!(cluster.world.violations().is_empty(), "{:?}", cluster.world.violations());
}

#[tokio::test(start_paused = true)]
async fn a_route_that_another_rollout_has_taken_over_is_left_alone() {
    let cluster = at_25(&Script::good()).await;
    let other = cluster::AGENT.split("---\n").last().expect("a rollout").replace("agent", "other");
    cluster.apply(&other.replace("[{name: other, routes: [primary]}]", "[{name: second}]")).await;
    name(&cluster, json!([{"name": "agent", "routes": ["primary", "backup"]}])).await;
    let done = cluster.wait("agent", "let go", |s| s.managed_routes.len() == 2).await;
    let left = done.decisions.iter().find(|d| d.decision == "RouteLeft").expect("a decision");
    assert!(left.reason.contains("VoiceRollout voice/other"), "{}", left.reason);
    assert_eq!(canary(&cluster, "second", 0), json!(25));
}
