//! Gates as data: what an analysis measures and how it decides. Shared by rollouts, templates and runs.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Duration, SecretKeyRef, duration_schema, seconds};

/// One gate: exactly one of `threshold` and `judge`, and what its verdicts lead to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.threshold) != has(self.judge)").message("a gate is exactly one of threshold, judge"))]
pub struct Gate {
    /// Name, unique within the analysis.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Whether the verdict counts.
    #[serde(default)]
    pub mode: Mode,
    /// What a Fail leads to.
    #[serde(default)]
    pub on_fail: OnFail,
    /// What an Error leads to once `errorBudget` is spent.
    #[serde(default)]
    pub on_error: OnError,
    /// What staying undecided until `maxDuration` leads to.
    #[serde(default)]
    pub on_inconclusive: OnInconclusive,
    /// Time the provider may keep failing before `onError` applies.
    #[serde(default = "default_error_budget")]
    #[schemars(schema_with = "duration_schema")]
    pub error_budget: Duration,
    /// The gate does not pass earlier than this after its first measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration_schema")]
    pub min_duration: Option<Duration>,
    /// Time the gate may stay undecided before `onInconclusive` applies.
    #[serde(default = "default_max_duration")]
    #[schemars(schema_with = "duration_schema")]
    pub max_duration: Duration,
    /// A value from a provider against conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Threshold>,
    /// A language model that says PASS, FAIL or UNSURE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<Judge>,
}

fn default_error_budget() -> Duration {
    seconds(300)
}
fn default_max_duration() -> Duration {
    seconds(3600)
}
fn default_one() -> i32 {
    1
}
fn default_consecutive_errors() -> i32 {
    4
}
fn default_timeout() -> Duration {
    seconds(10)
}
fn default_scrape() -> Duration {
    seconds(15)
}
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

/// Whether a gate's verdict counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// It has to pass, and its Fail stops the release.
    #[default]
    Enforce,
    /// It is measured and shown, and changes nothing.
    DryRun,
    /// Its Fail stops the release; its Pass is not required.
    Signal,
}

/// See [`Gate::on_fail`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFail {
    /// Weights to stable at once.
    #[default]
    Abort,
    /// Keep the weights and wait for a person; `promote` does not override it, `abort` and `retry` end it.
    Pause,
}

/// See [`Gate::on_error`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnError {
    /// Keep the weights and wait until the provider answers again or a person promotes.
    #[default]
    Pause,
    /// Weights to stable at once.
    Abort,
}

/// See [`Gate::on_inconclusive`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnInconclusive {
    /// Keep the weights and wait for evidence or a person.
    #[default]
    Pause,
    /// Weights to stable at once.
    Abort,
    /// Go on waiting as if `maxDuration` had not passed.
    Extend,
}

/// How `count` and the limits are applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Counting {
    /// Errors and undecided measurements hold the weight and are repeated; limits count Fail only.
    #[default]
    Hold,
    /// Argo Rollouts' counting, except that nothing passes without a successful measurement.
    Argo,
}

/// A value from a provider against conditions. Expressions are CEL over `result`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.successCondition) || has(self.failureCondition)").message("set successCondition, failureCondition or both"))]
#[x_kube(validation = Rule::new("!has(self.count) || self.count <= 1 || has(self.interval)").message("count above 1 needs an interval"))]
pub struct Threshold {
    /// Time from the end of one measurement to the start of the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration_schema")]
    pub interval: Option<Duration>,
    /// Successful or failed measurements to take; left out: 1 in a step, no end in the background when `interval` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub count: Option<i32>,
    /// Wait before the first measurement, on top of the query's own window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration_schema")]
    pub initial_delay: Option<Duration>,
    /// True: the measurement passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub success_condition: Option<String>,
    /// True: the measurement fails, whatever `successCondition` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub failure_condition: Option<String>,
    /// Failed measurements that are tolerated; one more fails the gate. -1: never.
    #[serde(default)]
    #[schemars(range(min = -1, max = 100000))]
    pub failure_limit: i32,
    /// Undecided measurements that are tolerated (`counting: argo`). -1: never.
    #[serde(default)]
    #[schemars(range(min = -1, max = 100000))]
    pub inconclusive_limit: i32,
    /// Errors in a row that are tolerated (`counting: argo`). -1: never.
    #[serde(default = "default_consecutive_errors")]
    #[schemars(range(min = -1, max = 100000))]
    pub consecutive_error_limit: i32,
    /// Successes in a row that pass the gate; 0: off.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100000))]
    pub consecutive_success_limit: i32,
    /// How the limits are applied.
    #[serde(default)]
    pub counting: Counting,
    /// A known-answer check: the first failed measurement aborts, whatever `failureLimit` and `onFail` say.
    #[serde(default)]
    pub sentinel: bool,
    /// Where the value comes from.
    pub provider: Provider,
}

