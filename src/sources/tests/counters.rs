use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::routing::get;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::sources::tests::{LogMap, error, request, serve, sources, start};

/// Answers by what a query contains, and the queries with their moments.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Vec<(&'static str, Value)>>,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Server {
    /// The first answer whose text is part of the query; an empty vector for others.
    async fn start(answers: Vec<(&'static str, Value)>) -> (String, Self) {
        let server = Self { answers: Arc::new(answers), asked: Arc::default() };
        let answer = |State(server): State<Self>, Query(query): Query<BTreeMap<String, String>>| async move {
            server.asked.lock().push((query["query"].clone(), query.get("time").cloned().unwrap_or_default()));
            let found = server.answers.iter().find(|(part, _)| query["query"].contains(part)).map(|(_, rows)| rows.clone());
            axum::Json(json!({"status": "success", "data": {"resultType": "vector", "result": found.unwrap_or(json!([]))}}))
        };
        let router = Router::new().route("/api/v1/query", get(answer)).with_state(server.clone());
        (format!("http://{}", serve(router).await), server)
    }
}

fn row(labels: Value, value: f64) -> Value {
    json!({"metric": labels, "value": [1_767_261_585.0, value.to_string()]})
}

fn of(pod: &str, revision: &str, value: f64) -> Value {
    row(json!({"pod": pod, "revision": revision}), value)
}

fn counters(address: &str) -> Request {
    request(json!({"name": "g", "compare": {"prometheus": {"address": address}, "bad": "failed_total{tier=\"{{args.canary-hash}}\"}",
        "total": "ended_total"}}))
}

fn histogram(address: &str, edges: Value) -> Request {
    request(json!({"name": "g", "compareHistogram": {"prometheus": {"address": address}, "metric": "ft_bucket", "edges": edges}}))
}

