//! `{{args.NAME}}`: filled in and escaped for where it is put.
//!
//! A value can never change the structure around it: it stays inside its URL component, JSON string, PromQL string or
//! header. It never forms scheme, host or port.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// An argument's value.
#[derive(Clone, PartialEq, Eq)]
pub struct ArgValue {
    /// The text.
    pub text: String,
    /// It came from a Secret: it must not reach a status, an event, a log line or an error text.
    pub secret: bool,
}

impl ArgValue {
    /// A value that anybody may see.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), secret: false }
    }
}

impl std::fmt::Debug for ArgValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.secret { "***" } else { &self.text })
    }
}

/// A filled template. Its `Debug` hides what holds a Secret's value.
pub type Filled = ArgValue;

/// Where a value is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A URL: percent-encoded in path, query and fragment, refused before.
    Url,
    /// A JSON document: escaped inside a string; outside only a number, `true` or `false`.
    Json,
    /// A PromQL query: escaped inside a string; outside only a name, number or duration.
    PromQl,
    /// A CEL condition: escaped inside a string; outside only a number, `true` or `false`.
    Cel,
    /// A header value: refused with control characters.
    Header,
    /// A prompt or other plain text: as it is. Other `{{` are left alone.
    Text,
}

/// Why a template cannot be filled. Never holds a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgError {
    /// `{{` without a known meaning, or without its end.
    #[error("`{0}`: write {{{{args.NAME}}}}")]
    Syntax(String),
    /// No such argument.
    #[error("argument `{name}` is not known here; known are {known}")]
    Unknown {
        /// Its name.
        name: String,
        /// The names that are known.
        known: String,
    },
    /// The placeholder stands where none may stand.
    #[error("argument `{name}` cannot stand {place}")]
    Placement {
        /// Its name.
        name: String,
        /// Where it stands.
        place: &'static str,
    },
    /// The value does not fit where it is put.
    #[error("the value of argument `{name}` cannot be used here: {reason}")]
    Value {
        /// Its name.
        name: String,
        /// Why not, without the value.
        reason: &'static str,
    },
}

enum Piece<'a> {
    Literal(&'a str),
    Arg(&'a str),
}

/// Fills a template.
///
/// # Errors
/// An unknown argument, one that stands where none may, or a value that does not fit.
pub fn fill(template: &str, place: Place, args: &BTreeMap<String, ArgValue>) -> Result<Filled, ArgError> {
    let mut filled = Filled { text: String::with_capacity(template.len()), secret: false };
    let mut scan = Scan::new(place);
    for piece in pieces(template, place)? {
        match piece {
            Piece::Literal(text) => {
                scan.advance(text);
                filled.text.push_str(text);
            }
            Piece::Arg(name) => {
                let value = args.get(name).ok_or_else(|| unknown(name, args.keys()))?;
                scan.put(name, &value.text, &mut filled.text)?;
                filled.secret |= value.secret;
            }
        }
    }
    scan.finish(&filled.text)?;
    Ok(filled)
}

/// Checks names and placement without values.
///
/// # Errors
/// As [`fill`], apart from values.
pub fn check(template: &str, place: Place, known: &BTreeSet<String>) -> Result<(), ArgError> {
    let mut scan = Scan::new(place);
    for piece in pieces(template, place)? {
        match piece {
            Piece::Literal(text) => scan.advance(text),
            Piece::Arg(name) if !known.contains(name) => return Err(unknown(name, known.iter())),
            Piece::Arg(name) => scan.allowed(name)?,
        }
    }
    Ok(())
}

/// Names of the arguments that a template uses.
///
/// # Errors
/// `{{` without a known meaning.
pub fn names(template: &str, place: Place) -> Result<BTreeSet<String>, ArgError> {
    let pieces = pieces(template, place)?;
    Ok(pieces.iter().filter_map(|p| if let Piece::Arg(name) = p { Some((*name).to_owned()) } else { None }).collect())
}

/// Puts stand-ins in place of the arguments, so that the text around them can be parsed: `quoted` inside strings and
/// URLs, `bare` outside.
///
/// # Errors
/// As [`check`], for any argument name.
pub fn probe(template: &str, place: Place, quoted: &str, bare: &str) -> Result<String, ArgError> {
    let mut text = String::with_capacity(template.len());
    let mut scan = Scan::new(place);
    for piece in pieces(template, place)? {
        match piece {
            Piece::Literal(literal) => {
                scan.advance(literal);
                text.push_str(literal);
            }
            Piece::Arg(name) => {
                scan.allowed(name)?;
                text.push_str(if scan.quote.is_some() || matches!(place, Place::Url | Place::Header | Place::Text) {
                    quoted
                } else {
                    bare
                });
            }
        }
    }
    Ok(text)
}

/// `{{run.id}}` and `{{run.key}}`, the facts of an eval run, as arguments of that name.
pub fn run_facts(template: &str) -> Cow<'_, str> {
    if !template.contains("run.") {
        return Cow::Borrowed(template);
    }
    let mut text = template.to_owned();
    for fact in ["run.id", "run.key"] {
        for written in [format!("{{{{{fact}}}}}"), format!("{{{{ {fact} }}}}")] {
            text = text.replace(&written, &format!("{{{{args.{fact}}}}}"));
        }
    }
    Cow::Owned(text)
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> ArgError {
    ArgError::Unknown { name: name.into(), known: known.map(String::as_str).collect::<Vec<_>>().join(", ") }
}

fn pieces(template: &str, place: Place) -> Result<Vec<Piece<'_>>, ArgError> {
    let mut out = Vec::new();
    let (mut rest, mut literal_from) = (template, 0);
    while let Some(at) = rest.find("{{") {
        let start = template.len() - rest.len() + at;
        let inner = &rest[at + 2..];
        let name = inner.split_once("}}").and_then(|(name, _)| name.trim().strip_prefix("args.").map(|n| (n, name.len())));
        match name {
            Some((name, length)) if valid_name(name) => {
                out.push(Piece::Literal(&template[literal_from..start]));
                out.push(Piece::Arg(name));
                rest = &inner[length + 2..];
                literal_from = template.len() - rest.len();
            }
            _ if place == Place::Text && !inner.trim_start().starts_with("args.") => rest = inner,
            // `{{` also opens nested objects in a JSON body and nothing else does.
            _ => return Err(ArgError::Syntax(rest[at..].chars().take(40).collect())),
        }
    }
    out.push(Piece::Literal(&template[literal_from..]));
    Ok(out)
}

