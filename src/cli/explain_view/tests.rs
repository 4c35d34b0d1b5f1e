use serde_json::json;

use super::*;
use crate::api::action::Verb;
use crate::cli::samples::{now, rollout};
use crate::core::machine::tests::commands::worlds;

fn explained(rollout: &VoiceRollout, runs: &[VoiceAnalysisRun], width: usize) -> String {
    let typed = Typed { program: "kubectl voicerollout", namespace: "voice" };
    render(rollout, runs, now(), Paint { colour: false, width: Some(width) }, typed)
}

fn counting() -> (VoiceRollout, VoiceAnalysisRun) {
    let rollout = rollout(json!({
        "observedGeneration": 4, "phase": "Progressing", "attempt": 1, "currentStep": 2, "stepDisplay": "3/10",
        "waitingFor": "first-token > 900: 7 of 41 canary calls, 31 of 902 stable",
        "stableRevision": "5b7c9d", "canaryRevision": "6d5f8c", "weights": {"desired": 25, "applied": 25},
        "nextAction": {"what": "next look of first-token", "at": "2026-03-01T12:10:15Z"},
        "gates": [
            {"name": "eval-pass-rate", "kind": "Step", "verdict": "Pass", "value": "0.95", "message": "0.95 >= 0.92"},
            {"name": "first-token", "kind": "Background", "message": "> 900: 6 of 40 canary calls", "toldAt": "2026-03-01T12:09:00Z"},
        ],
        "revisions": [
            {"hash": "6d5f8c", "number": 7, "role": "Canary", "replicas": 3, "ready": 3},
            {"hash": "5b7c9d", "number": 6, "role": "Stable", "replicas": 10, "ready": 10, "wasStable": true},
            {"hash": "aa01", "number": 5, "role": "Draining", "replicas": 2, "ready": 2, "liveCalls": 17, "retiredAt": "2026-03-01T11:40:00Z"},
        ],
        "decisions": [
            {"at": "2026-03-01T10:02:00Z", "revision": "5b7c9d", "decision": "Promoted", "reason": "not about this release"},
            {"at": "2026-03-01T12:02:00Z", "revision": "6d5f8c", "decision": "ReleaseStarted", "reason": "releasing revision 6d5f8c beside stable 5b7c9d"},
            {"at": "2026-03-01T12:07:40Z", "revision": "6d5f8c", "step": "2/10", "decision": "Promoted", "reason": "the pause of step 2/10 was ended", "by": "jane"},
        ],
    }));
    let comparison = json!({"edge": 900, "canary": {"calls": 41, "bad": 7}, "stable": {"calls": 902, "bad": 31}, "estimate": 5.8, "low": 1.21,
        "logEvidence": 3.526, "logAbortLine": 4.605, "ticks": 9, "dataAt": "2026-03-01T12:09:45Z", "minCanary": 50,
        "pass": [{"weight": 25, "below": "odds ratio 3", "logEvidence": -0.5, "logLine": 2.996, "toPass": {"calls": 700, "seconds": 4200}}]});
    let run = serde_json::from_value(json!({"apiVersion": "voicerollout.dev/v1alpha1", "kind": "VoiceAnalysisRun",
        "metadata": {"name": "r"}, "spec": {"rollout": "voice-agent", "rolloutUid": "u", "kind": "Background", "revision": "6d5f8c",
            "attempt": 1, "gates": []},
        "status": {"gates": [{"name": "first-token", "comparison": comparison}]}}));
    (rollout, run.unwrap())
}

#[test]
fn a_release_on_its_way() {
    let (rollout, run) = counting();
    insta::assert_snapshot!("on_its_way_140", explained(&rollout, std::slice::from_ref(&run), 140));
    insta::assert_snapshot!("on_its_way_60", explained(&rollout, &[run], 60));
}

