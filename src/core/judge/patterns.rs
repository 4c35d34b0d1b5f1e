//! Redaction patterns of the user's own.

use regex::{Regex, RegexBuilder};

use crate::api::judge::RedactPattern;

/// Most bytes of a compiled pattern.
const SIZE: usize = 1 << 20;

/// Compiles a pattern. The engine takes time in proportion to the text whatever the pattern says.
///
/// # Errors
/// Why it cannot be used.
pub fn compile(pattern: &RedactPattern) -> Result<Regex, String> {
    let built = RegexBuilder::new(&pattern.pattern).size_limit(SIZE).dfa_size_limit(SIZE).nest_limit(50).build();
    match built {
        Ok(regex) if regex.is_match("") => Err("it matches the empty text, and so between all characters".into()),
        Ok(regex) => Ok(regex),
        Err(regex::Error::CompiledTooBig(limit)) => Err(format!("it is too large: more than {} KiB when compiled", limit / 1024)),
        Err(_) => Err("not a regular expression of RE2's syntax".into()),
    }
}