/// Where a value comes from: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.prometheus) != has(self.web)").message("a provider is exactly one of prometheus, web"))]
pub struct Provider {
    /// A Prometheus instant query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusProvider>,
    /// An HTTP endpoint that answers with JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web: Option<WebProvider>,
}

/// A Prometheus instant query. `result` is the value of its one series, or a list when the condition indexes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusProvider {
    /// Base URL, without `{{args...}}` in scheme, host or port.
    #[schemars(length(min = 1, max = 2048))]
    pub address: String,
    /// PromQL; `{{args.NAME}}` inside quotes is escaped.
    #[schemars(length(min = 1, max = 8192))]
    pub query: String,
    /// How often the server scrapes the agents; the first measurement waits the longest window of the query plus this.
    #[serde(default = "default_scrape")]
    #[schemars(schema_with = "duration_schema")]
    pub scrape_interval: Duration,
    /// Extra request headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<Header>,
    /// Credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// TLS settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Limit of one request.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: Duration,
}

/// An HTTP endpoint that answers with JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebProvider {
    /// Request method.
    #[serde(default)]
    pub method: Method,
    /// URL; `{{args.NAME}}` is percent-encoded, and refused in scheme, host and port.
    #[schemars(length(min = 1, max = 4096))]
    pub url: String,
    /// Extra request headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<Header>,
    /// Request body; `{{args.NAME}}` inside a JSON string is escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub body: Option<String>,
    /// JSONPath of the value, with or without braces: `{$.passRate}`.
    #[serde(default = "default_json_path")]
    #[schemars(length(min = 1, max = 1024))]
    pub json_path: String,
    /// Credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// TLS settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Limit of the request; an eval suite may take long.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: Duration,
}

fn default_json_path() -> String {
    "{$}".into()
}

/// HTTP request method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// GET
    #[default]
    Get,
    /// POST
    Post,
    /// PUT
    Put,
}

/// A request header: exactly one of `value` and `secretKeyRef`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.value) != has(self.secretKeyRef)").message("a header has exactly one of value, secretKeyRef"))]
pub struct Header {
    /// Header name.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Literal value; `{{args.NAME}}` is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,
    /// Value from a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}

/// Credentials: exactly one of `bearer` and `basic`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.bearer) != has(self.basic)").message("auth has exactly one of bearer, basic"))]
pub struct Auth {
    /// `Authorization: Bearer` with a token from a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<SecretKeyRef>,
    /// `Authorization: Basic` with user and password from Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,
}

/// User and password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// User name.
    pub username: SecretKeyRef,
    /// Password.
    pub password: SecretKeyRef,
}

/// TLS settings of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// PEM certificates to trust beside the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<SecretKeyRef>,
    /// Do not check the certificate. For tests only.
    #[serde(default)]
    pub insecure_skip_verify: bool,
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

/// A value for `{{args.NAME}}`. `canary-hash`, `stable-hash`, `weight`, `step` and `attempt` are always there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.value) && has(self.valueFrom))").message("an argument has one of value, valueFrom, not both"))]
pub struct Arg {
    /// Name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Literal value; in a template it is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,
    /// Value from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ArgSource>,
}

/// Source of an argument's value: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.secretKeyRef), has(self.fieldRef), has(self.release)].filter(x, x).size() == 1").message("valueFrom is exactly one of secretKeyRef, fieldRef, release"))]
pub struct ArgSource {
    /// A Secret's key; read at each measurement, never written to a status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
    /// A field of the VoiceRollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_ref: Option<FieldRef>,
    /// A fact of the release in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseFact>,
}

/// A field of the VoiceRollout, as in `metadata.labels['team']` or `spec.replicas`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldRef {
    /// Path from the object's root.
    #[schemars(length(min = 1, max = 512))]
    pub field_path: String,
}

/// A fact of the release in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ReleaseFact {
    /// Hash of the stable revision.
    StableRevision,
    /// Hash of the canary revision.
    CanaryRevision,
    /// Canary weight of the step, in percent.
    Weight,
    /// One-based number of the step.
    Step,
}
