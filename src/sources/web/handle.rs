//! What is kept of a run that has been started: enough to poll and cancel it after a restart.

use serde::{Deserialize, Serialize};
use url::Url;

/// Longest id, in bytes.
const MAX_ID: usize = 256;
/// Longest URL, in bytes.
const MAX_URL: usize = 1024;

/// What the answer to the start says about the run. It is kept in a status, so it holds no secret: URLs from the manifest
/// are filled in at each request, and only what the harness itself answered is here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Handle {
    /// The run's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// Where to poll, if the answer says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) poll: Option<String>,
    /// Where to cancel, if the answer says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cancel: Option<String>,
}

impl Handle {
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// An id that can be kept and put into a URL.
pub(super) fn id(value: &serde_json::Value) -> Result<String, String> {
    let text = match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(n) if n.is_i64() || n.is_u64() => n.to_string(),
        _ => return Err("is not a text or a whole number".into()),
    };
    if text.is_empty() || text.len() > MAX_ID || text.chars().any(char::is_control) {
        return Err(format!("is empty, longer than {MAX_ID} bytes, or has control characters"));
    }
    Ok(text)
}

/// A URL that an answer gives, in full. An answer never forms a scheme, host or port.
pub(super) fn same_server(start: &Url, text: &str) -> Result<Url, String> {
    if text.len() > MAX_URL {
        return Err(format!("is longer than {MAX_URL} bytes"));
    }
    let url = start.join(text).map_err(|_| "is not a URL".to_owned())?;
    if url.origin() != start.origin() || !url.origin().is_tuple() {
        return Err("has another scheme, host or port than the start, and is not used".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds credentials, and is not used".into());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_server_that_was_started_on() {
        let start = Url::parse("https://evals.internal/api/runs?x=1").unwrap();
        for (text, url) in [
            ("/api/runs/7", "https://evals.internal/api/runs/7"),
            ("runs/7", "https://evals.internal/api/runs/7"),
            ("https://evals.internal:443/r", "https://evals.internal/r"),
            ("?id=7", "https://evals.internal/api/runs?id=7"),
        ] {
            assert_eq!(same_server(&start, text).unwrap().as_str(), url, "{text}");
        }
        for text in [
            "https://evil/r",
            "//evil/r",
            "http://evals.internal/r",
            "https://evals.internal:444/r",
            "https://evals.internal.evil/r",
            "https://evals.internal@evil/r",
            "https://u:p@evals.internal/r",
            "\\\\evil/r",
            "file:///etc/passwd",
            "data:text/plain,x",
            "javascript:x",
            "https://",
        ] {
            assert!(same_server(&start, text).is_err(), "{text}");
        }
        assert!(same_server(&start, &format!("/{}", "x".repeat(2000))).is_err());
    }

    #[test]
    fn ids() {
        assert_eq!(id(&json!("a b/7")).unwrap(), "a b/7");
        assert_eq!(id(&json!(7)).unwrap(), "7");
        for bad in [json!(""), json!("a\nb"), json!("x".repeat(300)), json!(1.5), json!(null), json!({"a": 1}), json!(true)] {
            assert!(id(&bad).is_err(), "{bad}");
        }
    }
}
