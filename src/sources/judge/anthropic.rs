//! Anthropic Messages API with structured output (`output_config.format`).

use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use super::dialect::{Dialect, Form, Refused};
use super::prompt::Prompt;
use super::vendor::{Asked, Call, ModelAnswer, Unanswered, count, key_header, with_tokens};
use crate::api::analysis::JudgeApi;
use crate::api::run::Tokens;
use crate::sources::SourceError;
use crate::sources::redact;

/// The vendor's own service.
const BASE: &str = "https://api.anthropic.com";
/// The version of the wire format.
const VERSION: &str = "2023-06-01";

/// Asks once, in whatever form the server takes.
pub(super) async fn ask(asked: &Asked<'_>, prompt: &Prompt) -> Result<ModelAnswer, SourceError> {
    let server = asked.api.base_url.as_deref().unwrap_or(BASE);
    let mut dialect = asked.dialects.of(server, &asked.api.model);
    loop {
        let mut call = Call::new("anthropic", asked, BASE, "/v1/messages", dialect, &body(asked.api, prompt, dialect))?;
        call.headers.insert("anthropic-version", HeaderValue::from_static(VERSION));
        if let Some(key) = asked.key {
            call.headers.insert("x-api-key", key_header(key)?);
        }
        match call.send(asked).await {
            Ok((what, answer)) => {
                asked.dialects.remember(server, &asked.api.model, dialect);
                return read(what, &answer);
            }
            Err(Unanswered { refused: Refused::Form, .. }) if dialect.form == Form::Schema => dialect.form = Form::Text,
            Err(Unanswered { error, .. }) => return Err(error),
        }
    }
}

/// The request. Sampling parameters and a prefilled answer are refused by newer models, so there are none, and no tools.
fn body(api: &JudgeApi, prompt: &Prompt, dialect: Dialect) -> Value {
    let mut body = json!({
        "model": api.model,
        "max_tokens": api.max_tokens,
        "system": prompt.system,
        "messages": [{"role": "user", "content": prompt.user}],
    });
    if dialect.form == Form::Schema {
        body["output_config"] = json!({"format": {"type": "json_schema", "schema": prompt.schema}});
    }
    body
}

fn read(what: String, answer: &Value) -> Result<ModelAnswer, SourceError> {
    let usage = &answer["usage"];
    let input = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"].iter().map(|f| count(usage, f)).sum();
    let tokens = usage.is_object().then(|| Tokens { input, output: count(usage, "output_tokens") });
    let fail = |why: String| Err(with_tokens(format!("{what}: {why}"), tokens));
    match answer["stop_reason"].as_str() {
        _ if answer["type"] != "message" || answer["role"].as_str().is_some_and(|r| r != "assistant") => {
            return fail("the answer is not a message of this API; check baseUrl".into());
        }
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
    Ok(ModelAnswer { what, model: answer["model"].as_str().unwrap_or_default().to_owned(), text, tokens })
}
