mod outbox;

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};

use super::template::{self, Escape, MAX_TEXT};
use super::{Defaults, Kind, News, NotificationsSeen, Notifiers, Ready, news};
use crate::api::VoiceRolloutStatus;
use crate::api::notification::{Notification, Trigger};
use crate::api::outbox::{Cursor, Facts};
use crate::api::status::DecisionRecord;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).unwrap()
}

fn decision(seconds: i64, decision: &str, reason: &str, by: Option<&str>) -> DecisionRecord {
    DecisionRecord {
        at: MicroTime(at(seconds)),
        revision: "new".into(),
        step: "2/4".into(),
        decision: decision.into(),
        reason: reason.into(),
        values: vec![],
        by: by.map(Into::into),
    }
}

fn status(decisions: &[DecisionRecord]) -> VoiceRolloutStatus {
    let value = json!({
        "phase": "Progressing", "canaryRevision": "new", "stableRevision": "old", "attempt": 1, "currentStep": 1, "stepDisplay": "2/4",
        "weights": {"desired": 25, "applied": 25}, "decisions": decisions,
    });
    serde_json::from_value(value).unwrap()
}

fn told(cursor: &Cursor, status: &VoiceRolloutStatus) -> (Vec<(Trigger, String)>, Cursor) {
    let (all, cursor) = news(cursor, ("voice", "agent", "uid"), status, at(1000));
    (all.into_iter().map(|n| (n.facts.trigger, n.facts.failure_reason)).collect(), cursor)
}

fn triggers(cursor: &Cursor, status: &VoiceRolloutStatus) -> Vec<Trigger> {
    told(cursor, status).0.into_iter().map(|(t, _)| t).collect()
}

fn notifiers(all: Value) -> Notifiers {
    let all: Vec<Notification> = serde_json::from_value(all).unwrap();
    Notifiers::parse(&all, &Defaults::default())
}

fn hook(name: &str) -> Value {
    json!({"name": name, "webhook": {"url": "https://h.example"}, "triggers": Trigger::ALL.map(Trigger::name)})
}

fn slack(name: &str) -> Value {
    json!({"name": name, "slack": {"bot": {"token": {"name": "s", "key": "k"}, "channel": "#c"}}, "triggers": Trigger::ALL.map(Trigger::name)})
}

#[test]
fn decisions_are_news_of_their_trigger() {
    for (name, by, trigger) in [
        ("FirstDeployment", None, Some(Trigger::Started)),
        ("ReleaseStarted", None, Some(Trigger::Started)),
        ("RollbackStarted", None, Some(Trigger::Started)),
        // Of nothing that goes on.
        ("ReturnedToStable", None, None),
        ("Retried", Some("ada"), Some(Trigger::Started)),
        ("PausedByUser", Some("ada"), Some(Trigger::Paused)),
        ("Aborted", None, Some(Trigger::Aborted)),
        ("Promoted", None, Some(Trigger::Promoted)),
        // The end of a pause.
        ("Promoted", Some("ada"), None),
        ("FirstDeployed", None, Some(Trigger::Promoted)),
        ("RolledBack", None, Some(Trigger::Promoted)),
        ("DrainOverdue", None, Some(Trigger::DrainOverdue)),
        ("RoutesChangedByOthers", None, Some(Trigger::Drift)),
        ("WeightApplied", None, None),
        ("AbortExplained", None, None),
        ("SomethingNewer", None, None),
    ] {
        let mut status = status(&[decision(0, name, "why.", by)]);
        status.current_step = Some(0);
        let (all, _) = news(&Cursor::default(), ("voice", "agent", "uid"), &status, at(1));
        assert_eq!(all.iter().map(|n| n.facts.trigger).collect::<Vec<_>>(), Vec::from_iter(trigger), "{name}");
        for n in all {
            let facts = n.facts;
            assert_eq!((facts.decision.as_str(), facts.failure_reason.as_str(), facts.step.as_str()), (name, "why", "2/4"));
            assert_eq!((facts.by.as_str(), facts.revision.as_str(), facts.at.0), (by.unwrap_or_default(), "new", at(0)));
        }
    }
}

