//! What is read from an answer: a value, or two results for every scenario, and facts about the suite.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

use super::Wanted;
use crate::api::analysis::{Paired, SuitePaths, Threshold, WebProvider};
use crate::api::run::Suite;
use crate::core::condition::{Computed, Formula};
use crate::core::gates::{Eval, Pairs, Reading};
use crate::sources::Progress;
use crate::sources::json_path::JsonPath;

/// Longest text that is taken as a value.
const MAX_TEXT: usize = 256;
/// Longest list that is taken as a value.
const MAX_LIST: usize = 1000;
/// Longest fact about a suite.
const MAX_FACT: usize = 128;
/// Most scenarios in an answer.
const MAX_SCENARIOS: usize = 10_000;

/// Reads answers.
pub(super) struct Reader {
    value: Source,
    suite: Option<Facts>,
}

enum Source {
    /// The value at a path; texts that look like numbers are welcome where a condition compares text.
    Path { path: JsonPath, text_wanted: bool },
    /// A value computed from several.
    Computed { values: Vec<(String, JsonPath)>, formula: Formula },
    /// Numbers of scenarios.
    Counts { stable_only: JsonPath, canary_only: JsonPath, total: JsonPath },
    /// The scenarios themselves.
    Scenarios { path: JsonPath, stable: JsonPath, canary: JsonPath },
}

struct Facts {
    name: Option<JsonPath>,
    version: Option<JsonPath>,
    seed: Option<JsonPath>,
    dataset: Option<JsonPath>,
}

impl Reader {
    /// Parses every path and expression.
    pub(super) fn new(wanted: Wanted<'_>, web: &WebProvider) -> Result<Self, String> {
        let value = match wanted {
            Wanted::Value(threshold) => Source::value(threshold, web)?,
            Wanted::Pairs(paired) => Source::pairs(paired)?,
        };
        Ok(Self { value, suite: web.suite.as_ref().map(Facts::new).transpose()? })
    }

    /// The measurement that the answer holds.
    pub(super) fn read(&self, document: &Value) -> Result<Progress, String> {
        let reading = self.value.read(document)?;
        let suite = self.suite.as_ref().map(|s| s.read(document)).transpose()?;
        Ok(match (reading, suite) {
            (Reading::Value(value), None) => Progress::Value(value),
            (Reading::NoData(why), None) => Progress::NoData(why),
            (reading, suite) => Progress::Eval(Eval { reading, suite }),
        })
    }
}

impl Source {
    fn value(threshold: &Threshold, web: &WebProvider) -> Result<Self, String> {
        let Some(result) = &web.result else {
            return Ok(Self::Path { path: parse("jsonPath", &web.json_path)?, text_wanted: compares_text(threshold) });
        };
        let parsed = web.values.iter().map(|(name, path)| Ok((name.clone(), parse(&format!("values.{name}"), path)?)));
        let values = parsed.collect::<Result<Vec<_>, String>>()?;
        let formula = Formula::compile(result, &web.values.keys().cloned().collect()).map_err(|e| format!("result: {e}"))?;
        Ok(Self::Computed { values, formula })
    }

    fn pairs(paired: &Paired) -> Result<Self, String> {
        match (&paired.scenarios, &paired.stable_only, &paired.canary_only, &paired.total) {
            (Some(s), None, None, None) => Ok(Self::Scenarios {
                path: parse("scenarios.path", &s.path)?,
                stable: parse("scenarios.stable", &s.stable)?,
                canary: parse("scenarios.canary", &s.canary)?,
            }),
            (None, Some(stable), Some(canary), Some(total)) => Ok(Self::Counts {
                stable_only: parse("stableOnly", stable)?,
                canary_only: parse("canaryOnly", canary)?,
                total: parse("total", total)?,
            }),
            _ => Err("set either scenarios, or stableOnly, canaryOnly and total".into()),
        }
    }

