//! The simulated API server as tests, the demo and the simulated world hold it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use crate::api::crds;
use crate::operator::clock::Clock;

use super::fail::Answer;
use super::journal::{Fault, Interceptor, JOURNAL_LIMIT, RequestInfo, Verb};
use super::registry::Resource;
use super::service::SimService;
use super::state::{Part, State, Write};

/// This project's kinds. Their schemas take a while to prepare, and never change.
static OWN_KINDS: LazyLock<Vec<Resource>> =
    LazyLock::new(|| crds::all().iter().filter_map(|(_, crd)| Resource::custom(crd).ok()).collect());

/// Delays, in tokio's time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    /// From a request to its execution.
    pub request: Duration,
    /// From a change until watches show it: caches are this stale.
    pub watch: Duration,
}

/// How watches go on while nothing changes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time between bookmarks.
    pub bookmarks: Duration,
    /// Length of every watch; `None`: what its request asks for. Days of virtual time cost less with watches that are long.
    pub longest: Option<Duration>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { bookmarks: Duration::from_secs(60), longest: None }
    }
}

/// One change of one object, whoever made it.
#[derive(Clone, Debug)]
pub struct Written {
    /// resourceVersion of the change.
    pub version: u64,
    /// When.
    pub at: tokio::time::Instant,
    /// Plural name of the kind.
    pub resource: String,
    /// Namespace; empty for cluster-wide kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// As it was; `None` when it was created.
    pub old: Option<Arc<Value>>,
    /// As it is; `None` when it was deleted.
    pub new: Option<Arc<Value>>,
}

/// A Kubernetes API server in this process, without sockets. Clones share it.
///
/// It follows tokio's clock, so it runs in virtual time wherever tokio does. Namespaces other than `default` and
/// `kube-system` have to be created. Core and `events.k8s.io` Events are two kinds here, not two views of one.
#[derive(Clone)]
pub struct SimServer {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    state: Mutex<State>,
    journal: Mutex<Journal>,
    interceptors: Mutex<Vec<Interceptor>>,
    latency: Mutex<Latency>,
    pace: Mutex<Pace>,
    number: AtomicU64,
    breaks: watch::Sender<u64>,
    held: watch::Sender<bool>,
}

#[derive(Default)]
struct Journal {
    requests: VecDeque<RequestInfo>,
    counts: BTreeMap<(Arc<str>, Verb), u64>,
}

impl SimServer {
    /// A server with Kubernetes' and Istio's kinds and this project's CRDs.
    pub fn new(clock: Clock) -> Self {
        let server = Self {
            inner: Arc::new(Inner {
                state: Mutex::new(State::new(clock.clone())),
                clock,
                journal: Mutex::default(),
                interceptors: Mutex::default(),
                latency: Mutex::default(),
                pace: Mutex::default(),
                number: AtomicU64::new(0),
                breaks: watch::channel(0).0,
                held: watch::channel(false).0,
            }),
        };
        for resource in OWN_KINDS.iter() {
            server.inner.state.lock().register(resource.clone());
        }
        server
    }

    /// Serves another custom resource.
    ///
    /// # Errors
    /// When the definition has no storage version.
    pub fn register(&self, crd: &CustomResourceDefinition) -> Result<(), String> {
        let resource = Resource::custom(crd)?;
        self.inner.state.lock().register(resource);
        Ok(())
    }

    /// A client, as user `client`.
    pub fn client(&self) -> Client {
        self.client_as("client")
    }

    /// A client whose requests the journal shows under this user. It never retries. Needs a tokio runtime.
    pub fn client_as(&self, user: &str) -> Client {
        Client::new(SimService { server: self.clone(), user: user.into() }, "default")
    }

    /// The server's clock.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    // ---- faults -------------------------------------------------------------------------------------------------

    /// Asks `choose` for a fault at every request of every client. The first one that names a fault decides.
    pub fn intercept(&self, choose: impl Fn(&RequestInfo) -> Fault + Send + Sync + 'static) {
        self.inner.interceptors.lock().push(Arc::new(choose));
    }

    /// Forgets all interceptors.
    pub fn clear_interceptors(&self) {
        self.inner.interceptors.lock().clear();
    }

    /// Sets delays.
    pub fn set_latency(&self, latency: Latency) {
        *self.inner.latency.lock() = latency;
    }

    /// The delays.
    pub fn latency(&self) -> Latency {
        *self.inner.latency.lock()
    }

    /// Sets how watches go on; those that have begun stay as they are.
    pub fn set_pace(&self, pace: Pace) {
        *self.inner.pace.lock() = pace;
    }

    pub(super) fn pace(&self) -> Pace {
        *self.inner.pace.lock()
    }

    /// Breaks the connection of every watch.
    pub fn break_watches(&self) {
        self.inner.breaks.send_modify(|n| *n += 1);
    }

    /// Holds back what watches would show (caches stay as they are), or lets it go.
    pub fn hold_watches(&self, hold: bool) {
        self.inner.held.send_replace(hold);
    }

    /// Forgets old versions: watches and pages that start from one get 410.
    pub fn compact(&self) {
        self.inner.state.lock().store.compact();
    }