#[test]
fn nothing_is_told_twice_and_nothing_is_passed_over() {
    let all =
        [decision(0, "ReleaseStarted", "a", None), decision(5, "RoutesChangedByOthers", "b", None), decision(5, "Aborted", "c", None)];
    let mut old = status(&all[..2]);
    old.current_step = Some(0);
    let (first, cursor) = told(&Cursor::default(), &old);
    assert_eq!(first.len(), 2);
    assert_eq!(told(&cursor, &old), (vec![], cursor.clone()));
    // In the same millisecond.
    let mut new = status(&all);
    new.current_step = Some(0);
    assert_eq!(triggers(&cursor, &new), [Trigger::Aborted]);
    // Entries may leave the record: what is later than the last one seen is new.
    new.decisions = vec![decision(5, "Aborted", "c", None), decision(9, "Retried", "d", None)];
    new.decisions[0].at = MicroTime(at(6));
    assert_eq!(triggers(&cursor, &new), [Trigger::Aborted, Trigger::Started]);
}

#[test]
fn steps_pauses_and_gates_are_told_once_and_in_their_place() {
    let started = decision(0, "ReleaseStarted", "a", None);
    let mut s = status(std::slice::from_ref(&started));
    s.current_step = Some(2);
    let (all, cursor) = news(&Cursor::default(), ("voice", "agent", "uid"), &s, at(1));
    let steps: Vec<_> = all.iter().map(|n| (n.facts.trigger, n.facts.step.as_str(), n.facts.weight)).collect();
    assert_eq!(steps, [(Trigger::Started, "2/4", None), (Trigger::StepPassed, "1/4", Some(25)), (Trigger::StepPassed, "2/4", Some(25))]);

    let gate = |verdict: &str, mode: &str| json!({"name": "g", "kind": "Step", "mode": mode, "verdict": verdict, "message": "bad"});
    s.gates = serde_json::from_value(json!([gate("Error", "enforce")])).unwrap();
    s.phase = crate::api::status::Phase::Paused;
    s.waiting_for = "gate g: no answer".into();
    let (all, held) = told(&cursor, &s);
    assert_eq!(all, [(Trigger::GateFailing, "bad".into()), (Trigger::Paused, "gate g: no answer".into())]);
    s.waiting_for = "gate g: no answer, 3 times".into();
    assert_eq!(told(&held, &s).0, []);
    s.decisions.push(decision(9, "Aborted", "gate g failed", None));
    s.phase = crate::api::status::Phase::Degraded;
    s.gates = serde_json::from_value(json!([gate("Fail", "enforce"), {"name": "h", "kind": "Background", "verdict": "Fail"}])).unwrap();
    assert_eq!(triggers(&held, &s), [Trigger::GateFailing, Trigger::Aborted], "h began to fail, then came the abort");
    s.gates = serde_json::from_value(json!([gate("Fail", "dryRun")])).unwrap();
    assert_eq!(triggers(&held, &s), [Trigger::Aborted]);

    // A person's pause is told with the name, and not again as the phase that it makes.
    let mut s = status(&[started, decision(3, "PausedByUser", "steps stand still", Some("ada"))]);
    s.phase = crate::api::status::Phase::Paused;
    let (all, cursor) =
        told(&Cursor { decision: Some(cursor.decision.unwrap()), ..super::news::caught_up(&status(&[]), &Cursor::default()) }, &s);
    assert_eq!(all, [(Trigger::Paused, "steps stand still".into())]);
    assert_eq!(told(&cursor, &s).0, []);
}

#[test]
fn steps_that_a_person_skipped_have_not_passed() {
    let mut s = status(&[
        decision(0, "ReleaseStarted", "a", None),
        decision(1, "PromotedFull", "b", Some("ada")),
        decision(2, "Promoted", "c", None),
    ]);
    s.current_step = Some(4);
    assert_eq!(triggers(&Cursor::default(), &s), [Trigger::Started, Trigger::Promoted]);
}

