//! The steps of a release in words, and the weights that it went through.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::common::std_duration;
use crate::api::rollout::{Step, VoiceRolloutSpec};
use crate::api::status::VoiceRolloutStatus;
use crate::core::plan::DEFAULT_WEIGHTS;

/// One text a step.
pub fn texts(spec: &VoiceRolloutSpec) -> Vec<String> {
    match &spec.steps {
        Some(steps) => steps.iter().map(text).collect(),
        None => DEFAULT_WEIGHTS.iter().flat_map(|w| [format!("{w} % of new calls"), "background analysis passes".into()]).collect(),
    }
}

fn text(step: &Step) -> String {
    if let Some(weight) = step.set_weight {
        return format!("{weight} % of new calls");
    }
    if let Some(pause) = &step.pause {
        return pause.duration.map_or_else(|| "pause until promoted".into(), |length| format!("pause {}", words(std_duration(length))));
    }
    if let Some(analysis) = &step.analysis {
        let templates = analysis.templates.iter().map(|t| t.name.as_str());
        let names: Vec<_> = templates.chain(analysis.gates.iter().map(|g| g.name.as_str())).collect();
        let required = analysis.require.iter().map(String::as_str).collect::<Vec<_>>();
        return format!("analysis {}", [names, required].concat().join(", "));
    }
    "canary scale".into()
}

/// A length of time as `1h30m`, `10m`, `45s`.
fn words(length: Duration) -> String {
    let (all, mut text) = (length.as_secs(), String::new());
    for (count, unit) in [(all / 3600, "h"), (all / 60 % 60, "m"), (all % 60, "s")] {
        if count > 0 {
            text += &format!("{count}{unit}");
        }
    }
    if text.is_empty() { format!("{}ms", length.as_millis()) } else { text }
}

/// Canary weights of the release under way, or of the last one: when each was reached, oldest first.
pub fn staircase(status: &VoiceRolloutStatus) -> Vec<Value> {
    let decisions = &status.decisions;
    let begins = |what: &str| matches!(what, "ReleaseStarted" | "Retried" | "RollbackStarted");
    let first = decisions.iter().rposition(|d| begins(&d.decision)).unwrap_or(0);
    let weight = |decision: &str, reason: &str| match decision {
        "WeightApplied" => reason.split(' ').next().and_then(|word| word.parse::<i32>().ok()).or_else(|| percent(reason)),
        "ReleaseStarted" | "Retried" | "Aborted" | "ReturnedToStable" => Some(0),
        "StepsPassed" | "PromotedFull" => Some(100),
        _ => None,
    };
    let point = |d: &crate::api::status::DecisionRecord| {
        Some(json!({"t": d.at.0.as_second(), "weight": weight(&d.decision, &d.reason)?, "step": d.step}))
    };
    decisions[first..].iter().filter_map(point).collect()
}

/// The number before the first `%`.
fn percent(text: &str) -> Option<i32> {
    let before = text.split('%').next().filter(|before| before.len() < text.len())?;
    before.trim().rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(decisions: &[(&str, &str)]) -> VoiceRolloutStatus {
        let record = |(at, (decision, reason)): (usize, &(&str, &str))| json!({"at": format!("2026-01-01T00:00:{at:02}.000000Z"), "step": "1/2", "decision": decision, "reason": reason});
        let decisions: Vec<_> = decisions.iter().enumerate().map(record).collect();
        serde_json::from_value(json!({"decisions": decisions})).unwrap()
    }

    #[test]
    fn the_staircase_is_that_of_the_newest_attempt() {
        let status = status(&[
            ("ReleaseStarted", "revision a"),
            ("WeightApplied", "5 % of new calls go to revision a"),
            ("Aborted", "gate failed: 7 % is above 5 %"),
            ("Retried", ""),
            ("WeightApplied", "revision a takes its part of new calls: 3 workers for 25 % of them"),
            ("Overridden", "gate x"),
            ("StepsPassed", ""),
        ]);
        let weights: Vec<_> = staircase(&status).iter().map(|p| p["weight"].as_i64().unwrap()).collect();
        assert_eq!(weights, [0, 25, 100]);
    }

    #[test]
    fn steps_are_told_in_words() {
        let steps = json!([{"setWeight": 5}, {"pause": {"duration": "90s"}}, {"pause": {}},
            {"analysis": {"templates": [{"name": "canary"}], "require": ["errors"]}}, {"setCanaryScale": {"replicas": 2}}]);
        let spec = json!({"selector": {}, "template": {}, "traffic": {}, "steps": steps});
        let texts = texts(&serde_json::from_value(spec).unwrap());
        assert_eq!(texts, ["5 % of new calls", "pause 1m30s", "pause until promoted", "analysis canary, errors", "canary scale"]);
    }
}
