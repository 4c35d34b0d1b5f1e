//! One POST to a receiver that a manifest names, behind the same egress guard as measurements.

use std::time::Duration;

use futures::future::BoxFuture;
use reqwest::header::HeaderMap;

use super::egress::Egress;
use super::headers::{self, sensitive};
use super::http::{self, Http, NoAnswer};
use crate::core::request::RESERVED_HEADERS;

/// Longest time from the connection to the last byte of the answer.
const LIMIT: Duration = Duration::from_secs(15);
/// Most bytes of an answer that are read.
const MAX_ANSWER: usize = 16 * 1024;

/// What is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to; may be a secret.
    pub url: String,
    /// Headers, by name; values may be secrets.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Posted {
    /// Status.
    pub status: u16,
    /// The wait that it asks for.
    pub retry_after: Option<Duration>,
    /// Body; untrusted, and never part of a message.
    pub body: Vec<u8>,
}

/// Why there is no answer. Holds no URL and no value of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotPosted {
    /// The address may not be reached, or the request is not one.
    Forbidden(String),
    /// No connection: nothing was sent.
    NotSent(String),
    /// Sent, perhaps; there is no answer.
    Lost(String),
}

/// Sends POSTs.
pub trait Post: Send + Sync {
    /// Sends one and reads its answer.
    fn post<'a>(&'a self, what: &'a Outgoing) -> BoxFuture<'a, Result<Posted, NotPosted>>;
}

/// Sends POSTs over HTTP.
pub struct Poster {
    http: Http,
}

impl Poster {
    /// Connects where `egress` allows.
    pub fn new(egress: Egress, user_agent: String) -> Self {
        Self { http: Http::new(egress, user_agent) }
    }

    async fn send(&self, what: &Outgoing) -> Result<Posted, NotPosted> {
        let (url, client) = self.http.trusting_the_system(&what.url).map_err(NotPosted::Forbidden)?;
        let mut map = HeaderMap::new();
        for (name, value) in &what.headers {
            let bad = |why: &str| NotPosted::Forbidden(format!("header {name:?}: {why}"));
            let key = reqwest::header::HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("not a valid header name"))?;
            if RESERVED_HEADERS.contains(&key.as_str()) {
                return Err(bad(headers::OURS));
            }
            map.insert(key, sensitive(value).ok_or_else(|| bad("the value has characters that a header cannot carry"))?);
        }
        let response = client.post(url).headers(map).body(what.body.clone()).send().await.map_err(|e| not_posted(&e))?;
        let (status, retry_after) = (response.status().as_u16(), http::wait_asked(response.headers()));
        match http::read_most(response, MAX_ANSWER).await {
            Ok(answer) => Ok(Posted { status, retry_after, body: answer.body }),
            // The status says enough.
            Err(NoAnswer::TooLong) => Ok(Posted { status, retry_after, body: Vec::new() }),
            Err(NoAnswer::Lost(error)) => Err(NotPosted::Lost(http::cause(&error))),
        }
    }
}

fn not_posted(error: &reqwest::Error) -> NotPosted {
    if let Some(refused) = http::refused(error) {
        return NotPosted::Forbidden(refused);
    }
    match () {
        () if error.is_builder() => NotPosted::Forbidden(http::cause(error)),
        () if error.is_connect() => NotPosted::NotSent(format!("cannot connect: {}", http::cause(error))),
        () => NotPosted::Lost(format!("the connection failed: {}", http::cause(error))),
    }
}

impl Post for Poster {
    fn post<'a>(&'a self, what: &'a Outgoing) -> BoxFuture<'a, Result<Posted, NotPosted>> {
        Box::pin(async move {
            let late = || NotPosted::Lost(format!("no answer within {} s", LIMIT.as_secs()));
            tokio::time::timeout(LIMIT, self.send(what)).await.unwrap_or_else(|_| Err(late()))
        })
    }
}
