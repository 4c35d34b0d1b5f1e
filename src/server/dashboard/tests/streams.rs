//! The stream.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures::StreamExt;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::world::{World, ask, get_as, guarded, list, rollout};
use crate::operator::stores::Onlooker;
use crate::server::dashboard::Dashboard;
use crate::server::dashboard::seats::OWN;

struct Stream {
    body: BodyDataStream,
}

impl Stream {
    async fn open(dashboard: &Dashboard, token: &str) -> Self {
        let response = dashboard.clone().router().oneshot(get_as(token, "stream")).await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["content-type"]), (200, &"application/x-ndjson".parse().unwrap()));
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        Self { body: Body::into_data_stream(response.into_body()) }
    }

    /// The next line; `None`: the stream has ended.
    async fn next(&mut self) -> Option<Value> {
        let chunk = self.body.next().await?.unwrap();
        assert_eq!(chunk.last(), Some(&b'\n'));
        Some(serde_json::from_slice(&chunk).unwrap())
    }

    /// The next line's type, and the name of the rollout that it is about.
    async fn told(&mut self) -> (String, String) {
        let line = self.next().await.unwrap();
        let name = line["rollout"]["name"].as_str().or(line["name"].as_str()).unwrap_or_default();
        (line["type"].as_str().unwrap().to_owned(), name.to_owned())
    }
}

fn at_weight(rollout: &Value, weight: i32) -> Value {
    let mut changed = rollout.clone();
    changed["metadata"]["resourceVersion"] = json!(format!("1{weight}"));
    changed["status"]["weights"] = json!({"desired": weight, "applied": weight});
    changed
}

