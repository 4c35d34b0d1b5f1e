use std::sync::Arc;

use axum::Router;
use axum::extract::Request as HttpRequest;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::any;
use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::sources::tests::{LogMap, closed, error, request, serve, sources, start};

fn gate(address: &str, condition: &str) -> Value {
    json!({"name": "p95", "threshold": {"successCondition": condition, "provider": {"prometheus": {
        "address": address, "query": "histogram_quantile(0.95, x{rev=\"{{args.canary-hash}}\"})", "timeout": "5s",
    }}}})
}

/// A server that answers every query with this, and notes the requests.
async fn answering(status: u16, body: Value) -> (String, Arc<Mutex<Vec<(String, String)>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let answer = move |request: HttpRequest| {
        let authorization = request.headers().get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        noted.lock().push((format!("{} {}", request.method(), request.uri()), authorization));
        std::future::ready((StatusCode::from_u16(status).unwrap(), axum::Json(body.clone())).into_response())
    };
    (format!("http://{}", serve(Router::new().fallback(any(answer))).await), seen)
}

fn vector(series: &[(Value, &str)]) -> Value {
    let result: Vec<Value> = series.iter().map(|(metric, value)| json!({"metric": metric, "value": [1763805600.123, value]})).collect();
    json!({"status": "success", "data": {"resultType": "vector", "result": result}})
}

#[tokio::test]
async fn values() {
    let one = || vector(&[(json!({}), "812.4")]);
    let several = vector(&[(json!({"pod": "b"}), "2"), (json!({"pod": "a"}), "1"), (json!({"pod": "a", "x": "y"}), "+Inf")]);
    let cases = [
        (one(), "result <= 800", json!(812.4)),
        (one(), "result[0] <= 800", json!([812.4])),
        (vector(&[(json!({}), "+Inf")]), "result <= 800", json!("+Inf")),
        (vector(&[(json!({}), "-Inf")]), "result <= 800", json!("-Inf")),
        (vector(&[(json!({}), "0")]), "result <= 800", json!(0.0)),
        (json!({"status": "success", "data": {"resultType": "scalar", "result": [1763805600, "3"]}}), "result < 4", json!(3.0)),
        (several.clone(), "result[0] < 5", json!([1.0, "+Inf", 2.0])),
        (several.clone(), "result.all(x, x < 5)", json!([1.0, "+Inf", 2.0])),
        (several, "size(result) == 3", json!([1.0, "+Inf", 2.0])),
    ];
    let sources = sources(LogMap::default());
    for (body, condition, value) in cases {
        let (base, seen) = answering(200, body).await;
        assert_eq!(start(&sources, &request(gate(&base, condition))).await, Ok(Progress::Value(value)), "{condition}");
        let (uri, _) = seen.lock()[0].clone();
        assert!(uri.starts_with("GET /api/v1/query?query=histogram_quantile") && uri.contains("rev%3D%22canary1%22"), "{uri}");
    }
}

