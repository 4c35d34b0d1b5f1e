//! What becomes of messages: taken over, sent, tried again, given up. Each change is written before the next request.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::news::{News, caught_up, news};
use super::{Kind, Notifiers};
use crate::api::VoiceRolloutStatus;
use crate::api::notification::Trigger;
use crate::api::outbox::{Cursor, Outcome, Queued, Settled, VoiceRolloutOutboxSpec};

/// Most messages that wait for one rollout.
pub const MAX_QUEUED: usize = 100;
/// Settled messages that are kept for people.
pub const MAX_HISTORY: usize = 10;
/// Longest time that a message is tried.
pub const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// Wait after the first failure.
pub const SHORTEST: Duration = Duration::from_secs(5);
/// Longest wait.
pub const LONGEST: Duration = Duration::from_secs(600);
/// Failures in a row after which people are told.
pub const TOLD_AFTER: i32 = 3;
/// Longest error text that is kept, in characters.
const MAX_ERROR: usize = 300;
/// Why a message is dropped that nobody is to get.
const GONE: &str = "its notification is gone";

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The receiver took it.
    Taken,
    /// It was not taken, and may be next time.
    Refused {
        /// Why.
        why: String,
        /// The receiver asked to wait this long.
        wait: Option<Duration>,
    },
    /// It was not taken, and will not be until somebody changes something.
    Stuck {
        /// Why, and what to do.
        why: String,
    },
    /// It was sent, and there is no answer.
    Unknown {
        /// Why.
        why: String,
    },
}

/// A message that left the queue, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The message.
    pub message: Queued,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, in words; empty for a message that was taken.
    pub why: String,
}

/// A rollout that is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Rollout<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// Its `resourceVersion`.
    pub version: &'a str,
    /// Its status, as it is recorded; `None` before the first one.
    pub status: Option<&'a VoiceRolloutStatus>,
}

impl Rollout<'_> {
    /// It is older than what the cursor has seen: a cache lags, and has no news.
    pub fn is_behind(&self, cursor: &Cursor) -> bool {
        let number = |version: &str| version.parse::<u64>().ok();
        number(self.version).zip(number(&cursor.resource_version)).is_some_and(|(own, seen)| own < seen)
    }
}

/// The outbox of a rollout that has none. What happened before somebody asked to be told is no news, unless the rollout
/// itself is new.
pub fn first(rollout: Rollout<'_>) -> VoiceRolloutOutboxSpec {
    let mut outbox = VoiceRolloutOutboxSpec::default();
    if let Some(status) = rollout.status.filter(|s| s.stable_revision.is_some()) {
        outbox.cursor = Cursor { resource_version: rollout.version.into(), ..caught_up(status, &outbox.cursor) };
    }
    outbox
}

/// Nothing is to be done: the status has no news, and nothing waits.
pub fn caught_up_with(outbox: &VoiceRolloutOutboxSpec, rollout: Rollout<'_>) -> bool {
    let seen = |status| rollout.is_behind(&outbox.cursor) || outbox.cursor == caught_up(status, &outbox.cursor);
    outbox.queue.is_empty() && rollout.status.is_none_or(seen)
}

/// Queues what is new in the status, and drops what is too much, too old, or for nobody.
pub fn take_over(outbox: &mut VoiceRolloutOutboxSpec, rollout: Rollout<'_>, notifiers: &Notifiers, now: Timestamp) -> Vec<Gone> {
    for News { id, facts } in unseen(outbox, rollout, now) {
        for name in notifiers.on(facts.trigger) {
            let fresh = Queued {
                id: id.clone(),
                notification: name.into(),
                facts: facts.clone(),
                attempts: 0,
                not_before: None,
                sending: None,
                last_error: String::new(),
                stuck: false,
            };
            enqueue(outbox, fresh);
        }
    }
    let mut gone = Vec::new();
    // An old spec may lack what a newer one has.
    let is_known = !rollout.is_behind(&outbox.cursor);
    drop_where(outbox, now, GONE, &mut gone, |m| is_known && m.sending.is_none() && !notifiers.names(&m.notification));
    drop_where(outbox, now, "it is older than 24 hours", &mut gone, |m| m.sending.is_none() && age(m, now) > MAX_AGE);
    // What comes again and again goes first. Those that are being sent stay, whatever their number.
    for any in [false, true] {
        let mut surplus = outbox.queue.len().saturating_sub(MAX_QUEUED);
        drop_where(outbox, now, "100 others wait", &mut gone, |m| {
            let drop = surplus > 0 && m.sending.is_none() && (any || m.facts.trigger == Trigger::Drift);
            surplus -= usize::from(drop);
            drop
        });
    }
    gone
}