fn told(kind: &str, name: &str) -> (String, String) {
    (kind.into(), name.into())
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_the_list_and_then_every_change() {
    let world = World::new();
    let agent = rollout("voice", "agent");
    let feed = world.fill(&[agent.clone(), rollout("voice", "other"), rollout("secret", "hidden")]);
    let mut stream = Stream::open(&world.dashboard(false), "of-jane").await;
    let first = stream.next().await.unwrap();
    let names: Vec<_> = first["rollouts"].as_array().unwrap().iter().map(|r| r["name"].clone()).collect();
    assert_eq!((&first["type"], names), (&json!("snapshot"), vec![json!("agent"), json!("other")]));
    assert_eq!(stream.told().await, told("synced", ""));

    feed.rollout(&Event::Apply(guarded(&at_weight(&rollout("secret", "hidden"), 25))));
    feed.rollout(&Event::Apply(guarded(&at_weight(&agent, 25))));
    let change = stream.next().await.unwrap();
    assert_eq!((&change["type"], &change["rollout"]["weight"]), (&json!("changed"), &json!(25)), "and nothing of what is hidden");
    feed.rollout(&Event::Apply(guarded(&at_weight(&agent, 25))));
    feed.rollout(&Event::Delete(guarded(&agent)));
    assert_eq!(stream.told().await, told("deleted", "agent"), "what is the same is not told again");
    // The watch breaks, and meanwhile one has gone and one has come.
    list(&feed, &[rollout("voice", "new")]);
    assert_eq!([stream.told().await, stream.told().await], [told("changed", "new"), told("deleted", "other")]);
    assert_eq!(stream.told().await, told("heartbeat", ""));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_token_or_the_rights() {
    for (revoked, reason) in [(true, "not accepted"), (false, "rights have changed")] {
        let world = World::new();
        world.fill(&[rollout("voice", "agent")]);
        let mut stream = Stream::open(&world.dashboard(false), "of-jane").await;
        if revoked {
            world.api.revoke("of-jane");
        } else {
            world.api.deny("list");
        }
        let begun = tokio::time::Instant::now();
        let mut last = Value::Null;
        while let Some(line) = stream.next().await {
            last = line;
        }
        assert!(last["type"] == "end" && last["reason"].as_str().unwrap().contains(reason), "{last}");
        assert!(begun.elapsed() <= Duration::from_secs(75), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_client_that_is_too_slow_is_dropped_and_one_that_is_gone_leaves_nothing() {
    let world = World::new();
    let agent = rollout("voice", "agent");
    let feed = world.fill(std::slice::from_ref(&agent));
    let dashboard = world.dashboard(false);
    let (mut slow, gone) = (Stream::open(&dashboard, "of-jane").await, Stream::open(&dashboard, "of-jane").await);
    assert_eq!((world.board.listeners(), dashboard.seats.taken()), (2, 2));
    drop(gone);
    assert_eq!((world.board.listeners(), dashboard.seats.taken()), (1, 1));
    assert_eq!([slow.told().await, slow.told().await], [told("snapshot", ""), told("synced", "")]);
    for weight in 0..5000 {
        feed.rollout(&Event::Apply(guarded(&at_weight(&agent, weight))));
    }
    assert_eq!(slow.next().await.unwrap(), json!({"type": "end", "reason": "behind"}));
    assert_eq!(slow.next().await, None);
    assert_eq!((world.board.listeners(), dashboard.seats.taken()), (0, 0));
}

#[tokio::test]
async fn there_is_an_end_to_how_many_may_look() {
    let world = World::new();
    world.fill(&[]);
    let dashboard = world.dashboard(false);
    let mut own = Vec::new();
    for _ in 0..OWN {
        own.push(Stream::open(&dashboard, "of-jane").await);
    }
    let (status, body) = ask(&dashboard, get_as("of-jane", "stream")).await;
    assert!(status == 503 && body.contains("jane has too many dashboards open"), "{status} {body}");
    Stream::open(&dashboard, "of-root").await;
    own.pop();
    Stream::open(&dashboard, "of-jane").await;
}

#[tokio::test]
async fn a_long_list_comes_in_parts() {
    let world = World::new();
    let all: Vec<_> = (0..250).map(|n| rollout("voice", &format!("agent-{n:03}"))).collect();
    world.fill(&all);
    let mut stream = Stream::open(&world.dashboard(false), "of-jane").await;
    let mut names = Vec::new();
    for wanted in [100, 100, 50] {
        let part = stream.next().await.unwrap();
        let part = part["rollouts"].as_array().unwrap();
        assert_eq!(part.len(), wanted);
        names.extend(part.iter().map(|r| r["name"].as_str().unwrap().to_owned()));
    }
    assert_eq!(stream.told().await, told("synced", ""));
    assert_eq!(names, all.iter().map(|r| r["metadata"]["name"].as_str().unwrap()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_ends_with_the_server() {
    let world = World::new();
    world.fill(&[rollout("voice", "agent")]);
    let mut dashboard = world.dashboard(false);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    dashboard.stop = Some(stopped);
    let mut stream = Stream::open(&dashboard, "of-jane").await;
    assert_eq!([stream.told().await, stream.told().await], [told("snapshot", ""), told("synced", "")]);
    stop.send_replace(true);
    assert_eq!(stream.next().await.unwrap(), json!({"type": "end", "reason": "stopping"}));
    assert_eq!((stream.next().await, world.board.listeners()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_that_the_list_may_be_old() {
    let world = World::new();
    let feed = world.board.feed();
    world.board.set_trouble("VoiceRollouts", Some("not now".into()));
    let (status, body) = ask(&world.dashboard(false), get_as("of-jane", "stream")).await;
    assert!(status == 503 && body.contains("has not come yet: not now"), "{status} {body}");
    list(&feed, &[]);
    let mut stream = Stream::open(&world.dashboard(false), "of-jane").await;
    let line = stream.next().await.unwrap();
    assert_eq!((&line["type"], &line["trouble"]), (&json!("synced"), &json!("not now")));
    world.board.set_trouble("VoiceRollouts", None);
    let line = stream.next().await.unwrap();
    assert_eq!((&line["type"], &line["trouble"]), (&json!("heartbeat"), &Value::Null));
}

#[tokio::test(start_paused = true)]
async fn a_namespace_without_rollouts_is_not_asked_about_any_more() {
    let world = World::new();
    let other = rollout("secret", "hidden");
    let feed = world.fill(&[rollout("voice", "agent"), other.clone()]);
    let mut stream = Stream::open(&world.dashboard(false), "of-jane").await;
    let asked = |namespace: &str| {
        let reviews = world.api.asked("subjectaccessreviews");
        reviews.iter().filter(|r| r.body["spec"]["resourceAttributes"]["namespace"] == namespace).count()
    };
    assert_eq!([stream.told().await, stream.told().await], [told("snapshot", ""), told("synced", "")]);
    feed.rollout(&Event::Delete(guarded(&other)));
    let before = (asked("voice"), asked("secret"));
    for _ in 0..10 {
        assert_eq!(stream.told().await, told("heartbeat", ""));
    }
    assert!(asked("voice") > before.0);
    assert_eq!(asked("secret"), before.1);
}

#[tokio::test]
async fn the_recent_past_is_that_of_releases_and_drains_only() {
    let world = World::new();
    let agent = rollout("voice", "agent");
    let feed = world.fill(std::slice::from_ref(&agent));
    assert_eq!(world.board.history("voice", "agent")["moments"][0]["weight"], 5);
    let mut done = at_weight(&agent, 0);
    done["status"]["phase"] = json!("Healthy");
    feed.rollout(&Event::Apply(guarded(&done)));
    assert_eq!(world.board.history("voice", "agent"), json!({"moments": [], "gates": []}));
}
