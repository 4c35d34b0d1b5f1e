//! Proof of the split: the share of new calls that the canary really gets, against the weight.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Duration, duration_schema, seconds};
use super::compare::{Counted, PrometheusServer, default_interval, default_pod_label, default_revision_label};
use super::comparison::Memory;

/// Where started calls are counted, and what is asked of the split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// The server that has the counter.
    pub prometheus: PrometheusServer,
    /// Selector of the counter of calls that began, such as `voice_calls_started_total`.
    #[schemars(length(min = 1, max = 2048))]
    pub started: String,
    /// Selector of the counter of calls that began without the header of `stickiness.headerBuckets`: how many there are is
    /// told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub without_bucket: Option<String>,
    /// Label whose value is the revision hash.
    #[serde(default = "default_revision_label")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$"))]
    pub revision_label: String,
    /// Label that tells pods apart.
    #[serde(default = "default_pod_label")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$"))]
    pub pod_label: String,
    /// Time between two looks at the counter.
    #[serde(default = "default_interval")]
    #[schemars(schema_with = "duration_schema")]
    pub interval: Duration,
    /// Calls since the last change of the weight before the split counts as seen.
    #[serde(default = "default_min_calls")]
    #[schemars(range(min = 1, max = 1000000))]
    pub min_calls: i32,
    /// The share may be off by this many percentage points. Left out: 0; with `headerBuckets` a fifth of the weight, or of
    /// what is left to stable, whichever is less, because the callers of a bucket do not all call as often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 50.0))]
    pub tolerance: Option<f64>,
    /// Chance that a release is ever held although every weight is kept, however often it is looked.
    #[serde(default = "default_false_alarm")]
    #[schemars(range(min = 0.0, max = 0.5))]
    pub false_alarm: f64,
    /// No step goes on before its weight was seen: without counts the release stands still.
    #[serde(default)]
    pub require_observed: bool,
}

impl Proof {
    /// How its counter is read.
    pub fn counted(&self) -> Counted {
        Counted {
            prometheus: self.prometheus.clone(),
            revision_label: self.revision_label.clone(),
            pod_label: self.pod_label.clone(),
            interval: self.interval,
            // What a new pod is given counts from its first call.
            warmup: seconds(0),
            min_canary: 1,
            min_bake: None,
        }
    }
}

/// The gate that counts started calls; made from `traffic.proof`, not for people to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Split {
    /// Where and how calls are counted.
    #[serde(flatten)]
    pub counted: Counted,
    /// Selector of the counter of calls that began.
    #[schemars(length(min = 1, max = 2048))]
    pub started: String,
    /// Selector of the counter of calls that began without the bucket header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub without_bucket: Option<String>,
}

/// Calls that began since a run was made, and what it remembers to count on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SplitCounts {
    /// Calls.
    #[serde(flatten)]
    pub calls: SplitCalls,
    /// Moment that the newest counters are of; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Counters as they were then.
    #[serde(default)]
    pub memory: Memory,
}

/// Calls that began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SplitCalls {
    /// On the canary.
    #[serde(default)]
    pub canary: i64,
    /// On stable.
    #[serde(default)]
    pub stable: i64,
    /// On either, without the bucket header; where that is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_bucket: Option<i64>,
}

/// What was seen of the split since the weight was last changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// The weight, in percent.
    pub weight: i32,
    /// Which weight of this attempt it is, from 1; each has a share of `falseAlarm` of its own.
    #[serde(default)]
    pub number: i32,
    /// Since when the routes have said it.
    pub since: MicroTime,
    /// Calls that had begun before calls are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<SplitCalls>,
    /// Calls of the canary.
    #[serde(default)]
    pub canary: i64,
    /// Calls of both.
    #[serde(default)]
    pub total: i64,
    /// Share of the canary, in percent; absent without calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// What follows.
    pub verdict: SplitVerdict,
    /// In one sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it was last told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<MicroTime>,
    /// A person goes on although the share differs.
    #[serde(default)]
    pub overridden: bool,
}

/// What follows from the calls that were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SplitVerdict {
    /// There are no counts since the change.
    NoData,
    /// There are fewer than `minCalls`.
    TooFew,
    /// The share is what the weight says, as far as can be seen.
    Agrees,
    /// The share is another.
    Differs,
}

fn default_min_calls() -> i32 {
    30
}
fn default_false_alarm() -> f64 {
    0.001
}
