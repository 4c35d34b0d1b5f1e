//! Leader election with a `coordination.k8s.io/v1` Lease.
//!
//! A claim ends before any other candidate may take the Lease: it counts from the *start* of the request that renewed
//! it, less a margin, while others count from the moment they see the record change. No clocks are compared: the times
//! in the record are for people, and only the fact that they changed is used.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::clock::Clock;
use super::leadership::Leadership;
use super::write::WRITE_TIMEOUT;

mod record;
#[cfg(test)]
mod tests;

use record::Seen;

/// Time between two looks at a Lease that another process holds.
const POLL: Duration = Duration::from_secs(2);
/// Time between a failed request and the next.
const RETRY: Duration = Duration::from_secs(1);
/// Most attempts to give the Lease up.
const RELEASES: u32 = 3;

/// Which Lease, and how it is held.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Name of this process: the pod's name, or outside a cluster host name and process id. A Lease that is held under
    /// it already is taken over at once (a container that was restarted goes on without a wait), so no two processes
    /// that run at the same time may share it.
    pub identity: String,
    /// Time after which others may take a Lease that is not renewed. Whole seconds, three or more.
    pub duration: Duration,
    /// Time between renewals.
    pub renew: Duration,
}

impl LeaseConfig {
    /// Held for 15 s, renewed every 5 s.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
            renew: Duration::from_secs(5),
        }
    }

    /// Why these times cannot work: the claim has to outlive the time between renewals, and a write after that.
    pub fn problem(&self) -> Option<String> {
        let least = self.renew + self.timeout() + WRITE_TIMEOUT;
        (self.claim() <= least).then(|| {
            format!(
                "a Lease of {:?} that is renewed every {:?} leaves no time for a write, which may take {WRITE_TIMEOUT:?}: make it longer, or renew it more often",
                self.duration, self.renew
            )
        })
    }

    /// How long a claim lasts: less than others wait, because clocks do not all run at the same speed.
    fn claim(&self) -> Duration {
        self.duration - self.duration / 15
    }

    /// Limit of one request: short enough that several fit into a claim.
    fn timeout(&self) -> Duration {
        self.duration / 5
    }
}

/// Starts [`run`]. Set `stop` to true when the writers have finished: the Lease is then given up, and a standby takes
/// it within two seconds.
pub fn start(client: Client, config: LeaseConfig, clock: Clock, stop: watch::Receiver<bool>) -> (Leadership, JoinHandle<()>) {
    let (claim, until) = watch::channel(None);
    (Leadership::following(until), tokio::spawn(run(client, config, clock, claim, stop)))
}

/// Takes the Lease when it is free and renews it, until `stop` is true or its sender is gone; `claim` follows.
pub async fn run(
    client: Client,
    config: LeaseConfig,
    clock: Clock,
    claim: watch::Sender<Option<Instant>>,
    mut stop: watch::Receiver<bool>,
) {
    let api = Api::namespaced(client, &config.namespace);
    let mut elector = Elector { api, config, clock, claim, held: None, seen: None };
    loop {
        let next = elector.step().await;
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    elector.release().await;
}

/// A request that did not succeed.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("{what}: no answer in time")]
    Timeout { what: String },
    #[error("{what}: {source}")]
    Api { what: String, source: Box<kube::Error> },
}

impl LeaseError {
    /// The record is not the one that the request was based on.
    fn is_outdated(&self) -> bool {
        match self {
            Self::Api { source, .. } => matches!(source.as_ref(), kube::Error::Api(s) if s.code == 409 || s.code == 404),
            Self::Timeout { .. } => false,
        }
    }
}

struct Elector {
    api: Api<Lease>,
    config: LeaseConfig,
    clock: Clock,
    claim: watch::Sender<Option<Instant>>,
    /// The record as this process last wrote it, while nobody is known to have written since.
    held: Option<Lease>,
    /// The record of another holder.
    seen: Option<Seen>,
}

impl Elector {
    /// Takes, renews or looks; gives the time of the next step.
    async fn step(&mut self) -> Instant {
        let start = Instant::now();
        match self.attempt().await {
            Ok(Some(until)) => {
                self.set(Some(until));
                start + self.config.renew
            }
            Ok(None) => {
                self.set(None);
                let now = Instant::now();
                let expires = self.seen.as_ref().map(|seen| seen.expires).filter(|expires| *expires > now);
                expires.map_or(now + POLL, |expires| expires.min(now + POLL))
            }
            Err(error) => {
                let until = *self.claim.borrow();
                tracing::warn!(%error, leading = until.is_some(), "leader election");
                if until.is_some_and(|until| until <= Instant::now()) {
                    self.set(None);
                }
                Instant::now() + RETRY
            }
        }
    }

