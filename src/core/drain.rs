//! Which pods of a revision may go, and when. Pods that talk stay; idle ones go first.
//!
//! A ReplicaSet is reduced by a number, and its controller picks the pods: not running ones first, then not ready ones,
//! then by deletion cost, then by age (`controller.kubernetes.io/pod-deletion-cost`, Kubernetes 1.22 and later). A pod
//! that talks and is not ready would therefore go before an idle one that is. So the number is lowered only while all
//! pods run and are ready, and the costs have been read back; otherwise all stay until all are idle.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::sessions::OnMaxDrain;
use crate::core::observe::{Mark, PodSeen, ReplicaSetSeen};

/// Deletion cost of a pod with this mark. That of an idle one is also that of a pod without the annotation.
///
/// The ReplicaSet controller may not have seen the newest costs when it picks. A pod that turns idle was quiet for
/// `drain.zeroFor`, so that what it was marked as then sets it apart from those that talk.
pub fn cost(mark: Mark) -> i64 {
    match mark {
        Mark::Busy => 1000,
        Mark::Quiet => 500,
        Mark::Idle => 0,
    }
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
    /// No call has reached it since; idleness before it does not count.
    pub quiet_since: Timestamp,
    /// No pod goes before.
    pub earliest: Timestamp,
    /// `drain.maxDrain` has passed then.
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
    /// What each pod is, by name.
    pub marks: Vec<(String, Mark)>,
    /// The deadline has passed with pods that may carry calls.
    pub overdue: bool,
    /// When time alone changes the answer.
    pub wake_at: Option<Timestamp>,
}

impl Shrink<'_> {
    /// Decides.
    pub fn decide(&self) -> Shrunk {
        let living = || self.pods.iter().filter(|p| !p.ending);
        let (idle, busy): (Vec<&PodSeen>, Vec<&PodSeen>) = living().partition(|p| self.mark(p) == Mark::Idle);
        let late = self.now >= self.deadline;
        let mut answer = Shrunk {
            replicas: self.set.wanted,
            marks: living().map(|p| (p.name.clone(), self.mark(p))).collect(),
            overdue: late && (!busy.is_empty() || !self.counted) && self.set.wanted > self.floor,
            wake_at: None,
        };
        if self.set.wanted <= self.floor {
            return answer;
        }
        let may_end = late && self.on_deadline == OnMaxDrain::Terminate;
        if may_end && self.now >= self.earliest {
            answer.replicas = self.floor;
        } else if self.now >= self.earliest && self.counted {
            answer.replicas = self.without_idle(&idle, &busy);
        }
        answer.wake_at = self.wake_at();
        answer
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
        pod.idle_since.map(|since| later(since.max(self.quiet_since), self.zero_for))
    }

    fn without_idle(&self, idle: &[&PodSeen], busy: &[&PodSeen]) -> i32 {
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        // Pods that the cache does not show yet may carry calls.
        let all_seen = self.set.current && count(idle.len() + busy.len()) >= self.set.exist;
        if !all_seen {
            return self.set.wanted;
        }
        if busy.is_empty() && self.floor == 0 {
            return 0;
        }
        let settled = count(idle.len() + busy.len()) == self.set.wanted && idle.iter().chain(busy).all(|p| p.ready);
        let dearest = idle.iter().map(|p| p.cost).max();
        let cheapest = busy.iter().map(|p| p.cost).min();
        let told_apart = match (dearest, cheapest) {
            (Some(idle), Some(busy)) => idle < busy,
            _ => true,
        };
        if settled && told_apart { count(busy.len()).max(self.floor) } else { self.set.wanted }
    }

    fn wake_at(&self) -> Option<Timestamp> {
        let ripe = self.pods.iter().filter(|p| !p.ending).filter_map(|p| self.idle_at(p));
        let times = ripe.chain([self.earliest, self.deadline]);
        times.filter(|t| *t > self.now).min()
    }
}

/// A mark as it stands on a pod.
pub fn mark_word(mark: Mark) -> &'static str {
    match mark {
        Mark::Busy => "busy",
        Mark::Quiet => "quiet",
        Mark::Idle => "idle",
    }
}

/// The mark that a pod carries. A word that is none was not written by us: it says nothing of calls.
pub fn mark_of(word: &str) -> Mark {
    [Mark::Quiet, Mark::Idle].into_iter().find(|mark| mark_word(*mark) == word).unwrap_or(Mark::Busy)
}

