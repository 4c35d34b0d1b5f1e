//! Anthropic Messages API with structured output (`output_config.format`).

use std::time::Duration;

use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use super::prompt::{Prompt, schema};
use super::{Call, ModelAnswer, count, key_header, with_tokens};
use crate::api::analysis::JudgeApi;
use crate::api::run::Tokens;
use crate::sources::http::Http;
use crate::sources::redact;
use crate::sources::secrets::Vault;
use crate::sources::{Request, SourceError};

/// The vendor's own service.
const BASE: &str = "https://api.anthropic.com";
/// The version of the wire format.
const VERSION: &str = "2023-06-01";

/// Asks once.
pub(super) async fn ask(
    http: &Http,
    vault: &Vault<'_>,
    api: &JudgeApi,
    key: Option<String>,
    request: &Request,
    prompt: &Prompt,
    limit: Duration,
) -> Result<ModelAnswer, SourceError> {
    let body = body(api, prompt);
    let mut call = Call::new("anthropic", api, BASE, "/v1/messages", request, &body, limit)?;
    call.headers.insert("anthropic-version", HeaderValue::from_static(VERSION));
    if let Some(key) = key {
        call.headers.insert("x-api-key", key_header(&key)?);
    }
    let (what, answer) = call.send(http, vault).await?;
    read(what, &answer)
}

/// The request. Sampling parameters and a prefilled answer are refused by newer models, so there are none.
pub(super) fn body(api: &JudgeApi, prompt: &Prompt) -> Value {
    json!({
        "model": api.model,
        "max_tokens": api.max_tokens,
        "system": prompt.system,
        "messages": [{"role": "user", "content": prompt.user}],
        "output_config": {"format": {"type": "json_schema", "schema": schema()}},
    })
}

fn read(what: String, answer: &Value) -> Result<ModelAnswer, SourceError> {
    let usage = &answer["usage"];
    let input = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"].iter().map(|f| count(usage, f)).sum();
    let tokens = Tokens { input, output: count(usage, "output_tokens") };
    let fail = |why: String| Err(with_tokens(format!("{what}: {why}"), tokens));
    match answer["stop_reason"].as_str() {
        Some("end_turn") => {}
        Some("refusal") => return fail("the model refused to answer".into()),
        Some("max_tokens") => return fail("the answer was cut off at maxTokens; raise it".into()),
        Some(other) => return fail(format!("the model stopped with {:?} instead of an answer", redact::line(other, 40))),
        None => return fail("the answer is not a message of this API; check baseUrl".into()),
    }
    let Some(blocks) = answer["content"].as_array() else { return fail("the answer has no content".into()) };
    // Thinking may come first. Two texts are two answers, which the verdict's parser refuses.
    let mut text = String::new();
    for block in blocks {
        match (block["type"].as_str(), block["text"].as_str()) {
            (Some("text"), Some(part)) => text.push_str(part),
            (Some("thinking" | "redacted_thinking"), _) => {}
            _ => return fail("the answer has a part that is neither text nor thinking".into()),
        }
    }
    Ok(ModelAnswer { what, text, tokens })
}
