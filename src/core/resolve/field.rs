//! `fieldRef`: one scalar of the VoiceRollout.

use serde_json::Value;

/// Reads `metadata.labels['team']`, `spec.template.spec.containers[0].image`, with or without a leading dot.
pub fn read(root: &Value, path: &str) -> Result<String, String> {
    let mut at = root;
    for part in parts(path)? {
        let next = match &part {
            Part::Key(key) => at.get(key.as_str()),
            Part::Index(index) => at.get(*index),
        };
        at = next.ok_or_else(|| format!("the VoiceRollout has no field `{path}`"))?;
    }
    match at {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(at.to_string()),
        _ => Err(format!("the field `{path}` is not a text, a number or a boolean")),
    }
}

enum Part {
    Key(String),
    Index(usize),
}

fn parts(path: &str) -> Result<Vec<Part>, String> {
    let bad = || format!("`{path}` is not a field path like metadata.labels['team'] or spec.replicas");
    let mut parts = Vec::new();
    let mut rest = path.strip_prefix('.').unwrap_or(path);
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let quote = inner.chars().next().filter(|c| matches!(c, '\'' | '"'));
            let end = match quote {
                Some(q) => inner[1..].find(q).map(|i| i + 2).ok_or_else(bad)?,
                None => inner.find(']').ok_or_else(bad)?,
            };
            parts.push(match quote {
                Some(_) => Part::Key(inner[1..end - 1].to_owned()),
                None => Part::Index(inner[..end].parse().map_err(|_| bad())?),
            });
            rest = inner[end..].strip_prefix(']').ok_or_else(bad)?;
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            if end == 0 {
                return Err(bad());
            }
            parts.push(Part::Key(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        if let Some(after) = rest.strip_prefix('.') {
            if after.is_empty() || after.starts_with('.') {
                return Err(bad());
            }
            rest = after;
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_read_or_explained() {
        let root = json!({ "metadata": { "labels": { "team": "a", "x.y/z": "b" } }, "spec": { "replicas": 3, "paused": false,
            "list": [{ "image": "i:1" }], "none": null } });
        for (path, expected) in [
            ("metadata.labels['team']", "a"),
            ("metadata.labels[\"x.y/z\"]", "b"),
            (".spec.replicas", "3"),
            ("spec.paused", "false"),
            ("spec.list[0].image", "i:1"),
        ] {
            assert_eq!(read(&root, path).as_deref(), Ok(expected), "{path}");
        }
        for (path, part) in [
            ("spec.nothing", "has no field"),
            ("spec.list[1]", "has no field"),
            ("spec.list", "is not a text"),
            ("spec.none", "is not a text"),
            ("", "not a field path"),
            ("a..b", "not a field path"),
            ("a.", "not a field path"),
            ("a[", "not a field path"),
            ("a['b", "not a field path"),
            ("a[x]", "not a field path"),
            ("a['b'c", "not a field path"),
        ] {
            let error = read(&root, path).expect_err(path);
            assert!(error.contains(part), "{path}: {error}");
        }
    }
}
