//! Gates that compare the canary with stable, or with a limit, by counting calls: statistics as data.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Duration, duration_schema, seconds};
use super::provider::{Access, default_scrape, default_timeout};

/// A share of `falseAbort` when the rollout says nothing.
pub const FALSE_ABORT: f64 = 0.01;
/// Odds ratios that the canary has to be shown to stay below, by weight in percent, when a gate says nothing.
pub const PASS_MARGINS: [(u8, f64); 3] = [(5, 4.0), (25, 3.0), (50, 2.0)];
/// Bets of the abort side, times the margin, when a gate says nothing.
pub const GRID: [f64; 5] = [1.25, 1.5, 2.0, 3.0, 5.0];

/// A Prometheus server that has the counters of both arms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusServer {
    /// Base URL, without `{{args...}}` in scheme, host or port.
    #[schemars(length(min = 1, max = 2048))]
    pub address: String,
    /// How often the server scrapes the agents; counters are read as they were this long ago, when every scrape has come.
    #[serde(default = "default_scrape")]
    #[schemars(schema_with = "duration_schema")]
    pub scrape_interval: Duration,
    /// How the server is asked.
    #[serde(flatten)]
    pub access: Access,
    /// Limit of one request.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: Duration,
}

/// How calls are counted: where, how often, and from when on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// The server that has the counters.
    pub prometheus: PrometheusServer,
    /// Label whose value is the revision hash.
    #[serde(default = "default_revision_label")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$"))]
    pub revision_label: String,
    /// Label that tells pods apart.
    #[serde(default = "default_pod_label")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$"))]
    pub pod_label: String,
    /// Time between two looks at the counters.
    #[serde(default = "default_interval")]
    #[schemars(schema_with = "duration_schema")]
    pub interval: Duration,
    /// What a pod counts in this time after it is first seen is left out, in both arms.
    #[serde(default = "default_warmup")]
    #[schemars(schema_with = "duration_schema")]
    pub warmup: Duration,
    /// Calls of the canary before the gate may pass.
    #[serde(default = "default_min_canary")]
    #[schemars(range(min = 1, max = 1000000))]
    pub min_canary: i32,
    /// Time under canary traffic before the gate may pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration_schema")]
    pub min_bake: Option<Duration>,
}

/// What the test is sure of, and on which alternatives it bets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Certainty {
    /// Chance that the gate ever passes although the canary is as bad as the pass margin.
    #[serde(default = "default_false_promote")]
    #[schemars(range(min = 0.0, max = 0.5))]
    pub false_promote: f64,
    /// Alternatives that the abort side bets on, as multiples of its margin; left out: 1.25, 1.5, 2, 3, 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub grid: Vec<f64>,
}

/// Bad calls among all calls, canary against stable. The unit is a call: turns of one call are no independent evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.bad) != has(self.good)").message("compare has exactly one of bad, good"))]
pub struct Compare {
    /// Where and how calls are counted.
    #[serde(flatten)]
    pub counted: Counted,
    /// Selector of the counter of bad calls, such as `voice_calls_failed_total{tier="gold"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub bad: Option<String>,
    /// Selector of the counter of good calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub good: Option<String>,
    /// Selector of the counter of all calls that ended.
    #[schemars(length(min = 1, max = 2048))]
    pub total: String,
    /// When the canary is worse.
    #[serde(default)]
    pub abort_if: AbortIf,
    /// When the canary is good enough for its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass_if: Option<PassIf>,
    /// What the test is sure of.
    #[serde(flatten)]
    pub certainty: Certainty,
}

/// Calls above edges of a histogram, canary against stable. One observation has to be one call: of its first token, its
/// tool calls, its cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompareHistogram {
    /// Where and how calls are counted.
    #[serde(flatten)]
    pub counted: Counted,
    /// Selector of the histogram's buckets, such as `voice_first_token_ms_bucket`.
    #[schemars(length(min = 1, max = 2048))]
    pub metric: String,
    /// Bounds of buckets (`le`); above one a call is bad. Several share the evidence equally.
    #[schemars(length(min = 1, max = 8))]
    pub edges: Vec<f64>,
    /// The canary may be this many times slower: its calls above `tolerance` times an edge are compared with stable's above
    /// the edge. Both have to be bounds of buckets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1.0, max = 100.0))]
    pub tolerance: Option<f64>,
    /// When the canary is worse.
    #[serde(default)]
    pub abort_if: AbortIf,
    /// When the canary is good enough for its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass_if: Option<SlowdownPassIf>,
    /// What the test is sure of.
    #[serde(flatten)]
    pub certainty: Certainty,
}

/// Bad calls of the canary alone against a limit: what harms both arms hides from a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.metric) ? has(self.above) && !has(self.total) && !has(self.bad) && !has(self.good) : has(self.total) && !has(self.above) && has(self.bad) != has(self.good)").message("absolute has either total with one of bad, good, or metric with above"))]
pub struct Absolute {
    /// Where and how calls are counted.
    #[serde(flatten)]
    pub counted: Counted,
    /// Selector of the counter of bad calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub bad: Option<String>,
    /// Selector of the counter of good calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub good: Option<String>,
    /// Selector of the counter of all calls that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub total: Option<String>,
    /// Selector of a histogram's buckets, in place of counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub metric: Option<String>,
    /// Bound of a bucket (`le`) of `metric`; above it a call is bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// Highest share of bad calls that is allowed, above 0 and below 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_rate: f64,
    /// When the canary is good enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass_if: Option<RatePassIf>,
    /// Chance that the gate ever passes although as many calls are bad as `passIf` says.
    #[serde(default = "default_false_promote")]
    #[schemars(range(min = 0.0, max = 0.5))]
    pub false_promote: f64,
}

/// When the canary is worse.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AbortIf {
    /// Abort when the odds of a bad call are surely more than this many times stable's; 1 or more.
    #[serde(default = "default_abort_margin")]
    #[schemars(range(min = 1.0, max = 100.0))]
    pub odds_ratio_above: f64,
}

impl Default for AbortIf {
    fn default() -> Self {
        Self { odds_ratio_above: default_abort_margin() }
    }
}

/// When the canary is good enough for its weight.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PassIf {
    /// Pass when the odds of a bad call are surely less than this many times stable's: by weight in percent, `{"5": 4}`.
    /// A weight in between takes the entry of the next lower one. Left out: 4 from 5 %, 3 from 25 %, 2 from 50 % on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub odds_ratio_below: BTreeMap<String, f64>,
}

/// When the canary is good enough for its weight; at most one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.oddsRatioBelow) && has(self.slowdownBelow))").message("passIf has at most one of oddsRatioBelow, slowdownBelow"))]
pub struct SlowdownPassIf {
    /// As for `compare`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub odds_ratio_below: BTreeMap<String, f64>,
    /// Pass when the canary is surely less than this many times slower: by weight in percent, `{"5": 1.5}`. The edges times
    /// each of these have to be bounds of buckets too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub slowdown_below: BTreeMap<String, f64>,
}

/// When the canary is good enough.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RatePassIf {
    /// Pass when the share of bad calls is surely below this; left out: twice `maxRate`.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub rate_below: f64,
}

pub(super) fn default_revision_label() -> String {
    "revision".into()
}
pub(super) fn default_pod_label() -> String {
    "pod".into()
}
pub(super) fn default_interval() -> Duration {
    seconds(30)
}
fn default_warmup() -> Duration {
    seconds(120)
}
fn default_min_canary() -> i32 {
    30
}
fn default_false_promote() -> f64 {
    0.05
}
fn default_abort_margin() -> f64 {
    1.0
}
