//! The paired gate as data: the same scenarios on stable and canary.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Duration, duration_schema};
use super::provider::WebProvider;

fn default_one() -> i32 {
    1
}
fn default_min_pairs() -> i64 {
    50
}
fn default_margin() -> f64 {
    0.05
}
fn default_false_promote() -> f64 {
    0.05
}

/// The same eval scenarios on stable and canary in one run of a harness, compared scenario by scenario.
///
/// Fail: the scenarios that only stable passes outweigh those that only the canary passes by an e-value of 1/`falseAbort`
/// or more (0.01 unless the gate says). If the canary is no worse, a whole release sees that with a chance of at most `falseAbort`, however often
/// it is measured.
///
/// Pass: at least `minPairs` scenarios, no Fail, and it is shown that the canary loses, on balance, less than `margin` of
/// the scenarios against stable. If it loses `margin` or more, a release sees that with a chance of at most
/// `falsePromote`. Nothing is said about scenarios unlike those of the suite. Anything else is Inconclusive.
///
/// Measurements add up only if each is a fresh draw: of each `suite.seed` the first one counts. Without a seed in the
/// answer that is the first one of all. Another suite name, version or data set starts a new comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.scenarios) != (has(self.stableOnly) || has(self.canaryOnly) || has(self.total))").message("set either scenarios, or stableOnly, canaryOnly and total"))]
#[x_kube(validation = Rule::new("has(self.stableOnly) == has(self.canaryOnly) && has(self.stableOnly) == has(self.total)").message("stableOnly, canaryOnly and total belong together"))]
#[x_kube(validation = Rule::new("self.count <= 1 || has(self.interval)").message("count above 1 needs an interval"))]
pub struct Paired {
    /// The harness. Its `jsonPath`, `values` and `result` are not used.
    pub web: WebProvider,
    /// One entry a scenario in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenarios: Option<ScenarioPaths>,
    /// JSONPath of the number of scenarios that stable passed and the canary failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub stable_only: Option<String>,
    /// JSONPath of the number of scenarios that the canary passed and stable failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub canary_only: Option<String>,
    /// JSONPath of the number of all scenarios that ran on both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub total: Option<String>,
    /// Scenarios needed to pass.
    #[serde(default = "default_min_pairs")]
    #[schemars(range(min = 1, max = 1000000))]
    pub min_pairs: i64,
    /// Share of scenarios that the canary may lose on balance, above 0 and up to 0.5.
    #[serde(default = "default_margin")]
    #[schemars(range(min = 0.001, max = 0.5))]
    pub margin: f64,
    /// Chance to pass a canary that loses `margin` or more, above 0 and below 0.5.
    #[serde(default = "default_false_promote")]
    #[schemars(range(min = 0.000001, max = 0.499999))]
    pub false_promote: f64,
    /// Measurements that have to pass.
    #[serde(default = "default_one")]
    #[schemars(range(min = 1, max = 1000))]
    pub count: i32,
    /// Time between measurements; needed for `count` above 1 and in the background.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration_schema")]
    pub interval: Option<Duration>,
    /// Wait before the first measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration_schema")]
    pub initial_delay: Option<Duration>,
}

/// Where the scenarios are in an answer. An entry without one of the two results is an error: leaving it out would hide
/// what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScenarioPaths {
    /// JSONPath of the entries: `{$.results[*]}`; at most 10000.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// JSONPath within an entry: true if stable passed.
    #[schemars(length(min = 1, max = 1024))]
    pub stable: String,
    /// JSONPath within an entry: true if the canary passed.
    #[schemars(length(min = 1, max = 1024))]
    pub canary: String,
}

/// Scenarios that a paired gate has compared: one suite, each draw once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PairedEvidence {
    /// All scenarios.
    #[serde(default)]
    pub pairs: i64,
    /// Stable passed, the canary failed.
    #[serde(default)]
    pub stable_only: i64,
    /// The canary passed, stable failed.
    #[serde(default)]
    pub canary_only: i64,
    /// Draws that are counted: hashes of the seeds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draws: Vec<String>,
}
