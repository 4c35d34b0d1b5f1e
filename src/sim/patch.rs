//! JSON patch, merge patch and strategic merge patch.

use json_patch::{AddOperation, PatchOperation};
use serde_json::Value;

use super::fail::{self, Answer};
use super::shape::{ListKind, Shape};

/// Kinds of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Lists merge by key; built-in kinds only.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchKind {
    /// Reads the `Content-Type`.
    pub fn parse(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => Some(Self::Apply),
            _ => None,
        }
    }
}

/// Applies a JSON patch.
///
/// # Errors
/// 400 for something that is no list, 422 for an operation that is unknown or fails.
pub fn json(document: &mut Value, body: &[u8]) -> Answer<()> {
    let list: Vec<Value> = serde_json::from_slice(body).map_err(|e| fail::bad_request(format!("error decoding patch: {e}")))?;
    let patch: Result<Vec<PatchOperation>, _> = list.into_iter().map(serde_json::from_value).collect();
    let patch = patch.map_err(|_| fail::patch_failed())?;
    for operation in patch {
        let path = operation.path().to_string();
        let operation = match operation {
            // Kubernetes' library sets a missing field of an object that is there.
            PatchOperation::Replace(r) if document.pointer(&path).is_none() && parent_is_object(document, &path) => {
                PatchOperation::Add(AddOperation { path: r.path, value: r.value })
            }
            other => other,
        };
        // Kubernetes takes a test for null as a test that the field is absent.
        let absent_test = matches!(&operation, PatchOperation::Test(t) if t.value.is_null());
        if absent_test && document.pointer(&path).is_none_or(Value::is_null) {
            continue;
        }
        json_patch::patch(document, std::slice::from_ref(&operation)).map_err(|_| fail::patch_failed())?;
    }
    Ok(())
}

fn parent_is_object(document: &Value, path: &str) -> bool {
    let parent = path.rsplit_once('/').map(|(parent, _)| parent);
    parent.and_then(|parent| document.pointer(parent)).is_some_and(Value::is_object)
}

/// Applies a merge patch.
///
/// # Errors
/// 400 for one that does not parse.
pub fn merge(document: &mut Value, body: &[u8]) -> Answer<()> {
    json_patch::merge(document, &parse(body)?);
    Ok(())
}

/// Applies a strategic merge patch.
///
/// # Errors
/// 400 for one that does not parse.
pub fn strategic(document: &mut Value, body: &[u8]) -> Answer<()> {
    merge_value(document, parse(body)?, "");
    Ok(())
}

fn parse(body: &[u8]) -> Answer<Value> {
    let value: Value = serde_json::from_slice(body).map_err(|e| fail::bad_request(format!("error decoding patch: {e}")))?;
    if value.is_object() { Ok(value) } else { Err(fail::bad_request("a merge patch has to be a JSON object")) }
}

fn merge_value(target: &mut Value, patch: Value, name: &str) {
    match patch {
        Value::Object(mut patch) => {
            let directive = patch.remove("$patch");
            if directive.as_ref().and_then(Value::as_str) == Some("replace") || !target.is_object() {
                *target = Value::Object(serde_json::Map::new());
            }
            let Some(map) = target.as_object_mut() else { return };
            for (name, value) in patch {
                if name.starts_with('$') {
                    continue; // ordering and retention directives: order is not kept here
                }
                if value.is_null() {
                    map.remove(&name);
                } else {
                    merge_value(map.entry(name.clone()).or_insert(Value::Null), value, &name);
                }
            }
        }
        Value::Array(patch) => merge_list(target, patch, name),
        scalar => *target = scalar,
    }
}

fn merge_list(target: &mut Value, patch: Vec<Value>, name: &str) {
    let whole = patch.iter().any(|p| p.get("$patch").and_then(Value::as_str) == Some("replace"));
    let kind = if whole { ListKind::Atomic } else { Shape::BuiltIn.list_kind(name, &patch) };
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Some(items) = target.as_array_mut() else { return };
    match kind {
        ListKind::Atomic => *items = patch.into_iter().filter(|p| p.get("$patch").is_none()).collect(),
        ListKind::Set => {
            for item in patch {
                if !items.contains(&item) {
                    items.push(item);
                }
            }
        }
        ListKind::Map(keys) => {
            // The merge key is the first one: strategic merge knows one key a list.
            let Some(key) = keys.first() else { return };
            for item in patch {
                let found = items.iter().position(|i| i.get(key).is_some() && i.get(key) == item.get(key));
                let delete = item.get("$patch").and_then(Value::as_str) == Some("delete");
                match (found, delete) {
                    (Some(at), true) => {
                        items.remove(at);
                    }
                    (None, true) => {}
                    (Some(at), false) => merge_value(&mut items[at], item, ""),
                    (None, false) => items.push(item),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_strategic_merge_keeps_list_items_it_does_not_name() {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}});
        let patch = br#"{"spec": {"containers": [{"name": "b", "image": "2"}, {"$patch": "delete", "name": "a"}]}}"#;
        strategic(&mut pod, patch).unwrap();
        assert_eq!(pod, json!({"spec": {"containers": [{"name": "b", "image": "2"}]}}));
    }

    #[test]
    fn a_json_patch_that_does_not_hold_is_422_and_one_that_is_no_patch_is_400() {
        let mut doc = json!({"a": 1});
        assert_eq!(json(&mut doc, br#"[{"op":"test","path":"/a","value":2}]"#).unwrap_err().code, 422);
        assert_eq!(json(&mut doc, br#"[{"op":"remove","path":"/b"}]"#).unwrap_err().code, 422);
        assert_eq!(json(&mut doc, br#"{"a":2}"#).unwrap_err().code, 400);
        json(&mut doc, br#"[{"op":"test","path":"/b","value":null},{"op":"add","path":"/b","value":3}]"#).unwrap();
        assert_eq!(doc, json!({"a": 1, "b": 3}));
    }
}
