//! How pods and their containers have ended, by whose doing, and with how many calls.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde_json::Value;

use super::super::delete::DeleteOptions;
use super::super::evict::was_evicted;
use super::super::store::{Key, uid};
use super::Cluster;
use crate::api::common::REVISION_LABEL;

/// By whose doing a pod or its container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Its ReplicaSet was made smaller.
    Surplus,
    /// Somebody deleted it, or its ReplicaSet.
    Deleted,
    /// Somebody evicted it.
    Evicted,
    /// It was lost with its node.
    Lost,
    /// Its container crashed; the pod is still there.
    Crashed,
}

/// An end of a pod, or of its container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEnd {
    /// When it was asked to end; for one that was not asked, when it ended.
    pub asked: Timestamp,
    /// When it ended.
    pub at: Timestamp,
    /// Its name.
    pub pod: String,
    /// Hash of its revision.
    pub revision: String,
    /// Why.
    pub cause: Cause,
    /// Its live calls when it was asked to end.
    pub calls: u64,
    /// Calls that ended with it.
    pub cut: u64,
}

/// What is known of pods that have not ended yet, by UID.
#[derive(Default)]
pub(super) struct Endings {
    surplus: HashSet<String>,
    lost: HashSet<String>,
    asked: HashMap<String, (Timestamp, u64)>,
}

impl Endings {
    /// The ReplicaSet controller removes the pod.
    pub fn is_surplus(&mut self, pod: &Value) {
        self.surplus.extend(uid(pod).map(ToOwned::to_owned));
    }
}

impl Cluster {
    /// A pod was asked to end.
    pub(super) fn note_asked(&mut self, key: &Key, pod: &Value) {
        let Some(uid) = uid(pod).map(ToOwned::to_owned) else { return };
        let calls = self.shared.book.lock().active.get(&(key.namespace.clone(), key.name.clone())).copied().unwrap_or(0);
        self.endings.asked.entry(uid).or_insert((self.clock.now(), calls as u64));
    }

    /// A pod is gone.
    pub(super) fn note_end(&mut self, key: &Key, last: &Value, cut: u64) {
        let uid = uid(last).unwrap_or_default();
        let lost = self.endings.lost.remove(uid);
        let surplus = self.endings.surplus.remove(uid);
        let cause = match (lost, surplus) {
            (true, _) => Cause::Lost,
            _ if was_evicted(last) => Cause::Evicted,
            (_, true) => Cause::Surplus,
            _ => Cause::Deleted,
        };
        let (asked, calls) = self.endings.asked.remove(uid).unwrap_or((self.clock.now(), cut));
        self.push_end(key, last, cause, asked, (calls, cut));
    }

    /// A pod's container is gone.
    pub(super) fn note_crash(&mut self, key: &Key, pod: &Value, cut: u64) {
        self.push_end(key, pod, Cause::Crashed, self.clock.now(), (cut, cut));
    }

    fn push_end(&self, key: &Key, pod: &Value, cause: Cause, asked: Timestamp, (calls, cut): (u64, u64)) {
        let revision = pod["metadata"]["labels"][REVISION_LABEL].as_str().unwrap_or_default().to_owned();
        let end = PodEnd { asked, at: self.clock.now(), pod: key.name.clone(), revision, cause, calls, cut };
        self.shared.book.lock().endings.push(end);
    }

    /// A pod is gone at once.
    pub(super) fn lose(&mut self, pod: &Key) {
        let Some(object) = self.object(pod) else { return };
        self.endings.lost.extend(uid(&object).map(ToOwned::to_owned));
        self.attempt(pod, |state, key| {
            let Some(resource) = state.resources.get(key.kind).cloned() else { return Ok(()) };
            let now = DeleteOptions { grace: Some(0), ..DeleteOptions::default() };
            state.delete(&resource, &key.namespace, &key.name, &now).map(drop)
        });
    }
}
