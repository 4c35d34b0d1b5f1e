use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request as HttpRequest;
use axum::http::{HeaderName, StatusCode};
use axum::response::IntoResponse;
use axum::routing::any;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::api::run::Suite;
use crate::core::gates::{Eval, Pairs, Reading};
use crate::sources::tests::{LogMap, SECRETS, closed, request, serve, sources, start};
use crate::sources::{Source as _, Sources};

type Reply = (u16, Vec<(&'static str, String)>, String);

fn reply(status: u16, body: &Value) -> Reply {
    (status, vec![], body.to_string())
}

/// A harness that answers `METHOD PATH` with what the script says; it notes every request, and hangs where there is none.
#[derive(Clone)]
struct Stub {
    base: String,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Stub {
    async fn new(script: impl Fn(&str, &str) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (noted, script) = (seen.clone(), Arc::new(script));
        let answer = move |request: HttpRequest| {
            let (noted, script) = (noted.clone(), script.clone());
            async move {
                let (parts, body) = request.into_parts();
                let base = format!("http://{}", parts.headers["host"].to_str().unwrap());
                let asked = format!("{} {}", parts.method, parts.uri);
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                let header = |name: &str| parts.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
                noted.lock().push(json!({"asked": asked, "key": header("idempotency-key"), "auth": header("authorization"),
                    "body": String::from_utf8_lossy(&body)}));
                let Some((status, headers, body)) = script(&asked, &base) else { return std::future::pending().await };
                let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
                for (name, value) in headers {
                    response.headers_mut().insert(HeaderName::from_static(name), value.parse().unwrap());
                }
                response
            }
        };
        Self { base: format!("http://{}", serve(Router::new().fallback(any(answer))).await), seen }
    }

    /// A stub whose start answers `202 {"id": 7, ...}` and whose poll answers this.
    async fn polled(poll: Reply) -> Self {
        Self::new(move |asked, _| {
            Some(if asked.starts_with("POST") { reply(202, &json!({"id": 7, "status": "queued"})) } else { poll.clone() })
        })
        .await
    }

    fn asked(&self) -> Vec<String> {
        self.seen.lock().iter().map(|r| r["asked"].as_str().unwrap().to_owned()).collect()
    }

    fn web(&self) -> Value {
        json!({
            "method": "POST", "url": format!("{}/api/runs", self.base), "jsonPath": "{$.score}",
            "run": {"poll": {"url": "/api/runs/{{run.id}}", "id": "{$.id}"}, "done": "result.status == 'completed'",
                "failed": "result.status in ['failed', 'cancelled']"}
        })
    }
}

fn gate(web: Value) -> Value {
    json!({"name": "evals", "threshold": {"successCondition": "result >= 0.92", "provider": {"web": web}}})
}

fn with(mut base: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    base.pointer_mut(parent).unwrap()[key] = value;
    base
}

async fn running(sources: &Sources, asked: &Request) -> (String, Duration) {
    match start(sources, asked).await {
        Ok(Progress::Running { handle, poll_after }) => (handle, poll_after),
        other => panic!("not running: {other:?}"),
    }
}

async fn polled(sources: &Sources, asked: &Request) -> Result<Progress, SourceError> {
    let (handle, _) = running(sources, asked).await;
    let outcome = sources.poll(asked, &handle).await;
    let text = format!("{outcome:?}");
    assert!(SECRETS.iter().all(|s| !text.contains(s)) && !text.contains("body-leak"), "{text}");
    outcome
}

#[tokio::test]
async fn a_run_is_started_polled_and_read() {
    let done = json!({"status": "completed", "results": {"stats": {"successes": 19, "failures": 1}}, "suite": "voice",
        "version": 12, "seed": 7, "datasetHash": "3f2a"});
    let stub = Stub::polled(reply(200, &done)).await;
    let mut web = stub.web();
    web.as_object_mut().unwrap().remove("jsonPath");
    for (pointer, value) in [
        ("/body", json!("{\"version\": \"{{args.canary-hash}}\", \"name\": \"{{run.key}}\"}")),
        ("/auth", json!({"bearer": {"name": "creds", "key": "token"}})),
        ("/values", json!({"pass": "{$.results.stats.successes}", "fail": "{$.results.stats.failures}"})),
        ("/result", json!("double(pass) / double(pass + fail)")),
        ("/suite", json!({"name": "{$.suite}", "version": "{$.version}", "seed": "{$.seed}", "dataset": "{$.datasetHash}"})),
    ] {
        web = with(web, pointer, value);
    }
    let (sources, asked) = (sources(LogMap::default()), request(gate(web)));
    let (handle, wait) = running(&sources, &asked).await;
    assert_eq!((handle.as_str(), wait), (r#"{"id":"7"}"#, Duration::from_secs(10)));
    let suite = Suite { name: Some("voice".into()), version: Some("12".into()), seed: Some("7".into()), dataset: Some("3f2a".into()) };
    let eval = Eval { reading: Reading::Value(json!(0.95)), suite: Some(suite) };
    assert_eq!(sources.poll(&asked, &handle).await, Ok(Progress::Eval(eval)));
    let seen = stub.seen.lock().clone();
    assert_eq!(stub.asked(), ["POST /api/runs", "GET /api/runs/7"]);
    assert_eq!(seen[0]["body"], r#"{"version": "canary1", "name": "key-1"}"#);
    assert_eq!((&seen[0]["key"], &seen[1]["key"]), (&json!("key-1"), &json!(null)), "the key belongs to the start");
    assert_eq!(seen[1]["auth"], "Bearer tok-3n-s3cr3t");
}

#[tokio::test]
async fn what_a_start_may_answer() {
    let sources = sources(LogMap::default());
    let done = json!({"id": 7, "status": "completed", "score": 0.95});
    let stub = Stub::new(move |_, _| Some(reply(200, &done))).await;
    assert_eq!(start(&sources, &request(gate(stub.web()))).await, Ok(Progress::Value(json!(0.95))), "done at once");
    assert_eq!(stub.asked(), ["POST /api/runs"]);

    for status in [200, 201, 202, 409] {
        let stub = Stub::new(move |_, _| Some(reply(status, &json!({"id": "a/b"})))).await;
        let (handle, _) = running(&sources, &request(gate(stub.web()))).await;
        assert_eq!(handle, r#"{"id":"a/b"}"#, "{status}: a key that is known already is answered like a new one");
        drop(sources.poll(&request(gate(stub.web())), &handle).await);
        assert_eq!(stub.asked()[1], "GET /api/runs/a%2Fb", "an id stays in its place");
    }

    let located: Reply = (202, vec![("location", "/jobs/9?x=1".into()), ("retry-after", "33".into())], String::new());
    let stub = Stub::new(move |_, _| Some(located.clone())).await;
    let web = with(stub.web(), "/run/poll", json!({}));
    let (handle, wait) = running(&sources, &request(gate(web))).await;
    assert_eq!((handle, wait.as_secs()), (format!(r#"{{"poll":"{}/jobs/9?x=1"}}"#, stub.base), 33));

    let stub = Stub::new(|_, _| Some(reply(202, &json!({"links": {"self": "runs/1"}, "again": 2.5})))).await;
    let web = with(stub.web(), "/run/poll", json!({"url": "{$.links.self}", "retryAfter": "{$.again}"}));
    let (handle, wait) = running(&sources, &request(gate(web))).await;
    assert_eq!((handle, wait.as_millis()), (format!(r#"{{"poll":"{}/api/runs/1"}}"#, stub.base), 2500));
}

#[tokio::test]
async fn starts_that_are_refused() {
    let sources = sources(LogMap::default());
    let links = |url: &str| json!({"links": {"self": url, "cancel": url}, "id": "i"});
    let (by_link, location) = (json!({"url": "{$.links.self}"}), json!({}));
    let by_id = json!({"url": "/r/{{run.id}}", "id": "{$.id}"});
    let cases: Vec<(Reply, &Value, &str)> = vec![
        (reply(202, &links("http://169.254.169.254/x")), &by_link, "another scheme, host or port"),
        (reply(202, &links("//evil.example/x")), &by_link, "another scheme, host or port"),
        (reply(202, &links("http://127.0.0.1:1/x")), &by_link, "another scheme, host or port"),
        (reply(202, &links("file:///etc/passwd")), &by_link, "another scheme, host or port"),
        (reply(202, &links(&format!("/{}", "x".repeat(3000)))), &by_link, "longer than 1024"),
        (reply(202, &json!({"id": 1})), &by_link, "finds nothing in the answer"),
        (reply(202, &json!({"links": {"self": 5}})), &by_link, "is not one text"),
        (reply(202, &json!({})), &by_id, "poll.id: jsonPath \"{$.id}\" finds nothing"),
        (reply(202, &json!({"id": {"a": 1}})), &by_id, "not a text or a whole number"),
        (reply(202, &json!({"id": "x".repeat(300)})), &by_id, "longer than 256"),
        (reply(202, &json!({"id": "tok-3n-s3cr3t"})), &by_id, "holds a Secret's value"),
        (reply(202, &json!({"id": 1})), &location, "no Location header"),
        ((202, vec![("location", "http://evil.example/".into())], String::new()), &location, "the Location header has another scheme"),
        (reply(409, &json!({"error": "body-leak"})), &by_id, "409 Conflict"),
        (reply(400, &json!({"error": "body-leak"})), &by_id, "400 Bad Request"),
        ((202, vec![("content-type", "text/html".into())], "<html>body-leak".into()), &by_id, "not JSON (text/html, 15 bytes)"),
        (reply(200, &json!({"id": 1, "status": "failed"})), &by_id, "ended without a result"),
        (reply(200, &json!({"id": 1, "status": "completed", "score": "0.95"})), &by_id, "number in quotes"),
    ];
    for (answer, poll, what) in cases {
        let told = answer.clone();
        let stub = Stub::new(move |_, _| Some(told.clone())).await;
        let mut web = with(stub.web(), "/run/poll", poll.clone());
        web["auth"] = json!({"bearer": {"name": "creds", "key": "token"}});
        let e = start(&sources, &request(gate(web))).await.expect_err(what).message;
        assert!(e.contains(what) && !e.contains("leak") && !e.contains("evil") && !e.contains("169.254"), "{what}: {e}");
        assert_eq!(stub.asked().len(), 1);
    }
    let stub = Stub::new(move |_, _| Some(reply(202, &json!({"id": 1, "cancel": "http://evil.example/"})))).await;
    let web = with(stub.web(), "/run/cancel", json!({"url": "{$.cancel}"}));
    assert!(start(&sources, &request(gate(web))).await.unwrap_err().message.contains("cancel.url"));
}

#[tokio::test]
async fn a_start_without_an_answer_is_to_be_repeated() {
    let sources = sources(LogMap::default());
    let later = async |web: Value| match start(&sources, &request(gate(web))).await {
        Ok(Progress::Unanswered { message, retry_after }) => (message, retry_after.map(|d| d.as_secs())),
        other => panic!("{other:?}"),
    };
    let hangs = Stub::new(|_, _| None).await;
    assert!(later(with(hangs.web(), "/timeout", json!("50ms"))).await.0.contains("no answer within 50ms"));
    let refuses = with(hangs.web(), "/url", json!(format!("http://{}/x", closed().await)));
    assert!(later(refuses).await.0.contains("cannot connect"));
    let busy = Stub::new(|_, _| Some((503, vec![("retry-after", "7".into())], "body-leak".into()))).await;
    assert_eq!(later(busy.web()).await.1, Some(7));
}

#[tokio::test]
async fn what_a_poll_may_answer() {
    let sources = sources(LogMap::default());
    let huge = json!({"status": "completed", "score": 1, "x": "x".repeat(http::MAX_BODY)});
    let going: Vec<(Reply, u64)> = vec![
        (reply(200, &json!({"status": "running"})), 10),
        ((202, vec![], String::new()), 10),
        ((200, vec![("retry-after", "120".into())], json!({"status": "IN QUEUE"}).to_string()), 120),
        ((200, vec![("retry-after", "soon".into())], json!({"status": "x"}).to_string()), 10),
    ];
    for (answer, wait) in going {
        let stub = Stub::polled(answer).await;
        match polled(&sources, &request(gate(stub.web()))).await {
            Ok(Progress::Running { handle, poll_after }) => assert_eq!((handle.as_str(), poll_after.as_secs()), (r#"{"id":"7"}"#, wait)),
            other => panic!("{other:?}"),
        }
    }
    for status in [500, 502, 503, 504, 408, 429] {
        let stub = Stub::polled(reply(status, &json!({"error": "body-leak"}))).await;
        let outcome = polled(&sources, &request(gate(stub.web()))).await;
        assert!(matches!(&outcome, Ok(Progress::Unanswered { message, .. }) if message.contains(&status.to_string())), "{outcome:?}");
    }
    let ended: Vec<(Reply, &str)> = vec![
        (reply(404, &json!({})), "404: the run is gone"),
        (reply(410, &json!({})), "410: the run is gone"),
        (reply(401, &json!({"error": "body-leak"})), "401 Unauthorized"),
        ((302, vec![("location", "http://evil.example/".into())], String::new()), "redirects are not followed"),
        ((200, vec![("content-type", "text/html; charset=utf-8".into())], "<p>body-leak".into()), "not JSON (text/html, 12 bytes)"),
        (reply(200, &huge), "longer than 1024 KiB"),
        (reply(200, &json!({"state": "body-leak"})), "there is no field `status`"),
        (reply(200, &json!({"status": "cancelled"})), "ended without a result: result.status in"),
        (reply(200, &json!({"status": "completed"})), "finds nothing in the answer"),
        (reply(200, &json!({"status": "completed", "score": "0.95"})), "number in quotes"),
        (reply(200, &json!({"status": "completed", "score": null})), "is null"),
    ];
    for (answer, what) in ended {
        let stub = Stub::polled(answer).await;
        let e = polled(&sources, &request(gate(stub.web()))).await.expect_err(what).message;
        assert!(e.contains(what) && !e.contains("evil"), "{what}: {e}");
    }
    let stub = Stub::polled(reply(200, &json!({}))).await;
    let asked = request(gate(stub.web()));
    for (handle, what) in [("h", "cannot be read"), ("{}", "run.id"), ("", "cannot be read")] {
        assert!(sources.poll(&asked, handle).await.unwrap_err().message.contains(what), "{handle}");
    }
    let by_link = request(gate(with(stub.web(), "/run/poll", json!({"url": "{$.self}"}))));
    let forged = r#"{"poll":"http://169.254.169.254/latest"}"#;
    assert!(sources.poll(&by_link, forged).await.unwrap_err().message.contains("another scheme, host or port"));
    assert_eq!(stub.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn values_that_are_computed() {
    let sources = sources(LogMap::default());
    let rate = "double(pass) / double(pass + fail)";
    let counts = json!({"pass": "{$.ok}", "fail": "{$.bad}"});
    let calls = json!({"pass": "{$.calls[?@.ok == true].id}", "fail": "{$.calls[?@.ok == false].id}"});
    let sizes = "size(pass) / size(pass + fail)";
    let share = "double(size(pass)) / (size(pass) + size(fail))";
    let listed = json!({"calls": [{"id": 1, "ok": true}, {"id": 2, "ok": false}, {"id": 3, "ok": true}, {"id": 4, "ok": true}]});
    for (values, result, body, wanted) in [
        (&counts, rate, json!({"ok": 9, "bad": 1}), Ok(Progress::Value(json!(0.9)))),
        (&counts, rate, json!({"ok": 0, "bad": 0}), Ok(Progress::NoData("the result is 0/0: nothing was counted".into()))),
        (&counts, rate, json!({"ok": "9", "bad": "1"}), Err("text in the answer")),
        (&counts, "pass / 10", json!({"ok": "9", "bad": 1}), Err("`pass` is text in the answer")),
        (&counts, rate, json!({"ok": 9}), Err("values.fail: jsonPath \"{$.bad}\" finds nothing")),
        (&counts, rate, json!({"ok": 9, "bad": null}), Err("values.fail: jsonPath \"{$.bad}\" is null")),
        (&counts, rate, json!({"ok": 9, "bad": {"n": 1}}), Err("is an object")),
        (&calls, share, listed.clone(), Ok(Progress::Value(json!(0.75)))),
        (&calls, share, json!({"calls": []}), Ok(Progress::NoData("the result is 0/0: nothing was counted".into()))),
        (&calls, sizes, listed, Err("does not fit")),
        (&calls, share, json!({"calls": [{"id": {}, "ok": true}]}), Err("select a field of each item")),
    ] {
        let stub = Stub::new(move |_, _| Some(reply(200, &body))).await;
        let web = json!({"url": stub.base, "values": values, "result": result});
        let outcome = start(&sources, &request(gate(web))).await;
        match wanted {
            Ok(progress) => assert_eq!(outcome, Ok(progress), "{result}"),
            Err(what) => assert!(outcome.as_ref().unwrap_err().message.contains(what), "{what}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn facts_about_the_suite() {
    let sources = sources(LogMap::default());
    for (body, what) in [
        (json!({"score": 1}), "suite.version: jsonPath \"{$.version}\" finds nothing"),
        (json!({"score": 1, "version": {"a": 1}}), "suite.version \"{$.version}\" is not a text or a number"),
        (json!({"score": 1, "version": "x".repeat(200)}), "longer than 128"),
        (json!({"score": 1, "version": "tok-3n-s3cr3t"}), "holds a Secret's value"),
    ] {
        let stub = Stub::new(move |_, _| Some(reply(200, &body))).await;
        let web = json!({"url": stub.base, "jsonPath": "{$.score}", "suite": {"version": "{$.version}"},
            "auth": {"bearer": {"name": "creds", "key": "token"}}});
        let e = start(&sources, &request(gate(web))).await.unwrap_err().message;
        assert!(e.contains(what), "{what}: {e}");
    }
}

#[tokio::test]
async fn scenarios_on_both_versions() {
    let sources = sources(LogMap::default());
    let pair = |s: Value, c: Value| json!({"stable": {"pass": s}, "canary": {"pass": c}});
    let (t, f) = (json!(true), json!(false));
    let listed = |pairs: Vec<Value>| json!({"results": pairs});
    let scenarios = json!({"scenarios": {"path": "{$.results[*]}", "stable": "{$.stable.pass}", "canary": "{$.canary.pass}"}});
    let whole = json!({"scenarios": {"path": "{$.results}", "stable": "{$.stable.pass}", "canary": "{$.canary.pass}"}});
    let counts = json!({"stableOnly": "{$.b}", "canaryOnly": "{$.c}", "total": "{$.n}"});
    let four = listed(vec![pair(t.clone(), f.clone()), pair(f.clone(), json!(1)), pair(t.clone(), t.clone()), pair(json!(1), json!(0))]);
    let found = Ok(Reading::Pairs(Pairs { pairs: 4, stable_only: 2, canary_only: 1 }));
    for (how, body, wanted) in [
        (&scenarios, four.clone(), found.clone()),
        (&whole, four, found.clone()),
        (&counts, json!({"b": 2, "c": 1, "n": 4.0}), found),
        (&scenarios, listed(vec![]), Ok(Reading::NoData("no scenario ran".into()))),
        (&counts, json!({"b": 0, "c": 0, "n": 0}), Ok(Reading::NoData("no scenario ran".into()))),
        (&scenarios, listed(vec![pair(t.clone(), f.clone()), json!({"stable": {"pass": true}})]), Err("scenario 1: canary: jsonPath")),
        (&scenarios, listed(vec![pair(t.clone(), json!("true"))]), Err("scenario 0: canary \"{$.canary.pass}\" is not true, false")),
        (&scenarios, listed(vec![pair(json!(null), t.clone())]), Err("scenario 0: stable")),
        (&counts, json!({"b": 3, "c": 2, "n": 4}), Err("more than total")),
        (&counts, json!({"b": "3", "c": 2, "n": 4}), Err("stableOnly \"{$.b}\" is a text")),
        (&counts, json!({"b": 0.5, "c": 2, "n": 4}), Err("not a whole number")),
        (&counts, json!({"b": -1, "c": 2, "n": 4}), Err("out of range")),
        (&counts, json!({"b": 1, "n": 4}), Err("canaryOnly: jsonPath \"{$.c}\" finds nothing")),
        (&scenarios, listed(vec![pair(t.clone(), t.clone()); 10_001]), Err("the most is 10000")),
    ] {
        let stub = Stub::new(move |_, _| Some(reply(200, &body))).await;
        let mut paired = how.clone();
        paired["web"] = json!({"url": stub.base});
        let outcome = start(&sources, &request(json!({"name": "pairs", "paired": paired}))).await;
        match (wanted, outcome) {
            (Ok(reading), Ok(Progress::Eval(eval))) => assert_eq!(eval, Eval { reading, suite: None }),
            (Ok(Reading::NoData(why)), outcome) => assert_eq!(outcome, Ok(Progress::NoData(why))),
            (Err(what), outcome) => assert!(outcome.as_ref().unwrap_err().message.contains(what), "{what}: {outcome:?}"),
            (wanted, outcome) => panic!("{wanted:?}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn cancellation_is_asked_for_once_where_there_is_a_way() {
    let sources = sources(LogMap::default());
    for (cancel, asked) in [
        (json!({"method": "DELETE", "url": "/api/runs/{{run.id}}"}), Some("DELETE /api/runs/7")),
        (json!({"url": "{$.links.cancel}"}), Some("POST /stop/7")),
        (json!({"method": "PUT", "url": "{$.links.nothing}"}), None),
        (json!(null), None),
    ] {
        let stub = Stub::new(|asked, _| match asked {
            "POST /api/runs" => Some(reply(202, &json!({"id": 7, "links": {"cancel": "/stop/7"}}))),
            _ => Some(reply(500, &json!({}))),
        })
        .await;
        let gate = gate(with(stub.web(), "/run/cancel", cancel));
        let (handle, _) = running(&sources, &request(gate.clone())).await;
        sources.cancel(&request(gate), &handle).await;
        assert_eq!(stub.asked().get(1).map(String::as_str), asked);
        assert!(stub.asked().len() <= 2);
    }
}
