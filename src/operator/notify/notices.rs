//! What the rollout controller and the sender of messages know of each other.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kube::ResourceExt;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::api::VoiceRollout;
use crate::core::notify::{Defaults, NotificationsSeen, Notifiers};
use crate::operator::cache::Id;

/// UID and generation: the notifications of one stay as they are.
type Edition = (Option<String>, Option<i64>);

/// Notifications of rollouts, receivers that do not take messages, and rollouts that have changed.
#[derive(Default)]
pub struct Notices {
    defaults: Defaults,
    parsed: Mutex<HashMap<Id, (Edition, Arc<Notifiers>)>>,
    problems: Mutex<HashMap<Id, Vec<String>>>,
    changed: Mutex<BTreeSet<Id>>,
    bell: Notify,
}

impl Notices {
    /// With these defaults.
    pub fn new(defaults: Defaults) -> Self {
        Self { defaults, ..Self::default() }
    }

    /// The operator's defaults.
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// The notifications of a rollout; parsed once for each edit of its spec.
    pub fn of(&self, rollout: &VoiceRollout) -> Arc<Notifiers> {
        let edition = (rollout.uid(), rollout.metadata.generation);
        let mut parsed = self.parsed.lock();
        let id = id_of(rollout);
        if let Some((known, notifiers)) = parsed.get(&id)
            && *known == edition
        {
            return notifiers.clone();
        }
        let notifiers = Arc::new(Notifiers::parse(&rollout.spec.notifications, &self.defaults));
        parsed.insert(id, (edition, notifiers.clone()));
        notifiers
    }

    /// For the rollout's condition.
    pub fn seen(&self, rollout: &VoiceRollout) -> NotificationsSeen {
        let notifiers = self.of(rollout);
        let problems = self.problems.lock().get(&id_of(rollout)).cloned();
        NotificationsSeen { count: notifiers.all.len(), mistakes: notifiers.mistakes.clone(), problems }
    }

    /// Remembers which receivers do not take messages; says whether that is news.
    pub(super) fn note(&self, id: &Id, problems: Vec<String>) -> bool {
        self.problems.lock().insert(id.clone(), problems.clone()) != Some(problems)
    }

    /// The rollout is gone.
    pub(super) fn forget(&self, id: &Id) {
        self.parsed.lock().remove(id);
        self.problems.lock().remove(id);
    }

    /// A rollout has changed. However often: it is looked at once.
    pub fn touch(&self, namespace: &str, name: &str) {
        self.changed.lock().insert(Id::new(namespace, name));
        self.bell.notify_one();
    }

    /// Rollouts that have changed since the last time.
    pub(super) fn take(&self) -> BTreeSet<Id> {
        std::mem::take(&mut *self.changed.lock())
    }

    /// Waits until rollouts have changed since the last time; which.
    pub(super) async fn changed(&self) -> BTreeSet<Id> {
        loop {
            let changed = self.take();
            if !changed.is_empty() {
                return changed;
            }
            self.bell.notified().await;
        }
    }
}

/// Which rollout.
pub(super) fn id_of(rollout: &VoiceRollout) -> Id {
    Id::new(rollout.metadata.namespace.as_deref().unwrap_or_default(), rollout.metadata.name.as_deref().unwrap_or_default())
}
