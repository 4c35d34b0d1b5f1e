//! What becomes of messages.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use proptest::prelude::*;
use serde_json::json;

use super::{at, decision, hook, notifiers, slack, status};
use crate::api::VoiceRolloutStatus;
use crate::api::notification::Trigger;
use crate::api::outbox::{Outcome, VoiceRolloutOutboxSpec};
use crate::api::status::DecisionRecord;
use crate::core::notify::outbox::{self, Answer, LONGEST, MAX_QUEUED, Rollout, SHORTEST};
use crate::core::notify::{Defaults, Kind, Notifiers};

fn rollout(status: &VoiceRolloutStatus) -> Rollout<'_> {
    Rollout { namespace: "voice", name: "agent", uid: "uid", version: "10", status: Some(status) }
}

#[test]
fn an_older_status_than_the_cursor_has_seen_is_no_news() {
    let all = notifiers(json!([hook("h")]));
    let old = status(&[decision(0, "ReleaseStarted", "a", None)]);
    let mut new = status(&[decision(0, "ReleaseStarted", "a", None), decision(5, "Aborted", "b", None)]);
    new.phase = crate::api::status::Phase::Degraded;
    new.current_step = Some(0);
    let mut outbox = VoiceRolloutOutboxSpec::default();
    outbox::take_over(&mut outbox, Rollout { version: "9", ..rollout(&old) }, &all, at(1));
    outbox::take_over(&mut outbox, Rollout { version: "10", ..rollout(&new) }, &all, at(6));
    assert_eq!(outbox.cursor.resource_version, "10");
    outbox.queue.clear();
    let before = outbox.clone();
    let behind = Rollout { version: "9", ..rollout(&old) };
    assert!(outbox::caught_up_with(&outbox, behind), "it would be looked at for nothing");
    assert!(outbox::take_over(&mut outbox, behind, &all, at(7)).is_empty() && outbox == before, "{outbox:#?}");
    // Nor is its spec: somebody may be there who is to be told.
    let mut waiting = queued(&all);
    waiting.cursor = outbox.cursor.clone();
    assert!(outbox::take_over(&mut waiting, behind, &Notifiers::default(), at(7)).is_empty() && waiting.queue.len() == 1);
    let newest = rollout(&new);
    assert_eq!(outbox::take_over(&mut waiting, newest, &Notifiers::default(), at(7)).len(), 1);
    // A newer version that says the same is not worth a write.
    let same = Rollout { version: "11", ..rollout(&new) };
    assert!(outbox::caught_up_with(&outbox, same));
    assert!(outbox::take_over(&mut outbox, same, &all, at(8)).is_empty() && outbox == before);
}

#[test]
fn a_rollout_without_a_status_has_no_news() {
    let s = status(&[]);
    let none = Rollout { status: None, ..rollout(&s) };
    let mut outbox = outbox::first(none);
    assert!(outbox::caught_up_with(&outbox, none));
    assert!(outbox::take_over(&mut outbox, none, &notifiers(json!([hook("h")])), at(1)).is_empty());
    assert_eq!(outbox, VoiceRolloutOutboxSpec::default());
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
        assert_eq!(outbox::due(&outbox, &all, now), [0]);
        assert_eq!(outbox::answered(&mut outbox, (&id, "h"), Kind::Webhook, refused(None), now, 0.0), None);
        let until = outbox::wake_at(&outbox, &all).unwrap();
        assert!(outbox::due(&outbox, &all, until - SignedDuration::from_millis(1)).is_empty());
        waits.push(until.duration_since(now).as_secs());
        now = until;
    }
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 600, 600, 600, 600, 600]);
    outbox::answered(&mut outbox, (&id, "h"), Kind::Webhook, refused(Some(3600)), now, 0.5);
    assert_eq!(outbox::wake_at(&outbox, &all).unwrap().duration_since(now).as_secs(), 3600);
    assert_eq!(outbox::problems(&outbox, &all), ["notification h: HTTP 500; it is tried again"]);
    outbox::answered(&mut outbox, (&id, "h"), Kind::Webhook, Answer::Taken, now, 0.5);
    assert!(outbox.queue.is_empty() && outbox::problems(&outbox, &all).is_empty() && outbox::wake_at(&outbox, &all).is_none());
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
            s.decisions.push(decision(i, "PausedByUser", &i.to_string(), None));
        }
        outbox::take_over(&mut outbox, rollout(&s), &all, at(10));
        let mut got: [Vec<u32>; 2] = Default::default();
        let mut now = at(10);
        for (who, answer) in answers {
            now += SignedDuration::from_secs(601);
            let due = outbox::due(&outbox, &all, now);
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
    assert_eq!(outbox::due(&outbox, &all, at(2)), [0]);
    assert_eq!((outbox.queue.len(), outbox.queue[0].id == mine.queue[0].id), (1, true));

    // Of what kind it is, a file that cannot be read does not say: that is decided when it can.
    let mut outbox = mine.clone();
    let unreadable = Notifiers::parse(&[], &Defaults::parse("notifications: {"));
    assert!(outbox::recover(&mut outbox, &unreadable, at(2), |_| false).is_empty() && outbox == mine);
    assert!(outbox::due(&outbox, &unreadable, at(2)).is_empty());
    assert_eq!(outbox::recover(&mut outbox, &all, at(3), |_| false).len(), 1);
}

