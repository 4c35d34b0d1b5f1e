//! The live table: a row for each change that a person would notice.

use jiff::SignedDuration;

use super::play::elapsed;
use crate::api::VoiceRolloutStatus;
use crate::api::run::Verdict;
use crate::api::status::GateSummary;
use crate::cli::table::{Ink, Paint, clean};

/// Characters of the last column.
const WIDTH: usize = 110;

/// Rows of one release.
pub struct Table {
    paint: Paint,
    last: Option<String>,
}

impl Table {
    /// An empty table.
    pub fn new(paint: Paint) -> Self {
        Self { paint, last: None }
    }

    /// The next row, with its heading if it is the first; `None` when nothing changed that a person would notice.
    pub fn row(&mut self, since: SignedDuration, status: &VoiceRolloutStatus) -> Option<String> {
        let gates: Vec<String> = status.gates.iter().map(gate).collect();
        let waits = if status.waiting_for.is_empty() { status.message.clone() } else { status.waiting_for.clone() };
        let waits: String = clean(&waits).chars().take(WIDTH).collect();
        let phase = format!("{:?}", status.phase);
        let rest = format!("{phase:<13}{:<7}{:>4} %  {:<58} {waits}", status.step_display, status.weights.applied, gates.join("  "));
        if self.last.as_ref() == Some(&rest) {
            return None;
        }
        let heading = match self.last {
            None => format!("  {:>9}  {:<13}{:<7}{:>6}  {:<58} {}\n", "TIME", "PHASE", "STEP", "WEIGHT", "GATES", "WAITING FOR"),
            Some(_) => String::new(),
        };
        let time = elapsed(since.unsigned_abs());
        let row = format!("{heading}  {time:>9}  {}", rest.trim_end());
        self.last = Some(rest);
        Some(self.paint.ink(ink(status), &row))
    }
}

fn gate(summary: &GateSummary) -> String {
    let value = summary.value.as_deref().map(clean).unwrap_or_else(|| "-".into());
    let mark = match summary.verdict {
        Some(Verdict::Pass) => " pass",
        Some(Verdict::Fail) => " FAIL",
        Some(Verdict::Inconclusive) => " undecided",
        Some(Verdict::Error) => " error",
        None => "",
    };
    format!("{} {value}{mark}", summary.name)
}

fn ink(status: &VoiceRolloutStatus) -> Ink {
    use crate::api::status::Phase;
    match status.phase {
        Phase::Healthy => Ink::Green,
        Phase::Degraded | Phase::Reverting | Phase::Invalid => Ink::Red,
        Phase::Paused => Ink::Yellow,
        _ => Ink::Plain,
    }
}
