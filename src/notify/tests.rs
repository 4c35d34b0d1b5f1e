use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Letter, Messenger};
use crate::api::common::SecretKeyRef;
use crate::api::notification::{Notification, Trigger};
use crate::api::outbox::Facts;
use crate::core::notify::outbox::Answer;
use crate::core::notify::{Defaults, Notifiers};
use crate::sources::SourceError;
use crate::sources::egress::Egress;
use crate::sources::post::{NotPosted, Outgoing, Post, Posted, Poster};
use crate::sources::secrets::SecretReader;

const TOKEN: &str = "xoxb-s3cr3t-token";
const PATH: &str = "/services/T0/B0/s3cr3t-path";
const HEADER: &str = "Bearer s3cr3t-header";

/// What a receiver answers, and what it got.
#[derive(Clone)]
struct Receiver {
    answer: Arc<Mutex<(u16, Option<&'static str>, String)>>,
    got: Arc<Mutex<Vec<(String, HeaderMap, Value)>>>,
    url: String,
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let receiver = Self { answer: Arc::new(Mutex::new((200, None, "ok".into()))), got: Arc::default(), url };
        let router = Router::new().fallback(take).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        receiver
    }

    fn say(&self, status: u16, retry_after: Option<&'static str>, body: &str) {
        *self.answer.lock() = (status, retry_after, body.into());
    }

    fn last(&self) -> (String, HeaderMap, Value) {
        self.got.lock().last().cloned().expect("a request")
    }
}

async fn take(State(receiver): State<Receiver>, uri: Uri, headers: HeaderMap, body: String) -> impl IntoResponse {
    receiver.got.lock().push((uri.path().into(), headers, serde_json::from_str(&body).unwrap()));
    let (status, retry_after, body) = receiver.answer.lock().clone();
    let headers: HeaderMap = retry_after.into_iter().map(|wait| (axum::http::header::RETRY_AFTER, wait.parse().unwrap())).collect();
    (StatusCode::from_u16(status).unwrap(), headers, body)
}

/// Secrets by `namespace/name/key`.
struct Secrets(BTreeMap<String, String>);

impl SecretReader for Secrets {
    fn read<'a>(&'a self, namespace: &'a str, secret: &'a SecretKeyRef) -> BoxFuture<'a, Result<String, SourceError>> {
        let path = format!("{namespace}/{}/{}", secret.name, secret.key);
        let found = match self.0.get(&path).map(String::as_str) {
            None => Err(SourceError::new(format!("reading Secret {path}: there is no such Secret"))),
            Some("busy") => Err(SourceError {
                retry_after: Some(Duration::from_secs(5)),
                ..SourceError::new(format!("reading Secret {path}: no answer"))
            }),
            Some(value) => Ok(value.to_owned()),
        };
        Box::pin(std::future::ready(found))
    }
}