#[test]
fn ten_thousand_events_leave_a_hundred_messages_and_ten_lines_of_history() {
    let all = notifiers(json!([hook("h"), slack("s")]));
    let mut outbox = VoiceRolloutOutboxSpec::default();
    let mut dropped = 0;
    for i in 0..10_000 {
        let mut s = status(&[decision(i, "PausedByUser", &"long ".repeat(1000), None)]);
        s.current_step = Some(0);
        let gone = outbox::take_over(&mut outbox, rollout(&s), &all, at(i));
        dropped += gone.len();
        assert!(gone.iter().all(|g| g.outcome == Outcome::Dropped && g.why.contains("100 others")));
        assert!(outbox.queue.len() <= MAX_QUEUED && outbox.history.len() <= 10);
    }
    assert_eq!(dropped, 20_000 - MAX_QUEUED);
    assert_eq!(outbox.queue.last().unwrap().facts.at.0, at(9999), "the oldest go");
    let size = serde_json::to_vec(&outbox).unwrap().len();
    assert!(size < 256 * 1024, "{size} bytes");
}

#[test]
fn drift_that_comes_again_and_again_is_one_message_and_makes_room_for_others() {
    let all = notifiers(json!([hook("h")]));
    let mut outbox = VoiceRolloutOutboxSpec::default();
    let take_over = |outbox: &mut VoiceRolloutOutboxSpec, seconds: i64, name: &str, step: &str| {
        let mut s = status(&[DecisionRecord { step: step.into(), ..decision(seconds, name, &seconds.to_string(), None) }]);
        s.current_step = Some(0);
        outbox::take_over(outbox, rollout(&s), &all, at(seconds))
    };
    for i in 0..50 {
        assert!(take_over(&mut outbox, i, "RoutesChangedByOthers", "2/4").is_empty(), "nothing is lost");
        if i == 3 {
            let head = (outbox.queue[0].id.clone(), "h");
            outbox::answered(&mut outbox, (&head.0, head.1), Kind::Webhook, refused(Some(3600)), at(i), 0.0);
        }
    }
    assert_eq!(outbox.queue.iter().map(|m| m.facts.failure_reason.as_str()).collect::<Vec<_>>(), ["49"]);
    assert_eq!(outbox.queue[0].attempts, 1, "the receiver is not asked more often");
    assert_eq!(outbox::wake_at(&outbox, &all), Some(at(3603)));
    // What is on its way stays, and so does that of another step.
    outbox.queue[0].sending = Some(MicroTime(at(50)));
    take_over(&mut outbox, 51, "RoutesChangedByOthers", "2/4");
    outbox.queue[0].sending = None;
    take_over(&mut outbox, 52, "RoutesChangedByOthers", "3/4");
    assert_eq!(outbox.queue.len(), 3);

    let mut gone = Vec::new();
    for i in 0..i64::try_from(MAX_QUEUED).unwrap() - 1 {
        gone.extend(take_over(&mut outbox, 100 + i, "PausedByUser", "3/4"));
    }
    assert_eq!(gone.iter().map(|g| g.message.facts.trigger).collect::<Vec<_>>(), [Trigger::Drift; 2]);
    assert_eq!(outbox.queue.iter().filter(|m| m.facts.trigger == Trigger::Paused).count(), MAX_QUEUED - 1);
}

#[test]
fn what_is_for_a_notification_with_a_mistake_waits_until_that_is_put_right() {
    let good = notifiers(json!([hook("h"), slack("s")]));
    let mut wrong = slack("s");
    wrong["template"] = json!("{{ setp }}");
    let typo = notifiers(json!([hook("h"), wrong]));
    assert_eq!((typo.all.len(), typo.wrong[0].kind, typo.any()), (1, Some(Kind::SlackBot), true));
    let mut outbox = queued(&good);
    let mut s = status(&[decision(0, "Aborted", "why", None), decision(1, "Retried", "again", None)]);
    s.current_step = Some(0);
    assert!(outbox::take_over(&mut outbox, rollout(&s), &typo, at(2)).is_empty());
    let names = |outbox: &VoiceRolloutOutboxSpec| outbox.queue.iter().map(|m| m.notification.clone()).collect::<Vec<_>>();
    assert_eq!(names(&outbox), ["h", "s", "h", "s"], "news for it is queued too");
    assert_eq!(outbox::due(&outbox, &typo, at(2)), [0]);
    outbox.queue.retain(|m| m.notification == "s");
    // Nothing to do until the first of them is too old.
    assert!(outbox::due(&outbox, &typo, at(2)).is_empty());
    assert_eq!(outbox::wake_at(&outbox, &typo), Some(at(24 * 3600)));
    assert_eq!(outbox::due(&outbox, &good, at(2)), [0]);
    assert_eq!(outbox::take_over(&mut outbox, rollout(&s), &typo, at(24 * 3600 + 1)).len(), 1);

    // Alone it is somebody, too; and which defaults a file has that cannot be read is not known.
    let only = notifiers(json!([wrong]));
    assert!(only.any() && !only.nobody());
    let unreadable = Notifiers::parse(&[], &Defaults::parse("notifications: {"));
    assert!(!unreadable.any() && !unreadable.nobody());
    assert!(outbox::take_over(&mut outbox, rollout(&s), &unreadable, at(5)).is_empty());
    assert!(Notifiers::parse(&[], &Defaults::default()).nobody());
    let gone = outbox::drop_all(&mut outbox, at(5));
    assert_eq!(gone.iter().map(|g| (g.outcome, g.why.as_str())).collect::<Vec<_>>(), [(Outcome::Dropped, "its notification is gone")]);
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
