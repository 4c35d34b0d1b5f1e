//! Traces that a judge is shown in sum, as data.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Duration, duration_schema, seconds};
use super::provider::Access;

fn default_attribute() -> String {
    "voicerollout.revision".into()
}
fn default_window() -> Duration {
    seconds(300)
}
fn default_traces() -> i32 {
    20
}
fn default_bytes() -> i32 {
    4 * 1024 * 1024
}
fn default_show() -> i32 {
    8
}
fn default_timeout() -> Duration {
    seconds(20)
}

/// Traces of both arms, as many of each: how many are slow or failing, and in which spans. Only names and numbers of spans
/// are used; attributes, events and messages are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceTraces {
    /// What serves the traces.
    pub backend: TraceBackend,
    /// Base URL of its query API, without `{{args...}}` in scheme, host or port.
    #[schemars(length(min = 1, max = 2048))]
    pub address: String,
    /// The agent's `service.name`.
    #[schemars(length(min = 1, max = 255))]
    pub service: String,
    /// Attribute of its resources or spans that holds the revision's hash, the pods' label `voicerollout.dev/revision`.
    #[serde(default = "default_attribute")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_./-]*$"))]
    pub revision_attribute: String,
    /// A trace whose first span begins and whose last span ends further apart than this is slow.
    #[schemars(schema_with = "duration_schema")]
    pub slower_than: Duration,
    /// How far back traces are looked for.
    #[serde(default = "default_window")]
    #[schemars(schema_with = "duration_schema")]
    pub window: Duration,
    /// Most traces an arm.
    #[serde(default = "default_traces")]
    #[schemars(range(min = 1, max = 100))]
    pub max_traces: i32,
    /// Most bytes an arm that are read for it; traces that have more are an error.
    #[serde(default = "default_bytes")]
    #[schemars(range(min = 65_536, max = 67_108_864))]
    pub max_bytes: i32,
    /// Most names of spans that are shown an arm, of those with errors and of those that take the most time.
    #[serde(default = "default_show")]
    #[schemars(range(min = 1, max = 50))]
    pub show: i32,
    /// How the server is asked.
    #[serde(flatten)]
    pub access: Access,
    /// Limit of all requests for one arm.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: Duration,
}

/// A query API that answers in OTLP JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TraceBackend {
    /// Grafana Tempo: `/api/search` by TraceQL, then `/api/traces/ID` for each.
    Tempo,
    /// Jaeger: `/api/v3/traces`, the whole traces in one answer.
    Jaeger,
}
