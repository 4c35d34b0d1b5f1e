//! What is known of a pod's live calls, from reading to reading. A reading that fails makes it unknown, never idle.

use jiff::Timestamp;

/// Facts of a pod that say how it lives and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// It was asked to end.
    pub ending: bool,
    /// Restarts of its containers, all together.
    pub restarts: i32,
    /// All of its containers have ended, each with exit code 0.
    pub ended_well: bool,
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
    read_while_ending: bool,
    lost_in_restarts: u64,
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
            read_while_ending: false,
            lost_in_restarts: 0,
        }
    }

    /// Takes a reading; says whether it is news.
    pub fn read(&mut self, at: Timestamp, reading: Result<u64, String>) -> bool {
        let before = (self.known(), self.problem.clone());
        self.read_at = at;
        match reading {
            Ok(calls) => {
                self.calls = Some(calls);
                self.problem = None;
                self.zero_since = (calls == 0).then(|| self.zero_since.unwrap_or(at));
                self.read_while_ending |= self.facts.ending;
            }
            Err(problem) => {
                self.problem = Some(problem);
                self.zero_since = None;
            }
        }
        before != (self.known(), self.problem.clone())
    }

    /// Takes over what the pod says of itself.
    pub fn look(&mut self, facts: PodFacts) {
        if facts.restarts > self.facts.restarts {
            // The calls went with the container that ended.
            self.lost_in_restarts += self.calls.take().unwrap_or(0);
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

    /// Why the last reading failed.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Restarts that were seen, and calls that were live when a container restarted.
    pub fn lost_in_restarts(&self) -> (i32, u64) {
        (self.facts.restarts, self.lost_in_restarts)
    }

    /// Calls that ended with the pod, now that it is gone: those of the last reading, unless it went on after it was
    /// asked to end and then ended by itself without a failure, as an agent does that waits for its last call.
    pub fn cut_at_end(&self) -> u64 {
        let waited = self.facts.ended_well && self.read_while_ending;
        if waited { 0 } else { self.calls.unwrap_or(0) }
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

    #[test]
    fn a_failed_reading_is_unknown_and_starts_idleness_anew() {
        let mut l = ledger();
        assert_eq!((l.known(), l.idle_since(at(0))), (None, None), "not read yet");
        assert!(l.read(at(0), Ok(0)));
        assert!(!l.read(at(5), Ok(0)), "the same again is no news");
        assert_eq!(l.idle_since(at(0)), Some(at(0)));
        assert!(l.read(at(10), Err("refused".into())));
        assert_eq!((l.known(), l.idle_since(at(0)), l.problem()), (None, None, Some("refused")));
        l.read(at(15), Ok(0));
        assert_eq!(l.idle_since(at(0)), Some(at(15)));
        assert_eq!((l.known_since(at(16)), l.idle_since(at(16))), (None, None), "an old reading counts no more than none");
        l.read(at(20), Ok(2));
        assert_eq!((l.known(), l.idle_since(at(0))), (Some(2), None));
    }

    #[test]
    fn calls_are_cut_by_an_end_that_does_not_wait_for_them() {
        let ends = |readings: &[Result<u64, String>], after: PodFacts| {
            let mut l = ledger();
            l.read(at(0), Ok(3));
            l.look(PodFacts { ending: true, ..PodFacts::default() });
            for (i, reading) in readings.iter().enumerate() {
                l.read(at(1 + i as i64), reading.clone());
            }
            l.look(after);
            l.cut_at_end()
        };
        let well = PodFacts { ending: true, ended_well: true, ..PodFacts::default() };
        let killed = PodFacts { ended_well: false, ..well };
        assert_eq!(ends(&[], well), 3, "it ended at once, whatever its exit code");
        assert_eq!(ends(&[Ok(3), Ok(1)], well), 0, "it went on, and ended after its last call");
        assert_eq!(ends(&[Ok(3), Ok(1)], killed), 1, "its grace period was over");
        assert_eq!(ends(&[Ok(0)], killed), 0);
        assert_eq!(ends(&[Err("refused".into())], killed), 3, "what it had before it could not be read");
        assert_eq!(ledger().cut_at_end(), 0, "nothing is known of it");
    }

    #[test]
    fn calls_are_cut_by_a_restart() {
        let mut l = ledger();
        l.read(at(0), Ok(4));
        l.look(PodFacts { restarts: 1, ..PodFacts::default() });
        assert_eq!((l.lost_in_restarts(), l.known(), l.cut_at_end()), ((1, 4), None, 0));
        l.look(PodFacts { restarts: 1, ..PodFacts::default() });
        assert_eq!(l.lost_in_restarts(), (1, 4), "once");
    }
}
