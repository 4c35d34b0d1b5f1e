//! The live table: a row whenever the release has moved.

use std::time::Instant;

use voicerollout::api::status::{GateSummary, VoiceRolloutStatus};

use crate::stack::Traffic;

/// The table of one release.
pub struct Table {
    start: Instant,
    revision: String,
    /// What the last row was about: phase, step, weight, gates.
    last: Option<(String, String, i32, String)>,
    canary: u64,
    total: u64,
}

impl Table {
    /// Prints the head.
    pub fn new(start: Instant, revision: &str) -> Self {
        println!("  {:>6}  {:<11}  {:>5}  {:>6}  {:<22}  gates", "time", "phase", "step", "weight", "share of new calls");
        Self { start, revision: revision.to_owned(), last: None, canary: 0, total: 0 }
    }

    /// Prints a row if something has changed. The share counts the calls since the weight last changed.
    pub fn row(&mut self, status: &VoiceRolloutStatus, traffic: &Traffic) {
        let answers = traffic.take();
        self.canary += answers.of(&self.revision);
        self.total += answers.total();
        let gates: Vec<String> = status.gates.iter().map(gate).collect();
        let now = (format!("{:?}", status.phase), status.step_display.clone(), status.weights.applied, gates.join("  "));
        if self.last.as_ref() == Some(&now) {
            return;
        }
        #[allow(clippy::cast_precision_loss)] // thousands of calls
        let mut share = match self.total {
            0 => "-".to_owned(),
            total => format!("{:5.1} % of {total}", 100.0 * self.canary as f64 / total as f64),
        };
        if self.last.as_ref().is_some_and(|last| last.2 != now.2) {
            share += " till now";
            (self.canary, self.total) = (0, 0);
        }
        let seconds = self.start.elapsed().as_secs_f64();
        println!("  {seconds:5.1}s  {:<11}  {:>5}  {:>4} %  {share:<22}  {}", now.0, now.1, now.2, now.3);
        for failed in &answers.failed {
            println!("          calls that failed: {failed:?}");
        }
        self.last = Some(now);
    }
}

/// A gate in a few words: `p95-first-token [392.1] Pass`.
fn gate(gate: &GateSummary) -> String {
    let value = gate.value.as_deref().map(shortened).unwrap_or_default();
    let verdict = gate.verdict.map_or("...".to_owned(), |verdict| format!("{verdict:?}"));
    format!("{} {value}{verdict}", gate.name)
}

/// A value with one decimal where it is a number.
fn shortened(value: &str) -> String {
    let bare = value.trim_matches(['[', ']']);
    bare.parse::<f64>().map_or_else(|_| format!("{bare} "), |number| format!("{} ", (number * 100.0).round() / 100.0))
}
