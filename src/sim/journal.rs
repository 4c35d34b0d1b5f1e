//! What was asked of the server, and faults to answer with.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

use super::patch::PatchKind;

/// Newest requests kept.
pub const JOURNAL_LIMIT: usize = 100_000;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Read one object, a log or a scale.
    Get,
    /// Read many.
    List,
    /// Follow changes.
    Watch,
    /// Make one.
    Create,
    /// Replace one.
    Update,
    /// Change one in part.
    Patch,
    /// Delete one.
    Delete,
    /// Delete many.
    DeleteCollection,
    /// Ask what the server serves.
    Discover,
}

impl Verb {
    /// Whether it changes something.
    pub fn is_write(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Patch | Self::Delete | Self::DeleteCollection)
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    /// Position among all requests, from 1.
    pub number: u64,
    /// When it came.
    pub at: Timestamp,
    /// Name given to [`super::SimServer::client_as`].
    pub user: Arc<str>,
    /// `User-Agent`, where one was sent.
    pub user_agent: String,
    /// What it does.
    pub verb: Verb,
    /// API group; empty for core.
    pub group: String,
    /// Plural name of the kind.
    pub resource: String,
    /// Namespace; empty for all, or for cluster-wide kinds.
    pub namespace: String,
    /// Name; empty for many.
    pub name: String,
    /// `status`, `scale`, `log`; empty for the object itself.
    pub subresource: String,
    /// For patches.
    pub patch: Option<PatchKind>,
    /// Query as sent.
    pub query: String,
    /// Body as sent.
    pub body: Bytes,
    /// Status code of the answer; `None` when none was given.
    pub code: Option<u16>,
}

impl RequestInfo {
    /// The body as JSON; `Null` when there is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// `patch virtualservices/agent` with the subresource behind: for messages of tests.
    pub fn summary(&self) -> String {
        let verb = format!("{:?}", self.verb).to_lowercase();
        let mut text = format!("{verb} {}", self.resource);
        for part in [&self.name, &self.subresource].into_iter().filter(|p| !p.is_empty()) {
            text = format!("{text}/{part}");
        }
        text
    }
}

/// What to do with a request in place of answering it as usual.
#[derive(Clone)]
pub enum Fault {
    /// Nothing.
    None,
    /// Refuse it with this code; it is not carried out.
    Status(u16),
    /// Break the connection; it is not carried out.
    DropBefore,
    /// Carry it out, and break the connection in place of the answer.
    DropAfter,
    /// Wait, then carry it out.
    Delay(Duration),
    /// Never answer; it is not carried out.
    Hang,
    /// Never answer, and call the hook; it is not carried out.
    CrashBefore(Hook),
    /// Carry it out, call the hook, and never answer: the caller's process ends between two requests.
    CrashAfter(Hook),
}

/// Called at a crash.
pub type Hook = Arc<dyn Fn() + Send + Sync>;

/// Chooses a fault for each request.
pub type Interceptor = Arc<dyn Fn(&RequestInfo) -> Fault + Send + Sync>;