#[tokio::test]
async fn no_data_has_two_reasons() {
    let sources = sources(LogMap::default());
    let nan = (json!({"pod": "a"}), "NaN");
    let cases = [
        (vector(&[]), "result < 1", "empty vector"),
        (vector(&[]), "result[0] < 1", "empty vector"),
        (vector(std::slice::from_ref(&nan)), "result < 1", "NaN: often 0 divided by 0"),
        (vector(&[(json!({"pod": "b"}), "1"), nan]), "result[0] < 1", "NaN for {pod=\"a\"} of its 2 series"),
        (json!({"status": "success", "data": {"resultType": "scalar", "result": [1, "NaN"]}}), "result < 1", "gives NaN"),
    ];
    for (body, condition, what) in cases {
        let (base, _) = answering(200, body).await;
        match start(&sources, &request(gate(&base, condition))).await {
            Ok(Progress::NoData(why)) => assert!(why.contains(what), "{why}"),
            other => panic!("{condition}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn several_series_where_one_is_needed() {
    let sources = sources(LogMap::default());
    let (base, _) = answering(200, vector(&[(json!({"pod": "b"}), "2"), (json!({"pod": "a", "t": "arg-s3cr3t&x"}), "1")])).await;
    let e = error(&sources, &request(gate(&base, "result < 5"))).await.message;
    assert!(e.contains("gives 2 series where one is needed, for example {pod=\"a\", t=\"***\"}"), "{e}");
}

#[tokio::test]
async fn failing_servers() {
    let sources = sources(LogMap::default());
    let prom_error = |kind: &str, text: &str| json!({"status": "error", "errorType": kind, "error": text});
    let cases = [
        (400, prom_error("bad_data", "1:5: parse error: unexpected \"arg-s3cr3t&x\""), "bad_data: 1:5: parse error: unexpected \"***\""),
        (422, prom_error("execution", "query processing would load too many samples"), "execution: query processing"),
        (503, prom_error("timeout", "query timed out in expression evaluation"), "503 Service Unavailable: the query fails with timeout"),
        (200, prom_error("execution", "odd\u{1b}[31m"), "execution: odd"),
        (500, json!("page-leak"), "HTTP 500"),
        (502, json!({"page-leak": true}), "HTTP 502 Bad Gateway"),
        (401, json!({"page-leak": true}), "401 Unauthorized: credentials are missing or wrong"),
        (403, json!({}), "403 Forbidden"),
        (404, json!({}), "no Prometheus API there"),
        (301, json!({}), "redirects are not followed"),
        (200, json!({"passRate": 1}), "not one of a Prometheus server"),
        (200, json!({"status": "success", "data": {"resultType": "string", "result": [1, "x"]}}), "no numbers"),
        (
            200,
            json!({"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "2"]]}]}}),
            "ranges, not values",
        ),
        (200, json!({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "x"]}]}}), "no numbers"),
        (200, json!({"status": "success"}), "no numbers"),
    ];
    for (status, body, what) in cases {
        let (base, _) = answering(status, body).await;
        let e = error(&sources, &request(gate(&base, "result < 1"))).await.message;
        assert!(e.contains(what) && !e.contains("leak"), "{status}: {e}");
    }
    let e = error(&sources, &request(gate(&format!("http://{}", closed().await), "result < 1"))).await.message;
    assert!(e.contains("cannot connect") && e.contains("refused"), "{e}");
    let hang = format!("http://{}", serve(Router::new().fallback(any(std::future::pending::<()>))).await);
    let mut slow = gate(&hang, "result < 1");
    slow["threshold"]["provider"]["prometheus"]["timeout"] = json!("50ms");
    assert!(error(&sources, &request(slow)).await.message.contains("no answer within 50ms"));
}

#[tokio::test]
async fn credentials_and_long_queries() {
    let sources = sources(LogMap::default());
    let (base, seen) = answering(200, vector(&[(json!({}), "1")])).await;
    let mut basic = gate(&format!("{base}/prom/"), "result < 5");
    let provider = &mut basic["threshold"]["provider"]["prometheus"];
    let key = |key: &str| json!({"name": "creds", "key": key});
    provider["auth"] = json!({"basic": {"username": key("user"), "password": key("password")}});
    provider["query"] = json!(format!("sum(x) + {}", "0 + ".repeat(600) + "0"));
    assert_eq!(start(&sources, &request(basic)).await, Ok(Progress::Value(json!(1.0))));
    let (uri, authorization) = seen.lock()[0].clone();
    assert_eq!(uri, "POST /prom/api/v1/query");
    assert_eq!(authorization, "Basic dXMzci1zM2NyM3Q6cDRzcyAidzByZCIvw6k=");
    let (base, _) = answering(
        401,
        json!({"status": "error", "errorType": "bad_data", "error": "bad credentials dXMzci1zM2NyM3Q6cDRzcyAidzByZCIvw6k= sent"}),
    )
    .await;
    let mut basic = gate(&base, "result < 5");
    basic["threshold"]["provider"]["prometheus"]["auth"] = json!({"basic": {"username": key("user"), "password": key("password")}});
    let e = error(&sources, &request(basic)).await.message;
    assert!(e.contains("bad credentials *** sent"), "{e}");
}

#[tokio::test]
async fn queries_that_are_not_sent() {
    let sources = sources(LogMap::default());
    for (field, value, what) in [
        ("query", "x{r={{args.secret-arg}}}", "secret-arg"),
        ("query", "x{r=\"{{args.nope}}\"}", "nope"),
        ("address", "http://127.0.0.1:9/?a=b", "no ? and no #"),
        ("address", "http://{{args.canary-hash}}:9090", "scheme"),
    ] {
        let mut odd = gate("http://127.0.0.1:9", "result < 5");
        odd["threshold"]["provider"]["prometheus"][field] = json!(value);
        let e = error(&sources, &request(odd)).await.message;
        assert!(e.contains(what), "{value}: {e}");
    }
}
