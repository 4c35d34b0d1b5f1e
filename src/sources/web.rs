//! The web provider: a request to a harness, or the start of a run and its polls; a value out of the JSON answer.

mod handle;
mod read;
mod run;

use std::borrow::Cow;
use std::collections::BTreeMap;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use url::Url;

use super::headers::{self, IDEMPOTENCY_KEY};
use super::http::{self, Answer, Http, NoAnswer};
use super::secrets::Vault;
use super::{ArgValue, Progress, Request, SourceError};
use crate::api::analysis::{Gate, Header, Method, Paired, Provider, Threshold, WebProvider};
use crate::api::common::std_duration;
use crate::core::args::{self, Place, fill};
use read::Reader;
pub(super) use run::{cancel, poll};

/// What is wanted of an answer.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// A value for conditions.
    Value(&'a Threshold),
    /// Two results for every scenario.
    Pairs(&'a Paired),
}

/// The web provider of a gate, where it has one.
pub(super) fn of(gate: &Gate) -> Option<(Wanted<'_>, &WebProvider)> {
    match (&gate.threshold, &gate.paired) {
        (Some(threshold), None) => match &threshold.provider {
            Provider { prometheus: None, web: Some(web) } => Some((Wanted::Value(threshold), web)),
            _ => None,
        },
        (None, Some(paired)) => Some((Wanted::Pairs(paired), &paired.web)),
        _ => None,
    }
}

/// Parses what a gate reads from answers.
///
/// # Errors
/// A JSONPath or an expression that is not valid.
pub(super) fn check(gate: &Gate) -> Result<(), SourceError> {
    match of(gate) {
        Some((wanted, web)) => Reader::new(wanted, web).map(drop).map_err(|e| SourceError::new(format!("web: {e}"))),
        None => Ok(()),
    }
}

/// A harness, and everything that is needed to ask it.
pub(super) struct Harness<'a> {
    http: &'a Http,
    vault: &'a Vault<'a>,
    web: &'a WebProvider,
    key: &'a str,
    args: BTreeMap<String, ArgValue>,
    reader: Reader,
}

/// Why an answer is none: for good, or one to the same request may come later.
enum Trouble {
    Final(SourceError),
    Later(SourceError),
}

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Self {
        Self::Final(error)
    }
}

impl Trouble {
    fn error(self) -> SourceError {
        match self {
            Self::Final(error) | Self::Later(error) => error,
        }
    }
}

impl<'a> Harness<'a> {
    /// Reads the provider's fields; nothing is sent.
    ///
    /// # Errors
    /// A JSONPath or an expression that is not valid.
    pub(super) fn new(
        http: &'a Http,
        vault: &'a Vault<'a>,
        request: &'a Request,
        (wanted, web): (Wanted<'_>, &'a WebProvider),
    ) -> Result<Self, SourceError> {
        let reader = Reader::new(wanted, web).map_err(|e| SourceError::new(format!("web: {e}")))?;
        let mut args = request.args.clone();
        args.insert("run.key".into(), ArgValue::plain(request.key.clone()));
        Ok(Self { http, vault, web, key: &request.key, args, reader })
    }

    /// Takes the measurement, or starts it.
    pub(super) async fn start(&self) -> Result<Progress, SourceError> {
        if let Some(run) = &self.web.run {
            return run::start(self, run).await;
        }
        let (what, answer) = self.first().await.map_err(Trouble::error)?;
        http::check_status(&what, answer.status, &answer.headers, "")?;
        self.reader.read(&document(&what, &answer)?).map_err(|e| SourceError::new(format!("{what}: {e}")))
    }

    /// Sends the start, with the measurement's key; gives the answer and what it is an answer to.
    async fn first(&self) -> Result<(String, Answer), Trouble> {
        let web = self.web;
        let fail = |e: String| SourceError::new(format!("web: {e}"));
        let url = self.start_url()?;
        let method = match web.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
        };
        let what = describe(&method, &url);
        let mut map = self.headers(&what).await?;
        let key = headers::sensitive(self.key).ok_or_else(|| fail("the measurement's key cannot be sent".into()))?;
        map.insert(IDEMPOTENCY_KEY, key);
        let body = match &web.body {
            Some(template) => {
                map.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
                Some(fill(&args::run_facts(template), Place::Json, &self.args).map_err(|e| fail(format!("body: {e}")))?.text)
            }
            None => None,
        };
        let answer = self.send(&what, method, &url, map, body).await?;
        Ok((what, answer))
    }

    fn start_url(&self) -> Result<String, SourceError> {
        let filled = fill(&args::run_facts(&self.web.url), Place::Url, &self.args);
        Ok(filled.map_err(|e| SourceError::new(format!("web: url: {e}")))?.text)
    }

    async fn headers(&self, what: &str) -> Result<HeaderMap, SourceError> {
        let with_facts = |h: &Header| Header { value: h.value.as_deref().map(args::run_facts).map(Cow::into_owned), ..h.clone() };
        let written: Vec<Header> = self.web.access.headers.iter().map(with_facts).collect();
        let mut map = headers::build(what, &written, self.web.access.auth.as_ref(), &self.args, self.vault).await?;
        map.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        Ok(map)
    }

    async fn send(&self, what: &str, method: reqwest::Method, url: &str, map: HeaderMap, body: Option<String>) -> Result<Answer, Trouble> {
        let (url, client) = self.http.client(what, url, self.web.access.tls.as_ref(), self.vault).await?;
        let exchange = exchange(client, method, url, map, body);
        match http::within(std_duration(self.web.timeout), what, async { Ok(exchange.await) }).await {
            Err(late) => Err(Trouble::Later(late)),
            Ok(Err(lost)) if lost.is_transient() => Err(Trouble::Later(lost.error(what))),
            Ok(Err(lost)) => Err(Trouble::Final(lost.error(what))),
            Ok(Ok(answer)) => Ok(answer),
        }
    }
}

async fn exchange(client: Client, method: reqwest::Method, url: Url, map: HeaderMap, body: Option<String>) -> Result<Answer, NoAnswer> {
    let request = client.request(method, url).headers(map);
    let request = match body {
        Some(body) => request.body(body),
        None => request,
    };
    http::read_all(request.send().await.map_err(NoAnswer::Lost)?).await
}

/// The answer as JSON.
fn document(what: &str, answer: &Answer) -> Result<Value, SourceError> {
    serde_json::from_slice(&answer.body).map_err(|_| {
        let kind = content_type(&answer.headers).unwrap_or_default();
        SourceError::new(format!("{what}: the answer is not JSON ({kind}{} bytes)", answer.body.len()))
    })
}

/// The media type, where it looks like one.
fn content_type(map: &HeaderMap) -> Option<String> {
    let kind = map.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim();
    let plain = kind.len() <= 60 && kind.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '+' | '-'));
    (plain && !kind.is_empty()).then(|| format!("{kind}, "))
}

/// Method and origin: path and query may hold arguments from Secrets.
fn describe(method: &reqwest::Method, url: &str) -> String {
    format!("web {method} {}", origin(url))
}

/// Scheme, host and port of a URL.
pub(super) fn origin(url: &str) -> String {
    match Url::parse(url) {
        Ok(url) => url.origin().ascii_serialization(),
        Err(_) => "of a URL that is not valid".into(),
    }
}

/// Whether the server may answer the same request later.
fn is_transient(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

#[cfg(test)]
#[path = "tests/web.rs"]
mod tests;

#[cfg(test)]
#[path = "tests/web_run.rs"]
mod run_tests;
