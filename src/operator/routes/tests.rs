use std::sync::Arc;

use http::Method;
use parking_lot::Mutex;

use super::*;
use crate::operator::fake::{self, Answer, Call};

/// An API server with one object.
struct Server {
    object: Value,
    calls: Vec<Call>,
    /// Refuse this many patches.
    refuse: usize,
}

impl Server {
    fn with(object: Value) -> (Client, Arc<Mutex<Self>>) {
        let server = Arc::new(Mutex::new(Self { object, calls: Vec::new(), refuse: 0 }));
        let client = fake::client({
            let server = server.clone();
            move |call| std::future::ready(server.lock().answer(call))
        });
        (client, server)
    }

    fn answer(&mut self, call: Call) -> Answer {
        self.calls.push(call.clone());
        if call.method == Method::PATCH {
            if self.refuse > 0 {
                self.refuse -= 1;
                return fake::refusal(422, "the server rejected our request");
            }
            if call.content_type == "application/json-patch+json" {
                let patch: json_patch::Patch = serde_json::from_value(call.body).unwrap();
                if json_patch::patch(&mut self.object, &patch.0).is_err() {
                    return fake::refusal(422, "the server rejected our request");
                }
            } else {
                assert_eq!(call.content_type, "application/merge-patch+json");
                json_patch::merge(&mut self.object, &call.body);
            }
            self.bump();
        }
        (200, self.object.clone())
    }

    fn bump(&mut self) {
        let version: u64 = self.object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        self.object["metadata"]["resourceVersion"] = json!((version + 1).to_string());
    }

    fn methods(&self) -> Vec<Method> {
        self.calls.iter().map(|c| c.method.clone()).collect()
    }
}

fn split() -> Split {
    Split::Hosts { namespace: "voice".into(), stable: "s".into(), canary: "c".into() }
}

fn http_route(name: &str, stable: i64, canary: i64) -> Value {
    json!({"name": name, "timeout": "0s", "route": [
        {"destination": {"host": "s"}, "weight": stable}, {"destination": {"host": "c"}, "weight": canary},
    ]})
}

fn vs(http: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "agent", "namespace": "voice", "resourceVersion": "1"},
        "spec": {"http": http},
    })
}

fn object(value: &Value) -> DynamicObject {
    serde_json::from_value(value.clone()).unwrap()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

async fn set(
    client: &Client,
    cached: &DynamicObject,
    routes: &[&str],
    canary: i32,
    direction: Direction,
) -> Result<Written, RouteWriteError> {
    let managed = Managed { names: &names(routes), split: &split(), own: &Own::default() };
    set_weights(client, &Leadership::always(), cached, &managed, canary, direction).await
}

#[tokio::test]
async fn weights_are_written_once_and_read_back_from_the_answer() {
    let (client, server) = Server::with(vs(json!([http_route("calls", 100, 0)])));
    let cached = object(&server.lock().object);
    let Written::Patched(now) = set(&client, &cached, &["calls"], 5, Direction::Raise).await.unwrap() else { panic!() };
    assert_eq!(to_value(&now)["spec"]["http"], json!([http_route("calls", 95, 5)]));
    assert_eq!(set(&client, &now, &["calls"], 5, Direction::Raise).await.unwrap(), Written::Unchanged);

    let server = server.lock();
    assert_eq!(server.methods(), [Method::PATCH]);
    assert_eq!(server.calls[0].path, "/apis/networking.istio.io/v1/namespaces/voice/virtualservices/agent");
}

#[tokio::test]
async fn raising_on_an_old_copy_is_a_conflict_and_lowering_is_not() {
    let (client, server) = Server::with(vs(json!([http_route("calls", 75, 25)])));
    let cached = object(&server.lock().object);
    server.lock().bump();
    assert!(set(&client, &cached, &["calls"], 50, Direction::Raise).await.unwrap_err().is_conflict());
    assert_eq!(server.lock().object["spec"]["http"], json!([http_route("calls", 75, 25)]));

    set(&client, &cached, &["calls"], 0, Direction::Lower).await.unwrap();
    assert_eq!(server.lock().object["spec"]["http"], json!([http_route("calls", 100, 0)]));
    assert_eq!(server.lock().methods(), [Method::PATCH, Method::PATCH]);
}

#[tokio::test]
async fn lowering_finds_a_route_that_has_moved() {
    let (client, server) = Server::with(vs(json!([http_route("calls", 75, 25)])));
    let cached = object(&server.lock().object);
    server.lock().object["spec"]["http"] = json!([http_route("vip", 0, 100), http_route("calls", 75, 25)]);
    set(&client, &cached, &["calls"], 0, Direction::Lower).await.unwrap();
    let server = server.lock();
    assert_eq!(server.object["spec"]["http"], json!([http_route("vip", 0, 100), http_route("calls", 100, 0)]));
    assert_eq!(server.methods(), [Method::PATCH, Method::GET, Method::PATCH]);
}

#[tokio::test]
async fn lowering_gives_up_after_a_number_of_conflicts() {
    let (client, server) = Server::with(vs(json!([http_route("calls", 75, 25)])));
    let cached = object(&server.lock().object);
    server.lock().refuse = LOWER_ATTEMPTS - 1;
    set(&client, &cached, &["calls"], 0, Direction::Lower).await.unwrap();

    server.lock().refuse = usize::MAX;
    server.lock().object["spec"]["http"] = json!([http_route("calls", 75, 25)]);
    server.lock().calls.clear();
    assert!(set(&client, &cached, &["calls"], 0, Direction::Lower).await.unwrap_err().is_conflict());
    assert_eq!(server.lock().methods().iter().filter(|m| *m == Method::PATCH).count(), LOWER_ATTEMPTS);
}

#[tokio::test]
async fn one_bad_route_does_not_keep_the_others_up() {
    let bad = json!({"name": "chat", "route": [{"destination": {"host": "s"}, "weight": 100}]});
    let (client, server) = Server::with(vs(json!([bad, http_route("calls", 75, 25)])));
    let cached = object(&server.lock().object);
    let raised = set(&client, &cached, &["chat", "calls"], 50, Direction::Raise).await;
    assert!(matches!(raised, Err(RouteWriteError::Route(_))), "{raised:?}");
    assert_eq!(server.lock().calls, []);

    let lowered = set(&client, &cached, &["chat", "calls"], 0, Direction::Lower).await;
    assert!(matches!(&lowered, Err(RouteWriteError::Route(e)) if e.0.contains("\"chat\" has one destination")), "{lowered:?}");
    assert_eq!(server.lock().object["spec"]["http"], json!([bad, http_route("calls", 100, 0)]));
}

#[tokio::test]
async fn a_bad_route_in_the_cache_only_does_not_stop_an_abort() {
    let (client, server) = Server::with(vs(json!([http_route("calls", 75, 25)])));
    let mut old = server.lock().object.clone();
    old["spec"]["http"] = json!([{"name": "calls"}]);
    set(&client, &object(&old), &["calls"], 0, Direction::Lower).await.unwrap();
    assert_eq!(server.lock().object["spec"]["http"], json!([http_route("calls", 100, 0)]));
}

#[tokio::test]
async fn a_process_that_does_not_lead_sends_nothing() {
    let (client, server) = Server::with(vs(json!([http_route("calls", 75, 25)])));
    let cached = object(&server.lock().object);
    let standby = Leadership::following(tokio::sync::watch::channel(None).1);
    let managed = Managed { names: &names(&["calls"]), split: &split(), own: &Own::default() };
    let result = set_weights(&client, &standby, &cached, &managed, 0, Direction::Lower).await;
    assert!(matches!(result, Err(RouteWriteError::Write(WriteError::NotLeader { .. }))), "{result:?}");
    assert_eq!(server.lock().calls, []);
}

#[tokio::test]
async fn a_service_gets_the_revision_and_nothing_else() {
    let (client, server) = Server::with(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "s", "namespace": "voice", "resourceVersion": "1"},
        "spec": {"selector": {"app": "agent"}, "ports": [{"port": 80}]},
    }));
    let selector = |server: &Arc<Mutex<Server>>| server.lock().object["spec"]["selector"].clone();
    point_service(&client, &Leadership::always(), "voice", "s", "abc", true).await.unwrap();
    let both = json!({"voicerollout.dev/revision": "abc", "voicerollout.dev/serving": "true"});
    assert_eq!(server.lock().calls[0].body, json!({"spec": {"selector": both}}));
    assert_eq!(selector(&server)["app"], "agent");
    point_service(&client, &Leadership::always(), "voice", "s", "def", false).await.unwrap();
    assert_eq!(selector(&server), json!({"app": "agent", "voicerollout.dev/revision": "def"}));
}

