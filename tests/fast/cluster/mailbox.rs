//! A receiver of messages that answers as a test says, and remembers what it got.

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;
use voicerollout::sources::post::{NotPosted, Outgoing, Post, Posted};

use super::kill::Kill;

/// A message as it came in.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Address that it was sent to.
    pub url: String,
    /// Body.
    pub body: Value,
}

impl Letter {
    /// The kind of a CloudEvent, without what all have in common.
    pub fn kind(&self) -> &str {
        let kind = self.body["type"].as_str().expect("a CloudEvent");
        kind.trim_start_matches("dev.voicerollout.rollout.").trim_end_matches(".v1")
    }

    /// The text for Slack.
    pub fn text(&self) -> &str {
        self.body["text"].as_str().expect("a message for Slack")
    }
}

type Answers = Box<dyn Fn(&Letter) -> Result<Posted, NotPosted> + Send + Sync>;

/// A receiver.
pub struct Mailbox {
    answers: Mutex<Answers>,
    received: Mutex<Vec<Letter>>,
    /// With the request of this number, counting from 1, the process that sends it ends before it has the answer.
    deadly: Mutex<Option<(usize, Kill)>>,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self { answers: Mutex::new(Box::new(|_| Ok(status(200)))), received: Mutex::default(), deadly: Mutex::default() }
    }
}

impl Mailbox {
    /// Answers differently from now on.
    pub fn say(&self, answers: impl Fn(&Letter) -> Result<Posted, NotPosted> + Send + Sync + 'static) {
        *self.answers.lock() = Box::new(answers);
    }

    /// Everything that came in, in order.
    pub fn received(&self) -> Vec<Letter> {
        self.received.lock().clone()
    }

    /// Kills the operator when the request of this number is in, and never answers it.
    pub fn crash_at(&self, number: usize, kill: Kill) {
        *self.deadly.lock() = Some((number, kill));
    }
}

/// An answer without a body.
pub fn status(status: u16) -> Posted {
    Posted { status, ..Posted::default() }
}

impl Post for Mailbox {
    fn post<'a>(&'a self, what: &'a Outgoing) -> BoxFuture<'a, Result<Posted, NotPosted>> {
        let body = serde_json::from_str(&what.body).expect("JSON");
        let letter = Letter { url: what.url.clone(), body };
        let number = {
            let mut received = self.received.lock();
            received.push(letter.clone());
            received.len()
        };
        if let Some((_, kill)) = self.deadly.lock().as_ref().filter(|(deadly, _)| *deadly == number) {
            kill.strike();
            return std::future::pending().boxed();
        }
        let answer = self.answers.lock()(&letter);
        async move { answer }.boxed()
    }
}
