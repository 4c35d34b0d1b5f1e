//! Recorded ticks through a gate: the same evidence and verdicts as in a release.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::counters::Sums;
use super::question::{Needs, Question, same};
use super::tally::Tally;
use crate::api::analysis::Gate;
use crate::api::run::{Comparison, Verdict};

/// A recorded tick.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// When it ended, in seconds since any moment.
    pub t: Number,
    /// Canary weight, in percent.
    pub weight: f64,
    /// Counts of the canary in the tick.
    pub canary: Counts,
    /// Counts of stable in the tick; a gate that looks at the canary alone does without.
    #[serde(default)]
    pub stable: Option<Counts>,
}

/// Counts of one arm in a tick.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// All calls.
    pub n: u64,
    /// Bad calls.
    #[serde(default)]
    pub bad: Option<u64>,
    /// Calls up to each bound of a bucket.
    #[serde(default)]
    pub buckets: Option<BTreeMap<String, u64>>,
}

/// What the gate says after a tick.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    /// When the tick ended.
    pub t: Number,
    /// Logarithm of the evidence against the canary.
    pub log_e: f64,
    /// Logarithm of the evidence for it, at the margin of the tick's weight.
    pub log_e_pass: f64,
    /// The verdict; a Fail stays.
    pub verdict: Verdict,
    /// Weight of the tick.
    #[serde(skip)]
    pub weight: i32,
    /// Everything that is known.
    #[serde(skip)]
    pub known: Comparison,
}

/// A gate that recorded ticks are fed to.
#[derive(Debug)]
pub struct Replay<'a> {
    question: Question<'a>,
    gate: &'a Gate,
    tally: Tally,
    first: Option<f64>,
    last: f64,
    failed: bool,
}

impl<'a> Replay<'a> {
    /// Begins with a gate.
    ///
    /// # Errors
    /// A gate that does not count calls, or everything that is wrong with it.
    pub fn new(gate: &'a Gate) -> Result<Self, String> {
        let question = match Question::of(gate) {
            None => return Err("only compare, compareHistogram and absolute gates count calls and can be replayed".into()),
            Some(Err(errors)) => return Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
            Some(Ok(question)) => question,
        };
        let tally = Tally::new(&question).ok_or("the gate's margins cannot be tested")?;
        Ok(Self { question, gate, tally, first: None, last: f64::NEG_INFINITY, failed: false })
    }

    /// Feeds a tick.
    ///
    /// # Errors
    /// What is wrong with the tick; nothing of it counts then.
    pub fn tick(&mut self, tick: &Recorded) -> Result<Said, String> {
        let t = tick.t.as_f64().unwrap_or(f64::NAN);
        if t.is_nan() || t <= self.last {
            return Err(format!("t {} does not come after the tick before it", tick.t));
        }
        if !(0.0..=100.0).contains(&tick.weight) {
            return Err(format!("weight {} is not a percentage from 0 to 100", tick.weight));
        }
        let stable = match (&tick.stable, self.question.one_arm()) {
            (Some(stable), _) => self.columns(stable, "stable")?,
            (None, true) => vec![0; self.question.columns()],
            (None, false) => return Err("`stable` is missing".into()),
        };
        let sums = Sums { canary: self.columns(&tick.canary, "canary")?, stable };
        let mut tally = self.tally.clone();
        tally.add(&self.question, &sums)?;
        self.tally = tally;
        self.last = t;
        let first = *self.first.get_or_insert(t);
        let enough = self.tally.canary_calls() >= i64::from(self.question.counted.min_canary);
        let may_pass = enough && t - first >= self.question.waits(self.gate).as_secs_f64();
        let known = self.tally.comparison(&self.question, may_pass);
        let log_e = self.tally.log_e_abort(&self.question);
        self.failed |= log_e >= (1.0 / self.question.false_abort).ln();
        // A weight in between takes the margin of the next lower one.
        let weight = tick.weight.floor() as i32;
        let margin = self.question.margin_at(weight);
        let verdict = match known.pass.get(margin) {
            _ if self.failed => Verdict::Fail,
            Some(line) if line.passes => Verdict::Pass,
            _ => Verdict::Inconclusive,
        };
        Ok(Said { t: tick.t.clone(), log_e, log_e_pass: self.tally.log_e_pass(&self.question, margin), verdict, weight, known })
    }

    /// Logarithms of evidence at which the gate fails and passes.
    pub fn lines(&self) -> (f64, f64) {
        ((1.0 / self.question.false_abort).ln(), (1.0 / self.question.false_promote).ln())
    }

    /// An arm's counts, as counters of a pod would have grown.
    fn columns(&self, counts: &Counts, arm: &str) -> Result<Vec<u64>, String> {
        let n = counts.n;
        match (&self.question.needs, counts.bad, &counts.buckets) {
            (_, Some(bad), _) if bad > n => Err(format!("{arm}: {bad} bad calls are more than n {n}")),
            (Needs::Counters { good, .. }, Some(bad), None) => Ok(vec![n, if *good { n - bad } else { bad }]),
            (Needs::Counters { .. }, _, _) => Err(format!("{arm}: this gate compares `bad` calls: give n and bad")),
            (Needs::Histogram { bounds, .. }, None, Some(buckets)) => {
                let buckets = rising(buckets, n).map_err(|reason| format!("{arm}: {reason}"))?;
                let known = || buckets.iter().map(|(b, _)| b.to_string()).collect::<Vec<_>>().join(", ");
                let at = |bound: &f64| {
                    let found = buckets.iter().find(|(b, _)| same(*b, *bound)).map(|(_, count)| *count);
                    found.ok_or_else(|| format!("{arm}: {bound} is not the bound of a bucket; there are {}", known()))
                };
                let above: Result<Vec<u64>, String> = bounds.iter().map(at).collect();
                Ok(std::iter::once(n).chain(above?).collect())
            }
            (Needs::Histogram { .. }, _, _) => Err(format!("{arm}: this gate compares `buckets`: give n and buckets, without bad")),
        }
    }
}

/// Buckets by bound; counts are cumulative, so they rise up to n.
pub(super) fn rising(buckets: &BTreeMap<String, u64>, n: u64) -> Result<Vec<(f64, u64)>, String> {
    let mut all = Vec::new();
    for (text, count) in buckets {
        let bound = match text.as_str() {
            "+Inf" | "Inf" => f64::INFINITY,
            _ => text.parse::<f64>().map_err(|_| format!("bucket `{text}` is not a number"))?,
        };
        all.push((bound, *count));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    if let Some(pair) = all.windows(2).find(|pair| pair[0].1 > pair[1].1) {
        return Err(format!("bucket {} holds fewer calls than bucket {}: buckets are cumulative", pair[1].0, pair[0].0));
    }
    match all.last() {
        Some((bound, count)) if *count > n => Err(format!("bucket {bound} holds {count} calls, more than n {n}")),
        Some((bound, count)) if bound.is_infinite() && *count != n => Err(format!("bucket +Inf holds {count} calls, and n is {n}")),
        _ => Ok(all),
    }
}
