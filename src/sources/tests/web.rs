use std::sync::Arc;

use axum::Router;
use axum::extract::Request as HttpRequest;
use axum::http::{HeaderName, StatusCode};
use axum::response::IntoResponse;
use axum::routing::any;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::sources::tests::{LogMap, closed, error, request, serve, sources, sources_allowing, start};

fn gate(web: Value) -> Value {
    json!({"name": "evals", "threshold": {"successCondition": "result >= 0.92", "provider": {"web": web}}})
}

type Headers = &'static [(&'static str, &'static str)];

/// A server that answers everything with this.
async fn answering(status: u16, headers: Headers, body: &'static str) -> String {
    let headers: Vec<_> = headers.iter().map(|(k, v)| (HeaderName::from_static(k), *v)).collect();
    let answer = move || {
        let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
        response.headers_mut().extend(headers.clone().into_iter().map(|(k, v)| (k, v.parse().unwrap())));
        std::future::ready(response)
    };
    format!("http://{}", serve(Router::new().fallback(any(answer))).await)
}

/// A server that answers with a pass rate and notes what it was asked.
async fn noting() -> (String, Arc<Mutex<Vec<Value>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let answer = async move |request: HttpRequest| {
        let (parts, body) = request.into_parts();
        let headers: serde_json::Map<String, Value> =
            parts.headers.iter().map(|(k, v)| (k.to_string(), Value::from(v.to_str().unwrap_or_default()))).collect();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let body = String::from_utf8_lossy(&body);
        noted.lock().push(json!({"method": parts.method.as_str(), "uri": parts.uri.to_string(), "headers": headers, "body": body}));
        axum::Json(json!({"passRate": 0.95}))
    };
    (format!("http://{}", serve(Router::new().fallback(any(answer))).await), seen)
}

