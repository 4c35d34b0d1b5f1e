//! Notifications, parsed: what is wrong with one keeps neither the others nor a release.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::template;
use crate::api::common::SecretKeyRef;
use crate::api::notification::{MAX_NOTIFICATIONS, Notification, SlackBot, Trigger, Webhook};
use crate::core::{SpecError, request};

/// The file that the operator is given: notifications of every rollout.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Defaults {
    /// The address that messages link to, with `{namespace}` and `{rollout}` to be filled in.
    pub link: Option<String>,
    /// Notifications of every rollout that has none of the same name.
    pub notifiers: Vec<Arc<Notifier>>,
    /// Those that are wrong.
    pub wrong: Vec<Wrong>,
    /// The file cannot be read: which notifications it has is not known.
    pub unreadable: bool,
    /// What is wrong with the file.
    pub mistakes: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    link: String,
    #[serde(default)]
    notifications: Vec<Notification>,
}

impl Defaults {
    /// Reads the file's text. Never fails: what is wrong is in [`Defaults::mistakes`], by path in the file.
    pub fn parse(text: &str) -> Self {
        let broken =
            |why: String| Self { unreadable: true, mistakes: vec![format!("the operator's notifications: {why}")], ..Self::default() };
        let document: Value = match serde_yaml::from_str(text) {
            Ok(Value::Null) => return Self::default(),
            Ok(document) => document,
            Err(error) => return broken(error.to_string()),
        };
        let file: File = match serde_json::from_value(document.clone()) {
            Ok(file) => file,
            Err(error) => return broken(error.to_string()),
        };
        let Parsed { good: notifiers, wrong, errors } = parse_all(&file.notifications, "notifications", true);
        let mut mistakes: Vec<String> = errors.iter().map(|e| format!("the operator's notifications: {e}")).collect();
        let known = serde_json::json!({"link": file.link, "notifications": file.notifications});
        let mut unknown = Vec::new();
        unknown_fields(&document, &known, "", &mut unknown);
        mistakes.extend(unknown.into_iter().map(|path| format!("the operator's notifications: {path}: there is no such field")));
        let link = (!file.link.is_empty()).then_some(file.link);
        if let Some(problem) = link.as_deref().and_then(link_problem) {
            mistakes.push(format!("the operator's notifications: link: {problem}"));
        }
        Self { link: link.filter(|l| link_problem(l).is_none()), notifiers, wrong, unreadable: false, mistakes }
    }

    /// Where messages about a rollout link to; empty for nowhere.
    pub fn link_to(&self, namespace: &str, rollout: &str) -> String {
        let Some(link) = &self.link else { return String::new() };
        link.replace("{namespace}", namespace).replace("{rollout}", rollout)
    }
}

fn link_problem(link: &str) -> Option<String> {
    let sample = link.replace("{namespace}", "a").replace("{rollout}", "b");
    match Url::parse(&sample) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && !sample.contains(['<', '>', '|', ' ']) => None,
        _ => Some("is no http or https address; {namespace} and {rollout} are filled in".into()),
    }
}

/// Fields of `given` that reading it has passed over. Lists are compared item by item.
fn unknown_fields(given: &Value, known: &Value, path: &str, found: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match known.get(name) {
                    Some(known) => unknown_fields(value, known, &path, found),
                    // Left out when it says nothing.
                    None if value.is_null() || value.as_array().is_some_and(Vec::is_empty) => {}
                    None => found.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            given.iter().zip(known).enumerate().for_each(|(i, (g, k))| unknown_fields(g, k, &format!("{path}[{i}]"), found));
        }
        _ => {}
    }
}

/// A notification that can be carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Notifier {
    /// Its name.
    pub name: String,
    /// What is told.
    pub on: BTreeSet<Trigger>,
    /// To whom.
    pub target: Target,
    /// The message, where it is not the usual sentence.
    pub template: Option<String>,
    /// It is a default: its Secrets lie in the operator's namespace.
    pub is_default: bool,
}

/// Who is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// An incoming webhook of Slack; its URL is a secret.
    SlackWebhook(SecretKeyRef),
    /// A bot of Slack.
    SlackBot(SlackBot),
    /// A receiver of CloudEvents.
    Webhook(Webhook),
}

