//! Values against a structural schema, with the messages of the real API server.

use std::collections::{HashMap, HashSet};

use regex::Regex;
use serde_json::{Map, Value};

use super::fail::Cause;
use super::schema::{flag, type_name};

/// One validation of one object.
pub struct Validation<'a> {
    patterns: &'a HashMap<String, Regex>,
    /// What is wrong.
    pub causes: Vec<Cause>,
}

impl<'a> Validation<'a> {
    /// Starts one. `patterns` holds every pattern of the schema that compiles.
    pub fn new(patterns: &'a HashMap<String, Regex>) -> Self {
        Self { patterns, causes: Vec::new() }
    }

    /// Validates an object against the schema of its root; its metadata is not looked at.
    pub fn object(&mut self, schema: &Value, object: &Value) {
        let Some(map) = object.as_object() else { return };
        self.required(schema, map, "");
        for (name, child_schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if let Some(child) = map.get(name).filter(|_| name != "metadata") {
                self.value(child_schema, child, name);
            }
        }
    }

    /// Validates a value at a path.
    pub fn value(&mut self, schema: &Value, value: &Value, at: &str) {
        if value.is_null() && flag(schema, "nullable") {
            return;
        }
        if !self.has_right_type(schema, value, at) {
            return;
        }
        self.one_of_values(schema, value, at);
        match value {
            Value::Object(map) => self.map(schema, map, at),
            Value::Array(items) => self.list(schema, items, at),
            Value::String(text) => self.text(schema, text, at),
            Value::Number(number) => self.number(schema, number.as_f64().unwrap_or_default(), value, at),
            _ => {}
        }
        self.combined(schema, value, at);
    }

    fn has_right_type(&mut self, schema: &Value, value: &Value, at: &str) -> bool {
        let found = type_name(value);
        if flag(schema, "x-kubernetes-int-or-string") {
            let right = matches!(found, "integer" | "string");
            if !right {
                self.wrong_type(at, found, "integer,string");
            }
            return right;
        }
        let Some(wanted) = schema.get("type").and_then(Value::as_str) else { return true };
        let whole = || value.as_f64().is_some_and(|f| f.fract() == 0.0);
        let right = wanted == found || (wanted == "number" && found == "integer") || (wanted == "integer" && whole());
        if !right {
            self.wrong_type(at, found, wanted);
        }
        right
    }

    fn wrong_type(&mut self, at: &str, found: &str, wanted: &str) {
        let message = format!("Invalid value: \"{found}\": {at} in body must be of type {wanted}: \"{found}\"");
        self.causes.push(Cause { reason: "FieldValueTypeInvalid", field: at.into(), message });
    }

    fn one_of_values(&mut self, schema: &Value, value: &Value, at: &str) {
        let Some(allowed) = schema.get("enum").and_then(Value::as_array) else { return };
        if !allowed.contains(value) {
            let list: Vec<String> = allowed.iter().filter(|v| !v.is_null()).map(Value::to_string).collect();
            let message = format!("Unsupported value: {value}: supported values: {}", list.join(", "));
            self.causes.push(Cause { reason: "FieldValueNotSupported", field: at.into(), message });
        }
    }

    fn required(&mut self, schema: &Value, map: &Map<String, Value>, at: &str) {
        let names = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for name in names.filter(|n| !map.contains_key(*n)) {
            self.causes.push(Cause::required(join(at, name)));
        }
    }

    fn map(&mut self, schema: &Value, map: &Map<String, Value>, at: &str) {
        self.required(schema, map, at);
        let properties = schema.get("properties").and_then(Value::as_object);
        let additional = schema.get("additionalProperties").filter(|a| a.is_object());
        for (name, child) in map {
            if let Some(child_schema) = properties.and_then(|p| p.get(name)).or(additional) {
                self.value(child_schema, child, &join(at, name));
            }
        }
        self.size(schema, map.len(), at, ("minProperties", "maxProperties"), "properties");
    }

    fn list(&mut self, schema: &Value, items: &[Value], at: &str) {
        if let Some(item_schema) = schema.get("items") {
            for (i, item) in items.iter().enumerate() {
                self.value(item_schema, item, &format!("{at}[{i}]"));
            }
        }
        self.size(schema, items.len(), at, ("minItems", "maxItems"), "items");
        self.unique(schema, items, at);
    }

