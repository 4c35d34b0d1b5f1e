use std::sync::Arc;

use http::{Request, Response};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;

/// A Kubernetes API that answers from `answer` and remembers what it was asked.
fn api(answer: impl Fn(&str) -> (u16, Vec<u8>) + Send + Sync + 'static) -> (KubeLogs, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (answer, noted) = (Arc::new(answer), asked.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let uri = request.uri().to_string();
        let (status, body) = answer(&uri);
        noted.lock().push(uri);
        async move { Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(Body::from(body)).unwrap()) }
    });
    (KubeLogs::new(Client::new(service, "default")), asked)
}

fn pod(name: &str, state: Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "agent"}, {"name": "istio-proxy"}]},
        "status": {"containerStatuses": [{"name": "agent", "state": state, "image": "", "imageID": "", "ready": true, "restartCount": 0}]},
    })
}

fn list(pods: &[Value]) -> Vec<u8> {
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods}).to_string().into_bytes()
}

fn status(code: u16, message: &str) -> (u16, Vec<u8>) {
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "x", "code": code})
            .to_string()
            .into_bytes(),
    )
}

/// The revision `r1`.
fn query(container: Option<&'static str>, tail: i64) -> LogQuery<'static> {
    LogQuery { namespace: "voice", rollout: "agent", revision: "r1", container, tail }
}

#[tokio::test]
async fn every_pod_of_the_revision_is_read() {
    let (logs, asked) = api(|uri| match uri {
        u if u.contains("/pods?") => (
            200,
            list(&[
                pod("b", json!({"running": {}})),
                pod("a", json!({"terminated": {"exitCode": 1}})),
                pod("new", json!({"waiting": {}})),
                pod("gone", json!({"running": {}})),
            ]),
        ),
        u if u.contains("/pods/gone/") => status(404, "not found"),
        u if u.contains("/pods/a/") => (200, b"from a\n".to_vec()),
        _ => (200, b"from b\n".to_vec()),
    });
    let found = logs.pod_logs(query(None, 50)).await.unwrap();
    assert_eq!(found, [("a".to_owned(), "from a\n".to_owned()), ("b".to_owned(), "from b\n".to_owned())]);
    let asked = asked.lock();
    assert!(
        asked[0].contains("/namespaces/voice/pods?")
            && asked[0].contains("labelSelector=voicerollout.dev%2Frollout%3Dagent%2Cvoicerollout.dev%2Frevision%3Dr1"),
        "{asked:?}"
    );
    assert!(asked[1..].iter().all(|u| u.contains("container=agent") && u.contains("tailLines=50")), "{asked:?}");
    assert_eq!(asked.len(), 4, "the waiting pod is not asked: {asked:?}");
}

#[tokio::test]
async fn a_failed_read_is_an_error() {
    for (uri, what) in [("/pods?", "list pods in voice"), ("/log?", "logs of pod a, container agent")] {
        let (logs, _) =
            api(
                move |u| {
                    if u.contains(uri) { status(403, "forbidden: no rights") } else { (200, list(&[pod("a", json!({"running": {}}))])) }
                },
            );
        let error = logs.pod_logs(query(Some("agent"), 50)).await.unwrap_err().message;
        assert!(error.contains(what) && error.contains("forbidden: no rights (403)"), "{error}");
    }
}

#[tokio::test]
async fn a_container_that_does_not_exist_is_asked_for_all_the_same() {
    let (logs, _) = api(|u| {
        if u.contains("/log?") {
            status(400, "container nope is not valid for pod a")
        } else {
            (200, list(&[pod("a", json!({"running": {}}))]))
        }
    });
    let error = logs.pod_logs(query(Some("nope"), 50)).await.unwrap_err().message;
    assert!(error.contains("container nope is not valid"), "{error}");
}

#[tokio::test]
async fn the_newest_bytes_of_a_long_log_are_kept() {
    let (logs, _) = api(|u| match u.contains("/log?") {
        true => (200, (0..200_000).map(|i| format!("line {i}\n")).collect::<String>().into_bytes()),
        false => (200, list(&[pod("a", json!({"running": {}}))])),
    });
    let found = logs.pod_logs(query(None, 5000)).await.unwrap();
    let text = &found[0].1;
    assert!(text.len() <= MAX_BYTES && text.len() > MAX_BYTES - 20);
    assert!(text.starts_with("line ") && text.ends_with("line 199999\n"));
}

#[tokio::test]
async fn lines_come_pod_by_pod_and_stop_at_the_limit() {
    let (logs, asked) = api(|uri| match uri {
        u if u.contains("/pods?") => (200, list(&[pod("b", json!({"running": {}})), pod("a", json!({"running": {}}))])),
        u if u.contains("/pods/a/") => (200, b"a one\na two\n\na \xff\nno end".to_vec()),
        _ => (200, (0..100_000).map(|i| format!("b {i}\n")).collect::<String>().into_bytes()),
    });
    let mut lines = Vec::new();
    let complete = logs.stream(query(None, 9), 10_000_000, &mut |line: &str| lines.push(line.to_owned())).await.unwrap();
    assert!(complete, "everything is read");
    assert_eq!(lines[..6], ["a one", "a two", "", "a \u{fffd}", "no end", "b 0"]);
    assert_eq!((lines.len(), lines.last().map(String::as_str)), (100_005, Some("b 99999")));
    lines.clear();
    let complete = logs.stream(query(None, 9), 30, &mut |line: &str| lines.push(line.to_owned())).await.unwrap();
    assert!(!complete);
    assert_eq!(lines[4..], ["no end", "b 0", "b 1"], "{lines:?}");
    assert!(asked.lock()[1].contains("tailLines=9"));
}

#[test]
fn a_line_without_end_takes_the_memory_of_one_line() {
    let mut lines = Lines::new(usize::MAX);
    let mut found = Vec::new();
    let mut sink = |line: &str| found.push(line.len());
    for _ in 0..100 {
        lines.take(&[b'x'; 10_000], &mut sink);
        assert!(lines.line.len() <= MAX_LINE);
    }
    lines.take(b"\nshort\n", &mut sink);
    lines.end(&mut sink);
    assert_eq!(found, [MAX_LINE, 5]);
}
