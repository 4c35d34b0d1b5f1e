//! Http routes that we own: they stand directly above a managed route, and send callers by their bucket.
//!
//! Above a managed route at canary weight `w` stand, while `w` is above 0: the callers that are always stable, the
//! buckets below `w` to the canary, and all other calls that carry the bucket header to stable. Each takes over the
//! managed route's conditions, so that it answers nothing which that one would not, and all of its other fields.

use serde_json::{Map, Value, json};

use super::{RouteError, RouteWeights};
use crate::api::stickiness::HeaderBuckets;
use crate::core::SpecError;

/// Most values of `alwaysStable`.
pub const MAX_VALUES: usize = 200;
/// Most bytes of the conditions of one generated route.
pub const MAX_MATCH: usize = 16 * 1024;
/// What Istio takes for something else than a header.
const NO_HEADERS: [&str; 4] = ["uri", "scheme", "method", "authority"];

/// Last part of a generated route's name: what it is for.
pub(super) const CANARY: &str = "canary";
const STABLE: &str = "stable";
const ALWAYS_STABLE: &str = "always-stable";

/// RE2 expression, for a full match, of the zero-padded buckets that a canary of `weight` percent gets; `None` when it
/// gets none. What matches at one weight matches at every higher one.
pub fn below(weight: i64, buckets: i32) -> Option<String> {
    let places: usize = if buckets >= 1000 { 3 } else { 2 };
    let first_stable = weight.clamp(0, 100) * i64::from(buckets.clamp(100, 1000)) / 100;
    let digits = format!("{first_stable:0places$}");
    if digits.len() > places {
        return Some(format!("[0-9]{{{places}}}"));
    }
    let mut ways = Vec::new();
    for (i, digit) in digits.char_indices().filter(|(_, digit)| *digit > '0') {
        let smaller = char::from(u8::try_from(digit).unwrap_or(b'1') - 1);
        let class = if smaller == '0' { "0".to_owned() } else { format!("[0-{smaller}]") };
        let rest = match places - i - 1 {
            0 => String::new(),
            1 => "[0-9]".to_owned(),
            n => format!("[0-9]{{{n}}}"),
        };
        ways.push(format!("{}{class}{rest}", &digits[..i]));
    }
    (!ways.is_empty()).then(|| ways.join("|"))
}

/// The weight in percent whose buckets an expression of [`below`] takes.
pub(super) fn weight_of(regex: &str) -> Option<i64> {
    (1..=100).find(|weight| [100, 1000].iter().any(|buckets| below(*weight, *buckets).as_deref() == Some(regex)))
}

/// Everything that is wrong with the settings; paths begin at `path`.
pub fn problems(buckets: &HeaderBuckets, path: &str) -> Vec<SpecError> {
    let mut errors = Vec::new();
    let mut error = |at: String, message: String| errors.push(SpecError::new(format!("{path}{at}"), message));
    if let Some(problem) = header_problem(&buckets.header) {
        error(".header".into(), problem);
    }
    if ![100, 1000].contains(&buckets.buckets) {
        error(".buckets".into(), format!("{} is neither 100 (00 to 99) nor 1000 (000 to 999)", buckets.buckets));
    }
    let mut known = std::collections::BTreeSet::new();
    for (i, callers) in buckets.always_stable.iter().enumerate() {
        let at = format!(".alwaysStable[{i}]");
        if let Some(problem) = header_problem(&callers.header) {
            error(format!("{at}.header"), problem);
        }
        if callers.values.is_empty() {
            error(format!("{at}.values"), "name at least one value, or leave the entry out".into());
        }
        for (k, value) in callers.values.iter().enumerate() {
            let at = format!("{at}.values[{k}]");
            if value.is_empty() || value.trim() != value {
                error(at, format!("{value:?} is no header value: write one without spaces around it"));
            } else if value.chars().any(char::is_control) {
                error(at, format!("{value:?} has characters that no header carries"));
            } else if !known.insert((&callers.header, value)) {
                error(at, format!("{value:?} stands twice"));
            }
        }
    }
    let values: usize = buckets.always_stable.iter().map(|c| c.values.len()).sum();
    let bytes = json!(matches_of(&Value::Null, &always_stable(buckets)).unwrap_or_default()).to_string().len();
    let instead = "put such callers into the highest buckets at the edge, where stable keeps them longest";
    if values > MAX_VALUES {
        error(".alwaysStable".into(), format!("has {values} values, and {MAX_VALUES} is the most that a route is good for: {instead}"));
    } else if bytes > MAX_MATCH {
        error(".alwaysStable".into(), format!("makes a route of {bytes} bytes, and {MAX_MATCH} is the most: {instead}"));
    }
    errors
}

