//! The judge as data: whom to ask, how often, at what cost, and the record of what was answered.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::common::{Duration, SecretKeyRef, duration_schema, seconds};
pub use super::evidence::{Evidence, EvidenceLogs, EvidenceMetric, EvidencePerCall, EvidenceTemplates, EvidenceTranscripts};
use super::run::Tokens;

fn default_judge_timeout() -> Duration {
    seconds(60)
}
fn default_max_tokens() -> i32 {
    2048
}
fn default_max_input_tokens() -> i32 {
    32_000
}
fn default_one() -> i32 {
    1
}
fn default_min_cases() -> i32 {
    20
}

/// An odd number, so that votes cannot be tied between PASS and FAIL.
fn votes_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "enum": [1, 3, 5, 7, 9]})
}

/// A language model that reads evidence and answers PASS, FAIL or UNSURE with one sentence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.anthropic) != has(self.openai)").message("a judge has exactly one of anthropic, openai"))]
pub struct Judge {
    /// Anthropic Messages API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anthropic: Option<JudgeApi>,
    /// OpenAI-compatible chat completions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openai: Option<JudgeApi>,
    /// What to look for; the verdict's form and the evidence are added by the operator. Write `canary` and `stable` for
    /// the two versions and nothing else: the model is told letters in their place, which change between votes.
    #[schemars(length(min = 1, max = 8192))]
    pub prompt: String,
    /// Verdicts to ask for; each has to be PASS.
    #[serde(default = "default_one")]
    #[schemars(range(min = 1, max = 1000))]
    pub count: i32,
    /// Votes for one verdict: 1, 3, 5, 7 or 9. PASS and FAIL need more than half of them; anything else is undecided. No
    /// more are asked once the rest cannot change the verdict.
    #[serde(default = "default_one")]
    #[schemars(schema_with = "votes_schema")]
    pub votes: i32,
    /// Questions that are answered one by one; a vote with a FAIL among them is no PASS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub rubric: Vec<RubricItem>,
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
    /// Limit of one vote, from the first connection to the last byte.
    #[serde(default = "default_judge_timeout")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: Duration,
    /// Most tokens of one question, counted as one for every 2 bytes; longer evidence is cut to fit.
    #[serde(default = "default_max_input_tokens")]
    #[schemars(range(min = 2000, max = 500_000))]
    pub max_input_tokens: i32,
    /// What one release (a revision's attempt, over all its steps) may spend on this gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<JudgeBudget>,
    /// Patterns whose matches are replaced by `[name]` before anything leaves, besides the built-in ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub redact: Vec<RedactPattern>,
    /// How good this judge has to be at cases whose answer is known before its gate may have `mode: enforce` or `signal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<JudgeRequires>,
    /// After an abort by another gate, when all new calls are back at stable, the judge is asked once what made the canary
    /// do worse, on this evidence and with one vote. The answer goes to `status.abort.explanation`, and counts against
    /// `budget`; nothing else depends on it. One gate of an analysis may have it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub explain_aborts: bool,
}

/// One question of a rubric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RubricItem {
    /// Name of the answer.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z][a-z0-9_]*$"))]
    pub name: String,
    /// A question about one thing whose answer is good (PASS) or bad (FAIL).
    #[schemars(length(min = 1, max = 500))]
    pub question: String,
}

/// Limits of one release. They are counted before the model is asked; when one is reached the gate stays undecided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.verdicts) || has(self.dollars)").message("a budget has verdicts, dollars or both"))]
#[x_kube(validation = Rule::new("!has(self.dollars) || has(self.prices)").message("dollars need prices"))]
pub struct JudgeBudget {
    /// Verdicts that may be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub verdicts: Option<i32>,
    /// US dollars that may be spent, by `prices`. Before each question its highest possible cost is taken from it, and
    /// what was not used is given back afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub dollars: Option<f64>,
    /// What the vendor asks for a million tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<JudgePrices>,
}

/// Prices in US dollars.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JudgePrices {
    /// A million tokens that the model reads.
    #[schemars(range(min = 0, max = 10_000))]
    pub input_per_million: f64,
    /// A million tokens that the model writes.
    #[schemars(range(min = 0, max = 10_000))]
    pub output_per_million: f64,
}

/// A pattern of the user's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedactPattern {
    /// What is put in its place, in brackets.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9_-]+$"))]
    pub name: String,
    /// Regular expression in RE2's syntax; it must not match the empty text.
    #[schemars(length(min = 1, max = 512))]
    pub pattern: String,
}

/// A floor, and what was measured: `voicerollout judge eval` prints the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JudgeRequires {
    /// Least share of cases with the right answer, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub min_agreement: Option<f64>,
    /// Highest share of PASS among the cases that must not pass, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub max_false_pass: Option<f64>,
    /// Least number of cases.
    #[serde(default = "default_min_cases")]
    #[schemars(range(min = 1, max = 100_000))]
    pub min_cases: i32,
    /// What was measured. Without it the floor is not reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<EvalRecord>,
}

/// Result of `voicerollout judge eval`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvalRecord {
    /// Hash of model, prompt, rubric and votes that were measured; another judge needs another measurement.
    #[schemars(length(min = 1, max = 64))]
    pub hash: String,
    /// Number of cases.
    #[schemars(range(min = 0))]
    pub cases: i32,
    /// Share of cases with the right answer, 0 to 1.
    #[schemars(range(min = 0, max = 1))]
    pub agreement: f64,
    /// Share of PASS among the cases that must not pass, 0 to 1.
    #[schemars(range(min = 0, max = 1))]
    pub false_pass: f64,
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

/// What a verdict of a judge rests on; kept with the measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JudgeRecord {
    /// The model as the vendor named it in its answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// Hash of model, instructions and answer form.
    pub prompt_hash: String,
    /// Hash of the evidence.
    pub evidence_hash: String,
    /// Votes in the order they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<Vote>,
    /// Tokens of all votes.
    #[serde(default)]
    pub tokens: Tokens,
    /// Cost of all votes in millionths of a US dollar, by the budget's prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_dollars: Option<i64>,
    /// The same evidence had been judged before in this run; nobody was asked.
    #[serde(default)]
    pub cached: bool,
}

/// One vote of a judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Vote {
    /// No harm is shown.
    Pass,
    /// Harm is shown.
    Fail,
    /// The evidence does not say.
    Unsure,
    /// No valid answer.
    Invalid,
}

/// What a gate's judge has used of its budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spent {
    /// Verdicts that were asked for in this run.
    #[serde(default)]
    pub verdicts: i32,
    /// Millionths of a US dollar that this run has spent, with those set aside for a question under way.
    #[serde(default)]
    pub micro_dollars: i64,
    /// Verdicts that the release's other runs had asked for when this run last asked.
    #[serde(default)]
    pub earlier_verdicts: i32,
    /// The same in millionths of a US dollar.
    #[serde(default)]
    pub earlier_micro_dollars: i64,
}
