//! What the provider of a gate would answer about a release with nothing wrong, and about one that the gate has to stop.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use serde_json::{Number, Value, json};

use super::answers::{Answer, Answers, CallQuality, JudgeWord, Says};
use crate::api::analysis::{Gate, Judge, Paired, Threshold};
use crate::api::run::Verdict;
use crate::core::condition;
use crate::core::gates::Pairs;
use crate::core::gates::calls::{Needs, Question};

/// Share of bad calls of a release that gates stop.
const MOST: f64 = 0.98;
/// Share of bad calls of any release, where two versions are compared; it halves from bound to bound of a histogram.
const SOME: f64 = 0.4;
/// Time that an eval suite or a judge takes.
const TAKES: Duration = Duration::from_secs(20);

static NUMBERS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\d+(?:\.\d+)?").unwrap_or_else(|e| unreachable!("{e}")));

/// What is said about a release.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// By the gate's provider.
    Answers(Answers),
    /// By the counters of its calls.
    Counted(CallQuality),
}

impl Said {
    fn answer(says: Says, takes: Duration) -> Self {
        Self::Answers(Answers::Always(Answer { says, takes }))
    }
}

/// What is said about a release with nothing wrong, and about one that this gate has to stop.
///
/// # Errors
/// Why nothing can be invented.
pub(super) fn invent(gate: &Gate) -> Result<[Said; 2], String> {
    if let Some(question) = Question::of(gate) {
        let question = question.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        return Ok([false, true].map(|bad| Said::Counted(calls(&question, bad))));
    }
    match (&gate.threshold, &gate.judge, &gate.paired) {
        (Some(threshold), None, None) => values(threshold),
        (None, Some(judge), None) => Ok(verdicts(judge)),
        (None, None, Some(paired)) => Ok(pairs(paired)),
        _ => Err("the gate is none that can be played".into()),
    }
}

/// How calls turn out. Of a gate that looks at the canary alone no call is bad unless the release is.
fn calls(question: &Question<'_>, bad: bool) -> CallQuality {
    let share = |halvings: i32| match bad {
        true => MOST,
        false if question.one_arm() => 0.0,
        false => SOME * 0.5_f64.powi(halvings),
    };
    let above = match &question.needs {
        Needs::Counters { .. } => BTreeMap::new(),
        Needs::Histogram { bounds, .. } => bounds.iter().zip(0..).map(|(bound, i)| (bound.to_string(), share(i))).collect(),
    };
    CallQuality { bad: share(0), above }
}

/// Values that the conditions accept and refuse, found by trying numbers near those that they name.
fn values(threshold: &Threshold) -> Result<[Said; 2], String> {
    let (success, failure) = (threshold.success_condition.as_deref(), threshold.failure_condition.as_deref());
    let text = [success, failure].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let list = condition::wants_list(success, failure);
    let verdict = |value: &Value| condition::evaluate(success, failure, &if list { json!([value]) } else { value.clone() }).0;
    let find = |wanted: Verdict| {
        let found = candidates(&text).find(|value| verdict(value) == wanted);
        found.ok_or_else(|| format!("no value was found for which `{text}` says {wanted:?}: write a scenario that names one"))
    };
    let takes = if threshold.provider.web.is_some() { TAKES } else { Duration::ZERO };
    let [good, bad] = [find(Verdict::Pass)?, find(Verdict::Fail)?];
    Ok([good, bad].map(|value| Said::answer(Says::Value(value), takes)))
}

/// Numbers around those of a text, then a few others.
fn candidates(text: &str) -> impl Iterator<Item = Value> {
    // `result[0]` names a place, not a value.
    let text = text.replace("[0]", "");
    let named: Vec<f64> = NUMBERS.find_iter(&text).filter_map(|number| number.as_str().parse().ok()).collect();
    let near = named.into_iter().flat_map(|n| [0.8 * n, 1.04 * n, n, 1.3 * n, n - 1.0, n + 1.0]);
    let rounded = near.chain([0.0, 1.0]).map(|n| (1e6 * n).round() / 1e6);
    rounded.filter_map(Number::from_f64).map(Value::Number).chain([json!(true), json!(false)])
}

fn verdicts(judge: &Judge) -> [Said; 2] {
    let metrics = crate::core::judge::metrics::metrics(&judge.evidence);
    let named = metrics.first().map_or("errors", |metric| metric.name.as_str());
    let pass = Says::Verdict(JudgeWord::Pass, format!("{named}: as on stable."));
    let fail = Says::Verdict(JudgeWord::Fail, format!("{named}: much more than on stable."));
    [pass, fail].map(|says| Said::answer(says, TAKES))
}

/// So many scenarios that one measurement is enough for either.
#[allow(clippy::cast_possible_truncation)] // a few thousand at most
fn pairs(paired: &Paired) -> [Said; 2] {
    let enough = (8.0 / paired.margin.max(0.001)).ceil() as i64;
    let all = enough.max(paired.min_pairs);
    [0, all / 4].map(|lost| Said::answer(Says::Pairs(Pairs { pairs: all, stable_only: lost, canary_only: 0 }), TAKES))
}
