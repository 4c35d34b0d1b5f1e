//! Which pods of a revision may go, and when. Pods that talk stay; idle ones go first.
//!
//! A ReplicaSet is reduced by a number, and its controller picks the pods: not running ones first, then not ready ones,
//! then by deletion cost, then by age (`controller.kubernetes.io/pod-deletion-cost`, Kubernetes 1.22 and later). A pod
//! that talks and is not ready would therefore go before an idle one that is. So the number is lowered only while all
//! pods run and are ready, and the costs have been read back; otherwise all stay until all are idle.
//!
//! A revision that goes on getting calls gets smaller the same way: as many pods as are too many are taken out of traffic
//! first, those with the fewest calls, and only they may go.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::sessions::OnMaxDrain;
use crate::core::intent::Intent;
use crate::core::observe::{Mark, PodSeen, ReplicaSetSeen};

#[cfg(test)]
mod tests;

/// Deletion cost of a pod with this mark. That of an idle one is also that of a pod without the annotation.
///
/// The ReplicaSet controller may not have seen the newest costs when it picks. A pod that turns idle was quiet for
/// `drain.zeroFor`, so that what it was marked as then sets it apart from those that talk.
pub fn cost(mark: Mark) -> i64 {
    match mark {
        Mark::Kept => 2000,
        Mark::Busy => 1000,
        Mark::Quiet => 500,
        Mark::Idle => 0,
    }
}

/// Which pods get no new calls. Idleness counts from when none could come.
#[derive(Clone, Copy, Debug)]
pub enum Quiet {
    /// All of them, since then: their revision is out of traffic.
    All(Timestamp),
    /// Those that were taken out of traffic, each for itself.
    Out {
        /// How long after that calls may still be on their way.
        spread: Duration,
        /// `drain.maxDrain`, from that on.
        longest: Duration,
        /// Until then nobody is chosen whose calls are not known yet: at rest they are read now and then only.
        choose_by: Timestamp,
    },
}

/// A ReplicaSet that has more pods than it should.
#[derive(Clone, Debug)]
pub struct Shrink<'a> {
    /// The time.
    pub now: Timestamp,
    /// The ReplicaSet.
    pub set: &'a ReplicaSetSeen,
    /// Its pods.
    pub pods: &'a [&'a PodSeen],
    /// Pods that it should have.
    pub floor: i32,
    /// Which of them get no new calls.
    pub quiet: Quiet,
    /// No pod goes before.
    pub earliest: Timestamp,
    /// `drain.maxDrain` has passed then; not for pods that are out of traffic by themselves.
    pub deadline: Timestamp,
    /// Length of idleness after which a pod may go.
    pub zero_for: Duration,
    /// Live calls are counted.
    pub counted: bool,
    /// What happens at the deadline to pods that may carry calls.
    pub on_deadline: OnMaxDrain,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// Pods that the ReplicaSet is to have.
    pub replicas: i32,
    /// What each pod is; none where enough of them go already.
    pub marks: Vec<Marked>,
    /// The deadline has passed with pods that may carry calls.
    pub overdue: bool,
    /// Names of those pods.
    pub late: Vec<String>,
    /// When time alone changes the answer.
    pub wake_at: Option<Timestamp>,
}

/// What a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// Its name.
    pub name: String,
    /// What to mark it as.
    pub mark: Mark,
    /// Whether to take it out of traffic although its revision is not.
    pub out: bool,
}