#[tokio::test]
async fn a_subset_gets_the_revision_and_nothing_else() {
    let (client, server) = Server::with(json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "agent", "namespace": "voice", "resourceVersion": "1"},
        "spec": {"host": "agent", "subsets": [
            {"name": "old", "labels": {"app": "agent"}, "trafficPolicy": {"x": 1}}, {"name": "new"},
        ]},
    }));
    let leadership = Leadership::always();
    let set = async |rule: &DynamicObject, subset: &str| set_subset_label(&client, &leadership, rule, subset, "abc", subset == "new").await;
    let cached = object(&server.lock().object);
    let stale = cached.clone();
    let Written::Patched(rule) = set(&cached, "old").await.unwrap() else { panic!() };
    // Labels are not made on an old copy: somebody else may have made some.
    assert!(set(&stale, "new").await.unwrap_err().is_conflict());
    let Written::Patched(rule) = set(&rule, "new").await.unwrap() else { panic!() };
    assert_eq!(set(&rule, "new").await.unwrap(), Written::Unchanged);
    assert_eq!(
        server.lock().object["spec"]["subsets"],
        json!([
            {"name": "old", "labels": {"app": "agent", "voicerollout.dev/revision": "abc"}, "trafficPolicy": {"x": 1}},
            {"name": "new", "labels": {"voicerollout.dev/revision": "abc", "voicerollout.dev/serving": "true"}},
        ])
    );
    let Written::Patched(rule) = set_subset_label(&client, &leadership, &rule, "new", "def", false).await.unwrap() else { panic!() };
    assert_eq!(server.lock().object["spec"]["subsets"][1]["labels"], json!({"voicerollout.dev/revision": "def"}));

    // Subsets that changed places are a conflict.
    server.lock().object["spec"]["subsets"].as_array_mut().unwrap().reverse();
    let other = set_subset_label(&client, &leadership, &rule, "new", "ghi", false).await;
    assert!(other.unwrap_err().is_conflict());
    let missing = set_subset_label(&client, &leadership, &rule, "newer", "def", false).await.unwrap_err().to_string();
    assert_eq!(missing, "DestinationRule voice/agent: has no subset \"newer\" (old, new); add it, or name one that exists");
}

#[test]
fn another_namespace_has_to_be_named() {
    let mut edge = object(&vs(json!([])));
    assert!(allowed_from(&edge, "voice"));
    assert!(!allowed_from(&edge, "other"));
    edge.annotations_mut().insert(ALLOW_FROM_ANNOTATION.into(), "first, other".into());
    assert!(allowed_from(&edge, "other"));
    assert!(!allowed_from(&edge, "othe") && !allowed_from(&edge, "first, other") && !allowed_from(&edge, ""));
}
