//! `VoiceRolloutOutbox`: messages of a rollout that are not sent yet. Written by the operator alone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::notification::Trigger;

/// Messages of the VoiceRollout of the same name that are not sent yet, and what became of the newest ones. It is the
/// operator's own record, and of no use to anybody else but for reading.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "voicerollout.dev",
    version = "v1alpha1",
    kind = "VoiceRolloutOutbox",
    plural = "voicerolloutoutboxes",
    singular = "voicerolloutoutbox",
    namespaced,
    derive = "PartialEq",
    printcolumn(name = "Next", type_ = "string", json_path = ".spec.queue[0].notification"),
    printcolumn(name = "Error", type_ = "string", json_path = ".spec.queue[0].lastError"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct VoiceRolloutOutboxSpec {
    /// How far the rollout's status has been taken over.
    #[serde(default)]
    pub cursor: Cursor,
    /// Messages to send, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queue: Vec<Queued>,
    /// What became of the newest messages, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Settled>,
}

/// How far a rollout's status has been taken over: the same part of it is not told twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cursor {
    /// `resourceVersion` of the VoiceRollout whose status was taken over last. An older status has no news.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// The last entry of `status.decisions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionId>,
    /// The revision and attempt that `step` is of.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub release: String,
    /// Steps that have passed.
    #[serde(default)]
    pub step: i32,
    /// The pause that the release is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// Gates that fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<String>,
}

/// Which entry of `status.decisions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionId {
    /// When.
    pub at: MicroTime,
    /// What.
    pub decision: String,
    /// Of which revision.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// At which step.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
}

/// What a message tells. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// What kind of news.
    pub trigger: Trigger,
    /// Namespace of the rollout.
    pub namespace: String,
    /// Its name.
    pub rollout: String,
    /// Hash of the revision it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// Hash of the stable revision.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stable_revision: String,
    /// The step, as people count, `3/10`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// Share of new calls that went to the revision, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
    /// The gate that failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gate: String,
    /// Why, in one sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure_reason: String,
    /// The person who asked for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When it was decided.
    pub at: MicroTime,
    /// What was decided, as in `status.decisions`; empty for news that no decision stands for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub decision: String,
}

/// One message to one receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Queued {
    /// Identity of the news, the same for all receivers: the `id` of a CloudEvent.
    pub id: String,
    /// Name of the notification.
    pub notification: String,
    /// What is told.
    pub facts: Facts,
    /// Attempts that have failed.
    #[serde(default)]
    pub attempts: i32,
    /// It is not sent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<MicroTime>,
    /// Since when it is being sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending: Option<MicroTime>,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_error: String,
    /// Trying again does not help until somebody changes something.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stuck: bool,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// The receiver took it.
    Sent,
    /// It was sent, and the answer is not known; Slack cannot tell duplicates, so it is not sent again.
    Unknown,
    /// It was given up: too old, too many after it, or its notification is gone.
    Dropped,
}

/// A message that is settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    /// See [`Queued::id`].
    pub id: String,
    /// Name of the notification.
    pub notification: String,
    /// What it told.
    pub trigger: Trigger,
    /// When it was settled.
    pub at: MicroTime,
    /// What became of it.
    pub outcome: Outcome,
}
