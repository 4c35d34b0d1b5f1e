//! `gate simulate`: what a gate would do under imagined traffic.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};

use super::{printing, read_gate, wrong};
use crate::api::common::std_duration;
use crate::cli::args::SimulateArgs;
use crate::cli::error::CliError;
use crate::cli::table::{Cell, Ink, Paint, lines};
use crate::core::gates::calls::simulate::{Planned, Simulation, measured};
use crate::core::gates::calls::{Needs, same};
use crate::core::stats::plan::Calls;
use crate::core::stats::simulate::{Outcome, SimulateError, Typical};
use crate::core::stats::traffic::{Lognormal, Regression, Signal, Spread, Step, Traffic, TrafficError};
use crate::core::window::span;

/// What became of one kind of canary.
struct Played {
    /// How much worse it is; 1 for one that is the same.
    size: f64,
    outcome: Outcome,
    plan: Vec<Planned>,
}

/// Plays a canary that is the same and those that are worse, and prints how often and how soon the gate aborts and passes.
///
/// # Errors
/// A file that cannot be read, a gate that is not one or counts no calls, and numbers that make no sense.
pub fn simulate(args: &SimulateArgs, paint: Paint, out: &mut impl Write) -> Result<(), CliError> {
    let gate = read_gate(&args.gate)?;
    let simulation = Simulation::new(&gate).map_err(|reason| wrong(&args.gate, &reason))?;
    let question = simulation.question();
    let tick = args.tick.unwrap_or_else(|| std_duration(question.counted.interval)).as_secs_f64();
    let signal = signal(args, &question.needs).map_err(CliError::Differs)?;
    let traffic = traffic(args, signal, tick).map_err(CliError::Differs)?;
    let mut played = Vec::new();
    for size in std::iter::once(1.0).chain(args.regression.iter().copied()) {
        let traffic = Traffic { regression: Regression::Factor(size), ..traffic.clone() };
        let outcome = simulation.run(&traffic, args.rollouts, args.seed).map_err(|e| CliError::Differs(in_flags(&e)))?;
        played.push(Played { size, outcome, plan: simulation.plan(&traffic) });
    }
    let text = if args.json {
        let kind = kind(&gate);
        let canaries: Vec<Value> = played.iter().map(as_json).collect();
        let all = json!({
            "gate": gate.name, "kind": kind, "callsPerMinute": args.calls_per_minute, "weights": args.weight,
            "minutes": traffic.minutes, "tickSeconds": tick, "rollouts": args.rollouts, "seed": args.seed,
            "falseAbort": question.false_abort, "falsePromote": question.false_promote, "canaries": canaries,
        });
        format!("{all}\n")
    } else {
        let title = format!(
            "{} ({}): {} calls a minute, {} % to the canary, {} in ticks of {}; {} rollouts of each kind, seed {}",
            gate.name,
            kind(&gate),
            args.calls_per_minute,
            args.weight.iter().map(ToString::to_string).collect::<Vec<_>>().join(", then "),
            span(args.duration),
            span(std::time::Duration::from_secs_f64(tick)),
            args.rollouts,
            args.seed,
        );
        let worse = if matches!(question.needs, Needs::Histogram { .. }) { "times the values" } else { "times the bad calls" };
        let promise = format!(
            "aborted, of a canary that is the same: at most {} is promised. Expected calls: of the canary, at weight {} %, from the first one on.",
            percent(question.false_abort),
            args.weight[0],
        );
        format!(
            "{title}\n\n{}\n\n{promise}\nIn brackets: what else the chance may be, at 95 % confidence. Times and calls are medians.\n",
            table(&played, worse, paint)
        )
    };
    out.write_all(text.as_bytes()).map_err(printing)
}

fn kind(gate: &crate::api::analysis::Gate) -> &'static str {
    match (&gate.compare, &gate.compare_histogram) {
        (Some(_), _) => "compare",
        (_, Some(_)) => "compareHistogram",
        _ => "absolute",
    }
}

/// What the stable version's calls are like, in the terms of the gate.
fn signal(args: &SimulateArgs, needs: &Needs<'_>) -> Result<Signal, String> {
    let latency = args.median.or(args.p95).or(args.sigma).is_some();
    let Needs::Histogram { bounds, .. } = needs else {
        return match args.bad_rate {
            Some(rate) if !latency && args.buckets.is_empty() => Ok(Signal::BadRate(rate)),
            _ => Err("this gate compares counters: give --bad-rate, the share of calls that are bad on stable, and none of --median, --p95, --sigma, --buckets".into()),
        };
    };
    let needed = || bounds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let spread = match (args.bad_rate, latency, args.buckets.is_empty()) {
        (None, true, true) => Spread::Lognormal(lognormal(args)?),
        (None, false, false) => {
            let (spread, known) = measured(&buckets(&args.buckets)?).map_err(|e| format!("--buckets: {e}"))?;
            if let Some(bound) = bounds.iter().find(|bound| !known.iter().any(|b| same(*b, **bound))) {
                let known = known.iter().filter(|b| b.is_finite()).map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Err(format!("--buckets: {bound} is not the bound of a bucket; there are {known}"));
            }
            Spread::Measured(spread)
        }
        _ => {
            return Err(format!(
                "this gate compares a histogram at {}: give two of --median, --p95, --sigma, or --buckets, and no --bad-rate",
                needed()
            ));
        }
    };
    Ok(Signal::Latency { spread, bounds: bounds.clone() })
}

