//! The rest of a cluster, played in virtual time: ReplicaSets, kubelets, EndpointSlices, proxies and callers.
//!
//! One task follows the server's changes and keeps its own timers, so that a run is the same for the same seed.

mod callers;
mod config;
mod endings;
mod endpoints;
mod jobs;
mod kubelet;
mod proxies;
mod replica_set;
mod requests;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::api::common::GROUP;
use crate::operator::clock::Clock;
use crate::sources::calls::{CallCounter, CallsQuestion, Readings};

pub use self::callers::{CallCounts, Move, Violation};
pub use self::config::{Callers, ImageBehaviour, KnownCallers, Start, WorldConfig};
pub use self::endings::{Cause, PodEnd};

use self::callers::{Book, Calls};
use self::endings::Endings;
use self::proxies::Proxies;
use self::timers::{Task, Timers};
use super::fail::Answer;
use super::patch::PatchKind;
use super::server::SimServer;
use super::state::{Part, State, Write};
use super::store::{Change, Key};

/// A running world. It ends when this is dropped.
pub struct World {
    shared: Arc<Shared>,
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
}

/// What happens to calls and pods, for providers that count calls and for tests.
#[derive(Clone)]
pub struct CallBook(Arc<Shared>);

impl CallBook {
    /// Name, revision and number of calls answered, of every pod of a namespace that has answered one.
    pub fn by_pod(&self, namespace: &str) -> Vec<(String, String, u64)> {
        let book = self.0.book.lock();
        let here = book.by_pod.iter().filter(|((of, _), _)| of == namespace);
        here.map(|((_, pod), (revision, calls))| (pod.clone(), revision.clone(), *calls)).collect()
    }

    /// How pods and containers have ended, from number `from` on.
    pub fn endings(&self, from: usize) -> Vec<PodEnd> {
        self.0.book.lock().endings.get(from..).unwrap_or_default().to_vec()
    }

    /// Calls that were sent where nothing could answer them, from number `from` on.
    pub fn violations(&self, from: usize) -> Vec<Violation> {
        self.0.book.lock().violations.get(from..).unwrap_or_default().to_vec()
    }
}

impl CallCounter for CallBook {
    fn count<'a>(&'a self, question: &'a CallsQuestion) -> BoxFuture<'a, Readings> {
        let book = self.0.book.lock();
        let active = |pod: &str| {
            let pod = (question.namespace.clone(), pod.to_owned());
            // Somebody whose cache is behind asks it.
            if book.gone.contains(&pod) { Err("no answer".to_owned()) } else { Ok(book.active.get(&pod).copied().unwrap_or(0) as u64) }
        };
        let readings = question.pods.iter().map(|p| (p.name.clone(), active(&p.name))).collect();
        Box::pin(std::future::ready(readings))
    }
}

/// What the world's task and its holder both see.
struct Shared {
    config: Mutex<WorldConfig>,
    book: Mutex<Book>,
    /// Nodes that take no new pods.
    closed_nodes: Mutex<BTreeSet<String>>,
}

/// Something that happens to a pod because the holder of the world says so.
enum Order {
    /// Its container ends.
    Crash(String, String),
    /// It is gone at once, as with its node.
    Lose(String, String),
    /// It is not Ready for a while; its calls go on.
    Unready(String, String, Duration),
}

impl World {
    /// Starts a world on a server. What is there already is taken as known to everyone.
    #[allow(clippy::unused_async)] // tells that it has to be called inside a runtime
    pub async fn start(server: SimServer, clock: Clock, config: WorldConfig) -> Self {
        let shared = Arc::new(Shared { config: Mutex::new(config), book: Mutex::default(), closed_nodes: Mutex::default() });
        let (orders, received) = mpsc::unbounded_channel();
        let cluster = Cluster::new(server, clock, Arc::clone(&shared));
        Self { shared, orders, task: tokio::spawn(cluster.run(received)) }
    }

    /// Says how pods of an image behave from now on; pods that run already stay as they are.
    pub fn set_image(&self, image: &str, behaviour: ImageBehaviour) {
        self.shared.config.lock().images.insert(image.to_owned(), behaviour);
    }

    /// Changes how the world behaves from now on.
    pub fn configure(&self, change: impl FnOnce(&mut WorldConfig)) {
        change(&mut self.shared.config.lock());
    }