    /// One try to hold the Lease: the end of the claim, or `None` when another process holds it.
    async fn attempt(&mut self) -> Result<Option<Instant>, LeaseError> {
        if let Some(held) = &self.held {
            let until = Instant::now() + self.config.claim();
            match self.replace(record::renewed(held, &self.config, self.clock.now())).await {
                Ok(lease) => {
                    self.held = Some(lease);
                    return Ok(Some(until));
                }
                Err(error) if error.is_outdated() => self.held = None,
                Err(error) => return Err(error),
            }
        }
        let found = self.get().await?;
        if !self.may_take(found.as_ref()) {
            return Ok(None);
        }
        let until = Instant::now() + self.config.claim();
        let lease = record::taken(found, &self.config, self.clock.now());
        let result = if lease.metadata.resource_version.is_some() { self.replace(lease).await } else { self.create(lease).await };
        match result {
            Ok(lease) => {
                self.held = Some(lease);
                self.seen = None;
                Ok(Some(until))
            }
            // Another candidate was faster.
            Err(error) if error.is_outdated() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the Lease is free, or ours, or has not been renewed for its whole duration as seen from here.
    fn may_take(&mut self, found: Option<&Lease>) -> bool {
        let now = Instant::now();
        let Some(lease) = found else {
            // Somebody deleted it; its holder may still rely on it.
            return self.seen.as_ref().is_none_or(|seen| seen.expires <= now);
        };
        let Some(holder) = record::holder(lease).filter(|h| *h != self.config.identity) else { return true };
        match &self.seen {
            Some(seen) if seen.is(lease) => seen.expires <= now,
            _ => {
                tracing::debug!(holder, "another process leads");
                self.seen = Some(Seen::now(lease, self.config.duration));
                false
            }
        }
    }

    fn set(&self, until: Option<Instant>) {
        let was = self.claim.send_replace(until);
        if was.is_some() != until.is_some() {
            let state = if until.is_some() { "this process leads" } else { "this process does not lead any more" };
            tracing::info!(identity = self.config.identity, lease = self.config.name, "{state}");
        }
    }

    /// Gives the Lease up, so that a standby need not wait for its end.
    async fn release(mut self) {
        self.set(None);
        if self.held.is_none() {
            return;
        }
        for _ in 0..RELEASES {
            let Some(held) = self.held.take() else { break };
            match self.replace(record::released(&held, self.clock.now())).await {
                Ok(_) => return tracing::info!(lease = self.config.name, "gave up the lease"),
                // A renewal without an answer was carried out, or somebody edited the record.
                Err(error) if error.is_outdated() => {
                    let found = self.get().await.ok().flatten();
                    self.held = found.filter(|lease| record::holder(lease) == Some(&self.config.identity));
                }
                Err(error) => {
                    tracing::warn!(%error, "the lease is not given up yet");
                    self.held = Some(held);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        tracing::warn!(lease = self.config.name, "the next leader has to wait for the end of the lease");
    }

    async fn get(&self) -> Result<Option<Lease>, LeaseError> {
        self.limited("read", self.api.get_opt(&self.config.name)).await
    }

    async fn create(&self, lease: Lease) -> Result<Lease, LeaseError> {
        self.limited("create", self.api.create(&record::params(), &lease)).await
    }

    async fn replace(&self, lease: Lease) -> Result<Lease, LeaseError> {
        let params: PostParams = record::params();
        self.limited("write", self.api.replace(&self.config.name, &params, &lease)).await
    }

    async fn limited<T>(&self, verb: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
        let what = || format!("{verb} Lease {}/{}", self.config.namespace, self.config.name);
        match tokio::time::timeout(self.config.timeout(), request).await {
            Err(_) => Err(LeaseError::Timeout { what: what() }),
            Ok(Err(source)) => Err(LeaseError::Api { what: what(), source: Box::new(source) }),
            Ok(Ok(value)) => Ok(value),
        }
    }
}
