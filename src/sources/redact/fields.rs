//! Fields whose name says that their value is personal or secret, in JSON, `key=value` and `key: value` text.

use std::sync::LazyLock;

use regex::Regex;

use super::compile;

/// Names with a `pii` part between dots, and usual names of credentials. `\x5c` is a backslash: JSON in JSON.
static KEY: LazyLock<Regex> = LazyLock::new(|| {
    compile(concat!(
        r"(?i)(?P<key>\b[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.pii\.[a-z0-9_.-]*[a-z0-9_-]|\bpii\.[a-z0-9_.-]*[a-z0-9_-]",
        r"|\b[a-z0-9_.-]*(?:passwords?|passwd|secrets?|api[_-]?keys?|access[_-]?keys?|auth[_-]?tokens?|access[_-]?tokens?|refresh[_-]?tokens?|client[_-]?secret|authorization|cookie)|\btoken)",
        r"(?P<quote>\x5c*[\x22'])?\s*[:=][ ]*",
    ))
});

/// Puts `[redacted]` in place of such values.
pub(super) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = KEY.captures_at(text, at) {
        let Some(whole) = found.get(0) else { break };
        let quote = found.name("quote").map_or("", |q| q.as_str());
        let end = value_end(text, whole.end());
        out.push_str(&text[at..whole.end()]);
        if end > whole.end() {
            let bare = text[whole.end()..end].starts_with(|c: char| !matches!(c, '"' | '\'' | '\\')) && quote.is_empty();
            let quote = if bare {
                ""
            } else if quote.is_empty() {
                opening_quote(&text[whole.end()..end])
            } else {
                quote
            };
            out.push_str(&format!("{quote}[redacted]{quote}"));
        }
        at = end;
    }
    out.push_str(&text[at..]);
    out
}

/// The quote that a value begins with, escapes included: `"`, `'`, `\"`.
fn opening_quote(value: &str) -> &str {
    let slashes = value.len() - value.trim_start_matches('\\').len();
    match value[slashes..].chars().next() {
        Some('"' | '\'') => &value[..=slashes],
        _ => "",
    }
}

/// Where the value that begins at `start` ends.
fn value_end(text: &str, start: usize) -> usize {
    let value = &text[start..];
    let quote = opening_quote(value);
    let length = if !quote.is_empty() {
        quoted_length(value, quote)
    } else if value.starts_with(['{', '[']) && !value.starts_with("[redacted]") {
        bracketed_length(value)
    } else {
        bare_length(value)
    };
    start + length
}

/// Length of a quoted value with its quotes; to the end of the line when the closing quote is missing.
fn quoted_length(value: &str, quote: &str) -> usize {
    let line = value.find('\n').unwrap_or(value.len());
    let mut from = quote.len();
    while let Some(found) = value[from..line].find(quote) {
        let at = from + found;
        // A quote with more backslashes before it belongs to the value.
        let slashes = value[quote.len()..at].len() - value[quote.len()..at].trim_end_matches('\\').len();
        if slashes.is_multiple_of(2) {
            return at + quote.len();
        }
        from = at + quote.len();
    }
    line
}

/// Length of an object or list; to the end of the text when it does not close.
fn bracketed_length(value: &str) -> usize {
    let (mut depth, mut inside, mut escaped) = (0_usize, false, false);
    for (i, c) in value.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = inside,
            '"' => inside = !inside,
            '{' | '[' if !inside => depth += 1,
            '}' | ']' if !inside => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
    }
    value.len()
}

/// Length of a value without quotes: to a comma or closing bracket, or to the space before the next `key=` or `key:`.
fn bare_length(value: &str) -> usize {
    static NEXT: LazyLock<Regex> = LazyLock::new(|| compile(r"^\s+[\x22']?[A-Za-z0-9_.-]+[\x22']?[=:]"));
    if value.starts_with("[redacted]") {
        return "[redacted]".len();
    }
    let mut open = 0_usize;
    for (i, c) in value.char_indices() {
        let ends = match c {
            '[' => {
                open += 1;
                false
            }
            ']' if open > 0 => {
                open -= 1;
                false
            }
            '\n' | ',' | ';' | '}' | ']' | '&' | '"' => true,
            ' ' => NEXT.is_match(&value[i..]),
            _ => false,
        };
        if ends {
            return value[..i].trim_end().len();
        }
    }
    value.trim_end().len()
}
