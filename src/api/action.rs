//! `VoiceRolloutAction`: one command of a person. Created once, never changed, kept as the audit trail.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One command of a person.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "voicerollout.dev",
    version = "v1alpha1",
    kind = "VoiceRolloutAction",
    plural = "voicerolloutactions",
    singular = "voicerolloutaction",
    shortname = "vra",
    namespaced,
    status = "VoiceRolloutActionStatus",
    derive = "PartialEq",
    printcolumn(name = "Rollout", type_ = "string", json_path = ".spec.rollout"),
    printcolumn(name = "Verb", type_ = "string", json_path = ".spec.verb"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".spec.revision"),
    printcolumn(name = "By", type_ = "string", json_path = ".spec.requestedBy"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("an action cannot be changed: create another one"))]
pub struct VoiceRolloutActionSpec {
    /// Name of the VoiceRollout.
    #[schemars(length(min = 1, max = 253))]
    pub rollout: String,
    /// Hash of the revision the person saw (`status.canaryRevision`); for another one the action is refused.
    #[schemars(length(min = 1, max = 63))]
    pub revision: String,
    /// Step that the person saw (`status.stepDisplay`, `3/10`); at another one the action is refused. Of `promote` and
    /// `skipStep`; absent: whichever step it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 21), regex(pattern = r"^[0-9]+/[0-9]+$"))]
    pub step: Option<String>,
    /// The command.
    pub verb: Verb,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// User name of the person; the chart's admission policy makes it the caller's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub requested_by: Option<String>,
}

/// The commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// End a pause: timed, indefinite, or held by an undecided or failing provider. Never overrides a Fail.
    Promote,
    /// End the current pause or analysis although it is not over; a Fail is not overridden.
    SkipStep,
    /// Skip every remaining step and analysis.
    PromoteFull,
    /// Weights to stable at once.
    Abort,
    /// Start an aborted release again from its first step, with fresh evidence.
    Retry,
    /// Stop the steps where they are.
    Pause,
    /// End a `pause`.
    Resume,
}

/// What became of a command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VoiceRolloutActionStatus {
    /// Absent until the operator has looked at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ActionState>,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it was carried out or refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ActionState {
    /// Carried out.
    Applied,
    /// Not possible; the message says why.
    Refused,
}