/// The kinds of targets, as metrics name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// See [`Target::SlackWebhook`].
    SlackWebhook,
    /// See [`Target::SlackBot`].
    SlackBot,
    /// See [`Target::Webhook`].
    Webhook,
}

impl Kind {
    /// As a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::SlackWebhook => "slack_webhook",
            Self::SlackBot => "slack_bot",
            Self::Webhook => "webhook",
        }
    }

    /// A message that was perhaps taken may be sent again: the receiver can tell duplicates.
    pub fn repeats(self) -> bool {
        self == Self::Webhook
    }
}

impl Target {
    fn kind(&self) -> Kind {
        match self {
            Self::SlackWebhook(_) => Kind::SlackWebhook,
            Self::SlackBot(_) => Kind::SlackBot,
            Self::Webhook(_) => Kind::Webhook,
        }
    }
}

impl Notifier {
    /// What kind its target is.
    pub fn kind(&self) -> Kind {
        self.target.kind()
    }
}

/// A notification that cannot be carried out until somebody puts it right. What is for it waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// Its name.
    pub name: String,
    /// What is told, as far as that can be read.
    pub on: BTreeSet<Trigger>,
    /// What kind its target is, where that can be read.
    pub kind: Option<Kind>,
}

/// The notifications of one rollout.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notifiers {
    /// Those that can be carried out.
    pub all: Vec<Arc<Notifier>>,
    /// The others.
    pub wrong: Vec<Wrong>,
    /// There may be more, whose names are not known.
    pub more: bool,
    /// What is wrong with the others.
    pub mistakes: Vec<String>,
}

impl Notifiers {
    /// Those of `spec.notifications`, and the defaults of other names. One that is wrong replaces its default all the same.
    pub fn parse(own: &[Notification], defaults: &Defaults) -> Self {
        let Parsed { good: mut all, mut wrong, errors } = parse_all(own, "spec.notifications", false);
        let is_free = |name: &str| own.iter().all(|n| n.name != name);
        all.extend(defaults.notifiers.iter().filter(|d| is_free(&d.name)).cloned());
        wrong.extend(defaults.wrong.iter().filter(|d| is_free(&d.name)).cloned());
        let mistakes = errors.iter().map(ToString::to_string).chain(defaults.mistakes.iter().cloned());
        Self { all, wrong, more: defaults.unreadable, mistakes: mistakes.collect() }
    }

    /// Of this name, if it can be carried out.
    pub fn get(&self, name: &str) -> Option<&Arc<Notifier>> {
        self.all.iter().find(|n| n.name == name)
    }

    /// The kind of the target of this name, where it is known.
    pub fn kind(&self, name: &str) -> Option<Kind> {
        let wrong = || self.wrong.iter().find(|w| w.name == name).and_then(|w| w.kind);
        self.get(name).map(|n| n.kind()).or_else(wrong)
    }

    /// Whether there is, or may be, one of this name.
    pub fn names(&self, name: &str) -> bool {
        self.more || self.get(name).is_some() || self.wrong.iter().any(|w| w.name == name)
    }

    /// Whether anybody is to be told anything, now or when a mistake is put right.
    pub fn any(&self) -> bool {
        !self.all.is_empty() || !self.wrong.is_empty()
    }

    /// Nobody is to be told anything, and that is no mistake.
    pub fn nobody(&self) -> bool {
        !self.any() && !self.more
    }

    /// Names of those who are told of a trigger, or will be.
    pub fn on(&self, trigger: Trigger) -> impl Iterator<Item = &str> {
        let good = self.all.iter().filter(move |n| n.on.contains(&trigger)).map(|n| n.name.as_str());
        good.chain(self.wrong.iter().filter(move |w| w.on.contains(&trigger)).map(|w| w.name.as_str()))
    }
}

#[derive(Default)]
struct Parsed {
    good: Vec<Arc<Notifier>>,
    wrong: Vec<Wrong>,
    errors: Vec<SpecError>,
}

