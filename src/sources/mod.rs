//! Analysis providers behind one contract: start, poll, cancel, on a measurement whose key is already persisted.

pub mod calls;
mod counters;
pub mod egress;
mod headers;
mod http;
pub mod json_path;
pub mod judge;
pub mod post;
mod prometheus;
pub mod redact;
mod registry;
pub mod secrets;
mod web;

pub use registry::{Sources, SourcesConfig};

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;

use crate::api::analysis::Gate;
use crate::api::run::{Explains, Measurement, Tokens, Verdict};
pub use crate::core::args::ArgValue;
pub use crate::core::gates::calls::Snapshot;
pub use crate::core::gates::{Eval, Reading};
use crate::core::judge::Judgement;

/// One measurement to take.
#[derive(Clone, Debug)]
pub struct Request {
    /// Idempotency key, persisted before; goes to the provider as `Idempotency-Key`.
    pub key: String,
    /// Namespace of the rollout: Secrets and pods are read here.
    pub namespace: String,
    /// Name of the rollout.
    pub rollout: String,
    /// Hash of the revision that is judged.
    pub revision: String,
    /// Hash of the stable revision beside it.
    pub stable_revision: String,
    /// When the measurement began; the same again after a crash.
    pub started_at: Timestamp,
    /// The gate.
    pub gate: Gate,
    /// Values for `{{args.NAME}}`, the built-in ones included. Never logged or stored.
    pub args: BTreeMap<String, ArgValue>,
    /// The gate's own Secrets lie in the operator's namespace (it came from a cluster template).
    pub from_cluster_template: bool,
    /// Latest values of the run's other gates, for the judge.
    pub others: Vec<OtherGate>,
    /// The gate's own finished measurements, oldest first, for the judge.
    pub earlier: Vec<Measurement>,
    /// The abort that the judge is to explain, in place of giving a verdict.
    pub explains: Option<Explains>,
}

/// Parses what a gate reads from the answers of its web provider, where it has one. Nothing is sent.
///
/// # Errors
/// A JSONPath or an expression that is not valid.
pub fn check_answer(gate: &Gate) -> Result<(), SourceError> {
    web::check(gate)
}

/// What another gate of the run has found, for the judge.
#[derive(Clone, Debug)]
pub struct OtherGate {
    /// Its name.
    pub name: String,
    /// Its verdict so far.
    pub verdict: Option<Verdict>,
    /// Its latest value.
    pub value: Option<String>,
    /// Its message.
    pub message: String,
    /// How many measurements it took, where that is known.
    pub measurements: Option<i32>,
}

/// What came of a start or a poll.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// The provider works on it.
    Running {
        /// What to poll with.
        handle: String,
        /// When to poll.
        poll_after: Duration,
    },
    /// The provider could not answer for now: the same is to be asked again, a start under the same key.
    Unanswered {
        /// Why not.
        message: String,
        /// The provider asked to wait this long.
        retry_after: Option<Duration>,
    },
    /// What an eval harness measured, of which suite.
    Eval(Eval),
    /// A value for the gate's conditions: a number, a string, a boolean or a list of numbers.
    Value(Value),
    /// Counters of both arms, for a gate that counts calls.
    Counted(Snapshot),
    /// The provider answered that there is nothing: an empty vector, NaN. Inconclusive.
    NoData(String),
    /// The judge's votes, the failed ones too.
    Votes(Box<Judgement>),
}

/// Why there is no measurement. Never holds a secret's value or a response body.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What was being done, what went wrong, what to do.
    pub message: String,
    /// The provider asked to wait this long.
    pub retry_after: Option<Duration>,
    /// Tokens used all the same.
    pub tokens: Option<Tokens>,
}

impl SourceError {
    /// Makes one without a wait.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), retry_after: None, tokens: None }
    }
}

/// A provider.
pub trait Source: Send + Sync {
    /// Starts a measurement. Called again with the same key after a crash.
    fn start<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Progress, SourceError>>;

    /// Asks for the result of a measurement that is running.
    fn poll<'a>(&'a self, request: &'a Request, handle: &'a str) -> BoxFuture<'a, Result<Progress, SourceError>>;

    /// Gives a running measurement up; best effort.
    fn cancel<'a>(&'a self, request: &'a Request, handle: &'a str) -> BoxFuture<'a, ()>;
}