#[test]
fn a_release_that_a_gate_stopped() {
    let rollout = rollout(json!({
        "observedGeneration": 4, "phase": "Degraded", "attempt": 1, "currentStep": 5, "stepDisplay": "6/10",
        "stableRevision": "5b7c9d", "canaryRevision": "6d5f8c", "weights": {"desired": 0, "applied": 0},
        "abort": {"revision": "6d5f8c", "at": "2026-03-01T12:05:30Z", "step": "6/10", "weight": 25, "gate": "p95-first-token",
                  "reason": "gate p95-first-token failed: 912 breaks result[0] <= 800",
                  "explanation": "canary calls tools 3.1 times a call, stable 2.2 times"},
        "gates": [{"name": "p95-first-token", "kind": "Step", "verdict": "Fail", "consequence": "Abort", "value": "912", "message": "912 breaks result[0] <= 800"}],
        "revisions": [{"hash": "5b7c9d", "number": 6, "role": "Stable", "wasStable": true}, {"hash": "6d5f8c", "number": 7, "role": "Draining", "aborted": true}],
        "decisions": [{"at": "2026-03-01T12:05:30Z", "revision": "6d5f8c", "step": "6/10", "decision": "Aborted", "reason": "gate p95-first-token failed",
                       "values": ["p95-first-token=912 (Fail)"]}],
    }));
    insta::assert_snapshot!("aborted_140", explained(&rollout, &[], 140));
    insta::assert_snapshot!("aborted_60", explained(&rollout, &[], 60));
}

#[test]
fn lines_fit_the_terminal_but_commands_are_not_broken() {
    let (rollout, run) = counting();
    for width in [60, 80, 100, 140] {
        for line in explained(&rollout, std::slice::from_ref(&run), width).lines() {
            assert!(line.chars().count() <= width || line.contains("kubectl voicerollout"), "{width}: {line}");
        }
    }
}

#[test]
fn nobody_is_told_to_promote_past_a_failed_gate() {
    let failed = json!([{"name": "p95", "kind": "Step", "verdict": "Fail", "consequence": "Pause", "message": "912"}]);
    let held = json!([{"name": "p95", "kind": "Step", "verdict": "Error", "consequence": "Pause", "message": "no answer"}]);
    let of = |gates| explained(&rollout(json!({"observedGeneration": 4, "phase": "Paused", "gates": gates})), &[], 100);
    assert!(!of(failed.clone()).contains("promote") && of(failed).contains(" abort "));
    assert!(of(held).contains("kubectl voicerollout promote voice-agent -n voice"));
}

#[test]
fn no_command_is_offered_that_the_operator_would_refuse() {
    let verbs =
        [("promote", Verb::Promote), ("abort", Verb::Abort), ("retry", Verb::Retry), ("pause", Verb::Pause), ("resume", Verb::Resume)];
    let mut offered = Vec::new();
    for (name, world) in worlds() {
        let mut rollout = VoiceRollout::new("agent", world.spec.clone());
        rollout.status = Some(world.status.clone());
        let failed = world.status.gates.iter().any(|g| g.verdict == Some(Verdict::Fail));
        for choice in words::choices(&rollout) {
            let Some((_, verb)) = verbs.iter().find(|(verb, _)| *verb == choice.verb) else { continue };
            let verb = if choice.rest.contains("--skip-step") { Verb::SkipStep } else { *verb };
            let mut w = world.clone();
            // It says that the abort comes first.
            if verb == Verb::Retry && failed {
                assert!(w.command(Verb::Abort).0);
            }
            let (did, answer) = w.command(verb);
            assert!(did, "{name}: {verb:?} is offered ({}) and refused: {answer}", choice.what);
            offered.push((name, verb));
        }
    }
    let ways = [
        ("PauseStep", Verb::Promote),
        ("HeldByError", Verb::Promote),
        ("PauseHeldByError", Verb::Promote),
        ("SplitUnseen", Verb::Promote),
        ("Measuring", Verb::SkipStep),
        ("StepsOver", Verb::SkipStep),
        ("PausedByUser", Verb::Resume),
        ("HeldByFail", Verb::Retry),
        ("Degraded", Verb::Retry),
        ("Progressing", Verb::Pause),
    ];
    for way in ways {
        assert!(offered.contains(&way), "{way:?} is not offered: {offered:?}");
    }
}

