//! What tests of several views show.

use jiff::Timestamp;
use serde_json::json;

use crate::api::VoiceRollout;

/// When it is shown.
pub fn now() -> Timestamp {
    "2026-03-01T12:10:00Z".parse().unwrap()
}

/// The rollout of `examples/voice-agent.yaml` with this status.
pub fn rollout(status: serde_json::Value) -> VoiceRollout {
    let text = include_str!("../../examples/voice-agent.yaml");
    let first = serde_yaml::Deserializer::from_str(text).next().unwrap();
    let mut object: serde_json::Value = serde::Deserialize::deserialize(first).unwrap();
    object["metadata"]["namespace"] = json!("voice");
    object["metadata"]["generation"] = json!(4);
    object["status"] = status;
    serde_json::from_value(object).unwrap()
}
