//! Gates as data: what an analysis measures and how it decides. Shared by rollouts, templates and runs.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Duration, SecretKeyRef, duration_schema, seconds};
pub use super::compare::{Absolute, Compare, CompareHistogram};
pub use super::judge::{Evidence, EvidenceLogs, EvidenceMetric, Judge, JudgeApi};
pub use super::paired::{Paired, ScenarioPaths};
pub use super::proof::Split;
pub use super::provider::{Auth, BasicAuth, Header, Method, PrometheusProvider, Provider, Tls, WebProvider};
pub use super::web::{CancelMethod, PollMethod, SuitePaths, WebCancel, WebPoll, WebRun};

/// One gate: exactly one of `threshold`, `judge`, `compare`, `compareHistogram`, `absolute` and `paired`, and what its
/// verdicts lead to. A run may also have the operator's own `split`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.threshold) ? 1 : 0) + (has(self.judge) ? 1 : 0) + (has(self.paired) ? 1 : 0) + (has(self.compare) ? 1 : 0) + (has(self.compareHistogram) ? 1 : 0) + (has(self.absolute) ? 1 : 0) + (has(self.split) ? 1 : 0) == 1").message("a gate is exactly one of threshold, judge, compare, compareHistogram, absolute, paired"))]
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
    /// This gate's share of the rollout's `falseAbort`, for a gate that counts calls; the others share the rest equally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 0.5))]
    pub false_abort: Option<f64>,
    /// A value from a provider against conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Threshold>,
    /// A language model that says PASS, FAIL or UNSURE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<Judge>,
    /// Bad calls of the canary against stable's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<Compare>,
    /// A histogram of the canary against stable's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare_histogram: Option<CompareHistogram>,
    /// Bad calls of the canary against a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute: Option<Absolute>,
    /// The same eval scenarios on stable and canary, compared scenario by scenario.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paired: Option<Paired>,
    /// Calls that begin, by version. Made by the operator from `traffic.proof`, and not for people to write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
}

impl Gate {
    /// The operator's own gate that counts calls which begin; it holds and aborts nothing by itself.
    pub fn that_counts(name: &str, split: Split) -> Self {
        Self {
            name: name.into(),
            mode: Mode::Signal,
            on_fail: OnFail::Pause,
            on_error: OnError::Pause,
            on_inconclusive: OnInconclusive::Extend,
            error_budget: default_error_budget(),
            min_duration: None,
            max_duration: default_max_duration(),
            false_abort: None,
            threshold: None,
            judge: None,
            compare: None,
            compare_histogram: None,
            absolute: None,
            paired: None,
            split: Some(split),
        }
    }

    /// How the gate reads counters of both arms, whatever it makes of them.
    pub fn reads_counters(&self) -> Option<&super::compare::Counted> {
        self.counted().or_else(|| self.split.as_ref().map(|s| &s.counted))
    }

    /// Whether the gate keeps a part of the rollout's promise about false aborts.
    pub fn shares_false_abort(&self) -> bool {
        self.counted().is_some() || self.paired.is_some()
    }

    /// How the gate counts calls, if it is one that does.
    pub fn counted(&self) -> Option<&super::compare::Counted> {
        let compare = self.compare.as_ref().map(|c| &c.counted);
        let histogram = || self.compare_histogram.as_ref().map(|c| &c.counted);
        compare.or_else(histogram).or_else(|| self.absolute.as_ref().map(|a| &a.counted))
    }
}

fn default_error_budget() -> Duration {
    seconds(300)
}
fn default_max_duration() -> Duration {
    seconds(3600)
}
fn default_consecutive_errors() -> i32 {
    4
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
