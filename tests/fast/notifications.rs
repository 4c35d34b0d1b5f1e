//! People are told what became of releases: in order, again after a failure, once, and whenever the operator is killed.

mod trouble;

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Api;
use serde_json::{Value, json};
use voicerollout::api::VoiceRolloutOutbox;
use voicerollout::api::outbox::Outcome;
use voicerollout::api::status::Phase;
use voicerollout::core::notify::Defaults;
use voicerollout::sources::Progress;

use crate::cluster::mailbox::{Letter, status};
use crate::cluster::script::{Script, good};
use crate::cluster::{Cluster, GATES, deployed_from};

const HOOK: &str = "https://receiver.example/events";
const SLACK: &str = "https://slack.example/T0/B0/of-the-team";

/// [`GATES`] with a Secret and these notifications.
fn told(notifications: &Value) -> String {
    let url = k8s_openapi::ByteString(SLACK.into());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "data": {"url": url},
        "metadata": {"name": "slack", "namespace": "voice", "labels": {"voicerollout.dev/use": "notifications"}},
    });
    format!("{secret}\n---\n{GATES}  notifications: {notifications}\n")
}

fn events() -> Value {
    json!({"name": "events", "webhook": {"url": HOOK}, "triggers": ["Started", "StepPassed", "Paused", "GateFailing", "Aborted", "Promoted"]})
}

fn slack() -> Value {
    json!({"name": "slack", "slack": {"webhook": {"name": "slack", "key": "url"}}})
}

fn slow() -> Script {
    Script::new(|r| if r.gate.name == "p95-first-token" { Ok(Progress::Value(json!(950.0))) } else { good(r) })
}

fn of<'a>(letters: &'a [Letter], url: &str) -> Vec<&'a Letter> {
    letters.iter().filter(|l| l.url == url).collect()
}