    fn read(&self, document: &Value) -> Result<Reading, String> {
        match self {
            Self::Path { path, text_wanted } => {
                let value = path.one(document)?;
                let value = checked(value, *text_wanted).map_err(|e| format!("jsonPath {:?} {e}", path.text()))?;
                Ok(Reading::Value(value.clone()))
            }
            Self::Computed { values, formula } => {
                let found = values.iter().map(|(name, path)| Ok((name.clone(), named(name, path, document)?)));
                compute(formula, &found.collect::<Result<_, String>>()?)
            }
            Self::Counts { stable_only, canary_only, total } => {
                let count = |name: &str, path: &JsonPath| {
                    let value = path.one(document).map_err(|e| format!("{name}: {e}"))?;
                    whole(value).map_err(|e| format!("{name} {:?} {e}", path.text()))
                };
                counted(Pairs {
                    pairs: count("total", total)?,
                    stable_only: count("stableOnly", stable_only)?,
                    canary_only: count("canaryOnly", canary_only)?,
                })
            }
            Self::Scenarios { path, stable, canary } => compare(path, stable, canary, document),
        }
    }
}

impl Facts {
    fn new(paths: &SuitePaths) -> Result<Self, String> {
        let path = |name: &str, text: &Option<String>| text.as_ref().map(|t| parse(&format!("suite.{name}"), t)).transpose();
        Ok(Self {
            name: path("name", &paths.name)?,
            version: path("version", &paths.version)?,
            seed: path("seed", &paths.seed)?,
            dataset: path("dataset", &paths.dataset)?,
        })
    }

    fn read(&self, document: &Value) -> Result<Suite, String> {
        let fact = |name: &str, path: &Option<JsonPath>| {
            let Some(path) = path else { return Ok(None) };
            let value = path.one(document).map_err(|e| format!("suite.{name}: {e}"))?;
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(n) => n.to_string(),
                Value::Bool(b) => b.to_string(),
                _ => return Err(format!("suite.{name} {:?} is not a text or a number in the answer", path.text())),
            };
            if text.chars().count() > MAX_FACT || text.chars().any(char::is_control) {
                return Err(format!("suite.{name} {:?} is longer than {MAX_FACT} characters or has control characters", path.text()));
            }
            Ok(Some(text))
        };
        Ok(Suite {
            name: fact("name", &self.name)?,
            version: fact("version", &self.version)?,
            seed: fact("seed", &self.seed)?,
            dataset: fact("dataset", &self.dataset)?,
        })
    }
}

fn parse(field: &str, text: &str) -> Result<JsonPath, String> {
    JsonPath::parse(text).map_err(|e| format!("{field} {e}"))
}

/// A value for a formula: the only one, or the list of all that the path finds.
fn named(name: &str, path: &JsonPath, document: &Value) -> Result<Value, String> {
    let at = |e: String| format!("values.{name}: jsonPath {:?} {e}", path.text());
    if !path.is_singular() {
        let found = path.all(document).map_err(|e| format!("values.{name}: {e}"))?;
        return list(&found).map_err(at);
    }
    match path.one(document).map_err(|e| format!("values.{name}: {e}"))? {
        Value::Array(items) => list(&items.iter().collect::<Vec<_>>()).map_err(at),
        other => checked(other, true).cloned().map_err(at),
    }
}

fn list(found: &[&Value]) -> Result<Value, String> {
    if found.len() > MAX_LIST {
        return Err(format!("finds {} values; the most is {MAX_LIST}", found.len()));
    }
    match found.iter().position(|v| !matches!(v, Value::Number(_) | Value::Bool(_) | Value::String(_))) {
        None => Ok(found.iter().map(|&v| v.clone()).collect()),
        Some(i) => Err(format!("finds an item ({i}) that is no number, boolean or text; select a field of each item")),
    }
}

fn compute(formula: &Formula, values: &BTreeMap<String, Value>) -> Result<Reading, String> {
    Ok(match formula.compute(values).map_err(|e| format!("result: {e}"))? {
        Computed::Number(n) => Reading::Value(Number::from_f64(n).map_or(Value::Null, Value::Number)),
        Computed::Bool(b) => Reading::Value(b.into()),
        Computed::NaN => Reading::NoData("the result is 0/0: nothing was counted".into()),
    })
}

