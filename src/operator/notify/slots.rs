//! How many requests may be under way at the same time: to one receiver, and in all.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::core::notify::Notifier;

/// To one receiver: one that hangs takes no more of the others' room.
const EACH: usize = 8;
/// In all.
const TOTAL: usize = 128;

/// Whose notification, and its name. Those of one namespace with the same name have the same receiver, mostly; a default
/// has no namespace.
type Receiver = (Option<Box<str>>, Box<str>);

/// See the module.
pub(super) struct Slots {
    total: Arc<Semaphore>,
    each: Mutex<HashMap<Receiver, Arc<Semaphore>>>,
}

/// A place for one request.
pub(super) type Slot = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Default for Slots {
    fn default() -> Self {
        Self { total: Arc::new(Semaphore::new(TOTAL)), each: Mutex::default() }
    }
}

impl Slots {
    /// A place for a message of a rollout of `namespace`, if there is one now.
    pub(super) fn take(&self, namespace: &str, notifier: &Notifier) -> Option<Slot> {
        let receiver = ((!notifier.is_default).then(|| namespace.into()), notifier.name.as_str().into());
        let mut each = self.each.lock();
        // Those that nobody uses now are made again when they are needed.
        each.retain(|_, own| own.available_permits() < EACH);
        let own = each.entry(receiver).or_insert_with(|| Arc::new(Semaphore::new(EACH))).clone();
        Some((own.try_acquire_owned().ok()?, self.total.clone().try_acquire_owned().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::notify::{Defaults, Notifiers};

    fn notifier(name: &str, is_default: bool) -> Notifier {
        let hook = serde_json::json!([{"name": name, "webhook": {"url": "https://h.example"}}]);
        let parsed = Notifiers::parse(&serde_json::from_value::<Vec<_>>(hook).unwrap(), &Defaults::default());
        Notifier { is_default, ..parsed.all[0].as_ref().clone() }
    }

    #[test]
    fn a_receiver_that_hangs_takes_its_own_room_only() {
        let slots = Slots::default();
        let all = notifier("all", true);
        // From every namespace: a default has one receiver.
        let mut held: Vec<Slot> = (0..EACH).map(|i| slots.take(&format!("n{i}"), &all).expect("room")).collect();
        assert!(slots.take("m", &all).is_none());
        assert!(slots.take("m", &notifier("all", false)).is_some(), "a rollout's own one of the same name");
        held.pop();
        held.push(slots.take("m", &all).expect("room again"));

        let own = notifier("own", false);
        while held.len() < TOTAL {
            held.push(slots.take(&format!("n{}", held.len() / EACH), &own).expect("room"));
        }
        assert!(slots.take("m", &own).is_none(), "more than {TOTAL} in all");
        held.clear();
        assert!(slots.take("m", &own).is_some());
        assert_eq!(slots.each.lock().len(), 1, "receivers without a message are remembered");
    }
}
