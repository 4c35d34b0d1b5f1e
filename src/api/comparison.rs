//! What gates that count calls have found, and what they remember from one look to the next.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a gate that counts calls has found. Logarithms are natural; evidence of 4.6 is evidence of 100 times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Edge of the histogram that speaks most against the canary; the counts below are about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<f64>,
    /// Calls of the canary.
    #[serde(default)]
    pub canary: ArmCalls,
    /// Calls of stable; absent for a gate that looks at the canary alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<ArmCalls>,
    /// Odds of a bad call on the canary, divided by those on stable; with a limit, share of bad calls. Absent while
    /// nothing can be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<f64>,
    /// Lower end of the interval around it that holds at every look; absent for 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Upper end of that interval; absent for infinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// Logarithm of the evidence against the canary.
    #[serde(default)]
    pub log_evidence: f64,
    /// Where it fails the gate.
    #[serde(default)]
    pub log_abort_line: f64,
    /// Evidence for the canary, for each weight that has a margin of its own, lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pass: Vec<PassLine>,
    /// Calls of the canary before the gate may pass.
    #[serde(default)]
    pub min_canary: i64,
    /// Time before which the gate does not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// What an abort still takes, if the canary goes on as badly as it looks; absent while nothing points there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_abort: Option<Outlook>,
    /// Looks at the counters that count.
    #[serde(default)]
    pub ticks: i64,
    /// Moment that the newest counters are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_at: Option<Time>,
}

/// Calls of one arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArmCalls {
    /// All calls.
    #[serde(default)]
    pub calls: i64,
    /// Bad ones among them.
    #[serde(default)]
    pub bad: i64,
}

/// Evidence for the canary at one weight.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PassLine {
    /// From this weight on, in percent, up to the next entry; 0 where the weight does not matter.
    #[serde(default)]
    pub weight: i32,
    /// What the canary is shown to stay below, in words: `odds ratio 4`.
    #[serde(default)]
    pub below: String,
    /// Logarithm of the evidence that it does.
    #[serde(default)]
    pub log_evidence: f64,
    /// Where it is enough.
    #[serde(default)]
    pub log_line: f64,
    /// The gate passes at this weight, as of the newest look.
    #[serde(default)]
    pub passes: bool,
    /// What a pass still takes, if the canary is as good as stable (under a limit: goes on as it has).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_pass: Option<Outlook>,
}

/// What is still needed, if calls go on coming as they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outlook {
    /// Calls of the canary.
    pub calls: i64,
    /// Time that they take, in seconds; absent while the canary has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
}

/// What a gate that counts calls remembers from one look to the next; written before anything acts on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Moment that the newest counters are of; none before is taken in again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Newest scrape of the canary that was taken in, in seconds of Unix time.
    #[serde(default)]
    pub canary_scraped: f64,
    /// The same of stable.
    #[serde(default)]
    pub stable_scraped: f64,
    /// Counters of every pod as they were then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodMemory>,
    /// What evidence is collected for; with another one it begins anew.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub design: String,
    /// Evidence, one entry a test.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<TestMemory>,
    /// Looks that count.
    #[serde(default)]
    pub ticks: i64,
    /// Moment of the first look that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// Counters of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodMemory {
    /// Its name.
    pub pod: String,
    /// It belongs to the canary.
    #[serde(default)]
    pub canary: bool,
    /// When it was first seen, in seconds of Unix time.
    pub first: i64,
    /// When it was last seen.
    pub last: i64,
    /// All calls, then what the gate needs beside them.
    pub counts: Vec<i64>,
}

/// Evidence of one test, one entry of each list an edge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestMemory {
    /// Canary's bad calls, canary's calls, stable's bad calls, stable's calls.
    pub totals: Vec<[i64; 4]>,
    /// Log-likelihoods of the design's alternatives.
    pub log_likelihood: Vec<Vec<f64>>,
}
