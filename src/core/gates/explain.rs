//! A judge that says why an aborted canary did worse: asked once, on the side, with no say in anything.

use crate::api::analysis::{Gate, Mode};
use crate::api::run::{GateStatus, Verdict};

/// Value of a gate whose judge gave an explanation.
const EXPLAINED: &str = "explained";

/// The gate as it explains: one vote, one time, without a say. Its name stays, so that its budget is the same.
pub fn only_explains(gate: &Gate) -> Gate {
    let mut gate = Gate { mode: Mode::DryRun, min_duration: None, ..gate.clone() };
    if let Some(judge) = &mut gate.judge {
        (judge.votes, judge.count, judge.failure_limit) = (1, 1, 0);
        (judge.interval, judge.initial_delay) = (None, None);
        judge.rubric.clear();
        judge.requires = None;
    }
    gate
}

/// Whatever a judge says of an abort, it is neither for nor against a release.
pub fn harmless(verdict: &mut Verdict, value: &mut Option<String>) {
    let said = *verdict != Verdict::Error && value.is_some();
    if *verdict != Verdict::Error {
        *verdict = Verdict::Inconclusive;
    }
    *value = said.then(|| EXPLAINED.to_owned());
}

/// What an explaining run came to: the explanation, or why there is none.
///
/// # Errors
/// The judge could not be asked, or gave no valid answer.
pub fn explanation(gates: &[GateStatus]) -> Result<String, String> {
    match gates.first() {
        Some(gate) if gate.value.as_deref() == Some(EXPLAINED) => Ok(gate.message.clone()),
        Some(gate) => Err(gate.message.clone()),
        None => Err("there was no judge to ask".into()),
    }
}
