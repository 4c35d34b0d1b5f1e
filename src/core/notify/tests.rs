use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::outbox::{self, Answer, LONGEST, MAX_QUEUED, Rollout, SHORTEST};
use super::template::{self, Escape, MAX_TEXT};
use super::{Defaults, Kind, NotificationsSeen, Notifiers, Ready, news};
use crate::api::VoiceRolloutStatus;
use crate::api::notification::{Notification, Trigger};
use crate::api::outbox::{Cursor, Facts, Outcome, VoiceRolloutOutboxSpec};
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

fn rollout(status: &VoiceRolloutStatus) -> Rollout<'_> {
    Rollout { namespace: "voice", name: "agent", uid: "uid", status }
}

#[test]
fn what_happened_before_somebody_asked_is_no_news_unless_the_rollout_is_new() {
    let mut s = status(&[decision(0, "FirstDeployment", "a", None)]);
    let mut outbox = outbox::first(rollout(&s));
    outbox::take_over(&mut outbox, rollout(&s), &notifiers(json!([hook("h")])), at(1));
    assert_eq!(outbox.queue.len(), 0);
    s.stable_revision = None;
    let mut outbox = outbox::first(rollout(&s));
    outbox::take_over(&mut outbox, rollout(&s), &notifiers(json!([hook("h")])), at(1));
    assert_eq!(outbox.queue.len(), 1);
}

/// An outbox with a message for each of these notifications.
fn queued(all: &Notifiers) -> VoiceRolloutOutboxSpec {
    let mut s = status(&[decision(0, "Aborted", "why", None)]);
    s.current_step = Some(0);
    let mut outbox = VoiceRolloutOutboxSpec::default();
    outbox::take_over(&mut outbox, rollout(&s), all, at(0));
    outbox
}

fn refused(wait: Option<u64>) -> Answer {
    Answer::Refused { why: "HTTP 500".into(), wait: wait.map(Duration::from_secs) }
}

#[test]
fn waits_double_from_five_seconds_to_ten_minutes_and_heed_the_receiver() {
    let all = notifiers(json!([hook("h")]));
    let mut outbox = queued(&all);
    let id = outbox.queue[0].id.clone();
    let mut now = at(0);
    let mut waits = Vec::new();
    for _ in 0..12 {
        assert_eq!(outbox::due(&outbox, now), [0]);
        assert_eq!(outbox::answered(&mut outbox, (&id, "h"), Kind::Webhook, refused(None), now, 0.0), None);
        let until = outbox::wake_at(&outbox).unwrap();
        assert!(outbox::due(&outbox, until - SignedDuration::from_millis(1)).is_empty());
        waits.push(until.duration_since(now).as_secs());
        now = until;
    }
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 600, 600, 600, 600, 600]);
    outbox::answered(&mut outbox, (&id, "h"), Kind::Webhook, refused(Some(3600)), now, 0.5);
    assert_eq!(outbox::wake_at(&outbox).unwrap().duration_since(now).as_secs(), 3600);
    assert_eq!(outbox::problems(&outbox), ["notification h: HTTP 500; it is tried again"]);
    outbox::answered(&mut outbox, (&id, "h"), Kind::Webhook, Answer::Taken, now, 0.5);
    assert!(outbox.queue.is_empty() && outbox::problems(&outbox).is_empty() && outbox::wake_at(&outbox).is_none());
    assert_eq!(outbox.history[0].outcome, Outcome::Sent);
}

