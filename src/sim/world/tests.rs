use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::EvictParams;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Callers, Cause, ImageBehaviour, Start, World, WorldConfig};
use crate::api::common::REVISION_LABEL;
use crate::operator::clock::Clock;
use crate::sim::SimServer;
use crate::sim::patch::PatchKind;
use crate::sim::state::{Part, Write};

fn server() -> SimServer {
    SimServer::new(Clock::starting_at(Timestamp::UNIX_EPOCH))
}

async fn world(server: &SimServer, config: WorldConfig) -> World {
    World::start(server.clone(), server.clock().clone(), config).await
}

fn merge(server: &SimServer, plural: &str, name: &str, patch: &Value) {
    server.with_state_mut(|state| {
        let resource = state.resources.iter().find(|r| r.plural == plural).cloned().unwrap();
        let write = Write::by("test", Part::Main);
        state.patch(&resource, "default", name, PatchKind::Merge, patch.to_string().as_bytes(), false, &write).unwrap();
    });
}

fn replica_set(name: &str, replicas: u32, image: &str) -> Value {
    let labels = json!({"app": "agent", REVISION_LABEL: name});
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "minReadySeconds": 5, "selector": {"matchLabels": {REVISION_LABEL: name}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "agent", "image": image}]}}
        }
    })
}

fn service(name: &str, revision: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {REVISION_LABEL: revision}, "ports": [{"port": 80, "targetPort": 8080}]}
    })
}

fn route(stable: u32, canary: u32) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "route"},
        "spec": {"hosts": ["agent"], "http": [{"name": "calls", "route": [
            {"destination": {"host": "stable"}, "weight": stable},
            {"destination": {"host": "canary.default.svc.cluster.local"}, "weight": canary}
        ]}]}
    })
}

fn status(server: &SimServer, name: &str) -> (i64, i64, i64) {
    let set = server.peek("replicasets", "default", name).unwrap();
    let number = |field: &str| set["status"][field].as_i64().unwrap_or(0);
    (number("replicas"), number("readyReplicas"), number("availableReplicas"))
}

fn ready_endpoints(server: &SimServer, service: &str) -> usize {
    let slice = server.peek("endpointslices", "default", &format!("{service}-slice")).unwrap();
    slice["endpoints"].as_array().map_or(0, |list| list.iter().filter(|e| e["conditions"]["ready"] == true).count())
}

#[tokio::test(start_paused = true)]
async fn a_replica_set_gets_pods_that_become_ready_and_then_available() {
    let server = server();
    let _world = world(&server, WorldConfig::default()).await;
    server.seed(replica_set("one", 3, "agent:v1")).unwrap();
    server.seed(service("stable", "one")).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!((status(&server, "one"), ready_endpoints(&server, "stable")), ((3, 0, 0), 0));
    sleep(Duration::from_secs(3)).await;
    assert_eq!((status(&server, "one"), ready_endpoints(&server, "stable")), ((3, 3, 0), 3));
    sleep(Duration::from_secs(6)).await;
    assert_eq!(status(&server, "one"), (3, 3, 3));
    let version = server.version();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(server.version(), version, "a settled cluster writes nothing");
}

#[tokio::test(start_paused = true)]
async fn images_decide_whether_pods_become_ready() {
    let server = server();
    let start = |start| ImageBehaviour { start_delay: Duration::from_secs(1), start };
    let images = [("never".to_owned(), start(Start::NeverReady)), ("crash".to_owned(), start(Start::CrashLoop))];
    let _world = world(&server, WorldConfig { images: images.into(), ..WorldConfig::default() }).await;
    for tag in ["never", "crash"] {
        server.seed(replica_set(tag, 1, &format!("registry.example:5000/agent:{tag}"))).unwrap();
    }
    sleep(Duration::from_secs(600)).await;
    assert_eq!((status(&server, "never"), status(&server, "crash")), ((1, 0, 0), (1, 0, 0)));
    let pods = server.peek_all("pods", Some("default"));
    let crashed = pods.iter().find(|p| p["metadata"]["labels"][REVISION_LABEL] == "crash").unwrap();
    let container = &crashed["status"]["containerStatuses"][0];
    assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert!(container["restartCount"].as_i64().unwrap() >= 4);
}

