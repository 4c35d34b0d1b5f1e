//! Takes personal data, credentials and control characters out of text that others wrote.
//!
//! Logs and answers are untrusted: what a caller says or a server returns must not reach a model, a status or an
//! event as it is. When in doubt this removes too much.

mod checks;
mod digits;
mod fields;
mod ids;

use std::borrow::Cow;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;

/// Secret values that must not appear in any text, and patterns of the user's own.
#[derive(Clone, Default)]
pub struct Known {
    /// Longest first, so that a value that contains another one goes as a whole.
    values: Vec<String>,
    /// With what is put in place of a match.
    patterns: Vec<(Regex, String)>,
}

impl Known {
    /// Remembers a value, and how it looks in URLs, JSON and base64.
    pub fn add(&mut self, value: &str) {
        let json = serde_json::Value::String(value.to_owned()).to_string();
        let url = url::form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>();
        let forms = [
            value.to_owned(),
            value.trim().to_owned(),
            json[1..json.len() - 1].to_owned(),
            url.replace('+', "%20").replace("%7E", "~"),
            url,
            STANDARD.encode(value),
        ];
        for form in forms {
            let stars = form.chars().all(|c| c == '*');
            if !stars && !self.values.contains(&form) {
                self.values.push(form);
            }
        }
        self.values.sort_by_key(|v| std::cmp::Reverse(v.len()));
    }

    /// The text with `***` in place of every known value.
    pub fn scrub(&self, text: &str) -> String {
        self.values.iter().fold(text.to_owned(), |t, v| if t.contains(v.as_str()) { t.replace(v.as_str(), "***") } else { t })
    }

    /// Remembers a pattern; [`redact`] puts `[name]` in place of what it matches.
    pub fn add_pattern(&mut self, pattern: Regex, name: &str) {
        self.patterns.push((pattern, format!("[{name}]")));
    }

    /// The text with the user's patterns taken out.
    fn without_patterns<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut text = Cow::Borrowed(text);
        for (pattern, name) in &self.patterns {
            if let Cow::Owned(changed) = pattern.replace_all(&text, regex::NoExpand(name)) {
                text = Cow::Owned(changed);
            }
        }
        text
    }

    /// Whether a known value is in the text.
    pub fn is_in(&self, text: &str) -> bool {
        self.values.iter().any(|v| text.contains(v.as_str()))
    }
}

/// Redacts e-mail addresses, phone, card, bank account and national identity numbers, credentials, `*.pii.*` fields, what
/// the user's patterns match and the known secrets, and drops control characters except line breaks.
pub fn redact(text: &str, known: &Known) -> String {
    let mut text = known.scrub(&known.without_patterns(&plain(text)));
    // One rule's replacement can put another rule's pattern together; a few rounds settle it.
    for _ in 0..4 {
        let next = one_round(&text);
        if next == text {
            break;
        }
        text = next;
    }
    known.scrub(&text)
}

fn one_round(text: &str) -> String {
    let mut text = Cow::Borrowed(text);
    for (pattern, replacement) in PATTERNS.iter() {
        if let Cow::Owned(changed) = pattern.replace_all(&text, *replacement) {
            text = Cow::Owned(changed);
        }
    }
    let text = fields::redact(&text);
    let text = ids::redact_ibans(&text);
    let text = digits::redact_cards(&text);
    let text = ids::redact(&text);
    digits::redact_phones(&text)
}

/// Takes out of a log line what would be hidden from [`redact`] once its numbers are masked and its words compared with
/// those of other lines: the user's patterns, secrets, credentials and named fields. Most lines come back as they are.
pub fn for_mining<'t>(line: &'t str, known: &Known) -> Cow<'t, str> {
    let line = if line.bytes().any(is_odd) { Cow::Owned(plain(line)) } else { Cow::Borrowed(line) };
    let line = if known.patterns.is_empty() { line } else { Cow::Owned(known.without_patterns(&line).into_owned()) };
    let line = if known.is_in(&line) { Cow::Owned(known.scrub(&line)) } else { line };
    let mut text = line;
    if CREDENTIAL.is_match(&text) {
        // Addresses are masked with the numbers.
        for at in CREDENTIALS.matches(&text) {
            let (pattern, replacement) = &PATTERNS[at];
            if let Cow::Owned(changed) = pattern.replace_all(&text, *replacement) {
                text = Cow::Owned(changed);
            }
        }
    }
    if FIELD.is_match(&text) { Cow::Owned(fields::redact(&text)) } else { text }
}

