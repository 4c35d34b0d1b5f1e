//! Counts messages that are settled, and tells of those that nobody may have got.

use std::collections::BTreeMap;

use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};

use super::Shared;
use crate::api::VoiceRollout;
use crate::api::outbox::Outcome;
use crate::core::notify::outbox::Gone;
use crate::core::notify::{Kind, Notifiers};
use crate::operator::write::WRITE_TIMEOUT;

impl Shared {
    /// Counts what left the outbox, and tells of messages that are lost: one event for each cause.
    pub(super) async fn tell(&self, rollout: &VoiceRollout, notifiers: &Notifiers, gone: &[Gone]) {
        let mut lost = BTreeMap::<(String, &'static str), (usize, String)>::new();
        for Gone { message, outcome, why } in gone {
            let (label, reason) = match outcome {
                Outcome::Sent => ("sent", None),
                Outcome::Unknown => ("unknown", Some("NotificationUnknown")),
                Outcome::Dropped => ("dropped", Some("NotificationDropped")),
            };
            self.teller.metrics.notification(notifiers.kind(&message.notification).map_or("none", Kind::label), label);
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
            tracing::warn!(rollout = rollout.name_any(), namespace = rollout.namespace(), reason, "{note}");
            let event =
                Event { type_: EventType::Warning, reason: reason.into(), note: Some(note), action: "Notify".into(), secondary: None };
            let about = rollout.object_ref(&());
            if !matches!(tokio::time::timeout(WRITE_TIMEOUT, self.teller.recorder.publish(&event, &about)).await, Ok(Ok(()))) {
                tracing::warn!("event not published");
            }
        }
    }
}