    /// Names of the nodes.
    pub fn nodes(&self) -> Vec<String> {
        (0..self.shared.config.lock().nodes.max(1)).map(kubelet::node_name).collect()
    }

    /// A node takes no new pods, or takes them again.
    pub fn cordon(&self, node: &str, closed: bool) {
        let mut all = self.shared.closed_nodes.lock();
        if closed {
            all.insert(node.to_owned());
        } else {
            all.remove(node);
        }
    }

    /// The container of a ready pod ends; it is started again.
    pub fn crash_container(&self, namespace: &str, pod: &str) {
        let _ = self.orders.send(Order::Crash(namespace.into(), pod.into()));
    }

    /// A ready pod is not Ready for a while, and its calls go on.
    pub fn unready_pod(&self, namespace: &str, pod: &str, span: Duration) {
        let _ = self.orders.send(Order::Unready(namespace.into(), pod.into(), span));
    }

    /// A pod is gone without a word, as when its node is lost.
    pub fn lose_pod(&self, namespace: &str, pod: &str) {
        let _ = self.orders.send(Order::Lose(namespace.into(), pod.into()));
    }

    /// What became of calls, by revision hash (`voicerollout.dev/revision`).
    pub fn calls(&self) -> BTreeMap<String, CallCounts> {
        self.shared.book.lock().by_revision.clone()
    }

    /// Calls that pods have answered, as they go on.
    pub fn call_book(&self) -> CallBook {
        CallBook(Arc::clone(&self.shared))
    }

    /// Starts counting anew; calls that are under way stay under way.
    pub fn reset_calls(&self) {
        self.shared.book.lock().by_revision.clear();
    }

    /// Calls that were sent where nothing could answer them.
    pub fn violations(&self) -> Vec<Violation> {
        self.shared.book.lock().violations.clone()
    }

    /// Known callers who got another revision than at their last call.
    pub fn moves(&self) -> Vec<Move> {
        self.shared.book.lock().moves.clone()
    }

    /// Calls under way on a pod.
    pub fn active_calls(&self, namespace: &str, pod: &str) -> usize {
        self.shared.book.lock().active.get(&(namespace.to_owned(), pod.to_owned())).copied().unwrap_or(0)
    }

    /// Calls under way everywhere.
    pub fn all_active_calls(&self) -> usize {
        self.shared.book.lock().active.values().sum()
    }
}

