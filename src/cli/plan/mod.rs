//! `plan`: how long a release takes at the least, and the pods, calls and money that it needs; without a cluster.

mod needs;
#[cfg(test)]
mod tests;
mod timeline;

use std::io::Write;
use std::time::Duration;

use kube::ResourceExt;

use super::args::PlanArgs;
use super::error::CliError;
use super::exit::Exit;
use super::lint::{self, Release};
use super::status_view::section;
use super::table::{Cell, Ink, Paint, lines};
use crate::core::gates::calls::percent;
use crate::core::window::span;

use needs::{Cost, Needed, Traffic};
use timeline::{Row, Timeline};

/// Prints the timeline of every VoiceRollout in the files.
///
/// # Errors
/// A file that cannot be read, a manifest with errors (they are printed), or none with a VoiceRollout.
pub fn plan(args: &PlanArgs, paint: Paint, out: &mut impl Write) -> Result<Exit, CliError> {
    let releases = lint::releases(&args.files, paint, out)?;
    let traffic = Traffic { calls_per_minute: args.calls_per_minute, bad_rate: args.bad_rate, regression: args.regression };
    let texts: Vec<String> = releases.iter().map(|r| render(r, traffic, paint)).collect::<Result<_, _>>()?;
    out.write_all(texts.join("\n").as_bytes()).map_err(|source| CliError::Io { what: "print".into(), source })?;
    Ok(Exit::Done)
}

fn render(release: &Release, traffic: Traffic, paint: Paint) -> Result<String, CliError> {
    let gates = needs::gates(release, traffic)?;
    let timeline = Timeline::of(release, &gates);
    let name = paint.ink(Ink::Bold, &release.rollout.name_any());
    let mut out = vec![format!("{name}  {}", summary(&timeline))];
    let inner = paint.indented(2);
    section(&mut out, paint, "STEPS", steps(&timeline, inner));
    section(&mut out, paint, "PODS", paint_all(inner, &pods(&timeline)));
    let counted: Vec<&Needed> = gates.iter().filter(|g| g.calls.is_some()).collect();
    section(&mut out, paint, "CALLS", calls(&counted, traffic, inner));
    section(&mut out, paint, "JUDGE", costs(&needs::costs(&gates, timeline.total), inner));
    section(&mut out, paint, "TAKEN FOR GRANTED", paint_all(inner, &granted(&counted, traffic)));
    Ok(out.join("\n") + "\n")
}

fn paint_all(paint: Paint, sentences: &[String]) -> Vec<String> {
    sentences.iter().flat_map(|s| paint.wrapped(s)).collect()
}

fn summary(timeline: &Timeline) -> String {
    let people = match timeline.people {
        0 => String::new(),
        1 => ", and until a person promotes it once".into(),
        n => format!(", and until a person promotes it {n} times"),
    };
    let unknown = if timeline.unknown { ", and as long as its gates count calls" } else { "" };
    let several = if timeline.rows.len() == 1 { "1 step".into() } else { format!("{} steps", timeline.rows.len()) };
    format!("{several}, at least {}{people}{unknown}", span(rounded(timeline.total)))
}

fn rounded(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

fn steps(timeline: &Timeline, paint: Paint) -> Vec<String> {
    let title = ["STEP", "AFTER", "WEIGHT", "PODS", "WHAT"].map(|t| Cell::new(Ink::Bold, t));
    let row = |(i, row): (usize, &Row)| {
        let why = if row.why.is_empty() { String::new() } else { format!(": {}", row.why) };
        [
            format!("{}", i + 1).into(),
            span(rounded(row.after)).into(),
            format!("{} %", row.weight).into(),
            format!("{}+{}", timeline.stable_pods, row.canary_pods).into(),
            format!("{}{why}", row.what).into(),
        ]
    };
    let end = [
        "end".into(),
        span(rounded(timeline.total)).into(),
        "100 %".into(),
        format!("{}+{}", timeline.stable_pods, timeline.stable_pods).into(),
        "promotion: the canary becomes stable, the old revision drains".into(),
    ];
    let rows = timeline.rows.iter().enumerate().map(row);
    lines(paint, &std::iter::once(title).chain(rows).chain([end]).collect::<Vec<_>>())
}

fn pods(timeline: &Timeline) -> Vec<String> {
    let stable = timeline.stable_pods;
    let latest = timeline.max_drain.map(|d| format!(", at the latest {} after the promotion", span(d))).unwrap_or_default();
    let most = timeline.rows.iter().map(|r| r.canary_pods).max().unwrap_or(0).max(stable);
    vec![
        format!(
            "Stable keeps its {stable} until the promotion is complete; the canary has up to {most} beside them: {} at the most.",
            stable + most
        ),
        format!("The old revision keeps its pods until their calls have ended{latest}."),
    ]
}

fn calls(gates: &[&Needed], traffic: Traffic, paint: Paint) -> Vec<String> {
    if gates.is_empty() {
        return Vec::new();
    }
    let title = ["GATE", "WEIGHT", "CANARY CALLS TO PASS", "TAKES", "TO ABORT ONE THAT IS WORSE", "TAKES"];
    let mut table = vec![title.map(|t| Cell::new(Ink::Bold, t))];
    let range = |calls: Option<(u64, u64)>| match calls {
        Some((low, high)) if low == high => format!("{low}"),
        Some((low, high)) => format!("{low} to {high}"),
        None => "never".into(),
    };
    for gate in gates {
        for at in gate.calls.iter().flatten() {
            let time = |calls: Option<(u64, u64)>| {
                let minutes = |n: u64| traffic.minutes(n, at.share).map(|t| span(Duration::from_secs(t.as_secs().div_ceil(60) * 60)));
                match calls.and_then(|(low, high)| Some((minutes(low)?, minutes(high)?))) {
                    Some((low, high)) if low == high => low,
                    Some((low, high)) => format!("{low} to {high}"),
                    None => "-".into(),
                }
            };
            table.push([
                (&gate.name).into(),
                format!("{} %", at.weight).into(),
                range(at.to_pass).into(),
                time(at.to_pass).into(),
                range(at.to_abort).into(),
                time(at.to_abort).into(),
            ]);
        }
    }
    lines(paint, &table)
}

fn costs(costs: &[Cost], paint: Paint) -> Vec<String> {
    costs.iter().flat_map(|cost| paint.wrapped(&format!("{}: {}", cost.gate, cost.text))).collect()
}

fn granted(counted: &[&Needed], traffic: Traffic) -> Vec<String> {
    let mut all =
        vec!["Pods are ready, routes are changed and providers answer at once; every gate passes at its first chance.".to_owned()];
    if !counted.is_empty() {
        all.push(format!(
            "{} of stable's calls are bad, of a histogram above its lowest edge (--bad-rate); one that is worse has {} times as many, or values as many times as large (--regression). A canary that is as good as stable passes. The calls above count from nothing at each weight; in the steps, as in a release, evidence carries over.",
            percent(traffic.bad_rate),
            traffic.regression
        ));
        match traffic.calls_per_minute {
            Some(calls) => all.push(format!("{calls} calls come in a minute, both versions together (--calls-per-minute).")),
            None => all.push("How long the calls take is not said: give --calls-per-minute.".into()),
        }
    }
    all
}