fn parse_all(all: &[Notification], root: &str, is_default: bool) -> Parsed {
    let mut parsed = Parsed::default();
    let mut names = BTreeSet::new();
    if all.len() > MAX_NOTIFICATIONS {
        parsed.errors.push(SpecError::new(root, format!("has {} entries; at most {MAX_NOTIFICATIONS} are used", all.len())));
    }
    for (i, notification) in all.iter().enumerate() {
        let path = format!("{root}[{i}]");
        if i >= MAX_NOTIFICATIONS {
            let name = notification.name.clone();
            parsed.wrong.extend(names.insert(notification.name.as_str()).then(|| Wrong { name, on: BTreeSet::new(), kind: None }));
            continue;
        }
        if !names.insert(notification.name.as_str()) {
            parsed.errors.push(SpecError::new(
                format!("{path}.name"),
                format!("another one is called {} too: give it its own name", notification.name),
            ));
            continue;
        }
        match parse_one(notification, &path, is_default) {
            Ok(notifier) => parsed.good.push(Arc::new(notifier)),
            Err((wrong, more)) => {
                // Without a name nothing can wait for it.
                parsed.wrong.extend((!wrong.name.is_empty()).then_some(wrong));
                parsed.errors.extend(more);
            }
        }
    }
    parsed
}

fn parse_one(notification: &Notification, path: &str, is_default: bool) -> Result<Notifier, (Wrong, Vec<SpecError>)> {
    let mut errors = Vec::new();
    if notification.name.is_empty() {
        errors.push(SpecError::new(format!("{path}.name"), "is empty: name it after who reads it"));
    }
    let on = triggers(notification.triggers.as_deref(), path, &mut errors);
    let target = target(notification, path, &mut errors);
    if let Some(text) = &notification.template
        && let Err(why) = template::check(text, &on)
    {
        errors.push(SpecError::new(format!("{path}.template"), why));
    }
    let name = notification.name.clone();
    match target {
        Some(target) if errors.is_empty() => Ok(Notifier { name, on, target, template: notification.template.clone(), is_default }),
        target => Err((Wrong { name, on, kind: target.map(|t| t.kind()) }, errors)),
    }
}

fn triggers(on: Option<&[String]>, path: &str, errors: &mut Vec<SpecError>) -> BTreeSet<Trigger> {
    let Some(on) = on else { return Trigger::DEFAULT.into() };
    if on.is_empty() {
        errors.push(SpecError::new(format!("{path}.triggers"), "is empty: nothing would be told; leave it out for the usual triggers"));
    }
    let mut found = BTreeSet::new();
    for (k, name) in on.iter().enumerate() {
        match Trigger::ALL.iter().find(|t| t.name() == name) {
            Some(trigger) => drop(found.insert(*trigger)),
            None => {
                let known = Trigger::ALL.map(Trigger::name).join(", ");
                errors.push(SpecError::new(format!("{path}.triggers[{k}]"), format!("{name:?} is no trigger; they are {known}")));
            }
        }
    }
    found
}

fn target(notification: &Notification, path: &str, errors: &mut Vec<SpecError>) -> Option<Target> {
    match (&notification.slack, &notification.webhook) {
        (Some(slack), None) => match (&slack.webhook, &slack.bot) {
            (Some(secret), None) => Some(Target::SlackWebhook(secret.clone())),
            (None, Some(bot)) => {
                if bot.channel.trim().is_empty() {
                    errors.push(SpecError::new(format!("{path}.slack.bot.channel"), "is empty: name the channel"));
                }
                Some(Target::SlackBot(bot.clone()))
            }
            _ => {
                errors.push(SpecError::new(format!("{path}.slack"), "set exactly one of webhook, bot"));
                None
            }
        },
        (None, Some(webhook)) => {
            check_webhook(webhook, &format!("{path}.webhook"), errors);
            Some(Target::Webhook(webhook.clone()))
        }
        _ => {
            errors.push(SpecError::new(path, "set exactly one of slack, webhook"));
            None
        }
    }
}

fn check_webhook(webhook: &Webhook, path: &str, errors: &mut Vec<SpecError>) {
    if let Err(why) = request::check_url(&webhook.url, "headers with a secretKeyRef") {
        errors.push(SpecError::new(format!("{path}.url"), why));
    }
    for (k, header) in webhook.headers.iter().enumerate() {
        let problems = request::check_header(header).into_iter();
        errors.extend(problems.map(|(field, why)| SpecError::new(format!("{path}.headers[{k}]{field}"), why)));
    }
}
