//! Revisions with more pods than they should have: their calls are waited for, and counted where they are cut.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{Machine, after};
use crate::api::sessions::OnMaxDrain;
use crate::api::status::{RevisionStatus, Role};
use crate::core::drain::{Quiet, Shrink, Shrunk, remark};
use crate::core::intent::Intent;
use crate::core::observe::{BudgetSeen, Observations, PodSeen, ReplicaSetSeen, unread};

/// Occasions of cut calls that a revision remembers, so that each counts once.
const MAX_CUT: usize = 100;

impl Machine<'_> {
    /// Calls that were live when their pod ended.
    pub(super) fn note_cut(&mut self) {
        let seen = self.seen;
        let mut told = Vec::new();
        for revision in &mut self.s.revisions {
            let new: Vec<_> = seen.cut.iter().filter(|c| c.hash == revision.hash && !revision.cut.contains(&c.id)).collect();
            if new.is_empty() {
                continue;
            }
            let calls: u64 = new.iter().map(|c| c.calls).sum();
            let pods: Vec<&str> = new.iter().map(|c| c.pod.as_str()).collect();
            revision.calls_cut = revision.calls_cut.saturating_add(i64::try_from(calls).unwrap_or(i64::MAX));
            revision.cut.extend(new.iter().map(|c| c.id.clone()));
            let surplus = revision.cut.len().saturating_sub(MAX_CUT);
            revision.cut.drain(..surplus);
            told.push(format!("{calls} live calls of revision {} ended with their pods: {}", revision.hash, pods.join(", ")));
        }
        for reason in told {
            self.record("CallsCut", reason, None, true);
        }
    }

    /// Pods that a ReplicaSet gets which has more than `floor`; `live` while its revision gets new calls.
    pub(super) fn shrunk(&mut self, set: &ReplicaSetSeen, floor: i32, live: bool) -> i32 {
        let now = MicroTime(self.now());
        if live && !self.plan.counted {
            return floor;
        }
        let Some(revision) = self.s.revisions.iter_mut().find(|r| r.hash == set.hash) else { return set.wanted };
        let times = if live {
            let since = revision.shrinking_since.get_or_insert(now).clone();
            // Workers that pull their jobs cannot be taken out of traffic.
            let apart = set.labelled && !self.plan.by_workers;
            let out =
                Quiet::Out { spread: self.plan.propagation, longest: self.plan.max_drain, choose_by: after(&since, self.plan.zero_for) };
            let quiet = if apart { out } else { Quiet::All(since.0) };
            (quiet, since.0, after(&since, self.plan.max_drain))
        } else {
            let Some(retired) = revision.retired_at.clone() else { return set.wanted };
            let keep = Duration::from_secs(u64::try_from(revision.keep_seconds).unwrap_or(0));
            // A call that was on its way when the weight went needs as long as a change of routes.
            (Quiet::All(after(&retired, self.plan.propagation)), after(&retired, keep), after(&retired, keep.max(self.plan.max_drain)))
        };
        let (quiet, earliest, deadline) = times;
        let pods = pods_of(self.seen, &set.hash);
        let answer = Shrink {
            now: self.now(),
            set,
            pods: &pods,
            floor,
            quiet,
            earliest,
            deadline,
            zero_for: self.plan.zero_for,
            counted: self.plan.counted,
            on_deadline: self.plan.on_max_drain,
        }
        .decide();
        self.wakes.extend(answer.wake_at);
        self.mark(&pods, &answer);
        self.note_overdue(set, &answer);
        answer.replicas
    }

    fn mark(&mut self, pods: &[&PodSeen], answer: &Shrunk) {
        for marked in &answer.marks {
            let pod = pods.iter().find(|p| p.name == marked.name);
            self.intents.extend(pod.and_then(|pod| remark(pod, Some(marked.mark), marked.out)));
        }
    }

    /// Takes the marks off pods of a revision that is as large as it should be, and puts all of them into traffic.
    pub(super) fn unmark(&mut self, hash: &str) {
        if let Some(revision) = self.s.revisions.iter_mut().find(|r| r.hash == hash) {
            revision.shrinking_since = None;
            revision.overdue = false;
        }
        for pod in pods_of(self.seen, hash) {
            self.intents.extend(remark(pod, None, false));
        }
    }

    /// Tells once that `drain.maxDrain` has passed.
    fn note_overdue(&mut self, set: &ReplicaSetSeen, answer: &Shrunk) {
        let Some(revision) = self.s.revisions.iter_mut().find(|r| r.hash == set.hash) else { return };
        if !answer.overdue || revision.overdue {
            return;
        }
        revision.overdue = true;
        let late: Vec<&PodSeen> = pods_of(self.seen, &set.hash).into_iter().filter(|p| answer.late.contains(&p.name)).collect();
        let talking: u64 = late.iter().filter_map(|p| p.calls).sum();
        let unknown = late.iter().filter(|p| p.calls.is_none()).count();
        let what = match (self.plan.counted, unknown) {
            (false, _) => format!("{} pods whose calls are not counted", set.wanted),
            (true, 0) => format!("{talking} live calls"),
            (true, n) => format!("{talking} live calls, and {n} pods whose calls are not known"),
        };
        let then = match self.plan.on_max_drain {
            OnMaxDrain::Terminate => "the pods end now",
            OnMaxDrain::Keep => "the pods stay until they are idle",
        };
        let span = self.plan.max_drain.as_secs();
        self.record("DrainOverdue", format!("revision {} has {what} after drain.maxDrain ({span} s): {then}", set.hash), None, true);
    }

    /// Pods that drain are not to be evicted; where a user's own PodDisruptionBudget is about them, a second one would
    /// make every eviction fail, theirs too.
    pub(super) fn keep_budgets(&mut self) {
        let seen = self.seen;
        // A pod that was asked to end cannot be kept from ending.
        let stays = !self.plan.by_workers;
        let drains = |r: &&RevisionStatus| stays && r.retired_at.is_some() && seen.replica_set(&r.hash).is_some_and(|s| s.exist > 0);
        let draining: Vec<String> = self.s.revisions.iter().filter(drains).map(|r| r.hash.clone()).collect();
        let theirs = |hash: &String| seen.budgets.iter().any(|b| !b.ours && b.covers.contains(hash));
        let name = |hash: &String| format!("{}-{hash}-drain", self.subject.name);
        let wanted: Vec<(String, &String)> = draining.iter().filter(|h| !theirs(h)).map(|h| (name(h), h)).collect();
        let missing = wanted.iter().filter(|(name, _)| !seen.budgets.iter().any(|b| b.name == *name));
        let unwanted = seen.budgets.iter().filter(|b: &&BudgetSeen| b.ours && !wanted.iter().any(|(name, _)| *name == b.name));
        let create = missing.map(|(name, hash)| Intent::CreateBudget { name: name.clone(), hash: (*hash).clone() });
        self.intents.extend(create);
        self.intents.extend(unwanted.map(|b| Intent::DeleteBudget { name: b.name.clone() }));
    }

    /// Waits, before anything else is waited for, while the canary's pods would make one revision too many.
    pub(super) fn heed_room(&mut self) {
        let canary = self.canary().to_string();
        let has_pods = self.seen.replica_set(&canary).is_some_and(|s| s.wanted > 0);
        let alone = self.s.stable_revision.is_none();
        let wanted = (self.in_release() || alone && !canary.is_empty())
            && self.s.abort.is_none()
            && self.blocked().is_none()
            && !has_pods
            && self.canary_need() > 0;
        if wanted && let Some(what) = self.full(&canary) {
            self.wait(what, false);
        }
    }

    /// Revisions with pods are as many as there may be; `hash` would be one more. Says which ones are waited for.
    pub(super) fn full(&self, hash: &str) -> Option<String> {
        let others: Vec<&ReplicaSetSeen> =
            self.seen.replica_sets.iter().filter(|s| s.hash != hash && (s.wanted > 0 || s.exist > 0 || s.ending > 0)).collect();
        let full = i32::try_from(others.len()).unwrap_or(i32::MAX) >= self.plan.max_live;
        let stable = self.s.stable_revision.as_deref();
        let draining: Vec<&str> = others.iter().map(|s| s.hash.as_str()).filter(|h| Some(*h) != stable).collect();
        full.then(|| format!("revision {} to drain: maxLiveRevisions allows {} with pods", draining.join(" or "), self.plan.max_live))
    }

    /// Live calls, for people; while nothing is released and nothing drains they are no news.
    pub(super) fn show_calls(&mut self) {
        let released = self.in_release() && self.s.abort.is_none();
        let busy = released || self.s.revisions.iter().any(|r| r.role == Role::Draining || r.shrinking_since.is_some());
        let show = self.plan.counted && busy && !self.seen.deleting;
        let seen = self.seen;
        let mut texts = Vec::new();
        for revision in &mut self.s.revisions {
            let pods = || seen.pods.iter().filter(|p| show && p.hash == revision.hash && !p.never_ran);
            let calls: u64 = pods().filter_map(|p| p.calls).sum();
            let read = pods().any(|p| p.calls.is_some());
            revision.live_calls = read.then(|| i64::try_from(calls).unwrap_or(i64::MAX));
            revision.unread_pods = i32::try_from(pods().filter(|p| p.calls.is_none()).count()).unwrap_or(i32::MAX);
            let unread = if revision.unread_pods > 0 { format!(" + {} unread", revision.unread_pods) } else { String::new() };
            if read || revision.unread_pods > 0 {
                texts.push(format!("v{} {calls}{unread}", revision.number));
            }
        }
        self.s.live_calls = texts.join(", ");
    }

    /// Revisions that drain, in one sentence, without numbers that change from reading to reading.
    pub(super) fn draining_text(&self) -> Option<String> {
        let drains = self.s.revisions.iter().filter(|r| r.role == Role::Draining);
        let text = |r: &RevisionStatus| {
            if self.plan.by_workers {
                let when = "when its calls have ended, after its terminationGracePeriodSeconds at the latest";
                return format!("revision {} takes no new calls, and each of its pods ends {when}", r.hash);
            }
            let until = r.retired_at.as_ref().map(|at| {
                let keep = Duration::from_secs(u64::try_from(r.keep_seconds).unwrap_or(0));
                after(at, keep.max(self.plan.max_drain))
            });
            let until = match (until, self.plan.on_max_drain) {
                (Some(at), OnMaxDrain::Terminate) => format!(", until {} at the latest", whole_second(at)),
                _ => String::new(),
            };
            format!("revision {} keeps its pods for the calls they carry{until}", r.hash)
        };
        let all: Vec<String> = drains.map(text).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Why live calls are not known, by the first pod that says so; `None` while nothing is read.
    pub(super) fn calls_readable(&self) -> Option<Result<(), String>> {
        match unread(&self.seen.pods) {
            Some(why) => Some(Err(why)),
            None => self.seen.pods.iter().any(|p| p.calls.is_some()).then_some(Ok(())),
        }
    }
}

fn pods_of<'a>(seen: &'a Observations, hash: &str) -> Vec<&'a PodSeen> {
    seen.pods.iter().filter(|p| p.hash == hash).collect()
}

fn whole_second(at: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_second(at.as_second()).unwrap_or(at)
}