    fn size(&mut self, schema: &Value, size: usize, at: &str, (min, max): (&str, &str), noun: &str) {
        let limit = |name: &str| schema.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        if let Some(min) = limit(min).filter(|min| size < *min) {
            let message = format!("Invalid value: {size}: {at} in body should have at least {min} {noun}");
            self.causes.push(Cause::invalid(at, message));
        }
        if let Some(max) = limit(max).filter(|max| size > *max) {
            let message = format!("Too many: {size}: must have at most {max} {noun}");
            self.causes.push(Cause { reason: "FieldValueTooMany", field: at.into(), message });
        }
    }

    fn unique(&mut self, schema: &Value, items: &[Value], at: &str) {
        let keys: Vec<&str> = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => Vec::new(),
            Some("map") => {
                let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                keys.into_iter().flatten().filter_map(Value::as_str).collect()
            }
            _ => return,
        };
        let mut seen = HashSet::new();
        for (i, item) in items.iter().enumerate() {
            let identity = if keys.is_empty() {
                item.clone()
            } else {
                keys.iter().map(|k| ((*k).to_owned(), item.get(*k).cloned().unwrap_or_default())).collect()
            };
            if !seen.insert(identity.to_string()) {
                let message = format!("Duplicate value: {identity}");
                self.causes.push(Cause { reason: "FieldValueDuplicate", field: format!("{at}[{i}]"), message });
            }
        }
    }

    fn text(&mut self, schema: &Value, text: &str, at: &str) {
        let length = text.chars().count();
        let limit = |name: &str| schema.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        if let Some(min) = limit("minLength").filter(|min| length < *min) {
            let message = format!("Invalid value: {text:?}: {at} in body should be at least {min} chars long");
            self.causes.push(Cause::invalid(at, message));
        }
        if let Some(max) = limit("maxLength").filter(|max| length > *max) {
            let message = format!("Too long: may not be more than {max} bytes");
            self.causes.push(Cause { reason: "FieldValueTooLong", field: at.into(), message });
        }
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
            && self.patterns.get(pattern).is_some_and(|regex| !regex.is_match(text))
        {
            let message = format!("Invalid value: {text:?}: {at} in body should match '{pattern}'");
            self.causes.push(Cause::invalid(at, message));
        }
        let is_time = schema.get("format").and_then(Value::as_str) == Some("date-time");
        if is_time && text.parse::<jiff::Timestamp>().is_err() {
            let message = format!("Invalid value: {text:?}: {at} in body must be of type date-time: {text:?}");
            self.causes.push(Cause { reason: "FieldValueTypeInvalid", field: at.into(), message });
        }
    }

    fn number(&mut self, schema: &Value, number: f64, shown: &Value, at: &str) {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        if let Some(min) = bound("minimum").filter(|min| number < *min) {
            let message = format!("Invalid value: {shown}: {at} in body should be greater than or equal to {min}");
            self.causes.push(Cause::invalid(at, message));
        }
        if let Some(max) = bound("maximum").filter(|max| number > *max) {
            let message = format!("Invalid value: {shown}: {at} in body should be less than or equal to {max}");
            self.causes.push(Cause::invalid(at, message));
        }
    }

    fn combined(&mut self, schema: &Value, value: &Value, at: &str) {
        let branches = |name: &str| schema.get(name).and_then(Value::as_array);
        for branch in branches("allOf").into_iter().flatten() {
            self.value(branch, value, at);
        }
        let matches = |branch: &&Value| {
            let mut inner = Validation::new(self.patterns);
            inner.value(branch, value, at);
            inner.causes.is_empty()
        };
        let any = branches("anyOf").is_some_and(|b| !b.iter().any(|branch| matches(&branch)));
        let one = branches("oneOf").is_some_and(|b| b.iter().filter(matches).count() != 1);
        for (broken, text) in [(any, "at least one schema (anyOf)"), (one, "one and only one schema (oneOf)")] {
            if broken {
                let kind = type_name(value);
                self.causes.push(Cause::invalid(at, format!("Invalid value: \"{kind}\": {at} in body must validate {text}")));
            }
        }
    }
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}
