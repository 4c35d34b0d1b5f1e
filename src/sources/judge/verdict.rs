//! The model's verdict. Whatever is not exactly the asked-for object is an error.

use serde::Deserialize;

use crate::api::run::Verdict;
use crate::sources::redact::{self, Known};

/// Most characters of the sentence that are kept.
const MAX_REASON: usize = 300;

/// What the model said.
#[derive(Debug, PartialEq)]
pub(super) struct Said {
    /// `UNSURE` is [`Verdict::Inconclusive`].
    pub(super) verdict: Verdict,
    /// One sentence, redacted.
    pub(super) reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    verdict: String,
    reason: String,
}

/// Parses an answer: one JSON object with a verdict in capitals and a reason, and nothing around it.
pub(super) fn parse(text: &str, known: &Known) -> Result<Said, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("the model gave an empty answer".into());
    }
    // Without this check a list of two strings would do.
    let raw = if text.starts_with('{') { serde_json::from_str::<Raw>(text).ok() } else { None };
    let raw = raw.ok_or("the model did not answer with exactly one object of verdict and reason")?;
    let verdict = match raw.verdict.as_str() {
        "PASS" => Verdict::Pass,
        "FAIL" => Verdict::Fail,
        "UNSURE" => Verdict::Inconclusive,
        _ => return Err("the model's verdict is none of PASS, FAIL, UNSURE".into()),
    };
    let reason = redact::line(&redact::redact(&raw.reason, known), MAX_REASON);
    if reason.is_empty() {
        return Err("the model gave a verdict without a reason".into());
    }
    Ok(Said { verdict, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_is_a_verdict() {
        let known = Known::default();
        let good: &[(&str, Verdict)] = &[
            (r#"{"verdict":"PASS","reason":"Same latency."}"#, Verdict::Pass),
            ("\n {\"reason\": \"Errors doubled.\", \"verdict\": \"FAIL\"} \n", Verdict::Fail),
            (r#"{"verdict":"UNSURE","reason":"Few calls."}"#, Verdict::Inconclusive),
        ];
        for (text, verdict) in good {
            assert_eq!(parse(text, &known).map(|s| s.verdict), Ok(*verdict), "{text}");
        }
        let bad = [
            "",
            "   ",
            "PASS",
            "\"PASS\"",
            r#"{"verdict":"pass","reason":"x"}"#,
            r#"{"verdict":"Pass","reason":"x"}"#,
            r#"{"verdict":"PASS ","reason":"x"}"#,
            r#"{"verdict":"OK","reason":"x"}"#,
            r#"{"verdict":true,"reason":"x"}"#,
            r#"{"verdict":{"PASS":null},"reason":"x"}"#,
            r#"{"verdict":["PASS"],"reason":"x"}"#,
            r#"["PASS","x"]"#,
            r#"{"verdict":"PASS"}"#,
            r#"{"verdict":"PASS","reason":null}"#,
            r#"{"verdict":"PASS","reason":""}"#,
            r#"{"verdict":"PASS","reason":" \n\u0007 "}"#,
            r#"{"reason":"x"}"#,
            "{}",
            r#"{"verdict":"PASS","reason":"x","confidence":1}"#,
            r#"{"verdict":"FAIL","verdict":"PASS","reason":"x"}"#,
            r#"{"verdict":"PASS","reason":"x"}{"verdict":"FAIL","reason":"y"}"#,
            r#"{"verdict":"PASS","reason":"x"} Hope this helps!"#,
            "Here you go: {\"verdict\":\"PASS\",\"reason\":\"x\"}",
            "```json\n{\"verdict\":\"PASS\",\"reason\":\"x\"}\n```",
            r#"{"verdict":"PASS","reason":"x""#,
            r#"[{"verdict":"PASS","reason":"x"}]"#,
            r#"{"answer":{"verdict":"PASS","reason":"x"}}"#,
            r#"{"Verdict":"PASS","reason":"x"}"#,
        ];
        for text in bad {
            assert!(parse(text, &known).is_err(), "{text}");
        }
    }

    #[test]
    fn the_reason_is_one_clean_line() {
        let mut known = Known::default();
        known.add("hunter2");
        let text = format!(r#"{{"verdict":"FAIL","reason":"a\n\u001b[31mred\u001b[0m\t bob@example.com hunter2 {}"}}"#, "x".repeat(900));
        let reason = parse(&text, &known).unwrap().reason;
        assert!(reason.starts_with("a red [email] *** xxx"), "{reason}");
        assert_eq!(reason.chars().count(), MAX_REASON);
    }

    #[test]
    fn messages_never_quote_the_answer() {
        let error = parse(r#"{"verdict":"sneaky-text","reason":"x"}"#, &Known::default()).unwrap_err();
        assert!(!error.contains("sneaky"), "{error}");
    }
}
