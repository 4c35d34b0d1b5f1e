//! Tells people what became of releases: takes news over from recorded statuses into outboxes, and sends them. Only the
//! leader does. A receiver that fails delays no other, and no release.

mod carrier;
mod notices;
mod record;
mod slots;
mod tell;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;
use kube::Client;
use kube::runtime::events::Recorder;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use super::backoff::Backoff;
use super::cache::Id;
use super::clock::Clock;
use super::leadership::Leadership;
use super::stores::{Stores, Target, target};
use crate::core::notify::outbox::caught_up_with;
use crate::metrics::Metrics;
use crate::notify::Messenger;
use carrier::Carrier;
use record::{Loaded, seen};
use slots::Slots;

pub use notices::Notices;

/// Requests to the API server about outboxes at the same time.
const TURNS: usize = 8;
/// Longest time that requests under way get to finish at shutdown.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// What the sender of messages works with.
pub struct Teller {
    /// The client.
    pub client: Client,
    /// The caches.
    pub stores: Arc<Stores>,
    /// What is known of rollouts' notifications.
    pub notices: Arc<Notices>,
    /// Sends messages.
    pub messenger: Arc<Messenger>,
    /// Whether this process may write and send.
    pub leadership: Leadership,
    /// The time.
    pub clock: Clock,
    /// Figures for Prometheus.
    pub metrics: Arc<Metrics>,
    /// Publishes events about messages that are lost.
    pub recorder: Recorder,
    /// Whom to tell that a rollout is to be looked at, by watched namespace; `None`: all.
    pub changed: Vec<(Option<String>, UnboundedSender<Target>)>,
}

/// What carriers share.
struct Shared {
    teller: Teller,
    /// Room for requests to receivers.
    slots: Slots,
    /// Room for requests to the API server.
    turns: Semaphore,
    /// Waits after failed steps, by rollout.
    backoff: Backoff,
    /// Becomes true when nothing new is to be sent.
    stopping: watch::Receiver<bool>,
}

impl Teller {
    /// Sends until `stop`; the caches are filled.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (ending, stopping) = watch::channel(false);
        let mut claim = self.leadership.changes();
        let (slots, turns, backoff) = (Slots::default(), Semaphore::new(TURNS), Backoff::new());
        let shared = Arc::new(Shared { teller: self, slots, turns, backoff, stopping });
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                led = claim.wait_for(Option::is_some) => if led.is_err() { return },
            }
            let mut round = Round { shared: shared.clone(), idle: HashMap::new(), under_way: HashMap::new(), carriers: JoinSet::new() };
            let stopped = tokio::select! {
                // What is on its way then, another leader finds in the record.
                () = lost(&mut claim) => false,
                () = round.lead() => false,
                () = &mut stop => true,
            };
            if stopped {
                ending.send_replace(true);
                let _ = tokio::time::timeout(SHUTDOWN, round.finish()).await;
                return;
            }
        }
    }
}

/// Waits until this process does not lead any more; for ever, where nobody else could.
async fn lost(claim: &mut watch::Receiver<Option<tokio::time::Instant>>) {
    if claim.wait_for(Option::is_none).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The time in which this process leads without a break.
struct Round {
    shared: Arc<Shared>,
    /// Outboxes that are read, of rollouts without anything to do.
    idle: HashMap<Id, Loaded>,
    /// Rollouts with something to do: how to tell their carrier that they have changed.
    under_way: HashMap<Id, Arc<Notify>>,
    carriers: JoinSet<(Id, Option<Loaded>)>,
}

impl Round {
    /// Looks at every rollout, then at those that change.
    async fn lead(&mut self) {
        let shared = self.shared.clone();
        let (stores, notices) = (&shared.teller.stores, &shared.teller.notices);
        let listed = shared.outboxes().await;
        let is_listed = listed.is_some();
        // Every rollout is looked at now, whatever has changed until here; what is gone is forgotten.
        let changed = notices.take().into_iter().filter(|id| stores.rollouts.get(&id.namespace, &id.name).is_none());
        changed.for_each(|id| self.look(id));
        self.idle.extend(listed.into_iter().flatten());
        for rollout in stores.rollouts.all() {
            let Ok(rollout) = &rollout.0 else { continue };
            let id = notices::id_of(rollout);
            if is_listed && !self.idle.contains_key(&id) && notices.of(rollout).any() {
                self.idle.insert(id.clone(), Loaded::fresh(rollout));
            }
            self.look(id);
        }
        loop {
            tokio::select! {
                changed = shared.teller.notices.changed() => changed.into_iter().for_each(|id| self.look(id)),
                Some(ended) = self.carriers.join_next() => self.rest(ended),
            }
        }
    }

    /// Waits for requests that are under way.
    async fn finish(&mut self) {
        while self.carriers.join_next().await.is_some() {}
    }

    fn look(&mut self, id: Id) {
        if let Some(touched) = self.under_way.get(&id) {
            return touched.notify_one();
        }
        if !self.has_work(&id) {
            return;
        }
        let touched = Arc::new(Notify::new());
        let carrier = Carrier::new(self.shared.clone(), id.clone(), touched.clone(), self.idle.remove(&id));
        self.under_way.insert(id, touched);
        self.carriers.spawn(carrier.run());
    }

    /// Whether anything is to be done about a rollout; without asking the API server.
    fn has_work(&mut self, id: &Id) -> bool {
        let teller = &self.shared.teller;
        let found = teller.stores.rollouts.get(&id.namespace, &id.name);
        let Some(rollout) = found.as_deref() else {
            self.idle.remove(id);
            teller.notices.forget(id);
            return false;
        };
        let Ok(rollout) = &rollout.0 else { return false };
        let notifiers = teller.notices.of(rollout);
        match self.idle.get(id) {
            Some(loaded) if !loaded.is_new() => {
                let (rollout, outbox) = (seen(rollout), loaded.outbox());
                let is_over = notifiers.nobody() && !rollout.is_behind(&outbox.cursor);
                is_over || loaded.uid.as_deref() != Some(rollout.uid) || !caught_up_with(outbox, rollout)
            }
            _ => notifiers.any(),
        }
    }

    fn rest(&mut self, ended: Result<(Id, Option<Loaded>), tokio::task::JoinError>) {
        match ended {
            Ok((id, loaded)) => {
                self.under_way.remove(&id);
                if let Some(loaded) = loaded {
                    self.idle.insert(id.clone(), loaded);
                }
                // What changed after its last look.
                self.look(id);
            }
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}

impl Shared {
    /// Has the rollout controller look at a rollout.
    fn wake(&self, id: &Id) {
        let Some(target) = target(&id.namespace, &id.name) else { return };
        for (namespace, changed) in &self.teller.changed {
            if namespace.as_deref().is_none_or(|n| n == &*id.namespace) {
                // The other end goes at shutdown.
                let _ = changed.unbounded_send(target.clone());
            }
        }
    }
}
