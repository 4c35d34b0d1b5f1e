//! HTTP for every provider: egress guard, TLS settings, one time limit, a cap on the answer, errors without secrets.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use parking_lot::Mutex;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Certificate, Client, Response, StatusCode};
use url::Url;

use super::SourceError;
use super::egress::{Egress, GuardedResolver, Refused};
use super::redact;
use super::secrets::Vault;
use crate::api::analysis::Tls;

/// Most bytes of an answer that are read.
pub(super) const MAX_BODY: usize = 1024 * 1024;
/// Longest wait that a provider may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// TLS settings with a client of their own that are kept; beyond it the cache starts anew.
const MAX_CLIENTS: usize = 64;

/// Makes and keeps the HTTP clients, one for each TLS setting.
pub(super) struct Http {
    egress: Arc<Egress>,
    user_agent: String,
    clients: Mutex<HashMap<TlsKey, Client>>,
}

/// What a client's TLS depends on.
#[derive(Clone, PartialEq, Eq, Hash)]
enum TlsKey {
    /// No TLS, so that no trust store is needed.
    Plain,
    /// The system's trust store, and these PEM certificates.
    Checked(Option<String>),
    /// Nothing is checked.
    Unchecked,
}

/// An answer, read to its end.
pub(super) struct Answer {
    /// Status.
    pub(super) status: StatusCode,
    /// Headers.
    pub(super) headers: HeaderMap,
    /// Body; untrusted, and never part of a message.
    pub(super) body: Vec<u8>,
}

impl Http {
    pub(super) fn new(egress: Egress, user_agent: String) -> Self {
        Self { egress: Arc::new(egress), user_agent, clients: Mutex::default() }
    }

    /// Parses a URL and checks that it may be reached; gives the client for it.
    pub(super) async fn client(&self, what: &str, url: &str, tls: Option<&Tls>, vault: &Vault<'_>) -> Result<(Url, Client), SourceError> {
        let url = self.checked(what, url)?;
        let key = match tls {
            _ if url.scheme() == "http" => TlsKey::Plain,
            Some(tls) if tls.insecure_skip_verify => TlsKey::Unchecked,
            Some(Tls { ca: Some(ca), .. }) => TlsKey::Checked(Some(vault.read(ca).await?)),
            _ => TlsKey::Checked(None),
        };
        self.kept(key).map(|client| (url, client)).map_err(|e| SourceError::new(format!("{what}: {e}")))
    }

    /// The client for plain HTTP, and the URL, if it may be reached.
    pub(super) fn plain(&self, what: &str, url: &str) -> Result<(Url, Client), SourceError> {
        let url = self.checked(what, url)?;
        self.kept(TlsKey::Plain).map(|client| (url, client)).map_err(|e| SourceError::new(format!("{what}: {e}")))
    }

    /// A URL that may be reached, and the client for it that trusts what the system trusts.
    pub(super) fn trusting_the_system(&self, url: &str) -> Result<(Url, Client), String> {
        let url = Url::parse(url).map_err(|e| format!("the URL is not valid: {e}"))?;
        self.egress.check_url(&url).map_err(|e| e.to_string())?;
        let key = if url.scheme() == "http" { TlsKey::Plain } else { TlsKey::Checked(None) };
        self.kept(key).map(|client| (url, client))
    }

    fn checked(&self, what: &str, url: &str) -> Result<Url, SourceError> {
        let url = Url::parse(url).map_err(|e| SourceError::new(format!("{what}: the URL is not valid: {e}")))?;
        self.egress.check_url(&url).map_err(|e| SourceError::new(format!("{what}: {e}")))?;
        Ok(url)
    }

    fn kept(&self, key: TlsKey) -> Result<Client, String> {
        if let Some(client) = self.clients.lock().get(&key) {
            return Ok(client.clone());
        }
        let client = self.build(&key)?;
        let mut clients = self.clients.lock();
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn build(&self, key: &TlsKey) -> Result<Client, String> {
        let builder = Client::builder()
            .user_agent(&self.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .connect_timeout(Duration::from_secs(10))
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(4)
            .dns_resolver(Arc::new(GuardedResolver(self.egress.clone())));
        let builder = match key {
            TlsKey::Plain => builder.tls_certs_only([]),
            TlsKey::Unchecked => builder.tls_danger_accept_invalid_certs(true),
            TlsKey::Checked(None) => builder,
            TlsKey::Checked(Some(pem)) => {
                let certs = Certificate::from_pem_bundle(pem.as_bytes()).unwrap_or_default();
                if certs.is_empty() {
                    return Err("tls.ca: the Secret holds no PEM certificate".into());
                }
                builder.tls_certs_merge(certs)
            }
        };
        builder.build().map_err(|e| format!("TLS cannot be set up: {}", root_cause(&e)))
    }
}

/// Runs a request, from the connection to the last byte, within `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    what: &str,
    request: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    match tokio::time::timeout(limit, request).await {
        Ok(result) => result,
        Err(_) => Err(SourceError::new(format!("{what}: no answer within {limit:?} (`timeout`)"))),
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// It is longer than the limit, which is [`MAX_BODY`] unless the caller says otherwise.
    TooLong,
    /// It was not sent, or broke off.
    Lost(reqwest::Error),
}

impl NoAnswer {
    /// Whether the same request may be answered later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::TooLong => false,
            Self::Lost(error) => !error.is_builder() && find::<Refused>(error).is_none(),
        }
    }

