//! CloudEvents 1.0, in structured mode.

use serde_json::{Value, json};

use super::Letter;
use crate::api::common::{GROUP, VERSION};
use crate::api::notification::Trigger;
use crate::core::notify::outbox::Answer;
use crate::sources::post::{Outgoing, Posted};

/// The event's `type`.
pub fn type_of(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::Started => "dev.voicerollout.rollout.started.v1",
        Trigger::StepPassed => "dev.voicerollout.rollout.step-passed.v1",
        Trigger::Paused => "dev.voicerollout.rollout.paused.v1",
        Trigger::GateFailing => "dev.voicerollout.rollout.gate-failing.v1",
        Trigger::Aborted => "dev.voicerollout.rollout.aborted.v1",
        Trigger::Promoted => "dev.voicerollout.rollout.promoted.v1",
        Trigger::DrainOverdue => "dev.voicerollout.rollout.drain-overdue.v1",
        Trigger::Drift => "dev.voicerollout.rollout.drift.v1",
    }
}

/// The request; the user's headers come first, and do not replace the content's type.
pub fn to(url: &str, mut headers: Vec<(String, String)>, letter: &Letter, text: &str) -> Outgoing {
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
    headers.push(("content-type".into(), "application/cloudevents+json; charset=utf-8".into()));
    Outgoing { url: url.into(), headers, body: event(letter, text).to_string() }
}

fn event(letter: &Letter, text: &str) -> Value {
    let facts = &letter.facts;
    let mut data = serde_json::to_value(facts).unwrap_or_default();
    data["text"] = json!(text);
    if !letter.link.is_empty() {
        data["link"] = json!(letter.link);
    }
    let mut event = json!({
        "specversion": "1.0",
        "id": letter.id,
        "source": format!("/apis/{GROUP}/{VERSION}/namespaces/{}/voicerollouts/{}", facts.namespace, facts.rollout),
        "type": type_of(facts.trigger),
        "time": facts.at,
        "datacontenttype": "application/json",
        "data": data,
    });
    // It may not be empty.
    if !facts.revision.is_empty() {
        event["subject"] = json!(facts.revision);
    }
    event
}

/// What an answer means: any 2xx is a receipt.
pub fn answer(posted: &Posted) -> Answer {
    let status = posted.status;
    match status {
        200..=299 => Answer::Taken,
        300..=399 => Answer::Stuck { why: format!("HTTP {status}: redirects are not followed; use the final address") },
        408 | 425 | 429 | 500.. => Answer::Refused { why: format!("the receiver answers HTTP {status}"), wait: posted.retry_after },
        401 | 403 => Answer::Stuck { why: format!("the receiver answers HTTP {status}: check the headers and their Secret") },
        _ => Answer::Stuck { why: format!("the receiver answers HTTP {status}: check the url") },
    }
}
