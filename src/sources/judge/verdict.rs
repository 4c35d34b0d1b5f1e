//! The model's answer. Whatever is not exactly the asked-for object is no vote.

use serde_json::Value;

use super::strict;
use crate::api::judge::Vote;
use crate::core::judge::blind::Arms;
use crate::sources::redact::{self, Known};

/// Most characters of the sentence that are kept.
const MAX_REASON: usize = 300;

/// What the model said.
#[derive(Debug, PartialEq)]
pub(super) struct Said {
    /// Never `Invalid`.
    pub(super) vote: Vote,
    /// One sentence, redacted, with the versions' names.
    pub(super) reason: String,
}

/// What an answer has to look like.
pub(super) struct Form<'a> {
    /// Letters of the arms.
    pub(super) arms: Arms,
    /// Names of the rubric's questions.
    pub(super) rubric: &'a [String],
    /// An explanation, which has no verdict.
    pub(super) explains: bool,
}

/// Parses an answer: one JSON object about the canary's arm with a verdict in capitals, a reason, and every answer of the
/// rubric; nothing more and nothing around it.
pub(super) fn parse(text: &str, form: &Form<'_>, known: &Known) -> Result<Said, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("the model gave an empty answer".into());
    }
    let object = || "the model did not answer with exactly one object of arm, verdict and reason".to_owned();
    let Some(Value::Object(mut fields)) = strict::parse(text.as_bytes()) else { return Err(object()) };
    if form.explains && fields.insert("verdict".into(), "UNSURE".into()).is_some() {
        return Err("the model gave a verdict where an explanation was asked for".into());
    }
    let (arm, verdict, reason) = (fields.remove("arm"), fields.remove("verdict"), fields.remove("reason"));
    let rubric = fields.remove("rubric");
    let (Some(Value::String(arm)), Some(Value::String(verdict)), Some(Value::String(reason)), true) =
        (arm, verdict, reason, fields.is_empty() && rubric.is_some() != form.rubric.is_empty())
    else {
        return Err(object());
    };
    if arm != form.arms.canary().to_string() {
        return Err("the model answered about another arm than the one it was asked about".into());
    }
    let vote = word(&verdict).ok_or("the model's verdict is none of PASS, FAIL, UNSURE")?;
    let failed = failed(rubric, form.rubric)?;
    let reason = redact::line(&redact::redact(&form.arms.unblind(&redact::plain(&reason)), known), MAX_REASON);
    if reason.is_empty() {
        return Err("the model gave a verdict without a reason".into());
    }
    Ok(match (vote, failed.is_empty()) {
        // A PASS that its own answers speak against is none.
        (Vote::Pass, false) => Said { vote: Vote::Unsure, reason: format!("says PASS and fails {}: {reason}", failed.join(", ")) },
        (vote, true) => Said { vote, reason },
        (vote, false) => Said { vote, reason: format!("{reason} (fails {})", failed.join(", ")) },
    })
}

fn word(text: &str) -> Option<Vote> {
    match text {
        "PASS" => Some(Vote::Pass),
        "FAIL" => Some(Vote::Fail),
        "UNSURE" => Some(Vote::Unsure),
        _ => None,
    }
}