/// The mark that a pod should carry, where it is another than it has; `None` takes it off.
pub fn remark(pod: &PodSeen, wanted: Option<Mark>) -> Option<Option<Mark>> {
    let cost_right = wanted.is_none_or(|mark| pod.cost == cost(mark));
    (!pod.ending && (pod.mark != wanted || !cost_right)).then_some(wanted)
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + secs).unwrap()
    }

    fn pod(name: &str, calls: Option<u64>, since: i64) -> PodSeen {
        let idle_since = (calls == Some(0)).then(|| at(since));
        let cost = cost(if calls == Some(0) { Mark::Idle } else { Mark::Busy });
        PodSeen { name: name.into(), ready: true, calls, idle_since, cost, ..PodSeen::default() }
    }

    fn set(wanted: i32) -> ReplicaSetSeen {
        ReplicaSetSeen {
            name: "a".into(),
            wanted,
            exist: wanted,
            ready: wanted,
            available: wanted,
            current: true,
            ..ReplicaSetSeen::default()
        }
    }

    struct Case {
        pods: Vec<PodSeen>,
        set: ReplicaSetSeen,
        floor: i32,
        on_deadline: OnMaxDrain,
        counted: bool,
    }

    fn case(pods: Vec<PodSeen>) -> Case {
        let set = set(pods.len() as i32);
        Case { pods, set, floor: 0, on_deadline: OnMaxDrain::Terminate, counted: true }
    }

    impl Case {
        fn at(&self, secs: i64) -> Shrunk {
            let pods: Vec<&PodSeen> = self.pods.iter().collect();
            Shrink {
                now: at(secs),
                set: &self.set,
                pods: &pods,
                floor: self.floor,
                quiet_since: at(10),
                earliest: at(30),
                deadline: at(3600),
                zero_for: Duration::from_secs(30),
                counted: self.counted,
                on_deadline: self.on_deadline,
            }
            .decide()
        }
    }

    #[test]
    fn idle_pods_go_one_by_one_and_those_that_talk_stay() {
        let mut case = case(vec![pod("a", Some(2), 0), pod("b", Some(0), 0), pod("c", None, 0)]);
        let early = case.at(39);
        assert_eq!((early.replicas, early.wake_at), (3, Some(at(40))), "idleness counts from when no call could come");
        let ripe = case.at(40);
        let marks = |s: &Shrunk| s.marks.iter().map(|(_, mark)| *mark).collect::<Vec<_>>();
        assert_eq!((marks(&early), marks(&ripe)), (vec![Mark::Busy, Mark::Quiet, Mark::Busy], vec![Mark::Busy, Mark::Idle, Mark::Busy]));
        assert_eq!(ripe.replicas, 2);
        assert!(!ripe.overdue);
        case.pods[0] = pod("a", Some(0), 100);
        case.pods.remove(1);
        case.set = set(2);
        assert_eq!((case.at(129).replicas, case.at(130).replicas), (2, 1), "the one that cannot be read stays");
    }

    #[test]
    fn a_pod_that_is_not_ready_keeps_all_that_talk() {
        let mut case = case(vec![pod("a", Some(2), 0), pod("b", Some(0), 0)]);
        case.pods[0].ready = false;
        assert_eq!(case.at(1000).replicas, 2, "it would go before the idle one, whatever its cost");
        case.pods[0] = PodSeen { ready: false, ..pod("a", Some(0), 900) };
        assert_eq!(case.at(1000).replicas, 0, "all are idle");
    }

    #[test]
    fn costs_have_to_be_read_back_first() {
        let mut case = case(vec![pod("a", Some(2), 0), pod("b", Some(0), 0)]);
        case.pods[0].cost = 0;
        assert_eq!(case.at(1000).replicas, 2);
        case.pods[0].cost = cost(Mark::Busy);
        case.pods[1].cost = cost(Mark::Busy);
        assert_eq!(case.at(1000).replicas, 2, "somebody else wrote costs");
    }

    #[test]
    fn nothing_is_concluded_from_a_cache_that_is_behind() {
        let mut case = case(vec![pod("a", Some(0), 0)]);
        case.set = ReplicaSetSeen { exist: 2, wanted: 2, ..set(2) };
        assert_eq!(case.at(1000).replicas, 2, "a pod that is not seen may talk");
        case.set = ReplicaSetSeen { current: false, ..set(1) };
        assert_eq!(case.at(1000).replicas, 1);
        case.set = set(1);
        assert_eq!(case.at(1000).replicas, 0);
    }

    #[test]
    fn pods_that_never_ran_carry_no_call() {
        let mut case = case(vec![PodSeen { never_ran: true, ready: false, ..pod("a", None, 0) }]);
        assert_eq!(case.at(31).replicas, 0);
        case.pods.push(pod("b", None, 0));
        case.set = set(2);
        assert_eq!(case.at(31).replicas, 2);
    }

    #[test]
    fn at_the_deadline_they_end_or_stay_as_the_spec_says() {
        let mut case = case(vec![pod("a", Some(2), 0), pod("b", None, 0)]);
        assert_eq!((case.at(3599).replicas, case.at(3599).overdue), (2, false));
        assert_eq!((case.at(3600).replicas, case.at(3600).overdue), (0, true));
        case.on_deadline = OnMaxDrain::Keep;
        assert_eq!((case.at(9999).replicas, case.at(9999).overdue), (2, true));
        case.pods = vec![pod("a", Some(0), 9000), pod("b", Some(0), 9000)];
        assert_eq!((case.at(9999).replicas, case.at(9999).overdue), (0, false));
    }

    #[test]
    fn without_a_count_all_stay_until_the_deadline() {
        let mut case = case(vec![pod("a", Some(0), 0)]);
        case.counted = false;
        assert_eq!((case.at(3599).replicas, case.at(3599).wake_at), (1, Some(at(3600))));
        assert_eq!(case.at(3600).replicas, 0);
    }

    #[test]
    fn a_set_that_only_gets_smaller_keeps_its_floor() {
        let mut case = case(vec![pod("a", Some(2), 0), pod("b", Some(0), 0), pod("c", Some(0), 0), pod("d", Some(0), 0)]);
        case.floor = 2;
        assert_eq!(case.at(1000).replicas, 2);
        case.pods[1] = pod("b", Some(1), 0);
        case.pods[2] = pod("c", Some(1), 0);
        assert_eq!(case.at(1000).replicas, 3, "all that talk stay");
        case.set = set(2);
        case.pods.truncate(2);
        assert_eq!((case.at(1000).replicas, case.at(1000).wake_at), (2, None), "small enough");
    }
}
