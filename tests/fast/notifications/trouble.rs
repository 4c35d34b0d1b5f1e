//! What may go wrong between the operator and its record of messages.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kube::Api;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use voicerollout::api::outbox::Outcome;
use voicerollout::api::status::Phase;
use voicerollout::api::{VoiceRolloutOutbox, VoiceRolloutStatus};
use voicerollout::core::notify::Defaults;
use voicerollout::sim::world::WorldConfig;
use voicerollout::sim::{Fault, RequestInfo};

use super::{HOOK, SLACK, events, mail, of, outbox, sent, slack, slow, told};
use crate::cluster::mailbox::{Letter, status};
use crate::cluster::script::Script;
use crate::cluster::{AGENT, Cluster, deployed_from};

fn writes_outbox(request: &RequestInfo) -> bool {
    request.resource == "voicerolloutoutboxes" && request.verb.is_write()
}

/// Events of these letters, each once.
fn ids(letters: &[Letter]) -> BTreeSet<String> {
    of(letters, HOOK).iter().map(|l| l.body["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_outbox_that_nobody_needs_goes_also_when_the_last_notification_went_while_no_operator_ran() {
    let mut cluster = deployed_from(&Script::good(), &told(&json!([events()]))).await;
    mail(&cluster, "first version", |l| l.len() == 2).await;
    sent(&cluster).await;
    cluster.kill_operator().await;
    cluster.edit("agent", json!([{"op": "remove", "path": "/spec/notifications"}])).await;
    cluster.start_operator().await;
    let gone = async {
        while cluster.server.peek("voicerolloutoutboxes", "voice", "agent").is_some() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3600), gone).await.expect("it stays");
}

#[tokio::test(start_paused = true)]
async fn an_outbox_of_the_same_name_that_is_not_the_rollouts_keeps_nobody_from_hearing() {
    let cluster = Cluster::start_with(&Script::good(), WorldConfig::default()).await;
    // Nothing ends it: as of an earlier rollout that was deleted with --cascade=orphan.
    let left = json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceRolloutOutbox", "spec": {},
        "metadata": {"name": "agent", "namespace": "voice"},
    });
    cluster.server.seed(left).expect("an outbox");
    cluster.apply(&told(&json!([events()]))).await;
    mail(&cluster, "first version", |l| l.iter().any(|l| l.kind() == "promoted")).await;
    let owner = outbox(&cluster).await.metadata.owner_references.expect("an owner").remove(0);
    assert_eq!(Some(owner.uid), cluster.rollouts().get("agent").await.expect("there").metadata.uid);
}

/// Each write that settles a message is carried out, and gets no answer.
#[tokio::test(start_paused = true)]
async fn what_left_the_outbox_with_a_write_whose_answer_is_lost_is_counted_and_not_sent_again() {
    let cluster = deployed_from(&slow(), &told(&json!([events(), slack()]))).await;
    mail(&cluster, "first version", |l| l.len() == 4).await;
    sent(&cluster).await;
    let last = |outbox: &Value| outbox["spec"]["history"].as_array().and_then(|h| h.last()).map(Value::to_string);
    let settled = Mutex::new(BTreeSet::from_iter(last(&json!(outbox(&cluster).await))));
    cluster.server.intercept(move |r| {
        let is_new = writes_outbox(r) && last(&r.json()).is_some_and(|newest| settled.lock().insert(newest));
        if is_new { Fault::DropAfter } else { Fault::None }
    });
    cluster.set_image("agent", "agent:v2").await;
    let letters = mail(&cluster, "abort", |l| of(l, SLACK).len() >= 4 && of(l, HOOK).iter().any(|l| l.kind() == "aborted")).await;
    let record = sent(&cluster).await;
    assert_eq!((ids(&letters).len(), of(&cluster.mail.received(), HOOK).len(), of(&cluster.mail.received(), SLACK).len()), (7, 7, 4));
    assert!(record.spec.history.iter().all(|h| h.outcome == Outcome::Sent), "{:#?}", record.spec.history);
    let counted = |kind: &str, n: u32| {
        let line = format!("voicerollout_notifications_total{{kind=\"{kind}\",outcome=\"sent\"}} {n}\n");
        cluster.metrics.encode().expect("figures").contains(&line)
    };
    let all = async {
        while !(counted("webhook", 7) && counted("slack_webhook", 4)) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3600), all).await.expect("some are not counted");
}