/// A control character, or the first byte of a character that may be invisible.
fn is_odd(b: u8) -> bool {
    b < b' ' || matches!(b, 0x7f | 0xc2 | 0xd8 | 0xe1 | 0xe2 | 0xef | 0xf3)
}

/// Something that a credential begins with; most lines hold none, and this is quicker than the patterns.
static CREDENTIAL: LazyLock<Regex> = LazyLock::new(|| {
    compile(concat!(
        r"(?i:bearer\s|basic\s|private key|sips?:|tel:)",
        r"|[spr]k[-_][A-Za-z0-9]|AKIA|ASIA|AIza|gh[pousr]_|github_pat|glpat-|xox[a-z]-|eyJ",
    ))
});

/// The patterns of [`PATTERNS`] but the last, which are addresses.
#[allow(clippy::expect_used)] // the patterns are constants
static CREDENTIALS: LazyLock<regex::RegexSet> = LazyLock::new(|| {
    let patterns = PATTERNS[..PATTERNS.len() - 1].iter().map(|(pattern, _)| pattern.as_str());
    regex::RegexSet::new(patterns).expect("constant patterns")
});

/// Something that a named field's name holds.
static FIELD: LazyLock<Regex> =
    LazyLock::new(|| compile(r"(?i)pii\.|passw|secret|api[_-]?key|access[_-]?key|token[\x22'\x5c]*\s*[:=]|authorization|cookie"));

/// Drops ANSI sequences, control characters and invisible format characters; tabs become spaces, line breaks stay.
pub fn plain(text: &str) -> String {
    let text = ANSI.replace_all(text, "");
    text.chars()
        .filter_map(|c| match c {
            '\n' => Some('\n'),
            '\t' => Some(' '),
            c if c.is_control() || is_invisible(c) => None,
            c => Some(c),
        })
        .collect()
}

/// One line of at most `max` characters, without control characters.
pub fn line(text: &str, max: usize) -> String {
    let text = plain(text);
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if joined.chars().count() <= max {
        return joined;
    }
    let cut: String = joined.chars().take(max.saturating_sub(1)).collect();
    format!("{}…", cut.trim_end())
}

/// Zero-width, direction and tag characters: they hide text from people, not from models.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A pattern of ours. Each is compiled in the tests.
#[allow(clippy::expect_used)] // the patterns are constants
pub(super) fn compile(pattern: &str) -> Regex {
    Regex::new(pattern).expect("constant pattern")
}

static ANSI: LazyLock<Regex> =
    LazyLock::new(|| compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]|\u{9b}[0-?]*[ -/]*[@-~]"));

/// Credentials by their own shape, then addresses.
static PATTERNS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*PRIVATE KEY-----)?", "[key]"),
        (r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}", "$1 [token]"),
        (r"\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{12,}", "[token]"),
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", "[token]"),
        (r"\bAIza[A-Za-z0-9_-]{30,}", "[token]"),
        (r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}", "[token]"),
        (r"\bxox[abposr]-[A-Za-z0-9-]{10,}", "[token]"),
        (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?", "[token]"),
        (r"(?i)\b(sips?:|tel:)[^\s;,<>\x22'\[]+", "$1[address]"),
        (r"[\p{L}\p{N}._%+'-]+@[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)+", "[email]"),
    ]
    .into_iter()
    .map(|(pattern, replacement)| (compile(pattern), replacement))
    .collect()
});

#[cfg(test)]
#[path = "tests/redact.rs"]
mod tests;
