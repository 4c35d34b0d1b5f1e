use super::*;
use crate::api::VoiceAnalysisRun;
use crate::api::common::TRACEPARENT_ANNOTATION;

#[test]
fn a_place_is_written_as_trace_context_has_it_and_read_again() {
    let place = Place::root(&["uid", "abc", "2", "1"]);
    let text = place.to_string();
    assert_eq!((text.len(), &text[..3], &text[52..]), (55, "00-", "-01"), "{text}");
    assert_eq!(text.parse(), Ok(place));
    assert_eq!(place.child(&["step", "0"]), place.child(&["step", "0"]));
    assert_ne!(place.child(&["step", "0"]), place.child(&["step0"]));
    assert_ne!(Place::root(&["uid", "abc", "21"]), Place::root(&["uid", "abc2", "1"]));
}

#[test]
fn what_is_no_place_is_none() {
    let zero = format!("00-{:032}-{:016}-01", 0, 0);
    for text in ["", "00", &zero, "00-zz-11-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b-01"] {
        assert_eq!(text.parse::<Place>(), Err(()), "{text}");
    }
}

fn run(phase: &str) -> VoiceAnalysisRun {
    let place = Place::root(&["uid"]).to_string();
    serde_json::from_value(serde_json::json!({
        "apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceAnalysisRun",
        "metadata": {"name": "agent-bg", "namespace": "voice", "annotations": {TRACEPARENT_ANNOTATION: place}},
        "spec": {"rollout": "agent", "rolloutUid": "uid", "kind": "Background", "revision": "abc", "attempt": 1, "gates": []},
        "status": {
            "phase": phase, "message": "gate p95 failed", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:10:00Z",
            "gates": [
                {"name": "p95", "verdict": "Fail", "message": "1.9 is not below 1.2", "value": "1.9", "startedAt": "2026-01-01T00:05:00Z",
                 "counts": {"pass": 1, "fail": 1}, "measurements": [
                    {"startedAt": "2026-01-01T00:05:00Z", "finishedAt": "2026-01-01T00:05:01Z", "verdict": "Pass", "value": "0.9"},
                    {"startedAt": "2026-01-01T00:06:00Z", "finishedAt": "2026-01-01T00:06:01Z", "verdict": "Fail", "value": "1.9"}]},
                {"name": "judge", "tokens": {"input": 1200, "output": 80}},
            ],
        },
    }))
    .unwrap()
}

#[test]
fn a_run_that_has_ended_shows_its_gates_and_their_measurements() {
    let run = run("Fail");
    let spans = of_run(&run, run.status.as_ref().unwrap());
    let [whole, p95, judge] = &spans[..] else { panic!("{spans:#?}") };
    let parent = Place::root(&["uid"]);
    assert_eq!((whole.place.trace, whole.parent, whole.name.as_str()), (parent.trace, Some(parent.span), "background analysis"));
    assert_eq!(whole.failed.as_deref(), Some("gate p95 failed"));
    assert_eq!((p95.parent, judge.parent), (Some(whole.place.span), Some(whole.place.span)));
    assert_eq!((p95.start.to_string(), p95.end.to_string()), ("2026-01-01T00:05:00Z".into(), "2026-01-01T00:06:01Z".into()));
    assert_eq!(p95.failed.as_deref(), Some("1.9 is not below 1.2"));
    assert_eq!(p95.moments.len(), 2);
    assert!(p95.moments[1].attributes.contains(&("voicerollout.value", Value::Text("1.9".into()))));
    assert!(judge.attributes.contains(&("gen_ai.usage.input_tokens", Value::Number(1200))));
    assert!(judge.attributes.contains(&("voicerollout.verdict", Value::Text("undecided".into()))) && judge.failed.is_none());
}

#[test]
fn a_run_that_goes_on_or_has_no_place_shows_nothing() {
    let mut run = run("Running");
    assert_eq!(of_run(&run, run.status.as_ref().unwrap()), []);
    run.status.as_mut().unwrap().phase = crate::api::run::RunPhase::Pass;
    run.metadata.annotations.as_mut().unwrap().insert(TRACEPARENT_ANNOTATION.into(), "nonsense".into());
    assert_eq!(of_run(&run, run.status.as_ref().unwrap()), []);
}

#[test]
fn long_texts_are_cut_between_characters() {
    let Some((_, Value::Text(short))) = text("reason", &"ü".repeat(2000)) else { panic!() };
    assert_eq!((short.chars().count(), short.ends_with('…')), (1000, true));
}
