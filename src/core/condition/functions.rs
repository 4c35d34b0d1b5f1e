//! The functions and operators of conditions.

use cel::common::ast::operators;
use cel::extractors::{Arguments, This};
use cel::objects::Value;
use cel::{Context, ExecutionError, FunctionContext};
use std::sync::Arc;

use super::check;

/// Text of the error that stands for "a NaN was compared".
pub const NAN: &str = "NaN";

type Result = std::result::Result<Value, ExecutionError>;

/// A context with `result` bound and every function there is.
pub fn context(result: Value) -> Context<'static> {
    with_names([("result", result)])
}

/// A context with these names bound and every function there is.
pub fn with_names<'a>(names: impl IntoIterator<Item = (&'a str, Value)>) -> Context<'static> {
    let mut context = Context::empty();
    for (name, value) in names {
        context.add_variable_from_value(name, value);
    }
    for operator in check::mixed_operators() {
        context.add_function(&check::replaced(operator), move |Arguments(args): Arguments| operate(operator, &args));
    }
    context.add_function("isNaN", |Arguments(a): Arguments| Ok::<_, ExecutionError>(Value::Bool(is_nan(&a[0]))));
    context.add_function("isInf", |Arguments(a): Arguments| number(&a[0]).map(|n| Value::Bool(n.is_infinite())));
    context.add_function("default", default);
    for name in ["size", "len"] {
        context.add_function(name, |This(v): This<Value>| size(&v));
    }
    for name in ["double", "asFloat"] {
        context.add_function(name, |Arguments(a): Arguments| to_number(&a[0]).map(Value::Float));
    }
    for name in ["int", "asInt"] {
        context.add_function(name, |Arguments(a): Arguments| to_int(&a[0]));
    }
    context.add_function("abs", |Arguments(a): Arguments| number(&a[0]).map(|n| Value::Float(n.abs())));
    context.add_function("string", |Arguments(a): Arguments| to_text(&a[0]));
    for (name, fold) in AGGREGATES {
        context.add_function(name, move |Arguments(a): Arguments| aggregate(name, fold, &a));
    }
    context.add_function("startsWith", cel::functions::starts_with);
    context.add_function("endsWith", cel::functions::ends_with);
    context.add_function("contains", |This(v): This<Arc<String>>, part: Arc<String>| v.contains(part.as_str()));
    context.add_function("matches", cel::functions::matches);
    context
}

type Fold = fn(&[f64]) -> f64;

const AGGREGATES: [(&str, Fold); 4] = [
    ("min", |v| v.iter().copied().fold(f64::INFINITY, f64::min)),
    ("max", |v| v.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
    ("sum", |v| v.iter().sum()),
    // Lists have at most 1000 values, so the length is exact as a float.
    ("mean", |v| v.iter().sum::<f64>() / v.len() as f64),
];

fn aggregate(name: &str, fold: Fold, args: &[Value]) -> Result {
    let values = match args {
        [Value::List(list)] => list.as_slice(),
        other => other,
    };
    let numbers = values.iter().map(number).collect::<std::result::Result<Vec<_>, _>>()?;
    if numbers.is_empty() {
        return Err(error(name, "there are no values"));
    }
    if numbers.iter().any(|n| n.is_nan()) {
        return Err(error(name, NAN));
    }
    Ok(Value::Float(fold(&numbers)))
}

/// `default(x, d)`: `d` where `x` is missing or NaN; the only function whose argument may fail.
fn default(context: &FunctionContext) -> Result {
    match context.ptx.resolve(&context.args[0]) {
        Ok(Value::Null) | Err(ExecutionError::IndexOutOfBounds(_) | ExecutionError::NoSuchKey(_)) => context.ptx.resolve(&context.args[1]),
        Ok(value) if is_nan(&value) => context.ptx.resolve(&context.args[1]),
        other => other,
    }
}

fn operate(operator: &'static str, args: &[Value]) -> Result {
    let [a, b] = args else { return Err(error(operator, "two operands are needed")) };
    match operator {
        operators::IN => match b {
            Value::List(list) => list.iter().try_fold(false, |found, item| Ok(found || equal(a, item)?)).map(Value::Bool),
            other => Err(error("in", format!("{} is not a list", kind(other)))),
        },
        operators::EQUALS => equal(a, b).map(Value::Bool),
        operators::NOT_EQUALS => equal(a, b).map(|same| Value::Bool(!same)),
        operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS => compare(operator, a, b),
        _ => arithmetic(operator, a, b),
    }
}

fn equal(a: &Value, b: &Value) -> std::result::Result<bool, ExecutionError> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::String(a), Value::String(b)) => Ok(a == b),
        (Value::Null, _) | (_, Value::Null) => Ok(matches!((a, b), (Value::Null, Value::Null))),
        (Value::List(a), Value::List(b)) => {
            Ok(a.len() == b.len() && a.iter().zip(b.iter()).try_fold(true, |same, (a, b)| Ok::<_, ExecutionError>(same && equal(a, b)?))?)
        }
        _ => {
            let (a, b) = both("==", a, b)?;
            #[allow(clippy::float_cmp)] // the user wrote ==
            Ok(a == b)
        }
    }
}

