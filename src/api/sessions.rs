//! Live calls: where they are counted, and how a revision that gets no new ones goes away.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Duration, duration_schema, seconds};
use super::compare::PrometheusServer;

fn default_interval() -> Duration {
    seconds(5)
}
fn default_timeout() -> Duration {
    seconds(2)
}
fn default_pod_label() -> String {
    "pod".into()
}
fn default_max_drain() -> Duration {
    seconds(3600)
}
fn default_zero_for() -> Duration {
    seconds(30)
}

/// Where the live calls of a pod are counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sessions {
    /// The sources. With both, the greater number counts; a pod that neither counts is unknown, never idle.
    pub active_calls: ActiveCalls,
    /// Time between two readings while a release or a drain is under way.
    #[serde(default = "default_interval")]
    #[schemars(schema_with = "duration_schema")]
    pub interval: Duration,
}

/// How to count the live calls of a pod: at least one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.http) || has(self.prometheus)").message("set http, prometheus or both"))]
pub struct ActiveCalls {
    /// Every pod is asked by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCalls>,
    /// One query for all pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusCalls>,
}

/// `GET http://POD_IP:port/path` answers with JSON. The defaults are those of a LiveKit worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpCalls {
    /// Port of the pod.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Path, with `?` and what follows it where needed.
    #[serde(default = "default_path")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/"))]
    pub path: String,
    /// JSONPath of the number of live calls.
    #[serde(default = "default_json_path")]
    #[schemars(length(min = 1, max = 1024))]
    pub json_path: String,
    /// Limit of one request.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: Duration,
}

fn default_port() -> i32 {
    8081
}
fn default_path() -> String {
    "/worker".into()
}
fn default_json_path() -> String {
    "{$.active_jobs}".into()
}

/// An instant query that gives one series a pod: its live calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusCalls {
    /// The server. `scrapeInterval` is how old a number may be.
    #[serde(flatten)]
    pub server: PrometheusServer,
    /// PromQL; `{{args.namespace}}` and `{{args.rollout}}` are filled in:
    /// `sum by (pod) (voice_sessions_active{namespace="{{args.namespace}}"})`.
    #[schemars(length(min = 1, max = 8192))]
    pub query: String,
    /// Label that holds the pod's name.
    #[serde(default = "default_pod_label")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$"))]
    pub pod_label: String,
}

/// How a revision that gets no new calls goes away. Idle pods go one by one, where live calls are counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Longest time that pods are kept for the calls they carry.
    #[serde(default = "default_max_drain")]
    #[schemars(schema_with = "duration_schema")]
    pub max_drain: Duration,
    /// What happens to pods that still carry calls then, or whose calls cannot be read.
    #[serde(default)]
    pub on_max_drain: OnMaxDrain,
    /// A pod is idle when every reading of this long has found no call.
    #[serde(default = "default_zero_for")]
    #[schemars(schema_with = "duration_schema")]
    pub zero_for: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { max_drain: default_max_drain(), on_max_drain: OnMaxDrain::default(), zero_for: default_zero_for() }
    }
}

/// See [`Drain::on_max_drain`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnMaxDrain {
    /// They end, and the calls with them; how many is counted.
    #[default]
    Terminate,
    /// They stay until they are idle, and it is reported.
    Keep,
}
