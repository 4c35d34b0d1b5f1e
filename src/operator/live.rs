//! Live calls of pods: who is asked, when, and what is known. In memory alone; after a restart nothing is known until
//! the first reading, and what is not known is not idle.

mod poll;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::cache::{Change, Id};
use super::kept::PodKept;
use super::stores::Stores;
use crate::api::VoiceRollout;
use crate::api::common::std_duration;
use crate::api::sessions::{ActiveCalls, Sessions};
use crate::core::live::Ledger;
use crate::core::observe::{BudgetSeen, CutSeen, PodSeen, ReplicaSetSeen};
use crate::sources::calls::Readings;

pub use poll::{Poller, REST};

/// Time that a pod is remembered after it is gone.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(15);

/// Readings by rollout.
#[derive(Clone, Default)]
pub struct LiveCalls {
    all: Arc<Mutex<HashMap<Id, Pods>>>,
    poked: Arc<Notify>,
}

#[derive(Default)]
struct Pods {
    ledgers: BTreeMap<String, Tracked>,
}

struct Tracked {
    ledger: Ledger,
    /// When the pod was seen to be gone.
    gone: Option<Timestamp>,
}

impl LiveCalls {
    /// Somebody may be due earlier than was thought.
    pub fn poke(&self) {
        self.poked.notify_one();
    }

    /// A pod of the cache has changed or is gone.
    pub fn look(&self, change: &Change<PodKept>) {
        let Some(rollout) = &change.object.rollout else { return };
        let mut all = self.all.lock();
        let tracked = all.get_mut(&Id::new(&change.id.namespace, rollout)).and_then(|p| p.ledgers.get_mut(&*change.id.name));
        if let Some(tracked) = tracked.filter(|t| t.ledger.uid == *change.object.uid) {
            tracked.ledger.look(change.object.facts);
            drop(all);
            self.poke();
        }
    }

    /// Takes readings over; says whether any of them is news. Pods that are gone for long are forgotten.
    fn read(&self, rollout: &Id, sessions: &Sessions, stores: &Stores, now: Timestamp, readings: Readings) -> bool {
        let (at, since) = (earlier(now, lag(sessions)), oldest(sessions, now));
        let mut all = self.all.lock();
        let pods = all.entry(rollout.clone()).or_default();
        let mut news = false;
        for (name, reading) in readings {
            let Some(pod) = stores.pods.get(&rollout.namespace, &name) else { continue };
            let fresh = || Tracked { ledger: Ledger::new(&pod.uid, pod.revision.as_deref().unwrap_or_default(), pod.facts), gone: None };
            let tracked = pods.ledgers.entry(name).or_insert_with(fresh);
            if tracked.ledger.uid != *pod.uid {
                *tracked = fresh();
            }
            tracked.ledger.look(pod.facts);
            news |= tracked.ledger.read(at, since, reading);
        }
        for (name, tracked) in &mut pods.ledgers {
            let there = stores.pods.get(&rollout.namespace, name).is_some_and(|p| *p.uid == tracked.ledger.uid);
            if !there && tracked.gone.is_none() {
                tracked.gone = Some(now);
                news |= tracked.ledger.cut_at_end() > 0;
            }
        }
        pods.ledgers.retain(|_, t| t.gone.is_none_or(|at| now.duration_since(at) < REMEMBERED));
        news
    }

    /// The rollout is gone, or does not count its calls any more.
    fn retain(&self, keep: impl Fn(&Id) -> bool) {
        self.all.lock().retain(|id, _| keep(id));
    }

    /// Live calls by revision, of pods that are there; for metrics.
    pub fn by_revision(&self, namespace: &str, rollout: &str) -> BTreeMap<String, u64> {
        let all = self.all.lock();
        let mut sums = BTreeMap::new();
        for tracked in all.get(&Id::new(namespace, rollout)).iter().flat_map(|p| p.ledgers.values()).filter(|t| t.gone.is_none()) {
            *sums.entry(tracked.ledger.revision.clone()).or_insert(0) += tracked.ledger.known().unwrap_or(0);
        }
        sums
    }
}

