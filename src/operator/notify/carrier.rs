//! One rollout's messages. Each change of the outbox is written before the request that it is about, and what came of a
//! request with the next change.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::JoinSet;

use super::Shared;
use crate::api::common::FIELD_MANAGER;
use crate::api::outbox::{Outcome, Queued, VoiceRolloutOutboxSpec};
use crate::api::{VoiceRollout, VoiceRolloutOutbox};
use crate::core::notify::outbox::{self, Answer, Gone, Rollout};
use crate::core::notify::{Kind, Notifiers};
use crate::notify::Letter;
use crate::operator::cache::Id;
use crate::operator::write::{WRITE_TIMEOUT, WriteError, write};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// Wait after an outbox that cannot be read or written.
const AGAIN: Duration = Duration::from_secs(1);
/// Steps in a row that fail before people are told.
const TOLD_AFTER: u32 = 3;
/// Wait for one of the requests that are under way to end.
const NO_ROOM: Duration = Duration::from_millis(200);

/// An outbox as this process last read or wrote it.
pub(super) struct Loaded {
    /// UID of its rollout.
    pub(super) uid: Option<String>,
    object: VoiceRolloutOutbox,
    /// The notifications that it was last looked at with.
    notifiers: Arc<Notifiers>,
}

impl Loaded {
    pub(super) fn outbox(&self) -> &VoiceRolloutOutboxSpec {
        &self.object.spec
    }
}

/// A message that was sent: id, notification, kind, answer.
type Sent = (String, String, Kind, Answer);

/// See the module.
pub(super) struct Carrier {
    shared: Arc<Shared>,
    id: Id,
    touched: Arc<Notify>,
    loaded: Option<Loaded>,
    requests: JoinSet<Sent>,
    /// Messages of requests that are under way, or whose answer is not written yet.
    open: HashSet<(String, String)>,
    /// Answers that are not written yet.
    answers: Vec<(Sent, Timestamp, f64)>,
    /// Messages that a write may have marked as being sent which seemed to fail: they were not sent.
    unsent: HashSet<(String, String)>,
    /// Steps in a row that failed.
    failures: u32,
}

/// What to wait for after a step.
enum Next {
    /// Nothing: there is nothing to do.
    Rest,
    /// A change, the end of a request, or this time.
    Wait(Option<Duration>),
}

#[derive(Debug, thiserror::Error)]
enum OutboxError {
    #[error("{0}")]
    Write(#[from] WriteError),
    #[error("read VoiceRolloutOutbox {name}: {why}")]
    Read { name: String, why: String },
    #[error("VoiceRolloutOutbox {name} belongs to an earlier VoiceRollout, and is about to be deleted")]
    Foreign { name: String },
}

impl Carrier {
    pub(super) fn new(shared: Arc<Shared>, id: Id, touched: Arc<Notify>, loaded: Option<Loaded>) -> Self {
        let (requests, unsent) = (JoinSet::new(), HashSet::new());
        Self { shared, id, touched, loaded, requests, open: HashSet::new(), answers: Vec::new(), unsent, failures: 0 }
    }

    /// Works until there is nothing to do; gives the outbox back.
    pub(super) async fn run(mut self) -> (Id, Option<Loaded>) {
        let mut stopping = self.shared.stopping.clone();
        loop {
            let wait = match self.step().await {
                Ok(Next::Rest) if self.requests.is_empty() && self.answers.is_empty() => return (self.id, self.loaded),
                Ok(next) => {
                    self.failures = 0;
                    if let Next::Wait(wait) = next { wait } else { None }
                }
                Err(error) => Some(self.failed(&error)),
            };
            if *stopping.borrow() && self.requests.is_empty() {
                return (self.id, self.loaded);
            }
            let late = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(ended) = self.requests.join_next() => self.ended(ended),
                () = self.touched.notified() => {}
                () = late => {}
                _ = stopping.changed() => {}
            }
        }
    }

