//! Stickiness by header buckets: callers keep their version while the weight grows.

use std::time::Duration;

use serde_json::{Value, json};
use voicerollout::api::status::Phase;
use voicerollout::sim::world::{Callers, KnownCallers};
use voicerollout::sim::{Fault, Verb, WorldConfig};

use crate::cluster::script::Script;
use crate::cluster::{self, Cluster};

const HEADER: &str = "x-voice-bucket";
const CALLERS: u64 = 500;

/// [`cluster::AGENT`] with buckets, and with conditions on its route.
fn manifests() -> String {
    let stickiness = format!("      stickiness: {{headerBuckets: {{header: {HEADER}}}}}\n  steps:");
    let steps = "    - setWeight: 5\n    - pause: {duration: 5m}\n    - setWeight: 25\n    - pause: {duration: 5m}\n    - setWeight: 50\n    - pause: {duration: 5m}\n    - setWeight: 100\n    - pause: {duration: 5m}\n";
    let head = cluster::AGENT.split("  steps:").next().expect("a manifest");
    let matched = head.replace("      timeout: 0s\n", "      timeout: 0s\n      match: [{uri: {prefix: /ws}}, {uri: {exact: /token}}]\n");
    format!("{matched}{stickiness}\n{steps}")
}

/// The first version of the agent, and callers who come back.
async fn sticky() -> (Cluster, String, Value) {
    let known = KnownCallers { count: CALLERS, buckets: 100, header: HEADER.into() };
    let callers = Callers { every: Duration::from_millis(400), known: Some(known), ..Callers::default() };
    let config = WorldConfig { callers: Some(callers), ..WorldConfig::default() };
    let cluster = Cluster::start_with(&Script::good(), config).await;
    cluster.apply(&manifests()).await;
    let first = cluster.wait_phase("agent", Phase::Healthy).await.stable_revision.expect("a revision");
    let before = spec(&cluster);
    cluster.set_image("agent", "agent:v2").await;
    (cluster, first, before)
}

fn spec(cluster: &Cluster) -> Value {
    cluster.server.peek("virtualservices", "voice", "agent").expect("there")["spec"].clone()
}

fn generated(cluster: &Cluster) -> Vec<String> {
    let spec = spec(cluster);
    let names = spec["http"].as_array().expect("a list").iter().filter_map(|r| r["name"].as_str());
    names.filter(|n| n.starts_with("vr/")).map(String::from).collect()
}