    pub(super) fn watch_controls(&self) -> (watch::Receiver<u64>, watch::Receiver<bool>) {
        (self.inner.breaks.subscribe(), self.inner.held.subscribe())
    }

    // ---- journal ------------------------------------------------------------------------------------------------

    pub(super) fn next_number(&self) -> u64 {
        self.inner.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes a request and chooses its fault.
    pub(super) fn record(&self, info: RequestInfo) -> Fault {
        let interceptors = self.inner.interceptors.lock().clone();
        let fault = interceptors.iter().map(|choose| choose(&info)).find(|fault| !matches!(fault, Fault::None));
        let mut journal = self.inner.journal.lock();
        *journal.counts.entry((Arc::clone(&info.user), info.verb)).or_default() += 1;
        journal.requests.push_back(info);
        if journal.requests.len() > JOURNAL_LIMIT {
            journal.requests.pop_front();
        }
        fault.unwrap_or(Fault::None)
    }

    pub(super) fn note_code(&self, number: u64, code: u16) {
        let mut journal = self.inner.journal.lock();
        if let Some(info) = journal.requests.iter_mut().rev().find(|info| info.number == number) {
            info.code = Some(code);
        }
    }

    /// Requests so far, oldest first (the newest [`JOURNAL_LIMIT`]).
    pub fn requests(&self) -> Vec<RequestInfo> {
        self.inner.journal.lock().requests.iter().cloned().collect()
    }

    /// Requests that `wanted` picks, oldest first.
    pub fn requests_where(&self, wanted: impl Fn(&RequestInfo) -> bool) -> Vec<RequestInfo> {
        self.inner.journal.lock().requests.iter().filter(|r| wanted(r)).cloned().collect()
    }

    /// How many requests a user sent with a verb, since the start or the last [`Self::clear_journal`].
    pub fn count(&self, user: &str, verb: Verb) -> u64 {
        self.inner.journal.lock().counts.iter().filter(|((u, v), _)| &**u == user && *v == verb).map(|(_, n)| n).sum()
    }

    /// How many writes a user sent.
    pub fn count_writes(&self, user: &str) -> u64 {
        let journal = self.inner.journal.lock();
        journal.counts.iter().filter(|((u, v), _)| &**u == user && v.is_write()).map(|(_, n)| n).sum()
    }

    /// Forgets the requests and their counts.
    pub fn clear_journal(&self) {
        *self.inner.journal.lock() = Journal::default();
    }

    // ---- direct access: not in the journal, no faults -------------------------------------------------------------

    pub(super) fn with_state<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.inner.state.lock())
    }

    pub(super) fn with_state_mut<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.inner.state.lock())
    }

    /// The newest resourceVersion.
    pub fn version(&self) -> u64 {
        self.with_state(|state| state.store.version())
    }

    /// Tells when something was changed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.with_state(|state| state.store.subscribe())
    }

    /// Every change after a version, oldest first, as far as the log reaches back.
    pub fn changes_since(&self, version: u64) -> Vec<Written> {
        self.with_state(|state| {
            let written = |c: &super::store::Change| Written {
                version: c.version,
                at: c.at,
                resource: state.resources.get(c.key.kind).map(|r| r.plural.clone()).unwrap_or_default(),
                namespace: c.key.namespace.clone(),
                name: c.key.name.clone(),
                old: c.old.clone(),
                new: c.new.clone(),
            };
            state.store.changes_after(version).map(written).collect()
        })
    }

    /// An object, by the plural name of its kind.
    pub fn peek(&self, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.with_state(|state| {
            let resource = state.resources.iter().find(|r| r.plural == plural)?;
            state.get(resource, namespace, name).ok()
        })
    }

    /// All objects of a kind, in one namespace or (`None`) in all.
    pub fn peek_all(&self, plural: &str, namespace: Option<&str>) -> Vec<Arc<Value>> {
        self.with_state(|state| {
            let resource = state.resources.iter().find(|r| r.plural == plural);
            let list = resource.map(|r| state.store.list(r.id, namespace).map(|(_, o)| Arc::clone(o)).collect());
            list.unwrap_or_default()
        })
    }

    /// Creates an object given as JSON with `apiVersion`, `kind` and `metadata`, as user `server`.
    ///
    /// # Errors
    /// As a POST would.
    pub fn seed(&self, object: Value) -> Answer<Arc<Value>> {
        self.with_state_mut(|state| {
            let (version, kind) = (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str());
            let resource = state.resources.iter().find(|r| r.api_version() == version && Some(r.kind.as_str()) == kind);
            let resource = resource.cloned().ok_or_else(super::fail::no_such_path)?;
            let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("default").to_owned();
            let namespace = if resource.namespaced { namespace } else { String::new() };
            state.create(&resource, &namespace, object, &Write::by("server", Part::Main))
        })
    }

    /// Adds a line to a pod's log.
    pub fn append_log(&self, namespace: &str, pod: &str, line: impl Into<String>) {
        let now = self.inner.clock.now();
        self.with_state_mut(|state| {
            state.logs.entry((namespace.into(), pod.into())).or_default().push((now, line.into()));
        });
    }
}
