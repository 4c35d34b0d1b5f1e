//! Commands in the caller's name.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use super::world::{World, ask, get_as};

fn order(token: &str, namespace: &str, body: &Value) -> Request<Body> {
    let request = Request::post(format!("/dashboard/api/rollouts/{namespace}/agent/actions"));
    let request = request.header("authorization", format!("Bearer {token}")).header("content-type", "application/json");
    request.body(Body::from(body.to_string())).unwrap()
}

fn abort() -> Value {
    json!({"verb": "abort", "revision": "6d5f8c", "reason": " callers complain "})
}

#[tokio::test]
async fn a_command_is_created_by_the_caller_and_bound_to_the_revision() {
    let world = World::new();
    let (status, body) = ask(&world.dashboard(true), order("of-jane", "voice", &abort())).await;
    assert_eq!((status, body.as_str()), (200, r#"{"name":"agent-abort-x7k2p"}"#));
    let made = world.api.asked("/voicerolloutactions");
    assert_eq!(made.len(), 1);
    assert_eq!(made[0].authorization.as_deref(), Some("Bearer of-jane"));
    let spec = json!({"rollout": "agent", "revision": "6d5f8c", "verb": "abort", "reason": "callers complain", "requestedBy": "jane"});
    assert_eq!(made[0].body["spec"], spec);
    let promote = json!({"verb": "promote", "revision": "6d5f8c", "step": "3/10"});
    assert_eq!(ask(&world.dashboard(true), order("of-jane", "voice", &promote)).await.0, 200);
    assert_eq!(world.api.asked("/voicerolloutactions")[1].body["spec"]["step"], "3/10");
    let full = json!({"verb": "promoteFull", "revision": "6d5f8c"});
    let (_, body) = ask(&world.dashboard(true), order("of-jane", "voice", &full)).await;
    assert_eq!(body, r#"{"name":"agent-promote-full-x7k2p"}"#);
    let (status, body) = ask(&world.dashboard(true), get_as("of-jane", "actions/voice/agent-abort-x7k2p")).await;
    assert_eq!((status, body.as_str()), (200, r#"{"message":"done","state":"Applied"}"#));
}

#[tokio::test]
async fn nobody_commands_where_the_dashboard_only_shows() {
    let world = World::new();
    let (status, body) = ask(&world.dashboard(false), order("of-root", "voice", &abort())).await;
    assert!(status == 403 && body.contains("only shows"), "{status} {body}");
    let (_, body) = ask(&world.dashboard(false), get_as("of-root", "rollouts/voice/agent")).await;
    assert!(body.contains(r#""allowed":false"#), "{body}");
    assert!(world.api.asked("/voicerolloutactions").is_empty());
}

#[tokio::test]
async fn who_may_not_create_actions_commands_nothing() {
    let world = World::new();
    world.api.deny("create");
    for (token, namespace) in [("of-jane", "voice"), ("of-jane", "secret"), ("of-nobody", "voice")] {
        let (status, body) = ask(&world.dashboard(true), order(token, namespace, &abort())).await;
        assert!(status == 403 && body.contains("may not create voicerolloutactions"), "{token}: {status} {body}");
    }
    let (_, body) = ask(&world.dashboard(true), get_as("of-jane", "rollouts/voice/agent")).await;
    let detail: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(detail["actions"], json!({"allowed": false, "why": "jane may not create voicerolloutactions in namespace voice"}));
    assert!(world.api.asked("/voicerolloutactions").is_empty());
}

#[tokio::test]
async fn the_api_servers_own_word_is_passed_on() {
    let world = World::new();
    let retry = json!({"verb": "retry", "revision": "6d5f8c"});
    let (status, body) = ask(&world.dashboard(true), order("of-jane", "voice", &retry)).await;
    assert!(status == 400 && body.contains("not now"), "{status} {body}");
    let wrong = [json!({}), json!({"verb": "delete", "revision": "x"}), json!({"verb": "abort", "revision": "x", "requestedBy": "root"})];
    for body in wrong {
        let (status, answer) = ask(&world.dashboard(true), order("of-jane", "voice", &body)).await;
        assert_eq!(status, 400, "{body}: {answer}");
    }
    let long = json!({"verb": "abort", "revision": "x", "reason": "x".repeat(super::MAX_BODY)});
    assert_eq!(ask(&world.dashboard(true), order("of-jane", "voice", &long)).await.0, 400);
}