async fn counted(request: &Request) -> Snapshot {
    match start(&sources(LogMap::default()), request).await {
        Ok(Progress::Counted(seen)) => seen,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn counters_of_both_arms_at_one_moment() {
    let (address, server) = Server::start(vec![
        (
            "timestamp",
            json!([of("c", "canary1", 1_767_261_580.5), of("s", "stable1", 1_767_261_579.0), of("x", "stable1", 1_767_261_579.0)]),
        ),
        ("ended_total", json!([of("c", "canary1", 12.0), of("s", "stable1", 230.0), of("o", "older", 99.0)])),
        ("failed_total", json!([of("s", "stable1", 9.0)])),
    ])
    .await;
    let seen = counted(&counters(&address)).await;
    // The measurement began at 10:00:00; one scrape is 15 s.
    let at = 1_767_261_585;
    let pod =
        |pod: &str, canary, scraped, counts: [Option<u64>; 2]| PodSample { pod: pod.into(), canary, scraped, counts: counts.to_vec() };
    let pods = vec![pod("s", false, 1_767_261_579.0, [Some(230), Some(9)]), pod("c", true, 1_767_261_580.5, [Some(12), None])];
    assert_eq!(seen, Snapshot { at, pods, buckets: Vec::new() });
    let asked = server.asked.lock().clone();
    let arms = "revision=~\"canary1|stable1\"";
    let queries: Vec<&str> = asked.iter().map(|(q, _)| q.as_str()).collect();
    assert_eq!(
        queries,
        [
            format!("sum by (pod, revision) (ended_total{{{arms}}})"),
            format!("sum by (pod, revision) (failed_total{{tier=\"canary1\",{arms}}})"),
            format!("max by (pod, revision) (timestamp(ended_total{{{arms}}}))"),
        ]
    );
    assert!(asked.iter().all(|(_, time)| time.parse() == Ok(at)), "{asked:?}");
}

#[tokio::test]
async fn buckets_that_are_needed_and_all_of_them_for_a_look() {
    let le = |le: &str, value: f64| row(json!({"le": le}), value);
    let bucket = |pod: &str, revision: &str, le: &str, value: f64| row(json!({"pod": pod, "revision": revision, "le": le}), value);
    let (address, server) = Server::start(vec![
        ("timestamp", json!([of("c", "canary1", 5.0), of("s", "stable1", 6.0)])),
        ("sum by (le)", json!([le("+Inf", 300.0), le("700", 200.0), le("900.0", 280.0)])),
        (
            "sum by (pod, revision, le)",
            json!([
                bucket("c", "canary1", "+Inf", 10.0),
                bucket("c", "canary1", "900.0", 7.0),
                bucket("s", "stable1", "900.0", 273.0),
                bucket("s", "stable1", "+Inf", 290.0),
            ]),
        ),
    ])
    .await;
    let seen = counted(&histogram(&address, json!([900]))).await;
    let counts: Vec<_> = seen.pods.iter().map(|p| (p.canary, p.counts.clone())).collect();
    assert_eq!(counts, [(false, vec![Some(290), Some(273)]), (true, vec![Some(10), Some(7)])]);
    let bounds: Vec<(f64, f64)> = seen.buckets.iter().map(|b| (b.bound, b.count)).collect();
    assert_eq!(bounds, [(700.0, 200.0), (900.0, 280.0), (f64::INFINITY, 300.0)]);
    assert!(server.asked.lock()[1].0.contains("le=~\"\\\\+Inf|900\\\\.0\""), "{:?}", server.asked.lock());

    let sources = sources(LogMap::default());
    for (edges, part) in [
        (
            json!([0.9]),
            "0.9 is not the bound of a bucket of ft_bucket: there are 700, 900.0, +Inf; the edge looks like seconds and the buckets like milliseconds: write 900",
        ),
        (json!([800]), "800 is not the bound of a bucket of ft_bucket: there are 700, 900.0, +Inf"),
    ] {
        let e = error(&sources, &histogram(&address, edges)).await.message;
        assert_eq!(e, part);
    }
}

#[tokio::test]
async fn each_kind_of_nothing_has_its_own_words() {
    let sources = sources(LogMap::default());
    let all = || ("sum by (pod", json!([of("c", "canary1", 12.0)]));
    let no_pod = json!([row(json!({"revision": "canary1"}), 12.0)]);
    for (answers, request, part) in [
        (vec![], counters as fn(&str) -> Request, "no series matches ended_total at this moment"),
        (
            vec![("count by", json!([row(json!({}), 3.0)]))],
            counters,
            "the arms cannot be told apart: the series of ended_total have no label revision",
        ),
        (
            vec![("count by", json!([row(json!({"revision": "old"}), 3.0)]))],
            counters,
            "no series of ended_total has revision canary1 or stable1 yet: there are old",
        ),
        (vec![("sum by (pod", no_pod)], counters, "no label pod"),
        (vec![("sum by (le)", json!([row(json!({}), 3.0)]))], |a| histogram(a, json!([900])), "ft_bucket: its series have no label le"),
        (vec![("sum by (le)", json!([row(json!({"le": "900"}), 3.0)]))], |a| histogram(a, json!([900])), "no bucket le=\"+Inf\""),
        (vec![], |a| histogram(a, json!([900])), "no series matches ft_bucket"),
    ] {
        let (address, _) = Server::start(answers).await;
        let message = match start(&sources, &request(&address)).await {
            Ok(Progress::NoData(why)) => why,
            Err(e) => e.message,
            other => panic!("{other:?}"),
        };
        assert!(message.contains(part), "{part}: {message}");
    }
    // Counters that were not scraped now are not there.
    let (address, _) = Server::start(vec![("timestamp", json!([])), all()]).await;
    assert_eq!(counted(&counters(&address)).await.pods, []);
}

#[tokio::test]
async fn a_limit_asks_for_the_canary_alone() {
    let (address, server) =
        Server::start(vec![("timestamp", json!([of("c", "canary1", 5.0)])), ("_total", json!([of("c", "canary1", 12.0)]))]).await;
    let limit = request(
        json!({"name": "g", "absolute": {"prometheus": {"address": address}, "good": "ok_total", "total": "ended_total", "maxRate": 0.1}}),
    );
    assert_eq!(counted(&limit).await.pods.len(), 1);
    assert!(server.asked.lock().iter().all(|(q, _)| q.contains("revision=~\"canary1\"")), "{:?}", server.asked.lock());
}
