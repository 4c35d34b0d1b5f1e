//! What the preflight found: told when it changes, and with `Enforce` in the way of more traffic for the canary.

use super::Machine;
use crate::api::status::{MAX_FINDINGS, PreflightFinding};
use crate::core::intent::EventNote;

impl Machine<'_> {
    /// Holds where it is a release that would raise the canary's weight; says whether.
    pub(super) fn held_by_preflight(&mut self) -> bool {
        let Some(found) = self.preflight_hold() else { return false };
        self.hold(found);
        true
    }

    /// What an enforced preflight has against more traffic for the canary.
    pub(super) fn preflight_hold(&self) -> Option<String> {
        let first = self.plan.findings.first().filter(|_| self.plan.enforce_preflight)?;
        let more = match self.plan.findings.len() {
            1 => String::new(),
            n => format!(" ({} more: see the condition Preflight)", n - 1),
        };
        Some(format!("preflight: {}{more}", first.noted()))
    }

    /// Takes what was found into the status, and tells of a change.
    pub(super) fn note_preflight(&mut self) {
        if self.seen.deleting {
            return;
        }
        let found: Vec<PreflightFinding> = self.plan.findings.iter().take(MAX_FINDINGS).map(|f| f.noted()).collect();
        if found == self.s.preflight {
            return;
        }
        let (warning, reason, note) = match found.len() {
            0 => (false, "PreflightPassed", "the preflight finds nothing any more that would cut live calls".to_string()),
            n => (true, "PreflightFindings", format!("{n} found: {}", lines(&found))),
        };
        self.s.preflight = found;
        self.events.push(EventNote { warning, reason: reason.into(), note });
    }

    /// Status, reason and message of the condition.
    pub(super) fn preflight_condition(&self) -> (bool, String, String) {
        let found = &self.s.preflight;
        let Some(first) = found.first() else {
            return (true, "Passed".into(), "nothing was found that would cut live calls".into());
        };
        let one = found.iter().all(|f| f.code == first.code);
        let unsaid = self.plan.findings.len().saturating_sub(found.len());
        let more = if unsaid == 0 { String::new() } else { format!("\nand {unsaid} more") };
        (false, if one { first.code.clone() } else { "Findings".into() }, lines(found) + &more)
    }
}

fn lines(found: &[PreflightFinding]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
