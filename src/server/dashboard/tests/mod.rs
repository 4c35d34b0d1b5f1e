//! The dashboard against an API server of a few lines, which knows three people.

mod commands;
mod streams;
mod world;

use axum::body::Body;
use axum::http::Request;
use futures::FutureExt;
use serde_json::json;

use super::page;
use super::*;
use crate::operator::stores::Onlooker;
use world::{World, ask, get_as, guarded, rollout, run};

#[tokio::test]
async fn nothing_is_told_without_a_token_that_the_api_server_knows() {
    let world = World::new();
    let app = world.dashboard(true);
    for path in ["me", "rollouts", "rollouts/voice/agent", "stream", "actions/voice/x"] {
        for (header, why) in
            [(None, "needs a token"), (Some("Basic am9lOmpvZQ=="), "needs a token"), (Some("Bearer stolen"), "not accepted")]
        {
            let mut request = Request::get(format!("/dashboard/api/{path}"));
            if let Some(header) = header {
                request = request.header("authorization", header);
            }
            let (status, body) = ask(&app, request.body(Body::empty()).unwrap()).await;
            assert!(status == 401 && body.contains(why), "{path} {header:?}: {status} {body}");
        }
    }
    let order = Request::post("/dashboard/api/rollouts/voice/agent/actions").body(Body::from("{}")).unwrap();
    assert_eq!(ask(&app, order).await.0, 401);
    assert!(world.api.asked("GET").is_empty(), "nothing was read");
}

#[tokio::test]
async fn the_page_is_open_and_holds_nothing_of_others() {
    let world = World::new();
    let response =
        tower::ServiceExt::oneshot(world.dashboard(true).router(), Request::get("/dashboard").body(Body::empty()).unwrap()).await.unwrap();
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"));
    for (name, _, text) in page::FILES {
        let (status, body) = ask(&world.dashboard(true), Request::get(format!("/dashboard/{name}")).body(Body::empty()).unwrap()).await;
        assert_eq!((status, body.as_str()), (200, text), "{name}");
        for forbidden in
            ["innerHTML", "insertAdjacentHTML", "document.write", "eval(", "https://", "document.cookie", "localStorage", "EventSource"]
        {
            assert!(!text.contains(forbidden), "{name} has {forbidden}");
        }
    }
}

#[tokio::test]
async fn other_sites_and_other_names_of_this_machine_are_refused() {
    let world = World::new();
    let here = Dashboard::new(world.board.clone(), world.access.clone(), Hosts::Loopback, true);
    let mine = Dashboard::new(world.board.clone(), world.access.clone(), Hosts::LoopbackPort(7000), true);
    let request = |headers: &[(&str, &str)]| {
        let request = Request::get("/dashboard/api/me").header("authorization", "Bearer of-jane");
        headers.iter().fold(request, |r, (name, value)| r.header(*name, *value)).body(Body::empty()).unwrap()
    };
    for (dashboard, host, allowed) in [
        (&here, "127.0.0.1:8090", true),
        (&here, "localhost:9999", true),
        (&here, "[::1]:8090", true),
        (&here, "evil.example:8090", false),
        (&here, "127.0.0.1.evil.example", false),
        (&here, "localhost.evil.example:8090", false),
        (&mine, "127.0.0.1:7000", true),
        (&mine, "127.0.0.1:7001", false),
        (&mine, "127.0.0.1", false),
    ] {
        let (status, body) = ask(dashboard, request(&[("host", host)])).await;
        assert_eq!(status, if allowed { 200 } else { 403 }, "{host}: {body}");
    }
    assert_eq!(ask(&here, request(&[])).await.0, 403, "no Host at all");
    for (headers, allowed) in [
        ([("host", "localhost:8090"), ("origin", "http://localhost:8090")], true),
        ([("host", "localhost:8090"), ("origin", "https://evil.example")], false),
        ([("host", "localhost:8090"), ("origin", "http://localhost:3000")], false),
        ([("host", "localhost:8090"), ("origin", "null")], false),
        ([("host", "localhost:8090"), ("sec-fetch-site", "cross-site")], false),
        ([("host", "localhost:8090"), ("sec-fetch-site", "same-site")], false),
        ([("host", "localhost:8090"), ("sec-fetch-site", "same-origin")], true),
    ] {
        let (status, body) = ask(&here, request(&headers)).await;
        assert_eq!(status, if allowed { 200 } else { 403 }, "{headers:?}: {body}");
    }
    // Links and sign-ins lead to the page from anywhere, but by its own name.
    for (path, host, site, code) in [
        ("/dashboard", "localhost:8090", "cross-site", 200),
        ("/dashboard", "localhost:8090", "same-site", 200),
        ("/dashboard/app.js", "localhost:8090", "same-origin", 200),
        ("/", "localhost:8090", "cross-site", 307),
        ("/dashboard", "evil.example:8090", "none", 403),
        ("/dashboard/api/me", "localhost:8090", "cross-site", 403),
    ] {
        let request = Request::get(path).header("host", host).header("sec-fetch-site", site).header("authorization", "Bearer of-jane");
        let response = tower::ServiceExt::oneshot(here.clone().router(), request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), code, "{path} at {host}, {site}");
        assert!(response.headers().contains_key("content-security-policy"), "{path} at {host}, {site}");
    }
}