fn compare(operator: &str, a: &Value, b: &Value) -> Result {
    let order = match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        _ => {
            let (a, b) = both("comparison", a, b)?;
            a.partial_cmp(&b).ok_or_else(|| error("comparison", NAN))?
        }
    };
    Ok(Value::Bool(match operator {
        operators::LESS => order.is_lt(),
        operators::LESS_EQUALS => order.is_le(),
        operators::GREATER => order.is_gt(),
        _ => order.is_ge(),
    }))
}

fn arithmetic(operator: &str, a: &Value, b: &Value) -> Result {
    if let (Value::Int(a), Value::Int(b)) = (a, b) {
        let result = match operator {
            // 1/2 is 0.5, as in Argo's expressions: a rate of two counts must not be cut to 0.
            operators::DIVIDE if *b != 0 || *a == 0 => {
                let (a, b) = both("arithmetic", &Value::Int(*a), &Value::Int(*b))?;
                return Ok(Value::Float(a / b));
            }
            operators::DIVIDE => None,
            operators::ADD => a.checked_add(*b),
            operators::SUBSTRACT => a.checked_sub(*b),
            operators::MULTIPLY => a.checked_mul(*b),
            _ => a.checked_rem(*b),
        };
        return result.map(Value::Int).ok_or_else(|| error("arithmetic", "overflow or division by zero"));
    }
    let (a, b) = both("arithmetic", a, b)?;
    Ok(Value::Float(match operator {
        operators::ADD => a + b,
        operators::SUBSTRACT => a - b,
        operators::MULTIPLY => a * b,
        operators::DIVIDE => a / b,
        _ => a % b,
    }))
}

fn both(what: &str, a: &Value, b: &Value) -> std::result::Result<(f64, f64), ExecutionError> {
    match (number(a), number(b)) {
        (Ok(a), Ok(b)) if a.is_nan() || b.is_nan() => Err(error(what, NAN)),
        (Ok(a), Ok(b)) => Ok((a, b)),
        _ => Err(error(what, format!("{} and {} do not go together", kind(a), kind(b)))),
    }
}

#[allow(clippy::cast_precision_loss)] // conditions compare measured values, not identifiers
fn number(value: &Value) -> std::result::Result<f64, ExecutionError> {
    match value {
        Value::Int(n) => Ok(*n as f64),
        Value::UInt(n) => Ok(*n as f64),
        Value::Float(n) => Ok(*n),
        other => Err(error("number", format!("{} is not a number", kind(other)))),
    }
}

fn to_number(value: &Value) -> std::result::Result<f64, ExecutionError> {
    match value {
        Value::String(s) => s.trim().parse().map_err(|_| error("double", "the text is not a number")),
        Value::Bool(b) => Ok(f64::from(u8::from(*b))),
        other => number(other),
    }
}

#[allow(clippy::cast_possible_truncation)] // checked before
fn to_int(value: &Value) -> Result {
    let n = to_number(value)?;
    if n.is_nan() {
        return Err(error("int", NAN));
    }
    if n.abs() < 9e15 { Ok(Value::Int(n.trunc() as i64)) } else { Err(error("int", "the number is too large")) }
}

fn to_text(value: &Value) -> Result {
    Ok(Value::String(Arc::new(match value {
        Value::String(s) => s.to_string(),
        Value::Bool(b) => b.to_string(),
        other => number(other)?.to_string(),
    })))
}

#[allow(clippy::cast_possible_wrap)] // lengths are small
fn size(value: &Value) -> Result {
    match value {
        Value::List(list) => Ok(Value::Int(list.len() as i64)),
        Value::String(s) => Ok(Value::Int(s.chars().count() as i64)),
        other => Err(error("size", format!("{} has no size", kind(other)))),
    }
}

/// Whether the value is the number NaN.
pub fn is_nan(value: &Value) -> bool {
    matches!(value, Value::Float(n) if n.is_nan())
}

/// What a value is, for messages.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::List(_) => "a list",
        Value::String(_) => "a text",
        Value::Bool(_) => "true or false",
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => "a number",
        Value::Null => "a missing value",
        _ => "something else",
    }
}

/// An evaluation error in words.
pub fn explain(error: &ExecutionError) -> String {
    match error {
        ExecutionError::IndexOutOfBounds(_) => "there is no value with this index".into(),
        ExecutionError::NoSuchKey(field) => format!("there is no field `{field}`"),
        ExecutionError::FunctionError { message, .. } => message.clone(),
        ExecutionError::NoSuchOverload => "the operands do not go together".into(),
        _ => "the expression does not fit the value".into(),
    }
}

fn error(function: &str, message: impl Into<String>) -> ExecutionError {
    ExecutionError::FunctionError { function: function.into(), message: message.into() }
}
