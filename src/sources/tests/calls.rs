use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::super::tests::{LogMap, closed, serve, sources, sources_allowing};
use super::*;

fn question(active: Value, pods: &[&str]) -> CallsQuestion {
    let pod = |name: &&str| PodAddress { name: (*name).into(), ip: Some("127.0.0.1".parse().unwrap()) };
    CallsQuestion {
        namespace: "voice".into(),
        rollout: "agent".into(),
        active: serde_json::from_value(active).unwrap(),
        pods: pods.iter().map(pod).collect(),
    }
}

async fn one(answer: Value, settings: Value) -> Result<u64, String> {
    let addr = serve(Router::new().route("/worker", get(move || async move { Json(answer) }))).await;
    let mut http = json!({"port": addr.port()});
    http.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let readings = sources(LogMap::default()).count(&question(json!({"http": http}), &["a"])).await;
    readings["a"].clone()
}

#[tokio::test]
async fn a_livekit_worker_is_understood_without_any_setting() {
    let worker = json!({"agent_name": "", "worker_type": "JT_ROOM", "worker_load": 0.2, "active_jobs": 3, "sdk_version": "1.7.0"});
    assert_eq!(one(worker, json!({})).await, Ok(3));
    assert_eq!(one(json!({"sessions": [{"live": 0}]}), json!({"jsonPath": "$.sessions[0].live"})).await, Ok(0));
    assert_eq!(one(json!({"active_jobs": 0.5}), json!({})).await, Ok(1), "a part of a call is a call");
}

#[tokio::test]
async fn what_is_not_a_number_of_calls_is_not_zero() {
    let cases = [
        (json!({"active_jobs": "3"}), json!({}), "gives a text, not a number of calls"),
        (json!({"active_jobs": -1}), json!({}), "a number that is negative or too large"),
        (json!({"active_jobs": null}), json!({}), "gives null"),
        (json!({"active_jobs": [1]}), json!({}), "gives a list"),
        (json!({}), json!({}), "finds nothing in the answer"),
        (json!({}), json!({"jsonPath": "active"}), "spec.sessions.activeCalls.http.jsonPath"),
        (json!({}), json!({"path": "/nowhere"}), "404"),
    ];
    for (answer, settings, what) in cases {
        let error = one(answer.clone(), settings).await.unwrap_err();
        assert!(error.contains(what), "{answer}: {error}");
    }
}

#[tokio::test]
async fn a_pod_that_does_not_answer_is_unknown_and_the_others_are_read() {
    let port = closed().await.port();
    let readings = sources(LogMap::default()).count(&question(json!({"http": {"port": port}}), &["a"])).await;
    let error = readings["a"].clone().unwrap_err();
    assert!(error.contains("cannot connect") && error.contains("does a container listen on that port"), "{error}");

    let hang = serve(Router::new().fallback(get(std::future::pending::<()>))).await;
    let slow = question(json!({"http": {"port": hang.port(), "timeout": "50ms"}}), &["a", "b"]);
    assert!(sources(LogMap::default()).count(&slow).await.values().all(|r| r.as_ref().unwrap_err().contains("no answer within 50ms")));

    let mut unborn = question(json!({"http": {}}), &["a"]);
    unborn.pods[0].ip = None;
    assert!(sources(LogMap::default()).count(&unborn).await["a"].as_ref().unwrap_err().contains("no address"));
}

#[tokio::test]
async fn pods_that_claim_a_forbidden_address_are_not_asked() {
    let addr = serve(Router::new().route("/worker", get(|| async { Json(json!({"active_jobs": 0})) }))).await;
    let readings = sources_allowing(&[], LogMap::default()).count(&question(json!({"http": {"port": addr.port()}}), &["a"])).await;
    assert!(readings["a"].as_ref().unwrap_err().contains("which measurements may not reach"), "{readings:?}");
}

async fn prometheus(series: Value) -> Value {
    let body = json!({"status": "success", "data": {"resultType": "vector", "result": series}});
    let addr = serve(Router::new().fallback(get(move || async move { Json(body) }))).await;
    json!({"address": format!("http://{addr}"), "query": "sum by (pod) (voice_sessions_active{namespace=\"{{args.namespace}}\"})"})
}

#[tokio::test]
async fn one_query_reads_all_pods_and_a_pod_without_a_series_is_unknown() {
    let series = json!([{"metric": {"pod": "a"}, "value": [1, "4"]}, {"metric": {"pod": "other"}, "value": [1, "9"]}]);
    let server = prometheus(series).await;
    let readings = sources(LogMap::default()).count(&question(json!({"prometheus": server}), &["a", "b"])).await;
    assert_eq!(readings["a"], Ok(4));
    assert!(readings["b"].as_ref().unwrap_err().contains("gives no series with pod=\"b\""), "{readings:?}");
    for (series, what) in [
        (json!([{"metric": {"instance": "a"}, "value": [1, "4"]}]), "a series has no label pod"),
        (json!([{"metric": {"pod": "a"}, "value": [1, "NaN"]}]), "not a number of calls"),
    ] {
        let server = prometheus(series).await;
        let readings = sources(LogMap::default()).count(&question(json!({"prometheus": server}), &["a"])).await;
        assert!(readings["a"].as_ref().unwrap_err().contains(what), "{readings:?}");
    }
}

#[tokio::test]
async fn with_two_sources_the_greater_number_counts_and_one_of_them_is_enough() {
    let addr = serve(Router::new().route("/worker", get(|| async { Json(json!({"active_jobs": 2})) }))).await;
    let server = prometheus(json!([{"metric": {"pod": "a"}, "value": [1, "5"]}])).await;
    let both = question(json!({"http": {"port": addr.port()}, "prometheus": server}), &["a", "b"]);
    let readings = sources(LogMap::default()).count(&both).await;
    assert_eq!((&readings["a"], &readings["b"]), (&Ok(5), &Ok(2)));
}

#[tokio::test]
async fn a_thousand_pods_are_asked_a_bounded_number_at_a_time() {
    #[derive(Clone, Default)]
    struct Load(Arc<(AtomicUsize, AtomicUsize)>);
    async fn answer(State(load): State<Load>) -> Json<Value> {
        let now = load.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        load.0.1.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(2)).await;
        load.0.0.fetch_sub(1, Ordering::SeqCst);
        Json(json!({"active_jobs": 1}))
    }
    let load = Load::default();
    let addr = serve(Router::new().route("/worker", get(answer)).with_state(load.clone())).await;
    let names: Vec<String> = (0..1000).map(|n| format!("pod-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let readings = sources(LogMap::default()).count(&question(json!({"http": {"port": addr.port(), "timeout": "30s"}}), &names)).await;
    assert!(readings.len() == 1000 && readings.values().all(|r| *r == Ok(1)));
    let most = load.0.1.load(Ordering::SeqCst);
    assert!((2..=AT_ONCE).contains(&most), "{most} at once");
}
