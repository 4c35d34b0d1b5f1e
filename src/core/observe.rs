//! What a decision rests on: the world as the operator last saw it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::api::action::Verb;
use crate::api::rollout::TemplateRef;
use crate::api::run::{GateStatus, RunKind, RunPhase};
use crate::api::status::ManagedRoute;
use crate::core::notify::NotificationsSeen;
use crate::core::preflight::Surroundings;
use crate::core::resolve::TemplateContent;
use crate::core::route::{RouteWeights, Split};

/// The world as the operator last saw it.
#[derive(Clone, Debug)]
pub struct Observations {
    /// The time.
    pub now: Timestamp,
    /// The VoiceRollout is being deleted.
    pub deleting: bool,
    /// The finalizer is on it.
    pub finalizer: bool,
    /// Hash of `spec.template`.
    pub target: String,
    /// The whole VoiceRollout, for arguments that name its fields.
    pub rollout: Value,
    /// ReplicaSets of the rollout.
    pub replica_sets: Vec<ReplicaSetSeen>,
    /// Pods of the rollout's ReplicaSets, by name; none where live calls are not counted.
    pub pods: Vec<PodSeen>,
    /// Calls that were live when their pod ended.
    pub cut: Vec<CutSeen>,
    /// PodDisruptionBudgets that are about pods of the rollout.
    pub budgets: Vec<BudgetSeen>,
    /// The stable Service or subset.
    pub stable_arm: ArmSeen,
    /// The canary Service or subset.
    pub canary_arm: ArmSeen,
    /// Managed VirtualServices, in the spec's order.
    pub routes: Vec<RouteSeen>,
    /// How the two arms are told apart in them; `None` where that is not known.
    pub split: Option<Split>,
    /// Routes in `status.managedRoutes` that the spec does not name any more.
    pub left: Vec<LeftRoute>,
    /// Analysis runs whose owner is this rollout, by UID.
    pub runs: Vec<RunSeen>,
    /// Actions that name this rollout and are not marked, oldest first.
    pub actions: Vec<ActionSeen>,
    /// Gate templates that the spec names and that exist.
    pub templates: BTreeMap<(String, bool), TemplateContent>,
    /// Another rollout manages one of the routes or Services, and was there first: which, in one sentence.
    pub rival: Option<String>,
    /// What the preflight looks at beside the spec.
    pub surroundings: Surroundings,
    /// What is known of its notifications.
    pub notifications: NotificationsSeen,
}

impl Observations {
    /// The content of a template.
    pub fn template(&self, reference: &TemplateRef) -> Option<TemplateContent> {
        self.templates.get(&(reference.name.clone(), reference.cluster)).cloned()
    }

    /// The ReplicaSet of a revision.
    pub fn replica_set(&self, hash: &str) -> Option<&ReplicaSetSeen> {
        self.replica_sets.iter().find(|r| r.hash == hash)
    }

    /// The highest canary weight that a readable managed route has, of calls or of buckets, in percent.
    pub fn applied_weight(&self) -> i32 {
        let weights = self.routes.iter().flat_map(|r| r.weights.as_ref().unwrap_or(&r.readable));
        weights.map(|w| i32::try_from(w.given()).unwrap_or(100)).max().unwrap_or(0)
    }
}

/// A ReplicaSet of the rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaSetSeen {
    /// Its name.
    pub name: String,
    /// Hash of its revision.
    pub hash: String,
    /// Number of its revision, from the annotation.
    pub number: i64,
    /// Pods wanted (`spec.replicas`).
    pub wanted: i32,
    /// Pods that exist.
    pub exist: i32,
    /// Pods Ready.
    pub ready: i32,
    /// Pods Ready for `minReadySeconds`.
    pub available: i32,
    /// The ReplicaSet controller has seen the newest `spec.replicas`.
    pub current: bool,
    /// Its pods carry the label that says whether they get new calls.
    pub labelled: bool,
    /// Pods Ready that were taken out of traffic.
    pub out: i32,
    /// Pods that were asked to end, or are about to be, and are still there; where workers pull their jobs.
    pub ending: i32,
}

impl ReplicaSetSeen {
    /// Pods that are Ready and in traffic, once its revision is.
    pub fn serving(&self) -> i32 {
        (self.ready - self.out).max(0)
    }
}

/// A pod of the rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSeen {
    /// Its name.
    pub name: String,
    /// Hash of its revision.
    pub hash: String,
    /// It runs and is Ready.
    pub ready: bool,
    /// None of its containers has ever run: no call can have reached it.
    pub never_ran: bool,
    /// It was asked to end.
    pub ending: bool,
    /// Live calls by a fresh reading; `None`: not known.
    pub calls: Option<u64>,
    /// Since when every reading has found no call; `None` where the last one found some or failed.
    pub idle_since: Option<Timestamp>,
    /// Why its calls are not known, where a reading failed.
    pub unread: Option<String>,
    /// Its deletion cost; 0 without one.
    pub cost: i64,
    /// What we have written on it.
    pub mark: Option<Mark>,
    /// Since when it is out of traffic although its revision is not; the far future where that was not written down.
    pub out: Option<Timestamp>,
}

