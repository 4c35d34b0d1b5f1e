//! Field types that several resources share.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

pub use kube::core::Duration;

/// The API group of every resource here.
pub const GROUP: &str = "voicerollout.dev";
/// The API version of every resource here.
pub const VERSION: &str = "v1alpha1";
/// Pod label, ReplicaSet label and Service selector key that holds the revision hash.
pub const REVISION_LABEL: &str = "voicerollout.dev/revision";
/// Label on ReplicaSets, pods and analysis runs: the name of the VoiceRollout they belong to.
pub const ROLLOUT_LABEL: &str = "voicerollout.dev/rollout";
/// ReplicaSet annotation: the revision number, counting from 1.
pub const REVISION_NUMBER_ANNOTATION: &str = "voicerollout.dev/revision-number";
/// ReplicaSet annotation: `spec.template` of the revision as it was written, in JSON; what `undo` puts back. Left out when it
/// is longer than [`MAX_TEMPLATE`] bytes.
pub const TEMPLATE_ANNOTATION: &str = "voicerollout.dev/template";
/// See [`TEMPLATE_ANNOTATION`]; all annotations of an object together may have 256 KiB.
pub const MAX_TEMPLATE: usize = 128 * 1024;
/// Annotation of `spec.template`: when somebody asked for the same version in new pods.
pub const RESTARTED_ANNOTATION: &str = "voicerollout.dev/restarted-at";
/// Pod annotation that says in which order a ReplicaSet gives pods up: the lowest cost first.
pub const COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Pod annotation: what a pod that gets no new calls is marked as.
pub const MARK_ANNOTATION: &str = "voicerollout.dev/drain";
/// Pod label, and key of selectors beside [`REVISION_LABEL`]: `"true"` while the pod gets new calls.
pub const SERVING_LABEL: &str = "voicerollout.dev/serving";
/// Pod annotation: since when a pod gets no new calls although its revision does.
pub const OUT_ANNOTATION: &str = "voicerollout.dev/out-of-traffic-since";
/// Pod annotations that keep node autoscalers from evicting a pod, with the value that does.
pub const KEEP_ANNOTATIONS: [(&str, &str); 2] =
    [("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"), ("karpenter.sh/do-not-disrupt", "true")];
/// Label that a Secret must carry, with the value [`SECRET_USE_VALUE`], before a gate may read it.
pub const SECRET_USE_LABEL: &str = "voicerollout.dev/use";
/// See [`SECRET_USE_LABEL`].
pub const SECRET_USE_VALUE: &str = "gates";
/// The value of [`SECRET_USE_LABEL`] before a notification may read the Secret.
pub const SECRET_USE_NOTIFICATIONS: &str = "notifications";
/// VirtualService annotation that lists the namespaces whose rollouts may write its weights.
pub const ALLOW_FROM_ANNOTATION: &str = "voicerollout.dev/allow-from";
/// Annotation of a VoiceAnalysisRun: where its spans belong, as W3C Trace Context writes it.
pub const TRACEPARENT_ANNOTATION: &str = "voicerollout.dev/traceparent";
/// Finalizer that holds a VoiceRollout until its routes are back at stable 100.
pub const FINALIZER: &str = "voicerollout.dev/routes";
/// Field manager of every write.
pub const FIELD_MANAGER: &str = "voicerollout";

/// Schema of a Go-style duration that is not negative: `30s`, `1h30m`, `250ms`.
pub fn duration_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "pattern": r"^([0-9]{1,9}(\.[0-9]{1,9})?(ns|us|ms|s|m|h))+$"
    })
}

/// Makes a duration of whole seconds.
pub fn seconds(n: u64) -> Duration {
    Duration::from(std::time::Duration::from_secs(n))
}

/// The duration as [`std::time::Duration`]; a negative one counts as zero (validation refuses it first).
pub fn std_duration(d: Duration) -> std::time::Duration {
    if d.is_negative() { std::time::Duration::ZERO } else { d.into() }
}

/// One key of a Secret in the resource's own namespace (for a cluster template: in the operator's namespace).
/// The Secret must carry the label `voicerollout.dev/use: gates`; for notifications `voicerollout.dev/use: notifications`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key within the Secret's data.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}
