//! Whom to tell what of a release, and how: Slack, or a receiver of CloudEvents.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::common::SecretKeyRef;
use super::provider::Header;

/// Most notifications of one rollout, and most defaults.
pub const MAX_NOTIFICATIONS: usize = 16;

/// What may be told of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Trigger {
    /// A release began: a new revision, a return to an old one, or another attempt.
    Started,
    /// A step passed.
    StepPassed,
    /// The release stands until a person says something, or until evidence or a provider comes back.
    Paused,
    /// A gate began to fail, or its provider did.
    GateFailing,
    /// The weights went back to stable; also because the template of stable is asked for again.
    Aborted,
    /// The new revision is stable.
    Promoted,
    /// `drain.maxDrain` has passed and calls were still live.
    DrainOverdue,
    /// Somebody else changed managed weights.
    Drift,
}

impl Trigger {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Started, Self::StepPassed, Self::Paused, Self::GateFailing, Self::Aborted, Self::Promoted, Self::DrainOverdue, Self::Drift];
    /// Those of a notification that names none.
    pub const DEFAULT: [Self; 5] = [Self::Started, Self::Paused, Self::Aborted, Self::Promoted, Self::DrainOverdue];

    /// As in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "Started",
            Self::StepPassed => "StepPassed",
            Self::Paused => "Paused",
            Self::GateFailing => "GateFailing",
            Self::Aborted => "Aborted",
            Self::Promoted => "Promoted",
            Self::DrainOverdue => "DrainOverdue",
            Self::Drift => "Drift",
        }
    }
}

impl std::fmt::Display for Trigger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One receiver of messages: exactly one of `slack` and `webhook`.
///
/// Secrets lie in the rollout's namespace (those of a default: in the operator's), and carry the label
/// `voicerollout.dev/use: notifications`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.slack) != has(self.webhook)").message("a notification has exactly one of slack, webhook"))]
pub struct Notification {
    /// Its name; one of a rollout replaces the default of the same name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What is told. Left out: Started, Paused, Aborted, Promoted, DrainOverdue.
    // Not `on`, which is a truth value in YAML. Text, so that one that is not known stops this notification and not the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "triggers_schema")]
    pub triggers: Option<Vec<String>>,
    /// To a channel of Slack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<Slack>,
    /// As a CloudEvent, by POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// The message, a minijinja template; left out: a sentence for each trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub template: Option<String>,
}

fn triggers_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": Trigger::ALL.len(), "x-kubernetes-list-type": "set",
        "items": {"type": "string", "enum": Trigger::ALL.map(Trigger::name)},
    })
}

/// A channel of Slack: exactly one of `webhook` and `bot`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.webhook) != has(self.bot)").message("slack has exactly one of webhook, bot"))]
pub struct Slack {
    /// URL of an incoming webhook, which is a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<SecretKeyRef>,
    /// A bot that writes into a channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bot: Option<SlackBot>,
}

/// A bot of Slack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlackBot {
    /// Its token, with the scope `chat:write`.
    pub token: SecretKeyRef,
    /// Name or id of the channel.
    #[schemars(length(min = 1, max = 80))]
    pub channel: String,
}

/// A receiver of CloudEvents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Where to POST to.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// Extra request headers, such as `Authorization`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<Header>,
}
