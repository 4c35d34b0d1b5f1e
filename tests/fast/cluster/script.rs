//! A provider that answers as a test says, and remembers what it was asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::json;
use voicerollout::api::judge::Vote;
use voicerollout::api::run::Tokens;
use voicerollout::core::judge::Judgement;
use voicerollout::sources::{Progress, Request, Source, SourceError};

/// Handle of a run that goes on for ever.
pub const NEVER_DONE: &str = "never-done";

/// What comes of one measurement.
pub type Answer = Result<Progress, SourceError>;

/// Answers by gate, revision and attempt of the question.
type Answers = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

/// A provider that answers as a test says.
#[derive(Clone)]
pub struct Script {
    answers: Arc<Mutex<Answers>>,
    starts: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Script {
    /// Answers with `answers`.
    pub fn new(answers: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self { answers: Arc::new(Mutex::new(Arc::new(answers))), starts: Arc::default() }
    }

    /// Everything is fine.
    pub fn good() -> Self {
        Self::new(good)
    }

    /// Answers differently from now on.
    pub fn say(&self, answers: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
        *self.answers.lock() = Arc::new(answers);
    }

    /// How often each measurement was started, by its key.
    pub fn starts(&self) -> BTreeMap<String, u32> {
        self.starts.lock().clone()
    }
}

/// Answers of a version that is fine.
pub fn good(request: &Request) -> Answer {
    match request.gate.name.as_str() {
        "eval-pass-rate" => Ok(Progress::Value(json!(0.95))),
        "p95-first-token" => Ok(Progress::Value(json!(612.5))),
        _ => Ok(judged(Vote::Pass, "both versions behave alike")),
    }
}

/// A judge's answer.
pub fn judged(vote: Vote, reason: &str) -> Progress {
    Progress::Votes(Box::new(Judgement::of_one(vote, reason, Tokens { input: 1200, output: 40 })))
}

impl Source for Script {
    fn start<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Answer> {
        *self.starts.lock().entry(request.key.clone()).or_insert(0) += 1;
        let answers = self.answers.lock().clone();
        Box::pin(async move { answers(request) })
    }

    fn poll<'a>(&'a self, request: &'a Request, handle: &'a str) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            match handle {
                NEVER_DONE => Ok(Progress::Running { handle: handle.into(), poll_after: Duration::from_secs(10) }),
                _ => Err(SourceError::new(format!("gate {} has nothing to poll", request.gate.name))),
            }
        })
    }

    fn cancel<'a>(&'a self, _: &'a Request, _: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}