impl Shrink<'_> {
    /// Decides.
    pub fn decide(&self) -> Shrunk {
        if self.set.wanted <= self.floor {
            // Its pods are on their way.
            return Shrunk { replicas: self.set.wanted, marks: Vec::new(), overdue: false, late: Vec::new(), wake_at: None };
        }
        let (leaving, kept) = self.parted();
        let marks = leaving.iter().map(|p| self.marked(p, true)).chain(kept.iter().map(|p| self.marked(p, false)));
        let talks = |p: &&&PodSeen| self.is_late(p) && (self.mark(p) != Mark::Idle || !self.counted);
        let late: Vec<String> = leaving.iter().filter(talks).map(|p| p.name.clone()).collect();
        let past = matches!(self.quiet, Quiet::All(_)) && self.now >= self.deadline;
        let mut answer = Shrunk {
            replicas: self.set.wanted,
            marks: marks.collect(),
            overdue: !late.is_empty() || (past && !self.counted),
            late,
            wake_at: self.wake_at(&leaving),
        };
        if self.now < self.earliest {
            return answer;
        }
        let (gone, stay): (Vec<&PodSeen>, Vec<&PodSeen>) = leaving.iter().partition(|p| self.may_go(p));
        if past && self.on_deadline == OnMaxDrain::Terminate {
            answer.replicas = self.floor;
        } else if self.counted {
            answer.replicas = self.without(&gone, &stay, &kept);
        }
        answer
    }

    /// Pods that are to go, and those that stay. Those that stay are ready where there are enough of them, and are not
    /// changed for others without need.
    fn parted(&self) -> (Vec<&PodSeen>, Vec<&PodSeen>) {
        let mut living: Vec<&PodSeen> = self.pods.iter().copied().filter(|p| !p.ending).collect();
        let Quiet::Out { choose_by, .. } = self.quiet else { return (living, Vec::new()) };
        let calls = |p: &PodSeen| p.calls.unwrap_or(u64::MAX);
        living.sort_by_key(|p| (p.ready, p.out.is_none(), calls(p), p.idle_since, p.name.clone()));
        // Of the pods that there are: one that is missing needs nobody's place.
        let mut surplus = living.len().saturating_sub(usize::try_from(self.floor).unwrap_or(0));
        if self.now < choose_by && living.iter().any(|p| p.ready && p.calls.is_none()) {
            surplus = surplus.min(living.iter().filter(|p| !p.ready || p.out.is_some()).count());
        }
        let kept = living.split_off(surplus);
        (living, kept)
    }

    /// `drain.maxDrain` has passed for this pod.
    fn is_late(&self, pod: &PodSeen) -> bool {
        match self.quiet {
            Quiet::All(_) => self.now >= self.deadline,
            Quiet::Out { longest, .. } => pod.out.is_some_and(|at| self.now >= later(at, longest)),
        }
    }

    /// Nothing is lost with it, or it has had its time.
    fn may_go(&self, pod: &PodSeen) -> bool {
        let idle = self.mark(pod) == Mark::Idle;
        match self.quiet {
            Quiet::All(_) => idle,
            Quiet::Out { .. } => pod.out.is_some() && (idle || (self.is_late(pod) && self.on_deadline == OnMaxDrain::Terminate)),
        }
    }

    fn marked(&self, pod: &PodSeen, leaves: bool) -> Marked {
        let out = match self.quiet {
            Quiet::All(_) => pod.out.is_some(),
            Quiet::Out { .. } => leaves,
        };
        let mark = match leaves {
            false => Mark::Kept,
            true if self.may_go(pod) => Mark::Idle,
            true => self.mark(pod),
        };
        Marked { name: pod.name.clone(), mark, out }
    }

    /// Idle is a pod when every reading of `zero_for` has found no call, since none could come any more.
    fn mark(&self, pod: &PodSeen) -> Mark {
        match self.idle_at(pod) {
            _ if pod.never_ran => Mark::Idle,
            Some(at) if self.now >= at => Mark::Idle,
            Some(_) => Mark::Quiet,
            None => Mark::Busy,
        }
    }

    fn idle_at(&self, pod: &PodSeen) -> Option<Timestamp> {
        let quiet_since = match self.quiet {
            Quiet::All(at) => at,
            Quiet::Out { spread, .. } => later(pod.out?, spread),
        };
        pod.idle_since.map(|since| later(since.max(quiet_since), self.zero_for))
    }

    /// The size at which the ReplicaSet gives up `gone`, or a part of them, and nobody else.
    fn without(&self, gone: &[&PodSeen], busy: &[&PodSeen], kept: &[&PodSeen]) -> i32 {
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let all = count(gone.len() + busy.len() + kept.len());
        // Pods that the cache does not show yet may carry calls.
        let all_seen = self.set.current && all >= self.set.exist;
        if !all_seen {
            return self.set.wanted;
        }
        if busy.is_empty() && kept.is_empty() && self.floor == 0 {
            return 0;
        }
        let stay: Vec<&PodSeen> = busy.iter().chain(kept).copied().collect();
        // One that may go and is not ready goes first in any case.
        let settled = all == self.set.wanted && stay.iter().all(|p| p.ready);
        if settled && told_apart(gone, &stay) { count(stay.len()).max(self.floor) } else { self.set.wanted }
    }

    fn wake_at(&self, leaving: &[&PodSeen]) -> Option<Timestamp> {
        let ripe = leaving.iter().filter_map(|p| self.idle_at(p));
        let (common, late): (Vec<Timestamp>, Vec<Timestamp>) = match self.quiet {
            Quiet::All(_) => (vec![self.earliest, self.deadline], Vec::new()),
            Quiet::Out { longest, choose_by, .. } => {
                (vec![choose_by], leaving.iter().filter_map(|p| Some(later(p.out?, longest))).collect())
            }
        };
        ripe.chain(common).chain(late).filter(|t| *t > self.now).min()
    }
}

/// By the costs that have been read back, `first` go before `then`.
fn told_apart(first: &[&PodSeen], then: &[&PodSeen]) -> bool {
    let dearest = first.iter().map(|p| p.cost).max();
    let cheapest = then.iter().map(|p| p.cost).min();
    match (dearest, cheapest) {
        (Some(first), Some(then)) => first < then,
        _ => true,
    }
}

/// A mark as it stands on a pod.
pub fn mark_word(mark: Mark) -> &'static str {
    match mark {
        Mark::Busy => "busy",
        Mark::Quiet => "quiet",
        Mark::Idle => "idle",
        Mark::Kept => "kept",
    }
}

/// The mark that a pod carries. A word that is none was not written by us: it says nothing of calls.
pub fn mark_of(word: &str) -> Mark {
    [Mark::Quiet, Mark::Idle, Mark::Kept].into_iter().find(|mark| mark_word(*mark) == word).unwrap_or(Mark::Busy)
}

/// What to write on a pod that should be marked so, and be in traffic or `out` of it; `None` where it says so already.
pub fn remark(pod: &PodSeen, mark: Option<Mark>, out: bool) -> Option<Intent> {
    let cost_right = mark.is_none_or(|mark| pod.cost == cost(mark));
    let out_right = if out { pod.out.is_some_and(|at| at < Timestamp::MAX) } else { pod.out.is_none() };
    let wrong = pod.mark != mark || !out_right || !cost_right;
    (!pod.ending && wrong).then(|| Intent::MarkPod { name: pod.name.clone(), mark, out })
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
}