#[tokio::test(start_paused = true)]
async fn not_ready_pods_go_first_then_the_cheapest() {
    let server = server();
    let world = world(&server, WorldConfig::default()).await;
    server.seed(replica_set("one", 3, "agent:v1")).unwrap();
    sleep(Duration::from_secs(10)).await;
    let names: Vec<String> =
        server.peek_all("pods", Some("default")).iter().map(|p| p["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    for (name, cost) in names.iter().zip(["5", "-5", "0"]) {
        let annotation = json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": cost}}});
        merge(&server, "pods", name, &annotation);
    }
    world.set_image("v1", ImageBehaviour { start_delay: Duration::from_secs(3), start: Start::NeverReady });
    merge(&server, "replicasets", "one", &json!({"spec": {"replicas": 4}}));
    sleep(Duration::from_secs(10)).await;
    merge(&server, "replicasets", "one", &json!({"spec": {"replicas": 2}}));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(server.peek_all("pods", None).len(), 4, "two of the four are on their way out");
    sleep(Duration::from_secs(10)).await;
    let mut left: Vec<String> = server.peek_all("pods", None).iter().map(|p| p["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    let mut wanted = vec![names[0].clone(), names[2].clone()];
    left.sort();
    wanted.sort();
    assert_eq!(left, wanted);
}

fn calling() -> WorldConfig {
    let callers =
        Callers { every: Duration::from_millis(500), shortest: Duration::from_secs(10), longest: Duration::from_secs(60), known: None };
    WorldConfig { callers: Some(callers), ..WorldConfig::default() }
}

async fn with_two_revisions(server: &SimServer, config: WorldConfig) -> World {
    let world = world(server, config).await;
    for (service_name, revision) in [("stable", "one"), ("canary", "two")] {
        server.seed(replica_set(revision, 2, "agent:v1")).unwrap();
        server.seed(service(service_name, revision)).unwrap();
    }
    server.seed(route(75, 25)).unwrap();
    sleep(Duration::from_secs(3600)).await;
    world
}

#[tokio::test(start_paused = true)]
async fn calls_follow_the_weights_after_the_propagation_delay() {
    let server = server();
    let slow = WorldConfig { propagation: Duration::from_secs(30), ..calling() };
    let world = with_two_revisions(&server, slow).await;
    let calls = world.calls();
    let (one, two) = (calls["one"].started, calls["two"].started);
    let n = one + two;
    assert!((6800..7500).contains(&n), "{n} calls in an hour at two a second");
    let share = two as f64 / n as f64;
    assert!((share - 0.25).abs() < 0.025, "share {share}"); // five standard deviations at n = 7200
    assert_eq!((calls["one"].cut, calls["two"].cut, world.violations().len()), (0, 0, 0));

    merge(&server, "virtualservices", "route", &json!({"spec": route(100, 0)["spec"]}));
    sleep(Duration::from_secs(29)).await;
    let before = world.calls()["two"].started;
    sleep(Duration::from_secs(2)).await;
    world.reset_calls();
    sleep(Duration::from_secs(600)).await;
    assert!(before > two, "until the change has reached the proxies, calls follow the old weights");
    let calls = world.calls();
    assert_eq!(calls["two"].started, 0, "only calls that were under way end");
    assert!(calls["two"].ok > 0 && calls["one"].started > 1000);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_calls() {
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        let server = server();
        runs.push(with_two_revisions(&server, WorldConfig { seed, ..calling() }).await.calls());
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_cuts_its_calls_and_an_empty_service_is_noticed() {
    let server = server();
    let world = with_two_revisions(&server, calling()).await;
    merge(&server, "replicasets", "two", &json!({"spec": {"replicas": 0}}));
    sleep(Duration::from_secs(60)).await;
    assert!(world.calls()["two"].cut > 0);
    let violations = world.violations();
    assert!(violations.iter().any(|v| v.what.contains("default/canary has no ready endpoints")), "{violations:?}");
    assert_eq!(world.calls()["one"].cut, 0);
}

fn pods(server: &SimServer) -> Vec<String> {
    server.peek_all("pods", Some("default")).iter().map(|p| p["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

fn causes(world: &World) -> Vec<(Cause, u64)> {
    world.call_book().endings(0).iter().map(|e| (e.cause, e.cut)).collect()
}

#[tokio::test(start_paused = true)]
async fn ends_of_pods_say_by_whose_doing_and_with_how_many_calls() {
    let server = server();
    let world = with_two_revisions(&server, WorldConfig { nodes: 2, ..calling() }).await;
    sleep(Duration::from_secs(60)).await;
    let talking = |name: &String| world.active_calls("default", name) as u64;
    let name = pods(&server).into_iter().find(|p| talking(p) > 0 && p.starts_with("one")).unwrap();
    let calls = talking(&name);
    world.crash_container("default", &name);
    sleep(Duration::from_millis(10)).await;
    assert_eq!((causes(&world), talking(&name)), (vec![(Cause::Crashed, calls)], 0));
    let pod = server.peek("pods", "default", &name).unwrap();
    assert_eq!((&pod["status"]["containerStatuses"][0]["restartCount"], super::is_ready(&pod)), (&json!(1), false));
    sleep(Duration::from_secs(5)).await;
    assert!(super::is_ready(&server.peek("pods", "default", &name).unwrap()), "it runs again");

    let node = server.peek("pods", "default", &name).unwrap()["spec"]["nodeName"].as_str().unwrap().to_owned();
    world.cordon(&node, true);
    world.lose_pod("default", &name);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(causes(&world)[1].0, Cause::Lost);
    let on_node = |p: &&std::sync::Arc<Value>| p["spec"]["nodeName"] == node.as_str();
    assert_eq!((pods(&server).len(), server.peek_all("pods", None).iter().filter(on_node).count()), (4, 1), "the other node gets it");

    merge(&server, "replicasets", "one", &json!({"spec": {"replicas": 1}}));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(causes(&world)[2].0, Cause::Surplus);
    let cut: u64 = world.calls().values().map(|c| c.cut).sum();
    assert_eq!(cut, causes(&world).iter().map(|(_, cut)| cut).sum::<u64>(), "no call is cut but with a pod");
}

#[tokio::test(start_paused = true)]
async fn evictions_keep_within_the_budget() {
    let server = server();
    let world = world(&server, WorldConfig::default()).await;
    server.seed(replica_set("one", 3, "agent:v1")).unwrap();
    sleep(Duration::from_secs(10)).await;
    let budget = |name: &str, spec: Value| {
        let selector = json!({"matchLabels": {"app": "agent"}});
        let mut object = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": spec});
        object["spec"]["selector"] = selector;
        server.seed(object).unwrap();
    };
    let api: Api<Pod> = Api::default_namespaced(server.client());
    let evict = async |name: &str| match api.evict(name, &EvictParams::default()).await {
        Ok(_) => 201,
        Err(kube::Error::Api(status)) => status.code,
        Err(other) => panic!("{other}"),
    };
    budget("half", json!({"minAvailable": "50%"}));
    let names = pods(&server);
    assert_eq!((evict("nobody").await, evict(&names[0]).await, evict(&names[1]).await), (404, 201, 429));
    sleep(Duration::from_secs(20)).await;
    assert_eq!(causes(&world), [(Cause::Evicted, 0)]);
    merge(&server, "poddisruptionbudgets", "half", &json!({"spec": {"minAvailable": null, "maxUnavailable": 0}}));
    assert_eq!(evict(&names[1]).await, 429);
    budget("second", json!({"maxUnavailable": 1}));
    assert_eq!(evict(&names[1]).await, 500, "two budgets on one pod");
}