/// Why live calls are not known, by the first pod that says so.
pub fn unread(pods: &[PodSeen]) -> Option<String> {
    pods.iter().find_map(|p| p.unread.as_ref().map(|why| format!("pod {}: {why}", p.name)))
}

/// What a pod of a revision that drains or gets smaller is marked as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It may carry calls: it goes last, and nobody should evict it.
    Busy,
    /// The last readings have found no call, not yet for `drain.zeroFor`: it goes before those that may carry some.
    Quiet,
    /// It may go.
    Idle,
    /// It goes on getting calls while others of its revision are to go: those go before it.
    Kept,
}

/// Calls that were live when their pod ended or its container restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutSeen {
    /// Identifies the occasion.
    pub id: String,
    /// Name of the pod.
    pub pod: String,
    /// Hash of its revision.
    pub hash: String,
    /// How many.
    pub calls: u64,
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetSeen {
    /// Its name.
    pub name: String,
    /// This operator made it, for this rollout.
    pub ours: bool,
    /// Hashes of revisions whose pods it is about.
    pub covers: Vec<String>,
}

/// A Service or subset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmSeen {
    /// How messages name it, `Service voice-agent-stable`.
    pub name: String,
    /// What is wrong with it, if it cannot be used.
    pub problem: Option<String>,
    /// Revision hash that it selects; `None` when it selects without one.
    pub selects: Option<String>,
    /// It leaves out pods that were taken out of traffic.
    pub labelled: bool,
    /// Ready endpoints by revision hash.
    pub ready: BTreeMap<String, i32>,
}

impl ArmSeen {
    /// It selects `hash`, and has ready endpoints of that revision alone, at least `count` of them.
    pub fn serves(&self, hash: &str, count: i32) -> bool {
        self.problem.is_none()
            && self.selects.as_deref() == Some(hash)
            && self.ready.iter().all(|(h, n)| h == hash || *n == 0)
            && self.ready.get(hash).copied().unwrap_or(0) >= count.max(1)
    }

    /// It has any ready endpoint.
    pub fn has_endpoints(&self) -> bool {
        self.problem.is_none() && self.ready.values().any(|n| *n > 0)
    }
}

/// A managed VirtualService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSeen {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Names of its managed http routes; none: the only one.
    pub names: Vec<String>,
    /// Another rollout, which was there first, manages one of them.
    pub theirs: bool,
    /// The weights of its managed routes, or why they cannot all be read.
    pub weights: Result<Vec<RouteWeights>, String>,
    /// Managed routes that can be read although others of the VirtualService cannot: an abort takes them back all the
    /// same.
    pub readable: Vec<RouteWeights>,
    /// There are generated routes of http routes that are not managed, or cannot be read.
    pub strays: bool,
    /// An http route that takes every call away from a managed one: which, in one sentence.
    pub shadowed: Option<String>,
}

impl RouteSeen {
    /// Every managed route says `canary`, and the rest to stable.
    pub fn says(&self, canary: i32) -> bool {
        !self.strays && self.weights.as_ref().is_ok_and(|all| all.iter().all(|w| w.says(i64::from(canary))))
    }

    /// Some of it is known to give the canary calls, whether or not all of it can be read.
    pub fn gives(&self) -> bool {
        self.strays || self.weights.as_ref().unwrap_or(&self.readable).iter().any(|w| !w.is_clear())
    }
}

/// A managed route that the spec does not name any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftRoute {
    /// Which.
    pub route: ManagedRoute,
    /// Its weights, or why it is not ours to write: it is gone, other than it was, or another rollout's.
    pub weights: Result<RouteWeights, String>,
    /// Its stable destination has a ready pod, or its canary destination has none either.
    pub stable_answers: bool,
}

/// An analysis run of this rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSeen {
    /// Its name.
    pub name: String,
    /// Hash of its spec.
    pub spec_hash: String,
    /// Hash of its gates that count calls.
    pub counting: String,
    /// Revision it judges.
    pub revision: String,
    /// Attempt it belongs to.
    pub attempt: i32,
    /// Kind.
    pub kind: RunKind,
    /// Somebody asked it to stop.
    pub stop: bool,
    /// State.
    pub phase: RunPhase,
    /// Its gates; empty until it was looked at.
    pub gates: Vec<GateStatus>,
    /// When it was made.
    pub created: Option<Timestamp>,
}

/// A person's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionSeen {
    /// Name of the VoiceRolloutAction.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Hash of the revision the person saw.
    pub revision: String,
    /// The step the person saw, as people count; `None`: whichever it is.
    pub step: Option<String>,
    /// The command.
    pub verb: Verb,
    /// Why.
    pub reason: Option<String>,
    /// Who; `None` when nobody vouches for the name.
    pub by: Option<String>,
}
