//! Status of a `VoiceRollout`: the only memory of the operator, and what people read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::analysis::Mode;
use super::proof::Observed;
use super::run::{Consequence, RunKind, Verdict};

pub use super::revision::{RevisionStatus, Role};

/// Newest decisions kept in `status.decisions`.
pub const MAX_DECISIONS: usize = 40;
/// Findings kept in `status.preflight`.
pub const MAX_FINDINGS: usize = 20;

/// Where a release stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VoiceRolloutStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// State of the release.
    #[serde(default)]
    pub phase: Phase,
    /// One sentence: what is going on and why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What the release waits for, or which gate failed on what.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waiting_for: String,
    /// What happens next by itself, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_action: Option<NextAction>,
    /// Hash of the revision that callers get when no release is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_revision: Option<String>,
    /// Hash of the newest revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_revision: Option<String>,
    /// Zero-based index of the current step; equal to their number when all have passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_step: Option<i32>,
    /// The current step as people count, `3/10`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step_display: String,
    /// Hash of the step list the index belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps_hash: Option<String>,
    /// Steps of this attempt, as people count, where a person overrode what was missing: the decisions say what, who and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overridden_steps: Vec<String>,
    /// Attempt at the canary revision, counting from 1; `retry` adds one.
    #[serde(default)]
    pub attempt: i32,
    /// Times that evidence of this revision began anew because gates were edited.
    #[serde(default)]
    pub evidence_restarts: i32,
    /// Chance of a false abort that all attempts at this revision spend together; `spec.falseAbort` is that of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub false_abort_spent: Option<f64>,
    /// Progress within the current step.
    #[serde(default)]
    pub step: StepState,
    /// Canary weights in percent.
    #[serde(default)]
    pub weights: Weights,
    /// Http routes that were given canary traffic and not seen without it since. One that the spec does not name any more
    /// is given back to stable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managed_routes: Vec<ManagedRoute>,
    /// Why and when the canary revision was aborted; until `retry` or a new revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<AbortRecord>,
    /// The change of roles at the end of a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Promotion>,
    /// A person said `pause`.
    #[serde(default)]
    pub user_paused: bool,
    /// Live calls by revision number, for people: `v3: 12, v2: 40 draining`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub live_calls: String,
    /// Revisions that exist, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<RevisionStatus>,
    /// Analysis runs that this release asked for; others with the same name do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunRecord>,
    /// Gates of the current step and of the background, latest values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateSummary>,
    /// What was decided, oldest first; at most [`MAX_DECISIONS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<DecisionRecord>,
    /// Actions that are carried out or refused: those not yet marked so, and the newest of the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handled_actions: Vec<HandledAction>,
    /// What the preflight has found; at most [`MAX_FINDINGS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preflight: Vec<PreflightFinding>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Pods of the stable revision; for the scale subresource.
    #[serde(default)]
    pub replicas: i32,
    /// Selector of the stable revision's pods; for the scale subresource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
}

/// Something that would cut live calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreflightFinding {
    /// What, in one CamelCase word.
    pub code: String,
    /// What it is and why it cuts calls.
    pub sentence: String,
    /// What to do.
    pub fix: String,
}

impl std::fmt::Display for PreflightFinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} Fix: {}", self.code, self.sentence, self.fix)
    }
}

/// State of a release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nothing has happened yet.
    #[default]
    Pending,
    /// The first revision is on its way to 100 %, without analysis.
    Initializing,
    /// The spec cannot be carried out; see the condition `InvalidSpec`. Weights stay where they are.
    Invalid,
    /// All new calls go to the stable revision, which is the newest.
    Healthy,
    /// A release goes through its steps.
    Progressing,
    /// A release waits for a person, or for a provider or evidence that does not come.
    Paused,
    /// All steps passed; the roles change.
    Promoting,
    /// Weights go back to stable: after an abort, or on the way back to the stable template.
    Reverting,
    /// The newest revision was aborted; all new calls go to stable.
    Degraded,
}

/// What happens next by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NextAction {
    /// What.
    pub what: String,
    /// When, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<MicroTime>,
}

