//! What a manifest may say about an HTTP request: its URL and its headers.

use std::borrow::Cow;

use crate::api::provider::Header;

/// Headers that belong to the connection, or to the operator; in lower case.
pub const RESERVED_HEADERS: [&str; 8] =
    ["host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "proxy-authorization", "idempotency-key"];

/// Checks a URL. `instead` says where credentials belong.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(text: &str, instead: &str) -> Result<(), String> {
    if text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err("a URL has no spaces, line breaks or backslashes".into());
    }
    match url::Url::parse(text) {
        Err(reason) => Err(format!("not a URL: {reason}")),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => Err("the URL has to begin with http:// or https://".into()),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Err(format!("credentials do not belong into a URL: use {instead}"))
        }
        Ok(_) => Ok(()),
    }
}

/// Everything that is wrong with a header: the field below the header (`.name`, or empty for the whole), and what.
pub fn check_header(header: &Header) -> Vec<(&'static str, Cow<'static, str>)> {
    let mut problems: Vec<(&'static str, Cow<'static, str>)> = Vec::new();
    if http::HeaderName::from_bytes(header.name.as_bytes()).is_err() {
        problems.push((".name", format!("`{}` is not a header name", header.name.escape_debug()).into()));
    } else if RESERVED_HEADERS.contains(&header.name.to_ascii_lowercase().as_str()) {
        problems.push((".name", format!("the header {} cannot be set here", header.name).into()));
    }
    match (&header.value, &header.secret_key_ref) {
        (Some(value), None) if value.chars().any(char::is_control) => {
            problems.push((".value", "a header value has no line breaks or control characters".into()));
        }
        (Some(_), None) | (None, Some(_)) => {}
        _ => problems.push(("", "a header has exactly one of value, secretKeyRef".into())),
    }
    problems
}