fn messenger(receiver: &Receiver, allow: &[&str]) -> Messenger {
    let url = format!("{}{PATH}\n", receiver.url);
    let pairs = [
        ("voice/slack/url", url.as_str()),
        ("operators/slack/url", "http://127.0.0.1:9/of-the-operator"),
        ("voice/slack/token", TOKEN),
        ("voice/slack/no-url", "s3cr3t:not-a-url"),
        ("voice/slack/forbidden", "http://169.254.169.254/s3cr3t"),
        ("voice/slack/busy", "busy"),
        ("voice/hook/header", HEADER),
        ("voice/hook/broken", "s3cr3t\nX-Evil: 1"),
    ];
    let secrets = Secrets(pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
    let egress = Egress { allow: allow.iter().map(|a| a.parse().unwrap()).collect(), deny_extra: vec![] };
    let post = Poster::new(egress, "voicerollout-test".into());
    Messenger::new(Arc::new(post), Arc::new(secrets), "operators").with_slack_api(format!("{}/api/chat.postMessage", receiver.url))
}

fn letter(notification: Value) -> Letter {
    let own: Vec<Notification> = serde_json::from_value(json!([notification])).unwrap();
    let parsed = Notifiers::parse(&own, &Defaults::default());
    assert_eq!(parsed.mistakes, Vec::<String>::new());
    let facts = Facts {
        trigger: Trigger::Aborted,
        namespace: "voice".into(),
        rollout: "agent".into(),
        revision: "5f7c".into(),
        stable_revision: "ab12".into(),
        step: "3/10".into(),
        weight: Some(5),
        gate: "p95".into(),
        failure_reason: "gate p95 failed: 950 > 800 <!channel>".into(),
        by: String::new(),
        at: MicroTime("2026-01-01T10:00:00Z".parse().unwrap()),
        decision: "Aborted".into(),
    };
    Letter { id: "id-1".into(), notifier: parsed.all[0].clone(), facts, link: "https://x.example/voice/agent".into() }
}

fn slack_webhook(key: &str) -> Value {
    json!({"name": "team", "slack": {"webhook": {"name": "slack", "key": key}}, "template": "*{{ rollout }}* {{ step }}: {{ failure_reason }} <{{ link }}|open>"})
}

fn slack_bot() -> Value {
    json!({"name": "team", "slack": {"bot": {"token": {"name": "slack", "key": "token"}, "channel": "#releases"}}})
}

/// Sends, and checks that what comes of it holds no secret.
async fn send(messenger: &Messenger, letter: &Letter) -> Answer {
    let answer = messenger.send(letter).await;
    let text = format!("{answer:?}");
    for secret in ["s3cr3t", "xoxb", "services/"] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
    answer
}

fn stuck(answer: Answer) -> String {
    match answer {
        Answer::Stuck { why } => why,
        other => panic!("{other:?} is not for people to put right"),
    }
}

#[tokio::test]
async fn an_incoming_webhook_gets_text_and_nothing_else() {
    let receiver = Receiver::start().await;
    let messenger = messenger(&receiver, &["127.0.0.0/8"]);
    assert_eq!(send(&messenger, &letter(slack_webhook("url"))).await, Answer::Taken);
    let (path, headers, body) = receiver.last();
    assert_eq!((path.as_str(), headers["content-type"].to_str().unwrap()), (PATH, "application/json; charset=utf-8"));
    let text = "*agent* 3/10: gate p95 failed: 950 &gt; 800 &lt;!channel&gt; <https://x.example/voice/agent|open>";
    assert_eq!(body, json!({"text": text}));
}

#[tokio::test]
async fn answers_of_an_incoming_webhook_are_told_apart() {
    let receiver = Receiver::start().await;
    let (messenger, letter) = (messenger(&receiver, &["127.0.0.0/8"]), letter(slack_webhook("url")));
    for (status, body, advice) in [
        (404, "no_service", "Slack says no_service: the webhook is gone"),
        (410, "channel_is_archived", "name another one"),
        (403, "action_prohibited", "an administrator"),
        (404, "<html>s3cr3t</html>", "HTTP 404: the webhook is gone"),
    ] {
        receiver.say(status, None, body);
        let why = stuck(send(&messenger, &letter).await);
        assert!(why.contains(advice), "{why}");
    }
    for (status, wait, seconds) in [(429, Some("30"), Some(30)), (500, None, None), (503, Some("7"), Some(7))] {
        receiver.say(status, wait, "s3cr3t");
        let refused = Answer::Refused { why: format!("Slack answers HTTP {status}"), wait: seconds.map(Duration::from_secs) };
        assert_eq!(send(&messenger, &letter).await, refused);
    }
}

#[tokio::test]
async fn a_bot_writes_into_its_channel_and_only_ok_is_a_receipt() {
    let receiver = Receiver::start().await;
    let (messenger, letter) = (messenger(&receiver, &["127.0.0.0/8"]), letter(slack_bot()));
    receiver.say(200, None, r#"{"ok":true,"ts":"1"}"#);
    assert_eq!(send(&messenger, &letter).await, Answer::Taken);
    let (path, headers, body) = receiver.last();
    assert_eq!((path.as_str(), headers["authorization"].to_str().unwrap()), ("/api/chat.postMessage", "Bearer xoxb-s3cr3t-token"));
    assert_eq!(body["channel"], "#releases");
    assert!(
        body["text"].as_str().unwrap().starts_with("voice/agent: revision 5f7c was aborted at step 3/10, new calls go back to ab12: "),
        "{body}"
    );
    for (error, advice) in
        [("invalid_auth", "put a token that is valid"), ("channel_not_found", "invite the bot"), ("missing_scope", "chat:write")]
    {
        receiver.say(200, None, &json!({"ok": false, "error": error}).to_string());
        let why = stuck(send(&messenger, &letter).await);
        assert!(why.contains(error) && why.contains(advice), "{why}");
    }
    for (status, body, why) in [
        (200, r#"{"ok":false,"error":"s3cr3t_unknown"}"#, "Slack did not take it"),
        (200, "<html>", "the answer is not one of Slack's"),
        (429, r#"{"ok":false,"error":"ratelimited"}"#, "Slack answers HTTP 429"),
    ] {
        receiver.say(status, None, body);
        assert_eq!(send(&messenger, &letter).await, Answer::Refused { why: why.into(), wait: None });
    }
}

#[tokio::test]
async fn a_webhook_gets_a_cloud_event() {
    let receiver = Receiver::start().await;
    let messenger = messenger(&receiver, &["127.0.0.0/8"]);
    let headers = json!([
        {"name": "Authorization", "secretKeyRef": {"name": "hook", "key": "header"}}, {"name": "X-Team", "value": "voice"},
        {"name": "Content-Type", "value": "text/plain"},
    ]);
    let mut hook = json!({"name": "hook", "webhook": {"url": format!("{}/events", receiver.url), "headers": headers}});
    assert_eq!(send(&messenger, &letter(hook.clone())).await, Answer::Taken);
    let (path, headers, body) = receiver.last();
    assert_eq!(
        (path.as_str(), headers["authorization"].to_str().unwrap(), headers["x-team"].to_str().unwrap()),
        ("/events", HEADER, "voice")
    );
    assert_eq!(headers.get_all("content-type").iter().collect::<Vec<_>>(), ["application/cloudevents+json; charset=utf-8"]);
    insta::assert_json_snapshot!(body);

    for (status, words) in [(302, "redirects are not followed"), (401, "check the headers"), (404, "check the url"), (410, "check the url")]
    {
        receiver.say(status, None, "s3cr3t");
        let why = stuck(send(&messenger, &letter(hook.clone())).await);
        assert!(why.contains(words), "{why}");
    }
    receiver.say(429, Some("120"), "");
    let refused = Answer::Refused { why: "the receiver answers HTTP 429".into(), wait: Some(Duration::from_secs(120)) };
    assert_eq!(send(&messenger, &letter(hook.clone())).await, refused);

    hook["webhook"]["headers"] = json!([{"name": "X-Key", "secretKeyRef": {"name": "hook", "key": "broken"}}]);
    let why = stuck(send(&messenger, &letter(hook)).await);
    assert!(why.contains("X-Key") && why.contains("cannot carry"), "{why}");
}

#[tokio::test]
async fn an_answer_that_never_comes_is_not_known() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::AsyncReadExt;
        let (mut stream, _) = listener.accept().await.unwrap();
        // The request is in, and the connection ends.
        let _ = stream.read(&mut [0; 1024]).await;
    });
    let receiver = Receiver::start().await;
    let messenger = messenger(&receiver, &["127.0.0.0/8"]);
    let hook = json!({"name": "hook", "webhook": {"url": url}});
    assert!(matches!(send(&messenger, &letter(hook.clone())).await, Answer::Unknown { .. }));
    // Nobody listens any more: nothing was sent.
    let answer = send(&messenger, &letter(hook)).await;
    assert!(matches!(&answer, Answer::Refused { why, .. } if why.contains("cannot connect")), "{answer:?}");
}

#[tokio::test]
async fn secrets_and_addresses_are_told_about_without_their_values() {
    let receiver = Receiver::start().await;
    let allowed = messenger(&receiver, &["127.0.0.0/8"]);
    for (key, words) in [
        ("missing", "there is no such Secret"),
        ("no-url", "the key no-url of the Secret voice/slack is no http or https address"),
        ("forbidden", "the Secret's host is the Secret's host, a cloud metadata address"),
    ] {
        let why = stuck(send(&allowed, &letter(slack_webhook(key))).await);
        assert!(why.contains(words), "{key}: {why}");
    }
    assert!(matches!(send(&allowed, &letter(slack_webhook("busy"))).await, Answer::Refused { .. }), "it may be readable soon");
    // Loopback is refused unless it is allowed.
    let why = stuck(send(&messenger(&receiver, &[]), &letter(slack_webhook("url"))).await);
    assert!(why.contains("loopback") && why.contains("egress.allow"), "{why}");
    assert!(receiver.got.lock().is_empty());

    // A default's Secret is the operator's.
    let file = json!({"notifications": [slack_webhook("url")]});
    let mut of_default = letter(slack_webhook("url"));
    of_default.notifier = Defaults::parse(&file.to_string()).notifiers[0].clone();
    assert!(matches!(send(&allowed, &of_default).await, Answer::Refused { .. }), "it went to the rollout's own address");
}

#[tokio::test]
async fn a_template_that_fails_on_the_facts_keeps_nobody_from_hearing() {
    let receiver = Receiver::start().await;
    let messenger = messenger(&receiver, &["127.0.0.0/8"]);
    let mut notification = slack_webhook("url");
    // Good with the facts that it is checked with.
    notification["template"] = json!("{% if gate == 'p95' %}{{ 1 // 0 }}{% endif %}{{ rollout }}");
    assert_eq!(send(&messenger, &letter(notification)).await, Answer::Taken);
    assert!(receiver.last().2["text"].as_str().unwrap().starts_with("voice/agent: revision 5f7c was aborted"));
}

/// Answers nothing, with words that name the host.
struct Silent(NotPosted);

impl Post for Silent {
    fn post<'a>(&'a self, _: &'a Outgoing) -> BoxFuture<'a, Result<Posted, NotPosted>> {
        Box::pin(std::future::ready(Err(self.0.clone())))
    }
}

#[tokio::test]
async fn a_host_that_is_secret_is_named_in_no_answer() {
    let why = "cannot connect: hooks.s3cr3t.example: no such host".to_owned();
    let told = "cannot connect: the Secret's host: no such host".to_owned();
    for (not_posted, answer) in [
        (NotPosted::Forbidden(why.clone()), Answer::Stuck { why: told.clone() }),
        (NotPosted::NotSent(why.clone()), Answer::Refused { why: told.clone(), wait: None }),
        (NotPosted::Lost(why.clone()), Answer::Unknown { why: told }),
    ] {
        let secrets = Secrets([("voice/slack/url".to_owned(), "https://hooks.s3cr3t.example/T0".to_owned())].into());
        let messenger = Messenger::new(Arc::new(Silent(not_posted)), Arc::new(secrets), "operators");
        assert_eq!(send(&messenger, &letter(slack_webhook("url"))).await, answer);
    }
}

/// What is set by the connection cannot be set, also where nothing was checked before.
#[tokio::test]
async fn a_post_refuses_headers_that_belong_to_the_connection() {
    let post = Poster::new(Egress { allow: vec!["127.0.0.0/8".parse().unwrap()], deny_extra: vec![] }, "voicerollout-test".into());
    let receiver = Receiver::start().await;
    let headers = vec![("Host".to_owned(), "s3cr3t".to_owned())];
    let refused = post.post(&Outgoing { url: receiver.url.clone(), headers, body: "{}".into() }).await;
    assert_eq!(refused, Err(NotPosted::Forbidden("header \"Host\": this header is set by the operator; leave it out".into())));
}