/// Progress within the current step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepState {
    /// When the step became the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,
    /// Since when the current weight has been read back from every managed route, or has had its workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_since: Option<MicroTime>,
    /// Since when the canary has had traffic in this attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_since: Option<MicroTime>,
    /// Since when the canary Service (or subset) has had the ready endpoints that the step needs, and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints_since: Option<MicroTime>,
    /// Gates that a person overrode in this step, by `promote`: `Background/` or `Step/` and the name; and stopped runs, by
    /// name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overridden: Vec<String>,
    /// A person ended this step by `promote`.
    #[serde(default)]
    pub promoted: bool,
    /// Last time that something moved forward; `progressDeadline` counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_at: Option<MicroTime>,
}

/// Canary weights in percent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Weights {
    /// What the routes should say; with `traffic.replicas` what the step asks for.
    #[serde(default)]
    pub desired: i32,
    /// The highest that a managed route was last seen to say; with `traffic.replicas` the share that the available workers
    /// have, rounded.
    #[serde(default)]
    pub applied: i32,
    /// How new calls were really shared since the last change; with `traffic.proof` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
}

/// An http route of a VirtualService, and how the two arms are told apart in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedRoute {
    /// Namespace of the VirtualService.
    pub namespace: String,
    /// Its name.
    pub virtual_service: String,
    /// Name of the http route; empty for the only, unnamed one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub route: String,
    /// Host of the two subsets; absent where two Services split the calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Stable Service or subset.
    pub stable: String,
    /// Canary Service or subset.
    pub canary: String,
}

/// An abort.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AbortRecord {
    /// Hash of the revision that was aborted.
    pub revision: String,
    /// When.
    pub at: MicroTime,
    /// The step, as people count, `3/10`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// Canary weight when it was decided, in percent.
    #[serde(default)]
    pub weight: i32,
    /// The gate that failed, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// Why, in one sentence with the value.
    pub reason: String,
    /// Who asked for it, where a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What a judge with `explainAborts` made of it afterwards, or why it said nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
}

/// The change of roles at the end of a release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Promotion {
    /// Hash of the revision that becomes stable.
    pub revision: String,
    /// Why it may.
    pub grounds: Grounds,
    /// What is being done.
    pub stage: PromotionStage,
    /// When the stage began.
    pub since: MicroTime,
    /// Since when the stable Service (or subset) has had exactly the ready pods of the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_since: Option<MicroTime>,
}

/// Why a revision may become stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Grounds {
    /// There was no stable revision.
    First,
    /// Every step passed, or a person overrode what it lacked (`overriddenSteps`).
    StepsPassed,
    /// It was stable before and lies within `rollbackWindow`.
    RollbackWindow,
    /// A person said promote --full.
    PromotedFull,
}

/// What is being done in a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PromotionStage {
    /// All new calls go to the canary route, which has the full number of pods.
    FullWeight,
    /// The stable Service (or subset) moves to the new revision.
    SwitchStable,
    /// The weights go back to the stable route, which is now the new revision.
    ReturnWeights,
}

/// An analysis run that the release asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// Name of the VoiceAnalysisRun.
    pub name: String,
    /// Kind.
    pub kind: RunKind,
    /// Zero-based index of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<i32>,
    /// Hash of the spec that was asked for.
    pub spec_hash: String,
}

/// A gate's latest state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateSummary {
    /// Name.
    pub name: String,
    /// Whether it belongs to the step or to the background.
    pub kind: RunKind,
    /// Whether its verdict counts.
    #[serde(default)]
    pub mode: Mode,
    /// Verdict; absent while undecided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consequence: Option<Consequence>,
    /// Latest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What looks wrong with the gate or its data, though it can be measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// For a gate that counts calls: when these values were copied. Its run has the newest ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<MicroTime>,
}

/// Something that was decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionRecord {
    /// When.
    pub at: MicroTime,
    /// Revision it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// The step, as people count.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// What, in one CamelCase word: also the reason of the event.
    pub decision: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Values it rests on, one `gate=value (verdict)` each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Who, where it was a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// An action that is carried out or refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HandledAction {
    /// UID of the VoiceRolloutAction.
    pub uid: String,
    /// Carried out, or refused.
    pub applied: bool,
    /// One sentence.
    pub message: String,
}
