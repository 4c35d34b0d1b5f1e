//! Identity of revisions.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Hex digits of a revision hash.
const REVISION_DIGITS: usize = 10;

/// Hash of a pod template, as it appears in names and labels. Fields that are null, empty objects or empty lists do
/// not count, so that spelling out an empty field does not make a new revision.
pub fn revision_hash(template: &impl Serialize) -> String {
    short_hash(template, REVISION_DIGITS)
}

/// Hash of a list of steps.
pub fn steps_hash(steps: &impl Serialize) -> String {
    short_hash(steps, REVISION_DIGITS)
}

fn short_hash(value: &impl Serialize, digits: usize) -> String {
    let mut value = serde_json::to_value(value).unwrap_or(Value::Null);
    drop_empty(&mut value);
    // serde_json's map is sorted by key: the text is canonical.
    let digest = Sha256::digest(value.to_string().as_bytes());
    digest.iter().map(|b| format!("{b:02x}")).collect::<String>()[..digits].to_string()
}

fn drop_empty(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(drop_empty);
            map.retain(|_, v| !is_empty(v));
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn key_order_and_empty_fields_do_not_matter_but_values_do() {
        let a = json!({"spec": {"containers": [{"name": "agent", "image": "a:v1"}], "volumes": []}, "metadata": {"labels": {"x": "1"}}});
        let b =
            json!({"metadata": {"labels": {"x": "1"}, "annotations": null}, "spec": {"containers": [{"image": "a:v1", "name": "agent"}]}});
        let c = json!({"metadata": {"labels": {"x": "1"}}, "spec": {"containers": [{"image": "a:v2", "name": "agent"}]}});
        assert_eq!(revision_hash(&a), revision_hash(&b));
        assert_ne!(revision_hash(&a), revision_hash(&c));
        assert_eq!(revision_hash(&a).len(), REVISION_DIGITS);
    }
}
