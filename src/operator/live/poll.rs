//! Asks pods for their live calls: often while a release or a drain is under way, now and then at rest. A rollout whose
//! pods answer slowly delays no other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use kube::ResourceExt;
use tokio::time::Instant;

use super::LiveCalls;
use crate::api::VoiceRollout;
use crate::api::common::std_duration;
use crate::api::status::{Phase, Role};
use crate::metrics::Metrics;
use crate::operator::cache::Id;
use crate::operator::clock::Clock;
use crate::operator::leadership::Leadership;
use crate::operator::stores::{Stores, Target, target};
use crate::sources::calls::{CallCounter, CallsQuestion, PodAddress};

/// Time between two readings of a rollout at rest.
pub const REST: Duration = Duration::from_secs(60);
/// Time between two readings while a pod ends: how its last call ends is seen.
const ENDING: Duration = Duration::from_secs(1);
/// Time between two looks at whether this process leads.
const STANDBY: Duration = Duration::from_secs(2);

/// What the poller works with.
pub struct Poller {
    /// The caches.
    pub stores: Arc<Stores>,
    /// Where readings go.
    pub live: LiveCalls,
    /// Asks the pods.
    pub counter: Arc<dyn CallCounter>,
    /// Only the leader asks.
    pub leadership: Leadership,
    /// The time.
    pub clock: Clock,
    /// Figures for Prometheus.
    pub metrics: Arc<Metrics>,
    /// Whom to tell that a rollout is to be looked at, by watched namespace; `None`: all.
    pub changed: Vec<(Option<String>, UnboundedSender<Target>)>,
}

impl Poller {
    /// Asks until the future is dropped.
    pub async fn run(self) {
        let mut last: HashMap<Id, Instant> = HashMap::new();
        let mut rounds: FuturesUnordered<BoxFuture<'_, Id>> = FuturesUnordered::new();
        let mut asking: HashSet<Id> = HashSet::new();
        loop {
            let next = if self.leadership.claimed() {
                let (due, next) = self.due(&mut last, &asking);
                for (id, rollout) in due {
                    asking.insert(id.clone());
                    rounds.push(self.round(id, rollout).boxed());
                }
                next
            } else {
                Instant::now() + STANDBY
            };
            tokio::select! {
                Some(done) = rounds.next() => drop(asking.remove(&done)),
                () = tokio::time::sleep_until(next) => {}
                () = self.live.poked.notified() => {}
            }
        }
    }

    /// Rollouts whose time has come, and that are not being asked; and when the next one's comes.
    fn due(&self, last: &mut HashMap<Id, Instant>, asking: &HashSet<Id>) -> (Vec<(Id, VoiceRollout)>, Instant) {
        let now = Instant::now();
        let all = self.stores.rollouts.all();
        let counted = all.iter().filter_map(|g| g.0.as_ref().ok()).filter(|r| r.spec.sessions.is_some());
        let named: Vec<(Id, &VoiceRollout)> = counted.map(|r| (Id::new(&r.namespace().unwrap_or_default(), &r.name_any()), r)).collect();
        let ids: HashSet<&Id> = named.iter().map(|(id, _)| id).collect();
        last.retain(|id, _| ids.contains(id));
        self.live.retain(|id| ids.contains(id));
        let (mut due, mut next) = (Vec::new(), now + REST);
        for (id, rollout) in named.into_iter().filter(|(id, _)| !asking.contains(id)) {
            let pace = self.pace(&id, rollout);
            let at = last.get(&id).map_or(now, |at| *at + pace);
            if at <= now {
                last.insert(id.clone(), now);
                due.push((id, rollout.clone()));
                next = next.min(now + pace);
            } else {
                next = next.min(at);
            }
        }
        (due, next)
    }

    fn pace(&self, id: &Id, rollout: &VoiceRollout) -> Duration {
        let interval = rollout.spec.sessions.as_ref().map_or(REST, |s| std_duration(s.interval));
        let Some(status) = &rollout.status else { return interval };
        let sets = status.revisions.iter();
        let drains = sets.clone().any(|r| r.role == Role::Draining || r.shrinking_since.is_some());
        let busy = drains || !matches!(status.phase, Phase::Healthy | Phase::Degraded | Phase::Invalid);
        let ending = || self.stores.pods_of(&id.namespace, &id.name).iter().any(|(_, p)| p.facts.ending);
        match (drains, busy) {
            (true, _) if ending() => interval.min(ENDING),
            (_, true) => interval,
            _ if ending() => interval.min(ENDING),
            _ => REST.max(interval),
        }
    }

    /// One reading of all pods of a rollout.
    async fn round(&self, id: Id, rollout: VoiceRollout) -> Id {
        let Some(sessions) = &rollout.spec.sessions else { return id };
        let pods = self.stores.pods_of(&id.namespace, &id.name);
        let running = pods.iter().filter(|(_, pod)| !pod.never_ran);
        let question = CallsQuestion {
            namespace: id.namespace.to_string(),
            rollout: id.name.to_string(),
            active: sessions.active_calls.clone(),
            pods: running.map(|(pod_id, pod)| PodAddress { name: pod_id.name.to_string(), ip: pod.ip }).collect(),
        };
        let readings = self.counter.count(&question).await;
        let news = self.live.read(&id, sessions, &self.stores, self.clock.now(), readings);
        self.metrics.calls.observe_live(&id.namespace, &id.name, self.live.by_revision(&id.namespace, &id.name));
        if news {
            self.tell(&id);
        }
        id
    }

    fn tell(&self, id: &Id) {
        let Some(target) = target(&id.namespace, &id.name) else { return };
        let scope = self.changed.iter().find(|(scope, _)| scope.as_deref().is_none_or(|s| s == &*id.namespace));
        if let Some((_, changed)) = scope {
            // The other end goes at shutdown.
            let _ = changed.unbounded_send(target);
        }
    }
}
