//! What the caches keep of ReplicaSets, pods and PodDisruptionBudgets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{Selector, SelectorExt};
use kube::{Resource, ResourceExt};

use super::{BUDGET, OWNER, ROLLOUT, label, owners};
use crate::api::common::{
    COST_ANNOTATION, MARK_ANNOTATION, OUT_ANNOTATION, REVISION_LABEL, REVISION_NUMBER_ANNOTATION, ROLLOUT_LABEL, SERVING_LABEL,
};
use crate::core::drain::mark_of;
use crate::core::live::PodFacts;
use crate::core::observe::{Mark, ReplicaSetSeen};
use crate::core::preflight::Sidecar;
use crate::operator::cache::{Kept, group};

/// A ReplicaSet's counts, and whose it is.
pub struct SetKept {
    /// The rollout that its label names.
    pub rollout: Option<String>,
    /// UIDs of its owners.
    pub owners: Vec<String>,
    /// Labels of its pods.
    pub labels: BTreeMap<String, String>,
    /// What is seen of it; `None` without a revision.
    pub seen: Option<ReplicaSetSeen>,
}

impl SetKept {
    /// Of a ReplicaSet.
    pub fn keep(set: &ReplicaSet) -> Self {
        let template = set.spec.template.as_ref().and_then(|t| t.metadata.as_ref());
        let labels = template.and_then(|m| m.labels.clone()).unwrap_or_default();
        let labelled = labels.get(SERVING_LABEL).is_some_and(|v| v == "true");
        let seen = replica_set_seen(set).map(|seen| ReplicaSetSeen { labelled, ..seen });
        Self { rollout: label(set, ROLLOUT_LABEL), owners: owners(set), labels, seen }
    }
}

impl Kept for SetKept {
    fn groups(&self, namespace: &str) -> Vec<String> {
        self.owners.iter().map(|uid| group(OWNER, namespace, uid)).collect()
    }
}

fn replica_set_seen(set: &ReplicaSet) -> Option<ReplicaSetSeen> {
    let status = set.status.as_ref();
    Some(ReplicaSetSeen {
        name: set.name_any(),
        hash: label(set, REVISION_LABEL)?,
        number: set.annotations().get(REVISION_NUMBER_ANNOTATION).and_then(|n| n.parse().ok()).unwrap_or(0),
        wanted: set.spec.replicas.unwrap_or(1),
        exist: status.map_or(0, |s| s.replicas),
        ready: status.and_then(|s| s.ready_replicas).unwrap_or(0),
        available: status.and_then(|s| s.available_replicas).unwrap_or(0),
        current: status.and_then(|s| s.observed_generation) == set.meta().generation && set.meta().deletion_timestamp.is_none(),
        ..ReplicaSetSeen::default()
    })
}

/// Whose a pod is, where it is reached, and how it lives.
pub struct PodKept {
    /// Its rollout.
    pub rollout: Option<String>,
    /// Its revision.
    pub revision: Option<String>,
    /// Its UID.
    pub uid: Box<str>,
    /// Name of the ReplicaSet that controls it; empty for none.
    pub set: Box<str>,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// It runs and is Ready.
    pub ready: bool,
    /// None of its containers has ever run.
    pub never_ran: bool,
    /// All of its containers have ended for good.
    pub over: bool,
    /// How it lives and ends.
    pub facts: PodFacts,
    /// Its deletion cost; 0 without one.
    pub cost: i64,
    /// What we have written on it.
    pub mark: Option<Mark>,
    /// Its label says that it gets new calls.
    pub serving: bool,
    /// Since when it is out of traffic, as was written down.
    pub out_since: Option<Timestamp>,
    /// The proxy that was injected into it.
    pub sidecar: Sidecar,
}

impl PodKept {
    /// Of a pod.
    pub fn keep(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let containers = || status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        let ended = |c: &ContainerStatus| c.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
        let started =
            |c: &ContainerStatus| c.restart_count > 0 || c.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some());
        let condition =
            |name: &str| status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == name && c.status == "True");
        let phase = status.and_then(|s| s.phase.as_deref());
        let set = pod.owner_references().iter().find(|o| o.controller == Some(true) && o.kind == "ReplicaSet");
        let annotation = |key: &str| pod.annotations().get(key).map(String::as_str);
        Self {
            rollout: label(pod, ROLLOUT_LABEL),
            revision: label(pod, REVISION_LABEL),
            uid: pod.uid().unwrap_or_default().into(),
            set: set.map(|o| o.name.as_str()).unwrap_or_default().into(),
            ip: status.and_then(|s| s.pod_ip.as_ref()).and_then(|ip| ip.parse().ok()),
            ready: phase == Some("Running") && condition("Ready"),
            never_ran: phase.is_none_or(|p| p == "Pending") && !containers().any(started),
            over: matches!(phase, Some("Succeeded" | "Failed")),
            facts: PodFacts {
                ending: pod.meta().deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed")),
                restarts: containers().map(|c| c.restart_count).sum(),
                ended_well: containers().next().is_some() && containers().all(|c| ended(c) == Some(0)),
                pre_stop: pod.spec.iter().flat_map(|s| &s.containers).filter_map(pre_stop).max().unwrap_or(0),
            },
            cost: annotation(COST_ANNOTATION).and_then(|c| c.parse().ok()).unwrap_or(0),
            mark: annotation(MARK_ANNOTATION).map(mark_of),
            serving: pod.labels().get(SERVING_LABEL).is_some_and(|v| v == "true"),
            out_since: annotation(OUT_ANNOTATION).and_then(|at| at.parse().ok()),
            sidecar: Sidecar::of_pod(pod.annotations()),
        }
    }
}

fn pre_stop(container: &Container) -> Option<i64> {
    Some(container.lifecycle.as_ref()?.pre_stop.as_ref()?.sleep.as_ref()?.seconds)
}

impl PodKept {
    /// Since when it is out of traffic although its revision is not, where selectors go by the label (`labelled`); the far
    /// future where that was not written down.
    pub fn out(&self, labelled: bool) -> Option<Timestamp> {
        (labelled && !self.serving).then(|| self.out_since.unwrap_or(Timestamp::MAX))
    }
}

impl Kept for PodKept {
    fn groups(&self, namespace: &str) -> Vec<String> {
        self.rollout.iter().map(|r| group(ROLLOUT, namespace, r)).collect()
    }
}

/// A PodDisruptionBudget's selector, and whose it is.
pub struct BudgetKept {
    /// The rollout that it was made for.
    pub rollout: Option<String>,
    /// UIDs of its owners.
    pub owners: Vec<String>,
    /// Without one it is about no pod; one without terms is about all.
    selector: Option<Selector>,
}

impl BudgetKept {
    /// Of a PodDisruptionBudget.
    pub fn keep(budget: &PodDisruptionBudget) -> Self {
        // One that does not parse was never accepted.
        let selector = budget.spec.as_ref().and_then(|s| s.selector.clone()).and_then(|s| Selector::try_from(s).ok());
        Self { rollout: label(budget, ROLLOUT_LABEL), owners: owners(budget), selector }
    }

    /// It is about pods with these labels.
    pub fn covers(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.as_ref().is_some_and(|s| s.matches(labels))
    }
}

impl Kept for BudgetKept {
    fn groups(&self, namespace: &str) -> Vec<String> {
        vec![group(BUDGET, namespace, "")]
    }
}
