//! One look: counters in, verdict out, with everything that the next look needs.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::counters::{Snapshot, Taken, take};
use super::outlook::foresee;
use super::question::Question;
use super::sentence::sentence;
use super::tally::Tally;
use super::{MAX_MEMORY, warnings};
use crate::api::common::std_duration;
use crate::api::run::{Comparison, Memory, Verdict};
use crate::core::window::add;

/// A run tells of the lowest weight's margin: it does not know the weight of now.
const LOWEST: i32 = 0;

/// When a look is taken.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// When the measurement began.
    pub started_at: Timestamp,
    /// When the gate's first one did.
    pub first_at: Timestamp,
    /// Since when the canary has had calls.
    pub traffic_since: Option<Timestamp>,
    /// Time from the first measurement before which the gate does not pass.
    pub min_duration: std::time::Duration,
    /// Bytes that other gates of the run remember.
    pub others: usize,
}

/// What a look gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// Pass when the newest tick passes at some weight; Fail when the evidence against the canary is enough.
    pub verdict: Verdict,
    /// One sentence.
    pub message: String,
    /// To be written before anything acts on the verdict.
    pub memory: Memory,
    /// What is known after it; `None` before the first tick.
    pub comparison: Option<Comparison>,
    /// What looks wrong.
    pub warnings: Vec<String>,
}

/// Takes a look.
pub fn look(question: &Question<'_>, before: &Memory, known: Option<&Comparison>, seen: &Snapshot, moment: &Moment) -> Look {
    let mut memory = before.clone();
    let mut notes = warnings::warnings(question, seen);
    let (tally, anew) = match Tally::recall(question, before) {
        Some(tally) => (Some(tally), false),
        None => (Tally::new(question), before.ticks > 0),
    };
    let undecided =
        |memory, message: String, warnings| Look { verdict: Verdict::Inconclusive, message, memory, comparison: known.cloned(), warnings };
    let Some(mut tally) = tally else { return undecided(memory, "the gate's margins cannot be tested".into(), notes) };
    if anew {
        notes.push("the evidence began anew: it was collected for other margins or bets".into());
        memory.since = None;
    }
    let warmup = std_duration(question.counted.warmup);
    let sums = match take(&mut memory, seen, question.columns(), warmup, question.one_arm()) {
        Taken::Tick(sums) => sums,
        Taken::Skipped(reason) => return undecided(memory, with_counts(known, &reason), notes),
        Taken::Baseline => {
            tally.keep(question, &mut memory);
            return bounded(question, before, known, moment, undecided(memory, "counts calls from here on".into(), notes));
        }
    };
    if memory.since.is_none() && sums.canary[0] > 0 {
        memory.since.clone_from(&before.at);
    }
    tally.add(question, &sums);
    tally.keep(question, &mut memory);
    let comparison = compare(question, &tally, &memory, moment);
    // From the tally itself: what is shown is rounded.
    let verdict = if tally.log_e_abort(question) >= (1.0 / question.false_abort).ln() {
        Verdict::Fail
    } else if comparison.pass.iter().any(|line| line.passes) {
        Verdict::Pass
    } else {
        Verdict::Inconclusive
    };
    let message = match comparison.canary.calls {
        0 => format!("no call of the canary is counted yet: pods are warming up for {}", crate::core::window::span(warmup)),
        _ => sentence(&comparison, LOWEST),
    };
    bounded(question, before, known, moment, Look { verdict, message, memory, comparison: Some(comparison), warnings: notes })
}

fn compare(question: &Question<'_>, tally: &Tally, memory: &Memory, moment: &Moment) -> Comparison {
    let bake = moment.traffic_since.zip(question.counted.min_bake).map(|(since, bake)| add(since, std_duration(bake)));
    let not_before = bake.unwrap_or(moment.first_at).max(add(moment.first_at, moment.min_duration));
    let enough = tally.canary_calls() >= i64::from(question.counted.min_canary);
    let mut comparison = tally.comparison(question, enough && moment.started_at >= not_before);
    comparison.not_before = (not_before > moment.first_at).then_some(Time(not_before));
    comparison.data_at.clone_from(&memory.at);
    let seconds = memory.since.as_ref().zip(memory.at.as_ref()).map_or(0, |(from, to)| to.0.as_second() - from.0.as_second());
    foresee(question, tally, &mut comparison, seconds);
    comparison
}

fn with_counts(known: Option<&Comparison>, reason: &str) -> String {
    match known {
        Some(c) if c.canary.calls > 0 => format!("{} ({reason})", sentence(c, LOWEST)),
        _ => reason.to_owned(),
    }
}

/// Refuses a memory that the API server would not keep.
fn bounded(question: &Question<'_>, before: &Memory, known: Option<&Comparison>, moment: &Moment, look: Look) -> Look {
    let bytes = size(&look.memory).saturating_add(moment.others);
    if bytes <= MAX_MEMORY {
        return look;
    }
    let (pods, columns) = (look.memory.pods.len(), question.columns());
    let message = format!(
        "the counters of {pods} pods ({columns} of each) make this run remember {} kB, and {} kB is the most: use fewer edges or gates, or a podLabel with fewer values",
        bytes / 1000,
        MAX_MEMORY / 1000
    );
    Look { verdict: Verdict::Error, message, memory: before.clone(), comparison: known.cloned(), warnings: look.warnings }
}

/// Bytes of a memory as the API server keeps it.
pub fn size(memory: &Memory) -> usize {
    serde_json::to_vec(memory).map_or(usize::MAX, |text| text.len())
}