/// The API server refuses the record of an answer twice, and the operator is told to stop: it writes it before it ends.
#[tokio::test(start_paused = true)]
async fn an_answer_whose_record_was_refused_is_written_before_the_operator_ends() {
    let mut cluster = Cluster::start_with(&Script::good(), WorldConfig::default()).await;
    cluster.kill_operator().await;
    let a = cluster.replica("a").await;
    cluster.apply(&told(&json!([events()]))).await;
    cluster.wait_phase("agent", Phase::Healthy).await;
    mail(&cluster, "first version", |l| l.len() == 2).await;
    sent(&cluster).await;
    let (bell, refused) = (Arc::new(Notify::new()), AtomicU32::new(0));
    let ring = bell.clone();
    cluster.server.intercept(move |r| {
        let nothing_under_way = |queue: &Value| queue.as_array().is_none_or(|q| q.iter().all(|m| m.get("sending").is_none()));
        let is_answer = &*r.user == "a" && writes_outbox(r) && nothing_under_way(&r.json()["spec"]["queue"]);
        if !is_answer || refused.fetch_add(1, Ordering::SeqCst) >= 2 {
            return Fault::None;
        }
        ring.notify_one();
        Fault::Status(500)
    });
    cluster.set_image("agent", "agent:v2").await;
    bell.notified().await;
    a.stop.send_replace(true);
    a.task.await.expect("no panic");
    let record = outbox(&cluster).await;
    assert!(record.spec.queue.iter().all(|m| m.sending.is_none()), "{:#?}", record.spec.queue);
    let b = cluster.replica("b").await;
    let letters = mail(&cluster, "promotion", |l| l.iter().filter(|l| l.kind() == "promoted").count() == 2).await;
    assert_eq!(ids(&letters).len(), letters.len(), "told again");
    drop(b);
}

/// A leader begins: however many rollouts there are, the API server gets a few requests about outboxes at a time.
#[tokio::test(start_paused = true)]
async fn a_new_leader_does_not_ask_about_every_outbox_at_the_same_time() {
    let mut cluster = Cluster::start_with(&Script::good(), WorldConfig::default()).await;
    cluster.kill_operator().await;
    let (_, rollout) = AGENT.rsplit_once("---").expect("a rollout");
    let names: Vec<String> = (0..20).map(|i| format!("agent-{i}")).collect();
    for name in &names {
        cluster.apply(&rollout.replace("metadata: {name: agent,", &format!("metadata: {{name: {name},"))).await;
    }
    let all = json!({"notifications": [{"name": "all", "webhook": {"url": HOOK}}]});
    cluster.notifications = Defaults::parse(&all.to_string());
    cluster.server.intercept(|r| if writes_outbox(r) { Fault::Hang } else { Fault::None });
    cluster.start_operator().await;
    let asked = || cluster.server.requests_where(writes_outbox).len();
    while asked() == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A write that gets no answer takes 5 s.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(asked(), 8);
    cluster.server.clear_interceptors();
    let api: Api<VoiceRolloutOutbox> = Api::namespaced(cluster.client.clone(), "voice");
    let made = async {
        for name in &names {
            while api.get_opt(name).await.expect("readable").is_none() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(3600), made).await.expect("outboxes");
}

/// The Lease is renewed so late that nothing may be written for some seconds: no receiver has failed.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_renewed_late_is_no_trouble_of_a_rollout() {
    let mut cluster = Cluster::start_with(&Script::good(), WorldConfig::default()).await;
    cluster.kill_operator().await;
    let a = cluster.replica("a").await;
    cluster.mail.say(|_| Ok(status(500)));
    cluster.apply(&told(&json!([events()]))).await;
    let says = |words: &'static str| move |s: &VoiceRolloutStatus| s.conditions.iter().any(|c| c.message.contains(words));
    cluster.wait("agent", "told of the receiver", says("HTTP 500")).await;

    let is_renewal = |r: &RequestInfo| &*r.user == "a" && r.resource == "leases" && r.verb.is_write();
    let renewals = || cluster.server.requests_where(is_renewal).len();
    let before = renewals();
    while renewals() == before {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The claim lasts 14 s from now. In its last 5 s no write fits.
    cluster.server.intercept(move |r| if is_renewal(r) { Fault::Status(500) } else { Fault::None });
    tokio::time::sleep(Duration::from_millis(9200)).await;
    let letters = cluster.mail.received().len();
    cluster.edit("agent", json!([{"op": "add", "path": "/spec/notifications/0/template", "value": "{{ rollout }}"}])).await;
    tokio::time::sleep(Duration::from_millis(3400)).await;
    assert_eq!(cluster.mail.received().len(), letters, "sent while it may not");
    cluster.server.clear_interceptors();
    mail(&cluster, "what was edited", |l| l.len() > letters).await;
    let told = |r: &RequestInfo| r.subresource == "status" && String::from_utf8_lossy(&r.body).contains("nobody is told");
    assert_eq!(cluster.server.requests_where(told).len(), 0);
    drop(a);
}