/// Takes what is new in the status over into the cursor.
fn unseen(outbox: &mut VoiceRolloutOutboxSpec, rollout: Rollout<'_>, now: Timestamp) -> Vec<News> {
    let Some(status) = rollout.status.filter(|_| !rollout.is_behind(&outbox.cursor)) else { return Vec::new() };
    let (new, cursor) = news(&outbox.cursor, (rollout.namespace, rollout.name, rollout.uid), status, now);
    // A version that brings no change is not worth a write.
    if cursor != outbox.cursor {
        outbox.cursor = Cursor { resource_version: rollout.version.into(), ..cursor };
    }
    new
}

/// Puts a message last. Of drift of the same revision and step only the newest waits; how long is as before.
fn enqueue(outbox: &mut VoiceRolloutOutboxSpec, mut message: Queued) {
    let facts = &message.facts;
    let older = outbox.queue.iter().position(|m| {
        facts.trigger == Trigger::Drift
            && m.facts.trigger == Trigger::Drift
            && m.sending.is_none()
            && (&m.notification, &m.facts.revision, &m.facts.step) == (&message.notification, &facts.revision, &facts.step)
    });
    if let Some(old) = older.map(|i| outbox.queue.remove(i)) {
        message = Queued { attempts: old.attempts, not_before: old.not_before, last_error: old.last_error, stuck: old.stuck, ..message };
    }
    outbox.queue.push(message);
}

/// Nobody is to be told anything any more: everything that waits is given up.
pub fn drop_all(outbox: &mut VoiceRolloutOutboxSpec, now: Timestamp) -> Vec<Gone> {
    let mut gone = Vec::new();
    drop_where(outbox, now, GONE, &mut gone, |_| true);
    gone
}

fn age(message: &Queued, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(message.facts.at.0)).unwrap_or_default()
}

fn drop_where(outbox: &mut VoiceRolloutOutboxSpec, now: Timestamp, why: &str, gone: &mut Vec<Gone>, mut drop: impl FnMut(&Queued) -> bool) {
    let (dropped, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut outbox.queue).into_iter().partition(|m| drop(m));
    outbox.queue = kept;
    for message in dropped {
        let why = if message.last_error.is_empty() { why.to_owned() } else { format!("{why}; {}", message.last_error) };
        gone.push(settled(outbox, message, Outcome::Dropped, why, now));
    }
}

fn settled(outbox: &mut VoiceRolloutOutboxSpec, message: Queued, outcome: Outcome, why: String, now: Timestamp) -> Gone {
    outbox.history.push(Settled {
        id: message.id.clone(),
        notification: message.notification.clone(),
        trigger: message.facts.trigger,
        at: MicroTime(now),
        outcome,
    });
    let surplus = outbox.history.len().saturating_sub(MAX_HISTORY);
    outbox.history.drain(..surplus);
    Gone { message, outcome, why }
}

/// Messages that were being sent when the process that sent them ended. One whose receiver tells duplicates is sent again.
/// `ours` are those that this process is sending.
pub fn recover(outbox: &mut VoiceRolloutOutboxSpec, notifiers: &Notifiers, now: Timestamp, ours: impl Fn(&Queued) -> bool) -> Vec<Gone> {
    // While a mistake hides what kind it is, that is left open.
    let is_open = |m: &Queued| notifiers.kind(&m.notification).is_none() && notifiers.names(&m.notification);
    let may_repeat = |m: &Queued| is_open(m) || notifiers.kind(&m.notification).is_some_and(Kind::repeats);
    let mut gone = Vec::new();
    let (found, kept): (Vec<_>, Vec<_>) =
        std::mem::take(&mut outbox.queue).into_iter().partition(|m| m.sending.is_some() && !ours(m) && !may_repeat(m));
    outbox.queue = kept;
    for message in outbox.queue.iter_mut().filter(|m| m.sending.is_some() && !ours(m) && !is_open(m)) {
        message.sending = None;
    }
    for message in found {
        gone.push(settled(outbox, message, Outcome::Unknown, "the operator ended while it was being sent".into(), now));
    }
    gone
}

