//! The floor that a judge has to reach before its gate may stop or hold a release.

use crate::api::analysis::{Judge, Mode};
use crate::api::judge::JudgeRequires;

use super::short_hash;

/// What identifies a judge as it was measured: vendor, server, model, prompt, rubric and votes.
pub fn judge_hash(judge: &Judge) -> String {
    let api = |vendor: &str, api: &crate::api::analysis::JudgeApi| {
        format!("{vendor}\n{}\n{}\n{}", api.base_url.as_deref().unwrap_or_default(), api.model, api.max_tokens)
    };
    let whom = match (&judge.anthropic, &judge.openai) {
        (Some(a), _) => api("anthropic", a),
        (None, Some(o)) => api("openai", o),
        (None, None) => String::new(),
    };
    let rubric: Vec<String> = judge.rubric.iter().map(|r| format!("{}\n{}", r.name, r.question)).collect();
    short_hash(&format!("{whom}\n{}\n{}\n{}", judge.votes, judge.prompt, rubric.join("\n")))
}

/// Why the judge may not enforce; `None` when it may, or when nothing is required of it.
pub fn unmet(judge: &Judge, mode: Mode) -> Option<String> {
    let requires = judge.requires.as_ref().filter(|_| mode != Mode::DryRun)?;
    let advice = "measure it with `voicerollout judge eval` and copy its record here, or set mode: dryRun to have its advice only";
    below(requires, &judge_hash(judge)).map(|why| format!("{why}; {advice}"))
}

fn below(requires: &JudgeRequires, hash: &str) -> Option<String> {
    let Some(record) = &requires.record else { return Some("the judge has to be measured first".into()) };
    if record.hash != hash {
        return Some(format!(
            "the record is of another judge (hash {}; this one, by model, prompt, rubric and votes, is {hash})",
            record.hash
        ));
    }
    if record.cases < requires.min_cases {
        return Some(format!("{} cases were measured, needed are {}", record.cases, requires.min_cases));
    }
    if let Some(least) = requires.min_agreement.filter(|least| record.agreement < *least) {
        return Some(format!("its agreement {} is below minAgreement {least}", record.agreement));
    }
    let most = requires.max_false_pass.filter(|most| record.false_pass > *most)?;
    Some(format!("its false-pass rate {} is above maxFalsePass {most}", record.false_pass))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judge(requires: Value) -> Judge {
        serde_json::from_value(json!({"anthropic": {"model": "m"}, "prompt": "p", "requires": requires})).unwrap()
    }

    #[test]
    fn the_floor_has_to_be_reached_by_this_very_judge() {
        let hash = judge_hash(&judge(json!({})));
        let record = |hash: &str, cases: i32, agreement: f64, pass: f64| json!({"hash": hash, "cases": cases, "agreement": agreement, "falsePass": pass});
        let with = |record: Value| judge(json!({"minAgreement": 0.9, "maxFalsePass": 0.05, "record": record}));
        let cases = [
            (judge(json!({"minAgreement": 0.9})), Some("has to be measured first")),
            (with(record("other", 100, 1.0, 0.0)), Some("another judge")),
            (with(record(&hash, 19, 1.0, 0.0)), Some("19 cases were measured, needed are 20")),
            (with(record(&hash, 20, 0.89, 0.0)), Some("agreement 0.89 is below minAgreement 0.9")),
            (with(record(&hash, 20, 0.95, 0.06)), Some("false-pass rate 0.06 is above maxFalsePass 0.05")),
            (with(record(&hash, 20, 0.9, 0.05)), None),
        ];
        for (judge, why) in cases {
            let said = unmet(&judge, Mode::Enforce);
            assert_eq!(said.is_some(), why.is_some(), "{said:?}");
            assert!(said.unwrap_or_default().contains(why.unwrap_or_default()));
            assert_eq!(unmet(&judge, Mode::DryRun), None, "advice is always welcome");
        }
        let mut other = judge(json!({}));
        other.prompt = "q".into();
        assert_ne!(judge_hash(&other), hash);
    }
}