fn valid_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Follows the structure of the template, to know where a value is put.
struct Scan {
    place: Place,
    /// The open string's quote.
    quote: Option<char>,
    /// The next character is escaped.
    escaped: bool,
    /// Inside a PromQL comment.
    comment: bool,
    /// URL so far, to know whether the authority is over.
    url: String,
    /// Last argument put into a URL path.
    last: String,
}

impl Scan {
    fn new(place: Place) -> Self {
        Self { place, quote: None, escaped: false, comment: false, url: String::new(), last: String::new() }
    }

    fn advance(&mut self, text: &str) {
        match self.place {
            Place::Url => self.url.push_str(text),
            Place::Json => text.chars().for_each(|c| self.step(c, &['"'])),
            Place::PromQl => text.chars().for_each(|c| self.step(c, &['"', '\'', '`'])),
            Place::Cel => text.chars().for_each(|c| self.step(c, &['"', '\''])),
            Place::Header | Place::Text => {}
        }
    }

    fn step(&mut self, c: char, quotes: &[char]) {
        if self.comment {
            self.comment = c != '\n';
            return;
        }
        match self.quote {
            Some(_) if self.escaped => self.escaped = false,
            Some(quote) if c == '\\' && quote != '`' => self.escaped = true,
            Some(quote) if c == quote => self.quote = None,
            Some(_) => {}
            None if quotes.contains(&c) => self.quote = Some(c),
            None => self.comment = c == '#' && self.place == Place::PromQl,
        }
    }

    /// Whether an argument may stand here.
    fn allowed(&self, name: &str) -> Result<(), ArgError> {
        let misplaced = |place| Err(ArgError::Placement { name: name.into(), place });
        if self.place == Place::Url && !authority_is_over(&self.url) {
            return misplaced("in a URL's scheme, host or port");
        }
        if self.escaped {
            return misplaced("right after a backslash");
        }
        if self.comment {
            return misplaced("in a comment");
        }
        Ok(())
    }

    fn put(&mut self, name: &str, value: &str, out: &mut String) -> Result<(), ArgError> {
        self.allowed(name)?;
        let refuse = |reason| Err(ArgError::Value { name: name.into(), reason });
        match (self.place, self.quote) {
            (Place::Url, _) => {
                let encoded = percent_encode(value);
                self.url.push_str(&encoded);
                name.clone_into(&mut self.last);
                out.push_str(&encoded);
            }
            (Place::Header, _) if value.chars().any(char::is_control) => {
                return refuse("a header value has no line breaks or control characters");
            }
            (Place::Header | Place::Text, _) => out.push_str(value),
            (_, Some('`')) if value.contains('`') => return refuse("it holds a backtick; write the string with double quotes"),
            (_, Some('`')) => out.push_str(value),
            (Place::Json, Some(_)) => {
                let quoted = serde_json::Value::from(value).to_string();
                out.push_str(&quoted[1..quoted.len() - 1]);
            }
            (_, Some(quote)) => escape(value, quote, out),
            (Place::PromQl, None)
                if !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.')) =>
            {
                out.push_str(value);
            }
            (Place::PromQl, None) => return refuse("outside quotes only a name, a number or a duration can stand"),
            (Place::Json | Place::Cel, None) if is_literal(value) => out.push_str(value),
            (Place::Json | Place::Cel, None) => return refuse("outside quotes only a number, true or false can stand"),
        }
        Ok(())
    }

    /// A value must not turn a path segment into `.` or `..`.
    fn finish(&self, filled: &str) -> Result<(), ArgError> {
        if self.place != Place::Url || self.last.is_empty() {
            return Ok(());
        }
        let path = filled.split(['?', '#']).next().unwrap_or_default();
        let climbs = path.split(['/', '\\']).any(|s| matches!(s.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | ".."));
        if climbs {
            return Err(ArgError::Value { name: self.last.clone(), reason: "it makes a path segment `.` or `..`" });
        }
        Ok(())
    }
}

/// Whether scheme, host and port end before the end of `url`. Strict, because URL parsers are lenient: they drop tabs and
/// extra slashes, after which what follows would be the host.
fn authority_is_over(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let Some(end) = rest.find(['/', '?', '#']) else { return false };
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
        && end > 0
        && rest[..end].chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']'))
}

fn is_literal(value: &str) -> bool {
    matches!(value, "true" | "false") || serde_json::from_str::<serde_json::Number>(value).is_ok()
}

/// RFC 3986: everything but the unreserved characters.
fn percent_encode(value: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Escapes for a quoted string of PromQL or CEL. Only the string's own quote is escaped: Go's rules, which PromQL
/// follows, refuse the other one.
fn escape(value: &str, quote: char, out: &mut String) {
    use std::fmt::Write as _;
    for c in value.chars() {
        match c {
            c if c == '\\' || c == quote => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests;
