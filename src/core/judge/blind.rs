//! Blinding: the model is shown arms `A` and `B`, and which of them is the canary changes from vote to vote.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use sha2::{Digest, Sha256};

/// Which letter each version has in one vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arms {
    /// The canary is shown as `A`, and so first.
    canary_first: bool,
}

impl Arms {
    /// The letters of the `vote`th vote (from 0) of the measurement with this key. The first one looks random; from then
    /// on they alternate, so that a liking for one place cannot decide.
    pub fn of(key: &str, vote: usize) -> Self {
        let first = Sha256::digest(format!("arms {key}"))[0] & 1 == 1;
        Self { canary_first: first ^ (vote % 2 == 1) }
    }

    /// Letter of the canary.
    pub fn canary(self) -> char {
        if self.canary_first { 'A' } else { 'B' }
    }

    /// Letter of stable.
    pub fn stable(self) -> char {
        if self.canary_first { 'B' } else { 'A' }
    }

    /// The text with letters in place of the words `canary` and `stable`, in a text that uses them as names.
    pub fn blind(self, text: &str) -> String {
        let letter = |found: &Captures<'_>| {
            let canary = found[2].eq_ignore_ascii_case("canary");
            format!("arm {}", if canary { self.canary() } else { self.stable() })
        };
        NAMES.replace_all(text, letter).into_owned()
    }

    /// A text that others wrote, such as a log line: only the word `canary` goes, since `stable` has other meanings.
    pub fn blind_foreign(self, text: &str) -> String {
        CANARY.replace_all(text, format!("arm {}", self.canary()).as_str()).into_owned()
    }

    /// The model's sentence with the versions' names in place of the letters.
    pub fn unblind(self, text: &str) -> String {
        let name = |letter: &str| if letter.to_ascii_uppercase().starts_with(self.canary()) { "canary" } else { "stable" };
        let text = ARM.replace_all(text, |found: &Captures<'_>| name(&found[1]).to_owned());
        let mut out = String::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            match c {
                'A' | 'B' if is_lone_arm(&text, at) => out.push_str(name(&text[at..=at])),
                c => out.push(c),
            }
        }
        out
    }
}

/// Whether the letter at `at` stands for an arm. A lone `B` does. A lone `A` may be an article: it is an arm inside a
/// sentence, where an article would be small, before a verb, and where a word ends with it.
fn is_lone_arm(text: &str, at: usize) -> bool {
    let (before, after) = (&text[..at], &text[at + 1..]);
    let joins = |c: char| c.is_alphanumeric() || matches!(c, '_' | '/' | '-' | '&');
    if before.ends_with(|c: char| joins(c) || c == '\'') || after.starts_with(joins) {
        return false;
    }
    let next = after.trim_start();
    let word: String = next.chars().take_while(|c| c.is_alphabetic()).collect();
    let inside = before.trim_end().chars().next_back().is_some_and(|c| !matches!(c, '.' | '!' | '?'));
    text[at..].starts_with('B') || inside || !after.starts_with(' ') || VERBS.contains(&word.as_str())
}

/// Words that follow the name of an arm and no article.
const VERBS: [&str; 16] =
    ["has", "had", "is", "was", "shows", "showed", "makes", "made", "does", "did", "fails", "and", "or", "vs", "against", "needs"];

#[allow(clippy::expect_used)] // the patterns are constants
fn compile(pattern: &str) -> Regex {
    Regex::new(pattern).expect("constant pattern")
}

static NAMES: LazyLock<Regex> = LazyLock::new(|| compile(r"(?i)\b(the )?(canary|stable)\b"));
static CANARY: LazyLock<Regex> = LazyLock::new(|| compile(r"(?i)\bcanary\b"));
static ARM: LazyLock<Regex> = LazyLock::new(|| compile(r#"(?i)[`"*]*\b(?:the )?arm[ _-]*[`"'*]*(A|B)\b[`"*]*"#));

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Arms = Arms { canary_first: true };
    const SECOND: Arms = Arms { canary_first: false };

    #[test]
    fn the_order_alternates_and_is_the_same_again() {
        for key in ["k1", "k2", "k3", "k4"] {
            let arms: Vec<Arms> = (0..4).map(|n| Arms::of(key, n)).collect();
            assert!(arms[0] == arms[2] && arms[1] == arms[3] && arms[0] != arms[1], "{arms:?}");
            assert_eq!(arms[0], Arms::of(key, 0));
        }
        let firsts = (0..100).filter(|n| Arms::of(&format!("key-{n}"), 0).canary_first).count();
        assert!((30..70).contains(&firsts), "{firsts}");
    }

    #[test]
    fn names_go_and_come_back() {
        let text = "Compare the canary with stable; the Canary's latency, unstable calls.";
        assert_eq!(FIRST.blind(text), "Compare arm A with arm B; arm A's latency, unstable calls.");
        assert_eq!(SECOND.blind("7 of 41 canary calls, 31 of 902 stable"), "7 of 41 arm B calls, 31 of 902 arm A");
        assert_eq!(FIRST.blind_foreign("stable link, track=canary"), "stable link, track=arm A");
        for (said, meant) in [
            ("Arm A has 7 errors, arm B none.", "canary has 7 errors, stable none."),
            ("Errors doubled in `arm B`.", "Errors doubled in stable."),
            ("B is slower than A.", "stable is slower than canary."),
            ("A is slower than B.", "canary is slower than stable."),
            ("A higher latency in B.", "A higher latency in stable."),
            ("ABBA and B/A tests stay", "ABBA and B/A tests stay"),
        ] {
            assert_eq!(FIRST.unblind(said), meant);
        }
        assert_eq!(SECOND.unblind("the arm A fails"), "stable fails");
    }
}
