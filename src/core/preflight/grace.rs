//! The time that the kubelet gives a pod to end.

use super::{Finding, codes};
use crate::api::VoiceRolloutSpec;
use crate::api::common::std_duration;

/// What Kubernetes takes when the template says nothing, in seconds.
const DEFAULT_GRACE: i64 = 30;
/// What a pod needs after its last call, in seconds.
const MARGIN: i64 = 60;

/// `drain.maxDrain` in whole seconds, rounded up.
pub(super) fn max_drain(spec: &VoiceRolloutSpec) -> i64 {
    let drain = std_duration(spec.drain.max_drain);
    let up = u64::from(drain.subsec_nanos() > 0);
    i64::try_from(drain.as_secs().saturating_add(up)).unwrap_or(i64::MAX)
}

/// Seconds that let the longest drain end.
pub(super) fn enough(spec: &VoiceRolloutSpec) -> i64 {
    max_drain(spec).saturating_add(MARGIN)
}

pub(super) fn finding(spec: &VoiceRolloutSpec) -> Option<Finding> {
    let written = spec.template.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
    let (grace, drain) = (written.unwrap_or(DEFAULT_GRACE), max_drain(spec));
    let default = if written.is_none() { " by default" } else { "" };
    let who = if spec.traffic.replicas.is_some() {
        "workers that pull jobs are drained by ending them, and the kubelet kills each"
    } else {
        "whoever deletes or evicts a pod kills it"
    };
    (grace < drain).then(|| Finding {
        code: codes::GRACE_PERIOD_TOO_SHORT,
        sentence: format!(
            "terminationGracePeriodSeconds is {grace}{default}, and calls may talk for drain.maxDrain ({drain} s): {who} after {grace} s \
             with every call it carries."
        ),
        fix: format!("set spec.template.spec.terminationGracePeriodSeconds to {} or more.", enough(spec)),
    })
}
