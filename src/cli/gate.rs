//! `gate`: gates that count calls, tried out without a cluster.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::args::ReplayArgs;
use super::error::CliError;
use super::table::{Cell, Ink, Paint, lines};
use crate::api::analysis::Gate;
use crate::api::common::{GROUP, VERSION};
use crate::api::run::Verdict;
use crate::core::gates::calls::replay::{Recorded, Replay, Said};
use crate::core::gates::calls::times;

mod simulate;
pub use simulate::simulate;

/// Feeds recorded ticks to a gate and prints what it says after each.
///
/// # Errors
/// Files that cannot be read, a gate that is not one, or a line that is no tick.
pub fn replay(args: &ReplayArgs, paint: Paint, out: &mut impl Write) -> Result<(), CliError> {
    let gate = read_gate(&args.gate)?;
    let mut replay = Replay::new(&gate).map_err(|reason| wrong(&args.gate, &reason))?;
    let mut rows = Vec::new();
    for (number, line) in open(&args.ticks)?.lines().enumerate() {
        let at = |reason: String| CliError::Differs(format!("{}, line {}: {reason}", args.ticks.display(), number + 1));
        let line = line.map_err(|source| CliError::Io { what: format!("read {}", args.ticks.display()), source })?;
        if line.trim().is_empty() {
            continue;
        }
        let tick: Recorded = serde_json::from_str(&line).map_err(|e| at(format!("not a tick: {e}")))?;
        let said = replay.tick(&tick).map_err(at)?;
        if args.json {
            let text = serde_json::to_string(&said).map_err(|e| at(e.to_string()))?;
            writeln!(out, "{text}").map_err(printing)?;
        } else {
            rows.push(row(&said));
        }
    }
    if !args.json {
        let (abort, pass) = replay.lines();
        let head =
            ["t", "weight", "edge", "canary", "stable", "estimate", "evidence", "to pass", "verdict"].map(|h| Cell::new(Ink::Bold, h));
        let table = lines(paint, &std::iter::once(head).chain(rows).collect::<Vec<_>>());
        let text = format!("{}\n\nfails at evidence {}, passes at {}\n", table.join("\n"), times(abort), times(pass));
        out.write_all(text.as_bytes()).map_err(printing)?;
    }
    Ok(())
}

fn row(said: &Said) -> [Cell; 9] {
    let (ink, verdict) = match said.verdict {
        Verdict::Pass => (Ink::Green, "Pass"),
        Verdict::Fail => (Ink::Red, "Fail"),
        Verdict::Inconclusive => (Ink::Dim, "Inconclusive"),
        Verdict::Error => (Ink::Yellow, "Error"),
    };
    let c = &said.known;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let counts = |a: &crate::api::run::ArmCalls| format!("{} of {}", a.bad, a.calls);
    [
        said.t.to_string().into(),
        format!("{} %", said.weight).into(),
        or_dash(c.edge.map(|e| e.to_string())).into(),
        counts(&c.canary).into(),
        or_dash(c.stable.as_ref().map(counts)).into(),
        or_dash(c.estimate.map(|e| e.to_string())).into(),
        times(said.log_e).into(),
        times(said.log_e_pass).into(),
        Cell::new(ink, verdict),
    ]
}

/// One entry of `gates[]` in YAML, checked as the API server would.
pub(super) fn read_gate(path: &Path) -> Result<Gate, CliError> {
    let text = std::fs::read_to_string(path).map_err(|source| CliError::Io { what: format!("read {}", path.display()), source })?;
    let yaml: serde_yaml::Value = serde_yaml::from_str(&text).map_err(|e| wrong(path, &e.to_string()))?;
    // By way of JSON, as kubectl does: there a weight such as `5:` is a string.
    let value = serde_json::to_value(yaml).map_err(|e| wrong(path, &e.to_string()))?;
    let entry = match value {
        Value::Array(mut entries) if entries.len() == 1 => entries.remove(0),
        Value::Array(entries) => return Err(wrong(path, &format!("has {} gates: write one", entries.len()))),
        entry => entry,
    };
    let template = json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "VoiceAnalysisTemplate", "metadata": {"name": "gate"},
        "spec": {"gates": [&entry]}});
    let problems = crate::sim::manifest_problems(&template);
    if !problems.is_empty() {
        let shown: Vec<String> = problems.iter().map(|p| p.replace("spec.gates[0].", "").replace("spec.gates[0]", "gate")).collect();
        return Err(wrong(path, &shown.join("\n")));
    }
    serde_json::from_value(entry).map_err(|e| wrong(path, &e.to_string()))
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, CliError> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = File::open(path).map_err(|source| CliError::Io { what: format!("read {}", path.display()), source })?;
    Ok(Box::new(BufReader::new(file)))
}

fn wrong(path: &Path, reason: &str) -> CliError {
    CliError::Differs(format!("{}: {reason}", path.display()))
}

fn printing(source: std::io::Error) -> CliError {
    CliError::Io { what: "print".into(), source }
}

#[cfg(test)]
mod tests;
