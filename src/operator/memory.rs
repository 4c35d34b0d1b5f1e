//! What a process remembers to save writes. Losing it costs a few requests and nothing else.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::core::intent::{Arm, Intent};
use crate::core::route::Direction;

/// Time that a cache is given to show a write. After it the same is asked for again.
pub const ECHO: Duration = Duration::from_secs(3);

/// Remembers, by rollout, what was sent last to an object, and since when numbers are unwritten.
#[derive(Default)]
pub struct Memory {
    sent: Mutex<HashMap<String, Vec<Sent>>>,
    counts: Mutex<HashMap<String, Timestamp>>,
}

struct Sent {
    object: String,
    what: String,
    at: Timestamp,
}

impl Memory {
    /// The same was sent a moment ago, and nothing else to that object since: the cache does not show it yet.
    pub fn is_sent(&self, uid: &str, intent: &Intent, now: Timestamp) -> bool {
        let Some((object, Some(what))) = subject(intent) else { return false };
        let sent = self.sent.lock();
        sent.get(uid).is_some_and(|all| all.iter().any(|s| s.object == object && s.what == what && within(s.at, ECHO, now)))
    }

    /// Notes that an intent was carried out.
    pub fn note(&self, uid: &str, intent: &Intent, now: Timestamp) {
        let Some((object, what)) = subject(intent) else { return };
        let mut sent = self.sent.lock();
        let all = sent.entry(uid.to_string()).or_default();
        all.retain(|s| s.object != object && within(s.at, ECHO, now));
        all.extend(what.map(|what| Sent { object, what, at: now }));
        if all.is_empty() {
            sent.remove(uid);
        }
    }

    /// Until when numbers that differ from what is written may stay unwritten: at most `wait`.
    pub fn counts_until(&self, uid: &str, now: Timestamp, wait: Duration) -> Timestamp {
        let since = *self.counts.lock().entry(uid.to_string()).or_insert(now);
        later(since, wait)
    }

    /// The numbers are written as they are.
    pub fn counts_written(&self, uid: &str) {
        self.counts.lock().remove(uid);
    }

    /// The rollout is gone.
    pub fn forget(&self, uid: &str) {
        self.sent.lock().remove(uid);
        self.counts_written(uid);
    }
}

/// Whether an intent that was carried out is not sent again for [`ECHO`].
pub fn is_remembered(intent: &Intent) -> bool {
    matches!(subject(intent), Some((_, Some(_))))
}

/// The object that an intent writes, and what; without the latter it is sent however often it is asked for, as is all
/// that takes canary traffic away.
fn subject(intent: &Intent) -> Option<(String, Option<String>)> {
    let (object, what) = match intent {
        Intent::CreateReplicaSet { hash, .. } => (format!("revision {hash}"), "create".to_string()),
        Intent::ScaleReplicaSet { name, replicas } => (format!("set {name}"), replicas.to_string()),
        Intent::PointArm { arm, hash, labelled } => {
            (if *arm == Arm::Stable { "stable arm" } else { "canary arm" }.to_string(), format!("{hash} {labelled}"))
        }
        Intent::MarkPod { name, mark, out } => (format!("pod {name}"), format!("{mark:?} {out}")),
        Intent::CreateBudget { name, .. } => (format!("budget {name}"), "create".to_string()),
        Intent::DeleteBudget { name } => (format!("budget {name}"), "delete".to_string()),
        Intent::CreateRun { name, .. } => (format!("run {name}"), "create".to_string()),
        Intent::StopRun { name } => (format!("run {name}"), "stop".to_string()),
        Intent::SetWeights { namespace, name, canary, direction } => {
            let object = format!("route {namespace}/{name}");
            return Some((object, (*direction == Direction::Raise).then(|| canary.to_string())));
        }
        _ => return None,
    };
    Some((object, Some(what)))
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_add(by).ok()).unwrap_or(at)
}

fn within(at: Timestamp, span: Duration, now: Timestamp) -> bool {
    now < later(at, span)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(secs).unwrap()
    }

    fn weights(canary: i32, direction: Direction) -> Intent {
        Intent::SetWeights { namespace: "voice".into(), name: "agent".into(), canary, direction }
    }

    #[test]
    fn what_was_just_sent_is_not_sent_again_until_the_cache_has_had_its_time() {
        let memory = Memory::default();
        let scale = |replicas| Intent::ScaleReplicaSet { name: "a".into(), replicas };
        assert!(!memory.is_sent("u", &scale(3), at(0)));
        memory.note("u", &scale(3), at(0));
        assert!(memory.is_sent("u", &scale(3), at(2)) && !memory.is_sent("u", &scale(3), at(3)));
        assert!(!memory.is_sent("u", &scale(4), at(1)) && !memory.is_sent("v", &scale(3), at(1)));
        memory.note("u", &scale(4), at(1));
        assert!(!memory.is_sent("u", &scale(3), at(1)), "back to 3 is something else again");
        memory.forget("u");
        assert!(!memory.is_sent("u", &scale(4), at(1)));
    }

    #[test]
    fn weight_is_taken_away_however_often_it_is_asked_for() {
        let memory = Memory::default();
        memory.note("u", &weights(25, Direction::Raise), at(0));
        assert!(memory.is_sent("u", &weights(25, Direction::Raise), at(1)));
        memory.note("u", &weights(0, Direction::Lower), at(1));
        assert!(!memory.is_sent("u", &weights(0, Direction::Lower), at(1)));
        assert!(!memory.is_sent("u", &weights(25, Direction::Raise), at(1)), "a rise after it is a new one");
    }

    #[test]
    fn numbers_of_pods_wait_from_the_first_that_is_unwritten() {
        let memory = Memory::default();
        let wait = Duration::from_secs(10);
        assert_eq!(memory.counts_until("u", at(0), wait), at(10));
        assert_eq!(memory.counts_until("u", at(7), wait), at(10));
        memory.counts_written("u");
        assert_eq!(memory.counts_until("u", at(8), wait), at(18));
    }
}
