use std::collections::VecDeque;
use std::sync::Arc;

use http::Method;
use kube::Client;
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::*;
use crate::operator::fake::{self, Answer, Call};

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// Answered with 500 and not carried out.
    Refused,
    /// Carried out and answered with 500.
    AnswerLost,
    /// Carried out and never answered.
    Hangs,
    /// Somebody edits the metadata just before.
    Edited,
}

/// Time until it is carried out, time until it is answered, and what goes wrong.
type Trouble = (u64, u64, Fault);

/// The Lease API with one object.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<Value>>>,
    version: Arc<Mutex<u64>>,
}

impl Server {
    /// A client whose requests meet `trouble`, one after another, and then none.
    fn client(&self, trouble: &[Trouble]) -> (Client, Arc<Mutex<VecDeque<Trouble>>>) {
        let trouble = Arc::new(Mutex::new(trouble.iter().copied().collect::<VecDeque<_>>()));
        let (server, queue) = (self.clone(), trouble.clone());
        let client = fake::client(move |call| {
            let (server, now) = (server.clone(), queue.lock().pop_front());
            async move { server.meet(call, now.unwrap_or((0, 0, Fault::None))).await }
        });
        (client, trouble)
    }

    async fn meet(&self, call: Call, (before, after, fault): Trouble) -> Answer {
        sleep(Duration::from_millis(before)).await;
        if fault == Fault::Refused {
            return fake::refusal(500, "InternalError");
        }
        if fault == Fault::Edited
            && let Some(lease) = self.lease.lock().as_mut()
        {
            lease["metadata"]["resourceVersion"] = self.next_version();
        }
        let answer = self.answer(call);
        sleep(Duration::from_millis(after)).await;
        match fault {
            Fault::AnswerLost => fake::refusal(500, "InternalError"),
            Fault::Hangs => std::future::pending().await,
            _ => answer,
        }
    }

    fn next_version(&self) -> Value {
        let mut version = self.version.lock();
        *version += 1;
        json!(version.to_string())
    }

    fn answer(&self, call: Call) -> Answer {
        let mut lease = self.lease.lock();
        let version = |v: &Value| v["metadata"]["resourceVersion"].clone();
        match (call.method, lease.as_ref()) {
            (Method::GET, Some(lease)) => return (200, lease.clone()),
            (Method::GET | Method::PUT, None) => return fake::refusal(404, "NotFound"),
            (Method::POST, Some(_)) => return fake::refusal(409, "AlreadyExists"),
            (Method::PUT, Some(stored)) if version(stored) != version(&call.body) => return fake::refusal(409, "Conflict"),
            (Method::POST, None) | (Method::PUT, Some(_)) => {}
            (method, _) => panic!("{method}"),
        }
        let mut object = call.body;
        object["metadata"]["resourceVersion"] = self.next_version();
        *lease = Some(object.clone());
        (200, object)
    }

    fn spec(&self) -> Value {
        self.lease.lock().as_ref().map(|l| l["spec"].clone()).unwrap_or_default()
    }
}

