//! Labels of a DestinationRule's subset.

use std::collections::BTreeMap;

use json_patch::jsonptr::PointerBuf;
use json_patch::{Patch, PatchOperation, RemoveOperation};
use serde_json::{Value, json};

use super::{RouteError, add, pointer, test};

/// JSON patch that sets `labels` of the subset `name` in a DestinationRule, and takes off those without a value; `None`
/// when it says so already. It tests that the subset is still the one that was read; where the subset has no labels yet, also the
/// resourceVersion, because making them would overwrite what somebody else has made since.
///
/// # Errors
/// When there is no subset of that name, or several.
pub fn subset_patch(rule: &Value, name: &str, labels: &[(&str, Option<&str>)]) -> Result<Option<Patch>, RouteError> {
    let subsets = rule["spec"]["subsets"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    let index = match (0..subsets.len()).filter(|i| subsets[*i]["name"] == name).collect::<Vec<_>>().as_slice() {
        [index] => *index,
        found => return Err(wrong_subset(rule, subsets, name, found.len())),
    };
    let known = &subsets[index]["labels"];
    let differ: Vec<_> = labels.iter().filter(|(key, value)| known.get(key).and_then(Value::as_str) != *value).collect();
    if differ.is_empty() {
        return Ok(None);
    }
    let path = |rest: &[&str]| pointer(&["spec", "subsets"], index, rest);
    let mut operations = vec![test(path(&["name"]), name.into())];
    if known.is_object() {
        operations.extend(differ.iter().map(|(key, value)| match value {
            Some(value) => add(path(&["labels", key]), (*value).into()),
            None => PatchOperation::Remove(RemoveOperation { path: path(&["labels", key]) }),
        }));
    } else {
        let version = rule["metadata"]["resourceVersion"].clone();
        operations.push(test(PointerBuf::from_tokens(["metadata", "resourceVersion"]), version));
        operations.push(add(path(&["labels"]), json!(differ.iter().copied().copied().collect::<BTreeMap<_, _>>())));
    }
    Ok(Some(Patch(operations)))
}

fn wrong_subset(rule: &Value, subsets: &[Value], name: &str, found: usize) -> RouteError {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let id = format!("{}/{}", text(&rule["metadata"]["namespace"]), text(&rule["metadata"]["name"]));
    let names: Vec<String> = subsets.iter().map(|s| text(&s["name"])).collect();
    let names = if names.is_empty() { "it has none".to_owned() } else { names.join(", ") };
    RouteError(match found {
        0 => format!("DestinationRule {id}: has no subset {name:?} ({names}); add it, or name one that exists"),
        n => format!("DestinationRule {id}: has {n} subsets {name:?}; give each a name of its own"),
    })
}