/// The oldest message of each notification, if it may be sent now: its index in the queue. A message that waits holds up
/// those behind it to the same receiver, and no others. Nothing is sent to a notification that is wrong.
pub fn due(outbox: &VoiceRolloutOutboxSpec, notifiers: &Notifiers, now: Timestamp) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let heads = outbox.queue.iter().enumerate().filter(|(_, m)| seen.insert(m.notification.clone()));
    let ready = heads.filter(|(_, m)| m.sending.is_none() && notifiers.get(&m.notification).is_some());
    ready.filter(|(_, m)| m.not_before.as_ref().is_none_or(|t| t.0 <= now)).map(|(i, _)| i).collect()
}

/// When the next message may be sent (at once: [`Timestamp::MIN`]), or one whose notification is wrong gets too old. `None`
/// when there is nothing to wait for but the answers of messages that are being sent.
pub fn wake_at(outbox: &VoiceRolloutOutboxSpec, notifiers: &Notifiers) -> Option<Timestamp> {
    let mut seen = BTreeSet::new();
    let heads = outbox.queue.iter().filter(|m| seen.insert(m.notification.clone()) && m.sending.is_none());
    let max_age = SignedDuration::try_from(MAX_AGE).unwrap_or(SignedDuration::MAX);
    let wake = |m: &Queued| match (notifiers.get(&m.notification), &m.not_before) {
        (None, _) => m.facts.at.0.checked_add(max_age).unwrap_or(Timestamp::MAX),
        (Some(_), not_before) => not_before.as_ref().map_or(Timestamp::MIN, |t| t.0),
    };
    heads.map(wake).min()
}

/// Notes what came of sending the message `id` of a notification. `jitter` is from 0 to 1.
pub fn answered(
    outbox: &mut VoiceRolloutOutboxSpec,
    (id, notification): (&str, &str),
    kind: Kind,
    answer: Answer,
    now: Timestamp,
    jitter: f64,
) -> Option<Gone> {
    let index = outbox.queue.iter().position(|m| m.id == id && m.notification == notification)?;
    let (why, wait, stuck) = match answer {
        Answer::Taken => {
            let message = outbox.queue.remove(index);
            return Some(settled(outbox, message, Outcome::Sent, String::new(), now));
        }
        Answer::Unknown { why } if !kind.repeats() => {
            let message = outbox.queue.remove(index);
            return Some(settled(outbox, message, Outcome::Unknown, why, now));
        }
        Answer::Unknown { why } => (why, None, false),
        Answer::Refused { why, wait } => (why, wait, false),
        Answer::Stuck { why } => (why, None, true),
    };
    let message = &mut outbox.queue[index];
    let own = if stuck { LONGEST } else { backoff(message.attempts, jitter) };
    let wait = own.max(wait.unwrap_or_default());
    message.attempts = message.attempts.saturating_add(1);
    message.sending = None;
    message.stuck = stuck;
    message.last_error = why.chars().take(MAX_ERROR).collect();
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    message.not_before = Some(MicroTime(now.checked_add(wait).unwrap_or(Timestamp::MAX)));
    None
}

/// The wait after `failures` earlier failures in a row: doubles from [`SHORTEST`] to [`LONGEST`], less up to a fifth.
pub fn backoff(failures: i32, jitter: f64) -> Duration {
    let doublings = u32::try_from(failures).unwrap_or(0).min(16);
    let full = SHORTEST.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST);
    full.mul_f64(1.0 - 0.2 * jitter.clamp(0.0, 1.0)).max(SHORTEST)
}

/// Receivers that do not take messages, in words that stay the same from attempt to attempt.
pub fn problems(outbox: &VoiceRolloutOutboxSpec, notifiers: &Notifiers) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let heads = outbox.queue.iter().filter(|m| seen.insert(&m.notification));
    let told = heads.filter(|m| notifiers.get(&m.notification).is_some() && (m.stuck || m.attempts >= TOLD_AFTER));
    told.map(|m| format!("notification {}: {}; it is tried again", m.notification, m.last_error)).collect()
}

/// A receiver was changed: what waits for it is tried at once.
pub fn retry_now(outbox: &mut VoiceRolloutOutboxSpec) {
    for message in &mut outbox.queue {
        message.not_before = None;
    }
}
