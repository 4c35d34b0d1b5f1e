//! What the schema cannot say about the count of live calls.

use std::collections::BTreeSet;

use super::{Check, MIN_INTERVAL};
use crate::api::sessions::Sessions;
use crate::core::SpecError;

/// Arguments that the query may use.
pub const SESSION_ARGS: [&str; 2] = ["namespace", "rollout"];

/// Checks `sessions`, which stands at `path`.
pub fn session_problems(sessions: &Sessions, path: &str) -> Vec<SpecError> {
    let known: BTreeSet<String> = SESSION_ARGS.into_iter().map(String::from).collect();
    let mut check = Check { known: &known, errors: Vec::new() };
    check.period(&format!("{path}.interval"), Some(sessions.interval), Some(MIN_INTERVAL));
    let (source, at) = (&sessions.active_calls, format!("{path}.activeCalls"));
    if source.http.is_none() && source.prometheus.is_none() {
        check.error(&at, "set http, prometheus or both");
    }
    if let Some(http) = &source.http {
        check.json_path(&format!("{at}.http.jsonPath"), &http.json_path);
        check.timeout(&format!("{at}.http.timeout"), http.timeout);
    }
    if let Some(prometheus) = &source.prometheus {
        check.server(&prometheus.server, &at);
        check.query(&format!("{at}.prometheus.query"), &prometheus.query);
    }
    check.errors
}
