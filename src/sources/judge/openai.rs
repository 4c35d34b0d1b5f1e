//! OpenAI-compatible chat completions with structured output (`response_format`).

use std::time::Duration;

use reqwest::header::AUTHORIZATION;
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
const BASE: &str = "https://api.openai.com";

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
    let mut call = Call::new("openai", api, BASE, "/v1/chat/completions", request, &body, limit)?;
    if let Some(key) = key {
        call.headers.insert(AUTHORIZATION, key_header(&format!("Bearer {key}"))?);
    }
    let (what, answer) = call.send(http, vault).await?;
    read(what, &answer)
}

/// The request. Reasoning models refuse sampling parameters, so there are none.
pub(super) fn body(api: &JudgeApi, prompt: &Prompt) -> Value {
    json!({
        "model": api.model,
        "max_completion_tokens": api.max_tokens,
        "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "verdict", "strict": true, "schema": schema()}},
    })
}

fn read(what: String, answer: &Value) -> Result<ModelAnswer, SourceError> {
    let usage = &answer["usage"];
    let tokens = Tokens { input: count(usage, "prompt_tokens"), output: count(usage, "completion_tokens") };
    let fail = |why: String| Err(with_tokens(format!("{what}: {why}"), tokens));
    let [choice] = answer["choices"].as_array().map_or(&[] as &[Value], Vec::as_slice) else {
        return fail("the answer does not have exactly one choice; check baseUrl".into());
    };
    let message = &choice["message"];
    if message["refusal"].as_str().is_some_and(|r| !r.is_empty()) {
        return fail("the model refused to answer".into());
    }
    match choice["finish_reason"].as_str() {
        Some("stop") => {}
        Some("length") => return fail("the answer was cut off at maxTokens; raise it".into()),
        Some("content_filter") => return fail("a content filter cut the answer".into()),
        Some(other) => return fail(format!("the model stopped with {:?} instead of an answer", redact::line(other, 40))),
        None => return fail("the answer has no finish_reason".into()),
    }
    if message["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty()) {
        return fail("the model asked for a tool instead of answering".into());
    }
    match message["content"].as_str() {
        Some(text) => Ok(ModelAnswer { what: what.clone(), text: text.to_owned(), tokens }),
        None => fail("the answer has no text".into()),
    }
}