fn counted(pairs: Pairs) -> Result<Reading, String> {
    if pairs.stable_only.saturating_add(pairs.canary_only) > pairs.pairs {
        return Err("stableOnly and canaryOnly together are more than total".into());
    }
    Ok(if pairs.pairs == 0 { Reading::NoData("no scenario ran".into()) } else { Reading::Pairs(pairs) })
}

fn compare(path: &JsonPath, stable: &JsonPath, canary: &JsonPath, document: &Value) -> Result<Reading, String> {
    let mut entries = path.all(document).map_err(|e| format!("scenarios.path: {e}"))?;
    if let (true, [Value::Array(items)]) = (path.is_singular(), entries.as_slice()) {
        entries = items.iter().collect();
    }
    if entries.len() > MAX_SCENARIOS {
        return Err(format!("scenarios.path finds {} entries; the most is {MAX_SCENARIOS}", entries.len()));
    }
    let mut pairs = Pairs::default();
    for (i, entry) in entries.into_iter().enumerate() {
        let passed = |arm: &str, path: &JsonPath| {
            let value = path.one(entry).map_err(|e| format!("scenario {i}: {arm}: {e}"))?;
            verdict(value).ok_or_else(|| format!("scenario {i}: {arm} {:?} is not true, false, 1 or 0", path.text()))
        };
        let (stable, canary) = (passed("stable", stable)?, passed("canary", canary)?);
        pairs.pairs += 1;
        pairs.stable_only += i64::from(stable && !canary);
        pairs.canary_only += i64::from(canary && !stable);
    }
    counted(pairs)
}

fn verdict(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(passed) => Some(*passed),
        Value::Number(n) if n.as_f64() == Some(1.0) => Some(true),
        Value::Number(n) if n.as_f64() == Some(0.0) => Some(false),
        _ => None,
    }
}

/// A number of scenarios.
fn whole(value: &Value) -> Result<i64, String> {
    let number = value.as_i64().or_else(|| value.as_f64().filter(|n| n.fract() == 0.0).and_then(|n| format!("{n:.0}").parse().ok()));
    match number {
        Some(n) if (0..=1_000_000_000).contains(&n) => Ok(n),
        Some(_) => Err("is out of range".into()),
        None if value.is_string() => Err("is a text in the answer, not a whole number".into()),
        None => Err("is not a whole number in the answer".into()),
    }
}

/// Whether a condition holds a text to compare with; then a numeric text is meant as text.
fn compares_text(threshold: &Threshold) -> bool {
    [&threshold.success_condition, &threshold.failure_condition].into_iter().flatten().any(|c| c.contains(['"', '\'']))
}

/// A value that conditions can use. Text is never taken for a number: `"0.95"` is text.
fn checked(value: &Value, text_wanted: bool) -> Result<&Value, String> {
    match value {
        Value::Number(_) | Value::Bool(_) => Ok(value),
        Value::Null => Err("is null in the answer".into()),
        Value::Object(_) => Err("is an object in the answer; select a number, a boolean, a text or a list of numbers".into()),
        Value::Array(list) if list.len() > MAX_LIST => Err(format!("is a list of {} items; the most is {MAX_LIST}", list.len())),
        Value::Array(list) => match list.iter().position(|v| !v.is_number()) {
            None => Ok(value),
            Some(i) => Err(format!("is a list whose item {i} is not a number; quoted numbers are text")),
        },
        Value::String(text) if text.chars().count() > MAX_TEXT => Err(format!("is a text of more than {MAX_TEXT} characters")),
        Value::String(text) if text.chars().any(char::is_control) => Err("is a text with line breaks or other control characters".into()),
        Value::String(text) if !text_wanted && text.trim().parse::<f64>().is_ok() => {
            Err("is a number in quotes, which is text and not a number; answer with the bare number".into())
        }
        Value::String(_) => Ok(value),
    }
}
