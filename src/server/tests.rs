use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::telemetry;

struct Fixture {
    app: App,
    ready: watch::Sender<bool>,
    /// Keeps logging alive.
    _log: Box<dyn tracing::Subscriber + Send + Sync>,
}

fn fixture() -> Fixture {
    let (log, handle) = telemetry::detached("info");
    let (ready, is_ready) = watch::channel(false);
    let app = App { metrics: Metrics::new(), ready: is_ready, log: Some(handle), log_level_writable: true };
    Fixture { app, ready, _log: Box::new(tracing_subscriber::registry().with(log)) }
}

async fn ask(app: &App, request: Request<Body>) -> (u16, String) {
    let response = router(app.clone()).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn get_request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn put_level(from: Option<&str>, level: &str) -> Request<Body> {
    let mut request = Request::put("/log-level").body(Body::from(level.to_owned())).unwrap();
    if let Some(from) = from {
        request.extensions_mut().insert(ConnectInfo(from.parse::<SocketAddr>().unwrap()));
    }
    request
}

#[tokio::test]
async fn ready_follows_the_caches_and_health_does_not() {
    let fixture = fixture();
    assert_eq!(ask(&fixture.app, get_request("/healthz")).await.0, 200);
    assert_eq!(ask(&fixture.app, get_request("/readyz")).await.0, 503);
    fixture.ready.send_replace(true);
    assert_eq!(ask(&fixture.app, get_request("/readyz")).await.0, 200);
    assert_eq!(ask(&fixture.app, get_request("/")).await.0, 404);
}

#[tokio::test]
async fn metrics_are_open_metrics() {
    let fixture = fixture();
    fixture.app.metrics.reconcile("rollout", "ok", Duration::from_millis(1));
    let response = router(fixture.app.clone()).oneshot(get_request("/metrics")).await.unwrap();
    assert_eq!(response.headers()["content-type"], OPENMETRICS);
    let (status, text) = ask(&fixture.app, get_request("/metrics")).await;
    assert_eq!(status, 200);
    assert!(text.contains("voicerollout_reconcile_total{controller=\"rollout\",outcome=\"ok\"} 1") && text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn the_log_level_is_shown_and_changed_from_this_machine() {
    let fixture = fixture();
    for here in ["127.0.0.1:5000", "[::1]:5000", "[::ffff:127.0.0.1]:5000"] {
        assert_eq!(ask(&fixture.app, put_level(Some(here), "warn\n")).await.0, 204, "{here}");
        assert_eq!(ask(&fixture.app, get_request("/log-level")).await, (200, "warn\n".into()));
        assert_eq!(ask(&fixture.app, put_level(Some(here), "debug")).await.0, 204, "{here}");
        assert_eq!(ask(&fixture.app, get_request("/log-level")).await, (200, "debug\n".into()));
    }
    let (status, text) = ask(&fixture.app, put_level(Some("127.0.0.1:5000"), "loud")).await;
    assert!(status == 400 && text.contains("\"loud\" is not a level"), "{status} {text}");
    assert_eq!(ask(&fixture.app, put_level(Some("127.0.0.1:5000"), &"x".repeat(MAX_BODY + 1))).await.0, 413);
    assert_eq!(ask(&fixture.app, get_request("/log-level")).await.1, "debug\n");
}

#[tokio::test]
async fn the_log_level_is_not_changed_by_others() {
    let mut fixture = fixture();
    for other in [Some("10.0.0.7:5000"), Some("[::ffff:10.0.0.7]:5000"), None] {
        assert_eq!(ask(&fixture.app, put_level(other, "trace")).await.0, 403, "{other:?}");
    }
    fixture.app.log_level_writable = false;
    assert_eq!(ask(&fixture.app, put_level(Some("127.0.0.1:5000"), "trace")).await.0, 403);
    assert_eq!(ask(&fixture.app, get_request("/log-level")).await.1, "info\n");
    fixture.app.log = None;
    assert_eq!(ask(&fixture.app, get_request("/log-level")).await.0, 404);
}
