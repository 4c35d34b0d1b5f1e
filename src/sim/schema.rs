//! Structural schemas of custom resources: prune, default, validate, and run their CEL rules.

use std::collections::HashMap;

use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use regex::Regex;
use serde_json::{Map, Value};

use super::fail::Cause;
use super::validate::Validation;

thread_local! {
    /// Making one registers every function of the rules' language.
    static VALIDATOR: Validator = Validator::new();
}

/// A schema, ready for use.
pub struct Schema {
    value: Value,
    patterns: HashMap<String, Regex>,
    rules: CompiledSchema,
    rules_below: RulesBelow,
}

/// Where a schema has CEL rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RulesBelow {
    status: bool,
    rest: bool,
}

impl Schema {
    /// Prepares an `openAPIV3Schema`.
    pub fn new(value: Value) -> Self {
        let mut patterns = HashMap::new();
        collect_patterns(&value, &mut patterns);
        let properties = value.get("properties").and_then(Value::as_object);
        let status = properties.and_then(|p| p.get("status")).is_some_and(has_rules);
        let rest = value.get("x-kubernetes-validations").is_some()
            || properties.is_some_and(|p| p.iter().any(|(name, schema)| name != "status" && has_rules(schema)));
        Self { patterns, rules: compile_schema(&value), rules_below: RulesBelow { status, rest }, value }
    }

    /// The schema itself.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Removes fields that the schema does not have, and returns their paths.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        prune(&self.value, object, "", true, &mut unknown);
        unknown
    }

    /// Fills in defaults.
    pub fn default(&self, object: &mut Value) {
        fill_defaults(&self.value, object);
    }

    /// What is wrong with the object's types, bounds, patterns and required fields.
    pub fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut validation = Validation::new(&self.patterns);
        validation.object(&self.value, object);
        validation.causes
    }

    /// What is wrong with the object's status.
    pub fn validate_status(&self, object: &Value) -> Vec<Cause> {
        let mut validation = Validation::new(&self.patterns);
        if let (Some(schema), Some(status)) = (self.value.pointer("/properties/status"), object.get("status")) {
            validation.value(schema, status, "status");
        }
        validation.causes
    }

    /// Which CEL rules the object breaks. `old` is the object before an update; `same_spec` says that its
    /// spec has not changed.
    pub fn check_rules(&self, object: &Value, old: Option<&Value>, same_spec: bool) -> Vec<Cause> {
        if !(self.rules_below.status || (self.rules_below.rest && !same_spec)) {
            return Vec::new();
        }
        match VALIDATOR.with(|validator| validator.validate_compiled(&self.rules, object, old)) {
            Ok(()) => Vec::new(),
            Err(errors) => {
                errors.into_vec().into_iter().map(|e| Cause::invalid(e.field_path, format!("Invalid value: {}", e.message))).collect()
            }
        }
    }
}

/// JSON type of a value as schemas name it.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.contains_key("x-kubernetes-validations") || map.values().any(has_rules),
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}

fn collect_patterns(schema: &Value, patterns: &mut HashMap<String, Regex>) {
    match schema {
        Value::Object(map) => {
            if let Some(pattern) = map.get("pattern").and_then(Value::as_str)
                && let Ok(regex) = Regex::new(pattern)
            {
                patterns.insert(pattern.to_owned(), regex);
            }
            map.values().for_each(|v| collect_patterns(v, patterns));
        }
        Value::Array(items) => items.iter().for_each(|v| collect_patterns(v, patterns)),
        _ => {}
    }
}

/// Whether a flag of the schema is set.
pub fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool) == Some(true)
}

fn prune(schema: &Value, value: &mut Value, at: &str, embedded: bool, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => prune_map(schema, map, at, embedded, unknown),
        Value::Array(items) => {
            if let Some(item_schema) = schema.get("items") {
                for (i, item) in items.iter_mut().enumerate() {
                    let embedded = flag(item_schema, "x-kubernetes-embedded-resource");
                    prune(item_schema, item, &format!("{at}[{i}]"), embedded, unknown);
                }
            }
        }
        _ => {}
    }
}

fn prune_map(schema: &Value, map: &mut Map<String, Value>, at: &str, embedded: bool, unknown: &mut Vec<String>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    let additional = schema.get("additionalProperties").filter(|a| a.as_bool() != Some(false));
    let keep = flag(schema, "x-kubernetes-preserve-unknown-fields");
    map.retain(|name, child| {
        if embedded && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            return true;
        }
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        match (properties.and_then(|p| p.get(name)), additional) {
            (Some(child_schema), _) | (None, Some(child_schema)) => {
                let embedded = flag(child_schema, "x-kubernetes-embedded-resource");
                prune(child_schema, child, &path, embedded, unknown);
                true
            }
            (None, None) if keep => true,
            (None, None) => {
                unknown.push(path);
                false
            }
        }
    });
}

fn fill_defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, child_schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                if let Some(default) = child_schema.get("default") {
                    let replace = match map.get(name) {
                        None => true,
                        Some(Value::Null) => !flag(child_schema, "nullable"),
                        Some(_) => false,
                    };
                    if replace {
                        map.insert(name.clone(), default.clone());
                    }
                }
                if let Some(child) = map.get_mut(name) {
                    fill_defaults(child_schema, child);
                }
            }
            if let Some(additional) = schema.get("additionalProperties").filter(|a| a.is_object()) {
                map.values_mut().for_each(|child| fill_defaults(additional, child));
            }
        }
        Value::Array(items) => {
            if let Some(item_schema) = schema.get("items") {
                items.iter_mut().for_each(|item| fill_defaults(item_schema, item));
            }
        }
        _ => {}
    }
}