/// Names of the questions that were answered with FAIL.
fn failed(rubric: Option<Value>, names: &[String]) -> Result<Vec<String>, String> {
    let answers = match rubric {
        None => return Ok(Vec::new()),
        Some(Value::Object(answers)) => answers,
        Some(_) => return Err("the model's rubric is not an object".into()),
    };
    let complete = answers.len() == names.len() && names.iter().all(|n| answers.contains_key(n));
    let votes: Option<Vec<Vote>> = names.iter().map(|n| answers.get(n)?.as_str().and_then(word)).collect();
    match votes.filter(|_| complete) {
        Some(votes) => Ok(names.iter().zip(votes).filter(|(_, v)| *v == Vote::Fail).map(|(n, _)| n.clone()).collect()),
        None => Err("the model did not answer each question of the rubric with PASS, FAIL or UNSURE".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key whose first vote shows the canary as B.
    fn second() -> Arms {
        (0..).map(|n| Arms::of(&format!("k{n}"), 0)).find(|a| a.canary() == 'B').unwrap()
    }

    fn read(text: &str, rubric: &[&str]) -> Result<Said, String> {
        let rubric: Vec<String> = rubric.iter().map(|r| (*r).to_owned()).collect();
        parse(text, &Form { arms: second(), rubric: &rubric, explains: false }, &Known::default())
    }

    #[test]
    fn only_the_exact_form_is_a_vote() {
        let good: &[(&str, Vote)] = &[
            (r#"{"arm":"B","verdict":"PASS","reason":"Same latency."}"#, Vote::Pass),
            ("\n {\"reason\": \"Errors doubled.\", \"verdict\": \"FAIL\", \"arm\": \"B\"} \n", Vote::Fail),
            (r#"{"arm":"B","verdict":"UNSURE","reason":"Few calls."}"#, Vote::Unsure),
        ];
        for (text, vote) in good {
            assert_eq!(read(text, &[]).map(|s| s.vote), Ok(*vote), "{text}");
        }
        let bad = [
            "",
            "   ",
            "PASS",
            "\"PASS\"",
            r#"{"arm":"A","verdict":"PASS","reason":"x"}"#,
            r#"{"arm":"b","verdict":"PASS","reason":"x"}"#,
            r#"{"arm":"B ","verdict":"PASS","reason":"x"}"#,
            r#"{"arm":"canary","verdict":"PASS","reason":"x"}"#,
            r#"{"arm":null,"verdict":"PASS","reason":"x"}"#,
            r#"{"arm":["B"],"verdict":"PASS","reason":"x"}"#,
            r#"{"verdict":"PASS","reason":"x"}"#,
            r#"{"arm":"B","verdict":"pass","reason":"x"}"#,
            r#"{"arm":"B","verdict":"Pass","reason":"x"}"#,
            r#"{"arm":"B","verdict":"PASS ","reason":"x"}"#,
            r#"{"arm":"B","verdict":"OK","reason":"x"}"#,
            r#"{"arm":"B","verdict":true,"reason":"x"}"#,
            r#"{"arm":"B","verdict":{"PASS":null},"reason":"x"}"#,
            r#"{"arm":"B","verdict":["PASS"],"reason":"x"}"#,
            r#"["B","PASS","x"]"#,
            r#"{"arm":"B","verdict":"PASS"}"#,
            r#"{"arm":"B","verdict":"PASS","reason":null}"#,
            r#"{"arm":"B","verdict":"PASS","reason":""}"#,
            r#"{"arm":"B","verdict":"PASS","reason":" \n\u0007 "}"#,
            r#"{"reason":"x"}"#,
            "{}",
            r#"{"arm":"B","verdict":"PASS","reason":"x","confidence":1}"#,
            r#"{"arm":"B","verdict":"PASS","reason":"x","rubric":{}}"#,
            r#"{"arm":"B","verdict":"FAIL","verdict":"PASS","reason":"x"}"#,
            r#"{"arm":"A","arm":"B","verdict":"PASS","reason":"x"}"#,
            r#"{"arm":"B","verdict":"PASS","reason":"x"}{"arm":"B","verdict":"FAIL","reason":"y"}"#,
            r#"{"arm":"B","verdict":"PASS","reason":"x"} Hope this helps!"#,
            "Here you go: {\"arm\":\"B\",\"verdict\":\"PASS\",\"reason\":\"x\"}",
            "```json\n{\"arm\":\"B\",\"verdict\":\"PASS\",\"reason\":\"x\"}\n```",
            r#"{"arm":"B","verdict":"PASS","reason":"x""#,
            r#"[{"arm":"B","verdict":"PASS","reason":"x"}]"#,
            r#"{"answer":{"arm":"B","verdict":"PASS","reason":"x"}}"#,
            r#"{"Arm":"B","Verdict":"PASS","Reason":"x"}"#,
        ];
        for text in bad {
            assert!(read(text, &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn the_rubric_is_answered_in_full_and_can_only_take_a_pass_away() {
        let answer = |verdict: &str, rubric: &str| format!(r#"{{"arm":"B","verdict":"{verdict}","reason":"Why.","rubric":{rubric}}}"#);
        let both = |a: &str, b: &str| format!(r#"{{"tools":"{a}","cost":"{b}"}}"#);
        let vote = |verdict: &str, rubric: &str| read(&answer(verdict, rubric), &["tools", "cost"]).map(|s| (s.vote, s.reason));
        assert_eq!(vote("PASS", &both("PASS", "UNSURE")), Ok((Vote::Pass, "Why.".into())));
        assert_eq!(vote("PASS", &both("FAIL", "PASS")), Ok((Vote::Unsure, "says PASS and fails tools: Why.".into())));
        assert_eq!(vote("FAIL", &both("FAIL", "FAIL")), Ok((Vote::Fail, "Why. (fails tools, cost)".into())));
        for bad in [r#"{"tools":"PASS"}"#, r#"{"tools":"PASS","cost":"yes"}"#, r#"{"tools":"PASS","cost":"PASS","x":"PASS"}"#, "[]", "null"]
        {
            assert!(vote("PASS", bad).is_err(), "{bad}");
        }
        assert!(vote("PASS", r#"{"tools":"FAIL","tools":"PASS","cost":"PASS"}"#).is_err());
        assert!(read(r#"{"arm":"B","verdict":"PASS","reason":"x"}"#, &["tools"]).is_err());
    }

    #[test]
    fn the_reason_is_one_clean_line_that_names_the_versions() {
        let mut known = Known::default();
        known.add("hunter2");
        let text = format!(
            r#"{{"arm":"B","verdict":"FAIL","reason":"Arm B\n\u001b[31mred\u001b[0m\t bob@example.com hunter2, arm A calm {}"}}"#,
            "x".repeat(900)
        );
        let reason = parse(&text, &Form { arms: second(), rubric: &[], explains: false }, &known).unwrap().reason;
        assert!(reason.starts_with("canary red [email] ***, stable calm xxx"), "{reason}");
        assert_eq!(reason.chars().count(), MAX_REASON);
    }

    #[test]
    fn an_explanation_has_no_verdict_and_is_none() {
        let form = Form { arms: second(), rubric: &[], explains: true };
        let read = |text: &str| parse(text, &form, &Known::default());
        let said = read(r#"{"arm":"B","reason":"Arm B calls tools 3.1 times a call, arm A 2.2 times."}"#).unwrap();
        assert_eq!((said.vote, said.reason.as_str()), (Vote::Unsure, "canary calls tools 3.1 times a call, stable 2.2 times."));
        for bad in [
            r#"{"arm":"B","verdict":"PASS","reason":"x"}"#,
            r#"{"arm":"B","verdict":"UNSURE","reason":"x"}"#,
            r#"{"arm":"A","reason":"x"}"#,
            r#"{"arm":"B","reason":""}"#,
            r#"{"arm":"B","reason":"x","more":1}"#,
            r#"{"reason":"x"}"#,
            "x",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn messages_never_quote_the_answer() {
        let error = read(r#"{"arm":"B","verdict":"sneaky-text","reason":"x"}"#, &[]).unwrap_err();
        assert!(!error.contains("sneaky"), "{error}");
    }
}
