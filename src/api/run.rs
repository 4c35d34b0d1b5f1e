//! `VoiceAnalysisRun`: one execution of gates, with every measurement. The record a user opens afterwards.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::analysis::{Gate, Mode};
use super::common::SecretKeyRef;
pub use super::comparison::{ArmCalls, Comparison, Memory, Outlook, PassLine, PodMemory, TestMemory};
use super::judge::{JudgeRecord, Spent};
use super::paired::PairedEvidence;
use super::proof::SplitCounts;

/// One execution of gates. Made by the operator; its spec never changes except `stop`.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "voicerollout.dev",
    version = "v1alpha1",
    kind = "VoiceAnalysisRun",
    plural = "voiceanalysisruns",
    singular = "voiceanalysisrun",
    shortname = "var",
    namespaced,
    status = "VoiceAnalysisRunStatus",
    derive = "PartialEq",
    printcolumn(name = "Rollout", type_ = "string", json_path = ".spec.rollout"),
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.kind"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".spec.revision"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct VoiceAnalysisRunSpec {
    /// Name of the VoiceRollout.
    pub rollout: String,
    /// UID of the VoiceRollout.
    pub rollout_uid: String,
    /// What the run is for.
    pub kind: RunKind,
    /// Hash of the revision that is judged.
    pub revision: String,
    /// Hash of the stable revision beside it.
    #[serde(default)]
    pub stable_revision: String,
    /// Attempt at the revision, counting from 1; `retry` adds one.
    pub attempt: i32,
    /// Zero-based index of the step (`kind: Step`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<i32>,
    /// Canary weight when the run began, in percent.
    #[serde(default)]
    pub weight: i32,
    /// Since when that weight was observed on the routes; windows of queries start here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_since: Option<Time>,
    /// The gates, resolved from templates and inline ones. `{{args...}}` is filled at each measurement.
    #[schemars(length(max = 64))]
    pub gates: Vec<RunGate>,
    /// End the run: what is undecided stays undecided and is never a pass.
    #[serde(default)]
    pub stop: bool,
    /// The abort that is explained (`kind: Explanation`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explains: Option<Explains>,
}

/// The abort that a run explains, as it stood when the calls were back at stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explains {
    /// Name of the gate that failed.
    pub gate: String,
    /// Why the release was aborted.
    pub reason: String,
    /// What the release's gates had found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub gates: Vec<Finding>,
}

/// What a gate had found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Name of the gate.
    pub name: String,
    /// Its verdict; absent while undecided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Its latest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A gate with the arguments of the template it came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunGate {
    /// The gate.
    pub gate: Gate,
    /// Values for `{{args.NAME}}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub args: Vec<RunArg>,
    /// The gate came from a ClusterVoiceAnalysisTemplate: Secrets that the template itself names are read in
    /// the operator's namespace and go only to that template's literal host.
    #[serde(default)]
    pub from_cluster_template: bool,
}

/// A resolved argument: a value, or a Secret's key that is read at each measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunArg {
    /// Name.
    pub name: String,
    /// Value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
    /// The Secret was named by a cluster template (operator's namespace), not by the rollout.
    #[serde(default)]
    pub in_operator_namespace: bool,
}

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RunKind {
    /// From the first canary traffic until the promotion.
    Background,
    /// One `analysis` step.
    Step,
    /// A judge says once why an aborted canary did worse. Nothing rests on it.
    Explanation,
}

/// State of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunPhase {
    /// Gates are undecided.
    #[default]
    Running,
    /// Every enforcing gate passed.
    Pass,
    /// A gate failed.
    Fail,
    /// Ended from outside before a verdict; never a pass.
    Stopped,
    /// An explanation was given, or could not be; never a pass.
    Done,
}

/// A verdict of a measurement or a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    /// The evidence meets the condition.
    Pass,
    /// The evidence breaks the condition.
    Fail,
    /// There is not enough evidence.
    Inconclusive,
    /// The provider failed, not the canary.
    Error,
}

/// What a run has found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VoiceAnalysisRunStatus {
    /// State.
    #[serde(default)]
    pub phase: RunPhase,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Start of the first measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// End of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// One entry a gate, in the spec's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateStatus>,
}

/// What one gate has found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// Name of the gate.
    pub name: String,
    /// Whether its verdict counts.
    #[serde(default)]
    pub mode: Mode,
    /// The verdict. `Pass` and `Fail` are final; `Error` (budget spent) and `Inconclusive` (maxDuration passed) are
    /// given up as soon as evidence arrives. Absent while undecided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What the verdict asks the release to do; absent while there is nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consequence: Option<Consequence>,
    /// One sentence with the value and the condition.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Latest value, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Start of the newest measurement that passed; says how fresh the evidence is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_pass_at: Option<Time>,
    /// The newest finished measurement passed and no failed, undecided or erroneous one came after it.
    #[serde(default)]
    pub passing: bool,
    /// Finished measurements by verdict.
    #[serde(default)]
    pub counts: Counts,
    /// When the first measurement began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Since when the provider has been failing without a break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Time>,
    /// Since when measurements have been undecided without a break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecided_since: Option<Time>,
    /// When the next measurement starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Time>,
    /// The measurement under way; written before its request is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<InFlight>,
    /// The newest finished measurements, oldest first; at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measurements: Vec<Measurement>,
    /// Tokens the judge has used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// What a gate that counts calls has found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// What looks wrong with the gate or its data, though it can be measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What a gate that counts calls remembers from one look to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Suite of the measurements that are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<Suite>,
    /// Scenarios that a `paired` gate has compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paired: Option<PairedEvidence>,
    /// Calls that began, for the operator's own gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitCounts>,
    /// What the judge has used of its budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<Spent>,
}

/// What a gate's verdict asks the release to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Consequence {
    /// Weights to stable at once.
    Abort,
    /// Keep the weights and wait.
    Pause,
}

/// Finished measurements by verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Passed.
    #[serde(default)]
    pub pass: i32,
    /// Failed.
    #[serde(default)]
    pub fail: i32,
    /// Undecided.
    #[serde(default)]
    pub inconclusive: i32,
    /// Provider failures.
    #[serde(default)]
    pub error: i32,
    /// Provider failures without another result between them, up to now.
    #[serde(default)]
    pub consecutive_error: i32,
    /// Passes without another result between them, up to now.
    #[serde(default)]
    pub consecutive_pass: i32,
    /// Finished measurements of another suite, which do not count any more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub set_aside: i32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// A measurement under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InFlight {
    /// Idempotency key; goes to the provider, and a result with another key is discarded.
    pub key: String,
    /// When it began.
    pub started_at: Time,
    /// Provider's own handle for `poll`, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// Why the provider's newest answer is none, while it is asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A finished measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Measurement {
    /// When it began.
    pub started_at: Time,
    /// When it ended.
    pub finished_at: Time,
    /// Its verdict.
    pub verdict: Verdict,
    /// The value, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What there is to say about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The suite that was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<Suite>,
    /// What a judge's verdict rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeRecord>,
}

/// What an eval harness says about the suite that it ran; each text has at most 128 characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Suite {
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
    /// Hash of the data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
}

/// Tokens the judge has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// Read by the model.
    #[serde(default)]
    pub input: i64,
    /// Written by the model.
    #[serde(default)]
    pub output: i64,
}