/// Pods of a rollout, and calls that were cut, where its calls are counted; pods with marks in any case.
pub fn pods(
    stores: &Stores,
    live: &LiveCalls,
    rollout: &VoiceRollout,
    sets: &[ReplicaSetSeen],
    now: Timestamp,
) -> (Vec<PodSeen>, Vec<CutSeen>) {
    let sessions = rollout.spec.sessions.as_ref();
    let id = Id::new(&rollout.namespace().unwrap_or_default(), &rollout.name_any());
    let all = live.all.lock();
    let known = all.get(&id);
    let since = sessions.map_or(now, |s| oldest(s, now));
    let there = stores.pods_of(&id.namespace, &id.name);
    let labelled = |pod: &PodKept| sets.iter().find(|s| *s.name == *pod.set).map(|s| s.labelled);
    let ours = there.iter().filter_map(|(id, pod)| Some((id, pod, pod.out(labelled(pod)?))));
    // Marks of a time when calls were counted are taken off.
    let ours = ours.filter(|(_, pod, out)| sessions.is_some() || pod.mark.is_some() || out.is_some());
    let seen = ours.map(|(pod_id, pod, out)| {
        let ledger = known.and_then(|p| p.ledgers.get(&*pod_id.name)).map(|t| &t.ledger).filter(|l| l.uid == *pod.uid);
        PodSeen {
            name: pod_id.name.to_string(),
            hash: pod.revision.clone().unwrap_or_default(),
            ready: pod.ready,
            never_ran: pod.never_ran,
            ending: pod.facts.ending,
            calls: ledger.and_then(|l| l.known_since(since)),
            idle_since: ledger.and_then(|l| l.idle_since(since)),
            unread: ledger.and_then(|l| l.problem()).map(String::from),
            cost: pod.cost,
            mark: pod.mark,
            out,
        }
    });
    let seen = seen.collect();
    let cut = known.iter().flat_map(|p| p.ledgers.iter()).flat_map(|(name, tracked)| cut(name, &tracked.ledger, &there));
    (seen, cut.collect())
}

fn cut(name: &str, ledger: &Ledger, there: &[(Id, Arc<PodKept>)]) -> Vec<CutSeen> {
    let occasion =
        |what: String, calls: u64| CutSeen { id: format!("{}/{what}", ledger.uid), pod: name.into(), hash: ledger.revision.clone(), calls };
    let lost = ledger.lost().iter().map(|(restart, calls)| occasion(format!("restart {restart}"), *calls));
    let gone = !there.iter().any(|(id, pod)| *id.name == *name && *pod.uid == ledger.uid);
    let ended = if gone { ledger.cut_at_end() } else { 0 };
    lost.chain((ended > 0).then(|| occasion("end".into(), ended))).collect()
}

/// A reading older than this counts as none: three more should have come since.
fn oldest(sessions: &Sessions, now: Timestamp) -> Timestamp {
    let http = sessions.active_calls.http.as_ref().map(|h| std_duration(h.timeout));
    let prometheus = sessions.active_calls.prometheus.as_ref().map(|p| std_duration(p.server.timeout));
    let slowest = http.into_iter().chain(prometheus).max().unwrap_or_default();
    earlier(now, std_duration(sessions.interval).saturating_mul(3).saturating_add(slowest).saturating_add(lag(sessions)))
}

/// How old a number may be when it is read: Prometheus has it from the last scrape, a pod itself from now.
fn lag(sessions: &Sessions) -> Duration {
    let ActiveCalls { http, prometheus } = &sessions.active_calls;
    prometheus.as_ref().filter(|_| http.is_none()).map_or(Duration::ZERO, |p| std_duration(p.server.scrape_interval))
}

fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_sub(by).ok()).unwrap_or(Timestamp::MIN)
}

/// PodDisruptionBudgets that are about pods of the rollout.
pub fn budgets(stores: &Stores, rollout: &VoiceRollout, sets: &[ReplicaSetSeen]) -> Vec<BudgetSeen> {
    let namespace = rollout.namespace().unwrap_or_default();
    let uid = rollout.uid().unwrap_or_default();
    let labels: Vec<_> = sets.iter().filter_map(|s| Some((s.hash.clone(), stores.replica_sets.get(&namespace, &s.name)?))).collect();
    let seen = stores.budgets_of(&namespace).into_iter().map(|(id, budget)| BudgetSeen {
        name: id.name.to_string(),
        ours: budget.owners.contains(&uid),
        covers: labels.iter().filter(|(_, set)| budget.covers(&set.labels)).map(|(hash, _)| hash.clone()).collect(),
    });
    seen.filter(|b| b.ours || !b.covers.is_empty()).collect()
}
