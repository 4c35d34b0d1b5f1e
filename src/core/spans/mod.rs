//! What a trace shows of a release: the release, its steps, its analysis runs with their gates, and the drain. Spans are
//! made when what they show has ended, out of what was recorded; ids come from names, so that whoever makes a span again
//! makes the same one, and a run knows its parent although another process measures it.

mod release;
mod run;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

pub use release::{Subject, ended, parent_of_run};
pub use run::of_run;

/// Longest text in an attribute, in characters.
const MAX_TEXT: usize = 1000;

/// A place in a trace, as W3C Trace Context writes it: `00-<trace>-<span>-01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Id of the trace.
    pub trace: [u8; 16],
    /// Id of a span in it.
    pub span: [u8; 8],
}

impl Place {
    /// The root of the trace that these words name.
    fn root(words: &[&str]) -> Self {
        let hash = hash(words);
        let mut place = Self { trace: [0; 16], span: [0; 8] };
        place.trace.copy_from_slice(&hash[..16]);
        place.span.copy_from_slice(&hash[16..24]);
        place
    }

    /// The span in the same trace that these words name.
    fn child(&self, words: &[&str]) -> Self {
        let trace = self.to_string();
        let hash = hash(&[&[trace.as_str()], words].concat());
        let mut span = [0; 8];
        span.copy_from_slice(&hash[..8]);
        Self { trace: self.trace, span }
    }
}

fn hash(words: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for word in words {
        hash.update(word.as_bytes());
        hash.update([0]);
    }
    hash.finalize().into()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", u128::from_be_bytes(self.trace), u64::from_be_bytes(self.span))
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split('-').collect();
        let [_, trace, span, _] = parts[..] else { return Err(()) };
        if trace.len() != 32 || span.len() != 16 {
            return Err(());
        }
        let trace = u128::from_str_radix(trace, 16).map_err(|_| ())?.to_be_bytes();
        let span = u64::from_str_radix(span, 16).map_err(|_| ())?.to_be_bytes();
        if trace == [0; 16] || span == [0; 8] { Err(()) } else { Ok(Self { trace, span }) }
    }
}

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

/// Name and value.
pub type Attribute = (&'static str, Value);

/// Something that happened at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What.
    pub name: String,
    /// When.
    pub at: Timestamp,
    /// What there is to say about it.
    pub attributes: Vec<Attribute>,
}

/// Something that has begun and ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it is.
    pub place: Place,
    /// The span that it is part of; `None` for the root.
    pub parent: Option<[u8; 8]>,
    /// What; few different ones.
    pub name: String,
    /// Its begin.
    pub start: Timestamp,
    /// Its end; never before the begin.
    pub end: Timestamp,
    /// What there is to say about it.
    pub attributes: Vec<Attribute>,
    /// What happened meanwhile.
    pub moments: Vec<Moment>,
    /// Why it went wrong, if it did.
    pub failed: Option<String>,
}

impl Span {
    /// An attribute that is a text; empty when there is none of that name.
    pub fn text(&self, name: &str) -> &str {
        let found = self.attributes.iter().find(|(n, _)| *n == name);
        if let Some((_, Value::Text(text))) = found { text } else { "" }
    }
}

/// An attribute, unless the text is empty.
fn text(name: &'static str, text: &str) -> Option<Attribute> {
    (!text.is_empty()).then(|| (name, Value::Text(shortened(text))))
}

fn number(name: &'static str, number: impl Into<i64>) -> Option<Attribute> {
    Some((name, Value::Number(number.into())))
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_TEXT).collect();
    if short.len() < text.len() {
        short.pop();
        short.push('…');
    }
    short
}
