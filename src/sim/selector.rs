//! Label and field selectors of LIST, WATCH and DELETECOLLECTION.

use std::collections::{BTreeMap, BTreeSet};

use kube::core::{Expression, Selector, SelectorExt};
use serde_json::Value;

use super::fail::{self, Answer};
use super::registry::Resource;

/// Fields that the server indexes beside `metadata.name` and `metadata.namespace`.
const FIELDS: &[(&str, &[&str])] = &[
    ("Pod", &["spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.phase", "status.podIP"]),
    ("Event", &["reason", "type", "involvedObject.name", "involvedObject.kind", "involvedObject.uid", "regarding.name", "regarding.kind"]),
    ("Secret", &["type"]),
    ("Namespace", &["status.phase"]),
    ("ReplicaSet", &["status.replicas"]),
];

/// Which objects of a kind are meant.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    labels: Selector,
    fields: Vec<(String, String, bool)>,
}

impl Filter {
    /// Parses both selectors; absent or empty ones match everything.
    ///
    /// # Errors
    /// 400 for a selector that does not parse or a field that is not indexed.
    pub fn parse(resource: &Resource, labels: Option<&str>, fields: Option<&str>) -> Answer<Self> {
        let labels = parse_labels(labels.unwrap_or_default())?;
        let fields = parse_fields(resource, fields.unwrap_or_default())?;
        Ok(Self { labels, fields })
    }

    /// Whether the object is meant.
    pub fn matches(&self, object: &Value) -> bool {
        let labels_match = self.labels.selects_all() || self.labels.matches(&labels_of(object));
        labels_match && self.fields.iter().all(|(path, value, equal)| (field(object, path) == *value) == *equal)
    }
}

/// Labels of an object.
pub fn labels_of(object: &Value) -> BTreeMap<String, String> {
    string_map(object.pointer("/metadata/labels"))
}

/// A JSON object of strings as a map.
pub fn string_map(value: Option<&Value>) -> BTreeMap<String, String> {
    let Some(Value::Object(map)) = value else { return BTreeMap::new() };
    map.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

fn field(object: &Value, path: &str) -> String {
    match object.pointer(&format!("/{}", path.replace('.', "/"))) {
        Some(Value::String(s)) => s.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn parse_fields(resource: &Resource, text: &str) -> Answer<Vec<(String, String, bool)>> {
    let mut fields = Vec::new();
    for term in text.split(',').filter(|t| !t.trim().is_empty()) {
        let (path, value, equal) = split_equality(term)
            .ok_or_else(|| fail::bad_request(format!("invalid field selector: '{term}'; can't understand '{term}'")))?;
        let extra = FIELDS.iter().find(|(kind, _)| *kind == resource.kind).map_or(&[][..], |(_, fields)| fields);
        let known = path == "metadata.name" || (path == "metadata.namespace" && resource.namespaced) || extra.contains(&path);
        if !known {
            return Err(fail::bad_request(format!("field label not supported: {path}")));
        }
        fields.push((path.to_owned(), value.to_owned(), equal));
    }
    Ok(fields)
}

fn split_equality(term: &str) -> Option<(&str, &str, bool)> {
    for (sign, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((path, value)) = term.split_once(sign) {
            return Some((path.trim(), value.trim(), equal));
        }
    }
    None
}

/// Parses a label selector: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
///
/// # Errors
/// 400 when it does not parse.
pub fn parse_labels(text: &str) -> Answer<Selector> {
    let mut terms = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms.into_iter().map(str::trim).filter(|t| !t.is_empty()).map(parse_label_term).collect()
}

fn parse_label_term(term: &str) -> Answer<Expression> {
    let wrong = || fail::bad_request(format!("unable to parse requirement: {term}"));
    if let Some(key) = term.strip_prefix('!') {
        return Ok(Expression::DoesNotExist(key.trim().into()));
    }
    if let Some((head, list)) = term.split_once('(') {
        let values: BTreeSet<String> = list.strip_suffix(')').ok_or_else(wrong)?.split(',').map(|v| v.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => Ok(Expression::In(key.into(), values)),
            (Some(key), Some("notin"), None) => Ok(Expression::NotIn(key.into(), values)),
            _ => Err(wrong()),
        };
    }
    if let Some((key, value, equal)) = split_equality(term) {
        let (key, value) = (key.to_owned(), value.to_owned());
        return Ok(if equal { Expression::Equal(key, value) } else { Expression::NotEqual(key, value) });
    }
    if term.contains(char::is_whitespace) { Err(wrong()) } else { Ok(Expression::Exists(term.into())) }
}

/// Whether a structured `LabelSelector` (JSON) selects these labels. One that is absent or empty selects everything.
pub fn structured_matches(selector: Option<&Value>, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = selector else { return true };
    let parsed: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector> = serde_json::from_value(selector.clone()).ok();
    parsed.and_then(|s| Selector::try_from(s).ok()).is_some_and(|s| s.matches(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn every_operator_selects_as_the_real_server_does() {
        let cases = [
            ("a=b", true),
            ("a==b", true),
            ("a!=b", false),
            ("x!=b", true),
            ("a in (b, c)", true),
            ("a notin (b)", false),
            ("x notin (b)", true),
            ("a", true),
            ("!a", false),
            ("!x", true),
            ("a=b,x", false),
            ("", true),
        ];
        for (text, expected) in cases {
            let selector = parse_labels(text).unwrap();
            assert_eq!(selector.matches(&labels(&[("a", "b")])), expected, "{text}");
        }
        for text in ["a in b)", "a within (b)", "a b"] {
            assert_eq!(parse_labels(text).unwrap_err().code, 400, "{text}");
        }
    }
}
