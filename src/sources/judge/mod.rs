//! The judge: a language model reads evidence that the operator put together and answers PASS, FAIL or UNSURE.
//!
//! Nothing but a well-formed PASS is ever a pass. Evidence that was asked for and is missing, a refusal, a cut-off
//! answer, prose, and every failure of the service are errors.

mod anthropic;
mod evidence;
pub mod logs;
mod openai;
mod prompt;
mod verdict;

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;
use url::Url;

use super::headers::{self, IDEMPOTENCY_KEY};
use super::http::{self, Answer, Http};
use super::secrets::Vault;
use super::web::origin;
use super::{Progress, Request, SourceError};
use crate::api::analysis::{Judge, JudgeApi};
use crate::api::common::std_duration;
use crate::api::run::Tokens;
use logs::LogReader;
use prompt::Prompt;

/// Collects the evidence and asks the model once.
pub(super) async fn measure(
    http: &Http,
    vault: &Vault<'_>,
    logs: &dyn LogReader,
    request: &Request,
    judge: &Judge,
) -> Result<Progress, SourceError> {
    let api = match (&judge.anthropic, &judge.openai) {
        (Some(api), None) | (None, Some(api)) => api,
        _ => return Err(SourceError::new("judge: set exactly one of anthropic, openai")),
    };
    // Before the evidence, so that a key that stands in a log line is known by then.
    let key = api_key(api, vault).await?;
    let evidence = evidence::collect(http, vault, logs, request, &judge.evidence).await?;
    let prompt = Prompt::new(judge, request, &evidence).map_err(|e| SourceError::new(format!("judge: {e}")))?;
    let limit = std_duration(judge.timeout);
    let answer = match judge.anthropic {
        Some(_) => anthropic::ask(http, vault, api, key, request, &prompt, limit).await?,
        None => openai::ask(http, vault, api, key, request, &prompt, limit).await?,
    };
    let said = verdict::parse(&answer.text, &vault.known()).map_err(|e| with_tokens(format!("{}: {e}", answer.what), answer.tokens))?;
    Ok(Progress::Judged { verdict: said.verdict, reason: said.reason, tokens: answer.tokens })
}

/// What a model said, before anything of it is believed.
struct ModelAnswer {
    /// For messages: provider, origin and model.
    what: String,
    /// Its text.
    text: String,
    /// What it cost.
    tokens: Tokens,
}

/// One call to a vendor's API.
struct Call<'a> {
    what: String,
    url: String,
    headers: HeaderMap,
    body: &'a Value,
    limit: Duration,
}

impl<'a> Call<'a> {
    /// A call of `path` under the API's base URL, or `default_base`.
    fn new(
        vendor: &str,
        api: &JudgeApi,
        default_base: &str,
        path: &str,
        request: &Request,
        body: &'a Value,
        limit: Duration,
    ) -> Result<Self, SourceError> {
        let base = api.base_url.as_deref().unwrap_or(default_base);
        let what = format!("judge {vendor} {} model {}", origin(base), api.model);
        let parsed = Url::parse(base).map_err(|e| SourceError::new(format!("{what}: baseUrl: {e}")))?;
        if parsed.query().is_some() || parsed.fragment().is_some() || base.contains("{{") {
            return Err(SourceError::new(format!("{what}: baseUrl: no ?, # or arguments there")));
        }
        // People write the base with and without the version.
        let base = base.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = headers::sensitive(&request.key) {
            headers.insert(IDEMPOTENCY_KEY, key);
        }
        Ok(Self { what, url: format!("{base}{path}"), headers, body, limit })
    }

    /// Sends it; anything but a 2xx with JSON is an error.
    async fn send(self, http: &Http, vault: &Vault<'_>) -> Result<(String, Value), SourceError> {
        let what = self.what;
        let (url, client) = http.client(&what, &self.url, None, vault).await?;
        let body = self.body.to_string();
        let answer = http::within(self.limit, &what, async {
            let response = client.post(url).headers(self.headers).body(body).send().await.map_err(|e| http::transport_error(&what, &e))?;
            http::read(&what, response).await
        })
        .await?;
        check(&what, &answer)?;
        let value = serde_json::from_slice::<Value>(&answer.body)
            .map_err(|_| SourceError::new(format!("{what}: the answer is not JSON{}", request_id(&answer.headers))))?;
        Ok((what, value))
    }
}

/// The API key, where there is one.
async fn api_key(api: &JudgeApi, vault: &Vault<'_>) -> Result<Option<String>, SourceError> {
    match &api.api_key {
        None => Ok(None),
        Some(secret) => vault.read(secret).await.map(Some).map_err(|e| SourceError { message: format!("judge apiKey: {e}"), ..e }),
    }
}

/// An API key as a header.
fn key_header(value: &str) -> Result<HeaderValue, SourceError> {
    headers::sensitive(value).ok_or_else(|| SourceError::new("judge apiKey: the Secret's value has characters that a header cannot carry"))
}

/// Turns an error status into words: the vendor's error type and request id, what to do, never the body.
fn check(what: &str, answer: &Answer) -> Result<(), SourceError> {
    if answer.status.is_success() {
        return Ok(());
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let mut detail: Vec<&str> = Vec::new();
    let known = |v: &'_ Value| v.as_str().filter(|s| is_code(s)).map(str::to_owned);
    let (kind, code) =
        (known(&body["error"]["type"]), known(&body["error"]["code"]).or_else(|| known(&body["error"]["details"]["error_code"])));
    detail.extend(kind.as_deref());
    detail.extend(code.as_deref().filter(|c| Some(*c) != kind.as_deref()));
    let spent = matches!(code.as_deref(), Some("enforced_spend_limit_reached" | "insufficient_quota"));
    if let Some(advice) = advice(answer.status, spent) {
        detail.push(advice);
    }
    let detail = format!("{}{}", detail.join(": "), request_id(&answer.headers));
    http::check_status(what, answer.status, &answer.headers, &detail)
}

fn advice(status: StatusCode, spent: bool) -> Option<&'static str> {
    match status.as_u16() {
        _ if spent => Some("the account's spending limit is reached; raise it"),
        401 => Some("the API key is missing or wrong"),
        403 => Some("the API key may not use this model"),
        404 => Some("no such model or endpoint; check model and baseUrl"),
        413 => Some("the evidence is too long; lower evidence.logs.maxBytes"),
        _ => None,
    }
}

/// A word of a vendor's vocabulary: nothing else of a body gets into a message.
fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// The vendor's name for the call, for its support.
fn request_id(headers: &HeaderMap) -> String {
    let id = ["request-id", "x-request-id"].iter().find_map(|name| headers.get(*name)?.to_str().ok());
    match id.filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')))
    {
        Some(id) => format!(" (request {id})"),
        None => String::new(),
    }
}

/// An error after the model has worked: it is paid for all the same.
fn with_tokens(message: String, tokens: Tokens) -> SourceError {
    SourceError { message, retry_after: None, tokens: Some(tokens) }
}

/// A count in `usage`; absent or odd ones are 0.
fn count(usage: &Value, field: &str) -> i64 {
    usage[field].as_i64().unwrap_or(0).max(0)
}

#[cfg(test)]
#[path = "../tests/judge.rs"]
mod tests;
