//! The judge and its evidence as data.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Duration, SecretKeyRef, duration_schema, seconds};
use super::provider::PrometheusProvider;

fn default_judge_timeout() -> Duration {
    seconds(60)
}
fn default_max_tokens() -> i32 {
    2048
}
fn default_tail() -> i32 {
    200
}
fn default_log_bytes() -> i32 {
    16 * 1024
}
fn default_one() -> i32 {
    1
}

/// A language model that reads evidence and answers PASS, FAIL or UNSURE with one sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.anthropic) != has(self.openai)").message("a judge has exactly one of anthropic, openai"))]
pub struct Judge {
    /// Anthropic Messages API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anthropic: Option<JudgeApi>,
    /// OpenAI-compatible chat completions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openai: Option<JudgeApi>,
    /// What to look for; the verdict's form and the evidence are added by the operator.
    #[schemars(length(min = 1, max = 8192))]
    pub prompt: String,
    /// Verdicts to ask for; each has to be PASS.
    #[serde(default = "default_one")]
    #[schemars(range(min = 1, max = 1000))]
    pub count: i32,
    /// Time between verdicts; needed for `count` above 1 and in the background.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration_schema")]
    pub interval: Option<Duration>,
    /// Wait before the first verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration_schema")]
    pub initial_delay: Option<Duration>,
    /// FAIL answers that are tolerated.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub failure_limit: i32,
    /// What the model is shown.
    #[serde(default)]
    pub evidence: Evidence,
    /// Limit of one request.
    #[serde(default = "default_judge_timeout")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: Duration,
}

/// Where the model is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JudgeApi {
    /// Model id; pin a dated one.
    #[schemars(length(min = 1, max = 256))]
    pub model: String,
    /// Base URL when not the vendor's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub base_url: Option<String>,
    /// API key; may be left out for a server inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<SecretKeyRef>,
    /// Most tokens of one answer.
    #[serde(default = "default_max_tokens")]
    #[schemars(range(min = 64, max = 32768))]
    pub max_tokens: i32,
}

/// What the judge is shown, for both arms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Prometheus values, asked once for each arm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub metrics: Vec<EvidenceMetric>,
    /// Log lines of both arms' pods, redacted; off unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<EvidenceLogs>,
}

/// A Prometheus query that is asked once with `{{args.revision}}` the stable and once the canary hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceMetric {
    /// Name shown to the model.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Unit shown to the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub unit: Option<String>,
    /// The query.
    pub prometheus: PrometheusProvider,
    /// A query for the number of calls behind the value, on the same server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8192))]
    pub count_query: Option<String>,
}

/// Log lines for the judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceLogs {
    /// Container to read; left out: the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub container: Option<String>,
    /// Newest lines a pod.
    #[serde(default = "default_tail")]
    #[schemars(range(min = 1, max = 5000))]
    pub tail_lines: i32,
    /// Most bytes an arm.
    #[serde(default = "default_log_bytes")]
    #[schemars(range(min = 256, max = 262144))]
    pub max_bytes: i32,
}
