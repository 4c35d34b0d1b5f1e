//! Card and phone numbers.

use std::sync::LazyLock;

use regex::Regex;

use super::compile;

/// Digits with single spaces or dashes between them.
static RUN: LazyLock<Regex> = LazyLock::new(|| compile(r"[0-9]+(?:[ \x{a0}\x{2010}-\x{2015}-][0-9]+)*"));
static DIGITS: LazyLock<Regex> = LazyLock::new(|| compile(r"[0-9]+"));
static DATE: LazyLock<Regex> = LazyLock::new(|| compile(r"^(?:19|20)[0-9]{2}-[0-9]{2}-[0-9]{2}(?:[^0-9-]|$)"));

/// Replaces card numbers: 13 to 19 digits in groups of any size whose check digit (ISO/IEC 7812-1, Luhn) is right.
///
/// A single group of 13, 16 or 19 digits that begins with 1 is left alone: no card has such a number, and Unix times
/// in milli-, micro- and nanoseconds do. So is a date at the beginning of the digits.
pub(super) fn redact_cards(text: &str) -> String {
    RUN.replace_all(text, |found: &regex::Captures<'_>| {
        let run = &found[0];
        let groups: Vec<(usize, usize)> = DIGITS.find_iter(run).map(|m| (m.start(), m.end())).collect();
        let mut out = String::new();
        let (mut at, mut i) = (0, if DATE.is_match(run) { 3 } else { 0 });
        while i < groups.len() {
            match card_end(run, &groups[i..]) {
                Some(n) => {
                    out.push_str(&run[at..groups[i].0]);
                    out.push_str("[card]");
                    at = groups[i + n - 1].1;
                    i += n;
                }
                None => i += 1,
            }
        }
        out.push_str(&run[at..]);
        out
    })
    .into_owned()
}

/// How many groups from the first one on make a card number, the most that do.
fn card_end(run: &str, groups: &[(usize, usize)]) -> Option<usize> {
    let mut digits = String::new();
    let mut best = None;
    for (n, (start, end)) in groups.iter().enumerate() {
        digits.push_str(&run[*start..*end]);
        if digits.len() > 19 {
            break;
        }
        let unix_time = n == 0 && digits.starts_with('1') && matches!(digits.len(), 13 | 16 | 19);
        if digits.len() >= 13 && !digits.starts_with('0') && !unix_time && luhn(&digits) {
            best = Some(n + 1);
        }
    }
    best
}

/// The check of ISO/IEC 7812-1 Annex B.
pub(super) fn luhn(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(i, b)| {
            let d = u32::from(b - b'0') << (i % 2);
            if d > 9 { d - 9 } else { d }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Candidates: international with `+` or `00`, North American, and national with a leading 0.
static PHONE: LazyLock<Regex> = LazyLock::new(|| {
    compile(concat!(
        r"(?P<plus>\+[ ]?[0-9](?:[ ().\x{2010}-\x{2015}/-]{0,3}[0-9]){7,14})",
        r"|(?P<dial>\b00[1-9](?:[ ().\x{2010}-\x{2015}/-]{0,2}[0-9]){8,13})",
        r"|(?P<nanp>(?:\b1[ .-]?)?\([2-9][0-9]{2}\)[ ]?[0-9]{3}[ .-]?[0-9]{4}",
        r"|(?:\b1[ .-]?|\b)(?:[2-9][0-9]{2}-[0-9]{3}-|[2-9][0-9]{2}[ .-]?[2-9][0-9]{2}[ .-]?)[0-9]{4})",
        r"|(?P<trunk>(?:\(0[1-9][0-9]{0,4}\)|\b0[1-9][0-9]{0,4})[ /\x{2010}-\x{2015}-]?[0-9]{2,8}(?:[ -][0-9]{2,5}){0,4})",
    ))
});

/// Replaces phone numbers.
pub(super) fn redact_phones(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut copied, mut from) = (0, 0);
    while let Some(found) = PHONE.captures_at(text, from) {
        let Some(whole) = found.get(0) else { break };
        let digits = whole.as_str().bytes().filter(u8::is_ascii_digit).count();
        let length_fits = found.name("trunk").is_none() || (9..=12).contains(&digits);
        // What follows an international number says nothing: more digits may come after a space.
        let international = found.name("plus").or(found.name("dial")).is_some();
        let alone = !glued_before(text, whole.start()) && (international || !glued_after(text, whole.end()));
        if length_fits && alone {
            out.push_str(&text[copied..whole.start()]);
            out.push_str("[phone]");
            copied = whole.end();
            from = whole.end();
        } else {
            // Another candidate may begin inside this one.
            from = whole.start() + whole.as_str().chars().next().map_or(1, char::len_utf8);
        }
    }
    out.push_str(&text[copied..]);
    out
}

/// Part of a longer word, number, address or identifier that began before.
fn glued_before(text: &str, start: usize) -> bool {
    text[..start].chars().next_back().is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+'))
}

/// Part of a longer word, number, time or identifier that goes on, or a number with a unit.
fn glued_after(text: &str, end: usize) -> bool {
    let mut after = text[end..].chars();
    let (next, second) = (after.next(), after.next());
    next.is_some_and(|c| c.is_alphanumeric() || c == '_')
        || (matches!(next, Some('.' | '-' | ':')) && second.is_some_and(|c| c.is_ascii_alphanumeric()))
}