    /// The wait before the next step.
    fn failed(&mut self, error: &OutboxError) -> Duration {
        let (name, namespace) = (&*self.id.name, &*self.id.namespace);
        if matches!(error, OutboxError::Write(e) if e.is_conflict() || e.is_not_found() || matches!(e, WriteError::Timeout { .. })) {
            self.loaded = None;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < TOLD_AFTER {
            tracing::debug!(rollout = name, namespace, %error, "outbox not brought forward");
        } else {
            tracing::warn!(rollout = name, namespace, %error, "nobody is told of this rollout; it is tried again");
            if self.shared.teller.notices.note(&self.id, vec![format!("nobody is told: {error}")]) {
                self.shared.wake(&self.id);
            }
        }
        AGAIN * 2u32.pow(self.failures.min(7) - 1)
    }

    fn ended(&mut self, ended: Result<Sent, tokio::task::JoinError>) {
        match ended.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(sent) => self.answers.push((sent, self.shared.teller.clock.now(), fastrand::f64())),
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(_)) => {}
        }
    }

    /// Brings the outbox as far as it goes without waiting.
    async fn step(&mut self) -> Result<Next, OutboxError> {
        let shared = self.shared.clone();
        let teller = &shared.teller;
        let found = teller.stores.rollouts.get(&self.id.namespace, &self.id.name);
        let Some(guarded) = found.as_deref() else {
            self.abandon();
            return Ok(Next::Rest);
        };
        // One that does not parse is looked at again when it was edited.
        let Ok(rollout) = &guarded.0 else { return Ok(if self.open.is_empty() { Next::Rest } else { Next::Wait(None) }) };
        let notifiers = teller.notices.of(rollout);
        if notifiers.all.is_empty() && self.open.is_empty() {
            return self.close().await;
        }
        if self.loaded.as_ref().is_none_or(|l| l.uid != rollout.uid()) {
            self.loaded = Some(self.load(rollout, &notifiers).await?);
        }
        self.bring_forward(rollout, &notifiers).await
    }

    async fn bring_forward(&mut self, rollout: &VoiceRollout, notifiers: &Arc<Notifiers>) -> Result<Next, OutboxError> {
        let shared = self.shared.clone();
        let Some(loaded) = &self.loaded else { return Ok(Next::Rest) };
        let (now, is_new) = (shared.teller.clock.now(), loaded.object.metadata.resource_version.is_none());
        let mut next = loaded.object.spec.clone();
        let mut gone = Vec::new();
        let mut failed = Vec::new();
        let mark = |m: &Queued| (m.id.clone(), m.notification.clone());
        next.queue.iter_mut().filter(|m| self.unsent.contains(&mark(m))).for_each(|m| m.sending = None);
        for ((id, name, kind, answer), at, jitter) in &self.answers {
            if !next.queue.iter().any(|m| m.id == *id && m.notification == *name) {
                continue;
            }
            match outbox::answered(&mut next, (id, name), *kind, answer.clone(), *at, *jitter) {
                Some(settled) => gone.push(settled),
                None => failed.push(*kind),
            }
        }
        // Found on its way, and not by this carrier.
        gone.extend(outbox::recover(&mut next, notifiers, now, |m| self.open.contains(&mark(m))));
        if loaded.notifiers != *notifiers {
            outbox::retry_now(&mut next);
        }
        let status = rollout.status.clone().unwrap_or_default();
        let (namespace, name, uid) = (&*self.id.namespace, &*self.id.name, rollout.uid().unwrap_or_default());
        gone.extend(outbox::take_over(&mut next, Rollout { namespace, name, uid: &uid, status: &status }, notifiers, now));
        let (letters, full) = if *shared.stopping.borrow() { (Vec::new(), false) } else { self.letters(&mut next, notifiers, now) };
        if is_new || next != loaded.object.spec {
            self.unsent.extend(letters.iter().map(|(letter, _)| (letter.id.clone(), letter.notifier.name.clone())));
            let object = self.write(VoiceRolloutOutbox { spec: next, ..loaded.object.clone() }, is_new).await?;
            self.unsent.clear();
            self.loaded = Some(Loaded { uid: rollout.uid(), object, notifiers: notifiers.clone() });
        } else if let Some(loaded) = &mut self.loaded {
            loaded.notifiers = notifiers.clone();
        }
        for ((id, name, ..), ..) in self.answers.drain(..) {
            self.open.remove(&(id, name));
        }
        failed.into_iter().for_each(|kind| shared.teller.metrics.notification(kind.label(), "failed"));
        self.send(letters);
        self.tell(rollout, notifiers, &gone).await;
        let Some(loaded) = &self.loaded else { return Ok(Next::Rest) };
        if shared.teller.notices.note(&self.id, outbox::problems(loaded.outbox())) {
            shared.wake(&self.id);
        }
        if loaded.outbox().queue.is_empty() {
            return Ok(Next::Rest);
        }
        let due = outbox::wake_at(loaded.outbox()).map(|at| shared.teller.clock.until(at));
        // A receiver whose turn has come, and for which there was no room.
        Ok(Next::Wait(if full { Some(NO_ROOM) } else { due.map(|d| d + Duration::from_millis(1)) }))
    }

    /// Marks the messages that may be sent now, as far as there is room; says whether there was too little.
    fn letters(
        &self,
        next: &mut VoiceRolloutOutboxSpec,
        notifiers: &Notifiers,
        now: Timestamp,
    ) -> (Vec<(Letter, OwnedSemaphorePermit)>, bool) {
        let mut letters = Vec::new();
        let link = self.shared.teller.notices.defaults().link_to(&self.id.namespace, &self.id.name);
        for index in outbox::due(next, now) {
            let message = &mut next.queue[index];
            let Some(notifier) = notifiers.get(&message.notification) else { continue };
            let Ok(permit) = self.shared.requests.clone().try_acquire_owned() else { return (letters, true) };
            message.sending = Some(MicroTime(now));
            let letter = Letter { id: message.id.clone(), notifier: notifier.clone(), facts: message.facts.clone(), link: link.clone() };
            letters.push((letter, permit));
        }
        (letters, false)
    }

    fn send(&mut self, letters: Vec<(Letter, OwnedSemaphorePermit)>) {
        for (letter, permit) in letters {
            self.open.insert((letter.id.clone(), letter.notifier.name.clone()));
            let messenger = self.shared.teller.messenger.clone();
            self.requests.spawn(async move {
                let answer = messenger.send(&letter).await;
                drop(permit);
                (letter.id, letter.notifier.name.clone(), letter.notifier.kind(), answer)
            });
        }
    }

    /// Reads the rollout's outbox, or makes one that is not written yet.
    async fn load(&self, rollout: &VoiceRollout, notifiers: &Arc<Notifiers>) -> Result<Loaded, OutboxError> {
        let name = format!("{}/{}", self.id.namespace, self.id.name);
        let read = tokio::time::timeout(WRITE_TIMEOUT, self.api().get_opt(&self.id.name)).await;
        let fail = |why: String| OutboxError::Read { name: name.clone(), why };
        let found = read.map_err(|_| fail(format!("no answer within {} s", WRITE_TIMEOUT.as_secs())))?.map_err(|e| fail(e.to_string()))?;
        let uid = rollout.uid();
        let object = match found {
            Some(object) if object.owner_references().iter().any(|o| Some(&o.uid) == uid.as_ref()) => object,
            Some(_) => return Err(OutboxError::Foreign { name }),
            None => {
                let status = rollout.status.clone().unwrap_or_default();
                let subject = Rollout { namespace: &self.id.namespace, name: &self.id.name, uid: "", status: &status };
                let mut object = VoiceRolloutOutbox::new(&self.id.name, outbox::first(subject));
                object.metadata = ObjectMeta {
                    namespace: Some(self.id.namespace.to_string()),
                    owner_references: rollout.controller_owner_ref(&()).map(|o| vec![o]),
                    ..object.metadata
                };
                object
            }
        };
        Ok(Loaded { uid, object, notifiers: notifiers.clone() })
    }

    async fn write(&self, object: VoiceRolloutOutbox, is_new: bool) -> Result<VoiceRolloutOutbox, WriteError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let what = format!("write VoiceRolloutOutbox {}/{}", self.id.namespace, self.id.name);
        let (api, leadership) = (self.api(), &self.shared.teller.leadership);
        let mut written = if is_new {
            write(leadership, what, api.create(&params, &object)).await?
        } else {
            write(leadership, what, api.replace(&self.id.name, &params, &object)).await?
        };
        written.metadata.managed_fields = None;
        Ok(written)
    }

    /// Nobody is to be told anything any more: if somebody is later, what happened until then is no news.
    async fn close(&mut self) -> Result<Next, OutboxError> {
        if self.loaded.as_ref().is_some_and(|l| l.object.metadata.resource_version.is_some()) {
            let what = format!("delete VoiceRolloutOutbox {}/{}", self.id.namespace, self.id.name);
            let deleted = write(&self.shared.teller.leadership, what, self.api().delete(&self.id.name, &DeleteParams::default())).await;
            if let Err(error) = deleted
                && !error.is_not_found()
            {
                return Err(error.into());
            }
        }
        self.loaded = None;
        if self.shared.teller.notices.note(&self.id, Vec::new()) {
            self.shared.wake(&self.id);
        }
        Ok(Next::Rest)
    }

    /// The rollout is gone, and its outbox with it.
    fn abandon(&mut self) {
        self.requests.abort_all();
        (self.requests, self.loaded) = (JoinSet::new(), None);
        self.answers.clear();
        self.open.clear();
        self.shared.teller.notices.forget(&self.id);
    }

    fn api(&self) -> Api<VoiceRolloutOutbox> {
        Api::namespaced(self.shared.teller.client.clone(), &self.id.namespace)
    }

    /// Counts what left the outbox, and tells of messages that nobody may have got: one event for each cause.
    async fn tell(&self, rollout: &VoiceRollout, notifiers: &Notifiers, gone: &[Gone]) {
        let teller = &self.shared.teller;
        let mut lost = BTreeMap::<(String, &'static str), (usize, String)>::new();
        for Gone { message, outcome, why } in gone {
            let (label, reason) = match outcome {
                Outcome::Sent => ("sent", None),
                Outcome::Unknown => ("unknown", Some("NotificationUnknown")),
                Outcome::Dropped => ("dropped", Some("NotificationDropped")),
            };
            teller.metrics.notification(notifiers.get(&message.notification).map_or("none", |n| n.kind().label()), label);
            if let Some(reason) = reason {
                let (count, text) = lost.entry((message.notification.clone(), reason)).or_default();
                *count += 1;
                *text = format!("{} of revision {}: {why}", message.facts.trigger, message.facts.revision);
            }
        }
        for ((notification, reason), (count, newest)) in lost {
            let many = if count > 1 { format!("{count} messages, the newest ") } else { String::new() };
            let what = if reason == "NotificationDropped" { "was not told" } else { "was perhaps told, and is not sent again" };
            let note = format!("notification {notification}: {many}{newest}; it {what}");
            tracing::warn!(rollout = rollout.name_any(), namespace = &*self.id.namespace, reason, "{note}");
            let event =
                Event { type_: EventType::Warning, reason: reason.into(), note: Some(note), action: "Notify".into(), secondary: None };
            let about = rollout.object_ref(&());
            if !matches!(tokio::time::timeout(WRITE_TIMEOUT, teller.recorder.publish(&event, &about)).await, Ok(Ok(()))) {
                tracing::warn!("event not published");
            }
        }
    }
}
