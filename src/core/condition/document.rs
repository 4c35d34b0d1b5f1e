//! Expressions over an eval harness's answer: whether a run is done, and what came of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cel::objects::Key;
use cel::parser::Expression;
use cel::{ExecutionError, Value as Cel};
use serde_json::Value;

use super::check::Scope;
use super::{ConditionError, MAX_VALUES, compiled, functions, guarded, parse, scalar, shorten};

/// True or false about a JSON document called `result`: `result.status == 'completed'`.
#[derive(Clone, Debug)]
pub struct Predicate {
    source: String,
    expression: Expression,
}

impl Predicate {
    /// Compiles an expression.
    ///
    /// # Errors
    /// As [`super::Condition::compile`].
    pub fn compile(source: &str) -> Result<Self, ConditionError> {
        compiled(source, || {
            let (expression, _) = parse(source, Scope::Document)?;
            Ok(Self { source: source.into(), expression })
        })
    }

    /// Whether it is true of the document.
    ///
    /// # Errors
    /// A field that is missing, operands that do not go together, an answer that is not true or false. The reason holds
    /// nothing of the document.
    pub fn holds(&self, document: &Value) -> Result<bool, String> {
        let fail = |reason: &str| Err(format!("`{}` cannot be applied to the answer: {reason}", shorten(&self.source)));
        match guarded(|| Cel::resolve(&self.expression, &functions::context(whole(document)))) {
            Some(Ok(Cel::Bool(holds))) => Ok(holds),
            Some(Ok(other)) => fail(&format!("it gives {}, not true or false", functions::kind(&other))),
            Some(Err(error)) => fail(&functions::explain(&error)),
            None => fail("the evaluation gave up"),
        }
    }
}

/// What a formula gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Computed {
    /// A number that is not NaN, nor infinite.
    Number(f64),
    /// True or false.
    Bool(bool),
    /// 0/0: nothing was counted.
    NaN,
}

/// A value computed from named values: `double(pass) / double(pass + fail)`.
#[derive(Clone, Debug)]
pub struct Formula {
    source: String,
    expression: Expression,
}

impl Formula {
    /// Compiles an expression over these names.
    ///
    /// # Errors
    /// As [`super::Condition::compile`].
    pub fn compile(source: &str, names: &BTreeSet<String>) -> Result<Self, ConditionError> {
        compiled(source, || {
            let (expression, _) = parse(source, Scope::Names(names))?;
            Ok(Self { source: source.into(), expression })
        })
    }

    /// Computes it. Values are scalars, or lists of at most 1000 scalars.
    ///
    /// # Errors
    /// Operands that do not go together, or a result that is no number. The reason names the values that are texts, as a
    /// number in quotes is the usual cause, and holds no value.
    pub fn compute(&self, values: &BTreeMap<String, Value>) -> Result<Computed, String> {
        let fail = |reason: String| Err(format!("`{}` cannot be computed: {reason}{}", shorten(&self.source), texts(values)));
        let bound = values.iter().map(|(name, value)| Ok((name.as_str(), bind(name, value)?))).collect::<Result<Vec<_>, String>>();
        let bound = match bound {
            Ok(bound) => bound,
            Err(reason) => return fail(reason),
        };
        #[allow(clippy::cast_precision_loss)] // counts of a suite
        match guarded(|| Cel::resolve(&self.expression, &functions::with_names(bound))) {
            Some(Ok(Cel::Float(n))) if n.is_nan() => Ok(Computed::NaN),
            Some(Ok(Cel::Float(n))) if n.is_finite() => Ok(Computed::Number(n)),
            Some(Ok(Cel::Float(_))) => fail("the result is infinite".into()),
            Some(Ok(Cel::Int(n))) => Ok(Computed::Number(n as f64)),
            Some(Ok(Cel::Bool(b))) => Ok(Computed::Bool(b)),
            Some(Ok(other)) => fail(format!("it gives {}, not a number", functions::kind(&other))),
            Some(Err(ExecutionError::FunctionError { message, .. })) if message == functions::NAN => Ok(Computed::NaN),
            Some(Err(error)) => fail(functions::explain(&error)),
            None => fail("the evaluation gave up".into()),
        }
    }
}

fn bind(name: &str, value: &Value) -> Result<Cel, String> {
    let named = |reason: String| format!("`{name}`: {reason}");
    match value {
        Value::Array(items) if items.len() > MAX_VALUES => Err(named(format!("{} values are more than {MAX_VALUES}", items.len()))),
        Value::Array(items) => Ok(Cel::List(items.iter().map(scalar).collect::<Result<Vec<_>, _>>().map_err(named)?.into())),
        other => scalar(other).map_err(named),
    }
}

