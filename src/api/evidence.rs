//! What a judge is shown, as data.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Duration, duration_schema, seconds};
use super::provider::PrometheusProvider;
use super::traces::EvidenceTraces;

fn default_tail() -> i32 {
    200
}
fn default_log_bytes() -> i32 {
    16 * 1024
}
fn default_label() -> String {
    "revision".into()
}
fn default_window() -> Duration {
    seconds(300)
}
fn default_template_tail() -> i32 {
    20_000
}
fn default_template_bytes() -> i32 {
    8 * 1024 * 1024
}
fn default_max_clusters() -> i32 {
    1000
}
fn default_depth() -> i32 {
    2
}
fn default_max_line() -> i32 {
    1000
}
fn default_show() -> i32 {
    30
}
fn default_sample() -> i32 {
    5
}
fn default_transcript_bytes() -> i32 {
    1000
}

/// What the judge is shown, for both arms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Prometheus values, asked once for each arm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub metrics: Vec<EvidenceMetric>,
    /// Means of histograms whose unit is a call, such as tool calls or dollars in a call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub per_call: Vec<EvidencePerCall>,
    /// Log lines of both arms' pods, redacted; off unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<EvidenceLogs>,
    /// Traces of both arms in sum, where a backend with a query API has them; off unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traces: Option<EvidenceTraces>,
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

/// A histogram that takes one observation a call. Its mean is shown for both arms, with the number of calls:
/// `sum(rate(NAME_sum{..}[window])) / sum(rate(NAME_count{..}[window]))`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvidencePerCall {
    /// Name shown to the model.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Unit shown to the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub unit: Option<String>,
    /// Name of the histogram, without `_sum`, `_count` or `_bucket`.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[a-zA-Z_:][a-zA-Z0-9_:]*$"))]
    pub histogram: String,
    /// Label that holds the revision's hash.
    #[serde(default = "default_label")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$"))]
    pub revision_label: String,
    /// How far back the query looks.
    #[serde(default = "default_window")]
    #[schemars(schema_with = "duration_schema")]
    pub window: Duration,
    /// Base URL of the Prometheus server. For credentials or TLS settings use `metrics`.
    #[schemars(length(min = 1, max = 2048))]
    pub address: String,
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
    /// Kinds of lines that are new or much more frequent in one arm, found by template mining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub templates: Option<EvidenceTemplates>,
    /// A sample of what was said; off unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcripts: Option<EvidenceTranscripts>,
}

/// Template mining by Drain (He et al., ICWS 2017): lines that differ only in numbers, ids and names become one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceTemplates {
    /// Newest lines a pod that are read for it.
    #[serde(default = "default_template_tail")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub tail_lines: i32,
    /// Most bytes an arm that are read for it.
    #[serde(default = "default_template_bytes")]
    #[schemars(range(min = 1024, max = 268_435_456))]
    pub read_bytes: i32,
    /// Most kinds that are kept in memory; lines of further ones are only counted.
    #[serde(default = "default_max_clusters")]
    #[schemars(range(min = 10, max = 20_000))]
    pub max_clusters: i32,
    /// Words of a line that choose its branch of the parse tree.
    #[serde(default = "default_depth")]
    #[schemars(range(min = 1, max = 12))]
    pub depth: i32,
    /// Bytes of a line that are looked at.
    #[serde(default = "default_max_line")]
    #[schemars(range(min = 64, max = 16_384))]
    pub max_line: i32,
    /// Most kinds that are shown an arm.
    #[serde(default = "default_show")]
    #[schemars(range(min = 1, max = 200))]
    pub show: i32,
}

/// Where transcripts stand in the logs, and how many are shown. They are redacted like everything else, yet what callers
/// say may name people in ways that no pattern finds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceTranscripts {
    /// Field of JSON log lines that holds what was said.
    #[schemars(length(min = 1, max = 128))]
    pub field: String,
    /// Most transcripts an arm.
    #[serde(default = "default_sample")]
    #[schemars(range(min = 1, max = 50))]
    pub sample: i32,
    /// Most bytes of one.
    #[serde(default = "default_transcript_bytes")]
    #[schemars(range(min = 64, max = 16_384))]
    pub max_bytes: i32,
}