#[test]
fn a_step_where_a_person_overrode_what_was_missing_has_not_passed() {
    let mut s = status(&[
        decision(0, "ReleaseStarted", "a", None),
        decision(2, "Overridden", "step 3/4 was skipped without its analysis", Some("ada")),
    ]);
    s.current_step = Some(4);
    s.overridden_steps = vec!["3/4".into()];
    let (all, _) = news(&Cursor::default(), ("voice", "agent", "uid"), &s, at(5));
    let passed: Vec<_> = all.iter().filter(|n| n.facts.trigger == Trigger::StepPassed).map(|n| n.facts.step.as_str()).collect();
    assert_eq!(passed, ["1/4", "2/4", "4/4"]);
}

#[test]
fn a_return_to_stable_takes_back_the_release_that_goes_on() {
    let returned = DecisionRecord { revision: "old".into(), step: String::new(), ..decision(9, "ReturnedToStable", "old again", None) };
    let mut s = status(&[decision(0, "ReleaseStarted", "a", None)]);
    let (_, cursor) = told(&Cursor::default(), &s);
    s.decisions.push(returned.clone());
    s.canary_revision = Some("old".into());
    s.current_step = Some(0);
    let (all, after) = news(&cursor, ("voice", "agent", "uid"), &s, at(10));
    let [News { facts, .. }] = all.as_slice() else { panic!("{all:#?}") };
    assert_eq!((facts.trigger, facts.revision.as_str(), facts.stable_revision.as_str()), (Trigger::Aborted, "new", "old"));
    let text = template::render(template::usual(facts.trigger), facts, "", Escape::None).unwrap();
    assert_eq!(text, "voice/agent: revision new was aborted, new calls go back to old: old again.");
    assert_eq!(told(&after, &s).0, []);

    // It was aborted before, and told.
    let mut s = status(&[decision(0, "ReleaseStarted", "a", None), decision(5, "Aborted", "b", None), returned]);
    s.current_step = Some(0);
    assert_eq!(triggers(&Cursor::default(), &s), [Trigger::Started, Trigger::Aborted]);
}

fn facts(trigger: Trigger) -> Facts {
    Facts {
        trigger,
        namespace: "voice".into(),
        rollout: "agent".into(),
        revision: "5f7c".into(),
        stable_revision: "ab12".into(),
        step: "3/10".into(),
        weight: Some(5),
        gate: "p95".into(),
        failure_reason: "gate p95 failed at step 3/10, weight 5: 950 > 800".into(),
        by: String::new(),
        at: MicroTime(at(0)),
        decision: String::new(),
    }
}

#[test]
fn every_trigger_has_a_sentence() {
    let text = |trigger| template::render(template::usual(trigger), &facts(trigger), "https://x.example/a", Escape::None).unwrap();
    insta::assert_snapshot!(Trigger::ALL.map(text).join("\n"));
}

#[test]
fn values_are_escaped_in_slack_so_that_none_makes_a_channel_mention_or_a_named_link() {
    let mut facts = facts(Trigger::Aborted);
    facts.failure_reason = "<!channel> & <https://evil.example|see> @here \u{7}".into();
    for template in [
        "{{ failure_reason }}",
        "{{ failure_reason | safe }}",
        "{{ failure_reason | upper | lower }}",
        "{% set a = failure_reason %}{{ a ~ '' }}",
    ] {
        let text = template::render(template, &facts, "", Escape::Slack).unwrap();
        assert_eq!(text, "&lt;!channel&gt; &amp; &lt;https://evil.example|see&gt; @here", "{template}");
    }
    let text = template::render("<{{ link }}|open>", &facts, "https://x.example/?a=1&b=2", Escape::Slack).unwrap();
    assert_eq!(text, "<https://x.example/?a=1&amp;b=2|open>");
    facts.failure_reason = "&".repeat(5000);
    let text = template::render("{{ failure_reason }}", &facts, "", Escape::Slack).unwrap();
    assert!(text.chars().count() <= MAX_TEXT && text.trim_end_matches('…').ends_with("&amp;"), "{}", &text[text.len() - 20..]);
}