/// Says which values are texts.
fn texts(values: &BTreeMap<String, Value>) -> String {
    let names: Vec<String> = values.iter().filter(|(_, v)| v.is_string()).map(|(name, _)| format!("`{name}`")).collect();
    match names.len() {
        0 => String::new(),
        _ => format!(" ({} is text in the answer; a number in quotes is read with double(...))", names.join(", ")),
    }
}

/// A JSON document for CEL. Its depth is bounded by the JSON parser.
fn whole(document: &Value) -> Cel {
    match document {
        Value::Array(items) => Cel::List(items.iter().map(whole).collect::<Vec<_>>().into()),
        Value::Object(fields) => {
            let map: HashMap<Key, Cel> = fields.iter().map(|(name, value)| (Key::from(name.as_str()), whole(value))).collect();
            Cel::Map(cel::objects::Map { map: Arc::new(map) })
        }
        // "NaN" is a text here: a status may be called anything.
        Value::String(text) => Cel::String(text.clone().into()),
        other => scalar(other).unwrap_or(Cel::Null),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn predicates_read_fields() {
        let document =
            json!({"run": {"status": "IN QUEUE", "progress": 0.5, "error": null}, "calls": [{"state": "done"}, {"state": "busy"}]});
        for (source, holds) in [
            ("result.run.status == 'COMPLETED'", false),
            ("result.run.status in ['IN QUEUE', 'PENDING']", true),
            ("result.run.progress >= 1", false),
            ("has(result.run.error) && result.run.error != null", false),
            ("has(result.score)", false),
            ("result.calls.all(c, c.state == 'done')", false),
            ("result.calls.exists(c, c.state == 'done')", true),
            ("size(result.calls) == 2", true),
            ("default(result.score, 1) == 1", true),
        ] {
            assert_eq!(Predicate::compile(source).unwrap().holds(&document), Ok(holds), "{source}");
        }
        for (source, part) in [
            ("result.state == 'done'", "no field `state`"),
            ("result.run.status", "gives a text"),
            ("result.run.status > 3", "do not go together"),
        ] {
            let reason = Predicate::compile(source).unwrap().holds(&document).unwrap_err();
            assert!(reason.contains(part) && !reason.contains("QUEUE"), "{source}: {reason}");
        }
        assert_eq!(Predicate::compile("result[0].ok").unwrap().holds(&json!([{"ok": true}])), Ok(true));
    }

    #[test]
    fn predicates_that_do_not_compile() {
        for (source, part) in [
            ("", "empty"),
            ("result.status ==", "not a valid condition"),
            ("status == 'done'", "`status` is not known"),
            ("true", "does not use `result`"),
            ("result.a.all(x, result.b.exists(y, y == x))", "nested"),
            ("result.a.all(x, x in result.b)", "in a loop over"),
            ("result.status.lowerAscii() == 'done'", "is not known"),
            ("{{args.x}} == result.a", "not a valid condition"),
        ] {
            let error = Predicate::compile(source).unwrap_err().to_string();
            assert!(error.contains(part), "{source}: {error}");
        }
    }

    fn compute(source: &str, values: Value) -> Result<Computed, String> {
        let values: BTreeMap<String, Value> = serde_json::from_value(values).unwrap();
        Formula::compile(source, &values.keys().cloned().collect()).map_err(|e| e.to_string())?.compute(&values)
    }

    #[test]
    fn formulas() {
        let rate = "double(pass) / double(pass + fail)";
        for (source, values, computed) in [
            (rate, json!({"pass": 19, "fail": 1}), Computed::Number(0.95)),
            (rate, json!({"pass": 0, "fail": 0}), Computed::NaN),
            ("pass / (pass + fail)", json!({"pass": 19, "fail": 1}), Computed::Number(0.95)),
            ("size(good) / size(all)", json!({"good": ["a"], "all": ["a", "b"]}), Computed::Number(0.5)),
            ("size(good) / size(all)", json!({"good": [], "all": []}), Computed::NaN),
            ("rate / 100", json!({"rate": 92.5}), Computed::Number(0.925)),
            ("min(a, b)", json!({"a": 1, "b": 2}), Computed::Number(1.0)),
            ("double(a)", json!({"a": "0.5"}), Computed::Number(0.5)),
            ("a == 'A'", json!({"a": "A"}), Computed::Bool(true)),
        ] {
            assert_eq!(compute(source, values), Ok(computed), "{source}");
        }
        for (source, values, part) in [
            ("a / 2", json!({"a": "0.5"}), "`a` is text in the answer"),
            ("a / 0.0", json!({"a": 1}), "infinite"),
            ("a", json!({"a": "x"}), "gives a text"),
            ("a + missing", json!({"a": 1}), "known are a"),
            ("1 + 1", json!({"a": 1}), "uses none of a"),
            ("a.b", json!({"a": 1}), "no fields"),
        ] {
            let reason = compute(source, values).unwrap_err();
            assert!(reason.contains(part), "{source}: {reason}");
        }
    }
}
