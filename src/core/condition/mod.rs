//! Conditions of threshold gates: CEL over `result`.
//!
//! `result` is a list where the expression treats it as one (`result[0]`, `size(result)`, `result.all(x, ...)`), else a
//! scalar. Numbers of both kinds mix freely. A condition never panics and its cost is bounded: its length, its
//! nesting and the values it may see are limited, and only what [`check`](mod@check) knows is accepted.

mod check;
mod document;
mod functions;

pub use document::{Computed, Formula, Predicate};

use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::parser::{Expression, Parser};
use cel::{ExecutionError, Value as Cel};
use serde_json::Value;

use crate::api::run::Verdict;
use check::Scope;

/// Longest expression, in bytes.
const MAX_LENGTH: usize = 1024;
/// Deepest nesting of brackets and of repeated prefix operators.
const MAX_NESTING: usize = 24;
/// Stack of the expression engine, in bytes.
const STACK: usize = 16 << 20;
/// Most values in a list.
const MAX_VALUES: usize = 1000;
/// Longest value that a message shows, in characters.
const MAX_SHOWN: usize = 120;

/// Why a condition cannot be compiled or gives no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// It is not an expression that is understood here.
    #[error("`{source_text}` is not a valid condition: {reason}")]
    Compile {
        /// The expression.
        source_text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is valid, and gives no answer for this value.
    #[error("`{source_text}` cannot be applied to {value}: {reason}")]
    Evaluate {
        /// The expression.
        source_text: String,
        /// The value, shortened.
        value: String,
        /// Why not.
        reason: String,
    },
}

/// What a condition says about a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    True,
    False,
    /// Nothing: the value is NaN or missing, and the expression does not provide for that.
    Unknown(String),
}

/// A compiled condition.
#[derive(Clone, Debug)]
pub struct Condition {
    source: String,
    expression: Expression,
    uses: check::Uses,
}

impl Condition {
    /// Compiles an expression.
    ///
    /// # Errors
    /// When it is too long or nested too deeply, is not CEL, or uses names or constructs that have no meaning here.
    pub fn compile(source: &str) -> Result<Self, ConditionError> {
        compiled(source, || Self::parse(source))
    }

    fn parse(source: &str) -> Result<Self, ConditionError> {
        let (expression, uses) = parse(source, Scope::Value)?;
        Ok(Self { source: source.into(), expression, uses })
    }

