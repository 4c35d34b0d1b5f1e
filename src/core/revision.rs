//! Identity of revisions.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Hex digits of a revision hash.
const REVISION_DIGITS: usize = 10;

/// Hash of a pod template, as it appears in names and labels. A field that is null counts as left out; one that is empty
/// does not: `emptyDir: {}` says something.
pub fn revision_hash(template: &impl Serialize) -> String {
    short_hash(template, REVISION_DIGITS)
}

/// Hash of a list of steps.
pub fn steps_hash(steps: &impl Serialize) -> String {
    short_hash(steps, REVISION_DIGITS)
}

fn short_hash(value: &impl Serialize, digits: usize) -> String {
    let mut value = serde_json::to_value(value).unwrap_or(Value::Null);
    drop_nulls(&mut value);
    // serde_json's map is sorted by key: the text is canonical.
    let digest = Sha256::digest(value.to_string().as_bytes());
    digest.iter().map(|b| format!("{b:02x}")).collect::<String>()[..digits].to_string()
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn key_order_and_nulls_do_not_matter_but_values_and_empty_objects_do() {
        let hash = |volumes: Value, image: &str| {
            let labels = json!({"x": "1"});
            revision_hash(
                &json!({"spec": {"containers": [{"name": "agent", "image": image}], "volumes": volumes}, "metadata": {"labels": labels}}),
            )
        };
        let b = json!({"metadata": {"labels": {"x": "1"}, "annotations": null}, "spec": {"volumes": [{"name": "v"}], "containers": [{"image": "a:v1", "name": "agent"}]}});
        assert_eq!(hash(json!([{"name": "v"}]), "a:v1"), revision_hash(&b));
        assert_ne!(hash(json!([{"name": "v"}]), "a:v1"), hash(json!([{"name": "v"}]), "a:v2"));
        assert_ne!(hash(json!([{"name": "v"}]), "a:v1"), hash(json!([{"name": "v", "emptyDir": {}}]), "a:v1"));
        assert_eq!(revision_hash(&b).len(), REVISION_DIGITS);
    }
}
