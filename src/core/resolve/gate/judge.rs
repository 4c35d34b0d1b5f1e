//! What the schema cannot say about a judge.

use std::time::Duration;

use super::Check;
use crate::api::analysis::{Gate, Judge};
use crate::api::common::std_duration;
use crate::core::judge::{patterns, requires};

impl Check<'_> {
    /// Votes, rubric and budget.
    pub(super) fn voting(&mut self, j: &Judge, path: &str) {
        if !(1..=9).contains(&j.votes) || j.votes % 2 == 0 {
            self.error(&format!("{path}.votes"), format!("votes {} is none of 1, 3, 5, 7, 9", j.votes));
        }
        for (i, item) in j.rubric.iter().enumerate() {
            if j.rubric[..i].iter().any(|r| r.name == item.name) {
                self.error(&format!("{path}.rubric[{i}].name"), format!("`{}` occurs twice", item.name));
            }
        }
        let Some(budget) = &j.budget else { return };
        if budget.dollars.is_some() && budget.prices.is_none() {
            self.error(&format!("{path}.budget.prices"), "dollars need prices: inputPerMillion and outputPerMillion");
        }
        if budget.dollars.is_none() && budget.verdicts.is_none() {
            self.error(&format!("{path}.budget"), "a budget has verdicts, dollars or both");
        }
    }

    /// Patterns of the user's own.
    pub(super) fn patterns(&mut self, j: &Judge, path: &str) {
        for (i, pattern) in j.redact.iter().enumerate() {
            if let Err(reason) = patterns::compile(pattern) {
                self.error(&format!("{path}.redact[{i}].pattern"), reason);
            }
        }
    }

    /// Histograms whose unit is a call.
    pub(super) fn per_call(&mut self, j: &Judge, path: &str) {
        let names: Vec<&String> = j.evidence.metrics.iter().map(|m| &m.name).chain(j.evidence.per_call.iter().map(|p| &p.name)).collect();
        let first = j.evidence.metrics.len();
        for (i, wanted) in j.evidence.per_call.iter().enumerate() {
            let at = format!("{path}.evidence.perCall[{i}]");
            self.url(&format!("{at}.address"), &wanted.address);
            if names[..first + i].contains(&&wanted.name) {
                self.error(&format!("{at}.name"), format!("`{}` occurs twice", wanted.name));
            }
            if std_duration(wanted.window).as_millis() == 0 {
                self.error(&format!("{at}.window"), "has to be longer than nothing");
            }
        }
    }

    /// Traces of both arms.
    pub(super) fn traces(&mut self, j: &Judge, path: &str) {
        let Some(traces) = &j.evidence.traces else { return };
        let at = format!("{path}.evidence.traces");
        self.url(&format!("{at}.address"), &traces.address);
        self.access(&traces.access, &at);
        self.timeout(&format!("{at}.timeout"), traces.timeout);
        self.period(&format!("{at}.window"), Some(traces.window), Some(Duration::from_secs(1)));
        self.period(&format!("{at}.slowerThan"), Some(traces.slower_than), Some(Duration::from_millis(1)));
        if traces.service.is_empty() || traces.service.contains(char::is_control) {
            self.error(&format!("{at}.service"), "is the service.name of the agent's spans, without control characters");
        }
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
        let attribute = &traces.revision_attribute;
        if !attribute.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') || !attribute.chars().all(name) {
            let message = "an attribute's name has letters, digits, `_`, `.`, `/` and `-`, and begins with a letter";
            self.error(&format!("{at}.revisionAttribute"), message);
        }
    }

    /// A judge that has not shown what it can must not stop or hold a release, where that is asked for.
    pub(super) fn floor(&mut self, gate: &Gate, path: &str) {
        if let Some(why) = gate.judge.as_ref().and_then(|j| requires::unmet(j, gate.mode)) {
            self.error(&format!("{path}.judge.requires"), why);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use crate::api::analysis::Gate;
    use crate::core::resolve::gate::validate_gate;

    fn errors(judge: Value, mode: &str) -> Vec<String> {
        let mut all = json!({"openai": {"model": "m"}, "prompt": "p"});
        all.as_object_mut().unwrap().extend(judge.as_object().unwrap().clone());
        let gate: Gate = serde_json::from_value(json!({"name": "j", "mode": mode, "judge": all})).unwrap();
        validate_gate(&gate, "g", &BTreeSet::new()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_mistake_is_named_with_its_field() {
        let per_call = |name: &str| json!({"name": name, "histogram": "h", "address": "http://p:9090"});
        let cases = [
            (json!({"votes": 2}), "g.judge.votes: votes 2 is none of"),
            (json!({"votes": 11}), "g.judge.votes: votes 11"),
            (
                json!({"rubric": [{"name": "a", "question": "x"}, {"name": "a", "question": "y"}]}),
                "g.judge.rubric[1].name: `a` occurs twice",
            ),
            (json!({"budget": {"dollars": 1.5}}), "g.judge.budget.prices: dollars need prices"),
            (json!({"budget": {}}), "g.judge.budget: a budget has"),
            (json!({"redact": [{"name": "x", "pattern": "("}]}), "g.judge.redact[0].pattern: not a regular expression"),
            (json!({"redact": [{"name": "x", "pattern": "a*"}]}), "g.judge.redact[0].pattern: it matches the empty text"),
            (json!({"redact": [{"name": "x", "pattern": r"(?:\w{500}){500}"}]}), "g.judge.redact[0].pattern: it is too large"),
            (json!({"requires": {"minAgreement": 0.9}}), "g.judge.requires: the judge has to be measured first"),
            (json!({"evidence": {"perCall": [per_call("a"), per_call("a")]}}), "g.judge.evidence.perCall[1].name: `a` occurs twice"),
            (
                json!({"evidence": {"perCall": [{"name": "a", "histogram": "h", "address": "ftp://p"}]}}),
                "g.judge.evidence.perCall[0].address: the URL has to begin",
            ),
        ];
        for (judge, expected) in cases {
            let found = errors(judge, "enforce");
            assert!(found.len() == 1 && found[0].starts_with(expected), "{expected}: {found:?}");
        }
        let traces = |fields: Value| {
            let mut all = json!({"backend": "tempo", "address": "http://tempo:3200", "service": "voice-agent", "slowerThan": "2s"});
            all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            json!({"evidence": {"traces": all}})
        };
        for (fields, expected) in [
            (json!({"address": "http://{{args.host}}:3200"}), "address: argument `host` is not known"),
            (json!({"address": "tempo:3200"}), "address: the URL has to begin"),
            (json!({"slowerThan": "0s"}), "slowerThan: must be"),
            (json!({"window": "-5m"}), "window: a duration cannot be negative"),
            (json!({"timeout": "0s"}), "timeout: must be"),
            (json!({"service": "a\nb"}), "service: is the service.name"),
            (json!({"revisionAttribute": "a} || {.b"}), "revisionAttribute: an attribute's name has"),
            (json!({"auth": {}}), "auth: auth has exactly one of bearer, basic"),
            (json!({"headers": [{"name": "Host", "value": "x"}]}), "headers[0].name: the header Host cannot be set here"),
        ] {
            let found = errors(traces(fields), "enforce");
            let expected = format!("g.judge.evidence.traces.{expected}");
            assert!(found.len() == 1 && found[0].starts_with(&expected), "{expected}: {found:?}");
        }
        assert_eq!(errors(traces(json!({"backend": "jaeger"})), "enforce"), Vec::<String>::new());
        assert_eq!(errors(json!({"requires": {"minAgreement": 0.9}}), "dryRun"), Vec::<String>::new());
        let fine = json!({"votes": 3, "budget": {"verdicts": 5, "dollars": 1, "prices": {"inputPerMillion": 1, "outputPerMillion": 5}},
            "redact": [{"name": "mrn", "pattern": r"\bMRN-[0-9]{6}\b"}], "rubric": [{"name": "tools", "question": "q"}],
            "evidence": {"perCall": [per_call("a"), per_call("b")]}});
        assert_eq!(errors(fine, "enforce"), Vec::<String>::new());
    }
}
