//! Measurements outside of reconciles: bounded, one task each, results kept until they are persisted.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::mpsc::UnboundedSender;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::Guarded;
use super::request::{self, Blueprint};
use crate::core::gates::{Finished, Outcome};
use crate::sources::secrets::SecretReader;
use crate::sources::{Progress, Request, Source, SourceError};

/// Time a provider gets for a cancellation.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest and longest time between polls.
const POLLS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(900));
/// Requests for the same start. It stays one measurement, and one run at a provider that knows its key again.
const MAX_STARTS: u32 = 3;
/// First and longest wait after a request that was not answered; it doubles in between.
const RETRIES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Servers whose limits are remembered before idle ones are dropped.
const MAX_SERVERS: usize = 256;

/// Requests at the same time. A server that takes half an hour to answer must not keep others from being asked, so the
/// limit for one is well below the limit for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// To all servers.
    pub total: usize,
    /// To one server.
    pub per_server: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total: 128, per_server: 16 }
    }
}

/// Leave for one request.
pub struct Permit(#[allow(dead_code)] [OwnedSemaphorePermit; 2]);

/// A measurement to run.
pub struct Job {
    /// The run, for the work queue.
    pub run: ObjectRef<Guarded>,
    /// The run's UID.
    pub uid: String,
    /// What to measure.
    pub blueprint: Blueprint,
    /// Handle to poll with, when it is under way already.
    pub handle: Option<String>,
    /// Leave for the first request, when it was reserved.
    pub permit: Option<Permit>,
    /// Time after which the task gives up by itself.
    pub limit: Duration,
}

struct Entry {
    key: String,
    task: AbortHandle,
    /// The newest answer that is not persisted.
    answer: Option<Outcome>,
    /// What a cancellation needs.
    request: Option<Arc<Request>>,
    handle: Option<String>,
}

type Entries = Mutex<HashMap<(String, usize), Entry>>;

/// The pool.
pub struct GatePool {
    source: Arc<dyn Source>,
    secrets: Arc<dyn SecretReader>,
    total: Arc<Semaphore>,
    per_server: usize,
    servers: Mutex<HashMap<String, Arc<Semaphore>>>,
    entries: Entries,
    wake: UnboundedSender<ObjectRef<Guarded>>,
}

impl GatePool {
    /// A pool that asks `source` and wakes the queue when something has come.
    pub fn new(
        source: Arc<dyn Source>,
        secrets: Arc<dyn SecretReader>,
        limits: Limits,
        wake: UnboundedSender<ObjectRef<Guarded>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            source,
            secrets,
            total: Arc::new(Semaphore::new(limits.total)),
            per_server: limits.per_server,
            servers: Mutex::default(),
            entries: Mutex::default(),
            wake,
        })
    }

    /// Leave for one request to the gate's server, if there is room now.
    pub fn reserve(&self, gate: &crate::api::analysis::Gate) -> Option<Permit> {
        let server = self.server(&request::server(gate)).try_acquire_owned().ok()?;
        Some(Permit([server, self.total.clone().try_acquire_owned().ok()?]))
    }

    /// Answers of a run that are not persisted.
    pub fn answers(&self, uid: &str) -> Vec<Finished> {
        let entries = self.entries.lock();
        let mut answers: Vec<Finished> = entries
            .iter()
            .filter(|((of, _), _)| of == uid)
            .filter_map(|((_, gate), e)| Some(Finished { gate: *gate, key: e.key.clone(), outcome: e.answer.clone()? }))
            .collect();
        answers.sort_by_key(|f| f.gate);
        answers
    }

    /// Lets go of answers that are persisted.
    pub fn persisted(&self, uid: &str, answers: &[Finished]) {
        let mut entries = self.entries.lock();
        for f in answers {
            let at = (uid.to_owned(), f.gate);
            let Some(entry) = entries.get_mut(&at).filter(|e| e.key == f.key && e.answer.as_ref() == Some(&f.outcome)) else { continue };
            entry.answer = None;
            if !matches!(f.outcome, Outcome::Running { .. }) {
                entries.remove(&at);
            }
        }
    }

    /// Runs a measurement unless it runs already; replaces an older one of the same gate.
    pub fn ensure(self: &Arc<Self>, job: Job) {
        let at = (job.uid.clone(), job.blueprint.gate);
        let mut entries = self.entries.lock();
        if entries.get(&at).is_some_and(|e| e.key == job.blueprint.key) {
            return;
        }
        let (key, handle) = (job.blueprint.key.clone(), job.handle.clone());
        // The task's first action is to take the lock that is held here, so it finds its entry.
        let task = tokio::spawn(self.clone().work(job)).abort_handle();
        if let Some(old) = entries.insert(at, Entry { key, task, answer: None, request: None, handle }) {
            old.task.abort();
        }
    }

    /// Gives up a measurement, and tells its provider where it has a handle.
    pub fn cancel(self: &Arc<Self>, uid: &str, blueprint: Blueprint, handle: Option<String>) {
        let at = (uid.to_owned(), blueprint.gate);
        let entry = {
            let mut entries = self.entries.lock();
            let same = entries.get(&at).is_some_and(|e| e.key == blueprint.key);
            if same { entries.remove(&at) } else { None }
        };
        let (mut handle, mut known) = (handle, None);
        if let Some(entry) = entry {
            entry.task.abort();
            handle = entry.handle.or(handle);
            known = entry.request;
        }
        let Some(handle) = handle else { return };
        let pool = self.clone();
        tokio::spawn(tokio::time::timeout(CANCEL_TIMEOUT, async move {
            let request = match known {
                Some(request) => request,
                None => Arc::new(blueprint.request(&*pool.secrets).await.ok()?),
            };
            pool.source.cancel(&request, &handle).await;
            Some(())
        }));
    }

    /// Drops everything of a run without telling providers: it is gone, or another process takes over.
    pub fn forget(&self, uid: &str) {
        self.entries.lock().retain(|(of, _), entry| {
            if of == uid {
                entry.task.abort();
            }
            of != uid
        });
    }

    /// Drops everything.
    pub fn clear(&self) {
        for (_, entry) in self.entries.lock().drain() {
            entry.task.abort();
        }
    }

    fn server(&self, name: &str) -> Arc<Semaphore> {
        let mut servers = self.servers.lock();
        if servers.len() >= MAX_SERVERS {
            servers.retain(|_, s| Arc::strong_count(s) > 1 || s.available_permits() < self.per_server);
        }
        servers.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.per_server))).clone()
    }

    async fn permit(&self, server: &str) -> Result<Permit, SourceError> {
        let closed = |_| SourceError::new("the operator is shutting down");
        let server = self.server(server).acquire_owned().await.map_err(closed)?;
        Ok(Permit([server, self.total.clone().acquire_owned().await.map_err(closed)?]))
    }

    async fn work(self: Arc<Self>, mut job: Job) {
        let permit = job.permit.take();
        let measured = AssertUnwindSafe(self.measure(&job, permit)).catch_unwind();
        let outcome = match tokio::time::timeout(job.limit, measured).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => failed("the provider's code panicked; please report this"),
            Err(_) => failed("no result in time"),
        };
        self.answer(&job, outcome);
    }

    async fn measure(&self, job: &Job, mut permit: Option<Permit>) -> Outcome {
        let request = match job.blueprint.request(&*self.secrets).await {
            Ok(request) => Arc::new(request),
            Err(error) => return request::outcome(Err(error), &Default::default()),
        };
        self.update(job, |entry| entry.request = Some(request.clone()));
        let server = request::server(&request.gate);
        let mut handle = job.handle.clone();
        let mut unanswered = 0;
        loop {
            let leave = match permit.take() {
                Some(permit) => Ok(permit),
                None => self.permit(&server).await,
            };
            let answer = match (leave, &handle) {
                (Err(error), _) => Err(error),
                (Ok(_leave), None) => self.source.start(&request).await,
                (Ok(_leave), Some(handle)) => self.source.poll(&request, handle).await,
            };
            let wait = match answer {
                Ok(Progress::Running { handle: next, poll_after }) => {
                    if handle.as_ref() != Some(&next) || unanswered > 0 {
                        self.update(job, |entry| entry.handle = Some(next.clone()));
                        self.answer(job, Outcome::Running { handle: next.clone(), trouble: None });
                        handle = Some(next);
                    }
                    unanswered = 0;
                    poll_after.clamp(POLLS.0, POLLS.1)
                }
                Ok(Progress::Unanswered { message, retry_after }) if handle.is_some() || unanswered + 1 < MAX_STARTS => {
                    unanswered += 1;
                    if let Some(handle) = &handle {
                        self.answer(job, request::troubled(handle, message, &request.args));
                    }
                    retry_wait(unanswered).max(retry_after.unwrap_or_default()).min(POLLS.1)
                }
                other => return request::outcome(other, &request.args),
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn update(&self, job: &Job, change: impl FnOnce(&mut Entry)) -> bool {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&(job.uid.clone(), job.blueprint.gate)).filter(|e| e.key == job.blueprint.key);
        entry.map(change).is_some()
    }

    fn answer(&self, job: &Job, outcome: Outcome) {
        if self.update(job, |entry| entry.answer = Some(outcome)) {
            // Fails only when the controller is gone.
            let _ = self.wake.unbounded_send(job.run.clone());
        }
    }
}

/// Time until a request is repeated that was not answered the `n`th time in a row, from 1.
fn retry_wait(n: u32) -> Duration {
    let doubled = RETRIES.0.saturating_mul(1 << (n - 1).min(16));
    doubled.min(RETRIES.1).mul_f64(0.8 + 0.4 * fastrand::f64())
}

fn failed(message: &str) -> Outcome {
    Outcome::Failed { message: message.into(), retry_after: None, tokens: None }
}
