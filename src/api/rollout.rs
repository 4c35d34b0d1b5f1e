//! `VoiceRollout`: the release of one voice agent.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::analysis::{Arg, Gate};
use super::common::{Duration, duration_schema, seconds};
use super::notification::Notification;
use super::proof::Proof;
pub use super::sessions::Drain;
use super::sessions::Sessions;
use super::status::VoiceRolloutStatus;
use super::stickiness::Stickiness;

/// Describes a voice agent and how a new version of it reaches callers.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "voicerollout.dev",
    version = "v1alpha1",
    kind = "VoiceRollout",
    plural = "voicerollouts",
    singular = "voicerollout",
    shortname = "vr",
    namespaced,
    status = "VoiceRolloutStatus",
    derive = "PartialEq",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas", label_selector_path = ".status.selector"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.stepDisplay"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".status.weights.applied"),
    printcolumn(name = "Gate", type_ = "string", json_path = ".status.waitingFor"),
    printcolumn(name = "Stable", type_ = "string", json_path = ".status.stableRevision"),
    printcolumn(name = "Canary", type_ = "string", json_path = ".status.canaryRevision"),
    printcolumn(name = "Calls", type_ = "string", json_path = ".status.liveCalls", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.selector == oldSelf.selector").message("selector is immutable: delete the VoiceRollout and create it with the new selector"))]
#[x_kube(validation = Rule::new("has(self.steps) || has(self.analysis)").message("without steps the weights go 5, 25, 50, 100 and spec.analysis has to pass after each: set spec.analysis, or write spec.steps"))]
pub struct VoiceRolloutSpec {
    /// Pods of the stable revision.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 10000))]
    pub replicas: i32,
    /// Selects the pods of this rollout; immutable, and `template` has to carry its labels.
    pub selector: LabelSelector,
    /// The pod that runs the agent. Any change of it is a new revision.
    pub template: PodTemplateSpec,
    /// Seconds a new pod has to be Ready before it counts as available.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3600))]
    pub min_ready_seconds: i32,
    /// Old ReplicaSets kept for `undo`.
    #[serde(default = "default_history")]
    #[schemars(range(min = 0, max = 100))]
    pub revision_history_limit: i32,
    /// Going back to a once-stable revision within this window skips all steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_window: Option<RollbackWindow>,
    /// Time a step may wait for pods, weights or Services without progress.
    #[serde(default = "default_progress_deadline")]
    #[schemars(schema_with = "duration_schema")]
    pub progress_deadline: Duration,
    /// What happens when `progressDeadline` has passed.
    #[serde(default)]
    pub on_progress_deadline: OnDeadline,
    /// Stops steps where they are; gates go on and may still abort.
    #[serde(default)]
    pub paused: bool,
    /// How new calls are split between the revisions.
    pub traffic: Traffic,
    /// What happens on the way to 100 %. Left out: weights 5, 25, 50, 100, with `analysis` passing after each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub steps: Option<Vec<Step>>,
    /// Background gates: they run from the first canary traffic until the promotion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
    /// Chance that the release is ever aborted by its gates that count calls although the canary is no worse, however
    /// often they look; above 0 and below 0.5. The gates share it.
    #[serde(default = "default_false_abort")]
    #[schemars(range(min = 0.0, max = 0.5))]
    pub false_abort: f64,
    /// Where live calls are counted. Left out, every pod of a losing revision may carry one until `drain.maxDrain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Sessions>,
    /// What becomes of what the preflight finds: things that would cut live calls though every gate passes.
    #[serde(default)]
    pub preflight: Preflight,
    /// How the losing revision of a promotion or an abort goes away.
    #[serde(default)]
    pub drain: Drain,
    /// Whom to tell what of a release, beside the operator's defaults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub notifications: Vec<Notification>,
    /// Most revisions that have pods at the same time; a release waits until one of those that drain is gone.
    #[serde(default = "default_live")]
    #[schemars(range(min = 2, max = 20))]
    pub max_live_revisions: i32,
    /// The old revision is kept at least this long after a promotion.
    #[serde(default = "default_delay")]
    #[schemars(schema_with = "duration_schema")]
    pub scale_down_delay: Duration,
    /// The failed revision is kept at least this long after an abort.
    #[serde(default = "default_delay")]
    #[schemars(schema_with = "duration_schema")]
    pub abort_scale_down_delay: Duration,
}

fn default_false_abort() -> f64 {
    super::compare::FALSE_ABORT
}
fn default_replicas() -> i32 {
    1
}
fn default_history() -> i32 {
    10
}
fn default_progress_deadline() -> Duration {
    seconds(600)
}
fn default_delay() -> Duration {
    seconds(30)
}
fn default_propagation() -> Duration {
    seconds(10)
}
fn default_live() -> i32 {
    3
}

/// See [`VoiceRolloutSpec::rollback_window`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollbackWindow {
    /// How many revisions back a direct return may go.
    #[schemars(range(min = 1, max = 100))]
    pub revisions: i32,
}

