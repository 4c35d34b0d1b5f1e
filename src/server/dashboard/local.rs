//! The dashboard of one person on their own machine: their kubeconfig, and a secret that only the page they opened knows.

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};

use super::access::{Access, Caller, RIGHT_FOR, Token, right};
use super::cached::Cached;
use super::cluster::in_time;
use super::refusal::Refusal;

const RIGHTS: usize = 1024;

/// One person.
pub struct Local {
    client: Client,
    name: String,
    /// Hash of the secret.
    key: [u8; 32],
    rights: Cached<String, bool>,
}

impl Local {
    /// Lets in whoever knows `secret`, as the person whose `client` it is.
    ///
    /// # Errors
    /// When the API server does not say who that is.
    pub async fn new(client: Client, secret: &str) -> Result<Self, Refusal> {
        let api: Api<SelfSubjectReview> = Api::all(client.clone());
        let (what, params, empty) = ("ask the API server who you are", PostParams::default(), SelfSubjectReview::default());
        let review = in_time(what, api.create(&params, &empty)).await?;
        let name = review.status.and_then(|status| status.user_info).and_then(|user| user.username);
        let name = name.ok_or_else(|| Refusal::Unavailable(format!("{what}: it did not say")))?;
        Ok(Self { client, name, key: Sha256::digest(secret.as_bytes()).into(), rights: Cached::new(RIGHTS) })
    }

    async fn may(&self, namespace: &str) -> Result<bool, Refusal> {
        let key = namespace.to_owned();
        if let Some(known) = self.rights.get(&key) {
            return Ok(known);
        }
        let attributes = right("create", "voicerolloutactions", namespace);
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = in_time("check your rights", api.create(&PostParams::default(), &review)).await?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        self.rights.put(key, allowed, RIGHT_FOR);
        Ok(allowed)
    }
}

impl Access for Local {
    fn caller<'a>(&'a self, token: &'a Token) -> BoxFuture<'a, Result<Caller, Refusal>> {
        // Hashes are compared: how long it takes says nothing about the secret.
        let known = token.hash() == self.key;
        let caller = || Caller {
            name: self.name.clone(),
            groups: Vec::new(),
            uid: None,
            extra: std::collections::BTreeMap::new(),
            key: self.key,
            client: self.client.clone(),
        };
        std::future::ready(if known { Ok(caller()) } else { Err(Refusal::BadToken) }).boxed()
    }

    /// The board was filled with the person's own rights.
    fn may_list<'a>(&'a self, _: &'a Caller, _: &'a str) -> BoxFuture<'a, Result<bool, Refusal>> {
        std::future::ready(Ok(true)).boxed()
    }

    fn may_act<'a>(&'a self, _: &'a Caller, namespace: &'a str) -> BoxFuture<'a, Result<bool, Refusal>> {
        self.may(namespace).boxed()
    }
}
