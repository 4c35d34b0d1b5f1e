//! Autoscalers of a single revision. One that drains would get more pods, or lose those that talk: the autoscaler counts
//! what all its pods do, and knows of no call.

use super::{Finding, codes};

/// A HorizontalPodAutoscaler whose target is a ReplicaSet of the rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoscalerSeen {
    /// Its name.
    pub name: String,
    /// Kind and name of what made it, as a ScaledObject of KEDA does; `None` where somebody wrote it.
    pub maker: Option<(String, String)>,
    /// Name of the ReplicaSet.
    pub set: String,
}

pub(super) fn finding(rollout: &str, seen: &AutoscalerSeen) -> Finding {
    let AutoscalerSeen { name, maker, set } = seen;
    let of = maker.as_ref().map(|(kind, name)| format!(" of {kind} {name}")).unwrap_or_default();
    let what = maker.as_ref().map_or_else(|| format!("HorizontalPodAutoscaler {name}"), |(kind, name)| format!("{kind} {name}"));
    Finding {
        code: codes::AUTOSCALED_REPLICA_SET,
        sentence: format!(
            "HorizontalPodAutoscaler {name}{of} scales ReplicaSet {set}, which is one revision of the rollout: it takes pods with live calls \
             from a revision that drains, and pods from stable."
        ),
        fix: format!(
            "give {what} the rollout as its target: scaleTargetRef: {{apiVersion: voicerollout.dev/v1alpha1, kind: VoiceRollout, name: \
             {rollout}}}."
        ),
    }
}
