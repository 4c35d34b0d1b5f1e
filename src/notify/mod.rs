//! Sends messages: to Slack, or as CloudEvents. What is sent when is decided in [`crate::core::notify`].

mod cloud_event;
mod slack;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use url::Url;

use crate::api::common::SecretKeyRef;
use crate::api::notification::Webhook;
use crate::api::outbox::Facts;
use crate::core::notify::outbox::Answer;
use crate::core::notify::template::{self, Escape};
use crate::core::notify::{Notifier, Target};
use crate::sources::post::{NotPosted, Outgoing, Post};
use crate::sources::secrets::SecretReader;

/// Sends messages.
pub struct Messenger {
    post: Arc<dyn Post>,
    secrets: Arc<dyn SecretReader>,
    /// Namespace of the Secrets of defaults.
    operator_namespace: String,
    /// Where Slack's bots are heard.
    slack_api: String,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Letter {
    /// See [`crate::api::outbox::Queued::id`].
    pub id: String,
    /// To whom.
    pub notifier: Arc<Notifier>,
    /// What.
    pub facts: Facts,
    /// Where it links to; empty for nowhere.
    pub link: String,
}

impl Messenger {
    /// Sends with `post`; Secrets of defaults are read in `operator_namespace`.
    pub fn new(post: Arc<dyn Post>, secrets: Arc<dyn SecretReader>, operator_namespace: impl Into<String>) -> Self {
        Self { post, secrets, operator_namespace: operator_namespace.into(), slack_api: slack::POST_MESSAGE.into() }
    }

    /// Has Slack's bots heard at another address.
    pub fn with_slack_api(mut self, url: impl Into<String>) -> Self {
        self.slack_api = url.into();
        self
    }

    /// Sends one message. What it gives holds no secret and nothing that the receiver wrote.
    pub async fn send(&self, letter: &Letter) -> Answer {
        let namespace = if letter.notifier.is_default { &self.operator_namespace } else { &letter.facts.namespace };
        let outgoing = match self.outgoing(letter, namespace).await {
            Ok(outgoing) => outgoing,
            Err(answer) => return answer,
        };
        match self.post.post(&outgoing).await {
            Ok(posted) => match &letter.notifier.target {
                Target::SlackWebhook(_) => slack::of_webhook(&posted),
                Target::SlackBot(_) => slack::of_bot(&posted),
                Target::Webhook(_) => cloud_event::answer(&posted),
            },
            Err(why) => unheard(why, |why| without_host(letter, &outgoing, why)),
        }
    }

    async fn outgoing(&self, letter: &Letter, namespace: &str) -> Result<Outgoing, Answer> {
        match &letter.notifier.target {
            Target::SlackWebhook(secret) => {
                let url = self.secret(namespace, secret).await?;
                if !Url::parse(&url).is_ok_and(|u| matches!(u.scheme(), "http" | "https") && u.has_host()) {
                    let why = format!(
                        "the key {} of the Secret {namespace}/{} is no http or https address: put the webhook's URL there",
                        secret.key, secret.name
                    );
                    return Err(Answer::Stuck { why });
                }
                Ok(slack::to_webhook(url, &text(letter, Escape::Slack)))
            }
            Target::SlackBot(bot) => {
                let token = self.secret(namespace, &bot.token).await?;
                Ok(slack::to_bot(&self.slack_api, &token, &bot.channel, &text(letter, Escape::Slack)))
            }
            Target::Webhook(webhook) => {
                let headers = self.headers(namespace, webhook).await?;
                Ok(cloud_event::to(&webhook.url, headers, letter, &text(letter, Escape::None)))
            }
        }
    }

    async fn headers(&self, namespace: &str, webhook: &Webhook) -> Result<Vec<(String, String)>, Answer> {
        let mut headers = Vec::new();
        for header in &webhook.headers {
            let value = match (&header.value, &header.secret_key_ref) {
                (_, Some(secret)) => self.secret(namespace, secret).await?,
                (value, None) => value.clone().unwrap_or_default(),
            };
            headers.push((header.name.clone(), value));
        }
        Ok(headers)
    }

    async fn secret(&self, namespace: &str, secret: &SecretKeyRef) -> Result<String, Answer> {
        let read = self.secrets.read(namespace, secret).await;
        let value = read.map_err(|error| match error.retry_after {
            Some(_) => Answer::Refused { why: error.message, wait: None },
            None => Answer::Stuck { why: error.message },
        })?;
        Ok(value.trim().to_owned())
    }
}

/// A template that fails on these facts keeps nobody from hearing of them: the usual sentence is told.
fn text(letter: &Letter, escape: Escape) -> String {
    let (facts, link) = (&letter.facts, letter.link.as_str());
    let own = letter.notifier.template.as_deref().map(|t| template::render(t, facts, link, escape));
    if let Some(Err(error)) = &own {
        tracing::warn!(notification = letter.notifier.name, rollout = facts.rollout, namespace = facts.namespace, %error, "a template gives no text; the usual sentence is sent");
    }
    own.and_then(Result::ok).unwrap_or_else(|| {
        let usual = template::render(template::usual(facts.trigger), facts, link, escape);
        usual.unwrap_or_else(|_| format!("{}/{}: {}", facts.namespace, facts.rollout, facts.trigger))
    })
}

/// What it means that there is no answer; its words go through `told`.
fn unheard(why: NotPosted, told: impl Fn(String) -> String) -> Answer {
    match why {
        NotPosted::Forbidden(why) => Answer::Stuck { why: told(why) },
        NotPosted::NotSent(why) => Answer::Refused { why: told(why), wait: None },
        NotPosted::Lost(why) => Answer::Unknown { why: told(why) },
    }
}

/// The host of a URL that is a secret is a part of it.
fn without_host(letter: &Letter, outgoing: &Outgoing, why: String) -> String {
    let secret = matches!(letter.notifier.target, Target::SlackWebhook(_));
    match Url::parse(&outgoing.url).ok().and_then(|u| u.host_str().map(str::to_owned)).filter(|_| secret) {
        Some(host) => why.replace(host.trim_matches(['[', ']']), "the Secret's host"),
        None => why,
    }
}