#[tokio::test]
async fn a_number_a_flag_a_text_a_list() {
    let base = answering(200, &[], r#"{"passRate":0.95,"ok":true,"grade":"good","list":[1,2.5],"quoted":"0.95"}"#).await;
    let sources = sources(LogMap::default());
    let cases = [
        ("{$.passRate}", json!(0.95)),
        ("$.ok", json!(true)),
        ("{$.grade}", json!("good")),
        ("{$.list}", json!([1, 2.5])),
        ("{$.list[1]}", json!(2.5)),
    ];
    for (path, value) in cases {
        let outcome = start(&sources, &request(gate(json!({"url": base, "jsonPath": path})))).await;
        assert_eq!(outcome, Ok(Progress::Value(value)), "{path}");
    }
    let mut text = gate(json!({"url": base, "jsonPath": "{$.quoted}"}));
    text["threshold"]["successCondition"] = json!("result == '0.95'");
    assert_eq!(start(&sources, &request(text)).await, Ok(Progress::Value(json!("0.95"))), "a condition that compares text gets it");
}

#[tokio::test]
async fn answers_without_a_value() {
    let sources = sources(LogMap::default());
    let long: &'static str = Box::leak(format!(r#"{{"v":"{}"}}"#, "x".repeat(300)).into_boxed_str());
    let huge: &'static str = Box::leak(format!(r#"{{"v":"{}"}}"#, "x".repeat(http::MAX_BODY)).into_boxed_str());
    let cases: &[(&'static str, &str, &str)] = &[
        (r#"{"other":1}"#, "{$.v}", "finds nothing"),
        (r#"{"v":null}"#, "{$.v}", "is null"),
        (r#"{"v":{"a":1}}"#, "{$.v}", "is an object"),
        (r#"{"v":[1,2]}"#, "{$.v[*]}", "finds 2 values"),
        (r#"{"v":[1,"2"]}"#, "{$.v}", "item 1 is not a number"),
        (r#"{"v":"0.95"}"#, "{$.v}", "not a number"),
        (r#"{"v":"+Inf"}"#, "{$.v}", "not a number"),
        (r#"{"v":"a\nb"}"#, "{$.v}", "control characters"),
        (long, "{$.v}", "more than 256"),
        (huge, "{$.v}", "longer than 1024 KiB"),
        ("<html>secret page</html>", "{$.v}", "not JSON"),
        ("", "{$.v}", "not JSON"),
        (r#"{"v":1}{"v":2}"#, "{$.v}", "not JSON"),
        (r#"{"v":1}"#, "{$.v", "one brace"),
        (r#"{"v":1}"#, "v", "does not begin with $"),
    ];
    for (body, path, what) in cases {
        let base = answering(200, &[], body).await;
        let e = error(&sources, &request(gate(json!({"url": base, "jsonPath": path})))).await.message;
        assert!(e.contains(what) && !e.contains("secret page"), "{path}: {e}");
    }
}

#[tokio::test]
async fn statuses() {
    let sources = sources(LogMap::default());
    let cases: &[(u16, Headers, &str, Option<u64>)] = &[
        (500, &[], "500 Internal Server Error", None),
        (404, &[], "404 Not Found", None),
        (429, &[("retry-after", "30")], "429 Too Many Requests", Some(30)),
        (503, &[("retry-after", "5")], "503", Some(5)),
        (500, &[("retry-after", "5")], "500", None),
        (302, &[("location", "http://169.254.169.254/tok-leak")], "redirects are not followed", None),
        (307, &[("location", "/other")], "redirects are not followed", None),
        (204, &[], "not JSON", None),
    ];
    for (status, headers, what, wait) in cases {
        let base = answering(*status, headers, r#"{"passRate":1,"hint":"body-leak"}"#).await;
        let e = error(&sources, &request(gate(json!({"url": format!("{base}/private?x=1"), "jsonPath": "{$.passRate}"})))).await;
        assert!(e.message.contains(what), "{status}: {e}");
        assert!(!e.message.contains("leak") && !e.message.contains("private"), "{e}");
        assert_eq!(e.retry_after.map(|d| d.as_secs()), *wait, "{status}");
    }
}

#[tokio::test]
async fn the_request_carries_arguments_headers_auth_and_the_key() {
    let (base, seen) = noting().await;
    let sources = sources(LogMap::default());
    let web = json!({
        "method": "POST", "url": format!("{base}/api/run?suite=voice&version={{{{args.canary-hash}}}}&t={{{{args.secret-arg}}}}"),
        "headers": [
            {"name": "X-Plain", "value": "v-{{args.canary-hash}}"},
            {"name": "X-Secret", "secretKeyRef": {"name": "creds", "key": "header"}},
        ],
        "body": "{\"version\": \"{{args.canary-hash}}\"}",
        "auth": {"bearer": {"name": "creds", "key": "newline"}},
        "jsonPath": "{$.passRate}",
    });
    assert_eq!(start(&sources, &request(gate(web.clone()))).await, Ok(Progress::Value(json!(0.95))));
    let first = seen.lock()[0].clone();
    assert_eq!(first["method"], "POST");
    assert_eq!(first["uri"], "/api/run?suite=voice&version=canary1&t=arg-s3cr3t%26x");
    assert_eq!(first["body"], r#"{"version": "canary1"}"#);
    assert_eq!(first["headers"]["x-plain"], "v-canary1");
    assert_eq!(first["headers"]["x-secret"], "h34der-s3cr3t");
    assert_eq!(first["headers"]["authorization"], "Bearer tok-3n-s3cr3t");
    assert_eq!(first["headers"]["content-type"], "application/json");
    assert_eq!(first["headers"]["user-agent"], "voicerollout-test");
    assert_eq!(first["headers"]["idempotency-key"], "key-1");

    let mut cluster = web;
    cluster["headers"] = json!([]);
    cluster["auth"] = json!({"bearer": {"name": "creds", "key": "token"}});
    let mut asked = request(gate(cluster));
    asked.from_cluster_template = true;
    assert_eq!(start(&sources, &asked).await, Ok(Progress::Value(json!(0.95))));
    assert_eq!(seen.lock()[1]["headers"]["authorization"], "Bearer 0perator-s3cr3t");
}

#[tokio::test]
async fn requests_that_are_not_sent() {
    let sources = sources(LogMap::default());
    let url = "http://127.0.0.1:9/x";
    let secret = |key: &str| json!({"name": "creds", "key": key});
    let cases = [
        (json!({"url": "http://{{args.canary-hash}}/x"}), "scheme"),
        (json!({"url": "http://h/{{args.nope}}"}), "nope"),
        (json!({"url": "ftp://h/x"}), "http"),
        (json!({"url": "http://user:tok-3n-s3cr3t@127.0.0.1/x"}), "use `auth`"),
        (json!({"url": url, "headers": [{"name": "Host", "value": "x"}]}), "set by the operator"),
        (json!({"url": url, "headers": [{"name": "a b", "value": "x"}]}), "not a valid header name"),
        (json!({"url": url, "headers": [{"name": "X", "secretKeyRef": secret("broken")}]}), "cannot carry"),
        (json!({"url": url, "headers": [{"name": "X", "secretKeyRef": secret("nope")}]}), "Secret voice/creds/nope is missing"),
        (json!({"url": url, "auth": {"bearer": secret("empty")}}), "key empty is empty"),
        (json!({"url": url, "auth": {}}), "exactly one of bearer, basic"),
        (json!({"url": url, "body": "{\"a\": {{args.canary-hash}}}"}), "canary-hash"),
        (json!({"url": "https://127.0.0.1:9/x", "tls": {"ca": secret("ca")}}), "no PEM certificate"),
    ];
    for (mut web, what) in cases {
        web["jsonPath"] = json!("{$.v}");
        let e = error(&sources, &request(gate(web.clone()))).await.message;
        assert!(e.contains(what), "{web}: {e}");
    }
}

#[tokio::test]
async fn servers_that_do_not_answer() {
    let sources = sources(LogMap::default());
    let hang = format!("http://{}", serve(Router::new().fallback(any(std::future::pending::<()>))).await);
    let refused = format!("http://{}", closed().await);
    let cases =
        [(hang, "no answer within 50ms"), (refused, "cannot connect"), ("http://no-such-host.invalid".to_owned(), "cannot connect")];
    for (base, what) in cases {
        let timeout = if what.contains("50ms") { "50ms" } else { "10s" };
        let web = json!({"url": format!("{base}/p?t={{{{args.secret-arg}}}}"), "jsonPath": "{$.v}", "timeout": timeout});
        let e = error(&sources, &request(gate(web))).await.message;
        assert!(e.contains(what) && e.contains(&base), "{base}: {e}");
    }
}

#[tokio::test]
async fn refused_addresses() {
    let sources = sources_allowing(&[], LogMap::default());
    let port = closed().await.port();
    for (host, what) in [
        ("127.0.0.1", "loopback"),
        ("localhost", "loopback"),
        ("169.254.169.254", "metadata"),
        ("[::1]", "loopback"),
        ("0.0.0.0", "unspecified"),
    ] {
        let e = error(&sources, &request(gate(json!({"url": format!("http://{host}:{port}/"), "jsonPath": "{$.v}"})))).await.message;
        assert!(e.contains(what) && e.contains("egress.allow"), "{host}: {e}");
    }
    let base = answering(200, &[], r#"{"v":1}"#).await;
    let by_name = base.replace("127.0.0.1", "localhost");
    let named = sources_allowing(&["localhost"], LogMap::default());
    assert_eq!(start(&named, &request(gate(json!({"url": by_name, "jsonPath": "{$.v}"})))).await, Ok(Progress::Value(json!(1))));
    assert!(start(&named, &request(gate(json!({"url": base, "jsonPath": "{$.v}"})))).await.is_err(), "only the name is allowed");
}

#[tokio::test]
async fn an_answer_with_a_secret_in_it_is_not_used() {
    let base = answering(200, &[], r#"{"v":"you sent tok-3n-s3cr3t"}"#).await;
    let sources = sources(LogMap::default());
    let web = json!({"url": base, "jsonPath": "{$.v}", "auth": {"bearer": {"name": "creds", "key": "token"}}});
    assert!(error(&sources, &request(gate(web))).await.message.contains("holds a Secret's value"));
}

#[tokio::test]
async fn nothing_is_left_to_poll() {
    use crate::sources::Source as _;
    let sources = sources(LogMap::default());
    let asked = request(gate(json!({"url": "http://127.0.0.1:9/", "jsonPath": "{$.v}"})));
    assert!(sources.poll(&asked, "h").await.is_err());
    sources.cancel(&asked, "h").await;
}