    /// As the caller's error.
    pub(super) fn error(&self, what: &str) -> SourceError {
        match self {
            Self::TooLong => SourceError::new(format!("{what}: the answer is longer than {} KiB", MAX_BODY / 1024)),
            Self::Lost(error) => transport_error(what, error),
        }
    }
}

/// Reads an answer up to [`MAX_BODY`].
pub(super) async fn read(what: &str, response: Response) -> Result<Answer, SourceError> {
    read_all(response).await.map_err(|e| e.error(what))
}

/// The same, with the reason why there is none.
pub(super) async fn read_all(response: Response) -> Result<Answer, NoAnswer> {
    read_most(response, MAX_BODY).await
}

/// The same with another limit, in bytes.
pub(super) async fn read_most(mut response: Response, most: usize) -> Result<Answer, NoAnswer> {
    if response.content_length().is_some_and(|n| n > most as u64) {
        return Err(NoAnswer::TooLong);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(NoAnswer::Lost)? {
        if body.len() + chunk.len() > most {
            return Err(NoAnswer::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status: response.status(), headers: std::mem::take(response.headers_mut()), body })
}

/// Refuses anything but 2xx, without the body; `detail` is what the caller knows about it.
pub(super) fn check_status(what: &str, status: StatusCode, headers: &HeaderMap, detail: &str) -> Result<(), SourceError> {
    if status.is_success() {
        return Ok(());
    }
    let message = if status.is_redirection() {
        format!("{what}: HTTP {}: redirects are not followed; use the final address", status.as_u16())
    } else {
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        format!("{what}: HTTP {}{detail}", text(status))
    };
    Err(SourceError { message, retry_after: retry_after(status, headers), tokens: None })
}

/// `503 Service Unavailable`.
fn text(status: StatusCode) -> String {
    match (status.as_u16(), status.canonical_reason()) {
        (529, _) => "529 Overloaded".into(),
        (code, Some(reason)) => format!("{code} {reason}"),
        (code, None) => code.to_string(),
    }
}

/// The wait that a 429, 503 or 529 asks for, in seconds or as a date, at most an hour.
pub(super) fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if matches!(status.as_u16(), 429 | 503 | 529) { wait_asked(headers) } else { None }
}

/// The wait in a `Retry-After` header, whatever the status.
pub(super) fn wait_asked(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match value.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => Duration::try_from_secs_f64(seconds).unwrap_or(MAX_RETRY_AFTER),
        Ok(_) => return None,
        Err(_) => {
            let at = http_date(value)?;
            let now = headers.get(DATE).and_then(|d| d.to_str().ok()).and_then(http_date).unwrap_or_else(Timestamp::now);
            Duration::try_from(at.duration_since(now)).ok()?
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn http_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// What went wrong between us and the server, without the URL.
pub(super) fn transport_error(what: &str, error: &reqwest::Error) -> SourceError {
    if let Some(refused) = find::<Refused>(error) {
        return SourceError::new(format!("{what}: {refused}"));
    }
    let cause = root_cause(error);
    SourceError::new(match () {
        () if error.is_builder() => format!("{what}: the request is not valid: {cause}"),
        () if error.is_timeout() => format!("{what}: the connection timed out"),
        () if error.is_connect() => format!("{what}: cannot connect: {cause}"),
        () => format!("{what}: the connection failed: {cause}"),
    })
}

/// Why the address may not be reached, where that is the cause.
pub(super) fn refused(error: &reqwest::Error) -> Option<String> {
    find::<Refused>(error).map(ToString::to_string)
}

/// The innermost cause, without the URL.
pub(super) fn cause(error: &reqwest::Error) -> String {
    root_cause(error)
}

/// The first error of type `E` in the chain of causes.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |e: &&'a (dyn StdError + 'static)| (*e).source()).find_map(|e| e.downcast_ref::<E>())
}

/// The innermost cause: an operating system's, TLS' or HTTP parser's words, never a URL.
fn root_cause(error: &reqwest::Error) -> String {
    let mut last: &(dyn StdError + 'static) = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    if last.is::<reqwest::Error>() { "no details".into() } else { redact::line(&last.to_string(), 200) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_seconds_or_as_a_date() {
        let cases: &[(u16, &str, Option<u64>)] = &[
            (429, "7", Some(7)),
            (503, "0", Some(0)),
            (529, "1.5", Some(1)),
            (503, "Sun, 22 Nov 2026 10:02:00 GMT", Some(120)),
            (503, "Sun, 22 Nov 2026 09:00:00 GMT", None),
            (429, "99999999999", Some(3600)),
            (429, "-1", None),
            (429, "NaN", None),
            (429, "soon", None),
            (500, "7", None),
        ];
        for (status, value, seconds) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            headers.insert(DATE, "Sun, 22 Nov 2026 10:00:00 GMT".parse().unwrap());
            let got = retry_after(StatusCode::from_u16(*status).unwrap(), &headers);
            assert_eq!(got.map(|d| d.as_secs()), *seconds, "{status} {value}");
        }
    }
}