proptest! {
    #[test]
    fn waits_stay_within_their_limits(failures in 0..1_000_000i32, jitter in 0.0..1.0f64) {
        let wait = outbox::backoff(failures, jitter);
        prop_assert!((SHORTEST..=LONGEST).contains(&wait), "{wait:?}");
        prop_assert!(wait >= outbox::backoff(failures, 0.0).mul_f64(0.8));
    }

    /// Whatever is answered: each receiver gets its messages in their order, and no other one is kept waiting.
    #[test]
    fn order_is_kept_for_each_receiver(answers in prop::collection::vec((0..2usize, 0..4u8), 1..60)) {
        let all = notifiers(json!([hook("h"), slack("s")]));
        let mut s = status(&[]);
        s.current_step = Some(0);
        let mut outbox = VoiceRolloutOutboxSpec::default();
        for i in 0..10 {
            s.decisions.push(decision(i, "RoutesChangedByOthers", &i.to_string(), None));
        }
        outbox::take_over(&mut outbox, rollout(&s), &all, at(10));
        let mut got: [Vec<u32>; 2] = Default::default();
        let mut now = at(10);
        for (who, answer) in answers {
            now += SignedDuration::from_secs(601);
            let due = outbox::due(&outbox, now);
            let heads: Vec<_> = due.iter().map(|i| (outbox.queue[*i].id.clone(), outbox.queue[*i].notification.clone(), outbox.queue[*i].facts.failure_reason.parse::<u32>().unwrap())).collect();
            let name = ["h", "s"][who];
            let Some((id, _, number)) = heads.iter().find(|(_, n, _)| n == name) else {
                prop_assert!(outbox.queue.iter().all(|m| m.notification != name), "{name} waits");
                continue;
            };
            let (answer, taken) = match answer {
                0 => (Answer::Taken, true),
                1 => (refused(None), false),
                2 => (Answer::Stuck { why: "no".into() }, false),
                _ => (Answer::Unknown { why: "cut".into() }, name == "s"),
            };
            let gone = outbox::answered(&mut outbox, (id, name), all.get(name).unwrap().kind(), answer, now, 0.3);
            prop_assert_eq!(gone.is_some(), taken);
            if taken {
                got[who].push(*number);
            }
        }
        for numbers in got {
            prop_assert_eq!(&numbers, &(0..numbers.len() as u32).collect::<Vec<_>>());
        }
    }
}

#[test]
fn what_was_being_sent_when_a_process_ended_is_repeated_only_where_that_shows() {
    let all = notifiers(json!([hook("h"), slack("s")]));
    let mut outbox = queued(&all);
    for message in &mut outbox.queue {
        message.sending = Some(MicroTime(at(1)));
    }
    let mine = outbox.clone();
    assert!(outbox::recover(&mut outbox, &all, at(2), |_| true).is_empty() && outbox == mine, "it is under way here");
    let gone = outbox::recover(&mut outbox, &all, at(2), |_| false);
    assert_eq!(gone.iter().map(|g| (g.message.notification.as_str(), g.outcome)).collect::<Vec<_>>(), [("s", Outcome::Unknown)]);
    assert_eq!(outbox::due(&outbox, at(2)), [0]);
    assert_eq!((outbox.queue.len(), outbox.queue[0].id == mine.queue[0].id), (1, true));
}

#[test]
fn ten_thousand_events_leave_a_hundred_messages_and_ten_lines_of_history() {
    let all = notifiers(json!([hook("h"), slack("s")]));
    let mut outbox = VoiceRolloutOutboxSpec::default();
    let mut dropped = 0;
    for i in 0..10_000 {
        let mut s = status(&[decision(i, "RoutesChangedByOthers", &"long ".repeat(1000), None)]);
        s.current_step = Some(0);
        let gone = outbox::take_over(&mut outbox, rollout(&s), &all, at(i));
        dropped += gone.len();
        assert!(gone.iter().all(|g| g.outcome == Outcome::Dropped && g.why.contains("100 newer ones")));
        assert!(outbox.queue.len() <= MAX_QUEUED && outbox.history.len() <= 10);
    }
    assert_eq!(dropped, 20_000 - MAX_QUEUED);
    assert_eq!(outbox.queue.last().unwrap().facts.at.0, at(9999), "the oldest go");
    let size = serde_json::to_vec(&outbox).unwrap().len();
    assert!(size < 256 * 1024, "{size} bytes");
}

#[test]
fn messages_that_are_too_old_or_for_nobody_are_dropped() {
    let all = notifiers(json!([hook("h"), slack("s")]));
    let mut outbox = queued(&all);
    let mut s = status(&[decision(0, "Aborted", "why", None)]);
    s.current_step = Some(0);
    let rollout = rollout(&s);
    let gone = outbox::take_over(&mut outbox, rollout, &notifiers(json!([hook("h")])), at(1));
    assert_eq!(
        gone.iter().map(|g| (g.message.notification.as_str(), g.why.as_str())).collect::<Vec<_>>(),
        [("s", "its notification is gone")]
    );
    assert!(outbox::take_over(&mut outbox, rollout, &all, at(24 * 3600)).is_empty());
    let gone = outbox::take_over(&mut outbox, rollout, &all, at(24 * 3600 + 1));
    assert_eq!(gone.iter().map(|g| g.why.as_str()).collect::<Vec<_>>(), ["it is older than 24 hours"]);
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
fn values_make_no_mentions_and_no_links_in_slack() {
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
        {"name": "e", "webhook": {"url": "https://u:p@h.example", "headers": [{"name": "x"}]}},
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
