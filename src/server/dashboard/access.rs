//! Who asks, and what they may see and do.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use futures::future::BoxFuture;
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use kube::Client;
use sha2::{Digest, Sha256};

use super::refusal::Refusal;
use crate::api::common::GROUP;

/// Somebody whose token was accepted.
#[derive(Clone)]
pub struct Caller {
    /// The user name, as the API server knows it.
    pub name: String,
    /// Groups.
    pub groups: Vec<String>,
    /// UID, where there is one.
    pub uid: Option<String>,
    /// What an authenticator adds, by key.
    pub extra: std::collections::BTreeMap<String, Vec<String>>,
    /// Hash of the token: what answers are remembered by.
    pub key: [u8; 32],
    /// Acts with the caller's own rights.
    pub client: Client,
}

/// Lets callers in.
pub trait Access: Send + Sync + 'static {
    /// Who holds this token. Asked again while a stream is open.
    fn caller<'a>(&'a self, token: &'a Token) -> BoxFuture<'a, Result<Caller, Refusal>>;

    /// Whether the caller may list the rollouts of a namespace; empty: of all.
    fn may_list<'a>(&'a self, caller: &'a Caller, namespace: &'a str) -> BoxFuture<'a, Result<bool, Refusal>>;

    /// Whether the caller may give commands in a namespace.
    fn may_act<'a>(&'a self, caller: &'a Caller, namespace: &'a str) -> BoxFuture<'a, Result<bool, Refusal>>;
}

/// How long a right is not asked about again.
pub const RIGHT_FOR: Duration = Duration::from_secs(30);

/// A right as reviews name it; an empty namespace: in all.
pub fn right(verb: &str, resource: &str, namespace: &str) -> ResourceAttributes {
    ResourceAttributes {
        group: Some(GROUP.into()),
        resource: Some(resource.into()),
        verb: Some(verb.into()),
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        ..ResourceAttributes::default()
    }
}

/// A bearer token. Not shown by anything.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// That of a request.
    ///
    /// # Errors
    /// When it has none.
    pub fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let value = headers.get(header::AUTHORIZATION).ok_or(Refusal::NoToken)?;
        let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Refusal::NoToken)?;
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Err(Refusal::NoToken);
        }
        Ok(Self(token.to_owned()))
    }

    /// Its text, for those who check it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// SHA-256 of it. Comparing two of these tells nothing about the token by the time it takes.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}
