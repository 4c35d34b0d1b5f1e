//! The simulated API server: the shared list of cases, and a real kube-runtime Controller on it in virtual time.

mod conformance;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::params::VersionMatch;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{self, ObjectRef, reflector};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use voicerollout::operator::clock::Clock;
use voicerollout::sim::{Fault, Latency, SimServer, Verb};

fn server() -> SimServer {
    SimServer::new(Clock::starting_at("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap()))
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": "1"}})).unwrap()
}

fn config_maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

#[tokio::test(start_paused = true)]
async fn the_simulated_server_passes_every_case() {
    let server = server();
    let results = conformance::run_all(server.client(), "default").await;
    assert!(results.len() >= 60, "only {} cases ran", results.len());
    let failed: Vec<String> = results.iter().filter_map(|(name, r)| r.as_ref().err().map(|e| format!("{name}: {e}"))).collect();
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), results.len(), failed.join("\n"));
}

/// Counts in `data.n` of each ConfigMap, once every ten minutes.
struct Counter {
    client: Client,
    start: tokio::time::Instant,
    passes: AtomicU64,
}

async fn count(map: Arc<ConfigMap>, ctx: Arc<Counter>) -> Result<Action, kube::Error> {
    ctx.passes.fetch_add(1, Ordering::Relaxed);
    let last = map.annotations().get("at").and_then(|at| at.parse::<u64>().ok()).unwrap_or(0);
    let now = ctx.start.elapsed().as_secs();
    if now >= last + 600 {
        let n: u64 = map.data.as_ref().and_then(|d| d.get("n")).and_then(|n| n.parse().ok()).unwrap_or(0);
        let patch = json!({
            "metadata": {"resourceVersion": map.resource_version(), "annotations": {"at": now.to_string()}},
            "data": {"n": (n + 1).to_string()}
        });
        config_maps(&ctx.client).patch(&map.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    Ok(Action::requeue(Duration::from_secs(600)))
}

#[tokio::test(start_paused = true)]
async fn a_controller_runs_for_hours_through_broken_and_expired_watches() {
    let start = tokio::time::Instant::now();
    let wall = Instant::now();
    let server = server();
    let client = server.client_as("operator");
    for i in 0..20 {
        config_maps(&client).create(&PostParams::default(), &config_map(&format!("m{i}"))).await.unwrap();
    }
    let ctx = Arc::new(Counter { client: client.clone(), start, passes: AtomicU64::new(0) });
    let controller = Controller::new(config_maps(&client), watcher::Config::default())
        .run(count, |_, _, _| Action::requeue(Duration::from_secs(1)), Arc::clone(&ctx))
        .for_each(|_| async {});
    let task = tokio::spawn(controller);
    for hour in 0..6 {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        server.break_watches();
        if hour % 2 == 0 {
            // What happened while the watch was down is no longer in the log: 410, and a new list.
            config_maps(&client).create(&PostParams::default(), &config_map(&format!("late-{hour}"))).await.unwrap();
            server.compact();
        }
    }
    tokio::time::sleep(Duration::from_secs(3600)).await;
    task.abort();
    for map in config_maps(&client).list(&Default::default()).await.unwrap() {
        let n: u64 = map.data.as_ref().and_then(|d| d.get("n")).and_then(|n| n.parse().ok()).unwrap_or(0);
        let born: u64 = map.name_any().strip_prefix("late-").map_or(0, |hour| hour.parse::<u64>().unwrap() + 1);
        let wanted = (7 - born) * 6;
        assert!(n <= wanted && n + 3 >= wanted, "{} was counted {n} times, not about {wanted}", map.name_any());
    }
    let lists = server.count("operator", Verb::List);
    assert!(lists >= 4, "a watch that expired is followed by a list; {lists} lists");
    assert!(wall.elapsed() < Duration::from_secs(60), "virtual time passes without waiting");
}

#[tokio::test(start_paused = true)]
async fn a_reflector_sees_what_the_server_holds() {
    let server = server();
    let client = server.client();
    let (store, writer) = reflector::store::<ConfigMap>();
    let stream = reflector(writer, watcher(config_maps(&client), watcher::Config::default()))
        .default_backoff()
        .applied_objects()
        .for_each(|_| async {});
    let task = tokio::spawn(stream);
    store.wait_until_ready().await.unwrap();
    config_maps(&client).create(&PostParams::default(), &config_map("seen")).await.unwrap();
    let key = ObjectRef::new("seen").within("default");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(store.get(&key).is_some());

    server.hold_watches(true);
    config_maps(&client).delete("seen", &Default::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(store.get(&key).is_some(), "a held watch leaves the cache stale");
    server.hold_watches(false);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(store.get(&key).is_none());

    server.set_latency(Latency { request: Duration::ZERO, watch: Duration::from_secs(3) });
    config_maps(&client).create(&PostParams::default(), &config_map("late")).await.unwrap();
    let key = ObjectRef::new("late").within("default");
    tokio::time::sleep(Duration::from_millis(2999)).await;
    assert!(store.get(&key).is_none());
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(store.get(&key).is_some());
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn an_expired_watch_answers_410() {
    let server = server();
    let client = server.client();
    config_maps(&client).create(&PostParams::default(), &config_map("x")).await.unwrap();
    server.compact();
    let mut events = config_maps(&client).watch(&Default::default(), "2").await.unwrap().boxed();
    match events.next().await {
        Some(Ok(WatchEvent::Error(status))) => assert_eq!((status.code, status.reason.as_str()), (410, "Expired")),
        other => panic!("{other:?}"),
    }
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn faults_do_what_they_say() {
    let server = server();
    let client = server.client_as("operator");
    let api = config_maps(&client);
    let faults: Arc<Mutex<BTreeMap<String, Fault>>> = Arc::default();
    let chosen = Arc::clone(&faults);
    server.intercept(move |r| match r.verb {
        Verb::Create => chosen.lock().get(r.json()["metadata"]["name"].as_str().unwrap()).cloned().unwrap_or(Fault::None),
        _ => Fault::None,
    });
    let crashed = Arc::new(AtomicU64::new(0));
    let hook = Arc::clone(&crashed);
    faults.lock().extend([
        ("status".to_owned(), Fault::Status(500)),
        ("before".to_owned(), Fault::DropBefore),
        ("after".to_owned(), Fault::DropAfter),
        ("delay".to_owned(), Fault::Delay(Duration::from_secs(30))),
        ("hang".to_owned(), Fault::Hang),
        (
            "crash".to_owned(),
            Fault::CrashAfter(Arc::new(move || {
                hook.fetch_add(1, Ordering::Relaxed);
            })),
        ),
    ]);
    let create = |name: &'static str| {
        let api = api.clone();
        async move {
            let started = tokio::time::Instant::now();
            let map = config_map(name);
            let result = tokio::time::timeout(Duration::from_secs(60), api.create(&PostParams::default(), &map)).await;
            let stored = api.get_opt(name).await.unwrap().is_some();
            (result.ok().map(|r| r.is_ok()), stored, started.elapsed().as_secs())
        }
    };
    assert_eq!(create("plain").await, (Some(true), true, 0));
    assert_eq!(create("status").await, (Some(false), false, 0));
    assert_eq!(create("before").await, (Some(false), false, 0));
    assert_eq!(create("after").await, (Some(false), true, 0));
    assert_eq!(create("delay").await, (Some(true), true, 30));
    assert_eq!(create("hang").await, (None, false, 60));
    assert_eq!(create("crash").await, (None, true, 60));
    assert_eq!(crashed.load(Ordering::Relaxed), 1);
    let creates = server.requests_where(|r| r.verb == Verb::Create);
    let codes: Vec<Option<u16>> = creates.iter().map(|r| r.code).collect();
    assert_eq!(codes, [Some(201), Some(500), None, Some(201), Some(201), None, Some(201)]);
    assert_eq!(server.count("operator", Verb::Create), 7);
    assert_eq!(server.count_writes("operator"), 7);
    assert_eq!(creates[0].summary(), "create configmaps");
}

#[tokio::test(start_paused = true)]
async fn a_list_newer_than_the_newest_version_times_out() {
    let api = config_maps(&server().client());
    let params = ListParams::default().at("999999999999").matching(VersionMatch::NotOlderThan);
    match api.list(&params).await {
        Err(kube::Error::Api(status)) => assert_eq!((status.code, status.reason.as_str()), (504, "Timeout")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_gets_a_bookmark_a_minute_and_then_ends() {
    let server = server();
    let api = config_maps(&server.client());
    let version = server.version().to_string();
    server.seed(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "elsewhere"}})).unwrap();
    let events: Vec<_> = api.watch(&WatchParams::default().timeout(290), &version).await.unwrap().collect().await;
    let newest = server.version().to_string();
    assert_eq!(events.len(), 4);
    for event in events {
        let Ok(WatchEvent::Bookmark(mark)) = event else { panic!("{event:?}") };
        assert_eq!(mark.metadata.resource_version, newest);
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_served_is_not_found() {
    let server = server();
    let unknown = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Thing"));
    let things: Api<DynamicObject> = Api::namespaced_with(server.client(), "default", &unknown);
    match things.list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 404),
        other => panic!("{other:?}"),
    }
}