#[test]
fn templates_are_checked_before_they_are_needed() {
    let on = BTreeSet::from(Trigger::ALL);
    for good in [
        "{{ rollout }} {{ step }}: {{ failure_reason }} {{ link }}",
        "{% if by %}{{ by }}{% else %}-{% endif %}",
        "{% for i in range(3) %}{{ loop.index }}{% endfor %}",
    ] {
        assert_eq!(template::check(good, &on), Ok(()), "{good}");
    }
    for (bad, words) in [
        ("{{ step", "line 1: syntax error"),
        ("a\n{% if step %}b", "line 2"),
        ("{{ setp }}", "there is no variable setp; did you mean step?"),
        ("{{ something_else_entirely }}", "they are trigger, namespace"),
        ("{{ step | shout }}", "unknown filter"),
        ("{% if trigger == 'Aborted' %}x{% endif %}", "it gives no text for Started"),
        ("{% for i in range(10000) %}{% for j in range(10000) %}x{% endfor %}{% endfor %}", "fuel"),
        ("{{ 'x' * 100000000 }}", "fuel"),
    ] {
        let error = template::check(bad, &on).expect_err(bad);
        assert!(error.contains(words), "{bad}: {error}");
    }
}

#[test]
fn mistakes_name_their_field_and_leave_the_others_alone() {
    let all = notifiers(json!([
        {"name": "a", "webhook": {"url": "https://h.example"}, "triggers": ["Aborted", "Abortd"]},
        {"name": "b"},
        {"name": "c", "slack": {}, "template": "{{ x"},
        {"name": "d", "webhook": {"url": "ftp://h"}},
        {"name": "e", "webhook": {"url": "https://u:p@h.example", "headers": [{"name": "x"}, {"name": "Host", "value": "h"}, {"name": "a b", "value": "x\ny"}]}},
        {"name": "good", "slack": {"webhook": {"name": "s", "key": "k"}}},
        {"name": "good", "webhook": {"url": "https://h.example"}},
    ]));
    insta::assert_snapshot!(all.mistakes.join("\n"));
    assert_eq!(all.all.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["good"]);
    assert_eq!(all.all[0].on, BTreeSet::from(Trigger::DEFAULT));
    let seen = NotificationsSeen { count: 1, mistakes: all.mistakes, problems: None };
    assert!(matches!(seen.condition(), Ready::Is(false, "InvalidNotification", _)));
}

#[test]
fn a_rollouts_own_notification_replaces_the_default_of_its_name() {
    let file = json!({"link": "https://x.example/{namespace}/{rollout}", "notifications": [slack("team"), hook("all")]});
    let defaults = Defaults::parse(&file.to_string());
    assert_eq!((defaults.mistakes.len(), defaults.link_to("voice", "agent").as_str()), (0, "https://x.example/voice/agent"));
    let own: Vec<Notification> = serde_json::from_value(json!([hook("team")])).unwrap();
    let both = Notifiers::parse(&own, &defaults);
    let found: Vec<_> = both.all.iter().map(|n| (n.name.as_str(), n.kind(), n.is_default)).collect();
    assert_eq!(found, [("team", Kind::Webhook, false), ("all", Kind::Webhook, true)]);

    for (file, words) in [
        (
            "notifications: [{name: a, webhook: {url: 'https://h.example', hedaers: []}, tempalte: x}]",
            "notifications[0].tempalte: there is no such field",
        ),
        ("link: releases.example", "link: is no http or https address"),
        ("notifications: {", "the operator's notifications: "),
        ("notifications: [{name: a}]", "notifications[0]: set exactly one of slack, webhook"),
    ] {
        let defaults = Defaults::parse(file);
        assert!(defaults.mistakes.iter().any(|m| m.contains(words)), "{file}: {:?}", defaults.mistakes);
    }
    assert_eq!(Defaults::parse(""), Defaults::default());
}
