//! What a provider would answer, in a scenario file.

use std::time::Duration as StdDuration;

use serde::Deserialize;
use serde_json::Value;

use crate::api::common::{Duration, std_duration};
use crate::core::gates::Pairs;

/// Answers of one gate's provider for one release.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Answers {
    /// One a measurement, in order; the last one stays.
    Sequence(Vec<Item>),
    /// Always the same.
    Always(Answer),
}

/// One entry of a sequence.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Item {
    /// From a time on, counted from the gate's first measurement of the release; every entry has to say so then.
    From(From),
    /// For one measurement.
    Once(Answer),
}

/// An answer from a time on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct From {
    /// Since the gate's first measurement.
    pub after: Duration,
    /// What the provider answers from then on.
    pub answer: Answer,
}

/// One answer: a number, or a map with one of `value`, `error`, `noData`, `verdict`, `pairs` (with `lost` and `won`).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Answer {
    /// What it says.
    pub says: Says,
    /// Time it takes.
    pub takes: StdDuration,
}

/// How calls of a release turn out, as its counters tell.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallQuality {
    /// Share of bad calls.
    #[serde(default)]
    pub bad: f64,
    /// Share of calls above each bound of the histogram's buckets: `{"700": 0.4, "900": 0.08}`.
    #[serde(default)]
    pub above: std::collections::BTreeMap<String, f64>,
}

impl CallQuality {
    /// Share of calls above a bound; the nearest lower bound that is known counts.
    pub fn above(&self, bound: f64) -> f64 {
        let mut known: Vec<(f64, f64)> = self.above.iter().filter_map(|(b, share)| Some((b.parse().ok()?, *share))).collect();
        known.sort_by(|a, b| a.0.total_cmp(&b.0));
        known.iter().rev().find(|(b, _)| *b <= bound * 1.000_001).map_or(1.0, |(_, share)| *share)
    }

    /// What is wrong with it.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let shares = std::iter::once(&self.bad).chain(self.above.values());
        if shares.into_iter().any(|s| !(0.0..=1.0).contains(s)) {
            Some("a share of calls is between 0 and 1")
        } else if self.above.keys().any(|b| b.parse::<f64>().is_err()) {
            Some("`above` names bounds of buckets, which are numbers")
        } else {
            None
        }
    }
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq)]
pub enum Says {
    /// Counters of the calls that the world's pods have answered.
    Counters,
    /// A value for the gate's conditions.
    Value(Value),
    /// The provider fails.
    Error(String),
    /// The provider has nothing.
    NoData(String),
    /// A judge's verdict and its sentence.
    Verdict(JudgeWord, String),
    /// The same eval scenarios on both versions.
    Pairs(Pairs),
}

/// A judge's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum JudgeWord {
    /// Nothing wrong.
    Pass,
    /// Something wrong.
    Fail,
    /// Not decided.
    Unsure,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Raw {
    Number(serde_json::Number),
    Map(RawMap),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawMap {
    value: Option<Value>,
    error: Option<String>,
    no_data: Option<String>,
    verdict: Option<JudgeWord>,
    reason: Option<String>,
    pairs: Option<i64>,
    #[serde(default)]
    lost: i64,
    #[serde(default)]
    won: i64,
    takes: Option<Duration>,
}

impl TryFrom<Raw> for Answer {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let map = match raw {
            Raw::Number(number) => return Ok(Self { says: Says::Value(Value::Number(number)), takes: StdDuration::ZERO }),
            Raw::Map(map) => map,
        };
        let pairs = map.pairs.map(|pairs| Pairs { pairs, stable_only: map.lost, canary_only: map.won });
        let compared = pairs.unwrap_or_default();
        if compared.stable_only < 0 || compared.canary_only < 0 || map.lost.saturating_add(map.won) > compared.pairs {
            return Err("of `pairs` scenarios the canary can have `lost` and `won` no more than all".into());
        }
        let says = match (map.value, map.error, map.no_data, map.verdict, map.reason, pairs) {
            (Some(value), None, None, None, None, None) => Says::Value(value),
            (None, Some(error), None, None, None, None) => Says::Error(error),
            (None, None, Some(why), None, None, None) => Says::NoData(why),
            (None, None, None, Some(verdict), reason, None) => Says::Verdict(verdict, reason.unwrap_or_default()),
            (None, None, None, None, None, Some(pairs)) => Says::Pairs(pairs),
            _ => {
                return Err(
                    "an answer is a number, or exactly one of value, error, noData, verdict (with reason), pairs (with lost, won)".into()
                );
            }
        };
        Ok(Self { says, takes: map.takes.map_or(StdDuration::ZERO, std_duration) })
    }
}

impl Answers {
    /// The answer to a measurement: the `index`-th one (from 0) of the gate, `since` its first one.
    pub fn at(&self, index: usize, since: StdDuration) -> Option<&Answer> {
        let items = match self {
            Self::Always(answer) => return Some(answer),
            Self::Sequence(items) => items,
        };
        let timed = items.iter().rev().find_map(|item| match item {
            Item::From(from) if std_duration(from.after) <= since => Some(&from.answer),
            _ => None,
        });
        timed.or_else(|| match items.get(index).or_else(|| items.last())? {
            Item::Once(answer) => Some(answer),
            Item::From(_) => None,
        })
    }

    /// What is wrong with them.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let Self::Sequence(items) = self else { return None };
        let timed: Vec<&From> = items.iter().filter_map(|i| if let Item::From(from) = i { Some(from) } else { None }).collect();
        if items.is_empty() {
            Some("the list of answers is empty")
        } else if !timed.is_empty() && timed.len() != items.len() {
            Some("either every entry of a list has `after`, or none has")
        } else if timed.first().is_some_and(|first| !std_duration(first.after).is_zero()) {
            Some("the first entry begins at `after: 0s`")
        } else if timed.windows(2).any(|pair| std_duration(pair[0].after) >= std_duration(pair[1].after)) {
            Some("`after` has to grow from entry to entry")
        } else {
            None
        }
    }
}