#[tokio::test]
async fn what_gates_counted_is_for_those_who_may_read_runs() {
    let world = World::new();
    let feed = world.fill(&[rollout("voice", "agent")]);
    feed.run(&kube::runtime::watcher::Event::Apply(guarded(&run("run-1"))));
    let app = world.dashboard(true);
    let detail = async || {
        let (status, body) = ask(&app, get_as("of-jane", "rollouts/voice/agent")).await;
        assert_eq!(status, 200, "{body}");
        let detail: serde_json::Value = serde_json::from_str(&body).unwrap();
        (detail["history"]["gates"].as_array().unwrap().len(), detail["runs"].as_array().unwrap().len(), detail["runsHidden"].clone())
    };
    assert_eq!(detail().await, (1, 1, json!(false)));
    world.api.break_off("/voiceanalysisruns/", 403);
    assert_eq!(detail().await, (0, 0, json!(true)));
    world.api.break_off("/voiceanalysisruns/", 404);
    assert_eq!(detail().await, (0, 0, json!(false)), "nobody has said that jane may read runs");
    // What else goes wrong with them is said, and hides neither the rest nor the buttons.
    for (code, words) in [(500, "read VoiceAnalysisRun run-1: "), (200, "run-1: what the API server has does not fit its kind: ")] {
        world.api.break_off("/voiceanalysisruns/", code);
        let (status, body) = ask(&app, get_as("of-jane", "rollouts/voice/agent")).await;
        let detail: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert!(status == 200 && detail["runsTrouble"].as_str().unwrap().contains(words), "{code}: {status} {body}");
        assert_eq!((&detail["actions"], &detail["history"]["gates"]), (&json!({"allowed": true}), &json!([])));
    }
    world.api.break_off("/voiceanalysisruns/", 401);
    assert_eq!(ask(&app, get_as("of-jane", "rollouts/voice/agent")).await.0, 401, "a token that has ended meanwhile");
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_may_not_ask_is_not_the_callers_fault() {
    for (what, path) in [("tokenreviews", "me"), ("subjectaccessreviews", "rollouts")] {
        for (code, words) in [(401, "the operator may not"), (403, "the operator may not"), (422, "does not take the operator's question")]
        {
            let world = World::new();
            world.fill(&[rollout("voice", "agent")]);
            world.api.break_off(what, code);
            let (status, body) = ask(&world.dashboard(true), get_as("of-jane", path)).await;
            assert!(status == 503 && body.contains(words), "{what} {code}: {status} {body}");
            assert!(!body.contains("serviceaccount"), "{body}");
        }
    }
    // One that waits for its turn waits no longer than one that has it.
    let world = World::new();
    world.api.break_off("tokenreviews", 0);
    let (app, begun) = (world.dashboard(true), tokio::time::Instant::now());
    let answers = futures::future::join_all((0..20).map(|n| ask(&app, get_as(&format!("of-{n}"), "me")).boxed_local())).await;
    assert!(answers.iter().all(|(status, body)| *status == 503 && body.contains("does not answer")), "{answers:?}");
    assert_eq!(begun.elapsed(), std::time::Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn everybody_sees_the_namespaces_that_they_may_list() {
    let world = World::new();
    world.fill(&[rollout("voice", "agent"), rollout("voice", "other"), rollout("secret", "hidden")]);
    let app = world.dashboard(false);
    let names = |body: &str| {
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        body["rollouts"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (status, body) = ask(&app, get_as("of-jane", "rollouts")).await;
    assert_eq!((status, names(&body)), (200, vec!["agent".to_owned(), "other".to_owned()]));
    assert_eq!(names(&ask(&app, get_as("of-root", "rollouts")).await.1), ["hidden", "agent", "other"]);
    assert_eq!(names(&ask(&app, get_as("of-nobody", "rollouts")).await.1), Vec::<String>::new());

    let reviews = world.api.asked("tokenreviews").len();
    ask(&app, get_as("of-jane", "rollouts")).await;
    assert_eq!(world.api.asked("tokenreviews").len(), reviews, "an accepted token is remembered");
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    world.api.revoke("of-jane");
    assert_eq!(ask(&app, get_as("of-jane", "rollouts")).await.0, 401, "but not for longer than a minute");
    assert!(world.api.asked("reviews").iter().all(|r| r.authorization.is_none()), "reviews are the operator's own requests");
}

#[tokio::test]
async fn an_empty_list_is_not_shown_before_there_is_one() {
    let world = World::new();
    let _feed = world.board.feed();
    for path in ["rollouts", "stream"] {
        let (status, body) = ask(&world.dashboard(false), get_as("of-jane", path)).await;
        assert!(status == 503 && body.contains("has not come yet"), "{path}: {status} {body}");
    }
}

#[tokio::test]
async fn details_are_read_with_the_callers_token_and_hold_no_pod_template() {
    let world = World::new();
    let (status, body) = ask(&world.dashboard(true), get_as("of-jane", "rollouts/voice/agent")).await;
    assert_eq!(status, 200, "{body}");
    let detail: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&detail["steps"][0], &detail["status"]["phase"]), (&json!("5 % of new calls"), &json!("Paused")));
    assert_eq!(detail["runs"][0]["judges"], json!(["judge"]));
    assert_eq!(detail["runs"][0]["status"]["gates"][0]["measurements"][0]["judge"]["microDollars"], 1200);
    assert_eq!(detail["actions"], json!({"allowed": true}));
    for hidden in ["hunter2", "pod-memory-of-the-gate", "idempotency-key"] {
        assert!(!body.contains(hidden), "{hidden}");
    }
    let read = world.api.asked("GET");
    assert!(!read.is_empty() && read.iter().all(|r| r.authorization.as_deref() == Some("Bearer of-jane")), "{read:?}");
    let (status, body) = ask(&world.dashboard(true), get_as("of-jane", "rollouts/voice/nothing")).await;
    assert!(status == 404 && body.contains("nothing"), "{status} {body}");
    assert_eq!(ask(&world.dashboard(true), get_as("of-nobody", "rollouts/voice/agent")).await.0, 403);
}

#[tokio::test]
async fn what_is_no_name_never_becomes_a_path() {
    let world = World::new();
    for path in [
        "rollouts/voice/agent%2F..%2F..%2Fsecrets",
        "rollouts/..%2Fkube-system/agent",
        "rollouts/voice/..",
        "actions/voice/a%3Fx=1",
        "rollouts/voice/Agent",
    ] {
        let (status, body) = ask(&world.dashboard(true), get_as("of-root", path)).await;
        assert!(status == 400 && body.contains("no name"), "{path}: {status} {body}");
    }
    assert!(world.api.asked("GET").is_empty());
}

#[tokio::test]
async fn the_secret_of_a_person_opens_their_own_dashboard_only() {
    let world = World::new();
    let local = Local::new(world.api.client(), "the-secret").await.unwrap();
    world.fill(&[rollout("voice", "agent")]);
    let app = Dashboard::new(world.board.clone(), Arc::new(local), Hosts::LoopbackPort(7000), true);
    let at = |token: &str| {
        let request = Request::get("/dashboard/api/rollouts").header("host", "127.0.0.1:7000");
        request.header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap()
    };
    let (status, body) = ask(&app, at("the-secret")).await;
    assert!(status == 200 && body.contains("agent"), "{body}");
    for wrong in ["the-secret2", "the-secre", "of-jane"] {
        assert_eq!(ask(&app, at(wrong)).await.0, 401, "{wrong}");
    }
}