#[test]
fn the_run_with_the_measurements_of_the_gate_that_failed_is_named() {
    let shown = |gates: serde_json::Value| {
        let run = |name: &str, kind: &str, step: Option<i32>| json!({"name": name, "kind": kind, "step": step, "specHash": "x"});
        let runs = [run("bg", "Background", None), run("s1", "Step", Some(0)), run("s3", "Step", Some(2)), run("why", "Explanation", None)];
        let abort = json!({"revision": "6d5f8c", "at": "2026-03-01T12:05:30.000000Z", "gate": "p95", "reason": "gate p95 failed"});
        let status =
            json!({"phase": "Degraded", "canaryRevision": "6d5f8c", "currentStep": 2, "abort": abort, "gates": gates, "runs": runs});
        explained(&rollout(status), &[], 100)
    };
    for (kind, run) in [("Step", "s3"), ("Background", "bg")] {
        let text = shown(json!([{"name": "p95", "kind": kind, "verdict": "Fail"}, {"name": "judge", "kind": "Step", "verdict": "Pass"}]));
        assert!(text.contains(&format!("Read what p95 measured:\n    kubectl get voiceanalysisrun {run} -n voice -o yaml")), "{text}");
    }
    assert!(!shown(json!([])).contains("voiceanalysisrun"));
}

#[test]
fn nobody_is_sent_back_to_a_version_that_was_aborted_since() {
    let of = |aborted: bool| {
        let before = json!({"hash": "aa01", "number": 5, "role": "Retired", "wasStable": true, "aborted": aborted});
        explained(
            &rollout(json!({"observedGeneration": 4, "phase": "Healthy", "stableRevision": "5b7c9d", "revisions": [before]})),
            &[],
            100,
        )
    };
    assert!(of(false).contains(" undo ") && !of(true).contains(" undo "));
}

#[test]
fn a_condition_that_asks_for_attention_is_told_here_too() {
    let beyond = json!([{"type": "WeightsReachable", "status": "False", "reason": "Beyond", "lastTransitionTime": "2026-03-01T12:00:00Z",
        "message": "step weight 75 %: 10 canary workers of 20"}]);
    let text = explained(&rollout(json!({"observedGeneration": 4, "phase": "Progressing", "conditions": beyond})), &[], 100);
    assert!(text.contains("Wrong: step weight 75 %"), "{text}");
}

#[test]
fn a_release_with_an_overridden_step_is_not_said_to_have_passed_every_one() {
    let of = |steps: serde_json::Value| {
        let promotion = json!({"revision": "6d5f8c", "grounds": "StepsPassed", "stage": "FullWeight", "since": "2026-03-01T12:00:00Z"});
        let status = json!({"observedGeneration": 4, "phase": "Promoting", "stableRevision": "5b7c9d", "canaryRevision": "6d5f8c",
            "promotion": promotion, "overriddenSteps": steps});
        explained(&rollout(status), &[], 200)
    };
    assert!(of(json!([])).contains("every step passed") && !of(json!([])).contains("every step passed but"));
    assert!(of(json!(["2/4"])).contains("every step passed but 2/4, where a person overrode what was missing"));
}

#[test]
fn every_phase_says_where_it_stands_and_what_can_be_done() {
    for phase in ["Pending", "Initializing", "Invalid", "Healthy", "Progressing", "Paused", "Promoting", "Reverting", "Degraded"] {
        let text = explained(&rollout(json!({"observedGeneration": 4, "phase": phase})), &[], 100);
        assert!(text.contains("WHAT HAPPENS NEXT") && text.contains("WHAT YOU CAN DO"), "{phase}: {text}");
        assert!(text.contains("-n voice"), "{phase}: {text}");
    }
}

#[test]
fn one_that_nobody_has_looked_at_says_so() {
    let mut rollout = rollout(json!({}));
    rollout.status = None;
    assert!(explained(&rollout, &[], 100).contains("The operator has not looked at this VoiceRollout"));
}

#[test]
fn what_a_provider_says_cannot_move_the_cursor() {
    let hostile = json!([{"name": "judge", "kind": "Step", "message": "PASS\r\n\u{1b}]0;title\u{7}", "warnings": ["\u{1b}[2J"]}]);
    let text = explained(&rollout(json!({"phase": "Progressing", "waitingFor": "\u{1b}[2J", "gates": hostile})), &[], 100);
    assert!(!text.contains('\u{1b}') && !text.contains('\r') && !text.contains('\u{7}'), "{text:?}");
}
