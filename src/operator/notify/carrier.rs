//! One rollout's messages. Each change of the outbox is written before the request that it is about, and what came of a
//! request with the next change.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::Shared;
use super::record::{Loaded, OutboxError, seen};
use super::slots::Slot;
use crate::api::outbox::{Queued, VoiceRolloutOutboxSpec};
use crate::api::{VoiceRollout, VoiceRolloutOutbox};
use crate::core::notify::outbox::{self, Answer, Gone};
use crate::core::notify::{Kind, Notifiers};
use crate::notify::Letter;
use crate::operator::cache::Id;
use crate::operator::write::WriteError;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// Wait of a process that does not lead, until it knows.
const NOT_LEADER: Duration = Duration::from_secs(1);
/// Steps in a row that fail before people are told.
const TOLD_AFTER: u32 = 3;
/// Wait for requests that are under way to end; half of it to one and a half.
const NO_ROOM: Duration = Duration::from_secs(1);

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
    /// What left the outbox with a write that seemed to fail: it is told when it has left.
    gone: Vec<Gone>,
}

/// What to wait for after a step.
enum Next {
    /// Nothing: there is nothing to do.
    Rest,
    /// A change, the end of a request, or this time.
    Wait(Option<Duration>),
}

impl Carrier {
    pub(super) fn new(shared: Arc<Shared>, id: Id, touched: Arc<Notify>, loaded: Option<Loaded>) -> Self {
        let (requests, open, unsent) = (JoinSet::new(), HashSet::new(), HashSet::new());
        Self { shared, id, touched, loaded, requests, open, answers: Vec::new(), unsent, gone: Vec::new() }
    }