    /// Whether `result` is bound as a list.
    pub fn wants_list(&self) -> bool {
        self.uses.list
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    fn ask(&self, value: &Value) -> Result<Answer, ConditionError> {
        let fail = |reason: String| ConditionError::Evaluate { source_text: self.source.clone(), value: value_text(value), reason };
        let values = match value {
            Value::Array(items) if items.len() > MAX_VALUES => {
                return Err(fail(format!("{} values are more than {MAX_VALUES}; aggregate them", items.len())));
            }
            Value::Array(items) => items.iter().map(scalar).collect::<Result<Vec<_>, _>>().map_err(fail)?,
            other => vec![scalar(other).map_err(fail)?],
        };
        if values.iter().any(functions::is_nan) && !self.uses.handles_nan {
            return Ok(Answer::Unknown("the value is NaN".into()));
        }
        if values.iter().all(|v| matches!(v, Cel::Null)) && !self.uses.handles_missing {
            return Ok(Answer::Unknown("there is no value".into()));
        }
        let bound = match (self.uses.list, values.len()) {
            (true, _) => Cel::List(values.into()),
            (false, 0) => Cel::Null,
            (false, 1) => values.into_iter().next().unwrap_or(Cel::Null),
            (false, n) => {
                return Err(fail(format!("there are {n} values where one is needed; aggregate them in the query or use result[0]")));
            }
        };
        match Cel::resolve(&self.expression, &functions::context(bound)) {
            Ok(Cel::Bool(true)) => Ok(Answer::True),
            Ok(Cel::Bool(false)) => Ok(Answer::False),
            Ok(other) => Err(fail(format!("it gives {}, not true or false", functions::kind(&other)))),
            Err(ExecutionError::FunctionError { message, .. }) if message == functions::NAN => {
                Ok(Answer::Unknown("the value is NaN".into()))
            }
            Err(error) => Err(fail(functions::explain(&error))),
        }
    }
}

/// Parses and checks an expression; to be called within [`guarded`].
fn parse(source: &str, scope: Scope<'_>) -> Result<(Expression, check::Uses), ConditionError> {
    let fail = |reason: String| ConditionError::Compile { source_text: shorten(source), reason };
    limits(source).map_err(fail)?;
    let mut expression = Parser::default().parse(source).map_err(|errors| fail(syntax_message(&errors)))?;
    let uses = check::check(&mut expression, scope).map_err(fail)?;
    Ok((expression, uses))
}

fn compiled<T>(source: &str, parse: impl FnOnce() -> Result<T, ConditionError>) -> Result<T, ConditionError> {
    guarded(parse).unwrap_or_else(|| {
        let reason = "the parser gave up on it; write it more simply".into();
        Err(ConditionError::Compile { source_text: shorten(source), reason })
    })
}

/// Decides one measurement. A failure condition that is true wins; a success condition alone fails what it does not
/// accept, a failure condition alone passes what it does not refuse; with both, neither being true is Inconclusive.
/// NaN and missing values are Inconclusive unless the expression provides for them. The message names value and
/// condition.
pub fn evaluate(success: Option<&str>, failure: Option<&str>, value: &Value) -> (Verdict, String) {
    match guarded(|| decide(success, failure, value)) {
        Some(Ok(decision)) => decision,
        Some(Err(error)) => (Verdict::Error, error.to_string()),
        None => (Verdict::Error, format!("the evaluation of {} gave up", success.or(failure).unwrap_or_default())),
    }
}

fn decide(success: Option<&str>, failure: Option<&str>, value: &Value) -> Result<(Verdict, String), ConditionError> {
    let success = success.map(Condition::parse).transpose()?;
    let failure = failure.map(Condition::parse).transpose()?;
    let shown = value_text(value);
    let failed = failure.as_ref().map(|c| c.ask(value)).transpose()?;
    let passed = success.as_ref().map(|c| c.ask(value)).transpose()?;
    let (success, failure) = (success.as_ref().map_or("", Condition::source), failure.as_ref().map_or("", Condition::source));
    Ok(match (failed, passed) {
        (Some(Answer::True), _) => (Verdict::Fail, format!("value {shown} meets the failure condition {failure}")),
        (Some(Answer::Unknown(why)), _) | (_, Some(Answer::Unknown(why))) => {
            let condition = if success.is_empty() { failure } else { success };
            (Verdict::Inconclusive, format!("value {shown} does not decide {condition}: {why}"))
        }
        (_, Some(Answer::True)) => (Verdict::Pass, format!("value {shown} meets {success}")),
        (None, Some(Answer::False)) => (Verdict::Fail, format!("value {shown} does not meet {success}")),
        (Some(Answer::False), None) => (Verdict::Pass, format!("value {shown} does not meet the failure condition {failure}")),
        (Some(Answer::False), Some(Answer::False)) => {
            (Verdict::Inconclusive, format!("value {shown} meets neither {success} nor the failure condition {failure}"))
        }
        (None, None) => (Verdict::Error, "the gate has neither successCondition nor failureCondition".into()),
    })
}

/// Whether one of the conditions treats `result` as a list, so that several values are welcome.
pub fn wants_list(success: Option<&str>, failure: Option<&str>) -> bool {
    [success, failure].into_iter().flatten().filter_map(|c| Condition::compile(c).ok()).any(|c| c.wants_list())
}

/// A value as a person reads it: numbers plainly, the only item of a list as itself, text without quotes, long things
/// shortened.
pub fn value_text(value: &Value) -> String {
    let text = match value {
        Value::String(s) => s.clone(),
        Value::Array(items) if items.len() == 1 => value_text(&items[0]),
        Value::Array(items) => format!("[{}]", items.iter().take(MAX_SHOWN).map(value_text).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    };
    shorten(&text)
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// A JSON scalar for CEL. Prometheus writes NaN and infinities as text, JSON has no numbers for them.
fn scalar(value: &Value) -> Result<Cel, String> {
    Ok(match value {
        Value::Null => Cel::Null,
        Value::Bool(b) => Cel::Bool(*b),
        Value::Number(n) => Cel::Float(n.as_f64().unwrap_or(f64::NAN)),
        Value::String(s) => match s.as_str() {
            "NaN" => Cel::Float(f64::NAN),
            "Inf" | "+Inf" => Cel::Float(f64::INFINITY),
            "-Inf" => Cel::Float(f64::NEG_INFINITY),
            text => Cel::String(text.to_owned().into()),
        },
        Value::Array(_) | Value::Object(_) => return Err("it is not a number, a text, a boolean or a list of these".into()),
    })
}

/// Runs a piece of the expression engine. Its parser is generated code with asserts of its own, and takes some 100 kB of
/// stack a bracket when built without optimization: a panic in it is a bad expression and not a bad operator, and it
/// gets a stack of its own (address space, of which only what is used becomes memory). `None` when it panicked.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(|| stacker::grow(STACK, work))).ok()
}

/// Refuses what could exhaust the parser's stack.
fn limits(source: &str) -> Result<(), String> {
    if source.trim().is_empty() {
        return Err("it is empty".into());
    }
    if source.len() > MAX_LENGTH {
        return Err(format!("it is longer than {MAX_LENGTH} bytes"));
    }
    let (mut depth, mut prefixes, mut choices) = (0_usize, 0_usize, 0_usize);
    for c in source.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '?' => choices += 1,
            _ => {}
        }
        prefixes = match c {
            '!' | '-' => prefixes + 1,
            c if c.is_whitespace() => prefixes,
            _ => 0,
        };
        if depth > MAX_NESTING || prefixes > MAX_NESTING || choices > MAX_NESTING {
            return Err(format!("it is nested more than {MAX_NESTING} deep"));
        }
    }
    Ok(())
}

/// The first syntax error in one line.
fn syntax_message(errors: &cel::ParseErrors) -> String {
    let Some(first) = errors.errors.first() else { return "syntax error".into() };
    let text = first.msg.lines().next().unwrap_or("syntax error");
    format!("column {}: {}", first.pos.1.max(0) + 1, shorten(text))
}

#[cfg(test)]
mod tests;