/// Whether a pod is Ready.
pub(super) fn is_ready(pod: &Value) -> bool {
    kubelet::ready_since(pod).is_some()
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Positions of the kinds a world acts on.
#[derive(Clone, Copy)]
struct Kinds {
    pods: usize,
    replica_sets: usize,
    services: usize,
    slices: usize,
    virtual_services: usize,
    destination_rules: usize,
    rollouts: usize,
}

impl Kinds {
    fn of(state: &State) -> Self {
        // All of them are built in; a kind that were missing would have no objects.
        let id = |group: &str, plural: &str| state.resource(group, plural).map_or(usize::MAX, |r| r.id);
        Self {
            pods: id("", "pods"),
            replica_sets: id("apps", "replicasets"),
            services: id("", "services"),
            slices: id("discovery.k8s.io", "endpointslices"),
            virtual_services: id("networking.istio.io", "virtualservices"),
            destination_rules: id("networking.istio.io", "destinationrules"),
            rollouts: id(GROUP, "voicerollouts"),
        }
    }
}

/// The world's task.
struct Cluster {
    server: SimServer,
    clock: Clock,
    shared: Arc<Shared>,
    kinds: Kinds,
    timers: Timers,
    cursor: u64,
    proxies: Proxies,
    calls: Calls,
    endings: Endings,
    next_ip: u32,
    next_node: u32,
}

impl Cluster {
    fn new(server: SimServer, clock: Clock, shared: Arc<Shared>) -> Self {
        let kinds = server.with_state(Kinds::of);
        let seed = shared.config.lock().seed;
        Self {
            server,
            clock,
            shared,
            kinds,
            timers: Timers::default(),
            cursor: 0,
            proxies: Proxies::default(),
            calls: Calls::new(seed),
            endings: Endings::default(),
            next_ip: 1,
            next_node: 0,
        }
    }

    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut changes = self.server.with_state(|state| state.store.subscribe());
        self.take_what_is_there();
        loop {
            changes.borrow_and_update();
            self.follow();
            while let Some(task) = self.timers.due(Instant::now()) {
                self.perform(task);
                self.follow();
            }
            let next = self.timers.next();
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                Some(order) = orders.recv() => self.obey(order),
                () = due => {}
            }
        }
    }

    fn take_what_is_there(&mut self) {
        let kinds = self.kinds;
        let followed =
            [kinds.pods, kinds.services, kinds.replica_sets, kinds.slices, kinds.virtual_services, kinds.destination_rules, kinds.rollouts];
        let (version, there) = self.server.with_state(|state| {
            let objects = followed.iter().flat_map(|kind| state.store.list(*kind, None));
            let there: Vec<(Key, Arc<Value>)> = objects.map(|(k, o)| (k.clone(), Arc::clone(o))).collect();
            (state.store.version(), there)
        });
        self.cursor = version;
        for (key, object) in there {
            self.proxies.know(&key, Some(Arc::clone(&object)), kinds);
            self.see(&Change { version, at: Instant::now(), key, old: None, new: Some(object) });
        }
    }

    /// Looks at everything that changed since the last time.
    fn follow(&mut self) {
        let changes: Vec<Change> = self.server.with_state(|state| {
            let changes = state.store.changes_after(self.cursor).cloned().collect();
            self.cursor = state.store.version();
            changes
        });
        for change in changes {
            self.see(&change);
        }
    }

    fn see(&mut self, change: &Change) {
        let kind = change.key.kind;
        if kind == self.kinds.pods {
            self.kubelet_sees(change);
            self.replica_sets_see_pod(change);
            self.slices_see_pod(change);
        } else if kind == self.kinds.replica_sets {
            self.later(Task::ReplicaSet(change.key.clone()));
        } else if kind == self.kinds.services {
            self.later(Task::Slice(change.key.clone()));
        } else if kind == self.kinds.rollouts {
            self.jobs_see(change);
        } else if [self.kinds.slices, self.kinds.virtual_services, self.kinds.destination_rules].contains(&kind) {
            self.proxies_see(change);
            self.callers_see(change);
        }
    }

    /// Does a task after the time controllers take to react.
    fn later(&mut self, task: Task) {
        let delay = self.shared.config.lock().reaction;
        self.timers.once(Instant::now() + delay, task);
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::ReplicaSet(key) => self.sync_replica_set(&key),
            Task::Slice(key) => self.sync_slice(&key),
            Task::Start { pod, uid } => self.start_pod(&pod, &uid),
            Task::Restart { pod, uid, times } => self.restart_pod(&pod, &uid, times),
            Task::Recover { pod, uid, times } => self.recover_pod(&pod, &uid, times),
            Task::Gone { pod, uid } => self.end_pod(&pod, &uid),
            Task::Propagate => self.propagate(),
            Task::Call { route, index } => self.call(&route, index),
            Task::Dispatch(rollout) => self.dispatch(&rollout),
            Task::Drained { pod, uid } => self.drained(&pod, &uid),
            Task::HangUp(number) => self.hang_up(number),
        }
    }

    fn obey(&mut self, order: Order) {
        let (Order::Crash(namespace, name) | Order::Lose(namespace, name) | Order::Unready(namespace, name, _)) = &order;
        let pod = Key { kind: self.kinds.pods, namespace: namespace.clone(), name: name.clone() };
        match order {
            Order::Crash(..) => self.crash_container(&pod),
            Order::Lose(..) => self.lose(&pod),
            Order::Unready(.., span) => self.unready(&pod, span),
        }
    }

    fn object(&self, key: &Key) -> Option<Arc<Value>> {
        self.server.with_state(|state| state.store.get(key).cloned())
    }

    /// Merges into an object or its status; one that is gone is left alone.
    fn merge(&self, key: &Key, part: Part, patch: &Value) {
        self.attempt(key, |state, key| {
            let Some(resource) = state.resources.get(key.kind).cloned() else { return Ok(()) };
            let body = patch.to_string();
            let write = Write::by("cluster", part);
            state.patch(&resource, &key.namespace, &key.name, PatchKind::Merge, body.as_bytes(), false, &write).map(drop)
        });
    }

    fn attempt(&self, key: &Key, change: impl FnOnce(&mut State, &Key) -> Answer<()>) {
        if let Err(status) = self.server.with_state_mut(|state| change(state, key)) {
            tracing::debug!(object = %key.name, namespace = %key.namespace, code = status.code, "simulated cluster: {}", status.message);
        }
    }
}
