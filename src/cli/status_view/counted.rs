//! Gates that count calls: what their runs say, newer than the rollout's own status.

use jiff::Timestamp;

use super::{relative, span};
use crate::api::VoiceAnalysisRun;
use crate::api::run::{ArmCalls, Comparison, Outlook};
use crate::cli::table::{Cell, Ink, Paint, lines};
use crate::core::gates::calls::{line_at, times};

/// Cells of a bar.
const CELLS: usize = 8;

/// Counts, estimate and evidence of every such gate, at a canary weight in percent; then what looks wrong with them.
pub fn view(runs: &[VoiceAnalysisRun], weight: i32, now: Timestamp, paint: Paint) -> Vec<String> {
    let gates = || runs.iter().filter_map(|r| r.status.as_ref()).flat_map(|s| &s.gates);
    let rows: Vec<[Cell; 8]> = gates().filter_map(|g| Some(row(&g.name, g.comparison.as_ref()?, weight, now))).collect();
    let mut all = lines(paint, &rows);
    for gate in gates() {
        all.extend(gate.warnings.iter().map(|w| paint.ink(Ink::Yellow, &crate::cli::table::clean(&format!("{}: {w}", gate.name)))));
    }
    all
}

fn row(name: &str, c: &Comparison, weight: i32, now: Timestamp) -> [Cell; 8] {
    let name = c.edge.map_or_else(|| name.to_owned(), |e| format!("{name} > {e}"));
    let arm = |arm: &str, a: &ArmCalls| format!("{arm} {} of {}", a.bad, a.calls);
    let line = line_at(c, weight);
    let ink = match line {
        _ if c.log_evidence >= c.log_abort_line => Ink::Red,
        Some(line) if line.passes => Ink::Green,
        _ => Ink::Plain,
    };
    let pass = line
        .map(|l| format!("below {}: {} {} of {}", l.below, bar(l.log_evidence, l.log_line), times(l.log_evidence), times(l.log_line)))
        .unwrap_or_default();
    let needed = match (&c.to_abort, line.and_then(|l| l.to_pass.as_ref())) {
        (Some(abort), pass) if pass.is_none_or(|p| abort.calls < p.calls) => needed(abort, "abort"),
        (_, Some(pass)) => needed(pass, "pass"),
        _ => String::new(),
    };
    let data = c.data_at.as_ref().map(|at| format!("data of {}", relative(at.0, now))).unwrap_or_default();
    [
        name.into(),
        arm("canary", &c.canary).into(),
        c.stable.as_ref().map(|s| arm("stable", s)).unwrap_or_default().into(),
        estimate(c).into(),
        Cell::new(
            ink,
            format!("against {} {} of {}", bar(c.log_evidence, c.log_abort_line), times(c.log_evidence), times(c.log_abort_line)),
        ),
        pass.into(),
        needed.into(),
        Cell::new(Ink::Dim, data),
    ]
}

/// How far evidence is on its way to a line, both as logarithms: each cell takes as many times more as the one before.
fn bar(evidence: f64, line: f64) -> String {
    let part = if line > 0.0 { (evidence / line).clamp(0.0, 1.0) } else { 0.0 };
    // Full only at the line.
    let full = (part * CELLS as f64).floor() as usize;
    "▰".repeat(full) + &"▱".repeat(CELLS - full)
}

/// `odds 2.3 [1.1, 5]`, an interval that holds at every look.
fn estimate(c: &Comparison) -> String {
    let what = if c.stable.is_some() { "odds" } else { "rate" };
    let number = |x: f64| ((x * 1000.0).round() / 1000.0).to_string();
    let high = c.high.map_or_else(|| "infinity".into(), number);
    let estimate = c.estimate.map_or_else(|| "-".into(), number);
    format!("{what} {estimate} [{}, {high}]", number(c.low.unwrap_or(0.0)))
}

fn needed(outlook: &Outlook, end: &str) -> String {
    let time = outlook.seconds.map(|s| format!(", {}", span(jiff::SignedDuration::from_secs(s)))).unwrap_or_default();
    format!("{} more calls to {end}{time}", outlook.calls)
}