struct Candidate {
    leadership: Leadership,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Candidate {
    fn start(client: Client, identity: &str, epoch: i64) -> Self {
        let (stop, stopped) = watch::channel(false);
        let clock = Clock::starting_at(jiff::Timestamp::from_second(epoch).unwrap());
        let (leadership, task) = start(client, LeaseConfig::new("system", "voicerollout", identity), clock, stopped);
        Self { leadership, stop, task }
    }

    fn leads(&self) -> bool {
        self.leadership.allows(Duration::ZERO)
    }

    /// Waits until it leads (or does not) and gives the time that took.
    async fn until(&self, leads: bool) -> Duration {
        let start = Instant::now();
        while self.leads() != leads {
            sleep(Duration::from_millis(10)).await;
            assert!(start.elapsed() < Duration::from_secs(120), "leads: {}", self.leads());
        }
        start.elapsed()
    }
}

/// A client that can be cut off from the API server.
fn cuttable(server: &Server) -> (Client, watch::Sender<bool>) {
    let (cut, is_cut) = watch::channel(false);
    let server = server.clone();
    let client = fake::client(move |call| {
        let (server, mut is_cut) = (server.clone(), is_cut.clone());
        async move {
            let connected = is_cut.wait_for(|cut| !cut).await.is_ok();
            if connected { server.answer(call) } else { std::future::pending().await }
        }
    });
    (client, cut)
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stops_hands_over_at_once() {
    let server = Server::default();
    let a = Candidate::start(server.client(&[]).0, "a", 0);
    a.until(true).await;
    assert_eq!((&server.spec()["holderIdentity"], &server.spec()["leaseDurationSeconds"]), (&json!("a"), &json!(15)));
    assert_eq!(server.spec()["renewTime"], "1970-01-01T00:00:00.000000Z");
    let b = Candidate::start(server.client(&[]).0, "b", 0);
    sleep(Duration::from_secs(60)).await;
    assert!(a.leads() && !b.leads());
    assert_eq!(server.spec()["leaseTransitions"], 0);

    a.stop.send_replace(true);
    a.task.await.unwrap();
    assert!(!a.leadership.allows(Duration::ZERO));
    assert_eq!((&server.spec()["holderIdentity"], &server.spec()["leaseDurationSeconds"]), (&json!(""), &json!(1)));
    let taken = b.until(true).await;
    assert!(taken <= POLL + Duration::from_millis(50), "{taken:?}");
    assert_eq!((&server.spec()["holderIdentity"], &server.spec()["leaseTransitions"]), (&json!("b"), &json!(1)));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_before_another_starts() {
    let server = Server::default();
    let (client, cut) = cuttable(&server);
    let a = Candidate::start(client, "a", 0);
    a.until(true).await;
    // The other one's clock is an hour ahead.
    let b = Candidate::start(server.client(&[]).0, "b", 3600);
    sleep(Duration::from_secs(12)).await;
    cut.send_replace(true);
    let lost = a.until(false).await;
    assert!(lost <= Duration::from_secs(14), "{lost:?}");
    assert!(!b.leads());
    let taken = b.until(true).await;
    assert!(taken <= Duration::from_secs(4), "{taken:?}");
    cut.send_replace(false);
    sleep(Duration::from_secs(30)).await;
    assert!(!a.leads() && b.leads());
    assert_eq!(*a.leadership.changes().borrow(), None);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_cut_off_goes_on_when_nobody_else_is_there() {
    let server = Server::default();
    let (client, cut) = cuttable(&server);
    let a = Candidate::start(client, "a", 0);
    a.until(true).await;
    cut.send_replace(true);
    a.until(false).await;
    cut.send_replace(false);
    assert!(a.until(true).await < Duration::from_secs(10));
    assert_eq!(server.spec()["leaseTransitions"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_restart_under_the_same_name_does_not_wait() {
    let server = Server::default();
    let first = Candidate::start(server.client(&[]).0, "a", 0);
    first.until(true).await;
    first.task.abort();
    let second = Candidate::start(server.client(&[]).0, "a", 0);
    assert!(second.until(true).await < Duration::from_secs(1));
    let other = Candidate::start(server.client(&[]).0, "b", 0);
    sleep(Duration::from_secs(60)).await;
    assert!(!other.leads());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_deleted_is_not_free_at_once() {
    let server = Server::default();
    let (client, cut) = cuttable(&server);
    let a = Candidate::start(client, "a", 0);
    a.until(true).await;
    let b = Candidate::start(server.client(&[]).0, "b", 0);
    sleep(Duration::from_secs(11)).await;
    cut.send_replace(true);
    *server.lease.lock() = None;
    a.until(false).await;
    assert!(!b.leads());
    b.until(true).await;
}

fn trouble() -> impl Strategy<Value = Vec<Trouble>> {
    let fault = prop_oneof![
        4 => Just(Fault::None), 1 => Just(Fault::Refused), 1 => Just(Fault::AnswerLost), 1 => Just(Fault::Hangs), 1 => Just(Fault::Edited),
    ];
    let delay = || prop_oneof![3 => 0..50u64, 1 => 0..9_000u64];
    prop::collection::vec((delay(), delay(), fault), 0..40)
}

/// Two candidates in `trouble`, one of which dies; another one is started then. Fails when two lead at the same time,
/// or when in the end not exactly one does.
async fn one_leader(trouble: [Vec<Trouble>; 2], dies: usize, at: Duration) -> Result<(), TestCaseError> {
    let server = Server::default();
    let (clients, left): (Vec<_>, Vec<_>) = trouble.iter().map(|t| server.client(t)).unzip();
    let mut candidates: Vec<Candidate> =
        clients.into_iter().zip([("a", 0), ("b", 3600)]).map(|(c, (name, epoch))| Candidate::start(c, name, epoch)).collect();
    let start = Instant::now();
    let mut quiet = start;
    while quiet.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(25)).await;
        let leaders: Vec<usize> = (0..candidates.len()).filter(|i| candidates[*i].leads()).collect();
        prop_assert!(leaders.len() < 2, "{:?} lead after {:?}", leaders, start.elapsed());
        if candidates.len() == 2 && start.elapsed() >= at {
            candidates[dies].task.abort();
            left[dies].lock().clear();
            candidates.push(Candidate::start(server.client(&[]).0, "c", -3600));
        }
        if candidates.len() == 2 || left.iter().any(|l| !l.lock().is_empty()) {
            quiet = Instant::now();
        }
    }
    prop_assert_eq!(candidates.iter().filter(|c| c.leads()).count(), 1);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn two_never_lead_at_the_same_time(a in trouble(), b in trouble(), dies in 0..2usize, at in 0..100u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(one_leader([a, b], dies, Duration::from_secs(at)))?;
    }
}
