//! What a gate that counts calls says, in one sentence.

use crate::api::run::{Comparison, Outlook, PassLine};
use crate::core::window::{clock, span};

/// `gate: message`, or `gate > 900: ...` where the message begins with an edge.
pub fn told(gate: &str, message: &str) -> String {
    if message.starts_with("> ") { format!("{gate} {message}") } else { format!("{gate}: {message}") }
}

/// The pass line that counts at a weight in percent: that of the next lower weight, or the lowest.
pub fn line_at(comparison: &Comparison, weight: i32) -> Option<&PassLine> {
    comparison.pass.iter().rev().find(|line| line.weight <= weight).or_else(|| comparison.pass.first())
}

/// Whether the newest look passes at a weight.
pub fn passes_at(comparison: &Comparison, weight: i32) -> bool {
    line_at(comparison, weight).is_some_and(|line| line.passes)
}

/// The counts, the evidence, and what is missing to pass at `weight` percent.
pub fn sentence(c: &Comparison, weight: i32) -> String {
    let edge = c.edge.map(|e| format!("> {e}: ")).unwrap_or_default();
    let counts = match &c.stable {
        Some(stable) => format!("{} of {} canary calls, {} of {} stable", c.canary.bad, c.canary.calls, stable.bad, stable.calls),
        None => {
            let estimate = c.estimate.map(|rate| format!(" ({})", percent(rate))).unwrap_or_default();
            format!("{} of {} canary calls{estimate}", c.canary.bad, c.canary.calls)
        }
    };
    let evidence = format!("evidence {}, abort line {}", times(c.log_evidence), times(c.log_abort_line));
    let mut text = format!("{edge}{counts}; {evidence}");
    if c.log_evidence >= c.log_abort_line {
        return text;
    }
    if let Some(line) = line_at(c, weight) {
        text.push_str(&format!("; below {}: {}, pass line {}", line.below, times(line.log_evidence), times(line.log_line)));
        if !line.passes {
            text.push_str(&missing(c, line));
        }
    }
    text
}

fn missing(c: &Comparison, line: &PassLine) -> String {
    let mut parts = Vec::new();
    if c.canary.calls < c.min_canary {
        parts.push(format!("{} canary calls are needed", c.min_canary));
    }
    if let (Some(until), Some(seen)) = (&c.not_before, &c.data_at)
        && seen.0 < until.0
    {
        parts.push(format!("not before {}", clock(until.0)));
    }
    match (&c.to_abort, &line.to_pass) {
        (Some(abort), pass) if pass.is_none_or(|pass| abort.calls < pass.calls) => parts.push(expected(abort, "abort")),
        (_, Some(pass)) if pass.calls > 0 => parts.push(expected(pass, "pass")),
        _ => {}
    }
    if parts.is_empty() { String::new() } else { format!("; {}", parts.join(", ")) }
}

/// `about 40 more canary calls to pass, 16m`.
fn expected(outlook: &Outlook, end: &str) -> String {
    let time = outlook.seconds.map(|s| format!(", {}", rough(s))).unwrap_or_default();
    format!("about {} more canary calls to {end}{time}", outlook.calls)
}

/// A time of which the smallest units do not matter.
fn rough(seconds: i64) -> String {
    let unit = match seconds {
        ..600 => 1,
        600..7200 => 60,
        _ => 3600,
    };
    span(std::time::Duration::from_secs(u64::try_from((seconds + unit - 1) / unit * unit).unwrap_or(0)))
}

/// Evidence as people say it: `34x`, `0.2x`, `2.1e9x`.
pub fn times(log: f64) -> String {
    let e = log.exp();
    match e {
        e if !e.is_finite() || e >= 1e6 => format!("1e{}x", (log / std::f64::consts::LN_10).floor()),
        e if e >= 10.0 => format!("{e:.0}x"),
        e if e >= 0.01 => format!("{}x", (e * 100.0).round() / 100.0),
        _ => "0x".into(),
    }
}

/// A share in percent, with as many places as it needs to be told from others.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let places = if percent >= 10.0 {
        10.0
    } else if percent >= 0.1 {
        100.0
    } else {
        10_000.0
    };
    format!("{} %", (percent * places).round() / places)
}