/// Waits until the mailbox holds what a test wants.
async fn mail(cluster: &Cluster, what: &str, done: impl Fn(&[Letter]) -> bool) -> Vec<Letter> {
    let found = tokio::time::timeout(Duration::from_secs(2 * 3600), async {
        loop {
            let letters = cluster.mail.received();
            if done(&letters) {
                return letters;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    match found.await {
        Ok(letters) => letters,
        Err(_) => panic!("no {what}: {:#?}\n{:#?}", cluster.mail.received(), outbox(cluster).await),
    }
}

async fn outbox(cluster: &Cluster) -> VoiceRolloutOutbox {
    let api: Api<VoiceRolloutOutbox> = Api::namespaced(cluster.client.clone(), "voice");
    api.get("agent").await.expect("an outbox")
}

/// Waits until nothing is left to send.
async fn sent(cluster: &Cluster) -> VoiceRolloutOutbox {
    for _ in 0..2 * 3600 {
        let outbox = outbox(cluster).await;
        if outbox.spec.queue.is_empty() {
            return outbox;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("it is not sent: {:#?}", outbox(cluster).await)
}

#[tokio::test(start_paused = true)]
async fn a_bad_release_is_told_in_order_to_both_receivers() {
    let cluster = deployed_from(&slow(), &told(&json!([events(), slack()]))).await;
    cluster.set_image("agent", "agent:v2").await;
    let status = cluster.wait_phase("agent", Phase::Degraded).await;
    let letters = mail(&cluster, "abort", |l| of(l, SLACK).len() >= 4 && of(l, HOOK).iter().any(|l| l.kind() == "aborted")).await;
    let kinds: Vec<&str> = of(&letters, HOOK).iter().map(|l| l.kind()).collect();
    assert_eq!(kinds, ["started", "promoted", "started", "step-passed", "step-passed", "gate-failing", "aborted"]);
    let last = &of(&letters, HOOK)[6].body;
    let abort = status.abort.clone().expect("an abort");
    assert_eq!((&last["specversion"], &last["subject"]), (&json!("1.0"), &json!(abort.revision)));
    assert_eq!(last["source"], "/apis/voicerollout.dev/v1alpha1/namespaces/voice/voicerollouts/agent");
    assert_eq!(
        (&last["data"]["gate"], &last["data"]["step"], &last["data"]["weight"]),
        (&json!("p95-first-token"), &json!("3/10"), &json!(5))
    );
    assert_eq!(last["data"]["failureReason"], abort.reason);
    let texts: Vec<&str> = of(&letters, SLACK).iter().map(|l| l.text()).collect();
    assert_eq!(texts.len(), 4, "{texts:?}");
    assert!(texts[3].contains("was aborted at step 3/10") && texts[3].contains("950"), "{}", texts[3]);
    let rollout = cluster.rollouts().get("agent").await.expect("there");
    let everything = format!("{}{}{}", json!(rollout), json!(sent(&cluster).await), cluster.metrics.encode().expect("figures"));
    assert!(!everything.contains("of-the-team"), "the webhook's URL is a secret");
    let ready = rollout.status.expect("a status").conditions.into_iter().find(|c| c.type_ == "NotificationsReady").expect("a condition");
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "Ready"));
    assert!(cluster.metrics.encode().expect("figures").contains(r#"voicerollout_notifications_total{kind="webhook",outcome="sent"} 7"#));
}

/// A receiver that fails for an hour gets everything, in order; the other one is not kept waiting.
#[tokio::test(start_paused = true)]
async fn a_receiver_that_fails_for_an_hour_gets_everything_in_order() {
    let cluster = deployed_from(&slow(), &told(&json!([events(), slack()]))).await;
    let deployed = mail(&cluster, "first version", |l| of(l, HOOK).len() == 2 && of(l, SLACK).len() == 2).await;
    let clock = cluster.clock.clone();
    let back = clock.now() + Duration::from_secs(3600);
    let seen = clock.clone();
    cluster.mail.say(move |l| Ok(status(if l.url == HOOK && seen.now() < back { 500 } else { 200 })));
    cluster.set_image("agent", "agent:v2").await;
    cluster.wait_phase("agent", Phase::Degraded).await;
    let letters = mail(&cluster, "abort in Slack", |l| of(l, SLACK).len() == 4).await;
    assert!(clock.now() < back, "Slack waited for the other receiver");
    assert!(of(&letters[deployed.len()..], HOOK).iter().all(|l| l.kind() == "started"), "a message overtook another");
    let told = |s: &voicerollout::api::VoiceRolloutStatus| {
        s.conditions.iter().any(|c| c.type_ == "NotificationsReady" && c.status == "False" && c.message.contains("HTTP 500"))
    };
    cluster.wait("agent", "told of the receiver", told).await;
    sent(&cluster).await;
    assert!(clock.now() >= back && clock.now() < back + Duration::from_secs(600), "{}", clock.now());
    let letters = cluster.mail.received();
    let ids: Vec<&Value> = of(&letters[deployed.len()..], HOOK).iter().map(|l| &l.body["id"]).collect();
    let attempts = ids.iter().filter(|id| **id == ids[0]).count();
    // 5 s doubling to 10 min, less a fifth at most.
    assert!((10..=16).contains(&attempts), "{attempts} attempts in an hour");
    let mut taken: Vec<&str> = of(&letters[deployed.len()..], HOOK).iter().map(|l| l.kind()).collect();
    taken.dedup();
    assert_eq!(taken, ["started", "step-passed", "gate-failing", "aborted"]);
    let ready =
        |s: &voicerollout::api::VoiceRolloutStatus| s.conditions.iter().any(|c| c.type_ == "NotificationsReady" && c.status == "True");
    cluster.wait("agent", "ready again", ready).await;
}

/// What was told when the operator was killed.
#[derive(Debug, PartialEq)]
struct Told {
    /// CloudEvents, each once.
    events: Vec<String>,
    /// Texts in Slack, and messages whose outcome is recorded as unknown.
    slack: (usize, usize),
}

/// Plays a bad release and kills the operator after its `kill`-th request to the API server, or at the `deadly`-th message.
async fn play(kill: Option<u64>, deadly: Option<usize>) -> (Told, u64) {
    let mut cluster = deployed_from(&slow(), &told(&json!([events(), slack()]))).await;
    mail(&cluster, "first version", |l| l.len() == 4).await;
    sent(&cluster).await;
    let killed = cluster.kill_after(kill);
    if let Some(deadly) = deadly {
        cluster.mail.crash_at(4 + deadly, killed.clone());
    }
    cluster.set_image("agent", "agent:v2").await;
    tokio::select! {
        () = done(&cluster) => {}
        () = killed.struck() => {
            cluster.restart_operator().await;
            done(&cluster).await;
        }
    }
    assert_eq!(killed.was_struck(), kill.is_some() || deadly.is_some(), "request {kill:?}, message {deadly:?}");
    let letters = cluster.mail.received().split_off(4);
    let mut by_id = BTreeMap::<String, usize>::new();
    let mut events = Vec::new();
    for letter in of(&letters, HOOK) {
        let id = letter.body["id"].as_str().expect("an id").to_owned();
        if !by_id.contains_key(&id) {
            events.push(letter.kind().to_owned());
        }
        *by_id.entry(id).or_default() += 1;
    }
    let again: usize = by_id.values().map(|n| n - 1).sum();
    assert!(again <= 1, "killed once, {again} repeated: {by_id:?}");
    let unknown = outbox(&cluster).await.spec.history.iter().filter(|h| h.outcome == Outcome::Unknown).count();
    (Told { events, slack: (of(&letters, SLACK).len(), unknown) }, killed.requests())
}

async fn done(cluster: &Cluster) {
    cluster.wait("agent", "aborted", |s| s.phase == Phase::Degraded).await;
    let aborted = |b: &VoiceRolloutOutbox| b.spec.cursor.decision.as_ref().is_some_and(|d| d.decision == "Aborted");
    while !aborted(&outbox(cluster).await) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    sent(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_told_twice_whenever_the_operator_is_killed() {
    let (undisturbed, requests) = play(None, None).await;
    assert_eq!(undisturbed.events, ["started", "step-passed", "step-passed", "gate-failing", "aborted"]);
    assert_eq!(undisturbed.slack, (2, 0));
    for kill in 1..=requests {
        let (told, _) = play(Some(kill), None).await;
        assert_eq!(told.events, undisturbed.events, "killed after request {kill} of {requests}");
        // Killed between the record that it is sent and the answer: it may not have been sent, and is not sent twice.
        assert!(told.slack.0 <= 2 && told.slack.0 + told.slack.1 >= 2, "killed after request {kill} of {requests}: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_under_way_when_the_operator_is_killed_is_repeated_only_where_that_shows() {
    for deadly in 1..=7 {
        let (told, _) = play(None, Some(deadly)).await;
        assert_eq!(told.events, ["started", "step-passed", "step-passed", "gate-failing", "aborted"], "killed at message {deadly}");
        assert_eq!(told.slack.0, 2, "killed at message {deadly}");
    }
}

/// A mistake in a notification, and a Secret that is missing, stop no release: a condition says what to do.
#[tokio::test(start_paused = true)]
async fn a_mistake_is_told_in_a_condition_and_stops_nothing() {
    let wrong = json!({"name": "wrong", "webhook": {"url": HOOK}, "template": "{{ setp }}"});
    let mut missing = slack();
    missing["slack"]["webhook"]["name"] = json!("forgotten");
    let cluster = deployed_from(&Script::good(), &told(&json!([wrong, missing, events()]))).await;
    cluster.set_image("agent", "agent:v2").await;
    let says = |s: &voicerollout::api::VoiceRolloutStatus, words: &str| {
        s.conditions.iter().any(|c| c.type_ == "NotificationsReady" && c.status == "False" && c.message.contains(words))
    };
    let status = cluster
        .wait("agent", "told of both", |s| says(s, "no such Secret; create it with the label voicerollout.dev/use: notifications"))
        .await;
    assert!(says(&status, "spec.notifications[0].template: there is no variable setp; did you mean step?"), "{:?}", status.conditions);
    let done = |l: &[Letter]| l.iter().filter(|l| l.kind() == "promoted").count() == 2;
    mail(&cluster, "the other receiver's", done).await;
    assert_eq!(cluster.status("agent").await.phase, Phase::Healthy);
    assert_eq!(outbox(&cluster).await.spec.queue.len(), 8, "what could not be sent waits");
    cluster.edit("agent", json!([{"op": "replace", "path": "/spec/notifications/0/template", "value": "{{ step }}!"}])).await;
    mail(&cluster, "what waited for the mistake", |l| l.iter().filter(|l| l.kind() == "promoted").count() == 4).await;

    cluster.edit("agent", json!([{"op": "remove", "path": "/spec/notifications"}])).await;
    cluster.wait("agent", "without the condition", |s| !s.conditions.iter().any(|c| c.type_ == "NotificationsReady")).await;
    let api: Api<VoiceRolloutOutbox> = Api::namespaced(cluster.client.clone(), "voice");
    while api.get_opt("agent").await.expect("readable").is_some() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Defaults are for every rollout, and what happened before anybody asked is no news.
#[tokio::test(start_paused = true)]
async fn defaults_begin_with_what_happens_next() {
    let mut cluster = deployed_from(&Script::good(), GATES).await;
    let file =
        json!({"link": "https://releases.example/{namespace}/{rollout}", "notifications": [{"name": "all", "webhook": {"url": HOOK}}]});
    cluster.notifications = Defaults::parse(&file.to_string());
    assert_eq!(cluster.notifications.mistakes, Vec::<String>::new());
    cluster.restart_operator().await;
    cluster.wait("agent", "ready to be told of", |s| s.conditions.iter().any(|c| c.type_ == "NotificationsReady")).await;
    assert!(cluster.mail.received().is_empty());
    cluster.set_image("agent", "agent:v2").await;
    let letters = mail(&cluster, "promotion", |l| l.iter().any(|l| l.kind() == "promoted")).await;
    let kinds: Vec<&str> = letters.iter().map(Letter::kind).collect();
    assert_eq!(kinds, ["started", "promoted"]);
    assert_eq!(letters[0].body["data"]["link"], "https://releases.example/voice/agent");
}
