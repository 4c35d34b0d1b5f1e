//! What is known of a pod's live calls, from reading to reading. A reading that fails makes it unknown, never idle.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

/// Failures in a row after which people are told.
const TOLD_AFTER: u32 = 3;
/// A pod that is read for so long after SIGTERM does not end at once.
const WENT_ON: SignedDuration = SignedDuration::from_secs(2);
/// Calls that may all end, by themselves, between a reading and the next.
const LAST: u64 = 2;
/// Restarts with calls that a pod remembers.
const MAX_LOST: usize = 20;

/// Facts of a pod that say how it lives and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// It was asked to end.
    pub ending: bool,
    /// Restarts of its containers, all together.
    pub restarts: i32,
    /// All of its containers have ended, each with exit code 0.
    pub ended_well: bool,
    /// Seconds that `preStop.sleep` keeps SIGTERM back, of the container with the longest.
    pub pre_stop: i64,
}

/// Readings of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// UID of the pod.
    pub uid: String,
    /// Hash of its revision.
    pub revision: String,
    calls: Option<u64>,
    problem: Option<String>,
    read_at: Timestamp,
    zero_since: Option<Timestamp>,
    facts: PodFacts,
    /// The first reading after it was asked to end, and whether one followed [`WENT_ON`] after SIGTERM.
    ending_read_at: Option<Timestamp>,
    went_on: bool,
    /// Readings that have failed, one after the other.
    failures: u32,
    /// Calls that were live when a container restarted, by the number of that restart.
    lost: BTreeMap<i32, u64>,
}

impl Ledger {
    /// Of a pod that was not read yet.
    pub fn new(uid: &str, revision: &str, facts: PodFacts) -> Self {
        Self {
            uid: uid.into(),
            revision: revision.into(),
            calls: None,
            problem: None,
            read_at: Timestamp::MIN,
            zero_since: None,
            facts,
            ending_read_at: None,
            went_on: false,
            failures: 0,
            lost: BTreeMap::new(),
        }
    }

    /// Takes a reading of the time `at`; says whether it is news. What happened since the one before is not known where
    /// that is older than `since`.
    pub fn read(&mut self, at: Timestamp, since: Timestamp, reading: Result<u64, String>) -> bool {
        let before = (self.known(), self.problem().map(String::from));
        let gap = self.read_at < since;
        self.read_at = at;
        match reading {
            Ok(calls) => {
                self.calls = Some(calls);
                self.problem = None;
                self.failures = 0;
                self.zero_since = (calls == 0).then(|| self.zero_since.filter(|_| !gap).unwrap_or(at));
                if self.facts.ending {
                    let first = *self.ending_read_at.get_or_insert(at);
                    let terms = SignedDuration::from_secs(self.facts.pre_stop.max(0));
                    self.went_on |= at.duration_since(first) >= terms.saturating_add(WENT_ON);
                }
            }
            Err(problem) => {
                self.problem = Some(problem);
                self.failures = self.failures.saturating_add(1);
                self.zero_since = None;
            }
        }
        before != (self.known(), self.problem().map(String::from))
    }

    /// Takes over what the pod says of itself.
    pub fn look(&mut self, facts: PodFacts) {
        if facts.restarts > self.facts.restarts {
            // The calls went with the container that ended.
            let calls = self.calls.take().unwrap_or(0);
            if calls > 0 {
                self.lost.insert(facts.restarts, calls);
            }
            while self.lost.len() > MAX_LOST {
                self.lost.pop_first();
            }
            self.zero_since = None;
        }
        self.facts = facts;
    }

    /// Calls by the last reading; `None` when it failed or there was none.
    pub fn known(&self) -> Option<u64> {
        self.calls.filter(|_| self.problem.is_none())
    }

    /// Calls by a reading not older than `since`.
    pub fn known_since(&self, since: Timestamp) -> Option<u64> {
        self.known().filter(|_| self.read_at >= since)
    }

    /// Since when every reading has found no call; `None` when the last one is older than `since`.
    pub fn idle_since(&self, since: Timestamp) -> Option<Timestamp> {
        self.zero_since.filter(|_| self.known_since(since) == Some(0))
    }

