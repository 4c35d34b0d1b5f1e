//! Slack's incoming webhooks and `chat.postMessage`.

use serde_json::{Value, json};

use crate::core::notify::outbox::Answer;
use crate::sources::post::{Outgoing, Posted};

/// Where a bot's messages go.
pub const POST_MESSAGE: &str = "https://slack.com/api/chat.postMessage";

/// What Slack's words for a permanent refusal mean, and what to do.
const ADVICE: [(&[&str], &str); 7] = [
    (&["invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired"], "put a token that is valid into the Secret"),
    (&["missing_scope", "no_permission", "not_allowed_token_type"], "give the bot the scope chat:write"),
    (&["channel_not_found"], "name a channel that exists, and invite the bot"),
    (&["not_in_channel"], "invite the bot to the channel"),
    (&["is_archived", "channel_is_archived"], "the channel is archived: name another one"),
    (
        &["no_service", "no_service_id", "no_active_hooks", "no_team", "invalid_token", "team_disabled"],
        "the webhook is gone: make a new one and put its URL into the Secret",
    ),
    (
        &["action_prohibited", "restricted_action", "posting_to_general_channel_denied", "user_not_found"],
        "an administrator of the workspace has to allow it",
    ),
];

/// A message to an incoming webhook.
pub fn to_webhook(url: String, text: &str) -> Outgoing {
    Outgoing { url, headers: vec![json_header()], body: json!({"text": text}).to_string() }
}

/// A message to a channel, by a bot.
pub fn to_bot(url: &str, token: &str, channel: &str, text: &str) -> Outgoing {
    let headers = vec![json_header(), ("authorization".into(), format!("Bearer {token}"))];
    Outgoing { url: url.into(), headers, body: json!({"channel": channel, "text": text}).to_string() }
}

fn json_header() -> (String, String) {
    ("content-type".into(), "application/json; charset=utf-8".into())
}

/// What a webhook's answer means: 200, or a word.
pub fn of_webhook(posted: &Posted) -> Answer {
    if (200..300).contains(&posted.status) {
        return Answer::Taken;
    }
    let word = std::str::from_utf8(&posted.body).unwrap_or_default().trim();
    match advice(word) {
        Some(why) => Answer::Stuck { why },
        None if matches!(posted.status, 404 | 410) => Answer::Stuck {
            why: format!("Slack answers HTTP {}: the webhook is gone: make a new one and put its URL into the Secret", posted.status),
        },
        None => Answer::Refused { why: format!("Slack answers HTTP {}", posted.status), wait: posted.retry_after },
    }
}

/// What an answer of `chat.postMessage` means: `ok` counts, whatever the status.
pub fn of_bot(posted: &Posted) -> Answer {
    let body: Value = serde_json::from_slice(&posted.body).unwrap_or_default();
    let answered = (200..300).contains(&posted.status);
    if answered && body["ok"] == true {
        return Answer::Taken;
    }
    if let Some(why) = body["error"].as_str().and_then(advice) {
        return Answer::Stuck { why };
    }
    let why = match posted.status {
        _ if answered && body["ok"] == false => "Slack did not take it".to_owned(),
        _ if answered => "the answer is not one of Slack's".to_owned(),
        status => format!("Slack answers HTTP {status}"),
    };
    Answer::Refused { why, wait: posted.retry_after }
}

fn advice(word: &str) -> Option<String> {
    let known = ADVICE.iter().find_map(|(words, advice)| words.iter().find(|w| **w == word).map(|w| (w, advice)));
    known.map(|(word, advice)| format!("Slack says {word}: {advice}"))
}
