//! Which manager set which field: sets of field paths, and `metadata.managedFields`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::shape::{ListKind, Shape};

/// One part of a field's path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A field of an object.
    Field(String),
    /// The list item with these key fields, as a JSON object.
    Key(String),
    /// The item of a set, as JSON.
    Item(String),
}

/// Path of a field.
pub type Path = Vec<Part>;

/// Leaf fields.
pub type FieldSet = BTreeSet<Path>;

/// Fields of metadata that the server keeps by itself.
const SYSTEM: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
    "generateName",
];

/// Leaf fields of an object, without those the server keeps.
pub fn leaves(object: &Value, shape: Shape<'_>) -> FieldSet {
    let mut set = FieldSet::new();
    let Some(map) = object.as_object() else { return set };
    for (name, value) in map {
        if name == "apiVersion" || name == "kind" {
            continue;
        }
        let at = vec![Part::Field(name.clone())];
        if name == "metadata" {
            for (name, value) in value.as_object().into_iter().flatten().filter(|(n, _)| !SYSTEM.contains(&n.as_str())) {
                let at = vec![at[0].clone(), Part::Field(name.clone())];
                collect(value, Shape::BuiltIn, name, at, &mut set);
            }
        } else {
            collect(value, shape.field(name), name, at, &mut set);
        }
    }
    set
}

fn collect(value: &Value, shape: Shape<'_>, name: &str, at: Path, set: &mut FieldSet) {
    let with = |part: Part| {
        let mut path = at.clone();
        path.push(part);
        path
    };
    match value {
        Value::Object(map) if !map.is_empty() && !shape.is_atomic_map(name) => {
            for (name, value) in map {
                collect(value, shape.field(name), name, with(Part::Field(name.clone())), set);
            }
        }
        Value::Array(items) if !items.is_empty() => match shape.list_kind(name, items) {
            ListKind::Atomic => {
                set.insert(at);
            }
            ListKind::Set => set.extend(items.iter().map(|item| with(Part::Item(item.to_string())))),
            ListKind::Map(keys) => {
                for item in items {
                    let path = with(Part::Key(key_of(item, &keys, shape.item())));
                    for (name, value) in item.as_object().into_iter().flatten() {
                        let mut path = path.clone();
                        path.push(Part::Field(name.clone()));
                        collect(value, shape.item().field(name), name, path, set);
                    }
                    set.insert(path);
                }
            }
        },
        _ => {
            set.insert(at);
        }
    }
}

/// The key fields of a list item, as a JSON object; a key that is left out has its default. `shape` is the item's.
pub fn key_of(item: &Value, keys: &[String], shape: Shape<'_>) -> String {
    let value = |k: &String| item.get(k).cloned().or_else(|| shape.default_of(k));
    let map: Map<String, Value> = keys.iter().filter_map(|k| Some((k.clone(), value(k)?))).collect();
    Value::Object(map).to_string()
}

fn is_item(item: &Value, part: &Part) -> bool {
    match part {
        Part::Field(_) => false,
        Part::Item(text) => serde_json::from_str::<Value>(text).is_ok_and(|value| value == *item),
        Part::Key(text) => {
            let key: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
            !key.is_empty() && key.iter().all(|(k, v)| item.get(k) == Some(v))
        }
    }
}

/// The value at a path.
pub fn get<'a>(value: &'a Value, path: &[Part]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, part| match part {
        Part::Field(name) => value.get(name),
        other => value.as_array()?.iter().find(|item| is_item(item, other)),
    })
}

/// Removes the value at a path, and objects that become empty by it.
pub fn remove(value: &mut Value, path: &[Part]) {
    let Some((first, rest)) = path.split_first() else { return };
    match first {
        Part::Field(name) => {
            let Some(map) = value.as_object_mut() else { return };
            let gone = match map.get_mut(name) {
                None => false,
                Some(_) if rest.is_empty() => true,
                Some(child) => {
                    remove(child, rest);
                    matches!(child, Value::Object(m) if m.is_empty()) || matches!(child, Value::Array(a) if a.is_empty())
                }
            };
            if gone {
                map.remove(name);
            }
        }
        part => {
            let Some(items) = value.as_array_mut() else { return };
            if rest.is_empty() {
                items.retain(|item| !is_item(item, part));
            } else if let Some(item) = items.iter_mut().find(|item| is_item(item, part)) {
                remove(item, rest);
            }
        }
    }
}

/// A path as error messages write it.
pub fn display(path: &[Part]) -> String {
    path.iter()
        .map(|part| match part {
            Part::Field(name) => format!(".{name}"),
            Part::Item(text) => format!("[={text}]"),
            Part::Key(text) => {
                let key: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
                let pairs: Vec<String> = key.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("[{}]", pairs.join(","))
            }
        })
        .collect()
}

