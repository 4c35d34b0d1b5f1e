//! An operator is told to stop, and another one stands by: what it has begun is finished or can be begun again, the Lease is
//! given up after the last write, and the other one goes on at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;
use voicerollout::api::status::Phase;
use voicerollout::sim::{Fault, RequestInfo, Verb, WorldConfig};

use crate::cluster::replicas::Replica;
use crate::cluster::script::Script;
use crate::cluster::{AGENT, Cluster};

/// A release at 25 %, where it waits for a person; `a` leads and `b` stands by.
async fn at_25() -> (Cluster, Replica, Replica) {
    at_25_with("  replicas: 4\n").await
}

/// With other words in the spec.
async fn at_25_with(words: &str) -> (Cluster, Replica, Replica) {
    let mut cluster = Cluster::start_with(&Script::good(), WorldConfig::default()).await;
    cluster.kill_operator().await;
    let a = cluster.replica("a").await;
    let (head, _) = AGENT.split_once("  steps:").expect("steps");
    let head = head.replace("  replicas: 4\n", words);
    cluster.apply(&format!("{head}  steps:\n    - setWeight: 25\n    - pause: {{}}\n    - setWeight: 50\n    - pause: {{}}\n")).await;
    cluster.wait_phase("agent", Phase::Healthy).await;
    let b = cluster.replica("b").await;
    cluster.set_image("agent", "agent:v2").await;
    cluster.wait("agent", "paused at 25 %", |s| s.phase == Phase::Paused && s.weights.applied == 25).await;
    (cluster, a, b)
}

fn is_lease(request: &RequestInfo) -> bool {
    request.resource == "leases"
}

/// Writes of a user, but to the Lease.
fn writes(cluster: &Cluster, user: &str) -> Vec<RequestInfo> {
    cluster.server.requests_where(|r| &*r.user == user && r.verb.is_write() && !is_lease(r))
}

/// The write by which a user gave the Lease up.
fn released(cluster: &Cluster, user: &str) -> Option<RequestInfo> {
    let all = cluster.server.requests_where(|r| &*r.user == user && r.verb.is_write() && is_lease(r));
    all.into_iter().rfind(|r| r.json()["spec"]["holderIdentity"] == "" && r.code == Some(200))
}

/// Nobody writes while the other one leads: the last write of `a` came before it gave the Lease up, and that before the first
/// one of `b`.
fn one_after_the_other(cluster: &Cluster) {
    let given_up = released(cluster, "a").expect("given up").number;
    assert!(writes(cluster, "a").iter().all(|w| w.number < given_up));
    assert!(writes(cluster, "b").iter().all(|w| w.number > given_up));
}

fn canary_weight(cluster: &Cluster) -> Value {
    cluster.server.peek("virtualservices", "voice", "agent").expect("there")["spec"]["http"][0]["route"][1]["weight"].clone()
}

