//! The web provider: one HTTP request, one value out of its JSON answer.

use reqwest::Client;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;
use url::Url;

use super::headers::{self, IDEMPOTENCY_KEY};
use super::http::{self, Answer, Http};
use super::json_path::JsonPath;
use super::secrets::Vault;
use super::{Progress, Request, SourceError};
use crate::api::analysis::{Method, Threshold, WebProvider};
use crate::api::common::std_duration;
use crate::core::args::{Place, fill};

/// Longest text that is taken as a value.
const MAX_TEXT: usize = 256;
/// Longest list that is taken as a value.
const MAX_LIST: usize = 1000;

/// Takes the measurement.
pub(super) async fn measure(
    http: &Http,
    vault: &Vault<'_>,
    request: &Request,
    threshold: &Threshold,
    web: &WebProvider,
) -> Result<Progress, SourceError> {
    let fail = |e: String| SourceError::new(format!("web: {e}"));
    let path = JsonPath::parse(&web.json_path).map_err(|e| fail(format!("jsonPath {e}")))?;
    let url = fill(&web.url, Place::Url, &request.args).map_err(|e| fail(format!("url: {e}")))?;
    let what = describe(web.method, &url.text);
    let mut map = headers::build(&what, &web.headers, web.auth.as_ref(), &request.args, vault).await?;
    let key = headers::sensitive(&request.key).ok_or_else(|| fail("the measurement's key cannot be sent".into()))?;
    map.insert(IDEMPOTENCY_KEY, key);
    map.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
    let body = match &web.body {
        Some(template) => {
            map.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
            Some(fill(template, Place::Json, &request.args).map_err(|e| fail(format!("body: {e}")))?.text)
        }
        None => None,
    };
    let (url, client) = http.client(&what, &url.text, web.tls.as_ref(), vault).await?;
    let answer = http::within(std_duration(web.timeout), &what, send(&what, client, web.method, url, map, body)).await?;
    http::check_status(&what, answer.status, &answer.headers, "")?;
    let document: Value = serde_json::from_slice(&answer.body)
        .map_err(|_| SourceError::new(format!("{what}: the answer is not JSON ({} bytes)", answer.body.len())))?;
    let value = path.one(&document).map_err(|e| SourceError::new(format!("{what}: {e}")))?;
    let value =
        checked(value, compares_text(threshold)).map_err(|e| SourceError::new(format!("{what}: jsonPath {:?} {e}", web.json_path)))?;
    Ok(Progress::Value(value.clone()))
}

/// Method and origin: path and query may hold arguments from Secrets.
fn describe(method: Method, url: &str) -> String {
    let method = match method {
        Method::Get => "GET",
        Method::Post => "POST",
        Method::Put => "PUT",
    };
    format!("web {method} {}", origin(url))
}

/// Scheme, host and port of a URL.
pub(super) fn origin(url: &str) -> String {
    match Url::parse(url) {
        Ok(url) => url.origin().ascii_serialization(),
        Err(_) => "of a URL that is not valid".into(),
    }
}

async fn send(
    what: &str,
    client: Client,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<String>,
) -> Result<Answer, SourceError> {
    let request = match method {
        Method::Get => client.get(url),
        Method::Post => client.post(url),
        Method::Put => client.put(url),
    };
    let request = request.headers(headers);
    let request = match body {
        Some(body) => request.body(body),
        None => request,
    };
    let response = request.send().await.map_err(|e| http::transport_error(what, &e))?;
    http::read(what, response).await
}

/// Whether a condition holds a text to compare with; then a numeric text is meant as text.
fn compares_text(threshold: &Threshold) -> bool {
    [&threshold.success_condition, &threshold.failure_condition].into_iter().flatten().any(|c| c.contains(['"', '\'']))
}

/// A value that conditions can use. Text is never taken for a number: `"0.95"` is text.
fn checked(value: &Value, text_wanted: bool) -> Result<&Value, String> {
    match value {
        Value::Number(_) | Value::Bool(_) => Ok(value),
        Value::Null => Err("is null in the answer".into()),
        Value::Object(_) => Err("is an object in the answer; select a number, a boolean, a text or a list of numbers".into()),
        Value::Array(list) if list.len() > MAX_LIST => Err(format!("is a list of {} items; the most is {MAX_LIST}", list.len())),
        Value::Array(list) => match list.iter().position(|v| !v.is_number()) {
            None => Ok(value),
            Some(i) => Err(format!("is a list whose item {i} is not a number; quoted numbers are text")),
        },
        Value::String(text) if text.chars().count() > MAX_TEXT => Err(format!("is a text of more than {MAX_TEXT} characters")),
        Value::String(text) if text.chars().any(char::is_control) => Err("is a text with line breaks or other control characters".into()),
        Value::String(text) if !text_wanted && text.trim().parse::<f64>().is_ok() => {
            Err("is a number in quotes, which is text and not a number; answer with the bare number".into())
        }
        Value::String(_) => Ok(value),
    }
}

#[cfg(test)]
#[path = "tests/web.rs"]
mod tests;
