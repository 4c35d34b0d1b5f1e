//! What looks wrong with a histogram or its edges, though it can be measured.

use super::counters::Snapshot;
use super::question::{Needs, Question, same};
use crate::api::analysis::Gate;

/// Observations before anything is said about where they lie.
const ENOUGH: f64 = 200.0;
/// Share of all observations in one bucket that leaves nothing to compare.
const ALL: f64 = 0.99;
/// Share in a bucket beside an edge that hides much.
const MUCH: f64 = 0.5;
/// A bucket whose bounds are this many times apart is wide.
const WIDE: f64 = 3.0;

/// Warnings for the gate.
pub fn warnings(question: &Question<'_>, seen: &Snapshot) -> Vec<String> {
    let mut all = Vec::new();
    match &question.needs {
        Needs::Histogram { metric, bounds } => {
            all.extend(units(metric, bounds));
            all.extend(mass(question, seen));
        }
        Needs::Counters { .. } => {
            let odd = seen.pods.iter().find(|p| matches!(p.counts[..], [Some(all), Some(part), ..] if part > all));
            all.extend(
                odd.map(|p| format!("pod {} counts more bad or good calls than calls: do both counters count the same calls?", p.pod)),
            );
        }
    }
    all
}

/// What looks wrong with a gate before anything is measured, and its field within the gate.
pub fn unit_warning(gate: &Gate) -> Option<(&'static str, String)> {
    let question = Question::of(gate)?.ok()?;
    let Needs::Histogram { metric, bounds } = &question.needs else { return None };
    let field = if gate.compare_histogram.is_some() { ".compareHistogram.edges" } else { ".absolute.above" };
    units(metric, bounds).map(|text| (field, text))
}

/// Edges in one unit and a name that says another.
fn units(metric: &str, bounds: &[f64]) -> Option<String> {
    let name = metric.split('{').next().unwrap_or_default();
    let (largest, smallest) = (bounds.last().copied()?, bounds.first().copied()?);
    let millis = name.contains("_ms") || name.contains("milliseconds");
    if millis && largest < 10.0 {
        return Some(format!("edges up to {largest} look like seconds, and {name} counts milliseconds"));
    }
    (!millis && name.contains("seconds") && smallest >= 100.0)
        .then(|| format!("edges from {smallest} look like milliseconds, and {name} counts seconds"))
}

/// Buckets that say nothing about the edges.
fn mass(question: &Question<'_>, seen: &Snapshot) -> Vec<String> {
    let total = seen.buckets.last().map_or(0.0, |b| b.count);
    if total < ENOUGH {
        return Vec::new();
    }
    let below = |i: usize| if i == 0 { (0.0, 0.0) } else { (seen.buckets[i - 1].bound, seen.buckets[i - 1].count) };
    let mut all = Vec::new();
    for (i, bucket) in seen.buckets.iter().enumerate() {
        let (from, before) = below(i);
        let share = (bucket.count - before) / total;
        if share >= ALL {
            let percent = super::sentence::percent(share);
            all.push(format!(
                "{percent} of calls lie in the bucket from {from} to {}: its bounds cannot tell them apart",
                bound(bucket.bound)
            ));
        } else if share >= MUCH && bucket.bound > WIDE * from && from > 0.0 {
            let beside = question.tests[0].1.iter().filter_map(|p| p.edge).find(|e| same(*e, from) || same(*e, bucket.bound));
            if let Some(edge) = beside {
                let percent = super::sentence::percent(share);
                let wide = format!("{percent} of calls lie between {from} and {}", bound(bucket.bound));
                all.push(format!("{wide}, beside the edge {edge}: with so wide a bucket much can change unseen"));
            }
        }
    }
    all
}

fn bound(bound: f64) -> String {
    if bound.is_finite() { bound.to_string() } else { "infinity".into() }
}
