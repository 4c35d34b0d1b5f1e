//! What is told of a release, to whom, and what becomes of messages. Pure; sending is the room `notify`'s.

mod news;
pub mod outbox;
mod parse;
pub mod template;
#[cfg(test)]
mod tests;

pub use news::{News, news};
pub use parse::{Defaults, Kind, Notifier, Notifiers, Target, Wrong};

/// What the operator knows of a rollout's notifications, for the condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotificationsSeen {
    /// Notifications that are set up well.
    pub count: usize,
    /// What is wrong with others, each with the path of its field.
    pub mistakes: Vec<String>,
    /// Receivers that do not take messages: why, and what to do; `None` while that is not known.
    pub problems: Option<Vec<String>>,
}

/// What becomes of the condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Nobody is told anything: there is none.
    Gone,
    /// It stays as it was.
    Kept,
    /// Status, reason and message.
    Is(bool, &'static str, String),
}

impl NotificationsSeen {
    /// The condition `NotificationsReady`.
    pub fn condition(&self) -> Ready {
        let problems = self.problems.as_deref().unwrap_or_default();
        match (self.mistakes.is_empty(), problems.is_empty()) {
            (true, _) if self.count == 0 => Ready::Gone,
            (true, true) if self.problems.is_none() => Ready::Kept,
            (true, true) => Ready::Is(true, "Ready", "every message has a receiver that takes it".into()),
            (false, _) => Ready::Is(false, "InvalidNotification", [&self.mistakes, problems].concat().join("\n")),
            (true, false) => Ready::Is(false, "NotDelivered", problems.join("\n")),
        }
    }
}
