//! Callers in a cluster: their tokens are the API server's (TokenReview), and so are their rights (SubjectAccessReview).
//!
//! What is read or done for one caller alone goes to the API server with the caller's own token, so that it decides by
//! itself, and its audit log and admission policies see the caller.

use std::future::Future;
use std::time::Duration;

use axum::http::{HeaderValue, Request, header};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::client::Body;
use kube::config::AuthInfo;
use kube::{Api, Client, Config};
use tokio::sync::Semaphore;

use super::access::{self, Access, Caller, RIGHT_FOR, Token};
use super::cached::Cached;
use super::refusal::Refusal;

/// How long an accepted token is not asked about again.
const TOKEN_FOR: Duration = Duration::from_secs(60);
/// The same for one that was not accepted.
const NO_TOKEN_FOR: Duration = Duration::from_secs(10);
/// Limit of one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Reviews under way at the same time: tokens that nobody knows must not keep the API server busy.
const REVIEWS: usize = 8;
const TOKENS: usize = 1024;
const RIGHTS: usize = 16 * 1024;

/// Kubernetes tokens.
pub struct Cluster {
    /// The operator's own; it asks about others.
    reviewer: Client,
    /// Has no credentials of its own.
    bare: Client,
    tokens: Cached<[u8; 32], Result<Caller, Refusal>>,
    rights: Cached<([u8; 32], Right, String), bool>,
    reviews: Semaphore,
}

/// What may be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Right {
    List,
    Act,
}

impl Cluster {
    /// `reviewer` creates reviews; `bare` reaches the same API server without credentials.
    pub fn new(reviewer: Client, bare: Client) -> Self {
        Self { reviewer, bare, tokens: Cached::new(TOKENS), rights: Cached::new(RIGHTS), reviews: Semaphore::new(REVIEWS) }
    }

    /// The configuration of a client without credentials.
    pub fn bare(config: &Config) -> Config {
        let mut bare = config.clone();
        bare.auth_info = AuthInfo::default();
        bare
    }

    async fn review(&self, token: &Token) -> Result<Caller, Refusal> {
        let spec = TokenReviewSpec { token: token.reveal().to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api: Api<TokenReview> = Api::all(self.reviewer.clone());
        let status = self.ask("check the token", api.create(&PostParams::default(), &review)).await?.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).ok_or(Refusal::BadToken)?;
        Ok(Caller {
            name: user.username.filter(|name| !name.is_empty()).ok_or(Refusal::BadToken)?,
            groups: user.groups.unwrap_or_default(),
            uid: user.uid,
            extra: user.extra.unwrap_or_default(),
            key: token.hash(),
            client: with_token(&self.bare, token)?,
        })
    }

    async fn may(&self, caller: &Caller, right: Right, namespace: &str) -> Result<bool, Refusal> {
        let key = (caller.key, right, namespace.to_owned());
        if let Some(known) = self.rights.get(&key) {
            return Ok(known);
        }
        let (verb, resource) = match right {
            Right::List => ("list", "voicerollouts"),
            Right::Act => ("create", "voicerolloutactions"),
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(caller.name.clone()),
            groups: Some(caller.groups.clone()),
            uid: caller.uid.clone(),
            extra: Some(caller.extra.clone()),
            resource_attributes: Some(access::right(verb, resource, namespace)),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let api: Api<SubjectAccessReview> = Api::all(self.reviewer.clone());
        let answer = self.ask("check the rights", api.create(&PostParams::default(), &review)).await?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        self.rights.put(key, allowed, RIGHT_FOR);
        Ok(allowed)
    }

    /// The operator's own question: that it is refused says nothing about the caller, and its words are for the log.
    async fn ask<T>(&self, what: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, Refusal> {
        let in_turn = async {
            let _turn = self.reviews.acquire().await;
            request.await.inspect_err(|error| {
                if let kube::Error::Api(status) = error {
                    tracing::warn!(code = status.code, error = status.message, "dashboard: {what}");
                }
            })
        };
        in_time(what, in_turn).await.map_err(|refusal| match refusal {
            Refusal::Unavailable(_) => refusal,
            Refusal::BadToken | Refusal::Forbidden(_) => {
                Refusal::Unavailable(format!("{what}: the operator may not ask the API server about it; its log says more"))
            }
            _ => Refusal::Unavailable(format!("{what}: the API server does not take the operator's question; its log says more")),
        })
    }
}

impl Access for Cluster {
    fn caller<'a>(&'a self, token: &'a Token) -> BoxFuture<'a, Result<Caller, Refusal>> {
        async move {
            let key = token.hash();
            if let Some(known) = self.tokens.get(&key) {
                return known;
            }
            let found = self.review(token).await;
            match &found {
                Ok(_) => self.tokens.put(key, found.clone(), TOKEN_FOR),
                Err(Refusal::BadToken) => self.tokens.put(key, found.clone(), NO_TOKEN_FOR),
                Err(_) => {}
            }
            found
        }
        .boxed()
    }

    fn may_list<'a>(&'a self, caller: &'a Caller, namespace: &'a str) -> BoxFuture<'a, Result<bool, Refusal>> {
        self.may(caller, Right::List, namespace).boxed()
    }

    fn may_act<'a>(&'a self, caller: &'a Caller, namespace: &'a str) -> BoxFuture<'a, Result<bool, Refusal>> {
        self.may(caller, Right::Act, namespace).boxed()
    }
}

/// Waits for an answer, but not for ever.
pub(super) async fn in_time<T>(what: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, Refusal> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| Refusal::of_kube(what, error)),
        Err(_) => Err(Refusal::Unavailable(format!("{what}: the API server does not answer"))),
    }
}

/// A client that sends this token with each request.
fn with_token(bare: &Client, token: &Token) -> Result<Client, Refusal> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal())).map_err(|_| Refusal::BadToken)?;
    value.set_sensitive(true);
    let bare = bare.clone();
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let bare = bare.clone();
        request.headers_mut().insert(header::AUTHORIZATION, value.clone());
        async move { bare.send(request).await }
    });
    Ok(Client::new(service, "default"))
}
