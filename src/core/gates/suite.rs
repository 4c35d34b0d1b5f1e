//! What an eval harness measured, and of which suite. Measurements of different suites are not counted together.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::finished_count;
use crate::api::analysis::Gate;
use crate::api::run::{Counts, GateStatus, Suite};

/// A measurement of an eval harness.
#[derive(Clone, Debug, PartialEq)]
pub struct Eval {
    /// What was measured.
    pub reading: Reading,
    /// What the harness says about the suite.
    pub suite: Option<Suite>,
}

/// What an eval harness measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// A value for conditions.
    Value(Value),
    /// Nothing, and why.
    NoData(String),
    /// The same scenarios on stable and canary.
    Pairs(Pairs),
}

/// Scenarios that ran on stable and canary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// All of them.
    pub pairs: i64,
    /// Stable passed, the canary failed.
    pub stable_only: i64,
    /// The canary passed, stable failed.
    pub canary_only: i64,
}

/// Makes the suite of a measurement the gate's. Where it is another one than before, everything that was counted is set
/// aside; says so. A paired gate takes several seeds of one suite together: they are its draws.
pub fn enter(gate: &Gate, state: &mut GateStatus, suite: Option<&Suite>, started_at: &Time) -> Option<String> {
    let suite = suite?;
    let mut counted = suite.clone();
    if gate.paired.is_some() {
        counted.seed = None;
    }
    let before = state.suite.replace(counted.clone()).filter(|before| *before != counted)?;
    let set_aside = finished_count(state);
    state.counts = Counts { set_aside, ..Counts::default() };
    state.started_at = Some(started_at.clone());
    (state.last_pass_at, state.passing, state.paired) = (None, false, None);
    Some(format!("the suite was {} before: counting starts anew", text(&before)))
}

/// The facts in a few words.
pub fn text(suite: &Suite) -> String {
    let named = |label: &str, fact: &Option<String>| fact.as_ref().map(|f| format!("{label}{f}"));
    let facts = [named("", &suite.name), named("version ", &suite.version), named("seed ", &suite.seed), named("data ", &suite.dataset)];
    facts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