/// What one manager set by one kind of operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Managed {
    /// Name of the manager.
    pub manager: String,
    /// Server-side apply (true) or any other write.
    pub apply: bool,
    /// Subresource it wrote to; empty for the object itself.
    pub subresource: String,
    /// When the set last changed.
    pub time: String,
    /// The fields.
    pub fields: FieldSet,
}

/// Reads `metadata.managedFields`.
pub fn read_managed(object: &Value) -> Vec<Managed> {
    let list = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let text = |entry: &Value, name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    list.into_iter()
        .flatten()
        .map(|entry| {
            let mut fields = FieldSet::new();
            if let Some(v1) = entry.get("fieldsV1") {
                parse_v1(v1, &mut Vec::new(), &mut fields);
            }
            Managed {
                manager: text(entry, "manager"),
                apply: text(entry, "operation") == "Apply",
                subresource: text(entry, "subresource"),
                time: text(entry, "time"),
                fields,
            }
        })
        .collect()
}

/// Writes `metadata.managedFields`; entries without fields are left out.
pub fn write_managed(object: &mut Value, api_version: &str, managed: &[Managed]) {
    let entries: Vec<Value> = managed
        .iter()
        .filter(|m| !m.fields.is_empty())
        .map(|m| {
            let mut entry = json!({
                "manager": m.manager,
                "operation": if m.apply { "Apply" } else { "Update" },
                "apiVersion": api_version,
                "time": m.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": to_v1(&m.fields),
            });
            if !m.subresource.is_empty() {
                entry["subresource"] = json!(m.subresource);
            }
            entry
        })
        .collect();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        if entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".into(), Value::Array(entries));
        }
    }
}

fn to_v1(fields: &FieldSet) -> Value {
    let mut root = json!({});
    for path in fields {
        let mut at = &mut root;
        for part in path {
            let name = match part {
                Part::Field(name) => format!("f:{name}"),
                Part::Key(text) => format!("k:{text}"),
                Part::Item(text) => format!("v:{text}"),
            };
            at = &mut at[name];
            if at.is_null() {
                *at = json!({});
            }
        }
        if matches!(path.last(), Some(Part::Key(_))) {
            at["."] = json!({});
        }
    }
    root
}

fn parse_v1(value: &Value, at: &mut Path, set: &mut FieldSet) {
    let map = value.as_object();
    if map.is_none_or(Map::is_empty) && !at.is_empty() {
        set.insert(at.clone());
        return;
    }
    for (name, child) in map.into_iter().flatten() {
        let part = match name.split_at_checked(2) {
            Some(("f:", rest)) => Part::Field(rest.into()),
            Some(("k:", rest)) => Part::Key(rest.into()),
            Some(("v:", rest)) => Part::Item(rest.into()),
            _ => {
                set.insert(at.clone());
                continue;
            }
        };
        at.push(part);
        parse_v1(child, at, set);
        at.pop();
    }
}

/// Who writes, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// Name of the manager.
    pub manager: &'a str,
    /// Subresource; empty for the object itself.
    pub subresource: &'a str,
    /// Now.
    pub now: Timestamp,
}

/// Notes a write that was not an apply: fields it changed belong to its manager alone from now on.
pub fn track(old: Option<&Value>, new: &mut Value, writer: Writer<'_>, api_version: &str, shape: Shape<'_>) {
    let mut managed = old.map(read_managed).unwrap_or_default();
    // Most writes change one part of the object: only that one is taken apart.
    let touched: Vec<String> = new
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| name.as_str() == "metadata" || old.and_then(|old| old.get(name.as_str())) != Some(*value))
        .map(|(name, _)| name.clone())
        .collect();
    let parts: Value = touched.iter().map(|name| (name.clone(), new[name].clone())).collect();
    let changed: FieldSet = leaves(&parts, shape).into_iter().filter(|path| old.and_then(|old| get(old, path)) != get(new, path)).collect();
    for entry in &mut managed {
        entry.fields.retain(|path| match path.first() {
            Some(Part::Field(top)) if new.get(top).is_some() && !touched.contains(top) => true,
            _ => !changed.contains(path) && get(new, path).is_some(),
        });
    }
    if !changed.is_empty() {
        let own = managed.iter_mut().find(|m| !m.apply && m.manager == writer.manager && m.subresource == writer.subresource);
        let time = seconds(writer.now);
        match own {
            Some(own) => {
                own.fields.extend(changed);
                own.time = time;
            }
            None => managed.push(Managed {
                manager: writer.manager.into(),
                apply: false,
                subresource: writer.subresource.into(),
                time,
                fields: changed,
            }),
        }
    }
    write_managed(new, api_version, &managed);
}

/// A time as `metadata` holds it: whole seconds.
pub fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}
