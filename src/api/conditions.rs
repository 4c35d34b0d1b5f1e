//! Conditions: set by type, kept sorted, with the transition time of the last change of status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The spec cannot be carried out.
pub const INVALID_SPEC: &str = "InvalidSpec";
/// Stable has all its pods available.
pub const AVAILABLE: &str = "Available";
/// A release is under way and moves.
pub const PROGRESSING: &str = "Progressing";
/// The newest revision is stable.
pub const HEALTHY: &str = "Healthy";
/// A revision that gets no new calls keeps its pods for those it has.
pub const DRAINING: &str = "Draining";
/// The live calls of every pod are known, where they are counted.
pub const CALLS_READABLE: &str = "CallsReadable";
/// Somebody else changed managed weights.
pub const ROUTES_IN_SYNC: &str = "RoutesInSync";
/// New calls are shared as the weight says, as far as was seen; `Unknown` while there are too few.
pub const SPLIT_OBSERVED: &str = "SplitObserved";
/// Services, VirtualServices, templates and Secrets that the spec names are there and usable.
pub const REFERENCES_RESOLVED: &str = "ReferencesResolved";
/// The preflight has found nothing that would cut live calls.
pub const PREFLIGHT: &str = "Preflight";
/// Every notification is set up well, and none waits for somebody to put its receiver right.
pub const NOTIFICATIONS_READY: &str = "NotificationsReady";

/// Sets the condition `type_`. The transition time changes only with the status.
pub fn set(
    conditions: &mut Vec<Condition>,
    now: Timestamp,
    generation: Option<i64>,
    type_: &str,
    status: bool,
    reason: &str,
    message: &str,
) {
    set_as(conditions, now, generation, type_, if status { "True" } else { "False" }, (reason, message));
}

/// The same with a status that may be `Unknown`; reason and message come last.
pub fn set_as(
    conditions: &mut Vec<Condition>,
    now: Timestamp,
    generation: Option<i64>,
    type_: &str,
    status: &str,
    (reason, message): (&str, &str),
) {
    let transition = match conditions.iter().find(|c| c.type_ == type_) {
        Some(old) if old.status == status => old.last_transition_time.clone(),
        _ => Time(now),
    };
    let new = Condition {
        type_: type_.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: transition,
        observed_generation: generation,
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
}

/// Whether the condition is there and `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|c| c.type_ == type_ && c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_changes_with_the_status_only() {
        let (t0, t1): (Timestamp, Timestamp) = ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-01T00:01:00Z".parse().unwrap());
        let mut all = Vec::new();
        set(&mut all, t0, Some(1), HEALTHY, true, "A", "a");
        set(&mut all, t1, Some(2), HEALTHY, true, "B", "b");
        assert_eq!((all[0].last_transition_time.0, all[0].reason.as_str(), all[0].observed_generation), (t0, "B", Some(2)));
        set(&mut all, t1, Some(2), HEALTHY, false, "C", "c");
        assert_eq!(all[0].last_transition_time.0, t1);
        assert!(!is_true(&all, HEALTHY));
    }
}
