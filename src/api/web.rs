//! Long runs of an eval harness, and what is read from its answers: as data.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::common::{Duration, duration_schema, seconds};

fn default_interval() -> Duration {
    seconds(10)
}
fn default_deadline() -> Duration {
    seconds(1800)
}

/// A run that goes on after its start has been answered. The start carries the measurement's key as `Idempotency-Key`
/// (in URL, headers and body: `{{run.key}}`); the operator repeats it under the same key only while it has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebRun {
    /// Where and how often to ask how far the run is.
    #[serde(default)]
    pub poll: WebPoll,
    /// CEL over the answer, called `result`: true once the run has ended well. Fields that are missing are an error,
    /// except in the answer to the start; `has(result.field)` asks for one.
    #[schemars(length(min = 1, max = 1024))]
    pub done: String,
    /// The same: true once the run has ended without a result. It is asked first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub failed: Option<String>,
    /// Time from the start until the run is given up, which is an Error; at most `1h`.
    #[serde(default = "default_deadline")]
    #[schemars(schema_with = "duration_schema")]
    pub deadline: Duration,
    /// How to end a run that nobody waits for any more, after an abort or the deadline. Asked once; the answer is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<WebCancel>,
}

/// How a run is asked for its state. Headers, credentials, TLS and timeout are the start's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebPoll {
    /// A JSONPath in braces into the answer to the start, or a URL with `{{run.id}}` and `{{args.NAME}}`; left out: the
    /// `Location` header. Relative ones are resolved against the start's URL. Scheme, host and port have to be the start's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub url: Option<String>,
    /// JSONPath of the run's id in the answer to the start; fills `{{run.id}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub id: Option<String>,
    /// Request method.
    #[serde(default)]
    pub method: PollMethod,
    /// Time between polls, 1s to 15m; a `Retry-After` header of an answer replaces it.
    #[serde(default = "default_interval")]
    #[schemars(schema_with = "duration_schema")]
    pub interval: Duration,
    /// JSONPath of the seconds until the next poll in an answer; where it finds a number, that replaces `interval`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub retry_after: Option<String>,
}

impl Default for WebPoll {
    fn default() -> Self {
        Self { url: None, id: None, method: PollMethod::Get, interval: default_interval(), retry_after: None }
    }
}

/// Method of a poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum PollMethod {
    /// GET
    #[default]
    Get,
    /// POST, without a body
    Post,
}

/// The request that ends a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebCancel {
    /// Request method.
    #[serde(default)]
    pub method: CancelMethod,
    /// As [`WebPoll::url`].
    #[schemars(length(min = 1, max = 4096))]
    pub url: String,
}

/// Method of a cancellation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum CancelMethod {
    /// POST, without a body
    #[default]
    Post,
    /// DELETE
    Delete,
    /// PUT, without a body
    Put,
}

/// JSONPaths of what an answer says about the suite that it ran. Each one that is set has to be found. They are kept with
/// each verdict, and measurements whose facts differ are not counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.name), has(self.version), has(self.seed), has(self.dataset)].exists(x, x)").message("set name, version, seed or dataset"))]
pub struct SuitePaths {
    /// Name of the suite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub name: Option<String>,
    /// Version of the suite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub version: Option<String>,
    /// Seed of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub seed: Option<String>,
    /// Hash of the data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub dataset: Option<String>,
}

/// Schema of `values`: JSONPaths by name, at most 16.
pub fn values_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": { "type": "string", "minLength": 1, "maxLength": 1024 }
    })
}

/// JSONPaths by the name that an expression uses.
pub type NamedPaths = BTreeMap<String, String>;
