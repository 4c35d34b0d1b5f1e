//! The API server's audit log: who wrote what when, to the microsecond.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;

use crate::stack::Result;

/// A write that the API server has answered.
pub struct Write {
    /// `patch virtualservices`, `update voicerollouts/status` ...
    pub what: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object; empty when the server made it up.
    pub name: String,
    /// HTTP status.
    pub code: u64,
    /// When the API server had read the request.
    pub received: Timestamp,
    /// When it had answered.
    pub answered: Timestamp,
}

/// All writes of a user, in the order of their answers.
pub fn writes(log: &Path, user: &str) -> Result<Vec<Write>> {
    let text = std::fs::read_to_string(log)?;
    // The last line may be half written.
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(entries.filter(|e| e["user"]["username"] == user && e["stage"] == "ResponseComplete").filter_map(|e| write(&e)).collect())
}

fn write(entry: &Value) -> Option<Write> {
    let object = &entry["objectRef"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let part = object["subresource"].as_str().map(|part| format!("/{part}")).unwrap_or_default();
    Some(Write {
        what: format!("{} {}{part}", text(&entry["verb"]), text(&object["resource"])),
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        code: entry["responseStatus"]["code"].as_u64().unwrap_or(0),
        received: entry["requestReceivedTimestamp"].as_str()?.parse().ok()?,
        answered: entry["stageTimestamp"].as_str()?.parse().ok()?,
    })
}

/// How many of each kind.
pub fn by_kind<'a>(writes: impl IntoIterator<Item = &'a Write>) -> BTreeMap<&'a str, usize> {
    let mut kinds = BTreeMap::new();
    for write in writes {
        *kinds.entry(write.what.as_str()).or_insert(0) += 1;
    }
    kinds
}

/// Milliseconds between two moments.
pub fn between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1000.0
}