/// See [`VoiceRolloutSpec::on_progress_deadline`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDeadline {
    /// Put the weights back to stable.
    Abort,
    /// Say so in the conditions and go on waiting.
    #[default]
    Report,
}

/// See [`VoiceRolloutSpec::preflight`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Preflight {
    /// Say so in the condition `Preflight` and go on.
    #[default]
    Warn,
    /// Do not raise the canary's weight while anything is found.
    Enforce,
}

/// One of the ways to split traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.istio)").message("set traffic.istio"))]
pub struct Traffic {
    /// Istio VirtualService weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub istio: Option<IstioTraffic>,
    /// Checks after every change of the weight that new calls are shared as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// Weights of Istio VirtualService http routes, between two Services or two subsets of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.destinationRule) || (has(self.stableService) && has(self.canaryService))").message("set stableService and canaryService, or destinationRule with two subsets"))]
#[x_kube(validation = Rule::new("!has(self.stableService) || !has(self.canaryService) || self.stableService != self.canaryService").message("stableService and canaryService must be two Services"))]
pub struct IstioTraffic {
    /// Service that selects the stable revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub stable_service: Option<String>,
    /// Service that selects the newest revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub canary_service: Option<String>,
    /// The VirtualServices whose weights are written.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into(), "namespace".into()]))]
    pub virtual_services: Vec<VirtualServiceRef>,
    /// Split by subsets of this DestinationRule in place of two Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_rule: Option<DestinationRuleRef>,
    /// Time that a change of routes or Services needs to reach every proxy.
    #[serde(default = "default_propagation")]
    #[schemars(schema_with = "duration_schema")]
    pub propagation_delay: Duration,
    /// How callers keep their version while the weight grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stickiness: Option<Stickiness>,
}

/// A VirtualService and the names of its http routes to manage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServiceRef {
    /// Name of the VirtualService.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; empty means the rollout's own. Another one has to allow ours in the annotation
    /// `voicerollout.dev/allow-from`.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Names of http routes; may be left out when the VirtualService has exactly one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub routes: Vec<String>,
}

/// Two subsets of a DestinationRule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DestinationRuleRef {
    /// Name of the DestinationRule, in the rollout's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Name of the subset that is stable.
    #[schemars(length(min = 1, max = 63))]
    pub stable_subset: String,
    /// Name of the subset that is the canary.
    #[schemars(length(min = 1, max = 63))]
    pub canary_subset: String,
}

/// One step of a release: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.setWeight), has(self.pause), has(self.analysis), has(self.setCanaryScale)].filter(x, x).size() == 1").message("a step is exactly one of setWeight, pause, analysis, setCanaryScale"))]
pub struct Step {
    /// Percentage of new calls for the canary; 0 is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub set_weight: Option<i32>,
    /// Wait, for a time or until promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Run gates and wait for their verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
    /// Canary pods apart from the weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_canary_scale: Option<CanaryScale>,
}

/// A wait; without a duration until `promote`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// Length of the wait, from the moment the step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration_schema")]
    pub duration: Option<Duration>,
}

/// Canary pods apart from the weight: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.replicas), has(self.weight), has(self.matchTrafficWeight)].filter(x, x).size() == 1").message("setCanaryScale is exactly one of replicas, weight, matchTrafficWeight"))]
pub struct CanaryScale {
    /// A number of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub replicas: Option<i32>,
    /// A percentage of `spec.replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub weight: Option<i32>,
    /// Back to following the traffic weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_traffic_weight: Option<bool>,
}

/// Gates to run, from templates and inline, or background gates to wait for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// Templates whose gates run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub templates: Vec<TemplateRef>,
    /// Gates written here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub gates: Vec<Gate>,
    /// Values for the templates' arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub args: Vec<Arg>,
    /// Names of background gates (`spec.analysis`) that have to pass, on data newer than the last weight change,
    /// before the step is done. Only in steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub require: Vec<String>,
}

/// A VoiceAnalysisTemplate, or with `cluster: true` a ClusterVoiceAnalysisTemplate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateRef {
    /// Name of the template.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The cluster-wide kind.
    #[serde(default)]
    pub cluster: bool,
}
