//! One request to a vendor's API, and what its failures mean.

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;
use url::Url;

use super::dialect::{Dialect, Dialects, Refused, refused};
use super::strict;
use crate::api::analysis::JudgeApi;
use crate::api::run::Tokens;
use crate::sources::SourceError;
use crate::sources::headers::{self, IDEMPOTENCY_KEY};
use crate::sources::http::{self, Answer, Http};
use crate::sources::secrets::Vault;
use crate::sources::web::origin;

/// Whom to ask, and how.
pub(super) struct Asked<'a> {
    pub(super) http: &'a Http,
    pub(super) vault: &'a Vault<'a>,
    pub(super) dialects: &'a Dialects,
    pub(super) api: &'a JudgeApi,
    /// The API key, where there is one.
    pub(super) key: Option<&'a str>,
    /// Idempotency key of the vote.
    pub(super) vote_key: &'a str,
}

/// What a model said, before anything of it is believed.
pub(super) struct ModelAnswer {
    /// For messages: provider, origin and model.
    pub(super) what: String,
    /// The model as it calls itself.
    pub(super) model: String,
    /// Its text.
    pub(super) text: String,
    /// What it cost, where it says so.
    pub(super) tokens: Option<Tokens>,
}

/// No answer of the API, and what it did not take.
pub(super) struct Unanswered {
    pub(super) error: SourceError,
    pub(super) refused: Refused,
}

/// One call to a vendor's API.
pub(super) struct Call {
    what: String,
    url: String,
    pub(super) headers: HeaderMap,
    body: String,
}

impl Call {
    /// A call of `path` under the API's base URL, or `default_base`.
    pub(super) fn new(
        vendor: &str,
        asked: &Asked<'_>,
        default_base: &str,
        path: &str,
        dialect: Dialect,
        body: &Value,
    ) -> Result<Self, SourceError> {
        let base = asked.api.base_url.as_deref().unwrap_or(default_base);
        let what = format!("judge {vendor} {} model {}", origin(base), asked.api.model);
        let parsed = Url::parse(base).map_err(|e| free(SourceError::new(format!("{what}: baseUrl: {e}"))))?;
        if parsed.query().is_some() || parsed.fragment().is_some() || base.contains("{{") {
            return Err(free(SourceError::new(format!("{what}: baseUrl: no ?, # or arguments there"))));
        }
        // People write the base with and without the version.
        let base = base.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = headers::sensitive(&format!("{}{}", asked.vote_key, dialect.suffix())) {
            headers.insert(IDEMPOTENCY_KEY, key);
        }
        Ok(Self { what, url: format!("{base}{path}"), headers, body: body.to_string() })
    }

    /// Sends it; anything but a 200 with JSON is an error.
    pub(super) async fn send(self, asked: &Asked<'_>) -> Result<(String, Value), Unanswered> {
        let what = self.what;
        let other = |error| Unanswered { error, refused: Refused::Other };
        let (url, client) = asked.http.client(&what, &self.url, None, asked.vault).await.map_err(|e| other(free(e)))?;
        let sent = client.post(url).headers(self.headers).body(self.body).send().await;
        let response = sent.map_err(|e| {
            let error = http::transport_error(&what, &e);
            // Without a connection nothing was sent.
            other(if e.is_connect() || e.is_builder() { free(error) } else { error })
        })?;
        let answer = http::read(&what, response).await.map_err(other)?;
        if let Err(error) = check(&what, &answer) {
            return Err(Unanswered { error: free(error), refused: refused(answer.status.as_u16(), &answer.body) });
        }
        body(&what, &answer).map(|value| (what, value)).map_err(other)
    }
}

/// The body of a 200. A page that something on the way made up is no answer, whatever it says.
fn body(what: &str, answer: &Answer) -> Result<Value, SourceError> {
    let id = request_id(&answer.headers);
    if answer.status != StatusCode::OK {
        return Err(SourceError::new(format!("{what}: HTTP {} instead of 200{id}", answer.status.as_u16())));
    }
    let kind = answer.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind != "application/json" {
        let kind = if is_media_type(&kind) { kind } else { "another type".into() };
        return Err(SourceError::new(format!("{what}: the answer is {kind} and not application/json; check baseUrl{id}")));
    }
    strict::parse(&answer.body).ok_or_else(|| SourceError::new(format!("{what}: the answer is not JSON{id}")))
}

fn is_media_type(text: &str) -> bool {
    (3..=60).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'/' | b'-' | b'+' | b'.'))
}

/// An API key as a header.
pub(super) fn key_header(value: &str) -> Result<HeaderValue, SourceError> {
    headers::sensitive(value)
        .ok_or_else(|| free(SourceError::new("judge apiKey: the Secret's value has characters that a header cannot carry")))
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
        402 => Some("the account cannot be billed"),
        403 => Some("the API key may not use this model"),
        404 => Some("no such model or endpoint; check model and baseUrl"),
        413 => Some("the evidence is too long; lower maxInputTokens"),
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

/// An error before the model has worked: it costs nothing.
pub(super) fn free(error: SourceError) -> SourceError {
    SourceError { tokens: Some(Tokens::default()), ..error }
}

/// An error after the model has worked: it is paid for all the same.
pub(super) fn with_tokens(message: String, tokens: Option<Tokens>) -> SourceError {
    SourceError { message, retry_after: None, tokens }
}

/// A count in `usage`; absent or odd ones are 0.
pub(super) fn count(usage: &Value, field: &str) -> i64 {
    usage[field].as_i64().unwrap_or(0).max(0)
}
