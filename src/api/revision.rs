//! Revisions as `status.revisions` of a `VoiceRollout` has them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A revision that exists.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Hash of its pod template.
    pub hash: String,
    /// Its number, counting from 1.
    pub number: i64,
    /// What it is for.
    pub role: Role,
    /// Pods wanted.
    #[serde(default)]
    pub replicas: i32,
    /// Pods Ready.
    #[serde(default)]
    pub ready: i32,
    /// It was stable at some time.
    #[serde(default)]
    pub was_stable: bool,
    /// It was aborted at some time and not promoted since.
    #[serde(default)]
    pub aborted: bool,
    /// Since when it gets no new calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<MicroTime>,
    /// The least time it is kept from then, in seconds.
    #[serde(default)]
    pub keep_seconds: i64,
    /// Pods that were asked to end and go on for the calls they carry; with `traffic.replicas` only.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ending: i32,
    /// Live calls of its pods, while a release or a drain is under way; those of pods that cannot be read are not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_calls: Option<i64>,
    /// Pods whose live calls cannot be read, while a release or a drain is under way.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unread_pods: i32,
    /// Calls that were live when their pod ended.
    #[serde(default, skip_serializing_if = "is_zero_long")]
    pub calls_cut: i64,
    /// Occasions that `callsCut` counts, the newest of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<String>,
    /// `drain.maxDrain` has passed, and it was told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overdue: bool,
    /// Since when it has more pods than it should; those that are idle go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shrinking_since: Option<MicroTime>,
}

// serde hands over references.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero_long(n: &i64) -> bool {
    *n == 0
}

/// What a revision is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Role {
    /// Callers get it.
    Stable,
    /// It is being released.
    Canary,
    /// It gets no new calls and keeps its pods for those it has.
    Draining,
    /// No pods.
    #[default]
    Retired,
}
