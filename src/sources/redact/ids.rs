//! Bank account and national identity numbers, by their form and, where they have one, their check digit.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::digits::luhn;
use super::{checks, compile};

/// Whether a number's check digit is right.
type Check = fn(&str) -> bool;
/// A form, and the check that it has to pass.
type Rule = (Regex, Check);

static IBAN: LazyLock<Rule> =
    LazyLock::new(|| (compile(r"(?i)\b[a-z]{2}[0-9]{2}(?:[ ]?[a-z0-9]{4}){2,7}(?:[ ]?[a-z0-9]{1,3})?\b"), checks::iban));

fn always(_: &str) -> bool {
    true
}

/// The last digit is Luhn's: Canadian SIN, Swedish personnummer without its century.
fn luhn_of(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    luhn(&digits)
}

/// National numbers of eleven digits.
fn eleven(text: &str) -> bool {
    checks::pesel(text) || checks::german_tax(text) || checks::cpf(text)
}

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rules: [(&str, Check); 10] = [
        // US social security number: no area 000, 666 or 900 to 999, no group 00, no serial 0000.
        (r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b", always),
        // UK national insurance number (HMRC manual NIM39110).
        (r"(?i)\b[a-ceghj-prtw-z][a-ceghj-nprtw-z][ ]?(?:[0-9]{2}[ ]?){3}[a-d]\b", always),
        (r"(?i)\b(?:[xyz][- ]?[0-9]{7}|[0-9]{8})[- ]?[a-z]\b", checks::dni),
        (r"(?i)\b[a-z]{6}[0-9lmnpqrstuv]{2}[abcdehlmprst][0-9lmnpqrstuv]{2}[a-z][0-9lmnpqrstuv]{3}[a-z]\b", checks::codice_fiscale),
        (r"\b[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}\b", checks::cpf),
        (r"\b[2-9][0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}\b", checks::aadhaar),
        (r"(?i)\b[12][ ]?[0-9]{2}[ ]?[0-9]{2}[ ]?(?:[0-9]{2}|2[ab])[ ]?[0-9]{3}[ ]?[0-9]{3}[ ]?[0-9]{2}\b", checks::nir),
        (r"\b[0-9]{3}[ -][0-9]{3}[ -][0-9]{3}\b", luhn_of),
        (r"\b[0-9]{6}[-+][0-9]{4}\b", luhn_of),
        (r"\b[0-9]{11}\b", eleven),
    ];
    rules.into_iter().map(|(pattern, check)| (compile(pattern), check)).collect()
});

/// Puts `[iban]` in place of bank account numbers. Cards come after this, since an account's digits may look like one.
pub(super) fn redact_ibans(text: &str) -> String {
    apply(text, &IBAN, "[iban]")
}

/// Puts `[id]` in place of national identity numbers. Cards come before this, since some of a card's groups may look like one.
pub(super) fn redact(text: &str) -> String {
    RULES.iter().fold(text.to_owned(), |text, rule| apply(&text, rule, "[id]"))
}

fn apply(text: &str, (pattern, check): &Rule, name: &str) -> String {
    let replace = |found: &Captures<'_>| if check(&found[0]) { name.to_owned() } else { found[0].to_owned() };
    pattern.replace_all(text, replace).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{redact, redact_ibans};

    #[test]
    fn numbers_go_and_others_stay() {
        for (text, expected) in [
            ("iban DE89 3704 0044 0532 0130 00, please", "iban [iban], please"),
            ("GB82WEST12345698765432", "[iban]"),
            ("fr1420041010050500013m02606", "[iban]"),
            ("ssn 123-45-6789", "ssn [id]"),
            ("nino QQ123456C and ab 12 34 56 c", "nino QQ123456C and [id]"),
            ("dni 12345678Z, nie X-1234567-L", "dni [id], nie [id]"),
            ("cf RSSMRA85T10A562S", "cf [id]"),
            ("cpf 529.982.247-25 or 52998224725", "cpf [id] or [id]"),
            ("aadhaar 2341 2341 2346", "aadhaar [id]"),
            ("pesel 44051401359 steuer 86095742719", "pesel [id] steuer [id]"),
            ("nir 2 55 08 14 168 025 38", "nir [id]"),
            ("sin 046 454 286", "sin [id]"),
            ("pnr 811218-9876", "pnr [id]"),
            ("DE89 3704 0044 0532 0130 01", "DE89 3704 0044 0532 0130 01"),
            ("build 12345678A took 12345678901 ns, 123 456 789 bytes", "build 12345678A took 12345678901 ns, 123 456 789 bytes"),
        ] {
            assert_eq!(redact(&redact_ibans(text)), expected, "{text}");
        }
    }
}