    /// Works until there is nothing to do; gives the outbox back.
    pub(super) async fn run(mut self) -> (Id, Option<Loaded>) {
        let mut stopping = self.shared.stopping.clone();
        loop {
            let wait = match self.step().await {
                Ok(Next::Rest) if self.requests.is_empty() && self.answers.is_empty() => {
                    self.shared.backoff.reset(&self.key());
                    return (self.id, self.loaded);
                }
                Ok(next) => {
                    self.shared.backoff.reset(&self.key());
                    if let Next::Wait(wait) = next { wait } else { None }
                }
                Err(error) => Some(self.failed(&error)),
            };
            // An answer that is not written yet would make another process send again.
            if *stopping.borrow() && self.requests.is_empty() && self.answers.is_empty() {
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
        if matches!(error, OutboxError::Write(WriteError::NotLeader { .. })) {
            return NOT_LEADER;
        }
        let key = self.key();
        let wait = self.shared.backoff.failed(&key);
        if self.shared.backoff.failures(&key) < TOLD_AFTER {
            tracing::debug!(rollout = name, namespace, %error, "outbox not brought forward");
        } else {
            tracing::warn!(rollout = name, namespace, %error, "nobody is told of this rollout; it is tried again");
            if self.shared.teller.notices.note(&self.id, vec![format!("nobody is told: {error}")]) {
                self.shared.wake(&self.id);
            }
        }
        wait
    }

    fn key(&self) -> String {
        format!("{}/{}", self.id.namespace, self.id.name)
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
        if self.loaded.as_ref().is_none_or(|l| l.uid != rollout.metadata.uid) {
            self.loaded = Some(shared.load(&self.id, rollout).await?);
        }
        let is_new = self.loaded.as_ref().is_some_and(Loaded::is_new);
        let is_behind = self.loaded.as_ref().is_some_and(|l| seen(rollout).is_behind(&l.outbox().cursor));
        if self.open.is_empty() && (notifiers.nobody() && !is_behind || is_new && !notifiers.any()) {
            return self.close(rollout, &notifiers).await;
        }
        self.bring_forward(rollout, &notifiers).await
    }

    async fn bring_forward(&mut self, rollout: &VoiceRollout, notifiers: &Arc<Notifiers>) -> Result<Next, OutboxError> {
        let shared = self.shared.clone();
        let Some(loaded) = &self.loaded else { return Ok(Next::Rest) };
        let (now, is_stopping) = (shared.teller.clock.now(), *shared.stopping.borrow());
        let mut next = loaded.object.spec.clone();
        let (mut gone, failed) = self.answered(&mut next);
        // Found on its way, and not by this carrier.
        gone.extend(outbox::recover(&mut next, notifiers, now, |m| self.open.contains(&mark(m))));
        if loaded.notifiers.as_ref().is_some_and(|known| known != notifiers) {
            outbox::retry_now(&mut next);
        }
        gone.extend(outbox::take_over(&mut next, seen(rollout), notifiers, now));
        let (letters, full) = if is_stopping { (Vec::new(), false) } else { self.letters(&mut next, notifiers, now) };
        if loaded.is_new() || next != loaded.object.spec {
            let object = VoiceRolloutOutbox { spec: next, ..loaded.object.clone() };
            self.unsent.extend(letters.iter().map(|(letter, _)| (letter.id.clone(), letter.notifier.name.clone())));
            remember(&mut self.gone, gone);
            let object = shared.write(&self.id, &object).await?;
            self.loaded = Some(Loaded { uid: rollout.metadata.uid.clone(), object, notifiers: Some(notifiers.clone()) });
        } else if let Some(loaded) = &mut self.loaded {
            loaded.notifiers = Some(notifiers.clone());
        }
        // Also when it is recorded already, by a write that seemed to fail in the same instant.
        self.unsent.clear();
        for ((id, name, ..), ..) in self.answers.drain(..) {
            self.open.remove(&(id, name));
        }
        failed.into_iter().for_each(|kind| shared.teller.metrics.notification(kind.label(), "failed"));
        self.send(letters);
        let Some(loaded) = &self.loaded else { return Ok(Next::Rest) };
        let gone = left(&mut self.gone, loaded.outbox());
        shared.tell(rollout, notifiers, &gone).await;
        if shared.teller.notices.note(&self.id, outbox::problems(loaded.outbox(), notifiers)) {
            shared.wake(&self.id);
        }
        Ok(match outbox::wake_at(loaded.outbox(), notifiers) {
            _ if loaded.outbox().queue.is_empty() => Next::Rest,
            // Nothing more is sent: what is under way is waited for.
            _ if is_stopping => Next::Wait(None),
            // A receiver whose turn has come, and for which there was no room.
            _ if full => Next::Wait(Some(NO_ROOM.mul_f64(0.5 + fastrand::f64()))),
            due => Next::Wait(due.map(|at| shared.teller.clock.until(at) + Duration::from_millis(1))),
        })
    }

    /// Notes what came of requests; gives what left the outbox, and the kinds of receivers that did not take a message.
    fn answered(&self, next: &mut VoiceRolloutOutboxSpec) -> (Vec<Gone>, Vec<Kind>) {
        next.queue.iter_mut().filter(|m| self.unsent.contains(&mark(m))).for_each(|m| m.sending = None);
        let (mut gone, mut failed) = (Vec::new(), Vec::new());
        for ((id, name, kind, answer), at, jitter) in &self.answers {
            match next.queue.iter().find(|m| m.id == *id && m.notification == *name).map(|m| m.sending.is_some()) {
                Some(true) => match outbox::answered(next, (id, name), *kind, answer.clone(), *at, *jitter) {
                    Some(settled) => gone.push(settled),
                    None => failed.push(*kind),
                },
                // A write that seemed to fail has noted it.
                Some(false) => failed.push(*kind),
                None => {}
            }
        }
        (gone, failed)
    }

    /// Marks the messages that may be sent now, as far as there is room; says whether there was too little.
    fn letters(&self, next: &mut VoiceRolloutOutboxSpec, notifiers: &Notifiers, now: Timestamp) -> (Vec<(Letter, Slot)>, bool) {
        let (mut letters, mut full) = (Vec::new(), false);
        let link = self.shared.teller.notices.defaults().link_to(&self.id.namespace, &self.id.name);
        for index in outbox::due(next, notifiers, now) {
            let message = &mut next.queue[index];
            let Some(notifier) = notifiers.get(&message.notification) else { continue };
            let Some(slot) = self.shared.slots.take(&self.id.namespace, notifier) else {
                full = true;
                continue;
            };
            message.sending = Some(MicroTime(now));
            let letter = Letter { id: message.id.clone(), notifier: notifier.clone(), facts: message.facts.clone(), link: link.clone() };
            letters.push((letter, slot));
        }
        (letters, full)
    }

    fn send(&mut self, letters: Vec<(Letter, Slot)>) {
        for (letter, slot) in letters {
            self.open.insert((letter.id.clone(), letter.notifier.name.clone()));
            let messenger = self.shared.teller.messenger.clone();
            self.requests.spawn(async move {
                let answer = messenger.send(&letter).await;
                drop(slot);
                (letter.id, letter.notifier.name.clone(), letter.notifier.kind(), answer)
            });
        }
    }

    /// Nobody is to be told anything any more: if somebody is later, what happened until then is no news.
    async fn close(&mut self, rollout: &VoiceRollout, notifiers: &Notifiers) -> Result<Next, OutboxError> {
        let shared = self.shared.clone();
        if let Some(loaded) = self.loaded.as_ref().filter(|l| !l.is_new()) {
            let mut last = loaded.object.spec.clone();
            remember(&mut self.gone, outbox::drop_all(&mut last, shared.teller.clock.now()));
            shared.delete(&self.id, loaded).await?;
        }
        self.loaded = None;
        let gone = std::mem::take(&mut self.gone);
        shared.tell(rollout, notifiers, &gone).await;
        if shared.teller.notices.note(&self.id, Vec::new()) {
            shared.wake(&self.id);
        }
        Ok(Next::Rest)
    }

    /// The rollout is gone, and its outbox with it.
    fn abandon(&mut self) {
        self.requests.abort_all();
        (self.requests, self.loaded) = (JoinSet::new(), None);
        self.answers.clear();
        self.gone.clear();
        self.open.clear();
        self.shared.teller.notices.forget(&self.id);
    }
}

/// Which message.
fn mark(message: &Queued) -> (String, String) {
    (message.id.clone(), message.notification.clone())
}

/// Adds what is about to leave an outbox; what was about to before is not there twice.
fn remember(all: &mut Vec<Gone>, gone: Vec<Gone>) {
    all.retain(|old| gone.iter().all(|new| mark(&new.message) != mark(&old.message)));
    all.extend(gone);
}

/// Takes out what has left the outbox, as it is recorded.
fn left(all: &mut Vec<Gone>, outbox: &VoiceRolloutOutboxSpec) -> Vec<Gone> {
    let left = std::mem::take(all).into_iter();
    left.filter(|gone| outbox.queue.iter().all(|m| mark(m) != mark(&gone.message))).collect()
}
