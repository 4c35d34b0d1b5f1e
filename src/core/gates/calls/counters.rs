//! From counters to ticks: resets, new pods, missed scrapes and looks that come twice.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::api::run::{Memory, PodMemory};

/// Time after which a pod that is gone is forgotten.
const FORGOTTEN_AFTER: i64 = 3600;

/// Counters of both arms at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The moment, in seconds of Unix time.
    pub at: i64,
    /// Every pod that has them.
    pub pods: Vec<PodSample>,
    /// Buckets of the whole histogram, both arms together, rising; none for other counters.
    pub buckets: Vec<Bucket>,
}

/// Counters of one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSample {
    /// Its name.
    pub pod: String,
    /// It belongs to the canary.
    pub canary: bool,
    /// When they were scraped, in seconds of Unix time.
    pub scraped: f64,
    /// All calls, then what the gate needs beside them; `None` for a series that does not exist.
    pub counts: Vec<Option<u64>>,
}

/// A bucket of a histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Upper bound; infinite for the last one.
    pub bound: f64,
    /// Observations up to it since the pods began.
    pub count: f64,
}

/// What both arms counted in a tick: all calls, then what the gate needs beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Of the canary.
    pub canary: Vec<u64>,
    /// Of stable.
    pub stable: Vec<u64>,
}

/// What came of looking at counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A tick.
    Tick(Sums),
    /// The first look: from here on calls are counted.
    Baseline,
    /// Nothing was taken in, and the next look covers this time too: why.
    Skipped(String),
}

/// Takes a look at counters into the memory. `columns` is the number of counters a pod has; `one_arm` says that only the
/// canary is looked at. A look at a moment that is not newer than the last one changes nothing.
pub fn take(memory: &mut Memory, seen: &Snapshot, columns: usize, warmup: Duration, one_arm: bool) -> Taken {
    if let Some(reason) = why_not(memory, seen, one_arm) {
        return Taken::Skipped(reason);
    }
    let first = memory.at.is_none();
    let before = memory.at.as_ref().map_or(i64::MIN, |t| t.0.as_second());
    let warmup = i64::try_from(warmup.as_secs()).unwrap_or(i64::MAX);
    let mut sums = Sums { canary: vec![0; columns], stable: vec![0; columns] };
    let mut known: BTreeMap<(bool, String), PodMemory> = memory.pods.drain(..).map(|p| ((p.canary, p.pod.clone()), p)).collect();
    for sample in &seen.pods {
        let key = (sample.canary, sample.pod.clone());
        let old = known.remove(&key);
        let since = old.as_ref().map_or(seen.at, |p| p.first);
        // What is counted from here on began when the pod was warm.
        let from = old.as_ref().map_or(since, |p| p.last);
        let last: Vec<i64> = old.map_or_else(|| vec![0; columns], |p| p.counts);
        let now = current(sample, &last, columns);
        if !first && from.saturating_sub(since) >= warmup {
            let sums = if sample.canary { &mut sums.canary } else { &mut sums.stable };
            increase(&last, &now).zip(sums).for_each(|(more, sum)| *sum = sum.saturating_add(more));
        }
        known.insert(key, PodMemory { pod: sample.pod.clone(), canary: sample.canary, first: since, last: seen.at, counts: now });
    }
    // One that was already missing for long at the look before.
    known.retain(|_, p| p.last == seen.at || before.saturating_sub(p.last) < FORGOTTEN_AFTER);
    memory.pods = known.into_values().collect();
    memory.at = Timestamp::from_second(seen.at).ok().map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time);
    memory.canary_scraped = newest(seen, true).unwrap_or(memory.canary_scraped);
    memory.stable_scraped = newest(seen, false).unwrap_or(memory.stable_scraped);
    if first { Taken::Baseline } else { Taken::Tick(sums) }
}

/// A series that does not exist now stands where it stood.
fn current(sample: &PodSample, last: &[i64], columns: usize) -> Vec<i64> {
    let count = |i: usize| sample.counts.get(i).copied().flatten().map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    (0..columns).map(|i| count(i).unwrap_or_else(|| last.get(i).copied().unwrap_or(0))).collect()
}

/// What was counted since. A process that begins anew resets all its counters together: when one fell, all began at 0.
fn increase(last: &[i64], now: &[i64]) -> impl Iterator<Item = u64> {
    let reset = last.iter().zip(now).any(|(last, now)| now < last);
    last.iter().zip(now).map(move |(last, now)| u64::try_from(if reset { *now } else { now - last }).unwrap_or(0))
}

fn newest(seen: &Snapshot, canary: bool) -> Option<f64> {
    seen.pods.iter().filter(|p| p.canary == canary).map(|p| p.scraped).max_by(f64::total_cmp)
}

/// Why this look cannot be taken in.
fn why_not(memory: &Memory, seen: &Snapshot, one_arm: bool) -> Option<String> {
    if memory.at.as_ref().is_some_and(|t| seen.at <= t.0.as_second()) {
        return Some("the counters of this moment are taken in already".into());
    }
    let arms: &[(bool, &str, f64)] =
        &[(true, "the canary", memory.canary_scraped), (false, "stable", memory.stable_scraped)][..if one_arm { 1 } else { 2 }];
    for (canary, name, last) in arms {
        match newest(seen, *canary) {
            None => return Some(format!("{name} has no counters yet")),
            Some(newest) if memory.at.is_some() && newest <= *last => {
                return Some(format!("{name} was not scraped since the last look: the next one covers this time too"));
            }
            Some(_) => {}
        }
    }
    None
}
