//! What a release's judges have spent in its other runs. A budget is for a revision's attempt; each run knows its own part.

use jiff::Timestamp;

use crate::api::VoiceAnalysisRun;
use crate::api::judge::Spent;
use crate::api::run::{GateStatus, RunGate, VoiceAnalysisRunStatus};
use crate::core::gates;
use crate::core::judge::budget;

/// The status with what the release's other runs have spent, for judges with a budget that are about to be asked.
/// `others` is called only when there is one.
pub fn with_earlier(
    run: &VoiceAnalysisRun,
    status: VoiceAnalysisRunStatus,
    now: Timestamp,
    others: impl FnOnce() -> Vec<VoiceAnalysisRun>,
) -> VoiceAnalysisRunStatus {
    let budgeted = |gate: &RunGate| gate.gate.judge.as_ref().is_some_and(|j| j.budget.is_some());
    if run.spec.stop || !run.spec.gates.iter().any(budgeted) {
        return status;
    }
    let mut status = status;
    if status.gates.len() != run.spec.gates.len() {
        // As the first pass would begin it, without starting anything.
        status = gates::next(&run.spec, &status, now, &mut |_| false).status;
    }
    let due = |s: &GateStatus| s.verdict.is_none() && s.in_flight.is_none() && s.next_at.as_ref().is_some_and(|t| t.0 <= now);
    let wanted: Vec<usize> = (0..status.gates.len()).filter(|i| budgeted(&run.spec.gates[*i]) && due(&status.gates[*i])).collect();
    if wanted.is_empty() {
        return status;
    }
    let others = others();
    let release = others.iter().filter(|o| {
        (&o.spec.rollout_uid, &o.spec.revision, o.spec.attempt) == (&run.spec.rollout_uid, &run.spec.revision, run.spec.attempt)
    });
    let statuses: Vec<&GateStatus> = release.filter_map(|o| o.status.as_ref()).flat_map(|s| &s.gates).collect();
    for i in wanted {
        let gate = &mut status.gates[i];
        let spent: Vec<Spent> = statuses.iter().filter(|g| g.name == gate.name).filter_map(|g| g.spent).collect();
        budget::set_earlier(gate, &spent);
    }
    status
}
