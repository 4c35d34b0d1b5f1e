//! OpenAI-compatible chat completions with structured output (`response_format`).

use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};

use super::dialect::{Dialect, Form, Refused};
use super::prompt::Prompt;
use super::vendor::{Asked, Call, ModelAnswer, Unanswered, count, key_header, with_tokens};
use crate::api::analysis::JudgeApi;
use crate::api::run::Tokens;
use crate::sources::SourceError;
use crate::sources::redact;

/// The vendor's own service.
const BASE: &str = "https://api.openai.com";

/// Asks once, in whatever form the server takes: a schema, then any JSON object, then by the instructions alone.
pub(super) async fn ask(asked: &Asked<'_>, prompt: &Prompt) -> Result<ModelAnswer, SourceError> {
    let server = asked.api.base_url.as_deref().unwrap_or(BASE);
    let mut dialect = asked.dialects.of(server, &asked.api.model);
    loop {
        let mut call = Call::new("openai", asked, BASE, "/v1/chat/completions", dialect, &body(asked.api, prompt, dialect))?;
        if let Some(key) = asked.key {
            call.headers.insert(AUTHORIZATION, key_header(&format!("Bearer {key}"))?);
        }
        let Unanswered { refused, error } = match call.send(asked).await {
            Ok((what, answer)) => {
                asked.dialects.remember(server, &asked.api.model, dialect);
                return read(what, &answer);
            }
            Err(e) => e,
        };
        match (refused, dialect.form) {
            (Refused::Limit, _) if !dialect.old_limit => dialect.old_limit = true,
            (Refused::Form, Form::Schema) => dialect.form = Form::Object,
            (Refused::Form, Form::Object) => dialect.form = Form::Text,
            _ => return Err(error),
        }
    }
}

/// The request. Reasoning models refuse sampling parameters, so there are none, and no tools.
fn body(api: &JudgeApi, prompt: &Prompt, dialect: Dialect) -> Value {
    let mut body = json!({
        "model": api.model,
        "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}],
    });
    body[if dialect.old_limit { "max_tokens" } else { "max_completion_tokens" }] = api.max_tokens.into();
    match dialect.form {
        Form::Schema => {
            let schema = json!({"name": "verdict", "strict": true, "schema": prompt.schema});
            body["response_format"] = json!({"type": "json_schema", "json_schema": schema});
        }
        Form::Object => body["response_format"] = json!({"type": "json_object"}),
        Form::Text => {}
    }
    body
}

fn read(what: String, answer: &Value) -> Result<ModelAnswer, SourceError> {
    let usage = &answer["usage"];
    let tokens = usage.is_object().then(|| Tokens { input: count(usage, "prompt_tokens"), output: count(usage, "completion_tokens") });
    let fail = |why: String| Err(with_tokens(format!("{what}: {why}"), tokens));
    let [choice] = answer["choices"].as_array().map_or(&[] as &[Value], Vec::as_slice) else {
        return fail("the answer does not have exactly one choice; check baseUrl".into());
    };
    let message = &choice["message"];
    if !message["refusal"].is_null() && message["refusal"].as_str() != Some("") {
        return fail("the model refused to answer".into());
    }
    match choice["finish_reason"].as_str() {
        Some("stop") => {}
        Some("length") => return fail("the answer was cut off at maxTokens; raise it".into()),
        Some("content_filter") => return fail("a content filter cut the answer".into()),
        Some(other) => return fail(format!("the model stopped with {:?} instead of an answer", redact::line(other, 40))),
        None => return fail("the answer has no finish_reason".into()),
    }
    let calls = &message["tool_calls"];
    if !message["function_call"].is_null() || !calls.is_null() && calls.as_array().is_none_or(|c| !c.is_empty()) {
        return fail("the model asked for a tool instead of answering".into());
    }
    match message["content"].as_str() {
        Some(text) => {
            let model = answer["model"].as_str().unwrap_or_default().to_owned();
            Ok(ModelAnswer { what: what.clone(), model, text: text.to_owned(), tokens })
        }
        None => fail("the answer has no text".into()),
    }
}
