//! How a world behaves.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::scenario::tag_of;

/// How a world behaves.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// Seed of everything random.
    pub seed: u64,
    /// Time that controllers take to react to a change.
    pub reaction: Duration,
    /// Time that a change of routes or endpoints takes to reach the proxies.
    pub propagation: Duration,
    /// Time from a pod's SIGTERM to its end; its grace period at most. A worker that pulls its jobs goes on until its calls
    /// have ended.
    pub termination: Duration,
    /// Pods whose image is not in `images`.
    pub default_image: ImageBehaviour,
    /// Pods by image (`registry/agent:v2`) or tag (`v2`).
    pub images: BTreeMap<String, ImageBehaviour>,
    /// Who calls; `None`: nobody.
    pub callers: Option<Callers>,
    /// How many nodes there are. Pods are given to them in turn.
    pub nodes: u32,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            reaction: Duration::from_millis(20),
            propagation: Duration::from_secs(2),
            termination: Duration::from_secs(2),
            default_image: ImageBehaviour::default(),
            images: BTreeMap::new(),
            callers: None,
            nodes: 1,
        }
    }
}

impl WorldConfig {
    /// How pods of an image behave.
    pub fn image(&self, image: &str) -> ImageBehaviour {
        self.images.get(image).or_else(|| self.images.get(tag_of(image))).unwrap_or(&self.default_image).clone()
    }
}

/// How pods of an image behave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageBehaviour {
    /// Time from a pod's creation until its containers run.
    pub start_delay: Duration,
    /// What happens then.
    pub start: Start,
}

impl Default for ImageBehaviour {
    fn default() -> Self {
        Self { start_delay: Duration::from_secs(3), start: Start::Ready }
    }
}

/// What becomes of a pod that starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Start {
    /// It becomes Ready.
    #[default]
    Ready,
    /// It runs and never becomes Ready.
    NeverReady,
    /// It ends again and again.
    CrashLoop,
}

/// Callers of every http route of every VirtualService, and of every VoiceRollout whose workers pull their jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callers {
    /// Mean time between two calls to one route or VoiceRollout.
    pub every: Duration,
    /// Shortest call.
    pub shortest: Duration,
    /// Longest call.
    pub longest: Duration,
    /// Who calls again and again; `None`: nobody is told from anybody else, and each http route has callers of its own.
    pub known: Option<KnownCallers>,
}

/// Callers that come back, and carry their bucket in a header of each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCallers {
    /// How many there are. Caller number `n` has bucket `n` modulo `buckets`.
    pub count: u64,
    /// How many buckets there are: 100 or 1000.
    pub buckets: u64,
    /// The header.
    pub header: String,
}

impl Default for Callers {
    fn default() -> Self {
        Self { every: Duration::from_secs(1), shortest: Duration::from_secs(20), longest: Duration::from_secs(180), known: None }
    }
}