    /// Why readings fail, once several have one after the other: a single one is no reason to tell anybody.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref().filter(|_| self.failures >= TOLD_AFTER)
    }

    /// Calls that were live when a container restarted, by the number of that restart.
    pub fn lost(&self) -> &BTreeMap<i32, u64> {
        &self.lost
    }

    /// Calls that ended with the pod, now that it is gone: those of the last reading, unless it went on after it was
    /// asked to end, had no more than [`LAST`], and then ended by itself without a failure, as an agent does that waits for
    /// its last call. One that ends by itself with more, within a second of the reading, did not wait for them.
    pub fn cut_at_end(&self) -> u64 {
        let calls = self.calls.unwrap_or(0);
        let waited = self.facts.ended_well && self.went_on && calls <= LAST;
        if waited { 0 } else { calls }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + secs).unwrap()
    }

    fn ledger() -> Ledger {
        Ledger::new("u", "h", PodFacts::default())
    }

    /// A reading that follows closely on the one before.
    fn read(l: &mut Ledger, secs: i64, reading: Result<u64, String>) -> bool {
        l.read(at(secs), at(secs - 15), reading)
    }

    #[test]
    fn a_failed_reading_is_unknown_and_starts_idleness_anew() {
        let mut l = ledger();
        assert_eq!((l.known(), l.idle_since(at(0))), (None, None), "not read yet");
        assert!(read(&mut l, 0, Ok(0)));
        assert!(!read(&mut l, 5, Ok(0)), "the same again is no news");
        assert_eq!(l.idle_since(at(0)), Some(at(0)));
        assert!(read(&mut l, 10, Err("refused".into())));
        assert_eq!((l.known(), l.idle_since(at(0)), l.problem()), (None, None, None), "one failure is not told");
        assert!(!read(&mut l, 11, Err("refused".into())) && read(&mut l, 12, Err("refused".into())));
        assert_eq!(l.problem(), Some("refused"));
        read(&mut l, 15, Ok(0));
        assert_eq!((l.idle_since(at(0)), l.problem()), (Some(at(15)), None));
        assert_eq!((l.known_since(at(16)), l.idle_since(at(16))), (None, None), "an old reading counts no more than none");
        read(&mut l, 20, Ok(2));
        assert_eq!((l.known(), l.idle_since(at(0))), (Some(2), None));
    }

    #[test]
    fn idleness_does_not_reach_over_a_time_without_readings() {
        let mut l = ledger();
        read(&mut l, 0, Ok(0));
        read(&mut l, 600, Ok(0));
        assert_eq!(l.idle_since(at(0)), Some(at(600)), "a call may have come and gone");
    }

    #[test]
    fn calls_are_cut_by_an_end_that_does_not_wait_for_them() {
        let ends = |readings: &[Result<u64, String>], after: PodFacts| {
            let mut l = ledger();
            read(&mut l, 0, Ok(3));
            l.look(PodFacts { ending: true, ..PodFacts::default() });
            for (i, reading) in readings.iter().enumerate() {
                read(&mut l, 1 + 2 * i as i64, reading.clone());
            }
            l.look(after);
            l.cut_at_end()
        };
        let well = PodFacts { ending: true, ended_well: true, ..PodFacts::default() };
        let killed = PodFacts { ended_well: false, ..well };
        assert_eq!(ends(&[], well), 3, "it ended at once, whatever its exit code");
        assert_eq!(ends(&[Ok(3), Ok(1)], well), 0, "it went on, and ended after its last call");
        assert_eq!(ends(&[Ok(1)], well), 1, "it was read once more and ended at once");
        assert_eq!(ends(&[Ok(3), Ok(3)], well), 3, "its own drain timeout was over");
        let slept = |secs| {
            let mut l = ledger();
            l.look(PodFacts { ending: true, pre_stop: 10, ..PodFacts::default() });
            for second in 0..=secs {
                read(&mut l, second, Ok(1));
            }
            l.look(PodFacts { pre_stop: 10, ..well });
            l.cut_at_end()
        };
        assert_eq!((slept(11), slept(12)), (1, 0), "the time before SIGTERM says nothing of how it takes it");
        assert_eq!(ends(&[Ok(3), Ok(1)], killed), 1, "its grace period was over");
        assert_eq!(ends(&[Ok(0)], killed), 0);
        assert_eq!(ends(&[Err("refused".into())], killed), 3, "what it had before it could not be read");
        assert_eq!(ledger().cut_at_end(), 0, "nothing is known of it");
    }

    #[test]
    fn calls_are_cut_by_restarts_each_once() {
        let restarted = |l: &mut Ledger, restarts: i32| l.look(PodFacts { restarts, ..PodFacts::default() });
        let mut l = ledger();
        read(&mut l, 0, Ok(4));
        restarted(&mut l, 1);
        assert_eq!((l.known(), l.cut_at_end(), l.lost().clone()), (None, 0, [(1, 4)].into()));
        restarted(&mut l, 1);
        restarted(&mut l, 2);
        assert_eq!(*l.lost(), [(1, 4)].into(), "it had no calls again");
        read(&mut l, 60, Ok(2));
        restarted(&mut l, 3);
        assert_eq!(*l.lost(), [(1, 4), (3, 2)].into());
        for restarts in 4..60 {
            read(&mut l, 60 + i64::from(restarts), Ok(1));
            restarted(&mut l, restarts);
        }
        assert_eq!(l.lost().len(), MAX_LOST);
    }
}