/// Tells a replica to stop; gives how long it took.
async fn stop(replica: Replica) -> Duration {
    let begin = Instant::now();
    replica.stop.send_replace(true);
    replica.task.await.expect("no panic");
    begin.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_told_to_stop_hands_over_at_once_in_the_middle_of_a_release() {
    let (cluster, a, b) = at_25().await;
    assert_eq!(writes(&cluster, "b").len(), 0);
    assert!(stop(a).await < Duration::from_secs(1));
    cluster.act("agent", "promote").await;
    let begin = Instant::now();
    cluster.wait("agent", "at 50 %", |s| s.weights.applied == 50).await;
    // It looks every 2 s, and a step waits for the routes to spread.
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    let first = writes(&cluster, "b").first().expect("b goes on").at;
    let given_up = released(&cluster, "a").expect("given up").at;
    assert!(first.duration_since(given_up).as_secs() <= 2, "{given_up} {first}");
    cluster.act("agent", "promote").await;
    cluster.wait_phase("agent", Phase::Healthy).await;
    one_after_the_other(&cluster);
    drop(b);
}

/// Delays, or never answers, the writes of `a` to the route, and rings when the first one comes.
fn hold_route_writes(cluster: &Cluster, fault: Fault) -> Arc<Notify> {
    let (bell, rung) = (Arc::new(Notify::new()), AtomicBool::new(false));
    let ring = bell.clone();
    cluster.server.intercept(move |r| {
        if &*r.user != "a" || r.resource != "virtualservices" || r.verb != Verb::Patch {
            return Fault::None;
        }
        if !rung.swap(true, Ordering::SeqCst) {
            ring.notify_one();
        }
        fault.clone()
    });
    bell
}

#[tokio::test(start_paused = true)]
async fn a_revert_that_is_being_written_is_finished_before_the_lease_is_given_up() {
    let (cluster, a, b) = at_25().await;
    let bell = hold_route_writes(&cluster, Fault::Delay(Duration::from_secs(3)));
    cluster.act("agent", "abort").await;
    bell.notified().await;
    let took = stop(a).await;
    assert!((Duration::from_secs(3)..Duration::from_secs(5)).contains(&took), "{took:?}");
    assert_eq!(canary_weight(&cluster), 0, "written by the one that began it");
    let done = cluster.wait_phase("agent", Phase::Degraded).await;
    assert_eq!(done.decisions.iter().filter(|d| d.decision == "Aborted").count(), 1);
    one_after_the_other(&cluster);
    let reverts = |user| writes(&cluster, user).iter().filter(|w| w.resource == "virtualservices" && w.name == "agent").count();
    assert_eq!((reverts("b"), cluster.server.peek_all("voicerolloutactions", Some("voice")).len()), (0, 1));
    drop(b);
}

#[tokio::test(start_paused = true)]
async fn a_revert_that_gets_no_answer_is_written_by_the_next_leader() {
    let (cluster, a, b) = at_25().await;
    let bell = hold_route_writes(&cluster, Fault::Hang);
    cluster.act("agent", "abort").await;
    bell.notified().await;
    let begin = Instant::now();
    a.stop.send_replace(true);
    // Told once more: it changes nothing.
    tokio::time::sleep(Duration::from_secs(1)).await;
    a.stop.send_replace(true);
    a.task.await.expect("no panic");
    cluster.wait("agent", "aborted", |s| s.phase == Phase::Degraded && s.weights.applied == 0).await;
    // A write has 5 s, and the other one looks every 2 s.
    assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
    assert_eq!(canary_weight(&cluster), 0);
    one_after_the_other(&cluster);
    drop(b);
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_renewal_got_no_answer_is_given_up_all_the_same() {
    let (cluster, a, b) = at_25().await;
    let (bell, once) = (Arc::new(Notify::new()), AtomicBool::new(false));
    let ring = bell.clone();
    cluster.server.intercept(move |r| {
        if &*r.user != "a" || !is_lease(r) || !r.verb.is_write() || once.swap(true, Ordering::SeqCst) {
            return Fault::None;
        }
        ring.notify_one();
        Fault::DropAfter
    });
    bell.notified().await;
    assert!(stop(a).await < Duration::from_secs(5));
    assert!(released(&cluster, "a").is_some());
    cluster.act("agent", "promote").await;
    cluster.wait("agent", "at 50 %", |s| s.weights.applied == 50).await;
    one_after_the_other(&cluster);
    drop(b);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_does_not_stop_in_time_leaves_the_lease_to_run_out() {
    let (cluster, a, b) = at_25_with("  replicas: 6\n  sessions: {activeCalls: {http: {}}, interval: 5s}\n").await;
    // One pass of many writes, none of which gets an answer.
    cluster.server.intercept(|r| if &*r.user == "a" && r.resource == "pods" && r.verb.is_write() { Fault::Hang } else { Fault::None });
    cluster.act("agent", "promote").await;
    cluster.wait("agent", "at 50 %", |s| s.weights.applied == 50).await;
    cluster.act("agent", "promote").await;
    let marked = |r: &RequestInfo| &*r.user == "a" && r.resource == "pods" && r.verb == Verb::Patch;
    while cluster.server.requests_where(marked).is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let begin = Instant::now();
    let took = stop(a).await;
    assert!((Duration::from_secs(20)..Duration::from_secs(21)).contains(&took), "{took:?}");
    assert!(released(&cluster, "a").is_none(), "a request of its last pass may still be carried out");
    let first = writes(&cluster, "b").len();
    cluster.wait("agent", "drained", |s| s.phase == Phase::Healthy && s.revisions.iter().filter(|r| r.replicas > 0).count() == 1).await;
    let after = writes(&cluster, "b");
    assert!(first == 0 && !after.is_empty());
    assert!(begin.elapsed() > took, "{:?}", begin.elapsed());
    drop(b);
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_is_told_to_stop_leaves_at_once_and_touches_nothing() {
    let (cluster, a, b) = at_25().await;
    assert!(stop(b).await < Duration::from_secs(1));
    assert_eq!(cluster.server.count_writes("b"), 0);
    cluster.act("agent", "promote").await;
    cluster.wait("agent", "at 50 %", |s| s.weights.applied == 50).await;
    assert!(stop(a).await < Duration::from_secs(1));
    assert!(released(&cluster, "a").is_some());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_told_to_stop_before_its_caches_are_filled_leaves_at_once() {
    let cluster = Cluster::start_with(&Script::good(), WorldConfig::default()).await;
    cluster.server.intercept(|r| if &*r.user == "c" && r.resource == "pods" { Fault::Hang } else { Fault::None });
    let (replica, ready) = cluster.new_replica("c");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!*ready.borrow(), "its caches cannot be filled");
    assert!(stop(replica).await < Duration::from_secs(1));
    assert_eq!(released(&cluster, "c").map(|r| r.code), Some(Some(200)), "another one need not wait");
}