async fn at(cluster: &Cluster, weight: i32) {
    cluster.wait("agent", &format!("at {weight} %"), |s| s.weights.applied == weight && s.step.weight_since.is_some()).await;
    // Until every proxy knows.
    tokio::time::sleep(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn callers_keep_their_version_while_the_weight_grows_and_the_route_is_what_it_was_in_the_end() {
    let (cluster, first, before) = sticky().await;
    for weight in [5, 25, 50, 100] {
        at(&cluster, weight).await;
        assert_eq!(generated(&cluster), ["vr/voice/agent/primary/canary", "vr/voice/agent/primary/stable"]);
        cluster.world.reset_calls();
        tokio::time::sleep(Duration::from_secs(240)).await;
        let calls = cluster.world.calls();
        let total: u64 = calls.values().map(|c| c.started).sum();
        let canary = total - calls.get(&first).map_or(0, |c| c.started);
        // Callers are drawn at random, 600 calls: 4 standard deviations are 8.2 % at most.
        let share = canary as f64 / total as f64 * 100.0;
        assert!((share - f64::from(weight)).abs() < 8.2, "{canary} of {total} at {weight} %");
    }
    let second = cluster.wait("agent", "promoted", |s| s.phase == Phase::Healthy && s.stable_revision.as_ref() != Some(&first)).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(spec(&cluster), before, "the operator leaves nothing behind");
    let moves = cluster.world.moves();
    let canary = second.stable_revision.expect("a revision");
    let back: Vec<_> = moves.iter().filter(|m| m.from != first || m.to != canary).collect();
    assert!(back.is_empty(), "moved back: {back:?}");
    let mut moved: Vec<u64> = moves.iter().map(|m| m.caller).collect();
    moved.sort_unstable();
    let before_dedup = moved.len();
    moved.dedup();
    assert!(moved.len() > 350 && moved.len() == before_dedup, "each once: {} of {before_dedup}", moved.len());
    assert!(cluster.world.violations().is_empty(), "{:?}", cluster.world.violations());
}

#[tokio::test(start_paused = true)]
async fn an_abort_takes_the_generated_routes_away_with_the_weights_in_one_write() {
    let (cluster, first, before) = sticky().await;
    at(&cluster, 25).await;
    cluster.server.clear_journal();
    cluster.act("agent", "abort").await;
    cluster.wait("agent", "aborted", |s| s.phase == Phase::Degraded).await;
    assert_eq!(spec(&cluster), before);
    let writes = cluster.server.requests_where(|r| &*r.user == "operator" && r.verb.is_write() && &*r.resource == "virtualservices");
    assert_eq!(writes.len(), 1, "{writes:?}");
    tokio::time::sleep(Duration::from_secs(10)).await;
    cluster.world.reset_calls();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let calls = cluster.world.calls();
    assert!(calls.iter().all(|(revision, c)| *revision == first || c.started == 0), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn an_abort_goes_on_after_failures_and_a_restart_and_nobody_waits_for_the_generated_routes() {
    let (mut cluster, _, before) = sticky().await;
    at(&cluster, 25).await;
    cluster.server.intercept(|request| match (&*request.user, request.verb, &*request.resource) {
        ("operator", Verb::Patch, "virtualservices") => Fault::Status(500),
        _ => Fault::None,
    });
    cluster.act("agent", "abort").await;
    cluster.wait("agent", "reverting", |s| s.phase == Phase::Reverting).await;
    cluster.restart_operator().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(generated(&cluster).len(), 2);
    cluster.server.clear_interceptors();
    cluster.wait("agent", "aborted", |s| s.phase == Phase::Degraded).await;
    assert_eq!(spec(&cluster), before);
    // An old copy comes back: it is taken away again.
    let late = json!({"name": "vr/voice/agent/primary/canary", "route": [{"destination": {"host": "agent-canary"}}]});
    cluster.patch_route("agent", json!([{"op": "add", "path": "/spec/http/0", "value": late}])).await;
    cluster.wait("agent", "put right", |s| s.weights.applied == 0 && s.phase == Phase::Degraded).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(spec(&cluster), before);
}

#[tokio::test(start_paused = true)]
async fn generated_routes_that_somebody_changes_are_put_right() {
    let (cluster, first, _) = sticky().await;
    at(&cluster, 25).await;
    let right = spec(&cluster);
    let edits = [
        json!([{"op": "remove", "path": "/spec/http/0"}]),
        json!([{"op": "move", "from": "/spec/http/1", "path": "/spec/http/0"}]),
        json!([{"op": "replace", "path": "/spec/http/0/match/0/headers/x-voice-bucket/regex", "value": ".*"}]),
        json!([{"op": "replace", "path": "/spec/http", "value": [right["http"][2]]}]),
    ];
    for edit in edits {
        cluster.patch_route("agent", edit.clone()).await;
        assert_ne!(spec(&cluster), right);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(spec(&cluster), right, "{edit}");
    }
    // The route's own fields are somebody else's: what is generated follows them.
    cluster.patch_route("agent", json!([{"op": "replace", "path": "/spec/http/2/timeout", "value": "7200s"}])).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let now = spec(&cluster);
    assert!((0..3).all(|i| now["http"][i]["timeout"] == "7200s"), "{now}");
    let told = cluster.status("agent").await;
    assert!(told.decisions.iter().any(|d| d.decision == "RoutesChangedByOthers"), "{:?}", told.decisions);
    cluster.wait("agent", "promoted", |s| s.phase == Phase::Healthy && s.stable_revision.as_ref() != Some(&first)).await;
    assert!(generated(&cluster).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_route_that_the_spec_does_not_name_any_more_loses_what_was_made_for_it() {
    let (cluster, ..) = sticky().await;
    at(&cluster, 25).await;
    let other = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: other, namespace: voice}\nspec:\n  hosts: [other.example.com]\n  http:\n    - route: [{destination: {host: agent-stable}, weight: 100}, {destination: {host: agent-canary}, weight: 0}]\n";
    cluster.apply(other).await;
    let patch = json!([{"op": "replace", "path": "/spec/traffic/istio/virtualServices", "value": [{"name": "other"}]}]);
    let patch: json_patch::Patch = serde_json::from_value(patch).expect("a patch");
    cluster.rollouts().patch("agent", &Default::default(), &kube::api::Patch::Json::<()>(patch)).await.expect("patched");
    cluster.wait("agent", "given back", |s| s.managed_routes.len() == 1 && s.managed_routes[0].virtual_service == "other").await;
    assert!(generated(&cluster).is_empty(), "{:?}", generated(&cluster));
    assert_eq!(spec(&cluster)["http"][0]["route"][1]["weight"], 0);
    // The only http route of the other has no name, and what is made for it stands above it.
    cluster.wait("agent", "at 25 % there", |s| s.weights.applied == 25 && s.step.weight_since.is_some()).await;
    let there = cluster.server.peek("virtualservices", "voice", "other").expect("there")["spec"]["http"].clone();
    assert_eq!((&there[0]["name"], &there[1]["name"]), (&json!("vr/voice/agent//canary"), &json!("vr/voice/agent//stable")));
    // Deleting the rollout takes everything back.
    cluster.rollouts().delete("agent", &Default::default()).await.expect("deleted");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let there = cluster.server.peek("virtualservices", "voice", "other").expect("there")["spec"]["http"].clone();
    assert_eq!(there.as_array().map(Vec::len), Some(1), "{there}");
    assert!(cluster.rollouts().get_opt("agent").await.expect("readable").is_none());
}

#[tokio::test(start_paused = true)]
async fn bad_settings_are_told_with_the_path_and_nothing_moves() {
    let cluster = Cluster::start().await;
    cluster.apply(&manifests().replace(HEADER, "X-Voice-Bucket")).await;
    let status = cluster.wait_phase("agent", Phase::Invalid).await;
    assert!(status.message.contains("spec.traffic.istio.stickiness.headerBuckets.header"), "{}", status.message);
    assert!(status.message.contains("lower-case"), "{}", status.message);
}
