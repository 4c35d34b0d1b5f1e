//! What the operator wrote, as the API server's audit log has it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::env::{OPERATOR_USER, World};
use crate::stack::Result;

/// Writes of the operator in a namespace, by what was written: `patch virtualservices`, `update voicerollouts/status` ...
pub fn writes(world: &World, namespace: &str) -> Result<BTreeMap<String, u32>> {
    let mut writes = BTreeMap::new();
    for line in std::fs::read_to_string(world.stack.audit_log())?.lines() {
        // The last line may be half written.
        let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
        let object = &entry["objectRef"];
        if entry["user"]["username"] != OPERATOR_USER || object["namespace"] != namespace || entry["stage"] != "ResponseComplete" {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut what = format!("{} {}", text(&entry["verb"]), text(&object["resource"]));
        if let Some(part) = object["subresource"].as_str() {
            what = format!("{what}/{part}");
        }
        *writes.entry(what).or_default() += 1;
    }
    Ok(writes)
}