fn header_problem(name: &str) -> Option<String> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if name.starts_with(':') {
        Some(format!("{name} is a pseudo-header of HTTP/2: name a header of your own, such as x-voice-bucket"))
    } else if NO_HEADERS.contains(&name) {
        Some(format!("Istio takes no condition on {name} as a header: name a header of your own, such as x-voice-bucket"))
    } else if name.is_empty() || name.len() > 128 || !name.chars().all(fine) {
        Some(format!("{name:?} is no header name as Istio compares them: write lower-case letters, digits and hyphens"))
    } else {
        None
    }
}

/// One condition on a header.
type Condition = (String, Value);

fn always_stable(buckets: &HeaderBuckets) -> Vec<Condition> {
    let of = |header: &str, value: &String| (header.to_owned(), json!({"exact": value}));
    buckets.always_stable.iter().flat_map(|c| c.values.iter().map(move |v| of(&c.header, v))).collect()
}

/// The routes that stand above `route`, which is http route number `weights.index` and looks as given, at a canary
/// weight above 0. `name` gives their names.
///
/// # Errors
/// When the route's own conditions cannot be joined with ours.
pub(super) fn block(
    buckets: &HeaderBuckets,
    route: &Value,
    weights: &RouteWeights,
    weight: i64,
    name: &dyn Fn(&str) -> String,
) -> Result<Vec<Value>, String> {
    let Some(regex) = below(weight, buckets.buckets) else { return Ok(Vec::new()) };
    let bucket = |value: Value| vec![(buckets.header.clone(), value)];
    let mut all = Vec::new();
    // Its name, for whom, and where to.
    let parts = [
        (ALWAYS_STABLE, always_stable(buckets), weights.stable_at),
        (CANARY, bucket(json!({"regex": regex})), weights.canary_at),
        // Nothing but the name: the header is there.
        (STABLE, bucket(json!({})), weights.stable_at),
    ];
    for (part, conditions, to) in parts.into_iter().filter(|(_, conditions, _)| !conditions.is_empty()) {
        let mut new = route.as_object().cloned().unwrap_or_default();
        let matches = json!(matches_of(&route["match"], &conditions)?);
        let bytes = matches.to_string().len();
        if bytes > MAX_MATCH {
            return Err(format!(
                "its conditions joined with those of {part} callers have {bytes} bytes, and {MAX_MATCH} is the most: name fewer values in alwaysStable"
            ));
        }
        let mut destination = route["route"][to].clone();
        if let Some(entry) = destination.as_object_mut() {
            entry.remove("weight");
        }
        new.insert("name".into(), name(part).into());
        new.insert("match".into(), matches);
        new.insert("route".into(), json!([destination]));
        all.push(Value::Object(new));
    }
    Ok(all)
}

/// Each of the route's matches and each condition: both have to hold. A route without matches takes every call.
fn matches_of(own: &Value, conditions: &[Condition]) -> Result<Vec<Value>, String> {
    let empty = vec![json!({})];
    let own = match own {
        Value::Null => &empty,
        Value::Array(all) if all.is_empty() => &empty,
        Value::Array(all) => all,
        _ => return Err("its match is not a list".into()),
    };
    let mut all = Vec::new();
    for (header, value) in conditions {
        for one in own {
            let mut joined = one.as_object().cloned().ok_or("one of its matches is not an object")?;
            for field in ["headers", "withoutHeaders"] {
                let taken = |m: &Map<String, Value>| m.keys().any(|k| k.eq_ignore_ascii_case(header));
                if one[field].as_object().is_some_and(taken) {
                    return Err(format!("its match has a condition on header {header} of its own: leave it to stickiness.headerBuckets"));
                }
            }
            let headers = joined.entry("headers").or_insert_with(|| json!({}));
            headers.as_object_mut().ok_or("headers in its match is not an object")?.insert(header.clone(), value.clone());
            all.push(Value::Object(joined));
        }
    }
    Ok(all)
}

impl From<(&str, String)> for RouteError {
    /// `namespace/name` of the VirtualService, and what is wrong.
    fn from((id, what): (&str, String)) -> Self {
        Self(format!("VirtualService {id}: {what}"))
    }
}
