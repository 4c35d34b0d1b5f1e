//! Log lines: one JSON object a line on stdout.

use std::io::Write;

use serde_json::{Value, json};

use super::config::Config;

/// Writes one line.
pub fn line(config: &Config, level: &str, message: &str, fields: Value) {
    let mut entry = json!({
        "ts": jiff::Timestamp::now().to_string(),
        "level": level,
        "msg": message,
        "version": config.version,
        "revision": config.revision,
    });
    if let (Some(entry), Value::Object(fields)) = (entry.as_object_mut(), fields) {
        entry.extend(fields);
    }
    // A reader that went away is no reason to end calls.
    let _ = writeln!(std::io::stdout().lock(), "{entry}");
}
