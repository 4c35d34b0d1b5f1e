//! What a trace shows of whole releases.

use std::collections::BTreeSet;

use super::specs::*;
use super::world::{Say, World};
use crate::api::action::Verb;
use crate::api::status::Phase;
use crate::core::spans::Span;

/// Name, step and outcome.
fn told(spans: &[Span]) -> Vec<(&str, &str, &str)> {
    spans.iter().map(|s| (s.name.as_str(), s.text("voicerollout.step"), s.text("voicerollout.outcome"))).collect()
}

/// Every id once, but for a drain that a cache took for over which lags behind; nothing ends before it begins; whatever is of a release lies within it, but for its drain.
pub fn check(spans: &[Span]) -> Result<(), String> {
    let mut ids = BTreeSet::new();
    for span in spans {
        if !ids.insert((span.place.trace, span.place.span)) && span.name != "drain" {
            return Err(format!("twice: {span:#?}"));
        }
        if span.end < span.start {
            return Err(format!("ends before it begins: {span:#?}"));
        }
        let root = spans.iter().find(|s| s.parent.is_none() && s.place.trace == span.place.trace);
        let Some(root) = root.filter(|_| span.parent.is_some()) else { continue };
        if span.parent != Some(root.place.span) || span.start < root.start || (span.end > root.end && span.name != "drain") {
            return Err(format!("not within its release: {span:#?}\n{root:#?}"));
        }
    }
    Ok(())
}

#[test]
fn a_good_release_shows_each_step_the_promotion_and_the_drain_in_one_trace() {
    let mut w = World::deployed(spec(Some(vec![weight(25), pause(Some(60)), weight(50)]), None));
    assert_eq!(told(&w.spans), [("release", "", "promoted")], "the first deployment");
    w.spans.clear();
    let begun = w.seen.now;
    w.apply_version(2);
    w.until("promoted", |w| w.status.phase == Phase::Healthy && w.status.stable_revision == Some(hash(2)));
    w.run(4000);
    let expected = [
        ("setWeight", "1/3", "passed"),
        ("pause", "2/3", "passed"),
        ("setWeight", "3/3", "passed"),
        ("release", "", "promoted"),
        ("drain", "", ""),
    ];
    assert_eq!(told(&w.spans), expected, "{}", w.describe());
    assert_eq!(check(&w.spans), Ok(()));
    let [first, wait, last, root, drain] = &w.spans[..] else { panic!() };
    assert_eq!(w.spans.iter().map(|s| s.place.trace).collect::<BTreeSet<_>>().len(), 1);
    assert_eq!((root.start, first.end, wait.end), (begun, wait.start, last.start));
    assert!((60..70).contains(&wait.end.duration_since(wait.start).as_secs()), "{wait:#?}");
    assert!((3600..3700).contains(&drain.end.duration_since(drain.start).as_secs()), "{drain:#?}");
    let decisions: Vec<&str> = root.moments.iter().map(|m| m.name.as_str()).collect();
    assert_eq!((decisions.first(), decisions.last()), (Some(&"ReleaseStarted"), Some(&"Promoted")));
    assert_eq!((root.text("deployment.status"), &root.failed), ("succeeded", &None));
}

#[test]
fn a_failed_gate_ends_its_step_and_the_release_with_the_reason_and_a_retry_is_another_trace() {
    let mut w = World::releasing(spec(Some(article()), None));
    w.spans.clear();
    w.script.insert("p95".into(), Say::Fail);
    w.until_phase(Phase::Degraded);
    let failed: Vec<_> = w.spans.iter().filter(|s| s.failed.is_some()).collect();
    let [step, root] = &failed[..] else { panic!("{:#?}", w.spans) };
    assert_eq!((step.name.as_str(), step.text("voicerollout.step"), root.name.as_str()), ("analysis", "3/10", "release"));
    assert!(root.failed.as_ref().unwrap().contains("gate p95 failed at step 3/10"), "{root:#?}");
    assert_eq!((root.text("voicerollout.gate"), root.text("deployment.status")), ("p95", "failed"));
    let first = root.place.trace;
    w.script.insert("p95".into(), Say::Pass);
    assert!(w.command(Verb::Retry).0);
    w.until("promoted", |w| w.status.stable_revision == Some(hash(2)) && w.status.phase == Phase::Healthy);
    let root = w.spans.iter().rfind(|s| s.parent.is_none()).unwrap();
    assert_eq!((root.place.trace == first, root.text("voicerollout.outcome")), (false, "promoted"));
    assert_eq!(check(&w.spans), Ok(()));
}

#[test]
fn a_release_that_another_one_replaces_is_superseded_and_the_same_version_again_is_another_trace() {
    let mut w = World::releasing(spec(Some(vec![weight(25), pause(None)]), None));
    w.until_phase(Phase::Paused);
    w.spans.clear();
    let waits = |w: &mut World, version| {
        w.apply_version(version);
        w.until("paused", |w| w.status.phase == Phase::Paused && w.status.canary_revision == Some(hash(version)));
    };
    waits(&mut w, 3);
    assert_eq!(told(&w.spans)[..2], [("pause", "2/2", "superseded"), ("release", "", "superseded")]);
    waits(&mut w, 2);
    assert!(w.command(Verb::Promote).0);
    w.until("promoted", |w| w.status.stable_revision == Some(hash(2)) && w.status.phase == Phase::Healthy);
    assert_eq!(check(&w.spans), Ok(()), "{:#?}", told(&w.spans));
    let pause = w.spans.iter().rfind(|s| s.name == "pause").unwrap();
    assert_eq!((pause.text("voicerollout.by"), pause.text("voicerollout.outcome")), ("ann", "passed"));
}

#[test]
fn a_step_that_a_person_skipped_is_not_shown_as_passed() {
    let step = crate::api::rollout::Step { analysis: Some(gates(vec![gate("p95")])), ..Default::default() };
    let mut w = World::releasing(spec(Some(vec![weight(25), step, pause(None)]), None));
    w.script.insert("p95".into(), Say::Nothing);
    w.until("the analysis", |w| w.status.current_step == Some(1));
    w.spans.clear();
    assert!(w.command(Verb::SkipStep).0);
    w.until_phase(Phase::Paused);
    assert_eq!(told(&w.spans), [("analysis", "2/3", "overridden")]);
    assert_eq!(w.spans[0].text("voicerollout.by"), "ann");
}