fn lognormal(args: &SimulateArgs) -> Result<Lognormal, String> {
    let positive = |flag: &str, value: f64| {
        if value.is_finite() && value > 0.0 { Ok(value) } else { Err(format!("{flag} is {value}: use a number above 0")) }
    };
    match (args.median, args.p95, args.sigma) {
        (Some(median), Some(p95), None) if p95 > median => Ok(Lognormal::of_quantiles(positive("--median", median)?, p95)),
        (Some(median), Some(p95), None) => Err(format!("--p95 {p95} has to be above --median {median}")),
        (Some(median), None, Some(sigma)) => Ok(Lognormal::of_median(positive("--median", median)?, positive("--sigma", sigma)?)),
        (None, Some(p95), Some(sigma)) => Ok(Lognormal { p95: positive("--p95", p95)?, sigma: positive("--sigma", sigma)? }),
        _ => Err("give exactly two of --median, --p95, --sigma".into()),
    }
}

/// `BOUND=COUNT`, as often as there are buckets.
fn buckets(given: &[String]) -> Result<BTreeMap<String, u64>, String> {
    let one = |text: &String| {
        let (bound, count) = text.split_once('=')?;
        Some((bound.trim().to_owned(), count.trim().parse().ok()?))
    };
    given.iter().map(|text| one(text).ok_or_else(|| format!("--buckets: `{text}` is not BOUND=COUNT such as 0.7=850"))).collect()
}

fn traffic(args: &SimulateArgs, signal: Signal, tick: f64) -> Result<Traffic, String> {
    if let Some(weight) = args.weight.iter().find(|w| !(**w > 0.0 && **w < 100.0)) {
        return Err(format!("--weight is {weight}: use a percentage above 0 and below 100, so that both versions have calls"));
    }
    if args.weight.windows(2).any(|pair| pair[1] <= pair[0]) {
        return Err("--weight: weights have to rise".into());
    }
    let mut traffic = Traffic::steady(args.calls_per_minute, 0.5, args.duration.as_secs_f64() / 60.0, signal);
    traffic.steps = args.weight.iter().map(|weight| Step { from: 0.0, share: weight / 100.0, base: 1.0 }).collect();
    (traffic.by_passing, traffic.tick_seconds) = (true, tick);
    Ok(traffic)
}

/// The flag that a number came from.
fn in_flags(error: &SimulateError) -> String {
    let SimulateError::Traffic(TrafficError { field, value, need }) = error else { return error.to_string() };
    let flag = match *field {
        "calls a minute" => "--calls-per-minute",
        "calls in a tick" => return format!("--calls-per-minute makes {value} calls in a tick, and {need}: use a shorter --tick"),
        "ticks" => return "--duration is shorter than a tick: use a longer one, or a shorter --tick".into(),
        "size of the regression" => "--regression",
        "bad rate" => "--bad-rate",
        _ => return error.to_string(),
    };
    format!("{flag} is {value}: {need}")
}

fn table(played: &[Played], worse: &str, paint: Paint) -> String {
    let head = ["canary", "aborted", "after", "passed", "after", "undecided", "expected calls"].map(|h| Cell::new(Ink::Bold, h));
    let row = |p: &Played| -> [Cell; 7] {
        let name = if p.size == 1.0 { "the same".into() } else { format!("{} {worse}", p.size) };
        let o = &p.outcome;
        let chance = |share: f64, ink: Ink| {
            let (low, high) = o.interval(share);
            Cell::new(if share >= 0.5 { ink } else { Ink::Plain }, format!("{} ({} to {})", percent(share), figure(low), figure(high)))
        };
        [
            name.into(),
            chance(o.aborted, Ink::Red),
            after(o.abort).into(),
            chance(o.passed, Ink::Green),
            after(o.pass).into(),
            percent(o.inconclusive).into(),
            expected(p.plan.first()).into(),
        ]
    };
    lines(paint, &std::iter::once(head).chain(played.iter().map(row)).collect::<Vec<_>>()).join("\n")
}

/// `13m, 39 calls`
fn after(typical: Option<Typical>) -> String {
    typical.map_or_else(
        || "-".into(),
        |t| format!("{}, {} calls", span(std::time::Duration::from_secs_f64((t.minutes * 60.0).round())), t.canary_calls),
    )
}

/// The verdict that is nearer.
fn expected(plan: Option<&Planned>) -> String {
    let Some(plan) = plan else { return "-".into() };
    let range = |c: Calls, end: &str| format!("{:.0} to {:.0} to {end}", c.low.ceil(), c.high.ceil());
    match (plan.to_abort, plan.to_pass) {
        (Some(abort), Some(pass)) if pass.low < abort.low => range(pass, "pass"),
        (Some(abort), _) => range(abort, "abort"),
        (None, Some(pass)) => range(pass, "pass"),
        (None, None) => "-".into(),
    }
}

fn figure(share: f64) -> String {
    format!("{}", (share * 1000.0).round() / 10.0)
}

fn percent(share: f64) -> String {
    format!("{} %", figure(share))
}

fn as_json(p: &Played) -> Value {
    let verdict = |share: f64, typical: Option<Typical>| {
        let (low, high) = p.outcome.interval(share);
        json!({
            "share": share, "standardError": p.outcome.standard_error(share), "low": low, "high": high,
            "medianMinutes": typical.map(|t| t.minutes), "medianCanaryCalls": typical.map(|t| t.canary_calls),
        })
    };
    let calls = |c: Option<Calls>| c.map(|c| json!({"low": c.low, "high": c.high}));
    let plan = |p: &Planned| json!({"weight": p.share * 100.0, "callsToAbort": calls(p.to_abort), "callsToPass": calls(p.to_pass)});
    json!({
        "regression": p.size,
        "aborted": verdict(p.outcome.aborted, p.outcome.abort),
        "passed": verdict(p.outcome.passed, p.outcome.pass),
        "undecided": verdict(p.outcome.inconclusive, None),
        "plan": p.plan.iter().map(plan).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests;
